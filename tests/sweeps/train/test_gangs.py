"""Gangs: processes that train one model, replicated or sharded, get the losses of one process."""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import lt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing import spawn
from torch.profiler import ProfilerActivity, profile

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.identity import training_identity
from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches
from sweeps.distill.active_method import ActiveMethod
from sweeps.distill.targets import Online
from sweeps.methods import AuxiliaryLoss, Hook
from sweeps.model import chunked_loss
from sweeps.model.decoder import Decoder
from sweeps.model.distributed import World, world
from sweeps.model.heldout import heldout_loss
from sweeps.model.layout import Layout
from sweeps.model.model_files import weights_stream
from sweeps.model.sharding import evaluation_copy
from sweeps.spec.method.method import Method
from sweeps.spec.method.run_views import HiddenStates, RunSetting, State
from sweeps.spec.spec import Training, parse_sweep
from sweeps.train.gang import model_at_start
from sweeps.train.loop import train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Diverged, Run

CONTEXT, BATCH = 32, 8
SHAPE = shape_for(3e3, vocab=300, context=CONTEXT, aspect_ratio=32)
TEACHER = shape_for(13e3, vocab=300, context=CONTEXT, aspect_ratio=32)
RULES = Training(batch_tokens=BATCH * CONTEXT, warmup_tokens=50 * BATCH * CONTEXT)
TOKENS = (np.arange(20_000) ** 2 % 299).astype(np.uint16)

LARGE = shape_for(3e6, vocab=300, context=CONTEXT, aspect_ratio=32)
HELDOUT = TOKENS[: 37 * CONTEXT + 1]
"""Blocks of three passes, which two processes cannot share equally."""

WHOLE, SHARDED = Layout(), Layout(sharded=True)
SMALL = {"micro_batch_tokens": CONTEXT, "recompute": True}
LAYOUTS = {
    "replicated": WHOLE,
    "sharded": SHARDED,
    "replicated in micro-batches": Layout(**SMALL),
    "sharded in micro-batches": Layout(sharded=True, **SMALL),
}


class Shrink(AuxiliaryLoss):
    """Auxiliary loss with a head and a state, whose updates need all processes."""

    version = "1"

    def student_layers(self, shape: ModelShape) -> list[int]:
        return [1]

    def heads(self, student: ModelShape, teachers: list[ModelShape]) -> nn.Module:
        return nn.Linear(student.width, 4)

    def initial_state(self, setting: RunSetting) -> State:
        return {"steps": torch.zeros(())}

    def per_token(self, view: HiddenStates, heads: nn.Module | None, state: State) -> Tensor:
        assert heads is not None
        return (heads(view.student[0].float()) - 1).square().mean(-1)

    def after_step(self, run: Any, state: State) -> None:
        state["steps"] += 1


class Halve(Hook):
    """Hook."""

    version = "1"

    def after_step(self, run: Any, state: State) -> None:
        pass


def use(name: str) -> dict[str, str]:
    return {"use": f"{__name__}:{name}"}


METHODS: dict[str, dict[str, Any]] = {
    "forward": {},
    "reverse": {"divergence": "reverse-kl", "temperature": 2.0},
    "jensen-shannon": {"divergence": "jensen-shannon", "cross_entropy": 0.3},
    "total-variation": {"divergence": "total-variation"},
    "taid": {"taid": {}},
    "on-policy": {"source": {"by": "student", "prompt_tokens": 8}, "divergence": "reverse-kl"},
    "on-policy beside data": {
        "source": {"by": "student", "prompt_tokens": 8}, "divergence": "reverse-kl", "pretraining": 0.5,
    },
    "head": {"auxiliary_losses": [use("Shrink")]},
    "head alone": {"auxiliary_losses": [use("Shrink")], "token_loss_weight": 0},
}  # fmt: skip


def teacher() -> Online:
    model = Decoder(TEACHER)
    model.initialize(7)
    return Online(model.eval().requires_grad_(False))


def recipe(steps: int, method: Method | None = None, **rules: Any) -> RunRecipe:
    return RunRecipe(shape=SHAPE, steps=steps, training=RULES.model_copy(update=rules), seed=0, method=method)


def losses(run: Run, target: Online | None = None) -> list[float]:
    """Return the loss of every step of ``run``."""
    data = Batches(TOKENS, context=CONTEXT, batch=BATCH, seed=3)
    if run.source:
        run.source.watch(data)
    found = []
    while run.active:
        numbers = run.world.share(data.numbers(run.done))
        blocks = data.read(numbers)
        rows = target.rows(blocks[:, :-1], numbers) if target and not run.source else None
        run.step(blocks, target, rows, numbers)
        found.append(run.loss)
    return found


def distilled(name: str, here: World, layout: Layout) -> list[float]:
    run = Run(recipe=recipe(6, Method(**METHODS[name])), world=here, layout=layout)
    return losses(run, teacher())


