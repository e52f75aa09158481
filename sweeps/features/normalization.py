"""Invertible affine normalizations of features, and the last layer of a head with one folded in.

Every normalization is y' = W (y - mean), and y = inverse y' + mean: a student that estimates y' estimates y.
With covariance Sigma = U diag(lambda) U^T of C channels, phi^2 = tr Sigma / C, and R a balancing rotation
(:mod:`sweeps.features.rotation`), as in Ranzinger et al. 2024 (arXiv 2410.01680), section 3:

=============  =======================================  ====================
mode           W                                        needs
=============  =======================================  ====================
none           I, with mean 0                           two positions
global         1 / sigma, mean and sigma over channels  some variance
scalar         1 / phi                                  some variance
standardize    diag(1 / sigma_c)                        variance in each channel
pca-w          diag(lambda)^-1/2 U^T                    full rank
zca            U diag(lambda)^-1/2 U^T                  full rank
hca            R diag(lambda)^-1/2 U^T                  full rank
phi-s          R U^T / phi                              some variance
=============  =======================================  ====================

``scalar`` is phi-s without its rotation: with a squared error and plain SGD both train the same student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from scaling.errors import InputError
from sweeps.features.moments import FeatureMoments
from sweeps.features.rotation import balancing_rotation
from sweeps.features.spectrum import Spectrum, constant_variance, floored

Mode = Literal["none", "global", "scalar", "standardize", "pca-w", "zca", "hca", "phi-s"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Normalization:
    """Affine map from a teacher's features to targets of a student, with its inverse."""

    mode: Mode
    mean: Tensor
    """``(C,)``, float64."""
    weight: Tensor
    """W, ``(C, C)``, float64."""
    inverse: Tensor
    """W^-1, ``(C, C)``, float64."""
    scale: Tensor
    """phi, the root of the mean variance of a channel; with phi-s and scalar, the factor of every error."""
    floored: Tensor
    """Variances that were raised to the floor, a scalar."""

    def normalize(self, features: Tensor) -> Tensor:
        """Return W (y - mean) of features ``(..., C)``, in float64 where they are, else in float32."""
        features = features.to(_precision(features))
        return (features - self.mean.to(features)) @ self.weight.to(features).T

    def denormalize(self, targets: Tensor) -> Tensor:
        """Return the features that normalize to ``targets`` ``(..., C)``."""
        targets = targets.to(_precision(targets))
        return targets @ self.inverse.to(targets).T + self.mean.to(targets)

    def folded(self, linear: nn.Linear) -> nn.Linear:
        """Return the layer that predicts features where ``linear`` predicts normalized ones."""
        return fold_affine(linear, self.inverse, self.mean)

    def change_from(self, earlier: Normalization) -> float:
        """Return the root mean square entry of inverse @ earlier.weight - I, times sqrt(C): 0 if equal."""
        product = self.inverse @ earlier.weight
        difference = product - torch.eye(len(self.mean)).to(product)
        return float(difference.norm() / len(self.mean) ** 0.5)

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all tensors by name, contiguous, as safetensors asks."""
        tensors = {
            name: getattr(self, name).clone(memory_format=torch.contiguous_format) for name in _TENSORS
        }
        return {"mode": torch.tensor(MODES.index(self.mode)), **tensors}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Normalization:
        """Return the normalization with this :meth:`state_dict`.

        Raises:
            InputError: if a tensor is missing, or statistics were converted to another type than float64.
        """
        for name in ("mode", *_TENSORS):
            if name not in state:
                raise InputError(f"normalization: no tensor {name!r}; found {', '.join(state) or 'none'}")
            if name in ("mean", "weight", "inverse") and state[name].dtype != torch.float64:
                raise InputError(f"normalization: {name} is kept in float64, not {state[name].dtype}")
        return cls(MODES[int(state["mode"])], *(state[name] for name in _TENSORS))


_TENSORS = ("mean", "weight", "inverse", "scale", "floored")


def fit_normalization(moments: FeatureMoments, mode: Mode, floor: float | None = None) -> Normalization:
    """Return the normalization of features with these moments.

    Args:
        moments: Of the positions that the loss will count.
        mode: One of :data:`MODES`.
        floor: Share of the largest variance to which smaller ones are raised, of channels for standardize, of
            principal components for whitening. None raises none, and refuses features that would need it.

    Raises:
        InputError: if fewer than two positions were counted, or their variance is too little for ``mode``.
    """
    if mode not in MODES:
        raise InputError(f"normalization: {mode!r} is none of {', '.join(MODES)}")
    if floor is not None and not 0 < floor < 1:
        raise InputError(f"floor: {floor:g} is not between 0 and 1; 1e-6 is a common choice")
    phi = moments.covariance().diagonal().mean().sqrt()
    if mode == "none":
        return _isotropic(mode, torch.zeros_like(moments.mean), phi, 1.0)
    if mode == "global":
        return _global(moments, phi)
    _require_variance(mode, phi**2, moments)
    if mode == "scalar":
        return _isotropic(mode, moments.mean, phi, phi)
    if mode == "standardize":
        return _standardize(moments, phi, floor)
    return _rotated(moments, mode, phi, floor)


def fold_affine(linear: nn.Linear, matrix: Tensor, offset: Tensor) -> nn.Linear:
    """Return a linear layer with a bias that computes ``matrix @ linear(x) + offset``, in one precision.

    Args:
        linear: With C outputs.
        matrix: ``(C', C)``.
        offset: ``(C',)``.
    """
    weight, bias = linear.weight.detach(), linear.bias
    old = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    matrix, offset = matrix.to(weight.device, torch.float64), offset.to(weight.device, torch.float64)
    made = nn.Linear(linear.in_features, len(matrix), device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        made.weight.copy_(matrix @ weight.double())
        assert made.bias is not None
        made.bias.copy_(matrix @ old.double() + offset)
    return made.train(linear.training)


def _precision(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _require_variance(mode: Mode, variance: Tensor, moments: FeatureMoments) -> None:
    if variance <= constant_variance(moments):
        raise InputError(f"{mode}: all counted features are constant; there is nothing to scale, use none")


def _isotropic(mode: Mode, mean: Tensor, phi: Tensor, scale: Tensor | float) -> Normalization:
    """Return (y - mean) / scale."""
    identity = torch.eye(len(mean)).to(mean)
    return Normalization(mode, mean, identity / scale, identity * scale, phi, _none_floored(mean))


def _global(moments: FeatureMoments, phi: Tensor) -> Normalization:
    """Return the map with one mean and one standard deviation over all positions and channels."""
    center = moments.mean.mean()
    squares = moments.scatter.diagonal().sum() + moments.count * (moments.mean - center).square().sum()
    variance = squares / (moments.count * moments.width - 1)
    _require_variance("global", variance, moments)
    return _isotropic("global", center.expand(moments.width).clone(), phi, variance.sqrt())


def _standardize(moments: FeatureMoments, phi: Tensor, floor: float | None) -> Normalization:
    variances, raised = floored(moments, moments.covariance().diagonal(), "standardize", floor)
    sigma = variances.sqrt()
    return Normalization("standardize", moments.mean, torch.diag(1 / sigma), torch.diag(sigma), phi, raised)


def _rotated(moments: FeatureMoments, mode: Mode, phi: Tensor, floor: float | None) -> Normalization:
    """Return one of the maps that begin with the rotation to principal components."""
    spectrum = Spectrum.of(moments.covariance())
    basis, values, raised = spectrum.basis, spectrum.values, _none_floored(phi)
    if mode == "phi-s":
        values_after = torch.ones_like(values) * phi**2
    else:
        values, raised = floored(moments, values, mode, floor)
        values_after = values
    rotation = _rotation_after(mode, basis, values)
    weight = rotation @ (basis / values_after.sqrt()).T
    inverse = (basis * values_after.sqrt()) @ rotation.T
    return Normalization(mode, moments.mean, weight, inverse, phi, raised)


def _rotation_after(mode: Mode, basis: Tensor, values: Tensor) -> Tensor:
    """Return the orthogonal matrix that follows the scaled principal components."""
    if mode == "pca-w":
        return torch.eye(len(values)).to(values)
    return basis if mode == "zca" else balancing_rotation(values)


def _none_floored(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.int64, device=like.device)
