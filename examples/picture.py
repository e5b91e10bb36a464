#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run a program in a terminal and print what it showed as a moving picture (SVG).

    python3 examples/picture.py >examples/live_table.svg
    python3 examples/picture.py PROGRAM ARGUMENTS... >picture.svg

Without a program: watch_pods.py on the demo cluster for twelve seconds, a frame for each. Needs a
system with pseudo-terminals.
"""

import argparse
import contextlib
import fcntl
import html
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from typing import Iterator, List

COLUMNS, LINES = 86, 18
CELL, LINE = 8.43, 19  # pixels, of a monospace font of 14
CLEAR = "\033[H\033[J"  # what begins a new screen
SHADES = {"2": "#7a8599", "1": "#ffffff", "31": "#ff6b6b", "32": "#5bd68a", "33": "#f2c14e",
          "34": "#6ea8fe", "35": "#d59bf6", "36": "#57d0e0"}
HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = [sys.executable, os.path.join(HERE, "watch_pods.py")]

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="%(width)d" height="%(height)d">
<title>%(title)s</title>
<style>
text { font: 14px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #dde3ee;
  white-space: pre }
g { opacity: 0; animation: show %(seconds).1fs step-end infinite }
g:last-of-type { opacity: 1 }
@keyframes show { 0%% { opacity: 1 } %(share).2f%% { opacity: 0 } }
@media (prefers-reduced-motion) { g { animation: none } }
</style>
<rect width="100%%" height="100%%" rx="8" fill="#10141c"/>
<circle cx="20" cy="18" r="5" fill="#ff6b6b"/><circle cx="38" cy="18" r="5" fill="#f2c14e"/>
<circle cx="56" cy="18" r="5" fill="#5bd68a"/>
<text x="80" y="23" style="fill: #7a8599">%(title)s</text>
%(frames)s</svg>
"""


def screens(command: List[str], seconds: float) -> Iterator[str]:
    """What a terminal in which `command` runs shows, each second."""
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background has it ignored
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES + 1, COLUMNS, 0, 0))
    came, tick, end = "", time.monotonic() + 1, time.monotonic() + seconds

    with contextlib.suppress(OSError):  # the program has ended
        while time.monotonic() < end:
            if select.select([terminal], [], [], max(0.0, tick - time.monotonic()))[0]:
                came += os.read(terminal, 65536).decode("utf-8", "replace")
            elif CLEAR in came:
                tick += 1
                came = came[came.rindex(CLEAR):]
                yield came[len(CLEAR):]
    os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)
    os.close(terminal)


def line_of(text: str, row: int) -> str:
    """A line with its colours, as SVG."""
    spans: List[str] = []
    column = 0
    for shade, part in re.findall(r"\033\[(\d+)m([^\033]*)|$", "\033[0m" + text):
        part = part[:COLUMNS - column]
        if part.strip():
            fill = ' fill="%s"' % SHADES[shade] if shade in SHADES else ""
            spans.append('<tspan x="%.1f"%s>%s</tspan>' % (
                20 + column * CELL, fill, html.escape(part)))
        column += len(part)
    return '<text y="%d">%s</text>\n' % (56 + row * LINE, "".join(spans))


def picture(title: str, frames: List[str]) -> str:
    """An SVG of these screens, one after the other, a second each."""
    groups: List[str] = []
    for number, screen in enumerate(frames):
        lines = screen.replace("\r", "").split("\n")[:LINES]
        text = "".join(line_of(line, row) for row, line in enumerate(lines) if line)
        delay = number - len(frames)  # in the past: all of them run from the beginning
        groups.append('<g style="animation-delay: %ds">\n%s</g>\n' % (delay, text))
    return SVG % {
        "title": html.escape(title), "frames": "".join(groups), "seconds": len(frames),
        "share": 100 / len(frames), "width": 40 + COLUMNS * CELL, "height": 60 + LINES * LINE}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.5, help="default: %(default)s")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM ARGUMENTS...")
    args = parser.parse_args()
    command = args.command or TABLE
    frames = list(screens(command, args.seconds))
    if not frames:
        sys.exit("picture.py: %s drew nothing" % command[0])
    title = "python3 examples/watch_pods.py" if command is TABLE else " ".join(command)
    print(picture(title, frames), end="")


if __name__ == "__main__":
    main()
