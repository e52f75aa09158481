"""Fits of scaling laws to tables of runs: reading, estimation, uncertainty, checks, figures."""

from fits.checks.compare_laws import compare_laws
from fits.checks.design import check
from fits.checks.scores import Comparison
from fits.estimation.estimate import Objective
from fits.estimation.laws.custom_law import register_law
from fits.fitting import Fit, fit
from fits.logs.collect import collect
from fits.methods.compare import MethodComparison, compare_methods
from fits.methods.laws_by_method import LawsByMethod, laws_by_method
from fits.methods.private_text import private_text_law
from fits.table.runs import read_runs, validate
from scaling.laws.registry import load_law

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
