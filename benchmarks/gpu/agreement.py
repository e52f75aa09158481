"""One recipe trained on the CPU and on the device: losses step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sizes import Sizes

from sweeps.dag.ladder import shape_for
from sweeps.distill.loss import batch_loss
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.device import device
from sweeps.model.optimizer import Optimizer, learning_rate, parameter_groups
from sweeps.spec.spec import Training


def compare_with_cpu(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield the largest relative differences of training losses between the CPU and the device."""
    cpu = losses(sizes, torch.device("cpu"), "fp32")
    found: dict[str, Any] = {"last_loss_cpu_fp32": float(cpu[-1])}
    for precision in ("fp32", "bf16"):
        there = losses(sizes, device(), precision)
        apart = np.abs(there / cpu - 1)
        found[precision] = {
            "last_loss": float(there[-1]),
            "first_difference": float(apart[0]),
            "largest_difference": float(apart.max()),
        }
        yield found


def losses(sizes: Sizes, place: torch.device, precision: str) -> np.ndarray:
    """Return the losses of the recipe's steps on ``place``."""
    context, blocks = 64, 16
    shape = shape_for(sizes.recipe, vocab=512, context=context, aspect_ratio=32)
    training = Training(batch_tokens=context * blocks, precision=precision)  # type: ignore[arg-type]
    model = Decoder(shape)
    model.initialize(0)
    model.to(place).precision = PRECISIONS[precision]
    optimizer = Optimizer(parameter_groups(model, training))
    generator, found = torch.Generator().manual_seed(0), []
    text = torch.randint(512, (64, context + 1), generator=generator)
    for step in range(sizes.recipe_steps):
        batch = text[torch.randint(len(text), (blocks,), generator=generator)].to(place)
        loss = batch_loss(model, batch, training)
        loss.backward()
        optimizer.clip(training.max_grad_norm)
        optimizer.step(learning_rate(step, sizes.recipe_steps, training))
        found.append(loss.item())
    return np.array(found)
