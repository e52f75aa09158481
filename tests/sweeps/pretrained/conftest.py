"""Random teachers on disk, with the tokenizer of a small text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_models import VOCAB, made

from sweeps.data import source_of
from sweeps.data.splits import split_documents
from sweeps.data.tokenizer import save_tokenizer, train_tokenizer


@pytest.fixture
def save(text_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a model and the tokenizer of the text into a directory."""
    (split,) = split_documents(source_of(str(text_file)), 0.1, seed=0)
    tokenizer = train_tokenizer(split.train, VOCAB)

    def write(model: Any, name: str = "teacher") -> Path:
        folder = tmp_path / name
        save_tokenizer(tokenizer, folder)
        model.save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def llama(save: Callable[..., Path]) -> Path:
    return save(made("Llama", tie_word_embeddings=False))


@pytest.fixture
def spec(small_spec: dict[str, Any], llama: Path) -> dict[str, Any]:
    """Students of the Llama and of a teacher of the sweep's own."""
    corpus = {name: value for name, value in small_spec["corpus"].items() if name != "vocab"}
    return small_spec | {
        "corpus": corpus | {"tokenizer": str(llama)},
        "supervised": [],
        "teachers": [{"model": str(llama), "tokens": "2T"}, {"params": ["7k"], "tokens": ["32k"]}],
        "students": [{"params": ["3k"], "tokens": ["32k"]}],
    }
