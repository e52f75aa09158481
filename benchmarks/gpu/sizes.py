"""Sizes of all parts: for a large GPU, and tiny ones to rehearse on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of models, texts and measurements."""

    models: tuple[float, ...]
    """Parameters of students whose loops are compared."""
    vocab: int
    context: int
    batch_tokens: int
    steps: int
    """Steps that are timed, after those that warm up."""
    teacher: float
    student: float
    recipe: float
    """Parameters of the recipe that CPU and GPU both run."""
    recipe_steps: int
    checkpoint: float
    ladder: tuple[str, ...]
    ladder_tokens: tuple[str, ...]
    ladder_vocab: int
    ladder_context: int
    compile: bool


REAL = Sizes(
    models=(30e6, 120e6, 350e6),
    vocab=32_768,
    context=1024,
    batch_tokens=16_384,
    steps=20,
    teacher=1e9,
    student=120e6,
    recipe=1e6,
    recipe_steps=100,
    checkpoint=350e6,
    ladder=("1M", "3M", "10M", "30M"),
    ladder_tokens=("8M", "16M"),
    ladder_vocab=4096,
    ladder_context=256,
    compile=True,
)
REHEARSAL = Sizes(
    models=(13e3,),
    vocab=512,
    context=64,
    batch_tokens=256,
    steps=3,
    teacher=56e3,
    student=13e3,
    recipe=13e3,
    recipe_steps=5,
    checkpoint=13e3,
    ladder=("3k", "7k"),
    ladder_tokens=("32k",),
    ladder_vocab=300,
    ladder_context=32,
    compile=False,
)


def sizes(*, rehearse: bool) -> Sizes:
    """Return the sizes of a rehearsal, or the real ones; without triton nothing compiles for a GPU."""
    return REHEARSAL if rehearse else replace(REAL, compile=find_spec("triton") is not None)
