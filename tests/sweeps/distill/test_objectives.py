"""Divergences against their definitions, gradients and limits; the chunked path against the plain one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import named_divergences
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sweeps.distill.divergences import (
    forward_kl,
    guided_loss,
    jensen_shannon,
    label_loss,
    reverse_kl,
    total_variation,
)
from sweeps.model import chunked_loss
from sweeps.model.chunked_loss import mean_loss
from sweeps.model.log_probs import cross_entropy, log_probabilities

NAMES = sorted(named_divergences.DIVERGENCES)
P = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def distillation(name: str, student: Tensor, teacher: Tensor, tau: float = 1.0, **own: float) -> Tensor:
    """From logits, as training calls it; every label is token 0."""
    labels = torch.zeros(student.shape[:-1], dtype=torch.long)
    log_p, log_q = log_probabilities(teacher, tau), log_probabilities(student, tau)
    return named_divergences.distillation(name, log_p, log_q, labels, tau, **own)


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forward-kl", 0.5838147027),
        ("reverse-kl", 0.5371764588),
        ("jensen-shannon", 0.1329180061),
        ("total-variation", 0.5),
        ("skew-kl", 0.4468885847),
        ("reverse-skew-kl", 0.4274206150),
        ("decoupled-kl", 0.5826853020 + 0.0037646689),
    ],
)
def test_known_values(name: str, value: float) -> None:
    assert distillation(name, Q.log(), P.log()).item() == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize(("beta", "value"), [(0.1, 0.0509950262), (0.5, 0.1329180061), (0.9, 0.0478639942)])
def test_known_values_of_the_generalised_jensen_shannon(beta: float, value: float) -> None:
    assert jensen_shannon(P.log(), Q.log(), beta).item() == pytest.approx(value, abs=1e-10)


def test_the_generalised_jensen_shannon_ends_in_both_divergences() -> None:
    """Over its own vanishing weight; so beta is the teacher's share and not the student's."""
    forward, reverse = (distillation(name, Q.log(), P.log()).item() for name in ("forward-kl", "reverse-kl"))
    end = 1e-5
    assert jensen_shannon(P.log(), Q.log(), end).item() / end == pytest.approx(forward, rel=1e-3)
    assert jensen_shannon(P.log(), Q.log(), 1 - end).item() / end == pytest.approx(reverse, rel=1e-3)


def test_far_apart_distributions_reach_the_bounds() -> None:
    first, last = torch.tensor([800.0, 0, 0]).double(), torch.tensor([0, 0, 800.0]).double()
    assert distillation("jensen-shannon", last, first).item() == pytest.approx(math.log(2))
    assert distillation("total-variation", last, first).item() == pytest.approx(1)
    assert distillation("skew-kl", last, first).item() == pytest.approx(-math.log(0.1))
    assert distillation("reverse-skew-kl", last, first).item() == pytest.approx(-math.log(0.1))
    assert distillation("forward-kl", last, first).item() == pytest.approx(800)


def test_divergences_bound_each_other() -> None:
    """TV^2 <= KL / 2 (Pinsker), JS <= TV ln 2; which of both is the teacher is nothing to JS and to TV."""
    one, other = log_probabilities(3 * logits(1, 200, 7)), log_probabilities(3 * logits(2, 200, 7))
    js, tv = jensen_shannon(one, other), total_variation(one, other)
    assert ((tv >= 0) & (tv <= 1) & (js >= 0) & (js <= math.log(2) * tv)).all()
    for kl in (forward_kl(one, other), reverse_kl(one, other)):
        assert (tv.square() <= kl / 2).all()
    torch.testing.assert_close(jensen_shannon(other, one), js, rtol=0, atol=1e-12)
    assert torch.equal(total_variation(other, one), tv)
    assert torch.equal(reverse_kl(one, other), forward_kl(other, one))


OWN = {
    "jensen-shannon": {"beta": 0.3},
    "skew-kl": {"skew": 0.2},
    "reverse-skew-kl": {"skew": 0.2},
    "decoupled-kl": {"gold": 0.7, "others": 2.0},
}
"""Parameters away from their defaults."""


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_analytic_one(name: str) -> None:
    z, teacher = logits(1, 9).requires_grad_(), logits(2, 9)
    (found,) = torch.autograd.grad(distillation(name, z, teacher, **OWN.get(name, {})), z)
    p, q = teacher.softmax(-1), z.detach().softmax(-1)
    m, forward, reverse = 0.3 * p + 0.7 * q, 0.2 * p + 0.8 * q, 0.8 * p + 0.2 * q
    sign = (q - p).sign()
    inner = (q / reverse).log() - 0.2 * q / reverse
    gold = F.one_hot(torch.tensor(0), 9)
    p_others, q_others = ((1 - gold) * x / (1 - x[0]) for x in (p, q))
    expected = {
        "forward-kl": q - p,
        "reverse-kl": q * ((q / p).log() - (q * (q / p).log()).sum()),
        "jensen-shannon": 0.7 * q * ((q / m).log() - (q * (q / m).log()).sum()),
        "total-variation": q / 2 * (sign - (q * sign).sum()),
        "skew-kl": -0.8 * q * (p / forward - (q * p / forward).sum()),
        "reverse-skew-kl": q * (inner - (q * inner).sum()),
        "decoupled-kl": 0.7 * (q - p)[0] * (gold - q_others) + 2.0 * (q_others - p_others),
    }[name]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert found.sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_teacher_itself_is_at_no_distance(name: str) -> None:
    teacher = logits(0, 5, 7)
    assert distillation(name, teacher + 3.0, teacher).abs().max() < 1e-12  # logits up to a constant
    assert (distillation(name, logits(1, 5, 7), teacher) > 1e-3).all()


@pytest.mark.parametrize("name", NAMES)
def test_high_temperature_has_its_limit(name: str) -> None:
    """tau^power D tends to a multiple of the spread of the logits' difference, with the right power."""
    own = OWN.get(name, {})
    student, teacher, tau = logits(1, 7), logits(2, 7), 1e4
    difference = teacher - student
    others = difference[1:]
    spread = (difference - difference.mean()).square().sum() / (2 * 7)
    absolute = (difference - difference.mean()).abs().sum() / (2 * 7)
    expected = {
        "forward-kl": spread,
        "reverse-kl": spread,
        "jensen-shannon": 0.3 * 0.7 * spread,
        "total-variation": absolute,
        "skew-kl": 0.8**2 * spread,
        "reverse-skew-kl": 0.8**2 * spread,
        "decoupled-kl": 0.7 * 6 / 49 / 2 * (difference[0] - others.mean()).square()
        + 2.0 * (others - others.mean()).square().sum() / (2 * 6),
    }[name]
    assert distillation(name, student, teacher, tau, **own).item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize(("skewed", "plain"), [("skew-kl", "forward-kl"), ("reverse-skew-kl", "reverse-kl")])
