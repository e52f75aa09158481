"""Check that a command can train a run, and that our loop can distil from what a command trained."""

from __future__ import annotations

from collections.abc import Iterator

from scaling.errors import InputError
from sweeps.dag.step import Step
from sweeps.spec.method.method_parts import parts_of


def check_command(run: Step) -> None:
    """Refuse a distillation that its trainer cannot do.

    Raises:
        InputError: naming the method and the field of it that is in the way.
    """
    if found := next(_objections(run), None):
        assert run.method is not None
        raise InputError(f"methods: {run.method.name}: {found}")


def _objections(run: Step) -> Iterator[str]:
    assert run.method is not None
    method = run.method
    if run.trainer:
        if method.init:
            yield "init: a command begins a run as it likes; leave out init, or train these runs with distlaw"
        if method.uses_modules:
            yield "use: a command cannot run parts of other modules; train these runs with distlaw"
        return
    if not any(teacher.trainer for teacher in run.teachers):
        return
    if method.auxiliary_losses or method.initial_weights or parts_of(method).target.needs(run):
        yield (
            "it reads hidden states or weights of its teacher, whose shape is not known before a command "
            "has trained it; train the teacher with distlaw, or give the finished model as a teacher"
        )
