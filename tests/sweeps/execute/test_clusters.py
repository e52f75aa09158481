"""The cluster templates are what Ray, Kubernetes and Slurm expect, and the README beside them tells no lies."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from distlaw.cli import app

CLUSTERS = Path(str(files("sweeps") / "clusters"))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_ray_s_own_schema_accepts_the_template(name: str) -> None:
    import ray.autoscaler

    config = yaml.safe_load((CLUSTERS / f"{name}.yaml").read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["provider"]["type"] == name
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}  # no step may crowd out the driver
    for command in config["head_start_ray_commands"][1:] + config["worker_start_ray_commands"][1:]:
        assert command.startswith("RAY_AUTH_MODE=token ")


def test_the_kubernetes_manifest_runs_no_steps_on_the_head_and_asks_for_tokens() -> None:
    manifest = yaml.safe_load((CLUSTERS / "kuberay.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayCluster")
    assert manifest["spec"]["authOptions"] == {"mode": "token"}
    assert manifest["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = manifest["spec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_batch_script_is_shell_and_runs_a_driver(tmp_path: Path) -> None:
    """With a stand-in for the command, which says how it was called."""
    command = tmp_path / "distlaw"
    command.write_text('#!/bin/bash\necho "$@"\n')
    command.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "16"}
    script = ["bash", str(CLUSTERS / "slurm.sh")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "SPEC: a YAML file" in done.stderr
    asked = environment | {"SPEC": "spec.yaml", "STORE": "/shared/store"}
    told = subprocess.run(script, env=asked, capture_output=True, text=True, check=True).stdout
    assert told.split() == [
        "sweep",
        "run",
        "spec.yaml",
        "--store",
        "/shared/store",
        "--executor",
        "process",
        "--cores",
        "16",
    ]


def test_every_command_and_variable_that_the_readme_names_exists() -> None:
    text = (CLUSTERS / "README.md").read_text()
    options = set(re.findall(r"distlaw sweep (\w+)[^\n]*", text))
    assert options == {"submit", "plan", "watch"}
    for command in options:
        shown = CliRunner().invoke(app, ["sweep", command, "--help"], env={"COLUMNS": "200"}).output
        for line in re.findall(rf"distlaw sweep {command}([^\n]*)", text):
            for option in re.findall(r"--[a-z-]+", line):
                assert option in shown, (command, option)
    sources = "\n".join(path.read_text() for path in CLUSTERS.parent.rglob("*.py"))
    for variable in re.findall(r"DISTLAW_[A-Z_]+", text):
        assert variable in sources
