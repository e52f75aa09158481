"""Non-embedding parameters of a run: as counted, as named, or from a total and the model's shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fits.logs.lookup import find_quantity, find_setting
from fits.logs.run_log import RunLog
from fits.table.columns.column_names import HeaderMatch, match_header

COUNTED = ("active_params", "total_params", "params", "embedding_params")
"""Settings that :mod:`fits.logs.formats.model_files` counts."""
NON_EMBEDDING = re.compile(r"(?i)non[_ -]?emb|scaling[_ ]param|transformer_matrices")
"""Names that say that embeddings are left out."""
OF_THE_MODEL = re.compile(
    r"(?i)^(?:(?:config|args|hparams)[./])?(?:model|student|network)(?:_config|_args)?[./]"
)
"""Objects of settings that are about the model that is trained."""
OTHER_TOTALS = (
    "number of parameters",
    "total number of parameters",
    "total parameters",
    "number_of_parameters",
    "params_total",
)
"""Names of total parameters that tables do not take for sizes."""


def non_embedding(
    log: RunLog, mapping: Mapping[str, str], row: Mapping[str, Any], missing: list[str]
) -> dict[str, Any]:
    """Return the columns of a run's size, and add to ``missing`` what was not found.

    A total is reduced by vocabulary x width, twice where input and output embeddings differ; where the
    shape is unknown it is refused, as it may include embeddings.
    """
    named = {
        name: found.at(log.last_step)
        for name in ("params", "active_params", "total_params")
        if name in mapping and (found := find_quantity(log, mapping[name], column=name)) is not None
    }
    if named:
        return named | {"params_source": ", ".join(mapping[name] for name in named)}
    if "params" in mapping:
        missing.append(f"params: no {mapping['params']!r} in the log")
        return {}
    counted = {name: log.settings[name] for name in COUNTED if name in log.settings}
    if "params" in counted or "active_params" in counted:
        return counted | {"params_source": "safetensors headers"}
    return _from_names(log, row, missing)


def _from_names(log: RunLog, row: Mapping[str, Any], missing: list[str]) -> dict[str, Any]:
    names = [name for name in (*log.settings, *log.series) if _is_size(name)]
    for name in sorted(names, key=lambda name: NON_EMBEDDING.search(name) is None):
        matched = _header(name)
        found = find_quantity(log, name, mapped=False)
        if found is None:
            continue
        count = found.at(log.last_step) * (matched.scale if matched else 1.0)
        if NON_EMBEDDING.search(name):
            return {"params": count, "params_source": name}
        return _without_embeddings(name, count, log, row, missing)
    note = next((note for note in log.notes if note.startswith("parameters: ")), None)
    reason = note.removeprefix("parameters: ") if note else "no model files and no number of parameters"
    missing.append(f"params: {reason}; name it: --map N=...")
    return {}


def _header(name: str) -> HeaderMatch | None:
    """Return the match of the name of a size, alone or in an object of the model: ``model.n_params``."""
    for each in (name, OF_THE_MODEL.sub("", name)):
        found = match_header(each)
        if found and found[0] in ("params", "total_params") and not found[1].symbol:
            return found[1]
    return None


def _is_size(name: str) -> bool:
    if _header(name):
        return True
    return name.lower() in OTHER_TOTALS or bool(NON_EMBEDDING.search(name))


def _without_embeddings(
    name: str, total: float, log: RunLog, row: Mapping[str, Any], missing: list[str]
) -> dict[str, Any]:
    vocab, width, tied = row.get("vocab"), row.get("d_model"), row.get("tied")
    if tied is None and find_setting(log, "untie_embeddings_and_output_weights") is not None:
        tied = str(find_setting(log, "untie_embeddings_and_output_weights")) != "True"
    if not isinstance(vocab, int | float) or not isinstance(width, int | float) or tied is None:
        unknown = [
            what for what, value in (("vocab", vocab), ("d_model", width), ("tied", tied)) if value is None
        ]
        missing.append(
            f"params: {name} ({total:g}) may include embeddings, and {', '.join(unknown)} is not in the log "
            f"to subtract them; --map N={name} takes it as it is"
        )
        return {}
    copies = 1 if str(tied).lower() in ("true", "1", "1.0") else 2
    rest = total - copies * float(vocab) * float(width)
    if rest <= 0:
        missing.append(f"params: {name} ({total:g}) is less than the embeddings of its shape")
        return {}
    return {
        "params": rest,
        "embedding_params": total - rest,
        "params_source": f"{name} - {'' if copies == 1 else '2 x '}vocab x d_model",
    }
