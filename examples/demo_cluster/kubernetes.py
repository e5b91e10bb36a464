# SPDX-License-Identifier: Apache-2.0
"""One request to one cluster: who asks, for what, and who answers it.

Handlers return an Answer or raise Refused; they run with the store's lock held, and so only return
what goes on (a watch, a log) for the connection's thread to run afterwards.
"""

from typing import Iterable, List, Optional, Set, Tuple

from .calls import Call, Target, negotiate, render
from .connections import Answer, Connection, Handled, Request, text_error
from .discovery import discovery
from .pods import pod_stream
from .reading import get, list_objects
from .refusals import PageNotFound, Refused, forbidden, no_such_resource, not_allowed
from .resources import DEPRECATED, SUBRESOURCE_VERBS, Resource
from .reviews import metrics, review
from .settings import Settings
from .store import Store
from .subresources import evict, issue_token, scale
from .users import ANONYMOUS, Keys, User, authenticate
from .values import dig, dumps
from .watches import Watch
from .writing import create, delete, delete_collection, patch, update

OPEN_PATHS = ("/version", "/healthz", "/livez", "/readyz")  # for everybody, known or not
STREAMED = ("exec", "attach", "portforward")
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}

Headers = Tuple[Tuple[str, str], ...]


class Kubernetes:
    """The API server of every cluster; a cluster is a Store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def handle(self, store: Store, tokens: Optional[Set[str]], request: Request) -> Handled:
        """Answer one request. `tokens` are the accepted ones; with None everybody may."""
        warnings: List[str] = []
        try:
            handled = self._attempt(store, tokens, request, warnings)
        except Refused as refused:
            handled = render(request, dumps(refused.status), refused.code)
            retry = dig(refused.status, "details", "retryAfterSeconds")
            if retry:
                handled = handled._replace(headers=(("Retry-After", str(retry)),))
            if refused.code == 403 and 'User "' in refused.status["message"]:
                handled = handled._replace(headers=(("X-Content-Type-Options", "nosniff"),))
        except PageNotFound:
            handled = text_error("404 page not found", 404)
        return _with_warnings(handled, warnings) if warnings else handled

    def _attempt(
        self, store: Store, tokens: Optional[Set[str]], request: Request, warnings: List[str]
    ) -> Handled:
        try:
            keys = Keys(tokens, self._settings.rights, store.issued)
            user, protocols = authenticate(request, keys)
            with store.lock if request.method == "GET" else store.changing():
                return self._route(store, user, protocols, request, warnings)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            # A body of a shape that nothing here expected: the API server survives its panics.
            text = "Internal error occurred: %r" % error
            raise Refused(500, "InternalError", text) from error

    def _route(
        self,
        store: Store,
        user: User,
        protocols: List[str],
        request: Request,
        warnings: List[str],
    ) -> Handled:
        parts = request.path.strip("/").split("/")
        prefix = 2 if parts[0] == "api" else 3  # words before the resource
        if parts[0] not in ("api", "apis") or len(parts) <= prefix:
            authorize(store, user, request, None)
            return discovery(store, parts, request)

        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        try:
            target = target_of(store, group, version, parts[prefix:])
        except (Refused, PageNotFound):
            unknown = Resource(group, version, parts[prefix], "", False)
            authorize(store, user, request, Target(unknown, "", "", ""))
            raise
        authorize(store, user, request, target)
        call = Call(self._settings, store, user, request, protocols, target, warnings)
        since, text = DEPRECATED.get((group, version, target.resource.plural), (100, ""))
        if store.minor >= since:
            call.warn(text)
        if target.subresource not in STREAMED:
            negotiate(call)
        return answer_of(call)


def _with_warnings(handled: Handled, texts: Iterable[str]) -> Handled:
    """RFC 7234 5.5: 299, no agent, a quoted text."""
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    headers = tuple(("Warning", '299 - "%s"' % text) for text in quoted)
    if isinstance(handled, Answer):
        return handled._replace(headers=handled.headers + headers)
    stream = handled

    def run(connection: Connection) -> None:
        connection.extra_headers += headers
        stream(connection)

    return run


# Who may


def authorize(store: Store, user: User, request: Request, target: Optional[Target]) -> None:
    if request.path.rstrip("/") in OPEN_PATHS or user.verbs is None:
        return
    if target is None:
        known = user != ANONYMOUS and request.method == "GET"
        if known and request.path.split("/")[1] in ("api", "apis", "openapi"):
            return  # whoever is known may read what a server can do
        words = (user.name, request.method.lower(), request.path)
        raise Refused(403, "Forbidden", 'forbidden: User "%s" cannot %s path "%s"' % words, {})

    verb = VERBS.get(request.method, request.method.lower())
    if verb == "get" and not target.name:
        verb = "watch" if target.watch or request.flag("watch") else "list"
    if verb == "delete" and not target.name:
        verb = "deletecollection"
    verbs = [verb]
    # A WebSocket is a GET although it changes things: since 1.35 both rights are asked for.
    if verb == "get" and target.subresource in STREAMED and store.minor >= 35:
        verbs.append("create")
    for needed in verbs:
        _check_right(user, needed, target)


def _check_right(user: User, verb: str, target: Target) -> None:
    resource = target.resource.plural
    if target.subresource:
        resource += "/" + target.subresource
    if user.may(verb, resource):
        return
    where = "at the cluster scope"
    if target.namespace:
        where = 'in the namespace "%s"' % target.namespace
    text = 'User "%s" cannot %s resource "%s" in API group "%s" %s'
    text = text % (user.name, verb, resource, target.resource.group, where)
    raise forbidden(target.resource, target.name, text)


# Where it goes


def target_of(store: Store, group: str, version: str, parts: List[str]) -> Target:
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
    if resource is None or rest or (subresource and subresource not in resource.subresources):
        raise no_such_resource()
    if resource.namespaced != bool(namespace) and (not resource.namespaced or name):
        raise no_such_resource()
    return Target(resource, namespace, name, subresource, watch)


def answer_of(call: Call) -> Handled:
    request, target = call.request, call.target
    if target.resource.group == "metrics.k8s.io":
        return metrics(call)
    if target.resource.plural.endswith("reviews"):
        return review(call)
    if target.subresource:
        return _subresource(call)
    if target.name:
        act = {"GET": get, "PUT": update, "PATCH": patch, "DELETE": delete}.get(request.method)
        if act is None:
            raise not_allowed()
        return act(call)

    if request.method == "GET":
        if target.watch or request.flag("watch"):
            return Watch(call).run
        return list_objects(call)
    if bool(target.namespace) == target.resource.namespaced:
        if request.method == "POST":
            return create(call)
        if request.method == "DELETE":
            return delete_collection(call)
    raise not_allowed()


def _subresource(call: Call) -> Handled:
    name = call.target.subresource
    verb = VERBS.get(call.request.method)
    if verb not in SUBRESOURCE_VERBS.get(name, ["get", "patch", "update"]):
        raise not_allowed()
    if name in ("status", "finalize"):
        return {"get": get, "update": update, "patch": patch}[str(verb)](call)
    if name == "scale":
        return scale(call)
    if name == "eviction":
        return evict(call)
    if name == "token":
        return issue_token(call)
    return pod_stream(call)
