"""Compiled functions are compared with plain PyTorch where they are first used; a wrong one is never trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.dag.ladder import shape_for
from sweeps.distill.targets import Online
from sweeps.model import chunked_loss
from sweeps.model.compiling import aot, compiled
from sweeps.model.compiling.aot import CompiledLibrary
from sweeps.model.compiling.compiled import compile_cache_dir
from sweeps.model.compiling.compiler_check import _LEVEL, CPU_OPTIONS, STANDARD, compare_results, perturbed
from sweeps.model.decoder import Decoder
from sweeps.model.device import instruction_sets
from sweeps.model.frozen import FrozenBody
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Training
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train.loop import train, train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Diverged, Run

SHAPE = shape_for(3e3, vocab=300, context=32, aspect_ratio=32)
TOKENS = (np.arange(20_000) ** 2 % 299).astype(np.uint16)
RULES = {"batch_tokens": 128, "warmup_tokens": 640, "compile": True}
SAFER = "256-bit vectors"
BLOCKS = torch.from_numpy(TOKENS[: 33 * 4].astype(np.int64)).view(4, 33)

pytestmark = pytest.mark.usefixtures("own_cache")
Wrong = Callable[[list[Tensor]], list[Tensor]]


def doubled(results: list[Tensor]) -> list[Tensor]:
    """Return results whose gradient is twice what it should be."""
    return [results[0], *(2 * each for each in results[1:])]


def not_finite(results: list[Tensor]) -> list[Tensor]:
    """Return results one number of whose gradient is not finite."""
    results[-1].view(-1)[3] = torch.nan
    return results


class Compiler:
    """Stand-in for the compiler: plain PyTorch, made wrong on purpose with the given options."""

    def __init__(self) -> None:
        self.wrong: dict[str, Wrong] = {}
        self.asked: list[str] = []

    def file(
        self, made: CompiledLibrary, given: Sequence[Tensor], name: str, level: str
    ) -> tuple[CompiledLibrary, str]:
        self.asked.append(level)
        return made, level

    def load(self, translation: tuple[CompiledLibrary, str]) -> Wrong:
        made, level = translation

        def run(given: list[Tensor]) -> list[Tensor]:
            results = [each.detach().clone() for each in made.function(*given)]
            return self.wrong.get(level, list)(results)

        return run


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    """Let no machine code be made."""
    stand_in = Compiler()
    monkeypatch.setattr(CompiledLibrary, "_file", lambda made, *how: stand_in.file(made, *how))
    monkeypatch.setattr(aot, "_load_library", stand_in.load)
    yield stand_in


def squares(x: Tensor) -> tuple[Tensor, Tensor]:
    return (x * x).sum(), 2 * x


def run_of(**rules: object) -> Run:
    return Run(recipe=RunRecipe(shape=SHAPE, steps=40, training=Training(**RULES | rules), seed=0))


@pytest.mark.parametrize("fault", [doubled, not_finite])
def test_a_wrong_gradient_is_found_and_translated_again_and_the_finding_kept(
    compiler: Compiler, fault: Wrong
) -> None:
    compiler.wrong = {STANDARD: fault}
    x = torch.randn(4, 8)
    for _ in range(2):  # two processes: the second knows
        loss, gradient = CompiledLibrary(squares, "squares")(x)
        torch.testing.assert_close((loss, gradient), squares(x))
    assert compiler.asked == [STANDARD, SAFER, SAFER, SAFER]
    (file,) = compile_cache_dir().glob("*.json")
    kept = json.loads(file.read_text())
    assert kept["options"] == SAFER
    assert kept["rejected"].keys() == {STANDARD}


def test_a_gradient_that_no_options_compile_rightly_is_refused_again_and_again(compiler: Compiler) -> None:
    compiler.wrong = dict.fromkeys(CPU_OPTIONS, doubled)
    for _ in range(2):
        with pytest.raises(InputError, match=r"miscompiles this step: .*differs.* compile: false"):
            CompiledLibrary(squares, "squares")(torch.ones(3))
    assert compiler.asked == [STANDARD, SAFER]


def test_a_right_function_keeps_the_standard_options(compiler: Compiler) -> None:
    made = CompiledLibrary(squares, "squares")
    made(torch.ones(3))
    assert [verdict.options for verdict in made.verdicts.values()] == [STANDARD]
    assert set(compiler.asked) == {STANDARD}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", [doubled, not_finite])
def test_a_run_trains_on_right_gradients_whatever_the_compiler_does(
    compiler: Compiler, fault: Wrong, precision: str
) -> None:
    right = run_of(precision=precision)
    right.step(BLOCKS, None, None)
    compiler.wrong = {STANDARD: fault}
    for file in compile_cache_dir().glob("*.json"):
        file.unlink()
    run = run_of(precision=precision)
    run.step(BLOCKS, None, None)
    assert torch.equal(run.optimizer.weights, right.optimizer.weights)
    (found,) = run.used_options.provenance()
    assert found["options"] == SAFER
    assert "gradient" in found["rejected"][STANDARD]


def test_one_wrong_weight_among_many_is_found(compiler: Compiler) -> None:
    def one_of_many(results: list[Tensor]) -> list[Tensor]:
        results[1][-8:] *= 3  # of a gain, at the end
        return results

    compiler.wrong = dict.fromkeys(CPU_OPTIONS, one_of_many)
    with pytest.raises(InputError, match=r"the gradient of \S*(norm|mlp)"):
        run_of(precision="bf16").step(BLOCKS, None, None)


def test_a_student_equal_to_its_teacher_is_not_refused_for_rounding(compiler: Compiler) -> None:
    """A gradient that is only rounding error, which differs between any two implementations."""

    def otherwise_rounded(results: list[Tensor]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        noise = 1e-6 * torch.randn(results[-1].shape, generator=generator)
        return [*results[:-1], results[-1] + (noise if results[-1].ndim == 1 else 0)]

    compiler.wrong = {STANDARD: otherwise_rounded}
    recipe = RunRecipe(
        shape=SHAPE, steps=9, training=Training(**RULES, precision="bf16"), seed=0, method=Method()
    )
    run, teacher = Run(recipe=recipe), Decoder(SHAPE)
    teacher.initialize(0)
    teacher.precision = torch.bfloat16
    target = Online(teacher.requires_grad_(False), returns_log_probs=True)
    run.step(BLOCKS, target, target.rows(BLOCKS[:, :-1], torch.arange(4)))
    assert set(run.used_options.names.values()) == {STANDARD}


def test_a_teacher_compiled_wrongly_is_found(compiler: Compiler) -> None:
    compiler.wrong = dict.fromkeys(CPU_OPTIONS, lambda results: [2 * each for each in results])
    teacher = Decoder(SHAPE)
    teacher.initialize(1)
    with pytest.raises(InputError, match="the teacher's features differs"):
        Online(FrozenBody(teacher)).rows(BLOCKS[:, :-1], torch.arange(4))


def test_a_run_does_not_go_on_with_other_options(compiler: Compiler, tmp_path: Path) -> None:
    recipe = RunRecipe(shape=SHAPE, steps=40, training=Training(**RULES), seed=0)
    checkpoints = Checkpoints(Store(str(tmp_path)), "run")
    compiler.wrong = {STANDARD: doubled}
    first = Run(recipe=replace(recipe, stop=17), checkpoints=checkpoints)
    assert [error for _, error in train_together([first], TOKENS, data_seed=0)] == [None]
    again = Run(recipe=replace(recipe, stop=20), checkpoints=checkpoints)
    assert [error for _, error in train_together([again], TOKENS, data_seed=0)] == [None]
    compiler.wrong = {}  # another kind of machine
    for file in compile_cache_dir().glob("*.json"):
        file.unlink()
    with pytest.raises(
        InputError, match=f"started with the {SAFER} options of the compiler, but only the {STANDARD}"
    ):
        train(recipe, TOKENS, checkpoints=checkpoints)


def test_divergence_names_the_compiler_if_plain_pytorch_does_not_diverge(compiler: Compiler) -> None:
    run = run_of()
    run.step(BLOCKS, None, None)
    compiler.wrong = {STANDARD: not_finite}
    with pytest.raises(
        Diverged, match=r"not finite at step 2 of 40; plain PyTorch's is finite .*compile: false"
    ):
        run.step(BLOCKS, None, None)
    compiler.wrong = {}
    run = run_of()
    run.step(BLOCKS, None, None)
    run.optimizer.weights[0] = torch.nan
    with pytest.raises(Diverged, match="lower learning_rate"):
        run.step(BLOCKS, None, None)


@pytest.mark.parametrize("wrong", [{}, {STANDARD}, set(CPU_OPTIONS)])
def test_a_loss_over_blocks_of_logits_is_compared_too(
    monkeypatch: pytest.MonkeyPatch, wrong: set[str]
) -> None:
    def compile_wrongly(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        factor = 1.5 if _LEVEL.get() in wrong else 1.0
        return lambda *arguments: factor * function(*arguments)

    monkeypatch.setattr(chunked_loss, "MAX_FULL_LOGITS", 2**10)
    monkeypatch.setattr(compiled, "compile_function", lambda function: function)
    monkeypatch.setattr("sweeps.distill.loss.compile_function", compile_wrongly)
    plain, run = run_of(compile=False), run_of()
    assert run.compiled_loss
    plain.step(BLOCKS, None, None)
    if wrong == set(CPU_OPTIONS):
        with pytest.raises(InputError, match="the loss differs from plain"):
            run.step(BLOCKS, None, None)
        return
    run.step(BLOCKS, None, None)
    torch.testing.assert_close(run.optimizer.weights, plain.optimizer.weights)
    assert list(run.used_options.names.values()) == [SAFER if wrong else STANDARD]


def test_a_kind_of_machine_is_told_by_its_instructions_and_what_restricts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = compile_cache_dir()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert compile_cache_dir() != full


def test_a_difference_below_the_tolerance_or_below_rounding_passes() -> None:
    wanted = {"the gradient": torch.ones(100)}

    def rounded() -> dict[str, Tensor]:
        return {"the gradient": perturbed(torch.ones(100), 0.1)}

    for change, passes in ((0.04, True), (0.3, True), (2.0, False)):
        _, reason = compare_results(
            {"the gradient": torch.ones(100) + change}, wanted, rounded, torch.bfloat16
        )
        assert (reason is None) == passes


def test_results_that_cannot_be_compared_are_compared_later(compiler: Compiler) -> None:
    made = CompiledLibrary(squares, "squares")
    made(torch.full((3,), torch.inf))
    assert not list(compile_cache_dir().glob("*.json"))


@pytest.mark.skipif("avx512bw" not in instruction_sets(), reason="the processor has no vectors of 512 bits")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own, of torch
def test_the_transposition_that_gcc_12_compiles_wrongly_is_computed_rightly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the tuning that GCC 12 has for processors it does not know; see ``benchmarks/compiler_fault.py``."""
    import torch._inductor.config

    def transposed(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.t().contiguous(), (x.float().t() * 2).bfloat16().contiguous()

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    x = torch.randn(128, 192).bfloat16()
    with torch._inductor.config.patch({"cpp.march": "x86-64-v4"}):
        made = CompiledLibrary(transposed, "transposed", torch.bfloat16)
        torch.testing.assert_close(tuple(made(x)), transposed(x), rtol=0.01, atol=0)
    compiler = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=True)
    if compiler.stdout.startswith("12"):
        assert [verdict.options for verdict in made.verdicts.values()] == [SAFER]


FIRST_STEPS = """
import sys
import numpy as np, torch
from sweeps.dag.ladder import shape_for
from sweeps.train.recipe import RunRecipe
from sweeps.train.loop import train
from sweeps.spec.spec import load_sweep
torch.set_num_threads(1)
sweep = load_sweep(sys.argv[1])
roles = ("supervised", "teachers", "students")
size = max(size for role in roles for _, grid in sweep.grids(role) for size in grid.params)
corpus = sweep.corpus
shape = shape_for(size, vocab=corpus.vocab, context=corpus.context, aspect_ratio=32)
tokens = np.random.default_rng(0).integers(corpus.vocab, size=100_000).astype(np.uint16)
train(RunRecipe(shape=shape, steps=1000, stop=3, training=sweep.training, seed=0), tokens)
"""


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["quickstart", "permissive", "methods", "methods-tuned"])
@pytest.mark.parametrize(
    "restricted",
    [
        {},
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    ],
)
def test_presets_take_their_first_steps_on_processors_with_fewer_instructions(
    preset: str, restricted: dict[str, str]
) -> None:
    subprocess.run([sys.executable, "-c", FIRST_STEPS, preset], check=True, env=os.environ | restricted)
