"""Scaling exponents: compute-optimal parameters, tokens and loss over compute, with intervals from draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fits.estimation.levenberg_marquardt import Array
from scaling.laws import AnySupervisedLaw, as_power_law, compute_optimal, scaling_exponents
from scaling.laws.allocation import FLOPS_PER_TOKEN
from scaling.units import format_number, format_power

QUANTILES = (0.05, 0.95)
BEYOND = (1.0, 10.0, 100.0)
"""Multiples of the largest compute of the runs at which the optimum is reported."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A number with its 90 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: Array) -> Spread:
        """Return the value with the central interval of its draws."""
        low, high = np.quantile(draws, QUANTILES)
        return cls(float(value), float(low), float(high))

    def text(self, kind: str = "exponent") -> str:
        """Return it with its interval: an "exponent", a "loss" (nats/token) or a "count"."""
        digits = {"exponent": "{:.3f}", "loss": "{:.3f}"}.get(kind)
        value, low, high = (
            digits.format(x) if digits else format_number(x) for x in (self.value, self.low, self.high)
        )
        return f"{value} [{low}, {high}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimalRun:
    """The compute-optimal run at one compute."""

    flops: float
    params: Spread
    tokens: Spread
    loss: Spread
    """nats/token"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponents:
    """Scaling exponents of a supervised law, at C = 6 N D."""

    params: Spread
    """a in N* ~ C^a."""
    tokens: Spread
    """b in D* ~ C^b."""
    loss: Spread
    """c in L* - E ~ C^-c."""
    optimal: tuple[OptimalRun, ...]
    """At the largest compute of the runs, and at 10 and 100 times it."""
    local: bool = False
    """True if the exponents change with compute, and are those at the largest compute of the runs."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the text for a terminal."""
        found = [
            "compute-optimal direct training at C = 6 N D, by the supervised law (90 % intervals)",
            f"  N* ~ C^a, a = {self.params.text()}; D* ~ C^b, b = {self.tokens.text()}; "
            f"L* - E ~ C^-c, c = {self.loss.text()}" + ("; at the largest run" if self.local else ""),
        ]
        for run, times in zip(self.optimal, BEYOND, strict=True):
            beyond = f" ({times:.0f}x the largest run)" if times > 1 else " (the largest run)"
            found.append(
                f"  {format_power(run.flops)} FLOPs{beyond}: N* {run.params.text('count')}, "
                f"D* {run.tokens.text('count')}, L* {run.loss.text('loss')}"
            )
        return found


def exponents(law: AnySupervisedLaw, draws: Mapping[str, Array], largest: float) -> Exponents:
    """Return the exponents, and the compute-optimal runs at and beyond the largest compute.

    Args:
        law: The supervised law.
        draws: Its coefficients by name, (draws,) each.
        largest: The largest compute of the runs, 6 N D.
    """
    sampled: AnySupervisedLaw = type(law)(**{name: values[:, None] for name, values in draws.items()})
    point, drawn = scaling_exponents(law, largest), scaling_exponents(sampled, largest)
    flops = largest * np.array(BEYOND)
    best, spread = compute_optimal(law, flops), compute_optimal(sampled, flops)
    return Exponents(
        **{
            name: Spread.of(float(getattr(point, name)), np.asarray(getattr(drawn, name)))
            for name in point._fields
        },
        local=as_power_law(law) is None,
        optimal=tuple(
            OptimalRun(
                flops=float(flops[k]),
                **{
                    name: Spread.of(getattr(best, name)[k], getattr(spread, name)[:, k])
                    for name in best._fields
                },
            )
            for k in range(len(flops))
        ),
    )


def largest_compute(N: Array, D: Array) -> float:
    """Return the largest compute of runs, 6 N D FLOPs."""
    return float(np.max(FLOPS_PER_TOKEN * N * D))
