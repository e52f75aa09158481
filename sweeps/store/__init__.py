"""The store of a sweep: results, checkpoints, and attempts with their leases and outcomes.

May import ``sweeps.spec`` and ``sweeps.data``.
"""
