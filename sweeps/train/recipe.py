"""Recipe of a run: all that its numbers follow from, beside its data and target."""

from __future__ import annotations

from dataclasses import dataclass

from scaling.costs.flops import ModelShape
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Training


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecipe:
    """Recipe of a run, of which with its data it is a function on one device, bit for bit."""

    shape: ModelShape
    steps: int
    """Optimizer steps of the whole schedule."""
    training: Training
    seed: int
    """Seed of the initialization."""
    method: Method | None = None
    """Method by which it follows a target, if it has one."""
    stop: int | None = None
    """Optimizer step to end at in the midst of the schedule, for others to go on from."""

    @property
    def end(self) -> int:
        """The optimizer step it ends at."""
        return self.steps if self.stop is None else self.stop
