# SPDX-License-Identifier: Apache-2.0
"""Kubernetes clusters that live in memory, behind the address of a Headlamp server.

For trying things out without a cluster, and for tests that want one in a millisecond:

    $ python3 examples/demo_cluster
    $ kubectl --server=http://127.0.0.1:4466/clusters/demo get pods --all-namespaces --watch

    with DemoCluster(clusters=("demo", "other")) as demo:
        urllib.request.urlopen(demo.url + "/clusters/demo/api/v1/pods")

It answers as kube-apiserver 1.20 behind Headlamp (May 2024) does: status codes, bodies, watches,
their awkward corners included. What it leaves out: most defaults and checks of specs, finalizers,
admission, server-side apply, protobuf (which `kubectl create deployment` and its like send;
`kubectl create -f` and `apply -f` do not). YAML is understood only where it is JSON.

Contents. Each part uses only the parts above it.

    values          objects as JSON has them, times
    settings        what can be set
    resources       which kinds there are, and what a kind needs
    refusals        the Status objects that a refused request gets
    selection       labelSelector and fieldSelector
    patches         JSON patch, merge patch, strategic merge patch
    defaults        what a new object gets
    bell            what wakes a watch
    store           the objects of one cluster, their history, who is told
    controllers     what other programs do in a real cluster: pods for deployments
    contents        what a new cluster has in it
    connections     HTTP/1.1, the server's side
    websockets      RFC 6455, the server's side
    servers         listeners and threads
    tables          tables for kubectl
    targets         what a request is about, and how its answer is written
    bodies          what is in a body, decoded and checked
    discovery       /version, /api, /apis, /openapi
    objects         get, list, create, update, patch, delete
    subresources    scale, eviction, token; reviews and metrics
    watches         lists that go on
    pods            logs and a shell
    kubernetes      requests to a cluster: who asks, for what
    headlamp        everything that is not below /clusters/<name>/
    life            something changes every second or two
    demo            DemoCluster: all of it together
    __main__        the command line

Times are seconds. One thread accepts, one serves each connection; all end with stop().
"""

from .connections import Record
from .demo import DemoCluster
from .resources import PODS, core
from .store import Store

__all__ = ["DemoCluster", "Record", "Store", "PODS", "core"]
