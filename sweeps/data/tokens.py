"""Text to tokens on disk: hold out documents, train a tokenizer on the rest, map both into memory."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scaling.errors import InputError
from sweeps.data.cache import atomic_directory, cache_dir, locked
from sweeps.data.encode import append_tokens
from sweeps.data.files.fingerprints import sampled_hash_of_path
from sweeps.data.sources import TextSource
from sweeps.data.splits import PartSplit, split_documents
from sweeps.data.streaming.claim import TakenOver, claimed
from sweeps.data.streaming.tokenization import StreamedTokenization, require_same_files
from sweeps.data.tokenizer import (
    END_OF_TEXT,
    ExternalTokenizer,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

Half = Literal["first", "second"] | None
"""A half of the training documents, or all of them."""
LAYOUT = 3
"""Changes when the same text would be split or tokenised differently."""
STREAMED_LAYOUT = 1
"""Changes likewise for text and token ids that are streamed."""


@dataclass(frozen=True, kw_only=True)
class HeldoutPart:
    """The held-out documents of one part of a corpus; parts follow each other in ``heldout.bin``."""

    name: str
    licence: str
    documents: int
    """Documents of the part, held out or not."""
    heldout_documents: int
    heldout_tokens: int
    heldout_bytes: int
    """UTF-8 bytes of the held-out text, for bits per byte."""


@dataclass(frozen=True, kw_only=True)
class TokenizedCorpus:
    """A tokenised corpus in a directory, immutable and named by what it was made from."""

    path: Path
    fingerprint: str
    source: str
    vocab: int
    train_tokens: int
    parts: tuple[HeldoutPart, ...]
    boundaries: str = "text"
    """Kind of mark that tells where documents end: ``text``, or for token ids an ``index``, ``rows`` or
    ``end-of-text``; ``position`` where there is none."""

    @cached_property
    def train(self) -> NDArray[np.uint16]:
        """Training tokens, memory-mapped; every document ends with the end-of-text token."""
        return np.memmap(self.path / "train.bin", dtype=_dtype(self.vocab), mode="r")

    def train_tokens_of(self, half: Half) -> NDArray[np.uint16]:
        """The training tokens, or those of one half of the (shuffled) documents, to within one document."""
        middle = len(self.train) // 2
        return {None: self.train, "first": self.train[:middle], "second": self.train[middle:]}[half]

    @cached_property
    def heldout(self) -> NDArray[np.uint16]:
        """Held-out tokens, memory-mapped."""
        return np.memmap(self.path / "heldout.bin", dtype=_dtype(self.vocab), mode="r")

    @property
    def tokenizer_files(self) -> Path:
        """A directory that ``AutoTokenizer.from_pretrained`` reads."""
        return self.path / "tokenizer"

    def encode(self, text: str) -> list[int]:
        """Return the tokens of ``text``, without an end-of-text token."""
        tokenizer = Tokenizer.from_file(str(self.tokenizer_files / "tokenizer.json"))
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    @property
    def heldout_tokens(self) -> int:
        """Held-out tokens of all parts."""
        return sum(part.heldout_tokens for part in self.parts)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per held-out token."""
        return sum(part.heldout_bytes for part in self.parts) / self.heldout_tokens


def corpus_fingerprint(
    source: TextSource,
    *,
    vocab: int,
    heldout: float | None,
    seed: int,
    tokenizer: ExternalTokenizer | None = None,
) -> str:
    """Return the hash that identifies the tokens, without parsing the text."""
    key: dict[str, Any] = {"source": source.fingerprint, "heldout": heldout, "seed": seed, "layout": LAYOUT}
    if source.stream:
        key["layout"] = f"streamed {STREAMED_LAYOUT}"
    key |= {"tokenizer": tokenizer.sha256, "end": tokenizer.end_of_text} if tokenizer else {"vocab": vocab}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def corpus_path(fingerprint: str) -> Path:
    """Return the directory of this machine that holds, or will hold, a tokenized corpus."""
    return cache_dir() / "corpora" / fingerprint


