"""Use of a sibling's law: whether it applies, whether it helps, and what it contributed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from fits.checks.heldout.heldout import leave_blocks_out
from fits.estimation.estimate import Estimate
from fits.estimation.joint import Recipe, fit_laws
from fits.estimation.laws.sibling import FARTHEST, Sibling
from fits.estimation.model import Rows
from fits.findings import Finding
from scaling.units import format_number, format_power

ENOUGH_RUNS = 12
"""Supervised runs from which a law of their own is compared with the sibling's, on blocks left out."""
FAR_FROM_SIBLING = 3.0
"""Standard deviations of the prior beyond which a coordinate says that this is no sibling."""


def use_sibling(
    table: pd.DataFrame, rows: Rows, recipe: Recipe, sibling: Sibling, reach: float | None = None
) -> tuple[Recipe, list[str]]:
    """Return the recipe with a sibling's law as its prior, or without it where it is of no use, and notes.

    Args:
        table: The validated table.
        rows: Its usable rows.
        recipe: The other options.
        sibling: The law of another corpus.
        reach: Largest compute (6 N D, FLOPs) that the law will be asked for; that of the runs if not given.

    Raises:
        InputError: for a sibling of another vocabulary or tokenizer.
    """
    check_same_tokens(table, sibling)
    asked = max(_largest_compute(rows), reach or 0.0)
    notes = [coverage(sibling, asked)]
    if sibling.covers(asked) == "no":
        return recipe, [*notes, "the runs are fitted without the prior"]
    mapped = replace(recipe, sibling=sibling, priors={**recipe.priors, **sibling.priors()})
    if rows.n_supervised < ENOUGH_RUNS:
        return mapped, notes
    errors = {name: _left_out_error(table, rows, of) for name, of in {"with": mapped, "own": recipe}.items()}
    if not all(errors.values()):
        return mapped, notes
    better = min(errors, key=lambda name: errors[name])
    notes.append(
        f"runs left out are predicted to {100 * errors['with']:.2f} % from {sibling.name}'s law and to "
        f"{100 * errors['own']:.2f} % by a law of their own, so that "
        + ("the prior is used" if better == "with" else "the runs are fitted without the prior")
    )
    return (mapped if better == "with" else recipe), notes


def check_same_tokens(table: pd.DataFrame, sibling: Sibling) -> None:
    """Refuse a sibling whose losses are of other tokens: they cannot be compared.

    Raises:
        InputError: naming both vocabularies or tokenizers.
    """
    for name, known in (("vocab", sibling.vocab), ("tokenizer", sibling.tokenizer)):
        found = list(table[name].dropna().unique()) if name in table else []
        if known and len(found) and not all(str(value) == str(known) or value == known for value in found):
            values = ", ".join(
                f"{value:g}" if isinstance(value, float | int) else str(value) for value in found[:3]
            )
            what = "a vocabulary" if name == "vocab" else "the tokenizer"
            raise sibling.other_tokens(what, known, "the table", values)


def coverage(sibling: Sibling, compute: float) -> str:
    """Return a sentence on whether a sibling's law holds at a compute (6 N D, FLOPs)."""
    times = compute / sibling.largest_compute
    how_far = {
        "yes": "which covers",
        "beyond": f"and its law is less sure beyond: {times:.1f} times are asked for of",
        "no": f"and says nothing beyond {FARTHEST:g} times that: {format_number(times)} times are "
        "asked for of",
    }[sibling.covers(compute)]
    return (
        f"sibling {sibling.name}: fitted up to {format_power(sibling.largest_compute)} FLOPs, {how_far} the "
        f"{format_power(compute)} FLOPs of the largest run or question"
    )


def contribution(found: Estimate) -> list[str]:
    """Return notes on the map of a sibling's law: its values, and what is left of the prior in them."""
    sibling = found.model.sibling
    if sibling is None:
        return []
    at = [found.model.names.index(name) for name in found.model.names if name.startswith("supervised")]
    value, sd = np.exp(found.theta[at]), found.standard_errors[at]
    share = 1.0 - np.mean((sd / np.array(sibling.widths)) ** 2)
    parts = [
        f"{name} {x:.3f} (factor {np.exp(own):.2f} uncertain, {np.exp(width):.2f} before the runs)"
        for name, x, own, width in zip(("E", "excess", "its power"), value, sd, sibling.widths, strict=True)
    ]
    return [
        f"times {sibling.name}'s: {', '.join(parts)}; the runs determine {100 * max(share, 0.0):.0f} % "
        "of the map, the prior the rest"
    ]


def check_sibling(found: Estimate, compute: float) -> list[Finding]:
    """Check that a fitted map is one between siblings, and that the sibling's law reaches as far."""
    sibling = found.model.sibling
    if sibling is None:
        return []
    findings = []
    at = [i for i, name in enumerate(found.model.names) if name.startswith("supervised")]
    farthest = float(np.max(np.abs(found.theta[at]) / np.array(sibling.widths)))
    if farthest > FAR_FROM_SIBLING:
        findings.append(
            Finding(
                level="warn",
                message=f"the law of {sibling.name} must be moved by {farthest:.1f} standard deviations of "
                "what siblings differ by",
                remedy="Check that both sweeps have the same code, block, ladder, tokenizer and unit of the "
                "loss, or leave the prior out",
            )
        )
    if sibling.covers(compute) == "beyond":
        findings.append(
            Finding(
                level="warn",
                message=coverage(sibling, compute),
                remedy="Add a run near the largest compute that is asked for",
            )
        )
    return findings


def _largest_compute(rows: Rows) -> float:
    return float(np.max(6.0 * rows.N * rows.D))


def _left_out_error(table: pd.DataFrame, rows: Rows, recipe: Recipe) -> float:
    """Return the error of ln loss on supervised runs left out, over blocks; 0 where none can be."""
    only = replace(recipe, laws=recipe.laws[:1], starts=min(recipe.starts, 16))
    blocks = leave_blocks_out(table, rows, only, fit_laws(rows, only))
    errors = [block.supervised_error for block in blocks if block.left.n_supervised]
    return float(np.exp(np.mean(np.log(np.maximum(errors, 1e-6))))) if errors else 0.0
