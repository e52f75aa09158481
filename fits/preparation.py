"""Decisions on a table before its laws are fitted: prior, gamma, size of experts, repeats, replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from fits.checks.comparison.expert_size import SizeChoice, choose_size
from fits.checks.design import design_findings, raise_refusals
from fits.checks.heldout.gamma_weight import weigh_gamma
from fits.checks.heldout.sibling_choice import use_sibling
from fits.estimation.joint import Recipe
from fits.estimation.laws.sibling import Sibling
from fits.estimation.model import Rows
from fits.estimation.repetition import fit_repetition, repeats_data
from fits.estimation.replicates import average_replicates
from fits.estimation.settings import check_options, fix_gamma
from fits.findings import Finding
from scaling.calibration.calibration import Calibration
from scaling.repeated_data import Repetition


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedTable:
    """Table, rows and options that laws are fitted with."""

    table: pd.DataFrame
    rows: Rows
    recipe: Recipe
    findings: list[Finding]
    notes: Sequence[str]
    size: SizeChoice | None
    repetition: Repetition | None


def prepare(
    table: pd.DataFrame,
    rows: Rows,
    recipe: Recipe,
    *,
    gamma: str | float,
    prior: Calibration | Sibling | str | None,
    reach: float | None,
    size: str,
) -> PreparedTable:
    """Decide what the options of a fit leave open, and refuse a design that identifies no law.

    Args:
        table: The validated table.
        rows: Its rows.
        recipe: Options of the fit.
        gamma: As asked for.
        prior: As asked for.
        reach: As asked for.
        size: Size of mixtures of experts to fit in.

    Raises:
        InputError: for a design that cannot identify any law, or an option that does not apply.
    """
    decided: list[str] = []
    if prior is not None:
        sibling = Sibling.of(prior)
        check_options(rows, replace(recipe, sibling=sibling), gamma=gamma)
        recipe, decided = use_sibling(table, rows, recipe, sibling, reach)
    recipe, more = fix_gamma(recipe, gamma)
    decided += more
    table, sizes = choose_size(table, recipe, size)
    rows = Rows.of(table) if sizes else rows
    findings = design_findings(table, rows, recipe.given, recipe.free())
    raise_refusals(findings)
    repetition = None
    if recipe.given is None and repeats_data(table):
        table, repetition = fit_repetition(table, recipe)
        rows = Rows.of(table)
    rows, repeated = average_replicates(rows, recipe)
    if gamma == "auto":
        recipe, more = weigh_gamma(table, rows, recipe)
        decided += more
    return PreparedTable(
        table=table, rows=rows, recipe=recipe, findings=findings, size=sizes, repetition=repetition,
        notes=(*([sizes.reason] if sizes else []), *repeated, *decided),
    )  # fmt: skip
