"""A small real text and a small sweep over it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

SUBJECTS = ["the king", "a shepherd", "the widow", "an old prophet", "the younger son", "the people"]
VERBS = ["went up to", "spoke against", "remembered", "gathered stones from", "kept watch over", "wept for"]
PLACES = ["the city", "the river", "the house of his father", "the hills", "the temple gate", "the vineyard"]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """About 120 kB of sentences with structure to learn, in paragraphs."""
    draw = random.Random(0)
    paragraphs = [
        " ".join(
            f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(PLACES)}, and it was day {day}."
            for day in range(draw.randrange(5, 15))
        )
        for _ in range(220)
    ]
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(paragraphs))
    return path


@pytest.fixture
def small_spec(text_file: Path) -> dict[str, Any]:
    """Two supervised runs, two teachers (one of them shared with those), two students: seven steps."""
    return {
        "name": "small",
        "corpus": {"source": str(text_file), "vocab": 300, "context": 32, "heldout": 0.1},
        "training": {"batch_tokens": 64, "warmup_tokens": 1600},
        "supervised": [{"params": ["3k", "7k"], "tokens": ["32k"]}],
        "teachers": [{"params": ["7k"], "tokens": ["32k", "64k"]}],
        "students": [{"params": ["3k"], "tokens": ["32k", "40k"]}],
    }
