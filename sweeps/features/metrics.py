"""Fraction of variance unexplained, which compares teachers of any scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.features.positions import counted_positions


@dataclass(frozen=True, slots=True)
class UnexplainedVariance:
    """Sums that FVU = sum |prediction - y|^2 / sum |y - mean|^2 is made of, over positions that count.

    Predictions and features are the teacher's own, not normalized ones. FVU is 1 - R^2 over all channels: 1
    for the mean, 0 for the features themselves. It does not depend on the features' scale, and with phi-s and
    scalar it is the squared error of normalized features, up to the (count - 1) / count of a sample.
    """

    count: float
    mean: Tensor
    """Mean of the features, ``(C,)``, float64."""
    deviation: float
    """Sum of squared distances of features from their mean."""
    error: float
    """Sum of squared errors."""

    @classmethod
    def of(cls, predicted: Tensor, features: Tensor, mask: Tensor | None = None) -> UnexplainedVariance:
        """Return the sums over ``predicted`` and ``features``, ``(..., C)`` both.

        Raises:
            InputError: if shapes differ, or a counted number is not finite.
        """
        if predicted.shape != features.shape:
            raise InputError(
                f"features: predicted shape {tuple(predicted.shape)}, the teacher's {tuple(features.shape)}"
            )
        width = features.shape[-1] if features.ndim else 0
        y = counted_positions(features, width, mask)
        error = counted_positions(predicted, width, mask) - y
        mean = y.mean(0) if len(y) else y.new_zeros(width)
        return cls(len(y), mean, float((y - mean).square().sum()), float(error.square().sum()))

    def merged(self, other: UnexplainedVariance) -> UnexplainedVariance:
        """Return the sums over both sets of positions together."""
        count, shift = self.count + other.count, other.mean - self.mean
        share = other.count / count if count else 0.0
        between = self.count * share * float(shift.square().sum())
        deviation = self.deviation + other.deviation + between
        return UnexplainedVariance(count, self.mean + share * shift, deviation, self.error + other.error)

    def scale(self) -> float:
        """Return the root of the mean variance of a channel of the features; NaN of one position."""
        return float(self.deviation / (self.count - 1) / len(self.mean)) ** 0.5 if self.count > 1 else nan

    def fvu(self) -> float:
        """Return the fraction of variance unexplained.

        Raises:
            InputError: if the features have no variance.
        """
        if self.count < 2 or not self.deviation > 0:
            raise InputError(
                f"fvu: the features of {self.count:g} counted positions do not vary; count two or more, on "
                "different tokens"
            )
        return self.error / self.deviation


def fvu_summary(fvu: Mapping[str, float]) -> dict[str, float]:
    """Return mean, worst (largest) and balance (largest over smallest, at least 1) of teachers' FVU.

    Raises:
        InputError: if there is no teacher.

    >>> fvu_summary({"small": 0.25, "large": 0.5})
    {'mean': 0.375, 'worst': 0.5, 'balance': 2.0}
    """
    if not fvu:
        raise InputError("fvu: no teacher was measured")
    values = torch.tensor(list(fvu.values()), dtype=torch.float64)
    worst, best = float(values.max()), float(values.min())
    return {"mean": float(values.mean()), "worst": worst, "balance": _ratio(worst, best)}


def _ratio(worst: float, best: float) -> float:
    if worst == best:
        return 1.0
    return worst / best if best else float("inf")
