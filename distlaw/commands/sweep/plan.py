"""``distlaw sweep plan``: what a sweep would take, what it would show, and what speaks against it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distlaw.number_options import count_from
from scaling.errors import InputError
from scaling.machine import usable_cores
from scaling.repeated_data import MANY_EPOCHS

if TYPE_CHECKING:
    from rich.table import Table

    from sweeps.dag.expand import Dag
    from sweeps.estimate.cost import Cost, Estimate
    from sweeps.spec.spec import Sweep
    from sweeps.store.store import Store

SHOWN = 100
"""Steps that a plan prints one by one."""
SHOWN_OVERFULL = 3
"""Steps that do not fit, told one by one."""
FAR_FROM_ASKED = 0.15
HOUR = 3600.0

Spec = Annotated[str, typer.Argument(help="A YAML file, or a preset such as 'quickstart'.")]
StorePath = Annotated[
    str | None,
    typer.Option("--store", help="Where results go: a path or URL. Default: runs/NAME of the spec."),
]
Cores = Annotated[
    int | None,
    typer.Option(
        parser=count_from(1), metavar="<int>", help="Processes, one thread each. Default: all cores."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Change the spec: students[0].params=[10k,30k]. Repeat."
    ),
]


def plan(
    spec: Spec,
    store: StorePath = None,
    cores: Cores = None,
    gpus: Annotated[
        int,
        typer.Option(parser=count_from(1), metavar="<int>", help="GPUs, where the spec names some hardware."),
    ] = 1,
    changes: Changes = None,
    graph: Annotated[
        Path | None, typer.Option(help="Draw the steps and what they need: a .png, .svg, .pdf or .txt file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print the steps, FLOPs, time, money and memory of a sweep, and what it will show; then stop.

    Example: distlaw sweep plan quickstart --set students[0].params=[10k,30k]
    """
    from sweeps.estimate.graph import write_graph

    sweep, dag, place = open_sweep(spec, store, changes)
    done = set(place.results(step.id for step in dag.steps)) if place.exists() else set()
    devices = gpus if sweep.hardware.gpu else cores or usable_cores()
    found = Planned(sweep, dag, place, done, devices)
    if graph:
        write_graph(dag, done, graph)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        found.show()
    refuse_above_caps(sweep, found.whole)


def schema() -> None:
    """Print the JSON schema of specs, for editors that complete and check YAML.

    Example: distlaw sweep schema > sweep.schema.json
    """
    from sweeps.spec.spec import Sweep

    typer.echo(json.dumps(Sweep.model_json_schema(), indent=1))


def open_sweep(spec: str, store: str | None, changes: list[str] | None = None) -> tuple[Sweep, Dag, Store]:
    """The validated spec, its steps, and the store they go to (not made yet)."""
    import sweeps
    from sweeps.store.store import Store

    loaded = sweeps.load(spec, changes or ())
    return loaded.spec, loaded.dag, Store(loaded.default_store if store is None else store)


def refuse_above_caps(sweep: Sweep, whole: Estimate) -> None:
    """Refuse a sweep that is expected to take more than its caps.

    Raises:
        InputError: naming the cap, what is needed and what would help.
    """
    from sweeps.spec.resources import caps_of

    caps = caps_of(sweep)
    needs = [
        ("flops", whole.bill.flops, "FLOPs"),
        ("gpu_hours", whole.bill.gpu_hours, "GPU-hours"),
        ("dollars", whole.bill.dollars, "dollars"),
        ("hours", whole.wall_seconds / HOUR, "hours"),
    ]
    for name, needed, unit in needs:
        cap = getattr(caps, name)
        if cap is not None and needed > cap:
            raise InputError(
                f"caps.{name}: the sweep needs about {needed:.3g} {unit}, above its cap of {cap:.3g}; raise "
                "the cap or shrink a grid"
            )


