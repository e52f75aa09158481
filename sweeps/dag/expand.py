"""Expansion of a spec into the DAG of steps: what is trained once, and what depends on what."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from scaling.units import format_number
from sweeps.dag.commands import check_command
from sweeps.dag.compiled_sizes import rules_for
from sweeps.dag.kind import StepKind
from sweeps.dag.ladder import shape_for
from sweeps.dag.projected import check_projected, with_projected
from sweeps.dag.resolved import PretrainedTeacher, Resolved
from sweeps.dag.step import SCHEMA, Step
from sweeps.data.tokens import Half
from sweeps.spec.hidden_layers import HiddenLayers, counted_from_embedding
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.pretrained import Pretrained
from sweeps.spec.spec import MIN_STEPS, Grid, Sweep
from sweeps.spec.trainer import Role

__all__ = ["SCHEMA", "Dag", "Step", "expand", "with_caches", "with_preludes", "with_shared_prefixes"]


@dataclass(frozen=True, kw_only=True)
class Dag:
    """The unique steps of a sweep, each after the steps it needs."""

    steps: tuple[Step, ...]
    asked: int
    """Cells the spec asks for, before equal ones are merged."""

    @property
    def flops(self) -> float:
        """FLOPs of all steps."""
        return sum(step.flops_to_spend for step in self.steps)

    @property
    def example(self) -> Step:
        """One of the runs that it is for: on the sweep's own text, where some steps may be on another."""
        return next(step for step in reversed(self.steps) if step.kind.is_run)

    @cached_property
    def waiting_for(self) -> dict[str, int]:
        """Number of steps that wait for a step, by its id."""
        counts = dict.fromkeys((step.id for step in self.steps), 0)
        for step in self.steps:
            for need in step.needs:
                counts[need.id] += 1
        return counts


def expand(resolved: Resolved) -> Dag:
    """Return the DAG of a sweep, a pure function of what was looked up for it.

    The same model asked for twice, as a run and as a teacher, is one step.

    Raises:
        InputError: for runs of too few steps, or sizes off the ladder.
    """
    sweep, fingerprint = resolved.sweep, resolved.text.fingerprint
    supervised = [
        run
        for where, grid in sweep.grids("supervised")
        for run in _runs(sweep, "supervised", where, grid, fingerprint)
    ]
    teachers = _teachers(resolved)
    students = list(_students(sweep, teachers, fingerprint))
    asked = [*supervised, *itertools.chain(*teachers), *students]
    steps = with_caches(with_preludes(_unique(asked)))
    if sweep.training.schedule == "wsd" and sweep.share_prefixes:
        steps = with_shared_prefixes(steps)
    return Dag(steps=tuple(steps), asked=len(asked))


def _teachers(resolved: Resolved) -> list[list[Step]]:
    """Return the teachers of each entry of the spec's list."""
    sweep = resolved.sweep
    found: list[list[Step]] = []
    for number, given in enumerate(sweep.teachers):
        if isinstance(given, Pretrained):
            found.append([_pretrained(resolved, resolved.teachers[number])])
            continue
        runs = list(_runs(sweep, "teachers", f"teachers[{number}]", given, resolved.text.fingerprint))
        found.append(list(_tuned(resolved, runs)) if sweep.base else runs)
    return found


def _students(sweep: Sweep, teachers: list[list[Step]], fingerprint: str) -> Iterator[Step]:
    for number, grid in enumerate(sweep.students):
        where = f"students[{number}]"
        chosen = teachers if grid.teachers is None else [teachers[n] for n in grid.teachers]
        own = _unique(list(itertools.chain(*chosen)))
        if not sweep.allow_weak_teachers:
            _check_sizes(sweep, where, grid, own)
        for student, teacher, method in itertools.product(
            _runs(sweep, "students", where, grid, fingerprint), own, grid.methods or sweep.methods
        ):
            yield _distilled(student, teacher, method, _other_teachers(method, teachers))


