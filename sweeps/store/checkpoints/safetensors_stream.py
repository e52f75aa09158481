"""Safetensors files written as a stream, with a checksum of each tensor, and read tensor by tensor.

The safetensors library writes a file from one buffer in memory, and gives no checksums. A checkpoint of
gigabytes is written beside training, so that it must need no second copy, and verified without a second pass.
Format: https://github.com/huggingface/safetensors; the library reads these files.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 16 * 2**20
"""Bytes written at once."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of tensors by their names in the format."""
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(slots=True)
class ByteRange:
    """Place of a tensor in a file."""

    begin: int
    end: int
    crc32: int = 0
    """Checksum of its bytes, known once they are written."""


class SafetensorsStream:
    """File of ``tensors``, to be written chunk by chunk, once.

    Args:
        tensors: the tensors, on the CPU unless ``read`` brings them there.
        metadata: kept in the file beside them.
        read: called with each tensor when it is its turn.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str] | None = None,
        read: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        self.tensors, self.read = tensors, read
        self.spans: dict[str, ByteRange] = {}
        """Places of the tensors; their checksums are there when the last chunk was taken."""
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        at = 0
        for name, tensor in tensors.items():
            end = at + tensor.numel() * tensor.element_size()
            dtype = DTYPE_NAMES[tensor.dtype]
            header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
            self.spans[name] = ByteRange(at, end)
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.header = len(text).to_bytes(8, "little") + text
        for span in self.spans.values():
            span.begin += len(self.header)
            span.end += len(self.header)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self.header
        for name, tensor in self.tensors.items():
            span, data = self.spans[name], bytes_of(self.read(tensor))
            for begin in range(0, len(data), CHUNK_BYTES):
                chunk = data[begin : begin + CHUNK_BYTES]
                span.crc32 = zlib.crc32(chunk, span.crc32)
                yield chunk


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU, without a copy if it is contiguous."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
