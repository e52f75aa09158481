"""Ray clusters on AWS and Google Cloud for ``ray up``: a small head without steps, and nodes when needed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from scaling.errors import InputError
from sweeps.launch.launch import SPEC, Launch, with_header

CLUSTER = "cluster.yaml"
TOKEN = "~/.ray/auth_token"  # noqa: S105  (its place)


class Machine(NamedTuple):
    """Machine type of a cloud."""

    type: str
    cpus: int
    gpus: int


MACHINES = {
    "aws": {
        "cpu": [Machine("m7i.2xlarge", 8, 0), Machine("m7i.8xlarge", 32, 0), Machine("m7i.24xlarge", 96, 0)],
        "l4": [Machine("g6.xlarge", 4, 1), Machine("g6.12xlarge", 48, 4), Machine("g6.48xlarge", 192, 8)],
        "a100": [Machine("p4d.24xlarge", 96, 8)],
        "h100": [Machine("p5.48xlarge", 192, 8)],
        "h200": [Machine("p5en.48xlarge", 192, 8)],
    },
    "gcp": {
        "cpu": [
            Machine("n2-standard-8", 8, 0),
            Machine("n2-standard-32", 32, 0),
            Machine("n2-standard-96", 96, 0),
        ],
        "l4": [
            Machine("g2-standard-4", 4, 1),
            Machine("g2-standard-48", 48, 4),
            Machine("g2-standard-96", 96, 8),
        ],
        "a100": [Machine("a2-highgpu-1g", 12, 1), Machine("a2-highgpu-8g", 96, 8)],
        "h100": [Machine("a3-highgpu-8g", 208, 8)],
        "h200": [Machine("a3-ultragpu-8g", 224, 8)],
    },
}
"""Machine types by cloud and GPU, smallest first; vCPUs and GPUs as the clouds list them (November 2026)."""


def write_aws(launch: Launch, folder: Path) -> dict[str, str]:  # noqa: ARG001
    """Return a cluster on AWS."""
    machine = machine_of("aws", launch)
    account = {"IamInstanceProfile": {"Name": "distlaw-sweep"}}
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}} if launch.spot else {}
    provider = {"type": "aws", "region": launch.region or "us-west-2"}
    head = {"InstanceType": "m7i.large", **account}
    workers = {"InstanceType": machine.type, **spot, **account}
    return _cluster(launch, machine, provider, head, workers, "IamInstanceProfile")


def write_gcp(launch: Launch, folder: Path) -> dict[str, str]:  # noqa: ARG001
    """Return a cluster on Google Cloud.

    Raises:
        InputError: without a project.
    """
    if not launch.account:
        raise InputError("--account: the project of Google Cloud that pays")
    machine, zone = machine_of("gcp", launch), launch.region or "us-central1-a"
    if zone.count("-") < 2:
        raise InputError(f"--region: a zone with the machines, such as {zone}-a, not {zone!r}")
    provider = {
        "type": "gcp",
        "region": zone.rpartition("-")[0],
        "availability_zone": zone,
        "project_id": launch.account,
    }
    image = "projects/deeplearning-platform-release/global/images/family/common-cu124"
    disk = {"boot": True, "autoDelete": True, "type": "PERSISTENT"}
    disk["initializeParams"] = {"diskSizeGb": 100, "sourceImage": image}
    email = f"distlaw-sweep@{launch.account}.iam.gserviceaccount.com"
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    common = {"disks": [disk], "serviceAccounts": [{"email": email, "scopes": scopes}]}
    workers = {
        "machineType": machine.type,
        **common,
        "metadata": {"items": [{"key": "install-nvidia-driver", "value": "True"}]},
        "scheduling": [{"onHostMaintenance": "TERMINATE"}, *[{"preemptible": True}] * launch.spot],
    }
    head = {"machineType": "e2-standard-2", **common}
    return _cluster(launch, machine, provider, head, workers, "serviceAccounts")


def machine_of(cloud: str, launch: Launch) -> Machine:
    """Return the smallest machine type with the cores and GPUs of a node.

    Raises:
        InputError: if there is none, or no such GPU.
    """
    offered, gpu = MACHINES[cloud], (launch.gpu or "l4").lower() if launch.gpus else "cpu"
    if gpu not in offered:
        known = ", ".join(name for name in offered if name != "cpu")
        raise InputError(f"--gpu: {known} on {cloud}, not {launch.gpu!r}")
    for machine in offered[gpu]:
        if machine.gpus >= launch.gpus and machine.cpus >= launch.cpus:
            return machine
    raise InputError(
        f"--gpus, --cpus: no machine of {cloud} with {gpu} has {launch.gpus} GPUs and {launch.cpus} cores; "
        f"there are {', '.join(f'{each.type} ({each.gpus}, {each.cpus})' for each in offered[gpu])}"
    )


def commands(cloud: str, launch: Launch, folder: Path) -> list[str]:
    """Return what to type next."""
    cluster, spec = shlex.quote(str(folder / CLUSTER)), shlex.quote(str(folder / SPEC))
    return [
        *_more_than_asked(launch, machine_of(cloud, launch)),
        f"[ -e {TOKEN} ] || ray get-auth-token --generate > /dev/null",
        f"ray up --yes {cluster}",
        f"ray dashboard {cluster} &",
        f"RAY_AUTH_MODE=token distlaw sweep submit {spec} --store {shlex.quote(launch.store)} "
        "--address http://127.0.0.1:8265 --install",
        f"distlaw sweep watch {shlex.quote(launch.store)}",
        f"ray down --yes {cluster}",
    ]


def _more_than_asked(launch: Launch, machine: Machine) -> list[str]:
    """Return a comment that names the machine, if it has more GPUs or cores than were asked for."""
    if (machine.gpus, machine.cpus) == (launch.gpus, launch.cpus):
        return []
    return [
        f"# Each node is a whole {machine.type}, the smallest that has enough: {machine.gpus} GPUs and "
        f"{machine.cpus} cores are paid for and used ({launch.gpus} and {launch.cpus} were asked for)."
    ]


def refusals(launch: Launch) -> Iterator[str]:
    """Yield why the cloud's machines could not run the sweep."""
    if not launch.in_bucket:
        yield f"--store: machines of a cloud do not see {launch.store}; give a bucket, such as s3://bucket/sweep"


