"""What a spec says of its text."""

from __future__ import annotations

from pydantic import Field

from sweeps.spec.fields import Count, Number, Part, Quantity, Seed

VOCAB = 512


class Base(Part):
    """Another text, on which teachers are trained before they are tuned on the corpus."""

    source: str = Field(min_length=1)
    """As ``corpus.source``; it is cut with the corpus' vocabulary."""
    text_field: str = "text"
    """Field (.jsonl) or column (.parquet, datasets) that holds the text."""
    tuning_tokens: Quantity
    """Tokens of the corpus on which every teacher is then tuned; a grid's lengths are those of its base."""


class Corpus(Part):
    """The text, its held-out part and its vocabulary."""

    source: str = Field("kjv", min_length=1)
    """``kjv``, ``shakespeare``, ``permissive``, ``mix``, ``hf:OWNER/NAME``, or a path or glob of .txt,
    .jsonl or .parquet."""
    text_field: str = "text"
    """Field (.jsonl) or column (.parquet, datasets) that holds the text."""
    heldout: Number | None = Field(None, gt=0, lt=1)
    """Share of each part's text held out, in whole documents; if not given, enough for a precise loss."""
    vocab: Count = Field(VOCAB, gt=0)
    """Entries of the byte-level BPE vocabulary."""
    tokenizer: str | None = Field(None, min_length=1)
    """A directory or OWNER/NAME on a hub whose tokenizer is used instead, as students of its model need."""
    context: Count = Field(128, ge=8)
    """Sequence length, tokens."""
    seed: Seed = 0
    """Seed of the held-out choice."""
    halves: bool = False
    """Train students on one half of the training documents and all else on the other, as in the paper."""
    like: Corpus | None = None
    """A corpus whose vocabulary is used instead."""

    def on(self, base: Base) -> Corpus:
        """The text of ``base``, cut as this one is."""
        other = {"source": base.source, "text_field": base.text_field, "heldout": None}
        return self.model_copy(update={**other, "tokenizer": None, "like": self})
