"""Messages about invalid fields of a spec."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

UNREPEATED = "unrepeated"
"""Type of an error about a value that may hold a key, which no message repeats."""
LIKELY_MEANINGS = {
    **dict.fromkeys(("size", "sizes", "N", "parameters", "model_size"), "params"),
    **dict.fromkeys(("D", "lengths", "num_tokens", "token_counts"), "tokens"),
    **dict.fromkeys(("M", "tokens_per_parameter"), "tokens_per_param"),
    **dict.fromkeys(("C", "compute", "budget"), "flops"),
    **dict.fromkeys(("batch", "batch_size"), "batch_tokens"),
    **dict.fromkeys(("warmup", "warmup_steps"), "warmup_tokens"),
    **dict.fromkeys(("dtype", "bf16", "amp"), "precision"),
    **dict.fromkeys(("dataset", "data", "text", "path"), "source"),
    **dict.fromkeys(("vocab_size", "vocabulary"), "vocab"),
    **dict.fromkeys(("seq_len", "sequence_length", "context_length", "max_length"), "context"),
}
"""Fields that other names probably mean, for suggestions."""


def explain_problem(problem: Any, root: type[BaseModel], variants: Mapping[str, type[BaseModel]]) -> str:
    """Describe one validation error of pydantic: field, problem, accepted values.

    Args:
        problem: the error, from ``ValidationError.errors()``.
        root: the model that was validated.
        variants: members of unions, by the tags that pydantic puts into paths.
    """
    steps = [step for step in problem["loc"] if step not in variants]
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{field}: no such field{_suggestion(problem['loc'], root, variants)}"
    if problem["type"] == "missing":
        return f"{field}: missing"
    found = problem["input"]
    text = f"{message[0].lower()}{message[1:]}"
    if problem["type"] == "model_type":
        text = "expected fields, such as {name: value}"
    if problem["type"] != UNREPEATED and not isinstance(found, dict | list) and repr(found) not in text:
        text += f", found {found!r}"
    if problem["type"] == "string_type" and isinstance(found, int | float):
        text += "; put it in quotes"
    if problem["type"] == "literal_error" and isinstance(found, str) and ":" in found:
        text += f"; a part of another module is written {{use: {found}}}"
    return f"{field}: {text}" if field else message


def _suggestion(
    location: tuple[int | str, ...], root: type[BaseModel], variants: Mapping[str, type[BaseModel]]
) -> str:
    part: Any = root
    for step in location[:-1]:
        if isinstance(step, str):
            part = variants.get(step) or _part_of(part.model_fields[step].annotation)
    known, written = list(part.model_fields), str(location[-1])
    meant = LIKELY_MEANINGS.get(written)
    close = [meant] if meant in known else difflib.get_close_matches(written, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _part_of(annotation: Any) -> Any:
    inner = getattr(annotation, "__args__", ())
    return inner[0] if inner else annotation
