"""The plan of a sweep for people: a table of its steps, and lines on what they take together."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from scaling.reports.html import html_table
from scaling.reports.plan_text import text_table
from scaling.units import format_flops, format_number
from sweeps.dag.compile_choice import choice_lines
from sweeps.dag.kind import StepKind
from sweeps.estimate.bill import HOUR
from sweeps.estimate.memory.placement import layout_lines
from sweeps.estimate.servers import server_lines
from sweeps.spec.trainer import ROLES

if TYPE_CHECKING:
    from sweeps.estimate.plan import SweepPlan

SHOWN = 100
"""Steps that are printed one by one."""
RIGHT = ("model", "tokens", "FLOPs", "about")
"""Columns of numbers."""
WRITTEN = {
    StepKind.CACHE_LOGITS: "logits",
    StepKind.CACHE_FEATURES: "hidden states",
    StepKind.GENERATE_TEXT: "texts",
}
"""Names of what teachers write down, by the kind of the step."""


def sweep_plan_text(plan: SweepPlan) -> str:
    """Return the plan as text."""
    return "\n".join(
        [title(plan), "", *text_table(*steps_table(plan)), *left_out_line(plan), "", *lines(plan)]
    )


def sweep_plan_html(plan: SweepPlan) -> str:
    """Return the plan for a notebook."""
    items = "".join(f"<li>{escape(line)}</li>" for line in [*left_out_line(plan), *lines(plan)])
    return f"<p><b>{escape(title(plan))}</b></p>{html_table(*steps_table(plan))}<ul>{items}</ul>"


def title(plan: SweepPlan) -> str:
    """Return how many steps there are."""
    return f"{plan.sweep.name}: {len(plan.dag.steps)} steps of {plan.dag.asked} asked (equal ones run once)"


def left_out_line(plan: SweepPlan) -> list[str]:
    """Return a line on the steps that the table leaves out."""
    left_out = len(plan.dag.steps) - SHOWN
    return [f"... and {left_out} more; --json lists them all"] if left_out > 0 else []


def steps_table(plan: SweepPlan) -> tuple[list[str], list[list[str]]]:
    """Return header and cells, a row a step; methods only where there are several."""
    several = len({step.method for step in plan.dag.steps if step.kind == "distil"}) > 1
    header = ["step", "model", "tokens", "teacher", *(["method"] if several else []), "FLOPs", "about", ""]
    rows = []
    for step in plan.dag.steps[:SHOWN]:
        kind = f"{step.kind.label} " if not step.kind.is_run else ""
        method = step.method.name if step.kind == "distil" and step.method else ""
        rows.append(
            [
                step.id[:8],
                format_number(step.shape.params),
                format_number(step.tokens),
                kind + (step.teacher.size if step.teacher else ""),
                *([method] if several else []),
                f"{step.flops_to_spend:.2e}",
                duration(plan.seconds[step.id]),
                "done" if step.id in plan.done else "",
            ]
        )
    return header, rows


def lines(plan: SweepPlan) -> Iterator[str]:
    """Yield the grids as they were read, then costs, warnings and what the laws will lack."""
    yield from _asked(plan)
    yield from _cost(plan)
    yield from _space(plan)
    if plan.reads:
        yield f"read       {'; '.join(plan.reads)}"
    yield f"store      {plan.store}"
    yield from plan.sweep.command_lines
    yield from (f"! {warning}" for warning in plan.warnings)
    for finding in plan.findings:
        yield f"{'!' if finding.level == 'warn' else '!!'} {finding}"
    if not plan.findings:
        yield "the laws can be fitted to this design; nothing to object"


def _asked(plan: SweepPlan) -> Iterator[str]:
    """Yield the grids, as they were read."""
    lengths = {"tokens": "tokens", "tokens_per_param": "tokens per parameter", "flops": "FLOPs"}
    for role in ROLES:
        for where, grid in plan.sweep.grids(role):
            yield f"{where}: {', '.join(map(format_number, grid.params))} params; " + "; ".join(
                f"{', '.join(map(format_number, values))} {words}"
                for name, words in lengths.items()
                if (values := getattr(grid, name))
            )


def _cost(plan: SweepPlan) -> Iterator[str]:
    """Yield FLOPs, time, the faster precision, and money where it is reckoned with."""
    whole, left, gpu = plan.whole, plan.left, plan.sweep.hardware.gpu
    todo = f"; {format_flops(left.bill.flops)} to do" if plan.done else ""
    yield f"FLOPs      {format_flops(plan.dag.flops)}{todo}"
    used = {how for step in plan.dag.steps for how, flops in step.flops_by_precision().items() if flops}
    where = f"{plan.devices} {gpu.name}" if gpu else f"{plan.devices} cores"
    basis = (
        f"at {gpu.utilisation:.0%} of its peak in {' and '.join(sorted(used))}"
        if gpu
        else "from a probe of this machine"
    )
    yield (
        f"time       about {duration(left.wall_seconds)} on {where} "
        f"(longest chain {duration(whole.critical_path)}), {basis}"
    )
    twice = [each for each in plan.placements.values() if each.layout and each.layout.recompute]
    if twice:
        yield (
            f"recompute  {len(twice)} step{'s' * (len(twice) > 1)} whose blocks are computed twice to save "
            "memory: a forward pass more in time and money, not in FLOPs"
        )
    for line in server_lines(work for step, work in plan.servers.items() if step not in plan.done):
        yield f"server     {line}"
    for line in choice_lines(plan.compile_choices):
        yield f"compile    {line}"
    if plan.translation:
        yield f"compile    {plan.translation}"
    if plan.precision:
        yield f"precision  {plan.precision}"
    if whole.bill.gpu_hours or whole.bill.dollars:
        money = f", ${left.bill.dollars:,.2f}" if whole.bill.dollars else ", price not known"
        yield f"cost       {left.bill.gpu_hours:,.2f} GPU-hours{money}"


def _space(plan: SweepPlan) -> Iterator[str]:
    """Yield memory, disk, and how often the text is seen."""
    gpu = plan.sweep.hardware.gpu
    each = f" on one {gpu.name}" if gpu else ""
    yield f"memory     about {plan.left.memory_bytes / 1e9:.1f} GB at the peak{each}"
    for line in layout_lines(plan.placements.values()):
        yield f"layout     {line}"
    total, written = plan.disk_bytes
    of_teachers = f", {written / 1e9:.2f} GB of it {_written_down(plan)}" if written else ""
    yield f"disk       about {total / 1e9:.2f} GB at the peak{of_teachers}"
    tokens = plan.text.train_tokens_of(plan.most_repeated.half)
    if not plan.text.known:
        yield "epochs     unknown until the text is read"
    elif plan.text.estimated:
        yield f"epochs     at most about {plan.epochs:.2g} of about {format_number(tokens)} training tokens"
    else:
        yield f"epochs     at most {plan.epochs:.2f} of {tokens:,.0f} training tokens"


def _written_down(plan: SweepPlan) -> str:
    """Return the name of what teachers write down."""
    kinds = {step.kind for step in plan.dag.steps}
    of_teachers = f"teachers' {' and '.join(name for kind, name in WRITTEN.items() if kind in kinds)}"
    methods = [step.method for step in plan.dag.steps if step.kind is StepKind.CACHE_LOGITS]
    compact = any(method and method.has_compact_logits for method in methods)
    return f"{of_teachers} (at most, before compression)" if compact else of_teachers


def duration(seconds: float) -> str:
    """Return a duration for people: ``90 s``, ``12.3 min`` or ``5.2 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"
