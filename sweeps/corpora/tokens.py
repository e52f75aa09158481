"""Text to tokens on disk: hold out documents, train a tokenizer on the rest, map both into memory."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.corpora.cache import cache_dir, published
from sweeps.corpora.sources import Document, Part, Source

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Half = Literal["first", "second"] | None
"""A half of the training documents, or all of them."""
END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
"""The first special token the trainer adds."""
BYTES = 256
CHUNK = 1000
"""Documents tokenised at once."""
LAYOUT = 2
"""Changes when the same text would be split or tokenised differently."""


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
class TokenisedCorpus:
    """A tokenised corpus in a directory, immutable and named by what it was made from."""

    path: Path
    fingerprint: str
    source: str
    vocab: int
    train_tokens: int
    parts: tuple[HeldoutPart, ...]

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

    @property
    def heldout_tokens(self) -> int:
        """Held-out tokens of all parts."""
        return sum(part.heldout_tokens for part in self.parts)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per held-out token."""
        return sum(part.heldout_bytes for part in self.parts) / self.heldout_tokens


def corpus_fingerprint(source: Source, *, vocab: int, heldout: float, seed: int) -> str:
    """What identifies the tokens: known before anything is parsed."""
    key = {"source": source.fingerprint, "vocab": vocab, "heldout": heldout, "seed": seed, "layout": LAYOUT}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def tokenise(source: Source, *, vocab: int, heldout: float, seed: int) -> TokenisedCorpus:
    """The tokenised corpus, made once and then found in the cache.

    Args:
        source: documents.
        vocab: entries of the byte-level BPE vocabulary, the end-of-text token included.
        heldout: share of the documents held out, chosen at random before tokenising.
        seed: seed of that choice and of the order of documents.

    Raises:
        InputError: for an empty corpus, one with too few documents, or one too small for ``vocab``.
    """
    fingerprint = corpus_fingerprint(source, vocab=vocab, heldout=heldout, seed=seed)
    target = cache_dir() / "corpora" / fingerprint
    corpus = _VERIFIED.get(target) or _cached(target, fingerprint)
    if corpus is None:
        splits = split_documents(source, heldout, seed)
        shutil.rmtree(target, ignore_errors=True)  # it is damaged, if it is there
        with published(target) as scratch:
            _write(scratch, source, splits, vocab, seed)
        corpus = _cached(target, fingerprint)
    if corpus is None:
        raise InputError(f"the tokenised corpus in {target} is damaged, and again after it was made anew")
    _VERIFIED[target] = corpus
    return replace(corpus, source=source.name)


_VERIFIED: dict[Path, TokenisedCorpus] = {}
"""Corpora whose checksums this process has seen to be right."""


def _cached(folder: Path, fingerprint: str) -> TokenisedCorpus | None:
    """The corpus in ``folder`` if all of it is there, to the byte."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, sha256 in manifest.pop("sha256").items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return None
        parts = tuple(HeldoutPart(**part) for part in manifest.pop("parts"))
        return TokenisedCorpus(path=folder, fingerprint=fingerprint, parts=parts, **manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The documents of one part, divided."""

    part: Part
    train: list[Document]
    heldout: list[Document]


def split_documents(source: Source, heldout: float, seed: int) -> list[Split]:
    """Training and held-out documents of every part, shuffled; exact duplicates of a document are dropped.

    Raises:
        InputError: if a part has fewer than two different documents.
    """
    splits: list[Split] = []
    seen: set[Document] = set()
    for part in source.parts:
        documents = sorted({text for raw in part.documents() if (text := raw.strip())} - seen)
        seen.update(documents)
        if not documents:
            raise InputError(f"corpus.source: {source.name} holds no text")
        if len(documents) < 2:
            raise InputError(
                f"corpus.source: {source.name} is a single document, so nothing can be held out by document; "
                "separate documents with blank lines or use one record each (.jsonl)"
            )
        random.Random(seed).shuffle(documents)  # noqa: S311
        held = min(max(1, round(heldout * len(documents))), len(documents) - 1)
        splits.append(Split(part=part, train=documents[held:], heldout=documents[:held]))
    return splits


def _write(folder: Path, source: Source, splits: list[Split], vocab: int, seed: int) -> None:
    train = [text for split in splits for text in split.train]
    random.Random(seed).shuffle(train)  # noqa: S311
    tokenizer = train_tokenizer(train, vocab)
    save_tokenizer(tokenizer, folder / "tokenizer")
    parts = [
        HeldoutPart(
            name=split.part.name,
            licence=split.part.licence,
            documents=len(split.train) + len(split.heldout),
            heldout_documents=len(split.heldout),
            heldout_tokens=_append_tokens(folder / "heldout.bin", tokenizer, split.heldout),
            heldout_bytes=sum(len(text.encode()) for text in split.heldout),
        )
        for split in splits
    ]
    manifest: dict[str, Any] = {
        "source": source.name,
        "vocab": vocab,
        "train_tokens": _append_tokens(folder / "train.bin", tokenizer, train),
        "parts": [asdict(part) for part in parts],
    }
    made = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    manifest["sha256"] = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in made
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


def _append_tokens(path: Path, tokenizer: Tokenizer, documents: list[Document]) -> int:
    end, dtype = tokenizer.token_to_id(END_OF_TEXT), _dtype(tokenizer.get_vocab_size())
    count = 0
    with path.open("ab") as file:
        for start in range(0, len(documents), CHUNK):
            for encoding in tokenizer.encode_batch(documents[start : start + CHUNK]):
                ids = np.array([*encoding.ids, end], dtype=dtype)
                file.write(ids.tobytes())
                count += len(ids)
    return count


def train_tokenizer(documents: list[Document], vocab: int) -> Tokenizer:
    """A byte-level BPE tokenizer with exactly ``vocab`` entries.

    Raises:
        InputError: if the text has too few distinct pairs for so large a vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab <= BYTES:
        raise InputError(
            f"corpus.vocab: {vocab} is too small: bytes and the end-of-text token need {BYTES + 1}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer, length=len(documents))
    reached = tokenizer.get_vocab_size()
    if reached < vocab:
        raise InputError(
            f"corpus.vocab: the training text supports only {reached} entries, not {vocab}; "
            f"lower the vocabulary or add text"
        )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write what ``AutoTokenizer.from_pretrained`` needs, without importing transformers."""
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "bos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def _dtype(vocab: int) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if vocab <= 2**16 else np.uint32
