"""Methods beside their published definitions: values from the papers' equations, computed with 50 digits.

Every value here was computed once, outside this package, from the equation that is named: divergences and
their derivatives by the student's logits (by central differences), TAID's interpolation and its series of t as
the authors' code takes it, the gradient of MiniLLM's divergence of sequences by enumeration, DistiLLM's share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from named_divergences import DIVERGENCES, distillation
from torch import Tensor, nn

from sweeps.distill.divergences import guided_loss, label_loss, reverse_kl
from sweeps.distill.generation.on_policy import ReplayedBatches
from sweeps.distill.generation.policy_gradient import advantages
from sweeps.distill.generation.sampling import GeneratedText
from sweeps.distill.loss import batch_loss
from sweeps.distill.taid import TaidSchedule, between, interpolated_cross_entropy
from sweeps.distill.targets import Online
from sweeps.model import chunked_loss
from sweeps.model.chunked_loss import mean_loss
from sweeps.model.decoder import attend
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_options import Credit, Replay, Source, Taid
from sweeps.spec.spec import Training

TEACHER = torch.tensor([[1.5, 0.1, -0.7, 0.4]], dtype=torch.float64)
STUDENT = torch.tensor([[0.3, -1.2, 0.8, 2.0]], dtype=torch.float64)
LABEL = torch.tensor([1])
Vector = tuple[float, ...]

VALUES: list[tuple[str, dict[str, float], float, float, Vector]] = [
    (
        "forward-kl",
        {},
        1,
        0.88305018748814,
        (-0.471800269742, -0.119156324489, 0.131997564824, 0.458959029408),
    ),
    (
        "forward-kl",
        {},
        2,
        0.95298986355359,
        (-0.438653192272, -0.227333660672, 0.227276671978, 0.438710180965),
    ),
    (
        "reverse-kl",
        {},
        1,
        0.77034415232724,
        (-0.283641325042, -0.0659624969312, 0.0657423330462, 0.283861488927),
    ),
    (
        "reverse-kl",
        {},
        2,
        0.91177902355797,
        (-0.383935011519, -0.190627346609, 0.187324243886, 0.387238114242),
    ),
    (
        "jensen-shannon",
        {"beta": 0.5},
        1,
        0.19038526610067,
        (-0.077234981157, -0.0183542503151, 0.0203049882654, 0.0752842432067),
    ),
    (
        "jensen-shannon",
        {"beta": 0.5},
        2,
        0.22831352785595,
        (-0.098551595001, -0.0497256525167, 0.0497045088196, 0.0985727386981),
    ),
    (
        "jensen-shannon",
        {"beta": 0.1},
        1,
        0.075614237420457,
        (-0.0370543192273, -0.00914814554481, 0.0102315652175, 0.0359708995546),
    ),
    (
        "jensen-shannon",
        {"beta": 0.1},
        2,
        0.084717885800511,
        (-0.0383396927019, -0.0197319311343, 0.0197550881775, 0.0383165356587),
    ),
    (
        "total-variation",
        {},
        1,
        0.59095659423173,
        (-0.102260266103, -0.0228173495523, 0.0289523681632, 0.0961252474919),
    ),
    (
        "total-variation",
        {},
        2,
        0.66598685294366,
        (-0.139535096436, -0.06591171249, 0.0727987811491, 0.132648027777),
    ),
    (
        "skew-kl",
        {"skew": 0.1},
        1,
        0.65167741702524,
        (-0.294963695404, -0.0713964356885, 0.0803288035346, 0.286031327558),
    ),
    (
        "skew-kl",
        {"skew": 0.1},
        2,
        0.75387764142378,
        (-0.335750226566, -0.17166031088, 0.172037294205, 0.33537324324),
    ),
    (
        "reverse-skew-kl",
        {"skew": 0.1},
        1,
        0.60893376693016,
        (-0.229435099732, -0.0537565247996, 0.0572465227333, 0.225945101798),
    ),
    (
        "reverse-skew-kl",
        {"skew": 0.1},
        2,
        0.73500335970953,
        (-0.311050418859, -0.155318514736, 0.154097824851, 0.312271108744),
    ),
    (
        "decoupled-kl",
        {"gold": 1.0, "others": 8.0},
        1,
        7.1331197127473,
        (-4.54184872786, -0.119156324489, 1.03400191452, 3.62700313783),
    ),
    (
        "decoupled-kl",
        {"gold": 1.0, "others": 8.0},
        2,
        7.4660269023114,
        (-4.86812874038, -0.227333660672, 1.71773118509, 3.37773121596),
    ),
]
"""Divergence, its own parameters, tau, tau^power D(p, q), and its gradient by the student's logits."""
EXCLUDED: list[tuple[str, dict[str, float], float, Vector]] = [
    ("forward-kl", {}, 1.0901860287805, (-0.513303786897, -0.129390965813, 0.197551044034, 0.445143708675)),
    (
        "jensen-shannon",
        {"beta": 0.5},
        0.24975180759771,
        (-0.08289259128, -0.0196286304955, 0.0448821967503, 0.0576390250252),
    ),
    (
        "jensen-shannon",
        {"beta": 0.1},
        0.094035457013411,
        (-0.0399203693206, -0.0098258209401, 0.0163082602953, 0.0334379299654),
    ),
    (
        "total-variation",
        {},
        0.64269475270947,
        (-0.102260266103, -0.0228173495523, 0.0289523681632, 0.0961252474919),
    ),
    (
        "skew-kl",
        {"skew": 0.1},
        0.81763127105451,
        (-0.315392360277, -0.0760510441628, 0.137710974867, 0.253732429573),
    ),
    (
        "reverse-skew-kl",
        {"skew": 0.1},
        0.83964727697459,
        (-0.248186441867, -0.0579475730208, 0.164359653886, 0.141774361002),
    ),
    (
        "decoupled-kl",
        {"gold": 1.0, "others": 8.0},
        9.0195444346792,
        (-5.00125324688, -0.129390965813, 1.65008574893, 3.48055846376),
    ),
]
"""The same at tau = 1 where the teacher excludes token 2 (its logit is -inf); reverse KL is infinite there."""


