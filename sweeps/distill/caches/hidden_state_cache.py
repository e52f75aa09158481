"""Hidden states of teachers on disk: written down once as they are, and read by every student.

Normalizations are applied to what was read, so that one cache serves students of all of them. In fp32 a
student's losses are those of the teacher read online, bit for bit on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from sweeps.distill.models import Models
from sweeps.distill.targets import nonfinite_teacher_error
from sweeps.distill.teacher import stream_of
from sweeps.model.device import device
from sweeps.spec.hidden_layers import HiddenLayers, StoredPrecision
from sweeps.store.store import Store

DTYPES: dict[StoredPrecision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
ON_DISK = {"fp32": "<f4", "bf16": "<i2", "fp16": "<f2"}
"""Types in NumPy, which knows no bf16: there its bits."""


@dataclass(frozen=True, slots=True)
class HiddenStateFormat:
    """Layout of hidden states on disk: for each token its layers, one after the other."""

    hidden: HiddenLayers
    width: int

    @property
    def dtype(self) -> np.dtype:
        """Layout of one token on disk."""
        number = ON_DISK[self.hidden.precision]
        return np.dtype([(str(layer), number, (self.width,)) for layer in self.hidden.layers])

    def pack(self, states: Sequence[Tensor]) -> NDArray[np.void]:
        """Return what is written of ``(blocks, context, width)`` a layer: ``(blocks, context)``.

        Raises:
            InputError: if a number is not finite, or too large for the precision.
        """
        packed = np.empty(states[0].shape[:-1], self.dtype)
        for layer, state in zip(self.hidden.layers, states, strict=True):
            packed[str(layer)] = self._rounded(layer, state)
        return packed

    def unpacked(self, kept: NDArray[np.generic]) -> Tensor:
        """Return one layer of what was read as float32, ``(blocks, context, width)``."""
        numbers = torch.from_numpy(np.ascontiguousarray(kept))
        return (numbers.view(torch.bfloat16) if self.hidden.precision == "bf16" else numbers).float()

    def _rounded(self, layer: int, state: Tensor) -> NDArray[np.generic]:
        if not state.isfinite().all():
            raise nonfinite_teacher_error()
        rounded = state.to(DTYPES[self.hidden.precision]).cpu()
        if not rounded.isfinite().all():
            raise InputError(
                f"cache: hidden states of layer {layer} reach {state.abs().max().item():.3g}, beyond the "
                f"largest number of {self.hidden.precision}; set cache: bf16 or fp32"
            )
        found: NDArray[np.generic] = (
            rounded.view(torch.int16) if rounded.dtype is torch.bfloat16 else rounded
        ).numpy()
        return found


@dataclass(slots=True)
class KeptHiddenStates:
    """Hidden states that a teacher wrote down before; all who ask about a batch share what is read of it."""

    kept: HiddenStateFormat
    shards: Shards
    last: tuple[Numbers, NDArray[np.void]] | None = None
    """Numbers of the blocks that were read last, and what is kept of them."""

    def of(self, numbers: Tensor, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """Return what is kept of the given blocks at ``layers``, ``(blocks, context, width)`` each."""
        asked = numbers.numpy()
        if self.last is None or not np.isin(asked, self.last[0]).all():
            self.last = None  # two batches are not held at once
            self.last = self.shards.batch_with(asked)
        blocks, rows = self.last
        order = np.argsort(blocks, kind="stable")
        places = order[np.searchsorted(blocks, asked, sorter=order)]
        return tuple(self.kept.unpacked(rows[str(layer)][places]) for layer in layers)

    def read_ahead(self, order: Iterator[Numbers]) -> None:
        """Read what the batches to come need, given the numbers of their blocks."""
        self.shards.read_ahead(order)


def kept_hidden_states(
    store: Store,
    cache: Step,
    corpus: TokenizedCorpus,
    wrote: Wrote | None = None,
    writer: Writer = ALONE,
) -> KeptHiddenStates:
    """Return what the teacher of ``cache`` wrote down; what of it is missing or damaged is written first.

    Raises:
        InputError: if there is no room for it, or its hidden states cannot be kept.
    """
    assert cache.hidden is not None
    how, data, models = (
        HiddenStateFormat(cache.hidden, cache.shape.width),
        stream_of(cache, corpus),
        Models(store, cache),
    )
    shards = ShardCache(store, cache.id, how, data.context, data.seen(cache.steps), "features", writer)
    return KeptHiddenStates(how, shards.ready(lambda numbers: _written(models, data, numbers, how), wrote))


def _written(models: Models, data: Batches, numbers: Numbers, how: HiddenStateFormat) -> NDArray[np.void]:
    """Return what the teacher says of the given blocks, read as many at a time as in a run."""
    parts = torch.from_numpy(numbers).split(data.batch)
    read = (data.read(some)[:, :-1].to(device()) for some in parts)
    return np.concatenate([how.pack(models.hidden_states(inputs, 0, how.hidden.layers)) for inputs in read])
