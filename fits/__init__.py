"""From a table of runs to scaling laws that can be trusted: reading, fitting, uncertainty, figures."""

from fits.estimate import Objective
from fits.fitting import Fit, fit
from fits.runs import read_runs, validate

__all__ = ["Fit", "Objective", "fit", "read_runs", "validate"]
