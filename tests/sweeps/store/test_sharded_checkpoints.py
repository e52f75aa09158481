"""Checkpoints of large and sharded states, written beside training, by and for any number of processes."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from sweeps.store.checkpoints import safetensors_stream
from sweeps.store.checkpoints.checkpoints import KEPT, Checkpoints
from sweeps.store.leases import Lease
from sweeps.store.outcomes import Ending, Stopped, ending_of
from sweeps.store.store import Store


def beside(store: Store, lease: Lease | None = None, group: Any = None) -> Checkpoints:
    """Checkpoints whose smallest state is large."""
    return Checkpoints(store, "run", lease, group=group, small_bytes=0)


def state(value: float) -> dict[str, Tensor]:
    return {
        "layers.0.weight": torch.arange(30.0).view(10, 3) + value,
        "/first moments/head": torch.arange(12.0).view(2, 6) * value,
        "half": torch.full((5,), value, dtype=torch.bfloat16),
        "/updates": torch.tensor(value),
        "ids": torch.arange(7),
        "flags": torch.tensor([True, False]),
        "none": torch.empty(0, 4),
    }


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    same = [torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in other]
    return one.keys() == other.keys() and all(same)


class SlowStore(Store):
    """Store that has written the first chunk of every shard when it waits for ``going_on``."""

    def __init__(self, root: Path, error: BaseException | None = None) -> None:
        super().__init__(root)
        self.begun, self.going_on, self.error = threading.Event(), threading.Event(), error

    def write_bytes(self, data: Any, *place: str, durable: bool = True) -> None:
        super().write_bytes(data if isinstance(data, bytes) else self._slowly(data), *place, durable=durable)

    def _slowly(self, chunks: Any) -> Iterator[Any]:
        chunks = iter(chunks)
        yield from islice(chunks, 2)
        self.begun.set()
        self.going_on.wait()
        if self.error:
            raise self.error
        yield from chunks


def test_memory_for_copies_is_made_beside_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first checkpoint copies to it; a run that ends before does not wait for it."""
    checkpoints = beside(Store(tmp_path))
    checkpoints.reserve(state(1.0))
    checkpoints.wait()
    made = {name: buffer.data_ptr() for name, buffer in checkpoints._buffers.items()}
    assert made.keys() == state(1.0).keys()
    checkpoints.save(10, state(2.0))
    checkpoints.wait()
    assert {name: buffer.data_ptr() for name, buffer in checkpoints._buffers.items()} == made
    assert equal(checkpoints.latest()[1], state(2.0))  # type: ignore[index]
    begun, cleared = threading.Event(), []

    def clear(piece: Tensor) -> None:
        begun.set()
        checkpoints._closing.wait(10)
        cleared.append(piece)

    monkeypatch.setattr(Tensor, "zero_", clear)
    checkpoints.reserve({name: tensor.repeat(2) for name, tensor in state(1.0).items() if tensor.ndim == 1})
    begun.wait(10)
    checkpoints.close()
    assert len(cleared) == 1
    assert Checkpoints(Store(tmp_path), "run")._is_large(state(1.0)) is False


@pytest.mark.parametrize("root", ["disk", "memory://checkpoints"])
def test_a_large_state_is_read_as_it_was_when_saved(root: str, tmp_path: Path) -> None:
    """Not as training has changed it since; the files are those of the safetensors library."""
    store = Store(tmp_path / root if root == "disk" else root)
    checkpoints, living = beside(store), state(0.0)
    for steps in (10, 20, 30):
        for name, tensor in state(float(steps)).items():
            living[name].copy_(tensor)
        checkpoints.save(steps, living)
        for tensor in living.values():
            tensor.zero_()
    assert checkpoints.busy in (True, False)
    checkpoints.close()
    assert len(store.names("run", "checkpoints")) == KEPT
    found = beside(store).latest()
    assert found is not None
    assert found[0] == 30
    assert equal(found[1], state(30.0))
    if store.local:
        (file,) = tmp_path.glob("disk/run/checkpoints/0000000030-*/*.safetensors")
        assert equal(load_file(file), state(30.0))
    beside(store).clear()
    assert beside(store).latest() is None


