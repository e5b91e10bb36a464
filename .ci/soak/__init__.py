# SPDX-License-Identifier: Apache-2.0
"""A soak on a real cluster: eight watches while the API server is killed, stopped and restarted.

    ../shared/cluster/cluster run python .ci/soak --seconds 120
    ../shared/cluster/cluster run python .ci/soak --seconds 1200 --seed 7

It needs a cluster of its own, which `cluster run` makes and throws away. Its etcd is stopped and
compacted, too. Two writers create, change and delete all the while. What has to hold, with the
module's default settings:

- no view goes backward: no object gets older, and one that was deleted never comes back; no object
  is there twice
- no watch sends more than 20 requests in any 10 s, or 44 in any 60 s
- soon after the last fault and the last write every view is what a fresh list says
- a cancel takes less than a second, and nothing is called after it
- no thread and no descriptor is left behind

Exit status 1, with what was wrong, when one of these does not hold.

    views.py    what a watch has shown, and the requests that it sent
    cluster.py  the cluster: ways to it, objects, faults
    torment.py  the watches, the writers, and the end
"""

import os
import sys

CI = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.dirname(CI), CI]
