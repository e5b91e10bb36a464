# SPDX-License-Identifier: Apache-2.0
"""What a server says that it can do: /version, /api, /apis, /openapi."""

import collections
from typing import Dict, List

from .connections import Answer, Request, json_answer
from .refusals import PageNotFound, no_such_resource, not_allowed
from .resources import SUBRESOURCE_KINDS, SUBRESOURCE_VERBS
from .store import Store
from .targets import render
from .values import Object, dumps


def discovery(store: Store, parts: List[str], request: Request) -> Answer:
    versions: Dict[str, List[str]] = collections.defaultdict(list)
    for resource in store.resources.values():
        if resource.version not in versions[resource.group]:
            versions[resource.group].append(resource.version)
    if request.method != "GET":
        raise not_allowed()
    if parts[0] in ("healthz", "livez", "readyz"):
        return Answer(
            200, b"ok", "text/plain; charset=utf-8", (("X-Content-Type-Options", "nosniff"),)
        )
    if parts == ["version"]:
        version = {
            "major": "1",
            "minor": "20",
            "gitVersion": "v1.20.2",
            "gitCommit": "demo",
            "gitTreeState": "clean",
        }
        version.update(
            buildDate="1970-01-01T00:00:00Z", goVersion="none", compiler="none", platform="memory"
        )
        return render(request, dumps(version))
    if parts == ["openapi", "v2"] and "protobuf" in request.headers.get("accept", ""):
        # An empty document knows no kind and so objects to none: `kubectl apply` asks for it.
        return Answer(
            200,
            b"",
            "",
            (("Content-Type", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),),
        )
    if parts == ["openapi", "v2"]:
        return json_answer(
            {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.20.2"}, "paths": {}}
        )
    if parts == ["api"]:
        return render(
            request,
            dumps({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        )
    groups = []
    for group in sorted(filter(None, versions)):
        ways = [
            {"groupVersion": group + "/" + version, "version": version}
            for version in versions[group]
        ]
        groups.append({"name": group, "versions": ways, "preferredVersion": ways[0]})
    if parts == ["apis"]:
        return render(
            request, dumps({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        )
    if parts[0] == "apis" and len(parts) == 2:
        for found in groups:
            if found["name"] == parts[1]:
                return render(
                    request, dumps(dict({"kind": "APIGroup", "apiVersion": "v1"}, **found))
                )
        raise PageNotFound()
    if parts[0] in ("api", "apis"):
        group = parts[1] if parts[0] == "apis" else ""
        return render(request, dumps(resource_list(store, "/".join(parts[1:]), group)))
    paths = (
        ["/api", "/api/v1", "/apis"]
        + ["/apis/%s" % found["name"] for found in groups]
        + ["/healthz", "/version"]
    )
    return render(request, dumps({"paths": paths}), 200 if parts == [""] else 404)


def resource_list(store: Store, group_version: str, group: str) -> Object:
    listed = []
    for resource in store.resources.values():
        if resource.api_version != group_version:
            continue
        entry = {
            "name": resource.plural,
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": resource.kind,
        }
        entry["verbs"] = resource.verbs
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.plural in ("pods", "services") or resource.group == "apps":
            entry["categories"] = ["all"]
        listed.append(entry)
        for subresource in resource.subresources:
            parent = dict({"group": "", "version": "", "kind": resource.kind})
            parent["group"], parent["version"], kind = SUBRESOURCE_KINDS.get(
                subresource, ("", "", resource.kind)
            )
            verbs = SUBRESOURCE_VERBS.get(subresource, ["get", "patch", "update"])
            entry = {
                "name": resource.plural + "/" + subresource,
                "singularName": "",
                "namespaced": resource.namespaced,
            }
            listed.append(
                dict(
                    entry,
                    kind=kind,
                    verbs=verbs,
                    **{k: v for k, v in parent.items() if v and k != "kind"},
                )
            )
    if not listed:
        if not any(resource.group == group for resource in store.resources.values()):
            raise PageNotFound()
        raise no_such_resource()
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": listed,
    }
