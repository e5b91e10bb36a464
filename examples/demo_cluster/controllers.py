# SPDX-License-Identifier: Apache-2.0
"""What other programs do in a real cluster: pods for deployments, and what follows from them.

There they act a moment later; here each acts at the end of the write that concerns it, so that a
test has nothing to wait for. The answer to that write still shows the object as it was written.
DemoCluster(controllers=False) is the bare API server: pods stay Pending and deleted namespaces
Terminating.
"""

import copy
import hashlib
import random
from typing import Dict, Iterable, List, Optional, Tuple

from .resources import DAEMONSETS, DEPLOYMENTS, NAMESPACES, NODES, PODS, Resource, core
from .store import Entry, Event, Store
from .values import Key, Object, dig, dumps, is_ready, timestamp


class Controllers:
    """Scheduler, kubelets, and the controllers of deployments, daemon sets and namespaces."""

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
        fresh = [
            key
            for key, pod in pods
            if dig(pod.body, "metadata", "labels", "pod-template-hash") == revision
        ]
        for _ in range(spec["replicas"] - len(fresh)):
            self._make_pod(DEPLOYMENTS, deployment, {"pod-template-hash": revision})
        surplus = fresh[spec["replicas"] :]
        self._remove_pods((key, pod) for key, pod in pods if key in surplus or key not in fresh)
        self._store.edit(
            DEPLOYMENTS, key, lambda body: body.update(status=self._deployment_status(deployment))
        )

    def _deployment_status(self, deployment: Entry) -> Object:
        pods = self._owned_by(deployment)
        ready = sum(is_ready(pod.body) for _, pod in pods)
        status = {
            "observedGeneration": deployment.body["metadata"]["generation"],
            "replicas": len(pods),
        }
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
        status.update(
            numberMisscheduled=0, observedGeneration=daemons.body["metadata"]["generation"]
        )
        self._store.edit(DAEMONSETS, key, lambda body: body.update(status=status))

    def _on_pods(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        pod = new or old
        assert pod is not None
        if new is None or (old is not None and is_ready(old.body) != is_ready(new.body)):
            for owner in dig(pod.body, "metadata", "ownerReferences") or []:
                kinds = {"Deployment": self._on_deployments, "DaemonSet": self._on_daemonsets}
                resource = {"Deployment": DEPLOYMENTS, "DaemonSet": DAEMONSETS}.get(
                    owner.get("kind")
                )
                entry = resource and self._store.get(resource, (key[0], owner.get("name")))
                if entry and entry.body["metadata"]["uid"] == owner.get("uid"):
                    kinds[owner["kind"]]((key[0], owner["name"]), entry, entry)
        elif dig(new.body, "status", "phase") == "Pending" and self._store.get(PODS, key) is new:
            self._run(key, new)

    def _run(self, key: Key, pod: Entry) -> None:
        ready = [name for (_, name), node in self._store.entries(NODES) if is_ready(node.body)]
        nodes = self._store.entries(NODES)
        free = [
            name
            for (_, name), entry in nodes
            if name in ready and not dig(entry.body, "spec", "unschedulable")
        ]
        node = pod.body["spec"].get("nodeName") or (random.choice(free) if free else "")
        if node not in ready:
            return
        now = timestamp()

        def start(body: Object) -> None:
            body["spec"]["nodeName"] = node
            address = "10.1.%d.%d" % (ready.index(node), random.randrange(2, 255))
            body["status"].update(
                phase="Running",
                hostIP="192.168.0.%d" % (10 + ready.index(node)),
                podIP=address,
                startTime=now,
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
            self._remove_pods(
                (place, pod) for place, pod in pods if pod.body["spec"].get("nodeName") == key[1]
            )
        if old is None or new is None or is_ready(old.body) != is_ready(new.body):
            for place, daemons in self._store.entries(DAEMONSETS):
                self._on_daemonsets(place, daemons, daemons)
            for place, pod in self._store.entries(PODS):
                self._on_pods(place, None, pod)

    def _on_namespaces(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        if old is None:
            self._store.add(core("serviceaccounts"), key[1], {"metadata": {"name": "default"}})
        elif (
            new is not None
            and new.body["status"]["phase"] == "Terminating"
            and self._store.get(NAMESPACES, key)
        ):
            for resource in list(self._store.resources.values()):
                for place, _ in (
                    self._store.entries(resource, key[1]) if resource.namespaced else ()
                ):
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

    def _make_pod(
        self, resource: Resource, owner: Entry, labels: Dict[str, str], node: str = ""
    ) -> None:
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
