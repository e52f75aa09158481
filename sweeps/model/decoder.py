"""The ladder's model: a lean decoder with the paper's block, laid out as transformers' Qwen3.

- pre-norm RMSNorm, rotary positions, RMSNorm on queries and keys, SwiGLU, tied embeddings, no biases;
- parameter names and shapes are those of ``Qwen3ForCausalLM``, so a state dict loads there unchanged and
  gives the same logits;
- parameters and the residual stream are float32; matrices are multiplied in the model's ``precision``, and
  norms, rotations and softmax are computed in float32 whatever that is;
- on CPU attention is written out: at the contexts of a sweep it beats the fused kernel, in bfloat16 by four.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from scaling.costs.flops import ModelShape

ROPE_BASE = 500_000.0  # Busbridge et al. 2025, section 2.3
NORM_EPS = 1e-6
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
INFERENCE_PRECISIONS = PRECISIONS | {"fp16": torch.float16}
"""Precisions of matrix products, by the names that a spec has for them."""


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, NORM_EPS)


class KVCache:
    """Key-value cache of one layer."""

    def __init__(self, context: int) -> None:
        self.context, self.length = context, 0

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of the next tokens, ``(batch, heads, time, head_dim)``; return those of all."""
        if not self.length:
            batch, heads, _, dim = k.shape
            self.both = k.new_empty(2, batch, heads, self.context, dim)
        end = self.length + k.shape[2]
        self.both[0, :, :, self.length : end], self.both[1, :, :, self.length : end] = k, v
        self.length = end
        return self.both[0, :, :, :end], self.both[1, :, :, :end]


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions and normalised queries and keys."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        inner = shape.heads * shape.head_dim
        self.q_proj = nn.Linear(shape.width, inner, bias=False)
        self.k_proj = nn.Linear(shape.width, inner, bias=False)
        self.v_proj = nn.Linear(shape.width, inner, bias=False)
        self.o_proj = nn.Linear(inner, shape.width, bias=False)
        self.q_norm = RMSNorm(shape.head_dim)
        self.k_norm = RMSNorm(shape.head_dim)

    def forward(
        self, x: Tensor, positions: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        batch, time, _ = x.shape
        mixed = fused_linear(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = mixed.view(batch, time, 3, -1, self.head_dim).unbind(2)
        q = rotate(self.q_norm(q), positions) * (1 / math.sqrt(self.head_dim))
        k = rotate(self.k_norm(k), positions)
        q, k, v = (each.to(x.dtype).transpose(1, 2) for each in (q, k, v))
        if cache is not None:
            k, v = cache.extended(k, v)
        if x.is_cuda:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=time > 1, scale=1.0)
        else:
            out = attend(q, k, v, mask)
        return fused_linear(out.transpose(1, 2).reshape(batch, time, -1), self.o_proj)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = fused_linear(x, self.gate_proj, self.up_proj).chunk(2, -1)
        return fused_linear(F.silu(gate) * up, self.down_proj)


class DecoderLayer(nn.Module):
    """One decoder layer."""

    recompute = False
    """True to keep only its inputs for the backward pass."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.width)
        self.mlp = MLP(shape)

    def forward(
        self,
        x: Tensor,
        positions: tuple[Tensor, Tensor],
        mask: Tensor,
        precision: torch.dtype,
        cache: KVCache | None = None,
    ) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(
                self._block, x, positions, mask, precision, cache,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
        return self._block(x, positions, mask, precision, cache)

    def _block(
        self,
        x: Tensor,
        positions: tuple[Tensor, Tensor],
        mask: Tensor,
        precision: torch.dtype,
        cache: KVCache | None,
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x).to(precision), positions, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x).to(precision))


class DecoderBody(nn.Module):
    """Embedding, blocks and final norm: tokens ``(batch, time)`` to features ``(batch, time, width)``."""

    cosines: Tensor
    sines: Tensor
    mask: Tensor
    precision: torch.dtype
    """Precision in which matrices are multiplied and features are returned."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.precision = torch.float32
        self.embed_tokens = nn.Embedding(shape.vocab, shape.width)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width)
        self.compute_tables(shape)

    def compute_tables(self, shape: ModelShape) -> None:
        """Compute the rotary angles and the mask, which are no weights."""
        cosines, sines = rotary(shape.context, shape.head_dim)
        mask = torch.full((shape.context, shape.context), -torch.inf).triu(1)
        for name, value in (("cosines", cosines), ("sines", sines), ("mask", mask)):
            self.register_buffer(name, value, persistent=False)

    def forward(
        self, tokens: Tensor, caches: list[KVCache] | None = None, hidden: list[Tensor] | None = None
    ) -> Tensor:
        """Return the features of ``tokens``; with ``caches``, which they join, after those that are there.

        Hidden states are added to ``hidden``: the embedding, what each block but the last returns, and the
        features.
        """
        start = caches[0].length if caches else 0
        end = start + tokens.shape[1]
        positions, mask = (
            (self.cosines[start:end, None], self.sines[start:end, None]),
            self.mask[start:end, :end],
        )
        x = self.embed_tokens(tokens)
        for number, layer in enumerate(self.layers):
            if hidden is not None:
                hidden.append(x)
            x = layer(x, positions, mask, self.precision, caches[number] if caches else None)
        features = self.norm(x).to(self.precision)
        if hidden is not None:
            hidden.append(features)
        return features

    def empty_cache(self) -> list[KVCache]:
        """Return caches for :meth:`forward` at the beginning of a sequence, one a layer."""
        return [KVCache(len(self.cosines)) for _ in self.layers]


