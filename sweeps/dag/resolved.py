"""A sweep together with all that had to be read to plan it, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import Foreign
from sweeps.spec.corpus import Corpus
from sweeps.spec.spec import Sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A corpus whose vocabulary size is known, and the hash that identifies its tokens."""

    corpus: Corpus
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedTeacher:
    """The shape of a pretrained teacher at the sweep's context and vocabulary, and what identifies it."""

    shape: ModelShape
    model: Foreign


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A sweep with its text and pretrained teachers looked up: all that :func:`~sweeps.dag.expand.expand`
    needs."""

    sweep: Sweep
    text: Text
    base: Text | None = None
    """The text that teachers are trained on before they are tuned, where the spec has one."""
    teachers: Mapping[int, PretrainedTeacher] = field(default_factory=dict)
    """Pretrained teachers by their place in ``sweep.teachers``."""
    reads: tuple[str, ...] = ()
    """What was read to find all this, in words."""
