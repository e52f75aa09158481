"""``distlaw plot``: figures of calibrations, of fits to tables, and of sweeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distlaw.options import Gpu, Law, ScenarioNames, parse_budget_list, refuse
from distlaw.tables import BytesPerToken, Decimal, LossUnit, Map, load_table
from scaling.calibration.calibration import DEFAULT_CALIBRATION
from scaling.errors import InputError
from scaling.units import format_number, format_power, parse_list

if TYPE_CHECKING:
    import pandas as pd

    from fits import Fit
    from fits.plots import FitPlots
    from scaling.figures.figure import Figure

    ReadTable = Callable[[Path], pd.DataFrame]

OF_A_TABLE: dict[str, tuple[str, Callable[[FitPlots, str, str | None], Figure]]] = {
    "law": ("the runs and the fitted law over teacher loss", lambda plot, _, law: plot.law(law)),
    "isoflop": ("the runs and the supervised law at fixed compute", lambda plot, *_: plot.isoflop()),
    "predicted": ("predicted against observed losses", lambda plot, *_: plot.predicted()),
    "residuals": ("residuals, and their quantiles (QQ)", lambda plot, *_: plot.residuals()),
    "corner": ("the draws of a law's coefficients", lambda plot, _, law: plot.corner(law)),
    "profile": (
        "the profile likelihood of --coordinate",
        lambda plot, coordinate, law: plot.profile(coordinate, law=law),
    ),
}
OF_A_STORE = {
    "dag": ("graph", "the steps of a sweep and what each needs"),
    "timeline": ("timeline", "when each attempt ran"),
}
"""Figures of a sweep: as ``status.plot`` names them, and in words."""
NUMBERED = re.compile(r"figure-(\d+)")


def _help() -> str:
    from scaling.figures.registry import KINDS

    def listed(kinds: Mapping[str, str]) -> str:
        return "\n\n".join(f"  {name}: {words}" for name, words in kinds.items())

    return f"""Draw a figure: PNG, SVG or PDF; for print, or for a dark page.

Of a calibration (SOURCE is its name or file; in brackets the figures of Busbridge et al. 2025 of that kind):

{listed({name: kind.words for name, kind in KINDS.items()})}

  figure-1, -2, ... -34: that figure of the paper, with its settings, from this calibration

