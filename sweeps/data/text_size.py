"""Tokens of a text: counted, or estimated before it is read."""

from __future__ import annotations

import math
from bisect import bisect
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from sweeps.data.files.source_files import is_url
from sweeps.data.named_corpora import NAMED_BYTES, NAMED_CORPORA
from sweeps.data.splits import HELDOUT_BYTES, MAX_HELDOUT_SHARE
from sweeps.data.tokenized.token_source import NARROW, TOKEN_SUFFIXES
from sweeps.data.tokens import Half, TokenizedCorpus
from sweeps.spec.corpus import Corpus

BYTES_PER_TOKEN = (
    *((300, 1.55), (512, 2.39), (1024, 3.10), (2048, 3.65)),
    *((4096, 4.05), (8192, 4.30), (16_384, 4.42)),
)
"""Bytes a token of byte-level BPE by vocabulary, measured on held-out text of ``kjv``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSize:
    """Tokens of a corpus."""

    train_tokens: float
    """Training tokens; infinite where nothing is known."""
    heldout_tokens: float
    """Held-out tokens, all of which every run is evaluated on."""
    estimated: bool = False
    """True if the text was not read, so that both are approximate."""

    @classmethod
    def counted(cls, corpus: TokenizedCorpus) -> TextSize:
        """Return the size of a corpus that was tokenized."""
        return cls(train_tokens=corpus.train_tokens, heldout_tokens=corpus.heldout_tokens)

    @property
    def known(self) -> bool:
        """True if there is a number of training tokens, counted or estimated."""
        return math.isfinite(self.train_tokens)

    def train_tokens_of(self, half: Half) -> float:
        """Return the training tokens, or those of one half of the documents."""
        return self.train_tokens / 2 if half else self.train_tokens


def estimated_size(corpus: Corpus) -> TextSize:
    """Estimate the tokens of ``corpus`` from the bytes of its files, none of which is opened.

    Good to about a fifth for plain English; a dataset on a hub, or files that are not there, leave the
    training tokens unknown.
    """
    per_token = bytes_per_token(corpus.vocab)
    size = _bytes(corpus) * per_token / (_bytes_per_id(corpus) or per_token)
    share = corpus.heldout or min(MAX_HELDOUT_SHARE, HELDOUT_BYTES / size)
    heldout = share * size if math.isfinite(size) else HELDOUT_BYTES
    return TextSize(
        train_tokens=(size - heldout) / per_token, heldout_tokens=round(heldout / per_token), estimated=True
    )


def bytes_per_token(vocab: int) -> float:
    """Return about how many bytes of English a token of a vocabulary of this size stands for."""
    sizes = [size for size, _ in BYTES_PER_TOKEN]
    if vocab <= sizes[0]:
        return BYTES_PER_TOKEN[0][1]
    if vocab >= sizes[-1]:
        return BYTES_PER_TOKEN[-1][1]
    right = bisect(sizes, vocab)
    (low, before), (high, after) = BYTES_PER_TOKEN[right - 1 : right + 1]
    return before + (after - before) * math.log(vocab / low) / math.log(high / low)


def _bytes_per_id(corpus: Corpus) -> int | None:
    """Bytes a token id in a plain file of them; None for text, and for columns."""
    if Path(corpus.source).suffix.lower() not in TOKEN_SUFFIXES:
        return None
    by_vocab = 2 if corpus.vocab <= NARROW else 4
    return {"uint16": 2, "uint32": 4, None: by_vocab}[corpus.token_dtype]


def _bytes(corpus: Corpus) -> float:
    """Bytes of the text; infinite where nothing is known."""
    if corpus.source in NAMED_CORPORA:
        return NAMED_BYTES[corpus.source]
    if corpus.source.startswith("hf:") or is_url(corpus.source):
        return math.inf
    names = glob(str(Path(corpus.source).expanduser()), recursive=True)  # noqa: PTH207
    return sum(path.stat().st_size for path in map(Path, names) if path.is_file()) or math.inf
