"""``distlaw sweep tune``: choose training rules and method settings at a proxy size, before a sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.number_options import count_from
from scaling.errors import InputError

if TYPE_CHECKING:
    from sweeps.dag.expand import Dag
    from sweeps.execute.executors.local import Executor
    from sweeps.store.store import Store


def tune(
    spec: Annotated[str, typer.Argument(help="A YAML file with a 'tuning' part, or a preset.")],
    out: Annotated[Path, typer.Option(help="Write the spec with the chosen values to this .yaml file.")],
    store: Annotated[
        str | None,
        typer.Option(help="The sweep's store, with the search in tuning/. Default: runs/NAME."),
    ] = None,
    cores: Annotated[
        int,
        typer.Option(parser=count_from(1), metavar="<int>", help="Trials at once, a process each, on Ray."),
    ] = 1,
    address: Annotated[str, typer.Option(help="Ray cluster: local, auto, or ray://HOST:PORT.")] = "local",
) -> None:
    """Search learning rate, batch size, temperature and label mixing; write the tuned spec.

    The spec's 'tuning' says what is searched. A search that was stopped continues. The study opens in
    optuna-dashboard.

    Example: distlaw sweep tune spec.yaml --out tuned.yaml
    """
    import yaml

    from sweeps.execute.tuning import JOURNAL, tune
    from sweeps.spec.spec import load_sweep
    from sweeps.store.store import Store

    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out: {out} must end in .yaml")
    sweep = load_sweep(spec)
    root = Store(f"runs/{sweep.name}" if store is None else store).root
    place = Store(f"{root}/tuning")
    place.create()
    runner = _runner(place, cores, address)
    try:
        chosen, found = tune(sweep, place, _run_on(runner), typer.echo, together=runner.slots)
    finally:
        runner.close()
    heading = [f"# {spec}, tuned at {sweep.tuning.params:g} parameters:" if sweep.tuning else ""]
    for each in found:
        values = ", ".join(f"{name} {value:.4g}" for name, value in each.values.items())
        heading.append(
            f"# {each.name}: {values}; loss {each.loss:.4f} nats/token, best of {each.trials} trials"
        )
        for caution in each.cautions:
            typer.echo(f"! {each.name}: {caution}")
    body = yaml.safe_dump(chosen.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    out.write_text("\n".join([*heading, body]))
    typer.echo("\n".join([*heading[1:], f"written to {out}; the study is {place.root}/{JOURNAL}"]))


def _runner(store: Store, cores: int, address: str) -> Executor:
    from sweeps.execute.executors.local import InlineExecutor
    from sweeps.execute.executors.ray_executor import RayExecutor

    return (
        InlineExecutor(store)
        if cores == 1 and address == "local"
        else RayExecutor(store, address=address, cores=cores)
    )


def _run_on(runner: Executor) -> Callable[[Dag, Store], None]:
    from sweeps.execute.scheduler import run

    def run_all(dag: Dag, store: Store) -> None:
        state = run(dag, store, runner, lambda step: step.flops, lambda _: None)
        for step, reason in state.failed.items():
            typer.echo(f"  {step[:8]} failed: {reason}", err=True)

    return run_all
