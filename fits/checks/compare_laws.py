"""Comparison of distillation laws: five cross-validations, BIC and a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fits.checks.design import design_findings, missing_for_published_law, raise_refusals, table_notes
from fits.checks.evidence import COLUMNS, Evidence, weigh_laws
from fits.checks.folds import (
    CELL,
    FEW_TO_MANY,
    SIZE,
    STRONG_TO_WEAK,
    WEAK_TO_STRONG,
    Mask,
    cross_validation_folds,
)
from fits.checks.heldout import hold_out, predictions
from fits.estimation.estimate import Estimate, Objective
from fits.estimation.joint import Recipe
from fits.estimation.model import Rows, law_names
from fits.estimation.repetition import fit_repetition, repeats_data
from fits.estimation.replicates import average_replicates
from fits.estimation.settings import check_options, fit_jointly_or_separately, fix_gamma
from fits.table.runs import validate
from scaling.calibration.calibration import Calibration
from scaling.errors import InputError
from scaling.laws import SupervisedLaw

if TYPE_CHECKING:
    from fits.plots.laws import ComparisonPlots

LAWS = ("published", "effective-tokens", "effective-tokens-capacity", "effective-tokens-sharp")
TABLE_SPLIT = "the table's split"
CAPTION = "errors are rms nats/token; * marks the best"
CHECKS = (SIZE, CELL, WEAK_TO_STRONG, STRONG_TO_WEAK, FEW_TO_MANY, TABLE_SPLIT)
"""Names of the hold-out checks, in the order in which they are reported.

