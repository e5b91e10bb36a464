# SPDX-License-Identifier: Apache-2.0
"""What a server says that it can do: /version, /api, /apis, /openapi."""

import collections
from typing import Dict, List

from .calls import render
from .connections import Answer, Request, json_answer
from .refusals import PageNotFound, no_such_resource, not_allowed
from .resources import SUBRESOURCE_KINDS, SUBRESOURCE_VERBS, Resource
from .store import Store
from .values import Object, dumps

IN_ALL = (("", "pods"), ("", "services"), ("", "replicationcontrollers"))  # `kubectl get all`
NO_SNIFF = (("X-Content-Type-Options", "nosniff"),)
OPENAPI_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def discovery(store: Store, parts: List[str], request: Request) -> Answer:
    if request.method != "GET":
        if parts[0] not in ("api", "apis", "version"):
            raise PageNotFound()
        raise not_allowed()
    if parts[0] in ("healthz", "livez", "readyz"):
        return Answer(200, b"ok", "text/plain; charset=utf-8", NO_SNIFF)
    if parts == ["version"]:
        return render(request, dumps(_version(store)))
    if parts == ["openapi", "v2"]:
        return _openapi(store, request)
    if parts == ["api"]:
        shown: Object = {"kind": "APIVersions", "versions": ["v1"]}
        return render(request, dumps(dict(shown, serverAddressByClientCIDRs=[])))

    groups = _groups(store)
    if parts == ["apis"]:
        shown = {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(groups.values())}
        return render(request, dumps(shown))
    if parts[0] == "apis" and len(parts) == 2:
        if parts[1] not in groups:
            raise PageNotFound()
        head = {"kind": "APIGroup", "apiVersion": "v1"}
        return render(request, dumps(dict(head, **groups[parts[1]])))
    if parts[0] in ("api", "apis"):
        group = parts[1] if parts[0] == "apis" else ""
        return render(request, dumps(_resource_list(store, "/".join(parts[1:]), group)))

    if parts != [""] and store.minor >= 30:
        raise PageNotFound()
    paths = ["/api", "/api/v1", "/apis"]
    paths += ["/apis/%s" % group for group in groups] + ["/healthz", "/version"]
    return render(request, dumps({"paths": paths}), 200 if parts == [""] else 404)


def _git_version(store: Store) -> str:
    return "v1.%d.2" % store.minor


def _version(store: Store) -> Object:
    return {
        "major": "1",
        "minor": str(store.minor),
        "gitVersion": _git_version(store),
        "gitCommit": "demo",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "memory",
    }


def _openapi(store: Store, request: Request) -> Answer:
    """An empty document knows no kind and so objects to none: `kubectl apply` asks for it."""
    if "protobuf" in request.headers.get("accept", ""):
        return Answer(200, b"", "", (("Content-Type", OPENAPI_PROTOBUF),))
    info = {"title": "Kubernetes", "version": _git_version(store)}
    return json_answer({"swagger": "2.0", "info": info, "paths": {}})


def _groups(store: Store) -> Dict[str, Object]:
    versions: Dict[str, List[str]] = collections.defaultdict(list)
    for resource in store.resources.values():
        if resource.group and resource.version not in versions[resource.group]:
            versions[resource.group].append(resource.version)

    groups = {}
    for group in sorted(versions):
        served = [
            {"groupVersion": group + "/" + version, "version": version}
            for version in versions[group]
        ]
        groups[group] = {"name": group, "versions": served, "preferredVersion": served[0]}
    return groups


def _resource_list(store: Store, group_version: str, group: str) -> Object:
    listed = []
    for resource in store.resources.values():
        if resource.api_version == group_version:
            listed.append(_described(store, resource))
            listed += [_subresource(resource, name) for name in resource.subresources]
    if not listed:
        if not any(resource.group == group for resource in store.resources.values()):
            raise PageNotFound()
        raise no_such_resource()
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version}
    return dict(head, resources=listed)


def _described(store: Store, resource: Resource) -> Object:
    singular = resource.kind.lower() if store.minor >= 27 else ""
    entry: Object = {"name": resource.plural, "singularName": singular}
    entry.update(namespaced=resource.namespaced, kind=resource.kind, verbs=resource.verbs)
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.storage in IN_ALL or resource.group in ("apps", "batch", "autoscaling"):
        entry["categories"] = ["all"]
    return entry


def _subresource(resource: Resource, name: str) -> Object:
    group, version, kind = SUBRESOURCE_KINDS.get(name, ("", "", resource.kind))
    entry: Object = {"name": resource.plural + "/" + name, "singularName": ""}
    entry.update(namespaced=resource.namespaced, kind=kind)
    if group:
        entry.update(group=group, version=version)
    return dict(entry, verbs=SUBRESOURCE_VERBS.get(name, ["get", "patch", "update"]))
