"""Checks of token ids: within the vocabulary, and of the type that they are read as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.data.files.source_files import SourceFile
from sweeps.data.tokenizer import ExternalTokenizer

MOSTLY = 0.95
"""Share of a sample from which its pattern is taken for a rule."""
PRINTABLE = np.array([byte in b"\t\n\r" or 32 <= byte < 127 for byte in range(256)])


def check_ids(
    where: str, ids: NDArray[Any], tokenizer: ExternalTokenizer, position: int = 0, of: str = ""
) -> None:
    """Check that ids are those of the vocabulary.

    Args:
        where: Field of the spec and file, and line if it has any, for the error.
        ids: Integers.
        tokenizer: Tokenizer that the spec names.
        position: Position of the first of ``ids`` there.
        of: What positions count in, for the error: a field of a record, in words.

    Raises:
        InputError: Naming the first id that is not.
    """
    if not len(ids) or (int(ids.max()) < tokenizer.size and int(ids.min()) >= 0):
        return
    wrong = int(np.flatnonzero((ids >= tokenizer.size) | (ids < 0))[0])
    raise InputError(
        f"{where}: id {int(ids[wrong]):,} at position {position + wrong:,}{of}, but "
        f"{tokenizer.file} has {tokenizer.size:,} entries; name the tokenizer that wrote the "
        f"ids{_other_type(ids, tokenizer)}"
    )


def _other_type(ids: NDArray[Any], tokenizer: ExternalTokenizer) -> str:
    """Return a hint if the bytes would be ids of another type."""
    raw = np.ascontiguousarray(ids)
    if raw.dtype == np.uint32 and int(raw.view("<u2").max()) < tokenizer.size:
        return ", or set corpus.token_dtype: uint16, of which all these bytes would be ids"
    if raw.dtype.itemsize > 1 and int(raw.byteswap().max()) < tokenizer.size:
        return ": the bytes look like big-endian numbers, which no trainer here writes"
    return ""


def check_type(file: SourceFile, samples: Sequence[tuple[int, NDArray[Any]]]) -> None:
    """Check that a file without a header holds ids of the type that it is read as.

    Args:
        file: Named in the error.
        samples: Positions and ids from all over the file.

    Raises:
        InputError: If it looks like ids of another type, text, or zeros.
    """
    ids = np.concatenate([some for _, some in samples])
    if PRINTABLE[ids.view(np.uint8)].mean() > MOSTLY:
        raise InputError(f"corpus.source: {file.name} holds text, not token ids; name it .txt")
    if len(ids) > 1 and (ids == ids[0]).all():
        raise InputError(f"corpus.source: {file.name} holds the id {int(ids[0])} only, in all samples")
    bits = 8 * ids.dtype.itemsize
    if wide := _wider_bits(samples, bits):
        advice = "set corpus.token_dtype: uint32" if wide == 32 else "write them as .npy"
        raise InputError(
            f"corpus.source: {file.name} looks like ids of {wide} bits, of which the higher bytes are zero, "
            f"and not of {bits}; {advice}"
        )


def _wider_bits(samples: Sequence[tuple[int, NDArray[Any]]], bits: int) -> int | None:
    """Return 64 or 32 if ids of so many bits, read as ids of ``bits``, would look like the samples."""
    parts = 64 // bits
    aligned = [ids[-position % parts :] for position, ids in samples]  # samples begin within an id, too
    whole = [ids for ids in aligned if len(ids) >= parts]
    zero = [float(np.mean([(ids[n::parts] == 0).mean() for ids in whole] or [0])) for n in range(parts)]
    for wide in (64, 32):
        higher = [share for n, share in enumerate(zero) if n % (wide // bits)]
        if higher and min(higher) > MOSTLY and zero[0] < MOSTLY:
            return wide
    return None
