"""Scheduler of a sweep: submits ready steps, releases their dependents, retries and records failures.

All decisions are based on the store, so that a driver may be killed and restarted, and several may share the
work. Executors report endings first, but the store decides, also if an executor is silent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from sweeps.dag.expand import Dag, Step
from sweeps.estimate.cost import Cost
from sweeps.execute.budget.budget import BudgetLedger
from sweeps.execute.drivers.drivers import Session
from sweeps.execute.drivers.other_drivers import OtherDrivers
from sweeps.execute.drivers.store_patience import StorePatience
from sweeps.execute.executors.cohort_placer import CohortPlacer
from sweeps.execute.executors.job_placement import Slot
from sweeps.execute.executors.local import Executor
from sweeps.execute.jobs import AttemptOutcome, Job, record_end, record_failure
from sweeps.execute.state import Running, State
from sweeps.execute.teacher_sharing import Cohort, group_into_cohorts
from sweeps.spec.resources import Caps, Devices, caps_of
from sweeps.spec.spec import Sweep
from sweeps.store import clock
from sweeps.store.clock import timestamp
from sweeps.store.history import count_failures
from sweeps.store.leases import CANCEL, Attempt, LeaseWatch, end_name, latest_number
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
        contents = store.contents()
        found = set(store.results((step.id for step in dag.steps), contents=contents))
        self.state = State(dag=dag, cost=cost, found=found, slots=executor.slots)
        self.state.dashboard = getattr(executor, "dashboard", None)
        caps, devices = (caps_of(sweep), sweep.hardware) if sweep else (Caps(), Devices())
        steps = {step.id: step for step in dag.steps}
        self.ledger = BudgetLedger(store, caps, devices, self.state.seconds, steps, session)
        self.history = self.ledger.history
        self.patience = StorePatience()
        self.watch = LeaseWatch(store)
        self.others = OtherDrivers(store, self.state, self.watch, self.history)
        self.suspected: set[str] = set()  # steps whose attempt seemed dead at the last look
        self.refused: str | None = None  # cap that a job would have exceeded when last submitting
        self.broken = False  # True if running jobs must stop too
        self.unrecorded: dict[str, list[Attempt]] = {}  # whose ending could not be recorded, by step
        self.unstarted: set[str] = set()  # jobs in a row whose workers could not start
        self.outcomes: list[AttemptOutcome] = []  # still to be processed
        self.placer = CohortPlacer(executor, sweep.resources if sweep else [], self.state.seconds)
        self.changed = True  # something has happened since no more jobs could be placed
        self.look_due = 0.0
        self.looked = self.answered = clock.monotonic()  # start of the last look, end of the last whole one
        self.unseen: deque[float] = deque(maxlen=3)  # seconds from the start of a look to the next one's end
        self.sharing: dict[str, tuple[object, ...]] = {}  # keys of what cohorts have in common, by step
        self.excused: dict[str, set[int]] = {}
        """Attempts by step that do not count for retries, as their nodes were at fault."""
        self.placer.check(step for step in dag.steps if step.id not in found)
        self.others.read_failures(contents)

    def run(self, watch: Callable[[State], None]) -> State:
        """Run the sweep; see :func:`run`."""
        state = self.state
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
                self._settle_all()
                self.patience.renew()
            except Exception as error:
                if (ending := ending_of(error, self.store.path)) in STORE_ENDINGS:
                    self._stop(STORE_ENDINGS[ending].format(error_line(error)))
                    return state
                if trouble := self.patience.wait(error):
                    state.troubles.append(trouble)
                self._discount_silence()

    def _discount_silence(self) -> None:
        """Count no silence of others since the store has last answered."""
        silent, self.answered = clock.monotonic() - self.answered, clock.monotonic()
        self.watch.discount(silent)
        self.session.drivers.discount(silent)

    def _submit(self) -> None:
        if self.refused or not self.placer.has_room(changed=self.changed):
            return  # retried after the next look
        ready, slots = self.state.ready(), self.executor.slots
        waiting = self._affordable(group_into_cohorts(ready, slots, self.state.seconds, self.sharing))
        while waiting and (chosen := self.placer.choose(waiting)):
            jobs, refused = self._reserve(chosen)
            for job in (each for each in jobs if each.name not in refused):
                self._start(replace(job, time_limit=self.ledger.time_limits.get(job.name)))
            for job in (each for each in jobs if each.name in refused):
                waiting.extendleft((step,) for step in reversed(self._refuse(job, refused[job.name])))
            waiting = self._affordable(waiting) if refused else waiting
        self.changed = False
        self._tell_waiting(self.placer.waiting(len(ready)))

    def _tell_waiting(self, told: str | None) -> None:
        """Tell once that steps wait for nodes that do not come."""
        if told and not self.state.waiting:
            self.state.troubles.append(told)
        self.state.waiting = told

    def _affordable(self, cohorts: Iterable[Cohort]) -> deque[Cohort]:
        """Return the cohorts that fit below the caps by themselves, as far as the store has been read.

        All, if the driver would stop as none does: others may have done some.
        """
        cohorts = list(cohorts)
        if not self.ledger.capped:
            return deque(cohorts)
        found, waiting = deque[Cohort](), deque(cohorts)
        self.ledger.check_caps()
        while waiting:
            cohort = waiting.popleft()
            job = Job(steps=cohort, numbers=(), resources=self.placer.demand(cohort).resources, name="")
            if not (why := self.ledger.refusal(job)):
                found.append(cohort)
            elif len(cohort) > 1:
                waiting.extendleft((step,) for step in reversed(cohort))
            else:
                self.refused = why
        final = not found and self.state.idle and not self.ledger.may_free
        return deque(cohorts) if final else found

    def _reserve(self, slots: Sequence[Slot]) -> tuple[list[Job], dict[str, str]]:
        """Return the jobs of ``slots``, and the caps that some would exceed; the others are reserved."""
        try:
            jobs = self._claim(slots)
            return jobs, self.ledger.reserve_all(jobs, self._ahead)
        except Exception:  # the store failed
            for slot in slots:
                self.placer.release(slot.job)
            raise

    def _claim(self, slots: Sequence[Slot]) -> list[Job]:
        """Return jobs of the members of cohorts that nobody else runs or has done."""
        steps = [step.id for slot in slots for step in slot.cohort]
        self.history.refresh(steps)
        # read after the attempts, as an attempt ends after its result is committed
        done = {step for step, _ in self.store.read_all((step, "result.json") for step in steps)}
        jobs = []
        for slot in slots:
            claims = [(step, number) for step in slot.cohort if (number := self._claimable(step, done))]
            if not claims:
                self.placer.release(slot.job)
                continue
            members, numbers = zip(*claims, strict=True)
            job = Job(steps=members, numbers=numbers, resources=slot.resources, name=slot.job)
            jobs.append(replace(job, driver=self.session.name, nodes=slot.nodes))
        return jobs

    def _claimable(self, step: Step, done: Container[str]) -> int | None:
        """Return the number of the next attempt, unless the step is done, canceled or run elsewhere."""
        number = self.watch.claimable(step.id, self.history)
        if step.id in done:
            self.state.finish(step.id)
            return None
        if CANCEL in self.history.names(step.id, "attempts"):
            self.state.fail(step.id, CANCELLED, cancelled=True)
            return None
        if number is None or self.ledger.taken(step.id, number):
            self.state.elsewhere.add(step.id)
            return None
        return number

    def _refuse(self, job: Job, why: str) -> Cohort:
        """Note why a job is not submitted; return its members, if single ones may fit below the caps."""
        self.placer.release(job.name)
        taken = [step for step, number in job.attempts.items() if self.ledger.taken(step, number)]
        self.state.elsewhere.update(taken)
        self.refused = self.refused if taken else why
        return () if taken or len(job.steps) == 1 else job.steps

    def _start(self, job: Job) -> None:
        for step, number in zip(job.steps, job.numbers, strict=True):
            self.state.running[step.id] = Running(step, number, job)
        try:
            self.executor.submit(job)
        except OSError as error:  # no process can be started
            self.placer.release(job.name)
            for outcome in job.all_ended(Ending.UNSTARTED, f"a worker could not be started: {error}"):
                self._settle(outcome)

    def _settle_all(self) -> None:
        """Process the outcomes that executors have reported."""
        self.history.refresh(each.step for each in self.outcomes if each.step in self.state.running)
        while self.outcomes:
            self._settle(self.outcomes[0])
            self.outcomes.pop(0)

    def _settle(self, outcome: AttemptOutcome) -> None:
        """Process the outcome of one attempt."""
        running = self.state.running.get(outcome.step)
        if running is None or running.number != outcome.number:
            return  # processed already
        outcome = self.ledger.explained(outcome, running.job)
        step, history = running.step, self.history.of(outcome.step)
        known = {each.number: each for each in history}.get(outcome.number)
        if outcome.ending is not Ending.HELD and not (known and known.ending):
            self._record_end(outcome, running)
            self.history.refresh([step.id])
            history = self.history.of(step.id)
        self.ledger.observe(step.id, history)
        self.changed, self.refused = True, None
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
        elif not self._retry_elsewhere(outcome, running, claimed=known is not None):
            self._retry_or_give_up(step, outcome, history)

    def _stop(self, why: str) -> None:
        """Submit no more jobs, and end running ones."""
        self.state.halted, self.broken = why, True

    def _retry_elsewhere(self, outcome: AttemptOutcome, running: Running, *, claimed: bool) -> bool:
        """Try a step again, without counting it, if the fault is its node's and there are others."""
        if (told := self.placer.avoid_nodes(outcome, running.job, claimed=claimed)) is None:
            return False
        self.excused.setdefault(outcome.step, set()).add(outcome.number)
        self.unstarted = set()
        self.state.retried += 1
        self.state.troubles += [f"{told}; what was to run there runs elsewhere"] if told else []
        return True

    def _retry_or_give_up(self, step: Step, outcome: AttemptOutcome, history: list[Attempt]) -> None:
        if len(self.unstarted) >= MAX_UNSTARTED_WORKERS:
            self._stop(f"no worker can be started: {outcome.reason}")
            return
        baseline = self.others.retry_baseline.get(step.id, 0)
        history = [*history, *self.unrecorded.get(step.id, [])]
        excused = self.excused.get(step.id, ())
        since = [each for each in history if each.number > baseline and each.number not in excused]
        spent = max(1, count_failures(since, outcome.ending))
        if spent <= RETRIES.get(outcome.ending, 0):
            self.state.retried += 1
            wait = backoff_seconds(spent)
            self.state.resting[step.id] = clock.monotonic() + wait
            self.state.troubles.append(f"{step.label}: {outcome.reason}; tried again in {wait:.0f} s")
            return
        tries = f" ({spent} times)" if spent > 1 else ""
        self.state.fail(step.id, outcome.reason + tries)
        record_failure(self.store, step, outcome, outcome.reason + tries)

    def _record_end(self, outcome: AttemptOutcome, running: Running) -> None:
        """Record the ending of an attempt that could not record it, if it is ours and has exited."""
        try:
            record_end(self.store, running.job, outcome, clock.monotonic() - running.since)
        except Exception as error:
            if is_transient(error):
                raise  # processed again once the store answers
            told = {"ending": outcome.ending, "reason": outcome.reason, "ended": timestamp()}
            self.unrecorded.setdefault(outcome.step, []).append(Attempt(outcome.number, told))

    def _look(self) -> None:
        """Read the state of running steps, here and elsewhere, from the store."""
        if clock.monotonic() < self.look_due:
            return
        before, self.looked = self.looked, clock.monotonic()
        self.look_due = self.looked + self.look_seconds
        self.refused, self.changed = None, True
        self.ledger.look([*self.state.running, *self.state.elsewhere])
        for running in list(self.state.running.values()):
            self._look_at(running)
        self.others.look()
        self._wanted_again()
        if self.store.read(CANCEL) is not None:
            self.state.halted = CANCELLED
        self.answered = clock.monotonic()
        self.unseen.append(self.answered - before)
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
        names = self.history.names(step, "attempts")
        last = latest_number(names)
        if end := self._end(step, number) if end_name(number) in names else None:
            self._settle(AttemptOutcome(step, number, Ending(end["ending"]), end.get("reason") or ""))
        elif last > number:
            self._settle(
                AttemptOutcome(step, number, Ending.HELD, "another process has taken over", gone=False)
            )
        elif last < number:
            if clock.monotonic() - running.since > UNCLAIMED_SECONDS:
                where = f"{running.job.resources} within {UNCLAIMED_SECONDS / 60:.0f} minutes"
                self._give_up_on(running, f"no worker started it on {where}")
        elif self.watch.claimable(step, self.history) is None:
            self.suspected.discard(step)
        elif step in self.suspected:
            self._give_up_on(running, "its process or node is silent")
        else:
            self.suspected.add(step)

    def _end(self, step: str, number: int) -> Mapping[str, Any] | None:
        """Return the record of an attempt with its end; None if it has not ended."""
        return next(
            (each.told for each in self.history.of(step) if each.number == number and each.ending), None
        )

    def _give_up_on(self, running: Running, why: str) -> None:
        self.executor.drop(running.job)
        for step, number in running.job.attempts.items():
            self._settle(AttemptOutcome(step, number, Ending.LOST, why, gone=False))

    def _wanted_again(self) -> bool:
        """Check if other drivers want failed steps tried again, or have finished them; True if so."""
        taken_up = self.others.take_up_failed()
        for step in taken_up:
            self.unrecorded.pop(step, None)
        return bool(taken_up)
