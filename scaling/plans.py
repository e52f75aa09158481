"""The planner's answer: what to do, at what cost, with which loss, and how far to trust it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from scaling.scenarios import DESCRIPTIONS
from scaling.units import format_flops, format_number

if TYPE_CHECKING:
    import pandas

CONFIDENT = 0.9
"""Probability from which a verdict is given; below it and above 1 - it, the call is too close."""
NEGLIGIBLE = 0.005
"""nats/token; a difference that no calibration without draws can tell from nothing."""
FAR = 1.5
"""A variable outside the fitted region by more than this factor is reported."""
DISTIL, DIRECT, CLOSE = "distil", "train directly", "too close to call"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 90 % interval; ``None`` where the calibration carries no uncertainty."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Direct:
    """The student trained without a teacher on the whole budget."""

    params: float
    tokens: float
    loss: Estimate
    """Held-out cross-entropy, nats/token."""
    flops: float
    outside: Mapping[str, float] = field(default_factory=dict)
    """By how many times each variable lies outside the fitted region; 1 is inside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """One way to distil the student, with the direct training of equal compute beside it."""

    name: str
    """The scenario, or the teacher's name."""
    params: float
    tokens: float
    teacher_params: float
    teacher_tokens: float
    teacher_loss: float
    """nats/token."""
    loss: Estimate
    """The student's held-out cross-entropy, nats/token."""
    student_flops: float
    logits_flops: float
    """Charged forward passes of the teacher."""
    teacher_flops: float
    """Charged training of the teacher."""
    gain: Estimate
    """Loss of direct training minus this one's, nats/token: positive where distilling is better."""
    same_data_loss: float
    """Loss of direct training on the same student tokens, which costs less compute."""
    probability: float | None
    """That the distilled student ends below the directly trained one; ``None`` without uncertainty."""
    by_law: Mapping[str, float]
    """The student's loss under each law of the calibration."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """90 % of the decisions that would be optimal if a draw were the truth, by variable."""
    outside: Mapping[str, float] = field(default_factory=dict)
    """By how many times each variable lies outside the fitted region; 1 is inside."""
    warnings: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """Everything that is charged."""
        return self.student_flops + self.logits_flops + self.teacher_flops

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the compute: student training, teacher logits, teacher training."""
        total = self.flops
        return self.student_flops / total, self.logits_flops / total, self.teacher_flops / total

    @property
    def verdict(self) -> str:
        """``distil``, ``train directly`` or ``too close to call``."""
        if self.probability is None:
            if abs(self.gain.value) < NEGLIGIBLE:
                return CLOSE
            return DISTIL if self.gain.value > 0 else DIRECT
        if self.probability >= CONFIDENT:
            return DISTIL
        return DIRECT if self.probability <= 1 - CONFIDENT else CLOSE

    def row(self) -> dict[str, Any]:
        """One flat row; numbers in full, units in the names."""
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
            "flops": self.flops,
            "outside_region": max(self.outside.values(), default=None),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The answer to a question: direct training and the ways to distil, best first where they compete."""

    calibration: str
    law: str
    budget: float
    """FLOPs."""
    direct: Direct
    distillations: tuple[Distillation, ...]
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The verdict in one sentence per kind of answer, and how far it is extrapolated."""
        groups: dict[str, list[Distillation]] = {}
        for way in self.distillations:
            groups.setdefault(way.verdict, []).append(way)
        sentences = [
            f"{verdict.capitalize()}{_probabilities(ways)}"
            + (f": {'; '.join(_title(way.name) for way in ways)}." if len(groups) > 1 else ".")
            for verdict, ways in groups.items()
        ]
        farthest = max((f for way in self.distillations for f in way.outside.values()), default=1.0)
        if farthest > FAR:
            sentences.append(f"Extrapolated up to {farthest:.2g}x beyond the fitted runs.")
        return " ".join(sentences or ["Train directly: no teacher satisfies the constraints."])

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per way, direct training first; numbers in full, units in the names."""
        direct = self.direct
        first = {
            "way": "direct",
            **_loss_columns(direct.loss),
            "gain_nats": 0.0,
            "student_params": direct.params,
            "student_tokens": direct.tokens,
            "student_flops": direct.flops,
            "flops": direct.flops,
            "outside_region": max(direct.outside.values(), default=None),
        }
        ways = [way.row() for way in self.distillations]
        columns = ways[0] if ways else first
        return [{name: first.get(name) for name in columns}, *ways]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values for JSON."""
        content = asdict(self)
        content["headline"] = self.headline
        for way, values in zip(self.distillations, content["distillations"], strict=True):
            values["verdict"] = way.verdict
            values["flops"] = way.flops
        return content

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells, rounded for a person."""
        header = ["way", "loss (90 %)", "gain", "P(distil)", "student tokens", "teacher", "compute %"]
        direct = self.direct
        rows = [["direct training", str(direct.loss), "", "", format_number(direct.tokens), "", "100/0/0"]]
        for way in self.distillations:
            size, tokens = format_number(way.teacher_params), format_number(way.teacher_tokens)
            rows.append(
                [
                    _title(way.name),
                    str(way.loss),
                    f"{way.gain.value:+.3f}",
                    "" if way.probability is None else f"{way.probability:.2f}",
                    format_number(way.tokens),
                    f"{size} on {tokens}, L={way.teacher_loss:.3f}",
                    "/".join(f"{100 * share:.0f}" for share in way.shares),
                ]
            )
        return header, rows

    def _repr_html_(self) -> str:
        header, rows = self.table()
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in (*self.warnings, *self.assumptions))
        asked = f"{format_number(self.direct.params)} student, {format_flops(self.budget)}"
        title = html.escape(f"{self.headline} ({asked})")
        return f"<p><b>{title}</b></p><table><tr>{head}</tr>{body}</table><ul>{notes}</ul>"


def _loss_columns(loss: Estimate) -> dict[str, float | None]:
    return {"loss_nats": loss.value, "loss_low": loss.low, "loss_high": loss.high}


def _title(name: str) -> str:
    return DESCRIPTIONS.get(name, name)


def _probabilities(ways: list[Distillation]) -> str:
    known = [way.probability for way in ways if way.probability is not None]
    if not known:
        return ""
    low, high = (f"{value:.2f}" for value in (min(known), max(known)))
    return (
        f" (P(distilling is better) = {low})"
        if low == high
        else f" (P(distilling is better) = {low} to {high})"
    )
