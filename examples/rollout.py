#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Restart a deployment and wait until every pod is a new one, with progress.

    python3 examples/rollout.py DEPLOYMENT [-n NAMESPACE] [--seconds 300]

Exit status 0 once it is rolled out, 1 when it is not in time: for scripts and pipelines.
"""

import datetime
from typing import Any

from common import bar, cli, colour, connect, named, namespace_of, options, say, trouble


def is_rolled_out(item: Any) -> bool:
    """What `kubectl rollout status` waits for."""
    status, wanted = item.get("status", {}), item["spec"].get("replicas", 1)
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    is_seen = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
    return bool(is_seen and counts == [wanted] * 3)


def show(item: Any) -> None:
    """A line for each state of the deployment."""
    status, wanted = item.get("status", {}), item["spec"].get("replicas", 1)
    new, ready = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    text = "%s %d of %d new, %d available" % (bar(new, wanted), new, wanted, ready)
    old = status.get("replicas", 0) - new
    say(text + (colour("dim", ", %d old to go" % old) if old > 0 else ""))


def main() -> None:
    args = options("deployment", namespace="")
    with connect(args) as client:
        path = "/apis/apps/v1/namespaces/%s/deployments" % namespace_of(args, client)
        name = named(args, "deployment", client, path)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        template = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}
        client.patch("%s/%s" % (path, name), {"spec": {"template": template}})
        say("restarted %s" % name)

        client.stream_result(path, name, show, trouble)
        client.wait_for(path, name, is_rolled_out, args.seconds or 300)
        say(colour("green", "%s is rolled out" % name))


if __name__ == "__main__":
    cli(main)
