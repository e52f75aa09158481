"""Parts of a method from its fields: the one place that asks which target, source and divergence it has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sweeps.spec.method.interfaces import (
    AuxiliaryLoss,
    Divergence,
    Hook,
    InitialWeights,
    MethodPart,
    Metric,
    SequenceSource,
    Target,
)
from sweeps.spec.method.registry import STANDARD_METRICS, Use, shipped_part

if TYPE_CHECKING:
    from sweeps.spec.method.method import Method

Kind = TypeVar("Kind", bound=MethodPart)


class MethodParts:
    """Parts of a method, each found when it is first asked for."""

    def __init__(self, method: Method) -> None:
        self.method = method

    @cached_property
    def divergence(self) -> Divergence:
        """Distance that is minimized."""
        slot, name = ("taid", "taid") if self.method.taid else ("divergence", self.method.divergence)
        return cast("Divergence", self._part(slot, name))

    @cached_property
    def target(self) -> Target:
        """Distribution that the student is pulled to."""
        name: str | Use = (
            "neighbours" if self.method.neighbours else "delta" if self.method.delta else "teacher"
        )
        return cast("Target", self._part("target", self.method.target or name))

    @cached_property
    def source(self) -> SequenceSource:
        """Text that the student is trained on."""
        given = self.method.source
        return cast("SequenceSource", self._part("source", given if isinstance(given, Use) else given.by))

    @cached_property
    def auxiliary_losses(self) -> dict[str, AuxiliaryLoss]:
        """Losses beside the one on tokens, by name."""
        return cast("dict[str, AuxiliaryLoss]", self._listed("auxiliary_losses"))

    @cached_property
    def hooks(self) -> dict[str, Hook]:
        """Hooks after every update, in this order, by name."""
        return cast("dict[str, Hook]", self._listed("hooks"))

    @cached_property
    def metrics(self) -> list[Metric]:
        """Metrics of every student, and the method's own."""
        own = [cast("Metric", self._part("metrics", each)) for each in self.method.metrics]
        return [*(cast("Metric", self._part("metrics", name)) for name in STANDARD_METRICS), *own]

    @cached_property
    def initial_weights(self) -> InitialWeights | None:
        """Weights that the student begins with, if they are not drawn."""
        given = self.method.initial_weights
        return None if given is None else cast("InitialWeights", self._part("initial_weights", given))

    def __iter__(self) -> Iterator[MethodPart]:
        yield from (self.divergence, self.source, self.target)
        yield from (*self.auxiliary_losses.values(), *self.hooks.values(), *self.metrics)
        if self.initial_weights:
            yield self.initial_weights

    @property
    def depends_on_total_steps(self) -> bool:
        """True if a run's first steps depend on how long it will be, so that it shares no prefix."""
        return any(part.depends_on_total_steps for part in self)

    def _part(self, slot: str, given: str | Use) -> MethodPart:
        if isinstance(given, Use):
            return given.part_in(slot)
        return shipped_part(slot, given).from_method(self.method)

    def _listed(self, slot: str) -> dict[str, Any]:
        return {
            f"{slot}.{number}": self._part(slot, each)
            for number, each in enumerate(getattr(self.method, slot))
        }


@lru_cache(maxsize=4096)
def parts_of(method: Method) -> MethodParts:
    """Return the parts of ``method``.

    Raises:
        InputError: When a part of another module is asked for that cannot be imported here.
    """
    return MethodParts(method)
