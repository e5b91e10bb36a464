#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs in a pod: prints what happens to the pods of the cluster, as the pod's service account.

in_cluster.yaml beside this file has the pod, the rights that it needs, and the two commands that
start it. --folder is where token, ca.crt and namespace are, for trying it elsewhere.
"""

import argparse
import os
import sys
import threading
from typing import Any, Dict, List

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import apiproxy  # noqa: E402  (in the pod: from the ConfigMap, beside this file)

before: Dict[str, str] = {}  # the phase of each pod in the last view


def on_pods(pods: List[Any]) -> None:
    """A line for each pod that is not as it was."""
    now = {"%(namespace)s/%(name)s" % pod["metadata"]: pod.get("status", {}).get("phase", "?")
           for pod in pods}
    for name in sorted(set(before) | set(now)):
        old, new = before.get(name, "new"), now.get(name, "gone")
        if old != new:
            print("%s: %s -> %s" % (name, old, new), flush=True)
    before.clear()
    before.update(now)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="of the service account's files (default: a pod's)")
    parser.add_argument("--seconds", type=float, help="end after so many (default: never)")
    args = parser.parse_args()
    refused = threading.Event()

    def on_error(error: apiproxy.ApiError, cancel: Any) -> None:
        print("trouble: %s" % error, file=sys.stderr, flush=True)
        if error.status in (401, 403):
            refused.set()

    try:
        with apiproxy.Client.in_cluster(args.folder) as client:
            version = client.request("/version")["gitVersion"]
            print("connected to Kubernetes %s" % version, flush=True)
            client.stream_results("/api/v1/pods", on_pods, on_error)
            sys.exit(refused.wait(args.seconds))
    except (apiproxy.ApiError, ValueError) as error:  # ValueError: not in a pod
        sys.exit("in_cluster.py: %s" % error)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
