"""Calibrations: coefficients of a supervised law and of distillation laws with draws, region and provenance.

``published`` holds those that ship, as JSON. May import ``scaling.costs``.
"""
