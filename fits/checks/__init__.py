"""Checks before and after a fit: identifiability of a design, held-out errors, comparison of laws.

May import ``fits.estimation`` and ``fits.table``.
"""
