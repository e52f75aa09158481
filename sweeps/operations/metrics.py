"""Metrics of a sweep for Prometheus, read from its store when they are asked for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from scaling.errors import InputError
from sweeps.watch.status import STATES, Status, status

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from sweeps.store.store import Store

LOG = logging.getLogger("distlaw")
AGE_SECONDS = 15.0
"""Age up to which a reading serves several questions, so that scrapers cannot load the store."""
LOOPBACK = "127.0.0.1"
DASHBOARD = str(files("sweeps") / "operations" / "grafana.json")
"""File of a Grafana dashboard of these metrics."""


class StoreMetrics:
    """Collector of prometheus_client over one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.Lock()
        self.reading: tuple[Status | None, float] = (None, 0.0)
        self.read_at = -AGE_SECONDS
        self.failures = 0
        self.told = ""
        """Reason of the last reading that failed, as it was logged."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; without those of the sweep if the store does not answer."""
        with self.lock:
            if time.monotonic() - self.read_at >= AGE_SECONDS:
                self.reading = self._read()
            found, seconds = self.reading
        yield _gauge("store_up", "1 if the store could be read", float(found is not None))
        yield _gauge("store_read_seconds", "Seconds to read the state of all steps from the store", seconds)
        yield _counter("store_failures", "Readings of the store that failed", self.failures)
        if found is not None:
            yield from _of(found)

    def _read(self) -> tuple[Status | None, float]:
        started, found = time.monotonic(), None
        try:
            found = status(self.store)
        except Exception as error:  # told as store_up 0
            self.failures += 1
            self._tell(error)
        else:
            self.told = ""
        self.read_at = time.monotonic()
        return found, self.read_at - started

    def _tell(self, error: Exception) -> None:
        """Log why the store could not be read, once for each reason in a row."""
        reason = str(error).partition("\n")[0] or type(error).__name__
        if reason != self.told:
            LOG.warning("metrics: %s cannot be read, distlaw_store_up is 0: %s", self.store.root, reason)
        self.told = reason


def _of(found: Status) -> Iterator[Metric]:
    """Yield the metrics of a sweep whose state could be read."""
    steps = _gauge("steps", "Steps by state", labels=("state",))
    for state in STATES:
        steps.add_metric([state], len(found.of(state)))
    yield steps
    begun = sum(step.attempts for step in found.steps)
    yield _counter("attempts", "Attempts at steps", begun)
    retried = sum(max(0, step.attempts - 1) for step in found.steps)
    yield _counter("retries", "Attempts at steps after the first", retried)
    yield _gauge("drivers", "Active drivers", len(found.drivers))
    yield _counter("driver_hours", "Hours of all drivers", found.hours)
    spent, caps = (_gauge(name, text, labels=("unit",)) for name, text in AMOUNTS.items())
    for unit in ("flops", "gpu_hours", "dollars"):
        spent.add_metric([unit], getattr(found.spent, unit))
    for unit, cap in found.caps.model_dump().items():
        if cap is not None:
            caps.add_metric([unit], cap)
    yield from (spent, caps)
    yield _gauge("flops_left", "FLOPs of steps without a result", _flops_left(found))
    left = [step.seconds_left for step in found.of("running")]
    yield _gauge(
        "running_seconds_left", "Longest time left of a running step", max(map(_number, left), default=0.0)
    )


AMOUNTS = {"spent": "Spent by all attempts, by unit", "cap": "Caps of the spec, by unit"}


def _flops_left(found: Status) -> float:
    return sum(step.flops for step in found.steps if step.state != "done")


def _number(seconds: float | None) -> float:
    return seconds or 0.0


def _gauge(name: str, text: str, value: float | None = None, labels: tuple[str, ...] = ()) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"distlaw_{name}", text, value, labels or None)


def _counter(name: str, text: str, value: float) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"distlaw_{name}", text, value)


def address_of(text: str, option: str = "--metrics") -> tuple[str, int]:
    """Return host and port of ``9400``, ``:9400`` or ``HOST:9400``; a port alone is one of this machine only.

    Raises:
        InputError: for anything else.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) < 2**16:
        raise InputError(f"{option}: {text!r} is no port, such as 9400 or 0.0.0.0:9400")
    return host.strip("[]") or LOOPBACK, int(port)


@contextmanager
def serve_metrics(store: Store, address: str, option: str = "--metrics") -> Iterator[str]:
    """Serve the metrics of a store at ``http://HOST:PORT/metrics`` while the block runs; yield that URL.

    Raises:
        InputError: for an address that cannot be listened on, or without prometheus_client.
    """
    host, port = address_of(address, option)
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ModuleNotFoundError:
        raise InputError("--metrics: needs prometheus-client: pip install prometheus-client") from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StoreMetrics(store))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InputError(f"{option}: cannot listen on {host}:{port} ({error.strerror or error})") from None
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
