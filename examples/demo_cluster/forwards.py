# SPDX-License-Identifier: Apache-2.0
"""Port forwards that a Headlamp server has begun, in both of its ages.

2024  /portforward, the cluster and the token with the request; whatever fails is never answered.
2026  /clusters/<name>/portforward, the token in a cookie; what fails is answered, and remembered.
"""

import socket
import threading
import uuid
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from .connections import (
    Answer,
    Connection,
    Handled,
    Request,
    hang_up,
    json_answer,
    text_error,
)
from .cookies import token_in_cookies
from .pods import page_of
from .refusals import Refused
from .resources import PODS
from .servers import Server
from .settings import Settings
from .store import Store
from .users import ANONYMOUS, Keys
from .values import Object, dig, go_json_error, json_object

FIELDS = ("id", "namespace", "pod", "service", "serviceNamespace", "targetPort", "port")
LISTED = FIELDS + ("cluster", "status", "error")
SHOWN = ("id", "pod", "service", "cluster", "namespace")
CHECK = 5.0  # a pod that does not run is noticed after so long


class Forward:
    """One of them: its record, and its port while it runs."""

    def __init__(self, record: Object) -> None:
        self.record = dict(record, status="Running", error="")
        self.listener: Optional[socket.socket] = None
        self.ended = threading.Event()

    @property
    def running(self) -> bool:
        return bool(self.record["status"] == "Running")


