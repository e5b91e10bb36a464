# SPDX-License-Identifier: Apache-2.0
"""A simple reading of HTTP heads: RFC 9112, without mercy."""

import collections
import re

_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\xff]*)")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\xff]*)?")

EVIL_HEADS = [
    b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b",", b"\x7f", b"\xff", b"\x85", b"\xa0",
    b"\r\n ", b"\r\n\r\n", b"HTTP/1.1 101 \r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
]
INTERIM = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n")


def is_header(line):
    """Whether a line is a header."""
    return _HEADER.fullmatch(line) is not None


def parse(head):
    """(minor version, status, {name: values}) of an answer's head, None when it is not one."""
    lines = _unfolded(head)
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


def _unfolded(head):
    """The lines of a head; what begins with a space goes on with a header. RFC 9112 5.2."""
    lines = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and len(lines) > 1:
            lines[-1] += b" " + line.lstrip(b" \t")
        else:
            lines.append(line)
    return lines


def tokens(values):
    """The elements of a header's values, in lower case."""
    return [token.strip(b" \t").lower() for value in values for token in value.split(b",")]


def skip_interim(data):
    """(how many interim answers come first, what follows them)."""
    count = 0
    while True:
        head, end, rest = data.partition(b"\r\n\r\n")
        answer = parse(head) if end else None
        if not answer or answer[1] >= 200 or answer[1] == 101:
            return count, data
        count, data = count + 1, rest