Of a fit to a table (SOURCE is the table, or a sweep's store):

{listed({name: words for name, (words, _) in OF_A_TABLE.items()})}

Of a sweep (SOURCE is its store):

{listed({name: words for name, (_, words) in OF_A_STORE.items()})}

Examples:

  distlaw plot scenarios --students 300M,1B --budgets 1e20,1e24 --out scenarios.png

  distlaw plot figure-7 --out figure7.pdf

  distlaw plot residuals runs.csv --out residuals.svg --dark

  distlaw plot timeline runs/quickstart --out timeline.png
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plot", help=_help())(plot_command)


def plot_command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to draw, from the lists above.")],
    source: Annotated[
        str, typer.Argument(metavar="[SOURCE]", help="A calibration, a table or a store, by the kind.")
    ] = "",
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .png, .svg or .pdf file.")] = Path(
        "figure.png"
    ),
    dark: Annotated[bool, typer.Option("--dark", help="Draw for a dark page.")] = False,
    students: Annotated[
        str, typer.Option(metavar="SIZES", help="300M,1B: lines or panels, or the ends of an axis.")
    ] = "",
    teachers: Annotated[str, typer.Option(metavar="SIZES", help="The same for teachers.")] = "",
    tokens: Annotated[str, typer.Option(metavar="TOKENS", help="The same for student tokens.")] = "",
    ratios: Annotated[str, typer.Option(metavar="NUMBERS", help="Student tokens per parameter: 20,80.")] = "",
    teacher_losses: Annotated[
        str, typer.Option(metavar="NATS", help="1.3,2.6: ends of an axis of teacher losses.")
    ] = "",
    budgets: Annotated[
        str,
        typer.Option(
            metavar="COMPUTE",
            help="The same for compute: 1e20,1e24, '100 h100-hours, 10k h100-hours', '$5000'.",
        ),
    ] = "",
    gpu: Gpu = "",
    scenario: ScenarioNames = None,
    law: Law = None,
    mapping: Map = None,
    loss_unit: LossUnit = "",
    bytes_per_token: BytesPerToken = None,
    decimal: Decimal = ".",
    coordinate: Annotated[str, typer.Option(help="For profile: a fitted coordinate.")] = "",
) -> None:

    spending = parse_budget_list(budgets, "--budgets", gpu)
    quantities = {
        "students": parse_list(students, "--students", "params"),
        "teachers": parse_list(teachers, "--teachers", "params"),
        "tokens": parse_list(tokens, "--tokens", "tokens"),
        "ratios": parse_list(ratios, "--ratios", ""),
        "teacher_losses": parse_list(teacher_losses, "--teacher-losses", ""),
        "budgets": tuple(budget.flops for budget in spending),
    }
    asked: dict[str, Any] = {**quantities, "scenarios": tuple(scenario or ())}
    of_tables = {
        "--map": mapping,
        "--loss-unit": loss_unit,
        "--bytes-per-token": bytes_per_token,
        "--coordinate": coordinate,
    }
    options = {
        f"--{name}".replace("scenarios", "scenario").replace("_", "-"): each for name, each in asked.items()
    }
    if kind in OF_A_TABLE:
        refuse(options, f"does not go with {kind}")
        read = partial(
            load_table,
            mapping=mapping,
            loss_unit=loss_unit,
            bytes_per_token=bytes_per_token,
            decimal=decimal,
        )
        figure = _of_a_table(kind, source, read, coordinate, law, dark)
    elif kind in OF_A_STORE:
        refuse(options | of_tables | {"--law": law}, f"does not go with {kind}")
        figure = _of_a_store(kind, source, dark)
    else:
        refuse(of_tables, f"does not go with {kind}")
        figure = _of_a_calibration(kind, source or DEFAULT_CALIBRATION, asked, law, dark)
    written = {name: [format_number(value) for value in values] for name, values in quantities.items()}
    written["budgets"] = [each.describe() if each.hardware else format_power(each.flops) for each in spending]
    echoed = [f"{name.replace('_', ' ')} {', '.join(values)}" for name, values in written.items() if values]
    typer.echo(f"figure: {figure.write(out)}" + (f" ({'; '.join(echoed)})" if echoed else ""))


def _of_a_calibration(
    kind: str, source: str, asked: Mapping[str, Any], law: str | None, dark: bool
) -> Figure:
    from scaling.costs.scenarios import scenario
    from scaling.figures import draw
    from scaling.figures.registry import KINDS

    numbered = NUMBERED.fullmatch(kind)
    if kind not in KINDS and not numbered:
        known = ", ".join([*KINDS, "figure-N", *OF_A_TABLE, *OF_A_STORE])
        raise InputError(f"no figure {kind!r}; there are {known}")
    wish = {**asked, "scenarios": tuple(scenario(name) for name in asked["scenarios"])}
    return draw(int(numbered[1]) if numbered else kind, source, dark=dark, law=law, **wish)


def _of_a_table(
    kind: str, source: str, read: ReadTable, coordinate: str, law: str | None, dark: bool
) -> Figure:
    if (kind == "profile") != bool(coordinate):
        raise InputError('profile needs a --coordinate, and it alone: for example "ln k"')
    plot = _fitted(kind, source, read).plot
    return OF_A_TABLE[kind][1](plot.on_dark if dark else plot, coordinate, law)


def _fitted(kind: str, source: str, read: ReadTable) -> Fit:
    from fits import fit

    if not source:
        raise InputError(f"{kind} is a figure of a fit: name a table, or a sweep's store")
    return fit(read(Path(source)), source=source, held_out=kind == "predicted")


def _of_a_store(kind: str, source: str, dark: bool) -> Figure:
    import sweeps

    if not source:
        raise InputError(f"{kind} is a figure of a sweep: name its store")
    return sweeps.status(source).plot(OF_A_STORE[kind][0], dark=dark)