def _check_sizes(sweep: Sweep, where: str, grid: Grid, teachers: list[Step]) -> None:
    """Refuse students larger than every teacher of theirs; sizes are those of the ladder."""
    largest = max(teacher.shape.params for teacher in teachers)
    for size in grid.params:
        if (student := _shape(sweep, size, where).params) > largest:
            raise InputError(
                f"{where}.params: {size:g} is larger than every teacher (on the ladder "
                f"{student:,} against {largest:,} at most), which the distillation law cannot describe; "
                "add a larger teacher, or set allow_weak_teachers: true if you mean to study that"
            )


def _other_teachers(method: Method, teachers: list[list[Step]]) -> tuple[Step, ...]:
    """Return the teachers that ``method`` asks for besides the one that each run has.

    Raises:
        InputError: for an entry of the sweep's list that is several models.
    """
    for number in method.other_teachers:
        if (count := len(teachers[number])) != 1:
            raise InputError(
                f"methods: {method.name}: other_teachers: teachers[{number}] are {count} models; name "
                "entries of one model each"
            )
    return tuple(teachers[number][0] for number in method.other_teachers)


def _distilled(student: Step, teacher: Step, method: Method, others: tuple[Step, ...] = ()) -> Step:
    """``student`` distilled from ``teacher``, after a prelude if the method begins with one.

    Raises:
        InputError: if either part is too short, or a model lacks a layer that the method reads.
    """
    early = _distilled(student.early, teacher, method, others) if student.early else None
    run = replace(
        student, kind=StepKind.DISTILL, teacher=teacher, method=method, other_teachers=others, early=early
    )
    check_projected(run)
    check_command(run)
    _check_layers(run, method)
    if method.init is None:
        return run
    before = round(method.init.share * run.steps)
    if (least := min(before, run.steps - before)) < 2 * run.training.warmup_steps:
        raise InputError(
            f"methods: {method.name}: its init.share of {method.init.share:g} makes one part of a run of "
            f"{run.steps} steps {least} long, and warm-up takes {run.training.warmup_steps}; at most half "
            "may be warm-up: lengthen the run or move the share"
        )
    init = replace(student, kind=StepKind.PRELUDE, steps=before)
    if method.init.by == "base":
        if teacher.init is None:
            raise InputError(
                f"methods: {method.name}: it begins on the text of the teacher's base, and of teacher "
                f"{teacher.size} no base is known; give the sweep a 'base', and teachers to be trained"
            )
        text = teacher.init.corpus, teacher.init.corpus_fingerprint
        init = replace(init, corpus=text[0], corpus_fingerprint=text[1])
    if method.init.by == "teacher":
        init = replace(init, teacher=teacher, method=Method())
    return replace(run, steps=run.steps - before, init=init)


def _check_layers(run: Step, method: Method) -> None:
    """Refuse auxiliary losses on layers that the models of ``run`` do not have."""
    for loss in run.auxiliary_losses:
        try:
            counted_from_embedding(loss.student_layers(run.shape), run.shape)
            for number, teacher in enumerate(run.teachers):
                counted_from_embedding(loss.teacher_layers(teacher.shape, number), teacher.shape)
        except InputError as error:
            raise InputError(f"methods: {method.name}: {error}") from None


def with_preludes(runs: list[Step]) -> list[Step]:
    """The runs, each after its prelude if it has one."""
    return _unique([step for run in runs for step in (run.init, run) if step])


def with_caches(runs: list[Step]) -> list[Step]:
    """The runs, and before those that read what a teacher left that step.

    Each is as long as the longest of its runs needs, and of hidden states it keeps all layers that any needs.
    """
    shared: dict[str, Step] = {}
    for left in (left for run in runs for left in _left_for(run)):
        key = _key_of_cache(left)
        shared[key] = _covering(shared.get(key, left), left)
    steps: list[Step] = []
    for run in runs:
        own = _unique([shared[_key_of_cache(left)] for left in _left_for(run)])
        by_kind = {step.kind: step for step in own}
        reads = replace(
            run,
            logits=by_kind.get(StepKind.CACHE_LOGITS),
            texts=by_kind.get(StepKind.GENERATE_TEXT),
            features=tuple(step for step in own if step.kind is StepKind.CACHE_FEATURES),
        )
        steps += [*own, reads]
    return _unique(steps)