class Forwards:
    """Begun, listed, stopped. `find` gives the cluster of a name, or None."""

    def __init__(
        self, settings: Settings, server: Server, find: Callable[[str], Optional[Store]]
    ) -> None:
        self._settings = settings
        self._server = server
        self._find = find
        self._lock = threading.Lock()
        self._forwards: Dict[Tuple[str, str], Forward] = {}  # by cluster and id; guarded by _lock

    # As of 2026: `key` names the context, which for a stateless cluster is more than its name

    def handle(
        self, cluster: str, key: str, store: Optional[Store], rest: str, request: Request
    ) -> Optional[Handled]:
        """Answer what is below /clusters/<name>/portforward; None if that is not Headlamp's."""
        if rest == "portforward/list":
            return self._list(key)
        if rest != "portforward":
            return None
        if request.method == "POST":
            return self._start(cluster, key, store, request)
        if request.method == "DELETE":
            return self._end(key, request)
        if request.method == "GET":
            return self._get(key, request)
        return None

    def _start(self, cluster: str, key: str, store: Optional[Store], request: Request) -> Handled:
        wanted = _payload(request)
        if isinstance(wanted, Answer):
            return wanted
        wanted["id"] = wanted["id"] or str(uuid.uuid4())
        with self._lock:
            present = self._forwards.get((key, wanted["id"]))
        if present and present.running:
            return text_error("portforward with this ID is already running", 409)
        for name, title in (("namespace", ""), ("pod", "pod name"), ("targetPort", "")):
            if not wanted[name]:
                return text_error((title or name) + " is required", 400)
        if store is None:
            return text_error("key not found", 500)

        refusal = self._refusal(cluster, store, token_in_cookies(request, cluster))
        if refusal:
            return text_error("permission check failed: " + refusal, 500)
        forward = Forward(dict(wanted, cluster=cluster))
        forward.record["port"] = wanted["port"] or str(_free_port())
        problem = _problem(store, wanted)
        if not problem and not self._open(forward):
            ports = (forward.record["port"], wanted["targetPort"])
            problem = "unable to listen on any of the requested ports: [{%s %s}]" % ports
        self._keep(key, forward)
        if problem:
            forward.record.update(status="Stopped", error=problem)
            return text_error(problem, 500)
        self._server.spawn(lambda: self._monitor(store, forward))
        return json_answer({name: forward.record[name] for name in FIELDS})

    def _refusal(self, cluster: str, store: Store, token: str) -> str:
        """Why the user may not, as the access review says it."""
        accepted = self._settings.accepted(cluster)
        keys = Keys(accepted, self._settings.rights, store.issued)
        try:
            user = ANONYMOUS if accepted is not None and not token else keys.user(token)
        except Refused:
            return "failed to check permissions: Unauthorized"
        if user == ANONYMOUS:
            text = "selfsubjectaccessreviews.authorization.k8s.io is forbidden: "
            text += 'User "system:anonymous" cannot create resource "selfsubjectaccessreviews" '
            text += 'in API group "authorization.k8s.io" at the cluster scope'
            return "failed to check permissions: " + text
        return (
            ""
            if user.may("create", "pods/portforward")
            else ("access denied: insufficient permissions")
        )

    def _monitor(self, store: Store, forward: Forward) -> None:
        """A pod that has gone, or does not run, ends its forward."""
        record = forward.record
        while not forward.ended.wait(CHECK) and not self._server.stopping.is_set():
            pod = store.get(PODS, (record["namespace"], record["pod"]))
            if pod and dig(pod.body, "status", "phase") == "Running":
                continue
            why = "pod is not running" if pod else 'pods "%s" not found' % record["pod"]
            place = "%s/%s" % (record["namespace"], record["pod"])
            text = "Pod %s check failed: %s" % (place, why)
            self._close(forward, text if self._settings.today else "")
            return

    def _end(self, key: str, request: Request) -> Handled:
        wanted = json_object(request.body)
        if wanted is None:
            return text_error(go_json_error(request.body), 400)
        if not wanted.get("id"):
            return text_error("invalid request, id is required", 400)
        with self._lock:
            forward = self._forwards.get((key, wanted["id"]))
            # The end of one that runs writes its record once more: only a stopped one stays away.
            if forward and not forward.running and not wanted.get("stopOrDelete"):
                del self._forwards[key, wanted["id"]]
        if forward is None:
            return _unknown()
        self._close(forward, forward.record["error"] or "Port forward stopped.")
        return _stopped()

    # As of 2024

    def handle_old(self, path: str, request: Request) -> Optional[Handled]:
        """Answer what is at /portforward; None if it is not."""
        if path == "portforward/list":
            return self._list(request.param("cluster"))
        if path != "portforward":
            return None
        if request.method == "POST":
            return self._start_old(request)
        if request.method == "DELETE":
            return self._end_old(request)
        if request.method == "GET":
            if not request.param("cluster"):
                return text_error("cluster is required", 400)
            return self._get(request.param("cluster"), request)
        return None

    def _start_old(self, request: Request) -> Handled:
        wanted = _payload(request, ("cluster",))
        if isinstance(wanted, Answer):
            return wanted
        authorization = request.headers.get("authorization", "Bearer ")
        if "Bearer " not in authorization:
            return hang_up  # the server panics
        for name, title in (
            ("namespace", "namespace"),
            ("pod", "pod name"),
            ("targetPort", "targetPort"),
            ("cluster", "cluster name"),
        ):
            if not wanted[name]:
                return text_error(title + " is required", 400)
        store = self._find(wanted["cluster"])
        if store is None:
            return text_error("key not found", 500)

        wanted["id"] = wanted["id"] or str(uuid.uuid4())
        token = authorization.replace("Bearer ", "", 1)
        tokens = self._settings.accepted(wanted["cluster"])
        refused = tokens is not None and token != "" and token not in tokens
        forward = Forward(wanted)
        # Whatever goes wrong from here on, ForwardPorts fails and nobody tells the handler.
        if refused or _problem(store, wanted) or not self._open(forward):
            return hang
        self._keep(wanted["cluster"], forward)
        self._server.spawn(lambda: self._monitor(store, forward))
        return json_answer({name: forward.record[name] for name in FIELDS + ("cluster",)})

    def _end_old(self, request: Request) -> Handled:
        wanted = json_object(request.body)
        if wanted is None:
            return text_error(go_json_error(request.body), 400)
        for name in ("id", "cluster"):
            if not wanted.get(name):
                return text_error("invalid request, %s is required" % name, 400)
        place = (wanted["cluster"], wanted["id"])
        with self._lock:
            forward = self._forwards.get(place)
            if forward and not wanted.get("stopOrDelete"):
                del self._forwards[place]  # only the record: the forward goes on
                return _stopped()
        if forward is None:
            return _unknown()
        if not forward.running:
            return hang  # stopping what has stopped blocks for ever
        self._close(forward, "")
        return _stopped()

    # What both do

    def _keep(self, key: str, forward: Forward) -> None:
        with self._lock:
            self._forwards[key, forward.record["id"]] = forward

    def _open(self, forward: Forward) -> bool:
        """Listen. A port that is taken only on 127.0.0.1 is no failure: ::1 has it."""
        record = forward.record
        page = page_of(record["pod"], record["targetPort"])
        try:
            port = int(record["port"] or 0)
            forward.listener = self._server.listen(
                "127.0.0.1", port, lambda connection: serve_page(connection, page)
            )
        except OSError:
            return _free_on_ipv6(port)
        except (ValueError, OverflowError):
            return False
        record["port"] = str(forward.listener.getsockname()[1])
        return True

    def _close(self, forward: Forward, error: str) -> None:
        with self._lock:
            forward.record.update(status="Stopped", error=error)
            listener, forward.listener = forward.listener, None
        forward.ended.set()
        if listener is not None:
            self._server.unlisten(listener)

    def _list(self, cluster: str) -> Answer:
        """By prefix: "demo" also lists what belongs to "demo-2"."""
        if not cluster:
            return text_error("cluster is required", 400)
        with self._lock:
            records: List[Object] = [
                {name: forward.record[name] for name in LISTED}
                for (key, _), forward in self._forwards.items()
                if key.startswith(cluster)
            ]
        return json_answer(records)

    def _get(self, key: str, request: Request) -> Answer:
        name = request.param("id")
        if not name:
            return text_error("id is required", 400)
        with self._lock:
            forward = self._forwards.get((key, name))
        if forward is None:
            return text_error("no portforward running with id " + name, 404)
        return json_answer({name: forward.record[name] for name in SHOWN})


