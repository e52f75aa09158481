"""Transport of weights in a run: refusals, identity at eta = 0, targets of matrices, metrics, exact resumption."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, multiprocessing, nn

from scaling.errors import InputError
from scaling.perceptron.distributions import WeightDistribution, sample_overlap
from sweeps.dag.expand import Step
from sweeps.distill.metrics import measured
from sweeps.distill.models import Models
from sweeps.distill.targets import Online
from sweeps.methods.weight_transport import ROLES, WeightTransport, target_of
from sweeps.model.decoder import Decoder
from sweeps.model.distributed import World
from sweeps.model.weight_distribution import Place, layer_matrices, resampled
from sweeps.resolve import dag_of
from sweeps.spec.method.run_views import Evaluation, RunSetting
from sweeps.spec.spec import load_sweep, parse_sweep
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train import loop
from sweeps.train.loop import train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

STEPS, CONTEXT, V = 12, 16, 300
TOKENS = (np.arange(6_000) ** 2 % 299).astype(np.uint16)
MODULE = "sweeps.methods.weight_transport"


def transport(**options: Any) -> dict[str, Any]:
    """A method with transport after every step, measured."""
    return {
        "hooks": [{"use": f"{MODULE}:WeightTransport", **options}],
        "metrics": [{"use": f"{MODULE}:WeightOverlap"}],
    }


@pytest.fixture
def spec(text_file: Path) -> dict[str, Any]:
    """One student of one layer, of a teacher of two."""
    return {
        "name": "weights",
        "corpus": {"source": str(text_file), "vocab": V, "context": CONTEXT, "heldout": 0.1},
        "training": {"batch_tokens": CONTEXT, "warmup_tokens": 50 * CONTEXT},
        "teachers": [{"params": ["56k"], "tokens": ["8k"]}],
        "students": [{"params": ["3k"], "tokens": ["8k"]}],
    }


def student(spec: dict[str, Any], method: Any) -> Step:
    steps = dag_of(parse_sweep(spec | {"methods": [method]})).steps
    return next(step for step in steps if step.kind == "distil")


def teacher_of(step: Step) -> Decoder:
    """A teacher with uniform weights of another range in each matrix, the lower end of each being its own."""
    assert step.teacher is not None
    made = Decoder(step.teacher.shape)
    generator = torch.Generator().manual_seed(7)
    for number, weight in enumerate(made.parameters()):
        with torch.no_grad():
            weight.uniform_(-1 - number / 10, 1.0, generator=generator)
    return made.eval().requires_grad_(False)


class Killed(Exception):
    """At some point of a run."""


def finished(
    step: Step,
    checkpoints: Checkpoints | None = None,
    killed_at: int | None = None,
    world: World | None = None,
    **rules: Any,
) -> Run:
    """A short run of the method of ``step``, with a teacher that was never trained."""
    assert step.teacher is not None
    loaded = {each.id: Online(teacher_of(step), returns_log_probs=True) for each in step.teachers}
    training = step.training.model_copy(update={"batch_tokens": 4.0 * CONTEXT, **rules})
    recipe = RunRecipe(shape=step.shape, steps=STEPS, training=training, seed=0, method=step.method)
    models = Models(Store("memory://weights"), step, loaded)
    run = Run(recipe=recipe, checkpoints=checkpoints, models=models, world=world or World())

    def report(run: Run) -> None:
        if run.done == killed_at:
            raise Killed

    given = {"data_seed": 3, "target": loaded[step.teacher.id], "report": report, "checkpoint_seconds": 0}
    for _, error in train_together([run], TOKENS, **given):  # type: ignore[arg-type]
        if error:
            raise error
    return run


def state_of(run: Run) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in run.state().items() if name != "/pieces and seconds"}


def unit_quantiles(run: Run) -> dict[Place, Tensor]:
    """Ascending weights of each matrix of the student, of unit second moment."""
    matrices = layer_matrices(dict(run.model.named_parameters()))
    return {place: resampled(weight, weight.numel()) for place, weight in matrices.items()}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"eta": 1.5}, "eta: input should be less than or equal to 1, found 1.5"),
        ({"eta": -0.1}, "eta: input should be greater than or equal to 0"),
        ({"every": 0}, "every: input should be greater than or equal to 1"),
        ({"target": "cauchy"}, "target: input should be 'teacher', 'permuted-teacher'"),
        ({"target": "ternary"}, "parameter: student-t, ternary, symmetric-lognormal have one each"),
        ({"target": "normal", "parameter": 1}, "no other target has; target is normal"),
        ({"target": "ternary", "parameter": 0}, "fraction of nonzero weights must be above 0"),
        ({"target": "student-t", "parameter": 2}, "degrees of freedom of Student's t must be above 2"),
        ({"target": "quantiles"}, "quantiles: they are given for target: quantiles and for no other"),
        ({"quantiles": [-1, 1]}, "quantiles: they are given for target: quantiles and for no other"),
        ({"target": "quantiles", "quantiles": [-2, 2]}, "second moment must be 1, not 4; divide the weights by 2"),
        ({"target": "quantiles", "quantiles": [1, -1]}, "quantiles must be ascending"),
        ({"matrices": ["embed_tokens"]}, "the embedding is tied to the output projection and is not moved"),
        ({"matrices": ["c_attn"]}, "matrices: name some of q_proj, k_proj"),
        ({"matrices": []}, "matrices: name some of q_proj"),
        ({"matrices": ["q_proj"], "target": "permuted-teacher"}, "leaves nothing to permute; name two or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(spec: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        student(spec, transport(**options))


class Doubled(WeightTransport):
    """A distribution of one's own, of second moment 4."""

    def distribution(self) -> WeightDistribution:
        return WeightDistribution.from_quantiles("coins", lambda u: np.where(u > 0.5, 2.0, -2.0), (0.5,))


