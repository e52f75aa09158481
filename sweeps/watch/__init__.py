"""Views of a store: status, timeline, the runs table, and files that can be deleted.

May import ``launch`` and the rooms below.
"""