def value_and_gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[float, list[float]]:
    at = at.clone().requires_grad_()
    found = loss(at).sum()
    (gradient,) = torch.autograd.grad(found, at)
    return found.item(), gradient.flatten().tolist()


@pytest.mark.parametrize(("name", "own", "tau", "value", "gradient"), VALUES)
def test_divergences_are_those_of_the_papers(
    name: str, own: dict[str, float], tau: float, value: float, gradient: Vector
) -> None:
    def loss(z: Tensor) -> Tensor:
        log_p, log_q = log_probabilities(TEACHER, tau), log_probabilities(z, tau)
        return distillation(name, log_p, log_q, LABEL, tau, **own)

    found = value_and_gradient(loss, STUDENT)
    assert found[0] == pytest.approx(value, rel=1e-12)
    assert found[1] == pytest.approx(gradient, abs=1e-10)
    assert {name for name, *_ in VALUES} == set(DIVERGENCES)


@pytest.mark.parametrize(("name", "own", "value", "gradient"), EXCLUDED)
def test_a_token_that_the_teacher_excludes_counts_for_nothing(
    name: str, own: dict[str, float], value: float, gradient: Vector
) -> None:
    """0 log 0 = 0, in the value and in the gradient."""
    log_p = log_probabilities(TEACHER.index_fill(1, torch.tensor([2]), -torch.inf))

    def loss(z: Tensor) -> Tensor:
        return distillation(name, log_p, log_probabilities(z), LABEL, **own)

    found = value_and_gradient(loss, STUDENT)
    assert found[0] == pytest.approx(value, rel=1e-12)
    assert found[1] == pytest.approx(gradient, abs=1e-10)
    assert {name for name, *_ in EXCLUDED} == {n for n, d in DIVERGENCES.items() if not d.needs_every_token}


