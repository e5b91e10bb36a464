#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Apply a file or a folder, YAML or JSON; see what would change, and prune what has gone from it.

    python3 examples/apply.py PATH [--diff] [--dry-run] [--prune NAME] [-n NAMESPACE]

    --diff         show what changes
    --dry-run      change nothing: the server says what would become of it
    --prune NAME   label everything apiproxy/set=NAME, then delete what has that label in the
                   cluster and is not in PATH any more
"""

import difflib
import json
import os
import sys
from typing import Any, List, Set

from common import (
    Args, all_resources, cli, collection, colour, connect, fail, get, listed, namespace_of,
    options, resource_of, say,
)

import apiproxy

LABEL = "apiproxy/set"
MANIFESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "manifests")
OF_THE_SERVER = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


def read(path: str) -> List[Any]:
    """Every object in the files at `path`, those in Lists one by one, namespaces first."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
             if name.endswith((".yaml", ".yml", ".json"))]
    objects: List[Any] = []
    for name in sorted(files) if os.path.isdir(path) else [path]:
        with open(name, "rb") as file:
            for body in filter(None, apiproxy.read_yaml(file.read())):
                objects += body["items"] if body.get("kind") == "List" else [body]
    return sorted(objects, key=lambda body: bool(body.get("kind") != "Namespace"))


def lines_of(body: Any) -> List[str]:
    """An object without what the server writes into it; a Secret without its values."""
    shown = {key: value for key, value in body.items() if key != "status"}
    metadata = body.get("metadata", {})
    shown["metadata"] = {key: metadata[key] for key in metadata if key not in OF_THE_SERVER}
    if body.get("kind") == "Secret":
        shown["data"] = list(body.get("data", ()))
    return json.dumps(shown, indent=2, sort_keys=True).splitlines() if body else []


def tell(kind: str, metadata: Any, done: str, args: Args) -> None:
    name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
    say("%-12s %-36s %s%s" % (kind, name, done, " (dry run)" if args.dry_run else ""))


def apply(client: apiproxy.Client, body: Any, args: Args) -> str:
    """Apply one object and tell what became of it; its uid."""
    resource, metadata = resource_of(client, body), dict(body["metadata"])
    if resource["namespaced"]:
        metadata.setdefault("namespace", namespace_of(args, client))
    if args.prune:  # a new dict: in YAML the labels may be those of a selector too
        metadata["labels"] = {**metadata.get("labels", {}), LABEL: args.prune}
    body = {**body, "metadata": metadata}

    path = collection(body["apiVersion"], resource, metadata.get("namespace", ""))
    before = get(client, "%s/%s" % (path, metadata["name"]))
    after = client.apply(body, dry_run=args.dry_run)
    changes = list(difflib.unified_diff(lines_of(before), lines_of(after), lineterm="", n=1))[2:]
    tell(body["kind"], metadata, "unchanged" if not changes else "changed" if before else "created",
         args)
    for line in changes if args.diff else ():
        say("    " + colour({"+": "green", "-": "red"}.get(line[0], "dim"), line))
    return str(after["metadata"]["uid"])


def prune(client: apiproxy.Client, kept: Set[str], args: Args) -> None:
    """Delete what has the label and was not applied just now."""
    for version, resource in all_resources(client):
        selector = {"labelSelector": {LABEL: args.prune}}
        may = {"list", "delete"} <= set(resource["verbs"])
        for item in listed(client, collection(version, resource), selector) if may else ():
            metadata = item["metadata"]
            if metadata["uid"] not in kept and not metadata.get("ownerReferences"):
                kept.add(metadata["uid"])  # some kinds are in two APIs
                path = collection(version, resource, metadata.get("namespace", ""))
                dry = "?dryRun=All" if args.dry_run else ""
                client.remove("%s/%s%s" % (path, metadata["name"], dry))
                tell(resource["kind"], metadata, "deleted", args)


def main() -> None:
    args = options("path", namespace="", diff=False, dry_run=False, prune="")
    kept: Set[str] = set()
    failures = 0
    with connect(args) as client:
        for body in read(args.path or (MANIFESTS if args.demo else fail("which path?", 2))):
            try:
                kept.add(apply(client, body, args))
            except (apiproxy.ApiError, ValueError, KeyError, TypeError) as error:
                failures += 1
                say("%s %s" % (body.get("kind"), colour("red", error)))
        if args.prune and not failures:
            prune(client, kept, args)
    sys.exit(bool(failures))


if __name__ == "__main__":
    cli(main)
