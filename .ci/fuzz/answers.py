# SPDX-License-Identifier: Apache-2.0
"""Answers: Client.request gives what a simple reading of RFC 9112 makes of them, or an ApiError."""

import gzip
import json
import re
import zlib

import apiproxy

from .chance import NUMBERS, mutate, pick, pieces
from .heads import EVIL_HEADS, INTERIM, is_header, parse, skip_interim, tokens
from .inside import ENDS, LINES, MAX_BODY, NOTHING, RESETS, STAYS, Line, new_client
from .outcome import Wrong

STATUS = {
    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no",
    "reason": "Gone", "code": 410, "details": {"name": "x", "retryAfterSeconds": 3},
}
ODD_STATUS = {"message": ["no"], "reason": {}, "details": {"retryAfterSeconds": {}}}
BODIES = [json.dumps(body).encode() for body in (
    {}, [], None, 0, "é", {"a": 1}, STATUS, ODD_STATUS, {"kind": "List", "items": None},
    {"x": "y" * 900}, {"details": [], "code": "x"},
)] + [
    b"", b" ", b"<html>", b"oops", b"\xff\xfe{\0}\0", b"[" * 50000, b"[" * 300 + b"]" * 300,
    b"9" * 4400, b"-", b'"\\ud800"', b'{"a":NaN}', b"1e999",
]
LARGE = json.dumps([0] * 50000).encode()
STATUSES = (
    200, 200, 200, 201, 202, 204, 304, 301, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503,
)
BODILESS = (204, 304)
EXTRA_HEADERS = (
    b"X-Reload: reload", b"X-Authorization: t", b"Location: http://x/", b"Set-Cookie: \xe9",
)


