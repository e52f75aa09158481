"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from distlaw.number_options import count_from, positive
from scaling.calibration.calibration import Calibration as Fitted
from scaling.costs.budget import Budget, parse_several_budgets
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import with_numbers
from scaling.costs.hardware import Hardware, hardware
from scaling.costs.scenarios import DESCRIPTIONS
from scaling.errors import InputError
from scaling.reports.plan_text import wrap_sentences
from scaling.to_plain import nan_to_none
from scaling.units import Unit, parse_quantity, split_list, unit_of

LAWS, COUNTING, LIMITS, OUTPUT = "The law", "How FLOPs are counted", "Limits", "Output"
"""Groups of options in help."""
Calibration = Annotated[
    str,
    typer.Option(
        "--calibration",
        "-c",
        metavar="NAME|FILE",
        help="A published set (see calibrations) or a JSON file.",
        rich_help_panel=LAWS,
    ),
]
Law = Annotated[
    str | None,
    typer.Option(metavar="KIND", help="Distillation law, if not the default one.", rich_help_panel=LAWS),
]
ScenarioNames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Which costs of the teacher are charged: "
        + ", ".join(f"{name} ({words})" for name, words in DESCRIPTIONS.items())
        + ", or amortized:LOGITS,PRETRAINING with shares from 0 to 1. Repeat; all four if not given.",
    ),
]
Flops = Annotated[
    str | None,
    typer.Option(
        "--flops-rule", metavar="detailed|6nd", help="How FLOPs are counted.", rich_help_panel=COUNTING
    ),
]
COUNTING_OPTIONS = "--context, --vocab and --aspect-ratio"
Window = Annotated[
    int | None,
    typer.Option(
        "--context",
        parser=count_from(1),
        metavar="<int>",
        help="Sequence length for the FLOPs, tokens.",
        rich_help_panel=COUNTING,
    ),
]
Vocab = Annotated[
    int | None,
    typer.Option(
        "--vocab",
        parser=count_from(1),
        metavar="<int>",
        help="Vocabulary size for the FLOPs.",
        rich_help_panel=COUNTING,
    ),
]
Aspect = Annotated[
    float | None,
    typer.Option(
        "--aspect-ratio",
        parser=positive,
        metavar="<float>",
        help="d_model / n_layers for the FLOPs.",
        rich_help_panel=COUNTING,
    ),
]
Extrapolate = Annotated[
    bool,
    typer.Option(
        "--extrapolate", help="Let a teacher that exists lie outside the fitted runs.", rich_help_panel=LIMITS
    ),
]
Gpu = Annotated[
    str,
    typer.Option(
        "--gpu", metavar="NAME", help="Device of hours and dollars that name none: h100, mi300x, tpu-v5p, ..."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print everything as JSON, numbers in full.", rich_help_panel=OUTPUT)
]
Csv = Annotated[
    bool, typer.Option("--csv", help="Print one row per way as CSV, numbers in full.", rich_help_panel=OUTPUT)
]

OPTIONS = {
    "active_params": "--teacher-active-params",
    "count": "--count",
    "device": "--gpu",
    "dollars_per_hour": "--price",
    "loss": "--teacher-loss",
    "teachers": "--teacher",
    "tokens": "--teacher-tokens",
    "vocab": "--vocab",
}
"""Option of each field that messages name in backquotes."""
SLOWEST_PEAK = 1e8
"""FLOP/s below which a number was meant as TFLOP/s."""
_BOUND = re.compile(r"\s*(?P<name>\w+)\s*(?P<sign><=|>=|=)\s*(?P<value>.+)")


def with_options(message: str) -> str:
    """Return a message with the options of the command line in place of fields in backquotes.

    >>> with_options("no list price of h20 is on record; give one (`dollars_per_hour` 2.50)")
    'no list price of h20 is on record; give one (--price 2.50)'
    """
    return re.sub(r"`(\w+)`", lambda found: OPTIONS.get(found[1], found[0]), message)


def parse_optional(text: str, what: str, unit: Unit = "", *, zero: bool = False) -> float | None:
    """Return a quantity, or ``None`` for an empty text."""

    return parse_quantity(text, what, unit, zero=zero) if text else None


def parse_share(text: str, what: str) -> float | None:
    """Return a share from 0 to 1, written as ``0.4`` or ``40%``, or ``None`` for an empty text."""
    if not text:
        return None
    share = parse_quantity(text.removesuffix("%"), what, "") / (100 if text.endswith("%") else 1)
    if share > 1:
        raise InputError(f"{what}: must be a share from 0 to 1, such as 0.4 or 40%, not {text!r}")
    return share


def parse_peak(text: str) -> float | None:
    """Return FLOP/s of a device, or ``None`` for an empty text; refuse TFLOP/s without their unit."""
    peak = parse_optional(text, "--peak", "FLOP/s")
    if peak is not None and peak < SLOWEST_PEAK:
        raise InputError(f"--peak: {text!r} FLOP/s is no device's peak; write 989e12 or '989 TFLOP/s'")
    return peak


def budget_ends(text: str) -> list[str]:
    """Return the parts of a budget or of a range of budgets; none of an empty text."""
    return re.split(r":|\s+to\s+", text) if text else []


def parse_budgets(text: str, device: Hardware | None = None) -> list[Budget]:
    """Return no budget, one, or the two ends of a range ``LOW:HIGH``, counted on ``device`` if given."""
    budgets = parse_several_budgets(budget_ends(text), "--budget", device)
    if len(budgets) > 2 or (len(budgets) == 2 and budgets[0].flops >= budgets[1].flops):
        raise InputError(f"--budget: write one budget, or LOW:HIGH with LOW below HIGH, not {text!r}")
    return budgets


def parse_budget_list(text: str, what: str, gpu: str) -> tuple[Budget, ...]:
    """Return budgets separated by commas; those that name no device are counted on ``gpu``, if given."""
    given = hardware(gpu) if gpu else None
    parts = split_list(text, what)
    if gpu and not any(parts):
        raise InputError(f"--gpu: goes with {what}")
    return tuple(parse_several_budgets(parts, what, given))


def parse_constraints(texts: Sequence[str]) -> dict[str, tuple[float | None, float | None]]:
    """Return bounds by variable from texts such as ``teacher_params<=70B``; those on one combine."""

    bounds: dict[str, tuple[float | None, float | None]] = {}
    for text in texts:
        match = _BOUND.fullmatch(text)
        if match is None:
            raise InputError(f"--constrain: write VARIABLE<=VALUE, >= or =, not {text!r}")
        value = parse_quantity(match["value"], f"--constrain {match['name']}", unit_of(match["name"]))
        low, high = bounds.get(match["name"], (None, None))
        bounds[match["name"]] = (
            low if match["sign"] == "<=" else value,
            high if match["sign"] == ">=" else value,
        )
    return bounds


def counting(
    fitted: Fitted,
    rule: str | None,
    context: int | None,
    vocab: int | None,
    aspect_ratio: float | None = None,
) -> Architecture | None:
    """Return the calibration's architecture with the given numbers; ``None`` where none is given."""
    from dataclasses import replace

    if (rule, context, vocab, aspect_ratio) == (None,) * 4:
        return None
    ruled = fitted.architecture if rule is None else replace(fitted.architecture, rule=rule.lower())
    return with_numbers(ruled, context=context, vocab=vocab, aspect_ratio=aspect_ratio)


def for_terminal(text: str) -> str:
    """Return a report as wide as the terminal; as it is, a finding in each line, where it is piped."""
    return wrap_sentences(text, get_terminal_size().columns) if sys.stdout.isatty() else text


def refuse(given: Mapping[str, object], why: str) -> None:
    """Reject options that would be ignored, by name.

    Raises:
        InputError: If any is given.
    """

    ignored = [name for name, value in given.items() if value]
    if ignored:
        raise InputError(f"{', '.join(ignored)}: {why}")


def write_json(content: Mapping[str, Any]) -> None:
    """Print JSON; numbers that it cannot hold become null."""
    import json

    sys.stdout.write(json.dumps(nan_to_none(content), indent=1, allow_nan=False) + "\n")


def write_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Print CSV, with these columns and all others that any row has."""
    import csv

    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def check_output(json: bool, csv: bool, store_logits: str, details: bool) -> None:
    """Refuse options of the output that exclude each other."""
    if json or csv:
        refuse({"--store-logits": store_logits}, "is said in words only, so not with --json or --csv")
        refuse({"--details": details}, "is about words; --json and --csv hold everything")
    refuse({"--csv": csv and json}, "goes without --json")
