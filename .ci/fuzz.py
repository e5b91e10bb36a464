# SPDX-License-Identifier: Apache-2.0
"""Fuzzing: a million wrong frames, handshakes, answers and watches, and no surprise.

    python .ci/fuzz.py 1000000 --jobs 2
    python .ci/fuzz.py 100000 --seed 7 --only frames
    python .ci/fuzz.py --case frames:7:4711

A case is made from its kind, a seed and its number, and from nothing else. It begins with something legal, which is
then spoilt: in its structure, in its octets, or not at all. What a case must show:

    frames      the messages and the end that a slow and simple decoder of our own finds, however the octets are cut
    handshakes  `WebSocket.connect` accepts exactly what RFC 6455 lets a client accept; then frames, as above
    answers     what a simple reading of RFC 9112 makes of them, or an ApiError; the next call gets its own answer
    events      a watch calls err_cb with ApiErrors and never ends by itself; no object is in a view twice, views of legal
                lists and events are right, and after what can't be read it lists again

Nothing else may be raised, nothing may take long or much memory. Below the module there is no socket: `Line` takes the
place of a connection, and knows what comes next. What failed is printed with the command that runs it again.
"""

import argparse
import base64
import collections
import faulthandler
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apiproxy  # noqa: E402

SECONDS = 10.0  # that a case may take: on a busy machine, too
MEMORY = 80 << 20  # octets by which the process may grow
BATCH = 1000  # cases between two looks at its memory

Outcomes = collections.Counter


class Wrong(Exception):
    """The module did what it must not do."""


class Hang(BaseException):
    """A case took too long."""


# ------------------------------------------------------------------------------
# Spoiling
# ------------------------------------------------------------------------------


def mutate(chance, data, evil, other=b""):
    """`data` after a few accidents; `evil` are values known to make trouble, `other` something to splice in."""
    rand, out = chance.random, bytearray(data)
    for _ in range(1 if rand() < 0.6 else 1 + int(rand() * 5)):
        at = int(rand() * (len(out) + 1))
        size = (1, 1, 1, 2, 4, 9, 40)[int(rand() * 7)]
        how = int(rand() * 10)
        if how == 0 and at < len(out):
            out[at] ^= 1 << int(rand() * 8)
        elif how == 1 and at < len(out):
            out[at] = int(rand() * 256)
        elif how == 2:
            piece = evil[int(rand() * len(evil))]
            out[at:at + len(piece)] = piece
        elif how == 3:
            out[at:at] = evil[int(rand() * len(evil))]
        elif how == 4:
            del out[at:at + size]
        elif how == 5:
            out[at:at] = out[at:at + size] * (1 if rand() < 0.9 else 50)
        elif how == 6:
            del out[at:]
        elif how == 7:
            out[at:] = other[int(rand() * (len(other) + 1)):]
        elif how == 8:
            piece = out[at:at + size]
            del out[at:at + size]
            into = int(rand() * (len(out) + 1))
            out[into:into] = piece
        else:
            numbers = list(re.finditer(rb"\d+", out))
            if numbers:
                found = numbers[int(rand() * len(numbers))]
                out[found.start():found.end()] = NUMBERS[int(rand() * len(NUMBERS))]
    return bytes(out)


NUMBERS = [b"0", b"1", b"-1", b"+5", b" 5", b"007", b"1_0", b"0x10", b"99", b"101", b"200", b"204", b"304", b"410", b"503",
           b"4294967296", b"9223372036854775808", b"1e5", b"1.5", b"", b"9" * 30, b"9" * 5000, "٣".encode(), b"NaN"]


def pieces(chance, data):
    """`data` as it may arrive: whole, octet by octet, or cut anywhere."""
    rand = chance.random
    kind = rand()
    if kind < 0.4 or len(data) < 2:
        return [data]
    if kind < 0.5 and len(data) < 400:
        return [data[at:at + 1] for at in range(len(data))]
    cuts = sorted(int(rand() * len(data)) for _ in range(1 + int(rand() * 6)))
    return [piece for piece in (data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])) if piece]


def pick(chance, values):
    """chance.choice, faster."""
    return values[int(chance.random() * len(values))]


# ------------------------------------------------------------------------------
# Below the module: what takes the place of connections
# ------------------------------------------------------------------------------


NOTHING = "nothing comes"  # what our time-outs say
ENDS, STAYS, RESETS = range(3)  # what a connection does when nothing more is to come


class Line(apiproxy.Wire):
    """A connection without a socket: each request is answered with pieces of octets, and then it ends or stays open."""

    def __init__(self, answer, end=ENDS):
        self._answer, self.end = answer, end  # answer(request) gives pieces, to be delivered in order; end: what comes then
        self._pieces, self._at, self._sent, self.gone = collections.deque(), 0, b"", False
        self.taken = 0.0  # see Wire

    def read(self, space):
        """See Wire.read."""
        if self.gone:
            raise ConnectionAbortedError("closed here")
        if self._sent:
            sent, self._sent = self._sent, b""
            self._pieces.extend(self._answer(sent))
        if not self._pieces:
            if self.end == RESETS:
                raise ConnectionResetError("reset")
            return None if self.end == STAYS else 0
        piece = self._pieces[0]
        count = min(len(space), len(piece) - self._at)
        space[:count] = piece[self._at:self._at + count]
        self._at += count
        if self._at == len(piece):
            self._pieces.popleft()
            self._at = 0
        return count

    def write(self, data):
        """See Wire.write."""
        if self.gone:
            raise ConnectionAbortedError("closed here")
        self._sent += data
        return True

    def wait(self, seconds, write=False):
        """Nothing more will come: the time is over at once."""
        raise TimeoutError(NOTHING)

    def end_writing(self):
        """Then the peer ends it too."""
        self.end = ENDS

    def close(self):
        """See Wire.close."""
        self.gone = True


class Lines:
    """In the place of Wire.open: the connections that a case wants, in order."""

    def __init__(self):
        self.make, self.opened = None, []

    def open(self, *_args, **_kwargs):
        """A new Line."""
        self.opened.append(self.make(len(self.opened)))
        return self.opened[-1]

    def reset(self, make):
        """For a new case: make(index) gives its lines."""
        self.make, self.opened = make, []


LINES = Lines()


class patched:
    """While a case runs, connections are Lines and nothing is logged."""

    def __enter__(self):
        self._open, apiproxy.Wire.open = apiproxy.Wire.__dict__["open"], LINES.open
        self._disabled, apiproxy.log.disabled = apiproxy.log.disabled, True

    def __exit__(self, *_):
        apiproxy.Wire.open, apiproxy.log.disabled = self._open, self._disabled


# ------------------------------------------------------------------------------
# frames
# ------------------------------------------------------------------------------

