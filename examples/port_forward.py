#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Forward a local port to a pod, until Ctrl-C.

    python3 examples/port_forward.py POD [-n NAMESPACE] [--port 80] [--local 8080] [--fetch]

--fetch gets one page through it and ends. Through a Headlamp server the port is one of the machine
that Headlamp runs on. Needs the rights to create, and since Kubernetes 1.35 also to get,
pods/portforward.
"""

import urllib.request

from common import cli, colour, connect, named, namespace_of, options, say, until_ctrl_c


def main() -> None:
    args = options("pod", namespace="", port=80, local=0, fetch=False)
    with connect(args) as client:
        namespace, cluster = namespace_of(args, client), client.cluster
        pod = named(args, "pod", client, "/api/v1/namespaces/%s/pods" % namespace)
        forward = client.start_port_forward(
            cluster, namespace, pod, args.port, "", "", args.local or None)
        url = "http://127.0.0.1:%s/" % forward["port"]
        say("%s leads to port %s of %s" % (colour("green", url), args.port, pod))

        try:
            if args.fetch:
                no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with no_proxy.open(url, timeout=args.seconds or 10) as page:
                    say(page.read(1000).decode("utf-8", "replace").rstrip())
            else:
                until_ctrl_c(args.seconds)
        finally:
            say(client.stop_or_delete_port_forward(cluster, forward["id"]))


if __name__ == "__main__":
    cli(main)
