"""Report on a model as a teacher: size, cost, speed, and loss on a text, in fp32 and in a lower precision."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import CountedShape, Precision
from sweeps.data.corpus import resolve_corpus, tokens_of
from sweeps.data.model_dir import locate
from sweeps.data.tokenizer import ExternalTokenizer
from sweeps.data.tokens import HeldoutPart, TokenizedCorpus
from sweeps.model.decoder import INFERENCE_PRECISIONS, Decoder
from sweeps.model.device import device
from sweeps.model.heldout import block_losses, standard_error
from sweeps.pretrained.count import read_card
from sweeps.pretrained.load import Foreign, load_pretrained
from sweeps.spec.corpus import Corpus

STUDENT_WIDTHS = (64, 128, 256, 512)
"""Widths of students whose embeddings are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartLoss:
    """Loss on one part of a text."""

    name: str
    loss: float
    """Cross-entropy, nats/token."""
    standard_error: float
    """Standard error over blocks, nats/token."""
    bits_per_byte: float
    share: float
    """Share of the held-out tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoweredLoss:
    """Loss in a precision below fp32, on the same tokens."""

    precision: Precision
    loss: float
    """Cross-entropy, nats/token."""
    difference: float
    """Difference of this loss from that in fp32, nats/token."""
    standard_error: float
    """Standard error of the difference, over blocks that both read, nats/token."""
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredLoss:
    """Loss on held-out text, averaged over its parts by tokens."""

    corpus: str
    context: int
    tokens: int
    """Number of evaluated tokens."""
    loss: float
    standard_error: float
    bits_per_byte: float
    parts: tuple[PartLoss, ...]
    tokens_per_second: float
    lowered: LoweredLoss | None = None
    """Loss in the precision that was asked for, if that is not fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherReport:
    """Report on a model as a teacher, and on the vocabulary of its students."""

    model: str
    architecture: str
    licence: str | None
    params: int
    """Non-embedding parameters."""
    active_params: int
    """Non-embedding parameters used per token: of experts, those that a token is routed to."""
    embedding_params: int
    context: int
    """Longest context, tokens."""
    outputs: int
    """Rows of the output projection, padding included."""
    vocabulary: int
    """Vocabulary size of the tokenizer."""
    end_of_text: str
    forward_flops: float
    """FLOPs per token at the context of the measurement, over the tokenizer's vocabulary."""
    student_embeddings: dict[int, int]
    """Parameters of a tied embedding over this vocabulary, by width."""
    measured: MeasuredLoss | None

    def catalog(self) -> str:
        """Return a CSV catalog with this teacher, for ``distlaw plan --teachers``."""
        loss = f"{self.measured.loss:.4g}" if self.measured else ""
        row = (
            self.model,
            self.params,
            self.active_params,
            f"{self.forward_flops:.4g}",
            self.vocabulary,
            loss,
        )
        return "name,params,active_params,forward_flops,vocab,loss\n" + ",".join(map(str, row))

    @property
    def padding(self) -> int:
        """Number of outputs without a token."""
        return self.outputs - self.vocabulary


def check_teacher(
    model: str, corpus: str | None, *, context: int, tokens: int, precision: Precision | None = None
) -> TeacherReport:
    """Describe ``model``, and evaluate it on about ``tokens`` held-out tokens of ``corpus``.

    It is evaluated in fp32, and on the same tokens in ``precision``: if that is not given, in bf16 on a GPU.

    Raises:
        InputError: if it cannot be a teacher.
    """
    where = "teacher"
    folder = locate(model, None, where).folder()
    card = read_card(folder, where)
    tokenizer = ExternalTokenizer.read(folder, where)
    context = min(context, card.shape.context)
    precision = precision or ("bf16" if device().type == "cuda" else "fp32")
    teacher = load_pretrained(folder, tokenizer.size, where).to(device())
    measured = None
    if corpus:
        text = tokens_of(resolve_corpus(Corpus(source=corpus, tokenizer=str(folder), context=context)))
        samples = list(_samples(text, context, tokens))
        read = _read(teacher, samples, context)
        measured = _measured(read, samples, text, corpus, context)
        del teacher
        if precision != "fp32":
            lower = load_pretrained(folder, tokenizer.size, where, precision).to(device())
            measured = replace(measured, lowered=_lowered(lower, read, samples, precision, context))
    return TeacherReport(
        model=model,
        architecture=card.architecture,
        licence=card.licence,
        params=card.shape.params,
        active_params=active_params(card.shape),
        embedding_params=card.shape.embedding_params,
        context=card.shape.context,
        outputs=card.shape.vocab,
        vocabulary=tokenizer.size,
        end_of_text=tokenizer.end_of_text,
        forward_flops=replace(card.shape, vocab=tokenizer.size, context=context).forward_flops,
        student_embeddings={width: width * tokenizer.size for width in STUDENT_WIDTHS},
        measured=measured,
    )


