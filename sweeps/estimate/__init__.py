"""Estimates before a sweep runs: FLOPs, time, memory, cost, identifiability of the fit, graph of the DAG.

``memory`` models the memory of steps, ``probes`` measures this machine. May import ``train`` and
the rooms below.
"""
