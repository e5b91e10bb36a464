# SPDX-License-Identifier: Apache-2.0
"""Tests of apiproxy.py, in the order of its parts; then examples, surface and the real cluster.

Pure parts get tables of bytes. The rest talks to a scripted server on 127.0.0.1, whose scripts are
functions of one connection, or to the demo cluster of examples/. Tests marked `cluster` run against
a real API server when APIPROXY_TEST_URL is set. Nothing here depends on how long anything takes:
tests wait for conditions, and every time in the module is a setting.
"""

import ast
import base64
import collections
import copy
import email.utils
import errno
import functools
import gc
import gzip
import hashlib
import inspect
import itertools
import json
import logging
import os
import pickle
import random
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
import types
import urllib.parse

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "examples"), os.path.join(HERE, ".ci")]

import apiproxy  # noqa: E402
import fuzz  # noqa: E402
from apiproxy import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Cancel, ConnectionClosed, WebSocket  # noqa: E402
import simulate  # noqa: E402
from demo_cluster import DemoCluster  # noqa: E402
from faultproxy import FaultProxy  # noqa: E402

# ------------------------------------------------------------------------------
# Tools
# ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test():
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(3)
        assert not thread.is_alive(), thread.name


@pytest.fixture(autouse=True)
def no_secret_gets_out(caplog, monkeypatch):
    """Every token and kubeconfig in these tests has SECRET in it; no log line, error text, repr or traceback may."""
    caplog.set_level("DEBUG", "apiproxy")
    errors, init = {}, apiproxy.ApiError.__init__

    def spy(self, *args, **kwargs):
        init(self, *args, **kwargs)
        errors.setdefault((type(self), args, str(kwargs)), self)

    monkeypatch.setattr(apiproxy.ApiError, "__init__", spy)
    yield
    texts = ["%s %r %s" % (error, error, "".join(traceback.format_exception(type(error), error, error.__traceback__)))
             for error in errors.values()]
    texts += [caplog.handler.format(record) for record in caplog.get_records("call")]
    for secret in ("SECRET", "U0VDUkVU", "NFQ1JFV", "TRUNSRV"):  # as it is, and in base64 at each of three places
        assert not [text for text in texts if secret in re.sub(r'File "[^"]*", line .*\n.*', "", text)]


def eventually(condition, timeout=10.0):
    """Wait until `condition()` is true; its last value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "still not so after %s s" % timeout
        time.sleep(0.005)


# A certificate for localhost, 127.0.0.1 and ::1, its own authority; its key protects nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQglVpHvJoPhCpapIkp
1PmJ//MthwxWmlV/Mwx64LkPD4+hRANCAARNZv8HBbnNEWIauIPrHdpIuZ04C9uY
bglIXPEsmrFEaTGfo5xz7K2buHJSGFeCvkx9ZxBps/VZZkOnFS9JXP4c
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBuDCCAV6gAwIBAgIUaT74cqKqnW/rPm1uVmgs4a4Lw6wwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOYXBpcHJveHkgdGVzdHMwIBcNMjYxMTIzMTIyNDAyWhgPMjEy
NjEwMzAxMjI0MDJaMBkxFzAVBgNVBAMMDmFwaXByb3h5IHRlc3RzMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAETWb/BwW5zRFiGriD6x3aSLmdOAvbmG4JSFzxLJqx
RGkxn6Occ+ytm7hyUhhXgr5MfWcQabP1WWZDpxUvSVz+HKOBgTB/MB0GA1UdDgQW
BBTRi3Oj9IyJ6VTTZIhiB/IqNMAKFzAfBgNVHSMEGDAWgBTRi3Oj9IyJ6VTTZIhi
B/IqNMAKFzAPBgNVHRMBAf8EBTADAQH/MCwGA1UdEQQlMCOCCWxvY2FsaG9zdIcE
fwAAAYcQAAAAAAAAAAAAAAAAAAAAATAKBggqhkjOPQQDAgNIADBFAiEAtRtPNp0p
zHzAQlbO2FDe66P3kkBU8ulVsAwdE7bUAVcCID86nBpq7TwS7LkYOpSRNgqVdkO1
74Xf4mAxodFhq5iE
-----END CERTIFICATE-----
"""


@pytest.fixture(scope="session")
def certificate():
    """A file with the tests' key and certificate."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
        file.write(CERTIFICATE)
    yield file.name
    os.unlink(file.name)


class Conn:
    """The server's side of one connection, as scripts see it."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def request(self):
        """The next request: .method, .path, .headers (names in lower case), .lines (as sent), .body."""
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return Request(head, self)

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def reply(self, status=200, body=b"", headers=(), reason="Reason"):
        """An answer; `body` bytes, str, or anything else as JSON."""
        kind = "text/plain" if isinstance(body, (bytes, str)) else "application/json"
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        body = body if isinstance(body, bytes) else body.encode()
        lines = ["HTTP/1.1 %d %s" % (status, reason), "Content-Type: " + kind, "Content-Length: %d" % len(body)]
        self.send("\r\n".join(lines + ["%s: %s" % pair for pair in dict(headers).items()] + ["", ""]).encode() + body)

    def upgrade(self, request, protocol="offered", extra=""):
        """The 101 for a WebSocket request; `protocol` "offered" takes the first one offered."""
        offered = request.headers.get("sec-websocket-protocol", "").split(", ")[0]
        chosen = offered if protocol == "offered" else protocol
        self.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Accept: %s\r\n%s%s\r\n" % (
                      request.accept, "Sec-WebSocket-Protocol: %s\r\n" % chosen if chosen else "", extra))

    def push(self, *events):
        """Watch events, each in a text frame as the API server sends them."""
        self.send(b"".join(frame(1, json.dumps(event).encode() + b"\n") for event in events))

    def read_frame(self):
        """(opcode, payload) of the client's next frame, which must be masked and final."""
        first, second = self.take(2)
        assert first & 0x80 and second & 0x80
        size = second & 127
        if size >= 126:
            size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
        key = self.take(4)
        return first & 15, bytes(octet ^ key[index % 4] for index, octet in enumerate(self.take(size)))

    def wait_end(self):
        """Read until the client ends the connection."""
        try:
            while True:
                self.take(1)
        except (EOFError, OSError):
            pass

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def end_tls(self):
        """close_notify: TLS has ended, TCP goes on."""
        self.sock.settimeout(0.01)
        try:
            self.sock.unwrap()
        except (OSError, ValueError):
            pass
        self.sock.settimeout(None)


class Request:
    def __init__(self, head, conn):
        self.lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = self.lines[0].split(" ")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in self.lines[1:])}
        self.body = conn.take(int(self.headers.get("content-length", 0)))
        self.is_watch = self.headers.get("upgrade") == "websocket"

    @property
    def accept(self):
        """The Sec-WebSocket-Accept that answers this request's key."""
        return base64.b64encode(hashlib.sha1(
            self.headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()

    def __repr__(self):
        return "%s %s" % (self.method, self.path)


def frame(opcode, payload=b"", fin=True, rsv=0):
    """A server's frame."""
    payload = payload.encode() if isinstance(payload, str) else payload
    size = len(payload)
    head = bytes(((0x80 if fin else 0) | rsv << 4 | opcode,))
    if size < 126:
        head += bytes((size,))
    else:
        head += bytes((126,)) + size.to_bytes(2, "big") if size < 65536 else bytes((127,)) + size.to_bytes(8, "big")
    return head + payload


class Server:
    """A server that does what its script says: script(request, conn) for every request.

    A script that returns None keeps the connection for the next request; one that returns False
    ends it. `requests` has every request, `open` the connections that are open now.
    """

    def __init__(self, script, tls=None, host="127.0.0.1"):
        self.script, self.requests, self.open, self.count = script, [], set(), 0
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(tls)
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, 0))
        self.listener.listen(256)
        self.port = self.listener.getsockname()[1]
        self.host = "[%s]" % host if ":" in host else host
        self.threads = []
        self.stopped = threading.Event()  # scripts that hang wait on it
        self._go(self._accept)

    def _go(self, target, *args):
        thread = threading.Thread(target=target, args=args)
        self.threads.append(thread)
        thread.start()

    @property
    def url(self):
        return "%s://%s:%d" % ("https" if self.context else "http", self.host, self.port)

    @property
    def ws(self):
        return "ws" + self.url[4:]

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError as error:
                if error.errno != errno.EMFILE:
                    return
                self.stopped.wait(0.01)  # a test has taken the descriptors away
                continue
            if self.stopped.is_set():
                sock.close()
                return
            self.count += 1
            self._go(self._serve, sock)

    def _serve(self, sock):
        self.open.add(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or a reset takes away what was sent before it
            if self.context:
                plain, sock = sock, self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self.open.discard(plain)
                self.open.add(sock)
                sock.do_handshake()
            conn = Conn(sock)
            while True:
                request = conn.request()
                self.requests.append(request)
                if self.script(request, conn) is False:
                    return
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self.open.discard(sock)
            sock.close()

    def stop(self):
        self.stopped.set()
        try:
            socket.create_connection(self.listener.getsockname()[:2], 1).close()  # wakes accept()
        except OSError:
            pass
        self.listener.close()
        for sock in list(self.open):
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(5)

    def paths(self):
        return [request.path for request in self.requests]


@pytest.fixture
def serve(certificate):
    """serve(script, tls=False, host="127.0.0.1") -> Server, stopped after the test."""
    servers = []

    def start(script, tls=False, host="127.0.0.1"):
        servers.append(Server(script, certificate if tls else None, host))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


FAST = dict(  # a hundredth of the real times, so that retries take no time; deadlines stay long
    retry_base=0.008, retry_cap=0.3, retry_reset=0.3, short_watch=0.02, burst=1000, rate=1000.0,
    metrics_period=0.05, watch_grace=0.2)


@pytest.fixture
def client():
    """client(server or url, **settings) -> Client with fast retries, closed after the test."""
    clients = []

    def make(server, **settings):
        url = server if isinstance(server, str) else server.url
        clients.append(apiproxy.Client(url, **{**FAST, "cluster": "dev", **settings}))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


@pytest.fixture
def trusting(certificate):
    """An SSLContext that trusts the tests' certificate."""
    return ssl.create_default_context(cafile=certificate)


def short(value):
    """A test's id for a value that may be large."""
    return repr(value)[-30:]


# ------------------------------------------------------------------------------
# 1. Types and errors
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("call, nearest", [
    (lambda c: apiproxy.Client(clustr="a"), "cluster"), (lambda c: apiproxy.configure(gzipp=True), "gzip"),
    (lambda c: c.request("/x", {"isJson": True}), "isJSON"), (lambda c: c.cluster_request("/x", {"timeOut": 1}), "timeout"),
    (lambda c: c.post("/x", {}, True, {"header": {}}), "headers"), (lambda c: c.put("/x", {}, True, {"Body": ""}), "body"),
    (lambda c: c.patch("/x", {}, True, {"autoLogout": True}), "autoLogoutOnAuthError"),
    (lambda c: c.remove("/x", {"Method": "GET"}), "method"), (lambda c: c.set_cluster({"kubeConfig": ""}), "kubeconfig"),
    (lambda c: c.stream("/x", print, {"isJSON": True}), "isJson"),
    (lambda c: c.stream_results_for_cluster("/x", {"cb": print, "err_cb": print}), "errCb"),
])
def test_an_unknown_option_is_refused_and_the_nearest_named(client, call, nearest):
    with pytest.raises(TypeError, match="did you mean '%s'" % nearest):
        call(client("http://127.0.0.1:1"))


@pytest.mark.parametrize("error", [
    apiproxy.ApiError(409, "m", phrase="p", reason="r", details={"a": [1]}, body=b"b", method="GET", url="u", retry_after=2.0),
    apiproxy.WebSocketError(0, "m"), apiproxy.HandshakeError(403, "m", phrase="p", body=b"b"),
    apiproxy.ProtocolError(1002, "m"), apiproxy.ConnectionClosed(1006, "gone"), apiproxy.ConnectionClosed(1005),
])
def test_errors_pickle_and_copy_with_all_they_know(error):
    twins = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for twin in twins + [copy.copy(error), copy.deepcopy(error)]:
        assert (type(twin), repr(twin), vars(twin)) == (type(error), repr(error), vars(error))
        assert str(twin) == str(error) and isinstance(twin, apiproxy.ApiError)  # one `except ApiError` is enough


@pytest.mark.parametrize("phrase, body, text, reason, details", [
    ("Not Found", b'{"kind": "Status", "message": "pods \\"x\\" not found", "reason": "NotFound", "details": {"name": "x"}}',
     'Not Found - pods "x" not found', "NotFound", {"name": "x"}),
    ("Not Found", b"", "Not Found", "", {}), ("Not Found", b" \r\n no cluster\n", "Not Found - no cluster", "", {}),
    ("", b"", "404", "", {}), ("", b"plain", "plain", "", {}), ("Not Found", b"Not Found", "Not Found", "", {}),
    ("Bad", b'{"error": "x"}', "Bad", "", {}), ("Bad", b'["a"]', "Bad", "", {}),
    ("Bad", b'{"message": null, "reason": null, "details": []}', "Bad", "", {}),
    ("Bad", b'{"message": 5, "details": "x"}', "Bad - 5", "", {}), ("Bad", b"\xff", "Bad - \ufffd", "", {}),
    ("Bad", b"x" * 5000, "Bad - " + "x" * 1000, "", {}), ("Bad", b"[" * 200000, "Bad - " + "[" * 1000, "", {}),
], ids=short)
def test_an_error_says_the_phrase_and_the_detail(phrase, body, text, reason, details):
    error = apiproxy.Response(404, phrase, {}, body, "GET", "http://h/x").error()
    assert (str(error), error.status, error.reason, error.details) == (text, 404, reason, details)
    assert (error.method, error.url, error.body) == ("GET", "http://h/x", body)


@pytest.mark.parametrize("value, seconds", [
    ("7", 7), (" 7 ", 7), ("-3", 0), ("0", 0), ("Mon, 01 Jan 2001 00:00:00 GMT", 0), (None, None), ("", None), ("soon", None),
    ("1.5", None), ("9" * 5000, None), ("Mon, 99 Foo 0000 99:99:99 GMT", None), ("Mon, 01 Jan 99999 00:00:00 GMT", None)], ids=short)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    def parsed(headers, body=b""):
        return apiproxy.Response(429, "", headers, body).error().retry_after

    assert parsed({"Retry-After": value}) == seconds
    assert 50 < parsed({"Retry-After": email.utils.formatdate(time.time() + 60, usegmt=True)}) <= 61
    assert parsed({}, b'{"details": {"retryAfterSeconds": 3}}') == 3
    for odd in ("NaN", "Infinity", "[]", "{}", "null", '"x"', "1e999"):
        assert parsed({}, b'{"details": {"retryAfterSeconds": %s}}' % odd.encode()) is None


# ------------------------------------------------------------------------------
# 2. Addresses
# ------------------------------------------------------------------------------

REFUSED = ValueError


def result_of(function, *args):
    """What a call gives, or the kind of error that it raises."""
    try:
        return function(*args)
    except (ValueError, TypeError) as error:
        return TypeError if isinstance(error, TypeError) else REFUSED


@pytest.mark.parametrize("name, quoted", [
    ("web-1.x_~", "web-1.x_~"), ("system:node", "system%3Anode"), ("a b", "a%20b"), ("d?y#z&w=1", "d%3Fy%23z%26w%3D1"),
    ("%2e%2e", "%252e%252e"), ("%2f", "%252f"), ("é", "%C3%A9"), ("\u2028", "%E2%80%A8"), ("a@b", "a%40b"), ("...", "..."),
    ("\\", "%5C"),
    ("", REFUSED), (".", REFUSED), ("..", REFUSED), ("a/b", REFUSED), ("a\r\nb", REFUSED), ("a\0", REFUSED), ("\x7f", REFUSED),
    ("\x85", REFUSED), ("\ud800", REFUSED), (None, TypeError), (b"x", TypeError), (5, TypeError)])
def test_a_name_is_one_segment(name, quoted):
    assert result_of(apiproxy.segment, name) == quoted


@pytest.mark.parametrize("path, sent", [
    ("/api/v1/pods?limit=5&x=a%20b", "/api/v1/pods?limit=5&x=a%20b"), ("", ""), ("api", "api"), ("//h/x", "//h/x"),
    ("/%zz", "/%zz"), ("/é?x=é", "/%C3%A9?x=%C3%A9"), ("/x?y=..&z=a/../b", "/x?y=..&z=a/../b"), ("/a...b/..c", "/a...b/..c"),
    ("/@h:1/x", "/@h:1/x"),
    ("/a b", REFUSED), ("/a\r\nX: y", REFUSED), ("/a\n", REFUSED), ("/a\0", REFUSED), ("/a\t", REFUSED), ("/\x7f", REFUSED),
    ("/\x85", REFUSED), ("/\xa0", REFUSED), ("/\u2028", REFUSED), ("/a#b", REFUSED), ("/a?b#c", REFUSED), ("/\ud800", REFUSED),
    ("/a/../b", REFUSED), ("..", REFUSED), ("/a/.", REFUSED), ("/./a", REFUSED), ("/a/..?x", REFUSED),
    ("/a/%2e%2e/b", REFUSED), ("/a/%2E./b", REFUSED), ("/a/.%2e", REFUSED), ("/%2e/b", REFUSED),  # servers resolve these too
    (None, TypeError), (b"/x", TypeError)])
def test_a_path_arrives_as_written_or_is_refused(path, sent):
    assert result_of(apiproxy.check_path, path) == sent


@pytest.mark.parametrize("path, params, whole", [
    ("/x", None, "/x"), ("/x", {}, "/x"), ("/x?a=1", None, "/x?a=1"), ("/x", {"a": None}, "/x"),
    ("/x?a=1", {"a": None}, "/x?a=1"), ("/x", {"a": 1, "b": "é &="}, "/x?a=1&b=%C3%A9+%26%3D"),
    ("/x", {"a": True, "b": False, "c": 0, "d": ""}, "/x?a=true&b=false&c=0&d="),
    ("/x?a=1", {"b": 2}, "/x?a=1&b=2"), ("/x?a=1&b=2&a=3", {"a": 4}, "/x?b=2&a=4"), ("/x?%61=1&b", {"a": 2}, "/x?b&a=2"),
    ("/x?a=b?c", {"d": 1}, "/x?a=b?c&d=1"), ("/x?", {"a": 1}, "/x?a=1"), ("/x?&&a=1&", {"b": 1}, "/x?a=1&b=1"),
    ("/x", {"a": ["1", True, 2], "b": ("z",)}, "/x?a=1&a=true&a=2&b=z"), ("/x", {"c": "a\r\nb#\0"}, "/x?c=a%0D%0Ab%23%00"),
    ("/x", {"&": "="}, "/x?%26=%3D"), ("/x?b=1", {"a": []}, "/x?b=1"), ("/x", {"a": []}, "/x"),
    ("/x", {"a": ["1", None]}, "/x?a=1"), ("/x", {"a": "\ud800"}, REFUSED), ("/x", "a=1", TypeError), ("/x", ["a"], TypeError)])
def test_parameters_join_the_query(path, params, whole):
    assert result_of(apiproxy.with_query, path, params) == whole


@pytest.mark.parametrize("function, args, result", [
    (apiproxy.combine_path, ("http://h", "x"), "http://h/x"), (apiproxy.combine_path, ("http://h/", "/x"), "http://h/x"),
    (apiproxy.combine_path, ("http://h", "//x"), "http://h//x"), (apiproxy.combine_path, ("http://h", "@e/x"), "http://h/@e/x"),
    (apiproxy.combine_path, ("http://h", ""), "http://h/"), (apiproxy.combine_path, ("", ""), "/"),
    (apiproxy.api_root, ("", "v1"), "/api/v1"), (apiproxy.api_root, ("apps", "v1"), "/apis/apps/v1"),
    (apiproxy.api_root, ("a?b", "v#"), "/apis/a%3Fb/v%23"), (apiproxy.api_root, ("..", "v1"), REFUSED),
    (apiproxy.api_root, ("a/b", "v1"), REFUSED), (apiproxy.api_root, ("", ""), REFUSED),
    (apiproxy.api_root, ("", ".."), REFUSED),
    (apiproxy.split_api_version, ("v1",), ("", "v1")), (apiproxy.split_api_version, ("apps/v1",), ("apps", "v1")),
    (apiproxy.split_api_version, ("",), REFUSED), (apiproxy.split_api_version, ("/v1",), REFUSED),
    (apiproxy.split_api_version, ("apps/",), REFUSED), (apiproxy.split_api_version, ("a/b/c",), REFUSED),
])
def test_addresses_are_put_together(function, args, result):
    assert result_of(function, *args) == result


@pytest.mark.parametrize("url, address", [
    ("http://h", (False, "h", 80, "h", "/")), ("https://h:443/a?b=c", (True, "h", 443, "h", "/a?b=c")),
    ("http://H:443/", (False, "h", 443, "h:443", "/")), ("HTTP://h/x", (False, "h", 80, "h", "/x")),
    ("http://h:", (False, "h", 80, "h", "/")), ("https://[::1]:8443/x", (True, "::1", 8443, "[::1]:8443", "/x")),
    ("http://[fe80::1%eth0]/", (False, "fe80::1%eth0", 80, "[fe80::1]", "/")),
    ("http://h?a", (False, "h", 80, "h", "/?a")), ("http://h//..//x", (False, "h", 80, "h", "//..//x")),
    ("ws://h", REFUSED), ("h", REFUSED), ("http:h", REFUSED), ("http://", REFUSED), ("http:///x", REFUSED),
    ("http://:80", REFUSED), ("", REFUSED),
    ("http://u@h", REFUSED), ("http://u:p@h", REFUSED), ("http://@h", REFUSED), ("http://h/#f", REFUSED),
    ("http://h#@e", REFUSED),
    ("http://h/\r\nX: y", REFUSED), ("http://h /", REFUSED), ("http://h\0", REFUSED), ("http://hé/", REFUSED),
    ("http://h/é", REFUSED),
    ("http://h:x", REFUSED), ("http://h:65536", REFUSED), ("http://h:-1", REFUSED), ("http://[::1", REFUSED),
    ("\thttp://h", REFUSED), (b"http://h", TypeError), (None, TypeError)])
def test_an_address_says_where_to_go(url, address):
    assert result_of(apiproxy.split_url, url, ("http", "https")) == address


@pytest.mark.parametrize("headers, result", [
    (None, {}), ({"X-A": "b\t c", "x": "é"}, {"X-A": "b\t c", "x": "é"}), ({"X": ""}, {"X": ""}),
    ({"X": "a\r\nb"}, REFUSED), ({"X": "a\nb"}, REFUSED), ({"X": "a\r"}, REFUSED), ({"X": "a\0"}, REFUSED),
    ({"X": "\x7f"}, REFUSED),
    ({"X": "\x85"}, REFUSED), ({"X": "\u20ac"}, REFUSED), ({"": "x"}, REFUSED), ({"X Y": "x"}, REFUSED), ({"X:": "x"}, REFUSED),
    ({"X\r\n": "x"}, REFUSED), ({"É": "x"}, REFUSED), ({"X": None}, TypeError), ({"X": 1}, TypeError), ({1: "x"}, TypeError),
    ({"X": b"y"}, TypeError), ([("X", "y")], TypeError), ("X: y", TypeError)])
def test_headers_that_could_break_a_request_are_refused(headers, result):
    assert result_of(apiproxy.check_headers, headers) == result
    assert apiproxy.check_headers({"X": "y"}) is not headers


def test_a_refused_header_does_not_repeat_its_value():
    for value in ("SECRET\r\n", "SECRET\u20ac"):
        with pytest.raises(ValueError) as caught:
            apiproxy.check_headers({"Authorization": value})
        assert "SECRET" not in "".join(traceback.format_exception(None, caught.value, None))


@pytest.mark.parametrize("bad", [".", "..", "a/b", "../x", "a\r\nX: y", "\0"])
def test_every_name_that_a_call_takes_is_one_segment_or_refused(serve, client, bad):
    server = serve(lambda request, conn: conn.reply(200, {}))
    one, body = client(server), {"metadata": {"name": bad}}
    plain, spaced = one.api_factory("", "v1", "nodes"), one.api_factory_with_namespace("apps", "v1", "deployments", True)
    named = {"metadata": {"name": "a", "namespace": bad}}
    for call in (
        lambda: one.request("/x", {"cluster": bad}), lambda: one.cluster_request("/x", {"cluster": bad}),
        lambda: one.post("/x", {}, True, {"cluster": bad}), lambda: one.remove("/x", {"cluster": bad}),
        lambda: one.stream("/x", print, {"cluster": bad}), lambda: one.metrics("/x", print, None, bad),
        lambda: one.stream_results_for_cluster("/x", {"cb": print, "errCb": print, "cluster": bad}),
        lambda: one.stream_result("/x", "a", print, print, None, bad), lambda: one.stream_result("/x", bad, print, print),
        lambda: one.set_token(bad, "SECRET"), lambda: one.set_cluster({"name": bad, "server": "https://a"}),
        lambda: one.delete_cluster(bad), lambda: one.delete_plugin(bad), lambda: one.list_port_forward(bad),
        lambda: one.start_port_forward(bad, "ns", "pod", 80, "", ""), lambda: one.start_port_forward("dev", bad, "pod", 80, "", ""),
        lambda: one.start_port_forward("dev", "ns", bad, 80, "", ""), lambda: one.stop_or_delete_port_forward(bad, "id"),
        lambda: one.drain_node(bad, "n"), lambda: one.drain_node("dev", bad), lambda: one.drain_node_status(bad, "n"),
        lambda: one.drain_node_status("dev", bad), lambda: one.test_auth(bad), lambda: one.test_cluster_health(bad),
        lambda: plain.get(bad, print, print), lambda: plain.delete(bad), lambda: plain.patch({}, bad), lambda: plain.put(body),
        lambda: plain.list(print, print, None, bad), lambda: plain.post({"metadata": {}}, None, bad),
        lambda: spaced.list(bad, print, print), lambda: spaced.get(bad, "a", print, print),
        lambda: spaced.get("ns", bad, print, print), lambda: spaced.delete(bad, "a"), lambda: spaced.delete("ns", bad),
        lambda: spaced.patch({}, bad, "a"), lambda: spaced.patch({}, "ns", bad), lambda: spaced.post(named),
        lambda: spaced.put(named), lambda: spaced.put(body), lambda: spaced.scale.get(bad, "a"),
        lambda: spaced.scale.get("ns", bad), lambda: spaced.scale.put(named), lambda: spaced.scale.put(body),
        lambda: apiproxy.Client(server.url, cluster=bad).request("/x", {"cluster": bad}),
    ):
        with pytest.raises(ValueError):
            call()
    assert not server.count and not one.tasks


# ------------------------------------------------------------------------------
# 3. Frames
# ------------------------------------------------------------------------------


def feed(*pieces, limit=70000):
    """What a MessageReader gives for octets that come in these pieces."""
    reader, found = apiproxy.MessageReader(limit), []
    for piece in pieces:
        while piece:
            space = reader.space()[:len(piece)]
            space[:], piece = piece[:len(space)], piece[len(space):]
            reader.received(len(space))
            found += iter(reader.next, None)
    return found


def test_masking_is_the_rfcs_and_undoes_itself():
    assert apiproxy.apply_mask(b"Hello", b"\x37\xfa\x21\x3d") == b"\x7f\x9f\x4d\x51\x58"  # RFC 6455 5.7
    chance = random.Random(1)
    for size in list(range(12)) + list(range(440, 462)) + [chance.randrange(5000) for _ in range(20)]:
        data, key = os.urandom(size), os.urandom(4)
        masked = apiproxy.apply_mask(data, key)
        assert masked == bytes(octet ^ key[index % 4] for index, octet in enumerate(data))
        assert apiproxy.apply_mask(bytes(masked), key) == data


@pytest.mark.parametrize("size, head", [
    (0, b"\x82\x80"), (125, b"\x82\xfd"), (126, b"\x82\xfe\x00\x7e"), (65535, b"\x82\xfe\xff\xff"),
    (65536, b"\x82\xff\0\0\0\0\0\1\0\0")])
def test_a_frame_has_the_shortest_length(size, head):
    assert apiproxy.encode_frame(2, b"x" * size, b"\0\0\0\0") == head + b"\0\0\0\0" + b"x" * size
    assert apiproxy.encode_frame(0, b"", b"\0\0\0\0", fin=False)[0] == 0


@pytest.mark.parametrize("code, reason, payload", [
    (1000, "", b"\x03\xe8"), (4999, "bye", b"\x13\x87bye"), (1001, "é" * 62, b"\x03\xe9" + "é".encode() * 61),
    (1005, "", REFUSED), (1006, "", REFUSED), (1015, "", REFUSED), (999, "", REFUSED), (5000, "", REFUSED), (0, "", REFUSED),
    (1000, "\ud800", REFUSED)])
def test_a_close_payload_is_legal_and_cut_at_a_character(code, reason, payload):
    assert result_of(apiproxy.encode_close, code, reason) == payload
    if payload is not REFUSED:
        assert apiproxy.parse_close(payload) == (code, reason[:61])


@pytest.mark.parametrize("payload, result", [
    (b"", (1005, "")), (b"\x03\xe8", (1000, "")), (b"\x0b\xb8\xc3\xa9", (3000, "é")), (b"\x03", 1002), (b"\x03\xe8\xff", 1007)]
    + [(code.to_bytes(2, "big"), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)]
    + [(code.to_bytes(2, "big"), (code, "")) for code in (1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999)])
def test_a_close_payload_is_read(payload, result):
    try:
        assert apiproxy.parse_close(payload) == result
    except apiproxy.ProtocolError as error:
        assert error.code == result


@pytest.mark.parametrize("wire, messages", [
    (frame(1, "hé€😀"), [(1, "hé€😀")]), (frame(2, b"\xff\0"), [(2, b"\xff\0")]), (frame(1) + frame(2), [(1, ""), (2, b"")]),
    (frame(9, b"p") + frame(10) + frame(8, b"\x03\xe8"), [(9, b"p"), (10, b""), (8, b"\x03\xe8")]),
    (frame(1, "a", fin=False) + frame(9, b"!") + frame(0, "b", fin=False) + frame(10) + frame(0, "c"),
    [(9, b"!"), (10, b""), (1, "abc")]),
    (frame(1, b"\xf0\x9f", fin=False) + frame(0, fin=False) + frame(0, b"\x98\x80") + frame(2, b"x"), [(1, "😀"), (2, b"x")]),
    (frame(2, b"a", fin=False) + frame(0) + frame(1, fin=False) + frame(0, fin=False) + frame(0), [(2, b"a"), (1, "")]),
    (frame(1, "a", fin=False) + frame(0, "b") + frame(1, "c", fin=False) + frame(0, "d"), [(1, "ab"), (1, "cd")]),
    (frame(2, b"a", fin=False) + frame(0, b"b") + frame(2, b"c", fin=False) + frame(0, b"d"), [(2, b"ab"), (2, b"cd")]),
    (frame(9, b"x" * 125) + frame(1, "y" * 126), [(9, b"x" * 125), (1, "y" * 126)]),
    (frame(2, b"z" * 300, fin=False) + frame(0, b"w" * 200), [(2, b"z" * 300 + b"w" * 200)]),
])
def test_messages_are_the_same_however_the_octets_come(wire, messages):
    assert feed(wire) == feed(*(wire[index:index + 1] for index in range(len(wire)))) == messages
    for cut in range(1, len(wire)):
        assert feed(wire[:cut], wire[cut:]) == messages


def test_messages_of_every_size_come_whole():
    for size in (125, 126, 4081, 4095, 4096, 4097, 16384, 65535, 65536, 70000):
        text, wire = "é" * (size // 2), frame(2, b"x" * size)
        pieces = [wire[start:start + 1000] for start in range(0, len(wire), 1000)]
        found = [(9, b""), (2, b"x" * size), (1, text)]
        assert feed(frame(9) + wire + frame(1, text)) == feed(frame(9), *pieces, frame(1, text)) == found


OPEN_TEXT = frame(1, "a", fin=False)


@pytest.mark.parametrize("wire, code", [  # the last octet is the one that makes it illegal
    (b"\xc1\x00", 1002), (b"\xa1\x00", 1002), (b"\x91\x00", 1002), (b"\x89\x80", 1002), (b"\x81\x81", 1002)] + [
    (bytes((0x80 | opcode, 0)), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)] + [
    (b"\x81\x7e\x00\x7d", 1002), (b"\x81\x7f\0\0\0\0\0\0\xff\xff", 1002), (b"\x82\x7f\x80\0\0\0\0\1\0\0", 1002),
    (b"\x09\x00", 1002), (b"\x08\x00", 1002), (b"\x89\x7e", 1002), (b"\x88\x7f", 1002), (b"\x80\x00", 1002),
    (b"\x00\x00", 1002), (OPEN_TEXT + b"\x81\x00", 1002), (OPEN_TEXT + b"\x02\x00", 1002), (frame(1, "a") + b"\x80\x00", 1002),
    (b"\x81\x05\xff", 1007), (b"\x81\x05a\x80", 1007), (b"\x81\x05\xc0", 1007), (b"\x81\x05\xc3a", 1007),
    (b"\x81\x05\xe0\x80", 1007),
    (b"\x81\x05\xed\xa0\x80", 1007), (b"\x81\x05\xf0\x80", 1007), (b"\x81\x05\xf4\x90", 1007), (b"\x81\x05\xf5", 1007),
    (b"\x81\x01\xc3", 1007),
    (frame(1, b"\xc3", fin=False) + b"\x80\x00", 1007), (frame(1, b"\xe2\x82", fin=False) + b"\x00\x05a", 1007),
    (b"\x82\x7e\x03\xe9", 1009), (b"\x82\x7f\0\0\1\0\0\0\0\0", 1009),
    (frame(2, b"x" * 600, fin=False) + b"\x00\x7e\x01\x91", 1009),
    (frame(2, b"x" * 1000, fin=False) + frame(0, fin=False) + b"\x80\x01", 1009)])
def test_an_illegal_frame_is_refused_at_the_octet_that_makes_it_so(wire, code):
    feed(wire[:-1], limit=1000)
    for pieces in ((wire,), (wire[:-1], wire[-1:]), [wire[index:index + 1] for index in range(len(wire))],
        (wire + b"\0" * 300,)):
        with pytest.raises(apiproxy.ProtocolError) as caught:
            feed(*pieces, limit=1000)
        assert caught.value.code == code


@pytest.mark.parametrize("opcode, piece", [(1, b"x"), (2, b"")])
def test_a_hundred_thousand_fragments_stay_small(opcode, piece):
    wire = frame(opcode, fin=False) + frame(0, piece, fin=False) * 100000 + frame(0)
    tracemalloc.start()
    (found,) = feed(wire[:1000], wire[1000:], limit=100000)
    peak = tracemalloc.get_traced_memory()[1] - len(wire)
    tracemalloc.stop()
    assert len(found[1]) == len(piece) * 100000
    assert peak < 4 * apiproxy.MiB


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]  # RFC 6455 1.3


@pytest.mark.parametrize("lines, chosen", [
    (GOOD, ""), (GOOD + ["Sec-WebSocket-Protocol: b"], "b"), (GOOD + ["sec-websocket-extensions:"], ""),
    (GOOD[:1] + ["upgrade:WebSocket", "CONNECTION:\tkeep-alive, UPGRADE "] + GOOD[3:], ""), (["HTTP/1.1 101"] + GOOD[1:], ""),
    (["HTTP/1.1 101 "] + GOOD[1:], ""), (GOOD[:2] + ["Connection: keep-alive"] + GOOD[2:], ""),
] + [(lines, None) for lines in (
    GOOD[:1] + GOOD[2:], GOOD[:2] + GOOD[3:], GOOD[:3], GOOD + GOOD[3:], GOOD + GOOD[1:2], GOOD[:3] + [GOOD[3].swapcase()],
    GOOD[:3] + [GOOD[3] + ", x"], GOOD[:1] + ["Upgrade: h2c"] + GOOD[2:], GOOD[:2] + ["Connection: close"] + GOOD[3:],
    GOOD + ["Sec-WebSocket-Protocol: c"], GOOD + ["Sec-WebSocket-Protocol: B"], GOOD + ["Sec-WebSocket-Protocol: a, b"],
    GOOD + ["Sec-WebSocket-Protocol: a"] * 2, GOOD + ["Sec-WebSocket-Protocol:"],
    GOOD + ["Sec-WebSocket-Extensions: permessage-deflate"],
    ["HTTP/1.0 101 X"] + GOOD[1:], ["HTTP/2 101 X"] + GOOD[1:], ["HTTP/1.1 101X"] + GOOD[1:], ["http/1.1 101 X"] + GOOD[1:],
    ["HTTP/1.1  101 X"] + GOOD[1:], ["HTTP/1.1 1010 X"] + GOOD[1:], [" HTTP/1.1 101 X"] + GOOD[1:],
    ["HTTP/1.1 101 a\nb"] + GOOD[1:],
    GOOD + [" folded"], GOOD + ["\tfolded"], GOOD + ["no colon"], GOOD + ["Space : x"], GOOD + [": x"], GOOD + ["X: a\nY: b"],
    GOOD + ["X: a\rb"], GOOD + ["X: \0"], GOOD + ["X\xe9: a"])])
def test_a_handshake_is_accepted_only_as_the_rfc_says(lines, chosen):
    try:
        head = apiproxy.parse_head("\r\n".join(lines + ["", ""]).encode("latin-1"))
        assert apiproxy.check_handshake(head, KEY, ["a", "b"]) == chosen
    except (apiproxy.BadAnswer, apiproxy.HandshakeError):
        assert chosen is None


# ------------------------------------------------------------------------------
# 5. HTTP
# ------------------------------------------------------------------------------

JSON = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + "Transfer-Encoding: chunked\r\n\r\n"


def failed(call, *args):
    """The ApiError of a call."""
    with pytest.raises(apiproxy.ApiError) as caught:
        call(*args)
    return caught.value


class RawServer(Server):
    """A server whose script gets each connection as it was accepted: nothing is read for it."""

    def _serve(self, sock):
        self.open.add(sock)
        try:
            self.script(Conn(sock))
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self.open.discard(sock)
            sock.close()


def test_connections_are_kept_and_shared_by_threads(serve, client):
    server = serve(lambda request, conn: conn.reply(200, {"path": request.path}))
    one = client(server)
    assert [one.request("/%d" % index)["path"] for index in range(5)] == server.paths() and server.count == 1
    right = []

    def ask(name):
        for index in range(20):
            right.append(one.request("/%s%d" % (name, index))["path"].endswith("/%s%d" % (name, index)))

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 160 and server.count <= 9
    one.close()
    eventually(lambda: not server.open)
    one.keep_alive = 0.0  # an idle connection is never young enough
    before = server.count
    one.request("/x"), one.request("/x")
    assert server.count == before + 2


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("end", [
    lambda conn: False, lambda conn: conn.reset(), lambda conn: conn.send("HTTP/1.1 2") or False,
    lambda conn: conn.send("HTTP/1.1 200") or False, lambda conn: conn.send("HTTP/1.1 200 OK\r\nContent-Le") or False,
    lambda conn: conn.send("HTTP/1.1 200 OK\r\nX: y\r\n") or False,
    "before"], ids=["silent", "reset", "version", "status", "header", "headers", "before"])
def test_a_kept_connection_that_ends_fails_no_call(serve, client, trusting, end, tls):
    def script(request, conn):
        conn.count = getattr(conn, "count", 0) + 1
        if conn.count == 2:
            return end(conn)
        conn.reply(200, {"count": conn.count})
        return end != "before"

    server = serve(script, tls=tls)
    one = client(server, ssl_context=trusting)
    for method in ("GET", "GET", "POST", "PUT", "PATCH", "DELETE", "POST"):
        assert one.request("/x", {"method": method, "body": "{}"}) == {"count": 1}
    sent = [request.method for request in server.requests]
    assert (sent.count("POST"), sent.count("PATCH")) == (2, 1)  # not idempotent: never twice
    assert len(sent) == 7 + (0 if end == "before" else 3)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH"])
def test_a_fresh_connection_that_ends_fails_the_call_once(serve, client, method, answer):
    server = serve(lambda request, conn: conn.send(answer) or False)
    error = failed(client(server).request, "/x", {"method": method})
    assert (error.status, error.method, error.url) == (502, method, server.url + "/clusters/dev/x")
    assert error.__cause__ is not None and len(server.requests) == 1


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_kept_connection_may_end_after_any_octet_of_an_answer(serve, client, how):
    head, body = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n", '{"kept": "yes"}'
    cuts = iter(range(len(head + body) + (how == "end")))

    def script(request, conn):
        conn.count = getattr(conn, "count", 0) + 1
        if conn.count == 1:
            return conn.reply(200, {"count": 1})
        conn.send((head + body)[:cut])
        return conn.reset() if how == "reset" else False

    server = serve(script)
    one = client(server)
    for cut, method in zip(cuts, itertools.cycle(["GET", "PUT", "DELETE", "HEAD"])):
        one.request("/warm")
        del server.requests[:]
        if cut < len(head):  # nothing was answered: asked again
            assert one.request("/x", {"method": method}) == (None if method == "HEAD" else {"count": 1})
            assert len(server.requests) == 2
        elif method == "HEAD" or cut == len(head + body):
            assert one.request("/x", {"method": method}) == (None if method == "HEAD" else {"kept": "yes"})
            assert len(server.requests) == 1
        else:  # an answer had begun, so it was carried out
            assert failed(one.request, "/x", {"method": method}).status == 502 and len(server.requests) == 1
        one.close()


@pytest.mark.parametrize("taken", [0, 1, 5000])
def test_a_kept_connection_may_end_inside_a_request(client, taken):
    first = threading.Event()

    def script(conn):
        conn.request()
        conn.reply(200, {})
        if not first.is_set():
            first.set()
            conn.take(taken)
            conn.reset()
        conn.request()
        conn.reply(200, {"again": True})

    server = RawServer(script)
    try:
        one = client(server)
        one.request("/warm")
        assert one.put("/x", "x" * (1 << 20)) == {}  # on the next connection, which is answered as if it were warm
        assert server.count == 2
    finally:
        server.stop()


@pytest.mark.parametrize("end", ["half-closed", "reset", "close_notify"])
def test_a_kept_connection_that_ends_while_idle_is_not_used(serve, client, trusting, end):
    def script(request, conn):
        conn.reply(200, len(server.requests))
        if end == "half-closed":
            socket.socket.shutdown(conn.sock, socket.SHUT_WR)
        elif end == "close_notify":
            conn.end_tls()
        else:
            conn.reset()
        conn.sock.close() if end == "reset" else server.stopped.wait(20)
        return False

    server = serve(script, tls=end == "close_notify")
    one = client(server, ssl_context=trusting)
    for number, method in enumerate(("GET", "PUT", "POST", "GET"), 1):
        assert one.request("/x", {"method": method, "timeout": 5000}) == number
    assert server.count == 4


@pytest.mark.parametrize("head", [
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"], ids=short)
def test_a_connection_that_the_server_will_close_is_not_kept(serve, client, head):
    server = serve(lambda request, conn: conn.send(head if "chunked" in head else head + "{}"))  # and leaves it open
    one = client(server)
    for number in (1, 2, 3):
        assert one.request("/x") == {} and server.count == number
        eventually(lambda: not server.open)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirects_are_errors_and_nobody_else_is_asked(serve, client, status):
    other = serve(lambda request, conn: conn.reply(200, {}))
    server = serve(lambda request, conn: conn.reply(status, b"", {"Location": other.url + "/x"}))
    one = client(server)
    one.set_token("dev", "SECRET")
    for method in ("GET", "POST"):
        assert failed(one.request, "/x", {"method": method}).status == status
    assert len(server.requests) == 2 and not other.count


@pytest.mark.parametrize("start, piece", [
    ("", ""), ("HTTP/1.1 100 Continue\r\n\r\n", ""), ("HTTP/1.1 200 OK\r\nX: ", "x"), (JSON + "\r\n", " "),
    (JSON + "Content-Length: 9999\r\n\r\n", " "), (CHUNKED, "1\r\n \r\n"), (CHUNKED + "5\r\n", ""),
    (CHUNKED + "0\r\n", "X: y\r\n")])
@pytest.mark.parametrize("warm", [False, True])
def test_one_deadline_covers_the_whole_answer(serve, client, start, piece, warm):
    def script(request, conn):
        if request.path.endswith("/warm"):
            return conn.reply(200, {})
        conn.send(start)
        while not server.stopped.wait(0.02):
            conn.send(piece)

    server = serve(script)
    one, begin = client(server), time.monotonic()
    if warm:
        one.request("/warm")
    error = failed(one.request, "/x", {"timeout": 200})
    assert (error.status, error.phrase) == (408, "Request timed-out")
    assert 0.19 < time.monotonic() - begin < 3 and len(server.requests) == 1 + warm


def test_the_deadline_covers_tls_and_large_uploads_and_zero(serve, client):
    silent = RawServer(lambda conn: silent.stopped.wait(30))  # reads nothing
    try:
        for url, params in ((silent.url.replace("http", "https"), {"timeout": 100}), (silent.url, {"timeout": 0}),
                            (silent.url, {"timeout": 100, "method": "POST", "body": b"x" * (16 << 20)})):
            assert failed(client(url).request, "/x", params).status == 408
    finally:
        silent.stop()


@pytest.mark.parametrize("timeout", [None, float("inf"), 3e9, 1e15])
def test_a_call_may_have_no_deadline_or_a_far_one(serve, client, timeout):
    server = serve(lambda request, conn: server.stopped.wait(0.05) or conn.reply(200, {}))
    assert client(server, request_timeout=0.01).request("/x", {"timeout": timeout}) == {}


@pytest.mark.parametrize("answer", [
    "", "rubbish", "rubbish " * 8000 + "\r\n\r\n", "<html>HTTP/0.9</html>", "SSH-2.0-x\r\n",
    "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\n",
    JSON, JSON + "Content-Le", JSON + "Content-Length: 3\r\n\r\n{}", CHUNKED + "2\r\n{}\r\n", CHUNKED + "3\r\n{}",
    CHUNKED + "xyz\r\n{}\r\n0\r\n\r\n", CHUNKED + "-2\r\n{}\r\n0\r\n\r\n", CHUNKED, CHUNKED + "\r\n", CHUNKED + "2",
    JSON + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", JSON + "Content-Length: 2\r\nContent-Length: 1\r\n\r\n5 ",
    JSON + "X: " + "x" * 70000 + "\r\n\r\n", JSON + "Content-Length: x\r\n\r\n{}", JSON + "Content-Length: -1\r\n\r\n{}",
    JSON + "Content-Length: 2, 3\r\n\r\n{}", JSON + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    JSON + "X : y\r\n\r\n{}", JSON + "X: y\r\n z\r\n\r\n{}", CHUNKED + "2\r\n{}0\r\n\r\n", CHUNKED + "+2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + "2\r\n{}\r\n0\r\n" + "X: y\r\n" * 200, "HTTP/1.1 100 Continue\r\n\r\n" * 99], ids=short)
def test_a_broken_answer_is_a_502_and_not_data(serve, client, answer):
    server = serve(lambda request, conn: conn.send(answer) or False)
    error = failed(client(server).request, "/x")
    assert error.status == 502 and len(str(error)) < 1100


def test_endless_headers_end(serve, client):
    def script(request, conn):
        conn.send("HTTP/1.1 200 OK\r\n")
        while True:
            conn.send("X-%s: y\r\n" % os.urandom(9).hex() * 100)

    assert failed(client(serve(script)).request, "/x", {"timeout": None}).status == 502


@pytest.mark.parametrize("answer, result", [
    (JSON + "Content-Length: 0\r\n\r\n", None), (JSON + "Content-Length: 3\r\n\r\n \r\n", None),
    ("HTTP/1.1 204 No Content\r\n\r\n", None),
    (JSON + "\r\n{}", {}), (JSON + "Content-Length: 2, 2\r\n\r\n{}", {}), (JSON + "X: y\r\n" * 200 + "\r\n{}", {}),
    ("HTTP/1.0 200 OK\r\n\r\n[1]", [1]), (CHUNKED + "1;x=y\r\n[\r\n1\r\n]\r\n0\r\nX: y\r\n\r\n", []),
    (JSON + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", {}), ("HTTP/1.1 100 Continue\r\n\r\n" + JSON + "\r\n{}", {}),
    ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + JSON + "\r\n{}", {})])
def test_odd_but_whole_answers_are_read(serve, client, answer, result):
    server = serve(lambda request, conn: conn.send(answer) or False)
    assert client(server).request("/x") == result


@pytest.mark.parametrize("body, said", [
    (b"<!doctype html><p>Headlamp", "this route is not enabled"), (b"\n <html>", "this route is not enabled"),
    (b"hello", "text/plain instead of JSON: 'hello'"),
    (b"{" * 100000, "instead of JSON"), (b'{"a": ', "instead of JSON"), (b"\xff\xfe", "instead of JSON"),
    (b"{} {}", "instead of JSON")], ids=short)
def test_what_is_not_json_is_an_error_that_says_so(serve, client, body, said):
    one = client(serve(lambda request, conn: conn.reply(200, body, reason="OK")))
    error = failed(one.request, "/x")
    assert error.status == 200 and said in str(error) and len(str(error)) < 300 and error.body == body
    response = one.request("/x", {"isJSON": False})
    assert (response.ok, response.body, repr(response)) == (True, body, "<Response 200 OK, %d bytes>" % len(body))


@pytest.mark.parametrize("after", [b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n\"poison\"", b"\n", b"\0" * 100000], ids=short)
@pytest.mark.parametrize("answer", [
    JSON + "Content-Length: 2\r\n\r\n{}", "HTTP/1.1 204 No Content\r\n\r\n", CHUNKED + "0\r\n\r\n", "HTTP/1.1 101 X\r\n\r\n"])
def test_what_follows_an_answer_poisons_no_later_call(serve, client, answer, after):
    def script(request, conn):
        conn.reply(200, "5") if request.path.endswith("/y") else conn.send(answer.encode() + after)

    one = client(serve(script))
    for _ in range(3):
        one.request("/x") if "101" not in answer else failed(one.request, "/x")
        assert one.request("/y") == 5


def zipped(data):
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data) + data


@pytest.mark.parametrize("was_on", [True, False])
@pytest.mark.parametrize("data, rests", [(b"[%s]" % (b"1," * 60000 + b"1"), True), ("[%s" % ("1," * 60000), True), (b"[1]", False)], ids=short)
def test_the_cyclic_collector_rests_while_something_large_is_parsed(monkeypatch, data, rests, was_on):
    seen, loads, inside, free = [], apiproxy._loads, threading.Barrier(2), threading.Event()

    def slow(data):
        inside.wait(10)  # both threads are at it
        seen.append(gc.isenabled())
        free.wait(10) if threading.current_thread() is other else None
        return loads(data)

    def parse():
        try:
            apiproxy.parse_json(data)
        except ValueError:
            pass

    monkeypatch.setattr(apiproxy, "_loads", slow)
    other = threading.Thread(target=parse)
    gc.enable() if was_on else gc.disable()
    try:
        other.start()
        parse()
        assert gc.isenabled() == (was_on and not rests)  # the other is still at it
        free.set()
        other.join()
        assert gc.isenabled() == was_on and seen == [was_on and not rests] * 2
    finally:
        gc.enable()


def test_gzip_is_asked_for_and_decoded(serve, client):
    whole = gzip.compress(b'{"a": "%s"}' % (b"b" * 100000))
    answers = {"/good": whole, "/cut": whole[:-1], "/more": whole + b"x", "/sum": whole[:-8] + b"\0" * 8, "/empty": b""}
    server = serve(lambda request, conn: conn.send(zipped(answers[request.path])))
    one = client(server, cluster="")
    assert one.request("/good") == {"a": "b" * 100000} and one.request("/empty") is None
    assert [failed(one.request, path).status for path in ("/cut", "/more", "/sum")] == [502] * 3
    assert server.requests[0].headers["accept-encoding"] == "gzip"
    one.gzip = False
    one.request("/good")
    assert server.requests[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("head, body", [
    ("Content-Length: 1001", b"x" * 1001), ("Content-Length: 99999999999999999999", b""), ("X: y", b"x" * 1001),
    ("Transfer-Encoding: chunked", b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"),
    ("Content-Encoding: gzip", gzip.compress(b"x" * (64 << 20)))], ids=short)
def test_a_body_over_the_limit_is_an_error(serve, client, head, body):
    server = serve(lambda request, conn: conn.send(("HTTP/1.1 200 OK\r\n%s\r\n\r\n" % head).encode() + body) or False)
    tracemalloc.start()
    error = failed(client(server, max_body=1000 if b"\x1f" != body[:1] else 70000).request, "/x", {"isJSON": False})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.status == 200 and "larger than the limit" in str(error) and peak < 4 * apiproxy.MiB


def test_many_small_chunks_cost_no_more_than_their_octets(serve, client):
    count = 30000
    wire = CHUNKED.encode() + b"2\r\n{}\r\n" * count + b"0\r\n\r\n"
    one = client(serve(lambda request, conn: conn.send(wire)))
    tracemalloc.start()
    try:
        assert len(one.request("/x", {"isJSON": False}).body) == 2 * count
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [
    "Content-Length: %s\r\n\r\n{}" % length for length in ("+2", "0x2", "2_0", "2 2", "-2", "2.0", "2, 3", "\xb2", "")] + [
    "Transfer-Encoding: %s\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % coding for coding in ("identity", "gzip, chunked", "chunked, chunked", "chunke")] + [
    "Transfer-Encoding: chunked\r\n\r\n%s" % chunks for chunks in (
        "+2\r\n{}\r\n0\r\n\r\n", "0x2\r\n{}\r\n0\r\n\r\n", " 2\r\n{}\r\n0\r\n\r\n", "0_2\r\n{}\r\n0\r\n\r\n", "\r\n{}\r\n0\r\n\r\n",
        "\xb2\r\n{}\r\n0\r\n\r\n", "2\r\n{}0\r\n\r\n", "2\r\n{}\n0\r\n\r\n", "2\r\n{} \r\n0\r\n\r\n", "2\r\n{}\r\n0\r\n", "2\r\n{}\r\n0",
        "2\r\n{}\r\n" + "0" * 70000, "2;" + "x" * 70000 + "\r\n{}\r\n0\r\n\r\n")], ids=short)
def test_a_length_in_a_spelling_of_its_own_is_refused(serve, client, length):
    server = serve(lambda request, conn: conn.send(("HTTP/1.1 200 OK\r\n" + length).encode("latin-1")) or False)
    error = failed(client(server).request, "/x", {"isJSON": False})
    assert error.status == 502 and len(server.requests) == 1


def test_of_an_error_that_unpacks_without_end_the_first_mib_is_kept(serve, client):
    bomb = gzip.compress(bytes(64 << 20), 1)
    server = serve(lambda request, conn: conn.send(zipped(bomb).replace(b"200 OK", b"500 Oops")))
    tracemalloc.start()
    try:
        error = failed(client(server).request, "/x")
        assert tracemalloc.get_traced_memory()[1] < 16 * apiproxy.MiB  # and not 64
    finally:
        tracemalloc.stop()
    assert (error.status, error.body) == (500, bytes(apiproxy.MiB))


@pytest.mark.parametrize("head", ["Content-Length: 50000000\r\n\r\n", "\r\n", "Transfer-Encoding: chunked\r\n\r\n2faf080\r\n"])
def test_of_a_large_error_the_first_mib_is_kept(serve, client, head):
    server = serve(lambda request, conn: conn.send("HTTP/1.1 500 Oops\r\n" + head + "x" * 50000000) or False)
    error = failed(client(server).request, "/x")
    assert (error.status, len(error.body), str(error)) == (500, apiproxy.MiB, "Oops - " + "x" * 1000)


@pytest.mark.parametrize("answer", [
    "Content-Length: 9\r\n\r\nno", "Transfer-Encoding: chunked\r\n\r\n2\r\nno", "Content-Encoding: gzip\r\n\r\nno"])
def test_an_error_whose_body_is_broken_keeps_its_status(serve, client, answer):
    server = serve(lambda request, conn: conn.send("HTTP/1.1 403 Forbidden\r\n" + answer) or False)
    assert failed(client(server).request, "/x").status == 403


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset may take the answer with it")
def test_an_answer_that_comes_before_the_whole_request_was_taken_counts(client):
    def script(conn):
        while b"\r\n\r\n" not in conn.buffer:
            conn.more()
        conn.reply(413, b"", reason="Request Entity Too Large")

    server = RawServer(script)
    try:
        assert failed(client(server).post, "/x", "x" * (16 << 20)).status == 413
    finally:
        server.stop()


@pytest.fixture
def proxies(monkeypatch):
    """proxies(http_proxy=...): the environment says these and no others."""
    def use(**settings):
        for name in list(os.environ):
            if name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)

    return use


def test_http_goes_to_the_proxy_whole_and_no_proxy_past_it(serve, client, proxies):
    proxy, server = (serve(lambda request, conn: conn.reply(200, {})) for _ in range(2))
    proxies(http_proxy="http://us%%65r:pass%%21@127.0.0.1:%d" % proxy.port, no_proxy="127.0.0.1,.example.org")
    one = client("http://cluster.invalid:81")
    assert one.request("/x") == one.request("/x") == one.post("/x", {}) == {}
    assert proxy.paths() == ["http://cluster.invalid:81/clusters/dev/x"] * 3
    for request in proxy.requests:
        assert request.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:pass!").decode()
        assert request.headers["host"] == "cluster.invalid:81"
    assert client(server).request("/x") == {} and proxy.count == 2
    assert "proxy-authorization" not in server.requests[0].headers and server.paths() == ["/clusters/dev/x"]


def test_https_goes_through_a_tunnel(serve, client, proxies, certificate, trusting):
    inner = []

    def script(request, conn):
        for octet in b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n":
            conn.send(bytes((octet,)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with context.wrap_socket(conn.sock, server_side=True) as sock:
            conn = Conn(sock)
            while True:
                inner.append(conn.request())
                conn.reply(200, {})

    proxy = serve(script)
    proxies(https_proxy="user:pass@127.0.0.1:%d" % proxy.port)
    one = client("https://localhost:9", ssl_context=trusting)
    one.set_token("dev", "SECRET")
    assert one.request("/x") == one.request("/x") == {}
    (connect,) = proxy.requests
    assert (connect.method, connect.path, connect.headers["host"]) == ("CONNECT", "localhost:9", "localhost:9")
    assert "proxy-authorization" in connect.headers and "authorization" not in connect.headers
    assert [request.path for request in inner] == ["/clusters/dev/x"] * 2
    for request in inner:
        assert request.headers["authorization"] == "Bearer SECRET" and "proxy-authorization" not in request.headers
    error = failed(client("https://other.localhost:9", ssl_context=trusting).request, "/x")
    assert error.status == 502 and isinstance(error.__cause__, ssl.SSLCertVerificationError)  # the name behind the proxy counts


@pytest.mark.parametrize("answer", [
    "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP/1.1 502 Bad\r\n\r\n", "HTTP/1.1 302 X\r\nLocation: http://e\r\n\r\n",
    "rubbish\r\n\r\n", "HTTP/1.1 200 OK\r\n", "", "X" * 70000], ids=short)
def test_a_proxy_that_refuses_is_named(serve, client, proxies, answer):
    proxy = serve(lambda request, conn: conn.send(answer) or False)
    proxies(https_proxy="http://user:SECRET@127.0.0.1:%d" % proxy.port)
    error = failed(client("https://localhost:9").request, "/x")
    assert error.status == 502 and "SECRET" not in str(error)
    assert "proxy 127.0.0.1:%d" % proxy.port in str(error)


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
def test_a_proxy_that_is_not_there_is_named(client, proxies, scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    proxies(**{"https_proxy" if scheme in ("https", "wss") else "http_proxy": "http://user:SECRET@127.0.0.1:%d" % port})
    url = scheme + "://cluster.invalid"
    error = failed(WebSocket.connect, url) if scheme[0] == "w" else failed(client(url).request, "/x")
    assert error.status == 502 and "proxy 127.0.0.1:%d" % port in str(error)
    chain = [error, error.__cause__, error.__cause__.__cause__]
    assert any(isinstance(one, ConnectionRefusedError) for one in chain)


@pytest.mark.parametrize("answer, status", [
    ("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", 407), ("HTTP/1.1 503 No\r\n\r\nwhy", 503),
    ("HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 302), ("", 502), ("SSH-2.0-x\r\n\r\n", 502)])
def test_a_proxy_of_plain_http_that_refuses_is_an_error(serve, client, proxies, answer, status):
    proxy = serve(lambda request, conn: conn.send(answer) or False)
    proxies(http_proxy="http://user:SECRET@127.0.0.1:%d" % proxy.port)
    assert failed(client("http://cluster.invalid").request, "/x").status == status
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1", "https://u:SECRET@h", "http://:80", "http://u:SECRET@h:x",
    "http://h:99999", "http://[::1"])
def test_a_proxy_that_is_none_is_a_502(client, proxies, url):
    proxies(http_proxy=url)
    error = failed(client("http://127.0.0.1:1").request, "/x")
    assert error.status == 502 and "proxy" in str(error) and "SECRET" not in str(error)


@pytest.mark.parametrize("host, asked", [("::1", "[::1]"), ("127.0.0.1", "[::ffff:127.0.0.1]"), ("127.0.0.1", "localhost")])
def test_servers_are_found_by_name_and_by_ipv6_address(serve, client, host, asked):
    server = serve(lambda request, conn: conn.reply(200, {}), host=host)
    assert client("http://%s:%d" % (asked, server.port)).request("/x") == {}
    assert server.requests[0].headers["host"] == "%s:%d" % (asked, server.port)


def test_a_server_that_is_not_there_is_a_502_with_its_cause(client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for host, cause in (("127.0.0.1:%d" % port, ConnectionRefusedError), ("no-such.invalid", socket.gaierror), ("a..b", OSError)):
        error = failed(client("http://" + host).request, "/x")
        assert (error.status, error.phrase, error.url) == (502, "Unreachable", "http://%s/clusters/dev/x" % host)
        assert isinstance(error.__cause__, cause)


def test_a_certificate_is_checked(serve, client, trusting):
    server = serve(lambda request, conn: conn.reply(200, {}), tls=True)
    mapped = server.url.replace("127.0.0.1", "[::ffff:127.0.0.1]")  # not a name in it
    for url, context in ((server.url, None), (server.url, ssl.create_default_context()), (mapped, trusting)):
        error = failed(client(url, ssl_context=context).request, "/x")
        assert error.status == 502 and isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert not server.requests and client(server, ssl_context=trusting).request("/x") == {}


@pytest.mark.parametrize("value", ["false", "0", 1, ["x"], None, ""])
def test_nothing_but_true_turns_the_check_of_certificates_off(serve, value):
    server = serve(lambda request, conn: conn.reply(200, {}), tls=True)
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "a",
              "clusters": [{"name": "a", "cluster": {"server": server.url, "insecure-skip-tls-verify": value}}],
              "users": [{"name": "a", "user": {}}], "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]}
    packed = base64.b64encode(json.dumps(config).encode()).decode()
    for cluster in ({"name": "a", "server": server.url, "insecureTLSVerify": value}, {"kubeconfig": packed}):
        with apiproxy.Client("") as one:
            try:
                one.set_cluster(cluster)
            except (TypeError, ValueError):
                continue  # a value that says neither yes nor no may be refused
            error = failed(one.request, "/x", {"cluster": "a"})
            assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    try:
        context = apiproxy.tls_context(insecure=value)
    except (TypeError, ValueError):
        pass
    else:
        assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED
    assert not server.requests


def test_what_turns_the_check_off_elsewhere_does_not_here(serve, client, monkeypatch):
    server = serve(hello, tls=True)
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)  # what people paste
    apiproxy.default_context.cache_clear()
    for context in (None, False, 0, ""):  # "I have none"
        for call in (lambda: client(server, ssl_context=context).request("/x"), lambda: connect(server.ws, ssl_context=context)):
            assert isinstance(failed(call).__cause__, ssl.SSLCertVerificationError)
    assert not server.requests


def test_tls_over_ipv6_and_through_a_proxy_to_it(serve, client, trusting, proxies):
    def script(request, conn):
        return hello(request, conn) if request.is_watch else conn.reply(200, {})

    names_sent = []
    server = serve(script, tls=True)
    server.context.sni_callback = lambda sock, name, context: names_sent.append(name)
    proxy = serve(proxying())  # leads every [::1]:port to 127.0.0.1:port
    place = "[::1]:%d" % server.port
    proxies(https_proxy=proxy.url)
    urls = ["https://%s" % place]
    try:
        direct = serve(script, tls=True, host="::1")
        direct.context.sni_callback = server.context.sni_callback
        urls.append(direct.url)
    except OSError:
        pass  # no IPv6 here
    for url in urls:
        assert client(url, ssl_context=trusting).request("/x") == {}
        ws = connect("wss" + url[5:] + "/", ssl_context=trusting)
        assert ws.recv() == "hello"
        ws.abort()
        proxies(no_proxy="::1,[::1]")
    assert proxy.paths() == [place] * 2 == [request.headers["host"] for request in proxy.requests]
    assert {request.headers["host"] for request in server.requests} == {place}
    assert set(names_sent) == {None}  # an address is no name: it is in the certificate, not in SNI


def test_http_names_the_host_in_sni(serve, client, trusting):
    server, seen = serve(lambda request, conn: conn.reply(200, {}), tls=True), []
    server.context.sni_callback = lambda sock, name, context: seen.append(name)
    for host in ("localhost", "127.0.0.1"):
        assert client("https://%s:%d" % (host, server.port), ssl_context=trusting).request("/x") == {}
    assert seen == ["localhost", None]


def test_a_tls_body_without_its_end_is_an_error(serve, client, trusting):
    def script(request, conn):  # "{}" until the end, but without close_notify anybody may have ended it
        conn.send(JSON + "\r\n{}")
        return False

    assert failed(client(serve(script, tls=True), ssl_context=trusting).request, "/x").status == 502


@pytest.mark.parametrize("error, calls", [
    (ValueError, [(path,) for path in ("/x\r\nX: y", "/x y", "/x\0", "/../x", "/x#y")]),
    (ValueError, [("/x", params) for params in (
        {"cluster": "a/b"}, {"cluster": ".."}, {"timeout": -1}, {"timeout": "1"}, {"timeout": True}, {"timeout": float("nan")},
        {"method": "GET /"}, {"method": "G\r\n"}, {"method": ""}, {"method": None}, {"body": "\ud800"},
        {"headers": {"X": "a\r\nY: b"}}, {"headers": {"X Y": "a"}}, {"headers": {"content-length": "1"}, "body": "abc"},
        {"headers": {"Transfer-Encoding": "chunked"}, "body": "abc"})]),
    (TypeError, [(None,), ("/x", ["timeout"]), ("/x", None, True, True, "a=1")] + [("/x", params) for params in (
        {"timeOut": 1}, {"body": {}}, {"body": 5}, {"headers": {"X": 1}}, {"headers": [("X", "y")]})]),
    (ValueError, [("/x", None, True, True, {"a": "\ud800"})]),
    (ValueError, [lambda c: c.set_token("dev", "a\r\nX: y"), lambda c: c.set_token("dev", "a b"), lambda c: c.set_token("a/b", "t"),
                  lambda c: c.post("/x", {"a": float("nan")}), lambda c: c.set_cluster({"kubeconfig": "a\nb"})]),
    (TypeError, [lambda c: c.set_token("dev", b"a"), lambda c: c.post("/x", object()), lambda c: c.patch("/x", "text")]),
    (ValueError, [lambda c, url=url: apiproxy.Client(url) for url in ("http://u:p@h", "http://h?", "http://h/a/../b", "ftp://h")]),
])
def test_wrong_arguments_are_refused_before_anything_is_sent(serve, client, error, calls):
    server = serve(lambda request, conn: conn.reply(200, {}))
    for call in calls:
        with pytest.raises(error):
            call(client(server)) if callable(call) else client(server).request(*call)
    assert not server.count


def test_a_callers_headers_replace_ours_in_any_case(serve, client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    own = {"host": "h", "ACCEPT": "a", "content-type": "b", "user-agent": "c", "AUTHORIZATION": "d"}
    client(server).post("/x", {}, True, {"headers": own})
    assert sorted(server.requests[0].lines[1:]) == sorted(
        ["Accept-Encoding: gzip", "Content-Length: 2"] + ["%s: %s" % pair for pair in own.items()])


def test_no_secret_is_in_an_error_a_repr_or_a_log_line(serve, client, proxies, caplog):
    caplog.set_level(logging.DEBUG)
    secret, texts = "SECR" + "ET", []  # in two: a traceback shows these lines
    answers = [
        lambda conn: conn.reply(401, {}), lambda conn: conn.reply(500, "oops"), lambda conn: conn.send("HTTP/1.1 2") or False,
        lambda conn: False, lambda conn: conn.reply(200, "<html>"), lambda conn: conn.reply(200, {}, {"X-Authorization": secret})]
    calls = [lambda one: one.post("/x", {"a": secret}), lambda one: one.request("/x"), lambda one: one.delete_plugin("p")]
    server = serve(lambda request, conn: answers[len(server.requests) % len(answers)](conn))
    proxies(http_proxy="http://user:%s@127.0.0.1:1" % secret, no_proxy="127.0.0.1")
    for one in (client(server), client("http://cluster.invalid")):
        one.backend_token = one._kubeconfigs["dev"] = secret
        for index in range(30):
            one.set_token("dev", secret if index % 2 else lambda: secret + "\n")
            try:
                texts.append(repr(calls[index % 3](one)))
            except apiproxy.ApiError as error:
                texts += traceback.format_exception(None, error, error.__traceback__) + [repr(error), repr(vars(error))]
        texts.append(repr(one))
    assert len(texts) > 100 and len(caplog.messages) > 50 and secret not in "".join(texts) + caplog.text


# ------------------------------------------------------------------------------
# 4. Connections
# ------------------------------------------------------------------------------

connect = WebSocket.connect
both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


def accepting(request, extra="", head="HTTP/1.1 101 Switching Protocols"):
    """The octets of a 101; `{accept}` in `extra` becomes the right answer to the key."""
    lines = "%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n" % head
    return (lines + extra).replace("{accept}", request.accept).encode() + b"\r\n"


def hello(request, conn):
    conn.upgrade(request)
    conn.send(frame(TEXT, "hello"))
    conn.wait_end()


def background(call, *args, **kwargs):
    """Start call(...) in a thread; what it gives, or raises, is what `.result()` gives within ten seconds."""
    outcome = []

    def run():
        try:
            outcome.append(call(*args, **kwargs))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)

    def result(seconds=10.0):
        thread.join(seconds)
        assert outcome, "still not done after %s s" % seconds
        return outcome[0]

    thread.result = result
    thread.start()
    return thread


def sockets():
    """How many sockets this process has open; 0 where nobody can tell."""
    count = 0
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            count += os.readlink("/proc/self/fd/" + name).startswith("socket:")
        except OSError:
            pass
    return count


@pytest.fixture
def listener():
    """listener(full=False) -> "127.0.0.1:port" that says nothing; a full one does not even take connections."""
    opened = []

    def start(full=False):
        opened.append(socket.socket())
        opened[0].bind(("127.0.0.1", 0))
        opened[0].listen(0 if full else 16)
        for _ in range(4 if full else 0):
            opened.append(socket.socket())
            opened[-1].setblocking(False)
            opened[-1].connect_ex(opened[0].getsockname())
        return "127.0.0.1:%d" % opened[0].getsockname()[1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def names(monkeypatch):
    """A dict of host names and what a look-up of each gives: addresses, or a function that returns them."""
    known, real = {}, socket.getaddrinfo

    def look_up(host, port, family=0, kind=0, proto=0, flags=0):
        if host not in known:
            return real(host, port, family, kind, proto, flags)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        return known[host]() if callable(known[host]) else known[host]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def at(place, family=socket.AF_INET):
    host, _, port = place.rpartition(":")
    return family, socket.SOCK_STREAM, 6, "", (host, int(port))


@pytest.mark.parametrize("first", ["refuses", "is silent", "is of a family that is not there"])
def test_an_address_that_fails_leaves_time_for_the_next(serve, listener, names, first):
    server = serve(hello)
    live = "127.0.0.1:%d" % server.port
    names["many.test"] = [{"refuses": at("127.0.0.1:1"), "is silent": at(listener(full=True)),
                           "is of a family that is not there": at(live, 99)}[first], at(live)]
    ws = connect("ws://many.test:%d/" % server.port, timeout=1.0)
    assert ws.recv() == "hello"
    ws.abort()


def test_an_ipv6_host_is_bracketed_in_host_and_origin(serve):
    try:
        server = serve(hello, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    connect(server.ws).abort()
    request = server.requests[0]
    assert request.headers["host"] == "[::1]:%d" % server.port
    assert request.headers["origin"] == server.url


CONNECT_STAGES = {  # where connect hangs: url, proxy
    "name look-up": ("ws://slow.test/", ""), "connecting": ("ws://{full}/", ""), "TLS": ("wss://{mute}/", ""),
    "the proxy": ("ws://far.test/", "http://{mute}"), "the answer": ("ws://{mute}/", ""),
    "the body of a refusal": ("ws://{refusing}/", ""),
}


@pytest.mark.parametrize("stage", CONNECT_STAGES)
@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_connect_ends_at_every_stage_and_leaves_nothing(serve, listener, names, stage, how):
    release = threading.Event()
    names["slow.test"] = lambda: release.wait(20) and []
    refusing = serve(lambda request, conn: conn.send("HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nwhy"))
    places = {"refusing": "127.0.0.1:%d" % refusing.port}
    if stage != "name look-up":
        places["full" if stage == "connecting" else "mute"] = listener(stage == "connecting")
    url, proxy = (text.format(**places) if "{" in text else text for text in CONNECT_STAGES[stage])
    before, threads, cancel = sockets(), set(threading.enumerate()), Cancel()
    call = background(connect, url, proxy=proxy, cancel=cancel, timeout=60 if how == "cancelled" else 0.1)
    if how == "cancelled":
        eventually(lambda: cancel._held and getattr(cancel._held, "_waiting", 1))
        cancel.set()
    error = call.result()
    assert isinstance(error, apiproxy.ApiError)
    if stage == "the body of a refusal":
        assert error.status in (403, 502)
    else:
        assert error.status == (502 if how == "cancelled" else 408)
    eventually(lambda: sockets() - len(refusing.open) <= before)
    assert {thread.name for thread in set(threading.enumerate()) - threads
            if thread is not call and thread not in refusing.threads} <= {"apiproxy-lookup"}
    release.set()


def test_a_connect_that_was_cancelled_before_sends_nothing(serve):
    server, cancel = serve(hello), Cancel()
    cancel.set()
    with pytest.raises(apiproxy.ApiError):
        connect(server.ws, cancel=cancel)
    assert server.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_names_the_host_unless_it_is_an_address(serve, trusting, host):
    server, seen = serve(hello, tls=True), []
    server.context.sni_callback = lambda sock, name, context: seen.append(name)
    ws = connect("wss://%s:%d/" % (host, server.port), ssl_context=trusting)
    assert ws.recv() == "hello"
    assert seen == [None if host == "127.0.0.1" else host]
    ws.abort()


def test_tls_refuses_an_unknown_authority_and_a_wrong_name(serve, names, trusting):
    server = serve(hello, tls=True)
    names["other.test"] = [at("127.0.0.1:%d" % server.port)]
    for url, context in ((server.ws, None), ("wss://other.test:%d/" % server.port, trusting)):
        with pytest.raises(apiproxy.ApiError) as caught:
            connect(url, ssl_context=context)
        assert caught.value.status == 502
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert server.requests == []


@pytest.mark.parametrize("last, code", [(b"", 1006), (b"\x81\x05he", 1006), (frame(CLOSE, b"\x03\xe9"), 1001)])
def test_tls_that_ends_without_close_notify_is_lost_unless_a_close_frame_came(dial, last, code):
    ws = dial(lambda conn: conn.send(last), tls=True)
    with pytest.raises(ConnectionClosed) as caught:
        ws.recv()
    assert caught.value.code == code


def test_messages_of_one_tls_record_all_arrive(dial):
    ws = dial(lambda conn: (conn.send(frame(TEXT, "x") * 500), conn.wait_end()), tls=True)
    assert [ws.recv(timeout=5) for _ in range(500)] == ["x"] * 500


@pytest.mark.parametrize("end", ["close_notify", "garbage", "cut"])
def test_an_end_of_tls_behind_many_records_is_noticed_at_once_and_loses_none(dial, end):
    sent = threading.Event()

    def script(conn):
        for _ in range(100):
            conn.send(frame(TEXT, "x"))
        if end == "garbage":
            socket.socket.sendall(conn.sock, b"\x17\x03\x03\x00\x20" + b"?" * 32)
        elif end == "close_notify":
            conn.end_tls()
        else:
            socket.socket.shutdown(conn.sock, socket.SHUT_WR)
        sent.set()
        conn.stopped.wait(20)

    ws = dial(script, tls=True)
    assert sent.wait(10)
    assert [ws.recv(timeout=5) for _ in range(100)] == ["x"] * 100
    with pytest.raises(ConnectionClosed) as caught:
        ws.recv(timeout=5)
    assert caught.value.code == 1006


def proxying(answer=b"HTTP/1.1 200 Connected\r\n\r\n"):
    """The script of a CONNECT proxy, which answers octet by octet."""
    def script(request, conn):
        with socket.create_connection(("127.0.0.1", int(request.path.rpartition(":")[2])), 5) as far:
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for index in range(len(answer)):
                conn.send(answer[index:index + 1])
            other = {conn.sock: far, far: conn.sock}
            while True:
                for one in select.select(list(other), [], [], 10)[0]:
                    data = one.recv(65536)
                    if not data:
                        return False
                    other[one].sendall(data)
    return script


@pytest.fixture
def environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch.setenv


@both
def test_a_proxy_gets_its_own_credentials_and_only_those(serve, environment, trusting, tls):
    server, proxy = serve(hello, tls=tls), serve(proxying())
    environment("https_proxy" if tls else "http_proxy", "http://me:pass%3A@127.0.0.1:" + str(proxy.port))
    ws = connect(server.ws, headers={"Authorization": "Bearer secret"}, ssl_context=trusting)
    assert ws.recv() == "hello"
    ws.abort()
    outer, inner = proxy.requests[0], server.requests[0]
    assert (outer.method, outer.path) == ("CONNECT", "127.0.0.1:%d" % server.port)
    assert outer.headers == {"host": outer.path, "proxy-authorization": "Basic " + base64.b64encode(b"me:pass:").decode()}
    assert inner.headers["authorization"] == "Bearer secret"
    assert "proxy-authorization" not in inner.headers


def test_no_proxy_goes_straight(serve, environment):
    server, proxy = serve(hello), serve(proxying())
    environment("http_proxy", proxy.url)
    environment("no_proxy", "127.0.0.1")
    connect(server.ws).abort()
    connect(server.ws, proxy="").abort()
    assert proxy.count == 0


@pytest.mark.parametrize("answer, status, text", [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", 502, "407 Proxy Auth"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 502, "302 Found"),
    (b"SSH-2.0-x\r\n\r\n", 502, "no HTTP"),
    (b"", 502, "closed before an answer"),
    (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20000, 502, "head"),
    (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 403 Inside\r\nContent-Length: 0\r\n\r\n", 403, "Inside"),  # of the tunnel
])
def test_what_a_proxy_may_answer(serve, answer, status, text):
    proxy = serve(lambda request, conn: bool(conn.send(answer)) or status == 403)
    with pytest.raises(apiproxy.ApiError) as caught:
        connect("ws://far.test/", proxy=proxy.url, headers={"Authorization": "Bearer secret"})
    assert caught.value.status == status and text in str(caught.value)
    assert "secret" not in repr(proxy.requests[0].headers)


# ------------------------------------------------------------------------------
# 6. WebSocket
# ------------------------------------------------------------------------------


@pytest.fixture
def dial(serve, trusting):
    """dial(script, tls=False, **settings) -> a WebSocket whose server, `ws.server`, runs script(conn) after the 101."""
    opened = []

    def start(script, tls=False, **settings):
        def upgrade(request, conn):
            conn.upgrade(request)
            conn.stopped = server.stopped
            script(conn)
            return False

        server = serve(upgrade, tls=tls)
        opened.append(connect(server.ws, ssl_context=trusting, **settings))
        opened[-1].server = server
        return opened[-1]

    yield start
    for ws in opened:
        ws.abort()


def some(conn):
    """The next octets, many at a time."""
    data = conn.sock.recv(1 << 20)
    if not data:
        raise EOFError
    return data


def swallow(conn):
    """Read until the client ends, and keep nothing."""
    while some(conn):
        pass


def idle(conn):
    """Read nothing, until the test is over."""
    conn.stopped.wait(20)


def closing(code, reason=""):
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())


def outcome(call, *args, **kwargs):
    """The ConnectionClosed that call(...) raises, as (code, reason)."""
    with pytest.raises(ConnectionClosed) as caught:
        call(*args, **kwargs)
    return caught.value.code, caught.value.reason


# -- the handshake ---------------------------------------------------------------

ACCEPT = "Sec-WebSocket-Accept: {accept}\r\n"


@pytest.mark.parametrize("old, new", [
    ("{accept}", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="), ("{accept}", "{ACCEPT}"), (ACCEPT, ""), (ACCEPT, ACCEPT * 2),  # H01, 14, 02, 10
    ("101", "200"), ("101", "204"), ("HTTP/1.1", "HTTP/1.0"), ("HTTP/1.1 101", "HTTP/1.1 0101"),  # H03, 11
    ("Upgrade: websocket\r\n", ""), ("Upgrade: websocket", "Upgrade: h2c"),  # H04
    ("Connection: Upgrade\r\n", ""), ("Connection: Upgrade", "Connection: keep-alive"),  # H05
    (ACCEPT, ACCEPT + "Sec-WebSocket-Protocol: other\r\n"), (ACCEPT, ACCEPT + "Sec-WebSocket-Protocol: mine, two\r\n"),  # H07
    (ACCEPT, ACCEPT + "Sec-WebSocket-Protocol: MINE\r\n"), (ACCEPT, ACCEPT + "Sec-WebSocket-Protocol: mine\r\n" * 2),  # H08
    (ACCEPT, ACCEPT + "Sec-WebSocket-Extensions: permessage-deflate\r\n"),  # H09
    ("Connection: Upgrade", "Connection:\r\n Upgrade"), (ACCEPT, ACCEPT + "no colon\r\n"),  # H12
    (ACCEPT, ACCEPT + " folded: x\r\n"), (ACCEPT, ACCEPT + "X : y\r\n"),
    ("Upgrade: websocket", "Upgrade : websocket"), (ACCEPT, ACCEPT + "X: a\0b\r\n"), (ACCEPT, ACCEPT + "X: a\nb\r\n"),  # H13
])
def test_a_wrong_answer_is_refused_and_the_socket_closed(serve, old, new):
    def script(request, conn):
        right = accepting(request).decode()
        accept = right.split("Accept: ")[1].split("\r\n")[0]
        wrong = right.replace(*(part.replace("{accept}", accept).replace("{ACCEPT}", accept.swapcase()) for part in (old, new)), 1)
        assert wrong != right
        conn.send(wrong)
        return None if wrong.startswith("HTTP/1.1 101") else False

    server = serve(script)
    with pytest.raises(apiproxy.HandshakeError):
        connect(server.ws, protocols=["mine", "two"])
    eventually(lambda: not server.open)


@pytest.mark.parametrize("old, new", [  # H06
    (b"Connection: Upgrade", b"connection: keep-alive, UPGRADE"), (b"Upgrade: websocket", b"uPGRADE:WebSocket"),
    (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol:  two \r\n\r\n"), (b"Switching Protocols", b""),
    (b"HTTP/1.1 101", b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 Early\r\nLink: <x>\r\n\r\nHTTP/1.1 101"),
    (b"\r\n\r\n", b"\r\nX-Long: " + b"x" * 60000 + b"\r\n\r\n"),
])
def test_an_unusual_but_legal_answer_is_accepted(serve, old, new):
    server = serve(lambda request, conn: (conn.send(accepting(request).replace(old, new, 1) + frame(TEXT, "hello")),
                                          conn.wait_end()))
    ws = connect(server.ws, protocols=["one", "two"])
    assert ws.recv() == "hello"
    assert ws.protocol == ("two" if b"two" in new else "")
    ws.abort()


@pytest.mark.parametrize("form, body", [
    ("Content-Length: 4", b"why?"), ("Connection: close", b"why?"),
    ("Transfer-Encoding: chunked", b"2\r\nwh\r\n2\r\ny?\r\n0\r\n\r\n")])
@pytest.mark.parametrize("status", [302, 401, 403, 429, 503])
def test_a_refusal_has_status_and_body_and_is_not_followed(serve, status, form, body):  # H19, 20
    server = serve(lambda request, conn: conn.send(
        b"HTTP/1.1 %d Why\r\nRetry-After: 7\r\nLocation: /else\r\n%s\r\n\r\n%s" % (status, form.encode(), body)) or
        (False if "close" in form else None))
    with pytest.raises(apiproxy.HandshakeError) as caught:
        connect(server.ws + "/x", headers={"Authorization": "Bearer secret"})
    error = caught.value
    assert (error.status, error.body, error.retry_after, error.method) == (status, b"why?", 7.0, "GET")
    assert str(error) == "Why - why?" and "secret" not in repr(error)
    assert server.paths() == ["/x"]


@pytest.mark.parametrize("start, piece, status", [
    (b"HTTP/1.1 101 X\r\n", b"X: y\r\n" * 1000, 502),  # H15
    (b"HTTP/1.1 101 X\r\nX: ", b"y" * 6000, 502), (b"", b"H" * 6000, 502),  # H16
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 200, None), (b"", b"HTTP/1.1 103 Early\r\n\r\n" * 200, None),
    (b"HTTP/1.1 403 No\r\n\r\n", b"x" * 6000, 403),
    (b"HTTP/1.1 403 No\r\nContent-Length: 999999999\r\n\r\n", b"x" * 6000, 403),
    (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n", 403),
    (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1000, 403),
])
def test_an_endless_answer_is_given_up(serve, start, piece, status):
    def script(request, conn):
        conn.send(start)
        while True:
            conn.send(piece)

    server = serve(script)
    error = background(connect, server.ws, timeout=60).result()  # long before its time is over
    assert isinstance(error, apiproxy.ApiError) and status in (error.status, None) and len(error.body) <= 64 * 1024
    eventually(lambda: not server.open)


def test_a_refusal_has_what_came_of_its_body_although_its_length_lies(serve):
    chunked = "Transfer-Encoding: chunked\r\n\r\n"
    bodies = {"\r\nwhy?": b"why?", "Content-Length: 9\r\n\r\nwhy?": b"why?", "Content-Length: 9999999999999\r\n\r\nwhy?": b"why?",
              "Content-Length: x\r\n\r\nwhy?": None, "Content-Length: -1\r\n\r\nwhy?": None,  # no length is not a length
              "Content-Length: 3\r\n\r\nwhy?": b"why", "Content-Length: 0\r\n\r\nwhy?": b"", chunked + "9\r\nwhy?": b"why?",
              chunked + "4\r\nwhy?": b"why?", chunked + "4\r\nwhy?\r\nxyz\r\n": b"why?", chunked + "xyz\r\nwhy?": b""}
    for ends in (True, False):
        server = serve(lambda request, conn: conn.send(
            "HTTP/1.1 403 No\r\n" + urllib.parse.unquote(request.path[1:])) or (False if ends else None))
        calls = {answer: background(connect, server.ws + "/" + urllib.parse.quote(answer, ""), timeout=10 if ends else 1)
                 for answer in bodies}
        errors = {answer: call.result(20) for answer, call in calls.items()}
        assert {error.status for error in errors.values()} == {403}
        assert {answer: bodies[answer] and error.body for answer, error in errors.items()} == bodies
        eventually(lambda: not server.open)


def test_one_deadline_covers_an_answer_of_single_octets(serve):  # H17
    def script(request, conn):
        for _ in range(500):
            conn.send("H")
            server.stopped.wait(0.02)
        return False

    server = serve(script)
    with pytest.raises(apiproxy.ApiError) as caught:
        connect(server.ws, timeout=0.3)
    assert caught.value.status == 408


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Swi"])
def test_an_end_before_the_answer_is_502(serve, sent):  # H21
    server = serve(lambda request, conn: bool(conn.send(sent)))
    with pytest.raises(apiproxy.ApiError) as caught:
        connect(server.ws)
    assert caught.value.status == 502 and "closed" in str(caught.value)


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\nX: y", "\x85"])
def test_a_control_character_is_refused_before_connecting(serve, bad):  # H22
    server = serve(hello)
    for url, more in [
            (server.ws + "/" + bad, {}), (server.ws + "/?q=" + bad, {}), ("ws://127.0.0.1%s:%d/" % (bad, server.port), {}),
            (server.ws + "/", {"headers": {"X" + bad: "y"}}), (server.ws + "/", {"headers": {"X": "y" + bad}}),
            (server.ws + "/", {"headers": {"Host": "h" + bad}}), (server.ws + "/", {"protocols": ["p" + bad]})]:
        with pytest.raises(ValueError):
            connect(url, **more)
    assert server.count == 0


def test_every_connection_has_an_origin_and_a_key_of_its_own(serve):
    server = serve(hello)
    connect(server.ws).abort()
    connect(server.ws, headers={"origin": "http://me"}).abort()
    first, second = server.requests
    assert first.headers["origin"] == server.url
    assert [line for line in second.lines if "rigin" in line] == ["origin: http://me"]
    keys = {request.headers["sec-websocket-key"] for request in server.requests}
    assert len(keys) == 2 and {len(base64.b64decode(key)) for key in keys} == {16}


# -- messages --------------------------------------------------------------------


@pytest.mark.parametrize("messages", [["first", b"second"], ["x" * 9000, b"y" * 9000]])
def test_frames_in_the_segment_of_the_101_are_kept(serve, messages):  # H18
    octets = b"".join(frame(TEXT if isinstance(one, str) else BINARY, one) for one in messages)
    server = serve(lambda request, conn: (conn.send(accepting(request) + octets), conn.wait_end()))
    ws = connect(server.ws)
    assert [ws.recv() for _ in messages] == messages
    ws.abort()


@both
def test_recv_goes_on_after_a_timeout_at_every_octet(dial, tls):  # F17
    octets, go = frame(TEXT, "a\u20ac", fin=False) + frame(PING, "p") + frame(CONTINUATION, "\U0001f600"), threading.Semaphore(0)

    def script(conn):
        for index in range(len(octets)):
            go.acquire(timeout=10)
            conn.send(octets[index:index + 1])
        conn.wait_end()

    ws = dial(script, tls)
    for _ in octets[1:]:
        go.release()
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.01)
    go.release()
    assert ws.recv() == "a\u20ac\U0001f600"


@pytest.mark.parametrize("piece", [frame(CONTINUATION, b"", fin=False), frame(PONG), frame(PING)])
def test_recv_keeps_its_time_while_octets_come_that_are_no_message(dial, piece):  # F09
    def script(conn):
        conn.send(frame(TEXT, b"", fin=False))
        while True:
            conn.send(piece * 20000)

    ws = dial(script)
    assert isinstance(background(ws.recv, timeout=0.1).result(), TimeoutError)


def test_a_message_that_is_there_is_no_timeout(dial):
    ws = dial(lambda conn: (conn.read_frame(), conn.send(frame(TEXT, "hi")), conn.wait_end()))
    with pytest.raises(TimeoutError):
        ws.recv(timeout=0)
    ws.send("go")
    assert ws._wire.wait(10)
    assert ws.recv(timeout=0) == "hi"


def test_a_second_reader_keeps_its_time_too(dial):
    ws = dial(swallow)
    first = background(ws.recv)
    eventually(lambda: ws._wire._waiting)
    assert isinstance(background(ws.recv, timeout=0.05).result(), TimeoutError)
    ws.abort()
    assert first.result().code == 1006


@both
def test_a_big_message_arrives_as_it_was_sent(dial, tls):
    payload = os.urandom(1 << 16) * 48

    def script(conn):
        head, data = conn.take(14), bytearray(conn.buffer)
        while len(data) < len(payload):
            data += some(conn)
        conn.send(frame(BINARY, apiproxy.apply_mask(bytes(data), head[10:])))
        conn.wait_end()

    ws = dial(script, tls)
    ws.send(payload)
    assert ws.recv() == payload


@both
def test_frames_of_many_senders_leave_whole_while_one_reads(dial, tls):  # F21, 22
    sizes, count = (0, 5, 130, 3000, 400000), 8  # the last leaves in two pieces
    seen = []

    def script(conn):
        while True:
            seen.append(conn.read_frame())
            if seen[-1][0] == BINARY:
                conn.send(frame(PING, "p") + frame(TEXT, "got"))

    def sender(name):
        for size in sizes:
            ws.send(bytes((name,)) * size)

    ws = dial(script, tls)
    senders = [background(sender, name) for name in range(count)]
    assert [ws.recv(timeout=20) for _ in range(count * len(sizes))] == ["got"] * count * len(sizes)
    assert [one.result() for one in senders] == [None] * count
    messages = [payload for opcode, payload in seen if opcode == BINARY]
    for name in range(count):
        assert [len(one) for one in messages if one and set(one) == {name}] == list(sizes[1:])


def test_a_surrogate_leaves_nothing_on_the_wire(dial):
    seen = []
    ws = dial(lambda conn: (seen.append(conn.read_frame()), conn.wait_end()))
    for wrong in ("ab\ud800", 5, None, ["x"]):
        with pytest.raises((UnicodeEncodeError, TypeError)):
            ws.send(wrong)
    with pytest.raises(ValueError):
        ws.ping(b"x" * 126)
    ws.send("ok")
    eventually(lambda: seen == [(TEXT, b"ok")])


def test_a_ping_inside_a_message_is_answered_at_once(dial):
    seen = []

    def script(conn):
        conn.send(frame(TEXT, "a", fin=False) + frame(PING, "p"))
        seen.append(conn.read_frame())
        conn.send(frame(CONTINUATION, "b"))
        conn.wait_end()

    assert dial(script).recv() == "ab"
    assert seen == [(PONG, b"p")]


# -- a peer that does not read ---------------------------------------------------


def test_a_flood_of_pings_stops_neither_the_reader_nor_fills_memory(dial):  # F10
    done, last = [], b"%100d" % 99999

    def script(conn):
        for start in range(0, 100000, 1000):
            conn.send(b"".join(frame(PING, b"%100d" % number) for number in range(start, start + 1000)))
        conn.send(frame(TEXT, "after"))
        eventually(lambda: done, 30)
        data = bytearray(conn.buffer)
        while len(data) % 106 or apiproxy.apply_mask(bytes(data[-100:]), bytes(data[-104:-100])) != last:
            data += some(conn)
        conn.send(frame(TEXT, "answered"))
        conn.wait_end()

    ws = dial(script)
    tracemalloc.start()
    try:
        # the server's own batches are counted too: 0.2 MB
        assert ws.recv(timeout=60) == "after"
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    done.append(True)
    assert ws.recv(timeout=20) == "answered"


@both
def test_a_pong_for_which_there_was_no_room_leaves_when_there_is(dial, tls):
    go = threading.Event()

    def script(conn):
        conn.send(frame(PING, "p"))
        go.wait(10)
        octets = bytearray()
        while octets[-7:-5] != b"\x8a\x81" or octets[-1] ^ octets[-5] != ord("p"):
            octets += some(conn)
        conn.send(frame(TEXT, "answered"))
        conn.wait_end()

    ws = dial(script, tls)
    while ws._wire.write(bytes(1000)):  # until the system takes no more
        pass
    if not tls:
        ws._wire._out.clear()  # so that the pong is the first that waits
    with pytest.raises(TimeoutError):
        ws.recv(timeout=0.1)
    go.set()
    assert ws.recv(timeout=10) == "answered"


@both
def test_recv_goes_on_beside_a_send_that_is_stuck(dial, tls):  # F23
    stuck, go = threading.Event(), threading.Event()

    def script(conn):
        stuck.wait(10)
        for number in range(3):
            conn.send(frame(PING, "p") + frame(TEXT, str(number)))
        go.wait(10)
        swallow(conn)

    ws = dial(script, tls)
    sender = background(ws.send, bytes(20 << 20))
    eventually(lambda: ws._wire._waiting)
    stuck.set()
    reader = background(lambda: [ws.recv(timeout=5) for _ in range(3)])
    assert reader.result() == ["0", "1", "2"]
    assert sender.is_alive()
    go.set()
    assert sender.result() is None


@both
@pytest.mark.parametrize("how", ["end", "reset", "silence"])
def test_senders_that_are_stuck_end_with_the_connection(dial, tls, how):
    go = threading.Event()

    def script(conn):
        go.wait(20)
        if how == "reset":
            conn.reset()
        elif how == "silence":
            idle(conn)

    ws = dial(script, tls, **({"ping_interval": 0.05, "ping_timeout": 0.05} if how == "silence" else {}))
    senders = [background(ws.send, bytes(20 << 20))]
    eventually(lambda: ws._wire._waiting)
    senders += [background(ws.send, "next"), background(ws.ping)]  # these wait for the first
    go.set()
    if how == "silence":  # who reads notices
        assert outcome(ws.recv)[0] == 1006
    assert [one.result().code for one in senders] == [1006] * 3
    assert outcome(ws.recv)[0] == outcome(ws.send, "x")[0] == 1006 and ws.closed


@both
def test_a_peer_that_takes_a_big_message_slowly_is_alive(dial, monkeypatch, tls):
    size, clock, go = 6 << 20, [1000.0], threading.Event()

    def script(conn):
        go.wait(10)
        left = size + 14
        while left > 0:  # 128 KiB a second, 48 in all, and no time to say anything meanwhile
            data = some(conn)
            left, clock[0] = left - len(data), clock[0] + len(data) / (1 << 17)
        conn.send(frame(TEXT, "got it"))
        conn.wait_end()

    def recv():
        while True:
            try:
                return ws.recv(timeout=0.001)
            except TimeoutError:
                pass

    ws = dial(script, tls, ping_interval=10, ping_timeout=20)
    for sock in [ws._wire._sock] + list(ws.server.open):  # little room: what is sent was taken, but for a second or two
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 1 << 16)
    monkeypatch.setattr(apiproxy, "time", types.SimpleNamespace(**{**vars(time), "monotonic": lambda: clock[0]}))
    sender, reader = background(ws.send, bytes(size)), background(recv)
    eventually(lambda: ws._wire._waiting)
    go.set()
    assert reader.result(20) == "got it"
    assert sender.result() is None


@both
@pytest.mark.parametrize("what", ["recv", "send"])
def test_abort_wakes_who_is_blocked(dial, tls, what):  # F18, 19, 20
    ws = dial(idle, tls)
    call = background(ws.recv) if what == "recv" else background(ws.send, bytes(20 << 20))
    eventually(lambda: ws._wire._waiting)
    begin = time.monotonic()
    ws.abort()
    assert call.result().code == 1006
    assert time.monotonic() - begin < 1
    assert ws.closed and outcome(ws.recv) == outcome(ws.send, "x") == (1006, "aborted here")
    assert ws._wire._sock.fileno() == -1


# -- the end ---------------------------------------------------------------------


def half_close(conn):
    socket.socket.shutdown(conn.sock, socket.SHUT_WR)
    conn.wait_end()


@both
@pytest.mark.parametrize("end", [lambda conn: None, Conn.reset, half_close], ids=["end", "reset", "half-closed"])
@pytest.mark.parametrize("last", [b"", b"\x81", b"\x81\x05he", b"\x82\x7f\0\0", b"\x89\x05p", b"\x88\x02\x03", frame(TEXT, "half", fin=False)])
def test_an_end_without_a_close_frame_is_1006_for_good(dial, tls, last, end):  # F11, 12, 13
    ws = dial(lambda conn: (conn.send(last), end(conn)), tls)
    assert [outcome(ws.recv)[0] for _ in range(3)] == [1006] * 3
    assert ws.closed and outcome(ws.send, "x")[0] == 1006
    with pytest.raises(ConnectionClosed):
        list(ws)
    ws.close()


@pytest.mark.parametrize("last, clean", [
    (closing(1000), True), (closing(1001, "bye"), True), (frame(CLOSE), True), (closing(1011), False), (closing(4000), False)])
def test_iteration_ends_at_a_clean_close_and_raises_at_another(dial, last, clean):
    ws, seen = dial(lambda conn: conn.send(frame(TEXT, "a") + frame(BINARY, b"b") + last)), []
    try:
        for message in ws:
            seen.append(message)
        assert clean
    except ConnectionClosed:
        assert not clean
    assert seen == ["a", b"b"]


def test_a_connection_left_open_after_close_frames_ends_in_time(dial):  # F14
    ws = dial(lambda conn: (conn.send(closing(1000, "bye")), idle(conn)), close_timeout=0.1)
    result = background(ws.recv).result()
    assert (result.code, result.reason) == (1000, "bye")
    assert ws._wire._sock.fileno() == -1


@both
@pytest.mark.parametrize("server", ["silent", "flooding", "not reading"])
def test_close_takes_no_longer_than_close_timeout(dial, tls, server):  # F15, 16
    def script(conn):
        while server == "flooding":
            conn.send(frame(BINARY, bytes(60000)) * 10)
        idle(conn)

    ws = dial(script, tls, close_timeout=0.2)
    sender = background(ws.send, bytes(20 << 20)) if server == "not reading" else None
    if sender:
        eventually(lambda: ws._wire._waiting)
    assert background(ws.close).result(5) is None
    assert ws.closed and outcome(ws.recv)[0] == 1000
    assert sender is None or isinstance(sender.result(), ConnectionClosed)
    assert ws._wire._sock.fileno() == -1


def test_close_ends_in_time_although_octets_never_stop(dial):
    ws = dial(idle, close_timeout=0.1)
    end = time.monotonic() + 4
    ws._wire.read = lambda space: len(space) if time.monotonic() < end else 0  # a peer that is faster than we are
    assert background(ws.close).result(2) is None


@both
def test_close_beside_a_reader_ends_both_with_the_servers_answer(dial, tls):
    def script(conn):
        opcode, payload = conn.read_frame()
        conn.send(frame(TEXT, "last") + frame(opcode, payload))
        conn.wait_end()

    ws = dial(script, tls, close_timeout=10)
    reader = background(list, ws)
    eventually(lambda: ws._wire._waiting)
    assert background(ws.close, 1000, "enough").result() is None
    assert reader.result() == ["last"]
    assert outcome(ws.recv) == (1000, "enough")
    assert outcome(ws.send, "x")[0] == 1000


@pytest.mark.parametrize("other", ["close", "abort"])
def test_an_end_from_two_sides_at_once_is_one_end(dial, monkeypatch, other):
    go, told, meet, real = threading.Event(), threading.Event(), threading.Barrier(2), apiproxy.ConnectionClosed.__init__

    def slowly(self, code, reason=""):  # both sides are about to say how it ended, and the reader is first
        try:
            meet.wait(0.15)
            if threading.current_thread() is not reader:
                told.wait(0.15)
        except threading.BrokenBarrierError:
            pass
        real(self, code, reason)

    def read():
        try:
            return outcome(ws.recv)
        finally:
            told.set()

    ws = dial(lambda conn: go.wait(10), close_timeout=0.05)
    monkeypatch.setattr(apiproxy.ConnectionClosed, "__init__", slowly)
    reader = background(read)
    eventually(lambda: ws._wire._waiting)
    go.set()
    ended = background(ws.abort) if other == "abort" else background(ws.close, 4001)
    assert ended.result() is None
    assert outcome(ws.recv) == outcome(ws.recv) == reader.result()


def test_a_reader_does_not_outlive_a_close_that_nobody_answers(dial):
    ws = dial(idle, close_timeout=0.1)
    reader = background(ws.recv)
    eventually(lambda: ws._wire._waiting)
    ws.close()
    assert isinstance(reader.result(), ConnectionClosed)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536])
def test_a_close_code_that_cannot_be_sent_is_refused_and_leaves_it_open(dial, code):
    seen = []
    ws = dial(lambda conn: (seen.append(conn.read_frame()), conn.wait_end()))
    with pytest.raises(ValueError):
        ws.close(code)
    ws.send("still open")
    eventually(lambda: seen)


def test_a_long_reason_is_cut_at_a_character(dial):
    seen = []
    ws = dial(lambda conn: seen.append(conn.read_frame()))
    ws.close(3000, "\u00e9" * 100)
    eventually(lambda: seen == [(CLOSE, (3000).to_bytes(2, "big") + "\u00e9".encode() * 61)])


@pytest.mark.parametrize("octets, code", [
    (b"\xff\xff", 1002), (frame(TEXT, b"\xff"), 1007), (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), 1009),
    (frame(CLOSE, b"x"), 1002), (closing(1006), 1002), (frame(CLOSE, b"\x03\xe8\xff"), 1007), (b"\x81\x81abcdx", 1002),
    (frame(TEXT, "x", rsv=4), 1002), (frame(3), 1002), (frame(PING, b"x" * 126), 1002), (frame(CONTINUATION, "x"), 1002)])
def test_a_broken_frame_comes_after_the_good_ones_and_is_answered_with_its_code(dial, octets, code):
    seen = []
    ws = dial(lambda conn: (conn.send(frame(TEXT, "good") + octets), seen.append(conn.read_frame())))
    assert ws.recv() == "good"
    with pytest.raises(apiproxy.ProtocolError) as caught:
        ws.recv()
    assert caught.value.code == code
    eventually(lambda: seen and seen[0][1][:2] == code.to_bytes(2, "big"))
    assert outcome(ws.recv)[0] == code


@both
@pytest.mark.parametrize("who", ["the reader", "a sender"])
def test_what_came_before_a_reset_is_read_although_nothing_can_be_sent(dial, tls, who):
    gone = threading.Event()

    def script(conn):
        conn.send(frame(TEXT, "before") + frame(PING, "1") + frame(PING, "2") + frame(TEXT, "last") + closing(1011, "why"))
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # all of it leaves now
        conn.reset()
        gone.set()

    ws = dial(script, tls)
    assert gone.wait(10)
    if who == "a sender":
        for _ in range(3):
            background(ws.send, "x").result()
    assert [ws.recv(), ws.recv()] == ["before", "last"]
    assert outcome(ws.recv) == (1011, "why")


# -- silence ---------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0.02])
def test_a_peer_that_is_gone_is_pinged_and_then_given_up(dial, timeout):  # F24
    seen = []
    ws = dial(lambda conn: (seen.append(conn.read_frame()), idle(conn)), ping_interval=0.1, ping_timeout=0.1)

    def read():
        for _ in range(200):
            try:
                return ws.recv(timeout)
            except TimeoutError:
                pass
        return None

    result = background(read).result(20)
    assert isinstance(result, ConnectionClosed) and result.code == 1006
    assert seen == [(PING, b"")]


@pytest.mark.parametrize("timeout", [None, 0.004])
def test_any_octet_is_a_sign_of_life(dial, timeout):
    octets = frame(TEXT, "x" * 50)

    def script(conn):
        for index in range(len(octets)):
            conn.send(octets[index:index + 1])
            conn.stopped.wait(0.02)
        conn.wait_end()

    ws = dial(script, ping_interval=0.25, ping_timeout=0.25)
    for _ in range(5000):
        try:
            assert ws.recv(timeout) == "x" * 50
            break
        except TimeoutError:
            pass
    else:
        pytest.fail("the message never came")


def test_a_time_out_of_the_system_is_an_end_not_a_time_out_of_ours(dial):
    ws = dial(swallow)

    def read(space):
        raise OSError(errno.ETIMEDOUT, "Connection timed out")  # keepalive, or unacknowledged octets

    ws._wire.read = read
    assert outcome(ws.recv)[0] == 1006


@pytest.mark.parametrize("timeout", [1e7, float("inf")])
def test_a_very_long_time_is_a_time(dial, timeout):
    ws = dial(lambda conn: (conn.read_frame(), conn.send(frame(TEXT, "hi")), conn.wait_end()), ping_interval=None, timeout=timeout)
    reader = background(ws.recv, timeout)
    eventually(lambda: ws._wire._waiting or not reader.is_alive())
    ws.send("x")
    assert reader.result() == "hi"


@pytest.mark.parametrize("name", ["Host", "upgrade", "Connection", "Sec-WebSocket-Key", "sec-websocket-protocol"])
def test_the_handshakes_own_headers_are_not_the_callers(serve, name):
    server = serve(hello)
    with pytest.raises(ValueError):
        connect(server.ws, headers={name: "x"})
    assert not server.count


# ------------------------------------------------------------------------------
# 7. Streams
# ------------------------------------------------------------------------------


def pod(name, version="1", uid=None, **more):
    """An object as a watch sends it; "a" at version "1" is "a1" in `text`."""
    return {"kind": "Pod", "apiVersion": "v1", **more,
            "metadata": {"name": name, "uid": uid or "u" + name, "resourceVersion": version, **more.get("metadata", {})}}


def pods(*items, version="10", **metadata):
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version, **metadata}, "items": list(items)}


def event(action, name, version="1", **more):
    return {"type": action, "object": pod(name, version, **more)}


def error(code=None, reason="", **more):
    return {"type": "ERROR", "object": {"kind": "Status", "reason": reason, **({"code": code} if code else {}), **more}}


def bookmark(version="15"):
    return {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": version}}}


def text(items):
    return " ".join(item["metadata"]["name"] + item["metadata"]["resourceVersion"] for item in items)


def query(request):
    return dict(urllib.parse.parse_qsl(request.path.partition("?")[2]))


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("apiproxy-")]


def hang(request, conn):
    conn.wait_end()
    return False


def eof(request, conn):
    return False


def reset(request, conn):
    conn.reset()
    return False


def cut(request, conn):
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + json.dumps(pods(pod("x"))).encode())
    return False


def pong(request, conn):
    """A peer that is dead but for its answers to pings."""
    while True:
        opcode, payload = conn.read_frame()
        conn.send(frame(10, payload) if opcode == 9 else b"")


def play(steps, request, conn):
    """A watch: a dict is an event, bytes go out as they are, 1000 and up is a close frame, below that the
    status of a refusal (with headers and a body behind it), the rest are scripts. Without an end it stays open."""
    if steps and isinstance(steps[0], int) and steps[0] < 1000:
        conn.reply(steps[0], steps[2] if len(steps) > 2 else b"", steps[1] if len(steps) > 1 else ())
        return False
    if hang not in steps:
        conn.upgrade(request)
    for step in steps:
        if callable(step):
            if step(request, conn) is False:
                return False
        else:
            conn.push(step) if isinstance(step, dict) else conn.send(
                frame(8, step.to_bytes(2, "big")) if isinstance(step, int) else step)
    return hang(request, conn)


class Api:
    """An API server of three scripts: answers to LISTs, to GETs of one object, and watches, in turn; the last stays.

    An answer is a dict, (status, body, headers) or script(request, conn).
    """

    def __init__(self, serve, lists=(), watches=((),), gets=(), tls=False):
        self.lists, self.watches, self.gets = list(lists or [pods(pod("a"))]), list(watches), list(gets)
        self.views, self.errors, self.times = [], [], []
        self.server = serve(self.answer, tls=tls)

    def answer(self, request, conn):
        self.times.append(time.monotonic())
        steps = self.watches if request.is_watch else self.gets if "/pods/" in request.path else self.lists
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if request.is_watch or callable(step):
            return play(step, request, conn) if request.is_watch else step(request, conn)
        conn.reply(*step if isinstance(step, tuple) else (200, step))

    def start(self, client, params=None, name=None, **settings):
        self.client = client(self.server, **settings)
        if name:
            self.cancel = self.client.stream_result("/api/v1/pods", name, self.view, self.error, params)
        else:
            self.cancel = self.client.stream_results("/api/v1/pods", self.view, self.error, params)
        return self

    def view(self, got):
        self.views.append(text(got) if isinstance(got, list) else (text([got]) + " " + got.get("actionType", "")).strip())

    def error(self, error, cancel):
        self.errors.append(error.status)

    def asked(self, watch, number=None):
        """The queries of all LISTs, or watches, so far; of one, as soon as it is there."""
        if number is not None:
            return eventually(lambda: self.asked(watch)[number - 1:number])[0]
        return [query(one) for one in list(self.server.requests) if one.is_watch == watch and "/pods/" not in one.path]


@pytest.fixture
def waits(monkeypatch):
    """Every wait that streams ask for, none of which takes time."""
    asked, real = [], apiproxy.Cancel.wait
    monkeypatch.setattr(apiproxy.Cancel, "wait", lambda self, seconds: asked.append(seconds) or real(self, min(seconds, 0.001)))
    return asked


REAL_TIMES = {name: getattr(apiproxy.Settings, name) for name in FAST}


def test_backoff_starts_near_nothing_and_doubles_to_its_cap():
    for _ in range(100):
        backoff = apiproxy.Backoff(0.8, 30.0)
        assert 0 <= backoff.next() <= 0.1
        for top in (0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0):
            assert top / 2 <= backoff.next() <= top
    for _ in range(5000):
        assert backoff.next() <= 30.0
    backoff.reset()
    assert backoff.next() <= 0.1


@pytest.mark.parametrize("gap", [0, 0.1, 1.0, 1.9, 3.0])
def test_rate_allows_20_requests_in_10_seconds_and_44_in_60(gap):
    now = [0.0]
    rate, times = apiproxy.Rate(12, 0.5, lambda: now[0]), []
    while now[0] < 200:
        now[0] += rate.take()
        times.append(now[0])
        now[0] += gap
    for window, most in ((10, 20), (60, 44)):
        assert max(sum(start <= time < start + window for time in times) for start in times) <= most


STREAM = "/api/v1/namespaces/default/pods/a/log"


def once(*steps):
    return lambda request, conn: play(steps, request, conn)


@pytest.mark.parametrize("args, goes_on", [
    ({}, True), ({"failCb": 1}, False), ({"failCb": 1, "reconnectOnFailure": True}, True), ({"reconnectOnFailure": False}, False)])
@pytest.mark.parametrize("steps", [[frame(1, "x"), 1000], [eof], [reset], [403], [frame(3, "?")]])
def test_stream_reconnects_by_default_if_there_is_no_fail_cb(serve, client, args, goes_on, steps):
    server, calls = serve(once(*steps)), []
    if args.get("failCb"):
        args = dict(args, failCb=lambda: calls.append("fail"))
    stream = client(server).stream(STREAM, lambda message: None, dict(args, connectCb=lambda: calls.append("connect")))
    if goes_on:
        eventually(lambda: len(server.requests) > 3)
    else:
        eventually(lambda: not threads())
        assert len(server.requests) == 1
    stream.cancel()
    round_ = ([] if steps[0] == 403 else ["connect"]) + (["fail"] if "failCb" in args else [])
    assert calls == (round_ * len(calls))[:len(calls)] and len(calls) >= len(round_)


@pytest.mark.parametrize("args, sent, got", [
    ({}, frame(1, "h\u00e9"), "h\u00e9"), ({}, frame(2, b"\x01\xff"), b"\x01\xff"), ({}, frame(1, ""), ""),
    ({"isJson": True}, frame(1, '{"a": 1}'), {"a": 1}), ({"isJson": True}, frame(2, b"[1]"), [1]), ({"isJSON": 1}, b"", TypeError)])
def test_stream_passes_str_bytes_or_parsed(serve, client, args, sent, got):
    server, seen = serve(once(sent)), []
    if got is TypeError:
        with pytest.raises(TypeError, match="isJson"):
            client(server).stream(STREAM, seen.append, args)
        return
    client(server).stream(STREAM, seen.append, args)
    eventually(lambda: seen)
    assert seen == [got]


@pytest.mark.parametrize("token, kubeconfig, option, authorization, protocols", [
    ("", "", False, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s"]),
    ("t?~>", "", False, "Bearer t?~>", ["base64.binary.k8s.io", "v4.k8s", "v5.k8s"]),
    ("t?~>", "", True, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s", "base64url.bearer.authorization.k8s.io.dD9-Pg"]),
    ("tt", "", True, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s", "base64url.bearer.authorization.k8s.io.dHQ"]),
    ("", "", True, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s"]),
    ("", "S0M=", False, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s", "base64url.headlamp.authorization.k8s.io.me"]),
    ("t", "S0M=", False, "Bearer t", ["base64.binary.k8s.io", "v4.k8s", "v5.k8s", "base64url.headlamp.authorization.k8s.io.me"]),
])
def test_a_handshake_carries_the_credentials_once(serve, client, token, kubeconfig, option, authorization, protocols):
    server = serve(once())
    one = client(server, token_protocol=option, user_id="me")
    one.set_token("dev", token)
    one._kubeconfigs.update({"dev": kubeconfig} if kubeconfig else {})
    stream = one.stream(STREAM, print, {"additionalProtocols": ["v4.k8s", "base64.binary.k8s.io", "v5.k8s"], "tty": True})
    request, = eventually(lambda: server.requests)
    assert request.headers.get("authorization") == authorization
    assert [line for line in request.lines if line.lower().startswith("sec-websocket-protocol:")] == [
        "Sec-WebSocket-Protocol: " + ", ".join(protocols)]
    assert request.headers["origin"] == server.url and request.path == "/clusters/dev" + STREAM
    assert (request.headers.get("kubeconfig"), request.headers.get("x-headlamp-user-id")) == (
        (kubeconfig, "me") if kubeconfig else (None, None))
    eventually(lambda: stream.get_socket()).protocol == protocols[0]


def test_a_stream_of_one_message_a_connection_is_no_storm(serve, client):
    times = []
    server = serve(lambda *args: times.append(time.monotonic()) or once(frame(1, "x"), 1000)(*args))
    client(server, burst=3, rate=50.0).stream(STREAM, lambda message: None)
    eventually(lambda: len(times) >= 20)
    assert times[19] - times[0] >= (20 - 3 - 2) / 50.0


# -- metrics


@pytest.mark.parametrize("answer, got", [({"items": [1]}, [1]), ({"items": []}, []), ({"cpu": 1}, {"cpu": 1}), ([2], [2])])
def test_metrics_passes_items_or_the_whole_answer_at_once(serve, client, answer, got):
    seen = []
    cancel = client(serve(lambda request, conn: conn.reply(200, answer)), metrics_period=1000.0).metrics("/m", seen.append)
    eventually(lambda: seen)
    cancel()
    assert seen == [got] and not threads()


def test_metrics_goes_on_after_errors_and_slows_down_while_they_last(serve, client, waits):
    answers = itertools.chain([(500, "no"), (200, "{"), (200, "<html>"), (401, "")] + [(503, "")] * 3, itertools.repeat((200, "{}")))
    errors, seen = [], []
    client(serve(lambda request, conn: conn.reply(*next(answers))), metrics_period=10.0).metrics(
        "/m", seen.append, lambda error: errors.append(error.status), "prod")
    eventually(lambda: len(seen) > 2)
    assert errors == [500, 200, 200, 401, 503, 503, 503]
    assert waits[:9] == [10, 20, 40, 60, 60, 60, 60, 10, 10]


# ------------------------------------------------------------------------------
# 8. Watches
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("events, changed, view", [
    ("+a1", "y", "a1"), ("+a1 +a1", "yn", "a1"), ("+a1 ~a1", "yn", "a1"), ("~a1", "y", "a1"), ("-a1", "n", ""),
    ("+a2 ~a1", "yn", "a2"), ("+a2 -a1", "yn", "a2"), ("+a10 ~a9", "yn", "a10"), ("+a9 ~a10", "yy", "a10"),
    ("+a1 +b2 ~a3", "yyy", "a3 b2"), ("+a1 +b2 -a3 +a4", "yyyy", "b2 a4"),
    ("+a1 -a1", "yy", ""), ("+a1 -a3 +a1 ~a2 -a3", "yynnn", ""),  # a replay raises nobody from the dead
    ("+a1 -a2 +a3 -a4 +a5", "yyyyy", "a5"),  # a selector left and entered again
    ("+a9007199254740993 ~a9007199254740992 ~a9007199254740994", "yny", "a9007199254740994"),
    ("+ax ~aw ~aw", "yyn", "aw"), ("+a1 ~ax", "yy", "ax"), ("+ax ~a1", "yy", "a1"), ("+ax -aw +av", "yyy", "av")])
@pytest.mark.parametrize("keyed", ["uid", "name"])
def test_a_collection_only_moves_forward(events, changed, view, keyed):
    collection, said = apiproxy.Collection(), ""
    for word in events.split():
        item = pod(word[1], word[2:])
        if keyed == "name":
            del item["metadata"]["uid"]
        said += "ny"[collection.apply({"+": "ADDED", "~": "MODIFIED", "-": "DELETED"}[word[0]], item)]
    assert (said, text(collection.items())) == (changed, view)


@pytest.mark.parametrize("before, after, differs, view", [
    ("", "", False, ""), ("a1", "a1", False, "a1"), ("a1 b1", "b1 a1", False, "a1 b1"), ("a1", "a2", True, "a2"),
    ("a2", "a1", True, "a1"), ("a1 b1 c1", "c2 d1 a1", True, "a1 c2 d1"), ("a1", "", True, ""), ("a1", "b1", True, "b1")])
def test_a_relist_replaces_everything_and_what_stayed_keeps_its_place(before, after, differs, view):
    collection = apiproxy.Collection()
    collection.replace([pod(*word) for word in before.split()])
    assert collection.replace([pod(*word) for word in after.split()]) is differs
    assert text(collection.items()) == view


@pytest.mark.parametrize("limit", [None, 1, 3, 50])
def test_a_collection_shows_what_a_plain_dict_would(limit):
    chance, collection, model = random.Random(8), apiproxy.Collection(limit), {}

    def view():
        arrived = list(model.values())
        return arrived if limit is None else sorted(arrived, key=apiproxy.newest_first, reverse=True)[:limit]

    for version in range(1, 2000):
        name, before = chance.choice("abcdefghijklmnopqrst"), view()
        item = pod(name, str(version), lastTimestamp=chance.choice((None, "2024-01-%02dT00:00:00Z" % chance.randrange(1, 9))))
        if chance.random() < 0.02:
            model = {key: one for key, one in model.items() if chance.random() < 0.5}
            collection.replace(chance.sample(list(model.values()), len(model)), str(version))
        elif chance.random() < 0.3:
            changed = collection.apply("DELETED", item)
            model.pop(name, None)
            assert changed == (view() != before)
        else:
            changed = collection.apply("MODIFIED", item)
            model[name] = item
            assert changed == (view() != before)
        assert collection.items() == view()


def test_a_relist_sees_other_contents_at_the_same_version():
    collection = apiproxy.Collection()
    collection.replace([pod("a")])
    collection.apply("MODIFIED", dict(pod("a", "2", data=1), actionType="MODIFIED"))
    assert not collection.replace([pod("a", "2", data=1)]) and collection.replace([pod("a", "2", data=2)])
    assert collection.items()[0]["data"] == 2


@pytest.mark.parametrize("seconds", ["", "x", "nan", -1])
def test_timeout_seconds_that_are_none_are_refused_at_once(client, serve, seconds):
    one = client(serve(lambda request, conn: conn.reply(200, pods())))
    with pytest.raises(ValueError):
        one.stream_results("/api/v1/pods", print, print, {"timeoutSeconds": seconds})


def test_a_relist_sees_another_object_at_the_same_version(serve, client):
    api = Api(serve, [pods(pod("a", data=2))], [[error(410)], []], gets=[pod("a", data=1)])
    seen = []
    client(api.server).stream_result("/api/v1/pods", "a", seen.append, print)
    eventually(lambda: [item["data"] for item in seen] == [1, 2])


@pytest.mark.parametrize("limit, expected", [(None, "a1 b1 c1 d1 e1 f1"), (1, "b1"), (3, "b1 d1 a1"), (9, "b1 d1 a1 c1 e1 f1")])
def test_limit_keeps_the_newest_and_puts_them_first(limit, expected):
    collection = apiproxy.Collection(limit)
    collection.replace([
        pod("a", metadata={"creationTimestamp": "2024-01-02T00:00:00Z"}),
        pod("b", metadata={"creationTimestamp": "2020-01-01T00:00:00Z"}, lastTimestamp="2024-01-03T00:00:00Z"),
        pod("c", metadata={"creationTimestamp": "2024-01-01T00:00:00Z"}, lastTimestamp=None),
        pod("d", metadata={"creationTimestamp": "2024-01-02T00:00:00.5Z"}), pod("e"),
        pod("f", metadata={"creationTimestamp": "zebra"})])
    assert text(collection.items()) == expected


ADDED = json.dumps(event("ADDED", "a"))


RUBBISH = [
    "{", "x", "null", "[]", "1", '"ADDED"', "{}", ADDED + "{", ADDED[:-1], ADDED + "]", "[%s]" % ADDED, ADDED.encode(), "[" * 100000] + [
    json.dumps(dict(event("ADDED", "a"), **change)) for change in (
        {"type": "CHANGED"}, {"type": None}, {"type": ["ADDED"]}, {"object": None}, {"object": []}, {"object": {}},
        {"object": {"metadata": None}}, {"object": {"metadata": {}}}, {"object": {"metadata": []}},
        {"object": {"metadata": {"resourceVersion": ""}}}, {"object": {"metadata": {"resourceVersion": 5}}})] + [
    json.dumps({"type": "ERROR", "object": None}), json.dumps({"type": "BOOKMARK", "object": {"metadata": {}}})]


@pytest.mark.parametrize("message", RUBBISH)
def test_parse_events_refuses_what_is_not_a_whole_event(message):
    with pytest.raises((ValueError, KeyError, TypeError, RecursionError)):
        apiproxy.parse_events(message)


# -- lists


def test_which_parameters_go_where(serve, client):
    params = {"labelSelector": "a=b", "fieldSelector": "c=d", "limit": 7, "resourceVersion": "3", "pretty": True, "none": None,
              "resourceVersionMatch": "NotOlderThan", "watch": "0", "allowWatchBookmarks": False, "sendInitialEvents": True,
              "timeoutSeconds": 33, "x": "y"}
    api = Api(serve, watches=[[error(410)], []]).start(client, params)
    both = {"labelSelector": "a=b", "fieldSelector": "c=d", "pretty": "true", "x": "y"}
    for number, version in ((1, {"resourceVersion": "3", "resourceVersionMatch": "NotOlderThan"}), (2, {})):
        assert api.asked(False, number) == {**both, "limit": "7", **version}
        assert api.asked(True, number) == {
            **both, "watch": "true", "allowWatchBookmarks": "false", "timeoutSeconds": "33", "resourceVersion": "10"}


def test_pages_are_followed_so_that_limit_keeps_the_newest(serve, client):
    ages = [pod(name, metadata={"creationTimestamp": "202%d-01-01T00:00:00Z" % age}) for name, age in zip("abcd", (1, 0, 3, 2))]
    api = Api(serve, [pods(*ages[:2], **{"continue": "x"}), pods(ages[2], version="11", **{"continue": "y"}), pods(ages[3], version="12")])
    api.start(client, {"limit": "2"})
    assert api.asked(True, 1)["resourceVersion"] == "10"
    assert (api.views, api.asked(False)) == (["c1 d1"], [{"limit": "2"}, {"continue": "x"}, {"continue": "y"}])


@pytest.mark.parametrize("answers, views, errors", [
    ([pods(pod("a"), **{"continue": "x"}), (410, pods(pod("z"), **{"continue": "z"})), pods(pod("b"))], ["b1"], []),
    ([pods(pod("a"), **{"continue": "x"})] * 2 + [pods(pod("b"))], ["b1"], [200]),
    ([pods(pod("a"), **{"continue": "x"}), (200, {"kind": "Status"}), pods(pod("b"))], ["b1"], [200]),
    ([pods(pod("a"), **{"continue": "x"}), cut, pods(pod("b"))], ["b1"], [502]),
    ([pods(pod("a"), **{"continue": "x"}), eof, pods(pod("b"))], ["a1 b1"], []),  # the connection was not kept: asked again
    ([dict(pods(), items=None)], [""], []), ([pods()], [""], []), ([(200, pods(pod("a"), pod("a", "2")))], ["a2"], [])])
def test_a_partial_list_is_never_shown(serve, client, answers, views, errors):
    api = Api(serve, answers).start(client)
    api.asked(True, 1)
    assert (api.views, api.errors) == (views, errors)
    assert {"continue": "z"} not in api.asked(False)


BAD_LISTS = [
    (200, b""), (200, b"{"), (200, b"<html>"), (200, b"\xff"), (200, []), (200, 5), (200, {}), (200, dict(pods(), kind="Status")),
    (200, dict(pods(), kind="Table")), (200, dict(pods(), metadata={})), (200, dict(pods(), metadata=None)), (200, dict(pods(), items=[5])),
    (200, dict(pods(), items=5)), (200, pods(None)), (200, pods({})), (200, pods(version="")), (200, pods(version=5)), (200, pod("a")),
    (200, pods(pod("a", uid={"x": 1}))), (302, b"", {"Location": "http://localhost:1/"}), (408, b""), (409, b""), (410, {"reason": "Expired"}),
    (418, b""), (429, b"slow", {"Retry-After": "0"}), (500, b"x" * 100), (502, b"<html>"), (503, b""),
    (504, {"kind": "Status", "reason": "Timeout"}), (200, b"{}", {"Content-Encoding": "gzip"}), eof, reset]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("bad", BAD_LISTS)
def test_a_list_that_fails_is_reported_and_tried_again(serve, client, bad, later):
    api = Api(serve, [pods(pod("a"))] * later + [bad, bad, pods(pod("b"))], [[error(410)]] * later + [[]]).start(client)
    eventually(lambda: len(api.views) > later)
    assert api.views == ["a1"] * later + ["b1"]
    assert len(api.errors) == (1 if later and callable(bad) else 2)  # the first comes on a kept connection: asked again
    assert set(api.errors) <= {bad[0] if isinstance(bad, tuple) else 502, 502}


@pytest.mark.parametrize("status", sorted(apiproxy.FINAL) + [422])
@pytest.mark.parametrize("start", [Api.start, lambda api, client: api.start(client, name="a")])
def test_a_refusal_of_the_first_list_ends_the_stream(serve, client, status, start):
    answers = [(503, b""), (status, {"kind": "Status", "code": status, "details": {"name": "a"}})]
    api = start(Api(serve, answers, gets=answers), client)
    eventually(lambda: not threads())
    assert api.errors == [503, status] and not api.views and len(api.server.requests) == 2
    assert {400, 401, 403, 404, 405, 406, 422} == apiproxy.FINAL


# -- watches

B2 = event("ADDED", "b", "12")
PART = frame(1, json.dumps(event("ADDED", "c", "19")))[:30]


@pytest.mark.parametrize("steps, lists, errors, version", [pytest.param(*case[1:], id=case[0]) for case in [
    # how the first watch goes; lists in all; errors; the version that the second watch asks for
    ("bookmark, 1000", [bookmark(), 1000], 1, [], "15"),
    ("old bookmark", [B2, bookmark("11"), 1000], 1, [], "12"), ("huge version", [bookmark("9" * 40), 1000], 1, [], "9" * 40),
    ("opaque version", [bookmark("x-1"), 1000], 1, [], "x-1"),
    ("410, close", [error(410, "Expired"), 1000], 2, [], "20"), ("410, open", [error(410)], 2, [], "20"),
    ("410, end", [error(410), eof], 2, [], "20"), ("410 after an event", [B2, error(410)], 2, [], "20"),
    ("Expired", [error(reason="Expired")], 2, [], "20"), ("Gone", [error(reason="Gone")], 2, [], "20"), ("HTTP 410", [410], 2, [], "20"),
    ("500", [error(500)], 1, [500], "10"), ("429", [error(429, details={"retryAfterSeconds": 0})], 1, [429], "10"),
    ("504", [error(504)], 1, [504], "10"), ("bare error", [{"type": "ERROR", "object": {}}], 1, [0], "10"),
    ("odd error", [error("x", details=[1], message={}, metadata=5)], 1, [0], "10"),
    *(("refused %d" % code, [code], 1, [code], "10") for code in (200, 302, 400, 401, 403, 404, 405, 406, 422, 429, 500, 503)),
    ("invalid JSON", [B2, frame(1, "{"), event("ADDED", "c", "13")], 2, [0], "20"),
    ("not UTF-8", [B2, frame(1, b'"\xff"'), event("ADDED", "c", "13")], 2, [0], "20"),
    ("binary", [B2, frame(2, ADDED), event("ADDED", "c", "13")], 2, [0], "20"),
    ("unknown type", [dict(B2, type="CHANGED")], 2, [0], "20"), ("object null", [dict(B2, object=None)], 2, [0], "20"),
    ("no metadata", [dict(B2, object={"kind": "Pod"})], 2, [0], "20"), ("no version", [dict(B2, object={"metadata": {}})], 2, [0], "20"),
    ("empty version", [event("ADDED", "c", "")], 2, [0], "20"), ("version no text", [event("ADDED", "c", 13)], 2, [0], "20"),
    ("uid no text", [event("ADDED", "c", "13", uid=[1])], 2, [0], "20"), ("deep", [frame(1, b"[" * 100000)], 2, [0], "20"),
    ("one of two bad", [frame(1, json.dumps(B2) + "{")], 2, [0], "20"), ("masked", [b"\x81\x81abcdx"], 2, [0], "20"),
    ("RSV", [frame(1, "x", rsv=4)], 2, [0], "20"), ("reserved opcode", [frame(3)], 2, [0], "20"), ("big ping", [frame(9, b"x" * 126)], 2, [0], "20"),
    ("no start", [frame(0, "x")], 2, [0], "20"), ("too big", [b"\x81\x7f" + (1 << 62).to_bytes(8, "big")], 2, [0], "20"),
    ("length of 2^63", [b"\x81\x7f" + (1 << 63).to_bytes(8, "big")], 2, [0], "20"),
]])
def test_how_a_watch_goes_on(serve, client, timeline, steps, lists, errors, version):
    api = Api(serve, [pods(pod("a")), pods(pod("a"), pod("b", "12"), version="20")], [steps, []])
    api.start(client, **dict(REAL_TIMES, short_watch=0.0))
    assert api.asked(True, 1)["resourceVersion"] == "10"
    assert api.asked(True, 2)["resourceVersion"] == version
    assert (len(api.asked(False)), api.errors) == (lists, errors) and timeline.skipped <= 0.1
    assert not [one for one in api.asked(False) if "resourceVersion" in one]
    assert api.views == ["a1"] + (["a1 b12"] if lists == 2 or B2 in steps else [])


def test_the_third_error_at_one_version_lists_again(serve, client):
    api = Api(serve, watches=[[error(500)], [503], [error(500)], []]).start(client)
    assert len(eventually(lambda: api.asked(True)[3:])) == 1
    assert (api.errors, len(api.asked(False)), api.views) == ([500, 503, 500], 2, ["a1"])


@pytest.mark.parametrize("end", [1000, eof])
def test_a_watch_that_ends_at_once_lists_again_but_ever_more_seldom(serve, client, clock, end):
    api = clock.watch(Api(serve, watches=[[end]]))
    api.start(client, **REAL_TIMES)
    eventually(lambda: clock.passed > 600)
    api.cancel()
    assert sum(is_watch and when < 60 for when, is_watch in clock.asked) <= 10 and clock.most(60, True, 60) <= 4
    assert api.views == ["a1"] and len(api.errors) >= 10 and abs(len(api.asked(False)) - len(api.asked(True))) <= 1


def test_a_watch_that_ends_at_once_because_of_its_version_goes_on_from_the_next(serve, client, clock):
    """As servers do that have lost a version, and do not say so (k8s#104171)."""
    def silent(request, conn):
        if query(request)["resourceVersion"] == "10":
            conn.send(frame(8, (1000).to_bytes(2, "big")))
            return hang(request, conn)

    api = Api(serve, [pods(pod("a")), AFTER], [[silent, event("ADDED", "c", "17")]]).start(client, **REAL_TIMES)
    eventually(lambda: api.views[-1:] == ["a14 c17"])
    assert api.views == ["a1", "a14", "a14 c17"] and len(api.asked(False)) == 2 and len(api.asked(True)) == 2
    assert api.errors == [0]


@pytest.mark.parametrize("peer, settings, errors", [
    (pong, dict(ping_interval=0.02, watch_grace=0.05), []), (lambda *args: hang(*args), dict(ping_interval=0.02, ping_timeout=0.05, watch_grace=99.0), [0])])
def test_a_dead_peer_is_found_though_it_may_answer_pings(serve, client, peer, settings, errors):
    api = Api(serve, watches=[[bookmark("11"), peer], [since(*CHANGES)]])
    api.start(client, {"timeoutSeconds": 0.1}, short_watch=0.0, **settings)
    assert api.asked(True, 2)["resourceVersion"] == "11"
    eventually(lambda: api.views == STATES)
    assert (api.errors[:1], len(api.asked(False))) == (errors, 1)


def test_a_relist_shows_only_a_difference_and_forgets_what_is_gone(serve, client):
    lists = [pods(pod("a"), pod("b"))] + [pods(pod("b"), pod("a"), version=str(version)) for version in (11, 12)] + [pods(pod("b"), version="13")]
    api = Api(serve, lists).start(client, resync=0.02, short_watch=0.0)
    eventually(lambda: len(api.asked(False)) > 5)
    assert api.views == ["a1 b1", "b1"] and not api.errors


@pytest.mark.parametrize("replayed", ["ADDED", "MODIFIED"])
def test_a_replay_after_a_relist_raises_nobody_from_the_dead(serve, client, replayed):
    api = Api(serve, [pods(pod("a", "8"), pod("b", "9")), pods(version="20")], [
        [event("DELETED", "b", "11"), error(410)], [event(replayed, "a", "8"), event(replayed, "b", "9"), event("ADDED", "c", "21")]])
    api.start(client)
    eventually(lambda: api.views[-1:] == ["c21"])
    assert api.views == ["a8 b9", "a8", "", "c21"]


def test_the_token_is_read_anew_at_every_attempt(serve, client):
    api, tokens = Api(serve, watches=[[401], [403], []]), map("t%d".__mod__, itertools.count())
    one = client(api.server)
    one.set_token("dev", lambda: next(tokens))
    one.stream_results("/api/v1/pods", api.view, api.error)
    api.asked(True, 3)
    sent = [request.headers["authorization"] for request in api.server.requests]
    assert len(set(sent)) == len(sent) == 4 and api.errors == [401, 403]


@pytest.mark.parametrize("value, least, most", [
    ("1", 1, 2), ("5", 5, 5), ("1000000000", 60, 60), ("rubbish", 0, 2), ("-5", 0, 2), ("nan", 0, 2),
    ("Fri, 31 Dec 2999 23:59:59 GMT", 60, 60)])
@pytest.mark.parametrize("where", ["list", "watch", "event"])
@pytest.mark.parametrize("body", [b"slow down", {"kind": "Status", "code": 429, "details": {"retryAfterSeconds": 0}}], ids=["text", "JSON"])
def test_retry_after_is_honoured_up_to_a_minute(serve, client, waits, where, value, least, most, body):
    answer = (429, body, {"Retry-After": value})
    steps = [error(429, details={"retryAfterSeconds": value})] if where == "event" else [429, {"Retry-After": value}, body]
    api = Api(serve, [answer, pods()] if where == "list" else [pods()], [steps, []] if where != "list" else [()]).start(client, **REAL_TIMES)
    api.asked(True, 1 if where == "list" else 2)
    assert api.errors == [429] and least <= max(waits) <= most


@pytest.mark.parametrize("steps", [[B2, eof], [eof], [error(410)], [bookmark(), error(500)]])
def test_requests_are_bounded_whatever_the_server_does(serve, client, steps):
    api = Api(serve, watches=[steps])
    api.start(client, burst=4, rate=100.0, retry_cap=0.01)
    eventually(lambda: len(api.times) >= 30)
    assert api.times[29] - api.times[0] >= (30 - 4 - 2) / 100.0


@pytest.mark.parametrize("failure", [OSError(24, "Too many open files"), MemoryError(), RuntimeError("can't start new thread")])
@pytest.mark.parametrize("start", ["stream_results", "stream_result", "stream", "metrics"])
def test_a_machine_at_its_limits_is_survived(serve, client, monkeypatch, start, failure):
    api = Api(serve, [pods(pod("a"))], [[B2]], [pod("a")])
    failures, real, seen, one = [failure] * 2, apiproxy.Wire.open, [], client(api.server)

    def open_(*args, **options):
        if failures:
            raise failures.pop()
        return real(*args, **options)

    monkeypatch.setattr(apiproxy.Wire, "open", open_)
    if start == "stream":
        api.watches = [[frame(1, "x")]]
        one.stream("/x", seen.append)
    elif start == "metrics":
        one.metrics("/x", seen.append)
    else:
        getattr(one, start)("/api/v1/pods", *["a"][:start == "stream_result"], seen.append, api.error)
    eventually(lambda: seen)


# -- one object


@pytest.mark.parametrize("watches, lists, states, errors", [
    ([[event("MODIFIED", "a", "2"), event("MODIFIED", "a", "1"), event("MODIFIED", "a", "2"), bookmark("3"), 1000], []], [],
     ["a1", "a2 MODIFIED"], []),
    ([[event("DELETED", "a", "2"), event("ADDED", "a", "1"), event("ADDED", "a", "3", uid="new"), 1000], []], [],
     ["a1", "a2 DELETED", "a3 ADDED"], []),
    ([[error(410)], []], [pods(pod("a"))], ["a1"], []), ([[410], []], [pods(pod("a", "4"))], ["a1", "a4"], []),
    ([[error(410)], [event("ADDED", "a", "1"), event("ADDED", "a", "21"), 1000], []], [pods(version="20")], ["a1", "a1 DELETED", "a21 ADDED"], []),
    ([[error(410)], [error(410)], []], [pods(version="20")], ["a1", "a1 DELETED"], []),
    ([[error(500), 1000], [event("MODIFIED", "a", "2")]], [], ["a1", "a2 MODIFIED"], [500]),
    ([[frame(1, "{")], []], [pods(pod("a", "2"))], ["a1", "a2"], [0])])
def test_stream_result_shows_every_state_of_one_object(serve, client, watches, lists, states, errors):
    api = Api(serve, lists, watches, gets=[pod("a")])
    api.start(client, {"fieldSelector": "spec.nodeName=n", "resourceVersion": "7", "limit": 1, "pretty": True}, "a")
    api.asked(True, len(watches))
    eventually(lambda: len(api.views) >= len(states))
    assert (api.views, api.errors) == (states, errors)
    assert api.server.requests[0].path == "/clusters/dev/api/v1/pods/a?pretty=true"
    selector = {"fieldSelector": "spec.nodeName=n,metadata.name=a", "pretty": "true"}
    assert [one for one in api.asked(False)] == [dict(selector, limit="1")] * (len(api.server.requests) - 1 - len(watches))
    assert {key: value for key, value in api.asked(True, 1).items() if "Selector" in key or key in ("resourceVersion", "limit")} == {
        "fieldSelector": selector["fieldSelector"], "resourceVersion": "1"}


def test_a_query_in_the_url_counts_as_parameters(serve, client):
    api = Api(serve, gets=[pod("a")])
    api.client = client(api.server)
    api.client.stream_result("/api/v1/pods?fieldSelector=b%3Dc&pretty=true", "a", api.view, api.error, {"x": "y"})
    assert api.asked(True, 1)["fieldSelector"] == "b=c,metadata.name=a"
    assert api.server.paths()[0] == "/clusters/dev/api/v1/pods/a?pretty=true&x=y"


@pytest.mark.parametrize("call, wrong", [
    (lambda one: one.stream_results("/x", None, print), TypeError), (lambda one: one.stream_results("/x", print, 1), TypeError),
    (lambda one: one.stream_results("/x y", print, print), ValueError), (lambda one: one.stream_result("/x", "a/b", print, print), ValueError),
    (lambda one: one.stream_results("/x", print, print, {"limit": "many"}), ValueError),
    (lambda one: one.stream_results("/x", print, print, {"timeoutSeconds": "long"}), ValueError),
    (lambda one: one.stream_results("/x", print, print, {"labelSelector": "\ud800"}), ValueError),
    (lambda one: one.stream_results_for_cluster("/x", {"cb": print, "errCb": print, "cluster": "a/b"}), ValueError),
    (lambda one: one.stream_results_for_cluster("/x", {"cb": print, "err_cb": print}), TypeError),
    (lambda one: one.stream("/x", print, {"additionalProtocols": ["a b"]}), ValueError), (lambda one: one.stream("/x", 5), TypeError),
    (lambda one: one.stream("/x", print, {"failCb": 5}), TypeError), (lambda one: one.metrics("/x", print, 5), TypeError),
    (lambda one: one.metrics("/x", None), TypeError), (lambda one: one.metrics("/x", print, None, "a/b"), ValueError)])
def test_wrong_arguments_raise_in_the_callers_thread(client, call, wrong):
    with pytest.raises(wrong):
        call(client("http://127.0.0.1:1"))
    assert not threads()


# -- callbacks


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_callback_raises_is_logged_and_the_stream_goes_on(serve, client, caplog, raised):
    def bad(*args):
        calls.append((threading.current_thread().name, len(args)))
        raise raised("oops")

    calls = []
    api = Api(serve, [(503, b""), pods(pod("a"))], [[error(500)], [event("ADDED", "b", "11")]])
    client(api.server).stream_results("/api/v1/pods", bad, bad)
    eventually(lambda: len(calls) == 4)
    assert calls == [("apiproxy-watch", count) for count in (2, 1, 2, 1)]
    eventually(lambda: caplog.text.count("a callback failed") == 4)
    assert caplog.text.count("%s: oops" % raised.__name__) == 4


# -- cancel


def sends(*pieces):
    return lambda request, conn: [conn.send(piece) for piece in pieces] and hang(request, conn)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
STAGES = {  # where a stream is stuck: (list, watch, settings)
    "list head": (hang, (), {}), "in list head": (sends(HEAD[:20]), (), {}), "list body": (sends(HEAD), (), {}),
    "in list body": (sends(HEAD, b"{"), (), {}), "chunk": (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx"), (), {}),
    "refusal": (sends(b"HTTP/1.1 403 no\r\nContent-Length: 9\r\n\r\n"), (), {}), "handshake": (None, [hang], {}),
    "first frame": (None, [], {}), "in a frame": (None, [PART], {}), "pace": (None, (), dict(burst=1, rate=0.001)),
    "retry": ((503, b"", {"Retry-After": "50"}), (), {}), "closing": (None, [1000], dict(close_timeout=60.0)),
    "look-up": "http://frozen.test", "connect": "http", "TLS": "https", "refused": "http"}


@pytest.mark.parametrize("stage, tls", [(stage, tls) for stage in STAGES for tls in (False, True) if not tls or isinstance(STAGES[stage], tuple)])
def test_cancel_ends_every_stage_within_a_second(serve, client, monkeypatch, trusting, stage, tls):
    thaw, real, sockets, url = threading.Event(), socket.getaddrinfo, [], None
    first, watch, settings = STAGES[stage] if isinstance(STAGES[stage], tuple) else (None, (), {})
    api = Api(serve, [first or pods(pod("a"))], [list(watch) + [lambda request, conn: thaw.wait(10) and False] * (stage == "closing")], tls=tls)
    settings = dict(settings, ssl_context=trusting) if tls else settings
    if stage == "look-up":
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *args: (
            real(host, port, *args) if len(args) > 3 else thaw.wait(10) and real("127.0.0.1", api.server.port, *args)))
        url = STAGES[stage]
    elif stage in ("connect", "TLS"):  # nobody accepts; for "connect" nothing fits into the queue either
        sockets = [socket.socket() for _ in range(5)]
        sockets[0].bind(("127.0.0.1", 0))
        sockets[0].listen(0 if stage == "connect" else 9)
        for sock in sockets[1:] if stage == "connect" else ():
            sock.setblocking(False)
            sock.connect_ex(sockets[0].getsockname())
        url = "%s://127.0.0.1:%d" % (STAGES[stage], sockets[0].getsockname()[1])
    elif stage == "refused":  # nobody listens, and it would be long until the next try
        sockets, settings = [socket.socket()], dict(retry_base=1e6, retry_cap=1e6)
        sockets[0].bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d" % sockets[0].getsockname()[1]
    api.start(lambda server, **settings: client(url or server, **settings), **settings)
    eventually(lambda: api.errors or [task for task in api.client.tasks if task._cancel._held and stage != "refused"] if url else
               api.errors or api.asked(watch != ()))
    seen, start = (list(api.views), list(api.errors)), time.monotonic()
    api.cancel()
    api.cancel()
    assert time.monotonic() - start < 1
    eventually(lambda: not [name for name in threads() if name != "apiproxy-lookup"], 2)
    kept = 1 if api.views or stage == "retry" else 0  # the connection of an answer that was read whole
    eventually(lambda: len(api.server.open) <= kept or stage == "closing", 2)
    count = len(api.server.requests)
    thaw.set()
    eventually(lambda: not threads())
    api.client.close()
    eventually(lambda: not api.server.open)
    assert (api.views, api.errors) == seen and len(api.server.requests) == count
    if stage == "refused":  # with no thread left nobody can come later
        sockets[0].listen(5)
        sockets[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            sockets[0].accept()
    for sock in sockets:
        sock.close()


def test_cancel_does_not_wait_for_a_token_that_another_stream_renews(serve, client):
    claims = json.dumps({"exp": 1, "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "s"}}})
    server, cancels = serve(hang), []
    one = client(server)
    one.set_token("dev", "x.%s.x" % base64.urlsafe_b64encode(claims.encode()).decode().rstrip("="))
    for _ in range(2):
        cancels.append(one.stream_results("/api/v1/pods", print, print))
        eventually(lambda: server.requests)
    cancels[1]()
    eventually(lambda: len(threads()) == 1, 2)


@pytest.mark.parametrize("where, how", [("cb", "cancel"), ("cb", "close"), ("err_cb", "cancel"), ("err_cb", "close")])
def test_cancel_inside_a_callback_makes_it_the_last(serve, client, where, how):
    two = frame(1, json.dumps(B2) * 2 + json.dumps(event("ADDED", "c", "13")))
    calls, one, took = [], client(Api(serve, watches=[[error(500)], [two, error(500)]]).server), []

    def end(cancel):
        start = time.monotonic()
        cancel() if how == "cancel" else one.close()
        took.append(time.monotonic() - start)

    def view(items):
        calls.append(text(items))
        if where == "cb" and len(items) == 2:
            end(eventually(lambda: stop)[0])  # the callback may be sooner than the return of stream_results

    stop = []
    stop.append(one.stream_results("/api/v1/pods", view, lambda error, own: (calls.append(error.status), where == "cb" or end(own))))
    eventually(lambda: not threads())
    assert calls == (["a1", 500, "a1 b12"] if where == "cb" else ["a1", 500]) and took[0] < 0.8


@pytest.mark.parametrize("holds", [True, False])
def test_cancel_waits_for_a_running_callback_but_a_second_at_most(serve, client, holds):
    """The callback wants a lock, which the thread that cancels may hold: neither may wait for ever."""
    lock, entered, calls, took = threading.Lock(), threading.Event(), [], []

    def view(items):
        entered.set()
        threading.Event().wait(0.1)
        with lock:
            calls.append(text(items))

    def timed():
        start = time.monotonic()
        cancel()
        took.append((time.monotonic() - start, len(calls)))

    cancel = client(Api(serve, watches=[[B2]]).server).stream_results("/api/v1/pods", view, print)
    others = [threading.Thread(target=timed) for _ in range(10)]
    if holds:
        lock.acquire()
    assert entered.wait(10)
    for thread in others:
        thread.start()
    timed()
    if holds:
        lock.release()
    for thread in others:
        thread.join()
    eventually(lambda: not threads())
    assert max(took)[0] < 1.5 and len(took) == 11 and calls == ["a1"]  # 0.9 and what a busy machine adds
    assert holds or {done for _, done in took} == {1}


def test_close_ends_all_streams_and_the_client_goes_on(serve, client):
    api = Api(serve, watches=[[]] * 9 + [[frame(1, "x")]], gets=[pod("a")])
    one, got = client(api.server), []
    for _ in range(3):
        one.stream_results("/api/v1/pods", api.view, api.error)
        one.stream_result("/api/v1/pods", "a", api.view, api.error)
        one.stream("/x", got.append)
        one.metrics("/api/v1/pods", got.append)
    eventually(lambda: not api.watches[1:])
    starting = apiproxy.Poller(print, print, None, one, one.tasks)
    one.tasks[starting] = None  # where `start` is before its thread runs
    one.close()
    del one.tasks[starting]
    assert not threads() and not one.tasks and not api.errors
    eventually(lambda: not api.server.open)
    one.stream("/x", got.append)
    eventually(lambda: got[-1:] == ["x"])


def test_a_late_cancel_does_not_close_a_connection_that_another_call_has_now(serve, client, monkeypatch):
    cancel, closes, closed = apiproxy.Cancel(), [], threading.Event()
    hold = cancel.hold

    def cancel_late(wire):  # set() has read what is held, but not closed it yet, when the answer is complete
        if wire is None:
            threading.Event.set(cancel)
            closes.append(cancel._held.close)
        hold(wire)

    def close_first(*args):
        closed.set() if closes[0]() is None else None
        return read_body(*args)

    def second(request, conn):
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        closed.wait(10)
        conn.send(b"{}")

    one, cancel.hold = client(Api(serve, [pods(), second]).server), cancel_late
    one.fetch("dev", "/api/v1/pods", None, cancel, False)
    read_body = one._handler._body
    monkeypatch.setattr(one._handler, "_body", close_first)
    assert one.fetch("dev", "/api/v1/pods", None, apiproxy.Cancel(), False) == {}


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_cancels_at_random_moments_leave_nothing(serve, client, trusting, caplog, monkeypatch, count):
    def busy(request, conn):
        for version in itertools.count(11):
            conn.push(event("ADDED", "b", str(version)))

    caplog.set_level("WARNING", "apiproxy")
    monkeypatch.undo()  # nobody searches thousands of errors for secrets: there are none here
    lists, watches = [pods(pod("a")), pods(pod("a"), **{"continue": "x"})] * 5000, [[busy], [B2, error(410)], [B2, PART, eof]] * 5000
    servers = [Api(serve, lists, watches, [pod("a")], tls=tls).server for tls in (False, True)]
    ones = [client(server, ssl_context=trusting, metrics_period=0.001) for server in servers]
    descriptors = lambda: len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: E731
    before, took, late, seeds = descriptors(), [], [], list(range(count))

    def worker():
        while seeds:
            chance, dead = random.Random(seeds.pop()), []
            one, late_if_dead = chance.choice(ones), lambda *args: late.extend(dead)
            cancel = chance.choice((
                lambda: one.stream_results("/api/v1/pods", late_if_dead, late_if_dead),
                lambda: one.stream_result("/api/v1/pods", "a", late_if_dead, late_if_dead),
                lambda: one.stream("/x", late_if_dead, {"connectCb": late_if_dead}).cancel,
                lambda: one.metrics("/api/v1/pods", late_if_dead, late_if_dead)))()
            threading.Event().wait(chance.choice((0, 0.01, 0.05, 0.2)) * chance.random())
            start = time.monotonic()
            cancel()
            took.append(time.monotonic() - start)
            dead.append(1)

    workers = [threading.Thread(target=worker) for _ in range(8)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    eventually(lambda: not threads(), 2)
    for one in ones:
        one.close()
    eventually(lambda: not any(server.open for server in servers) and descriptors() <= before)
    assert len(took) == count and max(took) < 1 and not late


# -- the whole


@pytest.mark.parametrize("message", [b"{", b"\xff", b"", b"[" * 100000 + b"]" * 100000])
def test_a_message_that_is_not_json_ends_the_connection_not_the_stream(serve, client, message):
    scripts = iter([once(frame(2, message))])
    server, seen = serve(lambda *args: next(scripts, once(frame(1, "1")))(*args)), []
    client(server).stream(STREAM, seen.append, {"isJson": True})
    eventually(lambda: seen == [1])


def test_get_socket_sends_while_connected_and_is_none_otherwise(serve, client):
    got = []

    def echo(request, conn):
        conn.upgrade(request)
        got.append(conn.read_frame())
        return False

    stream = client(serve(echo)).stream(STREAM, print, {"reconnectOnFailure": False})
    eventually(stream.get_socket).send(b"\x00ls")
    eventually(lambda: stream.get_socket() is None)
    eventually(lambda: not threads())
    assert got == [(2, b"\x00ls")] and stream.error.code == 1006


def test_a_refused_handshake_is_an_api_error_with_its_status_and_body(serve, client):
    server, failed = serve(lambda request, conn: conn.reply(403, {"kind": "Status", "message": "not you", "code": 403})), threading.Event()
    stream = client(server).stream(STREAM, print, {"failCb": failed.set})
    assert failed.wait(10)
    assert (stream.error.status, stream.error.message) == (403, "not you") and b"not you" in stream.error.body


def test_a_stream_backs_off_while_it_is_refused(serve, client, waits):
    server = serve(once(503))
    client(server, **REAL_TIMES).stream(STREAM, print)
    eventually(lambda: len(server.requests) > 8)
    waited = [one for one in list(waits) if one]
    assert waited[0] <= 0.1 and all(0.4 * 2 ** n <= one <= 30 for n, one in enumerate(waited[1:6]))


def test_metrics_polls_again_only_after_the_last_has_ended_and_been_passed_on(serve, client):
    busy, seen = [], []

    def answer(request, conn):
        busy.append(1)
        conn.reply(200, {"busy": len(busy)})

    def slow(item):
        seen.append((item["busy"], len(busy)))
        threading.Event().wait(0.02)
        busy.pop()

    client(serve(answer), metrics_period=0.001).metrics("/m", slow)
    eventually(lambda: len(seen) > 5)
    assert set(seen) == {(1, 1)}


def test_the_same_name_with_another_uid_is_another_object():
    collection = apiproxy.Collection()
    collection.replace([pod("a", "1", uid="1"), pod("b", "2")])
    assert collection.apply("DELETED", pod("a", "3", uid="1")) and collection.apply("ADDED", pod("a", "4", uid="2"))
    assert not collection.apply("MODIFIED", pod("a", "2", uid="1")) and text(collection.items()) == "b2 a4"
    for different in (dict(kind="Node"), dict(apiVersion="v2"), dict(metadata={"namespace": "x"})):
        one, other = pod("a", uid=" "), pod("a", uid=" ", **different)
        one["metadata"]["uid"] = other["metadata"]["uid"] = ""
        assert apiproxy.object_key(one) != apiproxy.object_key(other)


def test_tombstones_are_bounded():
    collection = apiproxy.Collection()
    for number in range(20000):
        collection.apply("DELETED", pod("a", str(number), uid=str(number)))
    assert len(collection._deleted) <= 10000 and not collection.apply("ADDED", pod("a", "1", uid="19999"))


@pytest.mark.parametrize("message, versions", [
    (ADDED, "1"), (ADDED + "\n", "1"), (json.dumps(json.loads(ADDED), indent=2), "1"), (ADDED * 2, "11"),
    (" %s\r\n\t%s\n" % (ADDED, json.dumps(bookmark(), indent=1)), "115"), ("", "bad"), ("  \n", "bad")])
def test_parse_events_takes_every_layout_of_json(message, versions):
    if versions == "bad":
        versions = ""
    assert "".join(one["object"]["metadata"]["resourceVersion"] for one in apiproxy.parse_events(message)) == versions


@pytest.mark.parametrize("text", [ADDED, ADDED + "\n", ADDED + " \t\r\n"])
def test_an_event_is_parsed_once(monkeypatch, text):  # API servers end it with a line feed; then it was parsed twice
    monkeypatch.setattr(apiproxy.json, "loads", lambda data: 1 / 0)
    assert apiproxy.parse_json(text)["type"] == "ADDED"


@pytest.mark.parametrize("status", sorted(apiproxy.FINAL) + [410, 500])
def test_after_the_first_list_nothing_ends_the_stream(serve, client, status):
    api = Api(serve, [pods(pod("a")), (status, b""), (status, b""), pods(pod("b"))], [[error(410)], []]).start(client)
    api.client.set_token("dev", "t")
    eventually(lambda: len(api.views) == 2)
    assert (api.views, api.errors, api.client.get_token("dev")) == (["a1", "b1"], [status] * 2, "t")


def test_items_get_kind_and_api_version_and_actiontype_if_watched(serve, client):
    bare, seen = pod("a"), []
    del bare["kind"], bare["apiVersion"]
    api = Api(serve, [pods(bare)], [[event("MODIFIED", "a", "11"), event("ADDED", "b", "12")]])
    client(api.server).stream_results("/api/v1/pods", seen.append, print)
    eventually(lambda: len(seen) == 3)
    facts = [[(item["kind"], item["apiVersion"], item.get("actionType")) for item in view] for view in seen]
    assert facts == [[("Pod", "v1", None)], [("Pod", "v1", "MODIFIED")], [("Pod", "v1", "MODIFIED"), ("Pod", "v1", "ADDED")]]


@pytest.mark.parametrize("pieces", [
    [frame(1, json.dumps(B2))[index:index + 1] for index in range(200)],
    [frame(1, json.dumps(B2)[:9], fin=False), frame(9, "?"), frame(0, fin=False), frame(0, json.dumps(B2)[9:])],
    [frame(1, json.dumps(B2) + "\n" + json.dumps(bookmark("11")))], [frame(1, json.dumps(bookmark("11")) + "\n" + json.dumps(B2))],
    [frame(1, json.dumps(B2, indent=3))],
    [frame(1, json.dumps(dict(event("ADDED", "b", "12", data="x" * 1500000))))]])
def test_events_are_applied_once_however_they_are_cut(serve, client, pieces):
    api = Api(serve, watches=[pieces + [bookmark("13"), 1000], []]).start(client)
    assert api.asked(True, 2)["resourceVersion"] == "13"
    assert (api.views, api.errors) == (["a1", "a1 b12"], [])


def test_a_refused_connection_keeps_the_version(serve, client):
    api = Api(serve, watches=[[B2, eof], [eof], [eof], [eof], [eof], []]).start(client, short_watch=0.0)
    assert api.asked(True, 6)["resourceVersion"] == "12" and len(api.asked(False)) == 1


def test_a_list_of_a_lower_version_is_accepted(serve, client):
    api = Api(serve, [pods(pod("a", "9")), pods(pod("a", "5"), version="6")], [[error(410)], [event("MODIFIED", "a", "7")]]).start(client)
    eventually(lambda: api.views == ["a9", "a5", "a7"])
    assert api.asked(True, 2)["resourceVersion"] == "6"


def test_lists_are_the_callers_and_objects_never_change(serve, client):
    seen, copies, kept = [], [], []

    def scribble(items):
        seen.append(list(items))
        copies.append(json.dumps(items))
        items[:] = [len(seen)]
        kept.append(items)

    api = Api(serve, [pods(pod("a"), pod("b"))], [[event("MODIFIED", "a", "11", data={"x": 1}), event("MODIFIED", "a", "12"), 1000], []])
    client(api.server, resync=0.05).stream_results("/api/v1/pods", scribble, print)
    eventually(lambda: len(seen) >= 3)
    assert [text(items) for items in seen[:3]] == ["a1 b1", "a11 b1", "a12 b1"] and "data" not in seen[2][0]
    assert [json.dumps(items) for items in seen] == copies
    assert kept == [[number + 1] for number in range(len(kept))]


def test_a_field_selector_keeps_a_name_whole(serve, client):
    api = Api(serve, gets=[pod("a,b=c\\d")]).start(client, name="a,b=c\\d")
    assert api.asked(True, 1)["fieldSelector"] == "metadata.name=a\\,b\\=c\\\\d"


def test_callbacks_come_in_order_one_at_a_time_and_slow_down_only_their_own(serve, client):
    events = [event("ADDED", "b", str(version)) for version in range(11, 40)]
    api, free, slow = Api(serve, watches=[events]), threading.Event(), []
    one = client(api.server)
    one.stream_results("/api/v1/pods", lambda items: (slow.append(text(items)), free.wait(10)), print)
    eventually(lambda: slow)
    one.stream_results("/api/v1/pods", api.view, print)
    eventually(lambda: len(api.views) == 30)
    assert len(slow) == 1 and api.views == ["a1"] + ["a1 b%d" % version for version in range(11, 40)]
    free.set()
    eventually(lambda: slow == api.views)


# To go into section 8, before `class Store` (the Clock and its fixtures may as well stand beside `waits`).

# -- time that passes at once


class Clock:
    """The module's time. What its streams wait for passes at once: hours of outage in a moment, at the real settings."""

    def __init__(self, monkeypatch):
        self.passed, self.waits, self.asked, self._ahead, self._due = 0.0, [], [], 0.0, []
        real, rate = apiproxy.Cancel.wait, apiproxy.Rate

        def wait(cancel, seconds):
            self.waits.append(seconds)
            if real(cancel, 0):
                return True
            end = self.passed + seconds
            while self._due and self._due[0][0] <= end:
                when, action = self._due.pop(0)
                self.jump(max(0, when - self.passed))
                action()
            self.jump(end - self.passed)
            return real(cancel, 0)

        monkeypatch.setattr(apiproxy.Cancel, "wait", wait)
        monkeypatch.setattr(apiproxy, "Rate", lambda burst, per_second: rate(burst, per_second, lambda: self.passed))
        monkeypatch.setattr(apiproxy, "time", types.SimpleNamespace(
            **{**vars(time), "monotonic": lambda: time.monotonic() + self._ahead}))

    def jump(self, seconds):
        """So many seconds later."""
        self.passed += seconds
        self._ahead += seconds

    def after(self, seconds, action):
        """Call `action()` when so many seconds have passed."""
        self._due.append((self.passed + seconds, action))
        self._due.sort(key=lambda one: one[0])

    def watch(self, api):
        """Note when each request comes: (time, whether it is a watch) in `asked`."""
        script = api.server.script

        def noted(request, conn):
            self.asked.append((self.passed, request.is_watch))
            return script(request, conn)

        api.server.script = noted
        return api

    def most(self, window, watches_only=False, since=0.0):
        """The most requests that came in any `window` seconds."""
        times = [when for when, is_watch in self.asked if when >= since and (is_watch or not watches_only)]
        return max(sum(start <= when < start + window for when in times) for start in times)

    def is_no_storm(self):
        return self.most(10) <= 20 and self.most(60) <= 44


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def through(client):
    """through(api, buffer=None) -> a FaultProxy in front of api's server, and `client` that goes through it."""
    opened = []

    def start(api, buffer=None):
        opened.append(FaultProxy(api.server.port, buffer=buffer))
        return opened[-1], lambda server, **settings: client("http://127.0.0.1:%d" % opened[-1].port, **settings)

    yield start
    for proxy in opened:
        proxy.close()


CHANGES = [B2, event("MODIFIED", "a", "14"), event("DELETED", "b", "16")]
STATES = ["a1", "a1 b12", "a14 b12", "a14"]  # what a watcher from "10" on has to see
AFTER = pods(pod("a", "14"), version="16")  # the list after all of it


def since(*events):
    """A step of a watch: those of `events` that came after the version asked for."""
    def step(request, conn):
        after = int(query(request)["resourceVersion"])
        conn.push(*[one for one in events if int(one["object"]["metadata"]["resourceVersion"]) > after])
    return step


# -- loss of connection


LATE = frame(1, json.dumps(CHANGES[1]))


@pytest.mark.parametrize("steps, lists, errors, over_tls", [pytest.param(*case[1:], id=case[0]) for case in [
    # how the first watch ends; lists in all; errors; errors over TLS
    ("1000", [B2, 1000], 1, [], []), ("1000, quiet", [1000], 1, [], []), ("1000 after a bookmark", [bookmark("11"), 1000], 1, [], []),
    ("1001", [B2, 1001], 1, [], []), ("1012", [B2, 1012], 1, [], []), ("no code", [B2, frame(8), eof], 1, [], []),
    ("1011", [B2, 1011], 1, [0], [0]), ("1013", [B2, 1013], 1, [0], [0]), ("4000", [B2, 4000], 1, [0], [0]),
    ("1006", [B2, frame(8, b"\x03\xee"), eof], 2, [0], [0]), ("one octet of code", [B2, frame(8, b"\x03"), eof], 2, [0], [0]),
    ("reason not UTF-8", [B2, frame(8, b"\x03\xe8\xff"), eof], 2, [0], [0]),
    ("end", [B2, eof], 1, [], [0]), ("end, quiet", [eof], 1, [], [0]),  # TLS without close_notify may have been cut by anybody
    ("end in a head", [B2, LATE[:1], eof], 1, [], [0]), ("end in a frame", [B2, LATE[:-1], eof], 1, [], [0]),
    ("end in a message", [B2, frame(1, json.dumps(CHANGES[1])[:20], fin=False), eof], 1, [], [0]),
    ("reset", [B2, reset], 1, [0], [0]), ("reset in a frame", [B2, LATE[:-1], reset], 1, [0], [0]),
]])
@both
def test_a_watch_that_is_lost_goes_on_at_once_where_it_was(serve, client, trusting, clock, tls, steps, lists, errors, over_tls):
    api = clock.watch(Api(serve, [pods(pod("a")), AFTER], [steps, [since(*CHANGES)]], tls=tls))
    api.start(client, ssl_context=trusting, **dict(REAL_TIMES, short_watch=0.0))
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.asked(True, 2)["resourceVersion"] == ("16" if lists == 2 else "12" if B2 in steps else "11" if bookmark("11") in steps else "10")
    assert api.views == (STATES if lists == 1 else ["a1", "a1 b12", "a14"])
    assert api.errors == (over_tls if tls else errors)
    assert (len(api.asked(False)), len(api.asked(True))) == (lists, 2) and clock.passed <= 0.5


@pytest.mark.parametrize("way", ["both", "down", "up"])
@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_a_peer_that_vanishes_is_given_up_and_nothing_is_missed(serve, client, through, caplog, way, fault):
    gone = threading.Event()
    api = Api(serve, watches=[[bookmark("11"), lambda *args: gone.wait(10), since(*CHANGES), pong], [since(*CHANGES)]])
    proxy, proxied = through(api)
    api.start(proxied, ping_interval=0.05, ping_timeout=0.1, short_watch=0.0)
    eventually(lambda: api.client.tasks and "= open" in caplog.text)  # not before its 101 has come
    getattr(proxy, fault)(way)
    gone.set()  # the server's changes go into the hole, unless only the other way is lost
    eventually(lambda: api.errors)
    proxy.clear()
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.views == STATES and api.errors[0] == 0
    default = apiproxy.Settings
    assert default.ping_interval + default.ping_timeout + default.retry_base / 8 <= 35
    assert default.watch_timeout[1] + default.watch_grace + default.retry_base / 8 <= 311  # for one that is dead but for its pongs


def test_a_peer_that_reads_nothing_is_given_up_although_no_ping_can_be_sent(serve, client, through):
    flood, sent, came = b"".join(frame(9, b"%125d" % number) for number in range(1000)), [], []

    def script(request, conn):
        blocked = time.monotonic() + 10
        while time.monotonic() < blocked and len(sent) < 40:
            conn.send(flood)
            sent.append(len(flood))
        try:
            while conn.more() is None:
                came.append(len(conn.buffer))
                conn.buffer = b""
        except (EOFError, OSError):
            return False

    api = Api(serve, watches=[[bookmark("11"), script], [since(*CHANGES)]])
    proxy, proxied = through(api, 4096)
    ready, answer = threading.Event(), api.server.script

    def stalled(request, conn):
        if request.is_watch and not ready.is_set():
            proxy.stall("up")
            ready.set()
        return answer(request, conn)

    api.server.script = stalled
    api.start(proxied, ping_interval=0.2, ping_timeout=0.2, short_watch=0.0)
    eventually(lambda: api.errors, 30)
    proxy.clear()
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.views == STATES and api.errors[0] == 0
    eventually(lambda: len(api.server.open) <= 2)
    assert sum(came) < sum(sent)  # not all the answers to pings fitted into the connection: it was full


def test_a_slow_link_in_the_midst_of_an_event_is_not_dead(serve, client, through):
    start = threading.Event()
    big = event("ADDED", "b", "12", data="x" * 12000)
    api = Api(serve, watches=[[lambda *args: start.wait(10), big, *CHANGES[1:]]])
    proxy, proxied = through(api)
    api.start(proxied, ping_interval=0.2, ping_timeout=0.6)
    api.asked(True, 1)
    proxy.throttle(10000, "down")  # the event takes longer than a silence may
    start.set()
    eventually(lambda: api.views == STATES)
    assert not api.errors and len(api.asked(True)) == 1


def test_pings_keep_open_what_a_middlebox_would_end(serve, client):
    def middlebox(request, conn):
        conn.sock.settimeout(0.6)  # of silence: socket.timeout is an OSError, which ends the connection
        for _ in range(6):
            assert conn.read_frame()[0] == PING
            conn.send(frame(PONG))
        conn.push(*CHANGES)
        conn.sock.settimeout(None)

    api = Api(serve, watches=[[middlebox]]).start(client, ping_interval=0.12)
    eventually(lambda: api.views == STATES)
    assert not api.errors and len(api.asked(True)) == 1 and apiproxy.Settings.ping_interval < 20


@pytest.mark.parametrize("steps", [[1000], [eof], [error(500)], [error(500), 1000], [error(410)], [reset], [503]], ids=short)
def test_a_server_that_flaps_is_asked_less_and_less_and_believed_when_it_is_well(serve, client, clock, steps):
    api = clock.watch(Api(serve, watches=[steps]))

    def heal():
        api.watches[:] = [[since(*CHANGES)]]

    clock.after(80, heal)
    api.start(client, **REAL_TIMES)
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.views == STATES and clock.passed <= 80 + 31
    assert 15 <= max(clock.waits) <= 30 and clock.is_no_storm() and clock.most(60, True) <= 10


@pytest.mark.parametrize("down", [0, 2, 60])
@pytest.mark.parametrize("gone", [[error(410)], [error(410, "Expired"), 1000], [410]], ids=["open", "closed", "HTTP"])
def test_a_server_that_comes_back_without_its_past_is_listed_once(serve, client, clock, through, down, gone):
    api = clock.watch(Api(serve, [pods(pod("a")), AFTER], [[B2], gone, [since(*CHANGES)]]))
    proxy, proxied = through(api)
    api.start(proxied, **REAL_TIMES)
    eventually(lambda: api.views == STATES[:2])
    if down:
        proxy.refuse()
        clock.after(down, proxy.accept)
    proxy.reset()
    eventually(lambda: api.views[-1:] == STATES[-1:] and api.asked(True)[2:])
    assert api.views == ["a1", "a1 b12", "a14"] and len(api.asked(False)) == 2
    assert set(api.errors[1:]) <= {502} and api.errors[0] == 0 and len(api.errors) <= 10  # none of it for the 410
    back = [when for when, _ in clock.asked if when >= down][0]
    assert clock.passed <= back + 2 and clock.passed <= down + 31 and clock.is_no_storm()


@pytest.mark.parametrize("steps, errors", [([error(410)], []), ([error(500)], [500]), ([1000], [])])
def test_a_watch_that_lasted_counts_as_healthy_however_quiet_it_was(serve, client, clock, steps, errors):
    grown = []
    lasting = [frame(9, "?"), lambda request, conn: conn.read_frame(), lambda *args: (clock.jump(40), grown.extend(clock.waits))] + steps
    api = Api(serve, [pods(pod("a")), AFTER], [[eof, hang]] * 6 + [lasting, [since(*CHANGES)]])
    api.start(client, **REAL_TIMES)
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.errors == [502] * 6 + errors and max(grown) > 5 and max(clock.waits[len(grown):], default=0) <= 0.1


def shown(items):
    return " ".join(sorted(text(items).split()))


def test_servers_that_lag_behind_each_other_never_turn_a_view_back(serve, client):
    events, states, state, chance = [], [(10, "")], {}, random.Random(61)
    for version in range(11, 91):  # objects come, change, go, and come again with another uid
        name = chance.choice("abc")
        known = state.get(name)
        action = "ADDED" if known is None else chance.choice(("MODIFIED", "MODIFIED", "DELETED"))
        uid = name + str(version) if known is None else known["object"]["metadata"]["uid"]
        events.append(event(action, name, str(version), metadata={"uid": uid}))
        state[name] = events[-1]
        if action == "DELETED":
            del state[name]
        states.append((version, shown(one["object"] for one in state.values())))
    seen, wrong, turn = [10], [], itertools.count()

    def fake(lag, request, conn):
        if not request.is_watch:
            return conn.reply(200, pods(version="10"))
        after, now = int(query(request)["resourceVersion"]), 14 + 4 * next(turn)  # restarts while the cluster goes on
        if lag and after > now - lag:
            after = now - 2 * lag  # what is news to its cache, it sends
        conn.upgrade(request)
        conn.push(*[one for one in events if after < int(one["object"]["metadata"]["resourceVersion"]) <= now - lag])
        return hang(request, conn) if now - lag >= 90 or after >= 90 else eof(request, conn)

    def balance(request, conn):  # one connection to the one, the next to the other
        conn.fake = getattr(conn, "fake", None) or next(fakes)
        return conn.fake(request, conn)

    fakes = itertools.cycle([functools.partial(fake, 0), functools.partial(fake, 6)])

    def view(items):
        found = [version for version, state in states if version >= seen[-1] and state == shown(items)]
        wrong.extend([] if found else [(seen[-1], shown(items))])
        seen.extend(found[:1])

    client(serve(balance), short_watch=0.0).stream_results("/api/v1/pods", view, lambda *args: None)
    eventually(lambda: seen[-1] == 90)
    assert not wrong


def test_a_hundred_drops_pass_no_limit(serve, client, clock, through):
    events = [event("ADDED", "p%d" % version, str(version)) for version in range(11, 111)]
    api = clock.watch(Api(serve))
    proxy, proxied = through(api)
    number = itertools.count(1)

    def drop(request, conn):
        count = next(number)
        since(*events[:count])(request, conn)
        if count <= 100:
            eventually(lambda: len(api.views) > count)  # each was a success, so no backoff helps
            proxy.reset()
            return False

    api.watches = [[drop]]
    api.start(proxied, **REAL_TIMES)
    eventually(lambda: next(number) > 100 and len(api.views) > 100, 30)
    assert len(api.views) == 101 and clock.is_no_storm()


# -- the server's state


@pytest.mark.parametrize("watch, fresh, views", [
    ([], [pods(pod("a", "50"), version="60")], ["a100", "a50", "a61"]),  # an older state, from which the watch then goes on
    ([event("ADDED", "c", "101")], [pods(pod("c", "101"), pod("d", "55"), version="60")], ["a100", "a100 c101", "c101 d55", "c101 d55 a61"]),
    ([event("ADDED", "c", "101")], [pods(pod("b", "99"), pod("c", "101"), version="102")], ["a100", "a100 c101", "c101 b99"]),
], ids=["rewound", "rewound and overtaken", "lost an event"])
def test_what_no_watch_tells_the_next_list_puts_right(serve, client, watch, fresh, views):
    api = Api(serve, [pods(pod("a", "100"), version="100")] + fresh, [watch, [since(event("MODIFIED", "a", "61"))]])
    api.start(client, resync=0.1, short_watch=0.0)
    eventually(lambda: api.views[-1:] == views[-1:])
    assert api.views == [view for view in views if view in api.views] and not api.errors
    assert not [one for one in api.asked(False) if "resourceVersion" in one] and apiproxy.Settings.resync * 1.2 <= 12 * 60


def test_a_kind_that_is_deleted_and_defined_again(serve, client, clock):
    no = (404, b"404 page not found\n")
    api = clock.watch(Api(serve, [pods(pod("a"), pod("b")), no, no, pods(pod("a", "30", uid="new"), version="30")], [
        [event("DELETED", "a", "11"), event("DELETED", "b", "12"), 1000], [404], [404], [404], [event("ADDED", "b", "31", uid="new b")]]))
    api.start(client, **REAL_TIMES)
    eventually(lambda: api.views[-1:] == ["a30 b31"])
    assert api.views == ["a1 b1", "b1", "", "a30", "a30 b31"] and api.errors == [404] * 5
    assert clock.is_no_storm() and clock.waits[-1] <= 31


@pytest.mark.parametrize("count", [3000, pytest.param(50000, marks=pytest.mark.slow)])
def test_a_slow_callback_is_hung_up_on_and_misses_nothing(serve, client, count):
    """The server hangs up, as the API server does, when its buffer for a slow client is full."""
    blocked, late, seen, watches = threading.Event(), [], [], []
    last = 10 + count

    def push(request, conn):
        watches.append(int(query(request)["resourceVersion"]))
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        for version in range(watches[-1] + 1, last + 1):
            data = frame(1, json.dumps(event("MODIFIED", "a", str(version), data="x" * 1000)))
            conn.sock.setblocking(False)
            while data and not late:
                try:
                    data = data[conn.sock.send(data):]
                except BlockingIOError:
                    if not select.select([], [conn.sock], [], 0.2)[1]:
                        late.append(version)
                        blocked.set()
            conn.sock.setblocking(True)
            conn.send(data)  # its rest
            if late and len(watches) == 1:
                conn.send(frame(8, (1000).to_bytes(2, "big")))
                return False

    def view(items):
        seen.append(int(items[0]["metadata"]["resourceVersion"]))
        if len(seen) == 2:
            blocked.wait(30)

    api = Api(serve, watches=[[push]])
    tracemalloc.start()
    try:
        client(api.server).stream_results("/api/v1/pods", view, api.error)
        eventually(lambda: seen[-1:] == [last], 60)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert seen == [1] + list(range(11, last + 1)) and not api.errors
    assert late and late[0] < last and watches == [10, late[0]] and len(api.asked(False)) == 1


@pytest.mark.parametrize("count", [0, 10000])
def test_an_empty_and_a_large_collection_are_delivered_once(serve, client, count):
    items = [pod("p%d." % number, "1") for number in range(count)]
    api, sizes = Api(serve, [pods(*items)], [[1000], [1000], [B2]]), []
    client(api.server, short_watch=1e9).stream_results("/api/v1/pods", lambda items: sizes.append(len(items)), api.error)
    eventually(lambda: len(sizes) == 2)
    assert sizes == [count, count + 1] and len(api.asked(False)) == 3


# -- the client's side


@pytest.mark.parametrize("kind", ["stream", "metrics"])
@pytest.mark.parametrize("where", ["cb", "connectCb", "failCb"])
def test_cancel_inside_a_callback_of_any_kind_makes_it_the_last(serve, client, kind, where):
    api, calls = Api(serve, [pods(pod("a")), (500, b"")], [[frame(1, "x") * 2, eof]]), []
    if (kind, where) == ("metrics", "connectCb"):
        return

    def note(which, *args):
        calls.append(which)
        if which == where:
            eventually(lambda: cancel)[0]()

    cancel, one = [], client(api.server)
    notes = [functools.partial(note, which) for which in ("cb", "connectCb", "failCb")]
    if kind == "stream":
        cancel.append(one.stream(STREAM, notes[0], {"connectCb": notes[1], "failCb": notes[2], "reconnectOnFailure": True}).cancel)
    else:
        cancel.append(one.metrics("/m", notes[0], notes[2]))
    eventually(lambda: not threads())
    whole = ["connectCb", "cb", "cb", "failCb"] if kind == "stream" else ["cb", "failCb"]
    assert calls == whole[:whole.index(where) + 1]


@pytest.mark.parametrize("count", [500, pytest.param(10000, marks=pytest.mark.slow)])
def test_no_callback_starts_after_cancel_has_returned(serve, client, caplog, monkeypatch, count):
    """Each cancel races an event; how long it waits is steered so that now the one wins, now the other."""
    caplog.set_level("WARNING", "apiproxy")
    monkeypatch.undo()  # nobody searches 10,000 errors for secrets: there are none here
    barrier, late, won, delay, chance = threading.Barrier(2), [], [0, 0], 1e-4, random.Random(count)

    def push(request, conn):
        barrier.wait(10)
        conn.push(B2)

    one = client(Api(serve, watches=[[push]]).server)
    for number in range(count):
        inside, over, seen = [], [], []

        def view(items, inside=inside, over=over, seen=seen):
            late.extend(over)
            inside.append(1)
            seen.append(len(items))
            time.sleep(0.0003 * (len(items) - 1))  # so that it may be running when cancel is called
            inside.pop()

        cancel = one.stream_results("/api/v1/pods", view, lambda *args, over=over: late.extend(over))
        barrier.wait(10)
        end = time.perf_counter() + delay * chance.uniform(0.5, 1.5)
        while time.perf_counter() < end:
            time.sleep(0)
        cancel()
        over.append(number)
        late.extend(inside)
        won[len(seen) - 1] += 1
        delay = min(0.01, delay * (1.1 if len(seen) == 1 else 0.9))
    eventually(lambda: not threads())
    assert not late and min(won) > count / 20, won


AT_EXIT = """\
import atexit, sys, threading, time, apiproxy
url, how = sys.argv[1:]
one = apiproxy.Client(url, cluster="dev", metrics_period=0.001)
seen, names, stuck = set(), ("list", "item", "stream", "metrics"), threading.Event()

def note(name):
    def call(*args):
        seen.add(name)
        if how == "inside a callback" and len(seen) == 4:
            stuck.wait(60)
    return call

def start():
    cancels.extend([
        one.stream_results("/api/v1/pods", note("list"), print), one.stream_result("/api/v1/pods", "a", note("item"), print),
        one.stream("/x", note("stream")).cancel, one.metrics("/api/v1/pods", note("metrics"), print)])

def stop():
    for cancel in cancels:
        cancel()

def stop_after_main():
    threading.main_thread().join()
    stop()

cancels = []
if how == "cancel in atexit":
    atexit.register(stop)
elif how == "close in atexit":
    atexit.register(one.close)
if how in ("started in a thread", "cancel in a thread"):
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
end = time.monotonic() + 20
while len(seen) < 4:
    assert time.monotonic() < end, seen
    time.sleep(0.005)
if how == "cancel in a thread":
    threading.Thread(target=stop_after_main).start()
sys.stdout.write("end\\n")
sys.stdout.flush()
if how == "sys.exit":
    sys.exit(0)
"""


@pytest.mark.parametrize("how", ["forgotten", "sys.exit", "inside a callback", "cancel in atexit", "close in atexit", "started in a thread",
                                 "cancel in a thread"])
def test_a_program_ends_at_once_while_streams_run(serve, how):
    def busy(request, conn):
        for version in itertools.count(11):
            conn.push(event("MODIFIED", "a", str(version)))

    server = Api(serve, watches=[[busy]], gets=[pod("a")]).server
    with subprocess.Popen([sys.executable, "-W", "error", "-X", "dev", "-c", AT_EXIT, server.url, how], cwd=HERE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
        try:
            assert program.stdout.readline() == b"end\n"
            start = time.monotonic()
            assert program.stdout.read() == b"" and program.wait(20) == 0
            assert time.monotonic() - start < (5 if how == "inside a callback" else 3)
        finally:
            program.kill()


@pytest.mark.parametrize("what", ["sockets", "threads", "memory for a message", "memory for JSON"])
def test_what_the_machine_has_not_got_is_reported_and_tried_again(serve, client, monkeypatch, what):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    api, scarce = Api(serve, [pods(pod("a")), AFTER], [[bookmark("11"), lambda *args: lack.wait(10), frame(9), B2, eof], [since(*CHANGES)]]), []
    lack, real = threading.Event(), {}

    def short_of(owner, name, error):
        real[name] = getattr(owner, name)

        def call(*args, **kwargs):
            if scarce and threading.current_thread().name == "apiproxy-watch":
                raise error
            return real[name](*args, **kwargs)
        monkeypatch.setattr(owner, name, call)

    if what == "threads":
        short_of(threading.Thread, "start", RuntimeError("can't start new thread"))
    elif what == "memory for a message":
        short_of(apiproxy.MessageReader, "next", MemoryError())
    elif what == "memory for JSON":  # of the event, then of lists
        short_of(apiproxy, "_loads", MemoryError())
    api.start(lambda server, **settings: client("http://localhost:%d" % server.port, **settings))  # a name, which a thread looks up
    eventually(lambda: api.views)
    api.asked(True, 1)
    try:
        scarce.append(1)
        if what == "sockets":
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        lack.set()
        eventually(lambda: len(api.errors) >= 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        scarce.clear()
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.views == [view for view in STATES if view in api.views]


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_that_is_set_changes_nothing(serve, client, monkeypatch, waits, hours):
    ahead, real = [0], time.time

    def set_clock(*args):
        ahead[0] += hours * 3600

    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    pinged = [lambda request, conn: (conn.read_frame(), conn.send(frame(10)))] * 2
    api = Api(serve, watches=[[set_clock] + pinged + [B2, eof], [set_clock, error(500)], [set_clock] + pinged + [since(*CHANGES)]])
    api.start(client, ping_interval=0.05, short_watch=0.0)
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.views == STATES and api.errors == [500] and max(waits) <= 0.1
    assert (len(api.asked(False)), len(api.asked(True))) == (1, 3)


def test_a_reader_that_was_suspended_asks_before_it_gives_up(dial, clock):
    jumped = threading.Event()

    def script(conn):
        assert conn.read_frame()[0] == PING and jumped.wait(10)
        conn.send(frame(PONG) + frame(TEXT, "here"))
        conn.wait_end()

    ws = dial(script, ping_interval=0.5, ping_timeout=20.0)
    reader = background(ws.recv)
    eventually(lambda: ws._wire._waiting)
    clock.jump(60)
    jumped.set()
    assert reader.result() == "here"


def test_a_message_for_which_there_is_no_memory_ends_the_connection_not_the_stream(serve, client, monkeypatch):
    lack, real, seen = [MemoryError()], apiproxy.MessageReader.next, []

    def next_message(self):
        if lack:
            raise lack.pop()
        return real(self)

    monkeypatch.setattr(apiproxy.MessageReader, "next", next_message)
    server = serve(once(frame(1, "x")))
    client(server).stream(STREAM, seen.append)
    eventually(lambda: seen == ["x"])
    assert len(server.requests) == 2


@pytest.mark.parametrize("past", [False, True], ids=["through the proxy", "past it"])
def test_a_list_and_its_watch_take_the_same_way(serve, client, trusting, proxies, past):
    api, proxy = Api(serve, watches=[[B2]], tls=True), serve(proxying())
    proxies(https_proxy=proxy.url, **(dict(no_proxy="127.0.0.1") if past else {}))
    api.start(client, ssl_context=trusting)
    eventually(lambda: api.views == STATES[:2])
    target = "CONNECT 127.0.0.1:%d" % api.server.port
    assert list(map(repr, proxy.requests)) == ([] if past else [target] * 2) and api.server.count == 2
    api.client.close()  # before the proxy ends


def test_after_a_restart_fifty_watchers_come_back_at_different_moments(serve, client, monkeypatch):
    first, later, real, down = {}, {}, apiproxy.Cancel.wait, threading.Event()

    def wait(cancel, seconds):
        if down.is_set() and seconds:
            (later if cancel in first else first).setdefault(cancel, seconds)
        return real(cancel, min(seconds, 0.001) if down.is_set() else seconds)

    def script(request, conn):
        if down.is_set():
            return False
        if request.is_watch:
            conn.upgrade(request)
            conn.push(B2)
            down.wait(30)
            return False
        conn.reply(200, pods(pod("a")))

    monkeypatch.setattr(apiproxy.Cancel, "wait", wait)
    seen, server = [], serve(script)
    one = client(server, **dict(REAL_TIMES, burst=10000, rate=10000.0))
    for _ in range(50):
        one.stream_results("/api/v1/pods", lambda items: seen.append(len(items)), lambda *args: None)
    eventually(lambda: seen.count(2) == 50)
    down.set()
    eventually(lambda: len(later) == 50, 30)
    one.close()
    for times, least, most in ((first, 0, 0.1), (later, 0.4, 0.8)):
        tenths = collections.Counter(int(10 * (seconds - least) / (most - least)) for seconds in times.values())
        assert least <= min(times.values()) and max(times.values()) <= most
        assert len(tenths) >= 6 and max(tenths.values()) <= 20


# To be appended to section 8 of test_apiproxy.py, after test_every_view_was_the_servers_...; needs .ci/faultproxy.py and edits.diff.
# Rows 47 to 84 of CATALOGUE have to be put into it. This comment goes away.


# ------------------------------------------------------------------------------
# 8. Watches: the fault catalogue, rows 1 to 46
#
# A server with a state fails in one way for a while, with the real settings: the
# waits of the stream pass at once, on a timeline of their own. Every view has to be
# a state that the server had, in order, the last one within the row's bound.
# ------------------------------------------------------------------------------

class Timeline:
    """The module's time. Waits pass at once on it; what is planned for meanwhile is done on the way."""

    def __init__(self):
        self.skipped, self.plans = 0.0, []

    def now(self):
        return time.monotonic() + self.skipped

    def at(self, seconds, action):
        """Plan action() for so many seconds from now."""
        self.plans = sorted(self.plans + [(self.now() + seconds, action)], key=lambda plan: plan[0])

    def skip(self, seconds):
        end = self.now() + seconds
        while self.plans and self.plans[0][0] <= end:
            when, action = self.plans.pop(0)
            self.skipped += max(0.0, when - self.now())
            action()
        self.skipped += max(0.0, end - self.now())


@pytest.fixture
def timeline(monkeypatch):
    timeline, wait, rate = Timeline(), apiproxy.Cancel.wait, apiproxy.Rate
    monkeypatch.setattr(apiproxy, "time", types.SimpleNamespace(**dict(vars(time), monotonic=timeline.now)))
    monkeypatch.setattr(apiproxy, "Rate", lambda burst, per_second: rate(burst, per_second, timeline.now))
    monkeypatch.setattr(apiproxy.Cancel, "wait", lambda self, seconds: wait(self, 0) or timeline.skip(seconds) or wait(self, 0))
    return timeline


class World:
    """An API server with a state, from which its answers follow, and one client whose views are compared with it.

    While it is broken, `place` says what a look-up of its name gives, and `fault`, script(request, conn), answers
    the requests that `where` names. Bounds are in seconds that the stream chose to wait: a busy machine adds none.
    """

    def __init__(self, serve, timeline, tls=False):
        self.timeline, self.lock = timeline, threading.RLock()
        self.version, self.state, self.log, self.history, self.last = 10, {}, [], {}, 0
        self.watchers, self.fault, self.where, self.place, self.undo, self.mended = [], None, "", None, None, None
        self.times, self.attempts, self.lists, self.resumed = [], [], 0, []  # of requests; of those that have to fail
        self.views, self.errors, self.wrong, self.shown = [], [], [], None
        self.server = serve(self.answer, tls=tls)
        self.port, self.url = self.server.port, self.server.url.replace("127.0.0.1", "localhost")
        self.change("a")

    # the server

    def look_up(self, flags):
        """Where the server is, for getaddrinfo; at once, as for a number, unless there is no such name."""
        found = self.place() if self.place else [at("127.0.0.1:%d" % self.port)]
        if not found and flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        if self.place:
            self.times.append(self.timeline.now())
            self.attempts.append(self.timeline.skipped)
        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found

    def answer(self, request, conn):
        self.times.append(self.timeline.now())
        if self.fault and ("watch" if request.is_watch else "list") in self.where:
            if self.place is None:  # else it was counted before: a client that gives up soon is gone before its request is read
                self.attempts.append(self.timeline.skipped)
            return self.fault(request, conn)
        return self.watch(request, conn) if request.is_watch else self.list(request, conn)

    def list(self, request, conn):
        if "resourceVersion" in query(request):
            return conn.reply(504, {"kind": "Status", "reason": "Timeout", "message": "Too large resource version: 10, current: 9"})
        with self.lock:
            self.lists += 1
            return conn.reply(200, pods(*self.state.values(), version=str(self.version)))

    def watch(self, request, conn):
        self.resumed.append(query(request)["resourceVersion"])
        with self.lock:
            conn.upgrade(request)
            conn.push(*[change for version, change in self.log if version > int(self.resumed[-1])])
            self.watchers.append(conn)
        conn.wait_end()
        return False

    def change(self, name, gone=False):
        """One object is made, changed or deleted; one that is made anew has a uid of its own."""
        with self.lock:
            known = self.state.pop(name, None)
            self.version += 1
            item = pod(name, str(self.version), known["metadata"]["uid"] if known else "%s-%d" % (name, self.version))
            if not gone:
                self.state[name] = item
            self.log.append((self.version, {"type": "DELETED" if gone else "MODIFIED" if known else "ADDED", "object": item}))
            self.history[self.version] = self.text(self.state.values())
            for conn in self.watchers:
                conn.push(self.log[-1][1])

    def broken(self, fault=None, where="", place=None, seconds=120.0, last=1000, undo=None):
        """From now on and for so many seconds; `last` as in end_watches."""
        with self.lock:
            self.fault, self.where, self.place, self.undo = fault, where, place, undo
            self.timeline.at(seconds, self.mend)
            self.end_watches(last)
            self.change("b")

    def end_watches(self, last=1000):
        """With an event or a close code; after a bookmark, as watches that went well."""
        end = frame(1, json.dumps(last)) if isinstance(last, dict) else frame(8, last.to_bytes(2, "big"))
        with self.lock:
            watchers, self.watchers = self.watchers, []
            for conn in watchers:
                conn.send(frame(1, json.dumps(bookmark(str(self.version)))) + end)

    def mend(self):
        with self.lock:
            self.fault = self.place = None
            if self.undo:
                self.undo()
            self.change("c")
            self.mended = self.timeline.skipped

    # the client

    def start(self, client, params=None, **settings):
        self.client = client(self.url, **dict(REAL_TIMES, **settings))
        self.client.set_token("dev", "SECRET-token")
        self.cancel = self.client.stream_results("/api/v1/pods", self.view, self.error, params)
        return self

    def ready(self):
        eventually(lambda: self.watchers and self.views and self.views[-1][1] == self.history[self.version])
        return self

    def text(self, items):
        return " ".join(sorted(text(items).split()))

    def view(self, items):
        shown = self.text(items)
        with self.lock:
            found = [version for version, state in self.history.items() if state == shown and version >= self.last]
            if not found or self.views and shown == self.views[-1][1]:
                self.wrong.append((shown, self.last))
            self.last = min(found, default=self.last)
            self.views.append((self.timeline.skipped, shown))
        self.shown = items

    def error(self, error, cancel):
        self.errors.append(error)

    def settled(self, bound=31.0, errors=None):
        """What every row requires; `errors` is their number, unless it is one for every attempt that had to fail."""
        eventually(lambda: self.mended is not None)
        self.ready()
        state = self.views[-1][1]
        assert not self.wrong
        assert next(when for when, shown in self.views if shown == state) - self.mended <= bound
        assert self.attempts and len(self.errors) == (len(self.attempts) if errors is None else errors)
        for window, most in ((10, 20), (60, 44)):
            assert max(sum(start <= when < start + window for when in self.times) for start in self.times) <= most
        seen, begun = (len(self.views), len(self.errors)), time.monotonic()
        self.cancel()
        assert time.monotonic() - begun < 1
        count = len(self.times)
        self.watchers = []
        self.change("d")
        eventually(lambda: not threads())
        self.client.close()
        eventually(lambda: not self.server.open)
        assert (len(self.views), len(self.errors), len(self.times)) == seen + (count,)

    def slows_down(self):
        """Attempts that have to fail come as the backoff has it: at most ten in the first minute, then up to 30 s apart."""
        gaps = [after - before for before, after in zip(self.attempts, self.attempts[1:])]
        assert len([when for when in self.attempts if when < self.attempts[0] + 60]) <= 10 and gaps[0] <= 0.8
        assert all(min(15, 0.4 * 2 ** number) <= gap <= 30.1 for number, gap in enumerate(gaps[1:])) and len(gaps) > 5


@pytest.fixture
def world(serve, timeline, monkeypatch):
    """world(tls=False) -> World, at localhost"""
    def make(tls=False):
        one, real = World(serve, timeline, tls), socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, family=0, kind=0, proto=0, flags=0: (
            one.look_up(flags) if host == "localhost" else real(host, port, family, kind, proto, flags)))
        return one

    return make


BAD_CERTIFICATES = {  # with the key of CERTIFICATE; the first is not trusted, the second of 2000, the third for another host
    "unknown": (
        "MIIBhTCCASqgAwIBAgIBATAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAd1bmtub3duMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjASMRAwDg"
        "YDVQQDDAd1bmtub3duMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETWb/BwW5zRFiGriD6x3aSLmdOAvbmG4JSFzxLJqxRGkxn6Occ+ytm7hyUhhXgr5M"
        "fWcQabP1WWZDpxUvSVz+HKNvMG0wGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFNGLc6P0jInpVNNkiG"
        "IH8io0wAoXMB8GA1UdIwQYMBaAFNGLc6P0jInpVNNkiGIH8io0wAoXMAoGCCqGSM49BAMCA0kAMEYCIQCLYXVe7hThlCYTjNK95Ojb0SBxTg4p3F2vwHDZ"
        "EJLydAIhAKyTSEq73WhBP1UkX4iOQYB4RvWTwPN2c/ElbmqwNWTG"),
    "expired": (
        "MIIBgzCCASigAwIBAgIBAjAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAdleHBpcmVkMB4XDTAwMDEwMTAwMDAwMFoXDTAxMDEwMTAwMDAwMFowEjEQMA4GA1"
        "UEAwwHZXhwaXJlZDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABE1m/wcFuc0RYhq4g+sd2ki5nTgL25huCUhc8SyasURpMZ+jnHPsrZu4clIYV4K+TH1n"
        "EGmz9VlmQ6cVL0lc/hyjbzBtMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAPBgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBTRi3Oj9IyJ6VTTZIhiB/"
        "IqNMAKFzAfBgNVHSMEGDAWgBTRi3Oj9IyJ6VTTZIhiB/IqNMAKFzAKBggqhkjOPQQDAgNJADBGAiEAoplQ/rr/0zWdzS/liz1QxNQ/uBc+SGrE2Hdi2pQy"
        "JDkCIQDwRJcTDXkyl5aR+WVDgX1RE3XPSUnzI1o2+ABfkCALDQ=="),
    "other": (
        "MIIBczCCARigAwIBAgIBAzAKBggqhkjOPQQDAjAQMQ4wDAYDVQQDDAVvdGhlcjAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowEDEOMAwGA1"
        "UEAwwFb3RoZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARNZv8HBbnNEWIauIPrHdpIuZ04C9uYbglIXPEsmrFEaTGfo5xz7K2buHJSGFeCvkx9ZxBp"
        "s/VZZkOnFS9JXP4co2EwXzAMBgNVHREEBTADggF4MA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFNGLc6P0jInpVNNkiGIH8io0wAoXMB8GA1UdIwQYMB"
        "aAFNGLc6P0jInpVNNkiGIH8io0wAoXMAoGCCqGSM49BAMCA0kAMEYCIQCsu4g9NinzvQ/mx2mJ3n13jGLsR2YVQvNj4XGb1dc61gIhANmnO6e86UBNAmbI"
        "pIa8ByradWqwVTMfA7PucNfVLIe8"),
}


def pem_of(name):
    return ssl.DER_cert_to_PEM_cert(base64.b64decode(BAD_CERTIFICATES[name]))


# -- A. Connecting


@pytest.mark.parametrize("begins", ["at the start", "later"])
@pytest.mark.parametrize("way", ["no name", "refused", "black hole", "mute TLS", "unknown", "expired", "other"])
def test_a_blocked_way_is_tried_ever_more_slowly_and_gone_on_from(
        world, client, listener, certificate, trusting, tmp_path, way, begins):
    tls = way == "mute TLS" or way in BAD_CERTIFICATES
    one, times = world(tls), dict(connect_timeout=0.02, list_idle=0.02) if way in ("black hole", "mute TLS") else {}

    def undo():
        asked.append(len(one.server.requests))
        proxy.accept()
        one.server.context and one.server.context.load_cert_chain(certificate)
        for name in times:
            setattr(one.client, name, getattr(apiproxy.Settings, name))

    def block():
        if way in BAD_CERTIFICATES:
            path = tmp_path / "bad.pem"
            path.write_text(CERTIFICATE.partition("-----BEGIN CERT")[0] + pem_of(way))
            one.server.context.load_cert_chain(str(path))
        elif way == "refused":
            proxy.refuse()
        asked.append(len(one.server.requests))
        one.broken(place=lambda: [] if way == "no name" else [at(dead or "127.0.0.1:%d" % one.port)], undo=undo)

    trusting.load_verify_locations(cadata=pem_of("expired") + pem_of("other"))
    asked, dead = [], listener(full=way == "black hole") if times else ""
    with FaultProxy(one.port) as proxy:
        one.port = proxy.port
        if begins == "later":
            one.start(client, ssl_context=trusting).ready()
            for name, value in times.items():
                setattr(one.client, name, value)
            block()
        else:
            block()
            one.start(client, ssl_context=trusting, **times)
        one.settled()
    one.slows_down()
    assert asked[0] == asked[1]  # nothing was asked in any other way meanwhile
    assert {error.status for error in one.errors} == {408 if times else 502}
    said = {"unknown": "self.signed", "expired": "expired", "other": "ostname mismatch"}.get(way, "")
    assert not said or all(re.search(said, error.__cause__.verify_message) for error in one.errors)
    assert one.lists == 1 and one.resumed == (["11", "11"] if begins == "later" else ["13"])
    assert apiproxy.Settings.connect_timeout == 10.0


def answers(head, body=b"", end=False):
    def script(request, conn):
        conn.send(b"HTTP/1.1 " + head.encode() + b"\r\n\r\n" + body)
        return not end and None
    return script


def endless(start, piece=b"x" * 65536):
    def script(request, conn):
        conn.send(start)
        try:
            for count in itertools.count():
                conn.send(piece)
        finally:
            script.sent = max(script.sent, count * len(piece))
    script.sent = 0
    return script


def upgrading(old, new):
    return lambda request, conn: conn.send(accepting(request).replace(old, new, 1))


def status_of(code, text=b"", **more):
    body = json.dumps(dict({"kind": "Status", "code": code, "message": "no"}, **more)).encode() if not text else text
    return answers("%d No\r\nContent-Length: %d" % (code, len(body)), body)


ANSWERS = {  # name: (script, status, the requests that it is for, after how many failures a list is due: 0 for never)
    "wrong accept": (upgrading(b"Accept: ", b"Accept: x"), 101, "watch", 3),
    "protocol": (upgrading(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: v9.k8s.io\r\n\r\n"), 101, "watch", 3),
    "extension": (upgrading(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), 101, "watch", 3),
    "200": (lambda request, conn: conn.reply(200, pod("a")), 200, "list watch", 3),
    "redirect": (None, 302, "list watch", 3),
    "400 empty": (answers("400 Bad Request", end=True), 400, "list watch", 3),
    "403 empty": (answers("403 Forbidden", end=True), 403, "list watch", 3),
    "404 JSON": (status_of(404), 404, "list watch", 3), "404 text": (status_of(404, b"404 page not found\n"), 404, "list watch", 3),
    "410": (status_of(410, reason="Expired"), None, "watch", 1),
    "500 HTML": (status_of(500, b"<html>"), 500, "list watch", 3),
    "503 empty": (answers("503 No\r\nContent-Length: 0"), 503, "list watch", 3),
    "502 gzip": (answers("502 No\r\nContent-Encoding: gzip\r\nContent-Length: 26", gzip.compress(b"<html>")), 502, "list watch", 3),
    "500 of 100 MB": (endless(b"HTTP/1.1 500 No\r\nContent-Length: 100000000\r\n\r\n"), 500, "list watch", 3),
    "endless header": (endless(b"HTTP/1.1 200 OK\r\nX: "), 502, "list watch", 0),
    "endless headers": (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), 502, "list watch", 0),
    **{"ERROR %s%s" % (code, " close" * len(last)): (once(error(code, "Odd"), *last), code, "watch", 3)
       for code in (500, 429, 504, 599) for last in ([], [1000])},
    "ERROR 410": (once(error(410)), None, "watch", 1), "ERROR 410 close": (once(error(410), 1000), None, "watch", 1),
    "ERROR bare": (once({"type": "ERROR", "object": {}}), 0, "watch", 3),
}


@pytest.mark.parametrize("name, where", [(name, where) for name in ANSWERS for where in ANSWERS[name][2].split()])
def test_a_server_that_answers_badly_is_reported_each_time_and_survived(serve, world, client, name, where):
    fault, status, _, relist = ANSWERS[name]
    elsewhere = serve(hello)
    one = world().start(client).ready()
    one.broken(fault or answers("302 Found\r\nLocation: %s/x\r\nContent-Length: 0" % elsewhere.url), where,
               last=error(410) if where == "list" else 1000)
    one.settled(errors=0 if status is None else None)
    one.slows_down()
    assert {one_error.status for one_error in one.errors} <= {status} and not elsewhere.count
    assert all(len(one_error.body) <= 1 << 20 for one_error in one.errors) and getattr(fault, "sent", 0) < 1e8
    lists = 1 + (where == "list") + (len(one.attempts) // relist if where == "watch" and relist else 0)
    assert one.lists == lists
    assert not [request for request in one.server.requests if not request.is_watch and "resourceVersion" in request.path]


@pytest.mark.parametrize("code", [400, 403])
def test_a_handshake_refused_without_a_word_gets_a_hint_of_the_usual_reasons(serve, code):
    with pytest.raises(apiproxy.HandshakeError, match="Origin.*subprotocol") as caught:
        connect(serve(answers("%d No" % code, end=True)).ws)
    assert caught.value.status == code


@pytest.mark.parametrize("pieces", [lambda wire: [wire[index:index + 1] for index in range(len(wire))], lambda wire: [wire]])
def test_events_that_come_with_a_101_are_applied(world, client, pieces):
    def glued(request, conn):
        one.mend()
        events = [change for version, change in one.log if version > int(query(request)["resourceVersion"])]
        for piece in pieces(accepting(request) + b"".join(frame(1, json.dumps(change)) for change in events) + frame(8, b"\x03\xe8")):
            conn.send(piece)

    one = world().start(client).ready()
    one.broken(glued, "watch")
    one.settled(bound=1, errors=0)
    assert one.resumed == ["11", "13"] and one.lists == 1


@pytest.mark.parametrize("code, text", [(401, b""), (403, b""), (404, b""), (404, b"404 page not found")])
def test_what_is_refused_for_a_while_is_there_again_after(world, client, code, text):
    tokens, one = map("SECRET-%d".__mod__, itertools.count()), world().start(client).ready()
    one.client.set_token("dev", lambda: next(tokens))
    old = {item["metadata"]["uid"] for item in one.shown}
    if code == 404:  # the type itself goes: its objects first
        one.change("a", gone=True)
        eventually(lambda: one.views[-1][1] == "")
    before, kept = len(one.views), []
    one.broken(status_of(code, text), "list watch", undo=lambda: (one.change("a"), kept.append(len(one.views))))
    one.settled()
    one.slows_down()
    sent = [request.headers["authorization"] for request in one.server.requests[2:]]
    assert len(set(sent)) == len(sent) > 8  # the token is read anew for every attempt
    assert kept == [before] and one.lists == 2 and {error.status for error in one.errors} == {code}
    assert code != 404 or not old & {item["metadata"]["uid"] for item in one.shown}


def test_where_nothing_can_be_watched_lists_follow_at_the_pace_of_the_retries(world, client):
    changes, one = [], world().start(client).ready()
    for seconds in (60, 180, 300):
        one.timeline.at(seconds, lambda: (one.change("a"), changes.append((one.timeline.skipped, one.history[one.version]))))
    one.broken(status_of(405), "watch", seconds=450)
    one.settled()
    one.slows_down()
    assert one.lists == 1 + len(one.attempts) // 3 and {error.status for error in one.errors} == {405}
    for when, state in changes:  # at three attempts, half a minute apart
        assert 0 <= next(shown for shown, text in one.views if text == state) - when <= 95


# -- B. LIST


@pytest.mark.parametrize("start", [b"", HEAD[:20], HEAD, HEAD + b'{"items": ['], ids=short)
def test_a_list_that_falls_silent_is_given_up(world, client, start):
    one = world().start(client, keep_alive=0.0).ready()
    one.client.list_idle = 0.02
    one.broken(sends(start), "list", lambda: [at("127.0.0.1:%d" % one.port)], last=error(410),
               undo=lambda: setattr(one.client, "list_idle", 30.0))
    one.settled()
    one.slows_down()
    assert {error.status for error in one.errors} == {408} and apiproxy.Settings.list_idle == 30.0


def test_a_list_that_comes_slowly_is_waited_for(world, client):
    def slowly(request, conn):
        body = json.dumps(pods(*one.state.values(), version=str(one.version))).encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for part in range(5):
            one.timeline.skip(20)
            conn.send(answer[part * len(answer) // 5:(part + 1) * len(answer) // 5])
        one.mend()

    one = world().start(client).ready()
    one.broken(slowly, "list", last=error(410), seconds=10000)
    one.settled(errors=0)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_list_cut_at_any_octet_is_not_shown(world, client, chunked):
    def cut_short(request, conn):
        body = json.dumps(pods(*one.state.values(), version=str(one.version)), indent=1).encode()
        body = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in body.splitlines(True)) + b"0\r\n\r\n" if chunked else body
        kind = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
        answer = b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (kind, body)
        if len(one.attempts) == 1:  # the last first: what fails later on a kept connection would be asked again
            cuts.extend(set(range(0, len(answer), 7)) | set(range(answer.index(b"\r\n\r\n"), len(answer) - len(body) + 9)) | set(
                range(len(answer) - 9, len(answer))))
            cuts.sort()
        conn.send(answer[:cuts.pop()])
        if not cuts:
            one.mend()
        return False

    cuts, one = [], world().start(client, resync=1e6).ready()
    one.broken(cut_short, "list", last=error(410), seconds=1e6)
    one.settled()
    assert len(one.attempts) > 60 and {error.status for error in one.errors} == {502} and len(one.views) == 2


def test_a_list_cut_by_the_network_is_not_shown(world, client):
    one = world()
    with FaultProxy(one.port) as proxy:
        one.port = proxy.port
        one.start(client).ready()
        one.broken(lambda request, conn: (proxy.cut(200, "down"), one.list(request, conn)), "list", last=error(410), undo=proxy.clear)
        one.settled()
    one.slows_down()
    assert {error.status for error in one.errors} == {502} and len(one.views) == 2


@pytest.mark.parametrize("items", [None, []])
def test_a_relist_of_nothing_empties_the_view(serve, client, items):
    api = Api(serve, [pods(pod("a")), dict(pods(), items=items)], [[error(410)], []]).start(client)
    api.asked(True, 2)
    assert (api.views, api.errors) == (["a1", ""], [])


@pytest.mark.parametrize("tokens", ["x", "xy"])
def test_a_list_that_never_gets_on_is_given_up_and_tried_again(world, client, tokens):
    def page(request, conn):
        token = query(request).get("continue")
        begun.append(token is None)
        conn.reply(200, pods(pod("z"), **{"continue": tokens[(tokens.find(token or tokens[-1]) + 1) % len(tokens)]}))

    begun, one = [], world().start(client).ready()
    one.broken(page, "list", last=error(410))
    eventually(lambda: one.mended)
    one.settled(errors=sum(begun))
    assert sum(begun) * (len(tokens) + 1) == len(begun) == len(one.attempts)


def test_changes_between_pages_and_between_list_and_watch_are_neither_lost_nor_doubled(world, client):
    def paged(request, conn):
        with one.lock:
            if "continue" not in query(request):
                kept[:] = [str(one.version), list(one.state.values())]
                for name, gone in (("a", True), ("c", False), ("d", True), ("e", False), ("f", False), ("a", False)):
                    one.change(name, gone)
                return conn.reply(200, pods(*kept[1][:2], version=kept[0], **{"continue": "t"}))
            for name, gone in (("a", False), ("b", True), ("b", False), ("e", True)):
                one.change(name, gone)
            conn.reply(200, pods(*kept[1][2:], version=str(one.version)))
            one.change("d")

    kept, one = [], world()
    for name in "bcd":
        one.change(name)
    one.fault, one.where = paged, "list"
    one.start(client).ready()
    assert not one.wrong and not one.errors and one.resumed == kept[:1] and len(one.views) > 5


@pytest.mark.parametrize("uid", [None, "", "same"])
def test_objects_without_a_uid_of_their_own_are_told_apart_where_that_can_be(serve, client, uid):
    def make(name, version, space):
        made = pod(name, version, metadata={"namespace": space, "uid": uid and uid + space + name})
        if uid is None:
            del made["metadata"]["uid"]
        return made

    items = [make("a", "1", "x"), make("a", "2", "y"), make("b", "3", "x")]
    api = Api(serve, [pods(*items, items[0])], [[{"type": action, "object": make("a", version, space)} for action, version, space in (
        ("MODIFIED", "11", "y"), ("DELETED", "12", "x"), ("ADDED", "13", "x"), ("ADDED", "14", "z"))] + [1000], []])
    api.start(client)
    api.asked(True, 2)
    assert (api.views, api.errors) == (["a1 a2 b3", "a1 a11 b3", "a11 b3", "a11 b3 a13", "a11 b3 a13 a14"], [])


# -- C. Stream content


def test_an_object_deleted_and_made_anew_a_hundred_times_is_there_once(world, client):
    one = world().start(client).ready()
    for number in range(100):
        one.change("a", gone=True)
        one.change("a")
        if number % 25 == 12:
            one.end_watches()
    one.ready()
    assert not one.wrong and not one.errors and one.lists == 1 and len(one.shown) == 1


@pytest.mark.parametrize("keyed", ["uid", "name"])
@pytest.mark.parametrize("watches, views", [
    ("+b11 -b12 +b13 -b14 +b15", "a1|a1 b11|a1|a1 b13|a1|a1 b15"),  # a selector left and entered again
    ("+b11 +b11 ~b11", "a1|a1 b11"), ("~a12 ~a11 -a11 +a12", "a1|a12"), ("~b11 -c12 -d13 +d14", "a1|a1 b11|a1 b11 d14"),
    ("-a11 +a10 ~a9 +a1", "a1|"),
    ("+b11 -b12 ~a13/+b11 -b12 ~a13 +b14", "a1|a1 b11|a1|a13|a13 b14"), ("~a11 ~a12/+a1 ~a11 ~a12 ~a13", "a1|a11|a12|a13"),
    ("-a11 +b12/+a1 -a11 +b12/~b11 +a10/+a14", "a1||b12|b12 a14"),
    ("+b9007199254740993 ~b9007199254740992 ~b9007199254740994", "a1|a1 b9007199254740993|a1 b9007199254740994"),
    ("~a99999999999999999999998/~a99999999999999999999997 ~a99999999999999999999999",
     "a1|a99999999999999999999998|a99999999999999999999999"),
    ("~ax-2 ~ax-1/~ax-3", "a1|ax-2|ax-1|ax-3"), ("-ax +ay", "a1||ay"), ("~a1.5 ~a1e1", "a1|a1.5|a1e1")])
def test_a_watch_only_moves_forward_and_goes_on_from_the_exact_version(serve, client, watches, views, keyed):
    def events(words):
        return [{"type": {"+": "ADDED", "~": "MODIFIED", "-": "DELETED"}[word[0]],
                 "object": pod(word[1], word[2:], metadata={"uid": ""} if keyed == "name" else {})} for word in words.split()]

    scripts = [events(words) + [1000] for words in watches.split("/")] + [[]]
    api = Api(serve, [pods(*[pod("a", metadata={"uid": ""} if keyed == "name" else {})], version="8")], scripts).start(client)
    version = api.asked(True, len(scripts))["resourceVersion"]
    assert (api.views, api.errors, len(api.asked(False))) == (views.split("|"), [], 1)
    words = [word[2:] for word in re.split("[ /]", watches)]
    assert version == (max(words, key=int) if all(word.isdecimal() for word in words) else words[-1])


@pytest.mark.parametrize("start, piece", [
    (frame(1, "{", fin=False), frame(0, b"x" * 65000, fin=False)), (b"\x81\x7f" + (1 << 40).to_bytes(8, "big"), b"x" * 65000),
    (b"\x81\x7f" + (1 << 63).to_bytes(8, "big"), b"x" * 65000), (frame(1, b"x" * (2 << 20)), b"x" * 65000)], ids=short)
def test_a_message_beyond_the_limit_is_no_event_and_fills_no_memory(world, client, start, piece):
    fault = endless(start, piece)
    one = world().start(client, max_message=1 << 20, close_timeout=0.001).ready()
    one.broken(lambda request, conn: conn.upgrade(request) or fault(request, conn), "watch")
    one.settled()
    assert apiproxy.Settings.max_message == 64 << 20 and 0 < fault.sent < 1e8 and one.lists == 1 + len(one.attempts)


@pytest.mark.slow
def test_an_event_of_33_mb_is_applied(serve, client):
    big = frame(1, json.dumps(dict(event("ADDED", "b", "12", data="x" * 33000000))))
    api = Api(serve, watches=[[big, bookmark("13"), 1000], []]).start(client)
    assert api.asked(True, 2)["resourceVersion"] == "13" and (api.views, api.errors) == (["a1", "a1 b12"], [])


# -- the table

CATALOGUE = {  # row: its test, or tests; or "not done: " and why
    1: "test_a_blocked_way_is_tried_ever_more_slowly_and_gone_on_from",
    2: "test_a_blocked_way_is_tried_ever_more_slowly_and_gone_on_from",
    3: ("test_a_blocked_way_is_tried_ever_more_slowly_and_gone_on_from", "test_cancel_ends_every_stage_within_a_second"),
    4: ("test_a_blocked_way_is_tried_ever_more_slowly_and_gone_on_from", "test_cancel_ends_every_stage_within_a_second"),
    5: "test_a_blocked_way_is_tried_ever_more_slowly_and_gone_on_from",
    6: ("test_a_server_that_answers_badly_is_reported_each_time_and_survived", "test_a_wrong_answer_is_refused_and_the_socket_closed"),
    7: ("test_a_server_that_answers_badly_is_reported_each_time_and_survived", "test_a_wrong_answer_is_refused_and_the_socket_closed"),
    8: "test_events_that_come_with_a_101_are_applied",
    9: "test_a_server_that_answers_badly_is_reported_each_time_and_survived",
    10: "test_a_server_that_answers_badly_is_reported_each_time_and_survived",
    11: ("test_a_server_that_answers_badly_is_reported_each_time_and_survived",
         "test_a_handshake_refused_without_a_word_gets_a_hint_of_the_usual_reasons"),
    12: "test_what_is_refused_for_a_while_is_there_again_after",
    13: "test_what_is_refused_for_a_while_is_there_again_after",
    14: "test_what_is_refused_for_a_while_is_there_again_after",
    15: "test_where_nothing_can_be_watched_lists_follow_at_the_pace_of_the_retries",
    16: ("test_how_a_watch_goes_on", "test_a_server_that_answers_badly_is_reported_each_time_and_survived"),
    17: "test_retry_after_is_honoured_up_to_a_minute",
    18: ("test_a_server_that_answers_badly_is_reported_each_time_and_survived", "test_of_a_large_error_the_first_mib_is_kept"),
    19: ("test_a_server_that_answers_badly_is_reported_each_time_and_survived", "test_how_a_watch_goes_on"),
    20: "test_which_parameters_go_where",  # a WatchList is never asked for
    21: ("test_a_server_that_answers_badly_is_reported_each_time_and_survived", "test_an_endless_answer_is_given_up"),
    22: ("test_a_list_that_falls_silent_is_given_up", "test_a_list_that_comes_slowly_is_waited_for",
         "test_cancel_ends_every_stage_within_a_second"),
    23: ("test_a_list_cut_at_any_octet_is_not_shown", "test_a_list_cut_by_the_network_is_not_shown"),
    24: "test_a_list_that_fails_is_reported_and_tried_again",
    25: ("test_a_relist_of_nothing_empties_the_view", "test_a_partial_list_is_never_shown"),
    26: "test_a_partial_list_is_never_shown",
    27: "test_a_list_that_never_gets_on_is_given_up_and_tried_again",
    28: "test_changes_between_pages_and_between_list_and_watch_are_neither_lost_nor_doubled",
    29: "test_objects_without_a_uid_of_their_own_are_told_apart_where_that_can_be",
    30: "test_items_get_kind_and_api_version_and_actiontype_if_watched",
    31: "test_an_object_deleted_and_made_anew_a_hundred_times_is_there_once",
    32: "test_a_watch_only_moves_forward_and_goes_on_from_the_exact_version",
    33: "test_how_a_watch_goes_on",
    34: "test_how_a_watch_goes_on",
    35: ("test_how_a_watch_goes_on", "test_a_server_that_answers_badly_is_reported_each_time_and_survived"),
    36: "test_a_server_that_answers_badly_is_reported_each_time_and_survived",
    37: "test_how_a_watch_goes_on",
    38: "test_how_a_watch_goes_on",
    39: "test_how_a_watch_goes_on",
    40: "test_events_are_applied_once_however_they_are_cut",
    41: ("test_events_are_applied_once_however_they_are_cut", "test_a_ping_inside_a_message_is_answered_at_once"),
    42: ("test_a_message_beyond_the_limit_is_no_event_and_fills_no_memory", "test_events_are_applied_once_however_they_are_cut",
         "test_an_event_of_33_mb_is_applied", "test_a_hundred_thousand_fragments_stay_small"),
    43: ("test_how_a_watch_goes_on", "test_a_broken_frame_comes_after_the_good_ones_and_is_answered_with_its_code"),
    44: "test_a_watch_only_moves_forward_and_goes_on_from_the_exact_version",
    45: ("test_a_watch_only_moves_forward_and_goes_on_from_the_exact_version",
         "test_a_replay_after_a_relist_raises_nobody_from_the_dead"),
    46: "test_a_watch_only_moves_forward_and_goes_on_from_the_exact_version",
    # D. Loss of connection
    47: "test_a_watch_that_is_lost_goes_on_at_once_where_it_was",
    48: ("test_a_watch_that_ends_at_once_lists_again_but_ever_more_seldom",
         "test_a_watch_that_ends_at_once_because_of_its_version_goes_on_from_the_next"),
    49: "test_a_watch_that_is_lost_goes_on_at_once_where_it_was",
    50: "test_a_watch_that_is_lost_goes_on_at_once_where_it_was",
    51: "test_a_watch_that_is_lost_goes_on_at_once_where_it_was",
    52: "test_a_peer_that_vanishes_is_given_up_and_nothing_is_missed",
    53: "test_a_peer_that_vanishes_is_given_up_and_nothing_is_missed",
    54: ("test_a_dead_peer_is_found_though_it_may_answer_pings", "test_the_dead_watch_of_1_20_is_hung_up_and_taken_up_again"),
    55: "test_a_dead_peer_is_found_though_it_may_answer_pings",  # without the optional rule: its bound is that of row 54
    56: "test_a_peer_that_reads_nothing_is_given_up_although_no_ping_can_be_sent",
    57: "test_a_slow_link_in_the_midst_of_an_event_is_not_dead",
    58: "test_pings_keep_open_what_a_middlebox_would_end",
    59: "test_a_server_that_flaps_is_asked_less_and_less_and_believed_when_it_is_well",
    60: "test_a_server_that_comes_back_without_its_past_is_listed_once",
    61: "test_servers_that_lag_behind_each_other_never_turn_a_view_back",
    62: ("test_a_hundred_drops_pass_no_limit", "test_rate_allows_20_requests_in_10_seconds_and_44_in_60"),
    # E. Server state
    63: ("test_a_server_that_comes_back_without_its_past_is_listed_once", "test_a_watch_that_lasted_counts_as_healthy_however_quiet_it_was"),
    64: "test_what_no_watch_tells_the_next_list_puts_right",  # no probe, as the contract has it: 12 minutes
    65: "test_what_no_watch_tells_the_next_list_puts_right",
    66: ("test_what_no_watch_tells_the_next_list_puts_right", "test_a_relist_shows_only_a_difference_and_forgets_what_is_gone"),
    67: "test_a_kind_that_is_deleted_and_defined_again",
    68: "test_a_slow_callback_is_hung_up_on_and_misses_nothing",
    69: "test_an_empty_and_a_large_collection_are_delivered_once",
    # F. Client side
    70: "test_what_a_callback_raises_is_logged_and_the_stream_goes_on",
    71: "test_a_slow_callback_is_hung_up_on_and_misses_nothing",  # no dispatcher, as the contract has it: no pings meanwhile, every state after
    72: "test_lists_are_the_callers_and_objects_never_change",
    73: "test_cancel_ends_every_stage_within_a_second",
    74: "test_cancel_ends_every_stage_within_a_second",
    75: "test_cancel_ends_every_stage_within_a_second",
    76: ("test_cancel_inside_a_callback_makes_it_the_last", "test_cancel_inside_a_callback_of_any_kind_makes_it_the_last"),
    77: "test_cancel_waits_for_a_running_callback_but_a_second_at_most",
    78: ("test_cancel_waits_for_a_running_callback_but_a_second_at_most", "test_cancel_ends_every_stage_within_a_second",
         "test_a_program_ends_at_once_while_streams_run"),
    79: "test_no_callback_starts_after_cancel_has_returned",
    80: "test_cancels_at_random_moments_leave_nothing",
    81: ("test_what_the_machine_has_not_got_is_reported_and_tried_again", "test_a_machine_at_its_limits_is_survived",
         "test_a_message_for_which_there_is_no_memory_ends_the_connection_not_the_stream"),
    82: ("test_a_wall_clock_that_is_set_changes_nothing", "test_a_reader_that_was_suspended_asks_before_it_gives_up"),
    83: "test_a_list_and_its_watch_take_the_same_way",
    84: "test_after_a_restart_fifty_watchers_come_back_at_different_moments",
}


def test_every_row_of_the_fault_catalogue_has_a_test_that_ci_runs():
    assert sorted(CATALOGUE) == list(range(1, 85))
    with open(os.path.join(HERE, ".ci", "run")) as file:
        slow_too = '-m "slow and not cluster"' in file.read()
    for row, named in CATALOGUE.items():
        if str(named).startswith("not done: "):
            assert len(named) > 40, row
            continue
        tests = [globals()[name] for name in ((named,) if isinstance(named, str) else named)]
        marks = [{mark.name for mark in getattr(test, "pytestmark", ())} - {"parametrize"} for test in tests]
        assert tests and all(callable(test) and test.__name__.startswith("test_") for test in tests), row
        assert [found for found in marks if not found or found == {"slow"} and slow_too], row


@pytest.fixture
def wire():
    """(client, server, proxy): two ends of a connection and the FaultProxy between them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with FaultProxy(listener.getsockname()[1], buffer=4096) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port), 5) as client, listener.accept()[0] as server:
                server.settimeout(5)
                yield client, server, proxy


def received(sock):
    """All that comes until the end, and how it ended."""
    data = b""
    try:
        while True:
            piece = sock.recv(65536)
            if not piece:
                return data, "FIN"
            data += piece
    except ConnectionResetError:
        return data, "RST"


def test_the_proxy_passes_what_it_gets_and_knows_what_is_open(wire):
    client, server, proxy = wire
    data = os.urandom(1000000)
    thread = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
    thread.start()
    assert received(server) == (data, "FIN")
    thread.join()
    server.sendall(b"still open")
    assert client.recv(100) == b"still open" and proxy.open == 1
    server.close()
    assert received(client) == (b"", "FIN")
    eventually(lambda: not proxy.open)
    assert len(proxy.opened) == len(proxy.closed) == 1 and proxy.opened < proxy.closed


@pytest.mark.parametrize("fault, after", [("drop", (b"", "RST")), ("stall", (b"lost?", "FIN"))])
@pytest.mark.parametrize("way", ["up", "down"])
def test_the_proxy_makes_one_way_silent(wire, fault, after, way):
    client, server, proxy = wire
    source, sink = (client, server) if way == "up" else (server, client)
    getattr(proxy, fault)(way)
    source.sendall(b"lost?")
    source.shutdown(socket.SHUT_WR)
    sink.sendall(b"heard")
    assert source.recv(100) == b"heard"
    assert not select.select([sink], [], [], 0.01)[0]
    proxy.clear()
    assert received(sink) == after


def test_the_proxy_stalls_until_the_sender_blocks(wire):
    client, server, proxy = wire
    proxy.stall("up")
    client.settimeout(0.05)
    with pytest.raises(socket.timeout):
        client.sendall(b"x" * 20000000)
    client.settimeout(5)
    server.sendall(b"heard")
    assert client.recv(100) == b"heard"


@pytest.mark.parametrize("rst", [False, True])
@pytest.mark.parametrize("count", [0, 7])
def test_the_proxy_cuts_within_a_message(wire, rst, count):
    client, server, proxy = wire
    proxy.cut(count, "down", rst)
    server.sendall(b"a long message")
    assert received(client) == (b"a long message"[:count], "RST" if rst else "FIN")
    assert received(server) == (b"", "RST" if rst else "FIN")


def test_the_proxy_ends_resets_and_refuses(wire):
    client, server, proxy = wire
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 5)
    client.sendall(b"still open")
    assert server.recv(100) == b"still open"
    proxy.end()
    assert received(client) == received(server) == (b"", "FIN")
    proxy.accept()
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as again:
        eventually(lambda: proxy.open == 2)
        proxy.reset()
        assert received(again) == (b"", "RST") and not proxy.open


def test_the_proxy_is_as_slow_as_it_is_told(wire):
    client, server, proxy = wire
    proxy.throttle(20000)
    begin = time.monotonic()
    client.sendall(b"x" * 2000)
    client.shutdown(socket.SHUT_WR)
    assert received(server) == (b"x" * 2000, "FIN")
    assert time.monotonic() - begin > 0.07


@pytest.mark.parametrize("seed", range(10))
def test_every_view_was_the_servers_and_they_only_go_forward_and_the_last_is_the_truth(seed):
    assert simulate.run(seed) == []


# ------------------------------------------------------------------------------
# Fuzzing: a few cases of .ci/fuzz.py, which runs a million in CI
# ------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, count", [("frames", 3000), ("handshakes", 1000), ("answers", 500), ("events", 500)])
def test_nothing_that_a_server_sends_surprises(kind, count):
    outcomes, failure = fuzz.run(kind, 2026, range(count))
    assert not failure, failure
    assert len(outcomes) > 2 and max(outcomes.values()) < 0.9 * count  # the cases are not all of one sort


def test_a_failed_case_is_told_with_the_command_that_runs_it_again(monkeypatch):
    monkeypatch.setattr(apiproxy.MessageReader, "next", lambda reader: 1 / 0)
    for _ in range(2):
        outcomes, failure = fuzz.run("frames", 7, range(40, 50))
        assert not outcomes and "ZeroDivisionError" in failure and failure.endswith("python .ci/fuzz.py --case frames:7:40")


def test_a_case_that_hangs_is_told(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    monkeypatch.setattr(apiproxy.MessageReader, "next", lambda reader: threading.Event().wait())
    outcomes, failure = fuzz.run("frames", 7, [40])
    assert not outcomes and "Hang" in failure and "--case frames:7:40" in failure


# -- what fuzzing found


@pytest.mark.parametrize("space", ["\x85", "\xa0"])
def test_only_blanks_and_tabs_are_left_out_around_a_header_value(space):
    head = apiproxy.parse_head("\r\n".join([GOOD[0], "Upgrade: websocket" + space] + GOOD[2:] + ["", ""]).encode("latin-1"))
    with pytest.raises(apiproxy.HandshakeError):
        apiproxy.check_handshake(head, KEY, [])


@pytest.mark.parametrize("lists, watches", [
    ([pods(version="\ud800"), pods(pod("b"))], [[]]), ([pods(), pods(pod("b"))], [[event("ADDED", "a", "\ud800")], []])])
def test_a_version_that_cannot_be_sent_back_lists_again(serve, client, lists, watches):
    api = Api(serve, lists, watches).start(client)
    eventually(lambda: api.views[-1:] == ["b1"])
    assert len(api.errors) == 1


@pytest.mark.parametrize("other", [pod("b"), pods(), dict(pod("a"), kind="Table"), dict(pod("a"), kind="Status"), pod("a", 5), pod("a", ["x"]), pod("a", "\ud800")])
def test_what_is_not_the_object_that_was_asked_for_is_an_error(serve, client, other):
    api = Api(serve, gets=[other, pod("a")]).start(client, name="a")
    eventually(lambda: api.views)
    assert api.views == ["a1"] and api.errors == [200]


def test_a_list_without_versions_of_its_items_does_not_end_the_watch_of_one(serve, client):
    states, bare = [], {"metadata": {"name": "a", "uid": "ua"}, "x": 1}
    api = Api(serve, [pods(bare)], [[error(410)], [event("MODIFIED", "a", "11")], []], [pod("a")])
    client(api.server).stream_result("/api/v1/pods", "a", states.append, api.error)
    eventually(lambda: len(states) == 3)
    assert states[1]["x"] == 1 and not api.errors


def test_a_version_of_thousands_of_digits_is_only_opaque(serve, client):
    api = Api(serve, [pods()], [[event("ADDED", "a", "1" + "0" * 5000), event("ADDED", "b", "2" + "0" * 5000)]]).start(client)
    eventually(lambda: len(api.views) == 3)
    assert not api.errors and len(api.asked(False)) == 1


# ------------------------------------------------------------------------------
# 9. Resources, 10. Client: one test for the demo cluster and the real API server
# ------------------------------------------------------------------------------

REAL = os.environ.get("APIPROXY_TEST_URL")
needs_cluster = [pytest.mark.cluster, pytest.mark.skipif(not REAL, reason="APIPROXY_TEST_URL is not set")]


def direct_client(client, **settings):
    """A client of the real API server itself, over TLS with the cluster's CA, as admin."""
    context = ssl.create_default_context(cafile=os.environ["APIPROXY_TEST_CA"])
    one = client(REAL, **{"cluster": "direct", **settings})
    one.add_endpoint("direct", apiproxy.Endpoint(
        os.environ["APIPROXY_TEST_DIRECT"], ssl_context=context, token=os.environ["APIPROXY_TEST_TOKEN"]))
    return one


@pytest.fixture
def demo():
    """demo(**settings) -> DemoCluster, stopped after the test."""
    running = []

    def start(*clusters, **settings):
        running.append(DemoCluster(clusters or ("dev",), **settings).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture(params=["demo", pytest.param("proxy", marks=needs_cluster), pytest.param("direct", marks=needs_cluster)])
def api(request, client, demo):
    """A Client of a demo cluster and of the real API server, with a namespace of its own: api.space."""
    if request.param == "demo":
        one = client(demo(controllers=False).url)
    elif request.param == "proxy":
        one = client(REAL, cluster=os.environ["APIPROXY_TEST_CLUSTER"])
    else:
        one = direct_client(client)
    one.space = "t-" + os.urandom(4).hex()
    one.maps = "/api/v1/namespaces/%s/configmaps" % one.space
    one.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": one.space}})
    yield one
    one.close()
    one.remove("/api/v1/namespaces/" + one.space)


class Views:
    """Callbacks that keep what they got: `views`, `errors`; `last` as {name: data}."""

    def __init__(self):
        self.views, self.errors = [], []

    def cb(self, items):
        self.views.append(items)

    def err_cb(self, error, cancel):
        self.errors.append(error)

    @property
    def last(self):
        return {item["metadata"]["name"]: item.get("data") or None for item in self.views[-1]} if self.views else None


def config_map(name, space=None, labels=None, **data):
    metadata = {"name": name, **({"namespace": space} if space else {}), **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def web(space, replicas=1):
    labels = {"app": "web"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": space}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}}}


def test_a_view_follows_every_change(api):
    seen = Views()
    api.stream_results(api.maps, seen.cb, seen.err_cb)
    eventually(lambda: seen.views)
    for change in (
        lambda: api.post(api.maps, config_map("a", x="1")),
        lambda: api.post(api.maps, config_map("b")),
        lambda: api.put(api.maps + "/a", config_map("a", x="2")),
        lambda: api.patch(api.maps + "/b", {"data": {"y": "1"}}),
        lambda: api.remove(api.maps + "/a"),
    ):
        count = len(seen.views)
        change()
        eventually(lambda: len(seen.views) > count)
    wanted = [{}, {"a": {"x": "1"}}, {"a": {"x": "1"}, "b": None}, {"a": {"x": "2"}, "b": None},
              {"a": {"x": "2"}, "b": {"y": "1"}}, {"b": {"y": "1"}}]
    shown = [{i["metadata"]["name"]: i.get("data") or None for i in view} for view in seen.views]
    assert [{name: data for name, data in view.items() if name in "ab"} for view in shown] == wanted  # not kube-root-ca.crt
    assert not seen.errors
    assert all(i["kind"] == "ConfigMap" and i["apiVersion"] == "v1" for view in seen.views for i in view)


def test_a_selector_is_followed_both_ways(api):
    seen = Views()
    api.post(api.maps, config_map("a", labels={"tier": "front"}))
    api.stream_results(api.maps, seen.cb, seen.err_cb, {"labelSelector": "tier=front", "fieldSelector": "metadata.name!=c"})
    eventually(lambda: seen.last == {"a": None})
    api.patch(api.maps + "/a", {"metadata": {"labels": {"tier": "back"}}})
    eventually(lambda: seen.last == {})
    api.patch(api.maps + "/a", {"metadata": {"labels": {"tier": "front"}}})
    api.post(api.maps, config_map("c", labels={"tier": "front"}))
    api.post(api.maps, config_map("b", labels={"tier": "front"}))
    eventually(lambda: seen.last == {"a": None, "b": None})
    assert not seen.errors


def test_limit_gives_the_newest_though_the_server_lists_by_name(api):
    for name in "edcba":
        api.post(api.maps, config_map(name))
    all_items, two = Views(), Views()
    api.stream_results(api.maps, all_items.cb, all_items.err_cb)
    api.stream_results(api.maps, two.cb, two.err_cb, {"limit": 2})
    eventually(lambda: all_items.views and two.views)
    newest = sorted(all_items.views[0], key=lambda item: item["metadata"]["creationTimestamp"], reverse=True)[:2]
    assert [i["metadata"]["creationTimestamp"] for i in two.views[0]] == [i["metadata"]["creationTimestamp"] for i in newest]
    assert len(two.views[0]) == 2 and not two.errors


def test_one_object_and_every_state_of_it(api):
    states, errors = [], []
    api.post(api.maps, config_map("a", x="1"))
    api.stream_result(api.maps, "a", states.append, lambda error, cancel: errors.append(error))
    eventually(lambda: states)
    api.post(api.maps, config_map("other"))
    api.patch(api.maps + "/a", [{"op": "replace", "path": "/data/x", "value": "2"}])
    api.remove(api.maps + "/a")
    api.post(api.maps, config_map("a", x="3"))
    eventually(lambda: len(states) == 4)
    assert [(s.get("actionType"), s["data"]["x"]) for s in states] == [
        (None, "1"), ("MODIFIED", "2"), ("DELETED", "2"), ("ADDED", "3")]
    assert not errors and {state["metadata"]["name"] for state in states} == {"a"}


@pytest.mark.parametrize("call, status, reason, details", [
    (lambda api: api.request(api.maps + "/nope"), 404, "NotFound", {"name": "nope", "kind": "configmaps"}),
    (lambda api: api.request("/api/v1/nopes"), 404, "NotFound", {}),
    (lambda api: api.request("/apis/no.group/v1/nopes"), 404, "", {}),
    (lambda api: api.post("/api/v1/namespaces/no-such-space/configmaps", config_map("a")), 404, "NotFound",
     {"name": "no-such-space", "kind": "namespaces"}),
    (lambda api: [api.post(api.maps, config_map("a")) for _ in "12"], 409, "AlreadyExists", {"name": "a", "kind": "configmaps"}),
    (lambda api: [api.post(api.maps, config_map("a")), api.put(api.maps + "/a", {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "1"}})], 409, "Conflict",
     {"name": "a", "kind": "configmaps"}),
    (lambda api: api.post(api.maps, config_map("Not_A_Name")), 422, "Invalid", None),
    (lambda api: api.request(api.maps, query_params={"labelSelector": "!!"}), 400, "BadRequest", None),
    (lambda api: [api.post(api.maps, config_map("a")), api.patch(api.maps + "/a", {}, True, {
        "headers": {"content-type": "text/plain"}})], 415, "UnsupportedMediaType", None),
    (lambda api: api.request(api.maps, {"method": "PATCH", "body": "{}", "headers": {
        "content-type": "application/merge-patch+json"}}), 405, "MethodNotAllowed", None),
])
def test_refusals_carry_the_servers_words(api, call, status, reason, details):
    with pytest.raises(apiproxy.ApiError) as caught:
        call(api)
    error = caught.value
    assert (error.status, error.reason) == (status, reason)
    assert details is None or details == {key: error.details.get(key) for key in details}
    assert error.message in str(error) and error.message and error.url.startswith("http") and error.method


def test_patches_by_type(api):
    api.post(api.maps, config_map("a", x="1", y="1"))
    assert api.patch(api.maps + "/a", {"data": {"x": None, "z": "1"}})["data"] == {"y": "1", "z": "1"}
    assert api.patch(api.maps + "/a", [{"op": "remove", "path": "/data/y"}])["data"] == {"z": "1"}
    maps = api.api_factory_with_namespace("", "v1", "configmaps")
    assert maps.patch({"data": {"w": "2"}}, api.space, "a")["data"] == {"w": "2", "z": "1"}


def test_an_api_client_makes_reads_changes_scales_and_removes(api):
    deployments = api.api_factory_with_namespace("apps", "v1", "deployments", True)
    assert deployments.is_namespaced and deployments.api_info == [{"group": "apps", "version": "v1", "resource": "deployments"}]
    made = deployments.post(web(api.space, 2))
    assert deployments.scale.get(api.space, "web")["spec"]["replicas"] == 2
    scaled = deployments.scale.put({"metadata": {"name": "web", "namespace": api.space}, "spec": {"replicas": 5}})
    assert scaled["kind"] == "Scale" and scaled["spec"]["replicas"] == 5
    now = api.request("/apis/apps/v1/namespaces/%s/deployments/web" % api.space)
    assert now["spec"]["replicas"] == 5 and now["metadata"]["uid"] == made["metadata"]["uid"]
    now["spec"]["replicas"] = 1
    assert deployments.put(now)["spec"]["replicas"] == 1
    with pytest.raises(apiproxy.ApiError) as caught:
        deployments.put(now)  # the version is an old one by now
    assert caught.value.status == 409
    seen = Views()
    deployments.list(api.space, seen.cb, seen.err_cb)
    eventually(lambda: seen.views)
    deployments.delete(api.space, "web")
    eventually(lambda: seen.views[-1] == [])
    nodes = api.api_factory("", "v1", "nodes")
    assert not nodes.is_namespaced and api.api_factory_with_namespace("", "v1", "pods").scale is None
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": api.space}}
    nodes.post(node)
    assert nodes.patch({"metadata": {"labels": {"a": "b"}}}, api.space)["metadata"]["labels"]["a"] == "b"
    assert nodes.delete(api.space)["status"] == "Success"


def test_apply_makes_then_replaces_and_leaves_the_callers_object_alone(api):
    mine = config_map("a", api.space, x="1")
    before = json.dumps(mine)
    first = api.apply(mine)
    api.patch(api.maps + "/a", {"data": {"other": "1"}})
    mine["data"]["x"] = "2"
    second = api.apply(mine)
    assert second["data"] == {"x": "2"} and second["metadata"]["uid"] == first["metadata"]["uid"]
    mine["data"]["x"] = "1"
    assert json.dumps(mine) == before
    stale = {**mine, "metadata": {**mine["metadata"], "resourceVersion": first["metadata"]["resourceVersion"]}}
    with pytest.raises(apiproxy.ApiError) as caught:
        api.apply(stale)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    fresh = {**mine, "metadata": {**mine["metadata"], "resourceVersion": second["metadata"]["resourceVersion"]}}
    assert api.apply(fresh)["data"] == {"x": "1"}


BUILT_IN = [
    config_map("it"), web(None),
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "it"}, "data": {"k": "dmFsdWU="}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "it"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "it"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "it"}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "it"}},
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "it"}},
    {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "it"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}},
    {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "it"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}},
]


@pytest.mark.parametrize("body", BUILT_IN, ids=lambda body: body["kind"])
def test_apply_of_built_in_kinds_as_written_and_as_read(api, body):
    cluster_wide = body["kind"] in ("Node", "Namespace")
    body = {**body, "metadata": {"name": api.space + "-x" if cluster_wide else "it", "labels": {"step": "1"}}}
    api.default_namespaces = {api.cluster: api.space}
    states = [api.apply(body)]
    if body["kind"] not in ("Job", "Pod"):  # of those the server lets nobody take away what it has filled in
        body["metadata"]["labels"] = {"step": "2"}
        states.append(api.apply(body))
    read = json.loads(json.dumps(states[-1]))
    read["metadata"]["labels"] = {"step": "3"}
    states.append(api.apply(read))  # a Service's and a Job's POST is found invalid before it is found to exist
    del read["metadata"]["resourceVersion"]
    read["metadata"]["labels"] = {"step": "4"}
    states.append(api.apply(read))
    assert states[-1]["metadata"]["labels"]["step"] == "4"
    assert {(state["metadata"]["uid"], state["metadata"].get("namespace")) for state in states} == {
        (states[0]["metadata"]["uid"], None if cluster_wide else api.space)}


def test_apply_of_a_custom_resource_as_soon_as_it_is_defined(api):
    group = "g%s.example.com" % api.space[2:]
    api.apply({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets." + group},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                     "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}})
    widget = {"apiVersion": group + "/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": api.space}, "spec": {"size": 1}}

    def applied():
        try:
            return api.apply(widget)
        except apiproxy.ApiError as error:  # the real server takes a moment to serve it
            assert error.status in (404, 503), error

    first = eventually(applied)
    widgets = api.api_factory_with_namespace([group, "v2", "widgets"], [group, "v1", "widgets"])
    seen = Views()
    widgets.list(api.space, seen.cb, seen.err_cb)
    eventually(lambda: seen.views and len(seen.views[-1]) == 1)
    widget["spec"]["size"] = 2
    assert api.apply(widget)["metadata"]["uid"] == first["metadata"]["uid"]
    eventually(lambda: seen.views[-1][0]["spec"]["size"] == 2)
    api.remove("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets." + group)


def test_endpoints_are_tried_in_order_until_the_server_has_one(api):
    maps = api.api_factory_with_namespace(("no.group", "v1", "configmaps"), ("", "v1", "configmaps"))
    maps.post(config_map("a", api.space, x="1"))
    maps.patch({"data": {"x": "2"}}, api.space, "a")
    for missing in (lambda: maps.delete(api.space, "nope"), lambda: maps.post(config_map("a", "no-such-space"))):
        with pytest.raises(apiproxy.ApiError) as caught:
            missing()
        assert caught.value.details["name"] in ("nope", "no-such-space")  # an object's 404 is not the API's
    seen, states = Views(), []
    other = api.api_factory_with_namespace(("no.group", "v1", "configmaps"), ("", "v1", "configmaps"))
    other.list(api.space, seen.cb, seen.err_cb)
    other.get(api.space, "a", states.append, seen.err_cb)
    eventually(lambda: seen.views and states)
    assert states[0]["data"] == {"x": "2"} and not seen.errors
    lost = Views()
    api.api_factory(("no.group", "v1", "xs"), ("no.other", "v1", "xs")).list(lost.cb, lost.err_cb)
    eventually(lambda: lost.errors)
    assert [error.status for error in lost.errors] == [404] and not lost.views


def test_the_endpoint_that_worked_is_asked_first_after(serve, client):
    def script(request, conn):
        conn.reply(404, "404 page not found\n") if "/apis/" in request.path else conn.reply(200, {"ok": 1})

    server = serve(script)
    maps = client(server).api_factory_with_namespace(("old", "v1", "configmaps"), ("", "v1", "configmaps"))
    for _ in "123":
        maps.delete("d", "x")
    assert [("/apis/" in path) for path in server.paths()] == [True, False, False, False]


@pytest.mark.parametrize("body", [
    None, [], {}, {"kind": "Pod", "metadata": {"name": "a"}}, {"apiVersion": "v1", "metadata": {"name": "a"}},
    {"apiVersion": "v1", "kind": "Pod"}, {"apiVersion": "v1", "kind": "Pod", "metadata": {}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-"}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a/b"}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": ".."}},
    {"apiVersion": "a/b/c", "kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": "/v1", "kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": "v1", "kind": "List", "metadata": {"name": "a"}, "items": []},
    {"apiVersion": "v1", "kind": "PodList", "metadata": {"name": "a"}, "items": []},
])
def test_what_can_not_be_applied_is_refused_before_anything_is_sent(serve, client, body):
    server = serve(lambda request, conn: conn.reply(200, {}))
    with pytest.raises((ValueError, TypeError)):
        client(server).apply(body)
    assert not server.requests


def test_factories_refuse_impossible_endpoints(client):
    one = client("http://127.0.0.1:1")
    for args in ((), ([],), (("a", "b"),), ("", "v1"), ("", "", "pods"), ("a/b", "v1", "pods"), ("", "v1", "a/b")):
        with pytest.raises((ValueError, TypeError)):
            one.api_factory(*args)
        with pytest.raises((ValueError, TypeError)):
            one.api_factory_with_namespace(*args)


def test_apply_asks_discovery_again_before_it_says_no_and_skips_subresources(serve, client):
    resources = [{"name": "widgets/scale", "kind": "Widget", "namespaced": True}]

    def script(request, conn):
        if request.path.endswith("/v1"):
            return conn.reply(200, {"kind": "APIResourceList", "resources": resources})
        conn.reply(201, json.loads(request.body))

    server = serve(script)
    one = client(server)
    widget = {"apiVersion": "g/v1", "kind": "Widget", "metadata": {"name": "w"}}
    with pytest.raises(apiproxy.ApiError) as caught:
        one.apply(widget)
    assert caught.value.status == 404 and "Widget" in str(caught.value)
    resources.append({"name": "widgets", "kind": "Widget", "namespaced": True})
    assert one.apply(widget)["metadata"] == {"name": "w", "namespace": "default"}
    one.apply(widget)
    assert server.paths().count("/clusters/dev/apis/g/v1") == 2  # the first miss, then remembered
    assert server.paths()[-1] == "/clusters/dev/apis/g/v1/namespaces/default/widgets"


def test_apply_gives_up_on_an_object_that_others_keep_changing(serve, client):
    def script(request, conn):
        if request.path.endswith("/v1"):
            return conn.reply(200, {"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": True}]})
        if request.method == "GET":
            return conn.reply(200, config_map("a") and {"metadata": {"resourceVersion": "5"}})
        conn.reply(409, {"kind": "Status", "reason": "AlreadyExists" if request.method == "POST" else "Conflict"})

    server = serve(script)
    with pytest.raises(apiproxy.ApiError) as caught:
        client(server).apply(config_map("a"))
    assert caught.value.reason == "Conflict" and len(server.requests) == 16

    server.script = lambda request, conn: conn.reply(200, {"resources": [{"name": "pods", "kind": "Pod", "namespaced": True}]}) \
        if request.path.endswith("/v1") else conn.reply(409, {"kind": "Status", "reason": "Conflict", "message": "quota"})
    with pytest.raises(apiproxy.ApiError) as caught:  # a quota's 409 is not an object that exists
        client(server).apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})
    assert caught.value.message == "quota" and [r.method for r in server.requests[-2:]] == ["GET", "POST"]


# -- credentials

def jwt(seconds, namespace="ns", name="robot"):
    """A token that looks like a service account's, and ends in `seconds`."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return "%s.%s.SECRET" % (part({"alg": "none"}), part({"exp": time.time() + seconds, "kubernetes.io": {
        "namespace": namespace, "serviceaccount": {"name": name, "uid": "1"}}}))


def test_a_token_that_ends_soon_is_renewed_once_and_the_new_one_used_at_once(serve, client):
    old, new = jwt(5), jwt(3600)

    def script(request, conn):
        if request.method == "POST":
            return conn.reply(201, {"status": {"token": new}})
        conn.reply(200, {})

    server = serve(script)
    one = client(server)
    one.set_token("dev", old)
    one.set_token("other", "opaque-SECRET")
    threads = [threading.Thread(target=one.request, args=("/api/v1/pods",)) for _ in range(8)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    one.request("/x", {"cluster": "other"})
    posts = [request for request in server.requests if request.method == "POST"]
    assert len(posts) == 1 and posts[0].path == "/clusters/dev/api/v1/namespaces/ns/serviceaccounts/robot/token"
    assert posts[0].headers["authorization"] == "Bearer " + old
    assert json.loads(posts[0].body)["spec"] == {"expirationSeconds": 86400}
    sent = [r.headers["authorization"] for r in server.requests if r.method == "GET"]
    assert sent == ["Bearer " + new] * 8 + ["Bearer opaque-SECRET"]
    assert one.get_token("dev") == new


def test_a_renewal_that_fails_leaves_the_token_and_is_not_tried_again_at_once(serve, client):
    server = serve(lambda request, conn: conn.reply(403 if request.method == "POST" else 200, {}))
    one = client(server)
    one.set_token("dev", jwt(-5))
    for _ in "123":
        one.request("/api/v1/pods")
    assert [request.method for request in server.requests] == ["POST", "GET", "GET", "GET"]


def test_the_deadline_covers_the_renewal(serve, client):
    server = serve(lambda request, conn: server.stopped.wait(20))
    one = client(server)
    one.set_token("dev", jwt(5))
    begun = time.monotonic()
    with pytest.raises(apiproxy.ApiError) as caught:
        one.request("/api/v1/pods", {"timeout": 200})
    assert caught.value.status == 408 and time.monotonic() - begun < 5


def test_401_forgets_only_the_token_that_was_sent(serve, client):
    logouts = []
    server = serve(lambda request, conn: conn.reply(401, {"kind": "Status", "message": "Unauthorized"}))
    one = client(server, on_logout=logouts.append)
    one.set_token("dev", "SECRET-1")
    one.set_token("other", "SECRET-2")

    def call(**options):
        with pytest.raises(apiproxy.ApiError) as caught:
            one.request("/api/v1/pods", options)
        assert caught.value.status == 401

    call(autoLogoutOnAuthError=False)
    assert one.get_token("dev") == "SECRET-1" and not logouts
    call()
    assert one.get_token("dev") is None and logouts == ["dev"] and one.get_token("other") == "SECRET-2"
    call()  # without a token nobody is logged out
    assert logouts == ["dev"]
    server.script = lambda request, conn: [one.set_token("other", "SECRET-3"), conn.reply(401, {})][0]
    call(cluster="other")
    assert one.get_token("other") == "SECRET-3" and logouts == ["dev"]  # it was replaced meanwhile
    one.set_token("dev", lambda: "SECRET-4")
    call()
    assert one.get_token("dev") == "SECRET-4" and logouts == ["dev", "dev"]  # a function stays: it may give another


def test_x_authorization_replaces_the_token_of_that_cluster_and_x_reload_reloads(serve, client):
    reloads = []
    server = serve(lambda request, conn: conn.reply(200, {}, {"X-Authorization": "SECRET-new", "X-Reload": "reload"}))
    one = client(server, on_reload=lambda: reloads.append(1))
    one.set_token("dev", "SECRET-old")
    one.request("/a")
    one.request("/a", use_cluster=False)
    assert one.get_token("dev") == "SECRET-new"
    assert reloads == [1, 1]
    assert "authorization" not in server.requests[1].headers


@pytest.mark.parametrize("token", ["two\nlines-SECRET", "a SECRET b", "SECRET-\u00e9", "SECRET\x00"])
def test_a_token_that_a_header_can_not_carry_is_refused_without_repeating_it(serve, client, token):
    server = serve(lambda request, conn: conn.reply(200, {}))
    one = client(server)
    with pytest.raises(ValueError) as caught:
        one.set_token("dev", token)
    assert "SECRET" not in str(caught.value)
    one.set_token("dev", lambda: token)
    with pytest.raises(apiproxy.ApiError) as caught:
        one.request("/a")
    assert "SECRET" not in "%s %r" % (caught.value, caught.value) and not server.requests
    with pytest.raises(TypeError):
        one.set_token("dev", 5)


@pytest.mark.parametrize("user_id", ["a\r\nX-Evil: y", "a\nb", "a\0", "a b", "a,b", "\u20ac"])
def test_a_user_id_that_a_header_can_not_carry_is_refused(serve, client, user_id):
    server = serve(lambda request, conn: conn.reply(200, pods()))
    one, errors = client(server), []
    one.user_id, one._kubeconfigs["dev"] = user_id, "SECRET"
    with pytest.raises(ValueError):
        one.request("/x")
    streams = [lambda: one.stream("/x", print, {"failCb": lambda: errors.append(1)}),
               lambda: one.stream_results("/api/v1/pods", print, lambda error, cancel: [errors.append(error), cancel()])]
    for count, start in enumerate(streams, 1):
        try:
            start()
        except ValueError:
            errors.append(1)
        eventually(lambda: len(errors) == count)  # one way or the other it is said
    assert not server.requests


def test_a_token_may_be_a_function_and_is_asked_each_time(serve, client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    one = client(server)
    tokens = iter(["SECRET-1", "SECRET-2", None])
    one.set_token("dev", lambda: next(tokens))
    [one.request("/a") for _ in "123"]
    assert [r.headers.get("authorization") for r in server.requests] == ["Bearer SECRET-1", "Bearer SECRET-2", None]


def test_the_backend_token_goes_only_where_it_is_wanted(serve, client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    one = client(server, backend_token="SECRET-backend")
    one.set_cluster({"name": "new", "server": "https://api.example:6443"})
    one.delete_cluster("new")
    one.delete_plugin("p")
    one.request("/helm/releases")
    one.request("/api/v1/pods")
    one.request("/config", use_cluster=False)
    one.drain_node("dev", "n")
    with_token = [r.path for r in server.requests if "x-headlamp_backend-token" in r.headers]
    assert with_token == ["/cluster", "/cluster/new", "/plugins/p", "/clusters/dev/helm/releases"]


def mixed_requests(client, demo, count):
    tokens = {"red": "SECRET-red", "blue": "SECRET-blue"}
    server = demo("red", "blue", tokens=tokens, controllers=False)
    one = client(server.url, cluster="red")
    for cluster, token in tokens.items():
        one.set_token(cluster, token)
    failures, seen = [], Views()
    cancels = [one.stream_results_for_cluster("/api/v1/namespaces/default/configmaps", {
        "cb": seen.cb, "errCb": seen.err_cb, "cluster": cluster}) for cluster in tokens]
    eventually(lambda: {record.cluster for record in list(server.requests) if "upgrade" in record.headers} == {"red", "blue"})

    def work(seed):
        rnd = random.Random(seed)
        try:
            for number in range(count // 8):
                cluster = rnd.choice(("red", "blue"))
                name = "c-%d-%d" % (seed, number)
                path, options = "/api/v1/namespaces/default/configmaps", {"cluster": cluster}
                kind = rnd.randrange(4)
                if kind == 0:
                    one.post(path, config_map(name), True, options)
                    one.remove(path + "/" + name, options)
                elif kind == 1:
                    one.request("/api/v1/namespaces", options)
                elif kind == 2:
                    one.test_auth(cluster)
                else:
                    one.patch("/api/v1/namespaces/default", {"metadata": {"labels": {"n": str(number)}}}, True, options)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    [cancel() for cancel in cancels]
    assert not failures and not seen.errors
    records = list(server.requests)
    assert len(records) >= min(count, 10000)
    for record in records:
        assert record.headers.get("authorization") == "Bearer " + tokens[record.cluster]


def test_two_clusters_never_see_each_others_credentials(client, demo):
    mixed_requests(client, demo, 800)


@pytest.mark.slow
def test_two_clusters_never_see_each_others_credentials_in_10000_requests(client, demo):
    mixed_requests(client, demo, 10000)


# -- the server itself

def kubeconfig(*names):
    return base64.b64encode(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": names[0],
        "clusters": [{"name": name, "cluster": {"server": "https://127.0.0.1:1"}} for name in names],
        "users": [{"name": name, "user": {"token": "SECRET-" + name}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
    }).encode()).decode()


def test_a_stored_kubeconfig_goes_with_every_request_and_handshake_of_its_cluster(client, demo):
    reloads = []
    server = demo()
    one = client(server.url, on_reload=lambda: reloads.append(1))
    answer = one.set_cluster({"kubeconfig": kubeconfig("mine", "yours")})
    assert sorted(cluster["name"] for cluster in answer["clusters"]) == ["mine", "yours"]
    seen = Views()
    cancel = one.stream_results_for_cluster("/api/v1/pods", {"cb": seen.cb, "errCb": seen.err_cb, "cluster": "mine"})
    eventually(lambda: seen.views and any("upgrade" in r.headers for r in server.requests))
    one.request("/version")
    cancel()
    for record in list(server.requests)[1:]:
        carried = "kubeconfig" in record.headers, "x-headlamp-user-id" in record.headers
        assert carried == ((True, True) if record.cluster == "mine" else (False, False)), record.path
    watch = next(r for r in server.requests if "upgrade" in r.headers)
    assert watch.headers["sec-websocket-protocol"] == \
        "base64.binary.k8s.io, base64url.headlamp.authorization.k8s.io." + one.user_id
    assert not seen.errors
    assert one.delete_cluster("mine") is None and reloads == [1]
    one.request("/version", {"cluster": "yours"})
    with pytest.raises(apiproxy.ApiError) as caught:
        one.request("/version", {"cluster": "mine"})
    assert caught.value.status == 404
    for bad in ("not base64!", base64.b64encode(b"rubbish").decode()):
        with pytest.raises((ValueError, apiproxy.ApiError)):
            one.set_cluster({"kubeconfig": bad})
    assert not one._kubeconfigs.get("rubbish")


def test_a_dynamic_cluster_comes_and_goes(client, demo):
    server = demo(backend_token="SECRET-backend")
    one = client(server.url, backend_token="SECRET-backend")
    one.set_cluster({"name": "new", "server": "https://127.0.0.1:1", "insecureTLSVerify": True,
                     "certificateAuthorityData": base64.b64encode(b"pem").decode()})
    assert {"new", "dev"} <= {cluster["name"] for cluster in one.request("/config", use_cluster=False)["clusters"]}
    with pytest.raises(apiproxy.ApiError) as caught:
        client(server.url).set_cluster({"name": "new", "server": "https://127.0.0.1:1"})
    assert (caught.value.status, caught.value.message) == (403, "access denied")
    try:
        one.delete_cluster("new")
    except apiproxy.ApiError as error:  # the server forgets it, then fails to find it in its file
        assert error.status == 500
    assert "new" not in {cluster["name"] for cluster in one.request("/config", use_cluster=False)["clusters"]}
    off = client(demo(dynamic_clusters=False).url)
    with pytest.raises(apiproxy.ApiError) as caught:
        off.set_cluster({"kubeconfig": kubeconfig("mine")})
    assert "not enabled" in str(caught.value)


@pytest.mark.parametrize("request_body", [
    {}, {"name": "a"}, {"server": "https://a"}, {"name": "a/b", "server": "https://a"}, {"name": "a", "server": "ftp://a"},
    {"name": "a", "server": "https://user:SECRET@a"}, {"nam": "a"},
])
def test_a_cluster_that_can_not_be_added_is_refused_at_home(serve, client, request_body):
    server = serve(lambda request, conn: conn.reply(200, {}))
    with pytest.raises((ValueError, TypeError)) as caught:
        client(server).set_cluster(request_body)
    assert not server.requests and "SECRET" not in str(caught.value)


def test_a_port_forward_is_made_listed_and_stopped(client, demo):
    server = demo()
    one = client(server.url)
    pod = one.request("/api/v1/namespaces/demo-shop/pods")["items"][0]["metadata"]["name"]
    made = one.start_port_forward("dev", "demo-shop", pod, 80, "", "")
    assert made["pod"] == pod and made["targetPort"] == "80" and int(made["port"])
    assert [forward["id"] for forward in one.list_port_forward("dev")] == [made["id"]]
    assert one.stop_or_delete_port_forward("dev", made["id"]) == "stopped"
    assert [forward["status"] for forward in one.list_port_forward("dev")] == ["Stopped"]
    assert one.stop_or_delete_port_forward("dev", made["id"], False) == "stopped"
    assert one.list_port_forward("dev") == []
    with pytest.raises(apiproxy.ApiError) as caught:
        one.stop_or_delete_port_forward("dev", "")
    assert caught.value.status == 400 and "id is required" in caught.value.message
    assert all("authorization" not in record.headers for record in server.requests)
    one.request_timeout = 0.3
    with pytest.raises(apiproxy.ApiError) as caught:
        one.start_port_forward("dev", "demo-shop", "no-such-pod", 80, "", "")  # the server never answers
    assert caught.value.status == 408


def test_a_port_forward_list_is_of_one_cluster(serve, client):
    server = serve(lambda request, conn: conn.reply(200, [{"cluster": "foo", "id": "1"}, {"cluster": "foobar", "id": "2"}]))
    assert client(server).list_port_forward("foo") == [{"cluster": "foo", "id": "1"}]
    assert server.paths() == ["/portforward/list?cluster=foo"]


def test_a_node_is_drained_and_says_how_far_it_is(client, demo):
    server = demo(drain_time=0.3)
    one = client(server.url)
    node = one.request("/api/v1/nodes")["items"][0]["metadata"]["name"]
    assert one.drain_node_status("dev", node) == {"id": "", "cluster": "dev"}
    assert "success" in one.drain_node("dev", node)["message"]
    assert one.drain_node_status("dev", node)["id"] == ""
    eventually(lambda: one.drain_node_status("dev", node)["id"] == "success")
    assert one.request("/api/v1/nodes/" + node)["spec"]["unschedulable"] is True
    with pytest.raises(apiproxy.ApiError) as caught:
        one.drain_node("no-such", node)
    assert (caught.value.status, caught.value.message) == (404, "Cluster not found")


def test_a_plugin_is_removed_and_the_next_answer_says_reload(client, demo):
    reloads = []
    server = demo(backend_token="SECRET-backend")
    one = client(server.url, backend_token="SECRET-backend", on_reload=lambda: reloads.append(1))
    assert one.delete_plugin("some plugin") is None
    one.request("/version")
    one.request("/version")
    assert reloads == [1] and server.requests[0].path == "/plugins/some%20plugin"


def test_metrics_auth_and_health(client, demo):
    server = demo()
    one = client(server.url)
    polls = []
    cancel = one.metrics("/apis/metrics.k8s.io/v1beta1/nodes", polls.append)
    eventually(lambda: len(polls) >= 2)
    cancel()
    assert polls[0][0]["usage"]["cpu"] and polls[0][0]["metadata"]["name"]
    assert one.test_auth()["status"]["resourceRules"] is not None
    health = one.test_cluster_health()
    assert (health.status, health.ok, health.text()) == (200, True, "ok")


def test_a_log_is_followed_and_a_command_run_in_a_pod(client, demo):
    server = demo(log_tick=0.01)
    one = client(server.url)
    pod = one.request("/api/v1/namespaces/demo-shop/pods")["items"][0]["metadata"]["name"]
    path = "/api/v1/namespaces/demo-shop/pods/" + pod
    lines, out = [], {}
    log_stream = one.stream(path + "/log?follow=true&tailLines=3", lines.append, {"failCb": lambda: None})
    eventually(lambda: len(b"".join(base64.b64decode(line) for line in lines).splitlines()) > 3)
    log_stream.cancel()

    def on_message(data):
        out[data[0]] = out.get(data[0], b"") + data[1:]

    ended = threading.Event()
    shell = one.stream(path + "/exec?command=sh&command=-c&command=cat%20-&stdin=1&stdout=1&stderr=1", on_message, {
        "additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})
    eventually(lambda: shell.get_socket() and 1 in out)
    shell.get_socket().send(b"\x00hello\n")
    eventually(lambda: out.get(1) == b"hello\n")
    shell.cancel()
    out.clear()
    one.stream(path + "/exec?command=sh&command=-c&command=exit%203&stdout=1&stderr=1", on_message, {
        "additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})
    assert ended.wait(10)
    assert json.loads(out[3])["details"]["causes"][0] == {"reason": "ExitCode", "message": "3"}


# ------------------------------------------------------------------------------
# The real API server
# ------------------------------------------------------------------------------

CONTROL = os.environ.get("APIPROXY_TEST_CONTROL", "")


def control(what):
    subprocess.run([CONTROL, what], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(params=[pytest.param("proxy", marks=needs_cluster), pytest.param("direct", marks=needs_cluster)])
def real(request, api):
    """As `api`, the real server only."""
    return api


def insist(call, *args):
    """Repeat a change until the server, which may just be starting, has taken it."""
    def done():
        try:
            call(*args)
            return True
        except apiproxy.ApiError as error:
            assert error.status in (408, 409, 429, 500, 502, 503, 504), error

    eventually(done, 60)


@pytest.mark.parametrize("api", [pytest.param("proxy", marks=needs_cluster), pytest.param("direct", marks=needs_cluster)], indirect=True)
def test_a_watch_survives_kill_restart_and_compaction(api):
    seen, one_object = Views(), []
    api.post(api.maps, config_map("first", x="0"))
    api.stream_results(api.maps, seen.cb, seen.err_cb)
    api.stream_result(api.maps, "first", one_object.append, seen.err_cb)
    eventually(lambda: seen.views and one_object)
    for step, what in enumerate(["restart", "compact", "stop-api", "start-api", "restart", "compact"]):
        control(what)
        if what != "stop-api":
            insist(api.apply, config_map("first", api.space, x=str(step)))
            insist(api.apply, config_map("c%d" % step, api.space))
            if step > 2:
                insist(lambda: api.remove(api.maps + "/c%d" % (step - 3)) if step - 3 != 2 else None)

    def same():
        try:
            items = api.request(api.maps)["items"]
        except apiproxy.ApiError:
            return False
        fresh = {item["metadata"]["name"]: item.get("data") or None for item in items}
        return seen.last == fresh and one_object[-1]["data"] == fresh["first"]

    eventually(same, 60)
    versions = [int(state["metadata"]["resourceVersion"]) for state in one_object]
    assert versions == sorted(versions)


@pytest.mark.parametrize("api", [pytest.param("proxy", marks=needs_cluster), pytest.param("direct", marks=needs_cluster)], indirect=True)
def test_the_dead_watch_of_1_20_is_hung_up_and_taken_up_again(api):
    api.watch_timeout, api.watch_grace, api.retry_reset = (1, 1), 0.3, 0.5
    seen = Views()
    services = "/api/v1/namespaces/%s/services" % api.space
    api.stream_results(services, seen.cb, seen.err_cb)  # this kind never closes, and sends no more events (k8s#102464)
    eventually(lambda: seen.views)
    time.sleep(2)  # past timeoutSeconds: there is nothing to see from outside, which is the point
    api.post(services, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "late"}, "spec": {"ports": [{"port": 80}]}})
    eventually(lambda: [item["metadata"]["name"] for item in seen.views[-1]] == ["late"])
    assert not seen.errors


@pytest.mark.parametrize("api", [pytest.param("proxy", marks=needs_cluster)], indirect=True)
def test_a_continue_token_from_before_a_compaction_is_not_used(api):
    for name in "abcde":
        api.post(api.maps, config_map(name))
    page = api.request(api.maps, query_params={"limit": 2})
    api.post(api.maps, config_map("f"))
    control("compact")
    with pytest.raises(apiproxy.ApiError) as caught:
        api.request(api.maps, query_params={"limit": 2, "continue": page["metadata"]["continue"]})
    assert (caught.value.status, caught.value.reason) == (410, "Expired")


@pytest.mark.cluster
@pytest.mark.skipif(not REAL, reason="APIPROXY_TEST_URL is not set")
def test_tls_and_rights_of_the_real_server(client):
    one = direct_client(client)
    assert one.request("/version")["gitVersion"]
    one.add_endpoint("plain", apiproxy.Endpoint(os.environ["APIPROXY_TEST_DIRECT"]))
    with pytest.raises(apiproxy.ApiError) as caught:
        one.request("/version", {"cluster": "plain"})  # the system does not know this authority
    assert caught.value.status == 502 and "certificate" in str(caught.value)
    one.set_token("direct", os.environ["APIPROXY_TEST_VIEWER"])
    with pytest.raises(apiproxy.ApiError) as caught:
        one.request("/api/v1/pods")
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden") and one.get_token("direct")
    seen = Views()
    one.stream_results("/api/v1/pods", seen.cb, seen.err_cb)
    eventually(lambda: seen.errors)
    assert [error.status for error in seen.errors] == [403] and not seen.views
    logouts = []
    one.on_logout = logouts.append
    one.set_token("direct", "SECRET-wrong")
    with pytest.raises(apiproxy.ApiError) as caught:
        one.request("/api/v1/pods")
    assert caught.value.status == 401 and logouts == ["direct"] and one.get_token("direct") is None


@pytest.mark.cluster
@pytest.mark.skipif(not REAL, reason="APIPROXY_TEST_URL is not set")
@pytest.mark.parametrize("as_protocol", [False, True])
def test_a_real_service_accounts_token_is_renewed_for_requests_and_watches(client, as_protocol):
    admin = direct_client(client)
    space, name = "sa-" + os.urandom(3).hex(), "robot"
    admin.post("/api/v1/namespaces", {"metadata": {"name": space}})
    admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": space}})
    admin.apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": space},
                 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                 "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": space}]})
    accounts = "/api/v1/namespaces/%s/serviceaccounts/%s/token" % (space, name)
    first = admin.post(accounts, {"spec": {"expirationSeconds": 600}})["status"]["token"]
    robot = direct_client(client, token_window=700.0, token_protocol=as_protocol)  # so that it is about to end
    robot.set_token("direct", first)
    assert robot.test_auth()["status"]["resourceRules"]
    second = robot.get_token("direct")
    assert second != first and robot.test_cluster_health().ok
    seen = Views()
    robot.stream_results("/api/v1/namespaces/%s/configmaps" % space, seen.cb, seen.err_cb)
    eventually(lambda: seen.views)
    robot.apply(config_map("mine", space))
    eventually(lambda: "mine" in seen.last)
    assert not seen.errors and robot.get_token("direct") == second  # that one lasts a day
    admin.remove("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/" + space)


# ------------------------------------------------------------------------------
# 11. Module functions, surface, examples
# ------------------------------------------------------------------------------

DOCUMENTED = """api_factory api_factory_with_namespace apply cluster_request delete_cluster delete_plugin drain_node
    drain_node_status list_port_forward metrics patch post put remove request set_cluster start_port_forward
    stop_or_delete_port_forward stream stream_result stream_results stream_results_for_cluster test_auth
    test_cluster_health""".split()


def test_the_documented_names_are_all_there():
    assert len(DOCUMENTED) == 24 and set(DOCUMENTED) <= set(apiproxy.__all__)
    assert {"ApiError", "ApiInfo", "ClusterRequest", "ClusterRequestParams", "QueryParameters", "RequestParams", "StreamArgs",
            "StreamResultsParams", "StreamErrCb", "StreamResultsCb"} <= set(apiproxy.__all__)
    assert [name for name in apiproxy.__all__ if not hasattr(apiproxy, name)] == []


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_module_function_is_its_method_on_the_default_client(name):
    function, method = getattr(apiproxy, name), getattr(apiproxy.Client, name)
    wanted = list(inspect.signature(method).parameters.values())[1:]
    assert list(inspect.signature(function).parameters.values()) == wanted
    assert function.__doc__ == method.__doc__ and "Documented as" in function.__doc__
    assert getattr(function, "__test__", True) is (not name.startswith("test_"))


def test_configure_reaches_functions_imported_by_name_and_keeps_credentials_at_home(serve):
    from apiproxy import request

    first, second = serve(lambda r, c: c.reply(200, {"from": 1})), serve(lambda r, c: c.reply(200, {"from": 2}))
    apiproxy.configure(first.url, cluster="dev")
    try:
        apiproxy.set_token("dev", "SECRET-dev")
        assert request("/x") == {"from": 1} and apiproxy.default_client().cluster == "dev"
        apiproxy.configure(first.url, cluster="dev", gzip=False)
        assert request("/x") == {"from": 1} and first.requests[-1].headers["accept-encoding"] == "identity"
        assert first.requests[-1].headers["authorization"] == "Bearer SECRET-dev"
        apiproxy.configure(second.url, cluster="dev")
        assert request("/x") == {"from": 2} and "authorization" not in second.requests[-1].headers
        with pytest.raises(TypeError, match="ping_interval"):
            apiproxy.configure(second.url, ping_intervall=3)
    finally:
        apiproxy.configure()


@pytest.mark.parametrize("url", ["localhost:4466", "ftp://a", "http://", "http://a b", "http://user:SECRET@a", "http://a/?q=1",
                                 "http://a/../b", "http://a\n", "http://a/#f", 5])
def test_an_address_that_can_not_be_is_refused(url):
    with pytest.raises((ValueError, TypeError)) as caught:
        apiproxy.Client(url)
    assert "SECRET" not in str(caught.value)


def test_contents_match_the_banners():
    with open(apiproxy.__file__) as file:
        source = file.read()
    contents = re.findall(r"^ +(\d+\. [A-Z][A-Za-z]+(?: [a-z]+)*)  ", ast.get_docstring(ast.parse(source), clean=False), re.M)
    assert contents == re.findall(r"^# -{78}\n# (\d+\. .*)$", source, re.M) and len(contents) == 12


def test_only_the_standard_library_is_imported():
    with open(apiproxy.__file__) as file:
        tree = ast.parse(file.read())
    names = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not names - {"__future__", "typing_extensions", "yaml"} - set(getattr(sys, "stdlib_module_names", names))
    at_the_top = [alias.name for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names]
    assert "yaml" not in at_the_top
    typing_only = [node for node in ast.walk(tree) if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"]
    assert any("typing_extensions" in ast.dump(node) for node in typing_only)


def test_importing_starts_nothing():
    code = ("import threading, logging, os, sys; before = dict(os.environ); opened = []\n"
            "sys.addaudithook(lambda name, args: opened.append(args) if name.startswith('socket') else None)\n"
            "import apiproxy; assert threading.active_count() == 1 and not logging.root.handlers and not opened, opened")
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=HERE)


def test_a_script_that_forgets_to_cancel_still_ends(demo):
    code = ("import sys, apiproxy\napiproxy.configure(sys.argv[1], cluster='dev')\n"
            "import threading; seen = threading.Event()\n"
            "apiproxy.stream_results('/api/v1/pods', lambda items: seen.set(), print)\nassert seen.wait(10)\n")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, demo(live=True).url], cwd=HERE, timeout=30,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.cluster
@pytest.mark.skipif(not REAL, reason="APIPROXY_TEST_URL is not set")
def test_the_quickstart_does_the_same_on_a_real_server():
    env = {**os.environ, "APIPROXY_URL": REAL, "APIPROXY_CLUSTER": os.environ["APIPROXY_TEST_CLUSTER"]}
    done = subprocess.run([sys.executable, "-W", "error", os.path.join(HERE, "examples", "quickstart.py")], env=env, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert "0 errors" in done.stdout.decode() and "0 threads left" in done.stdout.decode()


def test_what_the_readme_shows_runs_and_prints_what_it_says(demo, capsys, tmp_path, monkeypatch):
    with open(os.path.join(HERE, "README.md")) as file:
        text = file.read()
    blocks = re.findall(r"```(python|text)\n(.*?)```", text, re.S)
    assert len(blocks) > 14
    server, names = demo(), {"__name__": "readme"}
    for name, content in (("ca.crt", pem()[1]), ("token", "SECRET"), ("namespace", "default")):
        write(tmp_path / name, content)
    monkeypatch.setattr(apiproxy, "IN_CLUSTER", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    monkeypatch.setenv("KUBECONFIG", write(tmp_path / "config", config(server.url + "/clusters/dev")))
    try:
        for language, block in blocks:
            if language == "python":
                capsys.readouterr()
                exec(compile(block.replace("http://localhost:4466", server.url), "README.md", "exec"), names)
            else:
                assert capsys.readouterr().out == block
        assert re.findall(r"^\| [a-zA-Z]+ \| `(\w+)` \|$", text, re.M) == sorted(DOCUMENTED, key=lambda name: name.replace("_", ""))
    finally:
        apiproxy.configure()


LIVE = ("--seconds", "4")
EXAMPLES = {  # what they print, and how those are ended that would go on
    "quickstart": ("5/5 ready", "0 errors", "0 threads left"), "apply_manifest": ("applied",), "scale": ("6/6",), "exec": ("exit code 0",),
    "port_forward": ("stopped",), "drain": ("success",), "watch_pods": ("pods", LIVE), "watch_clusters": ("north", LIVE),
    "follow_logs": ("GET", LIVE), "top": ("memory", LIVE), "api_versions": ("apps/v1", LIVE),
}


def run_example(name, *args, **kwargs):
    env = {key: value for key, value in os.environ.items() if not key.startswith("APIPROXY_")}
    return subprocess.Popen([sys.executable, "-W", "error", os.path.join(HERE, "examples", name + ".py"), *args], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


@pytest.fixture(scope="module")
def running_examples():
    """All of them at once: mostly they wait."""
    running = {name: run_example(name, *(LIVE if LIVE in said else ())) for name, said in EXAMPLES.items()}
    yield running
    for done in running.values():
        done.kill()
        done.communicate()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_says(running_examples, name):
    done = running_examples[name]
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b""), err.decode()
    assert [text for text in EXAMPLES[name] if text != LIVE and text not in out.decode()] == []


def test_the_benchmark_measures_and_prints_a_table():
    done = run_example("benchmark", "--quick", "--only", "gets", "--plain")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b""), err.decode()
    assert re.search(r"^\| 300 small GETs[^|]*\| [\d.]+ ms \| [\d.]+ \|", out.decode(), re.M), out.decode()  # both were measured


def test_exec_gives_the_commands_exit_code_and_its_stderr():
    done = run_example("exec", "--command", "sh -c 'echo to stderr >&2; exit 3'")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 3 and b"to stderr" in err and b"exit code 3" in out


@pytest.mark.parametrize("name", ["watch_pods", "top"])
def test_ctrl_c_ends_an_example_cleanly(name):
    running = run_example(name)
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    try:
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()
    assert (running.returncode, err) == (0, b"")


def test_every_example_is_tried_and_named_in_the_readme():
    files = {name[:-3] for name in os.listdir(os.path.join(HERE, "examples")) if name.endswith(".py")}
    assert files == set(EXAMPLES) | {"common", "in_cluster", "benchmark"}
    with open(os.path.join(HERE, "README.md")) as file:
        readme = file.read()
    assert [name for name in files - {"common"} if "`%s.py`" % name not in readme] == []


KUBECTL = shutil.which("kubectl")


@pytest.mark.cluster
@pytest.mark.skipif(not REAL or not KUBECTL, reason="APIPROXY_TEST_URL is not set, or there is no kubectl")
def test_the_manifest_gives_the_pod_the_rights_that_its_program_needs(client, tmp_path):
    kubectl = [KUBECTL, "--server=" + os.environ["APIPROXY_TEST_DIRECT"], "--token=" + os.environ["APIPROXY_TEST_TOKEN"],
               "--certificate-authority=" + os.environ["APIPROXY_TEST_CA"]]
    env = {**os.environ, "KUBECONFIG": os.devnull, "HOME": str(tmp_path)}
    for args in (["create", "configmap", "apiproxy", "--from-file=apiproxy.py", "--from-file=examples/in_cluster.py"],
                 ["apply", "-f", "examples/in_cluster.yaml"]):
        subprocess.run(kubectl + args, env=env, cwd=HERE, check=True, timeout=60, stdout=subprocess.DEVNULL)
    admin = direct_client(client)
    try:
        pod = admin.request("/api/v1/namespaces/default/pods/apiproxy")
        assert pod["spec"]["volumes"][0]["configMap"]["name"] == "apiproxy"
        made = admin.request("/api/v1/namespaces/default/configmaps/apiproxy")
        assert sorted(made["data"]) == ["apiproxy.py", "in_cluster.py"]
        for name, text in made["data"].items():  # as the pod has them
            (tmp_path / name).write_text(text)
        token = admin.post("/api/v1/namespaces/default/serviceaccounts/apiproxy/token", {"spec": {}})["status"]["token"]
        shutil.copy(os.environ["APIPROXY_TEST_CA"], str(tmp_path / "ca.crt"))
        write(tmp_path / "token", token), write(tmp_path / "namespace", "default")
        host, port = os.environ["APIPROXY_TEST_DIRECT"].rsplit("/", 1)[1].split(":")
        env.update(KUBERNETES_SERVICE_HOST=host, KUBERNETES_SERVICE_PORT=port)
        done = subprocess.run([sys.executable, "-W", "error", str(tmp_path / "in_cluster.py"), "--folder", str(tmp_path), "--seconds", "2"],
                              env=env, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        assert "default/apiproxy: new -> Pending" in done.stdout.decode() and "trouble" not in done.stdout.decode()
    finally:
        subprocess.run(kubectl + ["delete", "--wait=false", "-f", "examples/in_cluster.yaml"], env=env, cwd=HERE, timeout=60, stdout=subprocess.DEVNULL)
        admin.remove("/api/v1/namespaces/default/configmaps/apiproxy")


@pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")
def test_kubectl_works_on_the_demo_cluster(demo, tmp_path):
    server = demo()

    def kubectl(*args, check=True, **kwargs):
        env = {**os.environ, "KUBECONFIG": os.devnull, "HOME": str(tmp_path)}
        done = subprocess.run([KUBECTL, "--server=%s/clusters/dev" % server.url, *args], env=env, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    manifest = tmp_path / "web.json"
    manifest.write_text(json.dumps(web("default", 2)))
    assert "created" in kubectl("apply", "-f", str(manifest))
    assert "scaled" in kubectl("scale", "deployment", "web", "--replicas=3")
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}") == "3"
    assert len(kubectl("get", "pods", "-l", "app=web", "--no-headers").splitlines()) == 3
    watching = subprocess.Popen([KUBECTL, "--server=%s/clusters/dev" % server.url, "get", "configmaps", "-w", "-o", "name"],
                                env={**os.environ, "KUBECONFIG": os.devnull, "HOME": str(tmp_path)}, stdout=subprocess.PIPE)
    try:
        eventually(lambda: any("watch=true" in record.path for record in list(server.requests)))
        manifest.write_text(json.dumps(config_map("seen-by-watch")))
        kubectl("apply", "-f", str(manifest))
        for line in watching.stdout:
            if b"seen-by-watch" in line:
                break
        else:
            raise AssertionError("get -w did not show it")
    finally:
        watching.kill()
        watching.communicate()
    manifest.write_text(json.dumps(web("default", 1)))
    assert "configured" in kubectl("apply", "-f", str(manifest))
    assert "deleted" in kubectl("delete", "deployment", "web")
    assert "web" not in kubectl("get", "deployments", "-o", "name")


# ------------------------------------------------------------------------------
# 10. Direct
# ------------------------------------------------------------------------------


def write(path, value, mode=0o600):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(mode)
    return str(path)


def config(server, user=None, name="here", cluster=None, namespace="", current=True):
    """A kubeconfig as a dict."""
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": name if current else "",
        "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
    }


def echo_headers(request, conn):
    conn.reply(200, {"path": request.path, "authorization": request.headers.get("authorization")})


def test_every_context_is_a_cluster_and_the_current_one_is_current(serve, tmp_path, monkeypatch):
    first, second = serve(echo_headers), serve(echo_headers)
    one = config(first.url + "/k8s/c-1", {"token": "SECRET-1"}, "arn:aws:eks:eu/one", namespace="shop")
    two = config(second.url, {"username": "me", "password": "SECRET-2"}, "two", current=False)
    two["contexts"] += [{"name": "broken", "context": {"cluster": "nowhere"}},
                        {"name": "arn:aws:eks:eu/one", "context": {"cluster": "two", "user": "two"}}]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([
        str(tmp_path / "missing"), write(tmp_path / "a", two), write(tmp_path / "b", one)]))
    with apiproxy.Client.from_kubeconfig() as client:  # the first file to name a thing wins: kubectl's rule
        assert client.cluster == "arn:aws:eks:eu/one" and sorted(client.endpoints) == ["arn:aws:eks:eu/one", "two"]
        assert client.request("/version") == {"path": "/version", "authorization": "Basic " + base64.b64encode(b"me:SECRET-2").decode()}
    with apiproxy.Client.from_kubeconfig(str(tmp_path / "b")) as client:
        assert client.request("/version") == {"path": "/k8s/c-1/version", "authorization": "Bearer SECRET-1"}
        assert client.endpoints[client.cluster].namespace == "shop"
        with pytest.raises(ValueError, match="Headlamp"):
            client.delete_plugin("x")
        with pytest.raises(ValueError, match="Headlamp"):
            client.request("/config", use_cluster=False)
    assert apiproxy.Client.from_kubeconfig(str(tmp_path / "a"), "two").cluster == "two"
    for context in ("broken", "nope"):
        with pytest.raises(ValueError, match=context):
            apiproxy.Client.from_kubeconfig(str(tmp_path / "a"), context)
    with pytest.raises(ValueError, match="there is no kubeconfig"):
        apiproxy.Client.from_kubeconfig(str(tmp_path / "missing"))


YAML = """\
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "%s"}}]
users: [{name: here, user: {tokenFile: token}}]
contexts: [{name: here, context: {cluster: here, user: here}}]
"""


@pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl")
def test_yaml_is_read_through_kubectl(serve, tmp_path):
    server = serve(echo_headers)
    write(tmp_path / "token", "SECRET-1\n")
    path = write(tmp_path / "config", YAML % server.url)
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version")["authorization"] == "Bearer SECRET-1"
    write(tmp_path / "config", "a: [")
    with pytest.raises(ValueError, match="kubectl can't read"):
        apiproxy.Client.from_kubeconfig(path)


def test_yaml_without_kubectl_is_read_by_pyyaml_or_gives_the_one_command_that_helps(serve, tmp_path, monkeypatch):
    server = serve(echo_headers)
    write(tmp_path / "token", "SECRET-1\n")
    path = write(tmp_path / "config", YAML % server.url)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ValueError, match="kubectl config view --raw --flatten -o json > kubeconfig.json"):
        apiproxy.Client.from_kubeconfig(path)
    stub = types.ModuleType("yaml")
    stub.safe_load = lambda text: config(server.url, {"tokenFile": "token"})
    monkeypatch.setitem(sys.modules, "yaml", stub)
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version")["authorization"] == "Bearer SECRET-1"


def test_a_token_file_is_read_again_as_it_rotates(serve, tmp_path, monkeypatch):
    server = serve(echo_headers, tls=True)
    for name, text in (("token", "SECRET-1\n"), ("namespace", "mine"), ("ca.crt", CERTIFICATE[CERTIFICATE.index("-----BEGIN CERT"):])):
        write(tmp_path / name, text)
    with pytest.raises(ValueError, match="not inside a cluster"):
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        apiproxy.Client.in_cluster()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    with pytest.raises(ValueError, match="not inside a cluster"):
        apiproxy.Client.in_cluster(str(tmp_path / "nowhere"))
    with apiproxy.Client.in_cluster(str(tmp_path), gzip=False) as client:
        assert (client.cluster, client.endpoints["in-cluster"].namespace, client.gzip) == ("in-cluster", "mine", False)
        assert client.request("/version")["authorization"] == "Bearer SECRET-1"
        write(tmp_path / "token", "SECRET-2\n")
        assert client.request("/version")["authorization"] == "Bearer SECRET-2"
        os.unlink(str(tmp_path / "token"))
        with pytest.raises(apiproxy.ApiError, match="FileNotFoundError"):
            client.request("/version")


def mutual(serve, certificate):
    """A server that wants a client certificate, and says whose it got."""
    def script(request, conn):
        subject = dict(pair[0] for pair in conn.sock.getpeercert().get("subject", ()))
        conn.reply(200, {"subject": subject.get("commonName"), "authorization": request.headers.get("authorization")})

    server = serve(script, tls=True)
    server.context.load_verify_locations(certificate)
    server.context.verify_mode = ssl.CERT_OPTIONAL
    return server


def pem():
    cut = CERTIFICATE.index("-----BEGIN CERT")
    return CERTIFICATE[:cut], CERTIFICATE[cut:]


def b64(text):
    return base64.b64encode(text.encode()).decode()


def test_client_certificates_as_files_and_as_data_which_leaves_no_file(serve, certificate, tmp_path, monkeypatch):
    server, (key, cert) = mutual(serve, certificate), pem()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    write(tmp_path / "key.pem", key), write(tmp_path / "cert.pem", cert)
    for user in ({"client-certificate-data": b64(cert), "client-key-data": b64(key)},
                 {"client-certificate": "cert.pem", "client-key": "key.pem"}):
        for cluster in ({"certificate-authority-data": b64(cert)}, {"certificate-authority": "cert.pem"}):
            path = write(tmp_path / "config", config(server.url, user, cluster=cluster))
            with apiproxy.Client.from_kubeconfig(path) as client:
                assert client.request("/version") == {"subject": "apiproxy tests", "authorization": None}
    assert not os.listdir(str(tmp_path / "temp"))
    bad = write(tmp_path / "bad", config(server.url, {"client-certificate-data": b64(cert), "client-key-data": b64("SECRET")}))
    with pytest.raises(ValueError, match="can't be used") as caught:
        apiproxy.Client.from_kubeconfig(bad)
    assert "SECRET" not in str(caught.value) and not os.listdir(str(tmp_path / "temp"))


def test_tls_names_and_authorities_are_checked_unless_told_not_to(serve, tmp_path, caplog):
    server, authority = serve(echo_headers, tls=True), {"certificate-authority-data": b64(pem()[1])}
    for cluster, works in (
        (authority, True), ({}, False), ({**authority, "tls-server-name": "localhost"}, True),
        ({**authority, "tls-server-name": "elsewhere.example"}, False), ({"insecure-skip-tls-verify": True}, True),
    ):
        path = write(tmp_path / "config", config(server.url, {"token": "SECRET"}, cluster=cluster))
        with apiproxy.Client.from_kubeconfig(path) as client:
            if works:
                assert client.request("/version")["authorization"] == "Bearer SECRET"
            else:
                with pytest.raises(apiproxy.ApiError, match="certificate verify failed"):
                    client.request("/version")
    assert [record.levelname for record in caplog.records if "not checked" in record.message] == ["WARNING"]


PLUGIN = """\
import json, os, sys, time
runs = os.environ["RUNS"]
open(runs, "a").write("x")
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
count = os.path.getsize(runs)
status = {"token": "SECRET-%s-%d" % (sys.argv[1], count)}
if len(sys.argv) > 2:
    status["expirationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + int(sys.argv[2])))
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


def plugin(tmp_path, *args, version="v1"):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/" + version, "command": sys.executable,
                     "args": [str(tmp_path / "plugin.py")] + list(args), "env": [{"name": "RUNS", "value": str(tmp_path / "runs")}]}}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_an_exec_plugin_runs_once_for_all_threads_and_again_after_a_401(serve, tmp_path, version):
    server = serve(echo_headers)
    path = write(tmp_path / "config", config(server.url, plugin(tmp_path, "a", "3600", version=version)))
    with apiproxy.Client.from_kubeconfig(path) as client:
        threads = [threading.Thread(target=client.request, args=("/version",)) for _ in range(8)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer SECRET-a-1"}
        server.script = lambda request, conn: conn.reply(401, {})
        with pytest.raises(apiproxy.ApiError):
            client.request("/version")
        server.script = echo_headers
        assert client.request("/version")["authorization"] == "Bearer SECRET-a-2"


def test_an_exec_plugins_credential_that_ends_is_fetched_again(serve, tmp_path):
    server = serve(echo_headers)
    path = write(tmp_path / "config", config(server.url, plugin(tmp_path, "b", "5")))
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert [client.request("/version")["authorization"][-1] for _ in "123"] == ["1", "2", "3"]


def test_an_exec_plugin_may_give_a_client_certificate(serve, certificate, tmp_path):
    server, (key, cert) = mutual(serve, certificate), pem()
    (tmp_path / "status").write_text(json.dumps({"status": {"clientCertificateData": cert, "clientKeyData": key}}))
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [
        "-c", "print(open(%r).read())" % str(tmp_path / "status")]}}
    path = write(tmp_path / "config", config(server.url, user, cluster={"certificate-authority-data": b64(cert)}))
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version") == {"subject": "apiproxy tests", "authorization": None}


def test_a_client_certificate_is_shown_only_for_its_own_cluster(serve, certificate, tmp_path):
    def script(request, conn):
        shown = conn.sock.getpeercert() is not None
        conn.reply(200, {"certificate": shown, "authorization": request.headers.get("authorization")})

    server, (key, cert) = serve(script, tls=True), pem()
    server.context.load_verify_locations(certificate)
    server.context.verify_mode = ssl.CERT_OPTIONAL
    mine = apiproxy.tls_context(ca_data=cert.encode())
    apiproxy.load_certificate(mine, cert.encode(), key.encode())
    with apiproxy.Client("", ssl_context=apiproxy.tls_context(ca_data=cert.encode())) as client:
        client.add_endpoint("mine", apiproxy.Endpoint(server.url, ssl_context=mine))  # one address, two clusters
        client.add_endpoint("yours", apiproxy.Endpoint(server.url, token="SECRET"))
        for _ in range(3):  # kept connections too
            assert client.request("/x", {"cluster": "mine"}) == {"certificate": True, "authorization": None}
            assert client.request("/x", {"cluster": "yours"}) == {"certificate": False, "authorization": "Bearer SECRET"}
    assert server.count == 2


@pytest.mark.parametrize("spec, said", [
    ({"command": "no-such-program-here"}, "FileNotFoundError"),
    ({"command": sys.executable, "args": ["-c", "import sys; sys.exit('please log in')"], "installHint": "get it there"}, "please log in get it there"),
    ({"command": sys.executable, "args": ["-c", "print('rubbish SECRET')"]}, "JSONDecodeError"),
    ({"command": sys.executable, "args": ["-c", "print('{\"status\": {}}')"]}, "no credential"),
])
def test_an_exec_plugin_that_fails_says_why(serve, tmp_path, spec, said):
    server = serve(echo_headers)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **spec}}
    with apiproxy.Client.from_kubeconfig(write(tmp_path / "config", config(server.url, user))) as client:
        with pytest.raises(apiproxy.ApiError) as caught:
            client.request("/version")
        assert said in str(caught.value) and "SECRET" not in str(caught.value) and not server.requests
        errors = []
        client.stream_results("/api/v1/pods", print, lambda error, cancel: [errors.append(error), cancel()])
        eventually(lambda: errors)


@pytest.mark.parametrize("text", [b"[]", b'"x"', b'{"clusters": [{}]}', b'{"users": {"a": 1}}', b'{"contexts": 5}'])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path, text):
    (tmp_path / "config").write_bytes(text)
    with pytest.raises(ValueError, match="not a kubeconfig"):
        apiproxy.Client.from_kubeconfig(str(tmp_path / "config"))


def test_a_certificate_without_its_key_is_refused(tmp_path):
    path = write(tmp_path / "config", config("https://127.0.0.1:1", {"client-certificate-data": b64(pem()[1])}))
    with pytest.raises(ValueError, match="belong together"):
        apiproxy.Client.from_kubeconfig(path)


@pytest.mark.parametrize("user", [{"auth-provider": {"name": "oidc"}}, {"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1"}}])
def test_ways_to_log_in_that_are_not_supported_are_refused(tmp_path, user):
    with pytest.raises(ValueError, match="auth-provider|v1alpha1"):
        apiproxy.Client.from_kubeconfig(write(tmp_path / "config", config("https://127.0.0.1:1", user)))


def test_a_clusters_proxy_is_its_own(serve, tmp_path):
    proxy = serve(lambda request, conn: conn.reply(200, {"asked": request.path}))
    path = write(tmp_path / "config", config("http://api.example", cluster={"proxy-url": proxy.url}))
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version") == {"asked": "http://api.example/version"}


def test_clusters_come_and_go_without_headlamp(serve, tmp_path):
    server = serve(echo_headers)
    with apiproxy.Client("") as client:
        answer = client.set_cluster({"kubeconfig": b64(json.dumps(config(server.url, {"token": "SECRET-1"})))})
        assert answer == {"clusters": [{"name": "here", "server": server.url}]}
        assert client.request("/version", {"cluster": "here"})["authorization"] == "Bearer SECRET-1"
        client.set_cluster({"name": "plain", "server": server.url})
        assert client.request("/version", {"cluster": "plain"})["authorization"] is None
        client.delete_cluster("here")
        with pytest.raises(ValueError, match="no such cluster"):
            client.request("/version", {"cluster": "here"})
        for bad in ({}, {"name": "x"}, {"kubeconfig": "not base64!"}):
            with pytest.raises(ValueError):
                client.set_cluster(bad)
        apiproxy.configure(client)
        assert apiproxy.request("/version", {"cluster": "plain"})["path"] == "/version"
        apiproxy.configure()


def test_clusters_behind_headlamp_and_direct_ones_stand_side_by_side(demo, client):
    server = demo("behind", "beside", tokens={"behind": "SECRET-1", "beside": "SECRET-2"})
    one = client(server.url, cluster="behind", backend_token="SECRET-3")
    one.set_token("behind", "SECRET-1")
    one.add_endpoint("alone", apiproxy.Endpoint(server.url + "/clusters/beside", token="SECRET-2"))
    seen = {"behind": Views(), "alone": Views()}
    for cluster, views in seen.items():
        one.stream_results_for_cluster("/api/v1/pods", {"cb": views.cb, "errCb": views.err_cb, "cluster": cluster})
    eventually(lambda: all(views.views for views in seen.values()))
    with pytest.raises(apiproxy.ApiError):
        one.request("/helm/x", {"cluster": "alone"})
    assert not seen["behind"].errors and not seen["alone"].errors
    assert all("x-headlamp_backend-token" not in record.headers for record in server.requests)


def test_a_credential_goes_only_where_it_was_meant_to_go(serve, client):
    headlamp, other = serve(echo_headers), serve(lambda request, conn: conn.reply(200, request.headers))
    one = client(headlamp)
    one.set_token("dev", "SECRET-1")
    one._kubeconfigs["dev"] = "SECRET-2"
    one.endpoints["dev"] = apiproxy.Endpoint(other.url)  # as a call sees it that comes between the two halves of add_endpoint
    seen = one.request("/x")
    assert not {"authorization", "kubeconfig", "x-headlamp-user-id"} & set(seen)
    one.add_endpoint("dev", apiproxy.Endpoint(other.url, token="SECRET-3"))
    assert one.request("/x")["authorization"] == "Bearer SECRET-3"
    del one.endpoints["dev"]
    assert one.request("/x")["authorization"] is None


def test_a_stream_of_a_cluster_that_is_taken_away_says_so_and_goes_on(serve, client):
    server = serve(lambda request, conn: conn.reply(500, {}))
    errors = []
    with apiproxy.Client("", **FAST) as one:
        for name in ("a/b", "c"):
            one.add_endpoint(name, apiproxy.Endpoint(server.url))
            one.stream_results_for_cluster("/x", {"cb": print, "errCb": lambda error, cancel: errors.append(error.status), "cluster": name})
        eventually(lambda: 500 in errors)
        for name in ("a/b", "c"):
            one.delete_cluster(name)
        eventually(lambda: errors.count(0) > 3)
        one.add_endpoint("c", apiproxy.Endpoint(server.url))
        del errors[:]
        eventually(lambda: 500 in errors)


# -- draining

def direct_demo(demo, client, **settings):
    server = demo(controllers=False, seed=False)
    one = client("http://127.0.0.1:1", cluster="here", drain_interval=0.05, **settings)
    one.add_endpoint("here", apiproxy.Endpoint(server.url + "/clusters/dev"))
    return one


@pytest.fixture(params=["demo", pytest.param("real", marks=needs_cluster)])
def bare(request, demo, client):
    """A direct Client with a node `bare.node` and a namespace `bare.space` of its own, on the demo and the real server."""
    if request.param == "demo":
        one = direct_demo(demo, client)
    else:
        one = direct_client(client, drain_interval=0.05)
    one.node = one.space = "drain-" + os.urandom(3).hex()
    one.pods = "/api/v1/namespaces/%s/pods" % one.space
    one.post("/api/v1/namespaces", {"metadata": {"name": one.space}})
    one.post("/api/v1/nodes", {"metadata": {"name": one.node}})
    yield one
    one.close()
    one.remove("/api/v1/nodes/" + one.node)
    one.remove("/api/v1/namespaces/" + one.space)


def add_pod(one, name, **metadata):
    return one.post(one.pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": {
        "nodeName": one.node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}})


def owned_by(kind):
    return [{"apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "1", "controller": True}]


def test_a_drain_evicts_what_may_go_and_leaves_what_would_come_back(bare):
    for name in "abc":
        add_pod(bare, name, ownerReferences=owned_by("ReplicaSet"))
    add_pod(bare, "daemon", ownerReferences=owned_by("DaemonSet"))
    assert bare.drain_node_status(bare.cluster, bare.node) == {"id": "", "cluster": bare.cluster}
    assert "success" in bare.drain_node(bare.cluster, bare.node)["message"]
    eventually(lambda: bare.drain_node_status(bare.cluster, bare.node)["id"] == "success", 20)
    assert bare.request("/api/v1/nodes/" + bare.node)["spec"]["unschedulable"] is True
    assert [pod["metadata"]["name"] for pod in bare.request(bare.pods)["items"]] == ["daemon"]


def test_a_drain_waits_for_a_disruption_budget_and_gives_up_in_the_end(bare):
    add_pod(bare, "kept", labels={"app": "kept"})
    pod = bare.request(bare.pods + "/kept")
    bare.patch(bare.pods + "/kept/status", {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    budgets = "/apis/policy/v1beta1/namespaces/%s/poddisruptionbudgets" % bare.space
    bare.post(budgets, {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": {
        "minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}}})
    bare.drain_timeout = 0.3
    bare.drain_node(bare.cluster, bare.node)
    status = eventually(lambda: bare.drain_node_status(bare.cluster, bare.node)["id"], 20)
    assert status.startswith("error: ") and "kept" in status
    assert bare.request(bare.pods + "/kept")["metadata"]["uid"] == pod["metadata"]["uid"]
    bare.drain_timeout = 20.0
    bare.drain_node(bare.cluster, bare.node)
    bare.remove(budgets + "/b")
    eventually(lambda: bare.drain_node_status(bare.cluster, bare.node)["id"] == "success", 20)


def test_a_drain_of_a_node_that_is_not_there_and_one_that_is_cancelled(bare):
    bare.drain_node(bare.cluster, "no-such-node")
    status = eventually(lambda: bare.drain_node_status(bare.cluster, "no-such-node")["id"])
    assert status.startswith("error: ") and "not found" in status


# -- forwarding

def pod_that_echoes(request, conn):
    """The pod's side of pods/portforward: what comes on channel 0 goes back in upper case."""
    if not request.is_watch:
        if "/endpoints/" in request.path:
            return conn.reply(200, {"subsets": [{"notReadyAddresses": [{"targetRef": {"kind": "Pod", "name": "not-yet"}}], "addresses": [
                {"targetRef": {"kind": "Pod", "name": "ready"}}]}]})
        return conn.reply(404 if "nope" in request.path else 200, {"metadata": {"name": "p"}})
    assert "v4.channel.k8s.io" in request.headers["sec-websocket-protocol"]
    conn.upgrade(request, "v4.channel.k8s.io")
    port = int(re.search(r"ports?=(\d+)", request.path).group(1)).to_bytes(2, "little")  # the API server asks a kubelet for "port"
    conn.send(frame(2, b"\0" + port) + frame(2, b"\1" + port))
    if "broken" in request.path:
        conn.send(frame(2, b"\1" + b"nothing listens there"))
        return conn.wait_end()
    while True:
        opcode, data = conn.read_frame()
        if opcode == 2:
            conn.send(frame(2, b"\0" + data[1:].upper()))
            if b"bye" in data:
                conn.send(frame(8, b"\x03\xe8"))
                return False
        elif opcode == 8:
            return False


def forwarded(made, data):
    with socket.create_connection(("127.0.0.1", int(made["port"])), 10) as local:
        local.sendall(data)
        back = b""
        while len(back) < len(data):
            piece = local.recv(65536)
            if not piece:
                break
            back += piece
        return back


def test_a_port_is_forwarded_by_this_machine_where_there_is_no_headlamp(serve, client):
    server = serve(pod_that_echoes)
    one = client("http://127.0.0.1:1", cluster="here")
    one.add_endpoint("here", apiproxy.Endpoint(server.url, token="SECRET"))
    made = one.start_port_forward("here", "ns", "p", 8080, "", "")
    assert made["targetPort"] == "8080" and made["id"] and "SECRET" not in repr(made)
    assert forwarded(made, b"hello") == b"HELLO" and forwarded(made, b"x" * 300000) == b"X" * 300000
    results = []
    threads = [threading.Thread(target=lambda n=n: results.append(forwarded(made, b"c%d" % n))) for n in range(8)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert sorted(results) == [b"C%d" % n for n in range(8)]
    assert forwarded(made, b"bye") == b"BYE"
    assert [(entry["id"], entry["status"]) for entry in one.list_port_forward("here")] == [(made["id"], "Running")]
    with pytest.raises(ValueError, match="already"):
        one.start_port_forward("here", "ns", "p", 8080, "", "", id=made["id"])
    with socket.create_connection(("127.0.0.1", int(made["port"]))) as open_one:
        open_one.sendall(b"hello")
        assert open_one.recv(5) == b"HELLO"
        assert one.stop_or_delete_port_forward("here", made["id"]) == "stopped"
        assert open_one.recv(1) == b""
    with pytest.raises(OSError):
        forwarded(made, b"x")
    assert [entry["status"] for entry in one.list_port_forward("here")] == ["Stopped"]
    one.stop_or_delete_port_forward("here", made["id"], False)
    assert one.list_port_forward("here") == []
    eventually(lambda: not one.tasks)


def test_a_service_is_forwarded_to_a_ready_pod_and_what_can_not_be_forwarded_says_so(serve, client):
    server = serve(pod_that_echoes)
    one = client("http://127.0.0.1:1", cluster="here")
    one.add_endpoint("here", apiproxy.Endpoint(server.url))
    made = one.start_port_forward("here", "ns", "", 80, "web", "ns")
    assert made["pod"] == "ready" and forwarded(made, b"a") == b"A"
    with pytest.raises(apiproxy.ApiError) as caught:
        one.start_port_forward("here", "ns", "nope", 80, "", "")
    assert caught.value.status == 404
    with pytest.raises(apiproxy.ApiError, match="can't listen"):
        one.start_port_forward("here", "ns", "p", 80, "", "", port=made["port"])
    broken = one.start_port_forward("here", "ns", "broken", 80, "", "")
    assert forwarded(broken, b"a") == b""
    eventually(lambda: any("nothing listens there" in entry["error"] for entry in one.list_port_forward("here")))
    with pytest.raises(apiproxy.ApiError):
        one.stop_or_delete_port_forward("here", "no-such-id")


# -- the real API server with a kubelet of our own

@pytest.fixture
def kubelet(serve, client):
    """(client, path of a pod) of the real server, with a Node whose kubelet is a script here."""
    def script(request, conn):
        if "/portForward/" in request.path:
            return pod_that_echoes(request, conn)
        if "/containerLogs/" in request.path:
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\none\ntwo\n\r\n")
            one.log_seen.wait(10)  # 1.20 loses what it reads together with the end
            return conn.send("0\r\n\r\n")
        assert "/exec/" in request.path and request.is_watch
        conn.upgrade(request, "v4.channel.k8s.io")
        conn.send(frame(2, b"\1") + frame(2, b"\2") + frame(2, b"\3"))
        opcode, data = conn.read_frame()
        conn.send(frame(2, b"\1" + data[1:]) + frame(2, b"\2oops") + frame(2, b"\3" + json.dumps({
            "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}).encode()))
        conn.send(frame(8, b"\x03\xe8"))
        return False

    server, one = serve(script, tls=True), direct_client(client)
    one.log_seen = threading.Event()
    name = "kubelet-" + os.urandom(3).hex()
    one.post("/api/v1/namespaces", {"metadata": {"name": name}})
    one.post("/api/v1/nodes", {"metadata": {"name": name}})
    one.patch("/api/v1/nodes/%s/status" % name, {"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": server.port}}}})
    one.post("/api/v1/namespaces/%s/pods" % name, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "nodeName": name, "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}})
    yield one, "/api/v1/namespaces/%s/pods/p" % name
    one.close()
    for path in ("/api/v1/namespaces/%s/pods/p" % name, "/api/v1/nodes/" + name, "/api/v1/namespaces/" + name):
        one.remove(path)


@pytest.mark.cluster
@pytest.mark.skipif(not REAL, reason="APIPROXY_TEST_URL is not set")
def test_forward_exec_and_logs_through_the_real_api_server(kubelet):
    one, pod = kubelet
    namespace = pod.split("/")[4]
    made = one.start_port_forward("direct", namespace, "p", 8080, "", "")
    assert forwarded(made, b"hello") == b"HELLO" and forwarded(made, b"x" * 100000) == b"X" * 100000
    one.stop_or_delete_port_forward("direct", made["id"])
    out, ended = {}, threading.Event()

    def on_message(message):
        out[message[0]] = out.get(message[0], b"") + message[1:]

    shell = one.stream(pod + "/exec?command=cat&stdin=1&stdout=1&stderr=1", on_message, {
        "additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})
    eventually(lambda: 1 in out)
    shell.get_socket().send(b"\0typed")
    assert ended.wait(10)
    assert (out[1], out[2], json.loads(out[3])["details"]["causes"][0]["message"]) == (b"typed", b"oops", "3")
    lines = []
    one.stream(pod + "/log", lines.append, {"failCb": lambda: None})
    eventually(lambda: b"".join(base64.b64decode(line) for line in lines) == b"one\ntwo\n")
    one.log_seen.set()


@pytest.mark.cluster
@pytest.mark.skipif(not REAL, reason="APIPROXY_TEST_URL is not set")
def test_every_way_to_log_in_to_the_real_api_server(tmp_path):
    server, ca = os.environ["APIPROXY_TEST_DIRECT"], {"certificate-authority": os.environ["APIPROXY_TEST_CA"]}
    token = os.environ["APIPROXY_TEST_TOKEN"]
    write(tmp_path / "token", token)
    with open(os.environ["APIPROXY_TEST_CLIENT_CERT"]) as cert, open(os.environ["APIPROXY_TEST_CLIENT_KEY"]) as key:
        data = {"client-certificate-data": b64(cert.read()), "client-key-data": b64(key.read())}
    ways = [
        {"token": token}, {"tokenFile": "token"}, data,
        {"client-certificate": os.environ["APIPROXY_TEST_CLIENT_CERT"], "client-key": os.environ["APIPROXY_TEST_CLIENT_KEY"]},
        {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [
            "-c", "import json; print(json.dumps({'status': {'token': open(%r).read()}}))" % str(tmp_path / "token")]}},
    ]
    for user in ways:
        with apiproxy.Client.from_kubeconfig(write(tmp_path / "config", config(server, user, cluster=ca))) as client:
            seen = Views()
            client.stream_results("/api/v1/namespaces", seen.cb, seen.err_cb)
            eventually(lambda: seen.views)
            assert client.request("/api/v1/namespaces/default")["kind"] == "Namespace" and not seen.errors
    for cluster in ({}, {**ca, "tls-server-name": "elsewhere.example"}):
        with apiproxy.Client.from_kubeconfig(write(tmp_path / "config", config(server, {"token": token}, cluster=cluster))) as client:
            with pytest.raises(apiproxy.ApiError, match="certificate verify failed"):
                client.request("/version")
    with apiproxy.Client.from_kubeconfig(write(tmp_path / "config", config(server, {"tokenFile": "token"}, cluster=ca))) as client:
        assert client.test_auth()
        write(tmp_path / "token", "SECRET-wrong")
        with pytest.raises(apiproxy.ApiError) as caught:
            client.test_auth()
        assert caught.value.status == 401
        write(tmp_path / "token", token)
        assert client.test_auth()
