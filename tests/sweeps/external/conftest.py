"""A sweep of one run, trained by a command of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands_in_tests import trainer


@pytest.fixture
def spec(text_file: Path) -> dict[str, Any]:
    """One supervised run of a command."""
    return {
        "name": "commands",
        "corpus": {"source": str(text_file), "vocab": 300, "context": 32, "heldout": 0.1},
        "training": {"batch_tokens": 64, "warmup_tokens": 1600},
        "supervised": [{"params": ["4184"], "tokens": ["32k"]}],
        "trainer": trainer(),
        "hardware": {"name": "a100"},  # no probe of this machine
        "resources": [{"gpus": 0}],
    }
