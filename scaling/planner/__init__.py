"""The planner: compute-optimal students and teachers under every scenario, with uncertainty.

``planner`` is the entry. ``solve`` turns a question into a setting and finds its optima, with ``candidates``
for the teachers there are and ``optimizer`` for the best split of a budget; ``uncertainty`` compares them
with direct training, and ``evaluation`` writes the plan.

May import ``scaling.calibration``, ``scaling.costs`` and ``scaling.laws``.
"""
