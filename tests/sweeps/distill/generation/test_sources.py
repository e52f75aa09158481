"""Runs whose text models write: killed and resumed, in pieces, on several processes, beside each other."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps import results
from sweeps.dag import expand as steps_of_sweeps
from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches, take_blocks
from sweeps.data.corpus import planned_tokens
from sweeps.distill.generation.generated_text import texts
from sweeps.distill.generation.on_policy import batch_source
from sweeps.distill.generation.sampling import uniform_numbers, write
from sweeps.distill.metrics import READ, SEED, WRITTEN, cross_likelihood, measure_divergences
from sweeps.distill.targets import Online
from sweeps.execute.steps.provenance import record_sweep
from sweeps.execute.steps.step import run_step, run_steps
from sweeps.model.decoder import Decoder
from sweeps.model.distributed import World
from sweeps.model.log_probs import cross_entropy, log_probabilities
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method, named_methods
from sweeps.spec.method.method_options import Credit, Replay, Source
from sweeps.spec.method.run_views import RunSetting, TrainingBatch
from sweeps.spec.spec import Training, parse_sweep
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train import loop
from sweeps.train.loop import train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run
from sweeps.watch.runs_table import METRIC_COLUMNS

V, CONTEXT, BATCH, STEPS = 300, 32, 4, 24
PROMPT = CONTEXT // 4
RULES = Training(batch_tokens=CONTEXT * BATCH, warmup_tokens=640)
SHAPE = shape_for(3e3, vocab=V, context=CONTEXT, aspect_ratio=32)
TOKENS = (np.arange(6_000) ** 2 % 299).astype(np.uint16)
DATA = Batches(TOKENS, context=CONTEXT, batch=BATCH, seed=3)
WRITING = [name for name in named_methods() if Method(use=name).source.by in ("student", "both")]
REPLAY = Replay(capacity=10, start=0.7, rise=0.2, tolerance=0.0, looks=6)


def model(seed: int, params: float = 7e3) -> Decoder:
    made = Decoder(shape_for(params, vocab=V, context=CONTEXT, aspect_ratio=32))
    made.initialize(seed)
    return made.eval().requires_grad_(False)


def recipe(method: Method, **given: Any) -> RunRecipe:
    """Of a run whose replay, if it has one, soon has something to do."""
    if method.source.replay:
        method = method.model_copy(update={"source": method.source.model_copy(update={"replay": REPLAY})})
    return RunRecipe(shape=SHAPE, steps=STEPS, training=RULES, seed=0, method=method, **given)


def weights(run: Run) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in run.model.parameters()]).detach()


class Killed(Exception):
    """At some point of a run."""


@pytest.mark.parametrize("name", WRITING)
def test_killed_and_resumed_a_run_ends_in_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0)
    target, store, kills = Online(model(7)), Store(tmp_path), [2, 13, 14]

    def until(killed_at: int | None, checkpoints: Checkpoints | None) -> Run:
        run = Run(recipe=recipe(Method(use=name)), checkpoints=checkpoints)

        def report(run: Run) -> None:
            if run.done == killed_at:
                raise Killed

        for _ in train_together(
            [run], TOKENS, data_seed=3, target=target, report=report, checkpoint_seconds=0
        ):
            pass
        return run

    whole = until(None, None)
    for kill in kills:
        with pytest.raises(Killed):
            until(kill, Checkpoints(store, "run"))
    found = until(None, Checkpoints(store, "run"))
    assert torch.equal(weights(found), weights(whole))
    assert found.source is not None
    assert whole.source is not None
    assert found.source.sequences == whole.source.sequences > 0


def batch_of(run: Run, step: int, target: Online) -> TrainingBatch:
    assert run.source is not None
    run.source.watch(DATA)
    return run.source.batch(run.model, step, DATA[step], target)


@pytest.mark.parametrize("name", WRITING)
def test_a_batch_in_pieces_has_the_loss_and_gradient_of_the_whole(name: str) -> None:
    """Also where the two halves of a batch are of different text, and pieces hold one of them each."""
    target, found = Online(model(7)), []
    for pieces in (1, 2, 3):
        run = Run(recipe=recipe(Method(use=name)))
        run.pieces = pieces
        loss = run._backward(batch_of(run, 0, target), target)
        found.append((loss, run.optimizer.gradients.clone()))
    for loss, gradient in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [*WRITING, "f-distill-js exact"])
def test_from_its_own_like_a_student_learns_nothing(name: str) -> None:
    """No hidden cross-entropy, no credit for what was only chance."""
    method = Method(use=name.split()[0], midpoint="exact" if "exact" in name else "naive", pretraining=0)
    run = Run(recipe=replace(recipe(method), training=RULES.model_copy(update={"z_loss": 0.0})))
    twin = Decoder(SHAPE)
    twin.load_state_dict(run.model.state_dict())
    target = Online(twin.requires_grad_(False))
    run._backward(batch_of(run, 0, target), target)
    assert run.optimizer.gradients.abs().max() < 1e-6
    other = Online(model(7))
    run.optimizer.clear()
    run._backward(batch_of(run, 0, other), other)
    assert run.optimizer.gradients.abs().max() > 1e-4


def test_methods_become_each_other_where_they_should() -> None:
    """MiniLLM without credit or teacher, f-DISTILL's reverse KL and GKD of the student alone are one."""
    target, own = Online(model(7)), {"divergence": "reverse-kl", "init": None}
    methods = [
        Method(use="gkd", source={"by": "student", "fraction": 1.0}, **own),
        Method(use="f-distill-rkl", **own),
        Method(use="minillm", source={"by": "student", "teacher_share": 0.0}, pretraining=0, **own),
    ]
    found = []
    for method in methods:
        run = Run(recipe=recipe(method))
        given = batch_of(run, 0, target)
        if method.credit:
            advantage, drawn = given.token_inputs
            assert advantage.abs().max() > 0.1
            given = replace(given, token_inputs=(advantage * 0, drawn))
        run._backward(given, target)
        found.append((given.blocks, run.optimizer.gradients.clone()))
    for blocks, gradient in found[1:]:
        assert torch.equal(blocks, found[0][0])
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-5, atol=1e-8)


