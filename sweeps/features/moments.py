"""Mean and covariance of features, accumulated in float64 over chunks and over processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.features.positions import counted_positions


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """Number of positions, their mean, and their scatter matrix sum (y - mean) (y - mean)^T.

    Moments of chunks are merged as in Chan, Golub & LeVeque 1983, which loses no digits to a large mean.
    Immutable: every method returns new moments.

    >>> chunks = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])
    >>> moments = FeatureMoments.empty(1)
    >>> for chunk in chunks:
    ...     moments = moments.with_features(chunk)
    >>> float(moments.mean), float(moments.covariance())
    (2.0, 1.0)
    """

    count: Tensor
    """Counted positions, a float64 scalar."""
    mean: Tensor
    """``(C,)``, float64."""
    scatter: Tensor
    """``(C, C)``, float64."""

    def __post_init__(self) -> None:
        """Refuse anything but float64 of matching shapes.

        Raises:
            InputError: if a tensor has another type or shape.
        """
        width = self.mean.numel()
        shapes = {"count": (), "mean": (width,), "scatter": (width, width)}
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor.dtype != torch.float64:
                raise InputError(f"{name}: statistics are kept in float64, not {tensor.dtype}")
            if tuple(tensor.shape) != shape:
                raise InputError(f"{name}: shape {tuple(tensor.shape)}, expected {shape}")

    @classmethod
    def empty(cls, width: int, device: torch.device | str = "cpu") -> FeatureMoments:
        """Return the moments of no position of ``width`` channels."""
        sizes: tuple[tuple[int, ...], ...] = ((), (width,), (width, width))
        return cls(*(torch.zeros(size, dtype=torch.float64, device=device) for size in sizes))

    @classmethod
    def of(cls, features: Tensor, mask: Tensor | None = None) -> FeatureMoments:
        """Return the moments of ``features`` ``(..., C)``; see :func:`counted_positions`."""
        rows = counted_positions(features, features.shape[-1] if features.ndim else 0, mask)
        if not len(rows):
            return cls.empty(rows.shape[-1], rows.device)
        mean = rows.mean(0)
        centered = rows - mean
        return cls(torch.tensor(float(len(rows))).to(mean), mean, centered.T @ centered)

    @property
    def width(self) -> int:
        """Channels, C."""
        return len(self.mean)

    def to(self, device: torch.device | str) -> FeatureMoments:
        """Return the moments on another device."""
        return FeatureMoments(*(each.to(device) for each in (self.count, self.mean, self.scatter)))

    def with_features(self, features: Tensor, mask: Tensor | None = None) -> FeatureMoments:
        """Return the moments with those of ``features`` ``(..., C)`` added; see :func:`counted_positions`."""
        return self.merged(FeatureMoments.of(features, mask))

    def merged(self, other: FeatureMoments) -> FeatureMoments:
        """Return the moments of both sets of positions together.

        Raises:
            InputError: if the widths differ.
        """
        if other.width != self.width:
            raise InputError(f"features: {other.width} channels cannot be merged with {self.width}")
        count = self.count + other.count
        shift = other.mean - self.mean
        share = other.count / count.clamp(min=1.0)
        return FeatureMoments(
            count,
            self.mean + share * shift,
            self.scatter + other.scatter + self.count * share * torch.outer(shift, shift),
        )

    def reduced(self, total: Callable[[Tensor], Tensor]) -> FeatureMoments:
        """Return the moments over all processes; each must call it.

        Args:
            total: Sums a tensor over processes, as ``World.total`` does.
        """
        count = total(self.count.clone())
        mean = total(self.count * self.mean) / count.clamp(min=1.0)
        shift = self.mean - mean
        return FeatureMoments(count, mean, total(self.scatter + self.count * torch.outer(shift, shift)))

    def covariance(self) -> Tensor:
        """Return scatter / (count - 1), ``(C, C)``.

        Raises:
            InputError: if fewer than two positions were counted.
        """
        self.require_two()
        return self.scatter / (self.count - 1)

    def require_two(self) -> None:
        """Refuse to speak of variance where there is none.

        Raises:
            InputError: if fewer than two positions were counted.
        """
        if self.count < 2:
            positions = "no position" if self.count == 0 else "one position"
            raise InputError(f"features: {positions} counted; a variance needs two at least, on other tokens")

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> FeatureMoments:
        """Return the moments with this :meth:`state_dict`."""
        return cls(state["count"], state["mean"], state["scatter"])
