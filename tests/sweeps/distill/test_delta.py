"""Delta-KD: the shifted target, its limits and identities; bases, tuned teachers and the steps between them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from named_divergences import DIVERGENCES
from torch import Tensor

import sweeps.dag.expand as steps_of_sweeps
from scaling.errors import InputError
from sweeps.dag.expand import Dag, Step
from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches
from sweeps.data.corpus import planned_tokens
from sweeps.distill.delta import Shifted, shifted
from sweeps.distill.divergences import forward_kl
from sweeps.distill.models import Models, trained
from sweeps.distill.teacher import followed, target_of
from sweeps.execute.steps.provenance import record_sweep
from sweeps.execute.steps.step import run_step, run_steps
from sweeps.execute.teacher_sharing import group_into_cohorts
from sweeps.model.chunked_loss import mean_loss
from sweeps.model.decoder import Decoder
from sweeps.model.log_probs import log_probabilities
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_options import Delta
from sweeps.spec.method.run_views import TrainingBatch
from sweeps.spec.spec import Training, parse_sweep
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train.loop import train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run
from sweeps.watch.runs_table import results

V = 12
KD = {"init": {"by": "base"}}


def draw(seed: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(7, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_known_values() -> None:
    s_0, t_0, t_1 = of(0.5, 0.3, 0.2), of(0.4, 0.4, 0.2), of(0.7, 0.2, 0.1)
    whole, half = shifted(s_0, t_0, t_1), shifted(s_0, t_0, t_1, 0.5)
    assert whole.exp()[0].tolist() == pytest.approx([7 / 9, 2 / 15, 4 / 45], abs=1e-12)
    assert half.exp()[0].tolist() == pytest.approx([0.6516685, 0.2089989, 0.1393326], abs=1e-7)


def test_the_shift_is_one() -> None:
    """Nothing, everything and twice a part of it; constants in logits do not count."""
    z, log_p = [draw(n) for n in range(3)], [log_probabilities(draw(n)) for n in range(3)]
    assert torch.allclose(shifted(*z, 0.7), shifted(*log_p, 0.7), atol=1e-12)
    moved = [each + 10 * draw(9)[:, :1] for each in z]
    assert torch.allclose(shifted(*moved, 0.7), shifted(*z, 0.7), atol=1e-12)
    s_0, t_0, t_1 = log_p
    assert torch.allclose(shifted(s_0, t_0, t_1, 0.0), s_0, atol=1e-12)
    assert torch.allclose(shifted(s_0, t_1, t_1, 1.3), s_0, atol=1e-12)
    assert torch.allclose(shifted(t_0, t_0, t_1), t_1, atol=1e-12)
    once = shifted(s_0, t_0, t_1, 0.4)
    assert torch.allclose(shifted(once, t_0, t_1, 0.9), shifted(s_0, t_0, t_1, 1.3), atol=1e-12)


@pytest.mark.parametrize("strength", [0.3, 1.0, 1.5])
def test_it_is_the_best_trade_of_reward_for_nearness(strength: float) -> None:
    """KL(pi || s_0) - strength E_pi[log t_1 / t_0] = KL(pi || pi*) - log Z, for every pi (Gibbs)."""
    s_0, t_0, t_1 = (log_probabilities(draw(n)) for n in range(3))
    best = shifted(s_0, t_0, t_1, strength)
    log_z = (s_0 + strength * (t_1 - t_0)).logsumexp(-1)
    for seed in range(5, 9):
        pi = log_probabilities(draw(seed))
        reward = (pi.exp() * (t_1 - t_0)).sum(-1)
        trade = forward_kl(pi, s_0) - strength * reward
        assert torch.allclose(trade, forward_kl(pi, best) - log_z, atol=1e-10)


def test_what_is_wrong_with_both_teachers_alike_cancels() -> None:
    """The student's base is right, and tuning should have moved it by s: the teachers' common error is gone."""
    b, s, error = draw(0), draw(1, 1.0), draw(2, 0.5)
    truth = log_probabilities(b + s)
    t_0, t_1 = log_probabilities(b + error), log_probabilities(b + error + s)
    assert torch.allclose(shifted(log_probabilities(b), t_0, t_1), truth, atol=1e-10)
    assert forward_kl(truth, t_1).mean() > 0.03


def test_it_wins_where_the_student_s_base_is_better_than_the_teachers_error() -> None:
    """Errors of bases and teachers as noise on logits: a weak base makes it the worse target."""
    b, s = draw(0, 1.0).repeat(60, 1), draw(1, 1.0).repeat(60, 1)
    truth, noise = log_probabilities(b + s), torch.Generator().manual_seed(3)
    error, own = (torch.randn(b.shape, generator=noise, dtype=b.dtype) for _ in range(2))
    t_0, t_1 = (log_probabilities(each + 0.5 * error) for each in (b, b + s))
    of_teacher = forward_kl(truth, t_1).mean()
    good, bad = (
        forward_kl(truth, shifted(log_probabilities(b + scale * own), t_0, t_1)).mean() for scale in (0.25, 1)
    )
    assert good < 0.5 * of_teacher
    assert bad > 2 * of_teacher


def test_a_ratio_of_unlikely_tokens_does_not_win() -> None:
    s_0, t_0, t_1 = of(0.6, 0.399, 1e-3), of(0.6, 0.4 - 1e-9, 1e-9), of(0.7, 0.2999, 1e-4)
    assert shifted(s_0, t_0, t_1).argmax() == 2  # 1e-3 x 1e5
    guarded = shifted(s_0, t_0, t_1, tail=1e-2)
    assert guarded.argmax() == 0
    assert torch.allclose(
        (guarded[0, 2] - guarded[0, 0]).exp(), torch.tensor(1e-3 / 0.7, dtype=torch.float64), rtol=1e-9
    )
    everything = shifted(*(log_probabilities(draw(n)) for n in range(3)), tail=1e-30)
    assert torch.equal(everything, shifted(*(log_probabilities(draw(n)) for n in range(3))))


def models(seeds: tuple[int, int, int], context: int = 8) -> list[Decoder]:
    found = []
    for seed, params in zip(seeds, (3e3, 7e3, 7e3), strict=True):
        model = Decoder(shape_for(params, vocab=V, context=context, aspect_ratio=32))
        model.initialize(seed)
        found.append(model)
    return found


@pytest.mark.parametrize("name", sorted(set(DIVERGENCES) - {"decoupled-kl"}))
def test_in_blocks_it_is_what_it_is_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient of the fused loss from features, and of the plain one from what was said."""
    inputs = torch.randint(V, (4, 8), generator=torch.Generator().manual_seed(0))
    said = Shifted(*models((0, 1, 2)), Delta(), returns_log_probs=True)
    student = models((5, 6, 7))[0]
    found = []
    for target in (said, replace(said, returns_log_probs=False)):
        rows = target.rows(inputs, torch.empty(0))
        head = student.head.detach().clone().requires_grad_()

        def per_token(logits: Tensor, rows: Tensor, target: Shifted = target) -> Tensor:
            log_p = target.log_probabilities(rows, 2.0)
            return DIVERGENCES[name]().per_token(log_p, log_probabilities(logits, 2.0), torch.empty(0))

        loss = mean_loss(per_token, student.model(inputs).flatten(0, 1).detach(), head, rows)
        found.append((loss.detach(), *torch.autograd.grad(loss, head)))
        monkeypatch.setattr("sweeps.model.chunked_loss.MAX_FULL_LOGITS", 1)
        monkeypatch.setattr("sweeps.model.chunked_loss.FP32_LOGITS_PER_CHUNK", 5 * V)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


