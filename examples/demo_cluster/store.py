# SPDX-License-Identifier: Apache-2.0
"""One cluster's objects, their history, and who is told.

An Entry never changes, so it may be read without the lock. Every write appends one Event and takes
the next resourceVersion; Store.lock guards all of it, is never held while anything is sent, and
wakes whoever waits.
"""

import collections
import contextlib
import copy
import threading
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Set,
    Tuple,
)

from .bell import Bell
from .defaults import new_body
from .resources import NEWEST, Resource, built_in
from .values import Key, Object, dumps


class Entry:
    """One state of one object: its body without kind and apiVersion, which depend on who asks."""

    __slots__ = ("body", "_rest")

    def __init__(self, body: Object) -> None:
        self.body = body
        self._rest = ""

    def text(self, resource: Optional[Resource] = None) -> str:
        """As JSON, made once; with kind and apiVersion where a resource is given."""
        if not self._rest:
            self._rest = dumps(self.body)[1:]
        if resource is None:
            return "{" + self._rest
        return '{"kind":"%s","apiVersion":"%s",%s' % (
            resource.kind,
            resource.api_version,
            self._rest,
        )


class Event(NamedTuple):
    """One write. A deletion has no `new`; `gone` is the last state with the deletion's version."""

    version: int
    resource: Resource
    key: Key
    old: Optional[Entry]
    new: Optional[Entry]
    gone: Optional[Entry]


def with_version(entry: Entry, version: int) -> Entry:
    return Entry(
        dict(entry.body, metadata=dict(entry.body["metadata"], resourceVersion=str(version)))
    )


class Store:
    """The objects of one cluster, and what happened to them."""

    history = 10000  # events kept for watches that come back

    def __init__(self, name: str, minor: int = NEWEST) -> None:
        self.name = name
        self.minor = minor  # 20 for Kubernetes 1.20
        self.lock = threading.Condition(threading.RLock())
        self.resource_version = 0
        self.compacted = 0  # watches from before this one are refused
        self.resources = built_in(minor)
        self.issued: Dict[str, float] = {}  # tokens made by TokenRequest, until when
        self._objects: Dict[Tuple[str, str], Dict[Key, Entry]] = collections.defaultdict(dict)
        self._log: List[Event] = []  # without gaps, up to resource_version
        self._bells: Set[Bell] = set()
        self._depth = 0
        self._unsettled: Deque[Event] = collections.deque()
        self.react: Optional[Callable[[Event], None]] = None  # what controllers do about a write
        self.notice: Optional[Callable[[Event], None]] = None  # who else hears of each write

    # Reading

    def get(self, resource: Resource, key: Key) -> Optional[Entry]:
        return self._objects[resource.storage].get(key)

    def entries(
        self, resource: Resource, namespace: str = "", version: Optional[int] = None
    ) -> List[Tuple[Key, Entry]]:
        """All of a resource in the order of their keys, now or as of `version`."""
        with self.lock:
            objects = self._objects[resource.storage]
            if version is not None and version < self.resource_version:
                objects = dict(objects)
                for event in reversed(self._log[version - self.start :]):
                    if event.resource.storage == resource.storage:
                        objects.pop(event.key, None)
                        if event.old is not None:
                            objects[event.key] = event.old
            return sorted(
                (key, entry)
                for key, entry in objects.items()
                if not namespace or key[0] == namespace
            )

    @property
    def start(self) -> int:  # the log begins after this resourceVersion
        return self.resource_version - len(self._log)

    @property
    def oldest(self) -> int:
        return max(self.start, self.compacted)

    def events_after(self, version: int) -> List[Event]:
        """What happened since; `version` is not older than `oldest`."""
        return self._log[max(0, version - self.start) :]

    @contextlib.contextmanager
    def told(self, bell: Bell) -> Iterator[None]:
        """While inside, `bell` rings after every change."""
        with self.lock:
            self._bells.add(bell)
        try:
            yield
        finally:
            with self.lock:
                self._bells.discard(bell)

    # Writing

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Holds the lock; at the end of the outermost the controllers act and the bells ring."""
        with self.lock:
            self._depth += 1
            try:
                yield
                while self._depth == 1 and self._unsettled and self.react:
                    self.react(self._unsettled.popleft())
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._unsettled.clear()
                    self.lock.notify_all()
                    for bell in self._bells:
                        bell.ring()

    def put(self, resource: Resource, key: Key, body: Object) -> Entry:
        """Make `body` the state of `key`. A body equal to the present state changes nothing."""
        old = self.get(resource, key)
        if old is not None:
            body["metadata"]["resourceVersion"] = old.body["metadata"]["resourceVersion"]
            if body == old.body:
                return old
        body["metadata"]["resourceVersion"] = str(self.resource_version + 1)
        entry = Entry(body)
        self._objects[resource.storage][key] = entry
        self._append(Event(self.resource_version + 1, resource, key, old, entry, None))
        return entry

    def remove(self, resource: Resource, key: Key) -> Entry:
        old = self._objects[resource.storage].pop(key)
        gone = with_version(old, self.resource_version + 1)
        self._append(Event(self.resource_version + 1, resource, key, old, None, gone))
        return gone

    def _append(self, event: Event) -> None:
        assert self._depth, "writes happen inside changing()"
        self.resource_version = event.version
        self._log.append(event)
        if len(self._log) > 2 * self.history:
            del self._log[: -self.history]
        self._unsettled.append(event)
        if self.notice is not None:
            self.notice(event)

    def compact(self) -> None:
        """Forget the past: older resourceVersions and continue tokens answer 410 from now on."""
        with self.lock:
            self.compacted = self.resource_version

    def add(self, resource: Resource, namespace: str, body: Object) -> Entry:
        """Put a new object, with the metadata that a new one gets."""
        body = new_body(resource, namespace, body, self.minor)
        with self.changing():
            return self.put(resource, (namespace, body["metadata"]["name"]), body)

    def edit(self, resource: Resource, key: Key, change: Callable[[Object], Any]) -> None:
        """Let `change` alter a copy of the object, and put that; nothing if it is gone."""
        with self.changing():
            old = self.get(resource, key)
            if old is not None:
                body = copy.deepcopy(old.body)
                change(body)
                self.put(resource, key, body)

    # Custom resources

    def serves(self, resource: Resource) -> bool:
        """Whether this is still what stands at its address."""
        key = resource.group, resource.version, resource.plural
        return self.resources.get(key) == resource

    def serve(self, crd: Object) -> List[Resource]:
        """The resources that a CustomResourceDefinition stands for."""
        spec, names = crd["spec"], crd["spec"]["names"]
        return [
            Resource(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec["scope"] == "Namespaced",
                tuple(names.get("shortNames") or ()),
                tuple(version.get("subresources") or ()),
                True,
                names.get("listKind") or names["kind"] + "List",
            )
            for version in spec["versions"]
            if version.get("served")
        ]
