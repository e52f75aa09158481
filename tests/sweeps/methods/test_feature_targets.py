"""Feature targets in a sweep: refusals, FLOPs, statistics, invariance to a teacher's scale, exact resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.data.batches import Batches
from sweeps.distill.feature_matching import normalization_of
from sweeps.distill.metrics import measured
from sweeps.distill.models import LastHiddenStates, Models
from sweeps.distill.targets import Online
from sweeps.estimate.cost import Throughput
from sweeps.estimate.memory.memory import step_memory
from sweeps.execute.teacher_sharing import group_into_cohorts
from sweeps.features import FeatureMoments, fit_normalization
from sweeps.model.decoder import Decoder
from sweeps.model.hidden_states import hidden_states
from sweeps.resolve import dag_of
from sweeps.spec.method.run_views import Evaluation, TrainingBatch
from sweeps.spec.spec import parse_sweep
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train import loop
from sweeps.train.loop import train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

STEPS, CONTEXT, V, GATHERED = 12, 16, 300, 3
TOKENS = (np.arange(6_000) ** 2 % 299).astype(np.uint16)
NAME = "auxiliary_losses.0"
MODULE = "sweeps.methods.feature_targets"


def features(**options: Any) -> dict[str, Any]:
    """A method with feature targets alone, measured."""
    return {
        "auxiliary_losses": [
            {"use": f"{MODULE}:FeatureTargets", "statistics_steps": GATHERED, "hidden": 8, **options}
        ],
        "metrics": [{"use": f"{MODULE}:FeatureVariance"}],
        "token_loss_weight": 0,
    }


@pytest.fixture
def spec(text_file: Path) -> dict[str, Any]:
    """One small student of one teacher, with another teacher beside."""
    return {
        "name": "features",
        "corpus": {"source": str(text_file), "vocab": V, "context": CONTEXT, "heldout": 0.1},
        "training": {"batch_tokens": CONTEXT, "warmup_tokens": 50 * CONTEXT},
        "teachers": [{"params": ["7k"], "tokens": ["8k"]}, {"params": ["3k"], "tokens": ["8k"]}],
        "students": [{"params": ["3k"], "tokens": ["8k"], "teachers": [0]}],
    }


def student(spec: dict[str, Any], method: Any) -> Step:
    steps = dag_of(parse_sweep(spec | {"methods": [method]})).steps
    return next(step for step in steps if step.kind == "distil")


def teacher_of(step: Step) -> Decoder:
    made = Decoder(step.shape)
    made.initialize(7)
    return made.eval().requires_grad_(False)


class Killed(Exception):
    """At some point of a run."""


def finished(
    step: Step, checkpoints: Checkpoints | None = None, killed_at: int | None = None, tokens: Any = TOKENS
) -> Run:
    """A short run of the method of ``step``, with teachers that were never trained."""
    return together([step], checkpoints, killed_at, tokens)[0]


def together(
    steps: list[Step],
    checkpoints: Checkpoints | None = None,
    killed_at: int | None = None,
    tokens: Any = TOKENS,
) -> list[Run]:
    """Short runs of the methods of ``steps``, which share their teachers."""
    assert steps[0].teacher is not None
    loaded = {each.id: Online(teacher_of(each)) for each in steps[0].teachers}
    runs, last_read = [], dict[str, LastHiddenStates]()
    for step in steps:
        models = Models(Store("memory://features"), step, loaded, last_read)
        rules = step.training.model_copy(update={"batch_tokens": 4.0 * CONTEXT})
        recipe = RunRecipe(shape=step.shape, steps=STEPS, training=rules, seed=0, method=step.method)
        runs.append(Run(recipe=recipe, checkpoints=checkpoints, models=models))

    def report(run: Run) -> None:
        if run.done == killed_at:
            raise Killed

    target = loaded[steps[0].teacher.id]
    given = {"data_seed": 3, "target": target, "report": report, "checkpoint_seconds": 0}
    for _, error in train_together(runs, tokens, **given):  # type: ignore[arg-type]
        if error:
            raise error
    return runs


def state_of(run: Run) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in run.state().items() if name != "/pieces and seconds"}


def metrics_of(step: Step, run: Run) -> dict[str, float]:
    assert step.method is not None
    evaluation = Evaluation(
        student=run.model,
        models=run.models,  # type: ignore[arg-type]
        heldout=TOKENS[:1000],
        context=CONTEXT,
        heads=run.method.heads,
        states=run.method.states,
        encode=lambda text: [],
    )
    return measured(step.method, evaluation)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"normalization": "whiten"}, "normalization: input should be 'none', 'global'"),
        ({"loss": "l3"}, "loss: input should be 'mse'"),
        ({"layers": []}, "layers: tuple should have at least 1 item"),
        ({"weight": -1.0}, "weight: input should be greater than or equal to 0"),
        ({"floor": 1.0}, "floor: input should be less than 1"),
        ({"skip_positions": CONTEXT}, "skip_positions: 16 of a context of 16 leave none"),
        ({"scales": [1, 10]}, "scales: 2 factors for 1 teachers"),
        ({"scales": [0]}, "input should be greater than 0"),
        ({"layers_by_teacher": [[1], [-1]]}, "layers_by_teacher: 2 lists of layers for 1 teachers"),
        ({"layers_by_teacher": [[]]}, "tuple should have at least 1 item"),
        ({"layers_by_teacher": [[1]], "layers": [0]}, "layers: layers_by_teacher says which"),
    ],
)
def test_what_does_not_fit_is_refused(spec: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        student(spec, features(**options))


@pytest.mark.parametrize(
    "options", [{"layers": [-1, 9]}, {"layers_by_teacher": [[-9]]}, {"student_layer": 9}]
)
def test_a_layer_that_does_not_exist_is_refused_before_anything_runs(
    spec: dict[str, Any], own_cache: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(
        InputError,
        match=r"methods: forward-kl .*: (student_layer|layers|layers_by_teacher): there is no layer -?9; a "
        r"model of \d+ layers? has hidden states 0 ",
    ):
        student(spec, features(**options))


def test_two_of_them_or_a_metric_alone_are_refused(spec: dict[str, Any]) -> None:
    twice = features()
    twice["auxiliary_losses"] = twice["auxiliary_losses"] * 2
    with pytest.raises(InputError, match="FeatureTargets is there twice"):
        student(spec, twice)
    with pytest.raises(InputError, match="FeatureVariance measures FeatureTargets"):
        student(spec, {"metrics": features()["metrics"]})


def test_the_method_has_a_name(spec: dict[str, Any], own_cache: Path) -> None:
    step = student(spec, {"use": f"{MODULE}:phi_s"})
    assert step.method is not None
    assert step.method.name == "phi_s"
    assert Step.from_json(json.loads(json.dumps(step.as_json()))).id == step.id


@pytest.mark.parametrize("hidden", [None, 8])
def test_heads_normalizations_and_teachers_count_in_flops(
    spec: dict[str, Any], own_cache: Path, hidden: int | None
) -> None:
    own = student(spec, features(hidden=hidden, layers=[1, -1]) | {"other_teachers": [1]})
    plain = student(spec, {})
    run = finished(own)
    matrices = sum(each.numel() for each in run.method.heads[NAME].parameters() if each.ndim > 1)
    squares = 2 * sum(each.shape.width**2 for each in own.teachers)
    difference = own.flops_by_part()["training"] - plain.flops_by_part()["training"]
    assert difference == pytest.approx((3 * 2 * matrices + 2 * squares) * own.tokens)
    assert own.shape.params == plain.shape.params
    read = sum(each.shape.forward_flops for each in own.teachers) * own.tokens
    assert own.flops_by_part()["teacher_reading"] == pytest.approx(read)


@pytest.mark.parametrize("hidden", [None, 8])
def test_heads_states_and_teachers_count_in_memory_and_time(
    spec: dict[str, Any], own_cache: Path, hidden: int | None
) -> None:
    own = student(spec, features(hidden=hidden, layers=[1, -1]) | {"other_teachers": [1]})
    plain = student(spec, {"cross_entropy": 1})
    assert own.parts is not None
    loss, shapes = own.parts.auxiliary_losses[NAME], [each.shape for each in own.teachers]
    run = finished(own)
    assert loss.head_params(own.shape, shapes) == sum(e.numel() for e in run.method.heads[NAME].parameters())
    kept = sum(each.nbytes for each in run.method.states[NAME].values())
    assert kept <= loss.state_bytes(shapes) <= 6 * kept
    weights = sum(4.0 * each.shape.total_params for each in own.teachers)
    fewest = 16 * loss.head_params(own.shape, shapes) + loss.state_bytes(shapes) + weights
    assert step_memory(own) - step_memory(plain) > fewest
    flops = [1e3, 1e8]
    rates = Throughput(flops, [3 * each for each in flops], flops, flops, flops)  # a second a FLOP
    heads, hidden_passes = own.auxiliary_flops
    more = rates.seconds(own) - rates.seconds(plain)
    assert more == pytest.approx((heads + hidden_passes) * own.tokens_to_train)


def test_statistics_are_those_of_the_first_batches_without_first_positions(
    spec: dict[str, Any], own_cache: Path
) -> None:
    step = student(spec, features(layers=[1, -1]) | {"other_teachers": [1]})
    run, data = finished(step), Batches(TOKENS, context=CONTEXT, batch=4, seed=3)
    blocks = torch.cat([data[number] for number in range(GATHERED)])[:, :-1]
    number = 0
    for teacher in step.teachers:
        for layer in (1, -1):
            found = hidden_states(teacher_of(teacher), blocks, [layer])[1][0][:, 1:]
            expected = fit_normalization(FeatureMoments.of(found), "phi-s")
            fitted = normalization_of(run.method.states[NAME], number)
            assert fitted is not None
            assert torch.allclose(fitted.mean, expected.mean, rtol=1e-9, atol=1e-12)
            assert fitted.scale.item() == pytest.approx(expected.scale.item(), rel=1e-9)
            targets = fitted.normalize(found.double()).flatten(0, 1)
            assert (targets.T.cov().diagonal() - 1).abs().max() < 1e-9
            number += 1
    assert not [name for name in run.method.states[NAME] if ".step." in name or ".all." in name]


def test_a_teachers_scale_matters_to_none_and_not_to_phi_s(spec: dict[str, Any], own_cache: Path) -> None:
    both = {"other_teachers": [1]}

    def losses(mode: str, scale: float) -> tuple[float, dict[str, float]]:
        step = student(spec, features(normalization=mode, scales=[scale]) | both)
        run = finished(step)
        return run.loss, {k: v for k, v in metrics_of(step, run).items() if k.startswith(("fvu", "kurt"))}

    (loss, found), (scaled_loss, scaled) = losses("phi-s", 1.0), losses("phi-s", 191.0)
    assert scaled_loss == pytest.approx(loss, rel=1e-3)
    assert scaled == pytest.approx(found, rel=1e-3)
    assert set(found) == {
        *("fvu_0", "fvu_1", "fvu_mean", "fvu_worst", "fvu_balance", "kurtosis_0", "kurtosis_1")
    }
    assert losses("none", 5.0)[0] > 5 * losses("none", 1.0)[0]


def test_fvu_is_measured_in_float32_and_is_that_of_the_formula(spec: dict[str, Any], own_cache: Path) -> None:
    step = student(spec, features())
    run = finished(step)
    expected = metrics_of(step, run)["fvu_0"]
    run.model.precision = torch.bfloat16
    assert metrics_of(step, run)["fvu_0"] == expected
    assert run.model.precision == torch.bfloat16
    run.model.precision = torch.float32
    assert step.teacher is not None
    count = 999 // CONTEXT
    starts = [CONTEXT * block for block in sorted({n * count // 128 for n in range(128)})]
    inputs = torch.tensor(np.stack([TOKENS[start : start + CONTEXT] for start in starts]).astype(np.int64))
    wanted = hidden_states(teacher_of(step.teacher), inputs, [-1])[1][0][:, 1:].flatten(0, 1).double()
    fitted = normalization_of(run.method.states[NAME], 0)
    assert fitted is not None
    with torch.no_grad():
        head = run.method.heads[NAME][0]  # type: ignore[index]
        folded = head.folded(fitted)
        predicted = folded(hidden_states(run.model, inputs, [-1])[1][0])[:, 1:].flatten(0, 1).double()
    error, deviation = (predicted - wanted).square().sum(), (wanted - wanted.mean(0)).square().sum()
    assert expected == pytest.approx(float(error / deviation), rel=1e-4)


def test_heads_learn_after_the_statistics_and_not_before(spec: dict[str, Any], own_cache: Path) -> None:
    step = student(spec, features(statistics_steps=STEPS, hidden=None))
    idle = finished(step).method.heads[NAME]
    fresh = finished(student(spec, features(hidden=None))).method.heads[NAME]
    begun = Run(
        recipe=RunRecipe(shape=step.shape, steps=STEPS, training=step.training, seed=0, method=step.method),
        models=Models(Store("memory://features"), step, {}),
    ).method.heads[NAME]
    start, still, moved = (head[0].last.bias for head in (begun, idle, fresh))  # type: ignore[index]
    assert torch.equal(start, still)
    assert not torch.equal(start, moved)


def test_a_layer_without_full_rank_is_refused_under_whitening(spec: dict[str, Any], own_cache: Path) -> None:
    """Eight different tokens have embeddings of rank seven at most."""
    step = student(spec, features(normalization="pca-w", layers=[0], statistics_steps=1))
    with pytest.raises(InputError, match=r"pca-w: the covariance has rank 7 of \d+ channels"):
        finished(step, tokens=TOKENS % 8)


@pytest.mark.parametrize("kill", [2, 8])
def test_killed_and_resumed_a_run_ends_in_the_same_bits(
    kill: int, spec: dict[str, Any], own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while statistics are gathered, and after they were frozen."""
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0)
    step = student(spec, features() | {"other_teachers": [1]})
    checkpoints, whole = Checkpoints(Store(tmp_path / "store"), "run"), state_of(finished(step))
    with pytest.raises(Killed):
        finished(step, checkpoints, kill)
    again = state_of(finished(step, checkpoints))
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[key], whole[key]) for key in whole)
    assert f"/heads/{NAME}/0.last.weight" in whole
    assert f"/{NAME}/1.normalization.weight" in whole


