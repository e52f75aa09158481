"""Status of a sweep as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling.reports.plan_text import text_table
from scaling.units import format_number

if TYPE_CHECKING:
    from sweeps.watch.status import Status, StepStatus

SHOWN = 20
"""Steps of a kind that are named one by one."""


def status_text(found: Status) -> str:
    """Return counts, drivers and costs, then the running and failed steps, as text."""
    rows = [*running_rows(found), *failed_rows(found)]
    width = max(map(len, rows), default=0)
    cells = [[*row, *[""] * (width - len(row))] for row in rows]
    table = text_table([""] * width, cells)[2:] if rows else []
    return "\n".join([*status_summary(found), *table, *unnamed_lines(found)])


def status_summary(found: Status) -> list[str]:
    """Return three lines: how many steps are in which state, who drives them, and what is spent."""
    from sweeps.watch.status import STATES

    counts = ", ".join(f"{len(found.of(state))} {state}" for state in STATES if found.of(state))
    return [f"{found.name}: {counts} of {len(found.steps)} steps", drivers(found), spent(found)]


def running_rows(found: Status) -> list[list[str]]:
    """Return a row for each running step: id, label, progress, loss, time left, host."""
    return [
        ["running", step.id[:8], step.label, *_progress(step), step.host]
        for step in found.of("running")[:SHOWN]
    ]


def failed_rows(found: Status) -> list[list[str]]:
    """Return a row for each failed step: id, label, reason."""
    return [
        ["failed", step.id[:8], step.label, (step.reason.splitlines() or [""])[0]]
        for step in found.of("failed")[:SHOWN]
    ]


def unnamed_lines(found: Status) -> list[str]:
    """Return a line for each kind of step of which some are not named."""
    return [
        f"... and {len(found.of(state)) - SHOWN} more {state}"
        for state in ("running", "failed")
        if len(found.of(state)) > SHOWN
    ]


def drivers(found: Status) -> str:
    """Return which processes drive the sweep, the time left, what waits for nodes, and dashboards."""
    if found.cancelled:
        return "cancelled; it goes on when it is started again"
    if not found.drivers:
        complete = found.of("done") == list(found.steps)
        return "no driver is at work" + ("" if complete else ": start it again to go on")
    hosts = ", ".join(f"{driver['host']} ({driver['slots']} slots)" for driver in found.drivers)
    left = found.seconds_left
    lines = [f"driven from {hosts}" + (f", about {clock(left)} left" if left is not None else "")]
    for driver in found.drivers:
        lines += [driver["waiting"]] if driver.get("waiting") else []
        lines += [f"Ray's dashboard: {driver['dashboard']}"] if driver.get("dashboard") else []
    return "\n".join(lines)


def spent(found: Status) -> str:
    """Return what is spent, each against its cap if it has one."""
    used, caps = found.spent, found.caps
    parts = [
        ("FLOPs", used.flops, caps.flops),
        ("GPU-hours", used.gpu_hours, caps.gpu_hours),
        ("dollars", used.dollars, caps.dollars),
        ("hours", found.hours, caps.hours),
    ]
    texts = [
        f"{value:.3g}{f' of {format_number(cap)}' if cap else ''} {name}"
        for name, value, cap in parts
        if value or cap
    ]
    return "spent " + ", ".join(texts) if texts else "nothing spent yet"


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds: ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


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
