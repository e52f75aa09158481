"""Connection to a Ray cluster, and the resources of its nodes."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from scaling.costs.hardware import Hardware, device_table, hardware
from scaling.errors import InputError
from sweeps.estimate.memory.layout import DeviceKind
from sweeps.execute.executors.fork_server import ONE_THREAD
from sweeps.execute.executors.job_placement import NodeCapacity
from sweeps.spec.resources import Resources

ACCELERATOR = "accelerator_type:"
"""Beginning of the resource by which a node tells the kind of its GPUs."""


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
    """Connect to a cluster, or start a local one; return the ray module; see :func:`connect`."""
    return connect(address, cores)[0]


def connect(address: str, cores: int | None) -> tuple[Any, str | None]:
    """Connect to a cluster, or start a local one with ``cores`` processes.

    Returns:
        The ray module, and the page of this process's job on Ray's dashboard, if there is one.

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
            found = ray.init(
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
    job = ray.get_runtime_context().get_job_id()
    return ray, f"http://{found.dashboard_url}/#/jobs/{job}" if found.dashboard_url else None


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


def living_nodes(ray: Any) -> list[NodeCapacity]:
    """Return the nodes of the cluster, with the speed of their GPUs relative to the slowest known."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    peaks = [gpu.peak_flops if (gpu := gpu_of(node["Resources"])) else None for node in alive]
    slowest = min((peak for peak in peaks if peak), default=1.0)
    return [
        NodeCapacity(
            node["NodeID"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            (peak or slowest) / slowest,
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
        )
        for node, peak in zip(alive, peaks, strict=True)
    ]


def gpu_of(resources: Iterable[str]) -> Hardware | None:
    """Return the GPU of a node by the resource that Ray names after it; None if it is not in the table."""
    for name in resources:
        if name.startswith(ACCELERATOR):
            with suppress(InputError):
                return hardware(name.removeprefix(ACCELERATOR))
    return None


def cluster_gpu(ray: Any) -> DeviceKind | None:
    """Return the GPU with the least memory in the cluster; None without one, or if a memory is unknown."""
    there = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    found = [gpu_of(resources) for resources in there]
    sizes = [_least_memory(gpu) if gpu else None for gpu in found]
    known = [(size, gpu.name) for size, gpu in zip(sizes, found, strict=True) if size and gpu]
    if not known or len(known) < len(there):
        return None
    memory, name = min(known)
    return DeviceKind(gpu=True, memory=memory, name=name)


def _least_memory(gpu: Hardware) -> float | None:
    """Return the memory of the smallest variant of a GPU, as Ray calls an A100 of either size the same."""
    variants = [row for row in device_table() if row.name == gpu.name or row.name.startswith(f"{gpu.name}-")]
    return min((row.memory_bytes for row in variants if row.memory_bytes), default=None)


def cluster_nodes(ray: Any) -> list[ClusterNode]:
    """Return the nodes of the cluster, and the kinds that its autoscaler may add."""
    found = [ClusterNode(node.cpus, node.gpus) for node in living_nodes(ray)]
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
    """Describe why no set of ``found`` nodes has ``resources``; None if one has, or if all are yet to come.

    Ray's open autoscalers do not tell which nodes they could add, so that a cluster of a head alone is taken
    for one that starts them when steps wait.
    """
    if not any(node.cpus for node in found):
        return None
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
