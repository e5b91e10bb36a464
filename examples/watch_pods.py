#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Watch pods as a live table; rows change as the pods do.

    python3 examples/watch_pods.py [namespace] [--seconds 10]
"""

from common import age, colour, connect, draw, options, run, table, wait

COLOUR = {"Running": "green", "Succeeded": "green", "Pending": "yellow", "Failed": "red"}


def show(pods):
    rows = []
    for pod in sorted(pods, key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"])):
        status = pod.get("status", {})
        restarts = sum(one.get("restartCount", 0) for one in status.get("containerStatuses") or [])
        phase = "Terminating" if pod["metadata"].get("deletionTimestamp") else status.get("phase", "?")
        rows.append([pod["metadata"]["namespace"], pod["metadata"]["name"], (phase, COLOUR.get(phase, "yellow")),
                     restarts, pod["spec"].get("nodeName", "-"), age(pod), (pod.get("actionType", ""), "dim")])
    draw(table(rows, ["NAMESPACE", "NAME", "STATUS", "RESTARTS", "NODE", "AGE", "LAST"]) + ["", "%d pods" % len(rows)])


def main():
    given = options("namespace")
    with connect(live=True) as client:
        client.api_factory_with_namespace("", "v1", "pods").list(
            given.namespace or "", show, lambda error, cancel: print(colour("red", error)))
        wait(given.seconds)


if __name__ == "__main__":
    run(main)
