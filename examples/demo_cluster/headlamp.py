# SPDX-License-Identifier: Apache-2.0
"""What the Headlamp server does itself, its slips included: a client must live with them.

Its errors are text, and its JSON often claims to be.
"""

import base64
import binascii
import json
import posixpath
import re
import threading
import time
import uuid
from typing import Any, Dict, List, Optional, Set, Tuple

from .connections import (
    Answer,
    Connection,
    Gone,
    Handled,
    Request,
    json_answer,
    text_error,
)
from .contents import new_store
from .kubernetes import Kubernetes
from .resources import NODES, PODS
from .servers import Server
from .settings import Settings
from .store import Store
from .values import Object, dig

HEADLAMP_PROTOCOL = "base64url.headlamp.authorization.k8s.io."
INDEX = (
    b"<!doctype html>\n<html><head><title>Demo cluster</title></head>"
    b"<body>The page would be here.</body></html>\n"
)


def contexts_of(encoded: Any) -> List[Tuple[str, str]]:
    """(context, server) for each context of a base64 kubeconfig. ValueError if it is none.

    JSON is read properly. Of YAML, for which there is no reader here, only the names of the
    contexts are looked for, as kubectl and the usual installers write them.
    """
    if not isinstance(encoded, str):
        raise ValueError("not a string")
    text = base64.b64decode(encoded, validate=True).decode()
    if text.lstrip().startswith("{"):
        config = json.loads(text)
        servers = {
            cluster["name"]: dig(cluster, "cluster", "server") or ""
            for cluster in config.get("clusters") or []
        }
        return [
            (c["name"], servers.get(dig(c, "context", "cluster"), ""))
            for c in config.get("contexts") or []
        ]
    if not re.search(r"^contexts:", text, re.M):
        raise ValueError("no contexts")
    server = re.search(r"^[ -]*server: *[\"']?([^\"'\s]+)", text, re.M)
    found, inside, depth = [], False, 0
    for line in text.splitlines():
        if re.match(r"[A-Za-z]", line):
            inside = line.startswith("contexts:")
        indent = len(re.match(r"[ -]*", line).group())  # type: ignore[union-attr]
        if re.match(r" *- ", line):
            depth = indent
        if inside and indent == depth and line[indent:].startswith("name:"):
            found.append(
                (line[indent + 5 :].strip().strip("\"'"), server.group(1) if server else "")
            )
    return found


