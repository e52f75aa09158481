"""Objectives, rates, data order, and the loop."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches, heldout_batches
from sweeps.distill.loss import batch_loss
from sweeps.distill.targets import Online
from sweeps.model.decoder import Decoder
from sweeps.model.heldout import heldout_loss
from sweeps.model.optimizer import BASE_WIDTH, Optimizer, learning_rate, parameter_groups
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Training
from sweeps.train.loop import train
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Diverged

SHAPE = shape_for(3e3, vocab=300, context=32, aspect_ratio=32)
RULES = Training(batch_tokens=128, warmup_tokens=1600)


def stream(length: int = 20_000, seed: int = 0) -> np.ndarray:
    """Tokens in which each is mostly the last one plus one: easy to learn, with a known floor."""
    draw = np.random.default_rng(seed)
    jumps = draw.random(length) < 0.25
    return (np.cumsum(np.where(jumps, draw.integers(0, 50, length), 1)) % 50).astype(np.uint16)


def recipe(steps: int, *, seed: int = 0, training: Training = RULES) -> RunRecipe:
    return RunRecipe(shape=SHAPE, steps=steps, training=training, seed=seed)


def test_methods_mix_labels_and_teacher() -> None:
    model, teacher = Decoder(SHAPE), Decoder(SHAPE)
    model.initialize(0)
    teacher.initialize(1)
    blocks = torch.from_numpy(stream(33 * 4).astype(np.int64)).view(4, 33)
    rules = Training(z_loss=0)

    def at(weight: float) -> float:
        method = Method(cross_entropy=weight)
        target = Online(teacher)
        rows = target.rows(blocks[:, :-1], torch.arange(4))
        return batch_loss(model, blocks, rules, method, target, rows).item()

    assert at(0.3) == pytest.approx(0.7 * at(0.0) + 0.3 * at(1.0), rel=1e-5)
    assert at(1.0) == pytest.approx(batch_loss(model, blocks, rules).item(), rel=1e-6)


def test_the_rate_warms_up_in_tokens_and_decays_to_its_floor() -> None:
    for steps in (500, 4000):
        rates = [learning_rate(step, steps, RULES) for step in range(steps)]
        warmup = RULES.warmup_steps
        assert warmup == round(1600 / 128)
        assert np.argmax(rates) in (warmup - 1, warmup)
        assert max(rates) == pytest.approx(RULES.learning_rate)
        assert all(later < earlier for earlier, later in pairwise(rates[warmup:]))
        assert rates[-1] == pytest.approx(RULES.final_lr_fraction * RULES.learning_rate, rel=0.1, abs=1e-6)


def test_mu_p_gives_hidden_matrices_a_rate_of_one_over_fan_in() -> None:
    model = Decoder(shape_for(107e3, vocab=300, context=32, aspect_ratio=32))
    groups = {id(member): group for group in parameter_groups(model, RULES) for member in group.members}
    assert len(groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and "embed" not in name
        group = groups[id(parameter)]
        assert group.scale == pytest.approx(BASE_WIDTH / parameter.shape[1] if hidden else 1)
        assert group.decay == (RULES.weight_decay if parameter.ndim == 2 else 0)


def test_the_optimiser_is_adamw_on_a_clipped_gradient() -> None:
    """Against torch's own, over a few steps, with gradients on both sides of the clip."""
    models = [Decoder(SHAPE) for _ in range(2)]
    for model in models:
        model.initialize(0)
    ours, theirs = models
    optimizer = Optimizer(parameter_groups(ours, RULES))
    groups = [
        {"params": group.members, "lr": 0.01 * group.scale, "weight_decay": group.decay}
        for group in parameter_groups(theirs, RULES)
    ]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    blocks = torch.from_numpy(stream(33 * 12).astype(np.int64)).view(3, 4, 33)
    for block in blocks:
        batch_loss(ours, block, RULES).backward()
        batch_loss(theirs, block, RULES).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.3)
        assert optimizer.clip(0.3).item() == pytest.approx(norm.item(), rel=1e-5)
        optimizer.step(0.01)
        reference.step()
        reference.zero_grad()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_an_epoch_shows_every_block_once_and_the_next_in_another_order() -> None:
    tokens = np.arange(32 * 20 + 1, dtype=np.uint16)
    data = Batches(tokens, context=32, batch=4, seed=3)
    assert data.tokens_per_epoch == 640
    first, second = ([int(b) for s in steps for b in data[s][:, 0]] for steps in (range(5), range(5, 10)))
    assert sorted(first) == sorted(second) == [32 * block for block in range(20)]
    assert first != second
    assert torch.equal(data[2], data[2])  # going back is exact
    again = Batches(tokens, context=32, batch=4, seed=3)
    assert torch.equal(again[7], data[7])
    assert not torch.equal(Batches(tokens, context=32, batch=4, seed=4)[0], data[0])
    assert torch.equal(data[0][:, 1:], data[0][:, :-1] + 1)  # targets are the tokens one place on


