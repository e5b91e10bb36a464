# SPDX-License-Identifier: Apache-2.0
"""Objects read: get and list, pages included."""

import base64
import json
import time
from typing import List, Optional, Tuple

from .calls import (
    Call,
    answer,
    check_match,
    object_answer,
    parse_int,
    parse_version,
    render,
    selector_for,
)
from .connections import Answer
from .refusals import CONTINUE_EXPIRED, Refused, bad_request, expired, not_found
from .resources import Resource
from .store import Entry
from .tables import table, wants_table
from .values import Key, Object, dumps

FUTURE_WAIT = 3.0  # how long a list waits for a resourceVersion that is yet to come


def get(call: Call) -> Answer:
    parse_version(call)
    return object_answer(call, existing(call))


def existing(call: Call) -> Entry:
    entry = call.find()
    if entry is None:
        raise not_found(call.resource, call.target.name)
    return entry


def list_objects(call: Call) -> Answer:
    check_match(call, watch=False)
    matches = selector_for(call)
    limit = parse_int(call.request.param("limit"))
    version, after = _list_version(call)

    entries = [
        (key, entry)
        for key, entry in call.store.entries(call.resource, call.target.namespace, version)
        if (after is None or key > after) and matches(entry.body)
    ]
    metadata: Object = {"continue": ""} if call.resource.custom else {}
    metadata["resourceVersion"] = str(version)

    # With resourceVersion=0 the watch cache answers, and does not page.
    if 0 < limit < len(entries) and call.request.param("resourceVersion") != "0":
        last = entries[limit - 1][0]
        metadata["continue"] = _encode_continue(call, version, last)
        if not call.request.param("labelSelector") and not call.request.param("fieldSelector"):
            metadata["remainingItemCount"] = len(entries) - limit
        entries = entries[:limit]

    if wants_table(call.request):
        bodies = [entry.body for _, entry in entries]
        return answer(call, table(call.resource, bodies, metadata))
    text = list_text(call.resource, metadata, [entry for _, entry in entries])
    return render(call.request, text)


def list_text(resource: Resource, metadata: Object, entries: List[Entry]) -> str:
    items = ",".join(entry.text(resource if resource.custom else None) for entry in entries)
    kind = resource.list_kind or resource.kind + "List"
    head = {"kind": kind, "apiVersion": resource.api_version, "metadata": metadata}
    return '%s,"items":[%s]}' % (dumps(head)[:-1], items)


def _list_version(call: Call) -> Tuple[int, Optional[Key]]:
    """The resourceVersion that is listed, and the key after which a page begins."""
    store, token = call.store, call.request.param("continue")
    version = parse_version(call)
    if token:
        if version:
            raise bad_request("specifying resource version is not allowed when using continue")
        return _decode_continue(call, token)

    if call.request.param("resourceVersionMatch") == "Exact":
        if version < store.oldest:
            raise expired("The resourceVersion for the provided list is too old.")
        return version, None
    if version > store.resource_version:
        _await_version(call, version)
    return store.resource_version, None


def _await_version(call: Call, version: int) -> None:
    store, deadline = call.store, time.monotonic() + FUTURE_WAIT
    while version > store.resource_version and time.monotonic() < deadline:
        store.lock.wait(deadline - time.monotonic())
    if version <= store.resource_version:
        return

    text = "Timeout: Too large resource version: %d, current: %d"
    reason, short = "ResourceVersionTooLarge", "Too large resource version"
    details = {"causes": [{"reason": reason, "message": short}], "retryAfterSeconds": 1}
    raise Refused(504, "Timeout", text % (version, store.resource_version), details)


# Continue tokens


def _encode_continue(call: Call, version: int, last: Key) -> str:
    one_space = call.target.namespace or not call.resource.namespaced
    start = last[1] if one_space else "/".join(last)
    token = dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start + "\0"})
    return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def _decode_continue(call: Call, token: str) -> Tuple[int, Key]:
    try:
        fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, start = int(fields["rv"]), fields["start"].rstrip("\0")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = "invalid continue token: continue key is not valid: %s"
        raise bad_request(text % error) from error

    namespace, name = start.split("/") if "/" in start else (call.target.namespace, start)
    if version < 0:
        # The token that an expired one is traded for: go on with what is there now.
        return call.store.resource_version, (namespace, name)
    if version < call.store.oldest:
        again = _encode_continue(call, -1, (namespace, name))
        raise expired(CONTINUE_EXPIRED, {"continue": again})
    return version, (namespace, name)
