"""Steps of a size that is planned here and trained elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sweeps.dag.expand import Dag, Step
from sweeps.resolve import dag_of
from sweeps.spec.spec import Sweep, parse_sweep


def large(small_spec: dict[str, Any], *, contexts: int = 1, **changes: Any) -> tuple[Sweep, Dag]:
    """A student of 6.3B that an 8B teacher teaches, so many contexts at a time, over a large vocabulary."""
    spec = small_spec | {
        "aspect_ratio": 128,
        "supervised": [],
        "teachers": [{"params": ["8B"], "tokens": ["200B"]}],
        "students": [{"params": ["6.3B"], "tokens": ["20B"]}],
        "hardware": {"name": "h100"},
    }
    sweep = parse_sweep(spec | changes)
    steps = dag_of(sweep).steps

    def grown(step: Step) -> Step:
        shape = replace(step.shape, context=4096, vocab=128_256)
        training = step.training.model_copy(update={"batch_tokens": 4096.0 * contexts})
        return replace(step, shape=shape, training=training, teacher=step.teacher and grown(step.teacher))

    return sweep, Dag(steps=tuple(map(grown, steps)), asked=len(steps))
