"""Sweeps from Python: load a spec, hand it to a cluster, read where a store stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.errors import InputError

if TYPE_CHECKING:
    from sweeps.dag.expand import Dag
    from sweeps.spec.spec import Sweep
    from sweeps.watch.status import Status


@dataclass(frozen=True, slots=True)
class LoadedSweep:
    """A validated spec and the steps that it stands for."""

    spec: Sweep
    dag: Dag

    @property
    def default_store(self) -> str:
        """Where results go if no store is named."""
        return f"runs/{self.spec.name}"

    def submit(self, address: str, store: str, *, install: bool = False) -> str:
        """Submit the sweep to a Ray cluster's job server.

        Args:
            address: The job server, such as ``http://127.0.0.1:8265``.
            store: A URL, or an absolute path that all nodes see.
            install: Install pinned packages for the job, all but torch and Ray.

        Returns:
            The job's name.

        Raises:
            InputError: If nobody answers there, or not all nodes could reach the store.
        """
        from sweeps.execute.submission import submit

        return submit(address, self.spec, store, install=install)


def load(spec: str, changes: Sequence[str] = ()) -> LoadedSweep:
    """Load a spec and expand it into steps.

    Args:
        spec: A YAML file, or the name of a preset.
        changes: Changes of fields, each ``FIELD=VALUE``.

    Returns:
        The validated spec with its steps; nothing is trained.

    Raises:
        InputError: Naming the field that is wrong.

    >>> import sweeps
    >>> sweeps.load("quickstart").default_store
    'runs/quickstart'
    """
    from sweeps.resolve import dag_of
    from sweeps.spec.spec import load_sweep, spec_name

    sweep = load_sweep(spec, changes)
    try:
        return LoadedSweep(sweep, dag_of(sweep))
    except InputError as error:
        raise InputError(f"{spec_name(spec)}: {error}") from None


def status(store: str | Path) -> Status:
    """Return where the sweep last started in a store stands, from any process that reaches it.

    Args:
        store: A path or URL.

    Raises:
        InputError: If there is no sweep, or what describes it is damaged.
    """
    from sweeps.store.store import Store
    from sweeps.watch.status import status as read

    return read(Store(store))
