"""Text of teachers on shards of a text, and controls of private text: their mean, and the public model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from scaling.errors import InputError
from sweeps.pate.ensemble import check_temperature
from sweeps.pate.shards import ShardCounts, check_teachers, shard_length
from sweeps.spec.fields import Count, Number
from sweeps.spec.method.interfaces import SequenceSource, Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sweeps.dag.step import Step
    from sweeps.data.batches import Batches
    from sweeps.distill.models import Models
    from sweeps.model.language_model import LanguageModel
    from sweeps.pate.generator import Group, TeachersAlong
    from sweeps.pate.tuning import PublicPosition
    from sweeps.spec.method.method import Method
    from sweeps.spec.spec import Sweep

PublicModel = Literal["teacher", "base"]
PUBLIC_POSITIONS = 8192
"""Places of public text that a threshold is chosen on."""


class EnsembleText(SequenceSource):
    """Text that teachers on shards of the students' text write; the base of sources here."""

    version: ClassVar[str | None] = "1"
    writes_before: ClassVar[bool] = True
    teachers: Count = 1000
    """Number of shards, n: equal contiguous pieces of the text that students would be trained on."""
    public_model: PublicModel = "teacher"
    """Public model: the run's teacher, or the model of the spec's ``base`` text that it was tuned from."""
    by: Literal["counts", "contexts"] = "counts"
    """Teachers are n-gram counts of their shard, smoothed by the public model; or the public model itself
    with the first tokens of the shard before the text."""
    order: Literal[2, 3] = 2
    """Length of n-grams."""
    prior: Number = 4.0
    """Weight of the public model beside counts, in tokens."""
    context_tokens: Annotated[Count, Field(ge=1)] = 16
    """Tokens of each shard before the text, for ``by: contexts``."""
    temperature: Number = 1.0
    """Temperature of every teacher."""
    length: Annotated[Count, Field(ge=1)] | None = None
    """Tokens of a sequence; the context if not given, less the tokens before it."""

    def objections(self, method: Method) -> Iterator[str]:
        yield from reasons(check_teachers, self.teachers)
        yield from reasons(check_temperature, self.temperature)
        if self.prior <= 0:
            yield f"prior: {self.prior:g} leaves no answer where a shard has none; give 1 token or more"
        if method.taid:
            yield "taid: it sets its pace by how the loss falls on the data; remove it"

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        context = sweep.corpus.context
        before = self.context_tokens if self.by == "contexts" else 0
        if self.written_length(context) + before > context or self.written_length(context) < 1:
            yield (
                f"length: sequences of {self.written_length(context)} tokens after {before} do not fit into "
                f"corpus.context: {context}"
            )
        yield from _public_model_objections(sweep, self.public_model)

    def text_objections(self, tokens: float) -> Iterator[str]:
        needed, what = (
            (self.context_tokens, "contexts")
            if self.by == "contexts"
            else (self.order, f"{self.order}-grams")
        )
        yield from reasons(shard_length, tokens, self.teachers, needed, what)

    def written_length(self, context: int) -> int:
        """Return the tokens of a sequence."""
        return self.length or context - (self.context_tokens if self.by == "contexts" else 0)

    def teachers_along(self, models: Models, text: NDArray[np.integer], sequences: int) -> TeachersAlong:
        """Return the teachers on shards of ``text``, ready to read along with ``sequences`` sequences."""
        from sweeps.pate.language_models import ContextsAlong, CountsAlong, shard_contexts

        if self.by == "contexts":
            contexts = shard_contexts(text, self.teachers, self.context_tokens)
            return ContextsAlong(
                public_model(models, self.public_model), contexts, sequences, self.temperature
            )
        counts = self.counts_of(text, models.step.shape.vocab)
        return CountsAlong(public_model(models, self.public_model), counts, self.prior, self.temperature)

    def public_positions(self, models: Models, text: NDArray[np.integer]) -> Iterator[PublicPosition]:
        """Yield places of public ``text``, with teachers on its shards."""
        from sweeps.pate.language_models import (
            positions_beside_contexts,
            positions_beside_counts,
            shard_contexts,
        )

        model, context = public_model(models, self.public_model), models.step.shape.context
        blocks = spread_blocks(text, self.written_length(context), PUBLIC_POSITIONS)
        if self.by == "contexts":
            contexts = shard_contexts(text, self.teachers, self.context_tokens)
            yield from positions_beside_contexts(model, contexts, blocks[:16], self.temperature)
            return
        counts = self.counts_of(text, models.step.shape.vocab)
        yield from positions_beside_counts(model, counts, blocks, self.prior, self.temperature)

    def counts_of(self, text: NDArray[np.integer], vocab: int) -> ShardCounts:
        """Return the counts of the shards of ``text``."""
        return ShardCounts.of(text, teachers=self.teachers, vocab=vocab, order=self.order)

    def key(self, models: Models, data: Batches) -> str:
        """Return all that answers depend on, as the text that random numbers follow from."""
        step = models.step
        assert step.teacher is not None
        about = {"part": type(self).__name__, "options": self.model_dump(mode="json"), "seed": data.seed,
                 "text": step.corpus_fingerprint, "half": step.half, "teacher": step.teacher.id,
                 "context": data.context}  # fmt: skip
        return json.dumps(about, sort_keys=True)

    def write(self, models: Models, data: Batches, numbers: Tensor) -> Tensor:
        import torch

        from sweeps.pate.journal import blocks_of, packed

        stream = packed(self.groups(models, data), start_token(models.step))
        return torch.from_numpy(blocks_of(stream, numbers.numpy(), data.context))

    def groups(self, models: Models, data: Batches) -> list[Group]:
        """Return all groups of sequences, those that are in the store as they are."""
        raise NotImplementedError


