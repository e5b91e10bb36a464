# SPDX-License-Identifier: Apache-2.0
"""Frames and scripted servers, for the tests and for the tools in this folder.

A script is a function of one request and the connection that it came on:

    server = Server(lambda request, conn: conn.reply(200, {"items": []}))
    ... server.url, server.requests, server.open ...
    server.stop()
"""

import base64
import contextlib
import errno
import hashlib
import json
import os
import socket
import ssl
import struct
import tempfile
import threading

# A certificate for localhost, 127.0.0.1 and ::1, its own authority; its key protects nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQglVpHvJoPhCpapIkp
1PmJ//MthwxWmlV/Mwx64LkPD4+hRANCAARNZv8HBbnNEWIauIPrHdpIuZ04C9uY
bglIXPEsmrFEaTGfo5xz7K2buHJSGFeCvkx9ZxBps/VZZkOnFS9JXP4c
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBuDCCAV6gAwIBAgIUaT74cqKqnW/rPm1uVmgs4a4Lw6wwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOYXBpcHJveHkgdGVzdHMwIBcNMjYxMTIzMTIyNDAyWhgPMjEy
NjEwMzAxMjI0MDJaMBkxFzAVBgNVBAMMDmFwaXByb3h5IHRlc3RzMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAETWb/BwW5zRFiGriD6x3aSLmdOAvbmG4JSFzxLJqx
RGkxn6Occ+ytm7hyUhhXgr5MfWcQabP1WWZDpxUvSVz+HKOBgTB/MB0GA1UdDgQW
BBTRi3Oj9IyJ6VTTZIhiB/IqNMAKFzAfBgNVHSMEGDAWgBTRi3Oj9IyJ6VTTZIhi
B/IqNMAKFzAPBgNVHRMBAf8EBTADAQH/MCwGA1UdEQQlMCOCCWxvY2FsaG9zdIcE
fwAAAYcQAAAAAAAAAAAAAAAAAAAAATAKBggqhkjOPQQDAgNIADBFAiEAtRtPNp0p
zHzAQlbO2FDe66P3kkBU8ulVsAwdE7bUAVcCID86nBpq7TwS7LkYOpSRNgqVdkO1
74Xf4mAxodFhq5iE
-----END CERTIFICATE-----
"""


@contextlib.contextmanager
def certificate_file():
    """The name of a file with the key and the certificate above."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
        file.write(CERTIFICATE)

    try:
        yield file.name
    finally:
        os.unlink(file.name)


def server_context(certificate):
    """TLS settings of a server, from a file as certificate_file() makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# -- frames


def masked(payload, key):
    """RFC 6455 5.3, in the most literal way."""
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def frame(opcode, payload=b"", fin=True, rsv=0, mask=None, width=None):
    """One frame: a server's, or a client's where `mask` is a key of four bytes.

    width   0, 2 or 8 bytes of length after the first two, where not the shortest is wanted
    """
    payload = payload.encode() if isinstance(payload, str) else payload
    size = len(payload)
    if width is None:
        width = 0 if size < 126 else 2 if size < 1 << 16 else 8

    first = (0x80 if fin else 0) | rsv << 4 | opcode
    second = (0x80 if mask else 0) | {0: size & 127, 2: 126, 8: 127}[width]
    head = bytes((first, second)) + (size.to_bytes(width, "big") if width else b"")
    return head + mask + masked(payload, mask) if mask else head + payload


def accept_key(key):
    """The Sec-WebSocket-Accept that answers a request's key, both as text. RFC 6455 4.2.2."""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode()


# -- scripted servers


class Request:
    """What a client sent: method, path, headers (names in lower case), lines (as sent), body."""

    def __init__(self, head, conn):
        self.lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = self.lines[0].split(" ")
        pairs = (line.split(": ", 1) for line in self.lines[1:])
        self.headers = {name.lower(): value for name, value in pairs}
        self.body = conn.take(int(self.headers.get("content-length", 0)))
        self.is_watch = self.headers.get("upgrade") == "websocket"

    @property
    def accept(self):
        """The Sec-WebSocket-Accept that answers this request's key."""
        return accept_key(self.headers["sec-websocket-key"])

    def __repr__(self):
        return "%s %s" % (self.method, self.path)


