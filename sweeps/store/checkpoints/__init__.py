"""Checkpoints of a run: one file, or one from each process, verified when read."""
