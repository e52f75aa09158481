"""DNKD: votes of neighbours, the datastore they are found in, and the steps that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import InputError
from sweeps.dag.expand import Dag, Step
from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches
from sweeps.data.corpus import planned_tokens
from sweeps.distill.caches.shard_cache import ShardCache
from sweeps.distill.divergences import decoupled_kl
from sweeps.distill.knn import Datastore, Nearest, neighbor_log_probs, retrieved
from sweeps.distill.models import Models
from sweeps.distill.targets import Cached
from sweeps.distill.teacher import target_of
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.model.chunked_loss import mean_loss
from sweeps.model.decoder import Decoder
from sweeps.model.heldout import heldout_loss
from sweeps.model.log_probs import log_probabilities
from sweeps.resolve import dag_of
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_options import Neighbours
from sweeps.spec.spec import Training, parse_sweep
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train.loop import train
from sweeps.train.recipe import RunRecipe

CONTEXT, VOCAB = 16, 40
DNKD = {"use": "dnkd", "neighbours": {"count": 4, "keys": 4096}}


@pytest.fixture(scope="module")
def teacher() -> Decoder:
    model = Decoder(shape_for(3e3, vocab=VOCAB, context=CONTEXT, aspect_ratio=32))
    model.initialize(0)
    return model


@pytest.fixture(scope="module")
def data() -> Batches:
    tokens = np.random.default_rng(0).integers(0, VOCAB, 40 * CONTEXT + 1)
    tokens[20 * CONTEXT :] = tokens[: 20 * CONTEXT + 1]  # every block twice: keys that are equal
    return Batches(tokens, context=CONTEXT, batch=4, seed=0)


def test_known_votes() -> None:
    distances, tokens = torch.tensor([[0.0, 10.0, 20.0, 20.0]]), torch.tensor([[2, 1, 1, 0]])
    log_p = neighbor_log_probs(distances.double(), tokens, 5, 10.0)
    expected = torch.tensor([0.0825945, 0.3071098, 0.6102957, 0.0, 0.0]).double()
    assert torch.allclose(log_p.exp()[0], expected, atol=1e-7)
    assert log_p[0, 3].isneginf()


def test_votes_have_their_limits_and_symmetries() -> None:
    draw = torch.Generator().manual_seed(0)
    distances = torch.rand(6, 8, generator=draw, dtype=torch.float64) * 30
    tokens = torch.randint(0, 5, (6, 8), generator=draw)
    log_p = neighbor_log_probs(distances, tokens, 5, 7.0)
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(6).double(), atol=1e-12)
    order = torch.randperm(8, generator=draw)
    moved = neighbor_log_probs(distances[:, order] + 1000, tokens[:, order], 5, 7.0)
    assert torch.allclose(moved.exp(), log_p.exp(), atol=1e-12)
    counts = torch.nn.functional.one_hot(tokens, 5).double().mean(1)
    assert torch.allclose(neighbor_log_probs(distances, tokens, 5, 1e12).exp(), counts, atol=1e-10)
    nearest = tokens.gather(1, distances.argmin(1, keepdim=True))[:, 0]
    assert torch.equal(neighbor_log_probs(distances, tokens, 5, 1e-9).argmax(-1), nearest)
    two = neighbor_log_probs(torch.tensor([[3.0, 8.0]]).double(), torch.tensor([[0, 1]]), 2, 2.0).exp()
    assert float(two[0, 0]) == pytest.approx(1 / (1 + np.exp((3 - 8) / 2)), abs=1e-12)


def brute(teacher: Decoder, data: Batches, numbers: list[int], rules: Neighbours) -> tuple[Any, Any]:
    """Distances and tokens, by differences of all pairs."""
    keyed = data.numbers_of(range(int(rules.keys) // CONTEXT)).tolist()

    def read(which: list[int]) -> tuple[Any, Any, list[tuple[int, int]]]:
        blocks = data.read(torch.tensor(which))
        with torch.no_grad():
            features = teacher.model(blocks[:, :-1]).flatten(0, 1).double()
        return features, blocks[:, 1:].flatten(), [(n, place) for n in which for place in range(CONTEXT)]

    keys, values, here = read(keyed)
    queries, _, asked = read(numbers)
    apart = (queries[:, None] - keys).square().sum(-1)
    for row, place in enumerate(asked):
        if not rules.itself and place in here:
            apart[row, here.index(place)] = torch.inf
    near = apart.topk(rules.count, largest=False)
    return near.values, values[near.indices]


@pytest.mark.parametrize("itself", [False, True])
def test_search_is_exact_and_leaves_out_the_token_itself_alone(
    itself: bool, teacher: Decoder, data: Batches
) -> None:
    rules = Neighbours(count=5, keys=30 * CONTEXT, itself=itself)
    store, how, numbers = Datastore.of(teacher, data, rules), Nearest(VOCAB, rules), np.arange(40)
    packed = retrieved(teacher, store, data, numbers, how)
    distances = packed["distances"].reshape(-1, 5).astype(np.float64) * store.scale
    expected, tokens = brute(teacher, data, numbers.tolist(), rules)
    assert np.allclose(distances, expected, rtol=1e-4, atol=1e-5)
    clear = (expected.diff() > 1e-4).all(1).numpy()  # where no two are as near as each other
    assert clear.sum() > 50
    assert (packed["tokens"].reshape(-1, 5) == tokens.numpy())[clear].all()
    keyed = data.numbers_of(range(30)).numpy()
    twins = np.isin((keyed + 20) % 40, keyed)  # of blocks that are keys twice one is always left
    nearest = packed["distances"][keyed][..., 0]
    assert (nearest[twins] < 1e-6).all()
    assert ((nearest[~twins, 4:] < 1e-6) == itself).all()
    alone = nearest[~twins, 4:] < 1e-6
    own = data.read(torch.from_numpy(keyed[~twins]))[:, 5:].numpy()
    assert (packed["tokens"][keyed][~twins, 4:, 0] == own)[alone].all()
    assert np.median(packed["distances"][keyed][..., -1]) == pytest.approx(1, rel=0.1)


def test_blocks_find_the_same_whatever_else_is_looked_up(teacher: Decoder, data: Batches) -> None:
    rules = Neighbours(count=3, keys=20 * CONTEXT)
    store, how = Datastore.of(teacher, data, rules), Nearest(VOCAB, rules)

    def found(numbers: NDArray[np.int64]) -> NDArray[np.void]:
        return retrieved(teacher, store, data, numbers, how)

    assert found(np.arange(40))[[3, 17, 31]].tobytes() == found(np.array([3, 17, 31])).tobytes()


def test_with_itself_and_cold_the_votes_are_the_data() -> None:
    """Then the decoupled loss is the text's cross-entropy, but for the tokens that nobody voted for."""
    log_q = log_probabilities(torch.randn(7, 9, dtype=torch.float64))
    labels = torch.arange(7)
    log_p = neighbor_log_probs(
        torch.tensor([[0.0, 1.0]]).double().expand(7, -1), torch.stack([labels, labels], 1), 9
    )
    loss = decoupled_kl(log_p, log_q, labels)
    assert torch.allclose(loss, -log_q[torch.arange(7), labels], atol=1e-12)


