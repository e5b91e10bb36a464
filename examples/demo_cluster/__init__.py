# SPDX-License-Identifier: Apache-2.0
"""Kubernetes clusters that live in memory, behind the address of a Headlamp server.

For trying things out without a cluster, and for tests that want one in a millisecond:

    $ python3 examples/demo_cluster
    $ kubectl --server=http://127.0.0.1:4466/clusters/demo get pods --all-namespaces --watch

    with DemoCluster(clusters=("demo", "other")) as demo:
        urllib.request.urlopen(demo.url + "/clusters/demo/api/v1/pods")

It answers as kube-apiserver 1.37 behind Headlamp 0.45 (August 2026) does, or, if told so, as others
from 1.20 on and Headlamp of May 2024: status codes, bodies, watches, awkward corners included.
What it leaves out: most defaults and checks of specs, admission, SPDY, answers in protobuf. YAML is
understood only where it is JSON.

Contents. Each part uses only the parts above it.

    values          objects as JSON has them, times
    settings        what can be set
    resources       which kinds there are, in which versions of Kubernetes
    refusals        the Status objects that a refused request gets
    selection       labelSelector and fieldSelector
    patches         JSON patch, merge patch, strategic merge patch
    schema          fields of the usual messages, with their numbers
    protobuf        what `kubectl create` sends
    managed         managedFields and server-side apply
    checks          what is wrong with an object
    defaults        what a new object gets
    bell            what wakes a watch
    store           the objects of one cluster, their history, who is told
    endpoints       where services lead to
    controllers     what other programs do in a real cluster: pods for deployments
    contents        what a new cluster has in it
    life            something changes every second or two
    connections     HTTP/1.1, the server's side
    websockets      RFC 6455, the server's side
    servers         listeners and threads
    tables          tables for kubectl
    users           who asks, and whether they may
    calls           one request to a cluster, and how its answer is written
    bodies          what is in a body, decoded and checked
    discovery       /version, /api, /apis, /openapi
    reading         get and list
    watches         lists that go on
    writing         create, update, patch, apply, delete
    subresources    scale, eviction, token
    reviews         reviews of rights, and metrics
    shell           what a container runs
    pods            logs, exec, attach, port forwards
    kubernetes      requests to a cluster: who asks, for what
    cookies         tokens in cookies
    kubeconfigs     kubeconfigs in requests
    contexts        which clusters Headlamp knows
    forwards        its port forwards
    drains          its drains
    response_cache  its cache
    headlamp        its routes, and what it hands on to a cluster
    demo            DemoCluster: all of it together
    __main__        the command line

Times are seconds. One thread accepts, one serves each connection; all end with stop().
"""

from .connections import Record
from .demo import DemoCluster
from .resources import PODS, core
from .store import Store

__all__ = ["DemoCluster", "Record", "Store", "PODS", "core"]
