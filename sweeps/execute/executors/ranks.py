"""Environment of the processes that train one step together, with the variables of ``torchrun``."""

from __future__ import annotations

import socket

from sweeps.spec.resources import Resources


def ranks_of(
    resources: Resources, host: str, port: int, *, each: int | None = None
) -> list[list[dict[str, str]]]:
    """Return the environment of the processes of each node; there are ``each`` on a node, by default one for
    each GPU."""
    each = each or resources.processes
    size = resources.nodes * each
    return [
        [
            {
                "RANK": str(node * each + local),
                "LOCAL_RANK": str(local),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": host,
                "MASTER_PORT": str(port),
            }
            for local in range(each)
        ]
        for node in range(resources.nodes)
    ]


def free_port() -> int:
    """Return a port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
