"""Where steps run: in this process, or on Ray. Executors launch; the store remembers."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Any, Protocol

from scaling.errors import InputError
from sweeps.run_step import run_step
from sweeps.steps import Step
from sweeps.store import Store

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""One process a core with one thread each is a quarter faster than one process with all threads."""


GPU_SHARE = 0.25
"""Of a GPU for each step, where there are GPUs: the models of a sweep are small."""
LIVENESS_SECONDS = 5.0
"""Between two looks at whether the cluster still has a node."""


class ClusterLostError(RuntimeError):
    """No node is left to run anything on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at a step ended."""

    step: Step
    error: str | None = None
    """The reason it failed, one line; None if its result is in the store."""
    crashed: bool = False
    """The process died, which says nothing about the step: worth another attempt."""


class Executor(Protocol):
    """Runs steps whose teachers are in the store."""

    slots: int
    """Steps that run side by side."""

    def submit(self, step: Step) -> None:
        """Start ``step`` as soon as a slot is free."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Steps that ended since the last call; returns after ``seconds`` at the latest if it can."""

    def close(self) -> None:
        """Stop everything that still runs."""


class Inline:
    """Runs each step in this process when waited for."""

    slots = 1

    def __init__(self, store: Store) -> None:
        self.store = store
        self.queue: list[Step] = []

    def submit(self, step: Step) -> None:
        self.queue.append(step)

    def wait(self, seconds: float) -> list[Outcome]:  # noqa: ARG002
        return [attempt(self.store, self.queue.pop(0))] if self.queue else []

    def close(self) -> None:
        self.queue.clear()


class Ray:
    """Runs each step as a plain Ray task on one core (and a share of a GPU); processes are reused."""

    def __init__(self, store: Store, *, address: str = "local", cores: int | None = None) -> None:
        self.ray, self.store = start_ray(address, cores), store
        self.seen_alive = time.monotonic()
        resources = self.ray.cluster_resources()
        share = GPU_SHARE if resources.get("GPU") else 0.0
        places = resources["GPU"] / share if share else resources.get("CPU", 1)
        self.slots = cores or max(1, int(min(places, resources.get("CPU", 1))))
        self.task = self.ray.remote(num_cpus=1, num_gpus=share, max_retries=0)(_attempt_elsewhere)
        self.running: dict[Any, Step] = {}

    def submit(self, step: Step) -> None:
        self.running[self.task.remote(self.store.url, step.as_json())] = step

    def wait(self, seconds: float) -> list[Outcome]:
        if not self.running:
            return []
        ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=seconds)
        if not ready and time.monotonic() - self.seen_alive > LIVENESS_SECONDS:
            if not any(node["Alive"] for node in self.ray.nodes()):
                raise ClusterLostError("Ray's last node died; what is done is kept, the same command goes on")
            self.seen_alive = time.monotonic()
        return [self._outcome(reference) for reference in ready]

    def _outcome(self, reference: Any) -> Outcome:
        step = self.running.pop(reference)
        try:
            return Outcome(step, self.ray.get(reference))
        except self.ray.exceptions.RayTaskError as error:
            return Outcome(step, _reason(error.cause if isinstance(error.cause, Exception) else error))
        except self.ray.exceptions.RayError as error:
            return Outcome(step, f"its process died ({_reason(error)})", crashed=True)

    def close(self) -> None:
        self.ray.shutdown()


def start_ray(address: str, cores: int | None) -> Any:
    """The ray module, connected: to a cluster, or to a silent one of its own with ``cores`` processes.

    Raises:
        InputError: if nobody answers at ``address``, or lets us in.
    """
    import ray

    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local: dict[str, Any] = {}
    if address == "local":
        local = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    try:
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
    return ray


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


def attempt(store: Store, step: Step) -> Outcome:
    """Run ``step`` here on one thread; what goes wrong is recorded and returned, never raised."""
    import torch

    torch.set_num_threads(1)
    try:
        run_step(store, step)
    except Exception as error:
        reason = _reason(error)
        _record_failure(store, step, reason)
        return Outcome(step, reason)
    return Outcome(step)


def _attempt_elsewhere(root: str, step: dict[str, Any]) -> str | None:
    """The body of a Ray task: the reason of failure, or None."""
    return attempt(Store(root), Step.from_json(step)).error


def _record_failure(store: Store, step: Step, reason: str) -> None:
    try:
        store.write({"reason": reason, "step": step.as_json()}, step.id, "failure.json")
    except OSError:
        return  # the store itself may be what failed; the driver still has the reason


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, InputError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
