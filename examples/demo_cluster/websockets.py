# SPDX-License-Identifier: Apache-2.0
"""RFC 6455, the server's side, and what a watch writes to."""

import base64
import hashlib
import re
import struct
from typing import List, Optional, Tuple, Union

from .bell import Bell
from .connections import Chunks, Connection, Gone, Request

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes) -> bytes:
    """One frame as a server sends it: whole and not masked."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def unmask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


class ServerSocket:
    """The server's end of a WebSocket."""

    def __init__(self, connection: Connection, request: Request, protocol: str) -> None:
        key = request.headers.get("sec-websocket-key", "")
        if request.headers.get("sec-websocket-version") != "13":
            connection.send_raw_refusal(400, "missing or bad WebSocket Version")
        if not key:
            connection.send_raw_refusal(400, "mismatch challenge/response")
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", base64.b64encode(digest).decode()),
        ]
        if protocol:
            headers.append(("Sec-WebSocket-Protocol", protocol))
        connection.send_head(101, headers)
        self._connection = connection
        self._fragments = b""
        self._opcode = TEXT

    def send(self, texts: List[str]) -> None:
        if texts:
            self._connection.send(b"".join(frame(TEXT, text.encode()) for text in texts))

    def send_bytes(self, payload: bytes) -> None:
        self._connection.send(frame(BINARY, payload))

    def wait(self, seconds: float, bell: Optional[Bell] = None) -> None:
        self.receive(seconds, bell)  # a watch ignores what its client says

    def receive(self, seconds: float, bell: Optional[Bell] = None) -> List[bytes]:
        """The messages that come within `seconds`; pings are answered, a close ends it."""
        if self._connection.wait(seconds, bell):
            self._connection.fill()
        messages: List[bytes] = []
        while True:
            found = self._next_frame()
            if found is None:
                return messages
            final, opcode, payload = found
            if opcode == PING:
                self._connection.send(frame(PONG, payload))
            elif opcode == CLOSE:
                self.finish()
                raise Gone()
            elif opcode in (TEXT, BINARY, CONTINUATION):
                self._fragments += payload
                if final:
                    messages.append(self._fragments)
                    self._fragments = b""

    def _next_frame(self) -> Optional[Tuple[bool, int, bytes]]:
        buffer = self._connection.buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if not buffer[1] & 0x80:  # RFC 6455 5.1: a client masks
            self._connection.send(frame(CLOSE, struct.pack("!H", 1002)))
            self.finish()
            raise Gone()
        if len(buffer) < start + 4 + size:
            return None
        mask, payload = bytes(buffer[start : start + 4]), bytes(
            buffer[start + 4 : start + 4 + size]
        )
        opening = buffer[0]
        del buffer[: start + 4 + size]
        return bool(opening & 0x80), opening & 0x0F, unmask(payload, mask)

    def finish(self) -> None:
        self._connection.send(frame(CLOSE, struct.pack("!H", 1000)))


def open_stream(
    connection: Connection, request: Request, protocols: List[str]
) -> Union[Chunks, ServerSocket]:
    """What a watch writes to. The handshake is as strict as golang.org/x/net/websocket's."""
    if not request.upgrades:
        return Chunks(connection)
    origin = request.headers.get("origin", "")
    if not origin.startswith("/") and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", origin):
        connection.send_raw_refusal(403)
    if len(protocols) > 1:
        connection.send_raw_refusal(400)
    return ServerSocket(connection, request, "".join(protocols))
