"""Whether a foreign model can teach in a sweep, found out when the spec is read."""

from __future__ import annotations

from dataclasses import replace

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.external_shape import Foreign, Precision
from sweeps.data.corpus import given_tokenizer, tokens_of
from sweeps.data.model_dir import SMALL, locate
from sweeps.data.tokenizer import GivenTokenizer
from sweeps.pretrained.count import card_of
from sweeps.pretrained.vocabulary import compare
from sweeps.spec.corpus import Corpus
from sweeps.spec.spec import Pretrained


def admit(
    teacher: Pretrained, corpus: Corpus, where: str, precision: Precision = "fp32"
) -> tuple[ModelShape, Foreign]:
    """The shape of ``teacher`` at the context and vocabulary of ``corpus``, and what identifies it.

    Args:
        teacher: as the spec names it.
        corpus: resolved.
        where: its place in the spec, for messages.
        precision: of the sweep's runs, which it follows unless it has one of its own.

    Raises:
        InputError: if it cannot be read, was made for shorter contexts, or has other tokens than ``corpus``.
    """
    place = locate(teacher.model, teacher.revision, where)
    folder = place.folder(SMALL)
    card = card_of(folder, where)
    if card.shape.context < corpus.context:
        raise InputError(
            f"{where}: {teacher.model} is made for contexts of at most {card.shape.context:,} tokens; lower "
            f"corpus.context ({corpus.context})"
        )
    own = GivenTokenizer.read(folder, where)
    students = given_tokenizer(corpus)
    if students is None and own.size == corpus.vocab:  # it may be the one trained on this very text
        students = GivenTokenizer.read(tokens_of(corpus).tokenizer_files)
    compare(
        own.vocabulary,
        students.vocabulary if students else corpus.vocab,
        where=where,
        model=teacher.model,
        given=corpus.tokenizer,
    )
    if card.shape.vocab < corpus.vocab:
        raise InputError(
            f"{where}: {teacher.model} has outputs for {card.shape.vocab:,} tokens, fewer than the "
            f"{corpus.vocab:,} of its tokenizer"
        )
    shape = replace(card.shape, vocab=corpus.vocab, context=corpus.context)
    return shape, Foreign(
        place=place,
        fingerprint=place.fingerprint,
        tokens=teacher.tokens,
        heldout_tokens=tokens_of(corpus).heldout_tokens,
        precision=teacher.precision or precision,
    )
