# SPDX-License-Identifier: Apache-2.0
"""Kubernetes clusters, directly or through a Headlamp server: one file, standard library only.

    import apiproxy
    client = apiproxy.Client.from_kubeconfig()
    cancel = client.stream_results("/api/v1/pods", print, print, {"limit": 50})

What there is; help() of each says more:

    Client              from_kubeconfig(), in_cluster(), or an address; its settings
    one answer          request cluster_request post put patch remove apply wait_for
    kept current        stream_results stream_results_for_cluster stream_result metrics
    a raw stream        stream (logs, exec, attach), WebSocket
    one resource        api_factory api_factory_with_namespace
    pods and nodes      start_port_forward list_port_forward stop_or_delete_port_forward
                        drain_node drain_node_status
    clusters, plugins   set_cluster delete_cluster set_token get_token test_auth
                        test_cluster_health delete_plugin
    the rest            configure default_client close read_yaml tls_context Endpoint ApiError

Each is a method of Client, most also a function here, on one default client. Names are those of
Headlamp's lib/k8s/apiProxy in snake_case (streamResults is stream_results); types and the keys of
options are spelled as there.

Contents. Each part uses only the parts above it.

    1. Types and errors      option dicts, settings, ApiError           pure
    2. Addresses             paths, names and query strings             pure
    3. YAML                  the subset that manifests use              pure
    4. Frames                RFC 6455 and HTTP heads, bytes to values   pure
    5. Connections           scopes, TCP, TLS, proxies                  blocks
    6. HTTP                  urllib with kept connections               blocks
    7. WebSocket             connect, recv, send, close, keepalive      blocks
    8. Endpoints             TLS settings, exec plugins, kubeconfigs
    9. Transport             credentials, routes, one way to send
   10. Streams               a thread that calls back until cancelled   threads
   11. Watches               a list kept current, one object, metrics   threads
   12. Resources             discovery, API clients, apply
   13. Direct and Headlamp   drain and port forward, here or there      threads
   14. Client                settings and every documented call
   15. Module functions      the same calls on one default client

Times are seconds; only RequestParams["timeout"] is milliseconds, as documented.
Callbacks run on their stream's thread, one at a time, under no lock that other calls need.
A call that fails raises ApiError; what fails after it returned goes to err_cb.
"""

from __future__ import annotations

import base64
import bisect
import codecs
import collections.abc
import contextlib
import functools
import gc
import hashlib
import io
import itertools
import json
import math
import os
import random
import re
import select
import socket
import ssl
import sys
import threading
import time
import urllib.parse
import urllib.request
import weakref
import zlib
from typing import (
    TYPE_CHECKING, Any, Callable, Deque, Dict, Iterable, Iterator, List, Literal, Mapping,
    Match, NoReturn, Optional, Sequence, Set, Tuple, TypedDict, TypeVar, Union, cast, overload,
)

if TYPE_CHECKING:
    import logging

    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")
    R = TypeVar("R")
    PathLike = os.PathLike[str]
else:
    PathLike = os.PathLike  # which 3.8 can't subscript

__all__ = [
    # 1. Types and errors
    "StreamResultsCb", "StreamErrCb", "QueryParameters", "RequestParams", "ClusterRequestParams",
    "ClusterRequest", "StreamArgs", "StreamResultsParams", "ApiInfo", "ApiError", "WebSocketError",
    "HandshakeError", "ProtocolError", "ConnectionClosed", "Settings",
    # 3 to 14
    "read_yaml", "Response", "WebSocket", "Endpoint", "tls_context", "Stream", "ApiClient",
    "NamespacedApiClient", "ScaleApi", "Client",
    # 15. Module functions
    "configure", "default_client", "close", "set_token", "get_token", "wait_for",
    "api_factory", "api_factory_with_namespace", "apply", "cluster_request", "delete_cluster",
    "delete_plugin", "drain_node", "drain_node_status", "list_port_forward", "metrics", "patch",
    "post", "put", "remove", "request", "set_cluster", "start_port_forward",
    "stop_or_delete_port_forward", "stream", "stream_result", "stream_results",
    "stream_results_for_cluster", "test_auth", "test_cluster_health",
]

__version__ = "0.2.0"


class _Log:
    """The logger, which is not imported before it is of use: that takes 3 ms, on 3.14 30."""

    def debug(self, *args: Any) -> None:
        """As Logger.debug."""
        if "logging" in sys.modules:  # else nobody can listen
            self.__getattr__("debug")(*args)

    def __getattr__(self, name: str) -> Any:
        import logging

        global log
        log = logging.getLogger(__name__)
        return getattr(log, name)


log: logging.Logger = cast(Any, _Log())

KiB = 1 << 10
MiB = 1 << 20

# ------------------------------------------------------------------------------
# 1. Types and errors
#
# The documented interfaces, with the documented spelling of their keys, the
# settings, and the one family of errors. No behaviour beyond checking arguments.
# ------------------------------------------------------------------------------

Json = Any  # what json.loads gives; here mostly a Kubernetes object
JsonObject = Dict[str, Any]
Params = Optional[Mapping[str, Any]]  # QueryParameters, or any other mapping that becomes a query
Token = Union[str, Callable[[], Optional[str]], None]
Bytes = Union[bytes, bytearray, memoryview]
StrOrBytes = Union[str, bytes]
Path = Union[str, PathLike]
ClusterName = Optional[str]  # None: the current one
Seconds = Optional[float]  # None for no limit
Action = Callable[[], None]  # what cancels a stream, for one
TlsSettings = Optional[ssl.SSLContext]  # None: those of somebody else, at last the system's
Query = Dict[str, Any]  # Params of ours
HeaderLines = Mapping[str, Union[str, Sequence[str]]]  # several values are several lines
Lines = Dict[str, Any]  # HeaderLines of ours

# Called, not derived from: of a class each type is text, which is compiled, on 3.14 by a module
# that takes 1.4 ms to import. TypeVars are bound to classes that there are, for the same reason.
QueryParameters = TypedDict("QueryParameters", {
    "continue": str,
    "dryRun": str,
    "fieldSelector": Union[str, Mapping[str, str]],
    "labelSelector": Union[str, Mapping[str, str]],
    "limit": Union[str, int],
    "resourceVersion": str,
    "allowWatchBookmarks": Union[str, bool],
    "sendInitialEvents": Union[str, bool],
    "resourceVersionMatch": str,
    "pretty": Union[str, bool],
    "watch": Union[str, bool],
}, total=False)

# Options of one request; `timeout` in milliseconds, None for no limit.
RequestParams = TypedDict("RequestParams", {
    "timeout": Optional[float],
    "isJSON": bool,
    "cluster": Optional[str],
    "autoLogoutOnAuthError": bool,
    "method": str,
    "headers": Mapping[str, str],
    "body": Union[str, bytes],
}, total=False)

ClusterRequestParams = RequestParams  # under the name that clusterRequest documents

# A cluster to add: by `name` and `server`, or by `kubeconfig` (base64).
ClusterRequest = TypedDict("ClusterRequest", {
    "name": str,
    "server": str,
    "insecureTLSVerify": bool,
    "certificateAuthorityData": str,
    "kubeconfig": str,
}, total=False)

# One endpoint of an API client.
ApiInfo = TypedDict("ApiInfo", {"group": str, "version": str, "resource": str})


