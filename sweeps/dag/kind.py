"""Kinds of steps."""

from __future__ import annotations

from enum import StrEnum


class StepKind(StrEnum):
    """Kind of a step. The values are written to stores and hashed into ids, so they never change."""

    PRETRAIN = "pretrain"
    """Train a model on the data alone."""
    TUNE = "tune"
    """Continue training a model of another text on the corpus."""
    DISTILL = "distil"
    """Distil a student from its teacher."""
    SHARED_PREFIX = "trunk"
    """Train the stable phase that several runs of one size share; it stops before the decay."""
    PRELUDE = "prelude"
    """Train the weights that another step starts from."""
    CACHE_LOGITS = "cache"
    """Write a teacher's distributions over batches to the store."""
    CACHE_FEATURES = "cache-features"
    """Write a teacher's hidden states over batches to the store."""
    GENERATE_TEXT = "generate"
    """Write a teacher's continuations of prompts to the store."""
    EVALUATE = "evaluate"
    """Evaluate a pretrained model."""

    @property
    def label(self) -> str:
        """Name for people."""
        return "shared prefix" if self is StepKind.SHARED_PREFIX else self.value.replace("-", " ")

    @property
    def is_run(self) -> bool:
        """True if the step is a row of the runs table; others exist for those."""
        return self in (StepKind.PRETRAIN, StepKind.DISTILL)

    @property
    def is_cache(self) -> bool:
        """True if the step writes down what a teacher says of batches of the data."""
        return self in (StepKind.CACHE_LOGITS, StepKind.CACHE_FEATURES)

    @property
    def keeps_text(self) -> bool:
        """True if the step writes down what a teacher gives over the text, each block of it once."""
        return self.is_cache or self is StepKind.GENERATE_TEXT

    @property
    def trains(self) -> bool:
        """True if the step trains a model."""
        return not self.keeps_text and self is not StepKind.EVALUATE


def kind_label(kind: str) -> str:
    """Return the name for people of a kind that a record has; one that is unknown here is its own.

    >>> kind_label("trunk")
    'shared prefix'
    """
    return StepKind(kind).label if kind in list(StepKind) else kind
