"""Time for which checkpoints of a large state stop training, and by which they slow it.

    python benchmarks/checkpoint_overhead.py [PARAMS] [SECONDS] [DIRECTORY]

A state of so many parameters (default 500e6: weights and two moments in float32, 6 GB) is saved every SECONDS
(default 60) to DIRECTORY (default: of temporary files), three times. Optimizer steps are a matrix product of
about 0.2 s each. Memory: 24 bytes a parameter, half of it staged; disk: up to 36.

Printed as JSON: seconds of each save, split into what stops training (``blocking``) and its write beside it;
the share of the time blocked at this interval; the time of steps during a write relative to others in the
same run (``slowdown``); the share of the time lost to both; and the seconds of a restore with checksums.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.checkpoints.interval import checkpoint_interval
from sweeps.store.store import Store

SAVES, STEP_SECONDS, TENSORS = 3, 0.2, 96


def state_of(params: int) -> dict[str, Tensor]:
    """Weights and moments, as a run's."""
    size = params // TENSORS
    weights = {f"layers.{number}.weight": torch.full((size,), 0.5) for number in range(TENSORS)}
    return weights | {f"/{name} moments": torch.full((size * TENSORS,), 0.5) for name in ("first", "second")}


def timed_step() -> tuple[Tensor, int]:
    """A matrix and the number of its products that take about as long as a step."""
    matrix = torch.full((1024, 1024), 1 / 1024)
    started = time.perf_counter()
    for _ in range(5):
        _ = matrix @ matrix
    each = (time.perf_counter() - started) / 5
    return matrix, max(1, round(STEP_SECONDS / each))


def main(params: int, interval: float, place: Path) -> None:
    """Train and save, and print what it cost."""
    tensors, (matrix, products) = state_of(params), timed_step()
    checkpoints = Checkpoints(Store(place), "run")
    saves: list[dict[str, float]] = []
    during, between = [], []
    checkpoints.reserve(tensors)
    started, due, stood_still = time.perf_counter(), interval, 0.0
    while len(saves) < SAVES or checkpoints.busy:
        writing, step_began = checkpoints.busy, time.perf_counter()
        for _ in range(products):
            _ = matrix @ matrix
        (during if writing else between).append(time.perf_counter() - step_began)
        checkpoints.look()
        if len(saves) < SAVES and time.perf_counter() - started >= due:
            checkpoints.save(len(saves), tensors)  # waits for the write before
            if saves:
                saves[-1].setdefault("write", checkpoints.write_seconds)
            saves.append({"blocking": checkpoints.blocking_seconds - stood_still})
            stood_still, due = checkpoints.blocking_seconds, due + interval
        if saves and not checkpoints.busy:
            saves[-1].setdefault("write", checkpoints.write_seconds)
    seconds = time.perf_counter() - started
    checkpoints.close()
    saves[-1]["write"] = checkpoints.write_seconds
    restoring = time.perf_counter()
    found = Checkpoints(Store(place), "run").latest()
    assert found is not None
    assert found[1]["layers.0.weight"][-1] == 0.5
    slowdown = median(during) / median(between) - 1
    steady = median(save["blocking"] for save in saves)
    lost = sum(save["blocking"] for save in saves) + sum(during) * slowdown / (1 + slowdown)
    report = {
        "params": params,
        "gigabytes": sum(tensor.nbytes for tensor in tensors.values()) / 1e9,
        "interval": interval,
        "saves": saves,
        "share blocked": steady / interval,
        "slowdown": slowdown,
        "share lost": lost / seconds,
        "restore": time.perf_counter() - restoring,
        "interval by cost": checkpoint_interval(steady, max(save["write"] for save in saves)),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    given = [*sys.argv[1:], *["500e6", "60"][len(sys.argv) - 1 :]]
    torch.set_num_threads(1)
    if len(given) > 2:
        main(int(float(given[0])), float(given[1]), Path(given[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(int(float(given[0])), float(given[1]), Path(scratch))
