# SPDX-License-Identifier: Apache-2.0
"""Chance: what is legal after an accident, and the pieces in which it may arrive.

Every function takes `chance`, a random.Random, and uses it in the same order each time: a case is
made again from its seed and number alone.
"""

import re

NUMBERS = [
    b"0", b"1", b"-1", b"+5", b" 5", b"007", b"1_0", b"0x10", b"99", b"101", b"200", b"204", b"304",
    b"410", b"503", b"4294967296", b"9223372036854775808", b"1e5", b"1.5", b"", b"9" * 30,
    b"9" * 5000, "٣".encode(), b"NaN",
]


def pick(chance, values):
    """chance.choice, faster."""
    return values[int(chance.random() * len(values))]


def mutate(chance, data, evil, other=b""):
    """`data` after a few accidents.

    evil    values known to make trouble
    other   something to splice in
    """
    rand, out = chance.random, bytearray(data)
    for _ in range(1 if rand() < 0.6 else 1 + int(rand() * 5)):
        _accident(rand, out, evil, other)
    return bytes(out)


def _accident(rand, out, evil, other):
    at = int(rand() * (len(out) + 1))
    size = (1, 1, 1, 2, 4, 9, 40)[int(rand() * 7)]
    how = int(rand() * 10)

    if how == 0 and at < len(out):
        out[at] ^= 1 << int(rand() * 8)
    elif how == 1 and at < len(out):
        out[at] = int(rand() * 256)
    elif how == 2:
        piece = evil[int(rand() * len(evil))]
        out[at:at + len(piece)] = piece
    elif how == 3:
        out[at:at] = evil[int(rand() * len(evil))]
    elif how == 4:
        del out[at:at + size]
    elif how == 5:
        out[at:at] = out[at:at + size] * (1 if rand() < 0.9 else 50)
    elif how == 6:
        del out[at:]
    elif how == 7:
        out[at:] = other[int(rand() * (len(other) + 1)):]
    elif how == 8:
        piece = out[at:at + size]
        del out[at:at + size]
        into = int(rand() * (len(out) + 1))
        out[into:into] = piece
    else:
        _other_number(rand, out)


def _other_number(rand, out):
    numbers = list(re.finditer(rb"\d+", out))
    if numbers:
        number = numbers[int(rand() * len(numbers))]
        out[number.start():number.end()] = NUMBERS[int(rand() * len(NUMBERS))]


def pieces(chance, data):
    """`data` as it may arrive: whole, byte by byte, or cut anywhere."""
    rand = chance.random
    kind = rand()
    if kind < 0.4 or len(data) < 2:
        return [data]
    if kind < 0.5 and len(data) < 400:
        return [data[at:at + 1] for at in range(len(data))]

    cuts = sorted(int(rand() * len(data)) for _ in range(1 + int(rand() * 6)))
    parts = (data[start:end] for start, end in zip([0] + cuts, cuts + [len(data)]))
    return [part for part in parts if part]
