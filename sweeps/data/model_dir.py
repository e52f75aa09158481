"""A model's directory, from disk or a hub: what must be in it, what is refused, and its fingerprint.

Only JSON and safetensors are ever read from it: no pickles, no code.
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
SMALL = ("*.json",)
"""What planning needs from a hub."""
ALL = ("*.json", "*.safetensors")
PICKLES = ("*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a foreign model is, for any process of this sweep."""

    model: str
    """An absolute path, or OWNER/NAME on a hub."""
    commit: str | None = None
    """Of the hub's repository."""

    def folder(self, patterns: Sequence[str] = ALL) -> Path:
        """Its directory on this machine, fetched from the hub if that is where it is."""
        if self.commit is None:
            return Path(self.model)
        return snapshot(self.model, self.commit, patterns)

    @property
    def fingerprint(self) -> str:
        """What identifies its numbers: of a hub the commit, of a directory what is in its files."""
        if self.commit:
            return hashlib.sha256(f"{self.model}@{self.commit}".encode()).hexdigest()[:16]
        folder = Path(self.model)
        sums = [f"{path.name} {_sha256(path)}" for path in [folder / "config.json", *weights(folder)]]
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16]


def locate(model: str, revision: str | None, where: str) -> Place:
    """Find the model that a spec names, in a directory or on a hub, and see that it can be used.

    Raises:
        InputError: naming ``where`` it was asked for, what is wrong with it, and what would be right.
    """
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        raise InputError(
            f"{where}: {model} is a GGUF file; make a directory of it, once: "
            f"distlaw teacher import {model} DIR"
        )
    if path.is_dir():
        if revision is not None:
            raise InputError(f"{where}: {model} is a directory, which has no revisions; remove 'revision'")
        place = Place(model=str(path.absolute()))
        weights(path, where)
        config(path, where)
        return place
    if not HUB_ID.fullmatch(model):
        raise InputError(f"{where}: there is no directory {model}; give one, or OWNER/NAME on a hub")
    folder = snapshot(model, revision, SMALL, where)
    config(folder, where)
    return Place(model=model, commit=folder.name)


def snapshot(model: str, revision: str | None, patterns: Sequence[str], where: str = "teacher") -> Path:
    """The files of a hub's repository that match ``patterns``, in the hub's own cache.

    Raises:
        InputError: if they cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # many kinds: no network, no such repository, no access, no such revision
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{where}: there is no directory {model}, and it cannot be had from the hub ({reason})"
        ) from None


def config(folder: Path, where: str = "teacher") -> dict[str, Any]:
    """The model's ``config.json``.

    Raises:
        InputError: if there is none that can be read.
    """
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{where}: {folder} holds no model (no config.json); give a directory that save_pretrained wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {file} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{where}: {file} is not a JSON object")
    return found


def weights(folder: Path, where: str = "teacher") -> list[Path]:
    """The safetensors files that hold the weights, all of them there.

    Raises:
        InputError: if there are none, some are missing, or they exist only as pickles.
    """
    found = sorted(folder.glob("*.safetensors"))
    missing = _listed(folder, where) - {path.name for path in found}
    if missing:
        raise InputError(f"{where}: {folder} is incomplete: {', '.join(sorted(missing))} missing")
    if found:
        return found
    pickles = sorted(path.name for kind in PICKLES for path in folder.glob(kind))
    if pickles:
        raise InputError(
            f"{where}: {folder} holds its weights as pickles ({', '.join(pickles)}), which can run code and "
            "are not read; save them as safetensors where you trust them: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)"
        )
    if gguf := sorted(folder.glob("*.gguf")):
        raise InputError(
            f"{where}: {folder} holds a GGUF file; make a directory of it, once: "
            f"distlaw teacher import {gguf[0]} DIR"
        )
    raise InputError(f"{where}: {folder} holds no weights (*.safetensors)")


def _listed(folder: Path, where: str) -> set[str]:
    """The files that an index of shards names, if there is one."""
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
