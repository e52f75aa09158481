"""Held-out checks: folds of runs that refits leave out, and what their errors say of a law."""
