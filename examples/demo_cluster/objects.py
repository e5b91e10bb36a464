# SPDX-License-Identifier: Apache-2.0
"""Objects read and written: get, list, create, update, patch, delete."""

import base64
import copy
import json
import time
from typing import List, Optional, Tuple

from .bodies import decode, validate, wrong_type
from .connections import Answer, Request
from .defaults import new_body
from .patches import PatchFailed, json_patch, merge_patch, strategic_merge_patch
from .refusals import (
    CONTINUE_EXPIRED,
    MODIFIED_MEANWHILE,
    Cause,
    Refused,
    already_exists,
    bad_request,
    conflict,
    expired,
    forbidden,
    invalid,
    not_allowed,
    not_found,
)
from .resources import CRDS, NAMESPACES, PODS, Resource
from .store import Entry, Store
from .tables import table, wants_table
from .targets import (
    Target,
    check_match,
    dry_run,
    object_answer,
    parse_int,
    parse_version,
    render,
    selector_for,
    success,
)
from .values import EMPTY, Key, Object, dig, dumps, timestamp

PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


def get(store: Store, target: Target, request: Request) -> Answer:
    parse_version(request.param("resourceVersion"))
    return object_answer(request, target.resource, existing(store, target))


def existing(store: Store, target: Target) -> Entry:
    entry = store.get(target.resource, target.key)
    if entry is None:
        raise not_found(target.resource, target.name)
    return entry


def list_objects(store: Store, target: Target, request: Request) -> Answer:
    resource, wanted = target.resource, request.param("resourceVersion")
    version, limit = parse_version(wanted), parse_int(request.param("limit"))
    match, token = request.param("resourceVersionMatch"), request.param("continue")
    check_match(request, watch=False)
    matches = selector_for(target, request)
    after: Optional[Key] = None
    at = store.resource_version
    if token:
        if version:
            raise bad_request("specifying resource version is not allowed when using continue")
        at, after = decode_continue(store, target, token)
    elif match == "Exact":
        at = version
        if at < store.oldest:
            raise expired("The resourceVersion for the provided list is too old.")
    elif version > at:
        deadline = time.monotonic() + 3.0
        while version > store.resource_version and time.monotonic() < deadline:
            store.lock.wait(deadline - time.monotonic())
        if version > store.resource_version:
            message = "Timeout: Too large resource version: %d, current: %d" % (
                version,
                store.resource_version,
            )
            causes = [
                {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            ]
            raise Refused(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1})
        at = store.resource_version
    if wanted == "0":
        limit = 0  # the watch cache answers, and does not page
    entries = store.entries(resource, target.namespace, at)
    found = [
        (key, entry)
        for key, entry in entries
        if (after is None or key > after) and matches(entry.body)
    ]
    metadata: Object = {"continue": ""} if resource.custom else {}
    metadata["resourceVersion"] = str(at)
    if 0 < limit < len(found):
        last = found[limit - 1][0]
        metadata["continue"] = encode_continue(at, target, last)
        if not request.param("labelSelector") and not request.param("fieldSelector"):
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    if wants_table(request):
        return render(request, dumps(table(resource, [entry.body for _, entry in found], metadata)))
    return render(request, list_text(resource, metadata, [entry for _, entry in found]))


def list_text(resource: Resource, metadata: Object, entries: List[Entry]) -> str:
    items = ",".join(entry.text(resource if resource.custom else None) for entry in entries)
    head = {
        "kind": resource.list_kind or resource.kind + "List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
    }
    return '%s,"items":[%s]}' % (dumps(head)[:-1], items)


def encode_continue(version: int, target: Target, last: Key) -> str:
    start = last[1] if target.namespace or not target.resource.namespaced else "/".join(last)
    token = dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start + "\0"})
    return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def decode_continue(store: Store, target: Target, token: str) -> Tuple[int, Key]:
    try:
        fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, start = int(fields["rv"]), fields["start"].rstrip("\0")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_request(
            "invalid continue token: continue key is not valid: %s" % error
        ) from error
    namespace, name = start.split("/") if "/" in start else (target.namespace, start)
    if version < 0:  # the token that an expired one is traded for: go on with what is there now
        version = store.resource_version
    elif version < store.oldest:
        inconsistent = encode_continue(-1, target, (namespace, name))
        raise expired(CONTINUE_EXPIRED, {"continue": inconsistent})
    return version, (namespace, name)


