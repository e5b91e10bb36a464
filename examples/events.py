#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Events of a cluster as they come, warnings in red, until Ctrl-C.

    python3 examples/events.py [-n NAMESPACE] [--last 10]
"""

from typing import Any, Dict, List

from common import cli, colour, connect, options, say, trouble, until_ctrl_c

SHADES = {"Warning": "red", "Normal": "green"}


def when(event: Any) -> str:
    """The time of an event: where it stands depends on who wrote it."""
    series: Any = event.get("series") or {}
    times: List[Any] = [
        event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"),
        event["metadata"].get("creationTimestamp")]
    return next((str(time)[:19] for time in times if time), "")


def line(event: Any) -> str:
    """One event as text."""
    about: Any = event.get("involvedObject") or {}
    name = "%s/%s" % (about.get("kind", "?"), about.get("name", "?"))
    count = event.get("count") or 1
    return "%s  %s  %s %s%s" % (
        colour("dim", when(event)[11:] or "        "),
        colour(SHADES.get(event.get("type", ""), "yellow"), "%-20s" % event.get("reason", "?")),
        colour("cyan", name),
        event.get("message", "").strip(),
        colour("dim", " (%d times)" % count) if count > 1 else "",
    )


def main() -> None:
    args = options(namespace="", last=10)
    printed: Dict[str, str] = {}  # uid: the version that was printed

    def show(events: List[Any]) -> None:
        new = [event for event in events
               if printed.get(event["metadata"]["uid"]) != event["metadata"]["resourceVersion"]]
        for event in sorted(new, key=when)[0 if printed else -args.last:]:
            say(line(event))
        printed.clear()  # what has gone from the cluster goes from here
        printed.update((event["metadata"]["uid"], event["metadata"]["resourceVersion"])
                       for event in events)

    with connect(args, live=True) as client:
        events = client.api_factory_with_namespace("", "v1", "events")
        events.list(args.namespace, show, trouble)
        until_ctrl_c(args.seconds)


if __name__ == "__main__":
    cli(main)