TEXTS = [b"", b"a", "é€😀".encode(), b"x" * 125, b"y" * 126, "€".encode() * 50, b"z" * 300, b'{"type": "ADDED"}\n', b"\0" * 7]
NOT_UTF8 = [b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f", b"\xf8\x88\x80\x80\x80"]
CODES = [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]
EVIL_FRAMES = [
    b"\x81\x7e\x00\x7d", b"\x81\x7f" + b"\0" * 8, b"\x82\x7f\x80" + b"\0" * 7, b"\x82\x7f\x7f" + b"\xff" * 7, b"\x82\x7e\xff\xff",
    b"\x01\x00", b"\x00\x00", b"\x80\x00", b"\x89\x00", b"\x89\x7e\x00\x7e", b"\x88\x01\x03", b"\x88\x02\x03\xe8", b"\x09\x00",
    b"\xc1\x00", b"\x83\x00", b"\x8b\x00", b"\x81\x80\0\0\0\0", b"\x81\xfe", b"\x02\x7f\0\0\0\0\0\x10\0\0"] + NOT_UTF8
_UTF8 = (rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
         rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}")
# of half a surrogate CPython waits for the third octet, as "surrogatepass" would take it (bpo-24214)
_CUT = (rb"[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xec\xee\xef][\x80-\xbf]?|\xed[\x80-\xbf]?|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?"
        rb"|[\xf1-\xf3][\x80-\xbf]{0,2}|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?")
WHOLE = re.compile(b"(?:" + _UTF8 + b")*")
BEGINNING = re.compile(b"(?:" + _UTF8 + b")*(?:" + _CUT + b")?")


def frame(opcode, payload, fin=True, width=None, rsv=0):
    """A server's frame; `width` octets of length where the shortest form is not wanted."""
    size = len(payload)
    if width is None:
        width = 0 if size < 126 else 2 if size < 1 << 16 else 8
    mark = {0: size & 127, 2: 126, 8: 127}[width]
    return bytes((fin << 7 | rsv << 4 | opcode, mark)) + (size.to_bytes(width, "big") if width else b"") + payload


def some_frames(chance):
    """Legal frames, but for a close that others may follow."""
    rand, found = chance.random, []
    for _ in range(1 + int(rand() * 4)):
        kind = rand()
        if kind < 0.2:
            found.append(frame(9 if kind < 0.15 else 10, pick(chance, TEXTS[:4])))
        elif kind < 0.27:
            found.append(frame(8, b"" if kind < 0.22 else pick(chance, CODES).to_bytes(2, "big") + pick(chance, TEXTS[:4])[:123]))
        elif kind < 0.32 and rand() < 0.02:  # rare: larger than the reader's buffers
            found.append(frame(1 if kind < 0.3 else 2, b"w" * pick(chance, (4090, 4096, 4097, 16384, 65535, 65536, (1 << 18) - int(rand() * 40)))))
        else:
            opcode = 2 if kind < 0.55 else 1
            payload = pick(chance, TEXTS) + pick(chance, TEXTS)
            if kind < 0.75:
                found.append(frame(opcode, payload))
                continue
            cuts = [0] + sorted(int(rand() * (len(payload) + 1)) for _ in range(1 + int(rand() * 3))) + [len(payload)]
            for index, (start, end) in enumerate(zip(cuts, cuts[1:])):  # characters are cut too
                found.append(frame(0 if index else opcode, payload[start:end], fin=end == len(payload) and index == len(cuts) - 2))
                if rand() < 0.3:
                    found.append(frame(9, b"p"))
    return found


def spoil_frame(chance, octets):
    """One frame with something illegal, or odd, in its head or its text; those after it stay where they were."""
    rand, out = chance.random, bytearray(octets)
    how = int(rand() * 8)
    if how == 0:
        out[0] ^= 0x10 << int(rand() * 3)
    elif how == 1:
        out[0] = out[0] & 0xF0 | int(rand() * 16)
    elif how == 2:
        out[0] ^= 0x80
    elif how == 3:
        out[1] ^= 0x80
    elif how == 4:
        return frame(out[0] & 15, bytes(out[2:]), bool(out[0] & 0x80), pick(chance, (2, 8)) if len(out) < 65536 else 8)
    elif how == 5:
        out[1] = pick(chance, (0, 1, 125, 126, 127))
    elif how == 6:
        out += pick(chance, NOT_UTF8)
        return frame(out[0] & 15, bytes(out[2:]), bool(out[0] & 0x80))
    else:
        return octets * 2
    return bytes(out)


def some_wire(chance):
    """Octets that may be frames."""
    found, kind = some_frames(chance), chance.random()
    if 0.3 < kind < 0.7:
        at = int(chance.random() * len(found))
        found[at] = spoil_frame(chance, found[at])
    wire = b"".join(found)
    if kind > 0.55:
        wire = mutate(chance, wire, EVIL_FRAMES, wire[::-1] if kind > 0.98 else b"".join(some_frames(chance)))
    return wire


def decode(wire, limit):
    """What RFC 6455 makes of a server's octets: messages and control frames, and the code of the first fault, else None."""
    found, at, opcode, parts = [], 0, 0, b""
    while len(wire) - at >= 2:
        fin, kind, size, start = wire[at] >> 7, wire[at] & 15, wire[at + 1] & 127, at + 2
        if wire[at] & 0x70 or wire[at + 1] & 0x80 or kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            return found, 1002
        if kind > 7 and (size > 125 or not fin):
            return found, 1002
        width = {126: 2, 127: 8}.get(size, 0)
        if len(wire) - start < width:
            break
        if width:
            size, start = int.from_bytes(wire[start:start + width], "big"), start + width
            if size < 126 or width == 8 and (size < 65536 or size > 0x7FFFFFFFFFFFFFFF):
                return found, 1002
        payload = wire[start:start + size]
        if kind > 7:
            if len(payload) < size:
                break
            found.append((kind, payload))
        else:
            if (kind == 0) != (opcode != 0):
                return found, 1002
            if len(parts) + size > limit:
                return found, 1009
            opcode, parts = kind or opcode, parts + payload
            whole = fin and len(payload) == size
            if opcode == 1 and not (WHOLE if whole else BEGINNING).fullmatch(parts):
                return found, 1007
            if len(payload) < size:
                break
            if whole:
                found.append((opcode, parts.decode() if opcode == 1 else parts))
                opcode, parts = 0, b""
        at = start + size
    return found, None


def frames(chance):
    """One case of MessageReader."""
    wire, limit = some_wire(chance), pick(chance, (130, 500, 500, 300000))
    if chance.random() < 0.002:  # heads are cut where the reader's buffer ends, after it has grown to 4, 16, 64 and 256 KiB
        wire, limit = frame(2, bytes((340 << 10) - int(chance.random() * 60))) + wire, 400000
    reader, found, fault = apiproxy.MessageReader(limit), [], None
    try:
        for piece in pieces(chance, wire):
            while piece:
                space = reader.space()[:len(piece)]
                if not space:
                    raise Wrong("no space, and nothing to take")
                space[:], piece = piece[:len(space)], piece[len(space):]
                reader.received(len(space))
                while True:
                    message = reader.next()
                    if message is None:
                        break
                    if type(message[1]) is not (str if message[0] == 1 else bytes):
                        raise Wrong("%r of type %s" % (message, type(message[1])))
                    found.append(message)
                    if message[0] == 8:
                        try:
                            apiproxy.parse_close(message[1])
                        except apiproxy.ProtocolError as error:
                            if error.code not in (1002, 1007):
                                raise Wrong("code %d for a close frame" % error.code)
    except apiproxy.ProtocolError as error:
        fault = error.code
    if (found, fault) != decode(wire, limit):
        raise Wrong("%r, limit %d: the module finds %r, we %r" % (wire, limit, (found, fault), decode(wire, limit)))
    return "legal" if fault is None else fault


# ------------------------------------------------------------------------------
# handshakes
# ------------------------------------------------------------------------------

OFFERED = ["base64.binary.k8s.io", "v4.channel.k8s.io"]
ACCEPT = b"<accept>" * 3 + b"xxx="  # stands for the right value, which depends on the key; as long as that
EVIL_HEADS = [
    b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b",", b"\x7f", b"\xff", b"\x85", b"\xa0", b"\r\n ", b"\r\n\r\n", b"HTTP/1.1 101 \r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0", b"HTTP/1.1 200 OK\r\n", b"upgrade", b"websocket", b"h2c", b"permessage-deflate",
    b"Sec-WebSocket-Accept: x\r\n", b"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"X: " + b"y" * 70000, ACCEPT, b"9" * 20, "é".encode()]
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\xff]*)")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\xff]*)?")