# Writing


def create(store: Store, target: Target, request: Request) -> Answer:
    resource, dry = target.resource, dry_run(request, "CreateOptions")
    body = decode(request, resource)
    metadata = body.get("metadata") or {}
    if metadata.get("namespace") not in (None, "", target.namespace):
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    fresh = new_body(resource, target.namespace, body)
    name = fresh["metadata"].get("name", "")
    if target.namespace:
        namespace = store.get(NAMESPACES, ("", target.namespace))
        if namespace is None:
            raise not_found(NAMESPACES, target.namespace)
        if namespace.body["status"]["phase"] == "Terminating":
            ending = "namespace %s is being terminated" % target.namespace
            causes = [
                {"reason": "NamespaceTerminating", "message": ending, "field": "metadata.namespace"}
            ]
            why = (
                "unable to create new content in namespace %s because it is being terminated"
                % target.namespace
            )
            raise forbidden(resource, name, why, causes)
    validate(resource, fresh, None)
    if metadata.get("resourceVersion") not in (None, "", "0"):
        raise Refused(500, "", "resourceVersion should not be set on objects to be created")
    if store.get(resource, (target.namespace, name)):
        raise already_exists(resource, name)
    if dry:
        return object_answer(request, resource, Entry(fresh), 201)
    entry = store.put(resource, (target.namespace, name), fresh)
    if resource == CRDS:
        serve(store, name)
    return object_answer(request, resource, entry, 201)


def serve(store: Store, name: str) -> None:
    """Begin to serve a custom resource; its watches end when it changes."""
    crd = store.get(CRDS, ("", name))
    assert crd is not None
    resources = store.serve(crd.body)
    group, plural = crd.body["spec"]["group"], crd.body["spec"]["names"]["plural"]
    for served in [
        key for key, resource in store.resources.items() if resource.storage == (group, plural)
    ]:
        del store.resources[served]
    store.resources.update({(r.group, r.version, r.plural): r for r in resources})
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": timestamp(),
        }
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    names = crd.body["spec"]["names"]
    store.edit(
        CRDS,
        ("", name),
        lambda body: body["status"].update(conditions=conditions, acceptedNames=names),
    )


def update(store: Store, target: Target, request: Request) -> Answer:
    dry = dry_run(request, "UpdateOptions")
    body = decode(request, target.resource)
    name = dig(body, "metadata", "name")
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
    old = existing(store, target)
    version = dig(body, "metadata", "resourceVersion")
    if not version and (target.resource.custom or target.resource == CRDS):
        cause = Cause(
            "metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update"
        )
        raise invalid(target.resource.group, target.resource.plural, name, [cause])
    uid = dig(body, "metadata", "uid")
    if uid and uid != old.body["metadata"]["uid"]:
        message = (
            "StorageError: invalid object, Code: 4, Key: /registry/%s/%s, ResourceVersion: 0,"
            " AdditionalErrorMsg:"
            " Precondition failed: UID in precondition: %s, UID in object meta: %s"
        )
        where = "/".join(filter(None, target.key)), uid, old.body["metadata"]["uid"]
        raise conflict(target.resource, name, message % ((target.resource.plural,) + where))
    return object_answer(request, target.resource, replace(store, target, old, body, dry))


