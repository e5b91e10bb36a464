# SPDX-License-Identifier: Apache-2.0
"""What a new object gets beyond what its maker wrote."""

import base64
import copy
import random
import uuid

from .resources import CRDS, DAEMONSETS, NAMESPACES, PODS, Resource
from .values import EMPTY, Object, timestamp

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no words


def suffix() -> str:
    return "".join(random.choice(_SUFFIX) for _ in range(5))


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
        body["status"] = {
            "conditions": None,
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": ["v1"],
        }
