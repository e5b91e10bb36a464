# SPDX-License-Identifier: Apache-2.0
"""A little life: something changes every second or two."""

import random
import threading
from typing import Dict, Optional

from .resources import DEPLOYMENTS, EVENTS, NAMESPACES, PODS, Resource
from .store import Store
from .values import Key, Object, dig, timestamp


class Life:
    """Changes one thing after the other in the given clusters."""

    def __init__(self, clusters: Dict[str, Store]) -> None:
        self._clusters = clusters

    def run(self, stopping: threading.Event) -> None:
        changes = [self._restart_pod, self._restart_pod]  # the likeliest
        changes += [self._scale_deployment, self._roll_deployment]
        while not stopping.wait(random.uniform(1.0, 2.0)):
            stores = list(self._clusters.values())
            if stores:
                random.choice(changes)(random.choice(stores))

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
            template["annotations"] = dict(
                template.get("annotations") or {}, restartedAt=timestamp()
            )
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
            body: Object = {
                "metadata": {"generateName": key[1] + "."},
                "involvedObject": about,
                "type": "Normal",
            }
            body.update(
                reason=reason,
                message=message,
                count=1,
                firstTimestamp=timestamp(),
                lastTimestamp=timestamp(),
            )
            store.add(EVENTS, key[0], body)
            events = sorted(
                store.entries(EVENTS),
                key=lambda found: int(found[1].body["metadata"]["resourceVersion"]),
            )
            for old, _ in events[:-50]:
                store.remove(EVENTS, old)
