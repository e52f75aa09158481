"""Students that train side by side: the same bits as apart, and one's failure is not the others'."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.dag.ladder import shape_for
from sweeps.distill.targets import Online
from sweeps.execute.steps.step import run_step, run_steps
from sweeps.execute.teacher_sharing import group_into_cohorts
from sweeps.model.decoder import Decoder
from sweeps.model.device import is_out_of_memory
from sweeps.model.heldout import heldout_loss
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method
from sweeps.spec.method.run_views import TrainingBatch
from sweeps.spec.spec import Training, parse_sweep
from sweeps.store.store import Store
from sweeps.train.loop import train, train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Diverged, Run

RULES = Training(batch_tokens=128, warmup_tokens=1280)
SMALL = shape_for(3e3, vocab=300, context=32, aspect_ratio=32)
LARGE = shape_for(13e3, vocab=300, context=32, aspect_ratio=32)
TOKENS = (np.arange(8_000) ** 2 % 299).astype(np.uint16)


@pytest.fixture
def teacher() -> Decoder:
    model = Decoder(LARGE)
    model.initialize(7)
    return model.eval().requires_grad_(False)


def weights(model: Decoder) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in model.parameters()]).detach()


def students() -> list[RunRecipe]:
    first = RunRecipe(shape=SMALL, steps=40, training=RULES, seed=0, method=Method())
    return [
        first,
        replace(first, shape=LARGE, steps=25),
        replace(
            first, seed=1, method=Method(divergence="jensen-shannon", temperature=2.0, cross_entropy=0.3)
        ),
    ]


def test_a_cohort_gives_what_its_members_give_apart_in_the_order_they_end(teacher: Decoder) -> None:
    target = Online(teacher)
    apart = [weights(train(recipe, TOKENS, data_seed=3, target=target)) for recipe in students()]
    runs = [Run(recipe=recipe) for recipe in students()]
    ended = [run for run, error in train_together(runs, TOKENS, data_seed=3, target=target) if not error]
    assert ended == [runs[1], runs[0], runs[2]]
    for run, alone in zip(runs, apart, strict=True):
        assert torch.equal(weights(run.model), alone)


def test_a_member_that_diverges_leaves_the_others_alone(teacher: Decoder) -> None:
    recipes = students()
    wild = replace(recipes[1], training=RULES.model_copy(update={"learning_rate": 1e30}))
    runs = [Run(recipe=recipe) for recipe in (recipes[0], wild)]
    errors = {
        id(run): error for run, error in train_together(runs, TOKENS, data_seed=3, target=Online(teacher))
    }
    assert isinstance(errors[id(runs[1])], Diverged)
    assert errors[id(runs[0])] is None
    assert torch.equal(
        weights(runs[0].model), weights(train(recipes[0], TOKENS, data_seed=3, target=Online(teacher)))
    )


def test_a_bad_step_leaves_the_weights_of_the_one_before() -> None:
    run = Run(recipe=RunRecipe(shape=SMALL, steps=40, training=RULES, seed=0))
    blocks = torch.zeros(4, 33, dtype=torch.long)
    run.step(blocks, None, None)
    before = weights(run.model)
    run.model.model.embed_tokens.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(Diverged, match=r"the gradient is not finite at step 2 of 40; lower learning_rate"):
        run.step(blocks, None, None)
    assert torch.equal(weights(run.model), before)
    assert run.done == 1


def test_a_teacher_that_is_not_a_number_is_named(teacher: Decoder) -> None:
    with torch.no_grad():
        teacher.model.norm.weight[0] = torch.nan
    with pytest.raises(InputError, match="the teacher: its outputs are not all finite"):
        train(students()[0], TOKENS, target=Online(teacher))


class Full:
    """A target whose memory runs out for batches above two blocks, as often as told."""

    def __init__(self, teacher: Decoder, most: int) -> None:
        self.online, self.most = Online(teacher), most

    def rows(self, inputs: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return self.online.rows(inputs, numbers)

    def outcomes(self, log_q: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return log_q

    def log_probabilities(self, rows: torch.Tensor, temperature: float) -> torch.Tensor:
        if len(rows) > 32 * self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.online.log_probabilities(rows, temperature)


def test_short_of_memory_a_batch_is_halved_once_and_means_the_same(teacher: Decoder) -> None:
    whole = train(students()[0], TOKENS, target=Online(teacher))
    run = Run(recipe=students()[0])
    ((_, error),) = train_together([run], TOKENS, data_seed=0, target=Full(teacher, 2))
    assert error is None
    assert run.pieces == 2
    assert torch.allclose(weights(run.model), weights(whole), atol=2e-4)
    with pytest.raises(torch.OutOfMemoryError):
        train(students()[0], TOKENS, target=Full(teacher, 1))


@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_a_batch_in_pieces_has_the_loss_and_gradient_of_the_whole(teacher: Decoder, pieces: int) -> None:
    """Also where the pieces are not of one size, so that a mean of their means would be another."""
    target, numbers = Online(teacher), torch.arange(5)
    blocks = torch.from_numpy(TOKENS[: 5 * 33].astype(np.int64)).view(5, 33)
    runs = [Run(recipe=students()[2]) for _ in range(2)]
    runs[1].pieces = pieces
    rows = target.rows(blocks[:, :-1], numbers)
    whole, parts = (run._backward(TrainingBatch(blocks, rows), target) for run in runs)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    for one, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


def test_only_a_full_memory_is_a_full_memory() -> None:
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
    )
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def _one_of(rank: int, size: int, port: int, path: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    from sweeps.model.distributed import world

    torch.set_num_threads(1)
    with world() as here:
        run = Run(recipe=students()[0], world=here)
        teacher = Decoder(LARGE)
        teacher.initialize(7)
        for _, error in train_together([run], TOKENS, data_seed=0, target=Online(teacher)):
            assert error is None
        if here.leads:
            torch.save({"weights": weights(run.model), "loss": torch.tensor(run.loss)}, path)


def test_two_processes_train_what_one_does(teacher: Decoder, tmp_path: object) -> None:
    import socket

    from torch import multiprocessing

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{tmp_path}/two.pt"
    multiprocessing.spawn(_one_of, args=(2, port, path), nprocs=2)
    two = torch.load(path, weights_only=True)
    run = Run(recipe=students()[0])
    list(train_together([run], TOKENS, data_seed=0, target=Online(teacher)))
    assert torch.allclose(two["weights"], weights(run.model), atol=2e-4)
    assert two["loss"].item() == pytest.approx(run.loss, rel=1e-4)
    one, other = heldout_loss(run.model, TOKENS, context=32), Decoder(SMALL)
    torch.nn.utils.vector_to_parameters(two["weights"], other.parameters())
    assert heldout_loss(other, TOKENS, context=32).loss == pytest.approx(one.loss, rel=1e-4)


def test_a_batch_that_cannot_be_split_evenly_is_refused() -> None:
    from sweeps.model.distributed import World

    with pytest.raises(InputError, match=r"a batch of 4 blocks cannot be split evenly over 3 processes"):
        World(0, 3).share(torch.zeros(4, 33))


@pytest.fixture
def ready(small_spec: dict[str, Any]) -> list[Step]:
    """Six students: three initializations for each of two teachers."""
    small_spec["students"] = [{"params": ["3k"], "tokens": ["32k"], "seeds": [0, 1, 2], "data_seed": 0}]
    return [step for step in dag_of(parse_sweep(small_spec)).steps if step.teacher]


@pytest.mark.parametrize(("slots", "sizes"), [(1, [3, 3]), (2, [3, 3]), (3, [1, 2, 3]), (9, [1] * 6)])
def test_students_of_one_teacher_share_its_pass_unless_a_core_would_idle(
    ready: list[Step], slots: int, sizes: list[int]
) -> None:
    found = group_into_cohorts(ready, slots, lambda step: step.flops)
    assert sorted(len(cohort) for cohort in found) == sizes
    assert {step.id for cohort in found for step in cohort} == {step.id for step in ready}
    assert all(len({step.teacher.id for step in cohort if step.teacher}) == 1 for cohort in found)
    assert found[0][0] is ready[0]


def test_nothing_is_shared_where_batches_differ(ready: list[Step]) -> None:
    first = ready[0]
    for other in (replace(first, seed=9), replace(first, data_seed=1), replace(first, half="first")):
        together = len(group_into_cohorts([first, other], 1, lambda step: step.flops)) == 1
        assert together == (other.data_seed == first.data_seed and other.half == first.half)


def test_cohorts_stay_small_enough_for_one_process(ready: list[Step]) -> None:
    many = [replace(ready[0], seed=seed) for seed in range(20)]
    assert sorted(len(cohort) for cohort in group_into_cohorts(many, 1, lambda step: 1.0)) == [6, 7, 7]


def test_a_cohort_commits_each_member_and_names_the_one_that_failed(
    small_spec: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    dag = dag_of(parse_sweep(small_spec))
    store, alone = Store(tmp_path / "together"), Store(tmp_path / "alone")
    teachers = [step for step in dag.steps if not step.teacher]
    students = [step for step in dag.steps if step.teacher and step.teacher.id == teachers[1].id]
    for place in (store, alone):
        for step in teachers:
            run_step(place, step)
    wild = students[0].training.model_copy(update={"learning_rate": 1e30})
    bad = replace(students[0], training=wild)
    outcomes = {step.id: result for step, result in run_steps(store, [*students, bad])}
    assert isinstance(outcomes.pop(bad.id), Diverged)
    for step in students:
        result = outcomes[step.id]
        assert isinstance(result, dict)
        assert result["loss"] == run_step(alone, step)["loss"]
        assert store.result(step.id) == result
    assert store.result(bad.id) is None
