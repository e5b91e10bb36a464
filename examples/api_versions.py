#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One API client for a resource that moved between API versions: what the server has is used.

    python3 examples/api_versions.py [-n NAMESPACE]
"""

import threading
from typing import Any, List

from common import cli, colour, connect, options, say, trouble, wait


def main() -> None:
    args = options(namespace="")
    shown = threading.Event()

    def show(items: List[Any]) -> None:
        for item in items:
            name = "%(namespace)s/%(name)s" % item["metadata"]
            say("%s %s" % (colour("green", item["apiVersion"]), name))
        shown.set()

    with connect(args) as client:
        budgets = client.api_factory_with_namespace(  # the newest first
            ("policy", "v2", "poddisruptionbudgets"),
            ("policy", "v1", "poddisruptionbudgets"),  # since Kubernetes 1.21
            ("policy", "v1beta1", "poddisruptionbudgets"),  # until 1.24
        )
        say("asked for " + ", ".join("%(group)s/%(version)s" % info for info in budgets.api_info))
        cancel = budgets.list(args.namespace, show, trouble)
        if wait(args.seconds or 10, shown):
            say("this server has it")
        cancel()


if __name__ == "__main__":
    cli(main)
