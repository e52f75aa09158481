"""Bucket with modelled latency, throttling, failures and listings that lag behind."""

from __future__ import annotations

import errno
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from unittest.mock import patch

from simulated_cluster.virtual_time import EPOCH, VirtualClock

from sweeps.store import requests

Asked, Answer = TypeVar("Asked"), TypeVar("Answer")
PAGE = 1000
"""Names in one page of a listing."""


@dataclass(frozen=True)
class BucketModel:
    """Behavior of a bucket."""

    latency: float = 0.04
    """Mean seconds of a request, from an exponential distribution above half of that."""
    errors: float = 0.0
    """Share of requests that fail although the client has tried again."""
    listing_lag: float = 0.0
    """Seconds after which a new file is listed."""
    most_requests: float = float("inf")
    """Requests a second above which it throttles."""
    outages: tuple[tuple[float, float], ...] = ()
    """Times from and to which all requests are throttled."""


class SimulatedBucket:
    """File system of fsspec's interface, as far as :class:`sweeps.store.store.Store` uses it, in memory."""

    protocol = "simulated"

    def __init__(self, model: BucketModel, clock: VirtualClock, seed: int = 0) -> None:
        self.model, self.clock, self.draw = model, clock, random.Random(seed)
        self.data: dict[str, tuple[bytes, float]] = {}
        self.folders: dict[str, dict[str, float]] = {"": {}}
        """Names in each folder, with the times from which they are listed."""
        self.live: dict[str, Callable[[], bytes]] = {}
        """Files whose writers are not simulated write by write: their content now."""
        self.counts: Counter[str] = Counter()
        """Requests by kind."""
        self.failures = 0
        self.away: Callable[[], bool] = lambda: False
        """Returns True if whoever asks now is cut off."""
        self._lane: list[float] | None = None
        self._window: Counter[int] = Counter()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        self._request("get")
        if path in self.live:
            return self.live[path]()[start:end]
        if path not in self.data:
            raise FileNotFoundError(path)
        return self.data[path][0][start:end]

    def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        self._request("put")
        if mode == "create" and path in self.data:
            raise FileExistsError(path)
        self.place(path, data)

    def place(self, path: str, data: bytes) -> None:
        """Let a file exist, without a request."""
        self.data[path] = data, self.clock.now
        *folders, name = path.split("/")
        self._enter("/".join(folders), name)

    def _enter(self, folder: str, name: str) -> None:
        if folder not in self.folders:
            self.folders[folder] = {}
            if folder:
                above, _, last = folder.rpartition("/")
                self._enter(above, last)
        self.folders[folder].setdefault(name, self.clock.now + self.model.listing_lag)

    def ls(self, path: str, detail: bool = False) -> list[str]:  # noqa: ARG002
        names = self.folders.get(path)
        if names is None:
            self._request("list")
            raise FileNotFoundError(path)
        for _ in range(1 + len(names) // PAGE):
            self._request("list")
        return [f"{path}/{name}" for name, listed in names.items() if listed <= self.clock.now]

    def find(self, path: str) -> Iterator[str]:
        found = [name for name in self.data if name.startswith(f"{path}/")]
        for _ in range(1 + len(found) // PAGE):
            self._request("list")
        return iter(found)

    def exists(self, path: str) -> bool:
        self._request("head")
        return path in self.data or path in self.folders

    def rm_file(self, path: str) -> None:
        self._request("delete")
        del self.data[path]
        folder, _, name = path.rpartition("/")
        del self.folders[folder][name]

    def modified(self, path: str) -> datetime:
        self._request("head")
        return datetime.fromtimestamp(EPOCH + self.data[path][1], UTC)

    def throttled(self, time: float) -> bool:
        """Return True if all requests are throttled at a time."""
        return any(begin <= time < end for begin, end in self.model.outages)

    def count(self, kind: str, number: int) -> None:
        """Count requests that are not simulated one by one."""
        self.counts[kind] += number

    def _request(self, kind: str) -> None:
        """Count a request, let its time pass, and fail if it is one that does."""
        self.counts[kind] += 1
        if self.away():
            raise ConnectionError("the network is cut")
        seconds = self.model.latency * (0.5 + self.draw.expovariate(2.0))
        second = int(self.clock.now)
        self._window[second] += 1
        throttled = self._window[second] > self.model.most_requests or self.throttled(self.clock.now)
        if self._lane is None:
            self.clock.sleep(seconds)
        else:
            self._lane.append(seconds)
        if throttled or self.draw.random() < self.model.errors:
            self.failures += 1
            raise OSError(errno.EBUSY, "SlowDown (503)")

    @contextmanager
    def concurrent(self) -> Iterator[None]:
        """Let concurrent requests of the store take the time of as many lanes as it has threads."""

        def concurrently(ask: Callable[[Asked], Answer], places: list[Asked]) -> list[Answer]:
            if self.clock.inside_event:
                return [ask(place) for place in places]
            lanes, took = [0.0] * requests.CONCURRENT, list[Any]()
            answers = []
            for place in places:
                self._lane = took = []
                try:
                    answers.append(ask(place))
                finally:
                    self._lane = None
                heapq.heapreplace(lanes, lanes[0] + sum(took))
            self.clock.sleep(max(lanes))
            return answers

        with patch.object(requests, "concurrently", concurrently):
            yield
