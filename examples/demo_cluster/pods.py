# SPDX-License-Identifier: Apache-2.0
"""What a kubelet answers: logs that are made up, and a shell that knows a dozen words.

Both run on the connection's thread, without the store's lock.
"""

import base64
import contextlib
import json
import re
import shlex
import time
from typing import Callable, Dict, List, Optional

from .connections import Answer, Chunks, Connection, Handled, Request
from .refusals import bad_request
from .resources import PODS
from .settings import Settings
from .store import Entry, Store
from .targets import Target, parse_int
from .values import Object, dumps, timestamp
from .websockets import ServerSocket

LOG_PROTOCOLS = ("base64.binary.k8s.io", "binary.k8s.io")
# v5, which is newer than 1.20, is v4 and a message that ends stdin: kubectl offers nothing else.
EXEC_PROTOCOLS = tuple(
    start + "channel.k8s.io" for start in ("v5.", "v4.", "v4.base64.", "", "base64.")
)
STDIN, STDOUT, STDERR, ERROR, RESIZE, END = 0, 1, 2, 3, 4, 255


def pod_stream(
    settings: Settings,
    store: Store,
    target: Target,
    pod: Entry,
    protocols: List[str],
    request: Request,
) -> Handled:
    """pods/log and pods/exec: refuse here, under the lock, or return what runs afterwards."""
    names = [container.get("name") for container in pod.body["spec"]["containers"]]
    container = request.param("container") or names[0]
    if container not in names:
        raise bad_request("container %s is not valid for pod %s" % (container, target.name))
    if len(names) > 1 and not request.param("container"):
        choice = "a container name must be specified for pod %s, choose one of: [%s]"
        raise bad_request(choice % (target.name, " ".join(names)))
    scheduled = pod.body["spec"].get("nodeName")
    if target.subresource == "log":
        tail = parse_int(request.param("tailLines")) if request.param("tailLines") else None
        if not scheduled:
            return Answer(204)
        return lambda connection: send_log(
            settings, store, target, protocols, request, connection, tail
        )
    if not scheduled:
        raise bad_request("pod %s does not have a host assigned" % target.name)
    if not request.query.get("command"):
        raise bad_request("you must specify at least 1 command for the container")
    if not any(request.flag(name) for name in ("stdin", "stdout", "stderr")):
        raise bad_request("you must specify at least one of stdin, stdout, stderr")
    if not request.upgrades:
        raise bad_request("Upgrade request required")

    def run(connection: Connection) -> None:
        chosen = [protocol for protocol in protocols if protocol in EXEC_PROTOCOLS][:1]
        if protocols and not chosen:
            connection.send_raw_refusal(403)
        Shell(
            settings,
            ServerSocket(connection, request, "".join(chosen)),
            "".join(chosen),
            target,
            request,
        ).run()

    return run


def send_log(
    settings: Settings,
    store: Store,
    target: Target,
    protocols: List[str],
    request: Request,
    connection: Connection,
    tail: Optional[int],
) -> None:
    """The log of a pod: twenty lines from the past and, when followed, one each log_tick."""
    chosen = ([protocol for protocol in protocols if protocol in LOG_PROTOCOLS] or [""])[0]
    if request.upgrades and protocols and not chosen:
        connection.send_raw_refusal(403)

    def line(number: int) -> str:
        stamp = timestamp(time.time() - (20 - number) * 60 if number < 20 else None)
        path = ("/", "/cart", "/prices", "/healthz")[number % 4]
        text = "GET %s 200 request=%d pod=%s\n" % (path, number, target.name)
        return stamp[:-1] + ".000000000Z " + text if request.flag("timestamps") else text

    stream = (
        ServerSocket(connection, request, chosen)
        if request.upgrades
        else Chunks(connection, "text/plain")
    )

    def send(lines: List[str]) -> None:
        text = "".join(lines)
        if isinstance(stream, Chunks) or chosen == LOG_PROTOCOLS[0]:
            stream.send([base64.b64encode(text.encode()).decode() if chosen else text])
        else:
            stream.send_bytes(text.encode())

    if request.upgrades:
        send([])  # the API server, too, begins with an empty message
    past = [line(number) for number in range(20)]
    past = past if tail is None else past[len(past) - min(tail, len(past)) :]
    if past:
        send(past)
    number = 20
    while request.flag("follow"):
        until = time.monotonic() + settings.log_tick
        while time.monotonic() < until:
            stream.wait(until - time.monotonic())
        if store.get(PODS, target.key) is None:
            break
        send([line(number)])
        number += 1
    stream.finish()


class Shell:
    """What a container runs: a fake of sh and a few commands, on the channels of one exec."""

    def __init__(
        self,
        settings: Settings,
        socket: ServerSocket,
        protocol: str,
        target: Target,
        request: Request,
    ) -> None:
        self._settings, self._socket, self._request = settings, socket, request
        self._status_as_json = protocol.startswith("v")
        self._base64 = "base64" in protocol
        self._pod = target.name
        self._tty = request.flag("tty")
        self._size = (24, 80)  # rows, columns
        self._input = b""
        self._ended = False  # stdin, by a message of v5
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

    def run(self) -> None:
        for channel, name in (
            (STDIN, "stdin"),
            (STDOUT, "stdout"),
            (STDERR, "stderr"),
            (ERROR, ""),
        ):
            if not name or self._request.flag(name):
                self._write(channel, b"")  # "connected": one empty message for each channel
        try:
            code = self._run(self._request.query["command"])
        except SystemExit as end:
            code = int(end.code or 0)
        status: Object = {"metadata": {}, "status": "Success"}
        if code:
            message = "command terminated with non-zero exit code: exit status %d" % code
            causes = [{"reason": "ExitCode", "message": str(code)}]
            status.update(
                status="Failure",
                message=message,
                reason="NonZeroExitCode",
                details={"causes": causes},
            )
        if self._status_as_json:
            self._write(ERROR, dumps(status).encode())
        elif code:
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
            self._write(
                channel, text.replace("\n", "\r\n").encode() if self._tty else text.encode()
            )
        return 0

    def _read(self, seconds: float = 3600.0) -> bytes:
        """What has come in; a resize is taken note of on the way."""
        if not self._input:
            for message in self._socket.receive(seconds):
                channel, data = (
                    (message[0] - 48, base64.b64decode(message[1:]))
                    if self._base64
                    else (message[0], message[1:])
                )
                if channel == STDIN:
                    self._input += data
                elif channel == END:
                    self._ended = True
                elif channel == RESIZE:
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        size = json.loads(data.decode())
                        self._size = int(size["Height"]), int(size["Width"])
        data, self._input = self._input, b""
        return data

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
            self._input += self._read(until - time.monotonic())
