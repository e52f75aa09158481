"""A method: target x divergence x source x credit, given field by field or by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from sweeps.spec.fields import Count, Number, SpecModel
from sweeps.spec.method.compatibility import LOGIT_OPTIONS, objection
from sweeps.spec.method.method_options import Credit, Delta, Init, Neighbours, Source, Taid
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.registry import Use, load_object, refresh
from sweeps.spec.parsing.yaml_text import read_yaml

SHORT_NAMES = {
    "temperature": "tau",
    "cross_entropy": "ce",
    "token_loss_weight": "token-loss",
    "proposal_power": "power",
    "probability_bits": "bits",
}
"""Names of a method's fields in tables."""
PART_NAMES = {"credit": "long-horizon"}
"""Names in tables of parts that a method has and its like does not; others go by their fields."""

LOGIT_LABELS = {"top-k": ("top",), "top-p": ("top_p",), "sampled": ("draws",)}
"""Options of ``logits`` that are part of its name in tables, as in top-32."""

DivergenceName = Literal[
    "forward-kl",
    "reverse-kl",
    "jensen-shannon",
    "total-variation",
    "skew-kl",
    "reverse-skew-kl",
    "decoupled-kl",
]


def _shipped_or_used(given: Any) -> str:
    return "used" if isinstance(given, Use) or (isinstance(given, dict) and "use" in given) else "shipped"


_Choice = Discriminator(_shipped_or_used)
DivergenceField = Annotated[Annotated[DivergenceName, Tag("shipped")] | Annotated[Use, Tag("used")], _Choice]
SourceField = Annotated[Annotated[Source, Tag("shipped")] | Annotated[Use, Tag("used")], _Choice]
WeightsField = Annotated[
    Annotated[Literal["teacher-copy"], Tag("shipped")] | Annotated[Use, Tag("used")], _Choice
]
VARIANTS: dict[str, type[SpecModel]] = {"shipped": Source, "used": Use}
"""Members of unions of parts, by the tags that Pydantic puts into the paths of errors."""


