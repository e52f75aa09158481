"""Source of token ids: its files opened, checked by samples, and read as documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from scaling.errors import InputError
from sweeps.data.files.fingerprints import Verify
from sweeps.data.files.source_files import SourceFile, file_at
from sweeps.data.streaming.document_stream import DocumentStream
from sweeps.data.tokenized.checks import check_ids, check_type
from sweeps.data.tokenized.documents import Ids, documents_between_ends, pieces
from sweeps.data.tokenized.id_rows import rows_of
from sweeps.data.tokenized.megatron import IndexedDocuments, indexed_documents
from sweeps.data.tokenized.token_array import TokenArray, numpy_array, plain_array
from sweeps.data.tokenizer import ExternalTokenizer

TOKEN_SUFFIXES = (".bin", ".idx", ".npy")
NARROW, WIDE = 2**16, 2**32
SAMPLES, SAMPLED_IDS, SAMPLED_PLACES = 16, 2**20, 2**8
"""Samples of a file, and of all files together the ids and places that are sampled, about."""
MIN_PIECE, PIECES = 2**10, 2**8
"""Least ids of a piece of a stream without boundaries, and pieces of a small one, about."""

Boundaries = Literal["index", "rows", "end-of-text", "position"]
TokenType = Literal["uint16", "uint32"]


@dataclass(frozen=True, kw_only=True, slots=True)
class IdRules:
    """Rules by which ids are read: the tokenizer of the spec, and the boundaries found in the files."""

    tokenizer: ExternalTokenizer
    boundaries: Boundaries
    piece: int = MIN_PIECE

    @property
    def dtype(self) -> str:
        """Return the type of ids in our own streams."""
        return "<u2" if self.tokenizer.size <= NARROW else "<u4"

    def documents(self, blocks: Iterator[Ids]) -> Iterator[bytes]:
        """Yield what is shuffled and held out as a whole, from checked blocks of ids."""
        by_position = self.boundaries == "position"
        end = self.tokenizer.end_of_text_id
        for ids in pieces(blocks, self.piece) if by_position else documents_between_ends(blocks, end):
            yield ids.astype(self.dtype).tobytes()


def token_stream(
    files: Sequence[SourceFile],
    *,
    field: str,
    tokenizer: ExternalTokenizer | None,
    dtype: TokenType | None,
    verify: Verify,
) -> DocumentStream:
    """Open files of token ids and check samples of them.

    Args:
        files: ``.bin`` (plain, with llm.c's header, or with Megatron's ``.idx`` beside), ``.npy``, or
            ``.parquet``, ``.arrow`` and ``.jsonl`` with a column or field of lists of ids.
        field: That column or field.
        tokenizer: Tokenizer that wrote the ids.
        dtype: Type of plain ``.bin`` files; by default the narrower that holds the vocabulary.
        verify: How the files are identified.

    Raises:
        InputError: If no tokenizer is named, files differ in kind or type, or a sample is not of the
            vocabulary.
    """
    if tokenizer is None:
        raise InputError(
            f"corpus.source: {files[0].name} holds token ids; name the tokenizer that wrote them in "
            "corpus.tokenizer: a directory with tokenizer.json, or OWNER/NAME on a hub"
        )
    if dtype and any(file.suffix != ".bin" for file in files):
        raise InputError("corpus.token_dtype: only plain .bin files need it, others state it; remove it")
    if files[0].suffix not in TOKEN_SUFFIXES:
        return _row_stream(files, field, tokenizer, verify)
    files = _with_indexes(files)
    shards = _opened(files, tokenizer, dtype)
    rules = _rules(shards, tokenizer)
    by_name = {_array(shard).file.name: shard for shard in shards}
    return _stream(files, rules, lambda file: _blocks(by_name.get(file.name), tokenizer), verify)


def _stream(
    files: Sequence[SourceFile], rules: IdRules, blocks: Callable[[SourceFile], Iterator[Ids]], verify: Verify
) -> DocumentStream:
    return DocumentStream(
        files=tuple(files),
        read=lambda file: rules.documents(blocks(file)),
        verify=verify,
        id_bytes=np.dtype(rules.dtype).itemsize,
        unit="pieces by position" if rules.boundaries == "position" else "documents",
        boundaries=rules.boundaries,
    )


def _with_indexes(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return the files with every .bin that has an index followed by it, and no index alone."""
    suffixes = {file.suffix for file in files} - {".idx"}
    if len(suffixes) > 1:
        kinds = ", ".join(sorted(suffixes))
        raise InputError(f"corpus.source: files of ids of several kinds: {kinds}; name files of one")
    names = {file.name.removesuffix(".idx") + ".bin": file for file in files if file.suffix == ".idx"}
    names |= {file.name: file for file in files if file.suffix != ".idx"}
    found: list[SourceFile] = []
    for name, file in sorted(names.items()):
        found.append(file if file.suffix != ".idx" else file_at(name))
        index = _index_of(name)
        found += [index] if index else []
    return found


def _index_of(name: str) -> SourceFile | None:
    if not name.endswith(".bin"):
        return None
    try:
        return file_at(name.removesuffix(".bin") + ".idx")
    except InputError:
        return None


