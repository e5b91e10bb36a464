# SPDX-License-Identifier: Apache-2.0
"""Kubernetes clusters, directly or through a Headlamp server: one file, standard library only.

    import apiproxy
    apiproxy.configure("http://localhost:4466", cluster="minikube")
    cancel = apiproxy.stream_results("/api/v1/pods", print, print, {"limit": 50})

Contents. Each part uses only the parts above it.

    1. Types and errors    option dicts, callbacks, ApiError          pure
    2. Addresses           paths, names and query strings             pure
    3. Frames              RFC 6455 bytes to values and back          pure
    4. Connections         deadlines, cancelling, TCP, TLS, proxies   blocks
    5. HTTP                urllib with kept connections               blocks
    6. WebSocket           connect, recv, send, close, keepalive      blocks
    7. Streams             a thread that calls back until cancelled   threads
    8. Watches             a list kept current, one object, metrics   threads
    9. Resources           API clients from factories, apply
   10. Direct              kubeconfigs, in-cluster, drain, port forward  threads
   11. Client              settings, credentials, every call
   12. Module functions    the same calls on one default client

Times are seconds; only RequestParams["timeout"] is milliseconds, as documented.
Callbacks run on their stream's thread, one at a time, under no lock that other calls need.
A call that fails raises ApiError; what fails after it returned goes to err_cb.
"""

from __future__ import annotations

import base64
import bisect
import calendar
import codecs
import collections
import errno
import functools
import gc
import hashlib
import io
import json
import logging
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
import zlib
from typing import (
    TYPE_CHECKING, Any, Callable, Deque, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Protocol,
    Sequence, Set, Tuple, TypedDict, TypeVar, Union, cast,
)

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

__all__ = [
    # 1. Types and errors
    "StreamResultsCb", "StreamErrCb", "QueryParameters", "RequestParams", "ClusterRequestParams",
    "ClusterRequest", "StreamArgs", "StreamResultsParams", "ApiInfo", "ApiError", "WebSocketError",
    "HandshakeError", "ProtocolError", "ConnectionClosed", "Settings",
    # 5 to 11
    "Response", "WebSocket", "Stream", "ApiClient", "NamespacedApiClient", "ScaleApi", "Endpoint",
    "tls_context", "Client",
    # 12. Module functions
    "configure", "default_client", "close", "set_token", "get_token",
    "api_factory", "api_factory_with_namespace", "apply", "cluster_request", "delete_cluster",
    "delete_plugin", "drain_node", "drain_node_status", "list_port_forward", "metrics", "patch",
    "post", "put", "remove", "request", "set_cluster", "start_port_forward",
    "stop_or_delete_port_forward", "stream", "stream_result", "stream_results",
    "stream_results_for_cluster", "test_auth", "test_cluster_health",
]

__version__ = "0.1.0"

log = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T", bound="Task")
MiB = 1 << 20

# ------------------------------------------------------------------------------
# 1. Types and errors
#
# The documented interfaces, with the documented spelling of their keys, and the
# one family of errors. No behaviour beyond checking what a caller passed.
# ------------------------------------------------------------------------------

StreamResultsCb = Callable[..., None]
StreamErrCb = Callable[..., None]  # (error, cancel): error.status where there is one
Params = Optional[Mapping[str, Any]]  # QueryParameters, or any other mapping that goes out as a query
Token = Union[str, Callable[[], Optional[str]], None]
Json = Any  # what json.loads gives; here mostly a Kubernetes object

QueryParameters = TypedDict("QueryParameters", {
    "continue": str, "dryRun": str, "fieldSelector": str, "labelSelector": str, "limit": Union[str, int],
    "resourceVersion": str, "allowWatchBookmarks": Union[str, bool], "sendInitialEvents": Union[str, bool],
    "resourceVersionMatch": str, "pretty": Union[str, bool], "watch": Union[str, bool],
}, total=False)


class RequestParams(TypedDict, total=False):
    """Options of one request; `timeout` in milliseconds, None for no limit."""

    timeout: Optional[float]
    isJSON: bool
    cluster: Optional[str]
    autoLogoutOnAuthError: bool
    method: str
    headers: Mapping[str, str]
    body: Union[str, bytes]


class ClusterRequestParams(RequestParams, total=False):
    """RequestParams under the name that clusterRequest documents."""


class ClusterRequest(TypedDict, total=False):
    """A cluster to add: by `name` and `server`, or by `kubeconfig` (base64)."""

    name: str
    server: str
    insecureTLSVerify: bool
    certificateAuthorityData: str
    kubeconfig: str


class StreamArgs(TypedDict, total=False):
    """Options of `stream`; tty, stdin, stdout, stderr are accepted, but belong in an exec's address."""

    isJson: bool
    additionalProtocols: Sequence[str]
    connectCb: Callable[[], None]
    reconnectOnFailure: bool
    failCb: Callable[[], None]
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool
    cluster: str


class StreamResultsParams(TypedDict, total=False):
    """`cb` and `errCb`, both needed, and the cluster."""

    cb: StreamResultsCb
    errCb: StreamErrCb
    cluster: str


class ApiInfo(TypedDict):
    """One endpoint of an API client."""

    group: str
    version: str
    resource: str


class ApiError(Exception):
    """The server, or the way to it, refused.

    status       HTTP status; 408 time ran out, 502 nothing answered, 0 not an HTTP matter
    message      the server's own words, else the HTTP reason phrase
    reason       of a Kubernetes Status ("AlreadyExists"), else ""
    details      of a Kubernetes Status, else {}
    body         what came, as bytes (the first MiB)
    method, url  what was asked; headers, tokens and request bodies never appear in an error
    retry_after  seconds that the server asked us to wait, else None
    """

    def __init__(self, status: int, message: str = "", *, phrase: str = "", reason: str = "", details: Json = None,
                 body: bytes = b"", method: str = "", url: str = "", retry_after: Optional[float] = None) -> None:
        super().__init__(status, message)  # what pickle calls us with; the rest is in __dict__
        self.status, self.message, self.phrase = status, message or phrase, phrase
        self.reason, self.details = reason, details if isinstance(details, dict) else {}
        self.body, self.method, self.url, self.retry_after = body, method, url, retry_after

    def __str__(self) -> str:
        return " - ".join(dict.fromkeys(filter(None, (self.phrase, self.message)))) or str(self.status)


class WebSocketError(ApiError):
    """A WebSocket conversation failed."""


class HandshakeError(WebSocketError):
    """The upgrade to a WebSocket was refused, with `status` and `body`, or its answer was not legal."""


class ProtocolError(WebSocketError):
    """The peer broke RFC 6455; `code` is the close code that it was told."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(0, message, phrase="WebSocket protocol error")
        self.args, self.code = (code, message), code


class ConnectionClosed(WebSocketError):
    """The WebSocket is closed: `code` and `reason`; 1005 without a code, 1006 without a close frame."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(0, "%d %s" % (code, reason) if reason else str(code), phrase="WebSocket closed")
        self.args, self.code, self.reason = (code, reason), code, reason


class Settings:
    """What a Client can be told, as keywords of its constructor and as attributes. Times are seconds."""

    cluster: str = ""  # the current cluster: where calls go that name none; "" is the server itself
    backend_token: str = ""  # for adding and removing clusters and plugins, and for helm
    ssl_context: Optional[ssl.SSLContext] = None  # None: the system's certificates, host names checked
    default_namespaces: Mapping[str, str] = {}  # by cluster, for `apply`
    on_logout: Optional[Callable[[str], None]] = None  # (cluster): its token was refused and forgotten
    on_reload: Optional[Callable[[], None]] = None  # the server's plugins, or the stored clusters, changed
    user_id: str = ""  # X-HEADLAMP-USER-ID beside a stored kubeconfig; made at random when needed
    token_protocol: bool = False  # WebSockets carry the token as a subprotocol, not as a header
    gzip: bool = True  # ask for compressed answers
    request_timeout: Optional[float] = 120.0  # of a call that says no other
    connect_timeout: float = 10.0  # of a WebSocket, from look-up to 101
    keep_alive: float = 30.0  # an idle connection is not used after this: its path may have forgotten it (NAT)
    max_body: int = 256 * MiB  # of an answer, also after decoding
    max_message: int = 64 * MiB  # of a WebSocket
    ping_interval: Optional[float] = 10.0  # silence before a ping
    ping_timeout: float = 20.0  # silence after it until the connection is given up
    close_timeout: float = 1.0  # for the closing handshake of a WebSocket
    list_idle: float = 30.0  # silence within a list
    watch_timeout: Tuple[float, float] = (240.0, 300.0)  # timeoutSeconds of a watch is between these
    watch_grace: float = 10.0  # a watch still open this long after it is hung up: it may be dead but for pongs
    short_watch: float = 2.0  # one that ended sooner without an event: list again
    resync: float = 600.0  # list again this often, give or take a fifth, in case an event was lost
    retry_base: float = 0.8  # the second retry waits half to all of this, later ones twice as long
    retry_cap: float = 30.0
    retry_reset: float = 30.0  # a stream that lasted this long counts as healthy
    max_retry_after: float = 60.0  # how much of a Retry-After is honoured
    burst: int = 12  # requests that a list and its watch may send at once
    rate: float = 0.5  # and how many a second after that
    token_window: float = 10.0  # a service account's token that ends sooner is renewed first
    discovery_ttl: float = 60.0  # how long `apply` remembers which resources there are
    metrics_period: float = 10.0
    drain_timeout: float = 300.0  # until a node without Headlamp has to be empty
    drain_interval: float = 2.0  # between looks at it, and tries to evict what a budget keeps
    forward_linger: float = 10.0  # how long a forwarded connection waits for answers after the local side's end


class Requester(Protocol):
    """What parts 8 and 9 need of the Client below them."""

    tasks: Dict[Any, None]

    @property
    def settings(self) -> Settings:
        """Times and limits."""

    def checked_cluster(self, cluster: Optional[str]) -> str:
        """`cluster`, or the current one; ValueError when it can't be."""

    def fetch(self, cluster: str, path: str, params: Params, cancel: Any, auto_logout: bool) -> Json:
        """GET for a stream."""

    def connect(self, cluster: str, path: str, params: Params, cancel: Any, protocols: Sequence[str] = ()) -> Any:
        """A WebSocket for a stream."""

    def send_json(self, method: str, path: str, body: Json, params: Params, cluster: str, content_type: str = "",
                  cancel: Any = None) -> Json:
        """A request with a body, and its parsed answer."""


@functools.lru_cache(maxsize=16)
def _known_options(kind: Any) -> Dict[str, None]:
    return {key: None for base in reversed(kind.__mro__) for key in getattr(base, "__annotations__", ())}


def check_options(kind: Any, options: Optional[Mapping[str, Any]], what: str = "") -> Dict[str, Any]:
    """`options` as a dict of its own; TypeError for a key that `kind` does not have, naming the nearest."""
    what = what or kind.__name__
    if options is not None and not isinstance(options, Mapping):
        raise TypeError("%s is a mapping, not %s" % (what, type(options).__name__))
    known = _known_options(kind)
    for key in options or ():
        if key not in known:
            import difflib  # only here: it is slow to import

            near = difflib.get_close_matches(str(key), known, 1, 0.3) or [", ".join(known)]
            raise TypeError("%s has no %r; did you mean %r?" % (what, key, near[0]))
    return dict(options or {})


def check_callable(what: str, value: Any) -> None:
    """TypeError unless `value` can be called."""
    if not callable(value):
        raise TypeError("%s is a function, not %s" % (what, type(value).__name__))


# ------------------------------------------------------------------------------
# 2. Addresses
#
# Names become one path segment each; what a caller wrote as a path stays as it
# is. Everything that could change where a request goes is refused here.
# ------------------------------------------------------------------------------

_UNPRINTABLE = "[\x00-\x20\x7f-\xa0\u2028\u2029]"  # compiled when first used: a quarter of this file's import
_PRINTABLE = "".join(map(chr, range(33, 127)))
_CONTROL = "[\x00-\x1f\x7f-\x9f]"
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 5.6.2


def segment(name: str, what: str = "name") -> str:
    """`name` percent-encoded as one path segment; ValueError for what can't be one."""
    if not isinstance(name, str):
        raise TypeError("%s is a str, not %s" % (what, type(name).__name__))
    if name in ("", ".", "..") or "/" in name or re.search(_CONTROL, name):
        raise ValueError("%s can't be %r: empty, '.', '..', a slash or a control character" % (what, name))
    return urllib.parse.quote(name, safe="")


def check_path(path: str) -> str:
    """`path` as the caller wrote it, non-ASCII percent-encoded; ValueError for what would not arrive as written."""
    if not isinstance(path, str):
        raise TypeError("a path is a str, not %s" % type(path).__name__)
    found = re.search(_UNPRINTABLE, path)
    if found or "#" in path:
        raise ValueError("a path can't hold %r: percent-encode it" % (found.group() if found else "#"))
    if ("." in path or "%" in path) and not {".", ".."}.isdisjoint(
            re.sub("(?i)%2e", ".", path.partition("?")[0]).split("/")):
        raise ValueError("a path can't have '.' or '..' as a segment: servers resolve them")
    return path if path.isascii() else urllib.parse.quote(path, safe=_PRINTABLE)


def combine_path(base: str, path: str) -> str:
    """Both with one slash between."""
    return (base[:-1] if base.endswith("/") else base) + "/" + (path[1:] if path.startswith("/") else path)


def with_query(path: str, params: Params) -> str:
    """`path` with `params` in its query: they replace those of the same name; None is dropped.

    True and False are "true" and "false", a list or tuple repeats its key.
    """
    if params is not None and not isinstance(params, Mapping):
        raise TypeError("query parameters are a mapping, not %s" % type(params).__name__)
    if not params:
        return path
    new = {key: [one for one in (value if isinstance(value, (list, tuple)) else (value,)) if one is not None]
           for key, value in params.items()}
    new = {key: values for key, values in new.items() if values}
    if not new:
        return path
    path, _, query = path.partition("?")
    kept = [part for part in query.split("&") if part and urllib.parse.unquote_plus(part.partition("=")[0]) not in new]
    pairs = [(key, str(one).lower() if isinstance(one, bool) else str(one))
             for key, values in new.items() for one in values]
    return path + "?" + "&".join(kept + [urllib.parse.urlencode(pairs)])


def split_query(path: str) -> Dict[str, str]:
    """The query of `path` as parameters."""
    return dict(urllib.parse.parse_qsl(path.partition("?")[2], keep_blank_values=True))


def api_root(group: str, version: str) -> str:
    """/api/v1 or /apis/<group>/<version>."""
    if group:
        return "/apis/%s/%s" % (segment(group, "group"), segment(version, "version"))
    return "/api/" + segment(version, "version")


def split_api_version(api_version: str) -> Tuple[str, str]:
    """("apps", "v1") of "apps/v1"; ("", "v1") of "v1"."""
    group, slash, version = api_version.rpartition("/")
    if not version or (slash and not group) or "/" in group:
        raise ValueError("apiVersion can't be %r" % api_version)
    return group, version


class Address(NamedTuple):
    """Where a URL leads: `target` is path and query, `authority` what Host says (no default port)."""

    secure: bool
    host: str
    port: int
    authority: str
    target: str


def split_url(url: str, schemes: Tuple[str, str]) -> Address:
    """The Address of `url`, whose scheme is one of (plain, secure); ValueError for anything else in it."""
    if not isinstance(url, str):
        raise TypeError("an address is a str, not %s" % type(url).__name__)
    if re.search(_UNPRINTABLE, url) or not url.isascii():
        raise ValueError("an address can't hold spaces, control characters or non-ASCII ones")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError("an address starts with %s:// or %s:// and a host" % schemes)
    if "@" in parts.netloc or "#" in url:
        raise ValueError("an address can't hold a user name, a password or a fragment")
    secure = parts.scheme == schemes[1]
    port = parts.port or (443 if secure else 80)
    host = parts.hostname
    bracketed = "[%s]" % host.partition("%")[0] if ":" in host else host  # RFC 6874: a zone is never sent
    authority = bracketed if port == (443 if secure else 80) else "%s:%d" % (bracketed, port)
    return Address(secure, host, port, authority, (parts.path or "/") + ("?" + parts.query if parts.query else ""))


@functools.lru_cache(maxsize=64)
def base_address(url: str) -> Address:
    """split_url for the few addresses that clusters have, which every request asks for."""
    return split_url(url, ("http", "https"))


