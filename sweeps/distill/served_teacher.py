"""Caches and losses of teachers that a server answers for, written shard by shard as it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.dag.step import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.batches import Batches, take_blocks
from sweeps.data.tokenizer import ExternalTokenizer
from sweeps.distill.caches.logit_format import TopK
from sweeps.distill.caches.shard_cache import Numbers, ShardCache, Writer, Wrote
from sweeps.distill.caches.sparse_formats import CompactTop
from sweeps.model.heldout import HeldoutLoss, loss_of_blocks
from sweeps.pretrained.served import CONCURRENT, ServedTeacher
from sweeps.spec.method.run_views import ShardFormat
from sweeps.store.store import Store

SHARDS = 256
"""Shards of what a server answers, at least: as much may be lost with a writer as one of them."""


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """Log-probability of each token of a text, as it was scored."""

    @property
    def dtype(self) -> np.dtype:
        """Layout of one token."""
        return np.dtype([("log_p", "<f4")])


def blocks_of_shard(blocks: int) -> int:
    """Return the blocks of a shard, at most, where a server is asked about so many; it stays busy on one."""
    return max(4 * CONCURRENT, -(-blocks // SHARDS))


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
        blocks = data.read(torch.from_numpy(numbers)).numpy()
        packed = [
            storage.pack_sparse(torch.from_numpy(each.tokens), torch.from_numpy(each.log_p))
            for each in found[0].score(blocks, storage.top)
        ]
        return np.stack(packed)

    return teach


def served_loss(
    store: Store, step: Step, corpus: TokenizedCorpus, wrote: Wrote | None = None
) -> tuple[HeldoutLoss, dict[str, Any]]:
    """Return the held-out loss of a served model, and what its server says of itself.

    What the server has answered is kept in the store, so that another attempt goes on there.

    Raises:
        InputError, ServerUnavailableError: As :func:`served_teacher`.
    """
    teacher, context, how = served_teacher(step, corpus), step.shape.context, OwnTokens()
    numbers = np.arange((len(corpus.heldout) - 1) // context)

    def teach(numbers: Numbers) -> NDArray[np.void]:
        blocks = take_blocks(corpus.heldout, numbers.tolist(), context).numpy()
        return np.stack([each.own for each in teacher.score(blocks, 1)]).view(how.dtype)

    shards = ShardCache(
        *(store, step.id, how, context, numbers, "scores", Writer(holds_step=True)),
        most_blocks=blocks_of_shard(len(numbers)),
    ).ready(teach, wrote)
    means = -shards.of(numbers)["log_p"].mean(1, dtype=float)
    served = teacher.client.served
    about = {
        "name": served.name,
        "revision": served.revision,
        "server_version": teacher.client.version(),
        "tokenizer_sha256": teacher.tokenizer.sha256,
        "tokens_per_second": teacher.tokens_per_second,
    }
    parts = [part.heldout_tokens for part in corpus.parts]
    return loss_of_blocks(means, context=context, parts=parts), {"served": about}
