"""Overhead of running a sweep: relative to ideal time, to Ray Tune, and for very large sweeps.

    python benchmarks/sweep_overhead.py steps|tune|large|all

- ``steps``: 200 steps of 2 s work on 2 cores, started as commands are, until the command has ended: the time
  beyond the ideal 200 s. The work is sleeping, so that other loads on the machine count less; all else is as
  in a sweep: a lease, a fresh process and a committed result for each.
- ``tune``: 200 trials that do nothing, as steps here and as trials of Ray Tune (reusing actors, its fastest
  way), on a Ray of its own each, one after the other.
- ``large``: plan and status of 10,000 steps: seconds of the wall and of the CPU, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

STEPS, SECONDS, CORES = 200, 2.0, 2
LARGE = 10_000


def texts(place: Path) -> Path:
    """A small text to make specs over."""
    path = place / "text.txt"
    path.write_text("\n\n".join(f"paragraph {n} of some text about number {n % 97}" for n in range(3000)))
    return path


def spec(place: Path, steps: int) -> dict[str, Any]:
    """A sweep of so many steps: seeds of one model."""
    return {
        "name": "overhead",
        "corpus": {"source": str(texts(place)), "vocab": 300, "context": 32, "heldout": 0.1},
        "training": {"batch_tokens": 64, "warmup_tokens": 1600},
        "supervised": [{"params": ["3k"], "tokens": ["32k"], "seeds": list(range(steps))}],
    }


PRETEND = """
import sweeps.execute.steps.step, time
def sleep(store, steps, leases, *_):
    for step in steps:
        time.sleep({seconds})
        result = {{"id": step.id, "step": step.as_json(), "loss": 1.0, "seconds": {{"train": {seconds}}}}}
        leases[step.id].fence()
        store.commit(step.id, result)
        leases[step.id].conclude(None)
        yield step, result
sweeps.execute.steps.step._train = sleep
"""


def distlaw(place: Path, *arguments: str, seconds: float | None = None) -> tuple[float, str]:
    """Run the command; wall seconds, and these, its own CPU and its peak memory in words.

    With ``seconds``, steps sleep so long.
    """
    environment = {**os.environ, "DISTLAW_CACHE": str(place / "cache"), "RAY_USAGE_STATS_ENABLED": "0"}
    if seconds is not None:  # Python runs this first in every process
        (place / "first").mkdir(exist_ok=True)
        (place / "first" / "sitecustomize.py").write_text(PRETEND.format(seconds=seconds))
        environment["PYTHONPATH"] = os.pathsep.join([str(place / "first"), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "distlaw", *arguments]
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - started
    if status:
        sys.exit(f"{command} failed")
    cpu = usage.ru_utime + usage.ru_stime
    return took, f"{took:.1f} s ({cpu:.1f} s of CPU) and {usage.ru_maxrss / 1e3:.0f} MB"


def sweep_of(place: Path, steps: int) -> str:
    """A spec of so many steps in a file, its text tokenized and this machine probed."""
    path = place / "spec.yaml"
    path.write_text(yaml.safe_dump(spec(place, steps)))
    distlaw(place, "sweep", "plan", str(path))
    return str(path)


def run(place: Path, name: str, executor: str, steps: int, seconds: float) -> float:
    """Wall seconds of a whole sweep as a command."""
    path = sweep_of(place, steps)
    options = ["--store", str(place / name), "--executor", executor, "--cores", str(CORES)]
    took, _ = distlaw(place, "sweep", "run", path, *options, seconds=seconds)
    done = len(list((place / name).glob("*/result.json")))
    assert done == steps, f"{done} of {steps}"
    return took


def measure_steps(place: Path) -> None:
    ideal = STEPS * SECONDS / CORES
    for executor in ("process", "ray"):
        took = run(place, f"steps-{executor}", executor, STEPS, SECONDS)
        print(
            f"{STEPS} steps of {SECONDS:g} s on {CORES} cores, {executor}: {took:.1f} s, ideal {ideal:.0f} s,"
        )
        print(
            f"  {100 * (took / ideal - 1):.1f} % more, {1000 * (took - ideal) * CORES / STEPS:.0f} ms a step"
        )


TUNE = """
import time
started = time.monotonic()
import ray
from ray import tune
ray.init(address="local", num_cpus={cores}, include_dashboard=False, logging_level="ERROR")
class Trivial(tune.Trainable):
    def step(self): return {{"loss": 1.0, "done": True}}
    def reset_config(self, config): return True
    def save_checkpoint(self, folder): pass
    def load_checkpoint(self, state): pass
