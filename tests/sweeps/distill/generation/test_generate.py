"""Text that models write: cached as uncached, drawn from what it should be, and a function of its numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sweeps.dag.ladder import shape_for
from sweeps.distill.generation.sampling import inverse, uniform_numbers, write
from sweeps.model.decoder import Decoder
from sweeps.model.log_probs import log_probabilities

CONTEXT, PROMPT, BATCH = 32, 8, 5


def model(seed: int, params: float = 7e3) -> Decoder:
    made = Decoder(shape_for(params, vocab=300, context=CONTEXT, aspect_ratio=8))
    made.initialize(seed)
    return made.requires_grad_(False)


def prompts() -> Tensor:
    return torch.randint(300, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0))


def numbers(*seed: int) -> Tensor:
    return uniform_numbers(BATCH, CONTEXT + 1 - PROMPT, *seed)


def read(reader: Decoder, blocks: Tensor, temperature: float = 1.0) -> Tensor:
    """log-probabilities of what was written, from one pass over all of it."""
    log_p = log_probabilities(reader(blocks[:, :-1]), temperature)[:, PROMPT - 1 :]
    return log_p.gather(-1, blocks[:, PROMPT:, None]).squeeze(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_reading_token_by_token_is_reading_at_once(temperature: float) -> None:
    student = model(0, 30e3)
    assert student.shape.layers > 1
    found = write([student], prompts(), numbers(1), temperature=temperature)
    assert torch.equal(found.blocks[:, :PROMPT], prompts())
    assert found.blocks.shape == (BATCH, CONTEXT + 1)
    torch.testing.assert_close(
        found.by_writer[0], read(student, found.blocks, temperature), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(found.drawn, found.by_writer[0], rtol=0, atol=1e-5)


def test_the_same_numbers_write_the_same_text_whatever_else_is_in_the_batch() -> None:
    student = model(0)
    all_of_it = write([student], prompts(), numbers(1)).blocks
    assert torch.equal(all_of_it, write([student], prompts(), numbers(1)).blocks)
    assert torch.equal(all_of_it[2:4], write([student], prompts()[2:4], numbers(1)[2:4]).blocks)
    assert not torch.equal(all_of_it, write([student], prompts(), numbers(2)).blocks)


def test_a_mixture_is_one_token_by_token() -> None:
    """And its importance weight q / (alpha p + (1 - alpha) q) is at most 1 / (1 - alpha)."""
    student, teacher, alpha = model(0), model(1), 0.2
    found = write([student, teacher], prompts(), numbers(1), shares=(1 - alpha, alpha))
    log_q, log_p = found.by_writer
    torch.testing.assert_close(log_q, read(student, found.blocks), rtol=0, atol=1e-5)
    torch.testing.assert_close(log_p, read(teacher, found.blocks), rtol=0, atol=1e-5)
    mixed = torch.logaddexp(log_p + math.log(alpha), log_q + math.log1p(-alpha))
    torch.testing.assert_close(found.drawn, mixed, rtol=0, atol=1e-5)
    weight = (log_q - found.drawn).exp()
    assert weight.max() <= 1 / (1 - alpha) + 1e-6
    assert weight.max() > 1.1
    alone = write([student, teacher], prompts(), numbers(1), shares=(1.0, 0.0))
    assert torch.equal(alone.blocks, write([student], prompts(), numbers(1)).blocks)
    assert torch.equal(alone.by_writer[0], alone.drawn)
    q, p = (log_probabilities(m(alone.blocks[:, :-1]))[:, PROMPT - 1 :] for m in (student, teacher))
    torch.testing.assert_close(alone.reverse_kl, (q.exp() * (q - p)).sum(-1), rtol=0, atol=1e-5)


def test_evenly_spread_numbers_draw_every_token_as_often_as_it_is_likely() -> None:
    p = torch.tensor([0.0, 0.25, 0.5, 0.0, 0.25, 0.0], dtype=torch.float64)
    u = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    found = inverse(p.log().expand(400, -1), u)
    assert torch.bincount(found, minlength=6).tolist() == [0, 100, 200, 0, 100, 0]
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert inverse(p.log().expand(2, -1), ends).tolist() == [1, 4]  # never what cannot be
