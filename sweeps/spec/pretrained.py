"""Teachers that exist already, here or behind a server, and the methods that can follow a served one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sweeps.spec.fields import Quantity, SpecModel
from sweeps.spec.parsing.messages import UNREPEATED

if TYPE_CHECKING:
    from sweeps.spec.method.method import Method

KEY_VARIABLE = "DISTLAW_SERVED_KEY"
"""Environment variable with the key that servers of teachers are given, if they ask for one."""


class ServedSource(SpecModel):
    """A server with OpenAI's endpoint for completions that scores given tokens, such as vLLM."""

    served: str
    """URL up to /v1: http://host:8000/v1. A key is read from DISTLAW_SERVED_KEY, never from a spec."""
    revision: str = Field(min_length=1)
    """Your words for what is served: weights, quantization, version. Ids of steps depend on it, as nobody but
    you knows when that changes."""
    name: str | None = Field(None, min_length=1)
    """The model's name there; ``model`` if not given."""
    tokens_per_second: Quantity | None = None
    """Tokens that it scores a second, for the plan's time; if not given, as its evaluation in the store was
    measured. Ids of steps do not depend on it."""

    @field_validator("served")
    @classmethod
    def _is_url(cls, given: str) -> str:
        if any(sign in given for sign in "@?#"):
            told = f"a URL holds no key or password; set {KEY_VARIABLE} in the environment instead"
            raise PydanticCustomError(UNREPEATED, told)
        try:
            found = urlsplit(given)
            _ = found.port
        except ValueError as error:
            raise ValueError(f"{error}; write http://host:8000/v1") from None
        if found.scheme not in ("http", "https") or not found.hostname:
            raise ValueError(f"{given!r} is no URL of a server; write http://host:8000/v1")
        return given.rstrip("/")


class Pretrained(SpecModel):
    """A teacher that exists: any causal language model of transformers, measured here and never trained."""

    model: str = Field(min_length=1)
    """A directory with config.json, safetensors and tokenizer.json, or OWNER/NAME on a hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; the newest if not given."""
    tokens: Quantity | None = None
    """D_T, the tokens it was trained on, if they are known."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """In which it is loaded, measured and read, on every machine; as ``training.precision`` if not given.
    ``distlaw teacher check MODEL --corpus TEXT --precision bf16`` measures what it changes."""
    source: ServedSource | None = None
    """A server that answers for it, in the place of weights on this machine; ``model`` then needs only
    config.json and tokenizer.json."""

    @model_validator(mode="after")
    def _one_place(self) -> Pretrained:
        if self.source and self.precision:
            raise ValueError(
                "precision: a server multiplies in its own; remove it, and name that in source.revision"
            )
        return self


def objections_to_served(method: Method) -> Iterator[str]:
    """Yield why ``method`` cannot follow a served teacher, which gives likeliest tokens and no more."""
    if method.reads_teacher and method.logits not in ("top-k", "top-p"):
        yield f"logits: {method.logits}, but a served teacher writes its likeliest tokens; set logits: top-k"
    if not method.reads_data:
        yield f"source: {method.source_label}, but a served teacher is asked about the data alone; set data"
    named = (
        "delta",
        "neighbours",
        "target",
        "initial_weights",
        "other_teachers",
        "auxiliary_losses",
        "metrics",
    )
    for name in named:
        if getattr(method, name):
            yield f"{name}: it needs the teacher itself, and a served one is not here; remove it"
    if method.init and method.init.by != "data":
        yield f"init.by: {method.init.by}, but a served teacher is not here to begin with; set data"
