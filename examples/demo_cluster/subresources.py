# SPDX-License-Identifier: Apache-2.0
"""scale, eviction and token: what acts on an object without being a field of it."""

import base64
import copy
import math
import time
import uuid
from typing import Any, List

from .bodies import decode
from .calls import Call, answer, dry_run
from .connections import Answer
from .reading import existing
from .refusals import (
    MODIFIED_MEANWHILE,
    Cause,
    Refused,
    bad_request,
    conflict,
    invalid,
    not_found,
)
from .resources import BUDGETS, PODS
from .store import Entry
from .values import Object, dig, dumps, is_ready, timestamp
from .writing import check_name, patched, replace

# Scale


def scale(call: Call) -> Answer:
    entry = call.find()
    if entry is None:
        subresource = "" if call.recent or call.request.method == "PUT" else "scale"
        raise not_found(call.resource, call.target.name, subresource)
    shown = scale_of(entry)
    if call.request.method == "GET":
        return answer(call, shown)
    if call.request.method == "PUT":
        wanted = decode(call, "Scale", "autoscaling/v1")
    else:
        wanted = patched(call, copy.deepcopy(shown))

    check_name(call, wanted)
    replicas = _replicas(call, wanted)
    version = dig(wanted, "metadata", "resourceVersion")
    if version not in (None, "", entry.body["metadata"]["resourceVersion"]):
        raise conflict(call.resource, call.target.name, MODIFIED_MEANWHILE)

    body = copy.deepcopy(entry.body)
    body["spec"]["replicas"] = replicas
    dry = dry_run(call, "UpdateOptions")
    parent = call._replace(target=call.target._replace(subresource=""))
    return answer(call, scale_of(replace(parent, entry, body, dry)))


def _replicas(call: Call, wanted: Object) -> int:
    replicas = dig(wanted, "spec", "replicas") or 0
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        text = 'Scale in version "v1" cannot be handled as a Scale: v1.Scale.Spec: '
        raise bad_request(text + "v1.ScaleSpec.Replicas: readUint32")
    if replicas < 0:
        text = "Invalid value: %d: must be greater than or equal to 0" % replicas
        cause = Cause("spec.replicas", text)
        raise invalid("autoscaling", "Scale", call.target.name, [cause])
    return replicas


def scale_of(entry: Entry) -> Object:
    """The Scale of a deployment, replica set or stateful set."""
    body = entry.body
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    labels = sorted((dig(body, "spec", "selector", "matchLabels") or {}).items())
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: body["metadata"][name] for name in names if name in body["metadata"]},
        "spec": {"replicas": body["spec"]["replicas"]} if body["spec"]["replicas"] else {},
        "status": {
            "replicas": dig(body, "status", "replicas") or 0,
            "selector": ",".join("%s=%s" % label for label in labels),
        },
    }


# Eviction


def evict(call: Call) -> Answer:
    # Both versions of it are taken, whatever else of the group is served.
    old = b'"policy/v1beta1"' in call.request.body
    eviction = decode(call, "Eviction", "policy/v1beta1" if old else "policy/v1")
    if dig(eviction, "metadata", "name") not in (None, "", call.target.name):
        raise bad_request("name in URL does not match name in Eviction object")
    pod = existing(call)
    if is_ready(pod.body):
        for _, budget in call.store.entries(BUDGETS, call.target.namespace):
            _check_budget(call, budget.body, pod.body)

    options = eviction.get("deleteOptions") or {}
    if not dry_run(call, "DeleteOptions", options):
        call.store.remove(PODS, call.target.key)
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return answer(call, dict(status, code=201), 201)


def _check_budget(call: Call, budget: Object, pod: Object) -> None:
    """Refuse if the budget would be left with too few pods without this one."""
    selector = dig(budget, "spec", "selector", "matchLabels")
    if selector is None or not _has_labels(pod, selector):
        return
    pods: List[Object] = [
        entry.body
        for _, entry in call.store.entries(PODS, call.target.namespace)
        if _has_labels(entry.body, selector)
    ]
    needed, healthy = desired_healthy(budget["spec"], len(pods)), sum(map(is_ready, pods))
    if healthy > needed:
        return

    name = budget["metadata"]["name"]
    text = "The disruption budget %s needs %d healthy pods and has %d currently"
    cause = {"reason": "DisruptionBudget", "message": text % (name, needed, healthy)}
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    raise Refused(429, "TooManyRequests", message, {"causes": [cause]})


def _has_labels(body: Object, selector: Object) -> bool:
    labels = body["metadata"].get("labels") or {}
    return bool(selector.items() <= labels.items())


def desired_healthy(spec: Object, expected: int) -> int:
    """How many pods a PodDisruptionBudget wants to stay."""

    def count(value: Any) -> int:
        if isinstance(value, str):
            return math.ceil(expected * int(value[:-1]) / 100)
        return int(value)

    if spec.get("maxUnavailable") is not None:
        return max(0, expected - count(spec["maxUnavailable"]))
    return count(spec.get("minAvailable", 1))


# Tokens of service accounts


def issue_token(call: Call) -> Answer:
    wanted = decode(call, "TokenRequest", "authentication.k8s.io/v1")
    account = existing(call)
    spec = wanted.get("spec") or {}
    seconds = spec.get("expirationSeconds") or 3600
    if seconds < call.settings.min_token_seconds:
        text = "Invalid value: %d: may not specify a duration less than 10 minutes" % seconds
        cause = Cause("spec.expirationSeconds", text)
        raise invalid("authentication.k8s.io", "TokenRequest", "", [cause])

    audiences = spec.get("audiences") or ["https://kubernetes.default.svc"]
    until = time.time() + seconds
    token = _token(call, account, audiences, until - seconds, until)
    call.store.issued[token] = until
    result: Object = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
    result["metadata"] = {"name": call.target.name, "namespace": call.target.namespace}
    result["metadata"]["creationTimestamp"] = timestamp()
    result["spec"] = {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": None}
    result["status"] = {"token": token, "expirationTimestamp": timestamp(until)}
    return answer(call, result, 201)


def _token(call: Call, account: Entry, audiences: Any, since: float, until: float) -> str:
    """A JWT that says what a real one says; nobody checks its signature."""
    who = {"name": call.target.name, "uid": account.body["metadata"]["uid"]}
    claims = {
        "aud": audiences,
        "exp": int(until),
        "iat": int(since),
        "nbf": int(since),
        "iss": "https://kubernetes.default.svc",
        "kubernetes.io": {"namespace": call.target.namespace, "serviceaccount": who},
        "sub": "system:serviceaccount:%s:%s" % call.target.key,
    }
    head = {"alg": "none", "kid": "demo"}
    segments = [dumps(head).encode(), dumps(claims).encode(), uuid.uuid4().bytes]
    encoded = [base64.urlsafe_b64encode(segment).decode().rstrip("=") for segment in segments]
    return ".".join(encoded)
