"""Few tokens of a distribution: what is kept, what rounding costs, and what draws are in expectation."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from named_divergences import DIVERGENCES, distillation
from torch import Tensor

from scaling.costs.logit_storage import bits_for
from sweeps.distill.caches.bit_packing import pack_bits, packed_bytes, unpack_bits
from sweeps.distill.caches.logit_format import TopK, distribution_format, packed_distributions
from sweeps.distill.caches.sparse_formats import STEP, CompactTop, Sampled
from sweeps.distill.divergences import forward_kl
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method.method import Method

V, ROWS = 300, 32
NAMES = sorted(name for name, divergence in DIVERGENCES.items() if not divergence.reads_labels)
FORMATS = [
    CompactTop(V, 16),
    CompactTop(V, 16, bits=8),
    CompactTop(V, 40, 0.9),
    CompactTop(V, 299, 0.99, 8),
    Sampled(V, 50),
    Sampled(V, 300),
    Sampled(V, 50, 0.7),
]


def log_p(seed: int = 1, rows: int = ROWS, vocab: int = V, spread: float = 3.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return log_probabilities(spread * torch.randn(rows, vocab, generator=draw, dtype=torch.float64))


def packed(how: CompactTop | Sampled, teacher: Tensor) -> np.ndarray:
    return packed_distributions(how, teacher, 7, [3])


def test_bits_survive_for_vocabularies_of_every_size() -> None:
    draw = np.random.default_rng(0)
    for vocab in [2, 3, 4, 255, 256, 257, 2**16, 2**16 + 1, 2**20, *draw.integers(2, 2**20, 40).tolist()]:
        bits, values = bits_for(vocab), draw.integers(0, vocab, int(draw.integers(0, 50)))
        values = np.append(values, [0, vocab - 1])
        data = pack_bits(values, bits)
        assert 2 ** (bits - 1) < vocab <= 2**bits or vocab == 2
        assert len(data) == packed_bytes(len(values), bits)
        assert np.array_equal(unpack_bits(data, len(values), bits), values)


@pytest.mark.parametrize("how", FORMATS, ids=str)
def test_blocks_survive_the_disk_in_the_bytes_that_a_plan_states(how: CompactTop | Sampled) -> None:
    rows = packed(how, log_p())
    data = how.encode(rows)
    assert torch.equal(how.rows(how.decode(data, ROWS)), how.rows(rows))
    assert len(data) <= how.most_bytes(ROWS)
    if isinstance(how, Sampled):
        alone = replace(how, draws=1)  # every draw is another token
        assert len(alone.encode(packed(alone, log_p()))) == alone.most_bytes(ROWS)
    elif how.mass is None:
        assert len(data) == how.most_bytes(ROWS)
    else:
        whole = replace(how, top=4, mass=0.999999)  # more than four tokens have together
        assert len(whole.encode(packed(whole, log_p(spread=0.1)))) == whole.most_bytes(ROWS)


def test_16_bits_are_what_the_layout_of_whole_bytes_reads() -> None:
    old, how = TopK(V, 16), CompactTop(V, 16)
    assert torch.equal(how.rows(packed(how, log_p())), old.rows(old.pack(log_p())))


def test_top_p_keeps_the_fewest_tokens_that_have_the_mass() -> None:
    teacher = log_p(rows=200)
    for mass in (0.05, 0.5, 0.9, 0.99):
        tokens = torch.from_numpy(packed(CompactTop(V, V - 1, mass), teacher)["tokens"].astype(np.int64))
        kept = torch.where(tokens >= 0, teacher.exp().gather(-1, tokens.clamp(min=0)), 0.0)
        assert kept.sum(-1).min() >= mass - 1e-12
        last = torch.where(tokens >= 0, kept, torch.inf).amin(-1)
        assert (kept.sum(-1) - last).max() < mass
    assert (packed(CompactTop(V, 8, 0.99), teacher)["tokens"] >= 0).all()  # as many as there may be


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [8, 16])
def test_divergences_on_a_nucleus_are_finite_and_at_most_the_whole_ones(name: str, bits: int) -> None:
    teacher, logits = log_p(1).float(), log_p(2).float().requires_grad_()
    how, student = CompactTop(V, 64, 0.8, bits), log_probabilities(logits)  # type: ignore[arg-type]
    rows, labels = how.rows(packed(how, teacher)), teacher.argmax(-1)
    p, q = how.log_probabilities(rows, 1.0), how.outcomes(student, rows)
    assert p.exp().sum(-1).detach().numpy() == pytest.approx(1, abs=1e-5)
    assert q.exp().sum(-1).detach().numpy() == pytest.approx(
        1, abs=1e-5
    )  # no token is lost, none counts twice
    found, whole = distillation(name, p, q, labels), distillation(name, teacher, student, labels)
    assert (found <= whole + 0.02).all()
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient.isfinite().all()


def test_8_bits_cost_no_more_than_they_say() -> None:
    teacher, how = log_p(rows=500), CompactTop(V, 64, bits=8)
    rows = how.rows(packed(how, teacher))
    exact, read = how.outcomes(teacher, rows), how.log_probabilities(rows, 1.0)
    near = exact > -15.5
    assert (rows[:, :65] - exact)[near].abs().max() <= STEP / 2 + 1e-6
    assert forward_kl(exact, read).max() <= STEP**2 / 8 + 65 * np.exp(-15.875)
    excluded = teacher.clone()
    excluded[:, 5:] = -torch.inf
    found = packed(replace(how, top=8), log_probabilities(excluded))["log_p"]
    assert np.isneginf(found[:, 5:]).all()
    assert np.isfinite(found[:, :5]).all()


def drawn(how: Sampled, p: Tensor, cells: int) -> Tensor:
    """All equally likely outcomes of drawing: rows for every combination of cells of [0, 1)."""
    uniform = torch.tensor(list(product((torch.arange(cells) + 0.5).div(cells).tolist(), repeat=how.draws)))
    return how.rows(how.pack(p.log().expand(len(uniform), -1), uniform.double()))


EIGHTHS = torch.tensor([4, 2, 1, 1], dtype=torch.float64) / 8


@pytest.mark.parametrize(("power", "cells"), [(1.0, 8), (2.0, 22)])
def test_draws_are_the_distribution_in_expectation_and_so_is_the_gradient(power: float, cells: int) -> None:
    """By exact enumeration: q has multiples of 1/8, or of 1/22 as p^2 has; the weights are kept in halves."""
    how, precision = Sampled(4, 2, power), 1e-7 if power == 1 else 2e-3
    rows = drawn(how, EIGHTHS, cells)
    weights = how.log_probabilities(rows, 1.0).exp()
    estimate = torch.zeros(len(rows), 4).scatter_add(-1, rows[:, how.draws :].long(), weights)
    torch.testing.assert_close(estimate.mean(0).double(), EIGHTHS, rtol=precision, atol=0)
    logits = log_p(2, 1, 4).requires_grad_()
    student = log_probabilities(logits).expand(len(rows), -1)
    loss = forward_kl(how.log_probabilities(rows, 1.0), how.outcomes(student, rows)).mean()
    (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (whole,) = torch.autograd.grad(forward_kl(EIGHTHS.log()[None], log_probabilities(logits)).sum(), logits)
    torch.testing.assert_close(found, whole, rtol=0, atol=precision)
    top = CompactTop(4, 2)
    rows = top.rows(top.pack(EIGHTHS.log()[None]))
    biased = forward_kl(top.log_probabilities(rows, 1.0), top.outcomes(log_probabilities(logits), rows))
    assert (torch.autograd.grad(biased.sum(), logits)[0] - whole).abs().max() > 0.02


def test_draws_of_a_large_vocabulary_are_within_their_standard_error() -> None:
    teacher, how, times = log_p(1, 1, 5000, 2.0), Sampled(5000, 50, 0.8), 2000
    uniform = torch.rand(times, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = how.rows(how.pack(teacher.expand(times, -1), uniform))
    values = torch.randn(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = (rows[:, :50].double().exp() * values[rows[:, 50:].long()]).sum(-1)
    error = found.std() / times**0.5
    assert abs(found.mean() - (teacher.exp() * values).sum()) < 3 * error
    assert error < 0.01


@pytest.mark.parametrize("how", [Sampled(V, 20), Sampled(V, 20, 0.5)], ids=str)
def test_a_block_is_drawn_alike_whatever_is_written_with_it(how: Sampled) -> None:
    teacher = log_p(rows=2 * ROWS)
    both, alone = (
        packed_distributions(how, teacher, 7, [3, 5]),
        packed_distributions(how, teacher[ROWS:], 7, [5]),
    )
    assert np.array_equal(both[ROWS:], alone)
    assert not np.array_equal(both[:ROWS], packed_distributions(how, teacher[:ROWS], 8, [3]))


def test_methods_say_their_formats() -> None:
    def found(**given: object) -> object:
        return distribution_format(Method(**given), V)  # type: ignore[arg-type]

    assert found(logits="top-k", top=8) == TopK(V, 8)
    assert found(logits="top-k", top=8, probability_bits=8) == CompactTop(V, 8, bits=8)
    assert found(logits="top-p") == CompactTop(V, 32, 0.95)
    assert found(logits="sampled", draws=12, proposal_power=0.8) == Sampled(V, 12, 0.8)
    names = [
        Method(logits="top-p", top=64, probability_bits=8).name,
        Method(logits="sampled", proposal_power=0.8).name,
    ]
    assert names == ["forward-kl top-p-0.95 top=64 bits=8", "forward-kl sampled-50 power=0.8"]
