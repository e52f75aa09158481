"""Memory of the batches that a run reads ahead from caches."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.dag.step import Step
from sweeps.distill.caches.logit_format import kept
from sweeps.distill.caches.read_ahead import batches_ahead
from sweeps.distill.generation.generated_text import text_format


def read_ahead_bytes(step: Step, tokens: float) -> float:
    """Return the bytes, in memory of the host, of batches of ``tokens`` that a run of ``step`` holds at most.

    For each cache they are the batch at work and those that are read ahead, in the layout of memory, where a
    compact format has as many places for every token.
    """
    each = (tokens * size for size in _bytes_per_token(step))
    return sum(((1 + batches_ahead(batch)) * batch for batch in each), 0.0)


def _bytes_per_token(step: Step) -> Iterator[float]:
    """Yield the bytes in memory of a token of each cache that the step reads."""
    if step.logits and step.logits.method:
        yield kept(step.logits.method, step.logits.shape.vocab).dtype.itemsize
    if step.texts and step.texts.method:
        yield text_format(step.texts.method, step.texts.shape.vocab).dtype.itemsize
    for cache in step.features:
        if cache.hidden:
            yield cache.hidden.bytes_per_token(cache.shape.width)
