#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drain a node, with a line that tells how many of its pods are left.

    python3 examples/drain.py [node] [--seconds 60]
"""

import sys
import time

from common import bar, colour, connect, options, run


def main():
    given = options("node")
    with connect(drain_time=1.0) as client:
        node = given.node or client.request("/api/v1/nodes")["items"][-1]["metadata"]["name"]
        pods = []
        client.stream_results("/api/v1/pods", lambda items: pods.__setitem__(slice(None), items),
                              lambda error, cancel: print(colour("red", error)), {"fieldSelector": "spec.nodeName=" + node})
        print(client.drain_node(client.cluster, node)["message"])
        end = time.monotonic() + (given.seconds or 300)
        total, status = 0, ""
        while not status and time.monotonic() < end:
            time.sleep(0.2)
            total = max(total, len(pods))
            status = client.drain_node_status(client.cluster, node)["id"]
            print("%s %s %2d pods left" % (node, bar(total - len(pods), total), len(pods)), flush=True)
        print(colour("green" if status == "success" else "red", status or "not done in time"))
        sys.exit(0 if status == "success" else 1)


if __name__ == "__main__":
    run(main)