class Method(SpecModel):
    """Distillation method: (1 - cross_entropy) tau^power D(p_T, p_S) + cross_entropy CE."""

    use: str | None = None
    """The named method that this is, but for what else is given here."""
    divergence: DivergenceField = "forward-kl"
    """Forward KL is the paper's; :mod:`sweeps.distill.divergences` defines them all. Or one of your own."""
    beta: Number = Field(0.5, gt=0, lt=1)
    """The teacher's share of the mixture in ``jensen-shannon``; one half is the symmetric one."""
    skew: Number = Field(0.1, gt=0, lt=1)
    """Share of a distribution in its own reference, in ``skew-kl`` (the teacher's), ``reverse-skew-kl``."""
    gold: Number = Field(1.0, ge=0)
    """Weight in ``decoupled-kl`` of how likely the label is; in text of models that is the token drawn."""
    others: Number = Field(1.0, ge=0)
    """Weight in ``decoupled-kl`` of how likely the other tokens are beside each other."""
    temperature: Number = Field(1.0, gt=0)
    """tau, softens both distributions."""
    cross_entropy: Number = Field(0.0, ge=0, le=1)
    """Weight of the text's own tokens, 1 - lambda; 0 is pure distillation, 1 asks no teacher."""
    taid: Taid | None = None
    """Move the teacher away from the student as training goes on."""
    delta: Delta | None = None
    """Follow how the teacher was tuned, from where the student itself began."""
    neighbours: Neighbours | None = None
    """Follow not what the teacher says, but what came next where it found text alike; written down once."""
    logits: Literal["online", "cached", "top-k", "top-p", "sampled"] = "online"
    """The teacher reads every batch; or wrote its distributions down once, in half precision; or only its
    likeliest tokens and their tail's mass, a fixed number or as many as have a given mass, which shifts the
    law; or tokens drawn from them, which does not; by how much, see
    :mod:`sweeps.distill.caches.logit_format`."""
    top: Count = Field(32, ge=1)
    """Tokens kept by ``logits: top-k``; by ``top-p`` at most."""
    top_p: Number = Field(0.95, gt=0, lt=1)
    """Mass of the tokens that ``logits: top-p`` keeps: the fewest whose probabilities sum to it or more."""
    draws: Count = Field(50, ge=1, le=65_535)
    """Tokens that ``logits: sampled`` draws with replacement; those drawn again are stored once."""
    proposal_power: Number = Field(1.0, gt=0)
    """t, where ``logits: sampled`` draws from q proportional to p^t and weighs by p / q."""
    probability_bits: Literal[8, 16] | None = None
    """Bits of a probability in the compact layout: of ``top-p``, by default 16, and of ``top-k``, which by
    default has a layout of whole bytes that is not compressed."""
    source: SourceField = Source()
    """Source of the text that it is trained on, or one of your own."""
    midpoint: Literal["naive", "exact"] = "naive"
    """Mixture in ``jensen-shannon`` on text of both: of next tokens half and half, or as the mixture of
    whole sequences has it. That knows after some tokens who wrote the text, and learns nothing from the
    rest."""
    credit: Credit | None = None
    """Credit tokens of the student's text for what came after them too, not only for the divergence there."""
    pretraining: Number = Field(0.0, ge=0)
    """Weight of the cross-entropy of the data itself, beside what the student learns from its own text."""
    init: Init | None = None
    """Begin with another method."""
    target: Use | None = None
    """A target of your own in the place of the teacher's distribution."""
    token_loss_weight: Number = Field(1.0, ge=0)
    """Weight of all of the above beside auxiliary losses; at 0 those train the student alone."""
    auxiliary_losses: tuple[Use, ...] = ()
    """Losses beside it, on hidden states of student and teachers."""
    hooks: tuple[Use, ...] = ()
    """Hooks after every update of the optimizer, in this order."""
    metrics: tuple[Use, ...] = ()
    """Metrics beside those of every student."""
    initial_weights: WeightsField | None = None
    """Weights that the student begins with, if not drawn ones: the teacher's, or of your own making."""
    other_teachers: tuple[Annotated[Count, Field(ge=0)], ...] = ()
    """Further teachers for parts of your own, by their numbers in the sweep's list; one model each."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if isinstance(given, Method):
            return given
        given = {"use": given} if isinstance(given, str) else given
        if not isinstance(given, dict):
            raise ValueError("a method is a name, such as taid, or a mapping of fields")
        return _merged(_fragment(name), given) if isinstance(name := given.get("use"), str) else given

    @classmethod
    def from_record(cls, data: dict[str, Any]) -> Method:
        """Return the method that a store's record describes; modules of others need not be importable."""
        recorded = {**data, "use": None}
        return cls.model_validate(recorded, context={"recorded": True}).model_copy(
            update={"use": data.get("use")}
        )

    @field_validator("beta", mode="before")
    @classmethod
    def _mixes(cls, given: Any) -> Any:
        if given in (0, 1):
            plain = "reverse-kl" if given == 1 else "forward-kl"
            raise ValueError(f"at {given} nothing is mixed; set divergence: {plain}, which GKD means by that")
        return given

    @model_validator(mode="after")
    def _legal(self, info: ValidationInfo) -> Method:
        recorded = bool(info.context and info.context.get("recorded"))
        if not (recorded and self.uses_modules) and (reason := objection(self)):
            raise ValueError(reason)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A name is a method too."""
        return {"anyOf": [{"enum": named_methods()}, handler(schema)]}

    @property
    def reads_teacher(self) -> bool:
        """True if the target's distributions are asked for."""
        return self.cross_entropy < 1 and self.token_loss_weight > 0

    @property
    def stored_logits(self) -> dict[str, Any]:
        """Fields that say how distributions are written down."""
        return {name: getattr(self, name) for name in ("logits", *LOGIT_OPTIONS)}

    @property
    def has_compact_logits(self) -> bool:
        """True if distributions are written down bit by bit and compressed."""
        return self.logits in ("top-p", "sampled") or self.probability_bits is not None

    @property
    def reads_data(self) -> bool:
        """True if it is trained on the data itself."""
        return parts_of(self).source.is_data

    @property
    def uses_modules(self) -> bool:
        """True if other modules define some of its parts."""
        one = (self.divergence, self.source, self.target, self.initial_weights)
        return any(isinstance(each, Use) for each in one) or bool(
            self.auxiliary_losses or self.hooks or self.metrics
        )

    @property
    def divergence_label(self) -> str:
        """Name of its divergence in messages."""
        return self.divergence.use if isinstance(self.divergence, Use) else self.divergence

    @property
    def source_label(self) -> str:
        """Name of its source in messages."""
        return self.source.use if isinstance(self.source, Use) else self.source.by

    @property
    def name(self) -> str:
        """A short name for tables: its own or its divergence's, and whatever is not as that has it."""
        own = self.divergence.label if isinstance(self.divergence, Use) else self.divergence
        return " ".join([self.use.rpartition(":")[2] if self.use else own, *_differences(self, self._like)])

    @property
    def _like(self) -> Method:
        """The method that its name alone stands for; itself, where that module is not importable here."""
        if self.use is None:
            return Method().model_copy(update={"divergence": self.divergence})
        try:
            return Method(use=self.use)
        except ValueError:
            return self


