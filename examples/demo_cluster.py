#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kubernetes clusters that live in memory, behind the address of a Headlamp server.

For trying things out without a cluster, and for tests that want one in a millisecond:

    $ python3 examples/demo_cluster.py
    $ kubectl --server=http://127.0.0.1:4466/clusters/demo get pods --all-namespaces --watch

    with DemoCluster(clusters=("demo", "other")) as demo:
        urllib.request.urlopen(demo.url + "/clusters/demo/api/v1/pods")

It answers as kube-apiserver 1.20 behind Headlamp (May 2024) does: status codes, bodies, watches,
their awkward corners included. What it leaves out: most defaults and checks of specs, finalizers,
admission, server-side apply, protobuf (which `kubectl create deployment` and its like send;
`kubectl create -f` and `apply -f` do not). YAML is understood only where it is JSON.

Contents. Each part uses only the parts above it, except that 8 hands what goes on to 9 and 10.

     1. Resources      which kinds there are, and what a kind needs
     2. Refusals       the Status objects that a refused request gets
     3. Selectors      labelSelector and fieldSelector
     4. Patches        JSON patch, merge patch, strategic merge patch
     5. Store          the objects of one cluster, their history, who is told
     6. Controllers    what other programs do in a real cluster: pods for deployments
     7. Connections    HTTP/1.1 and RFC 6455 on one socket
     8. Kubernetes     requests to a cluster
     9. Watches        lists that go on
    10. Pods           logs and a shell
    11. Headlamp       everything that is not below /clusters/<name>/
    12. DemoCluster    the server; the command line

Times are seconds. One thread accepts, one serves each connection; all end with stop().
"""

import argparse
import base64
import binascii
import collections
import contextlib
import copy
import gzip
import hashlib
import json
import math
import posixpath
import random
import re
import selectors
import shlex
import socket
import struct
import threading
import time
import uuid
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple, Union
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["DemoCluster", "Record", "Store"]

Object = Dict[str, Any]  # a Kubernetes object, or a piece of one
Key = Tuple[str, str]  # namespace ("" for what has none), name

# ------------------------------------------------------------------------------
# 1. Resources
#
# A Resource is one served (group, version, plural). Versions of one resource share
# their objects, as in a real cluster.
# ------------------------------------------------------------------------------


class Resource(NamedTuple):
    """One kind of object at one version, as discovery describes it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    short_names: Tuple[str, ...] = ()
    subresources: Tuple[str, ...] = ()
    custom: bool = False  # comes from a CustomResourceDefinition
    list_kind: str = ""

    @property
    def api_version(self) -> str:
        return self.group + "/" + self.version if self.group else self.version

    @property
    def storage(self) -> Tuple[str, str]:
        return self.group, self.plural

    @property
    def qualified(self) -> str:  # as messages have it: "deployments.apps"
        return self.plural + "." + self.group if self.group else self.plural

    @property
    def verbs(self) -> List[str]:
        if self.group == "metrics.k8s.io":
            return ["get", "list"]
        if self.plural.endswith("reviews"):
            return ["create"]
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        if self.storage in (("", "namespaces"), ("", "services")):
            verbs.remove("deletecollection")
        return verbs

    @property
    def counts_generations(self) -> bool:
        return self.custom or self.group in ("apps", "policy", "networking.k8s.io", "apiextensions.k8s.io")


def _built_in() -> List[Resource]:
    table = """
        -                         v1      pods                      Pod                      yes po     status,log,exec,eviction
        -                         v1      nodes                     Node                     no  no     status
        -                         v1      namespaces                Namespace                no  ns     status
        -                         v1      configmaps                ConfigMap                yes cm     -
        -                         v1      secrets                   Secret                   yes -      -
        -                         v1      services                  Service                  yes svc    status
        -                         v1      endpoints                 Endpoints                yes ep     -
        -                         v1      serviceaccounts           ServiceAccount           yes sa     token
        -                         v1      events                    Event                    yes ev     -
        -                         v1      persistentvolumes         PersistentVolume         no  pv     status
        -                         v1      persistentvolumeclaims    PersistentVolumeClaim    yes pvc    status
        apps                      v1      deployments               Deployment               yes deploy status,scale
        apps                      v1      replicasets               ReplicaSet               yes rs     status,scale
        apps                      v1      statefulsets              StatefulSet              yes sts    status,scale
        apps                      v1      daemonsets                DaemonSet                yes ds     status
        batch                     v1      jobs                      Job                      yes -      status
        networking.k8s.io         v1      ingresses                 Ingress                  yes ing    status
        policy                    v1beta1 poddisruptionbudgets      PodDisruptionBudget      yes pdb    status
        apiextensions.k8s.io      v1      customresourcedefinitions CustomResourceDefinition no  crd    status
        authorization.k8s.io      v1      selfsubjectrulesreviews   SelfSubjectRulesReview   no  -      -
        authorization.k8s.io      v1      selfsubjectaccessreviews  SelfSubjectAccessReview  no  -      -
        metrics.k8s.io            v1beta1 nodes                     NodeMetrics              no  -      -
        metrics.k8s.io            v1beta1 pods                      PodMetrics               yes -      -
    """
    resources = []
    for line in table.strip().splitlines():
        group, version, plural, kind, namespaced, short, subresources = (
            "" if word == "-" else word for word in line.split()
        )
        resources.append(
            Resource(
                group,
                version,
                plural,
                kind,
                namespaced == "yes",
                tuple(filter(None, [short])),
                tuple(filter(None, subresources.split(","))),
            )
        )
    return resources


BUILT_IN = {(r.group, r.version, r.plural): r for r in _built_in()}


def core(plural: str) -> Resource:
    return BUILT_IN["", "v1", plural]


PODS, NODES, NAMESPACES, EVENTS = core("pods"), core("nodes"), core("namespaces"), core("events")
DEPLOYMENTS, DAEMONSETS = BUILT_IN["apps", "v1", "deployments"], BUILT_IN["apps", "v1", "daemonsets"]
CRDS = BUILT_IN["apiextensions.k8s.io", "v1", "customresourcedefinitions"]
BUDGETS = BUILT_IN["policy", "v1beta1", "poddisruptionbudgets"]

# Which kind and version a subresource speaks, where that is not its parent's.
SUBRESOURCE_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1beta1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "exec": ("", "", "PodExecOptions"),
}
SUBRESOURCE_VERBS = {"log": ["get"], "exec": ["create", "get"], "eviction": ["create"], "token": ["create"]}


def dig(value: Any, *path: str) -> Any:
    """What is at `path` inside nested dicts; None where something is missing on the way."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def timestamp(seconds: Optional[float] = None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# ------------------------------------------------------------------------------
# 2. Refusals
#
# The texts are the API server's own, checked against 1.20.2: clients match on them.
# ------------------------------------------------------------------------------


class Refused(Exception):
    """The request is answered with this Status."""

    def __init__(
        self, code: int, reason: str, message: str, details: Optional[Object] = None, metadata: Optional[Object] = None
    ):
        super().__init__(code, message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata or {},
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = details
        self.status["code"] = code


class PageNotFound(Exception):
    """`404 page not found`, as text: what Go's router says, not what Kubernetes says."""


def _details(resource: Resource, name: str = "", **more: Any) -> Object:
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    return dict({key: value for key, value in details.items() if value}, **more)


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def no_such_resource() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource", {})


def not_allowed() -> Refused:
    return Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def not_found(resource: Resource, name: str, subresource: str = "") -> Refused:
    if subresource:
        resource = resource._replace(plural=resource.plural + "/" + subresource)
    return Refused(404, "NotFound", '%s "%s" not found' % (resource.qualified, name), _details(resource, name))


def already_exists(resource: Resource, name: str) -> Refused:
    return Refused(
        409, "AlreadyExists", '%s "%s" already exists' % (resource.qualified, name), _details(resource, name)
    )


def conflict(resource: Resource, name: str, why: str) -> Refused:
    message = 'Operation cannot be fulfilled on %s "%s": %s' % (resource.qualified, name, why)
    return Refused(409, "Conflict", message, _details(resource, name))


MODIFIED_MEANWHILE = "the object has been modified; please apply your changes to the latest version and try again"


def forbidden(resource: Resource, name: str, why: str, causes: Optional[List[Object]] = None) -> Refused:
    about = '%s "%s"' % (resource.qualified, name) if name else resource.qualified
    details = _details(resource, name, **({"causes": causes} if causes else {}))
    return Refused(403, "Forbidden", "%s is forbidden: %s" % (about, why), details)


class Cause(NamedTuple):
    """One thing wrong with an object that parsed."""

    field: str
    message: str

    @property
    def reason(self) -> str:
        for text, reason in (
            ("Required", "FieldValueRequired"),
            ("Unsupported", "FieldValueNotSupported"),
            ("Forbidden", "FieldValueForbidden"),
        ):
            if self.message.startswith(text):
                return reason
        return "FieldValueInvalid"


def invalid(group: str, kind: str, name: str, causes: List[Cause]) -> Refused:
    details: Object = {"name": name, "group": group, "kind": kind}
    details = {key: value for key, value in details.items() if value}
    details["causes"] = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    texts = list(dict.fromkeys("%s: %s" % (cause.field, cause.message) for cause in causes))
    text = texts[0] if len(texts) == 1 else "[%s]" % ", ".join(texts)
    return Refused(
        422, "Invalid", '%s "%s" is invalid: %s' % (kind + "." + group if group else kind, name, text), details
    )


def expired(message: str, metadata: Optional[Object] = None) -> Refused:
    return Refused(410, "Expired", message, metadata=metadata)


CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the"
    " continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing"
    " with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the"
    " time the first chunk was returned and now may show up in the list."
)

# ------------------------------------------------------------------------------
# 3. Selectors
#
# Text in, a function out that says whether an object's body is meant. Pure.
# ------------------------------------------------------------------------------

Selector = Callable[[Object], bool]

_LABEL_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)")
_LABEL_KEY = re.compile(r"(?:[a-z0-9.-]+/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")


def label_selector(text: str) -> Selector:
    """The function for a labelSelector: a=b, a==b, a!=b, a in (b,c), a notin (b), a, !a, a>1, a<1."""
    tokens = [match.group(1) for match in _LABEL_TOKEN.finditer(text)] + [""]
    position = 0
    tests: List[Callable[[Dict[str, str]], bool]] = []

    def take() -> str:
        nonlocal position
        token = tokens[position]
        position = min(position + 1, len(tokens) - 1)
        return token

    def key() -> str:
        token = take()
        if token in ("=", "==", "!=", "!", ",", "(", ")", "<", ">", ""):
            raise bad_request("unable to parse requirement: found '%s', expected: identifier" % token)
        if not _LABEL_KEY.fullmatch(token):
            raise bad_request(
                "unable to parse requirement: invalid label key %s: name part must consist of alphanumeric characters, '-',"
                " '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or"
                " '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
                % json.dumps(token)
            )
        return token

    def value() -> str:
        if tokens[position] in (",", ""):
            return ""  # "a=" asks for the empty value
        token = take()
        if token in ("=", "==", "!=", "!", "(", ")", "<", ">"):
            raise bad_request("unable to parse requirement: found '%s', expected: identifier" % token)
        return token

    def values() -> Set[str]:
        token = take()
        if token != "(":
            raise bad_request("unable to parse requirement: found '%s' expected: '('" % token)
        found: Set[str] = set()
        while True:
            found.add(value() if tokens[position] != ")" else "")
            token = take()
            if token == ")":
                return found
            if token != ",":
                raise bad_request("unable to parse requirement: found '%s', expected: ',' or ')'" % token)

    def number(text: str) -> float:
        try:
            return int(text)
        except ValueError:
            return math.nan  # compares false with everything

    def requirement() -> Callable[[Dict[str, str]], bool]:
        if tokens[position] == "!":
            take()
            absent = key()
            return lambda labels: absent not in labels
        name = key()
        if tokens[position] in (",", ""):
            return lambda labels: name in labels
        operator = take()
        if operator in ("=", "=="):
            wanted = value()
            return lambda labels: labels.get(name) == wanted
        if operator == "!=":
            unwanted = value()
            return lambda labels: labels.get(name) != unwanted
        if operator in ("in", "notin"):
            some, inside = values(), operator == "in"
            return lambda labels: (labels.get(name) in some) == inside
        if operator in ("<", ">"):
            sign, bound = (1 if operator == ">" else -1), number(value())
            return lambda labels: (number(labels.get(name, "")) - bound) * sign > 0
        raise bad_request("unable to parse requirement: found '%s', expected: '=', '!=', '==', 'in', notin'" % operator)

    while tokens[position] != "":
        if tokens[position] in (",", ")", "(", "=", "==", "!=", "<", ">"):
            raise bad_request("found '%s', expected: !, identifier, or 'end of string'" % tokens[position])
        tests.append(requirement())
        if tokens[position] == "":
            break
        separator = take()
        if separator != ",":
            raise bad_request("found '%s', expected: ',' or 'end of string'" % separator)
        if tokens[position] == "":
            raise bad_request("found '', expected: identifier after ','")
    return lambda body: all(test(dig(body, "metadata", "labels") or {}) for test in tests)


# The fields beyond metadata.name and metadata.namespace that can be selected on.
FIELDS = {
    (
        "",
        "pods",
    ): "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName status.phase status.podIP",
    ("", "events"): "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid"
    " involvedObject.fieldPath reason reportingComponent source type",
    ("", "nodes"): "spec.unschedulable",
    ("", "namespaces"): "status.phase",
    ("", "secrets"): "type",
}


def field_selector(text: str, resource: Resource) -> Selector:
    """The function for a fieldSelector: name=value, ==, !=, joined by commas."""
    tests = []
    for term in filter(None, text.split(",")):
        match = re.match(r"(.*?)(!=|==|=)(.*)", term)
        if match is None:
            raise bad_request("invalid selector: '%s'; can't understand '%s'" % (text, term))
        field, operator, value = match.groups()
        if field not in ["metadata.name", "metadata.namespace"] + FIELDS.get(resource.storage, "").split():
            if resource.custom or resource.storage in FIELDS:
                raise bad_request("field label not supported: " + field)
            only = '"%s" is not a known field selector: only "metadata.name", "metadata.namespace"'
            raise bad_request(only % field)
        tests.append((field.split("."), operator != "!=", value))

    def text_of(found: Any) -> str:
        if found is None:
            return ""
        return str(found).lower() if isinstance(found, bool) else str(found)

    return lambda body: all((text_of(dig(body, *path)) == value) == equal for path, equal, value in tests)


# ------------------------------------------------------------------------------
# 4. Patches
#
# Each takes an object, which it may change, and a patch, and returns the result. Pure.
# ------------------------------------------------------------------------------


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
        elif isinstance(value, list) and name in MERGE_KEYS and all(isinstance(item, dict) for item in value):
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


# ------------------------------------------------------------------------------
# 5. Store
#
# One cluster's objects. An Entry never changes, so it may be read without the lock.
# Every write appends one Event and takes the next resourceVersion; Store.lock guards
# all of it, is never held while anything is sent, and wakes whoever waits.
# ------------------------------------------------------------------------------


class Entry:
    """One state of one object: its body without kind and apiVersion, which depend on who asks."""

    __slots__ = ("body", "_rest")

    def __init__(self, body: Object) -> None:
        self.body = body
        self._rest = ""

    def text(self, resource: Optional[Resource] = None) -> str:
        """As JSON, made once; with kind and apiVersion where a resource is given."""
        if not self._rest:
            self._rest = dumps(self.body)[1:]
        if resource is None:
            return "{" + self._rest
        return '{"kind":"%s","apiVersion":"%s",%s' % (resource.kind, resource.api_version, self._rest)


class Event(NamedTuple):
    """One write. A deletion has no `new`; `gone` is the last state with the deletion's resourceVersion."""

    version: int
    resource: Resource
    key: Key
    old: Optional[Entry]
    new: Optional[Entry]
    gone: Optional[Entry]