CONTEXT = 8
RULES = Training(batch_tokens=4 * CONTEXT, warmup_tokens=320, z_loss=0)
TOKENS = (np.arange(3000) ** 2 % 11).astype(np.uint16)
DATA = Batches(TOKENS, context=CONTEXT, batch=4, seed=3)


def run_of(target: Shifted, method: Method, checkpoints: Checkpoints | None = None) -> Run:
    """A run that begins as the target's own base did."""
    shape, init = target.student_base.shape, target.student_base.state_dict()  # type: ignore[attr-defined]
    recipe = RunRecipe(shape=shape, steps=40, training=RULES, seed=0, method=method)
    return Run(recipe=recipe, init=init, checkpoints=checkpoints)


def test_at_its_base_a_student_is_taught_the_shift_alone() -> None:
    """Nothing where strength is 0, where the teacher was not tuned, or where all four models are one."""
    method = Method(delta=Delta(), init={"by": "base"})
    student, base, tuned = models((0, 1, 2))
    for target in (
        Shifted(student, base, tuned, Delta(strength=0)),
        Shifted(student, base, base, Delta(strength=1.5)),
        Shifted(student, student, student, Delta()),
        Shifted(student, base, tuned, Delta()),
    ):
        run = run_of(target, method)
        run._backward(TrainingBatch(DATA[0], target.rows(DATA[0][:, :-1], DATA.numbers(0))), target)
        most = run.optimizer.gradients.abs().max()
        assert most > 1e-3 if target.rules.strength == 1 and target.tuned is tuned else most < 1e-6


