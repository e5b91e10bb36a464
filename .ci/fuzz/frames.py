# SPDX-License-Identifier: Apache-2.0
"""Frames: the module's reader of messages beside a slow and simple decoder of our own."""

import re

import apiproxy
from wire import frame

from .chance import mutate, pick, pieces
from .outcome import Wrong

TEXTS = [
    b"", b"a", "é€😀".encode(), b"x" * 125, b"y" * 126, "€".encode() * 50, b"z" * 300,
    b'{"type": "ADDED"}\n', b"\0" * 7,
]
NOT_UTF8 = [
    b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f",
    b"\xf8\x88\x80\x80\x80",
]
CODES = [
    1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999,
    0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535,
]
EVIL_FRAMES = [
    b"\x81\x7e\x00\x7d", b"\x81\x7f" + b"\0" * 8, b"\x82\x7f\x80" + b"\0" * 7,
    b"\x82\x7f\x7f" + b"\xff" * 7, b"\x82\x7e\xff\xff", b"\x01\x00", b"\x00\x00", b"\x80\x00",
    b"\x89\x00", b"\x89\x7e\x00\x7e", b"\x88\x01\x03", b"\x88\x02\x03\xe8", b"\x09\x00",
    b"\xc1\x00", b"\x83\x00", b"\x8b\x00", b"\x81\x80\0\0\0\0", b"\x81\xfe",
    b"\x02\x7f\0\0\0\0\0\x10\0\0",
] + NOT_UTF8

# Around the sizes of the reader's buffers.
LARGE_SIZES = (4090, 4096, 4097, 16384, 65535, 65536)

# RFC 3629 section 4, and what may be the beginning of it.
_UTF8 = (
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}")
# Of half a surrogate CPython waits for the third byte, as "surrogatepass" takes it (bpo-24214).
_CUT = (
    rb"[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xec\xee\xef][\x80-\xbf]?|\xed[\x80-\xbf]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?|[\xf1-\xf3][\x80-\xbf]{0,2}"
    rb"|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?")
WHOLE = re.compile(b"(?:" + _UTF8 + b")*")
BEGINNING = re.compile(b"(?:" + _UTF8 + b")*(?:" + _CUT + b")?")

RESERVED = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)


# -- making them


def some_frames(chance):
    """Legal frames, but for a close that others may follow."""
    rand, frames = chance.random, []
    for _ in range(1 + int(rand() * 4)):
        kind = rand()
        if kind < 0.2:
            frames.append(frame(9 if kind < 0.15 else 10, pick(chance, TEXTS[:4])))
        elif kind < 0.27:
            frames.append(frame(8, b"" if kind < 0.22 else _close_payload(chance)))
        elif kind < 0.32 and rand() < 0.02:
            frames.append(frame(1 if kind < 0.3 else 2, b"w" * _large_size(chance)))
        else:
            opcode = 2 if kind < 0.55 else 1
            payload = pick(chance, TEXTS) + pick(chance, TEXTS)
            frames += [frame(opcode, payload)] if kind < 0.75 else _split(chance, opcode, payload)
    return frames


def _close_payload(chance):
    code = pick(chance, CODES).to_bytes(2, "big")
    return code + pick(chance, TEXTS[:4])[:123]


def _large_size(chance):
    return pick(chance, LARGE_SIZES + ((1 << 18) - int(chance.random() * 40),))


def _split(chance, opcode, payload):
    """One message in several frames, characters cut too, with pings between them."""
    rand, frames, pings = chance.random, [], 0.3
    if rand() < 0.2:  # of one length, as a big one mostly comes
        payload, step, pings = payload * 4, pick(chance, (1, 2, 7, 126)), 0.01
        cuts = list(range(step, len(payload), step))
    else:
        cuts = sorted(int(rand() * (len(payload) + 1)) for _ in range(1 + int(rand() * 3)))
    cuts = [0] + cuts + [len(payload)]
    for index, (start, end) in enumerate(zip(cuts, cuts[1:])):
        last = end == len(payload) and index == len(cuts) - 2
        frames.append(frame(0 if index else opcode, payload[start:end], fin=last))
        if rand() < pings:
            frames.append(frame(9, b"p"))
    return frames


