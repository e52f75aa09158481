"""Options that are numbers follow the grammar of quantities: what it refuses is refused."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from distlaw.cli import app
from distlaw.commands.fit import _delta, _numbers
from scaling.errors import InputError


@pytest.mark.parametrize("option", ["--context", "--vocab", "--aspect-ratio", "--count"])
@pytest.mark.parametrize("text", ["1_5", "010", "4k", "1,5", "nan"])
def test_options_refuse_what_the_grammar_refuses(option: str, text: str) -> None:
    asked = ["plan", "--student", "1B", "--budget", "1e21", "--gpu", "h100", option, text]
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 2
    assert option in ran.output and text in ran.output


@pytest.mark.parametrize("text", ["1_6", "01.6", "nan", "two"])
def test_fit_refuses_coefficients_and_delta_outside_the_grammar(text: str) -> None:
    with pytest.raises(InputError, match="--fix E"):
        _numbers("--fix", f"E={text}")
    with pytest.raises(InputError, match="--delta"):
        _delta(text)


def test_fit_reads_coefficients_and_delta() -> None:
    assert _numbers("--fix", "E=1.69,k=1.4") == {"E": 1.69, "k": 1.4}
    assert (_delta("1e-3"), _delta("auto"), _delta("inf")) == (1e-3, "auto", float("inf"))
