#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Watch the deployments of several clusters at once, in one table.

    python3 examples/watch_clusters.py [--clusters dev,prod] [--seconds 10]
"""

import threading

from common import bar, colour, connect, draw, options, run, wait


def main():
    given = options(clusters="east,west,north")
    clusters = given.clusters.split(",")
    seen, lock = {}, threading.Lock()  # each cluster's watch has its own thread

    def show(cluster, lines):
        with lock:
            seen[cluster] = lines
            draw([line for name in clusters for line in [colour("cyan", name)] + seen.get(name, ["  ..."])])

    def on_list(cluster):
        def callback(items):
            show(cluster, ["  %-22s %s %d/%d" % (
                item["metadata"]["name"], bar(item.get("status", {}).get("readyReplicas", 0), item["spec"]["replicas"], 10),
                item.get("status", {}).get("readyReplicas", 0), item["spec"]["replicas"])
                for item in items if item["metadata"]["namespace"] != "kube-system"])
        return callback

    with connect(*clusters, live=True) as client:
        for cluster in clusters:
            client.stream_results_for_cluster("/apis/apps/v1/deployments", {
                "cb": on_list(cluster), "cluster": cluster,
                "errCb": lambda error, cancel, cluster=cluster: show(cluster, ["  " + colour("red", error)])})
        wait(given.seconds)


if __name__ == "__main__":
    run(main)
