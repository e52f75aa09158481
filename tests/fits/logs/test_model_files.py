"""Counts of parameters from headers agree with the models that transformers builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fits.logs.formats.model_files import read_model

transformers = pytest.importorskip("transformers")
SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGURATIONS = {
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 48},
    "gpt_neox": {**SMALL, "intermediate_size": 64},
    "llama": {**SMALL, "intermediate_size": 64, "tie_word_embeddings": True},
    "qwen2": {**SMALL, "intermediate_size": 64, "num_key_value_heads": 1, "tie_word_embeddings": False},
    "mixtral": {
        **SMALL, "intermediate_size": 64, "num_key_value_heads": 1, "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_non_embedding_parameters_are_those_of_the_built_model(kind: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(kind, **CONFIGURATIONS[kind])
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    found, notes = read_model(tmp_path)
    assert notes == []
    tables = [m for m in model.modules() if type(m).__name__ == "Embedding"]
    embeddings = {id(m.weight): m.weight.numel() for m in [*tables, model.get_output_embeddings()]}
    total = model.num_parameters() - sum(embeddings.values())
    assert found["embedding_params"] == sum(embeddings.values())
    if kind != "mixtral":
        assert found["params"] == total
        return
    experts = sum(p.numel() for name, p in model.named_parameters() if "experts" in name)
    assert (found["total_params"], found["active_params"]) == (total, total - experts / 2)
