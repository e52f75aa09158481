"""Kurtosis of every channel, which shows channels of massive activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sweeps.features.positions import counted_positions


@dataclass(frozen=True, slots=True)
class ChannelKurtosis:
    """Central moments of each channel up to the fourth, which can be merged (Pébay 2008, Eqs. 2.1-2.4).

    A channel of kurtosis far above 3, that of a normal distribution, has few positions of very large values;
    they own much of its variance, and with it of the FVU.
    """

    count: float
    mean: Tensor
    """``(C,)``, float64."""
    sums: Tensor
    """Sums of powers 2, 3 and 4 of deviations from the mean, ``(3, C)``, float64."""

    @classmethod
    def of(cls, features: Tensor, mask: Tensor | None = None) -> ChannelKurtosis:
        """Return the moments of ``features`` ``(..., C)``; see :func:`counted_positions`."""
        rows = counted_positions(features, features.shape[-1] if features.ndim else 0, mask)
        mean = rows.mean(0) if len(rows) else rows.new_zeros(rows.shape[1])
        powers = [(rows - mean).pow(power).sum(0) for power in (2, 3, 4)]
        return cls(float(len(rows)), mean, torch.stack(powers))

    def merged(self, other: ChannelKurtosis) -> ChannelKurtosis:
        """Return the moments of both sets of positions together."""
        a, b = self.count, other.count
        n, d = a + b, other.mean - self.mean
        if not n:
            return self
        (a2, a3, a4), (b2, b3, b4) = self.sums, other.sums
        second = a2 + b2 + d**2 * a * b / n
        third = a3 + b3 + d**3 * a * b * (a - b) / n**2 + 3 * d * (a * b2 - b * a2) / n
        fourth = (
            a4
            + b4
            + d**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * d**2 * (a * a * b2 + b * b * a2) / n**2
            + 4 * d * (a * b3 - b * a3) / n
        )
        return ChannelKurtosis(n, self.mean + d * b / n, torch.stack([second, third, fourth]))

    def values(self) -> Tensor:
        """Return n sum d^4 / (sum d^2)^2 of every channel, 3 for a normal one, NaN for a constant one."""
        return self.count * self.sums[2] / self.sums[0] ** 2
