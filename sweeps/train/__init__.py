"""One run: the loop, for one student or for a cohort that shares a teacher's pass.

May import ``distill`` and the rooms below.
"""
