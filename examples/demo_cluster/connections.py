# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1, the server's side, on one socket and one thread.

Gone means that the client, or stop(), has ended the connection.
"""

import contextlib
import gzip
import selectors
import socket
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    Union,
)
from urllib.parse import parse_qs, unquote, urlsplit

from .bell import Bell
from .values import dumps


class Gone(Exception):
    """Nobody is there any more."""


class Request(NamedTuple):
    """One request, read whole."""

    method: str
    target: str  # as it came: path and query
    path: str  # decoded
    query: Dict[str, List[str]]
    headers: Dict[str, str]  # lower-case names; repeated ones joined by ", "
    repeated: Set[str]  # names that came on more than one line
    body: bytes

    def param(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        """As the API server reads a boolean: there, and not false."""
        return name in self.query and self.param(name).lower() not in ("false", "0")

    @property
    def upgrades(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def protocols(self) -> List[str]:
        offered = self.headers.get("sec-websocket-protocol", "")
        return [protocol.strip() for protocol in offered.split(",") if protocol.strip()]


class Record(NamedTuple):
    """One request as it came in."""

    method: str
    path: str  # with its query
    headers: Dict[str, str]  # lower-case names
    cluster: str  # "" if it was not for one


class Answer(NamedTuple):
    """One whole response."""

    code: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Tuple[Tuple[str, str], ...] = ()


# A handler returns an answer, or what goes on talking to the client.
Handled = Union[Answer, Callable[["Connection"], None]]


def json_answer(value: Any, code: int = 200, content_type: str = "application/json") -> Answer:
    return Answer(code, dumps(value).encode() + b"\n", content_type)


def text_error(message: str, code: int) -> Answer:
    """As Go's http.Error writes it."""
    headers = (("X-Content-Type-Options", "nosniff"),)
    return Answer(code, message.encode() + b"\n", "text/plain; charset=utf-8", headers)


REASONS = {
    **{
        101: "Switching Protocols",
        200: "OK",
        201: "Created",
        204: "No Content",
        301: "Moved Permanently",
    },
    **{
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
    },
    **{
        406: "Not Acceptable",
        409: "Conflict",
        410: "Gone",
        415: "Unsupported Media Type",
        422: "Unprocessable Entity",
    },
    **{
        429: "Too Many Requests",
        431: "Request Header Fields Too Large",
        500: "Internal Server Error",
        502: "Bad Gateway",
        504: "Gateway Timeout",
    },
}
MAX_HEADERS = 1 << 20  # bytes; Go's default
STALLED = 20.0  # a client that takes nothing for this long is dropped
GZIP_FROM = 128 * 1024  # bytes; smaller answers are not worth it to the API server