def test_only_what_was_written_counts() -> None:
    """A student of its teacher's text minimises that text's cross-entropy, after the prompts."""
    rules = RULES.model_copy(update={"z_loss": 0.0})
    run, blocks = Run(recipe=replace(recipe(Method(use="seqkd")), training=rules)), DATA[0]
    log_q = log_probabilities(run.model(blocks[:, :-1]))
    expected = cross_entropy(log_q, blocks[:, 1:])[:, PROMPT - 1 :].mean()
    torch.testing.assert_close(run._loss(run.model, TrainingBatch(blocks, None), None, None), expected)


def test_text_of_the_teacher_and_of_the_student_weigh_the_same() -> None:
    """However many blocks there are of each."""
    method = Method(use="f-distill-tvd")
    run, target = (
        Run(recipe=replace(recipe(method), training=RULES.model_copy(update={"z_loss": 0.0}))),
        Online(model(7)),
    )
    assert run.source is not None
    given = run.source.batch(run.model, 0, DATA[0][:3], target)
    assert torch.equal(given.blocks[0], DATA[0][0])
    assert not torch.equal(given.blocks[1:], DATA[0][1:3])
    p, q = (
        reader(given.blocks[:, :-1])[:, PROMPT - 1 :].softmax(-1) for reader in (target.teacher, run.model)
    )
    apart = (p - q).abs().sum(-1) / 2
    torch.testing.assert_close(
        run._loss(run.model, given, target, None), (apart[0].mean() + apart[1:].mean()) / 2
    )


def test_a_share_of_batches_is_the_student_s_and_the_others_are_the_data() -> None:
    run, target = Run(recipe=recipe(Method(source=Source(by="student", fraction=0.3)))), Online(model(7))
    own = [not torch.equal(batch_of(run, step, target).blocks, DATA[step]) for step in range(60)]
    assert 0.15 < sum(own) / 60 < 0.45
    assert run.source is not None
    assert run.source.sequences == BATCH * sum(own)
    for step in range(5):
        assert torch.equal(batch_of(run, step, target).blocks[:, :PROMPT], DATA[step][:, :PROMPT])


