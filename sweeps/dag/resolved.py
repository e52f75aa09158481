"""Resolved sweep: the spec with its text and pretrained teachers looked up, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import ExternalModel
from sweeps.spec.corpus import Corpus
from sweeps.spec.spec import Sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Corpus with a known vocabulary size, and the hash that identifies its tokens."""

    corpus: Corpus
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedTeacher:
    """Shape of a pretrained teacher at the sweep's context and vocabulary, and its identity."""

    shape: ModelShape
    model: ExternalModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """Sweep with its text and pretrained teachers looked up, the input of
    :func:`~sweeps.dag.expand.expand`."""

    sweep: Sweep
    text: Text
    base: Text | None = None
    """Text that teachers are trained on before they are tuned, if the spec has one."""
    teachers: Mapping[int, PretrainedTeacher] = field(default_factory=dict)
    """Pretrained teachers by their index in ``sweep.teachers``."""
    reads: tuple[str, ...] = ()
    """Files and hubs that were read, in words."""
