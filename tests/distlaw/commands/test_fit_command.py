"""The fit's verbs on the command line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from distlaw.commands import fit as verbs
from distlaw.options import for_terminal
from fits import datasets
from scaling import InputError, SupervisedLaw
from scaling.calibration.calibration import Calibration

app = typer.Typer()
verbs.register(app)
LAW = SupervisedLaw(E=1.8, A=400.0, B=2000.0, alpha=0.35, beta=0.37)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(len(N)))
    path = tmp_path / "my-runs.csv"
    pd.DataFrame({"size": N, "seen": D, "val": LAW.loss(N, D) * noise}).to_csv(path, index=False)
    return path


def test_fit_writes_a_calibration_and_figures(csv: Path, tmp_path: Path) -> None:
    out, plots = tmp_path / "law.json", tmp_path / "figures"
    arguments = ["fit", str(csv), "--map", "N=size,D=seen,L=val", "--draws", "40"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out), "--plots", str(plots)])
    assert result.exit_code == 0, result.output
    assert "16 supervised runs" in result.output
    assert "held out" in result.output
    loaded = Calibration.load(out)
    assert loaded.name == "law"
    assert loaded.provenance.source == "my-runs.csv"
    assert loaded.supervised.loss(1e9, 1e11) == pytest.approx(float(LAW.loss(1e9, 1e11)), rel=0.02)
    assert (plots / "isoflop.svg").exists()


def test_check_reads_the_design_without_fitting(csv: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(csv), "--map", "N=size,D=seen,L=val"])
    assert result.exit_code == 0
    assert "4 sizes 10M to 1B, 4 token counts 1B to 100B" in result.output
    few = tmp_path / "few.csv"
    pd.read_csv(csv).head(4).to_csv(few, index=False)
    result = CliRunner().invoke(app, ["check", str(few), "--map", "N=size,D=seen,L=val"])
    assert result.exit_code == 2
    assert "refuse: 4 supervised runs cannot determine" in result.output


def test_sentences_are_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"coefficient   value{' ' * 80}90 %\n  {'held out ' * 20}"
    assert for_terminal(text) == text
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table, first, *others = for_terminal(text).splitlines()
    assert table == text.splitlines()[0]
    assert first.startswith("  held") and all(line.startswith("    ") for line in others)
    assert max(map(len, [first, *others])) <= 40


def test_bad_input_is_an_input_error(csv: Path) -> None:
    result = CliRunner().invoke(app, ["fit", str(csv)])
    assert isinstance(result.exception, InputError)
    assert "my-runs.csv: no column 'params'" in str(result.exception)


def test_constraints_and_reports(csv: Path) -> None:
    arguments = ["fit", str(csv), "--map", "N=size,D=seen,L=val", "--draws", "20", "--report", "json"]
    result = CliRunner().invoke(
        app, [*arguments, "--fix", "E=1.8", "--tied", "--delta", "inf", "--leave-out", "params"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert "each params" in {held["rule"] for held in report["held_out"]}
    values = {row["name"]: row["value"] for row in report["coefficients"]}
    assert values["E"] == pytest.approx(1.8)
    assert values["alpha"] == pytest.approx(values["beta"])
    for wrong in (
        ["--fix", "E=one"],
        ["--delta", "some"],
        ["--asymmetry", "0"],
        ["--report", "pdf"],
        ["--fix", "E"],
    ):
        assert isinstance(CliRunner().invoke(app, [*arguments, *wrong]).exception, InputError)


@pytest.mark.parametrize(
    ("option", "path", "said"),
    [
        ("--out", "", "cannot be written .Is a directory"),
        ("--out", "none/law.json", "cannot be written .No such file"),
        ("--plots", "my-runs.csv/figures", "cannot be made a directory"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_fit(
    csv: Path, monkeypatch: pytest.MonkeyPatch, option: str, path: str, said: str
) -> None:
    monkeypatch.setattr(verbs, "load_table", lambda *_: pytest.fail("the table was read"))
    result = CliRunner().invoke(app, ["fit", str(csv), option, str(csv.parent / path)])
    assert isinstance(result.exception, InputError)
    assert re.search(said, str(result.exception))


def test_stores_of_other_versions_and_mapped_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def old(_: Path) -> None:
        raise KeyError("aspect_ratio")

    monkeypatch.setattr("sweeps.results", old)
    with pytest.raises(InputError, match="written by another version of distlaw"):
        verbs.load_table(tmp_path)
    with pytest.raises(InputError, match="--map and units are for tables"):
        verbs.load_table(tmp_path, "N=size")


def test_compare_laws_needs_distillations(csv: Path) -> None:
    result = CliRunner().invoke(app, ["compare-laws", str(csv), "--map", "N=size,D=seen,L=val"])
    assert isinstance(result.exception, InputError)


def test_the_published_comparison_is_one_command() -> None:
    """fits/README.md shows it; what it prints is in benchmarks/fit_results.md."""
    table, mapping = Path(datasets.__file__).with_name("data") / "figure1.csv", "N=NS,D=DS,L=LS,L_T=LT"
    settings = ["--delta", "inf", "--nats", "--no-priors", "--thresholds", "2.1,2.3,20B"]
    arguments = ["compare-laws", str(table), "--map", mapping, "--supervised", "busbridge2025-figure1-runs"]
    result = CliRunner().invoke(app, [*arguments, *settings, "--law", "effective-tokens"])
    assert result.exit_code == 0, result.output
    for line in ("rms error, fitted 0.0051", "few to many tokens 0.0048", "the table's split 0.0084"):
        assert line in " ".join(result.stdout.split())
    wrong = CliRunner().invoke(app, [*arguments, "--thresholds", "2.1"])
    assert "two teacher losses and a token count" in str(wrong.exception)


def test_every_verb_can_print_json(csv: Path, tmp_path: Path) -> None:
    runs = pd.read_csv(csv).rename(columns={"size": "params", "seen": "tokens", "val": "loss"})
    students = runs.head(8).assign(teacher_loss=np.tile([2.2, 2.5], 4))
    students["loss"] = np.maximum(students["loss"] * 0.98, students["teacher_loss"])
    both = tmp_path / "both.csv"
    pd.concat([runs, students]).to_csv(both, index=False)
    for arguments in (["check"], ["compare-laws", "--law", "effective-tokens"], ["fit", "--draws", "20"]):
        result = CliRunner().invoke(app, [arguments[0], str(both), *arguments[1:], "--json"])
        assert result.exit_code == 0, result.output
        assert isinstance(json.loads(result.stdout), dict)


def test_check_and_fit_say_what_is_assumed_of_the_models_unless_it_is_given(
    csv: Path, tmp_path: Path
) -> None:
    shared = [str(csv), "--map", "N=size,D=seen,L=val"]
    for verb in (["check", *shared], ["fit", *shared, "--draws", "20"]):
        said = CliRunner().invoke(app, verb).output
        assert "context 4096, vocabulary 32768, aspect ratio 128 (all assumed)" in said
        assert re.search(r"a token of a 100M model costs 0\.\d+ to [\d.]+ times what is counted", said)
        given = ["--context", "2048", "--vocab", "50257", "--aspect-ratio", "64"]
        said = CliRunner().invoke(app, [*verb, *given]).output
        assert "context 2048, vocabulary 50257, aspect ratio 64 (all given)" in said
        assert "ssumed" not in said
    out = tmp_path / "law.json"
    CliRunner().invoke(app, ["fit", *shared, "--draws", "20", "--out", str(out), "--vocab", "50257"])
    content = json.loads(out.read_text())
    assert content["architecture"]["vocab"] == 50257
    assert content["architecture_origins"] == {
        "context": "assumed",
        "vocab": "given",
        "aspect_ratio": "assumed",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "--law", "publshed"], "unknown law 'publshed'"),
        (["fit", "--law", "published"], "the table has no distillations"),
        (["fit", "--fix", "k=1.4"], "cannot fix k; coefficients that can be fixed here: E, gamma"),
        (["check", "--fix", "k=1.4"], "cannot fix k; coefficients that can be fixed here: E, gamma"),
        (["fit", "--separate"], "the table has no distillations: leave them out"),
        (["fit", "--json", "--report", "html"], "give one of them"),
    ],
)
def test_options_without_effect_are_errors(csv: Path, arguments: list[str], said: str) -> None:
    command, *options = arguments
    result = CliRunner().invoke(app, [command, str(csv), "--map", "N=size,D=seen,L=val", *options])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)


def test_check_counts_what_is_left_free(csv: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    pd.read_csv(csv).iloc[[0, 3, 5, 10, 15]].to_csv(few, index=False)
    arguments = ["check", str(few), "--map", "N=size,D=seen,L=val"]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert CliRunner().invoke(app, [*arguments, "--tied"]).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--fix", "E=1.8"]).exit_code == 0
