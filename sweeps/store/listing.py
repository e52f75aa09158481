"""Listing of all files of a store, with stamps by which a reader knows that a step has not changed."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.store.requests import request_all

if TYPE_CHECKING:
    from sweeps.store.store import Store

ATTEMPTS = "attempts"
RESULT = "result.json"
OBJECTS_PER_REQUEST = 1000
"""Names in one page of a listing."""
OBJECTS_PER_STEP = 8
"""Usual number of files of a step."""
SETTLED_SECONDS = 2.0
"""Age above which a file's time tells apart versions of it; clocks of file systems tick in up to as much."""
ETAGS = ("ETag", "etag", "e_tag", "generation")
"""Names by which clients of buckets call what identifies a version of an object."""

Stamps = dict[str, str]


class Listing:
    """Steps of a store at one time: the stamps of finished ones, and the files of any."""

    def __init__(self, store: Store, expected: int = 0) -> None:
        """List a store of about ``expected`` steps."""
        self.store = store
        self._contents: dict[str, set[str]] = {}
        self.steps: list[str] = []
        """Names of the directories of steps, in order; also of others without a dot."""
        self.stamps: Stamps = {}
        """Stamps by step: two are equal only if nothing has changed between."""
        if store.local:
            self.steps = [name for name in store.names() if "." not in name]
            self.stamps = local_stamps(store, self.steps)
        else:
            self._contents, self.stamps = bucket_listing(store, expected)
            self.steps = sorted(name for name in self._contents if "." not in name)

    def contents(self, steps: Iterable[str], *, attempts: bool = True) -> dict[str, set[str]]:
        """Return the names of the files of ``steps``, those of attempts as ``attempts/<name>``.

        Of steps with a stamp on a disk these are the result and, if ``attempts``, the files of attempts.
        """
        if not self.store.local:
            return {step: self._contents[step] for step in steps}
        asked = list(steps)
        found = local_contents(self.store, [step for step in asked if step not in self.stamps])
        for step in asked:
            if step in self.stamps:
                found[step] = {RESULT, *(_attempt_names(self.store, step) if attempts else ())}
        return found


def local_contents(store: Store, steps: Iterable[str] | None = None) -> dict[str, set[str]]:
    """Return the names of files in the directories of ``steps``, all by default, of a store on a disk."""
    found: dict[str, set[str]] = {}
    for step in store.names() if steps is None else steps:
        folder = Path(store.path, step)
        names = _listed(folder)
        if names is None:
            if folder.is_symlink():  # to nowhere: reading its result says so
                found[step] = {RESULT}
            continue
        if ATTEMPTS in names:
            names |= _attempt_names(store, step)
        found[step] = names
    return found


def _attempt_names(store: Store, step: str) -> set[str]:
    there = _listed(f"{store.path}/{step}/{ATTEMPTS}")
    if there is None:
        there = set(store.names(step, ATTEMPTS))  # refuses a link without its target
    return {f"{ATTEMPTS}/{name}" for name in there}


def attempt_names(names: Iterable[str]) -> list[str]:
    """Return the names in ``attempts`` among the names of a step's files."""
    begin = f"{ATTEMPTS}/"
    return [name.removeprefix(begin) for name in names if name.startswith(begin)]


def _listed(folder: str | Path) -> set[str] | None:
    try:
        return set(os.listdir(folder))  # noqa: PTH208  (a fifth of the time of pathlib's)
    except (FileNotFoundError, NotADirectoryError):
        return None


def local_stamps(store: Store, steps: Iterable[str]) -> Stamps:
    """Return stamps of the finished ``steps`` of a store on a disk.

    They change whenever the result is replaced, edited or removed, or a file of the attempts is created,
    replaced or removed. What has changed within the last seconds has none, as it may change again unseen.
    """
    latest = (time.time() - SETTLED_SECONDS) * 1e9
    found = {}
    for step in steps:
        place = f"{store.path}/{step}/"
        try:
            about = os.stat(place + RESULT)  # noqa: PTH116  (a third of the time of pathlib's)
            folder = os.stat(place + ATTEMPTS)  # noqa: PTH116
        except OSError:
            continue
        if max(about.st_ctime_ns, folder.st_ctime_ns) < latest:
            parts = (about.st_dev, about.st_ino, about.st_size, about.st_ctime_ns)
            found[step] = ".".join(map(str, (*parts, folder.st_ino, folder.st_ctime_ns)))
    return found


def bucket_contents(store: Store, expected: int = 0) -> dict[str, set[str]]:
    """Return the names of the files of every step of an object store; ``expected`` is their rough number."""
    return {step: set(names) for step, names in _details(store, expected, detail=False).items()}


def bucket_listing(store: Store, expected: int = 0) -> tuple[dict[str, set[str]], Stamps]:
    """Return the names of the files of every step of an object store, and the stamps of finished ones.

    Stamps are made of what the store says of the version of each file; without that there are none.
    """
    found = _details(store, expected, detail=True)
    stamps = {step: stamp for step, names in found.items() if (stamp := _stamp(names))}
    return {step: set(names) for step, names in found.items()}, stamps


def _stamp(names: Mapping[str, Any]) -> str | None:
    versions = []
    for name in sorted(names):
        if name == RESULT or name.startswith(f"{ATTEMPTS}/"):
            tag = next((names[name][key] for key in ETAGS if names[name].get(key)), None)
            if tag is None:
                return None
            versions.append(f"{name}={str(tag).strip(chr(34))}")
    return ";".join(versions) if RESULT in names else None


def _details(store: Store, expected: int, *, detail: bool) -> dict[str, dict[str, Any]]:
    """Return the files of every step by name, with what is known of each if ``detail``."""
    found: dict[str, dict[str, Any]] = {}
    begin = len(store.path) + 1
    for path, known in _found(store, expected, detail=detail):
        step, _, name = path[begin:].partition("/")
        found.setdefault(step, {})[name] = known
    return found


def _found(store: Store, expected: int, *, detail: bool) -> Iterator[tuple[str, Any]]:
    """Yield path and details of every file: of a large store by concurrent requests for parts of it."""
    options = {"detail": True} if detail else {}
    prefixes = _prefixes(expected) if _takes_prefix(store.files) else [""]

    def find(prefix: str) -> Any:
        return store.files.find(store.path, **options, **({"prefix": prefix} if prefix else {}))

    for answer in request_all(find, prefixes):
        yield from answer.items() if detail else ((str(path), None) for path in answer)


def _takes_prefix(files: Any) -> bool:
    """Return True if a file system lists a part of a directory, as the asynchronous clients of buckets do."""
    find = getattr(files, "_find", None)
    return find is not None and "prefix" in inspect.signature(find).parameters


def _prefixes(expected: int) -> list[str]:
    """Return beginnings of steps' ids, by which a store of ``expected`` steps is listed in parts.

    Ids are hexadecimal. Files of a sweep that are of no step and begin with another letter are left out.
    """
    pages = expected * OBJECTS_PER_STEP / OBJECTS_PER_REQUEST
    digits = 0 if pages < 16 else 1 if pages < 256 else 2
    return [f"{number:0{digits}x}" for number in range(16**digits)] if digits else [""]
