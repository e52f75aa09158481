"""Sharded models: PyTorch's FSDP2, one block at a time, for runs that do not fit whole on each device.

Matrices are DTensors, split by rows over the processes, and so are their moments and gradients. A block's are
gathered in the precision that it multiplies in when it computes, and its gradients are summed in float32, so
that numbers differ from those of whole models by the order of sums only. Gains, less than a thousandth of the
weights, are whole everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.distributed import World

NEEDS = "2.9"
"""Version of PyTorch from which gradients can be summed over any backend."""


def shard(model: Decoder, world: World) -> None:
    """Shard the matrices of ``model``, which all processes of ``world`` hold alike, in place.

    Embedding and head are gathered once a pass, for as long as the loss needs them.

    Raises:
        InputError: if this PyTorch cannot.
    """
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
    model.to(device())  # gains


def is_sharded(tensor: Tensor) -> bool:
    """Return True if this process holds a part of ``tensor`` only."""
    return hasattr(tensor, "full_tensor")  # a DTensor, whose module takes a second to import


def local(tensor: Any) -> Tensor:
    """Return the part of ``tensor`` that this process holds, without a copy."""
    found: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return found


def whole(state: Mapping[str, Any], *, keep: bool) -> dict[str, Tensor]:
    """Gather sharded tensors, one after the other, in memory of the CPU; all processes must call it.

    Returns:
        The whole tensors; none in processes that do not ``keep`` them.
    """
    found = {}
    for name, tensor in state.items():
        each = tensor.full_tensor() if is_sharded(tensor) else tensor
        if keep:
            found[name] = each.detach().cpu()
    return found


def gathered(model: Decoder, *, keep: bool) -> Decoder:
    """Return a whole copy of a sharded model in a process that is to ``keep`` it; all must call it."""
    weights = whole(model.state_dict(), keep=keep)
    if not keep:
        return model
    copy = Decoder(model.shape)
    copy.load_state_dict(weights)
    return copy.to(device()).eval()


@torch.no_grad()
def put(own: Any, given: Tensor) -> None:
    """Copy ``given`` into ``own``, of which this process may hold a part: all of it, or that part."""
    if is_sharded(own) and given.shape != own.to_local().shape:
        from torch.distributed.tensor import distribute_tensor

        on_device = given.to(own.device)
        given = distribute_tensor(on_device, own.device_mesh, own.placements, src_data_rank=None)
    local(own).copy_(local(given))
