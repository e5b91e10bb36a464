#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the tests of processes run: a server, and programs that fork while threads use a client.

    python .ci/processes.py serve CERTIFICATE          prints its address, ends with its stdin
    python .ci/processes.py storm URL CERTIFICATE 200  os.fork() so often, at random moments
    python .ci/processes.py METHOD URL CERTIFICATE     fork, forkserver or spawn of multiprocessing

CERTIFICATE is a file as certificate_file() makes it, or - for no TLS. The programs print what was
wrong; the exit status is 0 where nothing was.
"""

import collections
import faulthandler
import functools
import itertools
import multiprocessing
import os
import random
import ssl
import sys
import threading
import time
import warnings

CI = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(CI), CI]

import apiproxy  # noqa: E402
from wire import Server  # noqa: E402

THREADS = 8  # that request: every second one by POST, which takes a connection each time
WATCHES = 4
REQUESTS = 20  # of each child
HANGS = 30  # seconds after which a child tells where it is, and ends


def pod(number):
    """The pod of an event, by its number."""
    metadata = {"name": "p%d" % number, "uid": "u%d" % number, "resourceVersion": str(number + 100)}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}


def serve(certificate):
    """Answers tell their path; watches get pod after pod; /watches tells how many there were."""
    counts = collections.Counter()

    def script(request, conn):
        path = request.path.partition("?")[0]
        if request.is_watch:
            counts[path] += 1
            conn.upgrade(request)
            for number in itertools.count(1):
                conn.push({"type": "ADDED", "object": pod(number)})
                if conn.stopped.wait(0.05):
                    return False
        if path.endswith("/pods"):
            metadata = {"resourceVersion": "100"}
            conn.reply(200, {"kind": "PodList", "metadata": metadata, "items": [pod(0)]})
        else:
            conn.reply(200, counts if path.endswith("/watches") else {"path": path})
        return None

    server = Server(script, certificate)
    print(server.url, flush=True)
    sys.stdin.read()
    os._exit(0)


@functools.lru_cache(maxsize=1)
def client_of(url, certificate):
    """The one client of this process, or the one that it had when it was forked."""
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    return apiproxy.Client(url, cluster="dev", ssl_context=context, burst=1000, rate=1000.0)


class Work:
    """What a process does with the client; `wrong` tells what was."""

    def __init__(self, client):
        self.client = client
        self.wrong = []
        self.views = []
        self.over = threading.Event()

    def ask(self, who, count=sys.maxsize):
        """Requests, each for a path of its own, which the answer tells."""
        for number in range(count):
            if self.over.is_set():
                return
            path = "/%s-%d" % (who, number)
            try:
                by_post = who.endswith("1") and number % 2
                answer = self.client.post(path, {}) if by_post else self.client.request(path)
                path_answered = answer["path"]
            except apiproxy.ApiError as error:
                path_answered = str(error)
            if path_answered != "/clusters/dev" + path:
                self.wrong.append("%s: %s" % (path, path_answered))

    def watch(self, namespace):
        """Start a stream; the function that cancels, and the number of pods of each view."""
        counts = []

        def cb(items):
            counts.append(len(items))
            names = [item["metadata"]["name"] for item in items]
            if names != ["p%d" % number for number in range(len(names))]:
                self.wrong.append("a view lacks something: %s" % names[-3:])

        def err_cb(error, cancel):
            self.wrong.append("a watch: %s" % error)

        path = "/api/v1/namespaces/%s/pods" % namespace
        return self.client.stream_results(path, cb, err_cb), counts

    def in_a_child(self, cancel):
        """All that a child does; cancel ends a stream of its parent, if it has one."""
        begun = time.monotonic()
        cancel()
        if time.monotonic() - begun > 1 or self.client.tasks:
            self.wrong.append("the parent's streams are here")
        self.ask("child-%d" % os.getpid(), REQUESTS)
        _, counts = self.watch("child")
        end = time.monotonic() + 10
        while not counts[1:] and time.monotonic() < end:
            time.sleep(0.01)
        if not counts[1:]:
            self.wrong.append("a child's watch shows nothing")
        self.client.close()
        for text in self.wrong[:3]:
            print("child:", text, flush=True)
        return bool(self.wrong)


def nothing():
    """What a child calls that has no stream of its parent's."""


def parent(client, work_with_children):
    """Threads request and watch while work_with_children(work, cancel) goes on; the exit status."""
    work = Work(client)
    watches = [work.watch("parent") for _ in range(WATCHES)]
    names = ["parent-%d" % number for number in range(THREADS)]
    threads = [threading.Thread(target=work.ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()

    failures = work_with_children(work, watches[0][0])
    seen = [counts[-1] for _, counts in watches]
    stuck = range(WATCHES)
    end = time.monotonic() + 20
    while stuck and time.monotonic() < end:
        time.sleep(0.05)
        stuck = [number for number in stuck if watches[number][1][-1] <= seen[number]]
    work.over.set()
    for thread in threads:
        thread.join()
    made = client.request("/watches")["/clusters/dev/api/v1/namespaces/parent/pods"]
    client.close()

    print("%d children failed, watches that stand still: %s, watches begun: %d, wrong: %s" % (
        failures, stuck, made, work.wrong[:3]), flush=True)
    return int(bool(failures or stuck or work.wrong or made != WATCHES))


def storm(url, certificate, count):
    """os.fork(), at random moments, three children at a time; the exit status."""
    def children(work, cancel):
        failures, alive = 0, []
        for left in reversed(range(int(count) + 3)):
            time.sleep(random.random() * 0.02)
            if left >= 3:
                alive.append(os.fork())
                if not alive[-1]:
                    faulthandler.dump_traceback_later(HANGS, exit=True)
                    work.wrong.clear()
                    os._exit(work.in_a_child(cancel))
            if len(alive) > 3 or left < 3 and alive:
                failures += os.waitpid(alive.pop(0), 0)[1] != 0
        return failures

    return parent(client_of(url, certificate), children)


def child_of_multiprocessing(url, certificate):
    """The target of a Process: with its parent's client where it was forked, else with its own."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    sys.exit(Work(client_of(url, certificate)).in_a_child(nothing))


def through_multiprocessing(method, url, certificate):
    """Some children by a start method; the exit status."""
    def children(work, cancel):
        context = multiprocessing.get_context(method)
        args = url, certificate
        processes = [context.Process(target=child_of_multiprocessing, args=args) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return sum(process.exitcode != 0 for process in processes)

    return parent(client_of(url, certificate), children)


def main(what, *args):
    """See the top; the exit status."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where there are threads
    args = [None if arg == "-" else arg for arg in args]
    if what == "serve":
        return serve(*args)
    if what == "storm":
        return storm(*args)
    return through_multiprocessing(what, *args)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
