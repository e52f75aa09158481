"""FLOPs and parameters of a forward pass over text, counted on the meta device.

The model runs as transformers implements it. Matrix products are counted when dispatched, as
``torch.utils.flop_counter`` does. Attention and mixtures of experts are replaced by stand-ins, which record
heads, windows and experts per token. Element-wise operations (norms, activations, scans of state-space
layers) are not counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sweeps.dag.external_shape import AttentionCost

STAND_IN = "distlaw-counted"
"""Name of the stand-ins in transformers' registries."""
LENGTH, MAX_CHUNK = 64, 1024
"""Tokens of a pass, a multiple of the chunks of linear attention, and the longest such chunk."""
DISTANT_POSITION = 2**24
"""Position beyond any window."""
Window = tuple[int | None, bool]
"""Window in tokens, None for full attention; and True if it is the chunk of the token."""
FULL_WINDOW: Window = (None, False)
SOFTMAX_FLOPS = 5.0
"""FLOPs of the softmax per score (Busbridge et al. 2025, Tables 9-12)."""
aten = torch.ops.aten


class NotCausalError(Exception):
    """Raised if the model attends to later tokens."""


@dataclass(frozen=True, slots=True)
class ForwardCounts:
    """Counts of a forward pass without its output projection."""

    flops: float
    """FLOPs per token, without attention."""
    attention: tuple[AttentionCost, ...]
    touched: frozenset[int]
    """The ``id`` of every parameter used for text, all experts included."""
    idle: float
    """Parameters of experts that a token does not use, on average."""
    tanh: bool
    """True if tanh is applied to the logits."""


