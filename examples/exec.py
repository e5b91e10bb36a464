#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run a command in a pod: stdin, stdout, stderr, exit code, and the window's size.

    python3 examples/exec.py [pod] [namespace] [--command "sh -c 'echo to stderr >&2; exit 3'"] [--input "a line"]
"""

import json
import shlex
import shutil
import sys
import threading
import urllib.parse

from common import colour, connect, options, run, wait

STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)  # v4.channel.k8s.io: the first octet of each message


def main():
    given = options("pod", "namespace", command="echo hello from the pod", input="")
    with connect() as client:
        namespace = given.namespace or "demo-shop"
        pods = "/api/v1/namespaces/%s/pods" % namespace
        pod = given.pod or client.request(pods)["items"][0]["metadata"]["name"]
        query = urllib.parse.urlencode({"command": shlex.split(given.command), "stdin": bool(given.input) and "true" or "false",
                                        "stdout": "true", "stderr": "true"}, doseq=True)
        ended, result = threading.Event(), {}

        def on_message(message):
            channel, data = message[0], message[1:]
            if channel == STATUS and data:
                result.update(json.loads(data))
            elif data:
                out = sys.stderr if channel == STDERR else sys.stdout
                out.write(data.decode("utf-8", "replace"))
                out.flush()
            elif channel == STDOUT and not opened.is_set():  # the first message of a channel is empty: it is open
                opened.set()

        opened = threading.Event()
        stream = client.stream("%s/%s/exec?%s" % (pods, pod, query), on_message, {
            "additionalProtocols": ["v4.channel.k8s.io"], "failCb": ended.set})
        if wait(given.seconds or 10, opened) and not ended.is_set():
            socket = stream.get_socket()
            size = shutil.get_terminal_size()
            if socket and given.input:
                socket.send(bytes([RESIZE]) + json.dumps({"Width": size.columns, "Height": size.lines}).encode())
                socket.send(bytes([STDIN]) + given.input.encode() + b"\n")
        wait(given.seconds, ended)
        stream.cancel()
        if not result:
            sys.exit(str(stream.error or "it did not end in time"))
        code = next((int(cause["message"]) for cause in (result.get("details") or {}).get("causes", [])
                     if cause.get("reason") == "ExitCode"), 0)
        print(colour("dim", "exit code %d" % code))
        sys.exit(code)


if __name__ == "__main__":
    run(main)
