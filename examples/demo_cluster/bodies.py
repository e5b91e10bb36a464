# SPDX-License-Identifier: Apache-2.0
"""What is in a body: decoded, or refused as the API server would."""

import json
from typing import Any, List

from .calls import Call
from .checks import wrong_type
from .protobuf import MEDIA_TYPE, decode_protobuf
from .refusals import Cause, Refused, bad_request, invalid
from .resources import BUILT_IN
from .schema import MESSAGES
from .values import Object, dig, go_json_error

KNOWN_TYPES = "application/json, application/yaml, " + MEDIA_TYPE


def unsupported_type(known: str) -> Refused:
    text = "the body of the request was in an unknown format - accepted media types include: "
    return Refused(415, "UnsupportedMediaType", text + known)


def parse(call: Call, kind: str) -> Object:
    """The body as an object, whatever it is of."""
    content_type = call.request.headers.get("content-type", "").split(";")[0].strip()
    custom = call.resource.custom and call.target.subresource == ""
    if content_type == MEDIA_TYPE and not custom:
        try:
            return decode_protobuf(call.request.body)
        except ValueError as error:
            raise bad_request(str(error)) from error
    if content_type not in ("", "application/json", "application/yaml"):
        raise unsupported_type(KNOWN_TYPES)

    try:
        body = json.loads(call.request.body.decode())
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    text = "the object provided is unrecognized (must be of type %s): " % kind
    text += "couldn't get version/kind; json parse error: "
    raise bad_request(text + go_json_error(call.request.body))


def decode(call: Call, kind: str = "", group_version: str = "") -> Object:
    """The object in the request, of the kind that belongs there."""
    resource = call.resource
    own = not kind or kind == resource.kind
    kind, group_version = kind or resource.kind, group_version or resource.api_version
    body = parse(call, kind)
    if resource.custom and own:
        _check_custom(call, body)
    else:
        _check_kind(call, body, kind, group_version)

    wrong = wrong_type(resource, body)
    if wrong:
        words = (kind, resource.version, kind, wrong)
        raise bad_request('%s in version "%s" cannot be handled as a %s: %s' % words)
    check_fields(call, kind, body, "CreateOptions")
    return body


def _check_custom(call: Call, body: Object) -> None:
    kind, version = body.get("kind"), body.get("apiVersion")
    wanted = call.resource.kind
    if not kind and call.recent:
        shown = call.request.body.decode()
        text = "the object provided is unrecognized (must be of type %s): " % wanted
        raise bad_request(text + "Object 'Kind' is missing in '%s' (%s)" % (shown, shown))
    if not kind:
        text = '%s in version "%s" cannot be handled as a %s: unmarshalerDecoder: '
        text = text % (wanted, call.resource.version, wanted)
        shown = call.request.body.decode()
        raise bad_request(text + "Object 'Kind' is missing in '%s'" % shown)
    if version != call.resource.api_version:
        text = "the API version in the data (%s) does not match the expected API version (%s)"
        raise bad_request(text % (version, call.resource.api_version))
    if kind != wanted:
        cause = Cause("kind", 'Invalid value: "%s": must be %s' % (kind, wanted))
        raise invalid(call.resource.group, kind, dig(body, "metadata", "name") or "", [cause])


def _check_kind(call: Call, body: Object, wanted: str, group_version: str) -> None:
    kind, version = body.get("kind"), body.get("apiVersion")
    if not kind or (kind == wanted and (version or group_version) == group_version):
        return

    text = '%s in version "%s" cannot be handled as a %s: ' % (kind, version, wanted)
    known = any((r.kind, r.api_version) == (kind, version) for r in BUILT_IN.values())
    if known or (version or group_version) == group_version:
        group = (call.resource.group or "core").split(".")[0]
        text += "converting (v1.%s) to (%s.%s): unknown conversion" % (kind, group, wanted)
    else:
        text += 'no kind "%s" is registered for version "%s" in scheme ' % (kind, version)
        text += '"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"'
    raise bad_request(text)


# Fields that no kind has: a warning, an error or nothing, as fieldValidation says.


def check_fields(call: Call, kind: str, body: Object, options: str) -> None:
    """Take the unknown fields out of the body, and say so."""
    fields = unknown_fields(kind, body, prune=True)
    if call.store.minor < 27:
        return
    validation = call.request.param("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Strict", "Warn"):
        text = 'Unsupported value: "%s": supported values: "", "Ignore", "Strict", "Warn"'
        cause = Cause("fieldValidation", text % validation)
        raise invalid("meta.k8s.io", options, "", [cause])

    unknown = ['unknown field "%s"' % name for name in fields]
    if unknown and validation == "Strict":
        text = '%s in version "%s" cannot be handled as a %s: strict decoding error: '
        text = text % (kind, call.resource.version, kind)
        raise bad_request(text + ", ".join(unknown))
    for text in unknown if validation == "Warn" else ():
        call.warn(text)


def unknown_fields(kind: str, body: Object, prune: bool = False) -> List[str]:
    """The paths of the fields that the schema does not have; `prune` takes them out."""
    return _unknown(kind, body, "", prune)


def _unknown(message: str, value: Any, path: str, prune: bool) -> List[str]:
    if message not in MESSAGES or not isinstance(value, dict):
        return []
    fields = {field.name: field for field in MESSAGES[message]}
    if "" in fields:
        inner = MESSAGES.get(fields[""].type)
        if inner is None:
            return []
        fields.update({field.name: field for field in inner})

    unknown = []
    for name, part in list(value.items()):
        place = path + "." + name if path else name
        if not path and name in ("kind", "apiVersion"):
            continue
        if name not in fields:
            unknown.append(place)
            if prune:
                del value[name]
        elif isinstance(part, list):
            for index, item in enumerate(part):
                unknown += _unknown(fields[name].type, item, "%s[%d]" % (place, index), prune)
        else:
            unknown += _unknown(fields[name].type, part, place, prune)
    return unknown
