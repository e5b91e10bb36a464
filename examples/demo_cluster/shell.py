# SPDX-License-Identifier: Apache-2.0
"""What a container runs: a fake of sh and a few commands, on the channels of one exec."""

import base64
import contextlib
import json
import re
import shlex
import time
from typing import Callable, Dict, List, Optional

from .connections import Request
from .values import Object, dumps, timestamp
from .websockets import ServerSocket

STDIN, STDOUT, STDERR, ERROR, RESIZE, END = 0, 1, 2, 3, 4, 255  # channels


class Shell:
    """What a container runs: a fake of sh and a few commands, on the channels of one exec."""

    def __init__(self, socket: ServerSocket, protocol: str, pod: str, request: Request) -> None:
        self._socket, self._request = socket, request
        self._status_as_json = protocol.startswith("v")
        self._base64 = "base64" in protocol
        self._pod = pod
        self._tty = request.flag("tty")
        self._size = (24, 80)  # rows, columns
        self._input = b""
        self._ended = not request.flag("stdin")  # or by a message of v5
        self._commands: Dict[str, Callable[[List[str]], Optional[int]]] = {
            "echo": lambda words: self._print(" ".join(words) + "\n"),
            "ls": lambda words: self._print("bin\netc\nhome\ntmp\nvar\n"),
            "pwd": lambda words: self._print("/\n"),
            "hostname": lambda words: self._print(self._pod + "\n"),
            "date": lambda words: self._print(timestamp() + "\n"),
            "env": lambda words: self._print("HOME=/root\nHOSTNAME=%s\nPATH=/bin\n" % self._pod),
            "true": lambda words: 0,
            "false": lambda words: 1,
            "sleep": lambda words: self._sleep(float(words[0]) if words else 0),
            "cat": lambda words: self._cat(),
            "stty": lambda words: self._stty(),
            "sh": self._sh,
            "bash": self._sh,
        }

    def run(self, command: List[str]) -> None:
        # "Connected": an empty message on the first channel that can be written to.
        writable = [(STDOUT, "stdout"), (STDERR, "stderr")]
        channels = [channel for channel, name in writable if self._request.flag(name)]
        self._write((channels + [ERROR])[0], b"")

        if command[0].rsplit("/", 1)[-1] not in self._commands:
            status = _not_started(command[0])
        else:
            try:
                status = _ended_with(self._run(command))
            except SystemExit as end:
                status = _ended_with(int(end.code or 0))
        if self._status_as_json:
            self._write(ERROR, dumps(status).encode())
        elif status["status"] != "Success":
            self._write(ERROR, status["message"].encode())
        self._socket.finish()

    # Channels

    def _write(self, channel: int, data: bytes) -> None:
        if self._base64:
            self._socket.send([str(channel) + base64.b64encode(data).decode()])
        else:
            self._socket.send_bytes(bytes([channel]) + data)

    def _print(self, text: str, channel: int = STDOUT) -> int:
        channel = STDOUT if self._tty else channel
        if self._request.flag("stderr" if channel == STDERR else "stdout"):
            text = text.replace("\n", "\r\n") if self._tty else text
            self._write(channel, text.encode())
        return 0

    def _read(self, seconds: float = 3600.0) -> bytes:
        """What has come in; a resize is taken note of on the way."""
        if not self._input and not self._ended:
            for message in self._socket.receive(seconds):
                self._take(message)
        data, self._input = self._input, b""
        return data

    def _take(self, message: bytes) -> None:
        channel, data = message[0], message[1:]
        if self._base64:
            channel, data = message[0] - ord("0"), base64.b64decode(data)
        if channel == STDIN:
            self._input += data
        elif channel == END:
            self._ended = True
        elif channel == RESIZE:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                size = json.loads(data.decode())
                self._size = int(size["Height"]), int(size["Width"])

    # Commands

    def _run(self, words: List[str]) -> int:
        command = self._commands.get(words[0].rsplit("/", 1)[-1])
        if words[0] == "exit":
            raise SystemExit(int(words[1]) if words[1:] and words[1].isdigit() else 0)
        if command is None:
            self._print("sh: %s: not found\n" % words[0], STDERR)
            return 127
        try:
            return command(words[1:]) or 0
        except (ValueError, IndexError) as error:
            self._print("%s: %s\n" % (words[0], error), STDERR)
            return 2

    def _line(self, line: str) -> int:
        """One line of a script: commands joined by ; or &&, output to >&2 if it says so."""
        code = 0
        for part in re.split(r";", line):
            for command in part.split("&&"):
                quiet = ">&2" in command
                words = shlex.split(command.replace(">&2", ""))
                if words and quiet and words[0] == "echo":
                    code = self._print(" ".join(words[1:]) + "\n", STDERR)
                elif words:
                    code = self._run(words)
                if code:
                    break
        return code

    def _sh(self, words: List[str]) -> int:
        if words[:1] == ["-c"]:
            return sum(self._line(line) for line in words[1:2])
        code, pending = 0, ""
        prompt = "# " if self._tty else ""
        self._print(prompt)
        while True:
            typed = self._read().decode(errors="replace").replace("\r", "\n")
            if self._tty:
                self._print(typed)
            pending += typed
            while "\n" in pending:
                line, pending = pending.split("\n", 1)
                code = self._line(line)
                self._print(prompt)
            if self._ended or "\x04" in pending:
                return code

    def _cat(self) -> int:
        while True:
            data = self._read()
            if data and self._request.flag("stdout"):
                self._write(STDOUT, data)
            if self._ended or (self._tty and b"\x04" in data):
                return 0

    def _stty(self) -> int:
        self._input = self._read(0.2 if self._tty else 0)  # a resize may be on its way
        return self._print("%d %d\n" % self._size)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for message in self._socket.receive(until - time.monotonic()):
                self._take(message)


def _ended_with(code: int) -> Object:
    """The Status of a command that ran."""
    status: Object = {"metadata": {}, "status": "Success"}
    if code:
        text = "command terminated with non-zero exit code: exit status %d" % code
        causes = [{"reason": "ExitCode", "message": str(code)}]
        status.update(status="Failure", message=text, reason="NonZeroExitCode")
        status["details"] = {"causes": causes}
    return status


def _not_started(command: str) -> Object:
    """The Status of a command that there is not: no exit code."""
    text = (
        "Internal error occurred: error executing command in container: failed to exec in"
        " container: failed to start exec: OCI runtime exec failed: exec failed: unable to start"
        ' container process: exec: "%s": executable file not found in $PATH: unknown' % command
    )
    status: Object = {"metadata": {}, "status": "Failure", "message": text}
    return dict(status, reason="InternalError", code=500)
