"""Weights of transformers' files, read by slices into a model without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sweeps.dag.external_shape import Precision
from sweeps.pretrained.weight_slices import names_in_files, read_slices, without_weights

transformers = pytest.importorskip("transformers")


def saved(folder: Path, dtype: torch.dtype, *, tied: bool) -> Path:
    """Write a small model whose query projection is square."""
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


def with_storage(body: nn.Module) -> None:
    """Give parameters on the meta device storage, as sharding does."""
    for module in body.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty_like(weight, device="cpu"), requires_grad=False))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_logits_are_those_of_the_model_that_transformers_loads(
    tmp_path: Path, dtype: torch.dtype, tied: bool
) -> None:
    """In both precisions, of files in any."""
    folder = saved(tmp_path, dtype, tied=tied)
    tokens = torch.arange(20)[None]
    precisions: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for precision, here in precisions.items():
        causal = without_weights(folder, precision)
        names = names_in_files(causal, folder, "teacher")
        assert names
        read_slices(causal, names, folder, with_storage)
        whole = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=here)
        assert torch.equal(causal(tokens).logits, whole(tokens).logits)


def test_weights_that_are_computed_when_they_are_loaded_are_not_sliced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A square matrix that transformers would transpose has its name and shape in the files."""
    mapping = pytest.importorskip("transformers.conversion_mapping")
    loading = pytest.importorskip("transformers.core_model_loading")
    causal = without_weights(saved(tmp_path, torch.float32, tied=False), "fp32")
    assert names_in_files(causal, tmp_path, "teacher")
    transposed = loading.WeightConverter("q_proj.weight", "q_proj.weight", [loading.Transpose(0, 1)])
    monkeypatch.setattr(mapping, "get_model_conversion_mapping", lambda _: [transposed])
    assert names_in_files(causal, tmp_path, "teacher") is None
