# SPDX-License-Identifier: Apache-2.0
"""The command line: see __init__.py."""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import fuzz  # noqa: E402
from fuzz.campaign import campaign  # noqa: E402


def main():
    """Run what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="fuzz", description=fuzz.__doc__.partition("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=sorted(fuzz.KINDS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--case", metavar="KIND:SEED:NUMBER")
    options = parser.parse_args()
    if not options.case:
        return campaign(options.count, options.seed, options.only, options.jobs)

    kind, seed, number = options.case.split(":")
    outcomes, failure = fuzz.run(kind, int(seed), [int(number)])
    print(failure or "%s: %s" % (options.case, list(outcomes)[0]))
    return bool(failure)


if __name__ == "__main__":
    sys.exit(main())
