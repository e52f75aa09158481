"""What a foreign model would be as a teacher: size, cost, speed, and loss on a text."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import CountedShape
from sweeps.data.corpus import resolved, tokens_of
from sweeps.data.model_dir import locate
from sweeps.data.tokenizer import GivenTokenizer
from sweeps.model.device import device
from sweeps.model.heldout import heldout_loss
from sweeps.pretrained.count import card_of
from sweeps.pretrained.load import load
from sweeps.spec.corpus import Corpus

WIDTHS = (64, 128, 256, 512)
"""Of students whose embeddings are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartLoss:
    """Loss on one part of a text."""

    name: str
    loss: float
    """nats/token"""
    standard_error: float
    """nats/token, over blocks"""
    bits_per_byte: float
    share: float
    """Of the held-out tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Loss on held-out text, pooled over its parts by their tokens."""

    corpus: str
    context: int
    tokens: int
    """That were read."""
    loss: float
    standard_error: float
    bits_per_byte: float
    parts: tuple[PartLoss, ...]
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What a model is, and what its students need."""

    model: str
    architecture: str
    licence: str | None
    params: int
    """Non-embedding."""
    active_params: int
    """Those of them that a token meets: of experts, the share that it is sent to."""
    embedding_params: int
    context: int
    """The longest it is made for."""
    outputs: int
    """Rows of its output projection, padding included."""
    vocabulary: int
    """Of its tokenizer."""
    end_of_text: str
    forward_flops: float
    """FLOPs a token at ``context`` of the measurement, over the tokenizer's vocabulary."""
    student_embeddings: dict[int, int]
    """Parameters of a tied embedding over this vocabulary, by width."""
    measured: Measured | None

    def catalogue(self) -> str:
        """A catalogue of this one teacher, for ``distlaw plan --teachers``, as CSV."""
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
        """Outputs that no token has."""
        return self.outputs - self.vocabulary


def check(model: str, corpus: str | None, *, context: int, tokens: int) -> Checked:
    """Look at ``model`` and measure it on about ``tokens`` held-out tokens of ``corpus``.

    Raises:
        InputError: if it could not teach.
    """
    where = "teacher"
    place = locate(model, None, where)
    folder = place.folder()
    card = card_of(folder, where)
    tokenizer = GivenTokenizer.read(folder, where)
    teacher: Any = load(folder, tokenizer.size, where).to(device())
    context = min(context, card.shape.context)
    return Checked(
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
        student_embeddings={width: width * tokenizer.size for width in WIDTHS},
        measured=_measure(teacher, folder, corpus, context, tokens) if corpus else None,
    )


def active_params(shape: ModelShape) -> int:
    """Non-embedding parameters that a token meets."""
    return shape.active if isinstance(shape, CountedShape) else shape.params


def _cost(shape: ModelShape, vocab: int, context: int) -> float:
    from dataclasses import replace

    return replace(shape, vocab=vocab, context=context).forward_flops


def _measure(teacher: Any, folder: Path, corpus: str, context: int, tokens: int) -> Measured:
    spec = resolved(Corpus(source=corpus, tokenizer=str(folder), context=context))
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
    return Measured(
        corpus=corpus,
        context=context,
        tokens=read,
        loss=loss,
        standard_error=math.hypot(*(part.share * part.standard_error for part in parts)),
        bits_per_byte=loss / math.log(2) / text.bytes_per_token,
        parts=tuple(parts),
        tokens_per_second=read / seconds,
    )