@pytest.mark.parametrize("part", ["00000.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "gone"])
def test_a_damaged_shard_gives_way_to_the_checkpoint_before(
    tmp_path: Path, part: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    checkpoints = beside(store)
    for steps in (20, 30):
        checkpoints.save(steps, state(float(steps)))
    checkpoints.close()
    newest = tmp_path / "run" / "checkpoints" / store.names("run", "checkpoints")[-1] / part
    data = bytearray(newest.read_bytes())
    if damage == "gone":
        newest.unlink()
    else:
        data[-20] ^= 1
        newest.write_bytes(data[:-20] if damage == "truncated" else data)
    with caplog.at_level(logging.WARNING, "distlaw"):
        found = beside(store).latest()
    assert found is not None
    assert found[0] == 20
    assert equal(found[1], state(20.0))
    (note,) = [each.getMessage() for each in caplog.records if each.name == "distlaw"]
    assert "checkpoint run/0000000030-" in note
    assert note.endswith("; the one before is used if there is one")


def test_a_manifest_that_claims_what_no_file_holds_is_damaged(tmp_path: Path) -> None:
    """Its checksum is no signature: whoever writes it can make it right."""
    from sweeps.store.checkpoints.reading import checksum

    store = Store(tmp_path)
    checkpoints = beside(store)
    checkpoints.save(10, {"w": torch.ones(4)})
    checkpoints.close()
    (file,) = tmp_path.glob("run/checkpoints/*/manifest.json")
    whole = json.loads(file.read_text())
    claims: list[Callable[[dict[str, Any]], object]] = [
        lambda entry: entry.update(shape=[8]),
        lambda entry: entry.update(dtype="pickle"),
        lambda entry: entry.update(pieces=[]),
        lambda entry: entry["pieces"][0].update(file="../../../../etc/passwd"),
        lambda entry: entry["pieces"][0].update(shape=[2]),
        lambda entry: entry["pieces"][0].pop("bytes"),
        lambda entry: entry["pieces"][0].update(start="x"),
    ]
    for claim in claims:
        manifest = json.loads(json.dumps(whole))
        claim(manifest["tensors"]["w"])
        file.write_text(json.dumps(manifest | {"crc32": checksum(manifest)}))
        assert beside(store).latest() is None, manifest
    file.write_text(json.dumps(whole))
    assert beside(store).latest() is not None


def test_a_kill_inside_the_write_falls_back_to_the_checkpoint_before(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        store = SlowStore(tmp_path)
        store.going_on.set()
        checkpoints = beside(store)
        checkpoints.save(10, state(10.0))
        checkpoints.wait()
        store.going_on.clear()
        checkpoints.save(20, state(20.0))
        signal.pause()
    until(lambda: list(tmp_path.glob("run/checkpoints/0000000020-*/.0*")))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    checkpoints = beside(Store(tmp_path))
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 10
    assert equal(found[1], state(10.0))
    checkpoints.save(30, state(30.0))
    checkpoints.close()
    steps = [name.partition("-")[0] for name in Store(tmp_path).names("run", "checkpoints")]
    assert steps == ["0000000010", "0000000030"]  # what the killed one left is gone


def test_a_full_disk_beside_training_is_raised_at_the_next_look(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "00000.safetensors")
    store = SlowStore(tmp_path, full)
    beside(Store(tmp_path)).save(10, state(10.0))
    checkpoints = beside(store)
    checkpoints.save(20, state(20.0))
    assert store.begun.wait(30)
    checkpoints.look()  # nothing has failed yet
    assert checkpoints.busy
    store.going_on.set()
    with pytest.raises(OSError, match="No space left on device") as raised:
        until(lambda: checkpoints.look())
    assert ending_of(raised.value) is Ending.FULL
    checkpoints.look()
    assert not list(tmp_path.glob("run/checkpoints/0000000020-*/*"))
    nexts: list[Callable[[], None]] = [
        lambda: checkpoints.save(40, state(40.0)),
        checkpoints.wait,
        checkpoints.close,
    ]
    for surfacing in nexts:
        checkpoints.save(30, state(30.0))
        with pytest.raises(OSError, match="No space left on device"):
            surfacing()
    assert (beside(Store(tmp_path)).latest() or (0,))[0] == 10


def test_whoever_is_taken_over_while_it_writes_commits_nothing(tmp_path: Path) -> None:
    store = SlowStore(tmp_path)
    lease = Lease.claim(store, "run", 1)
    assert lease
    checkpoints = beside(store, lease)
    checkpoints.save(10, state(10.0))
    assert store.begun.wait(30)
    other = Lease.claim(store, "run", 2)
    assert other
    store.going_on.set()
    with pytest.raises(Stopped, match="attempt 2 has taken over from attempt 1") as stopped:
        checkpoints.close()
    assert stopped.value.ending is Ending.HELD
    assert beside(store, other).latest() is None
    checkpoints = beside(store, other)
    checkpoints.save(10, state(11.0))
    checkpoints.close()
    assert store.names("run", "checkpoints") == ["0000000010-0002"]


@pytest.mark.slow
def test_a_write_that_never_ends_keeps_no_process_that_exits(tmp_path: Path) -> None:
    """As in a gang whose other process hangs, for which the write waits."""
    script = """
import sys, torch
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
import threading
Store.write_bytes = lambda *_, **__: threading.Event().wait()
checkpoints = Checkpoints(Store(sys.argv[1]), "run", small_bytes=0)
checkpoints.save(10, {"w": torch.ones(3)})
raise SystemExit(3 if checkpoints.busy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=120, check=False)
    assert done.returncode == 3


def test_a_next_checkpoint_waits_for_the_one_that_is_written(tmp_path: Path) -> None:
    """The time is that for which training stood still."""
    store = SlowStore(tmp_path)
    checkpoints = beside(store)
    checkpoints.save(10, state(10.0))
    quick = checkpoints.blocking_seconds
    assert store.begun.wait(30)
    timer = threading.Timer(0.3, store.going_on.set)
    timer.start()
    checkpoints.save(20, state(20.0))
    assert checkpoints.blocking_seconds - quick > 0.2
    assert checkpoints.write_seconds > 0.2
    checkpoints.close()
    assert (beside(store).latest() or (0,))[0] == 20


def test_shards_of_four_are_read_by_two_and_those_of_two_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by three, of what one has written in one file; numbers are those of each tensor, everywhere."""
    monkeypatch.setattr(safetensors_stream, "CHUNK_BYTES", 16)
    gang(4, tmp_path, _save_shards, 10)
    files = sorted(file.name for file in tmp_path.glob("run/checkpoints/0000000010-*/*"))
    assert files == [*(f"0000{rank}.safetensors" for rank in range(4)), "manifest.json"]
    whole = Store(tmp_path).size("run", "checkpoints")
    assert whole < 4 * sum(tensor.nbytes for tensor in state(0).values()) + 8000  # not four times
    gang(2, tmp_path, _reshard, 10, 20)
    found = beside(Store(tmp_path)).latest()
    assert found is not None
    assert found[0] == 20
    assert equal(found[1], state(20.0))
    Checkpoints(Store(tmp_path), "run").save(30, state(30.0))  # small, so in one file
    gang(3, tmp_path, _reshard, 30, 40)
    assert equal((beside(Store(tmp_path)).latest() or (0, {}))[1], state(40.0))


def test_all_processes_fall_back_together_and_fail_together(tmp_path: Path) -> None:
    gang(2, tmp_path, _save_shards, 10)
    gang(2, tmp_path, _reshard, 10, 20)
    (second,) = tmp_path.glob("run/checkpoints/0000000020-*/00001.safetensors")
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)  # which the first of two does not read
    gang(2, tmp_path, _reshard, 10, 30)
    gang(2, tmp_path, _fail_together)


def sharded(value: float) -> dict[str, Tensor]:
    """The state as DTensors over all processes: by rows, by columns, copied, and plain."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    places = {"layers.0.weight": Shard(0), "/first moments/head": Shard(1), "half": Replicate()}
    return {
        name: distribute_tensor(tensor, mesh, [places[name]]) if name in places else tensor
        for name, tensor in state(value).items()
    }


def _save_shards(place: Path, group: Any, steps: int) -> None:
    checkpoints = beside(Store(place), group=group)
    checkpoints.save(steps, sharded(float(steps)))
    checkpoints.close()


def _reshard(place: Path, group: Any, expected: int, steps: int) -> None:
    """Read the state of ``expected`` steps in shards, and write that of ``steps``."""
    checkpoints = beside(Store(place), group=group)
    found = checkpoints.latest(sharded(0.0))
    assert found is not None
    assert found[0] == expected
    own = {
        name: tensor.to_local() if hasattr(tensor, "to_local") else tensor
        for name, tensor in sharded(float(expected)).items()
    }
    assert equal(found[1], own)
    checkpoints.save(steps, sharded(float(steps)))
    checkpoints.close()


def _fail_together(place: Path, group: Any) -> None:
    """A full disk of the second process, and a lease that the first has lost."""
    leads = distributed.get_rank() == 0
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    store = SlowStore(place, None if leads else full)
    store.going_on.set()
    with pytest.raises(OSError, match="No space left on device"):
        _save_shards_to(store, group, None)
    lease = None
    if leads:
        lease = Lease.claim(store, "run", 1)
        assert lease
    store = SlowStore(place)
    checkpoints = beside(store, lease, group)
    checkpoints.save(60, sharded(60.0))
    assert store.begun.wait(30)
    distributed.barrier()
    if leads:
        assert Lease.claim(store, "run", 2)
    store.going_on.set()
    with pytest.raises(Stopped, match="attempt 2 has taken over from attempt 1") as stopped:
        checkpoints.close()
    assert stopped.value.ending is Ending.HELD


def _save_shards_to(store: Store, group: Any, lease: Lease | None) -> None:
    checkpoints = beside(store, lease, group)
    checkpoints.save(50, sharded(50.0))
    checkpoints.close()


def gang(size: int, place: Path, work: Callable[..., None], *arguments: Any) -> None:
    """Let forked processes do ``work`` together; forks, as each new interpreter takes seconds to start."""
    import torch._dynamo  # noqa: F401  (DTensors import it, which each child would repeat)

    meeting = place / f".gang-{time.monotonic_ns()}"
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os._exit(_one_of(size, rank, meeting, work, place, arguments))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * size


def _one_of(
    size: int, rank: int, meeting: Path, work: Callable[..., None], place: Path, arguments: tuple[Any, ...]
) -> int:
    import traceback

    torch.set_num_threads(1)
    try:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
        work(place, distributed.new_group(backend="gloo"), *arguments)
        distributed.barrier()
        distributed.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds
        time.sleep(0.01)
