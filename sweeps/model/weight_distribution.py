"""Distribution of the weights of a model's matrices: overlap J with a Gaussian, transport to a target.

A target holds the values that the weights of one matrix should have, ascending and of unit second moment;
they are scaled to the matrix's own root mean square. Source: Zhong et al. 2022, arXiv 2206.08933 (DisCo-SGD);
a transformer is beyond its theory. Embeddings, gains and biases are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from scaling.perceptron.distributions import sample_overlap, unit_second_moment
from sweeps.model.decoder import Decoder

IN_A_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)\.weight$")
"""Name of a weight in a layer of our models, and of most of transformers'."""

Place = tuple[int, str]
"""Layer from 0, and role: the name of a matrix within its layer, such as ``mlp.up_proj``."""
Matrices = dict[Place, Tensor]


def layer_matrices(weights: Mapping[str, Tensor]) -> Matrices:
    """Return the matrices of the layers among named weights, in their order."""
    found: Matrices = {}
    for name, weight in weights.items():
        if weight.ndim == 2 and (place := IN_A_LAYER.search(name)):
            found[int(place[1]), place[2]] = weight
    return found


def matrices_of_shape(shape: ModelShape) -> Matrices:
    """Return the matrices of the layers of our model of a shape, on the meta device."""
    with torch.device("meta"):
        return layer_matrices(dict(Decoder(shape).named_parameters()))


def check_untied(model: nn.Module, moved: Matrices) -> None:
    """Check that each matrix to be moved belongs to one place.

    Raises:
        InputError: If another parameter shares its memory.
    """
    owners: dict[int, str] = {}
    ours = {weight.data_ptr() for weight in moved.values()}
    for name, weight in model.named_parameters(remove_duplicate=False):
        if (place := weight.data_ptr()) in ours and place in owners:
            raise InputError(
                f"hooks: {owners[place]} and {name} are tied, and one matrix cannot follow two targets; "
                "leave it out of matrices"
            )
        owners[place] = name


def check_whole(weight: Tensor, name: str) -> None:
    """Check that a matrix can be sorted here.

    Raises:
        InputError: If it is sharded over processes, or not in float32, where distinct weights would tie.
    """
    if hasattr(weight, "full_tensor"):
        raise InputError(
            f"hooks: {name} is sharded over processes, and ranks of its weights need all of it; train this "
            "method without sharding"
        )
    if weight.dtype != torch.float32:
        raise InputError(
            f"hooks: {name} is in {str(weight.dtype).removeprefix('torch.')}, in which many weights are "
            "equal and have no order; keep parameters in float32"
        )


def resampled(weights: Tensor | NDArray[np.floating], count: int) -> Tensor:
    """Return ``count`` quantiles of some weights as a target: at midranks, interpolated between theirs.

    As many quantiles as there are weights are these themselves, scaled to unit second moment.

    Raises:
        InputError: If the weights are all zero, or not finite.
    """
    values = weights.detach().double().cpu().numpy() if isinstance(weights, Tensor) else weights
    ascending = np.sort(np.ravel(np.asarray(values, dtype=np.float64)))
    if not np.isfinite(ascending).all():
        raise InputError("weights that are not finite have no distribution")
    theirs = (np.arange(ascending.size) + 0.5) / ascending.size
    wanted = (np.arange(count) + 0.5) / count
    return as_target(unit_second_moment(np.interp(wanted, theirs, ascending)))


def as_target(quantiles: NDArray[np.float64]) -> Tensor:
    """Return ascending quantiles of unit second moment as a target, in float32."""
    return torch.from_numpy(quantiles).float()


@torch.no_grad()
def transport(weight: Tensor, target: Tensor, eta: float) -> None:
    """Move a matrix by a fraction of its optimal transport to a target, in place.

    w <- w + eta (rms(w) target[rank(w)] - w): with the scale held, the distance W_2 to the target falls to
    1 - eta of what it was. Equal weights keep the order of their index, on every device.

    Args:
        weight: Matrix of n weights.
        target: (n,), ascending, of unit second moment.
        eta: Fraction from 0 to 1; 0 changes no bit, 1 gives the target's values.
    """
    if eta == 0:
        return
    flat = weight.view(-1)
    projected = torch.empty_like(flat)
    projected[flat.argsort(stable=True)] = target * root_mean_square(flat)
    flat.lerp_(projected, eta)


def distance(weight: Tensor, target: Tensor) -> float:
    """Return W_2 between a matrix of unit root mean square and its target; 0 if the matrix is all zero."""
    flat = weight.detach().view(-1)
    scale = root_mean_square(flat)
    return float((flat.sort().values / scale - target).square().mean().sqrt()) if scale > 0 else 0.0


def root_mean_square(flat: Tensor) -> Tensor:
    """Return the root mean square of some weights, summed in float64."""
    return flat.double().square().mean().sqrt().to(flat.dtype)


def overlaps(weights: Mapping[str, Tensor]) -> dict[Place, float]:
    """Return J of each matrix of a model's layers: 1 if its weights are Gaussian, less for anything else.

    Args:
        weights: By name, as in a state dict or a safetensors file.

    Raises:
        InputError: If a matrix is all zero or not finite.

    >>> torch.manual_seed(0) and None
    >>> found = overlaps({"layers.0.mlp.up_proj.weight": torch.randn(64, 64), "norm.weight": torch.ones(64)})
    >>> {place: round(J, 2) for place, J in found.items()}
    {(0, 'mlp.up_proj'): 1.0}
    """
    return {
        place: sample_overlap(weight.detach().double().cpu().numpy())
        for place, weight in layer_matrices(weights).items()
    }
