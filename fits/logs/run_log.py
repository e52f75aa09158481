"""Record of one run as a tool left it: series of metrics by step, and settings that do not change."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(slots=True)
class MetricSeries:
    """Values of one metric, in the order in which they were written."""

    steps: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def sorted(self) -> tuple[Array, Array]:
        """Return steps (n,), ascending, and values (n,); of a step written twice, the later value."""
        steps, values = np.frombuffer(self.steps), np.frombuffer(self.values)
        if len(steps) > 1 and not (np.diff(steps) > 0).all():
            # unique() returns first places, so the order is reversed to keep the value written last
            steps, last = np.unique(steps[::-1], return_index=True)
            values = values[::-1][last]
        return steps.copy(), values.copy()

    def is_restart(self, step: float) -> bool:
        """Return True if a step that comes next means that training began anew."""
        return len(self.steps) > 0 and step <= self.steps[0] < self.steps[-1]


@dataclass(slots=True)
class RunLog:
    """Everything that was read about one run."""

    name: str
    source: Path
    format: str
    """Format of the file in words: "Hugging Face trainer_state.json"."""
    series: dict[str, MetricSeries] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """Configuration and other constants under dotted names."""
    status: str = ""
    """"done", "running" or "failed" where the tool records it."""
    notes: list[str] = field(default_factory=list)
    """Sentences on how the log was read: what was cut off, or left out."""
    cut_off: str = ""
    """Sentence on its last record if that is cut off and left out; empty if the log is whole."""

    def add(self, step: float, record: Mapping[str, object]) -> None:
        """Add the numbers of a record; a step back to the first one discards what was read before."""
        self.add_numbers(step, {n: number for n, v in record.items() if (number := as_number(v)) is not None})

    def add_numbers(self, step: float, numbers: Mapping[str, float]) -> None:
        """Add a record that holds numbers only."""
        known = [self.series[name] for name in numbers if name in self.series]
        if known and any(each.is_restart(step) for each in known):
            self.series.clear()
            self.notes.append("training began anew in the same file: the earlier records are not used")
        for name, number in numbers.items():
            found = self.series.get(name)
            if found is None:
                found = self.series[name] = MetricSeries()
            found.steps.append(step)
            found.values.append(number)

    def final(self, record: Mapping[str, object], step: float | None = None) -> None:
        """Add a record of final values, at ``step`` or after the last step of the log."""
        self.add(self.last_step if step is None else step, record)

    @property
    def last_step(self) -> float:
        """Return the last step of any series; 0 without any."""
        return max((max(each.steps) for each in self.series.values() if each.steps), default=0.0)

    def merge(self, other: RunLog) -> None:
        """Add what another log of the same run has and this one lacks, in whatever spelling."""
        known = {words_of(name) for name in self.series}
        for name, series in other.series.items():
            if words_of(name) not in known:
                self.series[name] = series
        self.settings = {**other.settings, **self.settings}
        self.status = self.status or other.status
        self.notes += other.notes


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case: ``eval/c4-loss`` has eval, c4 and loss."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return tuple(word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word)


def as_number(value: object) -> float | None:
    """Return a number, also of the texts "NaN" and "Infinity" as some tools write them; None for others."""
    if type(value) is float:
        return value
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | float | np.number):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, str) and value.strip().lower() in ("nan", "infinity", "-infinity", "inf", "-inf"):
        return float(value)
    return None


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested objects and lists under dotted names: ``layers.0.width``."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flatten(inner, f"{prefix}{name}.")
        elif isinstance(inner, list | tuple) and 0 < len(inner) <= 64:
            yield from flatten({str(i): entry for i, entry in enumerate(inner)}, f"{prefix}{name}.")
        else:
            yield prefix + str(name), inner


def add_records(log: RunLog, records: Iterable[tuple[float, Mapping[str, object]]]) -> None:
    """Add records with their steps to a log."""
    for step, record in records:
        log.add(step, record)
