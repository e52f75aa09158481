"""Fork server: a process that has imported torch and forks a new one for every job, in 20 ms instead of 2 s.

So every attempt has a separate process: its memory, on a GPU too, is always released, its exit status tells
how it ended, its output goes to a separate log, and it exits with its parent.
"""

from __future__ import annotations

import ctypes
import json
import logging
import math
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
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from sweeps.execute.jobs import (
    AttemptOutcome,
    Job,
    failed_attempt,
    record_end,
    record_lifetime,
    run_job,
)
from sweeps.store.kill_timer import KillTimer
from sweeps.store.leases import end_name, latest_number, log_path
from sweeps.store.outcomes import Ending, ending_of_process, last_error_line, oom_kills
from sweeps.store.store import Store
from sweeps.store.time_limit import GRACE_SECONDS, TimeLimit

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment of one thread per process, a quarter faster than one process with all threads."""
LOOK_SECONDS = 10.0
"""Seconds between two checks that a silent job still has to run."""
RECORDING_SECONDS = 5.0
"""Seconds in which a server that is closed may record the end of its job."""
SHIPPING_SECONDS = 30.0
"""Seconds between two copies of a log to an object store."""


class ForkServer:
    """Client of a fork server, which runs one job at a time."""

    def __init__(self) -> None:
        self.printed = _scratch()
        """Output of the server; jobs have separate logs."""
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.execute.executors.fork_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.printed,
                start_new_session=True,  # Ctrl-C is handled by the parent
                env={**os.environ, **ONE_THREAD},
            )
        except OSError:
            if self.printed:
                self.printed.close()
            raise
        self.job: Job | None = None
        self.waiting: dict[str, int] = {}
        self.ended: list[AttemptOutcome] = []
        """Attempts that ended in the job's process, which has not exited yet."""
        self.pids: list[int] = []
        self.started = False
        self._unread = b""

    def fileno(self) -> int:
        """Return a file descriptor that is readable when :meth:`outcomes` has something to read."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def start(self, store: Store, job: Job, ranks: Sequence[dict[str, str]] = ({},)) -> None:
        """Start ``job`` in a new process for each of ``ranks``, which are added to its environment."""
        leads = any(rank.get("RANK", "0") == "0" for rank in ranks)
        self.job, self.waiting, self.pids = job, job.attempts if leads else {}, []
        self.store, self.leads = store, leads
        request = {"store": store.url, "job": job.as_json(), "ranks": list(ranks)}
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # outcomes() finds it dead
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def outcomes(self) -> list[AttemptOutcome]:
        """Read messages, and return the attempts whose process has exited; blocks if there are none."""
        data = os.read(self.fileno(), 2**16)
        if not data:
            return self._died()
        *lines, self._unread = (self._unread + data).split(b"\n")
        found: list[AttemptOutcome] = []
        for message in map(json.loads, lines):
            self.started = True
            if "pids" in message:
                self.pids = message["pids"]
            elif "ended" in message:
                step, number, ending, reason = message["ended"]
                self.waiting.pop(step, None)
                self.ended.append(AttemptOutcome(step, number, Ending(ending), reason))
            elif "exit" in message:
                lived = message["lived"]
                if self.job and self.leads:
                    record_lifetime(self.store, self.job, lived)
                ending = ending_of_process(message["exit"], oom_kills=message["oom_kills"])
                found += self._rest(*ending, lived)
                self.job, self.pids = None, []
        return found

    def run(self, store: Store, job: Job, ranks: Sequence[dict[str, str]] = ({},)) -> list[AttemptOutcome]:
        """Run ``job`` until all its steps have ended; if interrupted, the client cannot be used again."""
        self.start(store, job, ranks)
        found: list[AttemptOutcome] = []
        try:
            while self.job:
                if select.select([self], [], [], LOOK_SECONDS)[0]:
                    found += self.outcomes()
                elif self._is_over(store, job):
                    self.stop(signal.SIGKILL)
        except BaseException:
            self.stop(signal.SIGTERM)
            deadline = time.monotonic() + job.grace
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
        """Return True if others have taken over all steps, or the leader on another node has ended."""
        with suppress(OSError):
            for step, number in job.attempts.items():
                names = store.names(step, "attempts")
                if latest_number(names) <= number and (self.waiting or end_name(number) not in names):
                    return False
            return True
        return False

    def stop(self, number: signal.Signals) -> None:
        """Send a signal to the job's processes."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def close(self) -> None:
        """Kill all processes; the server records first how long those of its job have lived."""
        if self.job:
            assert self.process.stdin is not None
            with suppress(BrokenPipeError):
                self.process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(RECORDING_SECONDS)
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
        """True if the server can run another job."""
        return self.process.poll() is None

    def _died(self) -> list[AttemptOutcome]:
        code = self.process.wait()
        ending, reason = ending_of_process(code)
        if not self.started and ending is not Ending.LOST:
            ending = Ending.UNSTARTED
            reason = f"a worker could not be started on {socket.gethostname()}, it exited with {code}"
        if self.printed and ending is not Ending.LOST:
            self.printed.seek(0)
            words = last_error_line(self.printed.read())
            reason += f": {words}" if words else ""
        rest = self._rest(ending, reason)
        self.job, self.pids = None, []
        return rest

    def _rest(self, ending: Ending, reason: str, lived: float | None = None) -> list[AttemptOutcome]:
        rest = [AttemptOutcome(step, number, ending, reason) for step, number in self.waiting.items()]
        found = [replace(each, lived=lived) for each in self.ended + rest]
        self.waiting, self.ended = {}, []
        return found


