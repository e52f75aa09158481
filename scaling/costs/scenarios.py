"""Scenarios: which of a teacher's costs a student pays (Busbridge et al. 2025, Eq. 9 and Table 2).

``FLOPs = 3 F(N_S) D_S + F(N_T) (logits D_S + pretraining 3 D_T)``

:func:`cost` is the only spelling of this equation; :func:`rates` are its FLOPs a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.costs.flops import FORWARDS_PER_STEP
from scaling.errors import InputError
from scaling.units import parse_number

Array = NDArray[np.float64]


class Shares(Protocol):
    """Shares, from 0 to 1, of the teacher's two costs that are charged; floats or arrays."""

    @property
    def logits(self) -> Any:
        """Share of the forward passes that produce the teacher's distributions."""

    @property
    def pretraining(self) -> Any:
        """Share of the teacher's training."""


class Rates(NamedTuple):
    """FLOPs that are charged for one token."""

    student: Array
    """Training the student on it, ``3 F_S``."""
    logits: Array
    """The teacher's distribution at it, ``logits F_T``."""
    teacher: Array
    """Training the teacher on it, ``pretraining 3 F_T``."""


class Cost(NamedTuple):
    """FLOPs that are charged, by part."""

    student: Array
    """Training the student."""
    logits: Array
    """Forward passes of the teacher over the student's tokens."""
    teacher: Array
    """Training the teacher."""


def rates(shares: Shares, F_S: ArrayLike, F_T: ArrayLike) -> Rates:
    """Return the FLOPs charged for one token, under a scenario or any other ``shares``.

    Args:
        shares: Shares of the teacher's costs that are charged.
        F_S: FLOPs of the student's forward pass over one token.
        F_T: FLOPs of the teacher's. Of a mixture of experts, those of the experts that a token meets.
    """
    F_S, F_T = np.asarray(F_S, dtype=np.float64), np.asarray(F_T, dtype=np.float64)
    return Rates(
        student=np.asarray(FORWARDS_PER_STEP * F_S),
        logits=_charged(shares.logits, shares.logits * F_T),
        teacher=_charged(shares.pretraining, shares.pretraining * FORWARDS_PER_STEP * F_T),
    )


def cost(shares: Shares, F_S: ArrayLike, D_S: ArrayLike, F_T: ArrayLike, D_T: ArrayLike) -> Cost:
    """Return the FLOPs charged for a distillation (Eq. 9), under a scenario or any other ``shares``.

    Everything broadcasts. A part whose share is 0 costs 0, also where ``F_T`` or ``D_T`` is nan: unknown.

    Args:
        shares: Shares of the teacher's costs that are charged.
        F_S: FLOPs of the student's forward pass over one token.
        D_S: Tokens of the student.
        F_T: FLOPs of the teacher's forward pass over one token.
        D_T: Tokens of the teacher.

    >>> parts = cost(INFERENCE, 2e9, 1e9, 1.4e10, float("nan"))
    >>> [f"{float(part):.1e}" for part in parts]
    ['6.0e+18', '1.4e+19', '0.0e+00']
    """
    per_token = rates(shares, F_S, F_T)
    D_S, D_T = np.asarray(D_S, dtype=np.float64), np.asarray(D_T, dtype=np.float64)
    return Cost(
        student=np.asarray(per_token.student * D_S),
        logits=np.asarray(per_token.logits * D_S),
        teacher=_charged(shares.pretraining, per_token.teacher * D_T),
    )


def _charged(share: Any, flops: Array) -> Array:
    """Return ``flops``, or 0 where the share of them that is charged is 0, even if they are nan."""
    return np.where(np.equal(share, 0.0), 0.0, flops)


def teacher_is_free(shares: Shares) -> NDArray[np.bool_]:
    """Return whether any teacher costs nothing, for every entry of the ``shares``."""
    return np.asarray(np.equal(shares.logits, 0.0) & np.equal(shares.pretraining, 0.0))


@dataclass(frozen=True, slots=True)
class Scenario:
    """Named shares, from 0 to 1, of the teacher's two costs that are charged to the student.

    Raises:
        InputError: For a share outside 0 to 1.

    >>> from scaling import SCENARIOS
    >>> SCENARIOS["teacher_inference"]
    Scenario(name='teacher_inference', logits=1.0, pretraining=0.0)
    """

    name: str
    logits: float
    """Share of the forward passes that produce the teacher's distributions; 0 where they exist already."""
    pretraining: float
    """Share of the teacher's training; 1/k where k students share it."""

    def __post_init__(self) -> None:
        for what in ("logits", "pretraining"):
            share = getattr(self, what)
            if not (math.isfinite(share) and 0 <= share <= 1):
                raise InputError(f"scenario {self.name}: {what} must be a share from 0 to 1, not {share!r}")

    @property
    def title(self) -> str:
        """Description of the scenario, or its name where it has shares of its own."""
        return scenario_title(self.name)

    def amortized(self, students: int) -> Scenario:
        """Return what each of several ``students`` pays of a teacher that is trained once for all of them."""
        return Scenario(self.name, self.logits, self.pretraining / students)


BEST_CASE = Scenario("best_case", 0.0, 0.0)
INFERENCE = Scenario("teacher_inference", 1.0, 0.0)
PRETRAINING = Scenario("teacher_pretraining", 0.0, 1.0)
BOTH = Scenario("teacher_pretraining_and_inference", 1.0, 1.0)
SCENARIOS = {scenario.name: scenario for scenario in (BEST_CASE, INFERENCE, PRETRAINING, BOTH)}

DESCRIPTIONS = {
    "best_case": "teacher and logits free",
    "teacher_inference": "teacher exists, logits paid",
    "teacher_pretraining": "teacher trained, logits free",
    "teacher_pretraining_and_inference": "teacher trained, logits paid",
}


def scenario_title(name: str) -> str:
    """Return the description of a scenario of this name, or the name itself where there is none."""
    return DESCRIPTIONS.get(name, name)


_BY_SPELLING = {words.replace("_", " "): key for key, title in DESCRIPTIONS.items() for words in (key, title)}


def scenario(name: str) -> Scenario:
    """Return the scenario of a name.

    Args:
        name: a key of :data:`SCENARIOS` (``teacher_inference``, also ``teacher-inference``), the words that
            plans print for it (``teacher exists, logits paid``), or ``amortized:LOGITS,PRETRAINING`` with two
            shares from 0 to 1.

    Raises:
        InputError: for any other name or share.

    >>> scenario("teacher exists, logits paid") == scenario("teacher_inference")
    True
    >>> scenario("amortized:1,0.25").pretraining
    0.25
    """
    kind, _, shares = name.partition(":")
    if kind in ("amortized", "amortised"):
        given = shares.split(",")
        if len(given) != 2:
            raise InputError(f"scenario {name!r}: write amortized:LOGITS,PRETRAINING, e.g. amortized:1,0.25")
        logits, pretraining = (parse_number(share, f"scenario {name!r}") for share in given)
        return Scenario(name, logits, pretraining)
    key = _BY_SPELLING.get(" ".join(name.lower().replace("_", " ").replace("-", " ").split()))
    if key is None:
        raise InputError(
            f"unknown scenario {name!r}; there are {', '.join(SCENARIOS)} and amortized:LOGITS,PRETRAINING"
        )
    return SCENARIOS[key]