def some_handshake(chance):
    """The lines of an answer to an upgrade, legal or with wrong ones."""
    rand = chance.random
    lines = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT]
    status = b"HTTP/1.1 101 Switching Protocols"
    if rand() < 0.6:
        lines.append(b"Sec-WebSocket-Protocol: " + pick(chance, OFFERED).encode())
    if rand() < 0.3:
        lines.append(pick(chance, (b"Server: x", b"Date: now", b"X-A:", b"Set-Cookie: a, b; c=\xe9", b"Sec-WebSocket-Extensions:")))
    if rand() < 0.45:
        at, how = int(rand() * len(lines)), int(rand() * 11)
        name, _, value = lines[at].partition(b": ")
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.append(lines[at])
        elif how == 2:
            lines[at] = lines[at].swapcase() if b"Accept" not in name else name.upper() + b": " + value
        elif how == 3:
            lines[at] = name + b": " + pick(chance, (b"", b"x", b"websocket, h2c", b"keep-alive, upgrade", b"chat", value + b"," + value))
        elif how == 4:
            lines[at] = name + pick(chance, (b" : ", b":", b":\t ", b"=", b"\0: ")) + value
        elif how == 5:
            lines[at] = name + b": " + value + pick(chance, (b" ", b"\t", b"\xa0", b"\x85", b"\x0b", b"\x7f", b";q=1", b",", b"\r"))
        elif how == 6:
            lines.insert(at, b" folded")
        elif how == 7:
            lines.append(b"Sec-WebSocket-Extensions: permessage-deflate")
        elif how == 8:
            status = pick(chance, (
                b"HTTP/1.1 200 OK", b"HTTP/1.0 101 x", b"HTTP/1.1 403 Forbidden", b"HTTP/1.1 401 ", b"HTTP/1.1 302 Found",
                b"HTTP/1.1 101", b"HTTP/1.1 1010 x", b"HTTP/2 101", b"HTTP/1.1  101 x", b"http/1.1 101 x", b"HTTP/1.1 410 Gone"))
            lines += [b"Content-Length: 17", b"Location: ws://elsewhere/"]
        elif how == 9:
            chance.shuffle(lines)
        else:
            lines += [b"X-Many: %d" % number for number in range(pick(chance, (99, 101, 300)))]
    return b"\r\n".join([status] + lines) + b"\r\n\r\n"


def parse(head):
    """(minor version, status, {name: values}) of an answer's head, None when it is not one."""
    lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(lines[0])
    if not status:
        return None
    headers = collections.defaultdict(list)
    for line in lines[1:]:
        header = _HEADER.fullmatch(line)
        if not header:
            return None
        headers[header.group(1).lower()].append(header.group(2).strip(b" \t"))
    return int(status.group(1)), int(status.group(2)), headers


def tokens(values):
    """The elements of a header's values, in lower case."""
    return [token.strip(b" \t").lower() for value in values for token in value.split(b",")]


def interim(octets):
    """(how many interim answers come first, what follows them)."""
    count = 0
    while True:
        head, end, rest = octets.partition(b"\r\n\r\n")
        found = parse(head) if end else None
        if not found or found[1] >= 200 or found[1] == 101:
            return count, octets
        count, octets = count + 1, rest


def judge(octets):
    """(subprotocol, octets after the head) if a client may take this for a WebSocket, else None; ACCEPT is right."""
    head, end, rest = interim(octets)[1].partition(b"\r\n\r\n")
    minor, status, headers = end and parse(head) or (0, 0, None)
    if (minor, status) != (1, 101):
        return None
    protocols = headers[b"sec-websocket-protocol"]
    if (tokens(headers[b"upgrade"]) != [b"websocket"] or b"upgrade" not in tokens(headers[b"connection"])
            or headers[b"sec-websocket-accept"] != [ACCEPT] or any(tokens(headers[b"sec-websocket-extensions"])) or len(protocols) > 1
            or protocols and protocols[0].decode("latin-1") not in OFFERED):
        return None
    return protocols[0].decode() if protocols else "", rest


