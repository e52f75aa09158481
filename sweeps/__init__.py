"""Sweeps of runs from a declarative spec: corpora, models, training, distillation, store, execution.

A public name is loaded with its module when it is first used: processes that train load no pandas.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from scaling.errors import MissingExtra
from scaling.lazy_names import lazy_names

if TYPE_CHECKING:
    from sweeps.api import load, record, status
    from sweeps.watch.runs_table import results, shipped

NEEDED = ("fsspec", "ray", "safetensors", "tokenizers", "torch")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    raise MissingExtra(f"sweeps need {', '.join(missing)}: pip install 'distlaw[sweeps]'")

__all__ = ["load", "record", "results", "shipped", "status"]

_PUBLIC = {"api": ("load", "record", "status"), "watch.runs_table": ("results", "shipped")}
"""Public names by the module that defines them."""
__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
