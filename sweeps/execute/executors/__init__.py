"""Executors of jobs: in this process, in processes of a fork server, or on Ray.

May import ``sweeps.execute.jobs``; the scheduler and :mod:`sweeps.execute.run` use one.
"""
