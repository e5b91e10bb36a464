# SPDX-License-Identifier: Apache-2.0
"""One play: a seed, from the first request until nothing is left of it."""

import logging
import os
import ssl
import threading
import time
import traceback

import apiproxy
import wire
from faultproxy import FaultProxy

from .lists import PATH
from .oracle import Oracle
from .plan import NETWORK, Plan
from .server import Server
from .stage import Stage, until
from .store import Store

CANCEL = 1.3  # seconds that a cancel may take: it waits a second for a callback that is running
AFTER = 3.0  # seconds until what was ended is gone


def run(seed, patience=10.0, without=(), world=None):
    """Play one seed; what was wrong, nothing if all is well. `world`, a list, gets the Play."""
    plan = Plan(seed, without)
    with wire.certificate_file() as certificate:
        threads, before = set(threading.enumerate()), _descriptors()
        play = Play(plan, certificate)
        if world is not None:
            world.append(play)
        play.play(patience)
        play.server.stop()

    stage = play.stage
    if not until(lambda: not _more_threads(threads), AFTER):
        names = [thread.name for thread in _more_threads(threads)]
        stage.problem("O7: threads are left:", names)
    elif not until(lambda: _descriptors() <= before, AFTER):
        stage.problem("O7: %d descriptors are left" % (_descriptors() - before))
    return stage.problems


def _more_threads(before):
    return [thread for thread in threading.enumerate() if thread not in before]


def _descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


