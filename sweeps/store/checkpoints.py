"""Checkpoints of a run: written atomically and verified when read, so that a killed run resumes exactly.

::

    store/<id>/checkpoints/<steps done>-<attempt>/state.safetensors
    store/<id>/checkpoints/<steps done>-<attempt>/manifest.json      its checksum; written last
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from scaling.errors import InputError
from sweeps.store.leases import Lease
from sweeps.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2
"""Number of checkpoints kept: the newest, and one more in case it is damaged."""


class Checkpoints:
    """Checkpoints of one step in a store."""

    def __init__(self, store: Store, step: str, lease: Lease | None = None) -> None:
        self.store, self.step, self.lease = store, step, lease
        self.attempt = f"{lease.number:04d}" if lease else uuid.uuid4().hex[:8]

    def look(self) -> None:
        """Stop if this process has lost the lease, or was asked to stop; reads no file.

        Raises:
            Stopped: in these cases.
        """
        if self.lease:
            self.lease.look()

    def save(self, steps_done: int, tensors: dict[str, Tensor]) -> None:
        """Write the state after ``steps_done`` optimizer steps, then drop all but the newest.

        Raises:
            Stopped: if the step is no longer this process's to work on.
        """
        from safetensors.torch import save

        if self.lease:
            self.lease.fence()
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        name = f"{steps_done:010d}-{self.attempt}"
        self.store.write_bytes(data, *self._place(name), "state.safetensors")
        manifest = {"steps_done": steps_done, "sha256": hashlib.sha256(data).hexdigest()}
        self.store.write(manifest, *self._place(name), "manifest.json")
        self._drop_all_but_the_newest()

    def latest(self) -> tuple[int, dict[str, Tensor]] | None:
        """Return steps and state of the newest complete checkpoint, or None; damaged ones are skipped."""
        from safetensors.torch import load

        for name in self._newest_first():
            manifest = self._manifest(name)
            data = self.store.read_bytes(*self._place(name), "state.safetensors")
            if manifest and data and hashlib.sha256(data).hexdigest() == manifest["sha256"]:
                return manifest["steps_done"], load(data)
        return None

    def clear(self) -> None:
        """Remove all checkpoints."""
        self.store.remove_tree(self.step, "checkpoints")

    def _drop_all_but_the_newest(self) -> None:
        found = list(self._newest_first())
        whole = [name for name in found if "manifest.json" in self.store.names(*self._place(name))]
        for name in set(found) - set(whole[:KEPT]):  # also those that a killed process left unfinished
            self.store.remove_tree(*self._place(name))

    def _newest_first(self) -> Iterator[str]:
        yield from sorted(self.store.names(self.step, "checkpoints"), reverse=True)

    def _manifest(self, name: str) -> dict[str, Any] | None:
        try:
            return self.store.read(*self._place(name), "manifest.json")
        except InputError:
            return None

    def _place(self, name: str) -> tuple[str, str, str]:
        return self.step, "checkpoints", name
