"""Divergences that ship, with their options; the formulas are in :mod:`sweeps.distill.divergences`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sweeps.spec.fields import Number
from sweeps.spec.method.interfaces import Divergence

if TYPE_CHECKING:
    from torch import Tensor

    from sweeps.spec.method.method import Method
    from sweeps.spec.spec import Training


class ForwardKL(Divergence):
    """KL(p || q): the student covers all that the teacher does; the law's own divergence."""

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        from sweeps.distill.divergences import forward_kl

        return forward_kl(log_p, log_q)

    def fused(self, training: Training, temperature: float) -> Callable[..., Tensor] | None:
        from sweeps.distill.divergences import guided_loss

        return guided_loss if training.compile and temperature == 1 else None


class ReverseKL(Divergence):
    """KL(q || p): the student stays where the teacher is."""

    needs_every_token: ClassVar[bool] = True

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        from sweeps.distill.divergences import reverse_kl

        return reverse_kl(log_p, log_q)


class JensenShannon(Divergence):
    """beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q."""

    beta: Number = Field(0.5, gt=0, lt=1)
    """The teacher's share of the mixture."""

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        from sweeps.distill.divergences import jensen_shannon

        return jensen_shannon(log_p, log_q, self.beta)


class TotalVariation(Divergence):
    """Half the sum of |p - q|."""

    temperature_power: ClassVar[int] = 1

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        from sweeps.distill.divergences import total_variation

        return total_variation(log_p, log_q)


class SkewKL(Divergence):
    """KL(p || skew p + (1 - skew) q)."""

    skew: Number = Field(0.1, gt=0, lt=1)
    """The teacher's share of its own reference."""

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        from sweeps.distill.divergences import skew_kl

        return skew_kl(log_p, log_q, self.skew)


class ReverseSkewKL(Divergence):
    """KL(q || skew q + (1 - skew) p)."""

    skew: Number = Field(0.1, gt=0, lt=1)
    """The student's share of its own reference."""

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        from sweeps.distill.divergences import reverse_skew_kl

        return reverse_skew_kl(log_p, log_q, self.skew)


class DecoupledKL(Divergence):
    """gold KL of "the label or not" + others KL of the other tokens beside each other."""

    reads_labels: ClassVar[bool] = True
    gold: Number = Field(1.0, ge=0)
    """Weight of how likely the label is."""
    others: Number = Field(1.0, ge=0)
    """Weight of how likely the other tokens are beside each other."""

    def objections(self, method: Method) -> Iterator[str]:
        if not (self.gold or self.others):
            yield "gold: with others at 0 too, nothing would be taught"

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        from sweeps.distill.divergences import decoupled_kl

        return decoupled_kl(log_p, log_q, labels, self.gold, self.others)
