# SPDX-License-Identifier: Apache-2.0
"""What a watch has shown, and the requests that it sent."""

import logging
import threading
import time

import apiproxy


class Requests(logging.Handler):
    """When each thread sent a request, as the module logs it: a watch has a thread of its own."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self._times = {}  # by thread: monotonic times

    def emit(self, record):
        """Once more when a kept connection was found closed: then the request is sent again."""
        text = record.getMessage()
        if text.startswith(">") or "closed meanwhile" in text:
            self._times.setdefault(record.thread, []).append(time.monotonic())

    def most(self, threads, seconds):
        """The most requests of these threads in any window of `seconds`."""
        times = sorted(when for thread in threads for when in self._times.get(thread, []))
        first, most = 0, 0
        for last, when in enumerate(times):
            while times[first] < when - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


class View:
    """What one watch has shown, and what was wrong with it.

    path, params      of the list that has to say the same in the end
    selective         objects may leave it and come back
    current           {uid: resourceVersion}, as shown last;  newest  the same of all ever shown
    calls, errors, statuses, threads   how often it was called, and on which threads
    cancel, is_quiet  the function that cancels; nothing may be called any more
    took, settled     seconds that the cancel took, and until the view was right
    """

    def __init__(self, name, path, params=None, selective=False):
        self.name, self.path, self.params = name, path, params
        self.selective = selective
        self.wrong = []
        self.current, self.newest = None, {}
        self._gone = set()  # uids that were shown, and then not
        self.calls, self.errors, self.statuses, self.threads = 0, 0, {}, set()
        self.cancel, self.is_quiet = None, False
        self.took, self.settled = 0.0, None

    def items(self, items):
        """The callback of a list."""
        self.threads.add(threading.get_ident())
        self.calls += 1
        if self.is_quiet:
            self.wrong.append("called after cancel")

        now = {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in items}
        names = {item["metadata"]["name"] for item in items}
        if not len(items) == len(now) == len(names):
            self.wrong.append("an object twice: %d items, %d uids, %d names" % (
                len(items), len(now), len(names)))
        for uid, version in now.items():
            self._check_version(uid, version, self.newest.get(uid, "0"))
        self._gone = (self._gone | set(self.current or ())) - set(now)
        self.newest.update(now)
        self.current = now

    def _check_version(self, uid, version, last):
        if int(version) < int(last):
            self.wrong.append("%s went back from %s to %s" % (uid, last, version))
        may_return = self.selective and int(version) > int(last)
        if uid in self._gone and not may_return:
            self.wrong.append("%s came back at %s, after %s" % (uid, version, last))

    def item(self, item):
        """The callback of a single object."""
        self.items([] if item.get("actionType") == "DELETED" else [item])

    def error(self, error, cancel):
        """The other callback."""
        self.threads.add(threading.get_ident())
        self.errors += 1
        self.statuses[error.status] = self.statuses.get(error.status, 0) + 1
        if self.is_quiet:
            self.wrong.append("err_cb called after cancel")
        if not isinstance(error, apiproxy.ApiError):
            self.wrong.append("not an ApiError: %r" % error)