@pytest.mark.parametrize("hits", [0, 1, 2])
def test_what_got_no_vote_teaches_nothing(hits: int) -> None:
    """With the label among the neighbours' tokens, all of them, or not: finite, and the gradient of 6.2."""
    z = torch.randn(1, 6, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0])
    log_p = neighbor_log_probs(
        torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[[1, 3], [0, 3], [0, 0]][hits]]), 6
    )
    loss = decoupled_kl(log_p, log_probabilities(z), label, gold=1.0, others=0.7)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    q, p = z.detach().softmax(-1)[0], log_p.exp()[0]
    rest = q[1:] / q[1:].sum()
    expected = torch.cat([(q[:1] - p[:1]), -(q[0] - p[0]) * rest])
    if hits < 2:
        expected[1:] += 0.7 * (rest - p[1:] / p[1:].sum())
    assert torch.allclose(gradient[0], expected, atol=1e-12)


def test_in_blocks_votes_teach_what_they_do_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, rules, rows = torch.Generator().manual_seed(0), Neighbours(count=3), 12
    how = Nearest(VOCAB, rules)
    near = torch.rand(rows, 3, generator=draw), torch.randint(0, VOCAB, (rows, 3), generator=draw)
    kept, labels = how.rows(how.pack(*near)), torch.randint(0, VOCAB, (rows,), generator=draw)
    features, found = torch.randn(rows, 8, generator=draw), []

    def per_token(logits: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        return decoupled_kl(how.log_probabilities(kept, 1.0), log_probabilities(logits), labels)

    for _ in range(2):
        head = torch.ones(VOCAB, 8).cumsum(0).div(VOCAB).requires_grad_()
        loss = mean_loss(per_token, features, head, labels, kept)
        found.append((loss.detach(), *torch.autograd.grad(loss, head)))
        monkeypatch.setattr("sweeps.model.chunked_loss.MAX_FULL_LOGITS", 1)
        monkeypatch.setattr("sweeps.model.chunked_loss.FP32_LOGITS_PER_CHUNK", 5 * VOCAB)
    for one, other in zip(*found, strict=True):
        assert one.isfinite().all()
        assert torch.allclose(one, other, atol=1e-5)


def steps_of(small_spec: dict[str, Any], *methods: Any, **more: Any) -> Dag:
    return dag_of(parse_sweep(small_spec | {"supervised": [], "methods": list(methods)} | more))


def test_students_of_a_datastore_wait_for_one_search(small_spec: dict[str, Any]) -> None:
    dag = steps_of(small_spec, DNKD, {**DNKD, "cross_entropy": 0.2})
    caches, runs = ([s for s in dag.steps if s.kind == kind] for kind in ("cache", "distil"))
    assert (len(caches), len(runs)) == (2, 8)  # one a teacher, for two lengths and two weights
    for step in runs:
        assert step.logits in caches
        assert Step.from_json(json.loads(json.dumps(step.as_json()))) == step
        assert step.flops_to_spend == pytest.approx(3 * step.shape.forward_flops * step.tokens)
        assert step.logits is not None
        teacher = step.logits.shape
        search = (teacher.forward_flops + 2 * 4096 * teacher.width) * step.logits.tokens
        assert step.logits.flops_to_spend == pytest.approx(search + teacher.forward_flops * 4096)
        assert step.flops_by_part()["teacher_reading"] == pytest.approx(
            (teacher.forward_flops + 2 * 4096 * teacher.width) * step.tokens + teacher.forward_flops * 4096
        )


def test_a_sweep_trains_on_votes(small_spec: dict[str, Any], tmp_path: Path, own_cache: Path) -> None:
    students = [{"params": ["3k"], "tokens": ["32k"]}]
    dag = steps_of(small_spec, DNKD, students=students, teachers=[{"params": ["7k"], "tokens": ["32k"]}])
    store = Store(tmp_path / "store")
    store.create()
    assert not run(dag, store, InlineExecutor(store), lambda _: 1.0, lambda _: None).failed
    *_, student = dag.steps
    result = store.result(student.id)
    assert result is not None
    assert result["loss"] < 0.6 * np.log(300)
    assert result["yardsticks"]["forward_kl"] > 0
    corpus = planned_tokens(student.corpus, student.corpus_fingerprint)
    target = target_of(store, student, corpus, Models(store, student))
    assert target is not None
    blocks = Batches(corpus.train, context=32, batch=4, seed=0)
    log_p = target.log_probabilities(target.rows(blocks[0][:, :-1], blocks.numbers(0)), 1.0)
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(len(log_p)), atol=1e-5)
    said = log_p.gather(1, blocks[0][:, 1:].reshape(-1, 1)).exp().mean()
    assert said > 0.1  # far more than the 1/300 of a guess: neighbours know what comes next


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"neighbours": {}}, "neighbours: few tokens get a vote, and forward-kl asks for all"),
        (
            {"use": "dnkd", "logits": "cached"},
            "neighbours are written down as they are; remove logits: cached",
        ),
        ({"use": "dnkd", "temperature": 2}, "votes have their own, neighbours.temperature"),
        ({"use": "dnkd", "source": {"by": "student"}, "cross_entropy": 0}, "set source.by: data"),
        (
            {"use": "dnkd", "neighbours": {"keys": 31}},
            "31 tokens are 0 in whole blocks of 32, too few for 16",
        ),
        ({"use": "dnkd", "neighbours": {"count": 64, "keys": 70}}, "are 64 in whole blocks of 32"),
        (
            {"use": "dnkd", "neighbours": {"count": 0}},
            "neighbours.count: input should be greater than or equal",
        ),
    ],
)
def test_what_votes_cannot_be_is_refused(small_spec: dict[str, Any], given: Any, reason: str) -> None:
    with pytest.raises(InputError) as found:
        parse_sweep(small_spec | {"methods": [given]})
    assert reason in str(found.value)


