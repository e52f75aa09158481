"""The decoder, its optimizer, devices, compiled functions, the chunked loss, held-out evaluation.

May import ``sweeps.spec``, ``sweeps.data`` and ``sweeps.store``.
"""
