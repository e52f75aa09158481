"""Result of a run that ends at its stable phase: the loss that its decay would bring it to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fits.table.projection import projected_loss
from scaling.errors import InputError
from sweeps.dag.projected import projected_sd
from sweeps.dag.step import Step
from sweeps.data import TokenizedCorpus
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store

if TYPE_CHECKING:
    from sweeps.train.run import Run


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
    heldout = evaluate(run.model, step, corpus)
    before = evaluate(_at_its_stable_end(store, step.early, run, corpus).model, step.early, corpus)["loss"]
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
    start = Checkpoints(store, early.start.id) if early.start else None
    run = Run(recipe=recipe, start=start, models=longer.models)
    if not run.active:
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