class Headlamp:
    """The routes, the clusters that are known, and what was started for them."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings = settings
        self._server = server
        self._lock = threading.Lock()
        self.clusters: Dict[str, Store] = {}  # guarded by _lock, as is all below
        self._servers: Dict[str, str] = {}
        self._in_file: Set[str] = set()  # the ones that DELETE /cluster/{name} can remove for good
        self._stateless: Dict[str, Store] = {}
        self._cached_until: Dict[str, float] = {}  # of a stateless one, by its key
        self._forwards: Dict[Tuple[str, str], Object] = {}
        self._drained: Dict[str, str] = {}
        self._reload = False
        self._kubernetes = Kubernetes(settings)

    def add(self, name: str, server: str = "memory://", in_file: bool = False) -> Store:
        store = new_store(name, self._settings)
        with self._lock:
            self.clusters[name] = store
            self._servers[name] = server
            if in_file:
                self._in_file.add(name)
        return store

    def handle(self, request: Request) -> Tuple[str, Handled]:
        """The name of the cluster that was addressed, and the answer."""
        path = request.path
        clean = posixpath.normpath("/" + path.lstrip("/")) + (
            "/" if path.endswith("/") and path.strip("/") else ""
        )
        if clean != path:
            query = "?" + request.target.split("?", 1)[1] if "?" in request.target else ""
            return "", Answer(301, headers=(("Location", clean + query),))
        parts = path.split("/")
        if parts[1] == "clusters" and len(parts) > 2 and parts[2]:
            return parts[2], self._proxy(parts[2], request)
        return "", self._own(request.method, parts[1:], request)

    def take_reload(self) -> Tuple[Tuple[str, str], ...]:
        """The headers that one answer below /clusters/ carries after a plugin has changed."""
        with self._lock:
            reload, self._reload = self._reload, False
        return (
            (("X-Reload", "reload"), ("Access-Control-Expose-Headers", "X-Reload"))
            if reload
            else ()
        )

    # Below /clusters/

    def _proxy(self, name: str, request: Request) -> Handled:
        try:
            key = self._context_key(name, request)
        except ValueError:
            return text_error("404 page not found", 404)
        headers = dict(request.headers)
        offered = headers.get("sec-websocket-protocol", "")
        if request.upgrades and "sec-websocket-protocol" not in request.repeated:
            # Split only at comma and space: spelled otherwise it reaches the API server.
            kept = [word for word in offered.split(", ") if not word.startswith(HEADLAMP_PROTOCOL)]
            headers["sec-websocket-protocol"] = ", ".join(kept)
        with self._lock:
            store = self.clusters.get(key)
            if store is None and self._cached_until.get(key, 0) > time.monotonic():
                store = self._stateless[key]
        if store is None:
            return text_error("404 page not found", 404)
        inner = "/" + request.path.split("/", 3)[3] if request.path.count("/") > 2 else "/"
        return self._kubernetes.handle(
            store, self._settings.accepted(name), request._replace(path=inner, headers=headers)
        )

    def _context_key(self, name: str, request: Request) -> str:
        """Which context is meant; primes the cache of stateless ones on the way."""
        key, encoded = name, request.headers.get("kubeconfig")
        if encoded and self._settings.dynamic_clusters:
            contexts = [context for context, _ in contexts_of(encoded)]
            if not contexts:
                raise ValueError("no contexts")
            if name in contexts:
                key = name + request.headers.get("x-headlamp-user-id", "")
                self._cache(key, name)
        if request.headers.get("upgrade") == "websocket":
            user = re.search(
                re.escape(HEADLAMP_PROTOCOL) + "([a-zA-Z0-9_-]+)",
                request.headers.get("sec-websocket-protocol", ""),
            )
            key = name + (user.group(1) if user else "")
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

    # The server's own routes

    def _own(self, method: str, parts: List[str], request: Request) -> Handled:
        dynamic = self._settings.dynamic_clusters
        if parts == ["config"] and method == "GET":
            return json_answer(self._config())
        if parts == ["cluster"] and method == "POST" and dynamic:
            return self._add_cluster(request)
        if (
            parts[0] == "cluster"
            and len(parts) == 2
            and method == "DELETE"
            and dynamic
            and parts[1]
        ):
            return self._delete_cluster(parts[1], request)
        if parts == ["parseKubeConfig"] and method == "POST" and dynamic:
            return self._parse_kubeconfig(request)
        if parts == ["portforward", "list"]:
            return self._list_forwards(request)
        if parts == ["portforward"] and method in ("POST", "GET", "DELETE"):
            return {"POST": self._forward, "GET": self._get_forward, "DELETE": self._stop_forward}[
                method
            ](request)
        if parts == ["drain-node"] and method == "POST":
            return self._drain(request)
        if (
            parts == ["drain-node-status"]
            and method == "GET"
            and {"cluster", "nodeName"} <= set(request.query)
        ):
            with self._lock:
                result = self._drained.get(request.param("nodeName") + request.param("cluster"))
            if result is None:
                return Answer(404)  # runs, or never started: no way to tell
            return json_answer(
                {"id": result, "cluster": request.param("cluster")},
                200,
                "text/plain; charset=utf-8",
            )
        if parts[0] == "plugins" and len(parts) == 2 and method == "DELETE" and parts[1]:
            if not self._permitted(request):
                return text_error("access denied", 403)
            with self._lock:
                self._reload = True
            return Answer(200)
        return Answer(
            200, INDEX, "text/html; charset=utf-8"
        )  # every other path, whatever the method

    def _permitted(self, request: Request) -> bool:
        token = self._settings.backend_token
        return bool(token) and request.headers.get("x-headlamp_backend-token") == token

    def _config(self) -> Object:
        with self._lock:
            names = list(self.clusters)
            clusters = [
                {
                    "name": name,
                    "server": self._servers[name],
                    "auth_type": "",
                    "meta_data": {
                        "source": "dynamic_cluster" if name in self._in_file else "kubeconfig",
                        "namespace": "",
                    },
                }
                for name in names
            ]
        return {"clusters": clusters, "isDynamicClusterEnabled": self._settings.dynamic_clusters}

    def _add_cluster(self, request: Request) -> Answer:
        if not self._permitted(request):
            return text_error("access denied", 403)
        wanted = json_object(request.body)
        if wanted is None:
            return text_error("decoding cluster info", 400)
        if wanted.get("kubeconfig"):
            try:
                contexts = contexts_of(wanted["kubeconfig"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return text_error(
                    (
                        "decoding kubeconfig"
                        if isinstance(error, binascii.Error)
                        else "loading kubeconfig"
                    ),
                    400,
                )
        elif wanted.get("name") and wanted.get("server"):
            contexts = [(wanted["name"], wanted["server"])]
        else:
            why = (
                "creating cluster with invalid info; please provide a 'name' and 'server' fields"
                " at least."
            )
            return text_error(why, 400)
        for name, server in contexts:
            self.add(name, server, in_file=bool(wanted.get("kubeconfig")))
        return json_answer(self._config(), 201, "text/plain; charset=utf-8")

    def _delete_cluster(self, name: str, request: Request) -> Answer:
        if not self._permitted(request):
            return text_error("access denied", 403)
        with self._lock:
            self.clusters.pop(name, None)
            in_file = name in self._in_file
            self._in_file.discard(name)
        if not in_file:  # gone all the same
            return text_error("removing cluster from kubeconfig", 500)
        return json_answer(self._config())

    def _parse_kubeconfig(self, request: Request) -> Answer:
        wanted = json_object(request.body)
        found = []
        try:
            for encoded in (wanted or {}).get("kubeconfigs") or []:
                found += contexts_of(encoded)
        except (ValueError, KeyError, TypeError, AttributeError):
            return text_error("setting up contexts from kubeconfig", 400)
        meta = {"source": "dynamic_cluster"}
        clusters = [
            {"name": name, "server": server, "auth_type": "", "meta_data": meta}
            for name, server in found
        ]
        answer = json_answer({"clusters": clusters, "isDynamicClusterEnabled": True})
        if wanted is None:  # the server forgets to return here: an error, and then an answer
            return answer._replace(
                code=400,
                body=b"Invalid JSON request body\n" + answer.body,
                content_type="text/plain; charset=utf-8",
            )
        return answer

    # Port forwards

    def _forward(self, request: Request) -> Handled:
        names = (
            "id",
            "namespace",
            "pod",
            "service",
            "serviceNamespace",
            "targetPort",
            "cluster",
            "port",
        )
        wanted = json_object(request.body)
        if wanted is None or not all(isinstance(wanted.get(name, ""), str) for name in names):
            why = "json: cannot unmarshal into Go struct field portForwardRequest of type string"
            return text_error("failed to marshal port forward payload " + why, 400)
        forward = {name: wanted.get(name, "") for name in names}
        if request.headers.get("authorization", "Bearer ").find("Bearer ") < 0:
            return hang_up  # the server panics
        for name, text in (
            ("namespace", "namespace"),
            ("pod", "pod name"),
            ("targetPort", "targetPort"),
            ("cluster", "cluster name"),
        ):
            if not forward[name]:
                return text_error(text + " is required", 400)
        with self._lock:
            store = self.clusters.get(forward["cluster"])
        if store is None:
            return text_error("key not found", 500)
        forward["id"] = forward["id"] or str(uuid.uuid4())
        tokens = self._settings.accepted(forward["cluster"])
        token = request.headers.get("authorization", "").replace("Bearer ", "", 1)
        pod = store.get(PODS, (forward["namespace"], forward["pod"]))
        if (
            pod is None
            or dig(pod.body, "status", "phase") != "Running"
            or (tokens is not None and token and token not in tokens)
        ):
            return hang  # ForwardPorts has failed, and nobody tells the handler
        page = "This is %s, port %s.\n" % (forward["pod"], forward["targetPort"])
        try:
            listener = self._server.listen(
                "127.0.0.1",
                int(forward["port"] or 0),
                lambda connection: serve_page(connection, page),
            )
        except (OSError, ValueError, OverflowError):
            return hang
        forward["port"] = str(listener.getsockname()[1])
        with self._lock:
            self._forwards[forward["cluster"], forward["id"]] = dict(
                forward, status="Running", error="", listener=listener
            )
        return json_answer(forward)

    def _list_forwards(self, request: Request) -> Answer:
        cluster = request.param("cluster")
        if not cluster:
            return text_error("cluster is required", 400)
        names = (
            "id",
            "pod",
            "service",
            "serviceNamespace",
            "namespace",
            "cluster",
            "port",
            "targetPort",
            "status",
            "error",
        )
        with self._lock:  # by prefix: "demo" also lists what belongs to "demo-2"
            found = [
                forward
                for forward in self._forwards.values()
                if forward["cluster"].startswith(cluster)
            ]
            return json_answer([{name: forward[name] for name in names} for forward in found])

    def _get_forward(self, request: Request) -> Answer:
        for name in ("cluster", "id"):
            if not request.param(name):
                return text_error(name + " is required", 400)
        with self._lock:
            forward = self._forwards.get((request.param("cluster"), request.param("id")))
        if forward is None:
            return text_error("no portforward running with id " + request.param("id"), 404)
        return json_answer(
            {name: forward[name] for name in ("id", "pod", "service", "cluster", "namespace")}
        )

    def _stop_forward(self, request: Request) -> Handled:
        wanted = json_object(request.body)
        if wanted is None:
            return text_error("invalid request body", 400)
        for name in ("id", "cluster"):
            if not wanted.get(name):
                return text_error("invalid request, %s is required" % name, 400)
        place = (wanted["cluster"], wanted["id"])
        with self._lock:
            forward = self._forwards.get(place)
            if forward is None:
                return text_error("failed to delete port forward key not found", 500)
            if not wanted.get("stopOrDelete"):
                del self._forwards[place]  # only the record: the forward goes on
            elif forward["status"] == "Stopped":
                return hang  # stopping what has stopped blocks for ever
            else:
                forward["status"] = "Stopped"
                self._server.unlisten(forward["listener"])
        return Answer(200, b"stopped", "text/plain; charset=utf-8")

    # Drains

    def _drain(self, request: Request) -> Answer:
        wanted = json_object(request.body)
        if wanted is None:
            return text_error("decoding payload", 400)
        for name, text in (("nodeName", "nodeName"), ("cluster", "clusterName")):
            if not wanted.get(name):
                return text_error(text + " is required", 400)
        cluster, node = str(wanted["cluster"]), str(wanted["nodeName"])
        with self._lock:
            store = self.clusters.get(cluster)
        if store is None:
            return text_error("Cluster not found", 404)
        # The header goes on as a token with its "Bearer ": no cluster that wants one takes it.
        refused = (
            bool(request.headers.get("authorization"))
            and self._settings.accepted(cluster) is not None
        )

        def drain() -> None:
            result = "success"
            if self._server.stopping.wait(self._settings.drain_time):
                return
            if refused:
                result = "error: Unauthorized"
            elif store.get(NODES, ("", node)) is None:
                result = 'error: nodes "%s" not found' % node
            else:
                with store.changing():
                    store.edit(
                        NODES,
                        ("", node),
                        lambda body: body.setdefault("spec", {}).update(unschedulable=True),
                    )
                    for key, pod in store.entries(PODS):
                        if pod.body["spec"].get("nodeName") == node:
                            store.remove(PODS, key)
            with self._lock:
                self._drained[node + cluster] = result

        self._server.spawn(drain)
        answer = {"message": "Drain node request submitted successfully", "cluster": cluster}
        return json_answer(answer, 200, "text/plain; charset=utf-8")


def json_object(body: bytes) -> Optional[Object]:
    try:
        value = json.loads(body.decode())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def hang(connection: Connection) -> None:
    """No answer, until the client or the server ends."""
    while True:
        connection.wait(None)
        connection.fill()


def hang_up(connection: Connection) -> None:
    raise Gone()


def serve_page(connection: Connection, page: str) -> None:
    """What a forwarded port leads to."""
    while True:
        request = connection.read_request()
        connection.send_answer(Answer(200, page.encode(), "text/plain"), request)
