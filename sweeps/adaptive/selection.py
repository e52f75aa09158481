"""Spec of some runs of a sweep, which ``distlaw sweep run`` takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from scaling.errors import InputError
from sweeps.dag.compiled_sizes import ladder_size
from sweeps.dag.expand import Dag, expand
from sweeps.dag.resolved import PretrainedTeacher, Resolved
from sweeps.dag.step import Step
from sweeps.spec.pretrained import Pretrained
from sweeps.spec.spec import parse_sweep


def spec_of_runs(resolved: Resolved, dag: Dag, ids: Iterable[str]) -> dict[str, Any]:
    """Return a spec, as plain data, whose steps are those that some runs of a sweep need.

    Args:
        resolved: The sweep that the runs are of.
        dag: Its steps.
        ids: Ids of the runs.

    Raises:
        InputError: for a run that a spec of single runs cannot express.
    """
    chosen = set(ids)
    steps = [step for step in dag.steps if step.id in chosen]
    spec = resolved.spec.model_dump(mode="json", exclude_unset=True)
    for name in ("supervised", "teachers", "students", "methods", "tuning", "protocol"):
        spec.pop(name, None)
    students = [step for step in steps if step.teacher is not None]
    teachers = list({step.teacher.id: step.teacher for step in students if step.teacher}.values())
    supervised = [step for step in steps if step.teacher is None and step not in teachers]
    if isinstance(sizes := resolved.spec.training.compile, list):
        trained = {step.shape.params for step in (*supervised, *teachers, *students)}
        kept = [each for each in sizes if ladder_size(resolved.sweep, each) in trained]
        spec["training"]["compile"] = kept or False
    if supervised:
        spec["supervised"] = [_grid(step) for step in supervised]
    if students:
        spec["teachers"] = [_teacher(teacher, resolved) for teacher in teachers]
        order = [teacher.id for teacher in teachers]
        spec["students"] = [_student(step, order) for step in students]
        spec["allow_weak_teachers"] = True
    _check(spec, resolved, teachers, steps)
    return spec


def _grid(step: Step) -> dict[str, Any]:
    lengths = [step.early.tokens, step.tokens] if step.early else [step.tokens]
    grid: dict[str, Any] = {"params": [step.shape.params], "tokens": lengths}
    if step.early:
        grid["measure"] = "projected"
    if step.seed:
        grid["seeds"] = [step.seed]
    if step.data_seed != step.seed:
        grid["data_seed"] = step.data_seed
    return grid


def _student(step: Step, teachers: Sequence[str]) -> dict[str, Any]:
    assert step.teacher is not None
    assert step.method is not None
    method = step.method.model_dump(mode="json", exclude_unset=True)
    return _grid(step) | {"teachers": [teachers.index(step.teacher.id)], "methods": [method]}


def _teacher(teacher: Step, resolved: Resolved) -> dict[str, Any]:
    if (number := _pretrained_index(teacher, resolved)) is None:
        return _grid(teacher)
    given = resolved.sweep.teachers[number]
    assert isinstance(given, Pretrained)
    return given.model_dump(mode="json", exclude_unset=True)


def _pretrained_index(teacher: Step, resolved: Resolved) -> int | None:
    """Return where a sweep lists a pretrained teacher; None for one that is trained."""
    for number, known in resolved.teachers.items():
        if teacher.foreign and known.model.fingerprint == teacher.foreign.fingerprint:
            return number
    return None


def _check(spec: dict[str, Any], resolved: Resolved, teachers: Sequence[Step], steps: Sequence[Step]) -> None:
    """Refuse a spec that stands for other runs than those it was made of.

    Raises:
        InputError: naming a run that it cannot express.
    """
    given: dict[int, PretrainedTeacher] = {}
    for place, teacher in enumerate(teachers):
        if (number := _pretrained_index(teacher, resolved)) is not None:
            given[place] = resolved.teachers[number]
    sweep = parse_sweep(spec)
    text = sweep.model_copy(update={"corpus": resolved.sweep.corpus})
    known = {step.id for step in expand(replace(resolved, spec=sweep, sweep=text, teachers=given)).steps}
    for step in steps:
        if step.id not in known:
            raise InputError(
                f"{step.label}: a spec of single runs cannot express it (it begins on a base, or has other "
                "teachers); run it with distlaw sweep auto, or run the whole sweep"
            )
