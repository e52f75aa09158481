"""What a launch writes is what Slurm, Kubernetes, KubeRay, Ray and SkyPilot expect, and runs the sweep as asked."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

import sweeps
from distlaw.cli import app
from scaling.errors import InputError
from sweeps.launch.clouds import MACHINES, machine_of
from sweeps.launch.launch import IMAGE, Launch
from sweeps.launch.write import SCHEDULERS, write_launch
from sweeps.spec.spec import parse_sweep

SCHEMAS = Path(__file__).with_name("schemas")
GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "cluster.md"
BUCKET = "s3://bucket/sweep"
SPEC = {
    "name": "Law_of.4_texts",
    "corpus": {"source": "permissive"},
    "supervised": [{"params": ["10k"], "tokens": ["1M"]}],
    "resources": [{"gpus": 0.25}],
}
GANGS = SPEC | {"resources": [{"gpus": 0.25}, {"from_params": "1M", "gpus": 8, "nodes": 4}]}
Written = Callable[..., dict[str, str]]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Write a launch; return its files by name."""
    monkeypatch.chdir(tmp_path)

    def write(scheduler: str, spec: dict[str, Any] = SPEC, **machines: Any) -> dict[str, str]:
        image = {"image": "registry/distlaw:1"} if scheduler.startswith("kube") else {}
        machines = {"store": BUCKET, **image} | machines
        sweeps.load(spec, read_text=False).launch(scheduler, "out", **machines)
        return {path.name: path.read_text() for path in Path("out").iterdir() if path.is_file()}

    return write


def options(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))