def test_processes_write_their_shares_of_what_one_would_write() -> None:
    target, data = Online(model(7)), DATA[0]
    run = Run(recipe=recipe(Method(source=Source(by="student"))))
    whole = batch_of(run, 0, target).blocks
    shares = []
    for rank in range(2):
        world = World(rank, 2)
        source = batch_source(
            RunSetting(method=run.recipe.method, shape=SHAPE, seed=0, steps=STEPS, world=world)
        )
        assert source is not None
        shares.append(source.batch(run.model, 0, world.share(data), target).blocks)
    assert torch.equal(torch.cat(shares), whole)
    for name in ("distillm", "minillm"):
        with pytest.raises(InputError, match=f"method {name}: text is kept .* let it run on one process"):
            batch_source(
                RunSetting(method=Method(use=name), shape=SHAPE, seed=0, steps=STEPS, world=World(0, 2))
            )
    both = batch_source(
        RunSetting(method=Method(use="f-distill-js"), shape=SHAPE, seed=0, steps=STEPS, world=World(0, 4))
    )
    assert both is not None
    with pytest.raises(InputError, match="but each of 4 processes has one block; use fewer, or larger"):
        both.batch(run.model, 0, data[:1], target)


def test_replay_asks_the_student_more_as_its_loss_rises() -> None:
    """And draws on what it wrote, of which the newest are kept."""
    rules = Replay(capacity=10, start=0.0, rise=0.5, tolerance=0.01, looks=4)
    method = Method(source=Source(by="student", replay=rules))
    run = Run(recipe=replace(recipe(Method()), method=method, steps=40))
    target, source = Online(model(7)), run.source
    assert source is not None
    seen = [batch_of(run, step, target).blocks for step in range(10)]
    assert all(torch.equal(blocks, DATA[step]) for step, blocks in enumerate(seen))
    assert source.sequences == 0
    for parameter in run.model.parameters():
        parameter.data.mul_(3)  # surer than it can be
    found = [batch_of(run, step, target).blocks for step in range(10, 40)]
    assert source.state()["/share and baseline"][0] == 0.5
    kept = source.state()["/kept"]
    assert len(kept) == 10
    own = [blocks for step, blocks in enumerate(found, 10) if not torch.equal(blocks, DATA[step])]
    assert 8 < len(own) < 22
    assert 0 < source.sequences < BATCH * len(own)
    assert all((row == kept).all(1).any() for row in own[-1])
    again = batch_source(RunSetting(method=method, shape=SHAPE, seed=0, steps=40, world=World()))
    assert again is not None
    again.load_state(source.state())
    for name, tensor in source.state().items():
        assert torch.equal(again.state()[name], tensor)


def test_what_was_written_serves_several_steps() -> None:
    method = Method(use="minillm", credit=Credit(updates=3))
    run, target = Run(recipe=recipe(method)), Online(model(7))
    found = [batch_of(run, step, target) for step in range(7)]
    for a, b in itertools.pairwise(range(7)):
        assert torch.equal(found[a].blocks, found[b].blocks) == (b % 3 != 0)
        assert not torch.equal(found[a].pretraining_blocks, found[b].pretraining_blocks)  # type: ignore[arg-type]
    assert run.source is not None
    assert run.source.sequences == 3 * BATCH


