#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The deployments of several clusters at once, in one live table, until Ctrl-C.

    python3 examples/watch_clusters.py [--clusters dev,prod] [--kubeconfig FILE]

Without --clusters: every context of the kubeconfig. A cluster that is away is a red line, and the
others go on.
"""

import threading
from typing import Any, Dict, List

from common import bar, chosen_clusters, cli, colour, connect, draw, options, until_ctrl_c

import apiproxy

lines_of: Dict[str, List[str]] = {}
lock = threading.Lock()  # each cluster's watch has a thread of its own


def show(cluster: str, lines: List[str]) -> None:
    """Have `lines` below the name of a cluster from now on."""
    with lock:
        lines_of[cluster] = lines
        draw([line for name, below in lines_of.items() for line in [colour("cyan", name), *below]])


def line(item: Any) -> str:
    """How one deployment is."""
    wanted = item["spec"].get("replicas", 1)
    ready = item.get("status", {}).get("readyReplicas", 0)
    name = "%(namespace)s/%(name)s" % item["metadata"]
    return "  %-40s %s %d/%d" % (name, bar(ready, wanted, 10), ready, wanted)


def watch(client: apiproxy.Client, cluster: str) -> None:
    """Keep the lines of one cluster as it is."""
    client.stream_results_for_cluster("/apis/apps/v1/deployments", {
        "cluster": cluster,
        "cb": lambda items: show(cluster, sorted(map(line, items)) or ["  none"]),
        "errCb": lambda error, cancel: show(cluster, ["  " + colour("red", error)]),
    })


def main() -> None:
    args = options(clusters="")
    demo = "east", "west", "north"
    with connect(args, *demo, live=True) as client:
        clusters = chosen_clusters(args, client, *demo)
        lines_of.update((cluster, ["  ..."]) for cluster in clusters)
        for cluster in clusters:
            watch(client, cluster)
        until_ctrl_c(args.seconds)


if __name__ == "__main__":
    cli(main)
