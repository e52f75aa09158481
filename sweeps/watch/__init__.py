"""Looking at a store: status, timeline, the runs table, and what can be deleted.

The highest room of ``sweeps``: may import every other.
"""
