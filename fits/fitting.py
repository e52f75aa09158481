"""Fit of scaling laws, with uncertainty, to a table of runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fits.checks.annotation import annotated
from fits.checks.comparison.evidence import Evidence
from fits.checks.comparison.expert_size import SizeChoice
from fits.checks.comparison.law_choice import choose_laws, fit_and_weigh
from fits.checks.design import (
    check_distillation,
    check_fit,
    table_notes,
)
from fits.checks.exponents import Exponents, exponents, largest_compute
from fits.checks.heldout.heldout import HeldOut, leave_blocks_out, leave_groups_out
from fits.checks.heldout.misfit import held_out_of, measure_misfits, with_alternatives
from fits.checks.heldout.sibling_choice import check_sibling, contribution
from fits.checks.isoflop import IsoflopProfiles, isoflop_profiles
from fits.estimation.estimate import Estimate, Objective
from fits.estimation.joint import SUPERVISED, Recipe, draw_laws
from fits.estimation.laws.sibling import Sibling
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Rows
from fits.estimation.settings import (
    check_options,
    one_supervised_law,
    split_laws,
)
from fits.findings import Finding
from fits.preparation import prepare
from fits.table.flops import table_accounting
from fits.table.projection import without_projected
from fits.table.runs import validate
from fits.table.validation.row_groups import check_replicates
from scaling.calibration.calibration import Calibration
from scaling.calibration.misfit import Misfit
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, DistillationLaw
from scaling.repeated_data import Repetition

if TYPE_CHECKING:
    from fits.estimation.profile_likelihood import Profile, Quantity
    from fits.plots import FitPlots

MIN_DRAWS = 20
"""Least number of draws with 5 % and 95 % quantiles."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Laws fitted to a table, with diagnostics.

    >>> import fits
    >>> import sweeps
    >>> runs = sweeps.shipped("permissive").iloc[::2]
    >>> found = fits.fit(runs, laws=["effective-tokens"], draws=20, starts=2, held_out=False)
    >>> found.plot.names()
    ['corner', 'isoflop', 'law', 'predicted', 'profile', 'residuals']
    """

    table: pd.DataFrame
    """The validated table with ``predicted`` (nats/token, default law), ``residual`` (observed - predicted)
    and ``outlier`` (a reason, or empty)."""
    estimates: Mapping[str, Estimate]
    """Estimates by law. The first gives the supervised law: the joint fit, or "supervised" where that was
    fitted to the supervised runs alone. Further laws are conditional on it."""
    supervised: AnySupervisedLaw
    """Supervised law, fitted or ``given``."""
    distillation: Mapping[str, DistillationLaw]
    """Distillation laws by name, the default first."""
    draws: Mapping[str, Mapping[str, Array]]
    """Coefficients by law and name, each (draws,); row i of all of them is one draw."""
    evidence: Evidence | None
    """Weights of the laws from runs left out; None for one law, or where the table is too small."""
    held_out: tuple[HeldOut, ...]
    """Errors of predictions of runs that were left out of a refit."""
    misfit: Mapping[str, Misfit]
    """Errors of each law on runs it was not fitted to; empty if no blocks were left out."""
    findings: tuple[Finding, ...]
    """Design findings."""
    notes: tuple[str, ...]
    """Choices made during the fit: gamma, laws left out, averaged replicates."""
    recipe: Recipe
    """Options of the fit, with which parts of the table can be refitted."""
    resample: str
    """Resampling scheme of the draws, by default whole runs."""
    name: str
    source: str
    given: str
    """Source of the given supervised law; empty if it was fitted."""
    seconds: float
    repetition: Repetition | None = None
    """Constants of repeated data, where enough supervised runs repeat theirs."""
    size: SizeChoice | None = None
    """Size of mixtures of experts, where the table has active and total parameters."""
    isoflop: IsoflopProfiles | None = None
    """Scaling exponents by IsoFLOP profiles, where they were asked for."""
    architecture: Mapping[str, float] = field(default_factory=dict)
    """Values of ``context``, ``vocab`` and ``aspect_ratio`` given by the caller, for counting FLOPs."""

    @property
    def default(self) -> str | None:
        """Name of the default distillation law; None without distillations."""
        return next(iter(self.distillation), None)

    @property
    def primary_estimate(self) -> Estimate:
        """First estimate, which gives the supervised law."""
        return next(iter(self.estimates.values()))

    @cached_property
    def exponents(self) -> Exponents | None:
        """Scaling exponents of the supervised law, at C = 6 N D; None without supervised runs."""
        runs = self.table[(self.table["excluded"] == "") & (self.table["kind"] == "supervised")]
        if self.given or runs.empty:
            return None
        largest = largest_compute(runs["params"].to_numpy(np.float64), runs["tokens"].to_numpy(np.float64))
        return exponents(self.supervised, self.draws[SUPERVISED], largest)

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration for the planner: laws, draws, region and provenance."""
        from fits.reports.export import to_calibration

        return to_calibration(self)

    def summary(self) -> str:
        """Return the report as text."""
        from fits.reports.text import text_report

        return text_report(self)

    def report(self, style: str = "text") -> str:
        """Return the report.

        Args:
            style: "text", "json" or "html" (one page with the figures inside).

        Raises:
            InputError: for another style.
        """
        from fits.reports import html, text

        styles = {"text": text.text_report, "json": text.json_report, "html": html.html_page}
        if style not in styles:
            raise InputError(f"style must be 'text', 'json' or 'html', not {style!r}")
        return styles[style](self)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per coefficient: law, name, value, and the 90 % interval, low and high."""
        return pd.DataFrame(self.to_dict()["coefficients"])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON; losses in nats/token, numbers not finite are None."""
        from fits.reports.text import report_data
        from scaling.to_plain import nan_to_none

        content: dict[str, Any] = nan_to_none(report_data(self))
        return content

    def _repr_html_(self) -> str:
        from fits.reports.html import html_fragment

        return html_fragment(self)

    def profile(self, quantity: str | Quantity, level: float = 0.9, law: str | None = None) -> Profile:
        """Compute a profile-likelihood interval.

        Args:
            quantity: A fitted coordinate, for example "ln k", or a function of both laws, for example
                ``lambda supervised, distilled: supervised.loss(1e9, 2e10)``.
            level: Confidence level.
            law: Name of the estimate; by default the first, or the first that has the coordinate.

        Raises:
            InputError: for a coordinate that was not fitted.
        """
        from fits.estimation.profile_likelihood import profile

        having = [name for name, found in self.estimates.items() if quantity in found.model.names]
        name = law or next(iter(having), next(iter(self.estimates)))
        return profile(self.estimates[name], quantity, level)

    def leave_groups_out(self, column: str) -> tuple[HeldOut, ...]:
        """Leave out every value of a column of the table in turn, refit and predict.

        Returns:
            Errors pooled over the groups, one entry for each law.

        Raises:
            InputError: for a column with fewer than two values, or if too little is left to fit.
        """
        return leave_groups_out(self.table, column, self.recipe, self.estimates)

    @property
    def plot(self) -> FitPlots:
        """Figures of this fit, listed in :class:`fits.plots.FitPlots`."""
        from fits.plots import FitPlots

        return FitPlots(self)


