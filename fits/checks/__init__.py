"""Checks before and after a fit: identifiability of a design, held-out errors, comparison of laws.

``heldout`` leaves runs out of refits, ``comparison`` weighs laws by it. May import ``fits.estimation``
and ``fits.table``.
"""
