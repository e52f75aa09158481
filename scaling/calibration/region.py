"""The region of a calibration: the ranges of its fitted runs, and how far outside a question lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from scaling.calibration.parsing import is_number, mapping, read, read_numbers
from scaling.errors import InputError
from scaling.units import format_times

Range = tuple[float, float]

FAR = 1.5
"""A variable outside the fitted region by more than this factor is reported."""
TOO_FAR = 100.0
"""A variable outside the fitted region by more than this factor leaves no verdict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """The smallest and largest value of each variable among the fitted runs; ``None`` where unknown.

    >>> from scaling import Region
    >>> Region(params=(1e8, 1e10)).outside({"params": 5e10})
    {'params': 5.0}
    """

    params: Range | None = None
    """Supervised runs: non-embedding parameters."""
    tokens: Range | None = None
    """Supervised runs: tokens."""
    student_params: Range | None = None
    """Distillations: non-embedding parameters of the students; likewise below."""
    student_tokens: Range | None = None
    teacher_params: Range | None = None
    teacher_tokens: Range | None = None
    teacher_loss: Range | None = None
    """L_T, nats/token."""
    teacher_loss_ratio: Range | None = None
    """L_T/Ls: the teacher's loss over what the student reaches alone on the same tokens."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """Number of fitted runs by kind: ``supervised``, ``distillation``."""
    note: str = ""
    """Findings beyond it, in words that can be printed."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; no note if there is none."""
        return {name: value for name, value in asdict(self).items() if name != "note" or value}

    def outside(self, values: Mapping[str, float], *, teacher_predicted: bool = False) -> dict[str, float]:
        """Return the factor by which each value lies outside its range: 1 inside; none for unknown ranges.

        A teacher whose loss is predicted by the supervised law must also lie within that law's runs.
        """
        factors = {}
        for name, value in values.items():
            ranges = [getattr(self, name)]
            if teacher_predicted and name in ("teacher_params", "teacher_tokens"):
                ranges.append(getattr(self, name.removeprefix("teacher_")))
            known = [max(low / value, value / high, 1.0) for low, high in filter(None, ranges)]
            if known:
                factors[name] = max(known)
        return factors

    def teachers(self) -> dict[str, Range]:
        """Ranges of ``teacher_params`` and ``teacher_tokens`` that the runs cover, where they are known.

        A teacher's loss is predicted by the supervised law, so it must lie within that law's runs as well.
        """
        found = {}
        for name in ("teacher_params", "teacher_tokens"):
            taught, alone = getattr(self, name), getattr(self, name.removeprefix("teacher_"))
            if taught and alone and max(taught[0], alone[0]) <= min(taught[1], alone[1]):
                taught = max(taught[0], alone[0]), min(taught[1], alone[1])
            if taught or alone:
                found[name] = taught or alone
        return found


def read_region(value: object, where: str) -> Region:
    """The region from its parsed JSON; errors name ``where``."""
    ranges = mapping(value, where)
    for name, known in ranges.items():
        if name == "runs":
            read_numbers(known, f"{where}.runs")
        elif name == "note":
            if not isinstance(known, str):
                raise InputError(f"{where}.note: must be a text, not {known!r}")
        elif known is not None:
            pair = isinstance(known, list) and len(known) == 2 and all(map(is_number, known))
            if not pair or not 0 < known[0] <= known[1]:
                raise InputError(f"{where}.{name}: must be [smallest, largest], both positive, not {known!r}")
    return read(Region, {k: tuple(v) if isinstance(v, list) else v for k, v in ranges.items()}, where)


def beyond(outside: Mapping[str, float]) -> str:
    """Return the variables far outside the fitted region and by how many times; empty if there are none."""
    far = {name: factor for name, factor in outside.items() if factor > FAR}
    return ", ".join(f"{name.replace('_', ' ')} {format_times(factor)}" for name, factor in far.items())


def is_too_far(outside: Mapping[str, float]) -> bool:
    """Return True if a variable lies so far outside the fitted region that nothing can be said."""
    return max(outside.values(), default=1.0) > TOO_FAR
