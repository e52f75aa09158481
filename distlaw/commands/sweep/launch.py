"""``distlaw sweep launch``: write what Slurm, Kubernetes, SkyPilot or a cloud needs to run a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distlaw.commands.sweep.options import Changes, Spec
from distlaw.number_options import count_from


def launch(
    scheduler: Annotated[
        str,
        typer.Argument(help="slurm, slurm-ray, kubernetes, kuberay, sky, aws or gcp.", metavar="SCHEDULER"),
    ],
    spec: Spec,
    store: Annotated[str, typer.Option(help="A URL, or an absolute path that all nodes see.")],
    out: Annotated[Path, typer.Option(help="Directory for the files.")],
    nodes: Annotated[
        int | None,
        typer.Option(parser=count_from(1), metavar="<int>", help="Nodes. Default: as a step needs."),
    ] = None,
    cpus: Annotated[int, typer.Option(parser=count_from(1), metavar="<int>", help="Cores of each node.")] = 8,
    gpus: Annotated[
        int | None,
        typer.Option(
            parser=count_from(0), metavar="<int>", help="GPUs of each node. Default: as a step needs."
        ),
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Kind of GPU, such as h100.")] = None,
    memory: Annotated[
        int | None, typer.Option(parser=count_from(1), metavar="<GiB>", help="Memory of each node.")
    ] = None,
    hours: Annotated[float, typer.Option(help="Longest time that a node works.")] = 24.0,
    image: Annotated[str | None, typer.Option(help="Container image with distlaw.")] = None,
    queue: Annotated[str | None, typer.Option(help="Slurm's partition, or Kueue's local queue.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm's account, or Google Cloud's project.")] = None,
    region: Annotated[
        str | None, typer.Option(help="Such as us-west-2, us-central1-a, aws/us-west-2.")
    ] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Cheaper machines that may be taken away.")] = False,
    setup: Annotated[
        list[str] | None, typer.Option(help="Shell line that comes first on each node. Repeat.")
    ] = None,
    changes: Changes = None,
) -> None:
    """Write what a scheduler needs to run a sweep, and say what to type next. Nothing is submitted.

    Example: distlaw sweep launch slurm spec.yaml --store /shared/sweep --nodes 4 --gpus 8 --out launch
    """
    import sweeps

    commands = sweeps.load(spec, changes or (), read_text=False).launch(
        scheduler,
        out,
        store=store,
        nodes=nodes,
        cpus=cpus,
        gpus=gpus,
        gpu=gpu,
        memory=memory,
        hours=hours,
        image=image,
        queue=queue,
        account=account,
        region=region,
        spot=spot,
        setup=tuple(setup or ()),
    )
    for command in commands:
        typer.echo(f"  {command}")
