"""Fits of scaling laws to tables of runs: reading, estimation, uncertainty, checks, figures.

A public name is loaded with its module when it is first used, so that a part of it is there without the rest.
"""

from typing import TYPE_CHECKING

from scaling.laws.registry import load_law
from scaling.lazy_names import lazy_names

if TYPE_CHECKING:
    from fits.checks.comparison.compare_laws import compare_laws
    from fits.checks.comparison.scores import Comparison
    from fits.checks.design import check
    from fits.estimation.estimate import Objective
    from fits.estimation.laws.custom_law import register_law
    from fits.fitting import Fit, fit
    from fits.logs.collect import collect
    from fits.methods.compare import MethodComparison, compare_methods
    from fits.methods.laws_by_method import LawsByMethod, laws_by_method
    from fits.methods.private_text import private_text_law
    from fits.table.runs import read_runs, validate

__all__ = [
    "Comparison",
    "Fit",
    "LawsByMethod",
    "MethodComparison",
    "Objective",
    "check",
    "collect",
    "compare_laws",
    "compare_methods",
    "fit",
    "laws_by_method",
    "load_law",
    "private_text_law",
    "read_runs",
    "register_law",
    "validate",
]

_PUBLIC = {
    "checks.comparison.compare_laws": ("compare_laws",),
    "checks.design": ("check",),
    "checks.comparison.scores": ("Comparison",),
    "estimation.estimate": ("Objective",),
    "estimation.laws.custom_law": ("register_law",),
    "fitting": (
        "Fit",
        "fit",
    ),
    "logs.collect": ("collect",),
    "methods.compare": (
        "MethodComparison",
        "compare_methods",
    ),
    "methods.laws_by_method": (
        "LawsByMethod",
        "laws_by_method",
    ),
    "methods.private_text": ("private_text_law",),
    "table.runs": (
        "read_runs",
        "validate",
    ),
}
"""Public names by the module that defines them."""
__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
