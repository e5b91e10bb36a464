#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Interrupt every blocking call at random moments, then see what is left of the client.

    python .ci/interrupts.py CALL [COUNT [raise|act]]    CALL is one of CALLS, or all


raise: a timer's signal raises in the main thread, KeyboardInterrupt, an exception of a program's
own, or TimeoutError. After each the call is made once more, without the timer: it has to give the
right answer, or to say that it is closed. Every so often another thread has to get on as well, so
that no lock is left held; in the end no stream, thread, lock or descriptor is left, and the
collector is on.

act: the signal's handler calls close(), cancel() or configure(), and the call goes on, or says that
it was ended; it does not hang.

Prints what was wrong; the exit status is 0 where nothing was.
"""

import base64
import contextlib
import faulthandler
import gc
import itertools
import json
import os
import random
import signal
import ssl
import sys
import sysconfig
import threading
import time
import warnings

CI = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(CI), CI]

import apiproxy  # noqa: E402
from wire import Server, certificate_file, frame  # noqa: E402

LOOKS = 25  # interrupts after which another thread has to get on
FAST = dict(retry_base=0.008, retry_cap=0.1, burst=10000, rate=10000.0, short_watch=0.001)
LARGE = json.dumps({"items": [[]] * 60000}).encode()


class Alarm(Exception):
    """What some program's handler raises."""


KINDS = KeyboardInterrupt, Alarm, TimeoutError


class Timer:
    """Raises in a call, at a random moment of the time that it takes."""

    def __init__(self):
        self.actions = ()  # what the handler does, at random; else it raises
        self.is_armed = False
        self.takes = 0.001  # seconds that the call takes, about
        self.count = 0  # how often it has raised
        signal.signal(signal.SIGALRM, self._handle)

    def _handle(self, *_):
        if self.is_armed:
            self.is_armed = False
            self.count += 1
            if not self.actions:
                raise random.choice(KINDS)("raised by a handler")
            random.choice(self.actions)()

    def interrupt(self, call):
        """Whether call() was interrupted; what else it raises is passed on."""
        before = self.count
        begun = time.monotonic()
        try:
            self.is_armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1.1 * self.takes))
            call()
            self.is_armed = False
            self.takes += (time.monotonic() - begun - self.takes) / 10
        except BaseException as error:
            if self.count == before or self.actions and not isinstance(error, apiproxy.ApiError):
                raise
        finally:
            self.is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.count > before


# -- what is interrupted: for each a `call`, and a `look` at what it leaves


class Call:
    """A call of a client to the server of this program."""

    tls = False
    starts_threads = False  # of the calling thread: a gap in CPython's own Thread.start, see below

    def __init__(self, server, context, timer):
        self.server = server
        self.timer = timer
        self.numbers = itertools.count()
        self.client = self.new_client(context)

    def new_client(self, context):
        """What is called."""
        return apiproxy.Client(self.server.url, cluster="dev", ssl_context=context, **FAST)

    def call(self):
        """A GET."""
        self.ask(self.client.request)

    def ask(self, request):
        """request(path), and see that its answer is its own."""
        path = "/x-%d" % next(self.numbers)
        answer = request(path)
        assert answer["path"].endswith(path), "%s got %s" % (path, answer["path"])

    def once_more(self):
        """After an interrupt, without one."""
        self.call()

    def look(self):
        """Now and then, in another thread."""
        self.ask(self.client.request)

    def end(self):
        """No more calls."""
        self.client.close()


class Tls(Call):
    """A GET, over TLS."""

    tls = True


class Post(Call):
    """A POST, which takes a connection."""

    def call(self):
        self.ask(lambda path: self.client.post(path, {}))


class TlsPost(Post):
    """A POST over TLS, which takes a handshake."""

    tls = True


class NameAndToken(Call):
    """Threads look up a name, and get a token from a function."""

    starts_threads = True

    def new_client(self, context):
        url = "http://localhost:%d" % self.server.port
        client = apiproxy.Client(url, cluster="dev", **FAST)
        client.set_token("dev", lambda: "token")
        return client

    def call(self):
        self.client.close()
        super().call()


