"""Plans over a range of budgets: the best size, tokens and teacher along it, and where one scenario overtakes
another.

May import ``scaling.planner`` and the rooms below.
"""
