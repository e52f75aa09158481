"""A pool of Ray tasks with the face of :mod:`concurrent.futures`, for work that takes such an executor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from sweeps.execute.ray_cluster import start_ray


class RayPool(Executor):
    """Runs every call as a Ray task on one core, locally or on a cluster.

    ``fits.fit(runs, executor=RayPool())`` spreads the draws of a fit over it.
    """

    def __init__(self, address: str = "local", cores: int | None = None) -> None:
        self.ray = start_ray(address, cores)
        self.task = self.ray.remote(num_cpus=1)(_call)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start ``fn(*args, **kwargs)`` somewhere."""
        future: Future[Any] = self.task.remote(fn, args, kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Leave Ray; a local one ends."""
        self.ray.shutdown()


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)
