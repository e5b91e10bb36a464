#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One API client for a resource that had several API versions: whichever the server has is used.

    python3 examples/api_versions.py [--seconds 2]
"""

from common import colour, connect, options, run, wait


def main():
    given = options()
    with connect() as client:
        deployments = client.api_factory_with_namespace(  # newest first
            ("apps", "v2", "deployments"), ("apps", "v1", "deployments"), ("extensions", "v1beta1", "deployments"))

        def show(items):
            for item in items:
                print("%s %s/%s" % (colour("green", item["apiVersion"]), item["metadata"]["namespace"], item["metadata"]["name"]), flush=True)

        print("asked for %s" % ", ".join("%(group)s/%(version)s" % info for info in deployments.api_info), flush=True)
        deployments.list("", show, lambda error, cancel: print(colour("red", error)))
        wait(given.seconds or 1)


if __name__ == "__main__":
    run(main)
