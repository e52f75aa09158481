"""Estimates before a sweep runs: FLOPs, time, memory, cost, identifiability of the fit, graph of the DAG.

May import ``train`` and the rooms below.
"""
