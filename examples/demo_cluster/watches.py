# SPDX-License-Identifier: Apache-2.0
"""Lists that go on.

A watch reads the store's log at its own pace: a batch under the lock, then sends it without. One
that falls out of the log is hung up on, as a slow one is in real life.
"""

import random
import time
from typing import List

from .bell import Bell
from .connections import Connection, Request
from .refusals import expired, not_allowed
from .settings import Settings
from .store import Entry, Event, Store, with_version
from .tables import table, wants_table
from .targets import Target, check_match, parse_int, parse_version, selector_for
from .values import dumps
from .websockets import open_stream


class Watch:
    """One watch: made under the store's lock, then run by its connection's thread."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        target: Target,
        protocols: List[str],
        request: Request,
    ) -> None:
        if "watch" not in target.resource.verbs:
            raise not_allowed()
        self._settings, self._store, self._request, self._protocols = (
            settings,
            store,
            request,
            protocols,
        )
        self._resource, self._namespace = target.resource, target.namespace
        self._matches = selector_for(target, request)
        self._version = parse_version(request.param("resourceVersion"))
        check_match(request, watch=True)
        seconds = parse_int(request.param("timeoutSeconds")) or random.uniform(1800, 3600)
        self._deadline = time.monotonic() + seconds
        self._bookmarks = request.flag("allowWatchBookmarks")
        self._next_bookmark = self._bookmark_after(time.monotonic())
        self._first: List[str] = []
        self._over = False
        if self._version == 0:
            self._version = store.resource_version
            entries = store.entries(self._resource, self._namespace)
            self._first = [
                self._line("ADDED", entry) for _, entry in entries if self._matches(entry.body)
            ]
        elif self._version < store.oldest:
            message = "too old resource version: %d (%d)" % (self._version, store.oldest)
            self._first = ['{"type":"ERROR","object":%s}\n' % dumps(expired(message).status)]
            self._over = True
        self._told = self._version  # the newest resourceVersion that the client knows

    def run(self, connection: Connection) -> None:
        stream = open_stream(connection, self._request, self._protocols)
        bell = Bell()
        connection.watching = True
        try:
            with self._store.told(bell):
                stream.send(self._first)
                while not self._over:
                    stream.send(self._news(bell))
                    if not self._over:
                        until = min(
                            self._deadline,
                            self._next_bookmark if self._bookmarks else self._deadline,
                        )
                        stream.wait(until - time.monotonic(), bell)
            stream.finish()
        finally:
            connection.watching = False
            connection.forget(bell)
            bell.close()

    def _news(self, bell: Bell) -> List[str]:
        """The lines for what happened since the last call; sets _over when no more will come."""
        now = time.monotonic()
        with self._store.lock:
            bell.clear()
            current = self._store.resource_version
            behind = self._version < self._store.start
            events = [] if behind else self._store.events_after(self._version)
            resource = self._resource
            served = (
                self._store.resources.get((resource.group, resource.version, resource.plural))
                == resource
            )
        self._over = behind or not served or now >= self._deadline
        lines = [line for line in map(self._event, events) if line]
        if lines:
            self._told = current
        self._version = max(self._version, current)  # one from the future waits until it is reached
        if self._bookmarks and now >= self._next_bookmark:
            self._next_bookmark = self._bookmark_after(now)
            if current > self._told:  # never without something newer, as in 1.20
                self._told = current
                lines.append(self._bookmark(current))
        return lines

    def _bookmark_after(self, now: float) -> float:
        """When the next one is due: at the interval, and two seconds before the end."""
        regular, near_end = now + self._settings.bookmark_interval, self._deadline - 2
        return near_end if now < near_end < regular else regular

    def _event(self, event: Event) -> str:
        """One write as this watch sees it: added or deleted is what enters or leaves."""
        if event.resource.storage != self._resource.storage or self._namespace not in (
            "",
            event.key[0],
        ):
            return ""
        was = event.old is not None and self._matches(event.old.body)
        if event.new is not None and self._matches(event.new.body):
            return self._line("MODIFIED" if was else "ADDED", event.new)
        if was and event.old is not None:
            return self._line("DELETED", event.gone or with_version(event.old, event.version))
        return ""

    def _line(self, kind: str, entry: Entry) -> str:
        if wants_table(self._request):
            shown = dumps(table(self._resource, [entry.body], entry.body["metadata"]))
        else:
            shown = entry.text(self._resource)
        return '{"type":"%s","object":%s}\n' % (kind, shown)

    def _bookmark(self, version: int) -> str:
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        shown = {
            "kind": self._resource.kind,
            "apiVersion": self._resource.api_version,
            "metadata": metadata,
        }
        return '{"type":"BOOKMARK","object":%s}\n' % dumps(shown)
