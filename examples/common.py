# SPDX-License-Identifier: Apache-2.0
"""What the examples share: a client for the server that the environment names, or for a demo cluster.

    APIPROXY_URL      a Headlamp server, or `kubectl proxy --port=4466 --api-prefix=/clusters/dev`
    APIPROXY_CLUSTER  the cluster's name there
    APIPROXY_TOKEN    a bearer token for it, if it wants one
"""

import argparse
import calendar
import contextlib
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import apiproxy  # noqa: E402  (the copy beside this folder)

COLOURS = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
PLAIN = not sys.stdout.isatty() or "NO_COLOR" in os.environ


def colour(name, text):
    """`text` in a colour, where the terminal has any."""
    return str(text) if PLAIN else "\033[%sm%s\033[0m" % (COLOURS[name], text)


def glyphs(fancy, plain):
    """`fancy` where the terminal can show it, else `plain`."""
    try:
        fancy.encode(sys.stdout.encoding or "ascii")
        return fancy
    except UnicodeEncodeError:
        return plain


def bar(part, whole, width=20):
    """How much of `whole` is there, as a bar."""
    full, empty = glyphs("█░", "#.")
    filled = round(width * min(1.0, part / whole)) if whole else 0
    return colour("green" if part >= whole else "yellow", full * filled) + colour("dim", empty * (width - filled))


@contextlib.contextmanager
def connect(*clusters, **demo_settings):
    """A Client, closed afterwards; of several `clusters` of the demo the first is the current one."""
    url, cluster = os.environ.get("APIPROXY_URL"), os.environ.get("APIPROXY_CLUSTER", "")
    with contextlib.ExitStack() as stack:
        if not url:
            from demo_cluster import DemoCluster

            clusters = clusters or ("demo",)
            url, cluster = stack.enter_context(DemoCluster(clusters, **demo_settings)).url, clusters[0]
        client = stack.enter_context(apiproxy.Client(url, cluster=cluster))
        if os.environ.get("APIPROXY_TOKEN"):
            client.set_token(cluster, os.environ["APIPROXY_TOKEN"])
        yield client


def draw(lines):
    """Show `lines` in place of what was drawn before; one after the other where there is no terminal."""
    print(("" if PLAIN else "\033[H\033[J") + "\n".join(lines), flush=True)


def table(rows, heads):
    """`rows` of plain text in columns under `heads`; a cell may be (text, colour)."""
    cells = [[cell if isinstance(cell, tuple) else (str(cell), None) for cell in row] for row in [[(head, "dim") for head in heads]] + rows]
    widths = [max(len(row[column][0]) for row in cells) for column in range(len(heads))]
    return ["  ".join(colour(shade, text.ljust(width)) if shade else text.ljust(width)
                      for (text, shade), width in zip(row, widths)).rstrip() for row in cells]


def age(item):
    """How old an object is, as kubectl says it."""
    made = item["metadata"].get("creationTimestamp")
    if not made:
        return "?"
    seconds = int(time.time() - calendar.timegm(time.strptime(made[:19], "%Y-%m-%dT%H:%M:%S")))
    return next("%d%s" % (seconds // size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
                if seconds >= size or size == 1)


def options(*names, **defaults):
    """Command-line options; --seconds ends an example that would run until Ctrl-C."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="end after so many (default: at Ctrl-C)")
    for name in names:
        parser.add_argument(name, nargs="?")
    for name, default in defaults.items():
        parser.add_argument("--" + name, default=default, type=type(default), help="default: %(default)s")
    return parser.parse_args()


def wait(seconds, event=None):
    """Until Ctrl-C, or `event`, or for `seconds`; the callbacks run on their own threads meanwhile.

    In slices: a Ctrl-C that comes just before an endless wait begins would not end it.
    """
    event, end = event or threading.Event(), None if seconds is None else time.monotonic() + seconds
    while not event.wait(0.2) and (end is None or time.monotonic() < end):
        pass
    return event.is_set()


def run(main):
    """Run an example's main(); Ctrl-C ends it quietly, an answer from the server without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        print()
    except apiproxy.ApiError as error:
        sys.exit("%s %s: %s" % (error.method, error.url, error))
