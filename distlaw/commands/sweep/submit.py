"""``distlaw sweep submit``: hand a sweep to a Ray cluster's job server."""

from __future__ import annotations

from typing import Annotated

import typer

from distlaw.commands.sweep.options import Changes, Spec


def submit(
    spec: Spec,
    store: Annotated[str, typer.Option(help="A URL, or an absolute path that all nodes see.")],
    address: Annotated[str, typer.Option(help="The job server: http://HOST:8265.")],
    changes: Changes = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install",
            help="Install pinned packages (all but torch and Ray) instead of using the image's.",
        ),
    ] = False,
) -> None:
    """Run a sweep on a Ray cluster: its driver as a job on the head node, with this code and spec sent along.

    With token authentication (the default of new clusters): RAY_AUTH_MODE=token and RAY_AUTH_TOKEN. Submitted
    again, a sweep continues with what is missing; cancel, status and watch work through the store.

    Example: distlaw sweep submit spec.yaml --store s3://bucket/sweep --address http://127.0.0.1:8265
    """
    import sweeps

    loaded = sweeps.load(spec, changes or ())
    for line in loaded.spec.command_lines:
        typer.echo(line)
    job = loaded.submit(address, store, install=install)
    typer.echo(f"{loaded.spec.name}: {len(loaded.dag.steps)} steps submitted as {job}")
    typer.echo(f"  distlaw sweep watch {store}")
    typer.echo(f"  ray job logs --address {address} {job} --follow")
