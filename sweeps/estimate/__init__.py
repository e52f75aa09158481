"""A sweep before it runs: FLOPs, time, memory and money, what the fit will identify, and a picture of the
DAG.

May import ``train`` and the rooms below.
"""
