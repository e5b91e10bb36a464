# SPDX-License-Identifier: Apache-2.0
"""The cluster under it: four ways to it, its objects, and its faults."""

import json
import os
import signal
import ssl
import tempfile
import time

import apiproxy
from api_server import control

OUTAGE = 10.0  # seconds that a fault lasts at most, beside the start of the server
FAULTS = (
    "restart", "kill", "kill and compact", "stop", "stop etcd", "compact", "restart twice",
)
env = os.environ


# -- ways to it


def kubeconfig():
    """A kubeconfig with two users of the cluster: one with a token, one with a certificate."""
    users = {
        "token": {"token": env["APIPROXY_TEST_TOKEN"]},
        "certificate": {
            "client-certificate": env["APIPROXY_TEST_CLIENT_CERT"],
            "client-key": env["APIPROXY_TEST_CLIENT_KEY"]},
    }
    cluster = {
        "server": env["APIPROXY_TEST_DIRECT"], "certificate-authority": env["APIPROXY_TEST_CA"]}
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "token",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": name, "user": user} for name, user in users.items()],
        "contexts": [
            {"name": name, "context": {"cluster": "here", "user": name}} for name in users],
    }


def make_clients():
    """Clients by the way that they take: proxy, token, certificate, endpoint."""
    proxied = apiproxy.Client(
        env["APIPROXY_TEST_URL"], cluster=env["APIPROXY_TEST_CLUSTER"])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(kubeconfig(), file)
        file.flush()
        token = apiproxy.Client.from_kubeconfig(file.name)
        certificate = apiproxy.Client.from_kubeconfig(file.name, "certificate")

    endpoint = apiproxy.Client("", cluster="here")
    endpoint.add_endpoint("here", apiproxy.Endpoint(
        env["APIPROXY_TEST_DIRECT"], token=lambda: env["APIPROXY_TEST_TOKEN"],
        ssl_context=ssl.create_default_context(cafile=env["APIPROXY_TEST_CA"])))
    return {
        "proxy": proxied, "token": token, "certificate": certificate, "endpoint": endpoint}


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


# -- what is in it


def paths_in(space):
    """The collections that are written to, by name."""
    core = "/api/v1/namespaces/%s/" % space
    paths = {name: core + name for name in ("configmaps", "secrets", "pods", "services")}
    paths["deployments"] = "/apis/apps/v1/namespaces/%s/deployments" % space
    paths["crumbs"] = "/apis/soak.example.com/v1/namespaces/%s/crumbs" % space
    return paths


def prepare(client, space):
    """The namespace, the custom resource, and an object of every kind."""
    paths = paths_in(space)
    client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
    names = {"kind": "Crumb", "listKind": "CrumbList", "plural": "crumbs", "singular": "crumb"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    client.apply({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crumbs.soak.example.com"},
        "spec": {
            "group": "soak.example.com", "scope": "Namespaced", "names": names,
            "versions": [version]}})
    patiently(lambda: client.request(paths["crumbs"]))  # it takes a moment

    patiently(lambda: client.post(paths["configmaps"], new_object("configmaps", "only", 0)))
    for kind, path in paths.items():
        client.post(path, new_object(kind, "x-0", 0))


def new_object(kind, name, number):
    """The body of an object."""
    labels = {"n": str(number), "picked": "yes" if number % 2 else "no"}
    body = {"metadata": {"name": name, "labels": labels}}
    pod = {"containers": [{"name": "c", "image": "none"}]}
    if kind == "pods":
        body["spec"] = pod
    elif kind == "services":
        body["spec"] = {"ports": [{"port": 80}], "clusterIP": "None"}
    elif kind == "deployments":
        template = {"metadata": {"labels": {"a": "b"}}, "spec": pod}
        body["spec"] = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    elif kind == "crumbs":
        body.update({"apiVersion": "soak.example.com/v1", "kind": "Crumb"})
        body["spec"] = {"number": number}
    else:
        body["data"] = {"number": "MDAw"}
    return body


# -- faults


def freeze(name, seconds):
    """Stop a process for a while."""
    folder = os.path.dirname(env["APIPROXY_TEST_CLIENT_CERT"])
    with open(os.path.join(folder, name + ".pid")) as file:
        pid = int(file.read())
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def kill(seconds, compact=False):
    """Kill the API server, and start it after a while."""
    control("stop-api")
    try:
        if compact:
            control("compact", check=False)
        time.sleep(seconds)
    finally:
        control("start-api")


def do_fault(name, seconds):
    """One of FAULTS, to its end."""
    if name == "compact":
        control("compact", check=False)
    elif name == "stop":
        freeze("apiserver", seconds)
    elif name == "stop etcd":
        freeze("etcd", seconds)
    elif name.startswith("kill"):
        kill(seconds, "compact" in name)
    else:
        for _ in name.split():
            control("restart")
