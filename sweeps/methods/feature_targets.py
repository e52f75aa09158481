"""Hidden states of teachers as targets, balanced by PHI-S (Ranzinger et al. 2024, arXiv 2410.01680)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from scaling.costs.flops import FORWARDS_PER_STEP, ModelShape
from scaling.errors import InputError
from sweeps.spec.fields import Count, Number
from sweeps.spec.hidden_layers import counted_from_embedding
from sweeps.spec.method.interfaces import AuxiliaryLoss, Metric
from sweeps.spec.method.method_parts import parts_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sweeps.distill.feature_matching import FeatureStatistics
    from sweeps.spec.method.method import Method
    from sweeps.spec.method.run_views import AfterStep, Evaluation, HiddenStates, RunSetting, State
    from sweeps.spec.spec import Sweep

STATISTICS_MATRICES = 6
"""Matrices in float64 of a target's size that are held at once, while its statistics become a map."""


class FeatureTargets(AuxiliaryLoss):
    """Loss between a student's heads and normalized hidden states of its teachers.

    Each chosen layer of each teacher is a target with a head of its own. The first steps only gather the
    targets' statistics: the loss is zero until they are frozen.
    """

    version: ClassVar[str] = "1"
    normalization: Literal["none", "global", "scalar", "standardize", "pca-w", "zca", "hca", "phi-s"] = (
        "phi-s"
    )
    """Map from features to targets, see :mod:`sweeps.features.normalization`."""
    loss: Literal["mse", "smooth-l1", "cosine", "hybrid-mse", "hybrid-smooth-l1"] = "mse"
    """Loss at a position, summed over targets."""
    weight: Number = Field(1.0, ge=0)
    student_layer: int = -1
    """Hidden state of the student that heads read."""
    layers: Annotated[tuple[int, ...], Field(min_length=1)] = (-1,)
    """Hidden states of each teacher that are targets; -1 is the last."""
    layers_by_teacher: tuple[Annotated[tuple[int, ...], Field(min_length=1)], ...] = ()
    """Hidden states of each teacher in turn, in place of ``layers``, such as ``[[2], [-1]]``."""
    statistics_steps: Annotated[Count, Field(ge=1)] = 20
    """Optimizer steps whose positions the statistics are taken of, before anything is learned of features."""
    floor: Number | None = Field(None, gt=0, lt=1)
    """Share of the largest variance that smaller ones are raised to; none are raised without it."""
    hidden: Annotated[Count, Field(ge=1)] | None = None
    """Width of the heads' residual blocks; without it heads are linear."""
    blocks: Annotated[Count, Field(ge=0)] = 2
    """Residual blocks of a head that has ``hidden``."""
    skip_positions: Annotated[Count, Field(ge=0)] = 1
    """First positions of a block that do not count: their features are often far from all others."""
    scales: tuple[Annotated[Number, Field(gt=0)], ...] = ()
    """Factors on features of the teachers, for studies of scale; 1 where none is given."""

    def objections(self, method: Method) -> Iterator[str]:
        losses = parts_of(method).auxiliary_losses.values()
        if sum(isinstance(each, FeatureTargets) for each in losses) > 1:
            yield "auxiliary_losses: FeatureTargets is there twice; list all layers in one: layers: [1, -1]"
        teachers, given = 1 + len(method.other_teachers), len(self.scales)
        if given > teachers:
            yield f"scales: {given} factors for {teachers} teachers; give one each at most"
        if self.layers_by_teacher and (given := len(self.layers_by_teacher)) != teachers:
            yield f"layers_by_teacher: {given} lists of layers for {teachers} teachers; give one each"
        if self.layers_by_teacher and self.layers != (-1,):
            yield "layers: layers_by_teacher says which; remove one of them"

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        if self.skip_positions >= sweep.corpus.context:
            yield (
                f"skip_positions: {self.skip_positions} of a context of {sweep.corpus.context} leave none; "
                "skip fewer"
            )

    def student_layers(self, student: ModelShape) -> Sequence[int]:
        return _checked("student_layer", (self.student_layer,), student)

    def teacher_layers(self, teacher: ModelShape, number: int) -> Sequence[int]:
        field = "layers_by_teacher" if self.layers_by_teacher else "layers"
        return _checked(field, self.layers_of(number), teacher)

    def heads(self, student: ModelShape, teachers: Sequence[ModelShape]) -> nn.Module:
        from sweeps.distill.feature_matching import made_heads

        return made_heads(student.width, self._target_widths(teachers), self.hidden, self.blocks)

    def per_token(self, hidden: HiddenStates, heads: nn.Module | None, state: State) -> Tensor:
        from sweeps.distill.feature_matching import matching_loss
        from sweeps.features import FeatureLoss

        assert heads is not None
        targets = [
            self._scale(number) * each for number, layers in enumerate(hidden.teachers) for each in layers
        ]
        counted = hidden.counted.clone()
        counted[:, : self.skip_positions] = False
        if self._gathers(state):
            statistics = self._statistics(state)
            for number, features in enumerate(targets):
                statistics.add(number, features, counted)
        loss = matching_loss(hidden.student[0], targets, heads, state, FeatureLoss(self.loss))
        context = hidden.inputs.shape[1]
        return loss * counted * (context / (context - self.skip_positions))

    def initial_state(self, setting: RunSetting) -> State:
        import torch

        return {"steps": torch.tensor(0)}

    def after_step(self, run: AfterStep, state: State) -> None:
        if not self._gathers(state):
            return
        statistics = self._statistics(state)
        statistics.end_step(run.setting.world)
        state["steps"] = state["steps"] + 1
        if int(state["steps"]) >= self.statistics_steps:
            statistics.fit(run.setting.world)

    def flops_per_token(self, student: ModelShape, teachers: Sequence[ModelShape]) -> float:
        """Return the FLOPs of training heads and of normalizing targets, a product with W each."""
        self.student_layers(student)
        widths = self._target_widths(teachers)
        trained = sum(self._head_matrices(student, width) for width in widths)
        return 2.0 * (FORWARDS_PER_STEP * trained + sum(width**2 for width in widths))

    def head_params(self, student: ModelShape, teachers: Sequence[ModelShape]) -> float:
        widths = self._target_widths(teachers)
        vectors = sum(widths)  # of the last layer's bias
        if self.hidden is not None:  # and a bias, and norms of a gain and a bias each
            vectors += len(widths) * self.hidden * (3 * self.blocks + 3)
        return float(sum(self._head_matrices(student, width) for width in widths) + vectors)

    def state_bytes(self, teachers: Sequence[ModelShape]) -> float:
        return 8.0 * STATISTICS_MATRICES * sum(width**2 for width in self._target_widths(teachers))

    def target_scales(self, teachers: int) -> tuple[float, ...]:
        """Return the factor on each target, teacher by teacher and layer by layer."""
        return tuple(self._scale(number) for number in range(teachers) for _ in self.layers_of(number))

    def layers_of(self, teacher: int) -> tuple[int, ...]:
        """Return the layers of teacher ``teacher`` that are targets."""
        return self.layers_by_teacher[teacher] if self.layers_by_teacher else self.layers

    def _scale(self, teacher: int) -> float:
        return self.scales[teacher] if teacher < len(self.scales) else 1.0

    def _target_widths(self, teachers: Sequence[ModelShape]) -> list[int]:
        return [each.width for n, each in enumerate(teachers) for _ in self.teacher_layers(each, n)]

    def _head_matrices(self, student: ModelShape, width: int) -> int:
        """Return the elements of the matrices of a head for ``width`` channels."""
        if self.hidden is None:
            return student.width * width
        return self.hidden * (student.width + self.blocks * self.hidden + width)

    def _gathers(self, state: State) -> bool:
        return "0.normalization.mode" not in state

    def _statistics(self, state: State) -> FeatureStatistics:
        from sweeps.distill.feature_matching import FeatureStatistics

        return FeatureStatistics(state, self.normalization, self.floor)


