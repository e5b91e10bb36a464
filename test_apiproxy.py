# SPDX-License-Identifier: Apache-2.0
"""Tests of apiproxy.py, in the order of its parts; then examples, surface and the real cluster.

Pure parts get tables of bytes. The rest talks to a scripted server on 127.0.0.1, whose scripts are
functions of one connection, or to the demo cluster of examples/. Tests marked `cluster` run against
a real API server when APIPROXY_TEST_URL is set. Nothing here depends on how long anything takes:
tests wait for conditions, and every time in the module is a setting.
"""

import ast
import base64
import hashlib
import inspect
import json
import os
import random
import re
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

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "examples")]

import apiproxy  # noqa: E402
from demo_cluster import DemoCluster  # noqa: E402

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
def no_secret_is_logged(caplog):
    """Every token and kubeconfig in these tests has SECRET in it; nothing that the module logs may."""
    caplog.set_level("DEBUG", "apiproxy")
    yield
    assert "SECRET" not in "".join(map(caplog.handler.format, caplog.get_records("call")))


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
        accept = base64.b64encode(hashlib.sha1(
            request.headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        offered = request.headers.get("sec-websocket-protocol", "").split(", ")[0]
        chosen = offered if protocol == "offered" else protocol
        self.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Accept: %s\r\n%s%s\r\n" % (
                      accept, "Sec-WebSocket-Protocol: %s\r\n" % chosen if chosen else "", extra))

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


class Request:
    def __init__(self, head, conn):
        self.lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = self.lines[0].split(" ")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in self.lines[1:])}
        self.body = conn.take(int(self.headers.get("content-length", 0)))
        self.is_watch = self.headers.get("upgrade") == "websocket"

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
            except OSError:
                return
            if self.stopped.is_set():
                sock.close()
                return
            self.count += 1
            self._go(self._serve, sock)

    def _serve(self, sock):
        self.open.add(sock)
        try:
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