def accept_for(request):
    """What answers a request's key."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request).group(1)
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def handshakes(chance):
    """One case of WebSocket.connect, and of the frames after it."""
    octets = some_handshake(chance)
    if chance.random() < 0.1:
        octets = pick(chance, (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n")) * int(chance.random() * 8) + octets
    octets += some_wire(chance) if chance.random() < 0.7 else b"{\"message\": \"no\"}"
    if chance.random() < 0.5:
        octets = mutate(chance, octets[:400], EVIL_HEADS, some_handshake(chance)) + octets[400:]
    parts, end = pieces(chance, octets), pick(chance, (ENDS, ENDS, ENDS, STAYS, RESETS))
    stays = end == STAYS

    def answer(request):
        if b"Sec-WebSocket-Key" not in request:
            return ()  # our pongs, our close
        size = len(octets) - len(expected[1]) if expected else len(octets)
        whole, found, at = octets[:size].replace(ACCEPT, accept_for(request)) + octets[size:], [], 0
        for part in parts:  # the same length, so the same cuts
            found.append(whole[at:at + len(part)])
            at += len(part)
        return found

    expected, limit = judge(octets), 500
    LINES.reset(lambda index: Line(answer, end))
    try:
        one = apiproxy.WebSocket.connect("ws://fuzz.invalid/x", protocols=OFFERED, proxy="", max_message_size=limit, close_timeout=0.0)
    except apiproxy.ApiError as error:
        if expected and len(octets) - len(expected[1]) < apiproxy.MAX_HEAD - 5000 and interim(octets)[0] < 6:
            raise Wrong("%r was refused: %s" % (octets, error)) from error
        if error.message == NOTHING and not stays:
            raise Wrong("%r timed out" % octets) from error
        if not LINES.opened[0].gone:
            raise Wrong("the connection is left open") from error
        str(error)
        return error.status if isinstance(error, apiproxy.HandshakeError) else "error %s" % error.status
    if expected is None or one.protocol != expected[0]:
        raise Wrong("%r was accepted" % octets)
    messages, code = decode(expected[1], limit)
    ended = None
    for kind, payload in messages:
        if kind == 8:
            try:
                ended = apiproxy.parse_close(payload)[0]
            except apiproxy.ProtocolError as error:
                code = error.code
            break
        if kind < 8 and one.recv() != payload:
            raise Wrong("%r: %r did not come" % (octets, payload))
    try:
        raise Wrong("%r: %r came" % (octets, one.recv()))
    except apiproxy.ProtocolError as error:
        if ended or error.code != code:
            raise Wrong("%r: closed with %d, not %s" % (octets, error.code, code)) from error
    except apiproxy.ConnectionClosed as error:
        if error.code != (ended or 1006) or not ended and (code or stays):
            raise Wrong("%r: ended with %d" % (octets, error.code)) from error
    except TimeoutError as error:
        if ended or code or not stays:
            raise Wrong("%r: nothing came" % octets) from error
        one.abort()
    if not LINES.opened[0].gone:
        raise Wrong("the connection is left open")
    return "open"


# ------------------------------------------------------------------------------
# answers
# ------------------------------------------------------------------------------

MAX_BODY = 200000
STATUS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": "Gone", "code": 410,
          "details": {"name": "x", "retryAfterSeconds": 3}}
BODIES = [json.dumps(body).encode() for body in (
    {}, [], None, 0, "é", {"a": 1}, STATUS, {"message": ["no"], "reason": {}, "details": {"retryAfterSeconds": {}}},
    {"kind": "List", "items": None}, {"x": "y" * 900}, {"details": [], "code": "x"})] + [
    b"", b" ", b"<html>", b"oops", b"\xff\xfe{\0}\0", b"[" * 50000, b"[" * 300 + b"]" * 300, b"9" * 4400, b"-", b'"\\ud800"', b'{"a":NaN}', b"1e999"]
_BLOCK = zlib.compressobj(9, zlib.DEFLATED, -15)
LARGE = json.dumps([0] * 50000).encode()
BOMB = gzip.compress(b"")[:10] + (_BLOCK.compress(bytes(1 << 20)) + _BLOCK.flush(zlib.Z_FULL_FLUSH)) * 90
VALUES = [b"", b"0", b"3", b"-1", b"9" * 30, b"9" * 4400, b"1.5", b"abc", b"Mon, 01 Jan 2001 00:00:00 GMT", b"Fri, 31 Dec 9999 23:59:59 -2359",
          b"Sat, 01 Jan 0000 00:00:00 GMT", b"Mon, 99 Foo 99999999999 25:61:61 +9999", b"1 Jan 1 0:0 Z", b"=?utf-8?q?=ff?=", b"a;b", b"\xe9"]
EVIL_ANSWERS = EVIL_HEADS[:16] + VALUES + [
    b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"-1\r\n", b"ffffffffffffffff\r\n", b"5;x=y\r\n", b"+5\r\n", b"1_0\r\n", b"\x1f\x8b\x08", b"identity",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n", b"Content-Length: 99999999999\r\n", b"Content-Encoding: gzip\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Retry-After: ", b"X-Reload: reload\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"]
NEXT = b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Authorization: next\r\n\r\n"next"'


def chunked(chance, body):
    """`body` in chunks."""
    rand, out, at = chance.random, [], 0
    while at < len(body):
        size = 1 + int(rand() * len(body))
        piece = body[at:at + size]
        out.append(b"%x%s\r\n%s\r\n" % (len(piece), b";x=y" if rand() < 0.1 else b"", piece))
        at += size
    return b"".join(out) + pick(chance, (b"0\r\n\r\n", b"0\r\n\r\n", b"000\r\nX: y\r\n\r\n"))


def some_answer(chance):
    """(octets, status, body) of a legal answer; whether the connection may be kept comes last."""
    rand = chance.random
    body, lines = LARGE if rand() < 0.002 else pick(chance, BODIES), [b"Content-Type: " + pick(chance, (b"application/json", b"text/html"))]
    status = pick(chance, (200, 200, 200, 201, 202, 204, 304, 301, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503))
    if status in (204, 304):
        body = b""
    sent = body
    if rand() < 0.25:
        lines.append(b"Retry-After: " + pick(chance, VALUES))
    if rand() < 0.1:
        lines.append(pick(chance, (b"X-Reload: reload", b"X-Authorization: t", b"Location: http://x/", b"Set-Cookie: \xe9")))
    if rand() < 0.25 and body:
        lines.append(b"Content-Encoding: " + pick(chance, (b"gzip", b"x-gzip", b"GZIP")))
        sent = gzip.compress(body, 1)
    framing, keeps = rand(), True
    if status in (204, 304):
        pass
    elif framing < 0.5:
        lines.append(b"Content-Length: %d" % len(sent))
    elif framing < 0.85:
        lines.append(b"Transfer-Encoding: chunked")
        sent = chunked(chance, sent)
    else:
        keeps = False
    if rand() < 0.1:
        lines.append(b"Connection: close")
        keeps = False
    minor = 0 if rand() < 0.05 else 1
    keeps = keeps and minor == 1
    chance.shuffle(lines)
    first = pick(chance, (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n")) if rand() < 0.05 else b""
    return first + b"HTTP/1.%d %d Reason\r\n%s\r\n\r\n" % (minor, status, b"\r\n".join(lines)) + sent, status, body, keeps


def spoil_answer(chance, octets):
    """An answer whose head, length or coding does not fit its body."""
    head, _, body = octets.partition(b"\r\n\r\n")
    how = int(chance.random() * 7)
    if chance.random() < 0.004:
        return b"HTTP/1.1 %d Large\r\n\r\n" % pick(chance, (200, 500)) + bytes(1200000)
    if how == 0:
        head += b"\r\nContent-Length: " + pick(chance, VALUES + NUMBERS)
    elif how == 1:
        head += b"\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked"
    elif how == 2:
        body = body[:int(chance.random() * len(body))]
    elif how == 3:
        body += NEXT if chance.random() < 0.5 else b"junk"
    elif how == 4:
        packed = pick(chance, (BOMB[:200], gzip.compress(b"{}") * 2, gzip.compress(b"{}")[:-5], zlib.compress(b"{}"), b"x" * 6000))
        if chance.random() < 0.05:
            packed = BOMB
        head = b"HTTP/1.1 %d x\r\nContent-Encoding: gzip" % pick(chance, (200, 200, 500))
        kind = chance.random()
        if kind < 0.4:
            head += b"\r\nContent-Length: %d" % len(packed)
        elif kind < 0.8:
            head, packed = head + b"\r\nTransfer-Encoding: chunked", chunked(chance, packed)
        body = packed
    elif how == 5:
        at = body.find(b"\r\n")
        body = pick(chance, NUMBERS + [b"-1", b"fffffffffffffffff", b"5 5", b"g", b";", b"1" * 70000]) + body[max(0, at):]
        head += b"\r\nTransfer-Encoding: chunked"
    else:
        lines = b"".join(b"X-%d: y\r\n" % number for number in range(pick(chance, (20, 90, 101, 200))))
        if chance.random() < 0.3:
            return b"HTTP/1.1 103 Early\r\n\r\n" * (len(lines) % 19) + octets
        if chance.random() < 0.5:
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + lines + b"\r\n"
        head += b"\r\n" + lines[:-2]
    return head + b"\r\n\r\n" + body


def judge_answer(octets, end):
    """("data", status, body) if RFC 9112 has one reading of this, ("bad", status or None, None) if none, else None."""
    count, octets = interim(octets)
    head, mark, rest = octets.partition(b"\r\n\r\n")
    if count > 5 or len(head) > 50000:
        return None
    _, status, headers = mark and parse(head) or (0, None, None)
    if status is None:
        return "bad", None, None
    bad, lengths, codings = ("bad", status, None), set(tokens(headers[b"content-length"])), tokens(headers[b"transfer-encoding"])
    if lengths and (codings or status in (101, 204, 304)):
        return None  # a length that does not count: it may be refused all the same
    if status in (101, 204, 304):
        body = b""
    elif codings:
        if codings != [b"chunked"]:
            return bad
        body = b""
        while True:
            line, mark, rest = rest.partition(b"\r\n")
            size = re.fullmatch(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?", line)
            if not mark or not size:
                return bad if b"\r" not in line and b"\n" not in line and len(line) < 4000 else None
            if len(line) > 4000:
                return None
            count = int(size.group(1), 16)
            if len(size.group(1)) > 15 and count < 1 << 60:
                return None
            if not count:
                break
            body, mark, rest = body + rest[:count], rest[count:count + 2], rest[count + 2:]
            if mark != b"\r\n":
                return bad
        if rest.count(b"\r\n") > 90:
            return None
        while not rest.startswith(b"\r\n"):  # trailers
            line, mark, rest = rest.partition(b"\r\n")
            if len(line) > 4000:
                return None
            if not mark:
                return bad
            if not _HEADER.fullmatch(line):
                return None
    elif lengths:
        length = lengths.pop()
        if lengths or not re.fullmatch(b"[0-9]+", length) or len(length) > 90 or int(length) > len(rest):
            return bad
        body = rest[:int(length)]
    elif end == ENDS:
        body = rest
    else:
        return bad
    coding = headers[b"content-encoding"]
    if len(coding) > 1:
        return None
    if body and coding and coding[0].lower() in (b"gzip", b"x-gzip"):
        unzip = zlib.decompressobj(31)
        try:
            body = unzip.decompress(body, MAX_BODY + 1)
        except zlib.error:
            return bad
        if unzip.unused_data:
            return None  # several members: may be refused
        if not unzip.eof:
            return bad
    return bad if len(body) > MAX_BODY else ("data", status, body)


def summary(call, *args):
    """What a call gives, or the status of its ApiError, comparable."""
    try:
        found = call(*args)
    except apiproxy.ApiError as error:
        str(error)
        if len(error.body) > 1 << 20 or not isinstance(error.message, str) or not isinstance(error.details, dict):
            raise Wrong("an ApiError with %r" % vars(error)) from error
        if error.retry_after is not None and not error.retry_after >= 0:
            raise Wrong("retry after %r" % error.retry_after) from error
        return "error", error.status, error.message, error.body
    if isinstance(found, apiproxy.Response):
        if len(found.body) > MAX_BODY:
            raise Wrong("a body of %d" % len(found.body))
        return "response", found.status, found.body
    return "json", repr(found)


def new_client(**settings):
    """A Client of a cluster that is reached without proxies."""
    one = apiproxy.Client("", cluster="c", max_body=MAX_BODY, list_idle=1.0, **settings)
    one.add_endpoint("c", apiproxy.Endpoint("http://fuzz.invalid", proxy=""))
    return one


CLIENT = new_client()


def answers(chance):
    """One case of Client.request: an answer, and the next one."""
    octets, status, body, keeps = some_answer(chance)
    kind, end, options = chance.random(), pick(chance, (ENDS, STAYS, STAYS, RESETS)), {"isJSON": chance.random() < 0.5}
    twice, dies, spoilt, stays = chance.random() < 0.5, chance.random() < 0.2, kind > 0.25, end == STAYS
    if chance.random() < 0.1:
        options.update(method="POST", body="{}")
    if 0.25 < kind < 0.55:
        octets = spoil_answer(chance, octets)
    elif spoilt:
        octets = mutate(chance, octets, EVIL_ANSWERS, some_answer(chance)[0])

    def ask(parts):
        """The outcomes of one call, or of two, on one client."""
        first = [parts]

        def answer(request):
            if first:
                return first.pop()
            if dies and len(LINES.opened) == 1:  # on the kept connection: the module has to take another
                LINES.opened[0].end = pick(chance, (ENDS, RESETS))
                return []
            return [NEXT]

        LINES.reset(lambda index: Line(answer, STAYS if not spoilt and keeps else end))
        try:
            return summary(CLIENT.request, "/x", options), summary(CLIENT.request, "/y") if twice else NEXT
        finally:
            CLIENT.close()
            if not all(line.gone for line in LINES.opened):
                raise Wrong("%r: a connection is left open" % octets)

    found, then = ask(pieces(chance, octets))
    if twice and not spoilt and not keeps and len(LINES.opened) == 1:
        raise Wrong("%r: asked again on a connection that was to be closed" % octets)
    if then not in (NEXT, ("json", "'next'")):
        raise Wrong("%r: the next call got %r" % (octets, then))
    if found[:3] == ("error", 408, NOTHING) and not stays:
        raise Wrong("%r: timed out" % octets)
    if kind > 0.9:
        whole = ask([octets])[0]
        if whole != found and not whole[:2] == found[:2] == ("error", 502):  # whose words may differ
            raise Wrong("%r: %r, and whole %r" % (octets, found, whole))
    end = STAYS if not spoilt and keeps else end
    expected = judge_answer(octets, end)
    if not spoilt and expected != ("data", status, body) and (keeps or end == ENDS):
        raise Wrong("%r: we take it for %r" % (octets, expected))
    if expected and not right(expected, found, options["isJSON"]):
        raise Wrong("%r: the module finds %r, we %r" % (octets, found, expected))
    return found[0] if found[0] != "error" else found[1]


def right(expected, found, as_json):
    """Whether `found` is what has to come of an answer."""
    verdict, status, body = expected
    if status is not None and not 200 <= status < 300:
        return found[:2] == ("error", status) or verdict == "bad" and found[0] == "error" and (status < 400 or found[1] == 408)
    if verdict == "bad":
        return found[0] == "error"
    if not as_json:
        return found == ("response", status, body)
    value = loads(body)
    return found[:2] == ("error", status) if value is Wrong else found == ("json", repr(value))


def loads(body):
    """The JSON in `body`, None when there is none, Wrong when it is not JSON."""
    try:
        return json.loads(body) if body.strip() else None
    except (ValueError, RecursionError):
        return Wrong


# ------------------------------------------------------------------------------
# events
# ------------------------------------------------------------------------------

EVIL_JSON = [
    b"null", b"true", b"[]", b"{}", b'""', b"0", b"-1", b"1e999", b"NaN", b'"\\ud800"', b'"9"', b'"' + b"9" * 4400 + b'"', b"9" * 4400,
    b"[" * 50000, b'{"a":' * 400, b'"metadata"', b'"resourceVersion"', b'"uid"', b'"object"', b'"items"', b'"continue"', b'"kind"', b",",
    b":", b"}", b"]", b'"', b"\\", b"\0", b"\xff", b"\r\n", b'"ERROR"', b'"BOOKMARK"', b'"DELETED"', b'"Status"', b'"Table"', b"410", b'"Expired"',
    '"٣"'.encode(), b'"code"', b'"details":{"retryAfterSeconds":"x"}', b"\xef\xbb\xbf"]
ODD = [None, True, 0, -1, 1.5, "", "x", "7", "9" * 4400, "\ud800", "a b", "a&b=c#", "\0", "٣", [], [1], {}, {"a": 1}, float("nan"), [[]]]
CLOSES = [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000]


class Script:
    """What a watch meets: bodies of lists, and messages of watches. A Requester, see part 1 of the module."""

    def __init__(self, chance):
        self.chance, self.tasks, self.watch = chance, {}, None
        self.settings = pick(chance, SETTINGS)
        self.version, self.serial = 100, 0
        self.objects = {}  # the truth: name: object
        self.rest = None  # the second page of a list
        self.sent = []  # legal events so far
        self.resume = 0  # while it is clean: the version to go on from
        self.left = 2 + int(chance.random() * 5)  # requests until it is cancelled
        self.must_list = False  # what came last can't be read
        self.clean = True  # nothing was spoilt since the last list
        self.asked = []

    def change(self):
        """A change of the truth, as an event."""
        self.version += 1
        name = "n%d" % int(self.chance.random() * 4)
        known, kind = self.objects.get(name), self.chance.random()
        if known and kind < 0.4:
            action, item = "DELETED", dict(known, metadata=dict(known["metadata"], resourceVersion=str(self.version)))
            del self.objects[name]
        else:
            self.serial += not known
            uid = known["metadata"]["uid"] if known else "u%d" % self.serial
            action, item = "MODIFIED" if known else "ADDED", {"kind": "Pod", "apiVersion": "v1", "metadata": {
                "name": name, "uid": uid, "resourceVersion": str(self.version), "creationTimestamp": "2020-01-01T00:00:%02dZ" % (self.version % 60)}}
            self.objects[name] = item
        return {"type": action, "object": item}

    def odd(self, value):
        """`value` with one thing in it, at any depth, replaced, taken out or added."""
        value, at = json.loads(json.dumps(value)), None
        at = value
        for _ in range(6):
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = pick(self.chance, keys)
            if isinstance(at[key], (dict, list)) and at[key] and self.chance.random() < 0.8:
                at = at[key]
                continue
            if self.chance.random() < 0.25 and isinstance(at, dict):
                del at[key]
            else:
                at[key] = pick(self.chance, ODD)
            break
        return value

    def page(self, single, goes_on):
        """(status, octets) of a list or of the rest of one, or of the object "n1"."""
        rand = self.chance.random
        if goes_on and self.rest:
            page, self.rest, self.clean = self.rest, None, True
            return 200, page
        for _ in range(int(rand() * 3)):
            self.change()
        while single and "n1" not in self.objects:
            self.change()
        page = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}, "items": [
            {key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in self.objects.values()]}
        self.resume = self.version
        if single:
            page = json.loads(json.dumps(self.objects["n1"]))
            self.resume = int(page["metadata"]["resourceVersion"])
        kind, status = rand(), 200
        self.clean = kind < 0.5 and not goes_on
        if kind < 0.1 and len(self.objects) > 1 and not single and not goes_on:
            self.rest = json.dumps({**page, "metadata": {"resourceVersion": str(self.version + 7)}, "items": page["items"][1:]}).encode()
            page["metadata"]["continue"], page["items"], self.clean = "more", page["items"][:1], False
        elif kind < 0.5:
            if not page.get("items", 1) and rand() < 0.5:
                page["items"] = None
        elif kind < 0.55:
            page["metadata"]["continue"] = "same" if goes_on else pick(self.chance, ODD + ["same"] * 10)
        elif kind < 0.8:
            page = self.odd(page)
        elif kind < 0.9:
            status, page = pick(self.chance, (410, 429, 500, 504, 403, 404, 301)), pick(self.chance, (STATUS, {}, [], self.odd(STATUS)))
        octets = json.dumps(page).encode()
        return status, mutate(self.chance, octets, EVIL_JSON, b'{"kind":"Status"}') if kind >= 0.9 else octets

    def messages(self):
        """What a watch sends, and how it ends: (message, whether it can't be read)."""
        rand = self.chance.random
        for _ in range(int(rand() * 5)):
            event, kind = self.change(), rand()
            if kind < 0.7:
                self.sent.append(json.dumps(event) + "\n")
                self.resume = self.version
                yield self.sent[-1], False
                if kind < 0.1:  # replays change nothing
                    yield pick(self.chance, self.sent), False
            elif kind < 0.75:
                text = json.dumps(event) + pick(self.chance, ("", " \r\n", "\n")) + json.dumps(self.change(), indent=1)
                self.resume = self.version
                yield text, False
            elif kind < 0.8:
                yield json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}}), False
                self.clean = False  # it skipped a change
            else:
                self.clean = False
                if kind < 0.81:
                    yield json.dumps({"type": "ERROR", "object": STATUS}), True  # a 410
                    return
                if kind < 0.83:
                    text = json.dumps({"type": "ERROR", "object": pick(self.chance, (STATUS, {}, self.odd(STATUS)))})
                elif kind < 0.92:
                    text = json.dumps(self.odd(event))
                else:
                    text = mutate(self.chance, json.dumps(event).encode(), EVIL_JSON, b'{"type":"ADDED"}').decode("utf-8", "surrogateescape")
                    text = text if rand() < 0.95 else text.encode("utf-8", "surrogateescape")
                yield text, not readable(text)

    def count(self, what, version=None):
        """Note a request; the last one ends the watch."""
        self.left -= 1
        if self.left < 0:
            self.watch.cancel()
            raise apiproxy.ApiError(502, "cancelled")
        if what == "watch" and self.must_list:
            raise Wrong("went on after what can't be read")
        if what == "watch" and self.clean and version != str(self.resume):
            raise Wrong("went on from %s, not %d" % (version, self.resume))
        self.must_list = False

    # -- what the watch calls

    def fetch(self, cluster, path, params, cancel, auto_logout):
        """See Requester."""
        self.count("list")
        if "continue" in params:
            try:
                apiproxy.with_query(path, params)  # as Client.fetch does: what can't be sent is an ApiError
            except ValueError as error:
                raise apiproxy.ApiError(0, str(error)) from error
        status, octets = self.page(path.endswith("/n1"), "continue" in params)
        response = apiproxy.Response(status, "Reason", {}, octets)
        if status != 200:
            raise response.error()
        return response.json()

    def connect(self, cluster, path, params, cancel, protocols=()):
        """See Requester."""
        self.count("watch", params["resourceVersion"])
        if not params["resourceVersion"].isdecimal():
            apiproxy.with_query(path, params)
        if self.chance.random() < 0.1:
            self.clean = False
            raise apiproxy.HandshakeError(pick(self.chance, (0, 403, 410, 429, 500)), "no")
        return Messages(self)

    def send_json(self, *_):
        """Not for watches."""
        raise Wrong("a watch sends nothing")


