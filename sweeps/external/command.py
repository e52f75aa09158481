"""Command line and environment of a run: placeholders filled, and what every command is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.external.job import ExternalJob
from sweeps.external.process import MARK
from sweeps.spec.trainer import Trainer

RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of a gang of this process, which a command on one node must not take for its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Files of an attempt at a run, and the resources that it has."""

    job: Path
    """The description, ``DISTLAW_JOB``."""
    out: Path
    """Directory for what the command leaves, ``DISTLAW_OUT``, new for each attempt."""
    checkpoints: Path
    """Directory that all attempts share, ``DISTLAW_CHECKPOINTS``."""
    attempt: int
    cpus: int = 1
    gpus: float = 0
    nodes: int = 1
    node: int = 0


def command_line(trainer: Trainer, job: ExternalJob, place: Place) -> list[str]:
    """Return program and arguments, with the values of the run."""
    assert trainer.command is not None
    values = placeholder_values(job, place)
    return [word.format_map(values) for word in trainer.command]


def placeholder_values(job: ExternalJob, place: Place) -> dict[str, str]:
    """Return the text of every placeholder; whole numbers without a decimal point."""
    rules, shape, corpus, teacher = job.rules, job.shape, job.corpus, job.teacher
    method: Mapping[str, Any] = job.method or {}
    found: dict[str, Any] = {
        **{name: getattr(place, name) for name in ("job", "out", "checkpoints", "attempt")},
        **{name: getattr(place, name) for name in ("cpus", "nodes", "node")},
        "gpus": max(1, int(place.gpus)) if place.gpus else 0,
        **{
            name: getattr(job, name)
            for name in ("id", "role", "params", "tokens", "flops", "seed", "data_seed")
        },
        **shape.model_dump(exclude={"tied"}),
        **rules.model_dump(exclude={"schedule", "decay_fraction", "final_lr_fraction"}),
        "corpus": corpus.source,
        **{name: getattr(corpus, name) or "" for name in ("tokenizer", "train_file", "heldout_file")},
        "teacher": (teacher and teacher.model) or "",
        "teacher_loss": teacher.loss if teacher and teacher.loss is not None else "",
        "teacher_params": teacher.params if teacher else "",
        "method": method.get("name", ""),
        "temperature": method.get("temperature", ""),
    }
    return {name: _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def environment(trainer: Trainer, job: ExternalJob, place: Place, mark: str) -> dict[str, str]:
    """Return the environment of the command: this process's, the run's, and the spec's, in this order.

    Args:
        trainer: The trainer.
        job: The run.
        place: Its files and resources.
        mark: Text that marks all processes of the step.
    """
    values = placeholder_values(job, place)
    return {
        **{name: text for name, text in os.environ.items() if name not in RANKS or place.nodes > 1},
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(place.cpus)),
        **_launcher(place),
        **{name: text.format_map(values) for name, text in trainer.env.items()},
        "DISTLAW_JOB": str(place.job),
        "DISTLAW_OUT": str(place.out),
        "DISTLAW_CHECKPOINTS": str(place.checkpoints),
        "DISTLAW_ATTEMPT": str(place.attempt),
        MARK: mark,
    }


def _launcher(place: Place) -> dict[str, str]:
    """Return the defaults of torchrun's options, which launches the processes of a node."""
    each = str(max(1, int(place.gpus)))
    if place.nodes == 1:
        return {"PET_NPROC_PER_NODE": each}
    meeting = {
        name: os.environ[f"MASTER_{name}"] for name in ("ADDR", "PORT") if f"MASTER_{name}" in os.environ
    }
    found = {"NNODES": str(place.nodes), "NODE_RANK": str(place.node), "NPROC_PER_NODE": each}
    found |= {f"MASTER_{name}": text for name, text in meeting.items()}
    return {**found, **{f"PET_{name}": text for name, text in found.items()}}