class Bell:
    """Wakes a thread that waits for its client and for the store at once."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._rung = False

    def ring(self) -> None:  # the store's lock is held
        if not self._rung:
            self._rung = True
            self._writer.send(b"!")

    def clear(self) -> None:  # the store's lock is held
        if self._rung:
            self.reader.recv(16)
            self._rung = False

    def close(self) -> None:
        self.reader.close()
        self._writer.close()


def with_version(entry: Entry, version: int) -> Entry:
    return Entry(dict(entry.body, metadata=dict(entry.body["metadata"], resourceVersion=str(version))))


class Store:
    """The objects of one cluster, and what happened to them."""

    history = 10000  # events kept for watches that come back

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Condition(threading.RLock())
        self.resource_version = 0
        self.compacted = 0  # watches from before this one are refused
        self.resources = dict(BUILT_IN)
        self.issued: Dict[str, float] = {}  # tokens made by TokenRequest, until when
        self._objects: Dict[Tuple[str, str], Dict[Key, Entry]] = collections.defaultdict(dict)
        self._log: List[Event] = []  # without gaps, up to resource_version
        self._bells: Set[Bell] = set()
        self._depth = 0
        self._unsettled: Deque[Event] = collections.deque()
        self.react: Optional[Callable[[Event], None]] = None  # what controllers do about a write

    # Reading

    def get(self, resource: Resource, key: Key) -> Optional[Entry]:
        return self._objects[resource.storage].get(key)

    def entries(
        self, resource: Resource, namespace: str = "", version: Optional[int] = None
    ) -> List[Tuple[Key, Entry]]:
        """All of a resource in the order of their keys, now or as of `version`."""
        with self.lock:
            objects = self._objects[resource.storage]
            if version is not None and version < self.resource_version:
                objects = dict(objects)
                for event in reversed(self._log[version - self.start :]):
                    if event.resource.storage == resource.storage:
                        objects.pop(event.key, None)
                        if event.old is not None:
                            objects[event.key] = event.old
            return sorted((key, entry) for key, entry in objects.items() if not namespace or key[0] == namespace)

    @property
    def start(self) -> int:  # the log begins after this resourceVersion
        return self.resource_version - len(self._log)

    @property
    def oldest(self) -> int:
        return max(self.start, self.compacted)

    def events_after(self, version: int) -> List[Event]:
        """What happened since; `version` is not older than `oldest`."""
        return self._log[max(0, version - self.start) :]

    @contextlib.contextmanager
    def told(self, bell: Bell) -> Iterator[None]:
        """While inside, `bell` rings after every change."""
        with self.lock:
            self._bells.add(bell)
        try:
            yield
        finally:
            with self.lock:
                self._bells.discard(bell)

    # Writing

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Holds the lock; at the end of the outermost one the controllers act and the bells ring."""
        with self.lock:
            self._depth += 1
            try:
                yield
                while self._depth == 1 and self._unsettled and self.react:
                    self.react(self._unsettled.popleft())
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._unsettled.clear()
                    self.lock.notify_all()
                    for bell in self._bells:
                        bell.ring()

    def put(self, resource: Resource, key: Key, body: Object) -> Entry:
        """Make `body` the state of `key`. A body equal to the present state changes nothing."""
        old = self.get(resource, key)
        if old is not None:
            body["metadata"]["resourceVersion"] = old.body["metadata"]["resourceVersion"]
            if body == old.body:
                return old
        body["metadata"]["resourceVersion"] = str(self.resource_version + 1)
        entry = Entry(body)
        self._objects[resource.storage][key] = entry
        self._append(Event(self.resource_version + 1, resource, key, old, entry, None))
        return entry

    def remove(self, resource: Resource, key: Key) -> Entry:
        old = self._objects[resource.storage].pop(key)
        gone = with_version(old, self.resource_version + 1)
        self._append(Event(self.resource_version + 1, resource, key, old, None, gone))
        return gone

    def _append(self, event: Event) -> None:
        assert self._depth, "writes happen inside changing()"
        self.resource_version = event.version
        self._log.append(event)
        if len(self._log) > 2 * self.history:
            del self._log[: -self.history]
        self._unsettled.append(event)

    def compact(self) -> None:
        """Forget the past: older resourceVersions and continue tokens answer 410 from now on."""
        with self.lock:
            self.compacted = self.resource_version

    def add(self, resource: Resource, namespace: str, body: Object) -> Entry:
        """Put a new object, with the metadata that a new one gets."""
        body = new_body(resource, namespace, body)
        with self.changing():
            return self.put(resource, (namespace, body["metadata"]["name"]), body)

    def edit(self, resource: Resource, key: Key, change: Callable[[Object], Any]) -> None:
        """Let `change` alter a copy of the object, and put that; nothing if it is gone."""
        with self.changing():
            old = self.get(resource, key)
            if old is not None:
                body = copy.deepcopy(old.body)
                change(body)
                self.put(resource, key, body)

    # Custom resources

    def serve(self, crd: Object) -> List[Resource]:
        """The resources that a CustomResourceDefinition stands for."""
        spec, names = crd["spec"], crd["spec"]["names"]
        return [
            Resource(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec["scope"] == "Namespaced",
                tuple(names.get("shortNames") or ()),
                tuple(version.get("subresources") or ()),
                True,
                names.get("listKind") or names["kind"] + "List",
            )
            for version in spec["versions"]
            if version.get("served")
        ]


_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no words


def suffix() -> str:
    return "".join(random.choice(_SUFFIX) for _ in range(5))


EMPTY: Tuple[Any, ...] = (None, "", {}, [])  # not kept in metadata


def new_body(resource: Resource, namespace: str, body: Object) -> Object:
    """A new object as it is first stored: its body with name, uid, times and the usual defaults."""
    body = {
        name: value
        for name, value in copy.deepcopy(body).items()
        if name not in ("kind", "apiVersion") and value is not None
    }
    metadata = body.pop("metadata", None) or {}
    metadata = {
        name: value
        for name, value in metadata.items()
        if value not in EMPTY and name not in ("selfLink", "resourceVersion")
    }
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"] + suffix()
    if namespace:
        metadata["namespace"] = namespace
    metadata.update(uid=str(uuid.uuid4()), creationTimestamp=timestamp())
    if resource.counts_generations:
        metadata["generation"] = 1
    body = dict({"metadata": metadata}, **body)
    set_defaults(resource, body)
    return body


def set_defaults(resource: Resource, body: Object) -> None:
    """The few defaults that a client may look at."""
    found = body.get("spec")
    spec: Object = found if isinstance(found, dict) else {}
    if resource == PODS:
        body["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        spec.setdefault("restartPolicy", "Always")
        spec.setdefault("terminationGracePeriodSeconds", 30)
    elif resource == NAMESPACES:
        body.update(spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})
    elif resource.storage == ("", "secrets"):
        plain = body.pop("stringData", None) or {}
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in plain.items()}
        if encoded:
            body["data"] = dict(body.get("data") or {}, **encoded)
        body.setdefault("type", "Opaque")
    elif resource.storage == ("", "services"):
        address = "10.0.%d.%d" % (random.randrange(256), random.randrange(1, 255))
        spec.setdefault("clusterIP", address)
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports") or []:
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))
        body.update(spec=spec, status={"loadBalancer": {}})
    elif resource.group == "apps":
        if resource != DAEMONSETS:
            spec.setdefault("replicas", 1)
        body["status"] = {}
    elif resource == CRDS:
        spec.setdefault("conversion", {"strategy": "None"})
        body["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"]}


# ------------------------------------------------------------------------------
# 6. Controllers
#
# In a real cluster these are other programs, a moment later; here each acts at the end
# of the write that concerns it, so that a test has nothing to wait for. The answer to
# that write still shows the object as it was written. DemoCluster(controllers=False)
# is the bare API server: pods stay Pending and deleted namespaces Terminating.
# ------------------------------------------------------------------------------


