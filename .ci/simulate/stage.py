# SPDX-License-Identifier: Apache-2.0
"""What all parts of a play share: the plan, a lock, what happened, and whether it is over."""

import collections
import threading
import time


class Stage:
    """One play.

    lock      guards the store, the oracle and the schedule of faults
    timeline  (seconds, text) of all that happened
    problems  what was wrong
    counts    how often each fault took place; `loud` is how many of them err_cb has to hear of
    over      nothing may be called any more
    """

    def __init__(self, plan):
        self.plan, self.lock, self.over = plan, threading.RLock(), False
        self.timeline, self.problems = [], []
        self.counts, self.loud = collections.Counter(), 0
        self._began = time.monotonic()

    def note(self, *what):
        """A line of the timeline."""
        self.timeline.append((time.monotonic() - self._began, " ".join(map(str, what))))

    def problem(self, *what):
        """Something is wrong."""
        self.problems.append(" ".join(map(str, what)))
        self.note("PROBLEM", *what)

    def hit(self, where, name, loud):
        """A fault takes place; counted before it can be noticed."""
        with self.lock:
            self.counts[where + " " + name] += 1
            self.loud += bool(loud)
            self.note("fault:", where, name, "(loud)" if loud else "")


def until(condition, patience):
    """Wait until a condition holds; False when it does not in time."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True
