"""A pretrained teacher sharded over a gang: each process holds a part of every block, without gradients.

The leading process loads the model, in memory of its CPU, and checks it; the others build it without weights,
and are sent their parts tensor by tensor. A block is whole only while it computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from sweeps.pretrained.load import Features, Foreign, load_pretrained
from sweeps.pretrained.quantized import quantization_of


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
    body = whole.model.body if whole else _without_weights(folder, precision)
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


def _without_weights(folder: Path, precision: Precision) -> nn.Module:
    """Return the body of the model in ``folder``, its parameters on the meta device."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with _parameters_on_meta():
        causal = AutoModelForCausalLM.from_config(
            settings, dtype=INFERENCE_PRECISIONS[precision], trust_remote_code=False
        )
    body: nn.Module = causal.base_model
    return body


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Let modules that are made within this have no storage for parameters; buffers are what they are."""
    register = nn.Module.register_parameter

    def without_storage(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)

    nn.Module.register_parameter = without_storage  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _spread(body: nn.Module, world: World) -> None:
    """Shard ``body`` in place, from the whole weights of the leading process."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    weights = dict(body.state_dict()) if world.leads else {}
    buffers = {name: each.clone() for name, each in body.named_buffers()}
    mesh = init_device_mesh(device().type, (world.size,))
    for block in _blocks(body):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(body, mesh=mesh, reshard_after_forward=True)
    if not world.leads:
        body.to_empty(device=device())
        _restore(body, buffers)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(body, weights, options=options)


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