def test_layers_of_each_teacher_are_those_of_its_list(spec: dict[str, Any], own_cache: Path) -> None:
    both = {"other_teachers": [1]}
    apart, together = (
        student(spec, features(**given) | both)
        for given in ({"layers_by_teacher": [[0], [1, -1]]}, {"layers": [0, 1, -1]})
    )
    run, found = finished(apart), metrics_of(apart, finished(apart))
    everything = metrics_of(together, finished(together))
    assert len(run.method.heads[NAME]) == 3  # type: ignore[arg-type]
    pairs = {0: 0, 1: 4, 2: 5}  # of the six targets of three layers of two teachers
    for name in ("scale", "kurtosis"):
        for own, other in pairs.items():
            assert found[f"{name}_{own}"] == everything[f"{name}_{other}"]
    assert "fvu_3" not in found


def test_scales_are_those_of_the_features(spec: dict[str, Any], own_cache: Path) -> None:
    step = student(spec, features(scales=[5]))
    assert step.teacher is not None
    blocks = torch.as_tensor(TOKENS[:992].astype(np.int64)).reshape(-1, CONTEXT)
    found = hidden_states(teacher_of(step.teacher), blocks, [-1])[1][0][:, 1:].flatten(0, 1).double()
    expected = 5 * found.var(0).mean().sqrt().item()
    assert metrics_of(step, finished(step))["scale_0"] == pytest.approx(expected, rel=1e-6)


