# SPDX-License-Identifier: Apache-2.0
"""The command line: python3 examples/demo_cluster."""

import argparse
import contextlib
import os
import sys
import time

# Started as a folder, its modules would be found by their bare names, and the package not at all.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from demo_cluster import DemoCluster  # noqa: E402


def main() -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Kubernetes clusters in memory, behind the address of a Headlamp server."
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=4466, help="port to listen on (default %(default)s)"
    )
    parser.add_argument(
        "--cluster",
        action="append",
        help="name of a cluster; may be given several times (default: demo)",
    )
    parser.add_argument(
        "--backend-token", default="", help="token for the routes of Headlamp that want one"
    )
    parser.add_argument("--quiet", action="store_true", help="change nothing by itself")
    options = parser.parse_args()
    clusters = options.cluster or ["demo"]
    demo = DemoCluster(
        clusters,
        options.host,
        options.port,
        backend_token=options.backend_token,
        live=not options.quiet,
    )
    with demo:
        address = "%s/clusters/%s" % (demo.url, clusters[0])
        print("Serving %s at %s. Try:\n" % (", ".join(clusters), demo.url))
        print("    curl '%s/api/v1/namespaces/demo-shop/pods?limit=1'" % address)
        print("    kubectl --server=%s get pods --all-namespaces --watch\n" % address)
        print("Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
