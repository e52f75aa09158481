"""Training on a GPU; each test is skipped without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from sweeps.dag.ladder import shape_for
from sweeps.distill.loss import batch_loss
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.device import device
from sweeps.model.distributed import World
from sweeps.model.optimizer import Optimizer, parameter_groups
from sweeps.model.sharded_optimizer import ShardedOptimizer
from sweeps.model.sharding import fill, sharded_model
from sweeps.spec.spec import Training
from sweeps.store.checkpoints.checkpoints import SMALL_BYTES, Checkpoints
from sweeps.store.store import Store
from sweeps.train.loop import train, train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
BACKEND = "cpu:gloo,cuda:nccl"
SHAPE = shape_for(107e3, vocab=300, context=32, aspect_ratio=32)
TOKENS = (np.arange(20_000) ** 2 % 299).astype(np.uint16)
RULES = Training(batch_tokens=128, warmup_tokens=640)


def weights(model: Decoder) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().cpu() for parameter in model.parameters()])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_of_the_cpu(precision: torch.dtype) -> None:
    """Other kernels: fused attention, and no TF32 in float32."""
    blocks = torch.randint(300, (8, 33), generator=torch.Generator().manual_seed(0))
    found = []
    for place in ("cpu", "cuda"):
        model = Decoder(SHAPE)
        model.initialize(0)
        model.to(place).precision = precision
        loss = batch_loss(model, blocks.to(place), RULES)
        loss.backward()
        gradients = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
        found.append((loss.item(), gradients))
    (cpu, on_cpu), (gpu, on_gpu) = found
    error = 1e-5 if precision == torch.float32 else 2e-2
    assert gpu == pytest.approx(cpu, rel=error)
    assert (on_gpu - on_cpu).norm() < 2 * error * on_cpu.norm()


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of groups of one process
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_sharded_over_one_process_trains_as_a_whole_one(precision: str) -> None:
    """FSDP2 over NCCL, and AdamW of torch.optim: first contact, as several GPUs are rarely at hand."""
    distributed.init_process_group(BACKEND, store=distributed.HashStore(), rank=0, world_size=1)
    try:
        whole, sharded = (losses(precision, sharded=each) for each in (False, True))
    finally:
        distributed.destroy_process_group()
    assert sharded == pytest.approx(whole, rel=1e-4 if precision == "fp32" else 1e-2)


def losses(precision: str, *, sharded: bool) -> list[float]:
    """Training losses of a few steps."""
    blocks = torch.randint(300, (8, 33), generator=torch.Generator().manual_seed(0)).to(device())
    whole = Decoder(SHAPE)
    whole.initialize(0)
    whole.precision = PRECISIONS[precision]
    model = sharded_model(SHAPE, whole.precision, World()) if sharded else whole
    if sharded:
        fill(model, whole.named_parameters())
    model.to(device())
    groups = parameter_groups(model, RULES)
    optimizer = ShardedOptimizer(groups, World()) if sharded else Optimizer(groups)
    found = []
    for _ in range(4):
        loss = batch_loss(model, blocks, RULES)
        loss.backward()
        optimizer.reduce()
        optimizer.clip(RULES.max_grad_norm)
        optimizer.step(0.01)
        found.append(loss.item())
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch
@pytest.mark.parametrize("rules", [{}, {"precision": "bf16"}, {"precision": "bf16", "compile": True}])
@pytest.mark.parametrize("small_bytes", [SMALL_BYTES, 0], ids=["at once", "beside training"])
def test_a_deterministic_run_goes_on_in_the_same_bits(
    rules: dict[str, object], small_bytes: int, tmp_path: Path, own_cache: Path
) -> None:
    training = RULES.model_copy(update=rules | {"deterministic": True})
    whole = RunRecipe(shape=SHAPE, steps=60, training=training, seed=0)
    checkpoints = Checkpoints(Store(str(tmp_path)), "run", small_bytes=small_bytes)
    first = Run(recipe=replace(whole, stop=23), checkpoints=checkpoints)
    assert [error for _, error in train_together([first], TOKENS, data_seed=0)] == [None]
    again = Run(recipe=whole, checkpoints=checkpoints)
    assert again.done == 23
    assert [error for _, error in train_together([again], TOKENS, data_seed=0)] == [None]
    assert torch.equal(weights(again.model), weights(train(whole, TOKENS)))
