"""Text of unlearning: documents of the forgotten, with objectives of baselines, and all others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sweeps.methods.forgotten import Forgotten, Kept, stream_of_documents
from sweeps.spec.fields import Number
from sweeps.spec.method.compatibility import given
from sweeps.spec.method.interfaces import Divergence, Hook, SequenceSource
from sweeps.spec.method.run_views import AfterStep, LogProbsView, RunSetting, State, TrainingBatch

if TYPE_CHECKING:
    from torch import Tensor

    from sweeps.dag.step import Step
    from sweeps.data.batches import Batches
    from sweeps.model.decoder import Decoder
    from sweeps.spec.method.method import Method
    from sweeps.spec.spec import Sweep
    from sweeps.unlearning.names import PersonName


class ChosenDocuments(Forgotten, SequenceSource):
    """Documents of the corpus, chosen by whom they mention; the base of sources here."""

    writes_along: ClassVar[bool] = True
    version: ClassVar[str | None] = "1"

    def objections(self, method: Method) -> Iterator[str]:
        yield from self.name_objections()
        if method.logits != "online":
            yield f"logits: documents are chosen during the run, so none are {method.logits}; set online"
        if method.taid:
            yield "taid: it sets its pace by how the loss falls on the data; remove it"

    def blocks(self, setting: RunSetting, step: int, kept: Kept, batch: int) -> Tensor:
        """Return ``batch`` blocks for optimizer step ``step``; epochs are shuffled by the run's seed."""
        assert setting.models is not None
        data = _batches(setting.models.step, self.targets, kept, batch, setting.seed)
        return data.read(data.numbers(step))


class RetainedText(ChosenDocuments):
    """All documents but those of the forgotten."""

    def batch(
        self, setting: RunSetting, student: Decoder, step: int, data: Tensor, state: State
    ) -> TrainingBatch:
        size = len(data) * setting.world.size
        blocks = setting.world.share(self.blocks(setting, step, "retained", size))
        return TrainingBatch(blocks.to(data.device))


class ForgetText(ChosenDocuments):
    """Documents of the forgotten, and in every batch some others if they are to be retained."""

    objective: Literal["follow", "ascent", "npo"] = "follow"
    """Follow the method's target; climb the cross-entropy; or climb it as far as NPO does."""
    retain: Number = Field(0.0, ge=0)
    """Weight of the cross-entropy on other documents, which then are half of every batch."""
    beta: Number = Field(0.1, gt=0)
    """Inverse temperature of ``npo``."""

    def objections(self, method: Method) -> Iterator[str]:
        yield from super().objections(method)
        if self.objective != "npo" and given(self, "beta"):
            yield f"beta: {self.objective} does not read it, only npo"
        if self.objective != "follow" and method.target:
            yield f"target: {self.objective} follows none; remove it"
        if method.initial_weights is None:
            yield "initial_weights: what is to be forgotten must be known; set initial_weights: teacher-copy"
        if method.cross_entropy:
            yield "cross_entropy: it would teach what is to be forgotten; set retain for other documents"

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        if self.retain and sweep.smallest_batch % 2:
            yield (
                f"retain: half of a batch is retained, but a batch is {sweep.smallest_batch} blocks; let "
                "training.batch_tokens be an even number of contexts"
            )

    def batch(
        self, setting: RunSetting, student: Decoder, step: int, data: Tensor, state: State
    ) -> TrainingBatch:
        import torch

        size = len(data) * setting.world.size
        forgotten = size // 2 if self.retain else size
        blocks = self.blocks(setting, step, "forgotten", forgotten)
        weights = torch.full((size,), size / forgotten)
        if self.retain:
            blocks = torch.cat([blocks, self.blocks(setting, step, "retained", size - forgotten)])
            weights[forgotten:] = 0
        retained = self.retain * (size / max(1, size - forgotten)) * (weights == 0)
        # each process has its share of both kinds
        order = torch.arange(size).view(-1, setting.world.size).T.flatten()
        columns = [setting.world.share(each[order]).to(data.device) for each in (blocks, weights, retained)]
        own, forget, keep = columns
        return TrainingBatch(
            own, token_inputs=tuple(each[:, None].expand(-1, own.shape[1] - 1) for each in (forget, keep))
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
        forget, keep, *npo = token_inputs
        own = log_q.gather(-1, labels[:, None]).squeeze(-1)
        if self.objective == "follow":
            loss = super().token_loss(method, divergence, log_p, log_q, labels, schedule)
        else:
            loss = own * npo[0] if npo else own
        return forget * loss - keep * own

    def more_token_inputs(self, view: LogProbsView) -> tuple[Tensor, ...]:
        from sweeps.unlearning.objectives import npo_weights

        if self.objective != "npo":
            return ()
        difference = view.difference().view(view.blocks, -1)
        weights = npo_weights(difference.sum(1, keepdim=True), self.beta)
        return (weights.expand_as(difference).flatten(),)


class ScaledLearningRate(Hook):
    """A learning rate that is a fraction of the sweep's, for students that begin as their teacher.

    An update of AdamW is proportional to the rate, so a fraction of it is taken back after every step.
    """

    version: ClassVar[str | None] = "1"
    fraction: Number = Field(0.1, gt=0, le=1)
    """Learning rate of the run as a fraction of the sweep's."""

    def objections(self, method: Method) -> Iterator[str]:
        if method.initial_weights != "teacher-copy":
            yield "hooks: ScaledLearningRate knows the weights that a run begins with where they are the teacher's; set initial_weights: teacher-copy"  # noqa: E501

    def initial_state(self, setting: RunSetting) -> State:
        assert setting.models is not None
        return {
            name: each.detach().clone() for name, each in setting.models.teacher_module.named_parameters()
        }

    def after_step(self, run: AfterStep, state: State) -> None:
        for name, weight in run.student.named_parameters():
            weight.copy_(state[name].lerp(weight, self.fraction))
            state[name] = weight.detach().clone()


@lru_cache(maxsize=8)
def _batches(step: Step, targets: tuple[PersonName, ...], kept: Kept, batch: int, seed: int) -> Batches:
    from sweeps.data.batches import Batches

    stream = stream_of_documents(step, targets, kept)
    return Batches(stream, context=step.shape.context, batch=batch, seed=seed)
