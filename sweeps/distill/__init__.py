"""Distillation: targets, divergences, sources of text, hooks, and metrics that measure every student alike.

May import ``pretrained`` and the rooms below.
"""
