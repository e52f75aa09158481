"""Translation of compiled sizes as a part of planned time: which step is the first to need a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sweeps.dag.compile_choice import CompilerCost, Function, functions_of
from sweeps.dag.expand import Dag, Step
from sweeps.estimate.cost import Cost
from sweeps.estimate.probes.compiler_probe import probed_step, remembered_cost
from sweeps.spec.spec import Sweep

GPU_TRANSLATION_SECONDS = 40.0
"""Seconds to compile one function for a GPU; not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """Functions that steps translate to machine code, once for a kind of machine, and what that takes."""

    functions: int
    seconds: float
    """CPU seconds of all of them."""
    measured: bool
    """True if a translation was timed on this machine."""

    def __str__(self) -> str:
        what = f"{self.functions} functions are" if self.functions > 1 else "one function is"
        basis = "as timed here" if self.measured else "assumed"
        return (
            f"{what} translated, about {self.seconds:.0f} s of a core, {basis}; part of the time, and spared "
            "where this kind of machine has them"
        )


def translation_of(steps: Iterable[Step], before: Iterable[Step], cost: CompilerCost) -> Translation | None:
    """Return what ``steps`` translate that those done ``before`` did not; None if nothing is compiled."""
    count = sum(first_needed(steps, before).values())
    if not count:
        return None
    return Translation(functions=count, seconds=count * cost.translation_seconds, measured=cost.measured)


def first_needed(steps: Iterable[Step], before: Iterable[Step] = ()) -> dict[str, int]:
    """Return how many functions each step is the first to need, by its id; those of ``before`` are there."""
    known = {function for step in before for function in _compiled_functions(step)}
    found = {}
    for step in steps:
        new = _compiled_functions(step) - known
        found[step.id], known = len(new), known | new
    return found


def compiler_cost_for(sweep: Sweep, dag: Dag) -> CompilerCost:
    """Return cost and gain of compiling where a sweep is planned: as timed before, or the table's."""
    if sweep.hardware.gpu:
        return CompilerCost(translation_seconds=GPU_TRANSLATION_SECONDS)
    step = probed_step(dag) if any(step.training.compile for step in dag.steps) else None
    return (step and remembered_cost(step)) or CompilerCost()


def compiled_seconds(
    plain: Cost, training: Callable[[Step], float], translated: dict[str, int], cost: CompilerCost
) -> Cost:
    """Return the seconds of steps of which some are compiled.

    Args:
        plain: Seconds of a step without compilation.
        training: Those of them in which it trains, which compiling makes fewer.
        translated: Functions that each step translates, by its id.
        cost: Cost and gain of compiling.
    """

    def seconds(step: Step) -> float:
        found = plain(step) + translated.get(step.id, 0) * cost.translation_seconds
        if not step.training.compile or step.trainer:
            return found
        gain = cost.gain(step.shape.params, step.training.precision)
        return found - training(step) * (1 - 1 / gain)

    return seconds


def _compiled_functions(step: Step) -> set[Function]:
    sizes = {each.shape.params for each in (step, step.teacher) if each and each.training.compile}
    return {function for function in functions_of(step) if function.params in sizes}
