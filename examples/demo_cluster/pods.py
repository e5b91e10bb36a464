# SPDX-License-Identifier: Apache-2.0
"""What a kubelet answers: logs, exec, attach, port forwards.

Refusals come under the store's lock; what goes on runs on the connection's thread without it.
"""

import base64
import struct
import time
from typing import Dict, List, Optional, Tuple, Union

from .calls import Call, parse_int
from .connections import Answer, Chunks, Connection, Handled, text_error
from .reading import existing
from .refusals import Cause, bad_request, invalid
from .resources import PODS
from .shell import Shell
from .tunnels import TUNNEL, Tunnel
from .values import Object, timestamp
from .websockets import ServerSocket

LOG_PROTOCOLS = ("base64.binary.k8s.io", "binary.k8s.io")
# v5, which is newer than 1.20, is v4 and a message that ends stdin.
V5 = "v5.channel.k8s.io"
EXEC_PROTOCOLS = (V5,) + tuple(
    start + "channel.k8s.io" for start in ("v4.", "v4.base64.", "", "base64.")
)
FORWARD_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")


def pod_stream(call: Call) -> Handled:
    """Refuse here, or return what runs afterwards."""
    pod = existing(call).body
    name, subresource = call.target.name, call.target.subresource
    if subresource != "portforward":
        _check_container(call, pod)
    if subresource == "log":
        tail = _tail(call)
        if not pod["spec"].get("nodeName"):
            return Answer(204)
        return lambda connection: Log(call, connection).run(tail)

    if not pod["spec"].get("nodeName"):
        raise bad_request("pod %s does not have a host assigned" % name)
    if subresource == "exec":
        _check_command(call)
    if not call.request.upgrades:
        raise bad_request("Upgrade request required")
    if not _kubelet_accepts(call):
        return text_error("406: Not Acceptable\n\nAvailable representations: ", 406)
    if subresource == "portforward":
        return lambda connection: forward(call, connection)
    return lambda connection: _run_shell(call, connection)


def _check_container(call: Call, pod: Object) -> None:
    name = call.target.name
    containers = [container.get("name") for container in pod["spec"]["containers"]]
    container = call.request.param("container") or containers[0]
    if container not in containers:
        raise bad_request("container %s is not valid for pod %s" % (container, name))
    if len(containers) > 1 and not call.request.param("container"):
        text = "a container name must be specified for pod %s, choose one of: [%s]"
        raise bad_request(text % (name, " ".join(containers)))


def _check_command(call: Call) -> None:
    if not call.request.query.get("command"):
        raise bad_request("you must specify at least 1 command for the container")
    if not any(call.request.flag(name) for name in ("stdin", "stdout", "stderr")):
        raise bad_request("you must specify at least one of stdin, stdout, stderr")


def _kubelet_accepts(call: Call) -> bool:
    """A kubelet's routes want `*/*`. With v5 the API server asks it in its own words."""
    accept = call.request.headers.get("accept", "*/*")
    if call.store.minor >= 30 and V5 in call.protocols:
        return True
    return any(clause.split(";")[0].strip() == "*/*" for clause in accept.split(","))


def _choose(call: Call, connection: Connection, known: Tuple[str, ...]) -> str:
    """The subprotocol that is spoken; "" if the client offers none."""
    chosen = [protocol for protocol in call.protocols if protocol in known][:1]
    if call.protocols and not chosen:
        connection.send_raw_refusal(403)
    return "".join(chosen)


def _run_shell(call: Call, connection: Connection) -> None:
    protocol = _choose(call, connection, EXEC_PROTOCOLS)
    command = call.request.query.get("command") or ["sh"]  # attach: what a pod runs, or could
    socket = ServerSocket(connection, call.request, protocol)
    Shell(socket, protocol, call.target.name, call.request).run(command)


# Logs


def _tail(call: Call) -> Optional[int]:
    text = call.request.param("tailLines")
    if not text:
        return None
    lines = parse_int(text)
    if lines < 0:
        why = "Invalid value: %d: must be greater than or equal to 0" % lines
        raise invalid("", "PodLogOptions", call.target.name, [Cause("tailLines", why)])
    return lines


class Log:
    """The log of a pod: twenty lines from the past and, when followed, one each log_tick."""

    def __init__(self, call: Call, connection: Connection) -> None:
        self._call = call
        self._request = call.request
        self._protocol = ""
        self._stream: Union[Chunks, ServerSocket]
        if self._request.upgrades:
            self._protocol = _choose(call, connection, LOG_PROTOCOLS)
            self._stream = ServerSocket(connection, self._request, self._protocol)
        else:
            self._stream = Chunks(connection, "text/plain")

    def run(self, tail: Optional[int]) -> None:
        if isinstance(self._stream, ServerSocket):
            self._send([])  # the API server, too, begins with an empty message
        past = [self._line(number) for number in range(20)]
        if tail is not None:
            past = past[len(past) - min(tail, len(past)) :]
        if past:
            self._send(past)

        number = 20
        while self._request.flag("follow"):
            self._wait(self._call.settings.log_tick)
            if self._call.store.get(PODS, self._call.target.key) is None:
                break
            self._send([self._line(number)])
            number += 1
        self._stream.finish()

    def _line(self, number: int) -> str:
        stamp = timestamp(time.time() - (20 - number) * 60 if number < 20 else None)
        path = ("/", "/cart", "/prices", "/healthz")[number % 4]
        text = "GET %s 200 request=%d pod=%s\n" % (path, number, self._call.target.name)
        if self._request.flag("timestamps"):
            text = stamp[:-1] + ".000000000Z " + text
        return text

    def _send(self, lines: List[str]) -> None:
        data = "".join(lines).encode()
        if isinstance(self._stream, Chunks):
            self._stream.send(["".join(lines)])
        elif self._protocol == LOG_PROTOCOLS[0]:
            self._stream.send([base64.b64encode(data).decode()])
        else:
            self._stream.send_bytes(data)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._stream.wait(until - time.monotonic())


# Port forwards


def page_of(pod: str, port: str) -> str:
    """What a forwarded port leads to."""
    return "This is %s, port %s.\n" % (pod, port)


def forward(call: Call, connection: Connection) -> None:
    """Two channels for each port: data, and what went wrong. An HTTP server is behind each."""
    if TUNNEL in call.protocols and call.store.minor >= 31:
        tunnel = ServerSocket(connection, call.request, TUNNEL)
        return Tunnel(tunnel, lambda port: _http_page(call, port)).run()

    protocol = _choose(call, connection, FORWARD_PROTOCOLS)
    socket = ServerSocket(connection, call.request, protocol)
    words = ",".join(call.request.query.get("ports") or []).split(",")
    ports = [int(word) for word in words if word.isdigit()]
    in_base64 = "base64" in protocol

    def send(channel: int, data: bytes) -> None:
        if in_base64:
            socket.send([str(channel) + base64.b64encode(data).decode()])
        else:
            socket.send_bytes(bytes([channel]) + data)

    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            send(channel, struct.pack("<H", port))
    received: Dict[int, bytes] = {}
    while True:
        for message in socket.receive(3600):
            channel, data = message[0], message[1:]
            if in_base64:
                channel, data = message[0] - ord("0"), base64.b64decode(message[1:])
            received[channel] = received.get(channel, b"") + data
            if channel % 2 == 0 and b"\r\n\r\n" in received[channel]:
                received[channel] = b""
                send(channel, _http_page(call, ports[channel // 2]))


def _http_page(call: Call, port: int) -> bytes:
    text = page_of(call.target.name, str(port))
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(text)
    return (head + text).encode()
