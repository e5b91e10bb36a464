#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What work costs with apiproxy, the plain standard library (the floor) and installed peers.

    python3 examples/benchmark.py --peers DIR             all rows; DIR gets the peers, once
    python3 examples/benchmark.py --only view --rounds 9  one row; --list names them
    python3 examples/benchmark.py --growth                cost as the work grows
    python3 examples/benchmark.py --forward               ports of Pods of a real cluster

Each measurement is a process of its own, in turn: floor, apiproxy, the peers, then the next round.
What counts is the CPU time, user and system, of that process, without import, construction and one
request to warm up. A ratio is the median, over the rounds, of a client's time by the floor's in the
same round. The floor is `http.client` kept alive and `json.loads`, without gzip; for watches the
same bytes from a socket and `json.loads`. Read differences below 0.2 as none.

The server is one more process with everything prepared; its objects are shaped like the demo
cluster's. With APIPROXY_TEST_URL or APIPROXY_TEST_DIRECT set, the rows that make sense there run on
that real API server. There --forward needs kubectl, and nodes that forward to this machine's
APIPROXY_TEST_FORWARD_PORT; its figures are of the processes that forward.

Printed on two cores of an AMD EPYC under Linux, Python 3.11.7, OpenSSL 3.0.19, TLS, medians of 3
rounds, beside kubernetes 37.0.2, lightkube 1.0.1, pykube-ng 23.6.0 and kr8s 0.20.15:

                                            floor apiproxy kubernetes  lightkube pykube-ng   kr8s
    list of 5,000 ConfigMaps                37 ms     0.93       5.70       0.86      4.48  60.20
    list of 3,000 Pods                     541 ms     0.28       5.28       1.10      2.64  17.34
    300 small GETs                          30 ms     1.24       3.11       3.18      4.97  13.73
    watch, 5,000 events                     34 ms     0.97       4.43       1.91      3.81  51.54
    view of 5,000 ConfigMaps, each changed  35 ms     2.94       5.24
    view of 5,000 Pods, each changed       175 ms     2.19       8.86
    import                                  33 ms     1.18       4.71       2.86      2.74   4.71
    import and first GET                    39 ms     1.17      11.98       3.35      2.58   9.87
    memory for each idle watch              99 KB    95 KB     147 KB     123 KB    145 KB 100 KB