def test_without_skew_the_skewed_are_the_plain(skewed: str, plain: str) -> None:
    small = distillation(skewed, Q.log(), P.log(), skew=1e-9).item()
    assert small == pytest.approx(distillation(plain, Q.log(), P.log()).item(), rel=1e-6)


def test_decoupled_by_the_teacher_s_doubt_it_is_forward_kl() -> None:
    for seed in range(5):
        student, teacher = logits(seed, 9), logits(seed + 10, 9)
        doubt = 1 - teacher.softmax(-1)[0].item()
        found = distillation("decoupled-kl", student, teacher, others=doubt)
        torch.testing.assert_close(found, distillation("forward-kl", student, teacher), rtol=1e-12, atol=0)


def test_decoupled_where_nothing_is_left_to_tell_apart() -> None:
    """Two tokens have no others; a teacher without doubt says nothing of them; all stays finite."""
    both = logits(1, 4, 2), logits(2, 4, 2)
    assert distillation("decoupled-kl", *both, gold=0.0, others=1.0).abs().max() < 1e-15
    student = logits(1, 9).requires_grad_()
    certain = torch.full((9,), -torch.inf, dtype=torch.float64)
    certain[0] = 0.0
    found = distillation("decoupled-kl", student, certain, others=8.0)
    assert found.item() == pytest.approx(-student.log_softmax(-1)[0].item())
    (gradient,) = torch.autograd.grad(found, student)
    torch.testing.assert_close(gradient, student.softmax(-1) - certain.exp())
    sure = torch.zeros(9)
    sure[0] = 200.0  # beyond what 1 - p can say
    for given in (sure, -sure):
        student = logits(1, 9).float().requires_grad_()
        (gradient,) = torch.autograd.grad(distillation("decoupled-kl", student, given), student)
        assert gradient.isfinite().all()


