"""Execution of a step or a cohort of steps, the work that executors launch; results go to the store."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.dag.kind import StepKind
from sweeps.data import TokenizedCorpus
from sweeps.data.corpus import planned_tokens
from sweeps.estimate.memory.layout import describe
from sweeps.execute.steps.gang_layout import agreed_layout
from sweeps.execute.steps.provenance import commit_result
from sweeps.execute.steps.run_result import measured_result, measured_throughput
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.leases import Lease, hold_leases
from sweeps.store.outcomes import Ending, Stopped, is_fault_of_own_part
from sweeps.store.records import CACHE_BYTES
from sweeps.store.store import Store
from sweeps.store.time_limit import TimeLimit

if TYPE_CHECKING:
    from sweeps.distill.caches.shard_cache import Wrote
    from sweeps.model.distributed import World
    from sweeps.train.run import Run

LOG = logging.getLogger("distlaw")
Done = tuple[Step, dict[str, Any] | Exception]
Watch = Callable[[Step, "Run"], None]
"""Function that is called periodically with a step and its run."""


def run_step(store: Store, step: Step) -> dict[str, Any]:
    """Train and evaluate the model of ``step`` unless the store has its result; return the result.

    Raises:
        InputError: if the corpus has changed since the step was planned.
        Diverged: if training diverges.
        OSError: if the store cannot be written; no result is committed.
    """
    ((_, result),) = run_steps(store, [step])
    if isinstance(result, Exception):
        raise result
    return result


def run_steps(
    store: Store,
    steps: Sequence[Step],
    watch: Watch | None = None,
    tracker: str | None = None,
    numbers: Mapping[str, int] | None = None,
    limit: TimeLimit | None = None,
    gpu_share: float = 1.0,
    **about: Any,
) -> Iterator[Done]:
    """Run ``steps`` of one cohort together; yield each with its result or error when it ends.

    A step that another process works on is yielded with :class:`~sweeps.store.outcomes.Stopped`.

    Args:
        store: the store.
        steps: the steps.
        watch: called with their progress.
        tracker: experiment tracker, by default that of the environment (:mod:`.trackers`).
        numbers: numbers of the attempts by step; by default the next ones.
        limit: time limit of this process, if it has one.
        gpu_share: share of a GPU's memory that this process may use, if there is a GPU.
        about: recorded with the claims.

    Raises:
        InputError, OSError: errors that concern all steps.
    """
    from sweeps.model.distributed import world

    missing = []
    for step in steps:
        if found := store.result(step.id):
            yield step, found
        else:
            missing.append(step)
    if missing and missing[0].trainer:
        from sweeps.execute.steps.command_steps import run_commands

        yield from run_commands(store, missing, numbers, limit, **about)
    elif missing:
        with world() as here:
            if not here.leads:
                yield from _train(store, missing, {}, here, watch, tracker, gpu_share)
                return
            with hold_leases(store, [step.id for step in missing], numbers, limit=limit, **about) as leases:
                for step in missing:
                    if step.id not in leases:
                        yield step, Stopped(Ending.HELD, "another process works on it")
                if mine := [step for step in missing if step.id in leases]:
                    yield from _train(store, mine, leases, here, watch, tracker, gpu_share)


def _train(
    store: Store,
    steps: list[Step],
    leases: Mapping[str, Lease],
    world: World,
    watch: Watch | None,
    tracker: str | None,
    gpu_share: float,
) -> Iterator[Done]:
    from sweeps.distill.generation.generated_text import texts_of
    from sweeps.distill.teacher import target_of
    from sweeps.execute.steps.trackers import Tracking
    from sweeps.train.loop import train_together

    first = steps[0]
    corpus = planned_tokens(first.corpus, first.corpus_fingerprint)
    if not first.kind.trains:
        yield first, _result_without_training(store, first, corpus, leases.get(first.id), world)
        return
    runs = _runs(store, steps, corpus, leases, world, gpu_share)
    of = {id(runs[step.id]): step for step in steps}
    models = runs[first.id].models
    assert models is not None

    with ExitStack() as stack:
        tracking = stack.enter_context(closing(Tracking(store, tracker)))

        def report(run: Run) -> None:
            if world.leads:
                step = of[id(run)]
                leases[step.id].progress = _progress(run)
                tracking.log(step, run.done, run.numbers())
                if watch:
                    watch(step, run)

        for run, error in train_together(
            list(runs.values()),
            corpus.train_tokens_of(first.half),
            data_seed=first.data_seed,
            first=first.first,
            texts=texts_of(store, first, corpus),
            target=target_of(store, first, corpus, models),
            report=report,
        ):
            step = of[id(run)]
            result = error or _finish(store, step, run, corpus, leases.get(step.id))
            if isinstance(result, Exception) and not world.leads and _leader_knows(result):
                result = {}
            if isinstance(result, dict) and "loss" in result:
                tracking.log(step, run.done, {"heldout/loss": result["loss"]})
            if world.leads:
                leases[step.id].conclude(result if isinstance(result, Exception) else None)
            yield step, result


def _result_without_training(
    store: Store, step: Step, corpus: TokenizedCorpus, lease: Lease | None, world: World
) -> dict[str, Any] | Exception:
    """Evaluate a foreign model, or write down what a teacher says; whoever has the lease concludes."""
    made = _evaluate if step.foreign else _write_down
    result = made(store, step, corpus, lease, world)
    if lease:
        lease.conclude(result if isinstance(result, Exception) else None)
    return result


def _leader_knows(error: Exception) -> bool:
    """Return True if the leading process of a gang has this error too, and concludes with it.

    Where memory runs out it may not return from what it does, and this process ends the gang.
    """
    from sweeps.train.run import Diverged

    return isinstance(error, Diverged) or (isinstance(error, Stopped) and error.ending is not Ending.MEMORY)


def _runs(
    store: Store,
    steps: list[Step],
    corpus: TokenizedCorpus,
    leases: Mapping[str, Lease],
    world: World,
    gpu_share: float,
) -> dict[str, Run]:
    """Return the runs of ``steps`` by id, each where its newest checkpoint left it."""
    from sweeps.distill.caches.hidden_state_cache import kept_hidden_states
    from sweeps.distill.models import LastHiddenStates, Models, trained_weights
    from sweeps.distill.targets import Online
    from sweeps.train.recipe import RunRecipe
    from sweeps.train.run import Run

    runs, loaded, last_read = dict[str, Run](), dict[str, Online](), dict[str, LastHiddenStates]()
    caches = {cache.id: cache for step in steps for cache in step.features}
    kept = {name: kept_hidden_states(store, cache, corpus) for name, cache in caches.items()}
    for step in steps:
        if world.leads:
            store.write(step.as_json(), step.id, "step.json")
        layout = agreed_layout(step, world, leases.get(step.id), gpu_share)
        LOG.info("%s: %s: %s", step.id, describe(layout, world.size), layout.reason)
        group = world.cpu_group() if layout.sharded else None
        recipe = RunRecipe(
            shape=step.shape,
            steps=step.steps,
            training=step.training,
            seed=step.seed,
            method=step.method,
            stop=step.ends if step.ends_stable else None,
        )
        run = runs[step.id] = Run(
            recipe=recipe,
            checkpoints=Checkpoints(store, step.id, leases.get(step.id), group=group),
            start=Checkpoints(store, step.start.id, group=group) if step.start else None,
            init=trained_weights(store, step.init) if step.init else None,
            world=world,
            models=Models(store, step, loaded, last_read, kept, world if layout.sharded else None),
            layout=layout,
        )
        if world.leads:
            leases[step.id].progress = _progress(run)
    return runs


def _write_down(
    store: Store, step: Step, corpus: TokenizedCorpus, lease: Lease | None, world: World
) -> dict[str, Any] | Exception:
    """Write a teacher's logits, hidden states or text to the store, all processes together.

    The leading one returns when all of it is there.
    """
    from sweeps.distill.caches.hidden_state_cache import kept_hidden_states
    from sweeps.distill.caches.shard_cache import Writer
    from sweeps.distill.generation.generated_text import text_columns, texts
    from sweeps.distill.teacher import cached

    started, wrote = time.monotonic(), _telling(lease)
    columns: dict[str, Any] = {}
    try:
        if lease:
            store.write(step.as_json(), step.id, "step.json")
        layout = agreed_layout(step, world)
        LOG.info("%s: %s: %s", step.id, describe(layout, world.size), layout.reason)
        together = world if layout.sharded else None
        writer = Writer(world.rank, world.size, holds_step=True, together=together)
        if step.kind is StepKind.CACHE_LOGITS:
            kept = cached(store, step, corpus, wrote, writer).logits
        elif step.kind is StepKind.CACHE_FEATURES:
            kept = kept_hidden_states(store, step, corpus, wrote, writer).shards
        else:
            kept = texts(store, step, corpus, wrote, writer).kept
        if not lease:
            return {}
        if step.kind is StepKind.GENERATE_TEXT:
            columns = {"text_columns": text_columns(store, step, corpus)}
        lease.fence()
    except (InputError, Stopped) as error:
        return error
    seconds = {"train": 0.0, "write": time.monotonic() - started}
    tokens = len(kept.numbers) * step.shape.context
    size = {"tokens": tokens, CACHE_BYTES: kept.cache.stored_bytes}
    return commit_result(store, step, size | {"seconds": seconds} | columns)


def _telling(lease: Lease | None) -> Wrote:
    """Return a function that tells ``lease`` how many blocks are there, of how many."""
    started = time.monotonic()

    def wrote(blocks: int, of: int) -> None:
        if not lease:
            return
        lease.progress = {"steps_done": blocks, "steps": of, "seconds": time.monotonic() - started}
        lease.look()

    return wrote


def _evaluate(
    store: Store, step: Step, corpus: TokenizedCorpus, lease: Lease | None, world: World
) -> dict[str, Any] | Exception:
    """Evaluate a pretrained model, in the leading process, or in all that it is sharded over."""
    from sweeps.distill.models import load_foreign
    from sweeps.distill.served_teacher import served_loss
    from sweeps.model.distributed import ONE_PROCESS
    from sweeps.train.evaluation import as_result, evaluate

    try:
        sharded = not step.served and agreed_layout(step, world).sharded
    except InputError as error:  # it fits nowhere
        return error
    shards = world if sharded else None
    if not (lease or shards):
        return {}
    started = time.monotonic()
    try:
        if lease:
            store.write(step.as_json(), step.id, "step.json")
        if step.served:
            loss, about = served_loss(store, step, corpus, _telling(lease))
            heldout = as_result(loss, corpus) | about
        else:
            heldout = evaluate(load_foreign(step, shards), step, corpus, shards or ONE_PROCESS)
        if not lease:
            return {}
        lease.fence()
    except (InputError, Stopped) as error:
        return error
    if not math.isfinite(heldout["loss"]):
        why = ": it gives no probability to a token of that text" if heldout["loss"] == math.inf else ""
        return InputError(
            f"teacher {step.size}: its held-out loss is {heldout['loss']}{why}; distil from another"
        )
    return commit_result(
        store, step, heldout | {"seconds": {"train": 0.0, "evaluate": time.monotonic() - started}}
    )


def _progress(run: Run) -> dict[str, Any]:
    return {
        "began": run.began,
        "steps_done": run.done,
        "steps": run.recipe.end,
        "loss": run.loss if math.isfinite(run.loss) else None,
        "seconds": run.seconds,
        "pieces": run.pieces,
        "write_seconds": run.checkpoints.write_seconds if run.checkpoints else 0.0,
    }


def _finish(
    store: Store, step: Step, run: Run, corpus: TokenizedCorpus, lease: Lease | None
) -> dict[str, Any] | Exception:
    """Evaluate a trained model and commit its result, in the leading process.

    Others that have a part of the model take part.
    """
    from sweeps.model.device import reproducibility
    from sweeps.train.run import Diverged

    if not (lease or run.sharded):
        return {}
    result: dict[str, Any] = {
        "seconds": {"train": run.seconds},
        "pieces": run.pieces,
        "layout": asdict(run.layout) | {"processes": run.world.size},
        "reproducible": reproducibility(step.training.deterministic),
        "throughput": measured_throughput(step, run),
    }
    if step.training.compile:
        result["compiled"] = run.used_options.provenance()
    if step.kind is not StepKind.SHARED_PREFIX:
        try:
            result |= measured_result(store, step, run, corpus, lease)
        except Exception as error:
            if isinstance(error, Diverged | InputError) or is_fault_of_own_part(error):
                return error
            raise
    if not lease:
        return {}
    try:
        lease.fence()
    except Stopped as stopped:
        return stopped
    result = commit_result(store, step, result)
    if step.kind is not StepKind.SHARED_PREFIX:
        Checkpoints(store, step.id).clear()
    return result
