"""Validation of a runs table: rows and values that no run can have, unnamed checkpoints and replicates."""
