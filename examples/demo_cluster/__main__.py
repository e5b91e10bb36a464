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
from demo_cluster.resources import NEWEST, OLDEST  # noqa: E402


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo_cluster",
        description="Kubernetes clusters in memory, behind the address of a Headlamp server.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=int, default=4466, help="port to listen on (default %(default)s)")
    add("--cluster", action="append", help="name of a cluster; repeat for several (default: demo)")
    add(
        "--headlamp",
        choices=("2024", "2026"),
        default="2026",
        help="age of Headlamp: May 2024, or 0.45 of August 2026 (default %(default)s)",
    )
    add(
        "--kubernetes",
        choices=["1.%d" % minor for minor in range(OLDEST, NEWEST + 1)],
        metavar="VERSION",
        default="1.%d" % NEWEST,
        help="1.%d to 1.%d (default %%(default)s)" % (OLDEST, NEWEST),
    )
    add("--backend-token", default="", help="token for the routes of Headlamp that want one")
    add("--cache", action="store_true", help="answer from a cache, as Headlamp 0.45 can")
    add("--quiet", action="store_true", help="change nothing by itself")
    return parser.parse_args()


def main() -> None:
    """Run until Ctrl-C."""
    chosen = options()
    clusters = chosen.cluster or ["demo"]
    demo = DemoCluster(
        clusters,
        chosen.host,
        chosen.port,
        headlamp=chosen.headlamp,
        version=chosen.kubernetes,
        backend_token=chosen.backend_token,
        cache=chosen.cache,
        live=not chosen.quiet,
    )
    try:
        demo.start()
    except OSError as error:
        sys.exit("demo_cluster: %s:%d: %s" % (chosen.host, chosen.port, error.strerror))

    with contextlib.suppress(KeyboardInterrupt):
        address = "%s/clusters/%s" % (demo.url, clusters[0])
        print("Serving %s at %s. Try:\n" % (", ".join(clusters), demo.url))
        print("    curl '%s/api/v1/namespaces/demo-shop/pods?limit=1'" % address)
        print("    kubectl --server=%s get pods --all-namespaces --watch\n" % address)
        print("Ctrl-C ends it.", flush=True)
        while True:
            time.sleep(3600)
    demo.stop()


if __name__ == "__main__":
    main()
