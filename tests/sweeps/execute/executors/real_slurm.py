"""A Slurm of a test: munge, a controller and nodes on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
CONFIGURATION = """
ClusterName=test
AuthInfo=socket={place}/munge
SlurmUser=root
SlurmctldPidFile={place}/slurmctld.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdPidFile={place}/%n.pid
SlurmdLogFile={place}/%n.log
SlurmdSpoolDir={place}/%n
StateSaveLocation={place}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
"""


def slurm_place(folder: Path, settings: str) -> Path:
    """Return a directory in ``folder`` with a configuration, to which ``settings`` are added, and a key."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.getuid():
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'} (apt-get install slurm-wlm)")
    place = folder / "slurm"
    (place / "state").mkdir(parents=True)
    (place / "slurm.conf").write_text(CONFIGURATION.format(place=place) + settings)
    (place / "key").write_bytes(os.urandom(1024))
    (place / "key").chmod(0o400)
    return place


@contextmanager
def slurm_running(
    place: Path, *daemons: Sequence[str], inside: Sequence[str] = ()
) -> Iterator[Callable[..., str]]:
    """Run munge and ``daemons`` until both nodes are idle; the value runs a command and returns its output.

    Args:
        place: Directory of :func:`slurm_place`, which SLURM_CONF names.
        daemons: Commands of controller and nodes.
        inside: Words before commands that run them where the controller is heard.
    """
    files = {"key-file": "key", "socket": "munge", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{name}={place / file}" for name, file in (files | {"seed-file": "seed"}).items()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    started = []

    def says(*command: str) -> str:
        return subprocess.run([*inside, *command], capture_output=True, text=True, check=True).stdout

    def idle() -> bool:
        found = subprocess.run(
            [*inside, "sinfo", "-h", "-o", "%D %t"], capture_output=True, text=True, check=False
        )
        return "2 idle" in found.stdout

    try:
        for daemon in (["munged", "--foreground", "--force", *options], *daemons):
            started.append(subprocess.Popen(daemon, **quiet))
            time.sleep(1.0)
        awaited(idle, 60)
        yield says
    finally:
        subprocess.run([*inside, "scancel", "-u", "root"], check=False)
        for process in reversed(started):
            process.kill()  # and with it, its name spaces
            process.wait(30)


def awaited(what: Callable[[], Any], seconds: float) -> None:
    """Wait until ``what`` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.5)
