"""Parts of distillation methods that ship, and the interfaces that they and anybody's share.

``<name>.yaml`` is a named method, as in ``methods: [gkd, {use: gkd, beta: 0.1}]``; each module holds parts:
their options, what they cost and cannot be combined with, and how they start. Those of ``builtin`` are named
in one word, the others by path. May import ``distill`` and the rooms below; the rooms below find its parts by
name, in :mod:`sweeps.spec.method.registry`.
"""

from sweeps.spec.method.interfaces import (
    AuxiliaryLoss,
    Divergence,
    Hook,
    InitialWeights,
    MethodPart,
    Metric,
    SequenceSource,
    Target,
)
from sweeps.spec.method.run_views import (
    AfterStep,
    BatchSource,
    Evaluation,
    HiddenStates,
    LogProbsView,
    Passes,
    RunSetting,
    Schedule,
    ShardFormat,
    State,
    TargetReader,
    TrainingBatch,
)

__all__ = [
    "AfterStep",
    "AuxiliaryLoss",
    "BatchSource",
    "Divergence",
    "Evaluation",
    "HiddenStates",
    "Hook",
    "InitialWeights",
    "LogProbsView",
    "MethodPart",
    "Metric",
    "Passes",
    "RunSetting",
    "Schedule",
    "SequenceSource",
    "ShardFormat",
    "State",
    "Target",
    "TargetReader",
    "TrainingBatch",
]