class Conn:
    """The server's side of one connection, as scripts see it. EOFError where the client ended it.

    sock     the socket, after TLS where there is TLS
    buffer   bytes that were received and not yet taken
    stopped  an Event that is set when the server stops; scripts that hang wait on it
    """

    def __init__(self, sock, stopped=None):
        self.sock, self.buffer = sock, b""
        self.stopped = stopped or threading.Event()

    # -- what comes in

    def more(self):
        """Wait for more bytes."""
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def fill(self, seconds):
        """As more(), for so long; False when nothing came in time."""
        self.sock.settimeout(seconds)
        try:
            self.more()
        except (socket.timeout, ssl.SSLWantReadError):
            return False
        finally:
            self.sock.settimeout(None)
        return True

    def take(self, count):
        """Exactly so many bytes."""
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def take_head(self):
        """The bytes of a head, without the empty line that ends it."""
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def request(self):
        """The next request."""
        return Request(self.take_head(), self)

    def read_frame(self):
        """(opcode, payload) of the client's next frame, which must be masked and final."""
        first, second = self.take(2)
        assert first & 0x80 and second & 0x80
        size = second & 127
        if size >= 126:
            size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
        key = self.take(4)
        return first & 15, masked(self.take(size), key)

    def wait_end(self):
        """Read until the client ends the connection."""
        try:
            while True:
                self.buffer = b""
                self.more()
        except (EOFError, OSError):
            pass

    # -- what goes out

    def send(self, data):
        """Bytes as they are, or text as UTF-8."""
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def reply(self, status=200, body=b"", headers=(), reason="Reason", length=None):
        """An answer; `body` bytes, str, or anything else as JSON; `length` where it should lie."""
        kind = "text/plain" if isinstance(body, (bytes, str)) else "application/json"
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        body = body if isinstance(body, bytes) else body.encode()

        lines = ["HTTP/1.1 %d %s" % (status, reason), "Content-Type: " + kind]
        lines += ["Content-Length: %d" % (len(body) if length is None else length)]
        lines += ["%s: %s" % pair for pair in dict(headers).items()]
        self.send("\r\n".join(lines + ["", ""]).encode() + body)

    def upgrade(self, request, protocol="offered", extra=""):
        """The 101 for a WebSocket request; `protocol` "offered" takes the first one offered."""
        offered = request.headers.get("sec-websocket-protocol", "").split(", ")[0]
        chosen = offered if protocol == "offered" else protocol
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Accept: " + request.accept]
        lines += ["Sec-WebSocket-Protocol: " + chosen] if chosen else []
        self.send("\r\n".join(lines + [extra + "\r\n"]))

    def push(self, *events):
        """Watch events, each in a text frame as the API server sends them."""
        texts = [json.dumps(event).encode() + b"\n" for event in events]
        self.send(b"".join(frame(1, text) for text in texts))

    # -- ends

    def half_close(self):
        """FIN from this side, also below TLS; the client's bytes still come."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def reset(self):
        """RST, at once."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def end_tls(self):
        """close_notify: TLS has ended, TCP goes on."""
        self.sock.settimeout(0.01)
        try:
            self.sock.unwrap()
        except (OSError, ValueError):
            pass
        self.sock.settimeout(None)


class Server:
    """A server that does what its script says: script(request, conn) for every request.

    A script that returns None keeps the connection for the next request; one that returns False
    ends it. What a script raises as EOFError, OSError or ValueError ends the connection too.

    tls        a file as certificate_file() makes it
    host       the address to listen at, "::1" for instance
    conn_type  what makes the `conn` of a socket, a class like Conn
    requests   every request so far
    open       the sockets that are open now
    count      how many connections were accepted
    stopped    an Event, set by stop(); each connection has it too
    """

    def __init__(self, script, tls=None, host="127.0.0.1", conn_type=Conn):
        self.script, self.conn_type = script, conn_type
        self.requests, self.open, self.count = [], set(), 0
        self.context = server_context(tls) if tls else None
        self.stopped = threading.Event()
        self.threads = []

        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, 0))
        self.listener.listen(256)
        self.port = self.listener.getsockname()[1]
        self.host = "[%s]" % host if ":" in host else host
        self._go(self._accept)

    @property
    def url(self):
        return "%s://%s:%d" % ("https" if self.context else "http", self.host, self.port)

    @property
    def ws(self):
        return "ws" + self.url[4:]

    def paths(self):
        """The path of every request so far."""
        return [request.path for request in self.requests]

    def stop(self):
        """End every connection, and wait for the threads."""
        self.stopped.set()
        try:  # wakes accept()
            socket.create_connection(self.listener.getsockname()[:2], 1).close()
        except OSError:
            pass
        self.listener.close()

        for sock in list(self.open):
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(5)

    # -- threads: one accepts, and one serves each connection

    def _go(self, target, *args):
        thread = threading.Thread(target=target, args=args, name="scripted-server", daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError as error:
                if error.errno != errno.EMFILE:
                    return
                self.stopped.wait(0.01)  # a test has taken the descriptors away
                continue
            if self.stopped.is_set():
                sock.close()
                return
            self.count += 1
            self._go(self._serve, sock)

    def _serve(self, sock):
        self.open.add(sock)
        try:
            # Without it a reset takes away what was sent before it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                plain, sock = sock, self._with_tls(sock)
                self.open.discard(plain)
                self.open.add(sock)
                sock.do_handshake()
            self._run(self.conn_type(sock, self.stopped))
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self.open.discard(sock)
            sock.close()

    def _with_tls(self, sock):
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _run(self, conn):
        while True:
            request = conn.request()
            self.requests.append(request)
            if self.script(request, conn) is False:
                return


class RawServer(Server):
    """A server whose script, script(conn), gets each connection as it was accepted."""

    def _run(self, conn):
        self.script(conn)
