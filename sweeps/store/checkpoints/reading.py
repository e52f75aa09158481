"""Reading of checkpoints in shards, by any number of processes, whatever number wrote them.

Each process reads the pieces that overlap with its own parts, as PyTorch's planner says, and verifies each
piece that it reads. Nothing is unpickled, and a manifest that asks for more than its files have is damaged.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.store.checkpoints.safetensors_stream import CHUNK_BYTES, DTYPES, bytes_of
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
            found[name] = torch.empty(local_part(wanted[name]).shape, dtype=dtype, device="meta")
        missing = {name: tensor.numel() for name, tensor in found.items()}
        for (name, start), parts in self._items(wanted).items():
            piece = self._piece(name, start)
            for part in parts:
                found[name] = _copied(part, piece, found[name])
                missing[name] -= part.lengths.numel()
        if any(missing.values()):
            raise Damaged(f"manifest.json: no file holds all of {next(filter(missing.get, missing))}")
        return {name: _allocated(tensor) for name, tensor in found.items()}

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
        shape, dtype = tuple(piece["shape"]), DTYPES[entry["dtype"]]
        if "/" in file or end - begin != math.prod(shape) * dtype.itemsize:
            raise Damaged(f"manifest.json: {name} in {file!r:.60} is not the part that it should be")
        found = torch.empty(shape, dtype=dtype)
        if self._fill(bytes_of(found), file, begin) != piece["crc32"]:
            raise Damaged(f"{file}: the checksum of {name} does not match")
        return found

    def _fill(self, buffer: memoryview, file: str, begin: int) -> int:
        """Read a file from ``begin`` on into ``buffer``; return the checksum."""
        crc32 = 0
        for at in range(0, len(buffer), CHUNK_BYTES):
            end = min(at + CHUNK_BYTES, len(buffer))
            try:
                data = self.store.read_bytes(*self.place, file, begin=begin + at, end=begin + end)
            except InputError as error:
                raise Damaged(str(error)) from None
            if data is None or len(data) != end - at:
                raise Damaged(f"{file}: missing" if data is None else f"{file}: shorter than it was")
            buffer[at:end] = data
            crc32 = zlib.crc32(data, crc32)
        return crc32


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


def _copied(part: ReadItem, piece: Tensor, into: Tensor) -> Tensor:
    """Copy a part of a piece into a tensor and return that; or the piece, if it is all that is asked for."""
    if piece.shape == into.shape == part.lengths:
        return piece
    into = _allocated(into)
    source, target = piece, into
    for axis, (begin, at, size) in enumerate(
        zip(part.storage_offsets, part.dest_offsets, part.lengths, strict=True)
    ):
        source, target = source.narrow(axis, begin, size), target.narrow(axis, at, size)
    target.copy_(source)
    return into


def _allocated(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor
