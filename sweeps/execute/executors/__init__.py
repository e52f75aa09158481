"""Executors of jobs: in this process, in processes of a fork server, on Ray, or in a Slurm allocation.

May import ``sweeps.execute.jobs``; the scheduler and :mod:`sweeps.execute.run` use one.
"""
