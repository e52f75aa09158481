"""One grammar at every door: no text is two numbers at two doors, and what is printed is read back."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

import distlaw.commands.planner.plan
from distlaw.cli import app
from fits.table.runs import validate
from scaling import Calibration, InputError, Question
from scaling.planner.teacher_catalogue import parse_catalogue
from scaling.units import format_flops, format_number, format_power, format_quantity
from sweeps.spec.parsing.overrides import apply_overrides
from sweeps.spec.parsing.yaml_text import read_yaml
from sweeps.spec.spec import Grid

requests = pytest.importorskip("distlaw.serve.requests", reason="needs the extra serve")
NUMBERS_JS = Path(distlaw.__file__).parent / "serve" / "static" / "numbers.js"
FITTED = Calibration.load("hoffmann2022")
UNITS = {"tokens": "student_unique_tokens", "FLOPs": "budget"}
Door = Callable[[str, str], float]
"""Function from a text and its unit to the number that is read, or an InputError."""


class Asked(Exception):
    """Stops a command once it has its question."""


def given_to(name: str, text: str) -> dict[str, str]:
    """A question with ``text`` as its field ``name``."""
    return {"student_params": "1B", "budget": "1e21", "student_unique_tokens": "1B"} | {name: text}


def by_python(text: str, unit: str) -> float:
    return getattr(Question(**given_to(UNITS[unit], text)), UNITS[unit])


def by_http(text: str, unit: str) -> float:
    body = json.loads(json.dumps(given_to(UNITS[unit], text)))
    return getattr(requests.PlanRequest(**body).asked(FITTED), UNITS[unit])


def by_command(text: str, unit: str) -> float:
    option = {"tokens": "unique-tokens", "FLOPs": "budget"}[unit]

    def ask(question: Question, _: object) -> None:
        raise Asked(question)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distlaw.commands.planner.plan, "plan", ask)
        words = ["plan", "--student=1B", "--budget=1e21", f"--{option}={text}"]
        error = CliRunner().invoke(app, words).exception
    if not isinstance(error, Asked):
        assert isinstance(error, InputError), error
        raise error
    return getattr(error.args[0], UNITS[unit])


def by_catalogue(text: str, unit: str) -> float:
    if unit != "tokens":
        raise InputError("a catalogue has no FLOPs")
    table = io.StringIO()
    csv.writer(table).writerows([["name", "params", "tokens"], ["a", "1000", text]])
    (teacher,) = parse_catalogue(table.getvalue())
    return float(teacher.tokens or 0)


def by_table(text: str, unit: str) -> float:
    column = {"tokens": "tokens", "FLOPs": "compute"}[unit]
    frame = pd.DataFrame({"params": [1e9], "tokens": [2e10], "loss": [2.5]})
    frame[column] = pd.Series([text], dtype=object)
    read = validate(frame)
    if column not in read:
        raise InputError(f"{column}: its values are no compute, so the column is another one of that name")
    return float(read[column].iloc[0])


def grid(values: object, unit: str) -> float:
    try:
        return Grid.model_validate({"params": ["7k"], unit.lower(): values}).model_dump()[unit.lower()][0]
    except ValidationError as error:
        raise InputError(str(error)) from None


def by_spec(text: str, unit: str) -> float:
    return grid([text], unit)


def by_yaml(text: str, unit: str) -> float:
    return grid(read_yaml(f"- {text}\n", "x"), unit)


def by_set(text: str, unit: str) -> float:
    return grid(apply_overrides({}, [f"a[0]={text}"])["a"], unit)


DOORS: dict[str, Door] = {
    "python": by_python,
    "http": by_http,
    "command": by_command,
    "catalogue": by_catalogue,
    "spec": by_spec,
    "yaml": by_yaml,
    "set": by_set,
}


@pytest.fixture(scope="module")
def page() -> Iterator[Door]:
    """The page's reading, in node."""
    node = shutil.which("node")
    if not node:
        pytest.skip("needs node for the page's numbers")
    script = f"""
        import {{ read }} from "{NUMBERS_JS.as_uri()}";
        import {{ createInterface }} from "node:readline";
        createInterface({{ input: process.stdin }}).on("line", (line) => console.log(read(JSON.parse(line))));
    """
    command = [node, "--input-type=module", "--no-warnings", "-e", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def read(text: str, _: str) -> float:
            process.stdin.write(json.dumps(text) + "\n")
            process.stdin.flush()
            if (answer := process.stdout.readline().strip()) == "NaN":
                raise InputError("NaN")
            return float(answer)

        yield read
        process.stdin.close()


PARTS = """
0 1 5 10 20 000 500 010 . , _ e E21 e3 + - − k M m B b T G Z FLOP FLOPs tokens params : ^ x 0x inf nan ３ ٣ ² ( )
1e21 0.32 # yes ' [ ]
"""
PIECES = st.sampled_from([*PARTS.split(), " ", "\u00a0", " (", "\u212a"])
TEXTS = st.lists(PIECES, min_size=1, max_size=6).map("".join) | st.text(max_size=8)
SLOWLY = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def readings(text: str, unit: str, doors: dict[str, Door]) -> dict[str, float]:
    """Numbers that each entry point reads, without those that reject the text."""
    found = {}
    for name, door in doors.items():
        try:
            found[name] = door(text, unit)
        except InputError:
            continue
    return found


@settings(SLOWLY, max_examples=200)
@given(text=TEXTS, unit=st.sampled_from([*UNITS]))
def test_no_text_is_two_numbers_at_two_doors(text: str, unit: str, page: Door) -> None:
    found = readings(text, unit, {**DOORS, "table": by_table, "page": page})
    assert len(set(found.values())) <= 1, found


@SLOWLY
@given(value=st.floats(1e3, 1e30), digits=st.integers(1, 6))
def test_what_is_printed_is_read_back_at_every_door(value: float, digits: int, page: Door) -> None:
    exact, rounded = float(f"{value:.{digits}g}"), float(f"{value:.3g}")
    for unit, text, number in (
        ("tokens", format_number(value, digits), exact),
        ("tokens", format_power(value, digits), exact),
        ("FLOPs", format_power(value, digits), exact),
        ("tokens", format_quantity(value, "tokens"), rounded),
        ("FLOPs", format_flops(value), rounded),
    ):
        doors = {name: door for name, door in DOORS.items() if unit == "tokens" or name != "catalogue"}
        found = readings(text, unit, {**doors, "page": page})
        assert found == dict.fromkeys([*doors, "page"], number), text


@pytest.mark.parametrize(
    "text", ["0,3B", "1,5e21", "1,500", "010", "0x10", "1_5", "20:1", "３B", "inf", "nan"]
)
def test_what_may_mean_another_number_is_refused_at_every_door(text: str, page: Door) -> None:
    assert readings(text, "tokens", {**DOORS, "page": page}) == {}
