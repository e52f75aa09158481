"""The coordinate check of mu-P: a few steps change what a layer computes equally at every width."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scaling.costs.flops import ModelShape
from sweeps.distill.loss import batch_loss
from sweeps.model.decoder import Decoder
from sweeps.model.optimizer import Optimizer, parameter_groups
from sweeps.spec.spec import Training

STEPS = 8


def changes(width: int, *, by_fan_in: bool) -> dict[str, float]:
    """Root mean square change of the last layer's outputs over ``STEPS`` steps, averaged over three seeds."""
    shape = ModelShape(
        layers=2, width=width, ffn=8 * (width // 3), heads=width // 32, head_dim=32, kv_heads=width // 32,
        vocab=300, context=32,
    )  # fmt: skip
    rules = Training(batch_tokens=256)
    total = {"attention": 0.0, "mlp": 0.0}
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        blocks = torch.randint(300, (8, 33), generator=draw)
        blocks[:, 1::2] = (blocks[:, 0:-1:2] * 7 + 3) % 300  # half of the tokens follow from the last one
        probe = torch.randint(300, (8, 32), generator=draw)
        model = Decoder(shape)
        model.initialize(seed)
        groups = parameter_groups(model, rules)
        optimizer = Optimizer(groups if by_fan_in else tuple(replace(group, scale=1.0) for group in groups))
        before = outputs(model, probe)
        for _ in range(STEPS):
            batch_loss(model, blocks, rules).backward()
            optimizer.step(0.01)
        for name, after in outputs(model, probe).items():
            total[name] += (after - before[name]).square().mean().sqrt().item() / 3
    return total


def outputs(model: Decoder, tokens: Tensor) -> dict[str, Tensor]:
    """Update of the residual stream by attention and MLP of the last layer."""
    found: dict[str, Tensor] = {}
    last = model.model.layers[-1]
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: found.update({name: output}))
        for name, module in (("attention", last.self_attn), ("mlp", last.mlp))
    ]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return found


def test_a_step_changes_wide_and_narrow_models_alike() -> None:
    narrow, wide = changes(32, by_fan_in=True), changes(256, by_fan_in=True)
    for name in narrow:
        assert 0.5 < wide[name] / narrow[name] < 1.2


def test_without_mu_p_it_does_not() -> None:
    narrow, wide = changes(32, by_fan_in=False), changes(256, by_fan_in=False)
    for name in narrow:
        assert wide[name] / narrow[name] == pytest.approx(2.6, abs=0.8)
