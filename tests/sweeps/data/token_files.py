"""Writers of token ids in the layouts of other trainers, for tests."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "float64": 6, "float32": 7, "uint16": 8}


def write_megatron(
    prefix: Path, documents: list[list[int]], dtype: str = "uint16", per_document: int = 1
) -> None:
    """Write an indexed dataset of Megatron-LM; each document is ``per_document`` sequences, about equal."""
    sequences = [part for ids in documents for part in np.array_split(np.array(ids), per_document)]
    np.concatenate(sequences).astype(dtype).tofile(prefix.with_suffix(".bin"))
    lengths = np.array([len(part) for part in sequences], dtype=np.int32)
    ends = np.cumsum(lengths, dtype=np.int64) * np.dtype(dtype).itemsize
    head = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, CODES[dtype], len(sequences), len(documents) + 1)
    with prefix.with_suffix(".idx").open("wb") as file:
        file.write(head + lengths.tobytes() + np.concatenate([[0], ends[:-1]]).astype(np.int64).tobytes())
        file.write((np.arange(len(documents) + 1, dtype=np.int64) * per_document).tobytes())


def write_llm_c(path: Path, ids: list[int], magic: int = 20240520, version: int = 1) -> None:
    """Write a .bin with the header of llm.c."""
    head = np.zeros(256, dtype=np.int32)
    head[:3] = magic, version, len(ids)
    dtype = np.uint16 if magic == 20240520 else np.uint32
    path.write_bytes(head.tobytes() + np.array(ids, dtype=dtype).tobytes())
