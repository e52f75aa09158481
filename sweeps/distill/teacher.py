"""The target that a step follows, ready: read online, or from what its teacher wrote down before."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as once

import numpy as np
import torch
from numpy.typing import NDArray

from sweeps.dag.expand import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.batches import Batches
from sweeps.distill.caches.logit_format import DistributionFormat, kept, packed_distributions
from sweeps.distill.caches.shard_cache import ALONE, Numbers, ShardCache, Writer, Wrote
from sweeps.distill.caches.sparse_formats import CompactFormat
from sweeps.distill.models import Models
from sweeps.distill.served_teacher import blocks_of_shard, served_writer
from sweeps.distill.targets import Cached, nonfinite_teacher_error, opened
from sweeps.model.device import device
from sweeps.model.distributed import ONE_PROCESS, World
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.run_views import ShardFormat, TargetReader
from sweeps.store.store import Store

BLOCKS_AT_ONCE, LOGITS_AT_ONCE = 16, 2**23
"""Blocks of a stream, and elements of their logits (32 MB), that a teacher writes down at a time, at most."""


def target_of(store: Store, step: Step, corpus: TokenizedCorpus, models: Models) -> TargetReader | None:
    """Return what ``step`` follows, ready; None for a step that asks no teacher."""
    if step.method and not step.method.reads_teacher:
        return None
    if step.logits:
        return cached(store, step.logits, corpus)
    return followed(step, models) if step.teacher else None


def followed(step: Step, models: Models) -> TargetReader:
    """Return what the models of ``step`` say: its method's target, or without a method its teacher."""
    return opened(parts_of(step.method).target, models) if step.method else models.online_teacher


def cached(
    store: Store,
    cache: Step,
    corpus: TokenizedCorpus,
    wrote: Wrote | None = None,
    writer: Writer = ALONE,
) -> Cached:
    """Return what the teacher of ``cache`` wrote down; what of it is missing or damaged is written first.

    Raises:
        InputError: if there is no room for it, or the teacher's outputs are not all finite.
    """
    assert cache.method is not None
    storage, data, models = (
        kept(cache.method, cache.shape.vocab),
        stream_of(cache, corpus),
        Models(store, cache, world=writer.together),
    )
    own = served_writer(cache, corpus, data, storage) or parts_of(cache.method).target.writer(
        models, data, storage
    )
    world = writer.together or ONE_PROCESS
    teach = own or _distributions_of(once(lambda: followed(cache, models)), data, storage, world)
    numbers = data.seen(cache.steps)
    if isinstance(storage, CompactFormat):  # in the order in which they are read first
        numbers = data.numbers_of(range(len(numbers))).numpy()
    served = cache.teacher is not None and cache.teacher.served
    most = blocks_of_shard(len(numbers)) if served else None
    shards = ShardCache(store, cache.id, storage, data.context, numbers, writer=writer, most_blocks=most)
    return Cached(storage, shards.ready(teach, wrote))


def _distributions_of(
    target: Callable[[], TargetReader], data: Batches, storage: ShardFormat, world: World
) -> Callable[[Numbers], NDArray[np.void]]:
    def teach(numbers: Numbers) -> NDArray[np.void]:
        assert isinstance(storage, DistributionFormat)
        return distributions(target(), data, numbers, storage, world)

    return teach


def stream_of(step: Step, corpus: TokenizedCorpus) -> Batches:
    """Return the blocks of the data that ``step`` is about, in their order."""
    context = step.shape.context
    return Batches(
        corpus.train_tokens_of(step.half),
        context=context,
        batch=round(step.training.batch_tokens / context),
        seed=step.data_seed,
    )


def distributions(
    teacher: TargetReader,
    data: Batches,
    numbers: Numbers,
    how: DistributionFormat,
    world: World = ONE_PROCESS,
) -> NDArray[np.void]:
    """Return what ``teacher`` says about the given blocks of ``data``, to be kept: ``(blocks, context)``.

    Processes of ``world``, over which it is sharded, ask it about as many blocks at the same time.

    Raises:
        InputError: in all processes, if its outputs are not all finite in one.
    """
    size = max(1, min(BLOCKS_AT_ONCE, LOGITS_AT_ONCE // how.vocab // data.context))
    packed = []
    for some in torch.from_numpy(numbers).split(size):
        rows = teacher.rows(data.read(some)[:, :-1].to(device()), some)
        log_p = teacher.log_probabilities(rows, 1.0)
        if world.any(bool(log_p.isnan().any())):
            raise nonfinite_teacher_error()
        packed.append(packed_distributions(how, log_p, data.seed, some.tolist()))
    return np.concatenate(packed).reshape(len(numbers), data.context)
