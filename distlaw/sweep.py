"""``distlaw sweep``: plan, run and read sweeps."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.spec import Sweep
    from sweeps.state import State
    from sweeps.steps import Dag
    from sweeps.store import Store

app = typer.Typer(
    help="Train grids of teachers and students and log their cross-entropies.", no_args_is_help=True
)

SHOWN = 100
"""Steps that a plan prints one by one."""
FAR_FROM_ASKED = 0.15

Spec = Annotated[str, typer.Argument(help="A YAML file, or a preset such as 'quickstart'.")]
StorePath = Annotated[
    str | None,
    typer.Option("--store", help="Where results go: a path or URL. Default: runs/NAME of the spec."),
]
Cores = Annotated[int | None, typer.Option(min=1, help="Processes, one thread each. Default: all cores.")]


@app.command()
def plan(
    spec: Spec,
    store: StorePath = None,
    cores: Cores = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as JSON.")] = False,
) -> None:
    """Print the steps, FLOPs, time and memory of a sweep, then stop.

    Example: distlaw sweep plan quickstart
    """
    from sweeps.run_step import corpus_of

    sweep, dag, place = open_sweep(spec, store)
    corpus_of(dag.steps[0])
    if as_json:
        steps = [{"id": step.id, "flops": step.flops_to_spend, **step.as_json()} for step in dag.steps]
        typer.echo(json.dumps({"name": sweep.name, "flops": dag.flops, "steps": steps}, indent=2))
        return
    _render_plan(sweep, dag, place, cores or usable_cores())


@app.command()
def run(
    spec: Spec,
    store: StorePath = None,
    cores: Cores = None,
    executor: Annotated[
        str | None, typer.Option(help="process, ray or inline. Default: ray with an address or a GPU.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT.")
    ] = None,
) -> None:
    """Run a sweep, or what is missing of it. Ctrl-C stops it; the same command goes on.

    Example: distlaw sweep run quickstart --store runs/quickstart
    """
    sweep, dag, place = open_sweep(spec, store)
    state = run_sweep(sweep, dag, place, cores=cores or usable_cores(), executor=executor, address=address)
    report(state, place)


@app.command()
def results(
    store: Annotated[str, typer.Argument(help="A sweep's store.")],
    out: Annotated[Path | None, typer.Option(help="Write a .csv or .parquet file.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also runs of other texts or training rules than the last sweep's.")
    ] = False,
) -> None:
    """The runs of a store as a table, one row a run; works while the sweep runs.

    Example: distlaw sweep results runs/quickstart --out runs.csv
    """
    import sweeps
    from sweeps.cautions import of_repetition

    table = sweeps.results(store, everything=everything)
    for caution in of_repetition(table["epochs"]):
        typer.echo(caution, err=True)
    if out is None:
        typer.echo(table.to_csv(index=False), nl=False)
        return
    write_table(table, out)
    typer.echo(f"{len(table)} runs in {out}")


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write a runs table as CSV or Parquet by its suffix."""
    if out.suffix not in (".csv", ".parquet"):
        raise InputError(f"--out: {out} must end in .csv or .parquet")
    try:
        if out.suffix == ".csv":
            table.to_csv(out, index=False)
        else:
            table.to_parquet(out, index=False)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written ({error.strerror or error})") from None


def run_sweep(
    sweep: Sweep,
    dag: Dag,
    store: Store,
    *,
    cores: int,
    executor: str | None = None,
    address: str | None = None,
) -> State:
    """Run what is missing of ``dag`` with live progress; Ctrl-C leaves what is done in the store."""
    from distlaw.progress import Progress
    from sweeps import executors, scheduler
    from sweeps.cost import measured_throughput
    from sweeps.provenance import record_sweep
    from sweeps.run_step import corpus_of

    if store.root.startswith("memory:"):
        raise InputError(
            f"--store: {store.root} would be gone when the command ends; give a path or a bucket"
        )
    store.create()
    store.probe()
    record_sweep(store, sweep, dag)
    done = store.results(step.id for step in dag.steps)
    todo = [step for step in dag.steps if step.id not in done]
    if not todo:
        return scheduler.run(dag, store, executors.Inline(store), lambda _: 0.0, lambda _: None)
    throughput = measured_throughput(todo[0], corpus_of(todo[0]).heldout_tokens)
    runner = executors.executor_for(executor, store, cores=min(cores, len(todo)), address=address)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite stop, like Ctrl-C
        with Progress(store, runner.slots) as progress:
            return scheduler.run(dag, store, runner, throughput.seconds, progress.show, sweep)
    except KeyboardInterrupt:
        count = len(store.results(step.id for step in dag.steps))
        typer.echo(
            f"\nstopped: {count} of {len(dag.steps)} steps are done and kept; the same command goes on.",
            err=True,
        )
        raise
    finally:
        runner.close()


