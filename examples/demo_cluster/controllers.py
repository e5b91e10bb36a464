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
from typing import Any, Dict, List, Optional, Tuple

from .defaults import suffix
from .endpoints import write_endpoints
from .resources import (
    ACCOUNTS,
    DAEMONSETS,
    DEPLOYMENTS,
    ENDPOINTS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    SERVICES,
    SLICES,
    STATEFULSETS,
    Resource,
)
from .store import Entry, Event, Store
from .values import Key, Object, dig, dumps, is_ready, timestamp

OWNERS = {r.kind: r for r in (DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS)}
DEPENDENTS = (REPLICASETS, PODS, ENDPOINTS, SLICES)  # what goes when its owner goes
OWNERLESS = (PODS, ENDPOINTS, SLICES, EVENTS)  # not worth a look for dependents

REVISION = "deployment.kubernetes.io/revision"  # annotation of deployments and replica sets

Owned = List[Tuple[Key, Entry]]


class Controllers:
    """Scheduler, kubelets, and the controllers of what makes pods, of services and namespaces."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def react(self, event: Event) -> None:
        """Act on one write; the store's lock is held."""
        if event.new is None and event.old is not None:
            if event.resource not in OWNERLESS:
                self._collect(event.old)
            self._finish_namespace(event.key[0])
        act = getattr(self, "_on_" + event.resource.plural, None)
        if act is not None and event.resource.group in ("", "apps", "batch"):
            act(event.key, event.old, event.new)

    # What belongs to what

    def _owned_by(self, owner: Entry, resource: Resource = PODS) -> Owned:
        metadata = owner.body["metadata"]
        return [
            (key, entry)
            for key, entry in self._store.entries(resource, metadata.get("namespace", ""))
            if any(
                reference.get("uid") == metadata["uid"]
                for reference in entry.body["metadata"].get("ownerReferences") or []
            )
        ]

    def _collect(self, owner: Entry) -> None:
        """Garbage collection: what a deleted object owned goes too."""
        for resource in DEPENDENTS:
            for key, _ in self._owned_by(owner, resource):
                self._remove(resource, key)

    def _remove(self, resource: Resource, key: Key) -> None:
        if self._store.get(resource, key):
            self._store.remove(resource, key)

    def _owners_act(self, key: Key, body: Object) -> None:
        """Let those look again whose object this is."""
        for reference in dig(body, "metadata", "ownerReferences") or []:
            resource = OWNERS.get(reference.get("kind"))
            place = (key[0], reference.get("name"))
            entry = self._store.get(resource, place) if resource else None
            if resource and entry and entry.body["metadata"]["uid"] == reference.get("uid"):
                getattr(self, "_on_" + resource.plural)(place, entry, entry)

    def _set_status(self, resource: Resource, key: Key, status: Object) -> None:
        status = {name: value for name, value in status.items() if value != 0}
        self._store.edit(resource, key, lambda body: body.update(status=status))

    # Deployments and what they consist of

    def _on_deployments(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        deployment = self._store.get(DEPLOYMENTS, key)
        if new is None or deployment is None:
            return
        spec = deployment.body["spec"]
        revision = _hash(spec["template"])
        name = "%s-%s" % (key[1], revision)
        if self._store.get(REPLICASETS, (key[0], name)) is None:
            self._make_replicaset(deployment, name, revision)
        self._number(deployment, name)
        for place, _ in self._owned_by(deployment, REPLICASETS):
            self._scale(place, spec["replicas"] if place[1] == name else 0)

        self._forget_revisions(deployment)

        sets = self._owned_by(deployment, REPLICASETS)
        ready = sum(dig(entry.body, "status", "readyReplicas") or 0 for _, entry in sets)
        count = sum(dig(entry.body, "status", "replicas") or 0 for _, entry in sets)
        current = self._store.get(REPLICASETS, (key[0], name))
        updated = dig(current.body, "status", "replicas") or 0 if current else 0
        self._set_status(
            DEPLOYMENTS,
            key,
            {
                "observedGeneration": deployment.body["metadata"]["generation"],
                "replicas": count,
                "updatedReplicas": updated,
                "readyReplicas": ready,
                "availableReplicas": ready,
                "unavailableReplicas": max(0, spec["replicas"] - ready),
                "conditions": _conditions(ready >= spec["replicas"], deployment.body),
            },
        )

    def _make_replicaset(self, deployment: Entry, name: str, revision: str) -> None:
        template = copy.deepcopy(deployment.body["spec"]["template"])
        labels = {"pod-template-hash": revision}
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = dict(metadata.get("labels") or {}, **labels)
        selector = copy.deepcopy(deployment.body["spec"].get("selector") or {})
        selector["matchLabels"] = dict(selector.get("matchLabels") or {}, **labels)

        spec = {"replicas": 0, "selector": selector, "template": template}
        owner = [_reference(DEPLOYMENTS, deployment)]
        head = {"name": name, "labels": metadata["labels"], "ownerReferences": owner}
        head["annotations"] = {REVISION: self._next_revision(deployment)}
        namespace = deployment.body["metadata"]["namespace"]
        self._store.add(REPLICASETS, namespace, {"metadata": head, "spec": spec})

    def _forget_revisions(self, deployment: Entry) -> None:
        """Old replica sets stay only as far back as the deployment wants."""
        kept = deployment.body["spec"].get("revisionHistoryLimit", 10)
        empty = [
            (int(_revision(entry)), key)
            for key, entry in self._owned_by(deployment, REPLICASETS)
            if not entry.body["spec"]["replicas"]
        ]
        for _, key in sorted(empty)[: max(0, len(empty) - kept)]:
            self._remove(REPLICASETS, key)

    def _next_revision(self, deployment: Entry) -> str:
        sets = self._owned_by(deployment, REPLICASETS)
        return str(1 + max([int(_revision(entry)) for _, entry in sets], default=0))

    def _number(self, deployment: Entry, name: str) -> None:
        """Number the current template on both; an old one that is back gets a new number."""
        key = (deployment.body["metadata"]["namespace"], name)
        current = self._store.get(REPLICASETS, key)
        if current is None:
            return
        others = self._owned_by(deployment, REPLICASETS)
        newest = max(int(_revision(entry)) for _, entry in others)
        number = _revision(current)
        if int(number) < newest:
            number = str(newest + 1)

        def change(body: Object) -> None:
            body["metadata"].setdefault("annotations", {})[REVISION] = number

        self._store.edit(REPLICASETS, key, change)
        self._store.edit(DEPLOYMENTS, (key[0], deployment.body["metadata"]["name"]), change)

    def _scale(self, key: Key, replicas: int) -> None:
        def change(body: Object) -> None:
            if body["spec"].get("replicas") != replicas:
                body["spec"]["replicas"] = replicas
                body["metadata"]["generation"] += 1

        self._store.edit(REPLICASETS, key, change)

    def _on_replicasets(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        entry = self._store.get(REPLICASETS, key)
        if new is None or entry is None:
            return
        pods, wanted = self._owned_by(entry), entry.body["spec"]["replicas"]
        for _ in range(wanted - len(pods)):
            self._make_pod(REPLICASETS, entry, {}, key[1] + "-" + suffix())
        for place, _ in pods[wanted:]:
            self._remove(PODS, place)

        pods = self._owned_by(entry)
        ready = sum(is_ready(pod.body) for _, pod in pods)
        status = {"replicas": len(pods), "fullyLabeledReplicas": len(pods)}
        status.update(readyReplicas=ready, availableReplicas=ready)
        status["observedGeneration"] = entry.body["metadata"]["generation"]
        self._set_status(REPLICASETS, key, status)
        self._owners_act(key, entry.body)

    def _on_statefulsets(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        entry = self._store.get(STATEFULSETS, key)
        if new is None or entry is None:
            return
        wanted = ["%s-%d" % (key[1], number) for number in range(entry.body["spec"]["replicas"])]
        present = {place[1]: place for place, _ in self._owned_by(entry)}
        for name in wanted:
            if name not in present:
                self._make_pod(STATEFULSETS, entry, {}, name)
        for name in set(present) - set(wanted):
            self._remove(PODS, present[name])

        pods = self._owned_by(entry)
        ready = sum(is_ready(pod.body) for _, pod in pods)
        status = dict(replicas=len(pods), readyReplicas=ready, availableReplicas=ready)
        status.update(currentReplicas=len(pods), updatedReplicas=len(pods))
        status["observedGeneration"] = entry.body["metadata"]["generation"]
        self._set_status(STATEFULSETS, key, status)

    def _on_daemonsets(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        entry = self._store.get(DAEMONSETS, key)
        if new is None or entry is None:
            return
        nodes = self._ready_nodes()
        taken = {pod.body["spec"].get("nodeName") for _, pod in self._owned_by(entry)}
        for node in nodes:
            if node not in taken:
                self._make_pod(DAEMONSETS, entry, {}, key[1] + "-" + suffix(), node)

        status: Object = {"observedGeneration": entry.body["metadata"]["generation"]}
        for name in ("currentNumberScheduled", "desiredNumberScheduled", "numberReady"):
            status[name] = len(nodes)
        status.update(numberAvailable=len(nodes), updatedNumberScheduled=len(nodes))
        self._set_status(DAEMONSETS, key, status)

    def _on_jobs(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        """Its pods end well as soon as they run."""
        entry = self._store.get(JOBS, key)
        if new is None or entry is None:
            return
        pods, wanted = self._owned_by(entry), entry.body["spec"].get("completions", 1)
        for _ in range(wanted - len(pods)):
            self._make_pod(JOBS, entry, {}, key[1] + "-" + suffix())
        pods = self._owned_by(entry)
        done = sum(dig(pod.body, "status", "phase") == "Succeeded" for _, pod in pods)
        status: Object = {"startTime": entry.body["metadata"]["creationTimestamp"]}
        status.update(succeeded=done, active=len(pods) - done)
        if done >= wanted:
            complete = {"type": "Complete", "status": "True", "lastTransitionTime": timestamp()}
            status.update(completionTime=timestamp(), conditions=[complete])
        if dig(entry.body, "status", "succeeded") != done or not done:
            self._set_status(JOBS, key, status)

    def _make_pod(
        self, resource: Resource, owner: Entry, labels: Dict[str, str], name: str, node: str = ""
    ) -> None:
        pod = copy.deepcopy(owner.body["spec"]["template"])
        metadata = pod.setdefault("metadata", {})
        metadata["name"] = name
        metadata["generateName"] = owner.body["metadata"]["name"] + "-"
        metadata["labels"] = dict(metadata.get("labels") or {}, **labels)
        metadata["ownerReferences"] = [_reference(resource, owner)]
        if node:
            pod["spec"]["nodeName"] = node
        self._store.add(PODS, owner.body["metadata"]["namespace"], pod)

    # Pods, and the nodes that they run on

    def _ready_nodes(self) -> List[str]:
        return [name for (_, name), node in self._store.entries(NODES) if is_ready(node.body)]

    def _on_pods(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        pod = new or old
        assert pod is not None
        if _seen_from_outside(old) != _seen_from_outside(new):
            self._owners_act(key, pod.body)
            for place, service in self._store.entries(SERVICES, key[0]):
                if any(entry and _selects(service, entry) for entry in (old, new)):
                    write_endpoints(self._store, place, service)
        pending = new is not None and dig(new.body, "status", "phase") == "Pending"
        if new is not None and pending and self._store.get(PODS, key) is new:
            self._run(key, new)

    def _run(self, key: Key, pod: Entry) -> None:
        """Find a node for it, and start it there."""
        ready = self._ready_nodes()
        free = [
            name
            for (_, name), entry in self._store.entries(NODES)
            if name in ready and not dig(entry.body, "spec", "unschedulable")
        ]
        node = pod.body["spec"].get("nodeName") or (random.choice(free) if free else "")
        if node not in ready:
            return
        references = pod.body["metadata"].get("ownerReferences") or []
        ends = any(reference.get("kind") == "Job" for reference in references)
        number = ready.index(node)

        def start(body: Object) -> None:
            body["spec"]["nodeName"] = node
            body["status"].update(_running(body, number, ends))

        self._store.edit(PODS, key, start)

    def _on_nodes(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        if new is None:
            for place, pod in self._store.entries(PODS):
                if pod.body["spec"].get("nodeName") == key[1]:
                    self._remove(PODS, place)
        if old is None or new is None or is_ready(old.body) != is_ready(new.body):
            for place, daemons in self._store.entries(DAEMONSETS):
                self._on_daemonsets(place, daemons, daemons)
            for place, pod in self._store.entries(PODS):
                self._on_pods(place, pod, pod)

    # Services and namespaces

    def _on_services(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        if new is not None:
            write_endpoints(self._store, key, new)
        else:
            self._remove(ENDPOINTS, key)

    def _on_namespaces(self, key: Key, old: Optional[Entry], new: Optional[Entry]) -> None:
        if old is None:
            self._store.add(ACCOUNTS, key[1], {"metadata": {"name": "default"}})
        else:
            self._finish_namespace(key[1])

    def _finish_namespace(self, name: str) -> None:
        """Empty a namespace that is going, and let it go when it is empty."""
        namespace = self._store.get(NAMESPACES, ("", name))
        if namespace is None or namespace.body["status"]["phase"] != "Terminating":
            return
        left = False
        for resource in list(self._store.resources.values()):
            for key, entry in self._store.entries(resource, name) if resource.namespaced else ():
                if entry.body["metadata"].get("finalizers"):
                    left = True
                    self._store.edit(resource, key, _mark_going)
                else:
                    self._remove(resource, key)
        if not left:
            self._remove(NAMESPACES, ("", name))


def _mark_going(body: Object) -> None:
    body["metadata"].setdefault("deletionTimestamp", timestamp())


def _reference(resource: Resource, owner: Entry) -> Object:
    reference = {name: owner.body["metadata"][name] for name in ("name", "uid")}
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    return dict(kind, **reference, controller=True, blockOwnerDeletion=True)


def _hash(template: Object) -> str:
    """Of a template's meaning: neither its order nor what is null counts."""

    def pruned(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {key: pruned(item) for key, item in value.items()}
            return {key: item for key, item in sorted(kept.items()) if item not in (None, {}, [])}
        return [pruned(item) for item in value] if isinstance(value, list) else value

    return hashlib.sha256(dumps(pruned(template)).encode()).hexdigest()[:10]


def _revision(entry: Entry) -> str:
    return str(dig(entry.body, "metadata", "annotations", REVISION) or "0")


def _selects(service: Entry, pod: Entry) -> bool:
    selector = dig(service.body, "spec", "selector") or {}
    labels = pod.body["metadata"].get("labels") or {}
    return bool(selector) and bool(selector.items() <= labels.items())


def _seen_from_outside(pod: Optional[Entry]) -> Optional[Tuple[object, ...]]:
    """What of a pod concerns its owner and its services."""
    if pod is None:
        return None
    status = pod.body.get("status") or {}
    labels = dumps(pod.body["metadata"].get("labels"))
    return is_ready(pod.body), status.get("phase"), status.get("podIP"), labels


def _conditions(enough: bool, body: Object) -> List[Object]:
    """Those of a deployment; one that stays as it was keeps its time."""
    reasons = ("MinimumReplicasAvailable", "MinimumReplicasUnavailable")
    wanted = [
        ("Available", "True" if enough else "False", reasons[not enough]),
        ("Progressing", "True", "NewReplicaSetAvailable" if enough else "ReplicaSetUpdated"),
    ]
    known = {item["type"]: item for item in dig(body, "status", "conditions") or []}
    conditions = []
    for kind, state, reason in wanted:
        if known.get(kind, {}).get("status") == state:
            conditions.append(dict(known[kind], reason=reason))
        else:
            times = {"lastUpdateTime": timestamp(), "lastTransitionTime": timestamp()}
            conditions.append(dict({"type": kind, "status": state}, **times, reason=reason))
    return conditions


def _running(body: Object, number: int, ends: bool) -> Object:
    """The status of a pod that has been started on the node of that number."""
    now = timestamp()
    ready = "False" if ends else "True"
    state: Object = {"running": {"startedAt": now}}
    if ends:
        times = {"startedAt": now, "finishedAt": now}
        state = {"terminated": dict(times, exitCode=0, reason="Completed")}
    return {
        "phase": "Succeeded" if ends else "Running",
        "hostIP": "192.168.0.%d" % (10 + number),
        "podIP": "10.1.%d.%d" % (number, random.randrange(2, 255)),
        "startTime": now,
        "conditions": [
            {"type": name, "status": status, "lastProbeTime": None, "lastTransitionTime": now}
            for name, status in (
                ("Initialized", "True"),
                ("Ready", ready),
                ("ContainersReady", ready),
                ("PodScheduled", "True"),
            )
        ],
        "containerStatuses": [
            {
                "name": container.get("name"),
                "image": container.get("image"),
                "ready": not ends,
                "started": not ends,
                "restartCount": 0,
                "state": state,
            }
            for container in body["spec"]["containers"]
        ],
    }
