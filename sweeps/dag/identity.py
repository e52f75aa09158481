"""Canonical forms that ids of steps are hashed from, frozen at 0.1.0.

An id must not change when a field is renamed or a new one is added. Rules and methods are therefore written
under the names that their fields had in 0.1.0, and a field added since is left out while it has its default,
at which everything is as it was.
"""

from __future__ import annotations

from typing import Any

from sweeps.spec.method import Method
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

REPLAY_REVISION = 2
"""Changes when replay as the same spec describes it would train something else."""


def training_identity(training: Training) -> dict[str, Any]:
    """Return all fields of 0.1.0, and of those added since the ones that are not at their defaults."""
    values = training.model_dump()
    added = training.model_dump(exclude_defaults=True, exclude=set(TRAINING_0_1_0))
    return {old: values[name] for name, old in TRAINING_0_1_0.items()} | added


def method_identity(method: Method) -> dict[str, Any]:
    """Return what of a method changes numbers, however it was spelled: the fields not at their defaults."""
    revision = {"replay_revision": REPLAY_REVISION} if method.source.replay else {}
    return method.model_dump(exclude={"use"}, exclude_defaults=True) | revision
