"""Answers of the planner: verdicts, costs, losses, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from scaling.calibration.region import is_too_far
from scaling.costs.flops_assumptions import Accounting
from scaling.costs.scenarios import scenario_title
from scaling.to_plain import as_plain

if TYPE_CHECKING:
    import pandas

    from scaling.figures.plan import PlanPlots

CONFIDENT = 0.9
"""Probability from which a verdict is given; below it and above 1 - it, the call is too close."""
NEGLIGIBLE = 0.005
"""nats/token; a difference that no calibration without draws can tell from nothing."""
DISTIL, DIRECT, CLOSE = "distil", "train directly", "too close to call"
UNKNOWN, INCREDIBLE = (
    "no answer, too far outside the fitted runs",
    "no answer, the loss is not credible",
)
REFUSED = "no answer, the teacher is better than any that the law was fitted to"

COLUMNS = (
    *("way", "verdict", "probability_distil", "loss_nats", "loss_low", "loss_high", "gain_nats"),
    *("student_params", "student_tokens", "teacher_params", "teacher_tokens", "teacher_loss_nats"),
    *("student_flops", "logits_flops", "teacher_flops", "serving_flops", "flops"),
    *("logits_dollars", "outside_region"),
)
"""Columns of a plan's flat rows."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 90 % interval; ``None`` where the calibration carries no uncertainty.

    >>> from scaling import Estimate
    >>> print(Estimate(2.3651, 2.3482, 2.3806), Estimate(2.3651))
    2.365 [2.348, 2.381] 2.365
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Direct:
    """A student trained without a teacher."""

    params: float
    tokens: float
    loss: Estimate
    """Held-out cross-entropy, nats/token."""
    training_flops: float
    serving_flops: float = 0.0
    """Forward passes over the tokens it will serve."""
    outside: Mapping[str, float] = field(default_factory=dict)
    """Factor by which each variable lies outside the fitted region; 1 is inside."""

    @property
    def flops(self) -> float:
        """FLOPs of everything that is charged."""
        return self.training_flops + self.serving_flops

    @property
    def own_flops(self) -> float:
        """FLOPs on one's own devices: everything."""
        return self.flops

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the compute, as :attr:`Distillation.shares`."""
        serving = self.serving_flops / self.flops
        return (1 - serving, 0.0, 0.0, serving) if serving else (1.0, 0.0, 0.0)

    @property
    def known(self) -> bool:
        """True if it lies near enough to the fitted runs."""
        return not is_too_far(self.outside)


@dataclass(frozen=True, kw_only=True, slots=True)
class NearOptimal:
    """Decisions within a chosen loss of an optimum, which is flat."""

    tolerance: float
    """nats/token above the optimum."""
    ranges: Mapping[str, Interval]
    """Smallest and largest value of each variable, the others being chosen anew."""
    cheapest_flops: float
    """The least compute that stays within."""
    ladder: tuple[Mapping[str, float], ...] = ()
    """Teachers of real architectures within: ``layers``, ``params``, ``tokens``, ``loss``; best first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """One way to distil a student, with the direct training of equal compute beside it."""

    name: str
    """The scenario, the teacher, or the member of the family."""
    params: float
    tokens: float
    teacher_params: float
    teacher_tokens: float | None
    """``None`` where a known teacher's are unknown."""
    teacher_loss: float
    """nats/token."""
    loss: Estimate
    """The student's held-out cross-entropy, nats/token."""
    student_flops: float
    logits_flops: float
    """Charged forward passes of the teacher."""
    teacher_flops: float
    """Charged training of the teacher."""
    serving_flops: float
    """Forward passes of the student over the tokens it will serve."""
    direct: Direct
    """Training directly with equal compute."""
    gain: Estimate
    """Loss of direct training minus this one's, nats/token: positive where distilling is better."""
    same_data_loss: float
    """Loss of direct training on the same student tokens, which costs less compute."""
    probability: float | None
    """Probability that the distilled student ends below the directly trained one; ``None`` if unknown."""
    by_law: Mapping[str, float]
    """The student's loss under each law of the calibration."""
    ranges: Mapping[str, Interval] = field(default_factory=dict)
    """90 % of the decisions that would be optimal if a draw were the truth, by variable."""
    outside: Mapping[str, float] = field(default_factory=dict)
    """Factor by which each variable lies outside the fitted region; 1 is inside."""
    dollars: float | None = None
    """Price of the teacher's logits where somebody else serves it, US dollars; ``logits_flops`` are then what
    that money buys, or 0 where that is unknown."""
    near: NearOptimal | None = None
    refused: bool = False
    """True if the law that decided says nothing of teachers so much better than those it was fitted to."""
    floor: float = 0.0
    """Loss that direct training of this size approaches with unlimited data, nats/token."""
    warnings: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """FLOPs of everything that is charged."""
        return self.student_flops + self.logits_flops + self.teacher_flops + self.serving_flops

    @property
    def own_flops(self) -> float:
        """FLOPs on one's own devices: everything but logits that somebody else serves."""
        return self.flops if self.dollars is None else self.flops - self.logits_flops

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of all that is charged: student training, teacher's logits, teacher's training, and serving
        where the student serves tokens.
        """
        parts = [self.student_flops, self.logits_flops, self.teacher_flops, self.serving_flops]
        return tuple(part / self.flops for part in (parts if self.serving_flops else parts[:3]))

    @property
    def title(self) -> str:
        """The name, in words where it is a scenario."""
        return scenario_title(self.name)

    @property
    def credible(self) -> bool:
        """True if the loss respects what unlimited data would give; a law extrapolated far may not."""
        return self.loss.value >= self.floor

    @property
    def known(self) -> bool:
        """True if this way and the direct training beside it lie near enough to the fitted runs."""
        return not is_too_far(self.outside) and self.direct.known

    @property
    def answered(self) -> bool:
        """True if a verdict can rest on this."""
        return self.credible and self.known and not self.refused

    @property
    def verdict(self) -> str:
        """``distil``, ``train directly``, ``too close to call``, or why there is no answer."""
        if not self.answered:
            return INCREDIBLE if not self.credible else REFUSED if self.known else UNKNOWN
        if self.probability is None:
            if abs(self.gain.value) < NEGLIGIBLE:
                return CLOSE
            return DISTIL if self.gain.value > 0 else DIRECT
        if self.probability >= CONFIDENT:
            return DISTIL
        return DIRECT if self.probability <= 1 - CONFIDENT else CLOSE

    def row(self) -> dict[str, Any]:
        """Return one flat row; numbers in full, units in the names."""
        return {
            "way": self.name,
            "verdict": self.verdict,
            "probability_distil": self.probability,
            **_loss_columns(self.loss),
            "gain_nats": self.gain.value,
            "student_params": self.params,
            "student_tokens": self.tokens,
            "teacher_params": self.teacher_params,
            "teacher_tokens": self.teacher_tokens,
            "teacher_loss_nats": self.teacher_loss,
            "student_flops": self.student_flops,
            "logits_flops": self.logits_flops,
            "teacher_flops": self.teacher_flops,
            "serving_flops": self.serving_flops,
            "flops": self.flops,
            "logits_dollars": self.dollars,
            "outside_region": max(self.outside.values(), default=None),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The answer to a question: direct training and the ways to distil.

    >>> from scaling import Question, plan
    >>> answer = plan(Question(student_params="300M", budget="1e21", scenarios="teacher_inference"))
    >>> answer.to_frame()["way"].tolist(), answer.plot.names()
    (['direct', 'teacher_inference'], ['decisions', 'losses', 'shares'])
    """

    calibration: str
    """Name of the calibration."""
    law: str | None
    """Kind of distillation law; ``None`` for a calibration of supervised training alone."""
    budget: float | None
    """FLOPs; ``None`` where a target was given instead."""
    target_loss: float | None
    """nats/token."""
    direct: tuple[Direct, ...]
    """Training directly: one student, or each member of a family; none where a target is out of reach."""
    distillations: tuple[Distillation, ...]
    """One a scenario or known teacher, and a member of a family."""
    asked: str = ""
    """The question in words, as it was read."""
    question: Mapping[str, Any] = field(default_factory=dict)
    """The question's numbers; None where there is no limit."""
    unreachable: Mapping[str, float] = field(default_factory=dict)
    """Ways that cannot reach the target, with the loss at which they stop, nats/token."""
    student_unique_tokens: float | None = None
    """Distinct tokens for the student, where they are limited."""
    accounting: Accounting | None = None
    """Numbers that FLOPs are counted with, and their origins."""
    assumptions: tuple[str, ...] = ()
    """Assumptions, in sentences."""
    warnings: tuple[str, ...] = ()
    """Warnings, in sentences."""

    def epochs(self, tokens: float) -> float:
        """Return how often the student sees its data; 1 where that is not limited."""
        return max(1.0, tokens / self.student_unique_tokens) if self.student_unique_tokens else 1.0

    @property
    def headline(self) -> str:
        """The verdict in one sentence per kind of answer, the cheapest way to a target, the extrapolation."""
        from scaling.reports.verdict import headline

        return headline(self)

    def ranked(self) -> Plan:
        """Return the plan with the best way to distil first: least compute for a target, else least loss.

        Ways without an answer come last.
        """

        def merit(way: Distillation) -> tuple[bool, float]:
            return not way.answered, way.loss.value if self.target_loss is None else way.flops

        return replace(self, distillations=tuple(sorted(self.distillations, key=merit)))

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row per way, direct training first; numbers in full, units in the names."""
        ways = [way.row() for way in self.distillations]
        firsts = [
            {
                "way": "direct",
                **_loss_columns(way.loss),
                "gain_nats": 0.0,
                "student_params": way.params,
                "student_tokens": way.tokens,
                "student_flops": way.training_flops,
                "serving_flops": way.serving_flops,
                "flops": way.flops,
                "outside_region": max(way.outside.values(), default=None),
            }
            for way in self.direct
        ]
        return [{name: first.get(name) for name in COLUMNS} for first in firsts] + ways

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        content: dict[str, Any] = as_plain(self)
        content["headline"] = self.headline
        for way, values in zip(self.distillations, content["distillations"], strict=True):
            values["verdict"] = way.verdict
            values["flops"] = way.flops
        return content

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

    @property
    def plot(self) -> PlanPlots:
        """The figures of this plan: :class:`scaling.figures.plan.PlanPlots` lists them."""
        from scaling.figures.plan import PlanPlots

        return PlanPlots(self)

    def __str__(self) -> str:
        from scaling.reports.plan_brief import plan_brief

        return plan_brief(self).rstrip()

    def _repr_html_(self) -> str:
        from scaling.reports.plan_text import plan_html

        return plan_html(self)


def _loss_columns(loss: Estimate) -> dict[str, float | None]:
    return {"loss_nats": loss.value, "loss_low": loss.low, "loss_high": loss.high}
