#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""CPU and memory of nodes and pods as bars, every ten seconds.

    python3 examples/top.py [--seconds 30]
"""

from common import bar, colour, connect, draw, options, run, wait

UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text):
    """A Kubernetes quantity ("250m", "64Mi") as a number."""
    digits = text.rstrip("numkKMGTi")
    return float(digits or 0) * UNITS[text[len(digits):]]


def main():
    given = options()
    with connect(live=True) as client:
        room = {node["metadata"]["name"]: node["status"].get("allocatable") or node["status"]["capacity"]
                for node in client.request("/api/v1/nodes")["items"]}
        shown = {"nodes": [], "pods": []}

        def show(what, lines):
            shown[what] = lines
            draw(shown["nodes"] + [""] + shown["pods"])

        def nodes(items):
            lines = []
            for item in items:
                name, usage = item["metadata"]["name"], item["usage"]
                parts = [(quantity(usage[what]), quantity(room[name][what])) for what in ("cpu", "memory")]
                lines.append("%-16s cpu %s %5.2f of %g   memory %s %5.0f of %.0f Mi" % (
                    name, bar(*parts[0]), *parts[0], bar(*parts[1]), parts[1][0] / 2**20, parts[1][1] / 2**20))
            show("nodes", lines)

        def pods(items):
            used = {item["metadata"]["name"]: sum(quantity(one["usage"]["cpu"]) for one in item["containers"]) for item in items}
            most = sorted(used, key=used.get, reverse=True)[:8]
            show("pods", ["%-40s cpu %s %6.3f" % (name, bar(used[name], used[most[0]] * 1.01), used[name]) for name in most])

        for what, callback in (("nodes", nodes), ("pods", pods)):
            client.metrics("/apis/metrics.k8s.io/v1beta1/" + what, callback, lambda error: print(colour("red", error)))
        wait(given.seconds)


if __name__ == "__main__":
    run(main)
