"""Search of hyperparameters before a sweep, as a spec describes it."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from sweeps.spec.fields import Count, Number, Quantity, Seeds, SpecModel


class Range(SpecModel):
    """An interval to search."""

    low: Number
    high: Number
    log: bool = False
    """Search in logarithms."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be positive to search in logarithms, not {self.low:g}")
        return self

    def edge(self, value: float, share: float) -> str | None:
        """``lower`` or ``upper`` if ``value`` lies within ``share`` of the interval's end."""
        scale = math.log if self.log else float
        place = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return "lower" if place < share else "upper" if place > 1 - share else None


class Tuning(SpecModel):
    """Search of hyperparameters before the sweep: ranges, proxy size and length, and cap."""

    part = "tuning"

    params: Quantity
    """Size of the proxy; mu-P (simple) carries the learning rate to the others."""
    tokens: Quantity
    """Length of a whole trial."""
    seeds: Seeds = [0]
    """A trial is judged by the mean over these."""
    trials: Count = Field(16, ge=1)
    """Trials of the training rules, and again of each method."""
    max_flops: Quantity | None = None
    """Cap on the FLOPs of each search."""
    learning_rate: Range | None = Range(low=0.002, high=0.05, log=True)
    """Peak learning rates at the base width."""
    batch_tokens: list[Quantity] | None = None
    """Batch sizes to choose from."""
    temperature: Range | None = None
    """Temperatures, for every method."""
    cross_entropy: Range | None = None
    """Weights of the data's own labels, for every method."""
