"""Connection to a Ray cluster, and the resources of its nodes."""

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
from sweeps.execute.executors.fork_server import ONE_THREAD
from sweeps.spec.resources import Resources


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """Node of a cluster, or a kind of node that its autoscaler may add."""

    cpus: float
    gpus: float
    count: int = 1

    def holds(self, resources: Resources) -> int:
        """Return how often ``resources`` fit on one node."""
        fits = self.cpus / resources.cpus
        if resources.gpus >= 1 or not resources.gpus:
            return int(min(fits, self.gpus / resources.gpus if resources.gpus else fits))
        return int(min(fits, int(self.gpus) * int(1 / resources.gpus)))


def start_ray(address: str, cores: int | None) -> Any:
    """Connect to a cluster, or start a local one with ``cores`` processes; return the ray module.

    Raises:
        InputError: if there is no cluster at ``address``, it denies access, or the path for temporary files
            is too long for sockets.
    """
    import ray

    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local: dict[str, Any] = {}
    if address == "local":
        local = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    try:
        with hold_back_stderr():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": ONE_THREAD},
                **local,
            )
    except (ValueError, ConnectionError) as error:
        raise InputError(
            f"--address {address}: the Ray cluster cannot be joined ({error}); with token authentication, "
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
def hold_back_stderr() -> Iterator[None]:
    """Hold back standard error of this process and Ray's C++, which repeats a refusal 20 times.

    It is printed after the block, unless the block raises an error with the reason.
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


def cluster_nodes(ray: Any) -> list[ClusterNode]:
    """Return the nodes of the cluster, and the kinds that its autoscaler may add."""
    found = [
        ClusterNode(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]
    config = ray._private.state.state.get_cluster_config()
    for group in config.node_group_configs if config else ():
        each = group.resources
        count = group.max_count if group.max_count >= 0 else 10**6
        if count:
            found.append(ClusterNode(each.get("CPU", 0), each.get("GPU", 0), count))
    return found


def lost_own_process(ray: Any) -> bool:
    """Return True if a process of the local cluster has died, on which Ray would exit this process."""
    node = ray._private.worker._global_node
    return any(name in ("gcs_server", "raylet") for name, _ in node.dead_processes())


def cluster_misfit(found: list[ClusterNode], resources: Resources) -> str | None:
    """Describe why no set of ``found`` nodes has ``resources``; None if one has."""
    able = sum(node.count for node in found if node.holds(resources))
    if able >= resources.nodes:
        return None
    kinds = sorted({(node.cpus, node.gpus) for node in found}, reverse=True)
    there = ", ".join(f"{cpus:g} cpus and {gpus:g} gpus" for cpus, gpus in kinds)
    return f"{able} of the cluster's nodes could take it (nodes have {there})"


def _check_address(address: str) -> None:
    """Reject at once an address where nothing listens; Ray would try for minutes.

    Raises:
        InputError: with the problem.
    """
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (ValueError, OverflowError):
        raise InputError(f"--address: local, auto, HOST:PORT or ray://HOST:PORT, not {address!r}") from None
    except OSError as error:
        raise InputError(f"--address {address}: no answer ({error})") from None