They hold out a student size; a student size and token count; teachers better than those fitted; worse ones;
more tokens than fitted; rows whose column ``split`` is not "fit".
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Scores of one law on one table; errors are root mean squares in nats/token."""

    law: str
    fitted: int
    """Number of fitted coefficients."""
    rmse: float
    bic: float
    condition: float
    agreed: int
    starts: int
    held_out: dict[str, float]
    """Errors by check, without checks for which the table has too few runs."""
    bias_weak_teachers: float
    """Mean of observed - predicted where the teacher is worse than the supervised student; may be nan."""

    @property
    def mean(self) -> float:
        """Geometric mean of the held-out errors, nats/token."""
        return float(np.exp(np.mean(np.log(list(self.held_out.values()))))) if self.held_out else np.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Scores of several laws on one table.

    >>> import fits
    >>> from fits import datasets
    >>> from scaling import Calibration
    >>> known = Calibration.load("busbridge2025-figure1-runs")
    >>> found = fits.compare_laws(datasets.figure1()[::9], ["effective-tokens"], supervised=known, starts=1)
    >>> list(found.to_frame().columns)[:4], found.plot.names()
    (['law', 'coefficients', 'rms error, fitted', 'BIC'], ['errors'])
    """

    scores: tuple[Score, ...]
    """Scores, one for each law."""
    runs: int
    """Number of distillations that were fitted."""
    evidence: Evidence | None = None
    """Weights of the laws from runs left out; None where the table is too small for that."""
    notes: tuple[str, ...] = ()
    """Origin of the supervised law, and laws that were left out."""

    def criteria(self) -> dict[str, dict[str, float]]:
        """Return every criterion by name, with the value of each law; lower is better."""
        table = {
            "coefficients": {s.law: float(s.fitted) for s in self.scores},
            "rms error, fitted": {s.law: s.rmse for s in self.scores},
            "BIC": {s.law: s.bic for s in self.scores},
        }
        for check in CHECKS:
            if all(check in score.held_out for score in self.scores):
                table[check] = {s.law: s.held_out[check] for s in self.scores}
        return table

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON; values that are not finite are None."""
        bias = {
            s.law: s.bias_weak_teachers if np.isfinite(s.bias_weak_teachers) else None for s in self.scores
        }
        agreed = {s.law: [s.agreed, s.starts] for s in self.scores}
        return {"runs": self.runs, "criteria": self.criteria(), "bias, weak teachers": bias} | {
            "starts that agree": agreed,
            "best on": self.wins(),
            "evidence": self.evidence.to_dict() if self.evidence else None,
            "notes": list(self.notes),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the criteria as a pandas table: a row a law, a column a criterion; lower is better."""
        return pd.DataFrame(self.criteria()).rename_axis("law").reset_index()

    @property
    def plot(self) -> ComparisonPlots:
        """The figures of this comparison: :class:`fits.plots.laws.ComparisonPlots` lists them."""
        from fits.plots.laws import ComparisonPlots

        return ComparisonPlots(self)

    def _repr_html_(self) -> str:
        from scaling.reports.html import html_list, html_table

        header, rows = self.table()
        parts = [html_table(header, rows), html_list("Best on", self.verdicts())]
        if self.evidence:
            head, *_ = self.evidence.lines()
            parts += [f"<p><b>Weights of the laws</b></p><p>{head}</p>"]
            parts += [html_table(COLUMNS, self.evidence.table())]
        title = f"<p><b>{self.runs} distillations under {len(self.scores)} laws</b></p><p>{CAPTION}</p>"
        return f"{title}{''.join(parts)}{html_list('Notes', self.notes)}"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells, rounded for a person: a row a criterion, a column a law."""
        rows = []
        for name, values in self.criteria().items():
            digits = 0 if name in ("coefficients", "BIC") else 4
            best = min(values.values())
            rows.append([name, *(f"{v:.{digits}f}{'*' if v == best else ' '}" for v in values.values())])
        rows += [
            ["mean of held out", *(f"{score.mean:.4f} " for score in self.scores)],
            ["bias, weak teachers", *(f"{score.bias_weak_teachers:+.4f} " for score in self.scores)],
            ["condition", *(f"{score.condition:.0f} " for score in self.scores)],
            ["starts that agree", *(f"{score.agreed}/{score.starts} " for score in self.scores)],
        ]
        return ["", *(f"{score.law} " for score in self.scores)], rows

    def verdicts(self) -> list[str]:
        """Return for every law what it is best on."""
        return [f"{law}: best on {', '.join(won) or 'nothing'}" for law, won in self.wins().items()]

    def wins(self) -> dict[str, list[str]]:
        """Return, for every law, the criteria on which no other is better."""
        won: dict[str, list[str]] = {score.law: [] for score in self.scores}
        for name, values in self.criteria().items():
            for law, value in values.items():
                if value == min(values.values()):
                    won[law].append(name)
        return won

    def __str__(self) -> str:
        width = max(len(score.law) for score in self.scores) + 2

        def line(name: str, *cells: str) -> str:
            return f"{name:<22}" + "".join(f"{cell:>{width}}" for cell in cells)

        header, rows = self.table()
        lines = [
            f"{self.runs} distillations; {CAPTION}",
            "",
            *(line(*cells) for cells in (header, *rows)),
            "",
            *self.verdicts(),
            *(["", *self.evidence.lines()] if self.evidence else []),
            *([""] if self.notes else []),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def compare_laws(
    runs: pd.DataFrame,
    laws: Sequence[str] | None = None,
    *,
    supervised: SupervisedLaw | Calibration | None = None,
    gamma: str | float = "auto",
    fixed: Mapping[str, float] | None = None,
    tied: bool = False,
    joint: bool | None = None,
    objective: Objective | None = None,
    thresholds: tuple[float, float, float] | None = None,
    starts: int = 32,
    seed: int = 0,
) -> Comparison:
    """Fit every law to the same runs and cross-validate it five ways.

    Every law is fitted as :func:`fits.fit` would fit it alone; gamma is decided once, for all laws. Where the
    table has a column ``split``, all this happens within the rows marked "fit", and predicting the others is
    one more check.

    Args:
        runs: One row a run, as :func:`fits.read_runs` returns it.
        laws: Distillation laws; by default those of ``LAWS`` that the design identifies.
        supervised: The supervised law, where the table has no supervised runs.
        gamma: As in :func:`fits.fit`, and so are ``tied``, ``joint``, ``objective``, ``starts`` and ``seed``.
        fixed: Values of E and gamma of the supervised law.
        tied: Fit one exponent for alpha and beta.
        joint: Fit both laws to all runs together, or the supervised law to the supervised runs alone.
        objective: The objective to minimize.
        thresholds: Teacher loss above which "weak to strong" is fitted, teacher loss below which "strong to
            weak" is, and student tokens below which "few to many tokens" is. By default each check leaves
            out about a third of the runs.
        starts: Number of starts of the minimization.
        seed: Seed of the starts.

    Returns:
        The scores of all laws.

    Raises:
        InputError: if the table has no distillations, its design cannot identify a law, or an option does
            not apply.

    >>> import fits
    >>> from fits import datasets
    >>> from scaling import Calibration
    >>> known = Calibration.load("busbridge2025-figure1-runs")
    >>> found = fits.compare_laws(datasets.figure1()[::9], ["effective-tokens"], supervised=known, starts=1)
    >>> found.runs, list(found.criteria())[:3]
    (37, ['coefficients', 'rms error, fitted', 'BIC'])
    """
    everything = validate(runs)
    table, out = everything, np.zeros(len(everything), dtype=bool)
    if "split" in everything and (everything["split"] == "fit").any():
        out = (everything["split"] != "fit").to_numpy() & (everything["excluded"] == "").to_numpy()
        table = everything.assign(excluded=np.where(out, "not in the fit split", everything["excluded"]))
    rows = Rows.of(table)
    if not rows.n_distillations:
        raise InputError("there are no distillations to compare laws on")
    given = supervised.supervised if isinstance(supervised, Calibration) else supervised
    base = Recipe(
        laws=(), pins=dict(fixed or {}), tied=tied, given=given, objective=objective or Objective(),
        starts=starts, seed=seed,
    )  # fmt: skip
    check_options(rows, base, laws=laws, gamma=gamma, joint=joint, given="the supervised law given")
    laws, notes = _choose_laws(rows, laws)
    everywhere = replace(base, laws=tuple(laws))
    raise_refusals(design_findings(table, rows, given, fix_gamma(everywhere, gamma)[0].free()))
    if given is None and repeats_data(table):
        effective, _ = fit_repetition(table, fix_gamma(everywhere, gamma)[0])
        columns = effective[["effective_params", "effective_tokens"]]
        table, everything = table.join(columns), everything.join(columns)
        rows = Rows.of(table)
    rows, repeated = average_replicates(rows, everywhere)
    base, decided = fix_gamma(base, gamma)
    folds = {check: list(masks) for check, masks in cross_validation_folds(table, thresholds).items()}
    split_off = Rows.of(everything.assign(excluded=np.where(out, "", "not held out")))
    scores: list[Score] = []
    fits: list[dict[str, Estimate]] = []
    for law in laws:
        recipe, estimates, more = fit_jointly_or_separately(rows, replace(base, laws=(law,)), joint)
        held_out = {
            check: _pooled_rmse(table, rows, folds[check], check, recipe, estimates)
            for check in CHECKS
            if check in folds
        }
        if split_off.n_distillations:
            held_out[TABLE_SPLIT] = predictions(everything, split_off, estimates, TABLE_SPLIT)[-1].rmse
        scores.append(_score(law, estimates[law], {c: e for c, e in held_out.items() if np.isfinite(e)}))
        decided += [f"{law}: {note}" for note in more]
        fits.append(estimates)
    origin = f"the supervised law is {_supervised_source(rows, supervised)}"
    return Comparison(
        scores=tuple(scores),
        runs=rows.n_distillations,
        evidence=weigh_laws(table, rows, replace(base, laws=tuple(laws)), fits),
        notes=(origin, *decided, *table_notes(everything), *repeated, *notes),
    )


def _supervised_source(rows: Rows, supervised: SupervisedLaw | Calibration | None) -> str:
    if supervised is None:
        return f"fitted to {rows.n_supervised} supervised runs"
    return f"that of {supervised.name}" if isinstance(supervised, Calibration) else "given by the caller"


def _choose_laws(rows: Rows, laws: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the laws to compare, and a note on one of ``LAWS`` that is left out."""
    if laws is not None:
        return law_names(laws), []
    reasons = missing_for_published_law(rows)
    if not reasons:
        return list(LAWS), []
    note = f"the published 8-coefficient law is not compared: only {', '.join(reasons)}"
    return [law for law in LAWS if law != "published"], [note]


