"""Adaptive sweeps: the runs of a spec as candidates, rounds of proposals, and the loop that trains them.

``auto`` is the loop, ``rounds`` what it records in the store. May import every other room but ``api``.
"""