"""

import argparse
import base64
import contextlib
import gc
import gzip
import hashlib
import inspect
import itertools
import json
import os
import platform
import queue
import re
import shutil
import signal
import socket
import socketserver
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
from collections import namedtuple

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TOKEN = "benchmark"

# ------------------------------------------------------------------------------
# The server: a process of its own, so that its work is in nobody's CPU time
# ------------------------------------------------------------------------------

CONFIG_MAP = {
    "data": {"key-%d" % i: "@H@ value %d of thing @N@, and some words more" % i for i in range(4)}
}
PROBE = {
    "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "failureThreshold": 3,
}
POD = {  # beside what the demo cluster's have; a real one is of 4 to 6 KB
    "container": {
        "env": [{"name": "SETTING_%d" % i, "value": "value %d of @N@" % i} for i in range(6)],
        "imagePullPolicy": "IfNotPresent",
        "resources": {
            "limits": {"cpu": "500m", "memory": "256Mi"},
            "requests": {"cpu": "100m", "memory": "128Mi"},
        },
        "livenessProbe": PROBE,
        "readinessProbe": PROBE,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {
                "name": "kube-api-access-x7k2p",
                "readOnly": True,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            }
        ],
    },
    "spec": {
        "serviceAccountName": "default",
        "schedulerName": "default-scheduler",
        "dnsPolicy": "ClusterFirst",
        "tolerations": [
            {
                "key": "node.kubernetes.io/" + what,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }
            for what in ("not-ready", "unreachable")
        ],
        "volumes": [
            {
                "name": "kube-api-access-x7k2p",
                "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {
                            "configMap": {
                                "name": "kube-root-ca.crt",
                                "items": [{"key": "ca.crt", "path": "ca.crt"}],
                            }
                        },
                    ],
                },
            }
        ],
    },
    "status": {
        "imageID": "registry.example/thing@sha256:@H@",
        "containerID": "containerd://@H@",
        "lastState": {},
    },
    "fields": {
        ".": {},
        "f:image": {},
        "f:name": {},
        "f:env": {
            'k:{"name":"SETTING_%d"}' % i: {".": {}, "f:name": {}, "f:value": {}} for i in range(6)
        },
        "f:livenessProbe": {".": {}, "f:httpGet": {".": {}, "f:path": {}, "f:port": {}}},
        "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}}},
    },
}


def template(kind):
    """One object as text in two halves, before and after its version.

    @N@ and @H@ stand for its number and a digest.
    """
    import demo_cluster as demo

    store = demo.DemoCluster(("demo",)).store("demo")
    resource, name = (
        (demo.PODS, "kube-proxy") if kind == "pods" else (demo.core("configmaps"), "settings")
    )
    body = next(entry.body for key, entry in store.entries(resource) if key[1].startswith(name))
    fields = {
        "f:metadata": {
            "f:annotations": {".": {}, "f:checksum/config": {}},
            "f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}},
        }
    }
    if kind == "pods":
        first, status = body["spec"]["containers"][0], body["status"]["containerStatuses"][0]
        first.update(POD["container"])
        body["spec"].update(
            POD["spec"], containers=[first, {**first, "name": "sidecar", "env": first["env"][:2]}]
        )
        body["status"].update(
            podIP="10.1.1.62",
            containerStatuses=[
                {**status, **POD["status"], "name": one} for one in ("main", "sidecar")
            ],
        )
        fields["f:spec"] = {
            "f:containers": {'k:{"name":"%s"}' % one: POD["fields"] for one in ("main", "sidecar")}
        }
    else:
        body["data"].update(CONFIG_MAP["data"])
    body["metadata"].update(
        name="thing-@N@",
        namespace="bench",
        uid="8a7d4c1e-5f0b-4b6e-9d3a-000000@N@",
        resourceVersion="@V@",
        annotations={"checksum/config": "@H@"},
        labels={
            "app.kubernetes.io/name": "thing",
            "app.kubernetes.io/instance": "thing-@N@",
            "pod-template-hash": "6d4b75cb6d",
        },
        managedFields=[
            {
                "manager": "benchmark",
                "operation": "Update",
                "apiVersion": "v1",
                "time": "2024-01-01T00:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": fields,
            }
        ],
    )
    text = json.dumps(body, separators=(",", ":"))
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:]+Z", "2024-01-01T00:00:00Z", text)
    return [half.encode() for half in text.split("@V@")]


class Objects:
    """Objects of one kind, as bytes, always the same ones."""

    def __init__(self, kind):
        self.kind = {"pods": b"Pod", "configmaps": b"ConfigMap"}[kind]
        self._template, self._made = template(kind), []

    def parts(self, count):
        """At least `count` pairs: the bytes before and after the version."""
        for number in range(len(self._made), count):
            digits, digest = b"%06d" % number, hashlib.sha256(b"%d" % number).hexdigest().encode()
            self._made.append(
                [half.replace(b"@N@", digits).replace(b"@H@", digest) for half in self._template]
            )
        return self._made

    def one(self, number):
        before, after = self.parts(number + 1)[number]
        return b'{"kind":"%s","apiVersion":"v1",%s%d%s' % (
            self.kind,
            before[1:],
            10000000 + number,
            after,
        )

    def page(self, start, end, count):
        end = min(end, count)
        items = (
            b"%s%d%s" % (before, 10000000 + start + i, after)
            for i, (before, after) in enumerate(self.parts(count)[start:end])
        )
        more = (
            b""
            if end == count
            else b',"continue":"%d","remainingItemCount":%d' % (end, count - end)
        )
        return (
            b'{"kind":"%sList","apiVersion":"v1",'
            b'"metadata":{"resourceVersion":"19999999"%s},"items":[%s]}'
            % (self.kind, more, b",".join(items))
        )

    def events(self, action, count, objects, big):
        """`count` events of one object after the other, with new versions and `big` bytes more."""
        parts = self.parts(objects)
        start = b'{"type":"%s","object":{"kind":"%s","apiVersion":"v1",' % (
            action.encode(),
            self.kind,
        )
        if big:
            start += b'"binaryData":{"big":"%s"},' % (b"QUJD" * (big // 4))
        for number in range(count):
            before, after = parts[number % objects]
            yield b"%s%s%d%s}" % (start, before[1:], 20000000 + number, after)


class Scene:
    """What the server serves from now on; a watch sees something once `go` is set."""

    def __init__(
        self,
        server,
        kind="configmaps",
        objects="0",
        events="",
        count="0",
        hold="",
        rate="0",
        big="0",
        touched="0",
    ):
        self.kind, self.events, self.stock = kind, events, server.stock(kind)
        self.objects, self.count, self.rate, self.big = (
            int(objects),
            int(count),
            float(rate),
            int(big),
        )
        self.touched = int(touched) or self.objects  # the events are of these, the first ones
        self.body = server.body(kind, self.objects)
        self.go, self.over = threading.Event(), threading.Event()
        self.queues = []  # one for each open watch
        self.lists = 0  # whole ones that were sent
        if not hold:
            self.go.set()

    def end(self):
        self.over.set()
        self.go.set()
        for one in list(self.queues):
            one.put(None)


GONE = (
    b'{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},'
    b'"status":"Failure","code":410,"reason":"Expired","message":"too old resource version"}}'
)


def frame(payload):
    size = len(payload)
    head = (
        bytes((size,))
        if size < 126
        else (
            b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")
        )
    )
    return b"\x81" + head + payload


def chunk(line):
    return b"%x\r\n%s\n\r\n" % (len(line) + 1, line)


class Server:
    """HTTP/1.1 and WebSockets with prepared bytes, a thread for each connection."""

    def __init__(self, pem):
        self.context = None
        if pem:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(pem)
        self._stocks, self._bodies = {}, {}
        self.scene = Scene(self)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def stock(self, kind):
        if kind not in self._stocks:
            self._stocks[kind] = Objects(kind)
        return self._stocks[kind]

    def body(self, kind, count):
        """A whole list, plain and compressed, kept for the next round."""
        if (kind, count) not in self._bodies:
            if count > 10000:
                self._bodies.clear()
            plain = self.stock(kind).page(0, count, count)
            self._bodies[kind, count] = plain, (
                gzip.compress(plain, 4) if len(plain) > 131072 else b""
            )  # as API servers do
        return self._bodies[kind, count]

    def run(self):
        while True:
            threading.Thread(
                target=self._serve, args=(self.listener.accept()[0],), daemon=True
            ).start()

    def _serve(self, sock):
        with contextlib.suppress(OSError, ValueError), sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            rest = b""
            while True:
                while b"\r\n\r\n" not in rest:
                    data = sock.recv(65536)
                    if not data:
                        return
                    rest += data
                head, _, rest = rest.partition(b"\r\n\r\n")
                self._answer(sock, head, head.lower())

    def _answer(self, sock, head, lower):
        path, _, text = head.split(b" ", 2)[1].decode().partition("?")
        query = dict(urllib.parse.parse_qsl(text))
        if b"authorization: bearer " + TOKEN.encode() not in lower:
            self._send(sock, b'{"kind":"Status","code":401}', status=b"401 Unauthorized")
        elif path.startswith("/bench/"):
            self._send(sock, json.dumps(self._control(path[7:], **query)).encode())
        elif path.startswith("/ws/"):
            self._upgrade(sock, head)
            self._messages(sock, **{key: int(value) for key, value in query.items()})
        elif query.get("watch", "").lower() in ("true", "1"):
            self._watch(sock, head, b"upgrade: websocket" in lower)
        else:
            self._get(
                sock, path.rstrip("/"), query, re.search(b"accept-encoding:[^\r]*gzip", lower)
            )

    def _send(self, sock, body, headers=b"", status=b"200 OK"):
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n" % (
            status,
            headers,
            len(body),
        )
        self._pour(sock, iter((head + body[:32768],) if len(body) <= 32768 else (head, body)))

    def _control(self, what, watches=0, seconds=0, gap=0, **scene):
        if what == "set":
            self.scene.end()
            self.scene = Scene(self, **scene)
        elif what == "go":
            self.scene.go.set()
        elif what == "wait":
            end = time.monotonic() + float(seconds)
            while len(self.scene.queues) < int(watches) and time.monotonic() < end:
                time.sleep(0.005)
        elif what == "stamp":  # changes one at a time, each in the next watch
            for number in range(self.scene.count):
                self.scene.queues[number % int(watches)].put(number)
                self.scene.over.wait(float(gap))
        elif what == "lists":
            return self.scene.lists
        return len(self.scene.queues)

    def _get(self, sock, path, query, compressed):
        scene = self.scene
        number = re.search(r"/thing-(\d+)$", path)
        chosen = re.search(r"metadata.name=thing-(\d+)", query.get("fieldSelector", ""))
        if number:
            self._send(sock, scene.stock.one(int(number.group(1))))
        elif chosen:
            self._send(
                sock,
                scene.stock.page(
                    int(chosen.group(1)), int(chosen.group(1)) + 1, int(chosen.group(1)) + 1
                ),
            )
        elif "limit" in query or "continue" in query:
            start = int(query.get("continue") or 0)
            scene.lists += not start
            self._send(
                sock,
                scene.stock.page(
                    start, start + int(query.get("limit") or scene.objects), scene.objects
                ),
            )
        elif path.endswith(scene.kind):
            scene.lists += 1
            if compressed and scene.body[1]:
                self._send(sock, scene.body[1], b"Content-Encoding: gzip\r\n")
            else:
                self._send(sock, scene.body[0])
        else:  # discovery
            kinds = [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "kind": kind,
                    "namespaced": True,
                    "verbs": ["get", "list", "watch"],
                }
                for plural, kind in (("configmaps", "ConfigMap"), ("pods", "Pod"))
            ]
            self._send(
                sock,
                json.dumps(
                    {
                        "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
                        "/api": {"kind": "APIVersions", "versions": ["v1"]},
                        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
                        "/api/v1": {
                            "kind": "APIResourceList",
                            "groupVersion": "v1",
                            "resources": kinds,
                        },
                    }.get(path, {})
                ).encode(),
            )

    @staticmethod
    def _upgrade(sock, head):
        key = re.search(b"(?i)sec-websocket-key: *([^\r]*)", head).group(1).strip()
        accept = base64.b64encode(
            hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        )
        offered = re.search(b"(?i)(\r\nsec-websocket-protocol: *[^,\r]*)", head)
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s%s\r\n\r\n"
            % (accept, offered.group(1) if offered else b"")
        )

    def _watch(self, sock, head, websocket):
        scene, mine, pack = self.scene, queue.Queue(), frame if websocket else chunk
        if websocket:
            self._upgrade(sock, head)
        else:
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
        scene.queues.append(mine)
        scene.go.wait()
        if scene.events == "stamped":
            for event in (
                next(scene.stock.events("MODIFIED", 1, 1, 0)).replace(
                    b'"20000000"', b'"%d"' % (20000000 + number)
                )
                for number in iter(mine.get, None)
            ):
                sock.sendall(
                    pack(
                        event.replace(
                            b'"checksum/config":"',
                            b'"stamp":"%.7f","checksum/config":"' % time.monotonic(),
                        )
                    )
                )
        elif scene.events == "GONE" and scene.queues[0] is mine:
            sock.sendall(pack(GONE) + (b"\x88\x00" if websocket else b"0\r\n\r\n"))
            return
        elif scene.events not in ("", "GONE"):
            self._pour(
                sock,
                map(pack, scene.stock.events(scene.events, scene.count, scene.touched, scene.big)),
                scene.rate,
            )
        scene.over.wait()
        raise OSError("the next measurement has begun")

    @staticmethod
    def _pour(sock, pieces, rate=0.0):
        """Send in large blocks, or `rate` pieces a second."""
        began = time.monotonic()
        for number in itertools.count():
            block = b"".join(itertools.islice(pieces, 1 if rate else 64))
            if not block:
                return
            if rate:
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
            for start in range(0, len(block), 1 << 20):
                sock.sendall(block[start : start + (1 << 20)])

    def _messages(self, sock, size=0, count=0, total=0):
        """Send `count` text messages of `size`, or take `total` bytes and say so."""
        text = frame((b"0123456789abcde " * (size // 16 + 1))[:size])
        self._pour(sock, (text for _ in range(count)))
        buffer = bytearray(1 << 18)
        while total:
            total -= sock.recv_into(buffer) or total
        sock.sendall(frame(b"done"))
        sock.recv(1)


def serve(pem):
    """Until the standard input ends."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a Ctrl-C is for the process that started this one
    raise_limit()
    server = Server(pem)
    print(server.listener.getsockname()[1], flush=True)
    threading.Thread(target=server.run, daemon=True).start()
    sys.stdin.read()


