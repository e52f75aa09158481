"""IsoFLOP profiles: scaling exponents from the least loss at each compute, without a law of the loss.

At each compute ln L is interpolated over ln N (Akima), and its minimum is N*(C). A line through ln N* over
ln C, weighted by the uncertainty of each minimum, has the exponent as slope (Hoffmann et al. 2022, approach
2; Porian et al. 2024). The noise of a run follows from how far four neighbors of a profile leave a parabola;
every minimum is found anew under simulated noise of that size, which gives the weights and the intervals.

Profiles are biased, even without noise, where the exponents of parameters and tokens differ or a profile is
not centered on its minimum (arXiv 2603.22339). A law of the loss (approach 3) stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator

from fits.checks.exponents import Exponents, Spread
from fits.estimation.levenberg_marquardt import Array
from scaling.errors import InputError
from scaling.laws.allocation import FLOPS_PER_TOKEN
from scaling.units import format_power

SAME_COMPUTE = 1.1
"""Runs whose compute differs by less than this factor from their neighbor's are of one profile."""
MIN_SIZES, MIN_PROFILES = 4, 3
"""Sizes of a profile, and profiles of a table, below which there is no minimum, or no line."""
GRID = 400
"""Sizes at which an interpolated profile is searched for its minimum."""
MIN_ERROR = 0.02
"""Least standard error of a minimum, in ln N: between grid points and sizes nothing finer is known."""
DRAWS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoflopMinimum:
    """The minimum of the loss at one compute."""

    flops: float
    sizes: int
    params: Spread
    loss: float
    """nats/token"""


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoflopProfiles:
    """Scaling exponents by the profiles method."""

    params: Spread
    """a in N* ~ C^a."""
    tokens: Spread
    """1 - a, where C = 6 N D."""
    noise: float
    """Standard deviation of ln L of a run, from the profiles themselves."""
    profiles: tuple[IsoflopMinimum, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Reasons why a compute has no minimum, by compute."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self)

    def lines(self, law: Exponents) -> list[str]:
        """Return the text for a terminal, beside the exponents of the law of the loss."""
        found = [
            f"IsoFLOP profiles ({len(self.profiles)} computes, noise {100 * self.noise:.2f} %; biased where "
            "the exponents of parameters and tokens differ, arXiv 2603.22339)",
            f"  N* ~ C^a, a = {self.params.text()}; the law of the loss gives {law.params.text()}",
        ]
        found += [
            f"  {format_power(each.flops)} FLOPs: N* {each.params.text('count')} of {each.sizes} sizes, "
            f"L* {each.loss:.3f}"
            for each in self.profiles
        ]
        found += [f"  {flops} FLOPs: not used, {reason}" for flops, reason in self.skipped.items()]
        if self.params.low > law.params.high or self.params.high < law.params.low:
            found.append(
                "  the two intervals do not overlap: the table does not follow the law, or the profiles are "
                "biased; plan with neither far beyond the runs"
            )
        return found


def isoflop_profiles(table: pd.DataFrame, seed: int = 0) -> IsoflopProfiles:
    """Find the least loss at each compute of the supervised runs, and the exponent of its size.

    Args:
        table: A validated table; a column ``flops`` gives the compute of a run, else it is 6 N D.
        seed: Seed of the simulated noise.

    Raises:
        InputError: if fewer than ``MIN_PROFILES`` computes have a minimum between their sizes.
    """
    curves, skipped = _curves(table)
    if len(curves) < MIN_PROFILES:
        raise InputError(
            f"IsoFLOP profiles need {MIN_PROFILES} or more computes with {MIN_SIZES} or more sizes each and "
            f"the least loss between them; this table has {len(curves)}"
            + "".join(f"; {flops} FLOPs: {reason}" for flops, reason in list(skipped.items())[:4])
        )
    noise = _noise(curves)
    rng = np.random.default_rng(seed)
    ln_C = np.log([curve.flops for curve in curves])
    minima = [_minimum(curve.ln_N, curve.ln_L[None]) for curve in curves]
    drawn = np.stack(
        [
            _minimum(curve.ln_N, curve.ln_L + noise * rng.standard_normal((DRAWS, len(curve.ln_N))))[0]
            for curve in curves
        ]
    )
    weight = np.maximum(drawn.std(axis=1), MIN_ERROR) ** -2.0
    slope = float(_slopes(ln_C, np.array([[at[0]] for at, _ in minima]), weight)[0])
    params = Spread.of(slope, _slopes(ln_C, drawn, weight))
    return IsoflopProfiles(
        params=params,
        tokens=Spread(1 - params.value, 1 - params.high, 1 - params.low),
        noise=noise,
        profiles=tuple(
            IsoflopMinimum(
                flops=curve.flops,
                sizes=len(curve.ln_N),
                params=Spread.of(float(np.exp(at[0])), np.exp(draws)),
                loss=float(np.exp(least[0])),
            )
            for curve, (at, least), draws in zip(curves, minima, drawn, strict=True)
        ),
        skipped=skipped,
    )


@dataclass(frozen=True, slots=True)
class _Curve:
    flops: float
    ln_N: Array
    ln_L: Array


def _curves(table: pd.DataFrame) -> tuple[list[_Curve], dict[str, str]]:
    """Return ln L over ln N at each compute that has a minimum, and why others have none."""
    used = table[(table["excluded"] == "") & (table["kind"] == "supervised")]
    N, D = used["params"].to_numpy(np.float64), used["tokens"].to_numpy(np.float64)
    flops = FLOPS_PER_TOKEN * N * D
    if "flops" in used:
        given = used["flops"].to_numpy(np.float64)
        flops = np.where(np.isfinite(given), given, flops)
    loss = used["loss"].to_numpy(np.float64)
    curves, skipped = [], {}
    for mine in _groups(flops):
        C = float(np.exp(np.mean(np.log(flops[mine]))))
        mean = pd.Series(np.log(loss[mine])).groupby(np.log(N[mine])).mean()
        least = int(np.argmin(mean.to_numpy()))
        if len(mean) < MIN_SIZES:
            skipped[format_power(C)] = f"{len(mean)} sizes"
        elif least in (0, len(mean) - 1):
            skipped[format_power(C)] = f"the {'largest' if least else 'smallest'} size has the least loss"
        else:
            curves.append(_Curve(C, mean.index.to_numpy(np.float64), mean.to_numpy()))
    return curves, skipped


def _groups(flops: Array) -> list[NDArray[np.intp]]:
    """Return the positions of runs of equal compute, compute by compute."""
    order = np.argsort(flops)
    apart = np.diff(np.log(flops[order])) > np.log(SAME_COMPUTE)
    return np.split(order, np.flatnonzero(apart) + 1)


def _minimum(ln_N: Array, ln_L: Array) -> tuple[Array, Array]:
    """Return where curves (draws, sizes) are least, and their value there, (draws,) each."""
    fine = np.linspace(ln_N[0], ln_N[-1], GRID)
    values = Akima1DInterpolator(ln_N, ln_L, axis=1)(fine)
    return fine[np.argmin(values, axis=1)], np.min(values, axis=1)


def _noise(curves: list[_Curve]) -> float:
    """Return the robust standard deviation of ln L around parabolas through four neighbors."""
    contrasts = []
    for curve in curves:
        for i in range(len(curve.ln_N) - MIN_SIZES + 1):
            near = slice(i, i + MIN_SIZES)
            basis, _ = np.linalg.qr(np.vander(curve.ln_N[near] - curve.ln_N[i], 3), mode="complete")
            contrasts.append(abs(float(basis[:, 3] @ curve.ln_L[near])))
    return float(1.4826 * np.median(contrasts))


def _slopes(x: Array, y: Array, weight: Array) -> Array:
    """Return the slopes (draws,) of weighted lines through y (points, draws) over x (points,)."""
    centered = x - np.average(x, weights=weight)
    return np.asarray((weight * centered) @ y / np.sum(weight * centered**2))
