"""Quantized checkpoints: which method a configuration names, what its files weigh, and its output projection.

transformers loads them, by the package of the method. On a CPU it turns some into plain matrices.
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scaling.errors import InputError

PACKAGES = {
    "awq": ("gptqmodel", "accelerate"),
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "compressed-tensors": ("compressed-tensors",),
    "fp8": ("accelerate",),
    "gptq": ("gptqmodel", "optimum"),
    "torchao": ("torchao",),
}
"""Packages by which transformers loads a method, by the sources of 5.23; of other methods it tells itself."""


def quantization_of(config: dict[str, Any], where: str = "teacher") -> str | None:
    """Return the name of the method that a model's ``config.json`` says it is quantized by, if it is.

    Raises:
        InputError: for a method that transformers does not have.
    """
    found = config.get("quantization_config") or _text_part(config).get("quantization_config")
    if not found:
        return None
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    method = found.get("quant_method") if isinstance(found, dict) else None
    if isinstance(found, dict) and (found.get("load_in_8bit") or found.get("load_in_4bit")):
        method = "bitsandbytes"
    if method not in {*AUTO_QUANTIZER_MAPPING, "bitsandbytes"}:
        raise InputError(
            f"{where}: config.json, quantization_config.quant_method: {method!r} is no method that "
            "transformers loads; use another checkpoint of this model"
        )
    return str(method)


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    part = config.get("text_config")
    return part if isinstance(part, dict) else {}


def bytes_of_files(folder: Path) -> int | None:
    """Return the bytes of a model's weights on disk, by its files or their index; None if neither says."""
    if files := list(folder.glob("*.safetensors")):
        return sum(file.stat().st_size for file in files)
    with suppress(OSError, ValueError, KeyError, TypeError):
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return int(index["metadata"]["total_size"])
    return None


def plain_matrix(projection: nn.Module, where: str, architecture: str) -> Tensor:
    """Return the weight of an output projection as a plain matrix ``(vocab, width)``.

    Raises:
        InputError: if it is packed in a way that has no such matrix.
    """
    weight: Any = projection.weight
    if type(weight) not in (Tensor, nn.Parameter) and hasattr(weight, "dequantize"):
        with suppress(Exception):  # of any type, of a package of others
            weight = weight.dequantize()
    if not (isinstance(weight, Tensor) and weight.is_floating_point() and weight.ndim == 2):
        raise InputError(
            f"{where}: {architecture} has a quantized output projection ({type(projection).__name__}), which "
            "gives no matrix; use a checkpoint that leaves lm_head as it was, as most do"
        )
    return weight.detach()


def loading_error(method: str, reason: str, folder: Path) -> str:
    """Return why a checkpoint quantized by ``method`` cannot be loaded here, and what would help."""
    device = "a GPU" if torch.cuda.is_available() else "no GPU"
    missing = [each for each in PACKAGES.get(method, ()) if find_spec(each.replace("-", "_")) is None]
    install = f"Install {' and '.join(missing)}" if missing else "Install what that names"
    return (
        f"{folder} is quantized ({method}), and transformers cannot load it on this machine, which has "
        f"{device}: {reason}. {install}, run where the device is, or use a checkpoint that is not quantized"
    )
