"""Submission of a sweep as a job to a Ray cluster.

The job runs the sweep's driver on the head node. Its working directory is uploaded: the resolved spec, text
files that it names, and the packages of this checkout, so that the cluster runs the same code.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import glob
from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from scaling.errors import InputError
from sweeps.data.files.source_files import is_url
from sweeps.data.named_corpora import NAMED_CORPORA
from sweeps.spec.pretrained import Pretrained
from sweeps.spec.spec import Sweep

PACKAGES = ("scaling", "fits", "sweeps", "distlaw")
SPEC = "sweep.yaml"
MAX_BYTES = 100e6
"""Largest size of uploaded text files, which Ray keeps in the memory of the head node."""
STARTING_SECONDS = 60.0
"""Seconds to wait for a new head node to accept jobs."""
NOT_SENT = ("ray", "torch", "distlaw")
"""Packages that are never installed for a job, as those of the cluster's image match its hardware."""


@contextmanager
def working_directory(sweep: Sweep) -> Iterator[Path]:
    """Yield a working directory for the job.

    Raises:
        InputError: for text files that are too large to upload.
    """
    with TemporaryDirectory(prefix="distlaw-job-") as scratch:
        fill_directory(sweep, Path(scratch))
        yield Path(scratch)


def fill_directory(sweep: Sweep, folder: Path) -> None:
    """Write to ``folder`` all that runs the sweep on a machine with the pinned packages: code, spec, texts.

    Raises:
        InputError: for text files that are too large to upload, or directories that are not sent along.
    """
    for field, name in local_models(sweep).items():
        if not Path(name).is_absolute():
            raise InputError(
                f"{field}: {name} is a directory of this machine that is not sent along; name OWNER/NAME on "
                "a hub, or an absolute path that all nodes see"
            )
    spec = sweep.model_dump(mode="json", exclude_unset=True)
    source = sweep.corpus.source
    if source not in NAMED_CORPORA and not source.startswith("hf:") and not is_url(source):
        spec["corpus"]["source"] = _copy_texts(source, folder)
    (folder / SPEC).write_text(yaml.safe_dump(spec, sort_keys=False))
    _copy_scripts(sweep, folder)
    for package in PACKAGES:
        found = find_spec(package)
        assert found is not None
        assert found.submodule_search_locations is not None
        shutil.copytree(
            next(iter(found.submodule_search_locations)),
            folder / package,
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )


def local_models(sweep: Sweep) -> dict[str, str]:
    """Return directories of this machine that a spec names for a tokenizer or a model, by field."""
    named = {"corpus.tokenizer": sweep.corpus.tokenizer or ""}
    for number, teacher in enumerate(sweep.teachers):
        if isinstance(teacher, Pretrained):
            named[f"teachers[{number}].model"] = teacher.model
    return {field: name for field, name in named.items() if name and Path(name).expanduser().exists()}


def pinned_requirements() -> list[str]:
    """Return the requirements of a job besides torch and Ray, in the versions installed here."""
    ours = [text for text in requires("distlaw") or () if "extra" not in text or '"sweeps"' in text]
    names = set(map(_name, ours))
    return [f"{name}=={version(name)}" for name in sorted(names - set(NOT_SENT))]


def submit(address: str, sweep: Sweep, store: str, *, install: bool = False) -> str:
    """Submit the sweep to the job server at ``address``; return the name of the job.

    With ``install`` the job's environment has the packages of :func:`pinned_requirements`, which needs a
    network; without it, those of the cluster are used.

    Raises:
        InputError: if there is no answer, access is denied, or not all nodes can reach the store.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if "://" not in store and not Path(store).is_absolute():
        raise InputError(
            f"--store: {store} must be a URL, such as s3://bucket/{sweep.name}, or an absolute path that all "
            "nodes of the cluster see"
        )
    for chatty in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        client = JobSubmissionClient(address)
        with working_directory(sweep) as folder:
            command = ["python", "-m", "distlaw", "sweep", "run", SPEC, "--store", store, "--address", "auto"]
            environment: dict[str, Any] = {"working_dir": str(folder)}
            if install:
                environment["pip"] = pinned_requirements()
            about = {"sweep": sweep.name, "store": store}
            return _patiently(
                lambda: client.submit_job(
                    entrypoint=shlex.join(command), runtime_env=environment, metadata=about
                )
            )
    except AuthenticationError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--address {address}: the job server denies access ({reason}); copy the cluster's token "
            "into RAY_AUTH_TOKEN, or a file named by RAY_AUTH_TOKEN_PATH, and set RAY_AUTH_MODE=token"
        ) from None
    except ConnectionError:
        raise InputError(
            f"--address {address}: no job server answers; check that the head node runs, and that its "
            "dashboard port is reachable (kubectl port-forward, ssh -L 8265:localhost:8265, or ray dashboard "
            "cluster.yaml)"
        ) from None
    except ValueError as error:
        raise InputError(f"--address {address}: {error}; such as http://127.0.0.1:8265") from None
    except RuntimeError as error:
        raise InputError(f"--address {address}: the job server refused ({_last_line(error)})") from None


def _patiently(submit: Callable[[], str]) -> str:
    """Submit, repeatedly while a server that has just started is not ready."""
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        try:
            return submit()
        except RuntimeError as error:
            if "try again later" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def _copy_texts(source: str, folder: Path) -> str:
    """Copy the files that ``source`` names to ``folder``; return a pattern of the copies."""
    files = [Path(name) for name in sorted(glob(source, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
    size = sum(file.stat().st_size for file in files)
    if not files:
        raise InputError(f"corpus.source: no file at {source}")
    if size > MAX_BYTES:
        raise InputError(
            f"corpus.source: {source} is {size / 1e6:.0f} MB, too large to upload (at most "
            f"{MAX_BYTES / 1e6:.0f} MB); name a corpus, or hf:OWNER/NAME, which every node downloads"
        )
    texts = folder / "texts"
    texts.mkdir(exist_ok=True)
    for number, file in enumerate(files):
        shutil.copy(file, texts / f"{number:05d}-{file.name}")
        other = file.with_suffix({".bin": ".idx", ".idx": ".bin"}.get(file.suffix, file.suffix))
        if other != file and other.is_file():
            shutil.copy(other, texts / f"{number:05d}-{other.name}")
    return f"texts/*{files[0].suffix}"


def _copy_scripts(sweep: Sweep, folder: Path) -> None:
    """Copy the files that commands name by a path below this directory, such as ``train.py``."""
    words = {word for trainer in sweep.trainers.values() for word in trainer.command or ()}
    for word in sorted(words):
        file = Path(word)
        if not file.is_absolute() and ".." not in file.parts and file.is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / file)


def _name(requirement: str) -> str:
    for sign in "[<>=!~; ":
        requirement = requirement.partition(sign)[0]
    return requirement


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
