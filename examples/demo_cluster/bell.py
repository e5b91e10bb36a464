# SPDX-License-Identifier: Apache-2.0
"""What wakes a thread that waits for its client and for the store at once."""

import socket


class Bell:
    """Wakes a thread that waits for its client and for the store at once."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._rung = False

    def ring(self) -> None:  # the store's lock is held
        if not self._rung:
            self._rung = True
            self._writer.send(b"!")

    def clear(self) -> None:  # the store's lock is held
        if self._rung:
            self.reader.recv(16)
            self._rung = False

    def close(self) -> None:
        self.reader.close()
        self._writer.close()
