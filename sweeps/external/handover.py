"""Runs that are trained by a scheduler of the user's: their descriptions, and results that are handed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from sweeps.dag.expand import Dag
from sweeps.dag.step import Step
from sweeps.data.corpus import planned_tokens
from sweeps.external.command import Place, command_line, placeholder_values
from sweeps.external.job import describe_job
from sweeps.external.result import check_result, read_result
from sweeps.external.run import Left
from sweeps.store.store import Store

OUT = "runs"
"""Directory of the outputs of jobs, below the current one, until a scheduler replaces it."""


def jobs(dag: Dag, store: Store | None) -> Iterator[dict[str, Any]]:
    """Yield the runs that commands train and that have no result yet, each after those it needs.

    Each has ``id``, ``needs`` (steps without results that must be done first), ``ready``, ``argv`` (null
    without a command), ``env`` and ``job``, the description for ``DISTLAW_JOB``.

    Args:
        dag: The steps of the sweep.
        store: Store with the results so far; None if there is none.

    Raises:
        InputError: if no run of the sweep is trained by a command.
    """
    if not any(step.trainer for step in dag.steps):
        raise InputError(
            "no run of this sweep has a trainer; give it one, such as trainer: {version: '1'} for runs that "
            "are trained elsewhere"
        )
    done = store.results(step.id for step in dag.steps) if store and store.exists() else {}
    for step in dag.steps:
        if step.trainer and step.id not in done:
            yield _job(step, store, done)


def _job(step: Step, store: Store | None, done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    assert step.trainer is not None
    needs = [need.id for need in step.needs if need.id not in done]
    teacher = done.get(step.teacher.id, {}) if step.teacher else {}
    model = (
        f"{store.url}/{step.teacher.id}/{teacher['model']}"
        if store and step.teacher and "model" in teacher
        else None
    )
    corpus = planned_tokens(step.corpus, step.corpus_fingerprint)
    job = describe_job(step, corpus, teacher, model)
    folder = Path(OUT, step.id)
    place = Place(job=folder / "job.json", out=folder, checkpoints=folder / "checkpoints", attempt=1)
    values = placeholder_values(job, place)
    return {
        "id": step.id,
        "ready": not needs,
        "needs": needs,
        "argv": command_line(step.trainer, job, place) if step.trainer.command else None,
        "env": {name: text.format_map(values) for name, text in step.trainer.env.items()}
        | {"DISTLAW_OUT": str(place.out), "DISTLAW_CHECKPOINTS": str(place.checkpoints)},
        "job": job.model_dump(mode="json"),
    }


def left_elsewhere(store: Store, step: Step, path: Path) -> Left:
    """Return what a run that was trained elsewhere has left, from its ``result.json``.

    Raises:
        InputError: if the step takes no such result, or the file is no result of it.
    """
    if step.trainer is None:
        raise InputError(
            f"{step.id}: {step.label} is trained by distlaw; give its grid a trainer to train it elsewhere"
        )
    if missing := [need for need in step.needs if store.result(need.id) is None]:
        raise InputError(
            f"{step.id}: {step.label} needs the result of {missing[0].id} ({missing[0].label}) first"
        )
    if not path.exists():
        raise InputError(f"{path}: no such file; give the result.json that {step.id} left")
    reported = read_result(path)
    named = reported.model or None
    folder = path.parent / named if named else None
    if folder and not (folder / "config.json").is_file():
        raise InputError(f"{path}: model: {folder} has no config.json; give a directory of save_pretrained")
    check_result(reported, step, str(path), has_model=folder is not None)
    return Left(reported=reported, model=folder, seconds=0.0)
