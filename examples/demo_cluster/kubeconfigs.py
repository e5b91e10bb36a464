# SPDX-License-Identifier: Apache-2.0
"""Kubeconfigs as Headlamp gets them: base64, of YAML or JSON."""

import base64
import json
import re
from typing import Any, List, Tuple

from .values import dig


def contexts_of(encoded: Any) -> List[Tuple[str, str]]:
    """(context, server) for each context of a base64 kubeconfig. ValueError if it is none.

    JSON is read properly. Of YAML, for which there is no reader here, only the names of the
    contexts are looked for, as kubectl and the usual installers write them.
    """
    if not isinstance(encoded, str):
        raise ValueError("not a string")
    text = base64.b64decode(encoded, validate=True).decode()
    try:
        if text.lstrip().startswith("{"):
            return _of_json(json.loads(text))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a kubeconfig of another shape") from error
    return _of_yaml(text)


def _of_json(config: Any) -> List[Tuple[str, str]]:
    servers = {
        cluster["name"]: dig(cluster, "cluster", "server") or ""
        for cluster in config.get("clusters") or []
    }
    return [
        (context["name"], servers.get(dig(context, "context", "cluster"), ""))
        for context in config.get("contexts") or []
    ]


def _of_yaml(text: str) -> List[Tuple[str, str]]:
    if not re.search(r"^contexts:", text, re.M):
        raise ValueError("no contexts")
    match = re.search(r"^[ -]*server: *[\"']?([^\"'\s]+)", text, re.M)
    server = match.group(1) if match else ""
    contexts, inside, depth = [], False, 0
    for line in text.splitlines():
        if re.match(r"[A-Za-z]", line):
            inside = line.startswith("contexts:")
        indent = len(line) - len(line.lstrip(" -"))
        if re.match(r" *- ", line):
            depth = indent
        if inside and indent == depth and line[indent:].startswith("name:"):
            contexts.append((line[indent + 5 :].strip().strip("\"'"), server))
    return contexts
