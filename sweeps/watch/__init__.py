"""Views of a store: status, timeline, the runs table, and files that can be deleted.

The highest room of ``sweeps``: may import every other.
"""
