"""The base install at the lowest versions that pyproject.toml declares: every kind of command answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "sweeps" / "presets" / "permissive.csv"
OFFLINE = re.compile(r"NameResolution|NewConnectionError|ConnectTimeout|Network is unreachable|ProxyError")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 12), reason="versions this old have wheels up to Python 3.11"),
]


def lowest_pins() -> list[str]:
    """The base dependencies, each at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [re.fullmatch(r"([\w.-]+)>=([\d.]+)", each) for each in project["dependencies"]]
    assert all(pins), project["dependencies"]
    return [f"{pin[1]}=={pin[2]}" for pin in pins if pin]


@pytest.fixture(scope="module")
def distlaw(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Runs a command of an installation in an environment of its own, and returns what it prints."""
    place = tmp_path_factory.mktemp("lowest")
    venv.create(place / "env", with_pip=True)
    binaries = place / "env" / "bin"
    install = [
        binaries / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--prefer-binary",
        *lowest_pins(),
        ROOT,
    ]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode and OFFLINE.search(done.stderr):
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(arguments: str) -> str:
        command = [binaries / "distlaw", *arguments.split()]
        answer = subprocess.run(command, capture_output=True, text=True, cwd=place, env=clean)
        assert answer.returncode == 0, f"{arguments}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    shutil.copy(RUNS, place / "runs.csv")
    return run


@pytest.mark.parametrize(
    "command", ["", "plan", "fit", "plot", "sweep", "sweep plan", "serve", "compare-methods"]
)
def test_help_is_printed(distlaw: Callable[[str], str], command: str) -> None:
    assert "Usage: " in distlaw(f"{command} --help")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("plan --student 300M --budget 1e21", "300M student"),
        ("plan --student 1B --budget 1e20:1e22 --plot frontier.png --json", '"budgets"'),
        ("predict --student 1B --tokens 20:1", "1B student, 20B tokens"),
        ("compare --student 1B --budget 1e22", "nats/token"),
        ("calibrations hoffmann2022", "hoffmann2022"),
        ("plot scenarios --out scenarios.svg", "scenarios.svg"),
        ("check runs.csv", "168 distillation"),
        (f"fit {RUNS} --out mine.json --plots figures", "mine: 41 supervised"),
        ("plan --calibration mine.json --student 1M --budget 1e15", "1M student"),
        ("plot residuals runs.csv --out residuals.png", "residuals.png"),
    ],
)
def test_it_plans_fits_and_plots(distlaw: Callable[[str], str], command: str, words: str) -> None:
    assert words in distlaw(command)
