"""Cost of a token: parameters and FLOPs of transformers, continuous in size or of a concrete shape.

One multiply-add is two FLOPs. N counts non-embedding parameters, norm gains included. Attention is causal,
so a token attends to half the context on average. A backward pass costs two forward passes.

Source: Busbridge et al. 2025 (arXiv 2502.08606), appendix H: Eq. 69, Tables 9-13.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.errors import InputError

FLOPS_RULES = ("detailed", "6nd")
FORWARDS_PER_STEP = 3.0
"""A training step costs one forward pass and a backward pass of twice that."""
_TABLE_LN_N = np.linspace(0, np.log(1e19), 2048)
"""Sizes at which F is tabulated for its inverse, which one Newton step then makes exact to 1e-10."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A concrete decoder: grouped-query attention, gated feed-forward, RMSNorm, no biases.

    >>> from scaling import ModelShape
    >>> heads = {"heads": 12, "head_dim": 64, "kv_heads": 12}
    >>> shape = ModelShape(layers=12, width=768, ffn=2048, vocab=32768, context=1024, **heads)
    >>> f"{shape.params:,} non-embedding parameters, {shape.training_flops(1e9):.3g} FLOPs for 1e9 tokens"
    '84,955,392 non-embedding parameters, 7.18e+17 FLOPs for 1e9 tokens'
    """

    layers: int
    width: int
    """The residual stream, d_model."""
    ffn: int
    """Hidden width of the gated feed-forward block, which has three matrices."""
    heads: int
    """Query heads of ``head_dim`` each, which share ``kv_heads`` keys and values."""
    head_dim: int
    kv_heads: int
    vocab: int
    context: int
    """Sequence length in tokens; sets the cost of attention."""
    tied: bool = True
    """True if the output projection is the embedding."""
    qk_norm: bool = True
    """True if queries and keys are normalized, with a gain of ``head_dim`` each."""

    def __post_init__(self) -> None:
        _check_positive(self, "layers", "width", "ffn", "heads", "head_dim", "kv_heads", "vocab", "context")
        if self.heads % self.kv_heads:
            raise InputError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")

    @property
    def params(self) -> int:
        """N: non-embedding parameters, norm gains included."""
        return self.matrix_params + self.layers * self._layer_gains + self.width

    @property
    def matrix_params(self) -> int:
        """Parameters that multiply every token: all of ``params`` but the norm gains."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_dim * self.width
        return self.layers * (attention + 3 * self.width * self.ffn)

    @property
    def _layer_gains(self) -> int:
        return 2 * self.width + 2 * self.head_dim * self.qk_norm

    @property
    def embedding_params(self) -> int:
        """The embedding, and the output projection where it is not tied to it."""
        return self.vocab * self.width * (1 if self.tied else 2)

    @property
    def total_params(self) -> int:
        """Every parameter in the checkpoint."""
        return self.params + self.embedding_params

    @property
    def forward_flops(self) -> float:
        """FLOPs a token of one forward pass over a full context, every term counted (Tables 9-12)."""
        attention = self.heads * self.context * (2 * self.head_dim + 2.5)  # logits, values, softmax
        lookup, logits = 2 * self.width, 2 * self.vocab * self.width
        return float(2 * self.matrix_params + self.layers * attention + lookup + logits)

    @property
    def approximate_forward_flops(self) -> float:
        """2N + 2 n_layers n_ctx d + 2 V d, the approximation printed in Table 13."""
        attended = self.layers * self.context * self.heads * self.head_dim
        return float(2 * self.params + 2 * attended + 2 * self.vocab * self.width)

    def training_flops(self, tokens: float) -> float:
        """Return the FLOPs of training on ``tokens`` tokens: forward and backward."""
        return FORWARDS_PER_STEP * self.forward_flops * tokens

    @property
    def architecture(self) -> Architecture:
        """The family of shapes that this one belongs to."""
        return Architecture(
            aspect_ratio=self.width / self.layers,
            attention_ratio=self.heads * self.head_dim / self.width,
            group_size=self.heads / self.kv_heads,
            ffn_ratio=self.ffn / self.width,
            context=self.context,
            vocab=self.vocab,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A family of models of one proportion, so that the cost of a token follows from N alone.

    The defaults are the paper's. Only ratios enter, so any N is allowed, not only those a shape can have.

    >>> from scaling import Architecture
    >>> f"{Architecture().training_flops(1e9, 20e9):.4g} FLOPs"
    '1.473e+20 FLOPs'
    >>> f"{Architecture(rule='6nd').training_flops(1e9, 20e9):.4g} FLOPs"
    '1.2e+20 FLOPs'
    """

    aspect_ratio: float = 128.0
    """d_model / n_layers."""
    attention_ratio: float = 1.0
    """n_heads d_head / d_model."""
    group_size: float = 1.0
    """Query heads that share one key-value head; 1 is multi-head attention."""
    ffn_ratio: float = 8 / 3
    """d_ffn / d_model."""
    ffn_matrices: int = 3
    """3 for a gated feed-forward block, 2 for a plain one."""
    context: int = 4096
    """Sequence length in tokens."""
    vocab: int = 32768
    """Vocabulary size; sets the cost of the output projection."""
    rule: str = "detailed"
    """``detailed`` counts attention and the vocabulary; ``6nd`` takes 2N forward and 6N to train a token."""
    active_share: float = 1.0
    """Share of the parameters N that a token passes through: below 1 where N counts all experts."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Origins of ``context``, ``vocab`` and ``aspect_ratio`` (:mod:`scaling.costs.flops_assumptions`)."""

    def __post_init__(self) -> None:
        _check_positive(self, *(each.name for each in fields(self) if each.name not in ("rule", "origins")))
        if self.rule not in FLOPS_RULES:
            raise InputError(f"FLOPs rule: must be one of {', '.join(FLOPS_RULES)}, not {self.rule!r}")
        if self.active_share > 1:
            raise InputError(f"active_share: must be at most 1, not {self.active_share:g}")

    @property
    def omega(self) -> float:
        """Non-embedding parameters per layer, in units of d_model^2."""
        attention = self.attention_ratio * (2 + 2 / self.group_size)
        return attention + self.ffn_matrices * self.ffn_ratio

    @property
    def context_constant(self) -> float:
        """Weight of N^(-1/3) in F(N)/(2N): sigma_1 n_ctx."""
        sigma = math.pow(self.aspect_ratio * self.omega**2, -1 / 3)
        return self.attention_ratio * sigma * self.context

    @property
    def vocab_constant(self) -> float:
        """Weight of N^(-2/3) in F(N)/(2N): sigma_2 n_vocab."""
        return math.pow(self.aspect_ratio / self.omega, 1 / 3) * self.vocab

    def forward_flops(self, N: ArrayLike) -> NDArray[np.float64]:
        """F(N), FLOPs a token of one forward pass (Eq. 69), or 2N under the ``6nd`` rule."""
        N = np.asarray(N, dtype=np.float64) * self.active_share
        if self.rule == "6nd":
            return 2 * N
        context_weight, vocab_weight = _weights(self)
        step = np.exp(np.log(N) * (-1 / 3))
        square = step * step
        return np.asarray(2 * (1 + step * context_weight + square * vocab_weight) / (square * step))

    def forward_flops_and_slope(
        self, ln_N: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return F(N) and its elasticity d ln F / d ln N, which lies between 1/3 and 1."""
        ln_N = ln_N + math.log(self.active_share)
        if self.rule == "6nd":
            return 2 * np.exp(ln_N), np.ones_like(ln_N)
        context_weight, vocab_weight = _weights(self)
        step = np.exp(ln_N * (-1 / 3))
        square = step * step
        context, vocab = step * context_weight, square * vocab_weight
        total = 1 + context + vocab
        return 2 * total / (square * step), 1 - (context + 2 * vocab) / (3 * total)

    def params_for_flops(self, forward_flops: ArrayLike) -> NDArray[np.float64]:
        """Return the parameters of a model whose forward pass costs this many FLOPs a token: F inverted."""
        F = np.asarray(forward_flops, dtype=np.float64)
        if self.rule == "6nd":
            return F / 2 / self.active_share
        ln_N = np.interp(np.log(F), _table(self), _TABLE_LN_N)
        value, slope = self.forward_flops_and_slope(ln_N)
        return np.exp(ln_N - np.log(value / F) / slope)

    def training_flops(self, N: ArrayLike, tokens: ArrayLike = 1.0) -> NDArray[np.float64]:
        """Return the FLOPs of training ``N`` parameters on ``tokens`` tokens."""
        return FORWARDS_PER_STEP * self.forward_flops(N) * np.asarray(tokens, dtype=np.float64)

    def shape(self, layers: int, head_dim: int = 128, ffn_multiple: int = 128) -> ModelShape:
        """Return the member with ``layers`` layers, its widths rounded as in Table 13."""
        width = round(self.aspect_ratio * layers)
        heads = max(1, round(self.attention_ratio * width / head_dim))
        return ModelShape(
            layers=layers,
            width=width,
            ffn=ffn_multiple * math.ceil(round(self.ffn_ratio * width, 6) / ffn_multiple),
            heads=heads,
            head_dim=head_dim,
            kv_heads=max(1, round(heads / self.group_size)),
            vocab=self.vocab,
            context=self.context,
        )


@lru_cache
def _weights(architecture: Architecture) -> tuple[float, float]:
    return architecture.context_constant, architecture.vocab_constant


@lru_cache
def _table(architecture: Architecture) -> NDArray[np.float64]:
    return np.log(architecture.forward_flops_and_slope(_TABLE_LN_N)[0])


def _check_positive(thing: ModelShape | Architecture, *names: str) -> None:
    for name in names:
        value = getattr(thing, name)
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{type(thing).__name__}.{name}: must be positive, not {value!r}")
