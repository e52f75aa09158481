"""Teachers that are language models or lean on one: counts beside a public model, contexts of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import InputError
from sweeps.model.compiling.compiled import uncompiled
from sweeps.model.device import device
from sweeps.model.language_model import LanguageModel, logits_of
from sweeps.model.log_probs import log_probabilities
from sweeps.pate.ensemble import DenseEnsemble, Ensemble, Floats
from sweeps.pate.shards import ShardCounts, shard_length
from sweeps.pate.tuning import PublicPosition


class Reader:
    """Language model that reads sequences token by token, with a cache."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.body = cast("Any", uncompiled(model).model)
        self.cache = self.body.empty_cache()

    @torch.no_grad()
    def read(self, tokens: Tensor, temperature: float = 1.0) -> Floats:
        """Read ``tokens`` ``(sequences, time)``; return distributions after the last, ``(sequences, vocab)``.

        Raises:
            InputError: If they are not all finite numbers.
        """
        features = self.body(tokens.to(device()), self.cache)[:, -1]
        log_p = log_probabilities(logits_of(self.model, features).double(), temperature)
        if log_p.isnan().any():
            raise nonfinite_model_error()
        return log_p.exp().cpu().numpy()


class CountsAlong:
    """Teachers of counts that read along with their public model."""

    def __init__(self, model: LanguageModel, counts: ShardCounts, prior: float, temperature: float) -> None:
        self.reader, self.counts = Reader(model), counts
        self.prior, self.temperature = prior, temperature
        self.tokens: list[NDArray[np.int64]] = []

    def read(self, tokens: NDArray[np.int64]) -> tuple[Callable[[int], Ensemble], Floats]:
        """Read one more token of each sequence; see :class:`~sweeps.pate.generator.TeachersAlong`."""
        self.tokens = [*self.tokens, tokens.copy()][1 - self.counts.order :]
        public = self.reader.read(torch.from_numpy(tokens)[:, None])

        def ensemble(sequence: int) -> Ensemble:
            prefix = [int(each[sequence]) for each in self.tokens]
            return self.counts.at(prefix, public[sequence], self.prior, self.temperature)

        return ensemble, public


class ContextsAlong:
    """One model as many teachers: each has a piece of its shard before the text, the public one has none."""

    def __init__(
        self, model: LanguageModel, contexts: NDArray[np.int64], sequences: int, temperature: float
    ) -> None:
        self.teachers, self.temperature = len(contexts), temperature
        self.private, self.public = Reader(model), Reader(model)
        self.contexts: Tensor | None = torch.from_numpy(contexts).repeat(sequences, 1)

    def read(self, tokens: NDArray[np.int64]) -> tuple[Callable[[int], Ensemble], Floats]:
        """Read one more token of each sequence; see :class:`~sweeps.pate.generator.TeachersAlong`."""
        new = torch.from_numpy(tokens)[:, None]
        public = self.public.read(new)
        rows = new.repeat_interleave(self.teachers, 0)
        if self.contexts is not None:
            rows, self.contexts = torch.cat([self.contexts, rows], 1), None
        p = self.private.read(rows, self.temperature).reshape(len(tokens), self.teachers, -1)
        return lambda sequence: DenseEnsemble(p[sequence]), public


def shard_contexts(text: NDArray[np.integer], teachers: int, length: int) -> NDArray[np.int64]:
    """Return the first ``length`` tokens of each of ``teachers`` shards of equal length.

    Raises:
        InputError: If there is one shard or none, or shards are shorter than that.
    """
    each = shard_length(len(text), teachers, length, "contexts")
    return np.asarray(text[: teachers * each], np.int64).reshape(teachers, each)[:, :length].copy()


@torch.no_grad()
def positions_beside_counts(
    model: LanguageModel, counts: ShardCounts, blocks: NDArray[np.int64], prior: float, temperature: float
) -> Iterator[PublicPosition]:
    """Yield the places of ``blocks`` ``(blocks, length + 1)``, with teachers of counts."""
    for block in blocks:
        public = _distributions(model, torch.from_numpy(block[None, :-1]), 1.0)[0]
        for at, p in enumerate(public):
            ensemble = counts.at(block[: at + 1], p, prior, temperature)
            yield PublicPosition(ensemble, int(block[at]), int(block[at + 1]), p)


@torch.no_grad()
def positions_beside_contexts(
    model: LanguageModel, contexts: NDArray[np.int64], blocks: NDArray[np.int64], temperature: float
) -> Iterator[PublicPosition]:
    """Yield the places of ``blocks`` ``(blocks, length + 1)``, with a teacher for each context."""
    for block in blocks:
        rows = np.concatenate([contexts, np.tile(block[:-1], (len(contexts), 1))], 1)
        p = _distributions(model, torch.from_numpy(rows), temperature)[:, contexts.shape[1] :]
        public = _distributions(model, torch.from_numpy(block[None, :-1]), 1.0)[0]
        for at, token in enumerate(block[1:]):
            yield PublicPosition(DenseEnsemble(p[:, at]), int(block[at]), int(token), public[at])


def mean_log_p(model: LanguageModel, counts: ShardCounts, prior: float, inputs: Tensor) -> Tensor:
    """Return log-probabilities of the mean of teachers of counts after ``inputs`` ``(batch, time)``.

    Returns:
        ``(batch, time, vocab)``.
    """
    p = _distributions(model, inputs, 1.0)
    weights, adds = counts.mean_parts(prior)
    codes = inputs.cpu().numpy()
    if counts.order == 3:
        before = np.full_like(codes, -1)
        before[:, 1:] = codes[:, :-1]
        codes = np.where(before < 0, -1, before * counts.vocab + codes)
    for code in np.unique(codes):
        at = int(np.searchsorted(counts.contexts, code))
        if at == len(counts.contexts) or counts.contexts[at] != code:
            continue
        entries = slice(counts.entry_ends[at], counts.entry_ends[at + 1])
        own = np.bincount(counts.tokens[entries], adds[entries], minlength=counts.vocab)
        here = codes == code
        p[here] = weights[at] * p[here] + own
    return torch.from_numpy(np.log(p)).float().to(inputs.device)


def _distributions(model: LanguageModel, inputs: Tensor, temperature: float) -> NDArray[np.float64]:
    """Return the model's distributions after each token of ``inputs``, ``(batch, time, vocab)``."""
    features = uncompiled(model).model(inputs.to(device()))
    log_p = log_probabilities(logits_of(model, features).double(), temperature)
    if log_p.isnan().any():
        raise nonfinite_model_error()
    return log_p.exp().cpu().numpy()


def nonfinite_model_error() -> InputError:
    """Return the error for a public model whose outputs are not all finite."""
    return InputError("the public model: its outputs are not all finite numbers; choose another")
