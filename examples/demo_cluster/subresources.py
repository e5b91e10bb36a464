# SPDX-License-Identifier: Apache-2.0
"""scale, eviction, token; reviews and metrics, which nothing stores."""

import base64
import copy
import math
import time
import uuid
from typing import Any

from .bodies import decode
from .connections import Answer, Request
from .objects import existing, patched, replace
from .refusals import (
    MODIFIED_MEANWHILE,
    Cause,
    Refused,
    bad_request,
    conflict,
    invalid,
    not_allowed,
    not_found,
)
from .resources import BUDGETS, NODES, PODS
from .settings import Settings
from .store import Entry, Store
from .targets import Target, dry_run, render, selector_for
from .values import Object, dig, dumps, is_ready, timestamp


def scale(store: Store, target: Target, request: Request) -> Answer:
    resource = target.resource
    entry = store.get(resource, target.key)
    if entry is None:
        raise not_found(resource, target.name, "" if request.method == "PUT" else "scale")
    scale = scale_of(entry)
    if request.method == "GET":
        return render(request, dumps(scale))
    if request.method == "PUT":
        wanted = decode(request, resource, "Scale", "autoscaling/v1")
    else:
        wanted = patched(request, resource, copy.deepcopy(scale))
    name, replicas = dig(wanted, "metadata", "name"), dig(wanted, "spec", "replicas") or 0
    if not name:
        raise bad_request(
            "the name of the object (%s based on URL) was undeterminable: name must be provided"
            % target.name
        )
    if name != target.name:
        raise bad_request(
            "the name of the object (%s) does not match the name on the URL (%s)"
            % (name, target.name)
        )
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise bad_request(
            'Scale in version "v1" cannot be handled as a Scale: '
            "v1.Scale.Spec: v1.ScaleSpec.Replicas: readUint32"
        )
    if replicas < 0:
        cause = Cause(
            "spec.replicas", "Invalid value: %d: must be greater than or equal to 0" % replicas
        )
        raise invalid("autoscaling", "Scale", target.name, [cause])
    if dig(wanted, "metadata", "resourceVersion") not in (
        None,
        "",
        entry.body["metadata"]["resourceVersion"],
    ):
        raise conflict(resource, target.name, MODIFIED_MEANWHILE)
    body = copy.deepcopy(entry.body)
    body["spec"]["replicas"] = replicas
    parent = target._replace(subresource="")
    return render(
        request,
        dumps(scale_of(replace(store, parent, entry, body, dry_run(request, "UpdateOptions")))),
    )


def evict(store: Store, target: Target, request: Request) -> Answer:
    # policy/v1, which 1.22 brought, is taken as well: newer clients send nothing else.
    newer = b'"policy/v1"' in request.body
    eviction = decode(
        request, target.resource, "Eviction", "policy/v1" if newer else "policy/v1beta1"
    )
    if dig(eviction, "metadata", "name") != target.name:
        raise bad_request("name in URL does not match name in Eviction object")
    pod = existing(store, target)
    labels = pod.body["metadata"].get("labels") or {}
    for _, budget in store.entries(BUDGETS, target.namespace):
        wanted = dig(budget.body, "spec", "selector", "matchLabels")
        if wanted is None or not wanted.items() <= labels.items() or not is_ready(pod.body):
            continue
        pods = [entry.body for _, entry in store.entries(PODS, target.namespace)]
        pods = [
            body
            for body in pods
            if wanted.items() <= (body["metadata"].get("labels") or {}).items()
        ]
        needed, healthy = desired_healthy(budget.body["spec"], len(pods)), sum(map(is_ready, pods))
        if healthy <= needed:
            name = budget.body["metadata"]["name"]
            text = "The disruption budget %s needs %d healthy pods and has %d currently" % (
                name,
                needed,
                healthy,
            )
            causes = [{"reason": "DisruptionBudget", "message": text}]
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Refused(429, "TooManyRequests", message, {"causes": causes})
    if not dry_run(request, "DeleteOptions", eviction.get("deleteOptions") or {}):
        store.remove(PODS, target.key)
    return render(
        request,
        dumps(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        ),
        201,
    )


