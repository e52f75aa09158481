"""A foreign model as a teacher: features, an output projection and its transform, with its own logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from scaling.errors import InputError
from sweeps.dag.external_shape import Precision
from sweeps.data.model_dir import read_config, weight_files
from sweeps.model.decoder import INFERENCE_PRECISIONS, Decoder
from sweeps.model.device import device
from sweeps.model.language_model import LanguageModel, OutputTransform, SoftCap, logits_of
from sweeps.model.model_files import read_weights, shape_of
from sweeps.pretrained.count import NONLINEAR_REASON, soft_cap_of
from sweeps.pretrained.quantized import loading_error, plain_matrix, quantization_of

CLOSE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Largest difference between its own logits and ours, relative to their size."""
CHECKED = 32
"""Tokens of the check."""


class Features(nn.Module):
    """Features of a model of transformers: hidden states, scaled; a one after them meets the bias."""

    def __init__(self, body: nn.Module, scale: float, bias: bool) -> None:
        super().__init__()
        self.body, self.scale, self.bias = body, scale, bias

    def forward(self, tokens: Tensor, cache: Any = None, hidden: list[Tensor] | None = None) -> Tensor:
        read = self.body(
            input_ids=tokens,
            past_key_values=cache,
            use_cache=cache is not None,
            **({} if hidden is None else {"output_hidden_states": True}),
        )
        if hidden is not None:
            hidden += read.hidden_states
        last: Tensor = read.last_hidden_state
        last = last if self.scale == 1 else last * self.scale
        return torch.cat((last, last.new_ones(*last.shape[:-1], 1)), -1) if self.bias else last

    def empty_cache(self) -> Any:
        """Return an empty key-value cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self.body.config)


class Foreign(nn.Module):
    """A frozen model with the interface of :class:`sweeps.model.decoder.Decoder`."""

    head: Tensor

    def __init__(
        self, model: nn.Module, head: Tensor, output_transform: OutputTransform | None = None
    ) -> None:
        super().__init__()
        self.model, self.output_transform = model, output_transform
        self.register_buffer("head", head)


def load_pretrained(
    folder: Path, vocab: int, where: str = "teacher", precision: Precision = "fp32"
) -> Decoder | Foreign:
    """The model in ``folder``, frozen, over the first ``vocab`` tokens.

    With ``precision`` bf16 or fp16 a model of transformers is loaded in it, in half the memory; a model of
    ours multiplies matrices in it.

    Rows of its output projection beyond ``vocab`` are padding, whatever is in them: no token has them, so
    they are left out and the rest is normalised, in its loss as in what its students follow. A logit may be
    -inf: the model gives that token no probability.

    Raises:
        InputError: if it knows fewer tokens, its weights do not fit, or its logits are no numbers or more
            than a linear function of its last hidden states, softly capped or not.
    """
    own = shape_of(read_config(folder, where))
    dtype = INFERENCE_PRECISIONS[precision]
    model: Decoder | Foreign = (
        _own(folder, own, where, dtype) if own else _transformers(folder, vocab, where, dtype)
    )
    return checked(model, vocab, folder, where)


def checked(model: Decoder | Foreign, vocab: int, folder: Path, where: str) -> Decoder | Foreign:
    """Return ``model`` frozen and over ``vocab`` tokens, as :func:`load_pretrained` promises.

    Raises:
        InputError: if it knows fewer tokens, or its logits are no numbers.
    """
    known = model.head.shape[0]
    if known < vocab:
        raise InputError(
            f"{where}: {folder} knows {known:,} tokens, but its tokenizer has {vocab:,}; those it does not "
            "know would have no probability"
        )
    if known > vocab:  # of one of ours; those of others are cut already
        model = Foreign(model.model, model.head[:vocab].clone())  # which transforms no logits
    _refuse_nonsense(model, folder, where)
    return model.eval().requires_grad_(False)


def _own(folder: Path, shape: Any, where: str, dtype: torch.dtype) -> Decoder:
    model = Decoder(shape)
    model.precision = dtype
    try:
        model.load_state_dict(read_weights(folder))
    except (RuntimeError, SafetensorError) as error:
        reason = _first(error)
        raise InputError(f"{where}: the weights in {folder} do not fit its config.json ({reason})") from None
    return model


def _transformers(folder: Path, vocab: int, where: str, dtype: torch.dtype) -> Foreign:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    weight_files(folder, where)
    logging.disable_progress_bar()
    quantization = quantization_of(read_config(folder, where), where)
    at = {"device_map": {"": device()}} if quantization and device().type != "cpu" else {}
    try:
        causal, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **at,  # a quantized model is packed for one device
        )
    except Exception as error:  # transformers raises what it likes
        if quantization:
            raise InputError(f"{where}: {loading_error(quantization, _first(error), folder)}") from None
        raise InputError(f"{where}: {folder} cannot be loaded ({_first(error)})") from None
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{where}: the weights in {folder} do not fit its config.json: {missing[0]} is missing"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    return wrap(causal.eval(), vocab, where)


@torch.no_grad()
def wrap(causal: Any, vocab: int, where: str = "teacher") -> Foreign:
    """``causal`` of transformers over the first ``vocab`` tokens, as features and output projection, checked.

    A constant factor on the logits (Cohere, Granite) goes into the features, a bias into one more of them; a
    soft cap (Gemma) is the model's ``output_transform``.

    Raises:
        InputError: if something else comes after the projection.
    """
    projection = causal.get_output_embeddings()
    head, bias = plain_matrix(projection, where, type(causal).__name__), getattr(projection, "bias", None)
    head = (head if bias is None else torch.cat((head, bias[:, None]), 1))[:vocab].clone()
    tokens = torch.arange(CHECKED, device=head.device)[None] * (head.shape[0] // CHECKED)
    theirs = causal(input_ids=tokens, use_cache=False).logits[..., : head.shape[0]]
    if not _are_logits(theirs):
        raise InputError(f"{where}: {_not_finite(causal, vocab)}")
    cap = soft_cap_of(causal.config)
    transform = SoftCap(cap) if cap else None
    model = Foreign(Features(causal.base_model, 1.0, bias is not None), head, transform)
    features = model.model(tokens)
    if not _close(theirs, logits_of(model, features)):
        factor = _factor(theirs, F.linear(features, head), transform)
        model = Foreign(Features(causal.base_model, factor, bias is not None), head, transform)
        if not _close(theirs, logits_of(model, model.model(tokens))):
            raise InputError(f"{where}: {_why_not(causal)}")
    return model


def _factor(theirs: Tensor, projected: Tensor, cap: SoftCap | None) -> float:
    """Return the factor by which a model's logits, before a soft cap, are ``projected``, by least squares."""
    theirs, projected = theirs.double(), projected.double()
    theirs = cap.inverse(theirs) if cap else theirs
    both = theirs.isfinite() & projected.isfinite()
    return float((theirs * projected)[both].sum() / projected[both].square().sum())


