# SPDX-License-Identifier: Apache-2.0
"""What is answered and never stored: reviews of rights, and metrics."""

import math
import time

from .bodies import decode
from .calls import Call, answer, selector_for
from .connections import Answer
from .refusals import bad_request, not_allowed, not_found
from .resources import NODES, PODS
from .values import Object, dig, is_ready, timestamp


def review(call: Call) -> Answer:
    if call.request.method != "POST" or call.target.name:
        raise not_allowed()
    spec = decode(call).get("spec") or {}
    shown: Object = {"kind": call.resource.kind, "apiVersion": call.resource.api_version}
    shown["metadata"] = {"creationTimestamp": None}
    if call.resource.plural == "selfsubjectreviews":
        info = {"username": call.user.name, "groups": ["system:authenticated"]}
        shown.update(metadata={"creationTimestamp": timestamp()}, status={"userInfo": info})
    elif call.resource.plural == "selfsubjectaccessreviews":
        shown.update(spec=spec, status={"allowed": _allowed(call, spec)})
    else:
        if not spec.get("namespace"):
            raise bad_request("no namespace on request")
        shown.update(spec={}, status=_rules(call))
    return answer(call, shown, 201)


def _allowed(call: Call, spec: Object) -> bool:
    wanted = spec.get("resourceAttributes") or {}
    resource = "/".join(filter(None, (wanted.get("resource"), wanted.get("subresource"))))
    return call.user.may(wanted.get("verb") or "", resource)


def _rules(call: Call) -> Object:
    verbs = sorted({verb.split()[0] for verb in call.user.verbs or ["*"]})
    resources = [{"verbs": verbs, "apiGroups": ["*"], "resources": ["*"]}]
    others = [{"verbs": verbs, "nonResourceURLs": ["*"]}]
    return {"resourceRules": resources, "nonResourceRules": others, "incomplete": False}


def metrics(call: Call) -> Answer:
    if call.request.method != "GET":
        raise not_allowed()
    of_pods = call.resource.plural == "pods"
    matches = selector_for(call)
    name = call.target.name
    items = [
        usage(entry.body, of_pods)
        for key, entry in call.store.entries(PODS if of_pods else NODES, call.target.namespace)
        if matches(entry.body) and name in ("", key[1]) and is_ready(entry.body)
    ]
    head = {"kind": call.resource.kind, "apiVersion": call.resource.api_version}
    if name and not items:
        raise not_found(call.resource, name)
    if name:
        return answer(call, dict(head, **items[0]))
    head["kind"] += "List"
    return answer(call, dict(head, metadata={}, items=items))


def usage(body: Object, of_pod: bool) -> Object:
    """Made-up metrics that move a little, steadily for each object."""
    base = sum(body["metadata"]["uid"].encode()) % 50 + (5 if of_pod else 250)
    wave = 1 + 0.2 * math.sin(time.time() / 7 + base)
    used = {"cpu": "%dn" % (base * wave * 1e6), "memory": "%dKi" % (base * 4096 * (2 + wave) / 3)}
    names = ("name", "namespace", "labels", "creationTimestamp")
    metadata = {name: body["metadata"][name] for name in names if name in body["metadata"]}
    item: Object = {"metadata": metadata, "timestamp": timestamp(), "window": "30s"}
    if not of_pod:
        return dict(item, usage=used)

    containers = dig(body, "spec", "containers") or []
    item["containers"] = [
        {"name": container["name"], "usage": used} for container in containers[:1]
    ]
    return item
