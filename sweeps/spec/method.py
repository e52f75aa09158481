"""A method: target x divergence x source x credit, given field by field or by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema

from sweeps.spec.compatibility import PARAMETERS, objection
from sweeps.spec.fields import Count, Number, SpecModel
from sweeps.spec.method_options import Credit, Delta, Init, Neighbours, Source, Taid
from sweeps.spec.yaml_text import read_yaml

SHORT = {"temperature": "tau", "cross_entropy": "ce"}
"""Names of a method's fields in tables."""
WORDS = {"credit": "long-horizon"}
"""Names of its parts, where a method has them and its like do not; the others are as they are called."""

DivergenceName = Literal[
    "forward-kl",
    "reverse-kl",
    "jensen-shannon",
    "total-variation",
    "skew-kl",
    "reverse-skew-kl",
    "decoupled-kl",
]


class Method(SpecModel):
    """How a student is distilled: (1 - cross_entropy) tau^power D(p_T, p_S) + cross_entropy CE."""

    use: str | None = None
    """The named method that this is, but for what else is given here."""
    divergence: DivergenceName = "forward-kl"
    """Forward KL is the paper's; :mod:`sweeps.distill.divergences` defines them all."""
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
    logits: Literal["online", "cached", "top-k"] = "online"
    """The teacher reads every batch; or wrote its distributions down once, in half precision; or only its
    likeliest tokens and their tail's mass, which shifts the law; by how much, see
    :mod:`sweeps.distill.logit_format`."""
    top: Count = Field(32, ge=1)
    """Tokens kept by ``logits: top-k``."""
    source: Source = Source()
    """Whose text it is trained on."""
    midpoint: Literal["naive", "exact"] = "naive"
    """In ``jensen-shannon`` on text of both: mix the next tokens half and half, or as the mixture of whole
    sequences does. It knows after some tokens who wrote the text, and nothing is learnt from the rest."""
    credit: Credit | None = None
    """Credit tokens of the student's text for what came after them too, not only for the divergence there."""
    pretraining: Number = Field(0.0, ge=0)
    """Weight of the cross-entropy of the data itself, beside what the student learns from its own text."""
    init: Init | None = None
    """Begin with another method."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if isinstance(given, Method):
            return given
        given = {"use": given} if isinstance(given, str) else given
        if not isinstance(given, dict):
            raise ValueError("a method is a name, such as taid, or a mapping of fields")
        return _merged(_fragment(name), given) if isinstance(name := given.get("use"), str) else given

    @field_validator("beta", mode="before")
    @classmethod
    def _mixes(cls, given: Any) -> Any:
        if given in (0, 1):
            plain = "reverse-kl" if given == 1 else "forward-kl"
            raise ValueError(f"at {given} nothing is mixed; set divergence: {plain}, which GKD means by that")
        return given

    @model_validator(mode="after")
    def _legal(self) -> Method:
        if reason := objection(self):
            raise ValueError(reason)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A name is a method too."""
        return {"anyOf": [{"enum": named()}, handler(schema)]}

    @property
    def parameters(self) -> dict[str, float]:
        """The divergence's own parameters."""
        return {name: getattr(self, name) for name in PARAMETERS.get(self.divergence, ())}

    @property
    def reads_teacher(self) -> bool:
        """Whether the teacher's distributions are asked for."""
        return self.cross_entropy < 1

    @property
    def knows_its_length(self) -> bool:
        """Whether a run's first steps depend on how long it will be, so that it shares no trunk."""
        return self.taid is not None or self.source.replay is not None

    @property
    def name(self) -> str:
        """A short name for tables: its own or its divergence's, and whatever is not as that has it."""
        like = Method(use=self.use) if self.use else Method(divergence=self.divergence)
        return " ".join([self.use or self.divergence, *_differences(self, like)])


def _differences(part: SpecModel, like: SpecModel) -> Iterator[str]:
    """What tells ``part`` from ``like``, a word a field."""
    for name in type(part).model_fields:
        value, other = getattr(part, name), getattr(like, name)
        if value == other or (name == "top" and part.logits != like.logits):  # type: ignore[attr-defined]
            continue
        if isinstance(value, SpecModel):
            if other is None:
                yield WORDS.get(name, name)
            yield from _differences(value, other or type(value)())
        elif value is None or value is False:
            yield f"no {WORDS.get(name, name)}"
        elif isinstance(value, str):
            yield f"top-{part.top}" if value == "top-k" else value  # type: ignore[attr-defined]
        else:
            word = SHORT.get(name, name) if isinstance(part, Method) else name
            yield word if value is True else f"{word}={value:g}"


def named() -> list[str]:
    """The methods that have names."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder() if file.name.endswith(".yaml"))


def _folder() -> Iterator[Any]:
    return files("sweeps.methods").iterdir()


@cache
def _fragment(name: str) -> dict[str, Any]:
    if name not in named():
        raise ValueError(f"no method is called {name!r}; known: {', '.join(named())}")
    found: dict[str, Any] = read_yaml(files("sweeps.methods").joinpath(f"{name}.yaml").read_text(), name)
    return found


def _merged(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``base`` with what is ``given`` in its place, part by part."""
    parts = {
        name: _merged(base[name], value)
        for name, value in given.items()
        if isinstance(value, dict) and isinstance(base.get(name), dict)
    }
    return base | given | parts