class ApiError(Exception):
    """The server, or the way to it, refused.

    status       HTTP status; 408 time ran out, 502 nothing answered, 0 not an HTTP matter
    message      the server's own words, else the HTTP reason phrase
    reason       of a Kubernetes Status ("AlreadyExists"), else ""
    details      of a Kubernetes Status, else {}
    body         what came, as bytes (the first MiB)
    method, url  what was asked; headers, tokens and request bodies never appear in an error
    cluster      that was asked, by name, else ""
    retry_after  seconds that the server asked us to wait, else None
    """

    def __init__(
        self, status: int, message: str = "", *, phrase: str = "", reason: str = "",
        details: Json = None, body: bytes = b"", method: str = "", url: str = "",
        cluster: str = "", retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(status, message)  # what pickle calls us with; the rest is in __dict__
        self.status = status
        self.message = message or phrase
        self.phrase = phrase
        self.reason = reason
        self.details: JsonObject = details or {}
        self.body = body
        self.method = method
        self.url = url
        self.cluster = cluster
        self.retry_after = retry_after

    def __str__(self) -> str:
        parts = dict.fromkeys(filter(None, (self.phrase, self.message)))
        text = " - ".join(parts) or str(self.status)
        if not self.url:
            return text
        path = re.sub(r"^\w+://[^/?]*|\?.*", "", self.url)  # the query may be long, or secret
        names_cluster = not self.cluster or "/clusters/%s/" % self.cluster in path
        where = "" if names_cluster else ", cluster " + self.cluster
        return "%s (%s %s%s)" % (text, self.method, path, where)


class WebSocketError(ApiError):
    """A WebSocket conversation failed."""


class HandshakeError(WebSocketError):
    """The upgrade to a WebSocket was refused, with `status` and `body`, or was not legal."""


class ProtocolError(WebSocketError):
    """The peer broke RFC 6455; `code` is the close code that it was told."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(0, message, phrase="WebSocket protocol error")
        self.args = (code, message)
        self.code = code


class ConnectionClosed(WebSocketError):
    """The WebSocket is closed: `code`, `reason`; 1005: without a code, 1006: without a frame."""

    def __init__(self, code: int, reason: str = "") -> None:
        text = "%d %s" % (code, reason) if reason else str(code)
        super().__init__(0, text, phrase="WebSocket closed")
        self.args = (code, reason)
        self.code = code
        self.reason = reason


StreamErrCb = Callable[[ApiError, Action], None]  # (error, cancel)
StreamResultsCb = Callable[..., None]  # what each stream function says that it passes
ItemsCb = Callable[[List[Json]], None]
ItemCb = Callable[[Json], None]

# Options of `stream`; tty, stdin, stdout, stderr are taken: an exec's address has them.
StreamArgs = TypedDict("StreamArgs", {
    "isJson": bool,
    "additionalProtocols": Sequence[str],
    "connectCb": Action,
    "reconnectOnFailure": bool,
    "failCb": Union[Action, Callable[[ApiError], None]],
    "tty": bool,
    "stdin": bool,
    "stdout": bool,
    "stderr": bool,
    "cluster": str,
}, total=False)

# `cb` and `errCb`, both needed, and the cluster.
StreamResultsParams = TypedDict("StreamResultsParams", {
    "cb": ItemsCb,
    "errCb": StreamErrCb,
    "cluster": str,
}, total=False)


class Settings:
    """What a Client can be told, by its constructor and as attributes. Times are seconds."""

    base_url: str  # the Headlamp server, or `kubectl proxy`; "" for neither
    cluster: str  # the current cluster: where calls go that name none; "" is the server itself
    backend_token: str  # HEADLAMP_BACKEND_TOKEN: sent to the Headlamp server, to nobody else
    ssl_context: TlsSettings  # None: the system's certificates, host names checked
    default_namespaces: Mapping[str, str]  # by cluster, for `apply`
    on_logout: Optional[Callable[[str], None]]  # (cluster): its token was refused
    on_reload: Optional[Action]  # the server's plugins, or stored clusters, changed
    user_id: str  # X-HEADLAMP-USER-ID beside a stored kubeconfig; made at random when needed
    token_as: str  # how a token goes out: "header", "subprotocol" (WebSockets), "cookie"
    token_protocol: bool  # the older name for token_as="subprotocol"
    host: str  # the Host header for base_url, where a tunnel needs another than its own
    gzip: bool  # ask for compressed answers
    request_timeout: Seconds  # of a call that says no other; None for no limit
    connect_timeout: float  # of a connection, from look-up to TLS; of a WebSocket, to its 101
    keep_alive: float  # an idle connection is not used after this: a NAT may have forgotten it
    max_body: int  # bytes of an answer, also after decoding
    max_message: int  # bytes of a WebSocket message
    ping_interval: Seconds  # silence before a ping; None for no pings
    ping_timeout: float  # silence after it until the connection is given up
    close_timeout: float  # for the closing handshake of a WebSocket
    list_idle: float  # silence within a list once its answer has begun
    list_page: int  # objects in a page where a server can't send a list in one answer
    watch_timeout: Tuple[float, float]  # timeoutSeconds of a watch is between these
    watch_grace: float  # a watch still open this long after that is hung up: it may be dead
    short_watch: float  # one that ended sooner without an event: list again
    resync: float  # list again this often, give or take a fifth, in case an event was lost
    gather: float  # at most one view in this time, the latest; 0: one for each change
    retry_base: float  # the second retry waits half to all of this, later ones twice as long
    retry_cap: float  # and no retry longer than this
    retry_reset: float  # a stream that lasted this long counts as healthy
    max_retry_after: float  # how much of a Retry-After is honoured
    burst: int  # requests that a list and its watch may send at once
    rate: float  # and how many a second after that
    token_window: float  # a service account's token that ends sooner is renewed first
    discovery_ttl: float  # how long `apply` remembers which resources there are
    metrics_period: float  # between polls of `metrics`, and of lists that can't be watched
    drain_timeout: float  # until a node without Headlamp has to be empty
    drain_interval: float  # between looks at it, and tries to evict what a budget keeps
    forward_check: float  # between looks whether the pod of a port forward still runs
    forward_linger: float  # a forwarded connection waits for answers after the local side's end

    def __init__(
        self,
        base_url: str = "http://localhost:4466",
        *,
        cluster: str = "",
        backend_token: str = "",
        ssl_context: TlsSettings = None,
        default_namespaces: Optional[Mapping[str, str]] = None,
        on_logout: Optional[Callable[[str], None]] = None,
        on_reload: Optional[Action] = None,
        user_id: str = "",
        token_as: str = "header",
        token_protocol: bool = False,
        host: str = "",
        gzip: bool = True,
        request_timeout: Seconds = 120.0,
        connect_timeout: float = 10.0,
        keep_alive: float = 30.0,
        max_body: int = 256 * MiB,
        max_message: int = 64 * MiB,
        ping_interval: Seconds = 10.0,
        ping_timeout: float = 20.0,
        close_timeout: float = 1.0,
        list_idle: float = 30.0,
        list_page: int = 500,
        watch_timeout: Tuple[float, float] = (240.0, 300.0),
        watch_grace: float = 10.0,
        short_watch: float = 2.0,
        resync: float = 600.0,
        gather: float = 0.0,
        retry_base: float = 0.8,
        retry_cap: float = 30.0,
        retry_reset: float = 30.0,
        max_retry_after: float = 60.0,
        burst: int = 12,
        rate: float = 0.5,
        token_window: float = 10.0,
        discovery_ttl: float = 60.0,
        metrics_period: float = 10.0,
        drain_timeout: float = 300.0,
        drain_interval: float = 2.0,
        forward_check: float = 5.0,
        forward_linger: float = 10.0,
        **mistyped: NoReturn,
    ) -> None:
        values = locals()
        for name in mistyped:
            raise TypeError(unknown(type(self), name))
        values["default_namespaces"] = dict(default_namespaces or {})

        for name in Settings.__annotations__:
            setattr(self, name, values[name])
        self._begin()

    def _begin(self) -> None:
        """What a subclass sets up from its settings."""

    def __setattr__(self, name: str, value: Any) -> None:
        kind: Any = type(self)
        if not (name.startswith("_") or hasattr(kind, name) or name in known_options(kind)):
            raise AttributeError(unknown(kind, name))
        super().__setattr__(name, value)


@functools.lru_cache(maxsize=16)
def known_options(kind: Any) -> Dict[str, None]:
    """The annotated names of a class and its bases."""
    bases = reversed(kind.__mro__)
    return {name: None for base in bases for name in getattr(base, "__annotations__", ())}


def unknown(kind: Any, name: Any) -> str:
    """How to say that a class annotates no `name`: with the nearest that it does."""
    import difflib  # only here: it is slow to import

    known = known_options(kind)
    nearest = difflib.get_close_matches(str(name), known, cutoff=0.3) or [", ".join(known)]
    return "%s has no %r; did you mean %r?" % (kind.__name__, name, nearest[0])


def expect(value: Any, kind: Any, what: str) -> None:
    """TypeError unless `value` is of `kind`, a class or a tuple of them."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        # typing.Mapping has no __name__ on 3.8
        names = " or ".join(getattr(one, "__name__", "mapping").lower() for one in kinds)
        raise TypeError("%s: %s expected, not %s" % (what, names, type(value).__name__))


def expect_callable(value: Any, what: str) -> None:
    """TypeError unless `value` can be called."""
    expect(value, collections.abc.Callable, what)


def check_options(kind: Any, options: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """`options` as a dict of its own; TypeError for a key that `kind` does not have."""
    if options is None:
        return {}

    expect(options, Mapping, kind.__name__)
    for key in options:
        if key not in known_options(kind):
            raise TypeError(unknown(kind, key))
    return dict(options)


# ------------------------------------------------------------------------------
# 2. Addresses
#
# Names become one path segment each; what a caller wrote as a path stays as it
# is. Everything that could change where a request goes is refused here.
# ------------------------------------------------------------------------------

# Patterns are compiled when first used: compiling them all took a quarter of this file's import.
_NOT_IN_URLS = r"[\s#\x00-\x1f\x7f-\x9f]"
_PRINTABLE = "".join(map(chr, range(33, 127)))
_CONTROL = "[\x00-\x1f\x7f-\x9f]"
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 5.6.2


def dig(value: Json, *path: str, kind: Any = str) -> Any:
    """What stands at a path in JSON, where it is of `kind`; else an empty `kind`."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, kind) else kind()


def dig_list(value: Json, *path: str) -> Any:
    """As `dig`, for a list."""
    return dig(value, *path, kind=list)


def segment(name: str, what: str = "name") -> str:
    """`name` percent-encoded as one path segment; ValueError for what can't be one."""
    expect(name, str, what)
    if name in ("", ".", "..") or "/" in name or re.search(_CONTROL, name):
        why = "empty, '.', '..', a slash or a control character"
        raise ValueError("%s can't be %r: %s" % (what, name, why))
    return urllib.parse.quote(name, safe="")


def check_path(path: str) -> str:
    """`path` as written, non-ASCII percent-encoded; ValueError for what would not arrive so."""
    expect(path, str, "path")
    odd = re.search(_NOT_IN_URLS, path)
    if odd:
        raise ValueError("a path can't hold %r: percent-encode it" % odd[0])

    may_climb = "." in path or "%" in path
    if may_climb and re.search(r"/(?:\.|%2[eE]){1,2}/", "/%s/" % path.partition("?")[0]):
        raise ValueError("a path can't have '.' or '..' as a segment: servers resolve them")
    return path if path.isascii() else urllib.parse.quote(path, safe=_PRINTABLE)


def combine_path(base: str, path: str) -> str:
    """Both with one slash between."""
    return base.rstrip("/") + "/" + path[path.startswith("/"):]


_LABEL_WORD = "[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"  # a label's name, or its value
_LABEL = "(?:[-a-z0-9.]{1,253}/)?%s=(?:%s)?" % (_LABEL_WORD, _LABEL_WORD)


def check_query(params: Params) -> Query:
    """`params` as text: a str each, or a list of str where a key repeats. None is left out.

    A selector may be a mapping: {"app": "web"} is "app=web". TypeError for a known key misspelled
    and for values that a query can't hold; ValueError for those that can't be sent.
    """
    if params is None:
        return {}

    expect(params, Mapping, "query parameters")
    checked: Query = {}
    for key, value in params.items():
        _check_query_key(key)
        if key in ("labelSelector", "fieldSelector") and isinstance(value, Mapping):
            value = selector(key, value)

        if isinstance(value, (list, tuple)):
            checked[key] = [_query_text(key, item) for item in value if item is not None]
        elif value is not None:
            checked[key] = _query_text(key, value)
    return checked


@functools.lru_cache(maxsize=None)  # when first asked for: 3.14 imports a module for it
def _query_keys() -> Dict[str, str]:
    """What the API server reads of a query, by its small letters.

    A name that it does not know it ignores: because of one letter all of a list comes, and a dry
    run is none.
    """
    return {name.lower(): name for name in (
        *QueryParameters.__annotations__,
        "timeoutSeconds",
        "fieldManager",
        "fieldValidation",
        "force",
        "gracePeriodSeconds",
        "propagationPolicy",
    )}


def _check_query_key(key: str) -> None:
    expect(key, str, "query parameter's name")
    plain = re.sub("[-_ ]", "", key).lower()
    known = _query_keys()
    meant = known.get(plain)

    if not meant and len(plain) > 6:  # shorter ones are too near to others' ("limits")
        import difflib  # only here: it is slow to import

        nearest = difflib.get_close_matches(plain, known, cutoff=0.9)
        meant = known[nearest[0]] if nearest else None
    if meant not in (None, key):
        raise TypeError("query parameters have no %r; did you mean %r?" % (key, meant))


def _query_text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value

    expect(value, (str, bool, int, float), "query parameter %r" % key)
    return json.dumps(value, allow_nan=False)


def selector(kind: str, wanted: Mapping[str, str]) -> str:
    """The labelSelector or fieldSelector (`kind`) that asks for all of `wanted`."""
    pairs = []
    for name, value in wanted.items():
        expect(name, str, "name in the " + kind)
        expect(value, str, "%s %r" % (kind, name))
        if kind == "fieldSelector":
            allowed = re.fullmatch(r"[^\\,=!\s]+", name)
            value = escape_field(value)
        else:
            allowed = re.fullmatch(_LABEL, "%s=%s" % (name, value))

        if not allowed:
            raise ValueError("a %s can't ask for %r with that value" % (kind, name))
        pairs.append("%s=%s" % (name, value))
    return ",".join(pairs)


def escape_field(value: str) -> str:
    """A value in a fieldSelector, in which comma, equals sign and backslash mean something."""
    return re.sub(r"([\\,=])", r"\\\1", value)


def with_query(path: str, params: Params) -> str:
    """`path` with `params` in its query, where they replace those of the same name."""
    query = {key: value for key, value in check_query(params).items() if value != []}
    if not query:
        return path

    path, _, before = path.partition("?")
    kept = [part for part in before.split("&")
            if part and urllib.parse.unquote_plus(part.split("=")[0]) not in query]
    return path + "?" + "&".join(kept + [urllib.parse.urlencode(query, doseq=True)])


def split_query(path: str) -> Dict[str, str]:
    """The query of `path` as parameters."""
    return dict(urllib.parse.parse_qsl(path.partition("?")[2], keep_blank_values=True))


def api_root(group: str, version: str) -> str:
    """/api/v1 or /apis/<group>/<version>."""
    if not group:
        return "/api/" + segment(version, "version")
    return "/apis/%s/%s" % (segment(group, "group"), segment(version, "version"))


def split_api_version(api_version: str) -> Tuple[str, str]:
    """("apps", "v1") of "apps/v1"; ("", "v1") of "v1"."""
    parts = re.fullmatch("(?:([^/]+)/)?([^/]+)", api_version)
    if not parts:
        raise ValueError("apiVersion can't be %r" % api_version)
    return parts[1] or "", parts[2]


class Address:
    """Where a URL leads, whose scheme is one of `schemes` (plain, secure); ValueError for others.

    name       the host without a zone (RFC 6874)
    place      host:port, for people and proxies
    authority  what Host says
    target     path and query
    """

    def __init__(self, url: str, schemes: Tuple[str, str]) -> None:
        expect(url, str, "address")
        if re.search(_NOT_IN_URLS, url) or not url.isascii():
            raise ValueError("an address can't hold '#', spaces, control or non-ASCII characters")

        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError("an address starts with %s:// or %s:// and a host" % schemes)
        if "@" in parts.netloc:
            raise ValueError("an address can't hold a user name or a password")

        self.secure = parts.scheme == schemes[1]
        self.host = parts.hostname.replace("%25", "%")  # before a zone, as RFC 6874 writes it
        self.name = self.host.partition("%")[0]
        usual = 443 if self.secure else 80
        self.port = parts.port or usual
        self.server = self.secure, self.host, self.port
        self.place = place = join_port(self.name, self.port)
        self.authority = place.rpartition(":")[0] if self.port == usual else place
        self.target = (parts.path or "/") + ("?" + parts.query if parts.query else "")


def join_port(host: str, port: Any) -> str:
    """host:port, with brackets around an IPv6 address, whose zone only we know."""
    host = host.partition("%")[0]
    return "%s:%s" % ("[%s]" % host if ":" in host else host, port)


@functools.lru_cache(maxsize=64)
def base_address(url: str) -> Address:
    """The Address of one of the few servers that clusters have, which every request needs.

    ValueError for one with a query, too: paths are put behind it.
    """
    address = Address(url, ("http", "https"))
    if "?" in check_path(url):
        raise ValueError("a server's address can't have a query")
    return address


@functools.lru_cache(maxsize=64)
def cluster_address(base: str, cluster: str) -> str:
    """Where a Headlamp server has the API server of a cluster."""
    return combine_path(base, "/clusters/" + segment(cluster, "cluster"))


def check_headers(headers: Optional[HeaderLines]) -> Lines:
    """A copy; ValueError, which repeats no value, for what could end a header line."""
    if headers is None:
        return {}

    expect(headers, Mapping, "headers")
    for name, value in headers.items():
        expect(name, str, "header name")
        values = value if isinstance(value, (list, tuple)) else (value,)
        for line in values:
            expect(line, str, "header %r" % name)
            if not re.fullmatch(_TOKEN, name) or re.search("[^\t -~\xa0-\xff]", line):
                raise ValueError("header %r has a character that is not allowed" % name)
    return dict(headers)


def encode_base64(data: bytes) -> str:
    """`data` in base64."""
    return base64.b64encode(data).decode()


def check_protocols(protocols: Sequence[str]) -> None:
    """ValueError unless these are WebSocket subprotocols; one str is not several.

    RFC 6455 4.1 wants tokens; Kubernetes has one with a slash.
    """
    if isinstance(protocols, str) or not all(
            isinstance(name, str) and re.fullmatch(_TOKEN, name.replace("/", "+"))
            for name in protocols):
        raise ValueError("subprotocols are a sequence of RFC 9110 tokens")


# ------------------------------------------------------------------------------
# 3. YAML
#
# The YAML of kubeconfigs and manifests: text in, values out.
# Right or refused: a value is the one that kubectl reads, or there is none.
# ------------------------------------------------------------------------------

_YAML_DEPTH = 100  # nodes in one another; the deepest of 8,900 public files has 41
_YAML_ALIASED = 1_000_000  # characters that the aliases of a text may stand for

# go-yaml's, without what it alone takes for a line break, and byte order marks
_YAML_ALLOWED = (
    "[\t\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*"
)

# Patterns exclude a NUL, which ends a document. Pairs are for block style and flow style.
_YAML_QUOTED = r"""'[^'\0]*(?:''[^'\0]*)*'|"[^"\\\0]*(?:\\[^\0][^"\\\0]*)*\""""
_YAML_QUOTED_KEY = _YAML_QUOTED.replace(r"\0", r"\0\n")
_YAML_MORE = (
    r"(?:[^\n\0:#]*[^ \t\n\0:#]|[ \t]*:(?=[^ \t\n])|(?<=[^ \t\n])#)*",
    r"(?:[^\n\0:#,?\[\]{}]*[^ \t\n\0:#,?\[\]{}]|[ \t]*:(?=[^ \t\n,?\[\]{}])|(?<=[^ \t\n])#)*",
)
_YAML_PLAIN = (
    r"""(?:[^ \t\n\0\-?:,\[\]{}#&*!|>'"%@`]|[-?:](?=[^ \t\n]))""" + _YAML_MORE[0],
    r"""(?:[^ \t\n\0\-?:,\[\]{}#&*!|>'"%@`]|-(?=[^ \t\n,?:\[\]{}#]))""" + _YAML_MORE[1],
)
_YAML_KEY = (  # a lookahead and a reference to its group: whole or not at all, no second try
    rf"(?=({_YAML_QUOTED_KEY}|{_YAML_PLAIN[0]}))\1[ \t]*:(?=[ \t\n])",
    rf"(?=({_YAML_QUOTED_KEY}))\1[ \t]*:|(?=({_YAML_PLAIN[1]}))\2[ \t]*:(?=[ \t\n])",
)
_YAML_FOLDED = r"(?m)(^[^ \t\n].*)(\n+)(?=[^ \t\n])"
_YAML_GAP = r"[ \t\n]*(?:(?<=[ \t\n])#.*\n[ \t\n]*)*"
_YAML_LINE_END = r"[ \t]*(?:(?<=[ \t])#.*)?\n[ \n]*(?:#.*\n[ \n]*)*"
_YAML_DIRECTIVE = r"(?:(?<=\n)%YAML 1\.1[ \t]*\n[ \n]*(?:#.*\n[ \n]*)*(?=\0-))?"
_YAML_DOCUMENT_END = r"\0\.\." + _YAML_LINE_END + _YAML_DIRECTIVE
_YAML_NAME = r"[&*][0-9A-Za-z_-]+(?=[ \t\n,\]}])(?!(?:[ \t]*(?:#.*)?\n)*[ \t]*[&*])"

# The inside of quotes: escapes, and blanks that line breaks fold
_YAML_ESCAPE = {
    "'": r"''|[ \t]+(?:\n[ \t\n]*)?|\n[ \t\n]*",
    '"': r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\n[ \t\n]*|.)"
    r"|[ \t]+(?:\n[ \t\n]*)?|\n[ \t\n]*",
}
_YAML_ESCAPED = dict(
    zip("0abt\tnvfre \"'/\\N_LP", "\0\a\b\t\t\n\v\f\r\x1b \"'/\\\x85\xa0\u2028\u2029")
)

# Plain scalars as go-yaml 2 resolves them: YAML 1.1 without base 60; a date stays a string
_YAML_WORDS = {
    **dict.fromkeys("~ null Null NULL".split()),
    **dict.fromkeys("true True TRUE yes Yes YES on On ON y Y".split(), True),
    **dict.fromkeys("false False FALSE no No NO off Off OFF n N".split(), False),
}
_YAML_INTEGER = (
    "[-+]?(?:0[xX][0-9a-fA-F]{1,15}|0[bB][01]{1,62}|0[oO]?[0-7]{1,20}|[1-9][0-9]{0,17}|0)"
    "|[1-9][0-9]{18}"
)
_YAML_ODD = (  # near or over 64 bits, not in JSON, or read by Go's parsers and nobody else's
    r"[-+]?(?:0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|[1-9][0-9]{18,19}|\.(?:inf|Inf|INF|nan|NaN|NAN))"
    r"|[-+]?0[bB][-+01]+|\.(?=.*_)[0-9_]+(?:[eE][-+]?[0-9_]+)?"
    r"|[-+]?[0-9.]+[eE][-+]?[0-9]{3,}|[-+]?[0-9]{200}[0-9.eE+-]*"
)
_YAML_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"


def read_yaml(text: StrOrBytes) -> List[Any]:
    """The documents of a YAML or JSON text, as kubectl reads them; None for an empty one.

    ValueError, with line and column, for what is no YAML and for what has no certain meaning:
    a key given twice, merge keys, tags, numbers and keys that JSON cannot have.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")  # a wrong byte is no allowed character

    text = "\n" + text.lstrip("\ufeff").replace("\r\n", "\n")
    reader = _YamlReader(text + "\n" * (text[-1] != "\n"))  # kubectl ends each line
    try:
        return reader.documents()
    except RecursionError:
        reader.refuse("nested too deeply")


class _YamlReader:
    """Reads from `at` on. A node leaves it at the next token, in block style on another line.

    `parent` is the column of the block collection round a node, -1 outside of any.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

        self._depth = 0
        self._flow = 0  # brackets that are open
        self._anchors: Dict[str, Tuple[Any, int]] = {}  # value, characters that it stands for
        self._aliased = 0

    @property
    def column(self) -> int:
        return self.at - self.text.rfind("\n", 0, self.at) - 1

    def refuse(self, reason: str) -> NoReturn:
        line = self.text.count("\n", 0, self.at)
        raise ValueError(
            "line %d, column %d: %s; `kubectl patch --local --type merge -p \"{}\" -o json -f FILE`"
            " prints the file as JSON" % (line, self.column + 1, reason)
        ) from None

    def documents(self) -> List[Any]:
        self._take(_YAML_ALLOWED)
        if self.at < len(self.text):
            self.refuse("a character that YAML does not allow")

        # kubectl too cuts the text at markers before it looks for quotes and brackets
        self.text = re.sub(r"\n(?:-(?=--)|\.(?=\.\.[ \t\n]))", "\n\0", self.text) + "\0"
        self.at = 0
        self._end()
        self._take(_YAML_DIRECTIVE)
        documents = []
        marker = ""
        while True:
            first = self.text[self.at]
            if first != "\0":
                documents.append(self._node(-1))
            elif marker:
                documents.append(None)
            while self.text[self.at] == first == "{":  # JSON as kubectl prints it
                documents.append(self._node(-1))

            self._take(_YAML_DOCUMENT_END)
            marker = self._take("\0--")
            if not marker:
                break

            self._end()
            self._anchors = {}

        if self.text[self.at:] != "\0":
            self.refuse("neither a key nor a value may begin here")

        return documents

    def _take(self, pattern: str) -> str:
        """The text that matches here, which is passed, or an empty one."""
        match = re.compile(pattern).match(self.text, self.at)
        text = match[0] if match else ""
        self.at += len(text)
        return text

    def _end(self) -> None:
        """Pass what may stand behind a node."""
        if not self._take(_YAML_GAP if self._flow else _YAML_LINE_END) and not self._flow:
            self.refuse("neither a comment nor the end of the line")

    def _node(self, parent: int, beside: bool = False) -> Any:
        """A node; `beside` a key or an anchor it is no block collection."""
        self._depth += 1
        if self._depth > _YAML_DEPTH:
            self.refuse("nested too deeply")

        sign = self.text[self.at]
        if sign in "[{":
            value = self._collection("]" if sign == "[" else "}")
        elif sign in "&*":
            value = self._anchored(parent, beside)
        elif sign in "|>" and not self._flow:
            value = self._block_scalar(parent)
        elif not beside and not self._flow:
            value = self._sequence() or self._mapping() or self._scalar(parent)
        else:
            value = self._scalar(parent)

        self._depth -= 1
        return value

    def _value(self, parent: int, beside: bool = True, indentless: bool = False) -> Any:
        """What a dash, a key or an anchor has: beside it, below it or nothing."""
        if self._flow or not self._take(_YAML_LINE_END):
            self._take(_YAML_GAP)
            return self._node(parent, beside)

        if indentless and self.column == parent:
            return self._sequence() or None

        return self._node(parent) if self.column > parent else None

    def _sequence(self) -> List[Any]:
        column = self.column
        items = []
        while self.column == column and self._take(r"-(?: +(?![ \t])|(?=\n))"):
            items.append(self._value(column, False))

        return items

    def _mapping(self) -> JsonObject:
        column = self.column
        mapping: JsonObject = {}
        while self.column == column:
            key = self._key(mapping)
            if key is None:
                break

            mapping[key] = self._value(column, True, True)

        return mapping

    def _key(self, mapping: JsonObject) -> Optional[str]:
        match = re.compile(_YAML_KEY[self._flow > 0]).match(self.text, self.at)
        if not match:
            return None

        text = match[0][:-1].rstrip(" \t")
        key = self._unquote(text) if text[0] in "'\"" else self._resolve(text)
        if isinstance(key, bool) or isinstance(key, int) and str(key) == text:
            key = str(key).lower()
        if not isinstance(key, str) or text == "<<":
            self.refuse("a merge key, or one that is no string in JSON")
        if key in mapping:
            self.refuse("a key that the mapping has already")

        self.at = match.end()
        return key

    def _collection(self, closing: str) -> Any:
        """A collection in flow style."""
        entries: Dict[Any, Any] = {}
        self._flow += 1
        self._take("." + _YAML_GAP)
        while self.text[self.at] != closing:
            key = self._key(entries) if closing == "}" else len(entries)
            if key is None:
                self.refuse("a key was expected here")

            entries[key] = self._value(-1)
            if not self._take("," + _YAML_GAP) and self.text[self.at] != closing:
                self.refuse('neither "," nor "%s"' % closing)

        self._flow -= 1
        self.at += 1
        self._end()
        return entries if closing == "}" else list(entries.values())

    def _anchored(self, parent: int, beside: bool) -> Any:
        """An alias, or a node with an anchor."""
        name = self._take(_YAML_NAME)
        if name[:1] == "&":
            self._anchors.pop(name, None)
            start = self.at + self._aliased
            value = self._value(parent, True, beside)
            self._anchors.setdefault(name, (value, self.at + self._aliased - start))
            return value

        name = "&" + name[1:]
        if name not in self._anchors:
            self.refuse("an alias without an anchor before it, or an anchor of an anchor")

        value, size = self._anchors[name]
        self._aliased += size
        if self._aliased > _YAML_ALIASED:
            self.refuse("aliases that stand for too much")

        self._end()
        return value

    def _block_scalar(self, parent: int) -> str:
        header = self._take(r"[|>](?:[1-9]?[-+]?|[-+][1-9])(?=[ \t]*(?:(?<=[ \t])#.*)?\n)")
        if not header:
            self.refuse("not the header of a block scalar")

        self._take(".*")
        start = self.at
        gap = self._take(r"[ \n]*")
        digit = header.strip("|>+-")
        indent = max(parent, 0) + int(digit) if digit else max(parent + 1, 1, self.column)
        if " " * (indent + 1) + "\n" in gap or self.text[self.at] == "\t":
            self.refuse("indented unlike the lines before it")

        self.at = start
        text = self._take(r"(?s).*?(?=\n {0,%d}[^ \n])" % (indent - 1))
        text = (re.sub("\n {1,%d}" % indent, "\n", text) + "\n")[1:]
        self._end()

        if header[0] == ">":
            text = re.sub(_YAML_FOLDED, lambda fold: fold[1] + _fold_yaml(fold[2]), text)
        if "+" in header:
            return text

        content = text.rstrip("\n")
        return content + "\n" if content and "-" not in header else content

    def _scalar(self, parent: int) -> Any:
        quoted = self._take(_YAML_QUOTED)
        if quoted:
            value = self._unquote(quoted)
            self._end()
            return value

        start = self.at
        text = more = self._take(_YAML_PLAIN[self._flow > 0])
        if not text:
            self.refuse("no value that this reader knows begins so")

        while more:
            end = self.at
            self._end()
            gap = self.text[end:self.at]
            if "\n" not in gap or "#" in gap or self.column <= parent:
                break

            more = self._take(r"(?!\t)" + _YAML_MORE[self._flow > 0])
            text += _fold_yaml(gap) * bool(more) + more

        end, self.at = self.at, start
        value = self._resolve(text)
        self.at = end
        return value

    def _resolve(self, text: str) -> Any:
        """The value of a plain scalar."""
        if text in _YAML_WORDS:
            return _YAML_WORDS[text]

        if text[0] not in "+-.0123456789":
            return text

        digits = text if text[0] == "." else text.replace("_", "")
        if re.fullmatch(_YAML_INTEGER, digits):
            return int(re.sub("^([-+]?0)(?=[0-9])", r"\1o", digits), 0)

        if re.fullmatch(_YAML_ODD, digits):
            self.refuse("a number that JSON or its 64 bits cannot have")

        if not re.fullmatch(_YAML_FLOAT, digits):
            return text

        number = float(digits)
        return int(number) if number.is_integer() else number

    def _unquote(self, scalar: str) -> str:
        try:
            text = re.sub(_YAML_ESCAPE[scalar[0]], _unescape_yaml, scalar[1:-1])
            return text.encode("utf-16", "surrogatepass").decode("utf-16")  # pairs, as in JSON
        except (KeyError, UnicodeDecodeError):
            self.refuse("an escape that YAML does not have")


def _unescape_yaml(match: Match[str]) -> str:
    text = match[0]
    if "\n" in text:
        return _fold_yaml(text).strip(" " * (text[0] == "\\"))

    if text[0] in " \t":
        return text

    return _YAML_ESCAPED[text[1]] if len(text) == 2 else text.encode().decode("unicode_escape")


def _fold_yaml(gap: str) -> str:
    return "\n" * (gap.count("\n") - 1) or " "


# ------------------------------------------------------------------------------
# 4. Frames
#
# RFC 6455 sections 4, 5 and 7, and the heads of HTTP answers. Bytes in, values
# out: no socket, no thread, no clock. Too few bytes give None; bytes that can
# never become legal raise.
# ------------------------------------------------------------------------------

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10  # RFC 6455 5.2
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_CODE, ABNORMAL = 1000, 1001, 1002, 1005, 1006  # 7.4.1
BAD_DATA, TOO_BIG, RESTART = 1007, 1009, 1012

# Of frames that are legal: an opcode, and 0x80 for the last of a message
_FIRST_BYTES = b"\x00\x80\x01\x81\x02\x82\x88\x89\x8a"
MAX_CONTROL = 125  # bytes in a control frame (5.5)
MAX_HEAD = 64 * KiB  # bytes of status line and headers: http.client's limit for one line
SMALL_BUFFER, LARGE_BUFFER = KiB, 256 * KiB  # an idle watch keeps the small one
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # 1.3


@functools.lru_cache(maxsize=256)
def _mask_table(byte: int) -> bytes:
    return bytes(value ^ byte for value in range(256))


def apply_mask(data: bytes, key: bytes, head: bytes = b"") -> Bytes:
    """`head`, then `data` XOR the four bytes of `key` (5.3)."""
    size, start = len(data), len(head)
    if size < 450:  # measured: one big integer is faster below 400 to 520 bytes, translate above
        mask = (key * size)[:size]
        masked = int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")
        return head + masked.to_bytes(size, "little")

    out = bytearray(head)
    out += data  # masked where it lies: to put 1 MB together later takes as long as masking it
    for offset in range(4):
        out[start + offset::4] = out[start + offset::4].translate(_mask_table(key[offset]))
    return out


def encode_frame(opcode: int, payload: bytes, key: bytes) -> Bytes:
    """A client's message in one frame, masked with `key` (5.2): so that tests are exact."""
    first, size = 0x80 | opcode, len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return apply_mask(payload, key, head + key)


def _legal_close_code(code: int) -> bool:
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999  # 7.4


def encode_close(code: int, reason: str = "") -> bytes:
    """The payload of a close frame: at most 125 bytes, the reason cut at a character."""
    if not _legal_close_code(code):
        raise ValueError("close code %r can't be sent" % (code,))
    text = reason.encode()[:MAX_CONTROL - 2].decode("utf-8", "ignore")
    return code.to_bytes(2, "big") + text.encode()


def parse_close(payload: bytes) -> Tuple[int, str]:
    """(code, reason) of a close frame; ProtocolError for one that is not legal."""
    if not payload:
        return NO_CODE, ""

    code = int.from_bytes(payload[:2], "big")
    if not _legal_close_code(code):
        raise ProtocolError(PROTOCOL_ERROR, "close frame with code %d" % code)
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError(BAD_DATA, "close reason is not UTF-8") from None


class MessageReader:
    """Bytes in, messages and control frames out, in order.

    The bytes lie in one buffer, [_start:_end], which the caller receives into. Text is
    decoded as it comes, so what is not UTF-8 is refused at once and nothing is read twice.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size  # bytes of one message
        self._buffer = memoryview(bytearray(SMALL_BUFFER))
        self._start = 0
        self._end = 0
        self._opcode = 0  # of the message that is being assembled, 0 when there is none
        self._fin = False  # the frame at hand is its last
        self._left = -1  # bytes of the frame at hand still to come, -1 between frames
        self._size = 0  # bytes of the message so far, announced ones included
        self._tail = b""  # of a character that was cut
        self._text = io.StringIO()
        self._bytes = bytearray()
        self.texts: Deque[str] = collections.deque()  # that lay whole behind the last message

    def space(self) -> memoryview:
        """Where to receive the next bytes."""
        kept = self._end - self._start
        if not kept:
            self._start = self._end = 0
        elif self._end == len(self._buffer):  # `next` leaves less than one control frame
            self._buffer[:kept] = bytes(self._buffer[self._start:self._end])
            self._start, self._end = 0, kept
        return self._buffer[self._end:]

    def rest(self) -> None:
        """Keep no large buffer while nothing comes."""
        if self._start == self._end:
            self._buffer = memoryview(bytearray(SMALL_BUFFER))  # `space` begins at its start

    def received(self, count: int) -> None:
        """`count` bytes now lie in `space`."""
        self._end += count
        if self._end == len(self._buffer) < LARGE_BUFFER:
            self._buffer, old = memoryview(bytearray(4 * self._end)), self._buffer
            self._buffer[:self._end] = old

    def feed(self, data: bytes) -> None:
        """Bytes that were received elsewhere: those that came along with the 101."""
        while data:
            space = self.space()[:len(data)]
            space[:], data = data[:len(space)], data[len(space):]
            self.received(len(space))

    def next(self) -> Optional[Tuple[int, StrOrBytes]]:
        """(TEXT, str), (BINARY, bytes) or (CLOSE | PING | PONG, bytes); None: bytes are missing."""
        if not self._opcode:
            self._take_texts()
        if self.texts:
            return TEXT, self.texts.popleft()

        size = -1
        while True:
            if self._left >= 0:
                if not self._take():
                    return None
                if self._fin:
                    return self._whole()

            buffer, start, end = self._buffer, self._start, self._end
            if end - start < 2:
                return None

            first, last, size, body = buffer[start], size, buffer[start + 1], start + 2
            opcode = first & 0x7F
            if first not in _FIRST_BYTES or size > 127:  # 5.2, 5.5; 5.1: a server does not mask
                text = "frame that begins with 0x%02x 0x%02x" % (first, size)
                raise ProtocolError(PROTOCOL_ERROR, text)
            if size > MAX_CONTROL:
                if opcode >= CLOSE:
                    raise ProtocolError(PROTOCOL_ERROR, "control frame of over 125 bytes")  # 5.5
                width, least = (2, 126) if size == 126 else (8, 1 << 16)
                body += width
                if body > end:
                    return None
                size = buffer[start + 2] << 8 | buffer[start + 3]
                if width == 8:
                    size = int.from_bytes(buffer[start + 2:body], "big")
                if size < least or size >> 63:  # 5.2: minimal
                    raise ProtocolError(PROTOCOL_ERROR, "frame with a length of %d" % size)

            room = self._max_size - self._size
            if not first and size == last and 8 * size < end - start < room:
                body, size = self._unite(body, size)

            if opcode < CLOSE:
                if bool(opcode) == bool(self._opcode):  # 5.4
                    raise ProtocolError(PROTOCOL_ERROR, "a new message in a fragmented one"
                                        if opcode else "continuation of nothing")
                if size > room:
                    raise ProtocolError(TOO_BIG, "message of more than %d bytes" % self._max_size)

            if (opcode >= CLOSE or first == 0x82) and body + size <= end:  # whole and alone
                self._start = body + size
                return opcode, bytes(buffer[body:self._start])
            if opcode >= CLOSE:
                return None

            self._start, self._left, self._fin = body, size, first >= 0x80
            self._size += size
            self._opcode = opcode or self._opcode

    def _take_texts(self) -> None:
        """Take the texts that lie here whole; what is odd is left to `next`.

        One by one small ones took 1.4 times as long as the plainest way to receive them, so 1.0.
        """
        buffer, start, end = self._buffer, self._start, self._end
        while end - start > 3 and buffer[start] == 0x81:
            size, body, least = buffer[start + 1], start + 2, 0
            if size == 126:
                size, body, least = buffer[body] << 8 | buffer[body + 1], body + 2, 126
            elif size == 127:
                body, least = start + 10, 1 << 16
                size = int.from_bytes(buffer[start + 2:body], "big")
            elif size > 127:
                return
            if not least <= size <= self._max_size or body + size > end:
                return
            try:  # not str(), which takes surrogates on PyPy
                self.texts.append(codecs.utf_8_decode(buffer[body:body + size], "strict", True)[0])
            except UnicodeDecodeError:
                return
            self._start = start = body + size

    def _unite(self, body: int, size: int) -> Tuple[int, int]:
        """Make one payload of the fragments here that are as long as the first.

        One by one small ones took 15 to 40 times as long as a parser in C takes, so as long.
        """
        buffer, start = self._buffer, self._start
        step = body + size - start
        end = start + min(500, (self._end - start) // step) * step  # to look in vain has a bound
        for at in reversed(range(start, body)):
            column = bytes(buffer[at:end:step])
            end -= len(column.lstrip(column[:1])) * step

        payload = bytearray(buffer[start:end])
        for width in range(step, size, -1):
            del payload[::width]
        size = len(payload)
        buffer[end - size:end] = payload
        return end - size, size

    def _take(self) -> bool:
        """Move what is here of the frame at hand to its message; True when it is complete."""
        start, end = self._start, self._start + self._left
        done = end <= self._end
        if not done:
            end = self._end
        piece = self._buffer[start:end]
        self._start = end
        self._left -= end - start

        if self._opcode == BINARY:
            self._bytes += piece
        else:
            data = self._tail + piece if self._tail else piece
            try:
                text, used = codecs.utf_8_decode(data, "strict", done and self._fin)
            except UnicodeDecodeError:
                raise ProtocolError(BAD_DATA, "text is not UTF-8") from None
            self._text.write(text)
            self._tail = bytes(data[used:]) if used < len(data) else b""

        if done:
            self._left = -1
        return done

    def _whole(self) -> Tuple[int, StrOrBytes]:
        opcode, self._opcode, self._size = self._opcode, 0, 0
        if opcode == TEXT:
            text, self._text = self._text.getvalue(), io.StringIO()
            return opcode, text
        data, self._bytes = bytes(self._bytes), bytearray()
        return opcode, data


class BadAnswer(OSError):
    """What came is not an answer as HTTP/1.1 has them."""


class TooLarge(BadAnswer):
    """What came is more than was asked for."""


class Headers(Mapping[str, str]):
    """Headers of an answer: found in any case, listed in lower case, several joined by ", "."""

    def __init__(self, lines: Iterable[Tuple[str, str]]) -> None:
        self._values: Dict[str, List[str]] = {}
        for name, value in lines:
            self._values.setdefault(name.lower(), []).append(value.strip(" \t"))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __contains__(self, name: Any) -> bool:  # the base's raises and catches a KeyError
        return name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get_all(self, name: str) -> Sequence[str]:
        """The values of one name, as they came."""
        return self._values.get(name.lower(), ())

    def tokens(self, name: str) -> List[str]:
        """The comma-separated elements of one header, in lower case."""
        return [part.strip(" \t").lower() for line in self.get_all(name)
                for part in line.split(",")]


_TEXT = r"[^\x00-\x08\x0a-\x1f]*"  # of a reason or a value: no control character but the tab
_HEAD = r"HTTP/1\.([01]) ([1-9]\d\d)(?: (%s))?\r\n((?:%s:%s\r\n)*)\r\n" % (_TEXT, _TOKEN, _TEXT)
_LINE = r"([^:]+):([^\r]*)\r\n"
_FOLD = r"\r\n[ \t]+"
_HTTP = b"HTTP/"
_ALERT = b"\x15\x03"  # how TLS begins to say that it was not spoken to in TLS (RFC 8446 5.1, 6)


class Head:
    """An answer's status line (`minor`: HTTP/1.0 or 1.1) and headers, of all up to the empty line.

    BadAnswer for what HTTP/1.1 does not allow.
    """

    def __init__(self, data: bytes) -> None:
        text = data.decode("latin-1")
        head = re.fullmatch(_HEAD, text)
        if not head:  # RFC 9112 5.2: a folded header's line end is a space
            first, end, headers = text.partition("\r\n")
            head = re.fullmatch(_HEAD, first + end + re.sub(_FOLD, " ", headers))
        if not head:
            raise BadAnswer("the answer is not HTTP/1.1")

        self.minor = int(head[1])
        self.status = int(head[2])
        self.reason = head[3] or ""
        self.headers = Headers(re.findall(_LINE, head[4]))


def content_length(head: Head) -> Optional[int]:
    """What Content-Length says, None without one; BadAnswer for several, or no number."""
    values = head.headers.tokens("Content-Length")
    if not values:
        return None
    if len(set(values)) > 1 or not re.fullmatch("[0-9]{1,99}", values[0]):
        raise BadAnswer("an answer with a Content-Length that is not one")
    return int(values[0])


def encode_head(first: str, headers: HeaderLines) -> bytes:
    """The head of a request: its first line and its headers, some with several lines."""
    rows = [first]
    for name, value in headers.items():
        if isinstance(value, str):
            rows.append("%s: %s" % (name, value))
        else:
            rows += ["%s: %s" % (name, line) for line in value]
    return "\r\n".join(rows + ["", ""]).encode("latin-1")


def handshake_request(
    address: Address, key: str, headers: HeaderLines, protocols: Sequence[str],
) -> bytes:
    """The upgrade request (4.1). Lower-case "websocket": Headlamp compares it exactly."""
    lines: Lines = {
        "Host": address.authority,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
    }
    if protocols:  # on one line, ", " between: Headlamp strips its own only then
        lines["Sec-WebSocket-Protocol"] = ", ".join(protocols)
    return encode_head("GET %s HTTP/1.1" % address.target, {**lines, **headers})


def check_handshake(head: Head, key: str, protocols: Sequence[str]) -> str:
    """The subprotocol that a 101 chose, or ""; HandshakeError for what 4.1 refuses."""
    # FIPS mode refuses it otherwise; new() takes that on 3.8 too
    digest = hashlib.new("sha1", key.encode() + _GUID, usedforsecurity=False).digest()
    accept = encode_base64(digest)
    headers = head.headers
    chosen = headers.get_all("Sec-WebSocket-Protocol")
    for header, is_right in (
        ("HTTP version", head.minor == 1),
        ("Upgrade", headers.tokens("Upgrade") == ["websocket"]),
        ("Connection", "upgrade" in headers.tokens("Connection")),
        ("Sec-WebSocket-Accept", headers.get_all("Sec-WebSocket-Accept") == [accept]),
        ("Sec-WebSocket-Extensions", not any(headers.tokens("Sec-WebSocket-Extensions"))),
        ("Sec-WebSocket-Protocol", not chosen or len(chosen) == 1 and chosen[0] in protocols),
    ):
        if not is_right:
            text = "the answer has a wrong %s" % header
            raise HandshakeError(head.status, text, phrase="Handshake failed")
    return chosen[0] if chosen else ""


# ------------------------------------------------------------------------------
# 5. Connections
#
# TCP, TLS and CONNECT within one Scope. Any thread may end a wait by closing
# what is waited on; no lock is held while waiting. Locks are reentrant: a signal
# handler that cancels may interrupt the thread that holds one.
#
# Without a lock the module relies on single operations alone, which are atomic
# with and without the GIL: to store an attribute; get, set, pop, add, discard,
# append and setdefault of a dict, set, list or deque; to copy one by list().
# ------------------------------------------------------------------------------

FOREVER = 2e6  # seconds, 23 days: the system's calls take no more
RACE_DELAY = 0.25  # seconds before the next address is tried beside the last (RFC 8305 5)
CHUNK = 64 * KiB  # bytes that are received at once
SEAL = 256 * KiB  # bytes that are sealed at once: sealing all of a big message would double it
FORK_WAIT = 1.0  # seconds that a fork waits for our threads to leave OpenSSL, which takes 1 ms
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)  # or a program that wants SIGPIPE would die of it
_SLICE = FOREVER if sys.platform == "linux" else 0.5  # elsewhere shutdown() may not wake a wait
# (cpython#91913, #154224)


class Lock(type(threading.RLock())):  # type: ignore[misc]
    """A reentrant lock that is not left held when a signal's handler raises, at any moment.

    From 3.10 on handlers run only after calls, when functions begin and when loops go round: not
    between the end of a `with`, or the begin of a `finally`, and the release that follows. (On 3.8
    and 3.9 one bytecode is left.) From 3.14 on they may run between __enter__ and the block of a
    `with`, which then is not left (cpython#148874): not here.
    """

    if sys.version_info >= (3, 14):
        def __enter__(self) -> bool:
            held: List[bool] = []
            try:
                held.extend(filter(self.acquire, (True,)))  # as in `take`
                return True
            except BaseException:
                if held:
                    self.release()
                raise


Locks = List[Any]  # that are held, for whoever releases them


def take(lock: Any, held: Locks, seconds: float = FOREVER) -> bool:
    """Wait for a lock; False when the time is over. Once it is ours it is in `held`.

    Both by one call of C code, so that no signal's handler comes between; whoever calls is in a
    `try` by then, whose `finally` releases what is in `held`.
    """
    seconds = max(0.0, min(seconds, FOREVER))
    held.extend(itertools.compress((lock,), map(lock.acquire, (True,), (seconds,))))
    return bool(held)


# What begins anew in a child after os.fork(), each by its method `forked`:
#
# settings, endpoints,  copied, and so is what was learned: which resources there are, which
# credentials           address answered, what a file held, what functools.lru_cache keeps
# locks                 new, free: no thread that held one is there any more
# connections           none: our copies of the parent's descriptors, those of listeners and of
#                       forwarded connections too, are closed, without shutdown()
# WebSockets            ended, with code 1006
# streams, drains,      none: they are the parent's, there is no thread, and cancel() of one
# port forwards         returns at once; that which forks in a callback ends after it
# calls in threads      gone with their threads, and what they held
# the collector         as it was before we let it rest
# TLS settings          the same objects. OpenSSL has locks of its own, which a child would find
#                       held for ever: the fork waits until no thread of ours is inside it
# logging, random       look after themselves
_renewed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_forking: Dict[int, Locks] = {}  # by thread that forks: the locks that it waited for
inside_openssl = Lock()  # held by who is there without the lock of a Wire


def at_fork(thing: Any) -> None:
    """From now on a child calls thing.forked()."""
    _renewed[id(thing)] = thing


def _alive() -> Iterator[Any]:
    return filter(None, (reference() for reference in _renewed.valuerefs()))


def _before_fork() -> None:
    """Wait, though not for ever, until OpenSSL is left."""
    # getaddrinfo's first call imports this: a child of that moment would wait for its lock for ever
    codecs.lookup("idna")
    held = _forking.setdefault(threading.get_ident(), [])
    end = time.monotonic() + FORK_WAIT
    take(inside_openssl, held, FORK_WAIT)
    for thing in _alive():
        if isinstance(thing, Wire):
            thing.leave_openssl(held, end - time.monotonic())


def _after_fork() -> None:
    for lock in _forking.pop(threading.get_ident(), ()):
        lock.release()


def _begin_anew() -> None:
    global inside_openssl
    _forking.clear()
    inside_openssl = Lock()
    for thing in _alive():
        thing.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_begin_anew)


class Cancel:
    """A flag that, when set, also closes what its thread may be blocked on.

    `_lock` promises: whatever is held when, or after, the flag is set gets closed.
    `_latch` is held until the flag is set: waiting for it needs no lock of Python's own, which a
    signal handler could meet held by the code that it interrupts (threading.Event has one).
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._close: Optional[Action] = None  # what is held; guarded by _lock
        self._latch = threading.Lock()
        self._latch.acquire()
        self.is_set = False

    def set(self) -> None:
        """From now on: wake whoever waits, close what is held. Again where it was interrupted."""
        self.is_set = True
        try:
            self._latch.release()
        except RuntimeError:
            pass  # it is open
        with self._lock:  # closing too: once let go of, a connection may be another call's
            if self._close:
                self._close()

    def wait(self, seconds: float) -> bool:
        """Sleep; True, at once, when it is set."""
        held: Locks = []
        try:
            take(self._latch, held, seconds)
        finally:
            if held:
                try:
                    self._latch.release()
                except RuntimeError:
                    pass  # it was set once more, meanwhile
        return self.is_set

    def hold(self, close: Optional[Action]) -> None:
        """From now on `set` calls close()."""
        with self._lock:
            self._close = close
            if close and self.is_set:
                close()

    def forked(self) -> None:
        """Set, in a child; what is held is the parent's."""
        self._lock = Lock()
        self._close = None
        self.set()


class Scope:
    """One time budget and one way to be cancelled, handed down whole.

    seconds  until TimeoutError, None for no limit
    idle     bounds each single wait as well
    """

    def __init__(
        self, seconds: Seconds = None, idle: Seconds = None,
        cancel: Optional[Cancel] = None,
    ) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds
        self._idle = math.inf if idle is None else idle
        self._cancel = cancel or Cancel()

    def within(self, seconds: Seconds = None, idle: Seconds = None) -> Scope:
        """A part of this one: cancelled with it, over no later."""
        part = Scope(seconds, idle, self._cancel)
        part._end = min(part._end, self._end)
        return part

    @property
    def cancelled(self) -> bool:
        """Whether somebody has cancelled it."""
        return self._cancel.is_set

    def cancel(self) -> None:
        """End all that goes on in it: from any thread or signal handler, any number of times."""
        self._cancel.set()

    def hold(self, close: Optional[Action]) -> None:
        """What cancel calls from now on, to end a wait; None for nothing."""
        self._cancel.hold(close)

    def wait(self, seconds: float) -> bool:
        """Sleep; True, at once, when cancelled."""
        return self._cancel.wait(seconds)

    def left(self) -> float:
        """Seconds for the next wait, perhaps inf; TimeoutError at the end, or "cancelled"."""
        if self._cancel.is_set:
            raise ConnectionAbortedError("cancelled")
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        return min(left, self._idle)

    def acquire(self, lock: Any, held: Locks) -> None:
        """As `take`, of a lock that somebody may hold for long; its errors are those of `left`."""
        while not take(lock, held, min(self.left(), 0.1)):  # looks at cancel now and then
            pass

    def forked(self) -> None:
        """Cancelled, in a child."""
        self._cancel.forked()


def new_thread(name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
    """A thread that the program's end does not wait for; a subinterpreter's has to."""
    thread = threading.Thread(target=target, args=args, name="apiproxy-" + name, daemon=False)
    with contextlib.suppress(RuntimeError):  # since 3.12 those may have no daemons
        thread.daemon = True
    return thread


def aside(name: str, function: Callable[[], R], scope: Scope) -> R:
    """What a call gives or raises, in a thread that is left behind if it can't be interrupted.

    For the system's name look-up, and for functions of users that give a token.
    """
    done = Cancel()
    results: List[R] = []
    errors: List[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        done.set()

    thread = new_thread(name, run)
    try:
        thread.start()
    except RuntimeError:  # there are no more threads, or none in this interpreter
        run()
    scope.hold(done.set)
    try:
        while not done.wait(scope.left()):
            pass  # `left` says when it is over
        scope.left()
    finally:
        scope.hold(None)
    if errors:
        raise errors[0]
    return results[0]


def look_up(host: str, port: int, scope: Scope) -> List[Any]:
    """What getaddrinfo says of an address; an IP address needs no thread."""
    ask = functools.partial(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM, 0)
    try:
        return ask(socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        pass

    try:
        return aside("lookup", ask, scope)
    except UnicodeError as error:
        raise OSError("not a host name") from error


@functools.lru_cache(maxsize=1)
def default_context() -> ssl.SSLContext:
    """The TLS settings where none are given, for all: they cost 23 ms and 0.9 MB (measured)."""
    with inside_openssl:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])  # over h2 there would be no upgrade
        vars(context)["sessions"] = {}  # see Wire
        return context


# -- proxies ---------------------------------------------------------------------


class Proxy:
    """The HTTP proxy at http://[user:password@]host[:port]; ConnectionError for another kind.

    `headers` carries its Proxy-Authorization, which nobody else gets.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urllib.parse.urlsplit(url if "://" in url else "http://" + url)
            self.port = parts.port or 80
        except ValueError:
            raise ConnectionError("the proxy's address is not http://host:port") from None
        if parts.scheme != "http" or not parts.hostname:
            raise ConnectionError("a proxy of the kind %s:// is not supported, only "
                                  "http://host:port" % parts.scheme)
        self.host = parts.hostname
        self.headers = {}
        if parts.username is not None:
            pair = "%s:%s" % (parts.username, parts.password or "")
            secret = encode_base64(urllib.parse.unquote_to_bytes(pair))
            self.headers["Proxy-Authorization"] = "Basic " + secret


@contextlib.contextmanager
def blaming(proxy: Optional[Proxy]) -> Iterator[None]:
    """What goes wrong inside is the proxy's fault, if there is one; the end of a scope is not."""
    try:
        yield
    except OSError as error:
        if not proxy or isinstance(error, (TimeoutError, ConnectionAbortedError)):
            raise
        place = join_port(proxy.host, proxy.port)
        raise ConnectionError("proxy %s: %s" % (place, error)) from error


def find_proxy(address: Address, setting: Optional[str] = None) -> Optional[Proxy]:
    """The proxy for an address: `setting` ("" for none), else what the environment says.

    As Go's programs have it (golang.org/x/net/http/httpproxy): http_proxy, https_proxy and
    no_proxy, else those in upper case; loopback is reached directly.
    """
    if setting is None:
        setting = _environment("HTTPS_PROXY" if address.secure else "HTTP_PROXY")
        if setting and bypasses_proxy(address, _environment("NO_PROXY")):
            return None
    return Proxy(setting) if setting else None


def _environment(name: str) -> str:
    if name == "HTTP_PROXY" and os.environ.get("REQUEST_METHOD"):
        return ""  # in a CGI script a client's header Proxy: sets it (CVE-2016-5385)
    return os.environ.get(name.lower()) or os.environ.get(name) or ""


def bypasses_proxy(address: Address, no_proxy: str) -> bool:
    """Whether NO_PROXY's list has `address`: `*`, names, IPs, CIDR ranges, ports."""
    host = address.name
    ip = parse_ip(host)
    if host.rstrip(".") == "localhost" or ip and ip.is_loopback:
        return True

    entries = [entry.strip() for entry in no_proxy.lower().split(",")]
    return "*" in entries or any(_is_meant(address, host, ip, entry) for entry in entries)


def _is_meant(address: Address, host: str, ip: Any, entry: str) -> bool:
    """Whether one entry of NO_PROXY names an address; what Go can't read names none."""
    import ipaddress

    if "/" in entry:
        try:
            size = entry.rpartition("/")[2]  # in bits: a mask would be read too
            return bool(ip and size.isdecimal() and ip in ipaddress.ip_network(entry, strict=False))
        except ValueError:
            return False

    parts = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*)):([^:]*)", entry)
    name, port = (parts[1] or parts[2], parts[3]) if parts else (entry, "")  # as [::1]:80, or ::1
    if not name or port not in ("", str(address.port)):
        return False
    named = parse_ip(name)
    if named or ip:  # a name is no end of an IP address
        return bool(named == ip)

    name = name[1:] if name.startswith("*.") else name
    with contextlib.suppress(UnicodeError):  # what can't be in DNS is as it is
        name = ".".join(label.encode("idna").decode() for label in name.split("."))
    return host.endswith(name if name[:1] == "." else "." + name) or host == name


def parse_ip(text: str) -> Any:
    """The IP address that a text is, IPv4 in IPv6 as IPv4; None for a name."""
    import ipaddress  # only where there is a proxy

    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


# -- sockets ----------------------------------------------------------------------


def poll(reading: Sequence[int], writing: Sequence[int], seconds: float) -> List[int]:
    """Of these descriptors those that may be read, or written, or have failed."""
    seconds = max(0.0, min(seconds, FOREVER))  # below 0 is for ever
    if not hasattr(select, "poll"):  # Windows, where select takes any descriptor
        readable, writable, failed = select.select(reading, writing, writing, seconds)
        return readable + writable + failed

    poller = select.poll()
    for fd in {*reading, *writing}:
        poller.register(fd, select.POLLIN * (fd in reading) | select.POLLOUT * (fd in writing))
    return [fd for fd, _ in poller.poll(math.ceil(seconds * 1000))]


class Socket(socket.socket):
    """A socket that a forgotten client's connections may leave behind without a ResourceWarning.

    It closes by a call of C code, in which no signal's handler can raise.
    """

    __del__ = socket.SocketType.close


def shut(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """End it and wake whoever waits: shutdown() wakes a poll(), close() does not (measured)."""
    try:
        sock.shutdown(how)
    except OSError:
        pass  # it has ended


class Race:
    """Connecting to one of several addresses, as RFC 8305 5 has it: the first that answers wins.

    Its thread alone opens and closes sockets; `close`, from any thread, wakes it.
    """

    winners: Dict[Tuple[str, int], Any] = {}  # by host and port: the address to try first next time

    def __init__(self, addresses: List[Any]) -> None:
        self._addresses = addresses
        self._sockets: Dict[int, Tuple[Socket, Any]] = {}  # that are connecting, by descriptor
        self._failure = OSError("no address for this host")
        self._closed = False
        at_fork(self)

    def close(self) -> None:
        """Give up."""
        self._closed = True
        for sock, _ in list(self._sockets.values()):
            shut(sock)

    def forked(self) -> None:
        """Free our copies of what the parent is connecting."""
        for sock, _ in self._sockets.values():
            sock.close()

    def run(self, scope: Scope) -> Tuple[Socket, Any]:
        """(connected socket, its address); what the last one failed with when all have."""
        next_at = 0.0
        scope.left()  # who has cancelled makes no connection
        try:
            while self._addresses or self._sockets:
                now = time.monotonic()
                if now >= next_at or not self._sockets:
                    self._begin(self._addresses.pop(0))
                    next_at = now + RACE_DELAY if self._addresses else math.inf
                if self._sockets:  # `left` after them: `close` shuts only those that it finds
                    winner = self._wait(min(scope.left(), _SLICE, next_at - now))
                    if winner:
                        return winner
            raise self._failure
        finally:
            for sock, _ in self._sockets.values():
                sock.close()

    def _begin(self, found: Any) -> None:
        family, _, protocol, _, address = found
        try:
            sock = Socket(family, socket.SOCK_STREAM, protocol)
        except OSError as error:
            self._failure = error
            return
        fd = sock.fileno()
        self._sockets[fd] = sock, found  # first: somebody may fork meanwhile
        sock.setblocking(False)
        try:
            sock.connect(address)
        except (BlockingIOError, InterruptedError):
            pass  # it goes on
        except OSError as error:
            self._failure = error
            del self._sockets[fd]
            sock.close()

    def _wait(self, seconds: float) -> Optional[Tuple[Socket, Any]]:
        ready = poll([], list(self._sockets), seconds)
        if self._closed:
            raise ConnectionAbortedError("cancelled")
        for fd in ready:
            if fd not in self._sockets:
                continue  # select reports a failed one twice
            sock, address = self._sockets.pop(fd)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number:
                return sock, address
            sock.close()
            names = getattr(socket, "errorTab", {})  # Windows, whose strerror() does not know them
            self._failure = OSError(number, names.get(number) or os.strerror(number))
        return None


def connect(host: str, port: int, scope: Scope) -> Socket:
    """A connected TCP socket that does not block."""
    last = Race.winners.get((host, port))
    race = Race(sorted(look_up(host, port, scope), key=lambda found: found != last))
    scope.hold(race.close)
    sock, winner = race.run(scope)
    if len(Race.winners) > 1000:  # bounded: a program may meet any number of hosts
        Race.winners.clear()
    Race.winners[host, port] = winner
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    return sock


class Wire:
    """A TCP connection, perhaps with TLS in it, that any thread may write to or close.

    TLS goes through memory BIOs: reading and writing one SSLSocket from two threads is not safe
    (cpython#77271). `_lock` promises: records leave in the order in which they were sealed, and
    nobody touches a descriptor after it was freed. It is never held while waiting.
    """

    def __init__(self, sock: Socket) -> None:
        self._sock = sock
        self._lock = Lock()
        self._closed = False  # guarded by _lock, as all below
        self._waiting: Set[object] = set()  # who is in poll(): the last out frees the descriptor
        self._out = bytearray()  # sealed bytes that the kernel would not take yet
        self._tls: Optional[ssl.SSLObject] = None
        self._keep_session: Optional[Callable[[Any], None]] = None  # once there is one
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._cut = False  # the TCP connection has ended
        self._tls_end: Optional[ssl.SSLError] = None  # how TLS has ended
        self.taken = 0.0  # monotonic: when the peer last made room for a sender that waited
        at_fork(self)

    @classmethod
    def open(
        cls, address: Address, scope: Scope, context: TlsSettings,
        proxy: Optional[Proxy], tunnel: bool = False,
    ) -> Wire:
        """Connect, through a proxy (CONNECT for TLS or a `tunnel`), with TLS if `context`."""
        to = proxy or address
        with blaming(proxy):
            wire = cls(connect(to.host, to.port, scope))

        scope.hold(wire.close)
        try:
            if proxy and (tunnel or context):
                with blaming(proxy):
                    wire._connect_through(proxy, address, scope)
            if context:
                name = address.name.rstrip(".")  # that is the DNS root's
                wire._start_tls(context, name, scope)
        except BaseException:
            wire.close()
            raise
        return wire

    def _connect_through(self, proxy: Proxy, address: Address, scope: Scope) -> None:
        headers = {"Host": address.place, **proxy.headers}
        self.send(encode_head("CONNECT %s HTTP/1.1" % address.place, headers), scope)
        head = Receiver(self, 1).head(scope)  # byte by byte: what follows is the tunnel's
        if head.status // 100 != 2:
            raise ConnectionError("no tunnel: it answers %d %s" % (head.status, head.reason))

    def _start_tls(self, context: ssl.SSLContext, name: str, scope: Scope) -> None:
        # A resumed session costs half the CPU time of a whole handshake, here and at the API server
        # (measured). Certificates are not looked at again: so only by what was checked, and only
        # with settings of ours, which forget it when another client certificate is shown.
        sessions = getattr(context, "sessions", None)
        key = name, context.verify_mode
        try:
            with inside_openssl:
                self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name,
                                             session=(sessions or {}).get(key))
        except ValueError as error:
            raise OSError("not a host name for TLS") from error
        if sessions is not None:
            self._keep_session = functools.partial(sessions.__setitem__, key)

        while True:
            try:
                with self._lock:
                    self._tls.do_handshake()
                return  # our last flight goes along with the request
            except ssl.SSLWantReadError:
                self.send(b"", scope)
                self._wait(scope)
                with self._lock:
                    self._pull()
            except ssl.SSLError:
                try:
                    self.send(b"", scope)  # the alert that says why we refuse
                except OSError:
                    pass
                raise

    def _pull(self) -> bool:
        """Move what came to the TLS side, or its end; False when nothing did. Needs the lock."""
        self._check_open()
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return False

        if data:
            self._incoming.write(data)
        else:
            self._cut = True
            self._incoming.write_eof()
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionAbortedError("closed here")

    # -- used by one reading and any number of writing threads -------------------

    def read(self, space: memoryview) -> Optional[int]:
        """Bytes received into `space`, 0 at the end, None when there are none yet; never waits."""
        with self._lock:
            self._check_open()
            if self._out:
                try:
                    self._seal(b"")
                except OSError:
                    self._out.clear()  # nobody takes them any more; what came before can be read
            if self._tls:
                return self._read_tls(self._tls, space)
            try:
                return self._sock.recv_into(space)
            except BlockingIOError:
                return None

    def _read_tls(self, tls: ssl.SSLObject, space: memoryview) -> Optional[int]:
        """As `read`: records until `space` is full; an API server sends one for each event."""
        count = 0
        while count < len(space):
            try:
                count += self._read_record(tls, space[count:])
                if not self._incoming.pending:
                    break
            except ssl.SSLWantReadError:
                if count or not self._pull():
                    break
            except ssl.SSLError as error:
                self._tls_end = error
                if count:
                    break  # what came whole comes first
                if isinstance(error, ssl.SSLZeroReturnError):
                    return 0
                if isinstance(error, ssl.SSLEOFError):
                    raise ConnectionResetError("TLS ended without close_notify")
                raise
        if count and self._keep_session:  # in TLS 1.3 it comes with the first answer
            if not tls.session_reused:  # to read it takes as long as it saves
                self._keep_session(tls.session)
            self._keep_session = None
            with contextlib.suppress(ssl.SSLError):  # before 3.10 that is none of OpenSSL's errors
                tls.write(b"")  # frees 16 KB that OpenSSL 3.0 took in vain as it read the session
        self._seal(b"")  # TLS 1.3 answers key updates inside a read
        return count or None

    def _read_record(self, tls: Any, space: memoryview) -> int:
        if self._tls_end:
            raise self._tls_end
        if not (self._cut or self._incoming.pending or tls.pending()):
            raise ssl.SSLWantReadError  # as it would after some work

        count: int = tls.read(len(space), space)
        if not count:  # 3.8 with OpenSSL 3 takes any end for a clean one
            raise ssl.SSLEOFError if self._cut else ssl.SSLZeroReturnError
        return count

    def receive(self, space: memoryview, scope: Scope) -> int:
        """As `read`, but waits; the deadline counts although bytes come all the time."""
        while True:
            scope.left()
            count = self.read(space)
            if count is not None:
                return count
            self._wait(scope)

    def write(self, data: Bytes) -> bool:
        """Seal and send what goes without waiting, keep the rest; True when nothing is kept."""
        with self._lock:
            self._check_open()
            self._seal(data)
            return not self._out

    def send(self, data: Bytes, scope: Scope) -> None:
        """All of `data`."""
        view = memoryview(data)
        for start in range(0, max(1, len(data)), SEAL):
            done = self.write(view[start:start + SEAL])
            while not done:
                self._wait(scope, write=True)
                done = self.write(b"")
                self.taken = time.monotonic()

    def _seal(self, data: Bytes) -> None:
        if self._tls:
            if data:
                self._tls.write(data)
            data = self._outgoing.read() if self._outgoing.pending else b""
        try:
            if self._out:
                self._out += data
                del self._out[:self._sock.send(self._out, NO_SIGNAL)]
            elif data:
                self._out += data[self._sock.send(data, NO_SIGNAL):]
        except BlockingIOError:
            if not self._out:
                self._out += data

    def wait(self, seconds: float, write: bool = False) -> bool:
        """Wait until a read, or a write, may get on; False when the time is over first."""
        me = object()
        try:
            with self._lock:
                self._check_open()
                self._waiting.add(me)
                fd = [self._sock.fileno()]
                writing = fd if write or self._out else []
            ready = poll([] if write else fd, writing, min(seconds, _SLICE))
            return bool(ready) or seconds > _SLICE
        finally:
            self._waiting.discard(me)
            with self._lock:
                if self._closed and not self._waiting:
                    self._sock.close()
            self._check_open()

    def _wait(self, scope: Scope, write: bool = False) -> None:
        if not self.wait(scope.left(), write):
            raise TimeoutError("no answer in time")

    def end_writing(self) -> None:
        """Tell the peer that no more bytes come."""
        with self._lock:
            shut(self._sock, socket.SHUT_WR)

    def close(self) -> None:
        """End it now and wake whoever waits."""
        with self._lock:
            self._closed = True
            shut(self._sock)  # once more too: the last call may have been interrupted
            if not self._waiting:
                self._sock.close()

    def leave_openssl(self, held: Locks, seconds: float) -> None:
        """Keep threads out of OpenSSL until `held` is released."""
        if self._tls:
            take(self._lock, held, seconds)

    def forked(self) -> None:
        """Free our copy of a connection that is the parent's: shutdown() would end that one too."""
        self._lock = Lock()
        self._closed = True
        self._sock.close()


class NoAnswer(ConnectionResetError):
    """The connection has ended, and nothing came."""


class Receiver:
    """The bytes that came on a Wire ahead of their use: heads, bodies, what follows a 101."""

    def __init__(self, wire: Wire, step: int = 4 * KiB) -> None:
        self.wire = wire
        self._step = step  # bytes asked for at once, while a head is read
        self._data = b""
        self._at = 0  # where in `_data` the unused begins

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies here unused."""
        return self._at == len(self._data)

    def some(self, scope: Scope, most: int = CHUNK) -> bytes:
        """At most so many bytes, of those that are here or come next; b"" at the end."""
        if self.is_empty:
            self._more(scope, CHUNK)
        piece = self._data[self._at:self._at + most]
        self._at += len(piece)
        return piece

    def until(self, mark: bytes, limit: int, scope: Scope) -> bytes:
        """The bytes up to and with `mark`; OSError for more than `limit`, and at the end."""
        looked = self._at
        while True:
            end = self._data.find(mark, looked)
            size = (len(self._data) if end < 0 else end + len(mark)) - self._at
            if size > limit:
                raise OSError("a line, or a head with the interim ones before it, is too long")
            if end >= 0:
                return self.some(scope, size)
            if not self._more(scope, self._step):
                if not size:
                    raise NoAnswer("closed before an answer")
                raise ConnectionResetError("closed inside an answer")
            looked = max(0, size + 1 - len(mark))  # or a head byte by byte would cost its square

    def exactly(self, count: int, scope: Scope) -> Iterator[bytes]:
        """The next `count` bytes, in pieces; ConnectionError when they end before."""
        while count:
            piece = self.some(scope, count)
            if not piece:
                raise ConnectionResetError("the body ended %d bytes too soon" % count)
            count -= len(piece)
            yield piece

    def _more(self, scope: Scope, size: int) -> int:
        space = memoryview(bytearray(size))
        count = self.wire.receive(space, scope)
        self._data, self._at = self._data[self._at:] + space[:count], 0
        return count

    def head(self, scope: Scope) -> Head:
        """The head of the next answer; interim ones (100, 103) are passed over."""
        left = MAX_HEAD
        while True:
            while len(self._data) - self._at < len(_HTTP) and self._more(scope, self._step):
                pass
            start = self._data[self._at:self._at + len(_HTTP)]
            if not _HTTP.startswith(start):  # the end of what is no HTTP may never come
                raise BadAnswer("that is TLS: is the address https://?" if start.startswith(_ALERT)
                                else "the answer is not HTTP/1.1")

            data = self.until(b"\r\n\r\n", left, scope)
            head = Head(data)
            if head.status >= 200 or head.status == 101:  # RFC 9110 15.2
                return head
            left -= len(data)


# ------------------------------------------------------------------------------
# 6. HTTP
#
# urllib.request with a handler of ours, which reads answers itself: http.client's
# parser took a third of a small GET. Connections are kept, redirects are not
# followed, one Scope bounds the whole call. 408 and 502 are made here.
# ------------------------------------------------------------------------------

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")  # RFC 9110 9.2.2
MAX_IDLE = 32  # connections kept for one server: more than that are a burst, not a habit
MAX_LINE = 4 * KiB  # of a chunk's size or a trailer; servers send some tens of bytes
MAX_TRAILERS = 100
LARGE = 100 * 1000  # bytes of JSON from which the cyclic collector costs more than pausing it


def encode_json(value: Any) -> bytes:
    """`value` as the body of a request; ValueError for NaN, which is not JSON."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


class Collector:
    """The cyclic collector, which rests while somebody parses something large.

    It would find nothing in what is built, but look through all of it again and again: 3,000 Pods
    take a third of the time without it (measured). Who found it on turns it on again, by one call
    that no signal's handler can come before; who found it at rest leaves it alone.
    """

    def __init__(self) -> None:
        self._parsing: Set[int] = set()  # the threads that let it rest
        at_fork(self)

    def at_rest(self, parse: Callable[[], R]) -> R:
        """What parse() gives."""
        if not gc.isenabled():
            return parse()
        thread = threading.get_ident()
        try:
            self._parsing.add(thread)
            gc.disable()
            return parse()
        finally:
            gc.enable()
            self._parsing.discard(thread)

    def forked(self) -> None:
        """Nobody parses in a child but its only thread, which does not."""
        if self._parsing:
            self._parsing.clear()
            gc.enable()


_collector = Collector()
_decode = json.JSONDecoder().raw_decode


def _loads(data: StrOrBytes) -> Json:
    """json.loads, which looks for blanks around every text: 0.5 us of an event's 5 (measured)."""
    if isinstance(data, str):
        try:
            value, end = _decode(data)
            if not data[end:].strip(" \t\r\n"):  # API servers end an event with a line feed
                return value
        except ValueError:
            pass  # a blank in front, or json.loads says it better
    return json.loads(data)


def parse_json(data: StrOrBytes) -> Json:
    """json.loads, with the cyclic collector at rest meanwhile if `data` is large."""
    if len(data) < LARGE:
        return _loads(data)
    return _collector.at_rest(lambda: _loads(data))


class Response:
    """An answer, read whole: status, reason, headers (any case), body (bytes)."""

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str],
        body: Union[bytes, List[Any]], method: str = "", url: str = "",
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self._body = body  # in blocks if it is large
        self.cluster = ""  # that was asked
        self._method = method
        self._url = url

    def __repr__(self) -> str:
        return "<Response %d %s, %d bytes>" % (self.status, self.reason, len(self.body))

    @property
    def body(self) -> bytes:
        """The body, without gzip."""
        if isinstance(self._body, list):
            whole = io.BytesIO()
            while self._body:
                whole.write(self._body.pop(0))
            self._body = whole.getvalue()
        return self._body

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def where(self) -> str:
        """The method and the address that it answers."""
        return "%s %s" % (self._method, self._url)

    @property
    def is_page(self) -> bool:
        """Whether the body is a web page."""
        return self.body.lstrip()[:1] == b"<"

    def text(self) -> str:
        """The body as UTF-8; what is not becomes U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Json:
        """The parsed body; None when there is none; ApiError when it is not JSON."""
        if not self.body or self.body.isspace():
            return None
        try:
            return parse_json(self.body)
        except (ValueError, RecursionError):
            pass
        except MemoryError:
            raise self.error("no memory to parse %d bytes" % len(self.body)) from None
        kind = self.headers.get("Content-Type", "something")
        raise self.error("" if self.is_page else "the server sent %s instead of JSON: %.80r"
                         % (kind, self.text()))

    def object(self) -> JsonObject:
        """The body, which is a JSON object; ApiError that says what came instead."""
        value = self.json()
        if not isinstance(value, dict):
            raise self.error("the server sent %s instead of an object: %.80r"
                             % (type(value).__name__, self.text()))
        return value

    def pages(self, size: int = CHUNK) -> Iterator[JsonObject]:
        """The list in the body, which goes, as lists of some of its items; ApiError as above.

        A cut that is not between two items leaves no JSON, or what follows them: it is made
        further on. So a list that comes again takes half the time (measured), as each part of it
        is compared and freed before the next.
        """
        blocks = self._body if isinstance(self._body, list) else [self._body]
        body = blocks.pop(0)[:]
        start = at = body.find(b'"items":[') + 9
        named = body.find(b'"metadata":', start) + 11
        head = body[:start]
        mark = b"}," + body[start:named]  # between items: the names before are the same in all

        def page_of(items: bytes) -> Optional[JsonObject]:
            try:
                page: JsonObject = json.loads(head + items + b"]}")
            except (ValueError, RecursionError, MemoryError):
                return None
            return page if next(reversed(page)) == "items" else None

        # else `items` may be another object's, or what they are may follow
        is_list = page_of(b"") and all(
            key in head + mark for key in (b'"kind":', b'"apiVersion":'))
        while is_list:
            end = body.find(mark, at + size) + 1
            if end:
                page = page_of(body[at:end])
                if page:
                    yield page
                    at = end + 1
                else:
                    size *= 2
            elif blocks:
                count = (len(body) - at) // size or 1  # more each time that it looked in vain
                body = b"".join((body[at:], *(block[:] for block in blocks[:count])))
                del blocks[:count]
                at = 0
            else:
                break
        self._body = [head, body[at:], *blocks]
        yield self.object()

    def take_json(self) -> Json:
        """As `json`; the body of a large list goes meanwhile."""
        if isinstance(self._body, bytes) or self._body[0][:1] != b"{":
            return self.json()
        return _collector.at_rest(self._joined)

    def _joined(self) -> Json:
        *pages, value = self.pages()
        if pages:
            pages.append(value)
            value["items"] = [item for page in pages for item in items_of(self, page)]
        return value

    def items(self) -> List[JsonObject]:
        """`items` of the list in the body, [] for null; ApiError unless they are objects."""
        return items_of(self, self.object())

    def error(self, message: str = "", kind: Callable[..., ApiError] = ApiError) -> ApiError:
        """The ApiError, or other `kind`, that this is: in the server's words or in `message`."""
        status: Json = None
        message = message or self._instead()
        if not message:
            with contextlib.suppress(ValueError, RecursionError):
                status = json.loads(self.body)
            message = dig(status, "message") or self.text().strip()[:1000]

        details = dig(status, "details", kind=dict)
        after = self.headers.get("Retry-After") or details.get("retryAfterSeconds")
        return kind(
            self.status, message, phrase="Unexpected answer" if self.ok else self.reason,
            reason=dig(status, "reason"), details=details,
            body=self.body[:MiB], method=self._method, url=self._url, cluster=self.cluster,
            retry_after=parse_retry_after(after))

    def _instead(self) -> str:
        """What came instead of an answer of the API, and why; "" if it may be one."""
        if 300 <= self.status < 400 and "Location" in self.headers:
            target = self.headers["Location"].partition("?")[0]
            text = "a redirect to %.200r, which is not followed: a wrong address, or a login"
            return place_of(self._url) + text % target
        if not self.is_page:
            return ""
        page = self.text()[:MAX_HEAD]
        title = re.search("(?is)<title>(.*?)</title>", page)
        text = ("a web page came, %.100r: of a proxy, of a login, or of a server where this "
                "address is not enabled")
        return place_of(self._url) + text % (title[1] if title else page).strip()


