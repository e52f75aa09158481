"""Formats of a teacher's distributions on disk: in full, or as few tokens of each.

Log-probabilities are kept in half precision, and normalised again when they are read. Rounding then costs
least where the probability is: at most 2^-11 of log p, hence 2^-11 p |log p| < 2e-4 of a probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweeps.distill.caches.shard_layout import ShardLayout
from sweeps.distill.caches.sparse_formats import CompactTop, Sampled, halved, missing_mass
from sweeps.distill.divergences import with_rest
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.run_views import ShardFormat

if TYPE_CHECKING:
    from sweeps.spec.method.method import Method

FLOOR = float(np.finfo(np.float16).min)
"""Lowest log-probability that is kept; excluded tokens, log p = -inf, stay excluded."""
DRAWS = 0x5A3D
"""Seed beside those of data and block: the draws are no other part's."""


@dataclass(frozen=True, slots=True)
class Full:
    """Every token's log-probability: two bytes each."""

    vocab: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype([("log_p", "<f2", self.vocab)])

    def pack(self, log_p: Tensor) -> NDArray[np.void]:
        """Return what is written of ``log_p`` ``(tokens, vocab)``: ``(tokens,)`` of :attr:`dtype`."""
        packed = np.empty(len(log_p), self.dtype)
        packed["log_p"] = _halved(log_p)
        return packed

    def rows(self, packed: NDArray[np.void]) -> Tensor:
        return torch.from_numpy(packed["log_p"])

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        return log_probabilities(rows.float(), temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        return log_q


@dataclass(frozen=True, slots=True)
class TopK:
    """The likeliest tokens and one outcome more, "any other": at V = 512 and 32 of them, 130 bytes for 1,024.

    Teacher and student are compared on these outcomes. Every divergence here is then at most what it is on
    the whole vocabulary, and nothing teaches the student to tell the tail's tokens apart. That shifts its
    loss, and so the law that is fitted to such losses. Students of 13k and 22k parameters on the King James
    Bible end 0.07 and 0.06 nats/token higher with 32 tokens of 512, 0.45 and 0.42 with 8; under reverse KL,
    which is lost in the teacher's likeliest tokens, 0.29 lower (benchmarks/cached_logits.py, four seeds,
    standard errors 0.004 to 0.016, and 0.08). Kept in full, they end where they do with the teacher online:
    within 1e-4, under reverse KL within 0.005 +- 0.004.
    """

    vocab: int
    top: int

    @property
    def dtype(self) -> np.dtype:
        token = "<u2" if self.vocab <= 2**16 else "<u4"
        return np.dtype([("log_p", "<f2", self.top + 1), ("tokens", token, self.top)])

    def pack(self, log_p: Tensor) -> NDArray[np.void]:
        tokens = log_p.topk(self.top).indices
        return self._packed(tokens, *with_rest(log_p, tokens))

    def pack_sparse(self, tokens: Tensor, found: Tensor) -> NDArray[np.void]:
        """Return what is kept of the likeliest tokens and their log-probabilities, ``(tokens, top)`` each."""
        return self._packed(tokens, found, missing_mass(found))

    def _packed(self, tokens: Tensor, found: Tensor, rest: Tensor) -> NDArray[np.void]:
        packed = np.empty(len(tokens), self.dtype)
        packed["log_p"] = _halved(torch.cat([found, rest], -1))
        packed["tokens"] = tokens.cpu().numpy()
        return packed

    def rows(self, packed: NDArray[np.void]) -> Tensor:
        """Log-probabilities, then tokens, side by side; float32 holds every token below 2^24."""
        both = [packed["log_p"].astype(np.float32), packed["tokens"].astype(np.float32)]
        return torch.from_numpy(np.concatenate(both, axis=-1))

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        assert temperature == 1, "the tail is one outcome, whose share at another temperature is unknown"
        return log_probabilities(rows[:, : self.top + 1])

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        return torch.cat(with_rest(log_q, rows[:, self.top + 1 :].long()), -1)


DistributionFormat: TypeAlias = Full | TopK | CompactTop | Sampled
"""Formats of distributions over the vocabulary."""


def kept(method: Method, vocab: int) -> ShardFormat:
    """Return how the target of ``method`` is kept on disk."""
    own = parts_of(method).target.storage(method, vocab)
    return own or distribution_format(method, vocab)


def distribution_format(method: Method, vocab: int) -> DistributionFormat:
    """Return how distributions over the vocabulary are kept, as the ``logits`` of ``method`` say."""
    bits = method.probability_bits
    if method.logits == "sampled":
        return Sampled(vocab, method.draws, method.proposal_power)
    if method.logits == "top-p":
        return CompactTop(vocab, method.top, method.top_p, bits or 16)
    if method.logits == "top-k":
        return CompactTop(vocab, method.top, bits=bits) if bits else TopK(vocab, method.top)
    return Full(vocab)


def packed_distributions(
    how: DistributionFormat, log_p: Tensor, seed: int, numbers: Sequence[int]
) -> NDArray[np.void]:
    """Return what is kept of ``log_p`` ``(blocks * context, vocab)``, packed: ``(blocks * context,)``.

    Tokens are drawn by numbers that depend on the seed of the data's order and the number of the block alone,
    so that a block written again is the same.
    """
    if not isinstance(how, Sampled):
        return how.pack(log_p)
    context = len(log_p) // len(numbers)
    draws = [np.random.default_rng((DRAWS, seed, number)).random((context, how.draws)) for number in numbers]
    return how.pack(log_p, torch.from_numpy(np.concatenate(draws)))


def stored_bytes_per_token(how: ShardFormat, context: int) -> float:
    """Return the bytes on disk of a token; of compact formats the most, before they are compressed."""
    return ShardLayout(how, context).block_bytes / context


def _halved(log_p: Tensor) -> NDArray[np.float16]:
    return halved(log_p, FLOOR)
