# SPDX-License-Identifier: Apache-2.0
"""The mutants: each is the module with one text in place of another.

A text has to be there exactly once. What has to notice is the simulation (SIM), directed tests (for
`pytest -k`), or both. Those with a number are from the list of 14 that a watch has to be proof
against. Its "no rewind probe" has no counterpart, since there is no probe: the relist now and then
does its work.
"""

from typing import NamedTuple, Tuple

SIM = "the simulation"


class Stale(Exception):
    """A mutant, or what has to notice it, is no longer there."""


class Mutant(NamedTuple):
    """What it is, the text, what stands there instead, and what has to notice."""

    what: str
    old: str
    new: str
    notices: Tuple[str, ...]

    def apply(self, text):
        """The module with it."""
        if text.count(self.old) != 1:
            raise Stale("its text is there %d times" % text.count(self.old))
        return text.replace(self.old, self.new)


WATCHING = {
    "resume-from-list": Mutant(
        "1: watch again from the version of the list",
        "if version and not is_older(version, self._version):",
        "if self._version is None:",
        (SIM,)),
    "swallow-error": Mutant(
        "2: ERROR events are passed over",
        """        if action == "ERROR":
            raise self._error(item)
""",
        """        if action == "ERROR":
            return
""",
        (SIM,)),
    "wait-after-error": Mutant(
        "3: after a 410 event wait for the server to close",
        """        if code == 410 or reason in ("Expired", "Gone"):
            return _Gone()
""",
        """        if code == 410 or reason in ("Expired", "Gone"):
            self._list_at = 0.0
            return TimeoutError()
""",
        (SIM,)),
    "ghosts": Mutant(
        "4: a relist merges",
        "        fresh = distinct_keys(items)\n",
        "        fresh = distinct_keys(self._items)\n        fresh.update(distinct_keys(items))\n",
        (SIM,)),
    "list-from-cache": Mutant(
        "5: lists with resourceVersion=0",
        "        params = dict(self._params)\n",
        """        params = dict(self._params, resourceVersion="0")\n""",
        (SIM,)),
    "no-deadline": Mutant(
        "6: a watch may outlive its timeout",
        "end = min(opened + lasts + self._settings.watch_grace, self._list_at)",
        "end = self._list_at",
        (SIM,)),
    "no-backoff": Mutant(
        "7: try again at once",
        "        return min(self._cap, wait) * random.uniform(0.5, 1)",
        "        return 0 * min(self._cap, wait) * random.uniform(0.5, 1)",
        (SIM,)),
    "reset-on-101": Mutant(
        "8: a 101 resets the waits",
        "        opened = time.monotonic()\n        end = min(opened",
        "        opened = time.monotonic()\n        self._backoff.reset()\n"
        "        end = min(opened",
        (SIM,)),
    "skip-corrupt": Mutant(
        "9: messages that can't be read are passed over",
        "        for event in parse_events(message):\n",
        """        try:
            events = parse_events(message)
        except (ValueError, KeyError, TypeError):
            events = []
        for event in events:
""",
        (SIM,)),
    "trust-short": Mutant(
        "10: a watch that ended at once is resumed",
        "        early = not self._heard and lasted < ",
        "        early = False and lasted < ",
        (SIM,)),
    "reject-lower": Mutant(
        "11: a list of a lower version is refused",
        "        version, changed = self._fetch_all()\n",
        """        version, changed = self._fetch_all()
        if is_older(version, self._version):
            raise ApiError(200, "lower")
""",
        (SIM,)),
    "no-resync": Mutant(
        "12: no relist now and then",
        "self._list_at = time.monotonic() + self._settings.resync",
        "self._list_at = 1e9 + self._settings.resync",
        (SIM,)),
    "ignore-http-410": Mutant(
        "13: a 410 to the handshake is a refusal as any other",
        "            if error.status == 410:\n                raise _Gone() from error\n"
        "            if error.status == 405:",
        "            if error.status == 405:",
        (SIM,)),
    "ignore-deleted": Mutant(
        "14: DELETED is passed over",
        """        if action == "DELETED":
            return self._delete(key, place, version)
""",
        """        if action == "DELETED":
            return False
""",
        (SIM,)),
    "ignore-bookmarks": Mutant(
        "a BOOKMARK's version is not taken",
        "if version and not is_older(version, self._version):",
        """if version and action != "BOOKMARK" and not is_older(version, self._version):""",
        ("dead_peer_is_found",)),
    "no-guard": Mutant(
        "older events are applied",
        "        if is_older(version, last or self._listed):\n",
        "        if False:\n",
        (SIM, "collection_only_moves_forward")),
    "no-tombstones": Mutant(
        "deletions are forgotten at once",
        "        self._deleted[key] = version\n",
        "",
        (SIM,)),
    "merge-event": Mutant(
        "an event changes the object that was shown",
        "            self._items[index] = item  #",
        "            self._items[index].update(item)  #",
        (SIM,)),
    "show-always": Mutant(
        "a relist is shown though nothing changed",
        "        if changed:\n            self._show()\n",
        "        self._show()\n",
        (SIM,)),
    "limit-any": Mutant(
        "limit takes any objects",
        "        return newest_first(item), old[1]",
        """        return "", old[1]""",
        (SIM,)),
    "never-relist": Mutant(
        "three failures at one version change nothing",
        "        if self._failures >= MAX_FAILURES:\n",
        "        if False:\n",
        ("third_error_at_one_version",)),
    "retry-after": Mutant(
        "Retry-After is passed over",
        "after = min(error.retry_after or 0.0, self._settings.max_retry_after)",
        "after = 0.0",
        (SIM,)),
    "no-rate": Mutant(
        "no limit of requests",
        "        self.scope.wait(self._rate.take())\n",
        "        pass\n",
        (SIM,)),
    "loud-routine": Mutant(
        "a close without a code is an error",
        "frozenset((NORMAL, GOING_AWAY, NO_CODE, ABNORMAL, RESTART))",
        "frozenset((NORMAL, GOING_AWAY, ABNORMAL, RESTART))",
        (SIM,)),
    "silent-reset": Mutant(
        "a reset connection is a routine end",
        "closed.code in ROUTINE and not closed.__cause__",
        "closed.code in ROUTINE",
        (SIM,)),
    "page-token": Mutant(
        "a token that goes round is followed",
        "            if token in tokens:\n",
        "            if False:\n",
        ("partial_list",)),
    "inconsistent": Mutant(
        "a 410 between pages is an error",
        "                if error.status == 410 and len(tokens) > 1:\n",
        "                if error.status == 999:\n",
        (SIM,)),
    "open-after-watch": Mutant(
        "the connection of a watch that ended stays open",
        "        finally:\n            socket.abort()\n            self.scope.hold(None)\n",
        "        finally:\n            self.__dict__.setdefault('kept', []).append(socket)\n"
        "            self.scope.hold(None)\n",
        (SIM,)),
}

