"""Design of a sweep before its first run: what money buys, beside a factorial grid of equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fits.design.belief import Belief, believe
from fits.design.candidates import Candidates
from fits.design.ladder import ladder_for, ladder_notes
from fits.design.next_runs import distance_notes, sibling_within_reach
from fits.design.points import Points
from fits.design.proposal import note_lines
from fits.design.question_options import decisions_of, named_vocabulary
from fits.design.regret import DRAWS, DecisionOptions, regret_once_measured
from fits.design.v_optimal import greedy, updated
from fits.estimation.laws.sibling import Sibling
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import assumed_architecture, knows_vocabulary
from scaling.errors import InputError
from scaling.figures.chart import Axis, Chart, Panel, Series
from scaling.planner.question import Question
from scaling.to_plain import nan_to_none
from scaling.units import format_number, format_power

if TYPE_CHECKING:
    from scaling.figures.figure import Figure

MOST_RUNS = 60
"""Runs of a design at most."""
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DesignPoint:
    """Precision that a number of runs is expected to give, once all are measured."""

    flops: float
    runs: int
    sd: float
    """Root mean square error of ln loss at the points in question."""
    regret: float
    """Expected regret, nats/token."""
    probability: float
    """Expected probability of the right decision, the mean over decisions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepDesign:
    """A design for a question, as a curve over money, and the factorial grids beside it."""

    runs: tuple[str, ...]
    """Runs in words, in their order of worth."""
    ids: tuple[str, ...]
    curve: tuple[DesignPoint, ...]
    """After each run; the first point is before any."""
    factorial: tuple[DesignPoint, ...]
    """Grids of all sizes up to one, each crossed with all tokens and teachers of these sizes."""
    questions: tuple[str, ...]
    prior: str
    notes: tuple[str, ...] = ()
    """Limits of what is compared, and of how far the law is trusted."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        from dataclasses import asdict

        content: dict[str, Any] = nan_to_none(asdict(self))
        return content

    def __str__(self) -> str:
        return "\n".join(design_lines(self))

    @property
    def headline(self) -> str:
        """The whole design beside the largest factorial grid within the spend, in a sentence."""
        last = self.curve[-1]
        if not self.factorial:
            beside = "no factorial grid costs so little"
        else:
            grid = self.factorial[-1]
            beside = (
                f"the largest grid within the spend ({grid.runs} runs): {100 * grid.sd:.2g} %, "
                f"{grid.probability:.2f}"
            )
        return (
            f"for {format_power(last.flops)} FLOPs: error {100 * last.sd:.2g} %, right with probability "
            f"{last.probability:.2f}; {beside}"
        )

    def plot(self, dark: bool = False) -> Figure:
        """Draw :meth:`chart`."""
        from scaling.figures.render import draw

        return draw(self.chart(), dark)

    def chart(self) -> Chart:
        """Return the error and the probability of the right decision over FLOPs."""
        money = Axis(label="FLOPs of the sweep", log=True)
        error = Axis(label="expected error at the question (%)", log=True)
        right = Axis(label="P(right decision)", limits=(0.0, 1.02))
        return Chart(
            panels=(
                Panel(title="Error", x=money, y=error, series=self._series(lambda point: 100 * point.sd)),
                Panel(
                    title="Decision", x=money, y=right, series=self._series(lambda point: point.probability)
                ),
            ),
            title="; ".join(dict.fromkeys(self.questions)) if len(self.questions) < 3 else "",
            note=f"expected before any run, prior: {self.prior}",
        )

    def _series(self, value: Any) -> tuple[Series, ...]:
        lines = {"chosen for the question": self.curve[1:], "factorial grid": self.factorial}
        return tuple(
            Series(
                label=label,
                x=np.array([point.flops for point in curve]),
                y=np.array([value(point) for point in curve]),
                points=(
                    np.array([point.flops for point in curve]),
                    np.array([value(point) for point in curve]),
                ),
                kind=number,
            )
            for number, (label, curve) in enumerate(lines.items(), 1)
            if curve
        )


def design_for(
    questions: Sequence[Question],
    spend: float,
    *,
    architecture: Architecture | None = None,
    sibling: Sibling | None = None,
) -> SweepDesign:
    """Return the sweep to declare for questions, from a ladder of runs made for them.

    Args:
        questions: Questions with a budget.
        spend: FLOPs of the whole sweep.
        architecture: Architecture that FLOPs are counted with where a question has none.
        sibling: The law of another corpus, in place of the weak priors.

    Raises:
        InputError: for a question without a budget, a spend that pays for no run, or a sibling of another
            vocabulary than the architecture, the questions or their teachers have.

    >>> from scaling import Question
    >>> design_for([Question(student_params="300M", budget="1e21")], 1e17).runs[0]
    'supervised 9.38M on 46.9M'
    """
    counting = named_vocabulary(questions, architecture or assumed_architecture())
    if sibling is not None and knows_vocabulary(counting):
        sibling.refuse_other_vocabulary(counting.vocab, "the design")
    decisions = decisions_of(questions, counting)
    found = design_sweep(ladder_for(decisions, counting, spend), decisions, spend, sibling=sibling)
    return replace(found, notes=(*ladder_notes(decisions, counting), *found.notes))


def design_sweep(
    candidates: Candidates,
    decisions: DecisionOptions,
    spend: float,
    *,
    sibling: Sibling | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> SweepDesign:
    """Return the sweep to declare for a question, chosen V-optimally, and what it is expected to show.

    Args:
        candidates: Runs that could be trained.
        decisions: What is asked.
        spend: FLOPs of the whole sweep.
        sibling: The law of another corpus, in place of the weak priors.
        draws: Draws of the laws for regret and probability.
        seed: Seed of the draws.

    Raises:
        InputError: for a spend that pays for no candidate.
    """
    sibling, found = sibling_within_reach(sibling, decisions)
    notes = list(found)
    belief = believe(None, Points.joined([candidates.points, decisions.options]), sibling=sibling)
    gradients, options = belief.gradient(candidates.points), belief.gradient(decisions.options)
    judge = _Judge(belief, decisions, options, draws, seed)
    curve = [judge.point(belief.covariance, 0.0, 0)]
    chosen: list[int] = []
    nothing = np.zeros(len(candidates.step_flops), dtype=bool)
    spent, known = 0.0, 0
    for pick in greedy(
        belief.covariance, options, gradients, candidates, belief.sigma, paid=nothing, spend=spend
    ):
        spent, known = spent + pick.flops, known + 1 + len(pick.with_it)
        chosen += [*pick.with_it, pick.run]
        curve.append(judge.point(pick.covariance, spent, known))
        if len(chosen) >= MOST_RUNS:
            limit = f"the design ends with its {len(chosen)}th run, for {format_power(spent)} FLOPs"
            notes.append(f"{limit}: more are not listed")
            break
    if not chosen:
        cheapest = float(candidates.cost(nothing).min())
        raise InputError(
            f"spend: {format_power(spend)} FLOPs buy none of the {len(candidates)} candidates; the cheapest "
            f"costs {format_power(cheapest)}"
        )
    return SweepDesign(
        runs=tuple(_words(candidates, run) for run in chosen),
        ids=tuple(candidates.ids[run] for run in chosen),
        curve=tuple(curve),
        factorial=tuple(_factorial(candidates, gradients, belief, judge, spend)),
        questions=decisions.names,
        prior=sibling.name if sibling else "weak",
        notes=(*notes, *distance_notes(decisions, candidates), *decisions.notes),
    )


@dataclass(frozen=True, slots=True)
class _Judge:
    """Evaluation of a design by the covariance that it leads to."""

    belief: Belief
    decisions: DecisionOptions
    options: Array
    """Gradients at the options, (options, p)."""
    draws: int
    seed: int

    def point(self, covariance: Array, flops: float, runs: int) -> DesignPoint:
        """Return what a design is expected to show."""
        variance = float(np.mean(np.einsum("tp,pq,tq->t", self.options, covariance, self.options)))
        regret = regret_once_measured(self.belief, self.decisions, covariance, self.draws, self.seed)
        return DesignPoint(
            flops=flops, runs=runs, sd=float(np.sqrt(max(variance, 0.0))), regret=regret.mean,
            probability=float(np.mean(regret.sure)),
        )  # fmt: skip


def _factorial(
    candidates: Candidates, gradients: Array, belief: Belief, judge: _Judge, spend: float
) -> list[DesignPoint]:
    """Return the grids of all candidates up to a size, as far as the spend goes."""
    N = candidates.points.N
    needed = np.maximum(N, np.nan_to_num(candidates.points.N_T, nan=0.0))
    in_grids = ~candidates.measured_otherwise
    found = []
    for largest in np.unique(needed):
        inside = (needed <= largest) & in_grids
        paid = np.zeros(len(candidates.step_flops), dtype=bool)
        for run in np.flatnonzero(inside):
            paid[candidates.steps_of(int(run))] = True
        flops = float(candidates.step_flops[paid].sum())
        if flops > spend:
            break
        covariance, variance = belief.covariance, candidates.variance(belief.sigma)
        for run in np.flatnonzero(candidates.done(paid)):
            covariance = updated(covariance, gradients[run], float(variance[run]))
        found.append(judge.point(covariance, flops, int(inside.sum())))
    return found


def _words(candidates: Candidates, run: int) -> str:
    points = candidates.points
    words = f"{format_number(points.N[run])} on {format_number(points.D[run])}"
    projected = ", projected" if candidates.extra_sd[run] else ""
    if not points.distilled[run]:
        return f"supervised {words}{projected}"
    teacher = format_number(points.N_T[run]) if np.isfinite(points.N_T[run]) else "a teacher"
    on = f" on {format_number(points.D_T[run])}" if np.isfinite(points.D_T[run]) else ""
    return f"distillation {words} from {teacher}{on}{projected}"


def design_lines(design: SweepDesign) -> list[str]:
    """Return a design as lines of text."""
    lines = [f"prior: {design.prior}; decisions: {len(design.questions)}"]
    lines += [f"{'FLOPs':>9} {'runs':>5} {'error':>7} {'regret':>7} {'P(right)':>8}  run"]
    for number, point in enumerate(design.curve):
        run = "" if not number else design.runs[point.runs - 1]
        lines.append(_line(point, run))
    lines.append("factorial grids of all sizes up to one:")
    lines += [_line(point, "") for point in design.factorial] or ["  none costs so little"]
    lines.append(design.headline)
    return lines + note_lines(design.notes)


def _line(point: DesignPoint, run: str) -> str:
    error = f"{100 * point.sd:.2g} %"
    return (
        f"{format_power(point.flops):>9} {point.runs:>5} {error:>7} {point.regret:>7.4f} "
        f"{point.probability:>8.2f}  {run}"
    ).rstrip()
