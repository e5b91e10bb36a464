# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an object, as the API server would say it."""

import json
import re
from typing import Any, Iterator, Optional

from .refusals import Cause, invalid
from .resources import CRDS, PODS, Resource
from .values import Object, dig, dumps

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SERVICE = r"[a-z]([-a-z0-9]*[a-z0-9])?"

LABEL_RULE = (
    _LABEL,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and"
    " must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex"
    " used for validation is '%s')" % _LABEL,
)
SUBDOMAIN_RULE = (
    _SUBDOMAIN,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
    " '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used"
    " for validation is '%s')" % _SUBDOMAIN,
)
SERVICE_RULE = (
    _SERVICE,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an"
    " alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or"
    " 'abc-123', regex used for validation is '%s')" % _SERVICE,
)


def validate(resource: Resource, body: Object, old: Optional[Object], recent: bool) -> None:
    """Refuse what the API server would refuse of what a beginner gets wrong.

    old     the state before; None for a new object
    recent  in the words of late, which show values as JSON
    """
    causes = list(_name_causes(resource, body["metadata"].get("name", ""), old, recent))
    causes += _spec_causes(resource, body, old, recent)
    if resource == CRDS:
        causes += _crd_causes(body["metadata"].get("name", ""), body.get("spec") or {})
    if causes:
        name = body["metadata"].get("name", "")
        raise invalid(resource.group, resource.kind, name, causes)


def _name_causes(
    resource: Resource, name: str, old: Optional[Object], recent: bool
) -> Iterator[Cause]:
    pattern, rule = SUBDOMAIN_RULE
    if resource.storage == ("", "namespaces") or (resource.storage == ("", "services") and recent):
        pattern, rule = LABEL_RULE
    elif resource.storage == ("", "services"):
        pattern, rule = SERVICE_RULE

    shown = "Invalid value: %s: " % json.dumps(name)
    if not name:
        yield Cause("metadata.name", "Required value: name or generateName is required")
    elif old is None and not re.fullmatch(pattern, name):
        yield Cause("metadata.name", shown + rule)
    elif old is None and len(name) > 253:
        yield Cause("metadata.name", shown + "must be no more than 253 characters")


def _spec_causes(
    resource: Resource, body: Object, old: Optional[Object], recent: bool
) -> Iterator[Cause]:
    spec = body.get("spec") or {}
    replicas = spec.get("replicas")
    if isinstance(replicas, int) and replicas < 0 and not resource.custom:
        text = "Invalid value: %d: must be greater than or equal to 0" % replicas
        yield Cause("spec.replicas", text)

    if resource.group == "apps":
        yield from _selector_causes(spec, old, recent)
        if not dig(spec, "template", "spec", "containers"):
            yield Cause("spec.template.spec.containers", "Required value")
    if resource != PODS:
        return
    if not spec.get("containers"):
        yield Cause("spec.containers", "Required value")
    if old is not None and spec.get("nodeName") != dig(old, "spec", "nodeName"):
        text = "pod updates may not change fields other than `spec.containers[*].image`"
        yield Cause("spec", "Forbidden: " + text)


def _selector_causes(spec: Object, old: Optional[Object], recent: bool) -> Iterator[Cause]:
    """The selector has to be there, to fit the template, and to stay."""
    labels = dig(spec, "template", "metadata", "labels")
    selector = dig(spec, "selector", "matchLabels")
    if not spec.get("selector"):
        yield Cause("spec.selector", "Required value")
    if not selector or not set(selector.items()) <= set((labels or {}).items()):
        shown = dumps(labels and dict(sorted(labels.items())))
        if not recent:
            pairs = ['"%s":"%s"' % label for label in sorted((labels or {}).items())]
            shown = "map[string]string" + ("(nil)" if labels is None else "{%s}" % ", ".join(pairs))
        text = "Invalid value: %s: `selector` does not match template `labels`" % shown
        yield Cause("spec.template.metadata.labels", text)
    if old is not None and spec.get("selector") != dig(old, "spec", "selector"):
        text = "Invalid value: %s: field is immutable" % dumps(spec.get("selector"))
        yield Cause("spec.selector", text)


