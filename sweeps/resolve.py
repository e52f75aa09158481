"""Look up everything a sweep names outside its spec: text, tokenizers, pretrained teachers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scaling.units import format_number
from sweeps.dag.compile_choice import CompileChoice, choose_sizes, compiled_params
from sweeps.dag.compiled_sizes import with_compile
from sweeps.dag.expand import Dag, expand
from sweeps.dag.kept_text import with_kept_tokens
from sweeps.dag.resolved import PretrainedTeacher, Resolved, Text
from sweeps.data.corpus import fingerprint_of, resolve_corpus, with_absolute_paths
from sweeps.data.named_corpora import NAMED_CORPORA
from sweeps.data.text_size import estimated_size
from sweeps.pretrained.admission import admit_teacher
from sweeps.spec.corpus import VOCAB, Corpus
from sweeps.spec.pretrained import Pretrained
from sweeps.spec.spec import Sweep

ASSUMED_VOCAB = 32_768
"""Vocabulary of a tokenizer that is not read and whose size the spec does not state."""


def dag_of(sweep: Sweep) -> Dag:
    """Return the steps of ``sweep``: :func:`resolve`, then :func:`~sweeps.dag.expand.expand`.

    Raises:
        InputError: As those two, and for more FLOPs than ``caps.flops``.
    """
    resolved = resolve(sweep)
    dag = with_kept_tokens(expand(resolved), resolved.text)
    sweep.caps.check(flops=dag.flops)
    return dag


def resolve(spec: Sweep, *, read_text: bool = True) -> Resolved:
    """Read what ``spec`` names: its text, the tokenizers of others, and pretrained teachers.

    Args:
        spec: A validated spec.
        read_text: Read the text. Without it, its tokens are estimated from its bytes, and the vocabulary of a
            tokenizer that is not on this machine is assumed; pretrained teachers are looked at all the same.

    Returns:
        Plain data, from which the steps follow without any file, and in words what was read and assumed.

    Raises:
        InputError: For a text, tokenizer or model that cannot be found or does not fit.
    """
    corpus = with_absolute_paths(spec.corpus)
    text = _text(resolve_corpus(corpus)) if read_text else _unread(_with_vocab(spec, corpus))
    sweep = spec.model_copy(update={"corpus": text.corpus})
    heldout = text.estimated.heldout_tokens if text.estimated else None
    precision, teachers = sweep.training.precision, {}
    for number, given in enumerate(sweep.teachers):
        if isinstance(given, Pretrained):
            shape, model = admit_teacher(given, text.corpus, f"teachers[{number}]", precision, heldout)
            teachers[number] = PretrainedTeacher(shape=shape, model=model)
    of = _text if read_text else _unread
    resolved = Resolved(
        spec=spec,
        sweep=sweep,
        text=text,
        base=of(with_absolute_paths(text.corpus.on(sweep.base))) if sweep.base else None,
        teachers=teachers,
        reads=tuple(_reads(sweep, read_text=read_text)),
        assumed=() if read_text else tuple(_assumed(corpus, text)),
    )
    return decide_by_table(resolved) if sweep.training.compile == "auto" else resolved


def decide_by_table(resolved: Resolved) -> Resolved:
    """Return a sweep with ``training.compile: auto`` decided by a fixed table, alike on every machine."""
    choices = choose_sizes(without_compile(resolved), resolved.sweep)
    return with_choices(resolved, choices)


def without_compile(resolved: Resolved) -> Dag:
    """Return the steps of a sweep as if none were compiled."""
    return expand(replace(resolved, sweep=with_compile(resolved.sweep, given=False)))


def with_choices(resolved: Resolved, choices: tuple[CompileChoice, ...]) -> Resolved:
    """Return a sweep whose sizes are compiled as ``choices`` say."""
    sweep = with_compile(resolved.sweep, given=compiled_params(choices) or False)
    return replace(resolved, sweep=sweep, compile_choices=choices)


def _text(corpus: Corpus) -> Text:
    return Text(corpus=corpus, fingerprint=fingerprint_of(corpus))


def _unread(corpus: Corpus) -> Text:
    """Return ``corpus`` with its tokens estimated; its fingerprint is right where nothing is read for it."""
    named = corpus.source in NAMED_CORPORA and corpus.like is None and not corpus.tokenizer
    unknown = hashlib.sha256(corpus.model_dump_json().encode()).hexdigest()[:9]
    return Text(
        corpus=corpus,
        fingerprint=fingerprint_of(corpus) if named else f"unread-{unknown}",
        estimated=estimated_size(corpus),
    )


def _with_vocab(sweep: Sweep, corpus: Corpus) -> Corpus:
    """Return ``corpus`` with the vocabulary of its tokenizer, assumed where that is not to be fetched."""
    if not corpus.tokenizer:
        return corpus
    pretrained = any(isinstance(teacher, Pretrained) for teacher in sweep.teachers)
    if pretrained or Path(corpus.tokenizer).exists():
        return resolve_corpus(corpus)
    return corpus.model_copy(update={"vocab": ASSUMED_VOCAB}) if corpus.vocab == VOCAB else corpus


def _reads(sweep: Sweep, *, read_text: bool) -> Iterator[str]:
    texts = [sweep.corpus.source, *([sweep.base.source] if sweep.base else [])]
    yield from (f"the text {source}, to identify it" for source in texts if read_text)
    if sweep.corpus.tokenizer and (read_text or Path(sweep.corpus.tokenizer).exists()):
        yield f"the tokenizer of {sweep.corpus.tokenizer}, for its vocabulary"
    if sweep.base and read_text:
        yield f"the text {sweep.corpus.source}, whose vocabulary the base shares"
    for given in sweep.teachers:
        if isinstance(given, Pretrained):
            yield f"config.json and the tokenizer of {given.model}"


def _assumed(asked: Corpus, text: Text) -> Iterator[str]:
    """Say what was not read, and what stands in for it."""
    assert text.estimated is not None
    found = text.estimated
    tokens = f"about {format_number(found.train_tokens)}" if found.known else "an unknown number of"
    yield (
        f"the text {asked.source} is not read: {tokens} training tokens and about "
        f"{format_number(found.heldout_tokens)} held-out ones are assumed"
    )
    if asked.tokenizer and text.corpus.vocab != asked.vocab and not Path(asked.tokenizer).exists():
        yield (
            f"vocabulary assumed {text.corpus.vocab:,} until the tokenizer of {asked.tokenizer} is read; "
            "corpus.vocab states it"
        )
    elif not asked.tokenizer:
        yield (
            f"vocabulary assumed {text.corpus.vocab:,} until the corpus is read: a small text may support "
            "fewer entries"
        )
    if text.fingerprint.startswith("unread-"):
        yield "ids of steps change when the text is read, which identifies it; none counts as done yet"
