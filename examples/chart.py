#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The first table that benchmark.py printed, as a picture (SVG) with both scales logarithmic.

    python3 examples/benchmark.py --growth --only list --peers DIR >growth.txt
    python3 examples/chart.py growth.txt >examples/growth.svg
"""

import argparse
import html
import math
import re
from typing import Dict, List, Tuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 380, 60, 130, 50, 40
SHADES = {"floor": "#7a8599", "apiproxy": "#1a9d52"}
OTHERS = ("#c23b3b", "#d08a1d", "#3c6fd1", "#8e4ec6", "#1793a5")
Points = List[Tuple[float, float]]

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">
<title>%s</title>
<style>text { font: 13px system-ui, sans-serif; fill: #333 } .line { fill: none }</style>
<rect width="100%%" height="100%%" rx="8" fill="#fbfcfe"/>
<text x="20" y="28" style="font-size: 15px; font-weight: 600">%s</text>
%s</svg>
"""


def read(text: str) -> Tuple[str, Dict[str, Points]]:
    """The title of a table, and the points of each of its columns."""
    title, heads, body = re.findall(
        r"^([^|\n]+: [^|\n]+)\n\n\|([^\n]+)\|\n\|[ -|]+\n((?:\|[^\n]+\n)+)", text, re.M)[0]
    names = [name.strip() for name in heads.split("|")]
    lines: Dict[str, Points] = {name: [] for name in names[1:-1]}
    for row in body.splitlines():
        cells = [cell.strip().replace(",", "") for cell in row.strip("|").split("|")]
        for name, cell in zip(names[1:-1], cells[1:-1]):
            if re.fullmatch(r"[\d.]+", cell):
                lines[name].append((float(cells[0]), float(cell)))
    return title, {name: points for name, points in lines.items() if points}


def steps(values: List[float]) -> List[float]:
    """The powers of ten from below the least value to above the largest."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0 ** power for power in range(first, last + 1)]


def picture(title: str, lines: Dict[str, Points]) -> str:
    """The chart."""
    across = steps([x for points in lines.values() for x, _ in points])
    up = steps([y for points in lines.values() for _, y in points])

    def place(value: float, scale: List[float], start: float, end: float) -> float:
        part = math.log10(value / scale[0]) / math.log10(scale[-1] / scale[0])
        return start + part * (end - start)

    def x_of(value: float) -> float:
        return place(value, across, LEFT, WIDTH - RIGHT)

    def y_of(value: float) -> float:
        return place(value, up, HEIGHT - BOTTOM, TOP)

    parts: List[str] = []
    for value in up:
        parts.append('<path d="M%d %.1fH%d" stroke="#dde3ee"/><text x="%d" y="%.1f" '
                     'text-anchor="end">%s</text>' % (LEFT, y_of(value), WIDTH - RIGHT, LEFT - 8,
                                                      y_of(value) + 4, "{:,.0f}".format(value)))
    for value in across:
        parts.append('<text x="%.1f" y="%d" text-anchor="middle">%s</text>' % (
            x_of(value), HEIGHT - 16, "{:,.0f}".format(value)))

    others = iter(OTHERS)
    below = 0.0  # so that labels don't cover each other
    for name, points in sorted(lines.items(), key=lambda line: line[1][-1][1]):
        shade = SHADES.get(name) or next(others)
        path = " ".join("%.1f,%.1f" % (x_of(x), y_of(y)) for x, y in points)
        end_x, end_y = x_of(points[-1][0]), y_of(points[-1][1])
        below = min(end_y, below - 15) if below else end_y
        parts.append('<polyline class="line" stroke="%s" stroke-width="%s" points="%s"/>' % (
            shade, 3.5 if name == "apiproxy" else 1.8, path))
        parts.append('<text x="%.1f" y="%.1f" style="fill: %s">%s</text>' % (
            end_x + 8, below + 4, shade, html.escape(name)))
    title = html.escape(title)
    return SVG % (WIDTH, HEIGHT, title, title, "\n".join(parts) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="what benchmark.py --growth printed")
    args = parser.parse_args()
    with open(args.file, encoding="utf-8") as file:
        print(picture(*read(file.read())), end="")


if __name__ == "__main__":
    main()
