"""Matrices of a model: their overlap J, their quantiles, and exact properties of transport in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from scaling.perceptron import distributions as d
from scaling.perceptron.transport import partial_step, project, target_weights, wasserstein
from sweeps.model import weight_distribution as module
from sweeps.model.decoder import Decoder
from sweeps.model.weight_distribution import (
    as_target,
    check_untied,
    check_whole,
    distance,
    layer_matrices,
    matrices_of_shape,
    overlaps,
    resampled,
    transport,
)

SHAPE = ModelShape(layers=2, width=16, ffn=32, heads=1, head_dim=16, kv_heads=1, vocab=300, context=16)
COUNT = 24 * 20


def matrix(seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(24, 20, generator=torch.Generator().manual_seed(seed)) + 0.1


@pytest.fixture(params=[d.laplace(), d.ternary(0.3), d.symmetric_lognormal(1.2)], ids=lambda q: q.name)
def target(request: pytest.FixtureRequest) -> Tensor:
    return as_target(target_weights(request.param, COUNT))


def test_the_whole_way_gives_the_targets_values_in_the_order_of_the_weights(target: Tensor) -> None:
    before, moved = matrix().view(-1), matrix()
    transport(moved, target, 1.0)
    assert torch.equal(moved.view(-1).sort().values, target * before.square().double().mean().sqrt().float())
    assert (moved.view(-1)[before.argsort()].diff() >= 0).all()
    assert distance(moved, target) < 1e-6
    again = moved.clone()
    transport(again, target, 1.0)
    torch.testing.assert_close(again, moved, rtol=1e-6, atol=0)


def test_no_step_changes_no_bit(target: Tensor) -> None:
    moved = matrix()
    transport(moved, target, 0.0)
    assert torch.equal(moved, matrix())


@pytest.mark.parametrize("eta", [0.05, 0.2, 0.7])
def test_a_partial_step_is_the_perceptrons(target: Tensor, eta: float) -> None:
    """The distance falls to 1 - eta of what it was, where the scale of the target is held."""
    before, moved = matrix().view(-1).double().numpy(), matrix()
    scale = np.sqrt(np.mean(before**2))
    goal = scale * target.double().numpy()
    transport(moved, target, eta)
    after = moved.view(-1).double().numpy()
    np.testing.assert_allclose(after, partial_step(before, project(before, goal), eta), atol=2e-7)
    assert wasserstein(after, goal) == pytest.approx((1 - eta) * wasserstein(before, goal), rel=1e-5)


def test_equal_weights_keep_the_order_of_their_index() -> None:
    moved = torch.ones(4, 5)
    transport(moved, torch.arange(20.0) / 10, 1.0)
    assert (moved.view(-1).diff() > 0).all()
    zero = torch.zeros(4, 5)
    transport(zero, torch.arange(20.0), 0.5)
    assert torch.equal(zero, torch.zeros(4, 5))
    assert distance(zero, torch.arange(20.0)) == 0


def test_quantiles_of_as_many_weights_are_the_weights() -> None:
    values = matrix().view(-1).sort().values.double()
    assert torch.equal(resampled(matrix(), COUNT), (values / values.square().mean().sqrt()).float())


@pytest.mark.parametrize("count", [100, 3000])
def test_quantiles_of_another_number_keep_shape_and_second_moment(count: int) -> None:
    weights = torch.from_numpy(2 * d.laplace().quantile((np.arange(1000) + 0.5) / 1000)).view(50, 20)
    found = resampled(weights, count)
    assert found.square().mean() == pytest.approx(1, abs=1e-6)
    assert d.sample_overlap(found) == pytest.approx(d.sample_overlap(weights), abs=4e-3)
    assert (found.diff() >= 0).all()


def test_only_matrices_of_layers_have_an_overlap() -> None:
    model = Decoder(SHAPE)
    model.initialize(0)
    found = overlaps(dict(model.named_parameters()))
    assert len(found) == 14
    assert list(found) == list(layer_matrices(model.state_dict())) == list(matrices_of_shape(SHAPE))
    assert found[1, "mlp.down_proj"] == pytest.approx(0.9975, abs=2e-3)  # 512 Gaussian weights
    foreign = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    assert overlaps(foreign) == found
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.up_proj.weight").sign_()
    coins = overlaps(dict(model.named_parameters()))[0, "mlp.up_proj"]
    assert coins == pytest.approx(np.sqrt(2 / np.pi), abs=0.01)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(4, 4, bias=False)}) for _ in range(2))
        self.layers[1]["up"].weight = self.layers[0]["up"].weight  # type: ignore[index]


def test_tied_sharded_and_rounded_matrices_are_refused() -> None:
    tied = Tied()
    with pytest.raises(InputError, match=r"layers\.0\.up\.weight and layers\.1\.up\.weight are tied"):
        check_untied(tied, layer_matrices(dict(tied.named_parameters())))
    decoder = Decoder(SHAPE)
    check_untied(decoder, layer_matrices(dict(decoder.named_parameters())))
    with pytest.raises(InputError, match="up_proj is in bfloat16, in which many weights are equal"):
        check_whole(torch.ones(2, 2, dtype=torch.bfloat16), "up_proj")
    sharded = torch.ones(2, 2)
    sharded.full_tensor = lambda: sharded  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="up_proj is sharded over processes"):
        check_whole(sharded, "up_proj")


@pytest.mark.parametrize(
    ("weights", "reason"),
    [(torch.zeros(3, 3), "all 0"), (torch.tensor([[1.0, torch.nan]]), "not finite")],
)
def test_weights_without_a_distribution_are_refused(weights: Tensor, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        resampled(weights, 5)
    with pytest.raises(InputError, match=r"all 0|all of them finite"):
        overlaps({"layers.0.up.weight": weights})


def test_examples() -> None:
    import doctest

    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed
