# SPDX-License-Identifier: Apache-2.0
"""What a new cluster has in it."""

from typing import Optional

from .controllers import Controllers
from .resources import DAEMONSETS, DEPLOYMENTS, NAMESPACES, NODES, core
from .settings import Settings
from .store import Store
from .values import Object, timestamp


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
                    {
                        "type": "Ready",
                        "status": "True",
                        "reason": "KubeletReady",
                        "lastTransitionTime": timestamp(),
                    }
                ],
                "addresses": [{"type": "InternalIP", "address": "192.168.0.%d" % (10 + number)}],
                "nodeInfo": {
                    "kubeletVersion": "v1.20.2",
                    "osImage": "Memory",
                    "containerRuntimeVersion": "demo://1",
                },
            }
            store.add(
                NODES,
                "",
                {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status},
            )
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
            core("configmaps"),
            "default",
            {"metadata": {"name": "settings"}, "data": {"colour": "blue", "size": "10"}},
        )
        store.add(
            core("configmaps"),
            "demo-shop",
            {"metadata": {"name": "prices"}, "data": {"apple": "3", "pear": "4"}},
        )
        store.add(
            core("secrets"),
            "demo-shop",
            {"metadata": {"name": "payments"}, "stringData": {"key": "not so secret"}},
        )


def new_store(name: str, settings: Settings) -> Store:
    """A cluster as it is first seen."""
    store = Store(name, settings.minor)
    if settings.controllers:
        store.react = Controllers(store).react
    fill(store, settings.seed)
    return store
