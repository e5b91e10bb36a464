# SPDX-License-Identifier: Apache-2.0
"""Tests of apiproxy.py, in the order of its parts; then surface, examples and the real cluster.

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
import simulate  # noqa: E402
from apiproxy import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, ConnectionClosed  # noqa: E402
from demo_cluster import DemoCluster  # noqa: E402
from faultproxy import FaultProxy  # noqa: E402
from wire import CERTIFICATE, Conn, RawServer, certificate_file, frame, server_context  # noqa: E402
from wire import Server  # noqa: E402


# ------------------------------------------------------------------------------
# Tools
#
# What the tests have in common: first what every test has to hold to, then the one place that
# reaches inside the module, then servers, objects and clusters.
# ------------------------------------------------------------------------------

# -- what every test has to hold to


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test():
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(3)
        assert not thread.is_alive(), thread.name


@pytest.fixture(autouse=True)
def no_secret_gets_out(caplog, monkeypatch):
    """No log line, error text, repr or traceback tells a token or kubeconfig.

    Every one in these tests has SECRET in it.
    """
    caplog.set_level("DEBUG", "apiproxy")
    errors, init = {}, apiproxy.ApiError.__init__

    def spy(self, *args, **kwargs):
        init(self, *args, **kwargs)
        errors.setdefault((type(self), args, str(kwargs)), self)

    monkeypatch.setattr(apiproxy.ApiError, "__init__", spy)
    yield
    texts = ["%s %r %s" % (error, error,
        "".join(traceback.format_exception(type(error), error, error.__traceback__)))
             for error in errors.values()]
    texts += [caplog.handler.format(record) for record in caplog.get_records("call")]
    texts = [re.sub(r'File "[^"]*", line .*\n.*', "", text) for text in texts]

    # as it is, and in base64 at each of three places
    for secret in ("SECRET", "U0VDUkVU", "NFQ1JFV", "TRUNSRV"):
        assert not [text for text in texts if secret in text]


# -- inside the module: all that these tests reach into beyond its functions and classes


WAIT = apiproxy.Cancel, "wait"  # what streams and retries wait with
OPEN = apiproxy.Wire, "open"  # what makes every connection
NEXT_MESSAGE = apiproxy.MessageReader, "next"
PARSE_JSON = apiproxy, "_loads"
RATE = apiproxy, "Rate"


def wrap(monkeypatch, place, wrapper):
    """From now on wrapper(real, ...) is called at a place of the module."""
    owner, name = place
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: wrapper(real, *args, **kwargs))


def set_time(monkeypatch, monotonic):
    """What the module takes for time.monotonic()."""
    changed = dict(vars(time), monotonic=monotonic)
    monkeypatch.setattr(apiproxy, "time", types.SimpleNamespace(**changed))


def set_time_of_rates(monkeypatch, monotonic):
    """The time that streams made from now on count their requests by."""
    def new_rate(real, burst, per_second):
        return real(burst, per_second, monotonic)

    wrap(monkeypatch, RATE, new_rate)


def default(setting):
    """A setting as a client has it that was told nothing."""
    return getattr(apiproxy.Settings, setting)


def connect(url, cancel=None, **settings):
    """A WebSocket by itself; cancel_now(cancel) ends the attempt."""
    if cancel is not None:
        settings["cancel"] = cancel
    return apiproxy.WebSocket.connect(url, **settings)


def new_cancel():
    return apiproxy.Cancel()


def cancel_now(cancel):
    cancel.set()


def is_stuck(cancel):
    """Whether what `cancel` would end is at work, and waits."""
    return cancel._held and getattr(cancel._held, "_waiting", True)


def tasks_with_a_connection(client):
    return [task for task in client.tasks if task._cancel._held]


def task_that_was_not_started(client):
    """A stream where it is before its thread runs, and the place where the client keeps it."""
    task = apiproxy.Poller(print, print, None, client, client.tasks)
    client.tasks[task] = None
    return task, client.tasks


def is_blocked(ws):
    """Whether a thread waits for the connection of a WebSocket."""
    return ws._wire._waiting


def is_readable(ws, seconds):
    """Wait until something has come on the connection of a WebSocket."""
    return ws._wire.wait(seconds)


def socket_of(ws):
    return ws._wire._sock


def read_instead(ws, read):
    """Have the WebSocket read(space) from something else than its connection."""
    ws._wire.read = read


def fill_connection(ws, tls):
    """Write until the system takes no more, so that what is written next has to wait."""
    while ws._wire.write(bytes(1000)):
        pass
    if not tls:
        ws._wire._out.clear()


def set_kubeconfig(client, cluster, text):
    """As if set_cluster had stored it, without a look at it."""
    client._kubeconfigs[cluster] = text


def has_kubeconfig(client, cluster):
    return cluster in client._kubeconfigs


def tombstones(collection):
    return len(collection._deleted)


def forget_default_context():
    apiproxy.default_context.cache_clear()


class Clock:
    """The module's time. What is waited for passes at once, and what is planned is done on the way.

    So hours of outage take a moment, at the real settings, and a busy machine adds nothing.

    passed  seconds so far
    waits   each wait that streams asked for
    asked   (when, whether it is a watch) of each request of a watched Api
    """

    def __init__(self, monkeypatch):
        self.passed, self.waits, self.asked = 0.0, [], []
        self._plans = []
        wrap(monkeypatch, WAIT, self._wait)
        set_time(monkeypatch, lambda: time.monotonic() + self.passed)
        set_time_of_rates(monkeypatch, lambda: self.passed)

    def _wait(self, real, cancel, seconds):
        self.waits.append(seconds)
        if real(cancel, 0):
            return True
        self.skip(seconds)
        return real(cancel, 0)

    def skip(self, seconds):
        """So many seconds later, after what was planned for meanwhile."""
        end = self.passed + seconds

        while self._plans and self._plans[0][0] <= end:
            when, action = self._plans.pop(0)
            self.passed += max(0.0, when - self.passed)
            action()

        self.passed += max(0.0, end - self.passed)

    def after(self, seconds, action):
        """Call `action()` when so many seconds have passed."""
        plans = self._plans + [(self.passed + seconds, action)]
        self._plans = sorted(plans, key=lambda plan: plan[0])

    def watch(self, api):
        """Note in `asked` when each request of an Api comes."""
        script = api.server.script

        def noted(request, conn):
            self.asked.append((self.passed, request.is_watch))
            return script(request, conn)

        api.server.script = noted
        return api

    def most(self, window, watches_only=False, since=0.0):
        """The most requests that came in any `window` seconds."""
        return most([when for when, is_watch in self.asked
                     if when >= since and (is_watch or not watches_only)], window)

    def is_no_storm(self):
        return self.most(10) <= 20 and self.most(60) <= 44


def most(times, window):
    """The most of these times in any `window` seconds."""
    return max(sum(start <= time < start + window for time in times) for start in times)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def waits(monkeypatch):
    """Every wait that streams ask for, none of which takes time."""
    asked = []

    def wait(real, cancel, seconds):
        asked.append(seconds)
        return real(cancel, min(seconds, 0.001))

    wrap(monkeypatch, WAIT, wait)
    return asked


# -- waiting and failing


def eventually(condition, timeout=10.0):
    """Wait until `condition()` is true; its last value."""
    end = time.monotonic() + timeout

    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "still not so after %s s" % timeout
        time.sleep(0.005)


def together(*calls):
    """Make these calls at the same time, each in a thread of its own; returns after the last."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def background(call, *args, **kwargs):
    """Start call(...) in a thread, whose `.result()` is what it gives, or raises."""
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


def failed(call, *args):
    """The ApiError of a call."""
    with pytest.raises(apiproxy.ApiError) as caught:
        call(*args)
    return caught.value


def outcome(call, *args, **kwargs):
    """The ConnectionClosed that call(...) raises, as (code, reason)."""
    with pytest.raises(ConnectionClosed) as caught:
        call(*args, **kwargs)
    return caught.value.code, caught.value.reason


REFUSED = ValueError


def result_of(function, *args):
    """What a call gives, or the kind of error that it raises."""
    try:
        return function(*args)
    except (ValueError, TypeError) as error:
        return TypeError if isinstance(error, TypeError) else REFUSED


def short(value):
    """A test's id for a value that may be large."""
    return repr(value)[-30:]


# -- marks


ROWS = {}  # each row of the catalogues, by its name, and the tests that show it


def row(*names):
    """The test shows these rows: H of handshakes, F of frames, W of watches and their faults."""
    def mark(test):
        for name in names:
            ROWS.setdefault(name, []).append(test)
        return test

    return mark


both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
REAL = os.environ.get("APIPROXY_TEST_URL")
KUBECTL = shutil.which("kubectl")
needs_cluster = [pytest.mark.cluster,
    pytest.mark.skipif(not REAL, reason="APIPROXY_TEST_URL is not set")]


PROXY_AND_DIRECT = [pytest.param(way, marks=needs_cluster) for way in ("proxy", "direct")]


def on_the_real_server(test):
    """For tests that need APIPROXY_TEST_URL."""
    for mark in needs_cluster:
        test = mark(test)
    return test


# -- servers, and the ways to them


@pytest.fixture(scope="session")
def certificate():
    """A file with the tests' key and certificate."""
    with certificate_file() as name:
        yield name


@pytest.fixture
def trusting(certificate):
    """An SSLContext that trusts the tests' certificate."""
    return ssl.create_default_context(cafile=certificate)


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
REAL_TIMES = {name: default(name) for name in FAST}


@pytest.fixture
def new_client():
    """new_client(server or url, **settings) -> Client with fast retries, closed after the test."""
    clients = []

    def make(server, **settings):
        url = server if isinstance(server, str) else server.url
        clients.append(apiproxy.Client(url, **{**FAST, "cluster": "dev", **settings}))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def hello(request, conn):
    conn.upgrade(request)
    conn.send(frame(TEXT, "hello"))
    conn.wait_end()


def hello_or_json(request, conn):
    return hello(request, conn) if request.is_watch else conn.reply(200, {})


ACCEPT = "Sec-WebSocket-Accept: {accept}\r\n"


def accepting(request, extra="", head="HTTP/1.1 101 Switching Protocols"):
    """The bytes of a 101; `{accept}` in `extra` becomes the right answer to the key."""
    lines = [head, "Upgrade: websocket", "Connection: Upgrade", ACCEPT + extra]
    return "\r\n".join(lines).replace("{accept}", request.accept).encode() + b"\r\n"


def hang(request, conn):
    conn.wait_end()
    return False


def eof(request, conn):
    return False


def reset(request, conn):
    conn.reset()
    return False


def sends(*pieces):
    return lambda request, conn: [conn.send(piece) for piece in pieces] and hang(request, conn)


def echo_headers(request, conn):
    conn.reply(200, {"path": request.path, "authorization": request.headers.get("authorization")})


@pytest.fixture
def listener():
    """listener(full=False) -> "127.0.0.1:port" that says nothing; if full, it does not accept."""
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
    for sock in opened:
        sock.close()


@pytest.fixture
def names(monkeypatch):
    """A dict of host names, and the addresses that a look-up gives, or a function of those."""
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


def proxying(answer=b"HTTP/1.1 200 Connected\r\n\r\n"):
    """The script of a CONNECT proxy, which answers byte by byte."""
    def script(request, conn):
        place = "127.0.0.1", int(request.path.rpartition(":")[2])
        with socket.create_connection(place, 5) as far:
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for index in range(len(answer)):
                conn.send(answer[index:index + 1])
            other = {conn.sock: far, far: conn.sock}
            while True:
                for sock in select.select(list(other), [], [], 10)[0]:
                    data = sock.recv(65536)
                    if not data:
                        return False
                    other[sock].sendall(data)

    return script


@pytest.fixture
def through(new_client):
    """through(api, buffer=None) -> a FaultProxy before its server, and a new_client through it."""
    opened = []

    def start(api, buffer=None):
        proxy = FaultProxy(api.server.port, buffer=buffer)
        opened.append(proxy)
        url = "http://127.0.0.1:%d" % proxy.port
        return proxy, lambda server, **settings: new_client(url, **settings)

    yield start
    for proxy in opened:
        proxy.close()


def sockets():
    """How many sockets this process has open; 0 where nobody can tell."""
    count = 0

    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            count += os.readlink("/proc/self/fd/" + name).startswith("socket:")
        except OSError:
            pass

    return count


def descriptors():
    """How many files and sockets this process has open; 0 where nobody can tell."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("apiproxy-")]


# -- answers

JSON = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + "Transfer-Encoding: chunked\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def zipped(data):
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    return head % len(data) + data


# -- objects of the API, and what streams show of them


def pod(name, version="1", uid=None, **more):
    """An object as a watch sends it; "a" at version "1" is "a1" in `text`."""
    metadata = {"name": name, "uid": uid or "u" + name, "resourceVersion": version}
    metadata.update(more.pop("metadata", {}))
    return {"kind": "Pod", "apiVersion": "v1", **more, "metadata": metadata}


def pods(*items, version="10", **metadata):
    metadata = {"resourceVersion": version, **metadata}
    return {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": list(items)}


ACTIONS = {"+": "ADDED", "~": "MODIFIED", "-": "DELETED"}


def event(action, name, version="1", **more):
    return {"type": action, "object": pod(name, version, **more)}


def error(code=None, reason="", **more):
    status = {"kind": "Status", "reason": reason, **more}
    if code:
        status["code"] = code
    return {"type": "ERROR", "object": status}


def bookmark(version="15"):
    return {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": version}}}


def text(items):
    return " ".join(item["metadata"]["name"] + item["metadata"]["resourceVersion"]
        for item in items)


def query(request):
    return dict(urllib.parse.parse_qsl(request.path.partition("?")[2]))


def config_map(name, space=None, labels=None, **data):
    metadata = {"name": name}
    if space:
        metadata["namespace"] = space
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def web(space, replicas=1):
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": space}, "spec": spec}


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
        if not self.views:
            return None
        return {item["metadata"]["name"]: item.get("data") or None for item in self.views[-1]}


# -- an API server of a few scripts


def play(steps, request, conn):
    """A watch. It stays open unless a step ends it.

    A dict is an event, bytes go out as they are, 1000 and up is a close frame, below that the
    status of a refusal (with headers and a body behind it), the rest are scripts.
    """
    if steps and isinstance(steps[0], int) and steps[0] < 1000:
        status, headers, body = (list(steps) + [(), b""][len(steps) - 1:])[:3]
        conn.reply(status, body, headers)
        return False

    if hang not in steps:
        conn.upgrade(request)
    for step in steps:
        if isinstance(step, dict):
            conn.push(step)
        elif isinstance(step, int):
            conn.send(frame(8, step.to_bytes(2, "big")))
        elif isinstance(step, bytes):
            conn.send(step)
        elif step(request, conn) is False:
            return False

    return hang(request, conn)


def once(*steps):
    return lambda request, conn: play(steps, request, conn)


def cut(request, conn):
    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + json.dumps(pods(pod("x"))))
    return False


def pong(request, conn):
    """A peer that is dead but for its answers to pings."""
    while True:
        opcode, payload = conn.read_frame()
        conn.send(frame(10, payload) if opcode == 9 else b"")


class Api:
    """An API server of three scripts: answers to LISTs, to GETs of one object, and watches.

    They are used in turn, and the last stays. An answer is a dict, (status, body, headers) or
    script(request, conn).
    """

    def __init__(self, serve, lists=(), watches=((),), gets=(), tls=False):
        self.lists = list(lists or [pods(pod("a"))])
        self.watches = list(watches)
        self.gets = list(gets)
        self.views, self.errors, self.times = [], [], []
        self.server = serve(self.answer, tls=tls)

    def answer(self, request, conn):
        self.times.append(time.monotonic())
        steps = self.gets if "/pods/" in request.path else self.lists
        if request.is_watch:
            steps = self.watches
        step = steps.pop(0) if len(steps) > 1 else steps[0]

        if request.is_watch:
            return play(step, request, conn)
        if callable(step):
            return step(request, conn)
        conn.reply(*step if isinstance(step, tuple) else (200, step))

    def start(self, new_client, params=None, name=None, **settings):
        self.client = new_client(self.server, **settings)
        if name:
            args = name, self.view, self.error, params
            self.cancel = self.client.stream_result("/api/v1/pods", *args)
        else:
            self.cancel = self.client.stream_results("/api/v1/pods", self.view, self.error, params)
        return self

    def view(self, got):
        if isinstance(got, list):
            self.views.append(text(got))
        else:
            self.views.append((text([got]) + " " + got.get("actionType", "")).strip())

    def error(self, error, cancel):
        self.errors.append(error.status)

    def asked(self, watch, number=None):
        """The queries of all LISTs, or watches, so far; of one, as soon as it is there."""
        if number is not None:
            return eventually(lambda: self.asked(watch)[number - 1:number])[0]
        return [query(request) for request in list(self.server.requests)
            if request.is_watch == watch and "/pods/" not in request.path]


B2 = event("ADDED", "b", "12")
PART = frame(1, json.dumps(event("ADDED", "c", "19")))[:30]
CHANGES = [B2, event("MODIFIED", "a", "14"), event("DELETED", "b", "16")]
STATES = ["a1", "a1 b12", "a14 b12", "a14"]  # what a watcher from "10" on has to see
AFTER = pods(pod("a", "14"), version="16")  # the list after all of it


def since(*events):
    """A step of a watch: those of `events` that came after the version asked for."""
    def step(request, conn):
        after = int(query(request)["resourceVersion"])
        conn.push(*[change for change in events
                    if int(change["object"]["metadata"]["resourceVersion"]) > after])

    return step


# -- kubeconfigs


def write(path, value, mode=0o600):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(mode)
    return str(path)


def b64(text):
    return base64.b64encode(text.encode()).decode()


def pem():
    cut = CERTIFICATE.index("-----BEGIN CERT")
    return CERTIFICATE[:cut], CERTIFICATE[cut:]


def config(server, user=None, name="here", cluster=None, namespace="", current=True):
    """A kubeconfig as a dict."""
    context = {"cluster": name, "user": name, "namespace": namespace}
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": name if current else "",
        "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": context}],
    }


def kubeconfig(*names):
    return b64(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": names[0],
        "clusters": [{"name": name, "cluster": {"server": "https://127.0.0.1:1"}}
            for name in names],
        "users": [{"name": name, "user": {"token": "SECRET-" + name}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
    }))


# -- the demo cluster and the real API server


@pytest.fixture
def demo():
    """demo(**settings) -> DemoCluster, stopped after the test."""
    running = []

    def start(*clusters, **settings):
        running.append(DemoCluster(clusters or ("dev",), **settings).start())
        return running[-1]

    yield start
    for cluster in running:
        cluster.stop()


def direct_client(new_client, **settings):
    """A client of the real API server itself, over TLS with the cluster's CA, as admin."""
    context = ssl.create_default_context(cafile=os.environ["APIPROXY_TEST_CA"])
    client = new_client(REAL, **{"cluster": "direct", **settings})
    client.add_endpoint("direct", apiproxy.Endpoint(
        os.environ["APIPROXY_TEST_DIRECT"], ssl_context=context,
        token=os.environ["APIPROXY_TEST_TOKEN"]))
    return client


class Space:
    """A Client with a namespace of its own, `space`. What this has not itself, the Client has."""

    def __init__(self, client, space):
        self.client, self.space = client, space
        self.maps = "/api/v1/namespaces/%s/configmaps" % space
        self.pods = "/api/v1/namespaces/%s/pods" % space
        client.post("/api/v1/namespaces", {"metadata": {"name": space}})

    def __getattr__(self, name):
        return getattr(self.client, name)

    def end(self):
        self.client.close()
        self.client.remove("/api/v1/namespaces/" + self.space)


@pytest.fixture(params=["demo"] + PROXY_AND_DIRECT)
def api(request, new_client, demo):
    """A Space in the demo cluster and in the real one."""
    if request.param == "demo":
        client = new_client(demo(controllers=False).url)
    elif request.param == "proxy":
        client = new_client(REAL, cluster=os.environ["APIPROXY_TEST_CLUSTER"])
    else:
        client = direct_client(new_client)

    space = Space(client, "t-" + os.urandom(4).hex())
    yield space
    space.end()


# ------------------------------------------------------------------------------
# 1. Types and errors
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("call, nearest", [
    (lambda c: apiproxy.Client(clustr="a"), "cluster"),
    (lambda c: apiproxy.configure(gzipp=True), "gzip"),
    (lambda c: c.request("/x", {"isJson": True}), "isJSON"),
    (lambda c: c.cluster_request("/x", {"timeOut": 1}), "timeout"),
    (lambda c: c.post("/x", {}, True, {"header": {}}), "headers"),
    (lambda c: c.put("/x", {}, True, {"Body": ""}), "body"),
    (lambda c: c.patch("/x", {}, True, {"autoLogout": True}), "autoLogoutOnAuthError"),
    (lambda c: c.remove("/x", {"Method": "GET"}), "method"),
    (lambda c: c.set_cluster({"kubeConfig": ""}), "kubeconfig"),
    (lambda c: c.stream("/x", print, {"isJSON": True}), "isJson"),
    (lambda c: c.stream_results_for_cluster("/x", {"cb": print, "err_cb": print}), "errCb"),
])
def test_an_unknown_option_is_refused_and_the_nearest_named(new_client, call, nearest):
    with pytest.raises(TypeError, match="did you mean '%s'" % nearest):
        call(new_client("http://127.0.0.1:1"))


