"""Private text in a sweep: refusals, ledger and columns, killed and continued in the same bits, controls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sweeps
from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.data.batches import Batches
from sweeps.distill.models import Models
from sweeps.distill.targets import Online
from sweeps.execute.steps.step import run_steps
from sweeps.methods.ensemble_text import MeanTeacher, MeanText, start_token
from sweeps.methods.private_text import PrivateText
from sweeps.model.decoder import Decoder
from sweeps.pate import Group, ShardCounts
from sweeps.pate.journal import ReleaseJournal, blocks_of, packed
from sweeps.pate.language_models import Reader, mean_log_p
from sweeps.resolve import dag_of
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store

CONTEXT, V = 16, 300
PRIVATE = "sweeps.methods.private_text:PrivateText"
MEAN = "sweeps.methods.ensemble_text:MeanText"


@pytest.fixture
def spec(text_file: Path) -> dict[str, Any]:
    """One small student of one teacher on the other half of the text."""
    return {
        "name": "private",
        "corpus": {"source": str(text_file), "vocab": V, "context": CONTEXT, "heldout": 0.1, "halves": True},
        "training": {"batch_tokens": CONTEXT, "warmup_tokens": 50 * CONTEXT},
        "teachers": [{"params": ["3k"], "tokens": ["8k"]}],
        "students": [{"params": ["3k"], "tokens": ["8k"]}],
    }


def private(**options: Any) -> dict[str, Any]:
    given = {"teachers": 100, "epsilon": 4, "queries": 300, "threshold": 40, **options}
    return {"source": {"use": PRIVATE, **given}, "cross_entropy": 1}


def mean(**options: Any) -> dict[str, Any]:
    return {"source": {"use": MEAN, "teachers": 100, "sequences": 70, **options}, "cross_entropy": 1}


def steps(spec: dict[str, Any], method: Any, kind: str) -> Step:
    found = dag_of(parse_sweep(spec | {"methods": [method]})).steps
    return next(step for step in found if step.kind == kind)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"teachers": 1}, "teachers: 1 shard makes no ensemble"),
        ({"temperature": 0}, "temperature: 0 leaves no distribution"),
        ({"prior": 0}, "prior: 0 leaves no answer"),
        ({"epsilon": 0}, "epsilon: 0 allows no release"),
        ({"epsilon": -2}, "epsilon: -2 allows no release"),
        ({"epsilon": "inf", "threshold": None}, "threshold: without a budget only a threshold protects"),
        ({"epsilon": "infinite", "queries": None}, "queries: without a budget nothing ends the release"),
        ({"delta": 0.05}, "delta: 0.05 is above 1/n = 0.01 for 100 teachers"),
        ({"delta": 0}, "delta: 0 is no probability"),
        ({"queries": 813, "sigma": 64}, "queries: 813 at sigma = 64 exceed epsilon = 4 .* affords 812"),
        ({"sigma": 0}, "sigma: without noise no epsilon is finite"),
        ({"test_sigma": 9}, "test_sigma: it goes beside"),
        ({"threshold": 101}, "threshold: 101 votes of 100"),
        ({"release": "homogeneous"}, "threshold: 40 votes of 100; homogeneous needs more than 50"),
        ({"length": 17}, "length: sequences of 17 tokens after 0 do not fit into corpus.context: 16"),
        ({"by": "contexts"}, "do not fit into corpus.context"),
        ({"public_model": "base"}, "public_model: base is the text that teachers begin with"),
        ({"release": "loud"}, "release: input should be 'confident-gnmax'"),
        ({"epsilon": "much"}, "epsilon: cannot read 'much' as a number; .*; or infinite, with a threshold"),
        ({"epsilon": math.nan}, "PrivateText: epsilon: must be finite, not nan; or infinite"),
        ({"epsilon": True}, "epsilon: must be a number such as 8, or infinite, not True"),
        ({"epsilon": 1e-9, "queries": None}, "epsilon: 1e-09 at delta = 1e-05 affords no query"),
        ({"teachers": 10**6}, "delta: 1e-05 is above 1/n = 1e-06 .* give 1e-07, or less"),
        ({"queries": -3}, "queries: input should be greater than or equal to 1"),
        ({"text_tokens": -1}, "text_tokens: input should be greater than or equal to 0"),
        ({"length": 0}, "length: input should be greater than or equal to 1"),
        ({"by": "contexts", "context_tokens": 0}, "context_tokens: input should be greater than or equal"),
    ],
)
def test_what_promises_nothing_is_refused(spec: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_sweep(spec | {"methods": [private(**options)]})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"init": {"by": "data"}}, "init: it reads the private text"),
        (
            {"target": {"use": "sweeps.methods.ensemble_text:MeanTeacher"}},
            "target: it reads the private text",
        ),
        ({"neighbours": {}}, "neighbours: it reads the private text"),
    ],
)
def test_a_student_cannot_read_past_the_ledger(spec: dict[str, Any], change: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_sweep(spec | {"methods": [private() | {"cross_entropy": 0} | change]})


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ({"teachers": 50_000}, "50,000 shards of .* each, and 2-grams need 2; ask for .* or fewer, or more"),
        ({"by": "contexts", "context_tokens": 8, "length": 8, "teachers": 9000}, ".* and contexts need 8"),
    ],
)
def test_too_many_shards_are_refused_before_anything_runs(
    spec: dict[str, Any], own_cache: Path, method: dict[str, Any], reason: str
) -> None:
    sweep = sweeps.load(spec | {"methods": [private(threshold=40, **method)]})
    with pytest.raises(InputError, match=r"methods\[0\]: teachers: " + reason):
        sweep.plan()
    soft = {"use": "sweeps.methods.ensemble_text:MeanTeacher", "teachers": 50_000}
    with pytest.raises(InputError, match=r"methods\[0\]: teachers: 50,000 shards"):
        sweeps.load(spec | {"methods": [mean() | {"target": soft, "cross_entropy": 0}]}).plan()


def test_the_public_model_must_not_know_the_private_text(spec: dict[str, Any]) -> None:
    whole = spec | {"corpus": spec["corpus"] | {"halves": False}}
    with pytest.raises(InputError, match=r"corpus\.halves: the public model would be trained on the private"):
        parse_sweep(whole | {"methods": [private()]})
    based = whole | {"base": {"source": spec["corpus"]["source"], "tuning_tokens": "8k"}}
    parse_sweep(based | {"methods": [private(public_model="base")]})
    with pytest.raises(InputError, match="threshold: it is found on a public half"):
        parse_sweep(based | {"methods": [private(public_model="base", threshold=None)]})


@pytest.fixture
def untrained(spec: dict[str, Any], own_cache: Path, tmp_path: Path) -> Iterator[Any]:
    """Opens a method's step that writes its text, with a teacher that was never trained."""

    def opened(method: Any, name: str = "store") -> tuple[Any, Models, Batches]:
        step = steps(spec, method, "generate")
        assert step.teacher is not None
        assert step.method is not None
        teacher = Decoder(step.teacher.shape)
        teacher.initialize(7)
        store = Store(str(tmp_path / name))
        models = Models(store, step, {step.teacher.id: Online(teacher.requires_grad_(False))})
        tokens = (np.arange(6_000) ** 2 % 97).astype(np.uint16)
        data = Batches(tokens, context=CONTEXT, batch=1, seed=3)
        return parts_of(step.method).source, models, data

    yield opened


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"votes": "cold", "threshold": 10, "tries": 2, "release": "heterogeneous"},
        {"after_refusal": "end", "tries": 3, "order": 3},
        {
            "by": "contexts",
            "context_tokens": 6,
            "teachers": 12,
            "threshold": 7,
            "temperature": 0.7,
            "length": 7,
        },
        {"epsilon": "infinite"},
        {"text_tokens": 500, "epsilon": 0.5},
    ],
)
def test_a_release_that_was_killed_goes_on_in_the_same_bits(untrained, options, monkeypatch) -> None:
    source, models, data = untrained(private(**options), "whole")
    whole = source.groups(models, data)
    columns = source.text_columns(models, data)
    assert len(whole) >= 2

    class Killed(Exception):
        pass

    source, models, data = untrained(private(**options), "broken")
    write = Store.write

    def failing(self: Store, record: Any, *place: str, **given: Any) -> None:
        if place[-1] == "00001.json":
            raise Killed
        write(self, record, *place, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", failing)
        with pytest.raises(Killed):
            source.groups(models, data)
    assert len(ReleaseJournal(models.store, models.step.id).groups()) == 1
    assert source.groups(models, data) == whole
    assert source.groups(models, data) == whole  # nothing is asked again
    assert source.text_columns(models, data) == columns


def test_the_ledger_says_what_was_spent(untrained) -> None:
    source, models, data = untrained(private())
    groups = source.groups(models, data)
    columns = source.text_columns(models, data)
    flags = [flag for group in groups for sequence in group.released for flag in sequence]
    assert columns["queries"] == 300
    assert columns["released_tokens"] == sum(flags) == 300 - columns["refusals"]
    assert 0 < columns["released_tokens"] < 300
    assert columns["teacher_queries"] == 300 * 100
    assert columns["text_tokens"] == len(packed(groups, 0))
    assert columns["epsilon"] <= 4
    sigma = columns["sigma"]
    spent = 300 / (2 * sigma**2) + columns["released_tokens"] / sigma**2
    assert columns["rho"] == pytest.approx(spent)
    report = ReleaseJournal(models.store, models.step.id).report()
    assert report is not None
    assert report["unit"] == "one of 100 shards of 60 tokens"
    assert "replaced" in report["neighbors"]
    assert "floating point" in report["caveats"][0]
    assert "vocabulary" in report["caveats"][-1]
    assert report["claim"].endswith("1e-05)-differential privacy")


def test_without_noise_nothing_is_claimed(untrained) -> None:
    source, models, data = untrained(private(epsilon="infinite"))
    columns = source.text_columns(models, data)
    assert not {"epsilon", "rho"} & columns.keys()
    report = ReleaseJournal(models.store, models.step.id).report()
    assert report is not None
    assert report["claim"].startswith("no privacy claim: the threshold of 40 votes is a proxy only")
    assert report["epsilon"] is None


def test_random_numbers_answer_for_one_release_only(untrained) -> None:
    """Other options, seeds and texts have other numbers, and a store's release refuses another's key."""
    source, models, data = untrained(private())
    other, _, _ = untrained(private(sigma=90))
    later = Batches(data.tokens, context=CONTEXT, batch=1, seed=4)
    keys = {source.key(models, data), other.key(models, data), source.key(models, later)}
    assert len(keys) == 3
    source.groups(models, data)
    with pytest.raises(InputError, match="a release of other data or options lies there"):
        source.groups(models, later)


def test_threshold_and_noise_are_found_on_the_public_half(untrained) -> None:
    source, models, data = untrained(private(threshold=None, queries=None, teachers=40))
    columns = source.text_columns(models, data)
    assert columns["threshold"] in source.thresholds
    assert columns["sigma"] in source.sigmas
    assert columns["epsilon"] <= 4
    assert 1 <= columns["likely_tokens"] <= V


def test_text_is_packed_into_blocks_that_repeat() -> None:
    groups = [Group([[1, 2, 3], []], [[True] * 3, []]), Group([[4]], [[False]])]
    stream = packed(groups, 9)
    assert stream.tolist() == [9, 1, 2, 3, 9, 4, 9]
    found = blocks_of(stream, np.array([0, 1, 2, 3]), 3)
    assert found.tolist() == [[9, 1, 2, 3], [3, 9, 4, 9], [9, 1, 2, 3], [3, 9, 4, 9]]
    with pytest.raises(InputError, match="the release gave 5 tokens, and a block needs 8; raise epsilon"):
        blocks_of(stream, np.array([0]), 8)


def test_the_soft_mean_is_the_mean_of_the_teachers(untrained) -> None:
    _, models, data = untrained(mean())
    for order in (2, 3):
        counts = ShardCounts.of(data.tokens, teachers=40, vocab=V, order=order)
        inputs = data.read(torch.tensor([5, 9]))[:, :-1]
        log_p = mean_log_p(models.teacher, counts, 2.0, inputs)
        assert log_p.exp().sum(-1) == pytest.approx(1, abs=1e-5)
        for row, at in ((0, 0), (1, 7)):
            prefix = inputs[row, : at + 1]
            public = Reader(models.teacher).read(prefix[None])[0]
            expected = counts.at(prefix.numpy(), public, 2.0).mean()
            np.testing.assert_allclose(log_p[row, at].exp().numpy(), expected, rtol=2e-4, atol=1e-7)


def test_text_of_the_mean_goes_on_where_it_was(untrained) -> None:
    source, models, data = untrained(mean())
    groups = source.groups(models, data)
    assert [len(group.sequences) for group in groups] == [64, 6]
    assert all(len(sequence) == CONTEXT for group in groups for sequence in group.sequences)
    models.store.remove(models.step.id, "release", "00001.json")
    assert source.groups(models, data) == groups
    public, models, data = untrained(mean(public=True), "public")
    assert public.groups(models, data) != groups


def test_costs_are_charged(spec: dict[str, Any], own_cache: Path) -> None:
    step = steps(spec, private(sigma=64, queries=None), "generate")
    assert step.teacher is not None
    most = 4.0 - 4.0 + 0.29765 * 2 * 64**2  # if every query were refused
    assert step.flops_to_spend == pytest.approx(step.teacher.shape.forward_flops * most, rel=1e-4)
    student = steps(spec, private(queries=300), "distil")
    assert student.flops_by_part()["teacher_writing"] == pytest.approx(step.teacher.shape.forward_flops * 300)
    contexts = private(by="contexts", context_tokens=4, teachers=12, threshold=7)
    assert steps(spec, contexts, "distil").flops_by_part()["teacher_writing"] == pytest.approx(
        step.teacher.shape.forward_flops * 300 * 13
    )


def test_results_have_the_ledger(spec: dict[str, Any], own_cache: Path, tmp_path: Path) -> None:
    """The whole way: released, trained on, measured; rerun, nothing is asked again."""
    store = Store(str(tmp_path / "store"))
    made = dag_of(parse_sweep(spec | {"methods": [private()]})).steps
    for step in made:
        for _, result in run_steps(store, [step]):
            assert isinstance(result, dict), result
    store.write({"spec": {}, "steps": [step.id for step in made], "caps": {}}, "sweep.json")
    table = sweeps.results(str(tmp_path / "store"), metrics=True, everything=True)
    (row,) = [row for _, row in table[table.kind == "distillation"].iterrows()]
    assert row.queries == 300
    assert row.epsilon <= 4
    assert row.delta == 1e-5
    assert 0 < row.released_tokens < 300
    assert row.epochs == pytest.approx(row.tokens / row.text_tokens)  # of what was written, not of the corpus
    assert np.isfinite(row.loss)


def test_sequences_begin_with_the_end_of_a_text(spec: dict[str, Any], own_cache: Path) -> None:
    step = steps(spec, private(), "generate")
    assert start_token(step) == 0
    assert MeanText().written_length(64) == 64
    assert PrivateText(epsilon=1, by="contexts").written_length(64) == 48
    assert list(MeanTeacher(teachers=1).objections(step.method))  # type: ignore[arg-type]