def _opened(
    files: Sequence[SourceFile], tokenizer: ExternalTokenizer, dtype: TokenType | None
) -> list[TokenArray | IndexedDocuments]:
    plain = {"uint16": "<u2", "uint32": "<u4", None: "<u2" if tokenizer.size <= NARROW else "<u4"}[dtype]
    indexes = {file.name.removesuffix(".idx") + ".bin": file for file in files if file.suffix == ".idx"}
    shards: list[TokenArray | IndexedDocuments] = []
    for file in (file for file in files if file.suffix != ".idx"):
        if file.name in indexes:
            shards.append(indexed_documents(file, indexes[file.name]))
        else:
            shards.append(numpy_array(file) if file.suffix == ".npy" else plain_array(file, plain))
    _require_one_type(shards, tokenizer)
    return shards


def _require_one_type(shards: Sequence[TokenArray | IndexedDocuments], tokenizer: ExternalTokenizer) -> None:
    first = shards[0]
    for shard in shards:
        array = _array(shard)
        if _described(shard) != _described(first):
            raise InputError(
                f"corpus.source: {_array(first).file.name} holds {_described(first)}, but {array.file.name} "
                f"{_described(shard)}; name files of one kind"
            )
    if np.dtype(_array(first).dtype).itemsize == 2 and tokenizer.size > NARROW:
        raise InputError(
            f"corpus.source: {_array(first).file.name} holds ids of 16 bits, too few for the "
            f"{tokenizer.size:,} entries of {tokenizer.file}; name the tokenizer that wrote them"
        )


def _described(shard: TokenArray | IndexedDocuments) -> str:
    array = _array(shard)
    indexed = isinstance(shard, IndexedDocuments)
    kind = "Megatron's ids" if indexed else "ids after a header" if array.declared else "plain ids"
    return f"{kind} of type {np.dtype(array.dtype)}"


def _array(shard: TokenArray | IndexedDocuments) -> TokenArray:
    return shard.tokens if isinstance(shard, IndexedDocuments) else shard


def _rules(shards: Sequence[TokenArray | IndexedDocuments], tokenizer: ExternalTokenizer) -> IdRules:
    """Check samples of all files, and find out whether they tell where documents end."""
    ended = False
    number = max(2, min(SAMPLES, SAMPLED_PLACES // len(shards)))
    size = max(2**12, SAMPLED_IDS // number // len(shards))
    for array in map(_array, shards):
        samples = list(array.samples(number, size)) if array.count else []
        if samples and not array.declared:
            check_type(array.file, samples)
        for position, ids in samples:
            check_ids(f"corpus.source: {array.file.name}", ids, tokenizer, position)
            ended = ended or bool((ids == tokenizer.end_of_text_id).any())
    total = sum(_array(shard).count for shard in shards)
    if not total:
        raise InputError(f"corpus.source: {_array(shards[0]).file.name} holds no text")
    if isinstance(shards[0], IndexedDocuments):
        return IdRules(tokenizer=tokenizer, boundaries="index")
    boundaries: Boundaries = "end-of-text" if ended else "position"
    return IdRules(tokenizer=tokenizer, boundaries=boundaries, piece=_piece(total))


def _piece(total: int) -> int:
    return int(np.clip(total // PIECES, MIN_PIECE, SAMPLED_IDS))


def _blocks(shard: TokenArray | IndexedDocuments | None, tokenizer: ExternalTokenizer) -> Iterator[Ids]:
    """Yield checked blocks of ids, those of an index with the end-of-text token behind each document."""
    if shard is None:
        return
    array, indexed = _array(shard), isinstance(shard, IndexedDocuments)
    documents = (
        shard.documents() if isinstance(shard, IndexedDocuments) else ([one] for one in shard.blocks())
    )
    for blocks in documents:
        for position, ids in blocks:
            check_ids(f"corpus.source: {array.file.name}", ids, tokenizer, position)
            yield ids
        if indexed:
            yield np.array([tokenizer.end_of_text_id])


def _row_stream(
    files: Sequence[SourceFile], field: str, tokenizer: ExternalTokenizer, verify: Verify
) -> DocumentStream:
    rules = _row_rules(files, field, tokenizer)
    return _stream(files, rules, partial(_row_blocks, field=field, tokenizer=tokenizer, rules=rules), verify)


def _row_blocks(file: SourceFile, field: str, tokenizer: ExternalTokenizer, rules: IdRules) -> Iterator[Ids]:
    """Yield rows; those that are documents end with the end-of-text token."""
    for row in rows_of(file, field, tokenizer):
        yield row
        if rules.boundaries == "rows":
            yield np.array([tokenizer.end_of_text_id])


def _row_rules(files: Sequence[SourceFile], field: str, tokenizer: ExternalTokenizer) -> IdRules:
    """Tell rows of documents from blocks of one length that were cut from a stream, by the first rows."""
    rows: list[Ids] = []
    for file in files:
        for row in rows_of(file, field, tokenizer):
            rows.append(row)
            if len(rows) == 1024:
                break
        if len(rows) > 1:
            break
    if not rows:
        raise InputError(f"corpus.source: {files[0].name} holds no text")
    end = tokenizer.end_of_text_id
    lengths = {len(row) for row in rows}
    if len(rows) < 3 or len(lengths) > 1 or all(row[-1] == end for row in rows):
        return IdRules(tokenizer=tokenizer, boundaries="rows")
    ended = any(bool((row == end).any()) for row in rows)
    piece = max(MIN_PIECE, lengths.pop())
    return IdRules(tokenizer=tokenizer, boundaries="end-of-text" if ended else "position", piece=piece)
