"""Rotations that give every channel the same variance: Hadamard matrices, and Givens rotations elsewhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sweeps.features.hadamard import hadamard, has_hadamard


def balancing_rotation(eigenvalues: Tensor) -> Tensor:
    """Return an orthogonal R such that R diag(eigenvalues) R^T has equal diagonal entries, ``(C, C)``.

    R is a Hadamard matrix over sqrt(C), whatever the eigenvalues, where a construction gives one
    (Ranzinger et al. 2024, section 3.3), and :func:`schur_horn_rotation` of them at any other width.

    Args:
        eigenvalues: ``(C,)``, float64.
    """
    width = len(eigenvalues)
    if not has_hadamard(width):
        return schur_horn_rotation(eigenvalues)
    return torch.from_numpy(hadamard(width)).to(eigenvalues) / math.sqrt(width)


def schur_horn_rotation(eigenvalues: Tensor) -> Tensor:
    """Return an orthogonal R such that R diag(eigenvalues) R^T has equal diagonal entries, for any width.

    By the theorem of Schur and Horn there is one. At most C - 1 Givens rotations make it: each turns the
    coordinates of the largest and the smallest diagonal entry until one of the two is the mean.

    Args:
        eigenvalues: ``(C,)``.

    Returns:
        ``(C, C)`` in float64.
    """
    values = eigenvalues.detach().to("cpu", torch.float64)
    matrix, rotation = torch.diag(values), torch.eye(len(values), dtype=torch.float64)
    mean, left = values.mean(), torch.ones(len(values), dtype=torch.bool)
    while left.sum() > 1:
        diagonal = matrix.diagonal()
        high = int(torch.where(left, diagonal, -torch.inf).argmax())
        low = int(torch.where(left, diagonal, torch.inf).argmin())
        if high == low or diagonal[high] == diagonal[low]:
            break
        turn = _givens(diagonal[high], diagonal[low], matrix[high, low], mean)
        pair = [high, low]
        matrix[pair] = turn @ matrix[pair]
        matrix[:, pair] = matrix[:, pair] @ turn.T
        rotation[pair] = turn @ rotation[pair]
        left[high] = False
    return rotation.to(eigenvalues.device)


def _givens(high: Tensor, low: Tensor, between: Tensor, mean: Tensor) -> Tensor:
    """Return the rotation of two coordinates whose first diagonal entry becomes ``mean``, ``(2, 2)``.

    With t = tan of the angle: (high - mean) + 2 t between + t^2 (low - mean) = 0, which has real roots as
    the mean lies between the two entries; the smaller is taken.
    """
    above, below = high - mean, mean - low
    root = (between**2 + above * below).clamp(min=0).sqrt()
    denominator = -between - torch.where(between >= 0, root, -root)
    t = above / denominator if denominator else torch.zeros_like(mean)
    cosine = (1 + t**2).rsqrt()
    return torch.stack([torch.stack([cosine, t * cosine]), torch.stack([-t * cosine, cosine])])
