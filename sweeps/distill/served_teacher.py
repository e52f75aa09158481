"""Caches and losses of teachers that a server answers for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import InputError
from sweeps.dag.step import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.batches import Batches, heldout_batches
from sweeps.data.tokenizer import ExternalTokenizer
from sweeps.distill.caches.logit_format import TopK
from sweeps.distill.caches.shard_cache import Numbers
from sweeps.distill.caches.sparse_formats import CompactTop
from sweeps.model.heldout import HeldoutLoss, loss_of_blocks
from sweeps.pretrained.served import ScoredBlock, ServedTeacher
from sweeps.spec.run_views import ShardFormat

BLOCKS_AT_ONCE, LOGITS_AT_ONCE = 64, 2**23
"""Blocks that are asked about, and elements of their distributions, at a time, at most."""


def served_teacher(step: Step, corpus: TokenizedCorpus) -> ServedTeacher:
    """Return the served model that ``step`` measures, after a look at its vocabulary.

    Raises:
        InputError: If it has another vocabulary, or its server refuses.
        ServerUnavailableError: If its server does not answer.
    """
    assert step.foreign is not None
    assert step.foreign.served is not None
    teacher = ServedTeacher(step.foreign.served, ExternalTokenizer.read(corpus.tokenizer_files))
    teacher.check_vocabulary()
    return teacher


def served_writer(
    cache: Step, corpus: TokenizedCorpus, data: Batches, storage: ShardFormat
) -> Callable[[Numbers], NDArray[np.void]] | None:
    """Return the function that asks the server of ``cache`` about blocks; None for a teacher that is here."""
    teacher = cache.teacher
    if teacher is None or not teacher.served:
        return None
    if not isinstance(storage, TopK | CompactTop):
        raise InputError("logits: a served teacher writes its likeliest tokens; set logits: top-k")
    found: list[ServedTeacher] = []

    def teach(numbers: Numbers) -> NDArray[np.void]:
        if not found:
            found.append(served_teacher(teacher, corpus))
        size = max(1, min(BLOCKS_AT_ONCE, LOGITS_AT_ONCE // storage.vocab // data.context))
        packed = [
            storage.pack(spread(scored, storage.vocab))
            for some in torch.from_numpy(numbers).split(size)
            for scored in found[0].score(data.read(some).numpy(), storage.top)
        ]
        return np.concatenate(packed).reshape(len(numbers), data.context)

    return teach


def spread(scored: ScoredBlock, vocab: int) -> Tensor:
    """Return log-probabilities ``(context, vocab)`` with the rest spread evenly over all other tokens.

    None of those is then likelier than the least of the likeliest, so a format keeps as many of these.
    """
    log_p, tokens = torch.from_numpy(scored.log_p).double(), torch.from_numpy(scored.tokens)
    rest = (1 - log_p.exp().sum(1, keepdim=True)).clamp(min=0.0) / max(1, vocab - tokens.shape[1])
    whole = rest.log().expand(-1, vocab).clone()
    return whole.scatter_(1, tokens, log_p).float()


def served_loss(step: Step, corpus: TokenizedCorpus) -> tuple[HeldoutLoss, dict[str, Any]]:
    """Return the held-out loss of a served model, and what its server says of itself.

    Raises:
        InputError, ServerUnavailableError: As :func:`served_teacher`.
    """
    teacher, context = served_teacher(step, corpus), step.shape.context
    means = np.concatenate(
        [
            [-float(scored.own.mean(dtype=float)) for scored in teacher.score(blocks.numpy(), 1)]
            for blocks in heldout_batches(corpus.heldout, context=context, batch=BLOCKS_AT_ONCE)
        ]
    )
    served = teacher.client.served
    about = {
        "name": served.name,
        "revision": served.revision,
        "server_version": teacher.client.version(),
        "tokenizer_sha256": teacher.tokenizer.sha256,
    }
    parts = [part.heldout_tokens for part in corpus.parts]
    return loss_of_blocks(means, context=context, parts=parts), {"served": about}
