"""Compiled inference of a frozen model."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sweeps.model.compiling.aot import CompiledLibrary
from sweeps.model.compiling.compiled import CompiledBody
from sweeps.model.decoder import Decoder
from sweeps.model.device import device


class FrozenBody(CompiledBody):
    """Language model with a compiled body, for inference only."""

    library: CompiledLibrary | None = None
    """Compiled code on a CPU."""

    def __init__(self, plain: Decoder) -> None:
        if device().type != "cpu":
            super().__init__(plain)
            return
        matrices = {
            name: weight.to(plain.precision)  # once, not at every batch
            for name, weight in plain.model.named_parameters()
            if weight.ndim == 2 and weight is not plain.model.embed_tokens.weight
        }
        tensors = dict(plain.model.named_parameters()) | matrices | dict(plain.model.named_buffers())

        def function(inputs: Tensor, *others: Tensor) -> tuple[Tensor]:
            with torch.no_grad():
                return (functional_call(plain.model, dict(zip(tensors, others, strict=True)), inputs),)

        library = self.library = CompiledLibrary(
            function,
            f"features {plain.shape} {plain.precision}",
            plain.precision,
            lambda results: {"the teacher's features": results[0]},
        )

        def features(inputs: Tensor) -> Tensor:
            return library(inputs, *tensors.values())[0]

        self.plain, self.model = plain, cast(nn.Module, features)
