"""Quantized teachers: read as transformers reads them, counted by their files, or refused by what is missing."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import VOCAB, made
from safetensors.torch import load_file, save_file

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.distill.models import load_foreign
from sweeps.estimate.memory.memory import step_memory
from sweeps.model.language_model import logits_of
from sweeps.pretrained.load import load_pretrained
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep

BLOCK = 16
"""Side of the blocks of a quantized matrix that share a scale."""


def quantize_to_fp8(folder: Path) -> dict[str, torch.Tensor]:
    """Quantize the projections of a saved Llama as DeepSeek's checkpoints are; return what they then are."""
    packed, plain = {}, load_file(folder / "model.safetensors")
    for name, weight in plain.items():
        if "_proj" not in name:
            packed[name] = weight
            continue
        rows, columns = (size // BLOCK for size in weight.shape)
        blocks = weight.view(rows, BLOCK, columns, BLOCK)
        scale = blocks.abs().amax((1, 3), keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
        numbers = (blocks / scale).to(torch.float8_e4m3fn)
        packed[name] = numbers.view(weight.shape)
        packed[f"{name}_scale_inv"] = scale.view(rows, columns)
        plain[name] = (numbers.float() * scale).view(weight.shape)
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    set_quantization(folder, {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]})
    return plain


def set_quantization(folder: Path, settings: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))


def test_a_quantized_teacher_is_read_as_transformers_reads_it(
    spec: dict[str, Any], llama: Path, own_cache: Path, tmp_path: Path
) -> None:
    """Its numbers are those of its files; its size, its cost and its identity too."""
    pytest.importorskip("accelerate")
    before = dag_of(parse_sweep(spec)).steps[0]
    model = made("Llama", tie_word_embeddings=False)
    model.load_state_dict(quantize_to_fp8(llama))
    step = dag_of(parse_sweep(spec)).steps[0]
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        teacher = load_foreign(step)
        torch.testing.assert_close(logits_of(teacher, teacher.model(tokens)), model(tokens).logits)
    assert step.id != before.id
    assert step.shape == before.shape
    assert step.foreign is not None
    assert step.foreign.quantization == "fp8"
    assert step.foreign.file_bytes == (llama / "model.safetensors").stat().st_size
    assert Step.from_json(json.loads(json.dumps(step.as_json()))) == step
    saved = 4 * step.shape.total_params - step.foreign.file_bytes
    assert saved > 0
    assert step_memory(before, gpu=True) - step_memory(step, gpu=True) == pytest.approx(saved)
    assert step_memory(before) == step_memory(step)  # without a GPU its matrices are plain ones


@pytest.mark.parametrize(
    ("package", "settings"),
    [
        ("bitsandbytes", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
        ("gptqmodel", {"quant_method": "awq", "bits": 4, "group_size": 32}),
        ("gptqmodel and optimum", {"quant_method": "gptq", "bits": 4, "group_size": 32}),
        ("compressed", {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}}),
        ("torchao", {"quant_method": "torchao", "quant_type": {"default": "int8_weight_only"}}),
    ],
)
def test_a_package_that_a_quantized_teacher_needs_is_named(
    llama: Path, package: str, settings: dict[str, Any]
) -> None:
    if any(find_spec(name) for name in (package.split()[0], "compressed_tensors")):
        pytest.skip(f"{package} is installed here")
    set_quantization(llama, settings)
    with pytest.raises(InputError, match=rf"is quantized .* has no GPU: .*\. Install {package}"):
        load_pretrained(llama, VOCAB)


def test_a_quantization_that_nobody_knows_is_refused_when_the_spec_is_read(
    spec: dict[str, Any], llama: Path
) -> None:
    set_quantization(llama, {"quant_method": "two-bits"})
    with pytest.raises(
        InputError, match=r"teachers\[0\]: config.json, quantization_config.quant_method: 'two-b"
    ):
        dag_of(parse_sweep(spec))