def fit(
    runs: pd.DataFrame,
    *,
    laws: Sequence[str] | None = None,
    supervised: AnySupervisedLaw | Calibration | None = None,
    prior: Calibration | Sibling | str | None = None,
    reach: float | None = None,
    gamma: str | float = "auto",
    fixed: Mapping[str, float] | None = None,
    tied: bool = False,
    joint: bool | None = None,
    size: str = "auto",
    objective: Objective | None = None,
    starts: int = 48,
    draws: int = 400,
    resample: str = "runs",
    held_out: bool = True,
    isoflop: bool = False,
    measured_only: bool = False,
    seed: int = 0,
    executor: Executor | None = None,
    name: str = "fit",
    source: str = "",
    architecture: Mapping[str, float] | None = None,
) -> Fit:
    """Fit the supervised law and the distillation laws to a table of runs.

    Args:
        runs: One row a run, as :func:`fits.read_runs` returns it; losses in nats/token.
        laws: Distillation laws; the first is fitted jointly with the supervised law and becomes the default.
            By default "effective-tokens", and "published" where the design identifies it. One of the names
            may be a supervised law ("over-training", "farseer", or a registered one) in place of the
            "power-law".
        supervised: A supervised law that is used instead of fitting one; a calibration brings its draws.
        prior: The law of another corpus on the same code, block and ladder, which three numbers map to this
            one (:mod:`fits.estimation.laws.sibling`): a calibration, its file, or the name of a sweep that
            ships. It is given up above ten times its largest compute.
        reach: Largest compute, 6 N D in FLOPs, that a law fitted under ``prior`` will be asked for; that of
            the runs if not given.
        gamma: 1, another number, or "free" under its prior, ln gamma ~ N(ln 0.55, 0.4); "auto" is free and
            pulled towards 1 by as much as blocks of runs left out ask for
            (:mod:`fits.checks.heldout.gamma_weight`), and 1 where the objective has no priors.
        fixed: Values of coefficients that are not fitted: E and gamma of the supervised law, k, q, eps, c0
            or f1 of the distillation law.
        tied: Fit one exponent for alpha and beta.
        joint: Fit the supervised and the first distillation law to all runs together (True), or the
            supervised law to the supervised runs alone (False); by default together, unless the supervised
            runs reject that.
        size: Parameters of mixtures of experts that the laws are fitted in, "active" or "total", where the
            table has both; by default those that predict supervised runs left out better.
        objective: The objective to minimize.
        starts: Number of starts of the minimization.
        draws: Number of bootstrap refits, which carry the uncertainty.
        resample: Resampling scheme of the draws, "runs" by default;
            :func:`fits.estimation.bootstrap.resample_rows` lists the others.
        held_out: Also leave out blocks (the largest runs, the best and the weakest teachers), refit, and
            predict them. Without that the misfit of the laws is unknown, and intervals are too narrow.
        isoflop: Also find scaling exponents by IsoFLOP profiles, beside those of the law.
        measured_only: Leave out losses that are projected (column ``projected_sd``); else their variance is
            added to that of a run.
        seed: Seed of starts and draws.
        executor: Any :class:`concurrent.futures.Executor`, which runs starts and draws in threads, processes
            or on machines; the result does not depend on it.
        name: Name of the calibration.
        source: Source of the runs, for the calibration's provenance.
        architecture: ``context``, ``vocab`` and ``aspect_ratio`` for counting FLOPs, where the table has no
            such columns; what neither gives is assumed, and the report states the effect.

    Returns:
        The laws with their uncertainty, held-out errors, findings and notes.

    Raises:
        InputError: if the table is unusable, its design cannot identify any law, or an option does not apply.

    >>> import fits
    >>> import sweeps
    >>> runs = sweeps.shipped("permissive")
    >>> found = fits.fit(runs, laws=["effective-tokens"], draws=20, starts=2, held_out=False)
    >>> found.default, found.to_frame()["law"].unique().tolist()
    ('effective-tokens', ['supervised', 'effective-tokens'])
    """
    began = time.perf_counter()
    if not isinstance(draws, int) or draws < MIN_DRAWS:
        raise InputError(f"draws must be an integer of at least {MIN_DRAWS}, not {draws!r}")
    table = without_projected(validate(runs)) if measured_only else validate(runs)
    table_accounting(table, architecture)  # rejects unknown names
    rows = Rows.of(table)
    supervised_laws, laws = split_laws(laws)
    kind = one_supervised_law(supervised_laws)
    chosen, notes = choose_laws(rows, laws, kind if supervised is None else None)
    options = {"tied": tied, "objective": objective or Objective(), "starts": starts, "seed": seed}
    options["supervised_law"] = kind
    recipe, given = _recipe(supervised, draws, laws=tuple(chosen), pins=dict(fixed or {}), **options)
    check_options(rows, recipe, laws=laws, gamma=gamma, joint=joint, given=given)
    fitted_size = getattr(supervised, "size", "") if size == "auto" else size
    ready = prepare(table, rows, recipe, gamma=gamma, prior=prior, reach=reach, size=fitted_size or "auto")
    table, rows, findings = ready.table, ready.rows, ready.findings
    recipe, estimates, evidence, more = fit_and_weigh(table, rows, ready.recipe, joint, executor)
    default = evidence.preferred if evidence else next(iter(chosen), None)
    chosen.sort(key=lambda name: name != default)
    law = next(iter(estimates.values())).supervised
    table = annotated(table, estimates, default)
    findings += _fit_findings(table, rows, law, recipe)
    mapped = next(iter(estimates.values()))
    findings += check_sibling(mapped, max(float(np.max(6.0 * rows.N * rows.D)), reach or 0.0))
    blocks = leave_blocks_out(table, rows, recipe, estimates) if held_out else ()
    misfits = measure_misfits(estimates, blocks) if held_out else {}
    misfits = with_alternatives(misfits, estimates, rows, recipe)
    return Fit(
        table=table,
        recipe=recipe,
        estimates=estimates,
        supervised=law,
        distillation={name: estimates[name].distilled for name in chosen},
        draws=draw_laws(estimates, recipe, draws, resample, executor),
        evidence=evidence,
        repetition=ready.repetition,
        size=ready.size,
        isoflop=isoflop_profiles(table, seed) if isoflop else None,
        held_out=held_out_of(table, blocks, misfits),
        misfit=misfits,
        findings=tuple(dict.fromkeys(findings)),
        notes=(*table_notes(table), *ready.notes, *contribution(mapped), *more, *notes),
        resample=resample,
        name=name,
        source=source,
        given=given,
        seconds=time.perf_counter() - began,
        architecture=dict(architecture or {}),
    )


