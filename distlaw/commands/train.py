"""``distlaw train``: one run of a sweep by hand, with its loss, speed and time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.number_options import count_from
from scaling.errors import InputError

if TYPE_CHECKING:
    from rich.status import Status

    from sweeps.dag.expand import Dag, Step
    from sweeps.store.store import Store
    from sweeps.train.run import Run

LISTED = 20
"""Steps that are listed where one must be chosen."""
LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train")(train)


def train(
    spec: Annotated[str, typer.Argument(help="A YAML file, or a preset such as 'quickstart'.")],
    step: Annotated[
        str | None, typer.Argument(help="Step, by the start of its id. Needed if there are several.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Where results go: a path or URL. Default: runs/NAME of the spec.")
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            parser=count_from(1),
            metavar="<int>",
            help="Threads of this process; a sweep uses one, and others change the last digits.",
        ),
    ] = 1,
    tracker: Annotated[str | None, typer.Option(help="tensorboard, wandb or mlflow, if installed.")] = None,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a trace of a few steps there, for Perfetto: trace.json."),
    ] = None,
) -> None:
    """Train one run of a sweep, and first what it needs; the sweep finds its result in the store.

    Example: distlaw train quickstart 3f2a --store runs/quickstart
    """
    import sweeps
    from sweeps.store.store import Store

    loaded = sweeps.load(spec)
    place = Store(loaded.default_store if store is None else store)
    loaded = loaded.at(place.root, record=True)
    chosen = _choose(loaded.dag, step)
    import torch

    from sweeps.execute.steps.provenance import record_sweep

    torch.set_num_threads(threads)
    place.create()
    record_sweep(place, loaded.spec, loaded.dag)
    for each in _with_needs(chosen):
        with _profiled(profile if each is chosen else None):
            _train(place, each, tracker)


def _choose(dag: Dag, prefix: str | None) -> Step:
    from sweeps.dag.kind import StepKind

    runs = [step for step in dag.steps if step.kind != StepKind.SHARED_PREFIX]
    found = runs if prefix is None else [step for step in dag.steps if step.id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    names = [f"  {step.id[:8]}  {step.label}" for step in (found or runs)[:LISTED]]
    more = [f"  ... and {len(found or runs) - LISTED} more"] if len(found or runs) > LISTED else []
    asked = "give one" if prefix is None else f"{prefix!r} names {'several' if found else 'none'}"
    raise InputError("\n".join([f"STEP: {asked} of these:", *names, *more]))


def _with_needs(step: Step) -> list[Step]:
    """Return all steps that ``step`` needs, each once, and the step last."""
    before = [each for need in step.needs for each in _with_needs(need)]
    return list({each.id: each for each in [*before, step]}.values())


def _train(store: Store, step: Step, tracker: str | None) -> None:
    from sweeps.execute.steps.step import run_steps

    if found := store.result(step.id):
        typer.echo(f"{step.label}: done already" + _loss(found))
        return
    console, show = _display(step)
    with console:
        ((_, result),) = run_steps(store, [step], show, tracker)
    if isinstance(result, Exception):
        raise result
    typer.echo(f"{step.label}: done in {result['seconds']['train']:.0f} s" + _loss(result))


def _profiled(folder: Path | None) -> AbstractContextManager[object]:
    """Return a context whose training leaves a trace in ``folder``, if one is given."""
    from sweeps.train.profiling import profiled

    return profiled(folder) if folder else nullcontext()


def _loss(result: dict[str, object]) -> str:
    if "loss" not in result:
        return ""
    return f", held-out loss {result['loss']:.4f} ± {result['loss_se']:.4f} nats/token"


def _display(step: Step) -> tuple[AbstractContextManager[object], Callable[[Step, Run], None]]:
    """Return a context to train in and a callback that shows a run: a live line, or a line now and then."""
    from rich.console import Console

    from sweeps.model.device import matmul_rate

    console, pace = Console(), Pace(step, matmul_rate())
    if console.is_terminal:
        status: Status = console.status(f"{step.label}: starting")
        return status, lambda _, run: status.update(pace.line(run))
    due = [time.monotonic()]

    def show(_: Step, run: Run) -> None:
        line = pace.line(run)
        if time.monotonic() >= due[0]:
            typer.echo(line)
            due[0] = time.monotonic() + LINE_SECONDS

    return nullcontext(), show


class Pace:
    """Tokens a second, model FLOPs utilisation and the time left, from one report to the next."""

    def __init__(self, step: Step, peak: float) -> None:
        self.step, self.peak = step, peak
        self.before: tuple[int, float] | None = None

    def line(self, run: Run) -> str:
        """Return the progress of ``run`` in one line."""
        text = f"{self.step.label}: step {run.done}/{run.recipe.end}, training loss {run.loss:.4f}"
        if self.before and run.seconds > self.before[1] and run.done > self.before[0]:
            steps = (run.done - self.before[0]) / (run.seconds - self.before[1])
            tokens = steps * run.recipe.training.batch_tokens
            mfu = tokens * self.step.flops / self.step.tokens / self.peak
            left = (run.recipe.end - run.done) / steps
            text += f", {tokens:,.0f} tokens/s, MFU {mfu:.0%}, {left:.0f} s left"
            text += f"; {_where_time_went(run)}"
        self.before = (run.done, run.seconds)
        return text


def _where_time_went(run: Run) -> str:
    """Return the phases that took a percent of the time or more, and the peak of memory."""
    from sweeps.train.throughput import peak_memory

    phases = run.clock.seconds
    total = sum(phases.values()) or 1.0
    shares = [f"{name} {taken / total:.0%}" for name, taken in phases.items() if taken >= 0.01 * total]
    return f"{', '.join(shares)}; {peak_memory() / 1e9:.2f} GB"