def items_of(response: Response, page: JsonObject) -> List[JsonObject]:
    """`items` of a list that `response` brought."""
    items = page.get("items") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise response.error("the server sent a list of something else: %.80r" % response.text())
    return items


def parse_retry_after(value: Any) -> Optional[float]:
    """Seconds of a Retry-After: a number or a date (RFC 9110 10.2.3); None for anything else."""
    if value is None:
        return None
    try:
        return max(0.0, float(int(value)))
    except (TypeError, ValueError, OverflowError):
        pass

    import email.utils  # rarely needed

    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - time.time())
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError):
        return None


class HttpConnection(Receiver):
    """A Receiver of answers, and whether another may follow."""

    def __init__(self, wire: Wire, proxy: Optional[Proxy] = None) -> None:
        super().__init__(wire)
        self.proxy = proxy  # the one that plain HTTP goes through
        self.used = 0.0  # when it was last of use, monotonic
        self.is_whole = False  # the last answer came to its end, and another may follow

    def is_quiet(self) -> bool:
        """Nothing came after the last answer, not even the end: fit for another request."""
        try:
            space = memoryview(bytearray(1))
            return self.is_empty and self.wire.read(space) is None
        except OSError:
            return False

    def body(self, head: Head, method: str, scope: Scope, limit: int) -> Iterator[bytes]:
        """The pieces of an answer's body (RFC 9112 6.3); BadAnswer or ConnectionError if not whole.

        TooLarge beyond the limit, at once when that is announced and the answer is no error.
        """
        keep = (head.minor == 1 and head.status != 101
                and "close" not in head.headers.tokens("Connection"))
        codings = head.headers.tokens("Transfer-Encoding")
        length = content_length(head)
        if method == "HEAD" or head.status in (101, 204, 304):
            pieces: Iterator[bytes] = iter(())
        elif codings:
            if codings != ["chunked"]:
                raise BadAnswer("a transfer coding that was not asked for")
            keep = keep and length is None  # 6.1: somebody may have meant it to be read in two ways
            pieces = self._chunks(scope)
        elif length is not None:
            if length > limit and head.status < 400:
                raise TooLarge
            pieces = self.exactly(length, scope)
        else:
            keep = False
            pieces = iter(lambda: self.some(scope), b"")

        yield from at_most(pieces, limit)
        self.is_whole = keep

    def _chunks(self, scope: Scope) -> Iterator[bytes]:
        while True:
            size = re.fullmatch(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", self._line(scope))
            if not size:
                raise BadAnswer("a chunk without a size")
            count = int(size[1], 16)
            if not count:
                break
            yield from self.exactly(count, scope)
            if self._line(scope):
                raise BadAnswer("a chunk that is longer than it says")

        for _ in range(MAX_TRAILERS):
            if not self._line(scope):
                return
        raise BadAnswer("endless trailers")

    def _line(self, scope: Scope) -> bytes:
        return self.until(b"\r\n", MAX_LINE, scope)[:-2]


class HttpRequest:
    """What urllib's opener and our handler need; its own would take the address apart again."""

    headers: Mapping[str, str] = {}  # what audit hooks are shown
    type = "http"  # what the opener goes by: the handler looks at the address

    def __init__(
        self, method: str, full_url: str, target: str, lines: Lines,
        data: Optional[bytes], scope: Scope, address: Address,
        context: TlsSettings, proxy: Optional[str], idle: Seconds,
    ) -> None:
        self.method = method
        self.full_url = full_url
        self.target = target
        self.lines = lines
        self.data = data
        self.scope = scope
        self.address = address
        self.context = context
        self.proxy = proxy
        self.idle = idle  # seconds of silence once the answer has begun, None: as the scope is

    def get_method(self) -> str:
        """The method, for the opener."""
        return self.method


def at_most(pieces: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """The pieces of a body; TooLarge behind the one that is beyond the limit."""
    size = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        if size > limit:
            raise TooLarge


def unzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of a body without its gzip; BadAnswer if it is not whole."""
    unzip: Any = None
    try:
        for piece in pieces:
            while piece:  # a body may have several members (RFC 1952 2.2)
                if unzip is None or unzip.eof:
                    unzip = zlib.decompressobj(31)
                yield unzip.decompress(piece, CHUNK)
                piece = unzip.unconsumed_tail or unzip.unused_data
    except zlib.error:
        raise BadAnswer("it is not gzip") from None
    if unzip and not unzip.eof:
        raise BadAnswer("its gzip has no end")


def mapped(data: bytes) -> Any:
    """A copy whose memory goes back to the system: in the heap a body's worth often stayed."""
    import mmap  # rarely needed

    copy = mmap.mmap(-1, len(data), access=mmap.ACCESS_COPY)
    copy.write(data)
    return copy


class HttpHandler(urllib.request.BaseHandler):
    """The urllib handler that keeps connections. `_lock` guards `_idle`, which holds none in use.

    A POST or PATCH gets a connection of its own: the server may close a kept one while the request
    is on its way, and nothing tells then whether it was carried out. Others are sent once more.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._idle: Dict[Any, List[HttpConnection]] = {}
        self._closings = 0  # how often connections were closed: those at work then are not kept
        self._swept = 0.0  # monotonic
        at_fork(self)

    def close(self, address: Optional[Address] = None) -> None:
        """Close the connections that nobody is using: to one address, or all."""
        with self._lock:
            self._closings += 1
            keys = [key for key in self._idle if not address or key[0] == address.server]
            idle = [conn for key in keys for conn in self._idle.pop(key, ())]
        for conn in idle:
            conn.wire.close()

    def forked(self) -> None:
        """The connections were the parent's."""
        self._lock = Lock()
        self._idle = {}

    def http_open(self, request: HttpRequest) -> Response:
        """What urllib calls for a request."""
        address = request.address
        # the context itself: an id comes again
        key = address.server, request.context, request.proxy
        conn = self._take(key) if request.method in IDEMPOTENT else None
        if conn:
            try:
                return self._exchange(conn, key, request)
            except ConnectionError:
                log.debug("the connection was closed meanwhile: %s", request.full_url)

        proxy = find_proxy(address, request.proxy)
        scope = request.scope.within(self._settings.connect_timeout)
        wire = Wire.open(address, scope, request.context, proxy)
        conn = HttpConnection(wire, None if request.context else proxy)
        return self._exchange(conn, key, request)

    def _take(self, key: Any) -> Optional[HttpConnection]:
        while True:
            with self._lock:
                idle = self._idle.get(key)
                if not idle:
                    return None
                conn = idle.pop()  # the one used last
            is_fresh = time.monotonic() - conn.used < self._settings.keep_alive
            if is_fresh and conn.is_quiet():
                return conn
            conn.wire.close()

    def _give(self, key: Any, conn: HttpConnection, keep: bool, closings: int) -> None:
        """Take a connection back, and close those that were too long idle."""
        now = conn.used = time.monotonic()
        oldest = now - self._settings.keep_alive
        late: List[HttpConnection] = []
        with self._lock:
            if self._swept < oldest:
                self._swept = now
                for other in list(self._idle):
                    idle = self._idle.pop(other, [])  # a signal's handler may have called close()
                    while idle and idle[0].used <= oldest:
                        late.append(idle.pop(0))
                    if idle:  # else TLS settings go that nobody else may have any more
                        self._idle[other] = idle
            idle = self._idle.get(key, [])
            if keep and closings == self._closings and len(idle) < MAX_IDLE:
                self._idle[key] = idle + [conn]
            else:
                late.append(conn)
        for old in late:
            old.wire.close()

    def _exchange(self, conn: HttpConnection, key: Any, request: HttpRequest) -> Response:
        closings = self._closings
        request.scope.hold(conn.wire.close)
        try:
            head = self._ask(conn, request)
            body = self._body(conn, head, request)
            return Response(head.status, head.reason, head.headers, body,
                            request.method, request.full_url)
        finally:
            request.scope.hold(None)
            self._give(key, conn, conn.is_whole and not request.scope.cancelled, closings)

    def _ask(self, conn: HttpConnection, request: HttpRequest) -> Head:
        lines, target, body = request.lines, request.target, request.data or b""
        conn.is_whole = False
        if conn.proxy:  # plain HTTP through a proxy: the whole address in the request line
            lines, target = {**lines, **conn.proxy.headers}, request.full_url
        if body or request.method in ("POST", "PUT", "PATCH"):
            lines = {**lines, "Content-Length": str(len(body))}

        head = encode_head("%s %s HTTP/1.1" % (request.method, target), lines)
        failure = None
        try:
            conn.wire.send(head + body, request.scope)
        except ConnectionError as error:
            failure = error  # a server that had enough of a body may have answered first
        try:
            return conn.head(request.scope)
        except ConnectionError as error:  # nothing, or no whole head, was answered
            raise failure or error

    def _body(self, conn: HttpConnection, head: Head, request: HttpRequest) -> Any:
        is_error = head.status >= 400
        limit = MiB if is_error else self._settings.max_body  # of an error that will do
        scope = request.scope.within(idle=request.idle)
        blocks: List[Any] = []
        last = io.BytesIO()  # not the pieces: a server may send two bytes at a time
        pieces = conn.body(head, request.method, scope, limit)
        if head.headers.tokens("Content-Encoding") in (["gzip"], ["x-gzip"]):
            pieces = at_most(unzipped(pieces), limit)
        try:
            for piece in pieces:
                last.write(piece)
                if last.tell() >= CHUNK:
                    blocks.append(mapped(last.getvalue()))
                    last = io.BytesIO()
        except TooLarge:
            if not is_error:
                text = "the body is larger than max_body, %d bytes" % limit
                raise BodyError(head.status, text)
        except OSError as error:
            if request.scope.cancelled:
                raise
            if not is_error:
                late = isinstance(error, TimeoutError)
                raise BodyError(408 if late else 502, "the body is not whole: %s" % error,
                                phrase="Request timed-out" if late else "Unreachable") from error
            return b""  # the status says enough
        return [*blocks, last.getvalue()] if blocks else last.getvalue()


class BodyError(ApiError):
    """The answer began well, and its body can't be had: in one piece, that is."""


FAILURES = (ApiError, OSError, MemoryError, RuntimeError)  # the last: no more threads

_CERTIFICATE = {  # by OpenSSL's verify code
    9: "is not valid yet", 10: "has expired", 62: "is for another name", 64: "is for another name",
    18: "is signed by itself: is it the right certificate authority?",
    19: "is of an authority that is not trusted: is it the right certificate authority?",
    20: "is of an authority that is not trusted: is it the right certificate authority?",
    21: "is of an authority that is not trusted: is it the right certificate authority?",
}


def explain(error: BaseException) -> str:
    """What went wrong on the way, and what to try."""
    text = str(error)[:1000] or type(error).__name__
    if isinstance(error, ConnectionRefusedError):
        return text + ": is the server, kubectl proxy or Headlamp running there?"
    if isinstance(error, socket.gaierror):
        return text + ": the name can't be looked up"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _CERTIFICATE.get(error.verify_code, "can't be verified")
        return "the server's certificate %s (%s)" % (why, error.verify_message)
    reason = getattr(error, "reason", None) or ""  # of an ssl.SSLError
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST",
                  "UNKNOWN_PROTOCOL"):
        return "what answers there is not TLS: is the address http://? (%s)" % reason
    if re.search("ALERT.*(CERT|CA$)", reason):
        return "the server wants another client certificate (%s)" % reason
    return text


def place_of(url: str) -> str:
    """"host:port: " of a whole address, "" of a path."""
    parts = urllib.parse.urlsplit(url)
    usual = {"http": 80, "ws": 80, "https": 443, "wss": 443}.get(parts.scheme)
    return join_port(parts.hostname or "", parts.port or usual) + ": " if usual else ""


def unanswered(error: BaseException, method: str, url: str, cluster: str = "") -> ApiError:
    """The ApiError for a request that failed: 408 when time ran out, 502 without an answer."""
    if isinstance(error, ApiError):
        if not error.url:
            error.method, error.url = method, url
        error.cluster = error.cluster or cluster
        return error

    late = isinstance(error, TimeoutError)
    text = place_of(url) + explain(error)
    if isinstance(error, ConnectionResetError) and url.startswith(("http:", "ws:")):
        text += ": is the address https://?"  # OpenSSL's servers hang up on plain HTTP (measured)
    failure = ApiError(
        408 if late else 502, text, method=method, url=url, cluster=cluster,
        phrase="Request timed-out" if late else "Unreachable")
    failure.__cause__ = error
    return failure


def exchange(opener: urllib.request.OpenerDirector, request: HttpRequest) -> Response:
    """Send `request`, give the whole answer whatever its status; ApiError when there is none."""
    method, url = request.method, request.full_url
    log.debug("> %s %s", method, url)
    try:
        response: Response = opener.open(cast(Any, request))
    except FAILURES as error:
        raise unanswered(error, method, url)
    log.debug("< %d %s", response.status, url)
    return response


# ------------------------------------------------------------------------------
# 7. WebSocket
#
# A blocking RFC 6455 client. One thread reads at a time, any may send, close or
# abort. The reader never waits to write: answers to pings go when there is room.
# ------------------------------------------------------------------------------


class WebSocket:
    """A WebSocket connection: `connect`, then `recv` or iterate, `send`, `close`.

    `_recv_lock`  one reader at a time
    `_send_lock`  frames leave whole, and none after a close frame; held by a sender that waits
                  for room, so the reader only tries it. Neither is reentrant: a frame must not
                  begin inside another, though a signal handler asks for it
    Where a signal's handler raises while bytes move, frames are no longer whole: `_torn` and
    `_moving` are set meanwhile, and what finds them set is told that the connection has ended.
    A peer that is gone is noticed while a thread is in `recv`, which is what sends the pings.
    """

    def __init__(
        self, wire: Wire, protocol: str, rest: bytes, max_message_size: int,
        ping_interval: Seconds, ping_timeout: float, close_timeout: float,
    ) -> None:
        self.protocol = protocol  # the subprotocol that the server chose, or ""
        self.ping_message = PING, b""  # what is sent into a silence
        self._wire = wire
        self._ping_interval = math.inf if ping_interval is None else ping_interval
        self._ping_timeout = ping_timeout
        self._close_timeout = close_timeout

        self._make_locks()
        self._reader = MessageReader(max_message_size)  # guarded by _recv_lock, as the next two
        self._reader.feed(rest)
        self._texts = self._reader.texts  # any thread may take one
        self._silence = 0.0  # seconds of listening since anything was heard
        self._pinged = False  # in this silence
        self._moving = False  # bytes are between the connection and a message
        # the latest control frame that had no room
        self._pending: Deque[Bytes] = collections.deque(maxlen=1)

        self._close_sent = False  # guarded by _send_lock, as the next
        self._torn: Optional[BaseException] = None  # why nothing can be sent any more
        self._ended: Optional[ConnectionClosed] = None  # set once; written under _end_lock
        at_fork(self)

    def _make_locks(self) -> None:
        self._recv_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._end_lock = Lock()

    def forked(self) -> None:
        """It is the parent's, and has ended here."""
        self._make_locks()
        self._wire.forked()  # first: to close it would end the parent's
        self._end(ABNORMAL, "it is the parent process's")

    @classmethod
    def connect(
        cls, url: str, *, protocols: Sequence[str] = (),
        headers: Optional[HeaderLines] = None, timeout: Seconds = 10.0,
        ssl_context: TlsSettings = None, max_message_size: int = 64 * MiB,
        ping_interval: Seconds = 10.0, ping_timeout: float = 20.0,
        close_timeout: float = 1.0, proxy: Optional[str] = None, host: str = "",
        scope: Optional[Scope] = None, notice: Optional[Callable[[Head], None]] = None,
    ) -> WebSocket:
        """Connect to a ws:// or wss:// `url` within `timeout` seconds, look-up and TLS included.

        headers          more request headers; Origin is the address itself unless given
        proxy            its address, "" for none, None for what the environment says
        host             the Host header, where it is to be another than the address's
        ping_interval    seconds of silence before a ping, None for no pings
        ping_timeout     seconds of silence after it until the connection counts as lost
        scope            what can cancel it
        notice           notice(head) is told the answer's status line and headers

        HandshakeError when the server refuses, with its status and body; ApiError 408 when time
        runs out, 502 when nothing answers; ValueError for an argument that can't be sent.
        """
        address = Address(url, ("ws", "wss"))
        address.authority = host or address.authority
        check_protocols(protocols)
        check_headers({"Host": host})
        lines = check_headers(headers)
        for name in lines:
            if re.fullmatch("(?i)host|upgrade|connection|sec-websocket-.*", name):
                raise ValueError("the handshake's own header can't be given: %s" % name)
        if "origin" not in map(str.lower, lines):
            # without one the API server refuses a watch
            scheme = "https" if address.secure else "http"
            lines["Origin"] = "%s://%s" % (scheme, address.authority)

        key = encode_base64(os.urandom(16))
        request = handshake_request(address, key, lines, protocols)
        scope = (scope or Scope()).within(timeout)
        wire = None
        log.debug("> %s", url)
        try:
            context = (ssl_context or default_context()) if address.secure else None
            wire = Wire.open(address, scope, context, find_proxy(address, proxy), tunnel=True)
            wire.send(request, scope)
            conn = HttpConnection(wire)
            head = conn.head(scope)
            if notice:
                notice(head)
            if head.status != 101:
                raise _refusal(conn, head, url, scope)
            protocol = check_handshake(head, key, protocols)
            rest = b"" if conn.is_empty else conn.some(scope)
        except BaseException as error:
            if wire:
                wire.close()
            if isinstance(error, BadAnswer):
                text = place_of(url) + str(error)
                error = HandshakeError(0, text, phrase="Handshake failed")
            if isinstance(error, FAILURES):
                raise unanswered(error, "GET", url)
            raise

        log.debug("= open %s %s", url, protocol)
        return cls(wire, protocol, rest, max_message_size, ping_interval, ping_timeout,
                   close_timeout)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, from either side."""
        return self._ended is not None

    def __iter__(self) -> Iterator[StrOrBytes]:
        """Messages until a clean close; ConnectionClosed at any other end."""
        while True:
            try:
                yield self.recv()
            except ConnectionClosed as error:
                if error.code in (NORMAL, GOING_AWAY, NO_CODE):
                    return
                raise

    def recv(self, timeout: Seconds = None) -> StrOrBytes:
        """The next message: str for text, bytes for binary.

        TimeoutError after `timeout` seconds; the next call goes on, in mid-frame too.
        ConnectionClosed (code, reason) at the end, ProtocolError (code) when the peer broke the
        protocol.
        """
        try:
            if self._texts and not self._ended:
                return self._texts.popleft()
        except IndexError:
            pass  # another thread has it

        seconds = math.inf if timeout is None else timeout
        lock = self._recv_lock
        held: Locks = []
        try:
            held.extend(filter(lock.acquire, (False,)))  # as `take`, in half its time
            if not held and not take(lock, held, seconds):
                raise TimeoutError("another thread is reading")
            return self._next(seconds)
        except ProtocolError as error:
            self._finish(error.code, str(error), encode_close(error.code, error.message))
            raise
        except OSError as error:
            if isinstance(error, TimeoutError) and error.errno is None:  # ours, not ETIMEDOUT
                raise
            raise self._end(ABNORMAL, str(error)) from error
        finally:
            if held:
                lock.release()

    def _next(self, seconds: float) -> StrOrBytes:
        end = 0.0
        late = False
        while True:
            if self._ended:
                raise self._error() from self._ended.__cause__
            if self._moving:
                raise self._end(ABNORMAL, "a recv was interrupted")
            self._moving = True
            message = self._reader.next()
            self._moving = False
            if not message:
                if late:
                    raise TimeoutError("no message in time")
                end = end or time.monotonic() + seconds
                late = self._receive(end)
                continue

            opcode, payload = message
            if opcode < CLOSE:
                return payload
            payload = cast(bytes, payload)
            if opcode == PING:
                self._control_frame(PONG, payload)  # 5.5.2; only the latest without room (5.5.3)
            elif opcode == CLOSE:
                code, reason = parse_close(payload)
                self._finish(code, reason, payload[:2])

    def send(self, message: Union[str, Bytes]) -> None:
        """Send one message, text for a str; returns when the system has taken all of it."""
        if isinstance(message, str):
            self._send(TEXT, message.encode())  # a lone surrogate raises before anything leaves
            return
        expect(message, (bytes, bytearray, memoryview), "message")
        self._send(BINARY, bytes(message))

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping of at most 125 bytes; the answer counts as a sign of life."""
        if len(payload) > MAX_CONTROL:
            raise ValueError("a ping carries at most 125 bytes")
        self._send(PING, payload)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close politely, within `close_timeout`: send a close frame, wait for the peer's."""
        self._finish(code, reason, encode_close(code, reason), reading=False)

    def abort(self) -> None:
        """End it at once: whoever is in recv or send gets ConnectionClosed."""
        self._end(ABNORMAL, "aborted here")
        self._wire.close()

    # -- the reading thread, with _recv_lock -------------------------------------

    def _receive(self, end: float) -> bool:
        """Wait for bytes until `end`, ping when it is silent; whether the time is over by now."""
        heard = time.monotonic() - self._silence  # silence counts while somebody listens
        while True:
            self._moving = True
            count = self._wire.read(self._reader.space())
            if count:
                self._reader.received(count)
            self._moving = False
            now = time.monotonic()
            if count:
                self._silence, self._pinged = 0.0, False
                return now >= end
            if count == 0:
                raise self._end(ABNORMAL, "the connection ended without a close frame")
            if now >= end:
                self._silence = now - heard
                raise TimeoutError("no message in time")
            if self._wire.taken > heard:  # a ping waits behind a big message: taking it is life too
                heard, self._pinged = self._wire.taken, False

            limit = heard + self._ping_interval + (self._ping_timeout if self._pinged else 0)
            if now >= limit:
                if self._pinged:
                    cause = TimeoutError("silence")
                    raise self._end(ABNORMAL, "the peer did not answer a ping") from cause
                # ping_timeout counts from now, though we were suspended
                self._pinged = self._ping_timeout < math.inf  # else nobody waits for the pong
                heard = now - self._ping_interval if self._pinged else now
                self._reader.rest()
                self._control_frame(*self.ping_message)
                continue

            self._write_pending()  # before waiting: the read above may have made room for it
            self._wire.wait(min(end, limit) - now)

    def _control_frame(self, opcode: int, payload: bytes) -> None:
        """Send it when there is room; never waits."""
        self._pending.append(encode_frame(opcode, payload, os.urandom(4)))
        self._write_pending()

    def _write_pending(self) -> None:
        """Write the frame that waits, if that needs no waiting.

        A sender that holds the lock comes here itself after releasing it: nothing is left lying.
        """
        while self._pending:
            held: Locks = []
            try:
                if not take(self._send_lock, held, 0) or self._close_sent or self._torn:
                    return
                self._torn = ConnectionAbortedError("it was interrupted")
                has_room = self._wire.write(b"")  # nothing waits in front of it
                if has_room:
                    self._wire.write(self._pending.pop() if self._pending else b"")
                self._torn = None
                if not has_room:
                    return
            except OSError as error:
                self._torn = error  # what came before can still be read, and then the end
            finally:
                if held:
                    held[0].release()

    # -- any thread ---------------------------------------------------------------

    def _send(self, opcode: int, payload: bytes) -> None:
        frame = encode_frame(opcode, payload, os.urandom(4))
        interrupted = ConnectionAbortedError("a send was interrupted")
        held: Locks = []
        try:
            if not take(self._send_lock, held) or self._close_sent or self._ended or self._torn:
                raise self._error() from self._torn
            self._torn = interrupted  # until all of the frame has left
            self._wire.send(frame, Scope())
            self._torn = None
        except OSError as error:  # the frame may be torn; a reader goes on to the end
            self._torn = error
            raise self._error() from error
        finally:
            if held:
                held[0].release()
            if self._torn is interrupted:
                self.abort()
        self._write_pending()

    def _error(self) -> ConnectionClosed:
        """How it ended: another object for each call that is told."""
        if self._ended:
            return ConnectionClosed(*self._ended.args)
        if self._torn:
            return ConnectionClosed(ABNORMAL, str(self._torn))
        return ConnectionClosed(NORMAL, "closed here")

    def _end(self, code: int, reason: str) -> ConnectionClosed:
        """Settle how it ended, once; free the connection unless a close handshake needs it."""
        with self._end_lock:  # or a simultaneous close() and abort() would give two answers
            if not self._ended:
                self._ended = ConnectionClosed(code, reason)
                if code == ABNORMAL:
                    self._wire.close()
            return self._ended

    def _finish(self, code: int, reason: str, payload: bytes, reading: bool = True) -> None:
        """Send our close frame, read to the end, close: all within `close_timeout`.

        Closing with bytes unread would send RST, which may eat our close frame on its way.
        """
        scope = Scope(self._close_timeout)
        try:
            if self._send_close(payload, scope):
                self._wire.end_writing()
                self._drain(scope, reading)
        except OSError:
            pass  # late or torn: closing is all that is left to do
        finally:
            self._end(code, reason)
            self._wire.close()

    def _send_close(self, payload: bytes, scope: Scope) -> bool:
        """Send our close frame, once; False where none can be sent any more."""
        held: Locks = []
        try:
            if not take(self._send_lock, held, scope.left()) or self._torn:
                return False
            if not self._close_sent:
                self._close_sent = True
                self._wire.send(encode_frame(CLOSE, payload, os.urandom(4)), scope)
            return True
        finally:
            if held:
                held[0].release()

    def _drain(self, scope: Scope, reading: bool) -> None:
        """Read to the end; where another thread reads, that meets it, and we wait."""
        held: Locks = []
        try:
            if not reading and not take(self._recv_lock, held, scope.left()):
                return
            space = memoryview(bytearray(CHUNK))
            while not self._ended and self._wire.receive(space, scope):
                pass
        finally:
            if held:
                held[0].release()


def _refusal(conn: HttpConnection, head: Head, url: str, scope: Scope) -> ApiError:
    """The HandshakeError for an answer that is not 101, whatever its body is like."""
    body = bytearray()
    try:
        for piece in conn.body(head, "GET", scope, MAX_HEAD):
            body += piece
    except OSError:
        pass  # what came in time has to do

    answer = Response(
        head.status, head.reason, head.headers, bytes(body[:MAX_HEAD]), "GET", url)
    message = ""
    if not body and head.status in (400, 403):  # so the API server refuses these (measured)
        message = ("the server gives no reason: perhaps the Origin or the subprotocols, or for "
                   "exec and port forward the --reject-paths of kubectl proxy")
    elif answer.ok and not answer.is_page:
        message = "HTTP %d instead of an upgrade to a WebSocket: %.200r" % (
            head.status, answer.text())
    return answer.error(message, HandshakeError)


# ------------------------------------------------------------------------------
# 8. Endpoints
#
# API servers reached without Headlamp: where they are, whom we trust to be them,
# and who we are there. Files are read again as they rotate, plugins run when they
# are needed. A kubeconfig's field is honoured or its context refused.
# ------------------------------------------------------------------------------

IN_CLUSTER = "/var/run/secrets/kubernetes.io/serviceaccount"

Pem = StrOrBytes  # the path of a PEM file, or what would be in it; b"" for none
Pems = Tuple[Pem, Pem, Pem]  # authority, client certificate, its key


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """What goes wrong inside is a ValueError that begins with `what`."""
    try:
        yield
    except (ApiError, OSError, ValueError) as error:
        # Not `from error`: JSON's and Unicode's errors carry the whole text, secrets and all.
        raise ValueError("%s: %s" % (what, error)) from None


class Endpoint:
    """An API server reached without Headlamp.

    server       its address, with a path if it has one
    ssl_context  TLS settings, see `tls_context`, or a function that gives them and is called for
                 each request; None: the client's
    token        a str, or a function that returns one and is called for each request
    basic        "user:password", for servers that want that
    namespace    the default one, for `apply`
    proxy        its address, "" for none, None for what the environment says
    impersonate  pairs of a header and its value, each a line of its own: who to be instead
    compress     False where answers should come uncompressed
    """

    def __init__(
        self, server: str, *,
        ssl_context: Union[TlsSettings, Callable[[], TlsSettings]] = None,
        token: Union[Token, ExecPlugin] = None, basic: str = "", namespace: str = "",
        proxy: Optional[str] = None, impersonate: Sequence[Tuple[str, str]] = (),
        compress: bool = True,
    ) -> None:
        with naming("server"):
            base_address(server)
        if proxy:
            with naming("proxy-url"):
                Proxy(proxy)
        for name, value in impersonate:
            check_headers({name: value})

        scheme, _, place = server.partition("://")
        self.server = scheme.lower() + "://" + place
        self.ssl_context = ssl_context
        self.token = token
        self.basic = basic
        self.namespace = namespace
        self.proxy = proxy
        self.impersonate = impersonate
        self.compress = compress

    def __repr__(self) -> str:
        return "<Endpoint %s>" % self.server

    def context(self) -> TlsSettings:
        """The TLS settings of now: the same object until they change. None: the client's."""
        return self.ssl_context() if callable(self.ssl_context) else self.ssl_context


# -- TLS settings ----------------------------------------------------------------

_CERTIFICATE_BLOCK = b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
_PARTIAL_CHAIN = 0x80000  # ssl.VERIFY_X509_PARTIAL_CHAIN, which has a name since Python 3.10


_CONTEXTS: Any = ssl.SSLContext.__mro__  # perhaps one by truststore, and ours trust no other store


class _NamedContext(_CONTEXTS[-3]):  # type: ignore[misc]
    """TLS settings of ours, which may expect another name than the address has."""

    verify_mode = _CONTEXTS[-2].verify_mode  # Python's own look for ssl.SSLContext again
    verify_flags = _CONTEXTS[-2].verify_flags
    server_name = ""  # a kubeconfig's tls-server-name

    def __init__(self, _protocol: int) -> None:
        self.sessions: Dict[Any, Any] = {}  # to resume, see Wire

    def wrap_bio(self, *args: Any, **options: Any) -> Any:
        """As SSLContext.wrap_bio, with the name to expect."""
        if self.server_name:
            options["server_hostname"] = self.server_name
        return super().wrap_bio(*args, **options)

    def load_cert_chain(self, *args: Any, **options: Any) -> None:
        """As SSLContext.load_cert_chain; a session from before would go on as who we were then."""
        super().load_cert_chain(*args, **options)
        self.sessions = {}


def tls_context(
    ca_file: Optional[str] = None, ca_data: Optional[bytes] = None, server_name: str = "",
    insecure: bool = False,
) -> ssl.SSLContext:
    """TLS settings for one server.

    ca_file, ca_data  its authority as PEM, in a file or as bytes; None: the system's. Text around
                      certificates is passed over; an intermediate authority is trusted by itself
    server_name       the name to expect, where it is not the address's
    insecure          True: no certificate is checked

    ValueError, or OSError (ssl.SSLError is one), for what can't be used.
    """
    if not isinstance(insecure, bool):  # "false" would be true
        raise ValueError("whether certificates are checked is True or False: %r" % (insecure,))
    if ca_file:
        ca_data = read_file(ca_file)

    with inside_openssl:
        context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificates and names
        context.set_alpn_protocols(["http/1.1"])
        context.server_name = server_name
        with naming("tls-server-name"):  # here rather than when it is used
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")

        if ca_data is not None:
            if insecure:  # client-go refuses it too (transport/transport.go, TLSConfigFor)
                raise ValueError("insecure-skip-tls-verify excludes an authority")
            blocks = re.findall(_CERTIFICATE_BLOCK, ca_data, re.DOTALL)
            if not blocks:
                raise ValueError("no certificate is in it")
            context.load_verify_locations(cadata=b"\n".join(blocks).decode("ascii"))
            context.verify_flags |= _PARTIAL_CHAIN
        elif insecure:
            log.warning("certificates are not checked: insecure-skip-tls-verify")
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context.load_default_certs()
        return context


def read_file(path: str) -> bytes:
    """The bytes of a file."""
    with open(path, "rb") as file:
        return file.read()


@contextlib.contextmanager
def in_file(pem: Pem) -> Iterator[str]:
    """Its path: bytes are in a file (0600), or in memory, for that moment: OpenSSL reads files."""
    if isinstance(pem, str):
        yield pem
        return

    import tempfile  # only here: it is slow to import

    with contextlib.ExitStack() as stack:
        try:
            handle, path = tempfile.mkstemp()
            stack.callback(os.unlink, path)
        except OSError:  # every place is read-only
            if not hasattr(os, "memfd_create"):
                raise
            handle = os.memfd_create("pem")
            path = "/proc/self/fd/%d" % handle

        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            yield path


class TlsFiles:
    """TLS settings from files that rotate: called, it gives the settings of this moment.

    They are another object once the content of a file is another, so that connections kept under
    the old ones are not used; None where nothing is set. Without a lock: threads that meet a change
    together may make one object each, the last of which stays.
    """

    def __init__(
        self, authority: Pem = b"", certificate: Pem = b"", key: Pem = b"", server_name: str = "",
        insecure: bool = False,
    ) -> None:
        self._options = server_name, insecure
        self._files: Dict[str, Tuple[Any, bytes]] = {}  # by path: what changes with it, content
        self._pems: Pems = authority, b"", b""
        self._state: Tuple[List[bytes], TlsSettings] = [], None  # contents, settings
        self.show(certificate, key)

    def __call__(self) -> TlsSettings:
        try:
            self._state = self._load(self._pems)
        except ValueError as error:  # half written, or gone for a moment: the next call looks again
            log.warning("the TLS settings of before are kept: %s", error)
        return self._state[1]

    @property
    def authority(self) -> bytes:
        """The server's authority as PEM, b"" for the system's."""
        return self._state[0][0]

    def show(self, certificate: Pem, key: Pem) -> None:
        """Show this client certificate from now on; b"" for none."""
        if bool(certificate) != bool(key):
            raise ValueError("a client certificate and its key belong together")
        pems = self._pems[0], certificate, key
        self._pems, self._state = pems, self._load(pems)

    def _load(self, pems: Pems) -> Tuple[List[bytes], TlsSettings]:
        """The state for these files: the settings of before if the contents are those of before."""
        before, context = self._state
        fields = "certificate-authority", "client-certificate", "client-key"
        contents = list(map(self._content, fields, pems))
        if contents != before:
            context = self._build(contents[0], pems)
        return contents, context

    def _content(self, field: str, pem: Pem) -> bytes:
        """What is in a file, read again when that changed; ValueError that names the field."""
        if isinstance(pem, bytes):
            return pem
        try:
            info = os.stat(pem)
            recent = time.time() - info.st_mtime < 1.0  # then it may change without a trace
            stamp = info.st_mtime_ns, info.st_size, info.st_ino, recent
            known, content = self._files.get(pem, (None, b""))
            if recent or stamp != known:
                content = read_file(pem)
                self._files[pem] = stamp, content
            return content
        except OSError as error:
            raise ValueError("%s: %s" % (field, error)) from None

    def _build(self, authority: bytes, pems: Pems) -> TlsSettings:
        def refuse() -> NoReturn:  # or OpenSSL asks on the terminal
            raise ValueError("the key has a passphrase")

        if not any((*pems, *self._options)):
            return None

        source, certificate, key = pems
        with naming("certificate-authority"):
            context = tls_context(None, authority if source else None, *self._options)
        if certificate:
            with naming("client-certificate with its client-key"), in_file(certificate) as path, \
                    in_file(key) as key_path, inside_openssl:
                context.load_cert_chain(path, key_path, password=refuse)
        return context


# -- tokens ----------------------------------------------------------------------

EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
EXEC_EXTENSION = "client.authentication.k8s.io/exec"  # what a cluster's entry has for its plugin
EXEC_CLUSTER = (  # what a plugin is told of the cluster, beside the authority
    "server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression",
)
EXEC_MARGIN = 10.0  # seconds before its end that a credential is fetched again
EXEC_TAIL = 300  # bytes of a plugin's stderr that an error repeats

_RFC3339 = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)"


