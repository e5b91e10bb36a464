#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs in a pod: prints what happens to the pods of the cluster, as the pod's service account.

in_cluster.yaml beside this file has the pod, the rights that it needs, and the two commands that
start it. --folder is where token, ca.crt and namespace are, for trying it elsewhere.
"""

import argparse
import os
import sys
import time

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import apiproxy  # noqa: E402  (in the pod: from the ConfigMap, beside this file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="of the service account's files (default: where a pod has them)")
    parser.add_argument("--seconds", type=float, help="end after so many (default: never)")
    given = parser.parse_args()
    before = {}

    def on_pods(pods):
        now = {(pod["metadata"]["namespace"], pod["metadata"]["name"]): pod.get("status", {}).get("phase") for pod in pods}
        for key in sorted(set(before) | set(now)):
            if before.get(key) != now.get(key):
                print("%s/%s: %s -> %s" % (key + (before.get(key, "new"), now.get(key, "gone"))), flush=True)
        before.clear()
        before.update(now)

    with apiproxy.Client.in_cluster(given.folder) as client:
        print("connected to Kubernetes %s" % client.request("/version")["gitVersion"], flush=True)
        client.stream_results("/api/v1/pods", on_pods, lambda error, cancel: print("trouble: %s" % error, flush=True))
        end = None if given.seconds is None else time.monotonic() + given.seconds
        try:
            while end is None or time.monotonic() < end:
                time.sleep(0.5)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
