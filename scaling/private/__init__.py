"""Private text: accounting of differential privacy, laws of what a budget releases and teaches, plans.

``accounting`` prices queries, ``law`` holds what runs say of released tokens and students, and ``plan``
answers how many tokens n teachers release at an epsilon, and whether they pay. NumPy only.
"""
