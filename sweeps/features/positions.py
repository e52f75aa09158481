"""Checked features at the positions that count."""

from __future__ import annotations

import torch
from torch import Tensor

from scaling.errors import InputError


def counted_positions(features: Tensor, width: int, mask: Tensor | None = None) -> Tensor:
    """Return the features of the positions that count, in float64, ``(positions, width)``.

    Features of 16 or 32 bits are converted before anything is added up.

    Args:
        features: ``(..., width)``, floating point.
        width: Channels.
        mask: True where a position counts, the shape of ``features`` without its last dimension; None for
            all of them. Padding and the first token, whose features are often far from all others, should
            not count.

    Raises:
        InputError: if shapes do not match, or a counted number is not finite.
    """
    if not features.is_floating_point():
        raise InputError(f"features: expected floating-point numbers, not {features.dtype}")
    if features.ndim < 1 or features.shape[-1] != width:
        raise InputError(f"features: shape {tuple(features.shape)}; the last dimension must be {width}")
    rows = features.detach().flatten(0, -2) if features.ndim > 1 else features.detach()[None]
    if mask is not None:
        rows = rows[_checked_mask(mask, features)]
    rows = rows.to(torch.float64)
    if not bool((finite := rows.isfinite().all(-1)).all()):
        raise InputError(
            f"features: {int((~finite).sum())} of {len(rows)} counted positions hold a number that is not "
            "finite; mask them or mend the teacher"
        )
    return rows


def _checked_mask(mask: Tensor, features: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise InputError(f"mask: expected booleans, not {mask.dtype}")
    if mask.shape != features.shape[:-1]:
        raise InputError(f"mask: shape {tuple(mask.shape)}; features need {tuple(features.shape[:-1])}")
    return mask.flatten()