class MeanText(EnsembleText):
    """Text drawn from the mean of the teachers, or of the public model alone: controls without privacy."""

    sequences: Annotated[Count, Field(ge=1)] = 1000
    """Number of sequences."""
    public: bool = False
    """Leave the teachers out: text that needs no private data."""

    def teacher_tokens(self, tokens: float) -> float:
        """Return the tokens that models read; lengths are those of the text's blocks at most."""
        return tokens

    def groups(self, models: Models, data: Batches) -> list[Group]:
        from sweeps.pate.generator import group_sizes, mean_text
        from sweeps.pate.journal import ReleaseJournal
        from sweeps.pate.randomness import OneTimeRandomness

        journal = ReleaseJournal(models.store, models.step.id)
        key = self.key(models, data)
        journal.settings(key, dict)
        done = journal.groups()
        groups = mean_text(
            lambda sequences: self.teachers_along(models, data.tokens, sequences),
            OneTimeRandomness(key),
            start=start_token(models.step),
            length=self.written_length(data.context),
            sizes=group_sizes(self.sequences)[len(done) :],
            first=len(done),
            public=self.public,
        )
        return [*done, *journal.written(groups, len(done))]

    def text_columns(self, models: Models, data: Batches) -> dict[str, float]:
        from sweeps.pate.journal import packed

        return {"text_tokens": float(len(packed(self.groups(models, data), 0)))}


class MeanTeacher(Target):
    """Mean of the teachers as a soft target, for teachers of counts at temperature 1. Nothing is private."""

    version: ClassVar[str | None] = "1"
    teachers: Count = 1000
    public_model: PublicModel = "teacher"
    order: Literal[2, 3] = 2
    prior: Annotated[Number, Field(gt=0)] = 4.0

    def objections(self, method: Method) -> Iterator[str]:
        yield from reasons(check_teachers, self.teachers)

    def text_objections(self, tokens: float) -> Iterator[str]:
        yield from reasons(shard_length, tokens, self.teachers, self.order, f"{self.order}-grams")

    def log_p(self, models: Models, inputs: Tensor, numbers: Tensor) -> Tensor:
        from sweeps.pate.language_models import mean_log_p

        step = models.step
        counts = _counts(step.corpus.model_dump_json(), step.corpus_fingerprint, step.half, step.shape.vocab,
                         self.teachers, self.order)  # fmt: skip
        return mean_log_p(public_model(models, self.public_model), counts, self.prior, inputs)


def spread_blocks(text: NDArray[np.integer], length: int, positions: int) -> NDArray[np.int64]:
    """Return blocks of ``length`` + 1 tokens spread evenly over ``text``, of so many positions in all."""
    import numpy as np

    count = max(1, min(positions // length, (len(text) - 1) // length))
    starts = np.linspace(0, len(text) - length - 1, count).astype(np.int64)
    return np.asarray(text[starts[:, None] + np.arange(length + 1)], np.int64)


def reasons(check: Callable[..., object], *given: object) -> Iterator[str]:
    """Yield why ``check`` refuses what is given, if it does."""
    try:
        check(*given)
    except InputError as error:
        yield str(error)


def start_token(step: Step) -> int:
    """Return the public token that sequences begin with: the end of a text."""
    from sweeps.data.corpus import planned_tokens
    from sweeps.data.tokenizer import ExternalTokenizer

    folder = planned_tokens(step.corpus, step.corpus_fingerprint).tokenizer_files
    return ExternalTokenizer.read(folder).end_of_text_id


def public_model(models: Models, which: PublicModel) -> LanguageModel:
    """Return the public model of a step."""
    return models.teacher if which == "teacher" else models.teacher_base


def _public_model_objections(sweep: Sweep, which: PublicModel) -> Iterator[str]:
    from sweeps.spec.pretrained import Pretrained

    if which == "base":
        if not sweep.base:
            yield "public_model: base is the text that teachers begin with; give the sweep a base"
    elif not sweep.corpus.halves and not all(isinstance(each, Pretrained) for each in sweep.teachers):
        yield (
            "corpus.halves: the public model would be trained on the private text; set corpus.halves: true "
            "(teachers then have the public half), name pretrained teachers, or set public_model: base"
        )


@lru_cache(maxsize=2)
def _counts(
    corpus: str,
    fingerprint: str,
    half: Literal["first", "second"] | None,
    vocab: int,
    teachers: int,
    order: int,
) -> ShardCounts:
    """Return counts of the training text, made once in a process."""
    from sweeps.data.corpus import planned_tokens
    from sweeps.spec.corpus import Corpus

    text = planned_tokens(Corpus.model_validate_json(corpus), fingerprint).train_tokens_of(half)
    return ShardCounts.of(text, teachers=teachers, vocab=vocab, order=order)
