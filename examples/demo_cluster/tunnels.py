# SPDX-License-Identifier: Apache-2.0
"""SPDY/3.1 in the messages of a WebSocket: how kubectl forwards ports since 1.31 (KEP-4006).

A connection is a pair of streams with the same request id, one of them for what goes wrong.
"""

import struct
import zlib
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from .websockets import ServerSocket

TUNNEL = "SPDY/3.1+portforward.k8s.io"
DATA, SYN_STREAM, SYN_REPLY, RST_STREAM, PING = 0, 1, 2, 3, 6
FIN = 1
Frame = Tuple[int, int, int, bytes]

# The dictionary of section 2.6.10.1: names with their lengths, then what is frequent in values.
NAMES = """
options head post put delete trace accept accept-charset accept-encoding accept-language
accept-ranges age allow authorization cache-control connection content-base
content-encoding content-language content-length content-location content-md5
content-range content-type date etag expect expires from host if-match if-modified-since
if-none-match if-range if-unmodified-since last-modified location max-forwards pragma
proxy-authenticate proxy-authorization range referer retry-after server te trailer
transfer-encoding upgrade user-agent vary via warning www-authenticate method get status
200_OK version HTTP/1.1 url public set-cookie keep-alive origin
"""
FREQUENT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502"
    "504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Re"
    "quest401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Impl"
    "emented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00"
    ":00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,imag"
    "e/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivate"
    "max-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(
    struct.pack(">I", len(name)) + name.replace("_", " ").encode() for name in NAMES.split()
) + FREQUENT.encode()


def frame(kind: int, stream: int, flags: int = 0, payload: bytes = b"") -> bytes:
    if kind == DATA:
        return struct.pack(">II", stream, flags << 24 | len(payload)) + payload
    head = struct.pack(">III", 0x80030000 | kind, flags << 24 | 4 + len(payload), stream)
    return head + payload


def take_frame(buffer: bytes) -> Tuple[Optional[Frame], bytes]:
    """(kind, stream, flags, payload) of the first frame, if it is whole; what is behind it."""
    if len(buffer) < 8:
        return None, buffer
    word, size = struct.unpack_from(">II", buffer)
    flags, end = size >> 24, 8 + (size & 0xFFFFFF)
    if len(buffer) < end:
        return None, buffer
    payload, rest = buffer[8:end], buffer[end:]
    if word >> 31:
        return (word & 0xFFFF, int.from_bytes(payload[:4], "big"), flags, payload[4:]), rest
    return (DATA, word, flags, payload), rest


def parse_headers(block: bytes) -> Dict[str, str]:
    texts: List[str] = []
    at = 4
    while at < len(block):
        (size,) = struct.unpack_from(">I", block, at)
        texts.append(block[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return dict(zip(texts[::2], texts[1::2]))


class Tunnel:
    """The server's end; `page(port)` is what an HTTP server behind a port answers."""

    def __init__(self, socket: ServerSocket, page: Callable[[int], bytes]) -> None:
        self._socket = socket
        self._page = page
        self._buffer = b""
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._errors: Dict[str, int] = {}  # the streams of requests that have no other yet
        self._ports: Dict[int, Tuple[int, int]] = {}  # data stream: its port, its error stream
        self._heard: Dict[int, bytes] = {}  # data stream: what has not been answered

    def run(self) -> None:
        """Until the client has gone."""
        while True:
            for message in self._socket.receive(3600):
                self._buffer += message
            for kind, stream, flags, payload in self._frames():
                if kind == SYN_STREAM:
                    self._open(stream, self._inflate.decompress(payload[6:]))
                elif kind == DATA and stream in self._ports:
                    self._hear(stream, flags, payload)
                elif kind == RST_STREAM:
                    self._ports.pop(stream, None)
                elif kind == PING:
                    self._socket.send_bytes(frame(PING, stream))

    def _frames(self) -> Iterator[Frame]:
        while True:
            found, self._buffer = take_frame(self._buffer)
            if not found:
                return
            yield found

    def _open(self, stream: int, block: bytes) -> None:
        headers = parse_headers(block)
        none = self._deflate.compress(bytes(4)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._socket.send_bytes(frame(SYN_REPLY, stream, 0, none))
        if headers["streamtype"] == "error":
            self._errors[headers["requestid"]] = stream
        else:
            errors = self._errors.pop(headers["requestid"])
            self._ports[stream] = int(headers["port"]), errors

    def _hear(self, stream: int, flags: int, data: bytes) -> None:
        port, errors = self._ports[stream]
        self._heard[stream] = self._heard.pop(stream, b"") + data
        if b"\r\n\r\n" in self._heard[stream]:
            self._heard[stream] = b""
            self._socket.send_bytes(frame(DATA, stream, 0, self._page(port)))
        if flags & FIN:
            del self._ports[stream]
            for ended in (errors, stream):
                self._socket.send_bytes(frame(DATA, ended, FIN))