def _left_for(run: Step) -> Iterator[Step]:
    """Yield the steps that prepare logits, texts or hidden states of its teachers for ``run`` alone."""
    if run.teacher is None or run.method is None or run.trainer:
        return
    method, parts = run.method, parts_of(run.method)
    rules = run.training.model_copy(update={"compile": run.teacher.training.compile})
    of_teacher = replace(
        run,
        shape=run.teacher.shape,
        steps=run.first + run.ends,
        seed=0,
        init=None,
        early=None,
        training=rules,
    )
    if written := parts.target.cache_method(method):
        init = run.init if parts.target.cache_keeps_prelude() else None
        yield replace(of_teacher, kind=StepKind.CACHE_LOGITS, init=init, method=written)
    elif written := parts.source.text_method(method):
        yield replace(of_teacher, kind=StepKind.GENERATE_TEXT, method=written)
    of_teacher = replace(of_teacher, kind=StepKind.CACHE_FEATURES, method=None, other_teachers=())
    for loss in run.auxiliary_losses:
        for number, teacher in enumerate(run.teachers):
            if loss.cache and (layers := loss.teacher_layers(teacher.shape, number)):
                hidden = HiddenLayers.of(layers, teacher.shape, loss.cache)
                yield replace(of_teacher, shape=teacher.shape, teacher=teacher, hidden=hidden)


def _key_of_cache(step: Step) -> str:
    """Return what runs must have in common to read one cache: all but its length and its layers."""
    kept = {"hidden": step.hidden.precision} if step.hidden else {}
    return json.dumps(step.config | kept | {"steps": None}, sort_keys=True)


def _covering(one: Step, other: Step) -> Step:
    """Return the cache that has all of two with one key."""
    longest = max(one, other, key=lambda step: step.steps)
    if one.hidden is None or other.hidden is None:
        return longest
    return replace(longest, hidden=one.hidden.with_layers_of(other.hidden))


def _key_without_steps(step: Step) -> str:
    return json.dumps(step.config | {"steps": None, "projected": None}, sort_keys=True)


def with_shared_prefixes(runs: list[Step]) -> list[Step]:
    """Return the runs, with a shared prefix before those that differ only in length.

    The prefix of a length begins where that of the next shorter one ended; the longest run needs none of its
    own. A run whose method depends on its total steps shares none, nor does one of a command.
    """
    families: dict[str, list[Step]] = {}
    for run in runs:
        alone = run.trainer or (run.method and parts_of(run.method).depends_on_total_steps)
        families.setdefault(run.id if alone else _key_without_steps(run), []).append(run)
    steps: list[Step] = []
    for family in families.values():
        *shorter, longest = sorted(family, key=lambda run: (run.steps, not run.early))
        start, found = None, list[Step]()
        for run in shorter:
            if start is None or start.steps < run.steps:
                start = replace(run, kind=StepKind.SHARED_PREFIX, start=start, early=None)
                steps.append(start)
            found.append(replace(run, start=start))
            steps.append(_with_early(found))
        found.append(replace(longest, start=start))
        steps.append(_with_early(found))
    return steps


def _with_early(family: list[Step]) -> Step:
    """Return the last run of a family with the shorter run that it is projected by as it is trained there."""
    *shorter, run = family
    return replace(run, early=next(each for each in shorter if each.id == run.early.id)) if run.early else run


