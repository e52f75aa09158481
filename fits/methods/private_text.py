"""Laws of private text, fitted to the runs of a sweep: released tokens of a budget, and what they teach.

The model is :class:`scaling.private.law.PrivateTextLaw`. Releases are fitted in logarithms by least squares,
with draws of normal coefficients and of their variance. Losses are fitted by least squares: given both
exponents the law is linear, with coefficients that are not negative. Runs of one release share its text, so
that in the draws residuals change their sign together (wild bootstrap by release, Cameron et al. 2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from scaling.calibration.provenance import Provenance
from scaling.errors import InputError
from scaling.private.law import LOSS, SHARED, PrivateTextLaw

Array = NDArray[np.float64]
NEEDED = ("method", "params", "tokens", "loss", "released_tokens", "rho", "delta", "private_teachers")
FOUND = ("teachers", "epsilon", "delta", "queries", "threshold", "sigma", "test_sigma")
"""Options of a release that are no part of its way."""
PUBLIC = "public=True"
"""Word in the method of text that the public model alone wrote."""
EXPONENTS = (0.05, 2.0)
"""Range of both exponents of the loss."""
STARTS = np.array([(0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8)])
LEAST = 1e-9
"""Smallest coefficient; the law takes its logarithm."""
MIN_RELEASES = 4
"""Least number of releases of a way, for three coefficients and their scatter."""


@dataclass(frozen=True)
class _Losses:
    """Runs as the law of losses sees them; ``way`` is -1 on public text."""

    params: Array
    released: Array
    way: NDArray[np.intp]
    release: NDArray[np.intp]
    loss: Array
    ways: int

    def design(self, alpha: float, beta: float) -> Array:
        """Return the columns of A, E_public, and of E and B of each way."""
        own = self.way[:, None] == np.arange(self.ways)
        size = self.params[:, None] ** -alpha
        return np.hstack([size, self.way[:, None] < 0, own, own * self.released[:, None] ** -beta])

    def linear(self, exponents: Array, loss: Array) -> tuple[Array, Array]:
        """Return the best coefficients given the exponents, and the residuals."""
        design = self.design(*exponents)
        scale = np.linalg.norm(design, axis=0)
        found, _ = nnls(design / scale, loss)
        return found / scale, design @ (found / scale) - loss

    def fit(self, loss: Array, starts: Array) -> tuple[Array, Array]:
        """Return the exponents and the coefficients of the best fit to ``loss``, from ``(starts, 2)``."""

        def residual(exponents: Array) -> Array:
            return self.linear(exponents, loss)[1]

        steps = np.full(2, 1e-4)
        fits = [least_squares(residual, start, bounds=EXPONENTS, diff_step=steps) for start in starts]
        best = min(fits, key=lambda each: each.cost)
        return best.x, np.maximum(self.linear(best.x, loss)[0], LEAST)


def private_text_law(
    runs: pd.DataFrame,
    *,
    name: str = "private",
    private_tokens: float,
    mechanism: str = "confident-gnmax, noise and threshold chosen on public text",
    provenance: Provenance | None = None,
    draws: int = 400,
    seed: int = 0,
) -> PrivateTextLaw:
    """Fit the law of private text to the runs of a sweep such as the preset ``private``.

    Args:
        runs: One row a run with the ledger's columns, as ``sweeps.results(store, metrics=True)`` returns it:
            runs of released text under a budget, and controls whose method says ``public=True``. Others are
            left out, and so are ways of fewer than :data:`MIN_RELEASES` releases.
        name: Name of the law.
        private_tokens: Tokens of the private text.
        mechanism: Mechanism of release, in words.
        provenance: Source of the runs.
        draws: Draws of the coefficients.
        seed: Seed of the draws.

    Returns:
        The law, with draws; :func:`scaling.plan_private` plans with it.

    Raises:
        InputError: If a column is missing, there is no control, or every way has too few releases.

    >>> import fits
    >>> import sweeps
    >>> law = fits.private_text_law(sweeps.shipped("private"), private_tokens=753750, draws=20)
    >>> law.ways[:2]
    ('hot', 'cold')
    """
    private, public = _parts(runs)
    ways = list(dict.fromkeys(private.sort_values("way", key=_hot_first)["way"]))
    rng = np.random.default_rng(seed)
    n_0, rho_0 = (float(np.exp(np.log(private[c]).mean())) for c in ("private_teachers", "rho"))
    releases = private.drop_duplicates("release")
    fitted = {
        way: _release_law(way, releases[releases["way"] == way], n_0, rho_0, draws, rng) for way in ways
    }
    losses = _losses(private, public, ways)
    exponents, linear = losses.fit(losses.loss, STARTS)
    residual = -losses.linear(exponents, losses.loss)[1]
    drawn = _drawn(losses, exponents, residual, draws, rng)
    best, sampled = _named(exponents[None], linear[None], ways), _named(*drawn, ways)
    dof = len(residual) - 2 - len(linear)
    return PrivateTextLaw(
        name=name,
        coefficients={
            way: {key: float(values[0]) for key, values in found.items()}
            | ({} if way == "shared" else fitted[way][0])
            for way, found in best.items()
        },
        draws={way: found | ({} if way == "shared" else fitted[way][1]) for way, found in sampled.items()},
        released_sd={way: fitted[way][2] for way in ways},
        loss_sd=float(np.sqrt((residual**2).sum() / max(1, dof))),
        region={
            "teachers": _range(private["private_teachers"]),
            "rho": _range(private["rho"]),
            "released_tokens": _range(private["released_tokens"]),
            "student_params": _range(private["params"]),
        },
        teachers_0=n_0,
        rho_0=rho_0,
        private_tokens=private_tokens,
        student_tokens=float(private["tokens"].median()),
        delta=float(private["delta"].iloc[0]),
        mechanism=mechanism,
        provenance=provenance or Provenance(source="runs of a sweep", date=""),
    )


def ways_of(methods: Sequence[str]) -> list[str]:
    """Return the way of each method: its votes, and what else tells ways apart.

    >>> ways_of(["ce=1 PrivateText epsilon=2.0", "ce=1 PrivateText temperature=0.5 votes=cold epsilon=8.0"])
    ['hot', 'cold, temperature=0.5']
    """
    words = [dict(_options(method)) for method in methods]
    votes = [found.pop("votes", "hot") for found in words]
    differ = {key for found in words for key in found if any(found.get(key) != e.get(key) for e in words)}
    return [
        ", ".join([vote, *(f"{key}={value}" for key, value in found.items() if key in differ)])
        for vote, found in zip(votes, words, strict=True)
    ]


def _options(method: str) -> list[tuple[str, str]]:
    pairs = [word.partition("=") for word in method.split() if "=" in word]
    return [(key, value) for key, _, value in pairs if key not in FOUND]


def _hot_first(ways: pd.Series) -> pd.Series:
    return ways.map(lambda way: (", " in way, not way.startswith("hot"), way))


def _parts(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs of released text under a budget, with their way and release, and those of public text."""
    for column in NEEDED:
        if column not in runs:
            raise InputError(f"no column {column!r}; a law of private text needs {', '.join(NEEDED)}")
    private = runs[runs["rho"].notna() & (runs["released_tokens"] > 0)].copy()
    public = runs[runs["method"].fillna("").str.contains(PUBLIC, regex=False)]
    if private.empty or public.empty:
        raise InputError(
            "a law of private text needs runs with released_tokens and rho, and controls whose method says "
            f"{PUBLIC}; found {len(private)} and {len(public)}"
        )
    private["way"] = ways_of(list(private["method"]))
    seeds = "data_seed" if "data_seed" in private else "seed"
    private["release"] = private.groupby(["method", seeds], sort=False).ngroup()
    counts = private.groupby("way")["release"].transform("nunique")
    if not (counts >= MIN_RELEASES).any():
        raise InputError(
            f"{private['way'].iloc[0]}: {counts.iloc[0]} releases are too few for a law, which needs "
            f"{MIN_RELEASES} of one way"
        )
    return private[counts >= MIN_RELEASES].copy(), public


