"""The directory that holds all truth: results, checkpoints, claims on steps, the table of runs."""
