# SPDX-License-Identifier: Apache-2.0
"""Who manages which field: metadata.managedFields, and server-side apply.

A set of fields is a set of paths; a path is a tuple of steps as FieldsV1 spells them: "f:name" of
an object, 'k:{"name":"web"}' of an item in a list whose items have keys, 'v:"x"' of a value in a
list that is a set, "." of the map or item itself.
"""

import copy
import json
from typing import Any, Dict, Iterable, List, NamedTuple, Set, Tuple

from .refusals import Refused
from .values import Object, dumps, timestamp

Path = Tuple[str, ...]

# Lists whose items are told apart by the values of some of their fields.
KEYS = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
MAPS = ("annotations", "binaryData", "data", "labels", "limits", "requests")
ATOMIC = ("nodeSelector", "rules", "selector")  # changed as a whole
SETS = ("finalizers",)

# Nobody manages these.
UNMANAGED = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
)


class Manager(NamedTuple):
    """One line of managedFields."""

    name: str
    operation: str  # "Apply" or "Update"
    api_version: str
    subresource: str = ""


# Paths of an object


def keys_of(name: str, items: List[Any]) -> Tuple[str, ...]:
    """The fields that tell the items of a list apart; none if it is changed as a whole."""
    keys: Tuple[str, ...] = KEYS.get(name, ())
    if name == "ports":
        ports = items and all(isinstance(item, dict) and "containerPort" in item for item in items)
        keys = ("containerPort" if ports else "port", "protocol")
    return keys if all(isinstance(item, dict) for item in items) else ()


def step_of(item: Object, keys: Tuple[str, ...]) -> str:
    values = {key: item[key] for key in keys if key in item}
    if "protocol" in keys:
        values.setdefault("protocol", "TCP")
    return "k:" + dumps(values)


def leaves(body: Object, without: Iterable[str] = ()) -> Dict[Path, Any]:
    """Every field of an object that somebody can manage, with its value."""
    result: Dict[Path, Any] = {}
    for name, value in body.items():
        if name in ("apiVersion", "kind") or name in without:
            continue
        if name == "metadata":
            value = {key: item for key, item in value.items() if key not in UNMANAGED}
            if not value:
                continue
        _collect(("f:" + name,), name, value, result)
    return result


def _collect(path: Path, name: str, value: Any, result: Dict[Path, Any]) -> None:
    keys = keys_of(name, value) if isinstance(value, list) else ()
    if isinstance(value, dict) and value and name not in ATOMIC:
        if name in MAPS:
            result[path + (".",)] = None
        for key, item in value.items():
            _collect(path + ("f:" + key,), key, item, result)
    elif keys:
        for item in value:
            place = path + (step_of(item, keys),)
            result[place + (".",)] = None
            for key, part in item.items():
                _collect(place + ("f:" + key,), key, part, result)
    elif isinstance(value, list) and name in SETS:
        result.update({path + ("v:" + dumps(item),): item for item in value})
    else:
        result[path] = value


def dotted(path: Path) -> str:
    """As messages name a field: .spec.containers[name="web"].image"""
    text = ""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            text += "." + rest
        elif kind == "k":
            pairs = json.loads(rest).items()
            text += "[%s]" % ",".join("%s=%s" % (key, dumps(value)) for key, value in pairs)
        elif kind == "v":
            text += "[=%s]" % rest
    return text


# managedFields


def managers_of(metadata: Object) -> Dict[Manager, Set[Path]]:
    managers: Dict[Manager, Set[Path]] = {}
    for line in metadata.get("managedFields") or []:
        words = (line.get(key, "") for key in ("manager", "operation", "apiVersion", "subresource"))
        managers[Manager(*words)] = set(_paths(line.get("fieldsV1") or {}))
    return managers


def _paths(tree: Object, start: Path = ()) -> Set[Path]:
    paths: Set[Path] = set()
    for step, below in tree.items():
        paths |= _paths(below, start + (step,)) if below else {start + (step,)}
    return paths