def check_headers(headers: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """A copy; ValueError for what could end a header line. Values are never repeated: they may be secret."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError("headers is a mapping, not %s" % type(headers).__name__)
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("header names and values are str")
        if not re.fullmatch(_TOKEN, name) or re.search(_CONTROL, value.replace("\t", "")):
            raise ValueError("header %r has a character that is not allowed" % name)
        if max(value, default="") > "\xff":
            raise ValueError("header %r is not Latin-1" % name)
    return dict(headers)


def check_protocols(protocols: Sequence[str]) -> None:
    """ValueError unless these are names of WebSocket subprotocols (RFC 6455 4.1); one str is not several."""
    if isinstance(protocols, str) or not all(isinstance(one, str) and re.fullmatch(_TOKEN, one) for one in protocols):
        raise ValueError("subprotocols are a sequence of RFC 9110 tokens")


# ------------------------------------------------------------------------------
# 3. Frames
#
# RFC 6455 sections 4, 5 and 7, and the heads of HTTP answers. Bytes in, values
# out: no socket, no thread, no clock. Too few bytes give None; bytes that can
# never become legal raise.
# ------------------------------------------------------------------------------

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_CODE, ABNORMAL, BAD_DATA, TOO_BIG, RESTART = (
    1000, 1001, 1002, 1005, 1006, 1007, 1009, 1012)
_FIRST_OCTETS = {0x00: CONTINUATION, 0x80: CONTINUATION, 0x01: TEXT, 0x81: TEXT, 0x02: BINARY, 0x82: BINARY,
                 0x88: CLOSE, 0x89: PING, 0x8A: PONG}  # of frames that are legal, with 0x80 for the last of a message
MAX_HEAD = 64 * 1024  # octets of an answer's status line and headers
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@functools.lru_cache(maxsize=256)
def _mask_table(octet: int) -> bytes:
    return bytes(value ^ octet for value in range(256))


def apply_mask(data: bytes, key: bytes, head: bytes = b"") -> Union[bytes, bytearray]:
    """`head`, then `data` XOR the four octets of `key` (5.3)."""
    size, start = len(data), len(head)
    if size < 450:  # measured: one big integer is faster below 400 to 520 octets, translate above
        return head + (int.from_bytes(data, "little") ^ int.from_bytes((key * (size // 4 + 1))[:size], "little")).to_bytes(
            size, "little")
    out = bytearray(head)
    out += data  # where it is masked, too: to put 1 MB together afterwards takes as long as the masking, 1.2 ms
    for offset in range(4):
        out[start + offset::4] = out[start + offset::4].translate(_mask_table(key[offset]))
    return out


def encode_frame(opcode: int, payload: bytes, key: bytes, fin: bool = True) -> Union[bytes, bytearray]:
    """A client's frame, masked with `key` (5.2): an argument, so that tests are exact."""
    first, size = (0x80 if fin else 0) | opcode, len(payload)
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
    """The payload of a close frame: at most 125 octets, the reason cut at a character."""
    if not _legal_close_code(code):
        raise ValueError("close code %r can't be sent" % (code,))
    return code.to_bytes(2, "big") + reason.encode()[:123].decode("utf-8", "ignore").encode()


def parse_close(payload: bytes) -> Tuple[int, str]:
    """(code, reason) of a close frame; ProtocolError for one that is not legal."""
    if not payload:
        return NO_CODE, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not _legal_close_code(code):
        what = "one octet" if len(payload) < 2 else "code %d" % code
        raise ProtocolError(PROTOCOL_ERROR, "close frame with " + what)
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError(BAD_DATA, "close reason is not UTF-8") from None


class MessageReader:
    """Octets in, messages and control frames out, in order and no further than asked for.

    The octets lie in one buffer, [_start:_end], which the caller receives into. Text is
    decoded as it comes, so what is not UTF-8 is refused at once and nothing is read twice.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size  # octets of one message
        self._buffer = memoryview(bytearray(4096))  # small: an idle watch keeps it; grows to 256 KiB under load
        self._start = self._end = 0
        self._opcode = 0  # of the message that is being assembled, 0 when there is none
        self._fin = False  # the frame at hand is its last
        self._left = -1  # octets of the frame at hand still to come, -1 between frames
        self._size = 0  # octets of the message so far, announced ones included
        self._tail = b""  # of a character that was cut
        self._text = io.StringIO()
        self._octets = bytearray()

    def space(self) -> memoryview:
        """Where to receive the next octets."""
        kept = self._end - self._start
        if not kept:
            self._start = self._end = 0
        elif self._end == len(self._buffer):  # `next` leaves less than one control frame
            self._buffer[:kept] = bytes(self._buffer[self._start:self._end])
            self._start, self._end = 0, kept
        return self._buffer[self._end:]

    def received(self, count: int) -> None:
        """`count` octets now lie in `space`."""
        self._end += count
        if self._end == len(self._buffer) < 256 * 1024:
            self._buffer, old = memoryview(bytearray(4 * self._end)), self._buffer
            self._buffer[:self._end] = old

    def next(self) -> Optional[Tuple[int, Union[str, bytes]]]:
        """(TEXT, str), (BINARY, bytes) or (CLOSE | PING | PONG, bytes); None when octets are missing."""
        while True:
            if self._left >= 0:
                if not self._take():
                    return None
                if self._fin:
                    return self._whole()
            buffer, start, end = self._buffer, self._start, self._end
            if end - start < 2:
                return None
            first, size, body = buffer[start], buffer[start + 1], start + 2
            opcode = _FIRST_OCTETS.get(first)
            if opcode is None or size > 127:
                raise ProtocolError(PROTOCOL_ERROR, "frame with a mask" if size > 127 else
                                    "frame with flags and opcode 0x%02x" % first)  # 5.2, 5.5: no fragmented control frame
            if size > 125:
                if opcode >= CLOSE:
                    raise ProtocolError(PROTOCOL_ERROR, "control frame of more than 125 octets")  # 5.5
                width = 2 if size == 126 else 8
                body += width
                if body > end:
                    return None
                size = buffer[start + 2] << 8 | buffer[start + 3] if width == 2 else int.from_bytes(buffer[start + 2:body], "big")
                if size < (126 if width == 2 else 1 << 16) or size >> 63:
                    raise ProtocolError(PROTOCOL_ERROR, "frame length %d in %d octets" % (size, width))  # 5.2: minimal
            if opcode >= CLOSE:
                if body + size > end:
                    return None
                self._start = body + size
                return opcode, bytes(buffer[body:self._start])
            if bool(opcode) == bool(self._opcode):  # 5.4
                raise ProtocolError(PROTOCOL_ERROR, "a new message in a fragmented one" if opcode else
                                    "continuation of nothing")
            if self._size + size > self._max_size:
                raise ProtocolError(TOO_BIG, "message of more than %d octets" % self._max_size)
            if first > 0x80 and body + size <= end:  # whole and alone: the usual case, decoded where it lies
                self._start = body + size
                if opcode == BINARY:
                    return opcode, bytes(buffer[body:self._start])
                try:
                    return opcode, str(buffer[body:self._start], "utf-8")
                except UnicodeDecodeError:
                    raise ProtocolError(BAD_DATA, "text is not UTF-8") from None
            self._start, self._left, self._fin = body, size, first >= 0x80
            self._size += size
            self._opcode = opcode or self._opcode

    def _take(self) -> bool:
        """Move what is here of the frame at hand to its message; True when it is complete."""
        count = min(self._left, self._end - self._start)
        piece = self._buffer[self._start:self._start + count]
        self._start += count
        self._left -= count
        done = not self._left
        if self._opcode == BINARY:
            self._octets += piece
        else:
            data = self._tail + bytes(piece) if self._tail else piece
            try:
                text, used = codecs.utf_8_decode(data, "strict", done and self._fin)
            except UnicodeDecodeError:
                raise ProtocolError(BAD_DATA, "text is not UTF-8") from None
            self._text.write(text)
            self._tail = bytes(data[used:])
        if done:
            self._left = -1
        return done

    def _whole(self) -> Tuple[int, Union[str, bytes]]:
        opcode, self._opcode, self._size = self._opcode, 0, 0
        if opcode == TEXT:
            text, self._text = self._text.getvalue(), io.StringIO()
            return opcode, text
        octets, self._octets = bytes(self._octets), bytearray()
        return opcode, octets


def handshake_request(address: Address, key: str, headers: Mapping[str, str], protocols: Sequence[str]) -> bytes:
    """The upgrade request (4.1). Lower-case "websocket": Headlamp compares it exactly."""
    lines = ["GET %s HTTP/1.1" % address.target, "Host: " + address.authority, "Upgrade: websocket",
             "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + key]
    if protocols:  # on one line, ", " between: Headlamp strips its own only then
        lines.append("Sec-WebSocket-Protocol: " + ", ".join(protocols))
    lines += ["%s: %s" % pair for pair in headers.items()]
    return "\r\n".join(lines + ["", ""]).encode("latin-1")


class BadAnswer(OSError):
    """What came is not an answer as HTTP/1.1 has them."""


class TooLarge(BadAnswer):
    """What came is more than was asked for."""


class Headers(Mapping[str, str]):
    """The headers of an answer: found in any case, listed in lower case; several of one name are joined by ", "."""

    def __init__(self, lines: Iterable[Tuple[str, str]] = ()) -> None:
        self._values: Dict[str, List[str]] = {}
        for name, value in lines:
            self._values.setdefault(name.lower(), []).append(value.strip(" \t"))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get_all(self, name: str) -> Sequence[str]:
        """The values of one name, as they came."""
        return self._values.get(name.lower(), ())

    def tokens(self, name: str) -> List[str]:
        """The comma-separated elements of one header, in lower case."""
        return [part.strip(" \t").lower() for value in self.get_all(name) for part in value.split(",")]


class Head(NamedTuple):
    """An answer's status line (`minor`: HTTP/1.0 or 1.1) and headers."""

    minor: int
    status: int
    reason: str
    headers: Headers


_HEAD = (r"HTTP/1\.([01]) ([1-5]\d\d)(?: ([^\x00-\x08\x0a-\x1f]*))?\r\n"
         r"((?:" + _TOKEN + r":[^\x00-\x08\x0a-\x1f]*\r\n)*)\r\n")
_LINE = r"([^:]+):([^\r]*)\r\n"


def parse_head(data: bytes) -> Head:
    """The Head of `data`, which ends with the empty line; BadAnswer for what HTTP/1.1 does not allow (folded lines too)."""
    found = re.fullmatch(_HEAD, data.decode("latin-1"))
    if not found:
        raise BadAnswer("the answer is not HTTP/1.1")
    minor, status, reason, lines = found.groups()
    return Head(int(minor), int(status), reason or "", Headers(re.findall(_LINE, lines)))


def check_handshake(head: Head, key: str, protocols: Sequence[str]) -> str:
    """The subprotocol that a 101 chose, or ""; HandshakeError for what 4.1 tells a client to refuse."""
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
    headers = head.headers
    chosen = headers.get_all("Sec-WebSocket-Protocol")
    for wrong, ok in (
        ("HTTP version", head.minor == 1),
        ("Upgrade", headers.tokens("Upgrade") == ["websocket"]),
        ("Connection", "upgrade" in headers.tokens("Connection")),
        ("Sec-WebSocket-Accept", headers.get_all("Sec-WebSocket-Accept") == [accept]),
        ("Sec-WebSocket-Extensions", not any(headers.tokens("Sec-WebSocket-Extensions"))),  # we offer none
        ("Sec-WebSocket-Protocol", not chosen or (len(chosen) == 1 and chosen[0] in protocols)),
    ):
        if not ok:
            raise HandshakeError(head.status, "the answer has a wrong %s" % wrong, phrase="Handshake failed")
    return chosen[0] if chosen else ""


# ------------------------------------------------------------------------------
# 4. Connections
#
# TCP, TLS and CONNECT under one deadline. Any thread may end a wait by closing
# what is waited on; nothing here sleeps, and no lock is held while waiting.
# ------------------------------------------------------------------------------

FOREVER = 2e6  # seconds, 23 days: the system's calls take no more


class Deadline:
    """One time budget across several steps; `idle` also bounds each single wait."""

    def __init__(self, seconds: Optional[float] = None, idle: Optional[float] = None) -> None:
        self._end = None if seconds is None else time.monotonic() + min(seconds, FOREVER)
        self._idle = idle

    def left(self) -> Optional[float]:
        """Seconds for the next wait, None for no limit; TimeoutError when there are none."""
        if self._end is None:
            return self._idle
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        return left if self._idle is None else min(left, self._idle)


class Cancel(threading.Event):
    """A flag that, when set, also closes what its thread may be blocked on.

    `_lock` promises: whatever is held when, or after, the flag is set gets closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._held: Any = None  # something with close(); guarded by _lock

    def set(self) -> None:
        """From now on: wake whoever waits, close what is held."""
        with self._lock:  # closing too: once let go of, a connection may be another call's
            super().set()
            if self._held is not None:
                self._held.close()

    def hold(self, held: Any) -> None:
        """From now on `held` is what `set` closes."""
        with self._lock:
            self._held = held
            late = self.is_set()
        if late and held is not None:
            held.close()


class _Uncancelled(Cancel):
    """For calls that nobody can cancel: one for all of them, and it holds nothing."""

    def hold(self, held: Any) -> None:
        """Nothing to do."""


UNCANCELLED = _Uncancelled()


class _LookUp:
    """A name look-up in a thread of its own: the system's can't be interrupted, so it is left behind."""

    def __init__(self, host: str, port: int) -> None:
        self._done = threading.Event()
        self._found: Any = ConnectionAbortedError("cancelled")

        def run() -> None:
            """What the thread does."""
            try:
                self._found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                self._found = error
            self._done.set()

        threading.Thread(target=run, name="apiproxy-lookup", daemon=True).start()

    def close(self) -> None:
        """Wait no longer."""
        self._done.set()

    def wait(self, deadline: Deadline) -> Any:
        """What getaddrinfo gave, or what it raised."""
        if not self._done.wait(deadline.left()):
            raise TimeoutError("name look-up")
        if isinstance(self._found, UnicodeError):
            raise OSError("not a host name") from self._found
        if isinstance(self._found, OSError):
            raise self._found
        return self._found


@functools.lru_cache(maxsize=1)
def default_context() -> ssl.SSLContext:
    """The TLS settings where none are given: one for all, for each costs 23 ms and 0.9 MB (measured)."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])  # over h2 there would be no upgrade
    return context


class Proxy(NamedTuple):
    """An HTTP proxy; `headers` carries its Proxy-Authorization, which nobody else gets."""

    host: str
    port: int
    headers: Mapping[str, str]


def find_proxy(address: Address, setting: Optional[str] = None) -> Optional[Proxy]:
    """The proxy for an address: `setting`, else http_proxy, https_proxy and no_proxy as urllib reads them."""
    url = setting
    if url is None:
        url = urllib.request.getproxies().get("https" if address.secure else "http")
        if not url or urllib.request.proxy_bypass("%s:%d" % (address.host, address.port)):
            return None
    if not url:
        return None
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else "http://" + url)
        port = parts.port or 80
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        raise ConnectionError("the proxy's address is not http://host:port")
    headers = {}
    if parts.username is not None:
        pair = "%s:%s" % (urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""))
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, port, headers)


_SLICE = None if sys.platform == "linux" else 0.5  # elsewhere shutdown() may not wake a wait (cpython#91913, #154224)


def _ready(fd: int, reading: bool, writing: bool, seconds: Optional[float]) -> bool:
    if hasattr(select, "poll"):  # select.select fails for descriptors of 1024 and more
        poll = select.poll()
        poll.register(fd, (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0))
        return bool(poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1)))
    ready = select.select([fd] if reading else [], [fd] if writing else [], [fd], seconds)
    return any(ready)


class _Socket(socket.socket):
    """A socket that a forgotten client's connections may leave behind without a ResourceWarning."""

    def __del__(self) -> None:
        try:
            self.close()
        except AttributeError:
            pass  # it was never made


