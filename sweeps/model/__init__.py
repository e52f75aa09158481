"""The decoder, its optimizer, devices, the chunked loss, held-out evaluation; ``compiling`` makes them fast.

May import ``sweeps.spec``, ``sweeps.data`` and ``sweeps.store``.
"""
