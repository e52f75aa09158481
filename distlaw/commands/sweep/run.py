"""``distlaw sweep run`` and ``results``: run sweeps and read their tables."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.commands.sweep.options import Changes, Cores, Spec, StorePath
from distlaw.tables import echo_left_out
from scaling.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.api import LoadedSweep
    from sweeps.execute.state import State
    from sweeps.store.store import Store

MOST_ON_TERMINAL, SHOWN_ON_TERMINAL = 200, 20
"""Largest number of runs that a terminal shows whole, and the number that it shows of more."""


def run(
    spec: Spec,
    store: StorePath = None,
    cores: Cores = None,
    changes: Changes = None,
    executor: Annotated[
        str | None, typer.Option(help="process, ray, slurm or inline. Default: ray with an address or a GPU.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Serve metrics for Prometheus: PORT of this machine only, or HOST:PORT."),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke", help="Only one run of every shape, for 20 optimizer steps, in a store beside."
        ),
    ] = False,
) -> None:
    """Run a sweep, or what is missing of it. Ctrl-C stops it; the same command continues.

    DISTLAW_WEBHOOK may name a URL that is told when the sweep is done, halted, or fails.

    Example: distlaw sweep run quickstart --store runs/quickstart
    """
    import sweeps

    loaded = sweeps.load(spec, changes or ())
    if smoke:
        smoke_loaded(loaded, store, cores, executor, address)
    else:
        run_loaded(loaded, store, cores, executor, address, metrics)


def run_loaded(
    loaded: LoadedSweep,
    store: str | None,
    cores: int | None = None,
    executor: str | None = None,
    address: str | None = None,
    metrics: str | None = None,
) -> None:
    """Run a sweep with live progress and say how it ended; exit with 1 if anything failed.

    Ctrl-C leaves what is done in the store.
    """
    from distlaw.progress import Progress
    from sweeps.execute.drivers.drivers import process_began
    from sweeps.operations.notify import Webhook
    from sweeps.store.store import Store

    place = Store(loaded.default_store if store is None else store)
    webhook = Webhook.from_environment(loaded.spec.name, place.root)
    if place.root.startswith("memory:"):
        raise InputError(
            f"--store: {place.root} would be gone when the command ends; give a path or a bucket"
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite stop, like Ctrl-C
    try:
        with _metrics(place, metrics), Progress(place) as progress:
            state = loaded.run(
                store,
                executor=executor,
                cores=cores,
                address=address,
                watch=_all_of(progress.show, webhook.watch if webhook else None),
                begun=process_began(),
            )
        if webhook:
            webhook.end(state)
    except KeyboardInterrupt:
        count = len(place.results(step.id for step in loaded.dag.steps))
        typer.echo(
            f"\nstopped: {count} of {len(loaded.dag.steps)} steps are done and kept; the same command goes "
            "on.",
            err=True,
        )
        raise
    typer.echo(f"{state.summary} in {place.root}")
    if not state.complete:
        for problem in state.problems():
            typer.echo(problem, err=True)
        raise typer.Exit(1)


def smoke_loaded(
    loaded: LoadedSweep, store: str | None, cores: int | None, executor: str | None, address: str | None
) -> None:
    """Run the smoke run of a sweep, print what it took, and exit with 1 if anything failed."""
    from distlaw.progress import Progress
    from sweeps.execute.run import Where
    from sweeps.operations.smoke import run_smoke
    from sweeps.store.store import Store

    where = Where(executor=executor, cores=cores, address=address)
    place = Store(f"{loaded.default_store if store is None else store}-smoke-{uuid.uuid4().hex[:8]}")
    with Progress(place) as progress:
        state, report = run_smoke(loaded.resolved, loaded.dag, place, where, progress.show)
    for line in report:
        typer.echo(line)
    if not state.complete:
        for problem in state.problems():
            typer.echo(problem, err=True)
        typer.echo(f"its logs are in {place.root}", err=True)
        raise typer.Exit(1)
    place.remove_tree()


@contextmanager
def _metrics(place: Store, address: str | None) -> Iterator[None]:
    """Serve the metrics of a store while the block runs, if there is an address."""
    if address is None:
        yield
        return
    from sweeps.operations.metrics import DASHBOARD, serve_metrics

    with serve_metrics(place, address) as url:
        typer.echo(f"metrics at {url}; a Grafana dashboard: {DASHBOARD}")
        yield


def _all_of(*watches: Callable[[State], None] | None) -> Callable[[State], None]:
    """Return a function that calls all of ``watches``."""

    def watch(state: State) -> None:
        for each in watches:
            if each:
                each(state)

    return watch


def results(
    store: Annotated[str, typer.Argument(help="A sweep's store.")],
    out: Annotated[Path | None, typer.Option(help="Write a .csv or .parquet file.")] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also runs of other texts or training rules than the last sweep."),
    ] = False,
    metrics: Annotated[
        bool,
        typer.Option(
            "--metrics",
            help="Also divergences from the teacher, cross-likelihoods of generated text, and metrics of "
            "methods' own.",
        ),
    ] = False,
    yardsticks: Annotated[bool, typer.Option("--yardsticks", hidden=True)] = False,
) -> None:
    """Print the runs of a store as a table, one row a run; also while the sweep runs.

    A terminal shows the first 20 of more than 200 runs; a pipe or --out gets all of them.

    Example: distlaw sweep results runs/quickstart --out runs.csv
    """
    import sweeps
    from sweeps.estimate.text_warnings import epoch_warnings
    from sweeps.watch.runs_table import CACHES, cache_notes, teacher_notes

    table = sweeps.results(store, everything=everything, metrics=metrics or yardsticks)
    echo_left_out(table)
    notes = [*cache_notes(table.attrs[CACHES]), *epoch_warnings(table["epochs"]), *teacher_notes(table)]
    for caution in notes:
        typer.echo(caution, err=True)
    if out is None:
        _print_runs(table, terminal=sys.stdout.isatty())
        return
    write_table(table, out)
    typer.echo(f"{len(table)} runs in {out}")


def _print_runs(table: pd.DataFrame, *, terminal: bool) -> None:
    """Print runs as CSV: all of them, but on a terminal the first of many and how to have the others."""
    short = terminal and len(table) > MOST_ON_TERMINAL
    typer.echo((table.head(SHOWN_ON_TERMINAL) if short else table).to_csv(index=False), nl=False)
    if short:
        shown = f"the first {SHOWN_ON_TERMINAL} of {len(table):,} runs"
        typer.echo(f"... {shown}; --out runs.csv writes all of them, and a pipe gets them all", err=True)


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
