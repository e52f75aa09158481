"""Checkpoints of a run: written atomically and verified when read, so that a killed run resumes exactly.

A small state is one file, written at once::

    store/<id>/checkpoints/<steps done>-<attempt>/state.safetensors
    store/<id>/checkpoints/<steps done>-<attempt>/manifest.json      its checksum; written last

A large one, or one that is sharded over processes, is copied to the host and written beside training, in
shards (:mod:`sweeps.store.checkpoints.shards`), which any number of processes can read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from scaling.errors import InputError
from sweeps.store.leases import Lease
from sweeps.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

KEPT = 2
"""Number of checkpoints kept: the newest, and one more in case it is damaged."""
SMALL_BYTES = 64 * 2**20
"""Size of a state up to which it is one file, written while training waits: 5M parameters with moments."""
LOG = logging.getLogger("distlaw")


class Checkpoints:
    """Checkpoints of one step in a store.

    Args:
        store: the store.
        step: id of the step.
        lease: lease of this process, without which nothing stops it.
        group: processes that save and restore together, with a backend for the CPU, used for nothing else;
            None for one process.
        small_bytes: size of a state up to which it is written while training waits.
    """

    def __init__(
        self,
        store: Store,
        step: str,
        lease: Lease | None = None,
        *,
        group: ProcessGroup | None = None,
        small_bytes: int = SMALL_BYTES,
    ) -> None:
        self.store, self.step, self.lease = store, step, lease
        self.group, self.small_bytes = group, small_bytes
        self.attempt = f"{lease.number:04d}" if lease else uuid.uuid4().hex[:8]
        self.blocking_seconds = 0.0
        """Time that training has stood still for checkpoints."""
        self.write_seconds = 0.0
        """Time from the beginning of the last write to its end."""
        self._buffers: dict[str, Tensor] = {}
        self._writing: Future[None] | None = None
        self._closing = threading.Event()

    def look(self) -> None:
        """Stop if this process has lost the lease, was asked to stop, or a write has failed; reads no file.

        Raises:
            Stopped: in the first two cases.
            OSError: if a checkpoint could not be written beside training.
        """
        if self.lease:
            self.lease.look()
        self.check_write()

    def check_write(self) -> None:
        """Raise the failure of a write beside training, once, if it has ended in one.

        Raises:
            Stopped, OSError: that failure.
        """
        if self._writing and self._writing.done():
            self.wait()

    @property
    def busy(self) -> bool:
        """True while a checkpoint is being written beside training."""
        return self._writing is not None and not self._writing.done()

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Make memory for copies of a large state beside training; the first checkpoint waits for it.

        New memory costs more than a copy, as the kernel has to clear it. On a GPU it is pinned, and made at
        the first checkpoint.
        """
        from sweeps.store.checkpoints.shards import make_buffers

        if self._is_large(tensors):
            self._writing = _in_thread(partial(make_buffers, tensors, self._buffers, self._closing.is_set))

    def save(self, steps_done: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the state after ``steps_done`` optimizer steps, then drop all but the newest.

        A large state is copied, and written while training goes on, after the write before has ended; what
        fails is raised by the next :meth:`look`, :meth:`wait` or :meth:`save`. All processes of a sharded
        state save after the same step.

        Raises:
            Stopped: if the step is no longer this process's to work on.
            OSError: if this checkpoint or the one before could not be written.
        """
        self.wait()
        started = time.perf_counter()
        try:
            if self.lease:
                self.lease.fence()
            if self._is_large(tensors):
                self._begin(steps_done, tensors)
            else:
                self._write(steps_done, tensors)
        finally:
            self.blocking_seconds += time.perf_counter() - started

    def wait(self) -> None:
        """Wait for the end of a write beside training.

        Raises:
            Stopped, OSError: if it has failed, once.
        """
        writing, self._writing = self._writing, None
        if writing:
            started = time.perf_counter()
            try:
                writing.result()
            finally:
                self.blocking_seconds += time.perf_counter() - started

    def close(self) -> None:
        """Wait for the end of a write beside training, and free its memory.

        Raises:
            Stopped, OSError: if it has failed.
        """
        self._closing.set()
        try:
            self.wait()
        finally:
            self._closing.clear()
            self._buffers.clear()

    def latest(self, like: Mapping[str, Tensor] | None = None) -> tuple[int, dict[str, Tensor]] | None:
        """Return steps and state of the newest complete checkpoint, or None; damaged ones are skipped.

        All processes of the group return the same checkpoint. Of tensors that are DTensors in ``like``, each
        has its own part, whatever number of processes has written them.
        """
        for name in self._agreed_names():
            found = self._read(name, like or {})
            if self._all_have(found is not None):
                return found
        return None

    def clear(self) -> None:
        """Remove all checkpoints."""
        self.store.remove_tree(self.step, "checkpoints")

    def _is_large(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return True for a state that is copied, and written beside training."""
        from sweeps.store.checkpoints.reading import is_sharded

        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return is_sharded(tensors) or size > self.small_bytes

    def _write(self, steps_done: int, tensors: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save

        started = time.perf_counter()
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        place = self._place(self._name(steps_done))
        self.store.write_bytes(data, *place, "state.safetensors")
        manifest = {"steps_done": steps_done, "sha256": hashlib.sha256(data).hexdigest()}
        self.store.write(manifest, *place, "manifest.json")
        self._drop_all_but_the_newest()
        self.write_seconds = time.perf_counter() - started

    def _begin(self, steps_done: int, tensors: Mapping[str, Tensor]) -> None:
        """Copy the state, and let a thread write the copy."""
        from sweeps.store.checkpoints.reading import is_sharded
        from sweeps.store.checkpoints.shards import ShardWriter, stage, write_shards

        stage(tensors, self._buffers)
        place = self._place(self._name(steps_done))
        group = self.group if is_sharded(tensors) else None

        def commit(manifest: dict[str, Any]) -> None:
            self._commit(place, {"steps_done": steps_done} | manifest)

        def write() -> None:
            started = time.perf_counter()
            write_shards(tensors, self._buffers, ShardWriter(self.store, place, commit), group)
            self.write_seconds = time.perf_counter() - started

        self._writing = _in_thread(write)

    def _commit(self, place: tuple[str, str, str], manifest: dict[str, Any]) -> None:
        """Write the manifest, unless another process has taken over the step."""
        from sweeps.store.checkpoints.reading import MANIFEST, checksum

        if self.lease:
            self.lease.fence()
        self.store.write(manifest | {"crc32": checksum(manifest)}, *place, MANIFEST)
        self._drop_all_but_the_newest()

    def _read(self, name: str, like: Mapping[str, Tensor]) -> tuple[int, dict[str, Tensor]] | None:
        """Return a checkpoint's steps and state; None, with a note in the log, if it is not complete."""
        from sweeps.store.checkpoints.reading import Damaged

        try:
            return self._verified(name, like)
        except Damaged as damage:
            LOG.warning(
                "checkpoint %s/%s: %s; the one before is used if there is one", self.step, name, damage
            )
        return None

    def _verified(self, name: str, like: Mapping[str, Tensor]) -> tuple[int, dict[str, Tensor]]:
        from safetensors.torch import load

        from sweeps.store.checkpoints.reading import Damaged, ShardedCheckpoint, part_of

        place = self._place(name)
        try:
            manifest = self.store.read(*place, "manifest.json")
        except InputError as error:
            raise Damaged(str(error)) from None
        if manifest is None:
            raise Damaged("it was not completed")
        if name.partition("-")[0] != f"{manifest.get('steps_done'):010}":
            raise Damaged("manifest.json: its steps_done are not those of its directory")
        if "format" in manifest:
            return manifest["steps_done"], ShardedCheckpoint(self.store, place, manifest).read(like)
        data = self.store.read_bytes(*place, "state.safetensors") or b""
        if hashlib.sha256(data).hexdigest() != manifest.get("sha256"):
            raise Damaged("state.safetensors: missing, or its checksum does not match")
        state = load(data)
        return manifest["steps_done"], {key: part_of(state[key], like.get(key)) for key in state}

    def _agreed_names(self) -> list[str]:
        """Return the names of checkpoints, newest first, as the first process of the group sees them."""
        names = [json.dumps(list(self._newest_first()))]
        if self.group:
            from torch import distributed

            distributed.broadcast_object_list(
                names, distributed.get_global_rank(self.group, 0), group=self.group
            )
        found: list[str] = json.loads(names[0])
        return found

    def _all_have(self, found: bool) -> bool:
        """Return True if all processes of the group have found something."""
        if not self.group:
            return found
        import torch
        from torch import distributed

        least = torch.tensor(int(found))
        distributed.all_reduce(least, distributed.ReduceOp.MIN, group=self.group)
        return bool(least)

    def _drop_all_but_the_newest(self) -> None:
        found = list(self._newest_first())
        whole = [name for name in found if "manifest.json" in self.store.names(*self._place(name))]
        for name in set(found) - set(whole[:KEPT]):  # also those that a killed process left unfinished
            self.store.remove_tree(*self._place(name))

    def _newest_first(self) -> Iterator[str]:
        yield from sorted(self.store.names(self.step, "checkpoints"), reverse=True)

    def _name(self, steps_done: int) -> str:
        return f"{steps_done:010d}-{self.attempt}"

    def _place(self, name: str) -> tuple[str, str, str]:
        return self.step, "checkpoints", name


def _in_thread(work: Callable[[], None]) -> Future[None]:
    """Start ``work`` in a thread that the process does not wait for when it exits.

    A pool's thread would keep a process whose gang has lost another one, for which the write waits.
    """
    found: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            found.set_exception(error)
        else:
            found.set_result(None)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return found
