"""Evaluation of a model on the held-out text of its step, as the fields of a result."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from sweeps.dag.step import Step
from sweeps.data import TokenizedCorpus
from sweeps.model.distributed import ONE_PROCESS, World
from sweeps.model.heldout import HeldoutLoss, heldout_loss
from sweeps.model.language_model import LanguageModel


def evaluate(
    model: LanguageModel, step: Step, corpus: TokenizedCorpus, world: World = ONE_PROCESS
) -> dict[str, Any]:
    """Evaluate ``model`` on held-out text, in total and by part, together with the processes of ``world``."""
    parts = [part.heldout_tokens for part in corpus.parts]
    found = heldout_loss(model, corpus.heldout, context=step.shape.context, parts=parts, world=world)
    return as_result(found, corpus)


def as_result(heldout: HeldoutLoss, corpus: TokenizedCorpus) -> dict[str, Any]:
    """Return a held-out loss as the fields of a result."""
    return {
        "loss": heldout.loss,
        "loss_se": heldout.standard_error,
        "heldout_blocks": heldout.blocks,
        "bits_per_byte": heldout.loss / math.log(2) / corpus.bytes_per_token,
        "corpus": {
            "source": corpus.source,
            "train_tokens": corpus.train_tokens,
            "heldout_tokens": corpus.heldout_tokens,
            "parts": [
                {**asdict(part), "loss": loss if math.isfinite(loss) else None}
                for part, loss in zip(corpus.parts, heldout.by_part, strict=True)
            ],
        },
    }
