"""From a spec to the DAG of steps: what is trained once, what depends on what, and each step's identity."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from scaling.compute import ModelShape
from scaling.errors import InputError
from scaling.units import format_number
from sweeps.corpora.tokens import Half
from sweeps.foreign.files import Place
from sweeps.foreign.shapes import CountedShape, Foreign
from sweeps.ladder import shape_for
from sweeps.methods import Method
from sweeps.spec import MIN_STEPS, Corpus, Grid, Role, Sweep, Training
from sweeps.text import fingerprint_of, resolved

SCHEMA = 4
"""Changes when the same spec would train something else."""
NO_RUN = ("trunk", "cache", "evaluate")
"""Kinds of steps that are no runs of the table: others go on from them."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One model to train: a node of the DAG. Everything that changes its numbers is here, and only that."""

    shape: ModelShape
    aspect_ratio: float
    """Of the ladder that the shape is a rung of; for the FLOP accounting, and no part of the identity."""
    steps: int
    """Optimiser steps."""
    seed: int
    """Of the initialisation."""
    data_seed: int
    """Of the order of the data."""
    half: Half
    """The half of the training documents it sees; None for all."""
    corpus: Corpus
    corpus_fingerprint: str
    training: Training
    teacher: Step | None = None
    method: Method | None = None
    trunk: bool = False
    """A run that stops before it decays, for others to branch from; it is no run of the table."""
    start: Step | None = None
    """The trunk it begins from. Saves compute and changes no bit, so it is no part of the identity."""
    cache: bool = False
    """What the teacher says about the batches of so many steps, written down: nothing is trained."""
    logits: Step | None = None
    """The cache that its teacher is read from, if its method says so; any that is long enough will do, so it
    is no part of the identity."""
    foreign: Foreign | None = None
    """The model that is measured here, where nothing is trained."""

    @property
    def kind(self) -> str:
        """``pretrain``, ``distil``, ``trunk``, ``cache`` or ``evaluate``."""
        if self.foreign:
            return "evaluate"
        if self.trunk or self.cache:
            return "trunk" if self.trunk else "cache"
        return "distil" if self.teacher else "pretrain"

    @property
    def needs(self) -> tuple[Step, ...]:
        """The steps that must be done before this one."""
        return tuple(step for step in (self.teacher, self.start, self.logits) if step)

    @property
    def ends(self) -> int:
        """The optimiser step it ends at."""
        return self.training.trunk_steps(self.steps) if self.trunk else self.steps

    @property
    def tokens(self) -> int:
        """D: tokens the model is trained on, those before ``start`` included."""
        return round(self.ends * self.training.batch_tokens)

    @property
    def tokens_to_train(self) -> int:
        """Tokens that this step itself trains on."""
        return 0 if self.cache else self.tokens - (self.start.tokens if self.start else 0)

    @property
    def tokens_to_teach(self) -> int:
        """Tokens that the teacher reads in this step; a cache reads none twice, so at most these."""
        if self.teacher is None or self.logits:
            return 0
        return self.tokens if self.cache else self.tokens_to_train

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the identity is made of, as plain JSON: the teacher by its id, no paths, no names."""
        if self.foreign:
            return {
                "schema": SCHEMA,
                "kind": self.kind,
                "foreign": self.foreign.fingerprint,
                "context": self.shape.context,
                "corpus": {"fingerprint": self.corpus_fingerprint},
            }
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "shape": asdict(self.shape),
            "steps": self.ends,
            "seed": self.seed,
            "data_seed": self.data_seed,
            "half": self.half,
            "corpus": {"fingerprint": self.corpus_fingerprint},
            "training": self.training.model_dump(),
            "teacher": self.teacher.id if self.teacher else None,
            "method": self.method.model_dump() if self.method else None,
        }

    @cached_property
    def id(self) -> str:
        """A hash of :attr:`config`."""
        canonical = json.dumps(self.config, sort_keys=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @cached_property
    def setting(self) -> str:
        """A hash of what all runs of one law must share: text, tokenizer, context and training rules."""
        shared = [self.corpus_fingerprint, self.shape.context, self.training.model_dump()]
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """For people: ``distil 13.4K on 524K, from 107K on 1.05M``."""
        if self.cache:
            assert self.teacher is not None
            return f"cache {format_number(self.tokens)} tokens of {self.teacher.size}"
        text = f"{self.kind} {self.size}"
        if self.teacher:
            text += f", from {self.teacher.size}"
        return f"{text}, seed {self.seed}" if self.seed else text

    @property
    def size(self) -> str:
        """``107K on 1.05M``: parameters and tokens; ``106M smollm2`` of a model that was not trained here."""
        if self.foreign:
            return f"{format_number(self.shape.params)} {self.foreign.name}"
        return f"{format_number(self.shape.params)} on {format_number(self.tokens)}"

    @property
    def student_flops(self) -> float:
        """FLOPs of training the model itself."""
        return 0.0 if self.cache else self.shape.training_flops(self.tokens)

    @property
    def teacher_flops(self) -> float:
        """FLOPs of the teacher's forward passes over all that the run sees, as if nobody shared them."""
        return self.teacher.shape.forward_flops * self.tokens if self.teacher else 0.0

    @property
    def flops(self) -> float:
        """FLOPs of the run as a law counts them, standing alone: training, and the teacher's inference."""
        return self.student_flops + self.teacher_flops

    @property
    def flops_to_spend(self) -> float:
        """FLOPs of the step itself: it may begin where a trunk ended, and read its teacher from a cache."""
        teaching = self.teacher.shape.forward_flops * self.tokens_to_teach if self.teacher else 0.0
        return self.shape.training_flops(self.tokens_to_train) + teaching

    def as_json(self) -> dict[str, Any]:
        """Everything needed to run the step elsewhere, its teacher, trunk and cache included."""
        return {
            **self.config,
            "shape": asdict(self.shape),
            "steps": self.steps,
            "seed": self.seed,
            "data_seed": self.data_seed,
            "half": self.half,
            "training": self.training.model_dump(),
            "method": self.method.model_dump() if self.method else None,
            "foreign": asdict(self.foreign) if self.foreign else None,
            "aspect_ratio": self.aspect_ratio,
            "start": self.start.as_json() if self.start else None,
            "logits": self.logits.as_json() if self.logits else None,
            "corpus": {**self.corpus.model_dump(), "fingerprint": self.corpus_fingerprint},
            "teacher": self.teacher.as_json() if self.teacher else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Step:
        """The inverse of :meth:`as_json`."""
        corpus = dict(data["corpus"])
        fingerprint = corpus.pop("fingerprint")
        foreign = data.get("foreign")
        return cls(
            shape=(CountedShape if "counted" in data["shape"] else ModelShape)(**data["shape"]),
            aspect_ratio=data["aspect_ratio"],
            steps=data["steps"],
            seed=data["seed"],
            data_seed=data["data_seed"],
            half=data["half"],
            corpus=Corpus(**corpus),
            corpus_fingerprint=fingerprint,
            training=Training(**data["training"]),
            teacher=cls.from_json(data["teacher"]) if data["teacher"] else None,
            method=Method(**data["method"]) if data["method"] else None,
            trunk=data["kind"] == "trunk",
            start=cls.from_json(data["start"]) if data["start"] else None,
            cache=data["kind"] == "cache",
            logits=cls.from_json(found) if (found := data.get("logits")) else None,
            foreign=Foreign(**foreign | {"place": Place(**foreign["place"])}) if foreign else None,
        )


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

    @cached_property
    def waiting_for(self) -> dict[str, int]:
        """How many steps wait for a step, by its id."""
        counts = dict.fromkeys((step.id for step in self.steps), 0)
        for step in self.steps:
            for need in step.needs:
                counts[need.id] += 1
        return counts


def expand(sweep: Sweep) -> Dag:
    """The DAG of a sweep. The same model asked for twice, as a run and as a teacher, is one step.

    Raises:
        InputError: for a corpus that cannot be found, runs of too few steps, or FLOPs above the cap.
    """
    corpus = resolved(sweep.corpus)
    sweep = sweep.model_copy(update={"corpus": corpus})
    fingerprint = fingerprint_of(corpus)
    supervised = list(_pretrains(sweep, "supervised", fingerprint))
    teachers = [*_pretrains(sweep, "teachers", fingerprint), *_foreign(sweep, fingerprint)]
    _check_sizes(sweep, teachers)
    bare = list(_pretrains(sweep, "students", fingerprint))
    students = [
        replace(student, teacher=teacher, method=method)
        for student, teacher, method in itertools.product(bare, _unique(teachers), sweep.methods)
    ]
    asked = [*supervised, *teachers, *students]
    steps = with_caches(_unique(asked))
    if sweep.training.schedule == "wsd" and sweep.share_trunks:
        steps = with_trunks(steps)
    dag = Dag(steps=tuple(steps), asked=len(asked))
    if sweep.max_flops and dag.flops > sweep.max_flops:
        raise InputError(
            f"max_flops: the sweep needs {dag.flops:.3g} FLOPs, above its cap of {sweep.max_flops:.3g}; "
            "raise the cap or shrink a grid"
        )
    return dag


def _check_sizes(sweep: Sweep, teachers: list[Step]) -> None:
    """Refuse students larger than every teacher, unless the spec means it; sizes are those of the ladder."""
    if not sweep.students or sweep.allow_weak_teachers:
        return
    largest = max(teacher.shape.params for teacher in teachers)
    for where, grid in sweep.grids("students"):
        for size in grid.params:
            if (student := _shape(sweep, size, where).params) > largest:
                raise InputError(
                    f"{where}.params: {size:g} is larger than every teacher (on the ladder "
                    f"{student:,} against {largest:,} at most), which the distillation law cannot describe; "
                    "add a larger teacher, or set allow_weak_teachers: true if you mean to study that"
                )


def with_caches(runs: list[Step]) -> list[Step]:
    """The runs, and before those that read their teacher from a cache the caches: each as long as needed."""
    longest: dict[str, Step] = {}
    for cache in filter(None, map(_cache_for, runs)):
        key = _but_for_its_length(cache)
        longest[key] = max(longest.get(key, cache), cache, key=lambda step: step.steps)
    steps: list[Step] = []
    for run in runs:
        own = _cache_for(run)
        logits = longest[_but_for_its_length(own)] if own else None
        steps += [logits, replace(run, logits=logits)] if logits else [run]
    return _unique(steps)


def _cache_for(run: Step) -> Step | None:
    """The cache that would do for ``run`` alone, if it reads one."""
    if run.teacher is None or run.method is None or run.method.logits == "online":
        return None
    kept = Method(logits=run.method.logits, top=run.method.top)
    return replace(run, cache=True, shape=run.teacher.shape, seed=0, method=kept)


def _but_for_its_length(step: Step) -> str:
    return json.dumps(step.config | {"steps": None}, sort_keys=True)


def with_trunks(runs: list[Step]) -> list[Step]:
    """The runs, those that differ only in length as branches of one trunk, and the trunks before them.

    The trunk of a length begins where that of the next shorter one ended; the longest run needs none of its
    own. Under TAID a run knows from the first step how long it is, and stands alone.
    """
    families: dict[str, list[Step]] = {}
    for run in runs:
        alone = run.method is not None and run.method.taid is not None
        families.setdefault(run.id if alone else _but_for_its_length(run), []).append(run)
    steps: list[Step] = []
    for family in families.values():
        *shorter, longest = sorted(family, key=lambda run: run.steps)
        start = None
        for run in shorter:
            start = replace(run, trunk=True, start=start)
            steps += [start, replace(run, start=start)]
        steps.append(replace(longest, start=start))
    return steps


def _foreign(sweep: Sweep, fingerprint: str) -> Iterator[Step]:
    """The teachers that exist already, to be measured."""
    for where, teacher in sweep.pretrained:
        from sweeps.foreign.admit import admit  # with torch, and mostly transformers

        shape, foreign = admit(teacher, sweep.corpus, where)
        yield Step(
            shape=shape,
            aspect_ratio=sweep.aspect_ratio,
            steps=0,
            seed=0,
            data_seed=0,
            half=None,
            corpus=sweep.corpus,
            corpus_fingerprint=fingerprint,
            training=sweep.training,
            foreign=foreign,
        )


def _pretrains(sweep: Sweep, field: Role, fingerprint: str) -> Iterator[Step]:
    half: Half = None if not sweep.corpus.halves else "second" if field == "students" else "first"
    for where, grid in sweep.grids(field):
        for params, seed in itertools.product(grid.params, grid.seeds):
            shape = _shape(sweep, params, where)
            for tokens in _lengths(grid, shape):
                steps = sweep.training.steps(tokens)
                if steps < MIN_STEPS:
                    raise InputError(
                        f"{where}: {format_number(params)} parameters on {format_number(tokens)} tokens are "
                        f"{steps} optimiser steps of {sweep.training.batch_tokens:g} tokens; at least "
                        f"{MIN_STEPS} are needed for a loss that measures the data: ask for "
                        f"{format_number(MIN_STEPS * sweep.training.batch_tokens)} tokens or more, or lower "
                        "training.batch_tokens"
                    )
                warmup = sweep.training.warmup_steps
                if 2 * warmup > steps:
                    raise InputError(
                        f"training.warmup_tokens: warm-up takes {warmup} of the {steps} steps of {where} at "
                        f"{format_number(tokens)} tokens; at most half may be warm-up"
                    )
                yield Step(
                    shape=shape,
                    aspect_ratio=sweep.aspect_ratio,
                    steps=steps,
                    seed=seed,
                    data_seed=seed if grid.data_seed is None else grid.data_seed,
                    half=half,
                    corpus=sweep.corpus,
                    corpus_fingerprint=fingerprint,
                    training=sweep.training,
                )


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