def issue_token(store: Store, target: Target, request: Request, settings: Settings) -> Answer:
    wanted = decode(request, target.resource, "TokenRequest", "authentication.k8s.io/v1")
    account = existing(store, target)
    spec = wanted.get("spec") or {}
    seconds = spec.get("expirationSeconds") or 3600
    if seconds < settings.min_token_seconds:
        cause = Cause(
            "spec.expirationSeconds",
            "Invalid value: %d: may not specify a duration less than 10 minutes" % seconds,
        )
        raise invalid("authentication.k8s.io", "TokenRequest", "", [cause])
    now, audiences = time.time(), spec.get("audiences") or ["https://kubernetes.default.svc"]
    who = {"name": target.name, "uid": account.body["metadata"]["uid"]}
    claims = {"aud": audiences, "exp": int(now + seconds), "iat": int(now), "nbf": int(now)}
    claims["iss"] = "https://kubernetes.default.svc"
    claims["kubernetes.io"] = {"namespace": target.namespace, "serviceaccount": who}
    claims["sub"] = "system:serviceaccount:%s:%s" % target.key
    segments = [
        dumps({"alg": "none", "kid": "demo"}).encode(),
        dumps(claims).encode(),
        uuid.uuid4().bytes,
    ]
    token = ".".join(base64.urlsafe_b64encode(segment).decode().rstrip("=") for segment in segments)
    store.issued[token] = now + seconds
    result = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": None},
    }
    result["spec"] = {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": None}
    result["status"] = {"token": token, "expirationTimestamp": timestamp(now + seconds)}
    return render(request, dumps(result), 201)


def review(target: Target, request: Request) -> Answer:
    if request.method != "POST" or target.name:
        raise not_allowed()
    spec = decode(request, target.resource).get("spec") or {}
    review = {
        "kind": target.resource.kind,
        "apiVersion": target.resource.api_version,
        "metadata": {"creationTimestamp": None},
    }
    if target.resource.plural == "selfsubjectaccessreviews":
        review.update(spec=spec, status={"allowed": True})
    else:
        if not spec.get("namespace"):
            raise bad_request("no namespace on request")
        resources = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        others = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
        review.update(
            spec={},
            status={"resourceRules": resources, "nonResourceRules": others, "incomplete": False},
        )
    return render(request, dumps(review), 201)


def metrics(store: Store, target: Target, request: Request) -> Answer:
    if request.method != "GET":
        raise not_allowed()
    of_pods = target.resource.plural == "pods"
    matches = selector_for(target, request)
    items = []
    for key, entry in store.entries(PODS if of_pods else NODES, target.namespace):
        if matches(entry.body) and target.name in ("", key[1]) and is_ready(entry.body):
            items.append(usage(entry.body, of_pods))
    head = {"kind": target.resource.kind, "apiVersion": target.resource.api_version}
    if target.name and not items:
        raise not_found(target.resource, target.name)
    if target.name:
        return render(request, dumps(dict(head, **items[0])))
    head["kind"] += "List"
    return render(request, dumps(dict(head, metadata={}, items=items)))


def scale_of(entry: Entry) -> Object:
    """The Scale of a deployment, replica set or stateful set."""
    body = entry.body
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    labels = sorted((dig(body, "spec", "selector", "matchLabels") or {}).items())
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: body["metadata"][name] for name in names},
        "spec": {"replicas": body["spec"]["replicas"]},
        "status": {
            "replicas": dig(body, "status", "replicas") or 0,
            "selector": ",".join("%s=%s" % label for label in labels),
        },
    }


def desired_healthy(spec: Object, expected: int) -> int:
    """How many pods a PodDisruptionBudget wants to stay."""

    def count(value: Any) -> int:
        return math.ceil(expected * int(value[:-1]) / 100) if isinstance(value, str) else int(value)

    if spec.get("maxUnavailable") is not None:
        return max(0, expected - count(spec["maxUnavailable"]))
    return count(spec.get("minAvailable", 1))


def usage(body: Object, of_pod: bool) -> Object:
    """Made-up metrics that move a little, steadily for each object."""
    base = sum(body["metadata"]["uid"].encode()) % 50 + (5 if of_pod else 250)
    wave = 1 + 0.2 * math.sin(time.time() / 7 + base)
    used = {"cpu": "%dn" % (base * wave * 1e6), "memory": "%dKi" % (base * 4096 * (2 + wave) / 3)}
    metadata = {
        name: value
        for name, value in body["metadata"].items()
        if name in ("name", "namespace", "labels", "creationTimestamp")
    }
    item = {"metadata": metadata, "timestamp": timestamp(), "window": "30s"}
    if of_pod:
        item["containers"] = [
            {"name": container["name"], "usage": used}
            for container in body["spec"]["containers"][:1]
        ]
    else:
        item["usage"] = used
    return item
