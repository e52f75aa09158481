"""Tokens that caches and generated texts keep: each of the text once, in however many epochs it is read."""

from __future__ import annotations

from dataclasses import replace

from sweeps.dag.expand import Dag
from sweeps.dag.resolved import Text
from sweeps.dag.step import Step


def with_kept_tokens(dag: Dag, text: Text) -> Dag:
    """Return the steps of a sweep, those that keep something of its text with the tokens of that.

    Only where there are such steps is the text counted.

    Args:
        dag: The steps.
        text: Their text.

    Raises:
        InputError: If the text cannot be had, has changed, or is too small.
    """
    if not any(step.kind.keeps_text for step in dag.steps) or not text.size.known:
        return dag
    size, kept = text.size, dict[str, Step]()

    def counted(step: Step) -> Step:
        if step.kind.keeps_text and step.corpus_fingerprint == text.fingerprint:
            blocks = (size.train_tokens_of(step.half) - 1) // step.shape.context
            kept[step.id] = replace(step, text_tokens=max(1, int(blocks)) * step.shape.context)
            return kept[step.id]
        if not (step.logits or step.texts or step.features):
            return step
        return replace(
            step,
            logits=step.logits and kept.get(step.logits.id, step.logits),
            texts=step.texts and kept.get(step.texts.id, step.texts),
            features=tuple(kept.get(each.id, each) for each in step.features),
        )

    return replace(dag, steps=tuple(map(counted, dag.steps)))
