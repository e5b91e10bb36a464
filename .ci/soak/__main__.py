# SPDX-License-Identifier: Apache-2.0
"""The command line: see __init__.py."""

import argparse
import logging
import os
import random
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import soak  # noqa: E402
from soak.torment import PER_10, PER_60, Soak, descriptors, left_over  # noqa: E402
from soak.views import Requests  # noqa: E402


def listen():
    """The Requests that the module logs from now on."""
    requests, logger = Requests(), logging.getLogger("apiproxy")
    logger.addHandler(requests)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return requests


def play(seed, seconds):
    """All of it: the Soak, and what is left of it."""
    threads, fds = set(threading.enumerate()), descriptors()
    one = Soak(seed)
    one.watch()
    one.write()
    try:
        one.torment(seconds)
    finally:
        one.rest()
    one.settle()
    one.leave()
    return one, left_over(threads, fds)


def tell_views(views, requests):
    """A table of the watches; what was wrong with them."""
    wrong = []
    print("\n%-34s %6s %6s %9s %7s %7s %8s %7s %7s" % (
        "watch", "views", "errors", "requests", "in 10 s", "in 60 s", "right s", "cancel",
        "items"))
    for view in views:
        in_10, in_60, in_all = (requests.most(view.threads, seconds) for seconds in (10, 60, 1e9))
        if in_10 > PER_10 or in_60 > PER_60:
            view.wrong.append("%d requests in 10 s, %d in 60 s" % (in_10, in_60))
        if len(view.threads) != 1:
            view.wrong.append("called on %d threads" % len(view.threads))

        settled = "never" if view.settled is None else "%.1f" % view.settled
        print("%-34s %6d %6d %9d %7d %7d %8s %7.2f %7d" % (
            view.name, view.calls, view.errors, in_all, in_10, in_60, settled, view.took,
            len(view.current or ())))
        wrong += ["%s: %s" % (view.name, text) for text in view.wrong[:10]]
    return wrong


def main():
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="soak", description=soak.__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="how long there are faults")
    parser.add_argument("--seed", type=int, default=random.randrange(10000))
    options = parser.parse_args()
    if "APIPROXY_TEST_CONTROL" not in os.environ:
        parser.error("this needs a cluster: see __init__.py")

    print("seed %d, %d s" % (options.seed, options.seconds), flush=True)
    requests = listen()
    one, wrong = play(options.seed, options.seconds)
    wrong += tell_views(one.views, requests)
    for text in wrong:
        print("WRONG: " + text)
    faults = ", ".join("%s %d" % pair for pair in sorted(one.faults.items()))
    print("soak: %d s, seed %d, %d faults (%s), %d writes, %d watches, %d views, "
          "%d errors told, %s" % (
              options.seconds, options.seed, sum(one.faults.values()), faults, one.written,
              len(one.views), sum(view.calls for view in one.views),
              sum(view.errors for view in one.views),
              "%d WRONG" % len(wrong) if wrong else "nothing wrong"))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
