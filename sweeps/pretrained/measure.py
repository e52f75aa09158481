"""Report on a model as a teacher: size, cost, speed, and loss on a text."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import CountedShape
from sweeps.data.corpus import resolve_corpus, tokens_of
from sweeps.data.model_dir import locate
from sweeps.data.tokenizer import ExternalTokenizer
from sweeps.model.device import device
from sweeps.model.heldout import heldout_loss
from sweeps.pretrained.count import read_card
from sweeps.pretrained.load import load_pretrained
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


def check_teacher(model: str, corpus: str | None, *, context: int, tokens: int) -> TeacherReport:
    """Describe ``model``, and evaluate it on about ``tokens`` held-out tokens of ``corpus``.

    Raises:
        InputError: if it cannot be a teacher.
    """
    where = "teacher"
    place = locate(model, None, where)
    folder = place.folder()
    card = read_card(folder, where)
    tokenizer = ExternalTokenizer.read(folder, where)
    teacher: Any = load_pretrained(folder, tokenizer.size, where).to(device())
    context = min(context, card.shape.context)
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
        forward_flops=_cost(card.shape, tokenizer.size, context),
        student_embeddings={width: width * tokenizer.size for width in STUDENT_WIDTHS},
        measured=_measure(teacher, folder, corpus, context, tokens) if corpus else None,
    )


def active_params(shape: ModelShape) -> int:
    """Return the non-embedding parameters used per token."""
    return shape.active if isinstance(shape, CountedShape) else shape.params


def _cost(shape: ModelShape, vocab: int, context: int) -> float:
    from dataclasses import replace

    return replace(shape, vocab=vocab, context=context).forward_flops


def _measure(teacher: Any, folder: Path, corpus: str, context: int, tokens: int) -> MeasuredLoss:
    spec = resolve_corpus(Corpus(source=corpus, tokenizer=str(folder), context=context))
    text = tokens_of(spec)
    parts, started, read, begin = [], time.perf_counter(), 0, 0
    for part in text.parts:
        share = part.heldout_tokens / text.heldout_tokens
        some = max(2 * context + 1, round(share * tokens))
        heldout = text.heldout[begin : begin + min(part.heldout_tokens, some)]
        begin += part.heldout_tokens
        found = heldout_loss(teacher, heldout, context=context)
        read += found.blocks * context
        parts.append(
            PartLoss(
                name=part.name,
                loss=found.loss,
                standard_error=found.standard_error,
                bits_per_byte=found.loss / math.log(2) * part.heldout_tokens / part.heldout_bytes,
                share=share,
            )
        )
    seconds = time.perf_counter() - started
    loss = sum(part.share * part.loss for part in parts)
    return MeasuredLoss(
        corpus=corpus,
        context=context,
        tokens=read,
        loss=loss,
        standard_error=math.hypot(*(part.share * part.standard_error for part in parts)),
        bits_per_byte=loss / math.log(2) / text.bytes_per_token,
        parts=tuple(parts),
        tokens_per_second=read / seconds,
    )
