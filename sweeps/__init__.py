"""Sweeps of runs from a declarative spec: corpora, models, training, distillation, store, execution."""

from importlib.util import find_spec

from scaling.errors import MissingExtra

NEEDED = ("fsspec", "ray", "safetensors", "tokenizers", "torch")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    raise MissingExtra(f"sweeps need {', '.join(missing)}: pip install 'distlaw[sweeps]'")

from sweeps.api import load, record, status  # noqa: E402
from sweeps.watch.runs_table import results, shipped  # noqa: E402

__all__ = ["load", "record", "results", "shipped", "status"]
