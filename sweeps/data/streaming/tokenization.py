"""Tokens of a source larger than memory: documents to buckets, these to shards of tokens, these to one file.

Every stage continues where a killed process stopped: after the last whole file of the source, and after the
last whole shard.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scaling.cpu import usable_cores
from scaling.errors import InputError
from sweeps.data.encode import append_tokens
from sweeps.data.files.fingerprints import full_hash
from sweeps.data.files.source_files import SourceFile
from sweeps.data.splits import HELDOUT_BYTES, MAX_HELDOUT_SHARE
from sweeps.data.streaming.claim import Claim
from sweeps.data.streaming.document_stream import DocumentStream
from sweeps.data.streaming.spill import BUCKETS, Spill, bucket_file, bucket_size, sorted_documents
from sweeps.data.tokenizer import (
    END_OF_TEXT,
    ExternalTokenizer,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

SHARD_BYTES = 2**26
"""Bytes of documents from which buckets make a shard of tokens."""
BATCH_BYTES = 2**22
"""Bytes of documents that are encoded at a time by one core."""
TRAINING_BYTES = 2**26
"""Bytes of documents, drawn at random, that a tokenizer is trained on."""
TEXT_BYTES_PER_ID = 4.0
"""Assumed bytes of text a token, for how much of a source of token ids is held out."""


@dataclass(kw_only=True)
class TokenizationProgress:
    """Progress as recorded in the directory of the work."""

    files: int = 0
    """Files that are in the buckets."""
    versions: list[str] = field(default_factory=list)
    """Their versions then."""
    sha256: list[str] = field(default_factory=list)
    """Hashes of all bytes of these files, where the source is identified by samples."""
    sizes: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    read: int = 0
    """Documents read, duplicates among them."""
    bytes: int = 0
    shortest: int = 2**62
    buckets: int = 0
    """Buckets that are in shards."""
    shards: list[str] = field(default_factory=list)
    room: float | None = None
    """Bytes that may still be held out."""
    documents: int = 0
    heldout_documents: int = 0
    heldout_bytes: int = 0
    heldout_tokens: int = 0
    train_tokens: int = 0

    @classmethod
    def load(cls, work: Path) -> TokenizationProgress:
        """Read the progress of earlier processes; none if their files are not all there."""
        try:
            found = cls(**json.loads((work / "progress.json").read_text()))
            spilled = work / "spill"
            buckets = range(found.buckets, BUCKETS)
            whole = all(bucket_size(spilled, n) >= found.sizes[n] for n in buckets)
            shards = (work / f"{name}.{kind}" for name in found.shards for kind in ("train", "heldout"))
            return found if whole and all(shard.exists() for shard in shards) else cls()
        except (OSError, ValueError, TypeError, AttributeError, IndexError):
            return cls()

    def save(self, work: Path, claim: Claim) -> None:
        """Record it, unless another machine has taken over."""
        claim.fence()
        scratch = work / f".progress-{claim.id}"
        scratch.write_text(json.dumps(asdict(self)))
        os.replace(scratch, work / "progress.json")  # noqa: PTH105


@dataclass(kw_only=True)
class StreamedTokenization:
    """Tokenization of one source in a directory of its own."""

    name: str
    stream: DocumentStream
    vocab: int
    heldout: float | None
    seed: int
    given: ExternalTokenizer | None
    work: Path
    claim: Claim
    progress: TokenizationProgress = field(init=False)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write ``train.bin``, ``heldout.bin`` and the tokenizer to ``folder``; return the manifest.

        Raises:
            InputError: For a source without text, damaged or changed, or a disk that is full.
            TakenOver: If another machine went on with it.
        """
        with _room_on_disk(self.name, self.work):
            self.progress = TokenizationProgress.load(self.work)
            self._spill()
            self._make_tokenizer()
            self._encode()
            _return_freed_memory()
            return self._join(folder)

    def _spill(self) -> None:
        done = self.progress
        if done.versions != [file.version for file in self.stream.files[: done.files]]:
            done = self.progress = TokenizationProgress()  # files that are in the buckets have changed since
        if done.files == len(self.stream.files):
            return
        _require_space(self.stream.files[done.files :], self.work)
        spill = Spill(self.work / "spill", self.seed, done.sizes)
        for file in self.stream.files[done.files :]:
            for document in self.stream.read(file):
                spill.add(document)
                done.read += 1
                done.bytes += len(document)
                done.shortest = min(done.shortest, len(document))
            file.require_unchanged()
            if self.stream.verify == "samples":
                done.sha256.append(full_hash(file))
            spill.flush()
            done.versions.append(file.version)
            done.files, done.sizes = done.files + 1, spill.sizes
            done.save(self.work, self.claim)

    def _first_room(self) -> float:
        """Return the bytes to hold out: a share, and at least the shortest document."""
        done = self.progress
        if done.read < 2:
            what = "is a single document, so no document can be held out" if done.read else "holds no text"
            raise InputError(f"corpus.source: {self.name} {what}")
        enough: float = HELDOUT_BYTES
        if self.stream.id_bytes:
            enough *= self.stream.id_bytes / TEXT_BYTES_PER_ID
        share = min(MAX_HELDOUT_SHARE, enough / done.bytes) if self.heldout is None else self.heldout
        return max(share * done.bytes, done.shortest)

    def _documents(self, buckets: range) -> Iterator[bytes]:
        for number in buckets:
            if bucket_size(spill := self.work / "spill", number) != self.progress.sizes[number]:
                (self.work / "progress.json").unlink()
                raise RuntimeError(f"{spill} was written by two processes at once; run again, from the start")
            yield from sorted_documents(bucket_file(spill, number))

    def _make_tokenizer(self) -> None:
        folder = self.work / "tokenizer"
        if folder.is_dir():
            return
        if self.given:
            tokenizer, end = load_tokenizer(self.given.file), self.given.end_of_text
        else:
            sample = self._training_sample(self._first_room())
            tokenizer, end = train_tokenizer(sample, self.vocab), END_OF_TEXT
        scratch = self.work / f".tokenizer-{self.claim.id}"
        shutil.rmtree(scratch, ignore_errors=True)
        save_tokenizer(tokenizer, scratch, end)
        scratch.rename(folder)

    def _training_sample(self, room: float) -> Iterator[str]:
        """Yield the first training documents, up to ``TRAINING_BYTES``; no more than one is in memory."""
        size = 0
        for document in self._documents(range(BUCKETS)):
            if len(document) <= room:
                room -= len(document)
                continue
            yield document.decode()
            size += len(document)
            if size >= TRAINING_BYTES:
                break

    def _encode(self) -> None:
        done = self.progress
        if done.room is None:
            done.room = self._first_room()
        writer = TokenShardWriter(self.work, self.stream.id_bytes, self.given)
        while done.buckets < BUCKETS:
            buckets = self._next_buckets()
            self.claim.fence()
            found = writer.write(f"{buckets[0]:03d}", self._documents(buckets), done.room)
            done.room = found.pop("room")
            for name, more in found.items():
                setattr(done, name, getattr(done, name) + more)
            done.shards = [*done.shards, f"{buckets[0]:03d}"]
            done.buckets = buckets[-1] + 1
            done.save(self.work, self.claim)
            for number in buckets:
                bucket_file(self.work / "spill", number).unlink(missing_ok=True)

    def _next_buckets(self) -> range:
        first = last = self.progress.buckets
        size = self.progress.sizes[first]
        while size < SHARD_BYTES and last + 1 < BUCKETS:
            last += 1
            size += self.progress.sizes[last]
        return range(first, last + 1)

    def _join(self, folder: Path) -> dict[str, Any]:
        done = self.progress
        if not done.train_tokens:
            raise InputError(f"corpus.source: {self.name}: all {self.stream.unit} are the same or held out")
        for kind in ("train", "heldout"):
            with (folder / f"{kind}.bin").open("wb") as out:
                for name in done.shards:
                    with (self.work / f"{name}.{kind}").open("rb") as shard:
                        shutil.copyfileobj(shard, out, 2**22)
        shutil.copytree(self.work / "tokenizer", folder / "tokenizer")
        self.claim.fence()
        counts = ("documents", "heldout_documents", "heldout_tokens", "heldout_bytes")
        part = {name: getattr(done, name) for name in counts}
        files = [{"name": f.name, "size": f.size, "version": f.version} for f in self.stream.files]
        hashes: list[str | None] = [*done.sha256] or [None] * len(files)
        return {
            "source": self.name,
            "vocab": self.given.size if self.given else self.vocab,
            "train_tokens": done.train_tokens,
            "boundaries": self.stream.boundaries,
            "parts": [{"name": "files", "licence": "unknown"} | part],
            "files": [file | {"sha256": sha256} for file, sha256 in zip(files, hashes, strict=True)],
        }


