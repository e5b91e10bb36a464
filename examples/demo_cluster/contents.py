# SPDX-License-Identifier: Apache-2.0
"""What a new cluster has in it."""

from typing import Optional

from .controllers import Controllers
from .resources import DAEMONSETS, DEPLOYMENTS, NAMESPACES, NODES, SERVICES, core
from .settings import Settings
from .store import Store
from .values import Object, timestamp

SPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
APPS = (  # namespace, name, image, replicas
    ("kube-system", "coredns", "coredns:1.8", 2),
    ("default", "hello", "hello-server:1.0", 2),
    ("demo-shop", "frontend", "shop-frontend:2.1", 3),
    ("demo-shop", "cart", "shop-cart:1.4", 2),
    ("demo-shop", "payments", "shop-payments:3.0", 1),
)


def new_store(name: str, settings: Settings) -> Store:
    """A cluster as it is first seen."""
    store = Store(name, settings.minor)
    if settings.controllers:
        store.react = Controllers(store).react
    with store.changing():
        fill(store)
        if settings.seed:
            seed(store)
    return store


def fill(store: Store) -> None:
    """What every cluster has."""
    for name in SPACES:
        store.add(NAMESPACES, "", {"metadata": {"name": name}})
    spec = {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443}]}
    store.add(SERVICES, "default", {"metadata": {"name": "kubernetes"}, "spec": spec})


def seed(store: Store) -> None:
    """Something to look at."""
    for number, role in enumerate(("control-plane", "worker", "worker")):
        store.add(NODES, "", node(number, role, store.minor))
    store.add(NAMESPACES, "", {"metadata": {"name": "demo-shop"}})
    for namespace, name, image, replicas in APPS:
        store.add(DEPLOYMENTS, namespace, app(name, image, replicas))
        ports = [{"port": 80, "targetPort": 8080}]
        spec = {"selector": {"app": name}, "ports": ports}
        store.add(SERVICES, namespace, {"metadata": {"name": name}, "spec": spec})
    store.add(DAEMONSETS, "kube-system", app("kube-proxy", "kube-proxy:1.%d" % store.minor))

    maps, secrets = core("configmaps"), core("secrets")
    settings = {"colour": "blue", "size": "10"}
    store.add(maps, "default", {"metadata": {"name": "settings"}, "data": settings})
    prices = {"apple": "3", "pear": "4"}
    store.add(maps, "demo-shop", {"metadata": {"name": "prices"}, "data": prices})
    key = {"key": "not so secret"}
    store.add(secrets, "demo-shop", {"metadata": {"name": "payments"}, "stringData": key})


def node(number: int, role: str, minor: int) -> Object:
    """The body of a Node that is ready."""
    name = "node-%d" % (number + 1)
    labels = {"kubernetes.io/hostname": name, "node-role.kubernetes.io/" + role: ""}
    capacity = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    status = {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [dict(ready, lastTransitionTime=timestamp())],
        "addresses": [{"type": "InternalIP", "address": "192.168.0.%d" % (10 + number)}],
        "nodeInfo": {
            "kubeletVersion": "v1.%d.2" % minor,
            "osImage": "Memory",
            "containerRuntimeVersion": "demo://1",
        },
    }
    return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status}


def app(name: str, image: str, replicas: Optional[int] = None) -> Object:
    """The body of a Deployment, or, without replicas, of a DaemonSet."""
    spec: Object = {} if replicas is None else {"replicas": replicas}
    spec["selector"] = {"matchLabels": {"app": name}}
    container = {"name": name, "image": image, "ports": [{"containerPort": 8080}]}
    pod = {"containers": [container]}
    spec["template"] = {"metadata": {"labels": {"app": name}}, "spec": pod}
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}
