# SPDX-License-Identifier: Apache-2.0
"""What an object gets beyond what its maker wrote: a few of the server's many defaults."""

import base64
import copy
import random
import uuid
from typing import Any

from .resources import CRDS, DAEMONSETS, JOBS, NAMESPACES, PODS, SERVICES, Resource
from .values import EMPTY, Object, dig, timestamp

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no words


def suffix() -> str:
    return "".join(random.choice(_SUFFIX) for _ in range(5))


def new_body(resource: Resource, namespace: str, body: Object, minor: int) -> Object:
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
    _set_status(resource, body, minor)
    set_defaults(resource, body)
    return body


def _set_status(resource: Resource, body: Object, minor: int) -> None:
    """What a new object says of itself, whatever its maker wrote."""
    if resource == PODS:
        body["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif resource == NAMESPACES:
        if minor >= 21:
            labels = body["metadata"].setdefault("labels", {})
            labels["kubernetes.io/metadata.name"] = body["metadata"].get("name", "")
        body.update(spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})
    elif resource == SERVICES:
        body["status"] = {"loadBalancer": {}}
    elif resource.group in ("apps", "batch") or resource.storage == ("", "replicationcontrollers"):
        body["status"] = {}
    elif resource == CRDS:
        accepted = {"plural": "", "kind": ""}
        body["status"] = {"conditions": None, "acceptedNames": accepted, "storedVersions": ["v1"]}


def set_defaults(resource: Resource, body: Object) -> None:
    """Fill in what is missing, at every write."""
    value = body.get("spec")
    spec: Object = value if isinstance(value, dict) else {}
    if resource == PODS:
        pod_defaults(spec)
        spec.setdefault("serviceAccountName", "default")
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
        spec.setdefault("enableServiceLinks", True)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        spec.setdefault("priority", 0)
    elif resource.storage == ("", "secrets"):
        _secret_defaults(body)
    elif resource == SERVICES:
        body["spec"] = spec
        _service_defaults(spec)
    elif resource.group == "apps":
        if resource != DAEMONSETS:
            spec.setdefault("replicas", 1)
        if resource.plural == "deployments":
            strategy = {"maxUnavailable": "25%", "maxSurge": "25%"}
            spec.setdefault("strategy", {"type": "RollingUpdate", "rollingUpdate": strategy})
            spec.setdefault("revisionHistoryLimit", 10)
            spec.setdefault("progressDeadlineSeconds", 600)
        pod_defaults(dig(spec, "template", "spec"))
    elif resource == JOBS:
        spec.setdefault("parallelism", 1)
        spec.setdefault("completions", 1)
        spec.setdefault("backoffLimit", 6)
        labels = dig(spec, "template", "metadata", "labels") or {}
        labels["job-name"] = body["metadata"].get("name", "")
        dig(spec, "template").setdefault("metadata", {})["labels"] = labels
        spec.setdefault("selector", {"matchLabels": {"job-name": labels["job-name"]}})
        pod_defaults(dig(spec, "template", "spec"))
    elif resource == CRDS:
        spec.setdefault("conversion", {"strategy": "None"})
        names = spec.get("names")
        if isinstance(names, dict) and isinstance(names.get("kind"), str):
            names.setdefault("listKind", names["kind"] + "List")
            names.setdefault("singular", names["kind"].lower())


def pod_defaults(spec: Any) -> None:
    """The defaults of a pod's spec, in a Pod or in a template."""
    if not isinstance(spec, dict):
        return
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in spec.get("containers") or []:
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", _pull_policy(str(container.get("image", ""))))
        for port in container.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _pull_policy(image: str) -> str:
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _secret_defaults(body: Object) -> None:
    plain = body.pop("stringData", None) or {}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in plain.items()}
    if encoded:
        body["data"] = dict(body.get("data") or {}, **encoded)
    if not body.get("type"):
        body["type"] = "Opaque"


def _service_defaults(spec: Object) -> None:
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    if spec["type"] != "ExternalName":
        address = "10.0.%d.%d" % (random.randrange(256), random.randrange(1, 255))
        spec.setdefault("clusterIP", address)
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
        if spec["type"] in ("NodePort", "LoadBalancer"):
            port.setdefault("nodePort", random.randrange(30000, 32768))
