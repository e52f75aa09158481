"""Plan of private text: how many tokens n teachers release at an epsilon, and for which student that pays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling.calibration.region import beyond, is_too_far
from scaling.errors import InputError
from scaling.planner.plan import CLOSE, CONFIDENT, UNKNOWN, Estimate
from scaling.private.accounting import PrivacyBudget, check_delta
from scaling.private.law import DEFAULT_LAW, Array, PrivateTextLaw
from scaling.to_plain import as_plain
from scaling.units import check_params, format_number, parse_count, parse_number, parse_quantity

if TYPE_CHECKING:
    import pandas

PAYS, PUBLIC = "private text pays", "train on public text alone"
"""Verdicts, beside "too close to call" and no answer."""
QUANTILES = (0.05, 0.95)
CAVEATS = (
    "Noise is drawn in floating point, which is not exactly Gaussian: the promise is research-grade.",
    "Costs are worst-case in zCDP, rho + 2 sqrt(rho ln(1/delta)); every query is charged, refused ones too.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateWay:
    """Answer for one kind of votes."""

    name: str
    released: Estimate
    """Tokens released, with the scatter of single releases."""
    loss: Estimate
    """Student's held-out cross-entropy, nats/token, with the scatter of single runs."""
    gain: Estimate
    """Loss on public text alone minus this one: positive where private text pays."""
    probability: float
    """Probability that a student of the released text ends below one of public text alone."""
    outside: Mapping[str, float]
    """Factor by which each variable lies outside the fitted runs; 1 is inside."""

    @property
    def verdict(self) -> str:
        """Verdict on this way."""
        if is_too_far(self.outside):
            return UNKNOWN
        if self.probability >= CONFIDENT:
            return PAYS
        return PUBLIC if self.probability <= 0.5 else CLOSE


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivatePlan:
    """Released tokens, student and losses under a budget of differential privacy; prints itself.

    >>> from scaling import plan_private
    >>> plan_private(1000, 8).table()[0][:2]
    ['votes', 'released tokens (90 %)']
    """

    law: str
    teachers: int
    epsilon: float
    delta: float
    rho: float
    """Budget in zCDP."""
    student_params: float
    student_chosen: bool
    """True if no size was asked for: the largest that was fitted."""
    public_loss: Estimate
    """Loss of that student on the public model's text alone, nats/token."""
    ways: tuple[PrivateWay, ...]
    """The best first."""
    unit: str
    neighbors: str
    mechanism: str
    warnings: tuple[str, ...]

    @property
    def best(self) -> PrivateWay:
        """The way of the least loss."""
        return self.ways[0]

    @property
    def verdict(self) -> str:
        """Verdict on private text, with its numbers, in a sentence."""
        best, student = self.best, f"{format_number(self.student_params)} student"
        if best.verdict == UNKNOWN:
            released = f"the budget releases about {format_number(best.released.value)} tokens"
            return f"No verdict, too far outside the fitted runs: {beyond(best.outside)}; {released}"
        released = f"about {format_number(best.released.value)} tokens released by votes ({best.name})"
        gain = f"{abs(best.gain.value):.3f} nats/token {'below' if best.gain.value > 0 else 'above'} public"
        odds = f"P = {best.probability:.2f}"
        if best.verdict == PAYS:
            return f"Private text pays for a {student}: {released}, {gain} text alone ({odds})"
        if best.verdict == CLOSE:
            return f"Too close to call for a {student}: {released}, {gain} text alone ({odds})"
        return f"Train a {student} on public text alone: {released}, {gain} text alone ({odds})"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells, rounded for a person."""
        header = ["votes", "released tokens (90 %)", "loss (90 %)", "gain (90 %)", "P(pays)"]
        cells = [
            [
                way.name,
                _counted(way.released),
                str(way.loss),
                str(way.gain),
                "" if way.verdict == UNKNOWN else f"{way.probability:.2f}",
            ]
            for way in self.ways
        ]
        return header, [*cells, ["public text alone", "0", str(self.public_loss), "", ""]]

    @property
    def promises(self) -> tuple[str, ...]:
        """Promise in words: epsilon and delta, unit, neighbors, mechanism, limits."""
        return (
            f"({self.epsilon:g}, {self.delta:g})-differential privacy, rho = {self.rho:.4g} (zCDP)",
            f"unit: {self.unit}; {self.neighbors}",
            f"mechanism: {self.mechanism}",
            *CAVEATS,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        ways = [as_plain(way) | {"verdict": way.verdict} for way in self.ways]
        own: dict[str, Any] = as_plain(self) | {
            "ways": ways,
            "verdict": self.best.verdict,
            "sentence": self.verdict,
        }
        return own | {"accountant": "zCDP, worst case", "caveats": list(CAVEATS)}

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row a way."""
        numbers = ("released", "loss", "gain")
        return [
            {
                "way": way.name,
                "verdict": way.verdict,
                "probability_pays": way.probability,
                **{
                    f"{name}{end}": getattr(getattr(way, name), part)
                    for name in numbers
                    for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
                },
                "public_loss": self.public_loss.value,
                "student_params": self.student_params,
                "teachers": self.teachers,
                "epsilon": self.epsilon,
                "delta": self.delta,
                "rho": self.rho,
            }
            for way in self.ways
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return :meth:`rows` as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

    def text(self, width: int = 110) -> str:
        """Return the verdict, the table, the promise and warnings in lines of at most ``width`` columns."""
        from scaling.reports.plan_text import folded_table, wrapped

        size = "the largest that was fitted, as losses fall with size" if self.student_chosen else "as asked"
        asked = (
            f"{self.teachers:,} private teachers, epsilon = {self.epsilon:g}, delta = {self.delta:g}; "
            f"{format_number(self.student_params)} student ({size}); law {self.law}. Loss and gain in "
            "nats/token."
        )
        said = [*(f"- {line}" for line in self.promises), *(f"! {line}" for line in self.warnings)]
        top = [*wrapped([self.verdict], width), "", *wrapped([asked], width)]
        return "\n".join([*top, "", *folded_table(*self.table(), width), "", *wrapped(said, width)])

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from scaling.reports.html import html_answer

        return html_answer(self.verdict, self.promises, self.table(), (f"! {each}" for each in self.warnings))


def plan_private(
    teachers: int | str,
    epsilon: float | str,
    *,
    delta: float | str = 1e-5,
    student_params: float | str | None = None,
    law: PrivateTextLaw | str | Path = DEFAULT_LAW,
) -> PrivatePlan:
    """Plan private text: released tokens, and the student for which they pay, with 90 % intervals.

    Args:
        teachers: Number of teachers, n: shards of the private text.
        epsilon: Privacy budget of all queries together.
        delta: Probability that the promise fails, at most 1/n.
        student_params: Non-embedding parameters; if not given, the largest that was fitted.
        law: A law, the name of one that ships, or a file.

    Returns:
        The plan; its intervals and probabilities are of single releases and runs.

    Raises:
        InputError: For a budget that promises nothing, fewer than two teachers, or a law that is not there.

    >>> from scaling import plan_private
    >>> answer = plan_private(1000, 8)
    >>> answer.unit, round(answer.rho, 4)
    ('one of 1,000 shards, each 0.1 % of the private text', 1.0491)
    """
    teachers, budget = _asked(teachers, epsilon, delta)
    law = law if isinstance(law, PrivateTextLaw) else PrivateTextLaw.load(law)
    largest = law.region["student_params"][1]
    N = largest if student_params is None else parse_quantity(student_params, "student_params", "params")
    check_params(N, "student_params")
    ways, public = _answer(law, teachers, budget, N)
    return PrivatePlan(
        law=law.name,
        teachers=teachers,
        epsilon=budget.epsilon,
        delta=budget.delta,
        rho=budget.rho,
        student_params=N,
        student_chosen=student_params is None,
        public_loss=public,
        ways=ways,
        unit=f"one of {teachers:,} shards, each {100 / teachers:.3g} % of the private text",
        neighbors="two texts are neighbors if one shard is replaced by any other of its length",
        mechanism=law.mechanism,
        warnings=tuple(_warnings(law, ways, budget)),
    )


def _asked(teachers: int | str, epsilon: float | str, delta: float | str) -> tuple[int, PrivacyBudget]:
    """Return what is asked for, as numbers that promise something."""
    n = parse_count(teachers, "teachers")
    if n < 2:
        raise InputError(
            f"teachers: {n} shard makes no ensemble, and its one vote is the answer; ask for more"
        )
    if epsilon in (math.inf, "inf", "infinite"):
        raise InputError(
            "epsilon: an infinite budget promises nothing and ends no release; give a number such as 8"
        )
    budget = PrivacyBudget(parse_number(epsilon, "epsilon"), parse_number(delta, "delta"))
    check_delta(budget.delta, n)
    return n, budget


def _answer(
    law: PrivateTextLaw, teachers: int, budget: PrivacyBudget, N: float
) -> tuple[tuple[PrivateWay, ...], Estimate]:
    """Return the ways for a student of N parameters, the best first, and its loss on public text."""
    rng = np.random.default_rng(0)
    public = law.public_loss(N, sampled=True)
    noise = law.loss_sd * rng.standard_normal((2, len(public)))
    ways = [_way(law, way, teachers, budget.rho, N, public + noise[0], noise[1], rng) for way in law.ways]
    ranked = sorted(ways, key=lambda way: way.loss.value)
    return tuple(ranked), _estimate(float(law.public_loss(N)), public + noise[0])


def _way(
    law: PrivateTextLaw,
    way: str,
    n: int,
    rho: float,
    N: float,
    public: Array,
    noise: Array,
    rng: np.random.Generator,
) -> PrivateWay:
    scatter = np.exp(law.released_sd[way] * rng.standard_normal(len(noise)))
    drawn = law.released(way, n, rho, sampled=True) * scatter
    released = float(law.released(way, n, rho))
    losses = law.loss(way, N, np.maximum(drawn, 1.0), sampled=True) + noise
    loss = float(law.loss(way, N, max(released, 1.0)))
    gain = public - losses
    where = {"teachers": n, "rho": rho, "student_params": N, "released_tokens": max(released, 1.0)}
    return PrivateWay(
        name=way,
        released=_estimate(released, drawn),
        loss=_estimate(loss, losses),
        gain=_estimate(float(law.public_loss(N)) - loss, gain),
        probability=float(np.mean(gain > 0)),
        outside=law.outside(where),
    )


def _estimate(value: float, draws: Array) -> Estimate:
    low, high = np.quantile(draws, QUANTILES)
    return Estimate(value, float(low), float(high))


def _warnings(law: PrivateTextLaw, ways: tuple[PrivateWay, ...], budget: PrivacyBudget) -> Iterator[str]:
    if far := beyond(ways[0].outside):
        yield f"extrapolated beyond the fitted runs: {far}"
    if budget.delta != law.delta:
        yield (
            f"the runs had delta = {law.delta:g}; what a budget releases follows from rho, which "
            f"{budget.delta:g} leads to"
        )
    yield (
        f"the runs had shards of {law.private_tokens / law.region['teachers'][1]:,.0f} to "
        f"{law.unit_tokens:,.0f} tokens; teachers of shorter ones know less, and agree less on private text"
    )
    yield from law.provenance.warnings


def _counted(tokens: Estimate) -> str:
    assert tokens.low is not None
    assert tokens.high is not None
    low, high = format_number(tokens.low), format_number(tokens.high)
    return f"{format_number(tokens.value)} [{low}, {high}]"
