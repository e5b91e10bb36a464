# SPDX-License-Identifier: Apache-2.0
"""The store: objects, their versions, and every state that there ever was."""

import json

NAMES = "abcdef"


def sign(items):
    """What tells one state from another: every object as it is, but for its actionType."""
    return frozenset(
        json.dumps({key: item[key] for key in item if key != "actionType"}, sort_keys=True)
        for item in items)


class Store:
    """Objects by name, and what they were.

    version    of the newest change;  window  the oldest version that a watch may begin at
    log        [(version, object before, object after)], None where there was or is none
    history    the signature of every state;  where  {signature: its indexes in history}
    dropped    versions of events that nobody gets
    epoch      counts how often it went back in time
    is_shown   the client has shown a view: before it, the only object watched stays there
    """

    def __init__(self, stage):
        self._stage, self._plan = stage, stage.plan
        self.version, self.window, self.epoch = 10, 0, 0
        self.state, self.log, self._serial = {}, [], 0
        self.history, self.where, self.dropped = [], {}, set()
        self.is_shown = False
        if self._plan.kind == "item":
            self.change(0.0, "a")
        self._note_state()

    def change(self, dice, name=None):
        """One object is made, changed, relabelled, or deleted, perhaps to be made anew at once.

        `dice`, from 0 to 1, says which and how; what is made anew has another uid.
        """
        with self._stage.lock:
            name = name or NAMES[int(dice * 600) % 6]
            before, what = self.state.get(name), int(dice * 1e4) % 10
            if self._plan.kind == "item" and before and not self.is_shown:
                return  # the first GET has to find it

            if before and what < 4:
                self._write(name, before, None)
                before = None
                if what < 2:
                    return
            self._serial += 1
            is_relabelled = what != 9 or not before
            labels = {"app": "xy"[int(dice * 1e5) % 2]} if is_relabelled else None
            self._write(name, before, self._object(name, before, labels))

    def _object(self, name, before, labels):
        old = before["metadata"] if before else {
            "uid": "%s-%d" % (name, self._serial),
            "creationTimestamp": "2026-01-01T00:00:00.%06dZ" % self._serial}
        metadata = {"name": name, "labels": labels or old["labels"], "uid": old["uid"]}
        metadata["creationTimestamp"] = old["creationTimestamp"]
        data = {"n": self._serial, "text": "\u20ac" * (self._serial % 7)}
        return {"kind": "Thing", "apiVersion": "v1", "data": data, "metadata": metadata}

    def _write(self, name, before, after):
        self.version += self._plan.chance.choice((1, 1, 1, 5))  # other resources count too
        if after:
            after["metadata"]["resourceVersion"] = str(self.version)
            self.state[name] = after
        else:
            del self.state[name]
        self.log.append((self.version, before, after))

        how = "deleted" if not after else "made" if not before else "changed"
        self._stage.note("store", self.version, name, how, (after or before)["metadata"]["uid"])
        if self.history:
            self._note_state()

    def is_wanted(self, item):
        """Whether the watch is for this object."""
        if not item:
            return False
        if self._plan.kind == "item":
            return item["metadata"]["name"] == "a"
        return self._plan.kind != "selector" or item["metadata"]["labels"]["app"] == "x"

    def wanted(self):
        """The objects that a list has now."""
        return [item for item in self.state.values() if self.is_wanted(item)]

    def _note_state(self):
        items = self.wanted()
        if self._plan.kind == "limit":
            items.sort(key=lambda item: item["metadata"]["creationTimestamp"])
            items = items[-self._plan.limit:]
        self.history.append(sign(items))
        self.where.setdefault(self.history[-1], []).append(len(self.history) - 1)

    def drop(self, dice):
        """Object "a" changes, and nobody gets the events of it."""
        known = len(self.log)
        self.change(dice, "a")
        self.dropped.update(version for version, _, _ in self.log[known:])

    def rewind(self, steps):
        """The server is restored from a backup: versions go back, and connections end."""
        with self._stage.lock:
            del self.log[max(0, len(self.log) - steps):]
            self.version, self.state = self.log[-1][0] if self.log else 10, {}
            for _, before, after in self.log:
                self.state.pop((before or after)["metadata"]["name"], None)
                if after:
                    self.state[after["metadata"]["name"]] = after
            self.window = min(self.window, self.version)
            self.epoch += 1
            self._note_state()
