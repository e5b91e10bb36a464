# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy on 127.0.0.1 that does to connections what networks do to them.

    with FaultProxy(server_port) as proxy:
        connect_to(proxy.port)
        proxy.stall("down")             # the client hears nothing any more
        proxy.clear()

A way is "up" (client to server), "down" or "both". A fault holds for every connection, present and future, until clear();
reset() and end() hit those of the moment. When a method returns, its fault is at work.
"""
import collections
import selectors
import socket
import struct
import threading
import time

CHUNK = 65536


class _Pipe:
    """One way of one connection: what was read from source and goes to sink."""

    def __init__(self, source, sink, fault):
        self.source, self.sink, self.fault, self.left = source, sink, fault, fault.get("cut")
        self.data, self.due = bytearray(), 0.0         # due: when a throttled pipe may send again
        self.eof = self.ended = self.lost = False      # source ended; sink was told; bytes were dropped


class FaultProxy:
    def __init__(self, port, buffer=None):
        self.server, self.buffer, self.port = ("127.0.0.1", port), buffer, 0    # buffer: of the kernel; a small one makes senders block
        self.opened, self.closed = [], []              # time.monotonic() of each connection's opening and closing
        self._links, self._faults, self._calls = [], {"up": {}, "down": {}}, collections.deque()
        (self._wake, self._bell), self._listener, self._over = socket.socketpair(), None, False
        self._listen(True)
        self._thread = threading.Thread(target=self._run, name="faultproxy", daemon=True)
        self._thread.start()

    open = property(lambda self: len(self.opened) - len(self.closed), doc="How many connections are open.")
    __enter__ = lambda self: self  # noqa: E731
    __exit__ = lambda self, *error: self.close()  # noqa: E731

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
        """No faults any more. TCP never goes on with a hole: a connection that lost bytes is reset."""
        def work():
            self._listen(True)
            for fault in self._faults.values():
                fault.clear()
            for link in list(self._links):
                link[0].left = link[1].left = None
                if link[0].lost or link[1].lost:
                    self._shut(link, rst=True)
        self._do(work)

    def close(self):
        """End everything, the thread too."""
        self._do(lambda: setattr(self, "_over", True))
        self._thread.join()

    def _do(self, work):
        done = threading.Event()
        self._calls.append((work, done))
        try:
            self._bell.send(b"!")
        except OSError:
            pass                                       # the thread was awake, or is no more
        while self._thread.is_alive() and not done.wait(0.1):
            pass

    def _set(self, way, **fault):
        def work():
            for one in ("up", "down") if way == "both" else (way,):
                self._faults[one].update(fault)
                for pipe in (pipe for link in self._links for pipe in link if pipe.fault is self._faults[one]):
                    pipe.left = fault.get("cut", pipe.left)
        self._do(work)

    # -- the thread

    def _listen(self, listening):
        if self._listener:
            if listening == self._listening:
                return
            self._listener.close()
        self._listening, self._listener = listening, socket.socket()            # bound in any case, so that nobody else gets the port
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        if listening:
            self._listener.listen(128)

    def _run(self):
        while not self._over:
            wait, wanted = None, {self._wake: selectors.EVENT_READ}
            if self._listening:
                wanted[self._listener] = selectors.EVENT_READ
            for pipe in (pipe for link in self._links for pipe in link if not pipe.fault.get("stall")):
                late = pipe.due - time.monotonic()
                if not pipe.eof and len(pipe.data) < CHUNK:
                    wanted[pipe.source] = wanted.get(pipe.source, 0) | selectors.EVENT_READ
                if pipe.data and late > 0:
                    wait = min(wait or late, late)
                elif pipe.data:
                    wanted[pipe.sink] = wanted.get(pipe.sink, 0) | selectors.EVENT_WRITE
            with selectors.DefaultSelector() as selector:
                for sock, events in wanted.items():
                    selector.register(sock, events)
                ready = {key.fileobj for key, events in selector.select(wait) if events & selectors.EVENT_READ}
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

    def _take(self):
        try:
            client, server = self._listener.accept()[0], socket.socket()
        except OSError:
            return
        self.opened.append(time.monotonic())
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.buffer:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        server.connect_ex(self.server)                 # what comes of it shows in recv
        self._links.append((_Pipe(client, server, self._faults["up"]), _Pipe(server, client, self._faults["down"])))

    def _move(self, link, ready):
        try:
            for pipe in (pipe for pipe in link if not pipe.fault.get("stall")):
                if pipe.source in ready and not pipe.eof and len(pipe.data) < CHUNK:
                    data = pipe.source.recv(CHUNK)
                    pipe.eof, pipe.lost = not data, pipe.lost or bool(pipe.fault.get("drop"))
                    pipe.data += b"" if pipe.lost or pipe.ended else data
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
        rate, size = pipe.fault.get("rate"), CHUNK if pipe.left is None else pipe.left
        try:
            sent = pipe.sink.send(pipe.data[:min(size, max(1, int(rate * 0.02))) if rate else size]) if size else 0
        except BlockingIOError:
            return
        del pipe.data[:sent]
        pipe.due = time.monotonic() + sent / rate if rate else 0.0
        if size == sent and pipe.left is not None:
            pipe.data.clear()
            self._shut(link, rst=True) if pipe.fault.get("rst") else self._end(link)
        elif pipe.left is not None:
            pipe.left -= sent

    def _end(self, link):
        """FIN to both; what comes from now on is read and dropped, since closing with bytes unread would send RST."""
        for pipe in (pipe for pipe in link if not pipe.ended):
            pipe.ended = True
            try:
                pipe.sink.send(pipe.data)
                pipe.sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            pipe.data.clear()

    def _shut(self, link, rst=False):
        if link in self._links:
            self._links.remove(link)
            self.closed.append(time.monotonic())
            for sock in (link[0].source, link[1].source):
                if rst:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
