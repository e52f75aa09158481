"""Small random models of transformers."""

from __future__ import annotations

from typing import Any

import torch

VOCAB = 300
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def made(kind: str, **changes: Any) -> Any:
    """A small random model of transformers, its biases and gains drawn too."""
    import transformers

    settings = getattr(transformers, f"{kind}Config")(**SIZES | changes)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()
