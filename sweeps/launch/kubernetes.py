"""Manifests for Kubernetes: an indexed Job whose pods are drivers, or a RayJob; Kueue may queue both."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from sweeps.launch.launch import GRACE_SECONDS, SPEC, Launch, with_header

MANIFEST = "manifest.yaml"
MOUNTED = "/etc/distlaw"
"""Directory of the spec in every pod."""
MAX_SPEC_BYTES = 1_000_000
"""Largest spec that fits in a ConfigMap."""


def write_job(launch: Launch, folder: Path) -> dict[str, str]:  # noqa: ARG001
    """Return an indexed Job, each pod of which is a driver of its own.

    Raises:
        InputError: for a step on several nodes, which need a network of their own.
    """
    if launch.largest.nodes > 1:
        raise InputError(
            f"resources: a step takes {launch.largest.nodes} nodes, which pods of a Job cannot train "
            "together; use kuberay"
        )
    command = [*launch.run_command(f"{MOUNTED}/{SPEC}", "process"), "--cores", str(launch.cpus)]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(launch),
        "spec": {
            "completionMode": "Indexed",
            "completions": launch.nodes,
            "parallelism": launch.nodes,
            "backoffLimitPerIndex": 3,
            "activeDeadlineSeconds": round(launch.hours * 3600),
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {"spec": _pod(launch, "driver", command, launch.gpus) | {"restartPolicy": "Never"}},
        },
    }
    what = f"Sweep {launch.sweep.name}: {launch.nodes} pods that share its steps through {launch.store}."
    return {MANIFEST: with_header([_config_map(launch), job], what)}


def write_rayjob(launch: Launch, folder: Path) -> dict[str, str]:  # noqa: ARG001
    """Return a RayJob: a head that runs no steps, and workers; without a queue they come when needed."""
    group = {
        "groupName": "workers",
        "replicas": launch.nodes if launch.queue else 0,
        "minReplicas": launch.nodes if launch.queue else 0,
        "maxReplicas": launch.nodes,
        "rayStartParams": {},
        "template": {"spec": _pod(launch, "ray-worker", None, launch.gpus)},
    }
    head = _pod(launch, "ray-head", None, 0, cpus=2, memory=8)
    head["containers"][0]["ports"] = [{"containerPort": 8265, "name": "dashboard"}]
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(launch),
        "spec": {
            "entrypoint": shlex.join(launch.run_command(f"{MOUNTED}/{SPEC}", "ray")),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "activeDeadlineSeconds": round(launch.hours * 3600),
            "backoffLimit": 3,
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": not launch.queue,  # Kueue reserves all nodes at once
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": {"spec": head}},
                "workerGroupSpecs": [group],
            },
        },
    }
    what = f"Sweep {launch.sweep.name} on Ray, by the KubeRay operator 1.5 or later, into {launch.store}."
    return {MANIFEST: with_header([_config_map(launch), job], what)}


def commands(launch: Launch, folder: Path) -> list[str]:
    """Return what to type next."""
    return [
        f"kubectl apply -f {shlex.quote(str(folder / MANIFEST))}",
        f"distlaw sweep watch {shlex.quote(launch.store)}",
    ]


def refusals(launch: Launch) -> Iterator[str]:
    """Yield why pods could not run the sweep."""
    if not launch.image:
        yield "--image: pods need an image with distlaw; docs/how-to/cluster.md has a Dockerfile"
    if not launch.in_bucket:
        yield f"--store: pods do not see {launch.store}; give a bucket, such as s3://bucket/sweep"
    for field in launch.local_files():
        yield f"{field} is a file of this machine, which pods do not see; name a text or hf:OWNER/NAME"
    if len(launch.spec_text()) > MAX_SPEC_BYTES:
        yield f"the spec has more than {MAX_SPEC_BYTES:,} bytes, which no ConfigMap holds"


def _metadata(launch: Launch) -> dict[str, Any]:
    labels = {"kueue.x-k8s.io/queue-name": launch.queue} if launch.queue else {}
    return {"name": launch.name} | ({"labels": labels} if labels else {})


def _config_map(launch: Launch) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": launch.name},
        "data": {SPEC: launch.spec_text()},
    }


def _pod(
    launch: Launch,
    container: str,
    command: list[str] | None,
    gpus: int,
    *,
    cpus: int | None = None,
    memory: int | None = None,
) -> dict[str, Any]:
    amount = {"cpu": str(cpus or launch.cpus), "memory": f"{memory or launch.memory or 4 * launch.cpus}Gi"}
    amount |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
    spec: dict[str, Any] = {
        "name": container,
        "image": launch.image,
        "resources": {"requests": amount, "limits": amount},
        "volumeMounts": [{"name": "spec", "mountPath": MOUNTED}],
    }
    return {
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [spec | ({"command": command} if command else {})],
        "volumes": [{"name": "spec", "configMap": {"name": launch.name}}],
    }