def test_a_teacher_certain_of_the_data_is_the_data() -> None:
    student, targets = logits(1, 2, 3, 7), torch.tensor([[1, 2, 3], [4, 5, 6]])
    certain = 1e4 * F.one_hot(targets, 7).double()
    expected = F.cross_entropy(student.transpose(1, 2), targets, reduction="none")
    torch.testing.assert_close(cross_entropy(log_probabilities(student), targets), expected)
    torch.testing.assert_close(distillation("forward-kl", student, certain), expected, rtol=1e-9, atol=0)


def test_labels_and_normaliser_have_the_gradient_that_they_should() -> None:
    labels = torch.tensor([[1, 2, 3], [4, 5, 6]])
    for weight, z_loss in ((1.0, 0.0), (1.0, 0.3), (0.4, 0.3), (0.0, 0.3)):
        given, own = (logits(1, 2, 3, 7).requires_grad_() for _ in range(2))
        found = label_loss(given, labels, weight, z_loss)
        cross = F.cross_entropy(own.transpose(1, 2), labels, reduction="none")
        expected = weight * cross + z_loss * own.logsumexp(-1).square()
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(given.grad, own.grad)


def test_a_student_guided_at_once_learns_what_the_parts_say() -> None:
    labels, log_p = torch.tensor([[1, 2, 3], [4, 5, 6]]), log_probabilities(2 * logits(2, 2, 3, 7))
    for weight, z_loss in ((0.0, 0.0), (0.0, 0.3), (0.4, 0.0), (0.4, 0.3), (1.0, 0.3)):
        given, own = (logits(1, 2, 3, 7).requires_grad_() for _ in range(2))
        found = guided_loss(given, log_p, labels, weight, z_loss)
        expected = (1 - weight) * forward_kl(log_p, log_probabilities(own))
        expected = expected + label_loss(own, labels, weight, z_loss)
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(given.grad, own.grad)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of three rows of a vocabulary of 11."""
    monkeypatch.setattr(chunked_loss, "MAX_FULL_LOGITS", 35)
    monkeypatch.setattr(chunked_loss, "FP32_LOGITS_PER_CHUNK", 35)
    yield


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [2, 3, 17])
def test_blocks_change_neither_value_nor_gradient(name: str, rows: int, small_blocks: None) -> None:
    features, weight = logits(1, rows, 5).requires_grad_(), logits(2, 11, 5).requires_grad_()
    taught, head, targets = logits(3, rows, 4), logits(4, 11, 4), torch.arange(rows) % 11

    def per_token(student: Tensor, targets: Tensor, taught: Tensor) -> Tensor:
        loss = distillation(name, student, F.linear(taught, head), 1.7, **OWN.get(name, {}))
        return 0.8 * loss + label_loss(student, targets, 0.2, 0.01)

    found = mean_loss(per_token, features, weight, targets, taught)
    plain = per_token(features @ weight.T, targets, taught).mean()
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=0)
    ours = torch.autograd.grad(3 * found, (features, weight))
    theirs = torch.autograd.grad(3 * plain, (features, weight))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_in_blocks_too_the_teacher_itself_learns_nothing(name: str, small_blocks: None) -> None:
    """No hidden cross-entropy, no constant: value and gradient are zero."""
    features, weight = logits(1, 17, 5).requires_grad_(), logits(2, 11, 5).requires_grad_()

    def per_token(student: Tensor, taught: Tensor) -> Tensor:
        return distillation(name, student, F.linear(taught, weight.detach()), 2.0)

    found = mean_loss(per_token, features, weight, features.detach())
    assert abs(found.item()) < 1e-14
    for gradient in torch.autograd.grad(found, (features, weight)):
        assert gradient.abs().max() < 1e-14


def test_blocks_never_hold_all_logits(small_blocks: None) -> None:
    largest = 0

    def per_token(student: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, student.numel())
        return student.logsumexp(-1)

    mean_loss(per_token, logits(1, 1000, 5).requires_grad_(), logits(2, 11, 5).requires_grad_()).backward()
    assert largest <= 35
