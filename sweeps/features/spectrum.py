"""Eigenvalues and eigenvectors of a covariance, and variances too small to divide by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.features.moments import FeatureMoments

EPS = torch.finfo(torch.float64).eps
LARGEST = 1 - 1e-6
"""Share of the largest component's size from which a component may fix the sign of an eigenvector."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Principal components: eigenvectors in columns, by decreasing eigenvalue."""

    values: Tensor
    """``(C,)``, none below zero."""
    basis: Tensor
    """U, ``(C, C)``."""

    @classmethod
    def of(cls, covariance: Tensor) -> Spectrum:
        """Return the eigendecomposition of ``covariance`` ``(C, C)``, float64.

        Eigenvectors are determined up to a sign. Here the first of their largest components is positive, so
        that scaled or shifted features have the same ones.
        """
        unit = covariance.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
        values, basis = torch.linalg.eigh((covariance + covariance.T) / (2 * unit))
        values, basis = values.flip(0).clamp(min=0) * unit, basis.flip(1)
        sizes = basis.abs()
        first = (sizes >= LARGEST * sizes.amax(0)).to(torch.uint8).argmax(0)
        signs = basis.gather(0, first[None]).sign()
        return cls(values, basis * signs)


def constant_variance(moments: FeatureMoments) -> Tensor:
    """Return the variance at or below which rounding alone may have made it, a scalar."""
    return (16 * EPS * moments.mean.abs().max()) ** 2


def floored(
    moments: FeatureMoments, variances: Tensor, mode: str, floor: float | None
) -> tuple[Tensor, Tensor]:
    """Return ``variances``, raised to ``floor`` times the largest, and how many were raised.

    Raises:
        InputError: if one is zero up to rounding and there is no floor.
    """
    largest = variances.max()
    if floor is not None:
        return variances.clamp(min=floor * largest), (variances < floor * largest).sum()
    zero = variances <= torch.maximum(len(variances) * EPS * largest, constant_variance(moments))
    if count := int(zero.sum()):
        raise InputError(_refusal(mode, zero, count, len(variances)))
    return variances, zero.sum()


def _refusal(mode: str, zero: Tensor, count: int, width: int) -> str:
    remedy = "use phi-s, which needs no full rank, or set a floor such as 1e-6"
    if mode != "standardize":
        return (
            f"{mode}: the covariance has rank {width - count} of {width} channels, and whitening divides by "
            f"all its eigenvalues; count more positions, {remedy}"
        )
    shown = ", ".join(str(each) for each in zero.nonzero().flatten().tolist()[:5])
    more = f" and {count - 5} more" if count > 5 else ""
    kind = "channel" if count == 1 else "channels"
    return f"standardize: {kind} {shown}{more} of {width} never changed; {remedy}"
