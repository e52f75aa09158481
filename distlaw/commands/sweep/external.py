"""``distlaw sweep jobs`` and ``record``: train runs with a scheduler and trainers of your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from distlaw.commands.sweep.options import Changes, Place, Spec, StorePath


def jobs(spec: Spec, store: StorePath = None, changes: Changes = None) -> None:
    """Print the runs that commands train, one JSON object a line, and record the sweep in its store.

    Each has the command line, its environment, and the job description that DISTLAW_JOB must name. Those that
    are ready need nothing more; print again when their results are recorded.

    Example: distlaw sweep jobs spec.yaml > jobs.jsonl
    """
    import sweeps

    for job in sweeps.load(spec, changes or ()).jobs(store):
        typer.echo(json.dumps(job))


def record(
    store: Place,
    step: Annotated[str, typer.Argument(help="The run, by the start of its id.")],
    result: Annotated[Path, typer.Argument(help="Its result.json: params, and a loss or a model.")],
) -> None:
    """Record the result of a run that was trained elsewhere; a model is measured on the held-out text first.

    Example: distlaw sweep record runs/sweep 3f2a result.json
    """
    import sweeps

    found = sweeps.record(store, step, result)
    typer.echo(f"{found['id']}: loss {found['loss']:.4f} nats/token, {found['params']:,.0f} parameters")
