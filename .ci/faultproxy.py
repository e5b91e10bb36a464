# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy on 127.0.0.1 that does to connections what networks do to them.

    with FaultProxy(server_port) as proxy:
        connect_to(proxy.port)
        proxy.stall("down")             # the client hears nothing any more
        proxy.clear()

A way is "up" (client to server), "down" or "both". A fault holds for every connection, present
and future, until clear(); reset() and end() hit those of the moment. When a method returns, its
fault is at work.
"""

import collections
import selectors
import socket
import struct
import threading
import time

CHUNK = 65536  # bytes that a pipe holds at most
STEP = 0.02  # seconds between two pieces of a throttled pipe


class _Pipe:
    """One way of one connection: what was read from source and goes to sink.

    left   bytes until it is cut, None for no cut
    due    monotonic: when a throttled pipe may send again
    eof    source has ended;  ended  sink was told;  lost  bytes were dropped
    """

    def __init__(self, source, sink, fault):
        self.source, self.sink, self.fault = source, sink, fault
        self.left, self.data, self.due = fault.get("cut"), bytearray(), 0.0
        self.eof = self.ended = self.lost = False

    @property
    def flows(self):
        """Whether it is not stalled."""
        return not self.fault.get("stall")

    @property
    def has_room(self):
        """Whether it would read more."""
        return not self.eof and len(self.data) < CHUNK

    def read(self):
        """What its source has, once it can be read."""
        data = self.source.recv(CHUNK)
        self.eof = not data
        self.lost = self.lost or bool(self.fault.get("drop"))
        if not self.lost and not self.ended:
            self.data += data

    def allowed(self):
        """How many bytes may go at this moment."""
        size = CHUNK if self.left is None else self.left
        rate = self.fault.get("rate")
        return min(size, max(1, int(rate * STEP))) if rate else size

    def end(self):
        """FIN to the sink, after what was read before."""
        if self.ended:
            return
        self.ended = True
        try:
            self.sink.send(self.data)
            self.sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.data.clear()


class FaultProxy:
    """See the top of this file.

    port            where it listens
    opened, closed  time.monotonic() of each connection's opening and closing
    buffer          of the kernel, in bytes; a small one makes senders block
    """

    def __init__(self, port, buffer=None):
        self._server, self._buffer, self.port = ("127.0.0.1", port), buffer, 0
        self.opened, self.closed = [], []
        self._links = []  # (the pipe up, the pipe down) of each connection
        self._faults = {"up": {}, "down": {}}
        self._calls = collections.deque()  # (what the thread has to do, the Event of its end)
        self._wake, self._bell = socket.socketpair()
        self._listener, self._listening, self._over = None, False, False
        self._listen(True)
        self._thread = threading.Thread(target=self._run, name="faultproxy", daemon=True)
        self._thread.start()

    @property
    def open(self):
        """How many connections are open."""
        return len(self.opened) - len(self.closed)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    # -- faults

    def drop(self, way="both"):
        """Bytes are read and thrown away, ends of connections too."""
        self._set(way, drop=True)

    def stall(self, way="both"):
        """Bytes are not read: they wait in the kernel's buffers, then the sender blocks."""
        self._set(way, stall=True)

    def throttle(self, rate, way="both"):
        """No more than rate bytes a second for each connection."""
        self._set(way, rate=rate)

    def cut(self, count, way="both", rst=False):
        """Each connection ends after count more bytes of a way; with FIN, or with RST."""
        self._set(way, cut=count, rst=rst)

    def reset(self):
        """All connections end with RST."""
        self._do(lambda: [self._shut(link, rst=True) for link in list(self._links)])

    def end(self):
        """All connections end with FIN, in both ways; what was read before still arrives."""
        self._do(lambda: [self._end(link) for link in self._links])

    def refuse(self):
        """New connections are refused; those that are open go on."""
        self._do(lambda: self._listen(False))

    def accept(self):
        """New connections are taken again."""
        self._do(lambda: self._listen(True))

    def clear(self):
        """No faults any more. TCP never goes on with a hole: what lost bytes is reset."""
        self._do(self._clear)

    def close(self):
        """End everything, the thread too."""
        self._do(lambda: setattr(self, "_over", True))
        self._thread.join()

    def _do(self, work):
        """Have the thread do it, and wait until it has."""
        done = threading.Event()
        self._calls.append((work, done))
        try:
            self._bell.send(b"!")
        except OSError:
            pass  # the thread was awake, or is no more
        while self._thread.is_alive() and not done.wait(0.1):
            pass

    def _set(self, way, **fault):
        self._do(lambda: self._harm(("up", "down") if way == "both" else (way,), fault))

    # -- the thread

    def _harm(self, ways, fault):
        for way in ways:
            self._faults[way].update(fault)
            for pipe in self._pipes():
                if pipe.fault is self._faults[way]:
                    pipe.left = fault.get("cut", pipe.left)

    def _clear(self):
        self._listen(True)
        for fault in self._faults.values():
            fault.clear()
        for link in list(self._links):
            for pipe in link:
                pipe.left = None
            if any(pipe.lost for pipe in link):
                self._shut(link, rst=True)

    def _pipes(self):
        return [pipe for link in self._links for pipe in link]

    def _listen(self, listening):
        """Listen, or be bound only, so that nobody else gets the port."""
        if self._listener:
            if listening == self._listening:
                return
            self._listener.close()
        self._listening, self._listener = listening, socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        if listening:
            self._listener.listen(128)

    def _run(self):
        while not self._over:
            ready = self._wait()
            for link in list(self._links):
                self._move(link, ready)
            if self._listener in ready:
                self._take()
            if self._wake in ready:
                self._wake.recv(4096)
            while self._calls:
                work, done = self._calls.popleft()
                work()
                done.set()

        for link in list(self._links):
            self._shut(link)
        for sock in (self._listener, self._wake, self._bell):
            sock.close()

    def _wait(self):
        """The sockets that can be read, once there are any or something can be written."""
        wait, wanted = None, {self._wake: selectors.EVENT_READ}
        if self._listening:
            wanted[self._listener] = selectors.EVENT_READ
        for pipe in self._pipes():
            if not pipe.flows:
                continue
            if pipe.has_room:
                wanted[pipe.source] = wanted.get(pipe.source, 0) | selectors.EVENT_READ
            late = pipe.due - time.monotonic()
            if pipe.data and late > 0:
                wait = min(wait or late, late)
            elif pipe.data:
                wanted[pipe.sink] = wanted.get(pipe.sink, 0) | selectors.EVENT_WRITE

        with selectors.DefaultSelector() as selector:
            for sock, events in wanted.items():
                selector.register(sock, events)
            return {key.fileobj for key, events in selector.select(wait)
                    if events & selectors.EVENT_READ}

    def _take(self):
        """A new connection."""
        try:
            client, server = self._listener.accept()[0], socket.socket()
        except OSError:
            return
        self.opened.append(time.monotonic())
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._buffer:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        server.connect_ex(self._server)  # what comes of it shows in recv
        up = _Pipe(client, server, self._faults["up"])
        self._links.append((up, _Pipe(server, client, self._faults["down"])))

    def _move(self, link, ready):
        """What can be read and written now."""
        try:
            for pipe in link:
                if not pipe.flows:
                    continue
                if pipe.source in ready and pipe.has_room:
                    pipe.read()
                if pipe.data and pipe.due <= time.monotonic():
                    self._pass(link, pipe)
                if pipe.eof and not pipe.data and not pipe.lost and not pipe.ended:
                    pipe.ended = True
                    pipe.sink.shutdown(socket.SHUT_WR)
            if all(pipe.eof and not pipe.data for pipe in link):
                self._shut(link)
        except OSError:
            self._shut(link, rst=True)

    def _pass(self, link, pipe):
        """Send what may go; the end of the link when its bytes are used up."""
        size, rate = pipe.allowed(), pipe.fault.get("rate")
        try:
            sent = pipe.sink.send(pipe.data[:size]) if size else 0
        except BlockingIOError:
            return

        del pipe.data[:sent]
        pipe.due = time.monotonic() + sent / rate if rate else 0.0
        if pipe.left is None:
            return
        pipe.left -= sent
        if not pipe.left:
            pipe.data.clear()
            if pipe.fault.get("rst"):
                self._shut(link, rst=True)
            else:
                self._end(link)

    def _end(self, link):
        """FIN to both.

        What comes from now on is read and dropped, since closing with bytes unread would send RST.
        """
        for pipe in link:
            pipe.end()

    def _shut(self, link, rst=False):
        if link not in self._links:
            return
        self._links.remove(link)
        self.closed.append(time.monotonic())
        for sock in (link[0].source, link[1].source):
            if rst:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