def test_killed_and_resumed_it_ends_in_the_same_bits(teacher: Decoder, data: Batches, tmp_path: Path) -> None:
    rules = Neighbours(count=4, keys=16 * CONTEXT)
    store, how, at = Store(tmp_path), Nearest(VOCAB, rules), Datastore.of(teacher, data, rules)

    def target() -> Cached:
        cache = ShardCache(store, "cache", how, CONTEXT, data.seen(20))
        return Cached(how, cache.ready(lambda some: retrieved(teacher, at, data, some, how)))

    class Killed(Cached):
        def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
            if torch.equal(numbers, data.numbers(12)):
                raise KeyboardInterrupt
            return super().rows(inputs, numbers)

    rates = Training(batch_tokens=4 * CONTEXT, warmup_tokens=320)
    recipe = RunRecipe(shape=teacher.shape, steps=20, training=rates, seed=1, method=Method(use="dnkd"))
    whole, found = train(recipe, data.tokens, data_seed=0, target=target()), target()
    checkpoints = Checkpoints(store, "run")
    given = {"data_seed": 0, "checkpoints": checkpoints}
    with pytest.raises(KeyboardInterrupt):
        dying = Killed(found.kept, found.logits)
        train(recipe, data.tokens, target=dying, checkpoint_seconds=0, **given)
    assert (checkpoints.latest() or (0,))[0] == 12
    shard = next((tmp_path / "cache" / "logits").iterdir())
    shard.write_bytes(shard.read_bytes()[:-5])
    again = train(recipe, data.tokens, target=target(), **given)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_too_little_text_for_the_neighbours_is_said(teacher: Decoder) -> None:
    data = Batches(np.zeros(2 * CONTEXT + 1, dtype=np.int64), context=CONTEXT, batch=1, seed=0)
    with pytest.raises(InputError, match="32 neighbours are asked of a datastore of 32 tokens"):
        Datastore.of(teacher, data, Neighbours(count=32))


