# SPDX-License-Identifier: Apache-2.0
"""Objects written: create, update, patch, apply, delete."""

import copy
import json
import re
from typing import Any, List

from .bodies import check_fields, decode, unknown_fields, unsupported_type
from .calls import Call, dry_run, object_answer, render, selector_for, success
from .checks import validate, wrong_type
from .connections import Answer
from .defaults import new_body, set_defaults
from .managed import Manager, apply, record_update
from .patches import PatchFailed, json_patch, merge_patch, strategic_merge_patch
from .reading import existing, list_text
from .refusals import (
    MODIFIED_MEANWHILE,
    Cause,
    Refused,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_allowed,
    not_found,
)
from .resources import CRDS, NAMESPACES, PODS, SERVICES, Resource
from .store import Entry, Store
from .values import EMPTY, Key, Object, dig, dumps, go_json_error, timestamp

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

KEPT_NAMESPACES = ("default", "kube-public", "kube-system")

# What a client cannot change in metadata.
FIXED = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
    "managedFields",
)


# Create


def create(call: Call) -> Answer:
    dry = dry_run(call, "CreateOptions")
    body = decode(call)
    metadata = body.get("metadata") or {}
    if metadata.get("namespace") not in (None, "", call.target.namespace):
        text = (
            "the namespace of the provided object does not match the namespace sent on the request"
        )
        raise bad_request(text)

    fresh = new_body(call.resource, call.target.namespace, body, call.store.minor)
    name = fresh["metadata"].get("name", "")
    _check_namespace(call, name)
    validate(call.resource, fresh, None, call.recent)
    if metadata.get("resourceVersion") not in (None, "", "0"):
        raise Refused(500, "", "resourceVersion should not be set on objects to be created")
    present = call.store.get(call.resource, (call.target.namespace, name))
    if present:
        raise already_exists(call.resource, name, "deletionTimestamp" in present.body["metadata"])

    _record(call, {}, fresh)
    entry = Entry(fresh) if dry else _put_new(call, name, fresh)
    return object_answer(call, entry, 201)


def _put_new(call: Call, name: str, body: Object) -> Entry:
    entry = call.store.put(call.resource, (call.target.namespace, name), body)
    if call.resource == CRDS:
        serve(call.store, name)
    return entry


def _check_namespace(call: Call, name: str) -> None:
    if not call.target.namespace:
        return
    namespace = call.store.get(NAMESPACES, ("", call.target.namespace))
    if namespace is None:
        raise not_found(NAMESPACES, call.target.namespace)
    if namespace.body["status"]["phase"] == "Terminating":
        ending = "namespace %s is being terminated" % call.target.namespace
        cause = {"reason": "NamespaceTerminating", "message": ending, "field": "metadata.namespace"}
        text = "unable to create new content in namespace %s because it is being terminated"
        raise forbidden(call.resource, name, text % call.target.namespace, [cause])


def serve(store: Store, name: str) -> None:
    """Begin to serve a custom resource; its watches end when it changes."""
    crd = store.get(CRDS, ("", name))
    assert crd is not None
    resources = store.serve(crd.body)
    names, group = crd.body["spec"]["names"], crd.body["spec"]["group"]
    for key, resource in list(store.resources.items()):
        if resource.storage == (group, names["plural"]):
            del store.resources[key]
    store.resources.update({(r.group, r.version, r.plural): r for r in resources})

    accepted = ("NamesAccepted", "NoConflicts", "no conflicts found")
    established = ("Established", "InitialNamesAccepted", "the initial names have been accepted")
    conditions = [
        {
            "type": kind,
            "status": "True",
            "lastTransitionTime": timestamp(),
            "reason": reason,
            "message": message,
        }
        for kind, reason, message in (accepted, established)
    ]
    status = {"conditions": conditions, "acceptedNames": names}
    store.edit(CRDS, ("", name), lambda body: body["status"].update(status))


# Update


def update(call: Call) -> Answer:
    dry = dry_run(call, "UpdateOptions")
    body = decode(call)
    check_name(call, body)
    old = existing(call)
    name, version = call.target.name, dig(body, "metadata", "resourceVersion")
    if not version and (call.resource.custom or call.resource == CRDS):
        cause = Cause(
            "metadata.resourceVersion",
            "Invalid value: %s: must be specified for an update" % ("0" if call.recent else "0x0"),
        )
        raise invalid(call.resource.group, call.resource.plural, name, [cause])

    uid, present = dig(body, "metadata", "uid"), old.body["metadata"]["uid"]
    if uid and uid != present:
        key = "/".join(filter(None, call.target.key))
        text = (
            "StorageError: invalid object, Code: 4, Key: /registry/%s/%s, ResourceVersion: 0,"
            " AdditionalErrorMsg: Precondition failed: UID in precondition: %s,"
            " UID in object meta: %s"
        )
        raise conflict(call.resource, name, text % (call.resource.plural, key, uid, present))
    return object_answer(call, replace(call, old, body, dry))


