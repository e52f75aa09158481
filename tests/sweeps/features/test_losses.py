"""Losses by formula, fraction of variance unexplained, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from synthetic_features import synthetic
from torch import Tensor, nn

from scaling.errors import InputError
from sweeps.features import (
    FEATURE_LOSSES,
    FeatureHead,
    FeatureLoss,
    UnexplainedVariance,
    combined_loss,
    fvu_summary,
)

X, Y = synthetic(8, 20, 1), synthetic(8, 20, 2)


def by_formula(name: str) -> Any:
    x, y = X.numpy(), Y.numpy()
    error = np.abs(x - y)
    cosine = 1 - (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    squared = (error**2).mean(1)
    smooth = np.where(error < 0.5, error**2, error - 0.25).mean(1)  # beta 0.5
    return {
        "mse": squared,
        "smooth-l1": smooth,
        "cosine": cosine,
        "hybrid-mse": 0.7 * cosine + 0.3 * squared,
        "hybrid-smooth-l1": 0.7 * cosine + 0.3 * smooth,
    }[name]


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_losses_are_their_formulas_and_zero_at_the_target(name: Any) -> None:
    loss = FeatureLoss(name, beta=0.5, cosine_share=0.7)
    assert np.allclose(loss(X, Y).numpy(), by_formula(name), rtol=1e-12)
    assert loss(X, X).abs().max() < 1e-12
    assert loss(X.bfloat16(), Y.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_gradients_are_right(name: Any) -> None:
    prediction = X[:3].clone().requires_grad_()
    torch.autograd.gradcheck(lambda x: FeatureLoss(name)(x, Y[:3]), (prediction,))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "l3"}, "'l3' is none of mse"),
        ({"beta": 0}, "beta: 0"),
        ({"cosine_share": 1.5}, "not from 0 to 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        FeatureLoss(**options)


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match=r"predicted shape \(20, 8\), target \(20, 4\)"):
        FeatureLoss()(X, Y[:, :4])


def test_teachers_are_added_with_their_weights_over_counted_positions() -> None:
    losses, mask = (
        [torch.tensor([1.0, 2.0, 6.0]), torch.tensor([10.0, 20.0, 60.0])],
        torch.tensor([True, True, False]),
    )
    assert float(combined_loss(losses)) == 33.0
    assert float(combined_loss(losses, [1.0, 0.1], mask)) == pytest.approx(3.0)
    with pytest.raises(InputError, match="1 for 2 teachers"):
        combined_loss(losses, [1.0])
    with pytest.raises(InputError, match="no position counts"):
        combined_loss(losses, mask=torch.zeros(3, dtype=torch.bool))


@pytest.mark.parametrize("scale", [1.0, 191.0])
def test_fvu_is_one_minus_r_squared_whatever_the_scale(scale: float) -> None:
    fvu = UnexplainedVariance.of(scale * X, scale * Y).fvu()
    residual, total = float((X - Y).square().sum()), float((Y - Y.mean(0)).square().sum())
    assert fvu == pytest.approx(residual / total, rel=1e-12)
    assert UnexplainedVariance.of(Y.mean(0).expand_as(Y), Y).fvu() == pytest.approx(1.0, rel=1e-12)


def test_fvu_of_chunks_is_that_of_all_counted_positions() -> None:
    mask = torch.arange(20) % 3 > 0
    merged = UnexplainedVariance.of(X[:0], Y[:0])
    for rows in torch.arange(20).split([0, 1, 7, 12]):
        merged = merged.merged(UnexplainedVariance.of(X[rows], Y[rows], mask[rows]))
    assert merged.fvu() == pytest.approx(UnexplainedVariance.of(X[mask], Y[mask]).fvu(), rel=1e-12)


@pytest.mark.parametrize("features", [Y[:1], Y[:1].expand(4, 8), Y[:0]])
def test_fvu_needs_variance(features: Tensor) -> None:
    with pytest.raises(InputError, match="counted positions do not vary"):
        UnexplainedVariance.of(features, features).fvu()


def test_a_summary_has_mean_worst_and_balance() -> None:
    assert fvu_summary({"a": 0.1, "b": 0.4, "c": 0.4}) == pytest.approx(
        {"mean": 0.3, "worst": 0.4, "balance": 4}
    )
    assert fvu_summary({"a": 0.0, "b": 0.0})["balance"] == 1.0
    assert fvu_summary({"a": 0.0, "b": 0.1})["balance"] == float("inf")
    with pytest.raises(InputError, match="no teacher"):
        fvu_summary({})


def test_a_head_is_a_linear_layer_or_a_residual_network() -> None:
    linear, deep = FeatureHead(8, 12), FeatureHead(8, 12, hidden=16, blocks=2)
    assert [tuple(each.shape) for each in linear.parameters()] == [(12, 8), (12,)]
    assert sum(isinstance(each, nn.Linear) for each in deep.modules()) == 4
    assert deep(torch.randn(2, 3, 8)).shape == (2, 3, 12)
    assert not deep.last.bias.any()
