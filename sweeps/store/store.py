"""The store: one directory a step, and a step is done when its ``result.json`` exists.

::

    store/sweep.json            the resolved spec of the last sweep run here, with versions
    store/steps.json            its steps in short: what each is, needs and costs
    store/drivers/              the processes that drove it (sweeps.execute.drivers)
    store/<id>/step.json        what the step is
    store/<id>/attempts/        who worked on it when, how far each came, how it ended (sweeps.store.leases)
    store/<id>/failure.json     why it was given up
    store/<id>/checkpoints/     where it goes on after an interruption; gone when it is done
    store/<id>/model-<attempt>/ weights (safetensors), config, tokenizer: loads in transformers
    store/<id>/result.json      its losses, and which model is its; written last, created at most once

Nothing else is remembered anywhere: what is done, and what is missing, is read from here.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from scaling.errors import InputError
from sweeps.store.faults import CREDENTIALS, Named, of_client, remedy
from sweeps.store.outcomes import is_transient
from sweeps.store.records import fault

CLIENTS = {"s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20}}}
"""Options of file systems: a network that is cut must be noticed before a lease runs out."""
BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"}
"""Protocols whose paths begin with a bucket, which a sweep never creates: its name may be mistyped."""
RECORDS = ("step.json", "result.json", "failure.json")
"""Files of which a step that was ever started has one at least."""


class Store:
    """A store at a path or URL that fsspec understands (``./runs``, ``s3://bucket/sweep``)."""

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
        self.files: Any = files if self.local else Named(files, self.root)
        self.url = self.path if self.local else self.root
        """Names the store from any directory."""

    def create(self) -> None:
        """Make the store's directory; a bucket must exist.

        Raises:
            InputError: if it cannot be made or written, or there is no such bucket.
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
        except Exception as error:  # each remote file system has its own
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
            self.files.ls(bucket)  # raises where the bucket is forbidden, or nobody answers
        raise InputError(
            f"store {self.root}: there is no bucket {bucket!r}; check its name, or create it first (a sweep "
            "creates no buckets)"
        )

    def probe(self) -> None:
        """Try whether a file can be created here at most once: everything rests on that.

        Raises:
            InputError: if it cannot, with advice.
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
        """Whether this is a store that a sweep has used."""
        self._refuse_dangling("sweep.json")
        return bool(self.files.exists(f"{self.path}/sweep.json"))

    def read(self, *place: str) -> dict[str, Any] | None:
        """The JSON object at ``place``, or None if it is not there.

        Raises:
            InputError: if something is there that is not a JSON object.
        """
        raw = self.read_bytes(*place)
        return None if raw is None else self._parse(raw, *place)

    def _parse(self, raw: bytes, *place: str) -> dict[str, Any]:
        try:
            data = json.loads(raw)
        except RecursionError:
            raise self._damaged("not JSON, or nested too deeply", *place) from None
        except ValueError as error:
            raise self._damaged(str(error), *place) from None
        if not isinstance(data, dict):
            raise self._damaged("not a JSON object", *place)
        if why := fault(data, place):
            raise self._damaged(why, *place)
        return data

    def _damaged(self, why: str, *place: str) -> InputError:
        return InputError(f"{self._path(*place)}: damaged ({why}); {_mend(place[-1])}")

    def read_all(self, places: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, Any]]:
        """The JSON objects at ``places`` that are there; an object store is asked for all at once.

        Raises:
            InputError: if something is there that is not a JSON object.
        """
        if self.local:
            found = {place: self.read(*place) for place in places}
            return {place: data for place, data in found.items() if data is not None}
        paths = {self._path(*place): place for place in places}
        raw = self.files.cat(list(paths), on_error="omit") if paths else {}
        return {place: self._parse(raw[path], *place) for path, place in paths.items() if path in raw}

    def write(self, data: dict[str, Any], *place: str, durable: bool = True) -> None:
        """Write a JSON object at ``place``, replacing what is there in one move."""
        self.write_bytes(_encode(data), *place, durable=durable)

    def read_bytes(self, *place: str) -> bytes | None:
        """The content of a file, or None if it is not there.

        Raises:
            InputError: if something is there that cannot be read.
        """
        path = self._path(*place)
        try:
            return bytes(self.files.cat_file(path))
        except (FileNotFoundError, NotADirectoryError):
            self._refuse_dangling(*place)
            return None
        except OSError as error:
            if is_transient(error):
                raise
            if not self.local:
                raise InputError(f"store {self.root}: {of_client(error)}") from None
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None

    def _refuse_dangling(self, *place: str) -> None:
        """Refuse to take for missing what lies behind a link whose target is away.

        Raises:
            InputError: naming the link and its target.
        """
        if not self.local:
            return
        for depth in range(len(place) + 1):
            path = Path(self.path, *place[:depth])
            if path.is_symlink() and not path.exists():
                raise InputError(
                    f"{path}: is a link to {path.readlink()}, which is not there; bring that back, or remove "
                    "the link"
                )

    def write_bytes(self, data: bytes, *place: str, durable: bool = True) -> None:
        """Write a file, replacing what is there in one move.

        What is not ``durable`` may be lost with the machine's power, though never half of it.
        """
        path = self._path(*place)
        if not self.local:
            self.files.pipe_file(path, data)
            return
        with _written_beside(Path(path), data, durable) as scratch:
            scratch.replace(path)

    def names(self, *place: str) -> list[str]:
        """Names of what lies in a directory, none if it is not there."""
        path = self._path(*place)
        try:
            entries = list(Path(path).iterdir()) if self.local else self.files.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            self._refuse_dangling(*place)
            return []
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def remove(self, *place: str) -> None:
        """Remove a file if it is there."""
        path = self._path(*place)
        if self.files.exists(path):
            self.files.rm_file(path)

    def remove_tree(self, *place: str) -> None:
        """Remove a directory with all it holds, if it is there."""
        path = self._path(*place)
        if self.files.exists(path):
            self.files.rm(path, recursive=True)

    def _path(self, *place: str) -> str:
        return "/".join((self.path, *place))

    def commit(self, step: str, result: dict[str, Any]) -> bool:
        """Create the step's result; False if another process was first, whose result then stands."""
        return self.put_new(result, step, "result.json")

    def put_new(self, content: dict[str, Any], *place: str, durable: bool = True) -> bool:
        """Create a file that is not there yet; False if it is, or another process was first."""
        path, data = self._path(*place), _encode(content)
        try:
            if self.local:
                with _written_beside(Path(path), data, durable) as scratch:
                    os.link(scratch, path)
            else:
                self.files.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def result(self, step: str) -> dict[str, Any] | None:
        """The result of a step, or None if it has none yet.

        Raises:
            InputError: if what is there is not the result of this step.
        """
        raw = self.read_bytes(step, "result.json")
        return None if raw is None else self._parse(raw, step, "result.json")

    def results(
        self, steps: Iterable[str], faults: dict[str, str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The results that are there, by step; an object store is asked for all at once.

        Args:
            steps: ids.
            faults: takes what is wrong with those that are damaged, by step, if it is given.

        Raises:
            InputError: if one is damaged, and no ``faults`` are given.
        """
        steps = list(steps)
        raw = None if self.local else self._raw_results(steps)
        found = {}
        for step in steps if raw is None else raw:
            try:
                result = self.result(step) if raw is None else self._parse(raw[step], step, "result.json")
            except InputError as error:
                if faults is None:
                    raise
                faults[step] = str(error)
                continue
            if result is not None:
                found[step] = result
        return found

    def _raw_results(self, steps: Sequence[str]) -> dict[str, bytes]:
        files = self.contents()
        paths = {
            self._path(step, "result.json"): step for step in steps if "result.json" in files.get(step, ())
        }
        raw = self.files.cat(list(paths)) if paths else {}
        return {step: raw[path] for path, step in paths.items()}

    def contents(self) -> dict[str, set[str]]:
        """The files of every step, by name, and those of its attempts as ``attempts/<name>``."""
        found: dict[str, set[str]] = {}
        if self.local:
            for folder in Path(self.path).iterdir():
                if folder.is_dir():
                    names = _listed(folder)
                    if "attempts" in names:
                        self._refuse_dangling(folder.name, "attempts")
                        names |= {f"attempts/{name}" for name in _listed(folder / "attempts")}
                    found[folder.name] = names
            return found
        for path in self.files.find(self.path):
            step, _, name = str(path)[len(self.path) + 1 :].partition("/")
            found.setdefault(step, set()).add(name)
        return found

    def size(self, *place: str) -> int:
        """Bytes of a file, or of all files below a directory."""
        return int(self.files.du(self._path(*place)))

    def age(self, *place: str) -> float:
        """Seconds since a file was written, by the store's own clock; infinity if it is not there."""
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
        """Ids of all steps that were ever started here."""
        for name in self.names():
            self._refuse_dangling(name, "step.json")
            if any(self.files.exists(self._path(name, file)) for file in RECORDS):
                yield name

    def put_model(self, step: str, folder: Path, name: str = "model") -> None:
        """Copy a model's directory into the store, under a name that no other attempt uses.

        Raises:
            OSError: naming the place, with nothing left there, if it cannot be written.
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
        """The directory of the model that a step's result names, on local disk."""
        name = (self.result(step) or {}).get("model", "model")
        path = self._path(step, name)
        if self.local:
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="distlaw-") as scratch:
            self.files.get(path, scratch, recursive=True)
            yield Path(scratch) / name


def _listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _mend(name: str) -> str:
    """What to do about a damaged file."""
    if name in ("sweep.json", "steps.json"):
        return "run the sweep again to write it anew"
    return "delete it, and its step runs again" if name in ("result.json", "failure.json") else "delete it"


@contextmanager
def _written_beside(path: Path, data: bytes, durable: bool) -> Iterator[Path]:
    """The data in a finished file beside ``path``, on disk; removed afterwards if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with scratch.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def _encode(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=1, allow_nan=False).encode()
