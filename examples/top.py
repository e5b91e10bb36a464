#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""CPU and memory of nodes as bars, and the busiest pods; every ten seconds, until Ctrl-C.

    python3 examples/top.py [--pods 8]

The cluster needs metrics-server: without it the answer is one line that says so.
"""

from typing import Any, Dict, List

from common import (
    Cell, bar, cli, connect, draw, finish, options, table, trouble, until_ctrl_c, warn,
)

import apiproxy

UNITS = {"": 1, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
         "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str) -> float:
    """A Kubernetes quantity ("250m", "64Mi") as a number."""
    digits = text.rstrip("numkKMGTi")
    return float(digits or 0) * UNITS[text[len(digits):]]


def gauge(usage: Any, room: Any, what: str) -> str:
    """A bar, and the share in percent."""
    used, whole = quantity(usage[what]), quantity(room[what])
    return "%s %3.0f%%" % (bar(used, whole, 16), 100 * used / whole)


def main() -> None:
    args = options(pods=8)
    shown: Dict[str, List[str]] = {"nodes": [], "pods": []}
    with connect(args, live=True) as client:
        rooms = {node["metadata"]["name"]: node["status"]["allocatable"]
                 for node in client.request("/api/v1/nodes")["items"]}

        def show(what: str, lines: List[str]) -> None:
            shown[what] = lines
            draw(shown["nodes"] + [""] + shown["pods"])

        def nodes(items: List[Any]) -> None:
            show("nodes", ["%-20s cpu %s  memory %s" % (
                name, gauge(item["usage"], rooms[name], "cpu"),
                gauge(item["usage"], rooms[name], "memory"))
                for item in items for name in [item["metadata"]["name"]] if name in rooms])

        def pods(items: List[Any]) -> None:
            rows: List[List[Cell]] = []
            for pod in items:
                usages = [container["usage"] for container in pod["containers"]]
                cpu = 1000 * sum(quantity(usage["cpu"]) for usage in usages)
                memory = sum(quantity(usage["memory"]) for usage in usages) / 2**20
                rows.append(["%7.0fm" % cpu, "%6.0fMi" % memory, pod["metadata"]["name"]])
            busiest = sorted(rows, reverse=True)[:args.pods]
            show("pods", table(busiest, ["     CPU", "  MEMORY", "POD"]))

        def failed(error: apiproxy.ApiError) -> None:
            if error.status == 404:
                warn("top.py: this cluster has no metrics.k8s.io: is metrics-server there?")
                finish(1)
            else:
                trouble(error, lambda: None)

        for what, callback in (("nodes", nodes), ("pods", pods)):
            client.metrics("/apis/metrics.k8s.io/v1beta1/" + what, callback, failed)
        until_ctrl_c(args.seconds)


if __name__ == "__main__":
    cli(main)