def _tuned(resolved: Resolved, teachers: list[Step]) -> Iterator[Step]:
    """Yield ``teachers``, trained on the base's text instead, and then tuned on the corpus.

    Raises:
        InputError: if tuning is too short.
    """
    sweep, text = resolved.sweep, resolved.base
    assert sweep.base is not None
    assert text is not None
    steps = sweep.training.steps(sweep.base.tuning_tokens)
    if steps < (least := 2 * sweep.training.warmup_steps):
        raise InputError(
            f"base.tuning_tokens: {format_number(sweep.base.tuning_tokens)} tokens are {steps} optimizer "
            f"steps, of which warm-up takes {least // 2}; at most half may be warm-up: ask for "
            f"{format_number(least * sweep.training.batch_tokens)} or more"
        )
    for teacher in teachers:
        before = replace(
            teacher, kind=StepKind.PRELUDE, corpus=text.corpus, corpus_fingerprint=text.fingerprint
        )
        yield replace(teacher, kind=StepKind.TUNE, steps=steps, init=before)


def _pretrained(resolved: Resolved, teacher: PretrainedTeacher) -> Step:
    """Return the step that measures a pretrained teacher."""
    sweep = resolved.sweep
    return Step(
        kind=StepKind.EVALUATE,
        shape=teacher.shape,
        aspect_ratio=sweep.aspect_ratio,
        steps=0,
        seed=0,
        data_seed=0,
        half=None,
        corpus=sweep.corpus,
        corpus_fingerprint=resolved.text.fingerprint,
        training=rules_for(sweep, teacher.shape),
        foreign=teacher.model,
    )


def _runs(sweep: Sweep, field: Role, where: str, grid: Grid, fingerprint: str) -> Iterator[Step]:
    """The runs of one grid, which stands at ``where`` among those of ``field``, on the data alone."""
    half: Half = None if not sweep.corpus.halves else "second" if field == "students" else "first"
    trainer = sweep.trainer_of(field, grid)
    for params, seed in itertools.product(grid.params, grid.seeds):
        shape = _shape(sweep, params, where)
        runs = [
            Step(
                kind=StepKind.PRETRAIN,
                shape=shape,
                aspect_ratio=sweep.aspect_ratio,
                steps=_optimizer_steps(sweep, where, params, tokens),
                seed=seed,
                data_seed=seed if grid.data_seed is None else grid.data_seed,
                half=half,
                corpus=sweep.corpus,
                corpus_fingerprint=fingerprint,
                training=rules_for(sweep, shape),
                trainer=trainer,
                role=field if trainer else None,
            )
            for tokens in _lengths(grid, shape)
        ]
        yield from with_projected(where, grid, runs)


def _optimizer_steps(sweep: Sweep, where: str, params: float, tokens: float) -> int:
    """Return the optimizer steps of a run.

    Raises:
        InputError: if they are too few for a loss that measures the data, or for their warm-up.
    """
    steps, warmup = sweep.training.steps(tokens), sweep.training.warmup_steps
    if steps < MIN_STEPS:
        raise InputError(
            f"{where}: {format_number(params)} parameters on {format_number(tokens)} tokens are "
            f"{steps} optimizer steps of {sweep.training.batch_tokens:g} tokens; at least "
            f"{MIN_STEPS} are needed for a loss that measures the data: ask for "
            f"{format_number(MIN_STEPS * sweep.training.batch_tokens)} tokens or more, or lower "
            "training.batch_tokens"
        )
    if 2 * warmup > steps:
        raise InputError(
            f"training.warmup_tokens: warm-up takes {warmup} of the {steps} steps of {where} at "
            f"{format_number(tokens)} tokens; at most half may be warm-up"
        )
    return steps


def _shape(sweep: Sweep, params: float, where: str) -> ModelShape:
    corpus = sweep.corpus
    try:
        return shape_for(params, vocab=corpus.vocab, context=corpus.context, aspect_ratio=sweep.aspect_ratio)
    except InputError as error:
        raise InputError(f"{where}.params: {error}") from None


def _lengths(grid: Grid, shape: ModelShape) -> list[float]:
    if grid.tokens is not None:
        return grid.tokens
    if grid.tokens_per_param is not None:
        return [ratio * shape.params for ratio in grid.tokens_per_param]
    assert grid.flops is not None
    return [flops / shape.training_flops(1) for flops in grid.flops]


def _unique(steps: list[Step]) -> list[Step]:
    return list({step.id: step for step in steps}.values())
