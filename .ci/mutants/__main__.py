# SPDX-License-Identifier: Apache-2.0
"""The command line, and what it does: see __init__.py."""

import argparse
import concurrent.futures
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CI = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOP = os.path.dirname(CI)
sys.path.insert(0, CI)

from mutants.sample import DEFAULT_TESTS, EQUAL, draw  # noqa: E402
from mutants.table import GROUPS, MUTANTS, SIM, Stale  # noqa: E402

SEEDS = 100
SIMULATE = [".ci/simulate", str(SEEDS), "--jobs", "2", "--patience", "2", "--stop"]
PYTEST = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line"]
TESTS_FAILED = 1  # pytest's exit status; another one says that it could not run them, or found none
SECONDS, FULL_SECONDS = 300, 600  # that one of those may take: it hangs else
PARTS = ("test_apiproxy.py", "setup.cfg", "README.md", "examples", ".ci")  # of the copy


def make_copy(folder, name):
    """A copy of the repository, with a mutant in it if there is a name."""
    for part in PARTS:
        path = os.path.join(TOP, part)
        if os.path.isdir(path):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, os.path.join(folder, part), ignore=ignored)
        elif os.path.exists(path):
            shutil.copy(path, folder)

    text = read_module()
    with open(os.path.join(folder, "apiproxy.py"), "w", encoding="utf-8") as file:
        file.write(MUTANTS[name].apply(text) if name else text)


def read_module():
    """Its text."""
    with open(os.path.join(TOP, "apiproxy.py"), encoding="utf-8") as file:
        return file.read()


def what_fails(folder, how, full):
    """What fails in a copy, in a few words; "" for nothing."""
    is_sim = how == SIM
    if is_sim:
        arguments = SIMULATE[:-1] if full else SIMULATE
    else:
        arguments = PYTEST if how == DEFAULT_TESTS else PYTEST + ["-k", how]
    process = subprocess.Popen(
        [sys.executable] + arguments, cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"))
    try:
        output, _ = process.communicate(timeout=FULL_SECONDS if full else SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the examples that the tests started
        process.communicate()
        return "it hangs"
    if not process.returncode:
        return ""
    if how not in (SIM, DEFAULT_TESTS) and process.returncode != TESTS_FAILED:
        raise Stale("pytest -k %s ends with status %d" % (how, process.returncode))
    return (failed_seed if is_sim else failed_test)(output.decode("utf-8", "replace"), full)


def failed_seed(text, full):
    """What the simulation printed, in a few words."""
    first = re.search(r"^seed (\d+) FAILED: ([^\n;]*)", text, re.M)
    if not first:
        return "it ends with: " + text.strip()[-300:]
    failed = len(re.findall(r"^seed \d+ FAILED", text, re.M))
    count = "%d of %d seeds, " % (failed, SEEDS) if full else ""
    return "%sseed %s: %s" % ((count,) + first.groups())


def failed_test(text, _full):
    """The name of the test that failed."""
    first = re.search(r"^FAILED \S+?::(\S+)", text, re.M)
    return first.group(1) if first else "it ends with: " + text.strip()[-300:]


def trial(name, full):
    """(name, what noticed it, seconds, the verdict); "" is the module."""
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            make_copy(folder, name)
            notices = MUTANTS[name].notices if name else (SIM,)
            failures = [what_fails(folder, how, full) for how in notices]
    except Stale as error:
        return name, "DOES NOT APPLY: %s" % error, 0.0, "stale"

    if name and MUTANTS[name].what in EQUAL and not all(failures):
        return name, "equal", time.monotonic() - begin, "equal"
    texts = [" ".join(failure.split())[:90] or "SURVIVES" for failure in failures]
    is_well = all(failures) if name else not any(failures)
    text = "; ".join(texts) if name or not is_well else "passes"
    return name, text, time.monotonic() - begin, "killed" if is_well else "survives"


def parse_options():
    """What the command line says, and the names of the mutants."""
    parser = argparse.ArgumentParser(
        prog="mutants", description="Does anything notice when the module is broken?")
    parser.add_argument("names", nargs="*", metavar="NAME|GROUP",
                        help="all if none is named; groups: %s; mutants: %s" % (
                            " ".join(GROUPS), " ".join(MUTANTS)))
    parser.add_argument("--sample", type=int, default=0, help="so many more, by chance")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="count the seeds that notice")
    options = parser.parse_args()

    sample = draw(read_module(), options.sample, options.seed) if options.sample else {}
    MUTANTS.update(sample)
    names = list(sample)
    for name in options.names or (() if sample else GROUPS):
        if name not in MUTANTS and name not in GROUPS:
            parser.error("no such mutant: " + name)
        names += GROUPS.get(name, [name])
    return options, names


def main():
    """Try them; the exit status."""
    options, names = parse_options()
    begin, verdicts = time.monotonic(), {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        trials = pool.map(trial, [""] + names, itertools.repeat(options.full))
        for name, text, seconds, verdict in trials:
            verdicts[name] = verdict
            what = MUTANTS[name].what if name else ""
            print("%-20s %-55s %5.1f s  %s" % (name or "(as it is)", what, seconds, text),
                  flush=True)

    lost = [name or "the module as it is fails" for name in verdicts
            if verdicts[name] == "survives"]
    stale = [name for name in verdicts if verdicts[name] == "stale"]
    killed = sum(verdicts[name] == "killed" for name in names)
    print("%d mutants, %d killed, %d equal, %.0f s%s%s" % (
        len(names), killed, list(verdicts.values()).count("equal"), time.monotonic() - begin,
        ", surviving: " + " ".join(lost) if lost else "",
        ", not applying: " + " ".join(stale) if stale else ""))
    return 2 if stale else 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
