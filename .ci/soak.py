# SPDX-License-Identifier: Apache-2.0
"""A soak on a real cluster: eight watches while the API server is killed, stopped and restarted and etcd compacted.

    ../shared/cluster/cluster run python .ci/soak.py --seconds 120
    ../shared/cluster/cluster run python .ci/soak.py --seconds 1200 --seed 7

It needs a cluster of its own, which `cluster run` makes and throws away. Two writers create, change and
delete all the while. What has to hold, with the module's default settings:

- no view goes backward: no object gets older, and one that was deleted never comes back; no object is there twice
- no watch sends more than 20 requests in any 10 s, or 44 in any 60 s
- soon after the last fault and the last write every view is what a fresh list says
- a cancel takes less than a second, and nothing is called after it
- no thread and no descriptor is left behind

Exit status 1, with what was wrong, when one of these does not hold.
"""

import argparse
import json
import logging
import os
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apiproxy  # noqa: E402

PER_10, PER_60 = 20, 44  # requests that a watch may send in so many seconds
CANCEL = 1.0  # seconds that a cancel may take
SETTLE = 60.0  # seconds until views are right: the longest wait between retries, a ping's answer, a dead watch's grace
OUTAGE = 10.0  # seconds that a fault lasts at most, beside the start of the server
QUICK = {"timeout": 5000}  # a writer does not wait for long

env = os.environ