class FeatureVariance(Metric):
    """FVU of the feature targets of a method on held-out text, and scale and kurtosis of these features.

    Columns ``fvu_0``, ``fvu_1``, ... are targets, teacher by teacher and layer by layer; ``fvu_mean``,
    ``fvu_worst`` and ``fvu_balance`` (largest over smallest) sum them up; ``scale_0``, ... are the root of
    the mean variance of a channel, and ``kurtosis_0``, ... the largest kurtosis of one.
    """

    version: ClassVar[str] = "2"

    def objections(self, method: Method) -> Iterator[str]:
        if not any(isinstance(each, FeatureTargets) for each in parts_of(method).auxiliary_losses.values()):
            yield "metrics: FeatureVariance measures FeatureTargets; add them to auxiliary_losses"

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        from typing import cast

        from sweeps.distill.feature_matching import FeatureEvaluation

        method = evaluation.models.step.method
        assert method is not None
        name, part = next(
            (name, each)
            for name, each in parts_of(method).auxiliary_losses.items()
            if isinstance(each, FeatureTargets)
        )
        return FeatureEvaluation(
            student=evaluation.student,
            models=evaluation.models,
            heads=cast("nn.ModuleList", evaluation.heads[name]),
            state=evaluation.states[name],
            student_layer=part.student_layer,
            layers=tuple(part.layers_of(number) for number in range(len(evaluation.models.teachers))),
            scales=part.target_scales(len(evaluation.models.teachers)),
            skipped=part.skip_positions,
        ).measure(evaluation.heldout, evaluation.context)


def _checked(field: str, layers: tuple[int, ...], shape: ModelShape) -> tuple[int, ...]:
    try:
        counted_from_embedding(layers, shape)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
    return layers


phi_s = {
    "auxiliary_losses": [{"use": "sweeps.methods.feature_targets:FeatureTargets"}],
    "metrics": [{"use": "sweeps.methods.feature_targets:FeatureVariance"}],
}
"""Forward KL with a feature term beside it, for ``use: sweeps.methods.feature_targets:phi_s``."""
