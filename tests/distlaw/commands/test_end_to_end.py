"""The whole way as a user goes it: spec, plan, interrupted run, resumed run, table, fit, plan, figures."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.ray

COMMAND = [str(Path(sys.executable).with_name("distlaw"))]


def distlaw(*arguments: str | Path, code: int = 0, cwd: Path) -> str:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a text and a spec of 21 steps: 9 supervised runs, 3 of them teachers, 12 distillations."""
    place = tmp_path_factory.mktemp("sweep")
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghij", k=draw.randrange(2, 7))) for _ in range(150)]
    weights = [1 / rank for rank in range(1, 151)]
    follower = {word: draw.choices(words, weights, k=3) for word in words}

    def sentence() -> str:
        word, said = draw.choice(words), []
        for _ in range(12):
            said.append(word)
            word = draw.choice(follower[word]) if draw.random() < 0.7 else draw.choices(words, weights)[0]
        return " ".join(said) + "."

    (place / "text.txt").write_text("\n\n".join(" ".join(sentence() for _ in range(6)) for _ in range(400)))
    spec = {
        "name": "miniature",
        "corpus": {"source": "text.txt", "vocab": 300, "context": 32, "heldout": 0.1},
        "training": {"batch_tokens": 64, "warmup_tokens": 3200},
        "supervised": [{"params": ["3k", "7k", "13k"], "tokens": ["32k", "40k", "48k"]}],
        "teachers": [{"params": ["3k"], "tokens": ["32k"]}, {"params": ["13k"], "tokens": ["40k", "48k"]}],
        "students": [
            {"params": ["3k"], "tokens": ["32k", "40k", "48k"]},
            {"params": ["7k"], "tokens": ["32k"]},
        ],
    }
    (place / "spec.yaml").write_text(yaml.safe_dump(spec))
    return place


@pytest.fixture(scope="module")
def store(place: Path) -> Path:
    """The finished sweep, after it has been stopped with Ctrl-C half way and started again."""
    command = [*COMMAND, "sweep", "run", "spec.yaml", "--store", "store", "--cores", "2"]
    running = subprocess.Popen(
        command, cwd=place, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    done: set[Path] = set()
    while running.poll() is None and len(done) < 4:
        time.sleep(0.05)
        done = set(place.glob("store/*/result.json"))
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: the whole process group
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, out + err
    assert "steps are done and kept; the same command goes on" in err
    assert "Traceback" not in err
    first = {path: path.stat().st_mtime_ns for path in place.glob("store/*/result.json")}
    assert 4 <= len(first) < 21

    told = distlaw("sweep", "run", "spec.yaml", "--store", "store", "--cores", "2", cwd=place)
    assert f"21 of 21 steps done ({21 - len(first)} now, {len(first)} were there already)" in told
    assert all(path.stat().st_mtime_ns == when for path, when in first.items())
    return place / "store"


def test_a_plan_tells_before_anything_runs(place: Path) -> None:
    told = distlaw("sweep", "plan", "spec.yaml", "--store", "nowhere", cwd=place)
    assert "miniature: 21 steps of 24 asked (equal ones run once)" in told
    for word in ("FLOPs", "time", "memory", "epochs"):
        assert f"\n{word}" in told
    assert not (place / "nowhere").exists()
    plan = json.loads(distlaw("sweep", "plan", "spec.yaml", "--json", cwd=place))
    assert len(plan["steps"]) == 21
    assert plan["flops"] == pytest.approx(sum(step["flops"] for step in plan["steps"]))


def test_a_finished_sweep_runs_nothing(place: Path, store: Path) -> None:
    assert "21 of 21 steps done (0 now" in distlaw("sweep", "run", "spec.yaml", "--store", "store", cwd=place)


def test_results_say_everything_about_a_run(store: Path) -> None:
    for path in store.glob("*/result.json"):
        result = json.loads(path.read_text())
        assert {
            "loss",
            "loss_se",
            "bits_per_byte",
            "tokens",
            "epochs",
            "flops",
            "seconds",
            "versions",
            "step",
        } <= set(result)
        assert result["tokens"] >= 500 * result["step"]["training"]["batch_tokens"]
        assert 0 < result["loss_se"] < 0.1 * result["loss"]


def test_the_table_is_tidy(place: Path, store: Path) -> None:
    distlaw("sweep", "results", "store", "--out", "runs.csv", cwd=place)
    distlaw("sweep", "results", "store", "--out", "runs.parquet", cwd=place)
    table = pd.read_csv(place / "runs.csv")
    assert len(table) == 21
    assert table["kind"].value_counts().to_dict() == {"supervised": 9, "distillation": 12}
    assert table.loc[table["kind"] == "distillation", "teacher_loss"].notna().all()
    assert len(pd.read_parquet(place / "runs.parquet")) == 21


def test_from_the_runs_to_a_decision(place: Path, store: Path) -> None:
    told = distlaw("fit", "store", "--out", "calibration.json", "--plots", "figures", cwd=place)
    assert "held out" in told
    calibration = json.loads((place / "calibration.json").read_text())
    assert calibration["architecture"]["vocab"] == 300
    assert calibration["architecture"]["aspect_ratio"] == 32
    for name in ("isoflop", "predicted", "law-effective-tokens"):
        for suffix in ("png", "svg"):
            assert (place / "figures" / f"{name}.{suffix}").stat().st_size > 5000
    told = distlaw(
        "plan", "--calibration", "calibration.json", "--student", "7k", "--budget", "5e10", cwd=place
    )
    first = told.splitlines()[0].lower()
    assert any(verdict in first for verdict in ("distil", "train directly", "too close to call"))


def test_a_damaged_result_is_named(place: Path, store: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    victim = next(copy.glob("*/result.json"))
    victim.write_text(victim.read_text()[:100])
    assert f"{victim.parent.name}/result.json: damaged" in distlaw(
        "sweep", "results", copy, code=2, cwd=place
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "run", "nothing.yaml"], "nothing.yaml: no such file, and no such preset"),
        (["sweep", "results", "empty"], "empty: not a sweep store"),
        (
            ["sweep", "run", "spec.yaml", "--executor", "slrum"],
            "--executor: process, ray, slurm or inline, not 'slrum'",
        ),
        (["fit", "empty"], "empty"),
        (["sweep", "run", "spec.yaml", "--store", "spec.yaml/store"], "cannot be created"),
    ],
)
def test_wrong_input_gets_a_sentence_and_exit_2(place: Path, arguments: list[str], message: str) -> None:
    (place / "empty").mkdir(exist_ok=True)
    assert message in distlaw(*arguments, code=2, cwd=place)
