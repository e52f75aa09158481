"""Result that a command reports: ``result.json``, its schema, and how far it may be from what was asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from scaling.errors import InputError
from scaling.unique_keys import refuse_duplicate_keys
from scaling.units import format_number
from sweeps.dag.step import Step
from sweeps.spec.fields import Number, Quantity, SpecModel
from sweeps.spec.parsing.messages import explain_problem
from sweeps.store.records import COLUMNS

SCHEMA_FILE = Path(__file__).with_name("result.schema.json")
TOLERANCE = 0.1
"""Largest relative difference of size and tokens from those asked for; the true ones are used."""
MAX_BYTES = 10_000_000
REPORTED = "as reported by its command"
"""Text of the runs table for a loss whose command does not say on what it was measured."""


class ReportedResult(SpecModel):
    """Result of a run: its size, and either a loss or a model, which is then measured here."""

    params: Quantity | None = None
    """Non-embedding parameters; counted where there is a model."""
    loss: Number | None = Field(None, gt=0)
    """Held-out cross-entropy, nats per token of the corpus's tokenizer."""
    loss_se: Number | None = Field(None, ge=0)
    """Standard error of the loss."""
    loss_on: str | None = None
    """Text that the loss was measured on, in words."""
    model: str | None = None
    """Directory in Hugging Face layout (safetensors), relative to the directory of this file."""
    tokens: Quantity | None = None
    """Training tokens; those asked for if not given."""
    flops: Quantity | None = None
    """FLOPs of the run, teacher's inference included; counted by the sweep's rules if not given."""
    seconds: Number | None = Field(None, ge=0)
    """Seconds of training; measured if not given."""
    metrics: dict[str, Number] = {}
    """Further numbers for the runs table."""

    @field_validator("metrics")
    @classmethod
    def _columns_of_their_own(cls, given: dict[str, float]) -> dict[str, float]:
        if taken := next((name for name in given if name in {*COLUMNS, "loss_on"}), None):
            raise ValueError(f"{taken} is a column of every runs table; choose another name")
        return given


def result_schema() -> dict[str, Any]:
    """Return the JSON schema of results, as shipped in ``result.schema.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ReportedResult.model_json_schema(),
    }


def read_result(path: Path) -> ReportedResult:
    """Read the result of a command.

    Raises:
        InputError: if there is none, or it is no result, with the field and what was found.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes, which is no result of a run")
        data = json.loads(
            path.read_text(encoding="utf-8-sig"), object_pairs_hook=refuse_duplicate_keys(str(path))
        )
    except FileNotFoundError:
        raise InputError(
            f"{path}: the command exited with 0 and left no result there; it must write "
            '{"params": ..., "loss": ...} or {"model": DIRECTORY}, or collect must name its log'
        ) from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON object ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a JSON object of fields such as params and loss")
    return parse_result(data, str(path))


def parse_result(data: dict[str, Any], where: str) -> ReportedResult:
    """Validate a result; errors name ``where``, the field and what was found.

    Raises:
        InputError: if a field is wrong.
    """
    try:
        return ReportedResult.model_validate(data)
    except ValidationError as error:
        lines = [explain_problem(problem, ReportedResult, {}) for problem in error.errors()]
        raise InputError(f"{where}: {'; '.join(lines)}") from None


def check_result(found: ReportedResult, step: Step, where: str, *, has_model: bool) -> None:
    """Refuse a result that is not of the run that was asked for.

    Raises:
        InputError: if it lacks a number, its size or tokens are not those asked for within 10 %, or its loss
            is none in nats/token.
    """
    if not has_model:
        for name in ("params", "loss"):
            if getattr(found, name) is None:
                raise InputError(
                    f"{where}: {name} is missing; without a model, a result needs params (non-embedding "
                    "parameters) and loss (nats/token)"
                )
    guessing = math.log(step.shape.vocab)
    if found.loss is not None and not has_model and found.loss > guessing + 1:
        raise InputError(
            f"{where}: loss: {found.loss:g} nats/token is far above the {guessing:.3g} of guessing at random "
            f"among {step.shape.vocab} tokens; convert a perplexity, or a loss in bits or of several tokens"
        )
    if found.params is not None and not has_model:
        check_close(found.params, step.shape.params, "non-embedding parameters", where)
    if found.tokens is not None:
        check_close(found.tokens, step.tokens, "training tokens", where)


def check_close(found: float, asked: float, unit: str, where: str) -> None:
    """Refuse a number that is not within 10 % of the one asked for.

    Raises:
        InputError: with both numbers.
    """
    if not math.isfinite(found) or abs(found / asked - 1) > TOLERANCE:
        raise InputError(
            f"{where}: {format_number(found)} {unit}, and {format_number(asked)} were asked for; a run may "
            f"differ by {TOLERANCE:.0%}, and its true number is used then"
        )
