# SPDX-License-Identifier: Apache-2.0
"""Tables, which kubectl prints as they come."""

import time
from typing import Any, Callable, Dict, List, Tuple

from .connections import Request
from .resources import Resource
from .values import Object, dig, is_ready


def wants_table(request: Request) -> bool:
    return "as=Table" in request.headers.get("accept", "")


def _pod_state(body: Object) -> List[Any]:
    states = dig(body, "status", "containerStatuses") or []
    ready = "%d/%d" % (
        sum(bool(state.get("ready")) for state in states),
        len(dig(body, "spec", "containers") or []),
    )
    return [
        ready,
        dig(body, "status", "phase") or "Unknown",
        sum(state.get("restartCount", 0) for state in states),
    ]


def _ports(body: Object) -> str:
    return (
        ",".join(
            "%s/%s" % (port.get("port"), port.get("protocol", "TCP"))
            for port in dig(body, "spec", "ports") or []
        )
        or "<none>"
    )


def _node_state(body: Object) -> List[Any]:
    state = ("Ready" if is_ready(body) else "NotReady") + (
        ",SchedulingDisabled" if dig(body, "spec", "unschedulable") else ""
    )
    labels = dig(body, "metadata", "labels") or {}
    roles = [
        label.split("/", 1)[1] for label in labels if label.startswith("node-role.kubernetes.io/")
    ]
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
        lambda body: [
            dig(body, "status", name) or 0 for name in ("desiredNumberScheduled", "numberReady")
        ],
    ),
    "Event": (
        "Type Reason Object Message",
        lambda body: [
            body.get("type"),
            body.get("reason"),
            dig(body, "involvedObject", "name"),
            body.get("message"),
        ],
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
        made = (
            time.mktime(time.strptime(body["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
            - time.timezone
        )
        age = max(0, int(time.time() - made))
        units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
        shown = next(
            ("%d%s" % (age // size, unit) for size, unit in units if age >= 2 * size), "%ds" % age
        )
        partial = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": body["metadata"],
        }
        rows.append(
            {"cells": [body["metadata"]["name"]] + cells(body) + [shown], "object": partial}
        )
    shown_metadata = {
        name: value
        for name, value in metadata.items()
        if name in ("resourceVersion", "continue", "remainingItemCount")
    }
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": shown_metadata,
        "columnDefinitions": columns,
        "rows": rows,
    }