class Connection:
    """One client's socket, with what was read from it and not used yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.extra_headers: Tuple[Tuple[str, str], ...] = ()  # of the next response
        self.watching = False
        self._selector: Optional[selectors.BaseSelector] = None
        sock.settimeout(STALLED)

    def close(self) -> None:
        if self._selector is not None:
            self._selector.close()
        self.sock.close()

    def end(self) -> None:
        """From any thread: make the connection's own thread meet Gone."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS state from under the other thread.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    # Bytes

    def wait(self, seconds: Optional[float], bell: Optional[Bell] = None) -> bool:
        """Wait for the client, the bell, or the end of `seconds`; True if it was the client."""
        if getattr(self.sock, "pending", int)():
            return True  # decrypted already: the selector would not see it
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            self._selector.register(self.sock, selectors.EVENT_READ)
        if bell is not None and bell.reader not in self._selector.get_map():
            self._selector.register(bell.reader, selectors.EVENT_READ)
        ready = self._selector.select(None if seconds is None else max(0.0, seconds))
        return any(key.fileobj is self.sock for key, _ in ready)

    def forget(self, bell: Bell) -> None:
        if self._selector is not None and bell.reader in self._selector.get_map():
            self._selector.unregister(bell.reader)

    def fill(self) -> None:
        """Read what is there, at least one byte."""
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            raise Gone() from error
        if not data:
            raise Gone()
        self.buffer += data

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise Gone() from error

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.fill()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self.fill()
        return self._take(self.buffer.index(b"\r\n") + 2)[:-2]

    # HTTP

    def read_request(self) -> Request:
        searched = 0
        while b"\r\n\r\n" not in self.buffer[searched:]:
            searched = max(0, len(self.buffer) - 3)
            if searched > MAX_HEADERS:
                self.send(
                    self._head(
                        431,
                        [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")],
                    )
                )
                raise Gone()
            if not self.buffer:
                self.wait(None)  # between two requests there is no hurry
            self.fill()
        head = self._take(self.buffer.index(b"\r\n\r\n") + 4).decode("latin-1").split("\r\n")
        try:
            return self._parse(head)
        except ValueError:
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]
            self.send(self._head(400, headers) + b"400 Bad Request")
            raise Gone() from None

    def _parse(self, head: List[str]) -> Request:
        method, target, _ = head[0].split(" ")
        headers: Dict[str, str] = {}
        repeated: Set[str] = set()
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            if name in headers:
                repeated.add(name)
                value = headers[name] + ", " + value
            headers[name] = value
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        split = urlsplit(target)
        query = parse_qs(split.query, keep_blank_values=True)
        return Request(
            method, target, unquote(split.path), query, headers, repeated, self._read_body(headers)
        )

    def _read_body(self, headers: Dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            length = headers.get("content-length", "0")
            return self._take(int(length)) if length.isdigit() else b""
        body = b""
        while True:
            size = int(self._line().split(b";")[0], 16)
            body += self._take(size)
            self._line()
            if size == 0:
                return body

    def send_head(self, code: int, headers: Iterable[Tuple[str, str]]) -> None:
        """Begin a response that goes on."""
        self.send(self._head(code, headers))

    def _head(self, code: int, headers: Iterable[Tuple[str, str]]) -> bytes:
        lines = ["HTTP/1.1 %d %s" % (code, REASONS.get(code, "Unknown"))]
        lines += ["%s: %s" % header for header in tuple(headers) + self.extra_headers]
        self.extra_headers = ()
        return "\r\n".join(lines + ["", ""]).encode("latin-1")

    def send_answer(self, answer: Answer, request: Request) -> None:
        body, headers = answer.body, list(answer.headers)
        if body and answer.content_type:
            headers.append(("Content-Type", answer.content_type))
        if len(body) > GZIP_FROM and "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 1)
            headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
        if answer.code != 204:
            headers.append(("Content-Length", str(len(body))))
        self.send(self._head(answer.code, headers) + (b"" if request.method == "HEAD" else body))

    def send_raw_refusal(self, code: int, text: str = "") -> None:
        """As golang.org/x/net/websocket refuses a handshake, behind a proxy: it has no length."""
        headers = [("Transfer-Encoding", "chunked")]
        if text:
            headers.append(("Sec-WebSocket-Version", "13"))
        chunk = b"%x\r\n%s\r\n" % (len(text), text.encode()) if text else b""
        self.send(self._head(code, headers) + chunk + b"0\r\n\r\n")
        raise Gone()


def hang_up(connection: Connection) -> None:
    """A handler that ends the connection silently."""
    raise Gone()


class Chunks:
    """A response that goes on: text in chunks, over plain HTTP."""

    def __init__(self, connection: Connection, content_type: str = "application/json") -> None:
        self._connection = connection
        connection.send_head(
            200, [("Content-Type", content_type), ("Transfer-Encoding", "chunked")]
        )

    def send(self, texts: List[str]) -> None:
        data = "".join(texts).encode()
        if data:
            self._connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    def wait(self, seconds: float, bell: Optional[Bell] = None) -> None:
        if self._connection.wait(seconds, bell):
            self._connection.fill()  # the next request, early; or Gone

    def finish(self) -> None:
        self._connection.send(b"0\r\n\r\n")
