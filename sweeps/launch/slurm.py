"""Batch scripts for Slurm: a driver on every node, ``srun`` in an allocation, or Ray in one."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from sweeps.launch.launch import GRACE_SECONDS, SPEC, Launch

SCRIPT = "slurm.sh"
CLUSTER_SECONDS = 300
"""Seconds that the nodes have to join Ray; its own 30 pass while a shared disk is read."""


def write(launch: Launch, folder: Path) -> dict[str, str]:
    """Return the script: an array whose tasks are drivers, each of its node.

    Where a step needs several nodes there is one driver, which starts steps by ``srun``.
    """
    gangs = launch.largest.nodes > 1
    command = launch.run_command(str(folder / SPEC), "slurm" if gangs else "process", sys.executable)
    why = "its driver starts steps by srun" if gangs else "each task of the array works alone on its node"
    last = shlex.join(command) if gangs else f'{shlex.join(command)} --cores "$SLURM_CPUS_PER_TASK"'
    return {SCRIPT: _script(launch, folder, why, [f"exec {last}"], array=not gangs)}


def write_ray(launch: Launch, folder: Path) -> dict[str, str]:
    """Return the script that starts Ray on all nodes of one allocation, and the driver on the first."""
    command = launch.run_command(str(folder / SPEC), "ray", sys.executable)
    lines = [
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
        "port=$((20000 + SLURM_JOB_ID % 10000))",
        f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',  # Ray starts itself by name
        "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0",
        f"export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT={CLUSTER_SECONDS}",
        "[ -e ~/.ray/auth_token ] || ray get-auth-token --generate > /dev/null",
        f'exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task={launch.cpus} \\',
        f'  ray symmetric-run --address "$head:$port" --min-nodes {launch.nodes} --num-cpus {launch.cpus} '
        f"--num-gpus {launch.gpus} -- \\",
        f"  {shlex.join(command)}",
    ]
    return {SCRIPT: _script(launch, folder, "Ray spans its nodes", lines, array=False)}


def commands(launch: Launch, folder: Path) -> list[str]:
    """Return what to type next."""
    return [f"sbatch {shlex.quote(str(folder / SCRIPT))}", f"distlaw sweep watch {shlex.quote(launch.store)}"]


def _script(launch: Launch, folder: Path, how: str, lines: list[str], *, array: bool) -> str:
    options = {
        "job-name": launch.name,
        "array": f"1-{launch.nodes}" if array else None,
        "nodes": 1 if array else launch.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": launch.cpus,
        "gpus-per-node": ":".join([launch.gpu or "", str(launch.gpus)]).strip(":") if launch.gpus else None,
        "mem": f"{launch.memory}G" if launch.memory else None,
        "time": launch.time,
        "partition": launch.queue,
        "account": launch.account,
        "output": shlex.quote(f"{folder}/{'%x-%A_%a' if array else '%x-%j'}.log"),
        "open-mode": "append",
        "signal": f"B:TERM@{GRACE_SECONDS}",  # time for checkpoints before the limit
    }
    head = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Sweep {launch.sweep.name} into {launch.store}: {how}. Submitted again, it goes on.",
            *head,
            "#SBATCH --requeue",
            "",
            "set -euo pipefail",
            f"cd {shlex.quote(str(Path.cwd()))}",
            *launch.setup,
            *lines,
            "",
        ]
    )