CANCELLING = {
    "cancel-leaves-open": Mutant(
        "cancel closes nothing",
        "            if self._close:\n                self._close()\n",
        "            pass\n",
        (SIM, "cancel_ends_every_stage")),
    "cancel-too-early": Mutant(
        "what is made after cancel is not closed",
        "            if close and self.is_set:\n",
        "            if False:\n",
        ("after_a_scope_is_cancelled",)),
    "cancel-no-shutdown": Mutant(
        "a socket is closed, but nobody woken",
        "        sock.shutdown(how)\n",
        "        pass\n",
        (SIM,)),
    "call-after-cancel": Mutant(
        "callbacks run after cancel",
        "        with self._gate:\n            if not self.scope.cancelled:\n",
        "        with self._gate:\n            if True:\n",
        ("cancel_inside_a_callback",)),
    "cancel-does-not-wait": Mutant(
        "cancel waits for nobody",
        "        task.join(end)\n",
        "        pass\n",
        (SIM, "cancel_waits_for_a_running_callback")),
    "cancel-in-callback": Mutant(
        "cancel inside a callback waits for itself",
        "        if threading.current_thread() is self._thread:\n            return\n",
        "",
        ("cancel_inside_a_callback",)),
    "cancel-only-closes": Mutant(
        "cancel ends the connection, not the stream",
        "        self.is_set = True\n",
        "        pass\n",
        (SIM,)),
    "exit-ends": Mutant(
        "a callback that raises SystemExit ends the stream",
        "except BaseException:  # SystemExit too",
        "except Exception:  # SystemExit too",
        (SIM,)),
}

