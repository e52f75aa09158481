"""Specs of sweeps: YAML, validation, and error messages.

The lowest room of ``sweeps``, which imports no other.
"""
