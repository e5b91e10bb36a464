# SPDX-License-Identifier: Apache-2.0
"""One request to one cluster: who asks, for what, and who answers it.

Handlers return an Answer or raise Refused; they run with the store's lock held, and so only return
what goes on (a watch, a log) for the connection's thread to run afterwards.
"""

import base64
import re
import time
from typing import List, Optional, Set, Tuple

from .connections import Handled, Request, text_error
from .discovery import discovery
from .objects import (
    create,
    delete,
    delete_collection,
    existing,
    get,
    list_objects,
    patch,
    update,
)
from .pods import pod_stream
from .refusals import PageNotFound, Refused, forbidden, no_such_resource, not_allowed
from .resources import SUBRESOURCE_VERBS, Resource
from .settings import Settings
from .store import Store
from .subresources import evict, issue_token, metrics, review, scale
from .targets import Target, negotiate, render
from .values import dig, dumps
from .watches import Watch

BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
ANONYMOUS = "system:anonymous"
OPEN_PATHS = ("/version", "/healthz", "/livez", "/readyz")  # for everybody, known or not


class Kubernetes:
    """The API server of every cluster; a cluster is a Store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def handle(self, store: Store, tokens: Optional[Set[str]], request: Request) -> Handled:
        """Answer one request. `tokens` are the accepted ones; with None everybody may."""
        try:
            try:
                user, protocols = self._authenticate(store, tokens, request)
                with store.lock if request.method == "GET" else store.changing():
                    return self._route(store, user, protocols, request)
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                # A body of a shape that nothing here expected: the API server survives its panics.
                raise Refused(
                    500, "InternalError", "Internal error occurred: %r" % error
                ) from error
        except Refused as refused:
            retry = dig(refused.status, "details", "retryAfterSeconds")
            headers = (("Retry-After", str(retry)),) if retry else ()
            return render(request, dumps(refused.status), refused.code)._replace(headers=headers)
        except PageNotFound:
            return text_error("404 page not found", 404)

    # Who asks

    def _authenticate(
        self, store: Store, tokens: Optional[Set[str]], request: Request
    ) -> Tuple[str, List[str]]:
        """The user, and the subprotocols without the one that carried the token."""

        def known(token: str) -> bool:
            return tokens is None or token in tokens or store.issued.get(token, 0) > time.time()

        protocols = request.protocols
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            if not known(token.strip()):
                raise Refused(401, "Unauthorized", "Unauthorized")
            return (
                "admin",
                protocols,
            )  # a token among the subprotocols stays there, and is one too many
        carried = [protocol for protocol in protocols if protocol.startswith(BEARER_PROTOCOL)]
        if request.upgrades and carried and carried != [BEARER_PROTOCOL]:
            others = [protocol for protocol in protocols if protocol not in carried]
            encoded = carried[0][len(BEARER_PROTOCOL) :]
            try:
                if not re.fullmatch("[A-Za-z0-9_-]+", encoded):
                    raise ValueError
                token = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except ValueError:
                token = ""
            if len(carried) > 1 or not others or not token or not known(token):
                raise Refused(401, "Unauthorized", "Unauthorized")
            return "admin", others
        return ("admin" if tokens is None else ANONYMOUS), protocols

    def _authorize(self, user: str, request: Request, target: Optional[Target]) -> None:
        if user != ANONYMOUS or request.path.rstrip("/") in OPEN_PATHS:
            return
        verb = {"POST": "create", "PUT": "update"}.get(request.method, request.method.lower())
        if target is None:
            message = 'forbidden: User "%s" cannot %s path "%s"' % (user, verb, request.path)
            raise Refused(403, "Forbidden", message, {})
        if verb == "get" and not target.name:
            verb = "watch" if target.watch or request.flag("watch") else "list"
        if verb == "delete" and not target.name:
            verb = "deletecollection"
        resource, subresource = target.resource, target.subresource and "/" + target.subresource
        where = (
            'in the namespace "%s"' % target.namespace
            if target.namespace
            else "at the cluster scope"
        )
        what = 'User "%s" cannot %s resource "%s" in API group "%s" %s'
        raise forbidden(
            resource,
            target.name,
            what % (user, verb, resource.plural + subresource, resource.group, where),
        )

    # Where it goes

    def _route(self, store: Store, user: str, protocols: List[str], request: Request) -> Handled:
        parts = request.path.strip("/").split("/")
        prefix = 2 if parts[0] == "api" else 3  # words before the resource
        if parts[0] not in ("api", "apis") or len(parts) <= prefix:
            self._authorize(user, request, None)
            return discovery(store, parts, request)
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        try:
            target = self._target(store, group, version, parts[prefix:])
        except (Refused, PageNotFound):
            unknown = Resource(group, version, parts[prefix], "", False)
            self._authorize(user, request, Target(unknown, "", "", ""))
            raise
        self._authorize(user, request, target)
        negotiate(request)
        if target.resource.group == "metrics.k8s.io":
            return metrics(store, target, request)
        if target.resource.group == "authorization.k8s.io":
            return review(target, request)
        if target.subresource:
            return self._subresource(store, target, protocols, request)
        if target.name:
            act = {"GET": get, "PUT": update, "PATCH": patch, "DELETE": delete}.get(request.method)
            if act is None:
                raise not_allowed()
            return act(store, target, request)
        if request.method == "GET":
            if target.watch or request.flag("watch"):
                return Watch(self._settings, store, target, protocols, request).run
            return list_objects(store, target, request)
        if request.method == "POST" and bool(target.namespace) == target.resource.namespaced:
            return create(store, target, request)
        if request.method == "DELETE" and bool(target.namespace) == target.resource.namespaced:
            return delete_collection(store, target, request)
        raise not_allowed()

    def _target(self, store: Store, group: str, version: str, parts: List[str]) -> Target:
        served = store.resources
        if not any(resource.group == group for resource in served.values()):
            raise PageNotFound()
        watch = parts[0] == "watch" and len(parts) > 1
        parts = parts[1:] if watch else parts
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
            namespace, parts = parts[1], parts[2:]
        resource = served.get((group, version, parts[0]))
        name, subresource, rest = (parts[1:] + ["", ""])[0], (parts[2:] + [""])[0], parts[3:]
        scoped = resource is not None and (
            resource.namespaced == bool(namespace) or (resource.namespaced and not name)
        )
        if (
            resource is None
            or rest
            or not scoped
            or (subresource and subresource not in resource.subresources)
        ):
            raise no_such_resource()
        return Target(resource, namespace, name, subresource, watch)

    def _subresource(
        self, store: Store, target: Target, protocols: List[str], request: Request
    ) -> Handled:
        verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create"}.get(
            request.method
        )
        if verb not in SUBRESOURCE_VERBS.get(target.subresource, ["get", "patch", "update"]):
            raise not_allowed()
        if target.subresource == "status":
            act = {"get": get, "update": update, "patch": patch}[str(verb)]
            return act(store, target, request)
        if target.subresource == "scale":
            return scale(store, target, request)
        if target.subresource == "eviction":
            return evict(store, target, request)
        if target.subresource == "token":
            return issue_token(store, target, request, self._settings)
        return pod_stream(
            self._settings, store, target, existing(store, target), protocols, request
        )
