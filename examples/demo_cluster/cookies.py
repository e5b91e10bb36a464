# SPDX-License-Identifier: Apache-2.0
"""Tokens in cookies, as Headlamp has kept them since 0.35: headlamp-auth-<cluster>.<n>."""

import re
from typing import Dict, List, Tuple

from .connections import Request

PIECE = 3800  # bytes of a token in one cookie
LIFETIME = 86400

Headers = Tuple[Tuple[str, str], ...]


def cookie_name(cluster: str, number: int) -> str:
    sanitised = re.sub("[^a-zA-Z0-9_-]", "", cluster)[:50]
    return "headlamp-auth-%s.%d" % (sanitised, number)


def _cookies(request: Request) -> Dict[str, str]:
    """Those of a request; of two with one name the first counts, as in Go."""
    cookies: Dict[str, str] = {}
    for part in re.split("[;,]", request.headers.get("cookie", "")):
        name, equals, value = part.strip().partition("=")
        if equals:
            cookies.setdefault(name, value.strip('"'))
    return cookies


def _pieces(request: Request, cluster: str) -> List[str]:
    cookies = _cookies(request)
    pieces: List[str] = []
    if cookie_name(cluster, 0) != "headlamp-auth-.0":
        while cookie_name(cluster, len(pieces)) in cookies:
            pieces.append(cookies[cookie_name(cluster, len(pieces))])
    return pieces


def token_in_cookies(request: Request, cluster: str) -> str:
    """The token that came for a cluster; "" if none did."""
    return "".join(_pieces(request, cluster))


def clear_cookies(request: Request, cluster: str, base: str, secure: bool) -> Headers:
    """The lines that take away what the request came with."""
    return tuple(
        _line(cluster, number, "", 0, base, secure)
        for number in range(len(_pieces(request, cluster)))
    )


def set_cookies(request: Request, cluster: str, token: str, base: str, secure: bool) -> Headers:
    """The lines that bring a token: first old pieces are cleared, then the new ones come."""
    pieces = [token[at : at + PIECE] for at in range(0, len(token), PIECE)]
    return clear_cookies(request, cluster, base, secure) + tuple(
        _line(cluster, number, piece, LIFETIME, base, secure) for number, piece in enumerate(pieces)
    )


def _line(
    cluster: str, number: int, value: str, age: int, base: str, secure: bool
) -> Tuple[str, str]:
    words = ["%s=%s" % (cookie_name(cluster, number), value)]
    words.append("Path=%s/clusters/%s" % (base, cluster))
    words += ["Max-Age=%d" % age, "HttpOnly"] + (["Secure"] if secure else [])
    return "Set-Cookie", "; ".join(words + ["SameSite=Strict"])