def _tree(paths: Set[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        place = tree
        for step in path:
            place = place.setdefault(step, {})
    return tree


def write_managers(metadata: Object, managers: Dict[Manager, Set[Path]]) -> None:
    """Put the lines into metadata; one that has not changed keeps its time."""
    times = {
        dumps({**line, "time": ""}): line["time"] for line in metadata.get("managedFields") or []
    }
    lines = []
    for manager, paths in managers.items():
        if not paths:
            continue
        line = {"manager": manager.name, "operation": manager.operation}
        line.update(apiVersion=manager.api_version, time="", fieldsType="FieldsV1")
        shown: Object = dict(line, fieldsV1=_tree(paths))
        if manager.subresource:
            shown["subresource"] = manager.subresource
        shown["time"] = times.get(dumps(shown)) or timestamp()
        lines.append(shown)

    lines.sort(key=lambda line: (line["operation"], line["time"], line["manager"]))
    metadata.pop("managedFields", None)
    if lines:
        metadata["managedFields"] = lines


def record_update(manager: Manager, old: Object, new: Object, without: Iterable[str] = ()) -> None:
    """Put down to `manager` what differs between two states; `new` gets its managedFields."""
    before, after = leaves(old, without) if old else {}, leaves(new, without)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    gone = set(before) - set(after)
    managers = managers_of(old.get("metadata") or {})
    if changed or gone:
        for paths in managers.values():
            paths -= changed | gone
        managers.setdefault(manager, set()).update(changed)
    kept = (old.get("metadata") or {}).get("managedFields")
    if kept:
        new["metadata"]["managedFields"] = kept
    write_managers(new["metadata"], managers)


# Server-side apply


def apply(manager: Manager, live: Object, config: Object, force: bool) -> Object:
    """`live` with what `config` says, and without what this manager no longer says.

    Refused with 409 where a field has another value that somebody else manages, unless `force`.
    """
    wanted = leaves(config)
    wanted = {path: value for path, value in wanted.items() if not _is_map(path)}
    present = leaves(live)
    managers = managers_of(live["metadata"]) if live.get("metadata") else {}
    before = managers.get(manager, set())

    conflicts = []
    for other, paths in managers.items():
        if other == manager:
            continue
        different = {
            path for path in paths & set(wanted) if wanted[path] != present.get(path, wanted[path])
        }
        conflicts += [(other, path) for path in sorted(different)]
        if force:
            paths -= different
    if conflicts and not force:
        raise _conflict(conflicts)

    merged: Object = merge(copy.deepcopy(live), config)
    others: Set[Path] = set().union(*(paths for m, paths in managers.items() if m != manager))
    for path in sorted(before - set(wanted), key=lambda path: path[-1] != "."):
        if path not in others:  # items first, as a whole
            _drop(merged, path)

    managers[manager] = set(wanted)
    write_managers(merged["metadata"], managers)
    return merged


def _is_map(path: Path) -> bool:
    """The "." of a map: applying does not manage it, only what it holds."""
    return path[-1] == "." and path[-2].startswith("f:")


def merge(live: Any, config: Any, name: str = "") -> Any:
    """`config` laid over `live`: objects by their fields, lists by the keys of their items."""
    if isinstance(config, dict) and isinstance(live, dict) and name not in ATOMIC:
        for key, value in config.items():
            live[key] = merge(live.get(key), value, key)
        return live
    if not isinstance(config, list) or not isinstance(live, list):
        return copy.deepcopy(config)

    if name in SETS:
        return live + [item for item in config if item not in live]
    keys = keys_of(name, config)
    if not keys:
        return copy.deepcopy(config)
    places = {step_of(item, keys): index for index, item in enumerate(live)}
    for item in config:
        place = places.get(step_of(item, keys))
        if place is None:
            live.append(copy.deepcopy(item))
        else:
            live[place] = merge(live[place], item)
    return live


def _drop(value: Any, path: Path) -> None:
    """Take out what is at `path`, and what that leaves empty."""
    step = path[0]
    if isinstance(value, dict) and step.startswith("f:"):
        name = step[2:]
        if len(path) == 1:
            value.pop(name, None)
        elif name in value:
            _drop(value[name], path[1:])
            if value[name] in ({}, []):
                del value[name]
    elif isinstance(value, list) and step.startswith("v:"):
        value[:] = [item for item in value if "v:" + dumps(item) != step]
    elif isinstance(value, list) and step.startswith("k:"):
        keys = tuple(json.loads(step[2:]))
        for item in [item for item in value if step_of(item, keys) == step]:
            if path[1:] == (".",):
                value.remove(item)
            elif len(path) > 1:
                _drop(item, path[1:])


def _conflict(conflicts: List[Tuple[Manager, Path]]) -> Refused:
    texts: Dict[str, List[str]] = {}
    causes = []
    for manager, path in conflicts:
        text = 'with "%s"' % manager.name
        if manager.subresource:
            text += ' with subresource "%s"' % manager.subresource
        if manager.operation == "Update":
            text += " using " + manager.api_version
        texts.setdefault(text, []).append(dotted(path))
        reason = {"reason": "FieldManagerConflict", "message": "conflict " + text}
        causes.append(dict(reason, field=dotted(path)))

    count = len(conflicts)
    if count == 1:
        ((text, fields),) = texts.items()
        message = "Apply failed with 1 conflict: conflict %s: %s" % (text, fields[0])
    else:
        parts = [
            "conflicts %s:\n%s" % (text, "\n".join("- " + field for field in fields))
            for text, fields in texts.items()
        ]
        message = "Apply failed with %d conflicts: %s" % (count, "\n".join(parts))
    return Refused(409, "Conflict", message, {"causes": causes})
