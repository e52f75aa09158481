"""The public names: each has an example that is true, and functions say what they take, return and raise."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import fits
import scaling
import sweeps
from fits.estimation.model import COORDINATES, SUPERVISED_COORDINATES
from scaling.laws.registry import LAWS, SUPERVISED_LAWS

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PUBLIC = {
    f"{floor.__name__}.{name}": found
    for floor in (scaling, fits, sweeps)
    for name in floor.__all__
    if inspect.isclass(found := getattr(floor, name)) or inspect.isfunction(found)
}
FUNCTIONS = {name: found for name, found in PUBLIC.items() if inspect.isfunction(found)}


@pytest.fixture(autouse=True)
def no_law_stays_registered() -> Iterator[None]:
    tables: list[dict[str, Any]] = [LAWS, COORDINATES, SUPERVISED_LAWS, SUPERVISED_COORDINATES]
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def examples(found: Any, name: str) -> list[doctest.DocTest]:
    module: ModuleType | None = inspect.getmodule(found)
    assert module is not None
    return [each for each in doctest.DocTestFinder().find(found, name, module, vars(module)) if each.examples]


def test_there_are_some() -> None:
    assert len(PUBLIC) >= 40
    assert len(FUNCTIONS) >= 15


@pytest.mark.parametrize("name", PUBLIC)
def test_the_examples_are_true(name: str) -> None:
    found = examples(PUBLIC[name], name)
    assert found, f"{name} has no example"
    for each in found:
        said: list[str] = []
        failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(each, out=said.append)
        assert not failed, "".join(said)


def test_the_examples_of_a_loaded_sweep_are_true() -> None:
    (found,) = examples(sweeps.api.LoadedSweep.plan, "plan")
    assert not doctest.DocTestRunner(optionflags=FLAGS).run(found).failed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_they_take_and_return(name: str) -> None:
    """One style (Google's): every argument is named, and so is what is raised."""
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    section = text.partition("Args:\n")[2].partition("\n\n")[0]
    told = re.findall(r"^    (\w+): ", section, re.MULTILINE)
    assert told == list(parameters)
    assert "Returns:\n" in text or text.startswith("Return ")
    assert "Raises InputError" not in text
    assert "Raises :class:" not in text
