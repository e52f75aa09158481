"""Caches of hidden states: bits of students, shared steps, disk space, kills, damage, refusals."""

from __future__ import annotations

import json
import multiprocessing
import os
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
from sweeps.dag.expand import Dag, Step
from sweeps.data.batches import Batches
from sweeps.distill import models
from sweeps.distill.caches import shard_cache
from sweeps.distill.caches.hidden_state_cache import HiddenStateFormat, kept_hidden_states
from sweeps.distill.caches.read_ahead import ReadAhead
from sweeps.distill.caches.read_ahead_memory import read_ahead_bytes
from sweeps.distill.models import Models
from sweeps.distill.targets import Online
from sweeps.estimate.cost import Throughput, disk
from sweeps.estimate.memory.memory import memory_parts, step_memory
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run as run_dag
from sweeps.execute.steps.provenance import record_sweep
from sweeps.execute.teacher_sharing import group_into_cohorts
from sweeps.features import FeatureMoments
from sweeps.model.decoder import Decoder
from sweeps.model.hidden_states import hidden_states
from sweeps.resolve import dag_of
from sweeps.spec.hidden_layers import HiddenLayers
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store
from sweeps.train.loop import train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run
from sweeps.watch.garbage import find_garbage
from sweeps.watch.runs_table import cache_notes
from sweeps.watch.status import status

V, CONTEXT, STEPS = 300, 16, 24  # the short text is read once in 15 steps
MODULE = "sweeps.methods.feature_targets"
TOKENS = (np.arange(60 * CONTEXT + 1) ** 2 % 299).astype(np.uint16)
TWO_TEACHERS = {"other_teachers": [1]}


def features(**options: Any) -> dict[str, Any]:
    """Feature targets alone, whose statistics are there after three steps."""
    loss = {"use": f"{MODULE}:FeatureTargets", "statistics_steps": 3, "layers": [0, -1], **options}
    return {"auxiliary_losses": [loss], "token_loss_weight": 0}


@pytest.fixture
def spec(text_file: Path) -> dict[str, Any]:
    """One small student of one teacher, with another teacher beside."""
    return {
        "name": "features",
        "corpus": {"source": str(text_file), "vocab": V, "context": CONTEXT, "heldout": 0.1},
        "training": {"batch_tokens": 4 * CONTEXT, "warmup_tokens": 800},
        "teachers": [{"params": ["7k"], "tokens": ["32k"]}, {"params": ["5k"], "tokens": ["32k"]}],
        "students": [{"params": ["3k"], "tokens": ["32k"], "teachers": [0]}],
    }


def dag(spec: dict[str, Any], *methods: Any, **changes: Any) -> Dag:
    return dag_of(parse_sweep(spec | {"methods": list(methods)} | changes))


def only(found: Dag, kind: str) -> list[Step]:
    return [step for step in found.steps if step.kind == kind]


def untrained(step: Step) -> Online:
    made = Decoder(step.shape)
    made.initialize(7)
    return Online(made.eval().requires_grad_(False))


class ShortText:
    """A corpus of 60 blocks."""

    def train_tokens_of(self, half: Any) -> Any:
        return TOKENS


def kept_by(step: Step, store: Store) -> Any:
    return kept_hidden_states(store, step, ShortText())  # type: ignore[arg-type]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks that untrained teachers read at a time, pass by pass."""
    found: list[int] = []

    def counted(model: Any, inputs: Tensor, layers: Any) -> Any:
        found.append(len(inputs))
        return hidden_states(model, inputs, layers)

    monkeypatch.setattr(models, "hidden_states", counted)
    monkeypatch.setattr(models, "online", lambda store, step, world=None: untrained(step))
    return found


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven blocks each, of two layers of 16 channels in fp32; fewer of wider teachers."""
    monkeypatch.setattr(shard_cache, "SHARD_BYTES", 7 * CONTEXT * 2 * 16 * 4)


def trained(step: Step, store: Store) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of every step of a short run, and all that the run knows in the end."""
    losses: list[float] = []

    class Watched(Run):
        def look(self) -> None:
            super().look()
            losses.append(self.loss)

    read = Models(store, step, kept={cache.id: kept_by(cache, store) for cache in step.features})
    recipe = RunRecipe(shape=step.shape, steps=STEPS, training=step.training, seed=0, method=step.method)
    run = Watched(recipe=recipe, models=read)
    target = read.online_teacher if step.method and step.method.reads_teacher else None
    unsaved = {"checkpoint_seconds": 1e9}  # saving looks at the loss once more
    for _, error in train_together([run], TOKENS, data_seed=step.data_seed, target=target, **unsaved):
        if error:
            raise error
    return losses, {name: each for name, each in run.state().items() if name != "/pieces and seconds"}


