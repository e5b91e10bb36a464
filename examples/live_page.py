#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A web page with the pods of several clusters that moves by itself, until Ctrl-C.

    python3 examples/live_page.py [--clusters dev,prod] [--port 8000] [--kubeconfig FILE]

Server-Sent Events carry each change to every open page. Only this machine can reach it.
"""

import contextlib
import http.server
import json
import threading
from typing import Any, Dict, List

from common import chosen_clusters, cli, colour, connect, options, say, until_ctrl_c

import apiproxy

PAGE = """<!doctype html><meta charset="utf-8"><title>Pods</title><style>
body { font: 15px system-ui, sans-serif; margin: 2em; background: #10141c; color: #dde3ee }
span { display: inline-block; min-width: 18em; padding: 9px; border-left: 9px solid #d9a514 }
span.Running { border-color: #35a35f } span.Failed { border-color: #d44 } p { color: #f99 }
</style><h1>Pods</h1><main>waiting...</main><script>
const element = (kind, textContent, className = "") =>
  Object.assign(document.createElement(kind), {textContent, className})
new EventSource("/changes").onmessage = message =>
  document.querySelector("main").replaceChildren(...JSON.parse(message.data).flatMap(
    ([cluster, pods, error]) => [element("h2", `${cluster}: ${pods.length} pods`),
      element("p", error), ...pods.map(([name, phase]) => element("span", name, phase))]))
</script>"""

views: Dict[str, List[Any]] = {}  # by cluster: its name, [[pod, phase], ...], what is wrong
changed = threading.Condition()


class Handler(http.server.BaseHTTPRequestHandler):
    """The page, and its changes; each open page has a thread here."""

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost") or self.path not in ("/", "/changes"):
            return self.send_error(404)  # another host: it may be a page elsewhere that asks
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "text/event-stream")
        self.end_headers()
        with contextlib.suppress(OSError):  # the page was closed
            if self.path == "/":
                self.wfile.write(PAGE.encode())
            while self.path != "/":
                self.wfile.write(b"data: %s\n\n" % json.dumps(list(views.values())).encode())
                with changed:
                    changed.wait(10)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def watch(client: apiproxy.Client, cluster: str) -> None:
    """Keep the view of a cluster as it is, or its old one and what is wrong."""
    def show(pods: List[List[str]], error: str = "") -> None:
        with changed:
            views[cluster] = [cluster, sorted(pods), error]
            changed.notify_all()

    show([])
    client.stream_results_for_cluster("/api/v1/pods", {
        "cb": lambda pods: show([[pod["metadata"]["name"], pod["status"]["phase"]]
                                 for pod in pods]),
        "errCb": lambda error, cancel: show(views[cluster][1], str(error)), "cluster": cluster})


def main() -> None:
    args = options(clusters="", port=8000)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with connect(args, "east", "west", live=True) as client:
        client.gather = 0.3  # at most three changes a second
        for cluster in chosen_clusters(args, client, "east", "west"):
            watch(client, cluster)
        say("open " + colour("green", "http://127.0.0.1:%d/" % server.server_port))
        until_ctrl_c(args.seconds)


if __name__ == "__main__":
    cli(main)