def test_a_token_that_both_exclude_counts_for_nothing() -> None:
    excluded = torch.tensor([2])
    teacher, student = (each.index_fill(1, excluded, -torch.inf) for each in (TEACHER, STUDENT))
    kept = [each[:, [0, 1, 3]] for each in (teacher, student)]
    for name, own, *_ in VALUES:
        found = distillation(name, *map(log_probabilities, (teacher, student)), LABEL, **own)
        without = distillation(name, *map(log_probabilities, kept), LABEL, **own)
        torch.testing.assert_close(found, without, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("t", "p_t", "value", "gradient"),
    [
        (
            0.4,
            (0.2794722278284, 0.06490358908129, 0.1564760438615, 0.4991481392288),
            1.292323802229,
            (-0.1596514627633, -0.03816796258322, 0.0410750001728, 0.1567444251737),
        ),
        (
            0.7,
            (0.4425883640458, 0.1059153443974, 0.1102378316011, 0.3412584599557),
            1.645372996098,
            (-0.3227675989807, -0.07917971789935, 0.08731321243318, 0.3146341044469),
        ),
    ],
)
def test_taid_interpolates_logits(t: float, p_t: Vector, value: float, gradient: Vector) -> None:
    """Shing et al. 2025, Eqs. 3 and 4; the loss is the cross-entropy, its gradient q - p_t."""
    log_p, log_q = log_probabilities(TEACHER), log_probabilities(STUDENT)
    assert between(log_p, log_q, t).exp().flatten().tolist() == pytest.approx(p_t, abs=1e-12)
    found = value_and_gradient(lambda z: interpolated_cross_entropy(log_p, log_probabilities(z), t), STUDENT)
    assert found[0] == pytest.approx(value, abs=1e-11)
    assert found[1] == pytest.approx(gradient, abs=1e-11)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_taid_follows_a_teacher_that_excludes_a_token(t: float) -> None:
    excluding = TEACHER.index_fill(1, torch.tensor([2]), -torch.inf)
    log_p, log_q = log_probabilities(excluding), log_probabilities(STUDENT)
    kept = torch.tensor([0, 1, 3])
    mixed = ((1 - t) * STUDENT + t * TEACHER)[:, kept].softmax(-1)
    found = between(log_p, log_q, t).exp()
    torch.testing.assert_close(found[:, kept], mixed, rtol=0, atol=1e-14)
    assert found[0, 2] == 0
    value, gradient = value_and_gradient(
        lambda z: interpolated_cross_entropy(log_p, log_probabilities(z), t), STUDENT
    )
    assert value == pytest.approx(-(mixed * log_q[:, kept]).sum().item(), abs=1e-13)
    assert gradient == pytest.approx((log_q.exp() - found).flatten().tolist(), abs=1e-13)


@pytest.mark.parametrize(
    ("rules", "steps", "series"),
    [
        (
            Taid(start=0.4, pace=8, momentum=0.5),
            8,
            (0.4, 0.4, 0.7149875124874, 0.8566031038172, 0.9340400642035, 0.969710836904, 0.985625392338),
        ),
        (
            Taid(start=0.2),  # 8 over 16,000 steps is the authors' 5e-4 a step
            16_000,
            (0.2, 0.2, 0.2002001999999, 0.2004002229317, 0.2006005282758, 0.2008009459296, 0.2010013476199),
        ),
    ],
)
def test_taid_moves_as_the_authors_code_does(rules: Taid, steps: int, series: Vector) -> None:
    pace, used = TaidSchedule(rules, steps), []
    for step, loss in enumerate((5.0, 4.0, 4.5, 3.0, 2.5, 2.4, 2.6)):
        used.append(pace.value.item())
        pace.update(step, torch.tensor(loss, dtype=torch.float64))
    assert used == pytest.approx(series, abs=1e-12)


