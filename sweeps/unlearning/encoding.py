"""A tokenizer as rewriting needs it: token ids with the characters that each stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaling.errors import InputError
from sweeps.unlearning.names import PersonName
from sweeps.unlearning.renaming import Ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Encoded:
    """Text as tokens."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """Characters of each token."""

    def tokens_at(self, span: tuple[int, int]) -> range:
        """Return the places of the tokens that overlap the characters of ``span``."""
        places = [n for n, (start, end) in enumerate(self.spans) if start < span[1] and end > span[0]]
        return range(places[0], places[-1] + 1) if places else range(0)


@dataclass(frozen=True)
class TextEncoding:
    """Tokenizer, and the token that begins every document."""

    tokenizer: Tokenizer
    end_of_text: int

    @classmethod
    def read(cls, folder: Path, end_of_text: int) -> TextEncoding:
        """Read the ``tokenizer.json`` in ``folder``."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), end_of_text)

    def encode(self, text: str) -> Encoded:
        """Return the tokens of ``text``, without special ones."""
        found = self.tokenizer.encode(text, add_special_tokens=False)
        return Encoded(tuple(found.ids), tuple(found.offsets))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def first_tokens(self, word: str) -> tuple[int, int]:
        """Return the first token of ``word`` at the beginning of a text, and after a space."""
        spaced = self.encode(f" {word}")
        after = next(n for n, (_, end) in enumerate(spaced.spans) if end > 1 or end == len(word) + 1)
        return self.encode(word).ids[0], spaced.ids[after]

    def name_tokens(self, name: PersonName, forms: int) -> Ids:
        """Return the first tokens of the first words of ``forms`` forms, two each: ``(2 * forms,)``.

        Forms that the name lacks are its full name's.
        """
        words = [(name.forms[n] if n < len(name.forms) else name.full).split()[0] for n in range(forms)]
        return np.array([token for word in words for token in self.first_tokens(word)], np.int64)

    def check_name(self, name: PersonName) -> None:
        """Raise InputError if the tokenizer has no pieces for ``name``."""
        for text in (name.full, f" {name.full}"):
            encoded = self.encode(text)
            if (
                not encoded.ids
                or self._unknown in encoded.ids
                or self.decode(encoded.ids).strip() != name.full
            ):
                raise InputError(
                    f"name: the tokenizer has no pieces for {name.full!r} (it reads "
                    f"{self.decode(encoded.ids)!r}); use one that covers its letters, such as byte-level BPE"
                )

    @cached_property
    def _unknown(self) -> int | None:
        """Id of the token for what is not in the vocabulary, if there is one."""
        token = getattr(self.tokenizer.model, "unk_token", None)
        return None if token is None else self.tokenizer.token_to_id(token)
