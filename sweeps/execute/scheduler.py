"""The sweep itself: submit what is ready, release students when their teacher is done, name what failed.

Everything is decided from the store, so that a driver may be killed and started again, and several may share
the work. What executors report comes first; what the store says counts, also where an executor falls silent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

from scaling.errors import InputError
from sweeps.dag.expand import Dag, Step
from sweeps.estimate.cost import Cost
from sweeps.execute.budget import Ledger
from sweeps.execute.cohorts import cohorts
from sweeps.execute.drivers import Session
from sweeps.execute.executors import Executor
from sweeps.execute.jobs import Job, Outcome, record_failure
from sweeps.execute.state import Running, State
from sweeps.spec.resources import Caps, Devices, Resources, caps_of, resources_of
from sweeps.spec.spec import Sweep
from sweeps.store.history import fruitless
from sweeps.store.leases import CANCEL, Attempt, Watch, attempts, create, latest, now, place
from sweeps.store.outcomes import OF_THE_STORE, RETRIES, Ending, backoff, ending_of, is_transient, reason_of
from sweeps.store.store import Store

POLL_SECONDS = 0.5
LOOK_LOCAL, LOOK_REMOTE = 2.0, 10.0
"""Seconds between two looks at the store, on a disk and on an object store."""
FAILURES_BORNE = 20
"""Times in a row that the store may not answer, over a quarter of an hour."""
UNCLAIMED_SECONDS = 900.0
"""After which a job that nobody has begun is submitted again; begun twice, one of them is told so."""
UNSTARTED_BORNE = 3
"""Workers one after the other that could not begin, after which no more are started."""
CANCELLED = "it was cancelled"


def run(
    dag: Dag,
    store: Store,
    executor: Executor,
    cost: Cost,
    watch: Callable[[State], None],
    sweep: Sweep | None = None,
    begun: float | None = None,
) -> State:
    """Run every step of ``dag`` that has no result; return where things stand at the end.

    A failed step does not stop the others; its students are blocked. ``watch`` is called about twice a
    second. Interrupting leaves every finished result in the store: the same call goes on from there. This
    driver's hours count from ``begun`` on, by ``time.monotonic()``; by default from now on.

    Raises:
        InputError: if a step could never be placed, naming it.
    """
    store.remove(CANCEL)
    session = Session(store, executor.slots, begun)
    scheduler = Scheduler(dag, store, executor, cost, session, sweep)
    with session:
        return scheduler.run(watch)


class Scheduler:
    """One driver of a sweep."""

    def __init__(
        self,
        dag: Dag,
        store: Store,
        executor: Executor,
        cost: Cost,
        session: Session,
        sweep: Sweep | None = None,
    ) -> None:
        self.store, self.executor, self.session = store, executor, session
        self.look_seconds = LOOK_LOCAL if store.local else LOOK_REMOTE
        self.rules = sweep.resources if sweep else []
        found = set(store.results(step.id for step in dag.steps))
        self.state = State(dag=dag, cost=cost, found=found, slots=executor.slots)
        caps, devices = (caps_of(sweep), sweep.hardware) if sweep else (Caps(), Devices())
        steps = {step.id: step for step in dag.steps}
        self.ledger = Ledger(store, caps, devices, self.state.seconds, steps, session)
        self.watch = Watch(store)
        self.pardoned: dict[str, int] = {}
        """Attempts up to this, by step, are forgiven: it was given up after them, and is tried again."""
        self.suspected: set[str] = set()
        """Steps whose attempt looked dead at the last look; its executor may still say how it died."""
        self.refused: str | None = None
        """Which cap a job would have broken, when jobs were last looked for."""
        self.broken = False
        """Whether not even what runs may go on: a cap is broken, or the store takes nothing any more."""
        self.unrecorded: dict[str, list[Attempt]] = {}
        """Attempts by step that ended here and of which the store could not be told."""
        self.unstarted: set[str] = set()
        """Jobs one after the other whose workers could not begin."""
        self.outcomes: list[Outcome] = []
        """Still to be settled."""
        self.look_due = 0.0
        self.looked = time.monotonic()
        """When the last look began."""
        self.unseen: deque[float] = deque(maxlen=3)
        """Seconds from the beginning of a look to the end of the next: a slow store makes them long."""
        self._check_resources()
        self._read_history()

    def run(self, watch: Callable[[State], None]) -> State:
        """See :func:`run`."""
        state, failures = self.state, 0
        while True:
            try:
                self._look()
                if not state.halted:
                    self._submit()
                watch(state)
                self.session.tell(state)
                if state.idle and not state.halted and not self._wanted_again():
                    if not state.ready():
                        return state
                    state.halted = self.refused
                if state.halted and (self.broken or not state.running):
                    return state
                self.outcomes += self.executor.wait(POLL_SECONDS)
                while self.outcomes:
                    self._settle(self.outcomes[0])
                    self.outcomes.pop(0)
                failures = 0
            except Exception as error:
                if (ending := ending_of(error, self.store.path)) in OF_THE_STORE:
                    self._stop(OF_THE_STORE[ending].format(reason_of(error)))
                    return state
                failures += 1  # whatever was missed is found in the store, once that answers again
                if failures == FAILURES_BORNE or not is_transient(error):
                    raise
                time.sleep(backoff(failures))

    def _submit(self) -> None:
        if self.refused or not self.executor.room(Resources()):
            return  # what a cap refuses is asked for again when more is known
        waiting = deque(cohorts(self.state.ready(), self.executor.slots, self.state.seconds))
        while waiting:
            cohort = waiting.popleft()
            resources = self._resources(*cohort)
            if not self.executor.room(resources):
                return  # what is first in line is not overtaken, or it would wait for ever
            claims = [(step, number) for step in cohort if (number := self._claimable(step))]
            if not claims:
                continue
            steps, numbers = zip(*claims, strict=True)
            job = Job(steps=steps, numbers=numbers, resources=resources, driver=self.session.name)
            job = replace(job, bound=self.ledger.bound(job))
            if refused := self.ledger.reserve(job):
                taken = [step.id for step, number in claims if self.ledger.taken(step.id, number)]
                self.state.elsewhere.update(taken)
                self.refused = self.refused if taken else refused
                if len(cohort) > 1 and not taken:  # one of them alone may fit
                    waiting.extendleft((step,) for step in reversed(cohort))
                continue
            for step, number in claims:
                self.state.running[step.id] = Running(step, number, job)
            try:
                self.executor.submit(job)
            except OSError as error:  # no process can be started
                for outcome in job.all_ended(Ending.UNSTARTED, f"a worker could not be started: {error}"):
                    self._settle(outcome)

    def _claimable(self, step: Step) -> int | None:
        """The attempt that ``step`` may become now, unless it is done, cancelled or worked on elsewhere."""
        number = self.watch.claimable(step.id)
        if self.store.result(step.id):  # asked after: an attempt ends after its result is there
            self.state.finish(step.id)
            return None
        if CANCEL in self.store.names(step.id, "attempts"):
            self.state.fail(step.id, CANCELLED, cancelled=True)
            return None
        if number is None or self.ledger.taken(step.id, number):
            self.state.elsewhere.add(step.id)
            return None
        return number

    def _settle(self, outcome: Outcome) -> None:
        """Account for one ended attempt."""
        running = self.state.running.get(outcome.step)
        if running is None or running.number != outcome.number:
            return  # known already
        step, history = running.step, attempts(self.store, outcome.step)
        if outcome.ending is not Ending.HELD:
            self._record_end(outcome, running, {each.number: each for each in history}.get(outcome.number))
            history = attempts(self.store, step.id)
        self.ledger.observe(step.id, history)
        self.refused = None
        del self.state.running[step.id]
        self.suspected.discard(step.id)
        self.unstarted = self.unstarted | {running.job.name} if outcome.ending is Ending.UNSTARTED else set()
        if outcome.ending is Ending.DONE:
            self.state.finish(step.id)
        elif outcome.ending is Ending.HELD:
            self.state.elsewhere.add(step.id)
        elif outcome.ending is Ending.CANCELLED:
            if self.store.read(CANCEL) is not None:
                self.state.halted = CANCELLED
            elif CANCEL in self.store.names(step.id, "attempts"):
                self.state.fail(step.id, outcome.reason, cancelled=True)
        elif outcome.ending in OF_THE_STORE:
            self._stop(OF_THE_STORE[outcome.ending].format(outcome.reason))
        else:
            self._retry_or_give_up(step, outcome, history)

    def _stop(self, why: str) -> None:
        """Start nothing more, and end what runs."""
        self.state.halted, self.broken = why, True

    def _retry_or_give_up(self, step: Step, outcome: Outcome, history: list[Attempt]) -> None:
        if len(self.unstarted) >= UNSTARTED_BORNE:
            self._stop(f"no worker can be started: {outcome.reason}")
            return
        pardoned = self.pardoned.get(step.id, 0)
        since = [each for each in history if each.number > pardoned] + self.unrecorded.get(step.id, [])
        spent = max(1, fruitless(since, outcome.ending))
        if spent <= RETRIES.get(outcome.ending, 0):
            self.state.retried += 1
            wait = backoff(spent)
            self.state.resting[step.id] = time.monotonic() + wait
            self.state.troubles.append(f"{step.label}: {outcome.reason}; tried again in {wait:.0f} s")
            return
        tries = f" ({spent} times)" if spent > 1 else ""
        self.state.fail(step.id, outcome.reason + tries)
        record_failure(self.store, step, outcome, outcome.reason + tries)

    def _record_end(self, outcome: Outcome, running: Running, known: Attempt | None) -> None:
        """Say in the store how an attempt ended that could not say so itself, if it is ours and gone.

        Nobody else's end is ours to tell. One that never began is claimed for it: its number is spent, and
        its process, should it come late, finds it taken.
        """
        told: dict[str, Any] = {"ending": outcome.ending, "reason": outcome.reason, "ended": now()}
        try:
            if known is None:
                claim = {"job": running.job.name, "started": now(), "elapsed": 0.0}
                if not create(self.store, claim, *place(outcome.step, outcome.number)):
                    return
                told = claim | told
            elif known.ending or not outcome.gone or known.job != running.job.name:
                return
            else:
                heard = known.told.get("elapsed", 0.0)
                most = max(0.0, time.monotonic() - running.since - heard)
                told = known.told | told | {"unheard": min(known.unheard, most)}
            self.store.put_new(told, *place(outcome.step, outcome.number, "end"), durable=False)
        except Exception as error:
            if is_transient(error):
                raise  # it is settled once the store answers again
            self.unrecorded.setdefault(outcome.step, []).append(Attempt(outcome.number, told))

    def _look(self) -> None:
        """See what the store says of steps that are under way, here and elsewhere."""
        if time.monotonic() < self.look_due:
            return
        before, self.looked = self.looked, time.monotonic()
        self.look_due = self.looked + self.look_seconds
        self.refused = None
        for running in list(self.state.running.values()):
            self._look_at(running)
        for step in list(self.state.elsewhere):
            self._look_elsewhere(step)
        self._wanted_again()
        if self.store.read(CANCEL) is not None:
            self.state.halted = CANCELLED
        self.ledger.look()
        self.unseen.append(time.monotonic() - before)
        if why := self.ledger.broken(self._ahead):
            self._stop(why)

    @property
    def _ahead(self) -> float:
        """Seconds in which money may be spent unseen, as measured: one look that slept makes no rule."""
        return max(self.look_seconds, median(self.unseen))

    def _look_at(self, running: Running) -> None:
        step, number = running.step.id, running.number
        names = self.store.names(step, "attempts")
        last = latest(names)
        if end := self.store.read(*place(step, number, "end")) if last >= number else None:
            self._settle(Outcome(step, number, Ending(end["ending"]), end.get("reason") or ""))
        elif last > number:
            self._settle(Outcome(step, number, Ending.HELD, "another process has taken over", gone=False))
        elif last < number:
            if time.monotonic() - running.since > UNCLAIMED_SECONDS:
                self._give_up_on(running, "nobody began it")
        elif self.watch.claimable(step) is None:
            self.suspected.discard(step)
        elif step in self.suspected:
            self._give_up_on(running, "its process or node is silent")
        else:
            self.suspected.add(step)

    def _give_up_on(self, running: Running, why: str) -> None:
        self.executor.drop(running.job)
        for step, number in running.job.attempts.items():
            self._settle(Outcome(step, number, Ending.LOST, why, gone=False))

    def _wanted_again(self) -> bool:
        """Look at what is given up; whether others want any of it tried again, or have done it."""
        before = len(self.state.failed)
        for step in list(self.state.failed):
            self._look_at_failed(step)
        return len(self.state.failed) < before

    def _look_at_failed(self, step: str) -> None:
        """See whether a step that is given up here was wanted again, and maybe done, by others."""
        if self.store.result(step):
            self.state.take_up(step)
            self.state.finish(step)
        elif step in self.state.cancelled:
            if CANCEL not in self.store.names(step, "attempts"):
                self.state.take_up(step)
        elif (failure := self.store.read(step, "failure.json") or {}).get("pardoned"):
            self.pardoned[step] = failure["attempt"]
            self.unrecorded.pop(step, None)
            self.state.take_up(step)

    def _look_elsewhere(self, step: str) -> None:
        if self.store.result(step):
            self.state.finish(step)
            return
        failure = self.store.read(step, "failure.json") or {}
        if failure.get("attempt", 0) > self.pardoned.get(step, 0) and not failure.get("pardoned"):
            self.state.fail(step, failure["reason"])
        elif self.watch.claimable(step):
            self.state.elsewhere.discard(step)

    def _read_history(self) -> None:
        """Which steps were given up before, and are tried again."""
        files = self.store.contents()
        for step in self.state.dag.steps:
            names = files.get(step.id, set())
            if "failure.json" in names and step.id not in self.state.done:
                failure = self.store.read(step.id, "failure.json") or {}
                self.pardoned[step.id] = failure.get("attempt", 0)

    def _resources(self, *steps: Step) -> Resources:
        return resources_of(steps, self.rules, self.executor.usual)

    def _check_resources(self) -> None:
        checked: set[Resources] = set()
        for step in self.state.dag.steps:
            resources = self._resources(step)
            if step.id in self.state.done or resources in checked:
                continue
            if why := self.executor.misfit(resources):
                raise InputError(f"resources: {step.label} can never be placed on {resources}: {why}")
            checked.add(resources)
