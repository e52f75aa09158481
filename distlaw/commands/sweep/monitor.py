"""``distlaw sweep status|watch|logs|cancel|retry|gc``: see and control a sweep through its store."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.commands.sweep.options import Json, Place
from distlaw.number_options import count_from
from scaling.errors import InputError

if TYPE_CHECKING:
    from rich.console import Group

    from sweeps.store.store import Store
    from sweeps.watch.status import Status, StepStatus

WATCH_SECONDS = 5.0
Names = Annotated[
    list[str] | None, typer.Argument(help="Steps, by the start of their ids. All if none is given.")
]


def status(store: Place, as_json: Json = False) -> None:
    """Show the state of a sweep: done, running, waiting, blocked, failed and why; and what is spent.

    Example: distlaw sweep status runs/quickstart
    """
    from rich.console import Console

    found = _status(store)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    Console().print(_picture(found), highlight=False)


def watch(store: Place) -> None:
    """Show the state of a sweep again and again until nothing runs. Ctrl-C stops watching, not the sweep.

    Example: distlaw sweep watch runs/quickstart
    """
    from rich.live import Live

    found = _status(store)
    with Live(_picture(found), auto_refresh=False) as live:
        while found.drivers or found.of("running"):
            time.sleep(WATCH_SECONDS)
            found = _status(store)
            live.update(_picture(found), refresh=True)


def logs(
    store: Place,
    step: Annotated[str, typer.Argument(help="The step, by the start of its id.")],
    attempt: Annotated[
        int | None,
        typer.Option(parser=count_from(1), metavar="<int>", help="Number of the attempt. Default: the last."),
    ] = None,
) -> None:
    """Print the log of an attempt at a step, which may still be running.

    Example: distlaw sweep logs runs/quickstart 3f2a
    """
    from sweeps.store.leases import attempts

    place = _open(store)
    (chosen,) = _chosen(_status(store), [step])
    history = {each.number: each for each in attempts(place, chosen.id)}
    if not history:
        raise InputError(f"{chosen.id}: {chosen.label} has not started")
    number = attempt or max(history)
    if number not in history:
        raise InputError(f"--attempt: {chosen.id} had attempts 1 to {max(history)}, not {number}")
    told = history[number].told
    if not told.get("log"):
        raise InputError(f"{chosen.id}: attempt {number} ran inside the sweep's own process and has no log")
    text = place.read_bytes(*told["log"].split("/")) or b""
    typer.echo(text.decode(errors="replace"), nl=False)
    if reason := told.get("reason"):
        typer.echo(f"{told['ending']}: {reason}", err=True)


def cancel(store: Place, steps: Names = None) -> None:
    """Stop a sweep, or some of its steps, wherever they run; each writes a checkpoint first.

    A sweep goes on when it is started again, a step when it is retried.

    Example: distlaw sweep cancel runs/quickstart 3f2a
    """
    from sweeps.store.clock import timestamp
    from sweeps.store.leases import CANCEL

    place, found = _open(store), _status(store)
    if not steps:
        place.write({"asked": timestamp()}, CANCEL)
        running = len(found.of("running"))
        typer.echo(f"{found.name}: asked {running} running steps to stop, and nothing more to start")
        return
    for step in _chosen(found, steps):
        if step.state == "done":
            typer.echo(f"{step.id}  {step.label}: done already")
            continue
        place.write({"asked": timestamp()}, step.id, "attempts", CANCEL)
        typer.echo(f"{step.id}  {step.label}: cancelled")


def retry(store: Place, steps: Names = None) -> None:
    """Retry failed or cancelled steps, by the drivers at work or the next one.

    Example: distlaw sweep retry runs/quickstart 3f2a
    """
    from sweeps.store.leases import CANCEL

    place, found = _open(store), _status(store)
    chosen = _chosen(found, steps) if steps else found.of("failed")
    for step in chosen:
        if step.state != "failed":
            typer.echo(f"{step.id}  {step.label}: {step.state}, it has not failed")
            continue
        if step.damaged:
            typer.echo(f"{step.id}  {step.label}: {step.reason}")
            continue
        place.remove(step.id, "attempts", CANCEL)
        if failure := place.read(step.id, "failure.json"):
            place.write(failure | {"pardoned": True}, step.id, "failure.json")
        typer.echo(f"{step.id}  {step.label}: to be tried again")
    if not chosen:
        typer.echo("nothing has failed")
    elif not found.drivers:
        typer.echo("no driver is at work: start the sweep again")


def gc(
    store: Place,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it; without this, only list what would be removed.")
    ] = False,
    models: Annotated[
        bool,
        typer.Option("--models", help="Also remove weights of runs that no unfinished step needs."),
    ] = False,
) -> None:
    """Remove what a store no longer needs: leftovers, used checkpoints and caches. Results always stay.

    Example: distlaw sweep gc runs/quickstart --yes
    """
    from sweeps.watch.garbage import find_garbage

    place, found = _open(store), _status(store)
    found_garbage = find_garbage(place, found, models=models)
    labels = {step.id: step.label for step in found.steps}
    for each in found_garbage:
        step, name = each.place
        typer.echo(f"{each.size / 1e6:9.1f} MB  {step}/{name}  {labels[step]}: {each.why}")
        if yes:
            place.remove_tree(*each.place)
    total = sum(each.size for each in found_garbage)
    hint = "" if yes or not found_garbage else "; --yes removes it"
    typer.echo(f"{total / 1e6:9.1f} MB {'removed' if yes else 'not needed any more'}{hint}")


def _open(store: str) -> Store:
    from sweeps.store.store import Store

    return Store(store)


def _status(store: str) -> Status:
    import sweeps

    return sweeps.status(store)


def _chosen(found: Status, prefixes: list[str]) -> list[StepStatus]:
    chosen = []
    for prefix in prefixes:
        steps = [step for step in found.steps if step.id.startswith(prefix)]
        if len(steps) != 1:
            raise InputError(f"STEP: {prefix!r} names {len(steps) or 'no'} steps of {found.name}")
        chosen += steps
    return chosen


def _picture(found: Status) -> Group:
    """Draw a status for a terminal."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from sweeps.watch.status_text import failed_rows, running_rows, status_summary, unnamed_lines

    running = Table.grid(padding=(0, 2))
    for row in running_rows(found):
        running.add_row(*row)
    failed = [
        part
        for *row, reason in failed_rows(found)
        for part in (Text("  ".join(row)), Padding(Text(reason), (0, 0, 0, 4)))
    ]
    table = [running] if running.row_count else []
    return Group(*map(Text, status_summary(found)), *table, *failed, *map(Text, unnamed_lines(found)))
