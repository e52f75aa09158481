"""Execution of steps that commands train: under a lease, measured here, and committed as other results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.data.corpus import planned_tokens
from sweeps.estimate.text_warnings import epochs
from sweeps.execute.steps.provenance import commit_result
from sweeps.external.handover import left_elsewhere
from sweeps.external.measure import measured
from sweeps.external.run import Node, clear, run_command
from sweeps.store.leases import Lease, hold_leases
from sweeps.store.outcomes import Ending, Stopped
from sweeps.store.store import Store
from sweeps.store.time_limit import TimeLimit


def run_commands(
    store: Store,
    steps: Sequence[Step],
    numbers: Mapping[str, int] | None,
    limit: TimeLimit | None,
    **about: Any,
) -> Iterator[tuple[Step, dict[str, Any] | Exception]]:
    """Run the commands that train ``steps``, one after the other."""
    node = Node.here()
    ids = [step.id for step in steps] if node.leads else []
    with hold_leases(store, ids, numbers, limit=limit, **about) as leases:
        for step in steps:
            lease = leases.get(step.id)
            if node.leads and lease is None:
                yield step, Stopped(Ending.HELD, "another process works on it")
                continue
            result = _run_command(store, step, lease, node, about)
            if lease:
                lease.conclude(result if isinstance(result, Exception) else None)
            yield step, result


def _run_command(
    store: Store, step: Step, lease: Lease | None, node: Node, about: Mapping[str, Any]
) -> dict[str, Any] | Exception:
    """Run the command that trains ``step``, and commit its result in the leading process."""
    resources = {name: about[name] for name in ("cpus", "gpus", "nodes") if name in about}
    try:
        corpus = planned_tokens(step.corpus, step.corpus_fingerprint)
        if lease:
            store.write(step.as_json(), step.id, "step.json")
        with run_command(store, step, corpus, lease, node, **resources) as left:
            if lease is None or left is None:
                return {}
            found = measured(store, step, corpus, left, f"model-{lease.number:04d}")
            lease.fence()
            result = commit_result(store, step, found | {"epochs": epochs(step, corpus)})
        clear(store, step)
    except (InputError, Stopped) as error:
        return error
    return result


def record_result(store: Store, prefix: str, path: Path) -> dict[str, Any]:
    """Record the result of a run that was trained elsewhere, as if its command had left it.

    Args:
        store: Store of a sweep that was run or planned into it (``sweep.json``).
        prefix: Id of the step, or its beginning.
        path: The ``result.json``.

    Returns:
        The result, as it is in the store.

    Raises:
        InputError: if the step takes no such result, or has one already.
    """
    from sweeps.execute.jobs import recorded_step

    step = recorded_step(store, prefix)
    if store.result(step.id):
        raise InputError(f"{store.root}/{step.id}/result.json is there already; delete it to record another")
    left = left_elsewhere(store, step, path)
    with hold_leases(store, [step.id]) as leases:
        lease = leases.get(step.id)
        if lease is None:
            raise InputError(f"{step.id}: another process works on it")
        corpus = planned_tokens(step.corpus, step.corpus_fingerprint)
        store.write(step.as_json(), step.id, "step.json")
        found = measured(store, step, corpus, left, f"model-{lease.number:04d}")
        lease.progress = {"steps": step.steps, "steps_done": step.steps}
        lease.fence()
        result = commit_result(store, step, found | {"epochs": epochs(step, corpus)})
        lease.conclude(None)
    return result