def tokenize(
    source: TextSource,
    *,
    vocab: int,
    heldout: float | None,
    seed: int,
    tokenizer: ExternalTokenizer | None = None,
) -> TokenizedCorpus:
    """The tokenised corpus, made once and then found in the cache, by however many processes ask at once.

    Args:
        source: documents.
        vocab: entries of the byte-level BPE vocabulary, the end-of-text token included.
        heldout: share of the text held out, in whole documents; None: :func:`split_documents` chooses.
        seed: seed of that choice and of the order of documents.
        tokenizer: used instead of training one with ``vocab`` entries.

    Raises:
        InputError: for an empty corpus, one with too few documents, or one too small for ``vocab``.
    """
    fingerprint = corpus_fingerprint(source, vocab=vocab, heldout=heldout, seed=seed, tokenizer=tokenizer)
    target = corpus_path(fingerprint)
    corpus = _VERIFIED.get(target) or _cached(target, fingerprint)
    while corpus is None and source.stream:
        with suppress(TakenOver):
            _write_streamed(target, source, vocab=vocab, heldout=heldout, seed=seed, given=tokenizer)
        corpus = _cached(target, fingerprint)
    if corpus is None:
        with locked(target):
            corpus = _cached(target, fingerprint)  # where another process was faster
            if corpus is None:
                splits = split_documents(source, heldout, seed)
                shutil.rmtree(target, ignore_errors=True)  # it is damaged, if it is there
                with atomic_directory(target) as scratch:
                    _write(scratch, source, splits, vocab, seed, tokenizer)
                corpus = _cached(target, fingerprint)
    if corpus is None:
        raise InputError(f"the tokenised corpus in {target} is damaged, and again after it was made anew")
    _VERIFIED[target] = corpus
    if source.stream:
        require_same_files(target, source.stream)
    return replace(corpus, source=source.name)


_VERIFIED: dict[Path, TokenizedCorpus] = {}
"""Corpora whose checksums this process has seen to be right."""


def _cached(folder: Path, fingerprint: str) -> TokenizedCorpus | None:
    """The corpus in ``folder`` if all of it is there, to the byte."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest.pop("files", None) is not None:
            hashes, hash_of = manifest.pop("sampled"), sampled_hash_of_path
        else:
            hashes, hash_of = manifest.pop("sha256"), _sha256
        if any(hash_of(folder / name) != kept for name, kept in hashes.items()):
            return None
        parts = tuple(HeldoutPart(**part) for part in manifest.pop("parts"))
        return TokenizedCorpus(path=folder, fingerprint=fingerprint, parts=parts, **manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _write_streamed(target: Path, source: TextSource, **options: Any) -> None:
    """Tokenize a source with bounded memory, from where a killed process stopped, or wait for one at work."""
    assert source.stream is not None
    work = cache_dir() / "tokenizing" / target.name
    with locked(target):
        if _cached(target, target.name):
            return  # another process was faster
        with claimed(work) as claim:
            if claim is None:
                return
            writing = StreamedTokenization(
                name=source.name, stream=source.stream, work=work, claim=claim, **options
            )
            shutil.rmtree(target, ignore_errors=True)  # it is damaged, if it is there
            with atomic_directory(target) as scratch:
                manifest = writing.write(scratch)
                made = [path for path in sorted(scratch.rglob("*")) if path.is_file()]
                hashes = {str(path.relative_to(scratch)): sampled_hash_of_path(path) for path in made}
                manifest["sampled"] = hashes
                (scratch / "manifest.json").write_text(json.dumps(manifest, indent=2))
        shutil.rmtree(work, ignore_errors=True)


def _write(
    folder: Path,
    source: TextSource,
    splits: list[PartSplit],
    vocab: int,
    seed: int,
    given: ExternalTokenizer | None,
) -> None:
    train = [text for split in splits for text in split.train]
    random.Random(seed).shuffle(train)  # noqa: S311
    tokenizer = load_tokenizer(given.file) if given else train_tokenizer(train, vocab)
    end_of_text = given.end_of_text if given else END_OF_TEXT
    save_tokenizer(tokenizer, folder / "tokenizer", end_of_text)

    end = tokenizer.get_vocab(with_added_tokens=True)[end_of_text]

    def append(name: str, documents: list[str]) -> int:
        return append_tokens(folder / name, folder / "tokenizer" / "tokenizer.json", end, documents)

    parts = [
        HeldoutPart(
            name=split.part.name,
            licence=split.part.licence,
            documents=len(split.train) + len(split.heldout),
            heldout_documents=len(split.heldout),
            heldout_tokens=append("heldout.bin", split.heldout),
            heldout_bytes=sum(len(text.encode()) for text in split.heldout),
        )
        for split in splits
    ]
    manifest: dict[str, Any] = {
        "source": source.name,
        "vocab": given.size if given else vocab,
        "train_tokens": append("train.bin", train),
        "parts": [asdict(part) for part in parts],
    }
    made = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    manifest["sha256"] = {str(path.relative_to(folder)): _sha256(path) for path in made}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dtype(vocab: int) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if vocab <= 2**16 else np.uint32
