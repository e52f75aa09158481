"""How a model is trained: AdamW with mu-P (simple) learning rates, warm-up and cosine decay."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sweeps.spec import Training

BASE_WIDTH = 64
"""Fan-in at which a hidden matrix learns at the peak rate itself."""


def parameter_groups(model: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Parameter groups with their share of the learning rate, ``scale``.

    mu-P (simple), Wortsman et al. 2024 (arXiv 2309.14322): the rate of a hidden matrix falls as 1/fan-in;
    embeddings and gains keep the peak rate at every width. Gains are not decayed.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and "embed" not in name
        scale = BASE_WIDTH / parameter.shape[1] if hidden else 1.0
        decay = training.weight_decay if parameter.ndim == 2 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": members, "scale": scale, "weight_decay": decay}
        for (scale, decay), members in groups.items()
    ]


def optimiser_for(model: nn.Module, training: Training) -> torch.optim.AdamW:
    """AdamW over the model's parameter groups; :func:`set_rate` gives it its rates."""
    return torch.optim.AdamW(
        parameter_groups(model, training), lr=training.peak_rate, betas=(0.9, 0.95), eps=1e-8, fused=True
    )


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of ``rate``."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def learning_rate(step: int, steps: int, training: Training) -> float:
    """The rate of ``step`` in a run of ``steps``: linear warm-up over a fixed number of tokens, then a decay.

    ``cosine`` decays all the way; ``wsd`` stays at the peak and decays linearly over the last part. Both end
    at ``final_rate`` of the peak.
    """
    warmup = training.warmup_steps
    if step < warmup:
        return training.peak_rate * (step + 1) / warmup
    if training.schedule == "wsd":
        begin = training.trunk_steps(steps)
        left = min(1.0, (steps - step) / (steps - begin))
    else:
        left = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return training.peak_rate * (training.final_rate + (1 - training.final_rate) * left)
