# SPDX-License-Identifier: Apache-2.0
"""What every part talks about: objects as JSON has them, and times as Kubernetes writes them."""

import json
import time
from typing import Any, Dict, Optional, Tuple

Object = Dict[str, Any]  # a Kubernetes object, or a piece of one
Key = Tuple[str, str]  # namespace ("" for what has none), name


EMPTY: Tuple[Any, ...] = (None, "", {}, [])  # not kept in metadata


def dig(value: Any, *path: str) -> Any:
    """What is at `path` inside nested dicts; None where something is missing on the way."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def timestamp(seconds: Optional[float] = None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def json_object(body: bytes) -> Optional[Object]:
    """The object that a body holds; None if it holds none."""
    try:
        value = json.loads(body.decode())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def go_json_error(body: bytes) -> str:
    """What Go's decoder says about a body that is no object."""
    text = body.decode("utf-8", "replace").strip()
    if not text:
        return "EOF"
    if text[0] in "[{":
        return "unexpected EOF"
    return "invalid character '%s' looking for beginning of value" % text[0]


def is_ready(body: Object) -> bool:
    """Whether a pod or a node says that it is."""
    conditions = dig(body, "status", "conditions") or []
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in conditions
    )
