#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Watch a deployment and its pods live while they are applied, scaled, patched and deleted.

    python3 examples/quickstart.py                   on a demo cluster in this process
    python3 examples/quickstart.py --context NAME    on yours, in a namespace made for it

It shows each call as it makes it, and what the watches say to it; it ends by itself in about ten
seconds, and takes away what it made.
"""

import os
import platform
import threading
import time
from typing import Any, Callable, Dict, List

from common import Args, bar, cli, colour, connect, glyphs, options, say, wait

import apiproxy

START = time.monotonic()
SHADES = {"you": "bold", "deployments": "cyan", "pods": "blue", "error": "red"}
last_said: Dict[str, str] = {}


def tell(who: str, text: str) -> None:
    """A line: when, who, what; another view that looks the same is no news."""
    if who == "you" or last_said.get(who) != text:
        last_said[who] = text
        seconds = colour("dim", "%5.2fs" % (time.monotonic() - START))
        say("%s  %s %s" % (seconds, colour(SHADES.get(who, "dim"), "%-11s" % who), text))


def settle(condition: Callable[[], Any], seconds: float = 1.5) -> None:
    """Wait until a callback made `condition` true, or for `seconds`: some have no controllers."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        wait(0.02)
    wait(0.9)  # for the reader


def deployment(replicas: int, image: str) -> Dict[str, Any]:
    """The manifest that is applied."""
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "image": image}]}}}}


class Seen:
    """What the callbacks saw last; they run on their streams' threads."""

    def __init__(self) -> None:
        self.views = self.errors = 0
        self.deployments: Dict[str, Any] = {}
        self.pods: Dict[str, str] = {}

    def on_deployments(self, items: List[Any]) -> None:
        self.views += 1
        self.deployments = {item["metadata"]["name"]: item for item in items}
        for name, item in self.deployments.items():
            wanted = item["spec"]["replicas"]
            ready = item.get("status", {}).get("readyReplicas", 0)
            image = item["spec"]["template"]["spec"]["containers"][0]["image"]
            labels: Dict[str, str] = item["metadata"].get("labels") or {}
            state = bar(ready, wanted, 15), ready, wanted
            text = "%s %s %d/%d ready, %s" % (name, *state, image)
            tell("deployments", text + "".join(", %s=%s" % pair for pair in labels.items()))
        if not items:
            tell("deployments", colour("dim", "none"))

    def on_pods(self, items: List[Any]) -> None:
        self.views += 1
        self.pods = {item["metadata"]["name"]: item.get("status", {}).get("phase", "?")
                     for item in items}
        dot = glyphs("●", "*")
        dots = "".join(colour("green" if phase == "Running" else "yellow", dot)
                       for phase in self.pods.values())
        names = " ".join(name.rsplit("-", 1)[-1] for name in sorted(self.pods))
        tell("pods", "%s %s" % (dots, names) if items else colour("dim", "none"))

    def on_error(self, error: apiproxy.ApiError, cancel: Callable[[], None]) -> None:
        self.errors += 1
        tell("error", str(error))


def main() -> None:
    args = options()
    with connect(args) as client:
        version = client.request("/version")["gitVersion"]
        where = "a demo of " if args.demo else ""
        tell("connected", "apiproxy %s, Python %s, %sKubernetes %s" % (
            apiproxy.__version__, platform.python_version(), where, version))
        namespace = "quickstart-" + os.urandom(3).hex()
        client.default_namespaces = {client.cluster: namespace}
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        try:
            tour(client, namespace)
        finally:
            client.remove("/api/v1/namespaces/" + namespace)
            tell("you", "client.remove(the namespace)")
    say(NEXT % ("" if args.demo else where_again(args)))


def where_again(args: Args) -> str:
    """The options that lead to the same cluster."""
    chosen = {name: getattr(args, name) for name in ("kubeconfig", "context", "url")}
    return "".join(" --%s %s" % (name, value) for name, value in chosen.items() if value)


def tour(client: apiproxy.Client, namespace: str) -> None:
    seen = Seen()
    path = "/api/v1/namespaces/%s/pods" % namespace
    deployments = client.api_factory_with_namespace("apps", "v1", "deployments", True)

    tell("you", "deployments.list(namespace, on_deployments, on_error)")
    cancels = [deployments.list(namespace, seen.on_deployments, seen.on_error)]
    tell("you", "client.stream_results(pods, on_pods, on_error)")
    cancels.append(client.stream_results(path, seen.on_pods, seen.on_error))
    settle(lambda: seen.views >= 2)

    tell("you", "client.apply(deployment of 2)")
    client.apply(deployment(2, "web:1.0"))
    settle(lambda: len(seen.pods) == 2)

    tell("you", "deployments.scale.put(5 replicas)")
    metadata = {"name": "web", "namespace": namespace}
    deployments.scale.put({"metadata": metadata, "spec": {"replicas": 5}})
    settle(lambda: len(seen.pods) == 5)

    tell("you", "deployments.patch(a label)")
    deployments.patch({"metadata": {"labels": {"tier": "front"}}}, namespace, "web")
    settle(lambda: "tier" in seen.deployments["web"]["metadata"].get("labels", {}))

    tell("you", "client.apply(deployment of 3, another image)")
    client.apply(deployment(3, "web:2.0"))
    settle(lambda: len(seen.pods) == 3)

    tell("you", "client.request(a deployment that is not there)")
    try:
        client.request("/apis/apps/v1/namespaces/%s/deployments/nope" % namespace)
    except apiproxy.ApiError as error:
        tell("ApiError", "%d %s, %s" % (error.status, error.reason, error.message))

    tell("you", "deployments.delete(it)")
    deployments.delete(namespace, "web")
    settle(lambda: not seen.deployments and not seen.pods)

    before = time.monotonic()
    for cancel in cancels:
        cancel()
    took = 1000 * (time.monotonic() - before)
    left = sum(thread.name.startswith("apiproxy") for thread in threading.enumerate())
    tell("you", "cancel both: %.1f ms, %d threads left" % (took, left))
    tell("seen", "%d views, %d errors" % (seen.views, seen.errors))


NEXT = """
Next, read only:  python3 examples/watch_pods.py%s
with your own:    python3 examples/watch_pods.py --kubeconfig ~/.kube/config
in your code:     cp apiproxy.py YOUR-PROJECT, then as README.md says"""

if __name__ == "__main__":
    cli(main)
