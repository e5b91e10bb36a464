# SPDX-License-Identifier: Apache-2.0
"""The routes of a Headlamp server, its slips included: a client must live with them.

2024 is the server of May 2024, 2026 that of August 2026 (0.45). Its errors are text, and its JSON
often claims to be.
"""

import base64
import binascii
import json
import posixpath
import re
import threading
import time
from typing import Dict, List, NamedTuple, Optional, Tuple

from .connections import Answer, Handled, Request, json_answer, text_error
from .contexts import USER_PROTOCOL, BadKubeconfig, Contexts
from .cookies import Headers, clear_cookies, set_cookies, token_in_cookies
from .drains import Drains
from .forwards import Forwards
from .kubeconfigs import contexts_of
from .kubernetes import Kubernetes
from .refusals import Refused
from .resources import SERVICES
from .response_cache import ResponseCache
from .servers import Server
from .settings import Settings
from .store import Store
from .users import BEARER_PROTOCOL, Keys
from .values import Object, go_json_error, json_object

BACKEND_HEADER = "x-headlamp_backend-token"
BACKEND_PROTOCOL = "base64url.headlamp.backend.authorization.k8s.io."
PLAIN = "text/plain; charset=utf-8"
INDEX = (
    b"<!doctype html>\n<html><head><title>Demo cluster</title></head>"
    b"<body>The page would be here.</body></html>\n"
)
NO_STORE = (
    ("Cache-Control", "no-store, no-cache, must-revalidate, private"),
    ("Pragma", "no-cache"),
    ("Expires", "0"),
    ("Vary", "Cookie"),
)

