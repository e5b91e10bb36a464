# SPDX-License-Identifier: Apache-2.0
"""Lists that go on.

A watch reads the store's log at its own pace: a batch under the lock, then sends it without. One
that falls out of the log is hung up on, as a slow one is in real life.
"""

import random
import time
from typing import List

from .bell import Bell
from .calls import Call, check_match, parse_int, parse_version, selector_for
from .connections import Connection
from .refusals import expired, not_allowed
from .store import Entry, Event, with_version
from .tables import table, wants_table
from .values import Object, dumps
from .websockets import open_stream

INITIAL_END = "k8s.io/initial-events-end"  # marks the bookmark that ends the list in a watch


class Watch:
    """One watch: made under the store's lock, then run by its connection's thread."""

    def __init__(self, call: Call) -> None:
        if "watch" not in call.resource.verbs:
            raise not_allowed()
        self._call = call
        self._store, self._resource = call.store, call.resource
        self._matches = selector_for(call)
        self._version = parse_version(call)
        check_match(call, watch=True)
        seconds = parse_int(call.request.param("timeoutSeconds")) or random.uniform(1800, 3600)
        self._deadline = time.monotonic() + seconds
        self._bookmarks = call.request.flag("allowWatchBookmarks")
        self._next_bookmark = self._bookmark_after(time.monotonic())
        self._over = False
        self._first = self._beginning()
        self._told = self._version  # the newest resourceVersion that the client knows

    def _beginning(self) -> List[str]:
        """What is sent at once: the objects there are, or why there is nothing."""
        newer = self._store.minor >= 27 and "sendInitialEvents" in self._call.request.query
        initial = self._call.request.flag("sendInitialEvents") if newer else self._version == 0
        if initial:
            self._version = max(self._version, self._store.resource_version)
            entries = self._store.entries(self._resource, self._call.target.namespace)
            lines = [
                self._line("ADDED", entry) for _, entry in entries if self._matches(entry.body)
            ]
            if newer and self._bookmarks:
                lines.append(self._bookmark(self._version, {INITIAL_END: "true"}))
            return lines
        if self._version == 0:
            self._version = self._store.resource_version
        if self._version >= self._store.oldest:
            return []

        self._over = True
        text = "too old resource version: %d (%d)" % (self._version, self._store.oldest)
        return ['{"type":"ERROR","object":%s}\n' % dumps(expired(text).status)]

    def run(self, connection: Connection) -> None:
        stream = open_stream(connection, self._call.request, self._call.protocols)
        bell = Bell()
        connection.watching = True
        try:
            with self._store.told(bell):
                stream.send(self._first)
                while not self._over:
                    stream.send(self._news(bell))
                    if not self._over:
                        stream.wait(self._pause(), bell)
            stream.finish()
        finally:
            connection.watching = False
            connection.forget(bell)
            bell.close()

    def _pause(self) -> float:
        until = min(self._deadline, self._next_bookmark) if self._bookmarks else self._deadline
        return until - time.monotonic()

    def _news(self, bell: Bell) -> List[str]:
        """The lines for what happened since the last call; sets _over when no more will come."""
        now = time.monotonic()
        with self._store.lock:
            bell.clear()
            current = self._store.resource_version
            behind = self._version < self._store.start
            events = [] if behind else self._store.events_after(self._version)
            served = self._store.serves(self._resource)
        self._over = behind or not served or now >= self._deadline
        lines = [line for line in map(self._event, events) if line]
        if lines:
            self._told = current
        self._version = max(self._version, current)  # one from the future waits until it is reached

        if self._bookmarks and now >= self._next_bookmark:
            self._next_bookmark = self._bookmark_after(now)
            if current > self._told:  # never without something newer
                self._told = current
                lines.append(self._bookmark(current))
        return lines

    def _bookmark_after(self, now: float) -> float:
        """When the next one is due: at the interval, and two seconds before the end."""
        regular, near_end = now + self._call.settings.bookmark_interval, self._deadline - 2
        return near_end if now < near_end < regular else regular

    def _event(self, event: Event) -> str:
        """One write as this watch sees it: added or deleted is what enters or leaves."""
        if event.resource.storage != self._resource.storage:
            return ""
        if self._call.target.namespace not in ("", event.key[0]):
            return ""
        was = event.old is not None and self._matches(event.old.body)
        if event.new is not None and self._matches(event.new.body):
            return self._line("MODIFIED" if was else "ADDED", event.new)
        if was and event.old is not None:
            return self._line("DELETED", event.gone or with_version(event.old, event.version))
        return ""

    def _line(self, kind: str, entry: Entry) -> str:
        if wants_table(self._call.request):
            shown = dumps(table(self._resource, [entry.body], entry.body["metadata"]))
        else:
            shown = entry.text(self._resource)
        return '{"type":"%s","object":%s}\n' % (kind, shown)

    def _bookmark(self, version: int, annotations: Object = {}) -> str:
        metadata: Object = {"resourceVersion": str(version)}
        if self._store.minor < 34:  # since then what is zero is left out
            metadata["creationTimestamp"] = None
        if annotations:
            metadata["annotations"] = annotations
        shown = {"kind": self._resource.kind, "apiVersion": self._resource.api_version}
        return '{"type":"BOOKMARK","object":%s}\n' % dumps(dict(shown, metadata=metadata))
