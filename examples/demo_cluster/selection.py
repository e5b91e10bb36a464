# SPDX-License-Identifier: Apache-2.0
"""labelSelector and fieldSelector: text in, a function out that says whether an object is meant."""

import json
import math
import re
from typing import Any, Callable, Dict, List, Set

from .refusals import bad_request
from .resources import Resource
from .values import Object, dig

Selector = Callable[[Object], bool]

LabelTest = Callable[[Dict[str, str]], bool]

SIGNS = ("=", "==", "!=", "!", ",", "(", ")", "<", ">")
BAD_KEY = (
    "unable to parse requirement: invalid label key %s: name part must consist of alphanumeric"
    " characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g."
    " 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)")
_LABEL_KEY = re.compile(r"(?:[a-z0-9.-]+/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")


def label_selector(text: str) -> Selector:
    """Of a labelSelector: a=b, a==b, a!=b, a in (b,c), a notin (b), a, !a, a>1, a<1."""
    tests = _LabelSelector(text).tests()
    return lambda body: all(test(dig(body, "metadata", "labels") or {}) for test in tests)


class _LabelSelector:
    """The words of one selector, taken one after the other."""

    def __init__(self, text: str) -> None:
        self._words = [match.group(1) for match in _LABEL_TOKEN.finditer(text)] + [""]
        self._position = 0

    @property
    def _next(self) -> str:
        return self._words[self._position]

    def _take(self) -> str:
        word = self._next
        self._position = min(self._position + 1, len(self._words) - 1)
        return word

    def tests(self) -> List[LabelTest]:
        tests = []
        while self._next:
            if self._next in SIGNS and self._next != "!":
                text = "found '%s', expected: !, identifier, or 'end of string'"
                raise bad_request(text % self._next)
            tests.append(self._requirement())
            if not self._next:
                break
            separator = self._take()
            if separator != ",":
                text = "found '%s', expected: ',' or 'end of string'" % separator
                raise bad_request(text)
            if not self._next:
                raise bad_request("found '', expected: identifier after ','")
        return tests

    def _requirement(self) -> LabelTest:
        if self._next == "!":
            self._take()
            absent = self._key()
            return lambda labels: absent not in labels
        name = self._key()
        if self._next in (",", ""):
            return lambda labels: name in labels

        operator = self._take()
        if operator in ("=", "=="):
            wanted = self._value()
            return lambda labels: labels.get(name) == wanted
        if operator == "!=":
            unwanted = self._value()
            return lambda labels: labels.get(name) != unwanted
        if operator in ("in", "notin"):
            values, inside = self._values(), operator == "in"
            return lambda labels: (labels.get(name) in values) == inside
        if operator in ("<", ">"):
            sign, bound = (1 if operator == ">" else -1), _number(self._value())
            return lambda labels: (_number(labels.get(name, "")) - bound) * sign > 0
        text = "unable to parse requirement: found '%s', expected: '=', '!=', '==', 'in', notin'"
        raise bad_request(text % operator)

    def _key(self) -> str:
        word = self._take()
        if word in SIGNS or not word:
            text = "unable to parse requirement: found '%s', expected: identifier" % word
            raise bad_request(text)
        if not _LABEL_KEY.fullmatch(word):
            raise bad_request(BAD_KEY % json.dumps(word))
        return word

    def _value(self) -> str:
        if self._next in (",", ""):
            return ""  # "a=" asks for the empty value
        word = self._take()
        if word in SIGNS:
            text = "unable to parse requirement: found '%s', expected: identifier" % word
            raise bad_request(text)
        return word

    def _values(self) -> Set[str]:
        word = self._take()
        if word != "(":
            text = "unable to parse requirement: found '%s' expected: '('" % word
            raise bad_request(text)
        values: Set[str] = set()
        while True:
            values.add(self._value() if self._next != ")" else "")
            word = self._take()
            if word == ")":
                return values
            if word != ",":
                text = "unable to parse requirement: found '%s', expected: ',' or ')'" % word
                raise bad_request(text)


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return math.nan  # compares false with everything


# The fields beyond metadata.name and metadata.namespace that can be selected on.
FIELDS = {
    (
        "",
        "pods",
    ): (
        "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName"
        " status.phase status.podIP"
    ),
    (
        "",
        "events",
    ): "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid"
    " involvedObject.fieldPath reason reportingComponent source type",
    ("", "nodes"): "spec.unschedulable",
    ("", "namespaces"): "status.phase",
    ("", "secrets"): "type",
}


def field_selector(text: str, resource: Resource) -> Selector:
    """The function for a fieldSelector: name=value, ==, !=, joined by commas."""
    tests = []
    for term in filter(None, text.split(",")):
        match = re.match(r"(.*?)(!=|==|=)(.*)", term)
        if match is None:
            raise bad_request("invalid selector: '%s'; can't understand '%s'" % (text, term))
        field, operator, value = match.groups()
        if (
            field
            not in ["metadata.name", "metadata.namespace"]
            + FIELDS.get(resource.storage, "").split()
        ):
            if resource.custom or resource.storage in FIELDS:
                raise bad_request("field label not supported: " + field)
            only = '"%s" is not a known field selector: only "metadata.name", "metadata.namespace"'
            raise bad_request(only % field)
        tests.append((field.split("."), operator != "!=", value))

    def text_of(found: Any) -> str:
        if found is None:
            return ""
        return str(found).lower() if isinstance(found, bool) else str(found)

    return lambda body: all(
        (text_of(dig(body, *path)) == value) == equal for path, equal, value in tests
    )
