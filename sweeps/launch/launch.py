"""Description of what a sweep is launched on, the same for all schedulers."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from scaling.errors import InputError
from sweeps.data.corpus import with_absolute_paths
from sweeps.data.named_corpora import NAMED_CORPORA
from sweeps.execute.submission import local_models
from sweeps.spec.resources import Resources
from sweeps.spec.spec import Sweep
from sweeps.store.store import BUCKETS

SHARED = ("file", "local")
"""Schemes of paths that nodes have in common."""
CLIENT_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
    "oss": "ossfs",
    "oci": "ocifs",
}
"""Packages with the clients of :data:`sweeps.store.store.BUCKETS`, by scheme."""
SPEC = "sweep.yaml"
"""File of the spec, beside what a scheduler reads."""
ALWAYS_USED = ("nodes", "cpus", "gpus")
"""Fields with defaults that every scheduler uses."""
GRACE_SECONDS = 120
"""Seconds that a driver has for checkpoints before it is killed."""
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?/"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
IMAGE = re.compile(
    rf"(?:{_HOST})?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)
"""Grammar of references to container images, as the OCI distribution specification and its registries read
them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Sweep, and the machines that it is to run on."""

    sweep: Sweep
    store: str
    """Absolute path that all nodes see, or a URL."""
    nodes: int = 1
    """Nodes, at most where they come and go."""
    cpus: int = 8
    """Cores of each node."""
    gpus: int = 0
    """GPUs of each node."""
    gpu: str | None = None
    """Kind of GPU as the scheduler calls it, such as h100."""
    memory: int | None = None
    """Memory of each node, GiB."""
    hours: float = 24.0
    """Longest time that a node works."""
    image: str | None = None
    """Container image with distlaw."""
    queue: str | None = None
    """Partition of Slurm, or local queue of Kueue."""
    account: str | None = None
    """Account that is charged, or project of Google Cloud."""
    region: str | None = None
    spot: bool = False
    """Cheaper machines that may be taken away."""
    setup: tuple[str, ...] = ()
    """Shell lines that come first on each node, such as ``module load cuda``."""

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise InputError(problem)

    @property
    def name(self) -> str:
        """Name of the job: letters, digits and hyphens, as Kubernetes asks for."""
        words = re.sub(r"[^a-z0-9]+", "-", self.sweep.name.lower()).strip("-")
        return f"distlaw-{words[:40]}".rstrip("-")

    @property
    def scheme(self) -> str:
        """Scheme of the store's URL; empty for a path."""
        return urlsplit(self.store).scheme

    @property
    def in_bucket(self) -> bool:
        """True if machines without a file system in common reach the store."""
        return self.scheme in BUCKETS

    @property
    def store_packages(self) -> list[str]:
        """Packages with the client of the store's bucket."""
        return [CLIENT_PACKAGES[self.scheme]] if self.in_bucket else []

    @property
    def largest(self) -> Resources:
        """Resources of the step that asks for most nodes, then GPUs."""
        return max(self.sweep.resources, key=lambda rule: (rule.nodes, rule.gpus), default=Resources())

    @property
    def time(self) -> str:
        """Time limit as ``HH:MM:SS``."""
        seconds = round(self.hours * 3600)
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def spec_text(self) -> str:
        """Return the spec as YAML, with absolute paths."""
        changed = self.sweep.model_copy(update={"corpus": with_absolute_paths(self.sweep.corpus)})
        return yaml.safe_dump(changed.model_dump(mode="json", exclude_unset=True), sort_keys=False)

    def local_files(self) -> Iterator[str]:
        """Yield fields of the spec that name files of this machine, with what they name."""
        sources = {"corpus.source": self.sweep.corpus.source}
        if self.sweep.base:
            sources["base.source"] = self.sweep.base.source
        for field, source in sources.items():
            if source not in NAMED_CORPORA and not source.startswith("hf:") and "://" not in source:
                yield f"{field}: {source}"
        yield from (f"{field}: {name}" for field, name in local_models(self.sweep).items())

    def run_command(self, spec: str, executor: str, python: str = "python") -> list[str]:
        """Return the words of the command that a node runs."""
        command = [python, "-m", "distlaw", "sweep", "run", spec, "--store", self.store]
        return [*command, *(["--address", "auto"] if executor == "ray" else ["--executor", executor])]

    def _problems(self) -> Iterator[str]:
        if "://" not in self.store and not Path(self.store).is_absolute():
            yield (
                f"--store: {self.store} must be a URL, such as s3://bucket/{self.sweep.name}, or an absolute "
                "path that all nodes see"
            )
        if urlsplit(self.store).password:
            yield "--store: a URL with a password would be written to files; leave it to the environment"
        if self.scheme == "memory":
            yield f"--store: {self.store} is memory of one process; give a bucket, or a path of all nodes"
        elif self.scheme not in ("", *SHARED, *BUCKETS):
            yield (
                f"--store: {self.scheme}:// is no place where a file is created at most once, as a sweep "
                f"needs; give a path of all nodes, or a bucket ({', '.join(sorted(BUCKETS))})"
            )
        if self.image is not None and not IMAGE.fullmatch(self.image):
            yield (
                f"--image: {self.image!r} is no name of an image, such as registry/distlaw:1; it is written "
                "[HOST[:PORT]/]PATH[:TAG][@DIGEST], the path in lower case"
            )
        if self.gpu and not self.gpus:
            yield f"--gpu: {self.gpu}, but nodes have no GPUs; give --gpus, as the spec asks for none"
        if not (self.hours >= 1 / 60 and math.isfinite(self.hours)):
            yield f"--hours: {self.hours:g} is no time to work in"
        for number, rule in enumerate(self.sweep.resources):
            for what, asked, there in (
                ("nodes", rule.nodes, self.nodes),
                ("gpus", rule.gpu_count, self.gpus),
                ("cpus", rule.cpus, self.cpus),
            ):
                if asked > there:
                    yield (
                        f"resources[{number}].{what}: {asked:g} are asked for, and --{what} gives {there:g}"
                    )


def unused_options(launch: Launch, used: Collection[str]) -> Iterator[str]:
    """Yield the options that were given and that a scheduler which uses ``used`` would ignore."""
    for each in fields(launch):
        optional = each.default is not MISSING and each.name not in ALWAYS_USED
        if optional and each.name not in used and getattr(launch, each.name) != each.default:
            yield f"--{each.name}"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def with_header(document: Any, *lines: str) -> str:
    """Return one document or several as YAML, with comment lines before them."""
    documents = document if isinstance(document, list) else [document]
    text = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=110)
    return "".join(f"# {line}\n" for line in lines) + text
