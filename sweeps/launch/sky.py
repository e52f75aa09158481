"""Task for SkyPilot's managed jobs, each of which is a driver on a machine of its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from scaling.errors import InputError
from sweeps.execute.submission import pinned_requirements
from sweeps.launch.launch import SPEC, Launch, with_header

TASK = "sky.yaml"


def write(launch: Launch, folder: Path) -> dict[str, str]:  # noqa: ARG001
    """Return the task; its directory is sent along, with this code and the texts of the spec.

    Raises:
        InputError: for a step on several nodes.
    """
    if launch.largest.nodes > 1:
        raise InputError(
            f"resources: a step takes {launch.largest.nodes} nodes, and machines of managed jobs do not know "
            "each other; use slurm, kuberay, aws or gcp"
        )
    resources = {
        "accelerators": f"{(launch.gpu or 'L4').upper()}:{launch.gpus}" if launch.gpus else None,
        "cpus": f"{launch.cpus}+",
        "memory": f"{launch.memory}+" if launch.memory else None,
        "infra": launch.region,
        "use_spot": launch.spot,
        "image_id": f"docker:{launch.image}" if launch.image else None,
        "job_recovery": {"strategy": "EAGER_NEXT_REGION", "max_restarts_on_errors": 3},
    }
    command = [*launch.run_command(SPEC, "process"), "--cores", str(launch.cpus)]
    requirements = [f"torch=={version('torch').partition('+')[0]}", *pinned_requirements()]
    requirements += launch.store_packages
    task = {
        "name": launch.name,
        "workdir": ".",
        "resources": {name: value for name, value in resources.items() if value is not None},
        "setup": "\n".join([*launch.setup, shlex.join(["pip", "install", "-q", *requirements])]) + "\n",
        "run": shlex.join(command) + "\n",
    }
    what = f"Sweep {launch.sweep.name}: managed jobs that share its steps through {launch.store}."
    return {TASK: with_header(task, what)}


def commands(launch: Launch, folder: Path) -> list[str]:
    """Return what to type next."""
    each = f"sky jobs launch --yes --async --name {launch.name}-$n {TASK}"
    return [
        f"cd {shlex.quote(str(folder))} && for n in $(seq {launch.nodes}); do {each}; done",
        f"distlaw sweep watch {shlex.quote(launch.store)}",
    ]


def refusals(launch: Launch) -> Iterator[str]:
    """Yield why SkyPilot's machines could not run the sweep."""
    if not launch.in_bucket:
        yield f"--store: machines of a cloud do not see {launch.store}; give a bucket, such as s3://bucket/sweep"
