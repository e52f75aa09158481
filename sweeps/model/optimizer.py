"""Optimizer: AdamW with mu-P (simple) learning rates, and the learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sweeps.model.distributed import World
from sweeps.spec.spec import Training

BASE_WIDTH = 64
"""Fan-in at which a hidden matrix has the peak learning rate."""
BETAS, EPS = (0.9, 0.95), 1e-8
FIRST, SECOND, UPDATES = "first moments", "second moments", "updates"
"""Names of the optimizer's state in checkpoints; of single parameters ``first moments/NAME``."""


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters with common hyperparameters."""

    scale: float
    """Factor of the learning rate."""
    decay: float
    """Decoupled weight decay."""
    members: tuple[nn.Parameter, ...]
    names: tuple[str, ...]
    """Names of the members."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return sum(member.numel() for member in self.members)


def parameter_groups(model: nn.Module, training: Training, prefix: str = "") -> tuple[ParameterGroup, ...]:
    """Group parameters by mu-P (simple): the learning rate of a hidden matrix falls as 1/fan-in.

    Embeddings and gains have the peak rate at every width. Gains are not decayed. Source: Wortsman et al.
    2024 (arXiv 2309.14322).

    Args:
        model: the model, or a module beside it.
        training: rules of the run.
        prefix: of the names of members.
    """
    groups: dict[tuple[float, float], dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and "embed" not in name
        scale = BASE_WIDTH / parameter.shape[1] if hidden else 1.0
        decay = training.weight_decay if parameter.ndim == 2 else 0.0
        groups.setdefault((scale, decay), {})[prefix + name] = parameter
    return tuple(
        ParameterGroup(*rules, tuple(members.values()), tuple(members)) for rules, members in groups.items()
    )


class Optimizer:
    """AdamW over ``groups`` of parameters, stored contiguously in memory, as are their gradients.

    A model of a hundred matrices is then about four tensors to update and one to clip, which saves a tenth of
    a step of the smallest models.

    Args:
        groups: the groups.
        world: processes that each have their share of the gradients.
    """

    def __init__(self, groups: tuple[ParameterGroup, ...], world: World | None = None) -> None:
        self.groups, self.world = groups, world or World()
        self.members = [member for group in groups for member in group.members]
        self.weights = torch.cat([member.detach().flatten() for member in self.members])
        self.gradients, self.first, self.second = (torch.zeros_like(self.weights) for _ in range(3))
        self.updates = torch.zeros((), device=self.weights.device)
        flat = (self.weights, self.gradients, self.first, self.second)
        self.pieces = tuple(
            zip(*(each.split([group.size for group in groups]) for each in flat), strict=True)
        )
        places = zip(self.members, self.views(self.weights), self.views(self.gradients), strict=True)
        for member, weight, gradient in places:
            member.data, member.grad = weight, gradient

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return views of a flat tensor with the shapes of the members."""
        pieces = flat.split([member.numel() for member in self.members])
        return [piece.view_as(member) for piece, member in zip(pieces, self.members, strict=True)]

    def reduce(self) -> None:
        """Sum the gradients over all processes, in float32."""
        self.world.total(self.gradients)

    @torch.no_grad()
    def clip(self, most: float) -> Tensor:
        """Clip the gradients to a norm of ``most``; return their norm before."""
        norm = torch.linalg.vector_norm(self.gradients)
        self.gradients.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the weights at the learning rate ``rate``, and set the gradients to zero."""
        self.updates += 1
        for group, (weights, gradients, first, second) in zip(self.groups, self.pieces, strict=True):
            torch._fused_adamw_(
                [weights], [gradients], [first], [second], [], [self.updates],
                lr=rate * group.scale, weight_decay=group.decay,
                beta1=BETAS[0], beta2=BETAS[1], eps=EPS, amsgrad=False, maximize=False,
            )  # fmt: skip
        self.clear()

    def clear(self) -> None:
        """Set the gradients to zero."""
        self.gradients.zero_()

    def state(self) -> dict[str, Tensor]:
        """Return the state that the next update depends on, besides weights and gradients."""
        return {FIRST: self.first, SECOND: self.second, UPDATES: self.updates}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that :meth:`state` returned, here or of a sharded optimizer."""
        for name, own in self.state().items():
            if name in state:
                own.copy_(state[name])
                continue
            for view, member in zip(self.views(own), member_names(self.groups), strict=True):
                view.copy_(state[f"{name}/{member}"])


def member_names(groups: tuple[ParameterGroup, ...]) -> list[str]:
    """Return the names of all parameters in the order of the optimizer's flat tensors."""
    return [name for group in groups for name in group.names]


def learning_rate(step: int, steps: int, training: Training) -> float:
    """Return the learning rate of ``step`` in a run of ``steps``: linear warm-up, then decay.

    ``cosine`` decays to the end; ``wsd`` stays at the peak and decays linearly over the last part. Both end
    at ``final_lr_fraction`` of the peak.
    """
    warmup = training.warmup_steps
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    if training.schedule == "wsd":
        begin = training.stable_steps(steps)
        left = min(1.0, (steps - step) / (steps - begin))
    else:
        left = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return training.learning_rate * (training.final_lr_fraction + (1 - training.final_lr_fraction) * left)