def _payload(request: Request, more: Tuple[str, ...] = ()) -> Union[Object, Answer]:
    """The body's fields, each a string; or what is answered to another body."""
    wanted = json_object(request.body)
    start = "failed to marshal port forward payload "
    if wanted is None:
        return text_error(start + go_json_error(request.body), 400)
    for name in FIELDS + more:
        if not isinstance(wanted.get(name, ""), str):
            kind = _go_kind(wanted[name])
            text = "json: cannot unmarshal %s into Go struct field portForwardRequest.%s"
            return text_error(start + text % (kind, name) + " of type string", 400)
    return {name: wanted.get(name, "") for name in FIELDS + more}


def _go_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _problem(store: Store, wanted: Object) -> str:
    """Why the pod can't be reached, as the upgrade fails; "" if it can."""
    pod = store.get(PODS, (wanted["namespace"], wanted["pod"]))
    start = "error upgrading connection: unable to upgrade connection: "
    if pod is None:
        return start + 'pods "%s" not found' % wanted["pod"]
    if not pod.body["spec"].get("nodeName"):
        return start + "pod %s does not have a host assigned" % wanted["pod"]
    return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _free_on_ipv6(port: int) -> bool:
    try:
        with socket.create_server(("::1", port), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def _unknown() -> Answer:
    why = "failed to get portforward from cache: key not found"
    return text_error("failed to delete port forward " + why, 500)


def _stopped() -> Answer:
    return Answer(200, b"stopped", "text/plain; charset=utf-8")


def hang(connection: Connection) -> None:
    """No answer, until the client or the server ends."""
    while True:
        connection.wait(None)
        connection.fill()


def serve_page(connection: Connection, page: str) -> None:
    """What a forwarded port leads to."""
    while True:
        request = connection.read_request()
        connection.send_answer(Answer(200, page.encode(), "text/plain"), request)
