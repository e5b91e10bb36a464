# SPDX-License-Identifier: Apache-2.0
"""Lists: Response.pages gives the items that json.loads finds, however cut, or an ApiError."""

import json

import apiproxy

from .chance import mutate, pick, pieces
from .outcome import Wrong

TEXTS = (
    "metadata", "items", "kind", "name", "spec", '"},{"metadata":', '},{"metadata":', '"items":[',
    '\\"', "é", "\u2028", "😀", "}],", "[{", "a",
)
EVIL_LISTS = [text.encode() for text in TEXTS] + [
    b"{}", b"[]", b"]}", b"}", b",", b'"', b"null", b"\xff", b'"items":[],', b"\xef\xbb\xbf", b" ",
]
PARTS = (1, 7, 50, 200, 1000, 65536)


class Twice(ValueError):
    """An object has a key twice: what it says is anybody's guess (RFC 8259 4)."""


# -- making them


def _some_value(chance, depth):
    how = chance.random()
    if depth == 0 or how < 0.4:
        text = "x" * pick(chance, range(50))
        return pick(chance, (1, None, True, 1.5, pick(chance, TEXTS), text))
    if how < 0.7:
        return {pick(chance, TEXTS): _some_value(chance, depth - 1)
                for _ in range(pick(chance, range(4)))}
    return [_some_value(chance, depth - 1) for _ in range(pick(chance, range(4)))]


def _some_item(chance, number):
    rand, item = chance.random, {}
    if rand() < 0.3:
        item["apiVersion"] = "v1"
    if rand() < 0.3:
        item["kind"] = "Thing"
    if rand() < 0.97:
        item["metadata"] = {"name": "thing-%d" % number}
    if rand() < 0.3:
        item["metadata"] = {"items": _some_value(chance, 2)}
    for _ in range(pick(chance, range(3))):
        item[pick(chance, TEXTS)] = _some_value(chance, 3)
    return item


def some_list(chance):
    """A list as servers write it, or with its keys in another order, or with odd ones."""
    rand = chance.random
    parts = [
        ("kind", "ThingList"), ("apiVersion", "v1"), ("metadata", {"resourceVersion": "5"}),
        ("items", [_some_item(chance, number) for number in range(pick(chance, range(40)))]),
        ("more", _some_value(chance, 3)),
    ]
    if rand() < 0.2:
        parts[2] = "metadata", {"items": _some_value(chance, 2)}
    if rand() < 0.3:
        chance.shuffle(parts)
    value = dict(part for part in parts if part[0] == "items" or rand() < 0.85)
    separators = (",", ":") if rand() < 0.9 else None
    return json.dumps(value, ensure_ascii=rand() < 0.5, separators=separators).encode()


# -- judging them


def _once(pairs):
    value = dict(pairs)
    if len(value) < len(pairs):
        raise Twice
    return value


def judge(data):
    """The list, None if it is none."""
    try:
        value = json.loads(data, object_pairs_hook=_once)
    except Twice:
        raise
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# -- a case


def case(chance):
    """One case of Response.pages, and of take_json for the same body."""
    data = some_list(chance)
    if chance.random() < 0.4:
        data = mutate(chance, data, EVIL_LISTS, some_list(chance))
    blocks, size = pieces(chance, data) or [b""], pick(chance, PARTS)
    try:
        expected = judge(data)
    except Twice:
        return "a key twice"

    try:
        pages = list(apiproxy.Response(200, "OK", {}, list(blocks)).pages(size))
        got = pages[-1]
        if len(pages) > 1:
            got = {**got, "items": [item for page in pages for item in page["items"]]}
    except apiproxy.ApiError:
        pages, got = [], None
    if got != expected:
        raise Wrong("%r in parts of %d is %r" % (data, size, got))

    if expected is not None:
        body = list(blocks) if len(blocks) > 1 else blocks[0]
        if apiproxy.Response(200, "OK", {}, body).take_json() != expected:
            raise Wrong("%r is taken for something else" % data)
    return "refused" if not pages else "whole" if len(pages) == 1 else "in parts"
