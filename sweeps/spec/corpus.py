"""Text of a spec: the corpus, and the base text that teachers are trained on first."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sweeps.spec.fields import Count, Number, Quantity, Seed, SpecModel

VOCAB = 512
MIN_VOCAB = 257
"""Entries of a byte-level vocabulary without merges: all bytes, and the end-of-text token."""


class Base(SpecModel):
    """Text on which teachers are trained before they are tuned on the corpus."""

    source: str = Field(min_length=1)
    """Text, written as in ``corpus.source``; tokenized with the vocabulary of the corpus."""
    text_field: str = "text"
    """Field (.jsonl) or column (.parquet, datasets) that holds the text."""
    tuning_tokens: Quantity
    """Tokens of the corpus on which every teacher is then tuned; the lengths of a grid apply to the base."""


class Corpus(SpecModel):
    """Text, held-out share and vocabulary."""

    source: str = Field("kjv", min_length=1)
    """``kjv``, ``shakespeare``, ``permissive``, ``mix``, ``hf:OWNER/NAME``, or a path, glob or URL of text
    (.txt, .jsonl, .parquet, .arrow) or of token ids (.bin, Megatron's .bin and .idx, .npy, .parquet, .arrow,
    .jsonl)."""
    text_field: str = "text"
    """Field (.jsonl) or column (.parquet, .arrow, datasets) that holds the text, or lists of token ids."""
    token_dtype: Literal["uint16", "uint32"] | None = None
    """Type of the ids in .bin files without a header; by default the narrower that holds the vocabulary."""
    streaming: bool | None = None
    """Tokenize with bounded memory; by default files of 1 GiB or more together. Token ids always are."""
    verify: Literal["samples", "full"] | None = None
    """Identify files by their sizes and samples of their bytes, as those of 1 GiB or more are by default, or
    by all bytes."""
    heldout: Number | None = Field(None, gt=0, lt=1)
    """Share of each part's text held out, in whole documents; by default enough for a precise loss."""
    vocab: Count = Field(VOCAB, gt=0)
    """Entries of the byte-level BPE vocabulary."""
    tokenizer: str | None = Field(None, min_length=1)
    """Directory or OWNER/NAME on a hub whose tokenizer is used instead, as students of that model need, or
    which wrote the token ids of the source."""
    context: Count = Field(128, ge=8)
    """Sequence length, tokens."""
    seed: Seed = 0
    """Seed of the choice of held-out documents."""
    halves: bool = False
    """Train students on one half of the training documents and all other models on the other half."""
    like: Corpus | None = None
    """Corpus whose vocabulary is used instead."""

    @model_validator(mode="after")
    def _vocab_holds_all_bytes(self) -> Corpus:
        if self.tokenizer is None and self.like is None and self.vocab < MIN_VOCAB:
            raise ValueError(
                f"vocab: {self.vocab} is too small: bytes and the end-of-text token need {MIN_VOCAB}"
            )
        return self

    def on(self, base: Base) -> Corpus:
        """Return the text of ``base``, tokenized as this one."""
        other = {"source": base.source, "text_field": base.text_field, "heldout": None, "token_dtype": None}
        return self.model_copy(update={**other, "tokenizer": None, "like": self})
