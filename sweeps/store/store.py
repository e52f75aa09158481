"""Store of a sweep: one directory for each step, which is done if its ``result.json`` exists.

::

    store/sweep.json            the resolved spec of the last sweep run here, with versions
    store/steps.json            its steps in short: kind, dependencies and FLOPs
    store/rounds/               decisions of an adaptive sweep (sweeps.adaptive.rounds)
    store/drivers/              records of the processes that drove it (sweeps.execute.drivers.drivers)
    store/<id>/step.json        the step
    store/<id>/attempts/        attempts at it, with progress and endings (sweeps.store.leases)
    store/<id>/failure.json     reason why it was given up
    store/<id>/checkpoints/     checkpoints to resume from; removed when it is done
    store/<id>/model-<attempt>/ weights (safetensors), config, tokenizer: loads in transformers
    store/<id>/result.json      its losses and the name of its model; written last, created at most once

There is no other state: the steps that are done and missing are determined from the store.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from scaling.errors import InputError
from sweeps.store.durable_file import Chunks, linked_once, written_beside
from sweeps.store.faults import CREDENTIALS, NotedFileSystem, client_error_message, remedy
from sweeps.store.listing import bucket_contents, local_contents
from sweeps.store.outcomes import is_transient
from sweeps.store.records import record_fault, remedy_of_damage
from sweeps.store.requests import CONCURRENT, request_all

Answer = TypeVar("Answer")
Place = tuple[str, ...]

CLIENTS = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "max_pool_connections": CONCURRENT}}
}
"""Options of file systems: a lost connection must be noticed before a lease expires, and requests run at the
same time, of which botocore sends ten by default."""
BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"}
"""Protocols whose paths begin with a bucket, which a sweep never creates, as its name may be mistyped."""
RECORDS = ("step.json", "result.json", "failure.json")
"""Files of which every step that was started has at least one."""


class Store:
    """Store at a path or URL of fsspec (``./runs``, ``s3://bucket/sweep``)."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        if not self.root.strip():
            raise InputError("store: the path is empty; give a directory or a URL, such as runs/first")
        try:
            options = CLIENTS.get(self.root.partition("://")[0], {})
            files, path = fsspec.core.url_to_fs(self.root, use_listings_cache=False, **options)
        except (ImportError, ValueError) as error:
            raise InputError(f"store {self.root}: cannot be opened ({error})") from None
        self.path = str(path).rstrip("/")
        self.local = isinstance(files, LocalFileSystem)
        self.files: Any = files if self.local else NotedFileSystem(files, self.root)
        self.url = self.path if self.local else self.root
        """Path or URL of the store, valid in any directory."""

    def create(self) -> None:
        """Create the directory of the store; a bucket must exist.

        Raises:
            InputError: if it cannot be created or written, or the bucket does not exist.
        """
        self._refuse_dangling()
        try:
            if self._in_bucket:
                self._require_bucket()
            else:
                self.files.makedirs(self.path, exist_ok=True)
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"store {self.root}: cannot be created ({error.strerror or error})") from None
        except Exception as error:  # each remote file system has other types
            raise InputError(f"store {self.root}: cannot be used ({error}); {CREDENTIALS}") from None

    @property
    def _in_bucket(self) -> bool:
        protocol = self.files.protocol
        return not BUCKETS.isdisjoint({protocol} if isinstance(protocol, str) else protocol)

    def no_sweep(self) -> InputError:
        """Return the error that says that no sweep has used this store, or that it has no bucket."""
        if self._in_bucket:
            try:
                self._require_bucket()
            except InputError as error:
                return error
        return InputError(f"{self.root}: not a sweep store (no sweep.json in it)")

    def _require_bucket(self) -> None:
        bucket = self.path.partition("/")[0]
        if self.files.exists(bucket):
            return
        with suppress(FileNotFoundError):
            self.files.ls(bucket)  # raises if access is denied, or there is no answer
        raise InputError(
            f"store {self.root}: no bucket {bucket!r}; check its name, or create it first (a sweep creates "
            "no buckets)"
        )

    def probe(self) -> None:
        """Check that a file can be created at most once, on which leases and results depend.

        Raises:
            InputError: if it cannot, with a remedy.
        """
        name = f".probe-{uuid.uuid4().hex}"
        try:
            first, second = self.put_new({"writer": 1}, name), self.put_new({"writer": 2}, name)
            kept = self.read(name) == {"writer": 1} and name in self.names()
        except Exception as error:
            why = getattr(error, "strerror", None) or error
            hint = remedy(error) if self.local else CREDENTIALS
            raise InputError(f"store {self.root}: cannot be used ({why}); {hint}") from None
        finally:
            with suppress(Exception):
                self.remove(name)
        if (first, second, kept) != (True, False, True):
            raise InputError(
                f"store {self.root}: does not refuse to create a file twice, so two processes could both "
                "commit a result; use a local disk, NFS, or a bucket with conditional writes (S3, GCS, Azure)"
            )

    def exists(self) -> bool:
        """Return True if a sweep has used this store."""
        self._refuse_dangling("sweep.json")
        return bool(self.files.exists(f"{self.path}/sweep.json"))

    def read(self, *place: str) -> dict[str, Any] | None:
        """Read the JSON object at ``place``, or None if it does not exist.

        Raises:
            InputError: if the file is not a valid record.
        """
        raw = self.read_bytes(*place)
        return None if raw is None else self.parse(raw, *place)

    def parse(self, raw: bytes, *place: str) -> dict[str, Any]:
        """Return the JSON object read at ``place``; InputError if it is not a valid record."""
        try:
            data = json.loads(raw)
        except RecursionError:
            raise self._damaged("not JSON, or nested too deeply", *place) from None
        except ValueError as error:
            raise self._damaged(str(error), *place) from None
        if not isinstance(data, dict):
            raise self._damaged("not a JSON object", *place)
        if why := record_fault(data, place):
            raise self._damaged(why, *place)
        return data

    def _damaged(self, why: str, *place: str) -> InputError:
        return InputError(f"{self._path(*place)}: damaged ({why}); {remedy_of_damage(place[-1])}")

    def read_all(self, places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
        """Read the JSON objects at ``places`` that exist, as :meth:`read` does each."""
        return {place: self.parse(raw, *place) for place, raw in self.read_bytes_all(places).items()}

    def read_bytes_all(self, places: Iterable[Place]) -> dict[Place, bytes]:
        """Read the files at ``places`` that exist; from an object store concurrently."""
        found = self._ask_all(self.read_bytes, places).items()
        return {place: raw for place, raw in found if raw is not None}

    def names_all(self, places: Iterable[Place]) -> dict[Place, list[str]]:
        """Return the names in the directories at ``places``; from an object store concurrently."""
        return self._ask_all(self.names, places)

    def _ask_all(self, ask: Callable[..., Answer], places: Iterable[Place]) -> dict[Place, Answer]:
        if self.local:
            return {place: ask(*place) for place in places}
        asked = list(places)
        return dict(zip(asked, request_all(lambda place: ask(*place), asked), strict=True))

    def write(self, data: dict[str, Any], *place: str, durable: bool = True) -> None:
        """Write a JSON object at ``place``, replacing the file atomically."""
        self.write_bytes(_encode(data), *place, durable=durable)

    def read_bytes(self, *place: str, begin: int | None = None, end: int | None = None) -> bytes | None:
        """Read the content of a file, all or from ``begin`` to ``end``; None if it does not exist.

        Raises:
            InputError: if it cannot be read.
        """
        path = self._path(*place)
        try:
            if self.local and begin is None and end is None:
                with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (a third of the time of pathlib's)
                    return file.readall()
            return bytes(self.files.cat_file(path, start=begin, end=end))
        except (FileNotFoundError, NotADirectoryError):
            self._refuse_dangling(*place)
            return None
        except OSError as error:
            if is_transient(error):
                raise
            if not self.local:
                raise InputError(f"store {self.root}: {client_error_message(error)}") from None
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None

    def _refuse_dangling(self, *place: str) -> None:
        """Reject a link without its target, behind which files would seem to be missing.

        Raises:
            InputError: with the link and its target.
        """
        if not self.local:
            return
        for depth in range(len(place) + 1):
            path = Path(self.path, *place[:depth])
            if path.is_symlink() and not path.exists():
                raise InputError(
                    f"{path}: is a link to {path.readlink()}, which does not exist; restore that, or remove "
                    "the link"
                )

    def write_bytes(self, data: bytes | Chunks, *place: str, durable: bool = True) -> None:
        """Write a file from its bytes or from chunks of them, replacing it atomically.

        A file that is not ``durable`` may be lost in a power failure, but is never incomplete.
        """
        path = self._path(*place)
        if not self.local:
            if isinstance(data, bytes):
                self.files.pipe_file(path, data)
                return
            with self.files.open(path, "wb") as file:
                file.writelines(data)
            return
        with written_beside(Path(path), data, durable) as scratch:
            scratch.replace(path)

    def names(self, *place: str) -> list[str]:
        """Return the names in a directory, none if it does not exist."""
        path = self._path(*place)
        try:
            entries = os.listdir(path) if self.local else self.files.ls(path, detail=False)  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            self._refuse_dangling(*place)
            return []
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def remove(self, *place: str) -> None:
        """Remove a file if it exists."""
        path = self._path(*place)
        if self.files.exists(path):
            self.files.rm_file(path)

    def remove_tree(self, *place: str) -> None:
        """Remove a directory and its content, if it exists."""
        path = self._path(*place)
        if self.files.exists(path):
            self.files.rm(path, recursive=True)

    def _path(self, *place: str) -> str:
        return "/".join((self.path, *place))

    def commit(self, step: str, result: dict[str, Any]) -> bool:
        """Create the step's result; False if another process was first, whose result is kept."""
        return self.put_new(result, step, "result.json")

    def put_new(self, content: dict[str, Any], *place: str, durable: bool = True) -> bool:
        """Create a file; False if it exists, or another process was first."""
        path, data = self._path(*place), _encode(content)
        try:
            if self.local:
                with written_beside(Path(path), data, durable) as scratch:
                    return linked_once(scratch, path)
            self.files.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def result(self, step: str) -> dict[str, Any] | None:
        """Read the result of a step, or None if it has none yet; InputError if it is not one of it."""
        return self.read(step, "result.json")

    def results(
        self,
        steps: Iterable[str],
        faults: dict[str, str] | None = None,
        contents: Mapping[str, set[str]] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Read existing results by step; from an object store concurrently.

        Args:
            steps: ids of the steps.
            faults: if given, receives the faults of damaged results by step.
            contents: the files of every step, if known (:meth:`contents`).

        Raises:
            InputError: if a result is damaged and ``faults`` is not given.
        """
        steps = list(steps)
        if contents is not None or not self.local:  # most steps of a new sweep have none
            files = self.contents() if contents is None else contents
            steps = [step for step in steps if "result.json" in files.get(step, ())]
        found = {}
        for (step,), result in self._ask_all(self._result, [(step,) for step in steps]).items():
            if isinstance(result, InputError):
                if faults is None:
                    raise result
                faults[step] = str(result)
            elif result is not None:
                found[step] = result
        return found

    def _result(self, step: str) -> dict[str, Any] | InputError | None:
        try:
            return self.result(step)
        except InputError as error:
            return error

    def contents(self, expected: int = 0) -> dict[str, set[str]]:
        """Return the names of the files of every step, and those of its attempts as ``attempts/<name>``.

        ``expected`` is the rough number of steps, by which a large object store is listed concurrently.
        """
        return local_contents(self) if self.local else bucket_contents(self, expected)

    def size(self, *place: str) -> int:
        """Return the bytes of a file, or of all files below a directory."""
        return int(self.files.du(self._path(*place)))

    def age(self, *place: str) -> float:
        """Return the seconds since a file was written, by the store's clock; infinity without a file."""
        clock = f".clock-{uuid.uuid4().hex}"
        try:
            self.write({}, clock)
            written, now = (self.files.modified(self._path(*name)) for name in (place, (clock,)))
        except FileNotFoundError:
            return math.inf
        finally:
            self.remove(clock)
        return float((now - written).total_seconds())

    def steps(self) -> Iterator[str]:
        """Yield the ids of all steps that were ever started here."""
        for name in self.names():
            self._refuse_dangling(name, "step.json")
            if any(self.files.exists(self._path(name, file)) for file in RECORDS):
                yield name

    def put_model(self, step: str, folder: Path, name: str = "model") -> None:
        """Copy a model's directory to the store, under a name that no other attempt uses.

        Raises:
            OSError: with the path, if it cannot be written; nothing is left there.
        """
        target = self._path(step, name)
        self.remove_tree(step, name)
        try:
            self.files.makedirs(target, exist_ok=True)
            for file in sorted(folder.iterdir()):
                self.files.put_file(str(file), f"{target}/{file.name}")
        except OSError as error:
            self.remove_tree(step, name)
            raise OSError(error.errno, error.strerror or str(error), target) from error

    @contextmanager
    def model(self, step: str) -> Iterator[Path]:
        """Yield the directory of the model that a step's result names, on local disk."""
        name = (self.result(step) or {}).get("model", "model")
        path = self._path(step, name)
        if self.local:
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="distlaw-") as scratch:
            self.files.get(path, scratch, recursive=True)
            yield Path(scratch) / name


def _encode(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=1, allow_nan=False).encode()
