#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Apply a manifest: JSON, one object, a List, or several documents one after the other.

    python3 examples/apply_manifest.py [file.json]

YAML becomes JSON with `kubectl create --dry-run=client -o json -f file.yaml`.
"""

import json
import sys

from common import apiproxy, colour, connect, options, run

SAMPLE = """
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "greeting"}, "data": {"hello": "world"}}
{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "greeter"}},
  {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "greeter"}, "spec": {"ports": [{"port": 80}]}}]}
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not A Name"}}
"""


def documents(text):
    """Every object in `text`, those in Lists one by one."""
    decoder, position = json.JSONDecoder(), 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        body, position = decoder.raw_decode(text, position)
        yield from body["items"] if body.get("kind") == "List" else [body]


def main():
    given = options("file")
    text = open(given.file).read() if given.file else SAMPLE
    failed = 0
    with connect() as client:
        for body in documents(text):
            name = "%s/%s" % (body.get("kind"), (body.get("metadata") or {}).get("name"))
            try:
                made = client.apply(body)
                print("%-28s %s at version %s" % (name, colour("green", "applied"), made["metadata"]["resourceVersion"]))
            except (apiproxy.ApiError, ValueError) as error:
                failed += 1
                print("%-28s %s" % (name, colour("red", error)))
    sys.exit(1 if failed and given.file else 0)


if __name__ == "__main__":
    run(main)