def raise_limit():
    """As many open files as we may have."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (65536 if hard == resource.RLIM_INFINITY else hard, hard)
        )


# ------------------------------------------------------------------------------
# The clients: a function each, called in the measured process
#
# small()            GET one ConfigMap
# list(kind)         all objects
# watch(kind)        iterates over changed objects
# annotations(item)  of an object that `watch` gave
# follow(kind, cb)   or begins to call cb with them
# view(kind, cb)     begin to call cb for each change of a list
# idle(cb)           begin one watch that calls cb(object)
# connect(path)      (recv, send) of a WebSocket
# ------------------------------------------------------------------------------

FIELDS = ("small", "list", "watch", "annotations", "view", "follow", "idle", "connect")
Client = namedtuple("Client", FIELDS, defaults=(None,) * len(FIELDS))


def floor(at):
    """What the standard library gives plainly."""
    import http.client
    import json
    import socket
    import ssl
    import urllib.parse

    parts = urllib.parse.urlsplit(at["url"])
    context = ssl.create_default_context(cafile=at["ca"]) if at["ca"] else None
    kept = (
        http.client.HTTPSConnection(parts.netloc, context=context)
        if context
        else http.client.HTTPConnection(parts.netloc)
    )
    headers = {"Authorization": "Bearer " + at["token"], "Accept": "application/json"}
    collection = parts.path + "/api/v1/namespaces/%s/" % at["namespace"]

    def get(path):
        kept.request("GET", path, headers=headers)
        return json.loads(kept.getresponse().read())

    def websocket(path):
        sock = socket.create_connection((parts.hostname, parts.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            sock = context.wrap_socket(sock, server_hostname=parts.hostname)
        lines = [
            "GET %s HTTP/1.1" % path,
            "Host: " + parts.netloc,
            "Origin: " + at["url"],
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
            "Sec-WebSocket-Protocol: base64.binary.k8s.io",
        ]
        sock.sendall("\r\n".join(lines + ["Authorization: Bearer " + at["token"], "", ""]).encode())
        file = sock.makefile("rb", 262144)
        if b" 101 " not in file.readline():
            raise OSError("no WebSocket")
        while file.readline() != b"\r\n":
            pass
        return sock, file

    def frames(file):
        while True:
            size = file.read(2)[1]
            if size > 125:
                size = int.from_bytes(file.read(2 if size == 126 else 8), "big")
            yield file.read(size)

    def watch(kind):
        sock, file = websocket(collection + kind + "?watch=true&resourceVersion=0")
        for data in frames(file):
            yield json.loads(data)["object"]

    def view(kind, cb):
        get(collection + kind)
        begin(watch, kind, cb)

    def connect(path):
        sock, file = websocket(path)
        messages = frames(file)

        def send(data):  # not masked: as cheap as it gets
            sock.sendall(b"\x82\x7f" + len(data).to_bytes(8, "big"))
            sock.sendall(data)

        return lambda: next(messages).decode(), send

    return Client(
        lambda: get(collection + "configmaps/thing-000000"),
        lambda kind: get(collection + kind)["items"],
        watch,
        lambda item: item["metadata"]["annotations"],
        view,
        connect=connect,
    )


def http_client(at):
    """The floor of those who watch over HTTP: the lines of http.client, json.loads."""
    import http.client

    def watch(kind):
        target = urllib.parse.urlsplit(
            at["url"]
            + "/api/v1/namespaces/%s/%s?watch=true&resourceVersion=0" % (at["namespace"], kind)
        )
        connection = (
            http.client.HTTPSConnection(
                target.netloc, context=ssl.create_default_context(cafile=at["ca"])
            )
            if at["ca"]
            else http.client.HTTPConnection(target.netloc)
        )
        connection.request(
            "GET",
            "%s?%s" % (target.path, target.query),
            headers={"Authorization": "Bearer " + at["token"]},
        )
        return (json.loads(line)["object"] for line in connection.getresponse())

    return floor(at)._replace(watch=watch, view=None)


def apiproxy(at, **settings):
    import sys

    sys.path.insert(0, at["root"])
    import apiproxy as module

    context = module.tls_context(at["ca"]) if at["ca"] else None
    client = module.Client("", cluster="bench", **settings)
    client.add_endpoint("bench", module.Endpoint(at["url"], ssl_context=context, token=at["token"]))
    collection = "/api/v1/namespaces/%s/" % at["namespace"]

    def fail(error, cancel):
        print(json.dumps({"error": str(error)}), flush=True)
        os._exit(1)

    def connect(path):
        websocket = module.WebSocket.connect(
            "ws" + at["url"][4:] + path,
            headers={"Authorization": "Bearer " + at["token"]},
            ssl_context=context,
        )
        return websocket.recv, websocket.send

    return Client(
        lambda: client.request(collection + "configmaps/thing-000000"),
        lambda kind: client.request(collection + kind)["items"],
        None,
        lambda item: item["metadata"]["annotations"],
        lambda kind, cb, **params: client.stream_results(collection + kind, cb, fail, params),
        lambda kind, cb: client.stream(
            collection + kind + "?watch=true&resourceVersion=0",
            lambda event: cb(event["object"]),
            {"isJson": True},
        ),
        lambda cb: client.stream_results(
            collection + "configmaps", lambda items: cb(items[0]) if items else None, fail
        ),
        connect,
    )


def gathering(at):
    """The same with a burst shown at once."""
    return apiproxy(at, gather=0.2)


def kubernetes(at):
    from kubernetes import client, config, watch

    config.load_kube_config(at["kubeconfig"])
    api = client.CoreV1Api()
    calls = {"configmaps": api.list_namespaced_config_map, "pods": api.list_namespaced_pod}

    def view(kind, cb):
        from kubernetes.informer import SharedInformer

        informer = SharedInformer(calls[kind], namespace=at["namespace"])
        informer.add_event_handler("MODIFIED", cb)
        informer.start()

    return Client(
        lambda: api.read_namespaced_config_map("thing-000000", at["namespace"]),
        lambda kind: calls[kind](at["namespace"]).items,
        lambda kind: (
            event["object"]
            for event in watch.Watch().stream(calls[kind], at["namespace"], resource_version="0")
        ),
        lambda item: item.metadata.annotations,
        view,
    )


def kubernetes_raw(at):
    """The same without its classes."""
    from kubernetes import client, config, watch

    config.load_kube_config(at["kubeconfig"])
    api = client.CoreV1Api()
    calls = {"configmaps": api.list_namespaced_config_map, "pods": api.list_namespaced_pod}
    return Client(
        lambda: json.loads(
            api.read_namespaced_config_map(
                "thing-000000", at["namespace"], _preload_content=False
            ).data
        ),
        lambda kind: json.loads(calls[kind](at["namespace"], _preload_content=False).data)["items"],
        lambda kind: (
            event["object"]
            for event in watch.Watch().stream(
                calls[kind], at["namespace"], resource_version="0", deserialize=False
            )
        ),
        lambda item: item["metadata"]["annotations"],
    )


def lightkube(at):
    from lightkube import Client as LightkubeClient
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.resources.core_v1 import ConfigMap, Pod

    client, kinds = LightkubeClient(config=KubeConfig.from_file(at["kubeconfig"])), {
        "configmaps": ConfigMap,
        "pods": Pod,
    }
    return Client(
        lambda: client.get(ConfigMap, "thing-000000", namespace=at["namespace"]),
        lambda kind: list(client.list(kinds[kind], namespace=at["namespace"])),
        lambda kind: (
            item
            for _, item in client.watch(
                kinds[kind], namespace=at["namespace"], resource_version="0"
            )
        ),
        lambda item: item.metadata.annotations,
    )


def pykube_ng(at):
    import pykube

    api, kinds = pykube.HTTPClient(pykube.KubeConfig.from_file(at["kubeconfig"])), {
        "configmaps": pykube.ConfigMap,
        "pods": pykube.Pod,
    }

    def query(kind):
        return kinds[kind].objects(api).filter(namespace=at["namespace"])

    return Client(
        lambda: query("configmaps").get_by_name("thing-000000"),
        lambda kind: list(query(kind)),
        lambda kind: (event.object for event in query(kind).watch(since="0")),
        lambda item: item.obj["metadata"]["annotations"],
    )


def kr8s(at):
    import kr8s
    import kr8s.objects

    api = kr8s.api(kubeconfig=at["kubeconfig"])
    return Client(
        lambda: kr8s.objects.ConfigMap.get("thing-000000", namespace=at["namespace"], api=api),
        lambda kind: list(api.get(kind, namespace=at["namespace"])),
        lambda kind: (item for _, item in api.watch(kind, namespace=at["namespace"], since="0")),
        lambda item: item.raw["metadata"]["annotations"],
    )


def websocket_client(at):
    import websocket

    def connect(path):
        made = websocket.create_connection(
            "ws" + at["url"][4:] + path,
            sslopt={"ca_certs": at["ca"]} if at["ca"] else None,
            header=["Authorization: Bearer " + at["token"]],
        )
        return made.recv, made.send_binary

    return Client(connect=connect)


def websockets(at):
    from websockets.sync.client import connect

    def open_one(path):
        made = connect(
            "ws" + at["url"][4:] + path,
            ssl=ssl.create_default_context(cafile=at["ca"]) if at["ca"] else None,
            max_size=None,
            compression=None,
            proxy=None,
            additional_headers={"Authorization": "Bearer " + at["token"]},
        )
        return made.recv, made.send

    return Client(connect=open_one)


def websockets_pure(at):
    """The same without its C extension."""
    import websockets.frames
    import websockets.utils

    websockets.frames.apply_mask = websockets.utils.apply_mask
    return globals()["websockets"](at)


Peer = namedtuple(
    "Peer", "function package imports"
)  # package: of PyPI; imports: what a program that uses it begins with
CLIENTS = {
    "floor": Peer(floor, "", "import urllib.request, http.client, ssl, json, threading, socket"),
    "apiproxy": Peer(apiproxy, "", "import sys; sys.path.insert(0, %r); import apiproxy" % ROOT),
    "gathering": Peer(gathering, "", ""),
    "http.client": Peer(http_client, "", ""),
    "kubernetes": Peer(kubernetes, "kubernetes", "from kubernetes import client, config, watch"),
    "kubernetes raw": Peer(kubernetes_raw, "kubernetes", ""),
    "lightkube": Peer(
        lightkube,
        "lightkube",
        "import lightkube; from lightkube.resources.core_v1 import ConfigMap, Pod",
    ),
    "pykube-ng": Peer(pykube_ng, "pykube-ng", "import pykube"),
    "kr8s": Peer(kr8s, "kr8s", "import kr8s, kr8s.objects"),
    "websocket-client": Peer(websocket_client, "websocket-client", ""),
    "websockets": Peer(websockets, "websockets", ""),
    "websockets pure": Peer(websockets_pure, "websockets", ""),
}
CLUSTER = ("kubernetes", "kubernetes raw", "lightkube", "pykube-ng", "kr8s")
SOCKET = ("websocket-client", "websockets")

# ------------------------------------------------------------------------------
# The work: each function runs in the measured process and returns seconds, or bytes
# ------------------------------------------------------------------------------


def begin(watch, kind, cb):
    """A thread that calls back with each object of an iterator."""

    def run():
        for item in watch(kind):
            cb(item)

    threading.Thread(target=run, daemon=True).start()


def follow(client, cb):
    (client.follow or (lambda kind, cb: begin(client.watch, kind, cb)))("configmaps", cb)


def idle(client, cb):
    (client.idle or (lambda cb: begin(client.watch, "configmaps", cb)))(cb)


def keep(make, client, kind):
    """Have all objects and watch them; who has no view lists again when its watch ends."""
    if client.view and make.args[0] != "floor":
        return client.view(kind, lambda *_: None)

    def run():
        while True:
            held = client.list(kind)
            with contextlib.suppress(Exception):
                for _ in client.watch(kind):
                    pass
            del held

    return threading.Thread(target=run, daemon=True).start()


class Counting:
    """A clock, and a callback that stops it at the last of `count` calls after `start`."""

    def __init__(self, count=0):
        self._left, self._done, self._lock, self._from = (
            count,
            threading.Event(),
            threading.Lock(),
            None,
        )

    def start(self):
        self.before = resident()
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins here
        self._from = time.perf_counter(), time.process_time()
        return self

    def stop(self):
        return {
            "cpu": time.process_time() - self._from[1],
            "wall": time.perf_counter() - self._from[0],
            "peak": peak() - self.before,
        }

    def __call__(self, *_):
        if self._from:
            with self._lock:
                self._left -= 1
                last = self._left == 0
            if last:
                self._result = self.stop()
                self._done.set()

    def result(self):
        self._done.wait()
        return self._result


class Control:
    """Tells the server what comes, over a connection of its own."""

    def __init__(self, at):
        self._at = at

    def __call__(self, what, **query):
        import http.client

        if self._at["real"]:
            return 0
        parts = urllib.parse.urlsplit(self._at["url"])
        connection = (
            http.client.HTTPSConnection(
                parts.netloc, context=ssl.create_default_context(cafile=self._at["ca"])
            )
            if self._at["ca"]
            else http.client.HTTPConnection(parts.netloc)
        )
        connection.request(
            "GET",
            "/bench/%s?%s" % (what, urllib.parse.urlencode(query)),
            headers={"Authorization": "Bearer " + TOKEN},
        )
        with contextlib.closing(connection):
            return json.loads(connection.getresponse().read())

    def wait(self, watches, seconds=40):
        got = self("wait", watches=watches, seconds=seconds)
        assert got >= watches, "only %d of %d watches open" % (got, watches)
        time.sleep(0.2)  # for what the client still does after its handshake


def do_list(make, control, kind, objects):
    control("set", kind=kind, objects=objects)
    client = make()
    client.small()
    clock = Counting().start()
    found = client.list(kind)
    result = clock.stop()
    assert len(found) == objects, "%d objects of %d" % (len(found), objects)
    return result


def do_gets(make, control, count):
    control("set", objects=1)
    client = make()
    client.small()
    clock = Counting().start()
    for _ in range(count):
        client.small()
    return clock.stop()


def do_watch(make, control, count, big=0):
    control("set", events="ADDED", objects=1 if big else count, count=count, big=big)
    client = make()
    client.small()
    counting = Counting(count).start()
    follow(client, counting)
    return counting.result()


def do_view(make, control, kind, objects, changes, rate=0, **params):
    # with `limit` only the first objects change: all are of one age, so these are shown
    control(
        "set",
        kind=kind,
        objects=objects,
        events="MODIFIED",
        count=changes,
        hold=1,
        rate=rate,
        touched=params.get("limit", 0),
    )
    client, counting, last = make(), Counting(changes), str(20000000 + changes - 1)
    if make.args[0] == "gathering":
        counting = Counting(1)

    def cb(items):
        if items[(changes - 1) % objects]["metadata"]["resourceVersion"] == last:
            counting()

    client.view(
        kind,
        cb if make.args[0] == "gathering" else counting,
        **(params if client.idle else {}),  # only ours has `limit`
    )
    control.wait(1, 80)
    counting.start()
    control("go")
    return counting.result()


def do_spread(make, control, watches, count):
    """`count` events in all, over that many watches of one client."""
    control("set", events="ADDED", objects=count // watches, count=count // watches, hold=1)
    client, counting = make(), Counting(count // watches * watches)
    client.small()
    for _ in range(watches):
        follow(client, counting)
    control.wait(watches)
    counting.start()
    control("go")
    return counting.result()


def resident():
    gc.collect()
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:  # Linux has it
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def peak():
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1)) * 1024
    return 0


def do_memory(make, control, watches):
    control("set", objects=1)
    client = make()
    client.small()
    before = 0
    for number in range(watches + 5):  # five to warm up
        if number == 5:
            control.wait(5)
            before = resident()
        idle(client, len)
    control.wait(watches + 5)
    return {"bytes": (resident() - before) / watches}


def do_open(make, control, watches):
    """That many watches, and while they are open five requests with the same client."""
    control("set", objects=1)
    client, answered = make(), threading.Event()
    client.small()
    clock = Counting().start()
    for _ in range(watches):
        idle(client, len)
    got = control("wait", watches=watches, seconds=40)
    threading.Thread(
        target=lambda: [client.small() for _ in range(5)] and answered.set(), daemon=True
    ).start()
    in_time = answered.wait(15)
    assert got >= watches and in_time, "%d open, GET %s" % (got, "answered" if in_time else "hangs")
    return clock.stop()


def do_latency(make, control, watches, changes):
    control("set", objects=1, events="stamped", count=changes)
    client, times, done = make(), [], threading.Event()

    def cb(item):
        stamp = client.annotations(item).get("stamp")
        if stamp:
            times.append(time.monotonic() - float(stamp))
            if len(times) == changes:
                done.set()

    for _ in range(watches):
        idle(client, cb)
    control.wait(watches)
    control("stamp", watches=watches, gap=0.002)
    done.wait()
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}


def do_receive(make, control, size, count):
    recv, _ = make().connect("/ws/?size=%d&count=%d" % (size, count))
    clock = Counting().start()
    received = sum(len(recv()) for _ in range(count))
    result = clock.stop()
    assert received == size * count
    return result


def do_send(make, control, size, count, head=14):
    recv, send = make().connect("/ws/?total=%d" % (count * (size + head)))
    data = bytes(range(256)) * (size // 256)
    clock = Counting().start()
    for _ in range(count):
        send(data)
    recv()
    return clock.stop()


def do_objects(make, control, kind, objects):
    """Have a list and a watch of it."""
    control("set", kind=kind, objects=objects, hold=1)
    client = make()
    client.small()
    clock = Counting().start()
    keep(make, client, kind)
    control.wait(1, 280)
    return {**clock.stop(), "bytes": resident() - clock.before}


def do_relist(make, control, kind, objects):
    """A watch is told 410: list again, and watch."""
    control("set", kind=kind, objects=objects, events="GONE", hold=1)
    client = make()
    client.small()
    keep(make, client, kind)
    control.wait(1, 140)
    lists, clock = control("lists"), Counting().start()
    control("go")
    control.wait(2, 140)
    result = clock.stop()
    assert control("lists") > lists, "does not list again"
    return result


def do_rollout(make, _, pods):
    """All Pods of a namespace in view while a real cluster makes them and gets them ready."""
    at = make.args[1]
    at["namespace"] = "rollout-%d" % os.getpid()
    with subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), "--rollout", json.dumps([at, pods])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as driver:
        driver.stdout.readline()  # the namespace is there
        client, last = make(), []

        def cb(*_):
            last[:] = [clock.stop()]

        clock = Counting().start()
        if client.view:
            client.view("pods", cb)
        else:
            begin(client.watch, "pods", cb)
        time.sleep(2)
        driver.stdin.write(b"go\n")
        driver.stdin.flush()
        ready, seen = int(driver.stdout.readline()), None
        while seen != last:  # it may be behind
            seen = list(last)
            time.sleep(3)
        driver.stdin.close()
        assert ready == pods, "only %d of %d Pods got ready" % (ready, pods)
    return seen[0]


def rollout(at, pods):
    """A process of its own: Deployments, until all their Pods are ready; then away with them."""
    client = endpoint_client(at)
    namespace = "/api/v1/namespaces/" + at["namespace"]
    deployments = "/apis/apps/v1/namespaces/%s/deployments" % at["namespace"]
    client.post("/api/v1/namespaces", {"metadata": {"name": at["namespace"]}})
    print("there", flush=True)
    sys.stdin.readline()
    for number in range(10):
        name = "thing-%d" % number
        container = {**POD["container"], "name": "main", "image": "registry.example/thing:1"}
        container.pop("volumeMounts")
        container["resources"] = {"requests": {"cpu": "1m", "memory": "1Mi"}}
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [container, {**container, "name": "sidecar"}]},
        }
        spec = {
            "replicas": pods // 10,
            "selector": {"matchLabels": {"app": name}},
            "template": template,
        }
        client.post(deployments, {"metadata": {"name": name}, "spec": spec})
    ready, end = 0, time.monotonic() + 300
    while ready < pods and time.monotonic() < end:
        time.sleep(1)
        items = client.request(deployments)["items"]
        ready = sum(item.get("status", {}).get("readyReplicas", 0) for item in items)
    print(ready, flush=True)
    sys.stdin.readline()
    client.remove(namespace)
    while client.request(namespace + "/pods", query_params={"limit": 1})["items"]:
        time.sleep(1)


def do_million(make, control, objects, count):
    """Memory after each fifth of very many changes."""
    control("set", objects=objects, events="MODIFIED", count=count, hold=1)
    numbers, sizes, done = (
        itertools.count(-1 if make.args[0] == "apiproxy" else 0),
        {},
        threading.Event(),
    )

    def cb(_):
        number = next(numbers) + 1  # of the change; the list comes before them
        if number and number % (count // 5) == 0:
            sizes["part %d" % (number // (count // 5))] = resident()
            if number == count:
                done.set()

    make().view("configmaps", cb)
    control.wait(1)
    sizes["part 0"] = resident()
    control("go")
    done.wait()
    return sizes


class Make:
    """Makes the client of the measured process."""

    def __init__(self, *args):
        self.args = args

    def __call__(self):
        name, at = self.args
        return CLIENTS[name].function(at)


def child(name, run, at, args):
    """The measured process: print what was measured, and end, whatever threads there are."""
    raise_limit()
    if run == "do_send" and name == "floor":
        args["head"] = 10  # its frames have no mask
    try:
        result = globals()[run](Make(name, at), Control(at), **args)
    except Exception as error:
        traceback.print_exc()
        result = {
            "error": ": ".join(
                filter(None, (type(error).__name__, str(error).partition("\n")[0][:60]))
            )
        }
    print(json.dumps(result), flush=True)
    os._exit(0)


# ------------------------------------------------------------------------------
# The tables
# ------------------------------------------------------------------------------

Row = namedtuple("Row", "title run args peers value rounds", defaults=(CLUSTER, "cpu", 1))
OBJECTS = {"objects": 5000, "changes": 5000}
ROWS = {
    "configmaps": Row(
        "list of 5,000 ConfigMaps", do_list, {"kind": "configmaps", "objects": 5000}
    ),
    "pods": Row("list of 3,000 Pods", do_list, {"kind": "pods", "objects": 3000}),
    "gets": Row("300 small GETs, connection kept", do_gets, {"count": 300}),
    "watch": Row(
        "watch, 5,000 events, each to a callback",
        do_watch,
        {"count": 5000},
        ("http.client",) + CLUSTER,
    ),
    "view": Row(
        "view kept, 5,000 changes to 5,000 ConfigMaps",
        do_view,
        {"kind": "configmaps", **OBJECTS},
        ("kubernetes",),
    ),
    "view-pods": Row(
        "view kept, 5,000 changes to 5,000 Pods",
        do_view,
        {"kind": "pods", **OBJECTS},
        ("kubernetes",),
    ),
    "import": Row("import", None, {"get": False}, rounds=3),
    "first": Row("import and first GET", None, {"get": True}, rounds=3),
    "memory": Row(
        "memory for each idle watch, its thread included",
        do_memory,
        {"watches": 50},
        value="bytes",
    ),
    "open": Row(
        "500 watches open, and requests still work", do_open, {"watches": 500}, rounds=0
    ),
    "big": Row(
        "one event of 3 MB, request to callback (wall)",
        do_watch,
        {"count": 1, "big": 3 << 20},
        ("http.client",) + CLUSTER,
        "wall",
    ),
    "p50": Row(
        "from change to callback, 50 watches, p50 (wall)",
        do_latency,
        {"watches": 50, "changes": 1000},
        value="p50",
    ),
    "p99": Row(
        "from change to callback, 50 watches, p99 (wall)",
        do_latency,
        {"watches": 50, "changes": 1000},
        value="p99",
    ),
    "recv-1k": Row(
        "receive 20,000 texts of 1 KB", do_receive, {"size": 1024, "count": 20000}, SOCKET
    ),
    "recv-4k": Row(
        "receive 8,000 texts of 4 KB", do_receive, {"size": 4096, "count": 8000}, SOCKET
    ),
    "recv-64k": Row(
        "receive 500 texts of 64 KB", do_receive, {"size": 65536, "count": 500}, SOCKET
    ),
    "send-64k": Row(
        "send 500 of 64 KB (the floor does not mask)",
        do_send,
        {"size": 65536, "count": 500},
        SOCKET + ("websockets pure",),
    ),
    "send-1m": Row(
        "send 32 of 1 MB (the floor does not mask)",
        do_send,
        {"size": 1 << 20, "count": 32},
        SOCKET + ("websockets pure",),
    ),
}
REAL = ("configmaps", "gets", "watch", "import", "first")

Growth = namedtuple(
    "Growth", "title unit points value", defaults=("cpu",)
)  # points: (what, function, arguments, divisor)
CONFIG_MAPS, PODS = (1000, 10000, 100000), (1000, 5000, 20000)  # of 1 KB, and of 5 KB


def by_objects(what, unit, function, scale, value="cpu"):
    """A table for ConfigMaps and one for Pods, with a figure for each object."""
    return [
        Growth(
            "%s, by %s" % (what, {"configmaps": "ConfigMaps", "pods": "Pods"}[kind]),
            unit,
            [(n, function, {"kind": kind, "objects": n}, n * scale) for n in sizes],
            value,
        )
        for kind, sizes in (("configmaps", CONFIG_MAPS), ("pods", PODS))
    ]


CPU, KB = ("microseconds of CPU an object", 1), ("KB an object", 1024e6)
BY_OBJECTS = {
    "list": by_objects("A list", CPU[0], do_list, CPU[1]),
    "list-peak": by_objects("The peak of memory in a list", KB[0], do_list, KB[1], "peak"),
    "relist": by_objects("List again after 410", CPU[0], do_relist, CPU[1]),
    "relist-peak": by_objects("The peak of that", KB[0], do_relist, KB[1], "peak"),
    "objects": by_objects("Memory that a watched list keeps", KB[0], do_objects, KB[1], "bytes"),
}
GROWTH = {
    **{
        name + suffix: table
        for name, tables in BY_OBJECTS.items()
        for suffix, table in zip(("", "-pods"), tables)
    },
    "view": Growth(
        "1,000 changes to a view, by objects",
        "microseconds of CPU a change",
        [
            (n, do_view, {"kind": "configmaps", "objects": n, "changes": 1000}, 1000)
            for n in (100, 1000, 10000, 100000)
        ],
    ),
    "limit": Growth(
        "1,000 changes in one burst to a view with `limit` 50, by objects",
        "microseconds of CPU a change",
        [
            (n, do_view, {"kind": "configmaps", "objects": n, "changes": 1000, "limit": 50}, 1000)
            for n in (100, 1000, 10000)
        ],
    ),
    "rate": Growth(
        "Changes to a view of 1,000 objects, by changes a second",
        "microseconds of CPU a change",
        [
            (
                n,
                do_view,
                {"kind": "configmaps", "objects": 1000, "changes": 2 * n, "rate": n},
                2 * n,
            )
            for n in (100, 1000, 5000)
        ],
    ),
    "watches": Growth(
        "5,000 events, by the watches that they are spread over",
        "microseconds of CPU an event",
        [(n, do_spread, {"watches": n, "count": 5000}, 5000) for n in (1, 10, 50, 100, 500)],
    ),
    "memory": Growth(
        "Memory, by idle watches",
        "KB a watch",
        [(n, do_memory, {"watches": n}, 1024e6) for n in (10, 50, 200, 500)],
        "bytes",
    ),
    "messages": Growth(
        "Text messages, by bytes",
        "microseconds of CPU a message",
        [
            (n, do_receive, {"size": n, "count": count}, count)
            for n, count in (
                (128, 20000),
                (1024, 20000),
                (16384, 2000),
                (262144, 128),
                (1 << 20, 32),
            )
        ],
    ),
    "million": Growth(
        "1,000,000 changes to a view of 500 objects",
        "MB resident",
        [(200000 * n, do_million, {"objects": 500, "count": 1000000}, 1e12) for n in range(6)],
        "part",
    ),
}
for name, value, unit, scale in (
    ("rollout", "cpu", "seconds of CPU", 1e6),
    ("rollout-peak", "peak", "MB", 1e12),
):
    GROWTH[name] = Growth(
        "A rollout in a real cluster with nodes, by Pods",
        unit,
        [(n, do_rollout, {"pods": n}, scale) for n in (1000, 3000)],
        value,
    )
GROWTH_PEERS = {  # kubernetes alone has views of its own
    **dict.fromkeys([*GROWTH][: 2 * len(BY_OBJECTS)], CLUSTER),
    "view": ("gathering", "kubernetes"),
    **dict.fromkeys(("rollout", "rollout-peak"), ("gathering", *CLUSTER)),
}


class Bench:
    """Starts the measured processes, one at a time, and makes tables of what they print."""

    def __init__(self, options, at, python):
        self.options, self.at, self.python, self.known = options, at, python, {}
        self.env = {
            key: value
            for key, value in os.environ.items()
            if not key.lower().endswith("_proxy") and not key.startswith(("APIPROXY_", "PYTHON"))
        }
        code = (
            "import importlib.metadata as m, json, platform, ssl, sys\n"
            "def of(name):\n    try: return m.version(name)\n"
            "    except m.PackageNotFoundError: return ''\n"
            "versions = {one: of(one) for one in sys.argv[1:]}\n"
            "print(json.dumps([platform.python_version(), ssl.OPENSSL_VERSION, versions]))"
        )
        packages = sorted({peer.package for peer in CLIENTS.values() if peer.package})
        self.version, self.openssl, self.packages = json.loads(
            subprocess.check_output([python, "-c", code, *packages], env=self.env)
        )
        wanted = set(options.clients.split(",") if options.clients is not None else CLIENTS) | {
            "floor",
            "apiproxy",
        }
        self.there = [
            name
            for name, peer in CLIENTS.items()
            if name in wanted and (not peer.package or self.packages[peer.package])
        ]

    def measure(self, client, run, args):
        """What one process printed, or {"error": ...}."""
        if run:
            command = [
                os.path.abspath(__file__),
                "--child",
                json.dumps([client, run.__name__, self.at, args]),
            ]
        else:  # all the time of a program that imports the client, and perhaps asks for one object
            code = CLIENTS[client].imports
            if args["get"]:
                code += "\ndef Client(small, *_, **__):\n    return small\n\n%s\n%s(%r)()" % (
                    inspect.getsource(CLIENTS[client].function),
                    CLIENTS[client].function.__name__,
                    self.at,
                )
            command = [
                "-c",
                code
                + "\nimport os, time\nprint('{\"cpu\": %r}' % time.process_time(), flush=True)"
                "\nos._exit(0)",
            ]
        with subprocess.Popen(
            [self.python, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            cwd=HERE,
        ) as running:
            try:
                out, err = running.communicate(timeout=self.options.seconds)
            except subprocess.TimeoutExpired:
                return {"error": "did not finish"}
            finally:
                running.kill()
                running.wait()
        if self.options.verbose:
            sys.stderr.write(err.decode(errors="replace"))
        with contextlib.suppress(IndexError, ValueError):
            return json.loads(out.decode().splitlines()[-1])
        return {
            "error": ([""] + err.decode(errors="replace").split("\n"))[-2][:80]
            or "ended with %d" % running.returncode
        }

    def rounds(self, clients, run, args, rounds):
        """{client: what it measured in each round}; who fails twice is not asked again."""
        key = run, json.dumps(args), tuple(clients)
        if key not in self.known:  # the same run gives p50 and p99
            results = self.known[key] = {
                one: [] for one in clients if one in self.there and (run or CLIENTS[one].imports)
            }
            if not run:
                self.measure("apiproxy", run, args)  # so that its bytecode is there
            for number, one in itertools.product(range(rounds), results):
                if sys.stderr.isatty():
                    sys.stderr.write(
                        "\r\033[K%s: %d of %d, %s"
                        % (run.__name__[3:] if run else "import", number + 1, rounds, one)
                    )
                if sum("error" in got for got in results[one]) < 2:
                    results[one].append(self.measure(one, run, args))
        return self.known[key]

    @staticmethod
    def cells(results, value):
        """{client: (its median, its median ratio to the floor)}, or what went wrong."""
        cells = {}
        for one, got in results.items():
            good = [
                (mine[value], base[value])
                for mine, base in zip(got, results["floor"])
                if value in mine and value in base
            ]
            cells[one] = (
                (
                    statistics.median(mine for mine, _ in good),
                    statistics.median(mine / base for mine, base in good),
                )
                if good
                else next((mine["error"] for mine in got if "error" in mine), "no floor").replace(
                    "|", "/"
                )
            )
        return cells

    def show(self, name, client, got):
        if not isinstance(got, tuple):
            return got or ""
        if name == "open":
            return "works"
        if name == "memory":
            return "%.0f KB" % (got[0] / 1024)
        return (
            "%.*f ms" % (2 if got[0] < 0.01 else 0, got[0] * 1000)
            if client == "floor"
            else "%.2f" % got[1]
        )

    def table(self, names, clients):
        """A line for each row as it is ready, then the wall-clock times where CPU time counts."""
        clients = ["floor", "apiproxy"] + [one for one in clients if one in self.there]
        walls = []
        head(["work"] + clients)
        for name in names:
            row = ROWS[name]
            args = (
                {
                    key: (
                        max(1, value // 10)
                        if key in ("objects", "count", "changes", "watches")
                        else value
                    )
                    for key, value in row.args.items()
                }
                if self.options.quick
                else row.args
            )
            results = self.rounds(
                ("floor", "apiproxy") + row.peers,
                row.run,
                args,
                max(1, self.options.rounds * row.rounds),
            )
            for value, lines in ((row.value, None), ("wall", walls)):
                cells = self.cells(results, value)
                line = [row.title] + [self.show(name, one, cells.get(one)) for one in clients]
                if lines is None:
                    say("| %s |" % " | ".join(line))
                elif row.value == "cpu" and row.run and name != "open":
                    lines.append("| %s |" % " | ".join(line))
        if walls:
            say("\nWall-clock time:\n")
            head(["work"] + clients)
            say("\n".join(walls))
        say("")

    def growth(self, name):
        table = GROWTH[name]
        clients = ("floor", "apiproxy") + tuple(
            one for one in GROWTH_PEERS.get(name, ()) if one in self.there
        )
        say("%s: %s\n" % (table.title, table.unit))
        head(["", *clients, "apiproxy by floor"])
        for what, run, args, divisor in table.points:
            value = table.value
            if value == "part":
                value = "part %d" % (what * 5 // args["count"])
            if self.options.quick:
                if table.value != "part" and what > 1000 and what != table.points[0][0]:
                    continue
                args = {
                    **args,
                    **({"count": max(500, args["count"] // 100)} if "count" in args else {}),
                }
            once = run in (do_million, do_rollout)
            cells = self.cells(
                self.rounds(clients, run, args, 1 if once else self.options.rounds), value
            )
            shown = [
                "%.1f" % (got[0] * 1e6 / divisor) if isinstance(got, tuple) else got
                for got in (cells[one] for one in clients)
            ]
            say(
                "| {:,} | {} | {} |".format(
                    what,
                    " | ".join(shown),
                    "%.2f" % cells["apiproxy"][1] if isinstance(cells["apiproxy"], tuple) else "",
                )
            )
        say("")


# ------------------------------------------------------------------------------
# Forwarded ports, beside kubectl: in a real cluster with nodes
# ------------------------------------------------------------------------------

BIG = 100 * 1000 * 1000


class Target(socketserver.StreamRequestHandler):
    """What a forwarded port leads to: it swallows a body, sends BIG bytes for /big, and closes."""

    disable_nagle_algorithm = True

    def handle(self):
        line, size = self.rfile.readline(), 0
        for header in iter(self.rfile.readline, b"\r\n"):
            if header.lower().startswith(b"content-length:"):
                size = int(header.split(b":")[1])
        while size > 0:
            size -= len(self.rfile.read1(min(size, 1 << 18))) or size
        left = BIG if line.startswith(b"GET /big") else 2
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
        while left > 0:
            left -= self.connection.send(bytes(min(left, 1 << 18)))


def forwarder(at, pod):
    """A process of its own: forward until its standard input ends."""
    client = endpoint_client(at)
    print(client.start_port_forward("real", at["namespace"], pod, 80, "", "")["port"], flush=True)
    sys.stdin.read()
    client.close()


def fetch(port, path, body=b""):
    """One request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), 60) as local:
        local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        local.sendall(b"GET %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (path, len(body)) + body)
        with local.makefile("rb") as answer:
            lines = list(iter(answer.readline, b"\r\n"))
            left = int(lines[-1].split(b":")[1])
            while left > 0:
                count = len(answer.read1(1 << 18))
                assert count, "the answer was cut"
                left -= count


def cpu_of(process):
    """Seconds of CPU that a process has used (Linux)."""
    with open("/proc/%d/stat" % process.pid) as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


FORWARDED = {
    "60 GETs on new connections": lambda port: [fetch(port, b"/") for _ in range(60)],
    "100 MB up": lambda port: fetch(port, b"/", bytes(BIG)),
    "100 MB down": lambda port: fetch(port, b"/big"),
}


def forwards(at, rounds):
    """Wall-clock and CPU time of the process that forwards, as ratios to kubectl's."""
    client = endpoint_client(at)
    pods = "/api/v1/namespaces/%s/pods" % at["namespace"]
    container = {"name": "main", "image": "registry.example/thing:1"}
    client.post(pods, {"metadata": {"name": "target"}, "spec": {"containers": [container]}})
    client.wait_for(pods, "target", lambda pod: pod["status"].get("phase") == "Running")
    me = [sys.executable, os.path.abspath(__file__), "--forwarder", json.dumps([at, "target"])]
    kubectl = ["kubectl", "--kubeconfig", at["kubeconfig"], "-n", at["namespace"]]
    commands = {"kubectl": [*kubectl, "port-forward", "pod/target", ":80"], "apiproxy": me}
    times = {(who, what): [] for who in commands for what in FORWARDED}

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer.request_queue_size = 100
    place = "127.0.0.1", int(os.environ["APIPROXY_TEST_FORWARD_PORT"])
    with socketserver.ThreadingTCPServer(place, Target) as target:
        target.daemon_threads = True
        threading.Thread(target=target.serve_forever, daemon=True).start()
        for _, (who, command) in itertools.product(range(rounds), commands.items()):
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
                port = int(re.findall(r"\d{4,}", process.stdout.readline())[0])
                fetch(port, b"/")
                for what, run in FORWARDED.items():
                    used, began = cpu_of(process), time.monotonic()
                    run(port)
                    times[who, what] += [(time.monotonic() - began, cpu_of(process) - used)]
                process.kill()
        target.shutdown()

    head(["through a forwarded port", "kubectl", "apiproxy", "CPU, kubectl", "CPU, apiproxy"])
    for what in FORWARDED:
        cells = []
        for index in (0, 1):
            theirs, ours = ([pair[index] for pair in times[who, what]] for who in commands)
            ratio = statistics.median(our / their for our, their in zip(ours, theirs))
            cells += ["%.0f ms" % (1000 * statistics.median(theirs)), "%.2f" % ratio]
        say("| %s | %s |" % (what, " | ".join(cells)))


def say(text):
    print(("\r\033[K" if sys.stderr.isatty() and sys.stdout.isatty() else "") + text, flush=True)


def head(columns):
    say("| %s |\n|%s" % (" | ".join(columns), " --- |" * len(columns)))


def machine():
    with contextlib.suppress(OSError, AttributeError):
        with open("/proc/cpuinfo") as file:
            return re.search(r"model name\s*: (.*)", file.read()).group(1)
    return platform.processor() or platform.machine()


def make_peers(folder):
    """The Python of an environment with every peer; made when it is not there."""
    python = os.path.join(folder, "Scripts" if os.name == "nt" else "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = sorted(
            {peer.package for peer in CLIENTS.values() if peer.package} | {"lightkube-models"}
        )
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages],
            check=True,
            stdout=sys.stderr,
        )
    return os.path.abspath(python)


