"""``distlaw sweep auto``: propose, train and refit until a question is decided."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from distlaw.commands.sweep.options import Changes, Cores, Spec, StorePath
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
from scaling.errors import InputError
from scaling.units import parse_quantity


def auto(
    spec: Spec,
    store: StorePath = None,
    question: QuestionFile = None,
    student: Student = "",
    budget: Budgets = "",
    scenario: ScenarioNames = None,
    spend: SpendOption = "",
    until_regret: RegretOption = "0.01",
    rounds: Annotated[
        int, typer.Option(parser=count_from(1), metavar="<int>", help="Rounds at most, those done included.")
    ] = 50,
    hours: Annotated[str, typer.Option(help="Hours of this command after which no round begins.")] = "",
    slots: Annotated[
        int,
        typer.Option(
            parser=count_from(1), metavar="<int>", help="Runs of a round, from the third on; four before."
        ),
    ] = 8,
    prior: Prior = "",
    cores: Cores = None,
    changes: Changes = None,
    executor: Annotated[
        str | None, typer.Option(help="process, ray, slurm or inline. Default: ray with an address or a GPU.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT.")
    ] = None,
) -> None:
    """Train the runs of a spec that decide a question, round by round, and stop when it is decided.

    Every round is recorded in the store with what was believed; interrupted, the same command goes on.

    Example: distlaw sweep auto permissive --student 400k --budget 3.2e13 --spend 5e12
    """
    import sweeps
    from distlaw.progress import Progress
    from sweeps.adaptive.auto import AdaptiveSweep, Limits
    from sweeps.execute.drivers.drivers import process_began
    from sweeps.execute.run import Where
    from sweeps.store.store import Store

    questions = read_questions(question, student, budget, scenario)
    loaded = sweeps.load(spec, changes or ())
    place = Store(loaded.default_store if store is None else store)
    if place.root.startswith("memory:") and executor != "inline":
        raise InputError(
            f"--store: {place.root} would be gone when the command ends; give a path or a bucket"
        )
    loaded = loaded.at(place.root, record=True)
    limits = Limits(
        spend=read_spend(spend),
        regret=parse_quantity(until_regret, "--until-regret", ""),
        rounds=rounds,
        hours=parse_quantity(hours, "--hours", "") if hours else float("inf"),
        slots=slots,
    )
    sweep = AdaptiveSweep(
        resolved=loaded.resolved, dag=loaded.dag, store=place, questions=questions, limits=limits,
        sibling=read_sibling(prior),
    )  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite stop, like Ctrl-C
    where = Where(executor=executor, cores=cores, address=address)
    with Progress(place) as progress:
        done = sweep.run(where, progress.show, lambda each: typer.echo(str(each)), process_began())
    for decided in done[-1].believed["decisions"]:
        typer.echo(
            f"{decided['question']}:\n  {decided['choice']}, {decided['loss']:.3f} nats/token expected"
        )
    typer.echo(f"{sum(bool(each.runs) for each in done)} rounds in {place.root}")
