"""Docstrings open as language rules ask: with a verb or a noun phrase, not with a relative clause."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLEAN = ("scaling", "fits", "sweeps", "distlaw", "benchmarks")
"""Packages whose docstrings keep the rule."""
RIDDLE = re.compile(
    r"(?:What|Whether|How|Of|Those|Its|The same|Where|Which|That|From|Who|When|Why|By|As|For|With|Likewise)\b"
)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring, also of those that follow an attribute or a constant."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for child in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield child.lineno, child.value.value


@pytest.mark.parametrize("room", CLEAN)
def test_docstrings_name_the_thing_or_say_what_it_does(room: str) -> None:
    paths = sorted((ROOT / room).rglob("*.py"))
    assert paths, f"no such room: {room}"
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.strip().splitlines()[0]}"
        for path in paths
        for line, text in docstrings(path)
        if RIDDLE.match(text.strip())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("Return the loss.", False),
        ("Key-value cache of one layer.", False),
        ("Whatever it takes.", False),
        ("The samples.", False),
        ("What the law says.", True),
        ("Whether it fits.", True),
        ("The same in JSON.", True),
        ("Of the teacher, nats.", True),
    ],
)
def test_the_rule_tells_openings_apart(text: str, bad: bool) -> None:
    assert bool(RIDDLE.match(text)) == bad


def public_classes(path: Path) -> Iterator[str]:
    """Yield the names of the public classes of a module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def test_no_public_class_has_the_name_of_another() -> None:
    """One word, one meaning; requests over HTTP are named as what they ask about."""
    places: dict[str, list[str]] = {}
    for floor in ("scaling", "fits", "sweeps", "distlaw"):
        for path in sorted((ROOT / floor).rglob("*.py")):
            if path.parent != ROOT / "distlaw/serve":
                for name in public_classes(path):
                    places.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert len(places) > 200
    assert not {name: found for name, found in places.items() if len(found) > 1 and name != "Estimate"}