def check_name(call: Call, body: Object) -> None:
    name = dig(body, "metadata", "name")
    if not name:
        text = "the name of the object (%s based on URL) was undeterminable: name must be provided"
        raise bad_request(text % call.target.name)
    _check_same_name(call, name)


def _check_same_name(call: Call, name: Any) -> None:
    if name != call.target.name:
        text = "the name of the object (%s) does not match the name on the URL (%s)"
        raise bad_request(text % (name, call.target.name))


def replace(call: Call, old: Entry, body: Object, dry: bool) -> Entry:
    """Put a new body in the place of an old one, keeping what a client cannot change."""
    resource, was = call.resource, old.body["metadata"]
    version = dig(body, "metadata", "resourceVersion")
    if version and not str(version).isdigit():
        raise Refused(500, "", 'strconv.ParseUint: parsing "%s": invalid syntax' % version)

    applied = dig(body, "metadata", "managedFields") if _applies(call) else None
    body = _with_old_parts(call, old, body)
    if version and version not in ("0", was["resourceVersion"]):
        raise conflict(resource, call.target.name, MODIFIED_MEANWHILE)
    set_defaults(resource, body)
    validate(resource, body, old.body, call.recent)
    if applied is not None:
        body["metadata"]["managedFields"] = applied
    else:
        _record(call, old.body, body)

    if resource.counts_generations and call.target.subresource != "status":
        if _without_metadata(body) != _without_metadata(old.body):
            body["metadata"]["generation"] = was["generation"] + 1
    if dry:
        body["metadata"]["resourceVersion"] = was["resourceVersion"]
        return Entry(body)
    if was.get("deletionTimestamp") and not body["metadata"].get("finalizers"):
        call.store.remove(resource, call.target.key)
        return Entry(body)

    entry = call.store.put(resource, call.target.key, body)
    if resource == CRDS and body["spec"] != old.body["spec"]:
        serve(call.store, call.target.name)
    return entry


def _with_old_parts(call: Call, old: Entry, body: Object) -> Object:
    metadata = {
        name: value
        for name, value in body["metadata"].items()
        if value not in EMPTY and name not in FIXED and name != "selfLink"
    }
    metadata.update(
        {name: old.body["metadata"][name] for name in FIXED if name in old.body["metadata"]}
    )
    body = {
        name: value
        for name, value in body.items()
        if name not in ("kind", "apiVersion", "metadata") and value is not None
    }

    # Where there is a status, each of the two doors changes its own half.
    if "status" in call.resource.subresources:
        of_status = call.target.subresource == "status"
        kept = [name for name in {*body, *old.body} if (name == "status") != of_status]
        body = {name: value for name, value in body.items() if name not in kept}
        body.update(
            {
                name: copy.deepcopy(old.body[name])
                for name in kept
                if name in old.body and name != "metadata"
            }
        )
    if call.resource == SERVICES and isinstance(body.get("spec"), dict):
        for name in ("clusterIP", "clusterIPs"):
            if not body["spec"].get(name) and name in old.body["spec"]:
                body["spec"][name] = old.body["spec"][name]
    return dict({"metadata": metadata}, **body)


def _without_metadata(body: Object) -> Object:
    return {name: value for name, value in body.items() if name not in ("metadata", "status")}


def _manager(call: Call, operation: str) -> Manager:
    subresource = call.target.subresource
    return Manager(call.manager, operation, call.resource.api_version, subresource)


def _record(call: Call, old: Object, new: Object) -> None:
    record_update(_manager(call, "Update"), old, new, _unmanaged(call))


def _unmanaged(call: Call) -> List[str]:
    """The parts of an object that this door does not change."""
    if call.resource == NAMESPACES:
        return ["spec", "status"]
    if "status" not in call.resource.subresources or call.target.subresource == "status":
        return []
    return ["status"]


# Patch


