"""Scores of laws on one table: errors on runs left out, BIC, and the tables that compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fits.checks.comparison.evidence import COLUMNS, Evidence
from fits.checks.heldout.folds import (
    CELL,
    FEW_TO_MANY,
    LARGEST_COMPUTE,
    SIZE,
    SMALL_TO_LARGE,
    STRONG_TO_WEAK,
    WEAK_TO_STRONG,
    Mask,
)
from fits.checks.heldout.heldout import hold_out
from fits.estimation.estimate import Estimate
from fits.estimation.joint import Recipe
from fits.estimation.model import Rows
from scaling.errors import InputError

if TYPE_CHECKING:
    from fits.plots.laws import ComparisonPlots

TABLE_SPLIT = "the table's split"
CAPTION = "errors are rms nats/token; * marks the best"
CHECKS = (
    *(SIZE, CELL, WEAK_TO_STRONG, STRONG_TO_WEAK, FEW_TO_MANY, SMALL_TO_LARGE, LARGEST_COMPUTE),
    TABLE_SPLIT,
)
"""Names of the hold-out checks, in the order in which they are reported.

They hold out a size; a size and token count; teachers better than those fitted; worse ones; more tokens than
fitted; larger models; more compute; rows whose column ``split`` is not "fit".
"""
DISTILLATION_CHECKS = (SIZE, CELL, WEAK_TO_STRONG, STRONG_TO_WEAK, FEW_TO_MANY)
"""Checks of distillation laws, besides the table's split."""


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
    """Number of runs that were fitted: distillations, or supervised runs where those laws are compared."""
    evidence: Evidence | None = None
    """Weights of the laws from runs left out; None where the table is too small for that."""
    notes: tuple[str, ...] = ()
    """Origin of the supervised law, and laws that were left out."""
    kind: str = "distillation"
    """Kind of the laws: "distillation" or "supervised"."""

    @property
    def counted(self) -> str:
        """The runs in words."""
        return f"{self.runs} {'distillations' if self.kind == 'distillation' else 'supervised runs'}"

    @property
    def preferred(self) -> str | None:
        """Law of the least mean error on runs left out; None where none could be left out."""
        known = [score for score in self.scores if np.isfinite(score.mean)]
        return min(known, key=lambda score: score.mean).law if known else None

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
        return {
            "kind": self.kind,
            "runs": self.runs,
            "criteria": self.criteria(),
            "bias, weak teachers": bias,
        } | {
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
        title = f"<p><b>{self.counted} under {len(self.scores)} laws</b></p><p>{CAPTION}</p>"
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
            *self._bias_row(),
            ["condition", *(f"{score.condition:.0f} " for score in self.scores)],
            ["starts that agree", *(f"{score.agreed}/{score.starts} " for score in self.scores)],
        ]
        return ["", *(f"{score.law} " for score in self.scores)], rows

    def _bias_row(self) -> list[list[str]]:
        if self.kind == "supervised":
            return []
        return [["bias, weak teachers", *(f"{score.bias_weak_teachers:+.4f} " for score in self.scores)]]

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
            f"{self.counted}; {CAPTION}",
            "",
            *(line(*cells) for cells in (header, *rows)),
            "",
            *self.verdicts(),
            *(["", *self.evidence.lines()] if self.evidence else []),
            *([""] if self.notes else []),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def pooled_rmse(
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


def score(law: str, found: Estimate, held_out: dict[str, float]) -> Score:
    """Return the scores of a distillation law, or of a supervised law that was fitted alone."""
    rows, alone = found.model.rows, found.model.law is None
    n, own = (0, 0) if alone else (rows.n_supervised, _supervised_coordinates(found))
    residual = (rows.L - found.losses)[n:]
    weak = np.zeros(0, dtype=bool) if alone else found.supervised.loss(rows.N[n:], rows.D[n:]) < rows.L_T
    independence = rows.of_kind(int(not alone)).independence
    count, mean_square = len(residual) * independence, float(np.mean(residual**2))
    fitted = found.model.size - own
    return Score(
        law=law,
        fitted=fitted,
        rmse=float(np.sqrt(mean_square)),
        bic=float(count * np.log(max(mean_square, 1e-30)) + fitted * np.log(count)),
        condition=found.condition,
        agreed=found.agreed,
        starts=found.starts,
        held_out=held_out,
        bias_weak_teachers=float(np.mean(residual[weak])) if weak.any() else float("nan"),
    )


def _supervised_coordinates(found: Estimate) -> int:
    return sum(name.startswith("supervised") for name in found.model.names)
