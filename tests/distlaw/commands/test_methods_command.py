"""``distlaw compare-methods``: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from distlaw.cli import main
from distlaw.commands import compare_methods, fit
from scaling import InputError, SupervisedLaw

app = typer.Typer()
compare_methods.register(app)
fit.register(app)
LAW = SupervisedLaw(E=1.6, A=17.0, B=612.0, alpha=0.22, beta=0.45)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        {
            "kind": "supervised" if way is None else "distillation",
            "params": N, "tokens": D, "how": way, "teacher_loss": None if way is None else 3.0, "seed": seed,
            "loss": float(LAW.loss(N, times * D)) * np.exp(0.003 * rng.standard_normal()), "flops": cost * N * D,
        }
        for N in (1e4, 1e5) for D in (3e5, 1e6, 3e6) for seed in (0, 1)
        for way, times, cost in ((None, 1.0, 6.0), ("forward-kl", 1.4, 8.0), ("gkd", 2.0, 20.0))
    ]  # fmt: skip
    path = tmp_path / "runs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_it_prints_json_and_draws(csv: Path, tmp_path: Path) -> None:
    arguments = ["compare-methods", str(csv), "--map", "method=how"]
    result = CliRunner().invoke(app, [*arguments, "--plot", str(tmp_path / "m.svg")])
    assert result.exit_code == 0, result.output
    assert "gkd: better: equivalent to 1.4" in result.output
    assert (tmp_path / "m.svg").read_text().startswith("<?xml")
    result = CliRunner().invoke(app, [*arguments, "--control", "supervised", "--on", "compute", "--json"])
    verdicts = {row["method"]: row["verdict"] for row in json.loads(result.output)["methods"]}
    assert verdicts == {"forward-kl": "better", "gkd": "worse"}


def test_what_cannot_be_done_is_an_input_error(csv: Path, tmp_path: Path) -> None:
    for more, said in (
        (["--control", "x"], "no run of the control 'x'"),
        (["--plot", str(tmp_path / "no" / "m.png")], "cannot write the figure"),
        (["--plot", str(tmp_path / "m.xyz")], "a figure is a .png, .svg or .pdf file"),
    ):
        result = CliRunner().invoke(app, ["compare-methods", str(csv), "--map", "method=how", *more])
        assert isinstance(result.exception, InputError)
        assert said in str(result.exception)


def test_bad_input_exits_2_without_a_traceback(
    csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["distlaw", "compare-methods", str(csv)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no column 'method'" in said
    assert "Traceback" not in said
