"""Planning and fitting stay light, and what is missing is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "ray", "transformers", "tokenizers", "fastapi", "uvicorn"}


def loaded_by(code: str) -> set[str]:
    script = (
        f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import scaling", HEAVY | {"pandas", "matplotlib", "typer", "pydantic", "fsspec"}),
        ("import fits", HEAVY | {"typer", "fsspec"}),
        ("import distlaw.cli", HEAVY | {"pandas", "matplotlib", "pydantic", "fsspec"}),
        (
            "import distlaw.cli\nfrom typer.testing import CliRunner\n"
            "result = CliRunner().invoke(distlaw.cli.app, ['plan', '--student', '1B', '--budget', '1e21'])\n"
            "assert result.exit_code == 0, result.output",
            HEAVY | {"pandas", "matplotlib", "fsspec"},  # Typer reads options with pydantic
        ),
    ],
    ids=["scaling", "fits", "distlaw", "distlaw plan"],
)
def test_light_imports(code: str, absent: set[str]) -> None:
    loaded = loaded_by(code)
    assert "numpy" in loaded or "distlaw" in code
    assert not loaded & absent


def test_a_missing_extra_is_named() -> None:
    """Without ray, planning works and a sweep says what to install."""
    hide = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'ray' else find(name, *rest)\n"
        "sys.modules['ray'] = None\n"
    )
    call = "sys.argv = ['distlaw', 'sweep', 'plan', 'quickstart']\nfrom distlaw.cli import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", hide + call], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "error: sweeps need ray: pip install 'distlaw[sweeps]'"
