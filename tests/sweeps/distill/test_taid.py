"""TAID: the distribution in between, and the pace at which it moves."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from sweeps.dag.ladder import shape_for
from sweeps.distill.divergences import forward_kl
from sweeps.distill.loss import batch_loss
from sweeps.distill.taid import TaidSchedule, between, interpolated_cross_entropy
from sweeps.distill.targets import Online
from sweeps.model.decoder import Decoder
from sweeps.model.heldout import heldout_loss
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_options import Taid
from sweeps.spec.spec import Training
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train.loop import train, train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

P = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log()
Q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
PATHS = 50


@pytest.mark.parametrize(
    ("t", "expected", "divergence"),
    [
        (0.25, (0.3042415, 0.4422384, 0.2535201), 0.0306645),
        (0.5, (0.4332635, 0.3661745, 0.2005620), 0.1401044),
        (0.75, (0.5719004, 0.2810311, 0.1470685), 0.3341089),
    ],
)
def test_known_values(t: float, expected: tuple[float, ...], divergence: float) -> None:
    log_p = between(P, Q, t)
    assert log_p.exp().tolist() == pytest.approx(expected, abs=1e-7)
    assert forward_kl(log_p, Q).item() == pytest.approx(divergence, abs=1e-7)
    entropy = -(log_p.exp() * log_p).sum()
    assert interpolated_cross_entropy(P, Q, t).item() == pytest.approx(divergence + entropy.item(), abs=1e-7)


def logits(seed: int) -> Tensor:
    return torch.randn(4, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_gradient_leads_to_the_distribution_in_between(t: float) -> None:
    """And to it alone: at t = 0 nowhere, at t = 1 to the teacher, as forward KL does."""
    z, log_p = logits(1).requires_grad_(), log_probabilities(logits(2))
    (found,) = torch.autograd.grad(interpolated_cross_entropy(log_p, log_probabilities(z), t).sum(), z)
    q = z.detach().softmax(-1)
    p_t = ((1 - t) * z.detach() + t * log_p).softmax(-1)
    torch.testing.assert_close(found, q - p_t, rtol=0, atol=1e-14)
    if t == 0:
        assert found.abs().max() < 1e-14
    if t == 1:
        (plain,) = torch.autograd.grad(forward_kl(log_p, log_probabilities(z)).sum(), z)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-14)


def test_in_blocks_it_is_what_it_is_at_once(target: Online, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a student that is its teacher has nowhere to go."""
    blocks = torch.randint(300, (4, 33), generator=torch.Generator().manual_seed(0))
    student, rules = Decoder(SHAPE), Training(z_loss=0.0)
    student.initialize(8)
    rows, found = target.rows(blocks[:, :-1], torch.empty(0)), []
    for _ in range(2):
        for model in (student, target.teacher):
            head = model.head.detach().clone().requires_grad_()
            like = SimpleNamespace(model=model.model, head=head)
            loss = batch_loss(like, blocks, rules, RECIPE.method, target, rows, torch.tensor(0.4))
            found.append((loss.detach(), *torch.autograd.grad(loss, head)))
        monkeypatch.setattr("sweeps.model.chunked_loss.MAX_FULL_LOGITS", 1)
        monkeypatch.setattr("sweeps.model.chunked_loss.FP32_LOGITS_PER_CHUNK", 5 * 300)
    for one, other in zip(*found[::2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert found[0][1].abs().max() > 1e-4
    assert max(found[n][1].abs().max() for n in (1, 3)) < 1e-6


def test_the_distance_has_its_closed_form_and_grows() -> None:
    """KL(p_t || q) = t psi'(t) - psi(t), with psi the log-moments of the difference of logits under q."""
    log_p, log_q = log_probabilities(logits(2)), log_probabilities(logits(1))
    d = log_p - log_q
    found = []
    for t in torch.linspace(0, 1, 11, dtype=torch.float64).requires_grad_().unbind():
        psi = (log_q + t * d).logsumexp(-1)
        slope = torch.stack([torch.autograd.grad(each, t, retain_graph=True)[0] for each in psi])
        found.append(forward_kl(between(log_p, log_q, t.detach()), log_q))
        torch.testing.assert_close(found[-1], (t * slope - psi).detach(), rtol=0, atol=1e-12)
    assert all((later > earlier).all() for earlier, later in pairwise(found))


def path(rules: Taid, steps: int, losses: list[float]) -> list[float]:
    """t as it is used at each step."""
    pace, used = TaidSchedule(rules, steps), []
    for step, loss in enumerate(losses):
        used.append(pace.value.item())
        pace.update(step, torch.tensor(loss))
    return used


def test_whatever_the_losses_t_rises_between_its_floor_and_its_end() -> None:
    draw = random.Random(0)
    rules = Taid(start=0.2, end=0.9, pace=30, momentum=0.5)
    for _ in range(20):
        losses = [draw.uniform(0, 10) for _ in range(PATHS)]
        used = path(rules, PATHS, losses)
        assert used[:2] == [0.2, 0.2]
        assert all(later >= earlier for earlier, later in pairwise(used))
        floor = [0.2 + 0.7 * step / PATHS for step in range(PATHS)]
        assert all(t >= below - 1e-12 for t, below in zip(used[2:], floor[1:], strict=False))
        assert max(used) <= 0.9


def test_falling_losses_hurry_it() -> None:
    falling = path(Taid(momentum=0.5), 100, [0.5**step for step in range(100)])
    rising = path(Taid(momentum=0.5), 100, [2.0**step for step in range(100)])
    assert falling[20] > rising[20] + 0.1


def test_constant_losses_give_the_closed_form() -> None:
    """1 - (1 - t_0) (1 - alpha / 2)^n, where the linear floor is far below."""
    rate, steps, n = 5e-4, 10**6, 400
    used = path(Taid(start=0.4, pace=rate * steps), steps, [2.0] * (n + 2))
    assert used[-1] == pytest.approx(1 - 0.6 * (1 - rate / 2) ** n, abs=1e-12)


@pytest.mark.parametrize("steps", [300, 2700])
def test_at_the_authors_rate_a_step_short_runs_have_the_floor_alone(steps: int) -> None:
    """What a pace over the whole run is for."""
    draw = random.Random(1)
    losses = [draw.uniform(0, 5) for _ in range(steps)]
    rules = Taid(start=0.4, pace=5e-4 * steps)
    floor = [0.4, *(0.4 + 0.6 * step / steps for step in range(steps - 1))]
    assert path(rules, steps, losses) == pytest.approx(floor, abs=1e-15)
    paced = path(Taid(start=0.4), steps, [3.0] * steps)
    assert paced[steps // 2] > floor[steps // 2] + 0.1


SHAPE = shape_for(3e3, vocab=300, context=32, aspect_ratio=32)
TOKENS = (np.arange(8_000) ** 2 % 299).astype(np.uint16)
RECIPE = RunRecipe(
    shape=SHAPE,
    steps=60,
    training=Training(batch_tokens=128, warmup_tokens=1280),
    seed=0,
    method=Method(taid=Taid(start=0.2)),
)


@pytest.fixture
def target() -> Online:
    model = Decoder(SHAPE)
    model.initialize(7)
    return Online(model.eval().requires_grad_(False))


def weights(model: Decoder) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in model.parameters()]).detach()


def test_a_killed_run_goes_on_with_its_pace_and_evaluation_leaves_that_alone(
    target: Online, tmp_path: Path
) -> None:
    whole = Run(recipe=RECIPE)
    list(train_together([whole], TOKENS, data_seed=0, target=target))
    assert whole.method.schedule is not None
    assert 0.5 < whole.method.schedule.value.item() <= 1
    checkpoints = Checkpoints(Store(tmp_path), "run")
    half = Run(recipe=replace(RECIPE, stop=30), checkpoints=checkpoints)
    list(train_together([half], TOKENS, data_seed=0, target=target))
    assert half.method.schedule is not None
    before = half.method.schedule.state.clone()
    heldout_loss(half.model, TOKENS, context=32)
    assert torch.equal(half.method.schedule.state, before)
    again = Run(recipe=RECIPE, checkpoints=checkpoints)
    assert again.method.schedule is not None
    assert again.done == 30
    assert torch.equal(again.method.schedule.state, before)
    list(train_together([again], TOKENS, data_seed=0, target=target))
    assert torch.equal(again.method.schedule.state, whole.method.schedule.state)
    assert torch.equal(weights(again.model), weights(whole.model))


def test_a_teacher_that_has_arrived_is_forward_kl(target: Online) -> None:
    arrived = replace(RECIPE, steps=30, method=Method(taid=Taid(start=1)))
    plain = replace(RECIPE, steps=30, method=Method())
    found, expected = (weights(train(recipe, TOKENS, target=target)) for recipe in (arrived, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    moving = weights(train(replace(RECIPE, steps=30), TOKENS, target=target))
    assert (moving - expected).abs().max() > 1e-2
