"""Checks before and after a fit: what a design identifies, held-out errors, and laws compared on them.

May import ``fits.estimation`` and ``fits.table``.
"""
