#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Have the server forward a port to a pod, fetch a page through it, stop it.

    python3 examples/port_forward.py [pod] [namespace] [--port 80]
"""

import urllib.request

from common import colour, connect, options, run


def main():
    given = options("pod", "namespace", port=80)
    with connect() as client:
        namespace = given.namespace or "demo-shop"
        pod = given.pod or client.request("/api/v1/namespaces/%s/pods" % namespace)["items"][0]["metadata"]["name"]
        client.request_timeout = given.seconds or 10  # the server never answers for a pod that it can't reach
        made = client.start_port_forward(client.cluster, namespace, pod, given.port, "", "")
        print("%s localhost:%s to port %s of %s" % (colour("green", "forwarding"), made["port"], made["targetPort"], pod))
        try:
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open("http://127.0.0.1:%s/" % made["port"], timeout=5) as page:
                print(colour("dim", page.read(300).decode("utf-8", "replace").strip()))
            for one in client.list_port_forward(client.cluster):
                print("%-10s %s:%s -> %s" % (one["status"], "localhost", one["port"], one["pod"]))
        finally:
            print(client.stop_or_delete_port_forward(client.cluster, made["id"]))
            client.stop_or_delete_port_forward(client.cluster, made["id"], False)


if __name__ == "__main__":
    run(main)
