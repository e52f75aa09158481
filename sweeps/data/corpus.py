"""Corpus of a spec: its tokenizer, fingerprint and tokens."""

from __future__ import annotations

from pathlib import Path

from scaling.errors import InputError
from sweeps.data import TokenizedCorpus, source_of, tokenize
from sweeps.data.files.source_files import is_url
from sweeps.data.model_dir import HUB_ID, snapshot
from sweeps.data.named_corpora import NAMED_CORPORA
from sweeps.data.sources import ReadingRules, TextSource
from sweeps.data.tokenizer import ExternalTokenizer
from sweeps.data.tokens import corpus_fingerprint
from sweeps.spec.corpus import VOCAB, Corpus

TOKENIZER_FILES = ("tokenizer*.json",)


def resolve_corpus(corpus: Corpus) -> Corpus:
    """Return ``corpus`` with absolute paths, and the vocabulary size of the tokenizer it names.

    Raises:
        InputError: if that tokenizer is not available, or the spec gives another vocabulary size.
    """
    corpus = with_absolute_paths(corpus)
    given = given_tokenizer(corpus)
    if given is None:
        return corpus
    if corpus.vocab not in (VOCAB, given.size):
        raise InputError(
            f"corpus.vocab: {corpus.vocab:,}, but {corpus.tokenizer} has {given.size:,} entries; remove "
            "'vocab', or 'tokenizer' to train one of that size"
        )
    return corpus.model_copy(update={"vocab": given.size})


def with_absolute_paths(corpus: Corpus) -> Corpus:
    """Return ``corpus`` with absolute paths."""
    places: dict[str, str] = {}
    in_place = corpus.source.startswith("hf:") or is_url(corpus.source)
    if corpus.source not in NAMED_CORPORA and not in_place:
        places["source"] = corpus.source
    if corpus.tokenizer and Path(corpus.tokenizer).expanduser().exists():
        places["tokenizer"] = corpus.tokenizer
    return corpus.model_copy(
        update={field: str(Path(place).expanduser().absolute()) for field, place in places.items()}
    )


def given_tokenizer(corpus: Corpus) -> ExternalTokenizer | None:
    """Return the tokenizer that ``corpus`` names, from disk or a hub; None if one is trained on the text."""
    if corpus.like is not None:
        return ExternalTokenizer.read(tokens_of(corpus.like).tokenizer_files)
    if corpus.tokenizer is None:
        return None
    place = Path(corpus.tokenizer).expanduser()
    if not place.exists() and HUB_ID.fullmatch(corpus.tokenizer):
        place = snapshot(corpus.tokenizer, None, TOKENIZER_FILES, "corpus.tokenizer")
    return ExternalTokenizer.read(place)


def fingerprint_of(corpus: Corpus) -> str:
    """Return the fingerprint of the tokens of ``corpus``, without parsing the text."""
    tokenizer = given_tokenizer(corpus)
    source = _source(corpus, tokenizer)
    return corpus_fingerprint(
        source, vocab=corpus.vocab, heldout=corpus.heldout, seed=corpus.seed, tokenizer=tokenizer
    )


def tokens_of(corpus: Corpus) -> TokenizedCorpus:
    """Return the tokens of ``corpus``, from the cache of this machine if it has them."""
    tokenizer = given_tokenizer(corpus)
    source = _source(corpus, tokenizer)
    return tokenize(source, vocab=corpus.vocab, heldout=corpus.heldout, seed=corpus.seed, tokenizer=tokenizer)


def _source(corpus: Corpus, tokenizer: ExternalTokenizer | None) -> TextSource:
    rules = ReadingRules(
        text_field=corpus.text_field,
        streaming=corpus.streaming,
        verify=corpus.verify,
        token_dtype=corpus.token_dtype,
        tokenizer=tokenizer,
    )
    return source_of(corpus.source, rules=rules)


def planned_tokens(corpus: Corpus, fingerprint: str) -> TokenizedCorpus:
    """Return the tokens of ``corpus``, verified to be those that a sweep was planned on.

    Args:
        corpus: The corpus of a step, resolved.
        fingerprint: What identified its tokens when the step was planned.

    Raises:
        InputError: If the text has changed since, or gives too few tokens for its context.
    """
    found = tokens_of(corpus)
    if found.fingerprint != fingerprint:
        raise InputError(
            f"corpus.source: {corpus.source} has changed since this sweep was planned; start it again"
        )
    if min(found.train_tokens, found.heldout_tokens) <= 2 * corpus.context:
        raise InputError(
            f"corpus.source: {corpus.source} gives {found.train_tokens:,} training tokens and "
            f"{found.heldout_tokens:,} held-out ones, too few for blocks of {corpus.context}; add text, or "
            "raise corpus.heldout"
        )
    return found
