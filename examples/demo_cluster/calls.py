# SPDX-License-Identifier: Apache-2.0
"""One request to a cluster: what it is about, its parameters, and how its answer is written."""

import json
import re
from typing import List, NamedTuple, Optional

from .connections import Answer, Request
from .refusals import Cause, Refused, bad_request, details_of, invalid
from .resources import Resource
from .selection import Selector, field_selector, label_selector
from .settings import Settings
from .store import Entry, Store
from .tables import table, wants_table
from .users import User
from .values import Key, Object, dumps

MEDIA_TYPES = ("", "*/*", "application/*", "application/json", "application/yaml")


class Target(NamedTuple):
    """What a path below /api or /apis means."""

    resource: Resource
    namespace: str
    name: str
    subresource: str
    watch: bool = False  # the old /watch/ paths

    @property
    def key(self) -> Key:
        return self.namespace, self.name


class Call(NamedTuple):
    """A request once it is known who asks, and for what."""

    settings: Settings
    store: Store
    user: User
    request: Request
    protocols: List[str]  # of a WebSocket, without the one that carried the token
    target: Target
    warnings: List[str]  # the texts of Warning headers that the answer will have

    @property
    def resource(self) -> Resource:
        return self.target.resource

    @property
    def manager(self) -> str:
        """Who a change is put down to in managedFields."""
        agent = self.request.headers.get("user-agent", "")
        return self.request.param("fieldManager") or agent.split("/")[0] or "unknown"

    @property
    def recent(self) -> bool:
        """Whether refusals are worded as of late. Of the versions between, which is not known."""
        return self.store.minor >= 30

    def find(self) -> Optional[Entry]:
        return self.store.get(self.resource, self.target.key)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


# Answers


def negotiate(call: Call) -> None:
    accept = call.request.headers.get("accept", "*/*")
    kinds = [clause.split(";")[0].strip() for clause in accept.split(",")]
    if not any(kind in MEDIA_TYPES for kind in kinds):
        text = "406: Not Acceptable"
        if call.recent:
            known = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
            text += "\n\nAvailable representations: " + known
        raise Refused(406, "NotAcceptable", text, {})


def render(request: Request, text: str, code: int = 200) -> Answer:
    """JSON as this client likes it: people at a terminal get it indented."""
    person = request.headers.get("user-agent", "").startswith(("curl", "Wget", "Mozilla/5.0"))
    if request.flag("pretty") or (person and "pretty" not in request.query):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)

    # Of YAML, JSON is a part.
    yaml = request.headers.get("accept", "").startswith("application/yaml")
    return Answer(code, text.encode() + b"\n", "application/yaml" if yaml else "application/json")


def answer(call: Call, value: Object, code: int = 200) -> Answer:
    return render(call.request, dumps(value), code)


def object_answer(call: Call, entry: Entry, code: int = 200) -> Answer:
    """One object, or as kubectl asks for it, its line of a table."""
    if wants_table(call.request):
        return answer(call, table(call.resource, [entry.body], entry.body["metadata"]), code)
    return render(call.request, entry.text(call.resource), code)


def success(call: Call, entry: Entry) -> Answer:
    """The Status that says what was deleted."""
    metadata = entry.body["metadata"]
    details = details_of(call.resource, metadata["name"], uid=metadata["uid"])
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}}
    return answer(call, dict(head, status="Success", details=details))


# Parameters


def parse_int(text: str) -> int:
    if text and not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise bad_request('strconv.ParseInt: parsing "%s": invalid syntax' % text)
    return int(text or 0)


def parse_version(call: Call) -> int:
    """The resourceVersion parameter; a bad one was once a 500, which was the server's own slip."""
    text = call.request.param("resourceVersion")
    if text and not re.fullmatch("[0-9]{1,19}", text):
        why = 'resourceVersion: Invalid value: "%s": strconv.ParseUint: parsing "%s": '
        why = why % (text, text) + "invalid syntax"
        raise (
            bad_request("invalid resource version: " + why)
            if call.recent
            else Refused(500, "", why)
        )
    return int(text or 0)


def check_match(call: Call, watch: bool) -> None:
    """resourceVersionMatch, and sendInitialEvents, which goes with it since 1.27."""
    request, field = call.request, "resourceVersionMatch"
    match, causes = request.param(field), []

    def forbid(name: str, text: str) -> None:
        causes.append(Cause(name, "Forbidden: " + text))

    def unsupported(known: str) -> None:
        text = 'Unsupported value: "%s": supported values: %s' % (match, known)
        causes.append(Cause(field, text))

    initial = "sendInitialEvents" in request.query and call.store.minor >= 27
    if watch and call.store.minor >= 27:
        if initial and match != "NotOlderThan":
            forbid(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        if match and not initial:
            forbid(
                field,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        if match not in ("", "NotOlderThan"):
            unsupported('"NotOlderThan"')
    elif watch and match:
        forbid(field, "resourceVersionMatch is forbidden for watch")
    if not watch and match:
        if not request.param("resourceVersion"):
            forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided")
        if match not in ("Exact", "NotOlderThan"):
            unsupported('"Exact", "NotOlderThan", ""')
        if match == "Exact" and request.param("resourceVersion") == "0":
            forbid(field, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if initial and not watch:
        forbid("sendInitialEvents", "sendInitialEvents is forbidden for list")
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)


def selector_for(call: Call) -> Selector:
    labels = label_selector(call.request.param("labelSelector"))
    fields = field_selector(call.request.param("fieldSelector"), call.resource)
    return lambda body: labels(body) and fields(body)


def dry_run(call: Call, options: str, body: Optional[Object] = None) -> bool:
    """Whether dryRun=All was asked for, in the query or in the body's options."""
    values = call.request.query.get("dryRun") or (body or {}).get("dryRun") or []
    values = [value for value in values if value]
    if values not in ([], ["All"]):
        shown = ", ".join('"%s"' % value for value in values)
        shown = "[%s]" % shown if call.recent else "[]string{%s}" % shown
        why = 'Unsupported value: %s: supported values: "All"' % shown
        raise invalid("meta.k8s.io", options, "", [Cause("dryRun", why)])
    return bool(values)
