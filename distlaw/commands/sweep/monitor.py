"""``distlaw sweep status`` and the like: see and steer a sweep from any process that reaches its store."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.number_options import count_from
from scaling.errors import InputError

if TYPE_CHECKING:
    from rich.console import Group

    from sweeps.store.store import Store
    from sweeps.watch.status import Status, StepStatus

SHOWN = 20
"""Steps of a kind that are named one by one."""
WATCH_SECONDS = 5.0
Place = Annotated[str, typer.Argument(help="A sweep's store: a path or URL.")]
Names = Annotated[
    list[str] | None, typer.Argument(help="Steps, by the start of their ids. All if none is given.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``distlaw sweep``."""
    for command in (status, watch, logs, cancel, retry, gc):
        app.command()(command)


def status(
    store: Place, as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False
) -> None:
    """Where a sweep stands: done, running, waiting, blocked, failed and why; what is spent.

    Example: distlaw sweep status runs/quickstart
    """
    from rich.console import Console

    found = _status(store)
    if as_json:
        told = {**asdict(found), "caps": found.caps.model_dump(), "seconds_left": found.seconds_left}
        typer.echo(json.dumps(told, indent=1))
        return
    Console().print(_picture(found), highlight=False)


def watch(store: Place) -> None:
    """The same, again and again, until nothing is under way. Ctrl-C ends the watching, not the sweep.

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
        typer.Option(parser=count_from(1), metavar="<int>", help="Which attempt. Default: the last."),
    ] = None,
) -> None:
    """What an attempt at a step printed; it may still be running.

    Example: distlaw sweep logs runs/quickstart 3f2a
    """
    from sweeps.store.leases import attempts

    place = _open(store)
    (chosen,) = _chosen(_status(store), [step])
    history = {each.number: each for each in attempts(place, chosen.id)}
    if not history:
        raise InputError(f"{chosen.id}: {chosen.label} was never begun")
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
    from sweeps.store.leases import CANCEL, now

    place, found = _open(store), _status(store)
    if not steps:
        place.write({"asked": now()}, CANCEL)
        running = len(found.of("running"))
        typer.echo(f"{found.name}: asked {running} running steps to stop, and nothing more to start")
        return
    for step in _chosen(found, steps):
        if step.state == "done":
            typer.echo(f"{step.id}  {step.label}: done already")
            continue
        place.write({"asked": now()}, step.id, "attempts", CANCEL)
        typer.echo(f"{step.id}  {step.label}: cancelled")


def retry(store: Place, steps: Names = None) -> None:
    """Have failed or cancelled steps tried again by the drivers at work, or by the next one.

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
        bool, typer.Option("--yes", help="Remove it; without this, only say what would go.")
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="Also weights of runs that nothing unfinished learns from.")
    ] = False,
) -> None:
    """Remove what a store no longer needs: leftovers, used checkpoints and caches. Results always stay.

    Example: distlaw sweep gc runs/quickstart --yes
    """
    from sweeps.watch.garbage import garbage

    place, found = _open(store), _status(store)
    rubbish = garbage(place, found, models=models)
    labels = {step.id: step.label for step in found.steps}
    for each in rubbish:
        step, name = each.place
        typer.echo(f"{each.size / 1e6:9.1f} MB  {step}/{name}  {labels[step]}: {each.why}")
        if yes:
            place.remove_tree(*each.place)
    total = sum(each.size for each in rubbish)
    hint = "" if yes or not rubbish else "; --yes removes it"
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
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    from sweeps.watch.status import STATES

    counts = ", ".join(f"{len(found.of(state))} {state}" for state in STATES if found.of(state))
    lines = [
        Text(f"{found.name}: {counts} of {len(found.steps)} steps"),
        Text(_drivers(found)),
        Text(_spent(found)),
    ]
    running = Table.grid(padding=(0, 2))
    for step in found.of("running")[:SHOWN]:
        running.add_row("running", step.id[:8], step.label, *_progress(step), step.host)
    failed = Table.grid(*(Column(overflow="fold") for _ in range(4)), padding=(0, 2))
    for step in found.of("failed")[:SHOWN]:
        failed.add_row("failed", step.id[:8], step.label, _first_line(step.reason))
    more = [
        Text(f"... and {len(found.of(state)) - SHOWN} more {state}")
        for state in ("running", "failed")
        if len(found.of(state)) > SHOWN
    ]
    return Group(*lines, *(table for table in (running, failed) if table.row_count), *more)


def _progress(step: StepStatus) -> tuple[str, str, str]:
    told = step.beat
    if "steps_done" not in told:
        return "starting", "", ""
    loss = told.get("loss")
    left = step.seconds_left
    return (
        f"{told['steps_done']}/{told['steps']}",
        f"loss {loss:.3f}" if loss is not None else "",
        f"{clock(left)} left" if left is not None else "",
    )


def _drivers(found: Status) -> str:
    if found.cancelled:
        return "cancelled; it goes on when it is started again"
    if not found.drivers:
        return "no driver is at work" + (
            "" if found.of("done") == list(found.steps) else ": start it again to go on"
        )
    hosts = ", ".join(f"{driver['host']} ({driver['slots']} slots)" for driver in found.drivers)
    left = found.seconds_left
    return f"driven from {hosts}" + (f", about {clock(left)} left" if left is not None else "")


def _spent(found: Status) -> str:
    """What is spent, each against its cap if it has one."""
    from scaling.units import format_number

    spent, caps = found.spent, found.caps
    parts = [
        ("FLOPs", spent.flops, caps.flops),
        ("GPU-hours", spent.gpu_hours, caps.gpu_hours),
        ("dollars", spent.dollars, caps.dollars),
        ("hours", found.hours, caps.hours),
    ]
    texts = [
        f"{value:.3g}{f' of {format_number(cap)}' if cap else ''} {name}"
        for name, value, cap in parts
        if value or cap
    ]
    return "spent " + ", ".join(texts) if texts else "nothing spent yet"


def _first_line(reason: str) -> str:
    return reason.splitlines()[0] if reason else ""


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
