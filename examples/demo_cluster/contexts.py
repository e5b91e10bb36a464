# SPDX-License-Identifier: Apache-2.0
"""Which clusters a Headlamp server knows: its own, those that were added, those of a request."""

import re
import threading
import time
from typing import Dict, List, NamedTuple, Optional

from .connections import Request
from .contents import new_store
from .kubeconfigs import contexts_of
from .settings import Settings
from .store import Store
from .values import Object

USER_PROTOCOL = "base64url.headlamp.authorization.k8s.io."
OWN_FILE = "/home/demo/.kube/config"
ADDED_FILE = "/home/demo/.config/Headlamp/kubeconfigs/config"


class BadKubeconfig(Exception):
    """A request's KUBECONFIG header says nothing that can be used."""


class Context(NamedTuple):
    """One cluster that the server itself knows."""

    name: str
    server: str
    source: str = "kubeconfig"  # or "dynamic_cluster": added by a request
    origin: str = OWN_FILE  # the file that it was read from; "" right after it was added


class Contexts:
    """Clusters by their names, and those of requests by name and user."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self.clusters: Dict[str, Store] = {}  # guarded by _lock, as is all below
        self._contexts: Dict[str, Context] = {}
        self._files: Dict[str, Dict[str, str]] = {OWN_FILE: {}}  # {file: {context: server}}
        self._stateless: Dict[str, Store] = {}
        self._cached_until: Dict[str, float] = {}  # of a stateless one, by its key

    def named_as(self, context: str) -> str:
        """What a context is called: today's server wants names that fit into a path."""
        if not self._settings.today:
            return context
        return context.replace("/", "--").replace(" ", "__")

    def own(self, name: str) -> None:
        """A context of the server's own kubeconfig."""
        name = self.named_as(name)
        self._put(Context(name, "memory://"))
        self._files[OWN_FILE][name] = "memory://"

    def _put(self, context: Context) -> None:
        store = new_store(context.name, self._settings)
        with self._lock:
            self.clusters[context.name] = store
            self._contexts[context.name] = context

    def add(self, name: str, server: str, stored: bool) -> None:
        """What a request adds; `stored` in a file, if it came as a kubeconfig."""
        name = self.named_as(name)
        self._put(Context(name, server, "dynamic_cluster", ""))
        if stored:
            with self._lock:
                self._files.setdefault(ADDED_FILE, {})[name] = server

    def forget(self, name: str) -> None:
        """From memory: what is in a file comes back at the next start."""
        with self._lock:
            self.clusters.pop(name, None)
            self._contexts.pop(name, None)

    def erase(self, name: str, file: str) -> str:
        """From a file; the server's words if that can't be."""
        with self._lock:
            if not file:
                return 'locking kubeconfig file "": kubeconfig path is empty'
            if file not in self._files:
                text = 'locking kubeconfig file "%s": open %s.lock: no such file or directory'
                return text % (file, file)
            if name not in self._files[file]:
                return "context not found in kubeconfig"
            del self._files[file][name]
            return ""

    def erase_added(self, name: str) -> None:
        """As the server of May 2024 does: from the file for what was added."""
        self.erase(name, ADDED_FILE)

    def rename(self, name: str, fresh: str) -> None:
        """In memory and in its file."""
        with self._lock:
            if name not in self._contexts:
                return
            self.clusters[fresh] = self.clusters.pop(name)
            self._contexts[fresh] = self._contexts.pop(name)._replace(name=fresh)
            for key, context in self._contexts.items():  # a slip: all lose where they came from
                self._contexts[key] = context._replace(source="unknown", origin="")
            for contexts in self._files.values():
                if name in contexts:
                    contexts[fresh] = contexts.pop(name)

    def stored(self, name: str) -> bool:
        with self._lock:
            return name in self._files.get(ADDED_FILE, {})

    def restart(self) -> None:
        """As after a restart of the server: what its files have is there, and nothing else."""
        with self._lock:
            files = {file: dict(contexts) for file, contexts in self._files.items()}
            known, self._contexts = dict(self.clusters), {}
            self.clusters.clear()
            self._stateless.clear()
            self._cached_until.clear()
        for file, contexts in files.items():
            source = "kubeconfig" if file == OWN_FILE else "dynamic_cluster"
            for name, server in contexts.items():
                self._put(Context(name, server, source, file))
                if name in known:  # the cluster itself has not gone away
                    self.clusters[name] = known[name]

    def described(self) -> List[Object]:
        """As /config lists them."""
        with self._lock:
            contexts = list(self._contexts.values())
        return [self._described(context) for context in contexts]

    def _described(self, context: Context) -> Object:
        data: Object = {"source": context.source, "namespace": ""}
        if self._settings.today:
            origin = context.origin
            data.update(extensions={}, origin={"kubeconfig": origin}, originalName=context.name)
            data["clusterID"] = "%s+%s" % (origin, context.name) if origin else ""
        shown = {"name": context.name, "server": context.server, "auth_type": ""}
        return dict(shown, meta_data=data)

    # Which one a request means

    def find(self, name: str, request: Request) -> Optional[Store]:
        """The cluster of that name, for this request. BadKubeconfig for a header that is none."""
        key = self.key(name, request)
        store = self._get(key)
        if store is None and self._settings.today and request.upgrades:
            store = self._get(name)
        return store

    def named(self, name: str) -> Optional[Store]:
        """One that the server itself knows."""
        with self._lock:
            return self.clusters.get(name)

    def _get(self, key: str) -> Optional[Store]:
        with self._lock:
            if key in self.clusters:
                return self.clusters[key]
            if self._cached_until.get(key, 0) > time.monotonic():
                return self._stateless[key]
        return None

    def key(self, name: str, request: Request) -> str:
        """Which context is meant; primes the cache of stateless ones on the way."""
        key, encoded = name, request.headers.get("kubeconfig")
        if encoded and self._settings.dynamic_clusters:
            key = self._stateless_key(name, encoded, request)
        if request.headers.get("upgrade") == "websocket":
            offered = request.headers.get("sec-websocket-protocol", "")
            user = re.search(re.escape(USER_PROTOCOL) + "([a-zA-Z0-9_-]+)", offered)
            key = self._joined(name, user.group(1) if user else "")
        return key

    def _joined(self, name: str, user: str) -> str:
        separator = "\0" if self._settings.today else ""
        return name + separator + user if user else name

    def _stateless_key(self, name: str, encoded: str, request: Request) -> str:
        try:
            contexts = [self.named_as(context) for context, _ in contexts_of(encoded)]
        except ValueError as error:
            raise BadKubeconfig("no contexts found in kubeconfig") from error
        if not contexts:
            raise BadKubeconfig("no contexts found in kubeconfig")

        key = ""
        wanted = self._joined(name, request.headers.get("x-headlamp-user-id", ""))
        for context in contexts:
            if context == name:
                self._cache(wanted, name)
                key = wanted
            elif not self._settings.today:
                key = name  # May 2024: the last context of the file decides
        return key

    def _cache(self, key: str, name: str) -> None:
        with self._lock:
            known = self._cached_until.get(key, 0) > time.monotonic() or key in self.clusters
            missing = key not in self._stateless and key not in self.clusters
        fresh = new_store(name, self._settings) if missing else None
        with self._lock:
            if fresh is not None:
                self._stateless.setdefault(key, fresh)
            ttl = self._settings.stateless_again if known else self._settings.stateless_ttl
            if key in self._stateless:
                self._cached_until[key] = time.monotonic() + ttl