class Messages:
    """What a script's `connect` gives: what of a WebSocket a watch uses."""

    def __init__(self, script):
        self._script, self._messages = script, script.messages()

    def recv(self, timeout=None):
        """See WebSocket.recv."""
        if self._script.must_list:
            raise Wrong("read on after what can't be read")
        for message, self._script.must_list in self._messages:
            return message
        kind = self._script.chance.random()
        if kind < 0.2:
            raise TimeoutError("no message in time")
        if kind < 0.3:
            self._script.must_list = True
            raise apiproxy.ProtocolError(1007, "text is not UTF-8")
        raise apiproxy.ConnectionClosed(pick(self._script.chance, CLOSES))

    def abort(self):
        """See WebSocket.abort."""


def readable(text):
    """Whether a watch may go on after a message: False only when it surely may not."""
    if isinstance(text, bytes):
        return False
    try:
        events = [json.loads(text)]
    except RecursionError:
        return False
    except ValueError:
        return True  # perhaps several
    return all(isinstance(event, dict) and isinstance(event.get("object"), dict) and (
        event.get("type") == "ERROR" or event.get("type") in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") and isinstance(
            event["object"].get("metadata"), dict) and isinstance(event["object"]["metadata"].get("resourceVersion"), str)
        and event["object"]["metadata"]["resourceVersion"] != "") for event in events)


