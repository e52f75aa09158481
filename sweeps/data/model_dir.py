"""Model directories on disk or on a hub: location, required files and fingerprint.

Only JSON and safetensors are read, no pickles and no code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from scaling.errors import InputError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
PLANNING_FILES = ("*.json",)
"""Files that planning needs from a hub."""
MODEL_FILES = ("*.json", "*.safetensors")
PICKLES = ("*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLocation:
    """Location of an external model, valid in any process of the sweep."""

    model: str
    """An absolute path, or OWNER/NAME on a hub."""
    commit: str | None = None
    """Commit of the repository on the hub; None for a directory."""

    def folder(self, patterns: Sequence[str] = MODEL_FILES) -> Path:
        """Return its directory on this machine, downloaded from the hub if needed."""
        if self.commit is None:
            return Path(self.model)
        return snapshot(self.model, self.commit, patterns)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the weights: from the commit on a hub, or from the content of a directory."""
        if self.commit:
            return hashlib.sha256(f"{self.model}@{self.commit}".encode()).hexdigest()[:16]
        folder = Path(self.model)
        sums = [f"{path.name} {_sha256(path)}" for path in [folder / "config.json", *weight_files(folder)]]
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16]


def locate(model: str, revision: str | None, where: str, *, weights: bool = True) -> ModelLocation:
    """Locate the model that a spec names, in a directory or on a hub, and check its files.

    Without ``weights`` its configuration is enough.

    Raises:
        InputError: with ``where``, its field, the problem and a remedy.
    """
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        raise InputError(
            f"{where}: {model} is a GGUF file; convert it to a directory once: "
            f"distlaw teacher import {model} DIR"
        )
    if path.is_dir():
        if revision is not None:
            raise InputError(f"{where}: {model} is a directory, which has no revisions; remove 'revision'")
        place = ModelLocation(model=str(path.absolute()))
        if weights:
            weight_files(path, where)
        read_config(path, where)
        return place
    if not HUB_ID.fullmatch(model):
        raise InputError(f"{where}: no directory {model}; give one, or OWNER/NAME on a hub")
    folder = snapshot(model, revision, PLANNING_FILES, where)
    read_config(folder, where)
    return ModelLocation(model=model, commit=folder.name)


def snapshot(model: str, revision: str | None, patterns: Sequence[str], where: str = "teacher") -> Path:
    """Download the files of a hub's repository that match ``patterns`` to the hub's cache.

    Raises:
        InputError: if the download fails.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # many kinds: no network, no such repository, no access, no such revision
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{where}: no directory {model}, and the download from the hub failed ({reason})"
        ) from None


def read_config(folder: Path, where: str = "teacher") -> dict[str, Any]:
    """Read the model's ``config.json``.

    Raises:
        InputError: if it is missing or not readable.
    """
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{where}: {folder} is not a model directory (no config.json); give one written by "
            "save_pretrained"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {file} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{where}: {file} is not a JSON object")
    return found


def weight_files(folder: Path, where: str = "teacher") -> list[Path]:
    """Return the safetensors files with the weights, after checking that all are there.

    Raises:
        InputError: if some or all are missing, or they exist only as pickles.
    """
    found = sorted(folder.glob("*.safetensors"))
    missing = _indexed_files(folder, where) - {path.name for path in found}
    if missing:
        raise InputError(f"{where}: {folder} is incomplete: {', '.join(sorted(missing))} missing")
    if found:
        return found
    pickles = sorted(path.name for kind in PICKLES for path in folder.glob(kind))
    if pickles:
        raise InputError(
            f"{where}: {folder} has its weights as pickles ({', '.join(pickles)}), which can run code and "
            "are not read; if you trust them, save them as safetensors: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)"
        )
    if gguf := sorted(folder.glob("*.gguf")):
        raise InputError(
            f"{where}: {folder} has a GGUF file; convert it to a directory once: "
            f"distlaw teacher import {gguf[0]} DIR"
        )
    raise InputError(f"{where}: {folder} has no weights (*.safetensors)")


def _indexed_files(folder: Path, where: str) -> set[str]:
    """Return the files that an index of shards names, if there is one."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{where}: {index} cannot be read ({error!r})") from None


def _sha256(path: Path) -> str:
    about = path.stat()
    return _sha256_of(path, about.st_size, about.st_mtime_ns)


@lru_cache
def _sha256_of(path: Path, size: int, changed: int) -> str:  # noqa: ARG001
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
