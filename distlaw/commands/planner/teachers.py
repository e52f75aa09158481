"""Existing teachers, asked about by size, name or directory, and ``distlaw teachers``, a list of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from distlaw.options import Csv, Json, parse_optional, refuse, write_csv, write_json
from scaling.errors import InputError
from scaling.open_models import (
    UNLIMITED_CONTEXT,
    OpenModel,
    find_open_model,
    is_post_trained,
    near_models,
    open_models,
)
from scaling.planner.teacher_catalogue import KnownTeacher, ask_teacher, read_catalogue
from scaling.reports.plan_text import text_table
from scaling.units import format_number

PANEL = "The teacher"
Catalogue = Annotated[
    Path | None,
    typer.Option(
        "--teachers",
        metavar="CSV",
        help="Existing teachers: name, params, and loss or tokens; dollars_per_million_tokens, vocab.",
        rich_help_panel=PANEL,
    ),
]
Named = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        metavar="NAME|SIZE|DIR",
        help="An existing teacher: Qwen/Qwen3-8B, 8B, or a model's directory; repeat.",
        rich_help_panel=PANEL,
    ),
]
Tokens = Annotated[
    str,
    typer.Option(
        "--teacher-tokens", metavar="TOKENS", help="It was trained on these: 15T.", rich_help_panel=PANEL
    ),
]
Loss = Annotated[
    str,
    typer.Option(
        "--teacher-loss",
        metavar="NATS",
        help="Its loss on the student's data, nats/token, where measured.",
        rich_help_panel=PANEL,
    ),
]
Active = Annotated[
    str,
    typer.Option(
        "--teacher-active-params",
        metavar="PARAMS",
        help="Of a mixture of experts, those that a token meets.",
        rich_help_panel=PANEL,
    ),
]


def register(app: typer.Typer) -> None:
    """Add ``distlaw teachers`` to the application."""
    app.command("teachers")(teachers_command)


def teachers_command(
    search: Annotated[str, typer.Argument(help="Only models whose name holds this.")] = "",
    as_json: Json = False,
    csv: Csv = False,
) -> None:
    """List open models that plans know by name, with sizes, vocabularies and training tokens.

    Example: distlaw teachers qwen3
    """
    found = [model for model in open_models() if search.lower() in model.name.lower()]
    if not found:
        raise InputError(
            f"no open model's name holds {search!r}; distlaw teachers lists all {len(open_models())}"
        )
    refuse({"--csv": csv and as_json}, "goes without --json")
    if as_json:
        write_json({"teachers": [asdict(model) for model in found]})
    elif csv:
        write_csv([asdict(model) for model in found])
    else:
        sys.stdout.write("\n".join(text_table(*_table(found))) + "\n")


def _table(models: Sequence[OpenModel]) -> tuple[list[str], list[list[str]]]:
    def number(value: float | None) -> str:
        return "" if value is None else format_number(value)

    header = ["model", "params", "active", "vocab", "context", "tokens"]
    rows = [
        [
            model.name,
            number(model.params),
            number(model.active_params),
            str(model.vocab),
            str(model.context) if model.context < UNLIMITED_CONTEXT else "any",
            number(model.tokens),
        ]
        for model in models
    ]
    return header, rows


def asked_teachers(
    catalogue: Path | None, names: Sequence[str], tokens: str, loss: str, active: str
) -> tuple[KnownTeacher, ...]:
    """Return the teachers of a catalogue and those asked about by name, size or directory.

    Raises:
        InputError: Where what is known of them does not suffice, or details go with no or several names.
    """
    details = {"--teacher-tokens": tokens, "--teacher-loss": loss, "--teacher-active-params": active}
    if not names:
        refuse(details, "goes with --teacher")
    if len(names) > 1:
        refuse(details, "is of one --teacher; several with their own numbers go into a CSV (--teachers)")
    known = {
        "tokens": parse_optional(tokens, "--teacher-tokens", "tokens"),
        "loss": parse_optional(loss, "--teacher-loss"),
        "active_params": parse_optional(active, "--teacher-active-params", "params"),
    }
    listed = read_catalogue(catalogue) if catalogue else ()
    return (*listed, *(_asked(name, known) for name in names))


def _asked(name: str, known: dict[str, float | None]) -> KnownTeacher:
    """Return one teacher; a model that is not in the list is counted from its configuration."""
    if find_open_model(name) is None and ("/" in name or Path(name).is_dir()):
        from sweeps.pretrained.count import card_of_model

        try:
            shape = card_of_model(name, "--teacher").shape
        except InputError as error:
            near = [] if Path(name).is_dir() else near_models(name)
            raise InputError(f"{error}; did you mean {' or '.join(near)}?" if near else str(error)) from error
        active = known["active_params"] or float(getattr(shape, "active", shape.params))
        return ask_teacher(
            name,
            params=float(shape.params),
            vocab=shape.vocab,
            active_params=active if active < shape.params else None,
            tokens=known["tokens"],
            loss=known["loss"],
        )
    return ask_teacher(name, tokens=known["tokens"], loss=known["loss"], active_params=known["active_params"])


def teacher_notes(names: Sequence[str], vocab: int | None) -> tuple[str, ...]:
    """Return what is to be known of teachers given by name."""
    tuned = [name for name in names if (model := find_open_model(name)) and is_post_trained(name, model)]
    notes = []
    if vocab is not None:
        notes.append(
            f"! the student needs its teacher's tokenizer ({vocab} tokens), with which FLOPs are counted; "
            "losses are those of the calibration's text and tokenizer: compare ways with each other, not "
            "with other measurements"
        )
    if tuned:
        notes.append(
            f"! {', '.join(tuned)}: tuned after pretraining, but taken for the base model; its loss on plain "
            "text is higher (measure it, `loss`)"
        )
    return tuple(notes)