def _bomb():
    """A gzip member of 90 KB that unpacks to 90 MiB."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + block * 90


BOMB = _bomb()
VALUES = [
    b"", b"0", b"3", b"-1", b"9" * 30, b"9" * 4400, b"1.5", b"abc",
    b"Mon, 01 Jan 2001 00:00:00 GMT", b"Fri, 31 Dec 9999 23:59:59 -2359",
    b"Sat, 01 Jan 0000 00:00:00 GMT", b"Mon, 99 Foo 99999999999 25:61:61 +9999", b"1 Jan 1 0:0 Z",
    b"=?utf-8?q?=ff?=", b"a;b", b"\xe9",
]
EVIL_ANSWERS = EVIL_HEADS + VALUES + [
    b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"-1\r\n", b"ffffffffffffffff\r\n", b"5;x=y\r\n", b"+5\r\n",
    b"1_0\r\n", b"\x1f\x8b\x08", b"identity", b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 0\r\n", b"Content-Length: 99999999999\r\n", b"Content-Encoding: gzip\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Retry-After: ",
    b"X-Reload: reload\r\n", b"HTTP/1.1 204 No Content\r\n\r\n",
]
NEXT = b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Authorization: next\r\n\r\n"next"'


# -- making them


def chunked(chance, body):
    """`body` in chunks."""
    rand, out, at = chance.random, [], 0
    while at < len(body):
        size = 1 + int(rand() * len(body))
        piece = body[at:at + size]
        extension = b";x=y" if rand() < 0.1 else b""
        out.append(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece))
        at += size
    return b"".join(out) + pick(chance, (b"0\r\n\r\n", b"0\r\n\r\n", b"000\r\nX: y\r\n\r\n"))


def some_answer(chance):
    """(bytes, status, body, whether the connection may be kept) of a legal answer."""
    rand = chance.random
    body = LARGE if rand() < 0.002 else pick(chance, BODIES)
    lines = [b"Content-Type: " + pick(chance, (b"application/json", b"text/html"))]
    status = pick(chance, STATUSES)
    if status in BODILESS:
        body = b""

    if rand() < 0.25:
        lines.append(b"Retry-After: " + pick(chance, VALUES))
    if rand() < 0.1:
        lines.append(pick(chance, EXTRA_HEADERS))

    sent = body
    if rand() < 0.25 and body:
        lines.append(b"Content-Encoding: " + pick(chance, (b"gzip", b"x-gzip", b"GZIP")))
        sent = gzip.compress(body, 1)
    sent, keeps = _framed(chance, status, lines, sent)

    if rand() < 0.1:
        lines.append(b"Connection: close")
        keeps = False
    minor = 0 if rand() < 0.05 else 1
    chance.shuffle(lines)
    first = pick(chance, INTERIM) if rand() < 0.05 else b""
    head = b"HTTP/1.%d %d Reason\r\n%s\r\n\r\n" % (minor, status, b"\r\n".join(lines))
    return first + head + sent, status, body, keeps and minor == 1


def _framed(chance, status, lines, body):
    """(`body` as it is sent, whether its end can be told); one of three framings."""
    framing = chance.random()
    if status in BODILESS:
        return body, True
    if framing < 0.5:
        lines.append(b"Content-Length: %d" % len(body))
        return body, True
    if framing < 0.85:
        lines.append(b"Transfer-Encoding: chunked")
        return chunked(chance, body), True
    return body, False


def spoil_answer(chance, data):
    """An answer whose head, length or coding does not fit its body."""
    head, _, body = data.partition(b"\r\n\r\n")
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
        head, body = _badly_packed(chance)
    elif how == 5:
        sizes = NUMBERS + [b"-1", b"fffffffffffffffff", b"5 5", b"g", b";", b"1" * 70000]
        body = pick(chance, sizes) + body[max(0, body.find(b"\r\n")):]
        head += b"\r\nTransfer-Encoding: chunked"
    else:
        count = pick(chance, (20, 90, 101, 200))
        lines = b"".join(b"X-%d: y\r\n" % number for number in range(count))
        if chance.random() < 0.3:
            return b"HTTP/1.1 103 Early\r\n\r\n" * (len(lines) % 19) + data
        if chance.random() < 0.5:
            trailers = b"0\r\n" + lines + b"\r\n"
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + trailers
        head += b"\r\n" + lines[:-2]
    return head + b"\r\n\r\n" + body


def _badly_packed(chance):
    """(head, body) of an answer that says gzip."""
    packed = pick(chance, (
        BOMB[:200], gzip.compress(b"{}") * 2, gzip.compress(b"{}")[:-5], zlib.compress(b"{}"),
        b"x" * 6000))
    if chance.random() < 0.05:
        packed = BOMB

    head = b"HTTP/1.1 %d x\r\nContent-Encoding: gzip" % pick(chance, (200, 200, 500))
    kind = chance.random()
    if kind < 0.4:
        return head + b"\r\nContent-Length: %d" % len(packed), packed
    if kind < 0.8:
        return head + b"\r\nTransfer-Encoding: chunked", chunked(chance, packed)
    return head, packed


# -- judging them

LONG_LINE = 4000  # bytes of a line of a chunked body that surely are not too many
LONG_HEAD = 50000  # bytes of a head that surely are not too many
MANY_TRAILERS = 90
MANY_INTERIM = 5


class _Bad(Exception):
    """An answer has no reading at all."""


class _Unclear(Exception):
    """It may be read in one way, or refused: both are right."""


def judge(data, end):
    """What RFC 9112 makes of an answer.

    ("data", status, body) where there is one reading, ("bad", status or None, None) where there is
    none, and None where it may be read or refused.
    """
    count, data = skip_interim(data)
    head, mark, rest = data.partition(b"\r\n\r\n")
    if count > MANY_INTERIM or len(head) > LONG_HEAD:
        return None
    _, status, headers = mark and parse(head) or (0, None, None)
    if status is None:
        return "bad", None, None

    try:
        body = _decoded(headers, _body(status, headers, rest, end))
        if len(body) > MAX_BODY:
            raise _Bad
    except _Bad:
        return "bad", status, None
    except _Unclear:
        return None
    return "data", status, body


def _body(status, headers, rest, end):
    """The body as it was sent. RFC 9112 6.3."""
    lengths = set(tokens(headers[b"content-length"]))
    codings = tokens(headers[b"transfer-encoding"])
    is_bodiless = status in BODILESS + (101,)
    if lengths and (codings or is_bodiless):
        raise _Unclear  # a length that does not count: it may be refused all the same

    if is_bodiless:
        return b""
    if codings:
        return _chunks(codings, rest)
    if lengths:
        length = lengths.pop()
        if lengths or not re.fullmatch(b"[0-9]+", length) or len(length) > 90:
            raise _Bad
        if int(length) > len(rest):
            raise _Bad
        return rest[:int(length)]
    if end != ENDS:
        raise _Bad
    return rest


def _chunks(codings, rest):
    """The body of chunks, and its trailers looked at. RFC 9112 7.1."""
    if codings != [b"chunked"]:
        raise _Bad

    body = b""
    while True:
        line, mark, rest = rest.partition(b"\r\n")
        count = _chunk_size(line, mark)
        if not count:
            break
        body, mark, rest = body + rest[:count], rest[count:count + 2], rest[count + 2:]
        if mark != b"\r\n":
            raise _Bad

    if rest.count(b"\r\n") > MANY_TRAILERS:
        raise _Unclear
    while not rest.startswith(b"\r\n"):
        line, mark, rest = rest.partition(b"\r\n")
        if len(line) > LONG_LINE:
            raise _Unclear
        if not mark:
            raise _Bad
        if not is_header(line):
            raise _Unclear
    return body


def _chunk_size(line, mark):
    size = re.fullmatch(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?", line)
    if not mark or not size:
        clear = b"\r" not in line and b"\n" not in line and len(line) < LONG_LINE
        raise _Bad if clear else _Unclear
    if len(line) > LONG_LINE:
        raise _Unclear

    count = int(size.group(1), 16)
    if len(size.group(1)) > 15 and count < 1 << 60:
        raise _Unclear
    return count


def _decoded(headers, body):
    """The body without its content coding."""
    codings = headers[b"content-encoding"]
    if len(codings) > 1:
        raise _Unclear
    if not body or not codings or codings[0].lower() not in (b"gzip", b"x-gzip"):
        return body

    unzip = zlib.decompressobj(31)
    try:
        body = unzip.decompress(body, MAX_BODY + 1)
    except zlib.error:
        raise _Bad from None
    if unzip.unused_data:
        raise _Unclear  # several members: may be refused
    if not unzip.eof:
        raise _Bad
    return body


def summary(call, *args):
    """What a call gives, or the status of its ApiError, comparable."""
    try:
        answer = call(*args)
    except apiproxy.ApiError as error:
        _check_error(error)
        return "error", error.status, error.message, error.body

    if isinstance(answer, apiproxy.Response):
        if len(answer.body) > MAX_BODY:
            raise Wrong("a body of %d" % len(answer.body))
        return "response", answer.status, answer.body
    return "json", repr(answer)


def _check_error(error):
    str(error)
    has_types = isinstance(error.message, str) and isinstance(error.details, dict)
    if len(error.body) > 1 << 20 or not has_types:
        raise Wrong("an ApiError with %r" % vars(error)) from error
    if error.retry_after is not None and not error.retry_after >= 0:
        raise Wrong("retry after %r" % error.retry_after) from error


def is_right(expected, answer, as_json):
    """Whether `answer`, of summary(), is what has to come of what judge() expects."""
    verdict, status, body = expected
    if status is not None and not 200 <= status < 300:
        if answer[:2] == ("error", status):
            return True
        return verdict == "bad" and answer[0] == "error" and (status < 400 or answer[1] == 408)
    if verdict == "bad":
        return answer[0] == "error"
    if not as_json:
        return answer == ("response", status, body)

    value = _loads(body)
    return answer[:2] == ("error", status) if value is Wrong else answer == ("json", repr(value))


def _loads(body):
    """The JSON in `body`, None when there is none, Wrong when it is not JSON."""
    try:
        return json.loads(body) if body.strip() else None
    except (ValueError, RecursionError):
        return Wrong


# -- a case

CLIENT = new_client()


class _Calls:
    """One call, or two, on one client, whose first answer is given."""

    def __init__(self, chance, options, end):
        self._chance, self._options, self._end = chance, options, end
        self.twice, self._dies = chance.random() < 0.5, chance.random() < 0.2

    def outcomes(self, data, parts):
        """What came of the first call, and of the second, or NEXT where there is none."""
        first = [parts]
        LINES.reset(lambda index: Line(lambda request: self._answer(first), self._end))
        try:
            answer = summary(CLIENT.request, "/x", self._options)
            return answer, summary(CLIENT.request, "/y") if self.twice else NEXT
        finally:
            CLIENT.close()
            if not all(line.gone for line in LINES.opened):
                raise Wrong("%r: a connection is left open" % data)

    def _answer(self, first):
        if first:
            return first.pop()
        if self._dies and len(LINES.opened) == 1:
            # On the kept connection: the module has to take another.
            LINES.opened[0].end = pick(self._chance, (ENDS, RESETS))
            return []
        return [NEXT]


def case(chance):
    """One case of Client.request: an answer, and the next one."""
    data, status, body, keeps = some_answer(chance)
    kind, end = chance.random(), pick(chance, (ENDS, STAYS, STAYS, RESETS))
    options = {"isJSON": chance.random() < 0.5}
    is_spoilt, stays = kind > 0.25, end == STAYS
    calls = _Calls(chance, options, STAYS if not is_spoilt and keeps else end)
    if chance.random() < 0.1:
        options.update(method="POST", body="{}")
    if 0.25 < kind < 0.55:
        data = spoil_answer(chance, data)
    elif is_spoilt:
        data = mutate(chance, data, EVIL_ANSWERS, some_answer(chance)[0])

    answer, then = calls.outcomes(data, pieces(chance, data))
    if calls.twice and not is_spoilt and not keeps and len(LINES.opened) == 1:
        raise Wrong("%r: asked again on a connection that was to be closed" % data)
    if then not in (NEXT, ("json", "'next'")):
        raise Wrong("%r: the next call got %r" % (data, then))
    if answer[:3] == ("error", 408, NOTHING) and not stays:
        raise Wrong("%r: timed out" % data)
    if kind > 0.9:
        _check_cuts(data, answer, calls.outcomes(data, [data])[0])

    end = STAYS if not is_spoilt and keeps else end
    expected = judge(data, end)
    if not is_spoilt and expected != ("data", status, body) and (keeps or end == ENDS):
        raise Wrong("%r: we take it for %r" % (data, expected))
    if expected and not is_right(expected, answer, options["isJSON"]):
        raise Wrong("%r: the module finds %r, we %r" % (data, answer, expected))
    return answer[0] if answer[0] != "error" else answer[1]


def _check_cuts(data, answer, whole):
    """It makes no difference how the bytes are cut, but for the words of a 502."""
    if whole != answer and not whole[:2] == answer[:2] == ("error", 502):
        raise Wrong("%r: %r, and whole %r" % (data, answer, whole))
