#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Keep a copy of one Secret in every namespace: a controller, until Ctrl-C.

    python3 examples/sync.py SECRET -n NAMESPACE [--dry-run]

Three watches say what there is; the loop makes what is missing, and tries again what fails. A copy
that somebody changes or deletes comes back; a namespace that comes later gets one too. A Secret of
that name that is no copy is left alone, and copies stay when the original goes.
"""

import contextlib
import threading
from typing import Any, Callable, Dict, Iterator

from common import cli, connect, named, namespace_of, options, say, trouble, wait, warn

import apiproxy

RETRY = 5.0  # seconds


def outdated(seen: Dict[str, Any], label: Dict[str, str]) -> Iterator[Any]:
    """(copy to send, whether there is an old one) for each namespace that lacks it."""
    secret = seen["secret"]
    content = {key: secret.get(key) for key in ("type", "data")}
    old = {copy["metadata"]["namespace"]: copy for copy in seen["copies"]}
    for item in seen["namespaces"]:
        space = item["metadata"]["name"]
        is_same = all(old.get(space, {}).get(key) == content[key] for key in content)
        if space != secret["metadata"]["namespace"] and not is_same:
            if item["status"]["phase"] == "Active":
                metadata = {"name": secret["metadata"]["name"], "namespace": space, "labels": label}
                yield {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **content}, (
                    space in old)


def main() -> None:
    args = options("secret", namespace="", dry_run=False)
    seen: Dict[str, Any] = {}  # what the watches showed last
    changed = threading.Event()

    def keep(what: str) -> Callable[[Any], None]:
        def callback(value: Any) -> None:
            seen[what] = value
            changed.set()
        return callback

    with connect(args) as client, contextlib.suppress(KeyboardInterrupt):
        namespace, everywhere = namespace_of(args, client), "/api/v1/namespaces"
        path = "%s/%s/secrets" % (everywhere, namespace)
        name = named(args, "secret", client, path)
        label = {"apiproxy/copy-of": "%s.%s" % (namespace, name)}
        client.stream_result(path, name, keep("secret"), trouble)
        client.stream_results(everywhere, keep("namespaces"), trouble)
        client.stream_results("/api/v1/secrets", keep("copies"), trouble, {"labelSelector": label})

        retry, refused = 0.0, set()
        while wait(retry or args.seconds, changed) or retry:
            wait(0.3)  # changes come in bursts
            changed.clear()
            retry = 0.0
            for copy, is_old in outdated(seen, label) if len(seen) == 3 else ():
                space = copy["metadata"]["namespace"]
                try:
                    if args.dry_run:
                        seen["copies"].append(copy)
                    elif is_old:
                        client.apply(copy)
                    else:
                        client.post("%s/%s/secrets" % (everywhere, space), copy)
                    say("copied %s to %s%s" % (name, space, " (dry run)" * args.dry_run))
                except apiproxy.ApiError as error:
                    if error.reason != "AlreadyExists" or space in refused:
                        warn("%s: %s" % (space, error))
                    refused.add(space)  # at first it may be ours, which the watch has not shown yet
                    retry = RETRY


if __name__ == "__main__":
    cli(main)
