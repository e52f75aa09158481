"""Plans, predictions and frontiers as text and HTML.

May import every room of ``scaling`` but ``figures``.
"""
