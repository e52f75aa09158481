"""Runs of a DAG as candidates of a design, with the steps that each needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fits.design.candidates import Candidates, candidates_of_steps
from fits.design.question_options import TeacherOption
from fits.table.projection import PROJECTED_SD
from scaling.errors import InputError
from sweeps.dag.expand import Dag
from sweeps.dag.projected import projected_sd
from sweeps.dag.step import Step


def candidates_of_dag(dag: Dag, losses: Mapping[str, float]) -> Candidates:
    """Return the runs of a DAG as candidates; a teacher or a shared prefix is a step that several need.

    Args:
        dag: The steps of a sweep.
        losses: Measured losses, nats/token, by the id of the step.

    Raises:
        InputError: for a pretrained teacher of which neither loss nor tokens are known.
    """
    number = {step.id: i for i, step in enumerate(dag.steps)}
    closures: dict[str, set[int]] = {}
    for step in dag.steps:
        own = {number[step.id]}
        closures[step.id] = own.union(*(closures[need.id] for need in step.needs if need.id in closures))
    runs = [step for step in dag.steps if step.kind.is_run]
    return candidates_of_steps(
        [_row(step, losses) for step in runs],
        [step.flops_to_spend for step in dag.steps],
        [sorted(closures[step.id]) for step in runs],
    )


def teachers_of_dag(dag: Dag, losses: Mapping[str, float]) -> list[TeacherOption]:
    """Return the teachers of a sweep as options of a question."""
    teachers = {step.teacher.id: step.teacher for step in dag.steps if step.teacher and step.kind.is_run}
    found = []
    for teacher in teachers.values():
        tokens = _tokens(teacher)
        found.append(
            TeacherOption(
                params=float(teacher.shape.params),
                tokens=tokens,
                loss=losses.get(teacher.id, math.nan),
                forward_flops=float(teacher.shape.forward_flops),
            )
        )
    return found


def closure(dag: Dag, ids: set[str]) -> Dag:
    """Return the part of a DAG that some of its steps need, themselves included."""
    needed = set(ids)
    for step in reversed(dag.steps):
        if step.id in needed:
            needed.update(need.id for need in step.needs)
    return Dag(steps=tuple(step for step in dag.steps if step.id in needed), asked=len(ids))


def _row(step: Step, losses: Mapping[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": step.id,
        "params": float(step.shape.params),
        "tokens": float(step.tokens),
        "seed": step.seed,
        "method": step.method.name if step.method else None,
        PROJECTED_SD: projected_sd(step),
    }
    if step.teacher is None:
        return row
    loss, tokens = losses.get(step.teacher.id, math.nan), _tokens(step.teacher)
    if math.isnan(loss) and math.isnan(tokens):
        raise InputError(
            f"teacher {step.teacher.size}: neither its loss nor its tokens are known, so that nothing "
            "predicts its students; give its tokens in the spec, or measure it first (distlaw sweep run)"
        )
    return row | {
        "teacher": step.teacher.id,
        "teacher_params": float(step.teacher.shape.params),
        "teacher_tokens": tokens,
        "teacher_loss": loss,
    }


def _tokens(teacher: Step) -> float:
    if teacher.foreign:
        return float(teacher.foreign.tokens or math.nan)
    return float(teacher.tokens)
