"""Results of lm-evaluation-harness, which become extra columns of the run that was evaluated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fits.logs.formats.json_files import load_json
from fits.logs.run_log import as_number

PREFIX = "lm_eval."


def is_lm_eval(found: object) -> bool:
    """Return True for the object of a ``results_*.json``."""
    return (
        isinstance(found, dict)
        and isinstance(found.get("results"), dict)
        and {"configs", "versions"} <= set(found)
    )


def read_lm_eval(path: Path) -> tuple[dict[str, float], str]:
    """Return the metrics by ``lm_eval.TASK.METRIC``, and the model that was evaluated, if it is named.

    Standard errors are left out, and so are filters called "none".
    """
    found = load_json(path)
    columns = {}
    for task, metrics in found["results"].items():
        for metric, value in metrics.items() if isinstance(metrics, dict) else ():
            name, _, how = metric.partition(",")
            number = as_number(value)
            if number is None or name.endswith("_stderr") or name in ("alias", "sample_len"):
                continue
            columns[f"{PREFIX}{task}.{name}" + (f".{how}" if how not in ("", "none") else "")] = number
    return columns, _model(found)


def _model(found: dict[str, Any]) -> str:
    config = found.get("config")
    arguments = config.get("model_args") if isinstance(config, dict) else None
    if isinstance(arguments, dict):
        return str(arguments.get("pretrained", ""))
    named = re.search(r"(?:^|,)pretrained=([^,]+)", str(arguments or ""))
    return named[1] if named else str(found.get("model_name") or "")
