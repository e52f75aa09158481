"""``distlaw sweep next``: which runs to train next for a question, and when to stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distlaw.commands.sweep.options import Changes, Json
from distlaw.commands.sweep.question import (
    Budgets,
    Prior,
    QuestionFile,
    RegretOption,
    ScenarioNames,
    SpendOption,
    Student,
    read_questions,
    read_sibling,
    read_spend,
)
from distlaw.number_options import count_from
from distlaw.options import COUNTING_OPTIONS, Aspect, Vocab, Window
from scaling.errors import InputError
from scaling.units import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fits.design.proposal import Proposal
    from scaling.planner.question import Question
    from sweeps.api import LoadedSweep


def next_command(
    source: Annotated[
        Path | None,
        typer.Argument(help="A sweep's store, or a table of runs. Leave it out before the first run."),
    ] = None,
    question: QuestionFile = None,
    student: Student = "",
    budget: Budgets = "",
    scenario: ScenarioNames = None,
    spend: SpendOption = "",
    slots: Annotated[
        int, typer.Option(parser=count_from(1), metavar="<int>", help="Runs to propose at most.")
    ] = 8,
    regret: RegretOption = "0.01",
    spec: Annotated[
        str,
        typer.Option(
            help="Spec whose runs are the candidates: a YAML file or a preset. Default: the store's; with a "
            "table, a ladder made for the question."
        ),
    ] = "",
    changes: Changes = None,
    prior: Prior = "",
    context: Window = None,
    vocab: Vocab = None,
    aspect_ratio: Aspect = None,
    why: Annotated[bool, typer.Option("--why", help="Also print what each run tells.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write a spec of the proposed runs, which sweep run takes (.yaml).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose the runs that decide a question at the least cost, or advise to stop.

    Every run is priced with what is not trained yet of its teacher and of its shared prefix.

    Examples:

        distlaw sweep next runs/mine --student 400k --budget 3e13 --spend 5e12

        distlaw sweep next runs.csv --question question.yaml --why

        distlaw sweep next --spec permissive --student 400k --budget 3e13 --out next.yaml
    """
    questions = read_questions(question, student, budget, scenario)
    options: dict[str, Any] = {
        "spend": read_spend(spend),
        "slots": slots,
        "regret": parse_quantity(regret, "--regret", ""),
        "sibling": read_sibling(prior),
    }
    numbers = {"context": context, "vocab": vocab, "aspect_ratio": aspect_ratio}
    counting = {name: float(value) for name, value in numbers.items() if value is not None}
    loaded, proposal = _proposal(source, questions, spec, changes or (), counting, options)
    if out is not None:
        _write_spec(out, loaded, proposal)
    if as_json:
        typer.echo(json.dumps(proposal.to_dict(), indent=1))
        return
    from fits.design.proposal import proposal_lines

    typer.echo("\n".join(proposal_lines(proposal, why)))
    if out is not None:
        typer.echo(f"spec: {out}" if proposal.runs else f"no spec in {out}: no run is proposed", err=True)


def _proposal(
    source: Path | None,
    questions: Sequence[Question],
    spec: str,
    changes: Sequence[str],
    counting: dict[str, float],
    options: dict[str, Any],
) -> tuple[LoadedSweep | None, Proposal]:
    """Return the sweep that the candidates are of, if any, and the proposal."""
    from distlaw.tables import store_at

    store = store_at(source) if source is not None else None
    if source is not None and store is None and not source.is_file() and str(source) != "-":
        raise InputError(f"{source}: neither a sweep's store nor a table of runs")
    if spec or store:
        if counting:
            raise InputError(f"{COUNTING_OPTIONS} are those of {spec or source}: leave them out")
        return _of_sweep(source, store, questions, spec, changes, options)
    if changes:
        raise InputError("--set changes a spec: give one with --spec")
    return None, _of_ladder(source, questions, counting, options)


def _of_sweep(
    source: Path | None, place: str | None, questions: Sequence[Question], spec: str, changes: Sequence[str],
    options: dict[str, Any],
) -> tuple[LoadedSweep, Proposal]:  # fmt: skip
    import sweeps
    from sweeps.adaptive.next_runs import propose, spec_in
    from sweeps.store.store import Store

    store = Store(place) if place else None
    loaded = sweeps.load(spec if spec or store is None else spec_in(store), changes)
    loaded = loaded if store is None else loaded.at(store.root)
    table = _table(source) if source is not None and store is None else None
    found = propose(loaded.dag, store, questions, table=table, **options)
    return loaded, found if table is None else _noted(found, _rows_left_out(table))


def _of_ladder(
    source: Path | None, questions: Sequence[Question], counting: dict[str, float], options: dict[str, Any]
) -> Proposal:
    from fits.design.ladder import ladder_for, ladder_notes
    from fits.design.next_runs import next_runs
    from fits.design.question_options import decisions_of, named_vocabulary
    from fits.table.flops import effect_lines, table_accounting, table_architecture
    from scaling.costs.flops_assumptions import assumed_architecture

    table = None if source is None else _table(source)
    given = assumed_architecture(**counting) if table is None else table_architecture(table, counting)
    architecture = named_vocabulary(questions, given)
    decisions = decisions_of(questions, architecture)
    candidates = ladder_for(decisions, architecture, options["spend"])
    found = next_runs(table, candidates, decisions, **options)
    if table is None:
        return _noted(found, ladder_notes(decisions, architecture))
    return _noted(found, _rows_left_out(table) + effect_lines(table_accounting(table, counting)))


def _noted(proposal: Proposal, notes: Sequence[str]) -> Proposal:
    """Return a proposal with notes on its table, before the others."""
    return replace(proposal, notes=(*notes, *proposal.notes))


def _rows_left_out(table: Any) -> list[str]:
    """Return a note on the rows that cannot be used, if any."""
    reasons = table.loc[table["excluded"] != "", "excluded"].value_counts()
    if reasons.empty:
        return []
    why = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
    return [f"{reasons.sum()} of {len(table)} rows cannot be used: {why}"]


def _table(source: Path) -> Any:
    from distlaw.tables import load_table

    return load_table(source)


def _write_spec(out: Path, loaded: LoadedSweep | None, proposal: Proposal) -> None:
    """Write the spec of the proposed runs."""
    import yaml

    from sweeps.adaptive.selection import spec_of_runs

    if loaded is None:
        raise InputError("--out writes a spec of runs: name the spec that they are of with --spec")
    if not proposal.runs:
        return
    content = spec_of_runs(loaded.resolved, loaded.dag, [run.id for run in proposal.runs])
    try:
        out.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
