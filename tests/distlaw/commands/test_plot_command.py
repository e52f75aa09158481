"""``distlaw plot``: from words to a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from distlaw.commands import plot
from scaling import InputError
from scaling.figures.registry import KINDS

TABLE = Path(__file__).parents[3] / "notebooks/data/quickstart-runs.csv"


def run(*arguments: object) -> str:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    plot.register(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (("near", "--students", "1B", "--budgets", "1e21", "--dark"), b"\x89PNG"),
        (("figure-1", "busbridge2025-figure1-curves", "--students", "546M"), b"\x89PNG"),
        (("shares", "--scenario", "teacher_inference", "--law", "effective-tokens-sharp"), b"%PDF"),
        (("corner", TABLE, "--law", "supervised"), b"<?xml"),
    ],
)
def test_a_figure_is_written(arguments: tuple[object, ...], start: bytes, tmp_path: Path) -> None:
    suffix = {b"\x89PNG": "png", b"%PDF": "pdf", b"<?xml": "svg"}[start]
    out = tmp_path / f"figure.{suffix}"
    assert run(*arguments, "--out", out).strip().partition(" (")[0] == f"figure: {out}"
    assert out.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("options", "echoed"),
    [
        (("--budgets", "3.6e20"), "budgets 3.6e20"),
        (("--budgets", "1000 h100-hours"), "1K h100-hours = $2.49K"),
        (("--budgets", "$5000", "--gpu", "h200"), "h200-hours = $5K"),
    ],
)
def test_budgets_are_those_of_plans(options: tuple[str, ...], echoed: str, tmp_path: Path) -> None:
    told = run("near", "--students", "1B", *options, "--out", tmp_path / "a.svg")
    assert echoed in told


def test_every_kind_is_in_the_help() -> None:
    told = run("--help")
    for kind in [*KINDS, *plot.OF_A_TABLE, *plot.OF_A_STORE, "figure-1"]:
        assert kind in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scenery",), "no figure 'scenery'; there are teacher-loss, .* figure-N, law, .* timeline"),
        (("figure-5",), "no figure 5 of the paper"),
        (("near", "--ratios", "20"), "near takes students, budgets, scenarios, not ratios"),
        (("near", "--budgets", "$5000"), "--budgets: .* names no device"),
        (("near", "--budgets", "1e20,10 abacus-hours"), "--budgets: .*abacus"),
        (("scenarios", "--budgets", "1,5e21"), "is one number, or two"),
        (("near", "--gpu", "h100"), "--gpu: goes with --budgets"),
        (("residuals", TABLE, "--budgets", "1e20"), "--budgets: does not go with residuals"),
        (("near", "--coordinate", "ln k"), "--coordinate: does not go with near"),
        (("near", "nobody"), "no calibration 'nobody'"),
        (("near", "--scenario", "free"), "unknown scenario 'free'"),
        (("residuals",), "residuals is a figure of a fit: name a table"),
        (("residuals", TABLE, "--students", "1B"), "--students: does not go with residuals"),
        (("profile", TABLE), "profile needs a --coordinate"),
        (("dag",), "dag is a figure of a sweep: name its store"),
        (("timeline", TABLE.parent), "not a sweep store"),
        (("near", "--out", "near.gif"), r"--out near\.gif: a figure is a \.png, \.svg or \.pdf file"),
    ],
)
def test_what_cannot_be_drawn_is_said(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(*arguments)
