"""Text that a source writes before training: once, for all students that learn from it.

A block of it depends on the models, the block of the data and numbers drawn for it, so that whoever writes a
part that is missing or damaged writes the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.batches import Batches
from sweeps.distill.caches.shard_cache import ALONE, Numbers, ShardCache, Shards, Writer, Wrote
from sweeps.distill.generation.sampling import uniform_numbers, write
from sweeps.distill.metrics import named_values
from sweeps.distill.models import Models
from sweeps.distill.targets import Online, nonfinite_teacher_error
from sweeps.distill.teacher import stream_of
from sweeps.model.device import device
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.store.store import Store

AT_ONCE = 64
"""Texts written side by side: a token of each takes hardly longer than one."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Format of text on disk: two bytes a token, or four, and twice that without prompts."""

    vocab: int
    prompted: bool = True
    """True if blocks begin with the data's first token, which then is not kept."""

    @property
    def token(self) -> str:
        """Type of a token."""
        return "<u2" if self.vocab <= 2**16 else "<u4"

    @property
    def dtype(self) -> np.dtype:
        """Layout of one token on disk."""
        return np.dtype(
            [("token", self.token)] if self.prompted else [("token", self.token), ("before", self.token)]
        )

    def pack(self, blocks: NDArray[np.int64]) -> NDArray[np.void]:
        """Return what is written of ``blocks`` ``(blocks, context + 1)``: ``(blocks, context)``."""
        packed = np.empty((len(blocks), blocks.shape[1] - 1), self.dtype)
        packed["token"] = blocks[:, 1:]
        if not self.prompted:
            packed["before"] = blocks[:, :-1]
        return packed


def text_format(method: Method, vocab: int) -> Tokens:
    """Return how text of the source of ``method`` is kept on disk."""
    return Tokens(vocab, parts_of(method).source.prompt_tokens(2) > 0)


@dataclass(frozen=True, slots=True)
class Texts:
    """Text in the place of the blocks of a stream."""

    data: Batches
    kept: Shards

    def read(self, numbers: Tensor) -> Tensor:
        """Return the given blocks, ``(len(numbers), context + 1)``."""
        packed = self.kept.of(numbers.numpy())
        tokens = torch.from_numpy(packed["token"].astype(np.int64))
        if "before" in (packed.dtype.names or ()):
            first = torch.from_numpy(packed["before"][:, :1].astype(np.int64))
        else:
            first = self.data.read(numbers)[:, :1]
        return torch.cat([first, tokens], 1)

    def read_ahead(self, order: Iterator[Numbers]) -> None:
        """Read what the batches to come need, given the numbers of their blocks."""
        self.kept.read_ahead(order)


def texts_of(store: Store, step: Step, corpus: TokenizedCorpus) -> Texts | None:
    """Return what ``step`` learns from, if that was written before.

    Raises:
        InputError: if no step generates it.
    """
    if step.method is None or not parts_of(step.method).source.writes_before:
        return None
    if step.texts is None:
        raise InputError(
            f"method {step.method.name}: it learns from text of its teacher, and no step was given that "
            "generates it; let sweeps.dag.expand.with_caches plan one"
        )
    return texts(store, step.texts, corpus)


def texts(
    store: Store,
    step: Step,
    corpus: TokenizedCorpus,
    wrote: Wrote | None = None,
    writer: Writer = ALONE,
) -> Texts:
    """Return what the source of ``step`` writes; what of it is missing or damaged is written first.

    Raises:
        InputError: if there is no room for it, or the source writes something else than blocks of tokens.
    """
    assert step.method is not None
    source, vocab = parts_of(step.method).source, step.shape.vocab
    data, models = stream_of(step, corpus), Models(store, step)

    def teach(numbers: Numbers) -> NDArray[np.void]:
        blocks = source.write(models, data, torch.from_numpy(numbers))
        shape = len(numbers), data.context + 1
        if tuple(blocks.shape) != shape or not 0 <= int(blocks.min()) <= int(blocks.max()) < vocab:
            raise InputError(
                f"source: {type(source).__name__}.write returned {tuple(blocks.shape)}, tokens "
                f"{int(blocks.min())} to {int(blocks.max())}; it must be {shape}, tokens 0 to {vocab - 1}"
            )
        return storage.pack(blocks.cpu().numpy())

    storage = text_format(step.method, vocab)
    shards = ShardCache(store, step.id, storage, data.context, data.seen(step.steps), "texts", writer)
    return Texts(data, shards.ready(teach, wrote))


def text_columns(store: Store, step: Step, corpus: TokenizedCorpus) -> dict[str, float]:
    """Return numbers about the text that ``step`` has written, by names of columns in the runs table.

    Raises:
        InputError: if one has the name of another column, or is not a number.
    """
    assert step.method is not None
    source = parts_of(step.method).source
    return dict(named_values(source, source.text_columns(Models(store, step), stream_of(step, corpus))))


def continued(teacher: Online, data: Batches, numbers: Tensor, prompt: int, temperature: float) -> Tensor:
    """Return the given blocks of ``data`` as ``teacher`` continues their prompts, ``(blocks, context + 1)``.

    Raises:
        InputError: if it gives no token a probability.
    """
    found = []
    for some in numbers.split(AT_ONCE):
        draws = [uniform_numbers(1, data.context + 1 - prompt, data.seed, int(number)) for number in some]
        prompts = data.read(some)[:, :prompt].to(device())
        text = write([teacher.teacher], prompts, torch.cat(draws), temperature=temperature)
        if not text.drawn.isfinite().all():
            raise nonfinite_teacher_error()
        found.append(text.blocks.cpu())
    return torch.cat(found)
