#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What type checkers can't see: usage.py uses every public name, and each tells what it takes.

    python .ci/check_types.py

- every name of `__all__`, and every public method of its classes, is used in usage.py
- typing.get_type_hints works on each, on this Python
- inspect.signature(Client) shows every setting, with its default

Exit status 1, with what is wrong, else.
"""

import ast
import inspect
import os
import sys
import typing

CI = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(CI))

import apiproxy  # noqa: E402

ALIASES = ("StreamResultsCb", "StreamErrCb")  # types that are no classes
NOT_CALLED = ("start", "join", "forked", "pages", "take_json")  # they are not for users


def used_names():
    """Every name and attribute in usage.py."""
    with open(os.path.join(CI, "usage.py"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names | {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}


def public_methods(kind):
    """The functions of a class that users call, by name."""
    if getattr(kind, "__total__", None) is not None:  # a TypedDict: they are dict's
        return {}
    members = inspect.getmembers(kind, lambda value: inspect.isroutine(value))
    return {
        name: value for name, value in members
        if not name.startswith("_") and getattr(value, "__module__", None) == apiproxy.__name__}


def hints_of(value):
    """"" where type hints can be had, else why not."""
    try:
        typing.get_type_hints(value)
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)
    return ""


def check_name(name, used):
    """What is wrong with a public name."""
    value = getattr(apiproxy, name)
    wrong = [] if name in used else ["usage.py does not use %s" % name]
    if name in ALIASES:
        return wrong

    parts = {name: value}
    if inspect.isclass(value):
        methods = public_methods(value)
        parts.update({"%s.%s" % (name, method): methods[method] for method in methods})
        if "__init__" in vars(value):
            parts[name + ".__init__"] = value.__init__
        is_error = issubclass(value, Exception)
        wrong += ["usage.py does not use %s.%s" % (name, method) for method in methods
                  if method not in used and method not in NOT_CALLED and not is_error]
    for part, thing in parts.items():
        why = hints_of(thing)
        if why:
            wrong.append("get_type_hints(%s): %s" % (part, why))
    return wrong


def check_settings():
    """What inspect.signature(Client) lacks."""
    shown = inspect.signature(apiproxy.Client).parameters
    settings = typing.get_type_hints(apiproxy.Settings)
    wrong = ["signature(Client) does not show %s" % name for name in settings if name not in shown]
    return wrong + [
        "signature(Client) has no default for %s" % name for name in settings
        if name in shown and shown[name].default is inspect.Parameter.empty]


def main():
    """Print what is wrong; the exit status."""
    used = used_names()
    wrong = [text for name in apiproxy.__all__ for text in check_name(name, used)]
    wrong += check_settings()
    for text in wrong:
        print(text)
    print("types: %d public names, %d wrong" % (len(apiproxy.__all__), len(wrong)))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
