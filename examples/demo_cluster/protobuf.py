# SPDX-License-Identifier: Apache-2.0
"""Protobuf into the JSON that it stands for: `kubectl create` sends nothing else.

Only what schema.py knows is read, and nothing is ever written: every client takes JSON.
"""

import base64
from typing import Any, Iterator, Tuple, Union

from .schema import MESSAGES, Field
from .values import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


def decode_protobuf(data: bytes) -> Object:
    """The object in the body of a request. ValueError if it is none."""
    if not data.startswith(MAGIC):
        raise ValueError("provided data does not appear to be a protobuf message")

    head: Object = {}
    raw = b""
    for number, value in _fields(data[len(MAGIC) :]):
        if number == 1 and isinstance(value, bytes):
            words = dict(_fields(value))
            head = {"apiVersion": _text(words.get(1)), "kind": _text(words.get(2))}
        elif number == 2 and isinstance(value, bytes):
            raw = value
    return dict(head, **_message(head.get("kind", ""), raw))


def _varint(data: bytes, at: int) -> Tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("unexpected EOF")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[Tuple[int, Union[int, bytes]]]:
    """Number and value of each field; a value is an integer or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue

        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError("proto: illegal wireType %d" % kind)
        if at + size > len(data):
            raise ValueError("unexpected EOF")
        yield number, data[at : at + size]
        at += size


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def _message(name: str, data: bytes) -> Object:
    fields = {field.number: field for field in MESSAGES.get(name, [])}
    result: Object = {}
    for number, raw in _fields(data):
        field = fields.get(number)
        if field is None or field.type == "~":
            continue
        value = _value(field.type, raw)
        if not field.name:
            result.update(value)
        elif field.type.startswith("{"):
            result.setdefault(field.name, {}).update(value)
        elif field.repeated:
            result.setdefault(field.name, []).append(value)
        elif _counts(field, value):
            result[field.name] = value
    return result


def _counts(field: Field, value: Any) -> bool:
    """Whether JSON would show it: what is not optional is sent although it is zero."""
    return field.optional or value not in ("", 0, False, {})


def _value(kind: str, raw: Union[int, bytes]) -> Any:
    if isinstance(raw, int):
        return bool(raw) if kind == "o" else raw - (1 << 64) if raw >> 63 else raw
    if kind.startswith("{"):
        entry = dict(_fields(raw))
        key, value = _text(entry.get(1)), entry.get(2, b"")
        return {key: _value(kind.strip("{}") or "s", value)}
    if kind == "b":
        return base64.b64encode(raw).decode()
    if kind == "s":
        return raw.decode()

    if kind == "Quantity":
        return _text(dict(_fields(raw)).get(1))
    if kind == "IntOrString":
        parts = dict(_fields(raw))
        return _text(parts.get(3)) if parts.get(1) else parts.get(2, 0)
    return _message(kind, raw)
