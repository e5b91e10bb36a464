# SPDX-License-Identifier: Apache-2.0
"""What a request is about, and how its answer is written."""

import json
import re
from typing import NamedTuple, Optional

from .connections import Answer, Request
from .refusals import Cause, Refused, bad_request, details_of, invalid
from .resources import Resource
from .selection import Selector, field_selector, label_selector
from .store import Entry
from .tables import table, wants_table
from .values import Key, Object, dumps


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


def negotiate(request: Request) -> None:
    kinds = [
        clause.split(";")[0].strip() for clause in request.headers.get("accept", "*/*").split(",")
    ]
    if not any(
        kind in ("", "*/*", "application/*", "application/json", "application/yaml")
        for kind in kinds
    ):
        raise Refused(406, "NotAcceptable", "406: Not Acceptable", {})


def render(request: Request, text: str, code: int = 200) -> Answer:
    """JSON as this client likes it: people at a terminal get it indented."""
    agent = request.headers.get("user-agent", "")
    if request.flag("pretty") or (
        "pretty" not in request.query and agent.startswith(("curl", "Wget", "Mozilla/5.0"))
    ):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    yaml = request.headers.get("accept", "").startswith(
        "application/yaml"
    )  # of which JSON is a part
    return Answer(code, text.encode() + b"\n", "application/yaml" if yaml else "application/json")


def object_answer(request: Request, resource: Resource, entry: Entry, code: int = 200) -> Answer:
    if wants_table(request):
        return render(request, dumps(table(resource, [entry.body], entry.body["metadata"])), code)
    return render(request, entry.text(resource), code)


def success(request: Request, resource: Resource, entry: Entry) -> Answer:
    details = details_of(
        resource, entry.body["metadata"]["name"], uid=entry.body["metadata"]["uid"]
    )
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
    return render(request, dumps(status))


def parse_int(text: str) -> int:
    if text and not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise bad_request('strconv.ParseInt: parsing "%s": invalid syntax' % text)
    return int(text or 0)


def parse_version(text: str) -> int:
    """A resourceVersion parameter; a bad one is a 500, which is the API server's own slip."""
    if text and not re.fullmatch("[0-9]{1,19}", text):
        why = (
            'resourceVersion: Invalid value: "%s": strconv.ParseUint: parsing "%s": invalid syntax'
        )
        raise Refused(500, "", why % (text, text))
    return int(text or 0)


def check_match(request: Request, watch: bool) -> None:
    match, causes = request.param("resourceVersionMatch"), []
    field = "resourceVersionMatch"
    if match and watch:
        causes.append(Cause(field, "Forbidden: resourceVersionMatch is forbidden for watch"))
    if match and not request.param("resourceVersion"):
        causes.append(
            Cause(
                field,
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            )
        )
    elif match not in ("", "Exact", "NotOlderThan"):
        known = '"Exact", "NotOlderThan", ""'
        causes.append(
            Cause(field, 'Unsupported value: "%s": supported values: %s' % (match, known))
        )
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)


def selector_for(target: Target, request: Request) -> Selector:
    labels = label_selector(request.param("labelSelector"))
    fields = field_selector(request.param("fieldSelector"), target.resource)
    return lambda body: labels(body) and fields(body)


def dry_run(request: Request, options: str, body: Optional[Object] = None) -> bool:
    asked = request.query.get("dryRun") or (body or {}).get("dryRun") or []
    asked = [word for word in asked if word]
    if asked not in ([], ["All"]):
        shown = ", ".join('"%s"' % word for word in asked)
        cause = Cause("dryRun", 'Unsupported value: []string{%s}: supported values: "All"' % shown)
        raise invalid("meta.k8s.io", options, "", [cause])
    return bool(asked)
