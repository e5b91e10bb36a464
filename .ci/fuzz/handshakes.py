# SPDX-License-Identifier: Apache-2.0
"""Handshakes: WebSocket.connect accepts exactly what RFC 6455 lets a client accept."""

import re

import apiproxy
from wire import accept_key

from .chance import mutate, pick, pieces
from .frames import decode, some_wire
from .heads import EVIL_HEADS, INTERIM, parse, skip_interim, tokens
from .inside import ENDS, LINES, MAX_HEAD, NOTHING, RESETS, STAYS, Line
from .outcome import Wrong

OFFERED = ["base64.binary.k8s.io", "v4.channel.k8s.io"]

# Stands for the right value, which depends on the key; as long as that.
ACCEPT = b"<accept>" * 3 + b"xxx="

EVIL_HANDSHAKES = EVIL_HEADS + [
    b"HTTP/1.0", b"HTTP/1.1 200 OK\r\n", b"upgrade", b"websocket", b"h2c", b"permessage-deflate",
    b"Sec-WebSocket-Accept: x\r\n", b"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"X: " + b"y" * 70000, ACCEPT,
    b"9" * 20, "é".encode(),
]
HARMLESS = (
    b"Server: x", b"Date: now", b"X-A:", b"Set-Cookie: a, b; c=\xe9", b"Sec-WebSocket-Extensions:",
)
STATUS_LINES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.0 101 x", b"HTTP/1.1 403 Forbidden", b"HTTP/1.1 401 ",
    b"HTTP/1.1 302 Found", b"HTTP/1.1 101", b"HTTP/1.1 1010 x", b"HTTP/2 101",
    b"HTTP/1.1  101 x", b"http/1.1 101 x", b"HTTP/1.1 410 Gone",
)
SEPARATORS = (b" : ", b":", b":\t ", b"=", b"\0: ")
ENDINGS = (b" ", b"\t", b"\xa0", b"\x85", b"\x0b", b"\x7f", b";q=1", b",", b"\r")

# What a client surely takes: a head well below the limit, and a few interim answers.
SMALL_HEAD = MAX_HEAD - 5000
FEW_INTERIM = 6


# -- making them


def some_handshake(chance):
    """An answer to an upgrade, legal or with wrong lines."""
    rand = chance.random
    status = b"HTTP/1.1 101 Switching Protocols"
    lines = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT]
    if rand() < 0.6:
        lines.append(b"Sec-WebSocket-Protocol: " + pick(chance, OFFERED).encode())
    if rand() < 0.3:
        lines.append(pick(chance, HARMLESS))
    if rand() < 0.45:
        status = _spoil_lines(chance, lines, status)
    return b"\r\n".join([status] + lines) + b"\r\n\r\n"


def _spoil_lines(chance, lines, status):
    """One of the lines is spoilt, in place; the status line to use."""
    rand = chance.random
    at, how = int(rand() * len(lines)), int(rand() * 11)
    name, _, value = lines[at].partition(b": ")

    if how == 0:
        del lines[at]
    elif how == 1:
        lines.append(lines[at])
    elif how == 2:
        other_case = name.upper() + b": " + value
        lines[at] = other_case if b"Accept" in name else lines[at].swapcase()
    elif how == 3:
        values = (b"", b"x", b"websocket, h2c", b"keep-alive, upgrade", b"chat")
        lines[at] = name + b": " + pick(chance, values + (value + b"," + value,))
    elif how == 4:
        lines[at] = name + pick(chance, SEPARATORS) + value
    elif how == 5:
        lines[at] = name + b": " + value + pick(chance, ENDINGS)
    elif how == 6:
        lines.insert(at, b" folded")
    elif how == 7:
        lines.append(b"Sec-WebSocket-Extensions: permessage-deflate")
    elif how == 8:
        status = pick(chance, STATUS_LINES)
        lines += [b"Content-Length: 17", b"Location: ws://elsewhere/"]
    elif how == 9:
        chance.shuffle(lines)
    else:
        lines += [b"X-Many: %d" % number for number in range(pick(chance, (99, 101, 300)))]
    return status


# -- judging them


