"""The plan of a sweep: what it will take, and what its runs will be able to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fits.findings import Finding
from scaling.repeated_data import MANY_EPOCHS
from scaling.units import format_number
from sweeps.dag.compile_choice import CompileChoice
from sweeps.dag.expand import Dag, Step
from sweeps.dag.resolved import Resolved
from sweeps.data.text_size import TextSize
from sweeps.estimate.bill import HOUR
from sweeps.estimate.cost import (
    Cost,
    SweepEstimate,
    disk,
    estimate_sweep,
    measured_throughput,
    seconds_on,
)
from sweeps.estimate.fit_preview import expected_findings
from sweeps.estimate.memory.machine_memory import machine_memory
from sweeps.estimate.memory.placement import Placement, misfits, place, planned_resources
from sweeps.estimate.probes.precision_probe import PrecisionSpeed, measured_precision
from sweeps.estimate.probes.translation import (
    Translation,
    compiled_seconds,
    compiler_cost_for,
    first_needed,
    translation_of,
)
from sweeps.estimate.servers import ServerWork, server_work, with_servers
from sweeps.estimate.text_warnings import check_text
from sweeps.spec.resources import GPU_SHARE, caps_of
from sweeps.spec.spec import Sweep
from sweeps.spec.trainer import ROLES
from sweeps.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.estimate.graph import SweepPlanPlots

FAR_FROM_ASKED = 0.15
"""Relative difference of a trained size from the one that was asked for, above which a plan says so."""
SHOWN_MISFITS = 3
"""Steps that do not fit, told one by one."""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """Estimated cost of a sweep and findings about its design; prints itself, has table, JSON and figures."""

    sweep: Sweep
    """The spec, as it was given."""
    dag: Dag
    """Steps of the sweep, each after those it needs."""
    store: str
    """Store of the results: a path or URL."""
    done: frozenset[str]
    """Ids of steps whose results are there already."""
    devices: int
    """GPUs where the spec names some, else cores."""
    text: TextSize
    """Tokens of the corpus, counted or estimated."""
    seconds: Mapping[str, float]
    """Estimated seconds of each step, by id."""
    whole: SweepEstimate
    """Estimate for all steps."""
    left: SweepEstimate
    """Estimate for the steps that are not done."""
    findings: tuple[Finding, ...]
    """Objections of ``fits`` to the design of the runs."""
    precision: PrecisionSpeed | None = None
    """The precision that trains faster on this machine, if no GPU is named."""
    reads: tuple[str, ...] = ()
    """Files and hubs that were read for the plan, in words."""
    assumed: tuple[str, ...] = ()
    """Assumptions in place of what was not read, in sentences."""
    compile_choices: tuple[CompileChoice, ...] = ()
    """Decisions under ``training.compile: auto``, with CPU seconds that compiling saves and costs."""
    translation: Translation | None = None
    """Functions that the steps that are not done translate to machine code; None if nothing is compiled."""

    servers: Mapping[str, ServerWork] = field(default_factory=dict)
    """Work of the server that a step asks, by the step's id."""

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the sweep, in sentences."""
        return tuple(_warnings(self))

    @cached_property
    def placements(self) -> Mapping[str, Placement]:
        """Processes, layout and memory of each step, by id."""
        return {step.id: place(step, self.sweep) for step in self.dag.steps}

    @property
    def epochs(self) -> float:
        """Passes of a run over its training text, or its half of it, at most; 0 if the size is not known."""
        return self._epochs_of(self.most_repeated)

    @property
    def most_repeated(self) -> Step:
        """The step with the most epochs."""
        return max(self._on_the_corpus, key=self._epochs_of)

    def _epochs_of(self, step: Step) -> float:
        return step.tokens_of_its_text / self.text.train_tokens_of(step.half)

    @property
    def disk_bytes(self) -> tuple[float, float]:
        """Bytes of the store at its peak, and of those the bytes that teachers write down."""
        written = disk(self.dag)
        return self.whole.store_bytes + written, written

    def check_caps(self) -> None:
        """Refuse a sweep that is expected to take more than its caps.

        Raises:
            InputError: Naming the cap, what is needed and what would help.
        """
        check_caps(self.sweep, self.whole)

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row a step; sizes in parameters and tokens, times in seconds."""
        return [self._row(step) for step in self.dag.steps]

    def to_frame(self) -> pd.DataFrame:
        """Return the steps as a pandas table, one row each."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON, numbers in full."""
        steps = [
            {
                "id": step.id,
                "done": step.id in self.done,
                "flops": step.flops_to_spend,
                "estimated_seconds": self.seconds[step.id],
                "placement": self.placements[step.id].as_json(),
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
            "compile": [each.as_json() for each in self.compile_choices],
            "translation": asdict(self.translation) if self.translation else None,
            **(
                {"servers": {step: asdict(each) for step, each in self.servers.items()}}
                if self.servers
                else {}
            ),
            "epochs": self.epochs,
            "findings": [asdict(finding) for finding in self.findings],
            "cautions": [f"! {warning}" for warning in self.warnings],
            "reads": list(self.reads),
            "assumed": list(self.assumed),
            "steps": steps,
        }

    @property
    def plot(self) -> SweepPlanPlots:
        """The figures of this plan: :class:`sweeps.estimate.graph.SweepPlanPlots` lists them."""
        from sweeps.estimate.graph import SweepPlanPlots

        return SweepPlanPlots(self)

    def __str__(self) -> str:
        from sweeps.estimate.plan_text import sweep_plan_text

        return sweep_plan_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from sweeps.estimate.plan_text import sweep_plan_html

        return sweep_plan_html(self)

    @property
    def _on_the_corpus(self) -> list[Step]:
        """The steps on the sweep's own text; a base may be another."""
        fingerprint = self.dag.example.corpus_fingerprint
        return [step for step in self.dag.steps if step.corpus_fingerprint == fingerprint]

    def _row(self, step: Step) -> dict[str, Any]:
        return {
            "step": step.id,
            "kind": str(step.kind),
            "params": step.shape.params,
            "tokens": step.tokens,
            "teacher": step.teacher.size if step.teacher else None,
            "method": step.method.name if step.method else None,
            "seed": step.seed,
            "flops": step.flops_to_spend,
            "seconds": self.seconds[step.id],
            **self.placements[step.id].as_json(),
            "done": step.id in self.done,
        }


def plan_sweep(resolved: Resolved, dag: Dag, store: Store, devices: int) -> SweepPlan:
    """Plan a sweep on so many ``devices``: GPUs where the spec names some, else cores of this machine.

    Raises:
        InputError: If the text cannot be had or is too small for a method, or the store is damaged.
    """
    sweep, size = resolved.spec, resolved.text.size
    check_text(sweep, size)
    done = frozenset(store.results(step.id for step in dag.steps)) if store.exists() else frozenset()
    servers = server_work(dag, store)
    before = tuple(step for step in dag.steps if step.id in done)
    todo = replace(dag, steps=tuple(step for step in dag.steps if step.id not in done))
    seconds, left_seconds = (
        with_servers(step_seconds(sweep, dag, size, before=each), servers) for each in ((), before)
    )
    whole = estimate_sweep(dag, seconds, devices, sweep)
    return SweepPlan(
        sweep=sweep,
        dag=dag,
        store=store.root,
        done=done,
        devices=devices,
        text=size,
        seconds={step.id: seconds(step) for step in dag.steps},
        whole=whole,
        left=estimate_sweep(todo, left_seconds, devices, sweep) if done else whole,
        translation=translation_of(todo.steps, before, compiler_cost_for(sweep, dag)),
        findings=tuple(expected_findings(dag)),
        precision=None if sweep.hardware.gpu else measured_precision(dag),
        reads=resolved.reads,
        assumed=resolved.assumed,
        compile_choices=resolved.compile_choices,
        servers=servers,
    )


def step_seconds(sweep: Sweep, dag: Dag, text: TextSize, before: Sequence[Step] = ()) -> Cost:
    """Estimate seconds of a step, on the spec's hardware or as measured, now or before, on this machine.

    The first step that needs a compiled function translates it, unless one done ``before`` did.
    """
    cost, translated = compiler_cost_for(sweep, dag), first_needed(dag.steps, before)
    if sweep.hardware.gpu:  # what it reaches of its peak is the spec's to say, compiled or not
        return compiled_seconds(seconds_on(sweep, None), lambda _: 0.0, translated, cost)
    measured = measured_throughput(dag.example, round(text.heldout_tokens))
    return compiled_seconds(seconds_on(sweep, measured), measured.training_seconds, translated, cost)


def check_caps(sweep: Sweep, whole: SweepEstimate) -> None:
    """Refuse a sweep that is expected to take more than its caps.

    Raises:
        InputError: Naming the cap, what is needed and what would help.
    """
    caps_of(sweep).check(
        flops=whole.bill.flops,
        gpu_hours=whole.bill.gpu_hours,
        dollars=whole.bill.dollars,
        hours=whole.wall_seconds / HOUR,
    )


def _warnings(plan: SweepPlan) -> Iterator[str]:
    """Yield what is assumed, slow, repeated, too large, or not on the ladder."""
    yield from plan.assumed
    slow = plan.precision and plan.precision.bf16_is_slower
    if slow and any(step.training.precision == "bf16" for step in plan.dag.steps):
        yield "precision: bf16 is slower than fp32 on this machine; runs of a law share one precision"
    if plan.epochs > MANY_EPOCHS:
        yield f"{plan.epochs:.0f} epochs: repeated text bends the law; use more text or fewer tokens"
    full = misfits(plan.placements.values())
    yield from (each.problem for each in full[:SHOWN_MISFITS] if each.problem)
    if (more := len(full) - SHOWN_MISFITS) > 0:
        yield f"{more} more steps fit their devices as little"
    needed = plan.left.memory_bytes / 1e9
    here = machine_memory() / 1e9
    if needed > here and not plan.sweep.hardware.gpu:
        yield f"about {needed:.0f} GB needed, {here:.0f} GB here: expect it to be killed"
    yield from (*_beyond_devices(plan), *_unshared(plan))
    gpus = (planned_resources(step, plan.sweep).gpus for step in plan.dag.steps)
    if plan.sweep.training.deterministic and any(gpus):
        yield (
            "training.deterministic: its kernels are slower on a GPU, by a share that is not known before it "
            "is measured; time and money are told without it (throughput in a run's result.json tells)"
        )
    if commands := sum(step.trainer is not None for step in plan.dag.steps):
        yield (
            f"commands train {commands} of {len(plan.dag.steps)} steps: time, memory and disk are those of "
            "our trainer, FLOPs those of the ladder's shapes"
        )
    for asked, nearest in _off_the_ladder(plan):
        yield (
            f"{format_number(asked)} parameters are asked for; the nearest size on the ladder, "
            f"{format_number(nearest)}, is trained"
        )


def _unshared(plan: SweepPlan) -> Iterator[str]:
    """Yield steps that have a share of a GPU by default, where there are no more steps than GPUs."""
    left = [step for step in plan.dag.steps if step.id not in plan.done and not step.asks_server]
    if not plan.sweep.hardware.gpu or plan.sweep.resources or len(left) > plan.devices:
        return
    shares = [share for step in left if 0 < (share := planned_resources(step, plan.sweep).gpus) < 1]
    if shares:
        yield (
            f"resources: {len(shares)} step{'s' * (len(shares) > 1)} of {max(shares):g} of a GPU, as if "
            "others shared it, and none do: time is told, and memory given, for that share; set resources: "
            "[{gpus: 1}] for whole ones"
        )


def _beyond_devices(plan: SweepPlan) -> Iterator[str]:
    """Yield resources of steps that are more than the devices whose time is told."""
    gpu = plan.sweep.hardware.gpu
    asked = Counter(planned_resources(step, plan.sweep) for step in plan.dag.steps if not step.asks_server)
    for resources, count in asked.items():
        steps = f"resources: {count} step{'s' * (count > 1)} of {resources}"
        if resources.gpus and not gpu:
            yield (
                f"{steps}, and no hardware is named: time is from a probe of this machine; name the GPU, "
                "such as hardware: {name: h100}"
            )
        elif gpu and not resources.gpus:
            yield (
                f"{steps} and no GPU: time is told as on {GPU_SHARE:g} of a {gpu.name}, and each core costs "
                "as much as one; give the rule gpus, or leave out hardware.name"
            )
        elif (needed := resources.nodes * (resources.gpu_count if gpu else resources.cpus)) > plan.devices:
            option = "--gpus" if gpu else "--cores"
            yield f"{steps} cannot run on the {plan.devices} that time is told for; give {option} {needed}"


def _off_the_ladder(plan: SweepPlan) -> list[tuple[float, float]]:
    """Return sizes that are asked for and far from all that is trained, each with the nearest that is."""
    asked = {size for role in ROLES for _, grid in plan.sweep.grids(role) for size in grid.params}
    trained = {step.shape.params for step in plan.dag.steps}
    nearest = {size: min(trained, key=lambda has: abs(has / size - 1)) for size in sorted(asked)}
    return [(size, has) for size, has in nearest.items() if abs(has / size - 1) > FAR_FROM_ASKED]
