"""Parts of distillation methods, one of each kind, in one file of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaling.costs.flops import ModelShape
from sweeps.data.batches import Batches
from sweeps.distill.models import Models
from sweeps.methods import (
    AfterStep,
    AuxiliaryLoss,
    Divergence,
    Evaluation,
    HiddenStates,
    Hook,
    InitialWeights,
    Metric,
    RunSetting,
    SequenceSource,
    State,
    Target,
    TrainingBatch,
)
from sweeps.model.decoder import Decoder
from sweeps.model.log_probs import log_probabilities


class Hellinger(Divergence):
    """Squared Hellinger distance, 1 - sum sqrt(p q)."""

    scale: float = 1.0

    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        return self.scale * (1 - ((log_p + log_q) / 2).exp().sum(-1))


class Sharpened(Target):
    """The teacher's distribution to a power, not followed after one of the tokens."""

    power: float = 2.0
    ignored_token: int = 0

    def log_p(self, models: Models, inputs: Tensor, numbers: Tensor) -> Tensor:
        teacher = models.teacher
        return log_probabilities(self.power * F.linear(teacher.model(inputs), teacher.head))

    def mask(self, models: Models, inputs: Tensor, numbers: Tensor) -> Tensor:
        return inputs != self.ignored_token


class Backwards(SequenceSource):
    """Text written once, before training: blocks of the data from back to front."""

    writes_before: ClassVar[bool] = True

    def write(self, models: Models, data: Batches, numbers: Tensor) -> Tensor:
        return data.read(numbers).flip(1)

    def text_columns(self, models: Models, data: Batches) -> dict[str, float]:
        return {"blocks_at_hand": data.blocks}


class Drifting(SequenceSource):
    """Batches made during the run: the data's, rotated by a number that grows with every step."""

    writes_along: ClassVar[bool] = True
    pace: int = 1

    def initial_state(self, setting: RunSetting) -> State:
        return {"shift": torch.tensor(0)}

    def batch(
        self, setting: RunSetting, student: Decoder, step: int, data: Tensor, state: State
    ) -> TrainingBatch:
        state["shift"] = state["shift"] + self.pace
        return TrainingBatch(data.roll(int(state["shift"]) % data.shape[1], 1))


class PullToAverage(Hook):
    """Pull all weights towards their running average after every update."""

    strength: float = 0.01

    def initial_state(self, setting: RunSetting) -> State:
        return {}

    def after_step(self, run: AfterStep, state: State) -> None:
        for name, weight in run.student.named_parameters():
            average = state.get(name, weight.detach().clone())
            state[name] = average.lerp(weight, 0.1)
            weight.lerp_(state[name], self.strength)


class SentenceLoss(Metric):
    """Cross-entropy of a sentence that is in no corpus."""

    sentence: str = "the king went up to the city"

    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        tokens = torch.tensor([evaluation.encode(self.sentence)])
        with torch.no_grad():
            log_q = log_probabilities(evaluation.student(tokens[:, :-1]))
        return {"sentence_loss": float(-log_q.gather(-1, tokens[:, 1:, None]).mean())}


class MatchLayer(AuxiliaryLoss):
    """Mean squared error between a layer of the student, through a linear head, and one of each teacher."""

    layer: int = -1

    def student_layers(self, student: ModelShape) -> Sequence[int]:
        return (self.layer,)

    def teacher_layers(self, teacher: ModelShape, number: int) -> Sequence[int]:
        return (self.layer,)

    def heads(self, student: ModelShape, teachers: Sequence[ModelShape]) -> nn.Module:
        return nn.ModuleList(nn.Linear(student.width, teacher.width) for teacher in teachers)

    def per_token(self, hidden: HiddenStates, heads: nn.Module | None, state: State) -> Tensor:
        assert isinstance(heads, nn.ModuleList)
        (own,) = hidden.student
        errors = [
            (head(own) - theirs).square().mean(-1)
            for head, (theirs,) in zip(heads, hidden.teachers, strict=True)
        ]
        return torch.stack(errors).mean(0)


class Halved(InitialWeights):
    """Half of the weights that the student would begin with."""

    def weights(self, setting: RunSetting, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: weight / 2 for name, weight in drawn.items()}


hellinger_kd = {"divergence": {"use": "my_methods:Hellinger", "scale": 2.0}, "cross_entropy": 0.1}
"""A whole method, for ``use: my_methods:hellinger_kd``."""
