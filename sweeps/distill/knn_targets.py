"""Neighbours and how they vote: the distribution that a datastore gives in a teacher's stead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweeps.model.log_probs import at_least_float32
from sweeps.spec.method_options import Neighbours


def votes(distances: Tensor, tokens: Tensor, vocab: int, temperature: float = 1.0) -> Tensor:
    """log P with P(v) the sum of softmax(-distance / temperature) over neighbours whose token is v.

    Args:
        distances: squared, ``(rows, count)``.
        tokens: of the neighbours, ``(rows, count)``; several may be equal.
        vocab: tokens there are; those of no neighbour get -inf.
        temperature: in the unit of distances.
    """
    shares = (-at_least_float32(distances) / temperature).softmax(-1)
    return shares.new_zeros(len(shares), vocab).scatter_add(-1, tokens, shares).log()


@dataclass(frozen=True, slots=True)
class Nearest:
    """How neighbours are kept: squared distances and tokens; a way to keep distributions like any other."""

    vocab: int
    rules: Neighbours

    @property
    def dtype(self) -> np.dtype:
        """Of one token on disk."""
        token, count = "<u2" if self.vocab <= 2**16 else "<u4", self.rules.count
        return np.dtype([("distances", "<f4", count), ("tokens", token, count)])

    def pack(self, distances: Tensor, tokens: Tensor) -> NDArray[np.void]:
        """What is written of neighbours, ``(rows, count)`` each: ``(rows,)`` of :attr:`dtype`."""
        packed = np.empty(len(distances), self.dtype)
        packed["distances"], packed["tokens"] = distances.cpu().numpy(), tokens.cpu().numpy()
        return packed

    def rows(self, packed: NDArray[np.void]) -> Tensor:
        """Distances, then tokens, side by side; float32 holds every token below 2^24."""
        both = [packed["distances"], packed["tokens"].astype(np.float32)]
        return torch.from_numpy(np.concatenate(both, axis=-1))

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Their votes, ``(rows, vocab)``."""
        assert temperature == 1, "votes are softened by the temperature of distances"
        distances, tokens = rows.split(self.rules.count, -1)
        return votes(distances, tokens.long(), self.vocab, self.rules.temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Every token is one."""
        return log_q