class Decoder(nn.Module):
    """A causal language model with tied embeddings: tokens ``(batch, time)`` to logits ``(.., vocab)``."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = DecoderBody(shape)

    @property
    def precision(self) -> torch.dtype:
        """Precision in which matrices are multiplied; parameters are float32, whatever it is."""
        return self.model.precision

    @precision.setter
    def precision(self, value: torch.dtype) -> None:
        self.model.precision = value

    def recompute_blocks(self) -> None:
        """Keep only the inputs of blocks for the backward pass, and recompute the rest there."""
        for layer in self.model.layers:
            assert isinstance(layer, DecoderLayer)
            layer.recompute = True

    @property
    def head(self) -> Tensor:
        """The output projection ``(vocab, width)``, tied to the embedding, in the model's precision."""
        return self.model.embed_tokens.weight.to(self.model.precision)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.model(tokens), self.head)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Set the weights to their :meth:`initial_values`."""
        for name, value in self.initial_values(seed):
            self.get_parameter(name).copy_(value)

    def initial_values(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Yield a name and a value for each weight: matrices from N(0, 1/fan_in), gains of one.

        Residual outputs are scaled down by sqrt(2 layers). The tied embedding has standard deviation
        1/sqrt(width), so that logits start at order one. Together with
        :func:`sweeps.model.optimizer.parameter_groups` this is mu-P (simple), Wortsman et al. 2024.

        Values are drawn on the CPU, one after the other, whatever device the model is on.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                yield name, torch.ones(parameter.shape)
                continue
            std = parameter.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= math.sqrt(2 * self.shape.layers)
            yield name, torch.empty(parameter.shape).normal_(0.0, std, generator=generator)


def fused_linear(x: Tensor, *linears: nn.Linear) -> Tensor:
    """The outputs of ``linears`` side by side, from one product in the precision of ``x``."""
    weights = [linear.weight for linear in linears]
    return F.linear(x, (torch.cat(weights) if len(weights) > 1 else weights[0]).to(x.dtype))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k' + mask) v, the softmax in float32; all ``(batch, heads, time, head_dim)``."""
    found: Tensor = _Attention.apply(q, k, v, mask)
    return found


class _Attention(torch.autograd.Function):
    """No exponential is taken twice, and gradients lie in memory as what they are gradients of."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        shares = (q @ k.transpose(2, 3) + mask).softmax(-1).to(q.dtype)
        ctx.save_for_backward(q, k, v, shares)
        return shares @ v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (q, k, v, shares), (gradient,) = ctx.saved_tensors, gradients
        part = (gradient @ v.transpose(2, 3)).to(torch.promote_types(q.dtype, torch.float32)) * shares
        to_scores = (part - shares * part.sum(-1, keepdim=True)).to(q.dtype)
        back = to_scores.transpose(2, 3)
        return to_scores @ k, back @ q, shares.transpose(2, 3) @ gradient, None


def rotary(context: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each ``(context, head_dim / 2)``."""
    frequencies = ROPE_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(context, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate ``x`` of shape ``(batch, time, heads, head_dim)`` by its positions."""
    (cosines, sines), (first, second) = positions, x.chunk(2, -1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), -1)
