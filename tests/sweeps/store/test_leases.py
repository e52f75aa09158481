"""Attempts: claimed once, alive while they beat, fenced off by the next; real processes, stopped and killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from botocore.exceptions import EndpointConnectionError

from scaling.errors import InputError
from sweeps.dag.expand import Dag
from sweeps.execute.drivers.drivers import BEATS_LOCAL, wall_seconds
from sweeps.execute.executors.fork_server import ForkServer
from sweeps.execute.jobs import TRY_LATER, AttemptOutcome, Job, main
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources
from sweeps.spec.spec import parse_sweep
from sweeps.store import leases
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.history import count_failures
from sweeps.store.leases import Lease, LeaseWatch, attempts, hold_leases, latest_number
from sweeps.store.outcomes import Ending, Stopped, ending_of, ending_of_process, error_line
from sweeps.store.processes import process_start_ticks, this_process
from sweeps.store.store import Store

pytestmark = pytest.mark.alone

ELSEWHERE = {"machine": "another", "pid": 1, "since": 1, "host": "there", "patience": 0.3}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.create()
    return store


@pytest.fixture
def dag(small_spec: dict[str, Any], store: Store, own_cache: Path) -> Dag:
    sweep = parse_sweep(small_spec)
    dag = dag_of(sweep)
    record_sweep(store, sweep, dag)
    return dag


def fork_server(cache: Path) -> ForkServer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTLAW_LEASE_SECONDS", "4")  # beats often
        patch.setenv("DISTLAW_CACHE", str(cache))
        return ForkServer()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = fork_server(tmp_path_factory.mktemp("cache"))
    yield server
    server.close()


@pytest.fixture
def forker(shared_server: ForkServer) -> ForkServer:
    """A fork server of the module, which outlives its jobs and has none."""
    assert shared_server.process.poll() is None
    assert shared_server.job is None
    return shared_server


def test_of_many_claims_one_holds(store: Store) -> None:
    barrier, won = threading.Barrier(8), []

    def claim() -> None:
        barrier.wait()
        if Lease.claim(store, "a", 1):
            won.append(1)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]


def test_a_silent_holder_is_taken_over_after_its_patience_by_our_own_clock(store: Store) -> None:
    """Whatever time the other machine believes it is."""
    store.write(ELSEWHERE | {"started": "2999-01-01"}, "a", "attempts", "0001.json")
    watch = LeaseWatch(store)
    started = time.monotonic()
    while (number := watch.claimable("a")) is None:
        time.sleep(0.01)
    assert number == 2
    assert 0.3 <= time.monotonic() - started < 1.0


def test_a_beating_holder_is_left_alone_even_with_its_clock_an_hour_off(store: Store) -> None:
    store.write(ELSEWHERE, "a", "attempts", "0001.json")
    beat = Path(store.path, "a", "attempts", "0001.beat.json")
    watch, until = LeaseWatch(store), time.monotonic() + 1.0
    count = 0
    while time.monotonic() < until:
        count += 1
        beat.write_text(f'{{"beat": {count}}}')
        an_hour_ago = time.time() - 3600
        os.utime(beat, (an_hour_ago, an_hour_ago))
        assert watch.claimable("a") is None
        time.sleep(0.05)
    assert watch.wait("a") is None


def test_a_process_known_to_be_gone_is_taken_over_at_once(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = {
        **this_process(),
        "pid": child.pid,
        "since": process_start_ticks(child.pid),
        "patience": 999,
    }
    store.write(holder, "a", "attempts", "0001.json")
    assert LeaseWatch(store).claimable("a") is None
    child.kill()
    child.wait()
    assert child.stdin
    child.stdin.close()
    assert LeaseWatch(store).claimable("a") == 2


def test_an_ended_attempt_frees_its_step(store: Store) -> None:
    lease = Lease.claim(store, "a", 1)
    assert lease
    assert LeaseWatch(store).claimable("a") is None
    lease.end(Ending.FAILED, "it broke")
    lease.end(Ending.DONE)  # the first word counts
    assert LeaseWatch(store).claimable("a") == 2
    (attempt,) = attempts(store, "a")
    assert (attempt.ending, attempt.told["reason"]) == (Ending.FAILED, "it broke")


def test_whoever_was_taken_over_writes_nothing_more(store: Store) -> None:
    lease = Lease.claim(store, "a", 1)
    assert lease
    checkpoints = Checkpoints(store, "a", lease)
    checkpoints.save(10, {"w": torch.ones(2)})
    other = Lease.claim(store, "a", 2)
    assert other
    Checkpoints(store, "a", other).save(10, {"w": torch.ones(2)})
    with pytest.raises(Stopped, match="attempt 2 has taken over from attempt 1"):
        checkpoints.save(20, {"w": torch.zeros(2)})
    assert store.names("a", "checkpoints") == ["0000000010-0001", "0000000010-0002"]
    lease.beat(1)
    with pytest.raises(Stopped) as stopped:
        lease.look()
    assert stopped.value.ending is Ending.HELD


def test_leases_beat_by_themselves_and_end_with_their_block(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_TIMEOUT", 0.4)
    with pytest.raises(ZeroDivisionError), hold_leases(store, ["a", "b"]) as held:
        assert set(held) == {"a", "b"}
        watch, until = LeaseWatch(store), time.monotonic() + 1.2
        while time.monotonic() < until:
            assert watch.claimable("a") is None
            time.sleep(0.05)
        held["b"].conclude(None)
        1 / 0  # noqa: B018
    assert [each.ending for step in "ab" for each in attempts(store, step)] == [Ending.FAILED, Ending.DONE]


def test_a_store_that_fails_for_a_while_does_not_stop_the_beats(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease.claim(store, "a", 1)
    assert lease

    def away(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", away)
        lease.beat(1)
    assert lease.lost is None
    lease.beat(2)
    assert attempts(store, "a")[0].told["beat"] == 2


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (InputError("no such file"), Ending.FAILED),
        (ValueError("bad"), Ending.FAILED),
        (MemoryError(), Ending.MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), Ending.MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), Ending.FULL),
        (OSError(errno.ESTALE, "Stale file handle"), Ending.LOST),
        (ConnectionResetError("by peer"), Ending.LOST),
        (TimeoutError("slow"), Ending.LOST),
        (EndpointConnectionError(endpoint_url="http://store"), Ending.LOST),
        (KeyboardInterrupt(), Ending.LOST),
        (Stopped(Ending.CANCELLED, "asked"), Ending.CANCELLED),
    ],
)
def test_errors_are_told_apart(error: BaseException, ending: Ending) -> None:
    assert ending_of(error) is ending
    assert "\n" not in error_line(error)


def test_exits_are_told_apart() -> None:
    assert ending_of_process(-signal.SIGKILL)[0] is Ending.LOST
    assert ending_of_process(-signal.SIGKILL, oom_kills=1)[0] is Ending.MEMORY
    assert ending_of_process(-signal.SIGTERM)[0] is Ending.LOST
    assert ending_of_process(-signal.SIGSEGV) == (Ending.CRASHED, "its process died of SIGSEGV")
    assert ending_of_process(3)[0] is Ending.CRASHED


def test_lost_attempts_that_got_further_are_not_held_against_a_step(store: Store) -> None:
    for number, done in enumerate([10, 20, 20, 15, 40], start=1):
        lease = Lease.claim(store, "a", number)
        assert lease
        lease.progress = {"steps_done": done}
        lease.end(Ending.LOST)
    assert count_failures(attempts(store, "a"), Ending.LOST) == 2
    assert count_failures(attempts(store, "a"), Ending.CRASHED) == 0


def job(dag: Dag, number: int = 1) -> Job:
    return Job(steps=dag.steps[:1], numbers=(number,), resources=Resources())


def test_every_job_has_a_process_of_its_own_with_its_own_log(
    dag: Dag, store: Store, forker: ForkServer
) -> None:
    step = dag.steps[0].id
    assert [outcome.ending for outcome in forker.run(store, job(dag))] == [Ending.DONE]
    assert [outcome.ending for outcome in forker.run(store, job(dag, 2))] == [Ending.DONE]  # already there
    first = attempts(store, step)[0].told
    assert first["log"] == f"{step}/attempts/0001.log"
    log = (store.read_bytes(*first["log"].split("/")) or b"").decode()
    assert dag.steps[0].label in log
    assert len(attempts(store, step)) == 1


def test_an_attempt_counts_to_the_end_of_its_process(
    dag: Dag, store: Store, forker: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started it tells how long it lived; until then a little more than it said itself counts."""
    step = dag.steps[0].id
    forker.start(store, job(dag))
    while not forker.pids:
        forker.outcomes()
    first, (pid,) = time.monotonic(), forker.pids
    started, last = process_start_ticks(pid), first
    while process_start_ticks(pid) == started:
        last = time.monotonic()
        time.sleep(0.005)
    ended = attempts(store, step)[0]
    assert "lived" not in ended.told
    assert ended.seconds == ended.told["elapsed"] + leases.LEAVING_SECONDS
    found = []
    while forker.job:
        found += forker.outcomes()
    assert [outcome.ending for outcome in found] == [Ending.DONE]
    told = attempts(store, step)[0]
    assert told.ending is Ending.DONE
    assert told.seconds == told.told["lived"] >= max(last - first, told.told["elapsed"])


