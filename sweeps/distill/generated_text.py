"""What a teacher writes after the prompts of a token stream: once, for all students that learn from it.

What comes after a prompt depends on the teacher, the prompt and numbers drawn for its block, so that whoever
writes a part that is missing or damaged writes the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache as once

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.batches import Batches
from sweeps.distill.sampling import uniform, write
from sweeps.distill.shard_cache import LogitCache, Logits, Numbers, Wrote
from sweeps.distill.targets import Online, no_numbers
from sweeps.distill.teacher import online, stream_of
from sweeps.model.device import device
from sweeps.store.store import Store

AT_ONCE = 64
"""Texts written side by side: a token of each takes hardly longer than one."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """How text is kept: two bytes a token, or four."""

    vocab: int

    @property
    def dtype(self) -> np.dtype:
        """Of one token on disk."""
        return np.dtype([("token", "<u2" if self.vocab <= 2**16 else "<u4")])


@dataclass(frozen=True, slots=True)
class Texts:
    """The blocks of a stream, as a teacher went on from their prompts."""

    data: Batches
    kept: Logits

    def read(self, numbers: Tensor) -> Tensor:
        """The given blocks, ``(len(numbers), context + 1)``."""
        tokens = self.kept.of(numbers.numpy())["token"].astype(np.int64)
        return torch.cat([self.data.read(numbers)[:, :1], torch.from_numpy(tokens)], 1)


def texts_of(store: Store, step: Step, corpus: TokenizedCorpus) -> Texts | None:
    """What ``step`` learns from, if that is text of its teacher.

    Raises:
        InputError: if no step generates it.
    """
    if step.method is None or step.method.source.by not in ("teacher", "both"):
        return None
    if step.texts is None:
        raise InputError(
            f"method {step.method.name}: it learns from text of its teacher, and no step was given that "
            "generates it; let sweeps.dag.expand.with_caches plan one"
        )
    return texts(store, step.texts, corpus)


def texts(store: Store, step: Step, corpus: TokenizedCorpus, wrote: Wrote | None = None) -> Texts:
    """What ``step`` has its teacher write; what of it is missing or damaged is written first.

    Raises:
        InputError: if there is no room for it.
    """
    of = step.teacher
    assert of is not None
    assert step.method is not None
    source, vocab = step.method.source, step.shape.vocab
    data = stream_of(step, corpus)
    teacher = once(lambda: online(store, of))

    def teach(numbers: Numbers) -> NDArray[np.void]:
        return written(teacher(), data, numbers, source.prompt(data.context), source.temperature, vocab)

    kept = LogitCache(store, step.id, Tokens(vocab), data.context, data.seen(step.steps), "texts")
    return Texts(data, kept.ready(teach, wrote))


def written(
    teacher: Online, data: Batches, numbers: Numbers, prompt: int, temperature: float, vocab: int
) -> NDArray[np.void]:
    """The given blocks of ``data`` but for their first tokens, as ``teacher`` goes on from their prompts.

    Raises:
        InputError: if it gives no token a probability.
    """
    found = []
    for some in torch.from_numpy(numbers).split(AT_ONCE):
        draws = [uniform(1, data.context + 1 - prompt, data.seed, int(number)) for number in some]
        prompts = data.read(some)[:, :prompt].to(device())
        text = write([teacher.teacher], prompts, torch.cat(draws), temperature=temperature)
        if not text.drawn.isfinite().all():
            raise no_numbers()
        found.append(text.blocks[:, 1:].cpu().numpy())
    tokens = np.concatenate(found)
    return tokens.astype(Tokens(vocab).dtype["token"]).view(Tokens(vocab).dtype)
