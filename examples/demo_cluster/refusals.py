# SPDX-License-Identifier: Apache-2.0
"""The Status objects that a refused request gets.

The texts are the API server's own, checked against it: clients match on them.
"""

from typing import Any, List, NamedTuple, Optional

from .resources import Resource
from .values import Object


class Refused(Exception):
    """The request is answered with this Status."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Optional[Object] = None,
        metadata: Optional[Object] = None,
    ):
        super().__init__(code, message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata or {},
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = details
        self.status["code"] = code


class PageNotFound(Exception):
    """`404 page not found`, as text: what Go's router says, not what Kubernetes says."""


def details_of(resource: Resource, name: str = "", **more: Any) -> Object:
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    return dict({key: value for key, value in details.items() if value}, **more)


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def no_such_resource() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource", {})


def not_allowed() -> Refused:
    return Refused(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        {},
    )


def not_found(resource: Resource, name: str, subresource: str = "") -> Refused:
    if subresource:
        resource = resource._replace(plural=resource.plural + "/" + subresource)
    return Refused(
        404,
        "NotFound",
        '%s "%s" not found' % (resource.qualified, name),
        details_of(resource, name),
    )


def already_exists(resource: Resource, name: str, going: bool = False) -> Refused:
    text = '%s "%s" already exists' % (resource.qualified, name)
    if going:
        text = "object is being deleted: " + text
    return Refused(409, "AlreadyExists", text, details_of(resource, name))


def conflict(resource: Resource, name: str, why: str) -> Refused:
    message = 'Operation cannot be fulfilled on %s "%s": %s' % (resource.qualified, name, why)
    return Refused(409, "Conflict", message, details_of(resource, name))


MODIFIED_MEANWHILE = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def forbidden(
    resource: Resource, name: str, why: str, causes: Optional[List[Object]] = None
) -> Refused:
    about = '%s "%s"' % (resource.qualified, name) if name else resource.qualified
    details = details_of(resource, name, **({"causes": causes} if causes else {}))
    return Refused(403, "Forbidden", "%s is forbidden: %s" % (about, why), details)


class Cause(NamedTuple):
    """One thing wrong with an object that parsed."""

    field: str
    message: str

    @property
    def reason(self) -> str:
        for text, reason in (
            ("Required", "FieldValueRequired"),
            ("Unsupported", "FieldValueNotSupported"),
            ("Forbidden", "FieldValueForbidden"),
        ):
            if self.message.startswith(text):
                return reason
        return "FieldValueInvalid"


def invalid(group: str, kind: str, name: str, causes: List[Cause]) -> Refused:
    details: Object = {"name": name, "group": group, "kind": kind}
    details = {key: value for key, value in details.items() if value}
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes
    ]
    texts = list(dict.fromkeys("%s: %s" % (cause.field, cause.message) for cause in causes))
    text = texts[0] if len(texts) == 1 else "[%s]" % ", ".join(texts)
    return Refused(
        422,
        "Invalid",
        '%s "%s" is invalid: %s' % (kind + "." + group if group else kind, name, text),
        details,
    )


def expired(message: str, metadata: Optional[Object] = None) -> Refused:
    return Refused(410, "Expired", message, metadata=metadata)


CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can"
    " start a new list without the"
    " continue parameter, or use the continue token in this response to retrieve the remainder"
    " of the results. Continuing"
    " with the provided token results in an inconsistent list - objects that were created,"
    " modified, or deleted between the"
    " time the first chunk was returned and now may show up in the list."
)
