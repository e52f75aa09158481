"""Execution: scheduler, budget, jobs, submission, tuning; launching of jobs in ``executors``.

``step`` is the work that executors launch. May import ``estimate`` and the rooms below.
"""
