"""From a table of runs to laws with uncertainty: the one function most users need, and what it returns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fits.checks.design import (
    check_distillation,
    check_fit,
    judge,
    published_reasons,
    refuse,
    remarks,
)
from fits.checks.heldout import HeldOut, extrapolations, leave_groups_out
from fits.estimation.estimate import Estimate, Objective
from fits.estimation.joint import SUPERVISED, Recipe, draw_laws
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Rows, law_names
from fits.estimation.replicates import together
from fits.estimation.settings import check_options, decide_gamma, fit_or_separate, with_gamma
from fits.table.findings import Finding
from fits.table.flops import counted
from fits.table.row_groups import check_scatter
from fits.table.runs import validate
from scaling.calibration.calibration import Calibration
from scaling.errors import InputError
from scaling.laws import DistillationLaw, SupervisedLaw

if TYPE_CHECKING:
    from fits.estimation.profile_likelihood import Profile, Quantity
    from fits.plots import Plots

LEAST_DRAWS = 20
"""Fewer draws than this have no 5 % and 95 % quantiles."""
OUTLIER = 4.0
"""Residuals beyond this many standard deviations are flagged (and kept)."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Laws fitted to a table, with everything needed to judge them."""

    table: pd.DataFrame
    """The validated table with ``predicted`` (nats/token, default law), ``residual`` (observed - predicted)
    and ``outlier`` (a reason, or empty)."""
    estimates: Mapping[str, Estimate]
    """By law, the first giving the supervised law: the joint fit, or "supervised" where that was fitted to
    its own runs alone. Further laws are conditional on it."""
    supervised: SupervisedLaw
    """Fitted here, or ``given``."""
    distillation: Mapping[str, DistillationLaw]
    """By kind, the default first."""
    draws: Mapping[str, Mapping[str, Array]]
    """Coefficients by law and name, each (draws,); row i of all of them is one draw."""
    held_out: tuple[HeldOut, ...]
    """Runs that were left out of a refit, and how far it missed them."""
    findings: tuple[Finding, ...]
    """What the design limits."""
    notes: tuple[str, ...]
    """Decisions taken on the way: gamma, laws left out, priors."""
    recipe: Recipe
    """How it was fitted; the same fits parts of the table."""
    resample: str
    """What the draws resample, by default whole runs."""
    name: str
    source: str
    given: str
    """Where the supervised law came from, if it was not fitted here."""
    seconds: float
    architecture: Mapping[str, float] = field(default_factory=dict)
    """What was given of ``context``, ``vocab`` and ``aspect_ratio``, with which plans count FLOPs."""

    @property
    def default(self) -> str | None:
        """The law that answers questions unless another is asked for; None without distillations."""
        return next(iter(self.distillation), None)

    @property
    def main(self) -> Estimate:
        """The first estimate, which gives the supervised law."""
        return next(iter(self.estimates.values()))

    @cached_property
    def calibration(self) -> Calibration:
        """What the planner reads: the laws, the draws, the region and the provenance."""
        from fits.reports.export import calibration

        return calibration(self)

    def summary(self) -> str:
        """The report as text."""
        from fits.reports.text import text

        return text(self)

    def report(self, style: str = "text") -> str:
        """The report as "text", "json" or "html" (one page, figures inside)."""
        from fits.reports import html, text

        styles = {"text": text.text, "json": text.as_json, "html": html.page}
        if style not in styles:
            raise InputError(f"a report is text, json or html, not {style!r}")
        return styles[style](self)

    def _repr_html_(self) -> str:
        from fits.reports.html import fragment

        return fragment(self)

    def profile(self, quantity: str | Quantity, level: float = 0.9, law: str | None = None) -> Profile:
        """Profile-likelihood interval: of a fitted coordinate, for example "ln k", or of a function of both
        laws, for example ``lambda supervised, distilled: supervised.loss(1e9, 2e10)``.

        ``law`` names the estimate to move; by default the first, or the first that has the coordinate.
        """
        from fits.estimation.profile_likelihood import profile

        having = [name for name, found in self.estimates.items() if quantity in found.model.names]
        name = law or next(iter(having), next(iter(self.estimates)))
        return profile(self.estimates[name], quantity, level)

    def leave_out(self, column: str) -> tuple[HeldOut, ...]:
        """Leave out every value of a column of the table in turn, refit, predict; errors pooled by law."""
        return leave_groups_out(self.table, column, self.recipe, self.estimates)

    @property
    def plot(self) -> Plots:
        """The figures of this fit: :class:`fits.plots.Plots` lists them."""
        from fits.plots import Plots

        return Plots(self)


