"""The loss of a lesson and its gradient by all weights of a model at once, in machine code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sweeps.distill.on_policy import Lesson
from sweeps.distill.targets import Cached, Target
from sweeps.model.aot import CompiledLibrary
from sweeps.model.compiler_check import NamedTensors, Verdict, loss_and_gradient
from sweeps.model.decoder import Decoder
from sweeps.model.language_model import LanguageModel
from sweeps.model.optimizer import Optimizer

Loss = Callable[[LanguageModel, Lesson, Target | None, Tensor | None], Tensor]
"""Of a model, of what it learns from, of whom it follows, and under TAID how far the way there."""


class Gradient:
    """``loss`` of ``model`` and its gradient, laid out as the weights in ``optimiser``.

    One function goes forward and backward: nothing is kept for a backward pass that is not needed there, no
    graph is built anew each step, and what could be done in one sweep over memory is.
    """

    def __init__(
        self,
        loss: Loss,
        key: str,
        model: Decoder,
        optimiser: Optimizer,
        noted: Callable[[str, Verdict], None] | None = None,
    ) -> None:
        self.key, self.optimiser, self.precision, self.noted = key, optimiser, model.precision, noted
        self.model = _Lossy(loss, model)
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        self.names = [names[id(member)] for member in optimiser.members]
        self.buffers = dict(self.model.named_buffers())
        self._libraries: dict[tuple[object, ...], CompiledLibrary] = {}

    def __call__(self, lesson: Lesson, target: Target | None, t: Tensor | None) -> tuple[Tensor, Tensor]:
        """The mean loss over a lesson's tokens, and its gradient ``(parameters,)``."""
        parts = (lesson.blocks, lesson.rows, lesson.beside, t, *lesson.of_tokens)
        there, how = tuple(part is not None for part in parts), _way(target)
        if (there, how) not in self._libraries:
            key = f"{self.key} {there} {how}"
            function = self._function(there, target)
            self._libraries[there, how] = CompiledLibrary(
                function, key, self.precision, self._named, self.noted
            )
        given = (part for part in parts if part is not None)
        loss, gradient = self._libraries[there, how](self.optimiser.weights, *self.buffers.values(), *given)
        return loss, gradient

    def _named(self, results: Sequence[Tensor]) -> NamedTensors:
        loss, gradient = results
        views = self.optimiser.views(gradient)
        names = (name.removeprefix("model.") for name in self.names)
        return loss_and_gradient(loss, gradient, dict(zip(names, views, strict=True)))

    def _function(
        self, there: tuple[bool, ...], target: Target | None
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        def function(flat: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
            buffers, given = others[: len(self.buffers)], iter(others[len(self.buffers) :])
            blocks, rows, beside, t, *of_tokens = (next(given) if part else None for part in there)
            assert blocks is not None
            lesson = Lesson(blocks, rows, tuple(each for each in of_tokens if each is not None), beside)
            weights = [weight.detach().requires_grad_() for weight in self.optimiser.views(flat)]
            state = dict(zip(self.names, weights, strict=True)) | dict(
                zip(self.buffers, buffers, strict=True)
            )
            with torch.enable_grad():
                loss = functional_call(self.model, state, (lesson, target, t))
                gradients = torch.autograd.grad(loss, weights)
            return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])

        return function


def _way(target: Target | None) -> str:
    """What tells apart the ways from a target's rows to probabilities."""
    return repr(target.kept) if isinstance(target, Cached) else type(target).__name__


class _Lossy(nn.Module):
    """A loss as a module of its model's parameters."""

    def __init__(self, loss: Loss, model: Decoder) -> None:
        super().__init__()
        self.loss, self.model = loss, model

    def forward(self, lesson: Lesson, target: Target | None, t: Tensor | None) -> Tensor:
        return self.loss(self.model, lesson, target, t)