def reach(url, ca, token, namespace, folder, real):
    """What a measured process has to know."""
    kubeconfig = os.path.join(folder, "kubeconfig")
    with open(kubeconfig, "w") as file:
        json.dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [
                    {
                        "name": "x",
                        "cluster": {"server": url, **({"certificate-authority": ca} if ca else {})},
                    }
                ],
                "users": [{"name": "x", "user": {"token": token}}],
            },
            file,
        )
    return {
        "url": url,
        "ca": ca,
        "token": token,
        "namespace": namespace,
        "kubeconfig": kubeconfig,
        "root": ROOT,
        "real": real,
    }


def endpoint_client(at):
    """What prepares a real cluster."""
    import apiproxy as module

    client, context = module.Client("", cluster="real"), None
    if at["ca"]:
        context = module.tls_context(at["ca"])
    client.add_endpoint("real", module.Endpoint(at["url"], ssl_context=context, token=at["token"]))
    return client


@contextlib.contextmanager
def own_server(plain, _):
    """Our server, with a certificate made for it."""
    with tempfile.TemporaryDirectory() as folder:
        pem, ca = os.path.join(folder, "server.pem"), os.path.join(folder, "ca.pem")
        if not plain:
            subprocess.run(
                [
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=benchmark",
                    "-addext",
                    "subjectAltName=IP:127.0.0.1",
                    "-keyout",
                    pem,
                    "-out",
                    ca,
                ],
                check=True,
                stderr=subprocess.DEVNULL,
            )
            with open(pem, "a") as file, open(ca) as certificate:
                file.write(certificate.read())
        with subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--serve", "" if plain else pem],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as server:
            try:
                port = int(server.stdout.readline())
                yield reach(
                    "http%s://127.0.0.1:%d" % ("" if plain else "s", port),
                    "" if plain else ca,
                    TOKEN,
                    "bench",
                    folder,
                    False,
                )
            finally:
                server.kill()
                server.wait()


