# SPDX-License-Identifier: Apache-2.0
"""Drains that a Headlamp server does: it cordons a node and deletes what runs there."""

import threading
import time
from typing import Callable, Dict, Optional, Tuple

from .connections import Answer, Handled, Request, json_answer, text_error
from .cookies import token_in_cookies
from .refusals import Refused
from .resources import NODES, PODS
from .servers import Server
from .settings import Settings
from .store import Entry, Store
from .users import ANONYMOUS, Keys
from .values import Key, Object, dig, go_json_error, json_object

KEPT_TODAY, KEPT_2024 = 20.0, 1200.0  # how long a result is remembered
TEXT = "text/plain; charset=utf-8"  # what Go takes their JSON for


class Drains:
    """Begun, and asked about until the result is forgotten."""

    def __init__(
        self, settings: Settings, server: Server, find: Callable[[str], Optional[Store]]
    ) -> None:
        self._settings = settings
        self._server = server
        self._find = find
        self._lock = threading.Lock()
        self._results: Dict[Tuple[str, str], Tuple[str, float]] = {}  # and when; guarded by _lock

    def start(self, request: Request) -> Answer:
        today = self._settings.today
        wanted = json_object(request.body)
        if wanted is None:
            return text_error(go_json_error(request.body) if today else "decoding payload", 400)
        for name, title in (("nodeName", "nodeName"), ("cluster", "clusterName")):
            if not wanted.get(name):
                return text_error(title + (" not found" if today else " is required"), 400)
        cluster, node = str(wanted["cluster"]), str(wanted["nodeName"])
        store = self._find(cluster)
        if store is None:
            return text_error("key not found" if today else "Cluster not found", 404)

        refused = self._refused(cluster, node, store, request)
        self._server.spawn(lambda: self._drain(store, cluster, node, refused))
        text = "Drain node request submitted successfully"
        return json_answer({"message": text, "cluster": cluster}, 200, TEXT)

    def _refused(self, cluster: str, node: str, store: Store, request: Request) -> str:
        """What the API server says to the token that the drain is done with; "" if it may."""
        tokens = self._settings.accepted(cluster)
        authorization = request.headers.get("authorization", "")
        if tokens is None:
            return ""
        if not self._settings.today:
            # The line goes on as a token with its "Bearer ": no cluster that wants one takes it.
            return "Unauthorized" if authorization else ""

        token = authorization.replace("Bearer ", "", 1) or token_in_cookies(request, cluster)
        keys = Keys(tokens, self._settings.rights, store.issued)
        try:
            user = keys.user(token) if token else ANONYMOUS
        except Refused:
            return "Unauthorized"
        for verb in ("get", "update"):
            if not user.may(verb, "nodes"):
                text = 'nodes "%s" is forbidden: User "%s" cannot %s resource "nodes" in API group'
                return text % (node, user.name, verb) + ' "" at the cluster scope'
        return ""

    def _drain(self, store: Store, cluster: str, node: str, refused: str) -> None:
        if self._server.stopping.wait(self._settings.drain_time):
            return
        result = "success"
        if refused:
            result = "error: " + refused
        elif store.get(NODES, ("", node)) is None:
            result = 'error: nodes "%s" not found' % node
        else:
            with store.changing():
                store.edit(NODES, ("", node), _cordon)
                for key, pod in store.entries(PODS):
                    if self._goes(store, key, pod, node):
                        store.remove(PODS, key)
        with self._lock:
            self._results[cluster, node] = result, time.monotonic()

    def _goes(self, store: Store, key: Key, pod: Entry, node: str) -> bool:
        if pod.body["spec"].get("nodeName") != node or store.get(PODS, key) is None:
            return False
        owners = dig(pod.body, "metadata", "ownerReferences") or []
        daemon = any(owner.get("kind") == "DaemonSet" for owner in owners)
        return not (daemon and self._settings.today)

    def status(self, request: Request) -> Handled:
        """That it runs, was never begun or is forgotten looks the same: 404."""
        cluster, node = request.param("cluster"), request.param("nodeName")
        today = self._settings.today
        if not (node and cluster):
            return text_error(("nodeName" if not node else "clusterName") + " is required", 400)
        kept = self._settings.drain_kept or (KEPT_TODAY if today else KEPT_2024)
        with self._lock:
            result, since = self._results.get((cluster, node), ("", 0.0))
            if result and time.monotonic() - since > kept:
                del self._results[cluster, node]
                result = ""
        if not result:
            return text_error("key not found", 404) if today else Answer(404)
        return json_answer({"id": result, "cluster": cluster}, 200, TEXT)


def _cordon(body: Object) -> None:
    body.setdefault("spec", {})["unschedulable"] = True
