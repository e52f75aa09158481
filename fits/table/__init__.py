"""Tables of runs: reading files of any tool, validation, FLOPs of a run, thinning of checkpoints.

Imports nothing else of ``fits``.
"""
