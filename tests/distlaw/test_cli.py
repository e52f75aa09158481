"""Commands are found where ``distlaw`` lists them, and mistyped ones are answered with the one meant."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from distlaw.cli import COMMANDS, app


def test_every_listed_module_registers_its_command() -> None:
    group = typer.main.get_command(app)
    found = [group.get_command(None, name).name for name in COMMANDS]
    assert found == list(COMMANDS) == group.list_commands(None)
    assert set(group.commands) == set(COMMANDS)  # and registers none that is not listed


def test_a_mistyped_command_is_answered_with_the_one_meant() -> None:
    result = CliRunner().invoke(app, ["compare-law"])
    assert result.exit_code == 2
    assert "compare-laws" in result.output