NO_CACHE = (
    ("Cache-Control", "no-cache, private, max-age=0"),
    ("Expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("Pragma", "no-cache"),
    ("X-Accel-Expires", "0"),
)

# What today's server wants its backend token for, if it has one.
GUARDED = (
    "auth",
    "cluster",
    "config",
    "drain-node",
    "drain-node-status",
    "externalproxy",
    "parseKubeConfig",
    "wsMultiplexer",
)


class Outcome(NamedTuple):
    """What becomes of a request."""

    handled: Handled
    cluster: str = ""  # that was addressed
    headers: Headers = ()  # that go with the answer, whatever it is


class Headlamp:
    """Host, base URL and backend token are looked at first, then where the path leads."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings = settings
        self.contexts = Contexts(settings)
        self._forwards = Forwards(settings, server, self.contexts.named)
        self._drains = Drains(settings, server, self.contexts.named)
        self._kubernetes = Kubernetes(settings)
        self._cache = ResponseCache()
        self._lock = threading.Lock()
        self._reload = False  # guarded by _lock

    def handle(self, request: Request, port: int) -> Outcome:
        if self._settings.check_host and self._settings.today and not _local(request, port):
            return Outcome(text_error("invalid Host header", 403))
        base = self._settings.base_url
        if not (request.path + "/").startswith(base + "/"):
            return Outcome(text_error("404 page not found", 404))

        request = request._replace(path=request.path[len(base) :] or "/")
        clean = _cleaned(request.path)
        if clean != request.path:
            query = "?" + request.target.split("?", 1)[1] if "?" in request.target else ""
            return Outcome(Answer(301, headers=(("Location", base + clean + query),)))
        parts = request.path.split("/")
        if parts[1] == "clusters" and len(parts) > 3 and parts[2]:
            return self._below_clusters(parts[2], "/".join(parts[3:]), request)
        return Outcome(self._own(parts[1:], request))

    # The backend token

    def _guard(self, request: Request) -> Optional[Request]:
        """The request without its backend token; None if it has none and has to."""
        token = self._settings.backend_token
        if not (self._settings.today and token):
            return request
        headers = dict(request.headers)
        tokens = [headers.pop(BACKEND_HEADER, "")]
        offered = request.protocols
        carried = [word for word in offered if word.startswith(BACKEND_PROTOCOL)]
        if carried:
            others = [word for word in offered if word not in carried]
            headers["sec-websocket-protocol"] = ", ".join(others)
            tokens = [word for word in tokens if word]
            tokens += [_decoded(word[len(BACKEND_PROTOCOL) :]) for word in carried]
        if len(carried) > 1 or BACKEND_HEADER in request.repeated or set(tokens) != {token}:
            return None
        return request._replace(headers=headers)

    def _permitted(self, request: Request) -> bool:
        """For the few routes that have always wanted it."""
        token = self._settings.backend_token
        if self._settings.today:
            return self._guard(request) is not None
        return bool(token) and request.headers.get(BACKEND_HEADER) == token

    # Below /clusters/

    def _below_clusters(self, name: str, rest: str, request: Request) -> Outcome:
        guarded = self._guard(request)
        if guarded is None:
            return Outcome(text_error("access denied", 403), name)
        request = guarded
        fresh = self._refreshed(name, request)
        if self._settings.today:
            own = self._own_below(name, rest, request)
            if own is not None:
                return Outcome(own, name, fresh)
        return Outcome(self._proxy(name, rest, request), name, self._reload_headers() + fresh)

    def _refreshed(self, name: str, request: Request) -> Headers:
        """The next token, which comes with the answer to one that is about to end."""
        authorization = request.headers.get("authorization", "")
        token = authorization.replace("Bearer ", "", 1)
        if self._settings.today:
            token = token_in_cookies(request, name) or token
        fresh = self._settings.refreshed.get(token)
        if not fresh or self._settings.base_url:
            return ()
        if self._settings.today:
            return set_cookies(request, name, fresh, "", bool(self._settings.ssl_context))
        return (("X-Authorization", fresh),)

    def _own_below(self, name: str, rest: str, request: Request) -> Optional[Handled]:
        """The routes of Headlamp's own that stand there since 0.35; None for all others."""
        if rest == "me" and request.method == "GET":
            return _me(name, request)
        if rest == "set-token" and request.method == "POST":
            return self._set_token(name, request)
        if rest.startswith("serviceproxy/") and request.method == "GET":
            return self._service_proxy(name, rest.split("/")[1:], request)
        if rest not in ("portforward", "portforward/list"):
            return None
        try:
            key = self.contexts.key(name, request)
            store = self.contexts.find(name, request)
        except BadKubeconfig as error:
            return text_error(str(error), 400)
        return self._forwards.handle(name, key, store, rest, request)

    def _set_token(self, name: str, request: Request) -> Answer:
        wanted = json_object(request.body)
        if wanted is None or not isinstance(wanted.get("token", ""), str):
            return text_error("Invalid JSON", 400)
        base, secure = self._settings.base_url, bool(self._settings.ssl_context)
        if not wanted.get("token"):
            return Answer(200, headers=clear_cookies(request, name, base, secure))
        return Answer(200, headers=set_cookies(request, name, wanted["token"], base, secure))

    def _service_proxy(self, name: str, place: List[str], request: Request) -> Answer:
        store = self.contexts.named(name)
        if store is None or len(place) != 2:
            return Answer(404, headers=NO_CACHE)
        authorization = request.headers.get("authorization", "")
        token = token_in_cookies(request, name) or authorization.replace("Bearer ", "", 1)
        tokens = self._settings.accepted(name)
        if not token or (tokens is not None and token not in tokens):
            return Answer(401, headers=NO_CACHE)
        if store.get(SERVICES, (place[0], place[1])) is None:
            return Answer(404, headers=NO_CACHE)
        text = "This is %s, asked for %s.\n" % (place[1], request.param("request"))
        return Answer(200, text.encode(), PLAIN, NO_CACHE)

    def _proxy(self, name: str, rest: str, request: Request) -> Handled:
        """Hand it to the API server of the cluster."""
        today = self._settings.today
        try:
            store = self.contexts.find(name, request)
        except BadKubeconfig as error:
            return text_error(str(error), 400) if today else text_error("404 page not found", 404)
        if store is None:
            return text_error("key not found" if today else "404 page not found", 404)

        if name in self._settings.down:
            return Answer(502)
        headers = dict(request.headers)
        offered = headers.get("sec-websocket-protocol", "")
        if request.upgrades and "sec-websocket-protocol" not in request.repeated:
            # Split only at comma and space: spelled otherwise it reaches the API server.
            kept = [word for word in offered.split(", ") if not word.startswith(USER_PROTOCOL)]
            headers["sec-websocket-protocol"] = ", ".join(kept)
        if today:
            _take_protocol_token(headers, request.upgrades)
            token = token_in_cookies(request, name)
            if token:
                headers["authorization"] = "Bearer " + token
        inner = request._replace(path="/" + rest, headers=headers)
        return self._ask(name, self.contexts.key(name, request), store, inner)

    def _ask(self, name: str, key: str, store: Store, request: Request) -> Handled:
        tokens = self._settings.accepted(name)

        def ask(inner: Request) -> Handled:
            return self._kubernetes.handle(store, tokens, inner)

        if not (self._settings.cache and self._settings.today) or self._settings.base_url:
            return ask(request)
        if store.notice is None:
            store.notice = lambda event: self._cache.notice(event, key)
        allowed = self._allowed(store, name, request)
        return self._cache.handle(request, request.path, key, allowed, ask)

    def _allowed(self, store: Store, name: str, request: Request) -> bool:
        """What the cache's own access review says; a token that is none is not its matter."""
        token = request.headers.get("authorization", "").replace("Bearer ", "", 1)
        keys = Keys(self._settings.accepted(name), self._settings.rights, store.issued)
        try:
            verbs = keys.user(token).verbs
        except Refused:
            return True
        return verbs is None or bool({"get", "list", "watch"} & set(verbs))

    def _reload_headers(self) -> Headers:
        """What one answer carries after a plugin has changed."""
        with self._lock:
            reload, self._reload = self._reload, False
        if not reload:
            return ()
        return (("X-Reload", "reload"), ("Access-Control-Expose-Headers", "X-Reload"))

    # The server's own routes

    def _own(self, parts: List[str], request: Request) -> Handled:
        today, method = self._settings.today, request.method
        if today and parts[0] in GUARDED and self._guard(request) is None:
            return text_error("access denied", 403)
        if parts == ["config"] and method == "GET":
            return json_answer(self._config())
        if parts[0] in ("cluster", "parseKubeConfig") and self._settings.dynamic_clusters:
            handled = self._dynamic(parts, request)
            if handled is not None:
                return handled
        if parts == ["drain-node"] and method == "POST":
            return self._drains.start(request)
        if parts == ["drain-node-status"] and {"cluster", "nodeName"} <= set(request.query):
            if method == "GET":
                return self._drains.status(request)
        if parts[0] == "plugins":
            plugins = self._plugins(parts[1:], request)
            if plugins is not None:
                return plugins
        if parts == ["externalproxy"]:
            return text_error("proxy URL is empty", 400)
        if parts == ["oidc"]:
            if self.contexts.named(request.param("cluster")) is None:
                return text_error("404 page not found", 404)
            return text_error("authProvider is nil", 500)
        if not today:
            forward = self._forwards.handle_old("/".join(parts), request)
            if forward is not None:
                return forward
        return Answer(200, INDEX, "text/html; charset=utf-8")  # the page, whatever the method

    def _config(self) -> Object:
        dynamic = self._settings.dynamic_clusters
        config: Object = {"clusters": self.contexts.described(), "isDynamicClusterEnabled": dynamic}
        if self._settings.today:
            config.update(allowKubeconfigChanges=False, defaultPodDebugImage="")
            config.update(defaultNodeShellImage="", defaultNodeShellNamespace="")
        return config

    # Plugins

    def _plugins(self, parts: List[str], request: Request) -> Optional[Answer]:
        plugins = self._settings.plugins
        if not parts and request.method == "GET":
            if self._settings.today:
                return json_answer([_plugin(name, kind) for name, kind in plugins.items()])
            return json_answer(["plugins/" + name for name in plugins if plugins[name] != "user"])
        if len(parts) > 1:
            return self._plugin_file(parts)
        if not parts or not parts[0] or request.method != "DELETE":
            return None
        if not self._permitted(request):
            return text_error("access denied", 403)
        if not self._settings.today:
            plugins.pop(parts[0], None)
            self._plugins_changed()
            return Answer(200)

        problem = self._plugin_problem(parts[0], request.param("type"))
        if problem:
            return json_answer({"message": problem, "success": False}, 500)
        del plugins[parts[0]]
        self._plugins_changed()
        return json_answer({"success": True})

    def _plugin_file(self, parts: List[str]) -> Answer:
        if parts[0] not in self._settings.plugins or parts[1:] != ["package.json"]:
            headers = () if self._settings.today else (("Cache-Control", "no-cache"),)
            refusal = text_error("404 page not found", 404)
            return refusal._replace(headers=refusal.headers + headers)
        answer = json_answer({"name": parts[0], "version": "0.1.0"})
        return answer._replace(headers=(("Cache-Control", "no-cache"),))

    def _plugins_changed(self) -> None:
        with self._lock:
            self._reload = True

    def _plugin_problem(self, name: str, kind: str) -> str:
        """Why a plugin can't be deleted; "" if it can."""
        if kind not in ("", "user", "development"):
            return "invalid plugin type '%s': must be 'user' or 'development'" % kind
        present = self._settings.plugins.get(name)
        if present in ("user", "development") and kind in ("", present):
            return ""
        if kind == "development":
            return "plugin '%s' not found in development directory" % name
        if kind == "user":
            return "plugin '%s' not found in user-plugins or development directory" % name
        text = "plugin '%s' not found or cannot be deleted (shipped plugins cannot be deleted)"
        return text % name

    # Clusters that come and go

    def _dynamic(self, parts: List[str], request: Request) -> Optional[Handled]:
        method = request.method
        if parts == ["parseKubeConfig"] and method == "POST":
            return self._parse_kubeconfig(request)
        if parts == ["cluster"] and method == "POST":
            return self._add_cluster(request)
        if parts[0] != "cluster" or len(parts) != 2 or not parts[1]:
            return None
        if method == "DELETE":
            return self._delete_cluster(parts[1], request)
        if method == "PUT" and self._settings.today:
            return self._rename_cluster(parts[1], request)
        return None

    def _add_cluster(self, request: Request) -> Answer:
        if not self._permitted(request):
            return text_error("access denied", 403)
        today = self._settings.today
        wanted = json_object(request.body)
        if wanted is None:
            why = ": " + go_json_error(request.body) if today else ""
            return text_error("decoding cluster info" + why, 400)

        if wanted.get("kubeconfig"):
            try:
                contexts = contexts_of(wanted["kubeconfig"])
            except ValueError as error:
                if today:
                    return text_error("getting contexts from kubeconfig", 400)
                decoding = isinstance(error, binascii.Error)
                return text_error("%s kubeconfig" % ("decoding" if decoding else "loading"), 400)
        elif wanted.get("name") and wanted.get("server"):
            contexts = [(wanted["name"], wanted["server"])]
        else:
            why = "please provide a 'name' and 'server' fields at least"
            if not today:
                why = "creating cluster with invalid info; %s." % why
            return text_error(why, 400)
        for name, server in contexts:
            self.contexts.add(name, server, stored=bool(wanted.get("kubeconfig")))
        return json_answer(self._config(), 201, PLAIN)

    def _rename_cluster(self, name: str, request: Request) -> Answer:
        wanted = json_object(request.body)
        if wanted is None:
            return text_error(go_json_error(request.body), 400)
        fresh = str(wanted.get("newClusterName") or "")
        if self.contexts.named(fresh) is not None:
            return text_error("custom name already in use", 400)
        self.contexts.rename(name, fresh)
        return json_answer(self._config(), 201, PLAIN)

    def _delete_cluster(self, name: str, request: Request) -> Answer:
        if not self._permitted(request):
            return text_error("access denied", 403)
        if not self._settings.today:
            return self._delete_cluster_2024(name)

        self.contexts.forget(name)
        config = json_answer(self._config())
        if request.param("removeKubeConfig") != "true":
            return config
        if request.param("originalName") and request.param("clusterID"):
            name = request.param("originalName")
        problem = self.contexts.erase(name, request.param("configPath"))
        if not problem:
            return config
        refusal = text_error(problem, 500)
        return refusal._replace(body=refusal.body + config.body)  # it goes on all the same

    def _delete_cluster_2024(self, name: str) -> Answer:
        stored = self.contexts.stored(name)
        self.contexts.forget(name)
        if not stored:  # gone from memory all the same
            return text_error("removing cluster from kubeconfig", 500)
        self.contexts.erase_added(name)
        return json_answer(self._config())

    def _parse_kubeconfig(self, request: Request) -> Answer:
        today = self._settings.today
        wanted = json_object(request.body)
        kubeconfigs = (wanted or {}).get("kubeconfigs") or []
        if today and wanted is None:
            return text_error("Invalid JSON request body", 400)
        if today and not kubeconfigs:
            return text_error("kubeconfigs is required", 400)

        contexts, broken = [], False
        for encoded in kubeconfigs:
            try:
                contexts += contexts_of(encoded)
            except ValueError:
                broken = True
        if broken and not (today and contexts):
            return text_error("setting up contexts from kubeconfig", 400)
        data, named_as = {"source": "dynamic_cluster"}, self.contexts.named_as
        clusters = [
            {"name": named_as(name), "server": server, "auth_type": "", "meta_data": data}
            for name, server in contexts
        ]
        shown: Object = {"clusters": clusters, "isDynamicClusterEnabled": True}
        answer = json_answer(dict(self._config(), **shown) if today else shown)
        if wanted is None:  # May 2024 forgets to return here: an error, and then an answer
            refusal = text_error("Invalid JSON request body", 400)
            return refusal._replace(body=refusal.body + answer.body)
        return answer


def _local(request: Request, port: int) -> bool:
    """Whether Host is one that a server on a loopback address takes."""
    host = request.headers.get("host", "").lower()
    names = ("localhost", "127.0.0.1", "[::1]", "::1")
    return host in names or host in ["%s:%d" % (name, port) for name in names]


def _cleaned(path: str) -> str:
    """As Go's router wants it: without // and .."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and path.strip("/") else clean


def _decoded(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return ""


def _take_protocol_token(headers: Dict[str, str], upgrades: bool) -> None:
    """A bearer token among the subprotocols becomes an Authorization line, if there is none."""
    offered = [word.strip() for word in headers.get("sec-websocket-protocol", "").split(",")]
    carried = [word for word in offered if word.startswith(BEARER_PROTOCOL)]
    if not (upgrades and carried):
        return
    headers["sec-websocket-protocol"] = ", ".join(word for word in offered if word not in carried)
    headers.setdefault("authorization", "Bearer " + _decoded(carried[0][len(BEARER_PROTOCOL) :]))


def _plugin(name: str, kind: str) -> Object:
    folder = {"user": "user-plugins", "shipped": "static-plugins"}.get(kind, "plugins")
    return {"path": "%s/%s" % (folder, name), "type": kind, "name": name}


def _me(name: str, request: Request) -> Answer:
    """Who a token belongs to, which has to be a JWT: nobody is asked."""
    authorization = request.headers.get("authorization", "")
    token = authorization.replace("Bearer ", "", 1) or token_in_cookies(request, name)
    code, shown = _claims(token)
    return json_answer(shown, code)._replace(headers=NO_STORE)


def _claims(token: str) -> Tuple[int, Object]:
    if not token:
        return 401, {"message": "unauthorized"}
    parts = token.split(".")
    if len(parts) != 3 or not parts[1]:
        return 401, {"message": "invalid token"}
    try:
        claims: Dict[str, object] = json.loads(_decoded(parts[1]))
        expires = float(re.sub("[^0-9.]", "", str(claims["exp"])))
    except (ValueError, KeyError, TypeError):
        return 401, {"message": "invalid token claims"}
    if expires < time.time():
        return 401, {"message": "token expired"}
    username = claims.get("preferred_username") or claims.get("name") or claims.get("sub") or ""
    groups = claims.get("groups") or []
    shown = {"email": claims.get("email") or "", "groups": groups, "userInfoURL": ""}
    return 200, dict(shown, username=username)
