"""Warnings about the text, in plans and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.data.corpus import planned_tokens
from sweeps.data.tokens import HeldoutPart, TokenizedCorpus
from sweeps.estimate import text_warnings
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep


def corpus_with(tokens: int, *licences: str) -> TokenizedCorpus:
    parts = tuple(
        HeldoutPart(
            name=f"text {number}",
            licence=licence,
            documents=10,
            heldout_documents=1,
            heldout_tokens=tokens // len(licences),
            heldout_bytes=tokens,
        )
        for number, licence in enumerate(licences)
    )
    return TokenizedCorpus(
        path=Path("/nowhere"), fingerprint="", source="made", vocab=512, train_tokens=9 * tokens, parts=parts
    )


def test_licences_that_bind_are_named() -> None:
    (caution,) = text_warnings.text_warnings(
        corpus_with(10**6, "public domain", "GPL-3.0-or-later", "CC BY-SA 3.0")
    )
    assert caution.startswith("! text 1 under GPL-3.0-or-later and text 2 under CC BY-SA 3.0")
    assert not text_warnings.text_warnings(corpus_with(10**6, "public domain", "Apache-2.0"))


@pytest.mark.parametrize(("tokens", "mend"), [(90_000, "set corpus.heldout: 0.22"), (9000, "more text")])
def test_a_held_out_part_that_is_too_small_says_what_would_do(tokens: int, mend: str) -> None:
    (caution,) = text_warnings.text_warnings(corpus_with(tokens, "public domain"))
    assert f"! {tokens:,} held-out tokens" in caution
    assert "0.3% needs 196,544" in caution
    assert caution.endswith(mend)


def test_repetition_is_told_from_wearing_out() -> None:
    assert not text_warnings.epoch_warnings([0.2, 1.0, float("nan")])
    (mild,) = text_warnings.epoch_warnings([0.5, 1.5, 3.5])
    assert mild.startswith("2 runs see their text more than once, at most 3.5 times")
    (worn,) = text_warnings.epoch_warnings([1.5, 3.5, 4.5, 9.0])
    assert worn.startswith("! 4 runs")
    assert "2 more than 4 times" in worn


def test_epochs_are_those_of_the_half_that_a_run_sees(small_spec: dict[str, Any], own_cache: Path) -> None:
    whole = dag_of(parse_sweep(small_spec)).steps[0]
    small_spec["corpus"] |= {"halves": True}
    half = dag_of(parse_sweep(small_spec)).steps[0]
    corpus = planned_tokens(whole.corpus, whole.corpus_fingerprint)
    assert text_warnings.epochs(whole, corpus) == whole.tokens / corpus.train_tokens
    assert text_warnings.epochs(half, corpus) == pytest.approx(
        2 * text_warnings.epochs(whole, corpus), rel=1e-3
    )