def test_killed_and_resumed_it_ends_in_the_same_bits(tmp_path: Path) -> None:
    class Killed(Shifted):
        def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
            if torch.equal(numbers, DATA.numbers(25)):
                raise KeyboardInterrupt
            return super().rows(inputs, numbers)

    method = Method(use="delta-kd")
    target, killed = (made(*models((0, 1, 2)), Delta(), returns_log_probs=True) for made in (Shifted, Killed))
    whole, again = run_of(target, method), Checkpoints(Store(tmp_path), "run")
    with pytest.raises(KeyboardInterrupt):
        list(
            train_together(
                [run_of(killed, method, again)], TOKENS, data_seed=3, target=killed, checkpoint_seconds=0
            )
        )
    resumed = run_of(target, method, again)
    assert resumed.done == 25
    for run in (whole, resumed):
        assert all(error is None for _, error in train_together([run], TOKENS, data_seed=3, target=target))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def spec(small_spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs of a hundred steps on a text, and a base text that is another half of the same language."""
    monkeypatch.setattr(steps_of_sweeps, "MIN_STEPS", 50)
    text = Path(small_spec["corpus"]["source"]).read_text()
    other = tmp_path / "base.txt"
    other.write_text(text.replace("day", "night"))
    return small_spec | {
        "supervised": [],
        "training": {"batch_tokens": 64, "warmup_tokens": 320},
        "base": {"source": str(other), "tuning_tokens": 6400},
        "teachers": [{"params": ["7k"], "tokens": ["12k"]}],
        "students": [{"params": ["3k"], "tokens": ["12800"]}],
    }


def steps_of(spec: dict[str, Any], *methods: Any) -> Dag:
    return dag_of(parse_sweep(spec | {"methods": list(methods)}))


def test_a_teacher_is_tuned_from_its_base_and_the_student_begins_where_that_did(spec: dict[str, Any]) -> None:
    dag = steps_of(spec, "delta-kd", KD)
    assert [step.kind for step in dag.steps] == ["prelude", "tune", "prelude", "distil", "distil"]
    base, tuned, student_base, *runs = dag.steps
    assert base.corpus_fingerprint == student_base.corpus_fingerprint != tuned.corpus_fingerprint
    assert (tuned.init, tuned.tokens, tuned.ends) == (base, base.tokens + 6400, 100)
    assert tuned.flops == tuned.flops_to_spend + base.flops
    for step in dag.steps:
        assert Step.from_json(json.loads(json.dumps(step.as_json()))) == step
    for run, passes in zip(runs, (3, 1), strict=True):
        assert (run.init, run.teacher, run.tokens, run.first) == (student_base, tuned, 12800, 0)
        assert run.tokens_of_its_text == run.ends * 64 == 150 * 64
        own, teacher = run.shape.forward_flops, tuned.shape.forward_flops
        reading = 2 * teacher + own if passes == 3 else teacher
        assert run.flops_to_spend == pytest.approx(150 * 64 * (3 * own + reading))
        assert run.flops == pytest.approx(run.flops_to_spend + student_base.flops)
    assert len(group_into_cohorts(runs, 1, lambda step: step.flops)) == 2
    (cache,) = (s for s in steps_of(spec, {"use": "delta-kd", "logits": "cached"}).steps if s.kind == "cache")
    assert (cache.tokens, cache.init) == (150 * 64, student_base)
    own, teacher = student_base.shape.forward_flops, tuned.shape.forward_flops
    assert cache.flops_to_spend == pytest.approx(150 * 64 * (2 * teacher + own))
    several = steps_of(spec, "delta-kd", {"use": "delta-kd", "cross_entropy": 0.1}).steps
    assert len(group_into_cohorts(several[-2:], 1, lambda step: step.flops)) == 1


def test_a_sweep_of_bases_runs_together_apart_and_from_a_cache(
    spec: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    still = {"use": "delta-kd", "delta": {"strength": 0}, "cross_entropy": 0}
    kept = {"use": "delta-kd", "logits": "cached"}
    sweep = parse_sweep(
        spec | {"methods": ["delta-kd", kept, still, KD, {"use": "delta-kd", "cross_entropy": 0.1}]}
    )
    dag, store = dag_of(sweep), Store(tmp_path / "store")
    record_sweep(store, sweep, dag)
    before = [step for step in dag.steps if step.kind != "distil"]
    delta, cached, stays, kd, light = (step for step in dag.steps if step.kind == "distil")
    assert {step.kind for step in before} == {"prelude", "tune", "cache"}
    for step in before:
        run_step(store, step)
    alone = {step.id: run_step(store, step)["loss"] for step in (delta, cached, stays, kd)}
    assert len(set(alone.values())) == 4
    assert alone[cached.id] == pytest.approx(alone[delta.id], abs=1e-3)
    again = Store(tmp_path / "again")
    for step in before:
        run_step(again, step)
    together = {step.id: found for step, found in run_steps(again, [delta, light])}
    assert together[delta.id]["loss"] == alone[delta.id]

    corpus = planned_tokens(delta.corpus, delta.corpus_fingerprint)
    target = target_of(store, delta, corpus, Models(store, delta))
    assert isinstance(target, Shifted)
    assert delta.init is not None
    base = trained(store, delta.init).state_dict()
    assert all(torch.equal(base[name], each) for name, each in target.student_base.state_dict().items())
    read = store.result(stays.id)
    assert read is not None
    inputs = torch.from_numpy(corpus.heldout[: 8 * 32].astype("int64")).view(8, 32)
    own = followed(stays, Models(store, stays))
    with torch.no_grad():
        expected = log_probabilities(target.student_base(inputs)).flatten(0, 1)
    assert torch.allclose(own.log_probabilities(own.rows(inputs, torch.empty(0)), 1.0), expected, atol=1e-5)

    table = results(tmp_path / "store")
    found = {step.method.name for step in (delta, cached, stays, kd) if step.method}
    assert sorted(table["method"]) == sorted(found)  # bases and tuned teachers are no runs of the law
    assert (table["teacher_loss"] < 5.7).all()
    assert (table["epochs"] < 1).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"methods": [{"delta": {}}]},
            "delta: it moves the student's own base, which must be trained on what",
        ),
        ({"methods": [{"delta": {}, "init": {}}]}, "set init.by: base"),
        (
            {"methods": [{"use": "delta-kd", "source": {"by": "teacher"}}]},
            "delta: it is a target on the data",
        ),
        (
            {"methods": [{"use": "delta-kd", "divergence": "decoupled-kl", "neighbours": {}}]},
            "neighbours vote in the teacher's stead",
        ),
        ({"methods": [{"use": "delta-kd", "logits": "top-k", "temperature": 2}]}, "keeps the tail's mass"),
        (
            {"methods": ["delta-kd"], "base": None},
            "delta-kd: it begins on the text of the teacher's base, and of teacher 7.03K on 12K no base is",
        ),
        ({"base": {"source": "nowhere.txt", "tuning_tokens": 6400}}, "nowhere.txt"),
        (
            {"base": {"source": "kjv", "tuning_tokens": 576}},
            "base.tuning_tokens: 576 tokens are 9 optimizer steps, of which warm-up takes 5",
        ),
        ({"base": {"source": "kjv"}}, "base.tuning_tokens: missing"),
    ],
)
def test_a_base_that_is_missing_is_named(spec: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as found:
        dag_of(parse_sweep(spec | {"methods": [KD]} | changes))
    assert reason in str(found.value)


def test_its_name_says_how_it_differs() -> None:
    strong = Method.model_validate({"use": "delta-kd", "delta": {"strength": 1.5}})
    assert strong.name == "delta-kd strength=1.5"
