"""Decision of ``training.compile: auto``: compile a size where that saves more time than it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from scaling.units import format_number
from sweeps.dag.expand import Dag, Step
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.spec import Sweep

TRANSLATION_SECONDS = 20.0
"""CPU seconds to translate one function of one shape where none was measured: 9 to 25 s."""
GAINS = {
    "fp32": ((13e3, 2.2), (107e3, 1.8), (1e6, 1.35)),
    "bf16": ((13e3, 2.2), (107e3, 1.9), (1e6, 1.5)),
}
"""Speed of compiled relative to plain training by parameters, where none was measured; interpolated in
logarithms, constant beyond. Two Intel Xeons and an AMD EPYC, ``benchmarks/training_results.md``."""
CORE_FLOPS = 3.5e10
"""FLOP/s of plain training on one core where none was measured."""
MARGIN = 1.25
"""Savings over cost, from which on a size is compiled."""

Seconds = Callable[[Step], float]
"""CPU seconds of training a step without compilation."""


class Function(NamedTuple):
    """Function that is translated once for a kind of machine."""

    params: int
    """Size of the model."""
    name: str
    """Training by a method, or reading as a teacher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompilerCost:
    """Cost and gain of compiling on a kind of machine."""

    translation_seconds: float = TRANSLATION_SECONDS
    """CPU seconds to translate one function of one shape."""
    gain_factor: float = 1.0
    """Gain measured here over that of the table."""
    measured: bool = False
    """True if both were measured on a machine; else they are the table's."""

    def gain(self, params: float, precision: str) -> float:
        """Return the speed of compiled relative to plain training, at least 1."""
        return max(1.0, self.gain_factor * table_gain(params, precision))


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileChoice:
    """Decision for one size of a sweep."""

    params: int
    saves: float
    """CPU seconds saved over all its runs."""
    costs: float
    """CPU seconds that translating takes, once for a kind of machine."""

    compiles: bool
    """True if it is compiled."""
    possible: bool = True
    """True if the machine that decided can compile."""

    @classmethod
    def of(cls, params: int, saves: float, costs: float) -> CompileChoice:
        """Return the decision that follows from what compiling saves and costs."""
        return cls(params=params, saves=saves, costs=costs, compiles=saves > MARGIN * costs)

    def without_compiler(self) -> CompileChoice:
        """Return the decision on a machine that cannot compile."""
        return replace(self, compiles=False, possible=False)

    def as_json(self) -> dict[str, Any]:
        """Return the decision for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> CompileChoice:
        """Return the decision that :meth:`as_json` wrote."""
        return cls(**{each.name: record[each.name] for each in fields(cls) if each.name in record})

    def __str__(self) -> str:
        what = "saves" if self.possible else "(no compiler works here) would save"
        return f"{format_number(self.params)} {what} {self.saves:.0f} s for {self.costs:.0f} s"


def choose_sizes(
    dag: Dag, sweep: Sweep, cost: CompilerCost | None = None, seconds: Seconds | None = None
) -> tuple[CompileChoice, ...]:
    """Return the decision for each size that our own loop trains; none if losses cannot be compiled.

    Args:
        dag: The steps without compilation.
        sweep: Their spec.
        cost: Cost and gain of compiling; the table's if not given.
        seconds: CPU seconds of training a step; FLOPs at the table's rate if not given.
    """
    if any(method.auxiliary_losses for _, method in sweep.methods_given()):
        return ()
    cost, seconds = cost or CompilerCost(), seconds or table_seconds
    trained = [step for step in dag.steps if step.kind.trains and not step.trainer]
    found = []
    functions = {function for step in trained for function in functions_of(step)}
    for params in sorted({step.shape.params for step in trained}):
        own = [step for step in trained if step.shape.params == params]
        precision = own[0].training.precision
        total = sum(seconds(step) for step in own)
        translated = sum(function.params == params for function in functions)
        found.append(
            CompileChoice.of(
                params,
                saves=total * (1 - 1 / cost.gain(params, precision)),
                costs=translated * cost.translation_seconds,
            )
        )
    return tuple(found)


def table_seconds(step: Step) -> float:
    """Return CPU seconds of training a step at the table's rate."""
    return step.shape.training_flops(step.tokens_to_train) * step.passes.trained / CORE_FLOPS


def table_gain(params: float, precision: str) -> float:
    """Return the table's speed of compiled relative to plain training.

    >>> table_gain(13e3, "fp32"), round(table_gain(37.3e3, "fp32"), 2), table_gain(1e9, "bf16")
    (2.2, 1.99, 1.5)
    """
    table = GAINS[precision]
    low = max((each for each in table if each[0] <= params), default=table[0])
    high = min((each for each in table if each[0] >= params), default=table[-1])
    if low[0] >= high[0]:
        return (low if params >= low[0] else high)[1]
    share = math.log(params / low[0]) / math.log(high[0] / low[0])
    return low[1] ** (1 - share) * high[1] ** share


def compiled_params(choices: tuple[CompileChoice, ...]) -> list[float]:
    """Return the sizes that are compiled, as ``training.compile`` lists them."""
    return [float(each.params) for each in choices if each.compiles]


def choice_lines(choices: tuple[CompileChoice, ...]) -> Iterator[str]:
    """Yield which sizes are compiled and which are not, with what that saves and costs."""
    for compiles, words in ((True, "compiled"), (False, "not compiled")):
        if found := [str(each) for each in choices if each.compiles is compiles]:
            yield f"{words}: {'; '.join(found)}"


def functions_of(step: Step) -> Iterator[Function]:
    """Yield the functions that a step needs, where its size and its teacher's are compiled."""
    if step.kind.trains and not step.trainer:
        yield Function(step.shape.params, _training_function(step))
    if step.teacher and step.tokens_to_teach:
        yield Function(step.teacher.shape.params, "teacher")


def _training_function(step: Step) -> str:
    """Return what tells functions apart that are translated for one shape: method and target."""
    if step.method is None:
        return "supervised"
    target = f"{step.method.logits} {parts_of(step.method).target}"
    return f"{step.method.model_dump_json(exclude_defaults=True)} {target}"
