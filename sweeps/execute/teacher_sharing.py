"""Cohorts: steps that are trained together in one process, to share forward passes of their teacher.

A cohort does not change the results of its members, each of which has separate checkpoints and results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sweeps.dag.expand import Step
from sweeps.spec.method_parts import parts_of

MAX_MEMBERS = 8
"""Largest number of members, with which the teacher's cost per student is an eighth."""
MAX_PARAMS = 5e8
"""Largest number of parameters of all members, whose training states share the memory of a process."""

Cohort = tuple[Step, ...]


def group_into_cohorts(ready: Sequence[Step], slots: int, cost: Callable[[Step], float]) -> list[Cohort]:
    """Group ``ready`` steps into cohorts, in the order of their first members.

    Steps may be grouped if they are distilled from one teacher on the same batches, from the same step on. A
    group is split only if its size requires it, or to occupy all ``slots``.
    """
    groups: dict[tuple[object, ...], list[Step]] = {}
    for step in ready:
        groups.setdefault(_shared(step), []).append(step)
    parts = {key: _fewest(group) for key, group in groups.items()}
    while sum(parts.values()) < slots:
        splittable = [key for key, group in groups.items() if parts[key] < len(group)]
        if not splittable:
            break
        widest = max(splittable, key=lambda key: sum(map(cost, groups[key])) / parts[key])
        parts[widest] += 1
    found = [cohort for key, group in groups.items() for cohort in _split(group, parts[key], cost)]
    place = {step.id: number for number, step in enumerate(ready)}
    return sorted(found, key=lambda cohort: place[cohort[0].id])


def _shared(step: Step) -> tuple[object, ...]:
    """Return the key that steps must have in common to share a teacher's forward pass.

    It is unique for steps of commands or without a teacher, and for students that generate text, each read
    separately.
    """
    method = step.method
    if step.trainer or step.teacher is None or method is None or not step.kind.trains:
        return (step.id,)
    parts = parts_of(method)
    online = any(loss.cache is None for loss in step.auxiliary_losses)
    reads = (method.reads_teacher and not step.logits) or online
    if parts.source.writes_along or not reads:
        return (step.id,)
    begins = step.start.ends if step.start else 0
    rules = step.training.batch_tokens, step.shape.context, step.texts and step.texts.id
    order = step.corpus_fingerprint, step.half, step.data_seed, step.first, begins
    teachers = method.reads_teacher, step.logits and step.logits.id, *(each.id for each in step.teachers)
    return *teachers, parts.target.sharing_key(step), *order, *rules


def _fewest(group: list[Step]) -> int:
    """Return the least number of cohorts of ``group``."""
    params = sum(step.shape.total_params for step in group)
    return min(len(group), max(math.ceil(len(group) / MAX_MEMBERS), math.ceil(params / MAX_PARAMS)))


def _split(group: list[Step], parts: int, cost: Callable[[Step], float]) -> list[Cohort]:
    """Split ``group`` into ``parts`` of about equal cost: greedily, the most expensive step first."""
    members: list[list[Step]] = [[] for _ in range(parts)]
    for step in sorted(group, key=cost, reverse=True):
        min(members, key=lambda part: sum(map(cost, part))).append(step)
    order = {step.id: number for number, step in enumerate(group)}
    return [tuple(sorted(part, key=lambda step: order[step.id])) for part in members if part]
