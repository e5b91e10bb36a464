# SPDX-License-Identifier: Apache-2.0
"""Listeners and threads. stop() ends every connection, and joins what was started."""

import contextlib
import socket
import struct
import threading
import time
from typing import Any, Callable, Set

from .connections import Connection, Gone

Serve = Callable[[Connection], None]


class Server:
    """One thread for each listener, one for each connection, and what spawn() starts."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: Set[threading.Thread] = set()  # guarded by _lock, as are the next two
        self._connections: Set[Connection] = set()
        self._listeners: Set[socket.socket] = set()

    def spawn(self, work: Callable[[], None]) -> None:
        """Run `work` on a thread that stop() waits for."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name="demo-cluster", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def listen(self, host: str, port: int, serve: Serve, ssl_context: Any = None) -> socket.socket:
        """Accept connections, and `serve` each on a thread of its own."""
        listener = socket.create_server((host, port), backlog=128)
        listener.settimeout(0.2)  # where shutdown() does not wake accept()
        with self._lock:
            self._listeners.add(listener)
        self.spawn(lambda: self._accept(listener, serve, ssl_context))
        return listener

    def unlisten(self, listener: socket.socket) -> None:
        with self._lock:
            self._listeners.discard(listener)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)

    def drop(self, wanted: Callable[[Connection], bool]) -> None:
        """End connections as a server that dies does: no close frame, a reset."""
        with self._lock:
            dropped = [connection for connection in self._connections if wanted(connection)]
        for connection in dropped:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.end()

    def stop(self) -> None:
        """End everything; takes at most 2 s."""
        self.stopping.set()
        deadline = time.monotonic() + 2.0
        while True:
            with self._lock:
                listeners, connections = list(self._listeners), list(self._connections)
                threads = list(self._threads)
            for listener in listeners:
                self.unlisten(listener)
            for connection in connections:
                connection.end()
            if not threads or time.monotonic() > deadline:
                return
            for thread in threads:
                if thread.is_alive():  # else it has ended, or is just being started
                    thread.join(max(0.0, min(0.2, deadline - time.monotonic())))

    def _accept(self, listener: socket.socket, serve: Serve, ssl_context: Any) -> None:
        with listener:
            while not self.stopping.is_set():
                with self._lock:
                    if listener not in self._listeners:
                        return
                try:
                    client, _ = listener.accept()
                except socket.timeout:
                    continue
                except OSError:
                    # Shut down; or out of file descriptors for a moment.
                    if self.stopping.wait(0.02):
                        return
                    continue
                self._begin(client, serve, ssl_context)

    def _begin(self, client: socket.socket, serve: Serve, ssl_context: Any) -> None:
        self.spawn(lambda: self._connection(client, serve, ssl_context))

    def _connection(self, client: socket.socket, serve: Serve, ssl_context: Any) -> None:
        connection = None
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if ssl_context is not None:
                client.settimeout(5.0)
                client = ssl_context.wrap_socket(client, server_side=True)
            connection = Connection(client)
            with self._lock:
                self._connections.add(connection)
            if not self.stopping.is_set():
                serve(connection)
        except (Gone, OSError):
            pass  # clients come and go
        finally:
            if connection is None:
                client.close()
            else:
                with self._lock:
                    self._connections.discard(connection)
                    connection.close()
