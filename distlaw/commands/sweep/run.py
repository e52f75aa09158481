"""``distlaw sweep``: plan, run and read sweeps."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.commands.sweep.plan import (
    Changes,
    Cores,
    Spec,
    StorePath,
    estimated_seconds,
    open_sweep,
    plan,
    refuse_above_caps,
    schema,
)
from distlaw.tables import echo_left_out
from scaling.errors import InputError
from scaling.machine import usable_cores

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.dag.expand import Dag
    from sweeps.execute.state import State
    from sweeps.spec.spec import Sweep
    from sweeps.store.store import Store

app = typer.Typer(
    help="Train grids of teachers and students and log their cross-entropies.", no_args_is_help=True
)

app.command()(plan)
app.command()(schema)


@app.command()
def run(
    spec: Spec,
    store: StorePath = None,
    cores: Cores = None,
    changes: Changes = None,
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
    sweep, dag, place = open_sweep(spec, store, changes)
    state = run_sweep(sweep, dag, place, cores=cores or usable_cores(), executor=executor, address=address)
    report(state, place)


@app.command()
def results(
    store: Annotated[str, typer.Argument(help="A sweep's store.")],
    out: Annotated[Path | None, typer.Option(help="Write a .csv or .parquet file.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also runs of other texts or training rules than the last sweep's.")
    ] = False,
    yardsticks: Annotated[
        bool, typer.Option(help="Also divergences from the teacher, and how either likes the other's text.")
    ] = False,
) -> None:
    """The runs of a store as a table, one row a run; works while the sweep runs.

    Example: distlaw sweep results runs/quickstart --out runs.csv
    """
    import sweeps
    from sweeps.estimate.text_warnings import epoch_warnings

    table = sweeps.results(store, everything=everything, yardsticks=yardsticks)
    echo_left_out(table)
    for caution in epoch_warnings(table["epochs"]):
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
            from fits.table.parquet import import_pyarrow

            import_pyarrow(f"--out: {out}")
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
    from sweeps.estimate.cost import estimate
    from sweeps.execute import executors, scheduler
    from sweeps.execute.drivers import process_began
    from sweeps.execute.provenance import record_sweep

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
    seconds = estimated_seconds(sweep, dag)
    runner = executors.executor_for(executor, store, cores=min(cores, len(todo)), address=address)
    try:
        refuse_above_caps(sweep, estimate(dag, seconds, runner.slots, sweep))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite stop, like Ctrl-C
        with Progress(store, runner.slots) as progress:
            return scheduler.run(dag, store, runner, seconds, progress.show, sweep, process_began())
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
    if state.halted:
        typer.echo(f"stopped: {state.halted}", err=True)
    labels = {step.id: step.label for step in state.dag.steps}
    for step, reason in state.failed.items():
        typer.echo(f"failed   {step}  {labels[step]}: {reason}", err=True)
    for blocked in state.blocked:
        typer.echo(f"blocked  {blocked.id}  {blocked.label}: a step it needs failed", err=True)
    raise typer.Exit(1)
