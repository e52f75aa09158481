"""Resolved sweep: the spec with its text and pretrained teachers looked up, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import ExternalModel
from sweeps.data.corpus import planned_tokens
from sweeps.data.text_size import TextSize
from sweeps.spec.corpus import Corpus
from sweeps.spec.spec import Sweep

if TYPE_CHECKING:
    from sweeps.dag.compile_choice import CompileChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Corpus with a known vocabulary size, and the hash that identifies its tokens."""

    corpus: Corpus
    fingerprint: str
    estimated: TextSize | None = None
    """Estimated tokens, if the text is not to be read; None if they can be counted."""

    @property
    def size(self) -> TextSize:
        """Tokens of the text; counting them tokenizes it, once on a machine.

        Raises:
            InputError: If the text cannot be had, has changed, or is too small.
        """
        return self.estimated or TextSize.counted(planned_tokens(self.corpus, self.fingerprint))


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedTeacher:
    """Shape of a pretrained teacher at the sweep's context and vocabulary, and its identity."""

    shape: ModelShape
    model: ExternalModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """Sweep with its text and pretrained teachers looked up, the input of
    :func:`~sweeps.dag.expand.expand`."""

    spec: Sweep
    """The spec, as it was given."""
    sweep: Sweep
    """The spec with absolute paths of files, and the vocabulary of its tokenizer."""
    text: Text
    base: Text | None = None
    """Text that teachers are trained on before they are tuned, if the spec has one."""
    teachers: Mapping[int, PretrainedTeacher] = field(default_factory=dict)
    """Pretrained teachers by their index in ``sweep.teachers``."""
    reads: tuple[str, ...] = ()
    """Files and hubs that were read, in words."""
    assumed: tuple[str, ...] = ()
    """Assumptions in place of what was not read, in sentences."""
    compile_choices: tuple[CompileChoice, ...] = ()
    """Decisions for each size under ``training.compile: auto``."""
