"""Multiplier of a method from matched pairs: estimate, interval and minimum detectable multiplier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student_t

from fits.estimation.levenberg_marquardt import Array
from fits.methods.multiplier_law import MAX_LN_MULTIPLIER, FittedMultipliers

LEVEL = 0.90
"""Confidence level of the intervals."""
QUANTILES = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)
POWER = 0.8
"""Power of the minimum detectable multiplier."""
MIN_CONFIGURATIONS = 3
"""Least number of configurations for a standard error between configurations, not between pairs."""
BISECTIONS = 28
"""Bisection steps, which narrow the range of multipliers to 4e-9 of its width."""
DRAWS_PER_LAW_DRAW = 25
"""Draws of the scatter between pairs for each draw of the law."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodMultiplier:
    """Multiplier of one method against the control."""

    method: str
    pairs: int
    """Number of pairs."""
    configurations: int
    """Number of configurations (size, tokens, teacher) of the pairs."""
    seeds: int
    """Number of seeds of the pairs."""
    same_seed: int
    """Number of pairs with equal seeds."""
    difference: float
    """Mean of the method's loss minus the control's, nats/token."""
    multiplier: float
    """Multiplier of the control's input; above 1 is better than the control; nan without pairs."""
    low: float
    high: float
    """Ends of the 90 % interval of the multiplier; nan where the pairs show no scatter."""
    minimum_detectable: float
    """Minimum detectable multiplier above 1 at 80 % power; nan if unknown."""
    note: str = ""

    @property
    def verdict(self) -> str:
        """Verdict: better, worse, no difference, unknown (no interval), or not compared (no pair)."""
        if not self.pairs:
            return "not compared"
        if not np.isfinite(self.low):
            return "unknown"
        if self.low <= 1.0 <= self.high:
            return "no difference"
        return "better" if self.low > 1.0 else "worse"

    def sentence(self, multiplier: str, control: str) -> str:
        """Return the verdict as a sentence."""
        if self.verdict == "not compared":
            return f"{self.method}: not compared: {self.note}"
        if self.verdict == "unknown":
            words = (
                f"x{self.multiplier:.2f}, from a single pair of runs: the variation between seeds is unknown"
            )
        elif self.verdict == "no difference":
            words = f"no significant difference from {control}"
            words += f" (minimum detectable multiplier {self.minimum_detectable:.2f} at 80 % power)"
        else:
            words = (
                f"{self.verdict}: equivalent to {self.multiplier:.2f} times the {multiplier} of {control} "
                f"(90 % interval {self.low:.2f} to {self.high:.2f})"
            )
        return f"{self.method}: {words}" + (f"; {self.note}" if self.note else "")


def estimate_multiplier(
    method: str,
    pairs: pd.DataFrame,
    best: FittedMultipliers,
    sampled: FittedMultipliers,
    *,
    charged: bool,
    rng: np.random.Generator,
) -> MethodMultiplier:
    """Estimate a multiplier and its interval from matched pairs.

    The interval combines the uncertainty of the shared law, from its draws, with the scatter between
    configurations, as Student's t with one degree of freedom less than their number; resampling three or nine
    configurations would give intervals that are too narrow.

    Args:
        method: Name of the method.
        pairs: Its pairs, from :func:`fits.methods.matching.match_to_control`, with ``group``.
        best: The shared law at its estimate.
        sampled: Draws of the shared law.
        charged: Count the FLOPs of the method against it.
        rng: Random numbers for the scatter.
    """
    cells = int(pairs["cell"].nunique())
    unit = pairs["cell"].to_numpy() if cells >= MIN_CONFIGURATIONS else np.arange(len(pairs))
    found, error, freedom = _ln_multiplier(pairs, unit, best, charged)
    low = high = detectable = np.nan
    if freedom:
        center, spread, _ = _ln_multiplier(pairs, unit, sampled, charged)
        drawn = center[:, None] + spread[:, None] * rng.standard_t(freedom, (len(center), DRAWS_PER_LAW_DRAW))
        low, high = np.exp(np.clip(np.quantile(drawn, QUANTILES), -MAX_LN_MULTIPLIER, MAX_LN_MULTIPLIER))
        errors = student_t.ppf(QUANTILES[1], freedom) + student_t.ppf(POWER, freedom)
        detectable = float(np.exp(min(errors * float(error[0]), MAX_LN_MULTIPLIER)))
    beyond = abs(float(found[0])) > 0.99 * MAX_LN_MULTIPLIER
    return MethodMultiplier(
        method=method, pairs=len(pairs), configurations=cells, seeds=int(pairs["seed"].nunique(dropna=False)),
        same_seed=int(pairs["same_seed"].sum()),
        difference=float((pairs["loss"] - pairs["control_loss"]).mean()),
        multiplier=float(np.exp(found[0])), low=float(low), high=float(high), minimum_detectable=detectable,
        note="beyond the range of the control's law" if beyond else "",
    )  # fmt: skip


def multiplier_without_pairs(method: str, control: str) -> MethodMultiplier:
    """Return the entry of a method without any pair."""
    return MethodMultiplier(
        method=method, pairs=0, configurations=0, seeds=0, same_seed=0, difference=np.nan, multiplier=np.nan,
        low=np.nan, high=np.nan, minimum_detectable=np.nan,
        note=f"no run of {control} has the size, tokens and teacher of one of its runs",
    )  # fmt: skip


def _ln_multiplier(
    pairs: pd.DataFrame, unit: NDArray[np.intp], shared: FittedMultipliers, charged: bool
) -> tuple[Array, Array, float]:
    """Return ln of the multiplier and its standard error, (draws,) each, and the degrees of freedom.

    The multiplier is a least-squares estimate: the law at the multiplied input of the control should have the
    ln loss of the method. Where FLOPs are charged, the input is first raised to what the method's FLOPs would
    have bought the control. The standard error is the jackknife's over units (pairs,), each left out in turn.
    Units of unequal weight leave Kish's effective number less one degrees of freedom.
    """
    N, D, delta = (pairs[name].to_numpy(np.float64) for name in ("params", "tokens", "delta_log_loss"))
    group = pairs["group"].to_numpy(np.intp)
    paid = np.log(pairs["flops_ratio"].to_numpy(np.float64)) if charged else np.zeros(len(pairs))
    alone, _ = shared.log_loss_and_slope(N, D, group, np.zeros((1, 1)))

    def missed(ln_times: Array) -> tuple[Array, Array]:
        ln_loss, slope = shared.log_loss_and_slope(N, D, group, paid + ln_times[:, None])
        return delta - (ln_loss - alone), slope

    low, high = np.full((2, len(alone)), [[-MAX_LN_MULTIPLIER], [MAX_LN_MULTIPLIER]])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        residual, slope = missed(middle)
        too_far = np.sum(slope * residual, axis=1) < 0.0
        low, high = np.where(too_far, low, middle), np.where(too_far, middle, high)
    residual, slope = missed(middle)
    same = (unit[:, None] == np.unique(unit)).astype(np.float64)
    total = np.sum(slope**2, axis=1, keepdims=True)
    weight = slope**2 @ same
    rest = np.maximum(total - weight, 1e-6 * total)
    left_out = ((slope * residual) @ same) / rest
    count = same.shape[1]
    error = np.sqrt((count - 1) / count * np.sum(left_out**2, axis=1))
    alike = float(total[0, 0] ** 2 / np.sum(weight[0] ** 2))
    return middle, error, max(alike - 1.0, 1.0) if count > 1 else 0.0