tuner = tune.Tuner(
    Trivial,
    param_space={{"seed": tune.grid_search(list(range({steps})))}},
    tune_config=tune.TuneConfig(max_concurrent_trials={cores}, reuse_actors=True),
    run_config=tune.RunConfig(storage_path={folder!r}, verbose=0, stop={{"training_iteration": 1}}),
)
found = tuner.fit()
assert len(found) == {steps} and not found.errors
print(time.monotonic() - started)
"""


def measure_tune(place: Path) -> None:
    ours = {executor: run(place, f"tune-{executor}", executor, STEPS, 0.0) for executor in ("process", "ray")}
    script = TUNE.format(cores=CORES, steps=STEPS, folder=str(place / "ray-tune"))
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    theirs = time.monotonic() - started
    print(f"{STEPS} trials that do nothing, {CORES} at a time, from command to end:")
    print(f"  processes {ours['process']:.1f} s, on Ray {ours['ray']:.1f} s, Ray Tune {theirs:.1f} s")
    beside = ", ".join(f"{theirs / took:.1f} times {executor}" for executor, took in ours.items())
    print(f"  Ray Tune takes {beside}")


def measure_large(place: Path) -> None:
    large = spec(place, 1) | {
        "teachers": [{"params": ["13k"], "tokens": [f"{n}k" for n in range(40, 50)]}],
        "students": [
            {"params": ["3k", "7k"], "tokens": ["32k", "48k", "64k", "80k", "96k"], "seeds": list(range(100))}
        ],
    }
    path = place / "large.yaml"
    path.write_text(yaml.safe_dump(large))
    distlaw(place, "sweep", "plan", str(path))  # tokenizes and probes
    _, planned = distlaw(place, "sweep", "plan", str(path))
    store = place / "large"
    steps, done = _fabricate(path, store, place)
    _, told = distlaw(place, "sweep", "status", str(store))
    print(f"{steps} steps: plan in {planned}; status, {done} of them done, in {told}")


def _fabricate(path: Path, root: Path, place: Path) -> tuple[int, int]:
    """A store in which four fifths of the steps are done; how many there are, and are done."""
    os.environ["DISTLAW_CACHE"] = str(place / "cache")
    from sweeps.execute.steps.provenance import record_sweep
    from sweeps.resolve import dag_of
    from sweeps.spec.spec import load_sweep
    from sweeps.store.store import Store

    sweep = load_sweep(path)
    dag, store = dag_of(sweep), Store(root)
    store.create()
    record_sweep(store, sweep, dag)
    done = dag.steps[: len(dag.steps) * 4 // 5]
    claim = {"host": "there", "pid": 1, "cpus": 1, "gpus": 0.0, "nodes": 1, "members": 1}
    for step in done:
        folder = root / step.id / "attempts"
        folder.mkdir(parents=True)
        (folder / "0001.json").write_text(json.dumps(claim))
        end = {
            **claim,
            "ending": "done",
            "elapsed": 3.0,
            "began": 0,
            "steps_done": step.ends,
            "steps": step.ends,
        }
        (folder / "0001.end.json").write_text(json.dumps(end))
        (folder.parent / "result.json").write_text(
            json.dumps({"id": step.id, "step": step.as_json(), "loss": 1.0})
        )
    return len(dag.steps), len(done)


MEASURES = {"steps": measure_steps, "tune": measure_tune, "large": measure_large}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*MEASURES, "all"])
    what = parser.parse_args().what
    for name in MEASURES if what == "all" else [what]:
        with tempfile.TemporaryDirectory(prefix="distlaw-overhead-") as place:
            MEASURES[name](Path(place))


if __name__ == "__main__":
    main()
