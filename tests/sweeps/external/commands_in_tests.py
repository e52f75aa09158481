"""Stand-in for trainers in tests, and a run of a sweep in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sweeps
from sweeps.execute.state import State

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def trainer(*options: str, **fields: Any) -> dict[str, Any]:
    """The stand-in as a trainer."""
    return {"command": [sys.executable, STAND_IN, *options], "version": "1", **fields}


def run(spec: dict[str, Any], store: Path, **how: Any) -> State:
    return sweeps.load(spec).run(store, **({"executor": "inline"} | how))
