"""Pool of Ray tasks with the interface of :mod:`concurrent.futures`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from sweeps.execute.executors.ray_cluster import start_ray


class RayPool(Executor):
    """Executor that runs every call as a Ray task on one core, locally or on a cluster.

    ``fits.fit(runs, executor=RayPool())`` runs the draws of a fit on it.
    """

    def __init__(self, address: str = "local", cores: int | None = None) -> None:
        self.ray = start_ray(address, cores)
        self.task = self.ray.remote(num_cpus=1)(_call)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start ``fn(*args, **kwargs)`` as a task."""
        future: Future[Any] = self.task.remote(fn, args, kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Disconnect from Ray; a local cluster is stopped."""
        self.ray.shutdown()


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)