class Coins(WeightTransport):
    """A distribution of one's own."""

    def distribution(self) -> WeightDistribution:
        return WeightDistribution.from_quantiles("coins", lambda u: np.where(u > 0.5, 1.0, -1.0), (0.5,))


def test_a_distribution_of_ones_own_needs_unit_second_moment(spec: dict[str, Any], own_cache: Path) -> None:
    with pytest.raises(InputError, match="distribution coins: the second moment must be 1, not 4"):
        student(spec, {"hooks": [{"use": f"{__name__}:Doubled"}]})
    run = finished(student(spec, {"hooks": [{"use": f"{__name__}:Coins", "eta": 1}]}))
    assert all(torch.equal(each.abs(), torch.ones_like(each)) for each in unit_quantiles(run).values())


def test_with_eta_0_every_bit_is_the_controls(spec: dict[str, Any], own_cache: Path) -> None:
    control = state_of(finished(student(spec, {})))
    for target in ({"target": "teacher"}, {"target": "binary"}):
        still = state_of(finished(student(spec, transport(eta=0, **target))))
        moved = state_of(finished(student(spec, transport(eta=0.1, **target))))
        assert all(torch.equal(still[name], control[name]) for name in control)
        assert not all(torch.equal(moved[name], control[name]) for name in control)


def test_the_whole_way_gives_each_matrix_the_quantiles_of_its_like(
    spec: dict[str, Any], own_cache: Path
) -> None:
    """The student's only layer is at the relative depth of the second of the teacher's two."""
    step = student(spec, transport(eta=1))
    theirs = layer_matrices(teacher_of(step).state_dict())
    assert {place[0] for place in theirs} == {0, 1}
    found = unit_quantiles(finished(step))
    assert len(found) == len(ROLES)
    for (layer, role), quantiles in found.items():
        assert layer == 0
        torch.testing.assert_close(quantiles, resampled(theirs[1, role], quantiles.numel()))


def test_permuted_no_matrix_keeps_its_own_distribution(spec: dict[str, Any], own_cache: Path) -> None:
    step = student(spec, transport(eta=1, target="permuted-teacher"))
    theirs = layer_matrices(teacher_of(step).state_dict())

    def sources(seed: int) -> list[str]:
        assert step.method is not None
        setting = RunSetting(
            method=step.method, shape=step.shape, seed=seed, steps=STEPS, world=World(), models=finished(step).models
        )  # fmt: skip
        state = WeightTransport(target="permuted-teacher").initial_state(setting)
        return [
            next(role for (_, role), each in theirs.items() if torch.equal(resampled(each, len(target)), target))
            for target in state.values()
        ]  # fmt: skip

    roles = [role for layer, role in theirs if layer == 0]
    assert sorted(sources(0)) == sorted(roles)
    assert all(own != other for seed in range(3) for own, other in zip(roles, sources(seed), strict=True))
    assert sources(0) != sources(1)
    assert sources(0) == sources(0)


def test_only_the_named_matrices_move_and_only_every_so_many_steps(
    spec: dict[str, Any], own_cache: Path
) -> None:
    options = {"eta": 1, "target": "binary", "matrices": ["up_proj"]}
    at_the_end = unit_quantiles(finished(student(spec, transport(every=STEPS, **options))))
    for (_, role), quantiles in at_the_end.items():
        assert torch.equal(quantiles.abs(), torch.ones_like(quantiles)) == (role == "mlp.up_proj")
    never = finished(student(spec, transport(every=STEPS + 1, **options)))
    control = finished(student(spec, {}))
    assert all(
        torch.equal(a, b) for a, b in zip(never.model.parameters(), control.model.parameters(), strict=True)
    )


def test_given_quantiles_are_interpolated(spec: dict[str, Any], own_cache: Path) -> None:
    options = {"target": "quantiles", "quantiles": [-2, 0, 0, 0, 1], "eta": 1}
    for quantiles in unit_quantiles(finished(student(spec, transport(**options)))).values():
        assert (quantiles == 0).float().mean() == pytest.approx(0.4, abs=0.02)
        assert quantiles[0] / quantiles[-1] == pytest.approx(-2)


