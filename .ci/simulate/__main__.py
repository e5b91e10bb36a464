# SPDX-License-Identifier: Apache-2.0
"""The command line: see __init__.py."""

import argparse
import collections
import multiprocessing
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import simulate  # noqa: E402


def parse_options():
    """What the command line says."""
    about = simulate.__doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="simulate", description=about)
    parser.add_argument("count", type=int, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--patience", type=float, default=10.0,
                        help="seconds until the last view has to be right")
    parser.add_argument("--without", default="",
                        help="faults to leave out, to make a failure smaller")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    return parser.parse_args()


def main():
    """Play the seeds; the exit status."""
    options, begin = parse_options(), time.monotonic()
    seeds = range(options.first, options.first + options.count)
    jobs = [(seed, options.patience, options.without.split(",")) for seed in seeds]
    failed, faults, totals = [], collections.Counter(), [0, 0, 0]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for seed, problems, text, figures in pool.imap_unordered(simulate.report, jobs):
            if figures:
                faults += figures[0]
                totals = [total + count for total, count in zip(totals, figures[1:])]
            if problems:
                failed.append(seed)
                print("seed %d FAILED: %s\n%s\n" % (seed, "; ".join(problems), text), flush=True)
                if options.stop:
                    break

    print("faults: " + ", ".join("%s %d" % pair for pair in sorted(faults.items())))
    names = " (%s)" % ", ".join(map(str, sorted(failed)[:20])) if failed else ""
    print("%d seeds, %d failed%s, %d faults of %d kinds, %d views checked, %d requests, "
          "%d errors reported, %.0f s" % (
              options.count, len(failed), names, sum(faults.values()), len(faults), *totals,
              time.monotonic() - begin))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