def _pooled_rmse(
    table: pd.DataFrame,
    rows: Rows,
    masks: Sequence[Mask],
    check: str,
    recipe: Recipe,
    estimates: dict[str, Estimate],
) -> float:
    """Return the rms error over all folds of a check; nan where a fold leaves too little to fit."""
    squares: list[float] = []
    for out in masks:
        gone = int(out[rows.index].sum())
        if not gone or len(rows) - gone < 2 * sum(found.model.size for found in estimates.values()):
            return float("nan")
        try:
            held = hold_out(table, rows, out, check, recipe, estimates)[-1]
        except InputError:
            return float("nan")
        squares += list(held.errors**2)
    return float(np.sqrt(np.mean(squares))) if squares else float("nan")


def _score(law: str, found: Estimate, held_out: dict[str, float]) -> Score:
    rows, n = found.model.rows, found.model.rows.n_supervised
    residual = (rows.L - found.losses)[n:]
    weak = found.supervised.loss(rows.N[n:], rows.D[n:]) < rows.L_T
    count, mean_square = len(residual) * rows.of_kind(1).independence, float(np.mean(residual**2))
    own = len(found.model.names) - sum(name.startswith("supervised") for name in found.model.names)
    return Score(
        law=law,
        fitted=own,
        rmse=float(np.sqrt(mean_square)),
        bic=float(count * np.log(max(mean_square, 1e-30)) + own * np.log(count)),
        condition=found.condition,
        agreed=found.agreed,
        starts=found.starts,
        held_out=held_out,
        bias_weak_teachers=float(np.mean(residual[weak])) if weak.any() else float("nan"),
    )
