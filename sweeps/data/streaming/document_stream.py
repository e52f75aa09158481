"""Documents of a source, file by file, as they are tokenized with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sweeps.data.files.fingerprints import Verify
from sweeps.data.files.source_files import SourceFile


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentStream:
    """Documents of a source, file by file, as bytes: UTF-8 text, or token ids."""

    files: tuple[SourceFile, ...]
    read: Callable[[SourceFile], Iterator[bytes]]
    verify: Verify
    id_bytes: int | None = None
    """Bytes of a token id; None for text."""
    unit: str = "documents"
    """Name of the pieces that are held out as a whole."""
    boundaries: str = "text"
    """Kind of mark that tells where documents end."""