def report(state: State, store: Store) -> None:
    """Say how a sweep ended; exit with 1 if anything failed."""
    ran = len(state.done) - len(state.found)
    kept = f", {len(state.found)} were there already" if state.found else ""
    typer.echo(f"{len(state.done)} of {len(state.dag.steps)} steps done ({ran} now{kept}) in {store.root}")
    if state.complete:
        return
    labels = {step.id: step.label for step in state.dag.steps}
    for step, reason in state.failed.items():
        typer.echo(f"failed   {step}  {labels[step]}: {reason}", err=True)
    for blocked in state.blocked:
        typer.echo(f"blocked  {blocked.id}  {blocked.label}: a step it needs failed", err=True)
    raise typer.Exit(1)


def open_sweep(spec: str, store: str | None) -> tuple[Sweep, Dag, Store]:
    """The validated spec, its steps, and the store they go to (not made yet)."""
    from sweeps.spec import load_sweep, spec_name
    from sweeps.steps import expand
    from sweeps.store import Store

    sweep = load_sweep(spec)
    try:
        dag = expand(sweep)
    except InputError as error:
        raise InputError(f"{spec_name(spec)}: {error}") from None
    return sweep, dag, Store(store or f"runs/{sweep.name}")


def _render_plan(sweep: Sweep, dag: Dag, store: Store, cores: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from scaling.units import format_flops, format_number
    from sweeps import cautions
    from sweeps.cost import disk, estimate, measured_throughput
    from sweeps.run_step import corpus_of
    from sweeps.steps import NO_RUN

    corpus = corpus_of(dag.steps[0])
    throughput = measured_throughput(dag.steps[0], corpus.heldout_tokens)
    done = {step.id for step in dag.steps if store.result(step.id)}
    table = Table(title=f"{sweep.name}: {len(dag.steps)} steps of {dag.asked} asked (equal ones run once)")
    for name in ("step", "model", "tokens", "teacher", "FLOPs", "about", ""):
        table.add_column(name, justify="right" if name in ("model", "tokens", "FLOPs", "about") else "left")
    for step in dag.steps[:SHOWN]:
        table.add_row(
            step.id[:8],
            format_number(step.shape.params),
            format_number(step.tokens),
            (f"{step.kind} " if step.kind in NO_RUN else "") + (step.teacher.size if step.teacher else ""),
            f"{step.flops_to_spend:.2e}",
            _minutes(throughput.seconds(step)),
            "done" if step.id in done else "",
        )
    console = Console()
    console.print(table)
    if len(dag.steps) > SHOWN:
        console.print(f"... and {len(dag.steps) - SHOWN} more; --json lists them all")
    todo = _without(dag, done)
    most = max(cautions.epochs(step, corpus) for step in dag.steps)
    whole, left = estimate(dag, throughput, cores), estimate(todo, throughput, cores)
    cached = disk(dag, corpus.train_tokens)
    lines = [
        f"FLOPs      {format_flops(dag.flops)}; {format_flops(todo.flops)} to do"
        if done
        else f"FLOPs      {format_flops(dag.flops)}",
        f"time       about {_minutes(left.wall_seconds)} on {cores} cores "
        f"(longest chain {_minutes(whole.critical_path)}), from a probe of this machine",
        f"memory     about {left.memory_bytes / 1e9:.1f} GB at the peak",
        *([f"disk       about {cached / 1e9:.2f} GB of teachers' logits"] if cached else []),
        f"text       {corpus.source}: {corpus.train_tokens:,} training tokens, at most {most:.2f} epochs; "
        f"{corpus.heldout_tokens:,} held out ({', '.join(sorted({part.licence for part in corpus.parts}))})",
        f"store      {store.root}",
        *cautions.of_text(corpus),
        *cautions.repetition(dag.steps, corpus),
        *_cautions(sweep, dag, left.memory_bytes),
    ]
    console.print("\n".join(lines), highlight=False)


def _cautions(sweep: Sweep, dag: Dag, memory: float) -> list[str]:
    """What a plan should not pass over in silence."""
    from scaling.units import format_number

    found = []
    if memory > (available := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        found.append(
            f"! about {memory / 1e9:.0f} GB needed, {available / 1e9:.0f} GB here: expect it to be killed"
        )
    asked = {
        size
        for field in ("supervised", "teachers", "students")
        for _, grid in sweep.grids(field)
        for size in grid.params
    }
    rungs = {step.shape.params for step in dag.steps}
    far = sorted(size for size in asked if min(abs(rung / size - 1) for rung in rungs) > FAR_FROM_ASKED)
    if far:
        sizes = ", ".join(map(format_number, far))
        found.append(f"! {sizes} asked for: the ladder's nearest rung is more than {FAR_FROM_ASKED:.0%} away")
    return found


def _without(dag: Dag, done: set[str]) -> Dag:
    from dataclasses import replace

    return replace(dag, steps=tuple(step for step in dag.steps if step.id not in done))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
