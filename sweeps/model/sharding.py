"""Sharded models: PyTorch's FSDP2, one block at a time, for runs that do not fit whole on each device.

Matrices are DTensors, split by rows over the processes, and so are their moments and gradients. A block's are
gathered in the precision that it multiplies in when it computes, and its gradients are summed in float32, so
that numbers differ from those of whole models by the order of sums only. Gains, less than a thousandth of the
weights, are whole everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.distributed import World

NEEDS = "2.9"
"""Version of PyTorch from which gradients can be summed over any backend."""


def sharded_model(shape: ModelShape, precision: torch.dtype, world: World) -> Decoder:
    """Return a model whose matrices are sharded over ``world``, with any values: :func:`fill` sets them.

    It is made without storage, so that no process ever holds more than its part. Embedding and head are
    gathered once a pass, for as long as the loss needs them.

    Raises:
        InputError: if this PyTorch cannot.
    """
    with torch.device("meta"):
        model = Decoder(shape)
    model.precision = precision
    _shard(model, world)
    model.to_empty(device=device())
    model.model.compute_tables(shape)
    return model.to(device())


def _shard(model: Decoder, world: World) -> None:
    """Shard the matrices of ``model`` in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise InputError(
            f"training.shard: sharding needs PyTorch {NEEDS} or later, and this is {torch.__version__}; "
            "install it, or set training.shard: false"
        )
    mesh = init_device_mesh(device().type, (world.size,))
    gains = {weight for weight in model.parameters() if weight.ndim < 2}
    low = None if model.precision == torch.float32 else model.precision
    of_blocks = MixedPrecisionPolicy(low, torch.float32, cast_forward_inputs=False)
    of_embedding = MixedPrecisionPolicy(cast_forward_inputs=False)
    for block in model.model.layers:
        fully_shard(block, mesh=mesh, mp_policy=of_blocks, ignored_params=gains)
    fully_shard(model.model, mesh=mesh, mp_policy=of_embedding, ignored_params=gains)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # each process has its share of a mean, so gradients are summed
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def is_sharded(tensor: Tensor) -> bool:
    """Return True if this process holds a part of ``tensor`` only."""
    return hasattr(tensor, "full_tensor")  # a DTensor, whose module takes a second to import


def local(tensor: Any) -> Tensor:
    """Return the part of ``tensor`` that this process holds, without a copy."""
    found: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return found


def whole(tensor: Any) -> Tensor:
    """Return all of ``tensor`` in memory of the CPU; all processes must call it where it is sharded."""
    found: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return found.detach().cpu()


def evaluation_copy(model: Decoder, world: World) -> Decoder:
    """Return a sharded copy of a sharded model that computes in float32, uncompiled; all must call it."""
    copy = sharded_model(model.shape, torch.float32, world)
    fill(copy, ((name, weight.detach()) for name, weight in model.named_parameters()))
    return copy.eval().requires_grad_(False)


def fill(model: Decoder, values: Iterable[tuple[str, Tensor]]) -> None:
    """Set the weights of ``model`` to ``values``, one after the other, whole ones or parts."""
    missing = dict(model.named_parameters())
    for name, value in values:
        put(missing.pop(name), value)
    assert not missing, f"no values for {', '.join(missing)}"


@torch.no_grad()
def put(own: Any, given: Tensor) -> None:
    """Copy ``given`` into ``own``, of which this process may hold a part: all of it, or that part."""
    if is_sharded(own) and not is_sharded(given) and given.shape != own.to_local().shape:
        from torch.distributed.tensor import distribute_tensor

        on_device = given.to(own.device)
        given = distribute_tensor(on_device, own.device_mesh, own.placements, src_data_rank=None)
    local(own).copy_(local(given))