def _crd_causes(name: str, spec: Object) -> Iterator[Cause]:
    names, versions = spec.get("names") or {}, spec.get("versions")
    if name != "%s.%s" % (names.get("plural"), spec.get("group")):
        text = 'Invalid value: "%s": must be spec.names.plural+"."+spec.group' % name
        yield Cause("metadata.name", text)
    for field in ("group", "scope"):
        if not isinstance(spec.get(field), str) or not spec[field]:
            yield Cause("spec." + field, "Required value")
    named = isinstance(versions, list) and all(
        isinstance(version, dict) and version.get("name") for version in versions or [0]
    )
    if not named:
        text = "Invalid value: must have exactly one version marked as storage version"
        yield Cause("spec.versions", text)
    for field in ("plural", "kind"):
        if not isinstance(names.get(field), str) or not names[field]:
            yield Cause("spec.names." + field, "Required value")


# Types


def wrong_type(resource: Resource, body: Object) -> str:
    """What in a body has a type that its kind does not allow; "" if nothing that is looked at."""
    wrong = _wrong_metadata(resource, body) or _wrong_lists(resource, body)
    wrong = wrong or _wrong_maps(resource, body)
    if wrong or resource.custom:
        return wrong
    return _wrong_spec(resource, body.get("spec"))


def _wrong_metadata(resource: Resource, body: Object) -> str:
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        return "v1.%s.ObjectMeta: v1.ObjectMeta: ReadObject: expect { or n" % resource.kind
    for name in ("name", "generateName", "namespace", "resourceVersion", "uid"):
        if not isinstance(dig(metadata, name), (str, type(None))):
            text = 'v1.%s.ObjectMeta: v1.ObjectMeta.%s: ReadString: expects " or n'
            return text % (resource.kind, name[0].upper() + name[1:])
    return ""


def _wrong_lists(resource: Resource, body: Object) -> str:
    paths = [("metadata", "ownerReferences"), ("metadata", "finalizers")]
    if not resource.custom:
        paths += [("status", "conditions"), ("status", "containerStatuses"), ("spec", "ports")]
    for path in paths:
        value = dig(body, *path)
        item_type = str if path[1] == "finalizers" else dict
        if value is not None and not _list_of(value, item_type):
            name = path[1][0].upper() + path[1][1:]
            return "v1.%s.%s: decode slice: expect [ or n" % (resource.kind, name)
    return ""


def _list_of(value: Any, item_type: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, item_type) for item in value)


def _wrong_maps(resource: Resource, body: Object) -> str:
    maps = [
        ("ObjectMeta: v1.ObjectMeta.Labels", dig(body, "metadata", "labels")),
        ("ObjectMeta: v1.ObjectMeta.Annotations", dig(body, "metadata", "annotations")),
    ]
    if resource.storage in (("", "configmaps"), ("", "secrets")):
        maps += [("Data", body.get("data")), ("StringData", body.get("stringData"))]
    for name, value in maps:
        if value is not None and not isinstance(value, dict):
            return "v1.%s.%s: ReadMapCB: expect { or n" % (resource.kind, name)
        for text in (value or {}).values():
            if not isinstance(text, (str, type(None))):
                wrong = 'v1.%s.%s: ReadString: expects " or n, but found %s'
                return wrong % (resource.kind, name, dumps(text)[:1])
    return ""


def _wrong_spec(resource: Resource, spec: Any) -> str:
    kind = resource.kind
    start = "v1.%s.Spec: v1.%sSpec" % (kind, kind)
    if spec is not None and not isinstance(spec, dict):
        return start + ": ReadObject: expect { or n"
    replicas = dig(spec, "replicas")
    if replicas is not None and (not isinstance(replicas, int) or isinstance(replicas, bool)):
        return start + ".Replicas: readUint32: unexpected character: \ufffd"

    pod = dig(spec, "template", "spec") if resource.group == "apps" else spec
    containers = dig(pod, "containers")
    if containers is not None and not _list_of(containers, dict):
        return "v1.PodSpec.Containers: decode slice: expect [ or n"
    for steps in (
        ("selector",),
        ("selector", "matchLabels"),
        ("template",),
        ("template", "metadata"),
        ("names",),
    ):
        if not isinstance(dig(spec, *steps), (dict, type(None))):
            return start + ".%s: ReadObject: expect { or n" % steps[-1].capitalize()
    return ""
