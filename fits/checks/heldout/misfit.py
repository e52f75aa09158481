"""Errors of laws on runs that they were not fitted to, measured on blocks left out of refits.

In-sample residuals and a bootstrap of the coefficients take the law for true. Blocks of the largest runs,
predicted from the others, show by how much it is not: a factor by which refits err more than they claim, and
an error that grows with the distance beyond the runs. Both vanish for a law that holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fits.checks.heldout.heldout import Block, HeldOut, predictions
from fits.estimation.estimate import Estimate, fit_model
from fits.estimation.joint import SUPERVISED, Recipe
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Rows
from scaling.calibration.misfit import Misfit
from scaling.laws import coefficients

LARGEST_Z2 = 16.0
"""Squared deviations count up to this, four standard deviations: an outlier is no evidence against a law."""
CALIBRATED_BLOCKS = 12.0
"""Blocks without excess error that the factor on the noise is averaged with."""
EXACT_BLOCKS = 2.0
"""Blocks without any growing error that the growth is averaged with."""
UNKNOWN_GROWTH = 0.006
"""Growth per e-fold where no block can be left out: that of public sweeps."""
SMALLEST_HALF = 6
"""Runs of the dearer half without which the noise is that of all runs."""
NEAREST = {"distance": 0.14, "better_teacher": 0.01, "weaker_teacher": 0.01}
"""A block that lies nearer than this to the other runs (rms; e-folds, ln L_T) says nothing on growth."""
FAMILY = ("effective-tokens", "effective-tokens-capacity", "effective-tokens-sharp")
"""Laws of one family, whose differences are uncertainty of form."""
ALTERNATIVE_STARTS = 4
"""Number of starts of a law that is fitted for that alone."""
TWO_SIDED_90 = 1.645


@dataclass(frozen=True, slots=True)
class BlockErrors:
    """Errors of one law on one block, relative to the loss; arrays are (rows of the block,)."""

    rule: str
    residual: Array
    of_coefficients: Array
    """Variance that the refit claims for its prediction, from the uncertainty of its coefficients."""
    of_run: float
    """Variance of one run around the refitted law."""
    distance: Array
    """E-folds beyond the sizes, tokens and compute of the refit."""
    better_teacher: Array
    """Distance of ln L_T below the losses of the refit's teachers."""
    weaker_teacher: Array
    """Distance of ln L_T above them."""

    @property
    def excess_ratio(self) -> float:
        """Mean squared error over what the refit claims, each row winsorized."""
        return float(np.mean(np.minimum(self.residual**2 / (self.of_coefficients + self.of_run), LARGEST_Z2)))

    def claimed(self, inflation: float) -> Array:
        """Return the claimed variance of each run, with the noise widened."""
        return np.asarray(self.of_coefficients + inflation**2 * self.of_run)

    def growth(self, inflation: float, distance: Array) -> float:
        """Return the error per unit of a distance that the claims leave unexplained."""
        claimed = self.claimed(inflation)
        largest = max(LARGEST_Z2 * float(np.median(self.residual**2)), float(np.max(claimed)))
        unexplained = float(np.mean(np.minimum(self.residual**2, largest)) - np.mean(claimed))
        return float(np.sqrt(max(unexplained, 0.0) / np.mean(distance**2)))


def measure_misfits(estimates: Mapping[str, Estimate], blocks: Sequence[Block]) -> dict[str, Misfit]:
    """Return the misfit of the supervised law, if it was fitted, and of every distillation law."""
    found: dict[str, Misfit] = {}
    first = next(iter(estimates.values()))
    if first.model.given_theta is None:
        found[SUPERVISED] = _measure(SUPERVISED, 0, first, blocks)
    for law, estimate in estimates.items():
        if law != SUPERVISED:
            found[law] = _measure(law, 1, estimate, blocks)
    return found


def with_alternatives(
    misfits: Mapping[str, Misfit], estimates: Mapping[str, Estimate], rows: Rows, recipe: Recipe
) -> dict[str, Misfit]:
    """Add the other effective-tokens laws, fitted to the same runs, to the misfit of each of that family.

    Left-out runs seldom tell the variants apart, and far from the runs they differ by more than each claims.
    """
    supervised = next(iter(estimates.values())).supervised
    family: dict[str, dict[str, float]] = {}
    if not set(FAMILY) & set(misfits):
        return dict(misfits)
    for law in FAMILY:
        if law in estimates:
            found = estimates[law]
        else:
            model = recipe.model(rows, law, supervised)
            found = fit_model(model, recipe.objective, starts=ALTERNATIVE_STARTS, seed=recipe.seed)
        family[law] = {name: float(value) for name, value in coefficients(found.distilled).items()}
    return {
        law: replace(misfit, alternatives={k: v for k, v in family.items() if k != law})
        if law in family
        else misfit
        for law, misfit in misfits.items()
    }


