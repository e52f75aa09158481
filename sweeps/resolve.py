"""Look up everything a sweep names outside its spec: text, tokenizers, pretrained teachers."""

from __future__ import annotations

from sweeps.dag.expand import Dag, expand
from sweeps.dag.resolved import PretrainedTeacher, Resolved, Text
from sweeps.data.corpus import fingerprint_of, resolve_corpus, with_absolute_paths
from sweeps.pretrained.admission import admit_teacher
from sweeps.spec.corpus import Corpus
from sweeps.spec.spec import Pretrained, Sweep


def dag_of(sweep: Sweep) -> Dag:
    """Return the steps of ``sweep``: :func:`resolve`, then :func:`~sweeps.dag.expand.expand`.

    Raises:
        InputError: as those two.
    """
    return expand(resolve(sweep))


def resolve(sweep: Sweep) -> Resolved:
    """Read what ``sweep`` names: its text, the tokenizers of others, and pretrained teachers.

    Raises:
        InputError: for a text, tokenizer or model that cannot be found or does not fit.
    """
    text = _text(resolve_corpus(sweep.corpus))
    sweep = sweep.model_copy(update={"corpus": text.corpus})
    teachers = {
        number: PretrainedTeacher(shape=shape, model=model)
        for number, given in enumerate(sweep.teachers)
        if isinstance(given, Pretrained)
        for shape, model in [
            admit_teacher(given, text.corpus, f"teachers[{number}]", sweep.training.precision)
        ]
    }
    return Resolved(
        sweep=sweep,
        text=text,
        base=_text(with_absolute_paths(text.corpus.on(sweep.base))) if sweep.base else None,
        teachers=teachers,
        reads=tuple(_reads(sweep)),
    )


def _text(corpus: Corpus) -> Text:
    return Text(corpus=corpus, fingerprint=fingerprint_of(corpus))


def _reads(sweep: Sweep) -> list[str]:
    texts = [sweep.corpus.source, *([sweep.base.source] if sweep.base else [])]
    read = [f"the text {source}, to identify it" for source in texts]
    if sweep.corpus.tokenizer:
        read.append(f"the tokenizer of {sweep.corpus.tokenizer}, for its vocabulary")
    if sweep.base:
        read.append(f"the text {sweep.corpus.source}, whose vocabulary the base shares")
    models = [given.model for given in sweep.teachers if isinstance(given, Pretrained)]
    return read + [f"config.json and the tokenizer of {model}" for model in models]
