"""TAID (Shing et al. 2025, arXiv 2501.16937): the target begins near the student and moves to the teacher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from sweeps.spec.method.interfaces import Divergence
from sweeps.spec.method.method_options import Taid
from sweeps.spec.method.run_views import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from sweeps.spec.method.method import Method


class TaidDivergence(Divergence):
    """Cross-entropy of the student and a distribution between its own and the teacher's."""

    depends_on_total_steps: ClassVar[bool] = True
    taid: Taid

    def objections(self, method: Method) -> Iterator[str]:
        if method.logits in ("top-k", "top-p"):
            yield ("taid: it mixes teacher and student token by token, also in the tail; use logits: cached")
        if method.divergence != "forward-kl":
            yield f"taid: it sets its pace by forward-kl, not {method.divergence_label}"

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        from sweeps.distill.taid import interpolated_cross_entropy

        (t,) = schedule
        return interpolated_cross_entropy(log_p, log_q, t)

    def schedule(self, steps: int) -> Schedule:
        from sweeps.distill.taid import TaidSchedule

        return TaidSchedule(self.taid, steps)
