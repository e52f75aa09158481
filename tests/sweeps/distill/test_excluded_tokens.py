"""Teachers that give some tokens no probability at all (logits of -inf), however they are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from named_divergences import DIVERGENCES, distillation
from torch import Tensor, nn
from torch.nn import functional as F

from scaling.errors import InputError
from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches
from sweeps.distill.caches.logit_format import Full, TopK
from sweeps.distill.caches.shard_cache import Recorded, ShardCache
from sweeps.distill.delta import shifted
from sweeps.distill.generation.on_policy import batch_source
from sweeps.distill.generation.sampling import uniform_numbers, write
from sweeps.distill.loss import batch_loss
from sweeps.distill.metrics import measure_divergences
from sweeps.distill.targets import Cached, Online
from sweeps.distill.teacher import distributions
from sweeps.model import chunked_loss
from sweeps.model.compiling.aot import CompiledLibrary
from sweeps.model.decoder import Decoder
from sweeps.model.distributed import World
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_options import Taid
from sweeps.spec.method.run_views import RunSetting, TargetReader
from sweeps.spec.spec import Training
from sweeps.store.store import Store
from sweeps.train.loop import train
from sweeps.train.recipe import RunRecipe

V, CONTEXT, BATCH = 60, 16, 4
TOKENS = (np.arange(4_000) ** 2 % 53).astype(np.uint16)
DATA = Batches(TOKENS, context=CONTEXT, batch=BATCH, seed=0)
SHAPE = shape_for(3e3, vocab=V, context=CONTEXT, aspect_ratio=32)
RULES = Training(batch_tokens=CONTEXT * BATCH, warmup_tokens=640)
FOLLOWABLE = sorted(name for name, each in DIVERGENCES.items() if not each.needs_every_token)
IMPOSSIBLE = -1e4
"""A logit whose probability is zero in float32, and which is a finite number."""


class Body(nn.Module):
    """Features with a one after them, for the projection's bias."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model.model

    def forward(self, tokens: Tensor, past: object = None) -> Tensor:
        features = self.model(tokens) if past is None else self.model(tokens, past)
        return F.pad(features, (0, 1), value=1.0)

    def empty_cache(self) -> object:
        return self.model.empty_cache()


