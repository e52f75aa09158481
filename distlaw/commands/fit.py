"""``distlaw fit``, ``check`` and ``compare-laws``: from a table of runs to a calibration."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.number_options import count_from, number
from distlaw.options import Aspect, Vocab, Window, for_terminal
from distlaw.tables import BytesPerToken, Decimal, LossUnit, Map, Table, Where, load_table, table_name
from scaling.errors import InputError
from scaling.units import parse_list, parse_number, parse_quantity

if TYPE_CHECKING:
    from concurrent.futures import Executor

Given = Annotated[
    str, typer.Option(help="Take the supervised law of this calibration (file or published name).")
]
Gamma = Annotated[
    str,
    typer.Option(
        help="Outer exponent of the supervised law: free (under a prior), auto (pulled to 1 as runs left out "
        "ask for), or a number."
    ),
]
Fix = Annotated[str, typer.Option(help="Coefficients to fix: E=1.69,k=1.4.")]
Tied = Annotated[bool, typer.Option("--tied", help="Fit one exponent for alpha and beta.")]
Joint = Annotated[
    bool | None,
    typer.Option(
        "--joint/--separate",
        help="Fit both laws together, or the supervised law alone first; by default what the runs allow.",
    ),
]
Asymmetry = Annotated[
    float,
    typer.Option(
        parser=number,
        metavar="<float>",
        help="Cost ratio of over- to under-prediction; above 1 for runs that were not fully tuned.",
    ),
]
Delta = Annotated[
    str,
    typer.Option(help="Residual where Huber's loss turns linear: auto, a number, or inf for least squares."),
]
Nats = Annotated[bool, typer.Option("--nats", help="Compare losses, not their logarithms.")]
Priors = Annotated[bool, typer.Option(help="Constrain what the runs do not determine by weak priors.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("fit")(fit_command)
    app.command("check")(check_command)
    app.command("compare-laws")(compare_laws_command)


def fit_command(
    table: Table,
    mapping: Map = None,
    out: Annotated[Path | None, typer.Option(help="Write the calibration (JSON) here.")] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Write the figures (PNG and SVG) into this directory.")
    ] = None,
    supervised: Given = "",
    prior: Annotated[
        str,
        typer.Option(
            metavar="CALIBRATION",
            help="Law of another corpus on the same code, block and ladder, mapped to this one by three "
            "numbers: a calibration's file, or a sweep that ships (permissive).",
        ),
    ] = "",
    reach: Annotated[
        str,
        typer.Option(
            metavar="FLOPS", help="Largest compute (6 N D) that the law under --prior will be asked for."
        ),
    ] = "",
    law: Annotated[
        list[str] | None,
        typer.Option(
            help="Law to fit, by name or MODULE:NAME; repeat for several: distillation laws, the default "
            "first, and one supervised law (over-training, farseer) in place of the power law.",
        ),
    ] = None,
    gamma: Gamma = "auto",
    fix: Fix = "",
    tied: Tied = False,
    joint: Joint = None,
    size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="Parameters of mixtures of experts to fit in: active or total; by default what predicts "
            "runs left out better.",
        ),
    ] = "auto",
    delta: Delta = "auto",
    nats: Nats = False,
    asymmetry: Asymmetry = 1.0,
    priors: Priors = True,
    leave_out: Annotated[
        str, typer.Option(help="Also leave out each value of this column in turn and predict its runs.")
    ] = "",
    isoflop: Annotated[
        bool, typer.Option("--isoflop", help="Also find scaling exponents by IsoFLOP profiles.")
    ] = False,
    measured_only: Annotated[
        bool,
        typer.Option("--measured-only", help="Leave out losses that are projected (column projected_sd)."),
    ] = False,
    report: Annotated[str, typer.Option(help="text, json, or html (one page with the figures).")] = "text",
    as_json: Json = False,
    context: Window = None,
    vocab: Vocab = None,
    aspect_ratio: Aspect = None,
    draws: Annotated[
        int,
        typer.Option(
            parser=count_from(20), metavar="<int>", help="Bootstrap draws that carry the uncertainty."
        ),
    ] = 400,
    seed: Annotated[
        int, typer.Option(parser=count_from(), metavar="<int>", help="Random seed of starts and draws.")
    ] = 0,
    loss_unit: LossUnit = "",
    bytes_per_token: BytesPerToken = None,
    decimal: Decimal = ".",
    where: Where = None,
    address: Annotated[
        str, typer.Option(help="Spread starts and draws over Ray: local for all cores here, or HOST:PORT.")
    ] = "",
) -> None:
    """Fit scaling laws to a table of runs and report how far to trust them.

    Examples:

        distlaw fit runs.csv --out calibration.json

        distlaw fit runs.csv --prior permissive --reach 1e14

        distlaw fit wandb.csv --map N=params,D=tokens,L=val_loss,L_T=teacher_loss --plots figures
    """
    from fits import Objective, fit
    from scaling.calibration.calibration import Calibration

    if as_json and report == "html":
        raise InputError("--json prints JSON and --report html a page: give one of them")
    if out is not None:
        _check_writable("--out", out)
    if plots is not None:
        _make_directory("--plots", plots)
    if reach and not prior:
        raise InputError(
            "--reach says how far the law of --prior is asked for: give a prior, or leave it out"
        )
    given = Calibration.load(supervised) if supervised else None
    runs = load_table(table, mapping, loss_unit, bytes_per_token, decimal, where)
    with _pool(address) as pool:
        found = fit(
            runs, laws=law or None, supervised=given, draws=draws, seed=seed,
            prior=prior or None, reach=parse_quantity(reach, "--reach", "FLOPs") if reach else None,
            gamma=gamma, fixed=_numbers("--fix", fix), tied=tied, joint=joint, size=size,
            objective=Objective(delta=_delta(delta), asymmetry=asymmetry, priors=priors, in_nats=nats),
            isoflop=isoflop, measured_only=measured_only, name=out.stem if out else table_name(table),
            source=table.name, executor=pool, architecture=_architecture(context, vocab, aspect_ratio),
        )  # fmt: skip
    if leave_out:
        found = replace(found, held_out=(*found.held_out, *found.leave_groups_out(leave_out)))
    text = found.report("json" if as_json else report)
    typer.echo(text if as_json or report == "html" else for_terminal(text))
    if out is not None:
        found.calibration.save(out)
        typer.echo(f"calibration: {out}", err=True)
    if plots is not None:
        found.plot.save(plots)
        typer.echo(f"figures: {plots}", err=True)


def _pool(address: str) -> AbstractContextManager[Executor | None]:
    """Return the executor of starts and draws: on Ray if an address is given, else this process."""
    if not address:
        return nullcontext()
    from sweeps.execute.executors.ray_futures import RayPool

    return RayPool(address)


def _architecture(context: int | None, vocab: int | None, aspect_ratio: float | None) -> dict[str, float]:
    """Return the given numbers of the models, which plans count FLOPs with."""
    said = {"context": context, "vocab": vocab, "aspect_ratio": aspect_ratio}
    return {name: value for name, value in said.items() if value is not None}


def check_command(
    table: Table,
    mapping: Map = None,
    supervised: Given = "",
    gamma: Gamma = "auto",
    fix: Fix = "",
    tied: Tied = False,
    context: Window = None,
    vocab: Vocab = None,
    aspect_ratio: Aspect = None,
    loss_unit: LossUnit = "",
    bytes_per_token: BytesPerToken = None,
    decimal: Decimal = ".",
    where: Where = None,
    as_json: Json = False,
) -> None:
    """Check a table's data and design without fitting it: what it can identify, and which runs would help.

    Example:

        distlaw check runs.csv --map N=params,D=tokens,L=val_loss
    """
    from fits.checks.design import check
    from scaling.calibration.calibration import Calibration

    given = Calibration.load(supervised).supervised if supervised else None
    runs = load_table(table, mapping, loss_unit, bytes_per_token, decimal, where)
    report = check(
        runs, given, _architecture(context, vocab, aspect_ratio),
        gamma=gamma, fixed=_numbers("--fix", fix), tied=tied,
    )  # fmt: skip
    typer.echo(json.dumps(asdict(report), indent=1) if as_json else for_terminal(str(report)))
    if report.refused:
        raise typer.Exit(2)


def compare_laws_command(
    table: Table,
    mapping: Map = None,
    law: Annotated[
        list[str] | None,
        typer.Option(
            help="A law to compare, by name or MODULE:NAME; repeat for several. Supervised laws alone "
            "(power-law, over-training, farseer) are compared on the supervised runs.",
        ),
    ] = None,
    supervised: Given = "",
    gamma: Gamma = "auto",
    fix: Fix = "",
    tied: Tied = False,
    joint: Joint = None,
    delta: Delta = "auto",
    nats: Nats = False,
    asymmetry: Asymmetry = 1.0,
    priors: Priors = True,
    thresholds: Annotated[
        str,
        typer.Option(
            metavar="L_T,L_T,D",
            help="Bounds of the extrapolation checks: fit teachers worse than the first, better than the "
            "second, on fewer tokens than the third; by default each leaves out about a third.",
        ),
    ] = "",
    loss_unit: LossUnit = "",
    bytes_per_token: BytesPerToken = None,
    decimal: Decimal = ".",
    where: Where = None,
    as_json: Json = False,
    seed: Annotated[
        int, typer.Option(parser=count_from(), metavar="<int>", help="Random seed of the starts.")
    ] = 0,
) -> None:
    """Compare laws on a table: fit, BIC, cross-validations, and which wins where.

    A column `split` holds rows out: those that say "fit" are fitted, the others predicted.

    Examples:

        distlaw compare-laws runs.csv --law published --law effective-tokens

        distlaw compare-laws runs.csv --law power-law --law farseer

        distlaw compare-laws runs.csv --delta inf --nats --no-priors --thresholds 2.1,2.3,20B
    """
    from fits import Objective, compare_laws
    from scaling.calibration.calibration import Calibration

    given = Calibration.load(supervised) if supervised else None
    runs = load_table(table, mapping, loss_unit, bytes_per_token, decimal, where)
    found = compare_laws(
        runs, law or None, supervised=given, seed=seed,
        gamma=gamma, fixed=_numbers("--fix", fix), tied=tied, joint=joint,
        objective=Objective(delta=_delta(delta), asymmetry=asymmetry, priors=priors, in_nats=nats),
        thresholds=_three(thresholds) if thresholds else None,
    )  # fmt: skip
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else for_terminal(str(found)))


def _numbers(option: str, text: str) -> dict[str, float]:
    """``"E=1.69,k=1.4"`` as numbers by name."""
    from fits.table.columns.column_names import parse_mapping

    example = "E=1.69,k=1.4"
    found = parse_mapping(text, option, example).items()
    return {name: parse_number(value, f"{option} {name}, as in {example}") for name, value in found}


def _three(text: str) -> tuple[float, float, float]:
    """``"2.1,2.3,20B"`` as numbers."""
    values = parse_list(text, "--thresholds")
    if len(values) != 3:
        raise InputError(
            f"--thresholds: two teacher losses and a token count, as in 2.1,2.3,20B; not {text!r}"
        )
    return values


def _check_writable(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before an hour of fitting; leaves no file behind."""
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written ({error.strerror})") from error
    if not existed:
        path.unlink()


def _make_directory(option: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be made a directory ({error.strerror})") from error


def _delta(text: str) -> float | str:
    try:
        return text if text == "auto" else float("inf") if text == "inf" else parse_number(text, "--delta")
    except InputError:
        raise InputError(f"--delta is auto, a number or inf, not {text!r}") from None
