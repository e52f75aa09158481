"""Commands of ``distlaw sweep``, one module for verbs that belong together."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the application, as ``distlaw sweep``."""
    from distlaw.commands.sweep.auto import auto
    from distlaw.commands.sweep.external import jobs, record
    from distlaw.commands.sweep.launch import launch
    from distlaw.commands.sweep.monitor import cancel, gc, logs, retry, status, watch
    from distlaw.commands.sweep.next import next_command
    from distlaw.commands.sweep.operations import doctor, metrics
    from distlaw.commands.sweep.plan import plan, schema
    from distlaw.commands.sweep.run import results, run
    from distlaw.commands.sweep.submit import submit
    from distlaw.commands.sweep.tune import tune

    sweep = typer.Typer(
        help="Train grids of teachers and students and log their cross-entropies.", no_args_is_help=True
    )
    launching = (plan, schema, run, auto, results, tune, submit, launch, jobs, record)
    for command in (*launching, status, watch, logs, cancel, retry, gc, doctor, metrics):
        sweep.command()(command)
    sweep.command("next")(next_command)
    app.add_typer(sweep, name="sweep")
