"""Questions to the planner, and the bounds of the variables they leave open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scaling.calibration.calibration import Calibration
from scaling.calibration.region import Range
from scaling.costs.budget import parse_budget
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import with_numbers
from scaling.costs.scenarios import SCENARIOS, Scenario, scenario
from scaling.errors import InputError
from scaling.open_models import parse_params
from scaling.planner.optimizer import Bounds
from scaling.planner.teacher_catalogue import KnownTeacher, ask_teacher, shared_vocabulary
from scaling.to_plain import as_plain
from scaling.units import (
    Unit,
    check_params,
    format_flops,
    format_number,
    format_power,
    parse_list,
    parse_quantity,
    unit_of,
)

CONSTRAINED = ("student_params", "student_tokens", "teacher_params", "teacher_tokens", "teacher_loss")
LARGEST_BUDGET = 1e36
"""FLOPs; no larger one is asked for, or searched for a target."""
LONGEST_TEACHER = 10.0
"""Factor beyond the longest fitted run up to which a teacher may have been trained, unless asked."""
SIZES = (1e-2, 1e3)
"""Factors below and above all known sizes within which a model may lie, unless the question says."""
CHINCHILLA = 20.0
"""Tokens per parameter of a model trained well, where nothing better is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Question for the best way to train a student on a budget or to a target.

    What is left open is chosen by the planner: the student's size, the budget (given a target), the teacher.

    >>> from scaling import Question
    >>> Question(student_params="300M", budget="1e21").describe()
    '300M student, 1e21 FLOPs (1 ZFLOP)'
    """

    student_params: float | None = None
    """Non-embedding parameters; chosen within the constraints if not given."""
    budget: float | None = None
    """FLOPs for everything that the scenario charges, and for serving ``lifetime_tokens``; a text may give it
    in device hours or dollars (:func:`scaling.costs.budget.parse_budget`)."""
    target_loss: float | None = None
    """nats/token to reach as cheaply as possible, in place of a budget."""
    scenarios: tuple[Scenario, ...] = tuple(SCENARIOS.values())
    """Scenarios of the teacher's costs that are charged; each is answered."""
    law: str | None = None
    """Kind of distillation law; the calibration's default if not given."""
    constraints: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Smallest and largest value by variable (``CONSTRAINED``); ``None`` leaves a side open."""
    teachers: tuple[KnownTeacher, ...] = ()
    """Teachers that exist; then one of them is used and none is trained."""
    family: tuple[float, ...] = ()
    """Sizes of students that share one teacher and the budget, in place of ``student_params``."""
    weights: tuple[float, ...] = ()
    """Weight of the loss of each member of the family; equal if not given."""
    lifetime_tokens: float = 0.0
    """Tokens the student will serve; each costs a forward pass from the budget."""
    student_unique_tokens: float = math.inf
    """Distinct tokens the student can see; more are repetitions."""
    teacher_unique_tokens: float = math.inf
    """Distinct tokens that a teacher can see if it is trained."""
    flops_per_dollar: float = 0.0
    """FLOPs a dollar computes, to weigh logits that are bought against training; 0 leaves prices aside."""
    tolerance: float | None = None
    """nats/token; if given, everything within it of the optimum is explored."""
    architecture: Architecture | None = None
    """Architecture that FLOPs are counted with; the calibration's if not given."""
    vocab: int | None = None
    """Vocabulary of the student, for the FLOPs; if not given, that of teachers given by name, or else the
    architecture's."""
    extrapolate: bool = False
    """True if a teacher that exists may lie outside the fitted runs where no constraint says."""

    def __post_init__(self) -> None:
        self._read()
        for name in ("student_unique_tokens", "teacher_unique_tokens"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: must be positive, not {getattr(self, name)!r}")
        for name in ("lifetime_tokens", "flops_per_dollar"):
            if not 0 <= getattr(self, name) <= LARGEST_BUDGET:
                raise InputError(
                    f"{name}: must lie between 0 and {LARGEST_BUDGET:g}, not {getattr(self, name)!r}"
                )
        if (self.budget is None) == (self.target_loss is None):
            raise InputError("give a budget or a target loss, one of the two")
        if self.budget is not None and self.budget > LARGEST_BUDGET:
            raise InputError(
                f"budget: {format_power(self.budget)} FLOPs is beyond {format_power(LARGEST_BUDGET)}, the "
                "largest taken"
            )
        if not self.scenarios:
            raise InputError("no scenario: name at least one")
        names = [teacher.name for teacher in self.teachers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"teachers: several are called {', '.join(twice)}; give each its own name")
        self._check_family()
        self._check_constraints()

    def _read(self) -> None:
        """Take quantities, scenarios and fixed values as people write them."""
        read: dict[str, object] = {}
        read["budget"] = None if self.budget is None else parse_budget(self.budget).flops
        read["student_params"] = (
            None if self.student_params is None else parse_params(self.student_params, "student_params")
        )
        for name in ("target_loss", "tolerance"):
            value = getattr(self, name)
            read[name] = None if value is None else parse_quantity(value, name, unit_of(name))
        for name in ("lifetime_tokens", "student_unique_tokens", "teacher_unique_tokens"):
            value = getattr(self, name)  # which may be zero, or infinite
            read[name] = parse_quantity(value, name, "tokens", zero=True) if isinstance(value, str) else value
        read["family"] = _several(self.family, "family", "params")
        read["weights"] = _several(self.weights, "weights", "")
        names = (self.scenarios,) if isinstance(self.scenarios, str | Scenario) else self.scenarios
        read["scenarios"] = tuple(
            dict.fromkeys(scenario(each) if isinstance(each, str) else each for each in names)
        )
        teachers = tuple(ask_teacher(each) if isinstance(each, str) else each for each in self.teachers)
        read["teachers"] = teachers
        read["constraints"] = {name: _bounds(name, value) for name, value in self.constraints.items()}
        asked_by_name = any(isinstance(each, str) for each in self.teachers)
        if asked_by_name and self.vocab is None and self.architecture is None:
            read["vocab"] = shared_vocabulary(teachers)
        for name, value in read.items():
            object.__setattr__(self, name, value)
        for size in (*self.family, self.student_params):
            if size is not None:
                check_params(size, "family" if self.family else "student_params")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; what is not limited is None."""
        plain: dict[str, Any] = as_plain(self)
        unlimited = [name for name, value in plain.items() if isinstance(value, float) and math.isinf(value)]
        return plain | dict.fromkeys(unlimited)

    def describe(self, compute: str = "") -> str:
        """Return the question as it was read: ``1B student, 1e21 FLOPs (1 ZFLOP), serving 1T tokens``.

        ``compute`` stands for the budget, where there are several.
        """
        sizes = self.family or (() if self.student_params is None else (self.student_params,))
        target = f"target {self.target_loss:g} nats/token" if self.target_loss is not None else ""
        parts = [
            f"{', '.join(map(format_number, sizes))} student{'s' * (len(sizes) > 1)}" if sizes else "",
            f"weights {', '.join(map(format_number, self.weights))}" if self.weights else "",
            compute or (target if self.budget is None else format_flops(self.budget)),
            *(_bound_text(name, *sides) for name, sides in self.constraints.items()),
            f"serving {format_number(self.lifetime_tokens)} tokens" if self.lifetime_tokens else "",
        ]
        unique = {"": self.student_unique_tokens, " for the teacher": self.teacher_unique_tokens}
        parts += [
            f"{format_number(tokens)} distinct tokens{whose}"
            for whose, tokens in unique.items()
            if math.isfinite(tokens)
        ]
        parts += [f"tolerance {self.tolerance:g} nats/token"] if self.tolerance is not None else []
        return ", ".join(part for part in parts if part)

    def _check_constraints(self) -> None:
        for name, (low, high) in self.constraints.items():
            if name not in CONSTRAINED:
                raise InputError(f"cannot constrain {name!r}; constrain one of {', '.join(CONSTRAINED)}")
            if max(low or 0.0, high or 0.0) > LARGEST_BUDGET:
                raise InputError(f"constraint on {name}: no bound may exceed {format_power(LARGEST_BUDGET)}")
            if low is not None and high is not None and low > high:
                raise InputError(
                    f"constraint on {name}: the smallest value {format_number(low)} exceeds the largest "
                    f"{format_number(high)}"
                )
        low, high = self.constraints.get("student_params", (None, None))
        size = self.student_params
        if size is not None and not (low or 0.0) <= size <= (high or math.inf):
            raise InputError(f"student_params: {size:g} is given, but constrained to {low} to {high}")
        if self.teachers and any(name.startswith("teacher") for name in self.constraints):
            raise InputError("teachers are given: constrain the student only")
        if self.tolerance is not None and (size is None or self.budget is None or self.teachers):
            raise InputError("tolerance: needs a student size and a budget, and no given teachers")
        if self.weights and not self.family:
            raise InputError("weights: belong to a family of students")

    def _check_family(self) -> None:
        if not self.family:
            return
        if self.student_params is not None or self.budget is None or self.teachers or self.lifetime_tokens:
            raise InputError(
                "a family needs a budget, and goes with no student size, teachers or lifetime tokens"
            )
        if "student_tokens" in self.constraints or "student_params" in self.constraints:
            raise InputError("family: sizes are given and tokens shared out, so constrain the teacher only")
        if self.weights and len(self.weights) != len(self.family):
            raise InputError(f"{len(self.family)} students, but {len(self.weights)} weights")
        if not all(math.isfinite(x) and x > 0 for x in (*self.family, *self.weights)):
            raise InputError("family: sizes and weights must be positive and finite")
        if twice := [size for k, size in enumerate(self.family) if size in self.family[:k]]:
            raise InputError(
                f"family: {format_number(twice[0])} is given twice; give each size once, and a student that "
                "counts more a larger weight"
            )

    def counting(self, calibration: Calibration) -> Architecture:
        """Return the architecture to count FLOPs with."""
        architecture = self.architecture or calibration.architecture
        return architecture if self.vocab is None else with_numbers(architecture, vocab=self.vocab)

    def sizes(self, calibration: Calibration) -> Range:
        """Return bounds of the student's parameters; equal ones where it is given."""
        if self.student_params is not None:
            return self.student_params, self.student_params
        region = calibration.region
        known = _spread(region.params, region.student_params, (self._reference_size(),) * 2)
        return _tighten((known[0] * SIZES[0], known[1] * SIZES[1]), self.constraints.get("student_params"))

    def bounds(self, calibration: Calibration, under: Scenario | None = None) -> Bounds:
        """Return bounds of every variable, under one scenario where it matters.

        Those that the question leaves open come from it and from the fitted region. No teacher is trained on
        more than ``LONGEST_TEACHER`` times the tokens of the longest fitted run, or on more than the budget
        would buy the student, whichever is larger. A teacher that exists costs no training, so the longest
        trained one would always be chosen: it stays within the fitted runs, unless ``extrapolate``.
        """
        region = calibration.region
        size = self._reference_size()
        step = float(self.counting(calibration).training_flops(size))
        tokens = CHINCHILLA * size if self.budget is None else self.budget / step
        if tokens < 1:
            raise InputError(
                f"budget {self.budget:g} FLOPs is too small: one token costs this student {step:.3g} FLOPs"
            )
        sizes = _spread(region.params, region.teacher_params, region.student_params, (size, size))
        known = [each for each in (region.tokens, region.teacher_tokens, region.student_tokens) if each]
        longest = max(tokens, LONGEST_TEACHER * max((high for _, high in known), default=tokens))
        defaults = {
            "student_tokens": (1.0, math.inf),
            "teacher_params": (sizes[0] * SIZES[0], sizes[1] * SIZES[1]),
            "teacher_tokens": (1.0, longest),
            "teacher_loss": (0.0, math.inf),
        }
        if under is not None and self.keeps_to_runs(under):
            defaults |= region.teachers()
        asked = {name: _tighten(default, self.constraints.get(name)) for name, default in defaults.items()}
        fewest = asked["student_tokens"][0]
        if self.student_params is not None and self.budget is not None and fewest > tokens * (1 + 1e-9):
            raise InputError(
                f"student_tokens: at least {fewest:.4g} asked for, the budget pays for {tokens:.4g}"
            )
        return Bounds(
            **asked,
            student_unique_tokens=self.student_unique_tokens,
            teacher_unique_tokens=self.teacher_unique_tokens,
            repetition=calibration.repetition_constant,
        )

    def keeps_to_runs(self, scenario: Scenario) -> bool:
        """Return whether the teacher of this scenario stays within the fitted runs: it exists already."""
        return scenario.pretraining == 0 and not self.extrapolate

    def _reference_size(self) -> float:
        """The student's size, or one of its order of magnitude where it is open."""
        if self.student_params is not None:
            return self.student_params
        if self.family:
            return max(self.family)
        low, high = self.constraints.get("student_params", (None, None))
        if low is not None or high is not None:
            return low if high is None else high  # type: ignore[return-value]
        return math.sqrt((self.budget or 1e21) / (6 * CHINCHILLA))


def _bounds(name: str, value: object) -> tuple[float | None, float | None]:
    """The two sides of a constraint; one quantity alone fixes the variable."""
    sides = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(sides) != 2:
        raise InputError(f"constraint on {name}: write (smallest, largest), not {value!r}")
    what, unit = f"constraint on {name}", unit_of(name)
    low, high = (None if side is None else parse_quantity(side, what, unit) for side in sides)
    return low, high


def _bound_text(name: str, low: float | None, high: float | None) -> str:
    """The sides of a constraint in words."""
    what = name.replace("_", " ")
    if low is not None and low == high:
        return f"{what} {format_number(low)}"
    sides = {"from": low, "to": high}
    given = [f"{word} {format_number(side)}" for word, side in sides.items() if side is not None]
    return " ".join([what, *given])


def _several(given: str | Sequence[object], what: str, unit: Unit) -> tuple[float, ...]:
    """Quantities, or one text that lists them."""
    if isinstance(given, str):
        return parse_list(given, what, unit)
    return tuple(parse_quantity(each, what, unit) for each in given)  # type: ignore[arg-type]


def _spread(*ranges: Range | None) -> Range:
    known = [value for bounds in ranges if bounds is not None for value in bounds]
    return min(known), max(known)


def _tighten(default: Range, asked: tuple[float | None, float | None] | None) -> Range:
    """The asked sides in place of the default ones; an asked side may move the other one out of its way."""
    low, high = asked or (None, None)
    if low is None:
        low = default[0] if high is None else min(default[0], high)
    return low, max(default[1], low) if high is None else high
