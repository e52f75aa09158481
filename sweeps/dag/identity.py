"""Canonical forms that ids of steps are hashed from, frozen at 0.1.0.

An id must not change when a field is renamed or a new one is added. Rules and methods are therefore written
under the names that their fields had in 0.1.0, and a field added since is left out while it has its default,
at which everything is as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any, TypeVar

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import CountedShape
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.registry import Use
from sweeps.spec.spec import Training

TRAINING_0_1_0 = {
    "batch_tokens": "batch_tokens",
    "warmup_tokens": "warmup_tokens",
    "learning_rate": "peak_rate",
    "schedule": "schedule",
    "decay_fraction": "decay",
    "final_lr_fraction": "final_rate",
    "weight_decay": "weight_decay",
    "max_grad_norm": "clip",
    "z_loss": "z_loss",
    "precision": "precision",
    "compile": "compile",
}
"""Fields of training rules that 0.1.0 had: today's names to those."""
LAYOUT = {"micro_batch_tokens", "shard", "recompute", "deterministic"}
"""Fields of training rules that change numbers by no more than rounding, and so no id."""

Part = TypeVar("Part")
Value = TypeVar("Value")
KEPT = 1024
"""Parts whose identities are kept at a time."""


def once_per_object(function: Callable[[Part], Value]) -> Callable[[Part], Value]:
    """Return ``function`` with a cache for immutable arguments: by object, as equal ones may differ in type.

    Many steps share the objects that they are made of. Callers must not change what it returns.
    """
    known: dict[int, tuple[Part, Value]] = {}

    @wraps(function)
    def cached(part: Part) -> Value:
        found = known.get(id(part))
        if found is None or found[0] is not part:
            if len(known) >= KEPT:
                known.clear()
            found = known[id(part)] = part, function(part)
        return found[1]

    return cached


@once_per_object
def shape_identity(shape: ModelShape) -> dict[str, Any]:
    """Return the fields of a shape; of an external model, those that its fingerprint does not determine."""
    return dict(shape.identity) if isinstance(shape, CountedShape) else asdict(shape)


@once_per_object
def training_identity(training: Training) -> dict[str, Any]:
    """Return all fields of 0.1.0, and of those added since the ones that are not at their defaults."""
    values = training.model_dump()
    added = training.model_dump(exclude_defaults=True, exclude=LAYOUT | set(TRAINING_0_1_0))
    return {old: values[name] for name, old in TRAINING_0_1_0.items()} | added


@once_per_object
def method_identity(method: Method) -> dict[str, Any]:
    """Return what of a method changes numbers, however it was spelled: the fields not at their defaults.

    A part of another module is there by its name, its options and its version or the hash of its source.
    Other teachers are steps of their own, whose ids the step has.
    """
    own = {} if isinstance(method.source, Use) else parts_of(method).source.identity()
    return method.model_dump(exclude={"use", "other_teachers"}, exclude_defaults=True) | own
