"""The loss of a batch by ``torch.compile``, compared with plain PyTorch when a kind of batch is first met.

For GPUs, and for losses that go over blocks of logits; for others see :mod:`sweeps.train.compiled_step`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from sweeps.data.cache import locked
from sweeps.model.compiling.aot import sources_digest
from sweeps.model.compiling.compiled import compile_cache_dir
from sweeps.model.compiling.compiler_check import (
    NamedTensors,
    Verdict,
    compiling_with,
    find_options,
    loss_and_gradient,
    perturbed,
    read_verdict,
)
from sweeps.model.decoder import Decoder
from sweeps.model.optimizer import Optimizer
from sweeps.spec.method.run_views import TargetReader, TrainingBatch

LossOf = Callable[[TrainingBatch, TargetReader | None, Tensor | None], Tensor]
"""Loss of a batch, its target, and the number of the divergence's schedule."""


class CompiledLoss:
    """Loss of a model and, added to its gradients, the loss's gradient.

    Args:
        build: gives the compiled loss, under the options in force.
        plain: the same loss by plain PyTorch.
        key: all that they depend on besides their arguments and the sources of this package.
        noted: is told of the options of each kind of batch when it is first met, and may refuse them.
    """

    def __init__(
        self,
        build: Callable[[], LossOf],
        plain: LossOf,
        key: str,
        model: Decoder,
        optimizer: Optimizer,
        noted: Callable[[str, Verdict], None],
    ) -> None:
        self.build, self.plain, self.key, self.noted = build, plain, key, noted
        self.model, self.optimizer = model, optimizer
        self._losses: dict[str, LossOf] = {}
        self._levels: dict[tuple[object, ...], str] = {}

    def __call__(
        self, batch: TrainingBatch, target: TargetReader | None, schedule: Tensor | None, share: float
    ) -> Tensor:
        """Add the gradient of ``share`` of the loss to the model's, and return that share."""
        parts = (schedule, *batch.tensors())
        kinds = tuple(part is not None and (part.shape, part.dtype) for part in parts)
        if kinds not in self._levels:
            self._levels[kinds] = self._first(batch, target, schedule, f"{kinds} {type(target).__name__}")
        return self._backward(self._levels[kinds], batch, target, schedule, share)

    def _first(
        self, batch: TrainingBatch, target: TargetReader | None, schedule: Tensor | None, kinds: str
    ) -> str:
        name = hashlib.sha256(f"{sources_digest()} {self.key} {kinds}".encode()).hexdigest()[:32]
        file = compile_cache_dir() / f"{name}.json"
        verdict = read_verdict(file)
        if verdict is None:
            compute = partial(self._results, batch, target, schedule)
            with locked(file):
                verdict = read_verdict(file) or self._compare(compute, file)
        if verdict.options is None:
            raise verdict.refusal(file)
        self.noted(hashlib.sha256(f"{self.key} {kinds}".encode()).hexdigest()[:8], verdict)
        return verdict.options

    def _compare(self, compute: Callable[[str | None], NamedTensors], file: Path) -> Verdict:
        """Compare from gradients of zero, and put back what there was and what the weights were."""
        before, weights = self.optimizer.gradients.clone(), self.optimizer.weights.clone()

        def plain(change: float) -> NamedTensors:
            self.optimizer.weights.copy_(perturbed(weights, change))
            try:
                return compute(None)
            finally:
                self.optimizer.weights.copy_(weights)

        try:
            return find_options(compute, plain, self.model.precision, file)
        finally:
            self.optimizer.gradients.copy_(before)

    def _results(
        self, batch: TrainingBatch, target: TargetReader | None, schedule: Tensor | None, level: str | None
    ) -> NamedTensors:
        self.optimizer.clear()
        loss = self._backward(level, batch, target, schedule, 1.0)
        gradient = self.optimizer.gradients.clone()
        return loss_and_gradient(loss.clone(), gradient, self._by_weight(gradient))

    def _by_weight(self, gradient: Tensor) -> Mapping[str, Tensor]:
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        views = self.optimizer.views(gradient)
        return {names[id(own)]: view for own, view in zip(self.optimizer.members, views, strict=True)}

    def _backward(
        self,
        level: str | None,
        batch: TrainingBatch,
        target: TargetReader | None,
        schedule: Tensor | None,
        share: float,
    ) -> Tensor:
        if level is None:
            loss = self.plain(batch, target, schedule) * share
            loss.backward()
            return loss.detach()
        with compiling_with(level):
            if level not in self._losses:
                self._losses[level] = self.build()
            loss = self._losses[level](batch, target, schedule) * share
            loss.backward()
        return loss.detach()