def _shut(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """End it and wake whoever waits: shutdown() wakes a poll(), close() alone does not (measured)."""
    try:
        sock.shutdown(how)
    except OSError:
        pass  # it has ended


class Wire:
    """A TCP connection, perhaps with TLS in it, that any thread may write to or close.

    TLS goes through memory BIOs: reading and writing one SSLSocket from two threads is not safe
    (cpython#77271). `_lock` promises: records leave in the order in which they were sealed, and
    nobody touches a descriptor after it was freed. It is never held while waiting.
    """

    def __init__(self, family: int) -> None:
        self._sock = _Socket(family, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self._lock = threading.Lock()
        self._closed = False  # guarded by _lock, as all below
        self._waiting = 0  # threads inside poll(); the last one out frees the descriptor
        self._out = bytearray()  # sealed octets that the kernel would not take yet
        self._tls: Optional[ssl.SSLObject] = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._cut = False  # the TCP connection has ended
        self._tls_end: Optional[ssl.SSLError] = None  # how TLS has ended
        self.taken = 0.0  # monotonic: when the peer last made room for a sender that waited

    @classmethod
    def open(cls, address: Address, deadline: Deadline, cancel: Cancel, context: Optional[ssl.SSLContext] = None,
             proxy: Optional[Proxy] = None, tunnel: bool = False) -> Wire:
        """Connect, through `proxy` if there is one (with CONNECT for TLS or when `tunnel`), with TLS if `context`."""
        host, port = (proxy.host, proxy.port) if proxy else (address.host, address.port)
        try:
            wire = cls._connect(host, port, deadline, cancel)
        except OSError as error:
            if not proxy or isinstance(error, TimeoutError):
                raise
            raise ConnectionError("proxy %s:%d: %s" % (host, port, error)) from error
        try:
            if proxy and (tunnel or context):
                wire._connect_through(proxy, address, deadline)
            if context:
                wire._start_tls(context, address.host.partition("%")[0], deadline)
        except BaseException:
            wire.close()
            raise
        return wire

    @classmethod
    def _connect(cls, host: str, port: int, deadline: Deadline, cancel: Cancel) -> Wire:
        try:
            found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            look_up = _LookUp(host, port)
            cancel.hold(look_up)
            found = look_up.wait(deadline)
        failure: Exception = OSError("no address for this host")
        for index, (family, _, _, _, address) in enumerate(found):
            left = deadline.left()
            share = None if left is None else left / (len(found) - index)  # a black hole must not use up the others' time
            wire = None
            try:
                wire = cls(family)
                cancel.hold(wire)
                wire._connect_to(address, Deadline(share))
                return wire
            except OSError as error:
                if wire:
                    wire.close()
                if cancel.is_set():
                    raise ConnectionAbortedError("cancelled") from None
                failure = error
        raise failure

    def _connect_to(self, address: Any, deadline: Deadline) -> None:
        with self._lock:
            self._check_open()
            error = self._sock.connect_ex(address)
        if error in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
            self._wait(deadline, write=True)
            with self._lock:
                self._check_open()
                error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        with self._lock:
            self._check_open()
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _connect_through(self, proxy: Proxy, address: Address, deadline: Deadline) -> None:
        host = address.host.partition("%")[0]
        target = "%s:%d" % ("[%s]" % host if ":" in host else host, address.port)
        lines = ["CONNECT %s HTTP/1.1" % target, "Host: " + target] + ["%s: %s" % pair for pair in proxy.headers.items()]
        try:
            self.send("\r\n".join(lines + ["", ""]).encode(), deadline)
            data, _ = self.read_head(deadline, 1)  # one octet at a time: what follows belongs to the tunnel
            found = re.match(rb"HTTP/1\.[01] (\d\d\d)(?: ([^\r\n]*))?\r\n", data)
            if not found or found.group(1)[:1] != b"2":
                raise ConnectionError(found.group(0).decode("latin-1").strip() if found else "that is no HTTP")
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionError("proxy %s:%d made no tunnel: %s" % (proxy.host, proxy.port, error)) from error

    def _start_tls(self, context: ssl.SSLContext, name: str, deadline: Deadline) -> None:
        try:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        except ValueError as error:
            raise OSError("not a host name for TLS") from error
        while True:
            try:
                self._tls.do_handshake()
                self.send(b"", deadline)
                return
            except ssl.SSLWantReadError:
                self.send(b"", deadline)
                self._wait(deadline)
                with self._lock:
                    self._pull()
            except ssl.SSLError:
                try:
                    self.send(b"", deadline)  # the alert that says why we refuse
                except OSError:
                    pass
                raise

    def _pull(self) -> bool:
        """Move what came to the TLS side, or its end; False when nothing did. Needs the lock."""
        self._check_open()
        try:
            data = self._sock.recv(64 * 1024)
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
        """Octets received into `space`, 0 at the end, None when there are none yet; never waits."""
        with self._lock:
            self._check_open()
            if self._out:
                try:
                    self._seal(b"")
                except OSError:
                    self._out.clear()  # nobody takes them any more; what came before that can still be read
            if self._tls is None:
                try:
                    return self._sock.recv_into(space)
                except BlockingIOError:
                    return None
            count = 0
            while True:
                try:
                    if self._tls_end:
                        raise self._tls_end
                    if not (self._cut or self._incoming.pending or self._tls.pending()):
                        raise ssl.SSLWantReadError  # as it would after some work
                    got = cast(int, self._tls.read(len(space) - count, cast(bytearray, space[count:])))
                    if not got:  # 3.8 with OpenSSL 3 takes any end for a clean one
                        raise ssl.SSLEOFError if self._cut else ssl.SSLZeroReturnError
                    count += got
                    if count == len(space) or not self._incoming.pending:
                        self._seal(b"")  # TLS 1.3 answers key updates inside a read
                        return count
                    # else on to the next record: an API server sends one for each event
                except ssl.SSLError as error:
                    if not isinstance(error, ssl.SSLWantReadError):
                        self._tls_end = error
                    if count:
                        return count  # what came whole comes first
                    if isinstance(error, ssl.SSLZeroReturnError):
                        return 0
                    if isinstance(error, ssl.SSLEOFError):
                        raise ConnectionResetError("TLS ended without close_notify") from None
                    if not isinstance(error, ssl.SSLWantReadError):
                        raise
                    self._seal(b"")
                    if not self._pull():
                        return None

    def receive(self, space: memoryview, deadline: Deadline) -> int:
        """As `read`, but waits; the deadline counts although octets come all the time."""
        while True:
            deadline.left()
            count = self.read(space)
            if count is not None:
                return count
            self._wait(deadline)

    def read_head(self, deadline: Deadline, step: int = 4096, data: bytes = b"") -> Tuple[bytes, bytes]:
        """An HTTP answer's head, with its empty line, and what came along after it; `data` was read before."""
        space, head, fresh = memoryview(bytearray(step)), bytearray(data), 0
        while True:
            end = head.find(b"\r\n\r\n", max(0, fresh - 3))
            if end >= 0:
                return bytes(head[:end + 4]), bytes(head[end + 4:])
            if len(head) > MAX_HEAD:
                raise OSError("an answer's head of more than %d octets" % MAX_HEAD)  # it answered: no reason to ask again
            count, fresh = self.receive(space, deadline), len(head)
            if not count:
                raise ConnectionResetError("closed inside an answer's head" if head else "closed before an answer")
            head += space[:count]

    def write(self, data: Union[bytes, bytearray, memoryview]) -> bool:
        """Seal and send what goes without waiting, keep the rest; True when nothing is kept."""
        with self._lock:
            self._check_open()
            self._seal(data)
            return not self._out

    def send(self, data: Union[bytes, bytearray], deadline: Deadline) -> None:
        """All of `data`, in pieces: sealing all of a big one at once would double it."""
        view = memoryview(data)
        for start in range(0, max(1, len(data)), 256 * 1024):
            done = self.write(view[start:start + 256 * 1024])
            while not done:
                self._wait(deadline, write=True)
                done, self.taken = self.write(b""), time.monotonic()

    def _seal(self, data: Union[bytes, bytearray, memoryview]) -> None:
        if self._tls is not None:
            if data:
                self._tls.write(data)
            data = self._outgoing.read() if self._outgoing.pending else b""
        try:
            if self._out:
                self._out += data
                del self._out[:self._sock.send(self._out)]
            elif data:
                self._out += data[self._sock.send(data):]
        except BlockingIOError:
            if not self._out:
                self._out += data

    def wait(self, seconds: Optional[float], write: bool = False) -> bool:
        """Wait until a read, or a write, may get on; False when the time is over first."""
        seconds = None if seconds is None else min(seconds, FOREVER)
        step = seconds if _SLICE is None else _SLICE if seconds is None else min(seconds, _SLICE)
        with self._lock:
            self._check_open()
            self._waiting += 1
            writing = write or bool(self._out)
            fd = self._sock.fileno()
        try:
            return _ready(fd, not write, writing, step) or step != seconds
        finally:
            with self._lock:
                self._waiting -= 1
                if self._closed and not self._waiting:
                    self._sock.close()
            self._check_open()

    def _wait(self, deadline: Deadline, write: bool = False) -> None:
        if not self.wait(deadline.left(), write):
            raise TimeoutError("no answer in time")

    def end_writing(self) -> None:
        """Tell the peer that no more octets come."""
        with self._lock:
            _shut(self._sock, socket.SHUT_WR)

    def close(self) -> None:
        """End it now and wake whoever waits."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            _shut(self._sock)
            if not self._waiting:
                self._sock.close()


# ------------------------------------------------------------------------------
# 5. HTTP
#
# urllib.request with a handler of ours, which reads answers itself: http.client's
# parser took a third of a small GET. Connections are kept, redirects are not
# followed, one deadline bounds the whole call. 408 and 502 are made here.
# ------------------------------------------------------------------------------

def encode_json(value: Any) -> bytes:
    """`value` as the body of a request; ValueError for NaN, which is not JSON."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


class _Collector:
    """The cyclic collector, which rests while anybody parses something large. `lock` guards what follows it."""

    lock = threading.Lock()
    parsing: Set[object] = set()  # those who are at it
    was_on = False  # and has to be again after the last of them


_decode = json.JSONDecoder().raw_decode


def _loads(data: Union[str, bytes]) -> Json:
    """json.loads, which looks for blanks around every text: 0.5 us of an event's 5 (measured)."""
    if isinstance(data, str):
        try:
            value, end = _decode(data)
            if not data[end:].strip(" \t\r\n"):  # API servers end an event with a line feed
                return value
        except ValueError:
            pass  # a blank in front, or json.loads says it better
    return json.loads(data)


def parse_json(data: Union[str, bytes]) -> Json:
    """json.loads; the cyclic collector is at rest meanwhile if `data` is large.

    It would find nothing in what is built, but look through all of it again and again: 3,000 Pods take a
    third of the time without it (measured).
    """
    if len(data) < 100 * 1000:
        return _loads(data)
    me = object()
    try:
        with _Collector.lock:
            _Collector.parsing.add(me)
            _Collector.was_on |= gc.isenabled()
            gc.disable()
        return _loads(data)
    finally:
        with _Collector.lock:
            _Collector.parsing.discard(me)
            if _Collector.was_on and not _Collector.parsing:
                _Collector.was_on = False
                gc.enable()


IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")  # RFC 9110 9.2.2


class Response:
    """An answer, read whole: status, reason, headers (any case), body (bytes)."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str], body: bytes, method: str = "",
                 url: str = "") -> None:
        self.status, self.reason, self.headers, self.body = status, reason, headers, body
        self._method, self._url = method, url

    def __repr__(self) -> str:
        return "<Response %d %s, %d bytes>" % (self.status, self.reason, len(self.body))

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def text(self) -> str:
        """The body as UTF-8; what is not becomes U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Json:
        """The parsed body; None when there is none; ApiError when it is not JSON."""
        if not self.body.strip():
            return None
        try:
            return parse_json(self.body)
        except (ValueError, RecursionError):
            page = self.body.lstrip()[:1] == b"<"
            raise self.error("the server sent a web page instead of JSON: this route is not enabled on it" if page else
                             "the server sent %s instead of JSON: %.80r" % (
                                 self.headers.get("Content-Type", "something"), self.text())) from None

    def error(self, message: str = "", kind: Callable[..., ApiError] = ApiError) -> ApiError:
        """The ApiError, or another `kind` of it, that this answer is: in the server's own words or in `message`."""
        status: Json = None
        if not message:
            try:
                status = json.loads(self.body)
            except (ValueError, RecursionError):
                message = self.text().strip()[:1000]
        status = status if isinstance(status, dict) else {}
        details = status["details"] if isinstance(status.get("details"), dict) else {}
        return kind(
            self.status, message or str(status.get("message") or ""), phrase=self.reason,
            reason=str(status.get("reason") or ""), details=details, body=self.body[:MiB],
            method=self._method, url=self._url,
            retry_after=_retry_after(self.headers.get("Retry-After") or details.get("retryAfterSeconds")))


def _retry_after(value: Any) -> Optional[float]:
    """Seconds of a Retry-After: a number or a date (RFC 9110 10.2.3); None for anything else."""
    try:
        return max(0.0, float(int(value)))
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        import email.utils  # http.client has it already

        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError):
        return None


class _HttpConnection:
    """A Wire that answers come from, and what was received ahead of its use."""

    def __init__(self, wire: Wire, proxy: Optional[Proxy] = None) -> None:
        self.wire = wire
        self.proxy = proxy  # the one that plain HTTP goes through
        self.used = 0.0  # when it was last of use, monotonic
        self.whole = False  # the last answer came to its end, and another may follow
        self.ahead = b""
        self._at = 0  # where in `ahead` the unused begins

    def is_quiet(self) -> bool:
        """Nothing came after the last answer, not even the end: fit for another request."""
        try:
            return self._at == len(self.ahead) and self.wire.read(memoryview(bytearray(1))) is None
        except OSError:
            return False

    def head(self, deadline: Deadline) -> Head:
        """The head of the next answer; interim ones (100, 103) are passed over."""
        rest = self.ahead[self._at:]
        for _ in range(8):
            data, rest = self.wire.read_head(deadline, data=rest)
            head = parse_head(data)
            if head.status >= 200 or head.status == 101:
                self.ahead, self._at = rest, 0
                return head
        raise BadAnswer("nothing but interim answers")

    def body(self, head: Head, method: str, deadline: Deadline, limit: int) -> Iterator[bytes]:
        """The pieces of an answer's body (RFC 9112 6.3); BadAnswer or ConnectionError when it is not whole.

        TooLarge beyond the limit, at once when that is announced and the answer is no error.
        """
        keep = head.minor == 1 and head.status != 101 and "close" not in head.headers.tokens("Connection")
        codings, length = head.headers.tokens("Transfer-Encoding"), content_length(head)
        if method == "HEAD" or head.status in (101, 204, 304):
            pieces: Iterator[bytes] = iter(())
        elif codings:
            if codings != ["chunked"]:
                raise BadAnswer("a transfer coding that was not asked for")
            keep = keep and length is None  # 6.1: somebody may have meant it to be read in two ways
            pieces = self._chunks(deadline)
        elif length is not None:
            if length > limit and head.status < 400:
                raise TooLarge
            pieces = self._octets(length, deadline)
        else:
            keep, pieces = False, self._rest(deadline)
        size = 0
        for piece in pieces:
            size += len(piece)
            yield piece
            if size > limit:
                raise TooLarge
        self.whole = keep

    def _chunks(self, deadline: Deadline) -> Iterator[bytes]:
        while True:
            size = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", self._line(deadline))
            if not size:
                raise BadAnswer("a chunk without a size")
            if not int(size.group(1), 16):
                break
            yield from self._octets(int(size.group(1), 16), deadline)
            if self._line(deadline):
                raise BadAnswer("a chunk that is longer than it says")
        for _ in range(100):  # trailers
            if not self._line(deadline):
                return
        raise BadAnswer("endless trailers")

    def _rest(self, deadline: Deadline) -> Iterator[bytes]:
        while self._at < len(self.ahead) or self._more(deadline):
            piece, self._at = self.ahead[self._at:], len(self.ahead)
            yield piece

    def _octets(self, count: int, deadline: Deadline) -> Iterator[bytes]:
        while count:
            if self._at == len(self.ahead) and not self._more(deadline):
                raise ConnectionResetError("the body ended %d octets too soon" % count)
            piece = self.ahead[self._at:self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def _line(self, deadline: Deadline) -> bytes:
        while True:
            end = self.ahead.find(b"\r\n", self._at, self._at + 4096)
            if end >= 0:
                line, self._at = self.ahead[self._at:end], end + 2
                return line
            if len(self.ahead) - self._at >= 4096:
                raise BadAnswer("a chunk's size, or a trailer, of more than 4096 octets")
            if not self._more(deadline):
                raise ConnectionResetError("the body ended between chunks")

    def _more(self, deadline: Deadline) -> int:
        space = memoryview(bytearray(64 * 1024))
        count = self.wire.receive(space, deadline)
        self.ahead, self._at = self.ahead[self._at:] + space[:count], 0
        return count


def content_length(head: Head) -> Optional[int]:
    """What Content-Length says, None without one; BadAnswer for several or for what is no number."""
    values = head.headers.tokens("Content-Length")
    if not values:
        return None
    if len(set(values)) > 1 or not re.fullmatch("[0-9]{1,99}", values[0]):
        raise BadAnswer("an answer with a Content-Length that is not one")
    return int(values[0])


class _HttpRequest:
    """What urllib's opener and our handler need of a request; urllib's own would take the address apart again."""

    timeout: Any = None  # set by the opener, not used: there is a deadline
    headers: Mapping[str, str] = {}  # what audit hooks are shown

    def __init__(self, method: str, url: str, target: str, lines: Dict[str, str], body: Optional[bytes], deadline: Deadline,
                 cancel: Cancel, address: Address, context: Optional[ssl.SSLContext], proxy: Optional[str]) -> None:
        self.method, self.full_url, self.target, self.lines, self.data = method, url, target, lines, body
        self.deadline, self.cancel, self.address, self.context, self.proxy = deadline, cancel, address, context, proxy
        self.type = "https" if address.secure else "http"

    def get_method(self) -> str:
        """The method, for the opener."""
        return self.method


class HttpHandler(urllib.request.BaseHandler):
    """The urllib handler that keeps connections. `_lock` guards `_idle`, which holds none that is in use.

    A POST or PATCH gets a connection of its own: the server may close a kept one while the request
    is on its way, and nothing tells then whether it was carried out. Others are sent once more.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._idle: Dict[Any, List[_HttpConnection]] = {}

    def close(self) -> None:
        """Close the connections that nobody is using."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for kept in sum(idle.values(), []):
            kept.wire.close()

    def http_open(self, request: _HttpRequest) -> Response:
        """What urllib calls for a request."""
        key = (request.type, request.address.authority, request.context, request.proxy)  # the context itself: an id comes again
        kept = self._kept(key) if request.method in IDEMPOTENT else None
        if kept:
            try:
                return self._exchange(kept, key, request)
            except _Stale:
                log.debug("the connection was closed meanwhile: %s", request.full_url)
        proxy = find_proxy(request.address, request.proxy)
        wire = Wire.open(request.address, request.deadline, request.cancel, request.context, proxy)
        try:
            return self._exchange(_HttpConnection(wire, None if request.context else proxy), key, request)
        except _Stale as stale:
            raise cast(OSError, stale.__cause__) from None

    https_open = http_open

    def _kept(self, key: Any) -> Optional[_HttpConnection]:
        while True:
            with self._lock:
                idle = self._idle.get(key)
                if not idle:
                    return None
                kept = idle.pop()  # the one used last
            if time.monotonic() - kept.used < self._settings.keep_alive and kept.is_quiet():
                return kept
            kept.wire.close()

    def _exchange(self, conn: _HttpConnection, key: Any, request: _HttpRequest) -> Response:
        request.cancel.hold(conn.wire)
        try:
            head = self._ask(conn, request)
            body = self._decoded(head, self._body(conn, head, request))
            return Response(head.status, head.reason, head.headers, body, request.method, request.full_url)
        finally:
            request.cancel.hold(None)
            conn.used = time.monotonic()
            with self._lock:
                idle = self._idle.setdefault(key, [])
                keep = conn.whole and len(idle) < 32 and not request.cancel.is_set()
                if keep:
                    idle.append(conn)
            if not keep:
                conn.wire.close()

    def _ask(self, conn: _HttpConnection, request: _HttpRequest) -> Head:
        lines, target, body = request.lines, request.target, request.data
        conn.whole = False
        if conn.proxy:  # plain HTTP through a proxy: the whole address in the request line
            lines, target = {**lines, **conn.proxy.headers}, request.full_url
        if body is not None or request.method in ("POST", "PUT", "PATCH"):
            lines = {**lines, "Content-Length": str(len(body or b""))}
        head = "\r\n".join(["%s %s HTTP/1.1" % (request.method, target)] + ["%s: %s" % pair for pair in lines.items()] + ["", ""])
        failure = None
        try:
            conn.wire.send(head.encode("latin-1") + (body or b""), request.deadline)
        except ConnectionError as error:
            failure = error  # a server that had enough of a body may have answered before it hung up
        try:
            return conn.head(request.deadline)
        except ConnectionError as error:  # nothing, or no whole head, was answered
            raise _Stale() from failure or error

    def _limit(self, head: Head) -> int:
        return self._settings.max_body if head.status < 400 else MiB  # of an error the first MiB will do

    def _too_large(self, head: Head) -> ApiError:
        return ApiError(head.status, "the body is larger than the limit of %d bytes" % self._settings.max_body,
                        phrase=head.reason)

    def _body(self, conn: _HttpConnection, head: Head, request: _HttpRequest) -> bytes:
        limit, body = self._limit(head), io.BytesIO()  # not a list: a server may send two octets at a time
        try:
            for piece in conn.body(head, request.method, request.deadline, limit):
                body.write(piece)
        except TooLarge:
            if head.status < 400:
                raise self._too_large(head)
        except (ConnectionError, BadAnswer):
            if head.status < 400:
                raise
            body = io.BytesIO()  # the status says enough
        return body.getvalue()[:limit]

    def _decoded(self, head: Head, body: bytes) -> bytes:
        if not body or head.headers.get("Content-Encoding", "").lower() not in ("gzip", "x-gzip"):
            return body
        limit, unzip = self._limit(head), zlib.decompressobj(31)
        try:
            body = unzip.decompress(body, limit + 1)
            whole = unzip.eof and not unzip.unused_data
        except zlib.error:
            body, whole = b"", False
        if head.status < 400 and len(body) > limit:
            raise self._too_large(head)
        if head.status < 400 and not whole:
            raise BadAnswer("the body is not whole, or not gzip")
        return body[:limit]


class _Stale(Exception):
    """The connection ended before anything was answered; the cause says how."""


FAILURES = (ApiError, OSError, MemoryError, RuntimeError)  # the last: no more threads


def unanswered(error: Exception, method: str, url: str) -> ApiError:
    """The ApiError for a request that got no answer: 408 when time ran out, else 502; `error` is its cause, or itself it."""
    if isinstance(error, ApiError):
        error.method, error.url = method, url
        return error
    late = isinstance(error, TimeoutError)
    failure = ApiError(408 if late else 502, str(error)[:1000] or type(error).__name__, method=method, url=url,
                       phrase="Request timed-out" if late else "Unreachable")
    failure.__cause__ = error
    return failure


def exchange(opener: urllib.request.OpenerDirector, request: _HttpRequest) -> Response:
    """Send `request`, give the whole answer whatever its status; ApiError when there is none."""
    method, url = request.method, request.full_url
    log.debug("> %s %s", method, url)
    try:
        response = cast(Response, opener.open(cast(Any, request)))
    except FAILURES as error:
        raise unanswered(error, method, url)
    log.debug("< %d %s", response.status, url)
    return response


# ------------------------------------------------------------------------------
# 6. WebSocket
#
# A blocking RFC 6455 client. One thread reads at a time, any may send, close or
# abort. The reader never waits to write: answers to pings go when there is room.
# ------------------------------------------------------------------------------


class WebSocket:
    """A WebSocket connection: `connect`, then `recv` or iterate, `send`, `close`.

    `_recv_lock`  one reader at a time
    `_send_lock`  frames leave whole, and none after a close frame; held by a sender that waits
                  for room, so the reader only tries it
    A peer that is gone is noticed while a thread is in `recv`, which is what sends the pings.
    """

    def __init__(self, wire: Wire, protocol: str, rest: bytes, max_message_size: int, ping_interval: Optional[float],
                 ping_timeout: float, close_timeout: float) -> None:
        self.protocol = protocol  # the subprotocol that the server chose, or ""
        self._wire = wire
        self._ping_interval, self._ping_timeout, self._close_timeout = ping_interval, ping_timeout, close_timeout
        self._recv_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._reader = MessageReader(max_message_size)  # guarded by _recv_lock
        while rest:  # frames that came with the 101
            space = self._reader.space()[:len(rest)]
            space[:], rest = rest[:len(space)], rest[len(space):]
            self._reader.received(len(space))
        self._silence = 0.0  # seconds of listening since anything was heard; guarded by _recv_lock, as the next
        self._pinged = False  # in this silence
        self._pending: Deque[Union[bytes, bytearray]] = collections.deque(maxlen=1)  # the latest control frame that had no room
        self._close_sent = False  # guarded by _send_lock, as the next
        self._torn: Optional[OSError] = None  # why nothing can be sent any more
        self._end_lock = threading.Lock()
        self._ended: Optional[ConnectionClosed] = None  # set once; written under _end_lock

    @classmethod
    def connect(cls, url: str, *, protocols: Sequence[str] = (), headers: Optional[Mapping[str, str]] = None,
                timeout: Optional[float] = 10.0, ssl_context: Optional[ssl.SSLContext] = None,
                max_message_size: int = 64 * MiB, ping_interval: Optional[float] = 10.0, ping_timeout: float = 20.0,
                close_timeout: float = 1.0, proxy: Optional[str] = None, cancel: Optional[Cancel] = None) -> WebSocket:
        """Connect to a ws:// or wss:// `url` within `timeout` seconds, look-up, proxy and TLS included.

        headers          more request headers; Origin is the address itself unless given
        proxy            its address, "" for none, None for what the environment says
        ping_interval    seconds of silence before a ping, None for no pings
        ping_timeout     seconds of silence after it until the connection counts as lost

        HandshakeError when the server refuses, with its status and body; ApiError 408 when time runs
        out, 502 when nothing answers; ValueError for an argument that can't be sent.
        """
        address = split_url(url, ("ws", "wss"))
        check_protocols(protocols)
        lines = check_headers(headers)
        if any(re.fullmatch("(?i)host|upgrade|connection|sec-websocket-.*", name) for name in lines):
            raise ValueError("Host, Upgrade, Connection and Sec-WebSocket-* are the handshake's own headers")
        if not any(name.lower() == "origin" for name in lines):  # the API server refuses a watch without it
            lines["Origin"] = "%s://%s" % ("https" if address.secure else "http", address.authority)
        key = base64.b64encode(os.urandom(16)).decode()
        request = handshake_request(address, key, lines, protocols)
        context = (ssl_context or default_context()) if address.secure else None
        cancel = cancel or Cancel()
        deadline = Deadline(timeout)
        wire = None
        log.debug("> %s", url)
        try:
            wire = Wire.open(address, deadline, cancel, context, find_proxy(address, proxy), tunnel=True)
            wire.send(request, deadline)
            conn = _HttpConnection(wire)
            head = conn.head(deadline)
            if head.status != 101:
                raise _refusal(conn, head, deadline)
            protocol = check_handshake(head, key, protocols)
        except FAILURES as error:
            cancel.hold(None)
            if wire is not None:
                wire.close()
            if isinstance(error, BadAnswer):
                raise unanswered(HandshakeError(0, str(error), phrase="Handshake failed"), "GET", url) from error
            raise unanswered(error, "GET", url)
        log.debug("= open %s %s", url, protocol)
        return cls(wire, protocol, conn.ahead, max_message_size, ping_interval, ping_timeout, close_timeout)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, from either side."""
        return self._ended is not None

    def __iter__(self) -> Iterator[Union[str, bytes]]:
        """Messages until a clean close; ConnectionClosed at any other end."""
        while True:
            try:
                yield self.recv()
            except ConnectionClosed as error:
                if error.code in (NORMAL, GOING_AWAY, NO_CODE):
                    return
                raise

    def recv(self, timeout: Optional[float] = None) -> Union[str, bytes]:
        """The next message: str for text, bytes for binary.

        TimeoutError after `timeout` seconds; the next call goes on, in mid-frame too. ConnectionClosed
        (code, reason) at the end, ProtocolError (code) when the peer broke the protocol.
        """
        if not self._recv_lock.acquire(False) and not self._recv_lock.acquire(
                timeout=-1 if timeout is None else max(0.0, min(timeout, FOREVER))):
            raise TimeoutError("another thread is reading")
        end: Optional[float] = None
        late = False
        try:
            while True:
                if self._ended:
                    raise ConnectionClosed(self._ended.code, self._ended.reason) from self._ended.__cause__
                found = self._reader.next()
                if found is not None:
                    if found[0] < CLOSE:
                        return found[1]
                    self._control(found[0], cast(bytes, found[1]))
                elif late:
                    raise TimeoutError("no message in time")
                else:
                    if end is None and timeout is not None:
                        end = time.monotonic() + min(timeout, FOREVER)
                    late = self._receive(end)
        except ProtocolError as error:
            self._finish(error.code, str(error), encode_close(error.code, error.message))
            raise
        except OSError as error:
            if isinstance(error, TimeoutError) and error.errno is None:  # ours, not the system's ETIMEDOUT
                raise
            raise self._end(ABNORMAL, str(error)) from error
        finally:
            self._recv_lock.release()

    def send(self, message: Union[str, bytes, bytearray, memoryview]) -> None:
        """Send one message, text for a str; returns when the system has taken all of it."""
        if isinstance(message, str):
            self._send(TEXT, message.encode())  # a lone surrogate raises before anything leaves
        elif isinstance(message, (bytes, bytearray, memoryview)):
            self._send(BINARY, bytes(message))
        else:
            raise TypeError("a message is str or bytes, not %s" % type(message).__name__)

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping of at most 125 octets; the answer counts as a sign of life."""
        if len(payload) > 125:
            raise ValueError("a ping carries at most 125 octets")
        self._send(PING, payload)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close politely, within `close_timeout`: send a close frame, wait for the peer's."""
        self._finish(code, reason, encode_close(code, reason), reading=False)

    def abort(self) -> None:
        """End it at once: whoever is in recv or send gets ConnectionClosed."""
        self._end(ABNORMAL, "aborted here")
        self._wire.close()

    # -- the reading thread, with _recv_lock -------------------------------------

    def _receive(self, end: Optional[float]) -> bool:
        """Wait for octets until `end`, ping when it is silent; whether the time is over by now."""
        heard = time.monotonic() - self._silence  # silence counts while somebody listens
        while True:
            count = self._wire.read(self._reader.space())
            now = time.monotonic()
            if count:
                self._reader.received(count)
                self._silence, self._pinged = 0.0, False
                return end is not None and now >= end
            if count == 0:
                raise self._end(ABNORMAL, "the connection ended without a close frame")
            if end is not None and now >= end:
                self._silence = now - heard
                raise TimeoutError("no message in time")
            if self._wire.taken > heard:  # a ping waits behind a big message: that it is taken shows life too
                heard, self._pinged = self._wire.taken, False
            limit = None
            if self._ping_interval is not None:
                limit = heard + self._ping_interval + (self._ping_timeout if self._pinged else 0)
                if now >= limit and self._pinged:
                    raise self._end(ABNORMAL, "the peer did not answer a ping") from TimeoutError("silence")
                if now >= limit:
                    self._pinged, heard = True, now - self._ping_interval  # ping_timeout from now, though we were suspended
                    self._control_frame(PING, b"")
                    continue
            self._write_pending()  # before waiting: the read above may have made room for it
            waits = [at - now for at in (end, limit) if at is not None]
            self._wire.wait(min(waits) if waits else None)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._control_frame(PONG, payload)  # 5.5.2; only the latest when there is no room (5.5.3)
        elif opcode == CLOSE:
            code, reason = parse_close(payload)
            self._finish(code, reason, payload[:2])

    def _control_frame(self, opcode: int, payload: bytes) -> None:
        """Send it when there is room; never waits."""
        self._pending.append(encode_frame(opcode, payload, os.urandom(4)))
        self._write_pending()

    def _write_pending(self) -> None:
        # A sender that holds the lock comes here itself after releasing it, so nothing is left lying.
        while self._pending and self._send_lock.acquire(blocking=False):
            try:
                if self._close_sent or self._torn:
                    self._pending.clear()
                elif self._wire.write(b""):  # nothing waits in front of it
                    self._wire.write(self._pending.pop() if self._pending else b"")
                else:
                    return
            except OSError as error:
                self._torn = error  # what came before can still be read, and then the end
            finally:
                self._send_lock.release()

    # -- any thread ---------------------------------------------------------------

    def _send(self, opcode: int, payload: bytes) -> None:
        frame = encode_frame(opcode, payload, os.urandom(4))
        with self._send_lock:
            if self._close_sent or self._ended or self._torn:
                ended = self._ended or (ConnectionClosed(ABNORMAL, str(self._torn)) if self._torn else
                                        ConnectionClosed(NORMAL, "closed here"))
                raise ConnectionClosed(ended.code, ended.reason) from self._torn
            try:
                self._wire.send(frame, Deadline())
            except OSError as error:  # the frame may be torn: nothing can follow it, but a reader goes on to the end
                self._torn = error
                ended = self._ended or ConnectionClosed(ABNORMAL, str(error))
                raise ConnectionClosed(ended.code, ended.reason) from error
        self._write_pending()

    def _end(self, code: int, reason: str) -> ConnectionClosed:
        """Settle how it ended, once; free the connection unless a close handshake still needs it."""
        with self._end_lock:  # or a simultaneous close() and abort() would give two answers
            if self._ended is None:
                self._ended = ConnectionClosed(code, reason)
                if code == ABNORMAL:
                    self._wire.close()
            return self._ended

    def _finish(self, code: int, reason: str, payload: bytes, reading: bool = True) -> None:
        """Send our close frame, read to the end, close: all within `close_timeout`.

        Closing with octets unread would send RST, which may eat our close frame on its way.
        """
        deadline = Deadline(self._close_timeout)
        try:
            if self._send_lock.acquire(timeout=self._close_timeout):
                try:
                    if not self._close_sent:
                        self._close_sent = True
                        self._wire.send(encode_frame(CLOSE, payload, os.urandom(4)), deadline)
                finally:
                    self._send_lock.release()
                self._wire.end_writing()
                # another reader meets the end itself; we only wait for it
                if reading or self._recv_lock.acquire(timeout=deadline.left() or 0):
                    try:
                        space = memoryview(bytearray(64 * 1024))
                        while self._ended is None and self._wire.receive(space, deadline):
                            pass
                    finally:
                        if not reading:
                            self._recv_lock.release()
        except OSError:
            pass  # late or torn: closing is all that is left to do
        finally:
            self._end(code, reason)
            self._wire.close()


def _refusal(conn: _HttpConnection, head: Head, deadline: Deadline) -> ApiError:
    """The HandshakeError for an answer that is not 101: with or without a length, kept open or closed."""
    body = bytearray()
    try:
        for piece in conn.body(head, "GET", deadline, MAX_HEAD):
            body += piece
    except OSError:
        pass  # what came in time has to do
    wordless = not body and head.status in (400, 403)  # so the API server refuses these two (measured)
    return Response(head.status, head.reason, head.headers, bytes(body[:MAX_HEAD])).error(
        "without a word: perhaps the Origin, or the subprotocols" if wordless else "", HandshakeError)


# ------------------------------------------------------------------------------
# 7. Streams
#
# One thread each, which alone works and calls back. What cancel promises is
# kept here, once, for every kind of stream.
# ------------------------------------------------------------------------------


class Backoff:
    """How long to wait before each retry: next to nothing, then doubling, with jitter."""

    def __init__(self, base: float, cap: float) -> None:
        self._base, self._cap, self._count = base, cap, 0

    def next(self) -> float:
        """Seconds to wait before the next try."""
        self._count += 1
        if self._count == 1:
            return random.random() * self._base / 8
        return min(self._cap, self._base * 2.0 ** min(self._count - 2, 60)) * random.uniform(0.5, 1)

    def reset(self) -> None:
        """It works again."""
        self._count = 0


class Rate:
    """A token bucket; `take` tells how long to wait for one."""

    def __init__(self, burst: int, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._rate, self._clock = burst, rate, clock
        self._tokens, self._at = float(burst), clock()

    def take(self) -> float:
        """Take a token; seconds to wait until it is there."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)


class Task:
    """A thread that works and calls back until it is done or cancelled.

    `_gate` promises: a callback runs only while it is held, and starts only if the cancelled flag
    was not set. So whoever has set the flag and then had the gate knows that none will run.
    """

    def __init__(self, name: str, tasks: Dict[Task, None]) -> None:
        self._cancel = Cancel()
        self._gate = threading.Lock()
        self._tasks = tasks  # the client's; this one is in it while its thread lives
        self._thread = threading.Thread(target=self._main, name="apiproxy-" + name, daemon=True)

    def start(self: T) -> T:
        """Begin; not done by the constructor, so that the thread meets a finished object."""
        self._tasks[self] = None
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            self._tasks.pop(self, None)
            raise
        return self

    def cancel(self) -> None:
        """Stop for good: from any thread, any number of times, also inside a callback.

        No callback starts after it has returned. One that is running is waited for, up to a second,
        unless this is called from inside it.
        """
        self._cancel.set()
        self.join(time.monotonic() + 0.9)

    def join(self, end: float) -> None:
        """Once cancelled: wait for a running callback and for the thread, until `end` (monotonic)."""
        if threading.current_thread() is self._thread:
            return
        if self._gate.acquire(timeout=max(0.0, end - time.monotonic())):
            self._gate.release()
            if self._thread.is_alive():  # else it has ended, or is being started and will find itself cancelled
                self._thread.join(max(0.0, end - time.monotonic()))

    # -- the stream's thread ------------------------------------------------------

    def _main(self) -> None:
        try:
            self._run()
        finally:
            self._tasks.pop(self, None)

    def _run(self) -> None:
        raise NotImplementedError

    def _call(self, callback: Optional[Callable[..., Any]], *args: Any) -> None:
        """The one door into the user's code."""
        if callback is None:
            return
        with self._gate:
            if not self._cancel.is_set():
                try:
                    callback(*args)
                except BaseException:  # SystemExit too: it would end the stream without a word
                    log.exception("a callback failed; the stream goes on")


class Stream(Task):
    """Messages of one address, reconnecting until cancelled; what `stream` returns.

    error   the ApiError of the last failed attempt or unexpected end, None before there was one
    """

    def __init__(self, connect: Callable[[Cancel], WebSocket], cb: StreamResultsCb, args: StreamArgs,
                 settings: Settings, tasks: Dict[Task, None]) -> None:
        super().__init__("stream", tasks)
        self.error: Optional[ApiError] = None
        self._connect, self._cb, self._args, self._settings = connect, cb, args, settings
        self._socket: Optional[WebSocket] = None

    def get_socket(self) -> Optional[WebSocket]:
        """The WebSocket while one is open, else None."""
        return self._socket

    def _run(self) -> None:
        settings, args = self._settings, self._args
        reconnect = args.get("reconnectOnFailure", args.get("failCb") is None)
        backoff = Backoff(settings.retry_base, settings.retry_cap)
        rate = Rate(settings.burst, settings.rate)  # a log's end sends a message each time, which resets the backoff
        while not self._cancel.wait(rate.take()):
            try:
                self._once(backoff)
            except ApiError as error:
                if self._cancel.is_set():
                    return
                self.error = error
            log.info("stream ended: %s", self.error)
            self._call(args.get("failCb"))
            if not reconnect:
                return
            asked = min(self.error.retry_after or 0, settings.max_retry_after) if self.error else 0
            self._cancel.wait(max(backoff.next(), asked))

    def _once(self, backoff: Backoff) -> None:
        socket = self._connect(self._cancel)
        opened, parse = time.monotonic(), self._args.get("isJson")
        try:
            self._socket = socket
            self._call(self._args.get("connectCb"))
            while True:
                message: Any = socket.recv()
                backoff.reset()
                if parse:
                    try:
                        message = parse_json(message)
                    except (ValueError, RecursionError):
                        raise WebSocketError(0, "a message is not JSON") from None
                self._call(self._cb, message)
        except MemoryError:
            raise WebSocketError(0, "no memory for a message") from None
        finally:
            self._socket = None
            socket.abort()
            self._cancel.hold(None)
            if time.monotonic() - opened >= self._settings.retry_reset:
                backoff.reset()


# ------------------------------------------------------------------------------
# 8. Watches
#
# List, then watch from the version of the list, then from the last one seen:
# every view was the server's at one moment, and they only go forward. A version
# that is gone, or an answer that can't be trusted, lists again.
# ------------------------------------------------------------------------------

LIST_ONLY = frozenset(("limit", "continue", "resourceVersionMatch", "resourceVersion", "sendInitialEvents"))
WATCH_ONLY = frozenset(("watch", "allowWatchBookmarks", "timeoutSeconds", "sendInitialEvents"))
FINAL = frozenset((400, 401, 403, 404, 405, 406, 422))  # before the first list: it would not get better
ROUTINE = frozenset((NORMAL, GOING_AWAY, NO_CODE, ABNORMAL, RESTART))  # ABNORMAL without a cause: just the end


def api_is_missing(error: ApiError) -> bool:
    """Whether a 404 says that the API or resource is not there, rather than an object or its namespace."""
    return error.status == 404 and not error.details.get("name")


def is_older(version: Any, than: Any) -> bool:
    """Whether one resourceVersion precedes another; False when they can't be compared (they are opaque)."""
    try:
        return version != than and version.isdecimal() and than.isdecimal() and int(version) < int(than)
    except (AttributeError, ValueError):  # no str, or more digits than int() takes
        return False


def object_key(item: Json) -> Any:
    """What tells one object from all others: its uid, else apiVersion, kind, namespace and name."""
    metadata = item["metadata"]
    return metadata.get("uid") or (
        item.get("apiVersion"), item.get("kind"), metadata.get("namespace"), metadata.get("name"))


def is_same(old: Json, listed: Json) -> bool:
    """Whether a list shows the object that is known: a version alone may come again after a backup was restored."""
    return bool({key: value for key, value in old.items() if key != "actionType"} == listed)


def newest_first(item: Json) -> str:
    """The time by which `limit` chooses, as text that sorts; "" when there is none."""
    when = item.get("lastTimestamp") or item["metadata"].get("creationTimestamp")
    if not isinstance(when, str) or not when[:1].isdigit():
        return ""
    return when.rstrip("Z")  # "...00Z" would sort after "...00.5Z"


class Collection:
    """The view of a list: pure, objects go in and lists come out. Versions stand apart: the objects are the callers'."""

    def __init__(self, limit: Optional[int] = None) -> None:
        self._limit = limit
        self._items: List[Json] = []  # a list, ready to be copied: 8 us for 5,000, from a dict 23 (measured)
        self._places: List[Any] = []  # of each, ascending: bisection finds where an object stands
        self._known: Dict[Any, Tuple[Any, Any]] = {}  # (place, version) of each, by object_key
        self._arrivals = 0
        self._deleted: Dict[Any, str] = {}  # versions of deletions since the last list, against replays
        self._listed: Any = None  # the version of that list

    def replace(self, items: Iterable[Json], version: Any = None) -> bool:
        """Take a fresh list of a version; whether it differs. What stayed keeps its place."""
        fresh = {object_key(item): item for item in items}
        versions = {key: item["metadata"].get("resourceVersion") for key, item in fresh.items()}
        old, self._listed = self._known, version
        self._deleted.clear()
        if versions == {key: known for key, (_, known) in old.items()} and all(
                is_same(self._items[self._index(old[key][0])], item) for key, item in fresh.items()):
            return False
        places = {key: self._place(item, old[key][0] if key in old else None) for key, item in fresh.items()}
        order = sorted(fresh, key=places.__getitem__)
        self._items, self._places = [fresh[key] for key in order], [places[key] for key in order]
        self._known = {key: (place, versions[key]) for key, place in places.items()}
        return True

    def apply(self, action: str, item: Json) -> bool:
        """Take one event (ADDED, MODIFIED or DELETED); whether the view changed."""
        key, version = object_key(item), item["metadata"]["resourceVersion"]
        place, last = self._known.get(key) or (None, self._deleted.get(key))
        if is_older(version, last or self._listed):
            return False  # a replay
        changed, index = False, 0
        if place is not None:
            index = self._index(place)
            changed = self._shown(index)
        if action == "DELETED":
            self._deleted[key] = version
            if len(self._deleted) > 10000:  # bounded: replays are of the last moments
                del self._deleted[next(iter(self._deleted))]
            if place is not None:
                del self._known[key], self._items[index], self._places[index]
            return changed
        if version == last:
            return False
        new = self._place(item, place)
        self._known[key] = new, version
        if new == place:
            self._items[index] = item  # replaced, never merged: a field that is gone is gone
            return changed
        if place is not None:
            del self._items[index], self._places[index]
        index = self._index(new)
        self._items.insert(index, item)
        self._places.insert(index, new)
        return changed or self._shown(index)

    def items(self) -> List[Json]:
        """A new list: all in order of arrival, or the newest `limit`, newest first."""
        return self._items[:] if self._limit is None else self._items[:-self._limit - 1:-1]

    def _place(self, item: Json, old: Any) -> Any:
        """By arrival; with a limit by time, and at the same time the first to arrive is the last."""
        if old is None:
            self._arrivals += 1
        if self._limit is None:
            return old or self._arrivals
        return newest_first(item), old[1] if old else -self._arrivals

    def _index(self, place: Any) -> int:
        return bisect.bisect_left(self._places, place)

    def _shown(self, index: int) -> bool:
        return self._limit is None or index >= len(self._items) - self._limit


def parse_events(text: Union[str, bytes]) -> List[Json]:
    """The events in one message, mostly one; ValueError for anything that is not a whole one."""
    if isinstance(text, bytes):
        raise ValueError("a binary message in a watch")
    try:
        events = [parse_json(text)]
    except ValueError:
        events, position, text = [], 0, text.strip(" \t\r\n")
        while position < len(text):  # several in one message: a proxy may join them
            event, position = _decode(text, position)
            events.append(event)
            while position < len(text) and text[position] in " \t\r\n":
                position += 1
    for event in events:
        item = event["object"] if isinstance(event, dict) else None
        if not isinstance(item, dict) or event.get("type") not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"):
            raise ValueError("not a watch event")
        if event["type"] != "ERROR":
            version = item["metadata"]["resourceVersion"]
            if not isinstance(version, str) or not version.encode():  # a lone surrogate could not be sent back
                raise ValueError("an event without a resourceVersion")
    return events


class _Gone(Exception):
    """The version to go on from is no longer there."""


class Watch(Task):
    """One list, kept current. Its thread lists and watches in turn until cancelled."""

    def __init__(self, client: Requester, cluster: str, paths: Sequence[str], cb: StreamResultsCb, err_cb: StreamErrCb,
                 params: Params, found: Optional[Callable[[str], None]] = None) -> None:
        super().__init__("watch", client.tasks)
        check_callable("cb", cb)
        check_callable("err_cb", err_cb)
        self._client, self._cluster, self._cb, self._err_cb = client, cluster, cb, err_cb
        self._settings = settings = client.settings
        self._paths = list(paths)  # of endpoints that may have it; the first is the one in use
        self._found = found  # called with the path that answered
        given = {key: value for key, value in (params or {}).items() if value is not None}
        params = {**split_query(self._paths[0]), **given}
        self._paths = [path.partition("?")[0] for path in self._paths]
        with_query("", params)  # what can't be sent is refused here, not in the thread
        if not float(params.get("timeoutSeconds", 0)) >= 0:
            raise ValueError("timeoutSeconds is a number of seconds")
        self._list_params = {key: value for key, value in params.items() if key not in WATCH_ONLY}
        self._watch_params = {"allowWatchBookmarks": True, **{
            key: value for key, value in params.items() if key not in LIST_ONLY}, "watch": True}
        self._watch_params.setdefault("timeoutSeconds", None)
        limit = int(params.get("limit") or 0)
        self._collection = Collection(limit if limit > 0 else None)
        self._listed = False  # a list has succeeded
        self._version: Optional[str] = None  # to go on from; None: list first
        self._resync_at = 0.0  # monotonic
        self._failures = 0  # watches refused or broken in a row, at one version
        self._backoff = Backoff(settings.retry_base, settings.retry_cap)
        self._rate = Rate(settings.burst, settings.rate)

    def _run(self) -> None:
        while not self._cancel.is_set():
            asked, fresh = 0.0, self._version is None or time.monotonic() >= self._resync_at
            try:
                if fresh:
                    self._list()
                self._follow()
            except _Gone:
                self._version = None
                if not fresh:
                    continue  # after an outage, say: the server is well, only the version is old
            except ApiError as error:
                if self._cancel.is_set():
                    return
                if not self._listed and api_is_missing(error) and len(self._paths) > 1:
                    del self._paths[0]
                    continue
                self._call(self._err_cb, error, self.cancel)
                if not self._listed and error.status in FINAL:
                    return
                log.info("watch failed, again soon: %s", error)
                asked = min(error.retry_after or 0.0, self._settings.max_retry_after)
            self._cancel.wait(max(self._backoff.next(), asked))

    def _pace(self) -> bool:
        """Every list and watch passes here: one rate for all of it, whatever goes wrong. True when cancelled."""
        return self._cancel.wait(self._rate.take())

    # -- listing

    def _fetch(self, path: str, params: Params) -> Json:
        self._pace()
        return self._client.fetch(self._cluster, path, params, self._cancel, auto_logout=not self._listed)

    def _list(self) -> None:
        items, version = self._fetch_all()
        changed = self._replace(items, version) or not self._listed
        for key in ("resourceVersion", "resourceVersionMatch", "continue"):
            self._list_params.pop(key, None)  # the caller's are for the first list; a relist reads the present
        if not self._listed and self._found:
            self._found(self._paths[0])
        self._version, self._listed, self._failures = version, True, 0
        self._resync_at = time.monotonic() + self._settings.resync * random.uniform(0.8, 1.2)
        if changed:
            self._show()

    def _fetch_all(self) -> Tuple[List[Json], str]:
        """Every item and the version of the first page; later pages are of the same version."""
        params = dict(self._list_params)
        items: List[Json] = []
        version, tokens = "", {str(params.get("continue"))}
        try:
            while True:
                page = self._fetch(self._paths[0], params)
                first = self._take_page(page, items)
                version = version or first
                token = page["metadata"].get("continue")
                if not token:
                    break
                if str(token) in tokens:
                    raise ApiError(200, "the list goes on with the same continue token", url=self._paths[0])
                tokens.add(str(token))
                # the rest in one go: with `limit` the view would lack what the watch then reports on
                params = {key: value for key, value in params.items() if key not in LIST_ONLY}
                params["continue"] = token
        except ApiError as error:
            if error.status == 410 and params.get("continue") != self._list_params.get("continue"):
                raise _Gone() from error  # its token for an inconsistent rest is not used
            raise
        return items, version

    def _take_page(self, page: Json, items: List[Json]) -> str:
        """Add a page's items, each with kind and apiVersion; its version. ApiError for what is not a list."""
        try:
            found, kind, version = page["items"] or [], page["kind"], page["metadata"]["resourceVersion"]
            if kind in ("Status", "Table") or not isinstance(version, str) or not version.encode():
                raise TypeError
            kind = kind[:-4] if kind.endswith("List") else kind
            for item in found:
                hash(object_key(item))
                item.setdefault("kind", kind)
                item.setdefault("apiVersion", page.get("apiVersion", "v1"))
        except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
            what = page.get("kind") if isinstance(page, dict) else type(page).__name__
            raise ApiError(200, "the server sent no list but %.80r" % (what,), url=self._paths[0]) from None
        items += found
        return version

    # -- watching

    def _follow(self) -> None:
        """Watch once, from the last version, to whatever end; raises unless it is a routine one."""
        settings, params = self._settings, dict(self._watch_params, resourceVersion=self._version)
        if params["timeoutSeconds"] is None:
            params["timeoutSeconds"] = max(1, int(random.uniform(*settings.watch_timeout)))
        seconds = float(params["timeoutSeconds"])
        if self._pace():
            return
        try:
            socket = self._client.connect(self._cluster, self._paths[0], params, self._cancel)
        except HandshakeError as error:
            if error.status == 410:
                raise _Gone() from error
            self._failed()
            raise
        opened = time.monotonic()
        end = min(opened + seconds + settings.watch_grace, self._resync_at)
        heard = False
        closed: Optional[ConnectionClosed] = None
        try:
            while True:
                for event in parse_events(socket.recv(end - time.monotonic())):
                    self._event(event)
                    if not heard:  # not before the first event: a broken server answers 101 too
                        heard = True
                        self._failures = 0
                        self._backoff.reset()
        except TimeoutError:
            pass  # a watch that outlives its timeout may be dead though it answers pings (k8s#102464)
        except ConnectionClosed as error:
            closed = error
        except (ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
            self._version = None  # never skip what can't be read: it may have been any change
            raise ApiError(0, "an event that can't be read: %s" % error) from error
        except ProtocolError:
            self._version = None
            raise
        finally:
            socket.abort()
            self._cancel.hold(None)
            lasted = time.monotonic() - opened
            if lasted >= min(settings.retry_reset, 0.8 * seconds):
                self._failures = 0
                self._backoff.reset()
        early = not heard and lasted < settings.short_watch
        if early:
            self._version = None  # some servers end a watch from a lost version without a word (k8s#104171)
        if closed and (early or closed.code not in ROUTINE or closed.__cause__):
            if not early and not heard:
                self._failed()
            raise closed

    def _failed(self) -> None:
        """A version at which three watches in a row failed is not worth a fourth."""
        self._failures += 1
        if self._failures >= 3:
            self._failures, self._version = 0, None

    def _event(self, event: Json) -> None:
        action, item = event["type"], event["object"]
        if action == "ERROR":
            code, reason = item.get("code"), item.get("reason")
            if code == 410 or reason in ("Expired", "Gone"):
                raise _Gone()
            self._failed()
            details = item.get("details")
            after = details.get("retryAfterSeconds") if isinstance(details, dict) else None
            raise ApiError(code if isinstance(code, int) else 0, str(item.get("message") or ""), reason=str(reason or ""),
                           details=details, phrase="Watch failed", retry_after=_retry_after(after))
        version = item["metadata"]["resourceVersion"]
        if action != "BOOKMARK":
            item["actionType"] = action
            if self._apply(action, item):
                self._show()
        if not is_older(version, self._version):
            self._version = version

    # -- what is kept and shown

    def _replace(self, items: List[Json], version: str) -> bool:
        return self._collection.replace(items, version)

    def _apply(self, action: str, item: Json) -> bool:
        return self._collection.apply(action, item)

    def _show(self) -> None:
        self._call(self._cb, self._collection.items())


class ItemWatch(Watch):
    """One object: at first, and every later state of it, its deletion included."""

    def __init__(self, client: Requester, cluster: str, paths: Sequence[str], name: str, cb: StreamResultsCb,
                 err_cb: StreamErrCb, params: Params, found: Optional[Callable[[str], None]] = None) -> None:
        segment(name)
        own = "metadata.name=" + re.sub(r"([\\,=])", r"\\\1", name)
        theirs = {**split_query(paths[0]), **(params or {})}.get("fieldSelector")
        super().__init__(client, cluster, paths, cb, err_cb,
                         {**(params or {}), "fieldSelector": "%s,%s" % (theirs, own) if theirs else own}, found)
        self._name = name
        self._item: Json = None  # the last state shown
        self._seen = ""  # its version
        self._gone = False  # it is not there
        self._gone_at: Any = None  # the version of the list that said so

    def _fetch_all(self) -> Tuple[List[Json], str]:
        # At first a GET, as documented: its 404 has the server's words, and `get` is all that some users may do.
        # Later a list: an object that did not change for long has a version too old to watch from.
        if self._listed:
            return super()._fetch_all()
        params = {key: value for key, value in self._list_params.items()
                  if key not in LIST_ONLY and not key.endswith("Selector")}
        item = self._fetch(combine_path(self._paths[0], segment(self._name)), params)
        try:
            metadata = item["metadata"]
            wrong = item["kind"] in ("Status", "Table") or metadata["name"] != self._name
            if not wrong and metadata["resourceVersion"].encode():
                return [item], metadata["resourceVersion"]
        except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
            pass
        raise ApiError(200, "the server sent no object", url=self._paths[0])

    def _replace(self, items: List[Json], version: str) -> bool:
        for item in items:
            if item["metadata"].get("name") == self._name:  # a server may ignore the selector
                return self._apply("", item)
        if self._item is None or self._gone:
            return False
        self._item = {**self._item, "actionType": "DELETED"}  # it went while nobody watched
        self._gone, self._gone_at = True, version
        return True

    def _apply(self, action: str, item: Json) -> bool:
        version, gone = item["metadata"].get("resourceVersion"), action == "DELETED"
        if self._item is not None and (version, gone) == (self._seen, self._gone) and (action or is_same(self._item, item)):
            return False
        if action and (is_older(version, self._seen) or self._gone and is_older(version, self._gone_at)):
            return False  # a replay
        self._item, self._seen, self._gone = item, version, gone
        return True

    def _show(self) -> None:
        self._call(self._cb, self._item)


class Poller(Task):
    """Calls `fetch` every `period` seconds, the next only after the last has ended, slower while it fails."""

    def __init__(self, fetch: Callable[[Cancel], Json], on_result: Callable[[Any], None],
                 on_error: Optional[Callable[[ApiError], None]], settings: Settings, tasks: Dict[Task, None]) -> None:
        super().__init__("metrics", tasks)
        self._fetch, self._on_result, self._on_error, self._settings = fetch, on_result, on_error, settings

    def _run(self) -> None:
        period, failures = self._settings.metrics_period, 0
        while not self._cancel.is_set():
            try:
                result = self._fetch(self._cancel)
                failures = 0
                self._call(self._on_result, result)
            except ApiError as error:
                if self._cancel.is_set():
                    return
                failures += 1
                self._call(self._on_error, error)
            self._cancel.wait(period * min(2 ** max(0, failures - 1), 6))


# ------------------------------------------------------------------------------
# 9. Resources
#
# API clients for one resource or for several endpoints that may have it, and
# apply. They know paths and bodies; credentials are the Client's business.
# ------------------------------------------------------------------------------


class ScaleApi:
    """The scale subresource of a namespaced resource."""

    def __init__(self, client: NamespacedApiClient) -> None:
        self._client = client

    def get(self, namespace: str, name: str, cluster_name: Optional[str] = None) -> Json:
        """The Scale of one object."""
        return self._client._send("GET", namespace, name, None, None, cluster_name, "/scale")

    def put(self, body: Json, cluster_name: Optional[str] = None) -> Json:
        """Set `spec.replicas` of the object that `body["metadata"]` names."""
        namespace, name = _names(body)
        return self._client._send("PUT", namespace, name, body, None, cluster_name, "/scale")


def _names(body: Json, name_needed: bool = True) -> Tuple[str, str]:
    """(namespace, name) in an object's metadata, "" where there is none."""
    metadata = body.get("metadata") if isinstance(body, Mapping) else None
    if not isinstance(metadata, Mapping):
        raise ValueError("the body has no metadata")
    if name_needed and not metadata.get("name"):
        raise ValueError("the body's metadata has no name")
    return metadata.get("namespace") or "", metadata.get("name") or ""


class _Endpoints:
    """One or several (group, version, resource), of which the server has one."""

    is_namespaced = False

    def __init__(self, client: Requester, endpoints: Sequence[Sequence[str]]) -> None:
        self.api_info: List[ApiInfo] = []
        for endpoint in endpoints:
            if isinstance(endpoint, str) or len(endpoint) != 3:
                raise TypeError("an endpoint is (group, version, resource)")
            group, version, resource = endpoint
            api_root(group, version), segment(resource, "resource")
            self.api_info.append({"group": group, "version": version, "resource": resource})
        if not self.api_info:
            raise ValueError("no endpoint given")
        self._requester = client
        self._best: Dict[str, str] = {}  # by cluster: the root of the endpoint that answered last

    def _paths(self, cluster: str, namespace: str) -> List[str]:
        """The collection's address at every endpoint, the one that answered last first."""
        middle = "/namespaces/%s/" % segment(namespace, "namespace") if namespace else "/"
        roots = {api_root(info["group"], info["version"]): info["resource"] for info in self.api_info}
        order = sorted(roots, key=lambda root: root != self._best.get(cluster))
        return [root + middle + segment(roots[root]) for root in order]

    def _worked(self, cluster: str, path: str) -> None:
        self._best[cluster] = "/".join(path.split("/")[:3 if path.startswith("/api/") else 4])

    def _send(self, method: str, namespace: str, name: str, body: Json, params: Params, cluster: Optional[str],
              subresource: str = "") -> Json:
        cluster = self._requester.checked_cluster(cluster)
        paths = self._paths(cluster, namespace)
        item = ("/" + segment(name) if name or method != "POST" else "") + subresource
        content_type = ""
        if method == "PATCH":
            params, content_type = {**(params or {}), "pretty": True}, patch_type(body)
        for path in paths:
            try:
                answer = self._requester.send_json(method, path + item, body, params, cluster, content_type)
            except ApiError as error:
                if path is paths[-1] or not api_is_missing(error):
                    raise
            else:
                self._worked(cluster, path)
                return answer
        raise AssertionError("there is at least one path")

    def _watch(self, namespace: str, name: Optional[str], cb: StreamResultsCb, err_cb: StreamErrCb, params: Params,
               cluster: Optional[str]) -> Callable[[], None]:
        cluster = self._requester.checked_cluster(cluster)
        paths, found = self._paths(cluster, namespace), functools.partial(self._worked, cluster)
        if name is None:
            return Watch(self._requester, cluster, paths, cb, err_cb, params, found).start().cancel
        return ItemWatch(self._requester, cluster, paths, name, cb, err_cb, params, found).start().cancel

    def post(self, body: Json, query_params: Params = None, cluster: Optional[str] = None) -> Json:
        """Create `body`, in the namespace that it names; the object as the server made it."""
        namespace, _ = _names(body, name_needed=False)
        return self._send("POST", namespace if self.is_namespaced else "", "", body, query_params, cluster)

    def put(self, body: Json, query_params: Params = None, cluster: Optional[str] = None) -> Json:
        """Replace the object that `body` names; with a resourceVersion, only if it is still that one."""
        namespace, name = _names(body)
        return self._send("PUT", namespace if self.is_namespaced else "", name, body, query_params, cluster)


def patch_type(body: Json) -> str:
    """JSON patch (RFC 6902) for a list of operations, merge patch (RFC 7386) for a mapping."""
    if isinstance(body, Mapping):
        return "application/merge-patch+json"
    if isinstance(body, (list, tuple)):
        return "application/json-patch+json"
    raise TypeError("a patch is a list of operations or a mapping, not %s" % type(body).__name__)


class ApiClient(_Endpoints):
    """Calls for a cluster-scoped resource; made by `api_factory`. `api_info` lists its endpoints."""

    def list(self, cb: StreamResultsCb, err_cb: StreamErrCb, query_params: Params = None,
             cluster: Optional[str] = None) -> Callable[[], None]:
        """As Client.stream_results; gives the function that cancels."""
        return self._watch("", None, cb, err_cb, query_params, cluster)

    def get(self, name: str, cb: StreamResultsCb, err_cb: StreamErrCb, query_params: Params = None,
            cluster: Optional[str] = None) -> Callable[[], None]:
        """As Client.stream_result; gives the function that cancels."""
        return self._watch("", name, cb, err_cb, query_params, cluster)

    def patch(self, body: Json, name: str, query_params: Params = None, cluster: Optional[str] = None) -> Json:
        """Change one object: a list is a JSON patch, a mapping a merge patch."""
        return self._send("PATCH", "", name, body, query_params, cluster)

    def delete(self, name: str, query_params: Params = None, cluster: Optional[str] = None) -> Json:
        """Delete one object; the server's Status, or the object while it is going."""
        return self._send("DELETE", "", name, None, query_params, cluster)


class NamespacedApiClient(_Endpoints):
    """Calls for a namespaced resource; made by `api_factory_with_namespace`. "" is all namespaces, where that can be."""

    is_namespaced = True

    def __init__(self, client: Requester, endpoints: Sequence[Sequence[Any]]) -> None:
        super().__init__(client, [endpoint if isinstance(endpoint, str) else endpoint[:3] for endpoint in endpoints])
        scaled = any(len(endpoint) > 3 and endpoint[3] for endpoint in endpoints)
        self.scale: Optional[ScaleApi] = ScaleApi(self) if scaled else None

    def list(self, namespace: str, cb: StreamResultsCb, err_cb: StreamErrCb, query_params: Params = None,
             cluster: Optional[str] = None) -> Callable[[], None]:
        """As Client.stream_results; gives the function that cancels."""
        return self._watch(namespace, None, cb, err_cb, query_params, cluster)

    def get(self, namespace: str, name: str, cb: StreamResultsCb, err_cb: StreamErrCb, query_params: Params = None,
            cluster: Optional[str] = None) -> Callable[[], None]:
        """As Client.stream_result; gives the function that cancels."""
        return self._watch(namespace, name, cb, err_cb, query_params, cluster)

    def patch(self, body: Json, namespace: str, name: str, query_params: Params = None,
              cluster: Optional[str] = None) -> Json:
        """Change one object: a list is a JSON patch, a mapping a merge patch."""
        return self._send("PATCH", namespace, name, body, query_params, cluster)

    def delete(self, namespace: str, name: str, query_params: Params = None, cluster: Optional[str] = None) -> Json:
        """Delete one object; the server's Status, or the object while it is going."""
        return self._send("DELETE", namespace, name, None, query_params, cluster)


def check_applicable(body: Json) -> Tuple[str, str]:
    """(group, version) of an object that can be applied; ValueError for one that can't."""
    if not isinstance(body, Mapping):
        raise TypeError("an object to apply is a mapping, not %s" % type(body).__name__)
    for key in ("apiVersion", "kind"):
        if not isinstance(body.get(key), str) or not body[key]:
            raise ValueError("the object to apply has no %s" % key)
    if body["kind"] == "List" or "items" in body and body["kind"].endswith("List"):
        raise ValueError("apply takes one object: apply each of the %s's items" % body["kind"])
    namespace, name = _names(body, name_needed=False)
    if not name:
        raise ValueError("the object to apply has no metadata.name%s" % (
            ": generateName can't be applied, post it" if body["metadata"].get("generateName") else ""))
    segment(name)
    if namespace:
        segment(namespace, "namespace")
    return split_api_version(body["apiVersion"])


def apply_object(client: Requester, cluster: str, body: Json, path: str) -> Json:
    """POST `body` to the collection at `path`; PUT where it exists, onto the live version unless it names one."""
    item = combine_path(path, segment(body["metadata"]["name"]))
    own = body["metadata"].get("resourceVersion")
    new = {**body, "metadata": {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}}
    for attempt in range(5):  # each turn means that somebody else changed or removed it in between
        try:
            return client.send_json("POST", path, new, None, cluster)
        except ApiError as error:
            # 409 alone may be a quota's. Some kinds are checked before it is seen that they exist: what was read
            # from the server and changed gets 422 (a Service with its clusterIP, a Job; seen on 1.20).
            if error.reason != "AlreadyExists" and error.status != 422:
                raise
            refused = error
        try:
            live = client.send_json("GET", item, None, None, cluster)
            put = {**new, "metadata": {**new["metadata"], "resourceVersion": own or live["metadata"]["resourceVersion"]}}
            spec, kept = put.get("spec") or {}, live.get("spec") or {}
            if (body["apiVersion"], body["kind"]) == ("v1", "Service") and spec.get("type") != "ExternalName":
                put["spec"] = {**{key: kept[key] for key in ("clusterIP", "clusterIPs")  # 1.20 refuses a PUT without
                                  if key in kept and "clusterIP" not in spec}, **spec}
            return client.send_json("PUT", item, put, None, cluster)
        except ApiError as error:
            if error.status == 404 and refused.status == 422:
                raise refused
            if own or error.status not in (404, 409):
                raise
            refused = error
    raise refused


# ------------------------------------------------------------------------------
# 10. Direct
#
# API servers reached without Headlamp: where their addresses and credentials come
# from, and what Headlamp does for its pages: draining nodes, forwarding ports.
# ------------------------------------------------------------------------------

IN_CLUSTER = "/var/run/secrets/kubernetes.io/serviceaccount"


class Endpoint:
    """An API server reached without Headlamp.

    server       its address, with a path if it has one
    ssl_context  TLS settings, see `tls_context`; None: the client's
    token        a str, or a function that returns one and is asked for each request
    basic        "user:password", for servers that want that
    namespace    the default one, for `apply`
    proxy        its address, "" for none, None for what the environment says
    """

    def __init__(self, server: str, *, ssl_context: Optional[ssl.SSLContext] = None, token: Token = None, basic: str = "",
                 namespace: str = "", proxy: Optional[str] = None) -> None:
        check_path(split_url(server, ("http", "https")).target)
        self.server, self.ssl_context, self.token, self.basic = server, ssl_context, token, basic
        self.namespace, self.proxy = namespace, proxy

    def __repr__(self) -> str:
        return "<Endpoint %s>" % self.server


class _NamedContext(ssl.SSLContext):
    """TLS settings that may expect another name than the address has (tls-server-name)."""

    server_name = ""

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, server_side: bool = False,
                 server_hostname: Any = None, session: Any = None) -> ssl.SSLObject:
        """As SSLContext.wrap_bio, with the name to expect."""
        return super().wrap_bio(incoming, outgoing, server_side, self.server_name or server_hostname, session)


def tls_context(ca_file: Optional[str] = None, ca_data: Optional[bytes] = None, server_name: str = "",
                insecure: bool = False) -> ssl.SSLContext:
    """TLS settings for one server: its authority as a file or as PEM octets, else the system's; the name to expect."""
    if not isinstance(insecure, bool):  # "false" would be true
        raise ValueError("whether certificates are checked is true or false, not %r" % (insecure,))
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificates and names
    context.set_alpn_protocols(["http/1.1"])
    context.server_name = server_name
    if insecure:
        log.warning("certificates are not checked: insecure-skip-tls-verify")
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif ca_file or ca_data:
        context.load_verify_locations(ca_file, cadata=ca_data.decode("ascii") if ca_data else None)
    else:
        context.load_default_certs()
    return context


def with_file(data: bytes, use: Callable[[str], R]) -> R:
    """What use(path) gives for a file (0600) that holds `data` for that moment."""
    import tempfile

    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return use(path)
    finally:
        os.unlink(path)


def load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Use a client certificate given as PEM octets; OpenSSL reads files only. It must not ask on the terminal."""
    with_file(certificate + b"\n" + key, lambda path: context.load_cert_chain(path, password=lambda: b""))


class ExecPlugin:
    """A kubeconfig's exec plugin: called, it gives the token. `_lock`: it runs once at a time."""

    def __init__(self, spec: Json, context: ssl.SSLContext, cluster: Json, folder: str) -> None:
        if spec.get("apiVersion") not in ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"):
            raise ValueError("exec plugins of apiVersion %r are not supported" % spec.get("apiVersion"))
        self._spec, self._context, self._cluster, self._folder = spec, context, cluster, folder
        self._lock = threading.Lock()
        self._status: Json = None

    def __call__(self) -> str:
        with self._lock:
            if self._status is None or self._ends() <= time.time() + 10:
                self._status = self._run()
                if self._status.get("clientCertificateData"):
                    load_certificate(self._context, self._status["clientCertificateData"].encode(),
                                     self._status["clientKeyData"].encode())
            return self._status.get("token") or ""

    def forget(self) -> None:
        """The server refused what it gave: run it again next time."""
        self._status = None

    def _ends(self) -> float:
        when = self._status.get("expirationTimestamp")
        return calendar.timegm(time.strptime(when[:19], "%Y-%m-%dT%H:%M:%S")) if when else float("inf")

    def _run(self) -> Json:
        import subprocess

        command = self._spec["command"]
        if os.sep in command:
            command = os.path.join(self._folder, command)
        info = {"kind": "ExecCredential", "apiVersion": self._spec["apiVersion"], "spec": {"interactive": False}}
        if self._spec.get("provideClusterInfo"):
            info["spec"]["cluster"] = self._cluster
        env = {**os.environ, **{pair["name"]: pair["value"] for pair in self._spec.get("env") or []},
               "KUBERNETES_EXEC_INFO": json.dumps(info)}
        try:
            done = subprocess.run([command] + (self._spec.get("args") or []), env=env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
            status = json.loads(done.stdout)["status"] if done.returncode == 0 else None
            if isinstance(status, dict) and (status.get("token") or status.get("clientCertificateData")):
                return status
            said = done.stderr.decode("utf-8", "replace").strip()[:300] or "no credential"
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
            said = type(error).__name__
        raise ApiError(0, "the exec plugin %s failed: %s %s" % (command, said, self._spec.get("installHint") or ""))


def read_kubeconfig(path: Optional[str] = None) -> Json:
    """A kubeconfig as a dict whose clusters, users and contexts are {name: (what, folder)}.

    Several files in KUBECONFIG are merged as kubectl does it: the first to name a thing wins. JSON is
    read here, YAML through kubectl or PyYAML; ValueError, with the way out, where there is neither.
    """
    paths = [path] if path else [one for one in os.environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    paths = paths or [os.path.join(os.path.expanduser("~"), ".kube", "config")]
    found = [one for one in paths if os.path.exists(one)]
    if not found:
        raise ValueError("there is no kubeconfig at %s" % os.pathsep.join(paths))
    merged: Json = {"clusters": {}, "users": {}, "contexts": {}, "current-context": ""}
    for document, folder in _documents(found):
        try:
            merged["current-context"] = merged["current-context"] or document.get("current-context") or ""
            for section in ("clusters", "users", "contexts"):
                for item in document.get(section) or []:
                    merged[section].setdefault(item["name"], (item.get(section[:-1]) or {}, folder))
        except (AttributeError, KeyError, TypeError):
            raise ValueError("a file in %s is not a kubeconfig" % folder) from None
    return merged


def _documents(paths: List[str]) -> List[Tuple[Json, str]]:
    """The kubeconfigs in these files, each with its folder."""
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    texts = []
    for path in paths:
        with open(path, "rb") as file:
            texts.append(file.read())
    try:
        return list(zip(map(json.loads, texts), folders))
    except ValueError:
        pass
    import shutil
    import subprocess

    view = ["kubectl", "config", "view", "--raw", "--flatten", "-o", "json"]
    if shutil.which("kubectl"):
        env = {**os.environ, "KUBECONFIG": os.pathsep.join(paths)}
        try:
            done = subprocess.run(view, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise ValueError("kubectl can't be run: %s" % type(error).__name__) from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise ValueError("kubectl can't read the kubeconfig: %s" % said)
        return [(json.loads(done.stdout), folders[0])]
    try:
        import yaml  # type: ignore[import-untyped, unused-ignore]  # the user's, if there is one
    except ImportError:
        raise ValueError("the kubeconfig is YAML, and there is neither kubectl nor PyYAML to read it; where kubectl is, run: "
                         "%s > kubeconfig.json" % " ".join(view)) from None
    return list(zip(map(yaml.safe_load, texts), folders))


def kubeconfig_endpoint(config: Json, name: str) -> Endpoint:
    """The Endpoint of one context; ValueError for what is missing or not supported."""
    try:
        context = config["contexts"][name][0]
        cluster, cluster_folder = config["clusters"][context["cluster"]]
        user, folder = config["users"][context["user"]] if context.get("user") else ({}, "")
        server = cluster["server"]
    except KeyError as error:
        raise ValueError("context %s of the kubeconfig is incomplete: no %s" % (name, error)) from None

    def octets(section: Json, key: str, where: str) -> Optional[bytes]:
        """What a key gives as data or as a file."""
        if section.get(key + "-data"):
            return base64.b64decode(section[key + "-data"])
        if not section.get(key):
            return None
        with open(os.path.join(where, section[key]), "rb") as file:
            return file.read()

    try:
        tls = tls_context(None, octets(cluster, "certificate-authority", cluster_folder), cluster.get("tls-server-name") or "",
                          cluster.get("insecure-skip-tls-verify") or False)
        certificate, key = octets(user, "client-certificate", folder), octets(user, "client-key", folder)
        if bool(certificate) != bool(key):
            raise ValueError("client-certificate and client-key belong together")
        if certificate and key:
            load_certificate(tls, certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ValueError("context %s of the kubeconfig has a certificate that can't be used: %s" % (name, error)) from error
    token: Token = user.get("token") or None
    if user.get("tokenFile"):
        token = functools.partial(read_token, os.path.join(folder, user["tokenFile"]))
    elif user.get("exec"):
        token = ExecPlugin(user["exec"], tls, {key: value for key, value in cluster.items() if key != "extensions"}, folder)
    elif user.get("auth-provider"):
        raise ValueError("context %s of the kubeconfig has an auth-provider: use an exec plugin" % name)
    basic = "%s:%s" % (user["username"], user.get("password", "")) if user.get("username") else ""
    return Endpoint(server, ssl_context=tls, token=token, basic=basic, namespace=context.get("namespace") or "",
                    proxy=cluster.get("proxy-url") or None)


def read_token(path: str) -> str:
    """The token in a file, read for each request: it rotates."""
    with open(path) as file:
        return file.read().strip()


class Drain(Task):
    """Cordons a node and evicts its pods; `status` is "" while it runs, then "success" or "error: ...".

    DaemonSet and mirror pods stay: they would come back. An eviction that a disruption budget forbids
    (429) is tried again until `drain_timeout`.
    """

    def __init__(self, client: Requester, cluster: str, node: str) -> None:
        super().__init__("drain", client.tasks)
        self.status = ""
        self._client, self._cluster, self._node = client, cluster, node

    def _run(self) -> None:
        try:
            self._drain()
            self.status = "success"
        except ApiError as error:
            self.status = "error: cancelled" if self._cancel.is_set() else "error: %s" % error

    def _ask(self, method: str, path: str, body: Json = None, params: Params = None, content_type: str = "") -> Json:
        return self._client.send_json(method, path, body, params, self._cluster, content_type, self._cancel)

    def _drain(self) -> None:
        self._ask("PATCH", "/api/v1/nodes/" + segment(self._node), {"spec": {"unschedulable": True}},
                  content_type="application/merge-patch+json")
        eviction = {one["name"]: one for one in self._ask("GET", "/api/v1")["resources"]}.get("pods/eviction", {})
        version = "%s/%s" % (eviction.get("group", "policy"), eviction.get("version", "v1"))  # policy/v1beta1 up to 1.21
        end = time.monotonic() + self._client.settings.drain_timeout
        asked: Dict[str, bool] = {}  # by uid: evictions that were granted
        while True:
            left = [pod["metadata"] for pod in self._ask("GET", "/api/v1/pods", None, {
                "fieldSelector": "spec.nodeName=" + self._node})["items"] if self._goes(pod)]
            if not left:
                return
            for pod in left:
                if not asked.get(pod["uid"]) and not self._cancel.is_set():
                    asked[pod["uid"]] = self._evict(version, pod)
            if time.monotonic() >= end:
                raise ApiError(408, "%d pods are still there: %s" % (len(left), " ".join(pod["name"] for pod in left)))
            if self._cancel.wait(self._client.settings.drain_interval):
                raise ApiError(0, "cancelled")

    @staticmethod
    def _goes(pod: Json) -> bool:
        metadata = pod["metadata"]
        if "kubernetes.io/config.mirror" in (metadata.get("annotations") or {}):
            return False
        return not any(owner.get("controller") and owner.get("kind") == "DaemonSet"
                       for owner in metadata.get("ownerReferences") or [])

    def _evict(self, version: str, pod: Json) -> bool:
        path = "/api/v1/namespaces/%s/pods/%s/eviction" % (segment(pod["namespace"]), segment(pod["name"]))
        try:
            self._ask("POST", path, {"apiVersion": version, "kind": "Eviction",
                                     "metadata": {"name": pod["name"], "namespace": pod["namespace"]}})
        except ApiError as error:
            if error.status not in (404, 429):
                raise
            return error.status == 404
        return True


class PortForward(Task):
    """A local listener whose connections go to a port of a pod, one WebSocket each; its thread accepts."""

    def __init__(self, client: Requester, cluster: str, info: Json, address: str, port: int) -> None:
        super().__init__("forward", client.tasks)
        self.info = info
        self._client, self._cluster = client, cluster
        self._pipes: List[_Pipe] = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = _Socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((address or "127.0.0.1", port))
            self._listener.listen(64)
        except OSError as error:
            self._listener.close()
            raise ApiError(0, "can't listen on port %d: %s" % (port, error)) from error
        self._listener.setblocking(False)
        self.info["port"] = str(self._listener.getsockname()[1])

    @property
    def running(self) -> bool:
        """Whether it still accepts connections."""
        return not self._cancel.is_set()

    def close(self) -> None:
        """What cancel does first: wake the accepting thread, end the connections."""
        _shut(self._listener)
        for pipe in list(self._pipes):
            pipe._cancel.set()

    def _run(self) -> None:
        self._cancel.hold(self)
        with self._listener:
            while not self._cancel.is_set():
                try:
                    conn, _ = self._listener.accept()
                except BlockingIOError:
                    _ready(self._listener.fileno(), True, False, _SLICE)
                    continue
                except OSError:
                    if not self._cancel.wait(0.1):  # too many open files: they may become fewer
                        continue
                    return
                self._pipes = [pipe for pipe in self._pipes if pipe._thread.is_alive()]
                self._pipes.append(_Pipe(self._client, self._cluster, self.info, conn).start())
                if self._cancel.is_set():
                    self._pipes[-1]._cancel.set()


class _Pipe(Task):
    """One forwarded connection. Its thread brings octets from the pod, a second one those to the pod."""

    def __init__(self, client: Requester, cluster: str, info: Json, conn: socket.socket) -> None:
        super().__init__("forwarded", client.tasks)
        self._client, self._cluster, self._info, self._conn = client, cluster, info, conn
        self._socket: Optional[WebSocket] = None
        self._sent_all = False  # the local side has no more to say

    def close(self) -> None:
        """What cancel does first: end both sides."""
        if self._socket:
            self._socket.abort()
        _shut(self._conn)

    def _run(self) -> None:
        path = "/api/v1/namespaces/%s/pods/%s/portforward" % (segment(self._info["namespace"]), segment(self._info["pod"]))
        self._conn.setblocking(True)
        upload = threading.Thread(target=self._upload, name="apiproxy-upload", daemon=True)
        try:
            self._socket = self._client.connect(self._cluster, path, {"ports": self._info["targetPort"]}, self._cancel,
                                                ["v4.channel.k8s.io"])
            self._cancel.hold(self)
            upload.start()
            self._download(self._socket)
        except (ApiError, OSError) as error:
            if not self._cancel.is_set():
                self._info["error"] = str(error)
                log.info("a forwarded connection ended: %s", error)
        finally:
            self.close()
            self._cancel.hold(None)
            if upload.ident:
                upload.join()
            self._conn.close()

    def _download(self, remote: WebSocket) -> None:
        opened = set()  # channels 0 (data) and 1 (errors) both begin with the port's number
        while True:
            try:
                message = remote.recv(self._client.settings.forward_linger if self._sent_all else 1.0)
            except TimeoutError:
                if self._sent_all:
                    return  # v4 has no half-close: without an answer by now, the local side has gone
                continue
            except ConnectionClosed:
                return
            if isinstance(message, str) or not message:
                continue
            if message[0] not in opened:
                opened.add(message[0])
            elif message[0] == 0:
                self._conn.sendall(message[1:])
            elif message[0] == 1 and len(message) > 1:
                raise WebSocketError(0, message[1:].decode("utf-8", "replace").strip())

    def _upload(self) -> None:
        try:
            while True:
                data = self._conn.recv(64 * 1024)
                if not data:
                    break
                cast(WebSocket, self._socket).send(b"\0" + data)
        except (OSError, ApiError):
            pass  # the other thread learns of it
        self._sent_all = True


# ------------------------------------------------------------------------------
# 11. Client
#
# Where a call goes and with whose credentials; then every call, in the order of
# the documentation. `_lock` promises: a cluster's token is read and replaced whole.
# ------------------------------------------------------------------------------


class _Credential:
    """A cluster's token; `account` is (namespace, name, expiry) where it is a service account's that ends."""

    def __init__(self, value: Token, endpoint: Optional[Endpoint]) -> None:
        self.value = value
        self.endpoint = endpoint  # whom it is for, None: the Headlamp server; nobody else gets it
        self.account = self._parse(value) if isinstance(value, str) else None
        self.renewing = threading.Lock()  # one renewal at a time
        self.retry_at = 0.0  # monotonic: after a renewal failed

    @staticmethod
    def _parse(token: str) -> Optional[Tuple[str, str, float]]:
        try:
            payload = token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            about = claims["kubernetes.io"]
            return str(about["namespace"]), str(about["serviceaccount"]["name"]), float(claims["exp"])
        except (IndexError, KeyError, TypeError, ValueError):
            return None  # opaque: left alone


_NO_TOKEN = "[^\x21-\x7e]"


def check_token(token: Any) -> str:
    """`token`, "" for None; ValueError, which does not repeat it, for what a header can't carry."""
    if token is not None and not isinstance(token, str):
        raise TypeError("a token is a str or a function that returns one")
    if token and re.search(_NO_TOKEN, token):
        raise ValueError("a token can't hold spaces, line ends or non-ASCII characters")
    return token or ""


class Client(Settings):
    """Every call of this module, with settings, tokens and connections of its own.

    base_url   the Headlamp server, or `kubectl proxy --api-prefix=/clusters/<name>`; "" for neither
    settings   see Settings; each is a keyword here and an attribute afterwards
    endpoints  clusters that are reached without it, see `add_endpoint`, `in_cluster`, `from_kubeconfig`

    It starts nothing before the first call. `close`, or leaving its `with` block, ends all that it started.
    """

    def __init__(self, base_url: str = "http://localhost:4466", **settings: Any) -> None:
        for name, value in check_options(Settings, settings, "Client").items():
            setattr(self, name, value)
        if base_url != "":
            split_url(base_url, ("http", "https"))
            if "?" in check_path(base_url):
                raise ValueError("base_url can't have a query")
        self.base_url = base_url
        self.endpoints: Dict[str, Endpoint] = {}
        if self.cluster and base_url:
            segment(self.cluster, "cluster")
        self.tasks: Dict[Any, None] = {}  # streams that run
        self._lock = threading.Lock()
        self._tokens: Dict[str, _Credential] = {}  # guarded by _lock, as the next
        self._kubeconfigs: Dict[str, str] = {}  # base64, by cluster
        self._resources: Dict[Tuple[str, str], Tuple[float, Json]] = {}  # discovery, by cluster and API
        self._drains: Dict[Tuple[str, str], Drain] = {}  # by cluster and node
        self._forwards: Dict[Tuple[str, str], PortForward] = {}  # by cluster and id
        self._handler = HttpHandler(self)
        self._opener = urllib.request.OpenerDirector()
        self._opener.add_handler(self._handler)

    @classmethod
    def in_cluster(cls, folder: Optional[str] = None, **settings: Any) -> Client:
        """A client for the cluster that this program runs in, as the pod's service account; cluster "in-cluster".

        The token is read from its file for each request: it rotates. ValueError outside of a pod.
        """
        folder = folder or IN_CLUSTER
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port:
            raise ValueError("not inside a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
        try:
            context = tls_context(os.path.join(folder, "ca.crt"))
            namespace = read_token(os.path.join(folder, "namespace"))
        except OSError as error:
            raise ValueError("not inside a cluster: %s" % error) from error
        client = cls("", **settings)
        client.add_endpoint("in-cluster", Endpoint(
            "https://%s:%s" % ("[%s]" % host if ":" in host else host, port), ssl_context=context, namespace=namespace,
            token=functools.partial(read_token, os.path.join(folder, "token"))))
        client.cluster = client.cluster or "in-cluster"
        return client

    @classmethod
    def from_kubeconfig(cls, path: Optional[str] = None, context: Optional[str] = None, **settings: Any) -> Client:
        """A client for every context of a kubeconfig, by its name; the current one, or `context`, is the current cluster.

        Without a `path`: the files in KUBECONFIG, else ~/.kube/config. YAML needs kubectl or PyYAML.
        ValueError for a file or a current context that can't be used; other contexts are left out.
        """
        client = cls("", **settings)
        client.cluster = client._add_kubeconfig(read_kubeconfig(path), context)
        return client

    def _add_kubeconfig(self, config: Json, context: Optional[str] = None) -> str:
        current = context or config["current-context"]
        if context and context not in config["contexts"]:
            raise ValueError("the kubeconfig has no context %s" % context)
        for name in config["contexts"]:
            try:
                self.add_endpoint(name, kubeconfig_endpoint(config, name))
            except ValueError as error:
                if name == current:
                    raise
                log.warning("left out: %s", error)
        return current

    def add_endpoint(self, cluster: str, endpoint: Endpoint) -> None:
        """From now on reach `cluster` at `endpoint`, with the endpoint's credentials; any name will do."""
        if not isinstance(cluster, str) or not cluster:
            raise ValueError("a cluster has a name")
        self.endpoints[cluster] = endpoint
        self.set_token(cluster, endpoint.token)

    def __repr__(self) -> str:
        return "<Client %s%s>" % (self.base_url, " cluster=%s" % self.cluster if self.cluster else "")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Cancel every stream and close idle connections. The client can be used again."""
        tasks = list(self.tasks)
        for task in tasks:
            task._cancel.set()  # all first, so that their ends do not add up
        end = time.monotonic() + 0.9
        for task in tasks:
            task.join(end)
        self._handler.close()

    def set_token(self, cluster: str, token: Token) -> None:
        """Use `token` for `cluster`: a str, a function that returns one (called for each request), or None to forget it."""
        if cluster not in self.endpoints:
            segment(cluster, "cluster")
        credential = _Credential(token if callable(token) else check_token(token), self.endpoints.get(cluster))
        with self._lock:
            if credential.value:
                self._tokens[cluster] = credential
            else:
                self._tokens.pop(cluster, None)

    def get_token(self, cluster: str) -> Optional[str]:
        """The token of `cluster` as the next request would send it, but for a renewal; None without one."""
        credential = self._tokens.get(cluster)
        return self._value(credential) or None if credential else None

    # -- where to, and with what ---------------------------------------------------

    @property
    def settings(self) -> Settings:
        """This client: it is its own settings."""
        return self

    def _value(self, credential: _Credential) -> str:
        if not callable(credential.value):
            return credential.value or ""
        try:
            return check_token(credential.value())
        except ApiError:
            raise
        except Exception as error:
            raise ApiError(0, "the function that gives the token failed: %s" % type(error).__name__) from error

    def _token(self, cluster: str, endpoint: Optional[Endpoint], deadline: Deadline,
               cancel: Cancel) -> Tuple[str, Optional[_Credential]]:
        """The token to send and where it is from, renewed first when it is a service account's that is about to end."""
        credential = self._tokens.get(cluster)
        if credential is not None and self._ends_soon(credential):
            while not credential.renewing.acquire(timeout=min(deadline.left() or 0.2, 0.2)):  # so that cancel ends it too
                if cancel.is_set():
                    raise ConnectionAbortedError("cancelled")
            try:
                if self._tokens.get(cluster) is credential and self._ends_soon(credential):
                    self._renew(cluster, credential, deadline, cancel)
            finally:
                credential.renewing.release()
            credential = self._tokens.get(cluster, credential)
        if credential is None or credential.endpoint is not endpoint:
            return "", None
        return self._value(credential), credential

    def _ends_soon(self, credential: _Credential) -> bool:
        return (credential.account is not None and credential.account[2] - time.time() <= self.token_window
                and time.monotonic() >= credential.retry_at)

    def _renew(self, cluster: str, credential: _Credential, deadline: Deadline, cancel: Cancel) -> None:
        namespace, name, _ = credential.account or ("", "", 0.0)
        try:
            answer = self._send(
                "POST", "/api/v1/namespaces/%s/serviceaccounts/%s/token" % (segment(namespace), segment(name)), cluster,
                deadline=deadline, cancel=cancel, token=cast(str, credential.value), auto_logout=False,
                body={"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                      "metadata": {"creationTimestamp": None}, "spec": {"expirationSeconds": 86400}})
            self._swap_token(cluster, credential, check_token(answer.json()["status"]["token"]))
        except (ApiError, KeyError, TypeError, ValueError) as error:
            credential.retry_at = time.monotonic() + self.token_window
            log.warning("the token of cluster %s was not renewed: %s", cluster,
                        error if isinstance(error, ApiError) else "no token in the answer")

    def _swap_token(self, cluster: str, old: Optional[_Credential], new: str) -> bool:
        """Replace, or with "" forget, a token if it is still the one that was sent; a function stays."""
        with self._lock:
            if old is None or callable(old.value) or self._tokens.get(cluster) is not old:
                return False
            if new:
                self._tokens[cluster] = _Credential(new, old.endpoint)
            else:
                del self._tokens[cluster]
            return True

    def _base(self, cluster: str, endpoint: Optional[Endpoint]) -> Tuple[str, Optional[ssl.SSLContext], Optional[str]]:
        """(address, TLS settings, proxy) of the API server of `cluster`."""
        if endpoint:
            return endpoint.server, endpoint.ssl_context or self.ssl_context, endpoint.proxy
        if not self.base_url:
            raise ValueError("no such cluster here, and no Headlamp server to ask: %r" % cluster if cluster else
                             "this needs a Headlamp server, or the name of a cluster")
        base = combine_path(self.base_url, "/clusters/" + segment(cluster, "cluster")) if cluster else self.base_url
        return base, self.ssl_context, None

    def _credentials(self, cluster: str, endpoint: Optional[Endpoint], token: str) -> Dict[str, str]:
        """Headers that say who we are to `cluster`, made afresh each time."""
        lines = {"Authorization": "Bearer " + token} if token else {}
        if endpoint and endpoint.basic and not token:
            lines["Authorization"] = "Basic " + base64.b64encode(endpoint.basic.encode()).decode()
        kubeconfig = None if endpoint else self._kubeconfigs.get(cluster)
        if kubeconfig:
            lines.update({"KUBECONFIG": kubeconfig, "X-HEADLAMP-USER-ID": self._user()})
        return lines

    def _user(self) -> str:
        with self._lock:
            self.user_id = self.user_id or os.urandom(8).hex()
            if not re.fullmatch(_TOKEN, self.user_id):  # it is a header, and part of a subprotocol
                raise ValueError("a user_id is letters, digits and -._~ and the like")
            return self.user_id

    def _send(self, method: str, path: str, cluster: str = "", *, body: Any = None, params: Params = None,
              headers: Optional[Mapping[str, str]] = None, deadline: Optional[Deadline] = None,
              cancel: Optional[Cancel] = None, token: Optional[str] = None, auto_logout: bool = True,
              backend: bool = False, credentials_of: str = "") -> Response:
        """One request and its answer; ApiError unless that is a 2xx: for a redirect too, which is never followed.

        body            bytes as they are, anything else as JSON, None for none
        credentials_of  for routes of Headlamp itself: the cluster whose credentials go along
        backend         whether the route wants the backend token
        """
        own = {name.lower(): (name, value) for name, value in check_headers(headers).items()}
        if not {"content-length", "transfer-encoding"}.isdisjoint(own):
            raise ValueError("the length of a body is not the caller's to say")
        if body is not None and not isinstance(body, bytes):
            body = encode_json(body)
        path = with_query(check_path(path), params)
        endpoint = self.endpoints.get(cluster)  # looked up once: address and credentials belong together
        base, context, proxy = self._base(cluster, endpoint)
        url, address = combine_path(base, path), base_address(base)
        cancel = cancel or UNCANCELLED
        deadline = deadline or Deadline(self.request_timeout)
        who, credential = cluster or credentials_of, None
        if token is None:
            try:
                token, credential = self._token(who, endpoint, deadline, cancel)
            except (TimeoutError, ConnectionAbortedError) as error:
                raise unanswered(error, method, url)
        lines = {"Host": address.authority, "Accept": "application/json", "User-Agent": "apiproxy/" + __version__,
                 "Accept-Encoding": "gzip" if self.gzip else "identity"}
        if body is not None:
            lines["Content-Type"] = "application/json"
        lines.update(self._credentials(who, endpoint, token))
        if self.backend_token and (backend or cluster and not endpoint and path.lstrip("/").startswith("helm/")):
            lines["X-HEADLAMP_BACKEND-TOKEN"] = check_token(self.backend_token)
        if own:
            lines = {name: value for name, value in lines.items() if name.lower() not in own}
            lines.update(own.values())
        response = exchange(self._opener, _HttpRequest(
            method, url, combine_path(address.target, path), lines, body, deadline, cancel, address,
            (context or default_context()) if address.secure else None, proxy))
        self._notice(response, who, credential, auto_logout and ("Authorization" in lines or "authorization" in own))
        if not response.ok:
            raise response.error()
        return response

    def _notice(self, response: Response, cluster: str, sent: Optional[_Credential], logout: bool) -> None:
        """What an answer says beside its body: a fresh token, a token refused, a reload."""
        fresh = response.headers.get("X-Authorization")
        if fresh and cluster and cluster not in self.endpoints and not re.search(_NO_TOKEN, fresh):
            self._swap_token(cluster, sent, fresh)
        if response.status == 401 and sent and isinstance(sent.value, ExecPlugin):
            sent.value.forget()
        if response.status == 401 and logout and cluster:
            if self._swap_token(cluster, sent, "") or sent is None or callable(sent.value):
                self._hook(self.on_logout, cluster)
        if "reload" in response.headers.get("X-Reload", ""):
            self._hook(self.on_reload)

    def _hook(self, hook: Optional[Callable[..., None]], *args: Any) -> None:
        if hook is not None:
            try:
                hook(*args)
            except Exception:
                log.exception("a hook failed")

    # -- what streams and resources are handed -------------------------------------

    def fetch(self, cluster: str, path: str, params: Params, cancel: Cancel, auto_logout: bool) -> Json:
        """GET for a stream: ended by its cancel, and by silence."""
        try:
            return self._send("GET", path, cluster, params=params, cancel=cancel, auto_logout=auto_logout,
                              deadline=Deadline(self.request_timeout, self.list_idle)).json()
        except (ValueError, MemoryError) as error:  # the first: the cluster was taken away meanwhile
            raise ApiError(0, str(error) or "no memory", method="GET", url=path) from error

    def connect(self, cluster: str, path: str, params: Params, cancel: Cancel, protocols: Sequence[str] = ()) -> WebSocket:
        """The WebSocket of a stream, with the token of this moment."""
        endpoint, url = self.endpoints.get(cluster), path
        try:
            base, context, proxy = self._base(cluster, endpoint)
            url = "ws" + with_query(combine_path(base, check_path(path)), params)[4:]
            token, _ = self._token(cluster, endpoint, Deadline(self.connect_timeout), cancel)
            lines = {"Accept": "application/json", "User-Agent": "apiproxy/" + __version__,
                     **self._credentials(cluster, endpoint, token)}
        except (TimeoutError, ConnectionAbortedError) as error:
            raise unanswered(error, "GET", url)
        except ValueError as error:  # the cluster was taken away meanwhile, or the user_id can't be sent
            raise ApiError(0, str(error), method="GET", url=url) from error
        offered = ["base64.binary.k8s.io"] + [one for one in protocols if one != "base64.binary.k8s.io"]
        if token and self.token_protocol:
            del lines["Authorization"]  # both together are refused
            offered.append("base64url.bearer.authorization.k8s.io."
                           + base64.urlsafe_b64encode(token.encode()).decode().rstrip("="))
        if "KUBECONFIG" in lines:
            offered.append("base64url.headlamp.authorization.k8s.io." + self._user())
        return WebSocket.connect(
            url, protocols=offered, headers=lines, timeout=self.connect_timeout, ssl_context=context, proxy=proxy,
            max_message_size=self.max_message, ping_interval=self.ping_interval, ping_timeout=self.ping_timeout,
            close_timeout=self.close_timeout, cancel=cancel)

    def send_json(self, method: str, path: str, body: Json, params: Params, cluster: str, content_type: str = "",
                  cancel: Optional[Cancel] = None) -> Json:
        """A request of an API client, with its body as JSON."""
        return self._send(method, path, cluster, params=params, body=body, cancel=cancel,
                          headers={"Content-Type": content_type} if content_type else None).json()

    # -- the documented calls --------------------------------------------------------

    def api_factory(self, *args: Any) -> ApiClient:
        """An ApiClient for a cluster-scoped resource: (group, version, resource), or several such tuples.

        Of several endpoints the first that the server has is used: the next is tried when a 404 says
        that the API or the resource is not there. Documented as apiFactory.
        """
        return ApiClient(self, [args] if args and isinstance(args[0], str) else args)

    def api_factory_with_namespace(self, *args: Any) -> NamespacedApiClient:
        """As `api_factory`: (group, version, resource, include_scale=False) or several. Documented as apiFactoryWithNamespace."""
        return NamespacedApiClient(self, [args] if args and isinstance(args[0], str) else args)

    def apply(self, body: Json, cluster_name: Optional[str] = None) -> Json:
        """Create `body`, a Kubernetes object, or replace it where it exists; the server's answer.

        Without a resourceVersion it replaces whatever is live; with one, only that version: ApiError 409
        otherwise. A missing namespace is the cluster's default. ValueError for a body that can't be
        applied. Documented as apply.
        """
        group, version = check_applicable(body)
        cluster = cluster_name or self.cluster
        root = api_root(group, version)
        resource = self._resource(cluster, root, body["kind"])
        if resource.get("namespaced"):
            endpoint = self.endpoints.get(cluster)
            namespace = (body["metadata"].get("namespace") or self.default_namespaces.get(cluster)
                         or (endpoint and endpoint.namespace) or "default")
            body = {**body, "metadata": {**body["metadata"], "namespace": namespace}}
            root += "/namespaces/" + segment(namespace, "namespace")
        return apply_object(self, cluster, body, combine_path(root, segment(resource["name"], "resource")))

    def _resource(self, cluster: str, root: str, kind: str) -> Json:
        """What discovery says of a kind; remembered a while, but asked again before saying no."""
        for again in (False, True):
            at, found = self._resources.get((cluster, root), (0.0, None))
            if again or found is None or time.monotonic() - at > self.discovery_ttl:
                answer = self._send("GET", root, cluster, auto_logout=False).json()
                found = answer.get("resources") or [] if isinstance(answer, dict) else []
                self._resources[cluster, root] = time.monotonic(), found
                again = True
            for resource in found:
                if resource.get("kind") == kind and "/" not in resource.get("name", "/"):  # not pods/eviction
                    return resource
            if again:
                break
        raise ApiError(404, "the server has no kind %s in %s" % (kind, root), phrase="Not Found")

    def cluster_request(self, path: str, params: Optional[ClusterRequestParams] = None, query_params: Params = None) -> Json:
        """Send a request to the cluster that params["cluster"] names, without one to the server itself.

        Gives the parsed JSON, None for an empty body; a Response when params["isJSON"] is False.
        Documented as clusterRequest.
        """
        options = check_options(ClusterRequestParams, params)
        body, method, seconds = options.get("body"), options.get("method", "GET"), self.request_timeout
        if body is not None and not isinstance(body, (str, bytes)):
            raise TypeError("body is str or bytes, not %s: post() takes objects" % type(body).__name__)
        if not isinstance(method, str) or not re.fullmatch(_TOKEN, method):
            raise ValueError("method can't be %r" % (method,))
        if "timeout" in options:
            timeout = options["timeout"]
            if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0):
                raise ValueError("timeout is milliseconds or None, not %r" % (timeout,))
            seconds = None if timeout is None else timeout / 1000
        response = self._send(
            method.upper(), path, options.get("cluster") or "", params=query_params, headers=options.get("headers"),
            body=body.encode() if isinstance(body, str) else body, deadline=Deadline(seconds),
            auto_logout=options.get("autoLogoutOnAuthError", True))
        return response.json() if options.get("isJSON", True) else response

    def delete_cluster(self, cluster: str) -> Json:
        """Forget an endpoint or stored kubeconfig (None), else remove a cluster from the server. Documented as deleteCluster."""
        if cluster in self.endpoints:
            self.set_token(cluster, None)
            del self.endpoints[cluster]
            return None
        quoted = segment(cluster, "cluster")
        with self._lock:
            stored = self._kubeconfigs.pop(cluster, None)
        answer = None
        if stored is None:
            answer = self._send("DELETE", "/cluster/" + quoted, backend=True).json()
        self.set_token(cluster, None)
        if stored is not None:
            self._hook(self.on_reload)
        return answer

    def delete_plugin(self, name: str) -> Json:
        """Remove a plugin from the server; mostly None. Documented as deletePlugin."""
        return self._send("DELETE", "/plugins/" + segment(name, "plugin"), backend=True).json()

    def drain_node(self, cluster: str, node_name: str) -> Json:
        """Begin to cordon a node and remove its pods; {"message", "cluster"} at once. See `drain_node_status`.

        Headlamp deletes every pod of the node; without it they are evicted, and disruption budgets, mirror
        pods and DaemonSets respected. Documented as drainNode.
        """
        segment(node_name, "node name")
        if cluster in self.endpoints:
            running = self._drains.get((cluster, node_name))
            if running is None or running.status:
                self._drains[cluster, node_name] = Drain(self, cluster, node_name).start()
            return {"message": "Drain node request submitted successfully", "cluster": cluster}
        return self._backend("POST", "/drain-node", cluster, {"cluster": cluster, "nodeName": node_name}).json()

    def drain_node_status(self, cluster: str, node_name: str) -> Json:
        """How a drain goes: {"id": "success" | "error: ..." | "" while it runs, "cluster": cluster}.

        Headlamp answers 404 while a drain runs, and also when none was begun; and it keeps the result
        of an earlier drain of the same node for 20 minutes. Documented as drainNodeStatus.
        """
        segment(node_name, "node name")
        if cluster in self.endpoints:
            drain = self._drains.get((cluster, node_name))
            return {"id": drain.status if drain else "", "cluster": cluster}
        try:
            params = {"cluster": cluster, "nodeName": node_name}
            return self._backend("GET", "/drain-node-status", cluster, None, params).json()
        except ApiError as error:
            if error.status == 404 and not error.body.strip():
                return {"id": "", "cluster": cluster}
            raise

    def list_port_forward(self, cluster: str) -> Json:
        """The port forwards of a cluster, each with id, pod, port, targetPort, status. Documented as listPortForward."""
        if cluster in self.endpoints:
            return [{**one.info, "status": "Running" if one.running else "Stopped"}
                    for (name, _), one in list(self._forwards.items()) if name == cluster]
        found = self._backend("GET", "/portforward/list", cluster, None, {"cluster": cluster}).json()
        return [one for one in found or [] if one.get("cluster") == cluster]  # "foo" lists "foobar"'s too

    def metrics(self, url: str, on_metrics: Callable[[Any], None], on_error: Optional[Callable[[ApiError], None]] = None,
                cluster: Optional[str] = None) -> Callable[[], None]:
        """GET `url` now and every `metrics_period` seconds; on_metrics(items, or the whole answer).

        on_error(error) gets what fails; polling goes on, up to six times slower while it does.
        Gives the function that cancels. Documented as metrics.
        """
        check_path(url)
        check_callable("on_metrics", on_metrics)
        check_callable("on_error", on_error or on_metrics)
        chosen = self.checked_cluster(cluster)

        def fetch(cancel: Cancel) -> Json:
            """One poll."""
            answer = self.fetch(chosen, url, None, cancel, auto_logout=True)
            return answer["items"] or [] if isinstance(answer, dict) and "items" in answer else answer

        return Poller(fetch, on_metrics, on_error, self, self.tasks).start().cancel

    def patch(self, url: str, json: Any, auto_logout_on_auth_error: bool = True,
              options: Optional[ClusterRequestParams] = None) -> Json:
        """PATCH `url`: a list is a JSON patch, a mapping a merge patch, unless a Content-Type says else. Documented as patch."""
        return self._with_body("PATCH", url, json, auto_logout_on_auth_error, options, patch_type(json))

    def post(self, url: str, json: Any, auto_logout_on_auth_error: bool = True,
             options: Optional[ClusterRequestParams] = None) -> Json:
        """POST `json` to `url`; the parsed answer. Documented as post."""
        return self._with_body("POST", url, json, auto_logout_on_auth_error, options)

    def put(self, url: str, json: Any, auto_logout_on_auth_error: bool = True,
            request_options: Optional[ClusterRequestParams] = None) -> Json:
        """PUT `json` to `url`; the parsed answer. Documented as put."""
        return self._with_body("PUT", url, json, auto_logout_on_auth_error, request_options)

    def _with_body(self, method: str, url: str, value: Any, auto_logout: bool, options: Optional[ClusterRequestParams],
                   content_type: str = "application/json") -> Json:
        given = check_options(ClusterRequestParams, options)
        headers = dict(given.get("headers") or {})
        if not any(name.lower() == "content-type" for name in headers if isinstance(name, str)):
            headers["Content-Type"] = content_type
        defaults = {"method": method, "body": encode_json(value), "autoLogoutOnAuthError": auto_logout}
        return self.cluster_request(url, cast(ClusterRequestParams, {
            **defaults, **given, "headers": headers, "cluster": given.get("cluster") or self.cluster}))

    def remove(self, url: str, request_options: Optional[ClusterRequestParams] = None) -> Json:
        """DELETE `url`; the parsed answer. Documented as remove."""
        given = check_options(ClusterRequestParams, request_options)
        return self.cluster_request(url, cast(ClusterRequestParams, {
            "method": "DELETE", **given, "cluster": given.get("cluster") or self.cluster}))

    def request(self, path: str, params: Optional[RequestParams] = None, auto_logout_on_auth_error: bool = True,
                use_cluster: bool = True, query_params: Params = None) -> Json:
        """Send a request to the current cluster, or with use_cluster=False to the server itself.

        params: timeout (ms), isJSON, cluster, method, headers, body. Gives the parsed JSON, None for an
        empty body, a Response when params["isJSON"] is False. Documented as request.
        """
        return self.cluster_request(path, cast(ClusterRequestParams, {
            "cluster": self.cluster if use_cluster else "", "autoLogoutOnAuthError": auto_logout_on_auth_error,
            **check_options(RequestParams, params)}), query_params)

    def set_cluster(self, cluster_req: ClusterRequest) -> Json:
        """Add a cluster: by `kubeconfig` (base64), kept here and sent with each request, or by `name` and `server`.

        Gives the server's answer, its `clusters` among it. Documented as setCluster.
        """
        given = check_options(ClusterRequest, cluster_req)
        kubeconfig, decoded = given.get("kubeconfig"), b""
        if kubeconfig:
            try:
                decoded = base64.b64decode(kubeconfig, validate=True)
            except (ValueError, TypeError):
                raise ValueError("kubeconfig is not base64") from None
        elif not given.get("name") or not given.get("server"):
            raise ValueError("a cluster needs a kubeconfig, or a name and a server")
        if not self.base_url:
            return self._set_endpoint(given, decoded)
        if kubeconfig:
            answer = self._send("POST", "/parseKubeConfig", auto_logout=False, body={**given, "kubeconfigs": [kubeconfig]}).json()
            clusters = answer.get("clusters") if isinstance(answer, dict) else None
            names = [one["name"] for one in clusters or [] if isinstance(one, dict) and one.get("name")]
            if not names:
                raise ApiError(200, "the server found no cluster in the kubeconfig", url=self.base_url)
            with self._lock:
                self._kubeconfigs.update(dict.fromkeys(names, kubeconfig))
            return answer
        segment(given["name"], "cluster")
        split_url(given["server"], ("http", "https"))
        for ours, theirs in (("insecureTLSVerify", "insecure-skip-tls-verify"),
                             ("certificateAuthorityData", "certificate-authority-data")):  # what the server decodes
            if ours in given:
                given[theirs] = given[ours]
        return self._send("POST", "/cluster", auto_logout=False, body=given, backend=True).json()

    def _set_endpoint(self, given: Mapping[str, Any], kubeconfig: bytes) -> Json:
        """What set_cluster does where there is no Headlamp server."""
        before = dict(self.endpoints)
        if kubeconfig:
            self._add_kubeconfig(with_file(kubeconfig, read_kubeconfig))
        else:
            authority = base64.b64decode(given.get("certificateAuthorityData") or "") or None
            self.add_endpoint(given["name"], Endpoint(given["server"], ssl_context=tls_context(
                None, authority, insecure=given.get("insecureTLSVerify") or False)))
        return {"clusters": [{"name": name, "server": one.server} for name, one in self.endpoints.items()
                             if before.get(name) is not one]}

    def start_port_forward(self, cluster: str, namespace: str, podname: str, container_port: Union[str, int], service: str,
                           service_namespace: str, port: Union[str, int, None] = None, address: str = "",
                           id: str = "") -> Json:
        """Forward a port to a pod's: of the Headlamp server, or without one of this machine; `id` and `port` among the answer.

        `port` None takes any free one. Headlamp never answers when the pod can't be reached: ApiError 408
        after `request_timeout`. Without it an empty `podname` is any ready pod of `service`. Documented as
        startPortForward.
        """
        if cluster in self.endpoints:
            return self._forward(cluster, namespace, podname, container_port, service, service_namespace, port, address, id)
        for what, value in (("cluster", cluster), ("namespace", namespace), ("podname", podname)):
            segment(value, what)
        body = {"cluster": cluster, "namespace": namespace, "pod": podname, "service": service,
                "targetPort": str(container_port), "serviceNamespace": service_namespace, "id": id, "address": address}
        if port is not None:
            body["port"] = str(port)  # a number is refused
        return self._backend("POST", "/portforward", cluster, body).json()

    def _forward(self, cluster: str, namespace: str, podname: str, container_port: Union[str, int], service: str,
                 service_namespace: str, port: Union[str, int, None], address: str, id: str) -> Json:
        if not podname:
            namespace = service_namespace or namespace
            endpoints = self.send_json("GET", "/api/v1/namespaces/%s/endpoints/%s" % (
                segment(namespace, "namespace"), segment(service, "service")), None, None, cluster)
            podname = next((one["targetRef"]["name"] for subset in endpoints.get("subsets") or []
                            for one in subset.get("addresses") or [] if one.get("targetRef", {}).get("kind") == "Pod"), "")
            if not podname:
                raise ApiError(503, "the service %s has no ready pod" % service)
        else:
            self.send_json("GET", "/api/v1/namespaces/%s/pods/%s" % (
                segment(namespace, "namespace"), segment(podname, "podname")), None, None, cluster)
        id = id or os.urandom(8).hex()
        if (cluster, id) in self._forwards and self._forwards[cluster, id].running:
            raise ValueError("there is a port forward %s already" % id)
        info = {"id": id, "cluster": cluster, "namespace": namespace, "pod": podname, "service": service,
                "serviceNamespace": service_namespace, "targetPort": str(int(container_port)), "error": ""}
        self._forwards[cluster, id] = PortForward(self, cluster, info, address, int(port or 0)).start()
        return dict(info)

    def stop_or_delete_port_forward(self, cluster: str, id: str, stop_or_delete: bool = True) -> str:
        """Stop a port forward (True) or delete its record (False: at a Headlamp server it goes on); what was said.

        Documented as stopOrDeletePortForward.
        """
        if cluster in self.endpoints:
            if (cluster, id) not in self._forwards:
                raise ApiError(404, "no portforward running with id " + id)
            self._forwards[cluster, id].cancel()
            if not stop_or_delete:
                del self._forwards[cluster, id]
            return "stopped"
        body = {"cluster": cluster, "id": id, "stopOrDelete": stop_or_delete}
        return self._backend("DELETE", "/portforward", cluster, body).text().strip()

    def _backend(self, method: str, path: str, cluster: str, body: Json = None, params: Params = None) -> Response:
        """A route of Headlamp's own that acts on `cluster` with its credentials."""
        segment(cluster, "cluster")
        return self._send(method, path, credentials_of=cluster, params=params, auto_logout=False, body=body)

    def stream(self, url: str, cb: StreamResultsCb, args: Optional[StreamArgs] = None) -> Stream:
        """Pass every message of the WebSocket at `url` to cb(message): str, bytes, or parsed with "isJson".

        connectCb()  when a connection is open;  failCb()  at every failed attempt or unexpected end
        It reconnects, with growing waits, if "reconnectOnFailure", by default if there is no failCb.
        Gives an object with cancel() and get_socket(). Documented as stream.
        """
        given = cast(StreamArgs, check_options(StreamArgs, args))
        check_path(url)
        for name, callback in (("cb", cb), ("connectCb", given.get("connectCb") or cb), ("failCb", given.get("failCb") or cb)):
            check_callable(name, callback)
        protocols = given.get("additionalProtocols") or ()
        check_protocols(protocols)
        cluster = self.checked_cluster(given.get("cluster"))
        return Stream(lambda cancel: self.connect(cluster, url, None, cancel, protocols), cb, given, self, self.tasks).start()

    def stream_result(self, url: str, name: str, cb: StreamResultsCb, err_cb: StreamErrCb, query_params: Params = None,
                      cluster: Optional[str] = None) -> Callable[[], None]:
        """Keep `cb` supplied with one object: cb(object) at first and for every later state.

        url, name   of the collection, and of the object in it
        err_cb      err_cb(error, cancel), on the same thread
        An object that came through the watch has "actionType": "ADDED", "MODIFIED" or "DELETED".
        Gives the function that cancels. Documented as streamResult.
        """
        return ItemWatch(self, self.checked_cluster(cluster), [check_path(url)], name, cb, err_cb, query_params).start().cancel

    def stream_results(self, url: str, cb: StreamResultsCb, err_cb: StreamErrCb, query_params: Params = None) -> Callable[[], None]:
        """Keep `cb` supplied with the whole collection at `url` of the current cluster.

        Lists once, then watches: cb(items) gets a new list, yours to keep, at first and after each change.

        url           path on the API server: "/api/v1/pods"
        cb            cb(items), on the stream's thread
        err_cb        err_cb(error, cancel), same thread. Before the first list a 400, 401, 403, 404, 405,
                      406 or 422 ends the stream; all else is retried until cancelled
        query_params  selectors and the like; "limit" bounds what `cb` gets to the newest ones

        Gives the function that cancels. ValueError for a bad `url`. Documented as streamResults.
        """
        return self.stream_results_for_cluster(url, {"cb": cb, "errCb": err_cb}, query_params)

    def stream_results_for_cluster(self, url: str, params: StreamResultsParams, query_params: Params = None) -> Callable[[], None]:
        """As `stream_results`, with "cb" and "errCb" (both needed) and "cluster". Documented as streamResultsForCluster."""
        given = check_options(StreamResultsParams, params)
        return Watch(self, self.checked_cluster(given.get("cluster")), [check_path(url)], cast(Any, given.get("cb")),
                     cast(Any, given.get("errCb")), query_params).start().cancel

    def checked_cluster(self, cluster: Optional[str]) -> str:
        """`cluster`, or the current one; ValueError when there is no way to it."""
        cluster = cluster or self.cluster
        self._base(cluster, self.endpoints.get(cluster))
        return cluster

    def test_auth(self, cluster: str = "") -> Json:
        """What the token may do, a SelfSubjectRulesReview; ApiError 401 or 403 for a bad one. Documented as testAuth."""
        return self.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}, False,
                         {"timeout": 5000, "cluster": cluster or self.cluster})

    def test_cluster_health(self, cluster: Optional[str] = None) -> Response:
        """GET /healthz of the cluster; ApiError unless it is well. Documented as testClusterHealth."""
        return cast(Response, self.cluster_request("/healthz", {"isJSON": False, "cluster": cluster or self.cluster}))

    test_auth.__test__ = False  # type: ignore[attr-defined]  # or pytest collects them
    test_cluster_health.__test__ = False  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------
# 12. Module functions
#
# The methods of one default client, looked up at call time, so that `configure`
# reaches functions that were imported by name.
# ------------------------------------------------------------------------------

_default = Client()  # does nothing until asked


def configure(base_url: Union[str, Client] = "http://localhost:4466", **settings: Any) -> None:
    """Replace the default client's settings by these, which are Client's; what ran with the old ones is cancelled.

    A Client may be given instead: configure(Client.in_cluster()), configure(Client.from_kubeconfig()).

    Tokens and stored kubeconfigs stay if the address does: another server never gets them.
    """
    global _default
    old, new = _default, base_url if isinstance(base_url, Client) else Client(base_url, **settings)
    if new.base_url == old.base_url and not isinstance(base_url, Client):
        with old._lock:
            new._tokens, new._kubeconfigs = dict(old._tokens), dict(old._kubeconfigs)
            new.user_id = new.user_id or old.user_id
    _default = new
    old.close()


def default_client() -> Client:
    """The client behind the module functions."""
    return _default


def _on_default(method: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """The module function for `method`: same help and signature, the default client."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        """Replaced by the method's own."""
        return method(_default, *args, **kwargs)

    functools.update_wrapper(call, method)
    call.__wrapped__ = functools.partial(method, cast(Client, None))  # type: ignore[attr-defined]  # a signature without self
    return call


close = _on_default(Client.close)
set_token = _on_default(Client.set_token)
get_token = _on_default(Client.get_token)

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