def fit(
    runs: pd.DataFrame,
    *,
    laws: Sequence[str] | None = None,
    supervised: SupervisedLaw | Calibration | None = None,
    gamma: str | float = "auto",
    fixed: Mapping[str, float] | None = None,
    tied: bool = False,
    joint: bool | None = None,
    objective: Objective | None = None,
    starts: int = 48,
    draws: int = 400,
    resample: str = "runs",
    held_out: bool = True,
    seed: int = 0,
    executor: Executor | None = None,
    name: str = "fit",
    source: str = "",
    architecture: Mapping[str, float] | None = None,
) -> Fit:
    """Fit the supervised law and the distillation laws to a table of runs.

    ``laws`` names distillation laws, the first being fitted jointly with the supervised law and becoming the
    default; without it that is "effective-tokens", and "published" joins where the design identifies it.
    ``supervised`` gives a supervised law instead of fitting one (a calibration brings its draws along).
    ``gamma`` is 1, "free", or "auto" (free only if BIC asks for it). ``fixed`` pins coefficients of the
    supervised law (E, gamma) or of the distillation law (k, q, eps, c0, f1); ``tied`` makes alpha = beta.
    ``joint`` fits the supervised and the first distillation law to all runs together, or (False) the
    supervised law to its own runs alone; by default together, unless that bends the supervised law.
    ``objective`` is minimised from ``starts`` places. ``draws`` refits carry the uncertainty, each of runs
    drawn anew (``resample="runs"``; :func:`fits.estimation.bootstrap.resampled` lists other ways).
    ``held_out`` also leaves the largest runs and best teachers out and predicts them. ``seed`` is that of
    starts and draws; ``name`` and ``source`` are the calibration's.
    ``executor``, any :class:`concurrent.futures.Executor`, spreads the starts and the draws over threads,
    processes or machines; the result does not depend on it.
    ``architecture`` gives the ``context``, ``vocab`` and ``aspect_ratio`` with which plans count FLOPs, where
    the table has no such columns; what neither says is assumed, and the report says what that changes.

    Raises InputError if the table is unusable or its design cannot identify any law.
    """
    began = time.perf_counter()
    if not isinstance(draws, int) or draws < LEAST_DRAWS:
        raise InputError(f"draws is a count of at least {LEAST_DRAWS}, to carry an interval; not {draws!r}")
    table = validate(runs)
    counted(table, architecture)  # refuses names that it does not know
    rows = Rows.of(table)
    law, law_draws, given = _given(supervised, draws)
    chosen, notes = _laws(rows, laws)
    recipe = Recipe(
        laws=tuple(chosen),
        pins=dict(fixed or {}),
        tied=tied,
        given=law,
        given_draws=law_draws,
        objective=objective or Objective(),
        starts=starts,
        seed=seed,
    )
    check_options(rows, recipe, laws=laws, gamma=gamma, joint=joint, given=given)
    findings = judge(table, rows, law, with_gamma(recipe, gamma).free())
    refuse(findings)
    rows, repeated = together(rows, recipe)
    recipe, decided = decide_gamma(rows, recipe, gamma)
    recipe, estimates, more = fit_or_separate(rows, recipe, joint, executor)
    law = next(iter(estimates.values())).supervised
    if rows.distillations:
        findings += check_distillation(rows, law, recipe.free())
    table = _annotated(table, estimates)
    for kind, of_kind in table[table["excluded"] == ""].groupby("kind", sort=False):
        findings += check_fit(str(kind), of_kind["loss"].to_numpy(), of_kind["predicted"].to_numpy())
        findings += check_scatter(of_kind)
    return Fit(
        table=table,
        recipe=recipe,
        estimates=estimates,
        supervised=law,
        distillation={name: estimates[name].distilled for name in chosen},
        draws=draw_laws(estimates, recipe, draws, resample, executor),
        held_out=extrapolations(table, rows, recipe, estimates) if held_out else (),
        findings=tuple(dict.fromkeys(findings)),
        notes=(*remarks(table), *repeated, *decided, *more, *notes),
        resample=resample,
        name=name,
        source=source,
        given=given,
        seconds=time.perf_counter() - began,
        architecture=dict(architecture or {}),
    )


def _given(
    supervised: SupervisedLaw | Calibration | None, draws: int
) -> tuple[SupervisedLaw | None, dict[str, Array] | None, str]:
    """The supervised law that is not fitted, its draws (draws,), and where it came from."""
    if supervised is None:
        return None, None, ""
    if isinstance(supervised, SupervisedLaw):
        return supervised, None, "a supervised law taken as known"
    if not supervised.draws:
        return supervised.supervised, None, f"{supervised.name} (without uncertainty)"
    pick = np.arange(draws) % supervised.draw_count
    columns = {name: values[pick] for name, values in supervised.draws[SUPERVISED].items()}
    return supervised.supervised, columns, supervised.name


def _laws(rows: Rows, laws: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The distillation laws to fit, default first, and why one is missing."""
    if not rows.distillations:
        return [], []
    if laws is not None:
        return law_names(laws), []
    reasons = published_reasons(rows)
    if reasons:
        return ["effective-tokens"], [
            f"the published 8-coefficient law is not fitted: only {', '.join(reasons)}"
        ]
    return ["effective-tokens", "published"], []


def _annotated(table: pd.DataFrame, estimates: Mapping[str, Estimate]) -> pd.DataFrame:
    """The table with predictions of the default law, residuals, and flags for outliers."""
    annotated = table.copy()
    rows, (first, *others) = Rows.of(table), estimates.values()
    n, index = rows.supervised, annotated.index[rows.index]
    predicted = first.supervised.loss(rows.N, rows.D)
    default = [found for found in (first, *others) if found.model.law is not None][:1]
    for found in default:
        predicted[n:] = found.distilled.loss(rows.N[n:], rows.D[n:], rows.L_T, found.supervised)
    annotated["predicted"], annotated["residual"], annotated["outlier"] = np.nan, np.nan, ""
    annotated.loc[index, "predicted"] = predicted
    annotated.loc[index, "residual"] = rows.L - predicted
    for found in (first, *(other for other in default if other is not first)):
        deviations = found.residual / found.sigma
        far = np.abs(deviations) > OUTLIER
        annotated.loc[annotated.index[found.model.rows.index[far]], "outlier"] = [
            f"{abs(d):.1f} sd {'above' if d > 0 else 'below'} the law" for d in deviations[far]
        ]
    return annotated
