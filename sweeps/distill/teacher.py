"""Who teaches a step: its teacher itself, or what that wrote down before."""

from __future__ import annotations

from functools import cache as once
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.batches import Batches
from sweeps.distill.delta import Shifted
from sweeps.distill.knn import Datastore, retrieved
from sweeps.distill.knn_targets import Nearest
from sweeps.distill.logit_format import Full, TopK, kept
from sweeps.distill.shard_cache import LogitCache, Numbers, Wrote
from sweeps.distill.targets import Cached, Online, Target, no_numbers
from sweeps.model.chunked_loss import logits_fit
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.device import device
from sweeps.model.frozen import FrozenBody
from sweeps.model.model_files import load_model
from sweeps.store.store import Store

if TYPE_CHECKING:
    from sweeps.pretrained.load import Foreign

BLOCKS_AT_ONCE, LOGITS_AT_ONCE = 16, 2**23
"""Of a stream, and elements of its logits (32 MB), at most, that a teacher writes down at a time."""


def target_of(store: Store, step: Step, corpus: TokenizedCorpus) -> Target | None:
    """What ``step`` follows, ready; None for a step that asks no teacher."""
    if step.method and not step.method.reads_teacher:
        return None
    if step.logits:
        return cached(store, step.logits, corpus)
    return followed(store, step) if step.teacher else None


def followed(store: Store, step: Step) -> Target:
    """What the models of ``step`` say: its teacher, or the student's base moved as that was tuned."""
    assert step.teacher is not None
    teacher = online(store, step.teacher)
    if step.method is None or step.method.delta is None:
        return teacher
    assert step.init is not None
    assert step.teacher.init is not None
    student_base, teacher_base = (online(store, base).teacher for base in (step.init, step.teacher.init))
    return Shifted(student_base, teacher_base, teacher.teacher, step.method.delta, teacher.said)


def online(store: Store, teacher: Step) -> Online:
    """The model that ``teacher`` trained, or measured."""
    model = load_foreign(teacher) if teacher.foreign else trained(store, teacher).to(device())
    said = logits_fit(round(teacher.training.batch_tokens), teacher.shape.vocab)
    if not isinstance(model, Decoder):
        return Online(model, said)
    model.precision = PRECISIONS[teacher.precision]
    return Online(FrozenBody(model) if teacher.training.compile else model, said)


def trained(store: Store, step: Step) -> Decoder:
    """The model that ``step`` trained."""
    found = store.result(step.id) or {}
    with store.model(step.id) as folder:
        return load_model(folder, step.shape, found.get("weights_sha256", ""))


def load_foreign(step: Step) -> Decoder | Foreign:
    """The model that ``step`` measures, on this machine's device.

    Raises:
        InputError: if it has changed since the sweep was planned, or cannot teach.
    """
    from sweeps.pretrained.load import load

    assert step.foreign is not None
    place = step.foreign.place
    if place.fingerprint != step.foreign.fingerprint:
        raise InputError(f"teacher: {place.model} has changed since this sweep was planned; start it again")
    where = f"teacher {place.model}"
    return load(place.folder(), step.shape.vocab, where, step.foreign.precision).to(device())


def cached(store: Store, cache: Step, corpus: TokenizedCorpus, wrote: Wrote | None = None) -> Cached:
    """What the teacher of ``cache`` says, written down; what of it is missing or damaged is written first.

    Raises:
        InputError: if there is no room for it, or the teacher's outputs are not all finite.
    """
    of = cache.teacher
    assert of is not None
    assert cache.method is not None
    how, data = kept(cache.method, cache.shape.vocab), stream_of(cache, corpus)
    numbers = data.seen(cache.steps)
    target = once(lambda: followed(store, cache))
    model = once(lambda: online(store, of).teacher)

    @once
    def looked_up() -> Datastore:
        assert isinstance(how, Nearest)
        return Datastore.of(model(), data, how.rules)

    def teach(some: Numbers) -> NDArray[np.void]:
        if isinstance(how, Nearest):
            return retrieved(model(), looked_up(), data, some, how)
        return distributions(target(), data, some, how)

    return Cached(how, LogitCache(store, cache.id, how, data.context, numbers).ready(teach, wrote))


def stream_of(step: Step, corpus: TokenizedCorpus) -> Batches:
    """The blocks that ``step`` is about, in their order."""
    context = step.shape.context
    return Batches(
        corpus.train_tokens_of(step.half),
        context=context,
        batch=round(step.training.batch_tokens / context),
        seed=step.data_seed,
    )


def distributions(teacher: Target, data: Batches, numbers: Numbers, how: TopK | Full) -> NDArray[np.void]:
    """What ``teacher`` says about the given blocks of ``data``, to be kept: ``(blocks, context)``.

    Raises:
        InputError: if its outputs are not all finite.
    """
    size = max(1, min(BLOCKS_AT_ONCE, LOGITS_AT_ONCE // how.vocab // data.context))
    packed = []
    for some in torch.from_numpy(numbers).split(size):
        rows = teacher.rows(data.read(some)[:, :-1].to(device()), some)
        log_p = teacher.log_probabilities(rows, 1.0)
        if log_p.isnan().any():
            raise no_numbers()
        packed.append(how.pack(log_p))
    return np.concatenate(packed).reshape(len(numbers), data.context)
