"""Tokens per second of three loops over models of one size: ours, transformers', and a bare GPT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from sizes import Sizes
from timing import rates, release
from torch import Tensor, nn
from torch.nn import functional as F

from scaling.costs.flops import ModelShape
from sweeps.dag.ladder import shape_for
from sweeps.model.decoder import rotary, rotate
from sweeps.model.device import device
from sweeps.model.model_files import qwen3_config
from sweeps.spec.spec import Training
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

Step = Callable[[], object]


def compare_loops(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield rates of each loop by size; a loop that fails leaves its error."""
    found: dict[str, Any] = {}
    for params in sizes.models:
        shape = shape_for(params, vocab=sizes.vocab, context=sizes.context, aspect_ratio=64)
        blocks = random_blocks(sizes)
        flops = shape.training_flops(sizes.batch_tokens)
        row = found[f"{params / 1e6:g}M"] = {}
        for name, build in (("ours", ours), ("transformers", transformers_loop), ("bare GPT", bare_gpt)):
            release()
            try:
                row[name] = rates(build(shape, blocks, sizes), sizes.steps, sizes.batch_tokens, flops)
            except Exception as error:
                row[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
            own, rate = row["ours"].get("tokens_per_second"), row[name].get("tokens_per_second")
            if own and rate and name != "ours":
                row["ours"][f"times {name}"] = own / rate
            yield found


def random_blocks(sizes: Sizes) -> Tensor:
    """Return one batch of random tokens, ``(blocks, context + 1)``, on the device."""
    size = (sizes.batch_tokens // sizes.context, sizes.context + 1)
    return torch.randint(sizes.vocab, size, generator=torch.Generator().manual_seed(0)).to(device())


def ours(shape: ModelShape, blocks: Tensor, sizes: Sizes) -> Step:
    """Return a step of our own loop in bf16."""
    training = Training(batch_tokens=sizes.batch_tokens, precision="bf16", compile=sizes.compile)
    run = Run(recipe=RunRecipe(shape=shape, steps=10**9, training=training, seed=0))
    return lambda: run.step(blocks, None, None)


def transformers_loop(shape: ModelShape, blocks: Tensor, sizes: Sizes) -> Step:  # noqa: ARG001
    """Return a step of a plain loop over transformers' Qwen3 of the same shape: autocast, fused AdamW."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(Qwen3Config(**qwen3_config(shape), attn_implementation="sdpa")).to(device())

    def loss() -> Tensor:
        found: Tensor = model(input_ids=blocks[:, :-1], use_cache=False).logits
        return F.cross_entropy(found.float().flatten(0, 1), blocks[:, 1:].flatten())

    return _step(model, loss)


def bare_gpt(shape: ModelShape, blocks: Tensor, sizes: Sizes) -> Step:
    """Return a step of a compiled loop over a bare GPT of the same width and depth, as nanochat's."""
    model = BareGPT(shape).to(device())
    call = torch.compile(model, dynamic=False) if sizes.compile else model
    return _step(model, lambda: call(blocks))


def _step(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(device().type, torch.bfloat16):
            found = loss()
        found.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class BareGPT(nn.Module):
    """Decoder with rotary positions, normalized queries and keys, norms without gains, and squared ReLU."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        inner = shape.heads * shape.head_dim
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.mixes = nn.ModuleList(nn.Linear(shape.width, 3 * inner, bias=False) for _ in range(shape.layers))
        self.outs = nn.ModuleList(nn.Linear(inner, shape.width, bias=False) for _ in range(shape.layers))
        self.ups = nn.ModuleList(
            nn.Linear(shape.width, 4 * shape.width, bias=False) for _ in range(shape.layers)
        )
        self.downs = nn.ModuleList(
            nn.Linear(4 * shape.width, shape.width, bias=False) for _ in range(shape.layers)
        )
        self.head = nn.Linear(shape.width, shape.vocab, bias=False)
        cosines, sines = rotary(shape.context, shape.head_dim)
        self.register_buffer("cosines", cosines[:, None], persistent=False)
        self.register_buffer("sines", sines[:, None], persistent=False)

    def forward(self, blocks: Tensor) -> Tensor:
        """Return the cross-entropy of ``blocks`` ``(batch, context + 1)``, in nats a token."""
        width, places = (self.shape.width,), (self.cosines, self.sines)
        x = F.rms_norm(self.embedding(blocks[:, :-1]), width)
        for mix, out, up, down in zip(self.mixes, self.outs, self.ups, self.downs, strict=True):
            mixed = mix(F.rms_norm(x, width)).unflatten(-1, (3, self.shape.heads, self.shape.head_dim))
            q, k, v = mixed.unbind(2)
            size = (self.shape.head_dim,)
            q, k = (F.rms_norm(rotate(each, places), size).to(v.dtype) for each in (q, k))
            seen = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
            )
            x = x + out(seen.transpose(1, 2).flatten(2))
            x = x + down(F.relu(up(F.rms_norm(x, width))).square())
        logits = self.head(F.rms_norm(x, width)).float()
        return F.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten())
