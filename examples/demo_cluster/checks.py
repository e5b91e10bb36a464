# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an object, as the API server would say it."""

import json
import re
from typing import List, Optional

from .refusals import Cause, invalid
from .resources import CRDS, PODS, Resource
from .values import Object, dig, dumps

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
NAME_RULES = {
    ("", "namespaces"): (
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-',"
        " and must start and end with an"
        " alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
        " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    ),
    ("", "services"): (
        r"[a-z]([-a-z0-9]*[a-z0-9])?",
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with"
        " an alphabetic character, and end"
        " with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for"
        " validation is"
        " '[a-z]([-a-z0-9]*[a-z0-9])?')",
    ),
}
SUBDOMAIN_RULE = (
    _SUBDOMAIN,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
    " '.', and must start and end with"
    " an alphanumeric character (e.g. 'example.com', regex used for validation is '%s')"
    % _SUBDOMAIN,
)


def validate(resource: Resource, body: Object, old: Optional[Object]) -> None:
    """Refuse what the API server would refuse of what a beginner gets wrong."""
    causes = []
    name, spec = body["metadata"].get("name", ""), body.get("spec") or {}
    pattern, rule = NAME_RULES.get(resource.storage, SUBDOMAIN_RULE)
    if not name:
        causes.append(Cause("metadata.name", "Required value: name or generateName is required"))
    elif old is None and not re.fullmatch(pattern, name):
        causes.append(Cause("metadata.name", "Invalid value: %s: %s" % (json.dumps(name), rule)))
    elif old is None and len(name) > 253:
        causes.append(
            Cause(
                "metadata.name",
                "Invalid value: %s: must be no more than 253 characters" % json.dumps(name),
            )
        )
    if isinstance(spec.get("replicas"), int) and spec["replicas"] < 0 and not resource.custom:
        causes.append(
            Cause(
                "spec.replicas",
                "Invalid value: %d: must be greater than or equal to 0" % spec["replicas"],
            )
        )
    template = (
        spec.get("template") if resource.group == "apps" else body if resource == PODS else None
    )
    if resource.group == "apps":
        labels = dig(template, "metadata", "labels")
        wanted = dig(spec, "selector", "matchLabels")
        if not spec.get("selector"):
            causes.append(Cause("spec.selector", "Required value"))
        if not wanted or not set(wanted.items()) <= set((labels or {}).items()):
            shown = (
                "(nil)"
                if labels is None
                else "{%s}" % ", ".join('"%s":"%s"' % label for label in sorted(labels.items()))
            )
            mismatch = (
                "Invalid value: map[string]string%s: `selector` does not match template `labels`"
                % shown
            )
            causes.append(Cause("spec.template.metadata.labels", mismatch))
        if old is not None and spec.get("selector") != dig(old, "spec", "selector"):
            causes.append(
                Cause(
                    "spec.selector",
                    "Invalid value: %s: field is immutable" % dumps(spec.get("selector")),
                )
            )
    if resource.group == "apps" or resource == PODS:
        if not dig(template, "spec", "containers"):
            field = "spec.containers" if resource == PODS else "spec.template.spec.containers"
            causes.append(Cause(field, "Required value"))
    if (
        resource == PODS
        and old is not None
        and spec.get("nodeName") != dig(old, "spec", "nodeName")
    ):
        causes.append(
            Cause(
                "spec",
                "Forbidden: pod updates may not change fields other than"
                " `spec.containers[*].image`",
            )
        )
    if resource == CRDS:
        causes += validate_crd(name, spec)
    if causes:
        raise invalid(resource.group, resource.kind, name, causes)


def validate_crd(name: str, spec: Object) -> List[Cause]:
    names, versions = spec.get("names") or {}, spec.get("versions")
    causes = []
    if name != "%s.%s" % (names.get("plural"), spec.get("group")):
        text = 'Invalid value: "%s": must be spec.names.plural+"."+spec.group' % name
        causes.append(Cause("metadata.name", text))
    for field, value in (("spec.group", spec.get("group")), ("spec.scope", spec.get("scope"))):
        if not isinstance(value, str) or not value:
            causes.append(Cause(field, "Required value"))
    if not isinstance(versions, list) or not all(
        isinstance(version, dict) and version.get("name") for version in versions or [0]
    ):
        causes.append(
            Cause(
                "spec.versions",
                "Invalid value: must have exactly one version marked as storage version",
            )
        )
    for field in ("plural", "kind"):
        if not isinstance(names.get(field), str) or not names[field]:
            causes.append(Cause("spec.names." + field, "Required value"))
    return causes


def wrong_type(resource: Resource, body: Object) -> str:
    """What in a body has a type that its kind does not allow; "" if nothing that is looked at."""
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        return "v1.%s.ObjectMeta: v1.ObjectMeta: ReadObject: expect { or n" % resource.kind
    for name in ("name", "generateName", "namespace", "resourceVersion", "uid"):
        if not isinstance(dig(metadata, name), (str, type(None))):
            return 'v1.%s.ObjectMeta: v1.ObjectMeta.%s: ReadString: expects " or n' % (
                resource.kind,
                name[0].upper() + name[1:],
            )
    lists = [("metadata", "ownerReferences"), ("metadata", "finalizers"), ("status", "conditions")]
    for path in (
        lists + [("status", "containerStatuses"), ("spec", "ports")]
        if not resource.custom
        else lists[:2]
    ):
        listed = dig(body, *path)
        allowed = str if path[1] == "finalizers" else dict
        if listed is not None and not (
            isinstance(listed, list) and all(isinstance(item, allowed) for item in listed)
        ):
            return "v1.%s.%s: decode slice: expect [ or n" % (
                resource.kind,
                path[1][0].upper() + path[1][1:],
            )
    maps = [
        ("ObjectMeta: v1.ObjectMeta.Labels", dig(metadata, "labels")),
        ("ObjectMeta: v1.ObjectMeta.Annotations", dig(metadata, "annotations")),
    ]
    if resource.storage in (("", "configmaps"), ("", "secrets")):
        maps += [("Data", body.get("data")), ("StringData", body.get("stringData"))]
    for name, value in maps:
        if value is not None and not isinstance(value, dict):
            return "v1.%s.%s: ReadMapCB: expect { or n" % (resource.kind, name)
        for text in (value or {}).values():
            if not isinstance(text, (str, type(None))):
                return 'v1.%s.%s: ReadString: expects " or n, but found %s' % (
                    resource.kind,
                    name,
                    dumps(text)[:1],
                )
    spec = body.get("spec")
    if resource.custom:
        return ""
    if spec is not None and not isinstance(spec, dict):
        return "v1.%s.Spec: v1.%sSpec: ReadObject: expect { or n" % (resource.kind, resource.kind)
    replicas = dig(spec, "replicas")
    if replicas is not None and (not isinstance(replicas, int) or isinstance(replicas, bool)):
        return "v1.%s.Spec: v1.%sSpec.Replicas: readUint32: unexpected character: \ufffd" % (
            resource.kind,
            resource.kind,
        )
    holder = dig(spec, "template", "spec") if resource.group == "apps" else spec
    containers = dig(holder, "containers")
    if containers is not None and not (
        isinstance(containers, list) and all(isinstance(item, dict) for item in containers)
    ):
        return "v1.PodSpec.Containers: decode slice: expect [ or n"
    for steps in (
        ("selector",),
        ("selector", "matchLabels"),
        ("template",),
        ("template", "metadata"),
        ("names",),
    ):
        if not isinstance(dig(spec, *steps), (dict, type(None))):
            return "v1.%s.Spec: v1.%sSpec.%s: ReadObject: expect { or n" % (
                resource.kind,
                resource.kind,
                steps[-1].capitalize(),
            )
    return ""
