"""The loss of a batch and its gradient by all weights of a model at once, in machine code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sweeps.distill.targets import Cached
from sweeps.model.compiling.aot import CompiledLibrary
from sweeps.model.compiling.compiler_check import NamedTensors, Verdict, loss_and_gradient
from sweeps.model.decoder import Decoder
from sweeps.model.language_model import LanguageModel
from sweeps.model.optimizer import Optimizer
from sweeps.spec.method.run_views import TargetReader, TrainingBatch

Loss = Callable[[LanguageModel, TrainingBatch, TargetReader | None, Tensor | None], Tensor]
"""Loss of a model, a batch, its target, and the number of the divergence's schedule."""


class CompiledLossAndGrad:
    """``loss`` of ``model`` and its gradient, laid out as the weights in ``optimizer``.

    One function goes forward and backward: nothing is kept for a backward pass that is not needed there, no
    graph is built anew each step, and what could be done in one sweep over memory is.
    """

    def __init__(
        self,
        loss: Loss,
        key: str,
        model: Decoder,
        optimizer: Optimizer,
        noted: Callable[[str, Verdict], None] | None = None,
    ) -> None:
        self.key, self.optimizer, self.precision, self.noted = key, optimizer, model.precision, noted
        self.model = _LossModule(loss, model)
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        self.names = [names[id(member)] for member in optimizer.members]
        self.buffers = dict(self.model.named_buffers())
        self._libraries: dict[tuple[object, ...], CompiledLibrary] = {}

    def __call__(
        self, batch: TrainingBatch, target: TargetReader | None, schedule: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss over a batch's tokens, and its gradient ``(parameters,)``."""
        parts = (schedule, *batch.tensors())
        there, how = tuple(part is not None for part in parts), _reading_key(target)
        if (there, how) not in self._libraries:
            key = f"{self.key} {there} {how}"
            function = self._function(there, target)
            self._libraries[there, how] = CompiledLibrary(
                function, key, self.precision, self._named, self.noted
            )
        given = (part for part in parts if part is not None)
        loss, gradient = self._libraries[there, how](self.optimizer.weights, *self.buffers.values(), *given)
        return loss, gradient

    def _named(self, results: Sequence[Tensor]) -> NamedTensors:
        loss, gradient = results
        views = self.optimizer.views(gradient)
        names = (name.removeprefix("model.") for name in self.names)
        return loss_and_gradient(loss, gradient, dict(zip(names, views, strict=True)))

    def _function(
        self, there: tuple[bool, ...], target: TargetReader | None
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        def function(flat: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
            buffers, given = others[: len(self.buffers)], iter(others[len(self.buffers) :])
            schedule, *tensors = (next(given) if part else None for part in there)
            batch = TrainingBatch.from_tensors(tensors)
            weights = [weight.detach().requires_grad_() for weight in self.optimizer.views(flat)]
            state = dict(zip(self.names, weights, strict=True)) | dict(
                zip(self.buffers, buffers, strict=True)
            )
            with torch.enable_grad():
                loss = functional_call(self.model, state, (batch, target, schedule))
                gradients = torch.autograd.grad(loss, weights)
            return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])

        return function


def _reading_key(target: TargetReader | None) -> str:
    """Return a name of the way from a target's rows to probabilities."""
    return repr(target.kept) if isinstance(target, Cached) else type(target).__name__


class _LossModule(nn.Module):
    """A loss as a module of its model's parameters."""

    def __init__(self, loss: Loss, model: Decoder) -> None:
        super().__init__()
        self.loss, self.model = loss, model

    def forward(self, batch: TrainingBatch, target: TargetReader | None, schedule: Tensor | None) -> Tensor:
        return self.loss(self.model, batch, target, schedule)
