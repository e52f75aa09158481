"""Which of a teacher's costs a student pays (Busbridge et al. 2025, Eq. 9 and Table 2).

``FLOPs = 3 F(N_S) D_S + F(N_T) (logits D_S + pretraining 3 D_T)``
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scaling.errors import InputError
from scaling.units import parse_number


@dataclass(frozen=True, slots=True)
class Scenario:
    """Shares, from 0 to 1, of the teacher's two costs that are charged to the student."""

    name: str
    logits: float
    """Of the forward passes that produce the teacher's distributions; 0 where they exist already."""
    pretraining: float
    """Of training the teacher; 1/k where k students share it."""

    def __post_init__(self) -> None:
        for what in ("logits", "pretraining"):
            share = getattr(self, what)
            if not (math.isfinite(share) and 0 <= share <= 1):
                raise InputError(f"scenario {self.name}: {what} must be a share from 0 to 1, not {share!r}")

    @property
    def teacher_is_free(self) -> bool:
        """Whether any teacher costs nothing."""
        return self.logits == 0 and self.pretraining == 0


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
