"""Train a student on features of two teachers of very different scale, with and without balancing them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sweeps.features import (
    FeatureHead,
    FeatureLoss,
    FeatureMoments,
    UnexplainedVariance,
    combined_loss,
    fit_normalization,
    fvu_summary,
)
from sweeps.features.normalization import Mode


def fvu_after_training(inputs: Tensor, teachers: dict[str, Tensor], mode: Mode) -> dict[str, float]:
    """Return each teacher's fraction of variance unexplained after 300 steps, and their summary."""
    torch.manual_seed(0)
    maps = {}
    for name, features in teachers.items():
        moments = FeatureMoments.empty(features.shape[-1])
        for chunk in features.split(128):  # of any size, from any process
            moments = moments.with_features(chunk)
        maps[name] = fit_normalization(moments, mode)
    body = nn.Sequential(nn.Linear(inputs.shape[-1], 8), nn.GELU())
    heads = nn.ModuleDict({name: FeatureHead(8, each.shape[-1]) for name, each in teachers.items()})
    optimizer = torch.optim.AdamW([*body.parameters(), *heads.parameters()], lr=3e-3)
    loss = FeatureLoss("mse")
    for _ in range(300):
        hidden = body(inputs)
        losses = [loss(heads[name](hidden), maps[name].normalize(each)) for name, each in teachers.items()]
        optimizer.zero_grad()
        combined_loss(losses).backward()
        optimizer.step()
    fvu = {}
    for name, features in teachers.items():
        head = heads[name].folded(maps[name])  # predicts the teacher's own features, at no cost
        fvu[name] = UnexplainedVariance.of(head(body(inputs)), features).fvu()
    return fvu | fvu_summary(fvu)


def example() -> dict[Mode, dict[str, float]]:
    """Return results on 512 positions of two random networks, the second 100 times the first."""
    draw = torch.Generator().manual_seed(1)
    inputs, first, second = (torch.randn(size, generator=draw) for size in ((512, 16), (16, 48), (16, 60)))
    teachers = {"small": 0.05 * torch.tanh(inputs @ first / 2), "large": 5 * torch.tanh(inputs @ second / 2)}
    modes: tuple[Mode, ...] = ("none", "phi-s")
    return {mode: fvu_after_training(inputs, teachers, mode) for mode in modes}


if __name__ == "__main__":
    for mode, numbers in example().items():
        print(f"{mode:6}", "  ".join(f"{name} {value:.3f}" for name, value in numbers.items()))  # noqa: T201
