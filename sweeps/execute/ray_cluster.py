"""A Ray cluster: connecting to one, and what its nodes offer."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scaling.errors import InputError
from sweeps.execute.fork_server import ONE_THREAD
from sweeps.spec.resources import Resources


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster, or a kind of machine that it may add."""

    cpus: float
    gpus: float
    count: int = 1

    def holds(self, resources: Resources) -> int:
        """How many shares of ``resources`` fit on one of them."""
        fits = self.cpus / resources.cpus
        if resources.gpus >= 1 or not resources.gpus:
            return int(min(fits, self.gpus / resources.gpus if resources.gpus else fits))
        return int(min(fits, int(self.gpus) * int(1 / resources.gpus)))


def start_ray(address: str, cores: int | None) -> Any:
    """The ray module, connected: to a cluster, or to a silent one of its own with ``cores`` processes.

    Raises:
        InputError: if nobody answers at ``address``, or lets us in, or the directory for temporary files has
            too long a name for sockets.
    """
    import ray

    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local: dict[str, Any] = {}
    if address == "local":
        local = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    try:
        with errors_held_back():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": ONE_THREAD},
                **local,
            )
    except (ValueError, ConnectionError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster lets us in there ({error}); with token authentication, "
            "start it and this command with RAY_AUTH_MODE=token and the same token"
        ) from None
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        raise InputError(
            f"TMPDIR: {tempfile.gettempdir()} is too long for Ray, which keeps its sockets there; set "
            "RAY_TMPDIR to a directory with a name of at most 30 characters, such as /tmp"
        ) from None
    return ray


@contextmanager
def errors_held_back() -> Iterator[None]:
    """Hold back standard error of this process, Ray's C++ too, which repeats a refusal 20 times.

    It is printed after the block, unless that ends in an error that says what was wrong.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        refused = False
        try:
            yield
        except (ValueError, ConnectionError):
            refused = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            if not refused and (printed := held.read()):
                os.write(2, printed)


def nodes(ray: Any) -> list[Node]:
    """The machines that are there, and the kinds that an autoscaler may add."""
    found = [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]
    config = ray._private.state.state.get_cluster_config()
    for group in config.node_group_configs if config else ():
        each = group.resources
        count = group.max_count if group.max_count >= 0 else 10**6
        if count:
            found.append(Node(each.get("CPU", 0), each.get("GPU", 0), count))
    return found


def lost_own_process(ray: Any) -> bool:
    """Whether a part of the cluster that this process has started is dead; Ray itself would then end us."""
    node = ray._private.worker._global_node
    return any(name in ("gcs_server", "raylet") for name, _ in node.dead_processes())


def misfit(found: list[Node], resources: Resources) -> str | None:
    """Why no set of ``found`` nodes can ever give ``resources``; None if one can."""
    able = sum(node.count for node in found if node.holds(resources))
    if able >= resources.nodes:
        return None
    kinds = sorted({(node.cpus, node.gpus) for node in found}, reverse=True)
    there = ", ".join(f"{cpus:g} cpus and {gpus:g} gpus" for cpus, gpus in kinds)
    return f"{able} of the cluster's nodes could take it (nodes have {there})"


def _check_address(address: str) -> None:
    """Refuse at once an address where nobody listens; Ray itself would try for minutes.

    Raises:
        InputError: naming what was wrong with it.
    """
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (ValueError, OverflowError):
        raise InputError(f"--address: local, auto, HOST:PORT or ray://HOST:PORT, not {address!r}") from None
    except OSError as error:
        raise InputError(f"--address {address}: nobody answers there ({error})") from None