def patch(store: Store, target: Target, request: Request) -> Answer:
    dry = dry_run(request, "PatchOptions")
    old = existing(store, target)
    head = {"kind": target.resource.kind, "apiVersion": target.resource.api_version}
    body = patched(request, target.resource, dict(head, **copy.deepcopy(old.body)))
    wrong = wrong_type(target.resource, body)
    if not wrong and (body.get("kind"), body.get("apiVersion")) != (
        head["kind"],
        head["apiVersion"],
    ):
        wrong = "%s in version %s cannot be handled as a %s" % (
            body.get("kind"),
            body.get("apiVersion"),
            head["kind"],
        )
    if wrong:
        raise invalid(
            "", "", "", [Cause("patch", "Invalid value: %s: %s" % (json.dumps(dumps(body)), wrong))]
        )
    name, uid = dig(body, "metadata", "name"), dig(body, "metadata", "uid")
    if name != target.name:
        raise bad_request(
            "the name of the object (%s) does not match the name on the URL (%s)"
            % (name, target.name)
        )
    if uid != old.body["metadata"]["uid"]:
        cause = Cause("metadata.uid", "Invalid value: %s: field is immutable" % json.dumps(uid))
        raise invalid(target.resource.group, target.resource.kind, name, [cause, cause])
    return object_answer(request, target.resource, replace(store, target, old, body, dry))


