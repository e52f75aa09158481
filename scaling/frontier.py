"""The best loss over a range of budgets, and where direct training catches up with distilling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling.assembly import UNLIMITED_TOKENS
from scaling.calibration import DEFAULT_CALIBRATION, Calibration, named
from scaling.choice import choose
from scaling.crossing import Crossing, crossing, spans, spans_text
from scaling.errors import InputError
from scaling.optimum import Bounds, Optima, Setting
from scaling.plain import as_plain
from scaling.plans import FAR, TOO_FAR, UNKNOWN, Estimate, Interval
from scaling.question import Question
from scaling.repetition import effective_tokens
from scaling.scenarios import DESCRIPTIONS
from scaling.uncertainty import Decisions, Judge, Outcome, place, spanning
from scaling.units import format_number, format_power
from scaling.ways import ScenarioWays, Serving

if TYPE_CHECKING:
    import pandas

    from scaling.figures.figure import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One scenario over the budgets; sequences have one entry per budget."""

    loss: tuple[Estimate, ...]
    """nats/token."""
    gain: tuple[Estimate, ...]
    """Loss of direct training minus this one's, nats/token."""
    probability: tuple[float, ...] | None
    """That distilling ends below direct training, averaged over the laws that hold there."""
    student_params: tuple[float, ...]
    student_tokens: tuple[float, ...]
    teacher_params: tuple[float, ...]
    teacher_tokens: tuple[float, ...]
    teacher_loss: tuple[float, ...]
    crossover: Crossing
    """Where direct training catches up with distilling."""
    overtaking: Crossing
    """Where distilling gets ahead of direct training."""
    incredible: tuple[Interval, ...]
    """Ranges of FLOPs with losses below the one that direct training approaches with unlimited data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """The best losses over a range of budgets, of one student or of the best size at every budget."""

    calibration: str
    law: str
    budgets: tuple[float, ...]
    """FLOPs."""
    direct: tuple[Estimate, ...]
    """Losses of direct training, by budget; nats/token."""
    direct_params: tuple[float, ...]
    direct_tokens: tuple[float, ...]
    tracks: Mapping[str, Track]
    """By scenario."""
    outside: tuple[float, ...]
    """By how many times the farthest way lies outside the fitted region, by budget; 1 is inside."""
    warnings: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Where direct training catches up, scenario by scenario."""
        return " ".join(self.findings)

    @property
    def findings(self) -> tuple[str, ...]:
        """The sentences of the headline."""
        texts = [
            f"{DESCRIPTIONS.get(name, name)}: {self._said(track)}." for name, track in self.tracks.items()
        ]
        beyond = max(self.outside)
        if beyond > FAR:
            texts.append(f"Extrapolated up to {format_number(beyond, 2)}x beyond the fitted runs.")
        if min(self.outside) > TOO_FAR:
            texts[:-1] = [f"{UNKNOWN.capitalize()}."]
        elif beyond > TOO_FAR:
            far = spans(np.array(self.budgets), np.array(self.outside) > TOO_FAR)
            texts.append(f"No verdict rests on what lies so far outside: {spans_text(far)}.")
        return tuple(texts)

    def _said(self, track: Track) -> str:
        """Who is ahead, from where on, and where the losses cannot be believed."""
        events = {"direct training catches up": track.crossover, "distilling gets ahead": track.overtaking}
        found = sorted((each.at.value, event) for event, each in events.items() if each.at is not None)
        texts = [f"{event} at {events[event].text(self.law)}" for _, event in found]
        if not found:
            texts = [f"{'distilling' if track.gain[0].value > 0 else 'direct training'} is ahead throughout"]
            texts += [
                f"under {law} {event} at {format_power(at, 2)}"
                for event, each in events.items()
                for law, at in each.by_law.items()
                if at is not None
            ]
        if track.incredible:
            texts.append(f"its losses are not credible at {spans_text(track.incredible)}")
        return "; ".join(texts)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per budget and way; numbers in full, units in the names."""
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
        """Everything, as plain values for JSON."""
        return {"headline": self.headline, **as_plain(self)}

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

    def plot(self, dark: bool = False) -> Figure:
        """Loss over compute for direct training and every scenario, with bands and crossovers."""
        from scaling.figures.overtaking import frontier_chart
        from scaling.figures.render import draw

        return draw(frontier_chart(self), dark)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells, rounded for a person: the loss of every way at every budget."""
        header = ["FLOPs", "direct training", *(DESCRIPTIONS.get(name, name) for name in self.tracks)]
        rows = [
            [
                format_power(budget),
                str(self.direct[k]),
                *(str(track.loss[k]) for track in self.tracks.values()),
            ]
            for k, budget in enumerate(self.budgets)
        ]
        return header, rows

    def _repr_html_(self) -> str:
        from html import escape

        from scaling.render import html_table

        notes = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        return f"<p><b>{escape(self.headline)}</b></p>{html_table(*self.table())}<ul>{notes}</ul>"


