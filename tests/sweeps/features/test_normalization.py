"""Exact properties of the normalizations, with the tolerances that PHI-S has on the sample it was fitted to."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic_features import synthetic
from torch import Tensor, nn

from scaling.errors import InputError
from sweeps.features import (
    MODES,
    FeatureHead,
    FeatureLoss,
    FeatureMoments,
    Normalization,
    UnexplainedVariance,
    combined_loss,
    fit_normalization,
    fold_affine,
)

WHITENING = ("pca-w", "zca", "hca")
WIDTHS = (32, 30)
"""Widths with a Hadamard matrix and without one."""


def fitted(features: Tensor, mode: Any, floor: float | None = None) -> Normalization:
    return fit_normalization(FeatureMoments.of(features), mode, floor)


def identity(width: int) -> Tensor:
    return torch.eye(width, dtype=torch.float64)


def covariance_after(features: Tensor, mode: Any) -> Tensor:
    return fitted(features, mode).normalize(features).T.cov()


@pytest.mark.parametrize("width", WIDTHS)
def test_phi_s_gives_every_channel_unit_variance_by_a_scaled_rotation(width: int) -> None:
    """Property 1."""
    features = synthetic(width, 400)
    found = fitted(features, "phi-s")
    covariance = covariance_after(features, "phi-s")
    assert (covariance.diagonal() - 1).abs().max() < 1e-12
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() > 0.1  # it does not decorrelate
    gram = found.weight @ found.weight.T * found.scale**2
    assert (gram - identity(width)).abs().max() < 1e-12
    assert abs(float(torch.linalg.cond(found.weight)) - 1) < 1e-12


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("mode", MODES)
def test_every_map_is_inverted_and_folds_into_the_last_layer(mode: Any, width: int) -> None:
    """Property 2."""
    features = synthetic(width, 400)
    found = fitted(features, mode)
    assert (found.inverse @ found.weight - identity(width)).abs().max() < 1e-12
    assert (found.denormalize(found.normalize(features)) - features).abs().max() < 1e-12
    torch.manual_seed(0)
    head, inputs = FeatureHead(8, width, hidden=16).double(), torch.randn(50, 8, dtype=torch.float64)
    folded = head.folded(found)
    assert (folded(inputs) - found.denormalize(head(inputs))).abs().max() < 1e-12
    assert folded.last.weight.dtype == torch.float64


def test_folding_gives_a_layer_without_bias_one_and_keeps_its_precision() -> None:
    features = synthetic(8, 99)
    found, linear = fitted(features, "phi-s"), nn.Linear(4, 8, bias=False)
    folded, inputs = found.folded(linear), torch.randn(5, 4)
    assert folded.weight.dtype == torch.float32
    assert torch.allclose(folded(inputs), found.denormalize(linear(inputs)), atol=1e-5)


@pytest.mark.parametrize("mode", ["phi-s", "scalar"])
def test_errors_of_any_direction_have_one_scale(mode: Any) -> None:
    """Property 3: |inverse e| = phi |e|, so that the squared errors differ by phi^2."""
    features = synthetic(32, 400)
    found, errors = fitted(features, mode), torch.randn(100, 32, dtype=torch.float64)
    ratio = (errors @ found.inverse.T).norm(dim=1) / errors.norm(dim=1)
    assert (ratio / found.scale - 1).abs().max() < 1e-12
    mse, predicted = FeatureLoss("mse"), features.roll(1, 0)
    original = mse(predicted, features).mean()
    normalized = mse(found.normalize(predicted), found.normalize(features)).mean()
    assert abs(float(original / (found.scale**2 * normalized)) - 1) < 1e-12


@pytest.mark.parametrize("width", WIDTHS)
def test_hca_balances_single_channels_only(width: int) -> None:
    """Property 3: only errors of one channel have the norm phi, and directions differ in scale."""
    found = fitted(synthetic(width, 400), "hca")
    assert (found.inverse.norm(dim=0) / found.scale - 1).abs().max() < 1e-12
    assert float(torch.linalg.cond(found.inverse)) > 10


@pytest.mark.parametrize("mode", ["standardize", *WHITENING, "phi-s", "scalar"])
def test_the_root_mean_square_singular_value_is_phi(mode: Any) -> None:
    found = fitted(synthetic(32, 400), mode)
    rms = torch.linalg.svdvals(found.inverse).square().mean().sqrt()
    assert abs(float(rms / found.scale) - 1) < 1e-12


@pytest.mark.parametrize("mode", WHITENING)
def test_whitening_decorrelates(mode: Any) -> None:
    assert (covariance_after(synthetic(32, 400), mode) - identity(32)).abs().max() < 1e-9


def test_zca_is_the_inverse_root_of_the_covariance() -> None:
    found = fitted(features := synthetic(32, 400), "zca")
    assert torch.allclose(found.weight, found.weight.T, atol=1e-10)
    assert torch.allclose(found.inverse @ found.inverse, features.T.cov(), atol=1e-12)


def test_standardize_and_global_are_what_numpy_computes() -> None:
    features = synthetic(32, 400)
    per_channel = (features - features.mean(0)) / features.std(0)
    assert torch.allclose(fitted(features, "standardize").normalize(features), per_channel, atol=1e-11)
    overall = (features - features.mean()) / features.std()
    assert torch.allclose(fitted(features, "global").normalize(features), overall, atol=1e-11)
    assert torch.equal(fitted(features, "none").normalize(features), features)


def test_a_zero_student_scores_the_fraction_of_unexplained_variance() -> None:
    """Property 4: (n - 1) / n, and for every student MSE = FVU (n - 1) / n."""
    features, n = synthetic(32, 400), 400
    found, mse = fitted(features, "phi-s"), FeatureLoss("mse")
    targets = found.normalize(features)
    assert abs(float(mse(torch.zeros_like(targets), targets).mean()) - (n - 1) / n) < 1e-12
    guess = targets + torch.randn(n, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    fvu = UnexplainedVariance.of(found.denormalize(guess), features).fvu()
    assert float(mse(guess, targets).mean()) == pytest.approx(fvu * (n - 1) / n, rel=1e-12)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1e-6, 10.0, 100.0, 191.0])
def test_scale_and_offset_of_a_teacher_do_not_matter(scale: float, width: int) -> None:
    """Property 5."""
    features = synthetic(width, 400)
    moved = scale * features + scale * torch.arange(width, dtype=torch.float64)
    one, other = fitted(features, "phi-s"), fitted(moved, "phi-s")
    assert (one.normalize(features) - other.normalize(moved)).abs().max() < 1e-11
    assert float(other.scale / one.scale) == pytest.approx(scale, rel=1e-12)


def test_scaling_by_191_moves_targets_by_less_than_1e_12() -> None:
    features = synthetic(32, 400)
    one, other = fitted(features, "phi-s"), fitted(191 * features, "phi-s")
    assert (one.normalize(features) - other.normalize(191 * features)).abs().max() < 1e-12


def test_rotated_features_give_rotated_targets() -> None:
    """Property 5: Gram matrices are equal."""
    features = synthetic(32, 400)
    turned = features @ torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64)).Q.T
    one = fitted(features, "phi-s").normalize(features)
    other = fitted(turned, "phi-s").normalize(turned)
    assert (one @ one.T - other @ other.T).abs().max() < 1e-11


@pytest.mark.parametrize("width", WIDTHS)
def test_rank_three_is_enough_for_phi_s(width: int) -> None:
    """Property 6."""
    draw = torch.Generator().manual_seed(5)
    low = torch.randn(400, 3, generator=draw, dtype=torch.float64)
    features = low @ torch.randn(3, width, generator=draw, dtype=torch.float64)
    assert (covariance_after(features, "phi-s").diagonal() - 1).abs().max() < 1e-12
    found = fitted(features, "phi-s")
    assert (found.denormalize(found.normalize(features)) - features).abs().max() < 1e-12
    for mode in WHITENING:
        with pytest.raises(InputError, match=rf"{mode}: the covariance has rank 3 of {width} channels, and"):
            fitted(features, mode)


def test_one_live_channel_of_two_gives_the_factor_root_two() -> None:
    """Property 6: covariance diag(1, 0)."""
    moments = FeatureMoments(
        torch.tensor(3.0).double(), torch.zeros(2).double(), torch.diag(torch.tensor([2.0, 0.0]).double())
    )
    found = fit_normalization(moments, "phi-s")
    assert float(1 / found.scale) == pytest.approx(math.sqrt(2), rel=1e-15)


def test_a_floor_lets_whitening_of_low_rank_through_and_says_how_often() -> None:
    features = synthetic(32, 400)
    features[:, 5:] = features[:, :27] @ torch.ones(27, 27, dtype=torch.float64)
    found = fitted(features, "pca-w", floor=1e-6)
    assert int(found.floored) == 26
    assert found.weight.isfinite().all()
    assert (found.inverse @ found.weight - identity(32)).abs().max() < 1e-9


def test_fewer_positions_than_channels_cannot_be_whitened() -> None:
    with pytest.raises(InputError, match=r"rank 19 of 32 channels, .* count more positions, use phi-s"):
        fitted(synthetic(32, 20), "zca")


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e4])
def test_a_dead_channel_is_named_or_floored_and_no_matter_to_phi_s(constant: float) -> None:
    features = synthetic(32, 400)
    features[:, 7] = constant
    with pytest.raises(InputError, match="standardize: channel 7 of 32 never changed; use phi-s"):
        fitted(features, "standardize")
    found = fitted(features, "standardize", floor=1e-6)
    assert int(found.floored) == 1
    assert found.normalize(features)[:, 7].abs().max() < 1e-6
    assert (covariance_after(features, "phi-s").diagonal() - 1).abs().max() < 1e-12


@pytest.mark.parametrize("constant", [0.0, 0.1])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "none"])
def test_constant_features_are_refused(mode: Any, constant: float) -> None:
    features = torch.full((100, 4), constant, dtype=torch.float64)
    with pytest.raises(InputError, match=f"{mode}: all counted features are constant"):
        fitted(features, mode)


@pytest.mark.parametrize("mode", MODES)
def test_one_token_is_refused(mode: Any) -> None:
    with pytest.raises(InputError, match="one position counted; a variance needs two at least"):
        fitted(torch.ones(1, 4), mode)


@pytest.mark.parametrize(
    ("mode", "floor", "reason"),
    [
        ("pca", None, "'pca' is none of none, global"),
        ("zca", 0.0, "floor: 0 is not between"),
        ("zca", 1.0, "floor"),
    ],
)
def test_bad_options_are_refused(mode: str, floor: float | None, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fitted(synthetic(4, 20), mode, floor)


@pytest.mark.parametrize("mode", MODES)
def test_a_normalization_survives_a_safetensors_file(mode: Any, tmp_path: Path) -> None:
    found = fitted(synthetic(32, 400), mode)
    save_file(found.state_dict(), tmp_path / "normalization.safetensors")
    again = Normalization.from_state_dict(load_file(tmp_path / "normalization.safetensors"))
    assert again.mode == mode
    assert all(torch.equal(again.state_dict()[name], each) for name, each in found.state_dict().items())


def test_a_saved_normalization_of_low_precision_is_refused() -> None:
    state = fitted(synthetic(4, 20), "phi-s").state_dict()
    with pytest.raises(InputError, match=r"weight is kept in float64, not torch\.bfloat16"):
        Normalization.from_state_dict(state | {"weight": state["weight"].bfloat16()})
    with pytest.raises(InputError, match="no tensor 'inverse'"):
        Normalization.from_state_dict({k: v for k, v in state.items() if k != "inverse"})


def test_targets_of_sixteen_bits_are_computed_in_float32() -> None:
    features = synthetic(32, 400)
    found = fitted(features, "phi-s")
    targets = found.normalize(features.bfloat16())
    assert targets.dtype == torch.float32
    assert torch.allclose(targets, found.normalize(features.bfloat16().double()).float(), atol=1e-4)


def predictions_after_training(
    mode: Any, optimizer: Callable[..., torch.optim.Optimizer], steps: int = 200
) -> Tensor:
    """Return both teachers' features as a student with two heads predicts them, in units of phi.

    Scalar targets are the phi-s targets turned back, so its heads begin as those of phi-s, turned back.
    """
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, generator=draw, dtype=torch.float64)
    teachers = [torch.tanh(inputs @ synthetic(12, 6, seed)) * scale for seed, scale in ((1, 0.05), (2, 5.0))]
    wanted = [fitted(each, mode) for each in teachers]
    torch.manual_seed(1)
    trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh()).double()
    heads = nn.ModuleList(FeatureHead(8, 12, hidden=8, blocks=1) for _ in teachers).double()
    if mode == "scalar":
        for head, teacher, scalar in zip(heads, teachers, wanted, strict=True):
            turn = scalar.weight @ fitted(teacher, "phi-s").inverse
            head.last = fold_affine(head.last, turn, torch.zeros(12))  # type: ignore[arg-type]
    loss, step = FeatureLoss("mse"), optimizer([*trunk.parameters(), *heads.parameters()], lr=0.02)
    for _ in range(steps):
        step.zero_grad()
        predicted = [head(trunk(inputs)) for head in heads]
        losses = [loss(p, n.normalize(y)) for p, n, y in zip(predicted, wanted, teachers, strict=True)]
        combined_loss(losses, [1.0, 0.5]).backward()
        step.step()
    with torch.no_grad():
        return torch.stack(
            [n.denormalize(head(trunk(inputs))) / n.scale for head, n in zip(heads, wanted, strict=True)]
        )


def test_under_sgd_phi_s_is_scalar_weighting() -> None:
    """Property 7: with a squared error the rotation changes nothing."""
    phi_s, scalar = (predictions_after_training(mode, torch.optim.SGD) for mode in ("phi-s", "scalar"))
    start = predictions_after_training("phi-s", torch.optim.SGD, steps=0)
    assert (phi_s - scalar).abs().max() < 1e-12
    assert (phi_s - start).abs().max() > 0.1  # it learned


def test_under_adam_the_rotation_matters() -> None:
    phi_s, scalar = (predictions_after_training(mode, torch.optim.Adam) for mode in ("phi-s", "scalar"))
    assert (phi_s - scalar).abs().max() > 1e-3


def test_without_normalization_the_large_teacher_takes_all() -> None:
    """Scalar weighting by 1 / phi^2 is what normalization does to the loss."""
    features = [synthetic(12, 50, 1, 0.05), synthetic(12, 50, 2, 5.0)]
    zero, mse = torch.zeros(50, 12, dtype=torch.float64), FeatureLoss("mse")
    raw, balanced = (
        [float(mse(zero, fitted(each, mode).normalize(each)).mean()) for each in features]
        for mode in ("none", "scalar")
    )
    assert raw[1] / raw[0] > 1000
    assert balanced == pytest.approx([49 / 50, 49 / 50], rel=1e-12)
