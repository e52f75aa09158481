"""Runs whose losses are projected: they end at their stable phase; a shorter run shows what a decay brings.

Of every size the shortest run of its grid is decayed. A longer one shares its prefix and ends before its own
decay; its loss follows from :func:`fits.table.projection.projected_loss`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fits.table.projection import projection_sd
from scaling.errors import InputError
from sweeps.dag.step import Step
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.spec import Grid


def with_projected(where: str, grid: Grid, runs: Sequence[Step]) -> Iterator[Step]:
    """Yield the runs of one size and seed, measured and projected as their grid says.

    Args:
        where: Place of the grid in the spec.
        grid: The grid.
        runs: Its runs of one size and seed, each to its end.

    Raises:
        InputError: if there is no shorter run to project from, or it decays while it warms up.
    """
    if "projected" not in grid.measure:
        yield from runs
        return
    early, *longer = sorted(runs, key=lambda run: run.steps)
    if not any(run.steps > early.steps for run in longer):
        raise InputError(
            f"{where}.measure: a loss is projected from a shorter run of the same size, which is decayed: "
            "give the grid two lengths or more"
        )
    if early.training.stable_steps(early.steps) < early.training.warmup_steps:
        raise InputError(
            f"{where}.measure: the shortest run decays before it has warmed up, so that its decay says "
            "nothing of longer ones: lengthen it, or lower training.decay_fraction"
        )
    yield early
    for run in longer:
        for way in grid.measure:
            projected = way == "projected" and run.steps > early.steps
            yield replace(run, early=early) if projected else run


def check_projected(run: Step) -> None:
    """Refuse a projected student whose stable phase no shorter run shares.

    Raises:
        InputError: naming the method.
    """
    if run.early is None or run.method is None:
        return
    if run.method.init or parts_of(run.method).depends_on_total_steps:
        raise InputError(
            f"students: measure: runs of {run.method.name} depend on their length from the first step, so "
            "that they share no prefix and no loss can be projected; measure them decayed"
        )


def projected_sd(step: Step) -> float:
    """Return the standard deviation of ln loss of a run beyond its noise: zero where it is measured."""
    if step.early is None:
        return 0.0
    return float(projection_sd(step.tokens, step.early.tokens, step.early.steps))
