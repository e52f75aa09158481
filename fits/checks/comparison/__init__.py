"""Comparison of laws on one table: scores, evidence from runs that they predict unseen, and the choice."""
