"""Who teaches a step: its teacher itself, or what that wrote down before."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache as once
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.batches import Batches
from sweeps.compiled import CompiledTrunk
from sweeps.corpora import TokenisedCorpus
from sweeps.device import device
from sweeps.logit_cache import LogitCache, Numbers, Wrote
from sweeps.logits import Kept, kept
from sweeps.model import PRECISIONS, Decoder
from sweeps.model_files import load_model
from sweeps.steps import Step
from sweeps.store import Store
from sweeps.targets import Cached, Online, Target

if TYPE_CHECKING:
    from sweeps.foreign.load import Foreign

BLOCKS_AT_ONCE, LOGITS_AT_ONCE = 16, 2**23
"""Of a stream, and elements of its logits (32 MB), at most, that a teacher writes down at a time."""


def target_of(store: Store, step: Step, corpus: TokenisedCorpus, stack: ExitStack) -> Target | None:
    """What ``step`` follows, ready; None for a step without a teacher."""
    if step.logits:
        return cached(store, step.logits, corpus)
    return online(store, step.teacher, stack) if step.teacher else None


def online(store: Store, teacher: Step, stack: ExitStack) -> Online:
    """The model that ``teacher`` trained, or measured."""
    if teacher.foreign:
        model = load_foreign(teacher)
    else:
        folder = stack.enter_context(store.model(teacher.id))
        trained = store.result(teacher.id) or {}
        model = load_model(folder, teacher.shape, trained.get("weights_sha256", "")).to(device())
    if not isinstance(model, Decoder):
        return Online(model)
    model.precision = PRECISIONS[teacher.training.precision]
    return Online(CompiledTrunk(model) if teacher.training.compile else model)


def load_foreign(step: Step) -> Decoder | Foreign:
    """The model that ``step`` measures, on this machine's device.

    Raises:
        InputError: if it has changed since the sweep was planned, or cannot teach.
    """
    from sweeps.foreign.load import load

    assert step.foreign is not None
    place = step.foreign.place
    if place.fingerprint != step.foreign.fingerprint:
        raise InputError(f"teacher: {place.model} has changed since this sweep was planned; start it again")
    return load(place.folder(), step.shape.vocab, f"teacher {place.model}").to(device())


def cached(store: Store, cache: Step, corpus: TokenisedCorpus, wrote: Wrote | None = None) -> Cached:
    """What the teacher of ``cache`` says, written down; what of it is missing or damaged is written first.

    Raises:
        InputError: if there is no room for it, or the teacher's outputs are not all finite.
    """
    assert cache.teacher is not None
    assert cache.method is not None
    how, context = kept(cache.method, cache.shape.vocab), cache.shape.context
    data = Batches(
        corpus.train_tokens_of(cache.half),
        context=context,
        batch=round(cache.training.batch_tokens / context),
        seed=cache.data_seed,
    )
    numbers = data.seen(cache.steps)
    with ExitStack() as stack:
        teacher = once(lambda step: online(store, step, stack))
        logits = LogitCache(store, cache.id, how, context, numbers).ready(
            lambda some: distributions(teacher(cache.teacher), data, some, how), wrote
        )
    return Cached(how, logits)


def distributions(teacher: Target, data: Batches, numbers: Numbers, how: Kept) -> NDArray[np.void]:
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
            raise InputError("the teacher: its outputs are not all finite numbers; distil from another")
        packed.append(how.pack(log_p))
    return np.concatenate(packed).reshape(len(numbers), data.context)
