"""Directories of trained models that transformers loads: weights, configuration, tokenizer."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load, load_file
from torch import Tensor

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.data.tokenizer import END_OF_TEXT_ID, ExternalTokenizer
from sweeps.model.decoder import NORM_EPS, ROPE_BASE, Decoder
from sweeps.model.sharding import whole
from sweeps.store.checkpoints.safetensors_stream import SafetensorsStream

WEIGHTS = "model.safetensors"


def save_model(model: Decoder, tokenizer_files: Path, folder: Path) -> str:
    """Write weights, configuration and tokenizer into ``folder``; return the checksum of the weights.

    Of a sharded model one process writes, while all others :func:`send_weights`.
    """
    checksum = hashlib.sha256()
    with (folder / WEIGHTS).open("wb") as weights:
        for chunk in weights_stream(model):
            checksum.update(chunk)
            weights.write(chunk)
    end_of_text = ExternalTokenizer.read(tokenizer_files).end_of_text_id
    (folder / "config.json").write_text(json.dumps(qwen3_config(model.shape, end_of_text), indent=2))
    for file in tokenizer_files.iterdir():
        shutil.copy(file, folder / file.name)
    return checksum.hexdigest()


def send_weights(model: Decoder) -> None:
    """Take part in :func:`save_model` of another process that has a part of ``model``."""
    for _ in weights_stream(model):
        pass


def weights_stream(model: Decoder) -> SafetensorsStream:
    """Return the file of the weights of ``model``, one of which is whole at a time if they are sharded."""
    return SafetensorsStream(dict(sorted(model.state_dict().items())), {"format": "pt"}, whole)


def load_model(folder: Path, shape: ModelShape, sha256: str) -> Decoder:
    """Load the model in ``folder``, frozen and in evaluation mode.

    Raises:
        InputError: if its weights are missing, or their checksum is not ``sha256``.
    """
    path = folder / WEIGHTS
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(path)
    model = Decoder(shape)
    model.load_state_dict(load(data))
    return model.eval().requires_grad_(False)


def map_weights(folder: Path, sha256: str) -> dict[str, Tensor]:
    """Return the weights of the model in ``folder``, mapped into memory, which processes share.

    Raises:
        InputError: as :func:`load_model`.
    """
    path, found = folder / WEIGHTS, ""
    if path.is_file():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise _damaged(path)
    return load_file(path)


def _damaged(path: Path) -> InputError:
    again = f"to train it again, delete {path.parent.parent / 'result.json'}"
    return InputError(f"{path}: missing or damaged; {again}")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights that :func:`save_model` wrote into ``folder``."""
    return load((folder / WEIGHTS).read_bytes())


def shape_of(config: dict[str, Any]) -> ModelShape | None:
    """Return the shape whose :func:`qwen3_config` is ``config``, or None for other configurations."""
    fields: dict[str, Any] = {field: config.get(name) for field, name in TRANSFORMERS_NAMES.items()}
    if not all(isinstance(value, int) and value > 0 for value in fields.values()):
        return None
    if fields["heads"] != fields["kv_heads"]:
        return None
    shape = ModelShape(**fields)
    return shape if qwen3_config(shape, config.get("eos_token_id")) == config else None


TRANSFORMERS_NAMES = {
    "vocab": "vocab_size",
    "width": "hidden_size",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "context": "max_position_embeddings",
}
"""Names of the fields of a shape in transformers' configuration."""


def qwen3_config(shape: ModelShape, end_of_text: Any = END_OF_TEXT_ID) -> dict[str, Any]:
    """Return the transformers configuration of a model with this shape and end-of-text token."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **{name: getattr(shape, field) for field, name in TRANSFORMERS_NAMES.items()},
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_BASE,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }
