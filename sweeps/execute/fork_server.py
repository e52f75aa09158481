"""A process that has imported torch once and forks a fresh one for every job: 20 ms instead of 2 s.

So every attempt has a process of its own: its memory, on a GPU too, is given back for certain, its exit says
what happened to it, what it prints goes to its own log, and it dies with whoever started it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from sweeps.execute.jobs import Job, Outcome, failure, run_job
from sweeps.store.leases import end_name, latest, log_place, place
from sweeps.store.outcomes import Ending, ending_of_process, oom_kills, told_by
from sweeps.store.store import Store

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""One process a core with one thread each is a quarter faster than one process with all threads."""
GRACE_SECONDS = 10.0
"""For a process that was asked to stop to write a checkpoint."""
LOOK_SECONDS = 10.0
"""Between two looks, while a job is silent, at whether it still has a reason to run."""
SHIPPING_SECONDS = 30.0
"""Between two copies of a log to an object store."""


class Forker:
    """The starting side: one process, and one job at a time."""

    def __init__(self) -> None:
        self.printed = _scratch()
        """What it prints; its jobs have logs of their own."""
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.execute.fork_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.printed,
                start_new_session=True,  # Ctrl-C is for who started us
                env={**os.environ, **ONE_THREAD},
            )
        except OSError:
            if self.printed:
                self.printed.close()
            raise
        self.job: Job | None = None
        self.waiting: dict[str, int] = {}
        self.ended: list[Outcome] = []
        """Said by the job's process, which has not ended yet."""
        self.pids: list[int] = []
        self.started = False
        self._unread = b""

    def fileno(self) -> int:
        """Readable when there is something for :meth:`outcomes` to read."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def start(self, store: Store, job: Job, ranks: Sequence[dict[str, str]] = ({},)) -> None:
        """Run ``job`` in one fresh process for each of ``ranks``, which are added to its environment."""
        leads = any(rank.get("RANK", "0") == "0" for rank in ranks)
        self.job, self.waiting, self.pids = job, job.attempts if leads else {}, []
        self.store, self.leads = store, leads
        request = {"store": store.url, "job": job.as_json(), "ranks": list(ranks)}
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # outcomes() finds it dead
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def outcomes(self) -> list[Outcome]:
        """Read what was said; how the steps ended whose process is gone. Blocks if nothing was said."""
        data = os.read(self.fileno(), 2**16)
        if not data:
            return self._died()
        *lines, self._unread = (self._unread + data).split(b"\n")
        found: list[Outcome] = []
        for message in map(json.loads, lines):
            self.started = True
            if "pids" in message:
                self.pids = message["pids"]
            elif "ended" in message:
                step, number, ending, reason = message["ended"]
                self.waiting.pop(step, None)
                self.ended.append(Outcome(step, number, Ending(ending), reason))
            elif "exit" in message:
                if self.job and self.leads:
                    _tell_life(self.store, self.job, message["lived"])
                found += self._rest(*ending_of_process(message["exit"], oom_kills=message["oom_kills"]))
                self.job, self.pids = None, []
        return found

    def run(self, store: Store, job: Job, ranks: Sequence[dict[str, str]] = ({},)) -> list[Outcome]:
        """Start ``job``, and wait until all its steps have ended. Interrupted, this cannot be used again."""
        self.start(store, job, ranks)
        found: list[Outcome] = []
        try:
            while self.job:
                if select.select([self], [], [], LOOK_SECONDS)[0]:
                    found += self.outcomes()
                elif self._is_over(store, job):
                    self.stop(signal.SIGKILL)
        except BaseException:
            self.stop(signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
            while (
                self.job
                and (left := deadline - time.monotonic()) > 0
                and select.select([self], [], [], left)[0]
            ):
                self.outcomes()
            self.close()
            raise
        return found

    def _is_over(self, store: Store, job: Job) -> bool:
        """Whether others have taken all steps over, or the leader elsewhere has ended."""
        with suppress(OSError):
            for step, number in job.attempts.items():
                names = store.names(step, "attempts")
                if latest(names) <= number and (self.waiting or end_name(number) not in names):
                    return False
            return True
        return False

    def stop(self, number: signal.Signals) -> None:
        """Send a signal to the job's processes."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def close(self) -> None:
        """End everything, at once."""
        self.stop(signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()
        if self.printed:
            self.printed.close()

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self.process.poll() is None

    def _died(self) -> list[Outcome]:
        code = self.process.wait()
        ending, reason = ending_of_process(code)
        if not self.started and ending is not Ending.LOST:
            ending = Ending.UNSTARTED
            reason = f"a worker could not be started on {socket.gethostname()}, it exited with {code}"
        if self.printed and ending is not Ending.LOST:
            self.printed.seek(0)
            words = told_by(self.printed.read())
            reason += f": {words}" if words else ""
        rest = self._rest(ending, reason)
        self.job, self.pids = None, []
        return rest

    def _rest(self, ending: Ending, reason: str) -> list[Outcome]:
        rest = [Outcome(step, number, ending, reason) for step, number in self.waiting.items()]
        found, self.waiting, self.ended = self.ended + rest, {}, []
        return found


def _tell_life(store: Store, job: Job, seconds: float) -> None:
    """Add to the ends of a job's attempts how long its process lived, which is over."""
    for step, number in job.attempts.items():
        with suppress(Exception):  # at most a little too much is counted then
            end = store.read(*place(step, number, "end"))
            if end and end.get("job") == job.name:
                store.write(end | {"lived": seconds}, *place(step, number, "end"), durable=False)


def _scratch() -> IO[bytes] | None:
    """A file for what a process prints; None, and it prints where we do, if there is no room for one."""
    with suppress(OSError):
        return tempfile.TemporaryFile()
    return None


def main() -> None:
    """The forking side: a request a line on stdin, what happens a line each on stdout."""
    _die_with_parent()
    wire = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever prints must not reach the wire
    import sweeps.model.heldout
    import sweeps.model.model_files
    import sweeps.train.loop  # noqa: F401

    for line in sys.stdin.buffer:
        request = json.loads(line)
        killed_before, begun = oom_kills(), time.monotonic()
        parent = os.getpid()
        pids = []
        for rank in request["ranks"]:
            if not (pid := os.fork()):
                _child(request, rank, wire, parent)
            pids.append(pid)
        _say(wire, pids=pids)
        code = _wait(pids)
        lived = time.monotonic() - begun
        _say(wire, exit=code, oom_kills=oom_kills() - killed_before, lived=lived)


def _wait(pids: list[int]) -> int:
    """Wait for the leader to end, or for the first to fail, and end the others with it; the exit code."""
    left, code = set(pids), 0
    while pids[0] in left and not code:
        pid, status = os.wait()
        left.discard(pid)
        code = os.waitstatus_to_exitcode(status)
    for other in left:
        os.kill(other, signal.SIGKILL)
    for _ in left:
        os.wait()
    return code


def _child(request: dict[str, Any], rank: dict[str, str], wire: IO[bytes], parent: int) -> None:
    """Run a job in this fresh process, and end with it."""
    code, begun = 1, time.monotonic()
    try:
        os.setsid()
        _die_with_parent(parent)
        os.environ.update(rank)
        leads = rank.get("RANK", "0") == "0"
        failed = False
        for outcome in _outcomes(request, leads=leads, begun=begun):
            failed |= outcome.ending is not Ending.DONE
            if leads or failed:
                _say(wire, ended=[outcome.step, outcome.number, outcome.ending, outcome.reason])
        code = int(failed and not leads)  # a follower that fails ends its gang
    except BaseException:
        logging.getLogger("distlaw").exception("the process ends")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _outcomes(request: dict[str, Any], *, leads: bool, begun: float) -> Iterator[Outcome]:
    """Run a job; where not even its log can be opened, nothing is tried."""
    store, job = Store(request["store"]), Job.from_json(request["job"])
    with ExitStack() as stack:
        try:
            log = stack.enter_context(_logging(store, job, leads))
        except Exception as error:
            yield from (failure(store, step, number, error) for step, number in job.attempts.items())
            return
        yield from run_job(store, job, log=log, begun=begun)


@contextmanager
def _logging(store: Store, job: Job, leads: bool) -> Iterator[str]:
    """Have everything that this process prints in the log of the job's first attempt; where that lies."""
    place = log_place(job.steps[0].id, job.numbers[0])
    with nullcontext(store.path) if store.local else tempfile.TemporaryDirectory() as folder:
        path = Path(folder, *place)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
        for step in job.steps:
            logging.getLogger("distlaw").info("%s: %s, in process %d", step.id, step.label, os.getpid())
        with nullcontext() if store.local or not leads else _shipping(store, place, path):
            yield "/".join(place)


@contextmanager
def _shipping(store: Store, place: Sequence[str], path: Path) -> Iterator[None]:
    """Copy a file into the store now and then, and at the end."""
    over = threading.Event()

    def ship() -> None:
        while not over.wait(SHIPPING_SECONDS):
            with suppress(Exception):  # only for the eye
                store.write_bytes(path.read_bytes(), *place)

    thread = threading.Thread(target=ship, name="log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(Exception):
            store.write_bytes(path.read_bytes(), *place)


def _say(wire: IO[bytes], **message: Any) -> None:
    """One line, short enough to be written in one piece beside those of other processes."""
    wire.write(json.dumps(message).encode() + b"\n")


def _die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the one that started it dies, where it can."""
    parent = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