class WireScript(Script):
    """The same through a real Client, as octets on Lines."""

    def __init__(self, chance):
        super().__init__(chance)
        self.client = self.settings = new_client(**QUICK)
        LINES.reset(lambda index: Line(self.answer))

    def answer(self, request):
        """The octets that answer a request; the connection ends after them."""
        if b"HTTP/1.1" not in request:
            return ()
        if b"Sec-WebSocket-Key" not in request:
            status, octets = self.page(b"/n1 " in request.split(b"\r", 1)[0], b"continue=" in request.split(b"\r", 1)[0])
            lines = b"Content-Length: %d" % len(octets)
            if self.chance.random() < 0.5:
                lines, octets = b"Transfer-Encoding: chunked", chunked(self.chance, octets)
            octets = b"HTTP/1.1 %d Reason\r\n%s\r\n\r\n%s" % (status, lines, octets)
        else:
            octets = (b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
                      b"Sec-WebSocket-Protocol: base64.binary.k8s.io\r\n\r\n" % accept_for(request))
            for message, _ in self.messages():
                text = isinstance(message, str)
                octets += frame(1 if text else 2, message.encode("utf-8", "surrogatepass") if text else message)
            octets += pick(self.chance, (b"", frame(8, b""), frame(8, pick(self.chance, CODES).to_bytes(2, "big"))))
        if self.chance.random() < 0.15:
            self.clean, self.rest = False, None
            octets = mutate(self.chance, octets, EVIL_JSON + EVIL_FRAMES + EVIL_ANSWERS)
        return pieces(self.chance, octets)

    def fetch(self, *args, **kwargs):
        """See Requester."""
        self.count("list")
        return self.client.fetch(*args, **kwargs)

    def connect(self, cluster, path, params, cancel, protocols=()):
        """See Requester."""
        self.count("watch", params["resourceVersion"])
        return self.client.connect(cluster, path, params, cancel, protocols)


