"""Cached logits give the same loss as the teacher online, and damaged files are never read."""

from __future__ import annotations

import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps import results
from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches
from sweeps.distill.caches import shard_cache, shards
from sweeps.distill.caches.logit_format import Full, TopK
from sweeps.distill.caches.shard_cache import Numbers, ShardCache
from sweeps.distill.targets import Cached, Online
from sweeps.distill.teacher import distributions
from sweeps.estimate.bill import flops_recorded
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run as run_dag
from sweeps.execute.steps.provenance import record_sweep
from sweeps.model.decoder import Decoder
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method
from sweeps.spec.method.run_views import ShardFormat
from sweeps.spec.spec import Training, parse_sweep
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train.loop import train, train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

V, CONTEXT, BATCH, STEPS = 300, 32, 4, 40
RULES = Training(batch_tokens=CONTEXT * BATCH, warmup_tokens=1280)
SHAPE = shape_for(3e3, vocab=V, context=CONTEXT, aspect_ratio=32)
TOKENS = (np.arange(6_000) ** 2 % 299).astype(np.uint16)
DATA = Batches(TOKENS, context=CONTEXT, batch=BATCH, seed=3)
RECIPE = RunRecipe(shape=SHAPE, steps=STEPS, training=RULES, seed=0, method=Method(logits="cached"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven blocks each when they are kept in full."""
    monkeypatch.setattr(shard_cache, "SHARD_BYTES", 7 * CONTEXT * V * 2)


def teacher() -> Online:
    model = Decoder(shape_for(13e3, vocab=V, context=CONTEXT, aspect_ratio=32))
    model.initialize(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # with something to say
    return Online(model.eval().requires_grad_(False))


class Counting:
    """Asks the teacher, and counts the blocks it was asked about."""

    def __init__(self, how: ShardFormat) -> None:
        self.how, self.asked = how, 0

    def __call__(self, numbers: Numbers) -> Any:
        self.asked += len(numbers)
        return distributions(teacher(), DATA, numbers, self.how)


def cache(store: Store, how: ShardFormat | None = None, steps: int = STEPS) -> ShardCache:
    return ShardCache(store, "key", how or Full(V), CONTEXT, DATA.seen(steps))


def target(store: Store, how: ShardFormat) -> Cached:
    return Cached(how, cache(store, how).ready(Counting(how)))


def weights(model: Decoder) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in model.parameters()]).detach()


class Rounded:
    """The teacher online, its log-probabilities rounded as a cache rounds them."""

    def __init__(self, how: ShardFormat) -> None:
        self.online, self.how = teacher(), how

    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        rows = self.online.rows(inputs, numbers)
        return self.how.rows(self.how.pack(self.online.log_probabilities(rows, 1.0)))

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        return self.how.log_probabilities(rows, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        return self.how.outcomes(log_q, rows)


@pytest.mark.parametrize("how", [Full(V), TopK(V, 16)], ids=["full", "top"])
def test_a_cache_teaches_what_its_teacher_says_but_for_the_rounding(tmp_path: Path, how: ShardFormat) -> None:
    """Into the next epoch: every block finds its own distributions."""
    assert STEPS * BATCH < DATA.blocks < 2 * STEPS * BATCH
    longer = replace(RECIPE, steps=2 * STEPS)
    kept = ShardCache(Store(tmp_path), "key", how, CONTEXT, DATA.seen(longer.steps))
    found = train(longer, TOKENS, data_seed=3, target=Cached(how, kept.ready(Counting(how))))
    expected = train(longer, TOKENS, data_seed=3, target=Rounded(how))
    torch.testing.assert_close(weights(found), weights(expected), rtol=0, atol=1e-6)


def test_a_full_cache_is_the_teacher_to_what_half_precision_allows(tmp_path: Path) -> None:
    data = DATA.numbers(0)
    inputs, full = DATA.read(data)[:, :-1], target(Store(tmp_path), Full(V))
    online = teacher()
    said = online.log_probabilities(online.rows(inputs, data), 2.0)
    read = full.log_probabilities(full.rows(inputs, data), 2.0)
    assert (said.exp() - read.exp()).abs().max() < 2e-4
    assert (said.exp() * (said - read)).sum(-1).max() < 1e-6
    one, other = (train(RECIPE, TOKENS, data_seed=3, target=by) for by in (online, full))
    assert (weights(one) - weights(other)).abs().max() < 1e-3


def test_students_of_one_cache_are_the_same_together_and_apart(tmp_path: Path) -> None:
    by = target(Store(tmp_path), Full(V))
    recipes = [RECIPE, replace(RECIPE, seed=1, method=Method(logits="cached", divergence="reverse-kl"))]
    runs = [Run(recipe=recipe) for recipe in recipes]
    assert all(error is None for _, error in train_together(runs, TOKENS, data_seed=3, target=by))
    for run in runs:
        assert torch.equal(weights(run.model), weights(train(run.recipe, TOKENS, data_seed=3, target=by)))


def test_a_student_that_was_killed_goes_on_from_the_cache_in_the_same_bits(tmp_path: Path) -> None:
    store = Store(tmp_path)
    by = target(store, TopK(V, 16))

    class Killed(Cached):
        def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
            if torch.equal(numbers, DATA.numbers(25)):
                raise KeyboardInterrupt
            return super().rows(inputs, numbers)

    checkpoints = Checkpoints(store, "run")
    with pytest.raises(KeyboardInterrupt):
        train(
            RECIPE,
            TOKENS,
            data_seed=3,
            target=Killed(by.kept, by.logits),
            checkpoints=checkpoints,
            checkpoint_seconds=0,
        )
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 25
    again = train(RECIPE, TOKENS, data_seed=3, target=target(store, TopK(V, 16)), checkpoints=checkpoints)
    assert torch.equal(weights(again), weights(train(RECIPE, TOKENS, data_seed=3, target=by)))


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "gone", "another shard's"])
def test_damage_is_found_and_only_that_is_written_again(tmp_path: Path, damage: str) -> None:
    store, teach = Store(tmp_path), Counting(Full(V))
    whole = cache(store).ready(teach)
    assert teach.asked == STEPS * BATCH
    cache(store).ready(teach)
    assert teach.asked == STEPS * BATCH  # nobody is asked twice
    expected = whole.of(DATA.seen(STEPS)).tobytes()
    first, second = sorted((tmp_path / "key" / "logits").iterdir())[:2]
    data = bytearray(second.read_bytes())
    if damage == "gone":
        second.unlink()
    elif damage == "another shard's":
        shutil.copy(first, second)
    else:
        data[len(data) // 2] ^= 1
        second.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    again = cache(store).ready(teach)
    assert again.of(DATA.seen(STEPS)).tobytes() == expected  # found when it is first touched, at the latest
    assert teach.asked == STEPS * BATCH + 7


def _writes(root: str, asked: Any) -> None:
    torch.set_num_threads(1)
    shard_cache.SHARD_BYTES = 7 * CONTEXT * V * 2
    teach = Counting(Full(V))
    found = cache(Store(root)).ready(teach).of(DATA.seen(STEPS))
    asked.put((teach.asked, found.tobytes()))


def test_two_writers_at_once_write_one_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    asked = context.Queue()
    writers = [context.Process(target=_writes, args=(str(tmp_path), asked)) for _ in range(2)]
    for writer in writers:
        writer.start()
    outcomes = [asked.get(timeout=120) for _ in writers]
    for writer in writers:
        writer.join()
    assert outcomes[0][1] == outcomes[1][1]
    assert all(0 <= count <= STEPS * BATCH for count, _ in outcomes)
    teach = Counting(Full(V))
    assert cache(Store(tmp_path)).ready(teach).of(DATA.seen(STEPS)).tobytes() == outcomes[0][1]
    assert teach.asked == 0
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_cache_goes_on_where_its_writer_died(tmp_path: Path) -> None:
    class Dies(Counting):
        def __call__(self, numbers: Numbers) -> Any:
            if self.asked >= 21:
                raise KeyboardInterrupt
            return super().__call__(numbers)

    store, told = Store(tmp_path), []
    with pytest.raises(KeyboardInterrupt):
        cache(store).ready(Dies(Full(V)))
    teach = Counting(Full(V))
    cache(store).ready(teach, lambda there, of: told.append((there, of)))
    assert teach.asked == STEPS * BATCH - 21
    assert told[0] == (28, STEPS * BATCH)
    assert told[-1] == (STEPS * BATCH, STEPS * BATCH)


def test_a_store_elsewhere_is_read_without_copying_it_here(own_cache: Path) -> None:
    store, teach = Store("memory://logits"), Counting(Full(V))
    first = cache(store).ready(teach).of(DATA.seen(STEPS))
    again = cache(store).ready(teach)
    for batch in range(STEPS):  # blocks of shards all over: verified once, then read alone
        numbers = DATA.numbers(batch).numpy()
        assert again.of(numbers).tobytes() == first[np.searchsorted(DATA.seen(STEPS), numbers)].tobytes()
        assert len(again._held) <= shards.HELD
    assert teach.asked == STEPS * BATCH
    assert not own_cache.exists() or not list(own_cache.rglob("*.bin"))


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach = Counting(Full(V))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1_000_000))  # type: ignore[attr-defined]
    needed = STEPS * BATCH * CONTEXT * V * 2
    with pytest.raises(
        InputError, match=rf"need {needed:,} bytes more there, and the disk has 1,000,000 left"
    ):
        cache(Store(tmp_path)).ready(teach)
    assert teach.asked == 0
    assert cache(Store(tmp_path), TopK(V, 16)).ready(Counting(TopK(V, 16))).shards


def test_a_teacher_that_is_not_a_number_writes_nothing(tmp_path: Path) -> None:
    broken = teacher()
    with torch.no_grad():
        broken.teacher.model.norm.weight[0] = torch.nan
    with pytest.raises(InputError, match="the teacher: its outputs are not all finite"):
        cache(Store(tmp_path)).ready(lambda numbers: distributions(broken, DATA, numbers, Full(V)))
    assert not list(tmp_path.rglob("*.bin"))


def test_blocks_say_the_same_whatever_else_a_cache_holds(tmp_path: Path) -> None:
    short = cache(Store(tmp_path / "short"), steps=10).ready(Counting(Full(V)))
    long = cache(Store(tmp_path / "long")).ready(Counting(Full(V)))
    shared = DATA.seen(10)
    one, other = (logits.of(shared)["log_p"].astype(float) for logits in (short, long))
    assert np.abs(one - other).max() <= 2**-11 * np.abs(one).max()
    with pytest.raises(AssertionError, match="for other blocks"):
        short.of(DATA.numbers(30).numpy())


def test_a_sweep_writes_caches_as_steps_and_students_read_them(
    small_spec: dict[str, Any],
    text_file: Path,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over a text that every student reads about twice, and that each cache holds once."""
    asked = []

    def counted(self: Online, inputs: Tensor, numbers: Tensor) -> Tensor:
        asked.append(inputs.numel())
        return rows(self, inputs, numbers)

    rows = Online.rows
    monkeypatch.setattr(Online, "rows", counted)
    text_file.write_text(text_file.read_text()[:30_000])
    small_spec |= {
        "supervised": [],
        "teachers": [{"params": ["7k"], "tokens": ["64k"]}],
        "students": [{"params": ["3k"], "tokens": ["32k"]}],
        "methods": [{}, {"logits": "cached"}, {"logits": "top-k", "top": 64}],
    }
    sweep = parse_sweep(small_spec)
    dag, store = dag_of(sweep), Store(tmp_path / "runs")
    assert [step.kind for step in dag.steps] == ["pretrain", "distil", "cache", "distil", "cache", "distil"]
    online, full = dag.steps[1], dag.steps[3]
    assert full.flops == online.flops  # a law's
    assert full.flops_to_spend == full.student_flops
    cache = dag.steps[2]
    assert cache.flops_to_spend == pytest.approx(online.teacher_flops * cache.tokens / online.tokens)
    store.create()
    record_sweep(store, sweep, dag)
    assert run_dag(dag, store, InlineExecutor(store), lambda step: 1.0, lambda _: None).complete
    written, trained = store.result(cache.id), store.result(full.id)
    assert written is not None
    assert trained is not None
    assert trained["epochs"] > 1.5
    assert cache.tokens == written["tokens"] < full.tokens / 1.5
    assert sum(asked) == online.tokens + 2 * cache.tokens  # what is really read
    assert cache.flops_to_spend == written["flops"]["total"] == flops_recorded(store, cache.id)
    table = results(store.root).set_index("method")
    assert len(table) == 4
    loss = table["loss"]
    assert loss["forward-kl cached"] == pytest.approx(loss["forward-kl"], rel=0.02)
    assert loss["forward-kl top-64"] == pytest.approx(loss["forward-kl"], rel=0.05)
    assert loss["forward-kl top-64"] != loss["forward-kl"]
    assert table["flops"].nunique() == 2  # the teacher's, and every student's
