# SPDX-License-Identifier: Apache-2.0
"""The watches, the writers, the faults, and the end of it."""

import os
import random
import threading
import time

import apiproxy

from .cluster import (
    FAULTS, OUTAGE, do_fault, make_clients, new_object, paths_in, patiently, prepare)
from .views import View

PER_10, PER_60 = 20, 44  # requests that a watch may send in so many seconds
CANCEL = 1.0  # seconds that a cancel may take
# Seconds until views are right: the longest wait between retries, a ping's answer, a dead watch's
# grace.
SETTLE = 60.0
QUICK = {"timeout": 5000}  # a writer does not wait for long


class Soak:
    """Eight watches and two writers of one cluster."""

    def __init__(self, seed):
        self._chance = random.Random(seed)
        space = "soak-%d" % seed
        self._paths, self._clients = paths_in(space), make_clients()
        prepare(self._clients["endpoint"], space)
        self.views, self.faults = [], {}

        self._writers, self._stop = [], threading.Event()
        self._lock = threading.Lock()  # guards the three figures
        self.written, self.refused, self.failed = 0, 0, 0

    # -- watches

    def watch(self):
        """Start the eight."""
        for kind, way in (
                ("secrets", "token"), ("pods", "certificate"), ("services", "endpoint"),
                ("crumbs", "token"), ("configmaps", "proxy")):
            view = self._view("%s, %s" % (kind, way), self._paths[kind])
            view.cancel = self._clients[way].stream_results(
                self._paths[kind], view.items, view.error, None)

        view = self._view("deployments, proxy", self._paths["deployments"])
        deployments = self._clients["proxy"].api_factory_with_namespace("apps", "v1", "deployments")
        space = self._paths["deployments"].split("/")[-2]
        view.cancel = deployments.list(space, view.items, view.error)

        path, picked = self._paths["configmaps"], {"labelSelector": "picked=yes"}
        view = self._view("configmaps by label, certificate", path, picked, True)
        callbacks = {"cb": view.items, "errCb": view.error, "cluster": "certificate"}
        view.cancel = self._clients["certificate"].stream_results_for_cluster(
            path, callbacks, picked)

        view = self._view("one configmap, proxy", path, {"fieldSelector": "metadata.name=only"})
        view.cancel = self._clients["proxy"].stream_result(path, "only", view.item, view.error)

    def _view(self, *args):
        self.views.append(View(*args))
        return self.views[-1]

    def _is_right(self, view):
        """Whether a view is what a fresh list says."""
        client, options = self._clients["endpoint"], {"timeout": 10000}
        items = patiently(
            lambda: client.request(view.path, options, query_params=view.params))["items"]
        versions = {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in items}
        return view.current == versions

    # -- writers

    def write(self):
        """Start two writers."""
        self._stop.clear()
        for way in ("proxy", "token"):
            arguments = (self._clients[way], random.Random(self._chance.random()))
            writer = threading.Thread(target=self._write, args=arguments, name="writer")
            self._writers.append(writer)
            writer.start()

    def rest(self):
        """End the writers."""
        self._stop.set()
        for writer in self._writers:
            writer.join()
        self._writers.clear()

    def _write(self, client, chance):
        """Create, change and delete at random."""
        number = 0
        while not self._stop.wait(chance.uniform(0.0, 0.06)):
            number += 1
            try:
                self._write_once(client, chance, number)
                with self._lock:
                    self.written += 1
            except apiproxy.ApiError as error:
                if error.status in (404, 409):  # no such object, or there is one: as chance has it
                    with self._lock:
                        self.refused += 1
                    continue
                with self._lock:
                    self.failed += 1
                self._stop.wait(0.3)

    def _write_once(self, client, chance, number):
        kind = chance.choice(list(self._paths))
        is_only = kind == "configmaps" and chance.random() < 0.3
        name = "only" if is_only else "x-%d" % chance.randrange(20)
        path, action = self._paths[kind], chance.random()
        if action < 0.35:
            client.post(path, new_object(kind, name, number), True, QUICK)
        elif action < 0.75:
            labels = new_object(kind, name, number)["metadata"]["labels"]
            client.patch("%s/%s" % (path, name), {"metadata": {"labels": labels}}, True, QUICK)
        else:
            client.remove("%s/%s" % (path, name), QUICK)
            if chance.random() < 0.5:
                client.post(path, new_object(kind, name, number), True, QUICK)

    # -- faults

    def torment(self, seconds):
        """Faults, with pauses, for so long."""
        start = time.monotonic()
        progress = threading.Thread(target=self._tell_progress, args=(start,))
        progress.start()
        try:
            while True:
                time.sleep(self._chance.uniform(1.0, 8.0))
                if time.monotonic() >= start + seconds:
                    return
                name = self._chance.choice(FAULTS)
                self.faults[name] = self.faults.get(name, 0) + 1
                do_fault(name, self._chance.uniform(0.5, OUTAGE))
        finally:
            self._stop.set()
            progress.join()

    def _tell_progress(self, start):
        """A line every ten seconds."""
        while not self._stop.wait(10.0):
            calls = sum(view.calls for view in self.views)
            errors = sum(view.errors for view in self.views)
            print("%4d s: %d faults, %d written, %d refused, %d failed; %d views, %d errors" % (
                time.monotonic() - start, sum(self.faults.values()), self.written, self.refused,
                self.failed, calls, errors), flush=True)

    # -- the end

    def settle(self):
        """Wait until every view is right."""
        start = time.monotonic()
        while True:
            late = [view for view in self.views if view.settled is None]
            for view in late:
                if self._is_right(view):
                    view.settled = time.monotonic() - start
            if not late:
                return
            if time.monotonic() - start > SETTLE:
                break
            time.sleep(0.5)

        for view in self.views:
            if view.settled is None:
                view.wrong.append("not what a list says after %d s" % SETTLE)

    def leave(self):
        """Cancel every watch while writers write, and see that nothing is called any more."""
        self.write()
        time.sleep(1.0)
        for view in self.views:
            start = time.monotonic()
            view.cancel()
            view.took, view.is_quiet = time.monotonic() - start, True
            if view.took > CANCEL:
                view.wrong.append("cancel took %.1f s" % view.took)
        time.sleep(2.0)
        self.rest()
        for client in self._clients.values():
            client.close()


def descriptors():
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


def left_over(threads, fds):
    """Threads and descriptors beyond those, once what is about to go had time to."""
    end = time.monotonic() + 3.0
    while True:
        names = [thread.name for thread in threading.enumerate() if thread not in threads]
        more = descriptors() - fds
        if not names and more <= 0 or time.monotonic() > end:
            break
        time.sleep(0.05)

    wrong = ["thread %s is left" % name for name in names]
    return wrong + ["%d descriptors are left" % more] * (more > 0)