QUICK = dict(retry_base=0.0, retry_cap=0.0, burst=1000000, rate=1e9, max_retry_after=0.0, short_watch=0.0, close_timeout=0.0, connect_timeout=None)
SETTINGS = apiproxy.Client("", **QUICK), apiproxy.Client("", **dict(QUICK, short_watch=5.0, retry_reset=0.0))


def events(chance):
    """One case of a Watch, from the first list until it is cancelled."""
    script = (WireScript if chance.random() < 0.1 else Script)(chance)
    single, limit = chance.random() < 0.15, pick(chance, (None, None, None, 2))
    wrong, shown, errors, found = [], [None], [], []
    params = {"limit": limit, "timeoutSeconds": pick(chance, (None, None, "5"))}
    paths = ["/apis/a/v1/pods", "/apis/a/v1beta1/pods"][:pick(chance, (1, 2))]

    def cb(items):
        items = [items] if single else items
        if not isinstance(items, list) or limit and len(items) > 2:
            wrong.append("a view of %r" % (items,))
        try:
            keys = [apiproxy.object_key(item) for item in items]
            if len({repr(key) for key in keys if key == key}) != len([key for key in keys if key == key]):
                wrong.append("an object twice: %r" % keys)
        except Exception as error:
            wrong.append("a view of %r: %r" % (items, error))
        shown[0] = items

    def err_cb(error, cancel):
        if not isinstance(error, apiproxy.ApiError):
            wrong.append("err_cb(%r)" % error)
        str(error)
        errors.append(error.status)

    if single:
        watch = apiproxy.ItemWatch(script, "c", paths, "n1", cb, err_cb, dict(params, limit=None), found.append)
    else:
        watch = apiproxy.Watch(script, "c", paths, cb, err_cb, params, found.append)
    script.watch, listed = watch, script.left
    watch._run()
    if wrong:
        raise Wrong("; ".join(wrong))
    if found[1:]:
        raise Wrong("found twice: %r" % found)
    if not watch._cancel.is_set() and not (errors and errors[-1] in (400, 401, 403, 404, 405, 406, 422)):
        raise Wrong("it ended by itself, errors %r" % errors)
    if script.clean and not single and not limit and script.left < 0 and shown[0] is not None and listed > 2:
        view, truth = ({item["metadata"].get("uid"): item["metadata"].get("resourceVersion") for item in items}
                       for items in (shown[0], script.objects.values()))
        if view != truth:
            raise Wrong("the view is %r, not %r" % (view, truth))
        return "right"
    return "errors" if errors else "no errors"