def spoil_frame(chance, data):
    """One frame with something illegal, or odd, in its head or its text."""
    rand, out = chance.random, bytearray(data)
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
        width = pick(chance, (2, 8)) if len(out) < 65536 else 8
        return frame(out[0] & 15, bytes(out[2:]), bool(out[0] & 0x80), width=width)
    elif how == 5:
        out[1] = pick(chance, (0, 1, 125, 126, 127))
    elif how == 6:
        out += pick(chance, NOT_UTF8)
        return frame(out[0] & 15, bytes(out[2:]), bool(out[0] & 0x80))
    else:
        return data * 2
    return bytes(out)


def some_wire(chance):
    """Bytes that may be frames."""
    frames, kind = some_frames(chance), chance.random()
    if 0.3 < kind < 0.7:
        at = int(chance.random() * len(frames))
        frames[at] = spoil_frame(chance, frames[at])

    data = b"".join(frames)
    if kind > 0.55:
        other = data[::-1] if kind > 0.98 else b"".join(some_frames(chance))
        data = mutate(chance, data, EVIL_FRAMES, other)
    return data


# -- judging them


def decode(data, limit):
    """What RFC 6455 makes of a server's bytes: messages and control frames, and the first fault.

    The fault is a close code, or None. `limit` is that of a message, in bytes.
    """
    messages, at, opcode, message = [], 0, 0, b""
    while len(data) - at >= 2:
        fin, kind = data[at] >> 7, data[at] & 15
        fault, start, size = _decode_head(data, at)
        if fault:
            return messages, fault
        if start is None:
            break

        payload = data[start:start + size]
        whole = len(payload) == size
        if kind > 7:
            if not whole:
                break
            messages.append((kind, payload))
            at = start + size
            continue

        if (kind == 0) != (opcode != 0):
            return messages, 1002
        if len(message) + size > limit:
            return messages, 1009

        opcode, message = kind or opcode, message + payload
        ended = fin and whole
        if opcode == 1 and not (WHOLE if ended else BEGINNING).fullmatch(message):
            return messages, 1007
        if not whole:
            break
        if ended:
            messages.append((opcode, message.decode() if opcode == 1 else message))
            opcode, message = 0, b""
        at = start + size
    return messages, None


def _decode_head(data, at):
    """(fault or None, where the payload starts or None, its size). RFC 6455 5.2 and 5.5."""
    first, second, start = data[at], data[at + 1], at + 2
    kind, size = first & 15, second & 127
    if first & 0x70 or second & 0x80 or kind in RESERVED:
        return 1002, None, 0
    if kind > 7 and (size > 125 or not first >> 7):
        return 1002, None, 0

    width = {126: 2, 127: 8}.get(size, 0)
    if len(data) - start < width:
        return None, None, 0
    if width:
        size, start = int.from_bytes(data[start:start + width], "big"), start + width
        if size < 126 or width == 8 and (size < 65536 or size > 0x7FFFFFFFFFFFFFFF):
            return 1002, None, 0
    return None, start, size


# -- a case


def case(chance):
    """One case of MessageReader."""
    data, limit = some_wire(chance), pick(chance, (130, 500, 500, 300000))
    if chance.random() < 0.002:
        # Heads are cut where the reader's buffer ends, grown to 1, 4, 16, 64 and 256 KiB.
        data = frame(2, bytes((340 << 10) - int(chance.random() * 60))) + data
        limit = 400000

    expected = decode(data, limit)
    messages, fault = [], None
    try:
        for message in _read(apiproxy.MessageReader(limit), pieces(chance, data)):
            messages.append(message)
    except apiproxy.ProtocolError as error:
        fault = error.code

    if (messages, fault) != expected:
        raise Wrong("%r, limit %d: the module finds %r, we %r" % (
            data, limit, (messages, fault), expected))
    return "legal" if fault is None else fault


def _read(reader, parts):
    for part in parts:
        while part:
            space = reader.space()[:len(part)]
            if not space:
                raise Wrong("no space, and nothing to take")
            space[:], part = part[:len(space)], part[len(space):]
            reader.received(len(space))
            yield from iter(lambda: _checked(reader.next()), None)


def _checked(message):
    """A message of the right types, or None; a bad close is told with a documented code."""
    if message is None:
        return None

    opcode, payload = message
    if type(payload) is not (str if opcode == 1 else bytes):
        raise Wrong("%r of type %s" % (message, type(payload)))
    if opcode == 8:
        try:
            apiproxy.parse_close(payload)
        except apiproxy.ProtocolError as error:
            if error.code not in (1002, 1007):
                raise Wrong("code %d for a close frame" % error.code) from error
    return message
