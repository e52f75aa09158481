"""A step of a sweep: a model to train, or something to ask of one; its identity and what it costs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from scaling.costs.flops import ModelShape
from scaling.units import format_number
from sweeps.dag.external_shape import ExternalModel
from sweeps.dag.identity import method_identity, shape_identity, training_identity
from sweeps.dag.kind import StepKind
from sweeps.dag.record import KnownParts, check_record, read_corpus, read_shape, read_training
from sweeps.data.tokens import Half
from sweeps.spec.corpus import Corpus
from sweeps.spec.hidden_layers import HiddenLayers
from sweeps.spec.method.interfaces import AuxiliaryLoss
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import MethodParts, parts_of
from sweeps.spec.method.run_views import Passes
from sweeps.spec.spec import Training
from sweeps.spec.trainer import Role, Trainer

SCHEMA = 5
"""Changes when the same spec would train something else."""
PAPER_METHOD = "forward-kl"
"""Name of the method that labels of steps leave out."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One model to train: a node of the DAG. Everything that changes its numbers is here, and only that."""

    kind: StepKind
    shape: ModelShape
    aspect_ratio: float
    """Aspect ratio of the shape's ladder; for the FLOP accounting, and no part of the identity."""
    steps: int
    """Optimizer steps."""
    seed: int
    """Seed of the initialization."""
    data_seed: int
    """Seed of the order of the data."""
    half: Half
    """The half of the training documents it sees; None for all."""
    corpus: Corpus
    corpus_fingerprint: str
    training: Training
    teacher: Step | None = None
    method: Method | None = None
    other_teachers: tuple[Step, ...] = ()
    """More teachers that parts of its method read."""
    start: Step | None = None
    """Shared prefix it begins from. Saves compute and changes no bit, so it is no part of the identity."""
    logits: Step | None = None
    """The cache that its teacher is read from, if its method says so; any that is long enough will do, so it
    is no part of the identity."""
    texts: Step | None = None
    """The step that generates the text it learns from, if its method says so; as with ``logits``."""
    features: tuple[Step, ...] = ()
    """Caches that it reads hidden states of its teachers from, if its method says so; as with ``logits``."""
    hidden: HiddenLayers | None = None
    """Layers that it writes down, of a cache of hidden states."""
    early: Step | None = None
    """The shorter run by whose decay its loss is projected, where it ends before its own."""
    init: Step | None = None
    """The prelude whose weights it begins with; its batches are those that come after."""
    foreign: ExternalModel | None = None
    """The model that is measured here, where nothing is trained."""
    trainer: Trainer | None = field(default=None, hash=False)
    """The command that trains it; None for our own loop."""
    role: Role | None = None
    """The field of the spec that asks for it, for its command; no part of the identity."""
    text_tokens: int | None = None
    """Tokens in the blocks of its text, if it keeps each once and they are counted; not in the identity."""

    @property
    def needs(self) -> tuple[Step, ...]:
        """The steps that must be done before this one."""
        bases = self.parts.target.needs(self) if self.parts else ()
        models = (*bases, self.teacher, *self.other_teachers, self.init, self.early)
        written = (self.logits, self.texts, *self.features)
        return tuple(step for step in (*models, self.start, *written) if step)

    @property
    def ends(self) -> int:
        """The optimizer step it ends at."""
        return self.training.stable_steps(self.steps) if self.ends_stable else self.steps

    @property
    def ends_stable(self) -> bool:
        """True if it ends before its decay: a prefix that others go on from, or a run that is projected."""
        return self.kind is StepKind.SHARED_PREFIX or self.early is not None

    @property
    def first(self) -> int:
        """Batches of its data that its prelude was trained on."""
        ours = self.init and self.init.corpus_fingerprint == self.corpus_fingerprint
        return self.init.steps if self.init and ours else 0

    @property
    def tokens(self) -> int:
        """D: tokens the model is trained on, those before ``start`` and of ``init`` included; or kept.

        Of a projected loss, those of the whole run that it stands for; of what is kept, none twice.
        """
        before = self.init.tokens if self.init and not self.kind.is_cache else 0
        read = before + round((self.steps if self.early else self.ends) * self.training.batch_tokens)
        return read if self.text_tokens is None else min(read, self.text_tokens)

    @property
    def tokens_of_its_text(self) -> int:
        """Tokens of its own corpus; a prelude may have been trained on another."""
        return round((self.first + self.ends) * self.training.batch_tokens)

    @property
    def tokens_to_train(self) -> int:
        """Tokens that this step itself trains on."""
        before = self.start or self.init
        undone = round((self.steps - self.ends) * self.training.batch_tokens) if self.early else 0
        return self.tokens - undone - (before.tokens if before else 0) if self.kind.trains else 0

    @property
    def tokens_to_teach(self) -> float:
        """Tokens that the teacher reads in this step; a cache reads none twice."""
        if self.teacher is None or self.logits:
            return 0
        if self.kind.is_cache:
            return self.tokens
        return self.tokens_to_train * self.passes.read

    @property
    def reading(self) -> tuple[float, ...]:
        """FLOPs a token of each pass over a text that its target takes."""
        if self.teacher and self.hidden:
            return (self.teacher.shape.forward_flops,)
        if self.teacher is None or self.method is None:
            return ()
        return parts_of(self.method).target.forward_flops(self)

    @property
    def parts(self) -> MethodParts | None:
        """Parts of its method."""
        return parts_of(self.method) if self.method else None

    @property
    def teachers(self) -> tuple[Step, ...]:
        """The run's own teacher, then the others."""
        return (self.teacher, *self.other_teachers) if self.teacher else ()

    @property
    def tokens_to_write(self) -> tuple[float, float]:
        """Tokens that are written in this step: by the student, by the teacher."""
        if self.kind is StepKind.GENERATE_TEXT:
            return 0.0, self._teacher_tokens(self.tokens)
        return self.tokens_to_train * self.passes.written, self.tokens_to_train * self.passes.written_along

    @property
    def passes(self) -> Passes:
        """Over a token of a batch, of its student and its teacher."""
        if self.kind.is_cache:
            return Passes(trained=0.0, read=1.0)
        if self.kind is StepKind.GENERATE_TEXT:
            return Passes(trained=0.0, read=0.0, written_before=1.0)
        if self.kind is StepKind.EVALUATE:
            return Passes(trained=0.0)
        return parts_of(self.method).source.passes(self.method) if self.method else Passes()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Content of the identity, as plain JSON: the teacher by its id, no paths, no names."""
        if self.foreign:
            return {
                "schema": SCHEMA,
                "kind": self.kind,
                "foreign": self.foreign.fingerprint,
                **({"precision": self.precision} if self.precision != "fp32" else {}),
                "context": self.shape.context,
                "corpus": {"fingerprint": self.corpus_fingerprint},
            }
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "shape": shape_identity(self.shape),
            "steps": self.ends,
            "seed": self.seed,
            "data_seed": self.data_seed,
            "half": self.half,
            "corpus": {"fingerprint": self.corpus_fingerprint},
            "training": training_identity(self.training),
            "teacher": self.teacher.id if self.teacher else None,
            "method": method_identity(self.method) if self.method else None,
            **({"init": self.init.id} if self.init else {}),
            **({"projected": {"steps": self.steps, "early": self.early.id}} if self.early else {}),
            **({"other_teachers": [each.id for each in self.other_teachers]} if self.other_teachers else {}),
            **({"trainer": self.trainer.identity} if self.trainer else {}),
            **({"hidden": self.hidden.as_json()} if self.hidden else {}),
        }

    @cached_property
    def id(self) -> str:
        """A hash of :attr:`config`."""
        canonical = json.dumps(self.config, sort_keys=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @cached_property
    def setting(self) -> str:
        """A hash of what all runs of one law must share: text, tokenizer, context and training rules."""
        shared = [self.corpus_fingerprint, self.shape.context, training_identity(self.training)]
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """Short description for people: ``distil 13.4K on 524K, from 107K on 1.05M``."""
        if self.kind.is_cache or self.kind is StepKind.GENERATE_TEXT:
            assert self.teacher is not None
            layers = f", {self.hidden}" if self.hidden else ""
            return f"{self.kind.label} {format_number(self.tokens)} tokens of {self.teacher.size}{layers}"
        text = f"{self.kind.label} {self.size}"
        if self.teacher:
            text += f", from {self.teacher.size}"
        if self.method and self.method.name != PAPER_METHOD:
            text += f", {self.method.name}"
        text += f", by {self.trainer.name}" if self.trainer else ""
        text += ", projected" if self.early else ""
        return f"{text}, seed {self.seed}" if self.seed else text

    @property
    def size(self) -> str:
        """``107K on 1.05M``: parameters and tokens; ``106M smollm2`` of a model that was not trained here."""
        if self.foreign:
            return f"{format_number(self.shape.params)} {self.foreign.name}"
        return f"{format_number(self.shape.params)} on {format_number(self.tokens)}"

    @property
    def student_flops(self) -> float:
        """FLOPs of training the model itself, and of all that it writes for that."""
        parts = self.flops_by_part()
        before = self.init.student_flops if self.init else 0.0
        return before + parts["training"] + parts["writing"]

    @property
    def teacher_flops(self) -> float:
        """FLOPs of all that the teacher reads and writes for the run, as if nobody shared them."""
        return self.flops - self.student_flops

    @property
    def flops(self) -> float:
        """FLOPs of the run as a law counts them, standing alone: prelude, training, teacher's inference."""
        return sum(self.flops_by_part().values())

    def flops_by_part(self, written: float | None = None) -> dict[str, float]:
        """Return FLOPs of the prelude, of training, and of what student and teacher read and write.

        ``written`` is the number of tokens that the student wrote, if it was counted; else it is estimated.
        """
        tokens = self.tokens - (self.init.tokens if self.init else 0)
        own, teacher = self.shape.forward_flops, self.teacher.shape.forward_flops if self.teacher else 0.0
        over = self.passes
        along = over.written_along / over.written if over.written else 0.0
        written = tokens * over.written if written is None else written
        before = self._teacher_tokens(tokens * over.written_before)
        heads, hidden = self.auxiliary_flops
        return {
            "prelude": self.init.flops if self.init else 0.0,
            "training": self.shape.training_flops(tokens * over.trained) + heads * tokens,
            "writing": own * written,
            "teacher_reading": self._reading_flops(tokens * over.read) + hidden * tokens,
            "teacher_writing": teacher * (before + along * written),
        }

    @property
    def flops_to_spend(self) -> float:
        """FLOPs of the step itself: it may begin where others ended, and read what a teacher left."""
        return sum(self.flops_by_precision().values())

    def flops_by_precision(self) -> dict[str, float]:
        """Return :attr:`flops_to_spend` by the precision in which matrices are multiplied.

        Passes of a served teacher are not among them: its server spends them.
        """
        own, along = self.tokens_to_write
        heads, hidden = self.auxiliary_flops_to_spend
        training = self.shape.training_flops(self.tokens_to_train * self.passes.trained)
        training += heads * self.tokens_to_train
        measured = self.foreign.heldout_tokens if self.foreign and not self.served else 0
        found = {self.precision: training + self.shape.forward_flops * (own + measured)}
        if self.teacher and not self.teacher.served:
            teaching = self._reading_flops(self.tokens_to_teach) + self.teacher.shape.forward_flops * along
            teaching += hidden * self.tokens_to_train
            precision = self.teacher.precision
            found[precision] = found.get(precision, 0.0) + teaching
        return found

    @property
    def auxiliary_losses(self) -> tuple[AuxiliaryLoss, ...]:
        """Losses on hidden states that it trains with."""
        return tuple(self.parts.auxiliary_losses.values()) if self.parts and self.kind.trains else ()

    @property
    def auxiliary_flops(self) -> tuple[float, float]:
        """FLOPs a trained token of heads beside the model, and of teachers' passes for hidden states."""
        shapes = [teacher.shape for teacher in self.teachers]
        heads = sum((loss.flops_per_token(self.shape, shapes) for loss in self.auxiliary_losses), 0.0)
        return heads, sum((loss.reading_flops(shapes) for loss in self.auxiliary_losses), 0.0)

    @property
    def auxiliary_flops_to_spend(self) -> tuple[float, float]:
        """FLOPs a trained token in this step, without passes whose hidden states are read from a cache."""
        shapes = [teacher.shape for teacher in self.teachers]
        online = [loss for loss in self.auxiliary_losses if loss.cache is None]
        return self.auxiliary_flops[0], sum((loss.reading_flops(shapes) for loss in online), 0.0)

    @property
    def precision(self) -> str:
        """In which the model multiplies matrices, as a student and as a teacher."""
        return self.foreign.precision if self.foreign else self.training.precision

    @property
    def served(self) -> bool:
        """True for a model that a server answers for, whose weights are not here."""
        return bool(self.foreign and self.foreign.served)

    @property
    def asks_server(self) -> bool:
        """True if all it does is to ask a server about text: no model of it is in memory here."""
        return self.served or bool(not self.kind.trains and self.teacher and self.teacher.served)

    def _teacher_tokens(self, tokens: float) -> float:
        """Tokens of the teacher's passes for ``tokens`` tokens of text written before training."""
        return self.parts.source.teacher_tokens(tokens) if self.parts and tokens else tokens

    def _reading_flops(self, tokens: float) -> float:
        """FLOPs of all that its target takes over ``tokens`` tokens, and of a datastore's keys."""
        if self.teacher is None or not tokens:
            return 0.0
        setup = self.parts.target.setup_flops(self) if self.parts else 0.0
        return sum(self.reading) * tokens + setup

    def as_json(self) -> dict[str, Any]:
        """Everything needed to run the step elsewhere, its teacher, shared prefix and cache included."""
        return {
            **self.config,
            "shape": asdict(self.shape),
            "steps": self.steps,
            "seed": self.seed,
            "data_seed": self.data_seed,
            "half": self.half,
            "training": self.training.model_dump(),
            "method": self.method.model_dump(mode="json") if self.method else None,
            "foreign": asdict(self.foreign) if self.foreign else None,
            "aspect_ratio": self.aspect_ratio,
            "start": self.start.as_json() if self.start else None,
            "logits": self.logits.as_json() if self.logits else None,
            "texts": self.texts.as_json() if self.texts else None,
            **({"features": [each.as_json() for each in self.features]} if self.features else {}),
            "init": self.init.as_json() if self.init else None,
            **({"early": self.early.as_json()} if self.early else {}),
            "corpus": {**self.corpus.model_dump(), "fingerprint": self.corpus_fingerprint},
            "teacher": self.teacher.as_json() if self.teacher else None,
            "other_teachers": [each.as_json() for each in self.other_teachers],
            **({"trainer": self.trainer.model_dump(), "role": self.role} if self.trainer else {}),
            **({"text_tokens": self.text_tokens} if self.text_tokens is not None else {}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], known: KnownParts | None = None) -> Step:
        """The inverse of :meth:`as_json`; ``known`` has parts of records that were read before.

        Raises:
            ValueError: if a field holds something else than it may, and the like: what was read is damaged.
        """
        known = known or KnownParts()

        def step(record: dict[str, Any] | None) -> Any:
            return known.read(lambda each: cls.from_json(each, known), record) if record else None

        fingerprint = data["corpus"]["fingerprint"]
        check_record(data)
        return cls(
            kind=StepKind(data["kind"]),
            shape=known.read(read_shape, data["shape"]),
            **{name: data[name] for name in ("aspect_ratio", "steps", "seed", "data_seed", "half")},
            corpus=known.read(read_corpus, data["corpus"]),
            corpus_fingerprint=fingerprint,
            training=known.read(read_training, data["training"]),
            teacher=step(data["teacher"]),
            method=known.read(Method.from_record, data["method"]) if data["method"] else None,
            start=step(data["start"]),
            **{name: step(data.get(name)) for name in ("logits", "texts", "init", "early")},
            **dict[str, Any]((n, tuple(map(step, data.get(n, [])))) for n in ("other_teachers", "features")),
            hidden=HiddenLayers.from_json(found) if (found := data.get("hidden")) else None,
            foreign=ExternalModel.read(found) if (found := data.get("foreign")) else None,
            trainer=Trainer(**found) if (found := data.get("trainer")) else None,
            role=data.get("role"),
            text_tokens=data.get("text_tokens"),
        )
