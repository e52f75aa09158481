"""Distributions as they are kept: what rounding costs, and what a tail does to each divergence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from named_divergences import DIVERGENCES, distillation
from torch import Tensor

from sweeps.distill.caches.logit_format import Full, TopK
from sweeps.distill.divergences import forward_kl
from sweeps.model.log_probs import log_probabilities

V = 11
NAMES = sorted(name for name, divergence in DIVERGENCES.items() if not divergence.reads_labels)


def log_p(seed: int, rows: int = 6, vocab: int = V, spread: float = 2.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return log_probabilities(spread * torch.randn(rows, vocab, generator=draw, dtype=torch.float64))


def on_outcomes(name: str, teacher: Tensor, student: Tensor, top: int) -> Tensor:
    """A divergence as a student of the ``top`` likeliest tokens sees it, but for the rounding."""
    how, tokens = TopK(V, top), teacher.topk(top).indices
    blank = torch.cat([torch.zeros(len(teacher), top + 1), tokens], -1)
    rows = torch.cat([how.outcomes(teacher, blank), tokens], -1)
    return distillation(name, how.log_probabilities(rows, 1.0), how.outcomes(student, rows), tokens)


@pytest.mark.parametrize("name", NAMES)
def test_a_divergence_grows_with_the_tokens_kept_up_to_itself(name: str) -> None:
    teacher, student = log_p(1), log_p(2)
    whole = distillation(name, teacher, student, teacher.argmax(-1))
    kept = torch.stack([on_outcomes(name, teacher, student, top) for top in range(1, V)])
    assert (kept[1:] - kept[:-1] > -1e-12).all()
    assert (kept[0] > 0).all()
    assert (kept[0] < whole).all()
    torch.testing.assert_close(kept[-1], whole, rtol=1e-12, atol=0)  # a tail of one token is a token


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"total-variation"}))  # has a corner there
def test_a_student_that_is_the_teacher_learns_nothing_of_a_tail(name: str) -> None:
    teacher = log_p(1)
    logits = teacher.clone().requires_grad_()
    loss = on_outcomes(name, teacher, log_probabilities(logits), 3)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.abs().max() < 1e-12
    assert gradient.abs().max() < 1e-12


def test_of_the_tail_only_its_mass_is_taught() -> None:
    """Forward KL's gradient: q - p on the tokens kept, (1 - p_tail / q_tail) q on the others."""
    teacher = log_p(1)
    logits = log_p(2).requires_grad_()
    loss = on_outcomes("forward-kl", teacher, log_probabilities(logits), 4).sum()
    (found,) = torch.autograd.grad(loss, logits)
    p, q = teacher.exp(), logits.detach().softmax(-1)
    tail = torch.ones_like(p).scatter(-1, teacher.topk(4).indices, 0.0)
    p_tail, q_tail = ((x * tail).sum(-1, keepdim=True) for x in (p, q))
    torch.testing.assert_close(found, torch.where(tail > 0, q * (1 - p_tail / q_tail), q - p))


def test_halves_are_as_near_as_they_say() -> None:
    teacher = log_p(1, rows=200, vocab=512, spread=4.0).float()
    how = Full(512)
    rows = how.rows(how.pack(teacher))
    assert how.dtype.itemsize == 2 * 512
    assert rows.dtype == torch.float16
    again = how.log_probabilities(rows, 1.0)
    assert ((rows.float() - teacher) / teacher).abs().max() <= 2**-11
    assert (again.exp() - teacher.exp()).abs().max() < 2e-4
    assert again.exp().sum(-1).numpy() == pytest.approx(1)
    assert (again.exp() * (again - teacher)).sum(-1).abs().max() < 1e-6  # nats between the two


def test_kept_logits_can_be_softened_and_kept_tops_cannot() -> None:
    teacher = log_p(1)
    how = Full(V)
    softened = how.log_probabilities(how.rows(how.pack(teacher)), 2.0)
    assert (softened - log_probabilities(teacher, 2.0)).abs().max() < 2e-3
    with pytest.raises(AssertionError, match="at another temperature"):
        TopK(V, 3).log_probabilities(torch.zeros(1, 7), 2.0)


@pytest.mark.parametrize(("vocab", "bytes_each"), [(512, 2), (2**16 + 1, 4)])
def test_tops_survive_the_disk(vocab: int, bytes_each: int) -> None:
    teacher = log_p(3, vocab=vocab).float()
    teacher[0, -1] = 5.0
    teacher = log_probabilities(teacher)
    how = TopK(vocab, 32)
    assert how.dtype.itemsize == 2 * 33 + bytes_each * 32
    packed = np.frombuffer(how.pack(teacher).tobytes(), how.dtype)
    rows = how.rows(packed)
    tokens = rows[:, 33:].long()
    assert torch.equal(tokens, teacher.topk(32).indices)
    assert tokens[0, 0] == vocab - 1
    found = how.log_probabilities(rows, 1.0)
    assert (found - how.outcomes(teacher, rows)).abs().max() < 8e-3
    assert found.exp().sum(-1).numpy() == pytest.approx(1)


def test_what_cannot_happen_leaves_the_divergence_finite() -> None:
    """A teacher that excludes a token: log p = -inf is kept as that, and 0 log 0 = 0."""
    teacher = log_p(1).float()
    teacher[:, 0] = -math.inf
    teacher, student = log_probabilities(teacher), log_p(2).float()
    how = Full(V)
    found = forward_kl(how.log_probabilities(how.rows(how.pack(teacher)), 1.0), student)
    expected = (teacher.exp() * (teacher - student))[:, 1:].sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
