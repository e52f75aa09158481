"""Bytes that a model holds besides its weights, gradients and moments: by a token, from its shape.

Elements are counted as PyTorch allocates them for :mod:`sweeps.model.decoder`; `benchmarks/memory_model.py`
compares the sums with its allocator.
"""

from __future__ import annotations

from scaling.costs.flops import ModelShape

BYTES_PER_ELEMENT = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
MAX_FULL_LOGITS = 2.0**23
"""Logits that are held in full, as in :mod:`sweeps.model.chunked_loss`."""
LOGITS_PER_CHUNK = {"fp32": 2.0**22, "bf16": 2.0**24}
"""Logits of a chunk beyond that."""
LABEL_LOSS_BYTES = {"fp32": 12.0, "bf16": 10.0}
"""Peak bytes a logit of a cross-entropy: logits, their differences from the largest, exponentials."""
DIVERGENCE_BYTES = {"fp32": 25.0, "bf16": 23.0}
"""Peak bytes a logit of a divergence: logits, both log-probabilities' differences, products and a mask."""


def saved_by_layer(shape: ModelShape, precision: str, *, gpu: bool) -> float:
    """Return bytes a token that one layer saves for its backward pass.

    In float32: both residual streams, inputs of norms scaled but not weighted (kernels of GPUs do without),
    and rounded products' inputs in the precision. On CPU also the softmax of attention scores.
    """
    size, inner = BYTES_PER_ELEMENT[precision], shape.heads * shape.head_dim
    scaled = 0 if gpu else 2 * shape.width + 2 * inner
    full = 2 * shape.width + scaled + 2 + 2 * shape.heads
    rounded = 2 * shape.width + 6 * inner + 4 * shape.ffn + attention_scores(shape, gpu)
    if precision != "fp32":
        full += 2 * inner  # queries and keys, once more before they are rounded
    return 4.0 * full + size * rounded


def saved_matrices(shape: ModelShape, precision: str) -> float:
    """Return bytes of matrices that a forward pass makes and saves: joined ones, or all that are rounded."""
    if precision != "fp32":
        return BYTES_PER_ELEMENT[precision] * (shape.matrix_params + shape.vocab * shape.width)
    return 4.0 * shape.layers * _joined(shape)


def saved_activations(
    shape: ModelShape, precision: str, tokens: float, *, gpu: bool, recompute: bool
) -> float:
    """Return bytes saved of ``tokens`` tokens when the backward pass begins, matrices included.

    With ``recompute`` a block keeps its input only, and one block at a time is computed again.
    """
    ends = 4.0 * tokens * (3 * shape.width)
    layer = tokens * saved_by_layer(shape, precision, gpu=gpu)
    if not recompute:
        return ends + shape.layers * layer + saved_matrices(shape, precision)
    again = layer + saved_matrices(shape, precision) / shape.layers
    return ends + 4.0 * tokens * shape.width * shape.layers + again


def layer_temporaries(shape: ModelShape, tokens: float, *, gpu: bool) -> float:
    """Return bytes that the backward pass of a layer needs beside what was saved."""
    scores = 3 * attention_scores(shape, gpu)
    inner = shape.heads * shape.head_dim
    freed = 4 * shape.ffn + 3 * shape.width  # of the layer's feed-forward part, when attention is reached
    attention = max(0.0, scores + 4 * inner - freed)
    return 4.0 * tokens * max(3.0 * shape.ffn, attention) + 4.0 * tokens * shape.width


def loss_bytes(
    shape: ModelShape, precision: str, tokens: float, per_logit: float, in_chunk: float = 0.0
) -> float:
    """Return bytes of a loss at its peak, ``per_logit`` each logit: of all logits, or of a chunk of them.

    A chunk holds ``in_chunk`` more each, its logits and gradient last until the next has its own, and
    gradients of features and of the output projection are summed up.
    """
    size = BYTES_PER_ELEMENT[precision]
    if tokens * shape.vocab <= MAX_FULL_LOGITS:
        return per_logit * tokens * shape.vocab
    head = shape.vocab * shape.width
    chunk = min(tokens * shape.vocab, LOGITS_PER_CHUNK[precision])
    summed = 4.0 * head + (2 * size * head if size < 4 else 0.0)
    return (per_logit + in_chunk + 2 * size) * chunk + summed + size * tokens * shape.width


def attention_scores(shape: ModelShape, gpu: bool) -> float:
    """Return the number of attention scores of a token that are held: none where attention is fused."""
    return 0.0 if gpu else float(shape.heads * shape.context)


def _joined(shape: ModelShape) -> float:
    """Return the elements of a layer's matrices that are multiplied side by side."""
    return float(shape.width * (3 * shape.heads * shape.head_dim + 2 * shape.ffn))
