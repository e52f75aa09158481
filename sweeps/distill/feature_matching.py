"""Feature targets at work in a run: statistics of its first steps, then a loss on normalized features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sweeps.data.batches import take_blocks
from sweeps.distill.metrics import in_float32
from sweeps.distill.models import Models
from sweeps.features import (
    ChannelKurtosis,
    FeatureHead,
    FeatureLoss,
    FeatureMoments,
    Normalization,
    UnexplainedVariance,
    fit_normalization,
    fvu_summary,
)
from sweeps.features.normalization import Mode
from sweeps.features.normalizer import Processes
from sweeps.model.compiling.compiled import uncompiled
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.hidden_states import hidden_states
from sweeps.spec.method.run_views import State

BLOCKS, AT_ONCE = 128, 16
"""Held-out blocks that FVU is measured on, and of them at a time."""


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Moments of targets in the state of an auxiliary loss, until their normalizations replace them."""

    state: State
    mode: Mode
    floor: float | None

    def add(self, number: int, features: Tensor, mask: Tensor) -> None:
        """Add features of target ``number`` that this process saw to those of the step under way."""
        moments = self._moments(f"{number}.step", features.shape[-1]).to(features.device)
        self._keep(f"{number}.step", moments.with_features(features, mask))

    def end_step(self, processes: Processes) -> None:
        """Add the step's moments, over all processes, to those of the steps before."""
        for number in self._numbers():
            step = self._moments(f"{number}.step", 0)
            before = self._moments(f"{number}.all", step.width).to(step.mean.device)
            self._keep(f"{number}.all", before.merged(step.reduced(processes.total)))
            self._keep(f"{number}.step", FeatureMoments.empty(step.width, step.mean.device))

    def fit(self, processes: Processes) -> None:
        """Put normalizations into the place of the moments; all processes take the leading one's.

        Raises:
            InputError: if the features do not admit the normalization.
        """
        for number in self._numbers():
            fitted = fit_normalization(self._moments(f"{number}.all", 0), self.mode, self.floor)
            for name, tensor in fitted.state_dict().items():
                own = tensor if processes.leads else torch.zeros_like(tensor)
                self.state[f"{number}.normalization.{name}"] = processes.total(own.to(device()))
            for name in [
                each for each in self.state if each.startswith((f"{number}.step.", f"{number}.all."))
            ]:
                del self.state[name]

    def _numbers(self) -> list[int]:
        return sorted({int(name.split(".")[0]) for name in self.state if ".step." in name})

    def _moments(self, prefix: str, width: int) -> FeatureMoments:
        if f"{prefix}.count" not in self.state:
            return FeatureMoments.empty(width)
        names = ("count", "mean", "scatter")
        return FeatureMoments.from_state_dict({name: self.state[f"{prefix}.{name}"] for name in names})

    def _keep(self, prefix: str, moments: FeatureMoments) -> None:
        for name, tensor in moments.state_dict().items():
            self.state[f"{prefix}.{name}"] = tensor


def normalization_of(state: State, number: int) -> Normalization | None:
    """Return the normalization of target ``number``; None before it is fitted."""
    prefix = f"{number}.normalization."
    found = {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}
    return Normalization.from_state_dict(found) if found else None


def made_heads(
    student_width: int, teacher_widths: Sequence[int], hidden: int | None, blocks: int
) -> nn.ModuleList:
    """Return one head for each target."""
    return nn.ModuleList(FeatureHead(student_width, width, hidden, blocks) for width in teacher_widths)


def matching_loss(
    student: Tensor, targets: Sequence[Tensor], heads: nn.Module, state: State, loss: FeatureLoss
) -> Tensor:
    """Return the sum over targets of the loss on normalized features, ``(batch, context)``.

    It is zero, and teaches nothing, before normalizations are fitted.
    """
    assert isinstance(heads, nn.ModuleList)
    total = torch.zeros(student.shape[:-1], device=student.device)
    for number, (head, features) in enumerate(zip(heads, targets, strict=True)):
        predicted, fitted = head(student), normalization_of(state, number)
        if fitted is None:
            total = total + 0 * predicted.sum(-1)
        else:
            total = total + loss(predicted, fitted.normalize(features))
    return total


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureEvaluation:
    """A student's heads on held-out text beside the features that they predict."""

    student: Decoder
    models: Models
    heads: nn.ModuleList
    state: State
    student_layer: int
    layers: tuple[tuple[int, ...], ...]
    """Layers of each teacher."""
    scales: tuple[float, ...]
    """Factor on the features of each target."""
    skipped: int
    """First positions of a block that do not count."""

    @torch.no_grad()
    def measure(self, tokens: NDArray[np.integer], context: int) -> dict[str, float]:
        """Return FVU, scale and largest kurtosis of a channel by target; mean, worst and balance of FVU.

        FVU is that of the teachers' own features, after the head's prediction is mapped back. All models
        compute in float32.
        """
        count = (len(tokens) - 1) // context
        chosen = sorted({n * count // BLOCKS for n in range(BLOCKS)})
        blocks = take_blocks(tokens, chosen, context).to(device())
        with ExitStack() as stack:
            for model in (self.student, *map(uncompiled, self.models.teachers)):
                stack.enter_context(in_float32(model))
            variances, kurtosis = self._sums(blocks)
        fvu = {f"fvu_{number}": each.fvu() for number, each in enumerate(variances)}
        most = {f"kurtosis_{n}": float(each.values().nan_to_num(0).max()) for n, each in enumerate(kurtosis)}
        scale = {f"scale_{number}": each.scale() for number, each in enumerate(variances)}
        return fvu | {f"fvu_{name}": value for name, value in fvu_summary(fvu).items()} | scale | most

    def _sums(self, blocks: Tensor) -> tuple[list[UnexplainedVariance], list[ChannelKurtosis]]:
        variances: list[UnexplainedVariance] = []
        kurtosis: list[ChannelKurtosis] = []
        for some in blocks.split(AT_ONCE):
            pairs = list(self._pairs(some[:, :-1]))
            errors = [UnexplainedVariance.of(*pair) for pair in pairs]
            shapes = [ChannelKurtosis.of(features) for _, features in pairs]
            variances = [a.merged(b) for a, b in zip(variances, errors, strict=True)] if variances else errors
            kurtosis = [a.merged(b) for a, b in zip(kurtosis, shapes, strict=True)] if kurtosis else shapes
        return variances, kurtosis

    def _pairs(self, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each head's prediction and what it predicts, at the positions that count."""
        own = hidden_states(self.student, inputs, [self.student_layer])[1][0]
        found = [
            each
            for teacher, layers in enumerate(self.layers)
            for each in self.models.hidden_states(inputs, teacher, layers)
        ]
        for number, (head, features) in enumerate(zip(self.heads, found, strict=True)):
            predicted, fitted = head(own), normalization_of(self.state, number)
            predicted = fitted.denormalize(predicted) if fitted else predicted
            yield predicted[:, self.skipped :], self.scales[number] * features[:, self.skipped :]
