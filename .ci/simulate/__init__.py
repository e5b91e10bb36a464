# SPDX-License-Identifier: Apache-2.0
"""A randomized simulation of watches: a server with a memory, faults, and an oracle.

    python .ci/simulate 100 [--first N] [--jobs J] [--patience SECONDS] [--without FAULT,...]

Each seed makes a schedule: what is watched and with which settings, how the objects change, which
request, event or moment meets which fault. It is played over real sockets, plain or TLS, through a
proxy that harms connections; times are a hundredth or so of the real ones. Some settings switch one
of the module's safety nets off (relisting now and then, limited lifetimes of watches, the rate
limit, distrust of short watches), since nets hide each other's holes.

What is checked of every seed:

    O1-O4  each view is exactly a state that the server had, whole, and states only go forward: so
           no object is made up, shown twice, older than before or back from the dead. Left alone:
           until it is right again, a view from which the server withheld an event; everything after
           the server went back in time (an etcd restored from a backup)
    O5     when the faults are over, the last view is the server's state
    O6     requests stay within the bucket's limits, and within what the waits allow while
           everything fails; Retry-After is kept; only the first list may carry a resourceVersion
    O7     cancel takes no time, also in the midst of everything and from inside a callback; after
           it there is no callback, no thread, no socket and no descriptor
    O8     silent faults give no err_cb; where every fault is the server's, each loud one gives
           exactly one, and it has (error, cancel)
    O9     no view equals the one before it; a view is the caller's own, and the objects in it never
           change

    plan.py    the faults, and the schedule of a seed      server.py   requests, outages
    stage.py   what the parts of a play share              lists.py    lists and their faults
    store.py   objects, versions, every state              watches.py  watches and theirs
    oracle.py  the callbacks, and what they may get        play.py     one seed, to its end
"""

import os
import sys

CI = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.dirname(CI), CI]

from .play import report, run  # noqa: E402,F401
