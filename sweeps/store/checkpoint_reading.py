"""Reading of checkpoints in shards, by any number of processes, whatever number wrote them.

Each process reads the pieces that overlap with its own parts, as PyTorch's planner says, and verifies each
piece that it reads. Nothing is unpickled, and a manifest that asks for more than its files have is damaged.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.store.safetensors_stream import DTYPES, tensor_of
from sweeps.store.store import Store

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import ReadItem
    from torch.distributed.tensor import DTensor

MANIFEST = "manifest.json"
FORMAT = 2
"""Number in the manifest of a checkpoint in shards; those in one file have none."""


class Damaged(Exception):
    """Raised if a checkpoint is not complete; says which file, and why."""


class ShardedCheckpoint:
    """Checkpoint in shards at ``place``."""

    def __init__(self, store: Store, place: tuple[str, ...], manifest: Mapping[str, Any]) -> None:
        self.store, self.place = store, place
        if manifest.get("format") != FORMAT:
            raise Damaged(f"manifest.json: format {manifest.get('format')!r:.20}, expected {FORMAT}")
        if manifest.get("crc32") != checksum(manifest):
            raise Damaged("manifest.json: its checksum does not match")
        self.tensors: dict[str, Any] = manifest["tensors"]

    def read(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state, on the host: of DTensors in ``like`` this process's parts, of others all.

        Raises:
            Damaged: if a piece is missing, or its checksum does not match.
        """
        try:
            return self._read(like)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Damaged(f"manifest.json: {type(error).__name__}: {error}") from None

    def _read(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found, wanted = dict[str, Tensor](), dict[str, Tensor]()
        for name, entry in self.tensors.items():
            shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
            own = like.get(name)
            wanted[name] = own if is_dtensor(own) else torch.empty(shape, dtype=dtype, device="meta")
            found[name] = torch.empty(local_part(wanted[name]).shape, dtype=dtype)
        missing = {name: tensor.numel() for name, tensor in found.items()}
        for (name, start), parts in self._items(wanted).items():
            piece = self._piece(name, start)
            for part in parts:
                _copy(part, piece, found[name])
                missing[name] -= part.lengths.numel()
        if any(missing.values()):
            raise Damaged(f"manifest.json: no file holds all of {next(filter(missing.get, missing))}")
        return found

    def _items(self, wanted: dict[str, Tensor]) -> dict[tuple[str, tuple[int, ...]], list[ReadItem]]:
        """Return what is to be copied of each piece, by its tensor's name and where it begins."""
        from torch.distributed.checkpoint.default_planner import create_default_local_load_plan

        try:
            plan = create_default_local_load_plan(wanted, self._metadata())
        except (RuntimeError, ValueError) as error:
            raise Damaged(f"manifest.json: {error}") from None
        items: dict[tuple[str, tuple[int, ...]], list[ReadItem]] = {}
        for item in plan.items:
            piece = item.storage_index.fqn, tuple(item.storage_index.offset or ())
            items.setdefault(piece, []).append(item)
        return items

    def _metadata(self) -> Metadata:
        from torch.distributed.checkpoint.metadata import (
            ChunkStorageMetadata,
            Metadata,
            TensorProperties,
            TensorStorageMetadata,
        )

        return Metadata(
            {
                name: TensorStorageMetadata(
                    properties=TensorProperties(dtype=DTYPES[entry["dtype"]]),
                    size=torch.Size(entry["shape"]),
                    chunks=[
                        ChunkStorageMetadata(torch.Size(piece["start"]), torch.Size(piece["shape"]))
                        for piece in entry["pieces"]
                    ],
                )
                for name, entry in self.tensors.items()
            }
        )

    def _piece(self, name: str, start: tuple[int, ...]) -> Tensor:
        entry = self.tensors[name]
        piece = next(each for each in entry["pieces"] if tuple(each["start"]) == start)
        file, (begin, end) = piece["file"], piece["bytes"]
        if "/" in file:
            raise Damaged(f"manifest.json: {file!r:.60} is not the name of a file beside it")
        try:
            data = self.store.read_bytes(*self.place, file, begin=begin, end=end)
        except InputError as error:
            raise Damaged(str(error)) from None
        if data is None:
            raise Damaged(f"{file}: missing")
        found = tensor_of(data, DTYPES[entry["dtype"]], tuple(piece["shape"]))
        if found is None:
            raise Damaged(f"{file}: shorter than it was")
        if zlib.crc32(data) != piece["crc32"]:
            raise Damaged(f"{file}: the checksum of {name} does not match")
        return found


def is_dtensor(tensor: Tensor | None) -> TypeGuard[DTensor]:
    """Return True for a DTensor, without importing what defines it."""
    return hasattr(tensor, "device_mesh")


def is_sharded(state: Mapping[str, Tensor]) -> bool:
    """Return True if tensors of the state lie in several processes."""
    return any(map(is_dtensor, state.values()))


def local_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that is in this process."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def checksum(manifest: Mapping[str, Any]) -> int:
    """Return the checksum of a manifest, of all its fields but this."""
    rest = {name: value for name, value in manifest.items() if name != "crc32"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def part_of(whole: Tensor, like: Tensor | None) -> Tensor:
    """Return of a whole tensor the part that this process has of the DTensor ``like``; all for others."""
    if not is_dtensor(like):
        return whole
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, start = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    for axis, (begin, size) in enumerate(zip(start, shape, strict=True)):
        whole = whole.narrow(axis, begin, size)
    return whole


def _copy(part: ReadItem, piece: Tensor, into: Tensor) -> None:
    for axis, (source, target, size) in enumerate(
        zip(part.storage_offsets, part.dest_offsets, part.lengths, strict=True)
    ):
        piece, into = piece.narrow(axis, source, size), into.narrow(axis, target, size)
    into.copy_(piece)