def check_token(token: Any) -> str:
    """`token`, "" for None; ValueError, which does not repeat it, for what a header can't carry."""
    if token is None:
        return ""
    if not isinstance(token, str):
        raise TypeError("a token is a str or a function that returns one")
    if re.search("[^\x21-\x7e]", token):
        raise ValueError("a token can't hold spaces, line ends or non-ASCII characters")
    return token


def read_token(path: str) -> str:
    """The token in a file, read for each request: it rotates. ApiError without one."""
    try:
        token = check_token(read_file(path).strip().decode())
    except (OSError, ValueError) as error:
        raise ApiError(0, "the token file %s can't be read: %s" % (path, error)) from None
    if not token:
        raise ApiError(0, "the token file %s is empty" % path)
    return token


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time."""
    import datetime

    match = re.fullmatch(_RFC3339, text)
    if not match:
        raise ValueError("a time is not as in RFC 3339")
    offset = match[2].replace("Z", "+00:00")
    return datetime.datetime.fromisoformat(match[1] + offset).timestamp()


def _printable(text: str) -> str:
    """Somebody else's text on one line, without commands for terminals."""
    return "".join(filter(str.isprintable, " ".join(text.split())))


def _pass_on(errors: io.BufferedReader, said: bytearray) -> None:
    """What the thread of a program's stderr does."""
    with errors:
        for chunk in iter(lambda: errors.read1(4096), b""):
            said += chunk
            del said[:-EXEC_TAIL]
            try:
                if sys.__stderr__:  # else 2 may be a file, or a socket, of the program's
                    os.write(2, chunk)
            except OSError:
                pass  # nobody reads it


def run_program(
    command: List[str], env: Mapping[str, str], interactive: bool, scope: Scope,
) -> bytes:
    """Run a program to its end: its stdout; ValueError, with the end of its stderr, if it failed.

    stderr goes to ours as it comes: that is where a login says what to do. An interactive program
    has our terminal, stderr too. Where `scope` ends it is killed, with what it started.
    """
    import subprocess

    group = os.name == "posix" and not interactive  # in another one it can't read the terminal
    process = subprocess.Popen(
        command,
        env=env,
        stdin=None if interactive else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if interactive else subprocess.PIPE,
        start_new_session=group,
    )
    said = bytearray()
    errors, process.stderr = process.stderr, None  # or communicate() keeps it to the end
    reader = new_thread("exec", _pass_on, errors, said)

    def kill() -> None:
        try:
            if group:  # which it leads, and which ends with it
                os.killpg(process.pid, 9)
            else:
                process.kill()
        except OSError:
            pass  # it has ended

    with process:
        try:
            scope.hold(kill)
            if errors:
                reader.start()
            stdout, _ = process.communicate(timeout=min(scope.left(), FOREVER))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None  # whose words are those of who waits
        finally:
            scope.hold(None)
            if process.poll() is None:
                kill()

    if process.returncode:
        if errors:
            reader.join(0.5)  # what it left behind may keep stderr open
        text = _printable(said.decode("utf-8", "replace"))
        raise ValueError("exit code %d. %s" % (process.returncode, text))
    return stdout


class ExecPlugin:
    """A kubeconfig's exec plugin: called, it gives the token, "" beside a certificate.

    client.authentication.k8s.io, v1 and v1beta1. `_lock` promises: it runs once at a time.
    """

    def __init__(self, spec: Fields, cluster: Fields, tls: TlsFiles) -> None:
        self._version = spec.get("apiVersion")
        if self._version not in EXEC_VERSIONS:
            raise spec.error("apiVersion", "is not supported: %r" % self._version)

        self._mode = spec.get("interactiveMode") or "IfAvailable"
        if self._mode not in ("Never", "IfAvailable", "Always"):
            raise spec.error("interactiveMode", "is not known: %r" % self._mode)

        self._command = spec.need("command")
        if os.path.dirname(self._command):
            self._command = spec.path("command")

        pairs = [Fields(pair, spec.place + ": env") for pair in spec.get("env", list)]
        self._env = {pair.need("name"): pair.get("value") for pair in pairs}
        self._args = spec.strings("args")
        self._hint = spec.get("installHint")
        self._cluster = cluster if spec.get("provideClusterInfo", bool) else None
        self._tls = tls
        self._token: Optional[str] = None  # guarded by _lock, as the next; None: run it
        self._end = 0.0
        self.forked()
        at_fork(self)

    def forked(self) -> None:
        """In a child it does not run."""
        self._lock = Lock()

    def __call__(self, scope: Scope) -> str:
        """The token. ApiError, or what `scope` raises; a login may be silent for longer than it."""
        scope = scope.within()
        held: Locks = []
        try:
            scope.acquire(self._lock, held)
            token = self._token  # once: `forget` does not wait for the lock
            if token is None or self._end <= time.time() + EXEC_MARGIN:
                self._token = token = self._renew(scope)
            return token
        except (ConnectionAbortedError, TimeoutError):
            raise
        except (OSError, ValueError) as error:
            why = "the exec plugin %s failed: %s" % (self._command, error)
            raise ApiError(0, why) from None
        finally:
            if held:
                held[0].release()

    def forget(self, token: Optional[str] = None) -> None:
        """The server refused what it gave, `token`: run it again next time."""
        if token in (None, self._token):
            self._token = None

    def _renew(self, scope: Scope) -> str:
        stdout = self._run(scope)
        with naming("its answer"):
            values = read_yaml(stdout) or [None]  # JSON as a rule; kubectl takes either
        answer = Fields(values[0], "its answer")
        kind, version = answer.get("kind"), answer.get("apiVersion")
        if kind not in ("", "ExecCredential") or version not in ("", self._version):
            raise answer.error("kind", "or apiVersion is another than was asked for")

        status = answer.child("status")
        token = check_token(status.get("token"))
        certificate = status.get("clientCertificateData")
        key = status.get("clientKeyData")
        end = status.get("expirationTimestamp")

        if not (token or certificate):
            raise status.error("token", "is missing, and so is a certificate")

        ends = parse_time(end) if end else math.inf
        self._tls.show(certificate.encode(), key.encode())
        self._end = ends
        return token

    def _run(self, scope: Scope) -> bytes:
        """What the plugin writes to stdout."""
        import shutil  # only here: it is slow to import

        interactive = self._mode != "Never" and os.isatty(0)
        if self._mode == "Always" and not interactive:
            raise ValueError("it wants a terminal as standard input")

        path = shutil.which(self._command)
        if not path:
            raise ValueError("there is no such program here. " + _printable(self._hint))

        env = {**os.environ, **self._env, "KUBERNETES_EXEC_INFO": self._info(interactive)}
        part = Scope(scope.left())
        try:  # in a thread: what a signal's handler raises can leave pipes of Popen open
            return aside("plugin", functools.partial(
                run_program, [path, *self._args], env, interactive, part), scope)
        except TimeoutError:
            raise TimeoutError("%s has not ended in time" % path) from None
        finally:
            part.cancel()

    def _info(self, interactive: bool) -> str:
        """What the plugin is told."""
        spec: JsonObject = {"interactive": interactive}
        if self._cluster:
            info = {name: self._cluster.values.get(name) for name in EXEC_CLUSTER}
            info["certificate-authority-data"] = encode_base64(self._tls.authority)
            for extension in self._cluster.get("extensions", list):
                if dig(extension, "name") == EXEC_EXTENSION:
                    info["config"] = extension.get("extension")
            spec["cluster"] = {name: value for name, value in info.items() if value}
        return json.dumps({"kind": "ExecCredential", "apiVersion": self._version, "spec": spec})


# -- kubeconfigs -----------------------------------------------------------------


def decode_base64(text: Any) -> bytes:
    """What base64 stands for, line ends passed over as Go does it; ValueError for all else."""
    return base64.b64decode(type(text)().join(text.splitlines()), validate=True)


class Fields:
    """A mapping of a kubeconfig, and its place, which every error names."""

    KINDS = {str: "a string", bool: "true or false", list: "a list", dict: "a mapping"}

    def __init__(self, values: Json, place: str, folder: str = "") -> None:
        if not isinstance(values, (dict, type(None))):
            raise ValueError("%s is not a mapping" % place)
        self.values = values or {}
        self.place = place
        self._folder = folder  # that its relative paths start from

    def error(self, key: str, problem: str) -> ValueError:
        """What to raise for a field; values, perhaps secret, are not repeated."""
        return ValueError("%s: %s %s" % (self.place, key, problem))

    def get(self, key: str, kind: Any = str) -> Any:
        """A field, an empty `kind` without it; ValueError for one of another kind."""
        value = self.values.get(key)
        if value is None:
            return kind()
        if type(value) is not kind:
            raise self.error(key, "is not %s" % self.KINDS[kind])
        return value

    def need(self, key: str) -> str:
        """A field that is a string and not empty."""
        value: str = self.get(key)
        if not value:
            raise self.error(key, "is missing")
        return value

    def child(self, key: str) -> Fields:
        """A field that is a mapping."""
        return Fields(self.values.get(key), "%s: %s" % (self.place, key), self._folder)

    def strings(self, key: str) -> List[str]:
        """A field that is a list of strings."""
        values: List[str] = self.get(key, list)
        if not all(isinstance(value, str) for value in values):
            raise self.error(key, "is not a list of strings")
        return values

    def path(self, key: str) -> str:
        """A field that is a path, "" without it."""
        path: str = self.get(key)
        return path and os.path.join(self._folder, path)

    def pem(self, key: str) -> Pem:
        """A field that is a file, or what is in it as <key>-data, which is preferred."""
        path = self.path(key)
        data = self.get(key + "-data")
        try:
            content = decode_base64(data)
        except ValueError:
            raise self.error(key + "-data", "is not base64") from None
        return content or path or b""


class Kubeconfig:
    """What one or several kubeconfigs say. The first to name a thing wins, as kubectl has it.

    current   the name of the current context, "" without one
    left_out  by name, why contexts can't be used
    """

    def __init__(self) -> None:
        self.current = ""
        self.left_out: Dict[str, str] = {}
        self._sources: List[str] = []
        # By name: the entry, its place and its folder.
        self._entries: Dict[str, Dict[str, Any]] = {"cluster": {}, "user": {}, "context": {}}

    def add(self, text: bytes, source: str) -> None:
        """Read a file's text; `source` is its path. ValueError for what is not a kubeconfig."""
        self._sources.append(source)
        with naming(source):
            folder = os.path.dirname(os.path.abspath(source))
            documents = read_yaml(text) or [None]
            document = Fields(documents[0], "the kubeconfig")  # kubectl reads no other
            kind, version = document.get("kind"), document.get("apiVersion")
            if (kind or "Config", version or "v1") != ("Config", "v1"):
                raise document.error("kind", "and apiVersion are not Config and v1")

            self.current = self.current or document.get("current-context")
            for kind, entries in self._entries.items():
                for item in document.get(kind + "s", list):
                    name = dig(item, "name")
                    if not name:
                        log.warning("%s: a %s without a name is left out", source, kind)
                        continue
                    place = "%s: %s %s" % (source, kind, name)
                    entries.setdefault(name, (item.get(kind), place, folder))

    def endpoints(self, current: str = "") -> Dict[str, Endpoint]:
        """The Endpoint of every context that can be used; ValueError if `current` can't be."""
        contexts = self._entries["context"]
        if current and current not in contexts:
            files = ", ".join(self._sources)
            raise ValueError("%s: there is no context %s" % (files, current))

        endpoints = {}
        for name in contexts:
            try:
                endpoints[name] = self._endpoint(name)
            except ValueError as error:
                if name == current:
                    raise
                self.left_out[name] = str(error)
                log.warning("left out: %s", error)
        return endpoints

    def _endpoint(self, name: str) -> Endpoint:
        context = Fields(*self._entries["context"][name])
        with naming(context.place):
            cluster = self._entry(context, "cluster")
            user = self._entry(context, "user")

            authority = cluster.pem("certificate-authority")
            insecure = cluster.get("insecure-skip-tls-verify", bool)
            certificate = user.pem("client-certificate")
            key = user.pem("client-key")

            proxy = cluster.get("proxy-url")
            if proxy and "://" not in proxy:
                raise cluster.error("proxy-url", "is not http://host:port")

            tls = TlsFiles(authority, certificate, key, cluster.get("tls-server-name"), insecure)
            token, basic = _identity(user, cluster, tls, bool(certificate))

            return Endpoint(
                _server(cluster, bool(authority or certificate or insecure)),
                ssl_context=tls,
                token=token,
                basic=basic,
                namespace=context.get("namespace"),
                proxy=proxy or None,
                impersonate=_impersonation(user),
                compress=not cluster.get("disable-compression", bool),
            )

    def _entry(self, context: Fields, kind: str) -> Fields:
        """The cluster or the user that a context names; it may name no user."""
        name = context.get(kind)
        if not name and kind == "user":
            return Fields({}, "no user")
        if name not in self._entries[kind]:
            raise context.error(kind, "is %r, which is nowhere" % name)
        return Fields(*self._entries[kind][name])


def _server(cluster: Fields, secure: bool) -> str:
    """The address; without a scheme https if there are TLS settings (client-go rest/url_utils)."""
    server = re.split("[?#]", cluster.need("server"))[0]
    if "://" not in server:
        if "/" in server[:-1]:
            raise cluster.error("server", "without a scheme is a host and a port")
        server = ("https://" if secure else "http://") + server
    return server


def _identity(
    user: Fields, cluster: Fields, tls: TlsFiles, certified: bool,
) -> Tuple[Union[Token, ExecPlugin], str]:
    """(token, "user:password") of a user, in client-go's order: a plugin is the last resort."""
    if user.values.get("auth-provider") is not None:
        raise user.error("auth-provider", "is not supported: use an exec plugin")

    plugin = None
    if user.values.get("exec") is not None:
        plugin = ExecPlugin(user.child("exec"), cluster, tls)

    token = user.get("token")
    with naming(user.place + ": token"):
        check_token(token)
    path = user.path("tokenFile")
    name = user.get("username")
    password = user.get("password")

    if name and (token or path):
        raise user.error("username", "and a token exclude each other")
    if password and not name:
        raise user.error("username", "is missing beside the password")
    if name:
        return None, "%s:%s" % (name, password)
    if token or not path:
        return token or (None if certified else plugin), ""
    with naming(user.place + ": tokenFile"):
        read_token(path)
    return functools.partial(read_token, path), ""


def _impersonation(user: Fields) -> List[Tuple[str, str]]:
    """Who to be instead, as headers (client-go transport/round_trippers.go)."""
    headers = [("User", user.get("as")), ("Uid", user.get("as-uid"))]
    headers = [header for header in headers if header[1]]
    headers += [("Group", group) for group in user.strings("as-groups")]

    extra = user.child("as-user-extra")
    for key in extra.values:
        name = "Extra-" + urllib.parse.quote(str(key), safe="!#$&'*+-.^_`|~")
        headers += [(name, value) for value in extra.strings(key)]

    if headers and headers[0][0] != "User":
        raise user.error("as", "is missing beside as-uid, as-groups or as-user-extra")
    return [("Impersonate-" + name, value.encode().decode("latin-1")) for name, value in headers]


def read_kubeconfig(path: Optional[Path] = None) -> Kubeconfig:
    """The kubeconfig at `path`; else the files in KUBECONFIG, else ~/.kube/config.

    Files that are not there are passed over, as kubectl does. ValueError when there is none, or for
    one that can't be read.
    """
    named = os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [os.fsdecode(path)] if path else named.split(os.pathsep)

    config = Kubeconfig()
    paths = [os.path.expanduser(name) for name in paths]
    present = [name for name in paths if os.path.exists(name)]
    if not present:
        raise ValueError("there is no kubeconfig at %s" % os.pathsep.join(paths))

    for name in present:
        with naming("the kubeconfig can't be read"):
            text = read_file(name)
        config.add(text, name)
    return config


