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

_LABEL_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)")
_LABEL_KEY = re.compile(r"(?:[a-z0-9.-]+/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")


def label_selector(text: str) -> Selector:
    """Of a labelSelector: a=b, a==b, a!=b, a in (b,c), a notin (b), a, !a, a>1, a<1."""
    tokens = [match.group(1) for match in _LABEL_TOKEN.finditer(text)] + [""]
    position = 0
    tests: List[Callable[[Dict[str, str]], bool]] = []

    def take() -> str:
        nonlocal position
        token = tokens[position]
        position = min(position + 1, len(tokens) - 1)
        return token

    def key() -> str:
        token = take()
        if token in ("=", "==", "!=", "!", ",", "(", ")", "<", ">", ""):
            raise bad_request(
                "unable to parse requirement: found '%s', expected: identifier" % token
            )
        if not _LABEL_KEY.fullmatch(token):
            raise bad_request(
                "unable to parse requirement: invalid label key %s: name part must consist of"
                " alphanumeric characters, '-',"
                " '_' or '.', and must start and end with an alphanumeric character (e.g."
                " 'MyName',  or 'my.name',  or"
                " '123-abc', regex used for validation is"
                " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')" % json.dumps(token)
            )
        return token

    def value() -> str:
        if tokens[position] in (",", ""):
            return ""  # "a=" asks for the empty value
        token = take()
        if token in ("=", "==", "!=", "!", "(", ")", "<", ">"):
            raise bad_request(
                "unable to parse requirement: found '%s', expected: identifier" % token
            )
        return token

    def values() -> Set[str]:
        token = take()
        if token != "(":
            raise bad_request("unable to parse requirement: found '%s' expected: '('" % token)
        found: Set[str] = set()
        while True:
            found.add(value() if tokens[position] != ")" else "")
            token = take()
            if token == ")":
                return found
            if token != ",":
                raise bad_request(
                    "unable to parse requirement: found '%s', expected: ',' or ')'" % token
                )

    def number(text: str) -> float:
        try:
            return int(text)
        except ValueError:
            return math.nan  # compares false with everything

    def requirement() -> Callable[[Dict[str, str]], bool]:
        if tokens[position] == "!":
            take()
            absent = key()
            return lambda labels: absent not in labels
        name = key()
        if tokens[position] in (",", ""):
            return lambda labels: name in labels
        operator = take()
        if operator in ("=", "=="):
            wanted = value()
            return lambda labels: labels.get(name) == wanted
        if operator == "!=":
            unwanted = value()
            return lambda labels: labels.get(name) != unwanted
        if operator in ("in", "notin"):
            some, inside = values(), operator == "in"
            return lambda labels: (labels.get(name) in some) == inside
        if operator in ("<", ">"):
            sign, bound = (1 if operator == ">" else -1), number(value())
            return lambda labels: (number(labels.get(name, "")) - bound) * sign > 0
        raise bad_request(
            "unable to parse requirement: found '%s', expected: '=', '!=', '==', 'in', notin'"
            % operator
        )

    while tokens[position] != "":
        if tokens[position] in (",", ")", "(", "=", "==", "!=", "<", ">"):
            raise bad_request(
                "found '%s', expected: !, identifier, or 'end of string'" % tokens[position]
            )
        tests.append(requirement())
        if tokens[position] == "":
            break
        separator = take()
        if separator != ",":
            raise bad_request("found '%s', expected: ',' or 'end of string'" % separator)
        if tokens[position] == "":
            raise bad_request("found '', expected: identifier after ','")
    return lambda body: all(test(dig(body, "metadata", "labels") or {}) for test in tests)


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
