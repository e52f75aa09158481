"""Which steps train side by side: those that would otherwise each pay for the same teacher's pass.

A cohort is a way to run steps, and no part of what they are: each member has its own checkpoints and result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sweeps.dag.expand import Step
from sweeps.spec.method_parts import parts_of

MOST = 8
"""Members of a cohort: with eight, the teacher's pass is an eighth of what it was."""
MOST_PARAMS = 5e8
"""Parameters of all members together: their weights, gradients and moments share one process's memory."""

Cohort = tuple[Step, ...]


def cohorts(ready: Sequence[Step], slots: int, cost: Callable[[Step], float]) -> list[Cohort]:
    """``ready`` steps grouped into cohorts, in the order of their first members.

    Steps may be grouped if they follow one teacher over the same batches from the same step on. A group is
    split no further than its size demands, or than it takes to give each of the ``slots`` something to do.
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
    """What steps must have in common to share a teacher's pass.

    Alone are those that need none, and students that write: a teacher reads the text of each by itself.
    """
    method = step.method
    if (
        step.teacher is None
        or method is None
        or not step.kind.trains
        or step.logits
        or not method.reads_teacher
    ):
        return (step.id,)
    parts = parts_of(method)
    if parts.source.writes_along:
        return (step.id,)
    begins = step.start.ends if step.start else 0
    rules = step.training.batch_tokens, step.shape.context, step.texts and step.texts.id
    order = step.corpus_fingerprint, step.half, step.data_seed, step.first, begins
    return step.teacher.id, parts.target.sharing_key(step), *order, *rules


def _fewest(group: list[Step]) -> int:
    """The least number of cohorts that ``group`` must be split into."""
    params = sum(step.shape.total_params for step in group)
    return min(len(group), max(math.ceil(len(group) / MOST), math.ceil(params / MOST_PARAMS)))


def _split(group: list[Step], parts: int, cost: Callable[[Step], float]) -> list[Cohort]:
    """``group`` in ``parts`` of about equal cost: the dearest first, each to the cheapest part so far."""
    members: list[list[Step]] = [[] for _ in range(parts)]
    for step in sorted(group, key=cost, reverse=True):
        min(members, key=lambda part: sum(map(cost, part))).append(step)
    order = {step.id: number for number, step in enumerate(group)}
    return [tuple(sorted(part, key=lambda step: order[step.id])) for part in members if part]
