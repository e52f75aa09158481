"""The text of a spec: whose tokenizer it is cut with, what identifies it, and its tokens."""

from __future__ import annotations

from pathlib import Path

from scaling.errors import InputError
from sweeps.data import TokenisedCorpus, source_of, tokenise
from sweeps.data.model_dir import HUB_ID, snapshot
from sweeps.data.named import NAMED
from sweeps.data.tokenizer import GivenTokenizer
from sweeps.data.tokens import corpus_fingerprint
from sweeps.spec.corpus import VOCAB, Corpus

TOKENIZER_FILES = ("tokenizer*.json",)


def resolved(corpus: Corpus) -> Corpus:
    """``corpus`` with its files named from any directory, and the vocabulary of the tokenizer it names.

    Raises:
        InputError: if that tokenizer cannot be had, or the spec asks for another size of it.
    """
    corpus = located(corpus)
    given = given_tokenizer(corpus)
    if given is None:
        return corpus
    if corpus.vocab not in (VOCAB, given.size):
        raise InputError(
            f"corpus.vocab: {corpus.vocab:,}, but {corpus.tokenizer} has {given.size:,} entries; remove "
            "'vocab', or 'tokenizer' to train one of that size"
        )
    return corpus.model_copy(update={"vocab": given.size})


def located(corpus: Corpus) -> Corpus:
    """Return ``corpus`` with its files named from any directory."""
    places: dict[str, str] = {}
    if corpus.source not in NAMED and not corpus.source.startswith("hf:"):
        places["source"] = corpus.source
    if corpus.tokenizer and Path(corpus.tokenizer).expanduser().exists():
        places["tokenizer"] = corpus.tokenizer
    return corpus.model_copy(
        update={field: str(Path(place).expanduser().absolute()) for field, place in places.items()}
    )


def given_tokenizer(corpus: Corpus) -> GivenTokenizer | None:
    """The tokenizer that ``corpus`` names, from disk or a hub; None if one is to be trained on the text."""
    if corpus.like is not None:
        return GivenTokenizer.read(tokens_of(corpus.like).tokenizer_files)
    if corpus.tokenizer is None:
        return None
    place = Path(corpus.tokenizer).expanduser()
    if not place.exists() and HUB_ID.fullmatch(corpus.tokenizer):
        place = snapshot(corpus.tokenizer, None, TOKENIZER_FILES, "corpus.tokenizer")
    return GivenTokenizer.read(place)


def fingerprint_of(corpus: Corpus) -> str:
    """What identifies the tokens of ``corpus``, before anything is parsed."""
    return corpus_fingerprint(
        source_of(corpus.source, corpus.text_field),
        vocab=corpus.vocab,
        heldout=corpus.heldout,
        seed=corpus.seed,
        tokenizer=given_tokenizer(corpus),
    )


def tokens_of(corpus: Corpus) -> TokenisedCorpus:
    """The tokens of ``corpus``, from the cache of this machine if they are there."""
    return tokenise(
        source_of(corpus.source, corpus.text_field),
        vocab=corpus.vocab,
        heldout=corpus.heldout,
        seed=corpus.seed,
        tokenizer=given_tokenizer(corpus),
    )
