#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A live table of pods: rows change as the pods do, until Ctrl-C.

    python3 examples/watch_pods.py [-n NAMESPACE] [--context NAME]
"""

from typing import Any, Dict, List

from common import (
    Cell, age, cli, colour, connect, draw, glyphs, options, table, trouble, until_ctrl_c,
)

HEADS = ("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "NODE", "AGE")
SHADES = {"Running": "green", "Succeeded": "green", "Failed": "red"}


def row(pod: Any) -> List[Cell]:
    """One line of the table."""
    metadata, status = pod["metadata"], pod.get("status", {})
    containers: List[Dict[str, Any]] = status.get("containerStatuses") or []
    ready = sum(bool(container.get("ready")) for container in containers)
    phase = "Terminating" if metadata.get("deletionTimestamp") else status.get("phase", "?")

    return [
        metadata["namespace"],
        metadata["name"],
        "%d/%d" % (ready, len(pod["spec"]["containers"])),
        (phase, SHADES.get(phase, "yellow")),
        sum(container.get("restartCount", 0) for container in containers),
        pod["spec"].get("nodeName", "-"),
        age(pod),
    ]


def show(pods: List[Any]) -> None:
    """Called with the whole list: at first, and after every change."""
    rows = sorted(map(row, pods))
    running = sum(pod.get("status", {}).get("phase") == "Running" for pod in pods)
    dots = colour("green", glyphs("●", "*") * running)
    draw(["%d pods, %d running  %s" % (len(pods), running, dots), "", *table(rows, HEADS)])


def main() -> None:
    args = options(namespace="")
    with connect(args, live=True) as client:
        client.gather = 0.2  # at most five tables a second
        pods = client.api_factory_with_namespace("", "v1", "pods")
        pods.list(args.namespace, show, trouble)
        until_ctrl_c(args.seconds)


if __name__ == "__main__":
    cli(main)
