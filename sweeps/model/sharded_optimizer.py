"""AdamW of ``torch.optim`` over sharded weights, by the rules of :mod:`sweeps.model.optimizer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sweeps.model.distributed import World
from sweeps.model.optimizer import BETAS, EPS, FIRST, SECOND, UPDATES, ParameterGroup
from sweeps.model.sharding import is_sharded, local, put

MOMENTS = {FIRST: "exp_avg", SECOND: "exp_avg_sq"}
"""Names of the moments in checkpoints: those of ``torch.optim``."""


class ShardedOptimizer:
    """AdamW over ``groups`` of parameters, some sharded and some whole in every process of ``world``.

    A parameter's moments are sharded as it is. Gradients of sharded parameters are summed over the processes
    in the backward pass, those of whole ones before the update.
    """

    def __init__(self, groups: tuple[ParameterGroup, ...], world: World) -> None:
        self.groups, self.world = groups, world
        self.members = {
            name: member for group in groups for name, member in zip(group.names, group.members, strict=True)
        }
        rules = [rule for group in groups for rule in _rules(group)]
        self.adamw = torch.optim.AdamW(rules, lr=0.0, betas=BETAS, eps=EPS, fused=True)
        for member in self.members.values():
            moments = {name: torch.zeros_like(member.detach()) for name in MOMENTS.values()}
            self.adamw.state[member] = {"step": torch.zeros((), device=member.device), **moments}

    @torch.no_grad()
    def reduce(self) -> None:
        """Sum the gradients of whole parameters over all processes; where there is none it is zero."""
        for member in self.members.values():
            if member.grad is None:
                member.grad = torch.zeros_like(member)
        own = [gradient for member, gradient in self._gradients() if not is_sharded(member)]
        total = self.world.total(torch.cat([gradient.flatten() for gradient in own]))
        for gradient, found in zip(own, total.split([each.numel() for each in own]), strict=True):
            gradient.copy_(found.view_as(gradient))

    @torch.no_grad()
    def clip(self, most: float) -> Tensor:
        """Clip the gradients to a global norm of ``most``; return their norm before."""
        own: dict[bool, list[Tensor]] = {True: [], False: []}
        for member, gradient in self._gradients():
            own[is_sharded(member)].append(gradient)
        squares = {kind: torch.stack(torch._foreach_norm(each)).square().sum() for kind, each in own.items()}
        norm = (self.world.total(squares[True]) + squares[False]).sqrt()
        torch._foreach_mul_(own[True] + own[False], (most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def step(self, rate: float) -> None:
        """Update the weights at the learning rate ``rate``, and drop the gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = rate * group["scale"]
        self.adamw.step()
        self.clear()

    def clear(self) -> None:
        """Drop the gradients."""
        self.adamw.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Return the state that the next update depends on, besides weights, by parameter."""
        state = self.adamw.state
        moments = {
            f"{moment}/{name}": state[member][key]
            for moment, key in MOMENTS.items()
            for name, member in self.members.items()
        }
        return moments | {UPDATES: next(iter(state.values()))["step"]}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that :meth:`state` returned, its tensors sharded or whole, or an Optimizer's."""
        for moment, key in MOMENTS.items():
            given = self._split(state[moment]) if moment in state else state
            for name, member in self.members.items():
                put(self.adamw.state[member][key], given[f"{moment}/{name}" if given is state else name])
        for own in self.adamw.state.values():
            own["step"].copy_(state[UPDATES])

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the parts of a flat tensor of :class:`~sweeps.model.optimizer.Optimizer` by parameter."""
        pieces = flat.split([member.numel() for member in self.members.values()])
        return {
            name: piece.view(member.shape)
            for (name, member), piece in zip(self.members.items(), pieces, strict=True)
        }

    def _gradients(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield each parameter and the part of its gradient that is here."""
        for member in self.members.values():
            assert member.grad is not None
            yield member, local(member.grad)


def _rules(group: ParameterGroup) -> Iterator[dict[str, object]]:
    """Yield the group of ``torch.optim``, or two where some members are sharded and others are not."""
    for kind in (True, False):
        if members := [member for member in group.members if is_sharded(member) is kind]:
            yield {"params": members, "scale": group.scale, "weight_decay": group.decay}