@pytest.mark.parametrize("error", [
    apiproxy.ApiError(409, "m", phrase="p", reason="r", details={"a": [1]}, body=b"b",
        method="GET", url="u", retry_after=2.0),
    apiproxy.WebSocketError(0, "m"), apiproxy.HandshakeError(403, "m", phrase="p", body=b"b"),
    apiproxy.ProtocolError(1002, "m"), apiproxy.ConnectionClosed(1006, "gone"),
    apiproxy.ConnectionClosed(1005),
])
def test_errors_pickle_and_copy_with_all_they_know(error):
    twins = [pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for twin in twins + [copy.copy(error), copy.deepcopy(error)]:
        assert (type(twin), repr(twin), vars(twin)) == (type(error), repr(error), vars(error))
        # one `except ApiError` is enough
        assert str(twin) == str(error)
        assert isinstance(twin, apiproxy.ApiError)


@pytest.mark.parametrize("phrase, body, text, reason, details", [
    ("Not Found", b'{"kind": "Status", "message": "pods \\"x\\" not found", "reason": "NotFound", '
     b'"details": {"name": "x"}}',
     'Not Found - pods "x" not found', "NotFound", {"name": "x"}),
    ("Not Found", b"", "Not Found", "", {}),
    ("Not Found", b" \r\n no cluster\n", "Not Found - no cluster", "", {}),
    ("", b"", "404", "", {}), ("", b"plain", "plain", "", {}),
    ("Not Found", b"Not Found", "Not Found", "", {}), ("Bad", b'{"error": "x"}', "Bad", "", {}),
    ("Bad", b'["a"]', "Bad", "", {}),
    ("Bad", b'{"message": null, "reason": null, "details": []}', "Bad", "", {}),
    ("Bad", b'{"message": 5, "details": "x"}', "Bad - 5", "", {}),
    ("Bad", b"\xff", "Bad - \ufffd", "", {}), ("Bad", b"x" * 5000, "Bad - " + "x" * 1000, "", {}),
    ("Bad", b"[" * 200000, "Bad - " + "[" * 1000, "", {}),
], ids=short)
def test_an_error_says_the_phrase_and_the_detail(phrase, body, text, reason, details):
    error = apiproxy.Response(404, phrase, {}, body, "GET", "http://h/x").error()
    assert (str(error), error.status, error.reason, error.details) == (text, 404, reason, details)
    assert (error.method, error.url, error.body) == ("GET", "http://h/x", body)


@pytest.mark.parametrize("value, seconds", [
    ("7", 7), (" 7 ", 7), ("-3", 0), ("0", 0), ("Mon, 01 Jan 2001 00:00:00 GMT", 0),
    (None, None), ("", None), ("soon", None),
    ("1.5", None), ("9" * 5000, None), ("Mon, 99 Foo 0000 99:99:99 GMT", None),
    ("Mon, 01 Jan 99999 00:00:00 GMT", None)], ids=short)
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


@pytest.mark.parametrize("name, quoted", [
    ("web-1.x_~", "web-1.x_~"), ("system:node", "system%3Anode"), ("a b", "a%20b"),
    ("d?y#z&w=1", "d%3Fy%23z%26w%3D1"), ("%2e%2e", "%252e%252e"), ("%2f", "%252f"),
    ("é", "%C3%A9"),
    ("\u2028", "%E2%80%A8"), ("a@b", "a%40b"), ("...", "..."), ("\\", "%5C"), ("", REFUSED),
    (".", REFUSED), ("..", REFUSED), ("a/b", REFUSED), ("a\r\nb", REFUSED), ("a\0", REFUSED),
    ("\x7f", REFUSED), ("\x85", REFUSED), ("\ud800", REFUSED), (None, TypeError), (b"x", TypeError),
    (5, TypeError)])
def test_a_name_is_one_segment(name, quoted):
    assert result_of(apiproxy.segment, name) == quoted


@pytest.mark.parametrize("path, sent", [
    ("/api/v1/pods?limit=5&x=a%20b", "/api/v1/pods?limit=5&x=a%20b"), ("", ""), ("api", "api"),
    ("//h/x", "//h/x"), ("/%zz", "/%zz"), ("/é?x=é", "/%C3%A9?x=%C3%A9"),
    ("/x?y=..&z=a/../b", "/x?y=..&z=a/../b"), ("/a...b/..c", "/a...b/..c"), ("/@h:1/x", "/@h:1/x"),
    ("/a b", REFUSED), ("/a\r\nX: y", REFUSED), ("/a\n", REFUSED), ("/a\0", REFUSED),
    ("/a\t", REFUSED), ("/\x7f", REFUSED), ("/\x85", REFUSED), ("/\xa0", REFUSED),
    ("/\u2028", REFUSED), ("/a#b", REFUSED), ("/a?b#c", REFUSED), ("/\ud800", REFUSED),
    ("/a/../b", REFUSED), ("..", REFUSED), ("/a/.", REFUSED), ("/./a", REFUSED),
    ("/a/..?x", REFUSED), ("/a/%2e%2e/b", REFUSED), ("/a/%2E./b", REFUSED), ("/a/.%2e", REFUSED),
    ("/%2e/b", REFUSED), (None, TypeError), (b"/x", TypeError)])
def test_a_path_arrives_as_written_or_is_refused(path, sent):
    assert result_of(apiproxy.check_path, path) == sent


@pytest.mark.parametrize("path, params, whole", [
    ("/x", None, "/x"), ("/x", {}, "/x"), ("/x?a=1", None, "/x?a=1"), ("/x", {"a": None}, "/x"),
    ("/x?a=1", {"a": None}, "/x?a=1"), ("/x", {"a": 1, "b": "é &="}, "/x?a=1&b=%C3%A9+%26%3D"),
    ("/x", {"a": True, "b": False, "c": 0, "d": ""}, "/x?a=true&b=false&c=0&d="),
    ("/x?a=1", {"b": 2}, "/x?a=1&b=2"), ("/x?a=1&b=2&a=3", {"a": 4}, "/x?b=2&a=4"),
    ("/x?%61=1&b", {"a": 2}, "/x?b&a=2"), ("/x?a=b?c", {"d": 1}, "/x?a=b?c&d=1"),
    ("/x?", {"a": 1}, "/x?a=1"), ("/x?&&a=1&", {"b": 1}, "/x?a=1&b=1"),
    ("/x", {"a": ["1", True, 2], "b": ("z",)}, "/x?a=1&a=true&a=2&b=z"),
    ("/x", {"c": "a\r\nb#\0"}, "/x?c=a%0D%0Ab%23%00"), ("/x", {"&": "="}, "/x?%26=%3D"),
    ("/x?b=1", {"a": []}, "/x?b=1"), ("/x", {"a": []}, "/x"), ("/x", {"a": ["1", None]}, "/x?a=1"),
    ("/x", {"a": "\ud800"}, REFUSED), ("/x", "a=1", TypeError), ("/x", ["a"], TypeError)])
def test_parameters_join_the_query(path, params, whole):
    assert result_of(apiproxy.with_query, path, params) == whole


@pytest.mark.parametrize("function, args, result", [
    (apiproxy.combine_path, ("http://h", "x"), "http://h/x"),
    (apiproxy.combine_path, ("http://h/", "/x"), "http://h/x"),
    (apiproxy.combine_path, ("http://h", "//x"), "http://h//x"),
    (apiproxy.combine_path, ("http://h", "@e/x"), "http://h/@e/x"),
    (apiproxy.combine_path, ("http://h", ""), "http://h/"), (apiproxy.combine_path, ("", ""), "/"),
    (apiproxy.api_root, ("", "v1"), "/api/v1"),
    (apiproxy.api_root, ("apps", "v1"), "/apis/apps/v1"),
    (apiproxy.api_root, ("a?b", "v#"), "/apis/a%3Fb/v%23"),
    (apiproxy.api_root, ("..", "v1"), REFUSED), (apiproxy.api_root, ("a/b", "v1"), REFUSED),
    (apiproxy.api_root, ("", ""), REFUSED), (apiproxy.api_root, ("", ".."), REFUSED),
    (apiproxy.split_api_version, ("v1",), ("", "v1")),
    (apiproxy.split_api_version, ("apps/v1",), ("apps", "v1")),
    (apiproxy.split_api_version, ("",), REFUSED), (apiproxy.split_api_version, ("/v1",), REFUSED),
    (apiproxy.split_api_version, ("apps/",), REFUSED),
    (apiproxy.split_api_version, ("a/b/c",), REFUSED),
])
def test_addresses_are_put_together(function, args, result):
    assert result_of(function, *args) == result


@pytest.mark.parametrize("url, address", [
    ("http://h", (False, "h", 80, "h", "/")),
    ("https://h:443/a?b=c", (True, "h", 443, "h", "/a?b=c")),
    ("http://H:443/", (False, "h", 443, "h:443", "/")), ("HTTP://h/x", (False, "h", 80, "h", "/x")),
    ("http://h:", (False, "h", 80, "h", "/")),
    ("https://[::1]:8443/x", (True, "::1", 8443, "[::1]:8443", "/x")),
    ("http://[fe80::1%eth0]/", (False, "fe80::1%eth0", 80, "[fe80::1]", "/")),
    ("http://h?a", (False, "h", 80, "h", "/?a")),
    ("http://h//..//x", (False, "h", 80, "h", "//..//x")), ("ws://h", REFUSED), ("h", REFUSED),
    ("http:h", REFUSED), ("http://", REFUSED), ("http:///x", REFUSED), ("http://:80", REFUSED),
    ("", REFUSED), ("http://u@h", REFUSED), ("http://u:p@h", REFUSED), ("http://@h", REFUSED),
    ("http://h/#f", REFUSED), ("http://h#@e", REFUSED), ("http://h/\r\nX: y", REFUSED),
    ("http://h /", REFUSED), ("http://h\0", REFUSED), ("http://hé/", REFUSED),
    ("http://h/é", REFUSED), ("http://h:x", REFUSED), ("http://h:65536", REFUSED),
    ("http://h:-1", REFUSED), ("http://[::1", REFUSED), ("\thttp://h", REFUSED),
    (b"http://h", TypeError), (None, TypeError)])
def test_an_address_says_where_to_go(url, address):
    assert result_of(apiproxy.split_url, url, ("http", "https")) == address


@pytest.mark.parametrize("headers, result", [
    (None, {}), ({"X-A": "b\t c", "x": "é"}, {"X-A": "b\t c", "x": "é"}), ({"X": ""}, {"X": ""}),
    ({"X": "a\r\nb"}, REFUSED), ({"X": "a\nb"}, REFUSED), ({"X": "a\r"}, REFUSED),
    ({"X": "a\0"}, REFUSED), ({"X": "\x7f"}, REFUSED), ({"X": "\x85"}, REFUSED),
    ({"X": "\u20ac"}, REFUSED), ({"": "x"}, REFUSED), ({"X Y": "x"}, REFUSED),
    ({"X:": "x"}, REFUSED), ({"X\r\n": "x"}, REFUSED), ({"É": "x"}, REFUSED),
    ({"X": None}, TypeError), ({"X": 1}, TypeError), ({1: "x"}, TypeError),
    ({"X": b"y"}, TypeError), ([("X", "y")], TypeError), ("X: y", TypeError)])
def test_headers_that_could_break_a_request_are_refused(headers, result):
    assert result_of(apiproxy.check_headers, headers) == result
    assert apiproxy.check_headers({"X": "y"}) is not headers


def test_a_refused_header_does_not_repeat_its_value():
    for value in ("SECRET\r\n", "SECRET\u20ac"):
        with pytest.raises(ValueError) as caught:
            apiproxy.check_headers({"Authorization": value})
        assert "SECRET" not in "".join(traceback.format_exception(None, caught.value, None))


# ------------------------------------------------------------------------------
# 3. YAML
# ------------------------------------------------------------------------------


# ------------------------------------------------------------------------------
# 4. Frames
#
# Bytes in, values out, cut at every byte.
# ------------------------------------------------------------------------------


def feed(*pieces, limit=70000):
    """What a MessageReader gives for bytes that come in these pieces."""
    reader, found = apiproxy.MessageReader(limit), []

    for piece in pieces:
        while piece:
            space = reader.space()[:len(piece)]
            space[:], piece = piece[:len(space)], piece[len(space):]
            reader.received(len(space))
            found += iter(reader.next, None)

    return found


def test_masking_is_the_rfcs_and_undoes_itself():
    # RFC 6455 5.7
    assert apiproxy.apply_mask(b"Hello", b"\x37\xfa\x21\x3d") == b"\x7f\x9f\x4d\x51\x58"

    chance = random.Random(1)

    for size in list(range(12)) + list(range(440, 462)) + [chance.randrange(5000)
            for _ in range(20)]:
        data, key = os.urandom(size), os.urandom(4)
        masked = apiproxy.apply_mask(data, key)
        assert masked == bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
        assert apiproxy.apply_mask(bytes(masked), key) == data


@pytest.mark.parametrize("size, head", [
    (0, b"\x82\x80"), (125, b"\x82\xfd"), (126, b"\x82\xfe\x00\x7e"), (65535, b"\x82\xfe\xff\xff"),
    (65536, b"\x82\xff\0\0\0\0\0\1\0\0")])
def test_a_frame_has_the_shortest_length(size, head):
    assert apiproxy.encode_frame(2, b"x" * size, b"\0\0\0\0") == head + b"\0\0\0\0" + b"x" * size
    assert apiproxy.encode_frame(0, b"", b"\0\0\0\0", fin=False)[0] == 0


@pytest.mark.parametrize("code, reason, payload", [
    (1000, "", b"\x03\xe8"), (4999, "bye", b"\x13\x87bye"),
    (1001, "é" * 62, b"\x03\xe9" + "é".encode() * 61), (1005, "", REFUSED), (1006, "", REFUSED),
    (1015, "", REFUSED), (999, "", REFUSED), (5000, "", REFUSED), (0, "", REFUSED),
    (1000, "\ud800", REFUSED)])
def test_a_close_payload_is_legal_and_cut_at_a_character(code, reason, payload):
    assert result_of(apiproxy.encode_close, code, reason) == payload
    if payload is not REFUSED:
        assert apiproxy.parse_close(payload) == (code, reason[:61])


@pytest.mark.parametrize("payload, result", [
    (b"", (1005, "")), (b"\x03\xe8", (1000, "")), (b"\x0b\xb8\xc3\xa9", (3000, "é")),
    (b"\x03", 1002), (b"\x03\xe8\xff", 1007)]
    + [(code.to_bytes(2, "big"), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)]
    + [(code.to_bytes(2, "big"), (code, ""))
        for code in (1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999)])
def test_a_close_payload_is_read(payload, result):
    try:
        assert apiproxy.parse_close(payload) == result
    except apiproxy.ProtocolError as error:
        assert error.code == result


@pytest.mark.parametrize("wire, messages", [
    (frame(1, "hé€😀"), [(1, "hé€😀")]), (frame(2, b"\xff\0"), [(2, b"\xff\0")]),
    (frame(1) + frame(2), [(1, ""), (2, b"")]),
    (frame(9, b"p") + frame(10) + frame(8, b"\x03\xe8"), [(9, b"p"), (10, b""), (8, b"\x03\xe8")]),
    (frame(1, "a", fin=False) + frame(9, b"!") + frame(0, "b", fin=False) + frame(10)
     + frame(0, "c"), [(9, b"!"), (10, b""), (1, "abc")]),
    (frame(1, b"\xf0\x9f", fin=False) + frame(0, fin=False) + frame(0, b"\x98\x80") +
        frame(2, b"x"), [(1, "😀"), (2, b"x")]),
    (frame(2, b"a", fin=False) + frame(0) + frame(1, fin=False) + frame(0, fin=False) + frame(0),
        [(2, b"a"), (1, "")]),
    (frame(1, "a", fin=False) + frame(0, "b") + frame(1, "c", fin=False) + frame(0, "d"),
        [(1, "ab"), (1, "cd")]),
    (frame(2, b"a", fin=False) + frame(0, b"b") + frame(2, b"c", fin=False) + frame(0, b"d"),
        [(2, b"ab"), (2, b"cd")]),
    (frame(9, b"x" * 125) + frame(1, "y" * 126), [(9, b"x" * 125), (1, "y" * 126)]),
    (frame(2, b"z" * 300, fin=False) + frame(0, b"w" * 200), [(2, b"z" * 300 + b"w" * 200)]),
])
def test_messages_are_the_same_however_the_bytes_come(wire, messages):
    assert feed(wire) == feed(*(wire[index:index + 1] for index in range(len(wire)))) == messages
    for cut in range(1, len(wire)):
        assert feed(wire[:cut], wire[cut:]) == messages


def test_messages_of_every_size_come_whole():
    for size in (125, 126, 4081, 4095, 4096, 4097, 16384, 65535, 65536, 70000):
        text, wire = "é" * (size // 2), frame(2, b"x" * size)
        pieces = [wire[start:start + 1000] for start in range(0, len(wire), 1000)]
        found = [(9, b""), (2, b"x" * size), (1, text)]
        assert feed(frame(9) + wire + frame(1, text)) == feed(frame(9), *pieces,
            frame(1, text)) == found


OPEN_TEXT = frame(1, "a", fin=False)


@pytest.mark.parametrize("wire, code", [  # the last byte is the one that makes it illegal
    (b"\xc1\x00", 1002), (b"\xa1\x00", 1002), (b"\x91\x00", 1002), (b"\x89\x80", 1002),
    (b"\x81\x81", 1002)] + [
    (bytes((0x80 | opcode, 0)), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)] + [
    (b"\x81\x7e\x00\x7d", 1002), (b"\x81\x7f\0\0\0\0\0\0\xff\xff", 1002),
    (b"\x82\x7f\x80\0\0\0\0\1\0\0", 1002),
    (b"\x09\x00", 1002), (b"\x08\x00", 1002), (b"\x89\x7e", 1002), (b"\x88\x7f", 1002),
    (b"\x80\x00", 1002),
    (b"\x00\x00", 1002), (OPEN_TEXT + b"\x81\x00", 1002), (OPEN_TEXT + b"\x02\x00", 1002),
    (frame(1, "a") + b"\x80\x00", 1002),
    (b"\x81\x05\xff", 1007), (b"\x81\x05a\x80", 1007), (b"\x81\x05\xc0", 1007),
    (b"\x81\x05\xc3a", 1007),
    (b"\x81\x05\xe0\x80", 1007),
    (b"\x81\x05\xed\xa0\x80", 1007), (b"\x81\x05\xf0\x80", 1007), (b"\x81\x05\xf4\x90", 1007),
    (b"\x81\x05\xf5", 1007),
    (b"\x81\x01\xc3", 1007),
    (frame(1, b"\xc3", fin=False) + b"\x80\x00", 1007),
    (frame(1, b"\xe2\x82", fin=False) + b"\x00\x05a", 1007),
    (b"\x82\x7e\x03\xe9", 1009), (b"\x82\x7f\0\0\1\0\0\0\0\0", 1009),
    (frame(2, b"x" * 600, fin=False) + b"\x00\x7e\x01\x91", 1009),
    (frame(2, b"x" * 1000, fin=False) + frame(0, fin=False) + b"\x80\x01", 1009)])
def test_an_illegal_frame_is_refused_at_the_byte_that_makes_it_so(wire, code):
    feed(wire[:-1], limit=1000)
    for pieces in ((wire,), (wire[:-1], wire[-1:]),
        [wire[index:index + 1] for index in range(len(wire))],
        (wire + b"\0" * 300,)):
        with pytest.raises(apiproxy.ProtocolError) as caught:
            feed(*pieces, limit=1000)
        assert caught.value.code == code


@row("W42")
@pytest.mark.parametrize("opcode, piece", [(1, b"x"), (2, b"")])
def test_a_hundred_thousand_fragments_stay_small(opcode, piece):
    wire = frame(opcode, fin=False) + frame(0, piece, fin=False) * 100000 + frame(0)
    tracemalloc.start()
    (found,) = feed(wire[:1000], wire[1000:], limit=100000)
    peak = tracemalloc.get_traced_memory()[1] - len(wire)
    tracemalloc.stop()

    assert len(found[1]) == len(piece) * 100000
    assert peak < 4 * apiproxy.MiB


# -- heads

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]  # RFC 6455 1.3


@pytest.mark.parametrize("lines, chosen", [
    (GOOD, ""), (GOOD + ["Sec-WebSocket-Protocol: b"], "b"),
    (GOOD + ["sec-websocket-extensions:"], ""),
    (GOOD[:1] + ["upgrade:WebSocket", "CONNECTION:\tkeep-alive, UPGRADE "] + GOOD[3:], ""),
    (["HTTP/1.1 101"] + GOOD[1:], ""),
    (["HTTP/1.1 101 "] + GOOD[1:], ""), (GOOD[:2] + ["Connection: keep-alive"] + GOOD[2:], ""),
] + [(lines, None) for lines in (
    GOOD[:1] + GOOD[2:], GOOD[:2] + GOOD[3:], GOOD[:3], GOOD + GOOD[3:], GOOD + GOOD[1:2],
    GOOD[:3] + [GOOD[3].swapcase()],
    GOOD[:3] + [GOOD[3] + ", x"], GOOD[:1] + ["Upgrade: h2c"] + GOOD[2:],
    GOOD[:2] + ["Connection: close"] + GOOD[3:],
    GOOD + ["Sec-WebSocket-Protocol: c"], GOOD + ["Sec-WebSocket-Protocol: B"],
    GOOD + ["Sec-WebSocket-Protocol: a, b"],
    GOOD + ["Sec-WebSocket-Protocol: a"] * 2, GOOD + ["Sec-WebSocket-Protocol:"],
    GOOD + ["Sec-WebSocket-Extensions: permessage-deflate"],
    ["HTTP/1.0 101 X"] + GOOD[1:], ["HTTP/2 101 X"] + GOOD[1:], ["HTTP/1.1 101X"] + GOOD[1:],
    ["http/1.1 101 X"] + GOOD[1:],
    ["HTTP/1.1  101 X"] + GOOD[1:], ["HTTP/1.1 1010 X"] + GOOD[1:], [" HTTP/1.1 101 X"] + GOOD[1:],
    ["HTTP/1.1 101 a\nb"] + GOOD[1:],
    GOOD + [" folded"], GOOD + ["\tfolded"], GOOD + ["no colon"], GOOD + ["Space : x"],
    GOOD + [": x"], GOOD + ["X: a\nY: b"],
    GOOD + ["X: a\rb"], GOOD + ["X: \0"], GOOD + ["X\xe9: a"])])
def test_a_handshake_is_accepted_only_as_the_rfc_says(lines, chosen):
    try:
        head = apiproxy.parse_head("\r\n".join(lines + ["", ""]).encode("latin-1"))
        assert apiproxy.check_handshake(head, KEY, ["a", "b"]) == chosen
    except (apiproxy.BadAnswer, apiproxy.HandshakeError):
        assert chosen is None


@pytest.mark.parametrize("space", ["\x85", "\xa0"])
def test_only_blanks_and_tabs_are_left_out_around_a_header_value(space):
    head = apiproxy.parse_head("\r\n".join([GOOD[0], "Upgrade: websocket" + space] +
        GOOD[2:] + ["", ""]).encode("latin-1"))
    with pytest.raises(apiproxy.HandshakeError):
        apiproxy.check_handshake(head, KEY, [])


# ------------------------------------------------------------------------------
# 5. Connections
#
# The way to a server: names, addresses, TLS, proxies.
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("host, asked", [
    ("::1", "[::1]"), ("127.0.0.1", "[::ffff:127.0.0.1]"), ("127.0.0.1", "localhost")])
def test_servers_are_found_by_name_and_by_ipv6_address(serve, new_client, host, asked):
    server = serve(lambda request, conn: conn.reply(200, {}), host=host)
    assert new_client("http://%s:%d" % (asked, server.port)).request("/x") == {}
    assert server.requests[0].headers["host"] == "%s:%d" % (asked, server.port)


def test_a_server_that_is_not_there_is_a_502_with_its_cause(new_client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for host, cause in (("127.0.0.1:%d" % port, ConnectionRefusedError),
            ("no-such.invalid", socket.gaierror), ("a..b", OSError)):
        error = failed(new_client("http://" + host).request, "/x")
        assert (error.status, error.phrase, error.url) == (502, "Unreachable",
            "http://%s/clusters/dev/x" % host)
        assert isinstance(error.__cause__, cause)


@pytest.mark.parametrize("first", ["refuses", "is silent", "is of a family that is not there"])
def test_an_address_that_fails_leaves_time_for_the_next(serve, listener, names, first):
    server = serve(hello)
    live = "127.0.0.1:%d" % server.port
    names["many.test"] = [{"refuses": at("127.0.0.1:1"), "is silent": at(listener(full=True)),
                           "is of a family that is not there": at(live, 99)}[first], at(live)]
    ws = connect("ws://many.test:%d/" % server.port, timeout=1.0)

    assert ws.recv() == "hello"

    ws.abort()


CONNECT_STAGES = {  # where connect hangs: url, proxy
    "name look-up": ("ws://slow.test/", ""), "connecting": ("ws://{full}/", ""),
    "TLS": ("wss://{mute}/", ""),
    "the proxy": ("ws://far.test/", "http://{mute}"), "the answer": ("ws://{mute}/", ""),
    "the body of a refusal": ("ws://{refusing}/", ""),
}


@pytest.mark.parametrize("stage", CONNECT_STAGES)
@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_connect_ends_at_every_stage_and_leaves_nothing(serve, listener, names, stage, how):
    release = threading.Event()
    names["slow.test"] = lambda: release.wait(20) and []
    refusing = serve(
        lambda request, conn: conn.send("HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nwhy"))
    places = {"refusing": "127.0.0.1:%d" % refusing.port}
    if stage != "name look-up":
        places["full" if stage == "connecting" else "mute"] = listener(stage == "connecting")
    url, proxy = (text.format(**places) if "{" in text else text for text in CONNECT_STAGES[stage])
    before, threads, cancel = sockets(), set(threading.enumerate()), new_cancel()
    call = background(connect, url, proxy=proxy, cancel=cancel,
        timeout=60 if how == "cancelled" else 0.1)
    if how == "cancelled":
        eventually(lambda: is_stuck(cancel))
        cancel_now(cancel)

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
    server, cancel = serve(hello), new_cancel()
    cancel_now(cancel)
    with pytest.raises(apiproxy.ApiError):
        connect(server.ws, cancel=cancel)
    assert server.requests == []


# -- TLS


def test_a_certificate_is_checked(serve, new_client, trusting):
    server = serve(lambda request, conn: conn.reply(200, {}), tls=True)
    mapped = server.url.replace("127.0.0.1", "[::ffff:127.0.0.1]")  # not a name in it

    for url, context in ((server.url, None), (server.url, ssl.create_default_context()),
            (mapped, trusting)):
        error = failed(new_client(url, ssl_context=context).request, "/x")
        assert error.status == 502 and isinstance(error.__cause__, ssl.SSLCertVerificationError)

    assert not server.requests and new_client(server, ssl_context=trusting).request("/x") == {}


def test_tls_refuses_an_unknown_authority_and_a_wrong_name(serve, names, trusting):
    server = serve(hello, tls=True)
    names["other.test"] = [at("127.0.0.1:%d" % server.port)]

    for url, context in ((server.ws, None), ("wss://other.test:%d/" % server.port, trusting)):
        with pytest.raises(apiproxy.ApiError) as caught:
            connect(url, ssl_context=context)
        assert caught.value.status == 502
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)

    assert server.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_names_the_host_unless_it_is_an_address(serve, new_client, trusting, host):
    server, seen = serve(hello_or_json, tls=True), []
    server.context.sni_callback = lambda sock, name, context: seen.append(name)
    place = "%s:%d" % (host, server.port)

    assert new_client("https://" + place, ssl_context=trusting).request("/x") == {}

    ws = connect("wss://%s/" % place, ssl_context=trusting)
    assert ws.recv() == "hello"

    ws.abort()

    assert seen == [None if host == "127.0.0.1" else host] * 2


def test_tls_over_ipv6_and_through_a_proxy_to_it(serve, new_client, trusting, proxies):
    names_sent = []
    server = serve(hello_or_json, tls=True)
    server.context.sni_callback = lambda sock, name, context: names_sent.append(name)
    proxy = serve(proxying())  # leads every [::1]:port to 127.0.0.1:port
    place = "[::1]:%d" % server.port
    proxies(https_proxy=proxy.url)
    urls = ["https://%s" % place]

    try:
        direct = serve(hello_or_json, tls=True, host="::1")
        direct.context.sni_callback = server.context.sni_callback
        urls.append(direct.url)
    except OSError:
        pass  # no IPv6 here

    for url in urls:
        assert new_client(url, ssl_context=trusting).request("/x") == {}
        ws = connect("wss" + url[5:] + "/", ssl_context=trusting)
        assert ws.recv() == "hello"
        ws.abort()
        proxies(no_proxy="::1,[::1]")

    assert proxy.paths() == [place] * 2 == [request.headers["host"] for request in proxy.requests]
    assert {request.headers["host"] for request in server.requests} == {place}
    assert set(names_sent) == {None}  # an address is no name: it is in the certificate, not in SNI


# -- proxies


def test_http_goes_to_the_proxy_whole_and_no_proxy_past_it(serve, new_client, proxies):
    proxy, server = (serve(lambda request, conn: conn.reply(200, {})) for _ in range(2))
    proxies(http_proxy="http://us%%65r:pass%%21@127.0.0.1:%d" % proxy.port,
        no_proxy="127.0.0.1,.example.org")
    client = new_client("http://cluster.invalid:81")

    assert client.request("/x") == client.request("/x") == client.post("/x", {}) == {}
    assert proxy.paths() == ["http://cluster.invalid:81/clusters/dev/x"] * 3

    for request in proxy.requests:
        assert request.headers["proxy-authorization"] == "Basic " + base64.b64encode(
            b"user:pass!").decode()
        assert request.headers["host"] == "cluster.invalid:81"

    assert new_client(server).request("/x") == {} and proxy.count == 2
    assert "proxy-authorization" not in server.requests[0].headers
    assert server.paths() == ["/clusters/dev/x"]


def test_https_goes_through_a_tunnel(serve, new_client, proxies, certificate, trusting):
    inner = []

    def script(request, conn):
        for byte in b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n":
            conn.send(bytes((byte,)))
        with server_context(certificate).wrap_socket(conn.sock, server_side=True) as sock:
            conn = Conn(sock)
            while True:
                inner.append(conn.request())
                conn.reply(200, {})

    proxy = serve(script)
    proxies(https_proxy="user:pass@127.0.0.1:%d" % proxy.port)
    client = new_client("https://localhost:9", ssl_context=trusting)
    client.set_token("dev", "SECRET")

    assert client.request("/x") == client.request("/x") == {}

    (connect,) = proxy.requests
    assert (connect.method, connect.path) == ("CONNECT", "localhost:9")
    assert connect.headers["host"] == "localhost:9"
    assert "proxy-authorization" in connect.headers and "authorization" not in connect.headers
    assert [request.path for request in inner] == ["/clusters/dev/x"] * 2

    for request in inner:
        assert request.headers["authorization"] == "Bearer SECRET"
        assert "proxy-authorization" not in request.headers

    error = failed(new_client("https://other.localhost:9", ssl_context=trusting).request, "/x")

    # the name behind the proxy counts
    assert error.status == 502
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


@both
def test_a_proxy_gets_its_own_credentials_and_only_those(serve, proxies, trusting, tls):
    server, proxy = serve(hello, tls=tls), serve(proxying())
    proxies(
        **{"https_proxy" if tls else "http_proxy": "http://me:pass%%3A@127.0.0.1:%d" % proxy.port})
    ws = connect(server.ws, headers={"Authorization": "Bearer secret"}, ssl_context=trusting)

    assert ws.recv() == "hello"

    ws.abort()
    outer, inner = proxy.requests[0], server.requests[0]
    assert (outer.method, outer.path) == ("CONNECT", "127.0.0.1:%d" % server.port)
    assert outer.headers == {"host": outer.path, "proxy-authorization": "Basic " +
        base64.b64encode(b"me:pass:").decode()}
    assert inner.headers["authorization"] == "Bearer secret"
    assert "proxy-authorization" not in inner.headers


def test_no_proxy_goes_straight(serve, proxies):
    server, proxy = serve(hello), serve(proxying())
    proxies(http_proxy=proxy.url, no_proxy="127.0.0.1")
    connect(server.ws).abort()
    connect(server.ws, proxy="").abort()
    assert proxy.count == 0


@pytest.mark.parametrize("answer", [
    "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP/1.1 502 Bad\r\n\r\n",
    "HTTP/1.1 302 X\r\nLocation: http://e\r\n\r\n",
    "rubbish\r\n\r\n", "HTTP/1.1 200 OK\r\n", "", "X" * 70000], ids=short)
def test_a_proxy_that_refuses_is_named(serve, new_client, proxies, answer):
    proxy = serve(lambda request, conn: conn.send(answer) or False)
    proxies(https_proxy="http://user:SECRET@127.0.0.1:%d" % proxy.port)
    error = failed(new_client("https://localhost:9").request, "/x")
    assert error.status == 502 and "SECRET" not in str(error)
    assert "proxy 127.0.0.1:%d" % proxy.port in str(error)


@pytest.mark.parametrize("answer, status, text", [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", 502,
        "407 Proxy Auth"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 502, "302 Found"),
    (b"SSH-2.0-x\r\n\r\n", 502, "no HTTP"),
    (b"", 502, "closed before an answer"),
    (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20000, 502, "head"),
    # of the tunnel
    (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 403 Inside\r\nContent-Length: 0\r\n\r\n", 403, "Inside"),
])
def test_what_a_proxy_may_answer(serve, answer, status, text):
    proxy = serve(lambda request, conn: bool(conn.send(answer)) or status == 403)
    with pytest.raises(apiproxy.ApiError) as caught:
        connect("ws://far.test/", proxy=proxy.url, headers={"Authorization": "Bearer secret"})
    assert caught.value.status == status and text in str(caught.value)
    assert "secret" not in repr(proxy.requests[0].headers)


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
def test_a_proxy_that_is_not_there_is_named(new_client, proxies, scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    proxies(
        **{"https_proxy" if scheme in ("https", "wss")
            else "http_proxy": "http://user:SECRET@127.0.0.1:%d" % port})
    url = scheme + "://cluster.invalid"
    error = failed(connect, url) if scheme[0] == "w" else failed(new_client(url).request, "/x")

    assert error.status == 502 and "proxy 127.0.0.1:%d" % port in str(error)

    chain = [error, error.__cause__, error.__cause__.__cause__]
    assert any(isinstance(cause, ConnectionRefusedError) for cause in chain)


@pytest.mark.parametrize("answer, status", [
    ("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", 407),
    ("HTTP/1.1 503 No\r\n\r\nwhy", 503),
    ("HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 302), ("", 502),
    ("SSH-2.0-x\r\n\r\n", 502)])
def test_a_proxy_of_plain_http_that_refuses_is_an_error(serve, new_client, proxies, answer, status):
    proxy = serve(lambda request, conn: conn.send(answer) or False)
    proxies(http_proxy="http://user:SECRET@127.0.0.1:%d" % proxy.port)
    assert failed(new_client("http://cluster.invalid").request, "/x").status == status
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("url", [
    "socks5://127.0.0.1:1", "https://u:SECRET@h", "http://:80", "http://u:SECRET@h:x",
    "http://h:99999", "http://[::1"])
def test_a_proxy_that_is_none_is_a_502(new_client, proxies, url):
    proxies(http_proxy=url)
    error = failed(new_client("http://127.0.0.1:1").request, "/x")
    assert error.status == 502 and "proxy" in str(error) and "SECRET" not in str(error)


# ------------------------------------------------------------------------------
# 6. HTTP
#
# One answer after the other on kept connections, and whatever may come instead of one.
# ------------------------------------------------------------------------------

# -- kept connections


def test_connections_are_kept_and_shared_by_threads(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, {"path": request.path}))
    client = new_client(server)
    assert [client.request("/%d" % index)["path"] for index in range(5)] == server.paths()
    assert server.count == 1

    right = []

    def ask(name):
        for index in range(20):
            right.append(client.request("/%s%d" % (name, index))["path"].endswith(
                "/%s%d" % (name, index)))

    together(*(functools.partial(ask, name) for name in "abcdefgh"))
    assert right == [True] * 160 and server.count <= 9

    client.close()
    eventually(lambda: not server.open)

    client.keep_alive = 0.0  # an idle connection is never young enough
    before = server.count
    client.request("/x")
    client.request("/x")

    assert server.count == before + 2


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("end", [
    lambda conn: False, lambda conn: conn.reset(), lambda conn: conn.send("HTTP/1.1 2") or False,
    lambda conn: conn.send("HTTP/1.1 200") or False,
    lambda conn: conn.send("HTTP/1.1 200 OK\r\nContent-Le") or False,
    lambda conn: conn.send("HTTP/1.1 200 OK\r\nX: y\r\n") or False,
    "before"], ids=["silent", "reset", "version", "status", "header", "headers", "before"])
def test_a_kept_connection_that_ends_fails_no_call(serve, new_client, trusting, end, tls):
    def script(request, conn):
        conn.count = getattr(conn, "count", 0) + 1
        if conn.count == 2:
            return end(conn)
        conn.reply(200, {"count": conn.count})
        return end != "before"

    server = serve(script, tls=tls)
    client = new_client(server, ssl_context=trusting)
    for method in ("GET", "GET", "POST", "PUT", "PATCH", "DELETE", "POST"):
        assert client.request("/x", {"method": method, "body": "{}"}) == {"count": 1}
    sent = [request.method for request in server.requests]

    assert (sent.count("POST"), sent.count("PATCH")) == (2, 1)  # not idempotent: never twice
    assert len(sent) == 7 + (0 if end == "before" else 3)


@pytest.mark.parametrize("answer", [
    b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH"])
def test_a_fresh_connection_that_ends_fails_the_call_once(serve, new_client, method, answer):
    server = serve(lambda request, conn: conn.send(answer) or False)
    error = failed(new_client(server).request, "/x", {"method": method})
    assert (error.status, error.method, error.url) == (502, method, server.url + "/clusters/dev/x")
    assert error.__cause__ is not None and len(server.requests) == 1


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_kept_connection_may_end_after_any_byte_of_an_answer(serve, new_client, how):
    head, body = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n", '{"kept": "yes"}'
    cuts = iter(range(len(head + body) + (how == "end")))

    def script(request, conn):
        conn.count = getattr(conn, "count", 0) + 1
        if conn.count == 1:
            return conn.reply(200, {"count": 1})
        conn.send((head + body)[:cut])
        return conn.reset() if how == "reset" else False

    server = serve(script)
    client = new_client(server)
    for cut, method in zip(cuts, itertools.cycle(["GET", "PUT", "DELETE", "HEAD"])):
        client.request("/warm")
        del server.requests[:]
        if cut < len(head):  # nothing was answered: asked again
            assert client.request("/x", {"method": method}) == (None if method == "HEAD"
                else {"count": 1})
            assert len(server.requests) == 2
        elif method == "HEAD" or cut == len(head + body):
            assert client.request("/x", {"method": method}) == (None if method == "HEAD"
                else {"kept": "yes"})
            assert len(server.requests) == 1
        else:  # an answer had begun, so it was carried out
            assert failed(client.request, "/x", {"method": method}).status == 502
            assert len(server.requests) == 1
        client.close()


@pytest.mark.parametrize("taken", [0, 1, 5000])
def test_a_kept_connection_may_end_inside_a_request(new_client, taken):
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
        client = new_client(server)
        client.request("/warm")
        # on the next connection, which is answered as if it were warm
        assert client.put("/x", "x" * (1 << 20)) == {}
        assert server.count == 2
    finally:
        server.stop()


@pytest.mark.parametrize("end", ["half-closed", "reset", "close_notify"])
def test_a_kept_connection_that_ends_while_idle_is_not_used(serve, new_client, trusting, end):
    def script(request, conn):
        conn.reply(200, len(server.requests))
        if end == "half-closed":
            conn.half_close()
        elif end == "close_notify":
            conn.end_tls()
        else:
            conn.reset()

        conn.sock.close() if end == "reset" else server.stopped.wait(20)
        return False

    server = serve(script, tls=end == "close_notify")
    client = new_client(server, ssl_context=trusting)
    for number, method in enumerate(("GET", "PUT", "POST", "GET"), 1):
        assert client.request("/x", {"method": method, "timeout": 5000}) == number

    assert server.count == 4


@pytest.mark.parametrize("head", [
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nTransfer-Encoding: chunked\r\n\r\n"
    "2\r\n{}\r\n0\r\n\r\n"], ids=short)
def test_a_connection_that_the_server_will_close_is_not_kept(serve, new_client, head):
    # and leaves it open
    server = serve(lambda request, conn: conn.send(head if "chunked" in head else head + "{}"))
    client = new_client(server)
    for number in (1, 2, 3):
        assert client.request("/x") == {} and server.count == number
        eventually(lambda: not server.open)


@pytest.mark.parametrize("after", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n\"poison\"", b"\n", b"\0" * 100000], ids=short)
@pytest.mark.parametrize("answer", [
    JSON + "Content-Length: 2\r\n\r\n{}", "HTTP/1.1 204 No Content\r\n\r\n", CHUNKED + "0\r\n\r\n",
    "HTTP/1.1 101 X\r\n\r\n"])
def test_what_follows_an_answer_poisons_no_later_call(serve, new_client, answer, after):
    def script(request, conn):
        conn.reply(200, "5") if request.path.endswith("/y") else conn.send(answer.encode() + after)

    client = new_client(serve(script))
    for _ in range(3):
        client.request("/x") if "101" not in answer else failed(client.request, "/x")
        assert client.request("/y") == 5


def test_a_late_cancel_does_not_close_a_connection_that_another_call_has_now(
        serve, new_client, monkeypatch):
    # The one test that knows how a connection is held: it has to stand between two steps of it.
    cancel, closes, closed = apiproxy.Cancel(), [], threading.Event()
    hold = cancel.hold

    # set() has read what is held, but not closed it yet, when the answer is complete
    def cancel_late(wire):
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

    client, cancel.hold = new_client(Api(serve, [pods(), second]).server), cancel_late
    client.fetch("dev", "/api/v1/pods", None, cancel, False)
    read_body = client._handler._body
    monkeypatch.setattr(client._handler, "_body", close_first)

    assert client.fetch("dev", "/api/v1/pods", None, apiproxy.Cancel(), False) == {}


# -- deadlines


@pytest.mark.parametrize("start, piece", [
    ("", ""), ("HTTP/1.1 100 Continue\r\n\r\n", ""), ("HTTP/1.1 200 OK\r\nX: ", "x"),
    (JSON + "\r\n", " "),
    (JSON + "Content-Length: 9999\r\n\r\n", " "), (CHUNKED, "1\r\n \r\n"), (CHUNKED + "5\r\n", ""),
    (CHUNKED + "0\r\n", "X: y\r\n")])
@pytest.mark.parametrize("warm", [False, True])
def test_one_deadline_covers_the_whole_answer(serve, new_client, start, piece, warm):
    def script(request, conn):
        if request.path.endswith("/warm"):
            return conn.reply(200, {})
        conn.send(start)
        while not server.stopped.wait(0.02):
            conn.send(piece)

    server = serve(script)
    client, begin = new_client(server), time.monotonic()
    if warm:
        client.request("/warm")
    error = failed(client.request, "/x", {"timeout": 100})

    assert (error.status, error.phrase) == (408, "Request timed-out")
    assert 0.09 < time.monotonic() - begin < 3 and len(server.requests) == 1 + warm


def test_the_deadline_covers_tls_and_large_uploads_and_zero(serve, new_client):
    silent = RawServer(lambda conn: silent.stopped.wait(30))  # reads nothing
    try:
        for url, params in (
            (silent.url.replace("http", "https"), {"timeout": 100}),
            (silent.url, {"timeout": 0}),
            (silent.url, {"timeout": 100, "method": "POST", "body": b"x" * (16 << 20)}),
        ):
            assert failed(new_client(url).request, "/x", params).status == 408
    finally:
        silent.stop()


@pytest.mark.parametrize("timeout", [None, float("inf"), 3e9, 1e15])
def test_a_call_may_have_no_deadline_or_a_far_one(serve, new_client, timeout):
    server = serve(lambda request, conn: server.stopped.wait(0.05) or conn.reply(200, {}))
    assert new_client(server, request_timeout=0.01).request("/x", {"timeout": timeout}) == {}


# -- answers


@pytest.mark.parametrize("answer", [
    "", "rubbish", "rubbish " * 8000 + "\r\n\r\n", "<html>HTTP/0.9</html>", "SSH-2.0-x\r\n",
    "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\n",
    JSON, JSON + "Content-Le", JSON + "Content-Length: 3\r\n\r\n{}", CHUNKED + "2\r\n{}\r\n",
    CHUNKED + "3\r\n{}", CHUNKED + "xyz\r\n{}\r\n0\r\n\r\n", CHUNKED + "-2\r\n{}\r\n0\r\n\r\n",
    CHUNKED, CHUNKED + "\r\n", CHUNKED + "2",
    JSON + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    JSON + "Content-Length: 2\r\nContent-Length: 1\r\n\r\n5 ",
    JSON + "X: " + "x" * 70000 + "\r\n\r\n", JSON + "Content-Length: x\r\n\r\n{}",
    JSON + "Content-Length: -1\r\n\r\n{}", JSON + "Content-Length: 2, 3\r\n\r\n{}",
    JSON + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", JSON + "X : y\r\n\r\n{}",
    JSON + "X: y\r\n z\r\n\r\n{}", CHUNKED + "2\r\n{}0\r\n\r\n", CHUNKED + "+2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + "2\r\n{}\r\n0\r\n" + "X: y\r\n" * 200, "HTTP/1.1 100 Continue\r\n\r\n" * 99],
    ids=short)
def test_a_broken_answer_is_a_502_and_not_data(serve, new_client, answer):
    server = serve(lambda request, conn: conn.send(answer) or False)
    error = failed(new_client(server).request, "/x")
    assert error.status == 502 and len(str(error)) < 1100


@pytest.mark.parametrize("length", [
    "Content-Length: %s\r\n\r\n{}" % length
    for length in ("+2", "0x2", "2_0", "2 2", "-2", "2.0", "2, 3", "\xb2", "")] + [
    "Transfer-Encoding: %s\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % coding
    for coding in ("identity", "gzip, chunked", "chunked, chunked", "chunke")] + [
    "Transfer-Encoding: chunked\r\n\r\n%s" % chunks for chunks in (
        "+2\r\n{}\r\n0\r\n\r\n", "0x2\r\n{}\r\n0\r\n\r\n", " 2\r\n{}\r\n0\r\n\r\n",
        "0_2\r\n{}\r\n0\r\n\r\n", "\r\n{}\r\n0\r\n\r\n",
        "\xb2\r\n{}\r\n0\r\n\r\n", "2\r\n{}0\r\n\r\n", "2\r\n{}\n0\r\n\r\n",
        "2\r\n{} \r\n0\r\n\r\n", "2\r\n{}\r\n0\r\n", "2\r\n{}\r\n0",
        "2\r\n{}\r\n" + "0" * 70000, "2;" + "x" * 70000 + "\r\n{}\r\n0\r\n\r\n")], ids=short)
def test_a_length_in_a_spelling_of_its_own_is_refused(serve, new_client, length):
    answer = ("HTTP/1.1 200 OK\r\n" + length).encode("latin-1")
    server = serve(lambda request, conn: conn.send(answer) or False)
    error = failed(new_client(server).request, "/x", {"isJSON": False})
    assert error.status == 502 and len(server.requests) == 1


def test_a_tls_body_without_its_end_is_an_error(serve, new_client, trusting):
    # "{}" until the end, but without close_notify anybody may have ended it
    def script(request, conn):
        conn.send(JSON + "\r\n{}")
        return False

    assert failed(new_client(serve(script, tls=True), ssl_context=trusting).request,
        "/x").status == 502


def test_endless_headers_end(serve, new_client):
    def script(request, conn):
        conn.send("HTTP/1.1 200 OK\r\n")
        while True:
            conn.send("X-%s: y\r\n" % os.urandom(9).hex() * 100)

    assert failed(new_client(serve(script)).request, "/x", {"timeout": None}).status == 502


@pytest.mark.parametrize("answer, result", [
    (JSON + "Content-Length: 0\r\n\r\n", None), (JSON + "Content-Length: 3\r\n\r\n \r\n", None),
    ("HTTP/1.1 204 No Content\r\n\r\n", None), (JSON + "\r\n{}", {}),
    (JSON + "Content-Length: 2, 2\r\n\r\n{}", {}), (JSON + "X: y\r\n" * 200 + "\r\n{}", {}),
    ("HTTP/1.0 200 OK\r\n\r\n[1]", [1]),
    (CHUNKED + "1;x=y\r\n[\r\n1\r\n]\r\n0\r\nX: y\r\n\r\n", []),
    (JSON + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", {}),
    ("HTTP/1.1 100 Continue\r\n\r\n" + JSON + "\r\n{}", {}),
    ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + JSON + "\r\n{}", {})])
def test_odd_but_whole_answers_are_read(serve, new_client, answer, result):
    server = serve(lambda request, conn: conn.send(answer) or False)
    assert new_client(server).request("/x") == result


@pytest.mark.parametrize("body, said", [
    (b"<!doctype html><p>Headlamp", "this route is not enabled"),
    (b"\n <html>", "this route is not enabled"), (b"hello", "text/plain instead of JSON: 'hello'"),
    (b"{" * 100000, "instead of JSON"), (b'{"a": ', "instead of JSON"),
    (b"\xff\xfe", "instead of JSON"), (b"{} {}", "instead of JSON")], ids=short)
def test_what_is_not_json_is_an_error_that_says_so(serve, new_client, body, said):
    client = new_client(serve(lambda request, conn: conn.reply(200, body, reason="OK")))
    error = failed(client.request, "/x")
    assert error.status == 200
    assert said in str(error)
    assert len(str(error)) < 300
    assert error.body == body

    response = client.request("/x", {"isJSON": False})
    assert (response.ok, response.body, repr(response)) == (True, body,
        "<Response 200 OK, %d bytes>" % len(body))


@pytest.mark.parametrize("was_on", [True, False])
@pytest.mark.parametrize("data, rests", [
    (b"[%s]" % (b"1," * 60000 + b"1"), True), ("[%s" % ("1," * 60000), True), (b"[1]", False)],
    ids=short)
def test_the_cyclic_collector_rests_while_something_large_is_parsed(
        monkeypatch, data, rests, was_on):
    seen, inside, free = [], threading.Barrier(2), threading.Event()

    def slow(real, data):
        inside.wait(10)  # both threads are at it
        seen.append(gc.isenabled())
        free.wait(10) if threading.current_thread() is other else None
        return real(data)

    def parse():
        try:
            apiproxy.parse_json(data)
        except ValueError:
            pass

    wrap(monkeypatch, PARSE_JSON, slow)
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


def test_gzip_is_asked_for_and_decoded(serve, new_client):
    whole = gzip.compress(b'{"a": "%s"}' % (b"b" * 100000))
    answers = {"/good": whole, "/cut": whole[:-1], "/more": whole + b"x",
        "/sum": whole[:-8] + b"\0" * 8, "/empty": b""}
    server = serve(lambda request, conn: conn.send(zipped(answers[request.path])))
    client = new_client(server, cluster="")

    assert client.request("/good") == {"a": "b" * 100000} and client.request("/empty") is None
    assert [failed(client.request, path).status for path in ("/cut", "/more", "/sum")] == [502] * 3
    assert server.requests[0].headers["accept-encoding"] == "gzip"

    client.gzip = False
    client.request("/good")
    assert server.requests[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("head, body", [
    ("Content-Length: 1001", b"x" * 1001), ("Content-Length: 99999999999999999999", b""),
    ("X: y", b"x" * 1001),
    ("Transfer-Encoding: chunked", b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"),
    ("Content-Encoding: gzip", gzip.compress(b"x" * (64 << 20)))], ids=short)
def test_a_body_over_the_limit_is_an_error(serve, new_client, head, body):
    answer = ("HTTP/1.1 200 OK\r\n%s\r\n\r\n" % head).encode() + body
    server = serve(lambda request, conn: conn.send(answer) or False)
    tracemalloc.start()
    error = failed(new_client(server, max_body=1000 if b"\x1f" != body[:1] else 70000).request,
        "/x", {"isJSON": False})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert error.status == 200 and "larger than the limit" in str(error) and peak < 4 * apiproxy.MiB


def test_many_small_chunks_cost_no_more_than_their_bytes(serve, new_client):
    count = 30000
    wire = CHUNKED.encode() + b"2\r\n{}\r\n" * count + b"0\r\n\r\n"
    client = new_client(serve(lambda request, conn: conn.send(wire)))
    tracemalloc.start()

    try:
        assert len(client.request("/x", {"isJSON": False}).body) == 2 * count
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_of_an_error_that_unpacks_without_end_the_first_mib_is_kept(serve, new_client):
    bomb = gzip.compress(bytes(64 << 20), 1)
    server = serve(lambda request, conn: conn.send(zipped(bomb).replace(b"200 OK", b"500 Oops")))
    tracemalloc.start()

    try:
        error = failed(new_client(server).request, "/x")
        assert tracemalloc.get_traced_memory()[1] < 16 * apiproxy.MiB  # and not 64
    finally:
        tracemalloc.stop()

    assert (error.status, error.body) == (500, bytes(apiproxy.MiB))


@row("W18")
@pytest.mark.parametrize("head", [
    "Content-Length: 50000000\r\n\r\n", "\r\n", "Transfer-Encoding: chunked\r\n\r\n2faf080\r\n"])
def test_of_a_large_error_the_first_mib_is_kept(serve, new_client, head):
    answer = "HTTP/1.1 500 Oops\r\n" + head + "x" * 50000000
    server = serve(lambda request, conn: conn.send(answer) or False)
    error = failed(new_client(server).request, "/x")
    assert (error.status, len(error.body), str(error)) == (500, apiproxy.MiB,
        "Oops - " + "x" * 1000)


@pytest.mark.parametrize("answer", [
    "Content-Length: 9\r\n\r\nno", "Transfer-Encoding: chunked\r\n\r\n2\r\nno",
    "Content-Encoding: gzip\r\n\r\nno"])
def test_an_error_whose_body_is_broken_keeps_its_status(serve, new_client, answer):
    server = serve(lambda request, conn: conn.send("HTTP/1.1 403 Forbidden\r\n" + answer) or False)
    assert failed(new_client(server).request, "/x").status == 403


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset may take the answer with it")
def test_an_answer_that_comes_before_the_whole_request_was_taken_counts(new_client):
    def script(conn):
        while b"\r\n\r\n" not in conn.buffer:
            conn.more()
        conn.reply(413, b"", reason="Request Entity Too Large")

    server = RawServer(script)
    try:
        assert failed(new_client(server).post, "/x", "x" * (16 << 20)).status == 413
    finally:
        server.stop()


# ------------------------------------------------------------------------------
# 7. WebSocket
#
# From the handshake to the end, with many threads, with and without TLS.
# ------------------------------------------------------------------------------


@pytest.fixture
def dial(serve, trusting):
    """dial(script, tls=False, **settings) -> a WebSocket.

    Its server, `ws.server`, runs script(conn) after the 101.
    """
    opened = []

    def start(script, tls=False, **settings):
        def upgrade(request, conn):
            conn.upgrade(request)
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
    """The next bytes, many at a time."""
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


# -- the handshake


def test_an_ipv6_host_is_bracketed_in_host_and_origin(serve):
    try:
        server = serve(hello, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")

    connect(server.ws).abort()
    request = server.requests[0]

    assert request.headers["host"] == "[::1]:%d" % server.port
    assert request.headers["origin"] == server.url


def test_every_connection_has_an_origin_and_a_key_of_its_own(serve):
    server = serve(hello)
    connect(server.ws).abort()
    connect(server.ws, headers={"origin": "http://me"}).abort()
    first, second = server.requests

    assert first.headers["origin"] == server.url
    assert [line for line in second.lines if "rigin" in line] == ["origin: http://me"]

    keys = {request.headers["sec-websocket-key"] for request in server.requests}
    assert len(keys) == 2 and {len(base64.b64decode(key)) for key in keys} == {16}


@pytest.mark.parametrize("name", [
    "Host", "upgrade", "Connection", "Sec-WebSocket-Key", "sec-websocket-protocol"])
def test_the_handshakes_own_headers_are_not_the_callers(serve, name):
    server = serve(hello)
    with pytest.raises(ValueError):
        connect(server.ws, headers={name: "x"})
    assert not server.count


@row("H22")
@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\nX: y", "\x85"])
def test_a_control_character_is_refused_before_connecting(serve, bad):
    server = serve(hello)
    for url, more in [
            (server.ws + "/" + bad, {}), (server.ws + "/?q=" + bad, {}),
            ("ws://127.0.0.1%s:%d/" % (bad, server.port), {}),
            (server.ws + "/", {"headers": {"X" + bad: "y"}}),
            (server.ws + "/", {"headers": {"X": "y" + bad}}),
            (server.ws + "/", {"headers": {"Host": "h" + bad}}),
            (server.ws + "/", {"protocols": ["p" + bad]})]:
        with pytest.raises(ValueError):
            connect(url, **more)

    assert server.count == 0


@row("H01", "H02", "H03", "H04", "H05", "H07", "H08", "H09", "H10", "H11", "H12", "H13", "H14",
     "W6", "W7")
@pytest.mark.parametrize("old, new", [
    # H01, 14, 02, 10
    ("{accept}", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="), ("{accept}", "{ACCEPT}"), (ACCEPT, ""),
    (ACCEPT, ACCEPT * 2), ("101", "200"), ("101", "204"), ("HTTP/1.1", "HTTP/1.0"),
    ("HTTP/1.1 101", "HTTP/1.1 0101"),
    ("Upgrade: websocket\r\n", ""), ("Upgrade: websocket", "Upgrade: h2c"),  # H04
    ("Connection: Upgrade\r\n", ""), ("Connection: Upgrade", "Connection: keep-alive"),  # H05
    # H07
    (ACCEPT, ACCEPT + "Sec-WebSocket-Protocol: other\r\n"),
    (ACCEPT, ACCEPT + "Sec-WebSocket-Protocol: mine, two\r\n"),
    # H08
    (ACCEPT, ACCEPT + "Sec-WebSocket-Protocol: MINE\r\n"),
    (ACCEPT, ACCEPT + "Sec-WebSocket-Protocol: mine\r\n" * 2),
    (ACCEPT, ACCEPT + "Sec-WebSocket-Extensions: permessage-deflate\r\n"),  # H09
    ("Connection: Upgrade", "Connection:\r\n Upgrade"), (ACCEPT, ACCEPT + "no colon\r\n"),  # H12
    (ACCEPT, ACCEPT + " folded: x\r\n"), (ACCEPT, ACCEPT + "X : y\r\n"),
    # H13
    ("Upgrade: websocket", "Upgrade : websocket"), (ACCEPT, ACCEPT + "X: a\0b\r\n"),
    (ACCEPT, ACCEPT + "X: a\nb\r\n"),
])
def test_a_wrong_answer_is_refused_and_the_socket_closed(serve, old, new):
    def script(request, conn):
        accept = request.accept
        before, after = (part.replace("{accept}", accept).replace("{ACCEPT}", accept.swapcase())
                         for part in (old, new))
        right = accepting(request).decode()
        wrong = right.replace(before, after, 1)
        assert wrong != right
        conn.send(wrong)
        return None if wrong.startswith("HTTP/1.1 101") else False

    server = serve(script)
    with pytest.raises(apiproxy.HandshakeError):
        connect(server.ws, protocols=["mine", "two"])
    eventually(lambda: not server.open)


@row("H06")
@pytest.mark.parametrize("old, new", [
    (b"Connection: Upgrade", b"connection: keep-alive, UPGRADE"),
    (b"Upgrade: websocket", b"uPGRADE:WebSocket"),
    (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol:  two \r\n\r\n"), (b"Switching Protocols", b""),
    (b"HTTP/1.1 101",
     b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 Early\r\nLink: <x>\r\n\r\nHTTP/1.1 101"),
    (b"\r\n\r\n", b"\r\nX-Long: " + b"x" * 60000 + b"\r\n\r\n"),
])
def test_an_unusual_but_legal_answer_is_accepted(serve, old, new):
    def script(request, conn):
        conn.send(accepting(request).replace(old, new, 1) + frame(TEXT, "hello"))
        conn.wait_end()

    server = serve(script)
    ws = connect(server.ws, protocols=["one", "two"])

    assert ws.recv() == "hello"
    assert ws.protocol == ("two" if b"two" in new else "")

    ws.abort()


@row("H19", "H20")
@pytest.mark.parametrize("form, body", [
    ("Content-Length: 4", b"why?"), ("Connection: close", b"why?"),
    ("Transfer-Encoding: chunked", b"2\r\nwh\r\n2\r\ny?\r\n0\r\n\r\n")])
@pytest.mark.parametrize("status", [302, 401, 403, 429, 503])
def test_a_refusal_has_status_and_body_and_is_not_followed(serve, status, form, body):
    def script(request, conn):
        head = b"HTTP/1.1 %d Why\r\nRetry-After: 7\r\nLocation: /else\r\n%s\r\n\r\n"
        conn.send(head % (status, form.encode()) + body)
        return False if "close" in form else None

    server = serve(script)
    with pytest.raises(apiproxy.HandshakeError) as caught:
        connect(server.ws + "/x", headers={"Authorization": "Bearer secret"})

    error = caught.value
    assert (error.status, error.body) == (status, b"why?")
    assert (error.retry_after, error.method) == (7.0, "GET")
    assert str(error) == "Why - why?" and "secret" not in repr(error)
    assert server.paths() == ["/x"]


def test_a_refusal_has_what_came_of_its_body_although_its_length_lies(serve):
    chunked = "Transfer-Encoding: chunked\r\n\r\n"
    bodies = {"\r\nwhy?": b"why?", "Content-Length: 9\r\n\r\nwhy?": b"why?",
              "Content-Length: 9999999999999\r\n\r\nwhy?": b"why?",
              # no length is not a length
              "Content-Length: x\r\n\r\nwhy?": None, "Content-Length: -1\r\n\r\nwhy?": None,
              "Content-Length: 3\r\n\r\nwhy?": b"why", "Content-Length: 0\r\n\r\nwhy?": b"",
              chunked + "9\r\nwhy?": b"why?",
              chunked + "4\r\nwhy?": b"why?", chunked + "4\r\nwhy?\r\nxyz\r\n": b"why?",
              chunked + "xyz\r\nwhy?": b""}

    def script(request, conn):
        conn.send("HTTP/1.1 403 No\r\n" + urllib.parse.unquote(request.path[1:]))
        return False if ends else None

    for ends in (True, False):
        server, calls = serve(script), {}
        for answer in bodies:
            url = server.ws + "/" + urllib.parse.quote(answer, "")
            calls[answer] = background(connect, url, timeout=10 if ends else 1)

        errors = {answer: call.result(20) for answer, call in calls.items()}
        assert {error.status for error in errors.values()} == {403}
        assert {answer: bodies[answer] and error.body for answer, error in errors.items()} == bodies
        eventually(lambda: not server.open)


@row("H15", "H16", "W21")
@pytest.mark.parametrize("start, piece, status", [
    (b"HTTP/1.1 101 X\r\n", b"X: y\r\n" * 1000, 502),  # H15
    (b"HTTP/1.1 101 X\r\nX: ", b"y" * 6000, 502), (b"", b"H" * 6000, 502),  # H16
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 200, None),
    (b"", b"HTTP/1.1 103 Early\r\n\r\n" * 200, None),
    (b"HTTP/1.1 403 No\r\n\r\n", b"x" * 6000, 403),
    (b"HTTP/1.1 403 No\r\nContent-Length: 999999999\r\n\r\n", b"x" * 6000, 403),
    (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n",
     b"1000\r\n" + b"x" * 4096 + b"\r\n", 403),
    (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1000, 403),
])
def test_an_endless_answer_is_given_up(serve, start, piece, status):
    def script(request, conn):
        conn.send(start)
        while True:
            conn.send(piece)

    server = serve(script)
    error = background(connect, server.ws, timeout=60).result()  # long before its time is over
    assert isinstance(error, apiproxy.ApiError)
    assert status in (error.status, None)
    assert len(error.body) <= 64 * 1024
    eventually(lambda: not server.open)


@row("H17")
def test_one_deadline_covers_an_answer_of_single_bytes(serve):
    def script(request, conn):
        for _ in range(500):
            conn.send("H")
            server.stopped.wait(0.02)
        return False

    server = serve(script)
    with pytest.raises(apiproxy.ApiError) as caught:
        connect(server.ws, timeout=0.3)
    assert caught.value.status == 408


@row("H21")
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Swi"])
def test_an_end_before_the_answer_is_502(serve, sent):
    server = serve(lambda request, conn: bool(conn.send(sent)))
    with pytest.raises(apiproxy.ApiError) as caught:
        connect(server.ws)
    assert caught.value.status == 502 and "closed" in str(caught.value)


# -- messages


@row("H18")
@pytest.mark.parametrize("messages", [["first", b"second"], ["x" * 9000, b"y" * 9000]])
def test_frames_in_the_segment_of_the_101_are_kept(serve, messages):
    wire = b"".join(
        frame(TEXT if isinstance(message, str) else BINARY, message) for message in messages)
    server = serve(lambda request, conn: (conn.send(accepting(request) + wire), conn.wait_end()))
    ws = connect(server.ws)
    assert [ws.recv() for _ in messages] == messages
    ws.abort()


@row("F17")
@both
def test_recv_goes_on_after_a_timeout_at_every_byte(dial, tls):
    wire = frame(TEXT, "a\u20ac", fin=False) + frame(PING, "p") + frame(CONTINUATION, "\U0001f600")
    go = threading.Semaphore(0)

    def script(conn):
        for index in range(len(wire)):
            go.acquire(timeout=10)
            conn.send(wire[index:index + 1])
        conn.wait_end()

    ws = dial(script, tls)
    for _ in wire[1:]:
        go.release()
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.01)

    go.release()

    assert ws.recv() == "a\u20ac\U0001f600"


@row("F09")
@pytest.mark.parametrize("piece", [frame(CONTINUATION, b"", fin=False), frame(PONG), frame(PING)])
def test_recv_keeps_its_time_while_bytes_come_that_are_no_message(dial, piece):
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
    assert is_readable(ws, 10)
    assert ws.recv(timeout=0) == "hi"


def test_a_second_reader_keeps_its_time_too(dial):
    ws = dial(swallow)
    first = background(ws.recv)
    eventually(lambda: is_blocked(ws))
    assert isinstance(background(ws.recv, timeout=0.05).result(), TimeoutError)
    ws.abort()
    assert first.result().code == 1006


@pytest.mark.parametrize("timeout", [1e7, float("inf")])
def test_a_very_long_time_is_a_time(dial, timeout):
    ws = dial(lambda conn: (conn.read_frame(), conn.send(frame(TEXT, "hi")), conn.wait_end()),
        ping_interval=None, timeout=timeout)
    reader = background(ws.recv, timeout)
    eventually(lambda: is_blocked(ws) or not reader.is_alive())
    ws.send("x")
    assert reader.result() == "hi"


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


def test_messages_of_one_tls_record_all_arrive(dial):
    ws = dial(lambda conn: (conn.send(frame(TEXT, "x") * 500), conn.wait_end()), tls=True)
    assert [ws.recv(timeout=5) for _ in range(500)] == ["x"] * 500


@row("F21", "F22")
@both
def test_frames_of_many_senders_leave_whole_while_one_reads(dial, tls):
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
    assert [each.result() for each in senders] == [None] * count

    messages = [payload for opcode, payload in seen if opcode == BINARY]
    for name in range(count):
        assert [len(each) for each in messages if each and set(each) == {name}] == list(sizes[1:])


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


@row("W41")
def test_a_ping_inside_a_message_is_answered_at_once(dial):
    seen = []

    def script(conn):
        conn.send(frame(TEXT, "a", fin=False) + frame(PING, "p"))
        seen.append(conn.read_frame())
        conn.send(frame(CONTINUATION, "b"))
        conn.wait_end()

    assert dial(script).recv() == "ab"
    assert seen == [(PONG, b"p")]


# -- a peer that does not read


@row("F10")
def test_a_flood_of_pings_stops_neither_the_reader_nor_fills_memory(dial):
    done, last = [], b"%100d" % 39999

    def script(conn):
        for start in range(0, 40000, 1000):
            conn.send(b"".join(frame(PING, b"%100d" % number)
                for number in range(start, start + 1000)))

        conn.send(frame(TEXT, "after"))
        eventually(lambda: done, 30)

        data = bytearray(conn.buffer)
        while len(data) % 106 or apiproxy.apply_mask(bytes(data[-100:]),
                bytes(data[-104:-100])) != last:
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
        wire = bytearray()
        while wire[-7:-5] != b"\x8a\x81" or wire[-1] ^ wire[-5] != ord("p"):
            wire += some(conn)
        conn.send(frame(TEXT, "answered"))
        conn.wait_end()

    ws = dial(script, tls)
    fill_connection(ws, tls)  # so that the pong is the first that waits
    with pytest.raises(TimeoutError):
        ws.recv(timeout=0.1)

    go.set()
    assert ws.recv(timeout=10) == "answered"


@row("F23")
@both
def test_recv_goes_on_beside_a_send_that_is_stuck(dial, tls):
    stuck, go = threading.Event(), threading.Event()

    def script(conn):
        stuck.wait(10)
        for number in range(3):
            conn.send(frame(PING, "p") + frame(TEXT, str(number)))
        go.wait(10)
        swallow(conn)

    ws = dial(script, tls)
    sender = background(ws.send, bytes(20 << 20))
    eventually(lambda: is_blocked(ws))

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

    ws = dial(script, tls,
        **({"ping_interval": 0.05, "ping_timeout": 0.05} if how == "silence" else {}))
    senders = [background(ws.send, bytes(20 << 20))]
    eventually(lambda: is_blocked(ws))

    senders += [background(ws.send, "next"), background(ws.ping)]  # these wait for the first
    go.set()
    if how == "silence":  # who reads notices
        assert outcome(ws.recv)[0] == 1006

    assert [sender.result().code for sender in senders] == [1006] * 3
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
    # little room: what is sent was taken, but for a second or two
    for sock in [socket_of(ws)] + list(ws.server.open):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 1 << 16)

    set_time(monkeypatch, lambda: clock[0])
    sender, reader = background(ws.send, bytes(size)), background(recv)
    eventually(lambda: is_blocked(ws))

    go.set()
    assert reader.result(20) == "got it"
    assert sender.result() is None


@row("F18", "F19", "F20")
@both
@pytest.mark.parametrize("what", ["recv", "send"])
def test_abort_wakes_who_is_blocked(dial, tls, what):
    ws = dial(idle, tls)
    call = background(ws.recv) if what == "recv" else background(ws.send, bytes(20 << 20))
    eventually(lambda: is_blocked(ws))

    begin = time.monotonic()
    ws.abort()
    assert call.result().code == 1006
    assert time.monotonic() - begin < 1
    assert ws.closed and outcome(ws.recv) == outcome(ws.send, "x") == (1006, "aborted here")
    assert socket_of(ws).fileno() == -1


# -- the end


@row("F11", "F12", "F13")
@both
@pytest.mark.parametrize("end", [
    lambda conn: None, Conn.reset, lambda conn: (conn.half_close(), conn.wait_end())],
    ids=["end", "reset", "half-closed"])
@pytest.mark.parametrize("last", [
    b"", b"\x81", b"\x81\x05he", b"\x82\x7f\0\0", b"\x89\x05p", b"\x88\x02\x03",
    frame(TEXT, "half", fin=False)])
def test_an_end_without_a_close_frame_is_1006_for_good(dial, tls, last, end):
    ws = dial(lambda conn: (conn.send(last), end(conn)), tls)
    assert [outcome(ws.recv)[0] for _ in range(3)] == [1006] * 3
    assert ws.closed and outcome(ws.send, "x")[0] == 1006
    with pytest.raises(ConnectionClosed):
        list(ws)
    ws.close()


@pytest.mark.parametrize("last, code", [
    (b"", 1006), (b"\x81\x05he", 1006), (frame(CLOSE, b"\x03\xe9"), 1001)])
def test_tls_that_ends_without_close_notify_is_lost_unless_a_close_frame_came(dial, last, code):
    ws = dial(lambda conn: conn.send(last), tls=True)
    with pytest.raises(ConnectionClosed) as caught:
        ws.recv()
    assert caught.value.code == code


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
            conn.half_close()

        sent.set()
        conn.stopped.wait(20)

    ws = dial(script, tls=True)
    assert sent.wait(10)
    assert [ws.recv(timeout=5) for _ in range(100)] == ["x"] * 100
    with pytest.raises(ConnectionClosed) as caught:
        ws.recv(timeout=5)
    assert caught.value.code == 1006


@pytest.mark.parametrize("last, clean", [
    (closing(1000), True), (closing(1001, "bye"), True), (frame(CLOSE), True),
    (closing(1011), False), (closing(4000), False)])
def test_iteration_ends_at_a_clean_close_and_raises_at_another(dial, last, clean):
    ws, seen = dial(lambda conn: conn.send(frame(TEXT, "a") + frame(BINARY, b"b") + last)), []
    try:
        for message in ws:
            seen.append(message)
        assert clean
    except ConnectionClosed:
        assert not clean

    assert seen == ["a", b"b"]


@row("F14")
def test_a_connection_left_open_after_close_frames_ends_in_time(dial):
    ws = dial(lambda conn: (conn.send(closing(1000, "bye")), idle(conn)), close_timeout=0.1)
    result = background(ws.recv).result()
    assert (result.code, result.reason) == (1000, "bye")
    assert socket_of(ws).fileno() == -1


@row("F15", "F16")
@both
@pytest.mark.parametrize("server", ["silent", "flooding", "not reading"])
def test_close_takes_no_longer_than_close_timeout(dial, tls, server):
    def script(conn):
        while server == "flooding":
            conn.send(frame(BINARY, bytes(60000)) * 10)
        idle(conn)

    ws = dial(script, tls, close_timeout=0.1)
    sender = background(ws.send, bytes(20 << 20)) if server == "not reading" else None
    if sender:
        eventually(lambda: is_blocked(ws))

    assert background(ws.close).result(5) is None
    assert ws.closed and outcome(ws.recv)[0] == 1000
    assert sender is None or isinstance(sender.result(), ConnectionClosed)
    assert socket_of(ws).fileno() == -1


def test_close_ends_in_time_although_bytes_never_stop(dial):
    ws = dial(idle, close_timeout=0.1)
    end = time.monotonic() + 4
    # a peer that is faster than we are
    read_instead(ws, lambda space: len(space) if time.monotonic() < end else 0)
    assert background(ws.close).result(2) is None


@both
def test_close_beside_a_reader_ends_both_with_the_servers_answer(dial, tls):
    def script(conn):
        opcode, payload = conn.read_frame()
        conn.send(frame(TEXT, "last") + frame(opcode, payload))
        conn.wait_end()

    ws = dial(script, tls, close_timeout=10)
    reader = background(list, ws)
    eventually(lambda: is_blocked(ws))
    assert background(ws.close, 1000, "enough").result() is None
    assert reader.result() == ["last"]
    assert outcome(ws.recv) == (1000, "enough")
    assert outcome(ws.send, "x")[0] == 1000


@pytest.mark.parametrize("other", ["close", "abort"])
def test_an_end_from_two_sides_at_once_is_one_end(dial, monkeypatch, other):
    go, told = threading.Event(), threading.Event()
    meet = threading.Barrier(2)
    real = apiproxy.ConnectionClosed.__init__

    # both sides are about to say how it ended, and the reader is first
    def slowly(self, code, reason=""):
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
    eventually(lambda: is_blocked(ws))

    go.set()
    ended = background(ws.abort) if other == "abort" else background(ws.close, 4001)
    assert ended.result() is None
    assert outcome(ws.recv) == outcome(ws.recv) == reader.result()


def test_a_reader_does_not_outlive_a_close_that_nobody_answers(dial):
    ws = dial(idle, close_timeout=0.1)
    reader = background(ws.recv)
    eventually(lambda: is_blocked(ws))
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


@row("W43")
@pytest.mark.parametrize("wire, code", [
    (b"\xff\xff", 1002), (frame(TEXT, b"\xff"), 1007),
    (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), 1009), (frame(CLOSE, b"x"), 1002),
    (closing(1006), 1002), (frame(CLOSE, b"\x03\xe8\xff"), 1007), (b"\x81\x81abcdx", 1002),
    (frame(TEXT, "x", rsv=4), 1002), (frame(3), 1002), (frame(PING, b"x" * 126), 1002),
    (frame(CONTINUATION, "x"), 1002)])
def test_a_broken_frame_comes_after_the_good_ones_and_is_answered_with_its_code(dial, wire, code):
    seen = []
    ws = dial(lambda conn: (conn.send(frame(TEXT, "good") + wire), seen.append(conn.read_frame())))
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
        conn.send(frame(TEXT, "before") + frame(PING, "1") + frame(PING, "2") +
            frame(TEXT, "last") + closing(1011, "why"))
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


# -- silence


@row("F24")
@pytest.mark.parametrize("timeout", [None, 0.02])
def test_a_peer_that_is_gone_is_pinged_and_then_given_up(dial, timeout):
    seen = []
    ws = dial(lambda conn: (seen.append(conn.read_frame()), idle(conn)), ping_interval=0.1,
        ping_timeout=0.1)

    def read():
        for _ in range(200):
            try:
                return ws.recv(timeout)
            except TimeoutError:
                pass
        return None

    result = background(read).result(20)
    assert isinstance(result, ConnectionClosed) and result.code == 1006
    eventually(lambda: seen == [(PING, b"")])


@pytest.mark.parametrize("timeout", [None, 0.004])
def test_any_byte_is_a_sign_of_life(dial, timeout):
    wire = frame(TEXT, "x" * 28)

    def script(conn):
        for index in range(len(wire)):
            conn.send(wire[index:index + 1])
            conn.stopped.wait(0.02)
        conn.wait_end()

    ws = dial(script, ping_interval=0.25, ping_timeout=0.25)
    for _ in range(5000):
        try:
            assert ws.recv(timeout) == "x" * 28
            break
        except TimeoutError:
            pass
    else:
        pytest.fail("the message never came")


@row("W82")
def test_a_reader_that_was_suspended_asks_before_it_gives_up(dial, clock):
    jumped = threading.Event()

    def script(conn):
        assert conn.read_frame()[0] == PING and jumped.wait(10)
        conn.send(frame(PONG) + frame(TEXT, "here"))
        conn.wait_end()

    ws = dial(script, ping_interval=0.5, ping_timeout=20.0)
    reader = background(ws.recv)
    eventually(lambda: is_blocked(ws))

    clock.skip(60)
    jumped.set()
    assert reader.result() == "here"


def test_a_time_out_of_the_system_is_an_end_not_a_time_out_of_ours(dial):
    ws = dial(swallow)

    def read(space):
        raise OSError(errno.ETIMEDOUT, "Connection timed out")  # keepalive, or unacknowledged bytes

    read_instead(ws, read)
    assert outcome(ws.recv)[0] == 1006


# ------------------------------------------------------------------------------
# 8. Endpoints
#
# Where clusters are and how they want to be met: TLS settings, kubeconfigs, exec plugins.
# ------------------------------------------------------------------------------

# -- TLS settings


@pytest.mark.parametrize("value", ["false", "0", 1, ["x"], None, ""])
def test_nothing_but_true_turns_the_check_of_certificates_off(serve, value):
    server = serve(lambda request, conn: conn.reply(200, {}), tls=True)
    packed = b64(
        json.dumps(config(server.url, name="a", cluster={"insecure-skip-tls-verify": value})))

    for cluster in ({"name": "a", "server": server.url, "insecureTLSVerify": value},
            {"kubeconfig": packed}):
        with apiproxy.Client("") as client:
            try:
                client.set_cluster(cluster)
            except (TypeError, ValueError):
                continue  # a value that says neither yes nor no may be refused
            error = failed(client.request, "/x", {"cluster": "a"})
            assert isinstance(error.__cause__, ssl.SSLCertVerificationError)

    try:
        context = apiproxy.tls_context(insecure=value)
    except (TypeError, ValueError):
        pass
    else:
        assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED

    assert not server.requests


def test_what_turns_the_check_off_elsewhere_does_not_here(serve, new_client, monkeypatch):
    server = serve(hello, tls=True)
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    # what people paste
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    forget_default_context()

    for context in (None, False, 0, ""):  # "I have none"
        for call in (lambda: new_client(server, ssl_context=context).request("/x"),
                lambda: connect(server.ws, ssl_context=context)):
            assert isinstance(failed(call).__cause__, ssl.SSLCertVerificationError)

    assert not server.requests


def test_tls_names_and_authorities_are_checked_unless_told_not_to(serve, tmp_path, caplog):
    server, authority = serve(echo_headers, tls=True), {"certificate-authority-data": b64(pem()[1])}
    for cluster, works in (
        (authority, True), ({}, False), ({**authority, "tls-server-name": "localhost"}, True),
        ({**authority, "tls-server-name": "elsewhere.example"}, False),
        ({"insecure-skip-tls-verify": True}, True),
    ):
        path = write(tmp_path / "config", config(server.url, {"token": "SECRET"}, cluster=cluster))
        with apiproxy.Client.from_kubeconfig(path) as client:
            if works:
                assert client.request("/version")["authorization"] == "Bearer SECRET"
            else:
                with pytest.raises(apiproxy.ApiError, match="certificate verify failed"):
                    client.request("/version")

    warnings = [record for record in caplog.records if "not checked" in record.message]
    assert [record.levelname for record in warnings] == ["WARNING"]


def mutual(serve, certificate):
    """A server that wants a client certificate, and says whose it got."""
    def script(request, conn):
        subject = dict(pair[0] for pair in conn.sock.getpeercert().get("subject", ()))
        conn.reply(200,
            {"subject": subject.get("commonName"),
                "authorization": request.headers.get("authorization")})

    server = serve(script, tls=True)
    server.context.load_verify_locations(certificate)
    server.context.verify_mode = ssl.CERT_OPTIONAL
    return server


def test_client_certificates_as_files_and_as_data_which_leaves_no_file(
        serve, certificate, tmp_path, monkeypatch):
    server, (key, cert) = mutual(serve, certificate), pem()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    write(tmp_path / "key.pem", key)
    write(tmp_path / "cert.pem", cert)

    for user in ({"client-certificate-data": b64(cert), "client-key-data": b64(key)},
                 {"client-certificate": "cert.pem", "client-key": "key.pem"}):
        for cluster in ({"certificate-authority-data": b64(cert)},
                {"certificate-authority": "cert.pem"}):
            path = write(tmp_path / "config", config(server.url, user, cluster=cluster))
            with apiproxy.Client.from_kubeconfig(path) as client:
                assert client.request("/version") == {"subject": "apiproxy tests",
                    "authorization": None}

    assert not os.listdir(str(tmp_path / "temp"))

    bad = write(tmp_path / "bad",
        config(server.url,
            {"client-certificate-data": b64(cert), "client-key-data": b64("SECRET")}))
    with pytest.raises(ValueError, match="can't be used") as caught:
        apiproxy.Client.from_kubeconfig(bad)
    assert "SECRET" not in str(caught.value) and not os.listdir(str(tmp_path / "temp"))


def test_a_client_certificate_is_shown_only_for_its_own_cluster(serve, certificate, tmp_path):
    def script(request, conn):
        shown = conn.sock.getpeercert() is not None
        conn.reply(200,
            {"certificate": shown, "authorization": request.headers.get("authorization")})

    server, (key, cert) = serve(script, tls=True), pem()
    server.context.load_verify_locations(certificate)
    server.context.verify_mode = ssl.CERT_OPTIONAL
    mine = apiproxy.tls_context(ca_data=cert.encode())
    apiproxy.load_certificate(mine, cert.encode(), key.encode())

    with apiproxy.Client("", ssl_context=apiproxy.tls_context(ca_data=cert.encode())) as client:
        # one address, two clusters
        client.add_endpoint("mine", apiproxy.Endpoint(server.url, ssl_context=mine))
        client.add_endpoint("yours", apiproxy.Endpoint(server.url, token="SECRET"))
        for _ in range(3):  # kept connections too
            assert client.request("/x", {"cluster": "mine"}) == {"certificate": True,
                "authorization": None}
            assert client.request("/x", {"cluster": "yours"}) == {"certificate": False,
                "authorization": "Bearer SECRET"}

    assert server.count == 2


def test_a_certificate_without_its_key_is_refused(tmp_path):
    path = write(tmp_path / "config",
        config("https://127.0.0.1:1", {"client-certificate-data": b64(pem()[1])}))
    with pytest.raises(ValueError, match="belong together"):
        apiproxy.Client.from_kubeconfig(path)


# -- kubeconfigs


def test_every_context_is_a_cluster_and_the_current_one_is_current(serve, tmp_path, monkeypatch):
    first, second = serve(echo_headers), serve(echo_headers)
    first_config = config(first.url + "/k8s/c-1", {"token": "SECRET-1"}, "arn:aws:eks:eu/one",
        namespace="shop")
    basic = {"username": "me", "password": "SECRET-2"}
    second_config = config(second.url, basic, "two", current=False)
    second_config["contexts"] += [{"name": "broken", "context": {"cluster": "nowhere"}},
                        {"name": "arn:aws:eks:eu/one",
                            "context": {"cluster": "two", "user": "two"}}]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([
        str(tmp_path / "missing"), write(tmp_path / "a", second_config),
        write(tmp_path / "b", first_config)]))

    # the first file to name a thing wins: kubectl's rule
    with apiproxy.Client.from_kubeconfig() as client:
        assert client.cluster == "arn:aws:eks:eu/one"
        assert sorted(client.endpoints) == ["arn:aws:eks:eu/one", "two"]
        assert client.request("/version") == {"path": "/version", "authorization": "Basic " +
            base64.b64encode(b"me:SECRET-2").decode()}

    with apiproxy.Client.from_kubeconfig(str(tmp_path / "b")) as client:
        assert client.request("/version") == {"path": "/k8s/c-1/version",
            "authorization": "Bearer SECRET-1"}
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


@pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")
def test_yaml_is_read_through_kubectl(serve, tmp_path):
    server = serve(echo_headers)
    write(tmp_path / "token", "SECRET-1\n")
    path = write(tmp_path / "config", YAML % server.url)
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version")["authorization"] == "Bearer SECRET-1"
    write(tmp_path / "config", "a: [")

    with pytest.raises(ValueError, match="kubectl can't read"):
        apiproxy.Client.from_kubeconfig(path)


def test_yaml_without_kubectl_is_read_by_pyyaml_or_gives_the_one_command_that_helps(
        serve, tmp_path, monkeypatch):
    server = serve(echo_headers)
    write(tmp_path / "token", "SECRET-1\n")
    path = write(tmp_path / "config", YAML % server.url)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "yaml", None)

    with pytest.raises(ValueError,
            match="kubectl config view --raw --flatten -o json > kubeconfig.json"):
        apiproxy.Client.from_kubeconfig(path)

    stub = types.ModuleType("yaml")
    stub.safe_load = lambda text: config(server.url, {"tokenFile": "token"})
    monkeypatch.setitem(sys.modules, "yaml", stub)
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version")["authorization"] == "Bearer SECRET-1"


@pytest.mark.parametrize("text", [
    b"[]", b'"x"', b'{"clusters": [{}]}', b'{"users": {"a": 1}}', b'{"contexts": 5}'])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path, text):
    (tmp_path / "config").write_bytes(text)
    with pytest.raises(ValueError, match="not a kubeconfig"):
        apiproxy.Client.from_kubeconfig(str(tmp_path / "config"))


@pytest.mark.parametrize("user", [
    {"auth-provider": {"name": "oidc"}},
    {"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1"}}])
def test_ways_to_log_in_that_are_not_supported_are_refused(tmp_path, user):
    with pytest.raises(ValueError, match="auth-provider|v1alpha1"):
        apiproxy.Client.from_kubeconfig(write(tmp_path / "config",
            config("https://127.0.0.1:1", user)))


def test_a_clusters_proxy_is_its_own(serve, tmp_path):
    proxy = serve(lambda request, conn: conn.reply(200, {"asked": request.path}))
    path = write(tmp_path / "config",
        config("http://api.example", cluster={"proxy-url": proxy.url}))
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version") == {"asked": "http://api.example/version"}


def test_a_token_file_is_read_again_as_it_rotates(serve, tmp_path, monkeypatch):
    server = serve(echo_headers, tls=True)
    for name, text in (("token", "SECRET-1\n"), ("namespace", "mine"), ("ca.crt", pem()[1])):
        write(tmp_path / name, text)
    with pytest.raises(ValueError, match="not inside a cluster"):
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        apiproxy.Client.in_cluster()

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    with pytest.raises(ValueError, match="not inside a cluster"):
        apiproxy.Client.in_cluster(str(tmp_path / "nowhere"))

    with apiproxy.Client.in_cluster(str(tmp_path), gzip=False) as client:
        assert (client.cluster, client.endpoints["in-cluster"].namespace,
            client.gzip) == ("in-cluster", "mine", False)
        assert client.request("/version")["authorization"] == "Bearer SECRET-1"
        write(tmp_path / "token", "SECRET-2\n")
        assert client.request("/version")["authorization"] == "Bearer SECRET-2"
        os.unlink(str(tmp_path / "token"))
        with pytest.raises(apiproxy.ApiError, match="FileNotFoundError"):
            client.request("/version")


# -- exec plugins

PLUGIN = """\
import json, os, sys, time
runs = os.environ["RUNS"]
open(runs, "a").write("x")
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
count = os.path.getsize(runs)
status = {"token": "SECRET-%s-%d" % (sys.argv[1], count)}
if len(sys.argv) > 2:
    ends = time.gmtime(time.time() + int(sys.argv[2]))
    status["expirationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", ends)
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


def plugin(tmp_path, *args, version="v1"):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/" + version,
                     "command": sys.executable,
                     "args": [str(tmp_path / "plugin.py")] + list(args),
                     "env": [{"name": "RUNS", "value": str(tmp_path / "runs")}]}}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_an_exec_plugin_runs_once_for_all_threads_and_again_after_a_401(serve, tmp_path, version):
    server = serve(echo_headers)
    path = write(tmp_path / "config",
        config(server.url, plugin(tmp_path, "a", "3600", version=version)))

    with apiproxy.Client.from_kubeconfig(path) as client:
        together(*[functools.partial(client.request, "/version")] * 8)
        sent = {request.headers["authorization"] for request in server.requests}
        assert sent == {"Bearer SECRET-a-1"}
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
    (tmp_path / "status").write_text(
        json.dumps({"status": {"clientCertificateData": cert, "clientKeyData": key}}))
    code = "print(open(%r).read())" % str(tmp_path / "status")
    user = {"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable, "args": ["-c", code]}}
    path = write(tmp_path / "config",
        config(server.url, user, cluster={"certificate-authority-data": b64(cert)}))
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version") == {"subject": "apiproxy tests", "authorization": None}


@pytest.mark.parametrize("spec, said", [
    ({"command": "no-such-program-here"}, "FileNotFoundError"),
    ({"command": sys.executable, "args": ["-c", "import sys; sys.exit('please log in')"],
        "installHint": "get it there"}, "please log in get it there"),
    ({"command": sys.executable, "args": ["-c", "print('rubbish SECRET')"]}, "JSONDecodeError"),
    ({"command": sys.executable, "args": ["-c", "print('{\"status\": {}}')"]}, "no credential"),
])
def test_an_exec_plugin_that_fails_says_why(serve, tmp_path, spec, said):
    server = serve(echo_headers)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **spec}}

    with apiproxy.Client.from_kubeconfig(write(tmp_path / "config",
            config(server.url, user))) as client:
        with pytest.raises(apiproxy.ApiError) as caught:
            client.request("/version")
        assert said in str(caught.value)
        assert "SECRET" not in str(caught.value)
        assert not server.requests
        errors = []
        client.stream_results("/api/v1/pods", print,
            lambda error, cancel: [errors.append(error), cancel()])
        eventually(lambda: errors)


# ------------------------------------------------------------------------------
# 9. Transport
#
# Whose credential goes where, and what comes back beside the answer.
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirects_are_errors_and_nobody_else_is_asked(serve, new_client, status):
    other = serve(lambda request, conn: conn.reply(200, {}))
    server = serve(lambda request, conn: conn.reply(status, b"", {"Location": other.url + "/x"}))
    client = new_client(server)
    client.set_token("dev", "SECRET")
    for method in ("GET", "POST"):
        assert failed(client.request, "/x", {"method": method}).status == status

    assert len(server.requests) == 2 and not other.count


def test_a_callers_headers_replace_ours_in_any_case(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    own = {"host": "h", "ACCEPT": "a", "content-type": "b", "user-agent": "c", "AUTHORIZATION": "d"}
    new_client(server).post("/x", {}, True, {"headers": own})
    assert sorted(server.requests[0].lines[1:]) == sorted(
        ["Accept-Encoding: gzip", "Content-Length: 2"] + ["%s: %s" % pair for pair in own.items()])


def test_no_secret_is_in_an_error_a_repr_or_a_log_line(serve, new_client, proxies, caplog):
    caplog.set_level(logging.DEBUG)
    secret, texts = "SECR" + "ET", []  # in two: a traceback shows these lines
    answers = [
        lambda conn: conn.reply(401, {}), lambda conn: conn.reply(500, "oops"),
        lambda conn: conn.send("HTTP/1.1 2") or False,
        lambda conn: False, lambda conn: conn.reply(200, "<html>"),
        lambda conn: conn.reply(200, {}, {"X-Authorization": secret})]
    calls = [lambda client: client.post("/x", {"a": secret}), lambda client: client.request("/x"),
        lambda client: client.delete_plugin("p")]
    server = serve(lambda request, conn: answers[len(server.requests) % len(answers)](conn))
    proxies(http_proxy="http://user:%s@127.0.0.1:1" % secret, no_proxy="127.0.0.1")

    for client in (new_client(server), new_client("http://cluster.invalid")):
        client.backend_token = secret
        set_kubeconfig(client, "dev", secret)
        for index in range(30):
            client.set_token("dev", secret if index % 2 else lambda: secret + "\n")
            try:
                texts.append(repr(calls[index % 3](client)))
            except apiproxy.ApiError as error:
                texts += traceback.format_exception(None, error,
                    error.__traceback__) + [repr(error), repr(vars(error))]
        texts.append(repr(client))

    assert len(texts) > 100
    assert len(caplog.messages) > 50
    assert secret not in "".join(texts) + caplog.text


# -- credentials


def jwt(seconds, namespace="ns", name="robot"):
    """A token that looks like a service account's, and ends in `seconds`."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return "%s.%s.SECRET" % (part({"alg": "none"}),
        part({"exp": time.time() + seconds, "kubernetes.io": {
        "namespace": namespace, "serviceaccount": {"name": name, "uid": "1"}}}))


def test_a_token_that_ends_soon_is_renewed_once_and_the_new_one_used_at_once(serve, new_client):
    old, new = jwt(5), jwt(3600)

    def script(request, conn):
        if request.method == "POST":
            return conn.reply(201, {"status": {"token": new}})
        conn.reply(200, {})

    server = serve(script)
    client = new_client(server)
    client.set_token("dev", old)
    client.set_token("other", "opaque-SECRET")
    together(*[functools.partial(client.request, "/api/v1/pods")] * 8)
    client.request("/x", {"cluster": "other"})
    posts = [request for request in server.requests if request.method == "POST"]

    assert len(posts) == 1
    assert posts[0].path == "/clusters/dev/api/v1/namespaces/ns/serviceaccounts/robot/token"
    assert posts[0].headers["authorization"] == "Bearer " + old
    assert json.loads(posts[0].body)["spec"] == {"expirationSeconds": 86400}

    sent = [r.headers["authorization"] for r in server.requests if r.method == "GET"]
    assert sent == ["Bearer " + new] * 8 + ["Bearer opaque-SECRET"]
    assert client.get_token("dev") == new


def test_a_renewal_that_fails_leaves_the_token_and_is_not_tried_again_at_once(serve, new_client):
    server = serve(lambda request, conn: conn.reply(403 if request.method == "POST" else 200, {}))
    client = new_client(server)
    client.set_token("dev", jwt(-5))
    for _ in "123":
        client.request("/api/v1/pods")
    assert [request.method for request in server.requests] == ["POST", "GET", "GET", "GET"]


def test_the_deadline_covers_the_renewal(serve, new_client):
    server = serve(lambda request, conn: server.stopped.wait(20))
    client = new_client(server)
    client.set_token("dev", jwt(5))
    begun = time.monotonic()

    with pytest.raises(apiproxy.ApiError) as caught:
        client.request("/api/v1/pods", {"timeout": 200})
    assert caught.value.status == 408 and time.monotonic() - begun < 5


def test_cancel_does_not_wait_for_a_token_that_another_stream_renews(serve, new_client):
    server, cancels = serve(hang), []
    client = new_client(server)
    client.set_token("dev", jwt(-5))
    for _ in range(2):
        cancels.append(client.stream_results("/api/v1/pods", print, print))
        eventually(lambda: server.requests)

    cancels[1]()
    eventually(lambda: len(threads()) == 1, 2)


def test_401_forgets_only_the_token_that_was_sent(serve, new_client):
    logouts = []
    server = serve(lambda request, conn: conn.reply(401,
        {"kind": "Status", "message": "Unauthorized"}))
    client = new_client(server, on_logout=logouts.append)
    client.set_token("dev", "SECRET-1")
    client.set_token("other", "SECRET-2")

    def call(**options):
        with pytest.raises(apiproxy.ApiError) as caught:
            client.request("/api/v1/pods", options)
        assert caught.value.status == 401

    call(autoLogoutOnAuthError=False)
    assert client.get_token("dev") == "SECRET-1" and not logouts

    call()
    assert client.get_token("dev") is None
    assert logouts == ["dev"]
    assert client.get_token("other") == "SECRET-2"

    call()  # without a token nobody is logged out
    assert logouts == ["dev"]

    server.script = lambda request, conn: [client.set_token("other", "SECRET-3"),
        conn.reply(401, {})][0]
    call(cluster="other")
    # it was replaced meanwhile
    assert client.get_token("other") == "SECRET-3"
    assert logouts == ["dev"]

    client.set_token("dev", lambda: "SECRET-4")
    call()
    # a function stays: it may give another
    assert client.get_token("dev") == "SECRET-4"
    assert logouts == ["dev", "dev"]


def test_x_authorization_replaces_the_token_of_that_cluster_and_x_reload_reloads(serve, new_client):
    reloads = []
    server = serve(lambda request, conn: conn.reply(200, {},
        {"X-Authorization": "SECRET-new", "X-Reload": "reload"}))
    client = new_client(server, on_reload=lambda: reloads.append(1))
    client.set_token("dev", "SECRET-old")
    client.request("/a")
    client.request("/a", use_cluster=False)

    assert client.get_token("dev") == "SECRET-new"
    assert reloads == [1, 1]
    assert "authorization" not in server.requests[1].headers


@pytest.mark.parametrize("token", [
    "two\nlines-SECRET", "a SECRET b", "SECRET-\u00e9", "SECRET\x00"])
def test_a_token_that_a_header_can_not_carry_is_refused_without_repeating_it(
        serve, new_client, token):
    server = serve(lambda request, conn: conn.reply(200, {}))
    client = new_client(server)
    with pytest.raises(ValueError) as caught:
        client.set_token("dev", token)
    assert "SECRET" not in str(caught.value)

    client.set_token("dev", lambda: token)
    with pytest.raises(apiproxy.ApiError) as caught:
        client.request("/a")
    assert "SECRET" not in "%s %r" % (caught.value, caught.value) and not server.requests
    with pytest.raises(TypeError):
        client.set_token("dev", 5)


@pytest.mark.parametrize("user_id", ["a\r\nX-Evil: y", "a\nb", "a\0", "a b", "a,b", "\u20ac"])
def test_a_user_id_that_a_header_can_not_carry_is_refused(serve, new_client, user_id):
    server = serve(lambda request, conn: conn.reply(200, pods()))
    client, errors = new_client(server), []
    client.user_id = user_id
    set_kubeconfig(client, "dev", "SECRET")

    with pytest.raises(ValueError):
        client.request("/x")

    streams = [lambda: client.stream("/x", print, {"failCb": lambda: errors.append(1)}),
               lambda: client.stream_results("/api/v1/pods", print,
                   lambda error, cancel: [errors.append(error), cancel()])]
    for count, start in enumerate(streams, 1):
        try:
            start()
        except ValueError:
            errors.append(1)
        eventually(lambda: len(errors) == count)  # one way or the other it is said

    assert not server.requests


def test_a_token_may_be_a_function_and_is_asked_each_time(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    client = new_client(server)
    tokens = iter(["SECRET-1", "SECRET-2", None])
    client.set_token("dev", lambda: next(tokens))
    [client.request("/a") for _ in "123"]

    assert [r.headers.get("authorization") for r in server.requests] == ["Bearer SECRET-1",
        "Bearer SECRET-2", None]


def test_the_backend_token_goes_only_where_it_is_wanted(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    client = new_client(server, backend_token="SECRET-backend")
    client.set_cluster({"name": "new", "server": "https://api.example:6443"})
    client.delete_cluster("new")
    client.delete_plugin("p")
    client.request("/helm/releases")
    client.request("/api/v1/pods")
    client.request("/config", use_cluster=False)
    client.drain_node("dev", "n")
    with_token = [r.path for r in server.requests if "x-headlamp_backend-token" in r.headers]

    assert with_token == ["/cluster", "/cluster/new", "/plugins/p", "/clusters/dev/helm/releases"]


@pytest.mark.parametrize("token, kubeconfig, option, authorization, protocols", [
    ("", "", False, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s"]),
    ("t?~>", "", False, "Bearer t?~>", ["base64.binary.k8s.io", "v4.k8s", "v5.k8s"]),
    ("t?~>", "", True, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s",
        "base64url.bearer.authorization.k8s.io.dD9-Pg"]),
    ("tt", "", True, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s",
        "base64url.bearer.authorization.k8s.io.dHQ"]),
    ("", "", True, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s"]),
    ("", "S0M=", False, None, ["base64.binary.k8s.io", "v4.k8s", "v5.k8s",
        "base64url.headlamp.authorization.k8s.io.me"]),
    ("t", "S0M=", False, "Bearer t", ["base64.binary.k8s.io", "v4.k8s", "v5.k8s",
        "base64url.headlamp.authorization.k8s.io.me"]),
])
def test_a_handshake_carries_the_credentials_once(
        serve, new_client, token, kubeconfig, option, authorization, protocols):
    server = serve(once())
    client = new_client(server, token_protocol=option, user_id="me")
    client.set_token("dev", token)
    if kubeconfig:
        set_kubeconfig(client, "dev", kubeconfig)
    stream = client.stream(STREAM, print,
        {"additionalProtocols": ["v4.k8s", "base64.binary.k8s.io", "v5.k8s"], "tty": True})
    request, = eventually(lambda: server.requests)

    assert request.headers.get("authorization") == authorization
    offers = [line for line in request.lines if line.lower().startswith("sec-websocket-protocol:")]
    assert offers == ["Sec-WebSocket-Protocol: " + ", ".join(protocols)]
    assert request.headers["origin"] == server.url and request.path == "/clusters/dev" + STREAM
    assert request.headers.get("kubeconfig") == (kubeconfig or None)
    assert request.headers.get("x-headlamp-user-id") == ("me" if kubeconfig else None)

    eventually(lambda: stream.get_socket()).protocol == protocols[0]


def test_a_stored_kubeconfig_goes_with_every_request_and_handshake_of_its_cluster(new_client, demo):
    reloads = []
    server = demo()
    client = new_client(server.url, on_reload=lambda: reloads.append(1))
    answer = client.set_cluster({"kubeconfig": kubeconfig("mine", "yours")})

    assert sorted(cluster["name"] for cluster in answer["clusters"]) == ["mine", "yours"]

    seen = Views()
    cancel = client.stream_results_for_cluster("/api/v1/pods",
        {"cb": seen.cb, "errCb": seen.err_cb, "cluster": "mine"})
    eventually(lambda: seen.views and any("upgrade" in r.headers for r in server.requests))

    client.request("/version")
    cancel()

    for record in list(server.requests)[1:]:
        carried = "kubeconfig" in record.headers, "x-headlamp-user-id" in record.headers
        assert carried == (record.cluster == "mine",) * 2, record.path

    watch = next(r for r in server.requests if "upgrade" in r.headers)

    assert watch.headers["sec-websocket-protocol"] == \
        "base64.binary.k8s.io, base64url.headlamp.authorization.k8s.io." + client.user_id
    assert not seen.errors
    assert client.delete_cluster("mine") is None and reloads == [1]

    client.request("/version", {"cluster": "yours"})
    with pytest.raises(apiproxy.ApiError) as caught:
        client.request("/version", {"cluster": "mine"})
    assert caught.value.status == 404

    for bad in ("not base64!", base64.b64encode(b"rubbish").decode()):
        with pytest.raises((ValueError, apiproxy.ApiError)):
            client.set_cluster({"kubeconfig": bad})

    assert not has_kubeconfig(client, "rubbish")


def test_a_credential_goes_only_where_it_was_meant_to_go(serve, new_client):
    headlamp = serve(echo_headers)
    other = serve(lambda request, conn: conn.reply(200, request.headers))
    client = new_client(headlamp)
    client.set_token("dev", "SECRET-1")
    set_kubeconfig(client, "dev", "SECRET-2")
    # as a call sees it that comes between the two halves of add_endpoint
    client.endpoints["dev"] = apiproxy.Endpoint(other.url)
    seen = client.request("/x")

    assert not {"authorization", "kubeconfig", "x-headlamp-user-id"} & set(seen)

    client.add_endpoint("dev", apiproxy.Endpoint(other.url, token="SECRET-3"))
    assert client.request("/x")["authorization"] == "Bearer SECRET-3"

    del client.endpoints["dev"]
    assert client.request("/x")["authorization"] is None


@pytest.mark.parametrize("count", [800, pytest.param(10000, marks=pytest.mark.slow)])
def test_two_clusters_never_see_each_others_credentials(new_client, demo, count):
    tokens = {"red": "SECRET-red", "blue": "SECRET-blue"}
    server = demo("red", "blue", tokens=tokens, controllers=False)
    client = new_client(server.url, cluster="red")
    for cluster, token in tokens.items():
        client.set_token(cluster, token)
    failures, seen = [], Views()
    cancels = [client.stream_results_for_cluster("/api/v1/namespaces/default/configmaps", {
        "cb": seen.cb, "errCb": seen.err_cb, "cluster": cluster}) for cluster in tokens]
    eventually(lambda: {record.cluster for record in list(server.requests)
        if "upgrade" in record.headers} == {"red", "blue"})

    def work(seed):
        rnd = random.Random(seed)
        try:
            for number in range(count // 8):
                cluster = rnd.choice(("red", "blue"))
                name = "c-%d-%d" % (seed, number)
                path, options = "/api/v1/namespaces/default/configmaps", {"cluster": cluster}
                kind = rnd.randrange(4)
                if kind == 0:
                    client.post(path, config_map(name), True, options)
                    client.remove(path + "/" + name, options)
                elif kind == 1:
                    client.request("/api/v1/namespaces", options)
                elif kind == 2:
                    client.test_auth(cluster)
                else:
                    client.patch("/api/v1/namespaces/default",
                        {"metadata": {"labels": {"n": str(number)}}}, True, options)
        except Exception as error:
            failures.append(error)

    together(*(functools.partial(work, seed) for seed in range(8)))
    for cancel in cancels:
        cancel()
    assert not failures and not seen.errors

    records = list(server.requests)
    assert len(records) >= min(count, 10000)

    for record in records:
        assert record.headers.get("authorization") == "Bearer " + tokens[record.cluster]


# ------------------------------------------------------------------------------
# 10. Streams
# ------------------------------------------------------------------------------


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


@row("W62")
@pytest.mark.parametrize("gap", [0, 0.1, 1.0, 1.9, 3.0])
def test_rate_allows_20_requests_in_10_seconds_and_44_in_60(gap):
    now = [0.0]
    rate, times = apiproxy.Rate(12, 0.5, lambda: now[0]), []

    while now[0] < 200:
        now[0] += rate.take()
        times.append(now[0])
        now[0] += gap

    assert most(times, 10) <= 20 and most(times, 60) <= 44


STREAM = "/api/v1/namespaces/default/pods/a/log"


@pytest.mark.parametrize("args, goes_on", [
    ({}, True), ({"failCb": 1}, False), ({"failCb": 1, "reconnectOnFailure": True}, True),
    ({"reconnectOnFailure": False}, False)])
@pytest.mark.parametrize("steps", [[frame(1, "x"), 1000], [eof], [reset], [403], [frame(3, "?")]])
def test_stream_reconnects_by_default_if_there_is_no_fail_cb(
        serve, new_client, args, goes_on, steps):
    server, calls = serve(once(*steps)), []
    if args.get("failCb"):
        args = dict(args, failCb=lambda: calls.append("fail"))
    stream = new_client(server).stream(STREAM, lambda message: None,
        dict(args, connectCb=lambda: calls.append("connect")))
    if goes_on:
        eventually(lambda: len(server.requests) > 3)
    else:
        eventually(lambda: not threads())
        assert len(server.requests) == 1

    stream.cancel()
    round_ = ([] if steps[0] == 403 else ["connect"]) + (["fail"] if "failCb" in args else [])

    assert calls == (round_ * len(calls))[:len(calls)] and len(calls) >= len(round_)


@pytest.mark.parametrize("args, sent, got", [
    ({}, frame(1, "h\u00e9"), "h\u00e9"), ({}, frame(2, b"\x01\xff"), b"\x01\xff"),
    ({}, frame(1, ""), ""),
    ({"isJson": True}, frame(1, '{"a": 1}'), {"a": 1}), ({"isJson": True}, frame(2, b"[1]"), [1]),
    ({"isJSON": 1}, b"", TypeError)])
def test_stream_passes_str_bytes_or_parsed(serve, new_client, args, sent, got):
    server, seen = serve(once(sent)), []
    if got is TypeError:
        with pytest.raises(TypeError, match="isJson"):
            new_client(server).stream(STREAM, seen.append, args)
        return

    new_client(server).stream(STREAM, seen.append, args)
    eventually(lambda: seen)
    assert seen == [got]


@pytest.mark.parametrize("message", [b"{", b"\xff", b"", b"[" * 100000 + b"]" * 100000])
def test_a_message_that_is_not_json_ends_the_connection_not_the_stream(serve, new_client, message):
    scripts = iter([once(frame(2, message))])
    server, seen = serve(lambda *args: next(scripts, once(frame(1, "1")))(*args)), []
    new_client(server).stream(STREAM, seen.append, {"isJson": True})
    eventually(lambda: seen == [1])


@row("W81")
def test_a_message_for_which_there_is_no_memory_ends_the_connection_not_the_stream(
        serve, new_client, monkeypatch):
    lack, seen = [MemoryError()], []

    def next_message(real, reader):
        if lack:
            raise lack.pop()
        return real(reader)

    wrap(monkeypatch, NEXT_MESSAGE, next_message)
    server = serve(once(frame(1, "x")))
    new_client(server).stream(STREAM, seen.append)
    eventually(lambda: seen == ["x"])
    assert len(server.requests) == 2


def test_get_socket_sends_while_connected_and_is_none_otherwise(serve, new_client):
    got = []

    def echo(request, conn):
        conn.upgrade(request)
        got.append(conn.read_frame())
        return False

    stream = new_client(serve(echo)).stream(STREAM, print, {"reconnectOnFailure": False})
    eventually(stream.get_socket).send(b"\x00ls")
    eventually(lambda: stream.get_socket() is None)
    eventually(lambda: not threads())
    assert got == [(2, b"\x00ls")] and stream.error.code == 1006


def test_a_refused_handshake_is_an_api_error_with_its_status_and_body(serve, new_client):
    server = serve(lambda request, conn: conn.reply(403,
        {"kind": "Status", "message": "not you", "code": 403}))
    failed = threading.Event()
    stream = new_client(server).stream(STREAM, print, {"failCb": failed.set})

    assert failed.wait(10)
    assert (stream.error.status, stream.error.message) == (403, "not you")
    assert b"not you" in stream.error.body


def test_a_stream_of_one_message_a_connection_is_no_storm(serve, new_client):
    times = []
    server = serve(lambda *args: times.append(time.monotonic()) or once(frame(1, "x"), 1000)(*args))
    new_client(server, burst=3, rate=50.0).stream(STREAM, lambda message: None)
    eventually(lambda: len(times) >= 20)
    assert times[19] - times[0] >= (20 - 3 - 2) / 50.0


def test_a_stream_backs_off_while_it_is_refused(serve, new_client, waits):
    server = serve(once(503))
    new_client(server, **REAL_TIMES).stream(STREAM, print)
    eventually(lambda: len(server.requests) > 8)
    waited = [wait for wait in list(waits) if wait]
    assert waited[0] <= 0.1
    assert all(0.4 * 2 ** n <= wait <= 30 for n, wait in enumerate(waited[1:6]))


# ------------------------------------------------------------------------------
# 11. Watches
#
# Against a server of a few scripts; then the fault catalogue, against one with a state.
# ------------------------------------------------------------------------------

# -- what is shown


@pytest.mark.parametrize("events, changed, view", [
    ("+a1", "y", "a1"), ("+a1 +a1", "yn", "a1"), ("+a1 ~a1", "yn", "a1"), ("~a1", "y", "a1"),
    ("-a1", "n", ""), ("+a2 ~a1", "yn", "a2"), ("+a2 -a1", "yn", "a2"), ("+a10 ~a9", "yn", "a10"),
    ("+a9 ~a10", "yy", "a10"), ("+a1 +b2 ~a3", "yyy", "a3 b2"),
    ("+a1 +b2 -a3 +a4", "yyyy", "b2 a4"), ("+a1 -a1", "yy", ""),
    ("+a1 -a3 +a1 ~a2 -a3", "yynnn", ""),
    ("+a1 -a2 +a3 -a4 +a5", "yyyyy", "a5"),  # a selector left and entered again
    ("+a9007199254740993 ~a9007199254740992 ~a9007199254740994", "yny", "a9007199254740994"),
    ("+ax ~aw ~aw", "yyn", "aw"), ("+a1 ~ax", "yy", "ax"), ("+ax ~a1", "yy", "a1"),
    ("+ax -aw +av", "yyy", "av")])
@pytest.mark.parametrize("keyed", ["uid", "name"])
def test_a_collection_only_moves_forward(events, changed, view, keyed):
    collection, said = apiproxy.Collection(), ""
    for word in events.split():
        item = pod(word[1], word[2:])
        if keyed == "name":
            del item["metadata"]["uid"]
        said += "ny"[collection.apply(ACTIONS[word[0]], item)]

    assert (said, text(collection.items())) == (changed, view)


@pytest.mark.parametrize("before, after, differs, view", [
    ("", "", False, ""), ("a1", "a1", False, "a1"), ("a1 b1", "b1 a1", False, "a1 b1"),
    ("a1", "a2", True, "a2"),
    ("a2", "a1", True, "a1"), ("a1 b1 c1", "c2 d1 a1", True, "a1 c2 d1"), ("a1", "", True, ""),
    ("a1", "b1", True, "b1")])
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
        return arrived if limit is None else sorted(arrived, key=apiproxy.newest_first,
            reverse=True)[:limit]

    for version in range(1, 2000):
        name, before = chance.choice("abcdefghijklmnopqrst"), view()
        item = pod(name, str(version),
            lastTimestamp=chance.choice((None, "2024-01-%02dT00:00:00Z" % chance.randrange(1, 9))))
        if chance.random() < 0.02:
            model = {key: item for key, item in model.items() if chance.random() < 0.5}
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
    assert not collection.replace([pod("a", "2", data=1)])
    assert collection.replace([pod("a", "2", data=2)])
    assert collection.items()[0]["data"] == 2


def test_the_same_name_with_another_uid_is_another_object():
    collection = apiproxy.Collection()
    collection.replace([pod("a", "1", uid="1"), pod("b", "2")])
    assert collection.apply("DELETED", pod("a", "3", uid="1"))
    assert collection.apply("ADDED", pod("a", "4", uid="2"))
    assert not collection.apply("MODIFIED", pod("a", "2", uid="1"))
    assert text(collection.items()) == "b2 a4"

    for different in (dict(kind="Node"), dict(apiVersion="v2"), dict(metadata={"namespace": "x"})):
        first, other = pod("a", uid=" "), pod("a", uid=" ", **different)
        first["metadata"]["uid"] = other["metadata"]["uid"] = ""
        assert apiproxy.object_key(first) != apiproxy.object_key(other)


@pytest.mark.parametrize("limit, expected", [
    (None, "a1 b1 c1 d1 e1 f1"), (1, "b1"), (3, "b1 d1 a1"), (9, "b1 d1 a1 c1 e1 f1")])
def test_limit_keeps_the_newest_and_puts_them_first(limit, expected):
    collection = apiproxy.Collection(limit)
    collection.replace([
        pod("a", metadata={"creationTimestamp": "2024-01-02T00:00:00Z"}),
        pod("b", metadata={"creationTimestamp": "2020-01-01T00:00:00Z"},
            lastTimestamp="2024-01-03T00:00:00Z"),
        pod("c", metadata={"creationTimestamp": "2024-01-01T00:00:00Z"}, lastTimestamp=None),
        pod("d", metadata={"creationTimestamp": "2024-01-02T00:00:00.5Z"}), pod("e"),
        pod("f", metadata={"creationTimestamp": "zebra"})])

    assert text(collection.items()) == expected


def test_tombstones_are_bounded():
    collection = apiproxy.Collection()
    for number in range(20000):
        collection.apply("DELETED", pod("a", str(number), uid=str(number)))
    assert tombstones(collection) <= 10000
    assert not collection.apply("ADDED", pod("a", "1", uid="19999"))


# -- events

ADDED = json.dumps(event("ADDED", "a"))
RUBBISH = [
    "{", "x", "null", "[]", "1", '"ADDED"', "{}", ADDED + "{", ADDED[:-1], ADDED + "]",
    "[%s]" % ADDED, ADDED.encode(), "[" * 100000] + [
    json.dumps(dict(event("ADDED", "a"), **change)) for change in (
        {"type": "CHANGED"}, {"type": None}, {"type": ["ADDED"]}, {"object": None}, {"object": []},
        {"object": {}},
        {"object": {"metadata": None}}, {"object": {"metadata": {}}}, {"object": {"metadata": []}},
        {"object": {"metadata": {"resourceVersion": ""}}},
        {"object": {"metadata": {"resourceVersion": 5}}})] + [
    json.dumps({"type": "ERROR", "object": None}),
    json.dumps({"type": "BOOKMARK", "object": {"metadata": {}}})]


@pytest.mark.parametrize("message", RUBBISH)
def test_parse_events_refuses_what_is_not_a_whole_event(message):
    with pytest.raises((ValueError, KeyError, TypeError, RecursionError)):
        apiproxy.parse_events(message)


@pytest.mark.parametrize("message, versions", [
    (ADDED, "1"), (ADDED + "\n", "1"), (json.dumps(json.loads(ADDED), indent=2), "1"),
    (ADDED * 2, "1 1"),
    (" %s\r\n\t%s\n" % (ADDED, json.dumps(bookmark(), indent=1)), "1 15"),
    ("", ""), ("  \n", "")])
def test_parse_events_takes_every_layout_of_json(message, versions):
    events = apiproxy.parse_events(message)
    assert [event["object"]["metadata"]["resourceVersion"] for event in events] == versions.split()


@pytest.mark.parametrize("text", [ADDED, ADDED + "\n", ADDED + " \t\r\n"])
def test_an_event_is_parsed_once(monkeypatch, text):
    """Although API servers end it with a line feed."""
    monkeypatch.setattr(apiproxy.json, "loads", lambda data: 1 / 0)
    assert apiproxy.parse_json(text)["type"] == "ADDED"


@row("W40", "W41", "W42")
@pytest.mark.parametrize("pieces", [
    [frame(1, json.dumps(B2))[index:index + 1] for index in range(200)],
    [frame(1, json.dumps(B2)[:9], fin=False), frame(9, "?"), frame(0, fin=False),
        frame(0, json.dumps(B2)[9:])],
    [frame(1, json.dumps(B2) + "\n" + json.dumps(bookmark("11")))],
    [frame(1, json.dumps(bookmark("11")) + "\n" + json.dumps(B2))],
    [frame(1, json.dumps(B2, indent=3))],
    [frame(1, json.dumps(dict(event("ADDED", "b", "12", data="x" * 1500000))))]])
def test_events_are_applied_once_however_they_are_cut(serve, new_client, pieces):
    api = Api(serve, watches=[pieces + [bookmark("13"), 1000], []]).start(new_client)
    assert api.asked(True, 2)["resourceVersion"] == "13"
    assert (api.views, api.errors) == (["a1", "a1 b12"], [])


@row("W30")
def test_items_get_kind_and_api_version_and_actiontype_if_watched(serve, new_client):
    bare, seen = pod("a"), []
    del bare["kind"], bare["apiVersion"]
    api = Api(serve, [pods(bare)], [[event("MODIFIED", "a", "11"), event("ADDED", "b", "12")]])
    new_client(api.server).stream_results("/api/v1/pods", seen.append, print)
    eventually(lambda: len(seen) == 3)

    facts = [[(item["kind"], item["apiVersion"], item.get("actionType")) for item in view]
             for view in seen]
    modified, added = ("Pod", "v1", "MODIFIED"), ("Pod", "v1", "ADDED")
    assert facts == [[("Pod", "v1", None)], [modified], [modified, added]]


@row("W42")
@pytest.mark.slow
def test_an_event_of_33_mb_is_applied(serve, new_client):
    big = frame(1, json.dumps(dict(event("ADDED", "b", "12", data="x" * 33000000))))
    api = Api(serve, watches=[[big, bookmark("13"), 1000], []]).start(new_client)
    assert api.asked(True, 2)["resourceVersion"] == "13"
    assert (api.views, api.errors) == (["a1", "a1 b12"], [])


# -- lists


# W20: a WatchList is never asked for
@row("W20")
def test_which_parameters_go_where(serve, new_client):
    both = {"labelSelector": "a=b", "fieldSelector": "c=d", "pretty": "true", "x": "y"}
    exact = {"resourceVersion": "3", "resourceVersionMatch": "NotOlderThan"}
    params = {
        **both, **exact, "limit": 7, "pretty": True, "none": None, "watch": "0",
        "allowWatchBookmarks": False, "sendInitialEvents": True, "timeoutSeconds": 33}
    api = Api(serve, watches=[[error(410)], []]).start(new_client, params)

    for number, version in ((1, exact), (2, {})):
        assert api.asked(False, number) == {**both, "limit": "7", **version}
        assert api.asked(True, number) == {
            **both, "watch": "true", "allowWatchBookmarks": "false", "timeoutSeconds": "33",
            "resourceVersion": "10"}


def test_pages_are_followed_so_that_limit_keeps_the_newest(serve, new_client):
    a, b, c, d = (pod(name, metadata={"creationTimestamp": "202%d-01-01T00:00:00Z" % age})
                  for name, age in zip("abcd", (1, 0, 3, 2)))
    api = Api(serve, [
        pods(a, b, **{"continue": "x"}), pods(c, version="11", **{"continue": "y"}),
        pods(d, version="12")])
    api.start(new_client, {"limit": "2"})

    assert api.asked(True, 1)["resourceVersion"] == "10"
    assert api.views == ["c1 d1"]
    assert api.asked(False) == [{"limit": "2"}, {"continue": "x"}, {"continue": "y"}]


@row("W25", "W26")
@pytest.mark.parametrize("answers, views, errors", [
    ([pods(pod("a"), **{"continue": "x"}), (410, pods(pod("z"), **{"continue": "z"})),
        pods(pod("b"))], ["b1"], []),
    ([pods(pod("a"), **{"continue": "x"})] * 2 + [pods(pod("b"))], ["b1"], [200]),
    ([pods(pod("a"), **{"continue": "x"}), (200, {"kind": "Status"}), pods(pod("b"))],
        ["b1"], [200]),
    ([pods(pod("a"), **{"continue": "x"}), cut, pods(pod("b"))], ["b1"], [502]),
    # the connection was not kept: asked again
    ([pods(pod("a"), **{"continue": "x"}), eof, pods(pod("b"))], ["a1 b1"], []),
    ([dict(pods(), items=None)], [""], []), ([pods()], [""], []),
    ([(200, pods(pod("a"), pod("a", "2")))], ["a2"], [])])
def test_a_partial_list_is_never_shown(serve, new_client, answers, views, errors):
    api = Api(serve, answers).start(new_client)
    api.asked(True, 1)
    assert (api.views, api.errors) == (views, errors)
    assert {"continue": "z"} not in api.asked(False)


BAD_LISTS = [
    (200, b""), (200, b"{"), (200, b"<html>"), (200, b"\xff"), (200, []), (200, 5), (200, {}),
    (200, dict(pods(), kind="Status")), (200, dict(pods(), kind="Table")),
    (200, dict(pods(), metadata={})), (200, dict(pods(), metadata=None)),
    (200, dict(pods(), items=[5])), (200, dict(pods(), items=5)), (200, pods(None)),
    (200, pods({})), (200, pods(version="")), (200, pods(version=5)), (200, pod("a")),
    (200, pods(pod("a", uid={"x": 1}))), (302, b"", {"Location": "http://localhost:1/"}),
    (408, b""), (409, b""), (410, {"reason": "Expired"}), (418, b""),
    (429, b"slow", {"Retry-After": "0"}), (500, b"x" * 100), (502, b"<html>"), (503, b""),
    (504, {"kind": "Status", "reason": "Timeout"}), (200, b"{}", {"Content-Encoding": "gzip"}), eof,
    reset]


@row("W24")
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("bad", BAD_LISTS)
def test_a_list_that_fails_is_reported_and_tried_again(serve, new_client, bad, later):
    api = Api(serve, [pods(pod("a"))] * later + [bad, bad, pods(pod("b"))],
        [[error(410)]] * later + [[]]).start(new_client)
    eventually(lambda: len(api.views) > later)
    assert api.views == ["a1"] * later + ["b1"]
    # the first comes on a kept connection: asked again
    assert len(api.errors) == (1 if later and callable(bad) else 2)
    assert set(api.errors) <= {bad[0] if isinstance(bad, tuple) else 502, 502}


@pytest.mark.parametrize("status", sorted(apiproxy.FINAL) + [422])
@pytest.mark.parametrize("start", [Api.start, lambda api, client: api.start(client, name="a")])
def test_a_refusal_of_the_first_list_ends_the_stream(serve, new_client, status, start):
    answers = [(503, b""), (status, {"kind": "Status", "code": status, "details": {"name": "a"}})]
    api = start(Api(serve, answers, gets=answers), new_client)
    eventually(lambda: not threads())
    assert api.errors == [503, status] and not api.views and len(api.server.requests) == 2
    assert {400, 401, 403, 404, 405, 406, 422} == apiproxy.FINAL


@pytest.mark.parametrize("status", sorted(apiproxy.FINAL) + [410, 500])
def test_after_the_first_list_nothing_ends_the_stream(serve, new_client, status):
    api = Api(serve, [pods(pod("a")), (status, b""), (status, b""), pods(pod("b"))],
        [[error(410)], []]).start(new_client)
    api.client.set_token("dev", "t")
    eventually(lambda: len(api.views) == 2)
    assert (api.views, api.errors, api.client.get_token("dev")) == (["a1", "b1"], [status] * 2, "t")


@row("W25")
@pytest.mark.parametrize("items", [None, []])
def test_a_relist_of_nothing_empties_the_view(serve, new_client, items):
    api = Api(serve, [pods(pod("a")), dict(pods(), items=items)],
        [[error(410)], []]).start(new_client)
    api.asked(True, 2)
    assert (api.views, api.errors) == (["a1", ""], [])


@row("W66")
def test_a_relist_shows_only_a_difference_and_forgets_what_is_gone(serve, new_client):
    lists = [
        pods(pod("a"), pod("b")), pods(pod("b"), pod("a"), version="11"),
        pods(pod("b"), pod("a"), version="12"), pods(pod("b"), version="13")]
    api = Api(serve, lists).start(new_client, resync=0.02, short_watch=0.0)
    eventually(lambda: len(api.asked(False)) > 5)
    assert api.views == ["a1 b1", "b1"] and not api.errors


def test_a_list_of_a_lower_version_is_accepted(serve, new_client):
    api = Api(serve, [pods(pod("a", "9")), pods(pod("a", "5"), version="6")],
        [[error(410)], [event("MODIFIED", "a", "7")]]).start(new_client)
    eventually(lambda: api.views == ["a9", "a5", "a7"])
    assert api.asked(True, 2)["resourceVersion"] == "6"


@row("W29")
@pytest.mark.parametrize("uid", [None, "", "same"])
def test_objects_without_a_uid_of_their_own_are_told_apart_where_that_can_be(
        serve, new_client, uid):
    def make(name, version, space):
        made = pod(name, version, metadata={"namespace": space, "uid": uid and uid + space + name})
        if uid is None:
            del made["metadata"]["uid"]
        return made

    items = [make("a", "1", "x"), make("a", "2", "y"), make("b", "3", "x")]
    changes = [
        ("MODIFIED", "11", "y"), ("DELETED", "12", "x"), ("ADDED", "13", "x"), ("ADDED", "14", "z")]
    events = [{"type": action, "object": make("a", version, space)}
              for action, version, space in changes]
    api = Api(serve, [pods(*items, items[0])], [events + [1000], []])
    api.start(new_client)
    api.asked(True, 2)

    assert api.views == ["a1 a2 b3", "a1 a11 b3", "a11 b3", "a11 b3 a13", "a11 b3 a13 a14"]
    assert not api.errors


@row("W69")
@pytest.mark.parametrize("count", [0, 10000])
def test_an_empty_and_a_large_collection_are_delivered_once(serve, new_client, count):
    items = [pod("p%d." % number, "1") for number in range(count)]
    api, sizes = Api(serve, [pods(*items)], [[1000], [1000], [B2]]), []
    new_client(api.server, short_watch=1e9).stream_results("/api/v1/pods",
        lambda items: sizes.append(len(items)), api.error)
    eventually(lambda: len(sizes) == 2)
    assert sizes == [count, count + 1] and len(api.asked(False)) == 3


# -- watches


@row("W16", "W19", "W33", "W34", "W35", "W37", "W38", "W39", "W43")
@pytest.mark.parametrize("steps, lists, errors, version",
    [pytest.param(*case[1:], id=case[0]) for case in [
    # how the first watch goes; lists in all; errors; the version that the second watch asks for
    ("bookmark, 1000", [bookmark(), 1000], 1, [], "15"),
    ("old bookmark", [B2, bookmark("11"), 1000], 1, [], "12"),
    ("huge version", [bookmark("9" * 40), 1000], 1, [], "9" * 40),
    ("opaque version", [bookmark("x-1"), 1000], 1, [], "x-1"),
    ("410, close", [error(410, "Expired"), 1000], 2, [], "20"),
    ("410, open", [error(410)], 2, [], "20"),
    ("410, end", [error(410), eof], 2, [], "20"),
    ("410 after an event", [B2, error(410)], 2, [], "20"),
    ("Expired", [error(reason="Expired")], 2, [], "20"),
    ("Gone", [error(reason="Gone")], 2, [], "20"), ("HTTP 410", [410], 2, [], "20"),
    ("500", [error(500)], 1, [500], "10"), ("504", [error(504)], 1, [504], "10"),
    ("429", [error(429, details={"retryAfterSeconds": 0})], 1, [429], "10"),
    ("bare error", [{"type": "ERROR", "object": {}}], 1, [0], "10"),
    ("odd error", [error("x", details=[1], message={}, metadata=5)], 1, [0], "10"),
    *(("refused %d" % code, [code], 1, [code], "10")
        for code in (200, 302, 400, 401, 403, 404, 405, 406, 422, 429, 500, 503)),
    ("invalid JSON", [B2, frame(1, "{"), event("ADDED", "c", "13")], 2, [0], "20"),
    ("not UTF-8", [B2, frame(1, b'"\xff"'), event("ADDED", "c", "13")], 2, [0], "20"),
    ("binary", [B2, frame(2, ADDED), event("ADDED", "c", "13")], 2, [0], "20"),
    ("unknown type", [dict(B2, type="CHANGED")], 2, [0], "20"),
    ("object null", [dict(B2, object=None)], 2, [0], "20"),
    ("no metadata", [dict(B2, object={"kind": "Pod"})], 2, [0], "20"),
    ("no version", [dict(B2, object={"metadata": {}})], 2, [0], "20"),
    ("empty version", [event("ADDED", "c", "")], 2, [0], "20"),
    ("version no text", [event("ADDED", "c", 13)], 2, [0], "20"),
    ("uid no text", [event("ADDED", "c", "13", uid=[1])], 2, [0], "20"),
    ("deep", [frame(1, b"[" * 100000)], 2, [0], "20"),
    ("one of two bad", [frame(1, json.dumps(B2) + "{")], 2, [0], "20"),
    ("masked", [b"\x81\x81abcdx"], 2, [0], "20"),
    ("RSV", [frame(1, "x", rsv=4)], 2, [0], "20"), ("reserved opcode", [frame(3)], 2, [0], "20"),
    ("big ping", [frame(9, b"x" * 126)], 2, [0], "20"),
    ("no start", [frame(0, "x")], 2, [0], "20"),
    ("too big", [b"\x81\x7f" + (1 << 62).to_bytes(8, "big")], 2, [0], "20"),
    ("length of 2^63", [b"\x81\x7f" + (1 << 63).to_bytes(8, "big")], 2, [0], "20"),
]])
def test_how_a_watch_goes_on(serve, new_client, clock, steps, lists, errors, version):
    api = Api(serve, [pods(pod("a")), pods(pod("a"), pod("b", "12"), version="20")], [steps, []])
    api.start(new_client, **dict(REAL_TIMES, short_watch=0.0))
    assert api.asked(True, 1)["resourceVersion"] == "10"
    assert api.asked(True, 2)["resourceVersion"] == version
    assert (len(api.asked(False)), api.errors) == (lists, errors) and clock.passed <= 0.1
    assert not [request for request in api.asked(False) if "resourceVersion" in request]
    assert api.views == ["a1"] + (["a1 b12"] if lists == 2 or B2 in steps else [])


@row("W32", "W44", "W45", "W46")
@pytest.mark.parametrize("keyed", ["uid", "name"])
@pytest.mark.parametrize("watches, views", [
    # a selector left and entered again
    ("+b11 -b12 +b13 -b14 +b15", "a1|a1 b11|a1|a1 b13|a1|a1 b15"), ("+b11 +b11 ~b11", "a1|a1 b11"),
    ("~a12 ~a11 -a11 +a12", "a1|a12"), ("~b11 -c12 -d13 +d14", "a1|a1 b11|a1 b11 d14"),
    ("-a11 +a10 ~a9 +a1", "a1|"),
    ("+b11 -b12 ~a13/+b11 -b12 ~a13 +b14", "a1|a1 b11|a1|a13|a13 b14"),
    ("~a11 ~a12/+a1 ~a11 ~a12 ~a13", "a1|a11|a12|a13"),
    ("-a11 +b12/+a1 -a11 +b12/~b11 +a10/+a14", "a1||b12|b12 a14"),
    ("+b9007199254740993 ~b9007199254740992 ~b9007199254740994",
        "a1|a1 b9007199254740993|a1 b9007199254740994"),
    ("~a99999999999999999999998/~a99999999999999999999997 ~a99999999999999999999999",
     "a1|a99999999999999999999998|a99999999999999999999999"),
    ("~ax-2 ~ax-1/~ax-3", "a1|ax-2|ax-1|ax-3"), ("-ax +ay", "a1||ay"),
    ("~a1.5 ~a1e1", "a1|a1.5|a1e1")])
def test_a_watch_only_moves_forward_and_goes_on_from_the_exact_version(
        serve, new_client, watches, views, keyed):
    def events(words):
        return [{"type": ACTIONS[word[0]],
                 "object": pod(word[1], word[2:], metadata={"uid": ""} if keyed == "name" else {})}
            for word in words.split()]

    scripts = [events(words) + [1000] for words in watches.split("/")] + [[]]
    api = Api(serve,
        [pods(*[pod("a", metadata={"uid": ""} if keyed == "name" else {})], version="8")],
        scripts).start(new_client)
    version = api.asked(True, len(scripts))["resourceVersion"]

    assert (api.views, api.errors, len(api.asked(False))) == (views.split("|"), [], 1)

    words = [word[2:] for word in re.split("[ /]", watches)]
    in_order = all(word.isdecimal() for word in words)
    assert version == (max(words, key=int) if in_order else words[-1])


@row("W45")
@pytest.mark.parametrize("replayed", ["ADDED", "MODIFIED"])
def test_a_replay_after_a_relist_raises_nobody_from_the_dead(serve, new_client, replayed):
    api = Api(serve, [pods(pod("a", "8"), pod("b", "9")), pods(version="20")], [
        [event("DELETED", "b", "11"), error(410)],
        [event(replayed, "a", "8"), event(replayed, "b", "9"), event("ADDED", "c", "21")]])
    api.start(new_client)
    eventually(lambda: api.views[-1:] == ["c21"])
    assert api.views == ["a8 b9", "a8", "", "c21"]


def test_a_refused_connection_keeps_the_version(serve, new_client):
    api = Api(serve, watches=[[B2, eof], [eof], [eof], [eof], [eof], []]).start(new_client,
        short_watch=0.0)
    assert api.asked(True, 6)["resourceVersion"] == "12" and len(api.asked(False)) == 1


def test_the_third_error_at_one_version_lists_again(serve, new_client):
    api = Api(serve, watches=[[error(500)], [503], [error(500)], []]).start(new_client)
    assert len(eventually(lambda: api.asked(True)[3:])) == 1
    assert (api.errors, len(api.asked(False)), api.views) == ([500, 503, 500], 2, ["a1"])


@pytest.mark.parametrize("lists, watches", [
    ([pods(version="\ud800"), pods(pod("b"))], [[]]),
    ([pods(), pods(pod("b"))], [[event("ADDED", "a", "\ud800")], []])])
def test_a_version_that_cannot_be_sent_back_lists_again(serve, new_client, lists, watches):
    api = Api(serve, lists, watches).start(new_client)
    eventually(lambda: api.views[-1:] == ["b1"])
    assert len(api.errors) == 1


def test_a_version_of_thousands_of_digits_is_only_opaque(serve, new_client):
    events = [event("ADDED", "a", "1" + "0" * 5000), event("ADDED", "b", "2" + "0" * 5000)]
    api = Api(serve, [pods()], [events]).start(new_client)
    eventually(lambda: len(api.views) == 3)
    assert not api.errors and len(api.asked(False)) == 1


@row("W48")
@pytest.mark.parametrize("end", [1000, eof])
def test_a_watch_that_ends_at_once_lists_again_but_ever_more_seldom(serve, new_client, clock, end):
    api = clock.watch(Api(serve, watches=[[end]]))
    api.start(new_client, **REAL_TIMES)
    eventually(lambda: clock.passed > 600)

    api.cancel()
    assert sum(is_watch and when < 60 for when, is_watch in clock.asked) <= 10
    assert clock.most(60, True, 60) <= 4
    assert api.views == ["a1"]
    assert len(api.errors) >= 10
    assert abs(len(api.asked(False)) - len(api.asked(True))) <= 1


@row("W48")
def test_a_watch_that_ends_at_once_because_of_its_version_goes_on_from_the_next(
        serve, new_client, clock):
    """As servers do that have lost a version, and do not say so (k8s#104171)."""
    def silent(request, conn):
        if query(request)["resourceVersion"] == "10":
            conn.send(frame(8, (1000).to_bytes(2, "big")))
            return hang(request, conn)

    api = Api(serve, [pods(pod("a")), AFTER], [[silent, event("ADDED", "c", "17")]]).start(
        new_client, **REAL_TIMES)
    eventually(lambda: api.views[-1:] == ["a14 c17"])
    assert api.views == ["a1", "a14", "a14 c17"]
    assert len(api.asked(False)) == 2
    assert len(api.asked(True)) == 2
    assert api.errors == [0]


# W55: without the optional rule: its bound is that of W54
@row("W54", "W55")
@pytest.mark.parametrize("peer, settings, errors", [
    (pong, dict(ping_interval=0.02, watch_grace=0.05), []),
    (lambda *args: hang(*args),
     dict(ping_interval=0.02, ping_timeout=0.05, watch_grace=99.0), [0])])
def test_a_dead_peer_is_found_though_it_may_answer_pings(serve, new_client, peer, settings, errors):
    api = Api(serve, watches=[[bookmark("11"), peer], [since(*CHANGES)]])
    api.start(new_client, {"timeoutSeconds": 0.1}, short_watch=0.0, **settings)
    assert api.asked(True, 2)["resourceVersion"] == "11"
    eventually(lambda: api.views == STATES)
    assert (api.errors[:1], len(api.asked(False))) == (errors, 1)


def test_the_token_is_read_anew_at_every_attempt(serve, new_client):
    api, tokens = Api(serve, watches=[[401], [403], []]), map("t%d".__mod__, itertools.count())
    client = new_client(api.server)
    client.set_token("dev", lambda: next(tokens))
    client.stream_results("/api/v1/pods", api.view, api.error)
    api.asked(True, 3)
    sent = [request.headers["authorization"] for request in api.server.requests]

    assert len(set(sent)) == len(sent) == 4 and api.errors == [401, 403]


@row("W17")
@pytest.mark.parametrize("value, least, most", [
    ("1", 1, 2), ("5", 5, 5), ("1000000000", 60, 60), ("rubbish", 0, 2), ("-5", 0, 2),
    ("nan", 0, 2), ("Fri, 31 Dec 2999 23:59:59 GMT", 60, 60)])
@pytest.mark.parametrize("where", ["list", "watch", "event"])
@pytest.mark.parametrize("body", [
    b"slow down", {"kind": "Status", "code": 429, "details": {"retryAfterSeconds": 0}}],
    ids=["text", "JSON"])
def test_retry_after_is_honoured_up_to_a_minute(
        serve, new_client, waits, where, value, least, most, body):
    answer = (429, body, {"Retry-After": value})
    steps = [error(429, details={"retryAfterSeconds": value})] if where == "event" else [429,
        {"Retry-After": value}, body]
    api = Api(serve, [answer, pods()] if where == "list" else [pods()],
        [steps, []] if where != "list" else [()]).start(new_client, **REAL_TIMES)
    api.asked(True, 1 if where == "list" else 2)

    assert api.errors == [429] and least <= max(waits) <= most


@pytest.mark.parametrize("steps", [[B2, eof], [eof], [error(410)], [bookmark(), error(500)]])
def test_requests_are_bounded_whatever_the_server_does(serve, new_client, steps):
    api = Api(serve, watches=[steps])
    api.start(new_client, burst=4, rate=100.0, retry_cap=0.01)
    eventually(lambda: len(api.times) >= 30)
    assert api.times[29] - api.times[0] >= (30 - 4 - 2) / 100.0


# -- one object


@pytest.mark.parametrize("watches, lists, states, errors", [
    ([[event("MODIFIED", "a", "2"), event("MODIFIED", "a", "1"),
       event("MODIFIED", "a", "2"), bookmark("3"), 1000], []], [],
     ["a1", "a2 MODIFIED"], []),
    ([[event("DELETED", "a", "2"), event("ADDED", "a", "1"),
       event("ADDED", "a", "3", uid="new"), 1000], []], [],
     ["a1", "a2 DELETED", "a3 ADDED"], []),
    ([[error(410)], []], [pods(pod("a"))], ["a1"], []),
    ([[410], []], [pods(pod("a", "4"))], ["a1", "a4"], []),
    ([[error(410)], [event("ADDED", "a", "1"), event("ADDED", "a", "21"), 1000], []],
        [pods(version="20")], ["a1", "a1 DELETED", "a21 ADDED"], []),
    ([[error(410)], [error(410)], []], [pods(version="20")], ["a1", "a1 DELETED"], []),
    ([[error(500), 1000], [event("MODIFIED", "a", "2")]], [], ["a1", "a2 MODIFIED"], [500]),
    ([[frame(1, "{")], []], [pods(pod("a", "2"))], ["a1", "a2"], [0])])
def test_stream_result_shows_every_state_of_one_object(
        serve, new_client, watches, lists, states, errors):
    api = Api(serve, lists, watches, gets=[pod("a")])
    api.start(new_client, {"fieldSelector": "spec.nodeName=n", "resourceVersion": "7",
        "limit": 1, "pretty": True}, "a")
    api.asked(True, len(watches))
    eventually(lambda: len(api.views) >= len(states))
    assert (api.views, api.errors) == (states, errors)
    assert api.server.requests[0].path == "/clusters/dev/api/v1/pods/a?pretty=true"

    selector = {"fieldSelector": "spec.nodeName=n,metadata.name=a", "pretty": "true"}
    assert [request for request in api.asked(False)] == [dict(selector, limit="1")] * (
        len(api.server.requests) - 1 - len(watches))
    asked = api.asked(True, 1)
    assert {key for key in asked if "Selector" in key} == {"fieldSelector"}
    assert asked["fieldSelector"] == selector["fieldSelector"]
    assert asked["resourceVersion"] == "1" and "limit" not in asked


def test_a_query_in_the_url_counts_as_parameters(serve, new_client):
    api = Api(serve, gets=[pod("a")])
    api.client = new_client(api.server)
    api.client.stream_result("/api/v1/pods?fieldSelector=b%3Dc&pretty=true", "a", api.view,
        api.error, {"x": "y"})
    assert api.asked(True, 1)["fieldSelector"] == "b=c,metadata.name=a"
    assert api.server.paths()[0] == "/clusters/dev/api/v1/pods/a?pretty=true&x=y"


def test_a_field_selector_keeps_a_name_whole(serve, new_client):
    api = Api(serve, gets=[pod("a,b=c\\d")]).start(new_client, name="a,b=c\\d")
    assert api.asked(True, 1)["fieldSelector"] == "metadata.name=a\\,b\\=c\\\\d"


@pytest.mark.parametrize("other", [
    pod("b"), pods(), dict(pod("a"), kind="Table"), dict(pod("a"), kind="Status"), pod("a", 5),
    pod("a", ["x"]), pod("a", "\ud800")])
def test_what_is_not_the_object_that_was_asked_for_is_an_error(serve, new_client, other):
    api = Api(serve, gets=[other, pod("a")]).start(new_client, name="a")
    eventually(lambda: api.views)
    assert api.views == ["a1"] and api.errors == [200]


def test_a_relist_sees_another_object_at_the_same_version(serve, new_client):
    api = Api(serve, [pods(pod("a", data=2))], [[error(410)], []], gets=[pod("a", data=1)])
    seen = []
    new_client(api.server).stream_result("/api/v1/pods", "a", seen.append, print)
    eventually(lambda: [item["data"] for item in seen] == [1, 2])


def test_a_list_without_versions_of_its_items_does_not_end_the_watch_of_one(serve, new_client):
    states, bare = [], {"metadata": {"name": "a", "uid": "ua"}, "x": 1}
    api = Api(serve, [pods(bare)], [[error(410)], [event("MODIFIED", "a", "11")], []], [pod("a")])
    new_client(api.server).stream_result("/api/v1/pods", "a", states.append, api.error)
    eventually(lambda: len(states) == 3)
    assert states[1]["x"] == 1 and not api.errors


# -- metrics


@pytest.mark.parametrize("answer, got", [
    ({"items": [1]}, [1]), ({"items": []}, []), ({"cpu": 1}, {"cpu": 1}), ([2], [2])])
def test_metrics_passes_items_or_the_whole_answer_at_once(serve, new_client, answer, got):
    seen = []
    cancel = new_client(serve(lambda request, conn: conn.reply(200, answer)),
        metrics_period=1000.0).metrics("/m", seen.append)
    eventually(lambda: seen)
    cancel()
    assert seen == [got] and not threads()


def test_metrics_goes_on_after_errors_and_slows_down_while_they_last(serve, new_client, waits):
    answers = itertools.chain([(500, "no"), (200, "{"), (200, "<html>"), (401, "")] +
        [(503, "")] * 3, itertools.repeat((200, "{}")))
    errors, seen = [], []
    new_client(serve(lambda request, conn: conn.reply(*next(answers))),
        metrics_period=10.0).metrics(
        "/m", seen.append, lambda error: errors.append(error.status), "prod")
    eventually(lambda: len(seen) > 2)
    assert errors == [500, 200, 200, 401, 503, 503, 503]
    assert waits[:9] == [10, 20, 40, 60, 60, 60, 60, 10, 10]


def test_metrics_polls_again_only_after_the_last_has_ended_and_been_passed_on(serve, new_client):
    busy, seen = [], []

    def answer(request, conn):
        busy.append(1)
        conn.reply(200, {"busy": len(busy)})

    def slow(item):
        seen.append((item["busy"], len(busy)))
        threading.Event().wait(0.02)
        busy.pop()

    new_client(serve(answer), metrics_period=0.001).metrics("/m", slow)
    eventually(lambda: len(seen) > 5)
    assert set(seen) == {(1, 1)}


# -- callbacks


def test_callbacks_come_in_order_one_at_a_time_and_slow_down_only_their_own(serve, new_client):
    events = [event("ADDED", "b", str(version)) for version in range(11, 40)]
    api, free, slow = Api(serve, watches=[events]), threading.Event(), []
    client = new_client(api.server)
    client.stream_results(
        "/api/v1/pods", lambda items: (slow.append(text(items)), free.wait(10)), print)
    eventually(lambda: slow)

    client.stream_results("/api/v1/pods", api.view, print)
    eventually(lambda: len(api.views) == 30)
    assert len(slow) == 1
    assert api.views == ["a1"] + ["a1 b%d" % version for version in range(11, 40)]

    free.set()
    eventually(lambda: slow == api.views)


@row("W72")
def test_lists_are_the_callers_and_objects_never_change(serve, new_client):
    seen, copies, kept = [], [], []

    def scribble(items):
        seen.append(list(items))
        copies.append(json.dumps(items))
        items[:] = [len(seen)]
        kept.append(items)

    api = Api(serve, [pods(pod("a"), pod("b"))],
        [[event("MODIFIED", "a", "11", data={"x": 1}), event("MODIFIED", "a", "12"), 1000], []])
    new_client(api.server, resync=0.05).stream_results("/api/v1/pods", scribble, print)
    eventually(lambda: len(seen) >= 3)
    assert [text(items) for items in seen[:3]] == ["a1 b1", "a11 b1", "a12 b1"]
    assert "data" not in seen[2][0]
    assert [json.dumps(items) for items in seen] == copies
    assert kept == [[number + 1] for number in range(len(kept))]


@row("W70")
@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_callback_raises_is_logged_and_the_stream_goes_on(serve, new_client, caplog, raised):
    def bad(*args):
        calls.append((threading.current_thread().name, len(args)))
        raise raised("oops")

    calls = []
    api = Api(serve, [(503, b""), pods(pod("a"))], [[error(500)], [event("ADDED", "b", "11")]])
    new_client(api.server).stream_results("/api/v1/pods", bad, bad)
    eventually(lambda: len(calls) == 4)
    assert calls == [("apiproxy-watch", count) for count in (2, 1, 2, 1)]
    eventually(lambda: caplog.text.count("a callback failed") == 4)
    assert caplog.text.count("%s: oops" % raised.__name__) == 4


# W71: no dispatcher, as the contract has it: no pings meanwhile, every state after
@row("W68", "W71")
@pytest.mark.parametrize("count", [3000, pytest.param(50000, marks=pytest.mark.slow)])
def test_a_slow_callback_is_hung_up_on_and_misses_nothing(serve, new_client, count):
    """The server hangs up, as the API server does, when its buffer for a slow client is full."""
    blocked, late, seen = threading.Event(), [], []
    watches = []
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
        new_client(api.server).stream_results("/api/v1/pods", view, api.error)
        eventually(lambda: seen[-1:] == [last], 60)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()

    assert seen == [1] + list(range(11, last + 1)) and not api.errors
    assert late and late[0] < last and watches == [10, late[0]] and len(api.asked(False)) == 1


# -- cancel

STAGES = {  # where a stream is stuck: (list, watch, settings)
    "list head": (hang, (), {}), "in list head": (sends(HEAD[:20]), (), {}),
    "list body": (sends(HEAD), (), {}),
    "in list body": (sends(HEAD, b"{"), (), {}),
    "chunk": (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx"), (), {}),
    "refusal": (sends(b"HTTP/1.1 403 no\r\nContent-Length: 9\r\n\r\n"), (), {}),
    "handshake": (None, [hang], {}),
    "first frame": (None, [], {}), "in a frame": (None, [PART], {}),
    "pace": (None, (), dict(burst=1, rate=0.001)),
    "retry": ((503, b"", {"Retry-After": "50"}), (), {}),
    "closing": (None, [1000], dict(close_timeout=60.0)),
    "look-up": "http://frozen.test", "connect": "http", "TLS": "https", "refused": "http"}


@row("W3", "W4", "W22", "W73", "W74", "W75", "W78")
@pytest.mark.parametrize("stage, tls", [(stage, tls) for stage in STAGES
    for tls in (False, True) if not tls or isinstance(STAGES[stage], tuple)])
def test_cancel_ends_every_stage_within_a_second(
        serve, new_client, monkeypatch, trusting, stage, tls):
    thaw = threading.Event()
    real = socket.getaddrinfo
    sockets, url = [], None
    first, watch, settings = STAGES[stage] if isinstance(STAGES[stage], tuple) else (None, (), {})
    steps = list(watch)
    if stage == "closing":
        steps.append(lambda request, conn: thaw.wait(10) and False)
    api = Api(serve, [first or pods(pod("a"))], [steps], tls=tls)
    settings = dict(settings, ssl_context=trusting) if tls else settings

    if stage == "look-up":
        def look_up(host, port, *args):
            if len(args) > 3:
                return real(host, port, *args)
            return thaw.wait(10) and real("127.0.0.1", api.server.port, *args)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        url = STAGES[stage]
    elif stage in ("connect", "TLS"):
        # nobody accepts; for "connect" nothing fits into the queue either
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

    api.start(lambda server, **settings: new_client(url or server, **settings), **settings)
    if not url:
        eventually(lambda: api.errors or api.asked(watch != ()))
    elif stage == "refused":
        eventually(lambda: api.errors)
    else:
        eventually(lambda: api.errors or tasks_with_a_connection(api.client))

    seen, start = (list(api.views), list(api.errors)), time.monotonic()
    api.cancel()
    api.cancel()

    assert time.monotonic() - start < 1
    eventually(lambda: not [name for name in threads() if name != "apiproxy-lookup"], 2)

    # the connection of an answer that was read whole
    kept = 1 if api.views or stage == "retry" else 0
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


@row("W76")
@pytest.mark.parametrize("where, how", [
    ("cb", "cancel"), ("cb", "close"), ("err_cb", "cancel"), ("err_cb", "close")])
def test_cancel_inside_a_callback_makes_it_the_last(serve, new_client, where, how):
    two = frame(1, json.dumps(B2) * 2 + json.dumps(event("ADDED", "c", "13")))
    calls = []
    client = new_client(Api(serve, watches=[[error(500)], [two, error(500)]]).server)
    took = []

    def end(cancel):
        start = time.monotonic()
        cancel() if how == "cancel" else client.close()
        took.append(time.monotonic() - start)

    def view(items):
        calls.append(text(items))
        if where == "cb" and len(items) == 2:
            # the callback may be sooner than the return of stream_results
            end(eventually(lambda: stop)[0])

    stop = []
    stop.append(client.stream_results("/api/v1/pods", view,
        lambda error, own: (calls.append(error.status), where == "cb" or end(own))))
    eventually(lambda: not threads())
    assert calls == (["a1", 500, "a1 b12"] if where == "cb" else ["a1", 500]) and took[0] < 0.8


@row("W76")
@pytest.mark.parametrize("kind, where", [
    ("stream", "cb"), ("stream", "connectCb"), ("stream", "failCb"),
    ("metrics", "cb"), ("metrics", "failCb")])
def test_cancel_inside_a_callback_of_any_kind_makes_it_the_last(serve, new_client, kind, where):
    api, calls = Api(serve, [pods(pod("a")), (500, b"")], [[frame(1, "x") * 2, eof]]), []

    def note(which, *args):
        calls.append(which)
        if which == where:
            eventually(lambda: cancel)[0]()

    cancel, client = [], new_client(api.server)
    notes = [functools.partial(note, which) for which in ("cb", "connectCb", "failCb")]
    if kind == "stream":
        cancel.append(client.stream(STREAM, notes[0],
            {"connectCb": notes[1], "failCb": notes[2], "reconnectOnFailure": True}).cancel)
    else:
        cancel.append(client.metrics("/m", notes[0], notes[2]))

    eventually(lambda: not threads())

    whole = ["connectCb", "cb", "cb", "failCb"] if kind == "stream" else ["cb", "failCb"]
    assert calls == whole[:whole.index(where) + 1]


@row("W77", "W78")
@pytest.mark.parametrize("holds", [True, False])
def test_cancel_waits_for_a_running_callback_but_a_second_at_most(serve, new_client, holds):
    """It may want a lock which the thread that cancels holds: neither may wait for ever."""
    lock, entered, calls = threading.Lock(), threading.Event(), []
    took = []

    def view(items):
        entered.set()
        threading.Event().wait(0.1)
        with lock:
            calls.append(text(items))

    def timed():
        start = time.monotonic()
        cancel()
        took.append((time.monotonic() - start, len(calls)))

    client = new_client(Api(serve, watches=[[B2]]).server)
    cancel = client.stream_results("/api/v1/pods", view, print)
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
    # 0.9 and what a busy machine adds
    assert max(took)[0] < 1.5
    assert len(took) == 11
    assert calls == ["a1"]
    assert holds or {done for _, done in took} == {1}


@row("W79")
@pytest.mark.parametrize("count", [500, pytest.param(10000, marks=pytest.mark.slow)])
def test_no_callback_starts_after_cancel_has_returned(
        serve, new_client, caplog, monkeypatch, count):
    """Each cancel races an event, after a wait that lets now the one win, now the other."""
    caplog.set_level("WARNING", "apiproxy")
    monkeypatch.undo()  # nobody searches 10,000 errors for secrets: there are none here
    barrier = threading.Barrier(2)
    late = []
    won = [0, 0]
    delay = 1e-4
    chance = random.Random(count)

    def push(request, conn):
        barrier.wait(10)
        conn.push(B2)

    client = new_client(Api(serve, watches=[[push]]).server)
    for number in range(count):
        inside, over, seen = [], [], []

        def view(items, inside=inside, over=over, seen=seen):
            late.extend(over)
            inside.append(1)
            seen.append(len(items))
            time.sleep(0.0003 * (len(items) - 1))  # so that it may be running when cancel is called
            inside.pop()

        cancel = client.stream_results("/api/v1/pods", view,
            lambda *args, over=over: late.extend(over))
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


@row("W80")
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_cancels_at_random_moments_leave_nothing(
        serve, new_client, trusting, caplog, monkeypatch, count):
    def busy(request, conn):
        for version in itertools.count(11):
            conn.push(event("ADDED", "b", str(version)))

    caplog.set_level("WARNING", "apiproxy")
    monkeypatch.undo()  # nobody searches thousands of errors for secrets: there are none here
    lists = [pods(pod("a")), pods(pod("a"), **{"continue": "x"})] * 5000
    watches = [[busy], [B2, error(410)], [B2, PART, eof]] * 5000
    servers = [Api(serve, lists, watches, [pod("a")], tls=tls).server for tls in (False, True)]
    clients = [new_client(server, ssl_context=trusting, metrics_period=0.001) for server in servers]
    before, took, late = descriptors(), [], []
    seeds = list(range(count))

    def worker():
        while seeds:
            chance, dead = random.Random(seeds.pop()), []
            client, late_if_dead = chance.choice(clients), lambda *args: late.extend(dead)
            cancel = chance.choice((
                lambda: client.stream_results("/api/v1/pods", late_if_dead, late_if_dead),
                lambda: client.stream_result("/api/v1/pods", "a", late_if_dead, late_if_dead),
                lambda: client.stream("/x", late_if_dead, {"connectCb": late_if_dead}).cancel,
                lambda: client.metrics("/api/v1/pods", late_if_dead, late_if_dead)))()
            threading.Event().wait(chance.choice((0, 0.01, 0.05, 0.2)) * chance.random())
            start = time.monotonic()
            cancel()
            took.append(time.monotonic() - start)
            dead.append(1)

    together(*[worker] * 8)
    eventually(lambda: not threads(), 2)

    for client in clients:
        client.close()
    eventually(lambda: not any(server.open for server in servers) and descriptors() <= before)
    assert len(took) == count and max(took) < 1 and not late


AT_EXIT = """\
import atexit, sys, threading, time, apiproxy
url, how = sys.argv[1:]
client = apiproxy.Client(url, cluster="dev", metrics_period=0.001)
seen, names, stuck = set(), ("list", "item", "stream", "metrics"), threading.Event()

def note(name):
    def call(*args):
        seen.add(name)
        if how == "inside a callback" and len(seen) == 4:
            stuck.wait(60)
    return call

def start():
    cancels.extend([
        client.stream_results("/api/v1/pods", note("list"), print),
        client.stream_result("/api/v1/pods", "a", note("item"), print),
        client.stream("/x", note("stream")).cancel,
        client.metrics("/api/v1/pods", note("metrics"), print)])

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
    atexit.register(client.close)
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


@row("W78")
@pytest.mark.parametrize("how", [
    "forgotten", "sys.exit", "inside a callback", "cancel in atexit", "close in atexit",
    "started in a thread", "cancel in a thread"])
def test_a_program_ends_at_once_while_streams_run(serve, how):
    def busy(request, conn):
        for version in itertools.count(11):
            conn.push(event("MODIFIED", "a", str(version)))

    server = Api(serve, watches=[[busy]], gets=[pod("a")]).server
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", AT_EXIT, server.url, how]
    with subprocess.Popen(
            command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
        try:
            assert program.stdout.readline() == b"end\n"
            start = time.monotonic()
            assert program.stdout.read() == b"" and program.wait(20) == 0
            assert time.monotonic() - start < (5 if how == "inside a callback" else 3)
        finally:
            program.kill()


# -- the fault catalogue: a server with a state that fails in one way for a while


class World:
    """An API server with a state, and one client whose views are compared with it.

    While it is broken, `place` says what a look-up of its name gives, and `fault`,
    script(request, conn), answers the requests that `where` names. Every view has to be a state
    that the server had, in order, the last one within the row's bound. Bounds are in seconds that
    the stream chose to wait, at the real settings: a busy machine adds none.
    """

    def __init__(self, serve, clock, tls=False):
        self.clock, self.lock = clock, threading.RLock()
        self.version, self.state, self.log = 10, {}, []
        self.history, self.last = {}, 0
        self.watchers = []
        self.fault, self.where, self.place = None, "", None
        self.undo, self.mended = None, None
        self.times = []  # of all requests
        self.attempts = []  # of those that have to fail
        self.lists, self.resumed = 0, []
        self.views, self.errors, self.wrong = [], [], []
        self.shown = None
        self.server = serve(self.answer, tls=tls)
        self.port, self.url = self.server.port, self.server.url.replace("127.0.0.1", "localhost")
        self.change("a")

    # the server

    def look_up(self, flags):
        """Where the server is, for getaddrinfo; at once unless there is no such name."""
        found = self.place() if self.place else [at("127.0.0.1:%d" % self.port)]
        if not found and flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        if self.place:
            self.times.append(self.clock.passed)
            self.attempts.append(self.clock.passed)

        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found

    def answer(self, request, conn):
        self.times.append(self.clock.passed)
        if self.fault and ("watch" if request.is_watch else "list") in self.where:
            # Else look_up counted it: who gives up soon is gone before the request is read.
            if self.place is None:
                self.attempts.append(self.clock.passed)
            return self.fault(request, conn)

        return self.watch(request, conn) if request.is_watch else self.list(request, conn)

    def list(self, request, conn):
        if "resourceVersion" in query(request):
            return conn.reply(504, {
                "kind": "Status", "reason": "Timeout",
                "message": "Too large resource version: 10, current: 9"})

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
            uid = known["metadata"]["uid"] if known else "%s-%d" % (name, self.version)
            item = pod(name, str(self.version), uid)
            if not gone:
                self.state[name] = item

            action = "DELETED" if gone else "MODIFIED" if known else "ADDED"
            change = {"type": action, "object": item}
            self.log.append((self.version, change))
            self.history[self.version] = self.text(self.state.values())
            for conn in self.watchers:
                conn.push(change)

    def broken(self, fault=None, where="", place=None, seconds=120.0, last=1000, undo=None):
        """From now on and for so many seconds; `last` as in end_watches."""
        with self.lock:
            self.fault, self.where = fault, where
            self.place, self.undo = place, undo
            self.clock.after(seconds, self.mend)
            self.end_watches(last)
            self.change("b")

    def end_watches(self, last=1000):
        """With an event or a close code; after a bookmark, as watches that went well."""
        if isinstance(last, dict):
            end = frame(1, json.dumps(last))
        else:
            end = frame(8, last.to_bytes(2, "big"))

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
            self.mended = self.clock.passed

    # the client

    def start(self, new_client, params=None, **settings):
        self.client = new_client(self.url, **dict(REAL_TIMES, **settings))
        self.client.set_token("dev", "SECRET-token")
        self.cancel = self.client.stream_results("/api/v1/pods", self.view, self.error, params)
        return self

    def ready(self):
        eventually(lambda: self.watchers and self.views
                   and self.views[-1][1] == self.history[self.version])
        return self

    def text(self, items):
        return " ".join(sorted(text(items).split()))

    def view(self, items):
        shown = self.text(items)
        with self.lock:
            found = [version for version, state in self.history.items()
                     if state == shown and version >= self.last]
            if not found or self.views and shown == self.views[-1][1]:
                self.wrong.append((shown, self.last))
            self.last = min(found, default=self.last)
            self.views.append((self.clock.passed, shown))

        self.shown = items

    def error(self, error, cancel):
        self.errors.append(error)

    def settled(self, bound=31.0, errors=None):
        """What every row requires; `errors` is their number, else one for each that had to fail."""
        eventually(lambda: self.mended is not None)

        self.ready()
        state = self.views[-1][1]
        assert not self.wrong
        assert next(when for when, shown in self.views if shown == state) - self.mended <= bound
        assert self.attempts
        assert len(self.errors) == (len(self.attempts) if errors is None else errors)
        assert most(self.times, 10) <= 20 and most(self.times, 60) <= 44

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
        """Attempts that fail come as the backoff has it: ten in a minute, then up to 30 s apart."""
        gaps = [after - before for before, after in zip(self.attempts, self.attempts[1:])]
        assert len([when for when in self.attempts if when < self.attempts[0] + 60]) <= 10
        assert gaps[0] <= 0.8
        assert all(min(15, 0.4 * 2 ** number) <= gap <= 30.1 for number, gap in enumerate(gaps[1:]))
        assert len(gaps) > 5


@pytest.fixture
def new_world(serve, clock, monkeypatch):
    """new_world(tls=False) -> World, at localhost"""
    def make(tls=False):
        world, real = World(serve, clock, tls), socket.getaddrinfo

        def look_up(host, port, family=0, kind=0, proto=0, flags=0):
            if host == "localhost":
                return world.look_up(flags)
            return real(host, port, family, kind, proto, flags)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return world

    return make


# With the key of CERTIFICATE; the first is not trusted, the second of 2000, the third for
# another host.
BAD_CERTIFICATES = {
    "unknown": (
        "MIIBhTCCASqgAwIBAgIBATAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAd1bmtub3duMCAXDTIwMDEwMTAwMDAwMFoY"
        "DzIxMjAwMTAxMDAwMDAwWjASMRAwDgYDVQQDDAd1bmtub3duMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETWb/"
        "BwW5zRFiGriD6x3aSLmdOAvbmG4JSFzxLJqxRGkxn6Occ+ytm7hyUhhXgr5MfWcQabP1WWZDpxUvSVz+HKNvMG0w"
        "GgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFNGLc6P0jInpVNNk"
        "iGIH8io0wAoXMB8GA1UdIwQYMBaAFNGLc6P0jInpVNNkiGIH8io0wAoXMAoGCCqGSM49BAMCA0kAMEYCIQCLYXVe"
        "7hThlCYTjNK95Ojb0SBxTg4p3F2vwHDZEJLydAIhAKyTSEq73WhBP1UkX4iOQYB4RvWTwPN2c/ElbmqwNWTG"),
    "expired": (
        "MIIBgzCCASigAwIBAgIBAjAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAdleHBpcmVkMB4XDTAwMDEwMTAwMDAwMFoX"
        "DTAxMDEwMTAwMDAwMFowEjEQMA4GA1UEAwwHZXhwaXJlZDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABE1m/wcF"
        "uc0RYhq4g+sd2ki5nTgL25huCUhc8SyasURpMZ+jnHPsrZu4clIYV4K+TH1nEGmz9VlmQ6cVL0lc/hyjbzBtMBoG"
        "A1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAPBgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBTRi3Oj9IyJ6VTTZIhi"
        "B/IqNMAKFzAfBgNVHSMEGDAWgBTRi3Oj9IyJ6VTTZIhiB/IqNMAKFzAKBggqhkjOPQQDAgNJADBGAiEAoplQ/rr/"
        "0zWdzS/liz1QxNQ/uBc+SGrE2Hdi2pQyJDkCIQDwRJcTDXkyl5aR+WVDgX1RE3XPSUnzI1o2+ABfkCALDQ=="),
    "other": (
        "MIIBczCCARigAwIBAgIBAzAKBggqhkjOPQQDAjAQMQ4wDAYDVQQDDAVvdGhlcjAgFw0yMDAxMDEwMDAwMDBaGA8y"
        "MTIwMDEwMTAwMDAwMFowEDEOMAwGA1UEAwwFb3RoZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARNZv8HBbnN"
        "EWIauIPrHdpIuZ04C9uYbglIXPEsmrFEaTGfo5xz7K2buHJSGFeCvkx9ZxBps/VZZkOnFS9JXP4co2EwXzAMBgNV"
        "HREEBTADggF4MA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFNGLc6P0jInpVNNkiGIH8io0wAoXMB8GA1UdIwQY"
        "MBaAFNGLc6P0jInpVNNkiGIH8io0wAoXMAoGCCqGSM49BAMCA0kAMEYCIQCsu4g9NinzvQ/mx2mJ3n13jGLsR2YV"
        "QvNj4XGb1dc61gIhANmnO6e86UBNAmbIpIa8ByradWqwVTMfA7PucNfVLIe8"),
}


def pem_of(name):
    return ssl.DER_cert_to_PEM_cert(base64.b64decode(BAD_CERTIFICATES[name]))


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
    status = {"kind": "Status", "code": code, "message": "no", **more}
    body = text or json.dumps(status).encode()
    return answers("%d No\r\nContent-Length: %d" % (code, len(body)), body)


# -- A. connecting


@row("W1", "W2", "W3", "W4", "W5")
@pytest.mark.parametrize("begins", ["at the start", "later"])
@pytest.mark.parametrize("way", [
    "no name", "refused", "black hole", "mute TLS", "unknown", "expired", "other"])
def test_a_blocked_way_is_tried_ever_more_slowly_and_gone_on_from(
        new_world, new_client, listener, certificate, trusting, tmp_path, way, begins):
    tls = way == "mute TLS" or way in BAD_CERTIFICATES
    world = new_world(tls)
    times = dict(connect_timeout=0.02, list_idle=0.02) if way in ("black hole", "mute TLS") else {}

    def undo():
        asked.append(len(world.server.requests))
        proxy.accept()
        world.server.context and world.server.context.load_cert_chain(certificate)
        for name in times:
            setattr(world.client, name, default(name))

    def place():
        return [] if way == "no name" else [at(dead or "127.0.0.1:%d" % world.port)]

    def block():
        if way in BAD_CERTIFICATES:
            path = tmp_path / "bad.pem"
            path.write_text(pem()[0] + pem_of(way))
            world.server.context.load_cert_chain(str(path))
        elif way == "refused":
            proxy.refuse()

        asked.append(len(world.server.requests))
        world.broken(place=place, undo=undo)

    trusting.load_verify_locations(cadata=pem_of("expired") + pem_of("other"))
    asked, dead = [], listener(full=way == "black hole") if times else ""
    with FaultProxy(world.port) as proxy:
        world.port = proxy.port
        if begins == "later":
            world.start(new_client, ssl_context=trusting).ready()
            for name, value in times.items():
                setattr(world.client, name, value)
            block()
        else:
            block()
            world.start(new_client, ssl_context=trusting, **times)
        world.settled()

    world.slows_down()

    assert asked[0] == asked[1]  # nothing was asked in any other way meanwhile
    assert {error.status for error in world.errors} == {408 if times else 502}

    reasons = {"unknown": "self.signed", "expired": "expired", "other": "ostname mismatch"}
    said = reasons.get(way, "")
    for error in world.errors if said else ():
        assert re.search(said, error.__cause__.verify_message)
    assert world.lists == 1 and world.resumed == (["11", "11"] if begins == "later" else ["13"])
    assert default("connect_timeout") == 10.0


# name: script, status, requests that it is for, failures after which a list is due (0: never)
ANSWERS = {
    "wrong accept": (upgrading(b"Accept: ", b"Accept: x"), 101, "watch", 3),
    "protocol": (
        upgrading(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: v9.k8s.io\r\n\r\n"), 101, "watch", 3),
    "extension": (
        upgrading(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        101, "watch", 3),
    "200": (lambda request, conn: conn.reply(200, pod("a")), 200, "list watch", 3),
    "redirect": (None, 302, "list watch", 3),
    "400 empty": (answers("400 Bad Request", end=True), 400, "list watch", 3),
    "403 empty": (answers("403 Forbidden", end=True), 403, "list watch", 3),
    "404 JSON": (status_of(404), 404, "list watch", 3),
    "404 text": (status_of(404, b"404 page not found\n"), 404, "list watch", 3),
    "410": (status_of(410, reason="Expired"), None, "watch", 1),
    "500 HTML": (status_of(500, b"<html>"), 500, "list watch", 3),
    "503 empty": (answers("503 No\r\nContent-Length: 0"), 503, "list watch", 3),
    "502 gzip": (
        answers("502 No\r\nContent-Encoding: gzip\r\nContent-Length: 26", gzip.compress(b"<html>")),
        502, "list watch", 3),
    "500 of 100 MB": (
        endless(b"HTTP/1.1 500 No\r\nContent-Length: 100000000\r\n\r\n"), 500, "list watch", 3),
    "endless header": (endless(b"HTTP/1.1 200 OK\r\nX: "), 502, "list watch", 0),
    "endless headers": (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), 502, "list watch", 0),
    **{"ERROR %s" % code: (once(error(code, "Odd")), code, "watch", 3)
       for code in (500, 429, 504, 599)},
    **{"ERROR %s close" % code: (once(error(code, "Odd"), 1000), code, "watch", 3)
       for code in (500, 429, 504, 599)},
    "ERROR 410": (once(error(410)), None, "watch", 1),
    "ERROR 410 close": (once(error(410), 1000), None, "watch", 1),
    "ERROR bare": (once({"type": "ERROR", "object": {}}), 0, "watch", 3),
}


@row("W6", "W7", "W9", "W10", "W11", "W16", "W18", "W19", "W21", "W35", "W36")
@pytest.mark.parametrize("name, where", [
    (name, where) for name in ANSWERS for where in ANSWERS[name][2].split()])
def test_a_server_that_answers_badly_is_reported_each_time_and_survived(
        serve, new_world, new_client, name, where):
    fault, status, _, relist = ANSWERS[name]
    elsewhere = serve(hello)
    world = new_world().start(new_client).ready()
    redirect = answers("302 Found\r\nLocation: %s/x\r\nContent-Length: 0" % elsewhere.url)
    world.broken(fault or redirect, where, last=error(410) if where == "list" else 1000)
    world.settled(errors=0 if status is None else None)
    world.slows_down()

    assert {one_error.status for one_error in world.errors} <= {status} and not elsewhere.count
    assert all(len(one_error.body) <= 1 << 20 for one_error in world.errors)
    assert getattr(fault, "sent", 0) < 1e8

    lists = 1 + (where == "list") + (len(world.attempts) // relist if where == "watch"
        and relist else 0)
    assert world.lists == lists
    assert not [request for request in world.server.requests if not request.is_watch
        and "resourceVersion" in request.path]


@row("W11")
@pytest.mark.parametrize("code", [400, 403])
def test_a_handshake_refused_without_a_word_gets_a_hint_of_the_usual_reasons(serve, code):
    with pytest.raises(apiproxy.HandshakeError, match="Origin.*subprotocol") as caught:
        connect(serve(answers("%d No" % code, end=True)).ws)
    assert caught.value.status == code


@row("W8")
@pytest.mark.parametrize("pieces", [
    lambda wire: [wire[index:index + 1] for index in range(len(wire))], lambda wire: [wire]])
def test_events_that_come_with_a_101_are_applied(new_world, new_client, pieces):
    def glued(request, conn):
        world.mend()
        after = int(query(request)["resourceVersion"])
        events = [change for version, change in world.log if version > after]
        frames = [frame(1, json.dumps(change)) for change in events] + [frame(8, b"\x03\xe8")]
        for piece in pieces(accepting(request) + b"".join(frames)):
            conn.send(piece)

    world = new_world().start(new_client).ready()
    world.broken(glued, "watch")
    world.settled(bound=1, errors=0)
    assert world.resumed == ["11", "13"] and world.lists == 1


@row("W12", "W13", "W14")
@pytest.mark.parametrize("code, text", [
    (401, b""), (403, b""), (404, b""), (404, b"404 page not found")])
def test_what_is_refused_for_a_while_is_there_again_after(new_world, new_client, code, text):
    tokens = map("SECRET-%d".__mod__, itertools.count())
    world = new_world().start(new_client).ready()
    world.client.set_token("dev", lambda: next(tokens))
    old = {item["metadata"]["uid"] for item in world.shown}
    if code == 404:  # the type itself goes: its objects first
        world.change("a", gone=True)
        eventually(lambda: world.views[-1][1] == "")

    before, kept = len(world.views), []
    world.broken(status_of(code, text), "list watch",
        undo=lambda: (world.change("a"), kept.append(len(world.views))))
    world.settled()
    world.slows_down()
    sent = [request.headers["authorization"] for request in world.server.requests[2:]]

    assert len(set(sent)) == len(sent) > 8  # the token is read anew for every attempt
    assert kept == [before]
    assert world.lists == 2
    assert {error.status for error in world.errors} == {code}
    assert code != 404 or not old & {item["metadata"]["uid"] for item in world.shown}


@row("W15")
def test_where_nothing_can_be_watched_lists_follow_at_the_pace_of_the_retries(
        new_world, new_client):
    changes, world = [], new_world().start(new_client).ready()
    for seconds in (60, 180, 300):
        world.clock.after(seconds,
            lambda: (world.change("a"),
                changes.append((world.clock.passed, world.history[world.version]))))

    world.broken(status_of(405), "watch", seconds=450)
    world.settled()
    world.slows_down()

    assert world.lists == 1 + len(world.attempts) // 3
    assert {error.status for error in world.errors} == {405}

    for when, state in changes:  # at three attempts, half a minute apart
        assert 0 <= next(shown for shown, text in world.views if text == state) - when <= 95


# -- B. LIST


@row("W22")
@pytest.mark.parametrize("start", [b"", HEAD[:20], HEAD, HEAD + b'{"items": ['], ids=short)
def test_a_list_that_falls_silent_is_given_up(new_world, new_client, start):
    world = new_world().start(new_client, keep_alive=0.0).ready()
    world.client.list_idle = 0.02
    world.broken(sends(start), "list", lambda: [at("127.0.0.1:%d" % world.port)], last=error(410),
               undo=lambda: setattr(world.client, "list_idle", 30.0))
    world.settled()
    world.slows_down()

    assert {error.status for error in world.errors} == {408} and default("list_idle") == 30.0


@row("W22")
def test_a_list_that_comes_slowly_is_waited_for(new_world, new_client):
    def slowly(request, conn):
        body = json.dumps(pods(*world.state.values(), version=str(world.version))).encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for part in range(5):
            world.clock.skip(20)
            conn.send(answer[part * len(answer) // 5:(part + 1) * len(answer) // 5])
        world.mend()

    world = new_world().start(new_client).ready()
    world.broken(slowly, "list", last=error(410), seconds=10000)
    world.settled(errors=0)


@row("W23")
@pytest.mark.parametrize("chunked", [False, True])
def test_a_list_cut_at_any_byte_is_not_shown(new_world, new_client, chunked):
    def cut_short(request, conn):
        body = json.dumps(pods(*world.state.values(), version=str(world.version)),
            indent=1).encode()
        body = b"".join(b"%x\r\n%s\r\n" % (len(line), line)
            for line in body.splitlines(True)) + b"0\r\n\r\n" if chunked else body
        kind = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
        answer = b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (kind, body)

        # the last first: what fails later on a kept connection would be asked again
        if len(world.attempts) == 1:
            cuts.extend(set(range(0, len(answer), 7)) |
                set(range(answer.index(b"\r\n\r\n"), len(answer) - len(body) + 9)) | set(
                range(len(answer) - 9, len(answer))))
            cuts.sort()

        conn.send(answer[:cuts.pop()])
        if not cuts:
            world.mend()
        return False

    cuts, world = [], new_world().start(new_client, resync=1e6).ready()
    world.broken(cut_short, "list", last=error(410), seconds=1e6)
    world.settled()
    assert len(world.attempts) > 60
    assert {error.status for error in world.errors} == {502}
    assert len(world.views) == 2


@row("W23")
def test_a_list_cut_by_the_network_is_not_shown(new_world, new_client):
    world = new_world()
    with FaultProxy(world.port) as proxy:
        world.port = proxy.port
        world.start(new_client).ready()
        world.broken(lambda request, conn: (proxy.cut(200, "down"), world.list(request, conn)),
            "list", last=error(410), undo=proxy.clear)
        world.settled()

    world.slows_down()

    assert {error.status for error in world.errors} == {502} and len(world.views) == 2


@row("W27")
@pytest.mark.parametrize("tokens", ["x", "xy"])
def test_a_list_that_never_gets_on_is_given_up_and_tried_again(new_world, new_client, tokens):
    def page(request, conn):
        token = query(request).get("continue")
        begun.append(token is None)
        following = tokens[(tokens.find(token or tokens[-1]) + 1) % len(tokens)]
        conn.reply(200, pods(pod("z"), **{"continue": following}))

    begun, world = [], new_world().start(new_client).ready()
    world.broken(page, "list", last=error(410))
    eventually(lambda: world.mended)

    world.settled(errors=sum(begun))
    assert sum(begun) * (len(tokens) + 1) == len(begun) == len(world.attempts)


@row("W28")
def test_changes_between_pages_and_between_list_and_watch_are_neither_lost_nor_doubled(
        new_world, new_client):
    def paged(request, conn):
        with world.lock:
            if "continue" not in query(request):
                kept[:] = [str(world.version), list(world.state.values())]
                for name, gone in (("a", True), ("c", False), ("d", True), ("e", False),
                        ("f", False), ("a", False)):
                    world.change(name, gone)
                return conn.reply(200, pods(*kept[1][:2], version=kept[0], **{"continue": "t"}))
            for name, gone in (("a", False), ("b", True), ("b", False), ("e", True)):
                world.change(name, gone)
            conn.reply(200, pods(*kept[1][2:], version=str(world.version)))
            world.change("d")

    kept, world = [], new_world()
    for name in "bcd":
        world.change(name)
    world.fault, world.where = paged, "list"
    world.start(new_client).ready()

    assert not world.wrong
    assert not world.errors
    assert world.resumed == kept[:1]
    assert len(world.views) > 5


# -- C. what a stream carries


@row("W31")
def test_an_object_deleted_and_made_anew_a_hundred_times_is_there_once(new_world, new_client):
    world = new_world().start(new_client).ready()
    for number in range(100):
        world.change("a", gone=True)
        world.change("a")
        if number % 25 == 12:
            world.end_watches()

    world.ready()

    assert not world.wrong and not world.errors and world.lists == 1 and len(world.shown) == 1


@row("W42")
@pytest.mark.parametrize("start, piece", [
    (frame(1, "{", fin=False), frame(0, b"x" * 65000, fin=False)),
    (b"\x81\x7f" + (1 << 40).to_bytes(8, "big"), b"x" * 65000),
    (b"\x81\x7f" + (1 << 63).to_bytes(8, "big"), b"x" * 65000),
    (frame(1, b"x" * (2 << 20)), b"x" * 65000)], ids=short)
def test_a_message_beyond_the_limit_is_no_event_and_fills_no_memory(
        new_world, new_client, start, piece):
    fault = endless(start, piece)
    world = new_world().start(new_client, max_message=1 << 20, close_timeout=0.001).ready()
    world.broken(lambda request, conn: conn.upgrade(request) or fault(request, conn), "watch")
    world.settled()

    assert default("max_message") == 64 << 20
    assert 0 < fault.sent < 1e8
    assert world.lists == 1 + len(world.attempts)


# -- D. loss of the connection

LATE = frame(1, json.dumps(CHANGES[1]))


@row("W47", "W49", "W50", "W51")
@pytest.mark.parametrize("steps, lists, errors, over_tls",
    [pytest.param(*case[1:], id=case[0]) for case in [
    # how the first watch ends; lists in all; errors; errors over TLS
    ("1000", [B2, 1000], 1, [], []), ("1000, quiet", [1000], 1, [], []),
    ("1000 after a bookmark", [bookmark("11"), 1000], 1, [], []),
    ("1001", [B2, 1001], 1, [], []), ("1012", [B2, 1012], 1, [], []),
    ("no code", [B2, frame(8), eof], 1, [], []),
    ("1011", [B2, 1011], 1, [0], [0]), ("1013", [B2, 1013], 1, [0], [0]),
    ("4000", [B2, 4000], 1, [0], [0]),
    ("1006", [B2, frame(8, b"\x03\xee"), eof], 2, [0], [0]),
    ("one byte of code", [B2, frame(8, b"\x03"), eof], 2, [0], [0]),
    ("reason not UTF-8", [B2, frame(8, b"\x03\xe8\xff"), eof], 2, [0], [0]),
    # TLS without close_notify may have been cut by anybody
    ("end", [B2, eof], 1, [], [0]), ("end, quiet", [eof], 1, [], [0]),
    ("end in a head", [B2, LATE[:1], eof], 1, [], [0]),
    ("end in a frame", [B2, LATE[:-1], eof], 1, [], [0]),
    ("end in a message", [B2, frame(1, json.dumps(CHANGES[1])[:20], fin=False), eof], 1, [], [0]),
    ("reset", [B2, reset], 1, [0], [0]), ("reset in a frame", [B2, LATE[:-1], reset], 1, [0], [0]),
]])
@both
def test_a_watch_that_is_lost_goes_on_at_once_where_it_was(
        serve, new_client, trusting, clock, tls, steps, lists, errors, over_tls):
    api = clock.watch(Api(serve, [pods(pod("a")), AFTER], [steps, [since(*CHANGES)]], tls=tls))
    api.start(new_client, ssl_context=trusting, **dict(REAL_TIMES, short_watch=0.0))
    eventually(lambda: api.views[-1:] == STATES[-1:])
    version = "12" if B2 in steps else "11" if bookmark("11") in steps else "10"
    assert api.asked(True, 2)["resourceVersion"] == ("16" if lists == 2 else version)
    assert api.views == (STATES if lists == 1 else ["a1", "a1 b12", "a14"])
    assert api.errors == (over_tls if tls else errors)
    assert (len(api.asked(False)), len(api.asked(True))) == (lists, 2) and clock.passed <= 0.5


@row("W52", "W53")
@pytest.mark.parametrize("way", ["both", "down", "up"])
@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_a_peer_that_vanishes_is_given_up_and_nothing_is_missed(
        serve, new_client, through, caplog, way, fault):
    gone = threading.Event()
    first = [bookmark("11"), lambda *args: gone.wait(10), since(*CHANGES), pong]
    api = Api(serve, watches=[first, [since(*CHANGES)]])
    proxy, proxied = through(api)
    api.start(proxied, ping_interval=0.05, ping_timeout=0.1, short_watch=0.0)
    eventually(lambda: api.client.tasks and "= open" in caplog.text)  # not before its 101 has come

    getattr(proxy, fault)(way)
    gone.set()  # the server's changes go into the hole, unless only the other way is lost
    eventually(lambda: api.errors)

    proxy.clear()
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.views == STATES and api.errors[0] == 0

    soon = default("retry_base") / 8
    assert default("ping_interval") + default("ping_timeout") + soon <= 35
    # for one that is dead but for its pongs
    assert default("watch_timeout")[1] + default("watch_grace") + soon <= 311


@row("W56")
def test_a_peer_that_reads_nothing_is_given_up_although_no_ping_can_be_sent(
        serve, new_client, through):
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
    # not all the answers to pings fitted into the connection: it was full
    assert sum(came) < sum(sent)


@row("W57")
def test_a_slow_link_in_the_midst_of_an_event_is_not_dead(serve, new_client, through):
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


@row("W58")
def test_pings_keep_open_what_a_middlebox_would_end(serve, new_client):
    def middlebox(request, conn):
        # of silence: socket.timeout is an OSError, which ends the connection
        conn.sock.settimeout(0.6)
        for _ in range(6):
            assert conn.read_frame()[0] == PING
            conn.send(frame(PONG))
        conn.push(*CHANGES)
        conn.sock.settimeout(None)

    api = Api(serve, watches=[[middlebox]]).start(new_client, ping_interval=0.12)
    eventually(lambda: api.views == STATES)
    assert not api.errors and len(api.asked(True)) == 1 and default("ping_interval") < 20


@row("W59")
@pytest.mark.parametrize("steps", [
    [1000], [eof], [error(500)], [error(500), 1000], [error(410)], [reset], [503]], ids=short)
def test_a_server_that_flaps_is_asked_less_and_less_and_believed_when_it_is_well(
        serve, new_client, clock, steps):
    api = clock.watch(Api(serve, watches=[steps]))

    def heal():
        api.watches[:] = [[since(*CHANGES)]]

    clock.after(80, heal)
    api.start(new_client, **REAL_TIMES)
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.views == STATES and clock.passed <= 80 + 31
    assert 15 <= max(clock.waits) <= 30 and clock.is_no_storm() and clock.most(60, True) <= 10


@row("W60", "W63")
@pytest.mark.parametrize("down", [0, 2, 60])
@pytest.mark.parametrize("gone", [
    [error(410)], [error(410, "Expired"), 1000], [410]], ids=["open", "closed", "HTTP"])
def test_a_server_that_comes_back_without_its_past_is_listed_once(
        serve, new_client, clock, through, down, gone):
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
    # none of it for the 410
    assert set(api.errors[1:]) <= {502}
    assert api.errors[0] == 0
    assert len(api.errors) <= 10

    back = [when for when, _ in clock.asked if when >= down][0]
    assert clock.passed <= back + 2 and clock.passed <= down + 31 and clock.is_no_storm()


@row("W63")
@pytest.mark.parametrize("steps, errors", [([error(410)], []), ([error(500)], [500]), ([1000], [])])
def test_a_watch_that_lasted_counts_as_healthy_however_quiet_it_was(
        serve, new_client, clock, steps, errors):
    grown = []
    lasting = [frame(9, "?"), lambda request, conn: conn.read_frame(),
        lambda *args: (clock.skip(40), grown.extend(clock.waits))] + steps
    api = Api(serve, [pods(pod("a")), AFTER], [[eof, hang]] * 6 + [lasting, [since(*CHANGES)]])
    api.start(new_client, **REAL_TIMES)
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.errors == [502] * 6 + errors
    assert max(grown) > 5
    assert max(clock.waits[len(grown):], default=0) <= 0.1


def shown(items):
    return " ".join(sorted(text(items).split()))


@row("W61")
def test_servers_that_lag_behind_each_other_never_turn_a_view_back(serve, new_client):
    events = []
    states = [(10, "")]
    state = {}
    chance = random.Random(61)

    for version in range(11, 91):  # objects come, change, go, and come again with another uid
        name = chance.choice("abc")
        known = state.get(name)
        action = "ADDED" if known is None else chance.choice(("MODIFIED", "MODIFIED", "DELETED"))
        uid = name + str(version) if known is None else known["object"]["metadata"]["uid"]
        events.append(event(action, name, str(version), metadata={"uid": uid}))
        state[name] = events[-1]
        if action == "DELETED":
            del state[name]
        states.append((version, shown(event["object"] for event in state.values())))

    seen, wrong, turn = [10], [], itertools.count()

    def fake(lag, request, conn):
        if not request.is_watch:
            return conn.reply(200, pods(version="10"))
        # restarts while the cluster goes on
        after = int(query(request)["resourceVersion"])
        now = 14 + 4 * next(turn)
        if lag and after > now - lag:
            after = now - 2 * lag  # what is news to its cache, it sends
        conn.upgrade(request)
        conn.push(
            *[event for event in events
              if after < int(event["object"]["metadata"]["resourceVersion"]) <= now - lag])
        return hang(request, conn) if now - lag >= 90 or after >= 90 else eof(request, conn)

    def balance(request, conn):  # one connection to the one, the next to the other
        conn.fake = getattr(conn, "fake", None) or next(fakes)
        return conn.fake(request, conn)

    fakes = itertools.cycle([functools.partial(fake, 0), functools.partial(fake, 6)])

    def view(items):
        found = [version for version, state in states if version >= seen[-1]
            and state == shown(items)]
        wrong.extend([] if found else [(seen[-1], shown(items))])
        seen.extend(found[:1])

    new_client(serve(balance), short_watch=0.0).stream_results("/api/v1/pods", view,
        lambda *args: None)
    eventually(lambda: seen[-1] == 90)
    assert not wrong


@row("W62")
def test_a_hundred_drops_pass_no_limit(serve, new_client, clock, through):
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


# -- E. the server's state


# W64: no probe, as the contract has it: 12 minutes
@row("W64", "W65", "W66")
@pytest.mark.parametrize("watch, fresh, views", [
    # an older state, from which the watch then goes on
    ([], [pods(pod("a", "50"), version="60")], ["a100", "a50", "a61"]),
    ([event("ADDED", "c", "101")], [pods(pod("c", "101"), pod("d", "55"), version="60")],
        ["a100", "a100 c101", "c101 d55", "c101 d55 a61"]),
    ([event("ADDED", "c", "101")], [pods(pod("b", "99"), pod("c", "101"), version="102")],
        ["a100", "a100 c101", "c101 b99"]),
], ids=["rewound", "rewound and overtaken", "lost an event"])
def test_what_no_watch_tells_the_next_list_puts_right(serve, new_client, watch, fresh, views):
    api = Api(serve, [pods(pod("a", "100"), version="100")] + fresh,
        [watch, [since(event("MODIFIED", "a", "61"))]])
    api.start(new_client, resync=0.1, short_watch=0.0)
    eventually(lambda: api.views[-1:] == views[-1:])
    assert api.views == [view for view in views if view in api.views] and not api.errors
    assert not [request for request in api.asked(False) if "resourceVersion" in request]
    assert default("resync") * 1.2 <= 12 * 60


@row("W67")
def test_a_kind_that_is_deleted_and_defined_again(serve, new_client, clock):
    no = (404, b"404 page not found\n")
    api = clock.watch(Api(
        serve,
        [pods(pod("a"), pod("b")), no, no, pods(pod("a", "30", uid="new"), version="30")],
        [[event("DELETED", "a", "11"), event("DELETED", "b", "12"), 1000],
         [404], [404], [404], [event("ADDED", "b", "31", uid="new b")]]))
    api.start(new_client, **REAL_TIMES)
    eventually(lambda: api.views[-1:] == ["a30 b31"])
    assert api.views == ["a1 b1", "b1", "", "a30", "a30 b31"] and api.errors == [404] * 5
    assert clock.is_no_storm() and clock.waits[-1] <= 31


# -- F. the client's side


@row("W81")
@pytest.mark.parametrize("failure", [
    OSError(24, "Too many open files"), MemoryError(), RuntimeError("can't start new thread")])
@pytest.mark.parametrize("start", ["stream_results", "stream_result", "stream", "metrics"])
def test_a_machine_at_its_limits_is_survived(serve, new_client, monkeypatch, start, failure):
    api = Api(serve, [pods(pod("a"))], [[B2]], [pod("a")])
    failures, seen, client = [failure] * 2, [], new_client(api.server)

    def open_(real, *args, **options):
        if failures:
            raise failures.pop()
        return real(*args, **options)

    wrap(monkeypatch, OPEN, open_)
    if start == "stream":
        api.watches = [[frame(1, "x")]]
        client.stream("/x", seen.append)
    elif start == "metrics":
        client.metrics("/x", seen.append)
    else:
        names = ["a"] if start == "stream_result" else []
        getattr(client, start)("/api/v1/pods", *names, seen.append, api.error)

    eventually(lambda: seen)


@row("W81")
@pytest.mark.parametrize("what", ["sockets", "threads", "memory for a message", "memory for JSON"])
def test_what_the_machine_has_not_got_is_reported_and_tried_again(
        serve, new_client, monkeypatch, what):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    api = Api(serve, [pods(pod("a")), AFTER],
        [[bookmark("11"), lambda *args: lack.wait(10), frame(9), B2, eof], [since(*CHANGES)]])
    scarce = []
    lack = threading.Event()

    def short_of(place, error):
        def call(real, *args, **kwargs):
            if scarce and threading.current_thread().name == "apiproxy-watch":
                raise error
            return real(*args, **kwargs)

        wrap(monkeypatch, place, call)

    if what == "threads":
        short_of((threading.Thread, "start"), RuntimeError("can't start new thread"))
    elif what == "memory for a message":
        short_of(NEXT_MESSAGE, MemoryError())
    elif what == "memory for JSON":  # of the event, then of lists
        short_of(PARSE_JSON, MemoryError())

    # a name, which a thread looks up
    api.start(lambda server, **settings: new_client("http://localhost:%d" % server.port,
        **settings))
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


@row("W82")
@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_that_is_set_changes_nothing(serve, new_client, monkeypatch, waits, hours):
    ahead, real = [0], time.time

    def set_clock(*args):
        ahead[0] += hours * 3600

    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    pinged = [lambda request, conn: (conn.read_frame(), conn.send(frame(10)))] * 2
    api = Api(serve, watches=[[set_clock] + pinged + [B2, eof], [set_clock, error(500)],
        [set_clock] + pinged + [since(*CHANGES)]])
    api.start(new_client, ping_interval=0.05, short_watch=0.0)
    eventually(lambda: api.views[-1:] == STATES[-1:])
    assert api.views == STATES and api.errors == [500] and max(waits) <= 0.1
    assert (len(api.asked(False)), len(api.asked(True))) == (1, 3)


@row("W83")
@pytest.mark.parametrize("past", [False, True], ids=["through the proxy", "past it"])
def test_a_list_and_its_watch_take_the_same_way(serve, new_client, trusting, proxies, past):
    api, proxy = Api(serve, watches=[[B2]], tls=True), serve(proxying())
    proxies(https_proxy=proxy.url, **(dict(no_proxy="127.0.0.1") if past else {}))
    api.start(new_client, ssl_context=trusting)
    eventually(lambda: api.views == STATES[:2])

    target = "CONNECT 127.0.0.1:%d" % api.server.port
    assert list(map(repr, proxy.requests)) == ([] if past else [target] * 2)
    assert api.server.count == 2

    api.client.close()  # before the proxy ends


@row("W84")
def test_after_a_restart_fifty_watchers_come_back_at_different_moments(
        serve, new_client, monkeypatch):
    first, later, down = {}, {}, threading.Event()

    def wait(real, cancel, seconds):
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

    wrap(monkeypatch, WAIT, wait)
    seen, server = [], serve(script)
    client = new_client(server, **dict(REAL_TIMES, burst=10000, rate=10000.0))
    for _ in range(50):
        client.stream_results("/api/v1/pods", lambda items: seen.append(len(items)),
            lambda *args: None)

    eventually(lambda: seen.count(2) == 50)

    down.set()
    eventually(lambda: len(later) == 50, 30)

    client.close()

    for times, least, most in ((first, 0, 0.1), (later, 0.4, 0.8)):
        tenths = collections.Counter(int(10 * (seconds - least) / (most - least))
            for seconds in times.values())
        assert least <= min(times.values()) and max(times.values()) <= most
        assert len(tenths) >= 6 and max(tenths.values()) <= 20


# ------------------------------------------------------------------------------
# 12. Resources
#
# The same tests on the demo cluster and, where there is one, on the real API server.
# ------------------------------------------------------------------------------

# -- lists and objects, on the demo cluster and on the real API server


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

    # not kube-root-ca.crt
    assert [{name: data for name, data in view.items() if name in "ab"} for view in shown] == wanted
    assert not seen.errors
    kinds = {(item["kind"], item["apiVersion"]) for view in seen.views for item in view}
    assert kinds == {("ConfigMap", "v1")}


def test_a_selector_is_followed_both_ways(api):
    seen = Views()
    api.post(api.maps, config_map("a", labels={"tier": "front"}))
    api.stream_results(api.maps, seen.cb, seen.err_cb,
        {"labelSelector": "tier=front", "fieldSelector": "metadata.name!=c"})
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

    newest = sorted(all_items.views[0], key=lambda item: item["metadata"]["creationTimestamp"],
        reverse=True)[:2]
    assert [i["metadata"]["creationTimestamp"]
        for i in two.views[0]] == [i["metadata"]["creationTimestamp"] for i in newest]
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
    actions = [(state.get("actionType"), state["data"]["x"]) for state in states]
    assert actions == [(None, "1"), ("MODIFIED", "2"), ("DELETED", "2"), ("ADDED", "3")]
    assert not errors and {state["metadata"]["name"] for state in states} == {"a"}


@pytest.mark.parametrize("call, status, reason, details", [
    (lambda api: api.request(api.maps + "/nope"), 404, "NotFound",
        {"name": "nope", "kind": "configmaps"}),
    (lambda api: api.request("/api/v1/nopes"), 404, "NotFound", {}),
    (lambda api: api.request("/apis/no.group/v1/nopes"), 404, "", {}),
    (lambda api: api.post("/api/v1/namespaces/no-such-space/configmaps", config_map("a")),
     404, "NotFound",
     {"name": "no-such-space", "kind": "namespaces"}),
    (lambda api: [api.post(api.maps, config_map("a")) for _ in "12"], 409, "AlreadyExists",
        {"name": "a", "kind": "configmaps"}),
    (lambda api: [api.post(api.maps, config_map("a")), api.put(api.maps + "/a", {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "resourceVersion": "1"}})], 409, "Conflict",
     {"name": "a", "kind": "configmaps"}),
    (lambda api: api.post(api.maps, config_map("Not_A_Name")), 422, "Invalid", None),
    (lambda api: api.request(api.maps, query_params={"labelSelector": "!!"}),
     400, "BadRequest", None),
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
    assert error.message in str(error)
    assert error.message
    assert error.url.startswith("http")
    assert error.method


def test_patches_by_type(api):
    api.post(api.maps, config_map("a", x="1", y="1"))
    merged = api.patch(api.maps + "/a", {"data": {"x": None, "z": "1"}})
    assert merged["data"] == {"y": "1", "z": "1"}
    assert api.patch(api.maps + "/a", [{"op": "remove", "path": "/data/y"}])["data"] == {"z": "1"}
    maps = api.api_factory_with_namespace("", "v1", "configmaps")
    assert maps.patch({"data": {"w": "2"}}, api.space, "a")["data"] == {"w": "2", "z": "1"}


# -- API clients


def test_an_api_client_makes_reads_changes_scales_and_removes(api):
    deployments = api.api_factory_with_namespace("apps", "v1", "deployments", True)
    assert deployments.is_namespaced
    assert deployments.api_info == [{"group": "apps", "version": "v1", "resource": "deployments"}]

    made = deployments.post(web(api.space, 2))
    assert deployments.scale.get(api.space, "web")["spec"]["replicas"] == 2

    scaled = deployments.scale.put({"metadata": {"name": "web", "namespace": api.space},
        "spec": {"replicas": 5}})
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
    assert not nodes.is_namespaced
    assert api.api_factory_with_namespace("", "v1", "pods").scale is None

    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": api.space}}
    nodes.post(node)
    assert nodes.patch({"metadata": {"labels": {"a": "b"}}}, api.space)["metadata"][
        "labels"]["a"] == "b"
    assert nodes.delete(api.space)["status"] == "Success"


def test_endpoints_are_tried_in_order_until_the_server_has_one(api):
    maps = api.api_factory_with_namespace(("no.group", "v1", "configmaps"),
        ("", "v1", "configmaps"))
    maps.post(config_map("a", api.space, x="1"))
    maps.patch({"data": {"x": "2"}}, api.space, "a")

    for missing in (lambda: maps.delete(api.space, "nope"),
            lambda: maps.post(config_map("a", "no-such-space"))):
        with pytest.raises(apiproxy.ApiError) as caught:
            missing()
        # an object's 404 is not the API's
        assert caught.value.details["name"] in ("nope", "no-such-space")

    seen, states = Views(), []
    other = api.api_factory_with_namespace(("no.group", "v1", "configmaps"),
        ("", "v1", "configmaps"))
    other.list(api.space, seen.cb, seen.err_cb)
    other.get(api.space, "a", states.append, seen.err_cb)
    eventually(lambda: seen.views and states)
    assert states[0]["data"] == {"x": "2"} and not seen.errors

    lost = Views()
    api.api_factory(("no.group", "v1", "xs"), ("no.other", "v1", "xs")).list(lost.cb, lost.err_cb)
    eventually(lambda: lost.errors)
    assert [error.status for error in lost.errors] == [404] and not lost.views


def test_the_endpoint_that_worked_is_asked_first_after(serve, new_client):
    def script(request, conn):
        if "/apis/" in request.path:
            return conn.reply(404, "404 page not found\n")
        conn.reply(200, {"ok": 1})

    server = serve(script)
    maps = new_client(server).api_factory_with_namespace(("old", "v1", "configmaps"),
        ("", "v1", "configmaps"))
    for _ in "123":
        maps.delete("d", "x")

    assert [("/apis/" in path) for path in server.paths()] == [True, False, False, False]


def test_factories_refuse_impossible_endpoints(new_client):
    client = new_client("http://127.0.0.1:1")
    for args in ((), ([],), (("a", "b"),), ("", "v1"), ("", "", "pods"), ("a/b", "v1", "pods"),
            ("", "v1", "a/b")):
        with pytest.raises((ValueError, TypeError)):
            client.api_factory(*args)
        with pytest.raises((ValueError, TypeError)):
            client.api_factory_with_namespace(*args)


# -- apply and discovery


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

    stale = {**mine,
        "metadata": {**mine["metadata"], "resourceVersion": first["metadata"]["resourceVersion"]}}
    with pytest.raises(apiproxy.ApiError) as caught:
        api.apply(stale)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")

    fresh = {**mine,
        "metadata": {**mine["metadata"], "resourceVersion": second["metadata"]["resourceVersion"]}}
    assert api.apply(fresh)["data"] == {"x": "1"}


BUILT_IN = [
    config_map("it"), web(None),
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "it"}, "data": {"k": "dmFsdWU="}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "it"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "it"},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "it"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}},
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "it"}},
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "it"}},
    {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "it"},
        "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}},
    {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "it"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}},
]


@pytest.mark.parametrize("body", BUILT_IN, ids=lambda body: body["kind"])
def test_apply_of_built_in_kinds_as_written_and_as_read(api, body):
    cluster_wide = body["kind"] in ("Node", "Namespace")
    body = {**body, "metadata": {"name": api.space + "-x" if cluster_wide else "it",
        "labels": {"step": "1"}}}
    api.client.default_namespaces = {api.cluster: api.space}
    states = [api.apply(body)]
    # of those the server lets nobody take away what it has filled in
    if body["kind"] not in ("Job", "Pod"):
        body["metadata"]["labels"] = {"step": "2"}
        states.append(api.apply(body))

    read = json.loads(json.dumps(states[-1]))
    read["metadata"]["labels"] = {"step": "3"}
    # a Service's and a Job's POST is found invalid before it is found to exist
    states.append(api.apply(read))
    del read["metadata"]["resourceVersion"]
    read["metadata"]["labels"] = {"step": "4"}
    states.append(api.apply(read))

    assert states[-1]["metadata"]["labels"]["step"] == "4"
    places = {(state["metadata"]["uid"], state["metadata"].get("namespace")) for state in states}
    assert places == {(states[0]["metadata"]["uid"], None if cluster_wide else api.space)}


def test_apply_of_a_custom_resource_as_soon_as_it_is_defined(api):
    group = "g%s.example.com" % api.space[2:]
    api.apply({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets." + group},
        "spec": {"group": group, "scope": "Namespaced",
                 "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
                 "versions": [{"name": "v1", "served": True, "storage": True,
                     "schema": {"openAPIV3Schema": {
                     "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}})
    widget = {"apiVersion": group + "/v1", "kind": "Widget",
        "metadata": {"name": "w", "namespace": api.space}, "spec": {"size": 1}}

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


@pytest.mark.parametrize("body", [
    None, [], {}, {"kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": "v1", "metadata": {"name": "a"}},
    {"apiVersion": "v1", "kind": "Pod"}, {"apiVersion": "v1", "kind": "Pod", "metadata": {}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-"}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a/b"}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": ".."}},
    {"apiVersion": "a/b/c", "kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": "/v1", "kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": "v1", "kind": "List", "metadata": {"name": "a"}, "items": []},
    {"apiVersion": "v1", "kind": "PodList", "metadata": {"name": "a"}, "items": []},
])
def test_what_can_not_be_applied_is_refused_before_anything_is_sent(serve, new_client, body):
    server = serve(lambda request, conn: conn.reply(200, {}))
    with pytest.raises((ValueError, TypeError)):
        new_client(server).apply(body)
    assert not server.requests


def test_apply_asks_discovery_again_before_it_says_no_and_skips_subresources(serve, new_client):
    resources = [{"name": "widgets/scale", "kind": "Widget", "namespaced": True}]

    def script(request, conn):
        if request.path.endswith("/v1"):
            return conn.reply(200, {"kind": "APIResourceList", "resources": resources})
        conn.reply(201, json.loads(request.body))

    server = serve(script)
    client = new_client(server)
    widget = {"apiVersion": "g/v1", "kind": "Widget", "metadata": {"name": "w"}}
    with pytest.raises(apiproxy.ApiError) as caught:
        client.apply(widget)
    assert caught.value.status == 404 and "Widget" in str(caught.value)

    resources.append({"name": "widgets", "kind": "Widget", "namespaced": True})
    assert client.apply(widget)["metadata"] == {"name": "w", "namespace": "default"}

    client.apply(widget)
    assert server.paths().count("/clusters/dev/apis/g/v1") == 2  # the first miss, then remembered
    assert server.paths()[-1] == "/clusters/dev/apis/g/v1/namespaces/default/widgets"


def test_apply_gives_up_on_an_object_that_others_keep_changing(serve, new_client):
    def script(request, conn):
        if request.path.endswith("/v1"):
            return conn.reply(200,
                {"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": True}]})

        if request.method == "GET":
            return conn.reply(200, config_map("a") and {"metadata": {"resourceVersion": "5"}})
        conn.reply(409,
            {"kind": "Status", "reason": "AlreadyExists" if request.method == "POST"
                else "Conflict"})

    server = serve(script)
    with pytest.raises(apiproxy.ApiError) as caught:
        new_client(server).apply(config_map("a"))
    assert caught.value.reason == "Conflict" and len(server.requests) == 16

    server.script = lambda request, conn: conn.reply(200,
        {"resources": [{"name": "pods", "kind": "Pod", "namespaced": True}]}) \
        if request.path.endswith("/v1") else conn.reply(409,
            {"kind": "Status", "reason": "Conflict", "message": "quota"})

    with pytest.raises(apiproxy.ApiError) as caught:  # a quota's 409 is not an object that exists
        new_client(server).apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})
    assert caught.value.message == "quota"
    assert [r.method for r in server.requests[-2:]] == ["GET", "POST"]


# ------------------------------------------------------------------------------
# 13. Direct and Headlamp
#
# What is done here or by the server.
# ------------------------------------------------------------------------------

# -- clusters that come and go


def test_a_dynamic_cluster_comes_and_goes(new_client, demo):
    server = demo(backend_token="SECRET-backend")
    client = new_client(server.url, backend_token="SECRET-backend")
    client.set_cluster({"name": "new", "server": "https://127.0.0.1:1", "insecureTLSVerify": True,
                     "certificateAuthorityData": base64.b64encode(b"pem").decode()})

    assert {"new", "dev"} <= {cluster["name"]
        for cluster in client.request("/config", use_cluster=False)["clusters"]}
    with pytest.raises(apiproxy.ApiError) as caught:
        new_client(server.url).set_cluster({"name": "new", "server": "https://127.0.0.1:1"})
    assert (caught.value.status, caught.value.message) == (403, "access denied")

    try:
        client.delete_cluster("new")
    except apiproxy.ApiError as error:  # the server forgets it, then fails to find it in its file
        assert error.status == 500

    assert "new" not in {cluster["name"]
        for cluster in client.request("/config", use_cluster=False)["clusters"]}

    off = new_client(demo(dynamic_clusters=False).url)
    with pytest.raises(apiproxy.ApiError) as caught:
        off.set_cluster({"kubeconfig": kubeconfig("mine")})
    assert "not enabled" in str(caught.value)


@pytest.mark.parametrize("request_body", [
    {}, {"name": "a"}, {"server": "https://a"}, {"name": "a/b", "server": "https://a"},
    {"name": "a", "server": "ftp://a"},
    {"name": "a", "server": "https://user:SECRET@a"}, {"nam": "a"},
])
def test_a_cluster_that_can_not_be_added_is_refused_at_home(serve, new_client, request_body):
    server = serve(lambda request, conn: conn.reply(200, {}))
    with pytest.raises((ValueError, TypeError)) as caught:
        new_client(server).set_cluster(request_body)
    assert not server.requests and "SECRET" not in str(caught.value)


def test_clusters_come_and_go_without_headlamp(serve, tmp_path):
    server = serve(echo_headers)
    with apiproxy.Client("") as client:
        answer = client.set_cluster(
            {"kubeconfig": b64(json.dumps(config(server.url, {"token": "SECRET-1"})))})
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


def test_clusters_behind_headlamp_and_direct_ones_stand_side_by_side(demo, new_client):
    server = demo("behind", "beside", tokens={"behind": "SECRET-1", "beside": "SECRET-2"})
    client = new_client(server.url, cluster="behind", backend_token="SECRET-3")
    client.set_token("behind", "SECRET-1")
    client.add_endpoint("alone", apiproxy.Endpoint(server.url + "/clusters/beside",
        token="SECRET-2"))
    seen = {"behind": Views(), "alone": Views()}
    for cluster, views in seen.items():
        client.stream_results_for_cluster("/api/v1/pods",
            {"cb": views.cb, "errCb": views.err_cb, "cluster": cluster})

    eventually(lambda: all(views.views for views in seen.values()))
    with pytest.raises(apiproxy.ApiError):
        client.request("/helm/x", {"cluster": "alone"})
    assert not seen["behind"].errors and not seen["alone"].errors
    assert all("x-headlamp_backend-token" not in record.headers for record in server.requests)


def test_a_stream_of_a_cluster_that_is_taken_away_says_so_and_goes_on(serve, new_client):
    server = serve(lambda request, conn: conn.reply(500, {}))
    errors = []

    with apiproxy.Client("", **FAST) as client:
        for name in ("a/b", "c"):
            client.add_endpoint(name, apiproxy.Endpoint(server.url))
            client.stream_results_for_cluster("/x",
                {"cb": print, "errCb": lambda error, cancel: errors.append(error.status),
                    "cluster": name})
        eventually(lambda: 500 in errors)
        for name in ("a/b", "c"):
            client.delete_cluster(name)
        eventually(lambda: errors.count(0) > 3)
        client.add_endpoint("c", apiproxy.Endpoint(server.url))
        del errors[:]
        eventually(lambda: 500 in errors)


def test_a_plugin_is_removed_and_the_next_answer_says_reload(new_client, demo):
    reloads = []
    server = demo(backend_token="SECRET-backend")
    client = new_client(server.url, backend_token="SECRET-backend",
        on_reload=lambda: reloads.append(1))

    assert client.delete_plugin("some plugin") is None

    client.request("/version")
    client.request("/version")
    assert reloads == [1] and server.requests[0].path == "/plugins/some%20plugin"


# -- drains


def test_a_node_is_drained_and_says_how_far_it_is(new_client, demo):
    server = demo(drain_time=0.3)
    client = new_client(server.url)
    node = client.request("/api/v1/nodes")["items"][0]["metadata"]["name"]
    assert client.drain_node_status("dev", node) == {"id": "", "cluster": "dev"}
    assert "success" in client.drain_node("dev", node)["message"]
    assert client.drain_node_status("dev", node)["id"] == ""
    eventually(lambda: client.drain_node_status("dev", node)["id"] == "success")
    assert client.request("/api/v1/nodes/" + node)["spec"]["unschedulable"] is True
    with pytest.raises(apiproxy.ApiError) as caught:
        client.drain_node("no-such", node)
    assert (caught.value.status, caught.value.message) == (404, "Cluster not found")


def direct_demo(demo, new_client, **settings):
    server = demo(controllers=False, seed=False)
    client = new_client("http://127.0.0.1:1", cluster="here", drain_interval=0.05, **settings)
    client.add_endpoint("here", apiproxy.Endpoint(server.url + "/clusters/dev"))
    return client


@pytest.fixture(params=["demo", pytest.param("real", marks=needs_cluster)])
def bare(request, demo, new_client):
    """A Space of a direct Client, in the demo cluster and in the real one, with a node too."""
    if request.param == "demo":
        client = direct_demo(demo, new_client)
    else:
        client = direct_client(new_client, drain_interval=0.05)

    space = Space(client, "drain-" + os.urandom(3).hex())
    space.node = space.space
    client.post("/api/v1/nodes", {"metadata": {"name": space.node}})
    yield space
    space.end()
    client.remove("/api/v1/nodes/" + space.node)


def add_pod(bare, name, **metadata):
    spec = {
        "nodeName": bare.node, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "i"}]}
    bare.post(bare.pods, {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec})


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
    bare.patch(bare.pods + "/kept/status",
        {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    budgets = "/apis/policy/v1beta1/namespaces/%s/poddisruptionbudgets" % bare.space
    bare.post(budgets, {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b"}, "spec": {
        "minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}}})
    bare.client.drain_timeout = 0.3
    bare.drain_node(bare.cluster, bare.node)
    status = eventually(lambda: bare.drain_node_status(bare.cluster, bare.node)["id"], 20)

    assert status.startswith("error: ") and "kept" in status
    assert bare.request(bare.pods + "/kept")["metadata"]["uid"] == pod["metadata"]["uid"]

    bare.client.drain_timeout = 20.0
    bare.drain_node(bare.cluster, bare.node)
    bare.remove(budgets + "/b")
    eventually(lambda: bare.drain_node_status(bare.cluster, bare.node)["id"] == "success", 20)


def test_a_drain_of_a_node_that_is_not_there_and_one_that_is_cancelled(bare):
    bare.drain_node(bare.cluster, "no-such-node")
    status = eventually(lambda: bare.drain_node_status(bare.cluster, "no-such-node")["id"])
    assert status.startswith("error: ") and "not found" in status


# -- port forwards


def test_a_port_forward_is_made_listed_and_stopped(new_client, demo):
    server = demo()
    client = new_client(server.url)
    pod = client.request("/api/v1/namespaces/demo-shop/pods")["items"][0]["metadata"]["name"]
    made = client.start_port_forward("dev", "demo-shop", pod, 80, "", "")

    assert made["pod"] == pod and made["targetPort"] == "80" and int(made["port"])
    assert [forward["id"] for forward in client.list_port_forward("dev")] == [made["id"]]
    assert client.stop_or_delete_port_forward("dev", made["id"]) == "stopped"
    assert [forward["status"] for forward in client.list_port_forward("dev")] == ["Stopped"]
    assert client.stop_or_delete_port_forward("dev", made["id"], False) == "stopped"
    assert client.list_port_forward("dev") == []
    with pytest.raises(apiproxy.ApiError) as caught:
        client.stop_or_delete_port_forward("dev", "")
    assert caught.value.status == 400 and "id is required" in caught.value.message
    assert all("authorization" not in record.headers for record in server.requests)

    client.request_timeout = 0.3
    with pytest.raises(apiproxy.ApiError) as caught:
        # the server never answers
        client.start_port_forward("dev", "demo-shop", "no-such-pod", 80, "", "")
    assert caught.value.status == 408


def test_a_port_forward_list_is_of_one_cluster(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200,
        [{"cluster": "foo", "id": "1"}, {"cluster": "foobar", "id": "2"}]))
    assert new_client(server).list_port_forward("foo") == [{"cluster": "foo", "id": "1"}]
    assert server.paths() == ["/portforward/list?cluster=foo"]


def pod_that_echoes(request, conn):
    """The pod's side of pods/portforward: what comes on channel 0 goes back in upper case."""
    if not request.is_watch:
        if "/endpoints/" in request.path:
            return conn.reply(200, {"subsets": [{
                "notReadyAddresses": [{"targetRef": {"kind": "Pod", "name": "not-yet"}}],
                "addresses": [{"targetRef": {"kind": "Pod", "name": "ready"}}]}]})
        return conn.reply(404 if "nope" in request.path else 200, {"metadata": {"name": "p"}})

    assert "v4.channel.k8s.io" in request.headers["sec-websocket-protocol"]

    conn.upgrade(request, "v4.channel.k8s.io")
    # the API server asks a kubelet for "port"
    port = int(re.search(r"ports?=(\d+)", request.path).group(1)).to_bytes(2, "little")
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


def test_a_port_is_forwarded_by_this_machine_where_there_is_no_headlamp(serve, new_client):
    server = serve(pod_that_echoes)
    client = new_client("http://127.0.0.1:1", cluster="here")
    client.add_endpoint("here", apiproxy.Endpoint(server.url, token="SECRET"))
    made = client.start_port_forward("here", "ns", "p", 8080, "", "")

    assert made["targetPort"] == "8080" and made["id"] and "SECRET" not in repr(made)
    assert forwarded(made, b"hello") == b"HELLO" and forwarded(made, b"x" * 300000) == b"X" * 300000

    results = []
    together(*(lambda n=n: results.append(forwarded(made, b"c%d" % n)) for n in range(8)))
    assert sorted(results) == [b"C%d" % n for n in range(8)]
    assert forwarded(made, b"bye") == b"BYE"
    (entry,) = client.list_port_forward("here")
    assert (entry["id"], entry["status"]) == (made["id"], "Running")
    with pytest.raises(ValueError, match="already"):
        client.start_port_forward("here", "ns", "p", 8080, "", "", id=made["id"])

    with socket.create_connection(("127.0.0.1", int(made["port"]))) as open_one:
        open_one.sendall(b"hello")
        assert open_one.recv(5) == b"HELLO"
        assert client.stop_or_delete_port_forward("here", made["id"]) == "stopped"
        assert open_one.recv(1) == b""

    with pytest.raises(OSError):
        forwarded(made, b"x")
    assert [entry["status"] for entry in client.list_port_forward("here")] == ["Stopped"]

    client.stop_or_delete_port_forward("here", made["id"], False)
    assert client.list_port_forward("here") == []
    eventually(lambda: not client.tasks)


def test_a_service_is_forwarded_to_a_ready_pod_and_what_can_not_be_forwarded_says_so(
        serve, new_client):
    server = serve(pod_that_echoes)
    client = new_client("http://127.0.0.1:1", cluster="here")
    client.add_endpoint("here", apiproxy.Endpoint(server.url))
    made = client.start_port_forward("here", "ns", "", 80, "web", "ns")

    assert made["pod"] == "ready" and forwarded(made, b"a") == b"A"
    with pytest.raises(apiproxy.ApiError) as caught:
        client.start_port_forward("here", "ns", "nope", 80, "", "")
    assert caught.value.status == 404
    with pytest.raises(apiproxy.ApiError, match="can't listen"):
        client.start_port_forward("here", "ns", "p", 80, "", "", port=made["port"])

    broken = client.start_port_forward("here", "ns", "broken", 80, "", "")
    assert forwarded(broken, b"a") == b""
    eventually(lambda: any("nothing listens there" in entry["error"]
        for entry in client.list_port_forward("here")))
    with pytest.raises(apiproxy.ApiError):
        client.stop_or_delete_port_forward("here", "no-such-id")


# ------------------------------------------------------------------------------
# 14. Client
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [
    "localhost:4466", "ftp://a", "http://", "http://a b", "http://user:SECRET@a", "http://a/?q=1",
    "http://a/../b", "http://a\n", "http://a/#f", 5])
def test_an_address_that_can_not_be_is_refused(url):
    with pytest.raises((ValueError, TypeError)) as caught:
        apiproxy.Client(url)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("error, calls", [
    (ValueError, [(path,) for path in ("/x\r\nX: y", "/x y", "/x\0", "/../x", "/x#y")]),
    (ValueError, [("/x", params) for params in (
        {"cluster": "a/b"}, {"cluster": ".."}, {"timeout": -1}, {"timeout": "1"}, {"timeout": True},
        {"timeout": float("nan")},
        {"method": "GET /"}, {"method": "G\r\n"}, {"method": ""}, {"method": None},
        {"body": "\ud800"},
        {"headers": {"X": "a\r\nY: b"}}, {"headers": {"X Y": "a"}},
        {"headers": {"content-length": "1"}, "body": "abc"},
        {"headers": {"Transfer-Encoding": "chunked"}, "body": "abc"})]),
    (TypeError, [(None,), ("/x", ["timeout"]), ("/x", None, True, True, "a=1")] +
        [("/x", params) for params in (
        {"timeOut": 1}, {"body": {}}, {"body": 5}, {"headers": {"X": 1}},
        {"headers": [("X", "y")]})]),
    (ValueError, [("/x", None, True, True, {"a": "\ud800"})]),
    (ValueError, [lambda c: c.set_token("dev", "a\r\nX: y"), lambda c: c.set_token("dev", "a b"),
                  lambda c: c.set_token("a/b", "t"),
                  lambda c: c.post("/x", {"a": float("nan")}),
                  lambda c: c.set_cluster({"kubeconfig": "a\nb"})]),
    (TypeError, [lambda c: c.set_token("dev", b"a"), lambda c: c.post("/x", object()),
        lambda c: c.patch("/x", "text")]),
    (ValueError, [lambda c, url=url: apiproxy.Client(url)
        for url in ("http://u:p@h", "http://h?", "http://h/a/../b", "ftp://h")]),
])
def test_wrong_arguments_are_refused_before_anything_is_sent(serve, new_client, error, calls):
    server = serve(lambda request, conn: conn.reply(200, {}))
    for call in calls:
        with pytest.raises(error):
            call(new_client(server)) if callable(call) else new_client(server).request(*call)
    assert not server.count


@pytest.mark.parametrize("call, wrong", [
    (lambda client: client.stream_results("/x", None, print), TypeError),
    (lambda client: client.stream_results("/x", print, 1), TypeError),
    (lambda client: client.stream_results("/x y", print, print), ValueError),
    (lambda client: client.stream_result("/x", "a/b", print, print), ValueError),
    (lambda client: client.stream_results("/x", print, print, {"limit": "many"}), ValueError),
    *((lambda client, seconds=seconds: client.stream_results("/x", print, print,
        {"timeoutSeconds": seconds}), ValueError)
      for seconds in ("", "x", "long", "nan", -1)),
    (lambda client: client.stream_results("/x", print, print, {"labelSelector": "\ud800"}),
        ValueError),
    (lambda client: client.stream_results_for_cluster("/x",
        {"cb": print, "errCb": print, "cluster": "a/b"}), ValueError),
    (lambda client: client.stream_results_for_cluster("/x", {"cb": print, "err_cb": print}),
        TypeError),
    (lambda client: client.stream("/x", print, {"additionalProtocols": ["a b"]}), ValueError),
    (lambda client: client.stream("/x", 5), TypeError),
    (lambda client: client.stream("/x", print, {"failCb": 5}), TypeError),
    (lambda client: client.metrics("/x", print, 5), TypeError),
    (lambda client: client.metrics("/x", None), TypeError),
    (lambda client: client.metrics("/x", print, None, "a/b"), ValueError)])
def test_wrong_arguments_raise_in_the_callers_thread(new_client, call, wrong):
    with pytest.raises(wrong):
        call(new_client("http://127.0.0.1:1"))
    assert not threads()


@pytest.mark.parametrize("bad", [".", "..", "a/b", "../x", "a\r\nX: y", "\0"])
def test_every_name_that_a_call_takes_is_one_segment_or_refused(serve, new_client, bad):
    server = serve(lambda request, conn: conn.reply(200, {}))
    client, body = new_client(server), {"metadata": {"name": bad}}
    plain = client.api_factory("", "v1", "nodes")
    spaced = client.api_factory_with_namespace("apps", "v1", "deployments", True)
    named = {"metadata": {"name": "a", "namespace": bad}}

    for call in (
        lambda: client.request("/x", {"cluster": bad}),
        lambda: client.cluster_request("/x", {"cluster": bad}),
        lambda: client.post("/x", {}, True, {"cluster": bad}),
        lambda: client.remove("/x", {"cluster": bad}),
        lambda: client.stream("/x", print, {"cluster": bad}),
        lambda: client.metrics("/x", print, None, bad),
        lambda: client.stream_results_for_cluster("/x",
            {"cb": print, "errCb": print, "cluster": bad}),
        lambda: client.stream_result("/x", "a", print, print, None, bad),
        lambda: client.stream_result("/x", bad, print, print),
        lambda: client.set_token(bad, "SECRET"),
        lambda: client.set_cluster({"name": bad, "server": "https://a"}),
        lambda: client.delete_cluster(bad), lambda: client.delete_plugin(bad),
        lambda: client.list_port_forward(bad),
        lambda: client.start_port_forward(bad, "ns", "pod", 80, "", ""),
        lambda: client.start_port_forward("dev", bad, "pod", 80, "", ""),
        lambda: client.start_port_forward("dev", "ns", bad, 80, "", ""),
        lambda: client.stop_or_delete_port_forward(bad, "id"),
        lambda: client.drain_node(bad, "n"), lambda: client.drain_node("dev", bad),
        lambda: client.drain_node_status(bad, "n"),
        lambda: client.drain_node_status("dev", bad), lambda: client.test_auth(bad),
        lambda: client.test_cluster_health(bad),
        lambda: plain.get(bad, print, print), lambda: plain.delete(bad),
        lambda: plain.patch({}, bad), lambda: plain.put(body),
        lambda: plain.list(print, print, None, bad),
        lambda: plain.post({"metadata": {}}, None, bad),
        lambda: spaced.list(bad, print, print), lambda: spaced.get(bad, "a", print, print),
        lambda: spaced.get("ns", bad, print, print), lambda: spaced.delete(bad, "a"),
        lambda: spaced.delete("ns", bad),
        lambda: spaced.patch({}, bad, "a"), lambda: spaced.patch({}, "ns", bad),
        lambda: spaced.post(named),
        lambda: spaced.put(named), lambda: spaced.put(body), lambda: spaced.scale.get(bad, "a"),
        lambda: spaced.scale.get("ns", bad), lambda: spaced.scale.put(named),
        lambda: spaced.scale.put(body),
        lambda: apiproxy.Client(server.url, cluster=bad).request("/x", {"cluster": bad}),
    ):
        with pytest.raises(ValueError):
            call()

    assert not server.count and not client.tasks


def test_metrics_auth_and_health(new_client, demo):
    server = demo()
    client = new_client(server.url)
    polls = []
    cancel = client.metrics("/apis/metrics.k8s.io/v1beta1/nodes", polls.append)
    eventually(lambda: len(polls) >= 2)

    cancel()
    assert polls[0][0]["usage"]["cpu"] and polls[0][0]["metadata"]["name"]
    assert client.test_auth()["status"]["resourceRules"] is not None

    health = client.test_cluster_health()
    assert (health.status, health.ok, health.text()) == (200, True, "ok")


def test_a_log_is_followed_and_a_command_run_in_a_pod(new_client, demo):
    server = demo(log_tick=0.01)
    client = new_client(server.url)
    pod = client.request("/api/v1/namespaces/demo-shop/pods")["items"][0]["metadata"]["name"]
    path = "/api/v1/namespaces/demo-shop/pods/" + pod
    lines, out = [], {}
    log_stream = client.stream(path + "/log?follow=true&tailLines=3", lines.append,
        {"failCb": lambda: None})
    eventually(lambda: len(b"".join(base64.b64decode(line) for line in lines).splitlines()) > 3)

    log_stream.cancel()

    def on_message(data):
        out[data[0]] = out.get(data[0], b"") + data[1:]

    ended = threading.Event()
    shell = client.stream(path +
        "/exec?command=sh&command=-c&command=cat%20-&stdin=1&stdout=1&stderr=1", on_message, {
        "additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})
    eventually(lambda: shell.get_socket() and 1 in out)

    shell.get_socket().send(b"\x00hello\n")
    eventually(lambda: out.get(1) == b"hello\n")

    shell.cancel()
    out.clear()
    client.stream(
        path + "/exec?command=sh&command=-c&command=exit%203&stdout=1&stderr=1", on_message,
        {"additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})

    assert ended.wait(10)
    assert json.loads(out[3])["details"]["causes"][0] == {"reason": "ExitCode", "message": "3"}


def test_close_ends_all_streams_and_the_client_goes_on(serve, new_client):
    api = Api(serve, watches=[[]] * 9 + [[frame(1, "x")]], gets=[pod("a")])
    client, got = new_client(api.server), []

    for _ in range(3):
        client.stream_results("/api/v1/pods", api.view, api.error)
        client.stream_result("/api/v1/pods", "a", api.view, api.error)
        client.stream("/x", got.append)
        client.metrics("/api/v1/pods", got.append)

    eventually(lambda: not api.watches[1:])

    starting, tasks = task_that_was_not_started(client)
    client.close()
    del tasks[starting]
    assert not threads() and not client.tasks and not api.errors
    eventually(lambda: not api.server.open)

    client.stream("/x", got.append)
    eventually(lambda: got[-1:] == ["x"])


# ------------------------------------------------------------------------------
# 15. Module functions
# ------------------------------------------------------------------------------

DOCUMENTED = """
    api_factory api_factory_with_namespace apply cluster_request delete_cluster
    delete_plugin drain_node drain_node_status list_port_forward metrics patch post put
    remove request set_cluster start_port_forward stop_or_delete_port_forward stream
    stream_result stream_results stream_results_for_cluster test_auth test_cluster_health
""".split()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_module_function_is_its_method_on_the_default_client(name):
    function, method = getattr(apiproxy, name), getattr(apiproxy.Client, name)
    wanted = list(inspect.signature(method).parameters.values())[1:]
    assert list(inspect.signature(function).parameters.values()) == wanted
    assert function.__doc__ == method.__doc__ and "Documented as" in function.__doc__
    assert getattr(function, "__test__", True) is (not name.startswith("test_"))


def test_configure_reaches_functions_imported_by_name_and_keeps_credentials_at_home(serve):
    from apiproxy import request

    first = serve(lambda r, c: c.reply(200, {"from": 1}))
    second = serve(lambda r, c: c.reply(200, {"from": 2}))
    apiproxy.configure(first.url, cluster="dev")

    try:
        apiproxy.set_token("dev", "SECRET-dev")
        assert request("/x") == {"from": 1} and apiproxy.default_client().cluster == "dev"
        apiproxy.configure(first.url, cluster="dev", gzip=False)
        assert request("/x") == {"from": 1}
        assert first.requests[-1].headers["accept-encoding"] == "identity"
        assert first.requests[-1].headers["authorization"] == "Bearer SECRET-dev"
        apiproxy.configure(second.url, cluster="dev")
        assert request("/x") == {"from": 2} and "authorization" not in second.requests[-1].headers
        with pytest.raises(TypeError, match="ping_interval"):
            apiproxy.configure(second.url, ping_intervall=3)
    finally:
        apiproxy.configure()


# ------------------------------------------------------------------------------
# Surface
#
# The file is held to its word.
# ------------------------------------------------------------------------------


def test_the_documented_names_are_all_there():
    assert len(DOCUMENTED) == 24 and set(DOCUMENTED) <= set(apiproxy.__all__)
    assert {"ApiError", "ApiInfo", "ClusterRequest", "ClusterRequestParams", "QueryParameters",
            "RequestParams", "StreamArgs",
            "StreamResultsParams", "StreamErrCb", "StreamResultsCb"} <= set(apiproxy.__all__)
    assert [name for name in apiproxy.__all__ if not hasattr(apiproxy, name)] == []


def test_contents_match_the_banners():
    with open(apiproxy.__file__) as file:
        source = file.read()
    contents = re.findall(r"^ +(\d+\. [A-Z][A-Za-z]+(?: [a-z]+)*)  ",
        ast.get_docstring(ast.parse(source), clean=False), re.M)
    assert contents == re.findall(r"^# -{78}\n# (\d+\. .*)$", source, re.M) and len(contents) == 12


def test_only_the_standard_library_is_imported():
    with open(apiproxy.__file__) as file:
        tree = ast.parse(file.read())
    names = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
        for alias in node.names}
    names |= {node.module.split(".")[0]
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}

    assert not names - {"__future__", "typing_extensions",
        "yaml"} - set(getattr(sys, "stdlib_module_names", names))

    at_the_top = [alias.name
        for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names]
    assert "yaml" not in at_the_top

    typing_only = [node for node in ast.walk(tree) if isinstance(node, ast.If)
        and getattr(node.test, "id", "") == "TYPE_CHECKING"]
    assert any("typing_extensions" in ast.dump(node) for node in typing_only)


IMPORTED = """\
import threading, logging, os, sys
opened = []

def hook(name, args):
    if name.startswith("socket"):
        opened.append(args)

sys.addaudithook(hook)
import apiproxy
assert threading.active_count() == 1 and not logging.root.handlers and not opened, opened
"""


def test_importing_starts_nothing():
    subprocess.run([sys.executable, "-W", "error", "-c", IMPORTED], check=True, cwd=HERE)


FORGETFUL = """\
import sys, threading, apiproxy
apiproxy.configure(sys.argv[1], cluster="dev")
seen = threading.Event()
apiproxy.stream_results("/api/v1/pods", lambda items: seen.set(), print)
assert seen.wait(10)
"""


def test_a_script_that_forgets_to_cancel_still_ends(demo):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORGETFUL, demo(live=True).url], cwd=HERE, timeout=30,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (0, b"")


def test_every_row_of_the_fault_catalogue_has_a_test_that_ci_runs():
    with open(os.path.join(HERE, ".ci", "run")) as file:
        slow_too = '-m "slow and not cluster"' in file.read()

    assert {name for name in ROWS if name[0] == "W"} == {"W%d" % number for number in range(1, 85)}

    for name, tests in ROWS.items():
        assert all(test.__name__.startswith("test_") for test in tests), name
        marks = [{mark.name for mark in getattr(test, "pytestmark", ())} for test in tests]
        assert [each
            for each in marks if each <= {"parametrize"} | ({"slow"} if slow_too else set())], name


# ------------------------------------------------------------------------------
# Examples
# ------------------------------------------------------------------------------

LIVE = ("--seconds", "4")
EXAMPLES = {  # what they print, and how those are ended that would go on
    "quickstart": ("5/5 ready", "0 errors", "0 threads left"),
    "apply_manifest": ("applied",), "scale": ("6/6",), "exec": ("exit code 0",),
    "port_forward": ("stopped",), "drain": ("success",),
    "watch_pods": ("pods", LIVE), "watch_clusters": ("north", LIVE), "follow_logs": ("GET", LIVE),
    "top": ("memory", LIVE), "api_versions": ("apps/v1", LIVE),
}


def run_example(name, *args):
    program = os.path.join(HERE, "examples", name + ".py")
    env = {key: value for key, value in os.environ.items() if not key.startswith("APIPROXY_")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", program, *args], env=env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="session", autouse=True)
def running_examples(request):
    """All examples that will be asked for, from the beginning on: some take ten seconds."""
    selected = {getattr(item, "originalname", "") for item in request.session.items}
    running = {}
    if "test_an_example_does_what_it_says" in selected:
        for name, said in EXAMPLES.items():
            running[name] = run_example(name, *(LIVE if LIVE in said else ()))

    yield running

    for program in running.values():
        program.kill()
        program.communicate()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_says(running_examples, name):
    done = running_examples[name]
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b""), err.decode()
    assert [text for text in EXAMPLES[name] if text != LIVE and text not in out.decode()] == []


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


def test_the_benchmark_measures_and_prints_a_table():
    done = run_example("benchmark", "--quick", "--only", "gets", "--plain")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b""), err.decode()
    # both were measured
    assert re.search(r"^\| 300 small GETs[^|]*\| [\d.]+ ms \| [\d.]+ \|", out.decode(),
        re.M), out.decode()


def test_every_example_is_tried_and_named_in_the_readme():
    files = {name[:-3] for name in os.listdir(os.path.join(HERE, "examples"))
        if name.endswith(".py")}
    assert files == set(EXAMPLES) | {"common", "in_cluster", "benchmark"}
    with open(os.path.join(HERE, "README.md")) as file:
        readme = file.read()
    assert [name for name in files - {"common"} if "`%s.py`" % name not in readme] == []


@pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")
def test_kubectl_works_on_the_demo_cluster(demo, tmp_path):
    server = demo()

    def kubectl(*args, check=True, **kwargs):
        env = {**os.environ, "KUBECONFIG": os.devnull, "HOME": str(tmp_path)}
        done = subprocess.run([KUBECTL, "--server=%s/clusters/dev" % server.url, *args],
                              env=env, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    manifest = tmp_path / "web.json"
    manifest.write_text(json.dumps(web("default", 2)))
    assert "created" in kubectl("apply", "-f", str(manifest))
    assert "scaled" in kubectl("scale", "deployment", "web", "--replicas=3")
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}") == "3"
    assert len(kubectl("get", "pods", "-l", "app=web", "--no-headers").splitlines()) == 3

    watching = subprocess.Popen([KUBECTL, "--server=%s/clusters/dev" % server.url, "get",
        "configmaps", "-w", "-o", "name"],
                                env={**os.environ, "KUBECONFIG": os.devnull, "HOME": str(tmp_path)},
                                stdout=subprocess.PIPE)

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
# README
# ------------------------------------------------------------------------------


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
    monkeypatch.setenv("KUBECONFIG",
        write(tmp_path / "config", config(server.url + "/clusters/dev")))

    try:
        for language, block in blocks:
            if language == "python":
                capsys.readouterr()
                block = block.replace("http://localhost:4466", server.url)
                exec(compile(block, "README.md", "exec"), names)
            else:
                assert capsys.readouterr().out == block
        assert re.findall(r"^\| [a-zA-Z]+ \| `(\w+)` \|$", text, re.M) == sorted(DOCUMENTED,
            key=lambda name: name.replace("_", ""))
    finally:
        apiproxy.configure()


# ------------------------------------------------------------------------------
# Simulation and fuzzing
#
# A little of .ci/simulate.py and .ci/fuzz.py, and their fault proxy.
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_every_view_was_the_servers_and_they_only_go_forward_and_the_last_is_the_truth(seed):
    assert simulate.run(seed) == []


@pytest.mark.parametrize("kind, count", [
    ("frames", 3000), ("handshakes", 1000), ("answers", 500), ("events", 500)])
def test_nothing_that_a_server_sends_surprises(kind, count):
    outcomes, failure = fuzz.run(kind, 2026, range(count))
    assert not failure, failure
    # the cases are not all of one sort
    assert len(outcomes) > 2
    assert max(outcomes.values()) < 0.9 * count


def test_a_failed_case_is_told_with_the_command_that_runs_it_again(monkeypatch):
    wrap(monkeypatch, NEXT_MESSAGE, lambda real, reader: 1 / 0)
    for _ in range(2):
        outcomes, failure = fuzz.run("frames", 7, range(40, 50))
        assert not outcomes
        assert "ZeroDivisionError" in failure
        assert failure.endswith(" --case frames:7:40")


def test_a_case_that_hangs_is_told(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    wrap(monkeypatch, NEXT_MESSAGE, lambda real, reader: threading.Event().wait())
    outcomes, failure = fuzz.run("frames", 7, [40])
    assert not outcomes and "Hang" in failure and "--case frames:7:40" in failure


@pytest.fixture
def ends():
    """(client, server, proxy): two ends of a connection and the FaultProxy between them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with FaultProxy(listener.getsockname()[1], buffer=4096) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port),
                    5) as client, listener.accept()[0] as server:
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


def test_the_proxy_passes_what_it_gets_and_knows_what_is_open(ends):
    client, server, proxy = ends
    data = os.urandom(1000000)
    thread = threading.Thread(target=lambda: (client.sendall(data),
        client.shutdown(socket.SHUT_WR)))
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
def test_the_proxy_makes_one_way_silent(ends, fault, after, way):
    client, server, proxy = ends
    source, sink = (client, server) if way == "up" else (server, client)
    getattr(proxy, fault)(way)
    source.sendall(b"lost?")
    source.shutdown(socket.SHUT_WR)
    sink.sendall(b"heard")

    assert source.recv(100) == b"heard"
    assert not select.select([sink], [], [], 0.01)[0]

    proxy.clear()
    assert received(sink) == after


def test_the_proxy_stalls_until_the_sender_blocks(ends):
    client, server, proxy = ends
    proxy.stall("up")
    client.settimeout(0.05)
    with pytest.raises(socket.timeout):
        client.sendall(b"x" * 20000000)

    client.settimeout(5)
    server.sendall(b"heard")
    assert client.recv(100) == b"heard"


@pytest.mark.parametrize("rst", [False, True])
@pytest.mark.parametrize("count", [0, 7])
def test_the_proxy_cuts_within_a_message(ends, rst, count):
    client, server, proxy = ends
    proxy.cut(count, "down", rst)
    server.sendall(b"a long message")
    assert received(client) == (b"a long message"[:count], "RST" if rst else "FIN")
    assert received(server) == (b"", "RST" if rst else "FIN")


def test_the_proxy_ends_resets_and_refuses(ends):
    client, server, proxy = ends
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


def test_the_proxy_is_as_slow_as_it_is_told(ends):
    client, server, proxy = ends
    proxy.throttle(20000)
    begin = time.monotonic()
    client.sendall(b"x" * 2000)
    client.shutdown(socket.SHUT_WR)

    assert received(server) == (b"x" * 2000, "FIN")
    assert time.monotonic() - begin > 0.07


# ------------------------------------------------------------------------------
# The real API server
# ------------------------------------------------------------------------------

CONTROL = os.environ.get("APIPROXY_TEST_CONTROL", "")


def control(what):
    subprocess.run([CONTROL, what], check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)


def insist(call, *args):
    """Repeat a change until the server, which may just be starting, has taken it."""
    def done():
        try:
            call(*args)
            return True
        except apiproxy.ApiError as error:
            assert error.status in (408, 409, 429, 500, 502, 503, 504), error

    eventually(done, 60)


@pytest.mark.parametrize("api", PROXY_AND_DIRECT, indirect=True)
def test_a_watch_survives_kill_restart_and_compaction(api):
    seen, one_object = Views(), []
    api.post(api.maps, config_map("first", x="0"))
    api.stream_results(api.maps, seen.cb, seen.err_cb)
    api.stream_result(api.maps, "first", one_object.append, seen.err_cb)
    eventually(lambda: seen.views and one_object)

    changes = ["restart", "compact", "stop-api", "start-api", "restart", "compact"]
    for step, what in enumerate(changes):
        control(what)
        if what != "stop-api":
            insist(api.apply, config_map("first", api.space, x=str(step)))
            insist(api.apply, config_map("c%d" % step, api.space))
            if step > 2:
                insist(lambda: api.remove(api.maps + "/c%d" % (step - 3))
                    if step - 3 != 2 else None)

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


@row("W54")
@pytest.mark.parametrize("api", PROXY_AND_DIRECT, indirect=True)
def test_the_dead_watch_of_1_20_is_hung_up_and_taken_up_again(api):
    api.client.watch_timeout = (1, 1)
    api.client.watch_grace = 0.3
    api.client.retry_reset = 0.5
    seen = Views()
    services = "/api/v1/namespaces/%s/services" % api.space
    # this kind never closes, and sends no more events (k8s#102464)
    api.stream_results(services, seen.cb, seen.err_cb)
    eventually(lambda: seen.views)

    time.sleep(2)  # past timeoutSeconds: there is nothing to see from outside, which is the point
    api.post(services, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "late"},
        "spec": {"ports": [{"port": 80}]}})
    eventually(lambda: [item["metadata"]["name"] for item in seen.views[-1]] == ["late"])
    assert not seen.errors


@pytest.mark.parametrize("api", PROXY_AND_DIRECT[:1], indirect=True)
def test_a_continue_token_from_before_a_compaction_is_not_used(api):
    for name in "abcde":
        api.post(api.maps, config_map(name))
    page = api.request(api.maps, query_params={"limit": 2})
    api.post(api.maps, config_map("f"))
    control("compact")

    with pytest.raises(apiproxy.ApiError) as caught:
        api.request(api.maps, query_params={"limit": 2, "continue": page["metadata"]["continue"]})
    assert (caught.value.status, caught.value.reason) == (410, "Expired")


@on_the_real_server
def test_tls_and_rights_of_the_real_server(new_client):
    client = direct_client(new_client)
    assert client.request("/version")["gitVersion"]

    client.add_endpoint("plain", apiproxy.Endpoint(os.environ["APIPROXY_TEST_DIRECT"]))
    with pytest.raises(apiproxy.ApiError) as caught:
        client.request("/version", {"cluster": "plain"})  # the system does not know this authority
    assert caught.value.status == 502 and "certificate" in str(caught.value)

    client.set_token("direct", os.environ["APIPROXY_TEST_VIEWER"])
    with pytest.raises(apiproxy.ApiError) as caught:
        client.request("/api/v1/pods")
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
    assert client.get_token("direct")

    seen = Views()
    client.stream_results("/api/v1/pods", seen.cb, seen.err_cb)
    eventually(lambda: seen.errors)
    assert [error.status for error in seen.errors] == [403] and not seen.views

    logouts = []
    client.on_logout = logouts.append
    client.set_token("direct", "SECRET-wrong")
    with pytest.raises(apiproxy.ApiError) as caught:
        client.request("/api/v1/pods")
    assert caught.value.status == 401
    assert logouts == ["direct"]
    assert client.get_token("direct") is None


@on_the_real_server
@pytest.mark.parametrize("as_protocol", [False, True])
def test_a_real_service_accounts_token_is_renewed_for_requests_and_watches(new_client, as_protocol):
    admin = direct_client(new_client)
    space, name = "sa-" + os.urandom(3).hex(), "robot"
    admin.post("/api/v1/namespaces", {"metadata": {"name": space}})
    admin.apply({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": space}})
    admin.apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                 "metadata": {"name": space},
                 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                     "name": "cluster-admin"},
                 "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": space}]})
    accounts = "/api/v1/namespaces/%s/serviceaccounts/%s/token" % (space, name)
    first = admin.post(accounts, {"spec": {"expirationSeconds": 600}})["status"]["token"]
    # so that it is about to end
    robot = direct_client(new_client, token_window=700.0, token_protocol=as_protocol)
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


@on_the_real_server
def test_every_way_to_log_in_to_the_real_api_server(tmp_path):
    server = os.environ["APIPROXY_TEST_DIRECT"]
    ca = {"certificate-authority": os.environ["APIPROXY_TEST_CA"]}
    token = os.environ["APIPROXY_TEST_TOKEN"]
    write(tmp_path / "token", token)
    with open(os.environ["APIPROXY_TEST_CLIENT_CERT"]) as cert, open(
            os.environ["APIPROXY_TEST_CLIENT_KEY"]) as key:
        data = {"client-certificate-data": b64(cert.read()), "client-key-data": b64(key.read())}

    code = "import json; print(json.dumps({'status': {'token': open(%r).read()}}))"
    code %= str(tmp_path / "token")
    ways = [
        {"token": token}, {"tokenFile": "token"}, data,
        {"client-certificate": os.environ["APIPROXY_TEST_CLIENT_CERT"],
            "client-key": os.environ["APIPROXY_TEST_CLIENT_KEY"]},
        {"exec": {"apiVersion": "client.authentication.k8s.io/v1",
                  "command": sys.executable, "args": ["-c", code]}},
    ]
    for user in ways:
        with apiproxy.Client.from_kubeconfig(write(tmp_path / "config",
                config(server, user, cluster=ca))) as client:
            seen = Views()
            client.stream_results("/api/v1/namespaces", seen.cb, seen.err_cb)
            eventually(lambda: seen.views)
            assert client.request("/api/v1/namespaces/default")["kind"] == "Namespace"
            assert not seen.errors

    for cluster in ({}, {**ca, "tls-server-name": "elsewhere.example"}):
        with apiproxy.Client.from_kubeconfig(write(tmp_path / "config",
                config(server, {"token": token}, cluster=cluster))) as client:
            with pytest.raises(apiproxy.ApiError, match="certificate verify failed"):
                client.request("/version")

    with apiproxy.Client.from_kubeconfig(write(tmp_path / "config",
            config(server, {"tokenFile": "token"}, cluster=ca))) as client:
        assert client.test_auth()
        write(tmp_path / "token", "SECRET-wrong")
        with pytest.raises(apiproxy.ApiError) as caught:
            client.test_auth()
        assert caught.value.status == 401
        write(tmp_path / "token", token)
        assert client.test_auth()


@pytest.fixture
def kubelet(serve, new_client):
    """A Space in the real cluster with a pod `p` on a Node whose kubelet is a script here."""
    def script(request, conn):
        if "/portForward/" in request.path:
            return pod_that_echoes(request, conn)
        if "/containerLogs/" in request.path:
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\none\ntwo\n\r\n")
            space.log_seen.wait(10)  # 1.20 loses what it reads together with the end
            return conn.send("0\r\n\r\n")

        assert "/exec/" in request.path and request.is_watch

        conn.upgrade(request, "v4.channel.k8s.io")
        conn.send(frame(2, b"\1") + frame(2, b"\2") + frame(2, b"\3"))
        opcode, data = conn.read_frame()
        conn.send(frame(2, b"\1" + data[1:]) + frame(2, b"\2oops"))
        causes = [{"reason": "ExitCode", "message": "3"}]
        status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        conn.send(frame(2, b"\3" + json.dumps(status).encode()) + frame(8, b"\x03\xe8"))
        return False

    server, client = serve(script, tls=True), direct_client(new_client)
    space = Space(client, "kubelet-" + os.urandom(3).hex())
    space.node = space.space
    space.log_seen = threading.Event()
    client.post("/api/v1/nodes", {"metadata": {"name": space.node}})
    client.patch("/api/v1/nodes/%s/status" % space.node, {"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.port}}}})
    add_pod(space, "p")
    yield space
    client.close()
    client.remove(space.pods + "/p")
    client.remove("/api/v1/nodes/" + space.node)
    space.end()


@on_the_real_server
def test_forward_exec_and_logs_through_the_real_api_server(kubelet):
    pod = kubelet.pods + "/p"
    made = kubelet.start_port_forward("direct", kubelet.space, "p", 8080, "", "")
    assert forwarded(made, b"hello") == b"HELLO" and forwarded(made, b"x" * 100000) == b"X" * 100000

    kubelet.stop_or_delete_port_forward("direct", made["id"])
    out, ended = {}, threading.Event()

    def on_message(message):
        out[message[0]] = out.get(message[0], b"") + message[1:]

    shell = kubelet.stream(pod + "/exec?command=cat&stdin=1&stdout=1&stderr=1", on_message, {
        "additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})
    eventually(lambda: 1 in out)

    shell.get_socket().send(b"\0typed")
    assert ended.wait(10)
    assert (out[1], out[2]) == (b"typed", b"oops")
    assert json.loads(out[3])["details"]["causes"][0]["message"] == "3"

    lines = []
    kubelet.stream(pod + "/log", lines.append, {"failCb": lambda: None})
    eventually(lambda: b"".join(base64.b64decode(line) for line in lines) == b"one\ntwo\n")

    kubelet.log_seen.set()


@on_the_real_server
def test_the_quickstart_does_the_same_on_a_real_server():
    env = {**os.environ, "APIPROXY_URL": REAL,
        "APIPROXY_CLUSTER": os.environ["APIPROXY_TEST_CLUSTER"]}
    done = subprocess.run([sys.executable, "-W", "error",
        os.path.join(HERE, "examples", "quickstart.py")], env=env, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert "0 errors" in done.stdout.decode() and "0 threads left" in done.stdout.decode()


@on_the_real_server
@pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")
def test_the_manifest_gives_the_pod_the_rights_that_its_program_needs(new_client, tmp_path):
    kubectl = [KUBECTL, "--server=" + os.environ["APIPROXY_TEST_DIRECT"],
               "--token=" + os.environ["APIPROXY_TEST_TOKEN"],
               "--certificate-authority=" + os.environ["APIPROXY_TEST_CA"]]
    env = {**os.environ, "KUBECONFIG": os.devnull, "HOME": str(tmp_path)}

    for args in (["create", "configmap", "apiproxy", "--from-file=apiproxy.py",
            "--from-file=examples/in_cluster.py"],
                 ["apply", "-f", "examples/in_cluster.yaml"]):
        subprocess.run(kubectl + args, env=env, cwd=HERE, check=True, timeout=60,
            stdout=subprocess.DEVNULL)

    admin = direct_client(new_client)
    try:
        pod = admin.request("/api/v1/namespaces/default/pods/apiproxy")
        assert pod["spec"]["volumes"][0]["configMap"]["name"] == "apiproxy"
        made = admin.request("/api/v1/namespaces/default/configmaps/apiproxy")
        assert sorted(made["data"]) == ["apiproxy.py", "in_cluster.py"]
        for name, text in made["data"].items():  # as the pod has them
            (tmp_path / name).write_text(text)
        token = admin.post("/api/v1/namespaces/default/serviceaccounts/apiproxy/token",
            {"spec": {}})["status"]["token"]
        shutil.copy(os.environ["APIPROXY_TEST_CA"], str(tmp_path / "ca.crt"))
        write(tmp_path / "token", token)
        write(tmp_path / "namespace", "default")
        host, port = os.environ["APIPROXY_TEST_DIRECT"].rsplit("/", 1)[1].split(":")
        env.update(KUBERNETES_SERVICE_HOST=host, KUBERNETES_SERVICE_PORT=port)
        done = subprocess.run([sys.executable, "-W", "error", str(tmp_path / "in_cluster.py"),
            "--folder", str(tmp_path), "--seconds", "2"],
                              env=env, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        out = done.stdout.decode()
        assert "default/apiproxy: new -> Pending" in out and "trouble" not in out
    finally:
        subprocess.run(kubectl + ["delete", "--wait=false", "-f", "examples/in_cluster.yaml"],
            env=env, cwd=HERE, timeout=60, stdout=subprocess.DEVNULL)
        admin.remove("/api/v1/namespaces/default/configmaps/apiproxy")
