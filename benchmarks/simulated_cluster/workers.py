"""Workers of a simulated cluster, the processes that run jobs.

They hold real leases with fences, and commit results to the store; only the training is simulated: it
takes seconds, keeps what its last checkpoint holds, and can be killed at any time. Heartbeats are real where
they may fail or must find something; others are written when they are read, as there are millions.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from simulated_cluster.nodes import Cluster, SimulatedNode

from sweeps.execute.jobs import AttemptOutcome, Job, record_end, record_lifetime
from sweeps.store.heartbeats import BEATS_REMOTE, FIRST_BEAT, beat_all
from sweeps.store.leases import LEASE_TIMEOUT, Lease, attempt_path
from sweeps.store.outcomes import Ending, ending_of, error_line, is_transient
from sweeps.store.time_limit import EXIT_SECONDS, TimeLimit

if TYPE_CHECKING:
    from simulated_cluster.executor import SimulatedExecutor

BEAT_SECONDS = LEASE_TIMEOUT / BEATS_REMOTE
REQUESTS_OF_BEAT = {"put": 1, "list": 1, "get": 1}
CHECKPOINT_SECONDS = 60.0
"""Seconds of work between two checkpoints."""
QUEUE_SECONDS, STARTUP_SECONDS = 3.0, 5.0
"""Seconds from submission until its process starts, and from then until it has claimed its steps."""
LEAVING_SECONDS = 0.3
"""Seconds from the end of its last step until the process has exited, and its parent has recorded that."""
NOTICE_SECONDS = 12.0
"""Seconds after which a driver is told of a lost node."""


@dataclass(eq=False)
class Worker:
    """Process, or gang of processes, that runs a job."""

    cluster: Cluster
    job: Job
    owner: SimulatedExecutor
    nodes: list[SimulatedNode]
    leases: list[Lease] = field(default_factory=list)
    limit: TimeLimit | None = None
    began: float = math.inf
    """Start of its process."""
    left: dict[str, float] = field(default_factory=dict)
    """Seconds of work left of each step when the process began."""
    pace: float = 1.0
    """Seconds of work a second."""
    worked_from: float = 0.0
    """Time from which it trains."""
    ended: list[AttemptOutcome] = field(default_factory=list)
    """Attempts that have ended in it."""
    over: bool = False
    live: list[str] = field(default_factory=list)
    """Heartbeats that are written when they are read."""

    @property
    def cut_off(self) -> bool:
        return any(node.cut_off for node in self.nodes)

    @property
    def clock_ahead(self) -> float:
        return self.nodes[0].clock_ahead

    def holds(self, step: str) -> bool:
        """Return True if it works on a step, and can say so."""
        working = any(lease.step == step and not lease.ended and not lease.lost for lease in self.leases)
        return working and not (self.over or self.cut_off)

    def start(self) -> None:
        """Start the process."""
        if not self.over:
            self.began = self.cluster.clock.now
            self.cluster.clock.after(STARTUP_SECONDS, self._begin)

    def _begin(self) -> None:
        """Claim the steps, and train."""
        if self.over:
            return
        if any(
            node.true_gpus is not None and node.true_gpus < self.job.resources.gpus for node in self.nodes
        ):
            self._exit(self.job.all_ended(Ending.UNSTARTED, "the node has fewer GPUs than it says"))
            return
        try:
            with self.cluster.asking(self):
                self._claim()
        except Exception as error:
            self._exit(self.job.all_ended(ending_of(error), error_line(error)))
            return
        if not self.leases:
            self._exit([])
            return
        self.worked_from = self.cluster.clock.now
        self.left = {lease.step: self.cluster.seconds_left(lease.step) for lease in self.leases}
        self.pace = min(node.node.speed * node.true_speed for node in self.nodes)
        self.cluster.clock.after(sum(self.left.values()) / self.pace, self.finish)
        if self.limit or any(node.watched for node in self.nodes):
            self._beat_after(FIRST_BEAT, 0)
        else:
            self._beat_unwatched()
        if self.limit:
            self._enforce_limit()

    def _claim(self) -> None:
        cluster, job = self.cluster, self.job
        if job.time_limit is not None:
            self.limit = TimeLimit(cluster.store, job.driver, job.name, job.time_limit, self.began)
        about = {"host": self.nodes[0].node.name, "machine": self.nodes[0].node.name, "pid": 1, "since": 1}
        held = []
        for step, number in job.attempts.items():
            about |= job.about
            lease = Lease.claim(cluster.store, step, number, begun=self.began, limit=self.limit, **about)
            if lease:
                cluster.hold(step, self)
                self.leases.append(lease)
            else:
                held.append(AttemptOutcome(step, number, Ending.HELD, "another process works on it"))
        self._tell(held)

    def _beat_unwatched(self) -> None:
        """Write heartbeats only as far as they are read: they find no reason to stop, and cannot fail."""
        for lease in self.leases:
            path = f"{self.cluster.store.path}/{'/'.join(attempt_path(lease.step, lease.number, 'beat'))}"
            self.cluster.bucket.place(path, b"{}")
            self.cluster.bucket.live[path] = partial(self._last_beat, lease)
            self.live.append(path)

    def _last_beat(self, lease: Lease) -> bytes:
        count = int((self.cluster.clock.now - self.worked_from) / BEAT_SECONDS)
        while count and self.cluster.bucket.throttled(self.worked_from + BEAT_SECONDS * count):
            count -= 1
        at = self.worked_from + BEAT_SECONDS * count
        beat = {"beat": count + 1, "elapsed": at - self.began, "due": BEAT_SECONDS}
        return json.dumps(beat | self._progress(lease.step, at)).encode()

    def _beat_after(self, wait: float, count: int) -> None:
        self.cluster.clock.after(wait, partial(self._beat, count + 1, min(2 * wait, BEAT_SECONDS)))

    def _beat(self, count: int, due: float) -> None:
        if self.over:
            return
        active = [lease for lease in self.leases if not lease.ended]
        for lease in active:
            lease.progress = self._progress(lease.step)
        with self.cluster.asking(self):
            beat_all(active, self.limit, count, due, LEASE_TIMEOUT)
        if lost := next((lease.lost for lease in active if lease.lost), None):
            self._stop(lost.ending, str(lost))
        elif active and self.cluster.clock.now > active[0].expires and self.limit:
            self.kill("it was killed when its lease expired")
        else:
            self._beat_after(due, count)

    def _enforce_limit(self) -> None:
        """Kill the process at its time limit, as the kernel does."""
        assert self.limit
        if self.over:
            return
        left = self.began + self.limit.seconds - EXIT_SECONDS - self.cluster.clock.now
        if left > 1e-6:
            self.cluster.clock.after(left, self._enforce_limit)
        else:
            self.kill("its time limit is used up")

    def _progress(self, step: str, at: float | None = None) -> dict[str, Any]:
        at = self.cluster.clock.now if at is None else at
        whole = self.cluster.steps[step].seconds
        done = whole - max(0.0, self.left[step] - self._worked_on(step, at))
        scale = 1e6 / whole
        began = round(scale * (whole - self.left[step]))
        elapsed = at - self.worked_from
        return {"began": began, "steps_done": round(scale * done), "steps": 10**6, "seconds": elapsed}

    def _worked_on(self, step: str, at: float | None = None) -> float:
        """Return the seconds of work that members of a cohort have done so far, each its share."""
        at = self.cluster.clock.now if at is None else at
        share = self.left[step] / max(1e-9, sum(self.left.values()))
        return share * (at - self.worked_from) * self.pace

    def finish(self) -> None:
        """Commit the results."""
        if self.over or all(lease.ended for lease in self.leases):
            return
        outcomes = []
        for lease in self.leases:
            if lease.ended:
                continue
            try:
                with self.cluster.asking(self):
                    lease.progress = self._progress(lease.step)
                    lease.fence()
                    if not self.cluster.store.commit(lease.step, self.cluster.result_of(lease.step)):
                        self.cluster.doubled += 1
                lease.conclude(None)
                outcomes.append(AttemptOutcome(lease.step, lease.number, Ending.DONE))
            except Exception as error:
                worked = self._worked_on(lease.step)
                unsaved = worked % CHECKPOINT_SECONDS if is_transient(error) else 0.0
                self.cluster.checkpoint(lease.step, worked - unsaved)
                with self.cluster.asking(self):
                    lease.conclude(error)
                ending = ending_of(error)
                outcomes.append(AttemptOutcome(lease.step, lease.number, ending, error_line(error)))
        self._exit(outcomes)

    def _stop(self, ending: Ending, why: str) -> None:
        """Stop with a checkpoint, as asked."""
        for lease in self.leases:
            self.cluster.checkpoint(lease.step, self._worked_on(lease.step))
            with self.cluster.asking(self):
                lease.end(ending, why)
        self._exit([AttemptOutcome(lease.step, lease.number, ending, why) for lease in self.leases])

    def lose_store(self) -> None:
        """End at the next checkpoint if it cannot be written."""
        if not self.over and not self.ended and self.worked_from:
            wait = CHECKPOINT_SECONDS - (self.cluster.clock.now - self.worked_from) % CHECKPOINT_SECONDS
            kept = {lease.step: self._worked_on(lease.step) for lease in self.leases}
            self.cluster.clock.after(wait, partial(self._fail_to_write, kept))

    def _fail_to_write(self, kept: dict[str, float]) -> None:
        if self.over or self.ended or not self.cluster.bucket.throttled(self.cluster.clock.now):
            return
        why, active = "a checkpoint could not be written", [each for each in self.leases if not each.ended]
        for lease in active:
            self.cluster.checkpoint(lease.step, kept[lease.step] - kept[lease.step] % CHECKPOINT_SECONDS)
            with self.cluster.asking(self):
                lease.end(Ending.LOST, why)
        self._exit([AttemptOutcome(lease.step, lease.number, Ending.LOST, why) for lease in active])

    def kill(self, why: str, *, by_driver_loss: bool = False) -> None:
        """Kill the process, whose parent records that and tells its driver, if it has one."""
        if self.over:
            return
        rest = self._die(why)
        lived = self._leave()
        with self.cluster.asking(self):
            record_lifetime(self.cluster.store, self.job, lived)
            if by_driver_loss:
                for outcome in rest:
                    with suppress(OSError):
                        record_end(self.cluster.store, self.job, replace(outcome, lived=lived))
        self._tell([*self.ended, *(replace(outcome, lived=lived) for outcome in rest)])

    def lose(self, why: str) -> None:
        """End with its node: the driver is told later, and nobody has measured how long it lived."""
        if not self.over:
            rest = self._die(why)
            self._leave()
            self.cluster.clock.after(NOTICE_SECONDS, partial(self._tell, [*self.ended, *rest]))

    def _die(self, why: str) -> list[AttemptOutcome]:
        """Keep the last checkpoints; return the outcomes of the attempts that have not ended."""
        for lease in (each for each in self.leases if not each.ended):
            worked = self._worked_on(lease.step)
            self.cluster.checkpoint(lease.step, worked - worked % CHECKPOINT_SECONDS)
        ended = {outcome.step for outcome in self.ended}
        return [each for each in self.job.all_ended(Ending.LOST, why) if each.step not in ended]

    def _exit(self, outcomes: list[AttemptOutcome]) -> None:
        """Leave the process, whose parent records how long it lived."""
        self.ended = outcomes
        self.cluster.clock.after(LEAVING_SECONDS, self._exited)

    def _exited(self) -> None:
        if not self.over:
            lived = self._leave()
            with self.cluster.asking(self):
                record_lifetime(self.cluster.store, self.job, lived)
            self._tell(self.ended)

    def _tell(self, outcomes: list[AttemptOutcome]) -> None:
        self.owner.outcomes += outcomes
        if self.owner.thread:
            self.cluster.clock.wake(self.owner.thread)

    def _leave(self) -> float:
        """Free the nodes, once; return the seconds that the process has lived."""
        for path in self.live:
            content = self.cluster.bucket.live.pop(path)()
            self.cluster.bucket.data[path] = content, self.cluster.clock.now
            for kind, number in REQUESTS_OF_BEAT.items():
                beats = (self.cluster.clock.now - self.worked_from) / BEAT_SECONDS
                self.cluster.bucket.count(kind, round(beats) * number)
        self.live = []
        self.over = True
        lived = max(0.0, self.cluster.clock.now - self.began)
        used = self.job.resources
        self.cluster.used += lived * used.nodes * (used.gpus or used.cpus)
        self.cluster.leave(self)
        for node in self.nodes:
            node.workers.discard(self)
        return lived
