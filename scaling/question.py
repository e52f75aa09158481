"""What a planner can be asked, and the bounds a question leaves open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scaling.calibration import Calibration, Range
from scaling.compute import FORWARDS_PER_STEP, Architecture
from scaling.errors import InputError
from scaling.optimum import Bounds
from scaling.scenarios import SCENARIOS, Scenario

CONSTRAINED = ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss")
LONGEST_TEACHER = 10.0
"""How many times longer than any known run a teacher may have been trained, unless the question says."""
TEACHER_SIZES = (1e-2, 1e3)
"""How far below and above all known sizes a teacher may lie, unless the question says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A student and a budget: what is the best way to spend it?"""

    student_params: float
    """Non-embedding parameters of the student."""
    budget: float
    """FLOPs for everything that the scenario charges."""
    scenarios: tuple[Scenario, ...] = tuple(SCENARIOS.values())
    law: str | None = None
    """Kind of distillation law; the calibration's default if not given."""
    constraints: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Smallest and largest value by variable (``CONSTRAINED``); ``None`` leaves a side open."""
    student_unique_tokens: float = math.inf
    """Distinct tokens the student can see; more are repetitions."""
    teacher_unique_tokens: float = math.inf
    architecture: Architecture | None = None
    """For FLOPs; the calibration's if not given."""

    def __post_init__(self) -> None:
        for name in ("student_params", "budget", "student_unique_tokens", "teacher_unique_tokens"):
            value = getattr(self, name)
            if not value > 0 or (math.isinf(value) and not name.endswith("unique_tokens")):
                raise InputError(f"{name}: must be positive and finite, not {value!r}")
        for name, (low, high) in self.constraints.items():
            if name not in CONSTRAINED:
                raise InputError(f"cannot constrain {name!r}; constrain one of {', '.join(CONSTRAINED)}")
            if any(side is not None and not side > 0 for side in (low, high)):
                raise InputError(f"constraint on {name}: bounds must be positive, not {low} and {high}")
            if low is not None and high is not None and low > high:
                raise InputError(
                    f"constraint on {name}: the smallest value {low:g} exceeds the largest {high:g}"
                )

    def resolve(self, calibration: Calibration) -> tuple[Architecture, Bounds]:
        """The architecture to count with, and finite bounds for every variable.

        Bounds that the question leaves open come from it and from the fitted region: no teacher is trained on
        more than ``LONGEST_TEACHER`` times the tokens of the longest run that either of them knows.
        """
        architecture = self.architecture or calibration.architecture
        step = FORWARDS_PER_STEP * float(architecture.forward_flops(self.student_params))
        most = self.budget / step
        if most < 1:
            raise InputError(
                f"budget {self.budget:g} FLOPs is too small: one token costs this student {step:.3g} FLOPs"
            )
        region = calibration.region
        sizes = _spread(
            region.params, region.teacher_params, region.student_params, (self.student_params,) * 2
        )
        longest = _spread(region.tokens, region.teacher_tokens, region.student_tokens, (most, most))[1]
        defaults = {
            "student_tokens": (1.0, most),
            "teacher_params": (sizes[0] * TEACHER_SIZES[0], sizes[1] * TEACHER_SIZES[1]),
            "teacher_tokens": (1.0, longest * LONGEST_TEACHER),
            "teacher_loss": (0.0, math.inf),
        }
        asked = {name: _tighten(default, self.constraints.get(name)) for name, default in defaults.items()}
        fewest = asked["student_tokens"][0]
        if fewest > most * (1 + 1e-9):
            raise InputError(
                f"student_tokens: at least {fewest:.4g} asked for, the budget pays for {most:.4g}"
            )
        return architecture, Bounds(
            **asked,
            student_unique_tokens=self.student_unique_tokens,
            teacher_unique_tokens=self.teacher_unique_tokens,
        )


def _spread(*ranges: Range | None) -> Range:
    known = [value for bounds in ranges if bounds is not None for value in bounds]
    return min(known), max(known)


def _tighten(default: Range, asked: tuple[float | None, float | None] | None) -> Range:
    """The asked sides in place of the default ones; an asked side may move the other one out of its way."""
    low, high = asked or (None, None)
    if low is None:
        low = default[0] if high is None else min(default[0], high)
    return low, max(default[1], low) if high is None else high
