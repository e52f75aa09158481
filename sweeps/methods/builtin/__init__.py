"""Parts that a spec names in one word: divergences, targets, sources of text, metrics and initial weights.

:mod:`sweeps.spec.method.registry` lists them by name. The other parts that ship are named by path, as
anybody's are.
"""