def active_params(shape: ModelShape) -> int:
    """Return the non-embedding parameters used per token."""
    return shape.active if isinstance(shape, CountedShape) else shape.params


class _Sample(NamedTuple):
    """Held-out tokens of one part of a text that a teacher is measured on."""

    part: HeldoutPart
    share: float
    """Share of the part in the held-out tokens."""
    tokens: NDArray[np.integer]


class _Read(NamedTuple):
    """Losses of one teacher on samples, by block of one context."""

    losses: list[NDArray[np.float64]]
    tokens: int
    seconds: float


def _samples(text: TokenizedCorpus, context: int, tokens: int) -> Iterator[_Sample]:
    begin = 0
    for part in text.parts:
        share = part.heldout_tokens / text.heldout_tokens
        some = max(2 * context + 1, round(share * tokens))
        yield _Sample(part, share, text.heldout[begin : begin + min(part.heldout_tokens, some)])
        begin += part.heldout_tokens


def _read(teacher: Decoder | Foreign, samples: Sequence[_Sample], context: int) -> _Read:
    started = time.perf_counter()
    losses = [block_losses(teacher, each.tokens, context=context) for each in samples]
    return _Read(losses, sum(map(len, losses)) * context, time.perf_counter() - started)


def _measured(
    read: _Read, samples: Sequence[_Sample], text: TokenizedCorpus, corpus: str, context: int
) -> MeasuredLoss:
    parts = [
        PartLoss(
            name=each.part.name,
            loss=float(losses.mean()),
            standard_error=standard_error(losses),
            bits_per_byte=float(losses.mean())
            / math.log(2)
            * each.part.heldout_tokens
            / each.part.heldout_bytes,
            share=each.share,
        )
        for each, losses in zip(samples, read.losses, strict=True)
    ]
    loss, error = _average(read.losses, samples)
    return MeasuredLoss(
        corpus=corpus,
        context=context,
        tokens=read.tokens,
        loss=loss,
        standard_error=error,
        bits_per_byte=loss / math.log(2) / text.bytes_per_token,
        parts=tuple(parts),
        tokens_per_second=read.tokens / read.seconds,
    )


def _lowered(
    teacher: Decoder | Foreign, full: _Read, samples: Sequence[_Sample], precision: Precision, context: int
) -> LoweredLoss:
    if isinstance(teacher, Decoder):
        teacher.precision = INFERENCE_PRECISIONS[precision]
    read = _read(teacher, samples, context)
    changes = [lower - before for lower, before in zip(read.losses, full.losses, strict=True)]
    difference, error = _average(changes, samples)
    return LoweredLoss(
        precision=precision,
        loss=_average(read.losses, samples)[0],
        difference=difference,
        standard_error=error,
        tokens_per_second=read.tokens / read.seconds,
    )


def _average(blocks: Sequence[NDArray[np.float64]], samples: Sequence[_Sample]) -> tuple[float, float]:
    """Return the mean over parts by their shares, and its standard error."""
    mean = sum(each.share * float(own.mean()) for each, own in zip(samples, blocks, strict=True))
    errors = (each.share * standard_error(own) for each, own in zip(samples, blocks, strict=True))
    return mean, math.hypot(*errors)
