"""The best loss over a range of budgets, and where direct training catches up with distilling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration, as_calibration
from scaling.calibration.region import FAR, TOO_FAR
from scaling.costs.flops_assumptions import Accounting, accounting, training_effect
from scaling.costs.scenarios import scenario_title
from scaling.errors import InputError
from scaling.frontiers.crossover import Crossing, crossing, spans, spans_text
from scaling.frontiers.search import Found, search
from scaling.planner.plan import UNKNOWN, Estimate, Interval
from scaling.planner.question import Question
from scaling.planner.uncertainty import Decisions, DistillationComparison, Judge
from scaling.to_plain import as_plain
from scaling.units import format_power, format_times

if TYPE_CHECKING:
    import pandas

    from scaling.figures.frontier import FrontierPlots

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One scenario over the budgets; sequences have one entry per budget."""

    loss: tuple[Estimate, ...]
    """nats/token."""
    gain: tuple[Estimate, ...]
    """Loss of direct training minus this one's, nats/token."""
    probability: tuple[float, ...] | None
    """Probability that distilling ends below direct training, averaged over the laws that hold there."""
    student_params: tuple[float, ...]
    student_tokens: tuple[float, ...]
    teacher_params: tuple[float, ...]
    teacher_tokens: tuple[float, ...]
    teacher_loss: tuple[float, ...]
    crossover: Crossing
    """Budget at which direct training catches up with distilling."""
    overtaking: Crossing
    """Budget at which distilling gets ahead of direct training."""
    incredible: tuple[Interval, ...]
    """Ranges of FLOPs with losses below the one that direct training approaches with unlimited data."""
    refused: tuple[Interval, ...] = ()
    """Ranges of FLOPs whose teacher is so much better than those fitted that the law says nothing of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """The best losses over a range of budgets, of one student or of the best size at every budget.

    >>> from scaling import Question, frontier
    >>> question = Question(student_params="1B", budget="1e21", scenarios="best_case")
    >>> found = frontier(question, [1e21, 1e22])
    >>> len(found.to_frame()), found.plot.names()
    (4, ['losses'])
    """

    calibration: str
    law: str | None
    """Kind of distillation law; ``None`` for a calibration of supervised training alone."""
    budgets: tuple[float, ...]
    """FLOPs."""
    direct: tuple[Estimate, ...]
    """Losses of direct training, by budget; nats/token."""
    direct_params: tuple[float, ...]
    direct_tokens: tuple[float, ...]
    tracks: Mapping[str, Track]
    """Optima over the budgets, by scenario."""
    outside: tuple[float, ...]
    """Factor by which the farthest way lies outside the fitted region, by budget; 1 is inside."""
    asked: str = ""
    """The question in words, as it was read."""
    question: Mapping[str, Any] = field(default_factory=dict)
    """The question's numbers, with one of the budgets; None where there is no limit."""
    accounting: Accounting | None = None
    """Numbers that FLOPs are counted with, and their origins."""
    warnings: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Findings in one text, scenario by scenario."""
        return " ".join(self.findings)

    @property
    def findings(self) -> tuple[str, ...]:
        """Sentences of the headline."""
        texts = [f"{scenario_title(name)}: {self._crossovers(track)}." for name, track in self.tracks.items()]
        if self.law is None:
            texts = ["Direct training only: the calibration has no distillation law."]
        elif not texts:
            texts = ["Train directly: no teacher satisfies the constraints."]
        beyond = max(self.outside)
        if beyond > FAR:
            texts.append(f"Extrapolated up to {format_times(beyond)} beyond the fitted runs.")
        if min(self.outside) > TOO_FAR:
            texts[:-1] = [f"{UNKNOWN.capitalize()}."]
        elif beyond > TOO_FAR:
            far = spans(np.array(self.budgets), np.array(self.outside) > TOO_FAR)
            texts.append(f"No verdict at {spans_text(far)}: too far outside the fitted runs.")
        return tuple(texts)

    def _crossovers(self, track: Track) -> str:
        """Return crossovers of one scenario, and ranges of budgets to ignore."""
        events = {"direct training catches up": track.crossover, "distilling gets ahead": track.overtaking}
        found = sorted((each.at.value, event) for event, each in events.items() if each.at is not None)
        texts = [f"{event} at {events[event].text(self.law or '')}" for _, event in found]
        if not found:
            texts = [f"{'distilling' if track.gain[0].value > 0 else 'direct training'} is ahead throughout"]
            texts += [
                f"under {law} {event} at {format_power(at, 2)}"
                for event, each in events.items()
                for law, at in each.by_law.items()
                if at is not None
            ]
        if track.incredible:
            texts.append(
                f"at {spans_text(track.incredible)} the law predicts losses below those of unlimited data, "
                "which are ignored"
            )
        if track.refused:
            texts.append(
                f"its teacher is better than any that the law was fitted to at {spans_text(track.refused)}"
            )
        return "; ".join(texts)

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row per budget and way; numbers in full, units in the names."""
        rows: list[dict[str, Any]] = []
        for k, budget in enumerate(self.budgets):
            rows.append(
                {
                    "flops": budget,
                    "way": "direct",
                    **_columns(self.direct[k], "loss_nats"),
                    "student_params": self.direct_params[k],
                    "student_tokens": self.direct_tokens[k],
                }
            )
            rows += [
                {
                    "flops": budget,
                    "way": name,
                    **_columns(track.loss[k], "loss_nats"),
                    **_columns(track.gain[k], "gain_nats"),
                    "student_params": track.student_params[k],
                    "student_tokens": track.student_tokens[k],
                    "teacher_params": track.teacher_params[k],
                    "teacher_tokens": track.teacher_tokens[k],
                    "teacher_loss_nats": track.teacher_loss[k],
                }
                for name, track in self.tracks.items()
            ]
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {"headline": self.headline, **as_plain(self)}

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

    @property
    def plot(self) -> FrontierPlots:
        """The figures of this frontier: :class:`scaling.figures.frontier.FrontierPlots` lists them."""
        from scaling.figures.frontier import FrontierPlots

        return FrontierPlots(self)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells, rounded for a person: the loss of every way at every budget."""
        header = ["FLOPs", "direct training", *(scenario_title(name) for name in self.tracks)]
        rows = [
            [
                format_power(budget),
                str(self.direct[k]),
                *(str(track.loss[k]) for track in self.tracks.values()),
            ]
            for k, budget in enumerate(self.budgets)
        ]
        return header, rows

    def __str__(self) -> str:
        from scaling.reports.frontier_text import frontier_text

        return frontier_text(self).rstrip()

    def _repr_html_(self) -> str:
        from scaling.reports.html import html_answer

        return html_answer(self.headline, [self.asked], self.table(), self.notes())

    def notes(self) -> list[str]:
        """Return the effect of assumed numbers, other warnings (``!``), and the FLOP accounting (``-``)."""
        counted = self.accounting
        effect = [f"! {counted.effect}"] if counted and counted.effect else []
        basis = [f"- {counted}."] if counted else []
        return [*effect, *(f"! {warning}" for warning in self.warnings), *basis]


def frontier(
    question: Question, budgets: Sequence[float], calibration: Calibration | str | Path = DEFAULT_CALIBRATION
) -> Frontier:
    """Plan every scenario at every budget, and find where one way overtakes another.

    Args:
        question: A student and scenarios; its own budget is not used.
        budgets: FLOPs, at least two. Those that do not pay for every way are left out, and so are scenarios
            that no budget pays for; ``warnings`` of the result say so.
        calibration: A calibration, the path of a file, or the name of a published set. Without a distillation
            law there is direct training alone.

    Returns:
        The best losses over the budgets with 90 % intervals, the decisions behind them, and the crossovers.

    Raises:
        InputError: For fewer than two budgets, a family, or known teachers.

    >>> from scaling import Question, frontier
    >>> question = Question(student_params="1B", budget="1e21", scenarios="best_case")
    >>> found = frontier(question, [1e21, 1e22])
    >>> found.budgets, list(found.tracks)
    ((1e+21, 1e+22), ['best_case'])
    """
    if question.family or question.teachers:
        raise InputError("a range of budgets goes with neither a family nor known teachers")
    calibration = as_calibration(calibration)
    costs = np.unique(np.asarray(budgets, dtype=np.float64))
    if len(costs) < 2 or not np.all(np.isfinite(costs)) or costs[0] <= 0:
        raise InputError("a frontier needs at least two positive budgets")
    if question.law and not calibration.distillation:
        calibration.law(question.law)  # says why there is none
    found = search(question, calibration, costs)
    judge = Judge(calibration, question.student_unique_tokens, question.teacher_unique_tokens)
    law = (question.law or calibration.default) if calibration.distillation else None
    compared = judge.compare(found.decisions, law, question.law) if law and found.decisions else None
    architecture = question.counting(calibration)
    counted = accounting(architecture, calibration.architecture)
    middle = float(found.direct_params[len(found.direct_params) // 2])
    return Frontier(
        calibration=calibration.name,
        law=law,
        budgets=tuple(map(float, found.costs)),
        direct=tuple(judge.direct(*at) for at in found.direct),
        direct_params=tuple(map(float, found.direct_params)),
        direct_tokens=tuple(map(float, found.direct_tokens)),
        asked=_asked(question, found.costs, calibration, law),
        question=question.to_dict(),
        tracks=_tracks(found, compared),
        outside=_outside(calibration, found.direct, compared.where if compared else []),
        accounting=replace(counted, effect=training_effect(counted, architecture, middle)),
        warnings=(*calibration.provenance.warnings, *found.warnings),
    )


def _asked(question: Question, budgets: Array, calibration: Calibration, law: str | None) -> str:
    span = f"{format_power(budgets[0])} to {format_power(budgets[-1])} FLOPs"
    return f"{question.describe(span)}; calibration {calibration.name}{f', law {law}' if law else ''}."


def _outside(
    calibration: Calibration, direct: Sequence[tuple[float, float]], places: Sequence[Mapping[str, float]]
) -> tuple[float, ...]:
    """Return by how many times the farthest way lies outside the fitted region, by budget."""
    region = calibration.region
    outside = [region.outside(where, teacher_predicted=True) for where in places]
    outside += [region.outside({"params": N, "tokens": D}) for N, D in direct]
    factors = np.array([max(each.values(), default=1.0) for each in outside])
    return tuple(map(float, factors.reshape(-1, len(direct)).max(axis=0)))


def _tracks(found: Found, compared: DistillationComparison | None) -> dict[str, Track]:
    """Return every scenario over the budgets."""
    if compared is None or found.decisions is None:
        return {}
    count = len(found.costs)
    return {
        each.name: _track(found.decisions, compared, found.costs, slice(k * count, (k + 1) * count))
        for k, each in enumerate(found.scenarios)
    }


def _track(decisions: Decisions, compared: DistillationComparison, costs: Array, mine: slice) -> Track:
    """Return one scenario, whose decisions are those of the slice ``mine``."""
    at, outcome = range(mine.start, mine.stop), compared.outcomes[compared.kind]
    gains = {law: (each.direct - each.loss)[mine] for law, each in compared.outcomes.items()}
    drawn = None
    if outcome.loss_draws is not None and outcome.direct_draws is not None:
        drawn = (outcome.direct_draws - outcome.loss_draws)[:, mine]
    losses = {law: -gain for law, gain in gains.items()}
    probability = tuple(chance for chance in compared.probabilities[mine] if chance is not None)
    return Track(
        loss=tuple(map(compared.loss, at)),
        gain=tuple(map(compared.gain, at)),
        probability=probability or None,
        student_params=tuple(map(float, decisions.student_params[mine])),
        student_tokens=tuple(map(float, decisions.student_tokens[mine])),
        teacher_params=tuple(map(float, decisions.teacher_params[mine])),
        teacher_tokens=tuple(map(float, decisions.teacher_tokens[mine])),
        teacher_loss=tuple(map(float, decisions.teacher_loss[mine])),
        crossover=crossing(costs, gains, compared.kind, drawn),
        overtaking=crossing(costs, losses, compared.kind, None if drawn is None else -drawn),
        incredible=spans(costs, outcome.loss[mine] < compared.floor[mine]),
        refused=spans(costs, compared.refused[mine]),
    )


def _columns(estimate: Estimate, name: str) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
