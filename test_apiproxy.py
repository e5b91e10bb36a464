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
import contextlib
import copy
import datetime
import decimal
import email.utils
import enum
import errno
import faulthandler
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
import types
import urllib.error
import urllib.parse
import urllib.request
import warnings
import weakref
import zlib

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "examples"), os.path.join(HERE, ".ci")]

import api_server  # noqa: E402
import apiproxy  # noqa: E402
import fuzz  # noqa: E402
import interrupts  # noqa: E402
import simulate  # noqa: E402
from apiproxy import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, ConnectionClosed  # noqa: E402
from demo_cluster import DemoCluster, tunnels  # noqa: E402
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


WAIT = apiproxy.Scope, "wait"  # what streams and retries wait with
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
    return getattr(apiproxy.Settings(), setting)


def connect(url, cancel=None, **settings):
    """A WebSocket by itself; cancel_now(cancel) ends the attempt."""
    if cancel is not None:
        settings["scope"] = cancel
    return apiproxy.WebSocket.connect(url, **settings)


def new_cancel():
    return apiproxy.Scope()


def cancel_now(cancel):
    cancel.cancel()


def is_stuck(cancel):
    """Whether what `cancel` would end is at work, and waits."""
    held = cancel._cancel._close
    return held and getattr(held.__self__, "_waiting", True)


def tasks_with_a_connection(client):
    return [task for task in client.tasks if task.scope._cancel._close]


def sockets_of_tasks(client):
    return [task.scope._cancel._close.__self__._sock for task in tasks_with_a_connection(client)]


def task_that_was_not_started(client):
    """A stream where it is before its thread runs, and the place where the client keeps it."""
    task = apiproxy.Poller(client._transport, "dev", "/x", print, None)
    client.tasks[task] = None
    return task, client.tasks


def trust_the_cache(client):
    """A server that hangs up is not suspected of a broken cache, and not asked again for it."""
    client._transport._suspect_at[client.base_url] = 1e99


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


def when_its_task_ends(client, tell):
    """Have tell() called where the one task of a client is taken from its list."""
    client._transport.tasks = types.SimpleNamespace(pop=lambda *args: tell())


def locks_of(ws):
    """The locks of a WebSocket that are not reentrant."""
    return ws._recv_lock, ws._send_lock


def set_kubeconfig(client, cluster, text):
    """As if set_cluster had stored it, without a look at it."""
    client._transport.credentials.kubeconfigs[client.base_url, cluster] = text


def has_kubeconfig(client, cluster):
    return (client.base_url, cluster) in client._transport.credentials.kubeconfigs


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
    """What a call gives, or the kind of error that it raises: ours, which says what it expected."""
    try:
        return function(*args)
    except TypeError as error:
        assert "expected, not" in str(error)
        return TypeError
    except ValueError:
        return REFUSED


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
        method="GET", url="u", cluster="dev", retry_after=2.0),
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
    ("Not Found", b"Not Found", "Not Found", "", {}),
    ("Bad", b'{"error": "x"}', 'Bad - {"error": "x"}', "", {}),
    ("Bad", b'["a"]', 'Bad - ["a"]', "", {}),
    ("Bad", b'{"message": null, "reason": null, "details": []}',
     'Bad - {"message": null, "reason": null, "details": []}', "", {}),
    ("Bad", b'{"message": 5, "details": "x"}', 'Bad - {"message": 5, "details": "x"}', "", {}),
    ("Bad", b"\xff", "Bad - \ufffd", "", {}), ("Bad", b"x" * 5000, "Bad - " + "x" * 1000, "", {}),
    ("Bad", b"[" * 200000, "Bad - " + "[" * 1000, "", {}),
], ids=short)
def test_an_error_says_the_phrase_and_the_detail(phrase, body, text, reason, details):
    error = apiproxy.Response(404, phrase, {}, body, "GET", "http://h/x").error()
    assert (error.status, error.reason, error.details) == (404, reason, details)
    assert str(error) == text + " (GET /x)"
    assert error.message in text or not text.startswith(phrase)
    assert (error.method, error.url, error.body) == ("GET", "http://h/x", body)


@pytest.mark.parametrize("url, cluster, where", [
    ("/api/v1/pods", "dev", "GET /api/v1/pods, cluster dev"),
    ("/api/v1/pods", "", "GET /api/v1/pods"),
    ("https://user:SECRET@h:6443/api/v1/pods?token=SECRET", "a/b", "GET /api/v1/pods, cluster a/b"),
    # the path says it
    ("wss://h/base/clusters/dev/api/v1/pods?watch=true", "dev",
     "GET /base/clusters/dev/api/v1/pods"),
    ("http://h/clusters/device/x", "dev", "GET /clusters/device/x, cluster dev"),
    ("http://h?SECRET", "", "GET "), ("", "dev", ""),
])
def test_an_error_says_where_without_a_query_or_a_user(url, cluster, where):
    error = apiproxy.ApiError(
        404, "lost", phrase="Not Found", method="GET", url=url, cluster=cluster)
    assert str(error) == "Not Found - lost" + (" (%s)" % where if where else "")
    assert error.message == "lost"


def test_every_call_says_which_cluster_did_not_answer_or_refused(serve, new_client):
    server = serve(lambda request, conn: conn.reply(403, {"message": "no"}, reason="Forbidden"))
    client = new_client(server, cluster="dev", retry_base=0.01, rate=1000)
    client.add_endpoint("direct", apiproxy.Endpoint(server.url))
    client.add_endpoint("nobody", apiproxy.Endpoint("http://127.0.0.1:1"))
    for cluster, where in (
            ("dev", "(GET /clusters/dev/api/v1/pods)"),
            ("direct", "(GET /api/v1/pods, cluster direct)"),
            ("nobody", "(GET /api/v1/pods, cluster nobody)")):
        seen = Views()
        errors = [failed(client.request, "/api/v1/pods?x=private", {"cluster": cluster})]
        stops = [
            client.stream_results_for_cluster("/api/v1/pods", {
                "cb": seen.cb, "errCb": seen.err_cb, "cluster": cluster}, {"x": "private"}),
            client.stream("/api/v1/pods?x=private", seen.cb, {
                "cluster": cluster, "failCb": lambda error: seen.err_cb(error, None)}).cancel,
            client.metrics("/api/v1/pods?x=private", seen.cb,
                           lambda error: seen.err_cb(error, None), cluster)]
        eventually(lambda: len(seen.errors) >= 3)
        for stop in stops:
            stop()
        for error in errors + seen.errors:
            assert str(error).endswith(where), str(error)
            assert error.cluster == cluster


def test_what_breaks_within_a_stream_says_where_too(serve, new_client, caplog):
    api = Api(serve, [pods(pod("a"))], [[error(500, message="why")], [frame(TEXT, "{")], []])
    client = new_client(api.server)
    seen = Views()
    client.stream_results(PODS, seen.cb, seen.err_cb)
    eventually(lambda: len(seen.errors) == 2)
    assert str(seen.errors[0]) == "Watch failed - why (GET /api/v1/pods, cluster dev)"
    eventually(lambda: "again soon: " + str(seen.errors[0]) in caplog.text)
    assert str(seen.errors[1]).startswith("an event that can't be read: ")
    assert str(seen.errors[1]).endswith(" (GET /api/v1/pods, cluster dev)")

    ended = []
    server = serve(lambda request, conn: conn.upgrade(request) or False)
    new_client(server).stream("/x?y", print, {"failCb": ended.append})
    eventually(lambda: ended)
    assert str(ended[0]).startswith("WebSocket closed - 1006 ")
    assert str(ended[0]).endswith(" (GET /x, cluster dev)")


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
    ("/\u2028", REFUSED), ("/\u3000", REFUSED), ("/a#b", REFUSED), ("/a?b#c", REFUSED),
    ("/\ud800", REFUSED),
    ("/a/../b", REFUSED), ("..", REFUSED), ("/a/.", REFUSED), ("/./a", REFUSED),
    ("/a/..?x", REFUSED), ("/a/%2e%2e/b", REFUSED), ("/a/%2E./b", REFUSED), ("/a/.%2e", REFUSED),
    ("/%2e/b", REFUSED), (None, TypeError), (b"/x", TypeError)])
def test_a_path_arrives_as_written_or_is_refused(path, sent):
    assert result_of(apiproxy.check_path, path) == sent


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
    ("http://[fe80::1%25eth0]/", (False, "fe80::1%eth0", 80, "[fe80::1]", "/")),
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
    found = result_of(apiproxy.Address, url, ("http", "https"))
    if isinstance(address, tuple):
        found = (*found.server, found.authority, found.target)
    assert found == address


@pytest.mark.parametrize("headers, result", [
    (None, {}), ({"X-A": "b\t c", "x": "ÿ"}, {"X-A": "b\t c", "x": "ÿ"}), ({"X": ""}, {"X": ""}),
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


class Word(str, enum.Enum):
    ONE = "one"


class Number(enum.IntEnum):
    TWO = 2


@pytest.mark.parametrize("path, params, whole", [
    ("/x", None, "/x"),
    ("/x", {}, "/x"),
    ("/x?a=1", None, "/x?a=1"),
    ("/x", {"a": None}, "/x"),
    ("/x?a=1", {"a": None}, "/x?a=1"),
    ("/x", {"a": 1, "b": "é &="}, "/x?a=1&b=%C3%A9+%26%3D"),
    ("/x", {"a": True, "b": False, "c": 0, "d": ""}, "/x?a=true&b=false&c=0&d="),
    ("/x?a=1", {"b": 2}, "/x?a=1&b=2"),
    ("/x?a=1&b=2&a=3", {"a": 4}, "/x?b=2&a=4"),
    ("/x?%61=1&b", {"a": 2}, "/x?b&a=2"),
    ("/x?a=b?c", {"d": 1}, "/x?a=b?c&d=1"),
    ("/x?", {"a": 1}, "/x?a=1"),
    ("/x?&&a=1&", {"b": 1}, "/x?a=1&b=1"),
    ("/x", {"a": ["1", True, 2], "b": ("z",)}, "/x?a=1&a=true&a=2&b=z"),
    ("/x", {"c": "a\r\nb#\0"}, "/x?c=a%0D%0Ab%23%00"),
    ("/x", {"&": "="}, "/x?%26=%3D"),
    ("/x?b=1", {"a": []}, "/x?b=1"),
    ("/x", {"a": []}, "/x"),
    ("/x", {"a": ["1", None]}, "/x?a=1"),
    ("/x", {"a": [None]}, "/x"),
    ("/x", {"a": 0.5, "b": 10 ** 20}, "/x?a=0.5&b=100000000000000000000"),
    ("/x", {"a": Word.ONE, "b": Number.TWO}, "/x?a=one&b=2"),
    ("/x?labelSelector=b", {"labelSelector": {"app": "web"}}, "/x?labelSelector=app%3Dweb"),
    ("/x", {"a": "\ud800"}, REFUSED),
    ("/x", {"a": float("nan")}, REFUSED),
    ("/x", {"a": [float("inf")]}, REFUSED),
    ("/x", "a=1", TypeError),
    ("/x", ["a"], TypeError),
    ("/x", {1: "a"}, TypeError),
    ("/x", {"a": b"1"}, TypeError),
    ("/x", {"a": {"b": "c"}}, TypeError),
    ("/x", {"a": {"b"}}, TypeError),
    ("/x", {"a": [["b"]]}, TypeError),
    ("/x", {"a": object()}, TypeError),
    ("/x", {"sinceTime": datetime.datetime(2026, 1, 2)}, TypeError),
])
def test_parameters_join_the_query(path, params, whole):
    assert result_of(apiproxy.with_query, path, params) == whole


@pytest.mark.parametrize("key, meant", [
    ("labelselector", "labelSelector"), ("LabelSelector", "labelSelector"),
    ("label_selector", "labelSelector"), ("label-selector", "labelSelector"),
    ("labelSelectors", "labelSelector"), ("lableSelector", "labelSelector"),
    ("fieldselector", "fieldSelector"), ("field_selector", "fieldSelector"),
    ("feildSelector", "fieldSelector"), ("fieldSelecter", "fieldSelector"),
    ("resource_version", "resourceVersion"), ("resourceversion", "resourceVersion"),
    ("resource_version_match", "resourceVersionMatch"), ("Limit", "limit"),
    ("Continue", "continue"), ("dryrun", "dryRun"), ("dry_run", "dryRun"), ("dryRunn", "dryRun"),
    ("allow_watch_bookmarks", "allowWatchBookmarks"), ("timeout_seconds", "timeoutSeconds"),
    ("propagation_policy", "propagationPolicy"), ("fieldmanager", "fieldManager"),
    ("grace_period_seconds", "gracePeriodSeconds"), ("Pretty", "pretty"),
])
def test_a_misspelled_parameter_is_refused_with_the_right_name(key, meant):
    with pytest.raises(TypeError) as caught:
        apiproxy.check_query({key: "SECRET"})
    assert "%r" % key in str(caught.value) and "mean %r" % meant in str(caught.value)
    assert "SECRET" not in str(caught.value)


# Every query parameter that the OpenAPI document of 1.20 or 1.37 has, and some of other servers.
OTHERS_KEYS = """allowWatchBookmarks command container continue dryRun exact export fieldManager
    fieldSelector fieldValidation follow force gracePeriodSeconds
    ignoreStoreReadErrorWithClusterBreakingPotential
    insecureSkipTLSVerifyBackend labelSelector limit limitBytes orphanDependents path ports pretty
    previous propagationPolicy resourceVersion resourceVersionMatch sendInitialEvents shardSelector
    sinceSeconds sinceTime stderr stdin stdout stream tailLines timeoutSeconds timestamps tty watch
    name namespace node nodename cluster labels fields limits version query step timeout q"""


@pytest.mark.parametrize("key", OTHERS_KEYS.split())
def test_other_parameters_go_out_as_they_are(key):
    assert apiproxy.check_query({key: 1}) == {key: "1"}


@pytest.mark.parametrize("kind, wanted, text", [
    ("labelSelector", {"app": "web"}, "app=web"),
    ("labelSelector", {"app": "web", "a.b-c.example.com/Tier_1": "x.Y-z_0"},
     "app=web,a.b-c.example.com/Tier_1=x.Y-z_0"),
    ("labelSelector", {"app": ""}, "app="),
    ("labelSelector", {"app": "a" * 63}, "app=" + "a" * 63),
    ("labelSelector", {}, ""),
    ("labelSelector", "app in (a, b),!c", "app in (a, b),!c"),
    ("labelSelector", {"app": "a" * 64}, REFUSED),
    ("labelSelector", {"app": "a,b"}, REFUSED),
    ("labelSelector", {"app": "a b"}, REFUSED),
    ("labelSelector", {"app": "a=b"}, REFUSED),
    ("labelSelector", {"app": "-a"}, REFUSED),
    ("labelSelector", {"app": "a\n"}, REFUSED),
    ("labelSelector", {"app": "é"}, REFUSED),
    ("labelSelector", {"!app": "a"}, REFUSED),
    ("labelSelector", {"": "a"}, REFUSED),
    ("labelSelector", {"a/b/c": "a"}, REFUSED),
    ("labelSelector", {"app": 1}, TypeError),
    ("labelSelector", {"app": None}, TypeError),
    ("labelSelector", {1: "a"}, TypeError),
    ("fieldSelector", {"metadata.name": "a", "status.phase": "b"},
     "metadata.name=a,status.phase=b"),
    ("fieldSelector", {"spec.nodeName": ""}, "spec.nodeName="),
    ("fieldSelector", {"metadata.name": "a,b=c\\d"}, "metadata.name=a\\,b\\=c\\\\d"),
    ("fieldSelector", {"metadata.name": "é b"}, "metadata.name=é b"),
    ("fieldSelector", {"metadata.name!": "a"}, REFUSED),
    ("fieldSelector", {"a,b": "a"}, REFUSED),
    ("fieldSelector", {"": "a"}, REFUSED),
    ("fieldSelector", {"metadata.name": True}, TypeError),
])
def test_a_selector_may_be_a_mapping(kind, wanted, text):
    result = result_of(apiproxy.check_query, {kind: wanted})
    assert result == (text if text in (REFUSED, TypeError) else {kind: text})


def test_a_checked_query_can_be_checked_again():
    params = {"labelSelector": {"a": "b"}, "limit": 5, "a": [1, None], "b": None, "watch": True}
    once = apiproxy.check_query(params)
    assert once == {"labelSelector": "a=b", "limit": "5", "a": ["1"], "watch": "true"}
    assert apiproxy.check_query(once) == once and params["limit"] == 5


# ------------------------------------------------------------------------------
# 3. YAML
# ------------------------------------------------------------------------------


KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: "dev"  # the one in use
clusters:
- name: dev
  cluster:
    server: https://[::1]:6443
    certificate-authority-data: |
      LS0tLS1CRUdJTiBDRVJU
      SUZJQ0FURS0tLS0tCg==
users:
- {name: dev, user: {exec: {command: aws, args: [eks, get-token, --region, eu-west-1], env: null}}}
contexts:
-   name: dev
    context:
        cluster: dev
        user: 'it''s me'
preferences: {}
"""


def test_read_yaml_reads_a_kubeconfig():
    assert apiproxy.read_yaml(KUBECONFIG.encode()) == apiproxy.read_yaml(KUBECONFIG) == [{
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dev",
        "clusters": [{"name": "dev", "cluster": {
            "server": "https://[::1]:6443",
            "certificate-authority-data": "LS0tLS1CRUdJTiBDRVJU\nSUZJQ0FURS0tLS0tCg==\n",
        }}],
        "users": [{"name": "dev", "user": {"exec": {
            "command": "aws", "args": ["eks", "get-token", "--region", "eu-west-1"], "env": None,
        }}}],
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "it's me"}}],
        "preferences": {},
    }]


@pytest.mark.parametrize("scalar, value", [
    # words of YAML 1.1, each in three spellings
    ("~", None), ("null", None), ("Null", None), ("nULL", "nULL"), ("", None),
    ("yes", True), ("On", True), ("y", True), ("TRUE", True), ("tRUE", "tRUE"),
    ("no", False), ("OFF", False), ("N", False), ("False", False), ("nO", "nO"),
    # integers: octal with and without "o", underscores anywhere
    ("0", 0), ("-0", 0), ("+1", 1), ("0x1F", 31), ("-0X1f", -31), ("0b101", 5), ("017", 15),
    ("0o17", 15), ("-0O17", -15), ("00", 0), ("1_000", 1000), ("1__0_", 10), ("_1", "_1"),
    ("9223372036854775807", 2**63 - 1), ("0x", "0x"), ("0b", "0b"), ("0o8", "0o8"), ("+", "+"),
    # floats; a whole one is sent as an integer
    ("1.5", 1.5), ("1e3", 1000), ("5.", 5), (".5", 0.5), ("+.5e-1", 0.05), ("08", 8), ("1.0", 1),
    ("1e-7", 1e-07), ("1_0.5", 10.5), ("1e", "1e"), (".", "."), ("1.2.3", "1.2.3"), (".e5", ".e5"),
    # strings that other readers resolve
    ("12:30:00", "12:30:00"), ("190:20:30.15", "190:20:30.15"), ("2001-01-01", "2001-01-01"),
    ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"), ("10Gi", "10Gi"),
    ("0b3e5f1", "0b3e5f1"), ("10.0.0.1", "10.0.0.1"), ("=", "="), ("1 2", "1 2"), ("\u0661",
    "\u0661"),
])
def test_read_yaml_resolves_plain_scalars_as_kubectl(scalar, value):
    for text in ("k: %s\n" % scalar, "k:   %s   # c" % scalar, "k:\n  %s\n" % scalar):
        [document] = apiproxy.read_yaml(text)
        assert document == {"k": value} and type(document["k"]) is type(value)

    if scalar:
        assert apiproxy.read_yaml("[%s, {k: %s}]" % (scalar, scalar)) == [[value, {"k": value}]]
        assert apiproxy.read_yaml("- '%s'\n- \"%s\"\n" % (scalar, scalar)) == [[scalar, scalar]]


@pytest.mark.parametrize("text, documents", [
    # documents
    ("", []), ("\n # c\n", []), ("---", [None]), ("---\n---\na", [None, "a"]), ("...\n", []),
    ("# c\n---\na: 1\n...\n# d\n---\nb", [{"a": 1}, "b"]), ("--- # c\na\n---\n", ["a", None]),
    ("%YAML 1.1\n---\na\n...\n%YAML 1.1\n---\nb", ["a", "b"]),
    ("\ufeffa: 1\r\nb: 2\r\n", [{"a": 1, "b": 2}]),
    ('{"a": 1}\n{"a": "\\ud83d\\ude00\\/"}\n', [{"a": 1}, {"a": "\U0001f600/"}]),
    ("&a 1\n---\n&a 2\n", [1, 2]),
    # collections
    ("a:\n- b\n-\n- - c\n  - d: e\n    f:\ng: h", [{"a": ["b", None, ["c", {"d": "e",
    "f": None}]], "g": "h"}]),
    ("  a:\n   b:  c\n", [{"a": {"b": "c"}}]), ("-  a: b\n   c: d\n", [[{"a": "b", "c": "d"}]]),
    ("a: # c\n\n # d\n  - b # e\n\n#f\n  -\n   c: d", [{"a": ["b", {"c": "d"}]}]),
    ("'a b' : 1\n\"\\x41\": 2\n\"\": 3", [{"a b": 1, "A": 2, "": 3}]),
    ("yes: 1\n8080: 2\n2001-01-01: 3\n'~': 4", [{"true": 1, "8080": 2, "2001-01-01": 3, "~": 4}]),
    ("[ a, [ ], {}, {b: ~, \"c\":d,},\n# c\ne f\n g\n]",
     [["a", [], {}, {"b": None, "c": "d"}, "e f g"]]),
    ("a: [\n1,\n2\n]\nb: {\n\tc: d}", [{"a": [1, 2], "b": {"c": "d"}}]),
    # plain scalars
    ("a,b]: c, d\n  e, f", [{"a,b]": "c, d e, f"}]),
    ("a: b#c: d e# f # g", None), ("a: http://b:1/c?d=e#f\nb: -c\nd: ?e\nf: :g\nh: a]b, {c",
     [{"a": "http://b:1/c?d=e#f", "b": "-c", "d": "?e", "f": ":g", "h": "a]b, {c"}]),
    ("a: b\n  c\n\n\n  - d # e\nf: g", [{"a": "b c\n\n- d", "f": "g"}]), ("a\nb\n c", ["a b c"]),
    # quoted scalars
    ("a: 'b\n  c \n\n  it''s'\nd: ''", [{"a": "b c\nit's", "d": ""}]),
    ('"\\0\\a\\b\\t\\\t\\n\\v\\f\\r\\e\\ \\"\\/\\\\\\N\\_\\L\\P\\x41\\u00e9\\U0001F600"',
     ["\0\a\b\t\t\n\v\f\r\x1b \"/\\\x85\xa0\u2028\u2029A\xe9\U0001f600"]),
    ('"a \\\n   b\\n  c\n  \n\n  d\\ \n  e"', ["a b\n  c\n\nd  e"]),
    # block scalars
    ("a: |\n  b\n\n   c\n  # d\n\ne: >\n  f\n  g\n\n  h\n   i\n  j\n",
     [{"a": "b\n\n c\n# d\n", "e": "f g\nh\n i\nj\n"}]),
    ("- |-\n  a\n\n- |+\n  b\n\n- >2-\n    c\n  d\n- |1 # e\n  f\n-  |\n- |+\n\n- >+\n\n g\n",
     [["a", "b\n\n", "  c\nd", " f\n", "", "\n", "\ng\n"]]),
    ("a: |\n  b", [{"a": "b\n"}]), ("a: |\n  \n  b", [{"a": "\nb\n"}]),
     ("|\n a\n  \n b\n# c\n", ["a\n \nb\n"]),
    (">\n a\n\n\n b\n", ["a\n\nb\n"]),
    # anchors and aliases
    ("a: &x\n  b: c\nd: *x\ne: [&y 1, *y]\nf: &z\ng: *z",
     [{"a": {"b": "c"}, "d": {"b": "c"}, "e": [1, 1], "f": None, "g": None}]),
    ("- &x 1\n- &x [2, *x]\n", None), ("a: &x\n- b\nc: *x", [{"a": ["b"], "c": ["b"]}]),
    ("- &x\n- *x\n", [[None, None]]), ("- &x\n  - &x 1\n- *x", [[[1], 1]]),
])
def test_read_yaml_reads_documents(text, documents):
    if documents is None:
        with pytest.raises(ValueError):
            apiproxy.read_yaml(text)
        return

    assert apiproxy.read_yaml(text) == documents
    assert apiproxy.read_yaml(text.encode()) == documents


@pytest.mark.parametrize("text, line, column", [
    ("a: b: c", 1, 5), ("a: 1\n b: 2", 2, 3), ("a: 1\n- b", 2, 1), ("- a\nb: 1", 2, 1),
    ("a: - b", 1, 4),
    ("a:\n  b: 1\n c: 2", 3, 2), ("a\nb: 1", 2, 2), ("? a\n: b", 1, 1), ("- a\n b: c", 2, 3),
    ("\ta: 1", 1, 1), ("a:\n\tb: 1", 2, 1), ("a: b\n\tc", 2, 1), ("- \ta", 1, 1),
    ("a: |\n\tb", 2, 1),
    ("a: [b", 2, 1), ("a: [b]]", 1, 7), ("[a b: c]", 1, 5), ("{a, b: c}", 1, 2), ("{a: }", 1, 5),
    ("[a,, b]", 1, 4),
    ('["a" "b"]', 1, 6),
    ("{a:1}", 1, 2), ("[- a]", 1, 2), ("[a?b]", 1, 3), ("{a:,b: c}", 1, 2), ("[a\n---\n]", 2, 1),
    ("a: 'b", 1, 4), ('a: "b\\q"', 1, 9), ('"\\ud83d"', 1, 9), ('"\\u12"', 1, 7), ("'a'b", 1, 4),
    ("'a'#b", 1, 4), ("a: 'b\n---\nc'", 1, 4), ("a: |0\n b", 1, 4), ("a: |\n   \n  b", 3, 3),
    ("a: |b", 1, 4),
    ("a: 1\nb: 2\na: 3", 3, 1), ("{a: 1, 'a': 2}", 1, 8), ("yes: 1\n'true': 2", 2, 1),
    ("1: a\n'1': b", 2, 1),
    ("<<: {a: 1}", 1, 1), ("~: 1", 1, 1), ("1.5: 1", 1, 1), ("0x1: 1", 1, 1), ("[a]: b", 1, 4),
    ("a: !!str 1", 1, 4), ("!a b", 1, 1), ("a: *b", 1, 6), ("- &a [*a]", 1, 9), ("&a &b c", 1, 1),
    ("- &a 1\n---\n- *a", 3, 5),
    ("&a b: c", 1, 5), ("*a : b", 1, 3), ("a: @b", 1, 4), ("a: `b", 1, 4), ("a: %b", 1, 4),
    ("%YAML 1.2\n---\n", 1, 1),
    ("%TAG ! !\n---\n", 1, 1), ("--- a", 1, 4), ("---a", 1, 4), ("a\n...\nb", 3, 1),
    ("... a\n", 1, 1),
    (".inf", 1, 1), ("a: -.INF\nb: 1", 1, 4), (".NaN", 1, 1), ("0b-1", 1, 1), (".5_0", 1, 1),
    ("1e400", 1, 1),
    ("0x8000000000000000", 1, 1), ("18446744073709551615", 1, 1), ("a: b\x00", 1, 5),
    ("a: b\x85", 1, 5),
    ("a: b\u2028", 1, 5), ("a: b\ufeff", 1, 5), ("a: 1\rb: 2", 1, 5), ("a: \ud800", 1, 4),
    ("a: b\x7f", 1, 5),
    (b"a: 1\nb: \xe9", 2, 4), (b"\xff\xfea\x00", 1, 1), (b"\xed\xa0\x80", 1, 1),
])
def test_read_yaml_refuses_with_line_and_column(text, line, column):
    with pytest.raises(ValueError, match="^line %d, column %d: .*kubectl " % (line, column)):
        apiproxy.read_yaml(text)


def test_read_yaml_says_nothing_of_the_text():
    texts = ["token: s3cret: x", "s3cret: 1\ns3cret: 2", "a: 's3cret", "a: *s3cret", '"s3cret\\q"']
    for text in texts:
        with pytest.raises(ValueError) as refusal:
            apiproxy.read_yaml(text)
        assert "s3cret" not in str(refusal.value)


def test_read_yaml_reads_what_json_dumps_writes():
    strange = "\U0001f600\u2028\x7f\0\"\\/"
    value = [{"a b": [strange, 1.5, -3, True, None, {}, [], ""], "": "yes"}, 2**53]
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, indent="\t")):
        assert apiproxy.read_yaml(text) == [value]


def test_read_yaml_reads_or_refuses_every_beginning_and_every_gap():
    text = KUBECONFIG + "a: &x [b, 'c\n  d', \"\\x41\\\n  e\"]\nf: *x\n"
    text += "g: >-\n  h\n\n  i\n...\n---\n- |2+\n   j\n\n"
    read = 0
    for cut in range(len(text) + 1):
        for piece in (text[:cut], text[cut:], text[:cut] + text[cut + 1:]):
            try:
                read += bool(apiproxy.read_yaml(piece))
            except ValueError as refusal:
                assert re.match(r"line \d+, column \d+: ", str(refusal))

    assert read > len(text)  # most of them are YAML still


@pytest.mark.parametrize("bomb", [
    "[" * 10**5, "{a: " * 10**5, "- " * 10**5, "\n".join(" " * n + "a:" for n in range(2000)),
    "\n".join(" " * n + "-" for n in range(2000)), "[" * 10**5 + "]" * 10**5,
])
def test_read_yaml_bounds_the_depth(bomb):
    with pytest.raises(ValueError, match="nested too deeply"):
        apiproxy.read_yaml(bomb)


def test_read_yaml_takes_a_hundred_nodes_in_one_another():
    deep = "[" * 99 + "]" * 99
    assert apiproxy.read_yaml("[%s, %s]" % (deep, deep))
    with pytest.raises(ValueError, match="nested too deeply"):
        apiproxy.read_yaml("[%s, [%s]]" % (deep, deep))


def test_read_yaml_has_no_recursion_error_for_a_caller_deep_in_the_stack():
    def call_at(depth):
        return call_at(depth - 1) if depth else apiproxy.read_yaml("[" * 90 + "]" * 90)

    assert apiproxy.read_yaml("[" * 90 + "]" * 90)
    frames = len(inspect.stack(0))
    with pytest.raises(ValueError, match="nested too deeply"):
        call_at(sys.getrecursionlimit() - frames - 60)


def test_read_yaml_bounds_what_aliases_stand_for():
    bomb = "a0: &a0 [%s]\n" % ", ".join(["lol"] * 9)
    for n in range(1, 30):
        bomb += "a%d: &a%d [%s]\n" % (n, n, ", ".join(["*a%d" % (n - 1)] * 9))

    tenth = "- &a %s\n" % ("x" * (10**5 - 2))
    for text in (bomb, tenth + "- *a\n" * 11):
        with pytest.raises(ValueError, match="aliases"):
            apiproxy.read_yaml(text)

    for text, count in ((tenth, 11), ("- &a x\n", 10**4)):
        [items] = apiproxy.read_yaml(text + "- *a\n" * (count - 1))
        assert len(items) == count


@pytest.mark.parametrize("repeat", [
    "a%d: {b: [c, 'd'], e: \"f\\n\"}\n", "- a\n", "- |\n  a\n\n", "---\na: b\n", "# c\n", "\n",
    "- &a b\n- *a\n",
    "- 'a''\n  b'\n", "- a:\n    b: >-\n      c\n      d\n",
])
def test_read_yaml_takes_time_in_proportion_to_the_text(repeat):
    def seconds(count):
        text = "".join(repeat % n if "%" in repeat else repeat for n in range(count))
        times = []
        for _ in range(3):
            start = time.thread_time()
            apiproxy.read_yaml(text)
            times.append(time.thread_time() - start)
        return min(times)

    assert seconds(4000) < 40 * seconds(400) + 0.05  # 10 when linear, 100 when quadratic


N = 50_000


@pytest.mark.parametrize("text", [
    "a: x" + " " * N + "y", "a: 'x" + " " * N + "y'", 'a: "\\ ' + " " * N + 'y"', "a: '" + "'" * N,
    'a: "' + "\\" * N, "[" + "a," * N, "a: " + "1" * N, "a: 0x" + "f" * N, "a:" * N,
    "a: a" + "#" * N, "a: x\n" + "  1\n" * N, "a: >\n  x\n" + "\n" * N + "   y",
    "&a\n" + " #\n" * N,
    "a: ." + "_" * N, "\n" * N + "\t", "- a\n" * N + "-a",
])
def test_read_yaml_wastes_no_time_on_a_hostile_text(text):
    start = time.thread_time()
    try:
        apiproxy.read_yaml(text)
    except ValueError:
        pass

    assert time.thread_time() - start < 10  # measured: under 1 s; what tries twice takes minutes


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


@pytest.mark.parametrize("code, reason, payload", [
    (1000, "", b"\x03\xe8"), (4999, "bye", b"\x13\x87bye"),
    (1001, "x" + "é" * 62, b"\x03\xe9x" + "é".encode() * 61), (1005, "", REFUSED),
    (1006, "", REFUSED),
    (1015, "", REFUSED), (999, "", REFUSED), (5000, "", REFUSED), (0, "", REFUSED),
    (1000, "\ud800", REFUSED)])
def test_a_close_payload_is_legal_and_cut_at_a_character(code, reason, payload):
    assert result_of(apiproxy.encode_close, code, reason) == payload
    if payload is not REFUSED:
        assert apiproxy.parse_close(payload) == (code, reason[:62])


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


@pytest.mark.parametrize("size", [1, 7, 125, 126])
@pytest.mark.parametrize("opcode", [1, 2])
def test_many_fragments_of_one_length_are_one_message(opcode, size):
    text = "hé€😀" * 200
    data = text.encode()
    frames = [frame(0 if at else opcode, data[at:at + size], fin=False)
              for at in range(0, len(data), size)]
    frames[9:9] = [frame(0, fin=False), frame(9, b"!"), *[frame(0, fin=False)] * 20]
    wire = b"".join(frames) + frame(0)
    found = [(9, b"!"), (opcode, text if opcode == 1 else data)]
    assert feed(wire) == found
    for cut in range(1, len(wire), 97):
        assert feed(wire[:cut], wire[cut:]) == found


def test_a_reader_that_rests_loses_nothing():
    reader, wire = apiproxy.MessageReader(10**6), frame(2, b"x" * 5000)
    reader.feed(frame(2, b"x" * 10**5) + wire[:3])
    assert reader.next() == (2, b"x" * 10**5)
    for piece in (wire[3:4000], wire[4000:]):
        assert reader.next() is None
        reader.rest()
        reader.feed(piece)
    assert reader.next() == (2, b"x" * 5000)


OPEN_TEXT = frame(1, "a", fin=False)
RUN = OPEN_TEXT + frame(0, "a", fin=False) * 20


@pytest.mark.parametrize("wire, code", [  # the last byte is the one that makes it illegal
    (b"\xc1\x00", 1002), (b"\xa1\x00", 1002), (b"\x91\x00", 1002), (b"\x89\x80", 1002),
    (b"\x81\x80", 1002), (b"\x81\x81", 1002)] + [
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
    (RUN + b"\x00\x81", 1002), (RUN + b"\x40\x01", 1002), (RUN + b"\x01\x01", 1002),
    (RUN + b"\x00\x01\xff", 1007), (RUN + frame(0, b"\xc3", fin=False) + b"\x80\x00", 1007),
    (frame(2, b"x" * 50, fin=False) + frame(0, b"x" * 50, fin=False) * 19 + b"\x00\x32", 1009),
    (b"\x82\x7e\x03\xe9", 1009), (b"\x82\x7f\0\0\1\0\0\0\0\0", 1009),
    (frame(2, b"x" * 600, fin=False) + b"\x00\x7e\x01\x91", 1009),
    (frame(2, b"x" * 1000, fin=False) + frame(0, fin=False) + b"\x80\x01", 1009)])
def test_an_illegal_frame_is_refused_at_the_byte_that_makes_it_so(wire, code):
    feed(wire[:-1], limit=1000)
    for pieces in ((wire,), (wire[:-1], wire[-1:]),
        [wire[index:index + 1] for index in range(len(wire))],
        (wire + b"\0" * 300,), (wire[:3], wire[3:] + b"\0" * 300),
        (wire + b"\0\1a" * 20,)):
        with pytest.raises(apiproxy.ProtocolError) as caught:
            feed(*pieces, limit=1000)
        assert caught.value.code == code


@row("W42")
@pytest.mark.parametrize("opcode, piece", [
    (1, b"x"), pytest.param(2, b"", marks=pytest.mark.slow)])
def test_a_hundred_thousand_fragments_stay_small(opcode, piece):
    wire = frame(opcode, fin=False) + frame(0, piece, fin=False) * 100000 + frame(0)
    tracemalloc = pytest.importorskip("tracemalloc")  # not on PyPy
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
    GOOD[:1] + [" X: y"] + GOOD[1:],
    GOOD + [" folded"], GOOD + ["\tfolded"], GOOD + ["no colon"], GOOD + ["Space : x"],
    GOOD + [": x"], GOOD + ["X: a\nY: b"],
    GOOD + ["X: a\rb"], GOOD + ["X: \0"], GOOD + ["X\xe9: a"])])
def test_a_handshake_is_accepted_only_as_the_rfc_says(lines, chosen):
    try:
        head = apiproxy.Head("\r\n".join(lines + ["", ""]).encode("latin-1"))
        assert apiproxy.check_handshake(head, KEY, ["a", "b"]) == chosen
    except (apiproxy.BadAnswer, apiproxy.HandshakeError):
        assert chosen is None


def test_headers_are_a_mapping_by_lower_case():
    headers = apiproxy.Headers([("X-A", " 1\t"), ("x-a", "2"), ("B", "")])
    assert dict(headers) == {"x-a": "1, 2", "b": ""}
    assert len(headers) == 2 and "X-a" in headers and headers["X-a"] == "1, 2"


@pytest.mark.parametrize("space", ["\x85", "\xa0"])
def test_only_blanks_and_tabs_are_left_out_around_a_header_value(space):
    head = apiproxy.Head("\r\n".join([GOOD[0], "Upgrade: websocket" + space] +
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
    late = 1 if "body" in stage else 0.1  # by then the head of the refusal is there
    call = background(connect, url, proxy=proxy, cancel=cancel,
        timeout=60 if how == "cancelled" else late)
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


def test_a_cancel_that_comes_as_a_connection_begins_is_not_lost(listener, monkeypatch):
    """It found no socket that it could shut, and what came to wait for one waited for its time."""
    cancel, begin = new_cancel(), apiproxy.Race._begin

    def cancelled(race, found):
        cancel_now(cancel)
        begin(race, found)

    monkeypatch.setattr(apiproxy.Race, "_begin", cancelled)
    call = background(connect, "ws://%s/" % listener(True), proxy="", cancel=cancel, timeout=60)
    assert call.result().status == 502


def test_a_connect_that_was_cancelled_before_sends_nothing(serve):
    server, cancel = serve(hello), new_cancel()
    cancel_now(cancel)
    with pytest.raises(apiproxy.ApiError):
        connect(server.ws, cancel=cancel)
    assert server.requests == []


# -- several addresses (RFC 8305)


@pytest.fixture
def no_winners():
    """Nothing is remembered of connections before this test, nor of those in it."""
    apiproxy.Race.winners.clear()
    yield
    apiproxy.Race.winners.clear()


def test_an_address_that_swallows_everything_costs_a_quarter_of_a_second_once(
        serve, listener, names, no_winners):
    server, black_hole = serve(hello), at(listener(full=True))
    names["many.test"] = [black_hole, black_hole, at("127.0.0.1:%d" % server.port)]
    took = []

    for _ in range(2):
        begun = time.monotonic()
        ws = connect("ws://many.test:%d/" % server.port)
        took.append(time.monotonic() - begun)
        ws.abort()

    assert 0.45 <= took[0] < 3  # two of them came first
    assert took[1] < 0.2  # the one that worked is tried first


def test_a_winner_that_is_no_longer_among_the_addresses_is_not_tried(serve, names, no_winners):
    first, second = serve(hello), serve(hello)
    dead = at("127.0.0.1:1")
    names["many.test"] = [dead, at("127.0.0.1:%d" % first.port)]
    connect("ws://many.test:81/").abort()
    names["many.test"] = [dead, at("127.0.0.1:%d" % second.port)]
    connect("ws://many.test:81/").abort()
    assert (first.count, second.count) == (1, 1)


@pytest.mark.parametrize("families, number", [
    ([socket.AF_INET, 99, socket.AF_INET], errno.ECONNREFUSED),
    ([socket.AF_INET, 99], errno.EAFNOSUPPORT)])
def test_when_all_addresses_fail_the_last_says_why(names, no_winners, families, number):
    names["many.test"] = [at("127.0.0.1:1", family) for family in families]
    before = sockets()
    error = failed(connect, "ws://many.test:81/")
    assert (error.status, error.__cause__.errno) == (502, number)
    assert "many.test:81" in str(error)
    eventually(lambda: sockets() <= before)


def test_an_address_that_no_connection_can_be_made_to_is_passed_over(serve, names, no_winners):
    server, before = serve(hello), sockets()
    names["many.test"] = [at("255.255.255.255:1"), at("127.0.0.1:%d" % server.port)]
    ws = connect("ws://many.test:81/")
    assert sockets() <= before + 2  # this side's and the server's
    ws.abort()


def test_an_address_that_refuses_costs_no_wait(serve, names, no_winners):
    server = serve(hello)
    names["many.test"] = [at("127.0.0.1:1")] * 8 + [at("127.0.0.1:%d" % server.port)]
    begun = time.monotonic()
    connect("ws://many.test:81/").abort()
    assert time.monotonic() - begun < 1.5  # not 8 times 0.25


def test_cancel_ends_a_race_and_leaves_no_socket(listener, names, no_winners):
    names["many.test"] = [at(listener(full=True))] * 3
    before, cancel = sockets(), new_cancel()
    call = background(connect, "ws://many.test:81/", cancel=cancel, timeout=60)
    eventually(lambda: sockets() >= before + 2)
    cancel_now(cancel)
    error = call.result(1)
    assert error.status == 502 and "cancelled" in str(error)
    assert sockets() == before


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
    urls = ["https://%s" % place]

    try:
        direct = serve(hello_or_json, tls=True, host="::1")
        direct.context.sni_callback = server.context.sni_callback
        urls.append(direct.url)
    except OSError:
        pass  # no IPv6 here

    for url, way in zip(urls, (proxy.url, None)):
        client = new_client("", cluster="six")
        client.add_endpoint("six", apiproxy.Endpoint(url, ssl_context=trusting, proxy=way))
        assert client.request("/x") == {}
        ws = connect("wss" + url[5:] + "/", ssl_context=trusting, proxy=way)
        assert ws.recv() == "hello"
        ws.abort()

    assert proxy.paths() == [place] * 2 == [request.headers["host"] for request in proxy.requests]
    assert {request.headers["host"] for request in server.requests} == {place}
    assert set(names_sent) == {None}  # an address is no name: it is in the certificate, not in SNI


def test_a_tls_session_is_resumed_under_its_own_name_with_settings_of_ours_alone(
        serve, new_client, names, trusting, certificate):
    server = serve(hello_or_json, tls=True)
    names["other.test"] = [at("127.0.0.1:%d" % server.port)]
    ours = apiproxy.tls_context(certificate)

    def resumed(host, context):
        before = server.context.session_stats()["hits"]
        connect("wss://%s:%d/" % (host, server.port), ssl_context=context).abort()
        return server.context.session_stats()["hits"] - before

    assert [resumed("127.0.0.1", ours) for _ in range(3)] == [0, 1, 1]
    assert [resumed("localhost", ours) for _ in range(2)] == [0, 1]
    new_client(server, ssl_context=ours).request("/x")
    assert server.context.session_stats()["hits"] == 4
    with pytest.raises(apiproxy.ApiError, match="for another name"):
        resumed("other.test", ours)
    assert resumed("127.0.0.1", apiproxy.tls_context(certificate)) == 0
    # the caller may change these so that a session would go against them
    assert [resumed("127.0.0.1", trusting) for _ in range(2)] == [0, 0]


def test_a_session_made_without_checks_or_as_somebody_else_is_not_resumed(
        serve, new_client, certificate):
    server, context = mutual(serve, certificate), apiproxy.tls_context(insecure=True)
    client = new_client(server, ssl_context=context, cluster="")

    def subject():
        client.close()
        return client.request("/x")["subject"]

    assert [subject(), subject()] == [None, None] and server.context.session_stats()["hits"] == 1
    context.load_cert_chain(certificate)
    assert [subject(), subject()] == ["apiproxy tests"] * 2
    assert server.context.session_stats()["hits"] == 2
    context.verify_mode = ssl.CERT_REQUIRED
    assert failed(client.close() or client.request, "/x").status == 502


@pytest.mark.parametrize("cut", ["", "."])
def test_the_roots_dot_is_neither_in_sni_nor_in_the_certificates_name(
        serve, new_client, names, trusting, cut):
    server, seen = serve(hello_or_json, tls=True), []
    server.context.sni_callback = lambda sock, name, context: seen.append(name)
    names["localhost" + cut] = [at("127.0.0.1:%d" % server.port)]
    place = "localhost%s:%d" % (cut, server.port)
    assert new_client("https://" + place, ssl_context=trusting).request("/x") == {}
    connect("wss://%s/" % place, ssl_context=trusting).abort()
    assert seen == ["localhost"] * 2


# A certificate for localhost and 127.0.0.1 that has expired, its own authority; its key protects
# nothing.
EXPIRED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgIhzox9U9YWRr9ahL
jIMNZxkYgQo7w1cAin4BbkOcQtChRANCAARwHkoNSGaStjc8ujJPodni/E0BGOnD
HwNMlUKY/4mYSBOtl16he2Atl4MeOj8JU5Jo9HtdRvGnwYUJqG7+OVik
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBhjCCASygAwIBAgIUAnmuGM1Y26ckz7zXIB02pKMXIkIwCgYIKoZIzj0EAwIw
GzEZMBcGA1UEAwwQYXBpcHJveHkgZXhwaXJlZDAeFw0yNjExMjYwNjE5NDdaFw0y
NjExMjUwNjE5NDdaMBsxGTAXBgNVBAMMEGFwaXByb3h5IGV4cGlyZWQwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAARwHkoNSGaStjc8ujJPodni/E0BGOnDHwNMlUKY
/4mYSBOtl16he2Atl4MeOj8JU5Jo9HtdRvGnwYUJqG7+OViko04wTDAaBgNVHREE
EzARgglsb2NhbGhvc3SHBH8AAAEwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQU
IvwDzifV60Koul8EkuHlGm4Ue4cwCgYIKoZIzj0EAwIDSAAwRQIhAKutj6H5yWob
k8xI+SAuRiYLndlvm7nqfAhXGtgWzggwAiAUae1uj36aGpr+ir6gq2gc1E65LnNi
k1O0iH3lWPcGXw==
-----END CERTIFICATE-----
"""


@pytest.fixture
def pem_file(tmp_path):
    """pem_file(text) -> the name of a file with it."""
    def write(text):
        path = tmp_path / ("%d.pem" % len(os.listdir(str(tmp_path))))
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def serve_raw():
    """serve_raw(script) -> RawServer, stopped after the test."""
    servers = []

    def start(script):
        servers.append(RawServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def speaking(*pieces):
    """The script of a server that reads something, says this and hangs up."""
    def script(conn):
        conn.more()
        for piece in pieces:
            conn.send(piece)
        conn.sock.shutdown(socket.SHUT_WR)
        conn.wait_end()

    return script


HTTP_400 = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request"
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"  # fatal: protocol_version


@pytest.mark.parametrize("websocket", [False, True], ids=["HTTP", "WebSocket"])
@pytest.mark.parametrize("wrong, scheme, text", [
    ("nobody listens", "http", "is the server, kubectl proxy or Headlamp running there?"),
    ("plain HTTP", "https", "what answers there is not TLS: is the address http://?"),
    ("TLS that says so", "http", "that is TLS: is the address https://?"),
    ("TLS that hangs up", "http", "is the address https://?"),
    ("another authority", "https", "is it the right certificate authority?"),
    ("expired", "https", "'s certificate has expired"),
    ("another name", "https", "'s certificate is for another name"),
])
def test_an_error_on_the_way_names_the_place_and_what_to_try(
        serve, serve_raw, new_client, names, trusting, pem_file, websocket, wrong, scheme, text):
    raw = {"plain HTTP": HTTP_400, "TLS that says so": ALERT}.get(wrong)
    server = serve_raw(speaking(raw)) if raw else serve(hello_or_json, tls=True)
    place, context = "localhost:%d" % server.port, trusting

    if wrong == "nobody listens":
        server.stop()
    if wrong == "another authority":
        context = ssl.create_default_context()
    if wrong == "expired":
        server.context.load_cert_chain(pem_file(EXPIRED))
        context = ssl.create_default_context(cafile=pem_file(EXPIRED))
    if wrong == "another name":
        place = "other.test:%d" % server.port
        names["other.test"] = [at("127.0.0.1:%d" % server.port)]

    if websocket:
        url = "ws%s://%s/" % (scheme[4:], place)
        error = failed(lambda: connect(url, ssl_context=context))
    else:
        error = failed(new_client("%s://%s" % (scheme, place), ssl_context=context).request, "/x")

    assert place in str(error) and text in str(error), str(error)
    assert str(error).count("?") <= 1  # one thing to try
    assert error.status in (502, 0) and not server.requests


def test_a_server_that_refuses_our_certificate_does_not_seem_to_speak_of_its_own(
        serve, new_client, certificate, pem_file):
    server, context = serve(hello_or_json, tls=True), apiproxy.tls_context(certificate)
    server.context.load_verify_locations(certificate)
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.maximum_version = ssl.TLSVersion.TLSv1_2  # later ones: a reset may come first
    context.load_cert_chain(pem_file(LEAF_KEY + LEAF))
    error = failed(new_client(server, ssl_context=context).request, "/x")
    assert "the server wants another client certificate (TLSV1_ALERT_UNKNOWN_CA)" in str(error)


@pytest.mark.parametrize("url, place", [
    ("http://nowhere.test", "nowhere.test:80"), ("https://nowhere.test/base", "nowhere.test:443"),
    ("http://[::1]", "[::1]:80")])
def test_an_error_names_the_port_although_the_address_does_not(new_client, names, url, place):
    names["nowhere.test"] = [at("127.0.0.1:1")]
    names["::1"] = [at("127.0.0.1:1")]
    assert place + ": " in str(failed(new_client(url).request, "/x"))
    assert place + ": " in str(failed(connect, "ws" + url[4:]))


def test_http_1_1_is_agreed_upon_where_a_server_would_rather_have_2(
        serve, new_client, certificate, monkeypatch):
    server = serve(
        lambda request, conn: conn.reply(200, [conn.sock.selected_alpn_protocol()]), tls=True)
    server.context.set_alpn_protocols(["h2", "http/1.1"])
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    forget_default_context()
    try:
        assert new_client(server).request("/x") == ["http/1.1"]
    finally:
        forget_default_context()


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
    trusting.check_hostname = False  # a name that is not this machine's: those go past the proxy
    client = new_client("https://far.test:9", ssl_context=trusting)
    client.set_token("dev", "SECRET")

    assert client.request("/x") == client.request("/x") == {}

    (connect,) = proxy.requests
    assert (connect.method, connect.path) == ("CONNECT", "far.test:9")
    assert connect.headers["host"] == "far.test:9"
    assert "proxy-authorization" in connect.headers and "authorization" not in connect.headers
    assert [request.path for request in inner] == ["/clusters/dev/x"] * 2

    for request in inner:
        assert request.headers["authorization"] == "Bearer SECRET"
        assert "proxy-authorization" not in request.headers

    trusting.check_hostname = True
    error = failed(new_client("https://other.test:9", ssl_context=trusting).request, "/x")

    # the name behind the proxy counts
    assert error.status == 502
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


@both
def test_a_proxy_gets_its_own_credentials_and_only_those(serve, proxies, trusting, tls):
    server, proxy = serve(hello, tls=tls), serve(proxying())
    url = "http://me:pass%%3A@127.0.0.1:%d" % proxy.port
    ws = connect(server.ws, headers={"Authorization": "Bearer secret"}, ssl_context=trusting,
        proxy=url)

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


@pytest.mark.parametrize("no_proxy, url, direct", [
    ("example.com", "http://a.example.com", True),
    (".example.com", "http://example.com", False),
    ("*.example.com", "http://a.example.com", True),
    ("EXAMPLE.com:80", "http://example.com", True),
    ("example.com:80", "https://example.com", False),
    ("example.com.", "http://example.com", False),  # as it is written, by either
    ("a b, *", "http://c", True),
    ("x", "http://localhost.", True),
    ("x", "http://[::ffff:127.0.0.1]", True),
    (".0.0.1", "http://10.0.0.1", False),
    ("*.0.0.1", "http://10.0.0.1", False),
    ("10.0.0.0/8", "http://[::ffff:10.1.2.3]", True),
    ("10.0.0.0/255.0.0.0", "http://10.1.2.3", False),
    ("::ffff:10.0.0.1", "http://10.0.0.1", True),
    ("[::2]:80", "http://[::2]", True),
    ("[::2]:81", "http://[::2]", False),
    ("::2", "http://[::2]", True),
    ("[::2]", "http://[::2]", False),  # with brackets there has to be a port
    (":80, [example.com]", "http://example.com", False),
    ("b\xfccher.example", "http://a.xn--bcher-kva.example", True),
    (".B\xdcCHER.example:80", "http://a.xn--bcher-kva.example", True),
    ("b\xfccher.example", "http://xn--bcher-kva.example.org", False),
    ("\xfc" * 64 + ",a.example", "http://a.example", True),
])
def test_no_proxy_is_read_as_go_reads_it(proxies, no_proxy, url, direct):
    proxies(HTTP_PROXY="proxy", HTTPS_PROXY="proxy", NO_PROXY=no_proxy)

    proxy = apiproxy.find_proxy(apiproxy.Address(url, ("http", "https")))

    assert (proxy is None) == direct


@pytest.mark.parametrize("url, place, pair", [
    ("http://user:SECRET@[::1]:3128", "[::1]:3128", b"user:SECRET"),
    ("http://us%65r@proxy.test", "proxy.test:80", b"user:"), ("proxy.test", "proxy.test:80", None)])
def test_a_proxy_is_shown_without_its_password(url, place, pair):
    proxy = apiproxy.Proxy(url)
    assert apiproxy.join_port(proxy.host, proxy.port) == place and "SECRET" not in repr(proxy)
    assert proxy.headers == ({"Proxy-Authorization": "Basic " + b64(pair)} if pair else {})


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "no_proxy"])
def test_of_two_names_of_a_proxy_variable_the_lower_case_counts(proxies, name):
    proxies(**{"http_proxy": "lower", "https_proxy": "lower", name.upper(): "a.example", name: "b"})

    scheme = "https" if name == "https_proxy" else "http"
    proxy = apiproxy.find_proxy(apiproxy.Address(scheme + "://a.example", ("http", "https")))

    assert proxy.host == ("lower" if name == "no_proxy" else "b")


@pytest.mark.parametrize("answer", [
    "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP/1.1 502 Bad\r\n\r\n",
    "HTTP/1.1 302 X\r\nLocation: http://e\r\n\r\n",
    "rubbish\r\n\r\n", "HTTP/1.1 200 OK\r\n", "", "X" * 70000], ids=short)
def test_a_proxy_that_refuses_is_named(serve, new_client, proxies, answer):
    proxy = serve(lambda request, conn: conn.send(answer) or False)
    proxies(https_proxy="http://user:SECRET@127.0.0.1:%d" % proxy.port)
    error = failed(new_client("https://far.test:9").request, "/x")
    assert error.status == 502 and "SECRET" not in str(error)
    assert "proxy 127.0.0.1:%d" % proxy.port in str(error)


@pytest.mark.parametrize("answer, status, text", [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", 502,
        "407 Proxy Auth"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 502, "302 Found"),
    (b"SSH-2.0-x\r\n\r\n", 502, "not HTTP"),
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
    client = new_client("http://cluster.invalid")
    trust_the_cache(client)
    assert failed(client.request, "/x").status == status
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("url, no_proxy, direct", [
    ("http://example.org", "", False),
    ("http://example.org", "*", True),
    ("http://example.org", " * ", True),
    ("http://example.org", "example.org", True),
    ("http://EXAMPLE.org", "Example.ORG", True),
    ("http://example.org.", "example.org", False),
    ("http://www.example.org", "example.org", True),
    ("http://notexample.org", "example.org", False),
    ("http://example.org", ".example.org", False),
    ("http://www.example.org", ".example.org", True),
    ("http://example.org", "*.example.org", False),
    ("http://www.example.org", "*.example.org", True),
    ("http://www.example.org", "*.org", True),
    ("http://example.org", "other,, example.org ,x", True),
    ("http://example.org:81", "example.org:81", True),
    ("http://example.org:82", "example.org:81", False),
    ("http://example.org", "example.org:80", True),
    ("https://example.org", "example.org:443", True),
    ("http://10.1.2.3", "10.0.0.0/8", True),
    ("http://11.1.2.3", "10.0.0.0/8", False),
    ("http://10.1.2.3", "10.1.2.3/33,/8,x/8", False),
    ("http://10.1.2.3", "10.1.2.3", True),
    ("http://10.1.2.3:81", "10.1.2.3:82", False),
    ("http://10.1.2.30", "10.1.2.3", False),
    ("http://[fd00::1]", "[fd00::1]", False),
    ("http://[fd00::1]", "fd00::1", True),
    ("http://[fd00::1]:81", "[fd00::1]:81", True),
    ("http://[fd00::1]:81", "[fd00::1]:82", False),
    ("http://[fd00:0::1]", "fd00::/16", True),
    ("http://[::ffff:10.1.2.3]", "10.0.0.0/8", True),
    ("http://localhost", "", True),
    ("http://LOCALHOST.", "", True),
    ("http://127.8.9.1", "", True),
    ("http://[::1]", "", True),
    ("http://[::ffff:127.0.0.1]", "", True),
    ("http://localhost.example.org", "", False),
    ("http://0x7f.1", "", False),
])
def test_no_proxy_says_what_is_reached_directly_as_in_go(proxies, url, no_proxy, direct):
    proxies(HTTP_PROXY="http://proxy.test:3128", HTTPS_PROXY="http://proxy.test:3128",
        NO_PROXY=no_proxy)
    address = apiproxy.Address(url, ("http", "https"))
    assert (apiproxy.find_proxy(address) is None) == direct


@pytest.mark.parametrize("environment, host", [
    ({"HTTP_PROXY": "http://a.test", "http_proxy": "http://b.test"}, "b.test"),
    ({"http_proxy": "http://b.test"}, "b.test"),
    ({"HTTP_PROXY": "", "http_proxy": "http://b.test"}, "b.test"),
    ({"https_proxy": "http://b.test", "ALL_PROXY": "http://c.test"}, None),
    ({"all_proxy": "http://c.test"}, None),
    ({"HTTP_PROXY": "a.test:81"}, "a.test"),
    ({"HTTP_PROXY": "http://a.test", "no_proxy": "example.org"}, None),
    ({"HTTP_PROXY": "http://a.test", "NO_PROXY": "x", "no_proxy": "example.org"}, None),
])
def test_which_variable_names_the_proxy(proxies, environment, host):
    proxies(**environment)
    proxy = apiproxy.find_proxy(apiproxy.Address("http://example.org", ("http", "https")))
    assert (proxy and proxy.host) == host


def test_a_header_of_a_cgi_request_is_no_proxy(proxies, monkeypatch):
    proxies(HTTP_PROXY="http://evil.test")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    address = apiproxy.Address("http://example.org", ("http", "https"))
    assert apiproxy.find_proxy(address) is None


@pytest.mark.parametrize("interim", [
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0 103 Hints\r\nLink: <x>\r\n\r\n" * 20])
def test_interim_answers_before_a_proxys_200_are_passed_over(serve, interim):
    server = serve(hello)
    proxy = serve(proxying(interim + b"HTTP/1.1 200 Connected\r\n\r\n"))
    ws = connect(server.ws, proxy=proxy.url)
    assert ws.recv() == "hello"
    ws.abort()
    assert len(proxy.requests) == len(server.requests) == 1


@pytest.mark.parametrize("url", [
    "socks5://127.0.0.1:1", "https://u:SECRET@h", "http://:80", "http://u:SECRET@h:x",
    "http://h:99999", "http://[::1"])
def test_a_proxy_that_is_none_is_a_502(new_client, proxies, url):
    proxies(http_proxy=url)
    error = failed(new_client("http://127.0.0.1:1").request, "/x")
    assert error.status == 502 and "proxy" in str(error) and "SECRET" not in str(error)


def test_a_part_of_a_scope_is_over_no_later_than_the_whole():
    whole = apiproxy.Scope(50)
    assert max(whole.within().left(), whole.within(90).left()) <= 50 and whole.within(9).left() <= 9
    assert whole.within(90, idle=2).left() == apiproxy.Scope(idle=2).left() == 2
    assert apiproxy.Scope().within().left() == float("inf")
    with pytest.raises(TimeoutError):
        apiproxy.Scope(0).within(90).left()


def test_what_is_held_when_or_after_a_scope_is_cancelled_is_closed():
    scope, closed = apiproxy.Scope(), []
    scope.hold(lambda: closed.append("when"))
    scope.cancel()
    scope.hold(lambda: closed.append("after"))
    scope.hold(None)
    assert closed == ["when", "after"]


def test_a_call_aside_may_be_silent_for_longer_than_an_answer():
    scope = apiproxy.Scope(20, idle=0.001)
    assert apiproxy.aside("x", lambda: time.sleep(0.02), scope) is None


def test_a_connection_does_not_wait_to_send_and_notices_a_dead_host(listener):
    host, _, port = listener().partition(":")
    with apiproxy.connect(host, int(port), apiproxy.Scope()) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_ip_address_takes_no_thread_to_look_up(monkeypatch, host):
    monkeypatch.setattr(apiproxy, "aside", None)
    assert {found[4][:2] for found in apiproxy.look_up(host, 80, apiproxy.Scope())} == {(host, 80)}


def test_a_wire_that_was_closed_says_so_to_whoever_uses_it(listener):
    host, _, port = listener().partition(":")
    wire = apiproxy.Wire(apiproxy.connect(host, int(port), apiproxy.Scope()))
    wire.close()
    for call in (lambda: wire.read(memoryview(bytearray(1))), lambda: wire.write(b"x"),
                 lambda: wire.wait(9)):
        with pytest.raises(ConnectionAbortedError, match="closed here"):
            call()


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
    client = new_client(server)
    trust_the_cache(client)
    error = failed(client.request, "/x", {"method": method})
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
    "2\r\n{}\r\n0\r\n\r\n",
    # RFC 9112 6.1: who wrote this may have meant another end
    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
    "2\r\n{}\r\n0\r\n\r\n"], ids=short)
def test_a_connection_that_the_server_will_close_is_not_kept(serve, new_client, head):
    # and leaves it open
    server = serve(lambda request, conn: conn.send(head if "chunked" in head else head + "{}"))
    client = new_client(server)
    for number in (1, 2, 3):
        assert client.request("/x") == {} and server.count == number
        eventually(lambda: not server.open)


@pytest.mark.parametrize("answer", [
    JSON + "Content-Length: 2\r\n\r\n{}", CHUNKED + "2\r\n{}\r\n0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n"], ids=short)
def test_a_connection_is_kept_after_every_kind_of_whole_answer(serve, new_client, answer):
    server = serve(lambda request, conn: conn.send(answer))
    client = new_client(server)
    for _ in range(3):
        client.request("/x")
    assert server.count == 1


def test_a_kept_connection_is_not_kept_after_an_answer_that_breaks(serve, new_client):
    broken = CHUNKED + "no size\r\n"
    server = serve(lambda request, conn: conn.send(broken) if request.path.endswith("broken")
                   else conn.reply(200, {}))
    client = new_client(server)
    client.request("/x")
    assert failed(client.request, "/broken").status == 502
    client.request("/x")
    assert server.count == 2


def test_connections_that_got_too_old_are_closed_by_calls_to_other_servers(
        serve, new_client, monkeypatch):
    first, second = (serve(lambda request, conn: conn.reply(200, {})) for _ in range(2))
    client = new_client(first)
    client.add_endpoint("other", apiproxy.Endpoint(second.url))
    client.request("/x")
    client.request("/x", {"cluster": "other"})
    assert first.open

    set_time(monkeypatch, lambda: time.monotonic() + default("keep_alive") + 1)
    client.request("/x", {"cluster": "other"})
    eventually(lambda: not first.open)
    client.request("/x", {"cluster": "other"})
    assert second.open and second.count == 2


def test_a_connection_with_a_broken_answer_is_closed(serve, new_client):
    server = serve(sends(CHUNKED + "no size\r\n"))
    error = failed(new_client(server).request, "/x")
    assert error.status == 502  # held meanwhile, and so are the frames that it came from
    eventually(lambda: not server.open)


@pytest.mark.parametrize("method, status", [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_that_has_no_body_is_whole_whatever_its_length_says(
        serve, new_client, method, status):
    answer = "HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\n" % status
    server = serve(lambda request, conn: conn.send(answer))
    client = new_client(server)
    for _ in range(2):
        call = functools.partial(client.request, "/x", {"method": method})
        assert failed(call).status == 304 if status == 304 else call() is None
    assert server.count == 1


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
    scope, closes, closed = apiproxy.Scope(), [], threading.Event()
    cancel = scope._cancel
    hold = cancel.hold

    # set() has read what is held, but not closed it yet, when the answer is complete
    def cancel_late(close):
        if close is None:
            cancel.is_set = True
            closes.append(cancel._close)
        hold(close)

    def close_first(*args):
        closed.set() if closes[0]() is None else None
        return read_body(*args)

    def second(request, conn):
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        closed.wait(10)
        conn.send(b"{}")

    client, cancel.hold = new_client(Api(serve, [pods(), second]).server), cancel_late
    client._transport.send("GET", "/api/v1/pods", "dev", scope=scope)
    read_body = client._transport.handler._body
    monkeypatch.setattr(client._transport.handler, "_body", close_first)

    assert client._transport.send("GET", "/api/v1/pods", "dev").json() == {}


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


def test_a_call_that_says_no_timeout_has_the_clients(serve, new_client):
    server = serve(lambda request, conn: server.stopped.wait(1) or conn.reply(200, {}))
    assert failed(new_client(server, request_timeout=0.05).request, "/x").status == 408


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
    CHUNKED + "2\r\n{}0\r\n\r\n", CHUNKED + "+2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + "2\r\n{}\r\n0\r\n" + "X: y\r\n" * 200, "HTTP/1.1 100 Continue\r\n\r\n" * 99],
    ids=short)
def test_a_broken_answer_is_a_502_and_not_data(serve, new_client, answer):
    server = serve(lambda request, conn: conn.send(answer) or False)
    error = failed(new_client(server).request, "/x")
    assert error.status == 502 and len(str(error)) < 1100


@pytest.mark.parametrize("answer, said", [
    (b"SSH-2.0-x\r\n", "not HTTP/1.1"), (b"\0" * 9, "not HTTP/1.1"),
    (b"\x15\x03\x01\0\2\2\x46", "that is TLS: is the address https://")], ids=short)
def test_what_is_no_http_is_seen_at_its_beginning(serve, new_client, answer, said):
    server = serve(sends(answer))  # its end does not come
    url = server.url.replace("http", "ws")

    for error in (failed(new_client(server).request, "/x"), failed(connect, url)):
        assert said in str(error)


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


@pytest.mark.parametrize("size", [1, apiproxy.LARGE])
def test_a_byte_order_mark_before_json_is_passed_over(serve, new_client, size):
    body = b"\xef\xbb\xbf" + b'"%s"' % (b"x" * size)
    client = new_client(serve(lambda request, conn: conn.reply(200, body)))
    assert client.request("/x") == "x" * size


@pytest.mark.parametrize("body, said", [
    (b"<!doctype html><title>\nHead\nlamp </title><p>Hi",
     ": a web page came, 'Head\\nlamp': of a "),
    (b"\n <html>", ": a web page came, '<html>': "),
    (b"hello", "text/plain instead of JSON: 'hello'"),
    (b"{" * 100000, "instead of JSON"), (b'{"a": ', "instead of JSON"),
    (b"\xff\xfe", "instead of JSON"), (b"{} {}", "instead of JSON")], ids=short)
def test_what_is_not_json_is_an_error_that_says_so(serve, new_client, body, said):
    client = new_client(serve(lambda request, conn: conn.reply(200, body, reason="OK")))
    error = failed(client.request, "/x")
    assert error.status == 200
    assert said in str(error)
    assert str(error).startswith("Unexpected answer - ")
    assert str(error).endswith(" (GET /clusters/dev/x)") and "\n" not in str(error)
    assert len(str(error)) < 300
    assert error.body == body

    response = client.request("/x", {"isJSON": False})
    assert (response.ok, response.body, repr(response)) == (True, body,
        "<Response 200 OK, %d bytes>" % len(body))


@pytest.mark.parametrize("text, most", [
    ('{@,"kind":"PodList","metadata":{"x":1},"items":[I,J,I]}\n', 3),
    ('{"apiVersion":"v1","items":[K,K],"kind":"PodList","metadata":{"x":1}}', 2),
    ('\ufeff{@,"kind":"PodList","items":[I,I],"more":[J,J,J]}', 2),
    ('{@,"kind":"PodList","items":[{"metadata":1,"of":[I,J,J,J]},%sI]}' % ("I," * 9), 3),
    ('{@,"items":[I,J],"kind":"PodList"}', 1), ('{"kind":"PodList","items":[I,J],@}', 1),
    ('{@,"kind":"PodList","metadata":{"items":[I,J],"x":1},"items":[I,J,J]}', 1),
    ('{@,"kind":"PodList", "items": [I,J]}', 1),
    ('{@,"kind":"PodList","rows":[{"items":[I,J]},{"items":[I,J]}],"items":[]}', 1),
    ('{@,"kind":"PodList","items":[]}', 1), ('{@,"kind":"PodList","items":[{"a":1},{"b":2}]}', 2)])
def test_a_list_is_cut_between_its_items_and_nowhere_else(text, most):
    text = text.replace("@", '"apiVersion":"v1"')
    text = text.replace("K", '{"kind":"Pod","metadata":{"name":"k"}}')
    text = text.replace("I", '{"metadata":{"name":"i"},"a":["},{","items"]}')
    text = text.replace("J", '{"metadata":{"name":"j"}}')
    body, whole = text.encode(), json.loads(text.lstrip("\ufeff"))
    for size in range(1, len(body)):
        for step in (len(body), 90):  # as it came
            blocks = [body[at:at + step] for at in range(0, len(body), step)]
            pages = list(apiproxy.Response(200, "", {}, blocks).pages(size))
            assert len(pages) >= most or size > 1
            assert [item for page in pages for item in page["items"]] == whole["items"]
            assert {**pages[-1], "items": whole["items"]} == whole


@pytest.mark.parametrize("body", [
    b"", b"x", b'{"kind":"x","items":[', b'{"kind":"x","items":[{}}',
    b'{"kind":"x","items":[{"metadata":1},{"metadata":2}',
    b'[{"kind":"x","items":[{"metadata":1}]'])
def test_what_is_no_list_has_no_pages(body):
    for size in range(1, len(body) + 2):
        with pytest.raises(apiproxy.ApiError):
            list(apiproxy.Response(200, "", {}, body).pages(size))


@pytest.mark.parametrize("status, is_ok", [(199, False), (200, True), (299, True), (300, False)])
def test_an_answer_is_ok_from_200_to_299(status, is_ok):
    assert apiproxy.Response(status, "", {}, b"").ok == is_ok


@pytest.mark.parametrize("was_on", [True, False])
@pytest.mark.parametrize("data, rests", [
    (b"[%s]" % (b"1," * 60000 + b"1"), True), ("[%s" % ("1," * 60000), True), (b"[1]", False)],
    ids=short)
def test_the_cyclic_collector_rests_while_something_large_is_parsed(
        monkeypatch, data, rests, was_on):
    seen, inside, free = [], threading.Event(), threading.Event()

    def slow(real, data):
        seen.append(gc.isenabled())
        if threading.current_thread() is other:
            inside.set()
            free.wait(10)
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
        assert inside.wait(10)
        parse()
        assert gc.isenabled() == (was_on and not rests)  # the other is still at it
        free.set()
        other.join()
        assert gc.isenabled() == was_on and seen == [was_on and not rests] * 2
    finally:
        free.set()
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


@pytest.mark.parametrize("members", [2, 3, 200])
def test_gzip_may_come_in_several_members(serve, new_client, members):
    text = json.dumps({"a": "x" * 5000}).encode()
    size = len(text) // members + 1
    pieces = [gzip.compress(text[start:start + size]) for start in range(0, len(text), size)]
    answers = [b"".join(pieces), gzip.compress(b"") + gzip.compress(text)]
    server = serve(lambda request, conn: conn.send(zipped(answers[len(server.requests) % 2])))
    client = new_client(server)
    assert client.request("/x") == client.request("/x") == {"a": "x" * 5000}


@pytest.mark.parametrize(
    "last", [gzip.compress(b"x")[:-4], b"rubbish", b"\x1f\x8b"], ids=["cut", "none", "begun"])
def test_gzip_whose_last_member_is_not_whole_is_an_error(serve, new_client, last):
    server = serve(lambda request, conn: conn.send(zipped(gzip.compress(b"{}") + last)))
    assert failed(new_client(server).request, "/x").status == 502


@pytest.mark.parametrize("more", [-259, -258, -257, -1, 0, 1])
@pytest.mark.parametrize("step", [1, 7, 10 ** 9])
def test_gzip_is_unpacked_a_chunk_at_a_time(more, step):
    body = bytes(3 * apiproxy.CHUNK + more)
    packed = gzip.compress(body) * 2
    pieces = [packed[at:at + step] for at in range(0, len(packed), step)]
    got = list(apiproxy.unzipped(iter(pieces)))
    assert b"".join(got) == body * 2 and max(map(len, got)) <= apiproxy.CHUNK


def test_the_limit_is_for_all_members_together(serve, new_client):
    body = gzip.compress(bytes(600)) * 2
    server = serve(lambda request, conn: conn.send(zipped(body)))
    error = failed(new_client(server, max_body=1000).request, "/x")
    assert "larger than max_body, 1000 bytes" in str(error)


@pytest.mark.parametrize("fold", ["\r\n ", "\r\n\t", "  \r\n \t ", "\r\n \r\n "])
def test_a_folded_header_is_one_line(serve, new_client, fold):
    answer = "HTTP/1.1 200 OK\r\nX-Long: a%sb\r\nContent-Length: 2\r\n\r\n{}" % fold
    server = serve(lambda request, conn: conn.send(answer))
    response = new_client(server).request("/x", {"isJSON": False})
    assert re.sub(" +", " ", response.headers["x-long"]) == "a b" and response.json() == {}


def test_a_fold_before_the_first_header_is_refused(serve, new_client):
    server = serve(lambda request, conn: conn.send(
        "HTTP/1.1 200 OK\r\n folded: x\r\nContent-Length: 2\r\n\r\n{}") or False)
    assert failed(new_client(server).request, "/x").status == 502


@pytest.mark.parametrize("count, status", [(1, 200), (500, 200), (5000, 502)])
def test_interim_answers_may_be_many_within_the_limit_of_a_head(serve, new_client, count, status):
    interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    server = serve(lambda request, conn: conn.send(interim * count) or conn.reply(200, {}))
    try:
        assert new_client(server).request("/x") == {} and status == 200
    except apiproxy.ApiError as error:
        assert error.status == status and "interim" in str(error)


@pytest.mark.parametrize("status", [600, 699, 799, 999])
def test_a_status_beyond_http_is_an_error_with_that_status(serve, new_client, status):
    server = serve(lambda request, conn: conn.reply(status, "odd"))
    client = new_client(server)
    assert failed(client.request, "/x").status == status
    assert failed(connect, server.ws).status == status
    assert failed(client.post, "/x", {}).status == status


@pytest.mark.parametrize("head, body", [
    ("Content-Length: 1001", b"x" * 1001), ("Content-Length: 99999999999999999999", b""),
    ("X: y", b"x" * 1001),
    ("Transfer-Encoding: chunked", b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"),
    ("Content-Encoding: gzip", gzip.compress(b"x" * (64 << 20)))], ids=short)
def test_a_body_over_the_limit_is_an_error(serve, new_client, head, body):
    answer = ("HTTP/1.1 200 OK\r\n%s\r\n\r\n" % head).encode() + body
    server = serve(lambda request, conn: conn.send(answer) or False)
    tracemalloc = pytest.importorskip("tracemalloc")  # not on PyPy
    tracemalloc.start()
    error = failed(new_client(server, max_body=1000 if b"\x1f" != body[:1] else 70000).request,
        "/x", {"isJSON": False})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert error.status == 200 and "larger than max_body" in str(error) and peak < 4 * apiproxy.MiB


@pytest.mark.parametrize("head, body", [
    ("Content-Length: 1000", b"x" * 1000), ("Connection: close", b"x" * 1000),
    ("Transfer-Encoding: chunked", b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n")], ids=short)
def test_a_body_of_exactly_the_limit_is_none_over_it(serve, new_client, head, body):
    answer = ("HTTP/1.1 200 OK\r\n%s\r\n\r\n" % head).encode() + body
    server = serve(lambda request, conn: conn.send(answer) or "close" not in head)
    client = new_client(server, max_body=1000)
    assert client.request("/x", {"isJSON": False}).body == b"x" * 1000


def test_many_small_chunks_cost_no_more_than_their_bytes(serve, new_client):
    count = 30000
    wire = CHUNKED.encode() + b"2\r\n{}\r\n" * count + b"0\r\n\r\n"
    client = new_client(serve(lambda request, conn: conn.send(wire)))
    tracemalloc = pytest.importorskip("tracemalloc")  # not on PyPy
    tracemalloc.start()

    try:
        assert len(client.request("/x", {"isJSON": False}).body) == 2 * count
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_large_body_is_in_memory_once(serve, new_client, compressed, is_json):
    items = [{"metadata": {"name": "thing-%d" % number}, "data": os.urandom(100).hex()}
             for number in range(20000)]
    whole = {"kind": "PodList", "apiVersion": "v1", "items": items}
    body = json.dumps(whole, separators=(",", ":")).encode()
    plain = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    answer = zipped(gzip.compress(body, 1)) if compressed else plain
    client = new_client(serve(lambda request, conn: conn.send(answer)))
    client.request("/x?first")
    tracemalloc = pytest.importorskip("tracemalloc")  # not on PyPy
    tracemalloc.start()

    try:
        got = client.request("/x", {"isJSON": is_json})
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    if is_json:
        assert got == whole and peak - now < 0.5 * len(body)
    else:
        assert got.body == body and peak < 1.3 * len(body)
        assert got.json()["items"] == items and got.body == body


def test_of_an_error_that_unpacks_without_end_the_first_mib_is_kept(serve, new_client):
    bomb = gzip.compress(bytes(64 << 20), 1)
    server = serve(lambda request, conn: conn.send(zipped(bomb).replace(b"200 OK", b"500 Oops")))
    tracemalloc = pytest.importorskip("tracemalloc")  # not on PyPy
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
        "Oops - " + "x" * 1000 + " (GET /clusters/dev/x)")


@pytest.mark.parametrize("answer", [
    "Content-Length: 9\r\n\r\nno", "Transfer-Encoding: chunked\r\n\r\n2\r\nno",
    "Content-Encoding: gzip\r\n\r\nno"])
def test_an_error_whose_body_is_broken_keeps_its_status(serve, new_client, answer):
    server = serve(lambda request, conn: conn.send("HTTP/1.1 400 Bad\r\n" + answer) or False)
    assert failed(new_client(server).request, "/x").status == 400


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


def swallow_to_pong(conn):
    """Read until what came last is the answer to a ping with "p"."""
    wire = some(conn)
    while wire[-7:-5] != b"\x8a\x81" or wire[-1] ^ wire[-5] != ord("p"):
        wire = wire[-6:] + some(conn)


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


def test_the_handshake_works_where_sha1_is_not_for_security(serve, monkeypatch):
    """As on machines in FIPS mode."""
    new = hashlib.new

    def fips(name, data=b"", usedforsecurity=True):
        if usedforsecurity:
            raise ValueError("[digital envelope routines] unsupported")
        return new(name, data)

    server = serve(hello)
    monkeypatch.setattr(hashlib, "new", fips)
    monkeypatch.setattr(hashlib, "sha1", functools.partial(fips, "sha1"))
    monkeypatch.setattr("wire.accept_key", lambda key: base64.b64encode(
        new("sha1", key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode())
    ws = connect(server.ws)
    assert ws.recv() == "hello"
    ws.abort()


PLAIN = "Content-Type: text/plain\r\n"


@pytest.mark.parametrize("status, body, words", [
    ("200 OK", "<!doctype html><title>Headlamp</title>",
     ["a web page came", "'Headlamp'", "not enabled"]),
    ("200 OK", '{"kind": "PodList", "items": []}', ["HTTP 200", "PodList"]),
    ("204 No Content", "", ["HTTP 204"]),
    ("200 OK", "x" * 500, ["HTTP 200", "x" * 190]),
    ("426 Upgrade Required", "", ["Upgrade Required"]),
    ("426 Upgrade Required", "this needs an upgrade", ["Upgrade Required", "this needs an"]),
    ("400 Bad Request", "no upgrade here", ["Bad Request", "no upgrade here"]),
    ("404 Not Found", "<html>lost</html>", ["Not Found", "a web page came", "lost"]),
    ("404 Not Found", '{"message": "no such pod"}', ["no such pod"]),
])
def test_another_answer_than_101_is_told_with_what_came(serve, status, body, words):
    head = "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    server = serve(lambda request, conn: conn.send(head + body))
    error = failed(connect, server.ws)
    assert isinstance(error, apiproxy.HandshakeError) and error.status == int(status[:3])
    assert [word for word in words if word not in str(error)] == []
    assert "x" * 201 not in str(error)
    eventually(lambda: not server.open)


@pytest.mark.parametrize("body", ["", "<html>", "{"])
def test_an_answer_that_never_ends_is_told_within_the_time_limit(serve, body):
    head = "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
    server = serve(sends(head + body))
    begun = time.monotonic()
    error = failed(lambda: connect(server.ws, timeout=0.3))
    assert time.monotonic() - begun < 2
    assert error.status == 200 and "Unexpected answer" in str(error) and body in str(error)


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
    (ACCEPT, ACCEPT + "no colon\r\n"),  # H12
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
    if status == 302:
        assert "a redirect to '/else', which is not followed" in str(error)
    else:
        assert str(error) == "Why - why? (GET /x)"
    assert "secret" not in repr(error)
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
    (b"HTTP/1.1 101 X\r\nX: ", b"y" * 6000, 502), (b"", b"H" * 6000, 0),  # H16
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
    answer = itertools.chain("HTTP/1.1 101 X\r\nX: ", itertools.repeat("x"))

    def script(request, conn):
        for _ in range(500):
            conn.send(next(answer))
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

    ws.ping(b"x" * 125)
    eventually(lambda: seen == [(PING, b"x" * 125)])


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
    done, last = [], b"%100d" % 9999

    def script(conn):
        for start in range(0, 10000, 1000):
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
    ws._wire._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # else there was room
    tracemalloc = pytest.importorskip("tracemalloc")  # not on PyPy
    tracemalloc.start()
    try:
        # the server's own batches are counted too: 0.2 MB
        assert ws.recv(timeout=60) == "after"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
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
        swallow_to_pong(conn)
        conn.send(frame(TEXT, "answered"))
        conn.wait_end()

    ws = dial(script, tls)
    fill_connection(ws, tls)  # so that the pong is the first that waits
    with pytest.raises(TimeoutError):
        ws.recv(timeout=0.1)

    go.set()
    assert ws.recv(timeout=10) == "answered"


def test_a_pong_that_a_sender_was_in_the_way_of_leaves_after_its_message(dial):
    stuck, go, answered = threading.Event(), threading.Event(), threading.Event()

    def script(conn):
        stuck.wait(10)
        conn.send(frame(PING, "p") + frame(TEXT, "x"))
        go.wait(10)
        swallow_to_pong(conn)
        answered.set()

    ws = dial(script)
    sender = background(ws.send, bytes(20 << 20))
    eventually(lambda: is_blocked(ws))
    stuck.set()
    assert ws.recv(timeout=10) == "x"  # nobody reads any more
    go.set()
    sender.result()
    assert answered.wait(10)


@pytest.mark.parametrize("timeout", [0.05, 0, -1])
def test_recv_waits_no_longer_than_it_is_told_while_another_thread_reads(dial, timeout):
    ws = dial(idle)
    reader = background(ws.recv)
    eventually(lambda: is_blocked(ws))
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="another thread is reading"):
        ws.recv(timeout)
    assert time.monotonic() - begun < 1
    ws.abort()
    assert isinstance(reader.result(), ConnectionClosed)


def test_close_waits_for_a_sender_in_the_midst_of_a_message(dial):
    go, last = threading.Event(), []

    def script(conn):
        go.wait(10)
        wire = b""
        with contextlib.suppress(EOFError):
            while True:
                wire = wire[-7:] + some(conn)
        last.append(wire[-8:-6])

    ws = dial(script, close_timeout=10)
    sender = background(ws.send, bytes(20 << 20))
    eventually(lambda: is_blocked(ws))
    closing = background(ws.close)
    closing.join(0.1)
    go.set()
    assert (sender.result(), closing.result()) == (None, None)
    eventually(lambda: last == [b"\x88\x82"])  # a close frame with a code


@row("F23")
@both
def test_recv_goes_on_beside_a_send_that_is_stuck(dial, tls):
    stuck, go = threading.Event(), threading.Event()

    def script(conn):
        stuck.wait(10)
        for number in range(20):
            conn.send(frame(PING, "p") + frame(TEXT, str(number)))
        go.wait(20)
        swallow(conn)

    ws = dial(script, tls)
    sender = background(ws.send, bytes(20 << 20))
    eventually(lambda: is_blocked(ws))

    stuck.set()
    # who waited for the sender, with each of the pings, would not be done by then
    reader = background(lambda: [ws.recv(timeout=5) for _ in range(20)])
    assert reader.result() == [str(number) for number in range(20)]
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


def test_abort_ends_recv_although_more_has_come(dial):
    ws = dial(lambda conn: (conn.send(frame(TEXT, "text") * 9), conn.wait_end()))
    assert ws.recv() == "text"
    ws.abort()
    assert outcome(ws.recv) == (1006, "aborted here")


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


def test_silence_begins_anew_with_each_message(dial):
    got = []

    def script(conn):
        conn.read_frame()
        conn.send(frame(TEXT, "x"))
        got.append(conn.read_frame())

    ws = dial(script, ping_interval=0.9)
    ws.send("begin")
    assert ws.recv() == "x"
    with pytest.raises(TimeoutError):
        ws.recv(0.05)
    ws.send("y")
    eventually(lambda: got)
    assert got == [(TEXT, b"y")]  # and no ping before it


def test_a_large_buffer_is_not_kept_in_silence(dial):
    def script(conn):
        conn.send(frame(BINARY, bytes(10**5)))
        conn.read_frame()  # a ping
        conn.send(frame(TEXT, "x"))
        conn.wait_end()

    ws = dial(script, ping_interval=0.02)
    assert len(ws.recv()) == 10**5
    spaces, read = [], ws._wire.read
    read_instead(ws, lambda space: spaces.append(len(space)) or read(space))
    assert ws.recv() == "x"
    assert spaces[-1] == apiproxy.SMALL_BUFFER


def test_a_peer_that_answers_no_ping_is_hung_up_on(dial):
    ws = dial(idle, ping_interval=0.02, ping_timeout=0.02)
    assert outcome(ws.recv) == (1006, "the peer did not answer a ping")
    assert socket_of(ws).fileno() == -1


def test_a_send_beside_a_close_is_told_so(dial):
    come, go = threading.Event(), threading.Event()
    ws = dial(lambda conn: conn.read_frame() and come.set() or go.wait(10), close_timeout=10)
    ending = background(ws.close)
    assert come.wait(10)
    assert outcome(ws.send, "x") == (1000, "closed here")
    go.set()
    ending.result()


def test_a_ping_after_our_close_frame_is_not_answered(dial):
    go, seen = threading.Event(), []

    def script(conn):
        seen.append(conn.read_frame()[0])
        with contextlib.suppress(EOFError):
            seen.append(some(conn))  # the end: from now on a pong could not be sent
        conn.send(frame(PING, "p") + frame(TEXT, "x"))
        go.wait(10)

    ws = dial(script, close_timeout=10)
    reader = background(ws.recv)
    eventually(lambda: is_blocked(ws))
    ending = background(ws.close)
    assert reader.result() == "x"
    assert outcome(ws.send, "y") == (1000, "closed here")  # nothing went wrong meanwhile
    go.set()
    ending.result()
    assert seen == [CLOSE]


@both
def test_close_reads_to_the_end_so_that_the_peer_can_answer(dial, tls):
    go, got = threading.Event(), []

    def script(conn):
        conn.send(frame(TEXT, "x" * 1000) * 100)  # which nobody reads
        go.wait(10)
        got.extend([conn.read_frame(), conn.send(closing(1000))])  # no reset has come

    ws = dial(script, tls, close_timeout=10)
    ending = background(ws.close)
    ending.join(0.1)
    go.set()
    ending.result()
    eventually(lambda: got == [(CLOSE, b"\x03\xe8"), None])


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


@pytest.mark.parametrize("timeout", [
    0.004, pytest.param(None, marks=pytest.mark.slow)])
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

# An intermediate authority alone, and a server it vouches for: 127.0.0.1 and localhost.
MIDDLE = """\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUHal9Wz8m7I2qkEeVgf+Qr8if76cwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEcm9vdDAgFw0yNjExMjYwNTM2MTVaGA8yMTI2MTEwMjA1MzYx
NVowETEPMA0GA1UEAwwGbWlkZGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
V76Js/2pXV8zyB+e3Pzn9hmtFc6kboQoCcAJzLuuObJ+kOQVJt7HAO9LY3dbRAun
r4b2UUkxaWHyCDMPy/Z5+6NjMGEwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8E
BAMCAgQwHQYDVR0OBBYEFEE5PB2idhKcRHykA2z+POs074TGMB8GA1UdIwQYMBaA
FEndt3p31ALOnC4WEIaNr+LjY0QeMAoGCCqGSM49BAMCA0gAMEUCIQDmN3RrYbGT
/IyGwEsAg5IvfA1wHARHmTypiZkRV5qtxAIgLuUQRHioUx/OD/5ibmDEQZAo8r0P
lxyazIKsP6Db3YY=
-----END CERTIFICATE-----
"""

LEAF_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3rxqzuoEyD7BUVWm
o6YX4lCox4Ge/zeGRfcAzK3D5PShRANCAATCuraU6vhuEZztbdZOz7qYfml8EX3L
6JfXTMXXuEQeZfY81Qa3B/dtsvhC/8qMdyscKLdnU6H8N9xKd1hMYDMs
-----END PRIVATE KEY-----
"""

LOCKED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHrMFYGCSqGSIb3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAhfNjKFCteEMgIBATAM
BggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQ4KygksrCzqM4PqV0M3g6GgSBkK48
bgw/qrAqF00Rf+mATWW9zomvTQazFLjVz5vfC/DsUYYO46/hfvqzhlu2nesXy3tw
OqbtLdF6RUKlrNIEv66+ZwcniexjeJfqSnNOyRIJyQD37HXWOe1CniL6IxZX0wrm
77afLsQpAHIarreAFzfhSD4F2B6yKy9s1xQRPwNxLjovdyLwHxNM1Or0444ysw==
-----END ENCRYPTED PRIVATE KEY-----
"""

LEAF = """\
-----BEGIN CERTIFICATE-----
MIIBgjCCASigAwIBAgIUWK1CMpk+cWLEEL3pWAsuUlJYQBwwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbWlkZGxlMCAXDTI2MTEyNjA1MzYxNVoYDzIxMjYxMTAyMDUz
NjE1WjAPMQ0wCwYDVQQDDARsZWFmMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
wrq2lOr4bhGc7W3WTs+6mH5pfBF9y+iX10zF17hEHmX2PNUGtwf3bbL4Qv/KjHcr
HCi3Z1Oh/DfcSndYTGAzLKNeMFwwGgYDVR0RBBMwEYcEfwAAAYIJbG9jYWxob3N0
MB0GA1UdDgQWBBQFKvUqUcAm1QYgMdD80elRLwwRRDAfBgNVHSMEGDAWgBRBOTwd
onYSnER8pANs/jzrNO+ExjAKBggqhkjOPQQDAgNIADBFAiEArVs0beBgGW0bElmc
Ay0Q75D/m2PCxGSfgnwFSCiGC8UCIEZZ5IYTUb+RPtMr0LdkJXVddZNYwXYnvZ6L
1MlxQLDH
-----END CERTIFICATE-----
"""


def write(path, value, mode=0o600):
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")

    path.chmod(mode)
    return str(path)


def config(server="https://127.0.0.1:1", user=None, name="here", cluster=None, **context):
    """A kubeconfig of one context, as a dict."""
    context = {"cluster": name, "user": name, **context}

    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": context}],
    }


def endpoint(values, source="config"):
    """The Endpoint of the current context of a kubeconfig, a dict or its text."""
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    kubeconfig = apiproxy.Kubeconfig()
    kubeconfig.add(text, str(source))
    endpoints = kubeconfig.endpoints(kubeconfig.current)
    return endpoints[kubeconfig.current] if kubeconfig.current else None


def echo_headers(request, conn):
    conn.reply(200, {"path": request.path, "authorization": request.headers.get("authorization")})


def pem():
    """The tests' key and its certificate."""
    cut = CERTIFICATE.index("-----BEGIN CERT")
    return CERTIFICATE[:cut], CERTIFICATE[cut:]


def b64(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def mutual(serve, certificate):
    """A server that takes client certificates, and says whose it got."""
    def script(request, conn):
        shown = conn.sock.getpeercert() or {}
        subject = dict(pair[0] for pair in shown.get("subject", ()))
        conn.reply(200, {
            "subject": subject.get("commonName"),
            "authorization": request.headers.get("authorization"),
        })

    server = serve(script, tls=True)
    server.context.load_verify_locations(certificate)
    server.context.load_verify_locations(cadata=MIDDLE)
    server.context.verify_flags |= 0x80000
    server.context.verify_mode = ssl.CERT_OPTIONAL
    return server


# -- what an endpoint is -----------------------------------------------------------


@pytest.mark.parametrize("server", [
    "", "h", "h:1", "ftp://h", "https://", "https://u:SECRET@h", "https://h?a=1", "https://h#a",
    "https://h?", "https://h/..", "https://h:99999", "https://h /", "https://ü", "https://h\n",
])
def test_an_endpoints_address_is_http_a_host_and_a_path(server):
    with pytest.raises(ValueError, match="^server: ") as caught:
        apiproxy.Endpoint(server)

    assert "SECRET" not in str(caught.value)


def test_an_endpoints_headers_and_proxy_are_checked_at_once():
    for options in (
        {"impersonate": [("Impersonate-User", "a\r\nX: y")]}, {"impersonate": [("a b", "c")]},
        {"proxy": "socks5://p"},
    ):
        with pytest.raises(ValueError):
            apiproxy.Endpoint("https://h", **options)


def test_an_endpoint_says_of_itself_only_its_address():
    endpoint = apiproxy.Endpoint(
        "HTTPS://h/Path", token="SECRET", basic="u:SECRET", proxy="http://u:SECRET@p",
        impersonate=[("Impersonate-User", "SECRET")])

    assert repr(endpoint) == "<Endpoint https://h/Path>"


def test_an_endpoints_tls_settings_may_be_a_function_that_gives_them(trusting):
    assert apiproxy.Endpoint("https://h").context() is None
    assert apiproxy.Endpoint("https://h", ssl_context=trusting).context() is trusting
    assert apiproxy.Endpoint("https://h", ssl_context=lambda: trusting).context() is trusting


# -- whom we trust -----------------------------------------------------------------


def trusts(cluster, server):
    """What a request to `server` gives, or the error, with the TLS settings of a kubeconfig."""
    try:
        direct = endpoint(config(server.url, {"token": "SECRET"}, cluster=cluster))
    except ValueError as error:
        return str(error)

    with apiproxy.Client("") as client:
        client.add_endpoint("here", direct)
        try:
            return client.request("/version", {"cluster": "here"})["authorization"]
        except apiproxy.ApiError as error:
            return str(error)


def test_tls_names_and_authorities_are_checked_unless_told_not_to(serve, caplog):
    server = serve(echo_headers, tls=True)
    authority = {"certificate-authority-data": b64(pem()[1])}
    elsewhere = {**authority, "tls-server-name": "elsewhere.example"}

    assert trusts(authority, server) == "Bearer SECRET"
    assert trusts({**authority, "tls-server-name": "localhost"}, server) == "Bearer SECRET"
    assert "certificate" in trusts({}, server)
    assert "certificate" in trusts(elsewhere, server)
    assert "certificate" in trusts({"certificate-authority-data": b64(MIDDLE)}, server)
    assert not [record for record in caplog.records if "not checked" in record.message]

    assert trusts({"insecure-skip-tls-verify": True}, server) == "Bearer SECRET"
    warnings = [record for record in caplog.records if "not checked" in record.message]
    assert [record.levelname for record in warnings] == ["WARNING"]


def test_nothing_but_http_1_is_agreed_on(serve, new_client, certificate, monkeypatch):
    server = serve(lambda request, conn: conn.reply(
        200, [conn.sock.selected_alpn_protocol()]), True)
    server.context.set_alpn_protocols(["h2", "http/1.1"])
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    forget_default_context()
    for context in (apiproxy.tls_context(certificate), None):
        assert new_client(server, ssl_context=context).request("/x") == ["http/1.1"]
    forget_default_context()


REPLACED = """\
import json, ssl, sys

class Context(ssl.SSLContext):
    pass

if sys.argv[2] == "before":
    ssl.SSLContext = Context
import apiproxy
ssl.SSLContext = Context
for cluster in json.loads(sys.argv[1]):
    values = {"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c"}}],
              "clusters": [{"name": "c", "cluster": cluster}]}
    config = apiproxy.Kubeconfig()
    config.add(json.dumps(values).encode(), "config")
    with apiproxy.Client("", cluster="c") as client:
        client.add_endpoint("c", config.endpoints()["c"])
        assert not isinstance(client.endpoints["c"].context(), Context)
        client.request("/version")
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_clusters_authority_is_the_only_one_where_another_class_replaces_ssls(serve, when):
    """As truststore does it: its contexts trust the system's authorities, too."""
    server = serve(echo_headers, tls=True)
    clusters = [{"server": server.url, **trust} for trust in (
        {"certificate-authority-data": b64(pem()[1])}, {"insecure-skip-tls-verify": True})]
    subprocess.run([sys.executable, "-W", "error", "-c", REPLACED, json.dumps(clusters), when],
                   check=True, cwd=HERE, timeout=60)
    assert len(server.requests) == 2


def test_an_intermediate_authority_alone_is_trusted(serve, tmp_path):
    server = serve(echo_headers, tls=True)
    server.context.load_cert_chain(write(tmp_path / "leaf", LEAF_KEY + LEAF))

    assert trusts({"certificate-authority-data": b64(MIDDLE)}, server) == "Bearer SECRET"


@pytest.mark.parametrize("around", [
    "{}", "# Főtanúsítvány – Raíz\n{}", "{}\nsubject=x\n{}", "text {}", "\ufeff{}", "{}\0",
])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_around_certificates_is_passed_over(serve, tmp_path, around, end):
    server = serve(echo_headers, tls=True)
    text = around.replace("{}", pem()[1]).replace("\n", end).encode()

    assert trusts({"certificate-authority-data": b64(text)}, server) == "Bearer SECRET"
    authority = {"certificate-authority": write(tmp_path / "ca", text)}
    assert trusts(authority, server) == "Bearer SECRET"


@pytest.mark.parametrize("cluster, field", [
    ({"certificate-authority-data": "!!SECRET"}, "certificate-authority-data is not base64"),
    ({"certificate-authority-data": b64("x")[:-2]}, "certificate-authority-data is not base64"),
    ({"certificate-authority-data": b64(pem()[1]) + "é"}, "certificate-authority-data is not"),
    ({"certificate-authority-data": b64("SECRET")}, "certificate-authority: no certificate"),
    ({"certificate-authority-data": b64(pem()[0])}, "certificate-authority: no certificate"),
    ({"certificate-authority-data": b64(MIDDLE[:99] + "!" + MIDDLE[100:])}, "authority: "),
    ({"certificate-authority-data": 5}, "certificate-authority-data is not a string"),
    ({"certificate-authority": 5}, "certificate-authority is not a string"),
    ({"certificate-authority": os.devnull}, "certificate-authority: no certificate"),
    ({"certificate-authority": "."}, "certificate-authority: .*directory"),
    ({"certificate-authority": "gone.crt"}, "certificate-authority: .*gone.crt"),
    ({"certificate-authority-data": b64(MIDDLE), "insecure-skip-tls-verify": True}, "insecure"),
    ({"tls-server-name": ".odd"}, "tls-server-name: "),
])
def test_an_authority_that_cant_be_used_is_never_the_systems(cluster, field):
    with pytest.raises(ValueError, match=field) as caught:
        endpoint(config(cluster=cluster))

    assert "SECRET" not in str(caught.value)


def test_the_systems_authorities_are_trusted_where_none_is_named_and_only_there(monkeypatch):
    loaded = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: loaded.append(True))

    authority = {"certificate-authority-data": b64(MIDDLE)}
    for cluster in ({}, authority, {"insecure-skip-tls-verify": True}):
        endpoint(config(cluster=cluster))
    assert not loaded

    endpoint(config(cluster={"tls-server-name": "name"}))
    assert loaded == [True]


@pytest.mark.parametrize("value", ["false", "true", "0", 0, 1, ["x"], {}, ""])
def test_nothing_but_true_turns_the_check_of_certificates_off(value):
    with pytest.raises(ValueError, match="insecure-skip-tls-verify is not true or false"):
        endpoint(config(cluster={"insecure-skip-tls-verify": value}))

    with pytest.raises(ValueError, match="True or False"):
        apiproxy.tls_context(insecure=value)

    assert endpoint(config(cluster={"insecure-skip-tls-verify": None})).context() is None


@pytest.mark.parametrize("arguments", [
    {"ca_data": b""}, {"ca_data": b"x"}, {"ca_data": b"x", "insecure": True}, {"ca_file": "gone"},
])
def test_tls_context_refuses_an_authority_that_is_none(arguments):
    with pytest.raises((ValueError, OSError)):
        apiproxy.tls_context(**arguments)


# -- files that rotate -------------------------------------------------------------


def test_client_certificates_as_files_and_as_data_which_leaves_no_file(
    serve, certificate, tmp_path, monkeypatch,
):
    server, (key, cert) = mutual(serve, certificate), pem()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    write(tmp_path / "key.pem", key)
    write(tmp_path / "cert.pem", cert)

    files = {"client-certificate": "cert.pem", "client-key": "key.pem"}
    data = {"client-certificate-data": b64(cert), "client-key-data": b64(key)}
    mixed = {"client-certificate": "cert.pem", "client-key-data": b64(key)}

    for user in (files, data, mixed, {**data, "client-certificate": "gone", "client-key": "gone"}):
        path = write(tmp_path / "config", config(server.url, user, cluster={
            "certificate-authority": "cert.pem"}))
        with apiproxy.Client.from_kubeconfig(path) as client:
            assert client.request("/version")["subject"] == "apiproxy tests"
        assert not os.listdir(str(tmp_path / "temp"))


@pytest.mark.parametrize("has_memory", [True, False])
def test_data_of_a_kubeconfig_needs_no_place_to_write_to_on_linux(monkeypatch, has_memory):
    def refuse():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    if not has_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    user = {"client-certificate-data": b64(LEAF), "client-key-data": b64(LEAF_KEY)}
    if has_memory and hasattr(os, "memfd_create"):
        assert endpoint(config(user=user)).context()
        opened = [os.path.realpath("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")]
        assert not any("memfd" in path for path in opened)
    else:
        with pytest.raises(ValueError, match="client-certificate with its .*No usable temporary"):
            endpoint(config(user=user))


def test_files_of_a_kubeconfig_need_no_temporary_file(tmp_path, monkeypatch):
    key, cert = pem()
    write(tmp_path / "key.pem", key)
    write(tmp_path / "cert.pem", cert)
    monkeypatch.setattr(tempfile, "mkstemp", lambda *_: pytest.fail("the disk was written to"))

    user = {"client-certificate": "cert.pem", "client-key": "key.pem"}
    values = config(user=user, cluster={"certificate-authority": "cert.pem"})
    assert endpoint(values, tmp_path / "config").context()


@pytest.mark.parametrize("user, said", [
    ({"client-certificate-data": b64(pem()[1])}, "belong together"),
    ({"client-key-data": b64(pem()[0])}, "belong together"),
    ({"client-certificate": "cert.pem"}, "belong together"),
    ({"client-certificate-data": b64(pem()[1]), "client-key-data": b64("SECRET")}, "client-key"),
    ({"client-certificate-data": b64(pem()[1]), "client-key-data": b64(LEAF_KEY)}, "client-key"),
    ({"client-certificate-data": b64(LEAF), "client-key-data": b64(LOCKED_KEY)}, "passphrase"),
    ({"client-certificate-data": b64(pem()[1]), "client-key-data": "!SECRET"}, "not base64"),
    ({"client-certificate-data": b64(pem()[1]), "client-key": "gone"}, "client-key: .*gone"),
])
def test_half_a_client_certificate_is_refused(user, said):
    with pytest.raises(ValueError, match=said) as caught:
        endpoint(config(user=user))

    assert "SECRET" not in str(caught.value)


def test_a_certificate_that_rotates_is_used_at_once(serve, certificate, tmp_path, caplog):
    server, (key, cert) = mutual(serve, certificate), pem()
    user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    cluster = {"certificate-authority-data": b64(cert)}
    write(tmp_path / "tls.crt", cert)
    write(tmp_path / "tls.key", key)

    path = write(tmp_path / "config", config(server.url, user, cluster=cluster))
    with apiproxy.Client.from_kubeconfig(path) as client:
        before = client.endpoints["here"].context()
        assert client.request("/version")["subject"] == "apiproxy tests"

        write(tmp_path / "tls.crt", cert)
        os.utime(str(tmp_path / "tls.key"), (1, 1))
        assert client.endpoints["here"].context() is before  # other stamps, the same contents

        write(tmp_path / "tls.crt", LEAF)  # half written: its key is not there yet
        assert client.endpoints["here"].context() is before
        assert "settings of before are kept: client-certificate" in caplog.text
        assert client.request("/version")["subject"] == "apiproxy tests"
        os.unlink(str(tmp_path / "tls.key"))
        assert client.request("/version")["subject"] == "apiproxy tests"

        write(tmp_path / "tls.key", LEAF_KEY)
        assert client.request("/version")["subject"] == "leaf"  # on a connection of its own
        assert client.endpoints["here"].context() is not before
        assert server.count == 2


@pytest.mark.parametrize("later", [0, 60])
def test_a_file_written_twice_within_a_tick_of_the_clock_is_read_again(
        tmp_path, monkeypatch, later):
    path = tmp_path / "ca.crt"
    files = apiproxy.TlsFiles(write(path, LEAF + "\n" * (len(MIDDLE) - len(LEAF))))
    before, info = files(), os.stat(str(path))

    write(path, MIDDLE)
    os.utime(str(path), ns=(info.st_atime_ns, info.st_mtime_ns))
    assert os.stat(str(path)).st_size == info.st_size
    now = time.time() + later
    monkeypatch.setattr(apiproxy.time, "time", lambda: now)
    assert files() is not before


def test_a_file_that_an_older_one_replaces_is_read_again(tmp_path):
    path, older = tmp_path / "ca.crt", tmp_path / "older.crt"
    files = apiproxy.TlsFiles(write(path, LEAF))
    before = files()
    os.utime(write(older, MIDDLE), (1, 1))
    os.replace(str(older), str(path))
    assert files() is not before


def test_an_authority_that_rotates_is_trusted_at_once(serve, tmp_path, monkeypatch):
    server = serve(echo_headers, tls=True)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    write(tmp_path / "token", "SECRET")
    write(tmp_path / "ca.crt", MIDDLE)

    with apiproxy.Client.in_cluster(str(tmp_path)) as client:
        with pytest.raises(apiproxy.ApiError, match="certificate"):
            client.request("/version")

        write(tmp_path / "ca.crt", pem()[1])
        assert client.request("/version")["authorization"] == "Bearer SECRET"


def test_a_client_certificate_is_shown_only_for_its_own_cluster(serve, certificate, tmp_path):
    server, (key, cert) = mutual(serve, certificate), pem()
    mine = apiproxy.TlsFiles(cert.encode(), cert.encode(), key.encode())

    with apiproxy.Client("", ssl_context=apiproxy.tls_context(ca_data=cert.encode())) as client:
        client.add_endpoint("mine", apiproxy.Endpoint(server.url, ssl_context=mine))
        client.add_endpoint("yours", apiproxy.Endpoint(server.url, token="SECRET"))

        for _ in range(3):  # kept connections too
            answer = client.request("/x", {"cluster": "mine"})
            assert answer == {"subject": "apiproxy tests", "authorization": None}
            answer = client.request("/x", {"cluster": "yours"})
            assert answer == {"subject": None, "authorization": "Bearer SECRET"}

    assert server.count == 2


# -- tokens in files ---------------------------------------------------------------


def test_a_token_file_is_read_again_as_it_rotates(serve, tmp_path):
    server = serve(echo_headers)
    write(tmp_path / "token", " SECRET-1\r\n")
    path = write(tmp_path / "config", config(server.url, {"tokenFile": "token"}))

    with apiproxy.Client.from_kubeconfig(path) as client:
        assert client.request("/version")["authorization"] == "Bearer SECRET-1"
        write(tmp_path / "token", "SECRET-2\n")
        assert client.request("/version")["authorization"] == "Bearer SECRET-2"
        assert client.request("/version")["authorization"] == "Bearer SECRET-2"

        for text in ("", " \n", b"SECRET\xff", "SECRET\nand a line"):
            write(tmp_path / "token", text)
            error = failed(client.request, "/version")
            assert error.status == 0 and str(tmp_path / "token") in str(error)

        os.unlink(str(tmp_path / "token"))
        error = failed(client.request, "/version")
        assert error.status == 0 and str(tmp_path / "token") in str(error)

    assert len(server.requests) == 3  # none was sent without its token


# -- exec plugins ------------------------------------------------------------------

PLUGIN = """\
import json, os, sys, time
runs = os.environ["RUNS"]
open(runs, "a").write("x")
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
status = {"token": "SECRET-%s-%d" % (sys.argv[1], os.path.getsize(runs))}
if len(sys.argv) > 2:
    end = time.gmtime(time.time() + int(sys.argv[2]))
    status["expirationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", end)
answer = {"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}
print(json.dumps(answer))
"""

V1 = "client.authentication.k8s.io/v1"


def python(code, *args, **spec):
    """A user whose plugin is a Python program."""
    command = {"command": sys.executable, "args": ["-I", "-S", "-c", code, *args]}
    return {"exec": {"apiVersion": V1, "interactiveMode": "Never", **command, **spec}}


def says(status, **spec):
    """A user whose plugin gives this status."""
    answer = json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})
    return python("import sys; print(sys.argv[1])", answer, **spec)


def plugin(tmp_path, *args, version=V1):
    env = [{"name": "RUNS", "value": str(tmp_path / "runs")}]
    return python(PLUGIN, *args, env=env, apiVersion=version)


def run(user, cluster=None, seconds=20.0):
    """What a user's plugin gives."""
    return endpoint(config(user=user, cluster=cluster)).token(apiproxy.Scope(seconds))


def told(user, cluster=None):
    """The JSON that is a plugin's token, percent-encoded."""
    return json.loads(urllib.parse.unquote(run(user, cluster)))


@pytest.mark.parametrize("version", [V1, V1 + "beta1"])
def test_an_exec_plugin_runs_once_for_all_threads_and_again_after_a_401(serve, tmp_path, version):
    server = serve(echo_headers)
    user = plugin(tmp_path, "a", "3600", version=version)
    path = write(tmp_path / "config", config(server.url, user))

    with apiproxy.Client.from_kubeconfig(path) as client:
        threads = [threading.Thread(target=client.request, args=("/x",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        sent = {request.headers["authorization"] for request in server.requests}
        assert sent == {"Bearer SECRET-a-1"}

        server.script = lambda request, conn: conn.reply(401, {})
        with pytest.raises(apiproxy.ApiError):
            client.request("/x")

        server.script = echo_headers
        assert client.request("/x")["authorization"] == "Bearer SECRET-a-2"


def test_an_exec_plugin_runs_again_after_a_401_to_a_stream(serve, tmp_path):
    server = serve(lambda request, conn: conn.reply(401, {}))
    path = write(tmp_path / "config", config(server.url, plugin(tmp_path, "a")))
    ended = []

    with apiproxy.Client.from_kubeconfig(path) as client:
        for count in (1, 2):
            client.stream("/log", print, {"failCb": ended.append})
            eventually(lambda: len(ended) == count)

    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer SECRET-a-1", "Bearer SECRET-a-2"]


def test_a_login_may_be_silent_for_longer_than_an_answer(tmp_path):
    token = endpoint(config(user=plugin(tmp_path, "a"))).token
    assert token(apiproxy.Scope(20, idle=0.001)) == "SECRET-a-1"


def test_only_the_credential_that_was_refused_is_forgotten(tmp_path):
    token = endpoint(config(user=plugin(tmp_path, "a"))).token
    scope = apiproxy.Scope(20)

    assert token(scope) == "SECRET-a-1"
    token.forget("SECRET-a-0")  # of a request that began before the last renewal
    assert token(scope) == "SECRET-a-1"
    token.forget("SECRET-a-1")
    assert token(scope) == "SECRET-a-2"
    token.forget()
    assert token(scope) == "SECRET-a-3"


def test_a_credential_that_is_forgotten_as_it_is_given_is_still_one(tmp_path, monkeypatch):
    """`forget` comes from the thread of another request, at any moment."""
    token = endpoint(config(user=plugin(tmp_path, "a"))).token
    assert token(apiproxy.Scope(20)) == "SECRET-a-1"

    monkeypatch.setattr(apiproxy.time, "time", lambda: token.forget() or 0.0)
    assert token(apiproxy.Scope(20)) == "SECRET-a-1"
    assert token(apiproxy.Scope(20)) == "SECRET-a-2"


def test_an_exec_plugins_credential_that_ends_is_fetched_again(tmp_path):
    token = endpoint(config(user=plugin(tmp_path, "b", "5"))).token
    assert [token(apiproxy.Scope(20))[-1] for _ in "123"] == ["1", "2", "3"]


@pytest.mark.parametrize("text, seconds", [
    ("1970-01-01T00:00:10Z", 10), ("1970-01-01T00:00:10.9Z", 10),
    ("1970-01-01T00:00:10.123456789Z", 10), ("1970-01-01T02:00:10+02:00", 10),
    ("1969-12-31T18:30:10-05:30", 10), ("2100-02-28T23:59:59.5+00:00", 4107542399),
])
def test_a_time_has_a_zone_and_perhaps_a_fraction(text, seconds):
    assert apiproxy.parse_time(text) == seconds


@pytest.mark.parametrize("text", [
    "soon", "1970-01-01", "1970-01-01T00:00:10", "1970-01-01 00:00:10Z", "1970-13-01T00:00:10Z",
    "1970-01-01T00:00:10+0200", "1970-01-01T00:00:10Z ", "10",
])
def test_what_is_no_time_ends_nothing(text):
    with pytest.raises(apiproxy.ApiError, match="plugin"):
        run(says({"token": "SECRET", "expirationTimestamp": text}))


def test_an_exec_plugin_may_give_a_client_certificate_and_then_another(
    serve, certificate, tmp_path,
):
    server, (key, cert) = mutual(serve, certificate), pem()
    user = python("import sys; print(open(sys.argv[1]).read())", str(tmp_path / "answer"))
    cluster = {"certificate-authority-data": b64(cert)}
    path = write(tmp_path / "config", config(server.url, user, cluster=cluster))

    def give(**status):
        write(tmp_path / "answer", {"status": status})

    with apiproxy.Client.from_kubeconfig(path) as client:
        give(clientCertificateData=cert, clientKeyData=key)
        answer = {"subject": "apiproxy tests", "authorization": None}
        assert client.request("/version") == answer
        before = client.endpoints["here"].context()
        client.endpoints["here"].token.forget()
        assert client.request("/version") == answer
        assert client.endpoints["here"].context() is before

        give(clientCertificateData=LEAF, clientKeyData=LEAF_KEY, token="SECRET")
        client.endpoints["here"].token.forget()
        answer = {"subject": "leaf", "authorization": "Bearer SECRET"}
        assert client.request("/version") == answer

        give(clientCertificateData=LEAF, clientKeyData=key, token="SECRET")
        client.endpoints["here"].token.forget()
        with pytest.raises(apiproxy.ApiError, match="client-certificate"):
            client.request("/version")

    assert server.count == 2


@pytest.mark.parametrize("status", [
    {}, None, [], "SECRET", {"token": ""}, {"token": None}, {"token": 5}, {"token": ["SECRET"]},
    {"clientKeyData": "SECRET"}, {"token": "SECRET", "clientKeyData": "SECRET"},
    {"clientCertificateData": LEAF}, {"token": "SECRET", "clientCertificateData": LEAF},
    {"clientCertificateData": LEAF, "clientKeyData": 5},
    {"clientCertificateData": LEAF, "clientKeyData": "SECRET"},
    {"token": "SECRET", "expirationTimestamp": 5}, {"token": "SECRET\n"},
])
def test_half_a_credential_is_an_error_and_no_request(serve, status):
    server = serve(echo_headers)

    with apiproxy.Client("", cluster="here") as client:
        client.add_endpoint("here", endpoint(config(server.url, says(status))))
        with pytest.raises(apiproxy.ApiError, match="exec plugin") as caught:
            client.request("/version")

    assert caught.value.status == 0
    assert "SECRET" not in str(caught.value) and not server.requests


@pytest.mark.parametrize("answer", [
    "apiVersion: %s\nkind: ExecCredential\nstatus:\n  token: SECRET\n" % V1,
    '\ufeff{\n\t"status":\t{"token": "SECRE\\u0054"}}\r\n'])
def test_a_plugin_answers_in_json_or_yaml(answer):
    code = "import os, sys; os.write(1, sys.argv[1].encode('utf-8', 'surrogateescape'))"
    assert run(python(code, answer)) == "SECRET"


@pytest.mark.parametrize("answer", [
    "", "SECRET", "[]", "5", '{"status": {"token": "SECRET"}, "kind": "Other"}',
    '{"status": {"token": "SECRET"}, "apiVersion": "client.authentication.k8s.io/v1beta1"}',
])
def test_an_answer_of_another_kind_or_version_is_refused(answer):
    with pytest.raises(apiproxy.ApiError, match="answer") as caught:
        run(python("import sys; print(sys.argv[1])", answer))

    assert "SECRET" not in str(caught.value)


def test_a_program_that_is_missing_says_how_to_get_it():
    user = says({}, command="no-such-program-here", installHint="get it\n  \x1b[31mthere")

    with pytest.raises(apiproxy.ApiError, match=r"no-such-program-here .*get it \[31mthere$"):
        run(user)


def test_what_a_plugin_says_on_stderr_is_seen_and_its_end_is_in_the_error(capfd, monkeypatch):
    write_out = os.write
    monkeypatch.setattr(  # a slow terminal
        os, "write", lambda *args: time.sleep(0.05) or write_out(*args))
    code = "import sys; sys.stderr.write('a' * 5000 + 'please\\n\\x1b[1mlog in\\n'); sys.exit(7)"

    with pytest.raises(apiproxy.ApiError, match=r"exit code 7. aaa.*please \[1mlog in$") as caught:
        run(python(code))

    assert len(str(caught.value)) < 500
    assert capfd.readouterr().err.endswith("aplease\n\x1b[1mlog in\n")

    code = "import sys; sys.stderr.write('a hint\\n'); print(sys.argv[1])"
    assert run(python(code, '{"status": {"token": "SECRET"}}')) == "SECRET"
    eventually(lambda: "a hint\n" in capfd.readouterr().err)


def test_what_a_plugin_says_goes_nowhere_where_stderr_was_closed(capfd, monkeypatch):
    """Then descriptor 2 is a file, or a connection, of the program's."""
    monkeypatch.setattr(sys, "__stderr__", None)
    with pytest.raises(apiproxy.ApiError, match="exit code 7. please log in$"):
        run(python("import sys; sys.stderr.write('please log in'); sys.exit(7)"))
    assert not capfd.readouterr().err


def test_what_a_plugin_says_is_seen_while_it_runs(capfd):
    code = "import os, time; os.write(2, b'open this page'); time.sleep(99)"
    scope = apiproxy.Scope()
    failed = []

    def login():
        with pytest.raises(ConnectionAbortedError):
            endpoint(config(user=python(code))).token(scope)
        failed.append(True)

    thread = threading.Thread(target=login)
    thread.start()
    eventually(lambda: "open this page" in capfd.readouterr().err)
    scope.cancel()
    thread.join(5)
    assert failed


@pytest.mark.parametrize("spec, env", [
    ({"args": ["a b", "$HOME"]}, None), ({"args": None}, None),
    ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "2"),
    ({"env": [{"name": "A"}]}, ""), ({"env": None}, None),
])
def test_a_plugin_gets_its_arguments_and_environment(tmp_path, spec, env, monkeypatch):
    monkeypatch.delenv("A", raising=False)
    program = "#!%s\n%s" % (sys.executable, (
        "import json, os, sys, urllib.parse\n"
        "token = json.dumps([sys.argv[1:], os.environ.get('A'), 'PATH' in os.environ])\n"
        "print(json.dumps({'status': {'token': urllib.parse.quote(token)}}))\n"))
    write(tmp_path / "program", program, 0o700)

    kills = []
    monkeypatch.setattr(os, "killpg", lambda *args: kills.append(args))
    user = {"exec": {"apiVersion": V1, "command": str(tmp_path / "program"), **spec}}
    assert told(user) == [spec.get("args") or [], env, True]
    assert not kills  # the number may be another's by now


def test_a_command_with_a_slash_is_relative_to_its_files_folder(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    program = "#!/bin/sh\necho '{\"status\": {\"token\": \"SECRET\"}}'\n"
    write(tmp_path / "bin" / "my-login", program, 0o700)
    write(tmp_path / "my-login", program, 0o700)

    def token(command):
        user = {"exec": {"apiVersion": V1, "command": command}}
        return endpoint(config(user=user), tmp_path / "config").token(apiproxy.Scope(20))

    assert token("bin/my-login") == token("./my-login") == "SECRET"
    with pytest.raises(apiproxy.ApiError, match="no such program"):
        token("my-login")  # a bare name is looked for in PATH alone

    monkeypatch.setenv("PATH", str(tmp_path))
    assert token("my-login") == "SECRET"


TOLD = (
    "import json, os, urllib.parse; info = os.environ['KUBERNETES_EXEC_INFO'];"
    "print(json.dumps({'status': {'token': urllib.parse.quote(info)}}))"
)


def test_a_plugin_is_told_of_its_cluster_where_it_wants_that(tmp_path):
    extensions = [
        {"name": "other", "extension": {"SECRET": 1}},
        {"name": "client.authentication.k8s.io/exec", "extension": {"audience": ["a", 1, None]}},
    ]
    cluster = {
        "certificate-authority": write(tmp_path / "ca", MIDDLE),
        "tls-server-name": "name",
        "disable-compression": True,
        "proxy-url": "http://p:1",
        "extensions": extensions,
    }

    info = {"kind": "ExecCredential", "apiVersion": V1, "spec": {"interactive": False}}
    assert told(python(TOLD), cluster) == info

    info = told(python(TOLD, provideClusterInfo=True), cluster)
    assert info["spec"] == {"interactive": False, "cluster": {
        "server": "https://127.0.0.1:1",
        "certificate-authority-data": b64(MIDDLE),
        "tls-server-name": "name",
        "disable-compression": True,
        "proxy-url": "http://p:1",
        "config": {"audience": ["a", 1, None]},
    }}

    insecure = {"insecure-skip-tls-verify": True}
    info = told(python(TOLD, provideClusterInfo=True), insecure)
    assert info["spec"]["cluster"] == {"server": "https://127.0.0.1:1", **insecure}


@pytest.mark.parametrize("mode, terminal, interactive", [
    ("Never", True, False), ("Never", False, False), ("IfAvailable", True, True),
    ("IfAvailable", False, False), ("Always", True, True), ("Always", False, None),
    (None, True, True), (None, False, False),
])
def test_a_plugin_is_interactive_as_it_wants_and_as_there_is_a_terminal(
    monkeypatch, mode, terminal, interactive,
):
    monkeypatch.setattr(os, "isatty", lambda descriptor: terminal and descriptor == 0)
    popen, inputs = subprocess.Popen, []

    def spy(*args, **kwargs):
        inputs.append((kwargs["stdin"], kwargs["start_new_session"]))
        return popen(*args, **{**kwargs, "stdin": subprocess.DEVNULL})

    monkeypatch.setattr(subprocess, "Popen", spy)
    user = python(TOLD, interactiveMode=mode)

    if interactive is None:
        with pytest.raises(apiproxy.ApiError, match="terminal"):
            run(user)
        assert not inputs
    else:
        assert told(user)["spec"] == {"interactive": interactive}
        # in another session it could not read the terminal
        assert inputs == [(None, False) if interactive else (subprocess.DEVNULL, True)]
        with pytest.raises(apiproxy.ApiError, match="exit code 7"):
            run(python("raise SystemExit(7)", interactiveMode=mode))


def hanging(tmp_path):
    """A user whose plugin waits for a child that hangs; the child writes its id to a file."""
    child = (
        "import os, signal, time;"
        "[signal.signal(each, signal.SIG_IGN) for each in (signal.SIGTERM, signal.SIGUSR1)];"
        "open(%r, 'w').write(str(os.getpid())); time.sleep(99)") % str(tmp_path / "pid")
    return python("import subprocess, sys; subprocess.run([sys.executable, '-c', %r])" % child)


def gone(tmp_path):
    """Whether the child of a hanging plugin has ended."""
    try:
        with open("/proc/%s/stat" % (tmp_path / "pid").read_text()) as file:
            return file.read().split()[2] == "Z"  # nobody has asked how it ended
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_plugin_that_hangs_is_killed_with_its_children(tmp_path):
    token = endpoint(config(user=hanging(tmp_path))).token
    pid = tmp_path / "pid"

    scope = apiproxy.Scope()
    threading.Thread(target=lambda: (
        eventually(lambda: pid.exists() and pid.read_text()), scope.cancel())).start()
    with pytest.raises(ConnectionAbortedError):
        token(scope)
    eventually(lambda: gone(tmp_path))

    with pytest.raises(TimeoutError):
        token(apiproxy.Scope(1.0))
    eventually(lambda: gone(tmp_path))

    with pytest.raises(ConnectionAbortedError):
        token(scope)  # cancelled before it began


@pytest.mark.parametrize("are_threads", [True, False])
def test_an_interactive_plugin_that_hangs_is_killed(monkeypatch, are_threads):
    popen, programs = subprocess.Popen, []
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: (
        programs.append(popen(*args, **options)) or programs[-1]))
    if not are_threads:
        def start(thread):
            raise RuntimeError("no more threads")

        monkeypatch.setattr(threading.Thread, "start", start)

    with pytest.raises(TimeoutError, match="^%s has not ended" % re.escape(sys.executable)):
        run(python("import time; time.sleep(20)", interactiveMode="Always"), seconds=0.3)
    assert eventually(programs[0].poll) == -signal.SIGKILL


def test_who_waits_for_a_plugin_waits_in_a_scope_of_its_own(tmp_path):
    runs = tmp_path / "runs"
    code = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(99)"
    token = endpoint(config(user=python(code, str(runs)))).token
    first, failed = apiproxy.Scope(), []

    def wait():
        with pytest.raises(ConnectionAbortedError):
            token(first)
        failed.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(runs.exists)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        token(apiproxy.Scope(0.2))

    second = apiproxy.Scope()
    threading.Timer(0.1, second.cancel).start()
    with pytest.raises(ConnectionAbortedError):
        token(second)

    assert time.monotonic() - began < 5 and not failed
    first.cancel()
    thread.join(5)
    assert failed


@pytest.mark.parametrize("spec, field", [
    ({"apiVersion": None}, "apiVersion"), ({"apiVersion": V1 + "alpha1"}, "apiVersion"),
    ({"command": None}, "command is missing"), ({"command": 5}, "command is not a string"),
    ({"interactiveMode": "Sometimes"}, "interactiveMode"), ({"interactiveMode": 5}, "interactiveM"),
    ({"args": "x"}, "args is not a list"), ({"args": [5]}, "args is not a list of strings"),
    ({"env": {"A": "1"}}, "env is not a list"), ({"env": ["A=1"]}, "env is not a mapping"),
    ({"env": [{"value": "1"}]}, "env: name"), ({"env": [{"name": "A", "value": 5}]}, "env: value"),
    ({"provideClusterInfo": "yes"}, "provideClusterInfo"), ({"installHint": 5}, "installHint"),
])
def test_a_plugin_that_cant_be_run_is_refused_with_its_context(spec, field):
    with pytest.raises(ValueError, match="config: context here: .*user here: exec.*" + field):
        endpoint(config(user=says({}, **spec)))


# -- who we are --------------------------------------------------------------------


def identity(user, cluster=None):
    """(token, basic) of a user, the token being True for a plugin's."""
    direct = endpoint(config(user=user, cluster=cluster))
    token = True if isinstance(direct.token, apiproxy.ExecPlugin) else direct.token
    return token() if callable(token) else token, direct.basic


@pytest.mark.parametrize("user, expected", [
    ({}, (None, "")), ({"token": "t"}, ("t", "")), ({"token": None}, (None, "")),
    ({"tokenFile": "FILE"}, ("in-file", "")), ({"token": "", "tokenFile": "FILE"}, ("in-file", "")),
    ({"token": "t", "tokenFile": "FILE"}, ("t", "")),
    ({"token": "t", "tokenFile": "gone"}, ("t", "")),
    ({"username": "me", "password": "a:b"}, (None, "me:a:b")), ({"username": "me"}, (None, "me:")),
    ({**says({})}, (True, "")), ({**says({}), "token": "t"}, ("t", "")),
    ({**says({}), "tokenFile": "FILE"}, ("in-file", "")),
    ({**says({}), "username": "me"}, (None, "me:")),
    ({**says({}), "client-certificate-data": b64(LEAF), "client-key-data": b64(LEAF_KEY)},
     (None, "")),
    ({"exec": None, "auth-provider": None, "token": "t"}, ("t", "")),
])
def test_who_we_are_is_what_client_go_would_say(tmp_path, user, expected):
    user = {key: write(tmp_path / "token", "in-file\n") if value == "FILE" else value
            for key, value in user.items()}
    assert identity(user) == expected


@pytest.mark.parametrize("user, said", [
    ({"token": "SECRET", "username": "me"}, "username and a token exclude"),
    ({"tokenFile": os.devnull, "username": "me"}, "username and a token exclude"),
    ({"password": "SECRET"}, "username is missing"), ({"tokenFile": "gone"}, "tokenFile: .*gone"),
    ({"tokenFile": os.devnull}, "tokenFile: .*is empty"), ({"tokenFile": "."}, "tokenFile: "),
    ({"token": "SECRET\n"}, "token: a token can't"), ({"token": "SECRET x"}, "token: a token can"),
    ({"token": "SECRETé"}, "token: a token can't"), ({"token": 5}, ": token is not a string"),
    ({"auth-provider": {"name": "oidc"}}, "auth-provider is not supported"),
    ({"auth-provider": {}, "token": "SECRET"}, "auth-provider is not supported"),
    ({"exec": {}}, "exec: apiVersion"), ({"exec": []}, "exec is not a mapping"),
])
def test_a_user_that_cant_be_had_is_refused(user, said):
    with pytest.raises(ValueError, match="config: context here: .*user here.*" + said) as caught:
        endpoint(config(user=user))

    assert "SECRET" not in str(caught.value)


ALL = {
    "as": "Jané",
    "as-uid": "7",
    "as-groups": ["a,b", "system:masters"],
    "as-user-extra": {"example.com/Team": ["x y", "%41"], "é%": ["1"], "none": []},
}


def test_impersonation_goes_out_as_client_go_sends_it():
    """Keys are percent-encoded, values go as UTF-8: the API server decodes no value."""
    headers = endpoint(config(user={"token": "t", **ALL})).impersonate

    assert [(name, value.encode("latin-1").decode()) for name, value in headers] == [
        ("Impersonate-User", "Jané"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a,b"),
        ("Impersonate-Group", "system:masters"),
        ("Impersonate-Extra-example.com%2FTeam", "x y"),
        ("Impersonate-Extra-example.com%2FTeam", "%41"),
        ("Impersonate-Extra-%C3%A9%25", "1"),
    ]
    assert not endpoint(config(user={"token": "t", "as": "", "as-groups": []})).impersonate


def test_impersonation_goes_with_every_request_and_handshake(serve, new_client):
    seen = []

    def script(request, conn):
        lines = [line for line in request.lines if line.lower().startswith("impersonate")]
        seen.append((request.is_watch, lines))
        if request.is_watch:
            conn.upgrade(request)
            conn.wait_end()
            return False
        conn.reply(200, {"kind": "PodList", "items": [], "metadata": {"resourceVersion": "1"}})

    server = serve(script)
    one = new_client("", cluster="here")
    one.add_endpoint("here", endpoint(config(server.url, {"as": "bob", "as-groups": ["x", "y"]})))
    cancel = one.stream_results("/api/v1/pods", lambda items: None, lambda *error: None)
    eventually(lambda: {is_watch for is_watch, _ in seen} == {True, False})
    cancel()

    lines = ["Impersonate-User: bob", "Impersonate-Group: x", "Impersonate-Group: y"]
    assert all(sent == lines for _, sent in seen)


@pytest.mark.parametrize("user, said", [
    ({"as-groups": ["a"]}, "as is missing"), ({"as-uid": "1"}, "as is missing"),
    ({"as-user-extra": {"a": ["1"]}}, "as is missing"), ({"as": "a\r\nX: y"}, "not allowed"),
    ({"as": "a", "as-groups": ["\n"]}, "not allowed"), ({"as": 5}, "as is not a string"),
    ({"as": "a", "as-user-extra": {"k": ["\0"]}}, "not allowed"),
    ({"as": "a", "as-groups": "g"}, "as-groups is not a list"),
    ({"as": "a", "as-groups": [5]}, "as-groups is not a list of strings"),
    ({"as": "a", "as-user-extra": ["g"]}, "as-user-extra is not a mapping"),
    ({"as": "a", "as-user-extra": {"k": "v"}}, "as-user-extra: k is not a list"),
])
def test_impersonation_that_cant_be_sent_is_refused(user, said):
    with pytest.raises(ValueError, match="context here: .*" + said):
        endpoint(config(user={"token": "t", **user}))


# -- where it is -------------------------------------------------------------------


@pytest.mark.parametrize("server, secure, expected", [
    ("https://h", False, "https://h"), ("http://h", True, "http://h"),
    ("h", False, "http://h"), ("h", True, "https://h"), ("h:6443", True, "https://h:6443"),
    ("10.0.0.1:6443", False, "http://10.0.0.1:6443"), ("[::1]:1", True, "https://[::1]:1"),
    ("localhost:8080/", False, "http://localhost:8080/"), ("HTTPS://h", False, "https://h"),
    ("https://h/k8s/clusters/c-1", False, "https://h/k8s/clusters/c-1"),
    ("https://h/a?x=1#y", False, "https://h/a"), ("https://h#y", False, "https://h"),
])
def test_a_server_without_a_scheme_is_https_where_there_are_tls_settings(server, secure, expected):
    cluster = {"insecure-skip-tls-verify": True} if secure else {}
    assert endpoint(config(server, cluster=cluster)).server == expected


@pytest.mark.parametrize("server", [
    "", None, "h:1/path", "::1", "https:/h", "//h", " https://h", "https://h ", "ftp://h",
    "https://u:SECRET@h", "https://h:99999", 5, ["https://h"],
])
def test_a_server_that_is_no_address_is_refused(server):
    with pytest.raises(ValueError, match="config: context here: .*server") as caught:
        endpoint(config(server))

    assert "SECRET" not in str(caught.value)


def test_a_connection_is_kept_for_its_way(serve, new_client):
    """Two proxies may lead to networks where one address is two servers."""
    first, second = (serve(lambda request, conn: conn.reply(200, {})) for _ in range(2))
    client = new_client("http://127.0.0.1:1", cluster="a")
    for name, proxy in (("a", first), ("b", second)):
        client.add_endpoint(name, apiproxy.Endpoint("http://far.test", proxy=proxy.url))
    for cluster in "abab":
        client.cluster_request("/" + cluster, {"cluster": cluster})
    assert [request.path for request in first.requests] == ["http://far.test/a"] * 2
    assert [request.path for request in second.requests] == ["http://far.test/b"] * 2


def test_a_clusters_proxy_is_its_own(serve, tmp_path):
    proxy = serve(lambda request, conn: conn.reply(200, {"asked": request.path}))
    values = config("http://api.example", cluster={"proxy-url": proxy.url})

    with apiproxy.Client.from_kubeconfig(write(tmp_path / "config", values)) as client:
        assert client.request("/version") == {"asked": "http://api.example/version"}

    assert endpoint(config(cluster={"proxy-url": ""})).proxy is None


@pytest.mark.parametrize("proxy, said", [
    ("socks5://u:SECRET@p:1", "socks5"), ("https://p:1", "https"), ("ftp://p", "ftp"),
    ("p:3128", "proxy-url"), ("http://", "proxy-url"), ("http://p:x", "proxy-url"),
    (5, "proxy-url"),
])
def test_a_proxy_of_another_kind_is_refused_by_name(proxy, said):
    with pytest.raises(ValueError, match="config: context here: .*" + said) as caught:
        endpoint(config(cluster={"proxy-url": proxy}))

    assert "SECRET" not in str(caught.value)


def test_a_cluster_may_want_no_compression(serve, tmp_path):
    server = serve(lambda request, conn: conn.reply(200, {}))

    for value, coding in ((True, "identity"), (False, "gzip"), (None, "gzip")):
        values = config(server.url, cluster={"disable-compression": value})
        with apiproxy.Client.from_kubeconfig(write(tmp_path / "config", values)) as client:
            client.request("/version")
        assert server.requests[-1].headers["accept-encoding"] == coding


# -- what kubeconfigs say ----------------------------------------------------------


def test_every_context_is_a_cluster_and_the_current_one_is_current(serve, tmp_path, monkeypatch):
    first, second = serve(echo_headers), serve(echo_headers)
    arn = "arn:aws:eks:eu/one"
    one = config(first.url + "/k8s/c-1", {"token": "SECRET-1"}, arn, namespace="shop")
    two = config(second.url, {"username": "me", "password": "SECRET-2"}, "two")
    two["current-context"] = ""
    two["contexts"] += [
        {"name": "broken", "context": {"cluster": "nowhere"}},
        {"name": arn, "context": {"cluster": "two", "user": "two"}},
    ]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([
        "", str(tmp_path / "missing"), os.devnull, write(tmp_path / "empty", ""),
        write(tmp_path / "a", two), write(tmp_path / "b", one)]))

    # The first file to name a thing wins: kubectl's rule.
    with apiproxy.Client.from_kubeconfig() as client:
        assert client.cluster == arn and sorted(client.endpoints) == [arn, "two"]
        authorization = client.request("/version")["authorization"]
        assert authorization == "Basic " + b64("me:SECRET-2")

    with apiproxy.Client.from_kubeconfig(str(tmp_path / "b")) as client:
        answer = client.request("/version")
        assert answer == {"path": "/k8s/c-1/version", "authorization": "Bearer SECRET-1"}
        assert client.endpoints[client.cluster].namespace == "shop"
        with pytest.raises(ValueError, match="Headlamp"):
            client.delete_plugin("x")

    assert apiproxy.Client.from_kubeconfig(str(tmp_path / "a"), "two").cluster == "two"
    for context in ("broken", "nope"):
        with pytest.raises(ValueError, match=context) as caught:
            apiproxy.Client.from_kubeconfig(str(tmp_path / "a"), context)
        assert str(tmp_path / "a") in str(caught.value)


def test_paths_are_relative_to_the_folder_of_the_file_that_has_them(tmp_path, monkeypatch):
    values = config(user={"tokenFile": "token"})
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(str(tmp_path / name / "c") for name in "ab"))

    for name in "ab":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "token", "in-" + name)
    write(tmp_path / "a" / "c", {**values, "users": []})
    write(tmp_path / "b" / "c", {"users": values["users"]})

    assert apiproxy.read_kubeconfig().endpoints("here")["here"].token() == "in-b"

    monkeypatch.chdir(tmp_path / "a")
    write(tmp_path / "a" / "c", values)
    assert apiproxy.read_kubeconfig("c").endpoints("here")["here"].token() == "in-a"


def test_a_path_may_be_any_kind_of_path(tmp_path, monkeypatch):
    (tmp_path / ".kube").mkdir()
    odd = tmp_path / ("a" + os.pathsep + "b c")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "")
    write(tmp_path / ".kube" / "config", config())
    write(odd, config(name="odd"))

    usual = tmp_path / ".kube" / "config"
    for path in (None, "~/.kube/config", str(usual), usual):
        assert apiproxy.read_kubeconfig(path).current == "here"
    assert apiproxy.read_kubeconfig(odd).current == "odd"  # one file, whatever its name

    monkeypatch.setenv("KUBECONFIG", "~/.kube/config")
    assert apiproxy.read_kubeconfig().current == "here"


def test_a_kubeconfig_that_cant_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    for path in (tmp_path, tmp_path / "missing", str(tmp_path / "missing"), None, "~/x"):
        with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + "|~"):
            apiproxy.Client.from_kubeconfig(path)

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "x") + os.pathsep + str(tmp_path / "y"))
    with pytest.raises(ValueError, match="no kubeconfig at"):
        apiproxy.Client.from_kubeconfig()

    monkeypatch.setenv("KUBECONFIG", write(tmp_path / "a", config()) + os.pathsep + str(tmp_path))
    with pytest.raises(ValueError, match="directory"):
        apiproxy.Client.from_kubeconfig()

    if hasattr(os, "geteuid") and os.geteuid():
        with pytest.raises(ValueError, match="ermission"):
            apiproxy.Client.from_kubeconfig(write(tmp_path / "b", config(), 0))


@pytest.mark.parametrize("text", [
    "[]", '"x"', "5", '{"users": {"a": 1}}', '{"contexts": 5}', '{"clusters": "x"}',
    '{"kind": "Pod"}', '{"apiVersion": "v2"}', '{"current-context": 5}', '{"kind": 5}',
    '{"a": ', "a: [", b"\xff\xfe", b"a: \x00", "{" * 5000,
])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path, text):
    path = write(tmp_path / "config", text)
    with pytest.raises(ValueError, match=re.escape(path)):
        apiproxy.Client.from_kubeconfig(path)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "{}", "null", "---\n", "clusters:\n"])
def test_an_empty_kubeconfig_is_one_without_clusters(tmp_path, text):
    path = write(tmp_path / "config", text)
    with apiproxy.Client.from_kubeconfig(path) as client:
        assert not client.endpoints and client.cluster == ""
        with pytest.raises(ValueError):
            client.request("/version")

    with pytest.raises(ValueError, match="no context x"):
        apiproxy.Client.from_kubeconfig(path, "x")


def test_without_a_current_context_a_call_has_to_name_its_cluster(serve, tmp_path):
    server = serve(echo_headers)
    values = {**config(server.url, {"token": "SECRET"}), "current-context": ""}

    with apiproxy.Client.from_kubeconfig(write(tmp_path / "config", values)) as client:
        assert client.cluster == ""
        with pytest.raises(ValueError):
            client.request("/version")
        answer = client.request("/version", {"cluster": "here"})
        assert answer["authorization"] == "Bearer SECRET"


def test_of_things_with_one_name_the_first_counts():
    values, other = config(user={"token": "1"}, namespace="first"), config("https://other")
    other["users"][0]["user"]["token"] = "2"
    both = {**values, **{section: values[section] + other[section]
                         for section in ("clusters", "users", "contexts")}}

    direct = endpoint(both)
    assert (direct.server, direct.token, direct.namespace) == ("https://127.0.0.1:1", "1", "first")


TEXT_FORMS = {
    "JSON": lambda values: json.dumps(values).encode(),
    "with a BOM": lambda values: b"\xef\xbb\xbf" + json.dumps(values).encode(),
    "before another document": lambda values: json.dumps(values).encode() + b"\n---\n{}\n",
    "YAML": lambda values: YAML.encode(),
    "CRLF": lambda values: YAML.replace("\n", "\r\n").encode(),
}

YAML = """\
apiVersion: v1
kind: Config
preferences: {}
current-context: here
clusters:
- name: here
  cluster:
    server: https://127.0.0.1:1  # nowhere
users:
- name: here
  user:
    token: "SECRET"
contexts:
- {name: here, context: {cluster: here, user: here}}
"""


@pytest.mark.parametrize("form", list(TEXT_FORMS))
def test_a_kubeconfig_may_be_written_in_several_ways(form):
    text = TEXT_FORMS[form](config(user={"token": "SECRET"}))
    direct = endpoint(text)
    assert (direct.server, direct.token) == ("https://127.0.0.1:1", "SECRET")


BROKEN = [
    ("clusters", {"cluster": {"server": "https://h", "certificate-authority": "x"}}, "authority"),
    ("clusters", {"cluster": {"server": 5}}, "server"), ("clusters", {"cluster": {}}, "server"),
    ("clusters", {"cluster": ["x"]}, "cluster"), ("clusters", {"cluster": None}, "server"),
    ("clusters", {"name": 5}, "cluster"), ("clusters", {"name": None}, "cluster"),
    ("users", {"user": {"token": 5}}, "token"), ("users", {"user": "x"}, "user"),
    ("users", {"user": {"tokenFile": "gone"}}, "tokenFile"), ("users", {"name": "other"}, "user"),
    ("users", {"user": {"auth-provider": {"name": "gcp"}}}, "auth-provider"),
    ("users", {"user": {"exec": {"apiVersion": "v9"}}}, "apiVersion"),
    ("contexts", {"context": {"cluster": "nowhere"}}, "cluster"),
    ("contexts", {"context": 5}, "mapping"),
    ("contexts", {"context": {"cluster": "bad", "user": "nobody"}}, "user"),
    ("contexts", {"context": {"cluster": "bad", "namespace": 5}}, "namespace"),
    ("contexts", {"context": {}}, "cluster"), ("contexts", {"context": {"cluster": 5}}, "cluster"),
]


@pytest.mark.parametrize("section, change, field", BROKEN)
def test_one_bad_context_never_makes_the_file_unusable(tmp_path, caplog, section, change, field):
    values, bad = config(user={"token": "SECRET"}), config(name="bad")
    bad[section][0].update(change)
    for name in ("clusters", "users", "contexts"):
        values[name] = ["rubbish", None] + bad[name] + values[name]
    path = write(tmp_path / "config", values)

    with apiproxy.Client.from_kubeconfig(path) as client:
        assert list(client.endpoints) == ["here"] and client.cluster == "here"
        with pytest.raises(ValueError, match=field):
            client.request("/x", {"cluster": "bad"})
        client.add_endpoint("bad", apiproxy.Endpoint("http://127.0.0.1:1"))
        client.delete_cluster("bad")
        with pytest.raises(ValueError, match="no cluster 'bad' here"):
            client.request("/x", {"cluster": "bad"})

    left_out = apiproxy.read_kubeconfig(path)
    assert list(left_out.endpoints("here")) == ["here"]
    assert field in left_out.left_out["bad"]
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert any(message.startswith("left out: " + path) for message in warnings)
    assert path + ": a cluster without a name is left out" in warnings  # the rubbish

    with pytest.raises(ValueError, match=re.escape(path) + ": context bad.*" + field):
        apiproxy.Client.from_kubeconfig(path, "bad")


def replaced(values, odd):
    """`values` with `odd` in each of its places in turn, and with each key taken away."""
    if isinstance(values, dict):
        for key, value in values.items():
            rest = {name: other for name, other in values.items() if name != key}
            yield rest
            yield {**rest, key: odd}
            for changed in replaced(value, odd):
                yield {**rest, key: changed}
    elif isinstance(values, list):
        for index, value in enumerate(values):
            yield values[:index] + [odd] + values[index + 1:]
            for changed in replaced(value, odd):
                yield values[:index] + [changed] + values[index + 1:]


@pytest.mark.parametrize("odd", [None, 5, [], {"a": 5}, *(
    pytest.param(odd, marks=pytest.mark.slow) for odd in (True, 1.5, "", "x", {}, [5]))], ids=repr)
def test_nothing_that_a_kubeconfig_says_is_more_than_a_value_error(odd):
    user = {"token": "t", "client-certificate-data": b64(LEAF), "client-key-data": b64(LEAF_KEY)}
    spec = says({}, env=[{"name": "A", "value": "1"}], provideClusterInfo=True, installHint="h")
    cluster = {
        "certificate-authority-data": b64(MIDDLE),
        "insecure-skip-tls-verify": False,
        "tls-server-name": "n",
        "proxy-url": "http://p:1",
        "disable-compression": True,
        "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"a": 1}}],
    }
    values = config(user={**user, **spec, **ALL}, cluster=cluster, namespace="n")

    for changed in replaced(values, odd):
        try:
            endpoint(changed)
        except ValueError:
            pass


# -- as tools write them -----------------------------------------------------------

CA, LEAF_PEM, LEAF_KEY_PEM = b64(MIDDLE), b64(LEAF), b64(LEAF_KEY)

WRITTEN = {
    "kind": ("kind-kind", """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {CA}
    server: https://127.0.0.1:35429
  name: kind-kind
contexts:
- context:
    cluster: kind-kind
    user: kind-kind
  name: kind-kind
current-context: kind-kind
kind: Config
preferences: {}
users:
- name: kind-kind
  user:
    client-certificate-data: {LEAF_PEM}
    client-key-data: {LEAF_KEY_PEM}
"""),
    "minikube": ("minikube", """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority: ca.crt
    extensions:
    - extension:
        last-update: Thu, 26 Nov 2026 10:02:53 CET
        provider: minikube.sigs.k8s.io
        version: v1.37.0
      name: cluster_info
    server: https://192.168.49.2:8443
  name: minikube
contexts:
- context:
    cluster: minikube
    extensions:
    - extension:
        last-update: Thu, 26 Nov 2026 10:02:53 CET
        provider: minikube.sigs.k8s.io
        version: v1.37.0
      name: context_info
    namespace: default
    user: minikube
  name: minikube
current-context: minikube
kind: Config
preferences: {}
users:
- name: minikube
  user:
    client-certificate: profiles/minikube/client.crt
    client-key: profiles/minikube/client.key
"""),
    "k3s": ("default", """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {CA}
    server: https://127.0.0.1:6443
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
users:
- name: default
  user:
    client-certificate-data: {LEAF_PEM}
    client-key-data: {LEAF_KEY_PEM}
"""),
    "EKS": ("arn:aws:eks:eu-central-1:111122223333:cluster/shop", """\
apiVersion: v1
clusters:
- cluster:
    server: https://0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com
    certificate-authority-data: {CA}
  name: arn:aws:eks:eu-central-1:111122223333:cluster/shop
contexts:
- context:
    cluster: arn:aws:eks:eu-central-1:111122223333:cluster/shop
    user: arn:aws:eks:eu-central-1:111122223333:cluster/shop
  name: arn:aws:eks:eu-central-1:111122223333:cluster/shop
current-context: arn:aws:eks:eu-central-1:111122223333:cluster/shop
kind: Config
preferences: {}
users:
- name: arn:aws:eks:eu-central-1:111122223333:cluster/shop
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      args:
      - --region
      - eu-central-1
      - eks
      - get-token
      - --cluster-name
      - shop
      - --output
      - json
      command: aws
      env:
      - name: AWS_PROFILE
        value: shop
      interactiveMode: IfAvailable
      provideClusterInfo: false
"""),
    "GKE": ("gke_shop-1_europe-west3-a_main", """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {CA}
    server: https://203.0.113.7
  name: gke_shop-1_europe-west3-a_main
contexts:
- context:
    cluster: gke_shop-1_europe-west3-a_main
    user: gke_shop-1_europe-west3-a_main
  name: gke_shop-1_europe-west3-a_main
current-context: gke_shop-1_europe-west3-a_main
kind: Config
preferences: {}
users:
- name: gke_shop-1_europe-west3-a_main
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      args: null
      command: gke-gcloud-auth-plugin
      env: null
      installHint: Install gke-gcloud-auth-plugin for use with kubectl by following
        https://cloud.google.com/kubernetes-engine/docs/how-to/cluster-access-for-kubectl
      interactiveMode: IfAvailable
      provideClusterInfo: true
"""),
    "AKS": ("shop-aks", """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {CA}
    server: https://shop-aks-dns-12345678.hcp.westeurope.azmk8s.io:443
  name: shop-aks
contexts:
- context:
    cluster: shop-aks
    user: clusterUser_shop_shop-aks
  name: shop-aks
current-context: shop-aks
kind: Config
preferences: {}
users:
- name: clusterUser_shop_shop-aks
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      args:
      - get-token
      - --environment
      - AzurePublicCloud
      - --server-id
      - 6dae42f8-4368-4678-94ff-3960e28e3630
      - --client-id
      - 80faf920-1908-4b52-b5ef-a8e7bedfc67a
      - --tenant-id
      - 00000000-0000-0000-0000-000000000000
      - --login
      - devicecode
      command: kubelogin
      env: null
      installHint: |2

        kubelogin is not installed which is required to connect to AAD enabled cluster.

        To learn more, please go to https://aka.ms/aks/kubelogin
      provideClusterInfo: false
"""),
    "OpenShift": ("shop/api-crc-testing:6443/developer", """\
apiVersion: v1
clusters:
- cluster:
    insecure-skip-tls-verify: true
    server: https://api.crc.testing:6443
  name: api-crc-testing:6443
contexts:
- context:
    cluster: api-crc-testing:6443
    namespace: shop
    user: developer/api-crc-testing:6443
  name: shop/api-crc-testing:6443/developer
current-context: shop/api-crc-testing:6443/developer
kind: Config
preferences: {}
users:
- name: developer/api-crc-testing:6443
  user:
    token: sha256~SECRET
"""),
    "Rancher": ("shop", """\
apiVersion: v1
kind: Config
clusters:
- name: "shop"
  cluster:
    server: "https://rancher.example/k8s/clusters/c-m-abcdefgh"
    certificate-authority-data: "{CA_LINES}"
- name: "shop-node-1"
  cluster:
    server: "https://192.0.2.10:6443"
    certificate-authority-data: "{CA_LINES}"

users:
- name: "shop"
  user:
    token: "kubeconfig-user-abcde:SECRET"


contexts:
- name: "shop"
  context:
    user: "shop"
    cluster: "shop"
- name: "shop-node-1"
  context:
    user: "shop"
    cluster: "shop-node-1"

current-context: "shop"
"""),
}


def written(tmp_path, text):
    """A kubeconfig that a tool wrote, with the files that it names."""
    (tmp_path / "profiles" / "minikube").mkdir(parents=True)
    write(tmp_path / "ca.crt", MIDDLE)
    write(tmp_path / "profiles" / "minikube" / "client.crt", LEAF)
    write(tmp_path / "profiles" / "minikube" / "client.key", LEAF_KEY)

    lines = "\\\n     ".join(CA[at:at + 76] for at in range(0, len(CA), 76))
    for name, value in (("CA_LINES", lines), ("CA", CA), ("LEAF_PEM", LEAF_PEM),
                        ("LEAF_KEY_PEM", LEAF_KEY_PEM)):
        text = text.replace("{%s}" % name, value)
    return write(tmp_path / "config", text)


@pytest.mark.parametrize("tool", list(WRITTEN))
def test_kubeconfigs_as_tools_write_them_need_nothing_but_python(tmp_path, tool):
    current, text = WRITTEN[tool]
    path = written(tmp_path, text)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import apiproxy;"
        "client = apiproxy.Client.from_kubeconfig(sys.argv[2]);"
        "endpoint = client.endpoints[client.cluster];"
        "print(client.cluster, len(client.endpoints), endpoint.context() is not None)"
    )

    output = subprocess.check_output(
        [sys.executable, "-I", "-S", "-c", code, HERE, path], env={"PATH": "", "HOME": ""},
        stderr=subprocess.DEVNULL)
    assert output.decode().split() == [current, "2" if tool == "Rancher" else "1", "True"]


# -- inside a cluster --------------------------------------------------------------


def test_inside_a_cluster_the_pods_own_files_say_who_we_are(serve, tmp_path, monkeypatch):
    server = serve(echo_headers, tls=True)
    write(tmp_path / "token", "SECRET-1\n")
    write(tmp_path / "namespace", "mine\n")
    write(tmp_path / "ca.crt", pem()[1])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))

    with apiproxy.Client.in_cluster(str(tmp_path), gzip=False) as client:
        assert (client.cluster, client.gzip) == ("in-cluster", False)
        assert client.endpoints["in-cluster"].namespace == "mine"
        assert client.request("/version")["authorization"] == "Bearer SECRET-1"

        write(tmp_path / "token", "SECRET-2\n")
        assert client.request("/version")["authorization"] == "Bearer SECRET-2"

    os.unlink(str(tmp_path / "namespace"))
    assert apiproxy.in_cluster_endpoint(str(tmp_path)).namespace == ""

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    direct = apiproxy.in_cluster_endpoint(str(tmp_path))
    assert direct.server == "https://[fd00::1]:%d" % server.port


@pytest.mark.parametrize("name, text", [
    ("token", None), ("token", ""), ("ca.crt", None), ("ca.crt", "nothing"),
])
def test_outside_of_a_cluster_that_is_said(tmp_path, monkeypatch, name, text):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    files = {"token": "SECRET", "ca.crt": MIDDLE, name: text}
    for file, content in files.items():
        if content is not None:
            write(tmp_path / file, content)

    with pytest.raises(ValueError, match="not inside a cluster: .*(%s|authority)" % name):
        apiproxy.Client.in_cluster(str(tmp_path))

    for variable in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        with monkeypatch.context() as patch:
            patch.delenv(variable)
            with pytest.raises(ValueError, match="are not set"):
                apiproxy.Client.in_cluster(str(tmp_path))


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


# ------------------------------------------------------------------------------
# 9. Transport
#
# Whose credential goes where, and what comes back beside the answer.
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirects_are_errors_and_nobody_else_is_asked(serve, new_client, status):
    other = serve(lambda request, conn: conn.reply(200, {}))
    server = serve(lambda request, conn: conn.reply(
        status, b"", {"Location": other.url + "/x?state=SECRET"}))
    client = new_client(server)
    client.set_token("dev", "SECRET")
    for method in ("GET", "POST"):
        error = failed(client.request, "/x", {"method": method})
        assert error.status == status
        assert " to '%s/x', " % other.url in str(error)

    assert len(server.requests) == 2 and not other.count


def test_an_answer_to_if_none_match_is_no_redirect(serve, new_client):
    client = new_client(serve(lambda request, conn: conn.reply(304, b"", reason="Not Modified")))
    error = failed(client.request, "/x", {"headers": {"If-None-Match": '"1"'}})
    assert (error.status, error.message) == (304, "Not Modified")


def test_a_request_has_these_headers_and_no_others(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    client = new_client(server)
    client.request("/x")
    client.set_token("dev", "SECRET")
    client.post("/x", {})

    ours = ["Host: " + server.url[7:], "Accept: application/json", "Accept-Encoding: gzip",
            "User-Agent: apiproxy/" + apiproxy.__version__]
    of_post = ["Authorization: Bearer SECRET", "Content-Type: application/json",
               "Content-Length: 2"]
    assert [sorted(request.lines[1:]) for request in server.requests] == [
        sorted(ours), sorted(ours + of_post)]


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


def test_a_warning_is_logged_once_and_as_it_is_meant(serve, new_client, caplog):
    warning = '299 - "unknown field \\"spec.x\\"", 299 k8s "b\x9b \xfc deprecated", 199 - "no"'
    client = new_client(serve(lambda request, conn: conn.reply(200, {}, {"Warning": warning})))
    client.request("/a")
    client.request("/b")

    texts = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.partition("/a: ")[2] for text in texts] == [
        'unknown field "spec.x"', "b \xfc deprecated"]


# -- credentials


def jwt(seconds, namespace="ns", name="robot"):
    """A token that looks like a service account's, and ends in `seconds`."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return "%s.%s.SECRET" % (part({"alg": "none"}),
        part({"exp": time.time() + seconds, "kubernetes.io": {
        "namespace": namespace, "serviceaccount": {"name": name, "uid": "1"}}}))


def test_a_token_that_ends_soon_is_renewed_once_and_the_new_one_used_at_once(
        serve, new_client, caplog):
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
    assert client.get_token("dev") == new and "not renewed" not in caplog.text


def test_a_stream_renews_its_token_first(serve, new_client):
    new, seen = jwt(3600), []
    server = serve(lambda request, conn: conn.reply(201, {"status": {"token": new}})
        if request.method == "POST" else hello(request, conn))
    client = new_client(server)
    client.set_token("dev", jwt(5))
    client.stream("/x", seen.append)
    eventually(lambda: seen)
    assert server.requests[-1].headers["authorization"] == "Bearer " + new


def test_one_request_has_headlamp_renew_a_token_and_the_others_wait(serve, new_client):
    old, new = jwt(5, name=""), jwt(3600, name="")
    server = serve(lambda request, conn: conn.reply(200, {}, {"X-Authorization": new}))
    client = new_client(server)
    client.set_token("dev", old)
    together(*[functools.partial(client.request, "/x")] * 4)
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer " + old] + ["Bearer " + new] * 3


@pytest.mark.parametrize("status, why", [(403, ""), (201, "no token in the answer")])
def test_a_renewal_that_fails_leaves_the_token_and_is_not_tried_again_at_once(
        serve, new_client, caplog, status, why):
    server = serve(lambda request, conn: conn.reply(
        status if request.method == "POST" else 200, {}))
    client = new_client(server)
    client.set_token("dev", jwt(-5))
    for _ in "123":
        client.request("/api/v1/pods")
    assert [request.method for request in server.requests] == ["POST", "GET", "GET", "GET"]
    assert "the token of cluster dev was not renewed: " + why in caplog.text


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
    eventually(lambda: len(threads()) == 1)


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


def test_x_authorization_replaces_the_token_of_that_cluster_and_x_reload_reloads(
        serve, new_client, caplog):
    reloads = []

    def reload():
        reloads.append(1)
        raise ValueError("no window")

    server = serve(lambda request, conn: conn.reply(200, {},
        {"X-Authorization": "SECRET-new", "X-Reload": "reload"}))
    client = new_client(server, on_reload=reload)
    client.set_token("dev", "SECRET-old")
    client.request("/a")
    client.request("/a", use_cluster=False)

    assert client.get_token("dev") == "SECRET-new"
    assert reloads == [1, 1]
    assert caplog.text.count("a hook failed") == caplog.text.count("ValueError: no window") == 2
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
    error = failed(client.request, "/a")
    assert error.status == 0 and not server.requests
    assert "SECRET" not in "%s %r" % (error, error)
    with pytest.raises(TypeError):
        client.set_token("dev", 5)


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_token_is_forgotten(new_client, nothing):
    client = new_client("http://127.0.0.1:1")
    client.set_token("dev", "SECRET")
    client.set_token("dev", nothing)
    assert client.get_token("dev") is None


@pytest.mark.parametrize("user_id", ["a\r\nX-Evil: y", "a\nb", "a\0", "a b", "a,b", "\u20ac"])
def test_a_user_id_that_a_header_can_not_carry_is_refused(serve, new_client, user_id):
    server = serve(lambda request, conn: conn.reply(200, pods()))
    client, errors = new_client(server), []
    client.user_id = user_id
    set_kubeconfig(client, "dev", "SECRET")

    with pytest.raises(ValueError):
        client.request("/x")

    streams = [lambda: client.stream("/x", print, {"failCb": errors.append}),
               lambda: client.stream_results("/api/v1/pods", print,
                   lambda error, cancel: [errors.append(error), cancel()])]
    for count, start in enumerate(streams, 1):
        try:
            start()
        except ValueError:
            errors.append(apiproxy.ApiError(0))
        eventually(lambda: len(errors) == count)  # one way or the other it is said

    assert [error.status for error in errors] == [0, 0] and not server.requests


def test_a_token_may_be_a_function_and_is_asked_each_time(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    client = new_client(server)
    tokens = iter(["SECRET-1", "SECRET-2", None])
    client.set_token("dev", lambda: next(tokens))
    [client.request("/a") for _ in "123"]

    assert [r.headers.get("authorization") for r in server.requests] == ["Bearer SECRET-1",
        "Bearer SECRET-2", None]


def test_the_backend_token_goes_to_headlamp_and_to_nobody_else(serve, new_client):
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

    assert with_token == server.paths()  # today's server asks for it nearly everywhere
    client.add_endpoint("direct", apiproxy.Endpoint(server.url, token="SECRET"))
    client.cluster = "direct"
    client.request("/x")
    assert "x-headlamp_backend-token" not in server.requests[-1].headers


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


# -- where credentials go, whatever happens meanwhile


def test_a_renewal_goes_only_to_the_address_that_the_token_is_for(serve, new_client):
    new = jwt(3600)

    def script(request, conn):
        conn.reply(*(201, {"status": {"token": new}}) if request.method == "POST" else (200, {}))

    first, second = serve(script), serve(script)
    client = new_client(first, cluster="a")

    # a token for Headlamp, then an endpoint, then for that one, then Headlamp again
    client.set_token("a", jwt(5))
    client.add_endpoint("a", apiproxy.Endpoint(second.url))
    client.request("/x")
    assert "authorization" not in second.requests[0].headers and not first.requests

    client.set_token("a", jwt(5))
    client.request("/x")
    assert [request.method for request in second.requests[1:]] == ["POST", "GET"]
    client.delete_cluster("a")
    client.request("/x")
    assert [request.method for request in first.requests] == ["GET"]
    assert "authorization" not in first.requests[0].headers

    client.add_endpoint("a", apiproxy.Endpoint(first.url, token=jwt(5)))
    client.add_endpoint("a", apiproxy.Endpoint(second.url))
    client.request("/x")
    assert "authorization" not in second.requests[-1].headers


def test_a_route_of_headlamps_own_never_gets_the_token_of_an_endpoint(serve, new_client):
    headlamp, other = (serve(lambda request, conn: conn.reply(200, {})) for _ in range(2))
    client = new_client(headlamp)
    client.add_endpoint("dev", apiproxy.Endpoint(other.url, token="SECRET"))
    # as a call sees it that found no endpoint a moment ago
    client._headlamp.drain_node("dev", "n")
    assert "authorization" not in headlamp.requests[0].headers


def test_nothing_of_a_cluster_goes_to_another_server_of_the_same_client(serve, new_client):
    first, second = (serve(lambda request, conn: conn.reply(200, {})) for _ in range(2))
    client = new_client(first)
    client.set_token("dev", "SECRET")
    set_kubeconfig(client, "dev", "SECRET")
    client.request("/x")
    assert {"authorization", "kubeconfig"} <= set(first.requests[0].headers)

    client.base_url = second.url
    client.request("/x")
    assert not {"authorization", "kubeconfig"} & set(second.requests[0].headers)


def test_no_token_reaches_another_server_than_its_own_under_stress(serve):
    """Two servers, tokens that name theirs and end soon, and threads that change all of it."""
    wrong = []

    def guard(name):
        def script(request, conn):
            sent = request.headers.get("authorization", "")
            if sent and (":%s:" % name) not in base64.b64decode(sent.split(".")[1]).decode():
                wrong.append((name, request.method))
            if request.method == "POST":
                return conn.reply(201, {"status": {"token": token(name)}})
            return conn.reply(200, {"items": [], "kind": "PodList"})

        return script

    def token(name):
        claims = {"exp": time.time() + chance.choice((1, 3600)), "for": ":%s:" % name,
            "kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "a"}}}
        return "SECRET.%s.x" % base64.b64encode(json.dumps(claims).encode()).decode()

    chance = random.Random(11)
    servers = {name: serve(guard(name)) for name in ("red", "blue")}
    client = apiproxy.Client(servers["red"].url, **FAST)
    stop, trouble = threading.Event(), []

    def replace():  # knows what is where: it alone changes it
        while not stop.is_set():
            name = chance.choice(("red", "blue"))
            endpoint = apiproxy.Endpoint(servers[name].url, token=chance.choice(
                (token(name), lambda name=name: token(name), None)))
            client.add_endpoint("c", endpoint)
            if chance.random() < 0.5:
                client.set_token("c", token(name))
            if chance.random() < 0.3:
                client.delete_cluster("c")
                client.set_token("c", token("red"))  # from now on Headlamp's

    def ask():
        while not stop.is_set():
            try:
                client.request("/api/v1/pods", {"cluster": "c"})
            except apiproxy.ApiError as error:
                trouble.append(error)

    def drain():
        while not stop.is_set():
            try:
                client.delete_plugin("p")
                client.list_port_forward("c")
            except apiproxy.ApiError:
                pass  # neither server is a Headlamp

    def finish():
        def enough():
            methods = [[r.method for r in server.requests] for server in servers.values()]
            return all(len(m) > 30 and "POST" in m for m in methods)  # POST: a renewal

        try:
            eventually(enough, 60)
        finally:
            stop.set()

    together(replace, ask, ask, ask, drain, finish)
    client.close()
    assert not wrong and not trouble


def test_an_endpoint_is_added_whole_or_not_at_all(serve, new_client):
    first, second = (serve(echo_headers) for _ in range(2))
    client = new_client("http://127.0.0.1:1")
    client.add_endpoint("dev", apiproxy.Endpoint(first.url, token="SECRET-1"))
    endpoint = client.endpoints["dev"]

    for bad, error in (("two words", ValueError), (5, TypeError), ("\n", ValueError)):
        with pytest.raises(error) as caught:
            client.add_endpoint("dev", apiproxy.Endpoint(second.url, token=bad))
        assert "two words" not in str(caught.value)
        assert client.endpoints["dev"] is endpoint and client.get_token("dev") == "SECRET-1"
        with pytest.raises(error):
            client.add_endpoint("new", apiproxy.Endpoint(second.url, token=bad))
        assert "new" not in client.endpoints

    assert client.request("/x")["authorization"] == "Bearer SECRET-1" and not second.requests


@pytest.mark.parametrize("leave", ["replaced", "deleted"])
def test_an_endpoint_that_goes_leaves_no_socket_and_no_tls_settings(
        serve, new_client, certificate, leave):
    server = serve(lambda request, conn: conn.reply(200, {}), tls=True)
    client, contexts, before = new_client("http://127.0.0.1:1"), [], sockets()

    for _ in range(50):
        context = ssl.create_default_context(cafile=certificate)
        contexts.append(weakref.ref(context))
        client.add_endpoint("dev", apiproxy.Endpoint(server.url, ssl_context=context))
        del context
        client.request("/x")
        if leave == "deleted":
            client.delete_cluster("dev")

    kept = leave == "replaced"
    eventually(lambda: len(server.open) == kept)
    assert sockets() - before <= 2 * kept + 1
    gc.collect()
    assert sum(context() is not None for context in contexts) == kept


@pytest.mark.parametrize("end", ["deleted", "replaced", "closed"])
def test_a_request_that_was_on_its_way_when_its_endpoint_went_leaves_nothing(
        serve, new_client, certificate, end):
    release = threading.Event()
    server = serve(lambda request, conn: release.wait(10) and conn.reply(200, {}), tls=True)
    client, context = new_client(""), ssl.create_default_context(cafile=certificate)
    settings = weakref.ref(context)
    client.add_endpoint("dev", apiproxy.Endpoint(server.url, ssl_context=context))
    del context
    call = background(client.request, "/x")
    eventually(lambda: server.requests)

    if end == "deleted":
        client.delete_cluster("dev")
    if end == "replaced":
        client.add_endpoint("dev", apiproxy.Endpoint("http://127.0.0.1:1"))
    if end == "closed":
        client.close()

    release.set()
    assert call.result() == {}
    eventually(lambda: not server.open)
    gc.collect()
    assert end == "closed" or settings() is None


# -- the deadline, and cancel, of what gives a token


def test_a_deadline_covers_a_function_that_gives_the_token(serve, new_client):
    server, release = serve(lambda request, conn: conn.reply(200, {})), threading.Event()
    client = new_client(server)
    client.set_token("dev", lambda: release.wait(20) and "SECRET")
    try:
        begun = time.monotonic()
        with pytest.raises(apiproxy.ApiError) as caught:
            client.request("/x", {"timeout": 100})
        assert caught.value.status == 408 and time.monotonic() - begun < 2
        assert not server.requests
        client.request_timeout = 0.1
        assert failed(client.get_token, "dev").status == 408
    finally:
        release.set()
    client.request_timeout = 10
    assert client.request("/x") == {} and client.get_token("dev") == "SECRET"


@pytest.mark.parametrize("start", [
    lambda client: client.stream_results("/api/v1/pods", print, print),
    lambda client: client.stream("/x", print).cancel,
    lambda client: client.metrics("/x", print)], ids=["watch", "stream", "metrics"])
def test_cancel_does_not_wait_for_a_function_that_gives_the_token(serve, new_client, start):
    server, release, asked = serve(hang), threading.Event(), threading.Event()
    client = new_client(server)
    client.set_token("dev", lambda: asked.set() or release.wait(20) and "SECRET")
    try:
        cancel = start(client)
        assert asked.wait(5)
        begun = time.monotonic()
        cancel()
        assert time.monotonic() - begun < 0.5
        assert not [name for name in threads() if name != "apiproxy-token"]
    finally:
        release.set()
    assert not server.requests


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
@pytest.mark.parametrize("how", ["late", "cancelled"])
def test_a_deadline_and_cancel_end_an_exec_plugin(serve, tmp_path, how):
    plugin = tmp_path / "plugin"
    plugin.write_text("#!/bin/sh\ntouch %s\nsleep 60 & wait\n" % (tmp_path / "begun"))
    plugin.chmod(0o700)
    server = serve(hang)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin),
        "interactiveMode": "Never"}}
    path = tmp_path / "config"
    path.write_text(json.dumps(config(server.url, user)))

    with apiproxy.Client.from_kubeconfig(str(path), **FAST) as client:
        begun = time.monotonic()
        if how == "late":
            assert failed(client.request, "/x", {"timeout": 300}).status == 408
        else:
            cancel = client.stream_results("/api/v1/pods", print, print)
            eventually(lambda: (tmp_path / "begun").exists())
            cancel()
            eventually(lambda: not threads())  # what it ran in ends a moment after it
        assert time.monotonic() - begun < 5 and not server.requests


# -- Headlamp's ways with tokens


def cookies(request):
    """The cookies of a request, in order."""
    header = request.headers.get("cookie")
    return [tuple(pair.split("=", 1)) for pair in header.split("; ")] if header else []


@pytest.mark.parametrize("size, pieces", [(6, 1), (3800, 1), (3801, 2), (7600, 2), (9000, 3)])
def test_a_token_may_go_as_cookies_in_pieces(serve, new_client, size, pieces):
    server, token = serve(hello_or_json), "SECRET".ljust(size, "x")
    client = new_client(server, token_as="cookie", cluster="d.e\u00e9v_1" + "x" * 50)
    client.set_token(client.cluster, token)
    client.request("/x")
    seen = []
    client.stream("/y", seen.append)
    eventually(lambda: seen)

    for request in server.requests:
        assert "authorization" not in request.headers
        assert [name for name, _ in cookies(request)] == [
            "headlamp-auth-dev_1%s.%d" % ("x" * 45, number) for number in range(pieces)]
        assert "".join(value for _, value in cookies(request)) == token
        assert max(len(value) for _, value in cookies(request)) <= 3800
        assert "bearer" not in request.headers.get("sec-websocket-protocol", "")


def test_a_cookie_never_goes_to_an_endpoint(serve, new_client):
    server = serve(hello_or_json)
    client, seen = new_client("http://127.0.0.1:1", token_as="cookie"), []
    client.add_endpoint("dev", apiproxy.Endpoint(server.url, token="SECRET-1"))
    client.request("/x")
    client.set_token("dev", "SECRET-2")
    client.stream("/y", seen.append)
    eventually(lambda: seen)
    sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == ["Bearer SECRET-1", "Bearer SECRET-2"]
    assert not any(cookies(request) for request in server.requests)


def test_a_401_to_a_cookie_is_one_to_its_token(serve, new_client):
    logouts = []
    server = serve(lambda request, conn: conn.reply(401, {}))
    client = new_client(server, token_as="cookie", on_logout=logouts.append)
    client.set_token("dev", "SECRET")
    assert failed(client.request, "/x").status == 401
    assert client.get_token("dev") is None and logouts == ["dev"]


@pytest.mark.parametrize("cluster, token", [
    ("\u00e9", "SECRET"), ("dev", 'SEC"RET'), ("dev", "SECRET;x"), ("dev", "SEC\\RET")])
def test_what_can_not_go_as_a_cookie_is_refused(serve, new_client, cluster, token):
    server = serve(hello_or_json)
    client = new_client(server, token_as="cookie", cluster=cluster)
    client.set_token(cluster, token)
    with pytest.raises(ValueError) as caught:
        client.request("/x")
    assert token not in str(caught.value) and not server.requests


def test_token_as_is_one_of_three_and_names_them(serve, new_client):
    for wrong in ("cookies", "", None, "Header"):
        with pytest.raises(ValueError, match="header, subprotocol, cookie"):
            apiproxy.Client("http://a", token_as=wrong)
    client = new_client(serve(hello_or_json))
    client.token_as = "bearer"
    with pytest.raises(ValueError, match="header, subprotocol, cookie"):
        client.request("/x")


def test_the_backend_token_is_one_header_on_http_and_websockets_and_no_subprotocol(
        serve, new_client):
    server, other, seen = serve(hello_or_json), serve(hello_or_json), []
    client = new_client(server, backend_token="SECRET-backend", token_as="subprotocol")
    client.set_token("dev", "SECRET-dev")
    client.request("/x")
    client.request("/x", {"headers": {"x-headlamp_Backend-Token": "SECRET-own"}})
    client.stream("/y", seen.append)
    client.add_endpoint("other", apiproxy.Endpoint(other.url))
    client.request("/x", {"cluster": "other"})
    client.stream("/y", seen.append, {"cluster": "other"})
    eventually(lambda: len(seen) == 2)

    for request in server.requests:
        lines = [line for line in request.lines if "backend" in line.lower()]
        assert len(lines) == 1 and "Sec-WebSocket" not in lines[0]
    sent = [request.headers["x-headlamp_backend-token"] for request in server.requests]
    assert sent == ["SECRET-backend", "SECRET-own", "SECRET-backend"]
    assert not [line for request in other.requests for line in request.lines
                if "backend" in line.lower()]


SET = "headlamp-auth-dev.%d=%s; Path=/clusters/dev; HttpOnly; SameSite=Strict; Max-Age=86400"
GONE = "headlamp-auth-dev.%d=; Path=/clusters/dev; Max-Age=0; HttpOnly"


def giving(status, *cookies, **headers):
    """The bytes of an answer with these lines of Set-Cookie."""
    lines = ["Set-Cookie: " + cookie for cookie in cookies]
    lines += ["%s: %s" % (name.replace("_", "-"), value) for name, value in headers.items()]
    head = ["HTTP/1.1 %d Reason" % status, "Content-Length: 2", *lines, "", "{}"]
    return "\r\n".join(head)


@pytest.mark.parametrize("lines, headers, token", [
    ([SET % (0, "SECRET-new")], {}, "SECRET-new"),
    ([GONE % 0, SET % (0, "SECRET-new")], {}, "SECRET-new"),
    ([GONE % 0, GONE % 1, SET % (0, "SECRET-new")], {}, "SECRET-new"),
    ([SET % (0, "SECRET-"), SET % (1, "new")], {}, "SECRET-new"),
    ([SET % (1, "new"), SET % (0, "SECRET-")], {}, "SECRET-new"),
    ([SET % (0, "SECRET-new"), GONE % 1, GONE % 2], {}, "SECRET-new"),
    ([SET % (0, '"SECRET-new"')], {}, "SECRET-new"),
    ([(SET % (0, "SECRET-new")).replace("; ", ";")], {}, "SECRET-new"),
    ([(SET % (0, "SECRET-new")).replace("dev", "other")], {}, "SECRET-old"),
    ([(SET % (0, "SECRET-new")).replace("dev", "de")], {}, "SECRET-old"),
    ([(SET % (0, "SECRET-new")).replace("dev", "dev.dev")], {}, "SECRET-old"),
    ([SET.replace("%d", "x") % "SECRET-new"], {}, "SECRET-old"),
    (["headlamp-auth-dev.99999=SECRET-new"], {}, "SECRET-old"),
    ([SET % (1, "SECRET-new")], {}, "SECRET-old"),  # its beginning is missing
    ([GONE % 0, SET % (1, "SECRET-new")], {}, "SECRET-old"),
    ([GONE % 0], {}, "SECRET-old"),
    ([SET % (0, "two words SECRET")], {}, "SECRET-old"),
    (["other=1", SET % (0, "SECRET-new"), "x"], {}, "SECRET-new"),
    ([], {"X_Authorization": "SECRET-new"}, "SECRET-new"),
    ([], {"X_Authorization": ""}, "SECRET-old"),
])
def test_a_fresh_token_is_taken_in_every_form(serve, new_client, lines, headers, token):
    server = serve(lambda request, conn: conn.send(giving(200, *lines, **headers)))
    client = new_client(server)
    client.set_token("dev", "SECRET-old")
    client.set_token("other", "SECRET-other")
    client.request("/x")
    assert client.get_token("dev") == token
    assert client.get_token("other") == "SECRET-other"
    client.request("/x")
    assert server.requests[1].headers["authorization"] == "Bearer " + token


def test_a_fresh_token_is_taken_only_for_the_one_that_was_sent(serve, new_client):
    server = serve(lambda request, conn: conn.send(giving(200, SET % (0, "SECRET-new"))))
    client = new_client(server)
    client.request("/x")
    assert client.get_token("dev") is None  # none was sent

    def answer(request, conn):
        client.set_token("dev", "SECRET-2")
        conn.send(giving(200, SET % (0, "SECRET-new")))

    server.script = answer
    client.set_token("dev", "SECRET-1")
    client.request("/x")
    assert client.get_token("dev") == "SECRET-2"  # it was replaced meanwhile

    client.set_token("dev", lambda: "SECRET-3")
    server.script = lambda request, conn: conn.send(giving(200, SET % (0, "SECRET-new")))
    client.request("/x")
    assert client.get_token("dev") == "SECRET-3"  # a function is asked each time

    client.add_endpoint("dev", apiproxy.Endpoint(server.url, token="SECRET-4"))
    client.request("/x")
    assert client.get_token("dev") == "SECRET-4"  # no Headlamp is there

    client.set_token("other", "SECRET-5")
    client.request("/config", use_cluster=False)
    assert client.get_token("other") == "SECRET-5"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_401_with_a_fresh_token_is_sent_once_more(serve, new_client, method):
    logouts = []

    def script(request, conn):
        number = len(server.requests)
        if request.headers["authorization"] == "Bearer SECRET-3" and not stubborn:
            return conn.reply(200, {"body": request.body.decode()})
        return conn.send(giving(401, SET % (0, "SECRET-%d" % (number + 2))))

    stubborn = []
    server = serve(script)
    client = new_client(server, on_logout=logouts.append)
    client.set_token("dev", "SECRET-old")
    assert client.request("/x", {"method": method, "body": "abc"}) == {"body": "abc"}
    assert [request.method for request in server.requests] == [method] * 2
    assert client.get_token("dev") == "SECRET-3" and not logouts

    stubborn.append(1)
    assert failed(client.request, "/x").status == 401
    assert len(server.requests) == 4  # once more, not for ever


def test_a_handshake_that_is_refused_with_a_fresh_token_is_sent_once_more(serve, new_client):
    def script(request, conn):
        if request.headers["authorization"] == "Bearer SECRET-old":
            return conn.send(giving(401, SET % (0, "SECRET-new")))
        return hello(request, conn)

    server, seen, failures = serve(script), [], []
    client = new_client(server)
    client.set_token("dev", "SECRET-old")
    client.stream("/x", seen.append, {"failCb": failures.append})
    eventually(lambda: seen or failures)
    assert not failures and len(server.requests) == 2
    assert client.get_token("dev") == "SECRET-new"


@pytest.mark.parametrize("start", [
    lambda client: client.request("/api/v1/pods"),
    lambda client: eventually(client.stream("/x", print).get_socket)], ids=["request", "stream"])
def test_parallel_requests_cause_one_refresh_and_the_next_handshake_uses_it(
        serve, new_client, start):
    old, new = ("%s.%s.SECRET" % (kind, base64.b64encode(json.dumps(
        {"exp": time.time() + seconds, "kind": kind}).encode()).decode().rstrip("="))
        for kind, seconds in (("old", 4), ("new", 3600)))
    refreshes, busy = [], []

    def script(request, conn):
        is_old = request.headers["authorization"] == "Bearer " + old
        refreshes.extend([1] * is_old)
        lines = "Set-Cookie: " + SET % (0, new) + "\r\n" if is_old else ""
        if is_old:
            conn.stopped.wait(0.1)  # the others come meanwhile
        if request.is_watch:
            protocol = "Sec-WebSocket-Protocol: base64.binary.k8s.io\r\n"
            conn.send(accepting(request, protocol + lines))
            return hang(request, conn)
        return conn.send(giving(200, *[SET % (0, new)] * is_old))

    server = serve(script)
    client = new_client(server)
    client.set_token("dev", old)
    together(*[functools.partial(start, client)] * 8)
    assert len(refreshes) == 1 and client.get_token("dev") == new
    eventually(client.stream("/y", busy.append).get_socket)
    assert server.requests[-1].headers["authorization"] == "Bearer " + new


# -- Headlamp's cache


def caching(answer):
    """The script of a Headlamp with its cache on: what it has of a path, whatever the query.

    A request that looks like an upgrade passes it by.
    """
    kept = {}

    def script(request, conn):
        path = request.path.partition("?")[0]
        fresh = answer(request)
        if "upgrade" in request.headers.get("connection", "").lower():
            return conn.reply(200, fresh)
        if path in kept:
            return conn.reply(200, kept[path], {"X-HEADLAMP-CACHE": "true"})
        kept[path] = fresh
        return conn.reply(200, fresh)

    return script


def test_an_answer_from_headlamps_cache_is_never_accepted(serve, new_client):
    server = serve(caching(lambda request: {"query": request.path.partition("?")[2]}))
    client = new_client(server)

    for number in range(5):
        answer = client.request("/api/v1/pods", None, True, True, {"limit": number})
        assert answer == {"query": "limit=%d" % number}
    assert len(server.requests) == 1 + 2 + 3  # seen once, it is passed by at once

    client.request("/api/v1/pods", {"cluster": "other"})
    client.post("/api/v1/pods", {})
    sent = ["upgrade" in request.headers.get("connection", "").lower()
            for request in server.requests]
    assert sent == [False, False, True, True, True, True, True, False]


def test_a_cache_that_can_not_be_passed_by_is_an_error_and_no_answer(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, {}, {"X-HEADLAMP-CACHE": "true"}))
    error = failed(new_client(server).request, "/x")
    assert error.status == 502 and "cache" in str(error)

    def refusing(request, conn):  # as kubectl proxy behind it
        if "connection" in request.headers:
            return conn.reply(500, "no upgrade")
        return conn.reply(200, {}, {"X-HEADLAMP-CACHE": "true"})

    assert failed(new_client(serve(refusing)).request, "/x").status == 502


def test_a_cached_answer_that_is_cut_is_asked_for_past_the_cache(serve, new_client):
    """Its entry of a compressed answer has that one's length: the server hangs up on it."""
    def script(request, conn):
        if "upgrade" in request.headers.get("connection", "").lower():
            return conn.reply(200, {"right": True})
        return False

    server = serve(script)
    client = new_client(server)
    assert client.request("/x") == client.request("/y") == {"right": True}
    assert len(server.requests) == 3

    dead = serve(eof)
    client = new_client(dead)
    assert failed(client.request, "/x").status == 502
    assert len(dead.requests) == 2  # suspected once
    assert failed(client.request, "/x").status == 502
    assert len(dead.requests) == 3


def test_neither_an_endpoint_nor_a_write_is_suspected_of_a_cache(serve, new_client):
    server = serve(lambda request, conn: conn.reply(
        200, {"from": 1}, {"X-HEADLAMP-CACHE": "true"}))
    client = new_client(server)
    assert client.post("/x", {}) == {"from": 1}
    client.add_endpoint("dev", apiproxy.Endpoint(server.url))
    assert client.request("/x") == {"from": 1}
    assert all("connection" not in request.headers for request in server.requests)


# -- what else passes between Headlamp and us


def test_another_host_is_said_on_http_and_websockets_but_to_no_endpoint(serve, new_client):
    server, seen = serve(hello_or_json), []
    client = new_client(server, host="localhost:4466")
    client.request("/x")
    client.stream("/y", seen.append)
    client.add_endpoint("direct", apiproxy.Endpoint(server.url))
    client.request("/x", {"cluster": "direct"})
    client.stream("/y", seen.append, {"cluster": "direct"})
    eventually(lambda: len(seen) == 2)
    own = server.url.partition("//")[2]
    hosts = [request.headers["host"] for request in server.requests]
    assert sorted(hosts) == sorted(["localhost:4466"] * 2 + [own] * 2)
    for request in server.requests:
        assert len([line for line in request.lines if line.lower().startswith("host:")]) == 1

    client.host = "a\r\nX-Evil: y"
    with pytest.raises(ValueError):
        client.request("/x")
    with pytest.raises(ValueError):
        connect(server.ws, host="a\r\nX-Evil: y")
    assert len(server.requests) == 4


def test_an_unknown_cluster_is_neither_a_missing_api_nor_a_matter_of_login(serve, new_client):
    logouts, errors = [], []
    server = serve(lambda request, conn: conn.reply(404, "key not found\n"))
    client = new_client(server, on_logout=logouts.append)
    client.set_token("dev", "SECRET")
    several = client.api_factory(("a", "v1", "x"), ("b", "v1", "x"), ("c", "v1", "x"))
    error = failed(several.delete, "n")
    assert (error.status, error.message, len(server.requests)) == (404, "key not found", 1)
    several.list(print, lambda error, cancel: errors.append(error.status))
    eventually(lambda: not threads())
    assert errors == [404] and len(server.requests) == 2
    assert client.get_token("dev") == "SECRET" and not logouts


@pytest.mark.parametrize("path, forgets", [
    ("/me", False), ("/me?x=1", False), ("/set-token", False), ("/portforward/list", False),
    ("/serviceproxy/ns/n?request=/x", False), ("/helm/releases", False),
    ("/api/v1/pods", True), ("/metrics", True), ("/version", True)])
def test_a_401_of_headlamps_own_routes_says_nothing_of_the_clusters_token(
        serve, new_client, path, forgets):
    logouts = []
    server = serve(lambda request, conn: conn.reply(401, "unauthorized"))
    client = new_client(server, on_logout=logouts.append)
    client.set_token("dev", "SECRET")
    assert failed(client.request, path).status == 401
    assert (client.get_token("dev"), logouts) == ((None, ["dev"]) if forgets else ("SECRET", []))


@pytest.mark.parametrize("user_id", ["ab.c", "a/b", "\u00e9", "a b", "a+b", ""])
def test_a_user_id_is_of_what_the_server_reads(serve, new_client, user_id):
    server = serve(hello_or_json)
    client = new_client(server, user_id=user_id)
    set_kubeconfig(client, "dev", "SECRET")
    if user_id:
        with pytest.raises(ValueError, match="letters, digits, - and _"):
            client.request("/x")
    else:
        client.request("/x")
        assert re.fullmatch("[a-z0-9]{16}", server.requests[0].headers["x-headlamp-user-id"])


WARNING = '299 - "policy/v1beta1 is deprecated"'


def test_warnings_of_the_api_server_are_logged_once_with_method_and_path(
        serve, new_client, caplog):
    values = [WARNING, WARNING, WARNING + ', 299 - "say \\"what\\", please"', '199 - "not ours"',
        "rubbish", '299 - "never ends']
    server = serve(lambda request, conn: conn.reply(
        200, {}, {"Warning": values[min(len(server.requests) - 1, 5)]}))
    client = new_client(server)
    for _ in values:
        client.post("/apis/policy/v1beta1/x", {})

    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(logged) == 2
    for message, text in zip(logged, ("policy/v1beta1 is deprecated", "please")):
        assert message.startswith("POST %s/clusters/dev/apis/policy/v1beta1/x: " % server.url)
        assert text in message


def test_the_rights_of_any_namespace_can_be_asked_for(serve, new_client):
    server = serve(lambda request, conn: conn.reply(201, {"status": {}}))
    client = new_client(server)
    client.test_auth()
    client.test_auth("other", namespace="kube-system")
    assert [(request.path.split("/")[2], json.loads(request.body)["spec"])
            for request in server.requests] == [
        ("dev", {"namespace": "default"}), ("other", {"namespace": "kube-system"})]


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


def test_rate_lets_a_burst_through_at_once_and_then_one_after_the_other():
    rate = apiproxy.Rate(3, 0.5, lambda: 7.0)
    assert [rate.take() for _ in range(6)] == [0, 0, 0, 2, 4, 6]


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
    if steps == [403] and not args.get("reconnectOnFailure"):
        goes_on = False  # a refusal: it would go on silently for ever
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


@pytest.mark.parametrize("steps, healthy_after, starts_anew", [
    ([frame(TEXT, "x"), 1000], 99, True), ([1000], 0, True), ([1000], 99, False)],
    ids=["a message", "it lasted", "neither"])
def test_a_stream_that_was_healthy_is_retried_at_once(
        serve, new_client, waits, steps, healthy_after, starts_anew):
    server = serve(once(*steps))
    client = new_client(server, retry_base=0.8, retry_cap=6.4, retry_reset=healthy_after)
    stream = client.stream(STREAM, lambda message: None)
    eventually(lambda: len(server.requests) > 4)
    stream.cancel()
    assert (max(waits) <= 0.1) == starts_anew


@pytest.mark.parametrize("value, wait", [("7", 7), ("999", 60)])
def test_a_stream_waits_as_long_as_it_is_told_to_within_limits(
        serve, new_client, waits, value, wait):
    server = serve(once(503, {"Retry-After": value}, b"later"))
    stream = new_client(server).stream(STREAM, print)
    eventually(lambda: len(server.requests) > 1)
    stream.cancel()
    assert max(waits) == wait


def test_a_second_cancel_waits_for_nothing(serve, new_client, monkeypatch):
    monkeypatch.setattr(apiproxy, "CANCEL_WAIT", 5)
    stream = new_client(serve(hello)).stream(STREAM, print)
    stream.cancel()
    begun = time.monotonic()
    stream.cancel()
    assert time.monotonic() - begun < 4


def test_close_waits_for_the_callbacks_of_all_streams_at_once(serve, new_client, monkeypatch):
    monkeypatch.setattr(apiproxy, "CANCEL_WAIT", 0.1)
    client, stuck, free = new_client(serve(hello)), [], threading.Event()
    for _ in range(5):
        client.stream(STREAM, lambda message: stuck.append(message) or free.wait(10))
    eventually(lambda: len(stuck) == 5)
    begun = time.monotonic()
    client.close()
    took = time.monotonic() - begun
    free.set()
    assert 0.1 <= took < 3


def test_a_stream_whose_start_was_interrupted_ends(serve, new_client, monkeypatch):
    def start(real, thread):
        real(thread)
        if thread.name.startswith("apiproxy"):
            raise KeyboardInterrupt

    client = new_client(serve(hello))
    wrap(monkeypatch, (threading.Thread, "start"), start)
    with pytest.raises(KeyboardInterrupt):
        client.stream(STREAM, print)
    eventually(lambda: not threads() and not client.tasks)


def test_a_stream_that_ends_leaves_no_connection_open(serve, new_client):
    server = serve(once(frame(TEXT, "{")))
    stream = new_client(server).stream(
        STREAM, print, {"isJson": True, "reconnectOnFailure": False})
    eventually(lambda: stream.error)
    assert "is not JSON" in str(stream.error)  # which holds the frames that it came from
    eventually(lambda: not server.open)


class Told:
    """What failCb may be: `got` has the arguments of each call."""

    def __init__(self):
        self.got = []

    def one(self, error):
        self.got.append((error,))

    def none(self):
        self.got.append(())

    def any(self, *args):
        self.got.append(args)

    def optional(self, error=None):
        self.got.append((error,))

    def keywords(self, *, x=1, **more):
        self.got.append(())

    def __call__(self, error):
        self.got.append((error,))


@pytest.mark.parametrize("make, takes", [
    (lambda told: lambda: told.none(), 0),
    (lambda told: lambda error: told.one(error), 1),
    (lambda told: lambda *args: told.any(*args), 1),
    (lambda told: told.none, 0), (lambda told: told.one, 1), (lambda told: told.any, 1),
    (lambda told: told.optional, 1), (lambda told: told.keywords, 0), (lambda told: told, 1),
    (lambda told: functools.partial(told.one), 1),
    (lambda told: functools.partial(told.one, "bound"), 0),
    (lambda told: functools.partial(told.any, "bound"), 2),
    (lambda told: functools.wraps(told.none)(lambda *args: told.any(*args)), 0),
])
def test_fail_cb_gets_the_error_if_it_takes_one(serve, new_client, make, takes):
    told = Told()
    stream = new_client(serve(once(503, (), b"why"))).stream(
        STREAM, print, {"failCb": make(told)})
    args, = eventually(lambda: told.got)
    errors = [arg for arg in args if isinstance(arg, apiproxy.ApiError)]
    assert len(args) == (takes or args.count("bound"))
    assert errors == ([stream.error] if takes else []) and stream.error.status == 503


@pytest.mark.parametrize("make, got", [
    (lambda got, event: got.append, True), (lambda got, event: event.set, False)])
def test_fail_cb_may_be_a_builtin(serve, new_client, make, got):
    errors, event = [], threading.Event()
    new_client(serve(once(503))).stream(STREAM, print, {"failCb": make(errors, event)})
    eventually(lambda: errors if got else event.is_set())
    assert [error.status for error in errors] == [503] * got


@pytest.mark.parametrize("status", [400, 401, 403, 404, 503])
@pytest.mark.parametrize("options", [
    {}, {"reconnectOnFailure": True}, {"failCb": 1}, {"failCb": 1, "reconnectOnFailure": True}],
    ids=["default", "insists", "told", "told, insists"])
def test_a_refused_stream_stops_unless_it_insists(serve, new_client, caplog, status, options):
    told = []
    if "failCb" in options:
        options = dict(options, failCb=told.append)
    server = serve(once(status, (), b"why"))
    stream = new_client(server).stream(STREAM, print, options)
    goes_on = options.get("reconnectOnFailure") or status == 503 and "failCb" not in options

    if goes_on:
        eventually(lambda: len(server.requests) > 3)
        stream.cancel()
    else:
        eventually(lambda: not threads())
        assert len(server.requests) == 1
        assert len(told) == ("failCb" in options)

    assert stream.error.status == status
    logged = [record for record in caplog.records if "why" in record.getMessage()]
    unforeseen = not options and status != 503  # that it ends for good: nobody else says it
    assert {record.levelname for record in logged} == {"INFO", *["WARNING"] * unforeseen}


@pytest.mark.parametrize("path, again", [
    ("/exec?command=ls", False), ("/attach", False), ("/exec", False), ("/log?follow=true", True),
    ("/log?x=/exec", True), ("/portforward", True)])
@pytest.mark.parametrize("end", [[frame(1, "x"), 1000], [eof], [503]])
def test_a_command_is_not_run_again_by_itself(serve, new_client, path, again, end):
    server = serve(once(*end))
    url = "/api/v1/namespaces/ns/pods/a" + path
    stream = new_client(server).stream(url, lambda message: None)

    if again:
        eventually(lambda: len(server.requests) > 3)
    else:
        eventually(lambda: not threads())
        assert len(server.requests) == 1 and stream.error is not None
    stream.cancel()

    before = len(server.requests)
    stream = new_client(server).stream(url, lambda message: None, {"reconnectOnFailure": True})
    eventually(lambda: len(server.requests) > before + 3)
    stream.cancel()


@pytest.mark.parametrize("message", [b"{", b"\xff", b"", b"[" * 100000 + b"]" * 100000])
def test_a_message_that_is_not_json_ends_the_connection_not_the_stream(serve, new_client, message):
    scripts = iter([once(frame(2, message))])
    server, seen = serve(lambda *args: next(scripts, once(frame(1, "1")))(*args)), []
    new_client(server).stream(STREAM, seen.append, {"isJson": True})
    eventually(lambda: seen == [1])


@row("W81")
def test_a_message_for_which_there_is_no_memory_ends_the_connection_not_the_stream(
        serve, new_client, monkeypatch):
    lack, seen, told = [MemoryError()], [], []

    def next_message(real, reader):
        if lack:
            raise lack.pop()
        return real(reader)

    wrap(monkeypatch, NEXT_MESSAGE, next_message)
    server = serve(once(frame(1, "x")))
    new_client(server).stream(
        STREAM, seen.append, {"failCb": told.append, "reconnectOnFailure": True})
    eventually(lambda: seen == ["x"])
    assert len(server.requests) == 2 and "no memory for a message" in str(told[0])


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

    assert (said, text(collection.view())) == (changed, view)


@pytest.mark.parametrize("before, after, differs, view", [
    ("", "", False, ""), ("a1", "a1", False, "a1"), ("a1 b1", "b1 a1", False, "a1 b1"),
    ("a1", "a2", True, "a2"),
    ("a2", "a1", True, "a1"), ("a1 b1 c1", "c2 d1 a1", True, "a1 c2 d1"), ("a1", "", True, ""),
    ("a1", "b1", True, "b1")])
def test_a_relist_replaces_everything_and_what_stayed_keeps_its_place(before, after, differs, view):
    collection = apiproxy.Collection()
    collection.replace([pod(*word) for word in before.split()])
    assert collection.replace([pod(*word) for word in after.split()]) is differs
    assert text(collection.view()) == view


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
        assert collection.view() == view()


def test_a_relist_forgets_deletions_before_it():
    collection = apiproxy.Collection()
    collection.apply("DELETED", pod("a", "5"))
    collection.replace([], "10")
    assert not collection.apply("ADDED", pod("a", "7"))

    collection.apply("DELETED", pod("a", "20"))
    collection.replace([], "12")  # a backup was restored
    assert collection.apply("ADDED", pod("a", "13"))


def test_a_relist_sees_other_contents_at_the_same_version():
    collection = apiproxy.Collection()
    collection.replace([pod("a")])
    collection.apply("MODIFIED", dict(pod("a", "2", data=1), actionType="MODIFIED"))
    held = collection.view()[0]
    assert collection.known(pod("a", "2", data=1)) is held
    assert not collection.replace([held])

    other = pod("a", "2", data=2)
    assert collection.known(other) is other
    assert collection.replace([other])
    assert collection.view()[0]["data"] == 2


def test_the_same_name_with_another_uid_is_another_object():
    collection = apiproxy.Collection()
    collection.replace([pod("a", "1", uid="1"), pod("b", "2")])
    assert collection.apply("DELETED", pod("a", "3", uid="1"))
    assert collection.apply("ADDED", pod("a", "4", uid="2"))
    assert not collection.apply("MODIFIED", pod("a", "2", uid="1"))
    assert text(collection.view()) == "b2 a4"

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

    assert text(collection.view()) == expected


TIMES = {  # where an object may say when it was last seen
    "lastTimestamp": lambda when: {"lastTimestamp": when},
    "eventTime": lambda when: {"eventTime": when},
    "series": lambda when: {"series": {"lastObservedTime": when}},
    "deprecatedLastTimestamp": lambda when: {"deprecatedLastTimestamp": when},
    "creationTimestamp": lambda when: {"metadata": {"creationTimestamp": when}},
}


@pytest.mark.parametrize("place", TIMES)
@pytest.mark.parametrize("earlier, later", [
    ("2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"),
    ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.000001Z"),
    ("2024-01-01T00:00:00.25Z", "2024-01-01T00:00:00.5Z"),
    ("2024-01-01T00:00:00.999999Z", "2024-01-01T00:00:01Z"),
    ("", "2024-01-01T00:00:00Z"), (None, "2024-01-01T00:00:00Z")])
def test_the_newest_is_told_by_each_of_five_times_with_fractions(place, earlier, later):
    for first, second in ((earlier, later), (later, earlier)):
        collection = apiproxy.Collection(1)
        collection.replace([pod("a", **TIMES[place](first)), pod("b", **TIMES[place](second))])
        assert text(collection.view()) == ("b1" if second == later else "a1")


def test_of_five_times_the_latest_counts():
    places = list(TIMES)
    for latest in places:
        item = pod("a", metadata={})
        for place in places:
            more = TIMES[place]("2024-06-01T00:00:00Z" if place == latest
                else "2024-01-01T00:00:00Z")
            item["metadata"].update(more.pop("metadata", {}))
            item.update(more)
        assert apiproxy.newest_first(item).startswith("2024-06")
    assert apiproxy.newest_first(pod("a", lastTimestamp=5, eventTime=[], series="x")) == ""


def test_tombstones_are_bounded():
    collection = apiproxy.Collection()
    for number in range(20000):
        collection.apply("DELETED", pod("a", str(number), uid=str(number)))
    assert tombstones(collection) == 10000
    assert not collection.apply("ADDED", pod("a", "1", uid="19999"))


# -- events

ADDED = json.dumps(event("ADDED", "a"))
RUBBISH = [
    "{", "x", "null", "[]", "1", '"ADDED"', "{}", ADDED + "{", ADDED[:-1], ADDED + "]",
    "[%s]" % ADDED, ADDED.encode(), "[" * 100000] + [
    json.dumps(dict(event("ADDED", "a"), **change)) for change in (
        {"type": "CHANGED"}, {"type": None}, {"type": ["ADDED"]}, {"object": None}, {"object": []},
        {"object": {}},
        {"object": {"metadata": None}}, {"object": {"metadata": []}},
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


def test_lists_come_again_after_resync_give_or_take_a_fifth(serve, new_client, clock):
    api = clock.watch(Api(serve, watches=[[bookmark(), lambda *args: clock.skip(20), 1000]]))
    api.start(new_client, resync=100.0)
    eventually(lambda: len(api.asked(False)) > 10)
    api.cancel()
    times = [when for when, is_watch in clock.asked if not is_watch]
    gaps = [after - before for before, after in zip(times, times[1:])]
    assert 80 <= min(gaps) and max(gaps) <= 145  # a watch ends every 20


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


@pytest.mark.parametrize("setting, sent", [(240, "240"), (2.9, "2"), (0.5, "1")])
def test_a_watch_asks_for_whole_seconds_and_for_one_at_least(serve, new_client, setting, sent):
    api = Api(serve).start(new_client, watch_timeout=(setting, setting))
    assert api.asked(True, 1)["timeoutSeconds"] == sent  # 0 would be what the server likes


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


def test_pages_with_objects_come_at_once_and_empty_ones_at_the_rate(serve, new_client, clock):
    page = [pods(pod("p%d" % number), **{"continue": str(number)}) for number in range(30)]
    empty = [pods(**{"continue": "e%d" % number}) for number in range(10)]

    api = Api(serve, page + empty + [pods()]).start(new_client, burst=2, rate=0.5)

    assert len(eventually(lambda: api.views)[0].split()) == 30
    assert 16 <= clock.passed < 30


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
    (200, dict(pods(), kind="Status")), (200, dict(pods(), items=[5])),
    (200, dict(pods(), items=5)), (200, pods(None)), (200, pods({"metadata": 5})),
    (200, pods(version=5)), (200, pod("a")),
    (200, dict(pods({"metadata": {"name": "a"}}), apiVersion={"x": 1})),
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
    # a kept connection that ended is asked again; so is a server that may have a broken cache, once
    assert len(api.errors) == (2 - later - (bad is eof) if callable(bad) else 2)
    assert set(api.errors) <= {bad[0] if isinstance(bad, tuple) else 502, 502}


@pytest.mark.parametrize("status", sorted(apiproxy.REFUSALS) + [422])
@pytest.mark.parametrize("start", [Api.start, lambda api, client: api.start(client, name="a")])
def test_a_refusal_of_the_first_list_ends_the_stream(serve, new_client, status, start):
    answers = [(503, b""), (status, {"kind": "Status", "code": status, "details": {"name": "a"}})]
    api = start(Api(serve, answers, gets=answers), new_client)
    eventually(lambda: not threads())
    assert api.errors == [503, status] and not api.views and len(api.server.requests) == 2
    assert {400, 401, 403, 404, 405, 406, 422} == apiproxy.REFUSALS


@pytest.mark.parametrize("status", sorted(apiproxy.REFUSALS) + [410, 500])
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


def test_what_a_relist_shows_unchanged_is_held_once(serve, new_client):
    lists = [pods(pod("a"), pod("b")), pods(pod("a"), pod("b", "12"), version="13")]
    api, views = Api(serve, lists, [[error(410)], []]), []
    new_client(api.server).stream_results("/api/v1/pods", views.append, api.error)
    eventually(lambda: [text(view) for view in views] == ["a1 b1", "a1 b12"])
    assert views[1][0] is views[0][0]


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


# -- lists as aggregated APIs have them


def bare_list(*names, **more):
    """A list of items that have names alone, without `kind`, `apiVersion` and metadata."""
    return {"items": [{"metadata": {"name": name}} for name in names], **more}


@pytest.mark.parametrize("answer, view, version", [
    (bare_list("a", "b"), ["a", "b"], None),
    (bare_list("a", metadata={}), ["a"], None),
    (bare_list("a", metadata=None), ["a"], None),
    (bare_list("a", metadata={"resourceVersion": ""}), ["a"], None),
    (bare_list("a", metadata={"resourceVersion": "0"}), ["a"], "0"),
    (bare_list("a", kind="ThingList", apiVersion="x/v1"), ["a"], None),
    ({"kind": "PodList", "metadata": {"resourceVersion": "7"}}, [], "7"),
    ({"kind": "PodList"}, [], None),
    ({"items": None}, [], None),
    ({"items": [{}, {"x": 1}]}, [None, None], None),
    ({"items": [{"metadata": {"name": "a"}}] * 2}, ["a"], None),
    (dict(bare_list("a"), kind="Table", rows=[
        {"cells": [1], "object": {"metadata": {"name": "t"}}}, {"cells": [2]}]), ["t", None], None),
    ({"kind": "Table", "rows": []}, [], None),
    ({"kind": "Table"}, [], None),
])
def test_a_list_without_what_others_have_is_shown_and_watched(
        serve, new_client, answer, view, version):
    seen = []
    api = Api(serve, [answer], [[event("ADDED", "z", "12")]])
    new_client(api.server).stream_results("/x", seen.append, api.error)
    eventually(lambda: len(seen) == 2)
    assert [[dig(item, "metadata", "name") for item in items] for items in seen] == [
        view, view + ["z"]]
    assert api.asked(True, 1).get("resourceVersion") == version and not api.errors
    for item in seen[0]:
        assert item["apiVersion"] == answer.get("apiVersion", "v1") and "kind" in item
        if answer.get("kind") == "ThingList":
            assert item["kind"] == "Thing"


def dig(item, *path):
    for key in path:
        item = (item or {}).get(key)
    return item


def test_items_that_share_a_uid_or_have_none_are_all_in_the_view(serve, new_client):
    items = [pod(name, uid="same", metadata={"namespace": space})
             for name in "ab" for space in ("x", "y")]
    items += [{"metadata": {"name": "n%d" % number}} for number in range(3)]
    api = Api(serve, [pods(*items)], [[
        {"type": "MODIFIED", "object": pod("b", "12", uid="same", metadata={"namespace": "x"})},
        {"type": "DELETED", "object": pod("a", "13", uid="same", metadata={"namespace": "y"})}]])
    seen = []
    new_client(api.server).stream_results("/x", seen.append, api.error)
    eventually(lambda: len(seen) == 3)

    def places(view):
        return [(item["metadata"].get("namespace"), item["metadata"]["name"]) for item in view]

    assert len(seen[0]) == len(set(places(seen[0]))) == 7 == len(seen[1])
    assert set(places(seen[0])) - set(places(seen[2])) == {("y", "a")}
    assert seen[1][places(seen[1]).index(("x", "b"))]["actionType"] == "MODIFIED"


# -- lists that can't be watched


def test_what_can_not_be_watched_is_polled_in_silence(serve, new_client):
    lists = [bare_list("a"), bare_list("a"), bare_list("a", "b"), bare_list("b")]
    api, seen = Api(serve, lists, [[405]]), []
    new_client(api.server).stream_results(
        "/x", lambda items: seen.append([item["metadata"]["name"] for item in items]), api.error)
    eventually(lambda: len(api.asked(False)) > 8)
    assert seen == [["a"], ["a", "b"], ["b"]]
    assert api.errors == [405] and len(api.asked(True)) == 1


def test_polls_keep_their_interval_and_tell_what_fails(serve, new_client, clock):
    lists = [bare_list("a")] * 3 + [(503, b"")] + [bare_list("b")]
    api, seen = clock.watch(Api(serve, lists, [[405]])), []
    client = new_client(api.server, **dict(REAL_TIMES, metrics_period=20.0))
    cancel = client.stream_results("/x", seen.append, api.error)
    eventually(lambda: clock.passed > 2500)
    cancel()
    asked = [is_watch for when, is_watch in clock.asked if when <= 2000]
    assert 95 <= asked.count(False) <= 105
    assert 3 <= asked.count(True) <= 5  # perhaps it can be watched by now
    assert api.errors == [405, 503]
    assert [item["metadata"]["name"] for item in seen[-1]] == ["b"]


# -- lists that take long, or are too large


def test_a_list_whose_first_byte_is_late_is_waited_for(serve, new_client):
    def late(request, conn):
        conn.stopped.wait(0.5)
        conn.reply(200, pods(pod("a")))

    api = Api(serve, [late]).start(new_client, list_idle=0.1)
    eventually(lambda: api.views == ["a1"])
    assert not api.errors and len(api.asked(False)) == 1


def test_silence_within_a_list_is_counted(serve, new_client):
    def stuck(request, conn):
        conn.send(JSON + "Content-Length: 400\r\n\r\n{")
        conn.wait_end()
        return False

    api = Api(serve, [stuck, pods(pod("a"))]).start(new_client, list_idle=0.1)
    eventually(lambda: api.views == ["a1"], 5)
    assert api.errors == [408]


def paged(items, unpaged, page=3, gone_at=()):
    """LISTs of a server that answers pages of `limit`, but without one as `unpaged` does.

    gone_at  tokens that are gone when they come for the first time
    """
    gone = list(gone_at)

    def script(request, conn):
        asked = query(request)
        if "limit" not in asked:
            return unpaged(request, conn)
        start = int(asked.get("continue", "0"))
        if start in gone:
            gone.remove(start)
            return conn.reply(410, {"kind": "Status", "code": 410, "reason": "Expired"})
        end = start + int(asked["limit"])
        more = {"continue": str(end)} if end < len(items) else {}
        return conn.reply(200, pods(*items[start:end], version=str(50 + start), **more))

    return script


def replies(status, body=b"", headers=()):
    return lambda request, conn: conn.reply(status, body, headers)


UNPAGED = {
    "504 after its 60 s": replies(504, {"kind": "Status", "code": 504, "reason": "Timeout"}),
    "cut": cut,
    "too large": replies(200, pods(pod("x", data="x" * 3000))),
    "too large, chunked": lambda request, conn: conn.send(
        CHUNKED + "fff\r\n" + "x" * 4095 + "\r\n0\r\n\r\n"),
    "silent in the middle": lambda request, conn: conn.send(
        JSON + "Content-Length: 400\r\n\r\n{") or hang(request, conn),
}


@pytest.mark.parametrize("unpaged", UNPAGED.values(), ids=UNPAGED)
@pytest.mark.parametrize("limit", [None, 2])
def test_a_list_that_can_not_come_in_one_answer_comes_in_pages(
        serve, new_client, unpaged, limit):
    def dated(number):
        return {"creationTimestamp": "20%d-01-01T00:00:00Z" % number}

    items = [pod("p%d." % number, metadata=dated(10 + number)) for number in range(8)]
    params = {
        "labelSelector": "a=b", "resourceVersion": "0", "resourceVersionMatch": "NotOlderThan",
        "limit": limit}
    api = Api(serve, [paged(items, unpaged)], [[event("ADDED", "z", "90", metadata=dated(90))]])
    api.start(new_client, params, list_page=3, max_body=2000, list_idle=0.2)
    eventually(lambda: len(api.views) == 2)

    shown = " ".join(text([item]) for item in items)
    assert api.views[0] == ("p7.1 p6.1" if limit else shown)
    assert len(api.errors) == 1  # that it could not come whole
    assert api.asked(True, 1)["resourceVersion"] == "50"  # of the first page
    pages = api.asked(False)[-3:]
    assert [page.get("limit") for page in pages] == ["3"] * 3
    assert [page.get("continue") for page in pages] == [None, "3", "6"]
    assert [page.get("labelSelector") for page in pages] == ["a=b"] * 3
    assert [page.get("resourceVersion") for page in pages] == [None] * 3  # 0 would void the limit


@pytest.mark.parametrize("status, then", [(410, {}), (504, {"limit": "3"})])
def test_a_version_that_the_server_does_not_have_is_not_insisted_on(
        serve, new_client, status, then):
    version = {"resourceVersion": "9", "resourceVersionMatch": "Exact", "continue": "x"}
    api = Api(serve, [(status, b""), pods(pod("a"))]).start(new_client, version, list_page=3)
    eventually(lambda: api.views)
    assert api.asked(False) == [version, then] and api.errors == [status]


def test_a_page_that_is_gone_begins_again_and_shows_nothing_of_the_first_try(serve, new_client):
    items = [pod("p%d." % number) for number in range(8)]
    api = Api(serve, [paged(items, UNPAGED["504 after its 60 s"], gone_at=(6, 3))])
    api.start(new_client, list_page=3)
    eventually(lambda: api.views)
    assert api.views == [" ".join(text([item]) for item in items)] and api.errors == [504]
    assert [page.get("continue") for page in api.asked(False)[1:]] == [
        None, "3", None, "3", "6", None, "3", "6"]


def test_pages_that_are_too_large_themselves_become_smaller(serve, new_client):
    items = [pod("p%d." % number, data="x" * 400) for number in range(20)]
    api = Api(serve, [paged(items, UNPAGED["cut"])])
    api.start(new_client, list_page=16, max_body=3000)
    eventually(lambda: api.views, 20)
    assert api.views == [" ".join(text([item]) for item in items)]
    assert [page.get("limit") for page in api.asked(False)][:4] == [None, "16", "8", "4"]


def test_many_pages_come_at_the_pace_of_the_server(serve, new_client, clock):
    items = [pod("p%d." % number) for number in range(200)]
    api = clock.watch(Api(serve, [paged(items, UNPAGED["504 after its 60 s"])]))
    api.start(new_client, **dict(REAL_TIMES, list_page=5))
    eventually(lambda: api.views)
    assert len(api.views[0].split()) == 200 and clock.passed < 10


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
        for code in (200, 302, 400, 401, 403, 404, 406, 422, 429, 500, 503)),
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


def test_what_breaks_three_times_at_one_version_is_listed_again(serve, new_client):
    api = Api(serve, watches=[[1011]]).start(new_client, short_watch=0.0)
    eventually(lambda: len(api.asked(False)) > 1)
    assert [request.is_watch for request in api.server.requests[:5]] == [0, 1, 1, 1, 0]


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
    assert not api.errors


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


@pytest.mark.slow
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


def test_stream_result_shows_no_other_object_although_the_selector_is_ignored(serve, new_client):
    """As aggregated APIs do, in lists and in watches."""
    lists = [pods(pod("b"), pod("a", "5"), pod("c"), version="20"), pods(pod("b"), version="30")]
    api = Api(serve, lists, [
        [event("MODIFIED", "b", "11"), event("MODIFIED", "a", "12"), event("DELETED", "c", "13"),
         error(410)],
        [event("ADDED", "b", "21"), event("DELETED", "b", "22"), error(410)],
        [event("ADDED", "b", "31"), event("ADDED", "a", "32")]], gets=[pod("a")])
    api.start(new_client, name="a")
    eventually(lambda: api.views[-1:] == ["a32 ADDED"])
    assert api.views == ["a1", "a12 MODIFIED", "a5", "a5 DELETED", "a32 ADDED"]
    assert not api.errors


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


# -- ends that were asked for, and others


@pytest.mark.slow
def test_a_watch_of_one_second_on_a_quiet_list_is_silent(serve, new_client):
    def quiet(request, conn):
        conn.stopped.wait(float(query(request)["timeoutSeconds"]))
        return conn.send(frame(CLOSE, b"\x03\xe8")) or False

    api = Api(serve, watches=[[quiet]])
    api.start(new_client, {"timeoutSeconds": 1}, short_watch=default("short_watch"))
    eventually(lambda: len(api.asked(True)) == 3)
    assert not api.errors and len(api.asked(False)) == 1


@pytest.mark.parametrize("end", [1000, 1001, eof])
def test_the_first_early_end_is_silent_and_the_second_says_what_happened(serve, new_client, end):
    errors = []
    api = Api(serve, watches=[[end], [end], []])
    new_client(api.server, short_watch=9.0).stream_results(
        "/api/v1/pods", api.view, lambda error, cancel: errors.append(str(error)))
    api.asked(True, 3)
    assert len(errors) == 1 and "1000" not in errors[0]
    assert "2 watches in a row ended at once, without an event" in errors[0]


def test_a_watch_with_an_event_between_makes_an_early_end_the_first_again(serve, new_client):
    api = Api(serve, watches=[[1000], [B2, 1000], [1000], []])
    api.start(new_client, short_watch=9.0)
    api.asked(True, 4)
    assert not api.errors


# -- gather


def test_a_burst_becomes_one_view_and_the_last_is_right(serve, new_client, monkeypatch):
    parsed = []
    wrap(monkeypatch, PARSE_JSON, lambda real, data: parsed.append(type(data)) or real(data))
    events = [event("MODIFIED", "a", str(version)) for version in range(11, 360)]
    events += [event("ADDED", "b", "360"), event("DELETED", "a", "361"), event("ADDED", "c", "362")]
    api, seen = Api(serve, watches=[events]), []
    new_client(api.server, gather=0.4).stream_results("/x", seen.append, api.error)
    eventually(lambda: len(seen) == 2)
    assert [text(items) for items in seen] == ["a1", "b360 c362"]
    assert [item["actionType"] for item in seen[1]] == ["ADDED", "ADDED"]
    assert parsed.count(str) == len(events)  # each once


def test_the_collector_rests_while_a_burst_is_parsed_and_not_in_the_callback(
        serve, new_client, monkeypatch):
    parsing, shown = set(), set()

    def note(real, data):
        if isinstance(data, str):
            parsing.add(gc.isenabled())
        return real(data)

    wrap(monkeypatch, PARSE_JSON, note)
    api = Api(serve, watches=[[event("MODIFIED", "a", str(version)) for version in range(11, 60)]])
    new_client(api.server, gather=0.15).stream_results(
        "/x", lambda items: api.view(items) or shown.add(gc.isenabled()), api.error)
    eventually(lambda: api.views == ["a1", "a59"])
    assert parsing == {False} and shown == {True} and gc.isenabled()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [False, True])
def test_nothing_is_later_than_gather_although_messages_never_stop(
        serve, new_client, monkeypatch, changes):
    def slowly(real, data):
        if threading.current_thread().name == "apiproxy-watch":
            time.sleep(0.002)  # so that the next message is always there
        return real(data)

    wrap(monkeypatch, PARSE_JSON, slowly)
    more = [event("MODIFIED", "b", str(version)) if changes else bookmark("12")
            for version in range(12, 1012)]
    api, seen = Api(serve, watches=[[event("ADDED", "b", "11"), *more]]), []
    cancel = new_client(api.server, gather=0.1).stream_results(
        "/x", lambda items: seen.append(time.monotonic()), print)
    eventually(lambda: len(seen) > (4 if changes else 1))
    cancel()
    assert all(0.09 <= later - earlier < 1.0 for earlier, later in zip(seen[1:], seen[2:]))
    assert seen[1] - seen[0] < 1.0


@pytest.mark.parametrize("end, gather", [
    (1000, 60.0), (eof, 60.0), (reset, 60.0),
    (error(410), 0.1), (error(500), 0.1), (frame(1, "{"), 0.1)])
def test_what_was_gathered_is_shown_when_the_watch_ends(serve, new_client, end, gather):
    api = Api(serve, [pods(pod("a")), pods(pod("a"), pod("b", "12"), version="20")],
        [[B2, end], []])
    api.start(new_client, gather=gather, short_watch=0.0)
    eventually(lambda: api.views[1:])
    assert api.views == ["a1", "a1 b12"]


def test_cancel_while_a_view_is_put_off_shows_it_no_more(serve, new_client):
    api = Api(serve, watches=[[B2]])
    api.start(new_client, gather=0.2)
    api.asked(True, 1)
    threading.Event().wait(0.05)
    api.cancel()
    threading.Event().wait(0.3)
    assert api.views == ["a1"] and not threads()


def test_order_and_action_types_are_the_same_with_gather(serve, new_client):
    events = [event("ADDED", "c", "11"), event("MODIFIED", "a", "12"), event("DELETED", "b", "13"),
        event("ADDED", "b", "14"), event("MODIFIED", "c", "15")]
    api = Api(serve, [pods(pod("a"), pod("b"))], [events])
    views = {}
    for gather in (0.0, 0.1):
        seen = views.setdefault(gather, [])
        new_client(api.server, gather=gather).stream_results("/x", seen.append, api.error)
        eventually(lambda: seen and text(seen[-1]) == "a12 c15 b14")
    facts = [[(item["metadata"]["name"], item["actionType"]) for item in seen[-1]]
             for seen in views.values()]
    assert facts[0] == facts[1] == [("a", "MODIFIED"), ("c", "MODIFIED"), ("b", "ADDED")]
    assert len(views[0.0]) == 6 and len(views[0.1]) == 2


def test_one_object_is_shown_in_every_state_although_views_are_gathered(serve, new_client):
    api = Api(serve, watches=[CHANGES[1:2] + [event("DELETED", "a", "15")]], gets=[pod("a")])
    api.start(new_client, name="a", gather=60.0)
    eventually(lambda: len(api.views) == 3)
    assert api.views == ["a1", "a14 MODIFIED", "a15 DELETED"]


# -- wait_for


def ready(status, **more):
    return {"conditions": [{"type": "Ready", "status": status}], **more}


PODS = "/api/v1/pods"


def test_wait_for_waits_until_a_function_says_so(serve, new_client):
    api = Api(serve, watches=[[event("MODIFIED", "a", "11", x=1), event("MODIFIED", "b", "12", x=2),
        event("MODIFIED", "a", "13", x=2)]])
    client = new_client(api.server)
    got = client.wait_for(PODS, "a", lambda item: item.get("x") == 2, 10)
    assert got["metadata"]["resourceVersion"] == "13"
    assert api.asked(False)[0] == {"fieldSelector": "metadata.name=a"}
    assert not client.tasks and not threads()


def test_wait_for_waits_for_a_condition_of_the_status(serve, new_client):
    api = Api(serve, [pods(pod("a", status=ready("False")), pod("b", status=ready("True")))], [[
        event("MODIFIED", "a", "11", status={"conditions": None}),
        event("MODIFIED", "a", "12", status=ready("Unknown")),
        event("MODIFIED", "a", "13", status=ready("True"))]])
    got = new_client(api.server).wait_for(PODS, "a", "READY", 10, cluster="other")
    assert got["metadata"]["resourceVersion"] == "13"
    assert api.server.paths()[0].startswith("/clusters/other/api/v1/pods")


@pytest.mark.parametrize("lists, watches, last", [
    ([pods()], [[]], None), ([pods(pod("b"))], [[]], None),
    ([pods(pod("a"))], [[event("MODIFIED", "a", "11"), event("DELETED", "a", "12")]], "11"),
    ([pods(pod("a")), pods(pod("b"), version="20")], [[error(410)], []], "1"),
    # made again while nobody watched
    ([pods(pod("a")), pods(pod("a", "9", uid="new"), version="20")], [[error(410)], []], "1")])
def test_wait_for_waits_until_it_is_gone(serve, new_client, lists, watches, last):
    got = new_client(Api(serve, lists, watches).server).wait_for(PODS, "a", "deleted", 10)
    assert (got and got["metadata"]["resourceVersion"]) == last


def test_wait_for_an_object_that_is_not_there_yet(serve, new_client):
    api = Api(serve, [pods()], [[event("ADDED", "a", "11", status=ready("True"))]])
    assert new_client(api.server).wait_for(PODS, "a", "Ready")["kind"] == "Pod"


@pytest.mark.parametrize("items, condition, text", [
    ([], "Ready", "a is not Ready: it is not there"),
    ([pod("a", status={"phase": "Pending"})], "Ready",
        'a is not Ready: its status is {"phase": "Pending"}'),
    ([pod("a", status={"x": "y" * 9000})], lambda item: False, "a is not as wanted: its status is"),
    ([pod("a")], "deleted", "a is not deleted: it has no status")])
@pytest.mark.parametrize("timeout", [0, 0.2])
def test_wait_for_says_at_the_end_what_it_last_was(
        serve, new_client, items, condition, text, timeout):
    client = new_client(Api(serve, [pods(*items)]).server)
    told = "no answer yet"
    while "no answer yet" in told:  # for long where much else is to be done
        with pytest.raises(TimeoutError) as caught:
            client.wait_for(PODS, "a", condition, timeout)
        told = str(caught.value) if timeout else ""
        timeout *= 2
    assert told.startswith(text if timeout else "")
    assert str(caught.value).startswith("a is not ") and len(str(caught.value)) < 400
    assert not threads()


def test_wait_for_does_not_say_what_no_server_has_said(serve, new_client):
    with pytest.raises(TimeoutError, match="a is not Ready: no answer yet"):
        new_client(serve(hang)).wait_for(PODS, "a", "Ready", 0.1)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_wait_for_raises_what_the_server_refuses(serve, new_client, status):
    api = Api(serve, [(503, b""), (status, b"no")])
    error = failed(new_client(api.server).wait_for, PODS, "a", "Ready")
    assert error.status == status and not threads()


@pytest.mark.parametrize("refusal", [
    405, *(pytest.param(status, marks=pytest.mark.slow) for status in (403, 401))])
def test_wait_for_does_with_lists_where_it_may_not_watch(serve, new_client, refusal):
    lists = [pods(pod("a"))] * 3 + [pods(pod("a", "2", status=ready("True")))]
    api = Api(serve, lists, [[refusal]])
    assert new_client(api.server).wait_for(PODS, "a", "Ready", 10)["status"] == ready("True")


@pytest.mark.parametrize("raised", [ValueError, KeyError, SystemExit])
def test_wait_for_raises_what_its_condition_raises(serve, new_client, raised):
    def condition(item):
        raise raised("oops")

    with pytest.raises(raised, match="oops"):
        new_client(Api(serve).server).wait_for(PODS, "a", condition, 10)
    assert not threads()


def test_wait_for_ends_with_its_client(serve, new_client):
    api = Api(serve)
    client = new_client(api.server)
    call = background(client.wait_for, PODS, "a", "Ready", None)
    api.asked(True, 1)
    client.close()
    error = call.result(2)
    assert isinstance(error, apiproxy.ApiError) and "cancelled" in str(error)


def test_wait_for_raises_what_nobody_expected(serve, new_client, monkeypatch):
    monkeypatch.setattr(apiproxy.Transport, "send", lambda *args, **options: 1 / 0)
    call = background(new_client("http://127.0.0.1:1").wait_for, PODS, "a", "Ready", None)
    error = call.result(2)
    assert isinstance(error, apiproxy.ApiError) and "ZeroDivisionError" in str(error)


@pytest.mark.parametrize("arguments, error", [
    ((PODS, "a", 5), TypeError), ((PODS, "a/b", "Ready"), ValueError),
    (("/x y", "a", "Ready"), ValueError)])
def test_wait_for_refuses_wrong_arguments(new_client, arguments, error):
    with pytest.raises(error):
        new_client("http://127.0.0.1:1").wait_for(*arguments)
    assert not threads()


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


# -- wait_for


def test_what_can_only_be_listed_is_waited_for(serve, new_client):
    def state(version, ready):
        conditions = [{"type": "Ready", "status": ready}]
        return pods(pod("a", version, status={"conditions": conditions}), version=version)

    api = Api(serve, [state("1", "False"), state("2", "False"), state("3", "True")], [(405, b"")])

    found = new_client(api.server).wait_for("/api/v1/pods", "a", "Ready", 10)
    assert found["metadata"]["resourceVersion"] == "3"


@pytest.mark.parametrize("in_status, in_condition", [(1, None), (None, 1), (2, 1), (0, 1)])
def test_a_condition_of_an_older_generation_is_not_waited_for(
        serve, new_client, in_status, in_condition):
    def state(version, up_to_date):
        condition = {"type": "Available", "status": "True"}
        status = {"conditions": [condition]}
        for place, observed in ((condition, in_condition), (status, in_status)):
            if observed is not None:
                place["observedGeneration"] = 2 if up_to_date else observed
        return pod("a", version, status=status, metadata={"generation": 2})

    newer = {"type": "MODIFIED", "object": state("12", True)}
    api = Api(serve, [pods(state("1", False))], [[newer]])

    found = new_client(api.server).wait_for("/api/v1/pods", "a", "Available", 10)
    assert found["metadata"]["resourceVersion"] == "12"


def test_what_has_gone_is_said_to_have_gone_and_not_shown_as_it_was(serve, new_client):
    api = Api(serve, [pods(pod("a"))], [[event("DELETED", "a", "12")]])
    with pytest.raises(TimeoutError, match="a is not Ready: it has gone"):
        new_client(api.server).wait_for("/api/v1/pods", "a", "Ready", 0.3)


@pytest.mark.parametrize("lists, watches, status", [
    ([(403, b"")], [[]], 403), ([(405, b"")], [[]], 405)])
def test_what_is_refused_is_not_waited_for(serve, new_client, lists, watches, status):
    api = Api(serve, lists, watches)
    with pytest.raises(apiproxy.ApiError) as caught:
        new_client(api.server).wait_for("/api/v1/pods", "a", "Ready", None)
    assert caught.value.status == status


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
    tracemalloc = pytest.importorskip("tracemalloc")  # not on PyPy
    tracemalloc.start()
    try:
        new_client(api.server).stream_results("/api/v1/pods", view, api.error)
        eventually(lambda: seen[-1:] == [last], 60)
        assert tracemalloc.get_traced_memory()[1] < (16 << 20 if count == 50000 else 2 << 20)
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
        eventually(lambda: api.errors or api.asked(watch != ()) and (api.views or stage != "pace"))
    elif stage == "refused":
        eventually(lambda: api.errors)
    else:
        eventually(lambda: api.errors or tasks_with_a_connection(api.client))

    seen, start = (list(api.views), list(api.errors)), time.monotonic()
    api.cancel()
    api.cancel()

    assert time.monotonic() - start < 1
    eventually(lambda: not [name for name in threads() if name != "apiproxy-lookup"])

    # the connection of an answer that was read whole
    kept = 1 if api.views or stage == "retry" else 0
    eventually(lambda: len(api.server.open) <= kept or stage == "closing")

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
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
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
    eventually(lambda: not threads())

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
    times = dict(connect_timeout=0.02) if way in ("black hole", "mute TLS") else {}

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
    world.settled(bound=1.2 * 600)  # listed meanwhile; watched again as seldom as a resync
    assert len(world.attempts) == 1

    assert 59 <= world.lists <= 75
    assert {error.status for error in world.errors} == {405}

    for when, state in changes:
        assert 0 <= next(shown for shown, text in world.views if text == state) - when <= 11


# -- B. LIST


@row("W22")
@pytest.mark.parametrize("start", [b"", HEAD[:20], HEAD, HEAD + b'{"items": ['], ids=short)
def test_a_list_that_falls_silent_is_given_up(new_world, new_client, start):
    world = new_world().start(new_client, keep_alive=0.0).ready()
    # silence counts once the answer has begun: an API server may need 60 s for its first byte
    setting = "list_idle" if start.startswith(HEAD) else "request_timeout"
    setattr(world.client, setting, 0.02)
    world.broken(sends(start), "list", lambda: [at("127.0.0.1:%d" % world.port)], last=error(410),
               undo=lambda: setattr(world.client, setting, default(setting)))
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
    trust_the_cache(world.client)
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


@pytest.mark.slow
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


def test_lists_and_watches_that_follow_each_other_have_one_pace(serve, new_client, clock):
    api = clock.watch(Api(serve, watches=[[B2, error(410)]]))
    api.start(new_client, **REAL_TIMES)
    eventually(lambda: len(clock.asked) > 40)
    api.cancel()
    assert clock.is_no_storm()


def test_a_quiet_watch_that_lasts_as_long_as_it_was_to_is_healthy(serve, new_client, clock):
    lasting = [frame(9, "?"), lambda request, conn: conn.read_frame(),
               lambda *args: clock.skip(10), 1000]
    api = Api(serve, watches=[lasting])
    api.start(new_client, {"timeoutSeconds": 10}, **REAL_TIMES)
    eventually(lambda: len(api.asked(True)) > 6)
    assert max(clock.waits) <= 0.1


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
        if what == "threads":
            eventually(lambda: api.views[-1:] == STATES[-1:])  # looked up in the watch's own thread
        else:
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
    proxies(https_proxy=proxy.url, **(dict(no_proxy="localhost.,[::1]") if past else {}))
    trusting.check_hostname = False
    host = "localhost" if past else "far.test"  # which this machine is for the proxy
    place = "https://%s:%d" % (host, api.server.port)
    api.start(lambda server, **settings: new_client(place, **settings), ssl_context=trusting)
    eventually(lambda: api.views == STATES[:2])

    target = "CONNECT far.test:%d" % api.server.port
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


MANIFEST = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


# -- API clients


def test_an_api_client_makes_reads_changes_scales_and_removes(api):
    deployments = api.api_factory_with_namespace("apps", "v1", "deployments", True)
    assert deployments.is_namespaced
    assert deployments.api_info == [{"group": "apps", "version": "v1", "resource": "deployments"}]

    made = deployments.post(web(api.space, 2))
    assert deployments.scale.get(api.space, "web")["spec"]["replicas"] == 2
    scale = {"metadata": {"name": "web", "namespace": api.space}, "spec": {"replicas": 5}}
    scaled = deployments.scale.put(scale)
    assert scaled["kind"] == "Scale" and scaled["spec"]["replicas"] == 5
    scaled = deployments.scale.patch({"spec": {"replicas": 4}}, api.space, "web")
    assert scaled["kind"] == "Scale" and scaled["spec"]["replicas"] == 4

    now = api.request("/apis/apps/v1/namespaces/%s/deployments/web" % api.space)
    assert now["spec"]["replicas"] == 4 and now["metadata"]["uid"] == made["metadata"]["uid"]
    patch = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    assert deployments.patch(patch, api.space, "web")["metadata"]["labels"] == {"a": "b"}
    stale = {**now, "metadata": {**now["metadata"], "resourceVersion": "1"}}
    del now["metadata"]["resourceVersion"]
    now["spec"]["replicas"] = 1
    assert deployments.put(now)["spec"]["replicas"] == 1
    with pytest.raises(apiproxy.ApiError) as caught:
        deployments.put(stale)
    assert caught.value.status == 409

    seen = Views()
    deployments.list(api.space, seen.cb, seen.err_cb)
    eventually(lambda: seen.views)
    deployments.delete(api.space, "web")
    eventually(lambda: seen.views[-1] == [])


def test_an_api_client_of_a_cluster_wide_resource(api):
    nodes = api.api_factory("", "v1", "nodes")
    assert not nodes.is_namespaced
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": api.space}}
    made, states = nodes.post(node), []
    nodes.get(api.space, states.append, print)
    eventually(lambda: states)
    assert states[0]["metadata"]["uid"] == made["metadata"]["uid"]
    patched = nodes.patch({"metadata": {"labels": {"a": "b"}}}, api.space)
    assert patched["metadata"]["labels"]["a"] == "b"
    assert nodes.delete(api.space)["status"] == "Success"


def test_a_scale_is_there_only_if_it_was_asked_for(new_client):
    one = new_client("http://127.0.0.1:1")
    info = ("apps", "v1", "deployments")
    for args in (info, info + (False,), (info, info + (False,)), ([*info],)):
        assert one.api_factory_with_namespace(*args).scale is None
    for args in (info + (True,), (info, info + (True,)), ([*info, True],)):
        client_of_it = one.api_factory_with_namespace(*args)
        assert isinstance(client_of_it, apiproxy.NamespacedApiClient)
        assert isinstance(client_of_it.scale, apiproxy.ScaleApi)


def test_endpoints_are_tried_in_order_until_the_server_has_one(api):
    endpoints = ("no.group", "v1", "configmaps"), ("", "v1", "configmaps")
    maps = api.api_factory_with_namespace(*endpoints)
    maps.post(config_map("a", api.space, x="1"))
    maps.patch({"data": {"x": "2"}}, api.space, "a")
    for missing in (
        lambda: maps.delete(api.space, "nope"),
        lambda: maps.post(config_map("a", "no-such-space")),
    ):
        with pytest.raises(apiproxy.ApiError) as caught:
            missing()
        assert caught.value.details["name"] in ("nope", "no-such-space")  # not the API's 404

    seen, states = Views(), []
    other = api.api_factory_with_namespace(*endpoints)
    other.list(api.space, seen.cb, seen.err_cb)
    other.get(api.space, "a", states.append, seen.err_cb)
    eventually(lambda: seen.views and states)
    assert states[0]["data"] == {"x": "2"} and not seen.errors

    lost = Views()
    nowhere = api.api_factory(("no.group", "v1", "xs"), ("no.other", "v1", "xs"))
    nowhere.list(lost.cb, lost.err_cb)
    eventually(lambda: lost.errors)
    assert [error.status for error in lost.errors] == [404] and not lost.views


def test_the_endpoint_that_answered_last_is_asked_first_by_cluster(serve, new_client):
    def script(request, conn):
        there = "/apps/" in request.path if "/one/" in request.path else "/old/" in request.path
        conn.reply(200, {"ok": 1}) if there else conn.reply(404, "404 page not found\n")

    server = serve(script)
    maps = new_client(server).api_factory_with_namespace(("old", "v1", "a"), ("apps", "v1", "a"))
    for cluster in ("one", "one", "two", "one", "two"):
        maps.delete("d", "x", None, cluster)
    asked = [path.split("/")[2] + " " + path.split("/")[4] for path in server.paths()]
    assert asked == ["one old", "one apps", "one apps", "two old", "one apps", "two old"]


def test_the_endpoint_that_a_list_came_from_is_asked_first(serve, new_client):
    def script(request, conn):
        if "/old/" in request.path:
            return conn.reply(404, "404 page not found\n")
        return hang(request, conn) if request.is_watch else conn.reply(200, pods())

    server, seen = serve(script), Views()
    maps = new_client(server).api_factory(("old", "v1", "a"), ("apps", "v1", "a"))
    cancel = maps.list(seen.cb, seen.err_cb)
    eventually(lambda: seen.views)
    maps.delete("x")
    cancel()
    assert len([path for path in server.paths() if "/old/" in path]) == 1  # by the list


def test_two_resources_of_one_api_are_two_endpoints(serve, new_client):
    def script(request, conn):
        if "/olds" in request.path:
            return conn.reply(404, "404 page not found\n")
        conn.reply(200, {"ok": 1})

    server = serve(script)
    maps = new_client(server).api_factory_with_namespace(("g", "v1", "olds"), ("g", "v1", "news"))
    for _ in "12":
        maps.delete("d", "x")
    assert [path.split("/")[-2] for path in server.paths()] == ["olds", "news", "news"]


def test_factories_refuse_impossible_endpoints(new_client):
    one = new_client("http://127.0.0.1:1")
    for args in (
        (), ([],), (("a", "b"),), ("", "v1"), ("", "", "pods"), ("a/b", "v1", "pods"),
        ("", "v1", "a/b"), (5,), (None,), (("", "v1", "pods"), "x"), ("", "v1", 5),
    ):
        for factory in (one.api_factory, one.api_factory_with_namespace):
            with pytest.raises((ValueError, TypeError)):
                factory(*args)


def test_a_patch_is_a_list_or_a_mapping(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, {}))
    maps = new_client(server).api_factory_with_namespace("", "v1", "configmaps")
    for patch in ({}, [], ()):
        maps.patch(patch, "n", "a", {"dryRun": "All"})
    assert [request.headers["content-type"] for request in server.requests] == [
        "application/%s-patch+json" % kind for kind in ("merge", "json", "json")]
    assert {path.partition("?")[2] for path in server.paths()} == {"dryRun=All&pretty=true"}
    for patch in (None, "x", b"{}", 5):
        with pytest.raises(TypeError):
            maps.patch(patch, "n", "a")
    assert len(server.requests) == 3


# -- discovery


def resource_list(*names, kind="ConfigMap", namespaced=True):
    return {"kind": "APIResourceList", "resources": [
        {"name": name, "kind": kind, "namespaced": namespaced} for name in names]}


def test_apply_asks_discovery_again_before_it_says_no_and_skips_subresources(serve, new_client):
    listed = resource_list("widgets/scale", kind="Widget")

    def script(request, conn):
        if request.path.endswith("/v1"):
            return conn.reply(200, listed)
        conn.reply(201, json.loads(request.body))

    server = serve(script)
    one = new_client(server)
    widget = {"apiVersion": "g/v1", "kind": "Widget", "metadata": {"name": "w"}}
    with pytest.raises(apiproxy.ApiError) as caught:
        one.apply(widget)
    assert caught.value.status == 404 and "Widget" in str(caught.value)

    listed.update(resource_list("widgets/scale", "widgets", kind="Widget"))
    assert one.apply(widget)["metadata"] == {"name": "w", "namespace": "default"}
    one.apply(widget)
    assert server.paths().count("/clusters/dev/apis/g/v1") == 2  # the first miss, then remembered
    assert server.paths()[-1] == "/clusters/dev/apis/g/v1/namespaces/default/widgets"

    one.discovery_ttl = 0.0
    one.apply(widget)
    assert server.paths().count("/clusters/dev/apis/g/v1") == 3


def test_what_was_discovered_at_an_endpoint_does_not_go_for_the_next(serve, new_client):
    def script(namespaced):
        listed = resource_list("ws", kind="W", namespaced=namespaced)
        return lambda request, conn: conn.reply(*(
            (200, listed) if request.path == "/apis/g/v1" else (201, json.loads(request.body))))

    old, new = serve(script(True)), serve(script(False))
    one = new_client("")
    for server in (old, new):
        one.add_endpoint("dev", apiproxy.Endpoint(server.url))
        one.apply({"apiVersion": "g/v1", "kind": "W", "metadata": {"name": "w"}})
    assert old.paths()[-1] == "/apis/g/v1/namespaces/default/ws"
    assert new.paths()[-1] == "/apis/g/v1/ws"


@pytest.mark.parametrize("answer, told", [
    ([], "[]"), (None, None), (5, "5"), ("x", "x"),
    ({"resources": {"a": 1}}, "{'a': 1}"), ({"resources": 5}, "5"),
    ({"resources": [5]}, "5"), ({"resources": [None]}, "None"), ({"resources": [[]]}, "[]"),
    ({"resources": [{"name": 5, "kind": "ConfigMap"}]}, "'name': 5"),
    ({"resources": [{"name": "configmaps", "kind": ["ConfigMap"]}]}, "['ConfigMap']"),
    ({"resources": [{"name": "configmaps"}]}, "'name': 'configmaps'"),
    ({"resources": None}, "no kind ConfigMap"), ({"resources": []}, "no kind ConfigMap"),
    ({}, "no kind ConfigMap"),
    (resource_list(".."), "no kind ConfigMap"), (resource_list("a b\n"), "no kind ConfigMap"),
    (resource_list("a/b"), "no kind ConfigMap"),
])
def test_odd_answers_of_discovery_are_errors_that_say_what_came(serve, new_client, answer, told):
    server = serve(lambda request, conn: conn.reply(200, answer))
    with pytest.raises(apiproxy.ApiError) as caught:
        new_client(server).apply(MANIFEST)
    assert told is None or told in str(caught.value)
    assert {request.method for request in server.requests} == {"GET"}


def test_what_is_forgotten_while_it_is_asked_for_stays_forgotten(new_client):
    class Slow:
        """A Transport whose answer comes after the cluster was replaced."""

        settings = new_client("http://127.0.0.1:1")
        asked = 0

        def send(self, *_, **__):
            self.asked += 1
            if self.asked == 1:
                discovery.forget("c")
            name = "olds" if self.asked == 1 else "news"
            return apiproxy.Response(200, "OK", {}, json.dumps(resource_list(name)).encode())

    discovery = apiproxy.Discovery(Slow())

    def found(cluster):
        return discovery.find(cluster, "/api/v1", "ConfigMap", apiproxy.Scope(), False)[0]

    assert [found(cluster) for cluster in "cccd"] == ["olds", "news", "news", "news"]


@pytest.mark.parametrize("server_side", [False, True])
def test_a_kind_that_came_back_with_another_scope_is_found(serve, new_client, server_side):
    scope = ["Namespaced"]

    def script(request, conn):
        if request.path.endswith("/v1"):
            listed = resource_list("ws", kind="W", namespaced=scope[0] == "Namespaced")
            return conn.reply(200, listed)
        if ("/namespaces/" in request.path) != (scope[0] == "Namespaced"):
            return conn.reply(404, "404 page not found\n")
        conn.reply(201, json.loads(request.body))

    server = serve(script)
    one, seen = new_client(server), []
    options = {"field_manager": "me"} if server_side else {}
    for scope[0] in ("Namespaced", "Cluster", "Namespaced"):
        made = one.apply({"apiVersion": "g/v1", "kind": "W", "metadata": {"name": "w"}}, **options)
        seen.append(made["metadata"].get("namespace"))
    assert seen == ["default", None, "default"]

    scope[0] = "Gone"
    server.script = lambda request, conn: conn.reply(404, "404 page not found\n")
    with pytest.raises(apiproxy.ApiError) as caught:
        one.apply({"apiVersion": "g/v1", "kind": "W", "metadata": {"name": "w"}}, **options)
    assert caught.value.status == 404


# -- apply: what is sent


@pytest.mark.parametrize("body", [
    None, [], {}, "x", {"kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": "v1", "metadata": {"name": "a"}}, {"apiVersion": "v1", "kind": "Pod"},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": []},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-"}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a/b"}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 5}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": ".."}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": 5}},
    {"apiVersion": "a/b/c", "kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": "/v1", "kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": 1, "kind": "Pod", "metadata": {"name": "a"}},
    {"apiVersion": "v1", "kind": "List", "metadata": {"name": "a"}, "items": []},
    {"apiVersion": "v1", "kind": "PodList", "metadata": {"name": "a"}, "items": []},
])
def test_what_can_not_be_applied_is_refused_before_anything_is_sent(serve, new_client, body):
    server = serve(lambda request, conn: conn.reply(200, {}))
    with pytest.raises((ValueError, TypeError)):
        new_client(server).apply(body)
    with pytest.raises(TypeError, match="object to apply: mapping expected, not list"):
        new_client(server).apply([body])  # as read_yaml gives it
    assert not server.requests


@pytest.mark.parametrize("more", [{"kind": "AllowList"}, {"kind": "Menu", "items": []}])
def test_a_kind_that_only_looks_like_a_list_can_be_applied(more):
    body = {"apiVersion": "g/v1", "metadata": {"name": "a"}, **more}
    assert apiproxy.check_applicable(body) == body


UTC = datetime.timezone.utc
LATER = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


@pytest.mark.parametrize("value, sent", [
    (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
    (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05Z"),  # YAML: UTC
    (datetime.datetime(2026, 1, 2, 3, 4, 5, 678900, UTC), "2026-01-02T03:04:05.678900Z"),
    (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=LATER), "2026-01-02T03:04:05+05:30"),
    (datetime.date(2026, 1, 2), "2026-01-02"),  # what kubectl sends of an unquoted one
    ([{"a": (datetime.date(2026, 1, 2),)}], [{"a": ["2026-01-02"]}]),
    (types.MappingProxyType({"a": None}), {"a": None}),
    ([True, 0, 10 ** 20, 0.5, "é", None, {}, []],) * 2,
])
def test_dates_become_text_and_all_else_stays(value, sent):
    assert apiproxy.plain_json({"a": value}) == {"a": sent}


@pytest.mark.parametrize("body, path", [
    ({"data": {"since": {1}}}, "data.since is a set"),
    ({"data": {"since": b"SECRET"}}, "data.since is a bytes"),
    ({"spec": {"ports": [{}, {"port": decimal.Decimal(5)}]}}, "spec.ports[1].port is a Decimal"),
    ({"a": float("nan")}, "a is a float"), ({"a": [float("-inf")]}, "a[0] is a float"),
    ({"a": datetime.time(1)}, "a is a time"), ({"a": datetime.timedelta(1)}, "a is a timedelta"),
    ({"a": object}, "a is a type"), ({"a": 1j}, "a is a complex"),
    ({"a": (n for n in ())}, "a is a generator"),
    ({"data": {5: "SECRET"}}, "data has a key that is no text: 5"),
    ({"data": {None: "SECRET"}}, "data has a key that is no text: None"),
    ({True: "SECRET"}, "the object has a key that is no text: True"),
])
def test_what_json_lacks_is_refused_with_its_path(serve, new_client, body, path):
    server = serve(lambda request, conn: conn.reply(200, {}))
    with pytest.raises(ValueError) as caught:
        new_client(server).apply({**MANIFEST, **body})
    assert path in str(caught.value) and "SECRET" not in str(caught.value)
    assert not server.requests


def test_an_object_that_holds_itself_is_refused(new_client):
    body = dict(MANIFEST)
    body["data"] = [body]
    with pytest.raises(ValueError):
        new_client("http://127.0.0.1:1").apply(body)


LAID = [  # what is there, the manifest, and the one laid over the other
    ({}, {}, {}),
    ({"a": 1}, {}, {"a": 1}),
    ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ({"a": 1}, {"a": None}, {}),
    ({}, {"a": None, "data": {"b": None}, "list": [{"c": None}]}, {"data": {}, "list": [{}]}),
    ({"metadata": {"a": 1, "b": 1}}, {"metadata": {"a": 2}}, {"metadata": {"a": 2, "b": 1}}),
    ({"metadata": {"labels": {"a": "1", "b": "1"}}}, {"metadata": {"labels": {"a": "2"}}},
     {"metadata": {"labels": {"a": "2", "b": "1"}}}),
    ({"metadata": {"labels": {"a": "1"}}}, {"metadata": {"labels": None}},
     {"metadata": {}}),
    ({"metadata": {"labels": {"a": "1", "b": "1"}}}, {"metadata": {"labels": {"a": None}}},
     {"metadata": {"labels": {"b": "1"}}}),
    ({"spec": {"x": None}}, {"spec": {"y": 1}}, {"spec": {"x": None, "y": 1}}),
    ({"metadata": {"labels": {"spec": "1"}}}, {"metadata": {"labels": {"spec": "2"}}},
     {"metadata": {"labels": {"spec": "2"}}}),
    ({"metadata": {"finalizers": ["a", "b"]}}, {"metadata": {"finalizers": ["a"]}},
     {"metadata": {"finalizers": ["a"]}}),
    ({"data": {"a": "1", "b": "1"}}, {"data": {"a": "2"}}, {"data": {"a": "2"}}),
    ({"data": {"caBundle": "1", "nodePort": "1"}}, {"data": {"a": "2"}}, {"data": {"a": "2"}}),
    ({"data": {"labels": {"a": 1}, "spec": {"a": 1}}}, {"data": {"labels": {}, "spec": {}}},
     {"data": {"labels": {}, "spec": {}}}),
    ({"spec": {"replicas": 5, "nodeSelector": {"a": "1", "b": "1"}}},
     {"spec": {"nodeSelector": {"a": "1"}}}, {"spec": {"replicas": 5, "nodeSelector": {"a": "1"}}}),
    ({"spec": {"template": {"metadata": {"annotations": {"restartedAt": "1"}}, "spec": {"x": 1}}}},
     {"spec": {"template": {"metadata": {"labels": {"a": "1"}}, "spec": {"y": 1}}}},
     {"spec": {"template": {"metadata": {"annotations": {"restartedAt": "1"}, "labels": {"a": "1"}},
                            "spec": {"x": 1, "y": 1}}}}),
    ({"spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": {"b": "1"}}}}}}},
     {"spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": {"a": "1"}}}}}}},
     {"spec": {"jobTemplate": {"spec": {"template": {"metadata": {
         "labels": {"a": "1", "b": "1"}}}}}}}),
    ({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}},
     {"spec": {"strategy": {"type": "Recreate"}}}, {"spec": {"strategy": {"type": "Recreate"}}}),
    ({"spec": {"x": {"metadata": {"a": 1}}}}, {"spec": {"x": {"metadata": {"b": 1}}}},
     {"spec": {"x": {"metadata": {"b": 1}}}}),
    ({"spec": {"containers": [{"name": "a", "env": [1]}, {"name": "b"}]}},
     {"spec": {"containers": [{"name": "a"}]}}, {"spec": {"containers": [{"name": "a"}]}}),
    ({"spec": [1]}, {"spec": {"a": 1}}, {"spec": {"a": 1}}),
    ({"spec": {"a": 1}}, {"spec": [1]}, {"spec": [1]}),
    ({"spec": None, "metadata": 5}, {"spec": {"a": 1}, "metadata": {}},
     {"spec": {"a": 1}, "metadata": {}}),
    ({"status": {"a": 1}}, {"status": {}}, {"status": {"a": 1}}),
    # A Service's ports: found again by port and protocol, whatever they are called.
    ({"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 1, "targetPort": 80},
                         {"port": 80, "protocol": "UDP", "nodePort": 2}]}},
     {"spec": {"ports": [{"port": 80, "protocol": "UDP"}, {"port": 80}, {"port": 81}]}},
     {"spec": {"ports": [{"port": 80, "protocol": "UDP", "nodePort": 2},
                         {"port": 80, "nodePort": 1}, {"port": 81}]}}),
    ({"spec": {"ports": [{"name": "a", "port": 80, "nodePort": 1}]}},
     {"spec": {"ports": [{"name": "b", "port": 80}]}},
     {"spec": {"ports": [{"name": "b", "port": 80, "nodePort": 1}]}}),
    ({"spec": {"ports": [{"port": 80, "nodePort": 1}]}},
     {"spec": {"ports": [{"port": 80, "nodePort": 5}]}},
     {"spec": {"ports": [{"port": 80, "nodePort": 5}]}}),
    ({"spec": {"ports": [5, {"port": [1]}]}}, {"spec": {"ports": [{"port": [1]}, 6]}},
     {"spec": {"ports": [{"port": [1]}, 6]}}),
    # What cert-manager writes into webhooks and conversions.
    ({"webhooks": [{"name": "a", "clientConfig": {"url": "u", "caBundle": "x"}}]},
     {"webhooks": [{"name": "b", "clientConfig": {}}, {"name": "a", "clientConfig": {"url": "v"}}]},
     {"webhooks": [{"name": "b", "clientConfig": {}},
                   {"name": "a", "clientConfig": {"caBundle": "x", "url": "v"}}]}),
    ({"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": "x"}, "y": 1}}}},
     {"spec": {"conversion": {"webhook": {"clientConfig": {"url": "v"}}}}},
     {"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": "x", "url": "v"}}}}}),
    ({"spec": {"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {}}}}},
     {"spec": {"conversion": {"strategy": "None"}}},
     {"spec": {"conversion": {"strategy": "None"}}}),
    # The claim that a volume is bound to, and another.
    ({"spec": {"claimRef": {"namespace": "n", "name": "a", "uid": "u"}}},
     {"spec": {"claimRef": {"namespace": "n", "name": "a"}}},
     {"spec": {"claimRef": {"namespace": "n", "name": "a", "uid": "u"}}}),
    ({"spec": {"claimRef": {"namespace": "n", "name": "a", "uid": "u"}}},
     {"spec": {"claimRef": {"namespace": "n", "name": "b"}}},
     {"spec": {"claimRef": {"namespace": "n", "name": "b"}}}),
    ({"spec": {"claimRef": {"namespace": "n", "name": "a", "uid": "u"}}},
     {"spec": {"claimRef": {"namespace": "m", "name": "a"}}},
     {"spec": {"claimRef": {"namespace": "m", "name": "a"}}}),
]


@pytest.mark.parametrize("live, manifest, laid", LAID, ids=short)
def test_what_is_named_becomes_as_it_says_and_the_rest_stays(live, manifest, laid):
    before = json.dumps([live, manifest])
    result = apiproxy.lay_over(live, manifest)
    assert result == laid
    assert apiproxy.lay_over(result, manifest) == result  # a second time changes nothing
    assert json.dumps([live, manifest]) == before


EXISTS = 409, {"kind": "Status", "reason": "AlreadyExists", "message": "it exists"}
CONFLICT = 409, {"kind": "Status", "reason": "Conflict", "message": "another version"}
QUOTA = 409, {"kind": "Status", "reason": "Conflict", "message": "a quota"}
FORBIDDEN = 403, {"kind": "Status", "reason": "Forbidden", "message": "not to you"}
INVALID = 422, {"kind": "Status", "reason": "Invalid", "message": "a list"}
GONE = 404, {"kind": "Status", "reason": "NotFound", "message": "gone", "details": {"name": "a"}}
MEDIA = 415, {"kind": "Status", "reason": "UnsupportedMediaType", "message": "no such patch"}
ALIVE = 200, {"metadata": {"name": "a", "resourceVersion": "7"}, "data": {"old": "1"}}
DONE = 200, {"metadata": {"name": "a"}}

CONVERSATIONS = [  # (method, answer) one after the other; what apply gives or raises
    ([("POST", DONE)], None),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", DONE)], None),
    ([("POST", FORBIDDEN), ("GET", ALIVE), ("PUT", DONE)], None),  # no right, or a quota
    ([("POST", INVALID), ("GET", ALIVE), ("PUT", DONE)], None),  # a Service as read, on 1.20
    ([("POST", FORBIDDEN), ("GET", GONE)], "not to you"),
    ([("POST", FORBIDDEN), ("GET", FORBIDDEN)], "not to you"),
    ([("POST", INVALID), ("GET", GONE)], "a list"),
    ([("POST", INVALID), ("GET", FORBIDDEN)], "a list"),
    ([("POST", EXISTS), ("GET", FORBIDDEN)], "not to you"),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", FORBIDDEN)], "not to you"),
    ([("POST", QUOTA)], "a quota"),  # is not an object that exists
    ([("POST", GONE)], "gone"),  # its namespace
    ([("POST", (500, "broken"))], "broken"),
    ([("POST", EXISTS), ("GET", (500, "broken"))], "broken"),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", CONFLICT), ("POST", EXISTS), ("GET", ALIVE),
      ("PUT", DONE)], None),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", GONE), ("POST", DONE)], None),
    ([("POST", EXISTS), ("GET", GONE), ("POST", DONE)], None),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", CONFLICT)] * apiproxy.APPLY_ATTEMPTS,
     "another version"),
    ([("POST", EXISTS), ("GET", GONE)] * apiproxy.APPLY_ATTEMPTS, "gone"),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", INVALID), ("PATCH", DONE)], None),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", INVALID), ("PATCH", MEDIA), ("PATCH", DONE)], None),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", INVALID), ("PATCH", INVALID)], "a list"),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", INVALID), ("PATCH", MEDIA), ("PATCH", MEDIA)],
     "no such patch"),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", INVALID), ("PATCH", GONE), ("POST", DONE)], None),
    *[([("POST", EXISTS), ("GET", (200, odd))], "the server sent") for odd in (
        [], 5, "x", {}, {"metadata": None}, {"metadata": {"resourceVersion": 5}})],
]


class Dialogue:
    """A server that answers apply as a table says, and keeps what it was asked."""

    def __init__(self, serve, steps):
        self.steps, self.asked = list(steps), []
        self.server = serve(self.script)

    def script(self, request, conn):
        if request.path.endswith("/api/v1"):
            return conn.reply(200, resource_list("configmaps"))
        self.asked.append(request)
        if not self.steps or self.steps[0][0] != request.method:
            return conn.reply(599, "not in the script: %s" % request)
        status, body = self.steps.pop(0)[1]
        conn.reply(status, body)

    def bodies(self, method):
        return [json.loads(request.body) for request in self.asked if request.method == method]


@pytest.mark.parametrize("steps, refusal", CONVERSATIONS, ids=lambda value: "-".join(
    "%s%d" % (method, answer[0]) for method, answer in value) if isinstance(value, list) else "")
def test_apply_creates_then_changes(serve, new_client, steps, refusal):
    dialogue = Dialogue(serve, steps)
    manifest = {**MANIFEST, "data": {"new": "1", "none": None}}
    before = json.dumps(manifest)
    if refusal is None:
        assert new_client(dialogue.server).apply(manifest) == DONE[1]
    else:
        with pytest.raises(apiproxy.ApiError) as caught:
            new_client(dialogue.server).apply(manifest)
        assert refusal in caught.value.message
    assert not dialogue.steps and json.dumps(manifest) == before
    item = "/clusters/dev/api/v1/namespaces/default/configmaps"
    for request in dialogue.asked:
        assert request.path == item + ("" if request.method == "POST" else "/a")
    for body in dialogue.bodies("PUT"):
        assert body["metadata"] == {"name": "a", "namespace": "default", "resourceVersion": "7"}
    for body in dialogue.bodies("POST") + dialogue.bodies("PUT"):
        assert body["data"] == {"new": "1"}
    patches = [request for request in dialogue.asked if request.method == "PATCH"]
    types_of_patch = [request.headers["content-type"] for request in patches]
    assert types_of_patch == ["application/strategic-merge-patch+json",
                              "application/merge-patch+json"][:len(patches)]


@pytest.mark.parametrize("steps, refusal", [
    ([("POST", DONE)], None),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", DONE)], None),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", CONFLICT)], "another version"),
    ([("POST", EXISTS), ("GET", ALIVE), ("PUT", INVALID)], "a list"),
    ([("POST", EXISTS), ("GET", GONE)], "gone"),
    ([("POST", FORBIDDEN), ("GET", ALIVE), ("PUT", DONE)], None),
    ([("POST", FORBIDDEN), ("GET", GONE)], "not to you"),
])
def test_a_body_with_a_version_replaces_just_that_one(serve, new_client, steps, refusal):
    dialogue = Dialogue(serve, steps)
    metadata = {"name": "a", "resourceVersion": "5", "managedFields": [], "uid": "u"}
    with contextlib.ExitStack() as stack:
        if refusal:
            caught = stack.enter_context(pytest.raises(apiproxy.ApiError))
        new_client(dialogue.server).apply({**MANIFEST, "metadata": metadata})
    assert refusal is None or refusal in caught.value.message
    assert not dialogue.steps
    for body in dialogue.bodies("PUT"):
        assert body == {**MANIFEST, "metadata": {**metadata, "namespace": "default"}}
    assert "resourceVersion" not in dialogue.bodies("POST")[0]["metadata"]


def test_old_copies_of_the_servers_books_are_left_out(serve, new_client):
    live = {**ALIVE[1]["metadata"], "managedFields": [{"manager": "b"}], "uid": "u"}
    steps = [("POST", EXISTS), ("GET", (200, {"metadata": live})), ("PUT", INVALID),
             ("PATCH", DONE)]
    dialogue = Dialogue(serve, steps)
    read = {"name": "a", "managedFields": [{"manager": "a"}], "resourceVersion": None,
            "deletionTimestamp": "2026-01-02T03:04:05Z", "deletionGracePeriodSeconds": 0,
            "labels": {"a": "b"}}
    new_client(dialogue.server).apply({**MANIFEST, "metadata": read})
    put, = dialogue.bodies("PUT")
    assert put["metadata"] == {**live, "namespace": "default", "labels": {"a": "b"}}
    patch, = dialogue.bodies("PATCH")
    assert patch["metadata"] == {"name": "a", "namespace": "default", "labels": {"a": "b"}}


def test_a_dry_run_is_one_in_every_request(serve, new_client):
    steps = [("POST", EXISTS), ("GET", ALIVE), ("PUT", INVALID), ("PATCH", DONE)]
    dialogue = Dialogue(serve, steps)
    new_client(dialogue.server).apply(MANIFEST, dry_run=True)
    for request in dialogue.asked:
        assert request.method == "GET" or request.path.partition("?")[2] == "dryRun=All"


@pytest.mark.parametrize("options, query", [
    ({"field_manager": "me"}, "fieldManager=me&force=false"),
    ({"field_manager": "me", "force": True}, "fieldManager=me&force=true"),
    ({"field_manager": "me", "dry_run": True}, "fieldManager=me&force=false&dryRun=All"),
])
def test_server_side_apply_is_one_patch(serve, new_client, options, query):
    dialogue = Dialogue(serve, [("PATCH", DONE)])
    read = {**MANIFEST, "metadata": {**MANIFEST["metadata"], "managedFields": [{}]}}
    assert new_client(dialogue.server).apply(read, **options) == DONE[1]
    request, = dialogue.asked
    assert request.path.split("?") == [
        "/clusters/dev/api/v1/namespaces/default/configmaps/a", query]
    assert request.headers["content-type"] == "application/apply-patch+yaml"
    assert json.loads(request.body) == {
        **MANIFEST, "metadata": {"name": "a", "namespace": "default"}}


@pytest.mark.parametrize("options, error", [
    ({"force": True}, ValueError), ({"field_manager": ""}, ValueError),
    ({"field_manager": 5}, TypeError), ({"field_manager": True}, TypeError),
    ({"force": True, "dry_run": True}, ValueError)])
def test_impossible_options_of_apply_are_refused(serve, new_client, options, error):
    server = serve(lambda request, conn: conn.reply(200, {}))
    with pytest.raises(error):
        new_client(server).apply(MANIFEST, **options)
    assert not server.requests


def test_all_of_apply_has_one_time_limit(serve, new_client):
    def script(request, conn):
        if request.path.endswith("/v1"):
            return conn.reply(200, resource_list("configmaps"))
        time.sleep(0.15)
        conn.reply(*{"POST": EXISTS, "GET": ALIVE, "PUT": CONFLICT}[request.method])

    start = time.monotonic()
    with pytest.raises(apiproxy.ApiError) as caught:
        new_client(serve(script), request_timeout=0.5).apply(MANIFEST)
    assert caught.value.status == 408 and time.monotonic() - start < 1.5


# -- apply: what becomes of it, on the demo cluster and on real servers


def test_apply_makes_then_changes_and_leaves_the_callers_object_alone(api):
    mine = config_map("a", api.space, x="1")
    before = json.dumps(mine)
    first = api.apply(mine)
    api.patch(api.maps + "/a", {"data": {"other": "1"}})
    mine["data"]["x"] = "2"
    second = api.apply(mine)
    assert second["data"] == {"x": "2"}
    assert second["metadata"]["uid"] == first["metadata"]["uid"]

    mine["data"]["x"] = "1"
    assert json.dumps(mine) == before
    version = first["metadata"]["resourceVersion"]
    stale = {**mine, "metadata": {**mine["metadata"], "resourceVersion": version}}
    with pytest.raises(apiproxy.ApiError) as caught:
        api.apply(stale)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    version = second["metadata"]["resourceVersion"]
    fresh = {**mine, "metadata": {**mine["metadata"], "resourceVersion": version}}
    assert api.apply(fresh)["data"] == {"x": "1"}


def test_what_others_changed_beside_a_manifest_stays(api):
    mine = web(api.space)
    del mine["spec"]["replicas"]
    api.apply(mine)
    path = "/apis/apps/v1/namespaces/%s/deployments/web" % api.space
    theirs = {
        "metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "1"},
                     "finalizers": ["example.com/hold"]},
        "spec": {"replicas": 5, "template": {"metadata": {"annotations": {"restartedAt": "now"}}}},
    }
    api.patch(path, theirs)
    mine["metadata"]["labels"] = {"mine": "1"}
    now = api.apply(mine)
    try:
        assert now["metadata"]["labels"] == {"mine": "1", "theirs": "1"}
        assert now["metadata"]["annotations"]["theirs"] == "1"
        assert now["metadata"]["finalizers"] == ["example.com/hold"]
        assert now["spec"]["replicas"] == 5
        assert now["spec"]["template"]["metadata"]["annotations"] == {"restartedAt": "now"}
        assert now["spec"]["template"]["metadata"]["labels"] == {"app": "web"}
    finally:
        api.patch(path, {"metadata": {"finalizers": None}})


BUILT_IN = [
    config_map("it"), web(None),
    {"apiVersion": "v1", "kind": "Secret", "data": {"k": "dmFsdWU="}},
    {"apiVersion": "v1", "kind": "ServiceAccount"},
    {"apiVersion": "v1", "kind": "Service", "spec": {
        "ports": [{"port": 80}], "selector": {"app": "web"}}},
    {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "image": "i"}]}},
    {"apiVersion": "v1", "kind": "Node"},
    {"apiVersion": "v1", "kind": "Namespace"},
    {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}},
    {"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}},
]


def made_at_last(api, body):
    """apply, again while the namespace's service account, or a kind's API, is still to come."""

    def attempt():
        try:
            return api.apply(body)
        except apiproxy.ApiError as error:
            assert error.status in (404, 503) or "serviceaccount" in error.message, error

    return eventually(attempt)


@pytest.mark.parametrize("body", BUILT_IN, ids=lambda body: body["kind"])
def test_apply_of_built_in_kinds_as_written_and_as_read(api, body):
    cluster_wide = body["kind"] in ("Node", "Namespace")
    name = api.space + "-x" if cluster_wide else "it"
    body = {**body, "metadata": {"name": name, "labels": {"step": "1"}}}
    api.client.default_namespaces = {api.cluster: api.space}
    states = [made_at_last(api, body)]
    body["metadata"]["labels"] = {"step": "2"}
    states.append(api.apply(body))
    read = json.loads(json.dumps(states[-1]))
    if not nodes_here(api):  # or a controller may have changed it meanwhile
        read["metadata"]["labels"] = {"step": "3"}
        states.append(api.apply(read))  # 1.20: a Service's POST is invalid before it is found there
    del read["metadata"]["resourceVersion"]
    read["metadata"]["labels"] = {"step": "4"}
    states.append(api.apply(read))

    assert states[-1]["metadata"]["labels"]["step"] == "4"
    space = None if cluster_wide else api.space
    assert {(state["metadata"]["uid"], state["metadata"].get("namespace")) for state in states} == {
        (states[0]["metadata"]["uid"], space)}
    if cluster_wide:
        api.remove("/api/v1/%ss/%s" % (body["kind"].lower(), name))


def nodes_here(api):
    """Whether controllers run, so that objects change by themselves."""
    return api.base_url == REAL and os.environ.get("APIPROXY_TEST_NODES", "0") != "0"


def widgets_definition(group, scope="Namespaced"):
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets." + group},
        "spec": {
            "group": group, "scope": scope,
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {
                "openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}}


def test_apply_of_a_custom_resource_as_soon_as_it_is_defined(api):
    group = "g%s.example.com" % api.space[2:]
    api.apply(widgets_definition(group))
    widget = {"apiVersion": group + "/v1", "kind": "Widget",
              "metadata": {"name": "w", "namespace": api.space}, "spec": {"size": 1}}
    first = made_at_last(api, widget)
    widgets = api.api_factory_with_namespace([group, "v2", "widgets"], [group, "v1", "widgets"])
    seen = Views()
    widgets.list(api.space, seen.cb, seen.err_cb)
    eventually(lambda: seen.views and len(seen.views[-1]) == 1)
    widget["spec"]["size"] = 2
    assert api.apply(widget)["metadata"]["uid"] == first["metadata"]["uid"]
    eventually(lambda: seen.views[-1][0]["spec"]["size"] == 2)
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets."
    api.remove(definitions + group)


def test_apply_follows_a_definition_that_comes_back_with_another_scope(api):
    group = "s%s.example.com" % api.space[2:]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets." + group
    widget = {"apiVersion": group + "/v1", "kind": "Widget", "metadata": {"name": "w"}}
    api.discovery_ttl = 3600.0
    spaces = []
    for scope in ("Namespaced", "Cluster"):
        api.post(path.rpartition("/")[0], widgets_definition(group, scope))
        spaces.append(made_at_last(api, widget)["metadata"].get("namespace"))
        api.remove(path)
        eventually(lambda: result_of_request(api, path) == 404)
    assert spaces == ["default", None]


def result_of_request(api, path):
    try:
        return api.request(path)
    except apiproxy.ApiError as error:
        return error.status


# -- apply, others' changes, apply again: every kind that 1.20 or 1.37 lets somebody make

POD = {"containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]}]}
APP = {"app": "web"}
TEMPLATE = {"metadata": {"labels": APP}, "spec": POD}
JOB = {"template": {"spec": {"restartPolicy": "Never", **POD}}}
WORKLOAD = {"selector": {"matchLabels": APP}, "template": TEMPLATE}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
HOOK = {
    "name": "a.example.com",
    "clientConfig": {"service": {"namespace": "default", "name": "hook"}},
    "rules": [{"apiGroups": ["none.example.com"], "apiVersions": ["v1"], "resources": ["xs"],
               "operations": ["CREATE"]}],
    "failurePolicy": "Ignore",
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
}
CRD_VERSION = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
    "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
TEMPLATED = {"spec": {"devices": {"requests": [
    {"name": "a", "exactly": {"deviceClassName": "a"}}]}}}
TAINT = {"key": "example.com/a", "effect": "None"}
MATCH = {"resourceRules": [{"apiGroups": ["none.example.com"], "apiVersions": ["v1"],
                            "resources": ["xs"], "operations": ["CREATE"]}]}
WHO = [{"kind": "User", "name": "nobody", "apiGroup": "rbac.authorization.k8s.io"}]
RBAC = "rbac.authorization.k8s.io"
FLOW = "flowcontrol.apiserver.k8s.io/v1 flowcontrol.apiserver.k8s.io/v1beta1"
CAN = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
STARTED = "2026-01-02T03:04:05.000000Z"

KINDS = [  # apiVersions, the newest first; kind; all but its metadata
    ("v1", "ConfigMap", {"data": {"a": "1"}}),
    ("v1", "Endpoints", {"subsets": [
        {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]}),
    ("v1", "Event", {"involvedObject": {"kind": "Pod", "namespace": "SPACE", "name": "a"},
                     "reason": "Tested", "message": "m", "type": "Normal"}),
    ("v1", "LimitRange", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
    ("v1", "Namespace", {}),
    ("v1", "Node", {"spec": {"unschedulable": True}}),
    ("v1", "PersistentVolumeClaim", {"spec": CLAIM}),
    ("v1", "PersistentVolume", {"spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"},
        "hostPath": {"path": "/a"}, "claimRef": {"namespace": "SPACE", "name": "pre"}}}),
    ("v1", "Pod", {"spec": POD}),
    ("v1", "PodTemplate", {"template": TEMPLATE}),
    ("v1", "ReplicationController", {"spec": {"selector": APP, "template": TEMPLATE}}),
    ("v1", "ResourceQuota", {"spec": {"hard": {"configmaps": "10"}}}),
    ("v1", "Secret", {"stringData": {"a": "1"}}),
    ("v1", "ServiceAccount", {}),
    ("v1", "Service", {"spec": {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": APP,
        "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}}),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", {"webhooks": [HOOK]}),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", {"webhooks": [HOOK]}),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", {"spec": {
        "failurePolicy": "Ignore", "matchConstraints": MATCH,
        "validations": [{"expression": "true"}]}}),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", {"spec": {
        "policyName": "none", "validationActions": ["Audit"]}}),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", {"spec": {
        "failurePolicy": "Ignore", "matchConstraints": MATCH, "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
            "expression": "[JSONPatch{op: 'test', path: '/a', value: 1}]"}}]}}),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding", {
        "spec": {"policyName": "none"}}),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", {"spec": {
        "group": "SPACE.example.com", "scope": "Namespaced", "versions": [CRD_VERSION],
        "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
        "conversion": {"strategy": "Webhook", "webhook": {
            "clientConfig": {"service": {"namespace": "default", "name": "hook"}},
            "conversionReviewVersions": ["v1"]}}}}),
    ("apiregistration.k8s.io/v1", "APIService", {"spec": {
        "group": "a.SPACE.example.com", "version": "v1",
        "groupPriorityMinimum": 1, "versionPriority": 1,
        "insecureSkipTLSVerify": True, "service": {"namespace": "default", "name": "none"}}}),
    ("apps/v1", "ControllerRevision", {"revision": 1, "data": {"a": 1}}),
    ("apps/v1", "DaemonSet", {"spec": WORKLOAD}),
    ("apps/v1", "Deployment", {"spec": WORKLOAD}),
    ("apps/v1", "ReplicaSet", {"spec": WORKLOAD}),
    ("apps/v1", "StatefulSet", {"spec": {
        **WORKLOAD, "serviceName": "a", "volumeClaimTemplates": [
            {"metadata": {"name": "v"}, "spec": CLAIM}]}}),
    ("autoscaling/v1", "HorizontalPodAutoscaler", {"spec": {
        "maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}}}),
    ("autoscaling/v2", "HorizontalPodAutoscaler", {"spec": {
        "maxReplicas": 3, "metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}}}),
    ("batch/v1 batch/v1beta1", "CronJob", {"spec": {
        "schedule": "0 0 1 1 *", "jobTemplate": {"spec": JOB}}}),
    ("batch/v1", "Job", {"spec": JOB}),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", {"spec": {
        "request": "REQUEST", "signerName": "example.com/none", "usages": ["client auth"]}}),
    ("certificates.k8s.io/v1", "ClusterTrustBundle", {"spec": {"trustBundle": "CERTIFICATE"}}),
    ("coordination.k8s.io/v1", "Lease", {"spec": {"holderIdentity": "a", "renewTime": STARTED}}),
    ("discovery.k8s.io/v1 discovery.k8s.io/v1beta1", "EndpointSlice", {
        "addressType": "IPv4", "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["192.0.2.1"]}]}),
    ("events.k8s.io/v1", "Event", {
        "regarding": {"kind": "Pod", "namespace": "SPACE", "name": "a"}, "reason": "Tested",
        "type": "Normal", "action": "Testing", "eventTime": STARTED,
        "reportingController": "example.com/a", "reportingInstance": "a"}),
    (FLOW, "FlowSchema", {"spec": {
        "matchingPrecedence": 9000, "priorityLevelConfiguration": {"name": "exempt"}}}),
    (FLOW, "PriorityLevelConfiguration", {"spec": {
        "type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}}),
    ("networking.k8s.io/v1", "IngressClass", {"spec": {"controller": "example.com/a"}}),
    ("networking.k8s.io/v1", "Ingress", {"spec": {"rules": [{"http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {
            "service": {"name": "a", "port": {"number": 80}}}}]}}]}}),
    ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {
        "podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}}),
    ("networking.k8s.io/v1", "ServiceCIDR", {"spec": {"cidrs": ["10.99.0.0/24"]}}),
    ("node.k8s.io/v1", "RuntimeClass", {"handler": "a"}),
    ("policy/v1 policy/v1beta1", "PodDisruptionBudget", {"spec": {
        "minAvailable": 1, "selector": {"matchLabels": APP}}}),
    ("policy/v1beta1", "PodSecurityPolicy", {"spec": {
        name: {"rule": "RunAsAny"}
        for name in ("runAsUser", "seLinux", "fsGroup", "supplementalGroups")}}),
    (RBAC + "/v1", "ClusterRole", {"rules": CAN}),
    (RBAC + "/v1", "ClusterRoleBinding", {
        "subjects": WHO, "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}}),
    (RBAC + "/v1", "Role", {"rules": CAN}),
    (RBAC + "/v1", "RoleBinding", {
        "subjects": WHO, "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}}),
    ("resource.k8s.io/v1", "DeviceClass", {"spec": {
        "selectors": [{"cel": {"expression": "true"}}]}}),
    ("resource.k8s.io/v1", "DeviceTaintRule", {"spec": {
        "deviceSelector": {"driver": "a"}, "taint": TAINT}}),
    ("resource.k8s.io/v1", "ResourceClaim", TEMPLATED),
    ("resource.k8s.io/v1", "ResourceClaimTemplate", {"spec": TEMPLATED}),
    ("resource.k8s.io/v1", "ResourceSlice", {"spec": {
        "driver": "a", "nodeName": "none", "pool": {
            "name": "a", "generation": 1, "resourceSliceCount": 1}}}),
    ("scheduling.k8s.io/v1", "PriorityClass", {"value": 5}),
    ("storage.k8s.io/v1", "CSIDriver", {"spec": {"attachRequired": False}}),
    ("storage.k8s.io/v1", "CSINode", {"spec": {"drivers": []}}),
    ("storage.k8s.io/v1", "CSIStorageCapacity", {"storageClassName": "a", "capacity": "1Mi"}),
    ("storage.k8s.io/v1", "StorageClass", {"provisioner": "example.com/a"}),
    ("storage.k8s.io/v1", "VolumeAttachment", {"spec": {
        "attacher": "a.example.com", "nodeName": "none",
        "source": {"persistentVolumeName": "none"}}}),
    ("storage.k8s.io/v1", "VolumeAttributesClass", {
        "driverName": "example.com/a", "parameters": {"a": "1"}}),
    ("storagemigration.k8s.io/v1", "StorageVersionMigration", {"spec": {
        "resource": {"group": "none.example.com", "resource": "xs"}}}),
]


@pytest.fixture(params=[pytest.param("direct", marks=[*needs_cluster, pytest.mark.nodes])])
def real(request, new_client):
    """A Space of the real API server."""
    space = Space(direct_client(new_client), "t-" + os.urandom(4).hex())
    yield space
    space.end()


def filled_in(value, words):
    """`value` with words replaced in all its text."""
    if isinstance(value, dict):
        return {key: filled_in(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item, words) for item in value]
    for word in words if isinstance(value, str) else ():
        value = value.replace(word, words[word]())
    return value


def certificate_request():
    """A CSR in base64, as text."""
    command = "openssl req -new -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=a"
    made = subprocess.run(command.split(), capture_output=True, check=True)
    return base64.b64encode(made.stdout).decode()


def made_of(real, versions, kind, rest):
    """(object, its path) for the newest version that the server has; skips where it has none."""
    for version in versions.split():
        root = ("/apis/" if "/" in version else "/api/") + version
        try:
            resources = real.request(root)["resources"]
        except apiproxy.ApiError:
            continue
        for resource in resources:
            if resource["kind"] == kind and "/" not in resource["name"]:
                break
        else:
            continue
        break
    else:
        pytest.skip("%s is not on this server" % kind)

    name = {"CustomResourceDefinition": "things.%s.example.com",
            "APIService": "v1.a.%s.example.com"}.get(kind, "%s-x") % real.space
    metadata = {"name": name, "labels": {"mine": "1"}}
    if resource["namespaced"]:
        metadata["namespace"] = real.space
        root += "/namespaces/" + real.space
    words = {"SPACE": lambda: real.space, "REQUEST": certificate_request,
             "CERTIFICATE": lambda: CERTIFICATE[CERTIFICATE.index("-----BEGIN CERT"):]}
    body = {"apiVersion": version, "kind": kind, "metadata": metadata, **filled_in(rest, words)}
    return body, "%s/%s/%s" % (root, resource["name"], name)


def settled(real, path):
    """The object once its controllers have left it alone for a while."""
    states = [real.request(path)]

    def quiet():
        time.sleep(0.3)
        states.append(real.request(path))
        versions = [state["metadata"]["resourceVersion"] for state in states[-2:]]
        return versions[0] == versions[1]

    eventually(quiet)
    return states[-1]


def without_books(body):
    metadata = {key: value for key, value in body["metadata"].items()
                if key not in ("managedFields", "resourceVersion")}
    return {**body, "metadata": metadata}


def check_unchanged_by(real, body, path):
    """Apply `body`, and find the object as it was, to its generation and status."""
    for _ in "1234":  # a controller may write at just this moment
        before = settled(real, path)
        real.apply(body)
        after = real.request(path)
        if without_books(after) == without_books(before):
            return
    assert without_books(after) == without_books(before)


def others_changes(real, body, live):
    """A merge patch with what controllers and people write beside a manifest."""
    if "namespace" in body["metadata"]:
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}
        path = "/api/v1/namespaces/%s/configmaps" % real.space
        owner = real.post(path, owner)
    else:
        owner = real.request("/api/v1/namespaces/" + real.space)

    reference = {key: owner[key] for key in ("apiVersion", "kind")}
    reference.update({key: owner["metadata"][key] for key in ("name", "uid")})
    finalizers = live["metadata"].get("finalizers", []) + ["example.com/hold"]
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-01-02T03:04:05Z"}
    patch = {"metadata": {"labels": {"theirs": "1"}, "annotations": restarted,
                          "finalizers": finalizers, "ownerReferences": [reference]}}

    kind = body["kind"]
    ca = {"caBundle": base64.b64encode(CERTIFICATE.encode()).decode()}
    if kind in ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController", "DaemonSet"):
        patch["spec"] = {"template": {"metadata": {"annotations": restarted}}}
        if kind != "DaemonSet":
            patch["spec"]["replicas"] = 3
    elif kind == "CronJob":
        patch["spec"] = {"suspend": True, "jobTemplate": {"metadata": {"labels": {"theirs": "1"}}}}
    elif kind == "ServiceAccount":
        patch.update(imagePullSecrets=[{"name": "a"}], secrets=[{"name": "b"}])
    elif kind.endswith("WebhookConfiguration"):
        hook, = live["webhooks"]
        patch["webhooks"] = [{**hook, "clientConfig": {**hook["clientConfig"], **ca}}]
    elif kind == "CustomResourceDefinition":
        patch["spec"] = {"conversion": {"webhook": {"clientConfig": ca}}}
    return patch


@pytest.mark.parametrize("versions, kind, rest", KINDS, ids=["-".join(row[1::-1]) for row in KINDS])
def test_a_second_apply_changes_nothing_and_nothing_of_others(real, versions, kind, rest):
    body, path = made_of(real, versions, kind, rest)
    made_at_last(real, body)
    try:
        check_unchanged_by(real, body, path)
        patch = others_changes(real, body, settled(real, path))
        real.patch(path + "?fieldManager=theirs", patch)
        check_unchanged_by(real, body, path)
        assert holds(real.request(path), patch)
    finally:
        real.patch(path, {"metadata": {"finalizers": None, "ownerReferences": None}})
        real.remove(path)


def holds(value, wanted):
    """Whether all that `wanted` names is in `value`."""
    if isinstance(value, dict) and isinstance(wanted, dict):
        return all(key in value and holds(value[key], item) for key, item in wanted.items())
    if isinstance(value, list) and isinstance(wanted, list):
        return all(any(holds(item, one) for item in value) for one in wanted)
    return value == wanted


CHANGED_AT_RANDOM = ("Deployment", "StatefulSet", "ReplicaSet", "ServiceAccount", "Namespace",
                     "Service", "PersistentVolumeClaim", "ConfigMap", "NetworkPolicy", "Ingress")


def random_change(chance, kind, live, owner):
    """(subresource, merge patch) of somebody else's."""
    key = "k%d" % chance.randrange(10 ** 6)
    what = ["labels", "annotations", "finalizers", "ownerReferences"]
    if kind in ("Deployment", "StatefulSet", "ReplicaSet"):
        what += ["replicas", "restartedAt"]
    if kind in ("Namespace", "Service"):  # whose conditions nobody else writes
        what += ["status"]
    if kind == "ServiceAccount":
        what += ["imagePullSecrets", "secrets"]
    what = chance.choice(what)

    if what in ("labels", "annotations"):
        return "", {"metadata": {what: {key: "1"}}}
    if what == "finalizers":
        return "", {"metadata": {what: live["metadata"].get(what, []) + ["example.com/" + key]}}
    if what == "ownerReferences":
        references = live["metadata"].get(what, [])
        return "", {"metadata": {what: references + ([] if owner in references else [owner])}}
    if what == "replicas":
        return "", {"spec": {"replicas": chance.randrange(9)}}
    if what == "restartedAt":
        return "", {"spec": {"template": {"metadata": {"annotations": {what: key}}}}}
    if what == "status":
        conditions = live["status"].get("conditions", [])
        new = {"type": key, "status": "True", "reason": "Tested", "message": "m",
               "lastTransitionTime": "2026-01-02T03:04:05Z"}
        return "/status", {"status": {"conditions": conditions + [new]}}
    return "", {what: live.get(what, []) + [{"name": key}]}


def merged(target, patch):
    """RFC 7386, without nulls."""
    if not isinstance(patch, dict):
        return patch
    target = target if isinstance(target, dict) else {}
    return {**target, **{key: merged(target.get(key), item) for key, item in patch.items()}}


def test_a_hundred_changes_of_others_between_two_applies_are_all_still_there(real):
    seed = random.randrange(10 ** 6)
    chance = random.Random(seed)
    rows = {row[1]: row for row in KINDS}
    objects = {kind: made_of(real, *rows[kind]) for kind in CHANGED_AT_RANDOM}
    for body, path in objects.values():
        made_at_last(real, body)
        settled(real, path)

    made = real.request("/api/v1/namespaces/" + real.space)
    owner = {"apiVersion": "v1", "kind": "Namespace"}
    owner.update({key: made["metadata"][key] for key in ("name", "uid")})
    wanted = {}
    for _ in range(100):
        kind = chance.choice(CHANGED_AT_RANDOM)
        path = objects[kind][1]
        subresource, patch = random_change(chance, kind, real.request(path), owner)
        real.patch(path + subresource + "?fieldManager=theirs", patch)
        wanted[kind] = merged(wanted.get(kind, {}), patch)

    try:
        for body, _ in objects.values():
            real.apply(body)
        for kind, (_, path) in objects.items():
            assert holds(real.request(path), wanted.get(kind, {})), (seed, kind)
    finally:
        for _, path in objects.values():
            real.patch(path, {"metadata": {"finalizers": None, "ownerReferences": None}})
            real.remove(path)


@pytest.mark.parametrize("kind", ["Deployment", "ServiceAccount", "Service", "Pod", "CronJob"])
def test_a_manifest_as_read_undoes_nothing_that_it_does_not_name(real, kind):
    body, path = made_of(real, *{row[1]: row for row in KINDS}[kind])
    made_at_last(real, body)
    read = settled(real, path)
    del read["metadata"]["resourceVersion"]
    change = {"metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "1"}}}
    real.patch(path + "?fieldManager=theirs", change)
    now = real.apply(read)
    assert holds(now, change)
    managers = {entry["manager"] for entry in now["metadata"]["managedFields"]}
    assert "theirs" in managers  # an old copy of managedFields would forget them
    real.remove(path)


def test_services_change_their_type_and_keep_their_ports(real):
    path = "/api/v1/namespaces/%s/services/a" % real.space

    def applied(kind, *ports, **rest):
        ports = [{"port": port, "name": "p%d" % port} for port in ports]
        made = real.apply({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "namespace": real.space},
            "spec": {"type": kind, "ports": ports, "selector": {"app": "web"}, **rest}})
        spec = made["spec"]
        ports = {port["port"]: port.get("nodePort") for port in spec.get("ports", [])}
        return ports, spec.get("clusterIP"), spec.get("healthCheckNodePort")

    local = {"externalTrafficPolicy": "Local"}
    first = applied("LoadBalancer", 80, 81, **local)
    assert first == applied("LoadBalancer", 80, 81, **local) and all(first[0].values()) and first[2]
    second = applied("LoadBalancer", 81, 82, **local)
    assert second[0][81] == first[0][81] and second[0][82] and second[1:] == first[1:]
    third = applied("ClusterIP", 81, externalTrafficPolicy=None)
    assert third == ({81: None}, first[1], None)
    assert applied("ExternalName", 81, externalName="a.example.com")[1] is None
    assert applied("NodePort", 81)[0][81]
    real.remove(path)


def test_a_bound_claim_and_its_volume_are_applied_again(real):
    if not nodes_here(real):
        pytest.skip("nobody binds them here")
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": real.space},
              "spec": {"storageClassName": "manual", "accessModes": ["ReadWriteOnce"],
                       "capacity": {"storage": "1Mi"}, "hostPath": {"path": "/a"},
                       "claimRef": {"namespace": real.space, "name": "c"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
             "metadata": {"name": "c", "namespace": real.space},
             "spec": {**CLAIM, "storageClassName": "manual"}}
    volume_path = "/api/v1/persistentvolumes/" + real.space
    claim_path = "/api/v1/namespaces/%s/persistentvolumeclaims/c" % real.space
    real.apply(volume)
    real.apply(claim)
    eventually(lambda: real.request(claim_path)["status"].get("phase") == "Bound", 30)
    check_unchanged_by(real, claim, claim_path)
    check_unchanged_by(real, volume, volume_path)
    assert real.request(volume_path)["spec"]["claimRef"]["uid"]
    real.remove(claim_path)
    real.remove(volume_path)


def test_a_pod_that_runs_is_applied_again_and_its_image_changed(real):
    body, path = made_of(real, "v1", "Pod", {"spec": {
        **POD, "tolerations": [{"key": "a", "operator": "Exists"}],
        "volumes": [{"name": "v", "emptyDir": {}}]}})
    made_at_last(real, body)
    if nodes_here(real):
        eventually(lambda: real.request(path)["spec"].get("nodeName"), 30)
    check_unchanged_by(real, body, path)
    before = real.request(path)
    body["spec"] = {**body["spec"], "containers": [{**POD["containers"][0], "image": "i:2"}]}
    after = real.apply(body)
    assert after["spec"]["containers"][0]["image"] == "i:2"
    assert after["spec"]["volumes"] == before["spec"]["volumes"]
    real.remove(path)


def test_apply_with_the_right_to_change_but_not_to_create(real, new_client):
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/" % real.space
    maps = "/api/v1/namespaces/%s/configmaps" % real.space
    real.post(maps, config_map("mine", x="1"))
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"],
              "verbs": ["get", "update"]}]
    real.post(rbac + "roles", {"metadata": {"name": "r"}, "rules": rules})
    real.post(rbac + "rolebindings", {
        "metadata": {"name": "r"}, "subjects": [{**WHO[0], "name": "viewer"}],
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "r"}})
    viewer = new_client("", cluster="c")
    viewer.add_endpoint("c", apiproxy.Endpoint(
        os.environ["APIPROXY_TEST_DIRECT"], token=os.environ["APIPROXY_TEST_VIEWER"],
        ssl_context=ssl.create_default_context(cafile=os.environ["APIPROXY_TEST_CA"])))

    def applied():
        try:
            return viewer.apply(config_map("mine", real.space, x="2"))["data"]
        except apiproxy.ApiError as error:  # rights take a moment
            assert error.status == 403
            return None

    assert eventually(applied) == {"x": "2"}
    with pytest.raises(apiproxy.ApiError) as caught:
        viewer.apply(config_map("other", real.space))
    assert caught.value.status == 403 and "cannot create" in caught.value.message


def test_apply_where_the_quota_is_used_up(real):
    base = "/api/v1/namespaces/" + real.space
    real.post(base + "/secrets", {"metadata": {"name": "a"}, "stringData": {"x": "1"}})
    real.post(base + "/resourcequotas", {
        "metadata": {"name": "q"}, "spec": {"hard": {"secrets": "1"}}})
    used = {"hard": {"secrets": "1"}, "used": {"secrets": "1"}}
    if not nodes_here(real):  # the controller's work
        real.patch(base + "/resourcequotas/q/status", {"status": used})
    eventually(lambda: real.request(base + "/resourcequotas/q").get("status") == used)

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}
    real.client.default_namespaces = {"direct": real.space}
    changed = real.apply({**secret, "stringData": {"x": "2"}})
    assert changed["data"] == {"x": "Mg=="}

    def refused():
        try:
            real.remove(base + "/secrets/%s" % real.apply(
                {**secret, "metadata": {"name": "b"}})["metadata"]["name"])
        except apiproxy.ApiError as error:
            return error
        return None

    error = eventually(refused)  # the admission's cache takes a moment
    assert error.status == 403 and "exceeded quota" in error.message


def test_server_side_apply_conflicts_and_takes_over(real):
    body = config_map("a", real.space, x="1")
    assert real.apply(body, field_manager="one")["data"] == {"x": "1"}
    body["data"]["x"] = "2"
    with pytest.raises(apiproxy.ApiError) as caught:
        real.apply(body, field_manager="two")
    error = caught.value
    assert (error.status, error.reason) == (409, "Conflict")
    assert [cause["field"] for cause in error.details["causes"]] == [".data.x"]

    tried = real.apply(body, field_manager="two", force=True, dry_run=True)
    path = "/api/v1/namespaces/%s/configmaps/a" % real.space
    assert tried["data"] == {"x": "2"} and real.request(path)["data"] == {"x": "1"}
    assert real.apply(body, field_manager="two", force=True)["data"] == {"x": "2"}


def test_a_dry_run_keeps_nothing(real):
    path = "/api/v1/namespaces/%s/configmaps/a" % real.space
    body = config_map("a", real.space, x="1")
    assert real.apply(body, dry_run=True)["data"] == {"x": "1"}
    assert result_of_request(real, path) == 404
    real.apply(body)
    body["data"]["x"] = "2"
    assert real.apply(body, dry_run=True)["data"] == {"x": "2"}
    assert real.request(path)["data"] == {"x": "1"}


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
        with pytest.raises(ValueError, match="no cluster"):
            client.request("/version", {"cluster": "here"})
        for bad in ({}, {"name": "x"}, {"kubeconfig": "not base64!"}):
            with pytest.raises(ValueError):
                client.set_cluster(bad)
        apiproxy.configure(client)
        assert apiproxy.request("/version", {"cluster": "plain"})["path"] == "/version"
        apiproxy.configure()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", [str, str.encode])
def test_base64_may_be_wrapped_as_programs_write_it(end, kind):
    def wrapped(text):
        return kind(base64.encodebytes(text.encode()).decode().replace("\n", end))

    with apiproxy.Client("") as client:
        client.set_cluster({"kubeconfig": wrapped(json.dumps(config("https://h")))})
        client.set_cluster({
            "name": "b", "server": "https://h", "certificateAuthorityData": wrapped(MIDDLE)})
        assert set(client.endpoints) == {"here", "b"}
        assert len(client.endpoints["b"].context().get_ca_certs()) == 1


def test_a_cluster_whose_certificate_is_not_to_be_checked_is_added_without_headlamp():
    with apiproxy.Client("") as client:
        client.set_cluster({"name": "a", "server": "https://h", "insecureTLSVerify": True})
        assert client.endpoints["a"].context().verify_mode == ssl.CERT_NONE


def test_a_folder_that_is_gone_is_a_value_error_of_the_kubeconfig(monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    with apiproxy.Client("") as client, pytest.raises(ValueError, match="the kubeconfig: "):
        client.set_cluster({"kubeconfig": b64(json.dumps(config()))})


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
    for record in server.requests:
        told = "x-headlamp_backend-token" in record.headers
        assert told == record.path.startswith("/clusters/behind/")


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

    assert client.delete_plugin("some plugin") == {"success": True}

    client.request("/version")
    client.request("/version")
    assert reloads == [1] and server.requests[0].path == "/plugins/some%20plugin"


# -- draining


@pytest.fixture
def direct(new_client, monkeypatch):
    """direct(server, **settings) -> Client whose cluster "here" is the server, without Headlamp."""
    monkeypatch.setattr(apiproxy, "ACCEPT_WAIT", 0.05)

    def make(server, **settings):
        settings = {"cluster": "here", "drain_interval": 0.02, **settings}
        one = new_client("http://127.0.0.1:1", **settings)
        one.add_endpoint("here", apiproxy.Endpoint(server.url, token="SECRET"))
        return one

    return make


def drained(one, node="n"):
    """The status of a drain, once it has ended."""
    return eventually(lambda: one.drain_node_status(one.cluster, node)["id"], 20)


NODES = int(os.environ.get("APIPROXY_TEST_NODES", "0"))
# with controllers the garbage collector takes pods whose owners are made up
needs_no_nodes = pytest.mark.skipif(NODES > 0, reason="needs a cluster without controllers")
needs_nodes = [pytest.mark.cluster, pytest.mark.nodes,
               pytest.mark.skipif(NODES < 2, reason="needs two nodes")]


@pytest.fixture(params=[
    "demo", pytest.param("real", marks=[*needs_cluster, needs_no_nodes]),
])
def bare(request, demo, new_client):
    """A Space of a direct Client, and a node of its own: bare.node."""
    if request.param == "demo":
        server = demo(controllers=False, seed=False)
        one = new_client("http://127.0.0.1:1", cluster="here", drain_interval=0.05)
        one.add_endpoint("here", apiproxy.Endpoint(server.url + "/clusters/dev"))
    else:
        one = direct_client(new_client, drain_interval=0.05)

    space = Space(one, "drain-" + os.urandom(3).hex())
    space.policy = one.request("/apis/policy")["preferredVersion"]["groupVersion"]
    add_node(space)
    yield space
    space.end()
    one.remove("/api/v1/nodes/" + space.node)


def add_pod(space, name, **metadata):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {
            "nodeName": space.node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "i"}],
        },
    }

    def is_made():  # with controllers a namespace's service account takes its time
        try:
            return space.post(space.pods, pod)
        except apiproxy.ApiError as error:
            assert "serviceaccount" in str(error)
            return None

    return eventually(is_made)


def owned_by(kind):
    return [{"apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "1", "controller": True}]


def test_a_drain_evicts_what_may_go_and_leaves_what_would_come_back(bare):
    for name in "abc":
        add_pod(bare, name, ownerReferences=owned_by("ReplicaSet"))
    add_pod(bare, "alone")
    add_pod(bare, "daemon", ownerReferences=owned_by("DaemonSet"))
    add_pod(bare, "mirror", annotations={"kubernetes.io/config.mirror": "x"})
    add_pod(bare, "done", ownerReferences=owned_by("DaemonSet"))
    bare.patch(bare.pods + "/done/status", {"status": {"phase": "Failed"}})

    assert bare.drain_node_status(bare.cluster, bare.node) == {"id": "", "cluster": bare.cluster}
    assert "success" in bare.drain_node(bare.cluster, bare.node)["message"]
    assert drained(bare, bare.node) == "success"
    assert bare.request("/api/v1/nodes/" + bare.node)["spec"]["unschedulable"] is True
    left = [pod["metadata"]["name"] for pod in bare.request(bare.pods)["items"]]
    assert sorted(left) == ["daemon", "mirror"]


def test_a_drain_waits_for_a_disruption_budget_and_gives_up_in_the_end(bare):
    add_pod(bare, "kept", labels={"app": "kept"})
    pod = bare.request(bare.pods + "/kept")
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    bare.patch(bare.pods + "/kept/status", {"status": ready})
    budgets = "/apis/%s/namespaces/%s/poddisruptionbudgets" % (bare.policy, bare.space)
    bare.post(budgets, {
        "apiVersion": bare.policy,
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}},
    })

    bare.client.drain_timeout = 0.3
    bare.drain_node(bare.cluster, bare.node)
    status = drained(bare, bare.node)
    assert status.startswith("error: ") and "/kept: " in status and "disruption budget" in status
    assert bare.request(bare.pods + "/kept")["metadata"]["uid"] == pod["metadata"]["uid"]

    bare.client.drain_timeout = 20.0
    bare.drain_node(bare.cluster, bare.node)
    bare.remove(budgets + "/b")
    assert drained(bare, bare.node) == "success"


def test_a_drain_of_a_node_that_is_not_there_says_so(bare):
    bare.drain_node(bare.cluster, "no-such-node")
    status = drained(bare, "no-such-node")
    assert status.startswith("error: ") and "not found" in status


class Node:
    """The script of an API server with one node; `evictions`, in order, are (pod, Eviction).

    pods       {name: uid} of those that are there
    refusals   {name: [refusal(conn), ...]}: what comes before an eviction is granted
    stay       names of pods that are evicted and do not go
    after      {name: uid}: what has a pod's name once it has gone
    """

    def __init__(self, *names):
        self.pods = {name: "uid-" + name for name in names}
        self.refusals, self.stay, self.after = {}, set(), {}
        self.evictions, self.lists = [], 0

    def __call__(self, request, conn):
        path, _, query = request.path.partition("?")
        name = path.split("/")[6] if path.count("/") > 5 else ""
        if path == "/api/v1/nodes/n":
            assert json.loads(request.body) == {"spec": {"unschedulable": True}}
            return conn.reply(200, {})
        if path == "/api/v1/pods":
            assert query == "fieldSelector=spec.nodeName%3Dn"
            self.lists += 1
            return conn.reply(200, {"items": [self.pod(name) for name in self.pods]})
        if name not in self.pods:
            return conn.reply(404, {"kind": "Status", "message": "gone", "reason": "NotFound"})
        if request.method == "GET":
            return conn.reply(200, self.pod(name))
        return self.evict(name, json.loads(request.body), conn)

    def pod(self, name):
        return {"metadata": {"name": name, "namespace": "ns", "uid": self.pods[name]}}

    def evict(self, name, eviction, conn):
        self.evictions.append((name, eviction))
        if self.refusals.get(name):
            return self.refusals[name].pop(0)(conn)
        if eviction["deleteOptions"]["preconditions"]["uid"] != self.pods[name]:
            return conn.reply(409, {"kind": "Status", "reason": "Conflict"})
        if name not in self.stay:
            del self.pods[name]
        if name in self.after:
            self.pods[name] = self.after[name]
        return conn.reply(201, {"kind": "Status", "status": "Success"})


def refusal(status, message, **more):
    return lambda conn: conn.reply(status, {"kind": "Status", "message": message, **more})


TERMINATING = {"causes": [{"reason": "NamespaceTerminating"}]}
REFUSALS = {
    "budget": refusal(429, "it would violate the budget", reason="TooManyRequests"),
    "terminating": refusal(403, "it is being terminated", reason="Forbidden", details=TERMINATING),
    "webhook": refusal(400, "a webhook denied the request"),
    "internal": refusal(500, "an internal error"),
    "unavailable": refusal(503, "no webhook there"),
    "conflict": refusal(409, "somebody else changed it", reason="Conflict"),
    "away": lambda conn: False,
    "page": lambda conn: conn.reply(502, "<html>"),
}


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_a_drain_goes_on_after_each_refusal_and_comes_back_to_it(serve, direct, refused):
    node = Node("a", "b", "c")
    node.refusals["a"] = [refused] * 3
    one = direct(serve(node))
    one.drain_node("here", "n")
    assert drained(one) == "success" and not node.pods and node.lists == 1
    assert [name for name, _ in node.evictions] == ["a", "b", "c", "a", "a", "a"]
    assert node.evictions[0][1] == {  # in whatever version the server has of it
        "metadata": {"name": "a"},
        "deleteOptions": {"preconditions": {"uid": "uid-a"}},
    }


def test_every_pod_that_stayed_is_reported_with_the_servers_reason(serve, direct):
    node = Node(*REFUSALS, "slow", "fast")
    node.refusals = {name: [refused] * 1000 for name, refused in REFUSALS.items()}
    node.stay = {"slow"}
    one = direct(serve(node), drain_timeout=0.3)
    one.drain_node("here", "n")
    status = drained(one)
    assert status.startswith("error: ") and "fast" not in status
    for name, text in (
        ("budget", "it would violate the budget"), ("terminating", "it is being terminated"),
        ("webhook", "a webhook denied the request"), ("internal", "an internal error"),
        ("unavailable", "no webhook there"), ("conflict", "somebody else changed it"),
        ("away", "closed|ended"), ("slow", "it was evicted"),
    ):
        assert re.search("ns/%s: [^;]*(%s)" % (name, text), status), name


@pytest.mark.parametrize("path", ["/api/v1/nodes/n", "/api/v1/pods"])
def test_a_drain_outlasts_a_server_that_is_away_for_a_while(serve, direct, path):
    node, failures = Node("a"), [REFUSALS["unavailable"], REFUSALS["away"], REFUSALS["budget"]]

    def script(request, conn):
        if request.path.partition("?")[0] == path and failures:
            return failures.pop()(conn)
        return node(request, conn)

    one = direct(serve(script))
    one.drain_node("here", "n")
    assert drained(one) == "success" and not failures and not node.pods


@pytest.mark.parametrize("answer", [
    {"items": [{}]}, {"items": [{"metadata": None}]}, {"items": [{"metadata": []}]},
    {"items": [{"metadata": {"name": "a", "namespace": "ns", "uid": 5}}]},
    {"items": [{"metadata": {"name": 5, "namespace": "ns", "uid": "u"}}]},
    {"items": [{"metadata": {"name": "a", "uid": "u"}}]}, {"items": ["a"]}, {"items": [None]},
    {"items": "a"}, {"items": 5}, [], "", None, 5,
    {"items": [{"metadata": {"annotations": [], "ownerReferences": {}}}]},
    {"items": [{"metadata": {"ownerReferences": [None, 5, {"controller": "x"}]}, "status": 5}]},
], ids=short)
def test_a_drain_that_is_told_odd_pods_ends_and_says_so(serve, direct, caplog, answer):
    one = direct(serve(routes({"/api/v1/nodes/n": (200, {}),
                               "/api/v1/pods": (200, json.dumps(answer))})))
    one.drain_node("here", "n")
    assert re.match("error: .*the server (sent|listed) ", drained(one))
    assert "Traceback" not in caplog.text


def test_whatever_ends_a_drain_is_told_and_logged(serve, direct, caplog, monkeypatch):
    monkeypatch.setattr(apiproxy, "must_go", lambda pod: 1 // 0)
    one = direct(serve(Node("a")))
    one.drain_node("here", "n")
    assert drained(one).startswith("error: ") and "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    one.drain_node("here", "n")  # a new one may begin
    assert drained(one) == "success"


@pytest.mark.parametrize("end", [
    lambda one: one.close(), lambda one: one.delete_cluster("here"),
], ids=["close", "delete_cluster"])
@pytest.mark.parametrize("hangs", [
    "", "/api/v1/nodes/n", "/api/v1/pods", "/api/v1/namespaces/ns/pods/a/eviction",
])
def test_a_cancelled_drain_ends_at_once_and_says_so(serve, direct, end, hangs):
    node = Node("a")
    node.refusals["a"] = [REFUSALS["budget"]] * 1000

    def script(request, conn):
        if request.path.partition("?")[0] == hangs:
            return conn.wait_end()
        return node(request, conn)

    server = serve(script)
    one = direct(server, drain_interval=1000.0)
    endpoint = one.endpoints["here"]
    one.drain_node("here", "n")
    last = hangs or "eviction"
    eventually(lambda: any(last in request.path for request in server.requests))
    one.drain_node("here", "n")  # it goes on already
    assert len(one.tasks) == 1
    end(one)
    one.add_endpoint("here", endpoint)
    assert drained(one) == "error: cancelled" and node.lists <= 1


# -- forwarding


@pytest.fixture(params=[False, True], ids=["channels", "tunnel"])
def tunnel(request):
    """Whether the API server is of today: see Pods."""
    return request.param


class Pods:
    """The script of an API server with pods in one namespace; what they say is `serve(conn)`'s.

    tunnel     whether it is of today: connections one after another on one WebSocket
    pods       {name: pod}, as far as they are known
    services   {name: spec}
    slices     EndpointSlices, or the status that answers who asks for them
    subsets    of the Endpoints
    asked      the path of each WebSocket
    open       how many of them there are
    """

    def __init__(self, serve=None, tunnel=False, **pods):
        self.serve = serve or echoes
        self.tunnel, self.open = tunnel, 0
        self.pods = {name: {"status": {"phase": "Running"}, **pod} for name, pod in pods.items()}
        for name, pod in self.pods.items():
            pod.setdefault("metadata", {"name": name, "namespace": "ns", "uid": "uid-" + name})
        self.services, self.slices, self.subsets, self.asked = {}, 404, [], []

    def __call__(self, request, conn):
        path, _, _ = request.path.partition("?")
        if request.is_watch:
            self.asked.append(request.path)
            self.open += 1
            try:
                if self.tunnel:
                    return TunnelEnd(request, conn).run(lambda end: self.serve(end))
                channel_open(request, conn)
                return self.serve(conn)
            finally:
                self.open -= 1
        if path.endswith("/endpointslices"):
            return self.answer(conn, self.slices, {"items": self.slices})
        name = path.split("/")[6]
        if "/endpoints/" in path:
            return conn.reply(200, {"subsets": self.subsets})
        if "/services/" in path:
            spec = self.services.get(name, 404)
            return self.answer(conn, spec, {"spec": spec})
        return self.answer(conn, self.pods.get(name, 404), self.pods.get(name))

    def answer(self, conn, what, value):
        if isinstance(what, int):
            return conn.reply(what, {"kind": "Status", "message": "no such thing"})
        return conn.reply(200, value)


def channel_open(request, conn):
    """The 101 of a kubelet's portForward route, matching `Accept: */*` alone, and its words."""
    if "*/*" not in request.headers.get("accept", ""):
        return conn.reply(406, "406: Not Acceptable")
    assert "v4.channel.k8s.io" in request.headers["sec-websocket-protocol"]
    conn.upgrade(request, "v4.channel.k8s.io")
    # the API server asks a kubelet for "port"
    port = int(re.search(r"ports?=(\d+)", request.path).group(1)).to_bytes(2, "little")
    return conn.send(frame(2, b"\0" + port) + frame(2, b"\1" + port))


class TunnelEnd:
    """The other end of a tunnel, for scripts that know `said`, `say` and `end`.

    `conn` is the API server's, or a kubelet's, which is asked for SPDY/3.1 itself.
    """

    def __init__(self, request, conn):
        self.conn, self.sock, self.stopped = conn, conn.sock, conn.stopped
        self.is_kubelet = not request.is_watch
        self.buffer, self.inflate = b"", zlib.decompressobj(zdict=tunnels.DICTIONARY)
        self.data, self.errors = 0, 0  # the streams of this connection; 0 once it has ended
        self.has_heard_all = False
        if self.is_kubelet:
            assert request.headers["upgrade"] == "SPDY/3.1"
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                      "Upgrade: SPDY/3.1\r\n"
                      "X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n")
        else:
            conn.upgrade(request, tunnels.TUNNEL)

    def run(self, serve):
        """Connection after connection, as long as each is ended, by itself or by the client."""
        while not self.data:
            self.accept()
            serve(self)
            if self.has_heard_all:
                self.end()
        return False

    def accept(self):
        streams = {}
        while len(streams) < 2:
            kind, stream, flags, payload = self.frame()
            if kind == tunnels.SYN_STREAM:
                headers = tunnels.parse_headers(self.inflate.decompress(payload[6:]))
                assert re.fullmatch("[0-9]+", headers["port"])
                streams[headers["streamtype"]] = stream, headers["requestid"], flags
        (self.errors, name, ended), (self.data, same, open_) = streams["error"], streams["data"]
        assert (name, ended, open_) == (same, tunnels.FIN, 0)
        self.has_heard_all = False
        for stream in (self.errors, self.data):
            self.send(tunnels.frame(tunnels.SYN_REPLY, stream, 0, b"never read"))

    def frame(self):
        while True:
            found, self.buffer = tunnels.take_frame(self.buffer)
            if found:
                return found
            if self.is_kubelet:
                self.conn.more()
                self.buffer, self.conn.buffer = self.buffer + self.conn.buffer, b""
            else:
                opcode, data = self.conn.read_frame()
                if opcode == CLOSE:
                    raise EOFError
                self.buffer += data

    def send(self, data):
        self.conn.send(data if self.is_kubelet else frame(BINARY, data))

    def said(self):
        while self.data:
            kind, stream, flags, payload = self.frame()
            if stream == self.data:
                if payload:
                    yield payload
                if kind == tunnels.RST_STREAM or flags & tunnels.FIN:
                    self.has_heard_all = True
                    return

    def say(self, data, channel):
        self.send(tunnels.frame(tunnels.DATA, self.errors if channel else self.data, 0, data))
        if channel:
            for stream in (self.data, self.errors):
                self.send(tunnels.frame(tunnels.RST_STREAM, stream, 0, bytes((0, 0, 0, 5))))
            self.data = 0

    def end(self):
        for stream in (self.data, self.errors):
            self.send(tunnels.frame(tunnels.DATA, stream, tunnels.FIN))
        self.data = 0

    def wait_end(self):
        if self.data:
            self.conn.wait_end()


def said(conn):
    """What a connection's local side says, piece by piece, until its end."""
    if isinstance(conn, TunnelEnd):
        yield from conn.said()
        return
    while True:
        opcode, data = conn.read_frame()
        if opcode == 8:
            return
        if opcode == 2:
            assert data[:1] == b"\0"
            yield data[1:]


def say(conn, data, channel=0):
    for start in range(0, len(data), 65536):
        if isinstance(conn, TunnelEnd):
            conn.say(data[start:start + 65536], channel)
        else:
            conn.send(frame(2, bytes([channel]) + data[start:start + 65536]))


def end(conn, code=1000):
    if isinstance(conn, TunnelEnd):
        return conn.end()
    conn.send(frame(8, code.to_bytes(2, "big")))
    return False


def echoes(conn):
    """What comes goes back in upper case."""
    for data in said(conn):
        say(conn, data.upper())
        if b"bye" in data:
            return end(conn)
    return False


def connected(made):
    return socket.create_connection(("127.0.0.1", int(made["port"])), 20)


def received(local):
    """All that comes until the end."""
    pieces = []
    while True:
        piece = local.recv(65536)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def forwarded(made, data):
    """What comes back for `data`, as much as that was."""
    with connected(made) as local:
        local.sendall(data)
        back = b""
        while len(back) < len(data):
            piece = local.recv(65536)
            if not piece:
                break
            back += piece
        return back


def listed(one, made):
    return {entry["id"]: entry for entry in one.list_port_forward(made["cluster"])}[made["id"]]


def test_a_port_is_forwarded_by_this_machine_where_there_is_no_headlamp(serve, direct, tunnel):
    pods = Pods(tunnel=tunnel, p={})
    one = direct(serve(pods))
    made = one.start_port_forward("here", "ns", "p", 8080, "", "")
    assert made["targetPort"] == "8080" and made["id"] and "SECRET" not in repr(made)
    assert forwarded(made, b"hello") == b"HELLO"
    assert forwarded(made, b"x" * 300000) == b"X" * 300000
    assert forwarded(made, b"bye") == b"BYE"
    asked = ["/api/v1/namespaces/ns/pods/p/portforward?ports=8080"] * 3
    assert pods.asked == asked or tunnel and pods.asked in (asked[:1], asked[:2])

    assert [listed(one, made)[key] for key in ("status", "error", "pod")] == ["Running", "", "p"]
    with pytest.raises(ValueError, match="already"):
        one.start_port_forward("here", "ns", "p", 8080, "", "", id=made["id"])
    with connected(made) as local:
        local.sendall(b"hello")
        assert local.recv(5) == b"HELLO"
        assert one.stop_or_delete_port_forward("here", made["id"]) == "stopped"
        assert local.recv(1) == b""
    with pytest.raises(OSError):
        forwarded(made, b"x")

    assert listed(one, made)["status"] == "Stopped"
    again = one.start_port_forward("here", "ns", "p", 8080, "", "", made["port"], "", made["id"])
    assert again["port"] == made["port"] and forwarded(again, b"hello") == b"HELLO"
    one.stop_or_delete_port_forward("here", made["id"], False)
    assert one.list_port_forward("here") == []
    with pytest.raises(apiproxy.ApiError) as caught:
        one.stop_or_delete_port_forward("here", "no-such-id")
    assert caught.value.status == 404
    eventually(lambda: not one.tasks)


@pytest.mark.parametrize("wrong", [
    {"port": 70000}, {"port": 65536}, {"port": -1}, {"port": "abc"}, {"port": True}, {"port": 80.0},
    {"port": "80 "}, {"port": b"80"}, {"port": "\u0663"}, {"address": "no.such.host"},
    {"address": "300.0.0.1"}, {"address": "::1::"}, {"address": "127.0.0.1:80"},
    {"address": "a\0"}, {"container_port": 0}, {"container_port": 70000}, {"container_port": -1},
    {"container_port": True}, {"container_port": ""}, {"container_port": None},
    {"container_port": "a b"}, {"container_port": "x" * 64}, {"container_port": "80/../x"},
    {"namespace": "a/b"}, {"podname": ".."}, {"podname": "", "service": ""},
    {"podname": "", "service": "a/b"},
], ids=short)
def test_what_can_not_be_forwarded_is_refused_before_anything_is_sent(serve, direct, wrong):
    server = serve(Pods(p={}))
    one = direct(server)
    arguments = {"cluster": "here", "namespace": "ns", "podname": "p", "container_port": 80,
                 "service": "", "service_namespace": "", **wrong}
    with pytest.raises(ValueError) as caught:
        one.start_port_forward(**arguments)
    (name, value), *_ = wrong.items()
    assert not server.requests and one.list_port_forward("here") == []
    assert name in str(caught.value) or repr(value) in str(caught.value) or name == "podname"


@pytest.mark.parametrize("address", ["", "localhost", "127.0.0.1", "0.0.0.0", "::1"])
@pytest.mark.parametrize("port", [None, "", 0, "0"])
def test_any_free_port_of_an_address_will_do(serve, direct, address, port):
    one = direct(serve(Pods(p={})))
    made = one.start_port_forward("here", "ns", "p", "80", "", "", port, address)
    host = "::1" if address == "::1" else "127.0.0.1"
    with socket.create_connection((host, int(made["port"])), 20) as local:
        local.sendall(b"bye")
        assert received(local) == b"BYE"


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_named(serve, direct):
    one = direct(serve(Pods(p={})))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    for port, address, text in ((made["port"], "", "127.0.0.1 port " + made["port"]),
                                (0, "192.0.2.1", "192.0.2.1")):
        with pytest.raises(apiproxy.ApiError, match="can't listen on .*" + text):
            one.start_port_forward("here", "ns", "p", 80, "", "", port, address)


def test_the_port_of_a_forward_that_fails_is_free(serve, direct):
    one = direct(serve(Pods(p={})))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    one.stop_or_delete_port_forward("here", made["id"])
    with pytest.raises(apiproxy.ApiError) as caught:
        one.start_port_forward("here", "ns", "other", 80, "", "", made["port"])
    again = one.start_port_forward("here", "ns", "p", 80, "", "", made["port"])
    assert again["port"] == made["port"]
    assert caught.value.status == 404  # held meanwhile, and so are the frames that it came from


@pytest.mark.parametrize("pod, port, status, text", [
    ({"status": {"phase": "Pending"}}, 80, 503, "not running.*Pending"),
    ({"status": {"phase": "Succeeded"}}, 80, 503, "not running.*Succeeded"),
    ({"status": {"phase": "Failed"}}, 80, 503, "not running.*Failed"),
    ({}, "http", 404, "no port named http"), (404, 80, 404, "no such thing"),
    ({"spec": {"containers": [{"ports": [{"name": "https"}]}]}}, "http", 404, "no port named"),
    ({"spec": {"containers": 5}}, "http", 404, "no port named"), (500, 80, 500, "no such thing"),
], ids=short)
def test_a_pod_that_can_not_be_reached_is_refused_at_once(serve, direct, pod, port, status, text):
    pods = Pods(p=pod if isinstance(pod, dict) else {})
    if isinstance(pod, int):
        pods.pods["p"] = pod
    one = direct(serve(pods))
    with pytest.raises(apiproxy.ApiError, match=text) as caught:
        one.start_port_forward("here", "ns", "p", port, "", "")
    assert caught.value.status == status and not one.tasks and not pods.asked


@pytest.mark.parametrize("section", ["containers", "initContainers"])
def test_a_containers_port_is_forwarded_by_its_name(serve, direct, section):
    ports = [{"name": "metrics", "containerPort": 9090}, {"name": "http", "containerPort": 8080}]
    pods = Pods(p={"spec": {section: [{"name": "a"}, {"name": "b", "ports": ports}]}})
    one = direct(serve(pods))
    made = one.start_port_forward("here", "ns", "p", "http", "web", "ns")  # Headlamp says both
    assert made["targetPort"] == "8080" and forwarded(made, b"a") == b"A"
    assert pods.asked[0].endswith("/p/portforward?ports=8080")


def at_pod(name, ready=True, kind="Pod"):
    """An endpoint of an EndpointSlice; `ready` None says nothing."""
    conditions = {} if ready is None else {"ready": ready}
    reference = {"kind": kind, "namespace": "ns", "name": name, "uid": "uid-" + name}
    return {"addresses": ["10.0.0.1"], "conditions": conditions, "targetRef": reference}


WEB = {"ports": [
    {"name": "dns", "port": 80, "protocol": "UDP", "targetPort": 5353},
    {"name": "web", "port": 80, "protocol": "TCP", "targetPort": "http"},
    {"name": "admin", "port": 81, "targetPort": 9090},
]}
PORTS = [{"name": name, "port": port} for name, port in (
    ("dns", 5353), ("admin", 9090), ("web", 8080))]
SLICES = [
    {"ports": PORTS},
    {"endpoints": [at_pod("late", False), at_pod("x", True, "Node"), {}],
     "ports": PORTS},
    {"endpoints": [at_pod("other")], "ports": PORTS[:1]},
    {"endpoints": [at_pod("late", False), at_pod("p", None), at_pod("q")],
     "ports": PORTS},
]
SUBSETS = [
    {"notReadyAddresses": [at_pod("late")], "ports": PORTS},
    {"addresses": [{"ip": "10.0.0.1"}, at_pod("p")], "ports": PORTS},
]


@pytest.mark.parametrize("port, target", [(80, "8080"), ("80", "8080"), ("web", "8080"),
                                          (81, "9090"), ("admin", "9090")])
@pytest.mark.parametrize("slices, subsets", [(SLICES, []), (404, SUBSETS), (403, SUBSETS),
                                             (400, SUBSETS)], ids=short)
def test_a_services_port_leads_to_a_ready_pods(serve, direct, port, target, slices, subsets):
    pods = Pods(p={})
    pods.services, pods.slices, pods.subsets = {"web": WEB}, slices, subsets
    server = serve(pods)
    one = direct(server)
    made = one.start_port_forward("here", "elsewhere", "", port, "web", "ns")
    assert (made["pod"], made["targetPort"], made["namespace"]) == ("p", target, "ns")
    assert forwarded(made, b"a") == b"A"
    assert pods.asked == ["/api/v1/namespaces/ns/pods/p/portforward?ports=" + target]
    assert "labelSelector=kubernetes.io%2Fservice-name%3Dweb" in server.requests[1].path


@pytest.mark.parametrize("service, port, slices, status, text", [
    ("nope", 80, SLICES, 404, "no such thing"), ("web", 82, SLICES, 404, "no TCP port 82"),
    ("web", "dns", SLICES, 404, "no TCP port dns"), ("web", 80, [], 503, "no ready pod"),
    ("web", 80, SLICES[:3], 503, "no ready pod"), ("web", 80, 500, 500, "no such thing"),
    ("odd", 80, SLICES, 404, "no TCP port"),
    ("web", 80, [{"endpoints": 5, "ports": [5]}], 503, "no"),
    ("web", 80, [{"endpoints": [5, {"targetRef": 5}], "ports": [{"name": "web"}]}], 503, "no"),
    ("web", 80, ["x"], 200, "a list of something else"),
], ids=short)
def test_a_service_that_leads_nowhere_says_so(serve, direct, service, port, slices, status, text):
    pods = Pods(p={})
    pods.services, pods.slices = {"web": WEB, "odd": {"ports": [5, {}]}}, slices
    one = direct(serve(pods))
    with pytest.raises(apiproxy.ApiError, match=text) as caught:
        one.start_port_forward("here", "ns", "", port, service, "ns")
    assert caught.value.status == status and not one.tasks


def test_what_a_pod_refuses_is_listed_logged_and_ends_the_connection(serve, direct, tunnel, caplog):
    def refuses(conn):
        say(conn, b"nothing listens there", 1)
        conn.wait_end()

    pods = Pods(refuses, tunnel=tunnel, p={})
    one = direct(serve(pods))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    assert forwarded(made, b"a") == b""
    eventually(lambda: listed(one, made)["error"] == "nothing listens there")
    eventually(lambda: "connection ended: nothing listens there" in caplog.text)

    pods.serve = lambda conn: False  # the connection breaks
    assert forwarded(made, b"a") == b""
    eventually(lambda: "1006" in listed(one, made)["error"])
    pods.serve = echoes
    assert forwarded(made, b"a") == b"A" and listed(one, made)["status"] == "Running"
    endpoint = one.endpoints["here"]
    one.delete_cluster("here")
    assert not one.tasks
    with pytest.raises(OSError):
        connected(made)
    one.add_endpoint("here", endpoint)
    assert one.list_port_forward("here") == []


def test_a_kubelet_that_is_asked_for_json_alone_refuses(serve, direct):
    """As these tests' own must, or nobody sees what a real one answers."""
    one = direct(serve(Pods(p={})))
    with pytest.raises(apiproxy.HandshakeError) as caught:
        apiproxy.WebSocket.connect("ws" + one.endpoints["here"].server[4:] + "/x?ports=1",
                                   headers={"Accept": "application/json"})
    assert caught.value.status == 406


def kubectl_proxy(answer):
    """The script of `kubectl proxy`: what Headlamp has of its own is not there."""
    def script(request, conn):
        if not request.path.startswith("/api"):
            return conn.reply(404, "404 page not found\n")
        return answer(request, conn)

    return script


def test_with_kubectl_proxy_as_base_url_drains_and_forwards_are_done_here(serve, new_client):
    node = Node("a", "b")
    client = new_client(serve(kubectl_proxy(node)), cluster="", drain_interval=0.02)
    assert client.drain_node("", "n")["cluster"] == ""
    assert eventually(lambda: client.drain_node_status("", "n")["id"]) == "success"
    assert not node.pods and client.drain_node_status("", "other") == {"id": "", "cluster": ""}

    server = serve(kubectl_proxy(Pods(p={})))
    client = new_client(server, cluster="")
    made = client.start_port_forward("", "ns", "p", 8080, "", "")
    assert forwarded(made, b"hello") == b"HELLO"
    assert [entry["id"] for entry in client.list_port_forward("")] == [made["id"]]
    assert client.stop_or_delete_port_forward("", made["id"], False) == "stopped"
    assert client.list_port_forward("") == []
    assert all(path.startswith("/api/v1/namespaces/ns/pods/p") for path in server.paths())
    assert all("authorization" not in request.headers for request in server.requests)


# -- forwarding: half-closes, silence, amounts


@pytest.mark.parametrize("delay, linger", [
    (0.1, 4.0),
    # longer than any wait that began before the half-close
    pytest.param(1.5, 4.0, marks=pytest.mark.slow)])
def test_a_half_closed_connection_has_its_answer_however_late(serve, direct, tunnel, delay, linger):
    def answers_late(conn):
        request = b""
        for data in said(conn):
            request += data
            if request == b"question":
                conn.stopped.wait(delay)
                say(conn, b"answer")
                return end(conn)
        return False

    one = direct(serve(Pods(answers_late, tunnel=tunnel, p={})), forward_linger=linger)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(b"question")
        local.shutdown(socket.SHUT_WR)
        assert received(local) == b"answer"


@pytest.mark.slow
def test_after_the_local_sides_end_a_pod_may_be_silent_for_so_long(serve, direct, tunnel):
    def trickles(conn):
        for data in said(conn):
            for _ in range(8):
                conn.stopped.wait(0.1)
                say(conn, data)
            conn.wait_end()
        return False

    one = direct(serve(Pods(trickles, tunnel=tunnel, p={})), forward_linger=0.4)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(b"x")
        local.shutdown(socket.SHUT_WR)
        assert received(local) == b"x" * 8  # 0.8 s, with no silence of 0.4
    eventually(lambda: len(one.tasks) == 1)
    assert listed(one, made)["error"] == ""  # to give up is no error


def test_a_forward_that_is_stopped_ends_its_connections_at_once(serve, direct, tunnel):
    one = direct(serve(Pods(tunnel=tunnel, p={})), forward_linger=1000.0)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(b"x")
        assert local.recv(1) == b"X"
        one.stop_or_delete_port_forward("here", made["id"])
        eventually(lambda: not one.tasks)
        assert received(local) == b""


def test_a_local_side_that_stays_holds_nothing_for_long_once_its_pod_ended(serve, direct, tunnel):
    one = direct(serve(Pods(end, tunnel=tunnel, p={})), forward_linger=0.05)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        assert received(local) == b""
        eventually(lambda: len(one.tasks) == 1)


def test_a_local_side_that_has_gone_ends_its_connection_at_once(serve, direct, tunnel):
    one = direct(serve(Pods(tunnel=tunnel, p={})), forward_linger=1000.0)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(b"x")
        assert local.recv(1) == b"X"
        local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: len(one.tasks) == 1)
    assert listed(one, made)["error"] == ""


def digest(data):
    return hashlib.sha256(data).digest()


@pytest.mark.parametrize("seed", [
    0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_megabytes_go_both_ways_whenever_the_local_side_ends(serve, direct, tunnel, seed):
    rng = random.Random(seed)
    up, down = rng.randbytes(8 << 20) if hasattr(rng, "randbytes") else os.urandom(8 << 20), b""
    down = digest(up) * (1 << 18)
    asked, paused = rng.randrange(len(up)), rng.random() < 0.5

    def swaps(conn):
        """Half of the answer before the question is whole, the rest after it."""
        got = bytearray()
        if paused:
            conn.stopped.wait(0.3)  # nothing is read: both sides fill up
        for data in said(conn):
            if len(got) < asked <= len(got) + len(data):
                say(conn, down[:len(down) // 2])
            got += data
            if len(got) == len(up):
                assert digest(got) == digest(up)
                say(conn, down[len(down) // 2:])
                return end(conn)
        return False

    one = direct(serve(Pods(swaps, tunnel=tunnel, p={})), forward_linger=20.0)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        def sends():
            local.sendall(up)
            local.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=sends)
        sender.start()
        assert digest(received(local)) == digest(down)
        sender.join()


def test_a_pods_last_words_arrive_though_it_did_not_listen(serve, direct, tunnel):
    """To close with bytes unread is a reset, which would take them along."""
    answer, ended = os.urandom(1 << 20), threading.Event()

    def answers(conn):
        conn.stopped.wait(0.1)  # nothing is read: the local side's words fill all there is
        say(conn, answer)
        end(conn)
        conn.wait_end()
        ended.set()
        return False

    one = direct(serve(Pods(answers, tunnel=tunnel, p={})))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        def floods():
            try:
                while True:
                    local.sendall(b"x" * 65536)
            except OSError:
                pass  # shut below

        sender = threading.Thread(target=floods)
        sender.start()
        try:
            assert ended.wait(10)
            with pytest.raises(AssertionError):  # it stays to take what is still said
                eventually(lambda: len(one.tasks) == 1, 0.1)
            assert digest(received(local)) == digest(answer)
        finally:
            apiproxy.shut(local)
            sender.join()


@pytest.mark.slow
def test_neither_side_is_read_faster_than_the_other_takes_it(serve, direct, tunnel):
    sent = []

    def floods(conn):
        conn.sock.settimeout(0.5)
        try:
            for _ in range(1000):
                say(conn, b"x" * 65536)
                sent.append(65536)
        except OSError:
            sent.append("full")
        return False

    pods = Pods(floods, tunnel=tunnel, p={})
    one = direct(serve(pods))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made):
        eventually(lambda: sent and sent[-1] == "full")
        assert sum(sent[:-1]) < 32 << 20

    pods.serve = lambda conn: conn.stopped.wait(20)
    count = 0
    with connected(made) as local:
        local.settimeout(0.5)
        with pytest.raises(socket.timeout):
            while count < 64 << 20:
                count += local.send(b"x" * 65536)
        assert count < 32 << 20


def until_given_back(one):
    """Wait until no connection goes on: its tunnel is there for the next."""
    eventually(lambda: len(one.tasks) == 1)


def test_connections_go_one_after_another_over_one_websocket(serve, direct, monkeypatch):
    monkeypatch.setattr(apiproxy, "REOPEN_WAIT", 20.0)
    pods = Pods(tunnel=True, p={})
    one = direct(serve(pods))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    for text in (b"bye", b"x" * 100000 + b"bye", b"a", b"bye"):
        assert forwarded(made, text) == text.upper()
        until_given_back(one)
    assert len(pods.asked) == 1 and listed(one, made)["error"] == ""

    with connected(made) as first, connected(made) as second:  # each has one of its own
        for local in (first, second):
            local.sendall(b"a")
            assert local.recv(1) == b"A"
        assert len(pods.asked) == 2
        second.sendall(b"bye")
        assert received(second) == b"BYE"
    until_given_back(one)
    assert forwarded(made, b"bye") == b"BYE" and len(pods.asked) == 2


def test_a_pod_is_told_of_the_local_sides_end_only_when_it_has_answered(serve, direct):
    """A runtime gives it a second from then on."""
    told, answered = [], threading.Event()

    def answers(conn):
        for data in said(conn):
            if data == b"late":
                conn.stopped.wait(0.2)
            say(conn, data)
            answered.set()
            if data == b"late":
                return end(conn)
        told.append(True)
        return end(conn)

    one = direct(serve(Pods(answers, tunnel=True, p={})), forward_linger=20.0)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(b"late")
        local.shutdown(socket.SHUT_WR)
        assert received(local) == b"late" and not told
    with connected(made) as local:
        local.sendall(b"now")
        assert local.recv(3) == b"now"
        local.shutdown(socket.SHUT_WR)
        assert received(local) == b"" and told


def test_while_a_pod_goes_on_to_answer_it_is_told_nothing(serve, direct, monkeypatch):
    told, begin = [], apiproxy.Tunnel.open

    def begin_far_away(tunnel, port, seconds):
        begin(tunnel, port, seconds)
        tunnel.pause = 1.0

    def trickles(conn):
        next(said(conn))
        for _ in range(30):
            say(conn, b"x")
            conn.stopped.wait(0.01)
        conn.sock.settimeout(0.01)
        try:
            told.extend(said(conn))
            told.append("end")
        except socket.timeout:
            pass
        conn.sock.settimeout(None)
        return end(conn)

    monkeypatch.setattr(apiproxy.Tunnel, "open", begin_far_away)
    one = direct(serve(Pods(trickles, tunnel=True, p={})), forward_linger=20.0)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(b"go")
        assert local.recv(1) == b"x"
        local.shutdown(socket.SHUT_WR)
        assert received(local) == b"x" * 29 and not told


class Remote:
    """A WebSocket whose other end has said it all already."""

    def __init__(self, *messages):
        self.messages, self.sent = list(messages), b""

    def recv(self, timeout=None):
        if not self.messages:
            raise TimeoutError
        return self.messages.pop(0)

    def send(self, message):
        self.sent += message


def cut_up(data, size):
    return [data[start:start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, 1 << 20])
def test_the_frames_of_a_tunnel_come_in_any_pieces(size):
    known, other = (3, 1), (7, 2)
    noise = [tunnels.frame(kind, stream, 0, b"\0\0\0\2") for stream in other for kind in (
        tunnels.DATA, tunnels.SYN_STREAM, tunnels.SYN_REPLY, tunnels.RST_STREAM)]
    noise += [tunnels.frame(kind, 0, 0, bytes(300)) for kind in (4, 6, 7, 8, 9, 99)]
    noise += [struct.pack(">III", 0x80030000, 4 + 4, 3) + b"type"]
    frames = [*noise, tunnels.frame(tunnels.SYN_REPLY, 1), tunnels.frame(tunnels.SYN_REPLY, 3)]
    for data in (b"a", b"", b"b" * 9000):
        frames += [*noise, tunnels.frame(tunnels.DATA, 3, 0, data)]
    frames += [tunnels.frame(tunnels.DATA, stream, tunnels.FIN) for stream in known]

    remote = Remote("text", *cut_up(b"".join(frames), size))
    tunnel = apiproxy.Tunnel(remote, None)
    tunnel.open("80", 1.0)
    assert not tunnel.is_free
    assert b"".join(tunnel.receive()) == b"a" + b"b" * 9000
    assert tunnel.is_free and not remote.messages
    tunnel.send(b"data")
    tunnel.finish()
    assert remote.sent.endswith(tunnels.frame(tunnels.DATA, 3, 0, b"data")
                                + tunnels.frame(tunnels.DATA, 3, tunnels.FIN))


REPLIES = [tunnels.frame(tunnels.SYN_REPLY, stream) for stream in (1, 3)]
ENDS = [tunnels.frame(tunnels.DATA, stream, tunnels.FIN) for stream in (1, 3)]
RESETS = [tunnels.frame(tunnels.RST_STREAM, stream, 0, b"\0\0\0\5") for stream in (1, 3)]


@pytest.mark.parametrize("frames, data, error", [
    ([REPLIES[1], tunnels.frame(tunnels.DATA, 3, 0, b"a"), ENDS[1], REPLIES[0], ENDS[0]],
     [b"a", b""], None),
    ([REPLIES[0], ENDS[0], REPLIES[1], ENDS[1]], [b""], None),
    ([REPLIES[0], tunnels.frame(tunnels.DATA, 1, 0, b"no"), *RESETS, REPLIES[1]], [b""], "no"),
    ([*RESETS, *REPLIES], [b""], None),
], ids=["data", "end", "error", "resets"])
def test_what_is_said_before_the_other_streams_reply_is_not_lost(frames, data, error):
    tunnel = apiproxy.Tunnel(Remote(*frames), None)
    tunnel.open("80", 1.0)
    heard = []
    with pytest.raises(apiproxy.ApiError, match=error) if error else contextlib.nullcontext():
        heard.extend(tunnel.receive())
    assert heard == data
    assert tunnel.is_free == (not error)


@pytest.mark.parametrize("reply", REPLIES, ids=["error", "data"])
def test_a_connection_with_one_stream_alone_is_not_open(reply):
    with pytest.raises(TimeoutError):
        apiproxy.Tunnel(Remote(reply), None).open("80", 1.0)


def test_what_a_tunnel_tells_of_an_error_is_bounded():
    frames = [tunnels.frame(tunnels.DATA, 1, 0, b"x" * 60000)] * 9
    tunnel = apiproxy.Tunnel(Remote(*REPLIES, *frames, *ENDS), None)
    tunnel.open("80", 1.0)
    with pytest.raises(apiproxy.ApiError) as caught:
        list(tunnel.receive())
    assert len(caught.value.message) == apiproxy.MAX_HEAD


def test_a_silent_connection_pings_through_to_the_kubelet(serve, direct):
    """That it has gone is noticed by an API server when something comes from us."""
    def has_gone(conn):
        for _ in range(2):
            kind, number, _, _ = conn.frame()
            assert kind == tunnels.PING and number % 2  # an even one would be the kubelet's
            conn.send(tunnels.frame(kind, number))
        raise EOFError

    one = direct(serve(Pods(has_gone, tunnel=True, p={})), ping_interval=0.02, ping_timeout=0.02)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        assert received(local) == b""
    eventually(lambda: listed(one, made)["error"])


def test_a_pods_end_is_told_at_once_and_what_the_local_side_still_says_arrives(serve, direct):
    def listens_on(conn):
        conn.send(tunnels.frame(tunnels.DATA, conn.data, tunnels.FIN))
        heard.extend(said(conn))

    heard = []
    one = direct(serve(Pods(listens_on, tunnel=True, p={})), forward_linger=0.02)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        assert received(local) == b""
        local.sendall(b"more")
    eventually(lambda: heard == [b"more"])
    until_given_back(one)


def test_a_pod_that_waits_for_the_local_sides_end_has_it_after_a_while(serve, direct):
    def counts(conn):
        say(conn, b"%d" % len(b"".join(said(conn))))
        end(conn)

    one = direct(serve(Pods(counts, tunnel=True, p={})), forward_linger=0.3)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(b"words")
        local.shutdown(socket.SHUT_WR)
        assert received(local) == b"5"


@pytest.mark.parametrize("change", ["ends", "sleeps", "ages", "token", "endpoint"])
def test_a_tunnel_that_can_not_be_used_any_more_costs_no_connection(
        serve, direct, change, monkeypatch):
    monkeypatch.setattr(apiproxy, "REOPEN_WAIT", 0.05)
    pods = Pods(tunnel=True, p={})
    server = serve(pods)
    one = direct(server, keep_alive=0.01 if change == "ages" else 30.0)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")

    def echoes_once(conn):
        echoes(conn)
        if change == "ends":
            raise EOFError
        conn.stopped.wait(20)

    pods.serve = echoes_once if change in ("ends", "sleeps") else echoes
    assert forwarded(made, b"bye") == b"BYE"
    until_given_back(one)
    if change in ("ends", "ages"):  # the latter: by itself
        eventually(lambda: not pods.open)
    if change == "token":
        one.set_token("here", "another")
    if change == "endpoint":
        one.add_endpoint("here", apiproxy.Endpoint(server.url))
    pods.serve = echoes
    assert forwarded(made, b"bye") == b"BYE" and len(pods.asked) == 2
    assert listed(one, made)["error"] == ""


def test_sixty_connections_at_once(serve, direct, tunnel):
    one = direct(serve(Pods(tunnel=tunnel, p={})))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    results, barrier = [], threading.Barrier(60)

    def run(number):
        with connected(made) as local:
            barrier.wait(20)  # all of them are open now
            local.sendall(b"%d bye" % number)
            results.append(received(local))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(60)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(results) == sorted(b"%d BYE" % number for number in range(60))
    eventually(lambda: len(one.tasks) == 1)


# -- forwarding: what ends it, and what does not


@pytest.mark.parametrize("change, text", [
    (lambda pods: pods.update(p=404), "no such thing"),
    (lambda pods: pods["p"]["metadata"].update(uid="another"), "ns/p has gone"),
    (lambda pods: pods["p"].update(status={"phase": "Succeeded"}), "not running: it is Succeeded"),
], ids=["gone", "another", "finished"])
def test_a_pod_that_goes_away_ends_its_forward_with_a_reason(serve, direct, tunnel, change, text):
    pods = Pods(tunnel=tunnel, p={})
    one = direct(serve(pods), forward_check=0.02)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(b"x")
        assert local.recv(1) == b"X"
        change(pods.pods)
        assert local.recv(1) == b""
        eventually(lambda: text in listed(one, made)["error"])
        assert listed(one, made)["status"] == "Stopped"
    eventually(lambda: not one.tasks)
    with pytest.raises(OSError):
        connected(made)


@pytest.mark.slow
def test_a_server_that_is_away_for_a_while_does_not_end_a_forward(serve, direct):
    pods, looks = Pods(p={}), []

    def script(request, conn):
        if request.is_watch or "/pods/" not in request.path or not looks:
            looks.append(0)
            return pods(request, conn)
        looks.append(1)
        return conn.reply(503, "away") if len(looks) % 2 else False

    one = direct(serve(script), forward_check=0.02)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    eventually(lambda: sum(looks) > 4)
    assert forwarded(made, b"a") == b"A" and listed(one, made)["status"] == "Running"


@pytest.mark.slow
def test_a_stopped_forward_ends_at_once_also_after_a_look_at_its_pod(serve, direct, monkeypatch):
    monkeypatch.setattr(apiproxy, "ACCEPT_WAIT", 0.05 if sys.platform != "linux" else 1.0)
    server = serve(Pods(p={}))
    one = direct(server, forward_check=0.02)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    eventually(lambda: len(server.requests) > 2)  # a look, and now it waits again
    began = time.monotonic()
    one.stop_or_delete_port_forward("here", made["id"])
    assert time.monotonic() - began < 0.8 and not one.tasks


def test_a_shortage_of_threads_costs_one_connection(serve, direct, tunnel, caplog, monkeypatch):
    one = direct(serve(Pods(tunnel=tunnel, p={})))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    start, short_of = threading.Thread.start, ["apiproxy-forwarded", "apiproxy-upload"]

    def refuse(thread):
        if thread.name in short_of:
            short_of.remove(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        with connected(made) as local:
            assert received(local) == b""
        eventually(lambda: "can't start new thread" in listed(one, made)["error"])
    assert not short_of and forwarded(made, b"a") == b"A" and "Traceback" not in caplog.text
    assert listed(one, made)["status"] == "Running"

    short_of.append("apiproxy-forward")
    with pytest.raises(RuntimeError):
        one.start_port_forward("here", "ns", "p", 80, "", "")
    assert len(one.list_port_forward("here")) == 1
    assert sum(isinstance(task, apiproxy.PortForward) for task in one.tasks) == 1


def test_a_shortage_of_descriptors_is_waited_out_without_a_busy_loop(serve, direct, monkeypatch):
    monkeypatch.setattr(apiproxy, "ACCEPT_WAIT", 0.1)
    one = direct(serve(Pods(p={})))
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    accept, times = socket.socket.accept, []

    def refuse(sock):
        if sock.getsockname()[1] == int(made["port"]) and len(times) < 4:
            times.append(time.monotonic())
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", refuse)
    assert forwarded(made, b"a") == b"A"
    eventually(lambda: forwarded(made, b"a") == b"A" and len(times) == 4)
    assert all(later - sooner > 0.05 for sooner, later in zip(times, times[1:]))
    assert listed(one, made)["status"] == "Running"


def test_whatever_ends_a_forward_is_told_and_logged(serve, direct, caplog, monkeypatch):
    one = direct(serve(Pods(p={})), forward_check=0.02)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    monkeypatch.setattr(apiproxy.ForwardedConnection, "_download", lambda *_: 1 // 0)
    assert forwarded(made, b"a") == b""
    eventually(lambda: "division" in listed(one, made)["error"])
    assert listed(one, made)["status"] == "Running" and "ZeroDivisionError" in caplog.text

    caplog.clear()
    monkeypatch.setattr(apiproxy, "check_running", lambda pod: [][1])
    eventually(lambda: listed(one, made)["status"] == "Stopped")
    eventually(lambda: "index" in listed(one, made)["error"] and "IndexError" in caplog.text)
    eventually(lambda: not one.tasks)


def test_of_two_that_ask_for_the_same_name_one_gets_it(serve, direct):
    together = threading.Barrier(2)
    pods, results = Pods(p={}), []

    def script(request, conn):
        together.wait(10)
        return pods(request, conn)

    one = direct(serve(script))

    def run():
        try:
            results.append(one.start_port_forward("here", "ns", "p", 80, "", "", id="a")["id"])
        except ValueError as error:
            results.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(results) == ["a", "there is a port forward a already"] and len(one.tasks) == 1


@pytest.mark.parametrize("answer", [{}, [], None, 5, "", {"metadata": 5}, {"status": {"phase": 5}},
                                    {"metadata": {"uid": 5}, "spec": []}], ids=short)
def test_a_forward_that_is_told_odd_json_raises_an_api_error_or_works(serve, direct, answer):
    pods = Pods(p={})

    def script(request, conn):
        return pods(request, conn) if request.is_watch else conn.reply(200, json.dumps(answer))

    one = direct(serve(script))
    for podname, port in (("p", 80), ("p", "http"), ("", 80)):
        try:
            made = one.start_port_forward("here", "ns", podname, port, "web", "ns")
            assert forwarded(made, b"a") == b"A"
        except apiproxy.ApiError as error:
            assert "pod p has" in str(error) or "ns/p has" in str(error) or "the s" in str(error)


# -- the real API server with a kubelet of our own


@pytest.fixture
def kubelet(serve, new_client):
    """(Space, path of a pod) of the real server, with a Node whose kubelet is a script here."""
    def script(request, conn):
        if "*/*" not in request.headers.get("accept", "*/*"):  # its routes match nothing narrower
            return conn.reply(406, "406: Not Acceptable")
        if "/portForward/" in request.path:
            serve = echoes if "=8080" in request.path else serves_a_page
            if not request.is_watch:
                return TunnelEnd(request, conn).run(serve)
            channel_open(request, conn)
            return serve(conn)
        if "/containerLogs/" in request.path:
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\none\ntwo\n\r\n")
            log_seen.wait(10)  # 1.20 loses what it reads together with the end
            return conn.send("0\r\n\r\n")
        assert "/exec/" in request.path and request.is_watch
        conn.upgrade(request, "v4.channel.k8s.io")
        conn.send(frame(2, b"\1") + frame(2, b"\2") + frame(2, b"\3"))
        if "input=1" not in request.path:
            conn.send(frame(2, b"\1hello\n") + frame(2, b'\3{"status": "Success"}'))
            return end(conn)
        opcode, data = conn.read_frame()
        causes = [{"reason": "ExitCode", "message": "3"}]
        result = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        conn.send(frame(2, b"\1" + data[1:]) + frame(2, b"\2oops"))
        conn.send(frame(2, b"\3" + json.dumps(result).encode()))
        conn.send(frame(8, b"\x03\xe8"))
        return False

    server, log_seen = serve(script, tls=True), threading.Event()
    one = Space(direct_client(new_client), "kubelet-" + os.urandom(3).hex())
    one.log_seen = log_seen
    add_node(one)
    insist(one.patch, "/api/v1/nodes/%s/status" % one.node, {"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.port}},
    }})
    add_pod(one, "p")
    insist(one.patch, one.pods + "/p/status", {"status": {"phase": "Running"}})
    pod = one.pods + "/p"
    yield one, pod
    one.close()
    one.remove(pod)
    one.remove("/api/v1/nodes/" + one.node)
    one.end()


HTTP_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def serves_a_page(conn):
    """To whoever asks through a forwarded port."""
    for _ in said(conn):
        say(conn, HTTP_OK)


@needs_no_nodes  # kwok makes every Node's kubelet its own
@pytest.mark.cluster
@pytest.mark.skipif(not REAL, reason="APIPROXY_TEST_URL is not set")
def test_forward_exec_and_logs_through_the_real_api_server(kubelet):
    one, pod = kubelet
    namespace = pod.split("/")[4]
    made = one.start_port_forward("direct", namespace, "p", 8080, "", "")
    assert forwarded(made, b"hello") == b"HELLO"
    assert forwarded(made, b"x" * 100000) == b"X" * 100000
    one.stop_or_delete_port_forward("direct", made["id"])
    out, ended = {}, threading.Event()

    def on_message(message):
        out[message[0]] = out.get(message[0], b"") + message[1:]

    shell = one.stream(pod + "/exec?command=cat&stdin=1&stdout=1&stderr=1", on_message, {
        "additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})
    eventually(lambda: 1 in out)
    shell.get_socket().send(b"\0typed")
    assert ended.wait(10)
    code = json.loads(out[3])["details"]["causes"][0]["message"]
    assert (out[1], out[2], code) == (b"typed", b"oops", "3")
    lines = []
    one.stream(pod + "/log", lines.append, {"failCb": lambda: None})
    eventually(lambda: b"".join(base64.b64decode(line) for line in lines) == b"one\ntwo\n")
    one.log_seen.set()


# -- a whole cluster: nodes, controllers, pods that run


@pytest.fixture
def whole(new_client):
    """A direct Client with a namespace where a Deployment of four pods and a DaemonSet run."""
    settings = {"drain_interval": 0.2, "forward_check": 0.2, "forward_linger": 3.0}
    one = Space(direct_client(new_client, **settings), "whole-" + os.urandom(3).hex())
    one.core = "/api/v1/namespaces/" + one.space
    container = {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}
    for kind, name, more in (("deployments", "web", {"replicas": 4}), ("daemonsets", "agent", {})):
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        one.post("/apis/apps/v1/namespaces/%s/%s" % (one.space, kind), {
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": template, **more},
        })
    one.post(one.core + "/services", {
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    })
    eventually(lambda: len(running(one)) == 4 and len(running(one, "agent")) == NODES, 60)
    yield one
    one.end()


def running(one, app="web"):
    pods = one.request(one.core + "/pods", query_params={"labelSelector": "app=" + app})["items"]
    return [pod for pod in pods if pod["status"]["phase"] == "Running"]


def uids(pods):
    return {pod["metadata"]["uid"] for pod in pods}


@pytest.fixture
def target():
    """What a forwarded port of the whole cluster reaches: target(script) serves each connection."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(os.environ["APIPROXY_TEST_FORWARD_PORT"])))
        listener.listen(100)
        sockets, threads = [listener], []

        def accept(script):
            while True:
                try:
                    conn, _ = listener.accept()
                except OSError:
                    return
                sockets.append(conn)
                threads.append(threading.Thread(target=serve, args=(script, conn)))
                threads[-1].start()

        def serve(script, conn):
            with conn:
                script(conn)

        def start(script):
            threads.append(threading.Thread(target=accept, args=(script,)))
            threads[-1].start()

        yield start
        for sock in sockets:  # kwok leaves them open
            apiproxy.shut(sock)
        [thread.join(5) for thread in threads]


def upper(conn):
    for data in iter(lambda: conn.recv(65536), b""):
        conn.sendall(data.upper())


@pytest.mark.parametrize("whole", [pytest.param(None, marks=needs_nodes)], indirect=True)
def test_a_service_of_a_whole_cluster_is_forwarded_until_its_pod_goes(whole, target):
    target(upper)
    slices = "/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices" % whole.space
    eventually(lambda: any(piece["endpoints"] for piece in whole.request(slices)["items"]))
    made = whole.start_port_forward("direct", whole.space, "", 80, "web", "")
    assert made["targetPort"] == "8080" and forwarded(made, b"hello") == b"HELLO"

    data = os.urandom(3 << 20)
    with connected(made) as local:
        sender = threading.Thread(target=lambda: (
            local.sendall(data), local.shutdown(socket.SHUT_WR)))
        sender.start()
        assert digest(received(local)) == digest(data.upper())
        sender.join()

    with connected(made) as local:
        local.sendall(b"x")
        assert local.recv(1) == b"X"
        now = {"body": json.dumps({"gracePeriodSeconds": 0})}
        whole.remove("%s/pods/%s" % (whole.core, made["pod"]), now)
        assert local.recv(1) == b""
    eventually(lambda: "not found" in listed(whole, made)["error"])
    assert listed(whole, made)["status"] == "Stopped"


@pytest.mark.parametrize("whole", [pytest.param(None, marks=needs_nodes)], indirect=True)
def test_a_pod_that_no_node_has_is_not_forwarded_to(whole):
    spec = {"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": "i"}]}
    whole.post(whole.core + "/pods", {"metadata": {"name": "pending"}, "spec": spec})
    with pytest.raises(apiproxy.ApiError, match="Pending"):
        whole.start_port_forward("direct", whole.space, "pending", 80, "", "")


@pytest.mark.parametrize("whole", [pytest.param(None, marks=needs_nodes)], indirect=True)
def test_a_node_of_a_whole_cluster_is_drained_under_a_budget(whole):
    budgets = "/apis/policy/v1/namespaces/%s/poddisruptionbudgets" % whole.space
    selector = {"matchLabels": {"app": "web"}}
    whole.post(budgets, {"metadata": {"name": "b"},
                         "spec": {"minAvailable": 3, "selector": selector}})
    agents, nodes = uids(running(whole, "agent")), []

    def drain():
        nodes.append(running(whole)[0]["spec"]["nodeName"])
        whole.drain_node("direct", nodes[-1])

    try:
        drain()
        few = []
        while not whole.drain_node_status("direct", nodes[0])["id"]:
            few += [1] if len(running(whole)) < 3 else []
        assert drained(whole, nodes[0]) == "success" and not few
        eventually(lambda: len(running(whole)) == 4, 60)
        assert all(pod["spec"]["nodeName"] != nodes[0] for pod in running(whole))
        assert uids(running(whole, "agent")) == agents

        whole.patch(budgets + "/b", {"spec": {"minAvailable": 4}})
        eventually(lambda: whole.request(budgets + "/b")["status"]["disruptionsAllowed"] == 0)
        whole.client.drain_timeout = 1.0
        drain()
        assert "disruption budget" in drained(whole, nodes[1])
    finally:
        for name in nodes:
            whole.patch("/api/v1/nodes/" + name, {"spec": {"unschedulable": None}})


def add_node(space):
    space.node = space.space
    space.pods = "/api/v1/namespaces/%s/pods" % space.space
    space.post("/api/v1/nodes", {"metadata": {"name": space.node}})


def test_what_comes_and_goes_while_a_node_is_drained_is_left_alone(serve, direct):
    node = Node("a", "b", "c")
    node.after = {"a": "uid-new"}  # evicted, and back at once: it tolerates the cordon

    def replaced(conn):
        node.pods["b"] = "uid-new"
        return REFUSALS["budget"](conn)

    def vanished(conn):
        del node.pods["c"]
        return conn.reply(404, {"kind": "Status", "reason": "NotFound"})

    node.refusals = {"b": [replaced], "c": [vanished]}
    one = direct(serve(node))
    one.drain_node("here", "n")
    assert drained(one) == "success" and node.pods == {"a": "uid-new", "b": "uid-new"}
    assert [name for name, _ in node.evictions] == ["a", "b", "c"]  # b's budget is another's now


@pytest.mark.slow
def test_a_pod_that_listens_to_nobody_for_a_while_is_waited_for(serve, direct):
    """Pings do not get past what it has not read yet: they are no reason to give it up."""
    data = os.urandom(1 << 20) * 16

    def waits(conn):
        conn.stopped.wait(0.6)  # many times ping_timeout
        got = bytearray()
        for piece in said(conn):
            got += piece
            if len(got) == len(data):
                say(conn, digest(got))
                return end(conn)
        return False

    one = direct(serve(Pods(waits, p={})), ping_interval=0.02, ping_timeout=0.04)
    made = one.start_port_forward("here", "ns", "p", 80, "", "")
    with connected(made) as local:
        local.sendall(data)
        local.shutdown(socket.SHUT_WR)
        assert received(local) == digest(data)


# -- Headlamp, at either age

PAGE = "<!doctype html><html><body>app</body></html>\n"  # what unknown routes answer, 200
NO_PAGE = "404 page not found\n"  # an API server's, and that of Headlamp without static files
FORBIDDEN_STATUS = {"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403}

# A port-forward route as one of each age has it, and what it makes of the other's address.
TODAY = {"/portforward": (200, PAGE), "/portforward/list": (200, PAGE)}
MAY_2024 = {"/clusters/dev" + path: (404, NO_PAGE) for path in TODAY}
MAY_2024_VIEWER = dict.fromkeys(MAY_2024, (403, FORBIDDEN_STATUS))


def routes(*tables, **more):
    """A script that answers each path (without its query) as the last table that has it says."""
    answers = {path: answer for table in tables for path, answer in table.items()}

    def script(request, conn):
        answer = answers.get(request.path.partition("?")[0], (404, NO_PAGE))
        conn.reply(*(answer(request) if callable(answer) else answer))

    return script


def forwarding(root):
    """Port forwards below `root`, as both ages answer."""
    forwards = [{"id": "1", "cluster": "dev"}, {"id": "2", "cluster": "development"}]

    def one(request):
        if request.method == "DELETE":
            return 200, "stopped"
        return 200, {"id": "1", "port": "4567", **json.loads(request.body)}

    return {root: one, root + "/list": (200, forwards)}


@pytest.mark.parametrize("other, root, attempts", [
    (TODAY, "/clusters/dev/portforward", 1),
    (MAY_2024, "/portforward", 2),
    (MAY_2024_VIEWER, "/portforward", 2),
], ids=["today", "May 2024", "May 2024, a viewer"])
def test_port_forwards_are_found_at_either_address_and_it_is_remembered(
        serve, new_client, other, root, attempts):
    server = serve(routes(other, forwarding(root)))
    one = new_client(server)
    one.set_token("dev", "SECRET")

    made = one.start_port_forward("dev", "ns", "pod", 80, "svc", "ns2", 4567, "localhost", "1")
    assert made["id"] == "1" and made["cluster"] == "dev" and made["port"] == "4567"
    assert len(server.requests) == attempts

    assert one.list_port_forward("dev") == [{"id": "1", "cluster": "dev"}]
    assert one.stop_or_delete_port_forward("dev", "1") == "stopped"
    assert one.stop_or_delete_port_forward("dev", "1", False) == "stopped"
    assert len(server.requests) == attempts + 3 and one.get_token("dev")

    start, list_, stop, delete = server.requests[-4:]
    is_old = root == "/portforward"
    body = json.loads(start.body)
    assert (body["targetPort"], body["port"]) == ("80", "4567")
    assert ("cluster" in body, "address" in body) == (is_old, is_old)
    assert "?cluster=dev" in list_.path or not is_old
    assert [json.loads(each.body)["stopOrDelete"] for each in (stop, delete)] == [True, False]

    for request in server.requests[-4:]:
        assert request.headers["authorization"] == "Bearer SECRET"
        assert ("cookie" in request.headers) == (not is_old)


@pytest.mark.parametrize("tls", [False, True])
def test_a_token_goes_to_a_port_forward_as_a_cookie_in_pieces(serve, new_client, trusting, tls):
    server = serve(routes(forwarding("/clusters/d.%C3%A9-v_/portforward")), tls=tls)
    one = new_client(server, ssl_context=trusting)
    token = "SECRET" + "x" * 3794 + "y" * 3800 + "z"
    one.set_token("d.\u00e9-v_", token)
    one.start_port_forward("d.\u00e9-v_", "ns", "pod", 80, "", "")

    cookies = [pair.split("=") for pair in server.requests[0].headers["cookie"].split("; ")]
    assert [name for name, _ in cookies] == ["headlamp-auth-d-v_.%d" % n for n in range(3)]
    assert [len(value) for _, value in cookies] == [3800, 3800, 1]
    assert "".join(value for _, value in cookies) == token


@pytest.mark.parametrize("status, text", [
    (409, "portforward with this ID is already running\n"),
    (500, "permission check failed: access denied: insufficient permissions\n"),
    (500, "unable to upgrade connection: pods \"p\" not found\n"),
    (500, "unable to listen on any of the requested ports: [{80 80}]\n"),
    (400, "namespace is required\n"),
])
def test_a_port_forward_that_is_refused_says_it_in_the_servers_words(
        serve, new_client, status, text):
    server = serve(routes({"/clusters/dev/portforward": (status, text)}))
    with pytest.raises(apiproxy.ApiError) as caught:
        new_client(server).start_port_forward("dev", "ns", "p", 80, "", "")
    assert (caught.value.status, caught.value.message) == (status, text.strip())
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [
    PAGE, "", "gone", {"a": 1}, [1], "null", 5, {"kind": "Status", "reason": "NotFound"},
], ids=short)
def test_what_is_no_answer_to_a_port_forward_is_no_success(serve, new_client, answer):
    paths = [*TODAY, *MAY_2024]
    one = new_client(serve(routes(dict.fromkeys(paths, (200, answer)))))

    with pytest.raises(apiproxy.ApiError):
        one.stop_or_delete_port_forward("dev", "1")
    if not isinstance(answer, dict):
        with pytest.raises(apiproxy.ApiError):
            one.start_port_forward("dev", "ns", "p", 80, "", "")
    if answer not in ("", "null", [1]):
        with pytest.raises(apiproxy.ApiError):
            one.list_port_forward("dev")


@pytest.mark.parametrize("is_old", [False, True])
def test_a_server_that_does_not_know_the_cluster_is_quoted_and_not_its_web_page(
        serve, new_client, is_old):
    unknown = dict.fromkeys(MAY_2024, (404, "key not found\n"))
    table = dict(forwarding("/portforward")) if is_old else {**TODAY, **unknown}
    one = new_client(serve(lambda request, conn: routes(table)(request, conn)))
    if is_old:
        assert one.list_port_forward("dev")
        table.update({**TODAY, **unknown})  # it was updated meanwhile

    with pytest.raises(apiproxy.ApiError, match="key not found") as caught:
        one.start_port_forward("dev", "ns", "p", 80, "", "")
    assert caught.value.status == 404


def test_a_server_that_was_updated_meanwhile_is_found_at_its_new_address(serve, new_client):
    table = {**MAY_2024, **forwarding("/portforward")}
    server = serve(lambda request, conn: routes(table)(request, conn))
    one = new_client(server)
    assert one.list_port_forward("dev")

    table.update({**TODAY, **forwarding("/clusters/dev/portforward")})
    assert one.list_port_forward("dev") and one.list_port_forward("dev")
    assert [request.path.partition("?")[0] for request in server.requests[2:]] == [
        "/portforward/list", "/clusters/dev/portforward/list", "/clusters/dev/portforward/list"]


def test_an_address_counts_as_one_without_headlamp_for_a_while(serve, new_client, monkeypatch):
    table = {}  # kubectl proxy answers so; a reverse proxy does too, before Headlamp has started
    server = serve(lambda request, conn: routes(table)(request, conn))
    one = new_client(server)
    assert one.list_port_forward("dev") == [] and len(server.requests) == 2

    table.update(forwarding("/clusters/dev/portforward"))
    assert one.list_port_forward("dev") == [] and len(server.requests) == 2
    set_time(monkeypatch, lambda: time.monotonic() + 61)
    assert one.list_port_forward("dev") == [{"id": "1", "cluster": "dev"}]


@pytest.mark.parametrize("status, body, is_here", [
    (404, b"404 page not found\n", True), (404, b'{"kind": "Status", "reason": "NotFound"}', True),
    (403, b'{"reason": "Forbidden"}', True), (500, b'{"reason": "InternalError"}', False),
    (403, b"{}", False), (403, b"404 page not found", False), (404, b"[" * 200000, False)],
    ids=short)
def test_an_api_server_in_the_place_of_headlamp_is_known_by_its_answer(
        serve, new_client, status, body, is_here):
    one = new_client(serve(once(status, (), body)))
    if is_here:
        assert one.drain_node_status("dev", "n") == {"id": "", "cluster": "dev"}
    else:
        assert failed(one.drain_node_status, "dev", "n").status == status


def drains(body=b"key not found\n"):
    """A script of drains, and the dict that has the results it answers with, by node."""
    results = {}

    def status(request):
        node = request.path.rpartition("nodeName=")[2]
        return (200, {"id": results[node], "cluster": "dev"}) if node in results else (404, body)

    begun = {"message": "Drain node request submitted successfully", "cluster": "dev"}
    return routes({"/drain-node": (200, begun), "/drain-node-status": status}), results


@pytest.mark.parametrize("body", [b"", b"key not found\n"], ids=["May 2024", "today"])
def test_a_drain_runs_until_it_has_a_result_which_is_remembered(serve, new_client, body):
    script, results = drains(body)
    one = new_client(serve(script))
    running = {"id": "", "cluster": "dev"}
    assert one.drain_node_status("dev", "n") == running  # none begun looks alike

    assert "success" in one.drain_node("dev", "n")["message"]
    assert one.drain_node_status("dev", "n") == running
    results["n"] = "success"
    assert one.drain_node_status("dev", "n") == {"id": "success", "cluster": "dev"}

    results.clear()  # the server forgets it
    assert one.drain_node_status("dev", "n")["id"] == "success"
    assert one.drain_node_status("dev", "other") == running

    one.drain_node("dev", "n")  # anew
    assert one.drain_node_status("dev", "n") == running
    results["n"] = "error: x"
    assert one.drain_node_status("dev", "n")["id"] == "error: x"


class SteppedClock:
    """The module's time, which `passes` when a test says so."""

    def __init__(self, monkeypatch):
        self.passed = 0.0
        names = {**vars(time), "monotonic": lambda: time.monotonic() + self.passed}
        monkeypatch.setattr(apiproxy, "time", types.SimpleNamespace(**names))

    def passes(self, seconds):
        self.passed += seconds


def test_who_asks_for_the_result_of_a_drain_too_late_is_told_so(serve, new_client, monkeypatch):
    clock = SteppedClock(monkeypatch)
    script, results = drains()
    one = new_client(serve(script))
    one.drain_node("dev", "n")

    for _ in range(3):  # nothing is missed by who asks in time
        clock.passes(18)
        assert one.drain_node_status("dev", "n")["id"] == ""

    clock.passes(21)
    for _ in range(2):
        assert one.drain_node_status("dev", "n")["id"].startswith("error: unknown")
    results["n"] = "success"  # it took that long
    assert one.drain_node_status("dev", "n")["id"] == "success"

    one.drain_node("dev", "m")
    clock.passes(21)
    assert one.drain_node_status("dev", "never begun")["id"] == ""
    assert one.drain_node_status("dev", "m")["id"].startswith("error: unknown")


def test_a_server_of_may_2024_keeps_the_result_of_a_drain_longer(serve, new_client, monkeypatch):
    clock = SteppedClock(monkeypatch)
    one = new_client(serve(drains(b"")[0]))
    one.drain_node("dev", "n")
    clock.passes(1190)
    assert one.drain_node_status("dev", "n")["id"] == ""
    clock.passes(1210)
    assert one.drain_node_status("dev", "n")["id"].startswith("error: unknown")


@pytest.mark.parametrize("status, text", [
    (401, "why"), (403, ""), (404, "why"), (500, "key not found")])
def test_a_drain_that_is_refused_is_an_error_and_leaves_the_token(serve, new_client, status, text):
    failing = {path: (status, text) for path in ("/drain-node", "/drain-node-status")}
    one = new_client(serve(routes(failing)), on_logout=pytest.fail)
    one.set_token("dev", "SECRET")

    for call in (one.drain_node, one.drain_node_status):
        with pytest.raises(apiproxy.ApiError) as caught:
            call("dev", "n")
        assert (caught.value.status, caught.value.body) == (status, text.encode())
    assert one.get_token("dev") == "SECRET"


TWO_CONTEXTS = """
apiVersion: v1
kind: Config
current-context: last
clusters:
- {name: c, cluster: {server: "https://127.0.0.1:1"}}
- {name: d, cluster: {server: "https://127.0.0.1:2"}}
users:
- {name: u, user: {token: SECRET-u}}
- {name: v, user: {token: SECRET-v}}
contexts:
- {name: plain, context: {cluster: c, user: u}}
- {name: a/b c, context: {cluster: d, user: v}}
- name: renamed
  context:
    cluster: c
    user: v
    extensions:
    - {name: headlamp_info, extension: {customName: mine}}
- {name: last, context: {cluster: d, user: u}}
"""


def parsing(*names):
    """Headlamp's route that reads a kubeconfig, and one that says what came."""
    answer = {"clusters": [{"name": name} for name in names]}
    return routes({"/parseKubeConfig": (200, answer)},
                  {"/clusters/%s/version" % name: (200, {}) for name in names})


@pytest.mark.parametrize("name, context, server, token", [
    ("plain", "plain", 1, "SECRET-u"), ("a--b__c", "a/b c", 2, "SECRET-v"),
    ("mine", "renamed", 1, "SECRET-v"), ("last", "last", 2, "SECRET-u"),
])
def test_a_cluster_gets_its_own_context_of_a_kubeconfig_and_no_other(
        serve, new_client, name, context, server, token):
    headlamp = serve(parsing("plain", "a--b__c", "mine", "last"))
    one = new_client(headlamp)
    whole = base64.b64encode(TWO_CONTEXTS.encode()).decode()
    answer = one.set_cluster({"kubeconfig": whole})
    assert [entry["name"] for entry in answer["clusters"]] == ["plain", "a--b__c", "mine", "last"]
    assert json.loads(headlamp.requests[0].body) == {"kubeconfig": whole, "kubeconfigs": [whole]}

    one.request("/version", {"cluster": name})
    sent = base64.b64decode(headlamp.requests[1].headers["kubeconfig"])
    config = json.loads(sent)
    assert config["current-context"] == context
    assert [entry["name"] for entry in config["contexts"]] == [context]
    assert [entry["cluster"] for entry in config["clusters"]] == [
        {"server": "https://127.0.0.1:%d" % server}]
    assert [entry["user"] for entry in config["users"]] == [{"token": token}]
    assert sent.count(b"SECRET") == 1


def test_a_context_is_meant_before_one_that_a_server_might_call_so():
    config = {"contexts": [{"name": "a/b", "context": {}}, {"name": "a--b", "context": {}}]}
    text = base64.b64decode(apiproxy.reduce_kubeconfig(json.dumps(config).encode(), "a--b"))
    assert [entry["name"] for entry in json.loads(text)["contexts"]] == ["a--b"]


@pytest.mark.parametrize("text", [
    b"a: &x {<<: SECRET}\n", b"\xff", b" ", b"[]", b"a: 1\n---\nb: 2\n"], ids=short)
def test_a_kubeconfig_that_can_not_be_read_here_goes_whole_with_a_warning(
        serve, new_client, caplog, text):
    headlamp = serve(parsing("x"))
    one = new_client(headlamp)
    encoded = base64.b64encode(text).decode()
    one.set_cluster({"kubeconfig": encoded})
    one.request("/version", {"cluster": "x"})
    assert headlamp.requests[1].headers["kubeconfig"] == encoded
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "can't be read here" in warnings[0].getMessage()


@pytest.mark.parametrize("answer", [{}, {"clusters": []}, {"clusters": [1, {"name": 2}]}, [], PAGE])
def test_a_server_that_names_no_cluster_in_a_kubeconfig_has_stored_none(serve, new_client, answer):
    one = new_client(serve(routes({"/parseKubeConfig": (200, answer)})))
    with pytest.raises(apiproxy.ApiError) as caught:
        one.set_cluster({"kubeconfig": base64.b64encode(b"{}").decode()})
    assert caught.value.status == 200


def test_a_cluster_is_added_in_the_documented_spelling_and_in_the_servers(serve, new_client):
    server = serve(routes({"/cluster": (201, json.dumps({"clusters": []}))}))
    request = {"name": "new", "server": "https://127.0.0.1:1", "insecureTLSVerify": True,
               "certificateAuthorityData": "cGVt"}
    before = dict(request)
    new_client(server).set_cluster(request)
    assert request == before and json.loads(server.requests[0].body) == {
        **request, "insecure-skip-tls-verify": True, "certificate-authority-data": "cGVt"}


def known(source, file="/home/.config/Headlamp/kubeconfigs/config"):
    """GET /config of today's server, with a cluster `dev`."""
    meta = {"source": source, "originalName": "dev", "clusterID": file and file + "+dev",
            "origin": {"kubeconfig": file}}
    return {"clusters": [{"name": "broken", "meta_data": None}, {"name": "dev", "meta_data": meta}]}


@pytest.mark.parametrize("config, asked, file", [
    (known("dynamic_cluster"), False, "/home/.config/Headlamp/kubeconfigs/config"),
    (known("dynamic_cluster", ""), False, None),  # just added: the server does not say where it is
    (known("kubeconfig", "/home/.kube/config"), False, None),
    (known("kubeconfig", "/home/.kube/config"), True, "/home/.kube/config"),
    ({"clusters": [{"name": "dev", "meta_data": {"source": "dynamic_cluster"}}]}, False, None),
    ({"clusters": None}, False, None),
], ids=["stored", "added", "the user's", "the user's, asked", "May 2024", "none"])
def test_what_the_server_stored_goes_from_its_file_and_the_users_own_stays(
        serve, new_client, config, asked, file):
    server = serve(routes({"/config": (200, config), "/cluster/dev": (200, {"clusters": []})}))
    assert new_client(server).delete_cluster("dev", remove_kubeconfig=asked) == {"clusters": []}

    method, path = server.requests[1].method, server.requests[1].path
    assert method == "DELETE" and path.startswith("/cluster/dev") and len(server.requests) == 2
    query = dict(urllib.parse.parse_qsl(path.partition("?")[2]))
    assert query == ({"removeKubeConfig": "true", "configPath": file, "originalName": "dev",
                      "clusterID": file + "+dev"} if file else {})


@pytest.mark.parametrize("field", ["originalName", "clusterID", "origin"])
def test_names_of_the_servers_that_can_not_be_sent_back_are_its_fault(serve, new_client, field):
    config = known("dynamic_cluster")
    config["clusters"][1]["meta_data"][field] = (
        {"kubeconfig": "\ud800"} if field == "origin" else "\ud800")
    server = serve(routes({"/config": (200, config)}))
    with pytest.raises(apiproxy.ApiError, match="can't be sent back"):
        new_client(server).delete_cluster("dev")
    assert server.paths() == ["/config"]


@pytest.mark.parametrize("gone, asked", [(True, False), (False, False), (True, True)])
def test_a_server_of_may_2024_fails_after_it_has_forgotten_a_cluster(
        serve, new_client, gone, asked):
    named = {"clusters": [{"name": "dev", "meta_data": {"source": "kubeconfig"}}]}
    configs = [named, {"clusters": []} if gone else named]
    server = serve(routes({"/config": lambda request: (200, configs.pop(0)),
                           "/cluster/dev": (500, "removing cluster from kubeconfig\n")}))
    one = new_client(server)

    if gone and not asked:
        assert one.delete_cluster("dev") == {"clusters": []}
        return
    with pytest.raises(apiproxy.ApiError) as caught:
        one.delete_cluster("dev", remove_kubeconfig=asked)
    assert caught.value.message == "removing cluster from kubeconfig"


def test_a_plugin_is_removed_with_its_type_and_both_answers_are_good(serve, new_client):
    failure = {"success": False, "message": "not found"}
    answers = [(200, {"success": True}), (200, ""), (500, failure)]
    server = serve(routes({"/plugins/a%20b": lambda request: answers.pop(0)}))
    one = new_client(server)
    assert one.delete_plugin("a b", type="user") == {"success": True}
    assert one.delete_plugin("a b") is None
    assert server.paths() == ["/plugins/a%20b?type=user", "/plugins/a%20b"]
    with pytest.raises(apiproxy.ApiError) as caught:
        one.delete_plugin("a b")
    assert caught.value.message == "not found"


def test_nothing_is_remembered_of_a_cluster_that_is_removed(serve, new_client):
    script, results = drains()
    table = routes({"/config": (200, {}), "/cluster/dev": (200, {})})
    one = new_client(serve(lambda request, conn:
                       (script if "drain" in request.path else table)(request, conn)))
    results["n"] = "success"
    assert one.drain_node_status("dev", "n")["id"] == "success"
    results.clear()
    one.delete_cluster("dev")
    assert one.drain_node_status("dev", "n")["id"] == ""


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
    assert caught.value.status == 404 and "not found" in caught.value.message


@pytest.mark.parametrize("age, status", [("2024", 408), ("2026", 500)])
def test_a_port_forward_is_made_listed_and_stopped(new_client, demo, age, status):
    server = demo(headlamp=age)
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

    client.request_timeout = 0.3 if age == "2024" else 30
    with pytest.raises(apiproxy.ApiError) as caught:
        # that of May 2024 never answers
        client.start_port_forward("dev", "demo-shop", "no-such-pod", 80, "", "")
    assert caught.value.status == status


def test_a_port_forward_list_is_of_one_cluster(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200,
        [{"cluster": "foo", "id": "1"}, {"cluster": "foobar", "id": "2"}]))
    assert new_client(server).list_port_forward("foo") == [{"cluster": "foo", "id": "1"}]
    assert server.paths() == ["/clusters/foo/portforward/list"]
    none = serve(lambda request, conn: conn.reply(200, "null"))  # as Go writes an empty one
    assert new_client(none).list_port_forward("foo") == []


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


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_client_is_not_copied_by_halves(twin):
    """A copy by copy.copy sent streams where the original had its address and its cluster."""
    with pytest.raises(TypeError, match="a Client can't be copied"):
        twin(apiproxy.Client())


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
                  lambda c: c.set_cluster({"kubeconfig": "a\nb"}), lambda c: c.api_factory(),
                  lambda c: c.api_factory("a/b", "v1", "x"),
                  lambda c: c.api_factory("a", "v1", "x/y")]),
    (TypeError, [lambda c: c.set_token("dev", b"a"), lambda c: c.post("/x", object()),
        lambda c: c.patch("/x", "text"), lambda c: c.api_factory("a", "v1"),
        lambda c: c.api_factory(("a", "v1", "x"), "pod")]),
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
    (lambda client: client.stream_results("/x", None, print), "cb: callable"),
    (lambda client: client.stream_results("/x", print, 1), "err_cb: callable"),
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
        "'errCb'"),
    (lambda client: client.stream("/x", print, {"additionalProtocols": ["a b"]}), ValueError),
    (lambda client: client.stream("/x", 5), "cb: callable"),
    (lambda client: client.stream("/x", print, {"connectCb": 5}), "connectCb: callable"),
    (lambda client: client.stream("/x", print, {"failCb": 5}), "failCb: callable"),
    (lambda client: client.metrics("/x", print, 5), "on_error: callable"),
    (lambda client: client.metrics("/x", None), "on_metrics: callable"),
    (lambda client: client.metrics("/x", print, None, "a/b"), ValueError)])
def test_wrong_arguments_raise_in_the_callers_thread(new_client, call, wrong):
    with pytest.raises(TypeError if isinstance(wrong, str) else wrong) as caught:
        call(new_client("http://127.0.0.1:1"))
    assert wrong is ValueError or wrong in str(caught.value)
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


# -- settings


def test_two_clients_share_no_setting():
    namespaces = {"dev": "a"}
    first, second = (apiproxy.Client("http://a", default_namespaces=namespaces) for _ in "12")
    first.default_namespaces["dev"] = "b"
    assert second.default_namespaces == namespaces == {"dev": "a"}
    apiproxy.Client("http://a").default_namespaces["x"] = "y"
    assert apiproxy.Client("http://a").default_namespaces == {}


@pytest.mark.parametrize("name, nearest", [
    ("request_timout", "request_timeout"), ("defaultNamespaces", "default_namespaces"),
    ("Cluster", "cluster"), ("pingInterval", "ping_interval"), ("tokenas", "token_as")])
def test_a_mistyped_attribute_is_refused_and_the_nearest_named(name, nearest):
    client = apiproxy.Client("http://a")
    with pytest.raises(AttributeError, match="did you mean '%s'" % nearest):
        setattr(client, name, 1)
    with pytest.raises(TypeError):
        apiproxy.Client("http://a", **{name: 1})
    with pytest.raises(AttributeError):
        getattr(client, name)


def test_every_setting_is_an_attribute_that_counts_from_the_next_call(serve):
    server = serve(lambda request, conn: conn.reply(200, {}))
    with apiproxy.Client("http://127.0.0.1:1") as client:
        for name in apiproxy.known_options(apiproxy.Settings):
            setattr(client, name, getattr(client, name))
        client.base_url, client.cluster, client.gzip = server.url, "other", False
        client.request("/x")
    request, = server.requests
    assert request.path == "/clusters/other/x"
    assert request.headers["accept-encoding"] == "identity"


def test_configure_with_a_client_applies_the_settings_or_refuses_them(serve):
    server = serve(lambda request, conn: conn.reply(200, {}))
    before, client = apiproxy.default_client(), apiproxy.Client(server.url)

    try:
        with pytest.raises(TypeError, match="request_timeout"):
            apiproxy.configure(client, cluster="dev", request_timout=5)
        assert apiproxy.default_client() is before and client.cluster == ""

        apiproxy.configure(client, cluster="dev", gzip=False)
        assert apiproxy.default_client() is client
        apiproxy.request("/x")
        assert server.requests[0].path == "/clusters/dev/x"
        assert server.requests[0].headers["accept-encoding"] == "identity"
    finally:
        apiproxy.configure()


def test_configure_ends_what_runs_with_another_client(serve):
    client = apiproxy.Client(serve(hello).url, cluster="dev")
    try:
        apiproxy.configure(client)
        stream = apiproxy.stream("/x", print)
        apiproxy.configure(client, gzip=False)
        assert stream.is_alive
    finally:
        apiproxy.configure()
    eventually(lambda: not stream.is_alive)


def test_a_context_that_a_second_kubeconfig_leaves_out_is_gone(serve, caplog):
    server = serve(echo_headers)
    with apiproxy.Client("") as client:
        good = config(server.url, {"token": "SECRET-1"})
        client.set_cluster({"kubeconfig": b64(json.dumps(good))})
        assert client.request("/x", {"cluster": "here"})["authorization"] == "Bearer SECRET-1"

        bad = config(server.url, {"auth-provider": {"name": "gcp"}})
        del bad["current-context"]
        answer = client.set_cluster({"kubeconfig": b64(json.dumps(bad))})
        assert answer == {"clusters": []} and "here" not in client.endpoints
        with pytest.raises(ValueError, match="auth-provider"):
            client.request("/x", {"cluster": "here"})
        assert client.get_token("here") is None

        client.set_cluster({"kubeconfig": b64(json.dumps(good))})
        assert client.request("/x", {"cluster": "here"})["authorization"] == "Bearer SECRET-1"


@pytest.mark.parametrize("port", [65536, 70000, 999999])
def test_a_port_beyond_the_last_is_refused(serve, new_client, port):
    for call in (
        lambda: apiproxy.Client("http://a:%d" % port),
        lambda: apiproxy.Endpoint("https://a:%d" % port),
        lambda: connect("ws://a:%d/" % port),
        lambda: apiproxy.Address("http://a:%d" % port, ("http", "https")),
    ):
        with pytest.raises(ValueError):
            call()

    server = serve(lambda request, conn: conn.reply(200, {}))
    for client in (new_client(server), new_client(server, cluster="")):
        with pytest.raises(ValueError):
            client.start_port_forward(client.cluster, "ns", "pod", 80, "", "", port)
        with pytest.raises(ValueError):
            client.start_port_forward(client.cluster, "ns", "pod", port, "", "")
        with pytest.raises(ValueError):
            client.set_cluster({"name": "a", "server": "https://a:%d" % port})
    assert not server.requests


# -- what nobody expected


@pytest.mark.parametrize("start", [
    lambda client, told: client.stream_results(
        "/api/v1/pods", print, lambda error, cancel: told.append(error)),
    lambda client, told: client.stream_result(
        "/api/v1/pods", "a", print, lambda error, cancel: told.append(error)),
    lambda client, told: client.stream("/x", print, {"failCb": told.append}).cancel,
    lambda client, told: client.metrics("/x", print, told.append),
], ids=["list", "object", "stream", "metrics"])
def test_whatever_ends_a_stream_is_told_and_logged(serve, new_client, caplog, monkeypatch, start):
    server, told = serve(hello_or_json), []
    client = new_client(server)
    for name in ("send", "connect"):
        monkeypatch.setattr(apiproxy.Transport, name, lambda *args, **options: 1 / 0)
    start(client, told)
    error, = eventually(lambda: told)

    assert isinstance(error, apiproxy.ApiError) and error.status == 0
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "ZeroDivisionError: division by zero" in str(error)
    eventually(lambda: not client.tasks)
    assert len(told) == 1 and "Traceback" in caplog.text and "ZeroDivisionError" in caplog.text


def test_whatever_ends_a_stream_without_callbacks_is_logged(
        serve, new_client, caplog, monkeypatch):
    client = new_client(serve(hello_or_json))
    for name in ("send", "connect"):
        monkeypatch.setattr(apiproxy.Transport, name, lambda *args, **options: 1 / 0)
    stream = client.stream("/x", print)
    client.metrics("/x", print)
    eventually(lambda: not client.tasks)
    assert "ZeroDivisionError" in str(stream.error)
    assert caplog.text.count("Traceback") >= 2


# -- any JSON


def some_json(chance, depth=0):
    """Any JSON, of the words that Kubernetes and Headlamp use, mostly of a wrong kind."""
    words = ("items", "metadata", "kind", "name", "namespace", "resources", "clusters", "status",
        "uid", "resourceVersion", "continue", "spec", "details", "reason", "message", "code", "id",
        "cluster", "token", "type", "object", "rows", "cells", "ports", "phase", "containers",
        "group", "version", "namespaced", "apiVersion", "retryAfterSeconds", "ownerReferences",
        "endpoints", "meta_data", "origin", "labels", "annotations", "finalizers", "template")
    values = (None, True, False, 0, -1, 1.5, 10 ** 30, "", "a", "pods", "Pod", "PodList", "List",
        "v1", "apps/v1", "Status", "Table", "ADDED", "BOOKMARK", "ERROR", "10", "\ud800", [], {})
    kind = chance.randrange(7 if depth < 5 else 4)
    if kind < 4:
        return chance.choice(values)
    if kind == 4:
        return [some_json(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(words): some_json(chance, depth + 1) for _ in range(chance.randrange(8))}


def warped(chance, value):
    """`value` with something in it that does not belong."""
    if chance.random() < 0.06:
        return some_json(chance, 3)
    if isinstance(value, dict):
        return {key: warped(chance, item) for key, item in value.items() if chance.random() > 0.03}
    if isinstance(value, list):
        return [warped(chance, item) for item in value]
    return value


RIGHT = [  # path, what a server has there
    (r"/api$|/apis$", {"versions": ["v1"], "groups": []}),
    (r"/apis?/[^/]+(/[^/]+)?$", {"kind": "APIResourceList", "resources": [
        {"name": "pods", "kind": "Pod", "namespaced": True},
        {"name": "configmaps", "kind": "ConfigMap", "namespaced": True}]}),
    (r"/pods$|/nodes$|/endpointslices$", pods(
        pod("a", metadata={"namespace": "ns", "ownerReferences": []}), kind="PodList")),
    (r"/portforward/list$", [{"id": "1", "cluster": "dev"}]),
    (r"/portforward$", {"id": "1", "port": "1", "cluster": "dev"}),
    (r"/drain-node-status$|/drain-node$", {"id": "success", "cluster": "dev"}),
    (r"/config$|/parseKubeConfig$|/cluster", {"clusters": [
        {"name": "dev", "meta_data": {"source": "kubeconfig", "origin": {"kubeconfig": "/x"}}}]}),
    (r"", pod("a", metadata={"namespace": "ns"}, status={"phase": "Running"}, spec={
        "ports": [{"port": 80, "name": "web"}],
        "containers": [{"ports": [{"name": "web", "containerPort": 80}]}]})),
]


def answers_anything(chance):
    """The script of a server that answers right, nearly right, or anything."""
    def script(request, conn):
        path = request.path.partition("?")[0]
        right = next(answer for pattern, answer in RIGHT if re.search(pattern, path))
        body = warped(chance, right) if chance.random() < 0.8 else some_json(chance)
        status = chance.choice((200, 200, 200, 200, 201, 400, 403, 404, 409, 410, 422, 500))
        if status >= 400 and chance.random() < 0.7:
            body = warped(chance, {"kind": "Status", "message": "m", "reason": "AlreadyExists",
                "code": status, "details": {"name": "a", "retryAfterSeconds": 0}})
        if request.is_watch and chance.random() < 0.8:
            conn.upgrade(request)
            for action in chance.sample(("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"), 3):
                event = {"type": action, "object": pod("a", "1%d" % chance.randrange(9))}
                conn.push(warped(chance, event))
            conn.send(frame(CLOSE, b"\x03\xe8"))
            return False
        return conn.reply(status, body)

    return script


def every_call(client, told):
    """A call of every public function, by its name."""
    failed_ = lambda error, *rest: told.append(error)  # noqa: E731
    both_ = {"cb": print_nothing, "errCb": failed_}
    plain = client.api_factory(("", "v1", "nodes"), ("x", "v1", "nodes"))
    spaced = client.api_factory_with_namespace("", "v1", "pods", True)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "y"}}
    named = {"metadata": {"name": "a", "namespace": "ns"}}
    path, here = "/api/v1/namespaces/ns/pods", client.cluster
    return {
        "api_factory": lambda: plain.put(named),
        "api_factory get": lambda: plain.get("a", print_nothing, failed_),
        "api_factory list": lambda: plain.list(print_nothing, failed_, {"limit": 2}),
        "api_factory delete": lambda: plain.delete("a"),
        "api_factory_with_namespace": lambda: spaced.post(named),
        "api_factory_with_namespace patch": lambda: spaced.patch({}, "ns", "a"),
        "api_factory_with_namespace list": lambda: spaced.list("ns", print_nothing, failed_),
        "scale": lambda: [spaced.scale.get("ns", "a"), spaced.scale.put(named)],
        "apply": lambda: client.apply(body),
        "apply with a version": lambda: client.apply(
            {**body, "metadata": {"name": "a", "resourceVersion": "1"}}),
        "apply by the server": lambda: client.apply(body, field_manager="me", dry_run=True),
        "cluster_request": lambda: client.cluster_request(
            "/x", {"isJSON": False, "cluster": here}),
        "delete_cluster": lambda: client.delete_cluster("dev", remove_kubeconfig=True),
        "delete_plugin": lambda: client.delete_plugin("p"),
        "drain_node": lambda: client.drain_node(here, "n"),
        "drain_node_status": lambda: client.drain_node_status(here, "n"),
        "list_port_forward": lambda: client.list_port_forward(here),
        "metrics": lambda: client.metrics("/apis/metrics.k8s.io/v1", print_nothing, failed_),
        "patch": lambda: client.patch(path + "/a", {}), "post": lambda: client.post(path, {}),
        "put": lambda: client.put(path + "/a", {}), "remove": lambda: client.remove(path + "/a"),
        "request": lambda: client.request(path),
        "set_cluster": lambda: client.set_cluster({"name": "x", "server": "http://x"}),
        "set_cluster kubeconfig": lambda: client.set_cluster({"kubeconfig": kubeconfig("mine")}),
        "start_port_forward": lambda: client.start_port_forward(here, "ns", "a", "web", "", ""),
        "start_port_forward of a service": lambda: client.start_port_forward(
            here, "ns", "", 80, "svc", "ns"),
        "stop_or_delete_port_forward": lambda: client.stop_or_delete_port_forward(here, "1", False),
        "stream": lambda: client.stream(path + "/a/log", print_nothing,
            {"isJson": True, "failCb": told.append}).cancel,
        "stream_result": lambda: client.stream_result(path, "a", print_nothing, failed_),
        "stream_results": lambda: client.stream_results(path, print_nothing, failed_, {"limit": 1}),
        "stream_results_for_cluster": lambda: client.stream_results_for_cluster(path, both_),
        "test_auth": client.test_auth, "test_cluster_health": client.test_cluster_health,
        "wait_for": lambda: client.wait_for(path, "a", "Ready", 0.02),
    }


def print_nothing(*args):
    """A callback that has no trouble with what it gets."""


@pytest.mark.parametrize("way", ["headlamp", "direct"])
@pytest.mark.parametrize("count", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_whatever_json_a_server_answers_only_api_errors_come_out(
        serve, new_client, caplog, way, count):
    chance, told = random.Random("any %s %d" % (way, count)), []
    server = serve(answers_anything(chance))
    settings = dict(drain_timeout=0.05, drain_interval=0.01, metrics_period=0.01,
        forward_check=0.05, resync=0.05, token_window=0.1)

    for number in range(count):
        client = new_client(server, **settings)
        if way == "direct":
            client = new_client("", **settings)
            client.add_endpoint("dev", apiproxy.Endpoint(server.url, token="SECRET"))
        for name, call in every_call(client, told).items():
            if name == "delete_cluster" and way == "direct":
                continue
            try:
                call()
            except (apiproxy.ApiError, TimeoutError) as error:
                assert name == "wait_for" or not isinstance(error, TimeoutError), name
            except ValueError as error:
                wanted = name.startswith(("delete_plugin", "set_cluster", "start_port_forward"))
                assert wanted and way == "direct", (number, name, error)
            except Exception as error:
                raise AssertionError((number, name)) from error
        time.sleep(0.02)
        client.close()
        assert "should not happen" not in caplog.text, number
        assert "a callback failed" not in caplog.text
        caplog.clear()

    assert told and all(isinstance(error, apiproxy.ApiError) for error in told)


def test_every_public_function_is_asked_about_any_json(new_client):
    calls = {name.partition(" ")[0] for name in every_call(new_client("http://127.0.0.1:1"), [])}
    assert set(DOCUMENTED) <= calls


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


def test_the_health_asked_for_is_the_current_clusters(serve, new_client):
    server = serve(lambda request, conn: conn.reply(200, "ok"))
    new_client(server, cluster="dev").test_cluster_health()
    assert server.paths() == ["/clusters/dev/healthz"]


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


# -- processes: what a forked child has, and what it leaves alone

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
IS_FREE = not getattr(sys, "_is_gil_enabled", lambda: True)()
sound_fork = pytest.mark.skipif(
    IS_FREE and sys.version_info < (3, 14) or sys.implementation.name == "pypy",
    reason="children of threads hang in the interpreter itself: without the GIL in 3.13 (51 of "
    "200 did without this module), in PyPy at functools.lru_cache, which has a lock there")


def fork():
    """0 in the child, its number in the parent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12, where there are threads
        return os.fork()


def in_child(call):
    """What call() gives, as JSON can tell it, in a forked child, which has 20 seconds."""
    read, write = os.pipe()
    pid = fork()

    if not pid:
        try:
            faulthandler.dump_traceback_later(20, exit=True)
            try:
                text = json.dumps(call())
            except BaseException as error:
                text = json.dumps("raised " + repr(error))
            os.write(write, text.encode())
        finally:
            os._exit(0)

    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(pid, 0)
    assert text, "the child hangs"
    return json.loads(text)


@contextlib.contextmanager
def held_elsewhere(*locks):
    """Another thread holds these locks."""
    taken, free = threading.Event(), threading.Event()

    def hold():
        for lock in locks:
            lock.acquire()
        taken.set()
        free.wait(30)
        for lock in locks:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(10)
    try:
        yield
    finally:
        free.set()
        thread.join()


@needs_fork
@both
def test_a_child_has_connections_of_its_own(serve, new_client, trusting, tls):
    def script(request, conn):
        conn.reply(200, {"path": request.path, "peer": conn.sock.getpeername()[1]})

    server = serve(script, tls=tls)
    client = new_client(server, ssl_context=trusting if tls else None)

    def ask():
        return [client.request("/%d-%d" % (os.getpid(), number)) for number in range(5)]

    ask()
    before = sockets()
    theirs, ours = in_child(lambda: [ask(), sockets(), os.getpid()]), ask()
    answers = theirs[0] + ours
    pids = [theirs[2]] * 5 + [os.getpid()] * 5
    assert [answer["path"] for answer in answers] == [
        "/clusters/dev/%d-%d" % (pid, number) for pid, number in zip(pids, [*range(5)] * 2)]
    assert not {answer["peer"] for answer in theirs[0]} & {answer["peer"] for answer in ours}
    assert theirs[1] <= before  # the copy is closed, one of its own is open
    assert len({answer["peer"] for answer in ours}) == 1  # that of before


@needs_fork
@both
def test_what_a_child_ends_goes_on_in_its_parent(serve, new_client, trusting, tls):
    go_on = threading.Event()
    api = Api(serve, watches=[[lambda *args: go_on.wait(10) and None, B2]], tls=tls)
    api.start(new_client, ssl_context=trusting if tls else None)
    stream = api.client.stream("/x", print)
    api.asked(True, 2)
    eventually(stream.get_socket)

    def end():
        begun = time.monotonic()
        tasks = len(api.client.tasks)
        api.cancel()
        stream.cancel()
        socket = stream.get_socket()
        ended = [outcome(call, *args) for call, *args in [(socket.recv,), (socket.send, "x")]]
        socket.close()
        socket.abort()
        api.client.close()
        return time.monotonic() - begun < 5, tasks, threads(), [code for code, _ in ended]

    assert in_child(end) == [True, 0, [], [1006, 1006]]
    assert api.client.tasks
    go_on.set()
    eventually(lambda: api.views == STATES[:2])
    assert len(api.asked(True)) == 2 and not api.errors
    stream.cancel()


@needs_fork
def test_a_child_finds_no_lock_held(serve, new_client, monkeypatch):
    monkeypatch.setattr(apiproxy, "FORK_WAIT", 0.1)
    monkeypatch.setattr(apiproxy, "CANCEL_WAIT", 5)
    inside, free = threading.Event(), threading.Event()
    server = serve(hello_or_json)
    client = new_client(server)
    client.set_token("dev", "SECRET")
    client.request("/x")
    ws = connect(server.ws)
    token = endpoint(config(user=says({"token": "SECRET"}))).token
    stream = client.stream("/x", lambda message: inside.set() or free.wait(30))  # in a callback
    assert inside.wait(10)
    gc.collect()
    locks = [thing for thing in gc.get_objects() if isinstance(thing, apiproxy.Lock)]
    assert len(locks) > 9

    def calls():
        begun = time.monotonic()
        stream.cancel()
        assert time.monotonic() - begun < 4  # it waits for no callback: that is the parent's
        ws.abort()
        answer = client.request("/x")
        assert isinstance(background(apiproxy.tls_context).result(), ssl.SSLContext)
        client.set_token("dev", "SECRET-2")
        client.add_endpoint("other", apiproxy.Endpoint("http://127.0.0.1:1"))
        assert client.list_port_forward("other") == []
        assert token(apiproxy.Scope(10)) == "SECRET"
        assert apiproxy.parse_json("[%s]" % ("1," * 60000 + "1"))
        client.close()
        return answer

    try:
        with held_elsewhere(*locks_of(ws), *locks):
            assert in_child(calls) == {}
    finally:
        free.set()
    ws.abort()


@needs_fork
def test_a_child_has_nothing_of_a_request_that_goes_on(serve, new_client):
    server = serve(hang)
    client = new_client(server)
    call = background(client.request, "/x")
    eventually(lambda: server.requests)
    assert in_child(sockets) == sockets() - 1  # the server's is here too
    server.stop()
    assert call.result().status == 502


@needs_fork
def test_a_child_has_nothing_of_a_connection_that_is_being_made(listener):
    place, cancel = listener(full=True), new_cancel()
    before = sockets()
    call = background(connect, "ws://" + place, cancel=cancel, timeout=60)
    eventually(lambda: sockets() == before + 1)
    eventually(lambda: in_child(sockets) == before)
    cancel_now(cancel)
    assert call.result().status == 502


FIRST_LOOK_UP = """
import os, signal, sys, threading, time
import apiproxy

class Slow:
    def find_spec(name, path, target=None):
        if name == "encodings.idna":
            inside.set()
            time.sleep(0.3)

inside = threading.Event()
sys.meta_path.insert(0, Slow)
thread = threading.Thread(target=apiproxy.look_up, args=("localhost", 80, apiproxy.Scope(30)))
thread.start()
assert inside.wait(10)
pid = os.fork()
if not pid:
    signal.alarm(20)
    apiproxy.look_up("localhost", 80, apiproxy.Scope(30))
    os._exit(0)
thread.join()
assert os.waitpid(pid, 0)[1] == 0
"""


@needs_fork
@sound_fork
def test_a_child_of_the_moment_of_the_first_look_up_can_look_up():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FIRST_LOOK_UP], check=True, cwd=HERE,
        timeout=60)


@needs_fork
def test_the_collector_is_on_in_a_child_of_a_thread_beside_one_that_parses(monkeypatch):
    inside, free = threading.Event(), threading.Event()
    wrap(monkeypatch, PARSE_JSON, lambda real, data: inside.set() or free.wait(30) and real(data))
    parsing = background(apiproxy.parse_json, "[%s]" % ("1," * 60000 + "1"))
    assert inside.wait(10)

    try:
        assert [gc.isenabled(), in_child(gc.isenabled), gc.isenabled()] == [False, True, False]
    finally:
        free.set()
    parsing.result()
    assert gc.isenabled()


@needs_fork
def test_a_child_that_a_callback_forks_has_no_stream_when_the_callback_is_over(serve, new_client):
    read, write = os.pipe()
    api, pids = Api(serve, watches=[[B2, bookmark(), event("ADDED", "c", "19")]]), []

    def view_and_fork(items):
        api.view(items)
        if not pids:
            pids.append(fork())
            if not pids[0]:
                when_its_task_ends(api.client, tell)

    def tell():
        os.write(write, b"ended" if len(api.views) == 1 else b"went on")
        os._exit(0)

    api.client = new_client(api.server)
    cancel = api.client.stream_results("/api/v1/pods", view_and_fork, api.error)
    eventually(lambda: len(api.views) == 3)
    os.close(write)
    with os.fdopen(read) as file:
        assert file.read() == "ended"
    os.waitpid(pids[0], 0)
    assert len(api.asked(True)) == 1
    cancel()


@needs_fork
def test_a_port_is_free_when_its_forward_ends_though_a_child_lives(serve, new_client):
    def script(request, conn):
        conn.reply(200, {"kind": "Pod", "metadata": {"name": "a", "uid": "1"},
                         "status": {"phase": "Running"}})

    client = new_client("")
    client.add_endpoint("dev", apiproxy.Endpoint(serve(script).url))
    record = client.start_port_forward("dev", "ns", "a", 80, "", "")
    read, write = os.pipe()
    pid = fork()
    if not pid:
        os.close(write)
        os.read(read, 1)  # until the parent has looked
        os._exit(bool(client.list_port_forward("dev")))

    client.stop_or_delete_port_forward("dev", record["id"], False)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(record["port"])), 5).close()
    os.close(write)
    os.close(read)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def far_server(certificate):
    """far_server(tls) -> the arguments of .ci/processes.py for a server in a process of its own."""
    running = []

    def start(tls):
        certificate_or_none = certificate if tls else "-"
        running.append(program("serve", certificate_or_none, stdin=subprocess.PIPE))
        return running[-1].stdout.readline().strip(), certificate_or_none

    yield start
    for process in running:
        process.communicate()


def program(*args, **options):
    """Start .ci/processes.py."""
    script = os.path.join(HERE, ".ci", "processes.py")
    return subprocess.Popen([sys.executable, script, *args], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, universal_newlines=True, **options)


def finish(process, seconds):
    """Its exit status and what it said."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        said = "hangs. " + process.communicate()[0]
    return process.returncode, said


@needs_fork
@sound_fork
@both
@pytest.mark.parametrize("forks", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_forks_at_random_moments_out_of_threads_that_request_and_watch(far_server, tls, forks):
    status, said = finish(program("storm", *far_server(tls), str(forks)), 60 + 2 * forks)
    assert status == 0, said


@needs_fork
@sound_fork
@pytest.mark.parametrize("tls, method", [
    (True, "fork"), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [
        (False, "fork"), (False, "spawn"), (False, "forkserver"),
        (True, "spawn"), (True, "forkserver")])])
def test_children_of_multiprocessing(far_server, tls, method):
    status, said = finish(program(method, *far_server(tls)), 90)
    assert status == 0, said


# -- signals: what handlers end, and what they raise, in the midst of any call

HANDLERS = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer"),
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="no promise but CPython's"),
    pytest.mark.skipif(
        sys.version_info < (3, 10), reason="one bytecode of a `with` is left: see apiproxy.Lock")]


def with_handlers(test):
    for mark in HANDLERS:
        test = mark(test)
    return test


STORM = int(os.environ.get("APIPROXY_STORM", "10000"))  # .ci/run has less time


def interrupted(*args, seconds=100):
    """Run .ci/interrupts.py with these; nothing is wrong."""
    script = os.path.join(HERE, ".ci", "interrupts.py")
    process = subprocess.Popen([sys.executable, script, *map(str, args)], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, universal_newlines=True)
    status, said = finish(process, seconds)
    assert status == 0, said


@with_handlers
@pytest.mark.parametrize("how, count", [("raise", 10), ("act", 1)])
def test_a_handler_of_signals_may_end_things_and_raise(how, count):
    interrupted("all", count, how, seconds=200)


@with_handlers
@pytest.mark.slow
@pytest.mark.parametrize("call", sorted(interrupts.SOUND))
def test_thousands_of_interrupts_leave_every_call_as_it_was(call):
    interrupted(call, STORM // 20 if call == "LargeMessages" else STORM, seconds=1800)


@with_handlers
@pytest.mark.slow
@pytest.mark.parametrize("call", sorted(interrupts.CALLS))
def test_a_handler_may_end_things_many_times(call):
    interrupted(call, STORM // 100, "act", seconds=600)


def test_a_wait_ends_when_the_client_is_closed(serve, new_client):
    client = Api(serve).start(new_client).client
    waiting = background(client.wait_for, "/api/v1/pods", "x", "Ready", None)
    eventually(lambda: len(client.tasks) == 2)
    client.close()
    assert isinstance(waiting.result(), apiproxy.ApiError)
    assert "cancelled" in str(waiting.result())


def interrupt_once(monkeypatch, place):
    """The next call at a place of the module is interrupted."""
    def interrupted(real, *args):
        monkeypatch.undo()
        raise KeyboardInterrupt

    wrap(monkeypatch, place, interrupted)


@pytest.mark.parametrize("place, call, ended", [
    ((apiproxy.Wire, "send"), "send", ["send", "recv"]),
    ((apiproxy.Wire, "write"), "recv", ["send"]),  # the answer to a ping
    ((apiproxy.Wire, "read"), "recv", ["recv", "send"]), (NEXT_MESSAGE, "recv", ["recv", "send"])])
def test_what_is_interrupted_while_bytes_move_is_the_connections_end(
        dial, monkeypatch, place, call, ended):
    go = threading.Event()
    ws = dial(lambda conn: go.wait(10) and conn.send(frame(PING, "p")) or idle(conn))
    calls = {"send": lambda: ws.send("y"), "recv": lambda: ws.recv(5)}
    interrupt_once(monkeypatch, place)
    go.set()
    with pytest.raises(KeyboardInterrupt):
        calls[call]()
    for name in ended:
        with pytest.raises(apiproxy.ConnectionClosed, match="1006"):
            calls[name]()


def test_a_cancel_that_was_interrupted_is_done_by_the_next(serve, new_client, monkeypatch):
    api = Api(serve, watches=[[]]).start(new_client)
    api.asked(True, 1)
    eventually(lambda: tasks_with_a_connection(api.client))
    for place in ((apiproxy, "shut"), (apiproxy.Cancel, "set")):
        interrupt_once(monkeypatch, place)
        with pytest.raises(KeyboardInterrupt):
            api.cancel()
    api.cancel()
    assert not threads()


def test_a_wait_whose_end_was_interrupted_ends_all_the_same(serve, new_client, monkeypatch):
    client = new_client(Api(serve, watches=[[]]).server)
    interrupt_once(monkeypatch, (apiproxy.Scope, "cancel"))
    with pytest.raises(KeyboardInterrupt):
        client.wait_for("/api/v1/pods", "a", lambda item: True)
    assert not threads()


def test_what_runs_with_the_old_client_ends_though_configure_was_interrupted(serve, monkeypatch):
    apiproxy.configure(serve(hello).url, cluster="dev")
    stream = apiproxy.stream("/x", print)
    interrupt_once(monkeypatch, (apiproxy.Client, "close"))
    with pytest.raises(KeyboardInterrupt):
        apiproxy.configure()
    eventually(lambda: not stream.is_alive)


# -- the interpreter: without the GIL, within another one, with what a system has not got


A_REQUEST_AND_A_STREAM = """\
assert client.request("/x") == {}
seen = threading.Event()
stream = client.stream("/x", lambda message: seen.set())
assert seen.wait(10)
stream.cancel()
client.close()
assert threading.active_count() == 1
"""

SUBINTERPRETER = """\
import sys, threading
sys.path.insert(0, %r)
import apiproxy

client = apiproxy.Client("http://localhost:%d", cluster="dev")
client.set_token("dev", lambda: "SECRET")
""" + A_REQUEST_AND_A_STREAM


def test_a_subinterpreter_looks_up_names_and_has_streams(serve):
    interpreters = pytest.importorskip(
        "_interpreters", reason="there are none that tests can use, before 3.13")
    server = serve(hello_or_json)
    interpreter = interpreters.create()
    try:
        failure = interpreters.exec(interpreter, SUBINTERPRETER % (HERE, server.port))
        assert not failure, failure
    finally:
        interpreters.destroy(interpreter)
    assert server.requests[0].headers["authorization"] == "Bearer SECRET"


def test_where_threads_may_not_be_daemons_they_are_not(monkeypatch):
    def refuse(thread, is_daemon):  # as in subinterpreters
        raise RuntimeError

    called = threading.Event()
    monkeypatch.setattr(threading.Thread, "daemon", property(lambda thread: False, refuse))
    thread = apiproxy.new_thread("x", called.set)
    thread.start()
    assert called.wait(10) and not thread.daemon and thread.name == "apiproxy-x"


@both
def test_descriptors_above_1023_are_like_any_other(serve, new_client, trusting, tmp_path, tls):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1300:
        pytest.skip("this system allows no more than %d" % hard)
    api = Api(serve, watches=[[B2]], tls=tls)
    server = serve(lambda request, conn: conn.reply(200, pod("a", status={"phase": "Running"})))
    opened = []

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1300), hard))
        while not opened or opened[-1] < 1024:
            opened.append(os.open(os.devnull, os.O_RDONLY))

        api.start(new_client, ssl_context=trusting if tls else None)
        eventually(lambda: api.views == STATES[:2])
        assert [sock.fileno() > 1023 for sock in sockets_of_tasks(api.client)] == [True]
        client = new_client("")
        client.add_endpoint("dev", apiproxy.Endpoint(server.url.replace("127.0.0.1", "localhost")))
        record = client.start_port_forward("dev", "ns", "a", 80, "", "")
        with socket.create_connection(("127.0.0.1", int(record["port"])), 5) as local:
            assert local.fileno() > 1023 and local.recv(1) == b""  # the server makes no WebSocket
        assert client.stop_or_delete_port_forward("dev", record["id"]) == "stopped"
        command, cancel = ["echo", "x"], new_cancel()
        assert apiproxy.run_program(command, os.environ, False, cancel) == b"x\n"
        api.cancel()
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def start_threads(count, call):
    """Make call(number) in so many threads at the same time; what they raised."""
    failures = []

    def run(number):
        try:
            call(number)
        except BaseException as error:
            failures.append(error)

    together(*(functools.partial(run, number) for number in range(count)))
    return failures


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_sixteen_threads_share_a_client_and_change_it(serve, new_client, monkeypatch, rounds):
    """With and without the GIL: PYTHON_GIL=0 is what .ci/run sets where there is none."""
    def script(request, conn):
        if request.is_watch:
            return play([B2], request, conn)
        path = request.path.partition("?")[0]
        conn.reply(200, pods(pod("a")) if path.endswith("/pods") else {"path": path})

    servers = [serve(script), serve(script)]
    client = new_client(servers[0], discovery_ttl=0.0, keep_alive=0.01)
    interval = sys.getswitchinterval()

    def work(number):
        for step in range(rounds):
            name = "c%d" % (number % 4)
            client.add_endpoint(name, apiproxy.Endpoint(servers[step % 2].url))
            client.set_token("dev", "SECRET-%d" % number)
            path = "/x-%d-%d" % (number, step)
            assert client.request(path)["path"].endswith(path)
            assert client.post(path, {}, True, {"cluster": name})["path"] == path
            seen = threading.Event()
            cancel = client.stream_results(
                "/api/v1/pods", lambda items: seen.set(), lambda error, cancel: None)
            assert seen.wait(20)
            apiproxy.parse_json("[%s]" % ("1," * 60000 + "1"))
            client.list_port_forward(name)
            cancel()

    sys.setswitchinterval(1e-5)
    try:
        failures = start_threads(16, work)
    finally:
        sys.setswitchinterval(interval)
    assert not failures and gc.isenabled()
    client.close()
    assert not client.tasks


WITH_LESS = """\
import os, select, signal, socket, sys, threading
for module, name in (place.split(".") for place in %r.split()):
    if hasattr(sys.modules[module], name):
        delattr(sys.modules[module], name)
sys.path.insert(0, %r)
import apiproxy

client = apiproxy.Client(%r, cluster="dev")
""" + A_REQUEST_AND_A_STREAM


@pytest.mark.parametrize("lacks", [
    "select.poll", "os.fork os.register_at_fork", "os.killpg", "signal.setitimer",
    "signal.SIGPIPE", "socket.MSG_NOSIGNAL", "socket.SO_REUSEPORT", "socket.AF_UNIX"])
def test_what_windows_or_macos_has_not_got_is_not_needed(serve, lacks):
    code = WITH_LESS % (lacks, HERE, serve(hello_or_json).url)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_windows_keeps_the_port_of_a_forward_for_itself(monkeypatch):
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    with apiproxy.listen("", 0) as listener:
        options = [listener.getsockopt(socket.SOL_SOCKET, option)
                   for option in (socket.SO_KEEPALIVE, socket.SO_REUSEADDR)]
    assert [bool(option) for option in options] == [True, False]


def test_windows_words_for_an_error_of_a_socket(new_client, monkeypatch):
    words = {errno.ECONNREFUSED: "No connection could be made"}
    monkeypatch.setattr(socket, "errorTab", words, raising=False)
    assert words[errno.ECONNREFUSED] in str(failed(new_client("http://127.0.0.1:1").request, "/"))


def test_a_wait_that_shutdown_does_not_wake_ends_all_the_same(serve, new_client, monkeypatch):
    monkeypatch.setattr(apiproxy, "shut", lambda *args: None)
    monkeypatch.setattr(apiproxy, "_SLICE", 0.05)
    api = Api(serve, watches=[[]]).start(new_client)
    eventually(lambda: tasks_with_a_connection(api.client) and api.asked(True))
    api.cancel()
    assert not threads()


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
@pytest.mark.skipif(not hasattr(socket, "MSG_NOSIGNAL"), reason="nothing can be done about it")
def test_a_program_that_wants_sigpipe_does_not_die_of_a_server_that_is_gone(serve):
    code = """\
import signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
sys.path.insert(0, %r)
import apiproxy
ws = apiproxy.WebSocket.connect(%r)
try:
    while True:
        ws.send("x" * 100000)
except apiproxy.ConnectionClosed:
    sys.exit(5)
""" % (HERE, serve(lambda request, conn: conn.upgrade(request) or conn.reset() or False).ws)
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 5


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
    apiproxy.configure(first.url, cluster="dev", user_id="me")

    try:
        apiproxy.set_token("dev", "SECRET-dev")
        set_kubeconfig(apiproxy.default_client(), "dev", "SECRET")
        assert request("/x") == {"from": 1} and apiproxy.default_client().cluster == "dev"
        apiproxy.configure(first.url, cluster="dev", gzip=False)
        assert request("/x") == {"from": 1}
        assert first.requests[-1].headers["accept-encoding"] == "identity"
        assert first.requests[-1].headers["authorization"] == "Bearer SECRET-dev"
        assert first.requests[-1].headers["kubeconfig"] == "SECRET"
        assert apiproxy.default_client().user_id == "me"
        apiproxy.configure(first.url, cluster="dev", user_id="you")
        assert apiproxy.default_client().user_id == "you"
        apiproxy.configure(second.url, cluster="dev")
        assert request("/x") == {"from": 2} and "authorization" not in second.requests[-1].headers
        assert apiproxy.default_client().user_id == ""
        with pytest.raises(TypeError, match="ping_interval"):
            apiproxy.configure(second.url, ping_intervall=3)
    finally:
        apiproxy.configure()


# ------------------------------------------------------------------------------
# Surface
#
# The file is held to its word.
# ------------------------------------------------------------------------------


def test_readme_has_every_setting_with_its_default():
    with open(os.path.join(HERE, "README.md"), encoding="utf-8") as file:
        section = file.read().partition("\n## Settings\n")[2].partition("\n## ")[0]
    table = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, re.M)
    said = {name: ast.literal_eval(text) for name, text in table if "*" not in text}
    real = {name: default(name) for name in apiproxy.Settings.__annotations__}
    assert dict(said, max_body=256 << 20, max_message=64 << 20) == real


def test_a_wait_takes_a_minute_unless_told():
    assert inspect.signature(apiproxy.wait_for).parameters["timeout"].default == 60


def test_a_websocket_by_itself_has_a_clients_defaults():
    parameters = inspect.signature(apiproxy.WebSocket.connect).parameters
    for name, setting in (("timeout", "connect_timeout"), ("max_message_size", "max_message"),
                          *[(name, name) for name in
                            ("ping_interval", "ping_timeout", "close_timeout")]):
        assert parameters[name].default == default(setting), name


def test_the_documented_names_are_all_there():
    assert len(DOCUMENTED) == 24 and set(DOCUMENTED) <= set(apiproxy.__all__)
    assert {"ApiError", "ApiInfo", "ClusterRequest", "ClusterRequestParams", "QueryParameters",
            "RequestParams", "StreamArgs",
            "StreamResultsParams", "StreamErrCb", "StreamResultsCb"} <= set(apiproxy.__all__)
    assert [name for name in apiproxy.__all__ if not hasattr(apiproxy, name)] == []


def test_contents_match_the_banners():
    with open(apiproxy.__file__) as file:
        source = file.read()
    contents = re.findall(r"^ +(\d+\. [A-Z][A-Za-z]+(?: [A-Za-z]+)*)  ",
        ast.get_docstring(ast.parse(source), clean=False), re.M)
    assert contents == re.findall(r"^# -{78}\n# (\d+\. .*)$", source, re.M) and len(contents) == 15


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


QUIET = """\
import sys, apiproxy
apiproxy.log.debug("nobody listens")
assert not {"logging", "annotationlib"} & set(sys.modules)
apiproxy.log.warning("this %s", "matters")
assert apiproxy.log is sys.modules["logging"].getLogger("apiproxy")
"""
HEARD = """\
import logging, sys, apiproxy
logging.basicConfig(level=logging.INFO, format="%(name)s %(funcName)s %(message)s")
def work():
    apiproxy.log.info("this %s", "matters")
work()
"""


@pytest.mark.parametrize("script, said", [(QUIET, b"this matters"),
    (HEARD, b"apiproxy work this matters")])
def test_what_is_slow_to_import_is_not_and_logging_when_somebody_may_listen(script, said):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], check=True, cwd=HERE, stderr=subprocess.PIPE)
    assert done.stderr.strip() == said


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
    "quickstart": ("5/5 ready", "0 errors", "0 threads left", "watch_pods.py"),
    "apply": ("greeter", "created"), "scale": ("3/3",), "rollout": ("is rolled out",),
    "exec": ("hello from the pod",), "port_forward": ("stopped", "--fetch"), "drain": ("success",),
    "api_versions": ("this server has it",),
    "watch_pods": ("running", LIVE), "watch_clusters": ("north", LIVE), "top": ("CPU", LIVE),
    "tail": ("GET", LIVE), "events": ("/", LIVE), "sync": ("copied payments to default", LIVE),
    "live_page": ("http://127.0.0.1", LIVE, "--port=0"), "dump": ("deployment.cart.json",),
    "picture": ("</svg>", "--seconds=3"),
}
NO_EXAMPLES = {"common", "in_cluster", "benchmark", "chart"}


def run_example(name, *args, **options):
    program = os.path.join(HERE, "examples", name + ".py")
    env = {key: value for key, value in os.environ.items() if not key.startswith("APIPROXY_")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", program, *args],
        **{"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def ended(name, *args, **options):
    """(exit status, stdout, stderr) of an example."""
    program = run_example(name, *args, **options)
    try:
        out, err = program.communicate(timeout=60)
    finally:
        program.kill()
        program.communicate()
    return program.returncode, out.decode(), err.decode()


@pytest.fixture(scope="session", autouse=True)
def running_examples(request, tmp_path_factory):
    """All examples that will be asked for, from the beginning on: some take ten seconds."""
    selected = {getattr(item, "originalname", "") for item in request.session.items}
    running = {}
    if "test_an_example_does_what_it_says" in selected:
        for name, said in EXAMPLES.items():
            options = [text for text in said if str(text).startswith("--")]
            folder = [str(tmp_path_factory.mktemp("dump"))] * (name == "dump")
            running[name] = run_example(name, *folder, *options, *(LIVE if LIVE in said else ()))

    yield running

    for program in running.values():
        program.kill()
        program.communicate()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_says(running_examples, name):
    done = running_examples[name]
    out, err = done.communicate(timeout=120)
    said = [text for text in EXAMPLES[name] if text != LIVE and not text.startswith("--")]
    if [text for text in said if text not in out.decode()] and (
            LIVE in EXAMPLES[name] or name == "picture"):
        # with much else to do its seconds may have been over before it had anything to show
        options = [text for text in EXAMPLES[name] if text == "--port=0"]
        done = run_example(name, *options, "--seconds=30")
        out, err = done.communicate(timeout=120)
    assert (done.returncode, err) == (0, b""), err.decode()
    assert [text for text in said if text not in out.decode()] == []


@pytest.mark.parametrize("command, expected", [
    ("sh -c 'echo to stderr >&2; exit 3'", (3, "", "to stderr\n")),
    ("false", (1, "", "")),
    ("echo héllo", (0, "héllo\n", "")),
])
def test_exec_gives_the_commands_exit_code_and_its_stderr(command, expected):
    assert ended("exec", "--command", command) == expected


def test_exec_of_a_command_that_can_not_start_is_a_failure():
    status, out, err = ended("exec", "--command", "no-such-command")
    assert (status, out) == (1, "") and "executable file not found" in err


@pytest.mark.slow
@pytest.mark.parametrize("name, args, expected", [
    ("exec", ["no-such-pod"], (1, 'pods "no-such-pod" not found')),
    ("tail", ["nope"], (1, 'deployments.apps "nope" not found')),
    ("rollout", ["nope"], (1, "not found")),
    ("sync", ["nope"], (1, "not found")),
    ("watch_pods", ["--kubeconfig", "/no/such/file"], (1, "there is no kubeconfig at")),
    ("watch_pods", ["-n", "a/b"], (1, "a/b")),
    ("watch_pods", ["--demo", "--url", "http://127.0.0.1:1"], (2, "--demo is not for use")),
    ("apply", ["/no/such/folder"], (1, "No such file")),
    ("apply", [os.path.join(HERE, "LICENSE")], (1, "LICENSE: ")),
    ("live_page", ["--port", "99999"], (1, "port")),
    ("drain", ["nope"], (1, 'nodes "nope" not found')),
    ("drain", ["--url", "http://127.0.0.1:1"], (1, "Connection refused")),
    ("in_cluster", [], (1, "not inside a cluster")),
])
def test_what_goes_wrong_in_an_example_is_one_line(name, args, expected):
    status, out, err = ended(name, *args)
    assert (status, out) == (expected[0], "")
    *usage, line = err.splitlines()
    assert expected[1] in line and line.startswith(name + ".py: ")
    assert not usage or status == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["drain", "scale", "rollout", "sync", "exec", "tail",
                                  "port_forward", "dump", "apply"])
def test_an_example_changes_nothing_that_is_not_named(demo, name):
    server = demo()
    status, out, err = ended(name, "--url", server.url, "--context", "dev")
    assert (status, out) == (2, "") and err.startswith("%s.py: which " % name)
    assert {request.method for request in server.requests} <= {"GET"}


@pytest.mark.parametrize("name", ["watch_pods", "top", "sync"])  # they go on until then
def test_ctrl_c_ends_an_example_cleanly(name):
    # a program started in the background ignores SIGINT, and so do those that it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = run_example(name)
    signal.signal(signal.SIGINT, before)
    running.stdout.readline()
    running.send_signal(signal.SIGINT)

    try:
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()

    assert (running.returncode in (0, 130), err) == (True, b"")  # 130: it had not quite begun


@pytest.mark.slow
@pytest.mark.parametrize("name", ["watch_pods", "quickstart", "events"])
def test_an_example_whose_reader_goes_away_ends_quietly(name):
    running = run_example(name, *LIVE * (name == "events"))
    running.stdout.readline()
    running.stdout.close()
    err = running.stderr.read()
    running.stderr.close()
    assert running.wait(30) in ((0, 141) if name == "events" else (141,))
    assert err == b""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
@pytest.mark.slow
@pytest.mark.parametrize("term, expected", [("xterm", True), ("dumb", False)])
def test_colours_are_for_terminals_that_have_them(term, expected):
    import pty

    ours, theirs = pty.openpty()
    running = run_example("watch_pods", "--seconds", "1", stdout=theirs,
                          env={**os.environ, "TERM": term})
    os.close(theirs)
    came = b""
    with contextlib.suppress(OSError):  # Linux says EIO at the end
        for data in iter(lambda: os.read(ours, 65536), b""):
            came += data
    os.close(ours)
    assert running.communicate(timeout=30)[1] == b""
    assert b"kube-proxy" in came
    assert (b"\033[" in came) is expected


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*EXAMPLES, *NO_EXAMPLES} - {"common"}))
def test_help_of_an_example_begins_with_what_it_does(name):
    status, out, err = ended(name, "--help")
    assert (status, err) == (0, "")
    with open(os.path.join(HERE, "examples", name + ".py"), encoding="utf-8") as file:
        doc = ast.get_docstring(ast.parse(file.read()), clean=False)
    flat = [re.sub("^ +", "", text, flags=re.M) for text in (doc, out)]  # since 3.13 it is so
    assert flat[0].strip() in flat[1]


def test_apply_shows_what_changes_and_prunes_what_has_gone(demo, tmp_path):
    server = demo()
    where = ("--url", server.url, "--context", "dev", "-n", "demo-shop")

    def apply(*options):
        status, out, err = ended("apply", str(tmp_path), *where, *options)
        assert (status, err) == (0, ""), out + err
        return [line.split() for line in out.splitlines() if not line.startswith(" ")], out

    write(tmp_path / "a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
                               "data: {x: '1'}\n---\napiVersion: v1\nkind: List\nitems:\n"
                               "- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n")
    write(tmp_path / "notes.txt", "not: [a manifest")
    assert [line[2] for line in apply("--prune", "mine", "--dry-run")[0]] == ["created"] * 2
    assert [line[2] for line in apply("--prune", "mine")[0]] == ["created"] * 2
    assert [line[2] for line in apply("--prune", "mine")[0]] == ["unchanged"] * 2

    write(tmp_path / "a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
                               "data: {x: '2'}\n")
    lines, out = apply("--prune", "mine", "--dry-run", "--diff")
    assert [line[1:3] for line in lines] == [["demo-shop/a", "changed"], ["demo-shop/b", "deleted"]]
    assert '-    "x": "1"' in out and '+    "x": "2"' in out

    maps = "/clusters/dev/api/v1/namespaces/demo-shop/configmaps/"
    with urllib.request.urlopen(server.url + maps + "b") as answer:
        assert json.load(answer)["metadata"]["labels"] == {"apiproxy/set": "mine"}
    apply("--prune", "mine")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(server.url + maps + "b")
    assert caught.value.code == 404
    caught.value.close()


@on_the_real_server
def test_apply_takes_a_folder_that_defines_a_resource_and_has_one(tmp_path):
    group = "g%s.example.com" % os.urandom(4).hex()
    schema = {"openAPIV3Schema": {"type": "object"}}
    write(tmp_path / "a.yaml", json.dumps({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos." + group},
        "spec": {"group": group, "scope": "Cluster", "names": {"plural": "foos", "kind": "Foo"},
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}]}}))
    write(tmp_path / "b.yaml", json.dumps({
        "apiVersion": group + "/v1", "kind": "Foo", "metadata": {"name": "foo"}}))
    where = ("--url", REAL, "--context", os.environ.get("APIPROXY_TEST_CLUSTER", "dev"))

    status, out, err = ended("apply", str(tmp_path), *where)
    assert (status, err, out.count("created")) == (0, "", 2), out
    with apiproxy.Client(REAL, cluster=where[-1]) as client:
        client.remove("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/foos." + group)


def test_what_dump_wrote_comes_back_in_another_namespace(demo, tmp_path):
    server = demo()
    where = ("--url", server.url, "--context", "dev")
    status, out, err = ended("dump", str(tmp_path / "d"), *where, "-n", "demo-shop")
    assert (status, err) == (0, "") and "wrote secret.payments.json" in out
    assert os.stat(str(tmp_path / "d")).st_mode & 0o077 == 0
    status, out, err = ended("dump", str(tmp_path / "d"), *where, "-n", "copy", "--restore")
    assert (status, err) == (0, "")

    with apiproxy.Client(server.url, cluster="dev") as client:
        copies = client.request("/apis/apps/v1/namespaces/copy/deployments")["items"]
        assert {item["metadata"]["name"] for item in copies} == {"cart", "frontend", "payments"}
        client.wait_for("/apis/apps/v1/namespaces/copy/deployments", "cart", "Available", 10)
        old, new = (client.request("/api/v1/namespaces/%s/secrets/payments" % space)["data"]
                    for space in ("demo-shop", "copy"))
        assert old == new


@pytest.mark.slow
def test_sync_copies_again_what_changes_and_leaves_other_secrets_alone(demo):
    server = demo()
    running = run_example("sync", "payments", "-n", "demo-shop",
                          "--url", server.url, "--context", "dev")
    try:
        with apiproxy.Client(server.url, cluster="dev") as client:
            secrets = "/api/v1/namespaces/%s/secrets"
            client.wait_for(secrets % "default", "payments", lambda item: True, 10)
            client.patch(secrets % "default" + "/payments", {"data": {"key": "eA=="}})
            data = client.request(secrets % "demo-shop" + "/payments")["data"]
            client.wait_for(secrets % "default", "payments", lambda item: item["data"] == data, 10)

            client.post("/api/v1/namespaces", {"metadata": {"name": "late"}})
            client.wait_for(secrets % "late", "payments", lambda item: True, 10)
            client.patch(secrets % "demo-shop" + "/payments", {"data": {"key": "eQ=="}})
            client.wait_for(secrets % "late", "payments",
                            lambda item: item["data"]["key"] == "eQ==", 10)
    finally:
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (0, b"")


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def texts_in_a_browser(address, folder, is_enough):
    """The different texts that a page shows, one after the other, until they are enough."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--user-data-dir=%s" % folder, "--remote-debugging-port=0",
             "--remote-allow-origins=*"]
    browser = subprocess.Popen([CHROMIUM, *flags, address], stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL)
    try:
        said = iter(browser.stderr.readline, b"")
        port = next(filter(None, (re.search(rb"ws://127.0.0.1:(\d+)/", line) for line in said)))
        pages = "http://127.0.0.1:%d/json/list" % int(port.group(1))
        page = eventually(lambda: [page for page in json.load(urllib.request.urlopen(pages))
                                   if page["url"].startswith(address)])[0]
        texts = []
        with contextlib.closing(apiproxy.WebSocket.connect(page["webSocketDebuggerUrl"])) as ws:
            def look():
                ws.send(json.dumps({"id": 1, "method": "Runtime.evaluate",
                                    "params": {"expression": "String(document.body?.innerText)"}}))
                text = json.loads(ws.recv(10))["result"]["result"]["value"]
                if text not in texts:
                    texts.append(text)
                return is_enough(texts)

            eventually(look, 30)
        return texts
    finally:
        browser.kill()
        browser.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_the_live_page_moves_in_a_real_browser(tmp_path):
    running = run_example("live_page", "--port", "0")
    try:
        address = re.search(r"http\S+", running.stdout.readline().decode()).group()
        def is_enough(texts):  # an empty page, empty clusters, those as listed, a change
            return len([text for text in texts if "kube-proxy" in text]) > 2

        texts = texts_in_a_browser(address, tmp_path, is_enough)
        elsewhere = urllib.request.Request(address, headers={"Host": "example.org"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(elsewhere)
        caught.value.close()
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    assert re.search(r"^east: \d+ pods\n", texts[-1], re.M)


def test_a_picture_is_an_svg_that_moves(running_examples):
    import xml.etree.ElementTree

    with open(os.path.join(HERE, "examples", "live_table.svg"), encoding="utf-8") as file:
        tree = xml.etree.ElementTree.fromstring(file.read())
    frames = tree.findall("{http://www.w3.org/2000/svg}g")
    texts = ["".join(frame.itertext()) for frame in frames]
    assert len(set(texts)) > 3 and all("kube-system" in text for text in texts)


TABLE = """
A list, by objects: us CPU an object

|  | floor | apiproxy | other | apiproxy by floor |
| --- | --- | --- | --- | --- |
| 100 | 10.0 | 8.0 | 80.5 | 0.80 |
| 1,000 | 10.5 | 7.5 | hangs | 0.71 |

"""


def test_a_chart_has_a_line_for_each_client(tmp_path):
    import xml.etree.ElementTree

    status, out, err = ended("chart", write(tmp_path / "growth.txt", TABLE))
    assert (status, err) == (0, "")
    lines = xml.etree.ElementTree.fromstring(out).findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points").split()) for line in lines] == [2, 2, 1]


def code_lines(path):
    """Lines of a program without blank ones, comments and docstrings."""
    with open(path, encoding="utf-8") as file:
        source = file.read()
    docs = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(getattr(body[0], "value", None), ast.Constant):
            docs.update(range(body[0].lineno, body[0].end_lineno + 1))
    return sum(bool(line.strip()) and not line.strip().startswith("#") and number not in docs
               for number, line in enumerate(source.splitlines(), 1))


def test_an_example_is_short_enough_to_be_cut_out():
    sizes = {name: code_lines(os.path.join(HERE, "examples", name + ".py"))
             for name in EXAMPLES if name not in ("quickstart", "picture")}
    assert {name: size for name, size in sizes.items() if size >= 60} == {}


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
    assert files == set(EXAMPLES) | NO_EXAMPLES
    assert [name for name in files - {"common"} if "`%s.py`" % name not in readme()] == []


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


def readme():
    with open(os.path.join(HERE, "README.md"), encoding="utf-8") as file:
        return file.read()


def run_readme(capsys, url, exact):
    """Run its Python, block by block; `exact` compares what is printed with what it says."""
    blocks = re.findall(r"```(python|text)\n(.*?)```", readme(), re.S)
    assert len(blocks) > 25
    names = {"__name__": "readme"}

    for place, (language, block) in enumerate(blocks):
        if language != "python":
            continue
        says = blocks[place + 1][1] if blocks[place + 1:place + 2] and (
            blocks[place + 1][0] == "text") else ""
        capsys.readouterr()
        printed = []

        def sleep(seconds):  # until it has printed what it says, at the latest for so long
            end = time.monotonic() + seconds
            while len("".join(printed).splitlines()) < len(says.splitlines()):
                printed.append(capsys.readouterr().out)
                if time.monotonic() > end:
                    break
                time.sleep(0.01)

        names["sleep"] = sleep
        block = block.replace("time.sleep", "sleep").replace("http://localhost:4466", url)
        exec(compile(block, "README.md", "exec"), names)
        printed.append(capsys.readouterr().out)
        if exact:
            assert "".join(printed) == says or not says
        else:
            assert printed != [""] or not says
    names["client"].close()


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """at_home(kubeconfig): a home directory with it, and what a pod has, as README connects."""
    for name, content in (("ca.crt", pem()[1]), ("token", "SECRET"), ("namespace", "default")):
        write(tmp_path / name, content)
    monkeypatch.setattr(apiproxy, "IN_CLUSTER", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    (tmp_path / ".kube").mkdir()
    return lambda kubeconfig: write(tmp_path / ".kube" / "config", kubeconfig)


def test_what_the_readme_shows_runs_and_prints_what_it_says(demo, capsys, at_home):
    server = demo()
    at_home(config(server.url + "/clusters/dev", name="dev"))
    run_readme(capsys, server.url, True)


def readme_on_a_real_cluster(capsys, at_home):
    ca = {"certificate-authority": os.environ["APIPROXY_TEST_CA"]}
    user = {"token": os.environ["APIPROXY_TEST_TOKEN"]}
    at_home(config(os.environ["APIPROXY_TEST_DIRECT"], user, "dev", ca))
    run_readme(capsys, REAL, False)


@pytest.mark.parametrize("page", [pytest.param(HTTP_OK, marks=needs_nodes)])
def test_what_the_readme_shows_runs_on_a_real_cluster(capsys, at_home, target, page):
    with open(os.environ["APIPROXY_TEST_POD_LOG"], "a") as log:
        log.write("2026-01-01T00:00:00.000000000Z stdout F hello\n")
    target(lambda conn: (conn.recv(65536), conn.sendall(page)))
    readme_on_a_real_cluster(capsys, at_home)


@needs_no_nodes
@on_the_real_server
def test_what_the_readme_shows_runs_where_we_play_the_controllers(capsys, at_home, kubelet):
    one, pod = kubelet
    one.remove(pod)
    one.log_seen.set()
    one.pods = "/api/v1/namespaces/default/pods"
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    pods_made = []

    def run(items):  # a pod for each replica, all of them ready
        for item in items:
            wanted, name = item["spec"]["replicas"], item["metadata"]["name"]
            while len(pods_made) < wanted:
                pods_made.append("%s-%d" % (name, len(pods_made)))
                add_pod(one, pods_made[-1], labels={"app": name},
                        ownerReferences=owned_by("ReplicaSet"))
                ready = {"type": "Ready", "status": "True"}
                one.patch("%s/%s/status" % (one.pods, pods_made[-1]), {
                    "status": {"phase": "Running", "conditions": [ready]}})
            if item.get("status", {}).get("readyReplicas") != wanted:
                available = {"type": "Available", "status": "True"}
                one.patch("%s/%s/status" % (deployments, name), {"status": {
                    "observedGeneration": item["metadata"]["generation"], "replicas": wanted,
                    "readyReplicas": wanted, "conditions": [available]}})

    errors = []
    one.stream_results(deployments, run, lambda error, cancel: errors.append(error))
    readme_on_a_real_cluster(capsys, at_home)
    assert len(pods_made) == 3 and not errors
    one.pods = pod.rpartition("/")[0]
    add_pod(one, "p")


def test_the_readmes_shell_commands_copy_and_pin_the_file(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    (tmp_path / "your-project").mkdir()
    shutil.copy(os.path.join(HERE, "apiproxy.py"), str(folder))
    blocks = re.findall(r"```sh\n(.*?)```", readme(), re.S)
    script = "".join(block for block in blocks if "demo_cluster" not in block)
    assert len(blocks) == 3 and script.count("\n") == 4
    done = subprocess.run(["sh", "-ec", script], cwd=str(folder), stdout=subprocess.PIPE,
                          timeout=30, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.stdout.decode().splitlines() == ["apiproxy.py: OK", apiproxy.__version__]
    assert os.listdir(str(tmp_path / "your-project")) == ["apiproxy.py"]


def test_the_readmes_table_of_settings_is_that_of_the_class():
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*?) \| (.*?) \|$", readme(), re.M)
    settings = apiproxy.Settings()
    assert [row[0] for row in rows] == list(apiproxy.Settings.__annotations__)
    for name, default, unit, meaning in rows:
        assert eval(default) == getattr(settings, name), name
        is_number = type(getattr(settings, name)) in (int, float, tuple)
        assert bool(unit.strip()) is is_number and meaning, name
        assert re.search(r"^ *%s +\S" % name, apiproxy.Client.__doc__, re.M) or name == "base_url"


def test_the_readme_names_every_documented_call_and_says_what_is_new():
    text = readme()
    assert [name for name in DOCUMENTED if not re.search(r"`%s`|\.%s\(" % (name, name), text)] == []
    assert "**%s**" % apiproxy.__version__ in text.partition("## Changes")[2]
    assert re.search(r"^## Two commands\n.*?\n    python3 examples/quickstart.py\n    \S", text,
                     re.M | re.S)


# ------------------------------------------------------------------------------
# Simulation and fuzzing
#
# A little of .ci/simulate.py and .ci/fuzz.py, and their fault proxy.
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_every_view_was_the_servers_and_they_only_go_forward_and_the_last_is_the_truth(seed):
    assert simulate.run(seed) == []


@pytest.mark.parametrize("kind, count", [
    ("frames", 3000), ("handshakes", 1000), ("answers", 500), ("events", 500), ("lists", 300)])
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


def received_how(sock):
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

    assert received_how(server) == (data, "FIN")

    thread.join()
    server.sendall(b"still open")
    assert client.recv(100) == b"still open" and proxy.open == 1

    server.close()
    assert received_how(client) == (b"", "FIN")
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
    assert received_how(sink) == after


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
    assert received_how(client) == (b"a long message"[:count], "RST" if rst else "FIN")
    assert received_how(server) == (b"", "RST" if rst else "FIN")


def test_the_proxy_ends_resets_and_refuses(ends):
    client, server, proxy = ends
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 5)

    client.sendall(b"still open")
    assert server.recv(100) == b"still open"

    proxy.end()
    assert received_how(client) == received_how(server) == (b"", "FIN")

    proxy.accept()

    with socket.create_connection(("127.0.0.1", proxy.port), 5) as again:
        eventually(lambda: proxy.open == 2)
        proxy.reset()
        assert received_how(again) == (b"", "RST") and not proxy.open


def test_the_proxy_is_as_slow_as_it_is_told(ends):
    client, server, proxy = ends
    proxy.throttle(20000)
    begin = time.monotonic()
    client.sendall(b"x" * 2000)
    client.shutdown(socket.SHUT_WR)

    assert received_how(server) == (b"x" * 2000, "FIN")
    assert time.monotonic() - begin > 0.07


# ------------------------------------------------------------------------------
# The real API server
# ------------------------------------------------------------------------------

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
        api_server.control(what)
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


@pytest.mark.skipif(os.environ.get("APIPROXY_TEST_VERSION", "1.20") != "1.20",
                    reason="today's API server lists from snapshots, which outlast it")
@pytest.mark.parametrize("api", PROXY_AND_DIRECT[:1], indirect=True)
def test_a_continue_token_from_before_a_compaction_is_not_used(api):
    for name in "abcde":
        api.post(api.maps, config_map(name))
    page = api.request(api.maps, query_params={"limit": 2})
    api.post(api.maps, config_map("f"))
    api_server.control("compact")

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
            with pytest.raises(apiproxy.ApiError, match="not trusted|another name"):
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
        assert re.search("default/apiproxy: new -> (Pending|Running)", out), out
        assert "trouble" not in out
    finally:
        subprocess.run(kubectl + ["delete", "--wait=false", "-f", "examples/in_cluster.yaml"],
            env=env, cwd=HERE, timeout=60, stdout=subprocess.DEVNULL)
        admin.remove("/api/v1/namespaces/default/configmaps/apiproxy")
