#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Watch deployments and pods live while they are applied, scaled, patched and deleted.

    python3 examples/quickstart.py

With nothing set it starts a demo cluster in this process. With APIPROXY_URL, APIPROXY_CLUSTER and
APIPROXY_TOKEN it does the same on that server, in a namespace that it makes and removes. It ends by
itself in about ten seconds.
"""

import os
import platform
import threading
import time

from common import apiproxy, bar, colour, connect, glyphs, run

START = time.monotonic()
PRINTING = threading.Lock()  # two watches and the main thread print


def say(who, text, last={}):
    if last.get(who) == text and who != "you":
        return  # another view, but nothing that this line would show
    last[who] = text
    shade = {"you": "bold", "deployments": "cyan", "pods": "blue"}.get(who, "dim")
    with PRINTING:
        print("%s  %s %s" % (colour("dim", "%5.2fs" % (time.monotonic() - START)), colour(shade, "%-11s" % who), text), flush=True)


def settle(condition, seconds=1.5):
    """Wait until a callback made `condition` true, or for `seconds`: not every cluster has controllers."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(1.2)  # for the reader


def deployment(replicas, image):
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": image}]}}}}


class Seen:
    """What the callbacks saw last; they run on their streams' threads."""

    def __init__(self):
        self.calls, self.errors, self.deployments, self.pods = 0, 0, {}, {}

    def on_deployments(self, items):
        self.calls += 1
        self.deployments = {item["metadata"]["name"]: item for item in items}
        for name, item in self.deployments.items():
            ready, wanted = item.get("status", {}).get("readyReplicas", 0), item["spec"]["replicas"]
            image = item["spec"]["template"]["spec"]["containers"][0]["image"]
            labels = "".join(", %s=%s" % pair for pair in (item["metadata"].get("labels") or {}).items())
            say("deployments", "%s %s %d/%d ready, %s%s" % (name, bar(ready, wanted, 4 * wanted), ready, wanted, image, labels))
        if not items:
            say("deployments", colour("dim", "none"))

    def on_pods(self, items):
        self.calls += 1
        self.pods = {item["metadata"]["name"]: item.get("status", {}).get("phase", "?") for item in items}
        dot = glyphs("●", "*")
        dots = "".join(colour("green" if phase == "Running" else "yellow", dot) for phase in self.pods.values())
        say("pods", "%s %s" % (dots, " ".join(sorted(self.pods))) if items else colour("dim", "none"))

    def on_error(self, error, cancel):
        self.errors += 1
        say("error", colour("red", error))


def main():
    with connect() as client:
        version = client.request("/version")["gitVersion"]
        say("connected", "apiproxy %s, Python %s, Kubernetes %s at %s" % (
            apiproxy.__version__, platform.python_version(), version, client.base_url))
        namespace = "quickstart-" + os.urandom(3).hex()
        client.default_namespaces = {client.cluster: namespace}
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        try:
            tour(client, namespace)
        finally:
            client.remove("/api/v1/namespaces/" + namespace)
            say("you", "remove the namespace")


def tour(client, namespace):
    seen = Seen()
    deployments = client.api_factory_with_namespace("apps", "v1", "deployments", True)
    say("you", "watch deployments and pods in %s" % namespace)
    cancels = [deployments.list(namespace, seen.on_deployments, seen.on_error),
               client.stream_results("/api/v1/namespaces/%s/pods" % namespace, seen.on_pods, seen.on_error)]
    settle(lambda: seen.calls >= 2)

    say("you", colour("bold", "apply") + " a deployment of 2")
    client.apply(deployment(2, "web:1.0"))
    settle(lambda: len(seen.pods) == 2)

    say("you", colour("bold", "scale") + " it to 5")
    deployments.scale.put({"metadata": {"name": "web", "namespace": namespace}, "spec": {"replicas": 5}})
    settle(lambda: len(seen.pods) == 5)

    say("you", colour("bold", "patch") + " a label onto it")
    deployments.patch({"metadata": {"labels": {"tier": "front"}}}, namespace, "web")
    settle(lambda: "tier" in seen.deployments["web"]["metadata"].get("labels", {}))

    say("you", colour("bold", "apply") + " it again with 3 and another image")
    client.apply(deployment(3, "web:2.0"))
    settle(lambda: len(seen.pods) == 3)

    say("you", "ask for a deployment that is not there")
    try:
        client.request("/apis/apps/v1/namespaces/%s/deployments/nope" % namespace)
    except apiproxy.ApiError as error:
        say("ApiError", "%d, %s" % (error.status, error))

    say("you", colour("bold", "delete") + " it")
    deployments.delete(namespace, "web")
    settle(lambda: not seen.deployments and not seen.pods)

    before = time.monotonic()
    for cancel in cancels:
        cancel()
    say("you", "cancel both: %.1f ms, %d threads left" % (1000 * (time.monotonic() - before), sum(
        thread.name.startswith("apiproxy") for thread in threading.enumerate())))
    say("seen", "%d views, %d errors" % (seen.calls, seen.errors))


if __name__ == "__main__":
    run(main)
