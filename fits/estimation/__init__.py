"""Estimation of laws: parametrization, robust least squares from many starts, bootstrap, profile likelihood.

May import ``fits.table``.
"""
