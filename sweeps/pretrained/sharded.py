"""A pretrained teacher sharded over a gang: each process holds a part of every block, without gradients.

Each process reads its slices from the files (:mod:`sweeps.pretrained.weight_slices`). Where these do not hold
weights as the model does, the leading process loads it, in memory of its CPU, and sends the others their
parts tensor by tensor. A block is whole only while it computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from scaling.errors import InputError
from sweeps.dag.external_shape import Precision
from sweeps.data.model_dir import read_config
from sweeps.model.decoder import INFERENCE_PRECISIONS, Decoder
from sweeps.model.device import device
from sweeps.model.distributed import World
from sweeps.model.language_model import SoftCap
from sweeps.model.model_files import shape_of
from sweeps.pretrained.load import Features, Foreign, checked, load_pretrained, wrap
from sweeps.pretrained.quantized import quantization_of
from sweeps.pretrained.weight_slices import names_in_files, read_slices, without_weights


def load_sharded(
    folder: Path, vocab: int, where: str, precision: Precision, world: World
) -> Decoder | Foreign:
    """Load the model in ``folder``, frozen, its blocks sharded over ``world``, whose processes all call it.

    Models of ours and quantized ones are loaded whole: the first are small, the second packed.

    Raises:
        InputError: In all processes, what :func:`~sweeps.pretrained.load.load_pretrained` raises in one.
    """
    config = read_config(folder, where)
    if shape_of(config) or quantization_of(config, where):
        return load_pretrained(folder, vocab, where, precision).to(device())
    causal = without_weights(folder, precision)
    names = names_in_files(causal, folder, where)
    if names is None:
        return _from_leaders_weights(causal.base_model, folder, vocab, where, precision, world)
    read_slices(causal, names, folder, lambda body: _shard(body, world))
    return checked(wrap(causal, vocab, where), vocab, folder, where)


def _from_leaders_weights(
    empty: nn.Module, folder: Path, vocab: int, where: str, precision: Precision, world: World
) -> Foreign:
    """Return a model that the leading process loads whole; others give the body of one without weights."""
    whole: Any = None
    error = None
    if world.leads:
        try:
            whole = load_pretrained(folder, vocab, where, precision)
        except InputError as found:
            error = str(found)
    told = _from_leader({"error": error} if error else _settings(whole))
    if told["error"]:
        raise InputError(told["error"])
    body = whole.model.body if whole else empty
    head = whole.head if whole else torch.empty(told["head"], dtype=INFERENCE_PRECISIONS[precision])
    _spread(body.requires_grad_(False), world)
    head = head.to(device())
    distributed.broadcast(head, 0)
    cap = told["cap"]
    model = Foreign(Features(body, told["scale"], told["bias"]), head, SoftCap(cap) if cap else None)
    return model.eval()


def _settings(whole: Any) -> dict[str, Any]:
    if whole is None:
        return {}
    features, cap = whole.model, whole.output_transform
    return {
        "error": None,
        "scale": features.scale,
        "bias": features.bias,
        "cap": cap and cap.cap,
        "head": tuple(whole.head.shape),
    }


def _from_leader(settings: dict[str, Any]) -> dict[str, Any]:
    told = [settings]
    distributed.broadcast_object_list(told, 0, device=torch.device("cpu"))
    return told[0]


def _spread(body: nn.Module, world: World) -> None:
    """Shard ``body`` in place, from the whole weights of the leading process."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    weights = dict(body.state_dict()) if world.leads else {}
    _shard(body, world)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(body, weights, options=options)


def _shard(body: nn.Module, world: World) -> None:
    """Shard ``body`` in place, block by block; parameters without storage are given one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    empty = any(weight.is_meta for weight in body.parameters())
    buffers = {name: each.clone() for name, each in body.named_buffers()}
    mesh = init_device_mesh(device().type, (world.size,))
    for block in _blocks(body):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(body, mesh=mesh, reshard_after_forward=True)
    if empty:
        body.to_empty(device=device())
        _restore(body, buffers)


def _blocks(body: nn.Module) -> nn.ModuleList:
    """Return the blocks of ``body``: its largest list of modules."""

    def size(modules: nn.ModuleList) -> int:
        return sum(parameter.numel() for parameter in modules.parameters())

    lists = [module for module in body.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=size, default=nn.ModuleList())


@torch.no_grad()
def _restore(body: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, own in body.named_buffers():
        own.copy_(buffers[name])
