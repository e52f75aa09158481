"""``sweep plan`` says which precision is faster on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distlaw.cli import app
from sweeps.estimate.probes import precision_probe
from sweeps.estimate.probes.precision_probe import PrecisionSpeed

SETTINGS = [
    *("--set", "supervised[0].params=[5k]", "--set", "teachers=[]", "--set", "students=[]"),
    *("--set", "supervised[0].tokens=[1M]"),
]


def test_the_faster_precision_is_named_with_its_spread() -> None:
    lines = [
        str(PrecisionSpeed(400_000, *ratios)) for ratios in ((1.5, 1.4, 1.6), (0.5, 0.4, 0.8), (1, 0.9, 1.1))
    ]
    assert lines == [
        "bf16 trains 1.5 times as fast as fp32 on this machine (1.40 to 1.60; plain PyTorch at 400K parameters)",
        "fp32 trains 2.0 times as fast as bf16 on this machine (1.25 to 2.50; plain PyTorch at 400K parameters)",
        "bf16 and fp32 train equally fast on this machine (ratio 1.00; plain PyTorch at 400K parameters)",
    ]


def test_a_plan_measures_the_precisions_once_and_warns_of_a_slow_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(step: object) -> PrecisionSpeed:
        measured.append(1)
        return real(step)  # type: ignore[arg-type]

    real = precision_probe._measure
    monkeypatch.setattr(precision_probe, "_measure", measure)
    monkeypatch.setattr(precision_probe, "cache_dir", lambda: tmp_path)
    command = ["sweep", "plan", "quickstart", "--store", str(tmp_path / "store"), *SETTINGS]
    for _ in range(2):
        found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert len(measured) == 1
    assert found["precision"]["lowest"] <= found["precision"]["ratio"] <= found["precision"]["highest"]
    (memo,) = (tmp_path / "throughput").glob("precision-*.json")
    memo.write_text(json.dumps({"params": 5000, "ratio": 0.7, "lowest": 0.6, "highest": 0.8}))
    text = CliRunner().invoke(app, [*command, "--set", "training.precision=bf16"]).stdout
    assert "fp32 trains 1.4 times as fast as bf16" in text
    assert "! precision: bf16 is slower than fp32 on this machine" in text
    plain = CliRunner().invoke(app, command).stdout
    assert "! precision" not in plain
