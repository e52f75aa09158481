"""The best loss over a range of budgets, and where direct training catches up with distilling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling.assembly import UNLIMITED_TOKENS
from scaling.calibration import DEFAULT_CALIBRATION, Calibration, named
from scaling.choice import choose
from scaling.errors import InputError
from scaling.optimum import Optima, Setting
from scaling.plans import FAR, Estimate
from scaling.question import Question
from scaling.scenarios import DESCRIPTIONS
from scaling.uncertainty import Decisions, Judge, Outcome, interval
from scaling.units import format_number, format_power
from scaling.ways import ScenarioWays, Serving

if TYPE_CHECKING:
    import pandas

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One scenario over the budgets; sequences have one entry per budget."""

    loss: tuple[Estimate, ...]
    """nats/token."""
    gain: tuple[Estimate, ...]
    """Loss of direct training minus this one's, nats/token."""
    probability: tuple[float, ...] | None
    """That distilling ends below direct training."""
    student_params: tuple[float, ...]
    student_tokens: tuple[float, ...]
    teacher_params: tuple[float, ...]
    teacher_tokens: tuple[float, ...]
    teacher_loss: tuple[float, ...]
    crossover: Estimate | None
    """FLOPs from which direct training is better; ``None`` if that happens nowhere in the range."""
    crossover_by_law: Mapping[str, float | None]
    """The same of every law of the calibration, for these decisions."""
    incredible_from: float | None
    """FLOPs from which the law promises less than direct training approaches with unlimited data."""
    crossover_share: float | None
    """Share of the draws in which direct training catches up within the range."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """The best losses over a range of budgets, of one student or of the best size at every budget."""

    calibration: str
    law: str
    budgets: tuple[float, ...]
    """FLOPs."""
    direct: tuple[Estimate, ...]
    direct_params: tuple[float, ...]
    direct_tokens: tuple[float, ...]
    tracks: Mapping[str, Track]
    """By scenario."""
    outside: tuple[float, ...]
    """By how many times direct training lies outside the fitted region, by budget; 1 is inside."""

    @property
    def headline(self) -> str:
        """Where direct training catches up, scenario by scenario."""
        return " ".join(self.findings)

    @property
    def findings(self) -> tuple[str, ...]:
        """The sentences of the headline."""
        texts = []
        for name, track in self.tracks.items():
            first, last = track.gain[0].value > 0, track.gain[-1].value > 0
            if track.crossover is not None:
                band = track.crossover
                ends = [format_power(end, 2) for end in (band.low, band.high) if end is not None]
                spread = f" [{', '.join(ends)}]" if ends else ""
                text = f"direct training catches up at {format_power(band.value, 2)}{spread} FLOPs"
            elif first == last:
                text = f"{'distilling' if first else 'direct training'} is ahead throughout"
            else:
                text = "direct training is ahead on the smaller budgets, distilling on the larger ones"
            for law, at in track.crossover_by_law.items():
                if law != self.law:
                    text += f" (under {law}: {'no crossover' if at is None else format_power(at, 2)})"
            if track.incredible_from is not None:
                text += f"; from {format_power(track.incredible_from, 2)} on its losses are not credible"
            texts.append(f"{DESCRIPTIONS.get(name, name)}: {text}.")
        beyond = max(self.outside)
        if beyond > FAR:
            texts.append(f"Extrapolated up to {format_number(beyond, 2)}x beyond the fitted runs.")
        return tuple(texts)

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
        return {"headline": self.headline, **asdict(self)}

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

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
        from scaling.render import html_table

        return f"<p><b>{self.headline}</b></p>{html_table(*self.table())}"


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
        bounds=question.bounds(calibration),
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
    region = calibration.region
    floor = calibration.supervised.loss(decisions.student_params, UNLIMITED_TOKENS)
    direct = [(float(N), float(D)) for N, D in zip(alone, tokens, strict=True)]
    judge = Judge(calibration, question.student_unique_tokens, question.teacher_unique_tokens)
    outcomes = {law: judge.outcome(decisions, law) for law in calibration.distillation}
    return Frontier(
        calibration=calibration.name,
        law=kind,
        budgets=tuple(map(float, costs)),
        direct=tuple(judge.direct(*at) for at in direct),
        direct_params=tuple(N for N, _ in direct),
        direct_tokens=tuple(D for _, D in direct),
        outside=tuple(
            max(region.outside({"params": N, "tokens": D}).values(), default=1.0) for N, D in direct
        ),
        tracks={
            each.name: _track(
                decisions, outcomes, kind, costs, floor, slice(k * len(costs), (k + 1) * len(costs))
            )
            for k, each in enumerate(scenarios)
        },
    )


def _track(
    decisions: Decisions,
    outcomes: Mapping[str, Outcome],
    kind: str,
    costs: Array,
    floor: Array,
    mine: slice,
) -> Track:
    outcome = outcomes[kind]
    points = {
        law: float(_crossing(costs, (each.direct - each.loss)[None, mine])[0])
        for law, each in outcomes.items()
    }
    at = range(mine.start, mine.stop)
    incredible = outcome.loss[mine] < floor[mine]
    probability = outcome.probability()
    crossover, share = (None if np.isnan(points[kind]) else Estimate(points[kind])), None
    if outcome.loss_draws is not None and outcome.direct_draws is not None:
        drawn = _crossing(costs, (outcome.direct_draws - outcome.loss_draws)[:, mine])
        crossed = drawn[np.isfinite(drawn)]
        share = len(crossed) / len(drawn)
        if crossover is not None and len(crossed):
            crossover = Estimate(crossover.value, *interval(crossed))
    return Track(
        loss=tuple(outcome.estimate(k) for k in at),
        gain=tuple(outcome.gain(k) for k in at),
        probability=None if probability is None else tuple(map(float, probability[mine])),
        student_params=tuple(map(float, decisions.student_params[mine])),
        student_tokens=tuple(map(float, decisions.student_tokens[mine])),
        teacher_params=tuple(map(float, decisions.teacher_params[mine])),
        teacher_tokens=tuple(map(float, decisions.teacher_tokens[mine])),
        teacher_loss=tuple(map(float, decisions.teacher_loss[mine])),
        crossover=crossover,
        crossover_by_law={law: None if np.isnan(point) else point for law, point in points.items()},
        incredible_from=float(costs[np.argmax(incredible)]) if incredible.any() else None,
        crossover_share=share,
    )


def _crossing(costs: Array, gains: Array) -> Array:
    """Where each row of gains (draws, budgets) last falls through zero, by interpolation; else nan."""
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = gains[:, :-1] / (gains[:, :-1] - gains[:, 1:])
    falls = (gains[:, :-1] > 0) & (gains[:, 1:] <= 0)
    last = falls.shape[1] - 1 - np.argmax(falls[:, ::-1], axis=1)
    row = np.arange(len(gains))
    ln_C = np.log(costs)
    crosses = falls.any(axis=1)
    part = np.where(crosses, weight[row, last], 0.0)
    return np.where(crosses, np.exp(ln_C[last] + part * (ln_C[last + 1] - ln_C[last])), np.nan)


def _columns(estimate: Estimate, name: str) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