def count_forward(model: Any) -> ForwardCounts:
    """Count a forward pass of ``model``, a causal language model of transformers on the meta device.

    Products that grow with the square of the length are attention without the usual interface; two lengths
    separate them from those with a constant cost per token.

    Raises:
        NotCausalError: if a token attends to later ones.
        Exception: of any type, if the code in transformers needs values, not shapes.
    """
    length = LENGTH * -(-_longest_chunk(model.config) // LENGTH)
    first, second = (_pass(model, tokens) for tokens in (length, 2 * length))
    each, twice = first.flops / length, second.flops / (2 * length)
    pairs = first.pairs
    pairs[FULL_WINDOW] += (twice - each) / length
    return ForwardCounts(
        flops=each - (twice - each),
        attention=tuple(
            AttentionCost(flops_per_pair=flops, reach=reach, chunked=chunked)
            for (reach, chunked), flops in sorted(pairs.items(), key=repr)
            if flops > 0
        ),
        touched=frozenset(first.touched),
        idle=first.idle,
        tanh=first.tanh,
    )


def _longest_chunk(config: Any) -> int:
    """Return the longest chunk of linear attention, whose cost per token is constant in whole chunks."""
    text = config.get_text_config()
    named = [getattr(text, name, None) for name in ("chunk_size", "mamba_chunk_size", "block_size")]
    return max([LENGTH, *(size for size in named if isinstance(size, int) and size <= MAX_CHUNK)])


def _pass(model: Any, length: int) -> _Count:
    count = _Count(length)
    tokens = torch.zeros(1, length, dtype=torch.long, device="meta")
    with _replaced(model, count), torch.no_grad(), torch.device("meta"), count:
        model(input_ids=tokens, use_cache=False)
    return count


@dataclass(eq=False)
class _Count(TorchDispatchMode):
    """Counter of dispatched operations, with stand-ins for attention and experts."""

    length: int
    """Tokens of the pass."""
    flops: float = 0.0
    pairs: defaultdict[Window, float] = field(default_factory=lambda: defaultdict(float))
    """FLOPs of one query-key pair, by window."""
    touched: set[int] = field(default_factory=set)
    idle: float = 0.0
    in_head: bool = False
    after_head: bool = False
    tanh: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``function`` and count it; reading a value gives True or 1."""
        del types
        if function is aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1
        out = function(*args, **(kwargs or {}))
        for arg in args:
            for each in arg if isinstance(arg, list | tuple) else (arg,):
                if isinstance(each, nn.Parameter):
                    self.touched.add(id(each))
        if not self.in_head:
            self.flops += self._flops_of(function._overloadpacket, args, kwargs or {}, out)
            self.tanh |= self.after_head and function._overloadpacket is aten.tanh
        return out

    def _flops_of(self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> float:
        if packet is aten._softmax:
            return SOFTMAX_FLOPS * out.numel()
        if packet is aten.convolution:  # a token uses every weight once; padding is not a token
            return 2.0 * args[1].numel() * args[0].shape[-1]
        if packet not in flop_registry or (packet is aten.bmm and args[0].shape[-1] == 1):
            return 0.0  # an outer product computes tables, such as rotary angles
        return float(flop_registry[packet](*args, **kwargs, out_val=out))

    def mask(
        self, *, q_length: int, kv_length: int, mask_function: Any = None, config: Any = None, **_: Any
    ) -> Tensor:
        """Return a stand-in for the mask of a layer, with its window."""
        found = torch.zeros(1, 1, q_length, kv_length, device="meta")
        found.window = _window(mask_function, config)  # type: ignore[attr-defined]
        return found

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *given: Any, **how: Any
    ) -> tuple[Tensor, None]:
        """Count attention and return a stand-in, ``(batch, heads, time, head_dim)``."""
        del module, key
        mask = given[0] if given else how.get("attention_mask")
        batch, heads, time, width = query.shape
        window = getattr(mask, "window", FULL_WINDOW)
        if window is None:
            raise NotCausalError
        if window == FULL_WINDOW and isinstance(how.get("sliding_window"), int):
            window = how["sliding_window"], False
        self.pairs[window] += heads * (2 * (width + value.shape[-1]) + SOFTMAX_FLOPS)
        return query.new_empty(batch, time, heads, value.shape[-1]), None

    def meet(
        self, module: nn.Module, top: int, hidden: Tensor, chosen: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        """Stand in for the experts of a layer, of which each token meets those ``chosen``, ``(.., top)``."""
        own = list(module.parameters())
        experts = getattr(module, "num_experts", None) or max(p.shape[0] for p in own if p.ndim == 3)
        met = min(1.0, (top if chosen is None else chosen.shape[-1]) / experts)
        self.touched |= {id(p) for p in own}
        self.idle += (1 - met) * sum(p.numel() for p in own)
        matrices = sum(p.numel() for p in own if p.ndim == 3 or (p.ndim == 2 and p.shape[0] > experts))
        self.flops += 2 * self.length * met * matrices
        return torch.empty_like(hidden)


def _window(allows: Callable[..., Any] | None, config: Any) -> Window | None:
    """Return the window of a mask for a late token; None if it includes later ones."""

    def sees(query: int, key: int) -> bool:
        where = [torch.tensor(number, device="cpu") for number in (0, 0, query, key)]
        return bool(allows(*where)) if allows is not None else key <= query

    def reach(query: int) -> int:
        low, high = -1, query  # the last that is not seen, one that is
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if sees(query, middle) else (middle, high)
        return query - low

    with torch.utils._python_dispatch._disable_current_modes():
        try:
            if sees(0, 1):
                return None
            return (
                FULL_WINDOW
                if sees(DISTANT_POSITION, 0)
                else (reach(DISTANT_POSITION - 1), reach(DISTANT_POSITION) == 1)
            )
        except (RuntimeError, NotImplementedError, IndexError):  # it depends on padding, as chunks do
            chunk = getattr(config, "attention_chunk_size", None)
            return (chunk, True) if chunk else FULL_WINDOW


@contextmanager
def _replaced(model: Any, count: _Count) -> Iterator[None]:
    """Let ``model`` use the stand-ins of ``count``, and tell it when the output projection is reached."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    stand_ins = (ALL_ATTENTION_FUNCTIONS, count.attend), (ALL_MASK_ATTENTION_FUNCTIONS, count.mask)
    for interface, function in stand_ins:
        interface.register(STAND_IN, function)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation_internal = STAND_IN
        if isinstance(experts := getattr(module, "experts", None), nn.Module):
            experts.forward = partial(count.meet, experts, _top(model.config))
    hooks = _hooked(model, count)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for interface, _ in stand_ins:
            del interface._global_mapping[STAND_IN]


def _top(config: Any) -> int:
    """Return the experts per token, for models that compute all experts and weight most with zero."""
    return getattr(config.get_text_config(), "num_experts_per_tok", None) or 1


def _hooked(model: Any, count: _Count) -> list[Any]:
    def enter(*_: Any) -> None:
        count.in_head = True

    def leave(*_: Any) -> None:
        count.in_head, count.after_head = False, True

    head = model.get_output_embeddings()
    return [head.register_forward_pre_hook(enter), head.register_forward_hook(leave)]