# ------------------------------------------------------------------------------
# Running
# ------------------------------------------------------------------------------

KINDS = {"frames": frames, "handshakes": handshakes, "answers": answers, "events": events}
SHARES = {"frames": 0.45, "handshakes": 0.2, "answers": 0.15, "events": 0.2}


def hang(_signal, _frame):
    """The alarm of a case."""
    raise Hang("more than %d s" % SECONDS)


def run(kind, seed, numbers):
    """Run cases; (outcomes, what failed as text or ""). Ends with the first failure. In the main thread only: it needs alarms."""
    case, chance, outcomes, failure, number = KINDS[kind], random.Random(), Outcomes(), "", None
    before = signal.signal(signal.SIGALRM, hang)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with patched():
            for number in numbers:
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
                chance.seed(seed << 40 | number)
                outcomes[case(chance)] += 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        if grown << 10 > MEMORY:
            failure = "%s:%d, up to number %s: %d KiB more memory" % (kind, seed, number, grown)
    except (Exception, Hang) as error:
        failure = "%s\n%s: %s\npython .ci/fuzz.py --case %s:%d:%s" % (
            "".join(traceback.format_tb(error.__traceback__)), type(error).__name__, re.sub(r"(.)\1{99,}", r"\1\1...", str(error))[:4000],
            kind, seed, number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return outcomes, failure


def work(seed, batches, at, results):
    """A process: batches of (index, kind, numbers)."""
    faulthandler.enable()
    for index, kind, numbers in batches:
        at[0], at[1] = index, at[1] + 1
        started = time.process_time()
        outcomes, failure = run(kind, seed, numbers)
        results.put((kind, len(numbers), outcomes, failure, time.process_time() - started))
        if failure:
            break
    results.put(None)


def batches_of(count, only):
    """All cases as (index, kind, numbers), kinds in turn, so that jobs have the same to do."""
    shares = {only: 1.0} if only else SHARES
    found = []
    for kind, share in shares.items():
        total = int(count * share)
        found += [(start / max(1, total), kind, range(start, min(total, start + BATCH))) for start in range(0, total, BATCH)]
    return [(index, kind, numbers) for index, (_, kind, numbers) in enumerate(sorted(found, key=lambda one: one[0]))]


def campaign(count, seed, only, jobs):
    """Run `count` cases in processes; print figures; the exit status."""
    started, batches, results = time.monotonic(), batches_of(count, only), multiprocessing.Queue()
    ats = [multiprocessing.Array("q", 2, lock=False) for _ in range(jobs)]
    workers = [multiprocessing.Process(target=work, args=(seed, batches[job::jobs], ats[job], results), daemon=True) for job in range(jobs)]
    for worker in workers:
        worker.start()
    running, failures, seen = jobs, [], [(0, started)] * jobs
    done, outcomes, cpu = Outcomes(), collections.defaultdict(Outcomes), Outcomes()
    while running and not failures:
        try:
            result = results.get(timeout=1.0)
        except Exception:  # queue.Empty: time to look whether they are all at work
            for job, (at, worker) in enumerate(zip(ats, workers)):
                if at[1] != seen[job][0]:
                    seen[job] = (at[1], time.monotonic())
                if time.monotonic() - seen[job][1] > 10 * SECONDS or worker.exitcode:  # its own alarm did not end it
                    failures.append("a process %s at %s of seed %d" % (
                        "hangs" if not worker.exitcode else "died with %d" % worker.exitcode, batches[at[0]][1:], seed))
            continue
        if result is None:
            running -= 1
            continue
        kind, size, found, failure, seconds = result
        done[kind] += size
        outcomes[kind] += found
        cpu[kind] += seconds
        if failure:
            failures.append(failure)
    for worker in workers:
        worker.terminate()
        worker.join()
    for kind, found in outcomes.items():
        print("%-10s %7d cases, %3d us each: %s" % (kind, done[kind], cpu[kind] / max(1, done[kind]) * 1e6, ", ".join(
            "%s %d" % pair for pair in sorted(found.items(), key=lambda pair: -pair[1]))))
    for failure in failures:
        print("WRONG: " + failure)
    print("fuzz: %d cases (%s) in %d s, seed %d: %s" % (
        sum(done.values()), ", ".join("%s %d" % pair for pair in done.items()), time.monotonic() - started, seed,
        "%d WRONG" % len(failures) if failures else "nothing wrong"))
    return bool(failures)


def main():
    """Run what the command line says; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=sorted(KINDS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--case", metavar="KIND:SEED:NUMBER")
    options = parser.parse_args()
    if options.case:
        kind, seed, number = options.case.split(":")
        outcomes, failure = run(kind, int(seed), [int(number)])
        print(failure or "%s: %s" % (options.case, list(outcomes)[0]))
        return bool(failure)
    return campaign(options.count, options.seed, options.only, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
