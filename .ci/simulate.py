# SPDX-License-Identifier: Apache-2.0
"""A randomized simulation of watches: a server with a memory, faults, and an oracle that knows what may be shown.

    python .ci/simulate.py 100 [--first N] [--jobs J] [--patience SECONDS] [--without FAULT,...]

Each seed makes a schedule: what is watched and with which settings, how the objects change, which request, event or
moment meets which fault. It is played over real sockets, plain or TLS, through a proxy that harms connections; times are
a hundredth or so of the real ones. Some settings switch one of the module's safety nets off (relisting now and then,
limited lifetimes of watches, the rate limit, distrust of short watches), since nets hide each other's holes.

What is checked of every seed:

    O1-O4  each view is exactly a state that the server had, whole, and states only go forward: so no object is made up,
           shown twice, older than before or back from the dead. Left alone: until it is right again, a view from which the
           server withheld an event; everything after the server went back in time (an etcd restored from a backup)
    O5     when the faults are over, the last view is the server's state
    O6     requests stay within the bucket's limits, and within what the waits allow while everything fails; Retry-After is kept;
           only the first list may carry a resourceVersion
    O7     cancel takes no time, also in the midst of everything and from inside a callback; after it there is no callback,
           no thread, no socket and no descriptor
    O8     silent faults give no err_cb; where every fault is the server's, each loud one gives exactly one, and it has (error, cancel)
    O9     no view equals the one before it; a view is the caller's own, and the objects in it never change
"""
import argparse
import base64
import bisect
import collections
import hashlib
import json
import logging
import multiprocessing
import os
import random
import re
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), HERE]

import apiproxy  # noqa: E402
from faultproxy import FaultProxy  # noqa: E402

PATH = "/api/v1/things"
ROUTINE = (1000, 1001, 1012, None)

# The faults and their classes: S, err_cb stays silent; E, err_cb is called once; ?, it depends on the moment.
LIST = {"pages": "S", "null": "S", "chunked": "S", "closed after": "S", "page gone": "S", "page again": "E", "500": "E", "503": "E",
        "429": "E", "403": "E", "404": "E", "Status": "E", "Table": "E", "not JSON": "E", "no version": "E", "short": "E",
        "cut chunk": "E", "reset": "E", "eof": "E", "hang": "?"}
WATCH = {"replay": "S", "410": "S", "bookmark": "S", "dribbled": "S", "glued": "S", "zombie": "S", "200": "E", "302": "E", "400": "E",
         "401": "E", "403": "E", "404": "E", "405": "E", "429": "E", "500": "E", "503": "E", "accept": "E", "extension": "E",
         "protocol": "E", "closed at once": "e", "ended at once": "e", "reset": "E", "eof": "E", "mute": "?", "dead": "?"}
EVENT = {"twice": "S", "older": "S", "bookmark": "S", "pretty": "S", "joined": "S", "fragments": "S", "bytes": "S", "ping": "S",
         "close 1000": "S", "close 1001": "S", "close 1012": "S", "close": "S", "eof": "e", "half": "e", "410": "S", "410 open": "S",
         "410 reason": "S", "compact": "S", "drop": "S", "zombie": "S", "500": "E", "429": "E", "504": "E", "no code": "E",
         "not JSON": "E", "half JSON": "E", "binary": "E", "not UTF-8": "E", "null": "E", "no object": "E", "no metadata": "E",
         "type": "E", "masked": "E", "rsv": "E", "opcode": "E", "long ping": "E", "continuation": "E", "length": "E",
         "close 1011": "E", "close 1013": "E", "close 1 byte": "E", "close reason": "E", "reset": "E", "dead": "?"}
NETWORK = ("reset", "end", "refuse", "drop up", "drop down", "drop both", "stall up", "stall down", "stall both", "throttle", "cut", "cut rst",
           "rewind")
OUTAGES = ("503", "error", "closed", "flap")