class Bigram(nn.Module):
    """Logits of two tokens after a prompt and after the token before, as features that the identity projects."""

    def __init__(self, *logits: Vector) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))
        self.head = torch.eye(2, dtype=torch.float64)

    def forward(self, tokens: Tensor) -> Tensor:
        first = torch.zeros(len(tokens), dtype=torch.long)
        return self.logits[torch.stack([first, tokens[:, 1] + 1], 1)]

    @property
    def model(self) -> nn.Module:
        return self


def test_minillm_has_the_gradient_of_the_divergence_of_sequences() -> None:
    """KL(Q || P) of two tokens of two, enumerated; the authors' section 2.2 without normalization."""
    student = Bigram((0.5, -0.3), (1.1, 0.2), (-0.4, 0.9))
    teacher = Bigram((-0.2, 0.6), (0.3, 1.4), (0.7, -0.5)).requires_grad_(False)
    blocks = torch.tensor([(0, *rest) for rest in itertools.product(range(2), repeat=2)])
    labels = blocks[:, 1:, None]
    log_q, log_p = (model(blocks[:, :-1]).log_softmax(-1) for model in (student, teacher))
    by = torch.stack([log_q.detach(), log_p]).gather(-1, labels.expand(2, -1, -1, -1)).squeeze(-1)
    of_sequences = by.sum(-1).exp()[0]
    assert (of_sequences * (by[0] - by[1]).sum(-1)).sum().item() == pytest.approx(0.8398673232806, abs=1e-12)

    rules = Credit(discount=1.0, normalise=False, clip=1e9)
    how = Method(divergence="reverse-kl", source=Source(by="student", prompt_tokens=1), credit=rules)
    credit = advantages(GeneratedText(blocks, by, by[0], reverse_kl(log_p, log_q.detach())), rules)
    target, training = Online(teacher), Training(z_loss=0.0)
    loss = torch.zeros((), dtype=torch.float64)
    for number, block in enumerate(blocks.split(1)):
        rows, own = target.rows(block[:, :-1], torch.empty(0)), slice(number, number + 1)
        one = batch_loss(student, block, training, how, target, rows, None, (credit[own], by[0, own]))
        loss = loss + of_sequences[number] * 2 * one  # a mean over two tokens
    (gradient,) = torch.autograd.grad(loss, student.logits)
    assert gradient[:, 0].tolist() == pytest.approx(
        (0.295456133807, 0.28357993586, -0.130441967875), abs=1e-10
    )
    assert (gradient.sum(1).abs() < 1e-14).all()


@pytest.mark.parametrize(
    ("losses", "share"),
    [
        ((2.0, 2.06, 2.12, 2.18, 2.24, 2.30, 2.36), 0.3),
        ((3.0, 2.5, 2.65, 2.5, 2.65, 2.5, 2.65), 0.0),
        ((2.0, 2.2, 2.0, 2.2, 2.0, 2.2), 0.1),
        ((2.0, 2.0 + 0.1), 0.1),  # "or more"
        ((1.0, *(1.0 + 0.2 * n for n in range(1, 14))), 1.0),
    ],
)
def test_distillm_s_share_rises_as_in_the_authors_code(losses: Vector, share: float) -> None:
    replay = Replay()
    source = replayed(replay, steps=20)
    for loss in losses:
        source.compare(loss)
    assert source.share == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("steps", [20, 39, 40, 59, 384, 1000])
