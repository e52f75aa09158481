"""Next runs of a sweep: its spec gives the candidates, its store what is known and what is running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fits.design.candidates import Candidates
from fits.design.next_runs import next_runs, steps_done
from fits.design.proposal import Proposal
from fits.design.question_options import decisions_of
from fits.estimation.laws.sibling import Sibling
from fits.table.runs import validate
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import with_numbers
from scaling.errors import InputError
from scaling.planner.question import Question
from sweeps.adaptive.candidates import candidates_of_dag, teachers_of_dag
from sweeps.dag.expand import Dag
from sweeps.store.store import Store
from sweeps.watch.runs_table import results
from sweeps.watch.status import status


def propose(
    dag: Dag,
    store: Store | None,
    questions: Sequence[Question],
    *,
    table: pd.DataFrame | None = None,
    failed: Sequence[str] = (),
    **options: Any,
) -> Proposal:
    """Propose the next runs of a sweep for questions.

    The store is read once: runs that end in the meantime count the next time.

    Args:
        dag: All steps that the sweep may train.
        store: Results so far; None for none.
        questions: What is asked.
        table: Validated runs from elsewhere, in place of the store's.
        failed: Ids of steps that were given up: they are not proposed.
        options: Those of :func:`fits.design.next_runs.next_runs`.

    Raises:
        InputError: as that function, for a store of another sweep, and for a sibling of another vocabulary.
    """
    refuse_other_vocabulary(options.get("sibling"), dag)
    table = known_runs(store, dag) if table is None else table
    known = None if table is None else table[table["excluded"] == ""]
    losses = {} if known is None else dict(zip(known["run"], known["loss"], strict=True))
    candidates = candidates_of_dag(dag, losses)
    decisions = decisions_of(questions, architecture_of(dag), teachers_of_dag(dag, losses))
    running = set() if store is None else running_in(store)
    return next_runs(
        known,
        candidates,
        decisions,
        running=running,
        failed=failed,
        paid=_paid(dag, store, candidates, known),
        **options,
    )


def known_runs(store: Store | None, dag: Dag) -> pd.DataFrame | None:
    """Return the validated runs of a store; None before the first.

    Raises:
        InputError: for a store whose runs are of another text or other training rules.
    """
    if store is None or not store.exists():
        return None
    ids = [step.id for step in dag.steps if step.kind.is_run]
    if not store.results(ids) and not store.results(store.steps()):
        return None
    table = results(store.root)
    if table.empty:
        return None
    if not set(table["run"]) & set(ids) and dag.example.setting not in set(table["setting"]):
        raise InputError(
            f"{store.root}: its runs are of another text, tokenizer, context or training rules than the "
            "spec's: name the spec that they are of"
        )
    return validate(table)


def spec_in(store: Store) -> dict[str, Any]:
    """Return the spec of the sweep last started in a store.

    Raises:
        InputError: if there is no sweep.
    """
    recorded = store.read("sweep.json")
    if not recorded:
        raise store.no_sweep()
    return dict(recorded["spec"])


def running_in(store: Store) -> set[str]:
    """Return the ids of steps that some driver trains now."""
    if not store.exists():
        return set()
    return {step.id for step in status(store).of("running")}


def refuse_other_vocabulary(sibling: Sibling | None, dag: Dag) -> None:
    """Refuse a sibling of another vocabulary than the sweep's.

    Raises:
        InputError: naming both.
    """
    if sibling is not None:
        sibling.refuse_other_vocabulary(dag.example.shape.vocab, "the sweep")


def architecture_of(dag: Dag) -> Architecture:
    """Return the architecture of a sweep's models, for counting FLOPs."""
    step = dag.example
    return with_numbers(
        Architecture(), aspect_ratio=step.aspect_ratio, context=step.shape.context, vocab=step.shape.vocab
    )


def _paid(dag: Dag, store: Store | None, candidates: Candidates, table: pd.DataFrame | None) -> Any:
    """Return which steps are done, (s,): those with a result, and those of runs that have one."""
    paid = steps_done(candidates, table)
    if store is not None and store.exists():
        done = store.results(step.id for step in dag.steps)
        paid |= [step.id in done for step in dag.steps]
    return paid
