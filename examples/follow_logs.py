#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Follow a pod's log, from its last ten lines on.

    python3 examples/follow_logs.py [pod] [namespace] [--seconds 10]
"""

import base64
import codecs
import threading

from common import colour, connect, options, run, wait


def main():
    given = options("pod", "namespace")
    with connect(live=True) as client:
        namespace = given.namespace or "demo-shop"
        pods = "/api/v1/namespaces/%s/pods" % namespace
        pod = given.pod or client.request(pods)["items"][0]["metadata"]["name"]
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be cut between two messages
        ended = threading.Event()

        def show(message):  # the subprotocol base64.binary.k8s.io: each message is base64
            print(decoder.decode(base64.b64decode(message)), end="", flush=True)

        print(colour("dim", "%s/%s" % (namespace, pod)))
        client.stream("%s/%s/log?follow=true&tailLines=10" % (pods, pod), show, {"failCb": ended.set})
        wait(given.seconds, ended)


if __name__ == "__main__":
    run(main)
