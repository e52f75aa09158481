"""Execution: the scheduler with its budget, executors in this process, beside it or on Ray, submission,
tuning.

``step`` is the work that executors launch. May import ``estimate`` and the rooms below.
"""