class Planned:
    """A sweep with its estimates."""

    def __init__(self, sweep: Sweep, dag: Dag, store: Store, done: set[str], devices: int) -> None:
        from sweeps.estimate.cost import estimate
        from sweeps.estimate.fit_preview import expected_findings
        from sweeps.estimate.precision_probe import measured_precision
        from sweeps.execute.step import corpus_of

        self.sweep, self.dag, self.store, self.done, self.devices = sweep, dag, store, done, devices
        self.corpus = corpus_of(dag.example)
        self.seconds = estimated_seconds(sweep, dag)
        todo = replace(dag, steps=tuple(step for step in dag.steps if step.id not in done))
        self.whole = estimate(dag, self.seconds, devices, sweep)
        self.left = estimate(todo, self.seconds, devices, sweep) if done else self.whole
        self.findings = expected_findings(dag)
        self.precision = None if sweep.hardware.gpu else measured_precision(dag)

    @property
    def epochs(self) -> float:
        """Of the training text, of the longest run."""
        ours = (s for s in self.dag.steps if s.corpus_fingerprint == self.corpus.fingerprint)
        return max(step.tokens_of_its_text for step in ours) / self.corpus.train_tokens

    def as_json(self) -> dict[str, Any]:
        """Everything, numbers in full."""
        steps = [
            {
                "id": step.id,
                "done": step.id in self.done,
                "flops": step.flops_to_spend,
                "estimated_seconds": self.seconds(step),
                **step.as_json(),
            }
            for step in self.dag.steps
        ]
        return {
            "name": self.sweep.name,
            "spec": self.sweep.model_dump(mode="json", exclude_unset=True),
            "asked": self.dag.asked,
            "done": len(self.done),
            "flops": self.dag.flops,
            "estimate": asdict(self.whole),
            "left": asdict(self.left),
            "precision": asdict(self.precision) if self.precision else None,
            "epochs": self.epochs,
            "findings": [asdict(finding) for finding in self.findings],
            "cautions": list(self._cautions()),
            "steps": steps,
        }

    def show(self) -> None:
        """Print it for people."""
        from rich.console import Console

        console = Console()
        console.print(self._table())
        if len(self.dag.steps) > SHOWN:
            console.print(f"... and {len(self.dag.steps) - SHOWN} more; --json lists them all")
        console.print("\n".join(self._lines()), highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        from rich.table import Table

        from scaling.units import format_number

        asked, unique = self.dag.asked, len(self.dag.steps)
        several = len({step.method for step in self.dag.steps if step.kind == "distil"}) > 1
        table = Table(title=f"{self.sweep.name}: {unique} steps of {asked} asked (equal ones run once)")
        for name in (
            "step",
            "model",
            "tokens",
            "teacher",
            *(["method"] if several else []),
            "FLOPs",
            "about",
            "",
        ):
            right = name in ("model", "tokens", "FLOPs", "about")
            table.add_column(name, justify="right" if right else "left")
        for step in self.dag.steps[:SHOWN]:
            kind = f"{step.kind} " if not step.kind.is_run else ""
            table.add_row(
                step.id[:8],
                format_number(step.shape.params),
                format_number(step.tokens),
                kind + (step.teacher.size if step.teacher else ""),
                *([step.method.name if step.kind == "distil" and step.method else ""] if several else []),
                f"{step.flops_to_spend:.2e}",
                minutes(self.seconds(step)),
                "done" if step.id in self.done else "",
            )
        return table

    def _lines(self) -> Iterator[str]:
        from scaling.units import format_flops
        from sweeps.estimate.cost import disk

        yield from self._asked()
        whole, left, gpu = self.whole, self.left, self.sweep.hardware.gpu
        todo = f"; {format_flops(left.bill.flops)} to do" if self.done else ""
        yield f"FLOPs      {format_flops(self.dag.flops)}{todo}"
        precisions = " and ".join(
            sorted(
                {how for step in self.dag.steps for how, flops in step.flops_by_precision().items() if flops}
            )
        )
        where = f"{self.devices} {gpu.name}" if gpu else f"{self.devices} cores"
        basis = (
            f"at {gpu.utilisation:.0%} of its peak in {precisions}" if gpu else "from a probe of this machine"
        )
        yield (
            f"time       about {minutes(left.wall_seconds)} on {where} "
            f"(longest chain {minutes(whole.critical_path)}), {basis}"
        )
        if self.precision:
            yield f"precision  {self.precision}"
        if whole.bill.gpu_hours or whole.bill.dollars:
            money = f", ${left.bill.dollars:,.2f}" if whole.bill.dollars else ", price not known"
            yield f"cost       {left.bill.gpu_hours:,.2f} GPU-hours{money}"
        each = f" on one {gpu.name}" if gpu else ""
        yield f"memory     about {left.memory_bytes / 1e9:.1f} GB at the peak{each}"
        written = disk(self.dag, self.corpus.train_tokens)
        of_teachers = f", {written / 1e9:.2f} GB of it teachers' logits" if written else ""
        yield f"disk       about {(whole.store_bytes + written) / 1e9:.2f} GB at the peak{of_teachers}"
        yield f"epochs     at most {self.epochs:.2f} of {self.corpus.train_tokens:,} training tokens"
        yield f"store      {self.store.root}"
        yield from self._cautions()
        for finding in self.findings:
            yield f"{'!' if finding.level == 'warn' else '!!'} {finding}"
        if not self.findings:
            yield "the laws can be fitted to this design; nothing to object"

    def _asked(self) -> Iterator[str]:
        """The grids, as they were read."""
        from scaling.units import format_number

        lengths = {"tokens": "tokens", "tokens_per_param": "tokens per parameter", "flops": "FLOPs"}
        for field in ("supervised", "teachers", "students"):
            for where, grid in self.sweep.grids(field):
                yield f"{where}: {', '.join(map(format_number, grid.params))} params; " + "; ".join(
                    f"{', '.join(map(format_number, values))} {words}"
                    for name, words in lengths.items()
                    if (values := getattr(grid, name))
                )

    def _cautions(self) -> Iterator[str]:
        """What a plan should not pass over in silence."""
        from scaling.units import format_number

        slow = self.precision and self.precision.bf16_is_slower
        if slow and any(step.training.precision == "bf16" for step in self.dag.steps):
            yield "! precision: bf16 is slower than fp32 on this machine; runs of a law share one precision"
        if self.epochs > MANY_EPOCHS:
            yield f"! {self.epochs:.0f} epochs: repeated text bends the law; use more text or fewer tokens"
        from sweeps.estimate.cost import overfull

        full = overfull(self.dag, self.sweep)
        yield from (f"! {each}" for each in full[:SHOWN_OVERFULL])
        if (more := len(full) - SHOWN_OVERFULL) > 0:
            yield f"! {more} more steps need more memory than they have"
        needed = self.left.memory_bytes / 1e9
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        if needed > here and not self.sweep.hardware.gpu:
            yield f"! about {needed:.0f} GB needed, {here:.0f} GB here: expect it to be killed"
        asked = {
            size
            for field in ("supervised", "teachers", "students")
            for _, grid in self.sweep.grids(field)
            for size in grid.params
        }
        rungs = {step.shape.params for step in self.dag.steps}
        far = sorted(size for size in asked if min(abs(rung / size - 1) for rung in rungs) > FAR_FROM_ASKED)
        if far:
            sizes = ", ".join(map(format_number, far))
            yield f"! {sizes} asked for: the ladder's nearest rung is more than {FAR_FROM_ASKED:.0%} away"


def estimated_seconds(sweep: Sweep, dag: Dag) -> Cost:
    """Estimated seconds of a step, on the spec's hardware or, measured now or before, on this machine."""
    from sweeps.estimate.cost import measured_throughput, seconds_on
    from sweeps.execute.step import corpus_of

    if sweep.hardware.gpu:
        return seconds_on(sweep, None)
    first = dag.example
    return seconds_on(sweep, measured_throughput(first, corpus_of(first).heldout_tokens))


def minutes(seconds: float) -> str:
    """For people: ``90 s``, ``12.3 min`` or ``5.2 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"