@pytest.mark.parametrize(
    ("number", "ending"),
    [(signal.SIGKILL, Ending.LOST), (signal.SIGSEGV, Ending.CRASHED), (signal.SIGTERM, Ending.LOST)],
)
def test_a_process_that_dies_is_reported_and_the_next_goes_on(
    dag: Dag, store: Store, forker: ForkServer, number: signal.Signals, ending: Ending
) -> None:
    """At once: nobody has to wait for its lease to run out."""
    step = dag.steps[0].id
    forker.start(store, job(dag))
    while not (forker.pids and "steps_done" in _told(store, step)):
        if select_readable(forker):
            assert not forker.outcomes()
    forker.stop(number)
    found = []
    while forker.job:
        found += forker.outcomes()
    assert [outcome.ending for outcome in found] == [ending]
    assert LeaseWatch(store).claimable(step) == 2
    assert [outcome.ending for outcome in forker.run(store, job(dag, 2))] == [Ending.DONE]


def test_children_die_with_their_parents(dag: Dag, store: Store, tmp_path: Path) -> None:
    forker = fork_server(tmp_path / "cache")
    forker.start(store, job(dag))
    while not forker.pids:
        forker.outcomes()
    (child,) = forker.pids
    forker.process.kill()
    while forker.job:
        forker.outcomes()
    deadline = time.monotonic() + 5
    while process_start_ticks(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process_start_ticks(child) is None
    forker.close()


def test_a_process_that_slept_through_its_lease_stops_without_harm(
    dag: Dag, store: Store, forker: ForkServer, tmp_path: Path
) -> None:
    """SIGSTOP, another takes over and finishes, SIGCONT: the first finds out, and the result is untouched."""
    step = dag.steps[0].id
    forker.start(store, job(dag))
    while not (forker.pids and "steps_done" in _told(store, step)):
        if select_readable(forker):
            forker.outcomes()
    forker.stop(signal.SIGSTOP)
    second = fork_server(tmp_path / "cache")
    try:
        assert [outcome.ending for outcome in second.run(store, job(dag, 2))] == [Ending.DONE]
    finally:
        second.close()
    before = {path: path.read_bytes() for path in _files(store, step) if "attempts" not in path.parts}
    forker.stop(signal.SIGCONT)
    found = []
    while forker.job:
        found += forker.outcomes()
    assert [outcome.ending for outcome in found] == [Ending.HELD]
    after = {path: path.read_bytes() for path in _files(store, step) if "attempts" not in path.parts}
    assert after == before
    assert (store.result(step) or {})["model"] == "model-0002"


def test_steps_run_by_hand_as_a_batch_system_would(
    dag: Dag, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    step, student = dag.steps[0], next(step for step in dag.steps if step.teacher)
    assert main([store.root, step.id[:8]]) == 0
    assert main([store.root, step.id[:8]]) == 0
    assert store.result(step.id)
    assert main([store.root, student.id]) == 2
    assert "needs" in capfd.readouterr().err
    assert main([]) == main([store.root, "zz"]) == 2
    assert Lease.claim(store, dag.steps[1].id, 1)
    leases_alive = leases.Lease(store, dag.steps[1].id, 1)
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(0.05):
            count += 1
            leases_alive.beat(count)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert main([store.root, dag.steps[1].id]) == TRY_LATER
    finally:
        over.set()
        thread.join()


def _told(store: Store, step: str) -> dict[str, Any]:
    found = attempts(store, step)
    return found[-1].told if found else {}


def _files(store: Store, step: str) -> list[Path]:
    return [path for path in Path(store.path, step).rglob("*") if path.is_file()]


def select_readable(forker: ForkServer) -> bool:
    import select

    return bool(select.select([forker], [], [], 0.02)[0])


def test_the_last_number_is_that_of_a_claim() -> None:
    assert latest_number(["0001.json", "0001.beat.json", "0001.end.json", "0002.log", "cancel.json"]) == 1
    assert latest_number([]) == 0


def test_whoever_never_wakes_up_is_ended_once_others_have_taken_over(
    dag: Dag, store: Store, forker: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process would hold its core for ever; the one that waits for it sees to that."""
    monkeypatch.setattr("sweeps.execute.executors.fork_server.LOOK_SECONDS", 0.2)
    step = dag.steps[0].id
    found: list[AttemptOutcome] = []
    waiting = threading.Thread(target=lambda: found.extend(forker.run(store, job(dag))))
    waiting.start()
    while "steps_done" not in _told(store, step):
        time.sleep(0.05)
    forker.stop(signal.SIGSTOP)
    waiting.join(1.0)
    assert waiting.is_alive()
    assert Lease.claim(store, step, 2)
    waiting.join(30)
    assert not waiting.is_alive()
    assert [outcome.ending for outcome in found] == [Ending.LOST]


def test_what_a_killed_process_did_is_counted_to_the_beat_that_it_did_not_give(store: Store) -> None:
    """A driver and an attempt that are killed every few seconds have worked none the less."""
    code = (
        "import sys, time\n"
        "from sweeps.execute.drivers.drivers import Session, process_began\n"
        "from sweeps.store.leases import hold_leases\n"
        "from sweeps.store.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "session = Session(store, 1, process_began())\n"
        "with session, hold_leases(store, ['a'], {'a': int(sys.argv[2])}):\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(60)\n"
    )
    worked = drove = 0.0
    for number in (1, 2):
        began, command = time.monotonic(), [sys.executable, "-c", code, store.root, str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout
            child.stdout.readline()
            started = time.monotonic()
            time.sleep(2.0)
            child.kill()
            child.wait()
            worked += time.monotonic() - started
            drove += time.monotonic() - began
    told = [each.seconds for each in attempts(store, "a")]
    assert worked <= sum(told) <= 2 * worked + 2.0
    assert drove - 0.1 <= wall_seconds(store) <= drove + 2 * BEATS_LOCAL


def test_a_watcher_that_slept_takes_nobody_for_dead(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped, or waits for the store, just after it has read the last beat that it will compare."""
    store.write(ELSEWHERE, "a", "attempts", "0001.json")
    watch, read, slow = LeaseWatch(store), store.read_bytes, [0.0]

    def read_slowly(*place: str) -> bytes | None:
        found = read(*place)
        time.sleep(slow[0] if "beat" in place[-1] else 0.0)
        return found

    monkeypatch.setattr(store, "read_bytes", read_slowly)
    assert watch.claimable("a") is None
    slow[0] = 0.5
    assert watch.claimable("a") is None


def test_an_attempt_counts_from_the_start_of_its_process(store: Store) -> None:
    lease = Lease.claim(store, "a", 1, begun=time.monotonic() - 7.0)
    assert lease
    assert attempts(store, "a")[0].seconds >= 7.0
    lease.end(Ending.DONE)
    assert 7.0 <= attempts(store, "a")[0].seconds < 60.0
