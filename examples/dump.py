#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a namespace into a folder, a JSON file for each object; or bring it back from there.

    python3 examples/dump.py FOLDER -n NAMESPACE
    python3 examples/dump.py FOLDER -n NAMESPACE --restore

What controllers made is left out, they will make it again; so is what any namespace gets.
Secrets are among the files, as they are: the folder is made for you alone.
"""

import json
import os
from typing import Any, Optional

from common import (
    all_resources, cli, collection, connect, fail, listed, namespace_of, options, owners_part, say,
    without,
)

KINDS_MADE = ("Event", "Endpoints", "EndpointSlice", "Lease", "ControllerRevision", "PodMetrics")
NAMES_MADE = ("ServiceAccount default", "ConfigMap kube-root-ca.crt", "Service kubernetes")
CHOSEN = ("clusterIP", "clusterIPs", "volumeName", "nodeName")  # by the old cluster, in `spec`


def cleaned(item: Any, kind: str) -> Optional[Any]:
    """An object as its owner wrote it, more or less; None for what comes back by itself."""
    metadata, spec = item["metadata"], item.get("spec")
    is_token = item.get("type") == "kubernetes.io/service-account-token"
    owned = any(owner.get("controller") for owner in metadata.get("ownerReferences", []))
    if owned or is_token or "%s %s" % (kind, metadata["name"]) in NAMES_MADE:
        return None
    item = owners_part(item)
    item["metadata"] = without(item["metadata"], "namespace", "ownerReferences")
    if spec and spec.get("clusterIP") != "None":
        item["spec"] = without(spec, *CHOSEN)
    return item


def main() -> None:
    args = options("folder", namespace="", restore=False)
    folder: str = args.folder or fail("which folder?", 2)
    with connect(args) as client:
        namespace = namespace_of(args, client)
        client.default_namespaces = {client.cluster: namespace}
        if args.restore:
            client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            for name in sorted(os.listdir(folder)):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    client.apply(json.load(file))
                say("applied %s" % name)
            return

        os.makedirs(folder, mode=0o700, exist_ok=True)
        for version, resource in all_resources(client):
            kind, can = resource["kind"], set(resource["verbs"])
            if not resource["namespaced"] or kind in KINDS_MADE or not {"list", "create"} <= can:
                continue
            for item in listed(client, collection(version, resource, namespace)):
                body = cleaned({"apiVersion": version, "kind": kind, **item}, kind)
                if body:
                    name = "%s.%s.json" % (kind.lower(), item["metadata"]["name"])
                    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                        json.dump(body, file, indent=2)
                    say("wrote %s" % name)


if __name__ == "__main__":
    cli(main)
