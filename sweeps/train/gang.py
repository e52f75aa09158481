"""Gangs: how a model is laid out over the processes that train it, and what these agree on at each step."""

from __future__ import annotations

from scaling.errors import InputError
from sweeps.distill.active_method import ActiveMethod
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.distributed import World
from sweeps.model.layout import Layout
from sweeps.model.optimizer import Optimizer, parameter_groups
from sweeps.model.sharded_optimizer import ShardedOptimizer
from sweeps.model.sharding import shard
from sweeps.spec.spec import Training
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.outcomes import Ending, Stopped


def lay_out(
    model: Decoder, method: ActiveMethod, training: Training, layout: Layout, world: World
) -> Optimizer | ShardedOptimizer:
    """Bring ``model`` to the devices of ``world``, in place; return the optimizer of all that is trained.

    Raises:
        InputError: for a method whose hooks see whole weights, if weights are to be sharded.
    """
    sharded = layout.sharded and world.size > 1
    if sharded and method.hooks:
        raise InputError(
            f"hooks: {', '.join(method.hooks)}: hooks see whole weights, and those of this run are to be "
            f"sharded over {world.size} processes; set training.shard: false"
        )
    if layout.recompute:
        model.recompute_blocks()
    if sharded:
        shard(model, world)
    model.to(device())
    modules = {"": model} | {f"heads/{name}/": head for name, head in method.heads.items()}
    groups = tuple(
        group for prefix, module in modules.items() for group in parameter_groups(module, training, prefix)
    )
    return ShardedOptimizer(groups, world) if sharded else Optimizer(groups, world)


def agree_to_save(save: bool, checkpoints: Checkpoints | None, world: World) -> bool:
    """Return in all processes the leading one's ``save``.

    Raises:
        Stopped: in all processes, if the leading one has to leave the step.
    """
    stopped = None
    try:
        if checkpoints:
            checkpoints.look()
    except Stopped as reason:
        stopped = reason
    endings = [None, *Ending]
    told = world.from_leader(2 * endings.index(stopped.ending if stopped else None) + save)
    if ending := endings[told // 2]:
        raise stopped or Stopped(ending, "the leading process of this step has left it")
    return bool(told % 2)
