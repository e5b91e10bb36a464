# SPDX-License-Identifier: Apache-2.0
"""Where a service leads to: Endpoints, and the EndpointSlices that have taken their place."""

from typing import Any, List

from .defaults import suffix
from .resources import ENDPOINTS, PODS, SERVICES, SLICES, Resource
from .store import Entry, Store
from .values import Key, Object, dig, is_ready

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"


def write_endpoints(store: Store, key: Key, service: Entry) -> None:
    """Bring both up to date; a service without a selector is its owner's matter."""
    selector = dig(service.body, "spec", "selector")
    if not selector:
        return
    pods = [
        entry.body
        for _, entry in store.entries(PODS, key[0])
        if selector.items() <= (entry.body["metadata"].get("labels") or {}).items()
        and dig(entry.body, "status", "podIP")
        and dig(entry.body, "status", "phase") == "Running"
    ]
    ports = _ports(service.body, pods)
    _put(store, ENDPOINTS, key, {"subsets": _subsets(pods, ports)}, service)

    slices = [
        place
        for place, entry in store.entries(SLICES, key[0])
        if dig(entry.body, "metadata", "labels", SERVICE_LABEL) == key[1]
    ]
    place = slices[0] if slices else (key[0], "%s-%s" % (key[1], suffix()))
    body = {"addressType": "IPv4", "endpoints": [_endpoint(pod) for pod in pods], "ports": ports}
    _put(store, SLICES, place, body, service)


def _put(store: Store, resource: Resource, key: Key, body: Object, service: Entry) -> None:
    labels = dict(service.body["metadata"].get("labels") or {})
    if resource == SLICES:
        labels[SERVICE_LABEL] = service.body["metadata"]["name"]
        labels[MANAGER_LABEL] = "endpointslice-controller.k8s.io"
    if store.get(resource, key):
        store.edit(resource, key, lambda present: present.update(body))
        return

    metadata = {"name": key[1], "labels": labels}
    if resource == SLICES:
        names = ("name", "uid")
        owner = {name: service.body["metadata"][name] for name in names}
        owner.update(apiVersion="v1", kind=SERVICES.kind, controller=True)
        metadata["ownerReferences"] = [owner]
    store.add(resource, key[0], dict({"metadata": metadata}, **body))


def _ports(service: Object, pods: List[Object]) -> List[Object]:
    ports = []
    for port in dig(service, "spec", "ports") or []:
        number = _target(port.get("targetPort") or port.get("port"), pods)
        if number is not None:
            protocol = port.get("protocol", "TCP")
            ports.append({"name": port.get("name", ""), "port": number, "protocol": protocol})
    return ports


def _target(port: Any, pods: List[Object]) -> Any:
    """The number of a port; a name stands for what the containers call so."""
    if isinstance(port, int):
        return port
    for pod in pods:
        for container in dig(pod, "spec", "containers") or []:
            for candidate in container.get("ports") or []:
                if candidate.get("name") == port:
                    return candidate.get("containerPort")
    return None


def _reference(pod: Object) -> Object:
    metadata = {name: pod["metadata"][name] for name in ("name", "namespace", "uid")}
    return dict({"kind": "Pod"}, **metadata)


def _subsets(pods: List[Object], ports: List[Object]) -> List[Object]:
    subset: Object = {}
    for name, ready in (("addresses", True), ("notReadyAddresses", False)):
        addresses = [
            {
                "ip": pod["status"]["podIP"],
                "nodeName": pod["spec"].get("nodeName"),
                "targetRef": _reference(pod),
            }
            for pod in pods
            if is_ready(pod) == ready
        ]
        if addresses:
            subset[name] = addresses
    named = [{key: port[key] for key in port if port[key]} for port in ports]
    return [dict(subset, ports=named)] if subset else []


def _endpoint(pod: Object) -> Object:
    ready = is_ready(pod)
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "nodeName": pod["spec"].get("nodeName"),
        "targetRef": _reference(pod),
    }
