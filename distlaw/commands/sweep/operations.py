"""``distlaw sweep doctor`` and ``metrics``: check a store and its nodes, watch a sweep with Prometheus."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.commands.sweep.options import Json, Place

if TYPE_CHECKING:
    from sweeps.operations.doctor import Diagnosis

MARKS = {"ok": "ok     ", "warning": "WARNING", "fault": "FAULT  "}


def doctor(
    store: Place,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster whose nodes are checked: auto, HOST:PORT or ray://HOST:PORT."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check store, versions, clocks, GPUs and disks, here or on every node, and say what to mend.

    Exits with 1 if a fault was found. Inside a step of a batch system it checks that node.

    Example: distlaw sweep doctor s3://bucket/sweep --address auto
    """
    from sweeps.operations.doctor import Severity, examine
    from sweeps.store.store import Store

    place = Store(store)
    place.create()
    diagnoses = examine(place, address)
    if as_json:
        typer.echo(json.dumps([diagnosis.as_json() for diagnosis in diagnoses], indent=1))
    else:
        for diagnosis in diagnoses:
            typer.echo(_line(diagnosis))
    if any(diagnosis.severity is Severity.FAULT for diagnosis in diagnoses):
        raise typer.Exit(1)


def _line(diagnosis: Diagnosis) -> str:
    mend = f"; {diagnosis.mend}" if diagnosis.mend else ""
    return f"{MARKS[diagnosis.severity]}  {diagnosis.subject}: {diagnosis.found}{mend}"


def metrics(
    store: Place,
    listen: Annotated[str, typer.Option(help="PORT of this machine only, or HOST:PORT.")] = "9400",
) -> None:
    """Serve a sweep's metrics for Prometheus, from its store, until Ctrl-C; sweep run --metrics does so too.

    Example: distlaw sweep metrics s3://bucket/sweep --listen 9400
    """
    from sweeps.operations.metrics import DASHBOARD, serve_metrics
    from sweeps.store.store import Store

    place = Store(store)
    if not place.exists():
        raise place.no_sweep()
    with serve_metrics(place, listen, "--listen") as url:
        typer.echo(f"{url}; a Grafana dashboard: {DASHBOARD}")
        while True:
            time.sleep(3600.0)
