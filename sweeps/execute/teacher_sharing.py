"""Cohorts: steps that are trained together in one process, to share forward passes of their teacher.

A cohort does not change the results of its members, each of which has separate checkpoints and results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

from sweeps.dag.expand import Step
from sweeps.spec.method.method_parts import parts_of

MAX_MEMBERS = 8
"""Largest number of members, with which the teacher's cost per student is an eighth."""
MAX_PARAMS = 5e8
"""Largest number of parameters of all members, whose training states share the memory of a process."""

Cohort = tuple[Step, ...]


def group_into_cohorts(
    ready: Sequence[Step],
    slots: int,
    cost: Callable[[Step], float],
    keys: dict[str, tuple[object, ...]] | None = None,
) -> list[Cohort]:
    """Group ``ready`` steps into cohorts, in the order of their first members.

    Steps may be grouped if they are distilled from one teacher on the same batches, from the same step on. A
    group is split only if its size requires it, or to occupy all ``slots``.

    Args:
        ready: the steps.
        slots: jobs that run side by side.
        cost: seconds of a step.
        keys: what each step shares, by id, which is completed here; it is the same at every call.
    """
    keys = {} if keys is None else keys
    groups: dict[tuple[object, ...], list[Step]] = {}
    for step in ready:
        if step.id not in keys:
            keys[step.id] = _shared(step)
        groups.setdefault(keys[step.id], []).append(step)
    cohorts: list[Cohort] = [(group[0],) for group in groups.values() if len(group) == 1]
    groups = {key: group for key, group in groups.items() if len(group) > 1}
    parts = {key: _fewest(group) for key, group in groups.items()}
    missing = slots - len(cohorts) - sum(parts.values())
    costs = {key: sum(map(cost, groups[key])) for key in groups} if missing > 0 else {}
    widest = [
        (-costs[key] / parts[key], n, key) for n, key in enumerate(costs) if parts[key] < len(groups[key])
    ]
    heapify(widest)
    while missing > 0 and widest:
        _, n, key = heappop(widest)
        parts[key], missing = parts[key] + 1, missing - 1
        if parts[key] < len(groups[key]):
            heappush(widest, (-costs[key] / parts[key], n, key))
    cohorts += [cohort for key, group in groups.items() for cohort in _split(group, parts[key], cost)]
    place = {step.id: number for number, step in enumerate(ready)}
    return sorted(cohorts, key=lambda cohort: place[cohort[0].id])


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


def kept_on_nodes(step: Step) -> frozenset[str]:
    """Return what a step reads that its node keeps, in the page cache or on disk: corpus and caches."""
    caches = [step.logits, step.texts, *step.features]
    return frozenset([step.corpus_fingerprint, *(cache.id for cache in caches if cache)])


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
