# SPDX-License-Identifier: Apache-2.0
"""The real API server of the tests: killed, started again, its etcd compacted."""

import os
import socket
import subprocess
import time
import urllib.parse


def control(what, check=True):
    """stop-api, start-api, restart or compact, which fails where it finds nothing to do."""
    if what == "restart":
        control("stop-api")
        what = "start-api"
    if what == "start-api":
        _wait_for_port()
    subprocess.run(
        [os.environ["APIPROXY_TEST_CONTROL"], what], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=check)


def _wait_for_port():
    """Until its port is free: a process that was killed holds its sockets until its last thread
    has gone, and the next one ends at once where it finds them."""
    place = urllib.parse.urlsplit(os.environ["APIPROXY_TEST_DIRECT"])
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with socket.create_server((place.hostname, place.port)):
                return
        except OSError:
            time.sleep(0.05)