def test_distillm_looks_twenty_times_evenly(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source, looks = replayed(Replay(), steps), []
    data = torch.zeros(1, 5, dtype=torch.long)
    for step in range(steps):
        monkeypatch.setattr(ReplayedBatches, "_look", lambda *_, step=step: looks.append(step))
        source._blocks(None, step, data, None)  # type: ignore[arg-type]
    assert looks == [math.ceil(n * steps / 20) for n in range(20)]


def test_distillm_looks_at_every_step_of_a_shorter_run(monkeypatch: pytest.MonkeyPatch) -> None:
    source, looks = replayed(Replay(), 7), []
    for step in range(7):
        monkeypatch.setattr(ReplayedBatches, "_look", lambda *_, step=step: looks.append(step))
        source._blocks(None, step, torch.zeros(1, 5, dtype=torch.long), None)  # type: ignore[arg-type]
    assert looks == list(range(7))


def replayed(rules: Replay, steps: int) -> ReplayedBatches:
    method = Method(source=Source(by="student", replay=rules))
    return ReplayedBatches(method=method, rules=method.source, context=4, seed=0, steps=steps, replay=rules)


def test_hand_written_derivatives_are_those_of_what_they_compute() -> None:
    """Of 0.3 cross-entropy + 0.01 z-loss, that with 0.7 forward KL, and of a head of causal attention."""
    found = value_and_gradient(lambda z: label_loss(z, LABEL, 0.3, 0.01), STUDENT)
    assert found[0] == pytest.approx(1.1451766147013, abs=1e-12)
    assert found[1] == pytest.approx((0.0417497681111, -0.290684367555, 0.0688337307316, 0.228536034257))
    log_p = log_probabilities(TEACHER)
    found = value_and_gradient(lambda z: guided_loss(z, log_p, LABEL, 0.3, 0.01), STUDENT)
    assert found[0] == pytest.approx(1.763311745943, abs=1e-12)
    assert found[1] == pytest.approx((-0.288510420709, -0.374093794698, 0.161232026108, 0.549807354842))
    given = torch.tensor([[0.5, -1.3], [0.8, 0.4], [1.5, -0.6]], dtype=torch.float64)
    found = value_and_gradient(attention, given)
    assert found[0] == pytest.approx(0.8487113401835, abs=1e-12)
    gradient = (0.0, -0.216062103662, 0.702201836901, -0.702201836901, 0.289862542945, -0.689862542945)
    assert found[1] == pytest.approx(gradient, abs=1e-11)


def attention(given: Tensor) -> Tensor:
    q, k, v = given[:, None, None, :, None]
    mask = torch.full((2, 2), -torch.inf).triu(1)
    return attend(q, k, v, mask).flatten() * torch.tensor([0.7, -1.1], dtype=torch.float64)


def test_guided_by_a_teacher_that_excludes_a_token() -> None:
    """As the parts say: what is compiled is another function than what is not."""
    log_p = log_probabilities(TEACHER.index_fill(1, torch.tensor([2]), -torch.inf))
    value, gradient = value_and_gradient(lambda z: guided_loss(z, log_p, LABEL), STUDENT)
    name, _, expected, of_logits = EXCLUDED[0]
    assert name == "forward-kl"
    assert value == pytest.approx(expected, rel=1e-12)
    assert gradient == pytest.approx(of_logits, abs=1e-10)


def test_no_second_derivative_is_wrong_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that are written by hand have none of their own: asked for one, they refuse."""
    monkeypatch.setattr(chunked_loss, "MAX_FULL_LOGITS", 1)
    log_p, head = log_probabilities(TEACHER), torch.eye(4, dtype=torch.float64)
    given = torch.tensor([[0.5, -1.3], [0.8, 0.4], [1.5, -0.6]], dtype=torch.float64)
    for at, function in (
        (STUDENT, lambda z: label_loss(z, LABEL)),
        (STUDENT, lambda z: guided_loss(z, log_p, LABEL)),
        (STUDENT, lambda z: mean_loss(label_loss, z, head, LABEL)),
        (given, attention),
    ):
        at = at.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(at).square().sum(), at, create_graph=True)
        with pytest.raises(RuntimeError):
            torch.autograd.grad(gradient.sum(), at, retain_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()
