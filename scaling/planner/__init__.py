"""From a question to a plan: compute-optimal students and teachers under every scenario, with uncertainty.

``planner`` is the entry; ``optimizer`` solves one scenario, ``candidates`` says over what, ``evaluation``
turns decisions into a plan. May import ``scaling.calibration`` and ``scaling.costs``.
"""
