"""Tokenizers: byte-level BPE trained on the corpus, or that of a teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from sweeps.data.sources import Document

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
"""Id of the first special token that the trainer adds."""
MAX_WORD_CHARACTERS = 256
"""Characters of the longest word; longer ones are cut, as a merge scans every word that it occurs in."""
KNOWN_END_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>")
"""End-of-text tokens of GPT-2, Qwen and SmolLM; Llama 3; Llama 2; Gemma; DeepSeek.

The ``eos_token`` of a configuration is not used: in instruction-tuned models it ends a turn.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalTokenizer:
    """Tokenizer that was not trained on the corpus."""

    file: Path
    """Path of ``tokenizer.json``."""
    sha256: str
    size: int
    """Vocabulary size: one more than the largest id."""
    end_of_text: str
    end_of_text_id: int

    @classmethod
    def read(cls, place: str | Path, field: str = "corpus.tokenizer") -> ExternalTokenizer:
        """Read the tokenizer in the directory ``place``, or in the file ``tokenizer.json`` itself.

        Raises:
            InputError: with ``field``, if it is missing or has no end-of-text token.
        """
        file = Path(place).expanduser()
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.is_file():
            raise InputError(
                f"{field}: no tokenizer.json in {place}; in an environment with its tokenizer's package, "
                f"AutoTokenizer.from_pretrained(...).save_pretrained({str(place)!r}) writes one"
            )
        ids = load_tokenizer(file, field).get_vocab(with_added_tokens=True)
        end = next((token for token in KNOWN_END_OF_TEXT if token in ids), None) or _configured_end_of_text(
            file
        )
        if end not in ids:
            raise InputError(
                f"{field}: {file} has no end-of-text token: none of {', '.join(KNOWN_END_OF_TEXT)}, and no "
                "eos_token in tokenizer_config.json beside it"
            )
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        size = max(ids.values()) + 1
        return cls(file=file, sha256=sha256, size=size, end_of_text=end, end_of_text_id=ids[end])

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token, with added tokens."""
        return dict(load_tokenizer(self.file).get_vocab(with_added_tokens=True))


def _configured_end_of_text(file: Path) -> str:
    config = file.with_name("tokenizer_config.json")
    try:
        token = json.loads(config.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return str(token.get("content") if isinstance(token, dict) else token)


def load_tokenizer(file: Path, field: str = "corpus.tokenizer") -> Tokenizer:
    """Load the tokenizer in ``file``.

    Raises:
        InputError: with ``field``, if the file is not a tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises nothing narrower
        raise InputError(f"{field}: {file} is not a tokenizer ({error})") from None


def train_tokenizer(documents: Iterable[Document], vocab: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer with exactly ``vocab`` entries.

    Raises:
        InputError: if the text has too few distinct pairs for that vocabulary.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    endless = pre_tokenizers.Split(
        Regex(rf"\S{{{MAX_WORD_CHARACTERS}}}|\s{{{MAX_WORD_CHARACTERS}}}"), "isolated"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [endless, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocab:
        raise InputError(
            f"corpus.vocab: the training text supports only {reached} entries, not {vocab}; "
            f"lower the vocabulary or add text"
        )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, end_of_text: str = END_OF_TEXT) -> None:
    """Write the files that ``AutoTokenizer.from_pretrained`` reads, without importing transformers."""
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end_of_text,
        "bos_token": end_of_text,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
