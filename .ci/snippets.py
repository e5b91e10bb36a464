#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python of a README as one program, for type checkers.

    python .ci/snippets.py README.md >readme.py
"""

import re
import sys


def main():
    """Print it."""
    with open(sys.argv[1], encoding="utf-8") as file:
        blocks = re.findall(r"^```python\n(.*?)^```", file.read(), re.M | re.S)
    lines = "\n".join(blocks).splitlines()
    kept = [line for place, line in enumerate(lines)  # each import once
            if not line.startswith("import ") or line not in lines[:place]]
    print("# pyright: strict\n\n" + "\n".join(kept))


if __name__ == "__main__":
    main()
