"""Facts about one node that decide whether a sweep can run on it, gathered there and sent as plain data."""

from __future__ import annotations

import shutil
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from scaling.cpu import usable_cores
from sweeps.data.cache import cache_dir
from sweeps.execute.executors.gpus import visible_gpus
from sweeps.execute.steps.provenance import versions
from sweeps.store.store import Store

ROUNDS = 5
"""Times that the store is written and read."""


def node_facts(store: str) -> dict[str, Any]:
    """Return what this node has, and how it sees the store; a fault is told as ``store_fault``, not raised.

    Keys: ``host``, ``cores``, ``versions``, ``gpus`` (names, by torch), ``gpus_told`` (as the environment and
    the kernel say), ``gpu_bytes`` (memory of the smallest), ``cache`` and ``cache_free`` (bytes),
    ``write_seconds`` and ``read_seconds`` (medians), ``clock_ahead`` (seconds, of the store's).
    """
    names, smallest = _gpus()
    facts = {
        "host": socket.gethostname(),
        "cores": usable_cores(),
        "versions": versions(),
        "gpus": names,
        "gpus_told": len(visible_gpus()),
        "gpu_bytes": smallest,
        "cache": str(cache_dir()),
        "cache_free": _free(cache_dir()),
    }
    try:
        facts |= _of_store(Store(store))
    except Exception as error:
        facts["store_fault"] = str(error) or type(error).__name__
    return facts


def _gpus() -> tuple[list[str], int | None]:
    """Return the names of the GPUs that torch can use, and the memory of the smallest."""
    import torch

    if not torch.cuda.is_available():
        return [], None
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [each.name for each in found], min(each.total_memory for each in found)


def _free(folder: Path) -> int | None:
    """Return the free bytes where ``folder`` is or would be."""
    with suppress(OSError):
        there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        return shutil.disk_usage(there).free
    return None


def _of_store(store: Store) -> dict[str, Any]:
    """Check that the store creates files once, and measure it.

    Raises:
        InputError: if it does not.
    """
    store.probe()
    name, writes, reads = f".doctor-{uuid.uuid4().hex}", [], []
    try:
        for _ in range(ROUNDS):
            started = time.perf_counter()
            store.write({}, name)
            written = time.perf_counter()
            store.read(name)
            writes.append(written - started)
            reads.append(time.perf_counter() - written)
        before = time.time()
        store.write({}, name)
        modified = store.files.modified(f"{store.path}/{name}").timestamp()
        ahead = (before + time.time()) / 2 - modified
    finally:
        with suppress(Exception):
            store.remove(name)
    return {"write_seconds": median(writes), "read_seconds": median(reads), "clock_ahead": ahead}
