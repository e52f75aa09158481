"""Sizes of a sweep that are compiled: those that its spec names, or all, or none."""

from __future__ import annotations

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.ladder import shape_for
from sweeps.spec.spec import Sweep, Training


def rules_for(sweep: Sweep, shape: ModelShape) -> Training:
    """Return the training rules of a model: those of the sweep, where ``compile`` is true or false.

    Raises:
        InputError: If the sweep's ``compile`` is still ``auto``, or names a size off the ladder.
    """
    given = sweep.training.compile
    if isinstance(given, bool):
        return sweep.training
    if isinstance(given, str):
        raise InputError("training.compile: auto is not decided yet; load the sweep first")
    corpus = sweep.corpus
    try:
        sizes = {
            shape_for(
                each, vocab=corpus.vocab, context=corpus.context, aspect_ratio=sweep.aspect_ratio
            ).params
            for each in given
        }
    except InputError as error:
        raise InputError(f"training.compile: {error}") from None
    return sweep.training.model_copy(update={"compile": shape.params in sizes})


def with_compile(sweep: Sweep, *, given: bool | list[float]) -> Sweep:
    """Return ``sweep`` with ``training.compile`` as given."""
    training = sweep.training.model_copy(update={"compile": given})
    return sweep.model_copy(update={"training": training})
