"""Decisions of ``training.compile: auto`` in a store: made once for a size, used by all drivers."""

from __future__ import annotations

import hashlib

from sweeps.dag.compile_choice import CompileChoice, choose_sizes
from sweeps.dag.expand import Dag
from sweeps.dag.resolved import Resolved
from sweeps.estimate.cost import measured_throughput, seconds_on
from sweeps.estimate.probes.compiler_probe import compiler_cost, probed_step
from sweeps.estimate.probes.translation import compiler_cost_for
from sweeps.resolve import with_choices, without_compile
from sweeps.spec.spec import Sweep
from sweeps.store.leases import create_once
from sweeps.store.store import Store

FOLDER = "compile"
"""Folder of a store with a record for each size."""


def decided_in(store: Store, resolved: Resolved, *, record: bool) -> Resolved:
    """Return a sweep with ``training.compile: auto`` as decided in ``store``, or as measured here.

    Args:
        store: The store of the sweep.
        resolved: The sweep.
        record: True to record what is not decided there yet; the first of several drivers decides.
    """
    dag, sweep = without_compile(resolved), resolved.sweep
    by_table = choose_sizes(dag, sweep)
    known = _recorded(store, dag, by_table)
    if all(each.params in known for each in by_table):
        return with_choices(resolved, tuple(known[each.params] for each in by_table))
    chosen = {each.params: each for each in measured_choices(dag, sweep)} | known
    if record:
        for params, each in chosen.items():
            if params not in known:
                create_once(store, each.as_json(), *_place(dag, params))
        chosen |= _recorded(store, dag, by_table)
    return with_choices(resolved, tuple(chosen[each.params] for each in by_table))


def measured_choices(dag: Dag, sweep: Sweep) -> tuple[CompileChoice, ...]:
    """Return the decisions by what this machine was measured to take; on a named GPU by its peak."""
    if sweep.hardware.gpu:
        return choose_sizes(dag, sweep, compiler_cost_for(sweep, dag), seconds_on(sweep, None))
    step = probed_step(dag)
    assert step is not None, "a sweep with choices trains something"
    found = compiler_cost(step)
    if found is None:
        return tuple(each.without_compiler() for each in choose_sizes(dag, sweep))
    return choose_sizes(dag, sweep, found, measured_throughput(dag.example, 0).seconds)


def _recorded(store: Store, dag: Dag, sizes: tuple[CompileChoice, ...]) -> dict[int, CompileChoice]:
    if not store.exists():
        return {}
    read = {each.params: store.read(*_place(dag, each.params)) for each in sizes}
    return {params: CompileChoice.from_json(found) for params, found in read.items() if found}


def _place(dag: Dag, params: int) -> tuple[str, str]:
    """Return the path of a size's record: it is about a shape and rules, whatever else the spec asks for."""
    (step, *_) = (step for step in dag.steps if step.kind.trains and step.shape.params == params)
    what = hashlib.sha256(f"{step.shape} {step.setting}".encode()).hexdigest()[:12]
    return FOLDER, f"{what}.json"
