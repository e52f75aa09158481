"""Memory model of steps, and the layouts that follow from it."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from large_models import large

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.expand import Dag, Step
from sweeps.dag.ladder import shape_for
from sweeps.estimate.memory.activations import saved_activations
from sweeps.estimate.memory.layout import DeviceKind, describe, layout_for, layout_of_gang
from sweeps.estimate.memory.machine_memory import machine_memory
from sweeps.estimate.memory.memory import (
    COMPILER_BYTES,
    KERNELS_BYTES,
    PROCESS_BYTES,
    TRAINING_BYTES_PER_PARAM,
    memory_parts,
    step_memory,
)
from sweeps.estimate.memory.placement import misfits, place
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.layout import Layout
from sweeps.model.optimizer import Optimizer, parameter_groups
from sweeps.resolve import dag_of
from sweeps.spec.spec import Training, parse_sweep

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "memory_model.py"
H100 = DeviceKind(gpu=True, memory=80e9, name="h100")
PAPER = {"vocab": 32_768, "context": 4096, "aspect_ratio": 128}
"""The ladder of Busbridge et al. 2025, Table 13."""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory_model", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["memory_model"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dag(small_spec: dict[str, Any]) -> Dag:
    return dag_of(parse_sweep(small_spec))


def step_of(dag: Dag, shape: ModelShape, **training: Any) -> Step:
    rules = dag.steps[0].training.model_copy(update=training)
    return replace(dag.steps[0], shape=shape, training=rules)


@pytest.mark.parametrize("number", [0, 2, 11, 14])
def test_tensors_are_what_pytorch_allocates(benchmark: ModuleType, number: int) -> None:
    """Within 10 %, as all configurations of the benchmark: two precisions, micro-batches, teachers."""
    case = benchmark.CASES[number]
    assert benchmark.parts(case).tensors == pytest.approx(benchmark.allocated(case), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5, 25, 31])
def test_resident_memory_of_held_out_configurations(benchmark: ModuleType, number: int) -> None:
    """Within 10 % of a child's peak, of configurations that did not set the constants."""
    case, found = benchmark.CASES[number], benchmark.in_child(number)
    assert found["before"] + benchmark.parts(case).resident == pytest.approx(found["peak"], rel=0.1)


def test_the_least_limit_of_a_container_is_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both versions of cgroups, with the limits of those around."""
    whole = machine_memory()
    monkeypatch.setattr("sweeps.estimate.memory.machine_memory.MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr("sweeps.estimate.memory.machine_memory.MOUNT", tmp_path)
    assert machine_memory() >= whole
    inner = tmp_path / "memory" / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("4:cpu,memory:/outer/inner\n0::/one\n")
    (inner / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (inner.parent / "memory.limit_in_bytes").write_text("2000000000\n")
    assert machine_memory() == 2e9
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "memory.max").write_text("max\n")
    assert machine_memory() == 2e9
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert machine_memory() == 1e9


def test_states_of_all_rungs_of_the_paper_are_exact(dag: Dag) -> None:
    """On meta tensors: weights, gradients and moments of 103M to 12.6B parameters."""
    printed = {8: 0.1363e9, 24: 2.819e9, 40: 12.78e9}  # N_total of three rows of Table 13
    for layers in range(8, 41):
        width = 128 * layers
        rung = ModelShape(layers=layers, width=width, ffn=128 * -(-width // 48), heads=layers, head_dim=128,
                          kv_heads=layers, vocab=PAPER["vocab"], context=PAPER["context"])  # fmt: skip
        assert shape_for(rung.params, **PAPER) == rung
        with torch.device("meta"):
            optimizer = Optimizer(parameter_groups(Decoder(rung), Training()))
        held = (optimizer.weights, optimizer.gradients, optimizer.first, optimizer.second)
        exact = sum(each.nbytes for each in held)
        step = step_of(dag, rung, batch_tokens=4096.0 * 8)
        assert memory_parts(step, gpu=True).states == exact == TRAINING_BYTES_PER_PARAM * rung.total_params
        sharded = memory_parts(step, gpu=True, processes=8, layout=Layout(sharded=True))
        assert sharded.states == exact / 8
        if layers in printed:
            assert rung.total_params == pytest.approx(printed[layers], rel=1e-3)


def test_saved_activations_are_what_autograd_keeps(dag: Dag, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 1 % of its storages, with attention written out and fused; norms as kernels of CPUs save them."""
    fused = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=True, scale=1.0)
    for gpu, params, context in ((False, 3e5, 128), (True, 3e6, 256)):
        shape = shape_for(params, vocab=500, context=context, aspect_ratio=32)
        if gpu:
            monkeypatch.setattr("sweeps.model.decoder.attend", lambda q, k, v, _: fused(q, k, v))
        inner = shape.heads * shape.head_dim
        scaled = 4.0 * 2048 * shape.layers * 2 * (shape.width + inner) if gpu else 0.0
        for precision in ("fp32", "bf16"):
            step = step_of(dag, shape, batch_tokens=2048, precision=precision)
            ours = saved_activations(shape, precision, 2048, gpu=gpu, recompute=False)
            head = 2.0 * shape.vocab * shape.width if precision == "bf16" else 0.0  # of the loss
            assert ours + scaled - head == pytest.approx(saved_by_torch(step), rel=0.01)


