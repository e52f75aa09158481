"""Specs of sweeps: YAML, validation, and error messages.

``method`` holds the fields and parts of distillation methods. The lowest room of ``sweeps``, which imports no
other.
"""
