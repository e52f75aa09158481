"""Sizes of a sweep that are compiled: those that its spec names, or all, or none."""

from __future__ import annotations

from collections.abc import Iterable

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from scaling.units import format_number
from sweeps.dag.ladder import shape_for
from sweeps.dag.step import Step
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
    sizes = {ladder_size(sweep, each) for each in given}
    return sweep.training.model_copy(update={"compile": shape.params in sizes})


def ladder_size(sweep: Sweep, params: float) -> int:
    """Return the size on the ladder that an entry of a list of ``training.compile`` means.

    Raises:
        InputError: If it lies outside the ladder.
    """
    corpus = sweep.corpus
    try:
        return shape_for(
            params, vocab=corpus.vocab, context=corpus.context, aspect_ratio=sweep.aspect_ratio
        ).params
    except InputError as error:
        raise InputError(f"training.compile: {error}") from None


def check_compiled_sizes(sweep: Sweep, steps: Iterable[Step]) -> None:
    """Refuse a list of ``training.compile`` with a size that our own loop does not train.

    Raises:
        InputError: Naming it, and the sizes that are trained.
    """
    given = sweep.training.compile
    sizes = sorted({step.shape.params for step in steps if step.kind.trains and not step.trainer})
    for number, each in enumerate(given if isinstance(given, list) else []):
        if ladder_size(sweep, each) not in sizes:
            known = ", ".join(map(format_number, sizes)) or "none"
            raise InputError(
                f"training.compile[{number}]: this sweep trains no model of {format_number(each)} "
                f"parameters; its sizes are {known}"
            )


def with_compile(sweep: Sweep, *, given: bool | list[float]) -> Sweep:
    """Return ``sweep`` with ``training.compile`` as given."""
    training = sweep.training.model_copy(update={"compile": given})
    return sweep.model_copy(update={"training": training})