@contextlib.contextmanager
def real_server(plain, count):
    """The cluster of the environment, with so many ConfigMaps in a namespace for the time being."""
    url = os.environ.get("APIPROXY_TEST_DIRECT", "") if not plain else ""
    url = url or "%s/clusters/%s" % (
        os.environ["APIPROXY_TEST_URL"],
        os.environ.get("APIPROXY_TEST_CLUSTER", "dev"),
    )
    ca = os.environ.get("APIPROXY_TEST_CA", "") if url.startswith("https") else ""
    namespace, stock, numbers = (
        "benchmark-%d" % os.getpid(),
        Objects("configmaps"),
        iter(range(count)),
    )
    collection = "/api/v1/namespaces/%s/configmaps" % namespace
    with tempfile.TemporaryDirectory() as folder:
        at = reach(url, ca, os.environ.get("APIPROXY_TEST_TOKEN", ""), namespace, folder, True)
        client = endpoint_client(at)
        client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        try:

            def fill():
                for number in numbers:  # one iterator for all threads
                    body = json.loads(stock.one(number))
                    body["metadata"] = {
                        key: body["metadata"][key] for key in ("name", "labels", "annotations")
                    }
                    client.post(collection, body)

            threads = [threading.Thread(target=fill) for _ in range(4)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
            yield at
        finally:
            numbers = iter(())
            client.remove(collection)
            client.remove("/api/v1/namespaces/" + namespace)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this row; may be given several times"
    )
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a tenth of the work, once: to see it run, not for figures",
    )
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--growth", action="store_true", help="tables of how costs grow, instead")
    parser.add_argument(
        "--peers",
        metavar="DIR",
        help="use, and make if need be, an environment with the peers there",
    )
    parser.add_argument(
        "--clients",
        metavar="NAMES",
        help="these beside the floor and apiproxy, with commas between",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=300.0,
        help="limit for each process (default: %(default)s)",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show what the measured processes say on stderr"
    )
    parser.add_argument(
        "--forward", action="store_true", help="forwarded ports beside kubectl, instead"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--forwarder", help=argparse.SUPPRESS)
    parser.add_argument("--rollout", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*json.loads(options.child))
    sys.path[:0] = [ROOT, HERE]
    if options.serve is not None:
        return serve(options.serve)
    if options.rollout:
        return rollout(*json.loads(options.rollout))
    if options.forwarder:
        return forwarder(*json.loads(options.forwarder))
    if options.forward:
        with real_server(options.plain, 0) as at:
            return forwards(at, options.rounds)
    known = GROWTH if options.growth else ROWS
    if options.list:
        return print("\n".join("%-12s%s" % (name, known[name].title) for name in known))
    if not set(options.only or ()) <= set(known):
        parser.error("there are %s" % ", ".join(known))
    options.rounds = 1 if options.quick else options.rounds
    real = bool(os.environ.get("APIPROXY_TEST_URL") or os.environ.get("APIPROXY_TEST_DIRECT"))
    names = [
        name
        for name in options.only or known
        if (name.startswith("rollout") == real if options.growth else not real or name in REAL)
    ]
    if not real and not options.plain and not shutil.which("openssl"):
        say("There is no openssl to make a certificate with: plain HTTP.\n")
        options.plain = True
    count = 0 if options.growth else 5000
    with (real_server if real else own_server)(options.plain, count) as at:
        bench = Bench(options, at, make_peers(options.peers) if options.peers else sys.executable)
        say(
            "%s, %d cores, %s; Python %s, %s; %s%s; medians of %d rounds%s.\n"
            % (
                machine(),
                os.cpu_count() or 0,
                platform.system(),
                bench.version,
                bench.openssl,
                "TLS" if at["ca"] else "plain HTTP",
                ", a real API server" if real else "",
                options.rounds,
                ", a tenth of the work" if options.quick else "",
            )
        )
        say(
            "Peers: %s. Not installed, so left out: %s.\n"
            % tuple(
                ", ".join(found) or "none"
                for found in (
                    ["%s %s" % pair for pair in bench.packages.items() if pair[1]],
                    [one for one, version in bench.packages.items() if not version],
                )
            )
        )
        if options.growth:
            for name in names:
                bench.growth(name)
            return None
        say(
            "CPU time: of the floor in ms, of the others as a ratio to it. "
            "apiproxy with its defaults, so with gzip; the floor without.\n"
        )
        sockets = [name for name in names if ROWS[name].run in (do_receive, do_send)]
        for some, clients in (
            ([name for name in names if name not in sockets], ("http.client",) + CLUSTER),
            (sockets, SOCKET + ("websockets pure",)),
        ):
            if some:
                bench.table(some, clients)
    return None


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print()