class Controllers:
    """Scheduler, kubelets, the deployment, daemon set, service account and namespace controllers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def react(self, event: Event) -> None:
        """Act on one write; the store's lock is held."""
        act = getattr(self, "_on_" + event.resource.plural, None)
        if act is not None and event.resource.group in ("", "apps"):
            act(event.key, event.old, event.new)

    def _on_deployments(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        if new is None:
            assert old is not None
            self._remove_pods(self._owned_by(old))
            return
        deployment = self._store.get(DEPLOYMENTS, key)
        if deployment is None:
            return
        spec, pods = deployment.body["spec"], self._owned_by(deployment)
        revision = hashlib.sha256(dumps(spec["template"]).encode()).hexdigest()[:10]
        fresh = [key for key, pod in pods if dig(pod.body, "metadata", "labels", "pod-template-hash") == revision]
        for _ in range(spec["replicas"] - len(fresh)):
            self._make_pod(DEPLOYMENTS, deployment, {"pod-template-hash": revision})
        surplus = fresh[spec["replicas"] :]
        self._remove_pods((key, pod) for key, pod in pods if key in surplus or key not in fresh)
        self._store.edit(DEPLOYMENTS, key, lambda body: body.update(status=self._deployment_status(deployment)))

    def _deployment_status(self, deployment: Entry) -> Object:
        pods = self._owned_by(deployment)
        ready = sum(is_ready(pod.body) for _, pod in pods)
        status = {"observedGeneration": deployment.body["metadata"]["generation"], "replicas": len(pods)}
        status.update(updatedReplicas=len(pods), readyReplicas=ready, availableReplicas=ready)
        status["unavailableReplicas"] = deployment.body["spec"]["replicas"] - ready
        status = {name: count for name, count in status.items() if count}
        enough = "True" if ready >= deployment.body["spec"]["replicas"] else "False"
        status["conditions"] = [
            {"type": "Available", "status": enough, "reason": "MinimumReplicasAvailable"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        ]
        return status

    def _on_daemonsets(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        if new is None:
            assert old is not None
            self._remove_pods(self._owned_by(old))
            return
        daemons = self._store.get(DAEMONSETS, key)
        if daemons is None:
            return
        pods = self._owned_by(daemons)
        nodes = [name for (_, name), node in self._store.entries(NODES) if is_ready(node.body)]
        for node in sorted(set(nodes) - {pod.body["spec"].get("nodeName") for _, pod in pods}):
            self._make_pod(DAEMONSETS, daemons, {}, node)
        count = len(nodes)
        names = (
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        )
        status: Object = dict.fromkeys(names, count)
        status.update(numberMisscheduled=0, observedGeneration=daemons.body["metadata"]["generation"])
        self._store.edit(DAEMONSETS, key, lambda body: body.update(status=status))

    def _on_pods(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        pod = new or old
        assert pod is not None
        if new is None or (old is not None and is_ready(old.body) != is_ready(new.body)):
            for owner in dig(pod.body, "metadata", "ownerReferences") or []:
                kinds = {"Deployment": self._on_deployments, "DaemonSet": self._on_daemonsets}
                resource = {"Deployment": DEPLOYMENTS, "DaemonSet": DAEMONSETS}.get(owner.get("kind"))
                entry = resource and self._store.get(resource, (key[0], owner.get("name")))
                if entry and entry.body["metadata"]["uid"] == owner.get("uid"):
                    kinds[owner["kind"]]((key[0], owner["name"]), entry, entry)
        elif dig(new.body, "status", "phase") == "Pending" and self._store.get(PODS, key) is new:
            self._run(key, new)

    def _run(self, key: Key, pod: Entry) -> None:
        ready = [name for (_, name), node in self._store.entries(NODES) if is_ready(node.body)]
        nodes = self._store.entries(NODES)
        free = [name for (_, name), entry in nodes if name in ready and not dig(entry.body, "spec", "unschedulable")]
        node = pod.body["spec"].get("nodeName") or (random.choice(free) if free else "")
        if node not in ready:
            return
        now = timestamp()

        def start(body: Object) -> None:
            body["spec"]["nodeName"] = node
            address = "10.1.%d.%d" % (ready.index(node), random.randrange(2, 255))
            body["status"].update(
                phase="Running", hostIP="192.168.0.%d" % (10 + ready.index(node)), podIP=address, startTime=now
            )
            body["status"]["conditions"] = [
                {"type": name, "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
                for name in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ]
            body["status"]["containerStatuses"] = [
                {
                    "name": container.get("name"),
                    "image": container.get("image"),
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": now}},
                }
                for container in body["spec"]["containers"]
            ]

        self._store.edit(PODS, key, start)

    def _on_nodes(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        if new is None:
            pods = self._store.entries(PODS)
            self._remove_pods((place, pod) for place, pod in pods if pod.body["spec"].get("nodeName") == key[1])
        if old is None or new is None or is_ready(old.body) != is_ready(new.body):
            for place, daemons in self._store.entries(DAEMONSETS):
                self._on_daemonsets(place, daemons, daemons)
            for place, pod in self._store.entries(PODS):
                self._on_pods(place, None, pod)

    def _on_namespaces(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        if old is None:
            self._store.add(core("serviceaccounts"), key[1], {"metadata": {"name": "default"}})
        elif new is not None and new.body["status"]["phase"] == "Terminating" and self._store.get(NAMESPACES, key):
            for resource in list(self._store.resources.values()):
                for place, _ in self._store.entries(resource, key[1]) if resource.namespaced else ():
                    self._store.remove(resource, place)
            self._store.remove(NAMESPACES, key)

    def _owned_by(self, owner: Entry) -> List[Tuple[Key, Entry]]:
        metadata = owner.body["metadata"]
        return [
            (key, pod)
            for key, pod in self._store.entries(PODS, metadata["namespace"])
            if any(
                reference.get("uid") == metadata["uid"]
                for reference in pod.body["metadata"].get("ownerReferences") or []
            )
        ]

    def _make_pod(self, resource: Resource, owner: Entry, labels: Dict[str, str], node: str = "") -> None:
        pod = copy.deepcopy(owner.body["spec"]["template"])
        metadata = pod.setdefault("metadata", {})
        metadata["generateName"] = owner.body["metadata"]["name"] + "-"
        metadata["labels"] = dict(metadata.get("labels") or {}, **labels)
        reference = {"apiVersion": resource.api_version, "kind": resource.kind, "controller": True}
        reference.update({name: owner.body["metadata"][name] for name in ("name", "uid")})
        metadata["ownerReferences"] = [reference]
        if node:
            pod["spec"]["nodeName"] = node
        self._store.add(PODS, owner.body["metadata"]["namespace"], pod)

    def _remove_pods(self, pods: Iterable[Tuple[Key, Entry]]) -> None:
        for key, _ in list(pods):
            if self._store.get(PODS, key):
                self._store.remove(PODS, key)


def is_ready(body: Object) -> bool:
    """Whether a pod or a node says that it is."""
    conditions = dig(body, "status", "conditions") or []
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def app(name: str, image: str, replicas: Optional[int] = None) -> Object:
    """The body of a Deployment, or, without replicas, of a DaemonSet."""
    spec: Object = {} if replicas is None else {"replicas": replicas}
    spec["selector"] = {"matchLabels": {"app": name}}
    container = {"name": name, "image": image, "ports": [{"containerPort": 8080}]}
    spec["template"] = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def fill(store: Store, seed: bool) -> None:
    """What a new cluster has; with `seed`, also something to look at."""
    with store.changing():
        for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
            store.add(NAMESPACES, "", {"metadata": {"name": name}})
        api = {
            "metadata": {"name": "kubernetes"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443}]},
        }
        store.add(core("services"), "default", api)
        if not seed:
            return
        capacity = {"cpu": "4", "memory": "8Gi", "pods": "110"}
        for number, role in enumerate(("control-plane", "worker", "worker")):
            name = "node-%d" % (number + 1)
            labels = {"kubernetes.io/hostname": name, "node-role.kubernetes.io/" + role: ""}
            status = {
                "capacity": capacity,
                "allocatable": capacity,
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": timestamp()}
                ],
                "addresses": [{"type": "InternalIP", "address": "192.168.0.%d" % (10 + number)}],
                "nodeInfo": {"kubeletVersion": "v1.20.2", "osImage": "Memory", "containerRuntimeVersion": "demo://1"},
            }
            store.add(NODES, "", {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status})
        store.add(NAMESPACES, "", {"metadata": {"name": "demo-shop"}})
        for namespace, name, image, replicas in (
            ("kube-system", "coredns", "coredns:1.8", 2),
            ("default", "hello", "hello-server:1.0", 2),
            ("demo-shop", "frontend", "shop-frontend:2.1", 3),
            ("demo-shop", "cart", "shop-cart:1.4", 2),
            ("demo-shop", "payments", "shop-payments:3.0", 1),
        ):
            store.add(DEPLOYMENTS, namespace, app(name, image, replicas))
            service = {
                "metadata": {"name": name},
                "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
            }
            store.add(core("services"), namespace, service)
        store.add(DAEMONSETS, "kube-system", app("kube-proxy", "kube-proxy:1.20"))
        store.add(
            core("configmaps"), "default", {"metadata": {"name": "settings"}, "data": {"colour": "blue", "size": "10"}}
        )
        store.add(
            core("configmaps"), "demo-shop", {"metadata": {"name": "prices"}, "data": {"apple": "3", "pear": "4"}}
        )
        store.add(
            core("secrets"), "demo-shop", {"metadata": {"name": "payments"}, "stringData": {"key": "not so secret"}}
        )


# ------------------------------------------------------------------------------
# 7. Connections
#
# HTTP/1.1 and RFC 6455, the server's side, on one socket and one thread.
# Gone means that the client, or stop(), has ended the connection.
# ------------------------------------------------------------------------------


class Gone(Exception):
    """Nobody is there any more."""


class Request(NamedTuple):
    """One request, read whole."""

    method: str
    target: str  # as it came: path and query
    path: str  # decoded
    query: Dict[str, List[str]]
    headers: Dict[str, str]  # lower-case names; repeated ones joined by ", "
    repeated: Set[str]  # names that came on more than one line
    body: bytes

    def param(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        """As the API server reads a boolean: there, and not false."""
        return name in self.query and self.param(name).lower() not in ("false", "0")

    @property
    def upgrades(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def protocols(self) -> List[str]:
        offered = self.headers.get("sec-websocket-protocol", "")
        return [protocol.strip() for protocol in offered.split(",") if protocol.strip()]


class Answer(NamedTuple):
    """One whole response."""

    code: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Tuple[Tuple[str, str], ...] = ()


# A handler returns an answer, or what goes on talking to the client.
Handled = Union[Answer, Callable[["Connection"], None]]


def json_answer(value: Any, code: int = 200, content_type: str = "application/json") -> Answer:
    return Answer(code, dumps(value).encode() + b"\n", content_type)


def text_error(message: str, code: int) -> Answer:
    """As Go's http.Error writes it."""
    headers = (("X-Content-Type-Options", "nosniff"),)
    return Answer(code, message.encode() + b"\n", "text/plain; charset=utf-8", headers)


REASONS = {
    **{101: "Switching Protocols", 200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently"},
    **{400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"},
    **{406: "Not Acceptable", 409: "Conflict", 410: "Gone", 415: "Unsupported Media Type", 422: "Unprocessable Entity"},
    **{
        429: "Too Many Requests",
        431: "Request Header Fields Too Large",
        500: "Internal Server Error",
        504: "Gateway Timeout",
    },
}
MAX_HEADERS = 1 << 20  # bytes; Go's default
STALLED = 20.0  # a client that takes nothing for this long is dropped
GZIP_FROM = 128 * 1024  # bytes; smaller answers are not worth it to the API server


class Connection:
    """One client's socket, with what was read from it and not used yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.extra_headers: Tuple[Tuple[str, str], ...] = ()  # of the next response
        self.watching = False
        self._selector: Optional[selectors.BaseSelector] = None
        sock.settimeout(STALLED)

    def close(self) -> None:
        if self._selector is not None:
            self._selector.close()
        self.sock.close()

    def end(self) -> None:
        """From any thread: make the connection's own thread meet Gone."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS state from under the other thread.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    # Bytes

    def wait(self, seconds: Optional[float], bell: Optional[Bell] = None) -> bool:
        """Wait for the client, the bell, or the end of `seconds`; True if the client did something."""
        if getattr(self.sock, "pending", int)():
            return True  # decrypted already: the selector would not see it
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            self._selector.register(self.sock, selectors.EVENT_READ)
        if bell is not None and bell.reader not in self._selector.get_map():
            self._selector.register(bell.reader, selectors.EVENT_READ)
        ready = self._selector.select(None if seconds is None else max(0.0, seconds))
        return any(key.fileobj is self.sock for key, _ in ready)

    def forget(self, bell: Bell) -> None:
        if self._selector is not None and bell.reader in self._selector.get_map():
            self._selector.unregister(bell.reader)

    def fill(self) -> None:
        """Read what is there, at least one byte."""
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            raise Gone() from error
        if not data:
            raise Gone()
        self.buffer += data

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise Gone() from error

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.fill()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self.fill()
        return self._take(self.buffer.index(b"\r\n") + 2)[:-2]

    # HTTP

    def read_request(self) -> Request:
        searched = 0
        while b"\r\n\r\n" not in self.buffer[searched:]:
            searched = max(0, len(self.buffer) - 3)
            if searched > MAX_HEADERS:
                self.send(self._head(431, [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]))
                raise Gone()
            if not self.buffer:
                self.wait(None)  # between two requests there is no hurry
            self.fill()
        head = self._take(self.buffer.index(b"\r\n\r\n") + 4).decode("latin-1").split("\r\n")
        try:
            return self._parse(head)
        except ValueError:
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]
            self.send(self._head(400, headers) + b"400 Bad Request")
            raise Gone() from None

    def _parse(self, head: List[str]) -> Request:
        method, target, _ = head[0].split(" ")
        headers: Dict[str, str] = {}
        repeated: Set[str] = set()
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            if name in headers:
                repeated.add(name)
                value = headers[name] + ", " + value
            headers[name] = value
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        split = urlsplit(target)
        query = parse_qs(split.query, keep_blank_values=True)
        return Request(method, target, unquote(split.path), query, headers, repeated, self._read_body(headers))

    def _read_body(self, headers: Dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            length = headers.get("content-length", "0")
            return self._take(int(length)) if length.isdigit() else b""
        body = b""
        while True:
            size = int(self._line().split(b";")[0], 16)
            body += self._take(size)
            self._line()
            if size == 0:
                return body

    def send_head(self, code: int, headers: Iterable[Tuple[str, str]]) -> None:
        """Begin a response that goes on."""
        self.send(self._head(code, headers))

    def _head(self, code: int, headers: Iterable[Tuple[str, str]]) -> bytes:
        lines = ["HTTP/1.1 %d %s" % (code, REASONS.get(code, "Unknown"))]
        lines += ["%s: %s" % header for header in tuple(headers) + self.extra_headers]
        self.extra_headers = ()
        return "\r\n".join(lines + ["", ""]).encode("latin-1")

    def send_answer(self, answer: Answer, request: Request) -> None:
        body, headers = answer.body, list(answer.headers)
        if body and answer.content_type:
            headers.append(("Content-Type", answer.content_type))
        if len(body) > GZIP_FROM and "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 1)
            headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
        if answer.code != 204:
            headers.append(("Content-Length", str(len(body))))
        self.send(self._head(answer.code, headers) + (b"" if request.method == "HEAD" else body))

    def send_raw_refusal(self, code: int, text: str = "") -> None:
        """As golang.org/x/net/websocket refuses a handshake: no length, the connection ends."""
        extra = "Sec-WebSocket-Version: 13\r\n" if text else ""
        self.send(("HTTP/1.1 %d %s\r\n%s\r\n%s" % (code, REASONS[code], extra, text)).encode())
        raise Gone()


class Chunks:
    """A response that goes on: text in chunks, over plain HTTP."""

    def __init__(self, connection: Connection, content_type: str = "application/json") -> None:
        self._connection = connection
        connection.send_head(200, [("Content-Type", content_type), ("Transfer-Encoding", "chunked")])

    def send(self, texts: List[str]) -> None:
        data = "".join(texts).encode()
        if data:
            self._connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    def wait(self, seconds: float, bell: Optional[Bell] = None) -> None:
        if self._connection.wait(seconds, bell):
            self._connection.fill()  # the next request, early; or Gone

    def finish(self) -> None:
        self._connection.send(b"0\r\n\r\n")


CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes) -> bytes:
    """One frame as a server sends it: whole and not masked."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def unmask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


class ServerSocket:
    """The server's end of a WebSocket."""

    def __init__(self, connection: Connection, request: Request, protocol: str) -> None:
        key = request.headers.get("sec-websocket-key", "")
        if request.headers.get("sec-websocket-version") != "13":
            connection.send_raw_refusal(400, "missing or bad WebSocket Version")
        if not key:
            connection.send_raw_refusal(400, "mismatch challenge/response")
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", base64.b64encode(digest).decode()),
        ]
        if protocol:
            headers.append(("Sec-WebSocket-Protocol", protocol))
        connection.send_head(101, headers)
        self._connection = connection
        self._fragments = b""
        self._opcode = TEXT

    def send(self, texts: List[str]) -> None:
        if texts:
            self._connection.send(b"".join(frame(TEXT, text.encode()) for text in texts))

    def send_bytes(self, payload: bytes) -> None:
        self._connection.send(frame(BINARY, payload))

    def wait(self, seconds: float, bell: Optional[Bell] = None) -> None:
        self.receive(seconds, bell)  # a watch ignores what its client says

    def receive(self, seconds: float, bell: Optional[Bell] = None) -> List[bytes]:
        """The messages that are there or come within `seconds`; pings are answered, a close ends it."""
        if self._connection.wait(seconds, bell):
            self._connection.fill()
        messages: List[bytes] = []
        while True:
            found = self._next_frame()
            if found is None:
                return messages
            final, opcode, payload = found
            if opcode == PING:
                self._connection.send(frame(PONG, payload))
            elif opcode == CLOSE:
                self.finish()
                raise Gone()
            elif opcode in (TEXT, BINARY, CONTINUATION):
                self._fragments += payload
                if final:
                    messages.append(self._fragments)
                    self._fragments = b""

    def _next_frame(self) -> Optional[Tuple[bool, int, bytes]]:
        buffer = self._connection.buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if not buffer[1] & 0x80:  # RFC 6455 5.1: a client masks
            self._connection.send(frame(CLOSE, struct.pack("!H", 1002)))
            self.finish()
            raise Gone()
        if len(buffer) < start + 4 + size:
            return None
        mask, payload = bytes(buffer[start : start + 4]), bytes(buffer[start + 4 : start + 4 + size])
        opening = buffer[0]
        del buffer[: start + 4 + size]
        return bool(opening & 0x80), opening & 0x0F, unmask(payload, mask)

    def finish(self) -> None:
        self._connection.send(frame(CLOSE, struct.pack("!H", 1000)))


def open_stream(connection: Connection, request: Request, protocols: List[str]) -> Union[Chunks, ServerSocket]:
    """What a watch writes to. The handshake is as strict as golang.org/x/net/websocket's."""
    if not request.upgrades:
        return Chunks(connection)
    origin = request.headers.get("origin", "")
    if not origin.startswith("/") and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", origin):
        connection.send_raw_refusal(403)
    if len(protocols) > 1:
        connection.send_raw_refusal(400)
    return ServerSocket(connection, request, "".join(protocols))


# ------------------------------------------------------------------------------
# 8. Kubernetes
#
# One request to one cluster: who asks, for what, and what becomes of it. Handlers
# return an Answer or raise Refused; they run with the store's lock held, and so only
# return what goes on (a watch, a log) for the connection's thread to run afterwards.
# ------------------------------------------------------------------------------

PATCH_TYPES = ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json")
BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
ANONYMOUS = "system:anonymous"
OPEN_PATHS = ("/version", "/healthz", "/livez", "/readyz")  # for everybody, known or not

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
NAME_RULES = {
    ("", "namespaces"): (
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an"
        " alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    ),
    ("", "services"): (
        r"[a-z]([-a-z0-9]*[a-z0-9])?",
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end"
        " with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is"
        " '[a-z]([-a-z0-9]*[a-z0-9])?')",
    ),
}
SUBDOMAIN_RULE = (
    _SUBDOMAIN,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with"
    " an alphanumeric character (e.g. 'example.com', regex used for validation is '%s')" % _SUBDOMAIN,
)


class Target(NamedTuple):
    """What a path below /api or /apis means."""

    resource: Resource
    namespace: str
    name: str
    subresource: str
    watch: bool = False  # the old /watch/ paths

    @property
    def key(self) -> Key:
        return self.namespace, self.name


class Kubernetes:
    """The API server of every cluster; a cluster is a Store."""

    def __init__(self, demo: "DemoCluster") -> None:
        self._demo = demo

    def handle(self, store: Store, tokens: Optional[Set[str]], request: Request) -> Handled:
        """Answer one request. `tokens` are the accepted ones; None takes everybody for an administrator."""
        try:
            try:
                user, protocols = self._authenticate(store, tokens, request)
                with store.lock if request.method == "GET" else store.changing():
                    return self._route(store, user, protocols, request)
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                # A body of a shape that nothing here expected. The API server, too, survives its panics.
                raise Refused(500, "InternalError", "Internal error occurred: %r" % error) from error
        except Refused as refused:
            retry = dig(refused.status, "details", "retryAfterSeconds")
            headers = (("Retry-After", str(retry)),) if retry else ()
            return self._render(request, dumps(refused.status), refused.code)._replace(headers=headers)
        except PageNotFound:
            return text_error("404 page not found", 404)

    # Who asks

    def _authenticate(self, store: Store, tokens: Optional[Set[str]], request: Request) -> Tuple[str, List[str]]:
        """The user, and the subprotocols without the one that carried the token."""

        def known(token: str) -> bool:
            return tokens is None or token in tokens or store.issued.get(token, 0) > time.time()

        protocols = request.protocols
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            if not known(token.strip()):
                raise Refused(401, "Unauthorized", "Unauthorized")
            return "admin", protocols  # a token among the subprotocols stays there, and is one too many
        carried = [protocol for protocol in protocols if protocol.startswith(BEARER_PROTOCOL)]
        if request.upgrades and carried and carried != [BEARER_PROTOCOL]:
            others = [protocol for protocol in protocols if protocol not in carried]
            encoded = carried[0][len(BEARER_PROTOCOL) :]
            try:
                if not re.fullmatch("[A-Za-z0-9_-]+", encoded):
                    raise ValueError
                token = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except ValueError:
                token = ""
            if len(carried) > 1 or not others or not token or not known(token):
                raise Refused(401, "Unauthorized", "Unauthorized")
            return "admin", others
        return ("admin" if tokens is None else ANONYMOUS), protocols

    def _authorize(self, user: str, request: Request, target: Optional[Target]) -> None:
        if user != ANONYMOUS or request.path.rstrip("/") in OPEN_PATHS:
            return
        verb = {"POST": "create", "PUT": "update"}.get(request.method, request.method.lower())
        if target is None:
            message = 'forbidden: User "%s" cannot %s path "%s"' % (user, verb, request.path)
            raise Refused(403, "Forbidden", message, {})
        if verb == "get" and not target.name:
            verb = "watch" if target.watch or request.flag("watch") else "list"
        if verb == "delete" and not target.name:
            verb = "deletecollection"
        resource, subresource = target.resource, target.subresource and "/" + target.subresource
        where = 'in the namespace "%s"' % target.namespace if target.namespace else "at the cluster scope"
        what = 'User "%s" cannot %s resource "%s" in API group "%s" %s'
        raise forbidden(
            resource, target.name, what % (user, verb, resource.plural + subresource, resource.group, where)
        )

    # Where it goes

    def _route(self, store: Store, user: str, protocols: List[str], request: Request) -> Handled:
        parts = request.path.strip("/").split("/")
        prefix = 2 if parts[0] == "api" else 3  # words before the resource
        if parts[0] not in ("api", "apis") or len(parts) <= prefix:
            self._authorize(user, request, None)
            return self._discovery(store, parts, request)
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        try:
            target = self._target(store, group, version, parts[prefix:])
        except (Refused, PageNotFound):
            unknown = Resource(group, version, parts[prefix], "", False)
            self._authorize(user, request, Target(unknown, "", "", ""))
            raise
        self._authorize(user, request, target)
        self._negotiate(request)
        if target.resource.group == "metrics.k8s.io":
            return self._metrics(store, target, request)
        if target.resource.group == "authorization.k8s.io":
            return self._review(target, request)
        if target.subresource:
            return self._subresource(store, target, protocols, request)
        if target.name:
            act = {"GET": self._get, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}.get(request.method)
            if act is None:
                raise not_allowed()
            return act(store, target, request)
        if request.method == "GET":
            if target.watch or request.flag("watch"):
                return Watch(self._demo, store, target, protocols, request).run
            return self._list(store, target, request)
        if request.method == "POST" and bool(target.namespace) == target.resource.namespaced:
            return self._create(store, target, request)
        if request.method == "DELETE" and bool(target.namespace) == target.resource.namespaced:
            return self._delete_collection(store, target, request)
        raise not_allowed()

    def _target(self, store: Store, group: str, version: str, parts: List[str]) -> Target:
        served = store.resources
        if not any(resource.group == group for resource in served.values()):
            raise PageNotFound()
        watch = parts[0] == "watch" and len(parts) > 1
        parts = parts[1:] if watch else parts
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
            namespace, parts = parts[1], parts[2:]
        resource = served.get((group, version, parts[0]))
        name, subresource, rest = (parts[1:] + ["", ""])[0], (parts[2:] + [""])[0], parts[3:]
        scoped = resource is not None and (resource.namespaced == bool(namespace) or (resource.namespaced and not name))
        if resource is None or rest or not scoped or (subresource and subresource not in resource.subresources):
            raise no_such_resource()
        return Target(resource, namespace, name, subresource, watch)

    def _discovery(self, store: Store, parts: List[str], request: Request) -> Answer:
        versions: Dict[str, List[str]] = collections.defaultdict(list)
        for resource in store.resources.values():
            if resource.version not in versions[resource.group]:
                versions[resource.group].append(resource.version)
        if request.method != "GET":
            raise not_allowed()
        if parts[0] in ("healthz", "livez", "readyz"):
            return Answer(200, b"ok", "text/plain; charset=utf-8", (("X-Content-Type-Options", "nosniff"),))
        if parts == ["version"]:
            version = {
                "major": "1",
                "minor": "20",
                "gitVersion": "v1.20.2",
                "gitCommit": "demo",
                "gitTreeState": "clean",
            }
            version.update(buildDate="1970-01-01T00:00:00Z", goVersion="none", compiler="none", platform="memory")
            return self._render(request, dumps(version))
        if parts == ["openapi", "v2"] and "protobuf" in request.headers.get("accept", ""):
            # An empty document, which knows no kind and so objects to none: `kubectl apply` asks for it.
            return Answer(
                200, b"", "", (("Content-Type", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),)
            )
        if parts == ["openapi", "v2"]:
            return json_answer({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.20.2"}, "paths": {}})
        if parts == ["api"]:
            return self._render(
                request, dumps({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
            )
        groups = []
        for group in sorted(filter(None, versions)):
            ways = [{"groupVersion": group + "/" + version, "version": version} for version in versions[group]]
            groups.append({"name": group, "versions": ways, "preferredVersion": ways[0]})
        if parts == ["apis"]:
            return self._render(request, dumps({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        if parts[0] == "apis" and len(parts) == 2:
            for found in groups:
                if found["name"] == parts[1]:
                    return self._render(request, dumps(dict({"kind": "APIGroup", "apiVersion": "v1"}, **found)))
            raise PageNotFound()
        if parts[0] in ("api", "apis"):
            group = parts[1] if parts[0] == "apis" else ""
            return self._render(request, dumps(self._resource_list(store, "/".join(parts[1:]), group)))
        paths = (
            ["/api", "/api/v1", "/apis"] + ["/apis/%s" % found["name"] for found in groups] + ["/healthz", "/version"]
        )
        return self._render(request, dumps({"paths": paths}), 200 if parts == [""] else 404)

    def _resource_list(self, store: Store, group_version: str, group: str) -> Object:
        listed = []
        for resource in store.resources.values():
            if resource.api_version != group_version:
                continue
            entry = {
                "name": resource.plural,
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
            }
            entry["verbs"] = resource.verbs
            if resource.short_names:
                entry["shortNames"] = list(resource.short_names)
            if resource.plural in ("pods", "services") or resource.group == "apps":
                entry["categories"] = ["all"]
            listed.append(entry)
            for subresource in resource.subresources:
                parent = dict({"group": "", "version": "", "kind": resource.kind})
                parent["group"], parent["version"], kind = SUBRESOURCE_KINDS.get(subresource, ("", "", resource.kind))
                verbs = SUBRESOURCE_VERBS.get(subresource, ["get", "patch", "update"])
                entry = {
                    "name": resource.plural + "/" + subresource,
                    "singularName": "",
                    "namespaced": resource.namespaced,
                }
                listed.append(
                    dict(entry, kind=kind, verbs=verbs, **{k: v for k, v in parent.items() if v and k != "kind"})
                )
        if not listed:
            if not any(resource.group == group for resource in store.resources.values()):
                raise PageNotFound()
            raise no_such_resource()
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}

    # How it is answered

    def _negotiate(self, request: Request) -> None:
        kinds = [clause.split(";")[0].strip() for clause in request.headers.get("accept", "*/*").split(",")]
        if not any(kind in ("", "*/*", "application/*", "application/json", "application/yaml") for kind in kinds):
            raise Refused(406, "NotAcceptable", "406: Not Acceptable", {})

    def _render(self, request: Request, text: str, code: int = 200) -> Answer:
        """JSON as this client likes it: people at a terminal get it indented."""
        agent = request.headers.get("user-agent", "")
        if request.flag("pretty") or (
            "pretty" not in request.query and agent.startswith(("curl", "Wget", "Mozilla/5.0"))
        ):
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        yaml = request.headers.get("accept", "").startswith("application/yaml")  # of which JSON is a part
        return Answer(code, text.encode() + b"\n", "application/yaml" if yaml else "application/json")

    def _object(self, request: Request, resource: Resource, entry: Entry, code: int = 200) -> Answer:
        if wants_table(request):
            return self._render(request, dumps(table(resource, [entry.body], entry.body["metadata"])), code)
        return self._render(request, entry.text(resource), code)

    def _success(self, request: Request, resource: Resource, entry: Entry) -> Answer:
        details = _details(resource, entry.body["metadata"]["name"], uid=entry.body["metadata"]["uid"])
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return self._render(request, dumps(status))

    # Reading

    def _get(self, store: Store, target: Target, request: Request) -> Answer:
        parse_version(request.param("resourceVersion"))
        return self._object(request, target.resource, self._existing(store, target))

    def _existing(self, store: Store, target: Target) -> Entry:
        entry = store.get(target.resource, target.key)
        if entry is None:
            raise not_found(target.resource, target.name)
        return entry

    def _list(self, store: Store, target: Target, request: Request) -> Answer:
        resource, wanted = target.resource, request.param("resourceVersion")
        version, limit = parse_version(wanted), parse_int(request.param("limit"))
        match, token = request.param("resourceVersionMatch"), request.param("continue")
        check_match(request, watch=False)
        matches = selector_for(target, request)
        after: Optional[Key] = None
        at = store.resource_version
        if token:
            if version:
                raise bad_request("specifying resource version is not allowed when using continue")
            at, after = self._decode_continue(store, target, token)
        elif match == "Exact":
            at = version
            if at < store.oldest:
                raise expired("The resourceVersion for the provided list is too old.")
        elif version > at:
            deadline = time.monotonic() + 3.0
            while version > store.resource_version and time.monotonic() < deadline:
                store.lock.wait(deadline - time.monotonic())
            if version > store.resource_version:
                message = "Timeout: Too large resource version: %d, current: %d" % (version, store.resource_version)
                causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
                raise Refused(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1})
            at = store.resource_version
        if wanted == "0":
            limit = 0  # the watch cache answers, and does not page
        entries = store.entries(resource, target.namespace, at)
        found = [(key, entry) for key, entry in entries if (after is None or key > after) and matches(entry.body)]
        metadata: Object = {"continue": ""} if resource.custom else {}
        metadata["resourceVersion"] = str(at)
        if 0 < limit < len(found):
            last = found[limit - 1][0]
            metadata["continue"] = self._encode_continue(at, target, last)
            if not request.param("labelSelector") and not request.param("fieldSelector"):
                metadata["remainingItemCount"] = len(found) - limit
            found = found[:limit]
        if wants_table(request):
            return self._render(request, dumps(table(resource, [entry.body for _, entry in found], metadata)))
        return self._render(request, self._list_text(resource, metadata, [entry for _, entry in found]))

    def _list_text(self, resource: Resource, metadata: Object, entries: List[Entry]) -> str:
        items = ",".join(entry.text(resource if resource.custom else None) for entry in entries)
        head = {
            "kind": resource.list_kind or resource.kind + "List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
        }
        return '%s,"items":[%s]}' % (dumps(head)[:-1], items)

    def _encode_continue(self, version: int, target: Target, last: Key) -> str:
        start = last[1] if target.namespace or not target.resource.namespaced else "/".join(last)
        token = dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start + "\0"})
        return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")

    def _decode_continue(self, store: Store, target: Target, token: str) -> Tuple[int, Key]:
        try:
            fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            version, start = int(fields["rv"]), fields["start"].rstrip("\0")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise bad_request("invalid continue token: continue key is not valid: %s" % error) from error
        namespace, name = start.split("/") if "/" in start else (target.namespace, start)
        if version < 0:  # the token that an expired one is traded for: go on with what is there now
            version = store.resource_version
        elif version < store.oldest:
            inconsistent = self._encode_continue(-1, target, (namespace, name))
            raise expired(CONTINUE_EXPIRED, {"continue": inconsistent})
        return version, (namespace, name)

    # Writing

    def _create(self, store: Store, target: Target, request: Request) -> Answer:
        resource, dry = target.resource, dry_run(request, "CreateOptions")
        body = self._decode(request, resource)
        metadata = body.get("metadata") or {}
        if metadata.get("namespace") not in (None, "", target.namespace):
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        fresh = new_body(resource, target.namespace, body)
        name = fresh["metadata"].get("name", "")
        if target.namespace:
            namespace = store.get(NAMESPACES, ("", target.namespace))
            if namespace is None:
                raise not_found(NAMESPACES, target.namespace)
            if namespace.body["status"]["phase"] == "Terminating":
                ending = "namespace %s is being terminated" % target.namespace
                causes = [{"reason": "NamespaceTerminating", "message": ending, "field": "metadata.namespace"}]
                why = "unable to create new content in namespace %s because it is being terminated" % target.namespace
                raise forbidden(resource, name, why, causes)
        self._validate(resource, fresh, None)
        if metadata.get("resourceVersion") not in (None, "", "0"):
            raise Refused(500, "", "resourceVersion should not be set on objects to be created")
        if store.get(resource, (target.namespace, name)):
            raise already_exists(resource, name)
        if dry:
            return self._object(request, resource, Entry(fresh), 201)
        entry = store.put(resource, (target.namespace, name), fresh)
        if resource == CRDS:
            self._serve(store, name)
        return self._object(request, resource, entry, 201)

    def _serve(self, store: Store, name: str) -> None:
        """Begin to serve a custom resource; its watches end when it changes."""
        crd = store.get(CRDS, ("", name))
        assert crd is not None
        resources = store.serve(crd.body)
        group, plural = crd.body["spec"]["group"], crd.body["spec"]["names"]["plural"]
        for served in [key for key, resource in store.resources.items() if resource.storage == (group, plural)]:
            del store.resources[served]
        store.resources.update({(r.group, r.version, r.plural): r for r in resources})
        conditions = [
            {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": timestamp()}
            for kind, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ]
        names = crd.body["spec"]["names"]
        store.edit(CRDS, ("", name), lambda body: body["status"].update(conditions=conditions, acceptedNames=names))

    def _put(self, store: Store, target: Target, request: Request) -> Answer:
        dry = dry_run(request, "UpdateOptions")
        body = self._decode(request, target.resource)
        name = dig(body, "metadata", "name")
        if not name:
            raise bad_request(
                "the name of the object (%s based on URL) was undeterminable: name must be provided" % target.name
            )
        if name != target.name:
            raise bad_request(
                "the name of the object (%s) does not match the name on the URL (%s)" % (name, target.name)
            )
        old = self._existing(store, target)
        version = dig(body, "metadata", "resourceVersion")
        if not version and (target.resource.custom or target.resource == CRDS):
            cause = Cause("metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")
            raise invalid(target.resource.group, target.resource.plural, name, [cause])
        uid = dig(body, "metadata", "uid")
        if uid and uid != old.body["metadata"]["uid"]:
            message = (
                "StorageError: invalid object, Code: 4, Key: /registry/%s/%s, ResourceVersion: 0, AdditionalErrorMsg:"
                " Precondition failed: UID in precondition: %s, UID in object meta: %s"
            )
            where = "/".join(filter(None, target.key)), uid, old.body["metadata"]["uid"]
            raise conflict(target.resource, name, message % ((target.resource.plural,) + where))
        return self._object(request, target.resource, self._replace(store, target, old, body, dry))

    def _patch(self, store: Store, target: Target, request: Request) -> Answer:
        dry = dry_run(request, "PatchOptions")
        old = self._existing(store, target)
        head = {"kind": target.resource.kind, "apiVersion": target.resource.api_version}
        body = self._patched(request, target.resource, dict(head, **copy.deepcopy(old.body)))
        wrong = wrong_type(target.resource, body)
        if not wrong and (body.get("kind"), body.get("apiVersion")) != (head["kind"], head["apiVersion"]):
            wrong = "%s in version %s cannot be handled as a %s" % (
                body.get("kind"),
                body.get("apiVersion"),
                head["kind"],
            )
        if wrong:
            raise invalid("", "", "", [Cause("patch", "Invalid value: %s: %s" % (json.dumps(dumps(body)), wrong))])
        name, uid = dig(body, "metadata", "name"), dig(body, "metadata", "uid")
        if name != target.name:
            raise bad_request(
                "the name of the object (%s) does not match the name on the URL (%s)" % (name, target.name)
            )
        if uid != old.body["metadata"]["uid"]:
            cause = Cause("metadata.uid", "Invalid value: %s: field is immutable" % json.dumps(uid))
            raise invalid(target.resource.group, target.resource.kind, name, [cause, cause])
        return self._object(request, target.resource, self._replace(store, target, old, body, dry))

    def _patched(self, request: Request, resource: Resource, body: Object) -> Object:
        """The body with the request's patch applied."""
        kind = request.headers.get("content-type", "").split(";")[0].strip()
        if kind not in PATCH_TYPES:
            raise Refused(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        if resource.custom and kind == PATCH_TYPES[2]:
            known = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            message = "the body of the request was in an unknown format - accepted media types include: " + known
            raise Refused(415, "UnsupportedMediaType", message)
        try:
            patch = json.loads(request.body.decode())
        except ValueError as error:
            if kind == PATCH_TYPES[0]:
                raise bad_request(str(error)) from error
            raise Refused(500, "", "Invalid JSON Patch") from error
        if kind == PATCH_TYPES[0]:
            if not isinstance(patch, list) or not all(isinstance(operation, dict) for operation in patch):
                raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
            try:
                body = json_patch(body, patch)
            except PatchFailed as error:
                raise Refused(
                    422, "Invalid", "the server rejected our request due to an error in our request", {}
                ) from error
        elif not isinstance(patch, dict):
            wrong = "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value"
            raise invalid("", "", "", [Cause("patch", "Invalid value: %s: %s" % (json.dumps(dumps(patch)), wrong))])
        else:
            body = (merge_patch if kind == PATCH_TYPES[1] else strategic_merge_patch)(body, patch)
        if not isinstance(body, dict):
            raise bad_request("the result of the patch is not an object")
        return body

    def _replace(self, store: Store, target: Target, old: Entry, body: Object, dry: bool) -> Entry:
        """Put a new body in the place of an old one, keeping what a client cannot change."""
        resource, was = target.resource, old.body["metadata"]
        version = dig(body, "metadata", "resourceVersion")
        if version and not str(version).isdigit():
            raise Refused(500, "", 'strconv.ParseUint: parsing "%s": invalid syntax' % version)
        body = {name: value for name, value in body.items() if name not in ("kind", "apiVersion") and value is not None}
        metadata = {
            name: value for name, value in body.pop("metadata").items() if value not in EMPTY and name != "selfLink"
        }
        for name in (
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "resourceVersion",
        ):
            metadata.pop(name, None)
            if name in was:
                metadata[name] = was[name]
        body = dict({"metadata": metadata}, **body)
        if "status" in resource.subresources:  # then each of the two doors changes its own half
            keep = [
                name for name in set(body) | set(old.body) if (name == "status") != (target.subresource == "status")
            ]
            keep = [name for name in keep if name != "metadata"]
            body = {name: value for name, value in body.items() if name not in keep}
            body.update({name: copy.deepcopy(old.body[name]) for name in keep if name in old.body})
        if version and version not in ("0", was["resourceVersion"]):
            raise conflict(resource, target.name, MODIFIED_MEANWHILE)
        self._validate(resource, body, old.body)
        if resource.counts_generations and target.subresource != "status":
            if {k: v for k, v in body.items() if k != "metadata"} != {
                k: v for k, v in old.body.items() if k != "metadata"
            }:
                metadata["generation"] = was["generation"] + 1
        if dry:
            return Entry(body)
        entry = store.put(resource, target.key, body)
        if resource == CRDS and body["spec"] != old.body["spec"]:
            self._serve(store, target.name)
        return entry

    def _delete(self, store: Store, target: Target, request: Request) -> Answer:
        options = self._delete_options(request)
        dry = dry_run(request, "DeleteOptions", options)
        entry = self._existing(store, target)
        metadata, wanted = entry.body["metadata"], options.get("preconditions") or {}
        kind = target.resource._replace(plural=target.resource.kind)
        if wanted.get("uid") not in (None, metadata["uid"]):
            why = "the UID in the precondition (%s) does not match the UID in record (%s)."
            why += " The object might have been deleted and then recreated"
            raise conflict(kind, target.name, why % (wanted["uid"], metadata["uid"]))
        if wanted.get("resourceVersion") not in (None, metadata["resourceVersion"]):
            why = "the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s)."
            why += " The object might have been modified"
            raise conflict(kind, target.name, why % (wanted["resourceVersion"], metadata["resourceVersion"]))
        if target.resource == NAMESPACES and target.name in ("default", "kube-public", "kube-system"):
            raise forbidden(NAMESPACES, target.name, "this namespace may not be deleted")
        going: Object = {"deletionTimestamp": timestamp()}
        if target.resource == PODS:
            going["deletionGracePeriodSeconds"] = 0
        shown = Entry(dict(entry.body, metadata=dict(metadata, **going)))
        if target.resource == NAMESPACES:
            shown.body["status"] = {"phase": "Terminating"}
        if not dry:
            shown = self._remove(store, target.resource, target.key, entry, shown)
        if target.resource in (PODS, NAMESPACES, CRDS):
            return self._object(request, target.resource, shown)
        return self._success(request, target.resource, entry)

    def _remove(self, store: Store, resource: Resource, key: Key, entry: Entry, shown: Entry) -> Entry:
        """Remove an object, and what ends with it."""
        if resource == NAMESPACES:  # ends when the namespace controller has emptied it
            return store.put(resource, key, shown.body)
        if resource == CRDS:
            for served in store.serve(entry.body):
                for place, _ in store.entries(served):
                    store.remove(served, place)
                store.resources.pop((served.group, served.version, served.plural), None)
        store.remove(resource, key)
        return shown

    def _delete_collection(self, store: Store, target: Target, request: Request) -> Answer:
        if "deletecollection" not in target.resource.verbs:
            raise not_allowed()
        dry = dry_run(request, "DeleteOptions", self._delete_options(request))
        matches = selector_for(target, request)
        found = [(key, entry) for key, entry in store.entries(target.resource, target.namespace) if matches(entry.body)]
        for key, entry in found if not dry else ():
            self._remove(store, target.resource, key, entry, entry)
        metadata = {"resourceVersion": str(store.resource_version)}
        return self._render(request, self._list_text(target.resource, metadata, [entry for _, entry in found]))

    def _delete_options(self, request: Request) -> Object:
        if not request.body:
            return {}
        try:
            options = json.loads(request.body.decode())
        except ValueError as error:
            raise Refused(500, "", "couldn't get version/kind; json parse error: %s" % error) from error
        options = options if isinstance(options, dict) else {}
        policy = options.get("propagationPolicy")
        if policy not in (None, "Foreground", "Background", "Orphan"):
            known = '"Foreground", "Background", "Orphan", "nil"'
            cause = Cause("propagationPolicy", 'Unsupported value: "%s": supported values: %s' % (policy, known))
            raise invalid("meta.k8s.io", "DeleteOptions", "", [cause])
        return options

    # What is in a body

    def _decode(self, request: Request, resource: Resource, kind: str = "", group_version: str = "") -> Object:
        """The object in the request, of the kind that belongs there."""
        content_type = request.headers.get("content-type", "").split(";")[0].strip()
        kind, group_version = kind or resource.kind, group_version or resource.api_version
        if content_type not in ("", "application/json", "application/yaml"):
            known = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
            message = "the body of the request was in an unknown format - accepted media types include: " + known
            raise Refused(415, "UnsupportedMediaType", message)
        try:
            body = json.loads(request.body.decode())
            if not isinstance(body, dict):
                raise ValueError("json: cannot unmarshal %s into Go value" % type(body).__name__)
        except ValueError as error:
            message = "the object provided is unrecognized (must be of type %s): " % kind
            raise bad_request(message + "couldn't get version/kind; json parse error: %s" % error) from error
        found, version = body.get("kind"), body.get("apiVersion")
        handled = '%s in version "%s" cannot be handled as a %s: ' % (found, version, kind)
        if resource.custom and kind == resource.kind:
            if not found:
                missing = "unmarshalerDecoder: Object 'Kind' is missing in '%s'" % request.body.decode()
                message = '%s in version "%s" cannot be handled as a %s: ' % (kind, resource.version, kind)
                raise bad_request(message + missing)
            if version != group_version:
                raise bad_request(
                    "the API version in the data (%s) does not match the expected API version (%s)"
                    % (version, group_version)
                )
            if found != kind:
                cause = Cause("kind", 'Invalid value: "%s": must be %s' % (found, kind))
                raise invalid(resource.group, found, dig(body, "metadata", "name") or "", [cause])
        elif found and (version or group_version) != group_version:
            if any((r.kind, r.api_version) == (found, version) for r in BUILT_IN.values()):
                groups = found, (resource.group or "core").split(".")[0], kind
                raise bad_request(handled + "converting (v1.%s) to (%s.%s): unknown conversion" % groups)
            scheme = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"
            raise bad_request(
                handled + 'no kind "%s" is registered for version "%s" in scheme "%s"' % (found, version, scheme)
            )
        elif found and found != kind:
            groups = found, (resource.group or "core").split(".")[0], kind
            raise bad_request(handled + "converting (v1.%s) to (%s.%s): unknown conversion" % groups)
        wrong = wrong_type(resource, body)
        if wrong:
            raise bad_request(
                '%s in version "%s" cannot be handled as a %s: %s' % (kind, resource.version, kind, wrong)
            )
        return body

    def _validate(self, resource: Resource, body: Object, old: Optional[Object]) -> None:
        """Refuse what the API server would refuse of what a beginner gets wrong."""
        causes = []
        name, spec = body["metadata"].get("name", ""), body.get("spec") or {}
        pattern, rule = NAME_RULES.get(resource.storage, SUBDOMAIN_RULE)
        if not name:
            causes.append(Cause("metadata.name", "Required value: name or generateName is required"))
        elif old is None and not re.fullmatch(pattern, name):
            causes.append(Cause("metadata.name", "Invalid value: %s: %s" % (json.dumps(name), rule)))
        elif old is None and len(name) > 253:
            causes.append(
                Cause("metadata.name", "Invalid value: %s: must be no more than 253 characters" % json.dumps(name))
            )
        if isinstance(spec.get("replicas"), int) and spec["replicas"] < 0 and not resource.custom:
            causes.append(
                Cause("spec.replicas", "Invalid value: %d: must be greater than or equal to 0" % spec["replicas"])
            )
        template = spec.get("template") if resource.group == "apps" else body if resource == PODS else None
        if resource.group == "apps":
            labels = dig(template, "metadata", "labels")
            wanted = dig(spec, "selector", "matchLabels")
            if not spec.get("selector"):
                causes.append(Cause("spec.selector", "Required value"))
            if not wanted or not set(wanted.items()) <= set((labels or {}).items()):
                shown = (
                    "(nil)"
                    if labels is None
                    else "{%s}" % ", ".join('"%s":"%s"' % label for label in sorted(labels.items()))
                )
                mismatch = "Invalid value: map[string]string%s: `selector` does not match template `labels`" % shown
                causes.append(Cause("spec.template.metadata.labels", mismatch))
            if old is not None and spec.get("selector") != dig(old, "spec", "selector"):
                causes.append(
                    Cause("spec.selector", "Invalid value: %s: field is immutable" % dumps(spec.get("selector")))
                )
        if resource.group == "apps" or resource == PODS:
            if not dig(template, "spec", "containers"):
                field = "spec.containers" if resource == PODS else "spec.template.spec.containers"
                causes.append(Cause(field, "Required value"))
        if resource == PODS and old is not None and spec.get("nodeName") != dig(old, "spec", "nodeName"):
            causes.append(
                Cause("spec", "Forbidden: pod updates may not change fields other than `spec.containers[*].image`")
            )
        if resource == CRDS:
            causes += self._validate_crd(name, spec)
        if causes:
            raise invalid(resource.group, resource.kind, name, causes)

    def _validate_crd(self, name: str, spec: Object) -> List[Cause]:
        names, versions = spec.get("names") or {}, spec.get("versions")
        causes = []
        if name != "%s.%s" % (names.get("plural"), spec.get("group")):
            text = 'Invalid value: "%s": must be spec.names.plural+"."+spec.group' % name
            causes.append(Cause("metadata.name", text))
        for field, value in (("spec.group", spec.get("group")), ("spec.scope", spec.get("scope"))):
            if not isinstance(value, str) or not value:
                causes.append(Cause(field, "Required value"))
        if not isinstance(versions, list) or not all(
            isinstance(version, dict) and version.get("name") for version in versions or [0]
        ):
            causes.append(
                Cause("spec.versions", "Invalid value: must have exactly one version marked as storage version")
            )
        for field in ("plural", "kind"):
            if not isinstance(names.get(field), str) or not names[field]:
                causes.append(Cause("spec.names." + field, "Required value"))
        return causes

    # Subresources

    def _subresource(self, store: Store, target: Target, protocols: List[str], request: Request) -> Handled:
        verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create"}.get(request.method)
        if verb not in SUBRESOURCE_VERBS.get(target.subresource, ["get", "patch", "update"]):
            raise not_allowed()
        if target.subresource == "status":
            act = {"get": self._get, "update": self._put, "patch": self._patch}[str(verb)]
            return act(store, target, request)
        if target.subresource == "scale":
            return self._scale(store, target, request)
        if target.subresource == "eviction":
            return self._evict(store, target, request)
        if target.subresource == "token":
            return self._token(store, target, request)
        return pod_stream(self._demo, store, target, self._existing(store, target), protocols, request)

    def _scale(self, store: Store, target: Target, request: Request) -> Answer:
        resource = target.resource
        entry = store.get(resource, target.key)
        if entry is None:
            raise not_found(resource, target.name, "" if request.method == "PUT" else "scale")
        scale = scale_of(entry)
        if request.method == "GET":
            return self._render(request, dumps(scale))
        if request.method == "PUT":
            wanted = self._decode(request, resource, "Scale", "autoscaling/v1")
        else:
            wanted = self._patched(request, resource, copy.deepcopy(scale))
        name, replicas = dig(wanted, "metadata", "name"), dig(wanted, "spec", "replicas") or 0
        if not name:
            raise bad_request(
                "the name of the object (%s based on URL) was undeterminable: name must be provided" % target.name
            )
        if name != target.name:
            raise bad_request(
                "the name of the object (%s) does not match the name on the URL (%s)" % (name, target.name)
            )
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise bad_request(
                'Scale in version "v1" cannot be handled as a Scale: v1.Scale.Spec: v1.ScaleSpec.Replicas: readUint32'
            )
        if replicas < 0:
            cause = Cause("spec.replicas", "Invalid value: %d: must be greater than or equal to 0" % replicas)
            raise invalid("autoscaling", "Scale", target.name, [cause])
        if dig(wanted, "metadata", "resourceVersion") not in (None, "", entry.body["metadata"]["resourceVersion"]):
            raise conflict(resource, target.name, MODIFIED_MEANWHILE)
        body = copy.deepcopy(entry.body)
        body["spec"]["replicas"] = replicas
        parent = target._replace(subresource="")
        return self._render(
            request, dumps(scale_of(self._replace(store, parent, entry, body, dry_run(request, "UpdateOptions"))))
        )

    def _evict(self, store: Store, target: Target, request: Request) -> Answer:
        # policy/v1, which 1.22 brought, is taken as well: newer clients send nothing else.
        newer = b'"policy/v1"' in request.body
        eviction = self._decode(request, target.resource, "Eviction", "policy/v1" if newer else "policy/v1beta1")
        if dig(eviction, "metadata", "name") != target.name:
            raise bad_request("name in URL does not match name in Eviction object")
        pod = self._existing(store, target)
        labels = pod.body["metadata"].get("labels") or {}
        for _, budget in store.entries(BUDGETS, target.namespace):
            wanted = dig(budget.body, "spec", "selector", "matchLabels")
            if wanted is None or not wanted.items() <= labels.items() or not is_ready(pod.body):
                continue
            pods = [entry.body for _, entry in store.entries(PODS, target.namespace)]
            pods = [body for body in pods if wanted.items() <= (body["metadata"].get("labels") or {}).items()]
            needed, healthy = desired_healthy(budget.body["spec"], len(pods)), sum(map(is_ready, pods))
            if healthy <= needed:
                name = budget.body["metadata"]["name"]
                text = "The disruption budget %s needs %d healthy pods and has %d currently" % (name, needed, healthy)
                causes = [{"reason": "DisruptionBudget", "message": text}]
                message = "Cannot evict pod as it would violate the pod's disruption budget."
                raise Refused(429, "TooManyRequests", message, {"causes": causes})
        if not dry_run(request, "DeleteOptions", eviction.get("deleteOptions") or {}):
            store.remove(PODS, target.key)
        return self._render(
            request,
            dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
            201,
        )

    def _token(self, store: Store, target: Target, request: Request) -> Answer:
        wanted = self._decode(request, target.resource, "TokenRequest", "authentication.k8s.io/v1")
        account = self._existing(store, target)
        spec = wanted.get("spec") or {}
        seconds = spec.get("expirationSeconds") or 3600
        if seconds < self._demo.min_token_seconds:
            cause = Cause(
                "spec.expirationSeconds", "Invalid value: %d: may not specify a duration less than 10 minutes" % seconds
            )
            raise invalid("authentication.k8s.io", "TokenRequest", "", [cause])
        now, audiences = time.time(), spec.get("audiences") or ["https://kubernetes.default.svc"]
        who = {"name": target.name, "uid": account.body["metadata"]["uid"]}
        claims = {"aud": audiences, "exp": int(now + seconds), "iat": int(now), "nbf": int(now)}
        claims["iss"] = "https://kubernetes.default.svc"
        claims["kubernetes.io"] = {"namespace": target.namespace, "serviceaccount": who}
        claims["sub"] = "system:serviceaccount:%s:%s" % target.key
        segments = [dumps({"alg": "none", "kid": "demo"}).encode(), dumps(claims).encode(), uuid.uuid4().bytes]
        token = ".".join(base64.urlsafe_b64encode(segment).decode().rstrip("=") for segment in segments)
        store.issued[token] = now + seconds
        result = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": None},
        }
        result["spec"] = {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": None}
        result["status"] = {"token": token, "expirationTimestamp": timestamp(now + seconds)}
        return self._render(request, dumps(result), 201)

    # Groups of their own

    def _review(self, target: Target, request: Request) -> Answer:
        if request.method != "POST" or target.name:
            raise not_allowed()
        spec = self._decode(request, target.resource).get("spec") or {}
        review = {
            "kind": target.resource.kind,
            "apiVersion": target.resource.api_version,
            "metadata": {"creationTimestamp": None},
        }
        if target.resource.plural == "selfsubjectaccessreviews":
            review.update(spec=spec, status={"allowed": True})
        else:
            if not spec.get("namespace"):
                raise bad_request("no namespace on request")
            resources = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
            others = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
            review.update(spec={}, status={"resourceRules": resources, "nonResourceRules": others, "incomplete": False})
        return self._render(request, dumps(review), 201)

    def _metrics(self, store: Store, target: Target, request: Request) -> Answer:
        if request.method != "GET":
            raise not_allowed()
        of_pods = target.resource.plural == "pods"
        matches = selector_for(target, request)
        items = []
        for key, entry in store.entries(PODS if of_pods else NODES, target.namespace):
            if matches(entry.body) and target.name in ("", key[1]) and is_ready(entry.body):
                items.append(usage(entry.body, of_pods))
        head = {"kind": target.resource.kind, "apiVersion": target.resource.api_version}
        if target.name and not items:
            raise not_found(target.resource, target.name)
        if target.name:
            return self._render(request, dumps(dict(head, **items[0])))
        head["kind"] += "List"
        return self._render(request, dumps(dict(head, metadata={}, items=items)))


# What several handlers need


def parse_int(text: str) -> int:
    if text and not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise bad_request('strconv.ParseInt: parsing "%s": invalid syntax' % text)
    return int(text or 0)


def parse_version(text: str) -> int:
    """A resourceVersion parameter; a bad one is a 500, which is the API server's own slip."""
    if text and not re.fullmatch("[0-9]{1,19}", text):
        why = 'resourceVersion: Invalid value: "%s": strconv.ParseUint: parsing "%s": invalid syntax'
        raise Refused(500, "", why % (text, text))
    return int(text or 0)


def check_match(request: Request, watch: bool) -> None:
    match, causes = request.param("resourceVersionMatch"), []
    field = "resourceVersionMatch"
    if match and watch:
        causes.append(Cause(field, "Forbidden: resourceVersionMatch is forbidden for watch"))
    if match and not request.param("resourceVersion"):
        causes.append(Cause(field, "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"))
    elif match not in ("", "Exact", "NotOlderThan"):
        known = '"Exact", "NotOlderThan", ""'
        causes.append(Cause(field, 'Unsupported value: "%s": supported values: %s' % (match, known)))
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)


def selector_for(target: Target, request: Request) -> Selector:
    labels = label_selector(request.param("labelSelector"))
    fields = field_selector(request.param("fieldSelector"), target.resource)
    return lambda body: labels(body) and fields(body)


def dry_run(request: Request, options: str, body: Optional[Object] = None) -> bool:
    asked = request.query.get("dryRun") or (body or {}).get("dryRun") or []
    asked = [word for word in asked if word]
    if asked not in ([], ["All"]):
        shown = ", ".join('"%s"' % word for word in asked)
        cause = Cause("dryRun", 'Unsupported value: []string{%s}: supported values: "All"' % shown)
        raise invalid("meta.k8s.io", options, "", [cause])
    return bool(asked)


def wrong_type(resource: Resource, body: Object) -> str:
    """What in a body has a type that its kind does not allow; "" if nothing that is looked at."""
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        return "v1.%s.ObjectMeta: v1.ObjectMeta: ReadObject: expect { or n" % resource.kind
    for name in ("name", "generateName", "namespace", "resourceVersion", "uid"):
        if not isinstance(dig(metadata, name), (str, type(None))):
            return 'v1.%s.ObjectMeta: v1.ObjectMeta.%s: ReadString: expects " or n' % (
                resource.kind,
                name[0].upper() + name[1:],
            )
    lists = [("metadata", "ownerReferences"), ("metadata", "finalizers"), ("status", "conditions")]
    for path in lists + [("status", "containerStatuses"), ("spec", "ports")] if not resource.custom else lists[:2]:
        listed = dig(body, *path)
        allowed = str if path[1] == "finalizers" else dict
        if listed is not None and not (isinstance(listed, list) and all(isinstance(item, allowed) for item in listed)):
            return "v1.%s.%s: decode slice: expect [ or n" % (resource.kind, path[1][0].upper() + path[1][1:])
    maps = [
        ("ObjectMeta: v1.ObjectMeta.Labels", dig(metadata, "labels")),
        ("ObjectMeta: v1.ObjectMeta.Annotations", dig(metadata, "annotations")),
    ]
    if resource.storage in (("", "configmaps"), ("", "secrets")):
        maps += [("Data", body.get("data")), ("StringData", body.get("stringData"))]
    for name, value in maps:
        if value is not None and not isinstance(value, dict):
            return "v1.%s.%s: ReadMapCB: expect { or n" % (resource.kind, name)
        for text in (value or {}).values():
            if not isinstance(text, (str, type(None))):
                return 'v1.%s.%s: ReadString: expects " or n, but found %s' % (resource.kind, name, dumps(text)[:1])
    spec = body.get("spec")
    if resource.custom:
        return ""
    if spec is not None and not isinstance(spec, dict):
        return "v1.%s.Spec: v1.%sSpec: ReadObject: expect { or n" % (resource.kind, resource.kind)
    replicas = dig(spec, "replicas")
    if replicas is not None and (not isinstance(replicas, int) or isinstance(replicas, bool)):
        return "v1.%s.Spec: v1.%sSpec.Replicas: readUint32: unexpected character: \ufffd" % (
            resource.kind,
            resource.kind,
        )
    holder = dig(spec, "template", "spec") if resource.group == "apps" else spec
    containers = dig(holder, "containers")
    if containers is not None and not (
        isinstance(containers, list) and all(isinstance(item, dict) for item in containers)
    ):
        return "v1.PodSpec.Containers: decode slice: expect [ or n"
    for steps in (("selector",), ("selector", "matchLabels"), ("template",), ("template", "metadata"), ("names",)):
        if not isinstance(dig(spec, *steps), (dict, type(None))):
            return "v1.%s.Spec: v1.%sSpec.%s: ReadObject: expect { or n" % (
                resource.kind,
                resource.kind,
                steps[-1].capitalize(),
            )
    return ""


def scale_of(entry: Entry) -> Object:
    """The Scale of a deployment, replica set or stateful set."""
    body = entry.body
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    labels = sorted((dig(body, "spec", "selector", "matchLabels") or {}).items())
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: body["metadata"][name] for name in names},
        "spec": {"replicas": body["spec"]["replicas"]},
        "status": {
            "replicas": dig(body, "status", "replicas") or 0,
            "selector": ",".join("%s=%s" % label for label in labels),
        },
    }


def desired_healthy(spec: Object, expected: int) -> int:
    """How many pods a PodDisruptionBudget wants to stay."""

    def count(value: Any) -> int:
        return math.ceil(expected * int(value[:-1]) / 100) if isinstance(value, str) else int(value)

    if spec.get("maxUnavailable") is not None:
        return max(0, expected - count(spec["maxUnavailable"]))
    return count(spec.get("minAvailable", 1))


def usage(body: Object, of_pod: bool) -> Object:
    """Made-up metrics that move a little, steadily for each object."""
    base = sum(body["metadata"]["uid"].encode()) % 50 + (5 if of_pod else 250)
    wave = 1 + 0.2 * math.sin(time.time() / 7 + base)
    used = {"cpu": "%dn" % (base * wave * 1e6), "memory": "%dKi" % (base * 4096 * (2 + wave) / 3)}
    metadata = {
        name: value
        for name, value in body["metadata"].items()
        if name in ("name", "namespace", "labels", "creationTimestamp")
    }
    item = {"metadata": metadata, "timestamp": timestamp(), "window": "30s"}
    if of_pod:
        item["containers"] = [
            {"name": container["name"], "usage": used} for container in body["spec"]["containers"][:1]
        ]
    else:
        item["usage"] = used
    return item


# Tables, which kubectl prints as they come


def wants_table(request: Request) -> bool:
    return "as=Table" in request.headers.get("accept", "")


def _pod_state(body: Object) -> List[Any]:
    states = dig(body, "status", "containerStatuses") or []
    ready = "%d/%d" % (sum(bool(state.get("ready")) for state in states), len(dig(body, "spec", "containers") or []))
    return [ready, dig(body, "status", "phase") or "Unknown", sum(state.get("restartCount", 0) for state in states)]


def _ports(body: Object) -> str:
    return (
        ",".join("%s/%s" % (port.get("port"), port.get("protocol", "TCP")) for port in dig(body, "spec", "ports") or [])
        or "<none>"
    )


def _node_state(body: Object) -> List[Any]:
    state = ("Ready" if is_ready(body) else "NotReady") + (
        ",SchedulingDisabled" if dig(body, "spec", "unschedulable") else ""
    )
    labels = dig(body, "metadata", "labels") or {}
    roles = [label.split("/", 1)[1] for label in labels if label.startswith("node-role.kubernetes.io/")]
    return [state, ",".join(roles) or "<none>"]


# The columns between Name and Age, and how to fill them.
COLUMNS: Dict[str, Tuple[str, Callable[[Object], List[Any]]]] = {
    "Pod": ("Ready Status Restarts", _pod_state),
    "Node": ("Status Roles", _node_state),
    "Namespace": ("Status", lambda body: [dig(body, "status", "phase")]),
    "ConfigMap": ("Data", lambda body: [len(body.get("data") or {})]),
    "Secret": ("Type Data", lambda body: [body.get("type"), len(body.get("data") or {})]),
    "Service": (
        "Type Cluster-IP Port(s)",
        lambda body: [body["spec"].get("type"), body["spec"].get("clusterIP"), _ports(body)],
    ),
    "Deployment": (
        "Ready Up-to-date Available",
        lambda body: [
            "%d/%d" % (dig(body, "status", "readyReplicas") or 0, body["spec"]["replicas"]),
            dig(body, "status", "updatedReplicas") or 0,
            dig(body, "status", "availableReplicas") or 0,
        ],
    ),
    "DaemonSet": (
        "Desired Ready",
        lambda body: [dig(body, "status", name) or 0 for name in ("desiredNumberScheduled", "numberReady")],
    ),
    "Event": (
        "Type Reason Object Message",
        lambda body: [body.get("type"), body.get("reason"), dig(body, "involvedObject", "name"), body.get("message")],
    ),
}


def table(resource: Resource, bodies: List[Object], metadata: Object) -> Object:
    """The meta.k8s.io/v1 Table for some objects."""
    names, cells = COLUMNS.get(resource.kind, ("", lambda body: []))
    columns = [
        {"name": name, "type": "string", "format": "", "description": "", "priority": 0}
        for name in ["Name"] + names.split() + ["Age"]
    ]
    columns[0]["format"] = "name"
    rows = []
    for body in bodies:
        made = time.mktime(time.strptime(body["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        age = max(0, int(time.time() - made))
        units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
        shown = next(("%d%s" % (age // size, unit) for size, unit in units if age >= 2 * size), "%ds" % age)
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}
        rows.append({"cells": [body["metadata"]["name"]] + cells(body) + [shown], "object": partial})
    shown_metadata = {
        name: value for name, value in metadata.items() if name in ("resourceVersion", "continue", "remainingItemCount")
    }
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": shown_metadata,
        "columnDefinitions": columns,
        "rows": rows,
    }


# ------------------------------------------------------------------------------
# 9. Watches
#
# A watch reads the store's log at its own pace: a batch under the lock, then sends it
# without. One that falls out of the log is hung up on, as a slow one is in real life.
# ------------------------------------------------------------------------------


class Watch:
    """One watch: made under the store's lock, then run by its connection's thread."""

    def __init__(
        self, demo: "DemoCluster", store: Store, target: Target, protocols: List[str], request: Request
    ) -> None:
        if "watch" not in target.resource.verbs:
            raise not_allowed()
        self._demo, self._store, self._request, self._protocols = demo, store, request, protocols
        self._resource, self._namespace = target.resource, target.namespace
        self._matches = selector_for(target, request)
        self._version = parse_version(request.param("resourceVersion"))
        check_match(request, watch=True)
        seconds = parse_int(request.param("timeoutSeconds")) or random.uniform(1800, 3600)
        self._deadline = time.monotonic() + seconds
        self._bookmarks = request.flag("allowWatchBookmarks")
        self._next_bookmark = self._bookmark_after(time.monotonic())
        self._first: List[str] = []
        self._over = False
        if self._version == 0:
            self._version = store.resource_version
            entries = store.entries(self._resource, self._namespace)
            self._first = [self._line("ADDED", entry) for _, entry in entries if self._matches(entry.body)]
        elif self._version < store.oldest:
            message = "too old resource version: %d (%d)" % (self._version, store.oldest)
            self._first = ['{"type":"ERROR","object":%s}\n' % dumps(expired(message).status)]
            self._over = True
        self._told = self._version  # the newest resourceVersion that the client knows

    def run(self, connection: Connection) -> None:
        stream = open_stream(connection, self._request, self._protocols)
        bell = Bell()
        connection.watching = True
        try:
            with self._store.told(bell):
                stream.send(self._first)
                while not self._over:
                    stream.send(self._news(bell))
                    if not self._over:
                        until = min(self._deadline, self._next_bookmark if self._bookmarks else self._deadline)
                        stream.wait(until - time.monotonic(), bell)
            stream.finish()
        finally:
            connection.watching = False
            connection.forget(bell)
            bell.close()

    def _news(self, bell: Bell) -> List[str]:
        """The lines for what happened since the last call; sets _over when there will be no more."""
        now = time.monotonic()
        with self._store.lock:
            bell.clear()
            current = self._store.resource_version
            behind = self._version < self._store.start
            events = [] if behind else self._store.events_after(self._version)
            resource = self._resource
            served = self._store.resources.get((resource.group, resource.version, resource.plural)) == resource
        self._over = behind or not served or now >= self._deadline
        lines = [line for line in map(self._event, events) if line]
        if lines:
            self._told = current
        self._version = max(self._version, current)  # one from the future waits until it is reached
        if self._bookmarks and now >= self._next_bookmark:
            self._next_bookmark = self._bookmark_after(now)
            if current > self._told:  # never without something newer, as in 1.20
                self._told = current
                lines.append(self._bookmark(current))
        return lines

    def _bookmark_after(self, now: float) -> float:
        """When the next one is due: at the interval, and two seconds before the end."""
        regular, near_end = now + self._demo.bookmark_interval, self._deadline - 2
        return near_end if now < near_end < regular else regular

    def _event(self, event: Event) -> str:
        """One write as this watch sees it: what enters or leaves the selection is added or deleted."""
        if event.resource.storage != self._resource.storage or self._namespace not in ("", event.key[0]):
            return ""
        was = event.old is not None and self._matches(event.old.body)
        if event.new is not None and self._matches(event.new.body):
            return self._line("MODIFIED" if was else "ADDED", event.new)
        if was and event.old is not None:
            return self._line("DELETED", event.gone or with_version(event.old, event.version))
        return ""

    def _line(self, kind: str, entry: Entry) -> str:
        if wants_table(self._request):
            shown = dumps(table(self._resource, [entry.body], entry.body["metadata"]))
        else:
            shown = entry.text(self._resource)
        return '{"type":"%s","object":%s}\n' % (kind, shown)

    def _bookmark(self, version: int) -> str:
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        shown = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        return '{"type":"BOOKMARK","object":%s}\n' % dumps(shown)


# ------------------------------------------------------------------------------
# 10. Pods
#
# Logs that are made up, and a shell that knows a dozen words. Both run on the
# connection's thread, without the store's lock.
# ------------------------------------------------------------------------------

LOG_PROTOCOLS = ("base64.binary.k8s.io", "binary.k8s.io")
# v5, which is newer than 1.20, is v4 and a message that ends stdin: kubectl offers nothing else.
EXEC_PROTOCOLS = tuple(start + "channel.k8s.io" for start in ("v5.", "v4.", "v4.base64.", "", "base64."))
STDIN, STDOUT, STDERR, ERROR, RESIZE, END = 0, 1, 2, 3, 4, 255


def pod_stream(
    demo: "DemoCluster", store: Store, target: Target, pod: Entry, protocols: List[str], request: Request
) -> Handled:
    """pods/log and pods/exec: refuse here, under the lock, or return what runs afterwards."""
    names = [container.get("name") for container in pod.body["spec"]["containers"]]
    container = request.param("container") or names[0]
    if container not in names:
        raise bad_request("container %s is not valid for pod %s" % (container, target.name))
    if len(names) > 1 and not request.param("container"):
        choice = "a container name must be specified for pod %s, choose one of: [%s]"
        raise bad_request(choice % (target.name, " ".join(names)))
    scheduled = pod.body["spec"].get("nodeName")
    if target.subresource == "log":
        tail = parse_int(request.param("tailLines")) if request.param("tailLines") else None
        if not scheduled:
            return Answer(204)
        return lambda connection: send_log(demo, store, target, protocols, request, connection, tail)
    if not scheduled:
        raise bad_request("pod %s does not have a host assigned" % target.name)
    if not request.query.get("command"):
        raise bad_request("you must specify at least 1 command for the container")
    if not any(request.flag(name) for name in ("stdin", "stdout", "stderr")):
        raise bad_request("you must specify at least one of stdin, stdout, stderr")
    if not request.upgrades:
        raise bad_request("Upgrade request required")

    def run(connection: Connection) -> None:
        chosen = [protocol for protocol in protocols if protocol in EXEC_PROTOCOLS][:1]
        if protocols and not chosen:
            connection.send_raw_refusal(403)
        Shell(demo, ServerSocket(connection, request, "".join(chosen)), "".join(chosen), target, request).run()

    return run


def send_log(
    demo: "DemoCluster",
    store: Store,
    target: Target,
    protocols: List[str],
    request: Request,
    connection: Connection,
    tail: Optional[int],
) -> None:
    """The log of a pod: twenty lines from the past and, when followed, one each log_tick."""
    chosen = ([protocol for protocol in protocols if protocol in LOG_PROTOCOLS] or [""])[0]
    if request.upgrades and protocols and not chosen:
        connection.send_raw_refusal(403)

    def line(number: int) -> str:
        stamp = timestamp(time.time() - (20 - number) * 60 if number < 20 else None)
        path = ("/", "/cart", "/prices", "/healthz")[number % 4]
        text = "GET %s 200 request=%d pod=%s\n" % (path, number, target.name)
        return stamp[:-1] + ".000000000Z " + text if request.flag("timestamps") else text

    stream = ServerSocket(connection, request, chosen) if request.upgrades else Chunks(connection, "text/plain")

    def send(lines: List[str]) -> None:
        text = "".join(lines)
        if isinstance(stream, Chunks) or chosen == LOG_PROTOCOLS[0]:
            stream.send([base64.b64encode(text.encode()).decode() if chosen else text])
        else:
            stream.send_bytes(text.encode())

    if request.upgrades:
        send([])  # the API server, too, begins with an empty message
    past = [line(number) for number in range(20)]
    past = past if tail is None else past[len(past) - min(tail, len(past)) :]
    if past:
        send(past)
    number = 20
    while request.flag("follow"):
        until = time.monotonic() + demo.log_tick
        while time.monotonic() < until:
            stream.wait(until - time.monotonic())
        if store.get(PODS, target.key) is None:
            break
        send([line(number)])
        number += 1
    stream.finish()


class Shell:
    """What a container runs: a fake of sh and a few commands, on the channels of one exec."""

    def __init__(
        self, demo: "DemoCluster", socket: ServerSocket, protocol: str, target: Target, request: Request
    ) -> None:
        self._demo, self._socket, self._request = demo, socket, request
        self._status_as_json = protocol.startswith("v")
        self._base64 = "base64" in protocol
        self._pod = target.name
        self._tty = request.flag("tty")
        self._size = (24, 80)  # rows, columns
        self._input = b""
        self._ended = False  # stdin, by a message of v5
        self._commands: Dict[str, Callable[[List[str]], Optional[int]]] = {
            "echo": lambda words: self._print(" ".join(words) + "\n"),
            "ls": lambda words: self._print("bin\netc\nhome\ntmp\nvar\n"),
            "pwd": lambda words: self._print("/\n"),
            "hostname": lambda words: self._print(self._pod + "\n"),
            "date": lambda words: self._print(timestamp() + "\n"),
            "env": lambda words: self._print("HOME=/root\nHOSTNAME=%s\nPATH=/bin\n" % self._pod),
            "true": lambda words: 0,
            "false": lambda words: 1,
            "sleep": lambda words: self._sleep(float(words[0]) if words else 0),
            "cat": lambda words: self._cat(),
            "stty": lambda words: self._stty(),
            "sh": self._sh,
            "bash": self._sh,
        }

    def run(self) -> None:
        for channel, name in ((STDIN, "stdin"), (STDOUT, "stdout"), (STDERR, "stderr"), (ERROR, "")):
            if not name or self._request.flag(name):
                self._write(channel, b"")  # "connected": one empty message for each channel
        try:
            code = self._run(self._request.query["command"])
        except SystemExit as end:
            code = int(end.code or 0)
        status: Object = {"metadata": {}, "status": "Success"}
        if code:
            message = "command terminated with non-zero exit code: exit status %d" % code
            causes = [{"reason": "ExitCode", "message": str(code)}]
            status.update(status="Failure", message=message, reason="NonZeroExitCode", details={"causes": causes})
        if self._status_as_json:
            self._write(ERROR, dumps(status).encode())
        elif code:
            self._write(ERROR, status["message"].encode())
        self._socket.finish()

    # Channels

    def _write(self, channel: int, data: bytes) -> None:
        if self._base64:
            self._socket.send([str(channel) + base64.b64encode(data).decode()])
        else:
            self._socket.send_bytes(bytes([channel]) + data)

    def _print(self, text: str, channel: int = STDOUT) -> int:
        channel = STDOUT if self._tty else channel
        if self._request.flag("stderr" if channel == STDERR else "stdout"):
            self._write(channel, text.replace("\n", "\r\n").encode() if self._tty else text.encode())
        return 0

    def _read(self, seconds: float = 3600.0) -> bytes:
        """What has come in; a resize is taken note of on the way."""
        if not self._input:
            for message in self._socket.receive(seconds):
                channel, data = (
                    (message[0] - 48, base64.b64decode(message[1:])) if self._base64 else (message[0], message[1:])
                )
                if channel == STDIN:
                    self._input += data
                elif channel == END:
                    self._ended = True
                elif channel == RESIZE:
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        size = json.loads(data.decode())
                        self._size = int(size["Height"]), int(size["Width"])
        data, self._input = self._input, b""
        return data

    # Commands

    def _run(self, words: List[str]) -> int:
        command = self._commands.get(words[0].rsplit("/", 1)[-1])
        if words[0] == "exit":
            raise SystemExit(int(words[1]) if words[1:] and words[1].isdigit() else 0)
        if command is None:
            self._print("sh: %s: not found\n" % words[0], STDERR)
            return 127
        try:
            return command(words[1:]) or 0
        except (ValueError, IndexError) as error:
            self._print("%s: %s\n" % (words[0], error), STDERR)
            return 2

    def _line(self, line: str) -> int:
        """One line of a script: commands joined by ; or &&, output to >&2 if it says so."""
        code = 0
        for part in re.split(r";", line):
            for command in part.split("&&"):
                quiet = ">&2" in command
                words = shlex.split(command.replace(">&2", ""))
                if words and quiet and words[0] == "echo":
                    code = self._print(" ".join(words[1:]) + "\n", STDERR)
                elif words:
                    code = self._run(words)
                if code:
                    break
        return code

    def _sh(self, words: List[str]) -> int:
        if words[:1] == ["-c"]:
            return sum(self._line(line) for line in words[1:2])
        code, pending = 0, ""
        prompt = "# " if self._tty else ""
        self._print(prompt)
        while True:
            typed = self._read().decode(errors="replace").replace("\r", "\n")
            if self._tty:
                self._print(typed)
            pending += typed
            while "\n" in pending:
                line, pending = pending.split("\n", 1)
                code = self._line(line)
                self._print(prompt)
            if self._ended or "\x04" in pending:
                return code

    def _cat(self) -> int:
        while True:
            data = self._read()
            if data and self._request.flag("stdout"):
                self._write(STDOUT, data)
            if self._ended or (self._tty and b"\x04" in data):
                return 0

    def _stty(self) -> int:
        self._input = self._read(0.2 if self._tty else 0)  # a resize may be on its way
        return self._print("%d %d\n" % self._size)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._input += self._read(until - time.monotonic())


# ------------------------------------------------------------------------------
# 11. Headlamp
#
# What the Headlamp server does itself (May 2024, commit 45b84205), its slips included:
# a client must live with them. Its errors are text, and its JSON often claims to be.
# ------------------------------------------------------------------------------

HEADLAMP_PROTOCOL = "base64url.headlamp.authorization.k8s.io."
INDEX = b"<!doctype html>\n<html><head><title>Demo cluster</title></head><body>The page would be here.</body></html>\n"


def contexts_of(encoded: Any) -> List[Tuple[str, str]]:
    """(context, server) for each context of a base64 kubeconfig. ValueError if it is none.

    JSON is read properly. Of YAML, for which there is no reader here, only the names of the
    contexts are looked for, as kubectl and the usual installers write them.
    """
    if not isinstance(encoded, str):
        raise ValueError("not a string")
    text = base64.b64decode(encoded, validate=True).decode()
    if text.lstrip().startswith("{"):
        config = json.loads(text)
        servers = {cluster["name"]: dig(cluster, "cluster", "server") or "" for cluster in config.get("clusters") or []}
        return [(c["name"], servers.get(dig(c, "context", "cluster"), "")) for c in config.get("contexts") or []]
    if not re.search(r"^contexts:", text, re.M):
        raise ValueError("no contexts")
    server = re.search(r"^[ -]*server: *[\"']?([^\"'\s]+)", text, re.M)
    found, inside, depth = [], False, 0
    for line in text.splitlines():
        if re.match(r"[A-Za-z]", line):
            inside = line.startswith("contexts:")
        indent = len(re.match(r"[ -]*", line).group())  # type: ignore[union-attr]
        if re.match(r" *- ", line):
            depth = indent
        if inside and indent == depth and line[indent:].startswith("name:"):
            found.append((line[indent + 5 :].strip().strip("\"'"), server.group(1) if server else ""))
    return found


class Headlamp:
    """The routes, the clusters that are known, and what was started for them."""

    def __init__(self, demo: "DemoCluster") -> None:
        self._demo = demo
        self._lock = threading.Lock()
        self.clusters: Dict[str, Store] = {}  # guarded by _lock, as is all below
        self._servers: Dict[str, str] = {}
        self._in_file: Set[str] = set()  # the ones that DELETE /cluster/{name} can remove for good
        self._stateless: Dict[str, Store] = {}
        self._cached_until: Dict[str, float] = {}  # of a stateless one, by its key
        self._forwards: Dict[Tuple[str, str], Object] = {}
        self._drained: Dict[str, str] = {}
        self._reload = False
        self._kubernetes = Kubernetes(demo)

    def add(self, name: str, server: str = "memory://", in_file: bool = False) -> Store:
        store = self._demo.new_store(name)
        with self._lock:
            self.clusters[name] = store
            self._servers[name] = server
            if in_file:
                self._in_file.add(name)
        return store

    def handle(self, request: Request) -> Tuple[str, Handled]:
        """The name of the cluster that was addressed, and the answer."""
        path = request.path
        clean = posixpath.normpath("/" + path.lstrip("/")) + ("/" if path.endswith("/") and path.strip("/") else "")
        if clean != path:
            query = "?" + request.target.split("?", 1)[1] if "?" in request.target else ""
            return "", Answer(301, headers=(("Location", clean + query),))
        parts = path.split("/")
        if parts[1] == "clusters" and len(parts) > 2 and parts[2]:
            return parts[2], self._proxy(parts[2], request)
        return "", self._own(request.method, parts[1:], request)

    def take_reload(self) -> Tuple[Tuple[str, str], ...]:
        """The headers that one answer below /clusters/ carries after a plugin has changed."""
        with self._lock:
            reload, self._reload = self._reload, False
        return (("X-Reload", "reload"), ("Access-Control-Expose-Headers", "X-Reload")) if reload else ()

    # Below /clusters/

    def _proxy(self, name: str, request: Request) -> Handled:
        try:
            key = self._context_key(name, request)
        except ValueError:
            return text_error("404 page not found", 404)
        headers = dict(request.headers)
        offered = headers.get("sec-websocket-protocol", "")
        if request.upgrades and "sec-websocket-protocol" not in request.repeated:
            # Split only at comma and space, by the book: spelled otherwise it reaches the API server.
            kept = [word for word in offered.split(", ") if not word.startswith(HEADLAMP_PROTOCOL)]
            headers["sec-websocket-protocol"] = ", ".join(kept)
        with self._lock:
            store = self.clusters.get(key)
            if store is None and self._cached_until.get(key, 0) > time.monotonic():
                store = self._stateless[key]
        if store is None:
            return text_error("404 page not found", 404)
        inner = "/" + request.path.split("/", 3)[3] if request.path.count("/") > 2 else "/"
        return self._kubernetes.handle(store, self._demo.accepted(name), request._replace(path=inner, headers=headers))

    def _context_key(self, name: str, request: Request) -> str:
        """Which context is meant; primes the cache of stateless ones on the way."""
        key, encoded = name, request.headers.get("kubeconfig")
        if encoded and self._demo.dynamic_clusters:
            contexts = [context for context, _ in contexts_of(encoded)]
            if not contexts:
                raise ValueError("no contexts")
            if name in contexts:
                key = name + request.headers.get("x-headlamp-user-id", "")
                self._cache(key, name)
        if request.headers.get("upgrade") == "websocket":
            user = re.search(
                re.escape(HEADLAMP_PROTOCOL) + "([a-zA-Z0-9_-]+)", request.headers.get("sec-websocket-protocol", "")
            )
            key = name + (user.group(1) if user else "")
        return key

    def _cache(self, key: str, name: str) -> None:
        with self._lock:
            known = self._cached_until.get(key, 0) > time.monotonic() or key in self.clusters
            missing = key not in self._stateless and key not in self.clusters
        fresh = self._demo.new_store(name) if missing else None
        with self._lock:
            if fresh is not None:
                self._stateless.setdefault(key, fresh)
            ttl = self._demo.stateless_again if known else self._demo.stateless_ttl
            if key in self._stateless:
                self._cached_until[key] = time.monotonic() + ttl

    # The server's own routes

    def _own(self, method: str, parts: List[str], request: Request) -> Handled:
        dynamic = self._demo.dynamic_clusters
        if parts == ["config"] and method == "GET":
            return json_answer(self._config())
        if parts == ["cluster"] and method == "POST" and dynamic:
            return self._add_cluster(request)
        if parts[0] == "cluster" and len(parts) == 2 and method == "DELETE" and dynamic and parts[1]:
            return self._delete_cluster(parts[1], request)
        if parts == ["parseKubeConfig"] and method == "POST" and dynamic:
            return self._parse_kubeconfig(request)
        if parts == ["portforward", "list"]:
            return self._list_forwards(request)
        if parts == ["portforward"] and method in ("POST", "GET", "DELETE"):
            return {"POST": self._forward, "GET": self._get_forward, "DELETE": self._stop_forward}[method](request)
        if parts == ["drain-node"] and method == "POST":
            return self._drain(request)
        if parts == ["drain-node-status"] and method == "GET" and {"cluster", "nodeName"} <= set(request.query):
            with self._lock:
                result = self._drained.get(request.param("nodeName") + request.param("cluster"))
            if result is None:
                return Answer(404)  # runs, or never started: no way to tell
            return json_answer({"id": result, "cluster": request.param("cluster")}, 200, "text/plain; charset=utf-8")
        if parts[0] == "plugins" and len(parts) == 2 and method == "DELETE" and parts[1]:
            if not self._permitted(request):
                return text_error("access denied", 403)
            with self._lock:
                self._reload = True
            return Answer(200)
        return Answer(200, INDEX, "text/html; charset=utf-8")  # every other path, whatever the method

    def _permitted(self, request: Request) -> bool:
        token = self._demo.backend_token
        return bool(token) and request.headers.get("x-headlamp_backend-token") == token

    def _config(self) -> Object:
        with self._lock:
            names = list(self.clusters)
            clusters = [
                {
                    "name": name,
                    "server": self._servers[name],
                    "auth_type": "",
                    "meta_data": {
                        "source": "dynamic_cluster" if name in self._in_file else "kubeconfig",
                        "namespace": "",
                    },
                }
                for name in names
            ]
        return {"clusters": clusters, "isDynamicClusterEnabled": self._demo.dynamic_clusters}

    def _add_cluster(self, request: Request) -> Answer:
        if not self._permitted(request):
            return text_error("access denied", 403)
        wanted = json_object(request.body)
        if wanted is None:
            return text_error("decoding cluster info", 400)
        if wanted.get("kubeconfig"):
            try:
                contexts = contexts_of(wanted["kubeconfig"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return text_error(
                    "decoding kubeconfig" if isinstance(error, binascii.Error) else "loading kubeconfig", 400
                )
        elif wanted.get("name") and wanted.get("server"):
            contexts = [(wanted["name"], wanted["server"])]
        else:
            why = "creating cluster with invalid info; please provide a 'name' and 'server' fields at least."
            return text_error(why, 400)
        for name, server in contexts:
            self.add(name, server, in_file=bool(wanted.get("kubeconfig")))
        return json_answer(self._config(), 201, "text/plain; charset=utf-8")

    def _delete_cluster(self, name: str, request: Request) -> Answer:
        if not self._permitted(request):
            return text_error("access denied", 403)
        with self._lock:
            self.clusters.pop(name, None)
            in_file = name in self._in_file
            self._in_file.discard(name)
        if not in_file:  # gone all the same
            return text_error("removing cluster from kubeconfig", 500)
        return json_answer(self._config())

    def _parse_kubeconfig(self, request: Request) -> Answer:
        wanted = json_object(request.body)
        found = []
        try:
            for encoded in (wanted or {}).get("kubeconfigs") or []:
                found += contexts_of(encoded)
        except (ValueError, KeyError, TypeError, AttributeError):
            return text_error("setting up contexts from kubeconfig", 400)
        meta = {"source": "dynamic_cluster"}
        clusters = [{"name": name, "server": server, "auth_type": "", "meta_data": meta} for name, server in found]
        answer = json_answer({"clusters": clusters, "isDynamicClusterEnabled": True})
        if wanted is None:  # the server forgets to return here: an error, and then an answer
            return answer._replace(
                code=400, body=b"Invalid JSON request body\n" + answer.body, content_type="text/plain; charset=utf-8"
            )
        return answer

    # Port forwards

    def _forward(self, request: Request) -> Handled:
        names = ("id", "namespace", "pod", "service", "serviceNamespace", "targetPort", "cluster", "port")
        wanted = json_object(request.body)
        if wanted is None or not all(isinstance(wanted.get(name, ""), str) for name in names):
            why = "json: cannot unmarshal into Go struct field portForwardRequest of type string"
            return text_error("failed to marshal port forward payload " + why, 400)
        forward = {name: wanted.get(name, "") for name in names}
        if request.headers.get("authorization", "Bearer ").find("Bearer ") < 0:
            return hang_up  # the server panics
        for name, text in (
            ("namespace", "namespace"),
            ("pod", "pod name"),
            ("targetPort", "targetPort"),
            ("cluster", "cluster name"),
        ):
            if not forward[name]:
                return text_error(text + " is required", 400)
        with self._lock:
            store = self.clusters.get(forward["cluster"])
        if store is None:
            return text_error("key not found", 500)
        forward["id"] = forward["id"] or str(uuid.uuid4())
        tokens = self._demo.accepted(forward["cluster"])
        token = request.headers.get("authorization", "").replace("Bearer ", "", 1)
        pod = store.get(PODS, (forward["namespace"], forward["pod"]))
        if (
            pod is None
            or dig(pod.body, "status", "phase") != "Running"
            or (tokens is not None and token and token not in tokens)
        ):
            return hang  # ForwardPorts has failed, and nobody tells the handler
        page = "This is %s, port %s.\n" % (forward["pod"], forward["targetPort"])
        try:
            listener = self._demo.listen(
                "127.0.0.1", int(forward["port"] or 0), lambda connection: serve_page(connection, page)
            )
        except (OSError, ValueError, OverflowError):
            return hang
        forward["port"] = str(listener.getsockname()[1])
        with self._lock:
            self._forwards[forward["cluster"], forward["id"]] = dict(
                forward, status="Running", error="", listener=listener
            )
        return json_answer(forward)

    def _list_forwards(self, request: Request) -> Answer:
        cluster = request.param("cluster")
        if not cluster:
            return text_error("cluster is required", 400)
        names = (
            "id",
            "pod",
            "service",
            "serviceNamespace",
            "namespace",
            "cluster",
            "port",
            "targetPort",
            "status",
            "error",
        )
        with self._lock:  # by prefix: "demo" also lists what belongs to "demo-2"
            found = [forward for forward in self._forwards.values() if forward["cluster"].startswith(cluster)]
            return json_answer([{name: forward[name] for name in names} for forward in found])

    def _get_forward(self, request: Request) -> Answer:
        for name in ("cluster", "id"):
            if not request.param(name):
                return text_error(name + " is required", 400)
        with self._lock:
            forward = self._forwards.get((request.param("cluster"), request.param("id")))
        if forward is None:
            return text_error("no portforward running with id " + request.param("id"), 404)
        return json_answer({name: forward[name] for name in ("id", "pod", "service", "cluster", "namespace")})

    def _stop_forward(self, request: Request) -> Handled:
        wanted = json_object(request.body)
        if wanted is None:
            return text_error("invalid request body", 400)
        for name in ("id", "cluster"):
            if not wanted.get(name):
                return text_error("invalid request, %s is required" % name, 400)
        place = (wanted["cluster"], wanted["id"])
        with self._lock:
            forward = self._forwards.get(place)
            if forward is None:
                return text_error("failed to delete port forward key not found", 500)
            if not wanted.get("stopOrDelete"):
                del self._forwards[place]  # only the record: the forward goes on
            elif forward["status"] == "Stopped":
                return hang  # stopping what has stopped blocks for ever
            else:
                forward["status"] = "Stopped"
                self._demo.unlisten(forward["listener"])
        return Answer(200, b"stopped", "text/plain; charset=utf-8")

    # Drains

    def _drain(self, request: Request) -> Answer:
        wanted = json_object(request.body)
        if wanted is None:
            return text_error("decoding payload", 400)
        for name, text in (("nodeName", "nodeName"), ("cluster", "clusterName")):
            if not wanted.get(name):
                return text_error(text + " is required", 400)
        cluster, node = str(wanted["cluster"]), str(wanted["nodeName"])
        with self._lock:
            store = self.clusters.get(cluster)
        if store is None:
            return text_error("Cluster not found", 404)
        # The header goes on as a token with its "Bearer ", so that no cluster that wants tokens takes it.
        refused = bool(request.headers.get("authorization")) and self._demo.accepted(cluster) is not None

        def drain() -> None:
            result = "success"
            if self._demo.stopping.wait(self._demo.drain_time):
                return
            if refused:
                result = "error: Unauthorized"
            elif store.get(NODES, ("", node)) is None:
                result = 'error: nodes "%s" not found' % node
            else:
                with store.changing():
                    store.edit(NODES, ("", node), lambda body: body.setdefault("spec", {}).update(unschedulable=True))
                    for key, pod in store.entries(PODS):
                        if pod.body["spec"].get("nodeName") == node:
                            store.remove(PODS, key)
            with self._lock:
                self._drained[node + cluster] = result

        self._demo.spawn(drain)
        answer = {"message": "Drain node request submitted successfully", "cluster": cluster}
        return json_answer(answer, 200, "text/plain; charset=utf-8")


def json_object(body: bytes) -> Optional[Object]:
    try:
        value = json.loads(body.decode())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def hang(connection: Connection) -> None:
    """No answer, until the client or the server ends."""
    while True:
        connection.wait(None)
        connection.fill()


def hang_up(connection: Connection) -> None:
    raise Gone()


def serve_page(connection: Connection, page: str) -> None:
    """What a forwarded port leads to."""
    while True:
        request = connection.read_request()
        connection.send_answer(Answer(200, page.encode(), "text/plain"), request)


# ------------------------------------------------------------------------------
# 12. DemoCluster
#
# Listeners and threads. stop() ends every connection, and joins what it started.
# ------------------------------------------------------------------------------


class Record(NamedTuple):
    """One request as it came in."""

    method: str
    path: str  # with its query
    headers: Dict[str, str]  # lower-case names
    cluster: str  # "" if it was not for one


class DemoCluster:
    """A Headlamp server with clusters of its own; `with DemoCluster() as demo:` runs it.

    clusters           their names
    host, port         where to listen; port 0 is any that is free
    seed               begin with nodes, deployments and pods, not with bare namespaces
    controllers        make pods for deployments, run pods, empty namespaces (see part 6)
    tokens             {cluster: token or set of tokens}: who may ask; a cluster not in it is open
    backend_token      what X-HEADLAMP_BACKEND-TOKEN has to be; "" refuses everybody, as Headlamp does
    dynamic_clusters   serve /cluster, /parseKubeConfig and stateless clusters
    ssl_context        serve https
    bookmark_interval  between the bookmarks of a watch
    log_tick           between the lines of a log that is followed
    drain_time         how long a drain takes
    live               change something every second or two

    Attributes that tests may set: min_token_seconds (600), stateless_ttl and stateless_again
    (300 and 20: how long a kubeconfig is remembered at first, and after each further use).
    """

    def __init__(
        self,
        clusters: Iterable[str] = ("demo",),
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        seed: bool = True,
        controllers: bool = True,
        tokens: Optional[Dict[str, Union[str, Iterable[str]]]] = None,
        backend_token: str = "",
        dynamic_clusters: bool = True,
        ssl_context: Any = None,
        bookmark_interval: float = 60.0,
        log_tick: float = 0.5,
        drain_time: float = 0.3,
        live: bool = False,
    ) -> None:
        self.host, self.port = host, port
        self.seed, self.controllers = seed, controllers
        self.tokens = dict(tokens or {})
        self.backend_token = backend_token
        self.dynamic_clusters = dynamic_clusters
        self.ssl_context = ssl_context
        self.bookmark_interval = bookmark_interval
        self.log_tick = log_tick
        self.drain_time = drain_time
        self.live = live
        self.min_token_seconds = 600
        self.stateless_ttl, self.stateless_again = 300.0, 20.0
        self.requests: Deque[Record] = collections.deque(maxlen=10000)
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: Set[threading.Thread] = set()  # guarded by _lock, as are the next two
        self._connections: Set[Connection] = set()
        self._listeners: Set[socket.socket] = set()
        self._headlamp = Headlamp(self)
        for name in clusters:
            self._headlamp.add(name)

    # For tests

    def store(self, cluster: str = "demo") -> Store:
        return self._headlamp.clusters[cluster]

    def compact(self, cluster: str = "demo") -> None:
        """From now on, older resourceVersions and continue tokens of that cluster are expired."""
        self.store(cluster).compact()

    def drop_connections(self) -> None:
        """End every open watch without a word, as a server that dies does."""
        with self._lock:
            watching = [connection for connection in self._connections if connection.watching]
        for connection in watching:
            with contextlib.suppress(OSError):
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.end()

    # Running

    @property
    def url(self) -> str:
        return "%s://%s:%d" % ("https" if self.ssl_context else "http", self.host, self.port)

    def start(self) -> "DemoCluster":
        listener = self.listen(self.host, self.port, self._serve)
        self.port = listener.getsockname()[1]
        if self.live:
            self.spawn(self._live)
        return self

    def stop(self) -> None:
        """End everything; takes at most 2 s."""
        self.stopping.set()
        deadline = time.monotonic() + 2.0
        while True:
            with self._lock:
                listeners, connections, threads = list(self._listeners), list(self._connections), list(self._threads)
            for listener in listeners:
                self.unlisten(listener)
            for connection in connections:
                connection.end()
            if not threads or time.monotonic() > deadline:
                return
            for thread in threads:
                if thread.is_alive():  # else it has ended, or is just being started
                    thread.join(max(0.0, min(0.2, deadline - time.monotonic())))

    def __enter__(self) -> "DemoCluster":
        return self.start()

    def __exit__(self, *unused: Any) -> None:
        self.stop()

    # For the parts above

    def new_store(self, name: str) -> Store:
        store = Store(name)
        if self.controllers:
            store.react = Controllers(store).react
        fill(store, self.seed)
        return store

    def accepted(self, cluster: str) -> Optional[Set[str]]:
        """The tokens that a cluster takes; None if it takes everybody."""
        tokens = self.tokens.get(cluster)
        return None if tokens is None else {tokens} if isinstance(tokens, str) else set(tokens)

    def spawn(self, work: Callable[[], None]) -> None:
        """Run `work` on a thread that stop() waits for."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name="demo-cluster", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def listen(self, host: str, port: int, serve: Callable[[Connection], None]) -> socket.socket:
        listener = socket.create_server((host, port), backlog=128)
        listener.settimeout(0.2)  # where shutdown() does not wake accept()
        with self._lock:
            self._listeners.add(listener)
        self.spawn(lambda: self._accept(listener, serve))
        return listener

    def unlisten(self, listener: socket.socket) -> None:
        with self._lock:
            self._listeners.discard(listener)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)

    # The threads: one for each listener, one for each connection

    def _accept(self, listener: socket.socket, serve: Callable[[Connection], None]) -> None:
        with listener:
            while not self.stopping.is_set():
                with self._lock:
                    if listener not in self._listeners:
                        return
                try:
                    client, _ = listener.accept()
                except socket.timeout:
                    continue
                except OSError:
                    if self.stopping.wait(0.02):  # shut down; or out of file descriptors for a moment
                        return
                    continue
                self.spawn(lambda client=client: self._connection(client, serve))  # type: ignore[misc]

    def _connection(self, client: socket.socket, serve: Callable[[Connection], None]) -> None:
        connection = None
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.ssl_context is not None and serve == self._serve:
                client.settimeout(5.0)
                client = self.ssl_context.wrap_socket(client, server_side=True)
            connection = Connection(client)
            with self._lock:
                self._connections.add(connection)
            if not self.stopping.is_set():
                serve(connection)
        except (Gone, OSError):
            pass  # clients come and go
        finally:
            if connection is None:
                client.close()
            else:
                with self._lock:
                    self._connections.discard(connection)
                    connection.close()

    def _serve(self, connection: Connection) -> None:
        while True:
            request = connection.read_request()
            cluster, handled = self._headlamp.handle(request)
            self.requests.append(Record(request.method, request.target, request.headers, cluster))
            connection.extra_headers = self._headlamp.take_reload() if cluster else ()
            if isinstance(handled, Answer):
                connection.send_answer(handled, request)
            else:
                handled(connection)
            if (
                request.upgrades
                and not isinstance(handled, Answer)
                or request.headers.get("connection", "").lower() == "close"
            ):
                return

    # A little life

    def _live(self) -> None:
        while not self.stopping.wait(random.uniform(1.0, 2.0)):
            store = random.choice(list(self._headlamp.clusters.values()))
            random.choice([self._restart_pod, self._restart_pod, self._scale_deployment, self._roll_deployment])(store)

    def _pick(self, store: Store, resource: Resource) -> Optional[Key]:
        keys = [key for key, _ in store.entries(resource) if key[0] != "kube-system"]
        return random.choice(keys) if keys else None

    def _restart_pod(self, store: Store) -> None:
        key = self._pick(store, PODS)

        def restart(body: Object) -> None:
            for state in dig(body, "status", "containerStatuses") or []:
                state["restartCount"] += 1
                state["state"] = {"running": {"startedAt": timestamp()}}

        if key:
            store.edit(PODS, key, restart)
            self._event(store, "Pod", key, "Started", "Started container")

    def _scale_deployment(self, store: Store) -> None:
        key, replicas = self._pick(store, DEPLOYMENTS), random.randint(1, 4)

        def scale(body: Object) -> None:
            if body["spec"]["replicas"] != replicas:
                body["spec"]["replicas"] = replicas
                body["metadata"]["generation"] += 1

        if key:
            store.edit(DEPLOYMENTS, key, scale)
            self._event(store, "Deployment", key, "ScalingReplicaSet", "Scaled to %d" % replicas)

    def _roll_deployment(self, store: Store) -> None:
        key = self._pick(store, DEPLOYMENTS)

        def roll(body: Object) -> None:
            template = body["spec"]["template"].setdefault("metadata", {})
            template["annotations"] = dict(template.get("annotations") or {}, restartedAt=timestamp())
            body["metadata"]["generation"] += 1

        if key:
            store.edit(DEPLOYMENTS, key, roll)
            self._event(store, "Deployment", key, "Restarted", "Rolled to a new revision")

    def _event(self, store: Store, kind: str, key: Key, reason: str, message: str) -> None:
        """Write an Event object about another one, and keep only the newest fifty."""
        with store.changing():
            if store.get(NAMESPACES, ("", key[0])) is None:
                return
            about = {"kind": kind, "namespace": key[0], "name": key[1]}
            body: Object = {"metadata": {"generateName": key[1] + "."}, "involvedObject": about, "type": "Normal"}
            body.update(reason=reason, message=message, count=1, firstTimestamp=timestamp(), lastTimestamp=timestamp())
            store.add(EVENTS, key[0], body)
            events = sorted(store.entries(EVENTS), key=lambda found: int(found[1].body["metadata"]["resourceVersion"]))
            for old, _ in events[:-50]:
                store.remove(EVENTS, old)


def main() -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Kubernetes clusters in memory, behind the address of a Headlamp server."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=4466, help="port to listen on (default %(default)s)")
    parser.add_argument(
        "--cluster", action="append", help="name of a cluster; may be given several times (default: demo)"
    )
    parser.add_argument("--backend-token", default="", help="token for the routes of Headlamp that want one")
    parser.add_argument("--quiet", action="store_true", help="change nothing by itself")
    options = parser.parse_args()
    clusters = options.cluster or ["demo"]
    demo = DemoCluster(
        clusters, options.host, options.port, backend_token=options.backend_token, live=not options.quiet
    )
    with demo:
        address = "%s/clusters/%s" % (demo.url, clusters[0])
        print("Serving %s at %s. Try:\n" % (", ".join(clusters), demo.url))
        print("    curl '%s/api/v1/namespaces/demo-shop/pods?limit=1'" % address)
        print("    kubectl --server=%s get pods --all-namespaces --watch\n" % address)
        print("Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