def in_cluster_endpoint(folder: str = IN_CLUSTER) -> Endpoint:
    """The API server of the cluster around this pod, as its service account, or a ValueError."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    port = os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ValueError("not inside a cluster: KUBERNETES_SERVICE_HOST and _PORT are not set")

    token = functools.partial(read_token, os.path.join(folder, "token"))
    with naming("not inside a cluster"):
        token()
        tls = TlsFiles(os.path.join(folder, "ca.crt"))
    try:
        namespace = read_file(os.path.join(folder, "namespace")).decode().strip()
    except (OSError, ValueError):
        namespace = ""  # a projected volume may have none

    server = "https://" + join_port(host, port)
    return Endpoint(server, ssl_context=tls, token=token, namespace=namespace)


# ------------------------------------------------------------------------------
# 9. Transport
#
# Where a request goes and with whose credentials, looked up once: a Route. All
# requests and WebSockets of the parts below pass `send` and `connect`; what an
# answer says of our credentials is noticed here.
# ------------------------------------------------------------------------------

COOKIE_PIECE = ".{1,3800}"  # of a token, in one of Headlamp's cookies (its pkg/auth/cookies.go)
HEADLAMP_ROUTES = frozenset(("me", "set-token", "serviceproxy", "helm", "portforward"))
TOKEN_WAYS = ("header", "subprotocol", "cookie")
SUSPECT_AGAIN = 60.0  # seconds between guesses that a server which hangs up has a broken cache
WARNINGS = 1000  # distinct warnings remembered, so that each is logged once


class Claims:
    """What a JWT says: when it ends (UNIX time), and (namespace, name) of a service account.

    An opaque token, or a function that gives one, says nothing.
    """

    def __init__(self, token: Any) -> None:
        self.expiry = math.inf
        self.account = "", ""
        try:
            payload = token.split(".")[1]
            text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
            claims = json.loads(text)
            about = dig(claims, "kubernetes.io", kind=dict)
            self.account = dig(about, "namespace"), dig(about, "serviceaccount", "name")
            self.expiry = float(claims["exp"])
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
            pass


class Credential:
    """Who we are to one destination. Nothing else touches a token.

    `_lock` promises: a token is replaced only while it is the one that was sent.
    `_renewing` is held by the one request that renews it, or makes Headlamp renew it.
    """

    def __init__(self, token: Any, destination: Any, is_fixed: bool = False) -> None:
        self._token: Any = token if callable(token) else check_token(token)
        self.claims = Claims(self._token)
        self.destination = destination  # an Endpoint or Headlamp's address; nobody else gets it
        # it stands in a kubeconfig, or comes from a function: a 401 does not make it forgotten
        self.is_fixed = is_fixed or callable(token)
        self._retry_at = 0.0  # monotonic: not to be renewed before
        self.forked()
        at_fork(self)

    def forked(self) -> None:
        """Locks begin anew."""
        self._lock = Lock()
        self._renewing = Lock()

    def read(self, scope: Scope) -> str:
        """The token of this moment; ApiError when the file, function or plugin has none."""
        token = self._token
        if isinstance(token, str):
            return token
        try:
            if isinstance(token, ExecPlugin):
                return token(scope)
            if getattr(token, "func", None) is read_token:  # ours: it needs no thread
                return cast(str, token())
            return check_token(aside("token", token, scope))
        except (ApiError, TimeoutError, ConnectionAbortedError):
            raise
        except Exception as error:
            text = "the function that gives the token failed: %s" % type(error).__name__
            raise ApiError(0, text) from error

    def begin_renewal(self, scope: Scope, window: float, turn: Locks) -> bool:
        """Whether the caller is to renew a token that ends soon; it releases what is in `turn`.

        Others wait for that; nobody tries again for as long as the window is.
        """
        if self._ends_soon(window):
            scope.acquire(self._renewing, turn)
            now = time.monotonic()
            if self._ends_soon(window) and now >= self._retry_at:
                self._retry_at = now + window
                return True
        return False

    def _ends_soon(self, window: float) -> bool:
        is_ours = all(self.claims.account) or isinstance(self.destination, str)
        return is_ours and self.claims.expiry - time.time() <= window

    def replace(self, sent: str, fresh: Any) -> bool:
        """Take a token that a server gave for the one that was sent; whether it was still that."""
        try:
            fresh = check_token(fresh)
        except (TypeError, ValueError):
            return False
        with self._lock:
            if not fresh or self._token != sent:
                return False
            self._token, self.claims, self._retry_at = fresh, Claims(fresh), 0.0
            return True

    def refused(self, sent: str) -> bool:
        """The server answered 401; whether that is about the token of now."""
        if isinstance(self._token, ExecPlugin):
            self._token.forget(sent)
        return callable(self._token) or self._token == sent


def token_protocol(token: str) -> str:
    """The subprotocol that carries a token (KEP: apiserver's bearer token over WebSockets)."""
    text = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return "base64url.bearer.authorization.k8s.io." + text


def cookie_name(cluster: str) -> str:
    """The name that Headlamp's cookies of a cluster begin with, sanitised as the server does it."""
    return "headlamp-auth-%s." % re.sub("[^a-zA-Z0-9_-]", "", cluster)[:50]


def token_cookies(cluster: str, token: str) -> str:
    """Headlamp's cookies for a token, in pieces; "" for what it would not take as one."""
    name = cookie_name(cluster)
    if name == "headlamp-auth-." or re.search(r'[";\\]', token):
        return ""
    pieces = enumerate(re.findall(COOKIE_PIECE, token))
    return "; ".join("%s%d=%s" % (name, index, piece) for index, piece in pieces)


def fresh_token(headers: Headers, cluster: str) -> str:
    """The token that Headlamp sends for the one it got, as cookies or X-Authorization; or ""."""
    cookies = {}
    for line in headers.get_all("Set-Cookie"):
        name, _, value = line.partition(";")[0].strip().partition("=")
        is_gone = re.search(r"(?i);\s*max-age=0\s*(;|$)", line)
        cookies[name] = "" if is_gone else value.strip('"')

    prefix = cookie_name(cluster)
    pieces = (cookies.get("%s%d" % (prefix, index), "") for index in itertools.count())
    return "".join(itertools.takewhile(bool, pieces)) or headers.get("X-Authorization", "")


class Credentials:
    """Endpoints and credentials. `_lock` promises: the two of a cluster change together."""

    def __init__(self) -> None:
        self.endpoints: Dict[str, Endpoint] = {}  # clusters that are reached without Headlamp
        self.left_out: Dict[str, str] = {}  # contexts of a kubeconfig that can't be used, and why
        self._credentials: Dict[str, Credential] = {}
        # by base_url and cluster, base64: what goes along with requests to Headlamp
        self.kubeconfigs: Dict[Tuple[str, str], str] = {}
        self.forked()
        at_fork(self)

    def forked(self) -> None:
        """A lock of its own."""
        self._lock = Lock()

    def add_endpoint(self, cluster: str, endpoint: Endpoint) -> Optional[Endpoint]:
        """Reach `cluster` there from now on; the endpoint that it replaces."""
        credential = Credential(endpoint.token, endpoint, is_fixed=True)  # or a ValueError first
        with self._lock:
            old = self.endpoints.get(cluster)
            self.endpoints[cluster] = endpoint
            self._credentials[cluster] = credential
            self.left_out.pop(cluster, None)
            return old

    def remove(self, cluster: str, base: str) -> Optional[Endpoint]:
        """Forget all of a cluster; the endpoint that it had."""
        with self._lock:
            self._credentials.pop(cluster, None)
            self.kubeconfigs.pop((base, cluster), None)
            return self.endpoints.pop(cluster, None)

    def set_token(self, cluster: str, token: Token, base: str) -> None:
        """Use `token` for `cluster` at the endpoint that it has now, else at `base`."""
        with self._lock:
            destination = self.endpoints.get(cluster, base)
            credential = Credential(token, destination)
            if token:
                self._credentials[cluster] = credential
            else:
                self._credentials.pop(cluster, None)

    def get_token(self, cluster: str, scope: Scope) -> Optional[str]:
        """The token as the next request would send it; None without one."""
        credential = self._credentials.get(cluster)
        return credential and credential.read(scope) or None

    def forget(self, cluster: str, credential: Credential) -> bool:
        """Forget a token that was refused, unless it is fixed; False if there is another now."""
        with self._lock:
            is_current = self._credentials.get(cluster) is credential
            if is_current and not credential.is_fixed:
                del self._credentials[cluster]
            return is_current

    def of(self, cluster: str, base: str) -> Tuple[Optional[Endpoint], Optional[Credential]]:
        """A cluster's endpoint, and the credential that was given for just that, or for `base`."""
        with self._lock:
            endpoint = self.endpoints.get(cluster)
            credential = self._credentials.get(cluster)
        if credential and credential.destination != (endpoint or base):
            credential = None
        return endpoint, credential

    def adopt(self, other: Credentials) -> None:
        """Take over tokens and stored kubeconfigs."""
        with other._lock:
            self._credentials = dict(other._credentials)
            self.kubeconfigs = dict(other.kubeconfigs)


class Route:
    """What one request needs of its destination, looked up once, so that it belongs together."""

    def __init__(
        self, cluster: str, base: str, endpoint: Optional[Endpoint],
        credential: Optional[Credential],
    ) -> None:
        self.cluster = cluster  # whose credentials go along
        self.base = base
        self.endpoint = endpoint  # None: the Headlamp server, or kubectl proxy
        self.credential = credential
        self.address = base_address(base)
        self.host = self.address.authority
        self.context: TlsSettings = None
        self.proxy = endpoint.proxy if endpoint else None
        self.token = ""  # that is sent
        self.kubeconfig = ""  # and what goes along with it, in base64

    def identify(self, scope: Scope) -> None:
        """Learn the token, then TLS settings: a plugin may give a certificate with the token."""
        if self.credential:
            self.token = self.credential.read(scope)
        if self.endpoint:
            self.context = self.endpoint.context()


class Transport:
    """The way to every cluster of one client: its routes, credentials and connections.

    settings   times and limits
    tasks      streams that run
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tasks: Dict[Any, None] = {}
        self.credentials = Credentials()
        self.handler = HttpHandler(settings)
        self._opener = urllib.request.OpenerDirector()
        self._opener.add_handler(self.handler)
        self._caching: Set[str] = set()  # servers that answer from a cache unless asked not to
        self._suspect_at: Dict[str, float] = {}  # monotonic: when to suspect that of one again
        self._warned: Set[str] = set()
        at_fork(self)

    def forked(self) -> None:
        """The streams are the parent's."""
        self.tasks.clear()

    def add_endpoint(self, cluster: str, endpoint: Endpoint) -> None:
        """Reach `cluster` there from now on; connections to where it was are closed."""
        old = self.credentials.add_endpoint(cluster, endpoint)
        if old:
            self.handler.close(base_address(old.server))

    def remove(self, cluster: str) -> None:
        """Forget a cluster."""
        endpoint = self.credentials.remove(cluster, self.settings.base_url)
        if endpoint:
            self.handler.close(base_address(endpoint.server))

    def cluster(self, name: ClusterName) -> str:
        """`name`, or the current cluster; ValueError when there is no way to it."""
        name = name or self.settings.cluster
        self.route(name)
        return name

    def namespace(self, cluster: str) -> str:
        """Where `apply` puts what names no namespace."""
        endpoint = self.credentials.endpoints.get(cluster)
        default = endpoint.namespace if endpoint else ""
        return self.settings.default_namespaces.get(cluster) or default or "default"

    def route(self, cluster: str, on_behalf: str = "") -> Route:
        """The way to a cluster; for "" to the server itself, with `on_behalf`'s credentials."""
        base = self.settings.base_url
        endpoint, credential = self.credentials.of(on_behalf or cluster, base)
        if endpoint:
            if cluster:
                return Route(cluster, endpoint.server, endpoint, credential)
            credential = None  # it was added meanwhile: what is its is not Headlamp's

        if not base:
            why = "this needs a Headlamp server, or the name of a cluster"
            if cluster:
                why = "no cluster %r here, and no Headlamp server to ask" % cluster
            raise ValueError(self.credentials.left_out.get(cluster, why))
        address = cluster_address(base, cluster) if cluster else base
        route = Route(on_behalf or cluster, address, None, credential)
        route.kubeconfig = self.credentials.kubeconfigs.get((base, route.cluster), "")
        host = self.settings.host
        if host:
            check_headers({"Host": host})
            route.host = host
        return route

    # -- requests --------------------------------------------------------------------

    def send(
        self, method: str, path: str, cluster: str = "", *, body: Any = None,
        params: Params = None, headers: Optional[HeaderLines] = None,
        scope: Optional[Scope] = None, auto_logout: bool = True, on_behalf: str = "",
        cookie: bool = False, idle: Seconds = None,
    ) -> Response:
        """One request and its answer; ApiError unless that is 2xx: redirects are never followed.

        body       bytes as they are, anything else as JSON, None for none
        scope      what bounds and cancels it, else `request_timeout` does
        on_behalf  for routes of Headlamp itself: the cluster whose credentials go along
        cookie     for routes of Headlamp that read a token from its cookies only
        idle       seconds of silence within the answer
        """
        caller_headers = check_headers(headers)
        caller_names = {name.lower() for name in caller_headers}
        if caller_names & {"content-length", "transfer-encoding"}:
            raise ValueError("the length of a body is not the caller's to say")
        if body is not None and not isinstance(body, bytes):
            body = encode_json(body)
        path = with_query(check_path(path), params)
        scope = scope or Scope(self.settings.request_timeout)

        for _ in range(2):
            route = self.route(cluster, on_behalf)
            held: Locks = []
            try:
                self._authenticate(route, scope, held)
                request = self._request(route, method, path, body, scope, cookie, idle)
                if caller_headers:
                    ours = request.lines.items()
                    kept = {name: line for name, line in ours if name.lower() not in caller_names}
                    request.lines = {**kept, **caller_headers}
                response = self._exchange(request, route)
                response.cluster = route.cluster
                is_fresh = self._notice(response, route, path, request.lines, auto_logout)
            except FAILURES as error:
                raise unanswered(error, method, combine_path(route.base, path), route.cluster)
            finally:
                if held:
                    held[0].release()
            if response.status != 401 or not is_fresh:
                break  # else the token was refused for its age, and here is another
        if not response.ok:
            raise response.error()
        return response

    def _request(
        self, route: Route, method: str, path: str, body: Optional[bytes], scope: Scope,
        cookie: bool = False, idle: Seconds = None,
    ) -> HttpRequest:
        """A request along a route, with headers of its own."""
        compress = self.settings.gzip and (not route.endpoint or route.endpoint.compress)
        lines = {
            "Host": route.host,
            "Accept": "application/json",
            "Accept-Encoding": "gzip" if compress else "identity",
        }
        if body is not None:
            lines["Content-Type"] = "application/json"
        lines.update(self._identity(route, cookie))

        context = None
        if route.address.secure:
            context = route.context or self.settings.ssl_context or default_context()
        target = combine_path(route.address.target, path)
        return HttpRequest(method, combine_path(route.base, path), target, lines, body, scope,
                           route.address, context, route.proxy, idle)

    def _exchange(self, request: HttpRequest, route: Route) -> Response:
        """Its answer, which is its own: a Headlamp's cache may give another request's instead."""
        base = self.settings.base_url
        may_cache = request.method == "GET" and not route.endpoint and route.cluster
        if may_cache and base in self._caching:
            request.lines["Connection"] = "keep-alive, Upgrade"
        failure = None
        try:
            response = exchange(self._opener, request)
            if not may_cache or "X-HEADLAMP-CACHE" not in response.headers:
                return response
        except ApiError as error:
            # An entry of a compressed answer has that one's length: the server hangs up on it.
            cut = isinstance(error.__cause__, NoAnswer) and not isinstance(error, BodyError)
            if not may_cache or not cut or time.monotonic() < self._suspect_at.get(base, 0.0):
                raise
            self._suspect_at[base] = time.monotonic() + SUSPECT_AGAIN
            failure = error

        # Its key lacks the query, for one object the resource too (pkg/k8cache). A request that
        # looks like an upgrade passes it by; kubectl proxy refuses those, so not before it is seen.
        request.lines["Connection"] = "keep-alive, Upgrade"
        response = exchange(self._opener, request)
        if response.status >= 500 or "X-HEADLAMP-CACHE" in response.headers:
            raise failure or ApiError(
                502, "the server answers from a cache of other requests' answers",
                phrase="Unreachable")
        self._caching.add(base)
        return response

    def _identity(self, route: Route, cookie: bool = False) -> Lines:
        """The headers that say who we are."""
        lines: Lines = {"User-Agent": "apiproxy/" + __version__}
        if route.token:
            lines["Authorization"] = "Bearer " + route.token
        endpoint = route.endpoint
        if endpoint:
            for name, value in endpoint.impersonate:
                lines.setdefault(name, []).append(value)
            if endpoint.basic and not route.token:
                pair = encode_base64(endpoint.basic.encode())
                lines["Authorization"] = "Basic " + pair
            return lines

        settings = self.settings
        if settings.token_as not in TOKEN_WAYS:
            raise ValueError("token_as is one of %s" % ", ".join(TOKEN_WAYS))
        in_cookies_only = settings.token_as == "cookie"
        if route.token and (cookie or in_cookies_only):
            cookies = token_cookies(route.cluster, route.token)
            if cookies:
                lines["Cookie"] = cookies
            elif in_cookies_only:
                raise ValueError("this token, or this cluster's name, does not go into a cookie")
            if in_cookies_only:
                del lines["Authorization"]
        if settings.backend_token:
            lines["X-HEADLAMP_BACKEND-TOKEN"] = check_token(settings.backend_token)
        if route.kubeconfig:
            lines.update({"KUBECONFIG": route.kubeconfig, "X-HEADLAMP-USER-ID": self._user()})
        return lines

    def _user(self) -> str:
        settings = self.settings
        settings.user_id = settings.user_id or os.urandom(8).hex()
        if not re.fullmatch("[a-zA-Z0-9_-]+", settings.user_id):  # what the server reads of it
            raise ValueError("a user_id is made of letters, digits, - and _")
        return settings.user_id

    def _authenticate(self, route: Route, scope: Scope, held: Locks) -> None:
        """Learn who we are, with a fresh token for one that ends soon.

        Where a lock is in `held` the request at hand has it renewed.
        """
        credential = route.credential
        turn: Locks = []
        try:
            if credential and credential.begin_renewal(scope, self.settings.token_window, turn):
                if all(credential.claims.account):
                    self._request_token(route, credential, scope)
                else:
                    held.extend(turn)
        finally:
            if turn and not held:
                turn[0].release()
        route.identify(scope)

    def _request_token(self, route: Route, credential: Credential, scope: Scope) -> None:
        """Ask for another token of a service account, along the route that the old one is for."""
        path = "/api/v1/namespaces/%s/serviceaccounts/%s/token"
        review = b'{"spec": {"expirationSeconds": 86400}}'
        try:
            route.identify(scope)
            path = path % tuple(map(segment, credential.claims.account))
            response = exchange(self._opener, self._request(route, "POST", path, review, scope))
            if not response.ok:
                raise response.error()
            if not credential.replace(route.token, dig(response.json(), "status", "token")):
                raise ValueError("no token in the answer")
        except (ApiError, ValueError) as error:
            log.warning("the token of cluster %s was not renewed: %s", route.cluster, error)

    def _notice(
        self, response: Response, route: Route, path: str, lines: HeaderLines, auto_logout: bool,
    ) -> bool:
        """What an answer to `lines` says beside its body; whether there is a fresh token."""
        headers = cast(Headers, response.headers)
        self._warn(response, headers)
        is_fresh = self._take_fresh(headers, route)
        if response.status == 401 and not is_fresh:
            credential = route.credential  # None: it was the caller's own header
            is_of_now = not credential or credential.refused(route.token)
            if (is_of_now and auto_logout and _is_about_token(route, path, lines)
                    and (not credential or self.credentials.forget(route.cluster, credential))):
                self.call_hook(self.settings.on_logout, route.cluster)
        if "reload" in headers.get("X-Reload", ""):
            self.call_hook(self.settings.on_reload)
        return is_fresh

    def _take_fresh(self, headers: Headers, route: Route) -> bool:
        if route.endpoint or not route.credential:
            return False
        return route.credential.replace(route.token, fresh_token(headers, route.cluster))

    def _warn(self, response: Response, headers: Headers) -> None:
        """Log the API server's warnings (RFC 7234 5.5: 299), each once."""
        for value in headers.get_all("Warning"):
            for text in re.findall(r'299 \S+ "((?:[^"\\]|\\.)*)"', value):
                if text not in self._warned and len(self._warned) < WARNINGS:
                    self._warned.add(text)
                    text = text.encode("latin-1").decode("utf-8", "replace")
                    text = _printable(re.sub(r"\\(.)", r"\1", text))
                    log.warning("%s: %s", response.where, text)

    def call_hook(self, hook: Optional[Callable[..., None]], *args: Any) -> None:
        """Tell the user's program something; what it raises is logged."""
        if hook is not None:
            try:
                hook(*args)
            except Exception:
                log.exception("a hook failed")

    # -- WebSockets ------------------------------------------------------------------

    def connect(
        self, cluster: str, path: str, params: Params, scope: Scope, protocols: Sequence[str] = (),
        ping_timeout: Optional[float] = None,
    ) -> WebSocket:
        """The WebSocket of a stream, with the token of this moment; all that fails is an ApiError.

        ping_timeout  where it is to be another than the setting
        """
        settings = self.settings
        limited = scope.within(settings.request_timeout)  # of a plugin: a login may take long
        fresh: List[bool] = []  # whether each answer brought a fresh token
        while True:
            url = path
            held: Locks = []
            try:
                route = self.route(cluster)
                url = "ws" + with_query(combine_path(route.base, check_path(path)), params)[4:]
                self._authenticate(route, limited, held)
                lines = self._identity(route)
                offered = self._protocols(route, lines, protocols)
                # a kubelet answers 406 to anything narrower
                lines["Accept"] = "application/json, */*"
                return WebSocket.connect(
                    url, protocols=offered, headers=lines, timeout=settings.connect_timeout,
                    ssl_context=route.context or settings.ssl_context, proxy=route.proxy,
                    host=route.host, max_message_size=settings.max_message,
                    ping_interval=settings.ping_interval,
                    ping_timeout=settings.ping_timeout if ping_timeout is None else ping_timeout,
                    close_timeout=settings.close_timeout, scope=scope,
                    notice=lambda head: fresh.append(self._take_fresh(head.headers, route)))
            except FAILURES as error:
                is_401 = getattr(error, "status", 0) == 401
                if is_401 and route.credential:
                    route.credential.refused(route.token)  # a plugin runs again
                if not is_401 or fresh != [True]:
                    raise unanswered(error, "GET", url, cluster)
                # else the token was refused for its age, as in `send`
            except ValueError as error:  # the cluster was taken away, or a setting can't be sent
                raise ApiError(0, str(error), method="GET", url=url) from error
            finally:
                if held:
                    held[0].release()

    def _protocols(
        self, route: Route, lines: Lines, protocols: Sequence[str],
    ) -> List[str]:
        """The subprotocols to offer; a token goes as one, or as a header: both are refused."""
        offered = list(dict.fromkeys(["base64.binary.k8s.io", *protocols]))
        way = "subprotocol" if self.settings.token_protocol else self.settings.token_as
        if route.token and way == "subprotocol":
            lines.pop("Authorization", None)
            offered.append(token_protocol(route.token))
        if "KUBECONFIG" in lines:
            offered.append("base64url.headlamp.authorization.k8s.io." + self._user())
        return offered


def _is_about_token(route: Route, path: str, lines: Iterable[str]) -> bool:
    """Whether a 401 speaks of a token of the cluster's, not of a route of Headlamp's own."""
    first = re.split("[/?]", path.lstrip("/"))[0]
    is_api = route.cluster and (route.endpoint or first not in HEADLAMP_ROUTES)
    return bool(is_api and {"authorization", "cookie"} & {name.lower() for name in lines})


# ------------------------------------------------------------------------------
# 10. Streams
#
# One thread each, which alone works and calls back. What cancel promises is
# kept here, once, for every kind of stream.
# ------------------------------------------------------------------------------

CANCEL_WAIT = 0.9  # seconds that cancel waits for a callback: it promises to return within 1
REFUSALS = frozenset((400, 401, 403, 404, 405, 406, 422))  # asking again would not make it better


class Backoff:
    """How long to wait before each retry: next to nothing, then doubling, with jitter."""

    def __init__(self, base: float, cap: float) -> None:
        self._base = base
        self._cap = cap
        self._count = 0

    def next(self) -> float:
        """Seconds to wait before the next try."""
        self._count += 1
        if self._count == 1:
            return random.random() * self._base / 8
        wait = self._base * 2.0 ** min(self._count - 2, 60)
        return min(self._cap, wait) * random.uniform(0.5, 1)

    def reset(self) -> None:
        """It works again."""
        self._count = 0


class Rate:
    """A token bucket; `take` tells how long to wait for one."""

    def __init__(
        self, burst: int, rate: float, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> float:
        """Take a token; seconds to wait until it is there."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)


class Task:
    """A thread that works and calls back until it is done or cancelled.

    `_gate` promises: a callback runs only while it is held, and starts only if the scope was not
    cancelled. So whoever has cancelled and then had the gate knows that none will run.
    """

    def __init__(self, name: str, transport: Transport) -> None:
        self.scope = Scope()  # what it works in; cancelling it ends the task
        self._transport = transport
        self._settings = transport.settings
        self._gate = threading.Lock()
        self._thread = new_thread(name, self._main)
        at_fork(self)

    def start(self: T) -> T:
        """Begin; not done by the constructor, so that the thread meets a finished object."""
        try:
            self._transport.tasks[self] = None
            self._thread.start()
            return self
        except BaseException:  # no more threads, or a signal's handler raised
            self.scope.cancel()
            if not self._thread.is_alive():  # if it begins yet, it ends at once
                self._transport.tasks.pop(self, None)
            raise

    def cancel(self) -> None:
        """Stop for good: from any thread, any number of times, also inside a callback.

        No callback starts after it has returned. One that is running is waited for, up to a second,
        unless this is called from inside it. In a forked child it does nothing: the stream is the
        parent's.
        """
        cancel_all([self])

    def join(self, end: float) -> None:
        """Once cancelled: wait for a callback and for the thread, until `end` (monotonic)."""
        if threading.current_thread() is self._thread:
            return
        held: Locks = []
        try:
            take(self._gate, held, end - time.monotonic())
        finally:
            if held:
                held[0].release()
        if held and self._thread.is_alive():  # else it has ended, or will find itself cancelled
            self._thread.join(end - time.monotonic())

    def forked(self) -> None:
        """Cancelled in a child, whose thread, if it is this one, is in a callback of it."""
        self._gate = threading.Lock()
        self.scope.forked()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    # -- the task's thread --------------------------------------------------------

    def _main(self) -> None:
        try:
            self._run()
        except Exception as error:
            log.exception("%s ended: this should not happen", self._thread.name)
            self._failed(error)
        finally:
            self._transport.tasks.pop(self, None)

    def _run(self) -> None:
        raise NotImplementedError

    def _failed(self, error: Exception) -> None:
        """What to do when `_run` raised what nobody expected: tell whoever waits."""

    def _get(
        self, cluster: str, path: str, params: Params = None, auto_logout: bool = True,
    ) -> Response:
        """GET, no longer than any other request, ended by cancel and by silence in the answer."""
        settings = self._settings
        try:
            return self._transport.send(
                "GET", path, cluster, params=params, auto_logout=auto_logout,
                scope=self.scope.within(settings.request_timeout), idle=settings.list_idle)
        except ValueError as error:  # the cluster was taken away meanwhile
            raise ApiError(0, str(error), method="GET", url=path) from error

    def _call(self, callback: Optional[Callable[..., Any]], *args: Any) -> None:
        """The one door into the user's code."""
        if callback is None:
            return
        with self._gate:
            if not self.scope.cancelled:
                try:
                    callback(*args)
                except BaseException:  # SystemExit too: it would end the stream silently
                    log.exception("a callback failed; the stream goes on")


T = TypeVar("T", bound=Task)


def cancel_all(tasks: Iterable[Task]) -> None:
    """Cancel them: all first, so that their ends do not add up."""
    for task in tasks:
        task.scope.cancel()
    end = time.monotonic() + CANCEL_WAIT
    for task in tasks:
        task.join(end)


def unexpected(error: Exception) -> ApiError:
    """The ApiError for a fault of this module, or of a setting that it was given."""
    failure = ApiError(0, "%s: %s" % (type(error).__name__, error), phrase="Unexpected error")
    failure.__cause__ = error
    return failure


def takes_argument(callback: Callable[..., Any]) -> bool:
    """Whether a callback that is documented without arguments may be given one."""
    import inspect  # slow to import, and needed for failCb only

    try:
        inspect.signature(callback).bind(None)
    except (TypeError, ValueError):
        return False
    return True


class Stream(Task):
    """Messages of one address, reconnecting until cancelled; what `stream` returns.

    error   the ApiError of the last failed attempt or unexpected end, None before there was one
    """

    def __init__(
        self, transport: Transport, cluster: str, url: str, cb: StreamResultsCb, args: JsonObject,
    ) -> None:
        super().__init__("stream", transport)
        self.error: Optional[ApiError] = None
        self._cluster = cluster
        self._url = url
        self._cb = cb
        self._args = args
        self._fail_cb = args.get("failCb")
        self._tells_error = self._fail_cb is not None and takes_argument(self._fail_cb)
        self._socket: Optional[WebSocket] = None

        runs_command = re.match(r"[^?]*/(exec|attach)(\?|$)", url)  # again, each time
        self._reconnects = args.get("reconnectOnFailure", not self._fail_cb and not runs_command)

    def get_socket(self) -> Optional[WebSocket]:
        """The WebSocket while one is open, else None."""
        return self._socket

    def _run(self) -> None:
        settings = self._settings
        backoff = Backoff(settings.retry_base, settings.retry_cap)
        rate = Rate(settings.burst, settings.rate)  # a log's last message resets the backoff
        while not self.scope.wait(rate.take()):
            error = unanswered(self._once(backoff), "GET", self._url, self._cluster)
            if self.scope.cancelled:
                return

            log.info("stream ended: %s", error)
            self._tell(error)
            if not self._reconnects:
                return
            is_refusal = isinstance(error, HandshakeError) and error.status in REFUSALS
            if is_refusal and self._args.get("reconnectOnFailure") is not True:
                log.warning("a stream was refused and ends: %s", error)
                return
            after = min(error.retry_after or 0, settings.max_retry_after)
            self.scope.wait(max(backoff.next(), after))

    def _tell(self, error: ApiError) -> None:
        self.error = error
        self._call(self._fail_cb, *([error] if self._tells_error else []))

    def _failed(self, error: Exception) -> None:
        self._tell(unexpected(error))

    def _once(self, backoff: Backoff) -> ApiError:
        """One connection, and how it ended."""
        opened = time.monotonic()
        try:
            socket = self._transport.connect(
                self._cluster, self._url, None, self.scope,
                self._args.get("additionalProtocols") or ())
        except ApiError as error:
            return error

        try:
            self._socket = socket
            self._call(self._args.get("connectCb"))
            while True:
                message = self._parsed(socket.recv())
                backoff.reset()
                self._call(self._cb, message)
        except ApiError as error:
            return error
        except MemoryError:
            return WebSocketError(0, "no memory for a message")
        finally:
            self._socket = None
            socket.abort()
            self.scope.hold(None)
            if time.monotonic() - opened >= self._settings.retry_reset:
                backoff.reset()

    def _parsed(self, message: StrOrBytes) -> Any:
        if not self._args.get("isJson"):
            return message
        try:
            return parse_json(message)
        except (ValueError, RecursionError):
            raise WebSocketError(0, "a message is not JSON") from None


# ------------------------------------------------------------------------------
# 11. Watches
#
# List, then watch from the version of the list, then from the last one seen:
# every view was the server's at one moment, and they only go forward. A version
# that is gone, or an answer that can't be trusted, lists again.
# ------------------------------------------------------------------------------

NOT_FOR_WATCHES = frozenset((
    "limit", "continue", "resourceVersionMatch", "resourceVersion", "sendInitialEvents"))
NOT_FOR_LISTS = frozenset(("watch", "allowWatchBookmarks", "timeoutSeconds", "sendInitialEvents"))
NOT_FOR_ITEMS = NOT_FOR_WATCHES | NOT_FOR_LISTS | {"labelSelector", "fieldSelector"}
ROUTINE = frozenset((NORMAL, GOING_AWAY, NO_CODE, ABNORMAL, RESTART))  # ABNORMAL: the bare end
MAX_TOMBSTONES = 10000  # deletions remembered against replays, which are of the last moments
MAX_HELD = 100  # messages of a burst until they are parsed: an object has 1.5 MB at most
SLICE = 0.1  # seconds for which the messages of a burst are let come together
MAX_FAILURES = 3  # watches in a row that fail at one version: it is not worth a fourth
EVENTS = frozenset(("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"))


def api_is_missing(error: ApiError) -> bool:
    """Whether a 404 says that the API or resource is not there, rather than an object."""
    if error.status != 404 or error.details.get("name"):
        return False
    return error.body.strip() != b"key not found"  # so Headlamp says that it has no such cluster


def is_older(version: Any, than: Any) -> bool:
    """Whether one resourceVersion precedes another; False when they can't be compared."""
    try:
        return bool(version.isdecimal() and than.isdecimal() and int(version) < int(than))
    except (AttributeError, ValueError):  # no str, or more digits than int() takes
        return False


def version_of(item: Json) -> Any:
    """An object's resourceVersion; None where it has none."""
    return item["metadata"].get("resourceVersion")


def object_key(item: Json) -> Any:
    """What tells one object from all others: uid (else apiVersion and kind), namespace and name.

    A uid alone does not: some aggregated APIs give several objects the same one.
    """
    metadata = item["metadata"]
    identity = metadata.get("uid") or (item.get("apiVersion"), item.get("kind"))
    return identity, metadata.get("namespace"), metadata.get("name")


def distinct_keys(items: Iterable[Json]) -> Dict[Any, Json]:
    """Items by key; those without a name, as some aggregated APIs have them, get a number each."""
    keyed: Dict[Any, Json] = {}
    for item in items:
        key = object_key(item)
        if key[2] is None:
            key = key, len(keyed)
        keyed[key] = item
    return keyed


def is_same(old: Json, listed: Json) -> bool:
    """Whether a list shows the known object: after a restored backup a version comes again."""
    if "actionType" in old:  # else no copy: a list that comes again asks for every object
        old = without(old, ("actionType",))
    return bool(old == listed)


def newest_first(item: Json) -> str:
    """The time by which `limit` chooses, as text that sorts; "" when there is none."""
    times = (
        item.get("lastTimestamp"), item.get("eventTime"), item.get("deprecatedLastTimestamp"),
        dig(item, "series", "lastObservedTime"), item["metadata"].get("creationTimestamp"),
    )
    texts = [when for when in times if isinstance(when, str) and when[:1].isdigit()]
    return max((when.rstrip("Z") for when in texts), default="")  # "00Z" sorts after "00.5Z"


class Collection:
    """The view of a list: pure, objects go in and lists come out. The objects are the callers'."""

    def __init__(self, limit: Optional[int] = None) -> None:
        self._limit = limit
        self._items: List[Json] = []  # to be copied: 8 us for 5,000, from a dict 23 (measured)
        self._places: List[Any] = []  # of each, ascending: bisection finds where an object stands
        self._known: Dict[Any, Tuple[Any, Any, Json]] = {}  # (place, version, item), by key
        self._arrivals = 0
        self._deleted: Dict[Any, str] = {}  # versions of deletions since the last list
        self._listed: Any = None  # the version of that list

    def known(self, item: Json) -> Json:
        """A listed object, or the one in view where it is the same: then that is held alone."""
        old = self._known.get(object_key(item))
        return old[2] if old and is_same(old[2], item) else item

    def replace(self, items: Iterable[Json], version: Any = None) -> bool:
        """Take a fresh list of a version; whether it differs. What stayed keeps its place."""
        fresh = distinct_keys(items)
        old, self._listed = self._known, version
        self._deleted.clear()
        if fresh == {key: item for key, (_, _, item) in old.items()}:
            return False

        places = {}
        for key, item in fresh.items():
            places[key] = self._place(item, old[key][0] if key in old else None)
        order = sorted(fresh, key=places.__getitem__)
        self._items = [fresh[key] for key in order]
        self._places = [places[key] for key in order]
        self._known = {key: (places[key], version_of(item), item) for key, item in fresh.items()}
        return True

    def apply(self, action: str, item: Json) -> bool:
        """Take one event (ADDED, MODIFIED or DELETED); whether the view changed."""
        key, version = object_key(item), version_of(item)
        place, last, _ = self._known.get(key) or (None, self._deleted.get(key), None)
        if is_older(version, last or self._listed):
            return False  # a replay
        if action == "DELETED":
            return self._delete(key, place, version)
        if version is not None and version == last:
            return False

        new = self._place(item, place)
        self._known[key] = new, version, item
        if new == place:
            index = self._index(place)
            self._items[index] = item  # replaced, never merged: a field that is gone is gone
            return self._is_shown(index)
        changed = place is not None and self._take_out(place)
        index = self._index(new)
        self._items.insert(index, item)
        self._places.insert(index, new)
        return changed or self._is_shown(index)

    def _delete(self, key: Any, place: Any, version: Any) -> bool:
        self._deleted[key] = version
        if len(self._deleted) > MAX_TOMBSTONES:
            del self._deleted[next(iter(self._deleted))]
        if place is None:
            return False
        del self._known[key]
        return self._take_out(place)

    def _take_out(self, place: Any) -> bool:
        index = self._index(place)
        shown = self._is_shown(index)
        del self._items[index], self._places[index]
        return shown

    def view(self) -> List[Json]:
        """A new list: all in order of arrival, or the newest `limit`, newest first."""
        return self._items[:] if self._limit is None else self._items[:-self._limit - 1:-1]

    def _place(self, item: Json, old: Any) -> Any:
        """By arrival; with a limit by time, where of two the first to arrive is the last."""
        if old is None:
            self._arrivals += 1
        if self._limit is None:
            return old or self._arrivals
        return newest_first(item), old[1] if old else -self._arrivals

    def _index(self, place: Any) -> int:
        return bisect.bisect_left(self._places, place)

    def _is_shown(self, index: int) -> bool:
        return self._limit is None or index >= len(self._items) - self._limit


class LastState:
    """The view of the one object of a name, which is shown once more when it has gone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._item: Json = None  # the last state shown
        self._seen = ""  # its version
        self._gone = False  # it is not there
        self._gone_at: Any = None  # the version of the list that said so

    def known(self, item: Json) -> Json:
        """As Collection.known, of one that is compared later."""
        return item

    def replace(self, items: Iterable[Json], version: Any = None) -> bool:
        """As Collection.replace."""
        for item in items:
            if dig(item, "metadata", "name") == self._name:
                return self.apply("", item)
        if self._item is None or self._gone:
            return False
        self._item = {**self._item, "actionType": "DELETED"}  # it went while nobody watched
        self._gone, self._gone_at = True, version
        return True

    def apply(self, action: str, item: Json) -> bool:
        """As Collection.apply; from a list the action is ""."""
        if dig(item, "metadata", "name") != self._name:
            return False  # this server ignores the selector
        version, gone = version_of(item), action == "DELETED"
        if self._item is not None and (version, gone) == (self._seen, self._gone):
            if version is not None and action or is_same(self._item, item):
                return False
        if action and (is_older(version, self._seen)
                       or self._gone and is_older(version, self._gone_at)):
            return False  # a replay
        self._item, self._seen, self._gone = item, version, gone
        return True

    def view(self) -> Json:
        """The object."""
        return self._item


def parse_events(text: StrOrBytes) -> List[Json]:
    """The events in one message, mostly one; ValueError for anything that is not a whole one."""
    if isinstance(text, bytes):
        raise ValueError("a binary message in a watch")
    try:
        events = [parse_json(text)]
    except ValueError:
        events = _several(text)
    try:
        for event in events:
            _check_event(event)
    except (AttributeError, KeyError, TypeError):
        raise ValueError("not a watch event") from None
    return events


def _several(text: str) -> List[Json]:
    """JSON values one after the other: a proxy may join messages."""
    events, position, text = [], 0, text.strip(" \t\r\n")
    while position < len(text):
        event, position = _decode(text, position)
        events.append(event)
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
    return events


def _check_event(event: Json) -> None:
    item = event["object"]
    if not isinstance(item, dict) or event["type"] not in EVENTS:
        raise ValueError("not a watch event")
    if event["type"] != "ERROR":
        version = item["metadata"].get("resourceVersion")
        check_version(version)
        if version is None and event["type"] == "BOOKMARK":
            raise ValueError("a bookmark without a resourceVersion")


def check_version(version: Any) -> None:
    """ValueError unless it is a resourceVersion, or none; a lone surrogate can't be sent back."""
    if version is not None and not (isinstance(version, str) and version.encode()):
        raise ValueError("a resourceVersion that is none")


class _Gone(Exception):
    """The version to go on from is no longer there."""


State = Union[Collection, LastState]


class ListReader:
    """Lists a collection whole: in one answer, or in pages where the server can't send it so."""

    def __init__(
        self, fetch: Callable[..., Response], params: Query, page: int,
    ) -> None:
        self._fetch = fetch  # (path, params, pace=True), which waits first if `pace`
        self._params = params  # of the first page
        self._page = page
        self._least = page // 10 or 1  # smaller pages would not help: an object has 1.5 MB at most
        self._in_pages = False

    def read(self, path: str, state: State) -> Tuple[Optional[str], bool]:
        """(version of the first page: later ones are of the same, what state.replace() says).

        Until the items before have gone the collector is at rest: it would look through both, and
        a list of 10,000 ConfigMaps again, with none changed, took 1.9 times as long.
        """
        try:
            return self._read(path, state)
        except ApiError as error:
            # not in one answer: 504 after its 60 s, cut, or larger than the limit of a body
            if error.status == 504 or isinstance(error, BodyError):
                if self._in_pages:
                    self._page = max(self._page // 2, self._least)
                self._in_pages = True
            if self._in_pages or error.status == 410:
                self.forget_version()  # it is gone, or yet to come, or 0: then servers ignore limit
            raise

    def forget_version(self) -> None:
        """The caller's version is for the first list; later ones, and pages, read the present."""
        for key in ("resourceVersion", "resourceVersionMatch", "continue"):
            self._params.pop(key, None)

    def _read(self, path: str, state: State) -> Tuple[Optional[str], bool]:
        params = dict(self._params)
        tokens = {params.get("continue")}
        items: List[Json] = []
        version, count = None, 0
        while True:
            if self._in_pages:
                params["limit"] = self._page
            try:  # at once: a token ends after minutes; but a page may be empty (a hot loop)
                response = self._fetch(path, params, pace=not count)
            except ApiError as error:
                if error.status == 410 and len(tokens) > 1:
                    raise _Gone() from error  # its token for an inconsistent rest is not used
                raise
            take = functools.partial(self._take, response, items, version, state)
            count, version, token, changed = _collector.at_rest(take)
            if not token:
                return version, changed
            if token in tokens:
                raise response.error("the list goes on with the same continue token")
            tokens.add(token)
            # the rest in one go, if it can be: the view would lack what the watch then reports on
            params = {**without(params, NOT_FOR_WATCHES), "continue": token}

    @staticmethod
    def _take(
        response: Response, items: List[Json], version: Optional[str], state: State,
    ) -> Tuple[int, Optional[str], str, bool]:
        """(items in a page, version, continue token, what `replace` says behind the last page).

        ApiError for what is not a list.

        Aggregated APIs leave out what others have: the version, `items` for none, `kind`.
        """
        count = len(items)
        for page in response.pages():
            kind = dig(page, "kind")
            metadata = dig(page, "metadata", kind=dict)
            if kind == "Table":
                more = [{**dig(row, "object", kind=dict), "cells": dig_list(row, "cells")}
                        for row in dig_list(page, "rows")]
            elif kind == "Status" or "items" not in page and not kind.endswith("List"):
                raise response.error("the server sent no list but %.80r" % (kind or sorted(page)))
            else:
                more = items_of(response, page)
            version = version or metadata.get("resourceVersion") or None
            try:
                check_version(version)
                complete(more, kind[:-4] if kind.endswith("List") else kind, page)
                items += map(state.known, more)
            except (ValueError, TypeError) as error:
                text = "the server sent a list that can't be read: %s" % error
                raise response.error(text) from None
        count = len(items) - count
        token = dig(metadata, "continue")
        changed = False
        if not token:
            changed = state.replace(items, version)
            items.clear()
        return count, version, token, changed


def complete(items: List[Json], kind: str, page: Json) -> None:
    """Give listed objects what objects of a watch have: kind and apiVersion."""
    version = page.get("apiVersion", "v1")
    for item in items:
        if not isinstance(item.setdefault("metadata", {}), dict):
            raise TypeError("metadata that is no object")
        item.setdefault("kind", kind)
        item.setdefault("apiVersion", version)


class Watch(Task):
    """One list, kept current. Its thread lists and watches in turn until cancelled."""

    def __init__(
        self, transport: Transport, cluster: str, paths: Sequence[str],
        cb: StreamResultsCb, err_cb: StreamErrCb, params: Params,
        found: Optional[Callable[[str], None]] = None,
    ) -> None:
        super().__init__("watch", transport)
        expect_callable(cb, "cb")
        expect_callable(err_cb, "err_cb")
        self._cluster = cluster
        self._cb = cb
        self._err_cb = err_cb
        self._paths = [path.partition("?")[0] for path in paths]  # endpoints; the first is in use
        self._found = found  # called with the path that answered

        params = {**split_query(paths[0]), **check_query(params)}
        with_query("", params)  # what can't be sent is refused here, not in the thread
        if not float(params.get("timeoutSeconds", 0)) >= 0:
            raise ValueError("timeoutSeconds is a number of seconds")
        self._watch_params = {"allowWatchBookmarks": True, **without(params, NOT_FOR_WATCHES)}
        self._reader = ListReader(
            self._fetch, without(params, NOT_FOR_LISTS), self._settings.list_page)
        limit = int(params.get("limit") or 0)
        self._state: State = Collection(limit if limit > 0 else None)

        self._listed = False  # a list has succeeded
        self._version: Optional[str] = None  # to go on from
        self._polls_until = 0.0  # monotonic: it can't be watched, and is listed instead
        self._list_at = 0.0  # monotonic; 0: at once, there is no view of `_version`
        self._heard = False  # an event of the watch that is open
        self._changed = False  # what the last view does not show
        self._failures = 0  # watches refused or broken in a row, at one version
        self._early = 0  # watches in a row that ended at once
        self._backoff = Backoff(self._settings.retry_base, self._settings.retry_cap)
        self._rate = Rate(self._settings.burst, self._settings.rate)

    def _run(self) -> None:
        while not self.scope.cancelled:
            after = 0.0
            lists = time.monotonic() >= self._list_at
            try:
                if lists:
                    self._list()
                if time.monotonic() < self._polls_until:
                    self._list_at = 0.0
                    self.scope.wait(self._settings.metrics_period)
                    continue
                self._follow()
            except _Gone:
                self._list_at = 0.0
                if not lists:
                    continue  # after an outage, say: the server is well, only the version is old
            except ApiError as error:
                if self.scope.cancelled:
                    return
                if not self._listed and api_is_missing(error) and len(self._paths) > 1:
                    del self._paths[0]
                    continue
                error = unanswered(error, "GET", self._paths[0], self._cluster)
                self._call(self._err_cb, error, self.cancel)
                if not self._listed and error.status in REFUSALS:
                    return
                log.info("watch failed, again soon: %s", error)
                after = min(error.retry_after or 0.0, self._settings.max_retry_after)
            self.scope.wait(max(self._backoff.next(), after))

    def _failed(self, error: Exception) -> None:
        self._call(self._err_cb, unexpected(error), self.cancel)

    def _pace(self) -> None:
        """Every list and watch passes here, once: one rate for all of it, whatever goes wrong."""
        self.scope.wait(self._rate.take())

    # -- listing

    def _fetch(self, path: str, params: Params, pace: bool = True) -> Response:
        if pace:
            self._pace()
        return self._get(self._cluster, path, params, auto_logout=not self._listed)

    def _list(self) -> None:
        version, changed = self._fetch_all()
        self._reader.forget_version()
        if not self._listed:
            changed = True
            if self._found:
                self._found(self._paths[0])

        self._version, self._listed, self._failures = version, True, 0
        self._list_at = time.monotonic() + self._settings.resync * random.uniform(0.8, 1.2)
        if changed:
            self._show()

    def _fetch_all(self) -> Tuple[Optional[str], bool]:
        return self._reader.read(self._paths[0], self._state)

    # -- watching

    def _follow(self) -> None:
        """Watch once, from the last version, to whatever end; raises unless it is a routine one."""
        seconds = max(1, int(random.uniform(*self._settings.watch_timeout)))
        params = {"timeoutSeconds": seconds, **self._watch_params,
                  "watch": True, "resourceVersion": self._version}
        lasts = float(params["timeoutSeconds"])
        self._pace()
        socket = self._connect(params)
        opened = time.monotonic()
        end = min(opened + lasts + self._settings.watch_grace, self._list_at)
        closed: Optional[ConnectionClosed] = None
        self._heard = False
        try:
            self._read(socket, end)
        except ConnectionClosed as error:
            closed = error
        finally:
            socket.abort()
            self.scope.hold(None)
            self._show_changes()
            lasted = time.monotonic() - opened
            if lasted >= min(self._settings.retry_reset, 0.8 * lasts):  # it was to end by now
                self._is_well()
        self._judge(closed, lasted, lasts)

    def _connect(self, params: Query) -> WebSocket:
        try:
            return self._transport.connect(self._cluster, self._paths[0], params, self.scope)
        except HandshakeError as error:
            if error.status == 410:
                raise _Gone() from error
            if error.status == 405:  # it can be listed only; try again as seldom as a resync
                is_known = self._polls_until
                self._polls_until = time.monotonic() + self._settings.resync
                if is_known:
                    raise _Gone() from error  # that was told: list again
            self._count_failure()
            raise

    def _read(self, socket: WebSocket, end: float) -> None:
        """Take messages until the watch ends, or at `end` is hung up.

        A watch that outlives its timeout may be dead though it answers pings (k8s#102464).
        """
        try:
            while time.monotonic() < end:
                if self._patience():
                    self._gather(socket, end)
                    self._show_changes()
                else:
                    self._take(socket.recv(end - time.monotonic()))
        except TimeoutError:
            pass
        except (ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
            self._list_at = 0.0  # never skip what can't be read: it may have been any change
            raise ApiError(0, "an event that can't be read: %s" % error) from error
        except ProtocolError:
            self._list_at = 0.0
            raise

    def _gather(self, socket: WebSocket, end: float) -> None:
        """Take the next message, and all that come within `_patience` after it.

        A burst is parsed together, with the collector at rest: event by event 3,000 changes of
        1,000 Pods took 2.1 times as long, most of it the collector's. It is received by the slice:
        waking up for each message was a fifth of what was left.
        """
        held: List[StrOrBytes] = [socket.recv(end - time.monotonic())]
        left = self._patience()
        end = min(end, time.monotonic() + left)
        try:
            while left > 0:
                left = end - time.monotonic()
                try:
                    while len(held) < MAX_HELD:
                        held.append(socket.recv(0))
                except TimeoutError:
                    self.scope.wait(max(0.0, min(SLICE, left)))
                else:
                    _collector.at_rest(lambda: self._take_all(held))
        finally:
            _collector.at_rest(lambda: self._take_all(held))

    def _take_all(self, held: List[StrOrBytes]) -> None:
        messages = held[:]
        held.clear()  # what follows one that can't be read is not taken either
        for message in messages:
            self._take(message)

    def _take(self, message: StrOrBytes) -> None:
        for event in parse_events(message):
            self._event(event)
            if not self._heard:  # not before: a broken server answers 101 too
                self._heard = True
                self._is_well()

    def _is_well(self) -> None:
        self._failures = self._early = 0
        self._backoff.reset()

    def _judge(self, closed: Optional[ConnectionClosed], lasted: float, lasts: float) -> None:
        """Whether the end of a watch was routine; raises what it was if not."""
        is_routine = not closed or closed.code in ROUTINE and not closed.__cause__
        early = not self._heard and lasted < min(self._settings.short_watch, 0.8 * lasts)
        if early:
            # some servers end a watch from a lost version silently (k8s#104171), others when a CRD
            # changed: list again, and say so when that did not help
            self._list_at = 0.0
            self._early += 1
            if is_routine and self._early > 1:
                text = "%d watches in a row ended at once, without an event" % self._early
                raise ApiError(0, text, phrase="Watch failed")

        if closed and not is_routine:
            if not self._heard:
                self._count_failure()
            raise closed

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self._failures, self._list_at = 0, 0.0

    def _event(self, event: Json) -> None:
        action, item = event["type"], event["object"]
        if action == "ERROR":
            raise self._error(item)
        version = version_of(item)
        if version is None and self._version is not None:
            raise ValueError("an event without a resourceVersion")
        if action != "BOOKMARK":
            item["actionType"] = action
            if self._state.apply(action, item):
                self._changed = True
                if not self._patience():
                    self._show()
        if version and not is_older(version, self._version):
            self._version = version

    def _error(self, status: Json) -> Exception:
        code, reason = dig(status, "code", kind=int), dig(status, "reason")
        if code == 410 or reason in ("Expired", "Gone"):
            return _Gone()
        self._count_failure()
        details = dig(status, "details", kind=dict)
        after = parse_retry_after(details.get("retryAfterSeconds"))
        return ApiError(
            code, dig(status, "message"), reason=reason, details=details, phrase="Watch failed",
            retry_after=after)

    # -- what is shown

    def _patience(self) -> float:
        """Seconds that a change may wait for others."""
        return self._settings.gather

    def _show(self) -> None:
        self._changed = False
        self._call(self._cb, self._state.view())

    def _show_changes(self) -> None:
        if self._changed:
            self._show()


def without(params: Mapping[str, Any], names: Iterable[str]) -> Query:
    """`params` but for those names."""
    return {key: value for key, value in params.items() if key not in names}


class ItemWatch(Watch):
    """One object: at first, and every later state of it, its deletion included."""

    def __init__(
        self, transport: Transport, cluster: str, paths: Sequence[str], name: str,
        cb: StreamResultsCb, err_cb: StreamErrCb, params: Params,
        found: Optional[Callable[[str], None]] = None,
    ) -> None:
        segment(name)
        wanted = {**split_query(paths[0]), **check_query(params)}
        selector = "metadata.name=" + escape_field(name)
        if wanted.get("fieldSelector"):
            selector = "%s,%s" % (wanted["fieldSelector"], selector)
        super().__init__(transport, cluster, paths, cb, err_cb,
                         {**(params or {}), "fieldSelector": selector}, found)
        self._name = name
        self._state = LastState(name)
        self._get_params = without(wanted, NOT_FOR_ITEMS)

    def _fetch_all(self) -> Tuple[Optional[str], bool]:
        # At first a GET, as documented: its 404 has the server's words, and `get` is all that some
        # users may do. Later a list: an object that did not change for long has a version too old
        # to watch from.
        if self._listed:
            return super()._fetch_all()
        path = combine_path(self._paths[0], segment(self._name))
        response = self._fetch(path, self._get_params)
        item = response.object()
        version = dig(item, "metadata", kind=dict).get("resourceVersion") or None
        try:
            check_version(version)
        except ValueError:
            raise response.error("the server sent no object") from None
        if dig(item, "kind") in ("Status", "Table") or dig(item, "metadata", "name") != self._name:
            raise response.error("the server sent no object")
        return version, self._state.replace([item], version)

    def _patience(self) -> float:
        return 0.0  # every state, as documented


class Poller(Task):
    """Asks for `url` every `metrics_period` seconds; slower while it fails."""

    def __init__(
        self, transport: Transport, cluster: str, url: str, on_metrics: StreamResultsCb,
        on_error: Optional[Callable[[ApiError], None]],
    ) -> None:
        super().__init__("metrics", transport)
        self._cluster = cluster
        self._url = url
        self._on_metrics = on_metrics
        self._on_error = on_error

    def _run(self) -> None:
        failures = 0
        while not self.scope.cancelled:
            try:
                answer = self._get(self._cluster, self._url).json()
                failures = 0
                if isinstance(answer, dict) and "items" in answer:
                    answer = answer["items"] or []
                self._call(self._on_metrics, answer)
            except ApiError as error:
                if self.scope.cancelled:
                    return
                failures += 1
                self._call(self._on_error, error)
            slower = min(2 ** max(0, failures - 1), 6)
            self.scope.wait(self._settings.metrics_period * slower)

    def _failed(self, error: Exception) -> None:
        self._call(self._on_error, unexpected(error))


class Waiter(Watch):
    """What `wait_for` waits with: a list of one object, until that is as wanted."""

    def __init__(
        self, transport: Transport, cluster: str, url: str, name: str, condition: Any,
    ) -> None:
        segment(name)
        if not isinstance(condition, str):
            expect_callable(condition, "condition")
        params = {"fieldSelector": {"metadata.name": name}}
        super().__init__(transport, cluster, [check_path(url)], self._look, self._hear, params)
        self._name = name
        self._condition = condition
        self._done = Cancel()
        self._is_there = False
        self._item: Json = None  # as it was last
        self._result: Optional[Tuple[Json, Optional[BaseException]]] = None  # one or the other
        self._reported: Optional[ApiError] = None  # the last that was reported

    def result(self, timeout: Seconds) -> Json:
        """The object; TimeoutError that says what it last was, ApiError when the server refuses."""
        is_over = self._done.wait(FOREVER if timeout is None else timeout)
        if self._result:
            item, error = self._result
            if error:
                raise error
            return item
        if not is_over:
            wanted = "as wanted" if callable(self._condition) else self._condition
            text = "%s is not %s: %s" % (self._name, wanted, self._last())
            raise TimeoutError(text) from self._reported
        raise ApiError(0, "cancelled") if self.scope.cancelled else cast(ApiError, self._reported)

    def _last(self) -> str:
        if self._item is None:
            return "it is not there" if self._listed else str(self._reported or "no answer yet")
        if not self._is_there:
            return "it has gone"
        status = dig(self._item, "status", kind=dict)
        return "its status is %.300s" % json.dumps(status, default=str) if status else (
            "it has no status")

    # -- the watch's thread

    def _main(self) -> None:
        try:
            super()._main()
        finally:
            self._done.set()  # refused, cancelled with its client, or worse

    def _patience(self) -> float:
        return 0.0  # every state: the condition may hold for a moment only

    def _hear(self, error: ApiError, _: Action) -> None:
        self._reported = error

    def _look(self, items: List[Json]) -> None:
        item = next((item for item in items if dig(item, "metadata", "name") == self._name), None)
        if item and self._item and self._condition == "deleted":
            if object_key(item) != object_key(self._item):
                item = None  # it went, and one of its name came, while nobody watched
        self._item = item or self._item
        self._is_there = item is not None
        error: Optional[BaseException] = None
        try:
            is_over = self._is_met(item)
        except BaseException as failure:  # the caller's own function: it is the caller's to know
            is_over, error = True, failure
        if is_over:
            self._result = self._result or (self._item, error)  # the first counts
            self._done.set()

    def _is_met(self, item: Json) -> bool:
        if self._condition == "deleted":
            return item is None
        if callable(self._condition):
            return item is not None and bool(self._condition(item))
        conditions = dig_list(item, "status", "conditions")
        wanted = (self._condition.lower(), "true")  # in any case, as for `kubectl wait`
        return any((dig(condition, "type").lower(), dig(condition, "status").lower()) == wanted
                   and is_up_to_date(item, condition) for condition in conditions)


def is_up_to_date(item: Json, condition: Json) -> bool:
    """Whether a condition is of the object as it is now; `kubectl wait` asks that too."""
    observed = dig(condition, "observedGeneration", kind=int)
    observed = observed or dig(item, "status", "observedGeneration", kind=int)
    return not observed or observed >= dig(item, "metadata", "generation", kind=int)


# ------------------------------------------------------------------------------
# 12. Resources
#
# API clients for one resource or for several endpoints that may have it, what
# discovery says, and apply. They know paths and bodies, and no credentials.
# ------------------------------------------------------------------------------


class Endpoints:
    """One or several (group, version, resource), of which a server has one.

    The one that answered last is asked first. Any thread may say which: each is right.
    """

    def __init__(self, transport: Transport, endpoints: Iterable[Sequence[str]]) -> None:
        self.info = [self._info(endpoint) for endpoint in endpoints]
        if not self.info:
            raise ValueError("no endpoint given")
        self._transport = transport
        self._answered: Dict[str, ApiInfo] = {}  # by cluster

    @staticmethod
    def _info(endpoint: Sequence[str]) -> ApiInfo:
        if isinstance(endpoint, str) or len(endpoint) != 3:
            raise TypeError("an endpoint is (group, version, resource)")

        group, version, resource = endpoint
        api_root(group, version)
        segment(resource, "resource")
        return {"group": group, "version": version, "resource": resource}

    def _collections(self, cluster: str, namespace: str) -> Dict[str, ApiInfo]:
        """The endpoints by the path of their collection, in the order to ask them in."""
        last = self._answered.get(cluster)
        paths = {}
        for info in sorted(self.info, key=lambda info: info is not last):
            root = api_root(info["group"], info["version"])
            paths[collection_path(root, info["resource"], namespace)] = info
        return paths

    def send(
        self,
        method: str,
        namespace: str,
        item: str,
        body: Json,
        params: Params,
        cluster: ClusterName,
        **options: Any,
    ) -> Json:
        """A request for `item`, a path below the collection ("" for itself); its parsed answer."""
        cluster = self._transport.cluster(cluster)
        for path, info in self._collections(cluster, namespace).items():
            try:
                answer = self._transport.send(
                    method, path + item, cluster, body=body, params=params, **options)
                self._answered[cluster] = info
                return answer.json()
            except ApiError as error:
                if not api_is_missing(error):
                    raise
                missing = error
        raise missing

    def patch(
        self, namespace: str, item: str, body: Json, params: Params, cluster: ClusterName
    ) -> Json:
        """A patch for `item`, with pretty=true, as documented."""
        params = {**(params or {}), "pretty": True}
        headers = {"Content-Type": patch_type(body)}
        return self.send("PATCH", namespace, item, body, params, cluster, headers=headers)

    def watch(
        self, kind: Callable[..., Watch], namespace: str, cluster: ClusterName, *rest: Any
    ) -> Action:
        """Start a Watch or ItemWatch (`kind`) in the collection; the function that cancels."""
        cluster = self._transport.cluster(cluster)
        collections = self._collections(cluster, namespace)

        def answered(path: str) -> None:
            self._answered[cluster] = collections[path]

        return kind(self._transport, cluster, list(collections), *rest, answered).start().cancel


def endpoints_in(args: Sequence[Any]) -> List[Any]:
    """The endpoints that a factory was given: one spelled out, or several of them."""
    return [args] if args and isinstance(args[0], str) else list(args)


def collection_path(root: str, resource: str, namespace: str) -> str:
    """Where a resource's objects are: in one namespace, or ("") all of them."""
    if namespace:
        root += "/namespaces/" + segment(namespace, "namespace")
    return root + "/" + segment(resource, "resource")


def item_path(name: str, subresource: str = "") -> str:
    """What follows a collection's path."""
    return "/" + segment(name) + subresource


def names_in(body: Json) -> Tuple[str, str]:
    """(namespace, name) in an object's metadata, "" where there is none."""
    metadata = body.get("metadata") if isinstance(body, Mapping) else None
    if not isinstance(metadata, Mapping):
        raise ValueError("the body has no metadata")
    return metadata.get("namespace") or "", metadata.get("name") or ""


def patch_type(body: Json) -> str:
    """JSON patch (RFC 6902) for a list of operations, merge patch (RFC 7386) for a mapping."""
    if isinstance(body, Mapping):
        return "application/merge-patch+json"

    expect(body, (list, tuple, Mapping), "patch")
    return "application/json-patch+json"


class ObjectCalls:
    """What API clients of both kinds do alike: calls whose body says where they go."""

    is_namespaced = False

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self.api_info = endpoints.info

    def post(self, body: Json, query_params: Params = None, cluster: ClusterName = None) -> Json:
        """Create `body`, in the namespace that it names; the object as the server made it."""
        namespace, _ = names_in(body)
        return self._send("POST", namespace, "", body, query_params, cluster)

    def put(self, body: Json, query_params: Params = None, cluster: ClusterName = None) -> Json:
        """Replace the object that `body` names; with a resourceVersion, only that version."""
        namespace, name = names_in(body)
        return self._send("PUT", namespace, item_path(name), body, query_params, cluster)

    def _send(self, method: str, namespace: str, *rest: Any) -> Json:
        return self._endpoints.send(method, namespace if self.is_namespaced else "", *rest)


class ApiClient(ObjectCalls):
    """Calls for a cluster-scoped resource; made by `api_factory`. `api_info`: its endpoints."""

    def list(
        self,
        cb: ItemsCb,
        err_cb: StreamErrCb,
        query_params: Params = None,
        cluster: ClusterName = None,
    ) -> Action:
        """As Client.stream_results; gives the function that cancels."""
        return self._endpoints.watch(Watch, "", cluster, cb, err_cb, query_params)

    def get(
        self,
        name: str,
        cb: ItemCb,
        err_cb: StreamErrCb,
        query_params: Params = None,
        cluster: ClusterName = None,
    ) -> Action:
        """As Client.stream_result; gives the function that cancels."""
        return self._endpoints.watch(ItemWatch, "", cluster, name, cb, err_cb, query_params)

    def patch(
        self, body: Json, name: str, query_params: Params = None, cluster: ClusterName = None
    ) -> Json:
        """Change one object: a list is a JSON patch, a mapping a merge patch."""
        return self._endpoints.patch("", item_path(name), body, query_params, cluster)

    def delete(self, name: str, query_params: Params = None, cluster: ClusterName = None) -> Json:
        """Delete one object; the server's Status, or the object while it is going."""
        return self._endpoints.send("DELETE", "", item_path(name), None, query_params, cluster)


class NamespacedApiClient(ObjectCalls):
    """As ApiClient, for a namespaced resource. "" is all namespaces, where that can be.

    Made by `api_factory_with_namespace`. `scale` is None unless it was asked for there.
    """

    is_namespaced = True
    scale: Optional[ScaleApi] = None

    def list(
        self,
        namespace: str,
        cb: ItemsCb,
        err_cb: StreamErrCb,
        query_params: Params = None,
        cluster: ClusterName = None,
    ) -> Action:
        """As Client.stream_results; gives the function that cancels."""
        return self._endpoints.watch(Watch, namespace, cluster, cb, err_cb, query_params)

    def get(
        self,
        namespace: str,
        name: str,
        cb: ItemCb,
        err_cb: StreamErrCb,
        query_params: Params = None,
        cluster: ClusterName = None,
    ) -> Action:
        """As Client.stream_result; gives the function that cancels."""
        return self._endpoints.watch(
            ItemWatch, namespace, cluster, name, cb, err_cb, query_params)

    def patch(
        self,
        body: Json,
        namespace: str,
        name: str,
        query_params: Params = None,
        cluster: ClusterName = None,
    ) -> Json:
        """Change one object: a list is a JSON patch, a mapping a merge patch."""
        return self._endpoints.patch(namespace, item_path(name), body, query_params, cluster)

    def delete(
        self,
        namespace: str,
        name: str,
        query_params: Params = None,
        cluster: ClusterName = None,
    ) -> Json:
        """Delete one object; the server's Status, or the object while it is going."""
        return self._endpoints.send(
            "DELETE", namespace, item_path(name), None, query_params, cluster)


class ScalableApiClient(NamespacedApiClient):
    """A NamespacedApiClient whose resource has a scale."""

    scale: ScaleApi

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(endpoints)
        self.scale = ScaleApi(endpoints)


class ScaleApi:
    """The scale subresource of a namespaced resource."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def get(self, namespace: str, name: str, cluster_name: ClusterName = None) -> Json:
        """The Scale of one object."""
        return self._endpoints.send(
            "GET", namespace, item_path(name, "/scale"), None, None, cluster_name)

    def put(self, body: Json, cluster_name: ClusterName = None) -> Json:
        """Set `spec.replicas` of the object that `body["metadata"]` names."""
        namespace, name = names_in(body)
        return self._endpoints.send(
            "PUT", namespace, item_path(name, "/scale"), body, None, cluster_name)

    def patch(
        self, body: Json, namespace: str, name: str, cluster_name: ClusterName = None
    ) -> Json:
        """Change the Scale of one object: {"spec": {"replicas": 3}}."""
        return self._endpoints.patch(
            namespace, item_path(name, "/scale"), body, None, cluster_name)


Resource = Tuple[str, bool]  # of a kind: its name in paths ("deployments"), whether namespaced


class Discovery:
    """What is remembered of the resources that servers have, `discovery_ttl` long.

    No lock: what was learned for a cluster goes into the dict that was the cluster's when it was
    asked, so an answer that comes after `forget` is forgotten with it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._learned: Dict[str, Dict[str, Tuple[float, Dict[str, Resource]]]] = {}  # cluster, root

    def forget(self, cluster: str) -> None:
        """The name belongs to another server now, or to none."""
        self._learned.pop(cluster, None)

    def find(
        self, cluster: str, root: str, kind: str, scope: Scope, afresh: bool,
    ) -> Resource:
        """What a kind is under an API's root: from memory unless `afresh`, but asked again before
        saying no.
        """
        learned = self._learned.setdefault(cluster, {})
        at, resources = learned.get(root, (0.0, {}))

        old = time.monotonic() - at > self._transport.settings.discovery_ttl
        if afresh or old or kind not in resources:  # a CRD may have come, or changed, since
            answer = self._transport.send("GET", root, cluster, scope=scope, auto_logout=False)
            resources = read_resources(answer)
            learned[root] = time.monotonic(), resources
        if kind not in resources:
            message = "the server has no kind %s in %s" % (kind, root)
            raise ApiError(404, message, phrase="Not Found", method="GET", url=root)
        return resources[kind]


def read_resources(answer: Response) -> Dict[str, Resource]:
    """The resources in an APIResourceList, by kind; ApiError for anything else."""
    resources: Dict[str, Resource] = {}
    entries = answer.object().get("resources") or []  # Go writes null for an empty list
    for entry in entries if isinstance(entries, list) else [entries]:
        name, kind = dig(entry, "name"), dig(entry, "kind")
        if not name or not kind:
            raise answer.error("discovery sent what is no resource: %.80r" % (entry,))

        if re.fullmatch(r"\w[-\w.]*", name):  # not pods/eviction
            resources.setdefault(kind, (name, dig(entry, "namespaced", kind=bool)))
    return resources


# -- apply ---------------------------------------------------------------------------

APPLY_ATTEMPTS = 10  # with 5, of 12 who apply one object at once 1 in 10 failed (measured, 1.20)

# Laid over key by key wherever they hold each other, the object itself ("") first. All else that a
# manifest names is replaced: a key taken out of a ConfigMap's data goes, so does a list's item.
LAID_OVER = frozenset(
    ("", "metadata", "spec", "template", "jobTemplate", "labels", "annotations", "status"))

# The server's own books: old copies of them would be refused, or undo others' entries.
BOOKS: Dict[str, None] = dict.fromkeys(
    ("resourceVersion", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds"))

# What servers and controllers write into parts that are replaced whole, by the name of the part.
WRITTEN_IN = {
    "ports": ("nodePort",),  # a Service's; 1.22 and later keep it themselves
    "clientConfig": ("caBundle",),  # of webhooks and conversions, from cert-manager's injector
    "claimRef": ("apiVersion", "kind", "uid", "resourceVersion"),  # a bound PersistentVolume's
}


def lay_over(live: Json, value: Json, where: str = "", by_key: bool = True) -> Json:
    """`live` with what `value` names as it says, and the rest as it is. Neither is changed.

    None takes a key away, as `kubectl apply` has it: a map of text would keep it as "".

    where   the key of both in what holds them
    by_key  whether that is laid over by key itself
    """
    if isinstance(value, list):
        known = {identity(item): item for item in live} if isinstance(live, list) else {}
        return [lay_over(known.get(identity(item)), item, where, False) for item in value]
    if not isinstance(value, dict):
        return value

    by_key = by_key and where in LAID_OVER
    if not isinstance(live, dict) or not by_key and identity(live) != identity(value):
        live = {}
    stays = live if by_key else WRITTEN_IN.get(where, ())
    laid = {key: live[key] for key in stays if key in live and key not in value}
    for key, item in value.items():
        if item is not None:
            laid[key] = lay_over(live.get(key), item, key, by_key)
    return laid


def identity(item: Json) -> Any:
    """What tells an item of a list, or an object that is referred to, from others."""
    if not isinstance(item, dict):
        return None
    keys = ("port", "protocol") if "port" in item else ("namespace", "name")
    return tuple(str(item.get(key, "TCP")) for key in keys)  # a port without protocol is TCP's


def with_metadata(body: Json, **changes: Any) -> Json:
    """A copy of `body` with other metadata; None takes away."""
    metadata = {**body["metadata"], **changes}
    return {**body, "metadata": {
        key: value for key, value in metadata.items() if value is not None or key not in changes}}


def plain_json(value: Any, path: str = "") -> Json:
    """A copy of `value` as JSON: dates become text (RFC 3339), as kubectl sends those of YAML.

    ValueError, with the path but never the value, for anything else that JSON has not.
    """
    import datetime  # only here

    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError("%s has a key that is no text: %r" % (path or "the object", key))
        return {key: plain_json(item, (path and path + ".") + key) for key, item in value.items()}

    if isinstance(value, (list, tuple)):
        return [plain_json(item, "%s[%d]" % (path, index)) for index, item in enumerate(value)]
    if isinstance(value, datetime.date):
        text = value.isoformat()
        if isinstance(value, datetime.datetime) and value.tzinfo is None:
            text += "Z"  # YAML: a time without a zone is in UTC
        return text.replace("+00:00", "Z")

    is_plain = value is None or isinstance(value, (str, int))
    if is_plain or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError("%s is a %s that JSON has not" % (path, type(value).__name__))


def check_applicable(body: Json) -> Json:
    """A copy of `body` as JSON; TypeError or ValueError for what can't be applied."""
    expect(body, Mapping, "object to apply")
    try:
        manifest = plain_json(body)
    except RecursionError:
        raise ValueError("the object to apply holds itself, or is nested too deep") from None

    for key in ("apiVersion", "kind"):
        if not dig(manifest, key):
            raise ValueError("the object to apply has no %s" % key)
    kind = manifest["kind"]
    if kind == "List" or "items" in manifest and kind.endswith("List"):
        raise ValueError("apply takes one object: apply each of the %s's items" % kind)

    namespace, name = names_in(manifest)
    if not name and manifest["metadata"].get("generateName"):
        raise ValueError("an object with generateName can't be applied: post it")
    segment(name, "metadata.name")
    if namespace:
        segment(namespace, "metadata.namespace")
    return manifest


class Apply:
    """One object on its way to one cluster. All of it has `request_timeout` seconds."""

    def __init__(
        self,
        transport: Transport,
        discovery: Discovery,
        cluster: str,
        body: Json,
        field_manager: Optional[str],
        force: bool,
        dry_run: bool,
    ) -> None:
        expect(field_manager, (str, type(None)), "field_manager")
        if field_manager == "" or (force and field_manager is None):
            raise ValueError("field_manager can't be empty, and force needs one")

        self._transport = transport
        self._discovery = discovery
        self._cluster = cluster
        self._body = check_applicable(body)
        self._field_manager = field_manager
        self._scope = Scope(transport.settings.request_timeout)
        params = {
            "fieldManager": field_manager,
            "force": bool(force) if field_manager else None,
            "dryRun": "All" if dry_run else None,
        }
        self._send = functools.partial(
            transport.send, cluster=cluster, params=params, scope=self._scope)
        self._manifest: Json = {}  # the body, with the namespace that it goes to
        self._collection = ""
        self._item = ""

    def run(self) -> Json:
        """Do it; the server's answer."""
        self._aim()
        try:
            return self._work()
        except ApiError as error:
            missed = self._item
            if not api_is_missing(error):
                raise
            self._aim(afresh=True)  # a CRD may have come back with another scope
            if self._item == missed:
                raise
        return self._work()

    def _aim(self, afresh: bool = False) -> None:
        root = api_root(*split_api_version(self._body["apiVersion"]))
        plural, is_namespaced = self._discovery.find(
            self._cluster, root, self._body["kind"], self._scope, afresh)

        namespace, name = names_in(self._body)
        if not is_namespaced:
            namespace = ""
        elif not namespace:
            namespace = self._transport.namespace(self._cluster)

        self._collection = collection_path(root, plural, namespace)
        self._item = self._collection + item_path(name)
        self._manifest = with_metadata(self._body, namespace=namespace or None)

    def _work(self) -> Json:
        if self._field_manager:
            self._manifest = with_metadata(self._manifest, managedFields=None)  # as they were read
            return self._patch("application/apply-patch+yaml")

        version = self._manifest["metadata"].get("resourceVersion")
        new = lay_over({}, with_metadata(self._manifest, resourceVersion=None))  # no POST has one

        for _ in range(APPLY_ATTEMPTS):
            try:
                return self._send("POST", self._collection, body=new).json()
            except ApiError as error:
                if error.reason != "AlreadyExists" and error.status not in (403, 422):
                    raise
                refusal = error

            try:
                live = self._live(refusal)
                if version:
                    return self._send("PUT", self._item, body=self._manifest).json()
                return self._change(live)
            except ApiError as error:
                if error.status not in (404, 409) or version:
                    raise
                refusal = error
        raise refusal

    def _live(self, refusal: ApiError) -> Json:
        """What is there; the refusal to create it, where nothing is or can be seen."""
        try:
            answer = self._send("GET", self._item)
        except ApiError as error:
            if error.status in (403, 404) and refusal.status != 409:
                raise refusal from None
            raise

        live = answer.object()
        if not dig(live, "metadata", "resourceVersion"):
            raise answer.error("the server sent no object, or one without a resourceVersion")
        return live

    def _change(self, live: Json) -> Json:
        self._manifest = with_metadata(self._manifest, **BOOKS)
        try:
            body = lay_over(live, self._manifest)
            return self._send("PUT", self._item, body=body).json()
        except ApiError as error:
            if error.status != 422:
                raise

        # Its lists may lack what the server filled in and lets nobody take away (a scheduled Pod).
        try:
            return self._patch("application/strategic-merge-patch+json")
        except ApiError as error:
            if error.status != 415:  # no custom resource takes it
                raise
        return self._patch("application/merge-patch+json")

    def _patch(self, content_type: str) -> Json:
        headers = {"Content-Type": content_type}
        return self._send("PATCH", self._item, body=self._manifest, headers=headers).json()


# ------------------------------------------------------------------------------
# 13. Direct and Headlamp
#
# What Headlamp does for its pages, by the same methods: done by this program, where
# no Headlamp stands before a cluster, or by the server.
# ------------------------------------------------------------------------------

TRANSIENT = (408, 429, 500, 502, 503, 504)  # the server is busy, or away for a while
LAST_LOOK = 10.0  # seconds, when a drain's time is up, to see which pods have stayed
ACCEPT_WAIT = 0.5  # seconds: where shutdown() does not wake accept(), so late is a cancel seen
BACKLOG = 128  # connections that may wait to be accepted
UPLOAD = 512 * KiB  # bytes to a pod at once: 100 MB took 0.8 of the time of pieces of 64 KiB
REOPEN_WAIT = 1.0  # seconds for a tunnel that was idle: then it may be dead

Key = Tuple[str, str]  # a cluster's name and that of a node, or the id of a port forward


class Pod:
    """One pod for good; `uid` "" where it is not known: another pod may come to have its name."""

    def __init__(self, namespace: str, name: str, uid: str = "") -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uid

    def __str__(self) -> str:
        return "%s/%s" % (self.namespace, self.name)

    @property
    def path(self) -> str:
        """Where the API server has it; ValueError for names that can't be."""
        names = segment(self.namespace, "namespace"), segment(self.name, "pod")
        return "/api/v1/namespaces/%s/pods/%s" % names


class Api:
    """A cluster's API server, for as long as `scope` lasts."""

    def __init__(self, transport: Transport, cluster: str, scope: Scope) -> None:
        self._transport = transport
        self._cluster = cluster
        self._scope = scope

    def send(self, method: str, path: str, **options: Any) -> Response:
        """A request as Transport.send has it, of no more than `request_timeout`."""
        scope = self._scope.within(self._transport.settings.request_timeout)
        return self._transport.send(method, path, self._cluster, scope=scope, **options)

    def get_pod(self, pod: Pod) -> Json:
        """The pod as it is now; ApiError 404 when it has gone, though another has its name."""
        live = self.send("GET", pod.path).object()
        if pod.uid and dig(live, "metadata", "uid") != pod.uid:
            raise ApiError(404, "the pod %s has gone" % pod)
        return live


# -- drains --------------------------------------------------------------------------


def must_go(pod: Json) -> bool:
    """Whether a drain evicts the pod, as kubectl decides it."""
    is_mirror = "kubernetes.io/config.mirror" in dig(pod, "metadata", "annotations", kind=dict)
    is_finished = dig(pod, "status", "phase") in ("Succeeded", "Failed")
    owners = dig_list(pod, "metadata", "ownerReferences")
    controllers = [dig(owner, "kind") for owner in owners if dig(owner, "controller", kind=bool)]
    return not is_mirror and (is_finished or "DaemonSet" not in controllers)


class Drain(Task):
    """Cordons a node and evicts the pods that it has then.

    As `kubectl drain --ignore-daemonsets --delete-emptydir-data --force`: pods of DaemonSets stay
    unless they have finished, and mirror pods stay; pods without a controller go, and what is in
    an emptyDir goes with its pod. What is refused is asked again until `drain_timeout`.

    status  "" while it runs, then "success", or "error: " and why, with each pod that stayed
    """

    def __init__(self, transport: Transport, cluster: str, node: str) -> None:
        super().__init__("drain", transport)
        seconds = self._settings.drain_timeout
        self.status = ""
        self._api = Api(transport, cluster, self.scope.within(seconds + LAST_LOOK))
        self._end = time.monotonic() + seconds
        self._node = node
        self._reasons: Dict[Pod, str] = {}  # why each is still there

    def _run(self) -> None:
        try:
            self._drain()
            self.status = "success"
        except (ApiError, ValueError) as error:  # the latter: the cluster was taken away meanwhile
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.status = "error: %s" % ("cancelled" if self.scope.cancelled else error)

    def _drain(self) -> None:
        self._ask(
            "PATCH", "/api/v1/nodes/" + segment(self._node),
            body={"spec": {"unschedulable": True}},
            headers={"Content-Type": "application/merge-patch+json"})
        pods = self._pods()

        refused = [pod for pod in pods if not self._evict(pod)]
        while refused and self._pause():
            refused = [pod for pod in refused if not self._evict(pod)]

        stayed = [pod for pod in pods if not self._leaves(pod)]
        if stayed:
            reasons = ["%s: %s" % (pod, self._reasons[pod]) for pod in stayed]
            raise ApiError(408, "still there: " + "; ".join(reasons))

    def _pods(self) -> List[Pod]:
        """Those to evict, listed once: what comes later is not ours to remove."""
        selector = {"fieldSelector": "spec.nodeName=" + self._node}
        pods = []

        for pod in filter(must_go, self._ask("GET", "/api/v1/pods", params=selector).items()):
            names = [dig(pod, "metadata", key) for key in ("namespace", "name", "uid")]
            if not all(names):
                raise ApiError(0, "the server listed a pod without a namespace, name or uid")
            pods.append(Pod(*names))
        return pods

    def _evict(self, pod: Pod) -> bool:
        """Whether it is on its way; else the server's reason is kept."""
        # Without an apiVersion it is the server's own: policy/v1beta1 up to Kubernetes 1.21.
        eviction = {
            "metadata": {"name": pod.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }

        try:
            self._api.send("POST", pod.path + "/eviction", body=eviction)
        except ApiError as error:
            self._reasons[pod] = str(error)
            return self._has_gone(pod)  # or another has its name, which a budget keeps
        self._reasons[pod] = "it was evicted, and has not ended yet"
        return True

    def _leaves(self, pod: Pod) -> bool:
        """Wait until it has gone; False when the time is up first.

        One after the other: that takes one request for each pod and one for each interval.
        """
        while not self._has_gone(pod):
            if not self._pause():
                return False
        return True

    def _has_gone(self, pod: Pod) -> bool:
        try:
            self._api.get_pod(pod)
        except ApiError as error:
            if error.status == 404:
                return True
            self._reasons[pod] = str(error)
        return False

    def _ask(self, method: str, path: str, **options: Any) -> Response:
        """What may be asked again and again while the server is busy or away."""
        while True:
            try:
                return self._api.send(method, path, **options)
            except ApiError as error:
                if error.status not in TRANSIENT or not self._pause():
                    raise

    def _pause(self) -> bool:
        """Wait before the next try; whether there is time for one."""
        interval = self._settings.drain_interval
        left = self._end - time.monotonic()

        if self.scope.wait(min(left, interval)):
            raise ApiError(0, "cancelled")
        return left > interval


# -- port forwards -------------------------------------------------------------------


def listen(address: str, port: int) -> socket.socket:
    """A listener; ValueError for what is no address, ApiError where it can't be had."""
    host = "127.0.0.1" if not address or address == "localhost" else address
    flags = socket.AI_NUMERICHOST
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)[0]
    except (OSError, ValueError) as error:
        raise ValueError("address is an IP address or localhost, not %r" % address) from error

    try:
        listener = Socket(family, socket.SOCK_STREAM)
        # Windows gives the port to whoever asks for it next, too, unless it is ours alone.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, True)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError as error:
        raise ApiError(0, "can't listen on %s port %d: %s" % (host, port, error)) from error
    listener.settimeout(ACCEPT_WAIT)
    return listener


class PortForward(Task):
    """A local listener whose connections go to a port of a pod.

    It ends when it is cancelled, or when its pod is gone or has finished; its scope is cancelled
    then, and its connections end with it.

    record  what is listed of it; "error" is its own or that of its last connection that failed
    idle    tunnels that wait for a connection: its own thread takes them, any may append one
    """

    def __init__(
        self, transport: Transport, record: Dict[str, str], pod: Pod, listener: socket.socket,
    ) -> None:
        super().__init__("forward", transport)
        self.record = record
        self.idle: Deque[Tunnel] = collections.deque()
        self._pod = pod
        self._listener = listener

    def forked(self) -> None:
        """The port is the parent's alone."""
        super().forked()
        self._listener.close()

    def way(self) -> Tuple[Optional[Endpoint], Optional[Credential]]:
        """What a tunnel must have been opened with to be used now."""
        base = self._settings.base_url
        return self._transport.credentials.of(self.record["cluster"], base)

    def _run(self) -> None:
        try:
            self._accept()
        except (ApiError, ValueError) as error:  # the latter: the cluster was taken away meanwhile
            self._failed(error)
        finally:
            self.scope.cancel()  # from now on it is listed as stopped
            self._listener.close()
            cancel_all([
                task for task in list(self._transport.tasks)
                if isinstance(task, ForwardedConnection) and task.forward is self])
            self._sweep(math.inf)

    def _failed(self, error: Exception) -> None:
        self.record["error"] = str(error)

    def _accept(self) -> None:
        looked = time.monotonic()

        while not self.scope.cancelled:
            self._sweep(time.monotonic() - self._settings.keep_alive)
            if time.monotonic() - looked >= self._settings.forward_check:
                self._check_pod()
                looked = time.monotonic()
            self.scope.hold(lambda: shut(self._listener))  # wakes accept(); the look is done

            try:
                local, _ = self._listener.accept()
            except socket.timeout:
                continue
            except OSError:
                self.scope.wait(ACCEPT_WAIT)  # too many open files: they may become fewer
                continue

            tunnel = self.idle.pop() if self.idle else None  # the one used last
            try:
                ForwardedConnection(self._transport, self, local, tunnel).start()
            except RuntimeError as error:  # no more threads: they may become fewer, too
                self._failed(error)
                local.close()
                if tunnel:
                    tunnel.remote.abort()

    def _sweep(self, oldest: float) -> None:
        """Close the tunnels that nobody has used since then (monotonic)."""
        while self.idle and self.idle[0].used < oldest:
            self.idle.popleft().remote.abort()

    def _check_pod(self) -> None:
        """ApiError when no connection can reach it any more."""
        scope = self.scope.within(self._settings.forward_check)
        try:
            pod = Api(self._transport, self.record["cluster"], scope).get_pod(self._pod)
        except ApiError as error:
            if error.status == 404:
                raise
            return  # that says nothing of the pod
        check_running(pod)


class Channels:
    """One forwarded connection over one WebSocket.

    The protocol can't tell the pod that the local side has no more to say.
    """

    protocol = "v4.channel.k8s.io"
    pause = math.inf

    def __init__(self, remote: WebSocket) -> None:
        self.remote = remote

    def send(self, data: bytes) -> None:
        """To the pod."""
        self.remote.send(b"\0" + data)

    def finish(self) -> bool:
        """Nobody can be told."""
        return False

    def receive(self) -> Iterator[Bytes]:
        """What the pod says; at the end a WebSocketError for what went wrong there."""
        begun: Set[int] = set()  # 0 for data, 1 for an error; each begins with the port's number

        for message in self.remote:
            if not message or isinstance(message, str):
                continue

            channel, data = message[0], message[1:]
            if channel not in begun:
                begun.add(channel)
            elif channel == 0:
                yield data
            elif data:
                raise WebSocketError(0, data.decode("utf-8", "replace").strip())


# SPDY/3.1: the types of frames, control frames' first bits, and the flag that ends a stream
DATA, SYN_STREAM, SYN_REPLY, RST_STREAM = -1, 1, 2, 3
CONTROL = 0x80030000
FIN = 1 << 24


class Tunnel:
    """Forwarded connections, one after another, over one WebSocket: SPDY/3.1 in its messages.

    The API server's from 1.31 on (KEP-4006), as kubectl uses it: no handshake, and none of the
    kubelet's, for each connection. Each is two streams, for data and for an error. The other end,
    moby/spdystream, has no flow control, so one that nobody reads would stop all others: hence one
    at a time.
    """

    protocol = "SPDY/3.1+portforward.k8s.io"

    def __init__(self, remote: WebSocket, way: Any) -> None:
        self.remote = remote
        # A PING of SPDY's (2.6.5), its id no stream's: an API server that has lost its kubelet
        # ends nothing before it has read something (1.37), and the WebSocket's pings don't count.
        remote.ping_message = BINARY, _words(CONTROL | 6, 4, CONTROL - 1)
        self.way = way  # what it was opened with
        self.used = 0.0  # monotonic: when its last connection ended
        self.is_free = False  # that ended as it should
        self.pause = 0.0  # seconds without a word that are more than the way and back
        self._data = -1  # the stream of this connection; that for an error is two before it
        self._buffer = bytearray()
        self._kept: List[Tuple[int, int, int, Bytes]] = []  # a frame that came before its turn
        self._deflate = zlib.compressobj()  # without 3.1's dictionary: Go's reader takes both

    def open(self, port: str, seconds: float) -> None:
        """Begin a connection; an ApiError or TimeoutError where it can't be had."""
        self.is_free = False
        end_of_last = _words(self._data, FIN) if self.used else b""
        self._data += 4
        self.remote.send(end_of_last + self._syn("error", self._data - 2, FIN, port)
                         + self._syn("data", self._data, 0, port))

        # What is sent before the reply is lost. One alone may come, where an older stream that
        # nobody reads holds up the other; or after what is said, the two not being in order.
        streams = self._data - 2, self._data
        awaited = set(streams)
        began = time.monotonic()
        while awaited:
            frame = kind, stream, _, _ = self._frame(began + seconds - time.monotonic())
            if kind == SYN_REPLY:
                awaited.discard(stream)
            elif stream in streams:
                self._kept.append(frame)
                break
        self.pause = 4 * (time.monotonic() - began)

    def send(self, data: bytes) -> None:
        """To the pod."""
        self.remote.send(_words(self._data, len(data)) + data)

    def finish(self) -> bool:
        """The local side has no more to say."""
        self.remote.send(_words(self._data, FIN))
        return True

    def receive(self) -> Iterator[Bytes]:
        """What the pod says, b"" for its end; at the end of all as Channels'."""
        said = b""
        left = {self._data, self._data - 2}
        while left:
            kind, stream, flags, payload = self._frame(None)
            if stream not in left:
                continue
            if kind == DATA and stream != self._data:
                said = (said + payload)[:MAX_HEAD]
            elif kind == DATA and payload:
                yield payload
            if kind == RST_STREAM or flags & FIN:
                left.discard(stream)
                if stream == self._data:
                    yield b""

        if said:
            raise WebSocketError(0, said.decode("utf-8", "replace").strip())
        self.is_free = True

    def _syn(self, kind: str, stream: int, flags: int, port: str) -> bytes:
        """SYN_STREAM (2.6.1)."""
        headers = {"streamtype": kind, "port": port, "requestid": str(self._data)}
        block = _words(len(headers))
        for text in itertools.chain(*headers.items()):
            block += _words(len(text)) + text.encode()
        block = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _words(CONTROL | SYN_STREAM, flags | 10 + len(block), stream, 0) + bytes(2) + block

    def _frame(self, timeout: Seconds) -> Tuple[int, int, int, Bytes]:
        """The type, stream, flags and payload of the next frame (2.2)."""
        if self._kept:
            return self._kept.pop()
        buffer = self._buffer
        while True:
            word, size = int.from_bytes(buffer[:4], "big"), int.from_bytes(buffer[5:8], "big")
            if len(buffer) >= 8 + size:
                flags, payload = buffer[4] << 24, buffer[8:8 + size]
                del buffer[:8 + size]
                if word < CONTROL:
                    return DATA, word, flags, payload
                return word - CONTROL, int.from_bytes(payload[:4], "big"), flags, payload
            message = self.remote.recv(timeout)
            if isinstance(message, bytes):
                buffer += message


def _words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


class ForwardedConnection(Task):
    """One connection. Its thread brings bytes from the pod, a second one those to the pod.

    When the local side has no more to say, the pod's answer is passed on until it has been silent
    for `forward_linger`. To be told gives the pod a second and no more (containerd, CRI-O), so it
    is told only when it has answered what was said last, and was silent for a while then.
    """

    def __init__(
        self, transport: Transport, forward: PortForward, local: socket.socket,
        tunnel: Optional[Tunnel],
    ) -> None:
        super().__init__("forwarded", transport)
        self.forward = forward
        self._local = local
        self._carrier: Union[Channels, Tunnel, None] = tunnel
        self._heard = 0.0  # monotonic: when the pod said something
        self._ended = threading.Event()  # it says no more
        self._uploader = new_thread("upload", self._upload)

    def close(self) -> None:
        """What cancel does first: end both sides."""
        if self._carrier:
            self._carrier.remote.abort()
        shut(self._local)

    def forked(self) -> None:
        """It is the parent's."""
        super().forked()
        self._local.close()

    def _run(self) -> None:
        try:
            self._local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            if not self._reopen():
                self._connect()
            self._uploader.start()
            self._download()
        except OSError:
            pass  # the local side has gone
        except (ApiError, RuntimeError) as error:  # the latter: there are no more threads
            if not self.scope.cancelled:
                self._failed(error)
        finally:
            self._end()

    def _failed(self, error: Exception) -> None:
        self.forward.record["error"] = str(error)
        log.info("a forwarded connection ended: %s", error)

    def _reopen(self) -> bool:
        """Whether the tunnel that we were given carries us."""
        tunnel = self._carrier
        if not isinstance(tunnel, Tunnel):
            return False
        self.scope.hold(self.close)
        try:
            if tunnel.way == self.forward.way():
                tunnel.open(self.forward.record["targetPort"], REOPEN_WAIT)
                return True
        except (ApiError, TimeoutError):
            pass  # it has ended while nobody used it
        tunnel.remote.abort()
        return False

    def _connect(self) -> None:
        record, way = self.forward.record, self.forward.way()
        path = Pod(record["namespace"], record["pod"]).path + "/portforward"
        params = {"ports": record["targetPort"]}
        protocols = [Tunnel.protocol, Channels.protocol]
        remote = self._transport.connect(
            record["cluster"], path, params, self.scope, protocols, ping_timeout=math.inf)

        tunnel = Tunnel(remote, way) if remote.protocol == Tunnel.protocol else None
        self._carrier = tunnel or Channels(remote)
        self.scope.hold(self.close)
        if tunnel:
            try:
                tunnel.open(record["targetPort"], self._settings.connect_timeout)
            except TimeoutError as error:
                raise unanswered(error, "GET", path, record["cluster"])

    def _end(self) -> None:
        """Let the local side have all that the pod said, then free everything.

        To close with bytes unread is a reset (RFC 1122 4.2.2.13), which takes along what has not
        arrived yet: so the other thread reads on for a while.
        """
        shut(self._local, socket.SHUT_WR)
        self._ended.set()

        carrier = self._carrier
        tunnel = carrier if isinstance(carrier, Tunnel) and carrier.is_free else None
        if carrier and not tunnel:
            carrier.remote.close()
        if self._uploader.ident:
            self._uploader.join(self._settings.forward_linger)
            if self._uploader.is_alive():
                self.close()
                self._uploader.join()

        self.scope.hold(None)
        self._local.close()
        if tunnel:
            tunnel.used = time.monotonic()
            self.forward.idle.append(tunnel)

    def _download(self) -> None:
        for data in cast(Union[Channels, Tunnel], self._carrier).receive():
            self._heard = time.monotonic()
            self._local.sendall(data, NO_SIGNAL)
            if not data:
                shut(self._local, socket.SHUT_WR)

    # -- the second thread

    def _upload(self) -> None:
        carrier = cast(Union[Channels, Tunnel], self._carrier)
        said = 0.0  # monotonic
        data = b""

        while True:
            try:
                # who waits for little holds little
                data = self._local.recv(UPLOAD if len(data) > 4 * KiB else CHUNK)
                if not data:
                    break
                if not self._ended.is_set():  # else it is thrown away
                    said = time.monotonic()  # before: to be answered may take less than to return
                    carrier.send(data)
            except ApiError:
                continue  # the pod has ended
            except OSError:
                self.scope.cancel()  # the local side has gone, for both directions
                return

        linger = self._settings.forward_linger
        pause = carrier.pause if self._heard >= said else linger
        if self._is_silent(min(pause, linger)):
            with contextlib.suppress(ApiError):
                if not carrier.finish() or self._is_silent(linger):
                    self.scope.cancel()

    def _is_silent(self, seconds: float) -> bool:
        """Wait until the pod has said nothing for so long; False when it has ended."""
        left = seconds
        while left > 0:
            if self._ended.wait(left):
                return False
            left = self._heard + seconds - time.monotonic()
        return True


# -- what a forward leads to -----------------------------------------------------------


def check_port(port: Any, what: str, least: int = 0) -> str:
    """A port's number in digits; ValueError for anything else."""
    if not re.fullmatch("[0-9]{1,5}", str(port)) or not least <= int(port) <= 65535:
        raise ValueError("%s is a number from %d to 65535, not %r" % (what, least, port))
    return str(int(port))


def check_target(port: Any) -> str:
    """A port's name (RFC 6335 5.1) or number; ValueError for anything else."""
    is_name = isinstance(port, str) and re.fullmatch("(?=.*[a-zA-Z])[a-zA-Z0-9-]{1,63}", port)
    return str(port) if is_name else check_port(port, "container_port", 1)


def check_running(pod: Json) -> None:
    """ApiError for a pod that is known not to run."""
    phase = dig(pod, "status", "phase")
    if phase not in ("", "Running"):
        raise ApiError(503, "the pod is not running: it is " + phase)


def pod_target(api: Api, pod: Pod, port: str) -> Tuple[Pod, str]:
    """The pod that has this name now, and the number of a container's port."""
    live = api.get_pod(pod)
    check_running(live)
    pod.uid = dig(live, "metadata", "uid")
    if port.isdigit():
        return pod, port

    for section in ("containers", "initContainers"):  # a sidecar is one of the latter
        for container in dig_list(live, "spec", section):
            for entry in dig_list(container, "ports"):
                if dig(entry, "name") == port:
                    return pod, str(dig(entry, "containerPort", kind=int))
    raise ApiError(404, "the pod %s has no port named %s" % (pod, port))


def service_target(api: Api, namespace: str, service: str, port: str) -> Tuple[Pod, str]:
    """A ready pod of a service, and the pod's port behind the service's, a number or a name."""
    names = segment(namespace, "namespace"), segment(service, "service")
    live = api.send("GET", "/api/v1/namespaces/%s/services/%s" % names).object()
    port_names = [
        dig(entry, "name") for entry in dig_list(live, "spec", "ports")
        if dig(entry, "protocol") in ("", "TCP")
        and port in (dig(entry, "name"), str(dig(entry, "port", kind=int)))
    ]

    if not port_names:
        raise ApiError(404, "the service %s has no TCP port %s" % (service, port))

    for group in service_groups(api, *names):
        pods = ready_pods(group)
        numbers = [dig(entry, "port", kind=int) for entry in dig_list(group, "ports")
                   if dig(entry, "name") == port_names[0]]
        if pods and numbers:
            return Pod(namespace, dig(pods[0], "name"), dig(pods[0], "uid")), str(numbers[0])
    raise ApiError(503, "the service %s has no ready pod" % service)


def service_groups(api: Api, namespace: str, service: str) -> List[Json]:
    """Its EndpointSlices, or the subsets of its Endpoints where a server has no slices for us."""
    path = "/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices" % namespace
    selector = {"labelSelector": "kubernetes.io/service-name=" + service}

    try:
        return api.send("GET", path, params=selector).items()
    except ApiError as error:
        if error.status not in (400, 403, 404):
            raise
    path = "/api/v1/namespaces/%s/endpoints/%s" % (namespace, service)
    return cast(List[Json], dig_list(api.send("GET", path).object(), "subsets"))


def ready_pods(group: Json) -> List[Json]:
    """References to the pods of a slice or subset; an endpoint that says nothing is ready."""
    endpoints = dig_list(group, "endpoints") or dig_list(group, "addresses")
    pods = [dig(endpoint, "targetRef", kind=dict) for endpoint in endpoints
            if dig(endpoint, "conditions", kind=dict).get("ready") is not False]
    return [pod for pod in pods if dig(pod, "kind") == "Pod" and dig(pod, "name")]


class Direct:
    """Drains and port forwards that this program does."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.forked()
        at_fork(self)

    def forked(self) -> None:
        """None of them is a child's."""
        self._lock = Lock()  # of two that want the same name one gets it
        self._drains: Dict[Key, Drain] = {}  # by cluster and node
        self._forwards: Dict[Key, PortForward] = {}  # by cluster and id

    def forget(self, cluster: str) -> None:
        """End all that goes on in a cluster; only how its drains ended is remembered."""
        with self._lock:
            tasks = [*self._drains.items(), *self._forwards.items()]
            for key in list(self._forwards):
                if key[0] == cluster:
                    self._forwards.pop(key, None)
        cancel_all([task for key, task in tasks if key[0] == cluster])

    def start_port_forward(self, cluster: str, wanted: Dict[str, str], address: str) -> Json:
        """The record of a forward that accepts connections.

        "targetPort" is the pod's, by number or name. Without a "pod" it is the service's, and any
        ready pod behind it will do.
        """
        api = Api(self._transport, cluster, Scope(self._transport.settings.request_timeout))
        namespace, target = wanted["namespace"], wanted["targetPort"]
        key = cluster, wanted["id"] or os.urandom(8).hex()
        self._check_free(key)
        listener = listen(address, int(wanted.get("port") or 0))

        forward = None
        try:
            if wanted["pod"]:
                pod, target = pod_target(api, Pod(namespace, wanted["pod"]), target)
            else:
                namespace = wanted["serviceNamespace"] or namespace
                pod, target = service_target(api, namespace, wanted["service"], target)

            record = {
                **wanted,
                "id": key[1],
                "cluster": cluster,
                "namespace": namespace,
                "pod": pod.name,
                "targetPort": target,
                "port": str(listener.getsockname()[1]),
                "error": "",
            }
            with self._lock:
                self._check_free(key)
                forward = PortForward(self._transport, record, pod, listener)
                self._forwards[key] = forward
                forward.start()
        except BaseException:
            listener.close()
            if forward:
                forward.scope.cancel()
                self._forwards.pop(key, None)
            raise
        return dict(record)

    def _check_free(self, key: Key) -> None:
        forward = self._forwards.get(key)
        if forward and not forward.scope.cancelled:
            raise ValueError("there is a port forward %s already" % key[1])

    def stop_port_forward(self, cluster: str, id: str, stop_or_delete: bool) -> str:
        """Stop it (True), or remove its record as well (False); "stopped"."""
        forward = self._forwards.get((cluster, id))
        if not forward:
            raise ApiError(404, "no portforward running with id %s" % id)

        forward.cancel()
        if not stop_or_delete:
            self._forwards.pop((cluster, id), None)
        return "stopped"

    def list_port_forward(self, cluster: str) -> Json:
        """The record of each, and its "status": "Running" as long as it accepts, then "Stopped"."""
        return [
            {**forward.record, "status": "Stopped" if forward.scope.cancelled else "Running"}
            for key, forward in list(self._forwards.items()) if key[0] == cluster
        ]

    def drain_node(self, cluster: str, node_name: str) -> Json:
        """Begin to drain a node, unless that goes on already."""
        key = cluster, node_name

        with self._lock:
            if key not in self._drains or self._drains[key].status:
                self._drains[key] = Drain(self._transport, cluster, node_name).start()
        return {"message": "Drain node request submitted successfully", "cluster": cluster}

    def drain_node_status(self, cluster: str, node_name: str) -> Json:
        """{"id": the `status` of the Drain, "" where none was begun, "cluster": cluster}."""
        drain = self._drains.get((cluster, node_name))
        return {"id": drain.status if drain else "", "cluster": cluster}


# -- Headlamp: what its server does for a cluster, at either age -------------------

DRAIN_KEPT = 20.0  # seconds that a server keeps the result of a drain, from v0.43 on
DRAIN_KEPT_2024 = 1200.0  # and one whose 404 has no body, before v0.31

DRAIN_MISSED = "error: unknown: the server has forgotten the result, it was asked too late"


class Headlamp:
    """The routes of a Headlamp server's own, of May 2024 as of today.

    It is not told the server's age: what an age lacks shows in the answers. Names are checked by
    those who call.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # to a route of the server's own: its 401 says nothing about a cluster's token
        self._send = functools.partial(transport.send, auto_logout=False)
        self._old_forwards = False  # whether port forwards were last found at the old address
        # Of drains begun here or seen to end, by cluster and node: the result, "" before there is
        # one, and when the server was last asked (monotonic).
        self._drains: Dict[Key, Tuple[str, float]] = {}

    def forget(self, cluster: str) -> None:
        """Nothing is remembered of a cluster that is gone."""
        for key in list(self._drains):
            if key[0] == cluster:
                self._drains.pop(key, None)

    def start_port_forward(self, cluster: str, wanted: Dict[str, str], address: str) -> Json:
        """The forward as the server has it, with the `id` and `port` that it chose."""
        forward = self._forward("POST", cluster, "", wanted, Response.object, address=address)
        return {"cluster": cluster, **forward}

    def stop_port_forward(self, cluster: str, id: str, stop_or_delete: bool) -> str:
        """What the server said: "stopped"."""
        body = {"id": id, "stopOrDelete": stop_or_delete}
        return self._forward("DELETE", cluster, "", body, _stopped)

    def list_port_forward(self, cluster: str) -> Json:
        """The forwards of this cluster; the server adds those of others whose names begin alike."""
        forwards = self._forward("GET", cluster, "/list", None, _forwards)
        return [forward for forward in forwards if dig(forward, "cluster") == cluster]

    def _forward(
        self,
        method: str,
        cluster: str,
        end: str,
        body: Optional[JsonObject],
        read: Callable[[Response], R],
        **old_body: str,
    ) -> R:
        """What `read` makes of the answer at the address that the server has.

        One older than v0.35 passes today's address on to the API server, which answers with a
        404 or a Status: today's own routes give neither. One newer has a web page at the old.
        """
        failures = []

        for old in (self._old_forwards, not self._old_forwards):
            sent = body and {"cluster": cluster, **body, **old_body} if old else body
            params = {"cluster": cluster} if old else None

            try:
                result = read(self._send(
                    method, "/portforward" + end, "" if old else cluster, body=sent,
                    params=params, on_behalf=cluster, cookie=not old))
                self._old_forwards = old
                return result
            except ApiError as error:
                if error.status not in (200, 404) and not error.reason:
                    raise

                failures.append(error)

        raise min(failures, key=lambda error: error.status == 200)  # no page, if there is another

    def drain_node(self, cluster: str, node_name: str) -> Json:
        """What the server says at once; it goes on by itself."""
        began = time.monotonic()
        body = {"cluster": cluster, "nodeName": node_name}
        answer = self._send("POST", "/drain-node", body=body, on_behalf=cluster).object()

        self._drains[cluster, node_name] = "", began
        return answer

    def drain_node_status(self, cluster: str, node_name: str) -> Json:
        """{"id", "cluster"}; "" is a drain that runs, or none."""
        key = cluster, node_name
        now = time.monotonic()
        params = {"cluster": cluster, "nodeName": node_name}

        try:
            answer = self._send(
                "GET", "/drain-node-status", params=params, on_behalf=cluster).object()
        except ApiError as error:
            text = error.body.strip()

            if error.status != 404 or text not in (b"", b"key not found"):
                raise

            result, asked = self._drains.get(key, ("", now))
            kept = DRAIN_KEPT if text else DRAIN_KEPT_2024

            # A result may have come and gone since, and would never be seen.
            if not result and now - asked > kept:
                result = DRAIN_MISSED

            if key in self._drains:
                self._drains[key] = result, now

            return {"id": result, "cluster": cluster}

        self._drains[key] = dig(answer, "id"), now
        return answer

    def set_cluster(self, request: JsonObject) -> Json:
        """Add a cluster; what a kubeconfig has of it goes with its requests from now on."""
        base = self._transport.settings.base_url
        kubeconfig = request.get("kubeconfig")

        if not kubeconfig:
            # The server decodes other names than the documented ones.
            for name, decoded in (
                ("insecureTLSVerify", "insecure-skip-tls-verify"),
                ("certificateAuthorityData", "certificate-authority-data"),
            ):
                if name in request:
                    request = {**request, decoded: request[name]}
            return self._send("POST", "/cluster", body=request).object()

        body = {**request, "kubeconfigs": [kubeconfig]}
        answer = self._send("POST", "/parseKubeConfig", body=body).object()
        names = [dig(cluster, "name") for cluster in dig_list(answer, "clusters")]

        if not any(names):
            raise ApiError(200, "the server found no cluster in the kubeconfig")

        text = base64.b64decode(kubeconfig)
        for name in filter(None, names):
            self._transport.credentials.kubeconfigs[base, name] = reduce_kubeconfig(text, name)
        return answer

    def delete_cluster(self, name: str, remove_kubeconfig: bool) -> Json:
        """Remove a cluster from the server, and what the server stored from its file."""
        path = "/cluster/" + segment(name, "cluster")
        meta = dig(_entry(self._config(), name), "meta_data", kind=dict)
        file = dig(meta, "origin", "kubeconfig")
        params = None

        # A context of the user's own kubeconfig has a file too: it stays unless asked.
        if remove_kubeconfig or file and dig(meta, "source") == "dynamic_cluster":
            params = {
                "removeKubeConfig": "true",
                "configPath": file,
                "originalName": dig(meta, "originalName"),
                "clusterID": dig(meta, "clusterID"),
            }

        try:
            return self._send("DELETE", path, params=params).object()
        except ValueError as error:  # a lone surrogate
            raise ApiError(0, "the server's names of %r can't be sent back" % name) from error
        except ApiError as error:
            if error.status != 500 or params:
                raise

            # May 2024: first it forgets the cluster, then it does not find it in its file.
            config = self._config()

            if _entry(config, name):
                raise

            return config

    def delete_plugin(self, name: str, type: str) -> Any:
        """The server's answer, None from one of May 2024."""
        path = "/plugins/" + segment(name, "plugin")
        return self._send("DELETE", path, params={"type": type or None}).json()

    def _config(self) -> Json:
        return self._send("GET", "/config").object()


def _entry(config: Json, name: str) -> Any:
    """What the server's configuration has of a cluster; None without one of that name."""
    clusters = dig_list(config, "clusters")
    return next((cluster for cluster in clusters if dig(cluster, "name") == name), None)


def _stopped(answer: Response) -> str:
    """Both ages say this one word; a web page is no success."""
    text = answer.text().strip()

    if text != "stopped":
        raise ApiError(answer.status, "the server did not say that it stopped: %.80r" % text)

    return text


def _forwards(answer: Response) -> List[Any]:
    forwards = answer.json() or []

    if not isinstance(forwards, list):
        raise ApiError(answer.status, "the server sent no list of port forwards")

    return forwards


def reduce_kubeconfig(text: bytes, name: str) -> str:
    """A kubeconfig with only its context `name`, as JSON in base64.

    So no cluster sees another's credentials, and a server of May 2024, which takes a file's last
    context for the one meant, finds it. What can't be read here goes as it is.
    """
    try:
        [config] = read_yaml(text)
        contexts = dig_list(config, "contexts")
        context = min(
            (entry for entry in contexts if name in _context_names(entry)),
            key=lambda entry: _context_names(entry).index(name),
        )
    except ValueError:
        log.warning("the whole kubeconfig goes with requests to %s: it can't be read here", name)
        return encode_base64(text)

    reduced: JsonObject = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": dig(context, "name"),
        "contexts": [context],
    }

    for section, reference in (("clusters", "cluster"), ("users", "user")):
        wanted = dig(context, "context", reference)
        entries = dig_list(config, section)
        reduced[section] = [entry for entry in entries if dig(entry, "name") == wanted]

    return encode_base64(encode_json(reduced))


def _context_names(entry: Any) -> List[str]:
    """What a server calls a context: its name, that made fit for a host, what its user chose."""
    name = dig(entry, "name")
    names = [name, name.replace("/", "--").replace(" ", "__")]

    for extension in dig_list(entry, "context", "extensions"):
        if dig(extension, "name") == "headlamp_info":
            names.append(dig(extension, "extension", "customName"))

    return names


# ------------------------------------------------------------------------------
# 14. Client
#
# Every call, in the order of the documentation, each a few lines: what it checks,
# and which part above does it.
# ------------------------------------------------------------------------------

LOOK_AGAIN = 60.0  # seconds that an address counts as one without Headlamp


class Client(Settings):
    """Every call of this module, with settings, tokens and connections of its own.

    The first argument, base_url, is a Headlamp server or `kubectl proxy`; "" for neither: then
    there are the clusters that `add_endpoint`, `in_cluster`, `from_kubeconfig` and `set_cluster`
    name.
    All other arguments are settings (times in seconds), and attributes afterwards:

    cluster              the current cluster: where calls go that name none; "" is the server itself
    backend_token        HEADLAMP_BACKEND_TOKEN: sent to the Headlamp server, to nobody else
    ssl_context          None: the system's certificates, host names checked
    default_namespaces   by cluster, for `apply`
    on_logout            (cluster): its token was refused
    on_reload            the server's plugins, or stored clusters, changed
    user_id              X-HEADLAMP-USER-ID beside a stored kubeconfig; made at random when needed
    token_as             how a token goes out: "header", "subprotocol" (WebSockets), "cookie"
    token_protocol       the older name for token_as="subprotocol"
    host                 the Host header for base_url, where a tunnel needs another than its own
    gzip                 ask for compressed answers
    request_timeout      of a call that says no other; None for no limit
    connect_timeout      to connect; of a stream, until it is open
    keep_alive           an idle connection is not used after this: a NAT may have forgotten it
    max_body             bytes of an answer, also after decoding
    max_message          bytes of a WebSocket message
    ping_interval        silence before a ping; None for no pings
    ping_timeout         silence after it until the connection is given up
    close_timeout        for the closing handshake of a WebSocket
    list_idle            silence within a list once its answer has begun
    list_page            objects in a page where a server can't send a list in one answer
    watch_timeout        timeoutSeconds of a watch is between these
    watch_grace          a watch still open this long after that is hung up: it may be dead
    short_watch          one that ended sooner without an event: list again
    resync               list again this often, give or take a fifth, in case an event was lost
    gather               at most one view in this time, the latest; 0: one for each change
    retry_base           the second retry waits half to all of this, later ones twice as long
    retry_cap            and no retry longer than this
    retry_reset          a stream that lasted this long counts as healthy
    max_retry_after      how much of a Retry-After is honoured
    burst                requests that a list and its watch may send at once
    rate                 and how many a second after that
    token_window         a service account's token that ends sooner is renewed first
    discovery_ttl        how long `apply` remembers which resources there are
    metrics_period       between polls of `metrics`, and of lists that can't be watched
    drain_timeout        until a node without Headlamp has to be empty
    drain_interval       between looks at it, and tries to evict what a budget keeps
    forward_check        between looks whether the pod of a port forward still runs
    forward_linger       a forwarded connection waits for answers after the local side's end

    It starts nothing before the first call. `close`, or leaving its `with` block, ends all that it
    started. Threads may share it; after os.fork() a child has its settings and credentials, and
    connections and streams of its own.
    """

    def _begin(self) -> None:
        if self.base_url:
            base_address(self.base_url)
            if self.cluster:
                segment(self.cluster, "cluster")
        if self.token_as not in TOKEN_WAYS:
            raise ValueError("token_as is one of %s" % ", ".join(TOKEN_WAYS))

        self._transport = Transport(self)
        self._handler = self._transport.handler
        self._discovery = Discovery(self._transport)
        self._direct = Direct(self._transport)
        self._headlamp = Headlamp(self._transport)
        # Addresses at which there is no Headlamp (kubectl proxy), until then (monotonic): a reverse
        # proxy says the same while Headlamp starts again.
        self._without_headlamp: Dict[str, float] = {}

    @classmethod
    def in_cluster(cls, folder: Optional[str] = None, **settings: Any) -> Client:
        """A client for the cluster that this program runs in, as the pod's service account.

        Its cluster is "in-cluster". The token is read from its file for each request: it rotates.
        ValueError outside of a pod.
        """
        client = cls("", **settings)
        client.add_endpoint("in-cluster", in_cluster_endpoint(folder or IN_CLUSTER))
        client.cluster = client.cluster or "in-cluster"
        return client

    @classmethod
    def from_kubeconfig(
        cls, path: Optional[Path] = None, context: Optional[str] = None,
        **settings: Any,
    ) -> Client:
        """A client for every context of a kubeconfig, by its name; the current one, or `context`,
        is the current cluster.

        Without a `path`: the files in KUBECONFIG, else ~/.kube/config. ValueError for a file or a
        current context that can't be used; other contexts are left out, with a warning.
        """
        client = cls("", **settings)
        client.cluster = client._add_kubeconfig(read_kubeconfig(path), context or "")
        return client

    def _add_kubeconfig(self, config: Kubeconfig, context: str = "") -> str:
        current = context or config.current
        endpoints = config.endpoints(current)
        for name in config.left_out:
            self._forget(name)  # what was there of that name is not what it says now
        self._transport.credentials.left_out.update(config.left_out)
        for name, endpoint in endpoints.items():
            self.add_endpoint(name, endpoint)
        return current

    def add_endpoint(self, cluster: str, endpoint: Endpoint) -> None:
        """From now on reach `cluster` at `endpoint`, with its credentials; any name will do."""
        if not isinstance(cluster, str) or not cluster:
            raise ValueError("a cluster has a name")
        self._transport.add_endpoint(cluster, endpoint)
        self._discovery.forget(cluster)

    @property
    def endpoints(self) -> Dict[str, Endpoint]:
        """The clusters that are reached without Headlamp, by name."""
        return self._transport.credentials.endpoints

    @property
    def tasks(self) -> Dict[Any, None]:
        """The streams that run."""
        return self._transport.tasks

    def __repr__(self) -> str:
        return "<Client %s%s>" % (self.base_url, self.cluster and " cluster=" + self.cluster)

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Client can't be copied or pickled: its connections are its own")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Cancel every stream and close idle connections. The client can be used again."""
        cancel_all(list(self.tasks))
        self._handler.close()

    def _keep_secrets(self, old: Client) -> None:
        """Take over what `old` knew for the same server."""
        if self.base_url == old.base_url:
            self._transport.credentials.adopt(old._transport.credentials)
            self.user_id = self.user_id or old.user_id

    def set_token(self, cluster: str, token: Token) -> None:
        """Use `token` for `cluster`: a str or a function that gives one each time; None forgets."""
        if cluster not in self.endpoints:
            segment(cluster, "cluster")
        self._transport.credentials.set_token(cluster, token, self.base_url)

    def get_token(self, cluster: str) -> Optional[str]:
        """The token of `cluster` as the next request would send it; None without one."""
        try:
            return self._transport.credentials.get_token(cluster, Scope(self.request_timeout))
        except TimeoutError as error:
            raise unanswered(error, "", "", cluster)

    def wait_for(
        self, url: str, name: str, condition: Union[str, Callable[[Json], Any]],
        timeout: Seconds = 60.0, *, cluster: ClusterName = None,
    ) -> Json:
        """Wait until an object of the collection at `url` is as wanted; gives the object.

        condition   a function of the object that says so, or the type of a condition in its status
                    that is to be "True" ("Ready", "Available") and not of an older generation, or
                    "deleted"
        timeout     seconds until TimeoutError, which says what it last was; None for no limit

        It need not be there yet. ApiError when the server refuses, or the client is closed.
        """
        chosen = self._transport.cluster(cluster)
        waiter = Waiter(self._transport, chosen, url, name, condition)
        try:
            return waiter.start().result(timeout)
        finally:
            try:
                waiter.cancel()
            except BaseException:  # a signal's handler raised in the midst of it
                waiter.cancel()
                raise

    # -- the documented calls --------------------------------------------------------

    def api_factory(self, *args: Any) -> ApiClient:
        """An ApiClient for a cluster-scoped resource: (group, version, resource), or several.

        Of several endpoints the first that the server has is used: the next is tried when a 404
        says that the API or the resource is not there. Documented as apiFactory.
        """
        return ApiClient(Endpoints(self._transport, endpoints_in(args)))

    @overload
    def api_factory_with_namespace(
        self, group: str, version: str, resource: str, include_scale: Literal[True], /
    ) -> ScalableApiClient: ...

    @overload
    def api_factory_with_namespace(self, *args: Any) -> NamespacedApiClient: ...

    def api_factory_with_namespace(self, *args: Any) -> NamespacedApiClient:
        """As `api_factory`: (group, version, resource, include_scale=False) or several.

        Documented as apiFactoryWithNamespace.
        """
        endpoints = endpoints_in(args)
        scaled = any(endpoint[3:] and endpoint[3] for endpoint in endpoints)
        kind = ScalableApiClient if scaled else NamespacedApiClient
        return kind(Endpoints(self._transport, [endpoint[:3] for endpoint in endpoints]))

    def apply(
        self,
        body: Json,
        cluster_name: ClusterName = None,
        *,
        field_manager: Optional[str] = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> Json:
        """Create `body`, a Kubernetes object, or change the one that is there; the server's answer.

        What `body` names becomes as it says, what it does not name stays: metadata, spec,
        template, labels and annotations are laid over what is there key by key, all else (a
        ConfigMap's data, a list) replaces it; None takes a key away. With a resourceVersion it
        replaces just that version whole, else ApiError 409. A missing namespace is the cluster's
        default. ValueError for a body that can't be applied.

        field_manager  makes it a server-side apply in that name: ApiError 409, with .details, for
                       fields that others own
        force          takes those fields over
        dry_run        nothing is kept: the answer is what would be

        Documented as apply.
        """
        cluster = self._transport.cluster(cluster_name)
        return Apply(self._transport, self._discovery, cluster, body,
                     field_manager, force, dry_run).run()

    def cluster_request(
        self, path: str, params: Optional[ClusterRequestParams] = None,
        query_params: Params = None,
    ) -> Json:
        """Send a request to the cluster that params["cluster"] names, else to the server itself.

        Gives the parsed JSON, None for an empty body; a Response when params["isJSON"] is False.
        Documented as clusterRequest.
        """
        options = check_options(ClusterRequestParams, params)
        method, body = options.get("method", "GET"), options.get("body")
        if not isinstance(method, str) or not re.fullmatch(_TOKEN, method):
            raise ValueError("method can't be %r" % (method,))
        if body is not None:
            expect(body, (str, bytes), "body (post() takes objects)")

        response = self._transport.send(
            method.upper(), path, options.get("cluster") or "", params=query_params,
            headers=options.get("headers"), body=body.encode() if isinstance(body, str) else body,
            scope=Scope(self._seconds(options)),
            auto_logout=options.get("autoLogoutOnAuthError", True))
        if options.get("isJSON", True):
            return response.take_json()
        len(response.body)  # made one here, or two of the caller's threads might do it at once
        return response

    def _seconds(self, options: Mapping[str, Any]) -> Seconds:
        """The time limit of a call, which its options give in milliseconds."""
        if "timeout" not in options:
            return self.request_timeout
        timeout = options["timeout"]
        if timeout is None:
            return None
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
            raise ValueError("timeout is milliseconds or None, not %r" % (timeout,))
        return timeout / 1000

    def delete_cluster(self, cluster: str, *, remove_kubeconfig: bool = False) -> Json:
        """Forget an endpoint or a stored kubeconfig (None), else remove a cluster from the server.

        What a Headlamp server stored goes from its file too. A context of its user's own kubeconfig
        is only forgotten, and comes back when it starts again, unless `remove_kubeconfig`.
        Documented as deleteCluster.
        """
        stored = self._transport.credentials.kubeconfigs.get((self.base_url, cluster))
        answer = None
        if cluster not in self.endpoints and not stored:
            answer = self._headlamp.delete_cluster(cluster, remove_kubeconfig)
        self._forget(cluster)
        if stored:
            self._transport.call_hook(self.on_reload)
        return answer

    def _forget(self, cluster: str) -> None:
        for owner in (self._direct, self._headlamp, self._discovery):
            owner.forget(cluster)
        self._transport.remove(cluster)

    def delete_plugin(self, name: str, *, type: str = "") -> Json:
        """Remove a plugin from the Headlamp server, of a `type` where that knows types.

        Documented as deletePlugin.
        """
        return self._headlamp.delete_plugin(name, type)

    def _owner(self, cluster: str, act: Callable[[Union[Direct, Headlamp]], R]) -> R:
        """What the Headlamp server does for a cluster; this program where there is none."""
        is_known = time.monotonic() < self._without_headlamp.get(self.base_url, 0.0)
        if cluster and cluster not in self.endpoints and not is_known:
            segment(cluster, "cluster")
            try:
                return act(self._headlamp)
            except ApiError as error:
                if not is_no_headlamp(error):
                    raise
            self._without_headlamp[self.base_url] = time.monotonic() + LOOK_AGAIN
        return act(self._direct)

    def drain_node(self, cluster: str, node_name: str) -> Json:
        """Begin to cordon a node and remove its pods; {"message", "cluster"} at once.

        Without Headlamp pods are evicted as kubectl does it: budgets are respected, pods of
        DaemonSets and mirror pods stay. A Headlamp server deletes them at once, budgets or not;
        that of May 2024 those of DaemonSets too, and it can only drain with a client certificate of
        its own. See `drain_node_status`. Documented as drainNode.
        """
        segment(node_name, "node name")
        return self._owner(cluster, lambda owner: owner.drain_node(cluster, node_name))

    def drain_node_status(self, cluster: str, node_name: str) -> Json:
        """How a drain goes: {"id": "success" | "error: ..." | "", "cluster": cluster}.

        "" while it runs, and also when none was begun. A Headlamp server keeps a result for 20
        seconds (that of May 2024 for 20 minutes); once seen it is remembered here, and who asks too
        late is told that it is unknown. Documented as drainNodeStatus.
        """
        segment(node_name, "node name")
        return self._owner(cluster, lambda owner: owner.drain_node_status(cluster, node_name))

    def list_port_forward(self, cluster: str) -> Json:
        """The port forwards of a cluster, each with id, pod, port, targetPort, status, error.

        Documented as listPortForward.
        """
        return self._owner(cluster, lambda owner: owner.list_port_forward(cluster))

    def metrics(
        self, url: str, on_metrics: Callable[[Any], None],
        on_error: Optional[Callable[[ApiError], None]] = None, cluster: ClusterName = None,
    ) -> Action:
        """GET `url` now and every `metrics_period` seconds; on_metrics(items, or the whole answer).

        on_error(error) gets what fails; polling goes on, up to six times slower while it does.
        Gives the function that cancels. Documented as metrics.
        """
        check_path(url)
        expect_callable(on_metrics, "on_metrics")
        expect_callable(on_error or on_metrics, "on_error")
        chosen = self._transport.cluster(cluster)
        return Poller(self._transport, chosen, url, on_metrics, on_error).start().cancel

    def patch(
        self, url: str, json: Any, auto_logout_on_auth_error: bool = True,
        options: Optional[ClusterRequestParams] = None,
    ) -> Json:
        """PATCH `url`: a list is a JSON patch, a mapping a merge patch, unless `options` says.

        Documented as patch.
        """
        content_type = patch_type(json)
        return self._change("PATCH", url, encode_json(json), auto_logout_on_auth_error, options,
                            content_type)

    def post(
        self, url: str, json: Any, auto_logout_on_auth_error: bool = True,
        options: Optional[ClusterRequestParams] = None,
    ) -> Json:
        """POST `json` to `url`; the parsed answer. Documented as post."""
        return self._change("POST", url, encode_json(json), auto_logout_on_auth_error, options)

    def put(
        self, url: str, json: Any, auto_logout_on_auth_error: bool = True,
        request_options: Optional[ClusterRequestParams] = None,
    ) -> Json:
        """PUT `json` to `url`; the parsed answer. Documented as put."""
        body = encode_json(json)
        return self._change("PUT", url, body, auto_logout_on_auth_error, request_options)

    def _change(
        self, method: str, url: str, body: Optional[bytes], auto_logout: bool,
        options: Optional[ClusterRequestParams], content_type: str = "",
    ) -> Json:
        caller_options = check_options(ClusterRequestParams, options)
        headers = dict(caller_options.get("headers") or {})
        if content_type and not any(str(name).lower() == "content-type" for name in headers):
            headers["Content-Type"] = content_type
        return self.cluster_request(url, cast(ClusterRequestParams, {
            "method": method,
            "body": body,
            "autoLogoutOnAuthError": auto_logout,
            **caller_options,
            "headers": headers,
            "cluster": caller_options.get("cluster") or self.cluster,
        }))

    def remove(self, url: str, request_options: Optional[ClusterRequestParams] = None) -> Json:
        """DELETE `url`; the parsed answer. Documented as remove."""
        return self._change("DELETE", url, None, True, request_options)

    def request(
        self, path: str, params: Optional[RequestParams] = None,
        auto_logout_on_auth_error: bool = True, use_cluster: bool = True,
        query_params: Params = None,
    ) -> Json:
        """Send a request to the current cluster, or with use_cluster=False to the server itself.

        params: timeout (ms), isJSON, cluster, method, headers, body. Gives the parsed JSON, None
        for an empty body, a Response when params["isJSON"] is False. Documented as request.
        """
        return self.cluster_request(path, cast(ClusterRequestParams, {
            "cluster": self.cluster if use_cluster else "",
            "autoLogoutOnAuthError": auto_logout_on_auth_error,
            **check_options(RequestParams, params),
        }), query_params)

    def set_cluster(self, cluster_req: ClusterRequest) -> Json:
        """Add a cluster: by `kubeconfig` (base64), or by `name` and `server`.

        A kubeconfig is kept here, reduced to each of its contexts, and sent with each request.
        Gives the server's answer, its `clusters` among it. Documented as setCluster.
        """
        request = check_options(ClusterRequest, cluster_req)
        kubeconfig = _decoded(request, "kubeconfig")
        if not kubeconfig and not (request.get("name") and request.get("server")):
            raise ValueError("a cluster needs a kubeconfig, or a name and a server")
        if not self.base_url:
            return self._set_endpoint(request, kubeconfig)

        if not kubeconfig:
            segment(request["name"], "cluster")
            base_address(request["server"])
        return self._headlamp.set_cluster(request)

    def _set_endpoint(self, request: Mapping[str, Any], kubeconfig: bytes) -> Json:
        """What set_cluster does where there is no Headlamp server."""
        before = dict(self.endpoints)
        if kubeconfig:
            config = Kubeconfig()
            config.add(kubeconfig, "the kubeconfig")
            self._add_kubeconfig(config)
        else:
            authority = _decoded(request, "certificateAuthorityData") or None
            insecure = request.get("insecureTLSVerify") or False
            context = tls_context(None, authority, insecure=insecure)
            self.add_endpoint(request["name"], Endpoint(request["server"], ssl_context=context))
        return {"clusters": [
            {"name": name, "server": endpoint.server}
            for name, endpoint in list(self.endpoints.items()) if before.get(name) is not endpoint]}

    def start_port_forward(
        self, cluster: str, namespace: str, podname: str, container_port: Union[str, int],
        service: str, service_namespace: str, port: Union[str, int, None] = None,
        address: str = "", id: str = "",
    ) -> Json:
        """Forward a port to a pod's: of the Headlamp server, or without one of this machine.

        `port` None takes any free one; `id` and `port` are among the answer. Without Headlamp an
        empty `podname` is any ready pod of `service`, whose port `container_port` then is. Headlamp
        of May 2024 never answers when the pod can't be reached: ApiError 408 after
        `request_timeout`. Documented as startPortForward.
        """
        segment(namespace or service_namespace, "namespace")
        if podname or not service:
            segment(podname, "podname")
        check_port(port or 0, "port")
        wanted = {
            "id": id,
            "namespace": namespace,
            "pod": podname,
            "service": service,
            "serviceNamespace": service_namespace,
            "targetPort": check_target(container_port),  # a number is a 400, here as in the next
        }
        if port is not None:
            wanted["port"] = str(port)
        return self._owner(
            cluster, lambda owner: owner.start_port_forward(cluster, wanted, address))

    def stop_or_delete_port_forward(
        self, cluster: str, id: str, stop_or_delete: bool = True,
    ) -> str:
        """Stop a port forward (True) or delete its record (False); "stopped", as a rule.

        At a Headlamp server of May 2024 a forward goes on without its record. Documented as
        stopOrDeletePortForward.
        """
        return self._owner(
            cluster, lambda owner: owner.stop_port_forward(cluster, id, stop_or_delete))

    def stream(
        self, url: str, cb: StreamResultsCb, args: Optional[StreamArgs] = None,
    ) -> Stream:
        """Pass every message of the WebSocket at `url` to cb(message): str, bytes, or with "isJson"
        parsed.

        connectCb()  when a connection is open
        failCb()     at every failed attempt or unexpected end; with an argument, the ApiError

        It reconnects, with growing waits, if "reconnectOnFailure", by default if there is no failCb
        and the `url` is not one of exec or attach: those would run their command again. A refusal
        (400, 401, 403, 404) ends it unless "reconnectOnFailure" is True. Gives an object with
        cancel() and get_socket(). Documented as stream.
        """
        options = check_options(StreamArgs, args)
        check_path(url)
        expect_callable(cb, "cb")
        for name in ("connectCb", "failCb"):
            expect_callable(options.get(name) or cb, name)
        check_protocols(options.get("additionalProtocols") or ())
        cluster = self._transport.cluster(options.get("cluster"))
        return Stream(self._transport, cluster, url, cb, options).start()

    def stream_result(
        self, url: str, name: str, cb: ItemCb, err_cb: StreamErrCb, query_params: Params = None,
        cluster: ClusterName = None,
    ) -> Action:
        """Keep `cb` supplied with one object: cb(object) at first and for every later state.

        url, name   of the collection, and of the object in it
        err_cb      err_cb(error, cancel), on the same thread

        An object that came through the watch has "actionType": "ADDED", "MODIFIED" or "DELETED".
        Gives the function that cancels. Documented as streamResult.
        """
        chosen = self._transport.cluster(cluster)
        watch = ItemWatch(
            self._transport, chosen, [check_path(url)], name, cb, err_cb, query_params)
        return watch.start().cancel

    def stream_results(
        self, url: str, cb: ItemsCb, err_cb: StreamErrCb, query_params: Params = None,
    ) -> Action:
        """Keep `cb` supplied with the whole collection at `url` of the current cluster.

        Lists once, then watches: cb(items) gets a new list, yours to keep, at first and after each
        change, in order of arrival; what came through the watch has "actionType": ADDED or
        MODIFIED. With the setting `gather` one list shows all changes of so many seconds: none is
        later than that, and the last list is as right as without it.

        url           path on the API server: "/api/v1/pods"
        cb            cb(items), on the stream's thread
        err_cb        err_cb(error, cancel), same thread. Before the first list a 400, 401, 403,
                      404, 405, 406 or 422 ends the stream; all else is retried until cancelled
        query_params  selectors, for one; "limit" bounds what `cb` gets to the newest ones

        Gives the function that cancels. ValueError for a bad `url`. Documented as streamResults.
        """
        return self.stream_results_for_cluster(url, {"cb": cb, "errCb": err_cb}, query_params)

    def stream_results_for_cluster(
        self, url: str, params: StreamResultsParams, query_params: Params = None,
    ) -> Action:
        """As `stream_results`, with "cb" and "errCb" (both needed) and "cluster".

        Documented as streamResultsForCluster.
        """
        options: Any = check_options(StreamResultsParams, params)
        cluster = self._transport.cluster(options.get("cluster"))
        watch = Watch(self._transport, cluster, [check_path(url)], options.get("cb"),
                      options.get("errCb"), query_params)
        return watch.start().cancel

    def test_auth(self, cluster: str = "", *, namespace: str = "default") -> Json:
        """What the token may do in a namespace, a SelfSubjectRulesReview; ApiError for a bad one.

        Documented as testAuth.
        """
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        return self.post(path, {"spec": {"namespace": namespace}}, False,
                         {"timeout": 5000, "cluster": cluster or self.cluster})

    def test_cluster_health(self, cluster: ClusterName = None) -> Response:
        """GET /healthz of the cluster; ApiError unless it is well.

        Documented as testClusterHealth.
        """
        return cast(Response, self.cluster_request(
            "/healthz", {"isJSON": False, "cluster": cluster or self.cluster}))

    test_auth.__test__ = False  # type: ignore[attr-defined]  # or pytest collects them
    test_cluster_health.__test__ = False  # type: ignore[attr-defined]


def is_no_headlamp(error: ApiError) -> bool:
    """Whether a route of Headlamp's own was answered by an API server behind `kubectl proxy`."""
    missing = error.status == 404 and error.body.strip() == b"404 page not found"
    return missing or error.status in (403, 404) and error.reason != ""


def _decoded(request: Mapping[str, Any], key: str) -> bytes:
    """What a field holds in base64, b"" without it; the field is not repeated: it may be secret."""
    try:
        return decode_base64(request.get(key) or "")
    except (ValueError, AttributeError):
        raise ValueError("%s is not base64" % key) from None


# ------------------------------------------------------------------------------
# 15. Module functions
#
# The methods of one default client, looked up at call time, so that `configure`
# reaches functions that were imported by name.
# ------------------------------------------------------------------------------

_default = Client()  # does nothing until asked


def configure(base_url: Union[str, Client] = "http://localhost:4466", **settings: Any) -> None:
    """Replace the default client by another with these settings; what ran with the old is ended.

    A Client may be given instead: configure(Client.from_kubeconfig()); `settings` are then set on
    it. Tokens and stored kubeconfigs stay if the address does: another server never gets them.
    """
    global _default
    if isinstance(base_url, Client):
        new = base_url
        for name, value in check_options(Settings, settings).items():
            setattr(new, name, value)
    else:
        new = Client(base_url, **settings)
        new._keep_secrets(_default)

    old, _default = _default, new
    if old is not new:
        try:
            old.close()
        except BaseException:  # a signal's handler raised in the midst of it
            old.close()
            raise


def default_client() -> Client:
    """The client behind the module functions."""
    return _default


def _on_default(method: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """The module function for `method`: same help, signature and types, the default client."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        """Replaced by the method's own."""
        return method(_default, *args, **kwargs)

    functools.update_wrapper(call, method)
    bound = cast(Any, method).__get__(call)  # a signature without self, without a Client to keep
    call.__wrapped__ = bound  # type: ignore[attr-defined]
    return call


close = _on_default(Client.close)
set_token = _on_default(Client.set_token)
get_token = _on_default(Client.get_token)
wait_for = _on_default(Client.wait_for)

api_factory = _on_default(Client.api_factory)
api_factory_with_namespace = _on_default(Client.api_factory_with_namespace)
apply = _on_default(Client.apply)
cluster_request = _on_default(Client.cluster_request)
delete_cluster = _on_default(Client.delete_cluster)
delete_plugin = _on_default(Client.delete_plugin)
drain_node = _on_default(Client.drain_node)
drain_node_status = _on_default(Client.drain_node_status)
list_port_forward = _on_default(Client.list_port_forward)
metrics = _on_default(Client.metrics)
patch = _on_default(Client.patch)
post = _on_default(Client.post)
put = _on_default(Client.put)
remove = _on_default(Client.remove)
request = _on_default(Client.request)
set_cluster = _on_default(Client.set_cluster)
start_port_forward = _on_default(Client.start_port_forward)
stop_or_delete_port_forward = _on_default(Client.stop_or_delete_port_forward)
stream = _on_default(Client.stream)
stream_result = _on_default(Client.stream_result)
stream_results = _on_default(Client.stream_results)
stream_results_for_cluster = _on_default(Client.stream_results_for_cluster)
test_auth = _on_default(Client.test_auth)
test_cluster_health = _on_default(Client.test_cluster_health)