WEBSOCKET = {
    "no-mask": Mutant(
        "frames leave unmasked",
        "    return apply_mask(payload, key, head + key)\n",
        "    return head + key + bytes(payload)\n",
        (SIM, "big_message")),
    "any-accept": Mutant(
        "any Sec-WebSocket-Accept will do",
        """headers.get_all("Sec-WebSocket-Accept") == [accept])""",
        """headers.get_all("Sec-WebSocket-Accept") != [])""",
        ("handshake_is_accepted",)),
    "any-close-code": Mutant(
        "any close code is legal",
        "    return 1000 <= code <= 1003 or",
        "    return True or",
        ("close_payload",)),
    "no-pong": Mutant(
        "pings are not answered",
        "            self._control_frame(PONG, payload)",
        "            pass",
        (SIM,)),
    "no-silence-limit": Mutant(
        "a silent peer is never given up",
        "                if self._pinged:\n                    cause",
        "                if False:\n                    cause",
        (SIM,)),
    "life-ignored": Mutant(
        "bytes that are no message are no sign of life",
        "                self._silence, self._pinged = 0.0, False\n",
        "                pass\n",
        ("is_a_sign_of_life",)),
    "no-close-echo": Mutant(
        "a close frame is not answered",
        "            if not self._close_sent:\n                self._close_sent",
        "            if False:\n                self._close_sent",
        ("close_beside_a_reader",)),
    "any-size": Mutant(
        "no limit of a message",
        "            if size > room:\n",
        "            if False:\n",
        ("illegal_frame",)),
    "alike-by-size": Mutant(
        "fragments count as alike by their length alone: the last of a message too",
        "in reversed(range(start, body)):",
        "in reversed(range(start + 1, body)):",
        ("fragment or illegal_frame",)),
    "old-fragments": Mutant(
        "a fragmented message begins with the one before",
        "text, self._text = self._text.getvalue(), io.StringIO()",
        "text = self._text.getvalue()",
        ("messages_are_the_same",)),
    "bad-utf8": Mutant(
        "text need not be UTF-8",
        """codecs.utf_8_decode(buffer[body:body + size], "strict", True)""",
        """codecs.utf_8_decode(buffer[body:body + size], "replace", True)""",
        ("illegal_frame",)),
    "half-character": Mutant(
        "text may end within a character",
        """"strict", done and self._fin)""",
        """"strict", False)""",
        ("illegal_frame",)),
    "control-fragments": Mutant(
        "control frames may be fragmented",
        r'_FIRST_BYTES = b"\x00',
        r'_FIRST_BYTES = b"\x08\x09\x00',
        ("illegal_frame",)),
    "interleaved": Mutant(
        "a message may begin inside another",
        "            if bool(opcode) == bool(self._opcode):",
        "            if not opcode and not self._opcode:",
        ("illegal_frame",)),
    "reserved-bits": Mutant(
        "reserved bits are passed over",
        "if first not in _FIRST_BYTES",
        "if first & 0x8F not in _FIRST_BYTES",
        (SIM,)),
}

GROUPS = {"watching": WATCHING, "cancelling": CANCELLING, "websocket": WEBSOCKET}
MUTANTS = {name: mutant for group in GROUPS.values() for name, mutant in group.items()}