def test_a_teacher_of_other_matrices_is_refused(spec: dict[str, Any], own_cache: Path) -> None:
    step = student(spec, transport())
    assert step.method is not None
    models = cast("Models", SimpleNamespace(teacher_module=nn.Linear(3, 3)))
    setting = RunSetting(
        method=step.method, shape=step.shape, seed=0, steps=STEPS, world=World(), models=models
    )
    with pytest.raises(
        InputError, match=r"the teacher has no matrix mlp\.down_proj, .* choose a distribution"
    ):
        WeightTransport().initial_state(setting)


@pytest.mark.parametrize("target", ["teacher", "laplace"])
def test_killed_and_resumed_a_run_ends_in_the_same_bits(
    target: str, spec: dict[str, Any], own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0)
    step = student(spec, transport(target=target, eta=0.2, every=3))
    checkpoints, whole = Checkpoints(Store(tmp_path / "store"), "run"), state_of(finished(step))
    with pytest.raises(Killed):
        finished(step, checkpoints, 7)
    again = state_of(finished(step, checkpoints))
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_overlap_and_distance_are_measured(spec: dict[str, Any], own_cache: Path) -> None:
    def metrics(method: Any) -> dict[str, float]:
        step = student(spec, method)
        run = finished(step)
        assert step.method is not None
        assert run.models is not None
        evaluation = Evaluation(
            student=run.model, models=run.models, heldout=TOKENS[:1000], context=CONTEXT,
            heads=run.method.heads, states=run.method.states, encode=lambda text: [],
        )  # fmt: skip
        return {k: v for k, v in measured(step.method, evaluation).items() if "overlap" in k or "target" in k}

    free, half, whole = (
        metrics({"use": f"{MODULE}:untransported"}),
        metrics(transport(eta=0.1, target="binary")),
        metrics(transport(eta=1, target="binary")),
    )
    assert "target_distance" not in free
    assert free["gaussian_overlap"] > half["gaussian_overlap"] > whole["gaussian_overlap"]
    assert whole["gaussian_overlap"] == pytest.approx(np.sqrt(2 / np.pi), abs=1e-5)
    assert whole["gaussian_overlap_min"] == pytest.approx(whole["gaussian_overlap_0"], abs=1e-5)
    assert half["target_distance"] > 0.05 > 1e-6 > whole["target_distance"]
    theirs = layer_matrices(teacher_of(student(spec, {})).state_dict())
    expected = np.average(
        [sample_overlap(each.double()) for each in theirs.values()],
        weights=[each.numel() for each in theirs.values()],
    )
    assert free["teacher_gaussian_overlap"] == pytest.approx(expected)


def test_the_presets_methods_have_the_overlaps_that_they_are_named_by() -> None:
    """J in {1, .98, .9, .8, .6}, at the sizes of the preset's matrices."""
    found: dict[str, set[float]] = {}
    sweep = load_sweep("weights")
    for method in sweep.methods:
        for hook in method.hooks:
            part = cast("WeightTransport", hook.part_in("hooks"))
            if part.distribution() is not None:
                weights = {(n, "mlp.up_proj"): torch.empty(1, n) for n in (576, 1600, 2304, 6144)}
                state = part._shared_targets(weights) or {}
                found[method.name] = {
                    sample_overlap(target_of(place, w, state)) for place, w in weights.items()
                }
    wanted = {
        "normal_weights": 1, "laplace_weights": 0.98, "ternary_weights": 0.9, "lognormal_weights": 0.8,
        "binary_weights": 0.8, "sparse_weights": 0.6,
    }  # fmt: skip
    assert set(found) == set(wanted)
    for name, J in wanted.items():
        tolerance = {"lognormal_weights": 0.035}.get(name, 0.005)
        assert all(abs(each - J) < tolerance for each in found[name])


@pytest.mark.slow
def test_compiled_the_weights_are_moved_too(spec: dict[str, Any], own_cache: Path) -> None:
    step = student(spec, transport(eta=1, target="binary"))
    compiled, plain = finished(step, compile=True), finished(step)
    for quantiles in unit_quantiles(compiled).values():
        assert torch.equal(quantiles.abs(), torch.ones_like(quantiles))
    assert compiled.loss == pytest.approx(plain.loss, rel=1e-3)


def _one_of_two(rank: int, port: int, step: Step, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from sweeps.model.distributed import world

    torch.set_num_threads(1)
    with world() as here:
        run = finished(step, world=here)
    torch.save(state_of(run), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_move_all_weights_alike(spec: dict[str, Any], own_cache: Path, tmp_path: Path) -> None:
    step = student(spec, transport(eta=0.3))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_one_of_two, args=(port, step, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = state_of(finished(step))
    for name in (each for each in alone if "/" not in each):
        torch.testing.assert_close(first[name], alone[name], rtol=0, atol=1e-3)
