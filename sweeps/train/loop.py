"""Training loop. Runs of one teacher and order of the data train side by side, its pass paid once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import InputError
from sweeps import environment
from sweeps.data.batches import Batches
from sweeps.data.prefetch import loader
from sweeps.distill.batch_rows import BatchRows
from sweeps.distill.caches.hidden_state_cache import KeptHiddenStates
from sweeps.distill.generation.generated_text import Texts
from sweeps.distill.targets import Cached
from sweeps.model.decoder import Decoder
from sweeps.model.device import (
    device,
    keep_freed_memory,
    nondeterministic_operation,
    use_deterministic_kernels,
)
from sweeps.spec.method.run_views import TargetReader
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.checkpoints.interval import CheckpointClock
from sweeps.store.outcomes import Ending, Stopped, is_fault_of_own_part
from sweeps.train.gang import agree, end_of_gang
from sweeps.train.profiling import step_profiler
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Diverged, Run
from sweeps.train.throughput import timed

REPORT_SECONDS = 1.0
"""Seconds between two reports of progress."""
CHECKPOINT_SECONDS = environment.CHECKPOINT_SECONDS
"""Seconds between two checkpoints; by what they cost where it is None."""

Report = Callable[[Run], None]
Ended = tuple[Run, Exception | None]


def train_together(
    runs: Sequence[Run],
    tokens: NDArray[np.integer],
    *,
    data_seed: int,
    first: int = 0,
    target: TargetReader | None = None,
    texts: Texts | None = None,
    report: Report | None = None,
    checkpoint_seconds: float | None = None,
) -> Iterator[Ended]:
    """Train ``runs`` on the same batches of ``tokens``, which ``data_seed`` orders; yield each when it ends.

    A run that fails is yielded with its error, and the others go on. Each run's numbers are those it would
    have alone: on one device they are a function of its recipe, the tokens, their order and the target, bit
    for bit, however often it was killed and went on, and whether or not it began from a shared prefix.

    Args:
        runs: with shapes of one context and vocabulary, and batches of one size.
        tokens: the training stream.
        data_seed: of the order of the data.
        first: batches of that order that were for others, before those of the first step.
        target: whom they follow.
        texts: what to learn from instead, block by block, if it is not the data itself.
        report: is told of each run now and then, and when it ends.
        checkpoint_seconds: between two checkpoints; by default by what they cost
            (:func:`~sweeps.store.checkpoints.interval.checkpoint_interval`).
    """
    keep_freed_memory()
    use_deterministic_kernels(any(run.recipe.training.deterministic for run in runs))
    shape, training = runs[0].recipe.shape, runs[0].recipe.training
    batch = round(training.batch_tokens / shape.context)
    data = Batches(tokens, context=shape.context, batch=batch, seed=data_seed, first=first)
    for run in runs:
        if run.source:
            run.source.watch(data)
    load = loader(data, (texts or data).read, runs[0].world.share, device(), ahead=False if texts else None)
    seconds = CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds
    report_due = Every(REPORT_SECONDS)
    clock = CheckpointClock([run.checkpoints for run in runs if run.checkpoints], seconds)
    under_way = list(runs)
    steps = range(min(run.done for run in runs), max(run.recipe.end for run in runs))
    ahead = Batches(tokens, context=shape.context, batch=batch, seed=data_seed, first=first)
    _read_ahead([target, texts], runs, steps, ahead)
    for step in steps:
        active = [run for run in under_way if run.done == step]
        if not active:
            continue
        started = time.perf_counter()
        with timed([run.clock for run in active], "data"):
            numbers, blocks = load(step)
        try:
            rows = _rows(target, blocks[:, :-1], numbers, active)
        except Exception as failure:
            yield from _ended_together(failure, active[0], under_way)
            return
        shared = (time.perf_counter() - started) / len(active)
        save, show = clock.due(), report_due()
        for run in active:
            run.seconds += shared
            error = _step(run, blocks, target, rows, numbers, save)
            if report and not error and (show or not run.active):
                report(run)
            if error or not run.active:
                under_way.remove(run)
                yield run, error
        if save:
            clock.saved()
        step_profiler()
    for run in under_way:  # had ended before
        run.prepare_evaluation()
        yield run, None


def train(
    recipe: RunRecipe,
    tokens: NDArray[np.integer],
    *,
    data_seed: int | None = None,
    target: TargetReader | None = None,
    checkpoints: Checkpoints | None = None,
    checkpoint_seconds: float | None = None,
) -> Decoder:
    """Return the model of one run; its seed orders the data too, unless ``data_seed`` is given.

    Raises:
        Diverged: if loss or gradient are no longer finite, naming the step.
    """
    run = Run(recipe=recipe, checkpoints=checkpoints)
    order = recipe.seed if data_seed is None else data_seed
    for _, error in train_together(
        [run], tokens, data_seed=order, target=target, checkpoint_seconds=checkpoint_seconds
    ):
        if error:
            raise error
    return run.model


def _read_ahead(
    readers: Iterable[TargetReader | Texts | None], runs: Sequence[Run], steps: range, order: Batches
) -> None:
    """Have what reads caches, ``readers`` and hidden states of ``runs``, begin with the batches to come."""
    states = {id(each): each for run in runs if run.models for each in run.models.kept.values()}
    for reader in (*readers, *states.values()):
        if isinstance(reader, Cached | Texts | KeptHiddenStates):
            trained = (step for step in steps if any(run.done <= step < run.recipe.end for run in runs))
            reader.read_ahead(runs[0].world.share(order.numbers(step)).numpy() for step in trained)


def _ended_together(failure: Exception, first: Run, runs: Sequence[Run]) -> list[Ended]:
    """Return ``runs`` as ended by a teacher's pass that the gang has lost; raise any other failure."""
    ended = end_of_gang(failure, first.pieces, first.world)
    if ended is None:
        raise failure
    return [(run, ended) for run in runs]