def _release_law(
    way: str, releases: pd.DataFrame, n_0: float, rho_0: float, draws: int, rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, Array], float]:
    """Return coefficients of D_rel = c (n / n_0)^u (rho / rho_0)^w, draws, and the scatter of ln D_rel.

    With one number of teachers u is 2, as noise in proportion to n has it.
    """
    n, rho = np.log(releases["private_teachers"] / n_0), np.log(releases["rho"] / rho_0)
    y, several = np.log(releases["released_tokens"].to_numpy(np.float64)), n.nunique() > 1
    columns = [np.ones(len(y)), rho.to_numpy(), *([n.to_numpy()] if several else [])]
    design = np.stack(columns, 1)
    y = y if several else y - 2 * n.to_numpy()
    found, *_ = np.linalg.lstsq(design, y, rcond=None)
    dof = len(y) - design.shape[1]
    if dof < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        raise InputError(f"{way}: too few releases, or of one budget only, for a law of released tokens")
    squares = float(((y - design @ found) ** 2).sum())
    sd = np.sqrt(squares / rng.chisquare(dof, draws))
    root = np.linalg.cholesky(np.linalg.inv(design.T @ design))
    drawn = found + sd[:, None] * (rng.standard_normal((draws, len(found))) @ root.T)
    u = drawn[:, 2] if several else np.full(draws, 2.0)
    best = {"c": float(np.exp(found[0])), "u": float(found[2]) if several else 2.0, "w": float(found[1])}
    return best, {"c": np.exp(drawn[:, 0]), "u": u, "w": drawn[:, 1]}, float(np.sqrt(squares / dof))


