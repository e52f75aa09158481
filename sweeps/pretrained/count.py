"""How large a foreign model is and what a token costs it, counted without its weights."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.external_shape import CountedShape
from sweeps.data.cache import cache_dir
from sweeps.data.model_dir import HUB_ID, SMALL, config, snapshot
from sweeps.model.model_files import shape_of

if TYPE_CHECKING:
    from sweeps.pretrained.forward import Forward

NONLINEAR = (
    "so its logits are no linear function of its last hidden states, which the loss needs; use another"
)
CONTEXTS = ("max_position_embeddings", "max_seq_len", "seq_length", "context_length")
"""Names that configurations have for the longest text."""
UNLIMITED = 2**31 - 1
"""Tokens, where none of them is given: recurrent models, and positions that are differences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What a model is, from its configuration alone."""

    architecture: str
    shape: ModelShape
    """With its own vocabulary, padding included, and the longest context it is made for."""
    licence: str | None = None


def card_of_model(model: str, where: str = "teacher") -> Card:
    """Return what the model in a directory or on a hub is, from its configuration alone: no weights are read.

    Raises:
        InputError: As :func:`card_of`, and if there is no such model or it cannot be had.
    """
    path = Path(model).expanduser()
    if path.suffix == ".gguf" or "gguf" in model.lower().rpartition("/")[2].split("-"):
        raise InputError(
            f"{where}: {model} is in the GGUF format, which has no config.json; name the model that it was "
            "made from, or make a directory of the file, once: distlaw teacher import FILE.gguf DIR"
        )
    if path.is_dir():
        return card_of(path, where)
    if not HUB_ID.fullmatch(model):
        raise InputError(f"{where}: there is no directory {model}; give one, or OWNER/NAME on a hub")
    return card_of(snapshot(model, None, SMALL, where), where)


def card_of(folder: Path, where: str = "teacher") -> Card:
    """What the model in ``folder`` is.

    Raises:
        InputError: if transformers cannot build it without running code of its repository, or it is no
            causal language model.
    """
    found = config(folder, where)
    if own := shape_of(found):
        return Card(architecture="distlaw", shape=own, licence=_licence(folder))
    memo = cache_dir() / "counted-2" / f"{_key(found)}.json"
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        known = json.loads(memo.read_text())
        return Card(
            architecture=known["architecture"],
            shape=CountedShape.read(known["shape"]),
            licence=_licence(folder),
        )
    card = _counted(folder, where)
    with suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(json.dumps(asdict(card)))
    return card


def _counted(folder: Path, where: str) -> Card:
    from transformers import AutoConfig

    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises what it likes
        raise InputError(f"{where}: {folder} {_why_not(folder, error)}") from None
    return replace(card_of_config(settings, f"{where}: {folder}"), licence=_licence(folder))


def card_of_config(settings: Any, where: str = "teacher") -> Card:
    """What a model with these ``settings`` of transformers is; no weights are needed.

    Raises:
        InputError: if transformers cannot build it, it cannot be counted, or it cannot teach.
    """
    from sweeps.pretrained.forward import NotCausalError, count_forward

    model = _built(settings, where)
    try:
        found = count_forward(model)
        shape = _shape(model, found)
    except NotCausalError:
        raise InputError(
            f"{where} ({type(model).__name__}) attends to later tokens, so it is no causal language model; "
            "give another (or set is_decoder in its config.json, if it was trained as one)"
        ) from None
    except Exception as error:  # transformers raises what it likes
        raise InputError(
            f"{where} ({type(model).__name__}) cannot be counted without its weights ({_first(error)}); give "
            "another teacher"
        ) from None
    if found.tanh:
        how = soft_cap(model) or "caps its logits softly"
        raise InputError(f"{where}: {type(model).__name__} {how}, {NONLINEAR}")
    return Card(architecture=type(model).__name__, shape=shape)


def _built(settings: Any, where: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                settings, trust_remote_code=False, attn_implementation="eager"
            )
        head = model.get_output_embeddings()
    except Exception as error:  # transformers raises what it likes
        raise InputError(
            f"{where} is no causal language model that transformers can build ({_first(error)})"
        ) from None
    if getattr(head, "weight", None) is None:
        raise InputError(f"{where} ({type(model).__name__}) has no output projection over a vocabulary")
    return model.eval()


def _shape(model: Any, found: Forward) -> CountedShape:
    from torch import nn

    text = model.config.get_text_config()
    head = model.get_output_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    embeddings = {id(p): p for m in [*tables, head] for p in m.parameters()}
    own = [p for p in model.parameters() if id(p) not in embeddings and id(p) in found.touched]
    met = [p for number, p in embeddings.items() if number in found.touched]
    counted = sum(p.numel() for p in own)
    width, heads = text.hidden_size, _number(text, "num_attention_heads") or 1
    kv_heads = _number(text, "num_key_value_heads") or heads
    return CountedShape(
        layers=_number(text, "num_hidden_layers") or 1,
        width=width,
        ffn=_number(text, "intermediate_size") or _number(text, "n_inner") or 4 * width,
        heads=heads,
        head_dim=_number(text, "head_dim") or max(1, width // heads),
        kv_heads=kv_heads if heads % kv_heads == 0 else heads,
        vocab=head.weight.shape[0],
        context=next((n for name in CONTEXTS if (n := _number(text, name))), UNLIMITED),
        tied=bool(getattr(model.config, "tie_word_embeddings", False)),
        counted=counted,
        active=round(counted - found.idle),
        embedded=sum(p.numel() for p in met),
        loaded=sum(p.numel() for p in model.parameters()),
        head_width=head.weight.shape[1],
        fixed_flops=found.flops,
        attention=found.attention,
    )


def _number(text: Any, name: str) -> int | None:
    """A setting; the largest where layers differ in it."""
    found = None
    with suppress(Exception):  # one value of layers with configurations of their own is an error
        found = getattr(text, name, None)
    given = found if isinstance(found, list | tuple) else [found]
    return max((each for each in given if isinstance(each, int) and each > 0), default=None)


def soft_cap(causal: Any) -> str:
    """How a model says that it caps its logits, if it does."""
    text = causal.config.get_text_config()
    caps = (getattr(text, name, None) for name in ("final_logit_softcapping", "logits_soft_cap"))
    return next((f"caps its logits softly at {cap:g}" for cap in caps if cap), "")


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _why_not(folder: Path, error: Exception) -> str:
    found = config(folder)
    kind = found.get("model_type")
    if "trust_remote_code" in str(error) or "auto_map" in found:
        return (
            f"needs code from its repository (model_type {kind!r}), which is never run; give a model that "
            "transformers knows itself"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"is no causal language model that transformers can build ({reason[:200]})"


def _licence(folder: Path) -> str | None:
    """From the model card's first lines, if there is one."""
    with suppress(OSError, UnicodeDecodeError):
        for line in (folder / "README.md").read_text(encoding="utf-8").splitlines()[:60]:
            if line.startswith("license:"):
                return line.removeprefix("license:").strip() or None
    return None


def _key(found: dict[str, Any]) -> str:
    import hashlib
    from importlib.metadata import version

    text = json.dumps([found, version("transformers")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