def _differences(part: SpecModel, like: SpecModel) -> Iterator[str]:
    """Yield the differences of ``part`` from ``like``, a word a field."""
    for name in type(part).model_fields:
        value, other = getattr(part, name), getattr(like, name)
        if name == "use" or value == other:
            continue
        if name in LOGIT_LABELS.get(getattr(part, "logits", ""), ()) and part.logits != like.logits:  # type: ignore[attr-defined]
            continue
        if isinstance(value, Use):
            yield value.label
        elif isinstance(value, tuple):
            yield from (each.label if isinstance(each, Use) else f"teacher-{each}" for each in value)
        elif isinstance(value, SpecModel):
            if other is None:
                yield PART_NAMES.get(name, name)
            yield from _differences(value, other or type(value)())
        elif value is None or value is False:
            yield f"no {PART_NAMES.get(name, name)}"
        elif isinstance(value, str):
            shown = LOGIT_LABELS.get(value, ()) if name == "logits" else ()
            yield "-".join([value.removesuffix("-k"), *(f"{getattr(part, each):g}" for each in shown)])
        else:
            word = SHORT_NAMES.get(name, name) if isinstance(part, Method) else name
            yield word if value is True else f"{word}={value:g}"


def named_methods() -> list[str]:
    """The methods that have names."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder() if file.name.endswith(".yaml"))


def _folder() -> Iterator[Any]:
    return files("sweeps.methods").iterdir()


@cache
def _fragment(name: str) -> dict[str, Any]:
    if ":" in name:
        return _fragment_of_module(name)
    if name not in named_methods():
        raise ValueError(f"no method is called {name!r}; known: {', '.join(named_methods())}")
    found: dict[str, Any] = read_yaml(files("sweeps.methods").joinpath(f"{name}.yaml").read_text(), name)
    return found


def _merged(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``base`` with what is ``given`` in its place, part by part."""
    parts = {
        name: _merged(base[name], value)
        for name, value in given.items()
        if isinstance(value, dict) and isinstance(base.get(name), dict) and "use" not in value
    }
    return base | given | parts


def _fragment_of_module(place: str) -> dict[str, Any]:
    refresh(place)
    found = load_object(place)
    if not isinstance(found, dict):
        slot = getattr(found, "slot", None)
        instead = f"write {slot}: {{use: {place}}}" if slot else "define one there"
        raise ValueError(f"use: {place} is not a dictionary of a method's fields; {instead}")
    return found