def frame(opcode, payload=b"", fin=True, rsv=0):
    payload = payload.encode() if isinstance(payload, str) else payload
    size = len(payload)
    head = bytes(((0x80 if fin else 0) | rsv << 4 | opcode,))
    return head + (bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")) + payload


class Plan:
    """What will happen, all from the seed."""

    def __init__(self, seed, without=()):
        chance = random.Random(seed)
        self.family = chance.choice(("silent", "server", "network"))
        self.kind = chance.choice(("list", "list", "selector", "limit", "item"))
        self.tls, self.chatty = chance.random() < 0.2, chance.random() < 0.5
        self.limit = chance.choice((1, 2, 3))
        silent, server, network = (self.family == name for name in ("silent", "server", "network"))
        self.rewind = network and chance.random() < 0.5
        self.drops = silent and chance.random() < 0.4 and self.kind != "limit"
        self.resync = self.rewind or self.drops or not server and chance.random() < 0.1
        self.lifetime = 1000 if server or chance.random() < 0.4 else chance.choice((0.15, 0.25))
        self.short_watch = 5.0 if server and chance.random() < 0.7 else 0.0 if self.rewind or chance.random() < 0.3 else 0.1
        self.bucket = (8, 20.0) if chance.random() < 0.5 else (1000, 1000.0)
        styles = ["error", "open", "http"] + ["closed"] * (not silent and self.short_watch > 0)
        self.style = chance.choice(styles)
        self.first_bookmark = silent or chance.random() < 0.3
        self.settings = dict(
            retry_base=0.008, retry_cap=0.1, retry_reset=0.3, short_watch=self.short_watch, burst=self.bucket[0], rate=self.bucket[1],
            watch_grace=0.1, resync=0.2 if self.resync else 1e6, close_timeout=0.05, max_retry_after=0.06, max_message=65536, connect_timeout=10.0,
            request_timeout=20.0, list_idle=10.0, ping_interval=chance.choice((0.02, 10.0)), ping_timeout=10.0)
        if network:
            self.settings.update(connect_timeout=0.25, list_idle=0.2, ping_interval=0.05, ping_timeout=0.1)

        def fits(name, kind):
            if name in without or name == "zombie" and self.lifetime > 1 or name == "drop" and not self.drops:
                return False
            if name in ("replay", "older") and self.rewind or name == "null" and self.kind == "item":
                return False
            if kind == "S" or kind == "e" and silent and not self.tls:
                return True
            return network or server and kind != "?"

        def draw(faults, count, share):
            kinds = [name for name, kind in faults.items() if fits(name, kind)]
            kinds += [name for name in kinds if name in ("older", "drop", "replay", "dead")] * 3        # what needs the right moment to do harm
            return [chance.choice(kinds) if chance.random() < share else "" for _ in range(count)]

        busy = chance.choice((0.15, 0.3, 0.6))
        self.faults = {"list": draw(LIST, 12, busy), "watch": draw(WATCH, 20, busy), "event": draw(EVENT, 100, busy)}
        self.length = chance.uniform(0.2, 0.5)
        at = lambda: chance.uniform(0, self.length)  # noqa: E731
        self.actions = [(at(), "change", chance.random()) for _ in range(chance.choice((15, 40, 100)))]
        self.last = ("drop", chance.random()) if self.drops else ("rewind", chance.randrange(1, 8)) if self.rewind and chance.random() < 0.7 else None
        self.actions += [(at(), "compact", 0) for _ in range(chance.choice((0, 1, 3)))]
        if network:
            for _ in range(chance.choice((1, 2, 4))):
                name = chance.choice([one for one in NETWORK[:-1] if one not in without] or ["end"])
                self.actions.append((at(), name, (chance.randrange(600), chance.uniform(0.02, 0.3))))
            if self.rewind and not self.last:
                self.actions.append((chance.uniform(0.05, self.length), "rewind", chance.randrange(1, 8)))
        if chance.random() < 0.4:
            kinds = [one for one in (("flap",) if silent else OUTAGES if self.short_watch else OUTAGES[:2] + OUTAGES[3:]) if one not in without]
            self.actions.append((chance.uniform(0, 0.1), "outage", (chance.choice(kinds), chance.uniform(0.1, 0.25))) if kinds else (0, "compact", 0))
        self.actions.sort(key=lambda action: action[0])
        self.cancel = chance.choice(("end",) * 6 + ("early", "inside"))
        self.cancel_at = chance.uniform(0, self.length) if self.cancel == "early" else chance.randrange(1, 8)
        self.moods = [chance.choice(("raise", "exit", "slow")) if chance.random() < 0.1 else "" for _ in range(200)]
        self.chance = random.Random(chance.random())       # for the order of little things


class Link:
    """The server's side of one connection."""

    def __init__(self, sock):
        self.sock, self.buffer, self.served = sock, b"", 0
        self.pong = b""              # the last one's payload
        self.version = 0             # the newest that was sent in a watch

    def fill(self, seconds):
        """Receive more; False when nothing came in time."""
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(65536)
        except (socket.timeout, ssl.SSLWantReadError):
            return False
        if not data:
            raise EOFError
        self.buffer += data
        return True

    def send(self, data):
        self.sock.settimeout(10)
        self.sock.sendall(data)

    def end(self):
        """FIN, and read on until the client ends too: closing with octets unread would send RST."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)
        self.linger()

    def linger(self):
        try:
            while True:
                self.fill(10)
                self.buffer = b""
        except ValueError:       # TLS: nothing can be read any more
            raise EOFError

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise EOFError

    def answer_pings(self, seconds):
        self.fill(seconds)
        while len(self.buffer) >= 6 and len(self.buffer) >= 6 + (self.buffer[1] & 127):  # the client sends small frames only
            opcode, size = self.buffer[0] & 15, self.buffer[1] & 127
            data, self.buffer = self.buffer[2:6 + size], self.buffer[6 + size:]
            if opcode == 10:
                self.pong = bytes(octet ^ data[index % 4] for index, octet in enumerate(data[4:]))
            elif opcode == 9:
                self.send(frame(10, bytes(octet ^ data[index % 4] for index, octet in enumerate(data[4:]))))
            elif opcode == 8:
                self.send(frame(8, bytes(octet ^ data[index % 4] for index, octet in enumerate(data[4:]))))
                self.end()

    def reply(self, status, body, headers="", length=None):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send(("HTTP/1.1 %d Reason\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n" % (
            status, headers, len(body) if length is None else length)).encode() + body)


class World:
    """The store, the server in front of it, the schedule at work, and the oracle."""

    def __init__(self, plan, certificate):
        self.plan, self.lock, self.began = plan, threading.RLock(), time.monotonic()
        self.timeline, self.problems, self.counts, self.loud = [], [], collections.Counter(), 0
        self.version, self.window, self.epoch, self.state, self.log = 10, 0, 0, {}, []      # log: (version, before, after)
        self.history, self.where, self.pages, self.serial = [], {}, {}, 0
        self.faulty, self.outage, self.blamed, self.used = True, None, [], collections.Counter()
        self.dropped = set()                               # versions of events that nobody gets
        self.requests, self.quiet_until, self.resume = [], 0.0, 0
        self.last, self.shown, self.views, self.kept = 0, None, 0, []
        self.errors, self.lost, self.strict, self.over, self.calls = 0, False, True, False, 0
        self.cancel = lambda: None
        if plan.kind == "item":
            self.change(0.0, "a")
        self.note_state()
        self.context = None
        if plan.tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.open, self.watching, self.threads = set(), set(), []
        self.go(self.accept)

    def note(self, *what):
        self.timeline.append((time.monotonic() - self.began, " ".join(map(str, what))))

    def problem(self, *what):
        self.problems.append(" ".join(map(str, what)))
        self.note("PROBLEM", *what)

    # -- the store

    def change(self, dice, name=None):
        """One object is made, changed, relabelled, or deleted, perhaps to be made anew at once, with another uid."""
        with self.lock:
            name = name or "abcdef"[int(dice * 600) % 6]
            before, what = self.state.get(name), int(dice * 1e4) % 10
            if self.plan.kind == "item" and before and not self.views:
                return                                         # the first GET has to find it
            if before and what < 4:
                self.write(name, before, None)
                before = None
                if what < 2:
                    return
            self.serial += 1
            labels = {"app": "xy"[int(dice * 1e5) % 2]} if what != 9 or not before else before["metadata"]["labels"]
            self.write(name, before, {"kind": "Thing", "apiVersion": "v1", "data": {"n": self.serial, "text": "\u20ac" * (self.serial % 7)}, "metadata": {
                "name": name, "labels": labels, "uid": before["metadata"]["uid"] if before else "%s-%d" % (name, self.serial),
                "creationTimestamp": before["metadata"]["creationTimestamp"] if before else "2026-01-01T00:00:00.%06dZ" % self.serial}})

    def write(self, name, before, after):
        self.version += self.plan.chance.choice((1, 1, 1, 5))        # other resources count too
        if after:
            after["metadata"]["resourceVersion"] = str(self.version)
            self.state[name] = after
        else:
            del self.state[name]
        self.log.append((self.version, before, after))
        self.note("store", self.version, name, "deleted" if not after else "made" if not before else "changed", (after or before)["metadata"]["uid"])
        if self.history:
            self.note_state()

    def wanted(self, item):
        return item and (self.plan.kind not in ("selector", "item") or (
            item["metadata"]["name"] == "a" if self.plan.kind == "item" else item["metadata"]["labels"]["app"] == "x"))

    def sign(self, items):
        """What tells one state from another: every object as it is."""
        return frozenset(json.dumps({key: value for key, value in item.items() if key != "actionType"}, sort_keys=True) for item in items)

    def note_state(self):
        items = [item for item in self.state.values() if self.wanted(item)]
        if self.plan.kind == "limit":
            items = sorted(items, key=lambda item: item["metadata"]["creationTimestamp"])[-self.plan.limit:]
        self.history.append(self.sign(items))
        self.where.setdefault(self.history[-1], []).append(len(self.history) - 1)

    def rewind(self, steps):
        """The server is restored from a backup: versions go back, and connections end."""
        with self.lock:
            del self.log[max(0, len(self.log) - steps):]
            self.version, self.state = self.log[-1][0] if self.log else 10, {}
            for _, before, after in self.log:
                self.state.pop((before or after)["metadata"]["name"], None)
                if after:
                    self.state[after["metadata"]["name"]] = after
            self.window, self.strict, self.epoch = min(self.window, self.version), False, self.epoch + 1
            self.note_state()

    # -- the server

    def go(self, target, *args):
        self.threads.append(threading.Thread(target=target, args=args, name="simulated-server", daemon=True))
        self.threads[-1].start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self.over:
                sock.close()
                return
            self.go(self.serve, sock)

    def serve(self, sock):
        self.open.add(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                plain, sock = sock, self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self.open.add(sock)
                self.open.discard(plain)
                sock.settimeout(10)
                sock.do_handshake()
            link = Link(sock)
            while not self.over:
                while b"\r\n\r\n" not in link.buffer:
                    if not link.fill(10) and self.over:
                        return
                head, _, link.buffer = link.buffer.partition(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                address = urllib.parse.urlsplit(lines[0].split(" ")[1])
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
                query = dict(urllib.parse.parse_qsl(address.query))
                is_watch = "upgrade" in headers
                with self.lock:
                    now = time.monotonic()
                    self.requests.append(now)
                    self.note("watch" if is_watch else "list", address.path.rpartition("/")[2], query.get("resourceVersion", ""), query.get("continue", ""))
                    if now < self.quiet_until:
                        self.problem("O6: a request before Retry-After was over")
                    if is_watch and int(query.get("resourceVersion", 0)) < self.resume:
                        self.problem("O6: a watch from version", query.get("resourceVersion"), "after one that came to", self.resume)
                    self.resume = 0
                if is_watch:
                    self.watch(link, query, headers, sock)
                else:
                    self.list(link, query, address.path)
                    link.served += 1
        except (EOFError, OSError):
            pass
        except Exception:
            self.problem("the server failed:", traceback.format_exc())
        finally:
            self.open.discard(sock)
            sock.close()

    def fault(self, where, only=None):
        """The next fault of the schedule, or ""."""
        with self.lock:
            number = self.used[where]
            self.used[where] += 1
            found = self.plan.faults[where][number] if self.faulty and number < len(self.plan.faults[where]) else ""
            return "" if only and found not in only else found

    def hit(self, where, name, loud):
        """A fault takes place; counted before it can be noticed."""
        with self.lock:
            self.counts[where + " " + name] += 1
            self.loud += bool(loud)
            self.note("fault:", where, name, "(loud)" if loud else "")

    def now_out(self, where):
        """The outage at work, or ""."""
        with self.lock:
            out = self.outage
            if not out or not self.faulty or time.monotonic() > out[1]:
                return ""
            if out[0] != "flap":
                self.blamed.append(time.monotonic())
            return out[0]

    def refuse(self, link, where, status, wait=None):
        """An HTTP answer that says no."""
        self.hit(where, str(status), status != 410)
        body = {"kind": "Status", "code": status, "message": "simulated", "reason": "Expired" if status == 410 else "Simulated"}
        if status == 429 and wait and self.plan.family != "network":       # else the answer may get lost
            self.quiet_until = time.monotonic() + 0.06
        if status == 400:                                     # as after a hijack: no length, no body, the end
            link.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            link.end()
        link.reply(status, b"<html>" if status == 500 else body, "Retry-After: 7\r\n" if status == 429 and wait else
                   "Location: http://127.0.0.1:9/\r\n" if status == 302 else "")

    def list(self, link, query, path):
        out = self.now_out("list")
        if out == "503":
            return self.refuse(link, "list", 503)
        fault = self.fault("list")
        with self.lock:
            if query.get("resourceVersion"):
                self.problem("O6: a list with a resourceVersion")
            token = query.get("continue", "")
            if path != PATH:
                item = self.state.get(path[len(PATH) + 1:])
                if not item:
                    return link.reply(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "gone", "details": {"name": "a"}})
                page = dict(item)
            else:
                items, version = [item for item in self.state.values() if self.wanted(item)], str(self.version)
                if token.startswith("inconsistent"):
                    items = items[1:]
                elif token:
                    version, items, harm = self.pages[token]
                    if harm == "page gone" or int(version) < self.window:
                        self.hit("list", "page gone", False)
                        return link.reply(410, {"kind": "Status", "code": 410, "reason": "Expired", "metadata": {"continue": "inconsistent-%s" % token}})
                metadata = {"resourceVersion": version}
                size = int(query.get("limit", 0)) or (1 if fault[:4] == "page" and not token else 0)
                if token and self.pages.get(token, "   ")[2] == "page again":
                    self.hit("list", "page again", True)
                    fault = ""
                    metadata["continue"] = token
                    self.pages[token] = (version, items, "")
                elif size and len(items) > size:
                    metadata["continue"] = "t%d" % len(self.requests)
                    self.pages[metadata["continue"]], items = (version, items[size:], fault), items[:size]
                    for dice in (self.plan.chance.random() for _ in range(2 * self.faulty)):
                        self.change(dice)                      # between the pages
                self.lost = self.lost and "continue" in metadata
                bare = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items]
                page = {"kind": "ThingList", "apiVersion": "v1", "metadata": metadata, "items": bare or None if fault == "null" else bare}
        data = json.dumps(page).encode()
        chunk = b"%x\r\n%s\r\n" % (len(data), data)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        if fault in LIST and LIST[fault] != "S" and fault != "page again":
            if fault in ("403", "404") and not self.views:    # they would be the end of it
                fault = "500"
            if fault.isdigit():
                return self.refuse(link, "list", int(fault), wait=True)
            # a kept connection that ends before the answer may have ended before the question: it is asked again, silently
            self.hit("list", fault, fault not in ("reset", "eof") or not link.served)
        if fault == "Status":
            link.reply(200, {"kind": "Status", "metadata": {}, "status": "Success"})
        elif fault == "Table":
            link.reply(200, dict(page, kind="Table", rows=[], columnDefinitions=[], items=[]))
        elif fault == "not JSON":
            link.reply(200, data[:-1])
        elif fault == "no version":
            link.reply(200, dict(page, metadata={}))
        elif fault == "short":
            link.reply(200, data[:-5], length=len(data))
            link.end()
        elif fault == "cut chunk":
            link.send(head + chunk[:-9])
            link.end()
        elif fault == "reset":
            link.reset()
        elif fault == "eof":
            link.send(b"HTTP/1.1 200 OK\r\nContent-")
            link.end()
        elif fault == "hang":
            link.linger()
        elif fault == "chunked":
            link.send(head + chunk + b"0\r\n\r\n")
        else:
            link.reply(200, page)
            if fault == "closed after":
                link.end()

    def upgrade(self, headers, fault=""):
        accept = base64.b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        protocol = headers.get("sec-websocket-protocol", "").split(", ")[0]
        return ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s%s\r\n" % (
            accept[::-1] if fault == "accept" else accept,
            "Sec-WebSocket-Protocol: %s\r\n" % ("odd" if fault == "protocol" else protocol) if protocol else "",
            "Sec-WebSocket-Extensions: permessage-deflate\r\n" if fault == "extension" else "")).encode()

    def expire(self, link, headers, style):
        """The client's version is gone: one of the ways to say so."""
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        if style == "http":
            return self.refuse(link, "watch", 410)
        self.hit("watch", "410 " + style, style == "closed" and self.plan.short_watch)
        link.send(self.upgrade(headers))
        if style == "closed":
            return self.close(link, 1000)
        link.send(frame(1, json.dumps({"type": "ERROR", "object": status})))
        if style == "open":
            while not self.over:
                link.answer_pings(10)
        self.close(link, 1000)

    def came_to(self, version):
        """A watch ends by itself, after a version that the client must have seen."""
        if self.plan.family != "network" and self.plan.lifetime > 1 and not self.plan.resync:
            self.resume = version

    def close(self, link, code, payload=None):
        link.send(frame(8, payload if payload is not None else code.to_bytes(2, "big") if code else b""))
        link.end()

    def watch(self, link, query, headers, sock):
        self.watching.add(sock)
        try:
            self.follow(link, query, headers)
        finally:
            self.watching.discard(sock)

    def follow(self, link, query, headers):
        plan, after, out, fault = self.plan, int(query.get("resourceVersion", 0)), self.now_out("watch"), self.fault("watch")
        short = bool(plan.short_watch)           # an end without an event is loud
        if out == "503" or fault.isdigit():
            return self.refuse(link, "watch", 503 if out == "503" else int(fault), wait=fault == "429")
        link.version = after
        if after < self.window or fault == "410":
            return self.expire(link, headers, plan.style)
        if fault in ("accept", "extension", "protocol"):
            if fault == "protocol" and "sec-websocket-protocol" not in headers:
                fault = "accept"
            self.hit("watch", fault, True)
            link.send(self.upgrade(headers, fault))
            return link.linger()
        if fault in ("reset", "eof"):
            self.hit("watch", fault, True)
            return link.reset() if fault == "reset" else link.end()
        if fault == "mute":
            self.hit("watch", fault, True)
            return link.linger()
        with self.lock:
            sent, epoch = bisect.bisect([version for version, _, _ in self.log], after), self.epoch
            if fault == "replay":
                sent = max(0, sent - plan.chance.randrange(2, 15))
                self.hit("watch", fault, False)
        heard = False
        hello = self.upgrade(headers)
        if out == "flap" or not out and (plan.first_bookmark or fault in ("bookmark", "glued")):
            hello += self.frame("BOOKMARK", {"kind": "Thing", "metadata": {"resourceVersion": str(after)}})
            heard = True
        if fault in ("dribbled", "glued"):
            self.hit("watch", fault, False)
        if out == "flap" or fault in ("closed at once", "ended at once") and heard:
            self.came_to(after)
        for piece in (hello[at:at + 7] for at in range(0, len(hello), 7)) if fault == "dribbled" else [hello]:
            link.send(piece)
        opened = time.monotonic()
        if out == "error":
            self.hit("outage", out, True)
            link.send(self.frame("ERROR", {"kind": "Status", "code": 500, "message": "simulated"}))
            return link.linger()
        if out or fault == "closed at once":
            self.hit("outage" if out else "watch", out or fault, not heard and short)
            return self.close(link, 1000)
        if fault == "ended at once":
            self.hit("watch", fault, not heard and short or self.context)
            return link.end()
        if fault in ("zombie", "dead"):
            self.hit("watch", fault, fault == "dead")
            return self.play_dead(link, fault)
        while not self.over:
            with self.lock:
                news, now = self.log[sent:], self.version
                if epoch != self.epoch:
                    return link.reset()
                sent = len(self.log)
            for version, before, item in news:
                if version <= after and fault != "replay" or version in self.dropped:
                    continue
                was, is_ = self.wanted(before), self.wanted(item)
                if was or is_:
                    kind = "DELETED" if not is_ else "MODIFIED" if was else "ADDED"
                    shown = item if is_ else dict(before, metadata=dict(before["metadata"], resourceVersion=str(version)))
                    if self.event(link, kind, shown, version, heard, before) == "withheld":
                        continue
                    heard = True
            if plan.chatty and plan.chance.random() < 0.1 and now >= after:
                link.send(self.frame("BOOKMARK", {"kind": "Thing", "metadata": {"resourceVersion": str(now)}}))
                heard, link.version = True, max(link.version, now)
            if time.monotonic() - opened > float(query.get("timeoutSeconds", 1000)):
                self.hit("watch", "timeout", False)
                self.came_to(link.version)
                return self.close(link, 1000)
            link.answer_pings(0.004)

    def play_dead(self, link, how):
        """A zombie answers pings, a dead one does not even that."""
        while not self.over:
            if how == "zombie":
                link.answer_pings(0.05)
            else:
                link.linger()

    def frame(self, kind, item):
        return frame(1, json.dumps({"type": kind, "object": item}) + "\n")

    def event(self, link, kind, item, version, heard, before):
        """Send one event, well or badly; raises EOFError at an end, returns "withheld" when it was not sent."""
        fault = self.fault("event")
        text, data = json.dumps({"type": kind, "object": item}), self.frame(kind, item)
        short = bool(self.plan.short_watch)
        if not fault:
            link.version = max(link.version, version)
            return link.send(data)
        loud = EVENT[fault] == "E" or EVENT[fault] == "e" and (self.context or not heard and short)
        if fault.startswith("close") and not heard:
            loud = loud or short
        if fault == "drop":
            self.lost = True
        self.hit("event", fault, loud)
        bookmark = {"type": "BOOKMARK", "object": {"kind": "Thing", "metadata": {"resourceVersion": str(version)}}}
        gone = {"kind": "Status", "code": 410, "reason": "Expired"}
        half = text.encode()[:len(text) // 2]
        good = {
            "twice": [data, data],
            "older": [data, self.frame("MODIFIED", before or dict(item, metadata=dict(item["metadata"], resourceVersion="5")))],
            "bookmark": [data, frame(1, json.dumps(bookmark))],
            "pretty": [frame(1, json.dumps(json.loads(text), indent=2) + "\n\n")],
            "joined": [frame(1, text + "\n" + json.dumps(bookmark))],
            "fragments": [frame(1, half, fin=False), frame(9, b"%d" % version), frame(0, b"", fin=False), frame(0, text.encode()[len(half):])],
            "bytes": [data[at:at + 1] for at in range(0, len(data))],
            "ping": [frame(9, b"%d" % version), frame(10, b"x"), data],
            "compact": [data], "drop": [],
        }
        if fault in good:
            for piece in good[fault]:
                link.send(piece)
                if piece[0] == 0x89:                           # also between fragments
                    self.ponged(link, piece[2:])
            if fault == "compact":
                self.window = self.version
            link.version = max(link.version, version)
            return "withheld" if fault == "drop" else ""
        if EVENT[fault] == "e" or fault in ("close", "close 1000", "close 1001", "close 1012"):
            self.came_to(link.version)
        bad = {
            "410": self.frame("ERROR", gone) + frame(8, b"\x03\xe8"), "410 open": self.frame("ERROR", gone),
            "410 reason": self.frame("ERROR", {"reason": self.plan.chance.choice(("Expired", "Gone"))}),
            "500": self.frame("ERROR", {"code": 500, "message": "simulated"}), "504": self.frame("ERROR", {"code": 504}),
            "429": self.frame("ERROR", {"code": 429, "details": {"retryAfterSeconds": 0}}), "no code": self.frame("ERROR", {}),
            "not JSON": frame(1, "{"), "half JSON": frame(1, text[:-3]), "binary": frame(2, text), "not UTF-8": frame(1, b'"\xff"'),
            "null": frame(1, "null"), "no object": frame(1, json.dumps({"type": kind, "object": None})),
            "no metadata": frame(1, json.dumps({"type": kind, "object": {"kind": "Thing"}})), "type": frame(1, text.replace(kind, "CHANGED", 1)),
            "masked": b"\x81\x81abcdx", "rsv": frame(1, text, rsv=4), "opcode": frame(3, text), "long ping": frame(9, b"x" * 126),
            "continuation": frame(0, text), "length": b"\x81\x7f" + (1 << 62).to_bytes(8, "big"),
        }
        if fault in bad:
            link.send(bad[fault])
            link.linger()                # the client has to hang up
        if fault == "reset":
            link.reset()
        if fault == "half":
            link.send(data[:len(data) // 2])
        if fault in ("eof", "half"):
            link.end()
        if fault in ("zombie", "dead"):
            self.play_dead(link, fault)
        word = fault.partition(" ")[2]
        self.close(link, int(word) if word.isdigit() else None, b"\x03" if word == "1 byte" else b"\x03\xf3\xff" if word == "reason" else None)

    def ponged(self, link, payload):
        if self.plan.family != "network":
            end = time.monotonic() + 5
            while link.pong != payload and not self.over:
                link.answer_pings(0.01)
                if time.monotonic() > end:
                    return self.problem("no pong, but", link.pong)

    # -- the oracle

    def view(self, items):
        with self.lock:
            self.calls += 1
            self.views += 1
            if self.over:
                self.problem("O7: a view after cancel")
            if self.plan.kind == "item":
                items = [] if items.get("actionType") == "DELETED" else [items]
            shown = self.sign(items)
            self.note("view", self.describe(items))
            if len({item["metadata"]["uid"] for item in items}) != len(items):
                self.problem("O3: an object twice")
            lost = self.lost
            found = [index for index in self.where.get(shown, ()) if index >= self.last]
            if lost:
                pass                                           # wrong until the next list, whatever it looks like
            elif found:
                self.last = found[0]
            elif self.strict:
                self.problem("O4: not a state of the server," if shown not in self.where else "O4: an older state", self.describe(items))
            if shown == self.shown and self.plan.kind != "limit" and not lost:
                self.problem("O9: the same view again")
            if self.plan.kind == "limit":
                times = [item["metadata"]["creationTimestamp"] for item in items]
                if times != sorted(times, reverse=True):
                    self.problem("O4: not the newest first")
            self.shown = shown
            self.kept += [(item, json.dumps(item, sort_keys=True)) for item in items]
            mood = self.plan.moods[self.views % len(self.plan.moods)]
            if self.plan.cancel == "inside" and self.views == self.plan.cancel_at:
                self.cancel()
                self.over = True
                self.note("cancelled inside")
        if self.plan.kind != "item":
            items.clear()
        if mood == "slow":
            time.sleep(0.02)
        elif mood:
            raise SystemExit("simulated") if mood == "exit" else ValueError("simulated")

    def describe(self, items):
        return " ".join("%s@%s" % (item["metadata"]["uid"], item["metadata"]["resourceVersion"]) for item in items) or "(empty)"

    def error(self, error, cancel):
        with self.lock:
            self.note("error", repr(error)[:150])
            self.calls += 1
            self.errors += 1
            if self.over:
                self.problem("O7: an error after cancel")
            if not isinstance(error, apiproxy.ApiError) or not callable(cancel):
                self.problem("O8: err_cb got", repr(error), repr(cancel))

    # -- the play

    def act(self, proxy, name, how):
        if name == "change":
            return self.change(how)
        self.note("now:", name, how)
        if name == "compact":
            self.window = self.version
        elif name == "drop":
            with self.lock:
                known = len(self.log)
                self.change(how, "a")
                self.dropped.update(version for version, _, _ in self.log[known:])
                self.lost = True
        elif name == "outage":
            self.outage = (how[0], time.monotonic() + how[1], how[1])
            self.counts["outage"] += 1
        elif name == "rewind":
            self.rewind(how)
        else:
            self.counts["network " + name] += 1
            word, _, way = name.partition(" ")
            if word in ("drop", "stall"):
                getattr(proxy, word)(way)
            elif word == "throttle":
                proxy.throttle(20000)
            elif word == "cut":
                proxy.cut(how[0], "down", rst=way == "rst")
            else:
                getattr(proxy, word)()

    def until(self, condition, patience):
        end = time.monotonic() + patience
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def check_requests(self):
        burst, rate = self.plan.bucket
        times = self.requests
        for first in range(len(times)):
            for last in (len(times) - 1, min(len(times) - 1, first + 2 * burst), min(len(times) - 1, first + 4 * burst)):
                seconds = times[last] - times[first]
                if last - first > burst + rate * (seconds + 0.5):
                    return self.problem("O6: %d requests in %.3f s" % (last - first + 1, seconds))
        if self.outage:
            tries, waited, length = 0, 0.0, self.outage[2]
            while waited <= length:
                tries += 1
                waited += 0 if tries == 1 else min(0.1, 0.008 * 2 ** (tries - 2)) / 2
            if len(self.blamed) > 2 * tries + 6:       # a try may be a list and a watch
                self.problem("O6: %d requests in an outage of %.3f s" % (len(self.blamed), length))

    def stop(self):
        self.over = True
        try:
            socket.create_connection(self.listener.getsockname(), 1).close()    # wakes accept()
        except OSError:
            pass
        self.listener.close()
        end = time.monotonic() + 10
        for thread in self.threads:
            while thread.is_alive() and time.monotonic() < end:
                for sock in list(self.open):
                    try:
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)
                    except OSError:
                        pass
                thread.join(0.05)


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def certificate_file():
    """The tests' certificate, in a file."""
    with open(os.path.join(os.path.dirname(HERE), "test_apiproxy.py"), encoding="utf-8") as tests:
        text = re.search(r'^CERTIFICATE = """\\\n(.*?)"""', tests.read(), re.S | re.M)
    file = tempfile.NamedTemporaryFile("w", suffix=".pem")
    file.write(text.group(1))
    file.flush()
    return file


def run(seed, patience=10.0, without=(), world=None):
    """Play one seed; what was wrong, nothing if all is well. `world`, a list, gets the World."""
    plan = Plan(seed, without)
    with certificate_file() as file:
        context = ssl.create_default_context(cafile=file.name) if plan.tls else None
        threads, before = set(threading.enumerate()), descriptors()
        one = World(plan, file.name)
        if world is not None:
            world.append(one)
        play(one, context, patience)
    one.stop()
    if not one.until(lambda: not [thread for thread in threading.enumerate() if thread not in threads], 3):
        one.problem("O7: threads are left:", [thread.name for thread in threading.enumerate() if thread not in threads])
    elif not one.until(lambda: descriptors() <= before, 3):
        one.problem("O7: %d descriptors are left" % (descriptors() - before))
    return one.problems


def play(one, context, patience):
    plan = one.plan
    with FaultProxy(one.listener.getsockname()[1]) as proxy:
        client = apiproxy.Client("%s://127.0.0.1:%d" % ("https" if context else "http", proxy.port), ssl_context=context, **plan.settings)
        params = {"timeoutSeconds": plan.lifetime}
        if plan.kind == "selector":
            params["labelSelector"] = "app=x"
        if plan.kind == "limit":
            params["limit"] = plan.limit
        with one.lock:                                         # a view can't come before there is a cancel for it
            if plan.kind == "item":
                one.cancel = client.stream_result(PATH, "a", one.view, one.error, params)
            else:
                one.cancel = client.stream_results(PATH, one.view, one.error, params)
        ends, begin, done = [], time.monotonic(), False
        for at, name, how in plan.actions:
            if plan.cancel == "early" and at > plan.cancel_at:
                break
            ends.sort()
            while ends and ends[0] <= at:
                one.until(lambda: time.monotonic() - begin >= ends[0], 9)
                ends.pop(0)
                if not ends:
                    proxy.clear()
            one.until(lambda: time.monotonic() - begin >= at or one.over, 9)
            if one.over:
                break
            if name in NETWORK and name != "rewind":
                ends.append(at + how[1])
            one.act(proxy, name, how)
        if plan.cancel == "end" or plan.cancel == "inside" and not one.over:
            with one.lock:
                one.faulty = False
            proxy.clear()
            one.note("now: all faults are over")
            one.until(lambda: not one.outage or time.monotonic() > one.outage[1], 1)
            for last in (None, plan.last) if plan.last else (None,):
                if last:                                       # what only the relist now and then can heal
                    one.act(proxy, *last)
                done = one.until(lambda: one.over or one.problems or one.views and one.shown == one.history[-1], patience)
                if done:
                    continue
                one.problem("O5: after %.1f s the view is" % patience, one.shown, "and should be", one.history[-1])
            if plan.family == "silent" and one.errors:
                one.problem("O8: %d errors, but only silent faults" % one.errors)
            elif plan.family == "server" and done and not one.over and not one.problems:
                if not one.until(lambda: one.errors >= one.loud, patience) or one.errors > one.loud:
                    one.problem("O8: %d loud faults, %d errors" % (one.loud, one.errors))
        one.check_requests()
        begin = time.monotonic()
        one.cancel()
        took = time.monotonic() - begin
        calls, one.over = one.calls, True
        one.note("cancelled, in %.3f s" % took)
        if took > 1.3:
            one.problem("O7: cancel took %.3f s" % took)
        if [thread for thread in threading.enumerate() if thread.name.startswith("apiproxy-watch") and thread.is_alive()]:
            one.problem("O7: cancel left its thread")
        proxy.clear()
        for index in range(20):
            one.change(index / 20)
        if not one.until(lambda: not one.watching, 3):
            one.problem("O7: a watch's connection is left open")
        client.close()
        if not one.until(lambda: not proxy.open, 3):
            one.problem("O7: %d connections are left open" % proxy.open)
        if one.calls != calls:
            one.problem("O7: %d callbacks after cancel" % (one.calls - calls))
        for item, text in one.kept:
            if json.dumps(item, sort_keys=True) != text:
                one.problem("O9: an object was changed after it was shown:", text)
                break


def report(job):
    """One seed, in a process of its own kind: (seed, problems, text of the timeline, figures)."""
    seed, patience, without = job
    logging.getLogger("apiproxy").addHandler(logging.NullHandler())
    worlds = []
    try:
        problems = run(seed, patience, without, worlds)
    except Exception:
        problems = ["the simulation failed: " + traceback.format_exc()]
    one = worlds[0] if worlds else None
    text = ""
    if problems and one:
        plan = one.plan
        text = "%s %s tls=%s lifetime=%s short_watch=%s resync=%s bucket=%s style=%s cancel=%s\n" % (
            plan.family, plan.kind, plan.tls, plan.lifetime, plan.short_watch, plan.resync, plan.bucket, plan.style, plan.cancel)
        text += "\n".join("%8.3f  %s" % line for line in sorted(one.timeline, key=lambda line: line[0]))
    return seed, problems, text, (one.counts, one.views, len(one.requests), one.errors) if one else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("count", type=int, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--patience", type=float, default=10.0, help="seconds until the last view has to be right")
    parser.add_argument("--without", default="", help="faults to leave out, to make a failure smaller")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    args = parser.parse_args()
    jobs = [(seed, args.patience, args.without.split(",")) for seed in range(args.first, args.first + args.count)]
    begin, failed, counts, views, requests, errors = time.monotonic(), [], collections.Counter(), 0, 0, 0
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for seed, problems, text, figures in pool.imap_unordered(report, jobs):
            if problems:
                failed.append(seed)
                print("seed %d FAILED: %s\n%s\n" % (seed, "; ".join(problems), text), flush=True)
                if args.stop:
                    break
            if figures:
                counts, views, requests, errors = counts + figures[0], views + figures[1], requests + figures[2], errors + figures[3]
    print("faults: " + ", ".join("%s %d" % pair for pair in sorted(counts.items())))
    print("%d seeds, %d failed%s, %d faults of %d kinds, %d views checked, %d requests, %d errors reported, %.0f s" % (
        args.count, len(failed), " (%s)" % ", ".join(map(str, sorted(failed)[:20])) if failed else "", sum(counts.values()), len(counts), views,
        requests, errors, time.monotonic() - begin))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
