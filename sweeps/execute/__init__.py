"""Execution: scheduler, budget, executors (inline, processes, Ray), submission, tuning.

``step`` is the work that executors launch. May import ``estimate`` and the rooms below.
"""
