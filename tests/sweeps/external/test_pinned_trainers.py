"""TRL's distillation trainer, really run, and torchtitan's configuration, parsed by its release.

In an environment of their own, made from ``pinned_requirements.txt`` on top of this one (a minute, and a network), or
found at ``DISTLAW_TRAINERS_PYTHON``.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

import sweeps
from sweeps.data.corpus import planned_tokens
from sweeps.external.job import describe_job

TRAINERS = Path(sweeps.__file__).parent / "trainers"
PARSE = """
import json, sys
from torchtitan.config import ConfigManager
found = ConfigManager().parse_args(json.load(open(sys.argv[1])))
print(json.dumps([found.training.steps, found.training.seq_len, found.training.global_batch_size,
                  found.lr_scheduler.warmup_steps, found.checkpoint.enable, str(found.hf_assets_path)]))
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with TRL and torchtitan."""
    if given := os.environ.get("DISTLAW_TRAINERS_PYTHON"):
        return given
    place = tmp_path_factory.mktemp("trainers")
    venv.create(place, with_pip=True)
    (packages,) = place.glob("lib/python3*/site-packages")
    (packages / "this-environment.pth").write_text(sysconfig.get_path("purelib"))
    found = str(place / "bin" / "python")
    wanted = str(Path(__file__).with_name("pinned_requirements.txt"))
    done = subprocess.run(
        [found, "-m", "pip", "install", "-q", "--no-deps", "-r", wanted], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"no packages: {done.stderr.decode()[-200:]}")
    return found


def test_trl_distils_a_student(spec: dict[str, Any], tmp_path: Path, python: str) -> None:
    del spec["trainer"], spec["supervised"]
    grid = {"params": ["4184"], "tokens": ["32k"]}
    arguments = {"use_cpu": True, "disable_tqdm": True, "bf16": False, "gradient_checkpointing": False}
    trl = {
        "command": [python, str(TRAINERS / "trl_distillation.py")],
        "version": "trl 1.16.0",
        "model": "{out}/final",
        "env": {"TRL_ARGUMENTS": json.dumps(arguments).replace("{", "{{").replace("}", "}}")},
    }
    spec |= {"teachers": [grid], "students": [{**grid, "trainer": trl}]}
    state = sweeps.load(spec).run(tmp_path / "store", executor="inline")
    assert state.complete, state
    student = sweeps.results(tmp_path / "store").iloc[0]
    assert student["kind"] == "distillation"
    assert math.isfinite(student["loss"])
    assert student["bits_per_byte"] > 0  # measured here
    assert student["loss"] < math.log(300)


def test_torchtitan_reads_the_configuration(spec: dict[str, Any], tmp_path: Path, python: str) -> None:
    spec["trainer"] = {"command": ["torchtitan_config.py"], "version": "1"}
    (step,) = sweeps.load(spec).dag.steps
    corpus = planned_tokens(step.corpus, step.corpus_fingerprint)
    (tmp_path / "job.json").write_text(describe_job(step, corpus, {}, None).model_dump_json())
    env = {**os.environ, "DISTLAW_JOB": str(tmp_path / "job.json"), "DISTLAW_OUT": str(tmp_path)}
    env |= {"DISTLAW_CHECKPOINTS": str(tmp_path / "checkpoints")}
    script = [
        sys.executable,
        str(TRAINERS / "torchtitan_config.py"),
        "llama3",
        "llama3_debugmodel",
        "--print",
    ]
    subprocess.run(script, env=env, check=True)
    parse = [python, "-c", PARSE, str(tmp_path / "arguments.json")]
    done = subprocess.run(parse, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [500, 32, 2, 25, True, str(corpus.tokenizer_files)]