class Large(Call):
    """An answer for which the collector rests."""

    def call(self):
        assert len(self.client.request("/large")["items"]) == 60000

    def once_more(self):
        assert gc.isenabled(), "the collector is off"
        self.ask(self.client.request)


class Apply(Call):
    """Discovery and a POST."""

    def call(self):
        name = "n%d" % next(self.numbers)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        self.client._discovery.forget("dev")
        answer = self.client.apply(body)
        assert answer["metadata"]["name"] == name, answer


class WaitFor(Call):
    """A stream that ends with the call."""

    starts_threads = True

    def call(self):
        item = self.client.wait_for("/api/v1/pods", "a", lambda item: True, 10)
        assert item["metadata"]["name"] == "a", item
        assert settle(lambda: not self.watches()), "a stream goes on"

    def watches(self):
        """The streams of its kind that run."""
        return [task for task in list(self.client.tasks) if isinstance(task, apiproxy.Watch)]


class Streams(Call):
    """Streams are started and cancelled."""

    starts_threads = True

    starts = itertools.cycle(["stream", "metrics", "stream_results", "stream_result"])

    def call(self):
        start = next(self.starts)
        calls = {
            "stream": lambda: self.client.stream("/x", print_nothing).cancel,
            "metrics": lambda: self.client.metrics("/x", print_nothing),
            "stream_results": lambda: self.client.stream_results(
                "/api/v1/pods", print_nothing, print_nothing),
            "stream_result": lambda: self.client.stream_result(
                "/api/v1/pods", "a", print_nothing, print_nothing)}
        calls[start]()()

    def once_more(self):
        self.client.close()
        assert settle(lambda: not self.client.tasks), "a stream goes on"


class Close(Streams):
    """close() with streams."""

    def call(self):
        self.client.stream_results("/api/v1/pods", print_nothing, print_nothing)
        self.client.stream("/x", print_nothing)
        self.client.request("/x")
        self.client.close()


class Configure(Streams):
    """configure() with a stream of the default client before."""

    starts_threads = True

    def call(self):
        apiproxy.stream("/x", print_nothing) if apiproxy.default_client().base_url else None
        apiproxy.configure(self.server.url, cluster="dev", **FAST)
        apiproxy.request("/x")

    def once_more(self):
        apiproxy.configure(self.server.url, cluster="dev", **FAST)
        self.ask(apiproxy.request)

    def end(self):
        apiproxy.close()
        super().end()


class WebSockets(Call):
    """From connect to close."""

    def call(self):
        ws = apiproxy.WebSocket.connect(self.server.ws + "/echo")
        try:
            ws.send("x")
            assert ws.recv(10) == "x"
        finally:
            ws.close()

    once_more = look = Call.call


class Messages(Call):
    """send and recv of one WebSocket, as long as it is whole."""

    ws = None
    size = 100

    def call(self):
        if self.ws is None or self.ws.closed:
            self.ws = apiproxy.WebSocket.connect(self.server.ws + "/echo", ssl_context=self.tls)
        try:
            text = "%d " % next(self.numbers) + "x" * self.size
            self.ws.send(text)
            for _ in range(10):  # those of calls that were interrupted come first
                answer = self.ws.recv(10)
                assert answer[-self.size - 1:] == " " + "x" * self.size, "torn: %r" % answer[:30]
                if answer == text:
                    return
            raise AssertionError("an answer of long ago: %r" % answer[:30])
        except apiproxy.ConnectionClosed:
            self.ws.close()
            self.ws = None

    look = Call.call

    def end(self):
        if self.ws:
            self.ws.abort()
        super().end()


class LargeMessages(Messages):
    """As before, so large that a sender waits for room."""

    size = 300000


class Direct(Call):
    """Calls that this program does where there is no Headlamp."""

    def new_client(self, context):
        client = apiproxy.Client("", cluster="dev", drain_timeout=0.5, drain_interval=0.01, **FAST)
        client.add_endpoint("dev", apiproxy.Endpoint(self.server.url))
        return client

    def once_more(self):
        for forward in self.client.list_port_forward("dev"):
            self.client.stop_or_delete_port_forward("dev", forward["id"], False)
        self.ask(self.client.request)