def patch(call: Call) -> Answer:
    dry = dry_run(call, "PatchOptions")
    if _applies(call):
        return _apply(call, dry)
    if "force" in call.request.query:
        cause = Cause("force", "Forbidden: may not be specified for non-apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])

    old = existing(call)
    head = {"kind": call.resource.kind, "apiVersion": call.resource.api_version}
    body = patched(call, dict(head, **copy.deepcopy(old.body)))
    wrong = wrong_type(call.resource, body)
    if not wrong and (body.get("kind"), body.get("apiVersion")) != tuple(head.values()):
        text = "%s in version %s cannot be handled as a %s"
        wrong = text % (body.get("kind"), body.get("apiVersion"), head["kind"])
    if wrong:
        text = "Invalid value: %s: %s" % (json.dumps(dumps(body)), wrong)
        raise invalid("", "", "", [Cause("patch", text)])
    check_fields(call, call.resource.kind, body, "PatchOptions")

    _check_same_name(call, dig(body, "metadata", "name"))
    uid = dig(body, "metadata", "uid")
    if uid != old.body["metadata"]["uid"]:
        cause = Cause("metadata.uid", "Invalid value: %s: field is immutable" % json.dumps(uid))
        causes = [cause] if call.recent else [cause, cause]
        raise invalid(call.resource.group, call.resource.kind, call.target.name, causes)
    return object_answer(call, replace(call, old, body, dry))


def _patch_type(call: Call) -> str:
    return call.request.headers.get("content-type", "").split(";")[0].strip()


def _applies(call: Call) -> bool:
    return call.request.method == "PATCH" and _patch_type(call) == APPLY_PATCH


def patched(call: Call, body: Object) -> Object:
    """The body with the request's patch applied."""
    kind = _patch_type(call)
    if kind not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH):
        raise Refused(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    if call.resource.custom and kind == STRATEGIC_PATCH:
        raise unsupported_type(", ".join((JSON_PATCH, MERGE_PATCH, APPLY_PATCH)))

    try:
        change = json.loads(call.request.body.decode())
    except ValueError as error:
        if kind == JSON_PATCH:
            raise bad_request(str(error)) from error
        if call.recent:
            raise bad_request("invalid JSON patch") from error
        raise Refused(500, "", "Invalid JSON Patch") from error

    if kind == JSON_PATCH:
        body = _json_patched(body, change)
    elif not isinstance(change, dict):
        if call.recent:
            text = "error decoding patch: json: cannot unmarshal array into Go value of type "
            raise bad_request(text + "map[string]interface {}")
        text = (
            "Invalid value: %s: couldn't get version/kind; json parse error: json: cannot"
            " unmarshal array into Go value" % json.dumps(dumps(change))
        )
        raise invalid("", "", "", [Cause("patch", text)])
    else:
        body = (merge_patch if kind == MERGE_PATCH else strategic_merge_patch)(body, change)
    if not isinstance(body, dict):
        raise bad_request("the result of the patch is not an object")
    return body


def _json_patched(body: Object, operations: Any) -> Any:
    if not isinstance(operations, list) or not all(isinstance(op, dict) for op in operations):
        text = "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        raise bad_request(text)
    try:
        return json_patch(body, operations)
    except PatchFailed as error:
        text = "the server rejected our request due to an error in our request"
        raise Refused(422, "Invalid", text, {}) from error


# Server-side apply


def _apply(call: Call, dry: bool) -> Answer:
    """The body is YAML; here it has to be JSON, which is a part of it."""
    if not call.request.param("fieldManager"):
        cause = Cause("fieldManager", "Required value: is required for apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
    config = _configuration(call)
    entry, force = call.find(), call.request.flag("force")
    manager = _manager(call, "Apply")
    if entry is not None:
        merged = apply(manager, entry.body, config, force)
        return object_answer(call, replace(call, entry, merged, dry))

    if call.target.subresource:
        raise not_found(call.resource, call.target.name)
    name = call.target.name
    _check_namespace(call, name)
    managed = apply(manager, {"metadata": {}}, config, force)["metadata"]["managedFields"]
    fresh = new_body(call.resource, call.target.namespace, config, call.store.minor)
    fresh["metadata"]["managedFields"] = managed
    validate(call.resource, fresh, None, call.recent)
    return object_answer(call, Entry(fresh) if dry else _put_new(call, name, fresh), 201)


def _configuration(call: Call) -> Object:
    try:
        config = json.loads(call.request.body.decode())
    except ValueError as error:
        text = "error decoding patch: error converting YAML to JSON: yaml: %s"
        raise bad_request(text % error) from error
    if not isinstance(config, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal array into Go value")

    kind, version = config.get("kind"), str(config.get("apiVersion") or "")
    if (kind, version) != (call.resource.kind, call.resource.api_version):
        group = version if "/" in version else "/" + version
        raise bad_request("invalid object type: %s, Kind=%s" % (group, kind))
    _check_same_name(call, dig(config, "metadata", "name"))
    if dig(config, "metadata", "managedFields"):
        raise bad_request("metadata.managedFields must be nil")

    wrong = wrong_type(call.resource, config)
    unknown = unknown_fields(call.resource.kind, config) if not call.resource.custom else []
    if unknown or wrong:
        group = version if "/" in version else "/" + version
        text = "failed to create typed patch object (%s/%s; %s, Kind=%s): "
        namespace = dig(config, "metadata", "namespace") or ""
        text = text % (namespace, call.target.name, group, kind)
        text += ".%s: field not declared in schema" % unknown[0] if unknown else wrong
        raise Refused(500, "", text)
    return config


# Delete


def delete(call: Call) -> Answer:
    options = _delete_options(call)
    dry = dry_run(call, "DeleteOptions", options)
    entry = existing(call)
    _check_preconditions(call, entry, options)
    if call.resource == NAMESPACES and call.target.name in KEPT_NAMESPACES:
        raise forbidden(NAMESPACES, call.target.name, "this namespace may not be deleted")

    waits = bool(entry.body["metadata"].get("finalizers"))
    going: Object = {"deletionTimestamp": timestamp()}
    if waits or call.resource == PODS:
        going["deletionGracePeriodSeconds"] = 0
    shown = Entry(dict(entry.body, metadata=dict(entry.body["metadata"], **going)))
    if call.resource == NAMESPACES:
        shown.body["status"] = {"phase": "Terminating"}
    if not dry:
        shown = remove(call.store, call.resource, call.target.key, entry, shown)
    if waits or call.resource in (PODS, NAMESPACES, CRDS):
        return object_answer(call, shown)
    if call.resource == SERVICES and call.recent:
        return object_answer(call, shown)
    return success(call, entry)


def _check_preconditions(call: Call, entry: Entry, options: Object) -> None:
    metadata, wanted = entry.body["metadata"], options.get("preconditions") or {}
    kind = call.resource._replace(plural=call.resource.kind)
    for name, title, happened in (
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ):
        if wanted.get(name) not in (None, metadata[name]):
            text = "the %s in the precondition (%s) does not match the %s in record (%s)."
            text = text % (title, wanted[name], title, metadata[name])
            text += " The object might have been " + happened
            raise conflict(kind, call.target.name, text)


def remove(store: Store, resource: Resource, key: Key, entry: Entry, shown: Entry) -> Entry:
    """Remove an object, and what ends with it; `shown` is how it looks meanwhile."""
    finalizers = entry.body["metadata"].get("finalizers")
    if resource == NAMESPACES or finalizers:
        # Ends when its controller has emptied it, or when the last finalizer is gone.
        if entry.body["metadata"].get("deletionTimestamp"):
            return entry
        return store.put(resource, key, shown.body)
    if resource == CRDS:
        for served in store.serve(entry.body):
            for place, _ in store.entries(served):
                store.remove(served, place)
            store.resources.pop((served.group, served.version, served.plural), None)
    store.remove(resource, key)
    return shown


def delete_collection(call: Call) -> Answer:
    if "deletecollection" not in call.resource.verbs:
        raise not_allowed()
    dry = dry_run(call, "DeleteOptions", _delete_options(call))
    matches = selector_for(call)
    entries = [
        (key, entry)
        for key, entry in call.store.entries(call.resource, call.target.namespace)
        if matches(entry.body)
    ]
    for key, entry in entries if not dry else ():
        remove(call.store, call.resource, key, entry, entry)
    metadata = {"resourceVersion": str(call.store.resource_version)}
    shown: List[Entry] = [entry for _, entry in entries]
    return render(call.request, list_text(call.resource, metadata, shown))


def _delete_options(call: Call) -> Object:
    """The body of a DELETE, with what the query says."""
    options: Object = {}
    if call.request.body:
        try:
            options = json.loads(call.request.body.decode())
        except ValueError as error:
            text = "couldn't get version/kind; json parse error: "
            text += go_json_error(call.request.body)
            refused = bad_request(text) if call.recent else Refused(500, "", text)
            raise refused from error
    if not isinstance(options, dict):
        return {}

    policy = call.request.param("propagationPolicy") or options.get("propagationPolicy")
    if policy not in (None, "Foreground", "Background", "Orphan"):
        known = '"Foreground", "Background", "Orphan", "nil"'
        text = 'Unsupported value: "%s": supported values: %s' % (policy, known)
        raise invalid("meta.k8s.io", "DeleteOptions", "", [Cause("propagationPolicy", text)])
    seconds = call.request.param("gracePeriodSeconds")
    if seconds and not re.fullmatch("-?[0-9]+", seconds):
        raise bad_request('strconv.ParseInt: parsing "%s": invalid syntax' % seconds)
    return options
