"""Value of repeated tokens: the data-constrained law of Muennighoff et al. 2023 (arXiv 2305.16264).

``D' = U + U R* (1 - exp(-R/R*))`` with U unique tokens and R = D/U - 1 repetitions; R* = 15.387756 is their
fit on C4 (Eq. 5 and appendix A there). Only their data term is used: the decay of excess parameters is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

REPETITION_CONSTANT = 15.387756
"""R*, the number of repetitions after which more of them stop helping."""
MANY_EPOCHS = 4.0
"""Epochs up to which repeated tokens are worth nearly as much as new ones (Muennighoff et al. 2023)."""
TOO_MANY_EPOCHS = 40.0
"""Epochs beyond which repeated tokens are worth nothing more (Muennighoff et al. 2023)."""


def repeated_tokens_value(tokens: ArrayLike, unique: ArrayLike) -> NDArray[np.float64]:
    """Return the unique tokens worth as much as ``tokens`` drawn from ``unique`` ones, epoch after epoch."""
    tokens, unique = np.asarray(tokens, dtype=np.float64), np.asarray(unique, dtype=np.float64)
    if unique.ndim == 0 and unique == np.inf:
        return tokens
    repeats = np.maximum(tokens / unique - 1, 0.0)
    worth = -REPETITION_CONSTANT * np.expm1(-repeats / REPETITION_CONSTANT)
    return np.where(repeats > 0, unique * (1 + worth), tokens)


def elasticity(tokens: ArrayLike, unique: ArrayLike) -> NDArray[np.float64]:
    """Return d ln(value) / d ln(tokens): 1 in the first epoch, then falling to 0."""
    tokens, unique = np.asarray(tokens, dtype=np.float64), np.asarray(unique, dtype=np.float64)
    repeats = np.maximum(tokens / unique - 1, 0.0)
    return np.asarray(np.exp(-repeats / REPETITION_CONSTANT) * tokens / repeated_tokens_value(tokens, unique))
