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
b { display: inline-block; min-width: 18em; margin: 3px; padding: 5px 9px; border-radius: 5px;
    background: #1c2431; border-left: 6px solid #d9a514; font-weight: normal }
b.Running { border-color: #35a35f } b.Failed { border-color: #d44 } p { color: #f99 }
</style><h1>Pods</h1><main>waiting...</main><script>
const element = (kind, text, name) =>
  Object.assign(document.createElement(kind), {textContent: text, className: name || ""})
new EventSource("/changes").onmessage = message =>
  document.querySelector("main").replaceChildren(...JSON.parse(message.data).flatMap(
    ([cluster, pods, error]) => [
      element("h2", `${cluster}: ${pods.length} pods`), element("p", error),
      ...pods.map(([name, phase]) => element("b", name, phase))]))
</script>"""

views: Dict[str, List[Any]] = {}  # by cluster: its name, [[pod, phase], ...], what is wrong
changed = threading.Condition()


def update(cluster: str, pods: List[Any], error: str = "") -> None:
    """What a cluster's watch has to say."""
    with changed:
        views[cluster] = [cluster, pods, error]
        changed.notify_all()


class Handler(http.server.BaseHTTPRequestHandler):
    """The page, and its changes; each open page has a thread here."""

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost") or self.path not in ("/", "/changes"):
            return self.send_error(404)  # another host: it may be a page elsewhere that asks
        self.send_response(200)
        kind = "text/html" if self.path == "/" else "text/event-stream"
        self.send_header("Content-Type", kind)
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
    def on_pods(pods: List[Any]) -> None:
        update(cluster, sorted([pod["metadata"]["name"], pod["status"]["phase"]] for pod in pods))

    client.stream_results_for_cluster("/api/v1/pods", {
        "cluster": cluster, "cb": on_pods,
        "errCb": lambda error, cancel: update(cluster, views[cluster][1], str(error))})


def main() -> None:
    args = options(clusters="", port=8000)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with connect(args, "east", "west", live=True) as client:
        client.gather = 0.3  # at most three changes a second
        for cluster in chosen_clusters(args, client, "east", "west"):
            update(cluster, [])
            watch(client, cluster)
        say("open " + colour("green", "http://127.0.0.1:%d/" % server.server_address[1]))
        until_ctrl_c(args.seconds)


if __name__ == "__main__":
    cli(main)
