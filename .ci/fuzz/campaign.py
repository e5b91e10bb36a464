# SPDX-License-Identifier: Apache-2.0
"""A campaign: many cases of each kind, in processes that are watched."""

import collections
import faulthandler
import multiprocessing
import queue
import time

from . import SECONDS, Outcomes, run

SHARES = {"frames": 0.4, "handshakes": 0.2, "answers": 0.15, "events": 0.2, "lists": 0.05}
BATCH = 1000  # cases between two looks at a process's memory
DEAD = 10 * SECONDS  # a process that is silent for so long was not ended by its own alarm


def batches_of(count, only):
    """All cases as (index, kind, numbers), kinds in turn, so that jobs have the same to do."""
    shares = {only: 1.0} if only else SHARES
    batches = []
    for kind, share in shares.items():
        total = int(count * share)
        for start in range(0, total, BATCH):
            numbers = range(start, min(total, start + BATCH))
            batches.append((start / max(1, total), kind, numbers))
    batches.sort(key=lambda batch: batch[0])
    return [(index, kind, numbers) for index, (_, kind, numbers) in enumerate(batches)]


def work(seed, batches, place, results):
    """A process: batches of (index, kind, numbers).

    place   [index of its batch, how many it has begun], for who watches it
    """
    faulthandler.enable()
    for index, kind, numbers in batches:
        place[0], place[1] = index, place[1] + 1
        started = time.process_time()
        outcomes, failure = run(kind, seed, numbers)
        results.put((kind, len(numbers), outcomes, failure, time.process_time() - started))
        if failure:
            break
    results.put(None)


class Worker:
    """One process, and how to see whether it is at work."""

    def __init__(self, seed, batches, results):
        self._place = multiprocessing.Array("q", 2, lock=False)
        self._seen = (0, time.monotonic())
        arguments = (seed, batches, self._place, results)
        self._process = multiprocessing.Process(target=work, args=arguments, daemon=True)
        self._process.start()

    def trouble(self):
        """(what is wrong with it, the index of its batch), else None."""
        if self._place[1] != self._seen[0]:
            self._seen = (self._place[1], time.monotonic())
        if self._process.exitcode:
            return "died with %d" % self._process.exitcode, self._place[0]
        if time.monotonic() - self._seen[1] > DEAD:
            return "hangs", self._place[0]
        return None

    def end(self):
        """End it."""
        self._process.terminate()
        self._process.join()


class Tally:
    """What came of the cases so far."""

    def __init__(self):
        self.done, self.cpu = Outcomes(), Outcomes()
        self.outcomes = collections.defaultdict(Outcomes)
        self.failures = []

    def add(self, kind, size, outcomes, failure, seconds):
        """A batch."""
        self.done[kind] += size
        self.outcomes[kind] += outcomes
        self.cpu[kind] += seconds
        if failure:
            self.failures.append(failure)

    def print(self):
        """A line for each kind, and what failed."""
        for kind, outcomes in self.outcomes.items():
            each = self.cpu[kind] / max(1, self.done[kind]) * 1e6
            counts = ", ".join("%s %d" % pair for pair in outcomes.most_common())
            print("%-10s %7d cases, %3d us each: %s" % (kind, self.done[kind], each, counts))
        for failure in self.failures:
            print("WRONG: " + failure)


def campaign(count, seed, only, jobs):
    """Run `count` cases in processes; print figures; the exit status."""
    started, batches, results = time.monotonic(), batches_of(count, only), multiprocessing.Queue()
    workers = [Worker(seed, batches[job::jobs], results) for job in range(jobs)]
    running, tally = jobs, Tally()
    while running and not tally.failures:
        try:
            result = results.get(timeout=1.0)
        except queue.Empty:  # time to look whether they are all at work
            for what, index in filter(None, [worker.trouble() for worker in workers]):
                where = "%s of seed %d" % (batches[index][1:], seed)
                tally.failures.append("a process %s at %s" % (what, where))
            continue
        if result is None:
            running -= 1
        else:
            tally.add(*result)

    for worker in workers:
        worker.end()
    tally.print()
    print("fuzz: %d cases (%s) in %d s, seed %d: %s" % (
        sum(tally.done.values()), ", ".join("%s %d" % pair for pair in tally.done.items()),
        time.monotonic() - started, seed,
        "%d WRONG" % len(tally.failures) if tally.failures else "nothing wrong"))
    return bool(tally.failures)
