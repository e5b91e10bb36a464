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
import types

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


def test_the_quickstart_shows_the_main_job_and_ends():
    env = {key: value for key, value in os.environ.items() if not key.startswith("APIPROXY_")}
    done = subprocess.run([sys.executable, "-W", "error", os.path.join(HERE, "examples", "quickstart.py")], env=env, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert "5/5 ready" in text and "0 errors" in text and "0 threads left" in text


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


EXAMPLES = {
    "watch_pods": "pods", "watch_clusters": "north", "apply_manifest": "applied", "scale": "6/6", "follow_logs": "GET",
    "exec": "exit code 0", "top": "memory", "port_forward": "stopped", "drain": "success", "api_versions": "apps/v1",
}


def run_example(name, *args, **kwargs):
    env = {key: value for key, value in os.environ.items() if not key.startswith("APIPROXY_")}
    return subprocess.Popen([sys.executable, "-W", "error", os.path.join(HERE, "examples", name + ".py"), *args], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_does_what_it_says(name):
    live = name in ("watch_pods", "watch_clusters", "follow_logs", "top", "api_versions")
    done = run_example(name, "--seconds", "1.5" if live else "20")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b""), err.decode()
    assert EXAMPLES[name] in out.decode()


def test_exec_gives_the_commands_exit_code_and_its_stderr():
    done = run_example("exec", "--command", "sh -c 'echo to stderr >&2; exit 3'")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 3 and b"to stderr" in err and b"exit code 3" in out


@pytest.mark.parametrize("name", ["watch_pods", "top"])
def test_ctrl_c_ends_an_example_cleanly(name):
    running = run_example(name)
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (0, b"")


def test_every_example_is_tried_and_named_in_the_readme():
    files = {name[:-3] for name in os.listdir(os.path.join(HERE, "examples")) if name.endswith(".py")}
    assert files == set(EXAMPLES) | {"quickstart", "common", "demo_cluster", "in_cluster"}
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
        return False
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
