"""How large a foreign model is and what a token costs it, counted without its weights."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scaling.compute import ModelShape
from scaling.errors import InputError
from sweeps.corpora.cache import cache_dir
from sweeps.engine.model_files import shape_of
from sweeps.foreign.files import config
from sweeps.foreign.shapes import CountedShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What a model is, from its configuration alone."""

    architecture: str
    shape: ModelShape
    """With its own vocabulary, padding included, and the longest context it is made for."""
    licence: str | None = None


def card_of(folder: Path, where: str = "teacher") -> Card:
    """What the model in ``folder`` is.

    Raises:
        InputError: if transformers cannot build it without running code of its repository, or it is no
            causal language model.
    """
    found = config(folder, where)
    if own := shape_of(found):
        return Card(architecture="distlaw", shape=own, licence=_licence(folder))
    memo = cache_dir() / "counted" / f"{_key(found)}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(memo.read_text())
        return Card(
            architecture=known["architecture"],
            shape=CountedShape(**known["shape"]),
            licence=_licence(folder),
        )
    card = _counted(folder, where)
    with suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(json.dumps(asdict(card)))
    return card


def _counted(folder: Path, where: str) -> Card:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    except Exception as error:  # transformers raises what it likes
        raise InputError(f"{where}: {folder} {_why_not(folder, error)}") from None
    text = settings.get_text_config()
    heads = text.num_attention_heads
    width = text.hidden_size
    params, matrices = _parameters(model, text)
    shape = CountedShape(
        layers=text.num_hidden_layers,
        width=width,
        ffn=getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * width,
        heads=heads,
        head_dim=getattr(text, "head_dim", None) or width // heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        vocab=model.get_output_embeddings().weight.shape[0],
        context=text.max_position_embeddings,
        tied=bool(settings.tie_word_embeddings),
        counted=params,
        multiplied=matrices,
    )
    return Card(architecture=type(model).__name__, shape=shape, licence=_licence(folder))


def _parameters(model: Any, text: Any) -> tuple[int, int]:
    """Non-embedding parameters, and those that multiply a token."""
    from torch import nn

    looked_up = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    embeddings = {id(p) for m in [*looked_up, model.get_output_embeddings()] for p in m.parameters()}
    own = [(name, p) for name, p in model.named_parameters() if id(p) not in embeddings]
    experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 1
    met = (getattr(text, "num_experts_per_tok", None) or 1) / experts if experts > 1 else 1.0
    matrices = sum(p.numel() * (met if ".experts." in name else 1.0) for name, p in own if p.ndim > 1)
    return sum(p.numel() for _, p in own), round(matrices)


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