def _cluster(
    launch: Launch,
    machine: Machine,
    provider: dict[str, Any],
    head: dict[str, Any],
    workers: dict[str, Any],
    account: str,
) -> dict[str, str]:
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    image = launch.image or f"rayproject/ray:{version('ray')}-{python}{'-gpu' if launch.gpus else ''}"
    torch = version("torch").partition("+")[0]
    start = "RAY_AUTH_MODE=token ray start"
    document = {
        "cluster_name": launch.name,
        "max_workers": launch.nodes,
        "upscaling_speed": 2.0,
        "idle_timeout_minutes": 5,
        "provider": provider,
        "auth": {"ssh_user": "ubuntu"},
        "docker": {"image": image, "container_name": "distlaw", "pull_before_run": True},
        "file_mounts": {TOKEN: TOKEN},
        "available_node_types": {
            "head": {"resources": {"CPU": 0, "GPU": 0}, "node_config": head},
            "workers": {
                "min_workers": 0,
                "max_workers": launch.nodes,
                "resources": {"CPU": machine.cpus, "GPU": machine.gpus},
                "node_config": workers,
            },
        },
        "head_node_type": "head",
        "setup_commands": [*launch.setup, f"pip install -q torch=={torch} {' '.join(launch.store_packages)}"],
        "head_start_ray_commands": [
            "ray stop",
            f"{start} --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml "
            "--disable-usage-stats",
        ],
        "worker_start_ray_commands": ["ray stop", f"{start} --address=$RAY_HEAD_IP:6379"],
    }
    notes = [
        f"Ray cluster for the sweep {launch.sweep.name}: nodes come when steps wait, and go when idle.",
        f"Review {account}: it must exist, and may read and write {launch.store}.",
    ]
    return {CLUSTER: with_header(document, *notes)}
