"""Generation of text: token by token after a prompt, every token read once.

What is written is a function of the models, the prompts and numbers drawn beforehand, so that nothing but
those needs saving. Tokens are drawn from whole distributions: leaving out the unlikely (top-k, top-p) would
bias every expectation over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweeps.distill.divergences import reverse_kl
from sweeps.model.compiling.compiled import uncompiled
from sweeps.model.language_model import LanguageModel, logits_of
from sweeps.model.log_probs import log_probabilities


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """Sequences that models wrote, with the log-probabilities of their tokens."""

    blocks: Tensor
    """Prompts and what was written after them, ``(batch, prompt + written)``."""
    by_writer: Tensor
    """Log-probability of each drawn token under each writer, ``(writers, batch, written)``."""
    drawn: Tensor
    """Log-probabilities under the mixture that tokens were drawn from, ``(batch, written)``."""
    reverse_kl: Tensor
    """KL(first || last) of the writers' whole distributions there, ``(batch, written)``."""


@torch.no_grad()
def write(
    writers: Sequence[LanguageModel],
    prompts: Tensor,
    numbers: Tensor,
    *,
    shares: Sequence[float] = (1.0,),
    temperature: float = 1.0,
) -> GeneratedText:
    """Continue ``prompts`` ``(batch, prompt)``, each token drawn from a mixture of the ``writers``.

    Args:
        writers: models of one vocabulary.
        prompts: token ids.
        numbers: uniform in [0, 1), ``(batch, written)``: which token is drawn, by the inverse of the
            cumulative distribution. As many are written.
        shares: of each writer in the mixture, their sum one.
        temperature: of every writer.
    """
    bodies = [_body(writer) for writer in writers]
    caches = [body.empty_cache() for body in bodies]
    weights = torch.tensor(shares, dtype=torch.float64).log().to(prompts.device)[:, None, None]
    tokens, new = [prompts], prompts
    by_writer, drawn, apart = [], [], []
    for u in numbers.to(prompts.device).unbind(1):
        each = [
            log_probabilities(logits_of(writer, body(new, read)[:, -1]), temperature).double()
            for writer, body, read in zip(writers, bodies, caches, strict=True)
        ]
        mixed = each[0] if len(each) == 1 else (torch.stack(each) + weights).logsumexp(0)
        new = inverse(mixed, u)[:, None]
        tokens.append(new)
        by_writer.append(torch.cat([log_p.gather(-1, new) for log_p in each], -1))
        drawn.append(mixed.gather(-1, new))
        apart.append(reverse_kl(each[-1], each[0]) if len(each) > 1 else torch.zeros_like(u))
    return GeneratedText(
        torch.cat(tokens, 1),
        torch.stack(by_writer).permute(2, 1, 0).float(),
        torch.cat(drawn, 1).float(),
        torch.stack(apart, 1).float(),
    )


def inverse(log_p: Tensor, u: Tensor) -> Tensor:
    """Return the outcome at ``u`` ``(batch,)`` of the cumulative distribution: ``(batch,)``."""
    cumulative = log_p.double().exp().cumsum(-1)
    at = (u[:, None] * cumulative[:, -1:]).contiguous()
    return torch.searchsorted(cumulative, at, right=True).squeeze(-1).clamp(max=log_p.shape[-1] - 1)


def uniform_numbers(batch: int, length: int, *seed: int) -> Tensor:
    """Return uniform numbers ``(batch, length)``: a function of ``seed``, the same on every device."""
    return torch.from_numpy(np.random.default_rng(seed).random((batch, length)))


def _body(writer: LanguageModel) -> Any:
    """Return the module that computes features with a cache; a compiled one has none."""
    return uncompiled(writer).model
