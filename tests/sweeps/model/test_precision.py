"""What bfloat16 products and compilation may change, and what not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scaling.errors import InputError
from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches
from sweeps.distill.loss import batch_loss
from sweeps.distill.targets import Online
from sweeps.model.compiling.aot import CompiledLibrary, trace
from sweeps.model.decoder import Decoder
from sweeps.model.device import is_out_of_memory
from sweeps.model.frozen import FrozenBody
from sweeps.model.heldout import heldout_loss
from sweeps.spec.method.method import Method, named_methods
from sweeps.spec.spec import Training
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train.loop import train, train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

SHAPE = shape_for(3e3, vocab=300, context=32, aspect_ratio=32)
TOKENS = (np.arange(20_000) ** 2 % 299).astype(np.uint16)
RULES = {"batch_tokens": 128, "warmup_tokens": 640}


def needs_more(method: Method) -> bool:
    """Whether it follows more than a teacher: a datastore, or bases."""
    return bool(method.neighbours or method.delta)


def weights(model: Decoder) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def trained(steps: int = 40, seed: int = 0, **rules: object) -> Decoder:
    return train(RunRecipe(shape=SHAPE, steps=steps, training=Training(**RULES | rules), seed=seed), TOKENS)


def test_in_bf16_parameters_and_gradients_stay_float32_and_errors_small() -> None:
    model = Decoder(shape_for(107e3, vocab=300, context=32, aspect_ratio=32))
    model.initialize(0)
    blocks = torch.randint(300, (8, 33), generator=torch.Generator().manual_seed(0))
    found = {}
    for precision in (torch.float32, torch.bfloat16):
        model.precision = precision
        assert model(blocks[:, :-1]).dtype == model.head.dtype == precision
        loss = batch_loss(model, blocks, Training())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        assert {each.dtype for each in (loss, *gradients)} == {torch.float32}
        found[precision] = loss, torch.cat([gradient.flatten() for gradient in gradients])
    (exact, full), (rough, rounded) = found.values()
    assert 0 < abs(rough - exact) < 2e-3 * exact
    assert 0 < (rounded - full).norm() < 0.02 * full.norm()


def test_a_teacher_that_is_the_student_teaches_nothing_in_bf16_too() -> None:
    student, teacher = Decoder(SHAPE), Decoder(SHAPE)
    for model in (student, teacher):
        model.initialize(0)
        model.precision = torch.bfloat16
    blocks = torch.from_numpy(TOKENS[: 33 * 4].astype(np.int64)).view(4, 33)
    target = Online(teacher.requires_grad_(False))
    rows = target.rows(blocks[:, :-1], torch.arange(4))
    loss = batch_loss(student, blocks, Training(z_loss=0), Method(), target, rows)
    assert loss.item() == 0
    loss.backward()
    assert max(p.grad.abs().max() for p in student.parameters() if p.grad is not None) < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_teacher_says_the_same_at_once_and_from_its_features(temperature: float) -> None:
    teacher = Decoder(SHAPE)
    teacher.initialize(0)
    inputs = torch.from_numpy(TOKENS[: 32 * 4].astype(np.int64)).view(4, 32)
    later, at_once = (
        target.log_probabilities(target.rows(inputs, torch.arange(4)), temperature)
        for target in (Online(teacher), Online(teacher, returns_log_probs=True))
    )
    torch.testing.assert_close(at_once, later)


def test_a_run_in_bf16_learns_what_one_in_fp32_does_and_is_measured_in_fp32() -> None:
    full, rounded = trained(steps=200), trained(steps=200, precision="bf16")
    losses = [heldout_loss(model, TOKENS[:4000], context=32).loss for model in (full, rounded)]
    assert 0 < abs(losses[1] - losses[0]) < 0.03 * losses[0]
    plain = Decoder(SHAPE)
    plain.load_state_dict(rounded.state_dict())
    assert heldout_loss(plain, TOKENS[:4000], context=32).loss == losses[1]


def interrupted(place: Path, **rules: object) -> Decoder:
    """As :func:`trained`, but stopped after 17 steps and taken up again from the checkpoint."""
    recipe = RunRecipe(shape=SHAPE, steps=40, training=Training(**RULES | rules), seed=0)
    checkpoints = Checkpoints(Store(str(place)), "run")
    first = Run(recipe=replace(recipe, stop=17), checkpoints=checkpoints)
    assert [error for _, error in train_together([first], TOKENS, data_seed=0)] == [None]
    again = Run(recipe=recipe, checkpoints=checkpoints)
    assert again.done == 17
    assert [error for _, error in train_together([again], TOKENS, data_seed=0)] == [None]
    return again.model


def test_a_run_in_bf16_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    assert torch.equal(weights(interrupted(tmp_path, precision="bf16")), weights(trained(precision="bf16")))


def test_compiled_a_run_repeats_itself_goes_on_and_agrees_with_plain_pytorch(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compiled, again = (trained(compile=True) for _ in range(2))
    assert torch.equal(weights(compiled), weights(again))
    assert torch.equal(weights(compiled), weights(interrupted(tmp_path, compile=True)))
    torch.testing.assert_close(weights(compiled), weights(trained()), rtol=1e-3, atol=1e-4)
    assert any((own_cache / "compiled").rglob("*.so"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own, of torch
@pytest.mark.parametrize(
    "name", [None, "", *(name for name in named_methods() if not needs_more(Method(use=name)))]
)
def test_traced_for_translation_every_method_has_its_loss_and_gradient(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interpreted(library: CompiledLibrary, *arguments: torch.Tensor) -> list[torch.Tensor]:
        graph, _ = trace(library.function, arguments)
        return list(graph(*arguments))

    monkeypatch.setattr(CompiledLibrary, "__call__", interpreted)
    teacher = Decoder(SHAPE)
    teacher.initialize(1)
    data = Batches(TOKENS, context=32, batch=4, seed=0)
    method = Method(use=name) if name else Method() if name == "" else None
    runs, steps = [], []
    for compile_it in (False, True):
        target = Online(FrozenBody(teacher) if compile_it else teacher, returns_log_probs=True)
        rules = Training(**RULES, compile=compile_it)
        runs.append(run := Run(recipe=RunRecipe(shape=SHAPE, steps=9, training=rules, seed=0, method=method)))
        if run.source:
            run.source.watch(data)
        run.step(data[0], target, target.rows(data[0][:, :-1], torch.arange(4)) if method else None)
        steps.append((run.loss, run.optimizer.first))
    assert (runs[0].gradient, runs[1].gradient is None) == (None, False)
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("own_cache")
def test_a_library_that_finds_no_memory_says_so() -> None:
    def too_much(x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x.expand(2**26, 2**20) + 1,)

    with pytest.raises(RuntimeError) as caught:
        CompiledLibrary(too_much, "too much")(torch.zeros(1))
    assert is_out_of_memory(caught.value)


@pytest.mark.usefixtures("own_cache")
def test_without_a_compiler_a_compiled_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        InputError, match=r"a C\+\+ compiler is needed, and no-such-compiler is not installed"
    ):
        trained(compile=True)