@pytest.mark.parametrize(
    "given",
    [
        features(),
        features() | TWO_TEACHERS,
        features(layers=[-1], normalization="zca", scales=[191]) | {"token_loss_weight": 1},
        features(layers_by_teacher=[[-2], [-1, 0]], layers=[-1], normalization="none") | TWO_TEACHERS,
    ],
    ids=["layers", "teachers", "beside forward KL", "layers by teacher"],
)
def test_a_student_of_an_fp32_cache_has_the_bits_of_one_with_its_teachers_online(
    spec: dict[str, Any], given: dict[str, Any], own_cache: Path, tmp_path: Path, passes: list[int]
) -> None:
    """Statistics too, also in the second epoch, where batches are other blocks than were read together."""
    (loss,) = given["auxiliary_losses"]
    cached_method = given | {"auxiliary_losses": [loss | {"cache": "fp32"}]}
    online, cached = only(dag(spec, given, cached_method), "distil")
    expected, state = trained(online, Store(tmp_path))
    assert passes == [4] * STEPS * len(online.teachers)
    passes.clear()
    found, cached_state = trained(cached, Store(tmp_path))
    assert passes == [4] * 15 * len(online.teachers)  # once over the text
    assert found == expected
    assert len(expected) == STEPS
    assert cached_state.keys() == state.keys()
    assert all(torch.equal(cached_state[name], state[name]) for name in state)
    passes.clear()
    trained(cached, Store(tmp_path))
    assert not passes


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.0), ("fp16", 2.0**-11), ("bf16", 2.0**-8)])
def test_statistics_of_a_cache_are_those_of_what_was_rounded(
    spec: dict[str, Any], own_cache: Path, tmp_path: Path, passes: list[int], precision: str, bound: float
) -> None:
    """Rounding moves a number by at most half a unit in its last place, and statistics by less."""
    (step,) = only(dag(spec, features(cache=precision)), "cache-features")
    assert step.teacher is not None
    numbers = torch.arange(60)
    inputs = Batches(TOKENS, context=CONTEXT, batch=4, seed=0).read(numbers)[:, :-1]
    teacher = untrained(step.teacher).teacher
    layers = step.hidden.layers if step.hidden else ()
    kept = kept_by(step, Store(tmp_path)).of(numbers, layers)
    for read, exact in zip(kept, hidden_states(teacher, inputs, layers)[1], strict=True):
        assert read.dtype == torch.float32
        assert ((read - exact).abs() <= bound * exact.abs() + (1e-7 if bound else 0)).all()
        one, other = FeatureMoments.of(read), FeatureMoments.of(exact)
        variance = other.covariance().diagonal().mean()
        assert (one.covariance() - other.covariance()).abs().max() <= bound * variance
        assert (one.mean - other.mean).abs().max() <= bound * variance.sqrt()


def test_one_cache_of_a_teacher_serves_all_its_students(spec: dict[str, Any], own_cache: Path) -> None:
    """Of every length, normalization and layer; of another order of the data, or precision, there is one more."""
    methods = [
        features(cache="fp32"),
        features(cache="fp32", normalization="none", layers=[1]) | TWO_TEACHERS,
        features(cache="bf16"),
        features(),
        {},
    ]
    students = [
        {"params": ["3k", "5k"], "tokens": ["32k", "40k"], "teachers": [0]},
        {"params": ["3k"], "tokens": ["32k"], "seeds": [1], "teachers": [0]},
    ]
    training = spec["training"] | {"schedule": "wsd"}
    found = dag(spec, *methods, students=students, training=training)
    caches = only(found, "cache-features")
    names = [(e.teacher and e.teacher.shape.params, e.data_seed, e.tokens, str(e.hidden)) for e in caches]
    assert len(names) == len(set(names)) == 2 * 3
    assert {name[1:3] for name in names} == {(0, 40_000), (1, 32_000)}
    assert {name[3] for name in names} == {"layers 0, 1 in fp32", "layer 1 in fp32", "layers 0, 1 in bf16"}
    done: set[str] = set()
    for step in found.steps:
        assert {need.id for need in step.needs} <= done
        done.add(step.id)
        assert Step.from_json(json.loads(json.dumps(step.as_json()))) == step
    without = dag(spec, *methods[3:], students=students, training=training)
    assert {step.id for step in without.steps} < {step.id for step in found.steps}