def _scratch() -> IO[bytes] | None:
    """Return a file for the output of a process; None, to inherit this one's, if it cannot be created."""
    with suppress(OSError):
        return tempfile.TemporaryFile()
    return None


def main() -> None:
    """Serve requests, one JSON line each on stdin until it is closed; write events to stdout likewise."""
    _die_with_parent()
    wire = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # output must not mix with messages
    import sweeps.model.heldout
    import sweeps.model.model_files
    import sweeps.train.loop  # noqa: F401

    _outlive_parent()
    exits, client, request, lived = _notice_exits(), os.getppid(), None, 0.0
    for line in sys.stdin.buffer:
        if os.getppid() != client:
            break  # nobody wants the job any more
        request = json.loads(line)
        killed_before, begun, parent = oom_kills(), time.monotonic(), os.getpid()
        pids = []
        for rank in request["ranks"]:
            if not (pid := os.fork()):
                _child(request, rank, wire, parent, begun)
            pids.append(pid)
        _say(wire, pids=pids)
        code = _wait(pids, exits)
        lived = time.monotonic() - begun
        _say(wire, exit=code, oom_kills=oom_kills() - killed_before, lived=lived)
    if request:
        _record_exit(request, lived)


def _notice_exits() -> int:
    """Return a file descriptor that is readable after a child has exited."""
    noticed, wakes = os.pipe()
    os.set_blocking(noticed, False)
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    return noticed


def _record_exit(request: dict[str, Any], lived: float) -> None:
    """Record the ends of the last job's attempts, as the client that would do so may have been killed."""
    if all(rank.get("RANK", "0") != "0" for rank in request["ranks"]):
        return
    signal.alarm(round(GRACE_SECONDS))  # the store may not answer
    store, job = Store(request["store"]), Job.from_json(request["job"])
    record_lifetime(store, job, lived)
    for outcome in job.all_ended(Ending.LOST, "its driver has exited, or has given it up"):
        record_end(store, job, replace(outcome, lived=lived))


def _wait(pids: list[int], exits: int) -> int:
    """Wait for the leader to exit, or for a process to fail, kill the others, and return the exit code.

    All are killed when the client has closed stdin, or was killed.
    """
    left, code = set(pids), 0
    while pids[0] in left and not code and (exited := _next_exit(exits)):
        pid, status = exited
        left.discard(pid)
        code = os.waitstatus_to_exitcode(status)
    for other in left:
        os.kill(other, signal.SIGKILL)
    for _ in left:
        os.wait()
    return code


def _next_exit(exits: int) -> tuple[int, int] | None:
    """Wait for a child to exit, and return its pid and status; None if stdin is closed before."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            return pid, status
        ready = select.select([0, exits], [], [])[0]
        if exits in ready:
            with suppress(BlockingIOError):
                os.read(exits, 4096)
        elif ready:  # nothing is sent while a job runs
            return None


def _child(request: dict[str, Any], rank: dict[str, str], wire: IO[bytes], parent: int, begun: float) -> None:
    """Run a job in this forked process, which counts from ``begun``, and exit."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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


def _outcomes(request: dict[str, Any], *, leads: bool, begun: float) -> Iterator[AttemptOutcome]:
    """Run a job; if its log cannot be opened, fail all its attempts."""
    store, job = Store(request["store"]), Job.from_json(request["job"])
    with ExitStack() as stack:
        limit = _limit(store, job, begun) if leads else None
        try:
            log = stack.enter_context(_logging(store, job, leads))
        except Exception as error:
            yield from (failed_attempt(store, step, number, error) for step, number in job.attempts.items())
            return
        yield from run_job(store, job, limit, log=log, begun=begun)


def _limit(store: Store, job: Job, begun: float) -> TimeLimit | None:
    """Return the time limit of this process, which the kernel enforces from now on; None if it has none."""
    if job.time_limit is None:
        return None
    limit = TimeLimit(store, job.driver, job.name, job.time_limit, begun, KillTimer())
    limit.enforce(math.inf)
    return limit


@contextmanager
def _logging(store: Store, job: Job, leads: bool) -> Iterator[str]:
    """Redirect output of this process to the log of the job's first attempt; yield the path of the log."""
    place = log_path(job.steps[0].id, job.numbers[0])
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
    """Copy a file to the store periodically, and at the end."""
    over = threading.Event()

    def ship() -> None:
        while not over.wait(SHIPPING_SECONDS):
            with suppress(Exception):  # logs are informative only
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
    """Write a message as one line, short enough to be atomic among several processes."""
    with suppress(BrokenPipeError):  # the client was killed
        wire.write(json.dumps(message).encode() + b"\n")


def _die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent exits, on Linux."""
    parent = os.getppid() if parent is None else parent
    _set_signal_of_parents_exit(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _outlive_parent() -> None:
    """Revoke :func:`_die_with_parent`, so that this process can record how its job ended."""
    _set_signal_of_parents_exit(0)


def _set_signal_of_parents_exit(number: int) -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, number)


if __name__ == "__main__":
    main()