class Play:
    """The store, the oracle, the server, and the watch between them."""

    def __init__(self, plan, certificate):
        self.plan, self.stage = plan, Stage(plan)
        self.store = Store(self.stage)
        self.oracle = Oracle(self.stage, self.store)
        self.server = Server(self.stage, self.store, self.oracle, certificate)
        self._context = ssl.create_default_context(cafile=certificate) if plan.tls else None

    def play(self, patience):
        """All of it; what was wrong is among the problems of the stage."""
        with FaultProxy(self.server.port) as proxy:
            self._proxy = proxy
            client = self._watch()
            self._act_all()
            is_ended = self.plan.cancel == "end"
            if is_ended or self.plan.cancel == "inside" and not self.stage.over:
                self._converge(patience)
            self.server.check_times()
            self._leave(client)

    def _watch(self):
        plan = self.plan
        url = "%s://127.0.0.1:%d" % ("https" if plan.tls else "http", self._proxy.port)
        client = apiproxy.Client(url, ssl_context=self._context, **plan.settings)
        params = {"timeoutSeconds": plan.lifetime}
        if plan.kind == "selector":
            params["labelSelector"] = "app=x"
        if plan.kind == "limit":
            params["limit"] = plan.limit

        oracle = self.oracle
        with self.stage.lock:  # a view can't come before there is a cancel for it
            if plan.kind == "item":
                oracle.cancel = client.stream_result(PATH, "a", oracle.view, oracle.error, params)
            else:
                oracle.cancel = client.stream_results(PATH, oracle.view, oracle.error, params)
        return client

    # -- actions

    def _act_all(self):
        """What happens by itself, at its moment; the proxy's faults end when the last is due."""
        plan, stage, begin, ends = self.plan, self.stage, time.monotonic(), []
        for at, name, how in plan.actions:
            if plan.cancel == "early" and at > plan.cancel_at:
                return
            ends.sort()
            while ends and ends[0] <= at:
                until(lambda: time.monotonic() - begin >= ends[0], 9)
                ends.pop(0)
                if not ends:
                    self._proxy.clear()

            until(lambda: time.monotonic() - begin >= at or stage.over, 9)
            if stage.over:
                return
            if name in NETWORK and name != "rewind":
                ends.append(at + how[1])
            self._act(name, how)

    def _act(self, name, how):
        if name == "change":
            self.store.change(how)
            return

        self.stage.note("now:", name, how)
        if name == "compact":
            self.store.window = self.store.version
        elif name == "drop":
            with self.stage.lock:
                self.store.drop(how)
                self.oracle.lost = True
        elif name == "outage":
            self.server.begin_outage(*how)
        elif name == "rewind":
            self.store.rewind(how)
        else:
            self._harm(name, how)

    def _harm(self, name, how):
        """A fault of the network."""
        proxy = self._proxy
        self.stage.counts["network " + name] += 1
        word, _, way = name.partition(" ")
        if word in ("drop", "stall"):
            getattr(proxy, word)(way)
        elif word == "throttle":
            proxy.throttle(20000)
        elif word == "cut":
            proxy.cut(how[0], "down", rst=way == "rst")
        else:
            getattr(proxy, word)()

    # -- the end

    def _converge(self, patience):
        """The faults are over: the last view has to become the server's state."""
        plan, stage, server = self.plan, self.stage, self.server
        with stage.lock:
            server.is_faulty = False
        self._proxy.clear()
        stage.note("now: all faults are over")
        until(lambda: not server.outage or time.monotonic() > server.outage[1], 1)

        is_right = self._wait_for_view(patience)
        if plan.last:
            self._act(*plan.last)
            is_right = self._wait_for_view(patience)
        self._check_errors(is_right, patience)

    def _wait_for_view(self, patience):
        stage, oracle = self.stage, self.oracle
        if until(lambda: stage.over or stage.problems or oracle.is_right(), patience):
            return True
        stage.problem("O5: after %.1f s the view is" % patience, oracle.shown, "and should be",
                      self.store.history[-1])
        return False

    def _check_errors(self, is_right, patience):
        plan, stage, oracle = self.plan, self.stage, self.oracle
        if plan.family == "silent" and oracle.errors:
            stage.problem("O8: %d errors, but only silent faults" % oracle.errors)
        if plan.family != "server" or not is_right or stage.over or stage.problems:
            return

        until(lambda: oracle.errors >= stage.loud, patience)
        if oracle.errors != stage.loud:
            stage.problem("O8: %d loud faults, %d errors" % (stage.loud, oracle.errors))

    def _leave(self, client):
        """Cancel, and see that nothing is left, and nothing called any more."""
        stage, oracle, server, proxy = self.stage, self.oracle, self.server, self._proxy
        begin = time.monotonic()
        oracle.cancel()
        took = time.monotonic() - begin
        calls, stage.over = oracle.calls, True
        stage.note("cancelled, in %.3f s" % took)
        if took > CANCEL:
            stage.problem("O7: cancel took %.3f s" % took)
        if any(thread.name.startswith("apiproxy-watch") for thread in threading.enumerate()):
            stage.problem("O7: cancel left its thread")

        proxy.clear()
        for index in range(20):
            self.store.change(index / 20)
        if not until(lambda: not server.watching, AFTER):
            stage.problem("O7: a watch's connection is left open")
        client.close()
        if not until(lambda: not proxy.open, AFTER):
            stage.problem("O7: %d connections are left open" % proxy.open)
        if oracle.calls != calls:
            stage.problem("O7: %d callbacks after cancel" % (oracle.calls - calls))
        oracle.check_kept()


def report(job):
    """A job in a process: (seed, problems, text of the timeline, figures or None).

    job     (seed, patience, faults to leave out)
    figures (counts of faults, views, requests, errors)
    """
    seed, patience, without = job
    logging.getLogger("apiproxy").addHandler(logging.NullHandler())
    plays = []
    try:
        problems = run(seed, patience, without, plays)
    except Exception:
        problems = ["the simulation failed: " + traceback.format_exc()]
    if not plays:
        return seed, problems, "", None

    play = plays[0]
    text = ""
    if problems:
        timeline = sorted(play.stage.timeline, key=lambda line: line[0])
        text = "\n".join([str(play.plan)] + ["%8.3f  %s" % line for line in timeline])
    figures = play.stage.counts, play.oracle.views, len(play.server.times), play.oracle.errors
    return seed, problems, text, figures
