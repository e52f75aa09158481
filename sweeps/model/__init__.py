"""The decoder and what makes it fast: optimizer, devices, compiled steps, the chunked loss, held-out
evaluation.

May import ``sweeps.spec``, ``sweeps.data`` and ``sweeps.store``.
"""
