"""Comparison of laws on one table: cross-validations, BIC and a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.checks.comparison.compare_supervised import compare_supervised_laws
from fits.checks.comparison.evidence import weigh_laws
from fits.checks.comparison.scores import (
    DISTILLATION_CHECKS,
    TABLE_SPLIT,
    Comparison,
    Score,
    pooled_rmse,
    score,
)
from fits.checks.design import design_findings, missing_for_published_law, raise_refusals, table_notes
from fits.checks.heldout.folds import cross_validation_folds
from fits.checks.heldout.gamma_weight import weigh_gamma
from fits.checks.heldout.heldout import predictions
from fits.estimation.estimate import Estimate, Objective
from fits.estimation.joint import Recipe
from fits.estimation.model import Rows, law_names
from fits.estimation.repetition import fit_repetition, repeats_data
from fits.estimation.replicates import average_replicates
from fits.estimation.settings import (
    check_options,
    fit_jointly_or_separately,
    fix_gamma,
    one_supervised_law,
    split_laws,
)
from fits.table.runs import validate
from scaling.calibration.calibration import Calibration
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw
from scaling.laws.registry import check_compatible, has_irreducible_loss, supervised_kind

NO_DISTILLATIONS = (
    "there are no distillations to compare laws on; name supervised laws to compare those, for example "
    "power-law and farseer"
)
LAWS = ("published", "effective-tokens", "effective-tokens-capacity", "effective-tokens-sharp")


def compare_laws(
    runs: pd.DataFrame,
    laws: Sequence[str] | None = None,
    *,
    supervised: AnySupervisedLaw | Calibration | None = None,
    gamma: str | float = "auto",
    fixed: Mapping[str, float] | None = None,
    tied: bool = False,
    joint: bool | None = None,
    objective: Objective | None = None,
    thresholds: tuple[float, float, float] | None = None,
    starts: int = 32,
    seed: int = 0,
) -> Comparison:
    """Fit every law to the same runs and cross-validate it.

    Every law is fitted as :func:`fits.fit` would fit it alone; gamma is decided once, for all laws. Where the
    table has a column ``split``, all this happens within the rows marked "fit", and predicting the others is
    one more check.

    Args:
        runs: One row a run, as :func:`fits.read_runs` returns it.
        laws: Distillation laws; by default those of ``LAWS`` that the design identifies. One supervised law
            among them is the one that they stand on. Supervised laws alone are compared with each other, on
            the supervised runs.
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
    table, out = _fit_split(everything)
    rows = Rows.of(table)
    supervised_laws, laws = split_laws(laws)
    base = Recipe(
        laws=(),
        pins=dict(fixed or {}),
        tied=tied,
        objective=objective or Objective(),
        starts=starts,
        seed=seed,
    )
    if supervised_laws and laws is None:
        return compare_supervised_laws(table, supervised_laws, base, gamma, supervised)
    if not rows.n_distillations:
        raise InputError(NO_DISTILLATIONS)
    given = supervised.supervised if isinstance(supervised, Calibration) else supervised
    base = replace(base, given=given, supervised_law=one_supervised_law(supervised_laws))
    check_options(rows, base, laws=laws, gamma=gamma, joint=joint, given="the supervised law given")
    laws, notes = _choose_laws(rows, laws, base)
    everywhere = replace(base, laws=tuple(laws))
    check_compatible(base.supervised_law if given is None else supervised_kind(given), laws)
    raise_refusals(design_findings(table, rows, given, fix_gamma(everywhere, gamma)[0].free()))
    if given is None and repeats_data(table):
        effective, _ = fit_repetition(table, fix_gamma(everywhere, gamma)[0])
        columns = effective[["effective_params", "effective_tokens"]]
        table, everything = table.join(columns), everything.join(columns)
        rows = Rows.of(table)
    rows, repeated = average_replicates(rows, everywhere)
    base, decided = fix_gamma(base, gamma)
    if gamma == "auto":
        base, weighed = weigh_gamma(table, rows, base)
        decided += weighed
    held_out = _HeldOut.of(everything, out, table, rows, thresholds)
    scores: list[Score] = []
    fits: list[dict[str, Estimate]] = []
    for law in laws:
        recipe, estimates, more = fit_jointly_or_separately(rows, replace(base, laws=(law,)), joint)
        scores.append(score(law, estimates[law], held_out.errors(recipe, estimates)))
        decided += [f"{law}: {note}" for note in more]
        fits.append(estimates)
    origin = f"the supervised law is {_supervised_source(rows, supervised)}"
    return Comparison(
        scores=tuple(scores),
        runs=rows.n_distillations,
        evidence=weigh_laws(table, rows, replace(base, laws=tuple(laws)), fits),
        notes=(origin, *decided, *table_notes(everything), *repeated, *notes),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _HeldOut:
    """Runs that the laws are fitted to, those that each check leaves out, and those outside the fit split."""

    everything: pd.DataFrame
    table: pd.DataFrame
    rows: Rows
    folds: dict[str, list[NDArray[np.bool_]]]
    split_off: Rows

    @classmethod
    def of(
        cls,
        everything: pd.DataFrame,
        out: NDArray[np.bool_],
        table: pd.DataFrame,
        rows: Rows,
        thresholds: tuple[float, float, float] | None,
    ) -> _HeldOut:
        """Return the runs of ``table`` with its folds, and those of ``everything`` that ``out`` marks."""
        return cls(
            everything=everything,
            table=table,
            rows=rows,
            folds={check: list(masks) for check, masks in cross_validation_folds(table, thresholds).items()},
            split_off=Rows.of(everything.assign(excluded=np.where(out, "", "not held out"))),
        )

    def errors(self, recipe: Recipe, estimates: dict[str, Estimate]) -> dict[str, float]:
        """Return the error of a law on the runs that each check leaves out of its fit, where there is one."""
        found = {
            check: pooled_rmse(self.table, self.rows, self.folds[check], check, recipe, estimates)
            for check in DISTILLATION_CHECKS
            if check in self.folds
        }
        if self.split_off.n_distillations:
            split = predictions(self.everything, self.split_off, estimates, TABLE_SPLIT)
            found[TABLE_SPLIT] = split[-1].rmse
        return {check: error for check, error in found.items() if np.isfinite(error)}


def _fit_split(everything: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Return the table without rows that its column ``split`` does not mark "fit", and which those are."""
    if "split" not in everything or not (everything["split"] == "fit").any():
        return everything, np.zeros(len(everything), dtype=bool)
    out = (everything["split"] != "fit").to_numpy() & (everything["excluded"] == "").to_numpy()
    return everything.assign(excluded=np.where(out, "not in the fit split", everything["excluded"])), out


def _supervised_source(rows: Rows, supervised: AnySupervisedLaw | Calibration | None) -> str:
    if supervised is None:
        return f"fitted to {rows.n_supervised} supervised runs"
    return f"that of {supervised.name}" if isinstance(supervised, Calibration) else "given by the caller"


def _choose_laws(rows: Rows, laws: Sequence[str] | None, recipe: Recipe) -> tuple[list[str], list[str]]:
    """Return the laws to compare, and a note on one of ``LAWS`` that is left out."""
    if laws is not None:
        return law_names(laws), []
    stands_on = recipe.supervised_law if recipe.given is None else supervised_kind(recipe.given)
    if not has_irreducible_loss(stands_on):
        return ["published"], ["the effective-tokens laws are not compared: the supervised law has no E"]
    reasons = missing_for_published_law(rows)
    if not reasons:
        return list(LAWS), []
    note = f"the published 8-coefficient law is not compared: only {', '.join(reasons)}"
    return [law for law in LAWS if law != "published"], [note]
