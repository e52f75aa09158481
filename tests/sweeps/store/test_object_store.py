"""A sweep whose store is a bucket: moto's server, spoken to over HTTP as S3 is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from scaling.errors import InputError
from sweeps import results
from sweeps.execute.executors.local import InlineExecutor, ProcessExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store import leases
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.records import THROUGHPUT_COLUMNS
from sweeps.store.store import Store
from sweeps.watch.garbage import find_garbage
from sweeps.watch.status import status

moto = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket, found through the environment, as any S3 client finds its own."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = request.node.name.replace("_", "-").lower()[:60]
    fsspec.filesystem("s3").mkdir(name)
    yield name
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_large_checkpoint_is_streamed_to_a_bucket_and_read_part_by_part(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several parts of an upload; a damaged one gives way to the one before, as on a disk."""
    monkeypatch.setattr("s3fs.S3FileSystem.default_block_size", 5 * 2**20)  # the least of S3
    monkeypatch.setattr("sweeps.store.checkpoints.safetensors_stream.CHUNK_BYTES", 3 * 2**20)
    store = Store(f"s3://{bucket}/sweep")
    checkpoints = Checkpoints(store, "run", small_bytes=0)
    for steps in (10, 20):
        weights = torch.arange(16e5, dtype=torch.float32).view(2, -1) + steps
        checkpoints.save(steps, {"w": weights, "/updates": torch.tensor(float(steps))})
    checkpoints.close()
    found = Checkpoints(store, "run").latest()
    assert found is not None
    assert found[0] == 20
    assert torch.equal(found[1]["w"], weights)
    newest = store.names("run", "checkpoints")[-1]
    store.write_bytes(b"{}", "run", "checkpoints", newest, "00000.safetensors")
    assert (Checkpoints(store, "run").latest() or (0,))[0] == 10


def test_a_bucket_creates_a_file_once(bucket: str) -> None:
    store = Store(f"s3://{bucket}/sweep")
    store.create()
    store.probe()
    assert store.names() == []
    assert store.put_new({"n": 1}, "a", "attempts", "0001.json")
    assert not store.put_new({"n": 2}, "a", "attempts", "0001.json")
    assert store.read("a", "attempts", "0001.json") == {"n": 1}
    assert leases.LeaseWatch(store).claimable("a") is None
    assert 0 <= store.age("a", "attempts", "0001.json") < 60


def test_a_sweep_on_a_bucket_gives_the_losses_of_one_on_a_disk(
    small_spec: dict[str, Any], tmp_path: Path, own_cache: Path, bucket: str
) -> None:
    small_spec |= {"supervised": [], "teachers": [{"params": ["7k"], "tokens": ["32k"]}]}
    sweep = parse_sweep(small_spec | {"students": [{"params": ["3k"], "tokens": ["32k"]}]})
    dag = dag_of(sweep)
    here, there = Store(tmp_path / "store"), Store(f"s3://{bucket}/deep/sweep")
    processes = ProcessExecutor(there, cores=2)
    tables = []
    try:
        for store, executor in ((here, InlineExecutor(here)), (there, processes)):
            store.create()
            record_sweep(store, sweep, dag)
            assert run(dag, store, executor, lambda step: step.flops, lambda _: None).complete
            tables.append(results(store.root))
    finally:
        processes.close()
    unmeasured = tables[0].columns.difference(["seconds", *THROUGHPUT_COLUMNS])
    assert len(tables[0]) == 2
    assert tables[0][unmeasured].equals(tables[1][unmeasured])
    found = status(there)
    assert len(found.of("done")) == 2
    assert found.spent.flops > 0
    assert not find_garbage(there, found)
    told = leases.attempts(there, dag.steps[0].id)[-1].told
    log = (there.read_bytes(*told["log"].split("/")) or b"").decode()
    assert dag.steps[0].label in log


def test_of_many_committers_to_a_bucket_one_wins(bucket: str) -> None:
    store, barrier = Store(f"s3://{bucket}/sweep"), threading.Barrier(8)

    def commit(number: int) -> bool:
        barrier.wait()
        return store.commit("a", {"by": number})

    with ThreadPoolExecutor(8) as racers:
        assert sorted(racers.map(commit, range(8))) == [False] * 7 + [True]


def test_a_store_that_would_create_a_file_twice_is_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"s3://{bucket}/sweep")
    put = store.files.pipe_file
    monkeypatch.setattr(store.files, "pipe_file", lambda path, data, mode="overwrite": put(path, data))
    with pytest.raises(
        InputError, match=r"does not refuse to create a file twice.*use a local disk, NFS, or a bucket"
    ):
        store.probe()


def test_missing_credentials_and_buckets_are_explained(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"store s3://no-such-bucket/sweep: cannot be used .*check the URL"):
        Store("s3://no-such-bucket/sweep").probe()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(InputError, match=r"cannot be used .*credentials"):
        Store(f"s3://{bucket}/sweep").probe()