def chunked(here: World, layout: Layout) -> list[float]:
    """Return losses where logits are computed in several chunks of rows."""
    before = chunked_loss.MAX_FULL_LOGITS, chunked_loss.FP32_LOGITS_PER_CHUNK
    chunked_loss.MAX_FULL_LOGITS, chunked_loss.FP32_LOGITS_PER_CHUNK = 300, 300 * 7
    try:
        return losses(Run(recipe=recipe(6), world=here, layout=layout))
    finally:
        chunked_loss.MAX_FULL_LOGITS, chunked_loss.FP32_LOGITS_PER_CHUNK = before


def bf16(here: World, layout: Layout, steps: int, seed: int = 0) -> float:
    """Return the held-out loss after training in bfloat16."""
    run = Run(recipe=replace(recipe(steps, precision="bf16"), seed=seed), world=here, layout=layout)
    losses(run)
    run.prepare_evaluation()
    return heldout_loss(run.model, TOKENS[:2000], context=CONTEXT, world=run.evaluators).loss


def peak_bytes(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the peak bytes of tensors during ``work``, beyond those before, and what it returns."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        result = work()
    events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    sizes = sorted((each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]")
    return float(np.cumsum([size for _, size in sizes]).max()), result


def begun(here: World, layout: Layout) -> Decoder:
    first = replace(recipe(1, precision="bf16"), shape=LARGE)
    return model_at_start(first, ActiveMethod(None), None, layout, here)


def checksum(model: Decoder) -> str:
    found = hashlib.sha256()
    for chunk in weights_stream(model):
        found.update(chunk)
    return found.hexdigest()


def of_parts(here: World) -> dict[str, Any]:
    """Return a model's loss and checksum, and peak bytes of making, copying, evaluating and writing it."""
    making, model = peak_bytes(lambda: begun(here, SHARDED))
    copying, copy = peak_bytes(lambda: evaluation_copy(model, here))
    passing, loss = peak_bytes(lambda: heldout_loss(copy, HELDOUT, context=CONTEXT, world=here).loss)
    again = [peak_bytes(lambda: checksum(copy)) for _ in range(5)]  # gloo frees what it sent a moment late
    writing, written = min(again)
    return {"bytes": [making, copying, passing, writing], "loss": loss, "file": written}


def resumed(here: World, first: Layout, second: Layout) -> list[float]:
    """Return the losses of a run, the second half of which begins with the state of the first in a file."""
    from sweeps.model.sharding import whole

    half = Run(recipe=replace(recipe(6), stop=3), world=here, layout=first)
    before = losses(half)
    state = {name: whole(tensor) for name, tensor in half.state().items()}
    other = Run(recipe=recipe(6), world=here, layout=second)
    other.load_state(state)
    other.done = 3
    return before + losses(other)


def poisoned(here: World, layout: Layout, rank: int) -> str:
    """Return the error of a run into whose third batch ``rank`` mixes what is not a number."""
    run = Run(recipe=recipe(6), world=here, layout=layout)
    backward = run._backward

    def with_nan(*given: Any) -> Tensor:
        bad = here.rank == rank and run.done == 2
        return backward(*given) * (math.nan if bad else 1.0)

    run._backward = with_nan  # type: ignore[method-assign]
    ((_, error),) = train_together([run], TOKENS, data_seed=0)
    assert isinstance(error, Diverged)
    return str(error)


def equalities(here: World, steps: int, methods: tuple[str, ...]) -> dict[str, Any]:
    """Return all that is compared with one process."""
    found: dict[str, Any] = {
        name: losses(Run(recipe=recipe(steps), world=here, layout=layout)) for name, layout in LAYOUTS.items()
    }
    for name in methods:
        found[f"method {name}"] = distilled(name, here, SHARDED)
    found["chunked"] = chunked(here, SHARDED)
    found["of parts"] = of_parts(here)
    found["bf16"] = bf16(here, SHARDED, steps)
    found["replicated, then sharded"] = resumed(here, WHOLE, SHARDED)
    found["sharded, then replicated"] = resumed(here, SHARDED, WHOLE)
    found["poisoned"] = [poisoned(here, layout, here.size - 1) for layout in (WHOLE, SHARDED)]
    with pytest.raises(InputError, match=r"hooks see whole weights.*training\.shard: false"):
        Run(recipe=recipe(1, Method(hooks=[use("Halve")])), world=here, layout=SHARDED)
    run = Run(recipe=recipe(1), world=here, layout=SHARDED)
    held = sum(each.to_local().numel() for each in run.model.parameters() if hasattr(each, "to_local"))
    found["share"] = held / sum(each.numel() for each in run.model.parameters())
    return found


def join(rank: int, size: int, port: int, folder: str, work: Callable[[World], Any]) -> None:
    """Do ``work`` as one process of a gang, and write what it returns."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    with world() as here:
        found = work(here)
        Path(folder, f"{rank}.json").write_text(json.dumps(found))


def gang(size: int, folder: Path, work: Callable[[World], Any]) -> list[Any]:
    """Return what each process of a gang of ``size`` returns from ``work``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(join, (size, port, str(folder), work), nprocs=size)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


def check_parts(found: list[dict[str, Any]]) -> None:
    """Check that processes get the bits of a whole model, and never hold more than a part and what is at work."""
    whole = begun(World(), WHOLE)
    passing, loss = peak_bytes(lambda: heldout_loss(whole, HELDOUT, context=CONTEXT).loss)
    all_bytes = 4 * LARGE.total_params
    matrix, block = 4 * LARGE.width * LARGE.ffn, all_bytes / LARGE.layers
    for each in found:
        assert (each["file"], each["loss"]) == (checksum(whole), loss)
        limits = (
            all_bytes / len(found) + 2.5 * matrix,
            all_bytes / len(found) + 0.1 * matrix,
            passing + 2.5 * block,
            4 * matrix,
        )
        assert all(map(lt, each["bytes"], limits)), (each["bytes"], limits)


def compare_with_one_process(size: int, steps: int, methods: tuple[str, ...], folder: Path) -> None:
    found = gang(size, folder, partial(equalities, steps=steps, methods=methods))
    first = found[0]
    one = losses(Run(recipe=recipe(steps)))
    for name in LAYOUTS:
        assert first[name] == pytest.approx(one, rel=1e-5), name
        assert found[-1][name] == first[name]
    for name in methods:
        assert first[f"method {name}"] == pytest.approx(distilled(name, World(), WHOLE), rel=1e-5), name
    assert first["chunked"] == pytest.approx(chunked(World(), WHOLE), rel=1e-5)
    short = losses(Run(recipe=recipe(6)))
    assert first["replicated, then sharded"] == pytest.approx(short, rel=1e-5)
    assert first["sharded, then replicated"] == pytest.approx(short, rel=1e-5)
    check_parts([each["of parts"] for each in found])
    seeds = [bf16(World(), WHOLE, steps, seed) for seed in range(3)]
    assert abs(first["bf16"] - seeds[0]) < 0.5 * np.std(seeds, ddof=1)
    assert all(each["poisoned"] == first["poisoned"] for each in found)
    assert all(text.startswith("the training loss is nan at step 3 of 6; ") for text in first["poisoned"])
    assert first["share"] == pytest.approx(1 / len(found), rel=0.05)


def test_two_processes_replicated_and_sharded_have_the_losses_of_one(tmp_path: Path) -> None:
    compare_with_one_process(2, 8, ("reverse", "taid", "on-policy beside data", "head alone"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_over_200_steps_all_layouts_have_the_losses_of_one_process(size: int, tmp_path: Path) -> None:
    compare_with_one_process(size, 200, tuple(METHODS), tmp_path)


def test_recomputed_blocks_have_the_bits_of_kept_ones() -> None:
    assert losses(Run(recipe=recipe(8), layout=Layout(recompute=True))) == losses(Run(recipe=recipe(8)))


def test_micro_batches_hold_whole_blocks_and_at_least_one() -> None:
    sizes = {None: 1, 32.0: 8, 64.0: 4, 95.0: 4, 96.0: 3, 256.0: 1, 1e9: 1, 1.0: 8}
    for tokens, pieces in sizes.items():
        assert Layout(micro_batch_tokens=tokens).micro_batches(8, 32) == pieces
        assert Run(recipe=recipe(1), layout=Layout(micro_batch_tokens=tokens)).pieces == pieces


def test_layouts_are_no_part_of_an_id() -> None:
    given = RULES.model_dump() | {"micro_batch_tokens": "1k", "shard": True, "recompute": False}
    assert training_identity(Training(**given)) == training_identity(RULES)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (
            "micro_batch_tokens",
            100,
            "training.micro_batch_tokens (100) must be a multiple of corpus.context (128)",
        ),
        ("micro_batch_tokens", "lots", "training.micro_batch_tokens: cannot read 'lots' as a quantity"),
        ("micro_batch_tokens", 0, "training.micro_batch_tokens: "),
        ("micro_batch_tokens", True, "training.micro_batch_tokens: must be auto or a quantity such as 4096"),
        ("shard", "maybe", "training.shard: must be auto, true or false, found 'maybe'"),
        ("recompute", 2, "training.recompute: must be auto, true or false, found 2"),
    ],
)
def test_layouts_that_mean_nothing_are_refused(field: str, value: object, reason: str) -> None:
    spec = {"name": "x", "supervised": [{"params": ["13k"], "tokens": ["1M"]}], "training": {field: value}}
    with pytest.raises(InputError) as found:
        parse_sweep(spec)
    assert "spec: 1 wrong\n  " + reason in str(found.value)