def test_what_is_cached_is_paid_once_and_counts_for_every_student(
    spec: dict[str, Any], own_cache: Path
) -> None:
    given = features(layers=[0, -1]) | TWO_TEACHERS
    online = dag(spec, given)
    cached = dag(spec, features(cache="bf16") | TWO_TEACHERS, students=[spec["students"][0] | {"seeds": [0]}])
    (one,), (other,) = only(online, "distil"), only(cached, "distil")
    assert other.flops_by_part() == one.flops_by_part()  # a law's
    _, hidden = one.auxiliary_flops
    assert hidden == sum(each.shape.forward_flops for each in one.teachers)
    assert one.flops_to_spend - other.flops_to_spend == pytest.approx(hidden * one.tokens)
    assert cached.flops == pytest.approx(online.flops)
    rates = Throughput(*[[1e3, 1e8]] * 5)  # a second a FLOP
    assert rates.seconds(one) - rates.seconds(other) == pytest.approx(hidden * one.tokens)
    weights = sum(4.0 * each.shape.total_params for each in one.teachers)
    assert (memory_parts(one).teachers, memory_parts(other).teachers) == (weights, 0)
    difference = weights - memory_parts(other).read_ahead
    assert step_memory(one) - step_memory(other) == pytest.approx(difference)
    widths = sum(2 * each.shape.width for each in one.teachers)
    assert disk(cached) == 2.0 * widths * one.tokens
    assert disk(online) == 0
    many = [replace(each, seed=seed) for each in (one, other) for seed in (0, 1)]
    assert [len(each) for each in group_into_cohorts(many, 1, lambda step: 1.0)] == [2, 1, 1]


def test_a_sweep_of_both_caches_runs_and_cleans_up(
    spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    """Features beside forward KL: both online, features cached, both cached."""
    beside, kept = (features(**given) | {"token_loss_weight": 1} for given in ({}, {"cache": "fp32"}))
    methods = [beside, kept, kept | {"logits": "cached"}]
    sweep = parse_sweep(spec | {"methods": methods, "teachers": spec["teachers"][:1]})
    found, store = dag_of(sweep), Store(tmp_path / "runs")
    kinds = ["pretrain", "distil", "cache-features", "distil", "cache", "distil"]
    assert [step.kind for step in found.steps] == kinds
    store.create()
    record_sweep(store, sweep, found)
    assert run_dag(found, store, InlineExecutor(store), lambda step: 1.0, lambda _: None).complete
    losses = [store.result(step.id)["loss"] for step in only(found, "distil")]  # type: ignore[index]
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[0], rel=0.02)
    assert losses[2] != losses[0]  # logits are kept in half precision
    table = results(store.root)
    assert table.loc[table.kind == "distillation", "flops"].nunique() == 1
    (cache,) = only(found, "cache-features")
    size = sum(file.stat().st_size for file in (tmp_path / "runs" / cache.id / "features").iterdir())
    (logits,) = only(found, "cache")
    assert disk(found) - logits.tokens * V * 2 == size - shard_cache.CHECKSUM_BYTES
    sizes = {each["step"]: each["bytes"] for each in table.attrs["caches"]}
    assert sizes[cache.id] == size == store.result(cache.id)["cache_bytes"]  # type: ignore[index]
    (note,) = (note for note in cache_notes(table.attrs["caches"]) if note.startswith(cache.id[:8]))
    assert note.endswith(f"{size:,} bytes on disk, {size / cache.tokens:.3g} a token")
    garbage = {each.place: each.why for each in find_garbage(store, status(store))}
    assert garbage[cache.id, "features"] == "all steps that read it are done"


def _killed(step: Step, root: str) -> None:
    """Be killed within the third shard: written aside, and not yet moved into place."""
    torch.set_num_threads(1)
    real, shards = os.replace, []

    def replaced(*given: Any, **options: Any) -> None:
        if str(given[1]).endswith(".bin"):
            shards.append(given)
            if len(shards) == 3:
                os._exit(9)
        real(*given, **options)

    os.replace = replaced
    kept_by(step, Store(root))


def test_a_cache_goes_on_where_its_writer_was_killed(
    spec: dict[str, Any], own_cache: Path, tmp_path: Path, passes: list[int], small_shards: None
) -> None:
    (step,) = only(dag(spec, features(cache="fp32")), "cache-features")
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(step, str(tmp_path)))
    process.start()
    process.join()
    assert process.exitcode == 9
    there = sorted(path.name for path in (tmp_path / step.id / "features").glob("*.bin"))
    assert there == ["00000.bin", "00001.bin"]
    again = kept_by(step, Store(tmp_path))
    assert sum(passes) == 60 - 2 * again.shards.each
    whole = kept_by(step, Store(tmp_path / "whole"))
    for one, other in zip(
        again.of(torch.arange(60), [0, 1]), whole.of(torch.arange(60), [0, 1]), strict=True
    ):
        assert torch.equal(one, other)


