"""A client of NFS in user space: a mount through which others' changes to a directory are seen late.

``python nfs_stand_in.py DIRECTORY MOUNT SEED``. Two mounts of one directory are two hosts. Each keeps names,
missing names and listings for a while, finds the handle of a file stale that another host has replaced, and
sometimes loses the server's answer to a link, so that its retry is told that the name exists.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
from typing import Any

from mfusepy import FUSE, FuseOSError, Operations

CACHE_SECONDS = 1.5
"""Seconds that names, attributes and listings are kept (acregmin is 3 s, acdirmin 30 s)."""
LOST_ANSWERS = 0.2
"""Share of links whose answer is lost."""


class Client(Operations):  # type: ignore[misc]
    """One host's view of a directory of the server."""

    use_ns = True

    def __init__(self, directory: str, seed: int) -> None:
        self.directory, self.draw, self.lock = directory, random.Random(seed), threading.Lock()
        self.listings: dict[str, tuple[float, list[str]]] = {}
        self.inodes: dict[str, int] = {}

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.fstat(fh) if fh else os.lstat(self._at(path))
        self.inodes[path] = found.st_ino
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
        times = {name: getattr(found, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
        return {name: getattr(found, name) for name in names} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        then, names = self.listings.get(path, (0.0, []))
        if time.monotonic() - then > CACHE_SECONDS:
            names = [".", "..", *os.listdir(self._at(path))]
            self.listings[path] = time.monotonic(), names
        return names

    def open(self, path: str, flags: int) -> int:
        known, now = self.inodes.pop(path, None), os.stat(self._at(path)).st_ino
        if known not in (None, now):
            raise FuseOSError(errno.ESTALE)
        return os.open(self._at(path), flags)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._changed(path)
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(fh or self._at(path), length)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def link(self, target: str, source: str) -> None:
        os.link(self._at(source), self._at(target))
        self._changed(target)
        with self.lock:
            lost = self.draw.random() < LOST_ANSWERS
        if lost:
            raise FuseOSError(errno.EEXIST)

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))
        self._changed(old)
        self._changed(new)

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))
        self._changed(path)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)
        self._changed(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))
        self._changed(path)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._at(path), ns=times)

    def statfs(self, path: str) -> dict[str, Any]:
        found = os.statvfs(self._at(path))
        return {
            name: getattr(found, name) for name in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize")
        }

    def _at(self, path: str) -> str:
        return self.directory + path

    def _changed(self, path: str) -> None:
        """Forget what this host knows of a name that it has changed itself."""
        self.inodes.pop(path, None)
        self.listings.pop(os.path.dirname(path), None)


if __name__ == "__main__":
    directory, mount, seed = sys.argv[1:]
    kept = dict.fromkeys(("entry_timeout", "negative_timeout"), CACHE_SECONDS) | {"attr_timeout": 0.0}
    FUSE(Client(directory, int(seed)), mount, foreground=True, **kept)