class Forward(Direct):
    """A port forward is started, listed and deleted."""

    starts_threads = True

    def call(self):
        record = self.client.start_port_forward("dev", "ns", "a", 80, "", "")
        assert len(self.client.list_port_forward("dev")) == 1
        self.client.stop_or_delete_port_forward("dev", record["id"], False)


class Drain(Direct):
    """A drain is started and looked at to its end."""

    starts_threads = True

    def call(self):
        node = "n%d" % next(self.numbers)
        self.client.drain_node("dev", node)
        while not self.client.drain_node_status("dev", node)["id"]:
            time.sleep(0.001)


class Plugin(Direct):
    """The token is an exec plugin's, which runs each time."""

    starts_threads = True

    def new_client(self, context):
        token = {"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
                 "status": {"token": "t", "expirationTimestamp": "2020-01-01T00:00:00Z"}}
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo",
                  "args": [json.dumps(token)], "interactiveMode": "Never"}
        config = {
            "clusters": [{"name": "dev", "cluster": {"server": self.server.url}}],
            "users": [{"name": "u", "user": {"exec": plugin}}],
            "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "u"}}],
            "current-context": "dev"}
        client = apiproxy.Client("", **FAST)
        client.set_cluster({"kubeconfig": base64.b64encode(json.dumps(config).encode()).decode()})
        client.cluster = "dev"
        return client


CALLS = {kind.__name__: kind for kind in (
    Call, Tls, Post, TlsPost, NameAndToken, Large, Apply, WaitFor, Streams, Close, Configure,
    WebSockets, Messages, LargeMessages, Forward, Drain, Plugin)}


# From 3.14 on, and on a free-threaded 3.13, an exception may leave a lock of threading held in
# Thread.start: that thread, or on 3.14 any, never starts (cpython#148874; on 3.13 in 3 of 19,000).
# Before 3.10 one bytecode of each `with` is left open.
IS_FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
SOUND = {name: kind for name, kind in CALLS.items()
         if not (kind.starts_threads and (IS_FREE or sys.version_info >= (3, 14)))}


def print_nothing(*args):
    """A callback."""


# -- the server


def pod(name):
    """A pod that runs."""
    metadata = {"name": name, "namespace": "ns", "uid": "1", "resourceVersion": "1"}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "status": {"phase": "Running"}}


def script(request, conn):
    """Answers tell their path."""
    path = request.path.partition("?")[0]
    if path.endswith("/echo"):
        return echo(request, conn)
    if request.is_watch:
        conn.upgrade(request)
        conn.wait_end()
        return False
    if path.endswith("/large"):
        conn.reply(200, LARGE)
    elif path.endswith("/pods"):
        items = [] if "nodeName" in request.path else [pod("a")]
        metadata = {"resourceVersion": "1"}
        conn.reply(200, {"kind": "PodList", "metadata": metadata, "items": items})
    elif "/pods/" in path:
        conn.reply(200, pod("a"))
    elif path.endswith("/api/v1"):
        conn.reply(200, {"resources": [
            {"name": "configmaps", "kind": "ConfigMap", "namespaced": True}]})
    elif path.endswith("/configmaps"):
        conn.reply(201, json.loads(request.body))
    else:
        conn.reply(200, {"path": path})
    return None


def echo(request, conn):
    """Every message comes back; a frame that is none ends it."""
    conn.upgrade(request)
    while True:
        opcode, payload = conn.read_frame()
        if opcode == 8:
            conn.send(frame(8, payload))
            return False
        if opcode == 1:
            if payload[-1:] != b"x":
                torn.append("a torn frame came: %r" % payload[:40])
                return False
            conn.send(frame(1, payload))


torn = []


# -- what is left


