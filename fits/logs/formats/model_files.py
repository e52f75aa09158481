"""Size and shape of a model in Hugging Face's layout, from ``config.json`` and safetensors headers alone."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fits.logs.formats.json_files import load_json
from scaling.errors import InputError

LARGEST_HEADER = 100 << 20
"""Limit of safetensors on the bytes of a header."""
EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_tokens|tok_embeddings|word_embeddings|embed_in|wte|wpe|embed_positions"
    r"|position_embeddings|lm_head|embed_out)\.weight$|^(?:model\.)?output\.weight$"
)
"""Tensors that are embeddings or the output projection, which N leaves out."""
EXPERT = re.compile(r"\bexperts?\b(?!.*shared)")
"""Tensors of routed experts, of which a token meets a share."""
PACKED = ("U8", "I8", "I32", "F4", "F8_E4M3FN")
"""Types of weights that quantization packs, whose shapes are not those of parameters."""
ADAPTER = re.compile(r"lora_[AB]|adapter_")
SETTINGS = {
    "vocab": ("vocab_size", "n_vocab", "padded_vocab_size"),
    "d_model": ("hidden_size", "n_embd", "d_model", "dim", "model_dim"),
    "n_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "experts_met": ("num_experts_per_tok", "moe_top_k", "num_experts_per_token"),
}
"""Names of a shape's numbers in configurations."""


class Tensor(NamedTuple):
    """Name, number of elements and type of a stored tensor."""

    name: str
    elements: int
    dtype: str


class ModelSize(NamedTuple):
    """Numbers of parameters of a model, embeddings apart."""

    params: float
    """Non-embedding parameters, norm gains included, of all experts."""
    embedding_params: float
    active_params: float
    """Non-embedding parameters that a token meets."""


def is_model_config(found: object) -> bool:
    """Return True for the object of a model's ``config.json``."""
    return isinstance(found, dict) and ("model_type" in found or "architectures" in found)


def shape_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return vocabulary, width, depth and experts of a configuration, under our names."""
    inner = config.get("text_config")
    known = {**(inner if isinstance(inner, dict) else {}), **config}
    found = {
        ours: next((known[name] for name in names if isinstance(known.get(name), int)), None)
        for ours, names in SETTINGS.items()
    }
    tied = known.get("tie_word_embeddings")
    return {ours: value for ours, value in found.items() if value is not None} | (
        {"tied": tied} if isinstance(tied, bool) else {}
    )


def model_size(folder: Path, config: Mapping[str, Any]) -> ModelSize:
    """Count the parameters of a model from the headers of its safetensors files, without its weights.

    Raises:
        InputError: if there are no such files, or they hold an adapter or packed weights.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        pickled = next(iter(sorted(folder.glob("*.bin"))), None)
        raise InputError(
            f"{folder}: no .safetensors file"
            + (f"; {pickled.name} is pickled, which is not opened" if pickled else "")
        )
    tensors = [tensor for path in paths for tensor in read_header(path)]
    return count_tensors(tensors, shape_settings(config), folder)


def count_tensors(tensors: Iterable[Tensor], shape: Mapping[str, Any], where: Path) -> ModelSize:
    """Count parameters by the names of tensors; a token meets a share of the routed experts."""
    own = {tensor.name: tensor for tensor in tensors}
    if any(ADAPTER.search(name) for name in own):
        raise InputError(f"{where}: the file holds an adapter, not a whole model")
    packed = next((tensor for tensor in own.values() if tensor.dtype in PACKED), None)
    if packed:
        raise InputError(f"{where}: the weights are quantized ({packed.dtype}), so they cannot be counted")
    kept = {name: tensor.elements for name, tensor in own.items() if not name.endswith("inv_freq")}
    embeddings = sum(count for name, count in kept.items() if EMBEDDING.search(name))
    params = sum(kept.values()) - embeddings
    routed = sum(count for name, count in kept.items() if EXPERT.search(name))
    share = _met_share(shape, where) if routed else 1.0
    return ModelSize(float(params), float(embeddings), params - routed * (1.0 - share))


def _met_share(shape: Mapping[str, Any], where: Path) -> float:
    experts, met = shape.get("experts"), shape.get("experts_met")
    if not experts or not met:
        raise InputError(
            f"{where}: the model has experts, but config.json does not say how many a token meets"
        )
    return float(met) / float(experts)


def read_header(path: Path) -> list[Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        InputError: for a file that is cut off within its header, or is none.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
        header = file.read(length) if length <= LARGEST_HEADER else b""
    try:
        if len(header) < length:
            raise ValueError("cut off")
        found = json.loads(header)
        return [
            Tensor(name, math.prod(entry["shape"]), str(entry["dtype"]))
            for name, entry in found.items()
            if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: not a whole safetensors file; is it still being written?") from None


def read_model(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of a model's directory under our names, and notes on what is missing."""
    config = load_json(folder / "config.json")
    shape = shape_settings(config)
    settings: dict[str, Any] = {key: value for key, value in shape.items() if not key.startswith("experts")}
    if "d_model" in shape and "n_layers" in shape:
        settings["aspect_ratio"] = shape["d_model"] / shape["n_layers"]
    try:
        size = model_size(folder, config)
    except InputError as error:
        return settings, [f"parameters: {error}"]
    settings["embedding_params"] = size.embedding_params
    if size.active_params != size.params:
        return settings | {"active_params": size.active_params, "total_params": size.params}, []
    return settings | {"params": size.params}, []
