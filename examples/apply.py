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
from typing import Any, List, Set

from common import (
    Args, all_resources, cli, collection, colour, connect, finish, get, listed, manifests,
    namespace_of, options, owners_part, resource_of, say,
)

import apiproxy

LABEL = "apiproxy/set"


def lines_of(body: Any) -> List[str]:
    """What is the owner's in an object; of a Secret not the values."""
    if body.get("kind") == "Secret":
        body = {**body, "data": list(body.get("data", ()))}
    return json.dumps(owners_part(body), indent=2, sort_keys=True).splitlines() if body else []


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

    path = collection(body["apiVersion"], resource, metadata.get("namespace", ""))
    before = get(client, path + "/" + metadata["name"])
    after = client.apply({**body, "metadata": metadata}, dry_run=args.dry_run)
    if body["kind"] == "CustomResourceDefinition" and not args.dry_run:
        client.wait_for(path, metadata["name"], "Established")  # objects of it may come next
    changes = list(difflib.unified_diff(lines_of(before), lines_of(after), lineterm="", n=1))[2:]
    done = "unchanged" if not changes else "changed" if before else "created"
    tell(body["kind"], metadata, done, args)
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
                name = "/%s%s" % (metadata["name"], "?dryRun=All" * args.dry_run)
                client.remove(collection(version, resource, metadata.get("namespace", "")) + name)
                tell(resource["kind"], metadata, "deleted", args)


def main() -> None:
    args = options("path", namespace="", diff=False, dry_run=False, prune="")
    kept: Set[str] = set()
    failures = 0
    with connect(args) as client:
        for body in manifests(args):
            try:
                kept.add(apply(client, body, args))
            except (apiproxy.ApiError, TimeoutError, ValueError, KeyError, TypeError) as error:
                failures += 1
                say("%s %s" % (body.get("kind"), colour("red", error)))
        if args.prune and not failures:
            prune(client, kept, args)
    finish(bool(failures))


if __name__ == "__main__":
    cli(main)