def judge(data):
    """(subprotocol, bytes after the head) if a client may take this for a WebSocket, else None.

    ACCEPT is right.
    """
    head, end, rest = skip_interim(data)[1].partition(b"\r\n\r\n")
    minor, status, headers = end and parse(head) or (0, 0, None)
    if (minor, status) != (1, 101) or not _agrees(headers):
        return None

    protocols = headers[b"sec-websocket-protocol"]
    if len(protocols) > 1 or protocols and protocols[0].decode("latin-1") not in OFFERED:
        return None
    return protocols[0].decode() if protocols else "", rest


def _agrees(headers):
    """RFC 6455 4.1, what a client checks, but for the subprotocol."""
    return (
        tokens(headers[b"upgrade"]) == [b"websocket"]
        and b"upgrade" in tokens(headers[b"connection"])
        and headers[b"sec-websocket-accept"] == [ACCEPT]
        and not any(tokens(headers[b"sec-websocket-extensions"])))


# -- a case


def case(chance):
    """One case of WebSocket.connect, and of the frames after it."""
    data = some_handshake(chance)
    if chance.random() < 0.1:
        data = pick(chance, INTERIM) * int(chance.random() * 8) + data
    data += some_wire(chance) if chance.random() < 0.7 else b"{\"message\": \"no\"}"
    if chance.random() < 0.5:
        data = mutate(chance, data[:400], EVIL_HANDSHAKES, some_handshake(chance)) + data[400:]

    parts, end = pieces(chance, data), pick(chance, (ENDS, ENDS, ENDS, STAYS, RESETS))
    expected = judge(data)
    size = len(data) - len(expected[1]) if expected else len(data)  # of what is not frames
    LINES.reset(lambda index: Line(lambda request: _answer(request, data, size, parts), end))

    limit = 500
    try:
        socket = apiproxy.WebSocket.connect(
            "ws://fuzz.invalid/x", protocols=OFFERED, proxy="", max_message_size=limit,
            close_timeout=0.0)
    except apiproxy.ApiError as error:
        return _judge_refusal(error, data, expected, end)

    if expected is None or socket.protocol != expected[0]:
        raise Wrong("%r was accepted" % data)
    _judge_messages(socket, data, expected[1], limit, end)
    if not LINES.opened[0].gone:
        raise Wrong("the connection is left open")
    return "open"


def _answer(request, data, size, parts):
    """The pieces that answer a request, with the value that its key wants in place of ACCEPT."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
    if not key:
        return []  # our pongs, our close

    right = accept_key(key.group(1).decode()).encode()
    whole, answer, at = data[:size].replace(ACCEPT, right) + data[size:], [], 0
    for part in parts:  # the same length, so the same cuts
        answer.append(whole[at:at + len(part)])
        at += len(part)
    return answer


def _judge_refusal(error, data, expected, end):
    if expected:
        size = len(data) - len(expected[1])
        if size < SMALL_HEAD and skip_interim(data)[0] < FEW_INTERIM:
            raise Wrong("%r was refused: %s" % (data, error)) from error
    if error.message == NOTHING and end != STAYS:
        raise Wrong("%r timed out" % data) from error
    if not LINES.opened[0].gone:
        raise Wrong("the connection is left open") from error

    str(error)
    is_answer = isinstance(error, apiproxy.HandshakeError)
    return error.status if is_answer else "error %s" % error.status


def _judge_messages(socket, data, after_head, limit, end):
    """What comes after the head, beside what our decoder finds there."""
    messages, fault = decode(after_head, limit)
    close_code = None
    for opcode, payload in messages:
        if opcode == 8:
            try:
                close_code = apiproxy.parse_close(payload)[0]
            except apiproxy.ProtocolError as error:
                fault = error.code
            break
        if opcode < 8 and socket.recv() != payload:
            raise Wrong("%r: %r did not come" % (data, payload))

    try:
        raise Wrong("%r: %r came" % (data, socket.recv()))
    except apiproxy.ProtocolError as error:
        if close_code or error.code != fault:
            raise Wrong("%r: closed with %d, not %s" % (data, error.code, fault)) from error
    except apiproxy.ConnectionClosed as error:
        if error.code != (close_code or 1006) or not close_code and (fault or end == STAYS):
            raise Wrong("%r: ended with %d" % (data, error.code)) from error
    except TimeoutError as error:
        if close_code or fault or end != STAYS:
            raise Wrong("%r: nothing came" % data) from error
        socket.abort()
