# SPDX-License-Identifier: Apache-2.0
"""Watches: the handshake, the events, the end, and how each goes wrong."""

import bisect
import json
import time

from wire import accept_key, frame

from .plan import EVENT

GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
BROKEN = {"kind": "Status", "code": 500, "message": "simulated"}
# Ends that are judged by how long the watch lasted.
CLOSES = (
    "close", "close 1000", "close 1001", "close 1012", "close 1011", "close 1013", "reset",
)
TICK = 0.004  # seconds between two looks at the store


def event_frame(kind, item):
    """An event as the API server sends it."""
    return frame(1, json.dumps({"type": kind, "object": item}) + "\n")


def bookmark(version):
    """The object of a BOOKMARK."""
    return {"kind": "Thing", "metadata": {"resourceVersion": str(version)}}


def good_frames(fault, kind, item, before, version):
    """The frames of an event that arrives, though oddly; None for a fault of another sort."""
    data, text = event_frame(kind, item), json.dumps({"type": kind, "object": item})
    mark = {"type": "BOOKMARK", "object": bookmark(version)}
    half, rest = text.encode()[:len(text) // 2], text.encode()[len(text) // 2:]
    ping = frame(9, b"%d" % version)
    old = before or dict(item, metadata=dict(item["metadata"], resourceVersion="5"))
    return {
        "twice": [data, data],
        "older": [data, event_frame("MODIFIED", old)],
        "bookmark": [data, frame(1, json.dumps(mark))],
        "pretty": [frame(1, json.dumps(json.loads(text), indent=2) + "\n\n")],
        "joined": [frame(1, text + "\n" + json.dumps(mark))],
        "fragments": [frame(1, half, fin=False), ping, frame(0, b"", fin=False), frame(0, rest)],
        "bytes": [data[at:at + 1] for at in range(len(data))],
        "ping": [ping, frame(10, b"x"), data],
        "compact": [data],
        "drop": [],
    }.get(fault)


def error_frames(chance):
    """ERROR events, by fault."""
    reason = chance.choice(("Expired", "Gone"))
    gone = {"kind": "Status", "code": 410, "reason": "Expired"}
    wait = {"code": 429, "details": {"retryAfterSeconds": 0}}
    return {
        "410": event_frame("ERROR", gone) + frame(8, b"\x03\xe8"),
        "410 open": event_frame("ERROR", gone),
        "410 reason": event_frame("ERROR", {"reason": reason}),
        "429": event_frame("ERROR", wait),
        "500": event_frame("ERROR", {"code": 500, "message": "simulated"}),
        "504": event_frame("ERROR", {"code": 504}),
        "no code": event_frame("ERROR", {}),
    }


def bad_frames(kind, item):
    """What can't be read, by fault."""
    text = json.dumps({"type": kind, "object": item})
    no_object = json.dumps({"type": kind, "object": None})
    no_metadata = json.dumps({"type": kind, "object": {"kind": "Thing"}})
    return {
        "not JSON": frame(1, "{"),
        "half JSON": frame(1, text[:-3]),
        "binary": frame(2, text),
        "not UTF-8": frame(1, b'"\xff"'),
        "null": frame(1, "null"),
        "no object": frame(1, no_object),
        "no metadata": frame(1, no_metadata),
        "type": frame(1, text.replace(kind, "CHANGED", 1)),
        "masked": b"\x81\x81abcdx",
        "rsv": frame(1, text, rsv=4),
        "opcode": frame(3, text),
        "long ping": frame(9, b"x" * 126),
        "continuation": frame(0, text),
        "length": b"\x81\x7f" + (1 << 62).to_bytes(8, "big"),
    }


class WatchAnswer:
    """The answer to one watch.

    after   the version that it begins at
    opened  when the 101 was sent;  heard  whether an event was, since
    """

    def __init__(self, server, link, request, query):
        self._server, self._link, self._request = server, link, request
        self._stage, self._plan, self._store = server.stage, server.plan, server.store
        self._after = int(query.get("resourceVersion", 0))
        self._lifetime = float(query.get("timeoutSeconds", 1000))
        self._heard, self._opened = False, 0.0
        link.version = self._after

    def run(self):
        """All of it; returns or raises EOFError when it has ended."""
        out, fault = self._server.now_out(), self._server.fault("watch")
        self._refuse(out, fault)
        sent, epoch = self._place(fault)
        self._open(out, fault)
        self._end_early(out, fault)
        self._follow(sent, epoch, fault)

    def _hear(self):
        self._heard, self._server.early = True, 0

    def _ends_early(self):
        """It ends now, in a routine way: whether that is loud.

        One that ended at once, without an event, is distrusted: the client lists again. It says so
        when the next one does that too.
        """
        if self._heard:
            return False
        lasted, settings = time.monotonic() - self._opened, self._plan.settings
        if lasted >= settings["retry_reset"]:
            self._server.early = 0
        elif lasted < settings["short_watch"]:
            self._server.early += 1
            return self._server.early > 1
        return False

    def _hit(self, fault, loud):
        self._stage.hit("watch", fault, loud)

    # -- before the 101

    def _refuse(self, out, fault):
        link, server = self._link, self._server
        if out == "503" or fault.isdigit() and fault != "410":
            status = 503 if out == "503" else int(fault)
            server.refuse(link, "watch", status, wait=fault == "429")
            raise EOFError
        if self._after < self._store.window or fault == "410":
            self._expire(self._plan.style)

        if fault in ("accept", "extension", "protocol"):
            if fault == "protocol" and "sec-websocket-protocol" not in self._request.headers:
                fault = "accept"
            self._hit(fault, True)
            link.send(self._upgrade(fault))
            link.linger()
        if fault in ("reset", "eof", "mute"):
            self._hit(fault, True)
            {"reset": link.reset, "eof": link.end, "mute": link.linger}[fault]()

    def _expire(self, style):
        """The client's version is gone: one of the ways to say so."""
        link = self._link
        if style == "http":
            self._server.refuse(link, "watch", 410)
            raise EOFError

        self._opened = time.monotonic()
        self._hit("410 " + style, style == "closed" and self._ends_early())
        link.send(self._upgrade())
        if style != "closed":
            link.send(frame(1, json.dumps({"type": "ERROR", "object": GONE})))
        while style == "open" and not self._stage.over:
            link.answer_pings(10)
        link.close(1000)

    def _upgrade(self, fault=""):
        headers = self._request.headers
        accept = accept_key(headers["sec-websocket-key"])
        protocol = headers.get("sec-websocket-protocol", "").split(", ")[0]
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines.append("Sec-WebSocket-Accept: " + (accept[::-1] if fault == "accept" else accept))
        if protocol:
            chosen = "odd" if fault == "protocol" else protocol
            lines.append("Sec-WebSocket-Protocol: " + chosen)
        if fault == "extension":
            lines.append("Sec-WebSocket-Extensions: permessage-deflate")
        return "\r\n".join(lines + ["", ""]).encode()

    # -- the 101, and ends soon after it

    def _place(self, fault):
        """(how many entries of the log the client has, the epoch of the log)."""
        with self._stage.lock:
            versions = [version for version, _, _ in self._store.log]
            sent = bisect.bisect(versions, self._after)
            if fault == "replay":
                sent = max(0, sent - self._plan.chance.randrange(2, 15))
                self._hit(fault, False)
            return sent, self._store.epoch

    def _open(self, out, fault):
        hello = self._upgrade()
        is_marked = self._plan.first_bookmark or fault in ("bookmark", "glued")
        if out == "flap" or not out and is_marked:
            hello += event_frame("BOOKMARK", bookmark(self._after))
            self._hear()
        if fault in ("dribbled", "glued"):
            self._hit(fault, False)
        if out == "flap" or fault in ("closed at once", "ended at once") and self._heard:
            self._server.came_to(self._after)

        self._opened = time.monotonic()
        step = 7 if fault == "dribbled" else len(hello)
        for at in range(0, len(hello), step):
            self._link.send(hello[at:at + step])

    def _end_early(self, out, fault):
        link, stage = self._link, self._stage
        if out == "error":
            stage.hit("outage", out, True)
            link.send(event_frame("ERROR", BROKEN))
            link.linger()
        if out or fault == "closed at once":
            stage.hit("outage" if out else "watch", out or fault, self._ends_early())
            link.close(1000)
        if fault == "ended at once":
            self._hit(fault, self._ends_early() or self._plan.tls)
            link.end()
        if fault in ("zombie", "dead"):
            self._hit(fault, fault == "dead")
            self._play_dead(fault)

    def _play_dead(self, how):
        """A zombie answers pings, a dead one does not even that."""
        while not self._stage.over:
            if how == "zombie":
                self._link.answer_pings(0.05)
            else:
                self._link.linger()
        raise EOFError

    # -- events

    def _follow(self, sent, epoch, fault):
        link, store, opened = self._link, self._store, time.monotonic()
        while not self._stage.over:
            with self._stage.lock:
                news, now = store.log[sent:], store.version
                sent += len(news)
                is_rewound = epoch != store.epoch
            if is_rewound:
                link.reset()

            for version, before, item in news:
                is_known = version <= self._after and fault != "replay"
                if not is_known and version not in store.dropped:
                    self._change(version, before, item)
            self._perhaps_bookmark(now)

            if time.monotonic() - opened > self._lifetime:
                self._hit("timeout", False)
                self._server.came_to(link.version)
                link.close(1000)
            link.answer_pings(TICK)

    def _perhaps_bookmark(self, now):
        plan, link = self._plan, self._link
        if plan.chatty and plan.chance.random() < 0.1 and now >= self._after:
            link.send(event_frame("BOOKMARK", bookmark(now)))
            self._hear()
            link.version = max(link.version, now)

    def _change(self, version, before, item):
        """What a change of the store is for this watch."""
        was, is_now = self._store.is_wanted(before), self._store.is_wanted(item)
        if is_now:
            self._event("MODIFIED" if was else "ADDED", item, version, before)
        elif was:
            metadata = dict(before["metadata"], resourceVersion=str(version))
            self._event("DELETED", dict(before, metadata=metadata), version, before)

    def _event(self, kind, item, version, before):
        """Send one event, well or badly."""
        link, fault = self._link, self._server.fault("event")
        if not fault:
            link.version = max(link.version, version)
            link.send(event_frame(kind, item))
            self._hear()
            return

        if fault == "drop":
            self._server.oracle.lost = True
        self._stage.hit("event", fault, self._is_loud(fault))
        frames = good_frames(fault, kind, item, before, version)
        if frames is None:
            self._end_badly(fault, kind, item)
        for data in frames:
            link.send(data)
            if data[0] == 0x89:  # also between fragments
                self._wait_for_pong(data[2:])

        if fault == "compact":
            self._store.window = self._store.version
        link.version = max(link.version, version)
        if fault != "drop":
            self._hear()

    def _is_loud(self, fault):
        kind = EVENT[fault]
        is_early = (kind == "e" or fault in CLOSES) and self._ends_early()
        return is_early or kind == "E" or kind == "e" and self._plan.tls

    def _wait_for_pong(self, payload):
        if self._plan.family == "network":
            return  # it may get lost
        end = time.monotonic() + 5
        while self._link.pong != payload and not self._stage.over:
            self._link.answer_pings(0.01)
            if time.monotonic() > end:
                self._stage.problem("no pong, but", self._link.pong)
                return

    def _end_badly(self, fault, kind, item):
        """What can't be read, or an end; raises EOFError."""
        link, data = self._link, event_frame(kind, item)
        if EVENT[fault] == "e" or fault in ("close", "close 1000", "close 1001", "close 1012"):
            self._server.came_to(link.version)

        wrong = {**error_frames(self._plan.chance), **bad_frames(kind, item)}
        if fault in wrong:
            link.send(wrong[fault])
            link.linger()  # the client has to hang up
        if fault == "reset":
            link.reset()
        if fault == "half":
            link.send(data[:len(data) // 2])
        if fault in ("eof", "half"):
            link.end()
        if fault in ("zombie", "dead"):
            self._play_dead(fault)
        self._close_badly(fault)

    def _close_badly(self, fault):
        """One of the faults "close", "close 1011", "close 1 byte", "close reason"."""
        word = fault.partition(" ")[2]
        payloads = {"1 byte": b"\x03", "reason": b"\x03\xf3\xff"}
        self._link.close(int(word) if word.isdigit() else None, payloads.get(word))
