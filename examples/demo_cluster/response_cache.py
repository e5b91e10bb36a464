# SPDX-License-Identifier: Apache-2.0
"""The cache that today's Headlamp can have (-cache-enabled), with its faults.

Its key lacks the query, and for a named object the resource as well: an answer from it may be for
another question. It says so: X-HEADLAMP-CACHE: true.
"""

import threading
import time
from typing import Callable, Dict, Tuple

from .connections import GZIP_FROM, Answer, Handled, Request, hang_up
from .resources import BUILT_IN
from .store import Event
from .values import Object, dumps

LIFETIME = 600.0
MARK = (("X-HEADLAMP-CACHE", "true"),)

# What is watched, so that a change of it is noticed.
WATCHED = (
    "configmaps",
    "cronjobs",
    "daemonsets",
    "deployments",
    "jobs",
    "nodes",
    "pods",
    "replicasets",
    "secrets",
    "services",
    "statefulsets",
)

CacheKey = Tuple[str, str, str, str]  # group, last word of the path, namespace, context
Ask = Callable[[Request], Handled]


def key_of(path: str, context: str) -> CacheKey:
    """`path` begins with /api or /apis."""
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" and len(parts) > 1 else ""
    namespace = ""
    if "namespaces" in parts[:-1]:
        namespace = parts[parts.index("namespaces") + 1]
    return group, parts[-1], namespace, context


def bypasses(request: Request, path: str) -> bool:
    """Whether a request goes past the cache."""
    if "upgrade" in request.headers.get("connection", "").lower():
        return True
    parts = path.strip("/").split("/")
    if parts[0] not in ("api", "apis") or len(parts) < 2:
        return True
    return path.rstrip("/").endswith(("/selfsubjectaccessreviews", "/selfsubjectrulesreviews"))


class ResponseCache:
    """Answers that were given, for ten minutes, or until what they show is seen to change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # And until when. What was compressed is stored with its old length: it breaks off.
        self._answers: Dict[CacheKey, Tuple[Handled, float]] = {}

    def handle(self, request: Request, path: str, context: str, allowed: bool, ask: Ask) -> Handled:
        """`ask` is what answers if the cache can't; `allowed` what an access review said."""
        if bypasses(request, path):
            return ask(request)
        key = key_of(path, context)
        if request.method != "GET":
            return self._write(request, key, ask)
        if not allowed:
            return _made_up(path, context)

        with self._lock:
            answer, until = self._answers.get(key, (None, 0.0))
        if answer is not None and time.monotonic() < until:
            if isinstance(answer, Answer):
                return answer._replace(headers=answer.headers + MARK)
            return answer
        handled = ask(request)
        self._store(key, handled, request)
        return handled

    def _write(self, request: Request, key: CacheKey, ask: Ask) -> Handled:
        """Forget what was at this address, and ask anew at once."""
        self._forget(key)
        handled = ask(request)
        fresh = request._replace(method="GET", body=b"")
        self._store(key, ask(fresh), fresh)
        return handled

    def _store(self, key: CacheKey, handled: Handled, request: Request) -> None:
        if not isinstance(handled, Answer) or handled.code >= 500 or b"Failure" in handled.body:
            return
        gzip = "gzip" in request.headers.get("accept-encoding", "")
        broken = gzip and len(handled.body) > GZIP_FROM
        with self._lock:
            self._answers[key] = hang_up if broken else handled, time.monotonic() + LIFETIME

    def _forget(self, key: CacheKey) -> None:
        group, word, _, context = key
        with self._lock:
            self._answers.pop(key, None)
            self._answers.pop((group, word, "", context), None)

    def notice(self, event: Event, context: str) -> None:
        """A write in a cluster: some kinds are watched."""
        if event.resource.plural not in WATCHED:
            return
        namespace, name = event.key
        for word in (event.resource.plural, name):
            self._forget((event.resource.group, word, namespace, context))


def _made_up(path: str, context: str) -> Answer:
    """What it says to those who may not, without asking the API server."""
    plurals = {resource.plural for resource in BUILT_IN.values()}
    words = [word for word in path.strip("/").split("/") if word in plurals]
    word = words[-1] if words else ""
    verb = "list" if path.rstrip("/").endswith("/" + word) else "get"
    text = '%s is forbidden: User "system:serviceaccount:default:%s" cannot %s resource "%s"'
    status: Object = {"kind": "Status", "apiVersion": "v1"}
    status["metadata"] = {"resourceVersion": ""}
    message = text % (word, context, verb, word) + ' in API group "" at the cluster scope'
    status.update(message=message, reason="Forbidden")
    status.update(details={"kind": word}, code=403)
    return Answer(403, dumps(status).encode(), headers=MARK)