class Teacher(nn.Module):
    """A decoder with a bias on the logits of tokens that the text does not have."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        decoder = Decoder(shape_for(7e3, vocab=V, context=CONTEXT, aspect_ratio=32))
        decoder.initialize(1)
        biases = torch.zeros(V, 1)
        biases[53:] = bias
        self.model = Body(decoder)
        self.head = torch.cat((decoder.head.detach(), biases), 1)
        self.requires_grad_(False)


def student() -> Decoder:
    model = Decoder(SHAPE)
    model.initialize(0)
    return model


def online(bias: float) -> TargetReader:
    return Online(Teacher(bias))


def at_once(bias: float) -> TargetReader:
    return Online(Teacher(bias), returns_log_probs=True)


def kept(how: Recorded) -> Callable[[float], TargetReader]:
    def target(bias: float) -> TargetReader:
        numbers = np.unique(DATA.numbers(0).numpy())
        cache = ShardCache(Store("memory://excluded"), f"{bias} {how}", how, CONTEXT, numbers)
        logits = cache.ready(lambda some: distributions(online(bias), DATA, some, how))  # type: ignore[arg-type]
        return Cached(how, logits)  # type: ignore[arg-type]

    return target


TARGETS = {"online": online, "at once": at_once, "cached": kept(Full(V)), "top": kept(TopK(V, 55))}


def loss_and_gradient(method: Method, target: TargetReader, compiled: bool = False) -> tuple[Tensor, Tensor]:
    model, blocks = student(), DATA[0]
    rows = target.rows(blocks[:, :-1], DATA.numbers(0))
    training = RULES.model_copy(update={"compile": compiled})
    loss = batch_loss(model, blocks, training, method, target, rows)
    loss.backward()
    return loss.detach(), torch.cat(
        [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    )


@pytest.mark.parametrize("divergence", FOLLOWABLE)
@pytest.mark.parametrize("how", TARGETS)
def test_an_excluded_token_is_as_one_that_is_never_likely(
    divergence: str, how: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "top" and divergence == "decoupled-kl":
        pytest.skip("which is refused: the label may be in the tail")
    method = Method(divergence=divergence)  # type: ignore[arg-type]
    if how == "at once":  # and in blocks of rows
        monkeypatch.setattr(chunked_loss, "MAX_FULL_LOGITS", 1)
        monkeypatch.setattr(chunked_loss, "FP32_LOGITS_PER_CHUNK", 20 * V)
    compiled = how == "online" and divergence == "forward-kl"
    (loss, gradient), (expected, same) = (
        loss_and_gradient(method, TARGETS[how](bias), compiled) for bias in (-math.inf, IMPOSSIBLE)
    )
    assert loss.isfinite()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, same, rtol=1e-4, atol=1e-6)


def test_machine_code_agrees() -> None:
    """The values of all that can follow such a teacher, translated in one piece, are those of plain PyTorch."""
    pytest.importorskip("torch._inductor")
    labels = torch.tensor([3, 5, 7])

    def function(teacher: Tensor, logits: Tensor) -> tuple[Tensor]:
        log_p, log_q = log_probabilities(teacher), log_probabilities(logits)
        found = [distillation(name, log_p, log_q, labels) for name in FOLLOWABLE if name != "decoupled-kl"]
        return (torch.stack(found),)

    draw = torch.Generator().manual_seed(0)
    teacher, logits = torch.randn(2, 3, V, generator=draw).unbind(0)
    teacher[:, 53:] = -torch.inf
    (found,) = CompiledLibrary(function, "excluded tokens")(teacher, logits)
    assert found.isfinite().all()
    torch.testing.assert_close(found, function(teacher, logits)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["online", "at once", "cached"])
def test_reverse_kl_is_refused_in_a_sentence(how: str, own_cache: Path) -> None:
    recipe = RunRecipe(shape=SHAPE, steps=20, training=RULES, seed=0, method=Method(divergence="reverse-kl"))
    with pytest.raises(
        InputError, match=r"^divergence: reverse-kl is infinite .*choose one .*\(forward-kl, "
    ):
        train(recipe, TOKENS, data_seed=0, target=TARGETS[how](-math.inf))


@pytest.mark.parametrize(
    "method",
    [
        Method(),
        Method(taid=Taid(start=0.0, end=0.5)),
        Method(divergence="jensen-shannon", temperature=2.0, cross_entropy=0.3),
        Method(use="gkd", init=None),
        Method(use="distillm", init=None),
    ],
)
def test_students_of_it_learn(method: Method) -> None:
    recipe = RunRecipe(shape=SHAPE, steps=30, training=RULES, seed=0, method=method)
    model = train(recipe, TOKENS, data_seed=0, target=Online(Teacher(-math.inf)))
    found = measure_divergences(model, Teacher(-math.inf), TOKENS, CONTEXT)
    assert math.isfinite(found["forward_kl"])
    assert math.isinf(found["reverse_kl"])


def test_no_excluded_token_is_drawn() -> None:
    prompts = torch.from_numpy(TOKENS[:40].astype(np.int64)).view(10, 4)
    written = write([Teacher(-math.inf)], prompts, uniform_numbers(10, 12, 0))
    assert written.blocks.max() < 53
    assert written.drawn.isfinite().all()


def test_the_exact_midpoint_is_finite_where_only_one_can_have_written_the_text() -> None:
    """The teacher's share of the mixture is then one in float32, and the token excluded has none of it."""
    method = Method(use="f-distill-js", midpoint="exact", init=None)
    target, model = Online(Teacher(-math.inf)), student()
    source = batch_source(RunSetting(method=method, shape=SHAPE, seed=0, steps=10, world=World()))
    assert source is not None
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)  # sure, and wrong
    batch = source.batch(model, 0, DATA[0], target)
    loss = batch_loss(model, batch.blocks, RULES, method, target, batch.rows, None, batch.token_inputs)
    loss.backward()
    assert loss.isfinite()
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)


def test_a_shift_from_what_is_excluded_is_none() -> None:
    s_0, t_0, t_1 = (log_probabilities(torch.arange(4.0).roll(n)) for n in range(3))
    expected = shifted(s_0, t_0, t_1)
    excluded = torch.tensor([True, False, False, False])
    found = shifted(s_0, t_0.masked_fill(excluded, -torch.inf), t_1)
    assert found.isfinite().all()
    torch.testing.assert_close(found[1] - found[2], expected[1] - expected[2])
    found = shifted(s_0, t_0, t_1.masked_fill(excluded, -torch.inf))
    assert found[0] == -torch.inf
    assert found.exp().sum() == pytest.approx(1)
    torch.testing.assert_close(shifted(s_0, t_0, t_1.masked_fill(excluded, -torch.inf), strength=0.0), s_0)


@pytest.mark.parametrize("how", [Full(V), TopK(V, 55)])
def test_what_is_excluded_is_kept_as_that(how: Full | TopK) -> None:
    teacher = torch.randn(5, V, generator=torch.Generator().manual_seed(0))
    teacher[:, 40:] = -torch.inf
    log_p = log_probabilities(teacher)
    read = how.log_probabilities(how.rows(how.pack(log_p)), 1.0)
    assert read.isneginf().sum() == 5 * (20 if isinstance(how, Full) else 16)
    assert read.exp().sum(-1).numpy() == pytest.approx(1)
