"""Tables of runs: reading files of any tool, validation, FLOPs of a run, thinning of checkpoints.

``columns`` reads headers and cells, ``validation`` rejects what no run can have. Imports nothing else of
``fits``.
"""