class TokenShardWriter:
    """Writer of shards: the tokens of some buckets, for training and held out."""

    def __init__(self, work: Path, id_bytes: int | None, given: ExternalTokenizer | None) -> None:
        self.work, self.id_bytes = work, id_bytes
        self.file = work / "tokenizer" / "tokenizer.json"
        self.tokenizer = load_tokenizer(self.file)
        end = given.end_of_text if given else END_OF_TEXT
        self.end = self.tokenizer.get_vocab(with_added_tokens=True)[end]

    def write(self, name: str, documents: Iterator[bytes], room: float) -> dict[str, Any]:
        """Write the shard; return its counts, and the bytes that may still be held out."""
        found: dict[str, Any] = dict.fromkeys(
            ("documents", "heldout_documents", "heldout_bytes", "train_tokens", "heldout_tokens"), 0
        )
        outs = {kind: self.work / f".{name}-{os.getpid()}.{kind}" for kind in ("train", "heldout")}
        for out in outs.values():
            out.write_bytes(b"")
        for batch in _batches(documents, BATCH_BYTES * usable_cores()):
            split: dict[str, list[bytes]] = {"train": [], "heldout": []}
            for document in batch:
                kind = "heldout" if len(document) <= room else "train"
                room -= len(document) if kind == "heldout" else 0
                split[kind].append(document)
            found["documents"] += len(batch)
            found["heldout_documents"] += len(split["heldout"])
            found["heldout_bytes"] += sum(map(self._text_bytes, split["heldout"]))
            for kind, some in split.items():
                found[f"{kind}_tokens"] += self._append(outs[kind], some)
        for kind, out in outs.items():
            os.replace(out, self.work / f"{name}.{kind}")  # noqa: PTH105
        return found | {"room": room}

    def _append(self, out: Path, documents: list[bytes]) -> int:
        if not documents:
            return 0
        if self.id_bytes is None:
            return append_tokens(out, self.file, self.end, [text.decode() for text in documents])
        with out.open("ab") as file:
            file.writelines(documents)
        return sum(map(len, documents)) // self.id_bytes

    def _text_bytes(self, document: bytes) -> int:
        """Return the bytes of text of a held-out document."""
        if self.id_bytes is None:
            return len(document)
        import numpy as np

        ids = np.frombuffer(document, dtype=f"<u{self.id_bytes}").tolist()
        return len(self.tokenizer.decode(ids, skip_special_tokens=True).encode())


