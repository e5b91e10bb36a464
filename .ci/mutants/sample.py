# SPDX-License-Identifier: Apache-2.0
"""Mutants by chance: one small change each, somewhere in the functions of the module.

A comparison is turned, `and` becomes `or`, a condition is negated, a number is one more, a
statement is left out, or None is returned. What is drawn depends on the seed and on the code at the
place, so that a change of the module elsewhere draws no others. Needs Python 3.9.
"""

import ast
import collections
import hashlib
from typing import NamedTuple

DEFAULT_TESTS = "the default tests"

TURNED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}

# What may survive, since no caller could see it, and why.
EQUAL = {}


class Change(NamedTuple):
    """What it is, where (in bytes), and what stands there instead."""

    what: str
    start: int
    end: int
    new: str
    notices = (DEFAULT_TESTS,)

    def apply(self, text):
        """The module with it."""
        data = text.encode()
        return (data[:self.start] + self.new.encode() + data[self.end:]).decode()


def changed(node):
    """The part of a node that changes, and what it becomes; None for a node that stays."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in TURNED:
        turned = TURNED[type(node.ops[0])]()
        return node, ast.Compare(node.left, [turned] + node.ops[1:], node.comparators)
    if isinstance(node, ast.BoolOp):
        other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        return node, ast.BoolOp(other, node.values)
    if isinstance(node, (ast.If, ast.While)) and not isinstance(node.test, ast.Constant):
        return node.test, ast.UnaryOp(ast.Not(), node.test)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node, ast.Constant(node.value + 1)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return node, ast.Pass()
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
        return node, ast.Pass()
    if isinstance(node, ast.Return) and not isinstance(node.value, (ast.Constant, type(None))):
        return node.value, ast.Constant(None)
    return None


def changes(text):
    """Every Change to the functions of a text."""
    begins = [0]  # of each line, in bytes: what a node's columns are in
    for line in text.encode().splitlines(True):
        begins.append(begins[-1] + len(line))
    seen = collections.Counter()
    found = []

    def visit(node, names, inside):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names, inside = names + [node.name], inside or isinstance(node, ast.FunctionDef)
        change = changed(node) if inside else None
        if change:
            part, instead = change
            new = ast.unparse(instead)
            if isinstance(instead, ast.expr):
                new = "(%s)" % new
            what = "%s: %s -> %s" % (".".join(names), ast.unparse(part), new)
            seen[what] += 1
            if seen[what] > 1:
                what += " (%d)" % seen[what]
            found.append(Change(what, begins[part.lineno - 1] + part.col_offset,
                                begins[part.end_lineno - 1] + part.end_col_offset, new))
        for child in ast.iter_child_nodes(node):
            visit(child, names, inside)

    visit(ast.parse(text), [], False)
    return found


def draw(text, count, seed):
    """So many of them, by name."""
    def chance(change):
        return hashlib.sha256(("%d %s" % (seed, change.what)).encode()).digest()

    drawn = sorted(changes(text), key=chance)[:count]
    return {"%d-%d" % (seed, number): change for number, change in enumerate(drawn, 1)}
