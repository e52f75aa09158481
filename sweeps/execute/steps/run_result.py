"""Result of a trained run: its model and losses, or of one that ends before its decay a projected loss."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fits.table.projection import projected_loss
from scaling.errors import InputError
from sweeps.dag.kind import StepKind
from sweeps.dag.projected import projected_sd
from sweeps.dag.step import Step
from sweeps.data import TokenizedCorpus
from sweeps.estimate.text_warnings import epochs
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.leases import Lease
from sweeps.store.store import Store

if TYPE_CHECKING:
    from sweeps.train.run import Run


def measured_throughput(step: Step, run: Run) -> dict[str, Any]:
    """Return speed, utilization, peak memory and seconds by phase of a run in this process."""
    from sweeps.train.throughput import throughput

    tokens = (run.done - run.began) * step.training.batch_tokens
    return throughput(
        tokens=tokens,
        seconds=run.seconds - run.seconds_before,
        flops=tokens * step.flops / step.tokens,
        precision=step.precision,
        devices=run.world.size,
        phases=run.clock.seconds,
    )


def measured_result(
    store: Store, step: Step, run: Run, corpus: TokenizedCorpus, lease: Lease | None
) -> dict[str, Any]:
    """Evaluate a trained model and copy it to the store; a projected one leaves a loss and no model.

    All processes that a model is sharded over call it, and the one that has the lease writes.
    """
    from sweeps.model.model_files import save_model, send_weights
    from sweeps.train.evaluation import evaluate
    from sweeps.train.run import Diverged

    started = time.monotonic()
    if step.early:
        return projected_result(store, step, run, corpus) | {
            "epochs": epochs(step, corpus, None),
            "seconds": {"train": run.seconds, "evaluate": time.monotonic() - started},
        }
    heldout = evaluate(run.model, step, corpus, run.evaluators)
    if not math.isfinite(heldout["loss"]):
        raise Diverged(f"the held-out loss is {heldout['loss']} after the last step; lower learning_rate")
    if step.kind is StepKind.DISTILL:
        heldout |= _distilled(step, run, corpus)
    evaluated = time.monotonic() - started
    if lease is None:
        send_weights(run.model)
        return {}
    with tempfile.TemporaryDirectory(prefix="distlaw-") as scratch:
        weights_sha256 = save_model(run.model, corpus.tokenizer_files, Path(scratch))
        store.put_model(step.id, Path(scratch), model := f"model-{lease.number:04d}")
    return heldout | {
        "model": model,
        "epochs": epochs(step, corpus, heldout.get("yardsticks", {}).get("text_tokens")),
        "weights_sha256": weights_sha256,
        "seconds": {"train": run.seconds, "evaluate": evaluated},
    }


def _distilled(step: Step, run: Run, corpus: TokenizedCorpus) -> dict[str, Any]:
    """Return the metrics of a student beside its loss, and what was spent on it, part by part."""
    from sweeps.distill.metrics import measured
    from sweeps.spec.method.run_views import Evaluation

    assert step.method is not None
    assert run.models is not None
    written = run.source.sequences * run.world.size * step.shape.context if run.source else 0
    parts = step.flops_by_part(written)
    evaluation = Evaluation(
        student=run.model,
        models=run.models,
        heldout=corpus.heldout,
        context=step.shape.context,
        heads=run.method.heads,
        states=run.method.states,
        encode=corpus.encode,
    )
    texts = run.models.store.result(step.texts.id) if step.texts else None
    served = step.teacher is not None and step.teacher.served
    found = measured(step.method, evaluation, standard=not served) | (texts or {}).get("text_columns", {})
    return {
        "yardsticks": {name: value if math.isfinite(value) else None for name, value in found.items()},
        "tokens_written": written,
        "flops": parts | {"total": sum(parts.values())},
    }


def projected_result(store: Store, step: Step, run: Run, corpus: TokenizedCorpus) -> dict[str, Any]:
    """Return the held-out losses of a run at the end of its stable phase, projected to the end of its decay.

    Args:
        store: The store, with the result of the shorter run that was decayed.
        step: The step.
        run: Its run, at the end of its stable phase.
        corpus: Its text.

    Raises:
        InputError: if the result of the shorter run is gone.
        Diverged: if a loss is not finite.
    """
    from sweeps.train.evaluation import evaluate
    from sweeps.train.run import Diverged

    assert step.early is not None
    early = store.result(step.early.id)
    if early is None:
        raise InputError(
            f"{step.label}: the result of {step.early.label}, whose decay it is projected by, is gone from "
            "the store; run the sweep again"
        )
    heldout = evaluate(run.model, step, corpus, run.evaluators)
    shorter = _at_its_stable_end(store, step.early, run, corpus)
    before = evaluate(shorter.model, step.early, corpus, run.evaluators)["loss"]
    loss = float(projected_loss(heldout["loss"], before, early["loss"]))
    if not math.isfinite(loss):
        raise Diverged(f"the held-out loss is {heldout['loss']} before the decay; lower learning_rate")
    scale = loss / heldout["loss"]
    parts = [part | {"loss": None} for part in heldout["corpus"]["parts"]]
    return heldout | {
        "loss": loss,
        "loss_se": heldout["loss_se"] * scale,
        "bits_per_byte": heldout["bits_per_byte"] * scale,
        "corpus": heldout["corpus"] | {"parts": parts},
        "projected": {
            "sd": projected_sd(step),
            "stable_loss": heldout["loss"],
            "early_stable_loss": before,
            "early_loss": early["loss"],
        },
    }


def _at_its_stable_end(store: Store, early: Step, longer: Run, corpus: TokenizedCorpus) -> Run:
    """Return the shorter run before its decay: from the checkpoint of its prefix, or trained once more."""
    from sweeps.distill.generation.generated_text import texts_of
    from sweeps.distill.teacher import target_of
    from sweeps.train.loop import train_together
    from sweeps.train.run import Run

    stop = early.training.stable_steps(early.steps)
    recipe = replace(longer.recipe, steps=early.steps, stop=stop)
    group = longer.world.cpu_group() if longer.sharded else None
    run = Run(
        recipe=recipe,
        start=Checkpoints(store, early.start.id, group=group) if early.start else None,
        models=longer.models,
        world=longer.evaluators,
        layout=longer.layout,
    )
    if not run.active:
        run.prepare_evaluation()
        return run
    assert longer.models is not None
    for _, error in train_together(
        [run],
        corpus.train_tokens_of(early.half),
        data_seed=early.data_seed,
        texts=texts_of(store, early, corpus),
        target=target_of(store, early, corpus, longer.models),
    ):
        if error:
            raise error
    return run
