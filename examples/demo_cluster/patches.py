# SPDX-License-Identifier: Apache-2.0
"""JSON patch, merge patch, strategic merge patch.

Each takes an object, which it may change, and a patch, and returns the result.
"""

import copy
from typing import Any, List, Tuple

from .values import Object


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    target = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge_patch(target.get(name), value)
    return target


# The field that tells the items of a list apart, by the name of the list. Lists that are
# not here, and lists of plain values, are replaced whole.
MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "ports": ("containerPort", "port"),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "hostAliases": ("ip",),
}


def strategic_merge_patch(target: Any, patch: Any) -> Any:
    """A merge patch that knows which lists are sets: `kubectl apply` and `kubectl edit` send it."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    target = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name == "$retainKeys":
            target = {key: kept for key, kept in target.items() if key in value}
        elif name.startswith("$deleteFromPrimitiveList/"):
            field = name.split("/", 1)[1]
            target[field] = [item for item in target.get(field) or [] if item not in value]
        elif name.startswith("$"):
            continue  # $setElementOrder: the order of a set does not matter here
        elif value is None:
            target.pop(name, None)
        elif (
            isinstance(value, list)
            and name in MERGE_KEYS
            and all(isinstance(item, dict) for item in value)
        ):
            target[name] = _merge_items(target.get(name) or [], value, MERGE_KEYS[name])
        elif isinstance(value, list) and name == "finalizers":
            target[name] = list(dict.fromkeys((target.get(name) or []) + value))
        else:
            target[name] = strategic_merge_patch(target.get(name), value)
    return target


def _merge_items(items: List[Object], patches: List[Object], keys: Tuple[str, ...]) -> List[Object]:
    merged = list(items)
    for patch in patches:
        if patch.get("$patch") == "replace":
            return [item for item in patches if "$patch" not in item]
        key = next((key for key in keys if key in patch), keys[0])
        places = [index for index, item in enumerate(merged) if item.get(key) == patch.get(key)]
        if patch.get("$patch") == "delete":
            merged = [item for item in merged if item.get(key) != patch.get(key)]
        elif places:
            merged[places[0]] = strategic_merge_patch(merged[places[0]], patch)
        else:
            merged.append(strategic_merge_patch({}, patch))
    return merged


class PatchFailed(Exception):
    """A JSON patch that does not fit the object."""


def json_patch(target: Any, operations: List[Object]) -> Any:
    """RFC 6902, with one habit of 1.20: `replace` of a member that is missing adds it."""
    document = {"": target}  # so that the root, too, is something's member
    for operation in operations:
        op, path = operation.get("op"), operation.get("path")
        if op in ("add", "replace", "test"):
            value = copy.deepcopy(operation.get("value"))
            if op == "test":
                if _pointed(document, path, missing=None) != value:
                    raise PatchFailed("test failed")
            else:
                _put(document, path, value, op == "add")
        elif op == "remove":
            _take(document, path)
        elif op == "move":
            _put(document, path, _take(document, operation.get("from")), True)
        elif op == "copy":
            _put(document, path, copy.deepcopy(_pointed(document, operation.get("from"))), True)
        else:
            raise PatchFailed("unexpected operation")
    return document[""]


_RAISE = object()


def _pointed(document: Any, pointer: Any, missing: Any = _RAISE) -> Any:
    parent, last = _parent(document, pointer)
    try:
        return parent[int(last)] if isinstance(parent, list) else parent[last]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        if missing is _RAISE:
            raise PatchFailed("missing path") from error
        return missing


def _parent(document: Any, pointer: Any) -> Tuple[Any, str]:
    if not isinstance(pointer, str) or pointer[:1] not in ("", "/"):
        raise PatchFailed("bad pointer")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]
    for step in steps[:-1]:
        try:
            document = document[int(step)] if isinstance(document, list) else document[step]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise PatchFailed("missing path") from error
    return document, steps[-1]


def _put(document: Any, pointer: Any, value: Any, insert: bool) -> None:
    parent, last = _parent(document, pointer)
    if isinstance(parent, dict):
        parent[last] = value
        return
    if not isinstance(parent, list):
        raise PatchFailed("missing path")
    if insert and last == "-":
        parent.append(value)
        return
    if not last.isdigit() or int(last) >= len(parent) + insert:
        raise PatchFailed("index out of range")
    parent[int(last) : int(last) + (not insert)] = [value]


def _take(document: Any, pointer: Any) -> Any:
    value = _pointed(document, pointer)
    parent, last = _parent(document, pointer)
    del parent[int(last) if isinstance(parent, list) else last]
    return value
