"""``distlaw collect`` and ``--where``: what is printed, and that errors are one sentence."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

from distlaw.cli import app
from scaling.errors import InputError

SAMPLES = Path(__file__).parents[2] / "fits/logs/samples"


def test_the_table_goes_to_a_file_and_a_summary_is_printed(tmp_path: Path) -> None:
    out = tmp_path / "runs.csv"
    found = CliRunner().invoke(app, ["collect", str(SAMPLES / "hf-trainer"), "--out", str(out)])
    assert found.exit_code == 0
    assert found.stdout.splitlines()[0].startswith("2 runs, 1 with size, tokens and held-out loss: ")
    assert "w24: tokens: not counted in the log" in found.stdout
    assert pd.read_csv(out)["run"].tolist() == ["w16", "w24"]


def test_without_a_file_the_table_goes_to_standard_output() -> None:
    arguments = ["collect", str(SAMPLES / "wandb"), "--where", "seed==1", "--keep", "wandb_id"]
    found = CliRunner().invoke(app, arguments)
    assert pd.read_csv(io.StringIO(found.stdout))["wandb_id"].tolist() == ["run1"]


def test_wrong_requests_are_answered_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing\n")
    for arguments, part in [
        ([str(tmp_path)], "no log of a run among 1 files (1 .txt)"),
        ([str(SAMPLES / "wandb"), "--where", "seed"], "write NAME==VALUE"),
        ([str(SAMPLES / "wandb"), "--out", str(tmp_path / "none/runs.csv")], "cannot be written"),
        ([str(SAMPLES / "documented")], "bits/byte, such as 'nanochat'"),
        ([str(SAMPLES / "documented"), "--bytes-per-token", "0"], "positive number"),
    ]:
        found = CliRunner().invoke(app, ["collect", *arguments])
        assert isinstance(found.exception, InputError)
        assert part in str(found.exception)


def test_rows_of_a_table_are_selected_by_fit_and_check(tmp_path: Path) -> None:
    rows = [
        f"{n},{d},{1.6 + 400 / n**0.34 + 400 / d**0.28},{'finished' if n < 5e8 else 'crashed'}"
        for n in (1e7, 3e7, 1e8, 6e8)
        for d in (1e9, 4e9, 1.6e10)
    ]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["params,tokens,loss,outcome", *rows]) + "\n")
    found = CliRunner().invoke(app, ["check", str(path), "--where", "outcome==finished"])
    assert found.exit_code == 0
    assert "9 of 12 rows, where outcome==finished" in " ".join(found.output.split())