def held_out_of(
    table: pd.DataFrame, blocks: Sequence[Block], misfits: Mapping[str, Misfit]
) -> tuple[HeldOut, ...]:
    """Return the predictions of every block, with how many runs lay inside their 90 % intervals."""
    found: list[HeldOut] = []
    for block in blocks:
        for held in predictions(table, block.left, block.estimates, block.rule):
            errors = _errors(held.law, int(held.law != SUPERVISED), blocks)
            inside = {each.rule: _inside(each, errors) for each in errors}
            found.append(replace(held, inside=inside.get(block.rule) if held.law in misfits else None))
    return tuple(found)


def _measure(law: str, kind: int, found: Estimate, blocks: Sequence[Block]) -> Misfit:
    errors = _errors(law, kind, blocks)
    inflation, growth = _scales(errors)
    rows = found.model.rows.of_kind(kind)
    return Misfit(
        noise=inflation * _noise(found, kind),
        growth=growth["distance"],
        better_teacher_growth=growth["better_teacher"],
        weaker_teacher_growth=growth["weaker_teacher"],
        inflation=inflation,
        fitted=_ranges(rows),
        held_out=sum(len(each.residual) for each in errors),
        inside=sum(_inside(each, errors) for each in errors),
    )


def _scales(errors: Sequence[BlockErrors]) -> tuple[float, dict[str, float]]:
    """Return the factor on the noise, and the growth in every direction of ``NEAREST``."""
    ratios = [each.excess_ratio for each in errors]
    squared = (CALIBRATED_BLOCKS + sum(ratios)) / (CALIBRATED_BLOCKS + len(ratios))
    inflation = float(np.sqrt(max(squared, 1.0)))
    growth: dict[str, float] = {}
    for direction, nearest in NEAREST.items():
        far = [each for each in errors if _rms(getattr(each, direction)) > nearest]
        grown = [each.growth(inflation, getattr(each, direction)) for each in far]
        growth[direction] = sum(grown) / (EXACT_BLOCKS + len(far))
        if direction == "distance" and not far:
            growth[direction] = UNKNOWN_GROWTH
    return inflation, growth


def _inside(block: BlockErrors, errors: Sequence[BlockErrors]) -> int:
    """Count the rows of a block inside their 90 % intervals, widened as the other blocks ask for."""
    inflation, growth = _scales([each for each in errors if each is not block])
    variance = block.claimed(inflation)
    for direction, grown in growth.items():
        variance = variance + (grown * getattr(block, direction)) ** 2
    return int(np.sum(np.abs(block.residual) <= TWO_SIDED_90 * np.sqrt(variance)))


def _errors(law: str, kind: int, blocks: Sequence[Block]) -> list[BlockErrors]:
    """Return the errors of one law on every block that holds runs of its kind."""
    found = []
    for block in blocks:
        left = block.left.of_kind(kind)
        if len(left):
            estimate = (
                block.estimates[law] if law in block.estimates else next(iter(block.estimates.values()))
            )
            found.append(_block_errors(block.rule, estimate, left, kind))
    return found


def _block_errors(rule: str, found: Estimate, left: Rows, kind: int) -> BlockErrors:
    predicted, jacobian = found.model.with_rows(left).evaluate_at(found.theta)
    observed = left.L if found.model.in_nats else np.log(left.L)
    loss = predicted if found.model.in_nats else np.ones(len(left))
    covariance = np.linalg.pinv(found.information, hermitian=True)
    variance = np.einsum("ij,jk,ik->i", jacobian, covariance, jacobian) / loss**2
    fitted = Misfit(noise=0.0, fitted=_ranges(found.model.rows.of_kind(kind)))
    better, weaker = fitted.teacher_distances(left.L_T) if kind else (np.zeros(len(left)),) * 2
    return BlockErrors(
        rule=rule,
        residual=(observed - predicted) / loss,
        of_coefficients=np.asarray(variance),
        of_run=_noise(found, kind) ** 2,
        distance=fitted.distance(left.N, left.D),
        better_teacher=better,
        weaker_teacher=weaker,
    )


def _noise(found: Estimate, kind: int) -> float:
    """Return the robust standard deviation of one run of a kind around the law, relative to the loss.

    It is that of the dearer half of the runs, which those that are asked about resemble more.
    """
    mine = found.model.rows.of_kind(kind)
    chosen = found.model.rows.kind == kind
    loss = found.predicted[chosen] if found.model.in_nats else 1.0
    residual, compute = found.residual[chosen] / loss, mine.N * mine.D
    dearer = residual[compute >= np.median(compute)]
    everywhere = _winsorized_rms(residual)
    ratio = _winsorized_rms(dearer) / everywhere if everywhere and len(dearer) >= SMALLEST_HALF else 1.0
    return ratio * _rms(found.sigma[chosen] / loss)


def _winsorized_rms(values: Array) -> float:
    """Return the root mean square of values, each up to 2.5 robust standard deviations."""
    return _rms(np.minimum(np.abs(values), 2.5 * 1.4826 * float(np.median(np.abs(values)))))


def _ranges(rows: Rows) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value of each variable of rows of one kind."""
    values = {"params": rows.N, "tokens": rows.D, "compute": rows.N * rows.D, "teacher_loss": rows.L_T}
    return {name: (float(x.min()), float(x.max())) for name, x in values.items() if len(x)}


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