def saved_by_torch(step: Step) -> int:
    """Bytes of what autograd saves of a batch's features, parameters and constants left out."""
    model = Decoder(step.shape)
    model.precision = PRECISIONS[step.precision]
    known = [*model.parameters(), *model.buffers()]
    constant = {each.untyped_storage().data_ptr() for each in known}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if (where := tensor.untyped_storage().data_ptr()) not in constant:
            kept[where] = tensor  # held, so that no other takes its place
        return tensor

    blocks = torch.zeros(int(step.training.batch_tokens) // step.shape.context, step.shape.context).long()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = model.model(blocks)
    kept[features.untyped_storage().data_ptr()] = features  # read by the loss
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_memory_grows_with_the_model_and_its_batch(dag: Dag) -> None:
    step = dag.steps[0]
    wide = replace(step, training=step.training.model_copy(update={"batch_tokens": 64_000}))
    base = PROCESS_BYTES + KERNELS_BYTES
    assert step_memory(wide) - base > 5 * (step_memory(step) - base)
    student = next(s for s in dag.steps if s.teacher)
    assert step_memory(student) > step_memory(replace(student, teacher=None, method=None))
    long = replace(wide, shape=replace(step.shape, context=8192))
    assert step_memory(long, gpu=True) < step_memory(long) / 5  # no scores are kept
    loud = replace(wide, shape=replace(step.shape, vocab=200_000))
    assert step_memory(loud) < step_memory(wide) + 1.5e9  # of 51 GB of logits
    fits = replace(step, training=step.training.model_copy(update={"batch_tokens": 16_000}))  # logits in full
    assert step_memory(fits, processes=4) - base < (step_memory(fits) - base) / 3
    parts = memory_parts(fits)
    assert parts.resident == parts.total - parts.process - parts.checkpoint > parts.tensors + KERNELS_BYTES
    translated = replace(fits, training=fits.training.model_copy(update={"compile": True}))
    assert memory_parts(translated).heap > COMPILER_BYTES
    assert memory_parts(fits, gpu=True).heap == 0


def test_the_simplest_layout_that_fits_is_chosen(dag: Dag) -> None:
    """From whole on one device to sharded over 64; each fits, and what comes before it does not."""
    large = shape_for(1.2e9, **PAPER)
    step = step_of(dag, large, batch_tokens=4096.0 * 64, precision="bf16")
    small = replace(step, shape=shape_for(1e7, vocab=512, context=128, aspect_ratio=32))
    assert layout_for(small, H100) == Layout(reason=layout_for(small, H100).reason)
    pieces = layout_for(step, H100)
    assert (pieces.sharded, pieces.recompute) == (False, False)
    assert pieces.micro_batch_tokens in {4096.0 * 2**power for power in range(6)}
    assert "where the simplest layout would take" in pieces.reason
    assert describe(pieces, 1).startswith("whole on one device, micro-batches of")
    tight = layout_for(step, replace(H100, memory=34e9))
    assert (tight.sharded, tight.recompute) == (False, True)
    rung = step_of(dag, shape_for(7.75e9, **PAPER), batch_tokens=4096.0 * 64, precision="bf16")
    shards = layout_for(rung, H100, processes=8)
    assert shards.sharded
    for device, processes, found in ((H100, 1, pieces), (H100, 8, shards)):
        chosen = step if found is pieces else rung
        needed = partial(step_memory, chosen, gpu=True, processes=processes)
        assert needed(layout=found) <= 0.9 * 80e9 < needed(layout=Layout())
        assert device.memory == 80e9


def test_a_teacher_reads_micro_batches_however_large_the_batch(small_spec: dict[str, Any]) -> None:
    (needed, more) = (
        step_memory(
            large(small_spec, contexts=contexts)[1].steps[-1],
            gpu=True,
            layout=Layout(micro_batch_tokens=4096),
        )
        for contexts in (8, 512)
    )
    assert more == needed


def test_a_gang_on_several_kinds_of_gpu_is_laid_out_for_the_smallest(dag: Dag) -> None:
    step = step_of(dag, shape_for(1.2e9, **PAPER), batch_tokens=4096.0 * 64, precision="bf16")
    small = DeviceKind(gpu=True, memory=24e9, name="NVIDIA L4")
    alone, mixed = layout_of_gang(step, [small] * 4), layout_of_gang(step, [H100, H100, small, H100])
    assert mixed == replace(alone, reason=mixed.reason)
    assert mixed != replace(layout_of_gang(step, [H100] * 4), reason=mixed.reason)
    assert mixed.reason == (
        f"{alone.reason}; of several kinds of GPU (3 x h100, 1 x NVIDIA L4) the smallest must hold it, and the "
        "slowest sets the pace"
    )
    with pytest.raises(
        InputError, match=r"can use no GPU in process 1 of 3, and one in the others \(2 x h100, "
    ):
        layout_of_gang(step, [H100, DeviceKind(), H100])


def test_targets_of_sparse_caches_are_what_was_kept(small_spec: dict[str, Any]) -> None:
    """A token and a number for each kept outcome, of this batch and the one before."""
    targets = []
    for method in ({"logits": "top-k", "top": 49}, {"logits": "top-p", "top": 49}, {"logits": "sampled"}):
        step = large(small_spec, methods=[method])[1].steps[-1]
        targets.append(memory_parts(step, gpu=True).targets)
    assert targets == [2 * 8 * 4096 * 50] * 3


def test_an_evaluation_of_long_blocks_takes_one_at_a_time(dag: Dag) -> None:
    tight = replace(step_of(dag, shape_for(1e9, **PAPER), batch_tokens=131_072.0 * 8), teacher=None)
    long = replace(tight, shape=replace(tight.shape, context=131_072))
    layout = Layout(micro_batch_tokens=131_072, recompute=True)
    assert memory_parts(long, gpu=True, layout=layout).inference == 0.0


def test_what_fits_nowhere_says_which_devices_would_do(dag: Dag) -> None:
    rung = step_of(dag, shape_for(7.75e9, **PAPER), batch_tokens=4096.0 * 64, precision="bf16")
    with pytest.raises(
        InputError,
        match=r"a h100 has 80 GB; \d would do \(resources: \[{from_params: 77.*, gpus: \d}\]\), or one with 1\d\d GB",
    ):
        layout_for(rung, H100)
    odd = replace(rung, training=rung.training.model_copy(update={"batch_tokens": 4096.0 * 33}))
    with pytest.raises(InputError, match=r"cannot share a batch of 33 blocks equally.*batch_tokens: 131072"):
        layout_for(odd, H100)
    with pytest.raises(InputError, match=r"33 blocks .* over 8 processes; give it 3 .*batch_tokens: 163840$"):
        layout_for(odd, H100, processes=8)
    short = replace(rung, training=rung.training.model_copy(update={"batch_tokens": 4096.0}))
    with pytest.raises(InputError, match=r"use one with 1.. GB$"):
        layout_for(short, H100)
    student = dag.steps[-1]
    assert student.teacher
    beside = replace(student, teacher=replace(student.teacher, shape=shape_for(70e9, **PAPER)))
    with pytest.raises(InputError, match=r"write its logits down first.*\(methods: \[{logits: top-k}\]\)$"):
        layout_for(beside, H100)
    assert layout_for(rung, replace(H100, memory=None)).reason == "the memory of the device is not known"


def test_a_plan_places_steps_on_their_share_of_a_gpu(small_spec: dict[str, Any]) -> None:
    sweep, dag = large(small_spec, contexts=8, resources=[{"gpus": 0.25}])
    first, second = misfits(place(step, sweep) for step in dag.steps)
    assert {first.step.kind, second.step.kind} == {"pretrain", "distil"}
    assert first.problem is not None
    assert "0.25 of a h100 has 20 GB" in first.problem
    assert first.as_json()["layout"] == "fits nowhere"
    whole, dag = large(small_spec, contexts=8, resources=[{"gpus": 8}])
    for step in dag.steps:
        found = place(step, whole)
        assert found.problem is None
        assert found.layout is not None
        assert found.layout.sharded
        assert found.memory_bytes < 0.9 * 80e9
        assert str(found.as_json()["layout"]).startswith("sharded over 8 devices")
    assert misfits(place(step, None) for step in dag_of(parse_sweep(small_spec)).steps) == []
