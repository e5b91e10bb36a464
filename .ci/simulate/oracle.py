# SPDX-License-Identifier: Apache-2.0
"""The oracle: the callbacks of the watch, and whether they may be called with what they get."""

import json
import time

import apiproxy

from .store import sign


def describe(items):
    """A view in a few words."""
    words = ["%s@%s" % (item["metadata"]["uid"], item["metadata"]["resourceVersion"])
             for item in items]
    return " ".join(words) or "(empty)"


class Oracle:
    """What was shown and told so far.

    cancel  cancels the watch
    views, errors, calls  how many there were
    shown   the signature of the last view;  last  the earliest state that it may be
    lost    an event was withheld: until the next list, views are wrong and not judged
    kept    (object, its JSON) of all that was shown
    """

    def __init__(self, stage, store):
        self._stage, self._plan, self._store = stage, stage.plan, store
        self.cancel = lambda: None
        self.views, self.errors, self.calls = 0, 0, 0
        self.shown, self.last, self.lost, self.kept = None, 0, False, []

    def view(self, items):
        """The callback of the watch."""
        with self._stage.lock:
            mood = self._note_view(items)
        if self._plan.kind != "item":
            items.clear()  # it is ours

        if mood == "slow":
            time.sleep(0.02)
        elif mood == "exit":
            raise SystemExit("simulated")
        elif mood:
            raise ValueError("simulated")

    def _note_view(self, items):
        stage, plan = self._stage, self._plan
        self.calls += 1
        self.views += 1
        self._store.is_shown = True
        if stage.over:
            stage.problem("O7: a view after cancel")
        if plan.kind == "item":
            items = [] if items.get("actionType") == "DELETED" else [items]

        stage.note("view", describe(items))
        self._judge(items)
        self.shown = sign(items)
        self.kept += [(item, json.dumps(item, sort_keys=True)) for item in items]
        if plan.cancel == "inside" and self.views == plan.cancel_at:
            self.cancel()
            stage.over = True
            stage.note("cancelled inside")
        return plan.moods[self.views % len(plan.moods)]

    def _judge(self, items):
        stage, plan, shown = self._stage, self._plan, sign(items)
        if len({item["metadata"]["uid"] for item in items}) != len(items):
            stage.problem("O3: an object twice")

        states = [at for at in self._store.where.get(shown, ()) if at >= self.last]
        if states and not self.lost:
            self.last = states[0]
        elif not self.lost and not self._store.epoch:
            is_known = shown in self._store.where
            what = "O4: an older state" if is_known else "O4: not a state of the server,"
            stage.problem(what, describe(items))

        if shown == self.shown and plan.kind != "limit" and not self.lost:
            stage.problem("O9: the same view again")
        if plan.kind == "limit":
            times = [item["metadata"]["creationTimestamp"] for item in items]
            if times != sorted(times, reverse=True):
                stage.problem("O4: not the newest first")

    def error(self, error, cancel):
        """The other callback."""
        stage = self._stage
        with stage.lock:
            stage.note("error", repr(error)[:150])
            self.calls += 1
            self.errors += 1
            if stage.over:
                stage.problem("O7: an error after cancel")
            if not isinstance(error, apiproxy.ApiError) or not callable(cancel):
                stage.problem("O8: err_cb got", repr(error), repr(cancel))

    # -- at the end

    def is_right(self):
        """Whether the last view is the server's state."""
        return bool(self.views) and self.shown == self._store.history[-1]

    def check_kept(self):
        """An object never changes after it was shown."""
        for item, text in self.kept:
            if json.dumps(item, sort_keys=True) != text:
                self._stage.problem("O9: an object was changed after it was shown:", text)
                return
