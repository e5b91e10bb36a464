#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drain a node: mark it unschedulable and evict its pods, with a bar of how far it is.

    python3 examples/drain.py NODE [--seconds 300]

Disruption budgets are respected, except by a Headlamp server, which deletes pods at once.
`kubectl uncordon NODE` takes the node back into service.
"""

import sys
from typing import Any, List

from common import bar, cli, colour, connect, named, options, say, trouble, wait


def main() -> None:
    args = options("node")
    pods: List[Any] = []
    with connect(args, drain_time=1.0) as client:
        client.drain_timeout = args.seconds or 300.0
        node = named(args, "node", client, "/api/v1/nodes")
        client.request("/api/v1/nodes/" + node)  # or there is none, which is told

        def keep(items: List[Any]) -> None:
            pods[:] = [pod for pod in items if not any(
                owner["kind"] in ("DaemonSet", "Node")
                for owner in pod["metadata"].get("ownerReferences", []))]

        on_node = {"fieldSelector": {"spec.nodeName": node}}
        client.stream_results("/api/v1/pods", keep, trouble, on_node)
        say(client.drain_node(client.cluster, node)["message"])

        status, total, before = "", 0, -1
        for _ in range(int(client.drain_timeout * 4) + 20):
            wait(0.25)
            total = max(total, len(pods))
            if len(pods) != before:
                before = len(pods)
                say("%s %s %d pods left" % (node, bar(total - before, total), before))
            status = client.drain_node_status(client.cluster, node)["id"]
            if status:
                break
        done = status == "success"
        say(colour("green" if done else "red", status or "still not empty"))
        sys.exit(not done)


if __name__ == "__main__":
    cli(main)
