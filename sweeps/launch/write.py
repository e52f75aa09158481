"""Writing of what a scheduler needs to run a sweep: its own file, the spec, for bare machines the code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from scaling.errors import InputError
from sweeps.execute.submission import fill_directory
from sweeps.launch import clouds, kubernetes, sky, slurm
from sweeps.launch.launch import SPEC, Launch, unused_options


class SchedulerFiles(NamedTuple):
    """Writing of one scheduler's files."""

    write: Callable[[Launch, Path], dict[str, str]]
    """Return its files, by name, that will lie in a directory."""
    commands: Callable[[Launch, Path], list[str]]
    """Return what to type next."""
    refusals: Callable[[Launch], Iterator[str]] = lambda _: iter(())
    """Yield why its machines could not run the sweep."""
    sends: bool = False
    """True if the directory is sent to machines that have nothing of ours."""
    options: tuple[str, ...] = ()
    """Options beside nodes, cores and GPUs that have an effect."""


BATCH = ("gpu", "memory", "hours", "queue", "account", "setup")
PODS = ("memory", "hours", "image", "queue")
CLOUD = ("gpu", "image", "region", "spot", "setup")
SCHEDULERS = {
    "slurm": SchedulerFiles(slurm.write, slurm.commands, options=BATCH),
    "slurm-ray": SchedulerFiles(slurm.write_ray, slurm.commands, options=BATCH),
    "kubernetes": SchedulerFiles(
        kubernetes.write_job, kubernetes.commands, kubernetes.refusals, options=PODS
    ),
    "kuberay": SchedulerFiles(
        kubernetes.write_rayjob, kubernetes.commands, kubernetes.refusals, options=PODS
    ),
    "sky": SchedulerFiles(sky.write, sky.commands, sky.refusals, sends=True, options=(*CLOUD, "memory")),
    "aws": SchedulerFiles(clouds.write_aws, partial(clouds.commands, "aws"), clouds.refusals, options=CLOUD),
    "gcp": SchedulerFiles(
        clouds.write_gcp, partial(clouds.commands, "gcp"), clouds.refusals, options=(*CLOUD, "account")
    ),
}


def write_launch(scheduler: str, launch: Launch, folder: str | Path) -> list[str]:
    """Write to ``folder`` what a scheduler needs, and return the commands to type next.

    Files of an earlier launch are replaced, others kept.

    Args:
        scheduler: A key of :data:`SCHEDULERS`.
        launch: The sweep and its machines.
        folder: Directory, made if it is not there.

    Raises:
        InputError: For an unknown scheduler, machines that could not run the sweep, or a directory that
            cannot be written.
    """
    if scheduler not in SCHEDULERS:
        raise InputError(f"scheduler: {', '.join(SCHEDULERS)}, not {scheduler!r}")
    chosen, place = SCHEDULERS[scheduler], Path(folder).absolute()
    for option in unused_options(launch, chosen.options):
        usable = ", ".join(f"--{name}" for name in chosen.options)
        raise InputError(f"{option}: {scheduler} has no use for it; leave it out (it takes {usable})")
    for why in chosen.refusals(launch):
        raise InputError(why)
    files = chosen.write(launch, place)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if chosen.sends:
            fill_directory(launch.sweep, place)
        else:
            (place / SPEC).write_text(launch.spec_text())
        for name, text in files.items():
            (place / name).write_text(text)
    except OSError as error:
        raise InputError(f"--out: {folder} cannot be written ({error})") from None
    return chosen.commands(launch, Path(folder))