@pytest.fixture
def small(small_spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs of a hundred steps."""
    monkeypatch.setattr(steps_of_sweeps, "MIN_STEPS", 50)
    return small_spec | {
        "supervised": [],
        "training": {"batch_tokens": 64, "warmup_tokens": 320},
        "teachers": [{"params": ["7k"], "tokens": ["12k"]}],
        "students": [{"params": ["3k"], "tokens": ["6400"]}],
    }


def test_every_named_method_runs(small: dict[str, Any], tmp_path: Path, own_cache: Path) -> None:
    store, losses = Store(tmp_path / "store"), {}
    names = sorted({*named_methods()} - {"delta-kd"})  # which needs a base, and has tests of its own
    sweep = parse_sweep(small | {"methods": [*names, {"logits": "cached"}]})
    dag = dag_of(sweep)
    record_sweep(store, sweep, dag)
    for step in dag.steps:
        result = run_step(store, step)
        if step.kind == "distil":
            losses[step.method.name] = result["loss"]
            planned, spent = step.flops_by_part(), result["flops"]
            assert spent["total"] == sum(spent[part] for part in planned)
            assert spent["writing"] == step.shape.forward_flops * result["tokens_written"]
            assert spent["total"] <= step.flops * 1.03  # whose batch it is, is drawn
    assert sorted(losses) == sorted([*names, "forward-kl cached"])
    table = results(tmp_path / "store", metrics=True)
    assert len(table) == len(losses) + 1
    students = table[table["kind"] == "distillation"]
    assert np.isfinite(students[METRIC_COLUMNS].to_numpy(float)).all()
    assert (students["forward_kl"] < students["loss"]).all()
    assert "entropy" not in results(tmp_path / "store")
    assert len(set(losses.values())) == len(losses)
    assert all(0 < loss < np.log(V) for loss in losses.values())


def test_text_of_a_teacher_is_written_once_and_mended(
    small: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    """The same whoever writes it, and for the shorter run as for the longer."""
    store = Store(tmp_path / "store")
    small["students"] = [{"params": ["3k", "7k"], "tokens": ["6400"]}, {"params": ["3k"], "tokens": ["8k"]}]
    kl = {"use": "f-distill-kl", "init": None}
    dag = dag_of(parse_sweep(small | {"methods": ["seqkd", kl]}))
    teacher, generate, *students = dag.steps
    assert [step.kind for step in dag.steps] == ["pretrain", "generate"] + ["distil"] * 6
    run_step(store, teacher)
    written = run_step(store, generate)["tokens"]
    corpus = planned_tokens(generate.corpus, generate.corpus_fingerprint)
    found = texts(store, generate, corpus)
    assert written == len(found.kept.numbers) * 32
    numbers = torch.from_numpy(found.kept.numbers)
    blocks, data = found.read(numbers), found.data.read(numbers)
    assert torch.equal(blocks[:, :8], data[:, :8])
    assert not torch.equal(blocks[:, 8:], data[:, 8:])

    shard = next((tmp_path / "store" / generate.id / "texts").iterdir())
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 1
    shard.write_bytes(damaged)
    found = texts(store, generate, corpus)
    assert torch.equal(found.read(numbers), blocks)

    followers = [step for step in students if step.method and step.method.use == "f-distill-kl"]
    together = dict(run_steps(store, followers[:2]))
    alone = Store(tmp_path / "alone")
    run_step(alone, teacher)
    shorter = texts(alone, replace(generate, steps=60), corpus)
    assert len(shorter.kept.numbers) < len(numbers)
    some = torch.from_numpy(shorter.kept.numbers)
    assert torch.equal(shorter.read(some), found.read(some))
    run_step(alone, generate)
    for step, result in together.items():
        assert run_step(alone, step)["loss"] == result["loss"]
    with pytest.raises(InputError, match="method seqkd: it learns from text of its teacher, and no step was"):
        run_step(alone, replace(students[0], texts=None))


def metrics(*given: Any) -> dict[str, float]:
    """Return the metrics of every distilled student."""
    return measure_divergences(*given) | cross_likelihood(*given)


def test_metrics_are_what_they_say() -> None:
    student, teacher = model(0, 3e3), model(7)
    found = metrics(student, teacher, TOKENS, CONTEXT)
    assert found == metrics(student, teacher, TOKENS, CONTEXT)
    count = (len(TOKENS) - 1) // CONTEXT
    blocks = take_blocks(TOKENS, [n * count // READ for n in range(READ)], CONTEXT)
    q, p = (reader(blocks[:, :-1]).double().log_softmax(-1) for reader in (student, teacher))
    assert found["forward_kl"] == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-5)
    assert found["reverse_kl"] == pytest.approx((q.exp() * (q - p)).sum(-1).mean().item(), rel=1e-5)
    assert found["entropy"] == pytest.approx(-(q.exp() * q).sum(-1).mean().item(), rel=1e-5)
    numbers = uniform_numbers(WRITTEN, CONTEXT + 1 - PROMPT, SEED)
    text = write([teacher], blocks[:WRITTEN, :PROMPT], numbers).blocks
    log_q = log_probabilities(student(text[:, :-1]))
    risk = cross_entropy(log_q, text[:, 1:])[:, PROMPT - 1 :].mean().item()
    assert found["coverage_risk"] == pytest.approx(risk, rel=1e-4)
    assert found["likelihood_risk"] > found["entropy"]

    student.precision = teacher.precision = torch.bfloat16
    assert metrics(student, teacher, TOKENS, CONTEXT) == found
    assert student.precision == teacher.precision == torch.bfloat16
    same = metrics(teacher, teacher, TOKENS, CONTEXT)
    assert same["forward_kl"] == same["reverse_kl"] == 0
    assert same["likelihood_risk"] == same["coverage_risk"]
