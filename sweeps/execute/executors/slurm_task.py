"""``python -m sweeps.execute.executors.slurm_task``: the task of a job on one node, as ``srun`` starts it.

The job comes on standard input; how its attempts ended is printed as one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType

from sweeps.execute.executors.fork_server import ForkServer
from sweeps.execute.jobs import Job
from sweeps.store.store import Store


def main() -> None:
    """Run this node's processes of the job."""
    signal.signal(signal.SIGTERM, _interrupt)
    request = json.loads(sys.stdin.buffer.readline())
    ranks = request["ranks"][int(os.environ.get("SLURM_NODEID", "0"))]
    server = ForkServer()
    found = server.run(Store(request["store"]), Job.from_json(request["job"]), ranks)
    server.close()
    told = [[each.step, each.number, each.ending, each.reason, each.gone, each.lived] for each in found]
    sys.stdout.write(json.dumps({"outcomes": told}) + "\n")


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGTERM) from None