def _rows(
    target: TargetReader | None, inputs: Tensor, numbers: Tensor, runs: Sequence[Run]
) -> Tensor | BatchRows | None:
    """Return what the target reads of a batch: at once, or as runs come to their micro-batches."""
    if target is None or runs[0].source:
        return None
    timer = partial(timed, [run.clock for run in runs], "teacher")
    if isinstance(target, Cached) or all(run.pieces == 1 for run in runs):
        with timer():
            return target.rows(inputs, numbers)
    return BatchRows(target, inputs, numbers, shared=len(runs) > 1, timer=timer)


def _step(
    run: Run,
    blocks: Tensor,
    target: TargetReader | None,
    rows: Tensor | BatchRows | None,
    numbers: Tensor,
    save: bool,
) -> Exception | None:
    try:
        save, run.pieces = agree(save, run.pieces, run.checkpoints, run.world)
        run.step(blocks, target, rows, numbers)
        if save if run.active else run.recipe.stop is not None:
            run.save()
        if not run.active:
            run.prepare_evaluation()
            run.close()
    except Stopped as stopped:
        with suppress(Stopped):
            if stopped.ending is not Ending.HELD:  # whoever goes on does so from here
                run.save()
            run.close()
        return stopped
    except Exception as error:
        if isinstance(error, Diverged | InputError) or is_fault_of_own_part(error):
            with suppress(Stopped):
                run.close()
            return error
        if ended := end_of_gang(error, run.pieces, run.world):
            with suppress(RuntimeError, Stopped):  # but a full disk, say, is what it ended of
                if run.checkpoints:
                    run.checkpoints.check_write()
            return ended
        if refused := nondeterministic_operation(error):
            return refused
        raise
    return None


class Every:
    """True when called the first time after ``seconds`` have passed since it last was."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.since = seconds, time.monotonic()

    def __call__(self) -> bool:
        due = time.monotonic() - self.since >= self.seconds
        if due:
            self.since = time.monotonic()
        return due
