"""From a table of runs to scaling laws that can be trusted: reading, fitting, uncertainty, figures."""

from fits.compare import Comparison, compare_laws
from fits.custom import register_law
from fits.design import check
from fits.estimate import Objective
from fits.fitting import Fit, fit
from fits.methods import MethodComparison, compare_methods
from fits.runs import read_runs, validate

__all__ = [
    "Comparison",
    "Fit",
    "MethodComparison",
    "Objective",
    "check",
    "compare_laws",
    "compare_methods",
    "fit",
    "read_runs",
    "register_law",
    "validate",
]
