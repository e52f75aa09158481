"""Datastore of kNN distillation: which tokens followed where the teacher's features were like these.

The datastore of kNN distillation (Yang et al. 2022), which is DNKD's only teacher (Zhang et al. 2023, arXiv
2304.10295): for each of some tokens of the training text a key, the teacher's features there, and as value
the token that came next. Search is exact, and a token does not find itself: it would vote for its own label,
and the student would follow the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache as once

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import InputError
from sweeps.data.batches import Batches
from sweeps.distill.caches.shard_cache import Numbers
from sweeps.distill.targets import nonfinite_teacher_error
from sweeps.model.device import device
from sweeps.model.language_model import LanguageModel
from sweeps.model.log_probs import at_least_float32
from sweeps.spec.method.method_options import Neighbours

BLOCKS_AT_ONCE, DISTANCES_AT_ONCE = 16, 2**23
"""Blocks of a stream that are read, and distances that are held, at most, at a time."""
PROBED = 1024
"""Keys whose neighbours say how far apart keys are."""
TINY = 1e-30
"""The least unit of distances, for features that are all the same."""


def neighbor_log_probs(distances: Tensor, tokens: Tensor, vocab: int, temperature: float = 1.0) -> Tensor:
    """Return log P with P(v) the sum of softmax(-distance / temperature) over neighbours whose token is v.

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
    """Neighbors on disk: squared distances and tokens."""

    vocab: int
    rules: Neighbours

    @property
    def dtype(self) -> np.dtype:
        """Layout of one token on disk."""
        token, count = "<u2" if self.vocab <= 2**16 else "<u4", self.rules.count
        return np.dtype([("distances", "<f4", count), ("tokens", token, count)])

    def pack(self, distances: Tensor, tokens: Tensor) -> NDArray[np.void]:
        """Return what is written of neighbours, ``(rows, count)`` each: ``(rows,)`` of :attr:`dtype`."""
        packed = np.empty(len(distances), self.dtype)
        packed["distances"], packed["tokens"] = distances.cpu().numpy(), tokens.cpu().numpy()
        return packed

    def rows(self, packed: NDArray[np.void]) -> Tensor:
        """Return distances, then tokens, side by side; float32 holds every token below 2^24."""
        both = [packed["distances"], packed["tokens"].astype(np.float32)]
        return torch.from_numpy(np.concatenate(both, axis=-1))

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities, ``(rows, vocab)``."""
        assert temperature == 1, "votes are softened by the temperature of distances"
        distances, tokens = rows.split(self.rules.count, -1)
        return neighbor_log_probs(distances, tokens.long(), self.vocab, self.rules.temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Return ``log_q``: every token is an outcome."""
        return log_q


@dataclass(frozen=True, slots=True)
class Datastore:
    """Features of some tokens of a stream, and what came next."""

    keys: Tensor
    """``(size, width)``, in float32."""
    values: Tensor
    """Tokens, ``(size,)``."""
    places: Tensor
    """Positions of the keys in the stream, ``(size,)``."""
    scale: float = 1.0
    """The unit of distances."""

    @classmethod
    def of(cls, teacher: LanguageModel, data: Batches, rules: Neighbours) -> Datastore:
        """Build the datastore of the first blocks of ``data``, the same for runs of every length.

        Its distances are in medians of that of the farthest neighbour.

        Raises:
            InputError: if the text has no more tokens than neighbours are asked for.
        """
        blocks = min(int(rules.keys) // data.context, data.blocks)
        if blocks * data.context <= rules.count:
            raise InputError(
                f"neighbours.count: {rules.count} neighbours are asked of a datastore of "
                f"{blocks * data.context} tokens; ask for fewer, or give more text"
            )
        read = list(_read(teacher, data, data.numbers_of(range(blocks))))
        keys, values, places = (torch.cat(each) for each in zip(*read, strict=True))
        found = cls(keys, values, places)
        distances, _ = found.nearest(found.keys[:PROBED], found.places[:PROBED], rules)
        return replace(found, scale=max(float(distances[:, -1].median()), TINY))

    def nearest(self, features: Tensor, places: Tensor, rules: Neighbours) -> tuple[Tensor, Tensor]:
        """Return squared distances and tokens of the neighbors of ``features`` ``(rows, width)``.

        The nearest come first; ``places`` ``(rows,)`` are those of the features in the stream.
        """
        found: list[Tensor] = []
        lengths = self.keys.square().sum(-1)
        size = max(1, DISTANCES_AT_ONCE // len(self.keys))
        for some, here in zip(features.split(size), places.split(size), strict=True):
            ranks = lengths - 2 * some @ self.keys.T
            if not rules.itself:
                ranks.masked_fill_(here[:, None] == self.places, torch.inf)
            found.append(ranks.topk(rules.count, largest=False).indices)
        near = torch.cat(found)
        distances = [
            (some[:, None] - self.keys[which]).square().sum(-1)
            for some, which in zip(features.split(size), near.split(size), strict=True)
        ]
        return torch.cat(distances) / self.scale, self.values[near]


def retriever(
    teacher: Callable[[], LanguageModel], data: Batches, storage: Nearest
) -> Callable[[Numbers], NDArray[np.void]]:
    """Return the function from blocks of ``data`` to their neighbors; the datastore is made when it is used.

    Raises:
        InputError: when used, if the teacher's features are not all finite.
    """
    datastore = once(lambda: Datastore.of(teacher(), data, storage.rules))

    def retrieve(numbers: Numbers) -> NDArray[np.void]:
        return retrieved(teacher(), datastore(), data, numbers, storage)

    return retrieve


def retrieved(
    teacher: LanguageModel, store: Datastore, data: Batches, numbers: Numbers, how: Nearest
) -> NDArray[np.void]:
    """Return the neighbours of the given blocks of ``data``, packed: ``(blocks, context)``.

    Raises:
        InputError: if the teacher's features are not all finite.
    """
    packed = []
    for features, _, places in _read(teacher, data, torch.from_numpy(numbers)):
        if not features.isfinite().all():
            raise nonfinite_teacher_error()
        distances, tokens = store.nearest(features, places, how.rules)
        packed.append(how.pack(distances, tokens))
    return np.concatenate(packed).reshape(len(numbers), data.context)


@torch.no_grad()
def _read(teacher: LanguageModel, data: Batches, numbers: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield features, next tokens and places of the given blocks, some at a time."""
    for some in numbers.split(BLOCKS_AT_ONCE):
        blocks = data.read(some).to(device())
        places = some[:, None] * data.context + torch.arange(data.context)
        features = at_least_float32(teacher.model(blocks[:, :-1]).flatten(0, 1))
        yield features, blocks[:, 1:].flatten(), places.flatten().to(device())
