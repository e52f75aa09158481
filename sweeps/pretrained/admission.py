"""Check that a pretrained model can be a teacher in a sweep, when the spec is resolved."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.external_shape import ExternalModel, Precision, ServedModel
from sweeps.data.corpus import given_tokenizer, tokens_of
from sweeps.data.model_dir import PLANNING_FILES, locate, read_config
from sweeps.data.tokenizer import ExternalTokenizer
from sweeps.pretrained.count import read_card
from sweeps.pretrained.quantized import bytes_of_files, quantization_of
from sweeps.pretrained.vocabulary import require_same_vocabulary
from sweeps.spec.corpus import Corpus
from sweeps.spec.pretrained import Pretrained


def admit_teacher(
    teacher: Pretrained,
    corpus: Corpus,
    where: str,
    precision: Precision = "fp32",
    heldout_tokens: float | None = None,
) -> tuple[ModelShape, ExternalModel]:
    """Return the shape of ``teacher`` at the context and vocabulary of ``corpus``, and its identity.

    Args:
        teacher: the teacher in the spec.
        corpus: the resolved corpus.
        where: its field in the spec, for messages.
        precision: precision of the sweep's runs, used unless the teacher has its own.
        heldout_tokens: estimate, where the text is not to be read; nor is a tokenizer trained on it then.

    Raises:
        InputError: if it cannot be read, supports only shorter contexts, or has another vocabulary.
    """
    place = locate(teacher.model, teacher.revision, where, weights=teacher.source is None)
    folder = place.folder(PLANNING_FILES)
    card = read_card(folder, where)
    if card.shape.context < corpus.context:
        raise InputError(
            f"{where}: {teacher.model} supports contexts of at most {card.shape.context:,} tokens; lower "
            f"corpus.context ({corpus.context})"
        )
    own = ExternalTokenizer.read(folder, where)
    students = given_tokenizer(corpus)
    read_text = heldout_tokens is None
    if students is None and own.size == corpus.vocab and read_text:  # it may be the one trained on this text
        students = ExternalTokenizer.read(tokens_of(corpus).tokenizer_files)
    require_same_vocabulary(
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
    if heldout_tokens is None:
        heldout_tokens = tokens_of(corpus).heldout_tokens
    config, served = read_config(folder, where), _served_model(teacher)
    quantization = None if served else quantization_of(config, where)
    shape = replace(card.shape, vocab=corpus.vocab, context=corpus.context)
    return shape, ExternalModel(
        place=place,
        fingerprint=served_fingerprint(served, config, own.sha256) if served else place.fingerprint,
        tokens=teacher.tokens,
        heldout_tokens=round(heldout_tokens),
        precision="fp32" if served else teacher.precision or precision,
        quantization=quantization,
        file_bytes=bytes_of_files(folder) if quantization else None,
        served=served,
    )


def _served_model(teacher: Pretrained) -> ServedModel | None:
    source = teacher.source
    if source is None:
        return None
    return ServedModel(
        url=source.served,
        name=source.name or teacher.model,
        revision=source.revision,
        tokens_per_second=source.tokens_per_second,
    )


def served_fingerprint(served: ServedModel, config: dict[str, Any], tokenizer: str) -> str:
    """Return the hash of what is known of a served model: its name, revision, configuration and tokenizer."""
    known = json.dumps([served.name, served.revision, config, tokenizer], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:16]
