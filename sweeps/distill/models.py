"""Frozen models of a step: its teacher and other teachers, and the bases that targets are moved from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scaling.costs.flops import ModelShape
from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.data.model_dir import ModelLocation
from sweeps.distill.targets import Online
from sweeps.model.chunked_loss import logits_fit
from sweeps.model.compiling.compiled import uncompiled
from sweeps.model.decoder import INFERENCE_PRECISIONS, Decoder
from sweeps.model.device import device
from sweeps.model.distributed import World
from sweeps.model.frozen import FrozenBody
from sweeps.model.hidden_states import hidden_states
from sweeps.model.language_model import LanguageModel
from sweeps.model.model_files import load_model, map_weights
from sweeps.model.sharding import fill, sharded_model
from sweeps.spec.hidden_layers import StoredPrecision, counted_from_embedding
from sweeps.store.store import Store

if TYPE_CHECKING:
    from sweeps.distill.caches.hidden_state_cache import KeptHiddenStates
    from sweeps.pretrained.load import Foreign


class Models:
    """Models that a step reads, each loaded when it is first asked for."""

    def __init__(
        self,
        store: Store,
        step: Step,
        loaded: dict[str, Online] | None = None,
        last_read: dict[str, LastHiddenStates] | None = None,
        kept: Mapping[str, KeptHiddenStates] | None = None,
        world: World | None = None,
    ) -> None:
        self.store, self.step = store, step
        self.loaded = {} if loaded is None else loaded
        """Models by their steps, which those who share this dictionary load once."""
        self.last_read = {} if last_read is None else last_read
        """Hidden states by model and layers, computed once a batch by those who share this dictionary."""
        self.kept = {} if kept is None else kept
        """Hidden states that were written down before, by their step."""
        self.world = world
        """Processes that models are sharded over; None to load them whole."""

    @property
    def online_teacher(self) -> Online:
        """The step's teacher as a target that reads every batch."""
        return self._online(self.step.teacher)

    @property
    def teacher(self) -> LanguageModel:
        """The step's teacher."""
        return self.online_teacher.teacher

    @property
    def teachers(self) -> tuple[LanguageModel, ...]:
        """The step's teacher, then the others that its method names."""
        return tuple(self._online(each).teacher for each in self.step.teachers)

    @property
    def teacher_shapes(self) -> list[ModelShape]:
        """Shapes of :attr:`teachers`."""
        return [each.shape for each in self.step.teachers]

    @property
    def student_base(self) -> LanguageModel:
        """The model that the student began as: its prelude's."""
        return self._online(self.step.init).teacher

    @property
    def teacher_base(self) -> LanguageModel:
        """The model that the teacher was tuned from."""
        return self._online(self.step.teacher and self.step.teacher.init).teacher

    def hidden_states(self, inputs: Tensor, number: int, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """Return hidden states of teacher ``number`` at ``layers``, ``(batch, time, width)`` each.

        Layers are numbered as in transformers' ``hidden_states``.
        """
        key = f"{self.step.teachers[number].id} {tuple(layers)}"
        last = self.last_read.get(key)
        if last is None or not last.is_of(inputs):
            with torch.no_grad():
                states = hidden_states(uncompiled(self.teachers[number]), inputs, layers)[1]
            last = self.last_read[key] = LastHiddenStates(inputs, inputs._version, states)
        return last.states

    def kept_hidden_states(
        self, numbers: Tensor, number: int, layers: Sequence[int], precision: StoredPrecision
    ) -> tuple[Tensor, ...]:
        """Return what teacher ``number`` wrote down of the given blocks, ``(batch, context, width)`` each."""
        teacher = self.step.teachers[number]
        (cache,) = (
            each.id
            for each in self.step.features
            if each.hidden and each.hidden.precision == precision and each.teacher == teacher
        )
        return self.kept[cache].of(numbers, counted_from_embedding(layers, teacher.shape))

    @property
    def teacher_module(self) -> nn.Module:
        """The step's teacher as a module, for its weights."""
        model = uncompiled(self.teacher)
        assert isinstance(model, nn.Module)
        return model

    def _online(self, step: Step | None) -> Online:
        assert step is not None, "the step has no such model"
        if step.id not in self.loaded:
            self.loaded[step.id] = online(self.store, step, self.world)
        return self.loaded[step.id]


@dataclass(frozen=True, slots=True)
class LastHiddenStates:
    """Hidden states of the tokens that a model read last, for runs that read the same batch."""

    inputs: Tensor
    """Tokens that were read; kept, so that no other tensor has their place in memory."""
    version: int
    """PyTorch's count of changes in place of the inputs, when they were read."""
    states: tuple[Tensor, ...]

    def is_of(self, inputs: Tensor) -> bool:
        """Return True if ``inputs`` are those tokens, and nobody has changed them or the states since."""
        places = [(each.data_ptr(), each.shape, each.stride()) for each in (inputs, self.inputs)]
        unchanged = inputs._version == self.version and not any(each._version for each in self.states)
        return places[0] == places[1] and unchanged


def online(store: Store, teacher: Step, world: World | None = None) -> Online:
    """Return the model that ``teacher`` trained, or measured, as a target.

    It is sharded over ``world``, if that is given, unless a command trained it.
    """
    model: Decoder | Foreign
    if teacher.foreign:
        model = load_foreign(teacher, world)
    elif teacher.trainer:
        model = trained_by_command(store, teacher)
    elif world and world.size > 1:  # gathered in float32, in which metrics read it
        model = sharded_model(teacher.shape, torch.float32, world).eval().requires_grad_(False)
        fill(model, trained_weights(store, teacher).items())
    else:
        model = trained(store, teacher).to(device())
    returns_log_probs = logits_fit(round(teacher.training.batch_tokens), teacher.shape.vocab)
    if not isinstance(model, Decoder):
        return Online(model, returns_log_probs)
    model.precision = INFERENCE_PRECISIONS[teacher.precision]
    compiled = teacher.training.compile and not (world and world.size > 1)
    return Online(FrozenBody(model) if compiled else model, returns_log_probs)


def trained(store: Store, step: Step) -> Decoder:
    """Return the model that ``step`` trained."""
    found = store.result(step.id) or {}
    with store.model(step.id) as folder:
        return load_model(folder, step.shape, found.get("weights_sha256", ""))


def trained_weights(store: Store, step: Step) -> dict[str, Tensor]:
    """Return the weights of the model that ``step`` trained, which are read from its file when used."""
    found = store.result(step.id) or {}
    with store.model(step.id) as folder:
        return map_weights(folder, found.get("weights_sha256", ""))


def trained_by_command(store: Store, step: Step) -> Decoder | Foreign:
    """Return the model that the command of ``step`` left, on this machine's device.

    Raises:
        InputError: if it left only a loss, or the model in the store is damaged.
    """
    from sweeps.pretrained.load import load_pretrained

    found, where = store.result(step.id) or {}, f"teacher {step.size}"
    if "model" not in found:
        raise InputError(
            f"{where}: its command left a loss and no model, from which a student can be distilled; let it "
            "leave a model (trainer.model, or model in result.json)"
        )
    with store.model(step.id) as folder:
        if ModelLocation(model=str(folder)).fingerprint != found.get("model_fingerprint"):
            raise InputError(
                f"{folder}: damaged; to train it again, delete {store.root}/{step.id}/result.json"
            )
        return load_pretrained(folder, step.shape.vocab, where).to(device())


def load_foreign(step: Step, world: World | None = None) -> Decoder | Foreign:
    """Return the model that ``step`` measures, on this machine's device, or sharded over those of ``world``.

    Raises:
        InputError: if it has changed since the sweep was planned, or cannot teach.
    """
    from sweeps.pretrained.load import load_pretrained
    from sweeps.pretrained.sharded import load_sharded

    assert step.foreign is not None
    place = step.foreign.place
    if step.served:
        raise InputError(
            f"teacher {place.model}: a server answers for it, and its weights are not here; only its cache "
            "can be read (logits: top-k)"
        )
    if place.fingerprint != step.foreign.fingerprint:
        raise InputError(f"teacher: {place.model} has changed since this sweep was planned; start it again")
    where = f"teacher {place.model}"
    if world and world.size > 1:
        return load_sharded(place.folder(), step.shape.vocab, where, step.foreign.precision, world)
    return load_pretrained(place.folder(), step.shape.vocab, where, step.foreign.precision).to(device())
