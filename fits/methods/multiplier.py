"""What pairs of runs say a method is worth: a multiplier, its interval, and what could have been told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student_t

from fits.estimation.levenberg_marquardt import Array
from fits.methods.shared_law import FARTHEST, Shared

LEVEL = 0.95
ENDS = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)
POWER = 0.8
"""How often the smallest multiplier that "could have been told" would have been."""
CELLS = 3
"""From this many configurations on their scatter is the uncertainty; of fewer, that of single pairs is."""
HALVINGS = 28
"""Of the range of multipliers, to 4e-9 of its width."""
PER_LAW = 25
"""Draws of the pairs' scatter for each draw of the law."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """What one method is worth against the control."""

    method: str
    pairs: int
    cells: int
    """Configurations (size, tokens, teacher) that the pairs are of."""
    seeds: int
    same_seed: int
    """Pairs whose runs share their seed."""
    difference: float
    """Mean of the method's loss minus the control's, nats/token."""
    multiplier: float
    """Above 1 is better than the control; nan where there is no pair."""
    low: float
    high: float
    """The 95 % interval of the multiplier; nan where the pairs show no spread."""
    detectable: float
    """The smallest multiplier above 1 that would have been told from 1 four times in five; nan if unknown."""
    note: str = ""

    @property
    def verdict(self) -> str:
        """better, worse, no difference, unknown (no spread to judge by), or not compared (no pair)."""
        if not self.pairs:
            return "not compared"
        if not np.isfinite(self.low):
            return "unknown"
        if self.low <= 1.0 <= self.high:
            return "no difference"
        return "better" if self.low > 1.0 else "worse"

    def sentence(self, multiplier: str, control: str) -> str:
        """The verdict in words."""
        if self.verdict == "not compared":
            return f"{self.method}: not compared: {self.note}"
        if self.verdict == "unknown":
            said = f"x{self.multiplier:.2f}, from a single pair of runs: what seeds do to it is unknown"
        elif self.verdict == "no difference":
            said = f"no difference from {control} that these runs can tell"
            said += f" (x{self.detectable:.2f} they would, 4 times in 5)"
        else:
            said = (
                f"{self.verdict}: worth x{self.multiplier:.2f} the {multiplier} of {control} "
                f"({self.low:.2f} to {self.high:.2f})"
            )
        return f"{self.method}: {said}" + (f"; {self.note}" if self.note else "")


def worth(
    method: str,
    pairs: pd.DataFrame,
    best: Shared,
    sampled: Shared,
    *,
    charged: bool,
    rng: np.random.Generator,
) -> Worth:
    """What the pairs of one method say, at the best shared law and over draws of it.

    The interval has the shared law's uncertainty from its draws, and the pairs' from the scatter between
    configurations, as Student's t with one degree of freedom fewer than there are: resampling three or nine
    of them would give intervals that are too narrow. ``charged`` counts FLOPs.
    """
    cells = int(pairs["cell"].nunique())
    unit = pairs["cell"].to_numpy() if cells >= CELLS else np.arange(len(pairs))
    found, error, freedom = _multiplier(pairs, unit, best, charged)
    low = high = detectable = np.nan
    if freedom:
        centre, spread, _ = _multiplier(pairs, unit, sampled, charged)
        drawn = centre[:, None] + spread[:, None] * rng.standard_t(freedom, (len(centre), PER_LAW))
        low, high = np.exp(
            np.clip(np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]), -FARTHEST, FARTHEST)
        )
        told = student_t.ppf(ENDS[1], freedom) + student_t.ppf(POWER, freedom)
        detectable = float(np.exp(min(told * float(error[0]), FARTHEST)))
    beyond = abs(float(found[0])) > 0.99 * FARTHEST
    return Worth(
        method=method, pairs=len(pairs), cells=cells, seeds=int(pairs["seed"].nunique(dropna=False)),
        same_seed=int(pairs["same_seed"].sum()),
        difference=float((pairs["loss"] - pairs["control_loss"]).mean()),
        multiplier=float(np.exp(found[0])), low=float(low), high=float(high), detectable=detectable,
        note="beyond what the control's law reaches with any number" if beyond else "",
    )  # fmt: skip


def unmatched(method: str, control: str) -> Worth:
    """A method of which no run has a control."""
    return Worth(
        method=method, pairs=0, cells=0, seeds=0, same_seed=0, difference=np.nan, multiplier=np.nan,
        low=np.nan, high=np.nan, detectable=np.nan,
        note=f"no run of {control} has the size, tokens and teacher of one of its runs",
    )  # fmt: skip


def _multiplier(
    pairs: pd.DataFrame, unit: NDArray[np.intp], shared: Shared, charged: bool
) -> tuple[Array, Array, float]:
    """ln of the multiplier and its standard error, (draws,) each by draws of the law, and degrees of freedom.

    A pair's difference of ln loss is what the law makes of the multiplier times the control's input; where
    FLOPs are charged the input is first what the method's FLOPs would have bought the control. By least
    squares; the error is the jackknife's over units (pairs,): each is left out in turn. Units of which some
    weigh more than others leave fewer degrees of freedom than they number (Kish's effective number less one).
    """
    N, D, apart = (pairs[name].to_numpy(np.float64) for name in ("params", "tokens", "apart"))
    group = pairs["group"].to_numpy(np.intp)
    paid = np.log(pairs["dearer"].to_numpy(np.float64)) if charged else np.zeros(len(pairs))
    alone, _ = shared.at(N, D, group, np.zeros((1, 1)))

    def missed(ln_times: Array) -> tuple[Array, Array]:
        ln_loss, slope = shared.at(N, D, group, paid + ln_times[:, None])
        return apart - (ln_loss - alone), slope

    low, high = np.full((2, len(alone)), [[-FARTHEST], [FARTHEST]])
    for _ in range(HALVINGS):
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
