"""Private text: accounting of differential privacy.

``accounting`` prices queries in zero-concentrated differential privacy and holds budgets of (epsilon, delta).
"""
