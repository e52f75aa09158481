"""Kinds of steps."""

from __future__ import annotations

from enum import StrEnum


class StepKind(StrEnum):
    """Kind of a step. The values stand in stores and in ids of steps, so they never change."""

    PRETRAIN = "pretrain"
    """Train a model on the data alone."""
    TUNE = "tune"
    """Continue a model of another text on the corpus."""
    DISTILL = "distil"
    """Train a student on what its teacher says."""
    SHARED_PREFIX = "trunk"
    """Train the stable phase that several runs of one size share; it stops before the decay."""
    PRELUDE = "prelude"
    """Train the weights that another step starts from."""
    CACHE_LOGITS = "cache"
    """Write a teacher's distributions over batches down."""
    GENERATE_TEXT = "generate"
    """Write what a teacher says after the prompts of batches."""
    EVALUATE = "evaluate"
    """Measure a pretrained model."""

    @property
    def is_run(self) -> bool:
        """Whether the step is a row of the runs table; others exist for those."""
        return self in (StepKind.PRETRAIN, StepKind.DISTILL)

    @property
    def trains(self) -> bool:
        """Whether the step trains a model."""
        return self not in (StepKind.CACHE_LOGITS, StepKind.GENERATE_TEXT, StepKind.EVALUATE)
