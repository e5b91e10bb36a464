# SPDX-License-Identifier: Apache-2.0
"""The server in front of the store, and the schedule of its faults."""

import collections
import socket
import struct
import time
import traceback
import urllib.parse

import wire

from .lists import Lists
from .watches import WatchAnswer

SLOW = 10  # seconds that the server waits for a client that does nothing


class Link(wire.Conn):
    """The server's side of one connection. An end of it is an EOFError, whoever makes it.

    served   how many lists it has answered
    pong     the payload of the last one
    version  the newest that was sent in a watch
    """

    def __init__(self, sock, stopped=None):
        super().__init__(sock, stopped)
        self.served, self.pong, self.version = 0, b"", 0

    def send(self, data):
        """As wire.Conn.send, but not for ever."""
        self.sock.settimeout(SLOW)
        super().send(data)

    def end(self):
        """FIN, and read on until the client ends too: closing with bytes unread would send RST."""
        self.half_close()
        self.linger()

    def linger(self):
        """Do nothing until the client ends."""
        try:
            while True:
                self.fill(SLOW)
                self.buffer = b""
        except ValueError:  # TLS: nothing can be read any more
            raise EOFError from None

    def reset(self):
        """RST, when the socket is closed."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise EOFError

    def close(self, code, payload=None):
        """A close frame, then the end."""
        if payload is None:
            payload = code.to_bytes(2, "big") if code else b""
        self.send(wire.frame(8, payload))
        self.end()

    def answer_pings(self, seconds):
        """Wait so long for frames of the client, which sends small ones only, and answer them."""
        self.fill(seconds)
        while len(self.buffer) >= 6 and len(self.buffer) >= 6 + (self.buffer[1] & 127):
            opcode, payload = self.read_frame()
            if opcode == 10:
                self.pong = payload
            elif opcode == 9:
                self.send(wire.frame(10, payload))
            elif opcode == 8:
                self.send(wire.frame(8, payload))
                self.end()


class Server(wire.RawServer):
    """Answers lists and watches as the plan wants.

    is_faulty     there are faults, until the play is nearly over
    outage        (how, until when, its seconds), or None;  blamed  the times of requests in it
    times         when each request came
    quiet_until   no request may come before: Retry-After was sent
    resume        the version from which the next watch has to begin, or a later one
    watching      the connections that are watches
    early         how many watches in a row ended at once, without an event
    """

    def __init__(self, stage, store, oracle, certificate):
        self.stage, self.plan, self.store, self.oracle = stage, stage.plan, store, oracle
        self.lists = Lists(self)
        self.is_faulty, self._used = True, collections.Counter()
        self.outage, self.blamed = None, []
        self.times, self.quiet_until, self.resume = [], 0.0, 0
        self.watching, self.early = set(), 0
        super().__init__(self.serve, certificate if self.plan.tls else None, conn_type=Link)

    # -- the schedule

    def fault(self, where):
        """The next fault of the schedule, or ""."""
        with self.stage.lock:
            number, faults = self._used[where], self.plan.faults[where]
            self._used[where] += 1
            return faults[number] if self.is_faulty and number < len(faults) else ""

    def begin_outage(self, how, seconds):
        """From now on, for so long."""
        self.outage = (how, time.monotonic() + seconds, seconds)
        self.stage.counts["outage"] += 1

    def now_out(self):
        """The outage at work, or ""."""
        with self.stage.lock:
            if not self.outage or not self.is_faulty or time.monotonic() > self.outage[1]:
                return ""
            if self.outage[0] != "flap":
                self.blamed.append(time.monotonic())
            return self.outage[0]

    def came_to(self, version):
        """A watch ends by itself, after a version that the client must have seen."""
        plan = self.plan
        if plan.family != "network" and plan.lifetime > 1 and not plan.resync:
            self.resume = version

    # -- requests, each connection in a thread

    def serve(self, link):
        """One connection, until it ends."""
        try:
            while not self.stage.over:
                while b"\r\n\r\n" not in link.buffer:
                    if not link.fill(SLOW) and self.stage.over:
                        return
                self._answer(link, link.request())
        except (EOFError, OSError):
            pass
        except Exception:
            self.stage.problem("the server failed:", traceback.format_exc())

    def _answer(self, link, request):
        address = urllib.parse.urlsplit(request.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        self._note_request(request, address.path, query)
        if not request.is_watch:
            self.lists.answer(link, query, address.path)
            link.served += 1
            return

        self.watching.add(link)
        try:
            WatchAnswer(self, link, request, query).run()
        finally:
            self.watching.discard(link)

    def _note_request(self, request, path, query):
        stage, version = self.stage, query.get("resourceVersion", "")
        with stage.lock:
            now = time.monotonic()
            self.times.append(now)
            what, name = "watch" if request.is_watch else "list", path.rpartition("/")[2]
            stage.note(what, name, version, query.get("continue", ""))
            if now < self.quiet_until:
                stage.problem("O6: a request before Retry-After was over")
            if request.is_watch and int(version or 0) < self.resume:
                stage.problem("O6: a watch from version %s after one that came to %d" % (
                    version, self.resume))
            self.resume = 0

    def refuse(self, link, where, status, wait=False):
        """An HTTP answer that says no; with `wait` a 429 has a Retry-After."""
        self.stage.hit(where, str(status), status != 410)
        reason = "Expired" if status == 410 else "Simulated"
        body = {"kind": "Status", "code": status, "message": "simulated", "reason": reason}
        headers = {}
        if status == 400:  # as after a hijack: no length, no body, the end
            link.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            link.end()
        elif status == 500:
            body = b"<html>"
        elif status == 302:
            headers = {"Location": "http://127.0.0.1:9/"}
        elif status == 429 and wait:
            headers = {"Retry-After": "7"}
            if self.plan.family != "network":  # else the answer may get lost
                self.quiet_until = time.monotonic() + self.plan.settings["max_retry_after"]
        link.reply(status, body, headers)

    # -- at the end

    def check_times(self):
        """Requests stay within the bucket's limits, in an outage within what the waits allow."""
        burst, rate = self.plan.bucket
        times, end = self.times, len(self.times) - 1
        for first, start in enumerate(times):
            for last in (end, min(end, first + 2 * burst), min(end, first + 4 * burst)):
                seconds = times[last] - start
                if last - first > burst + rate * (seconds + 0.5):
                    self.stage.problem("O6: %d requests in %.3f s" % (last - first + 1, seconds))
                    return
        if self.outage:
            self._check_outage()

    def _check_outage(self):
        seconds, settings = self.outage[2], self.plan.settings
        tries, waited = 0, 0.0
        while waited <= seconds:  # half of each wait is chance's
            tries += 1
            wait = min(settings["retry_cap"], settings["retry_base"] * 2 ** (tries - 2)) / 2
            waited += 0 if tries == 1 else wait
        if len(self.blamed) > 2 * tries + 6:  # a try may be a list and a watch
            self.stage.problem("O6: %d requests in an outage of %.3f s" % (
                len(self.blamed), seconds))
