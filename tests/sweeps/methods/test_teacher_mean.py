"""Several teachers as one target: their mean, its cost and memory, and students of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.dag.kind import StepKind
from sweeps.dag.ladder import shape_for
from sweeps.data.corpus import planned_tokens, tokens_of
from sweeps.distill.models import Models
from sweeps.distill.targets import Online
from sweeps.distill.teacher import followed, stream_of, target_of
from sweeps.distill.teacher_mean import MeanOfTeachers, log_mean
from sweeps.estimate.memory.memory import step_memory
from sweeps.execute.steps.step import run_step
from sweeps.model.decoder import Decoder
from sweeps.model.model_files import save_model
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store

MEAN = "sweeps.methods.teacher_mean:TeacherMean"


@pytest.fixture
def spec(small_spec: dict[str, Any], own_cache: Path, tmp_path: Path) -> dict[str, Any]:
    """Two random teachers of two sizes, and a student of their mean."""
    corpus = tokens_of(dag_of(parse_sweep(small_spec)).steps[0].corpus)
    teachers = []
    for seed, params in enumerate((7e3, 1.3e4)):
        model = Decoder(shape_for(params, vocab=corpus.vocab, context=32, aspect_ratio=32))
        model.initialize(seed)
        with torch.no_grad():  # far from uniform, and from each other
            model.model.embed_tokens.weight.mul_(3)
        folder = tmp_path / f"teacher-{seed}"
        folder.mkdir()
        save_model(model, corpus.tokenizer_files, folder)
        teachers.append({"model": str(folder)})
    return small_spec | {
        "supervised": [],
        "teachers": teachers,
        "students": [{"params": ["3k"], "tokens": ["32k"], "teachers": [0]}],
        "methods": [{"target": {"use": MEAN, "weights": [3, 1]}, "other_teachers": [1]}],
    }


def student_of(spec: dict[str, Any], **method: Any) -> Step:
    changed = spec | {"methods": [spec["methods"][0] | method]}
    return next(step for step in dag_of(parse_sweep(changed)).steps if step.kind is StepKind.DISTILL)


def test_the_mean_is_that_of_probabilities() -> None:
    log_p = [torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.1, 0.2, 0.7]).log()]
    assert log_mean(log_p, (0.75, 0.25)).exp().tolist() == pytest.approx([0.4, 0.425, 0.175], rel=1e-6)
    torch.testing.assert_close(log_mean([log_p[1], log_p[1]], (0.3, 0.7)), log_p[1])


def test_readers_online_in_chunks_and_from_a_cache_equal_the_mean_by_hand(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    step, store = student_of(spec), Store(tmp_path / "store")
    corpus = planned_tokens(step.corpus, step.corpus_fingerprint)
    data = stream_of(step, corpus)
    numbers = torch.from_numpy(data.seen(step.steps)[:4])
    inputs = data.read(numbers)[:, :-1]
    models = Models(store, step)
    with torch.no_grad():
        each = [(model.model(inputs) @ model.head.T).softmax(-1).flatten(0, 1) for model in models.teachers]
    expected = (0.75 * each[0] + 0.25 * each[1]).log()
    assert (each[0] - each[1]).abs().max() > 0.1

    def said(reader: Any, temperature: float = 1.0) -> Tensor:
        found: Tensor = reader.log_probabilities(reader.rows(inputs, numbers), temperature)
        return found

    online = followed(step, models)
    assert isinstance(online, MeanOfTeachers)
    assert online.returns_log_probs
    in_chunks = MeanOfTeachers(online.teachers, online.shares)
    for reader in (online, in_chunks):
        torch.testing.assert_close(said(reader), expected)
        torch.testing.assert_close(said(reader, 2.0), (expected / 2).log_softmax(-1))
    cached = student_of(spec, logits="cached")
    assert cached.logits is not None
    assert [teacher.id for teacher in cached.logits.teachers] == [teacher.id for teacher in step.teachers]
    kept = target_of(store, cached, corpus, Models(store, cached))
    torch.testing.assert_close(said(kept), expected, rtol=1e-3, atol=1e-4)  # half precision


def test_a_student_of_one_teacher_twice_is_a_student_of_that_teacher(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    store.create()
    twice = student_of(spec, target={"use": MEAN}, other_teachers=[0])
    alone = student_of(spec | {"methods": [{}]})
    models = Models(store, twice)
    inputs = torch.arange(64).view(2, 32)
    both, own = followed(twice, models), followed(alone, Models(store, alone))
    assert isinstance(own, Online)
    rows = [reader.rows(inputs, torch.arange(2)) for reader in (both, own)]
    torch.testing.assert_close(rows[0], rows[1])
    losses = [run_step(store, step)["loss"] for step in (twice, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # after 500 steps of rounding


def test_cost_memory_and_identity_count_every_teacher(spec: dict[str, Any]) -> None:
    mean, alone = student_of(spec), student_of(spec | {"methods": [{}]})
    first, second = mean.teachers
    per_token = [each.shape.forward_flops for each in (first, second)]
    assert mean.flops_by_part()["teacher_reading"] == pytest.approx(mean.tokens * sum(per_token))
    assert alone.flops_by_part()["teacher_reading"] == pytest.approx(alone.tokens * per_token[0])
    assert step_memory(mean) == pytest.approx(step_memory(alone) + 4 * second.shape.total_params, rel=1e-12)
    equal = student_of(spec, target={"use": MEAN, "weights": [1, 1]})
    assert len({mean.id, alone.id, equal.id}) == 3
    assert Step.from_json(json.loads(json.dumps(mean.as_json()))) == mean
    cached = student_of(spec, logits="cached")
    assert cached.logits is not None
    assert cached.logits.flops_to_spend == pytest.approx(cached.logits.tokens * sum(per_token))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            {"other_teachers": []},
            r"TeacherMean is a mean of several teachers; name the others in other_teachers",
        ),
        ({"target": {"use": MEAN, "weights": [1]}}, r"target\.weights: 1 weights of 2 teachers"),
        ({"target": {"use": MEAN, "weights": [1, 0]}}, r"weights"),
        ({"other_teachers": [2]}, r"other_teachers: no teacher has number 2; the last is 1"),
    ],
)
def test_a_mean_that_is_none_is_refused(spec: dict[str, Any], method: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        student_of(spec, **method)