class Requests(logging.Handler):
    """When each thread sent a request, as the module logs it: a watch has a thread of its own."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.times = {}  # by thread: monotonic times

    def emit(self, record):
        """Once more when a kept connection was found closed: then the request is sent again."""
        text = record.getMessage()
        if text.startswith(">") or "closed meanwhile" in text:
            self.times.setdefault(record.thread, []).append(time.monotonic())

    def most(self, threads, seconds):
        """The most requests of these threads in any window of `seconds`."""
        times, first, most = sorted(sum((self.times.get(thread, []) for thread in threads), [])), 0, 0
        for last, when in enumerate(times):
            while times[first] < when - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


class View:
    """What one watch has shown, and what was wrong with it."""

    def __init__(self, name, what, selective=False):
        self.name, self.what, self.selective = name, what, selective  # selective: an object may leave and come back
        self.wrong = []
        self.current = None  # {uid: resourceVersion}, as shown last
        self.newest = {}  # the same of all that was ever shown
        self.gone = set()  # uids that were shown, and then not
        self.calls, self.errors, self.statuses = 0, 0, {}
        self.threads = set()  # that called: one
        self.quiet = False  # cancelled: nothing may be called any more
        self.cancel, self.took, self.settled = None, 0.0, None

    def items(self, items):
        """The callback of a list."""
        self.threads.add(threading.get_ident())
        self.calls += 1
        now = {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in items}
        names = {item["metadata"]["name"] for item in items}
        if self.quiet:
            self.wrong.append("called after cancel")
        if not len(items) == len(now) == len(names):
            self.wrong.append("an object twice: %d items, %d uids, %d names" % (len(items), len(now), len(names)))
        for uid, version in now.items():
            last = self.newest.get(uid, "0")
            if int(version) < int(last):
                self.wrong.append("%s went back from %s to %s" % (uid, last, version))
            if uid in self.gone and not (self.selective and int(version) > int(last)):
                self.wrong.append("%s came back at %s, after %s" % (uid, version, last))
        self.gone = (self.gone | set(self.current or ())) - set(now)
        self.newest.update(now)
        self.current = now

    def item(self, item):
        """The callback of a single object."""
        self.items([] if item.get("actionType") == "DELETED" else [item])

    def error(self, error, cancel):
        """The other callback."""
        self.threads.add(threading.get_ident())
        self.errors += 1
        self.statuses[error.status] = self.statuses.get(error.status, 0) + 1
        if self.quiet:
            self.wrong.append("err_cb called after cancel")
        if not isinstance(error, apiproxy.ApiError):
            self.wrong.append("not an ApiError: %r" % error)


class Soak:
    """The cluster, its clients, watches and writers."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.space = "soak-%d" % seed
        core, crd = "/api/v1/namespaces/%s/" % self.space, "/apis/soak.example.com/v1/namespaces/%s/" % self.space
        self.paths = {
            "configmaps": core + "configmaps", "secrets": core + "secrets", "pods": core + "pods",
            "services": core + "services", "deployments": "/apis/apps/v1/namespaces/%s/deployments" % self.space,
            "crumbs": crd + "crumbs"}
        self.proxied = apiproxy.Client(env["APIPROXY_TEST_URL"], cluster=env["APIPROXY_TEST_CLUSTER"])
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(self.kubeconfig(), file)
            file.flush()
            self.token = apiproxy.Client.from_kubeconfig(file.name)
            self.certificate = apiproxy.Client.from_kubeconfig(file.name, "certificate")
        context = ssl.create_default_context(cafile=env["APIPROXY_TEST_CA"])
        self.endpoint = apiproxy.Client("", cluster="here")
        self.endpoint.add_endpoint("here", apiproxy.Endpoint(
            env["APIPROXY_TEST_DIRECT"], ssl_context=context, token=lambda: env["APIPROXY_TEST_TOKEN"]))
        self.clients = [self.proxied, self.token, self.certificate, self.endpoint]
        self.views, self.writers = [], []
        self.stop = threading.Event()  # ends the writers
        self.lock = threading.Lock()
        self.written, self.refused, self.failed = 0, 0, 0
        self.faults = {}

    @staticmethod
    def kubeconfig():
        """A kubeconfig with two users of the cluster: one with a token, one with a certificate."""
        users = {"token": {"token": env["APIPROXY_TEST_TOKEN"]}, "certificate": {
            "client-certificate": env["APIPROXY_TEST_CLIENT_CERT"], "client-key": env["APIPROXY_TEST_CLIENT_KEY"]}}
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "token",
            "clusters": [{"name": "here", "cluster": {
                "server": env["APIPROXY_TEST_DIRECT"], "certificate-authority": env["APIPROXY_TEST_CA"]}}],
            "users": [{"name": name, "user": user} for name, user in users.items()],
            "contexts": [{"name": name, "context": {"cluster": "here", "user": name}} for name in users]}

    def prepare(self):
        """The namespace, the custom resource, and an object of every kind."""
        one = self.endpoint
        one.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.space}})
        names = {"kind": "Crumb", "listKind": "CrumbList", "plural": "crumbs", "singular": "crumb"}
        one.apply({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "crumbs.soak.example.com"},
            "spec": {"group": "soak.example.com", "scope": "Namespaced", "names": names, "versions": [{
                "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}})
        self.patiently(lambda: one.request(self.paths["crumbs"]))  # it takes a moment
        self.patiently(lambda: one.post(self.paths["configmaps"], self.object("configmaps", "only", 0)))
        for kind, path in self.paths.items():
            one.post(path, self.object(kind, "x-0", 0))

    @staticmethod
    def patiently(call, seconds=60.0):
        """`call` until it succeeds."""
        end = time.monotonic() + seconds
        while True:
            try:
                return call()
            except apiproxy.ApiError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.3)

    @staticmethod
    def object(kind, name, number):
        """The body of an object."""
        body = {"metadata": {"name": name, "labels": {"n": str(number), "picked": "yes" if number % 2 else "no"}}}
        pod = {"containers": [{"name": "c", "image": "none"}]}
        if kind == "pods":
            body["spec"] = pod
        elif kind == "services":
            body["spec"] = {"ports": [{"port": 80}], "clusterIP": "None"}
        elif kind == "deployments":
            body["spec"] = {"selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": pod}}
        elif kind == "crumbs":
            body.update({"apiVersion": "soak.example.com/v1", "kind": "Crumb", "spec": {"number": number}})
        else:
            body["data"] = {"number": "MDAw"}
        return body

    # -- watches

    def watch(self):
        """Start the eight."""
        deployments = self.proxied.api_factory_with_namespace("apps", "v1", "deployments")
        picked = self.paths["configmaps"]
        plain = [("secrets", "token", self.token), ("pods", "certificate", self.certificate),
                 ("services", "endpoint", self.endpoint), ("crumbs", "token", self.token),
                 ("configmaps", "proxy", self.proxied)]
        for kind, how, client in plain:
            view = self.view("%s, %s" % (kind, how), (self.paths[kind], None))
            view.cancel = client.stream_results(self.paths[kind], view.items, view.error, None)
        view = self.view("deployments, proxy", (self.paths["deployments"], None))
        view.cancel = deployments.list(self.space, view.items, view.error)
        view = self.view("configmaps by label, certificate", (picked, {"labelSelector": "picked=yes"}), True)
        view.cancel = self.certificate.stream_results_for_cluster(
            picked, {"cb": view.items, "errCb": view.error, "cluster": "certificate"}, {"labelSelector": "picked=yes"})
        view = self.view("one configmap, proxy", (picked, {"fieldSelector": "metadata.name=only"}))
        view.cancel = self.proxied.stream_result(picked, "only", view.item, view.error)

    def view(self, name, what, selective=False):
        """A new View."""
        self.views.append(View(name, what, selective))
        return self.views[-1]

    def right(self, view):
        """Whether a view is what a fresh list says."""
        path, params = view.what
        items = self.patiently(lambda: self.endpoint.request(path, {"timeout": 10000}, query_params=params))["items"]
        return view.current == {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in items}

    # -- writers

    def write(self):
        """Start two writers."""
        self.stop.clear()
        for client in (self.proxied, self.token):
            chance = random.Random(self.chance.random())
            self.writers.append(threading.Thread(target=self.writer, args=(client, chance), name="writer"))
            self.writers[-1].start()

    def writer(self, client, chance):
        """Create, change and delete at random."""
        number = 0
        while not self.stop.wait(chance.uniform(0.0, 0.06)):
            number += 1
            kind = chance.choice(list(self.paths))
            name = "only" if kind == "configmaps" and chance.random() < 0.3 else "x-%d" % chance.randrange(20)
            path, action = self.paths[kind], chance.random()
            try:
                if action < 0.35:
                    client.post(path, self.object(kind, name, number), True, QUICK)
                elif action < 0.75:
                    labels = self.object(kind, name, number)["metadata"]["labels"]
                    client.patch("%s/%s" % (path, name), {"metadata": {"labels": labels}}, True, QUICK)
                else:
                    client.remove("%s/%s" % (path, name), QUICK)
                    if chance.random() < 0.5:
                        client.post(path, self.object(kind, name, number), True, QUICK)
                with self.lock:
                    self.written += 1
            except apiproxy.ApiError as error:
                with self.lock:
                    if error.status in (404, 409):  # no such object, or there is one: as chance has it
                        self.refused += 1
                        continue
                    self.failed += 1
                self.stop.wait(0.3)

    def rest(self):
        """End the writers."""
        self.stop.set()
        for writer in self.writers:
            writer.join()
        self.writers.clear()

    # -- faults

    def control(self, *words):
        """A command of the cluster's program; compaction may find nothing to do."""
        subprocess.run((env["APIPROXY_TEST_CONTROL"],) + words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=words[0] != "compact")

    def freeze(self, name, seconds):
        """Stop a process for a while."""
        with open(os.path.join(os.path.dirname(env["APIPROXY_TEST_CLIENT_CERT"]), name + ".pid")) as file:
            pid = int(file.read())
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def fault(self):
        """One fault, to its end."""
        what = self.chance.choice(("restart", "kill", "kill and compact", "stop", "stop etcd", "compact", "restart twice"))
        seconds = self.chance.uniform(0.5, OUTAGE)
        self.faults[what] = self.faults.get(what, 0) + 1
        if what == "compact":
            self.control("compact")
        elif what == "stop":
            self.freeze("apiserver", seconds)
        elif what == "stop etcd":
            self.freeze("etcd", seconds)
        elif what.startswith("kill"):
            self.control("stop-api")
            try:
                if "compact" in what:
                    self.control("compact")
                time.sleep(seconds)
            finally:
                self.control("start-api")
        else:
            for _ in what.split():
                self.control("restart")

    def torment(self, seconds):
        """Faults, with pauses, for so long."""
        start = time.monotonic()
        progress = threading.Thread(target=self.progress, args=(start,))
        progress.start()
        try:
            while True:
                time.sleep(self.chance.uniform(1.0, 8.0))
                if time.monotonic() >= start + seconds:
                    return
                self.fault()
        finally:
            self.stop.set()
            progress.join()

    def progress(self, start):
        """A line every ten seconds."""
        while not self.stop.wait(10.0):
            print("%4d s: %d faults, %d written, %d refused, %d failed; %d views, %d errors" % (
                time.monotonic() - start, sum(self.faults.values()), self.written, self.refused, self.failed,
                sum(view.calls for view in self.views), sum(view.errors for view in self.views)), flush=True)

    # -- the end

    def settle(self):
        """Wait until every view is right."""
        start = time.monotonic()
        while True:
            late = [view for view in self.views if view.settled is None]
            for view in late:
                if self.right(view):
                    view.settled = time.monotonic() - start
            if not late:
                return
            if time.monotonic() - start > SETTLE:
                for view in late:
                    if view.settled is None:
                        view.wrong.append("not what a list says after %d s" % SETTLE)
                return
            time.sleep(0.5)

    def leave(self):
        """Cancel every watch while writers write, and see that nothing is called any more."""
        self.write()
        time.sleep(1.0)
        for view in self.views:
            start = time.monotonic()
            view.cancel()
            view.took, view.quiet = time.monotonic() - start, True
            if view.took > CANCEL:
                view.wrong.append("cancel took %.1f s" % view.took)
        time.sleep(2.0)
        self.rest()
        for client in self.clients:
            client.close()


def left_over(before, descriptors):
    """Threads and descriptors that were not there before, once those that are about to go had time to."""
    end = time.monotonic() + 3.0
    while True:
        threads = [thread.name for thread in threading.enumerate() if thread not in before]
        more = len(os.listdir("/proc/self/fd")) - descriptors
        if not threads and more <= 0 or time.monotonic() > end:
            return ["thread %s is left" % name for name in threads] + ["%d descriptors are left" % more] * (more > 0)
        time.sleep(0.05)


def main():
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="how long there are faults")
    parser.add_argument("--seed", type=int, default=random.randrange(10000))
    options = parser.parse_args()
    if "APIPROXY_TEST_CONTROL" not in env:
        parser.error("this needs a cluster: see the top of this file")
    print("seed %d, %d s" % (options.seed, options.seconds), flush=True)
    requests, logger = Requests(), logging.getLogger("apiproxy")
    logger.addHandler(requests)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    soak = Soak(options.seed)
    soak.prepare()
    soak.watch()
    soak.write()
    try:
        soak.torment(options.seconds)
    finally:
        soak.rest()
    soak.settle()
    soak.leave()
    wrong = left_over(threads, descriptors)
    print("\n%-34s %6s %6s %9s %7s %7s %8s %7s %7s" % (
        "watch", "views", "errors", "requests", "in 10 s", "in 60 s", "right s", "cancel", "items"))
    for view in soak.views:
        times = [requests.most(view.threads, seconds) for seconds in (10, 60, 1e9)]
        if times[0] > PER_10 or times[1] > PER_60:
            view.wrong.append("%d requests in 10 s, %d in 60 s" % tuple(times[:2]))
        if len(view.threads) != 1:
            view.wrong.append("called on %d threads" % len(view.threads))
        print("%-34s %6d %6d %9d %7d %7d %8s %7.2f %7d" % (
            view.name, view.calls, view.errors, times[2], times[0], times[1],
            "never" if view.settled is None else "%.1f" % view.settled, view.took, len(view.current or ())))
        wrong += ["%s: %s" % (view.name, text) for text in view.wrong[:10]]
    for text in wrong:
        print("WRONG: " + text)
    print("soak: %d s, seed %d, %d faults (%s), %d writes, %d watches, %d views, %d errors told, %s" % (
        options.seconds, options.seed, sum(soak.faults.values()),
        ", ".join("%s %d" % pair for pair in sorted(soak.faults.items())), soak.written, len(soak.views),
        sum(view.calls for view in soak.views), sum(view.errors for view in soak.views),
        "%d WRONG" % len(wrong) if wrong else "nothing wrong"))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
