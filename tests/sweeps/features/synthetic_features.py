"""Features of synthetic teachers with a known spectrum."""

from __future__ import annotations

import torch
from torch import Tensor


def synthetic(width: int, positions: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Correlated features with a power-law spectrum and a mean far from zero, ``(positions, width)``."""
    draw = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64)).Q
    sizes = torch.arange(1, width + 1, dtype=torch.float64) ** -1.0
    normal = torch.randn(positions, width, generator=draw, dtype=torch.float64)
    return scale * ((normal * sizes) @ basis.T + 3 * torch.randn(width, generator=draw, dtype=torch.float64))
