"""Choice of the laws of a fit: which can be fitted, and which one the runs prefer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace

import pandas as pd

from fits.checks.comparison.evidence import Evidence, weigh_laws
from fits.checks.design import missing_for_published_law
from fits.estimation.estimate import Estimate
from fits.estimation.joint import SUPERVISED, Recipe, coordinate_pins
from fits.estimation.model import Rows, law_names
from fits.estimation.settings import fit_jointly_or_separately
from scaling.laws.registry import has_irreducible_loss


def choose_laws(
    rows: Rows, laws: Sequence[str] | None, supervised_law: str | None
) -> tuple[list[str], list[str]]:
    """Return the distillation laws to fit, the default first, and a note on one that is left out.

    On a supervised law without irreducible loss stands the published law alone.
    """
    if not rows.n_distillations:
        return [], []
    if laws is not None:
        return law_names(laws), []
    if supervised_law is not None and not has_irreducible_loss(supervised_law):
        return ["published"], []
    reasons = missing_for_published_law(rows)
    if reasons:
        return ["effective-tokens"], [
            f"the published 8-coefficient law is not fitted: only {', '.join(reasons)}"
        ]
    return ["effective-tokens", "published"], []


def _pins_supervised(recipe: Recipe) -> bool:
    """Return True if all pinned coefficients are those of the supervised law."""
    return all(name.startswith(SUPERVISED) for name in coordinate_pins(recipe.pins, recipe.supervised_law))


def fit_and_weigh(
    table: pd.DataFrame, rows: Rows, asked: Recipe, joint: bool | None, executor: Executor | None
) -> tuple[Recipe, dict[str, Estimate], Evidence | None, list[str]]:
    """Fit the laws and weigh them, again with the law that the runs prefer as the one fitted jointly.

    A law whose own coefficients are pinned stays the joint one.
    """
    recipe, estimates, notes = fit_jointly_or_separately(rows, asked, joint, executor)
    evidence = weigh_laws(table, rows, recipe, [estimates])
    if evidence is None or evidence.preferred == asked.laws[0]:
        return recipe, estimates, evidence, notes
    preferred = evidence.preferred
    if asked.given is None and joint is not False and _pins_supervised(asked):
        asked = replace(asked, laws=tuple(sorted(asked.laws, key=lambda law: law != preferred)))
        recipe, estimates, notes = fit_jointly_or_separately(rows, asked, joint, executor)
        evidence = weigh_laws(table, rows, recipe, [estimates])
    note = f"the default is the {preferred} law, which predicts the runs left out best"
    return recipe, estimates, evidence, [*notes, note]
