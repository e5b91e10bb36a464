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
    Args, all_resources, cli, collection, colour, connect, fail, listed, namespace_of, options,
    resources, say,
)

import apiproxy

LABEL = "apiproxy/set"
MANIFESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "manifests")
OF_THE_SERVER = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


def read(path: str) -> List[Any]:
    """Every object in the files at `path`, those in Lists one by one, namespaces first."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
             if name.endswith((".yaml", ".yml", ".json"))]
    objects: List[Any] = []
    for name in sorted(paths) if os.path.isdir(path) else [path]:
        with open(name, "rb") as file:
            for body in filter(None, apiproxy.read_yaml(file.read())):
                if not all(key in body for key in ("apiVersion", "kind")):
                    raise ValueError("%s holds what is no Kubernetes object" % name)
                items: List[Any] = body["items"] if body["kind"] == "List" else [body]
                objects += items
    return sorted(objects, key=lambda body: bool(body["kind"] != "Namespace"))


def lines_of(body: Any) -> List[str]:
    """An object without what the server writes into it; a Secret without its values."""
    shown = {key: value for key, value in body.items() if key != "status"}
    if body.get("kind") == "Secret":
        shown["data"] = list(body.get("data") or ())
    if body:
        shown["metadata"] = {
            key: value for key, value in body["metadata"].items() if key not in OF_THE_SERVER}
    return json.dumps(shown, indent=2, sort_keys=True).splitlines() if body else []


def apply(client: apiproxy.Client, body: Any, args: Args) -> str:
    """Apply one object and tell what became of it; its uid."""
    metadata, kind = body["metadata"], body["kind"]
    for resource in resources(client, body["apiVersion"]):
        if resource["kind"] == kind:
            break
    else:
        raise ValueError("the server has no %s in %s" % (kind, body["apiVersion"]))
    if resource["namespaced"]:
        metadata.setdefault("namespace", namespace_of(args, client))
    if args.prune:
        metadata.setdefault("labels", {})[LABEL] = args.prune

    path = collection(body["apiVersion"], resource, metadata.get("namespace", ""))
    try:
        before = client.request("%s/%s" % (path, metadata["name"]))
    except apiproxy.ApiError as error:
        if error.status != 404:
            raise
        before = {}
    after = client.apply(body, dry_run=args.dry_run)

    changes = list(difflib.unified_diff(lines_of(before), lines_of(after), lineterm="", n=1))[2:]
    done = ("changed" if before else "created") if changes else "unchanged"
    tell(kind, metadata, done, args)
    for line in changes if args.diff else ():
        shade = {"+": "green", "-": "red"}.get(line[0], "dim")
        say("    " + colour(shade, line))
    return str(after["metadata"]["uid"])


def tell(kind: str, metadata: Any, done: str, args: Args) -> None:
    name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
    shade = {"unchanged": "dim", "deleted": "red"}.get(done, "green")
    say("%-12s %-36s %s%s" % (kind, name, colour(shade, done), " (dry run)" * args.dry_run))


def prune(client: apiproxy.Client, kept: Set[str], args: Args) -> None:
    """Delete what has the label and was not applied just now."""
    for version, resource in all_resources(client):
        if not {"list", "delete"} <= set(resource["verbs"]):
            continue
        path, selector = collection(version, resource), {"labelSelector": {LABEL: args.prune}}
        for item in listed(client, path, selector):
            metadata = item["metadata"]
            if metadata["uid"] not in kept and not metadata.get("ownerReferences"):
                kept.add(metadata["uid"])  # some kinds are in two APIs
                path = collection(version, resource, metadata.get("namespace", ""))
                options = "?dryRun=All" if args.dry_run else ""
                client.remove("%s/%s%s" % (path, metadata["name"], options))
                tell(resource["kind"], metadata, "deleted", args)


def main() -> None:
    args = options("path", namespace="", diff=False, dry_run=False, prune="")
    path = args.path or (MANIFESTS if args.demo else fail("which file or folder?", 2))
    kept: Set[str] = set()
    failures = 0
    with connect(args) as client:
        for body in read(path):
            try:
                kept.add(apply(client, body, args))
            except (apiproxy.ApiError, ValueError, KeyError) as error:
                failures += 1
                say("%-12s %s" % (body["kind"], colour("red", error)))
        if args.prune and not failures:
            prune(client, kept, args)
    sys.exit(bool(failures))


if __name__ == "__main__":
    cli(main)
