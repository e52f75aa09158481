"""Parameters and FLOPs of a pretrained model, counted without its weights."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from scaling.open_models import UNLIMITED_CONTEXT
from sweeps.dag.external_shape import CountedShape
from sweeps.data.cache import cache_dir
from sweeps.data.model_dir import HUB_ID, PLANNING_FILES, read_config, snapshot
from sweeps.model.model_files import shape_of

if TYPE_CHECKING:
    from sweeps.pretrained.forward import ForwardCounts

NONLINEAR_REASON = "so they do not follow from its last hidden states, as the loss requires; use another"
SOFT_CAP_NAMES = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names of the soft cap of logits in configurations."""
CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len", "seq_length", "context_length")
"""Names of the longest context in configurations."""
EXPERTS = re.compile(r"(moe_)?(num|n)_(routed_|local_)?experts")
"""Names of the number of experts in configurations."""
MET_EXPERTS = re.compile(r"experts?_per_tok|moe_top_?k|moe_k|top_?k_experts|experts_top_?k|selected_experts")
"""Names of the number of experts that a token meets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """Description of a model from its configuration alone."""

    architecture: str
    shape: ModelShape
    """Shape with the full vocabulary, padding included, and the longest context."""
    licence: str | None = None


def card_of_model(model: str, where: str = "teacher") -> ModelCard:
    """Describe the model in a directory or on a hub, from its configuration alone.

    Raises:
        InputError: as :func:`read_card`, and if there is no such model or its download fails.
    """
    path = Path(model).expanduser()
    if path.suffix == ".gguf" or "gguf" in model.lower().rpartition("/")[2].split("-"):
        raise InputError(
            f"{where}: {model} is in the GGUF format, which has no config.json; name the model that it was "
            "converted from, or convert the file to a directory once: distlaw teacher import FILE.gguf DIR"
        )
    if path.is_dir():
        return read_card(path, where)
    if not HUB_ID.fullmatch(model):
        raise InputError(f"{where}: no directory {model}; give one, or OWNER/NAME on a hub")
    return read_card(snapshot(model, None, PLANNING_FILES, where), where)


def read_card(folder: Path, where: str = "teacher") -> ModelCard:
    """Describe the model in ``folder``.

    Raises:
        InputError: if transformers cannot build it without running code of its repository, or it is not a
            causal language model.
    """
    found = read_config(folder, where)
    _check_experts(found, f"{where}: {folder / 'config.json'}")
    if own := shape_of(found):
        return ModelCard(architecture="distlaw", shape=own, licence=_licence(folder))
    memo = cache_dir() / "counted-2" / f"{_key(found)}.json"
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        known = json.loads(memo.read_text())
        return ModelCard(
            architecture=known["architecture"],
            shape=CountedShape.read(known["shape"]),
            licence=_licence(folder),
        )
    card = _counted(folder, where)
    with suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(json.dumps(asdict(card)))
    return card


def _check_experts(found: dict[str, Any], where: str) -> None:
    """Refuse experts without the number that a token meets, for which transformers would put a default."""
    settings = found | {
        name: value for part in found.values() if isinstance(part, dict) for name, value in part.items()
    }
    experts = {name: n for name, n in settings.items() if EXPERTS.fullmatch(name) and isinstance(n, int)}
    if max(experts.values(), default=0) > 1 and not any(map(MET_EXPERTS.search, settings)):
        told = ", ".join(f"{name} {n}" for name, n in experts.items())
        raise InputError(
            f"{where} has experts ({told}), but does not say how many of them a token meets; add it, such as "
            '"num_experts_per_tok": 8'
        )


def _counted(folder: Path, where: str) -> ModelCard:
    from transformers import AutoConfig

    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises many types
        raise InputError(f"{where}: {folder} {_rejection(folder, error)}") from None
    return replace(card_from_config(settings, f"{where}: {folder}"), licence=_licence(folder))


def card_from_config(settings: Any, where: str = "teacher") -> ModelCard:
    """Describe a model with these ``settings`` of transformers, without weights.

    Raises:
        InputError: if transformers cannot build it, it cannot be counted, or it cannot be a teacher.
    """
    from sweeps.pretrained.forward import NotCausalError, count_forward

    model = _build_on_meta(settings, where)
    try:
        found = count_forward(model)
        shape = _shape(model, found)
    except NotCausalError:
        raise InputError(
            f"{where} ({type(model).__name__}) attends to later tokens, so it is not a causal language "
            "model; use another (or set is_decoder in its config.json, if it was trained as one)"
        ) from None
    except Exception as error:  # transformers raises many types
        raise InputError(
            f"{where} ({type(model).__name__}) cannot be counted without its weights ({_first_line(error)}); "
            "use another teacher"
        ) from None
    if found.tanh and not soft_cap_of(settings):
        raise InputError(
            f"{where}: {type(model).__name__} caps its logits softly, by no setting in its config.json "
            f"({' or '.join(SOFT_CAP_NAMES)}), {NONLINEAR_REASON}"
        )
    return ModelCard(architecture=type(model).__name__, shape=shape)


def _build_on_meta(settings: Any, where: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                settings, trust_remote_code=False, attn_implementation="eager"
            )
        head = model.get_output_embeddings()
    except Exception as error:  # transformers raises many types
        raise InputError(
            f"{where} is not a causal language model that transformers can build ({_first_line(error)})"
        ) from None
    if getattr(head, "weight", None) is None:
        raise InputError(f"{where} ({type(model).__name__}) has no output projection over a vocabulary")
    return model.eval()


def _shape(model: Any, found: ForwardCounts) -> CountedShape:
    from torch import nn

    text = model.config.get_text_config()
    head = model.get_output_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    embeddings = {id(p): p for m in [*tables, head] for p in m.parameters()}
    own = [p for p in model.parameters() if id(p) not in embeddings and id(p) in found.touched]
    met = [p for number, p in embeddings.items() if number in found.touched]
    counted = sum(p.numel() for p in own)
    width, heads = text.hidden_size, _setting(text, "num_attention_heads") or 1
    kv_heads = _setting(text, "num_key_value_heads") or heads
    return CountedShape(
        layers=_setting(text, "num_hidden_layers") or 1,
        width=width,
        ffn=_setting(text, "intermediate_size") or _setting(text, "n_inner") or 4 * width,
        heads=heads,
        head_dim=_setting(text, "head_dim") or max(1, width // heads),
        kv_heads=kv_heads if heads % kv_heads == 0 else heads,
        vocab=head.weight.shape[0],
        context=next((n for name in CONTEXT_NAMES if (n := _setting(text, name))), UNLIMITED_CONTEXT),
        tied=bool(getattr(model.config, "tie_word_embeddings", False)),
        counted=counted,
        active=round(counted - found.idle),
        embedded=sum(p.numel() for p in met),
        loaded=sum(p.numel() for p in model.parameters()),
        head_width=head.weight.shape[1],
        fixed_flops=found.flops,
        attention=found.attention,
    )


def _setting(text: Any, name: str) -> int | None:
    """Return a setting; the largest value if layers differ."""
    found = None
    with suppress(Exception):  # reading one value for layers that differ is an error
        found = getattr(text, name, None)
    given = found if isinstance(found, list | tuple) else [found]
    return max((each for each in given if isinstance(each, int) and each > 0), default=None)


def soft_cap_of(settings: Any) -> float | None:
    """Return the soft cap of a model's logits, if its settings have one."""
    text = settings.get_text_config()
    caps = (getattr(text, name, None) for name in SOFT_CAP_NAMES)
    return next((float(cap) for cap in caps if cap), None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _rejection(folder: Path, error: Exception) -> str:
    found = read_config(folder)
    kind = found.get("model_type")
    if "trust_remote_code" in str(error) or "auto_map" in found:
        return (
            f"needs code from its repository (model_type {kind!r}), which is never run; use a model that "
            "transformers includes"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"is not a causal language model that transformers can build ({reason[:200]})"


def _licence(folder: Path) -> str | None:
    """Return the license in the first lines of the model card, if there is one."""
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
