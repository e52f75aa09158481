"""Checkpoints in shards, one file from each process, planned by ``torch.distributed.checkpoint``.

PyTorch decides who writes what: tensors that several processes hold are written once, shards of DTensors
where they are. Its own storage keeps the plan in a pickle (``.metadata``); here it is JSON, the shards are
safetensors, and nothing is unpickled when a checkpoint is read::

    00000.safetensors    from the first process
    00001.safetensors    ...
    manifest.json        which part of which tensor lies where, with checksums; written last
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.state_dict_saver import _save_state_dict
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from sweeps.store.checkpoints.reading import FORMAT, local_part
from sweeps.store.checkpoints.safetensors_stream import DTYPE_NAMES, SafetensorsStream
from sweeps.store.store import Store

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

CLEARED = 2**22
"""Elements of a buffer that are cleared at a time."""


class StagedPlanner(DefaultSavePlanner):
    """Planner of a state whose parts of this process were copied to the host."""

    def __init__(self, staged: Mapping[str, Tensor]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.staged = staged

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        """Return the copy."""
        return self.staged[index.fqn]


class ShardWriter(StorageWriter):
    """Writer of one checkpoint at ``place``, which the first process determines for all."""

    def __init__(
        self, store: Store, place: tuple[str, ...], commit: Callable[[dict[str, Any]], None]
    ) -> None:
        self.store, self.place, self.commit = store, place, commit

    def reset(self, checkpoint_id: Any = None) -> None:
        """Do nothing: a writer writes one checkpoint."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003
        """Return False: the place of a checkpoint is not an id of PyTorch's."""
        return False

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: directories are made with their first file."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Add to each process's plan the file that it writes, in the directory of the first."""
        return [
            replace(plan, storage_data=(*self.place, f"{rank:05d}.safetensors"))
            for rank, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this process's file; the results say where each of its items lies."""
        place: tuple[str, ...] = plan.storage_data
        items = {_name(item): item for item in plan.items}
        stream = SafetensorsStream({name: _data(planner, item) for name, item in items.items()})
        self.store.write_bytes(stream, *place)
        results = []
        for name, item in items.items():
            span = stream.spans[name]
            where = {"file": place[-1], "bytes": [span.begin, span.end], "crc32": span.crc32}
            results.append(WriteResult(item.index, span.end - span.begin, where))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit the manifest, in the first process, once all have written."""
        tensors: dict[str, Any] = {}
        for result in (each for of_one in results for each in of_one):
            whole = metadata.state_dict_metadata[result.index.fqn]
            assert isinstance(whole, TensorStorageMetadata)
            chunk = next(each for each in whole.chunks if each.offsets == result.index.offset)
            entry = {
                "dtype": DTYPE_NAMES[whole.properties.dtype],
                "shape": list(whole.size),
                "pieces": [],
            }
            piece = {"start": list(chunk.offsets), "shape": list(chunk.sizes), **result.storage_data}
            tensors.setdefault(result.index.fqn, entry)["pieces"].append(piece)
        self.commit({"format": FORMAT, "tensors": tensors})


def write_shards(
    state: Mapping[str, Tensor], staged: Mapping[str, Tensor], writer: ShardWriter, group: ProcessGroup | None
) -> None:
    """Write ``state``, whose parts of this process are ``staged``; all processes of ``group`` call it.

    Raises:
        OSError, Stopped: the first failure of any process, in all.
    """
    planner = StagedPlanner(staged)
    try:  # the public function has no ``no_dist`` in PyTorch 2.6, and warns of it later
        _save_state_dict(dict(state), writer, group, no_dist=group is None, planner=planner)
    except CheckpointException as error:
        failures = error.failures
        raise failures[min(failures)][0] from None


def stage(state: Mapping[str, Tensor], buffers: dict[str, Tensor]) -> None:
    """Copy this process's part of ``state`` to ``buffers`` on the host, which are made once and kept.

    Copies from a GPU go through pinned memory, side by side.
    """
    for name in buffers.keys() - state.keys():
        del buffers[name]
    on_gpu = False
    for name, tensor in state.items():
        own = local_part(tensor.detach())
        on_gpu |= own.is_cuda
        _buffer_for(name, own, buffers).copy_(own, non_blocking=True)
    if on_gpu:
        torch.cuda.synchronize()


def make_buffers(
    state: Mapping[str, Tensor], buffers: dict[str, Tensor], stopped: Callable[[], bool]
) -> None:
    """Make the buffers that :func:`stage` copies to, and have the kernel clear them, until ``stopped``.

    Those for a GPU are left to :func:`stage`, and so is the error if there is no memory for them.
    """
    with suppress(MemoryError, RuntimeError):
        for name, tensor in state.items():
            own = local_part(tensor.detach())
            if own.is_cuda:
                continue
            for piece in _buffer_for(name, own, buffers).view(-1).split(CLEARED):
                if stopped():
                    return
                piece.zero_()


def _buffer_for(name: str, own: Tensor, buffers: dict[str, Tensor]) -> Tensor:
    """Return the buffer of a tensor, made if there is none of its shape and type."""
    found = buffers.get(name)
    if found is None or found.shape != own.shape or found.dtype != own.dtype:
        found = buffers[name] = torch.empty(own.shape, dtype=own.dtype, pin_memory=own.is_cuda)
    return found


def _name(item: WriteItem) -> str:
    """Return the name of an item in its file: of a part, with the place where it begins."""
    start = item.index.offset
    return f"{item.index.fqn}@{','.join(map(str, start))}" if start and any(start) else item.index.fqn


def _data(planner: SavePlanner, item: WriteItem) -> Tensor:
    data = planner.resolve_data(item)
    if not isinstance(data, Tensor):
        raise TypeError(f"{item.index.fqn}: only tensors are written to checkpoints")
    return data
