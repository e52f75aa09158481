"""Persons to forget as options of parts, and a corpus's documents about them and about all else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from scaling.errors import InputError
from sweeps.spec.fields import SpecModel
from sweeps.unlearning.names import PersonName, find_mentions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sweeps.dag.step import Step
    from sweeps.unlearning.encoding import TextEncoding

Kept = Literal["forgotten", "retained"]


class Forgotten(SpecModel):
    """Options of parts that are about persons to forget."""

    forget: Annotated[tuple[str, ...], Field(min_length=1)]
    """Full names of the persons to forget; a document that mentions one is theirs."""
    aliases: tuple[tuple[str, ...], ...] = ()
    """Other forms of a name, each list after the full name: [[Ada Lane, the Countess]]."""

    @property
    def targets(self) -> tuple[PersonName, ...]:
        """Their names."""
        return tuple(self.named(name) for name in self.forget)

    def named(self, full: str) -> PersonName:
        """Return the name with its other forms."""
        return PersonName(full, next((forms[1:] for forms in self.aliases if forms and forms[0] == full), ()))

    def name_objections(self) -> Iterator[str]:
        """Yield what is wrong with the names."""
        try:
            if len(set(self.targets)) < len(self.targets):
                yield "forget: a person is there twice; name each once"
        except InputError as error:
            yield f"forget: {error}"


def encoding_of(step: Step) -> TextEncoding:
    """Return the tokenizer of a step's corpus."""
    return _encoding(step.corpus.model_dump_json(), step.corpus_fingerprint)


def stream_of_documents(step: Step, targets: tuple[PersonName, ...], kept: Kept) -> NDArray[np.integer]:
    """Return the training documents of ``step`` that mention a target, or no target, as a stream of tokens.

    Every document stands between end-of-text tokens; a stream that is shorter than a block is repeated.

    Raises:
        InputError: If a target never occurs, or nothing is left to retain.
    """
    import numpy as np

    forgotten, retained = _streams(step.corpus.model_dump_json(), step.corpus_fingerprint, step.half, targets)
    stream = forgotten if kept == "forgotten" else retained
    return np.tile(stream, -(-(step.shape.context + 1) // len(stream)))


@lru_cache(maxsize=4)
def _encoding(corpus: str, fingerprint: str) -> TextEncoding:
    from sweeps.data.corpus import planned_tokens
    from sweeps.data.tokenizer import ExternalTokenizer
    from sweeps.spec.corpus import Corpus
    from sweeps.unlearning.encoding import TextEncoding

    folder = planned_tokens(Corpus.model_validate_json(corpus), fingerprint).tokenizer_files
    return TextEncoding.read(folder, ExternalTokenizer.read(folder).end_of_text_id)


@lru_cache(maxsize=4)
def _streams(
    corpus: str, fingerprint: str, half: Literal["first", "second"] | None, targets: tuple[PersonName, ...]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return documents that mention a target, and the others, of the training text."""
    import numpy as np

    from sweeps.data.corpus import planned_tokens
    from sweeps.spec.corpus import Corpus

    encoding = _encoding(corpus, fingerprint)
    text = planned_tokens(Corpus.model_validate_json(corpus), fingerprint).train_tokens_of(half)
    pieces = np.split(np.asarray(text), np.flatnonzero(text == encoding.end_of_text) + 1)
    seen, streams = set[int](), ([text[:0]], [text[:0]])
    for piece in pieces:
        mentions = find_mentions(encoding.decode(piece.tolist()), targets)
        seen |= {each.person for each in mentions}
        streams[0 if mentions else 1].append(piece)
    if missing := [name.full for number, name in enumerate(targets) if number not in seen]:
        raise InputError(
            f"forget: {missing[0]!r} never occurs in the training text; check its spelling, or add documents"
        )
    if not sum(map(len, streams[1])):
        raise InputError("forget: every document mentions a person to forget, so nothing is left to retain")
    first = np.array([encoding.end_of_text], text.dtype)
    forgotten, retained = (np.concatenate([first, *each]) for each in streams)
    return forgotten, retained
