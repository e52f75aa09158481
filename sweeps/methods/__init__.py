"""How students are distilled: what they follow, by which divergence, on whose text, with what credit.

Named ones lie beside this file as ``<name>.yaml``: ``methods: [gkd, {use: gkd, beta: 0.1}]``.
"""

from sweeps.spec.method import Method
from sweeps.spec.method_options import Credit, Delta, Init, Neighbours, Replay, Source, Taid

__all__ = ["Credit", "Delta", "Init", "Method", "Neighbours", "Replay", "Source", "Taid"]
