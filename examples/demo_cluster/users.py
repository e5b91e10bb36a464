# SPDX-License-Identifier: Apache-2.0
"""Who asks, and whether they may."""

import base64
import re
import time
from typing import Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from .connections import Request
from .refusals import Refused

BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."


class User(NamedTuple):
    """A name, and the verbs that it may use: "get", or "get pods/exec"; None for all."""

    name: str
    verbs: Optional[Tuple[str, ...]] = None

    def may(self, verb: str, resource: str) -> bool:
        return self.verbs is None or verb in self.verbs or verb + " " + resource in self.verbs


ADMIN, ANONYMOUS = User("admin"), User("system:anonymous", ())


def unauthorized() -> Refused:
    return Refused(401, "Unauthorized", "Unauthorized")


class Keys(NamedTuple):
    """The tokens that a cluster takes."""

    accepted: Optional[Set[str]]  # None takes everybody
    rights: Dict[str, Iterable[str]]  # the verbs of those that may not do everything
    issued: Dict[str, float]  # made by TokenRequest, until when

    def user(self, token: str) -> User:
        """Whose token it is; Refused if nobody's."""
        if token in self.rights:
            return User("viewer", tuple(self.rights[token]))
        if self.accepted is None or token in self.accepted:
            return ADMIN
        if self.issued.get(token, 0) > time.time():
            return ADMIN
        raise unauthorized()


def authenticate(request: Request, keys: Keys) -> Tuple[User, List[str]]:
    """The user, and the subprotocols without the one that carried the token."""
    protocols = request.protocols
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        # A token among the subprotocols as well stays there, and is one too many.
        return keys.user(token.strip()), protocols

    carried = [protocol for protocol in protocols if protocol.startswith(BEARER_PROTOCOL)]
    if request.upgrades and carried and carried != [BEARER_PROTOCOL]:
        others = [protocol for protocol in protocols if protocol not in carried]
        token = _decoded(carried[0][len(BEARER_PROTOCOL) :])
        if len(carried) > 1 or not others or not token:
            raise unauthorized()
        return keys.user(token), others

    return (ADMIN if keys.accepted is None else ANONYMOUS), protocols


def _decoded(text: str) -> str:
    """A token as the subprotocol carries it; "" if it is none."""
    if not re.fullmatch("[A-Za-z0-9_-]+", text):
        return ""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return ""
