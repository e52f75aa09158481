"""Costs of training and inference: FLOPs of an architecture, teacher costs that a scenario charges
(Busbridge et al. 2025, Eq. 9), and devices with their speed, memory and price.

Imports nothing but ``scaling``'s top-level modules.
"""
