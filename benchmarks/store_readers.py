"""Seconds and memory of reading a store of many steps: ``python benchmarks/store_readers.py [STEPS]``.

Writes a store of about so many steps (default 100,000), nine tenths of them done, with the content that
sweeps write, and reads it as ``distlaw sweep status``, ``results`` and timelines do, each in a process of its
own:

- ``cold``: with an empty cache of this machine; the files are in the system's memory, as just written;
- ``again``: with the cache of the first reading, and nothing changed;
- ``100 ended``: after a hundred more steps have ended.

Then the same store as a bucket that takes 40 ms a request, whose requests are counted. Needs 20 KB and five
files a step under ``$TMPDIR``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

SEEDS = 100
"""Seeds of each run of the spec."""
RUN_SECONDS, AT_ONCE = 600.0, 50
"""Seconds that each run pretends to take, and runs that pretend to run together."""
ENDED = 100
"""Steps that end between two readings."""
LATENCY = 0.04
"""Seconds of a request to the bucket."""
PAGE = 1000
"""Names in one answer of the bucket."""
VIEWS = ("status", "results", "timeline")


def spec_of(place: Path, steps: int) -> dict[str, Any]:
    """Return a spec of about so many steps: nine distillations to one supervised run."""
    text = place / "text.txt"
    text.write_text("\n\n".join(f"paragraph {n} of some text about number {n % 97}" for n in range(3000)))
    tokens = [f"{n}k" for n in range(32, 96)]
    teachers = max(1, round(steps / SEEDS / 20))
    seeds = list(range(SEEDS))
    return {
        "name": "large",
        "corpus": {"source": str(text), "vocab": 300, "context": 32, "heldout": 0.1},
        "training": {"batch_tokens": 64, "warmup_tokens": 1600},
        "supervised": [{"params": ["3k"], "tokens": tokens[: max(1, steps // 2000)], "seeds": seeds}],
        "teachers": [{"params": ["13k"], "tokens": [f"{n}k" for n in range(100, 100 + teachers)]}],
        "students": [{"params": ["3k", "7k"], "tokens": tokens[:10], "seeds": seeds}],
    }


class WorkingHours:
    """Clock of the machines that pretend to run the steps."""

    now = 1.7e9

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run_step(store: Any, step: Any, hours: WorkingHours, *, retry: bool) -> None:
    """Write everything that a run leaves in the store, and with ``retry`` a lost attempt before."""
    from sweeps.execute.steps.provenance import result_provenance
    from sweeps.store.leases import Lease
    from sweeps.store.outcomes import Ending

    about = {"cpus": 1, "gpus": 1.0, "nodes": 1, "members": 1, "job": step.id, "driver": "d"}
    leases: list[Any] = [Lease.claim(store, step.id, number, **about) for number in range(1, 2 + retry)]
    for lost in leases[:-1]:
        lost.end(Ending.LOST, "its node was lost")
    lease = leases[-1]
    store.write(step.as_json(), step.id, "step.json", durable=False)
    lease.progress |= {"began": 0, "steps_done": step.ends, "steps": step.ends, "loss": 3.1, "seconds": 590.0}
    begun = hours.now
    hours.sleep(RUN_SECONDS)
    store.write({"beat": 1, "elapsed": RUN_SECONDS, **lease.progress}, step.id, "attempts", "0001.beat.json")
    measured = {"loss": 3.0, "loss_se": 0.01, "bits_per_byte": 1.5, "epochs": 1.0, "model": "model-0001"}
    store.put_new(result_provenance(step) | measured | {"seconds": {"train": 590.0}}, step.id, "result.json")
    lease.conclude(None)
    hours.now = begun + RUN_SECONDS / AT_ONCE


@contextmanager
def written_plainly() -> Iterator[None]:
    """Write files of the store without the detours that make them atomic and durable, and without indents."""
    from sweeps.execute.steps import provenance
    from sweeps.store.store import Store

    def put(store: Store, content: dict[str, Any], *place: str, durable: bool = True) -> bool:  # noqa: ARG001
        path = Path(store.path, *place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json.dumps(content).encode())
        return True

    with (
        patch.object(Store, "put_new", put),
        patch.object(Store, "write", put),
        patch.object(provenance, "versions", cache(provenance.versions)),
    ):
        yield


def write_store(place: Path, steps: int) -> list[Any]:
    """Write a store in which nine tenths of the steps are done; return the steps that are not."""
    from sweeps.execute.steps.provenance import record_sweep
    from sweeps.resolve import dag_of
    from sweeps.spec.spec import parse_sweep
    from sweeps.store.store import Store

    sweep, store = parse_sweep(spec_of(place, steps)), Store(place / "store")
    dag = dag_of(sweep)
    store.create()
    record_sweep(store, sweep, dag)
    done = len(dag.steps) * 9 // 10
    end_steps(store, dag.steps[:done])
    print(f"{len(dag.steps):,} steps, {done:,} of them done")
    return list(dag.steps[done:])


def end_steps(store: Any, steps: Any) -> None:
    """Let steps run to their end, one in twenty after a lost attempt."""
    from sweeps.store import clock

    hours = WorkingHours()
    with clock.replaced_by(hours), written_plainly():
        for number, step in enumerate(steps):
            run_step(store, step, hours, retry=number % 20 == 0)


class SlowBucket:
    """Bucket over a directory: each request, and each page of a listing, takes its time."""

    protocol = "slow"

    def __init__(self, root: str) -> None:
        self.root, self.requests, self.counting = root, 0, threading.Lock()

    def _request(self) -> None:
        with self.counting:
            self.requests += 1
        time.sleep(LATENCY)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        self._request()
        return Path(path).read_bytes()[start:end]

    def exists(self, path: str) -> bool:
        self._request()
        return Path(path).exists()

    def ls(self, path: str, detail: bool = False) -> list[str]:  # noqa: ARG002
        self._request()
        return [str(each) for each in Path(path).iterdir()]

    def find(self, path: str, detail: bool = False, prefix: str = "") -> Any:
        found = {}
        for name in os.listdir(path):  # noqa: PTH208
            if name.startswith(prefix):
                for folder, _, files in os.walk(f"{path}/{name}"):
                    for file in files:
                        about = os.stat(f"{folder}/{file}")  # noqa: PTH116
                        found[f"{folder}/{file}"] = {"ETag": f"{about.st_ino}-{about.st_ctime_ns}"}
        for _ in range(1 + len(found) // PAGE):
            self._request()
        return found if detail else list(found)

    _find = find


def read(root: str, view: str, *, bucket: bool) -> None:
    """Read a store as a command does, and print what it took."""
    started = time.monotonic()
    import sweeps
    from sweeps.store import store as stores
    from sweeps.watch.timeline import attempt_spans, timeline_chart

    slow = SlowBucket(root)
    if bucket:
        plain = stores.Store.__init__

        def in_bucket(store: Any, place: Any) -> None:
            plain(store, place)
            store.local, store.files = False, slow

        stores.Store.__init__ = in_bucket  # type: ignore[method-assign,assignment]
    views: dict[str, Any] = {
        "status": lambda: str(sweeps.status(root)),
        "results": lambda: sweeps.results(root),
        "timeline": lambda: timeline_chart(attempt_spans(stores.Store(root))),
    }
    imported = time.monotonic()
    views[view]()
    ended, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    requests = f", {slow.requests:,} requests" if bucket else ""
    print(
        f"  {view:9}{ended - imported:7.2f} s after {imported - started:.2f} s of imports, "
        f"{used.ru_utime + used.ru_stime:.2f} s of CPU in all, {used.ru_maxrss / 1e3:.0f} MB{requests}",
        flush=True,
    )


def measure(place: Path, steps: int) -> None:
    """Write a store and read it in all ways."""
    from sweeps.store.store import Store

    left = iter(write_store(place, steps))
    for where in ("disk", "bucket"):
        environment = {**os.environ, "DISTLAW_CACHE": str(place / f"cache-{where}")}
        time.sleep(3)  # what has just changed is not kept
        for how in ("cold", "again", f"{ENDED} ended"):
            if how.endswith("ended"):
                end_steps(Store(place / "store"), list(itertools.islice(left, ENDED)))
            print(f"{where}, {how}:", flush=True)
            for view in VIEWS:
                command = [sys.executable, __file__, "--view", view, "--where", where, str(place / "store")]
                subprocess.run(command, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="?", default="100000")
    parser.add_argument("--view", choices=VIEWS, help=argparse.SUPPRESS)
    parser.add_argument("--where", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.view:
        read(given.steps, given.view, bucket=given.where == "bucket")
        return
    with tempfile.TemporaryDirectory(prefix="distlaw-readers-") as place:
        measure(Path(place), int(given.steps))


if __name__ == "__main__":
    main()