def _losses(private: pd.DataFrame, public: pd.DataFrame, ways: list[str]) -> _Losses:
    table = pd.concat([private, public.assign(way="", release=np.nan, released_tokens=1.0)])
    seeds = table.get("data_seed", table.get("seed", pd.Series(0, index=table.index)))
    release = table["release"].astype(object).where(table["release"].notna(), "public " + seeds.astype(str))
    return _Losses(
        params=table["params"].to_numpy(np.float64),
        released=table["released_tokens"].to_numpy(np.float64),
        way=np.array([ways.index(way) if way else -1 for way in table["way"]], np.intp),
        release=release.astype(str).factorize()[0].astype(np.intp),
        loss=table["loss"].to_numpy(np.float64),
        ways=len(ways),
    )


def _drawn(
    losses: _Losses, exponents: Array, residual: Array, draws: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return exponents and coefficients of fits to data whose residuals change sign by release."""
    fitted, releases = losses.loss - residual, losses.release.max() + 1
    found = []
    for _ in range(draws):
        signs = rng.choice([-1.0, 1.0], releases)[losses.release]
        found.append(losses.fit(fitted + signs * residual, exponents[None]))
    return np.array([x for x, _ in found]), np.array([linear for _, linear in found])


def _named(exponents: Array, linear: Array, ways: list[str]) -> Mapping[str, dict[str, Array]]:
    """Return coefficients of the loss by way and name, ``(draws,)`` each."""
    count = len(ways)
    own = {
        way: dict(zip(LOSS, (linear[:, 2 + at], linear[:, 2 + count + at]), strict=True))
        for at, way in enumerate(ways)
    }
    shared = (linear[:, 0], exponents[:, 0], exponents[:, 1], linear[:, 1])
    return {**own, "shared": dict(zip(SHARED, shared, strict=True))}


def _range(values: pd.Series) -> tuple[float, float]:
    return float(values.min()), float(values.max())
