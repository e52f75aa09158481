"""Whom a student follows and how: targets, divergences, sources of text, and yardsticks."""