def test_held_out_text_is_seen_whole_and_in_order() -> None:
    tokens = np.arange(32 * 10 + 5, dtype=np.uint16)
    blocks = torch.cat(list(heldout_batches(tokens, context=32, batch=3)))
    assert blocks.shape == (10, 33)
    assert blocks[:, 1:].flatten().tolist() == list(range(1, 321))


def test_training_learns_what_there_is_to_learn() -> None:
    held = stream(seed=1)
    losses = [
        heldout_loss(train(recipe(steps), stream(), data_seed=0), held, context=32).loss
        for steps in (1, 150, 500)
    ]
    stays = 0.75 + 0.25 / 50
    floor = -stays * math.log(stays) - 49 * (0.25 / 50) * math.log(0.25 / 50)
    assert losses[0] > losses[1] > losses[2] > floor - 0.05
    assert losses[2] < floor + 0.2


def test_training_is_a_function_of_its_seed() -> None:
    def weights(seed: int, data_seed: int | None = None) -> torch.Tensor:
        model = train(recipe(30, seed=seed), stream(), data_seed=data_seed)
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert torch.equal(weights(0), weights(0, data_seed=0))
    assert not torch.equal(weights(0), weights(1))
    assert not torch.equal(weights(0), weights(1, data_seed=0))
    assert not torch.equal(weights(0), weights(0, data_seed=1))


def test_a_student_of_a_good_teacher_learns_from_it() -> None:
    held = stream(seed=1)
    teacher = train(recipe(600), stream()).eval().requires_grad_(False)
    few = recipe(120, seed=1)
    alone = heldout_loss(train(few, stream()), held, context=32)
    taught = train(replace(few, method=Method()), stream(), target=Online(teacher))
    student = heldout_loss(taught, held, context=32)
    assert student.loss < alone.loss


def test_divergence_is_noticed_and_names_the_step() -> None:
    with pytest.raises(Diverged, match=r"the gradient is not finite at step 2 of 20; lower learning_rate"):
        train(recipe(20, training=Training(batch_tokens=128, learning_rate=1e30)), stream())


def test_the_standard_error_is_that_of_block_means() -> None:
    model = Decoder(SHAPE)
    model.initialize(0)
    held = stream(32 * 40 + 1)
    found = heldout_loss(model, held, context=32, batch=7)
    with torch.no_grad():
        blocks = torch.cat(list(heldout_batches(held, context=32, batch=40)))
        losses = F.cross_entropy(model(blocks[:, :-1]).transpose(1, 2), blocks[:, 1:], reduction="none").mean(
            1
        )
    assert found.blocks == 40
    parted = heldout_loss(model, held, context=32, parts=[32 * 10, 32 * 30 + 1])
    assert parted.by_part == pytest.approx((losses[:10].mean().item(), losses[10:].mean().item()), rel=1e-5)
    within = 10 * losses[:10].var() + 30 * losses[10:].var()  # what parts differ by is no error of their mean
    assert parted.standard_error == pytest.approx(within.sqrt().item() / 40, rel=1e-4)
    assert found.loss == pytest.approx(losses.mean().item(), rel=1e-5)
    assert found.standard_error == pytest.approx(losses.std().item() / math.sqrt(40), rel=1e-4)
