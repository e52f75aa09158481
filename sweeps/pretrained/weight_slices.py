"""Loading of a model of transformers by slices: each process reads its part of every tensor from the files.

PyTorch's reader of safetensors reads the slices. No process holds more than its part of the blocks, one slice
and the output projection, which every process has whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.dag.external_shape import Precision
from sweeps.data.model_dir import weight_files
from sweeps.model.decoder import INFERENCE_PRECISIONS
from sweeps.model.device import device

Names = dict[str, str]
"""Names of weights in the files, by their names in the model."""


def without_weights(folder: Path, precision: Precision) -> Any:
    """Return the model in ``folder``, its parameters on the meta device; its buffers are what they are."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with _parameters_on_meta():
        causal = AutoModelForCausalLM.from_config(
            settings, dtype=INFERENCE_PRECISIONS[precision], trust_remote_code=False
        )
    return causal.eval().requires_grad_(False)


def names_in_files(causal: Any, folder: Path, where: str) -> Names | None:
    """Return the names of the weights of ``causal`` in the files of ``folder``, if these can be sliced.

    None is returned where a weight is missing, has another shape, or is renamed or computed when transformers
    loads it, where files tell two weights apart that the model ties or hold one twice, and where PyTorch has
    no reader.
    """
    from torch.distributed import checkpoint

    if not hasattr(checkpoint, "HuggingFaceStorageReader"):  # before PyTorch 2.8
        return None
    shapes = _shapes(folder, where)
    if _converts(causal, shapes):
        return None
    prefix = f"{causal.base_model_prefix}."
    found: Names = {}
    for name, weight in causal.state_dict().items():
        known = [each for each in (name, name.removeprefix(prefix)) if shapes.get(each) == weight.shape]
        if known:
            found[name] = known[0]
    tied = _tied_head(causal)
    wanted = {name for name in causal.state_dict() if name != tied}
    return None if (tied in found) or wanted - found.keys() else found


def _converts(causal: Any, names: Iterable[str]) -> bool:
    """Return True if transformers renames or computes weights of files with ``names`` when it loads them.

    A transposed square matrix would have its name and shape.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:  # before transformers 5, which computes none
        return False
    conversions = get_model_conversion_mapping(causal)
    return any(each.rename_source_key(name)[1] for each in conversions for name in names)


def _tied_head(causal: Any) -> str | None:
    """Return the name of the weight of the output projection, if it is that of the embedding."""
    projection = causal.get_output_embeddings()
    if projection.weight is not causal.get_input_embeddings().weight:
        return None
    (name,) = (name for name, module in causal.named_modules() if module is projection)
    return f"{name}.weight"


def _shapes(folder: Path, where: str) -> dict[str, torch.Size | None]:
    """Return the shapes of all tensors in the files of ``folder``, by name; None of those in two files."""
    from safetensors import safe_open

    found: dict[str, torch.Size | None] = {}
    for path in weight_files(folder, where):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                shape = torch.Size(file.get_slice(name).get_shape())
                found[name] = None if name in found else shape
    return found


def read_slices(causal: Any, names: Names, folder: Path, shard: Callable[[nn.Module], None]) -> Any:
    """Give ``causal`` its weights, the body in parts as ``shard`` lays it out; all processes call it.

    Args:
        causal: Model without weights.
        names: Names of its weights in the files.
        folder: Directory of the files.
        shard: Shards a body and makes its storage on this process's device.
    """
    projection, tied = causal.get_output_embeddings(), _tied_head(causal)
    for name, weight in list(projection.named_parameters()):  # whole in each process, and apart from the body
        own = torch.empty_like(weight, device=device())
        setattr(projection, name, nn.Parameter(own, requires_grad=False))
    of_head = {id(weight) for weight in projection.parameters()}
    shard(causal.base_model)
    state = causal.state_dict(keep_vars=True)
    if tied:
        (embedding,) = (n for n, each in state.items() if each is causal.get_input_embeddings().weight)
        names = names | {tied: names[embedding]}
    heads = {names[name]: each.detach() for name, each in state.items() if id(each) in of_head}
    _read(heads, folder)
    _read({names[name]: each.detach() for name, each in state.items() if id(each) not in of_head}, folder)
    return causal


def _read(tensors: dict[str, Tensor], folder: Path) -> None:
    """Read ``tensors`` by their names in the files of ``folder``, of DTensors this process's parts."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)))


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Let modules that are made within this have no storage for parameters; buffers are what they are."""
    register = nn.Module.register_parameter

    def without_storage(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None and not parameter.is_meta:  # a tied one stays the same
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)

    nn.Module.register_parameter = without_storage  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