def test_students_of_features_share_the_teachers_passes_and_no_bit_changes(
    spec: dict[str, Any], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"other_teachers": [1]}
    steps = [student(spec, features(normalization=mode) | both) for mode in ("phi-s", "none", "zca")]
    assert len(group_into_cohorts(steps, 1, lambda step: 1.0)) == 1
    alone = [state_of(finished(step)) for step in steps]
    passes = []
    real = hidden_states

    def counted(*given: Any) -> Any:
        passes.append(given)
        return real(*given)

    monkeypatch.setattr("sweeps.distill.models.hidden_states", counted)
    runs = together(steps)
    assert len(passes) == 2 * STEPS
    for run, expected in zip(runs, alone, strict=True):
        found = state_of(run)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_hidden_states_are_computed_again_where_tokens_or_states_were_changed(
    spec: dict[str, Any], own_cache: Path
) -> None:
    step = student(spec, features())
    models = Models(Store("memory://features"), step, {e.id: Online(teacher_of(e)) for e in step.teachers})
    inputs = torch.as_tensor(TOKENS[:CONTEXT].astype(np.int64))[None]
    (first,) = models.hidden_states(inputs, 0, [-1])
    assert models.hidden_states(inputs, 0, [-1])[0] is first
    assert models.hidden_states(inputs[:, :8], 0, [-1])[0].shape[1] == 8
    (first,) = models.hidden_states(inputs, 0, [-1])
    expected = first.clone()
    first.zero_()
    assert torch.equal(models.hidden_states(inputs, 0, [-1])[0], expected)
    inputs += 1
    assert not torch.equal(models.hidden_states(inputs, 0, [-1])[0], expected)


def test_features_alone_do_not_pay_for_a_loss_on_tokens(spec: dict[str, Any], own_cache: Path) -> None:
    def refuse(*given: Any) -> Tensor:
        raise AssertionError

    run = finished(student(spec, features()))
    batch = TrainingBatch(torch.as_tensor(TOKENS[: CONTEXT + 1].astype(np.int64))[None])
    assert run._loss(run.model, batch, None, None, on_tokens=refuse).item() > 0


def test_a_step_with_lists_of_options_is_read_back(spec: dict[str, Any], own_cache: Path) -> None:
    step = student(spec, features(scales=[10], layers=[1, -1]))
    again = Step.from_json(json.loads(json.dumps(step.as_json())))
    assert again == step
    assert again.id == step.id
