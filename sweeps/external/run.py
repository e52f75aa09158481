"""One attempt at a run of a command: prepare its files, run it under the lease, read what it left."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from sweeps.dag.step import Step
from sweeps.data import TokenizedCorpus
from sweeps.data.cache import cache_dir
from sweeps.external.collect import collect_result
from sweeps.external.command import Place, command_line, environment, placeholder_values
from sweeps.external.job import ExternalJob, describe_job
from sweeps.external.process import CommandEnd, CommandProcess, end_leftovers
from sweeps.external.progress import ProgressFile
from sweeps.external.result import ReportedResult, check_result
from sweeps.spec.trainer import Trainer
from sweeps.store.leases import Lease
from sweeps.store.outcomes import TRY_LATER, Ending, Stopped, ending_of_process, oom_kills
from sweeps.store.store import Store

POLL_SECONDS = 0.2
LAST_LINES = 30
"""Lines of the output of a failed command that its attempt's record keeps."""
MAX_LINE_CHARACTERS = 300
COLOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Sequences by which programs color what a terminal shows."""
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".distcp")
"""Endings of files of weights and optimizer states."""
FOLDER = "command-"
"""Beginning of the names of the directories of attempts, beside the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """Result and model that a command has left."""

    reported: ReportedResult
    model: Path | None
    """Directory of its model."""
    seconds: float
    """Seconds that the command ran."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """Node of a gang on which the command is started; by default the only one."""

    number: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Node:
        """Return the node that the environment of this process describes."""
        return cls(number=int(os.environ.get("RANK", "0")), count=int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def leads(self) -> bool:
        """True for the node whose process has the lease and writes the result."""
        return self.number == 0


@contextmanager
def run_command(
    store: Store, step: Step, corpus: TokenizedCorpus, lease: Lease | None, node: Node, **resources: Any
) -> Iterator[Left | None]:
    """Run the command of ``step`` to its end, and yield what it has left, until the block ends.

    Args:
        store: The store.
        step: The step.
        corpus: Its text.
        lease: Lease of this process; None on a node that does not lead.
        node: This node, of those that run the command together.
        resources: ``cpus``, ``gpus`` and ``nodes`` of the step.

    Raises:
        InputError: if the command failed, or left no result of this run.
        Stopped: if it was stopped, asks to be tried again, or its process was lost.
    """
    trainer = step.trainer
    assert trainer is not None
    if trainer.command is None:
        raise InputError(
            "its trainer has no command: train it elsewhere (distlaw sweep jobs), and hand in its result: "
            f"distlaw sweep record {store.root} {step.id} result.json"
        )
    mark = f"{store.url}/{step.id}#{node.number}"
    end_leftovers(mark)
    with ExitStack() as stack:
        place = stack.enter_context(_place(store, step, lease.number if lease else 0, node, **resources))
        model = stack.enter_context(_teacher_model(store, step))
        teacher = (store.result(step.teacher.id) if step.teacher else None) or {}
        job = describe_job(step, corpus, teacher, str(model) if model else None)
        place.job.write_text(job.model_dump_json(indent=1))
        output = place.out.with_name("output.log")
        logs = [output, *_attempt_log(lease)]
        started = time.monotonic()
        end = _run(trainer, job, place, mark, logs, lease)
        if lease and end.exit:
            lease.about["last_lines"] = last_lines(end.tail)
        check_exit(end)
        if not node.leads:
            yield None
            return
        values = placeholder_values(job, place)
        reported, where = collect_result(trainer, values, output)
        folder = _model_folder(trainer, reported, values, where.parent)
        check_result(reported, step, str(where), has_model=folder is not None)
        yield Left(reported=reported, model=folder, seconds=time.monotonic() - started)


def _run(
    trainer: Trainer, job: ExternalJob, place: Place, mark: str, logs: list[Path], lease: Lease | None
) -> CommandEnd:
    """Run the command; stop it if the lease says so."""
    killed_before = oom_kills()
    process = CommandProcess(
        command_line(trainer, job, place),
        environment(trainer, job, place, mark),
        logs=logs,
        grace=trainer.grace_seconds,
        until=lease.expires if lease else float("inf"),
    )
    path, grace = place.out / "progress.jsonl", trainer.grace_seconds
    progress = ProgressFile(path, job, attempt=place.attempt, grace=grace)
    stopped: Stopped | None = None
    try:
        while (end := process.wait(POLL_SECONDS)) is None:
            if lease is None:
                continue
            process.extend(lease.expires)
            lease.progress = progress.read()
            if stopped is None and (stopped := lease.lost):
                process.stop(0.0 if stopped.ending is Ending.HELD else trainer.grace_seconds)
        if lease:
            lease.progress = progress.read() if end.exit else progress.done()
    finally:
        process.close()
    if stopped:
        raise stopped
    if end.exit < 0 and oom_kills() > killed_before:
        raise Stopped(Ending.MEMORY, "the kernel killed its command because memory ran out")
    return end


def _attempt_log(lease: Lease | None) -> list[Path]:
    """Return the log of the attempt, to which standard error of this process goes if it has one."""
    log = Path("/proc/self/fd/2")
    return [log.resolve()] if lease and lease.about.get("log") and log.exists() else []


def check_exit(end: CommandEnd) -> None:
    """Check how a command ended.

    Raises:
        InputError: for an exit code other than 0 and 75, with the last line of its output.
        Stopped: if it asks to be tried again, or died of a signal.
    """
    if end.killed:
        raise Stopped(Ending.LOST, f"its command was killed: {end.killed}")
    if end.exit < 0:
        ending, reason = ending_of_process(end.exit)
        raise Stopped(ending, reason.replace("its process", "its command"))
    if end.exit == TRY_LATER:
        raise Stopped(Ending.LOST, f"its command asks to be started again (exit code {TRY_LATER})")
    if end.exit:
        words = last_lines(end.tail)
        raise InputError(
            f"its command exited with {end.exit}: {words[-1] if words else 'it printed nothing'}"
        )


def last_lines(text: str) -> list[str]:
    """Return the last lines of an output that are not blank, each cut to a readable length.

    Colors and control characters, which would act on the terminal where they are shown, are left out.
    """
    lines = COLOR.sub("", text).splitlines()
    plain = ("".join(c for c in line if c.isprintable() or c == "\t").rstrip() for line in lines)
    return [line[-MAX_LINE_CHARACTERS:] for line in plain if line.strip()][-LAST_LINES:]


@contextmanager
def _place(store: Store, step: Step, number: int, node: Node, **resources: Any) -> Iterator[Place]:
    """Yield the files of an attempt; on a disk beside its result, for a bucket in this machine's cache."""
    base = Path(store.path, step.id) if store.local else cache_dir() / "commands" / step.id
    name = f"{FOLDER}{number:04d}" if node.leads else f"{FOLDER}node-{node.number}"
    folder = base / name
    if node.leads:
        for left in base.glob(f"{FOLDER}*"):
            if not left.name.startswith(f"{FOLDER}node-"):
                shutil.rmtree(left, ignore_errors=True)
    place = Place(
        job=folder / "job.json",
        out=folder / "out",
        checkpoints=base / "checkpoints",
        attempt=number,
        node=node.number,
        **resources,
    )
    place.out.mkdir(parents=True, exist_ok=True)
    place.checkpoints.mkdir(parents=True, exist_ok=True)
    yield place
    if not store.local:
        with suppress(OSError):
            shutil.rmtree(base)


def clear(store: Store, step: Step) -> None:
    """Remove checkpoints and weights that a finished run's command has left; its logs and records stay."""
    store.remove_tree(step.id, "checkpoints")
    folder = Path(store.path, step.id)
    for path in folder.glob(f"{FOLDER}*/out/**/*") if store.local else ():
        if path.suffix in WEIGHTS and path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def _teacher_model(store: Store, step: Step) -> Iterator[Path | None]:
    """Yield the directory of the teacher's model on this machine, if it has one."""
    teacher = step.teacher
    if teacher is None or teacher.foreign or "model" not in (store.result(teacher.id) or {}):
        yield None
        return
    with store.model(teacher.id) as folder:
        yield folder


def _model_folder(
    trainer: Trainer, reported: ReportedResult, values: dict[str, str], beside: Path
) -> Path | None:
    """Return the directory of the model that the command left; None if it left none.

    Raises:
        InputError: if there is none where it is said to be.
    """
    named = reported.model or (trainer.model and trainer.model.format_map(values))
    if named is None:
        return None
    folder = beside / named
    if not (folder / "config.json").is_file():
        raise InputError(f"model: {folder} has no config.json; give a directory written by save_pretrained")
    return folder