def test_its_name_says_how_it_differs() -> None:
    assert Method.model_validate(DNKD).name == "dnkd count=4 keys=4096"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_votes_of_others_keep_a_student_from_learning_its_text_by_heart(seed: int, tmp_path: Path) -> None:
    """A thousand tokens read forty times: far less is lost on new text, and less without the token itself."""
    vocab, size = 20, 1024
    draw = np.random.default_rng(seed)
    table = draw.dirichlet(np.full(vocab, 0.15), size=(vocab, vocab))
    tokens = [0, 1]
    for _ in range(size + 6000):
        tokens.append(int(draw.choice(vocab, p=table[tokens[-2], tokens[-1]])))
    seen, new = np.array(tokens[: size + 1], dtype=np.uint16), np.array(tokens[size:], dtype=np.uint16)
    rules = Training(batch_tokens=4 * CONTEXT, warmup_tokens=1280)
    shape = shape_for(13e3, vocab=vocab, context=CONTEXT, aspect_ratio=32)
    like = train(RunRecipe(shape=shape, steps=200, training=rules, seed=7), seen, data_seed=1)
    data, store = Batches(seen, context=CONTEXT, batch=4, seed=1), Store(tmp_path)

    def loss(method: Method | None = None) -> float:
        recipe, target = RunRecipe(shape=shape, steps=600, training=rules, seed=0, method=method), None
        if method is not None and method.neighbours is not None:
            how, at = Nearest(vocab, method.neighbours), Datastore.of(like, data, method.neighbours)
            cache = ShardCache(store, f"{method.neighbours.itself}", how, CONTEXT, data.seen(600))
            target = Cached(how, cache.ready(lambda some: retrieved(like, at, data, some, how)))
        model = train(recipe, seen, data_seed=1, target=target)
        return heldout_loss(model, new, context=CONTEXT, parts=[len(new)]).loss

    alone = loss()
    others, itself = (
        loss(Method.model_validate({"use": "dnkd", "neighbours": {"keys": size, "itself": own}}))
        for own in (False, True)
    )
    assert others < itself < alone - 0.5
