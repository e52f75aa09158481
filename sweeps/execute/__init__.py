"""Execution: scheduler, jobs, submission, tuning; ``steps`` is the work, which ``executors`` launch.

``budget`` holds it to its caps; ``drivers`` knows who else drives the store. May import ``estimate`` and the
rooms below.
"""
