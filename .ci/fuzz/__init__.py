# SPDX-License-Identifier: Apache-2.0
"""Fuzzing: a million wrong frames, handshakes, answers, watches and lists, and no surprise.

    python .ci/fuzz 1000000 --jobs 2
    python .ci/fuzz 100000 --seed 7 --only frames
    python .ci/fuzz --case frames:7:4711

A case is made from its kind, a seed and its number, and from nothing else. It begins with something
legal, which is then spoilt: in its structure, in its bytes, or not at all. What a case must show:

    frames      the messages and the end that a slow and simple decoder of our own finds, however
                the bytes are cut
    handshakes  WebSocket.connect accepts exactly what RFC 6455 lets a client accept; then frames,
                as above
    answers     what a simple reading of RFC 9112 makes of them, or an ApiError; the next call gets
                its own answer
    events      a watch calls err_cb with ApiErrors and never ends by itself; no object is in a view
                twice, views of legal lists and events are right, and after what can't be read it
                lists again
    lists       parsed by parts, the items that json.loads finds in the whole, or an ApiError

Nothing else may be raised, nothing may take long or much memory. Below the module there is no
socket: a Line takes the place of a connection, and knows what comes next. What failed is printed
with the command that runs it again.

    chance.py      accidents and cuts             frames.py      a kind each: its legal and spoilt
    heads.py       a simple reading of heads      handshakes.py  forms, a simple judge, and case()
    inside.py      what it uses of the module     answers.py
    campaign.py    all cases, in processes        events.py, lists.py
"""

import collections
import os
import random
import re
import resource
import signal
import sys
import traceback

CI = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.dirname(CI), CI]

from . import answers, events, frames, handshakes, lists  # noqa: E402
from .inside import Patched  # noqa: E402
from .outcome import Hang  # noqa: E402

SECONDS = 10.0  # that a case may take: on a busy machine, too
MEMORY = 80 << 20  # bytes by which the process may grow in a batch

KINDS = {
    "frames": frames.case, "handshakes": handshakes.case, "answers": answers.case,
    "events": events.case, "lists": lists.case,
}
Outcomes = collections.Counter


def run(kind, seed, numbers):
    """Run cases of a kind: (their outcomes, what failed as text or "").

    Ends with the first failure. In the main thread only: it needs alarms.
    """
    chance, outcomes, failure, number = random.Random(), Outcomes(), "", None
    before = signal.signal(signal.SIGALRM, _hang)
    memory = _memory()
    try:
        with Patched():
            for number in numbers:
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
                chance.seed(seed << 40 | number)
                outcomes[KINDS[kind](chance)] += 1

        grown = _memory() - memory
        if grown > MEMORY:
            failure = "%s:%d, up to number %s: %d bytes more memory" % (kind, seed, number, grown)
    except (Exception, Hang) as error:
        failure = _told(error, "%s:%d:%s" % (kind, seed, number))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return outcomes, failure


def _hang(_signal, _frame):
    raise Hang("more than %.3g s" % SECONDS)


def _memory():
    """The most bytes that this process had so far; Linux counts KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _told(error, case):
    """What failed, and the command that runs it again."""
    trace = "".join(traceback.format_tb(error.__traceback__))
    message = re.sub(r"(.)\1{99,}", r"\1\1...", str(error))[:4000]
    return "%s\n%s: %s\npython .ci/fuzz --case %s" % (trace, type(error).__name__, message, case)
