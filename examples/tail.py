#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The logs of all pods of a deployment, across restarts and rollouts, until Ctrl-C.

    python3 examples/tail.py DEPLOYMENT [-n NAMESPACE] [--lines 10]
"""

import base64
import codecs
from typing import Any, Dict, List, Set, Tuple

from common import (
    cli, colour, connect, named, namespace_of, options, over, say, trouble, until_ctrl_c,
)

import apiproxy

SHADES = ("cyan", "green", "yellow", "blue", "magenta")
Run = Tuple[str, str, int]  # a pod, a container in it, how often that was restarted


class Tail:
    """The log of one run of a container; opened again where it was when a connection ends."""

    def __init__(self, client: apiproxy.Client, path: str, run: Run, more: str) -> None:
        self.client, self.run, self.is_over = client, run, False
        self.url = "%s/%s/log?follow=true&timestamps=true&container=%s" % ((path,) + run[:2])
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.rest = self.last = self.shown = ""  # half a line; the time of the last line
        self.client.stream(self.url + more, self.show, {"failCb": self.again})

    def again(self) -> None:
        if not over.wait(1) and not self.is_over:
            self.shown = self.last
            since = "&sinceTime=" + self.last if self.last else ""
            self.client.stream(self.url + since, self.show, {"failCb": self.again})

    def show(self, message: str) -> None:
        """Messages are base64; a line, or a character, may be cut between two of them."""
        self.rest += self.decoder.decode(base64.b64decode(message))
        *lines, self.rest = self.rest.split("\n")
        for line in lines:
            self.last, _, text = line.partition(" ")
            if self.last > self.shown:  # the server may repeat those of the last second
                say("%s %s" % (colour(SHADES[hash(self.run) % 5], self.run[0]), text))


def main() -> None:
    args = options("deployment", namespace="", lines=10)
    tails: Dict[Run, Tail] = {}
    with connect(args, live=True) as client:
        space = "namespaces/" + namespace_of(args, client)
        path, deployments = "/api/v1/%s/pods" % space, "/apis/apps/v1/%s/deployments" % space
        name = named(args, "deployment", client, deployments)

        def on_pods(pods: List[Any]) -> None:
            runs: Set[Run] = {
                (pod["metadata"]["name"], status["name"], status["restartCount"])
                for pod in pods for status in pod["status"].get("containerStatuses", [])
                if "waiting" not in status["state"]}
            for run in set(tails) - runs:
                tails.pop(run).is_over = True
            more = "" if tails else "&tailLines=%d" % args.lines
            tails.update({run: Tail(client, path, run, more) for run in runs - set(tails)})

        deployment = client.request("%s/%s" % (deployments, name))
        selector = deployment["spec"]["selector"]["matchLabels"]
        client.stream_results(path, on_pods, trouble, {"labelSelector": selector})
        until_ctrl_c(args.seconds)


if __name__ == "__main__":
    cli(main)