def test_steps_that_fit_on_a_node_get_an_array_of_drivers(written: Written, tmp_path: Path) -> None:
    files = written(
        "slurm", nodes=4, gpus=8, gpu="h100", cpus=64, hours=1.5, queue="big", setup=("module load x",)
    )
    asked = options(files["slurm.sh"])
    assert (asked["array"], asked["nodes"], asked["gpus-per-node"]) == ("1-4", "1", "h100:8")
    assert (asked["time"], asked["partition"], asked["cpus-per-task"]) == ("01:30:00", "big", "64")
    assert parse_sweep(yaml.safe_load(files["sweep.yaml"])) == parse_sweep(SPEC)
    script = (
        files["slurm.sh"]
        .replace(f"exec {sys.executable} -m distlaw", "echo")
        .replace("module load x", "echo first")
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"SLURM_CPUS_PER_TASK": "64"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, called = done.stdout.splitlines()
    assert first == "first"
    spec = str(tmp_path / "out" / "sweep.yaml")
    assert called == f"sweep run {spec} --store {BUCKET} --executor process --cores 64"


def test_steps_on_several_nodes_get_one_allocation(written: Written) -> None:
    asked = options(script := written("slurm", GANGS)["slurm.sh"])
    assert "array" not in asked
    assert (asked["nodes"], asked["gpus-per-node"]) == ("4", "8")  # as the largest step needs
    assert script.rstrip().endswith("--executor slurm")
    ray = written("slurm-ray", GANGS)["slurm.sh"]
    assert " symmetric-run " in ray
    assert "--min-nodes 4 --num-cpus 8 --num-gpus 8" in ray
    assert ray.rstrip().endswith("--address auto")
    assert (
        'srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=8 ' in ray
    )  # not inherited
    assert "RAY_AUTH_MODE=token" in ray
    assert f"export PATH={Path(sys.executable).parent}:" in ray  # Ray calls itself by name
    subprocess.run(["bash", "-n"], input=ray, text=True, check=True)


def test_kubernetes_accepts_an_indexed_job(written: Written) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    text = written("kubernetes", nodes=4, gpus=8, queue="team")["manifest.yaml"]
    spec, job = yaml.safe_load_all(text)
    for document in (spec, job):
        kubernetes_validate.validate(document, "1.33", strict=True)
    assert parse_sweep(yaml.safe_load(spec["data"]["sweep.yaml"])) == parse_sweep(SPEC)
    assert job["metadata"] == {
        "name": "distlaw-law-of-4-texts",
        "labels": {"kueue.x-k8s.io/queue-name": "team"},
    }
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 4
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container["command"][1:] == (
        f"-m distlaw sweep run /etc/distlaw/sweep.yaml --store {BUCKET} --executor process --cores 8".split()
    )


@pytest.mark.parametrize("queue", [None, "team"])
def test_kuberay_accepts_a_rayjob(written: Written, queue: str | None) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    spec, job = yaml.safe_load_all(written("kuberay", GANGS, queue=queue)["manifest.yaml"])
    kubernetes_validate.validate(spec, "1.33", strict=True)
    jsonschema.validate(job, json.loads((SCHEMAS / "rayjob.json").read_text()))
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # no step may crowd out the driver
    (group,) = cluster["workerGroupSpecs"]
    for template in (cluster["headGroupSpec"]["template"], group["template"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, **template}
        kubernetes_validate.validate(pod, "1.33", strict=True)
    fixed = queue is not None  # Kueue admits what it can reserve
    assert cluster["enableInTreeAutoscaling"] is not fixed
    assert (group["minReplicas"], group["maxReplicas"]) == (4 * fixed, 4)


@pytest.mark.parametrize(("cloud", "account"), [("aws", None), ("gcp", "project")])
def test_ray_s_own_schema_accepts_a_cluster(written: Written, cloud: str, account: str | None) -> None:
    import ray.autoscaler

    files = written(cloud, GANGS, gpu="h100", cpus=32, account=account, spot=True)
    config = yaml.safe_load(files["cluster.yaml"])
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["provider"]["type"] == cloud
    kinds = config["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert kinds["workers"]["max_workers"] == 4
    assert kinds["workers"]["resources"]["GPU"] == 8
    assert "pip install" in config["setup_commands"][-1]
    assert config["setup_commands"][-1].endswith(" s3fs")
    for command in config["head_start_ray_commands"][1:] + config["worker_start_ray_commands"][1:]:
        assert command.startswith("RAY_AUTH_MODE=token ")
    assert parse_sweep(yaml.safe_load(files["sweep.yaml"])) == parse_sweep(GANGS)


def test_the_smallest_machine_that_has_enough_is_taken() -> None:
    def asked(cloud: str, **machines: Any) -> str:
        return machine_of(
            cloud, Launch(sweep=parse_sweep(SPEC | {"resources": []}), store=BUCKET, **machines)
        ).type

    assert asked("aws", cpus=4, gpus=1) == "g6.xlarge"
    assert asked("aws", cpus=8, gpus=1) == "g6.12xlarge"
    assert asked("gcp", cpus=8) == "n2-standard-8"
    assert asked("gcp", gpus=1, gpu="A100") == "a2-highgpu-1g"
    with pytest.raises(
        InputError, match=r"no machine of aws with h100 has 16 GPUs .* p5\.48xlarge \(8, 192\)"
    ):
        asked("aws", gpus=16, gpu="h100")
    with pytest.raises(InputError, match=r"--gpu: l4, a100, h100, h200 on aws, not 'tpu'"):
        asked("aws", gpus=1, gpu="tpu")
    for kinds in MACHINES.values():
        for machines in kinds.values():
            assert machines == sorted(machines, key=lambda each: (each.gpus, each.cpus))


def test_a_machine_with_more_than_was_asked_for_is_named(tmp_path: Path) -> None:
    def said(**machines: int) -> str:
        launch = Launch(sweep=parse_sweep(SPEC), store="abfs://box/sweep", **machines)  # type: ignore[arg-type]
        return write_launch("aws", launch, tmp_path)[0]

    assert said(gpus=3) == (
        "# Each node is a whole g6.12xlarge, the smallest that has enough: 4 GPUs and 48 cores are paid for and "
        "used (3 and 8 were asked for)."
    )
    assert "s3fs" not in (text := (tmp_path / "cluster.yaml").read_text())
    assert " adlfs" in text
    assert not said(gpus=4, cpus=48).startswith("#")


def test_the_directory_of_skypilot_runs_by_itself(written: Written, tmp_path: Path) -> None:
    """With no other code of ours to import, as on a new machine."""
    files = written("sky", nodes=3, gpus=1, cpus=4, spot=True)
    task = yaml.safe_load(files["sky.yaml"])
    assert task["resources"]["accelerators"] == "L4:1"
    assert "s3fs" in task["setup"]
    plan = task["run"].replace(" run sweep.yaml", " plan sweep.yaml").partition(" --store")[0]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *plan.split()[1:]],
        cwd=tmp_path / "out",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "1 step" in done.stdout, done.stderr
    assert {"scaling", "fits", "sweeps", "distlaw"} <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.slow
def test_skypilot_reads_the_task(written: Written, tmp_path: Path) -> None:
    """In an environment of its own, as its requirements are not ours."""
    written("sky", gpus=8, gpu="h100", spot=True, region="aws/us-west-2", memory=256)
    read = "import sky; task = sky.Task.from_yaml('sky.yaml'); print(list(task.resources)[0].accelerators)"
    done = subprocess.run(
        [_sky_python(tmp_path), "-c", read], cwd=tmp_path / "out", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "{'H100': 8}"


def _sky_python(tmp_path: Path) -> str:
    if given := os.environ.get("DISTLAW_SKY_PYTHON"):
        return given
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    done = subprocess.run([python, "-m", "pip", "install", "-q", "skypilot==0.14.1"], capture_output=True)
    if done.returncode:
        pytest.skip(f"no packages: {done.stderr.decode()[-200:]}")
    return python


@pytest.mark.parametrize(
    ("scheduler", "machines", "message"),
    [
        ("slrum", {}, r"scheduler: slurm, slurm-ray, .* not 'slrum'"),
        ("kubernetes", {"image": None}, "--image: pods need an image with distlaw"),
        ("kuberay", {"store": "/shared/sweep"}, "pods do not see /shared/sweep; give a bucket"),
        (
            "kubernetes",
            {"spec": GANGS, "gpus": 8},
            "takes 4 nodes, which pods of a Job cannot train together",
        ),
        ("sky", {"spec": GANGS}, "takes 4 nodes, and machines of managed jobs do not know each other"),
        ("slurm", {"store": "runs/sweep"}, "--store: runs/sweep must be a URL"),
        ("slurm", {"spec": GANGS, "gpus": 4}, r"resources\[1\].gpus: 8 are asked for, and --gpus gives 4"),
        ("slurm", {"spec": GANGS, "nodes": 2}, r"resources\[1\].nodes: 4 are asked for, and --nodes gives 2"),
        ("slurm", {"hours": 0.0}, "--hours: 0 is no time to work in"),
        ("slurm", {"store": "s3://me:secret@host/b"}, "--store: a URL with a password"),
        ("slurm", {"store": "memory://x"}, "is memory of one process"),
        ("kuberay", {"store": "file:///shared"}, "pods do not see file:///shared"),
        ("gcp", {}, "--account: the project of Google Cloud that pays"),
        ("gcp", {"account": "p", "region": "us-central1"}, "--region: a zone with the machines"),
        ("slurm", {"region": "us-west-2"}, r"--region: slurm has no use for it; leave it out .*--queue"),
        ("slurm-ray", {"spot": True}, "--spot: slurm-ray has no use for it"),
        ("slurm", {"image": "x"}, "--image: slurm has no use for it"),
        ("kuberay", {"gpu": "h100"}, "--gpu: kuberay has no use for it"),
        ("slurm", {"spec": SPEC | {"resources": []}, "gpu": "h100"}, "--gpu: h100, but nodes have no GPUs"),
        ("aws", {"hours": 3.0}, "--hours: aws has no use for it"),
        ("kubernetes", {"image": " "}, "--image: ' ' is no name of an image, such as registry/distlaw:1"),
        ("kubernetes", {"image": "A:B:C"}, r"--image: 'A:B:C' .* \[HOST\[:PORT\]/\]PATH\[:TAG\]\[@DIGEST\]"),
        ("sky", {"store": "ftp://host/sweep"}, "--store: ftp:// is no place where a file is created"),
        ("sky", {"store": "bogus://b/sweep"}, r"--store: bogus:// is no place .* a bucket \(abfs, .* s3"),
    ],
)
def test_what_could_not_run_is_refused_before_anything_is_written(
    scheduler: str, machines: dict[str, Any], message: str, written: Written
) -> None:
    with pytest.raises(InputError, match=message):
        written(scheduler, **machines)
    assert not Path("out").exists()


def test_references_of_images_are_those_of_registries() -> None:
    digest = f"@sha256:{'0a' * 32}"
    right = (
        "x",
        "a/b_c/d-e__f:V1.2-rc",
        "ghcr.io/o/i:1",
        "localhost:5000/i",
        "[::1]:5000/i",
        f"h.io/i:1{digest}",
    )
    wrong = (
        "",
        "a:b:c",
        "a/",
        "/a",
        "a//b",
        "Path",
        "h.io/A",
        "i:",
        "i:-1",
        "i@sha256:12",
        "a/b:1/c:2",
        "h:x/i",
    )
    assert [each for each in right if not IMAGE.fullmatch(each)] == []
    assert [each for each in (*wrong, f"i{digest}:1", "a" * 60 + "!") if IMAGE.fullmatch(each)] == []


def test_pods_see_no_file_of_this_machine(written: Written, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    local = SPEC | {"corpus": {"source": "text.txt"}}
    with pytest.raises(InputError, match=r"corpus.source: text.txt is a file of this machine"):
        written("kuberay", local)
    (tmp_path / "bpe").mkdir()
    trained = parse_sweep(SPEC | {"corpus": {"source": "kjv", "tokenizer": "bpe"}})
    with pytest.raises(InputError, match=r"corpus.tokenizer: bpe is a file of this machine"):
        write_launch("kubernetes", Launch(sweep=trained, store=BUCKET, gpus=1, image="x"), "out")
    files = written("slurm", local, store="/shared/sweep")  # where nodes share the file system
    assert yaml.safe_load(files["sweep.yaml"])["corpus"]["source"] == str(tmp_path / "text.txt")


def test_names_with_spaces_are_quoted_for_the_shell_and_for_sbatch(tmp_path: Path) -> None:
    launch = Launch(sweep=parse_sweep(SPEC | {"resources": []}), store="/shared/my sweep")
    said = write_launch("slurm", launch, tmp_path / "my launch")
    assert [shlex.split(line)[-1] for line in said] == [
        str(tmp_path / "my launch" / "slurm.sh"),
        "/shared/my sweep",
    ]
    script = (tmp_path / "my launch" / "slurm.sh").read_text()
    assert f"#SBATCH --output='{tmp_path}/my launch/%x-%A_%a.log'" in script.splitlines()


def test_the_command_writes_and_says_what_to_type_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(yaml.safe_dump(SPEC))
    arguments = [
        "sweep",
        "launch",
        "slurm",
        "spec.yaml",
        "--store",
        "/shared/x",
        "--out",
        "here",
        "--nodes",
        "2",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert [line.strip() for line in done.output.splitlines()] == [
        "sbatch here/slurm.sh",
        "distlaw sweep watch /shared/x",
    ]
    Path("file").write_text("")
    done = CliRunner().invoke(app, [*arguments, "--out", "file"])
    assert isinstance(done.exception, InputError)
    assert "--out: file cannot be written" in str(done.exception)


def test_every_command_and_variable_that_the_guide_names_exists() -> None:
    text = GUIDE.read_text()
    for scheduler in SCHEDULERS:
        assert f"launch {scheduler} " in text or f"`{scheduler}`" in text
    for command in set(re.findall(r"distlaw sweep (\w+)", text)):
        shown = CliRunner().invoke(app, ["sweep", command, "--help"], env={"COLUMNS": "200"}).output
        for line in re.findall(rf"distlaw sweep {command}([^\n]*)", text):
            for option in re.findall(r" (--[a-z-]+)", line):
                assert option in shown, (command, option)
    found = find_spec("sweeps")
    assert found is not None
    assert found.submodule_search_locations is not None
    sources = "\n".join(path.read_text() for path in Path(found.submodule_search_locations[0]).rglob("*.py"))
    for variable in re.findall(r"DISTLAW_[A-Z_]+", text):
        assert variable in sources
    assert sysconfig.get_path("purelib") not in text
