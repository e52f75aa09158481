"""Scheduler of a sweep: submits ready steps, releases their dependents, retries and records failures.

All decisions are based on the store, so that a driver may be killed and restarted, and several may share the
work. Executors report endings first, but the store decides, also if an executor is silent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from scaling.errors import InputError
from sweeps.dag.expand import Dag, Step
from sweeps.estimate.cost import Cost
from sweeps.execute.budget import BudgetLedger
from sweeps.execute.drivers import Session
from sweeps.execute.executors.local import Executor
from sweeps.execute.jobs import AttemptOutcome, Job, record_end, record_failure
from sweeps.execute.state import Running, State
from sweeps.execute.teacher_sharing import group_into_cohorts
from sweeps.spec.resources import Caps, Devices, Resources, caps_of, resources_of
from sweeps.spec.spec import Sweep
from sweeps.store.history import count_failures
from sweeps.store.leases import (
    CANCEL,
    Attempt,
    LeaseWatch,
    attempt_path,
    attempts,
    latest_number,
    timestamp,
)
from sweeps.store.outcomes import (
    RETRIES,
    STORE_ENDINGS,
    Ending,
    backoff_seconds,
    ending_of,
    error_line,
    is_transient,
)
from sweeps.store.store import Store

POLL_SECONDS = 0.5
LOOK_LOCAL, LOOK_REMOTE = 2.0, 10.0
"""Seconds between two reads of the store, on a disk and on an object store."""
MAX_STORE_FAILURES = 20
"""Failures of the store in a row that are tolerated, over a quarter of an hour."""
UNCLAIMED_SECONDS = 900.0
"""Seconds after which a job that no worker has started is submitted again; a duplicate stops itself."""
MAX_UNSTARTED_WORKERS = 3
"""Number of workers in a row that could not start, after which no more are started."""
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
    """Run every step of ``dag`` without a result, and return the final state.

    A failed step does not stop the others; its dependents are blocked. ``watch`` is called about twice a
    second. If interrupted, finished results are kept, and the same call continues. The driver's time counts
    from ``begun``, by ``time.monotonic()``, by default from now.

    Raises:
        InputError: with the step, if the executor never has its resources.
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
        self.ledger = BudgetLedger(store, caps, devices, self.state.seconds, steps, session)
        self.watch = LeaseWatch(store)
        self.retry_baseline: dict[str, int] = {}
        """Last attempt, by step, that does not count for retries, as it was given up before."""
        self.suspected: set[str] = set()
        """Steps whose attempt seemed dead at the last look; the executor may still report its ending."""
        self.refused: str | None = None
        """Cap that a job would have exceeded at the last attempt to submit."""
        self.broken = False
        """True if running jobs must stop too: a cap is exceeded, or the store is not writable."""
        self.unrecorded: dict[str, list[Attempt]] = {}
        """Attempts by step whose ending could not be recorded in the store."""
        self.unstarted: set[str] = set()
        """Jobs in a row whose workers could not start."""
        self.outcomes: list[AttemptOutcome] = []
        """Outcomes still to be processed."""
        self.look_due = 0.0
        self.looked = time.monotonic()
        """Start of the last look."""
        self.unseen: deque[float] = deque(maxlen=3)
        """Seconds from the start of a look to the end of the next, longer with a slow store."""
        self._check_resources()
        self._read_history()

    def run(self, watch: Callable[[State], None]) -> State:
        """Run the sweep; see :func:`run`."""
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
                    state.halted = None if self.ledger.may_free else self.refused
                if state.halted and (self.broken or not state.running):
                    return state
                self.outcomes += self.executor.wait(POLL_SECONDS)
                while self.outcomes:
                    self._settle(self.outcomes[0])
                    self.outcomes.pop(0)
                failures = 0
            except Exception as error:
                if (ending := ending_of(error, self.store.path)) in STORE_ENDINGS:
                    self._stop(STORE_ENDINGS[ending].format(error_line(error)))
                    return state
                failures += 1  # missed endings are found in the store once it answers again
                if failures == MAX_STORE_FAILURES or not is_transient(error):
                    raise
                time.sleep(backoff_seconds(failures))

    def _submit(self) -> None:
        if self.refused or not self.executor.room(Resources()):
            return  # retried after the next look
        waiting = deque(group_into_cohorts(self.state.ready(), self.executor.slots, self.state.seconds))
        while waiting:
            cohort = waiting.popleft()
            resources = self._resources(*cohort)
            if not self.executor.room(resources):
                return  # the first cohort is not overtaken, so that it does not starve
            claims = [(step, number) for step in cohort if (number := self._claimable(step))]
            if not claims:
                continue
            steps, numbers = zip(*claims, strict=True)
            job = Job(steps=steps, numbers=numbers, resources=resources, driver=self.session.name)
            if refused := self.ledger.reserve(job, self._ahead):
                taken = [step.id for step, number in claims if self.ledger.taken(step.id, number)]
                self.state.elsewhere.update(taken)
                self.refused = self.refused if taken else refused
                if len(cohort) > 1 and not taken:  # a single member may fit
                    waiting.extendleft((step,) for step in reversed(cohort))
                continue
            job = replace(job, time_limit=self.ledger.time_limits.get(job.name))
            for step, number in claims:
                self.state.running[step.id] = Running(step, number, job)
            try:
                self.executor.submit(job)
            except OSError as error:  # no process can be started
                for outcome in job.all_ended(Ending.UNSTARTED, f"a worker could not be started: {error}"):
                    self._settle(outcome)

    def _claimable(self, step: Step) -> int | None:
        """Return the number of the next attempt, unless the step is done, canceled or run elsewhere."""
        number = self.watch.claimable(step.id)
        if self.store.result(
            step.id
        ):  # read after the claim, as an attempt ends after its result is committed
            self.state.finish(step.id)
            return None
        if CANCEL in self.store.names(step.id, "attempts"):
            self.state.fail(step.id, CANCELLED, cancelled=True)
            return None
        if number is None or self.ledger.taken(step.id, number):
            self.state.elsewhere.add(step.id)
            return None
        return number

    def _settle(self, outcome: AttemptOutcome) -> None:
        """Process the outcome of one attempt."""
        running = self.state.running.get(outcome.step)
        if running is None or running.number != outcome.number:
            return  # processed already
        outcome = self.ledger.explained(outcome, running.job)
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
        elif outcome.ending in STORE_ENDINGS:
            self._stop(STORE_ENDINGS[outcome.ending].format(outcome.reason))
        else:
            self._retry_or_give_up(step, outcome, history)

    def _stop(self, why: str) -> None:
        """Submit no more jobs, and end running ones."""
        self.state.halted, self.broken = why, True

    def _retry_or_give_up(self, step: Step, outcome: AttemptOutcome, history: list[Attempt]) -> None:
        if len(self.unstarted) >= MAX_UNSTARTED_WORKERS:
            self._stop(f"no worker can be started: {outcome.reason}")
            return
        baseline = self.retry_baseline.get(step.id, 0)
        since = [each for each in history if each.number > baseline] + self.unrecorded.get(step.id, [])
        spent = max(1, count_failures(since, outcome.ending))
        if spent <= RETRIES.get(outcome.ending, 0):
            self.state.retried += 1
            wait = backoff_seconds(spent)
            self.state.resting[step.id] = time.monotonic() + wait
            self.state.troubles.append(f"{step.label}: {outcome.reason}; tried again in {wait:.0f} s")
            return
        tries = f" ({spent} times)" if spent > 1 else ""
        self.state.fail(step.id, outcome.reason + tries)
        record_failure(self.store, step, outcome, outcome.reason + tries)

    def _record_end(self, outcome: AttemptOutcome, running: Running, known: Attempt | None) -> None:
        """Record the ending of an attempt that could not record it, if it is ours and has exited."""
        if known and known.ending:
            return
        try:
            record_end(self.store, running.job, outcome, time.monotonic() - running.since)
        except Exception as error:
            if is_transient(error):
                raise  # processed again once the store answers
            told = {"ending": outcome.ending, "reason": outcome.reason, "ended": timestamp()}
            self.unrecorded.setdefault(outcome.step, []).append(Attempt(outcome.number, told))

    def _look(self) -> None:
        """Read the state of running steps, here and elsewhere, from the store."""
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
        self.ledger.extend(self.state.running.values(), self._ahead)
        if why := self.ledger.broken(self._ahead):
            self._stop(why)

    @property
    def _ahead(self) -> float:
        """Seconds in which cost may be spent unseen: the median of measured looks, so that one slow look does
        not count."""
        return max(self.look_seconds, median(self.unseen or [0.0]))

    def _look_at(self, running: Running) -> None:
        step, number = running.step.id, running.number
        names = self.store.names(step, "attempts")
        last = latest_number(names)
        if end := self.store.read(*attempt_path(step, number, "end")) if last >= number else None:
            self._settle(AttemptOutcome(step, number, Ending(end["ending"]), end.get("reason") or ""))
        elif last > number:
            self._settle(
                AttemptOutcome(step, number, Ending.HELD, "another process has taken over", gone=False)
            )
        elif last < number:
            if time.monotonic() - running.since > UNCLAIMED_SECONDS:
                self._give_up_on(running, "no worker started it")
        elif self.watch.claimable(step) is None:
            self.suspected.discard(step)
        elif step in self.suspected:
            self._give_up_on(running, "its process or node is silent")
        else:
            self.suspected.add(step)

    def _give_up_on(self, running: Running, why: str) -> None:
        self.executor.drop(running.job)
        for step, number in running.job.attempts.items():
            self._settle(AttemptOutcome(step, number, Ending.LOST, why, gone=False))

    def _wanted_again(self) -> bool:
        """Check if other drivers want failed steps tried again, or have finished them; True if so."""
        before = len(self.state.failed)
        for step in list(self.state.failed):
            self._look_at_failed(step)
        return len(self.state.failed) < before

    def _look_at_failed(self, step: str) -> None:
        """Check if another driver wants a failed step tried again, or has finished it."""
        if self.store.result(step):
            self.state.take_up(step)
            self.state.finish(step)
        elif step in self.state.cancelled:
            if CANCEL not in self.store.names(step, "attempts"):
                self.state.take_up(step)
        elif (failure := self.store.read(step, "failure.json") or {}).get("pardoned"):
            self.retry_baseline[step] = failure["attempt"]
            self.unrecorded.pop(step, None)
            self.state.take_up(step)

    def _look_elsewhere(self, step: str) -> None:
        if self.store.result(step):
            self.state.finish(step)
            return
        failure = self.store.read(step, "failure.json") or {}
        if failure.get("attempt", 0) > self.retry_baseline.get(step, 0) and not failure.get("pardoned"):
            self.state.fail(step, failure["reason"])
        elif self.watch.claimable(step):
            self.state.elsewhere.discard(step)

    def _read_history(self) -> None:
        """Read which steps were given up before, and are tried again."""
        files = self.store.contents()
        for step in self.state.dag.steps:
            names = files.get(step.id, set())
            if "failure.json" in names and step.id not in self.state.done:
                failure = self.store.read(step.id, "failure.json") or {}
                self.retry_baseline[step.id] = failure.get("attempt", 0)

    def _resources(self, *steps: Step) -> Resources:
        return resources_of(steps, self.rules, self.executor.usual)

    def _check_resources(self) -> None:
        checked: set[Resources] = set()
        for step in self.state.dag.steps:
            resources = self._resources(step)
            if step.id in self.state.done or resources in checked:
                continue
            if why := self.executor.misfit(resources):
                raise InputError(f"resources: {step.label} cannot run on {resources}: {why}")
            checked.add(resources)
