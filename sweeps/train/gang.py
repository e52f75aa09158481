"""Gangs: how a model is laid out over the processes that train it, and what these agree on at each step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scaling.errors import InputError
from sweeps.distill.active_method import ActiveMethod
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.device import device, is_out_of_memory
from sweeps.model.distributed import World, lost_peer, out_of_memory
from sweeps.model.layout import Layout
from sweeps.model.optimizer import Optimizer, parameter_groups
from sweeps.model.sharded_optimizer import ShardedOptimizer
from sweeps.model.sharding import fill, is_sharded, sharded_model
from sweeps.spec.spec import Training
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.outcomes import Ending, Stopped
from sweeps.train.recipe import RunRecipe


def model_at_start(
    recipe: RunRecipe,
    method: ActiveMethod,
    init: Mapping[str, Tensor] | None,
    layout: Layout,
    world: World,
) -> Decoder:
    """Return the model of a run with its first weights, whole or this process's part of it, on its device.

    A sharded one is made without storage for more than the part, and is given the same values.

    Args:
        recipe: recipe of the run.
        method: its method, which may change the weights.
        init: weights that it begins with, if not with drawn ones.
        layout: its layout.
        world: its processes.

    Raises:
        InputError: for a method whose hooks see whole weights, if weights are to be sharded.
    """
    precision = PRECISIONS[recipe.training.precision]
    if shards := layout.sharded and world.size > 1:
        _refuse_hooks(method, world)
        model = sharded_model(recipe.shape, precision, world)
    else:
        model = Decoder(recipe.shape)
        model.precision = precision
    values = init.items() if init else model.initial_values(recipe.seed)
    fill(model, method.initial_weights(values))
    if layout.recompute:
        model.recompute_blocks()
    return model.train() if shards else model.train().to(device())


def _refuse_hooks(method: ActiveMethod, world: World) -> None:
    if method.hooks:
        raise InputError(
            f"hooks: {', '.join(method.hooks)}: hooks see whole weights, and those of this run are to be "
            f"sharded over {world.size} processes; set training.shard: false"
        )


def optimizer_of(
    model: Decoder, method: ActiveMethod, training: Training, world: World
) -> Optimizer | ShardedOptimizer:
    """Return the optimizer of ``model``, sharded where it is, and of what its method trains beside it."""
    modules = {"": model} | {f"heads/{name}/": head for name, head in method.heads.items()}
    groups = tuple(
        group for prefix, module in modules.items() for group in parameter_groups(module, training, prefix)
    )
    shards = any(is_sharded(member) for group in groups for member in group.members)
    return ShardedOptimizer(groups, world) if shards else Optimizer(groups, world)


def agree(save: bool, pieces: int, checkpoints: Checkpoints | None, world: World) -> tuple[bool, int]:
    """Return in all processes the leading one's ``save``, and the most ``pieces`` of a batch in any.

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
    own = 2 * endings.index(stopped.ending if stopped else None) + save
    told, pieces = world.most(own if world.leads else 0, pieces)
    if ending := endings[told // 2]:
        raise stopped or Stopped(ending, "the leading process of this step has left it")
    return bool(told % 2), pieces


def end_of_gang(error: BaseException, pieces: int, world: World) -> Stopped | None:
    """Return how this attempt ends if ``error`` ends its gang: memory ran out, or another process is gone.

    Args:
        error: error of a step in this process.
        pieces: micro-batches of this process's share of a batch.
        world: processes of the gang.
    """
    if world.size == 1:
        return None
    if is_out_of_memory(error):
        each = f"{pieces} micro-batches a step" if pieces > 1 else "its share of a batch in one piece"
        return out_of_memory(world, f"memory ran out with {each}: {str(error).splitlines()[0]}")
    return lost_peer(error, world)