def _recipe(
    supervised: AnySupervisedLaw | Calibration | None, draws: int, **options: Any
) -> tuple[Recipe, str]:
    """Return the options of a fit with the supervised law that is given, if any, and that law's source."""
    law, law_draws, given = _given_law(supervised, draws)
    return Recipe(given=law, given_draws=law_draws, **options), given


def _fit_findings(table: pd.DataFrame, rows: Rows, law: AnySupervisedLaw, recipe: Recipe) -> list[Finding]:
    """Return findings on fitted runs: ``table`` holds the predictions."""
    findings = check_distillation(rows, law, recipe.free()) if rows.n_distillations else []
    for kind, of_kind in table[table["excluded"] == ""].groupby("kind", sort=False):
        findings += check_fit(str(kind), of_kind["loss"].to_numpy(), of_kind["predicted"].to_numpy())
        findings += check_replicates(of_kind)
    return findings


def _given_law(
    supervised: AnySupervisedLaw | Calibration | None, draws: int
) -> tuple[AnySupervisedLaw | None, dict[str, Array] | None, str]:
    """Return the given supervised law, its draws (draws,), and its source."""
    if supervised is None:
        return None, None, ""
    if not isinstance(supervised, Calibration):
        return supervised, None, "a supervised law without uncertainty"
    if not supervised.draws:
        return supervised.supervised, None, f"{supervised.name} (without uncertainty)"
    pick = np.arange(draws) % supervised.draw_count
    columns = {name: values[pick] for name, values in supervised.draws[SUPERVISED].items()}
    return supervised.supervised, columns, supervised.name
