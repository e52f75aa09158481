"""On-policy text: written by the student as it learns, alone, with its teacher, or for half of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from sweeps.methods.builtin.text_sources import WrittenText, unread_by
from sweeps.spec.fields import Number
from sweeps.spec.method.interfaces import Divergence
from sweeps.spec.method.method_options import Credit
from sweeps.spec.method.run_views import BatchSource, LogProbsView, Passes, RunSetting

if TYPE_CHECKING:
    from torch import Tensor

    from sweeps.spec.method.method import Method
    from sweeps.spec.spec import Sweep

REPLAY_REVISION = 2
"""Changes when replay as the same spec describes it would train something else."""


class OnPolicyText(WrittenText):
    """Text in which the student has a part; the base of both sources here."""

    writes_along: ClassVar[bool] = True

    def objections(self, method: Method) -> Iterator[str]:
        yield from super().objections(method)
        if method.cross_entropy:
            yield (
                "cross_entropy: tokens that the student drew itself are no labels; set pretraining for the "
                "cross-entropy of the data beside them"
            )

    def start(self, setting: RunSetting) -> BatchSource:
        from sweeps.distill.generation.on_policy import on_policy_source

        return on_policy_source(self.source, setting)


class StudentText(OnPolicyText):
    """Text that the student writes, at every step or for a share of the batches."""

    writers: ClassVar[str] = "student"
    credit: Credit | None
    pretraining: Number

    @property
    def depends_on_total_steps(self) -> bool:  # type: ignore[override]
        """True under replay, whose share grows over the run."""
        return self.source.replay is not None

    def objections(self, method: Method) -> Iterator[str]:
        yield from super().objections(method)
        if self.source.replay and self.source.fraction != 1:
            yield (
                "source.fraction: with replay it is source.replay that says how many batches the student "
                "writes"
            )
        if self.credit:
            yield from self._credit_objections(method, self.credit)

    def _credit_objections(self, method: Method, credit: Credit) -> Iterator[str]:
        if self.source.fraction != 1 or self.source.replay:
            yield (
                "credit: what came after a token is credited to how it was drawn, which is known only of "
                "text that the student has just written; set source.by: student, without fraction or replay"
            )
        if method.divergence != "reverse-kl":
            yield f"credit: its rewards add up to reverse-kl, not {method.divergence_label}"
        if method.temperature != 1 or self.source.temperature != 1:
            yield "credit: its rewards are at temperature 1; leave both temperatures at 1"
        if credit.include_current and credit.rewards == "expected":
            yield (
                "credit.include_current: what is expected of a token itself credits none; set "
                "rewards: sampled"
            )

    def identity(self) -> dict[str, Any]:
        return {"replay_revision": REPLAY_REVISION} if self.source.replay else {}

    def passes(self, method: Method) -> Passes:
        updates = self.credit.updates if self.credit else 1
        written = self.source.fraction / updates
        read = 1.0 if method.reads_teacher else 0.0
        return Passes(
            trained=2.0 if self.pretraining else 1.0,
            written=written,
            read=read / updates,
            written_along=written if self.source.teacher_share or self.credit else 0.0,
        )

    def token_loss(
        self,
        method: Method,
        divergence: Divergence,
        log_p: Tensor,
        log_q: Tensor,
        labels: Tensor,
        schedule: tuple[Tensor, ...],
        *token_inputs: Tensor,
    ) -> Tensor:
        loss = super().token_loss(method, divergence, log_p, log_q, labels, schedule)
        if self.credit is None:
            return loss
        from sweeps.distill.generation.policy_gradient import clipped

        advantage, drawn = token_inputs
        own = log_q.gather(-1, labels[:, None]).squeeze(-1)
        return loss + clipped(own, drawn, advantage, self.credit.clip)


class HalfAndHalf(OnPolicyText):
    """Batches of which one half is text that the teacher wrote before, and the other the student's."""

    writes_before: ClassVar[bool] = True
    writers: ClassVar[str] = "models"
    midpoint: str
    beta: Number

    def objections(self, method: Method) -> Iterator[str]:
        yield from unread_by(self.source)
        yield from super().objections(method)
        if method.divergence not in ("jensen-shannon", "total-variation"):
            yield (
                "source.by: both have their halves in jensen-shannon, total-variation, not "
                f"{method.divergence_label}"
            )
        if self.midpoint == "exact" and (method.temperature != 1 or self.source.temperature != 1):
            yield "midpoint: exact is about sequences at temperature 1; leave both temperatures at 1"

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        yield from super().sweep_objections(sweep, method)
        context = sweep.corpus.context
        if (batch := sweep.smallest_batch) < 2:
            yield (
                f"source.by: of each batch one half is text of the teacher, one of the student, but a batch "
                f"is {batch} block; raise training.batch_tokens to {2 * context} or more"
            )

    def passes(self, method: Method) -> Passes:
        return Passes(written=0.5, read=1.0 if method.reads_teacher else 0.0, written_before=0.5)

    def token_loss(
        self,
        method: Method,
        divergence: Divergence,
        log_p: Tensor,
        log_q: Tensor,
        labels: Tensor,
        schedule: tuple[Tensor, ...],
        *token_inputs: Tensor,
    ) -> Tensor:
        from sweeps.distill.divergences import halves_loss

        return halves_loss(method, log_p, log_q, *token_inputs)

    def more_token_inputs(self, view: LogProbsView) -> tuple[Tensor, ...]:
        from sweeps.distill.divergences import teacher_share

        if self.midpoint != "exact":
            return ()
        return (teacher_share(self.beta, view.difference(), view.blocks),)