def held_locks():
    """The module's locks that somebody holds."""
    locks = [thing for thing in gc.get_objects() if isinstance(thing, apiproxy.Lock)]
    for thing in gc.get_objects():
        if isinstance(thing, apiproxy.WebSocket):
            locks += thing._recv_lock, thing._send_lock
    return [lock for lock in locks if not (lock.acquire(timeout=1) and lock.release() is None)]


def descriptors():
    """How many are open."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def starting():
    """Threads that CPython's own Thread.start, interrupted, has left behind: they never begin."""
    return [thread for thread in threading.enumerate() if not thread.is_alive()]


def in_a_thread(call):
    """What call() raised in another thread, "" for nothing."""
    said = ["it hangs"]

    def run():
        try:
            call()
            said[0] = ""
        except BaseException as error:
            said[0] = repr(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    return said[0]


def settle(condition):
    """Wait until it is so, 5 seconds at most; whether it is."""
    end = time.monotonic() + 5
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
        gc.collect()
    return True


def storm(call, count, timer):
    """Interrupt it so often; what was wrong."""
    wrong = []
    for _ in range(3):
        call.call()
    call.once_more()
    threads, gc_was_on = threading.active_count(), gc.isenabled()
    interrupts = 0
    while interrupts < count and len(wrong) < 5:
        try:
            if not timer.interrupt(call.call):
                continue
            interrupts += 1
            call.once_more()
        except BaseException as error:
            wrong.append("after %d interrupts: %r" % (interrupts, error))
        if interrupts % LOOKS == 0:
            said = in_a_thread(call.look)
            if said:
                wrong.append("another thread, after %d interrupts: %s" % (interrupts, said))
                break
            if gc.isenabled() != gc_was_on:
                wrong.append("the collector is off")
    call.end()
    said = in_a_thread(lambda: wrong.extend("held: %r" % lock for lock in held_locks()))
    wrong += [said] if said else []
    if not settle(lambda: threading.active_count() - len(starting()) <= threads):
        wrong.append("threads: %s" % threading.enumerate())
    return wrong + torn


def visits(call, count, timer):
    """Have a handler end things so often while it goes on; what was wrong."""
    wrong = []
    streams = [call.client.stream("/x", print_nothing)]

    def close():
        call.client.close()

    def cancel():
        streams.pop().cancel()
        streams.append(call.client.stream("/x", print_nothing))

    def configure():
        apiproxy.configure(call.server.url, cluster="dev", **FAST)

    def close_socket():
        ws = getattr(call, "ws", None)
        if ws:
            ws.close()

    timer.actions = close, cancel, configure, close_socket
    while timer.count < count and len(wrong) < 5:
        begun = time.monotonic()
        try:
            timer.interrupt(call.call)
        except BaseException as error:
            wrong.append("visit %d: %r" % (timer.count, error))
        if time.monotonic() - begun > 4:
            wrong.append("visit %d: it took long" % timer.count)
    timer.actions = ()
    call.end()
    return wrong + torn


def main(name, count="200", how="raise"):
    """See the top; the exit status."""
    faulthandler.dump_traceback_later(60 + int(count) * 0.1, exit=True)
    warnings.simplefilter("error")
    sys.unraisablehook = lambda *args: None  # a handler may raise in a __del__
    with contextlib.ExitStack() as stack:
        certificate = stack.enter_context(certificate_file())
        is_wrong = False
        for kind in SOUND.values() if name == "all" else [CALLS[name]]:
            context = ssl.create_default_context(cafile=certificate) if kind.tls else None
            server = Server(script, certificate if kind.tls else None)
            timer = Timer()
            open_before = descriptors()
            begun = time.monotonic()
            call = kind(server, context, timer)
            wrong = (storm if how == "raise" else visits)(call, int(count), timer)
            del call
            server.stop()
            if not settle(lambda: descriptors() <= open_before):
                wrong.append("descriptors: %d more" % (descriptors() - open_before))
            print("%s: %s signals, %.1f s, takes %.1f ms: %s" % (
                kind.__name__, count, time.monotonic() - begun, timer.takes * 1000,
                "; ".join(wrong) or "well"), flush=True)
            is_wrong = is_wrong or bool(wrong)
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
