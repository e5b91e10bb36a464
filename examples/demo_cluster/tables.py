# SPDX-License-Identifier: Apache-2.0
"""Tables, which kubectl prints as they come."""

import calendar
import time
from typing import Any, Callable, Dict, List, Tuple

from .connections import Request
from .resources import Resource
from .values import Object, dig, is_ready

Cells = List[Any]
NONE = "<none>"


def wants_table(request: Request) -> bool:
    return "as=Table" in request.headers.get("accept", "")


def _pod(body: Object) -> Cells:
    states = dig(body, "status", "containerStatuses") or []
    ready = sum(bool(state.get("ready")) for state in states)
    total = len(dig(body, "spec", "containers") or [])
    phase = dig(body, "status", "phase") or "Unknown"
    if phase == "Succeeded":
        phase = "Completed"
    if body["metadata"].get("deletionTimestamp"):
        phase = "Terminating"
    restarts = sum(state.get("restartCount", 0) for state in states)
    return ["%d/%d" % (ready, total), phase, restarts]


def _node(body: Object) -> Cells:
    state = "Ready" if is_ready(body) else "NotReady"
    if dig(body, "spec", "unschedulable"):
        state += ",SchedulingDisabled"
    start = "node-role.kubernetes.io/"
    labels = dig(body, "metadata", "labels") or {}
    roles = [label[len(start) :] for label in labels if label.startswith(start)]
    version = dig(body, "status", "nodeInfo", "kubeletVersion") or ""
    return [state, ",".join(roles) or NONE, version]


def _service(body: Object) -> Cells:
    ports = [
        "%s/%s" % (port.get("port"), port.get("protocol", "TCP"))
        for port in dig(body, "spec", "ports") or []
    ]
    spec = body["spec"]
    address = spec.get("clusterIP") or NONE
    return [spec.get("type"), address, ",".join(ports) or NONE]


def _counts(*paths: str) -> Callable[[Object], Cells]:
    """Numbers of the status or spec; 0 where there is none."""
    return lambda body: [dig(body, *path.split(".")) or 0 for path in paths]


def _of_replicas(*fields: str) -> Callable[[Object], Cells]:
    def cells(body: Object) -> Cells:
        ready = dig(body, "status", "readyReplicas") or 0
        shown = "%d/%d" % (ready, dig(body, "spec", "replicas") or 0)
        return [shown] + [dig(body, "status", field) or 0 for field in fields]

    return cells


def _job(body: Object) -> Cells:
    done, wanted = dig(body, "status", "succeeded") or 0, dig(body, "spec", "completions") or 1
    complete = "Complete" if done >= wanted else "Running"
    return [complete, "%d/%d" % (done, wanted)]


def _event(body: Object) -> Cells:
    about = body.get("involvedObject") or {}
    place = "%s/%s" % (str(about.get("kind", "")).lower(), about.get("name"))
    return [body.get("type"), body.get("reason"), place, body.get("message")]


def _endpoints(body: Object) -> Cells:
    places = [
        "%s:%s" % (address.get("ip"), port.get("port"))
        for subset in body.get("subsets") or []
        for address in subset.get("addresses") or []
        for port in subset.get("ports") or []
    ]
    return [",".join(places) or NONE]


def _slice(body: Object) -> Cells:
    ports = ",".join(str(port.get("port")) for port in body.get("ports") or [])
    endpoints = body.get("endpoints") or []
    addresses = ",".join(address for item in endpoints for address in item.get("addresses") or [])
    return [body.get("addressType"), ports or "<unset>", addresses or "<unset>"]


def _ingress(body: Object) -> Cells:
    rules = dig(body, "spec", "rules") or []
    hosts = ",".join(rule.get("host") or "*" for rule in rules)
    return [dig(body, "spec", "ingressClassName") or NONE, hosts or "*"]


def _budget(body: Object) -> Cells:
    spec = body.get("spec") or {}
    return [spec.get(name, "N/A") for name in ("minAvailable", "maxUnavailable")]


# The columns between Name and Age, and how to fill them.
COLUMNS: Dict[str, Tuple[str, Callable[[Object], Cells]]] = {
    "ConfigMap": ("Data", lambda body: [len(body.get("data") or {})]),
    "CronJob": ("Schedule", lambda body: [dig(body, "spec", "schedule")]),
    "DaemonSet": (
        "Desired Ready",
        _counts("status.desiredNumberScheduled", "status.numberReady"),
    ),
    "Deployment": (
        "Ready Up-to-date Available",
        _of_replicas("updatedReplicas", "availableReplicas"),
    ),
    "Endpoints": ("Endpoints", _endpoints),
    "EndpointSlice": ("AddressType Ports Endpoints", _slice),
    "Event": ("Type Reason Object Message", _event),
    "Ingress": ("Class Hosts", _ingress),
    "Job": ("Status Completions", _job),
    "Namespace": ("Status", lambda body: [dig(body, "status", "phase")]),
    "Node": ("Status Roles Version", _node),
    "Pod": ("Ready Status Restarts", _pod),
    "PodDisruptionBudget": ("Min-Available Max-Unavailable", _budget),
    "ReplicaSet": (
        "Desired Current Ready",
        _counts("spec.replicas", "status.replicas", "status.readyReplicas"),
    ),
    "Secret": ("Type Data", lambda body: [body.get("type"), len(body.get("data") or {})]),
    "Service": ("Type Cluster-IP Port(s)", _service),
    "StatefulSet": ("Ready", _of_replicas()),
}


# What -o wide shows beyond that, after Age.
WIDE: Dict[str, Tuple[str, Callable[[Object], Cells]]] = {
    "Node": ("Internal-IP", lambda body: [_address(body)]),
    "Pod": (
        "IP Node",
        lambda body: [dig(body, "status", "podIP") or NONE, dig(body, "spec", "nodeName") or NONE],
    ),
}


def _address(body: Object) -> str:
    addresses = dig(body, "status", "addresses") or []
    return next((str(item.get("address")) for item in addresses), NONE)


def _age(stamp: str) -> str:
    made = calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ"))
    age = max(0, int(time.time() - made))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if age >= 2 * size:
            return "%d%s" % (age // size, unit)
    return "%ds" % age


def table(resource: Resource, bodies: List[Object], metadata: Object) -> Object:
    """The meta.k8s.io/v1 Table for some objects."""
    names, cells = COLUMNS.get(resource.kind, ("", lambda body: []))
    wide_names, wide_cells = WIDE.get(resource.kind, ("", lambda body: []))
    usual = ["Name"] + names.split() + ["Age"]
    columns = [
        {"name": name, "type": "string", "format": "", "description": "", "priority": priority}
        for names, priority in ((usual, 0), (wide_names.split(), 1))
        for name in names
    ]
    columns[0]["format"] = "name"

    rows = []
    head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    for body in bodies:
        name, made = body["metadata"]["name"], body["metadata"]["creationTimestamp"]
        row: Object = {"cells": [name] + cells(body) + [_age(made)] + wide_cells(body)}
        rows.append(dict(row, object=dict(head, metadata=body["metadata"])))

    shown = {
        name: value
        for name, value in metadata.items()
        if name in ("resourceVersion", "continue", "remainingItemCount")
    }
    whole: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": shown}
    return dict(whole, columnDefinitions=columns, rows=rows)