def require_same_files(corpus: Path, stream: DocumentStream) -> None:
    """Check that files identified by samples are those that a corpus was made from.

    A file whose time has changed since is read once as a whole.

    Raises:
        InputError: If one has other bytes, though the samples are the same.
    """
    if stream.verify == "full":
        return
    made = {entry["name"]: entry for entry in json.loads((corpus / "manifest.json").read_text())["files"]}
    for file in stream.files:
        before = made.get(file.name)
        if before is None or before["version"] == file.version or before["sha256"] in (None, full_hash(file)):
            continue
        raise InputError(
            f"corpus.source: {file.name} has changed since its text was tokenized, but neither in size nor "
            "in the samples that identify it; set corpus.verify: full, which identifies it by all bytes"
        )


def _return_freed_memory() -> None:
    """Give freed memory back, as glibc keeps it and a training run may follow in this process."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _batches(documents: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    held = 0
    for document in documents:
        batch.append(document)
        held += len(document)
        if held >= size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _require_space(files: tuple[SourceFile, ...], work: Path) -> None:
    """Refuse a disk that cannot hold a copy of the files, which the buckets are at least."""
    needed, free = sum(file.size for file in files), shutil.disk_usage(work).free
    if needed > free:
        raise InputError(
            f"cache {work}: {free / 1e9:.1f} GB are free, but streaming needs a copy of the source "
            f"({needed / 1e9:.1f} GB) and its tokens; set DISTLAW_CACHE to a larger disk"
        )


@contextmanager
def _room_on_disk(name: str, work: Path) -> Iterator[None]:
    """Explain a disk that became full; what is done stays."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and os.strerror(errno.ENOSPC) not in str(error):  # of a process that encodes
            raise
        raise InputError(
            f"cache {work}: no space is left while tokenizing {name}; free some and run again, which goes on "
            "from here, or set DISTLAW_CACHE to a larger disk"
        ) from None