def _are_logits(logits: Tensor) -> bool:
    """Return True if logits are finite, or -inf for some tokens, but not for all."""
    return bool(logits.amax(-1).isfinite().all())


def _close(theirs: Tensor, ours: Tensor) -> bool:
    possible = theirs.isfinite()
    if not torch.equal(possible, ours.isfinite()):
        return False
    return bool((theirs - ours)[possible].abs().max() <= CLOSE[theirs.dtype] * theirs[possible].abs().max())


def _why_not(causal: Any) -> str:
    cap = soft_cap_of(causal.config)
    how = f"project them and cap them softly at {cap:g}" if cap else "project them"
    return f"{type(causal).__name__} does more to its logits than {how}, {NONLINEAR_REASON}"


def _not_finite(causal: Any, vocab: int) -> str:
    tables = {id(part.weight) for part in (causal.get_input_embeddings(), causal.get_output_embeddings())}
    bad = [
        name
        for name, tensor in causal.named_parameters()
        if not (tensor[:vocab] if id(tensor) in tables else tensor).isfinite().all()
    ]
    if bad:
        return f"its weights are not all finite numbers ({bad[0]}), so its logits are not either"
    return "its logits are not all finite numbers, though its weights are; it may need another precision"


def _refuse_nonsense(model: LanguageModel, folder: Path, where: str) -> None:
    with torch.no_grad():
        logits = logits_of(model, model.model(torch.zeros(1, 8, dtype=torch.long, device=model.head.device)))
    if not _are_logits(logits):
        raise InputError(f"{where}: {folder}: its logits are not all finite numbers; distil from another")


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
