#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run a command in a pod: its output, its errors, its exit code.

    python3 examples/exec.py POD [-n NAMESPACE] [--container NAME] [--command "ls -l /"]

Needs the rights to create, and since Kubernetes 1.35 also to get, pods/exec.
"""

import json
import shlex
import sys
import threading
import urllib.parse
from typing import Any, Dict, List, Tuple

from common import cli, connect, named, namespace_of, options, say

import apiproxy

STDOUT, STDERR, STATUS = 1, 2, 3  # v4.channel.k8s.io: the first byte of each message


def run(
    client: apiproxy.Client, pod: str, command: List[str], namespace: str = "default",
    container: str = "", timeout: float = 60.0,
) -> Tuple[str, str, int]:
    """(stdout, stderr, exit code) of `command` in a pod; ApiError when it can't be run there."""
    came: Dict[int, bytes] = {STDOUT: b"", STDERR: b"", STATUS: b""}
    ended = threading.Event()

    def on_message(message: Any) -> None:
        came[message[0]] = came.get(message[0], b"") + message[1:]

    query = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "true")]
    query += [("container", container)] * bool(container)
    url = "/api/v1/namespaces/%s/pods/%s/exec?%s" % (namespace, pod, urllib.parse.urlencode(query))
    stream = client.stream(url, on_message, {
        "additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})
    if not ended.wait(timeout):
        stream.cancel()
        raise TimeoutError("%s still runs in %s" % (command[0], pod))
    if not came[STATUS]:
        raise stream.error or apiproxy.ApiError(502, "the connection ended before the command")

    status: Any = json.loads(came[STATUS])
    errors = came[STDERR].decode("utf-8", "replace")
    if status.get("status") != "Success":
        causes: List[Any] = status.get("details", {}).get("causes", [])
        codes = [int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"]
        if not codes:  # it did not start, say
            errors += status.get("message", "it failed") + "\n"
        return came[STDOUT].decode("utf-8", "replace"), errors, (codes or [1])[0]
    return came[STDOUT].decode("utf-8", "replace"), errors, 0


def main() -> None:
    args = options("pod", namespace="", container="", command="echo hello from the pod")
    with connect(args) as client:
        namespace = namespace_of(args, client)
        pod = named(args, "pod", client, "/api/v1/namespaces/%s/pods" % namespace)
        stdout, stderr, code = run(client, pod, shlex.split(args.command), namespace,
                                   args.container, args.seconds or 60)
        say(stdout, end="")
        sys.stderr.write(stderr)
        sys.exit(code)


if __name__ == "__main__":
    cli(main)
