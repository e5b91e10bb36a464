#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Scale a deployment and watch it get there.

    python3 examples/scale.py DEPLOYMENT [-n NAMESPACE] [--replicas 3] [--seconds 60]
"""

from typing import Any

from common import bar, cli, connect, named, namespace_of, options, say, trouble


def main() -> None:
    args = options("deployment", namespace="", replicas=3)
    with connect(args) as client:
        namespace = namespace_of(args, client)
        path = "/apis/apps/v1/namespaces/%s/deployments" % namespace
        name = named(args, "deployment", client, path)
        deployments = client.api_factory_with_namespace("apps", "v1", "deployments", True)

        shown = [""]

        def is_there(item: Any) -> bool:
            status = item.get("status", {})
            ready, wanted = status.get("readyReplicas", 0), item["spec"]["replicas"]
            seen = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
            return bool(seen and ready == status.get("replicas", 0) == wanted == args.replicas)

        def show(item: Any) -> None:
            ready, wanted = item.get("status", {}).get("readyReplicas", 0), item["spec"]["replicas"]
            line = "%s %s %d/%d" % (name, bar(ready, wanted), ready, wanted)
            if line != shown[-1]:  # other changes are of no interest here
                shown.append(line)
                say(line)

        before = deployments.scale.get(namespace, name)["spec"].get("replicas", 0)
        say("%s has %d, and will have %d" % (name, before, args.replicas))
        deployments.get(namespace, name, show, trouble)
        deployments.scale.put({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": args.replicas},
        })
        show(client.wait_for(path, name, is_there, args.seconds or 60))


if __name__ == "__main__":
    cli(main)