def patched(request: Request, resource: Resource, body: Object) -> Object:
    """The body with the request's patch applied."""
    kind = request.headers.get("content-type", "").split(";")[0].strip()
    if kind not in PATCH_TYPES:
        raise Refused(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    if resource.custom and kind == PATCH_TYPES[2]:
        known = (
            "application/json-patch+json, application/merge-patch+json,"
            " application/apply-patch+yaml"
        )
        message = (
            "the body of the request was in an unknown format - accepted media types include: "
            + known
        )
        raise Refused(415, "UnsupportedMediaType", message)
    try:
        patch = json.loads(request.body.decode())
    except ValueError as error:
        if kind == PATCH_TYPES[0]:
            raise bad_request(str(error)) from error
        raise Refused(500, "", "Invalid JSON Patch") from error
    if kind == PATCH_TYPES[0]:
        if not isinstance(patch, list) or not all(
            isinstance(operation, dict) for operation in patch
        ):
            raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
        try:
            body = json_patch(body, patch)
        except PatchFailed as error:
            raise Refused(
                422, "Invalid", "the server rejected our request due to an error in our request", {}
            ) from error
    elif not isinstance(patch, dict):
        wrong = (
            "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go"
            " value"
        )
        raise invalid(
            "",
            "",
            "",
            [Cause("patch", "Invalid value: %s: %s" % (json.dumps(dumps(patch)), wrong))],
        )
    else:
        body = (merge_patch if kind == PATCH_TYPES[1] else strategic_merge_patch)(body, patch)
    if not isinstance(body, dict):
        raise bad_request("the result of the patch is not an object")
    return body


def replace(store: Store, target: Target, old: Entry, body: Object, dry: bool) -> Entry:
    """Put a new body in the place of an old one, keeping what a client cannot change."""
    resource, was = target.resource, old.body["metadata"]
    version = dig(body, "metadata", "resourceVersion")
    if version and not str(version).isdigit():
        raise Refused(500, "", 'strconv.ParseUint: parsing "%s": invalid syntax' % version)
    body = {
        name: value
        for name, value in body.items()
        if name not in ("kind", "apiVersion") and value is not None
    }
    metadata = {
        name: value
        for name, value in body.pop("metadata").items()
        if value not in EMPTY and name != "selfLink"
    }
    for name in (
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "resourceVersion",
    ):
        metadata.pop(name, None)
        if name in was:
            metadata[name] = was[name]
    body = dict({"metadata": metadata}, **body)
    if "status" in resource.subresources:  # then each of the two doors changes its own half
        keep = [
            name
            for name in set(body) | set(old.body)
            if (name == "status") != (target.subresource == "status")
        ]
        keep = [name for name in keep if name != "metadata"]
        body = {name: value for name, value in body.items() if name not in keep}
        body.update({name: copy.deepcopy(old.body[name]) for name in keep if name in old.body})
    if version and version not in ("0", was["resourceVersion"]):
        raise conflict(resource, target.name, MODIFIED_MEANWHILE)
    validate(resource, body, old.body)
    if resource.counts_generations and target.subresource != "status":
        if {k: v for k, v in body.items() if k != "metadata"} != {
            k: v for k, v in old.body.items() if k != "metadata"
        }:
            metadata["generation"] = was["generation"] + 1
    if dry:
        return Entry(body)
    entry = store.put(resource, target.key, body)
    if resource == CRDS and body["spec"] != old.body["spec"]:
        serve(store, target.name)
    return entry


def delete(store: Store, target: Target, request: Request) -> Answer:
    options = delete_options(request)
    dry = dry_run(request, "DeleteOptions", options)
    entry = existing(store, target)
    metadata, wanted = entry.body["metadata"], options.get("preconditions") or {}
    kind = target.resource._replace(plural=target.resource.kind)
    if wanted.get("uid") not in (None, metadata["uid"]):
        why = "the UID in the precondition (%s) does not match the UID in record (%s)."
        why += " The object might have been deleted and then recreated"
        raise conflict(kind, target.name, why % (wanted["uid"], metadata["uid"]))
    if wanted.get("resourceVersion") not in (None, metadata["resourceVersion"]):
        why = (
            "the ResourceVersion in the precondition (%s) does not match the ResourceVersion in"
            " record (%s)."
        )
        why += " The object might have been modified"
        raise conflict(
            kind, target.name, why % (wanted["resourceVersion"], metadata["resourceVersion"])
        )
    if target.resource == NAMESPACES and target.name in ("default", "kube-public", "kube-system"):
        raise forbidden(NAMESPACES, target.name, "this namespace may not be deleted")
    going: Object = {"deletionTimestamp": timestamp()}
    if target.resource == PODS:
        going["deletionGracePeriodSeconds"] = 0
    shown = Entry(dict(entry.body, metadata=dict(metadata, **going)))
    if target.resource == NAMESPACES:
        shown.body["status"] = {"phase": "Terminating"}
    if not dry:
        shown = remove(store, target.resource, target.key, entry, shown)
    if target.resource in (PODS, NAMESPACES, CRDS):
        return object_answer(request, target.resource, shown)
    return success(request, target.resource, entry)


def remove(store: Store, resource: Resource, key: Key, entry: Entry, shown: Entry) -> Entry:
    """Remove an object, and what ends with it."""
    if resource == NAMESPACES:  # ends when the namespace controller has emptied it
        return store.put(resource, key, shown.body)
    if resource == CRDS:
        for served in store.serve(entry.body):
            for place, _ in store.entries(served):
                store.remove(served, place)
            store.resources.pop((served.group, served.version, served.plural), None)
    store.remove(resource, key)
    return shown


def delete_collection(store: Store, target: Target, request: Request) -> Answer:
    if "deletecollection" not in target.resource.verbs:
        raise not_allowed()
    dry = dry_run(request, "DeleteOptions", delete_options(request))
    matches = selector_for(target, request)
    found = [
        (key, entry)
        for key, entry in store.entries(target.resource, target.namespace)
        if matches(entry.body)
    ]
    for key, entry in found if not dry else ():
        remove(store, target.resource, key, entry, entry)
    metadata = {"resourceVersion": str(store.resource_version)}
    return render(request, list_text(target.resource, metadata, [entry for _, entry in found]))


def delete_options(request: Request) -> Object:
    if not request.body:
        return {}
    try:
        options = json.loads(request.body.decode())
    except ValueError as error:
        raise Refused(500, "", "couldn't get version/kind; json parse error: %s" % error) from error
    options = options if isinstance(options, dict) else {}
    policy = options.get("propagationPolicy")
    if policy not in (None, "Foreground", "Background", "Orphan"):
        known = '"Foreground", "Background", "Orphan", "nil"'
        cause = Cause(
            "propagationPolicy", 'Unsupported value: "%s": supported values: %s' % (policy, known)
        )
        raise invalid("meta.k8s.io", "DeleteOptions", "", [cause])
    return options
