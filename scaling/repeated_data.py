"""Value of repeated data: the data-constrained law of Muennighoff et al. 2023 (arXiv 2305.16264).

With U unique tokens, R = D/U - 1 repetitions, and U_N the parameters for which U tokens are compute-optimal::

    D' = U   + U   R_D* (1 - exp(-R / R_D*))                              (Eq. 5)
    N' = U_N + U_N R_N* (1 - exp(-(N/U_N - 1) / R_N*))   for N > U_N      (Eq. 6)

The supervised law at N' and D' predicts a run that repeats its data. Their fit on C4 gave R_D* = 15.387756
and R_N* = 5.309743; :func:`fits.fit` fits both where a table has ``unique_tokens``. Here N' is N for runs
that repeat nothing. The planner uses the data term alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.laws import AnySupervisedLaw, optimal_params

REPETITION_CONSTANT = 15.387756
"""R_D*, the number of repetitions after which more of them stop helping."""
EXCESS_CONSTANT = 5.309743
"""R_N*, the same for parameters beyond those that the unique tokens call for."""
MANY_EPOCHS = 4.0
"""Epochs up to which repeated tokens are worth nearly as much as new ones (Muennighoff et al. 2023)."""
TOO_MANY_EPOCHS = 40.0
"""Epochs beyond which repeated tokens are worth nothing more (Muennighoff et al. 2023)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """Constants of repeated data that were fitted to runs, each with its 90 % interval."""

    tokens: float
    """R_D*."""
    tokens_interval: tuple[float, float]
    params: float
    """R_N*."""
    params_interval: tuple[float, float]
    runs: int
    """Runs that repeat their data."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        (a, b), (c, d) = self.tokens_interval, self.params_interval
        return (
            f"repeated data ({self.runs} runs): R_D* {self.tokens:.3g} [{a:.3g}, {b:.3g}], "
            f"R_N* {self.params:.3g} [{c:.3g}, {d:.3g}]"
        )


def repeated_tokens_value(
    tokens: ArrayLike, unique: ArrayLike, constant: float = REPETITION_CONSTANT
) -> NDArray[np.float64]:
    """Return the unique tokens worth as much as ``tokens`` drawn from ``unique`` ones, epoch after epoch."""
    tokens, unique = np.asarray(tokens, dtype=np.float64), np.asarray(unique, dtype=np.float64)
    if unique.ndim == 0 and unique == np.inf:
        return tokens
    repeats = np.maximum(tokens / unique - 1, 0.0)
    worth = -constant * np.expm1(-repeats / constant)
    return np.where(repeats > 0, unique * (1 + worth), tokens)


def elasticity(
    tokens: ArrayLike, unique: ArrayLike, constant: float = REPETITION_CONSTANT
) -> NDArray[np.float64]:
    """Return d ln(value) / d ln(tokens): 1 in the first epoch, then falling to 0."""
    tokens, unique = np.asarray(tokens, dtype=np.float64), np.asarray(unique, dtype=np.float64)
    repeats = np.maximum(tokens / unique - 1, 0.0)
    return np.asarray(np.exp(-repeats / constant) * tokens / repeated_tokens_value(tokens, unique, constant))


def excess_params_value(
    params: ArrayLike,
    tokens: ArrayLike,
    unique: ArrayLike,
    law: AnySupervisedLaw,
    constant: float = EXCESS_CONSTANT,
) -> NDArray[np.float64]:
    """Return the parameters worth as much as ``params`` where the ``tokens`` repeat ``unique`` ones.

    Args:
        params: Parameters N.
        tokens: Tokens D trained on.
        unique: Unique tokens U among them; infinite where unknown.
        law: The supervised law, which says how many parameters U tokens call for.
        constant: R_N*.
    """
    params, tokens, unique = (np.asarray(each, dtype=np.float64) for each in (params, tokens, unique))
    called_for = optimal_params(law, np.where(np.isfinite(unique), unique, tokens))
    excess = np.maximum(params / called_for - 1, 0.0)
    worth = called_for * (1 - constant * np.expm1(-excess / constant))
    return np.where((tokens > unique) & (excess > 0), worth, params)
