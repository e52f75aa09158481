"""Hidden states of a language model at chosen layers, numbered as in transformers' ``hidden_states``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scaling.errors import InputError
from sweeps.model.language_model import LanguageModel


def hidden_states(
    model: LanguageModel, tokens: Tensor, layers: Sequence[int]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the features of ``tokens`` ``(batch, time)`` and hidden states at ``layers``, from one pass.

    Layer 0 is the embedding, the last what the final norm returns; negative numbers count from the end.

    Raises:
        InputError: for a layer that the model does not have.
    """
    if not layers:
        return model.model(tokens), ()
    found: list[Tensor] = []
    features = model.model(tokens, hidden=found)
    for layer in layers:
        if not -len(found) <= layer < len(found):
            raise InputError(f"layer {layer}: this model has hidden states 0 to {len(found) - 1}")
    return features, tuple(found[layer] for layer in layers)