def test_a_run_reads_its_cache_ahead_once_a_batch(
    spec: dict[str, Any], own_cache: Path, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch is found read, its micro-batches in it; the plan counts the batches that are held."""
    found: list[bool] = []
    batch_with = ReadAhead.batch_with

    def taken(self: ReadAhead, numbers: Any) -> Any:
        batch = batch_with(self, numbers)
        found.append(batch is not None)
        return batch

    monkeypatch.setattr(ReadAhead, "batch_with", taken)
    (step,) = only(dag(spec, features(cache="fp32")), "distil")
    trained(step, Store(tmp_path))
    assert found == [True] * STEPS
    kept = kept_by(step.features[0], Store(tmp_path))
    whole = kept.of(torch.arange(12, 4, -1), [0])[0]
    assert torch.equal(kept.of(torch.tensor([7, 11]), [0])[0], whole[[5, 1]])  # of a micro-batch
    tokens = 4 * CONTEXT
    width = step.teachers[0].shape.width
    assert memory_parts(step).read_ahead == read_ahead_bytes(step, tokens) == 5 * tokens * 2 * 4 * width


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "gone", "another shard's"])
def test_a_damaged_shard_is_never_read_and_alone_written_again(
    spec: dict[str, Any],
    own_cache: Path,
    tmp_path: Path,
    passes: list[int],
    small_shards: None,
    damage: str,
) -> None:
    step = only(dag(spec, features(cache="bf16")), "distil")[0]
    expected, _ = trained(step, Store(tmp_path))
    first, second = sorted((tmp_path / step.features[0].id / "features").iterdir())[:2]
    data = bytearray(second.read_bytes())
    second.unlink()
    if damage == "another shard's":
        shutil.copy(first, second)
    elif damage != "gone":
        data[len(data) // 2] ^= 1
        second.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    passes.clear()
    found, _ = trained(step, Store(tmp_path))
    assert found == expected
    assert sum(passes) == kept_by(step.features[0], Store(tmp_path)).shards.each


def test_a_store_elsewhere_is_read_without_copying_it_here(
    spec: dict[str, Any], own_cache: Path, passes: list[int]
) -> None:
    (step,) = only(dag(spec, features(cache="fp16")), "cache-features")
    first = kept_by(step, Store("memory://features")).of(torch.arange(60), [0])
    assert not (own_cache / "logits").exists()
    passes.clear()
    second = kept_by(step, Store("memory://features")).of(torch.arange(60), [0])
    assert torch.equal(first[0], second[0])
    assert not passes


def test_hidden_states_that_cannot_be_kept_are_refused() -> None:
    how = HiddenStateFormat(HiddenLayers((2,), "fp16"), 4)
    state = torch.zeros(1, CONTEXT, 4)
    state[0, 3, 1] = -7e4
    with pytest.raises(
        InputError, match=r"cache: hidden states of layer 2 reach 7e\+04, beyond .* fp16; set"
    ):
        how.pack([state])
    state[0, 3, 1] = torch.nan
    with pytest.raises(InputError, match="the teacher: its outputs are not all finite numbers"):
        how.pack([state])


def test_no_room_is_said_before_anything_is_written(
    spec: dict[str, Any],
    own_cache: Path,
    tmp_path: Path,
    passes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (step,) = only(dag(spec, features(cache="fp32")), "cache-features")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1_000))  # type: ignore[attr-defined]
    needed = 60 * CONTEXT * 2 * step.shape.width * 4
    with pytest.raises(
        InputError, match=rf"the teacher's features need {needed:,} bytes more .* let the .* have cache: bf16"
    ):
        kept_by(step, Store(tmp_path))
    assert not passes


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (features(cache="int8"), "cache: input should be 'fp32', 'bf16' or 'fp16'"),
        (
            features(cache="bf16") | {"token_loss_weight": 1, "source": {"by": "student"}},
            r"auxiliary_losses.0.cache: .* text of the student is another; remove cache: bf16, or set",
        ),
        (
            features(cache="bf16") | {"logits": "cached"},
            "logits: at token_loss_weight: 0 nothing reads them; remove logits: cached",
        ),
    ],
)
def test_what_cannot_be_read_from_a_cache_is_refused(
    spec: dict[str, Any], method: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        dag(spec, method)


def test_a_loss_of_ones_own_is_cached_too(
    spec: dict[str, Any], own_cache: Path, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that knows nothing of caches."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "docs" / "samples")
    methods = [
        {"auxiliary_losses": [{"use": "my_methods:MatchLayer", "layer": -1, **given}]}
        for given in ({}, {"cache": "fp32"})
    ]
    online, cached = only(dag(spec, *methods), "distil")
    assert trained(online, Store(tmp_path))[0] == trained(cached, Store(tmp_path))[0]
    assert str(cached.features[0].hidden) == "layer 1 in fp32"
