"""Runs as points of the laws: a size, tokens, and a teacher that is measured or yet to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Runs, as arrays of shape (n,); nan where there is no teacher, or its loss is not measured."""

    N: Array
    """Non-embedding parameters."""
    D: Array
    """Training tokens; where text repeats, what they are worth."""
    L_T: Array
    """Measured loss of the teacher, nats/token."""
    N_T: Array
    """Parameters of a teacher whose loss the supervised law predicts."""
    D_T: Array
    """Tokens of that teacher."""

    @classmethod
    def of(
        cls,
        N: ArrayLike,
        D: ArrayLike,
        L_T: ArrayLike = np.nan,
        N_T: ArrayLike = np.nan,
        D_T: ArrayLike = np.nan,
    ) -> Points:
        """Return points of arrays that broadcast against each other.

        >>> Points.of([1e8, 3e8], 1e10).distilled.tolist()
        [False, False]
        """
        arrays = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (N, D, L_T, N_T, D_T)))
        return cls(**dict(zip(("N", "D", "L_T", "N_T", "D_T"), map(np.atleast_1d, arrays), strict=True)))

    @classmethod
    def joined(cls, parts: Sequence[Points]) -> Points:
        """Return the points of several, one after the other."""
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in ("N", "D", "L_T", "N_T", "D_T")
            }
        )

    def __len__(self) -> int:
        return len(self.N)

    @property
    def distilled(self) -> NDArray[np.bool_]:
        """True for distillations."""
        return np.isfinite(self.L_T) | np.isfinite(self.N_T)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """True for distillations from a teacher whose loss is predicted."""
        return self.distilled & ~np.isfinite(self.L_T)

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Points:
        """Return some of the points."""
        return Points(
            N=self.N[chosen],
            D=self.D[chosen],
            L_T=self.L_T[chosen],
            N_T=self.N_T[chosen],
            D_T=self.D_T[chosen],
        )
