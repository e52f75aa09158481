"""Perceptron lab: learning with a constrained distribution of weights, in theory and in simulation.

Capacity and generalization of a perceptron whose weights must have a given distribution (Zhong, Sorscher,
Lee and Sompolinsky, "A theory of weight distribution-constrained learning", NeurIPS 2022, arXiv 2206.08933).

    from scaling.perceptron import capacity, distributions, learning_curves

    capacity.capacity(distributions.lognormal(1.0))            # 0.7358 patterns per weight

Read ``distributions.py``, ``capacity.py`` (how many patterns), ``transport.py`` and ``disco.py`` (the
algorithm), ``learning_curves.py`` (generalization in theory), ``simulation.py`` (the same measured) and
``charts.py`` (figures). Nothing of the planner imports this room, and it needs NumPy and SciPy only.
"""
