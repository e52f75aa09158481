"""Two live drivers of one adaptive sweep, as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeps
from sweeps.adaptive.rounds import read_rounds
from sweeps.store.leases import attempts
from sweeps.store.store import Store

COMMAND = """
import json, os, sys, time
job = json.load(open(os.environ["DISTLAW_JOB"]))
with open(sys.argv[1], "a") as file:
    file.write(job["id"] + "\\n")
time.sleep(0.5)
loss = 1.5 + 30 / job["params"] ** 0.35 + 50 / job["tokens"] ** 0.4
with open(os.environ["DISTLAW_OUT"] + "/result.json", "w") as file:
    json.dump({"params": job["params"], "loss": loss}, file)
"""
ASKED = ("--student", "12k", "--budget", "1e11", "--scenario", "best_case", "--until-regret", "1e-9")


@pytest.mark.alone
@pytest.mark.slow
def test_two_drivers_share_the_rounds_and_train_nothing_twice(
    small_spec: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(COMMAND)
    trained = tmp_path / "trained"
    spec = {name: small_spec[name] for name in ("name", "corpus", "training")} | {
        "supervised": [{"params": ["3k", "5k", "7k"], "tokens": ["32k", "40k", "64k"]}],
        "trainer": {"command": [sys.executable, str(tmp_path / "train.py"), str(trained)], "version": "1"},
        "hardware": {"name": "a100"},
        "resources": [{"gpus": 0}],
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    place = str(tmp_path / "store")
    words = ["sweep", "auto", str(tmp_path / "spec.yaml"), "--store", place, "--rounds", "2", "--cores", "1"]
    drivers = [
        subprocess.Popen(
            [sys.executable, "-m", "distlaw", *words, *ASKED],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    try:
        printed = [driver.communicate(timeout=400)[0].decode() for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
    assert [driver.returncode for driver in drivers] == [0, 0], printed
    store = Store(place)
    rounds = read_rounds(store)
    assert [bool(each.stop) for each in rounds] == [False, False, True]
    proposed = [run for each in rounds for run in each.runs]
    assert len(proposed) == len(set(proposed)) >= 5
    ran = Counter(trained.read_text().split())
    assert ran == dict.fromkeys(proposed, 1)
    assert all(len(attempts(store, run)) == 1 for run in proposed)
    who = {str(attempt.told["driver"]) for run in proposed for attempt in attempts(store, run)}
    assert len(sweeps.results(place)) == len(proposed)
    assert 1 <= len(who) <= 2 * 2  # one name for each round of each driver; a fast machine may let one do all
