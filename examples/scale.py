#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Scale a deployment and watch it get there.

    python3 examples/scale.py [name] [namespace] [--replicas 6]
"""

import threading

from common import bar, colour, connect, options, run, wait


def main():
    given = options("name", "namespace", replicas=6)
    with connect() as client:
        deployments = client.api_factory_with_namespace("apps", "v1", "deployments", True)
        namespace, name = given.namespace or "demo-shop", given.name
        if not name:
            found = client.request("/apis/apps/v1/namespaces/%s/deployments" % namespace)["items"]
            name = found[0]["metadata"]["name"]
        done = threading.Event()

        def show(item):
            ready, wanted = item.get("status", {}).get("readyReplicas", 0), item["spec"]["replicas"]
            print("%s %s %d/%d" % (name, bar(ready, wanted), ready, wanted), flush=True)
            if ready == wanted == given.replicas:
                done.set()

        deployments.get(namespace, name, show, lambda error, cancel: print(colour("red", error)))
        before = deployments.scale.get(namespace, name)["spec"]["replicas"]
        print("scaling %s from %d to %d" % (name, before, given.replicas), flush=True)
        deployments.scale.put({"metadata": {"name": name, "namespace": namespace}, "spec": {"replicas": given.replicas}})
        if not wait(given.seconds or 60, done):
            print(colour("yellow", "not there yet"))


if __name__ == "__main__":
    run(main)
