"""How many passes over a token each method takes: what it costs, before it runs."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.spec.method import Method


@dataclass(frozen=True, slots=True)
class Passes:
    """Over a token of a batch, on average. Writing a token is reading it: a forward pass.

    Keys and values are kept while writing, so that a sequence costs one pass over its prompt and itself.
    """

    trained: float = 1.0
    """Of the student, forward and backward."""
    written: float = 0.0
    """Of the student, forward; under replay at most, since it writes as its loss demands."""
    read: float = 0.0
    """Of the teacher, over what is trained on."""
    written_along: float = 0.0
    """Of the teacher, where it writes together with the student."""
    written_before: float = 0.0
    """Of the teacher, for text that it wrote once, as if it did so for this run alone."""


def passes_of(method: Method | None) -> Passes:
    """Those of a run with ``method``, or of one on the data alone."""
    if method is None:
        return Passes()
    source, updates = method.source, method.credit.updates if method.credit else 1
    read = 1.0 if method.reads_teacher else 0.0
    if source.by == "teacher":
        return Passes(read=read, written_before=1.0)
    if source.by == "both":
        return Passes(written=0.5, read=read, written_before=0.5)
    written = source.fraction / updates if source.by == "student" else 0.0
    return Passes(
        trained=2.0 if method.pretraining else 1.0,
        written=written,
        read=read / updates,
        written_along=written if source.teacher_share or method.credit else 0.0,
    )