def frontier(
    question: Question, budgets: Sequence[float], calibration: Calibration | str | Path = DEFAULT_CALIBRATION
) -> Frontier:
    """The optimum of every scenario at every budget, FLOPs; the question's own budget is not used.

    Raises :class:`~scaling.errors.InputError` for fewer than two budgets, a family or known teachers.
    """
    if question.family or question.teachers:
        raise InputError("a frontier goes with neither a family nor known teachers")
    calibration = named(calibration)
    costs = np.unique(np.asarray(budgets, dtype=np.float64))
    if len(costs) < 2 or not np.all(np.isfinite(costs)) or costs[0] <= 0:
        raise InputError("a frontier needs at least two positive budgets")
    setting = Setting(
        supervised=calibration.supervised,
        law=calibration.law(question.law),
        architecture=question.counting(calibration),
        bounds=_bounds(question, calibration, costs),
    )
    serving, sizes = Serving(setting, question.lifetime_tokens), question.sizes(calibration)
    scenarios, count = question.scenarios, len(costs)
    alone = choose(serving.direct_loss, count, sizes, costs, None)[0][:, 0]
    tokens = np.array([serving.direct_tokens(*at) for at in zip(alone, costs, strict=True)])
    ways = ScenarioWays(serving, [scenario for scenario in scenarios for _ in costs])
    size, cost = choose(
        lambda N, C: ways.optima(N, C).loss, ways.rows, sizes, np.tile(costs, len(scenarios)), None
    )
    optima = Optima(*(values[:, 0] for values in ways.optima(size, cost)))
    if not np.all(np.isfinite(optima.loss)):
        raise InputError(
            f"no distillation fits the constraints at {costs[0]:g} FLOPs; begin the range higher"
        )
    decisions = Decisions(
        *optima[:5],
        np.repeat([scenario.pretraining > 0 for scenario in scenarios], count),
        np.tile(alone, len(scenarios)),
        np.tile(tokens, len(scenarios)),
    )
    kind = question.law or calibration.default or ""
    floor = calibration.supervised.loss(decisions.student_params, UNLIMITED_TOKENS)
    direct = [(float(N), float(D)) for N, D in zip(alone, tokens, strict=True)]
    judge = Judge(calibration, question.student_unique_tokens, question.teacher_unique_tokens)
    outcomes = {law: judge.outcome(decisions, law) for law in calibration.distillation}
    seen = effective_tokens(decisions.student_tokens, question.student_unique_tokens)
    reached_alone = calibration.supervised.loss(decisions.student_params, seen)
    places = [place(*values) for values in zip(*decisions[:5], reached_alone, strict=True)]
    laws = [[kind] if question.law else judge.beside(kind, where) for where in places]
    drawn = {law: outcome.probability() for law, outcome in outcomes.items()}
    chances = [judge.probability(k, drawn, where, question.law) for k, where in enumerate(places)]
    tracks = {
        each.name: _track(
            decisions, outcomes, laws, chances, costs, floor, slice(k * len(costs), (k + 1) * len(costs))
        )
        for k, each in enumerate(scenarios)
    }
    region = calibration.region
    outside = [region.outside(where, teacher_predicted=True) for where in places]
    outside += [region.outside({"params": N, "tokens": D}) for N, D in direct]
    factors = np.array([max(each.values(), default=1.0) for each in outside]).reshape(-1, count)
    return Frontier(
        calibration=calibration.name,
        law=kind,
        budgets=tuple(map(float, costs)),
        direct=tuple(judge.direct(*at) for at in direct),
        direct_params=tuple(N for N, _ in direct),
        direct_tokens=tuple(D for _, D in direct),
        tracks=tracks,
        outside=tuple(map(float, factors.max(axis=0))),
        warnings=calibration.provenance.warnings,
    )


def _bounds(question: Question, calibration: Calibration, costs: Array) -> Bounds:
    """The bounds at every budget, scenario by scenario: what a teacher may be trained on depends on it."""
    each = [replace(question, budget=float(cost), target_loss=None).bounds(calibration) for cost in costs]
    longest = np.tile([bounds.teacher_tokens[1] for bounds in each], len(question.scenarios))
    return replace(each[-1], teacher_tokens=(each[-1].teacher_tokens[0], longest.reshape(-1, 1)))


def _track(
    decisions: Decisions,
    outcomes: Mapping[str, Outcome],
    laws: Sequence[Sequence[str]],
    chances: Sequence[float | None],
    costs: Array,
    floor: Array,
    mine: slice,
) -> Track:
    """One scenario; ``laws`` are those that its intervals span, decision by decision, its own first."""
    kind, at = laws[0][0], range(mine.start, mine.stop)
    outcome = outcomes[kind]
    gains = {law: (each.direct - each.loss)[mine] for law, each in outcomes.items()}
    drawn = None
    if outcome.loss_draws is not None and outcome.direct_draws is not None:
        drawn = (outcome.direct_draws - outcome.loss_draws)[:, mine]
    losses = {law: -gain for law, gain in gains.items()}
    probability = tuple(chance for chance in chances[mine] if chance is not None)
    return Track(
        loss=tuple(spanning([outcomes[law].estimate(k) for law in laws[k]]) for k in at),
        gain=tuple(spanning([outcomes[law].gain(k) for law in laws[k]]) for k in at),
        probability=probability or None,
        student_params=tuple(map(float, decisions.student_params[mine])),
        student_tokens=tuple(map(float, decisions.student_tokens[mine])),
        teacher_params=tuple(map(float, decisions.teacher_params[mine])),
        teacher_tokens=tuple(map(float, decisions.teacher_tokens[mine])),
        teacher_loss=tuple(map(float, decisions.teacher_loss[mine])),
        crossover=crossing(costs, gains, kind, drawn),
        overtaking=crossing(costs, losses, kind, None if drawn is None else -drawn),
        incredible=spans(costs, outcome.loss[mine] < floor[mine]),
    )


def _columns(estimate: Estimate, name: str) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
