"""``make outputs``: print anew what README and docs show of commands, in place, and show the difference.

The fence of a block of shell says where its output comes from:

- ```` ```console run ````: holds no output; it is inserted when the site is built (pages of ``docs/`` only);
- ```` ```console shown ````: the output below the command is renewed here and compared by the tests;
- ```` ```console measured ````: likewise, but it takes long or depends on the machine, so that it is renewed
  only by ``make outputs MEASURED=1``; the text around it says when and where it was measured;
- ```` ```console ````: commands alone.

A line ``...`` in an output stands for lines left out (:func:`shortened`). Where only times differ, the old
text is kept.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from command_pages import run  # noqa: E402

SHOWN, MEASURED = "shown", "measured"
BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "console", "bash", "sh", "shell", "text")
COMMAND = re.compile(r"(?:^\$ (?:.*\\\n)*.*\n)+", re.MULTILINE)
ELLIPSIS = re.compile(r"^\W*\.\.\.$")
TIME = re.compile(r"\b\d+(?:\.\d+)? (?:ms|s|min)\b")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
CLOSE = 0.005
"""Relative difference of numbers that another processor may print."""


def texts() -> list[Path]:
    """Return README, CONTRIBUTING, all pages of the docs, and the READMEs of the packages."""
    floors = ("scaling", "fits", "sweeps", "distlaw")
    return [
        *sorted((ROOT / "docs").rglob("*.md")),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *sorted(path for floor in floors for path in (ROOT / floor).rglob("README.md")),
    ]


def blocks(markdown: str, *kinds: str) -> Iterator[tuple[str, str]]:
    """Yield the commands and the output of each block whose fence says one of ``kinds``."""
    for block in BLOCK.finditer(markdown):
        if block["info"].split()[1:] in [[kind] for kind in kinds]:
            yield _split(block["body"])


def unmarked(markdown: str) -> list[str]:
    """Return the blocks of shell that hold output and whose fence does not say where it comes from."""
    plain = [block["body"] for block in BLOCK.finditer(markdown) if block["info"].strip() in SHELL]
    return [body for body in plain if body.startswith("$ ") and COMMAND.sub("", body).strip()]


def renewed(markdown: str, *kinds: str) -> str:
    """Return ``markdown`` with the output of every block of ``kinds`` printed anew."""

    def replaced(block: re.Match[str]) -> str:
        if block["info"].split()[1:] not in [[kind] for kind in kinds]:
            return block[0]
        commands, old = _split(block["body"])
        new = shortened(printed(commands), old)
        kept = old if TIME.sub("", new) == TIME.sub("", old) else new
        return f"```{block['info']}\n{commands}{kept}```"

    return BLOCK.sub(replaced, markdown)


def printed(commands: str, execute: Callable[[str], str] = run) -> str:
    """Return what the ``$ distlaw ...`` lines print, one after the other."""
    lines = re.split(r"^\$ ", commands.replace("\\\n", " "), flags=re.MULTILINE)
    return "".join(execute(line.strip()) for line in lines if line.strip())


def shortened(new: str, old: str) -> str:
    """Return the lines of ``new`` that ``old`` shows: before, between and after its lines ``...``.

    As many lines as before are shown at the beginning and at the end. A passage between two ``...`` is found
    by its first line, whatever its numbers.

    Raises:
        ValueError: if there is no such line; the passage must then be chosen anew.
    """
    lines, shown = new.splitlines(), old.splitlines()
    marks = [i for i, line in enumerate(shown) if ELLIPSIS.match(line)]
    if not marks:
        return new
    tail = len(shown) - marks[-1] - 1
    found, end = lines[: marks[0]], marks[0]
    for mark, after in itertools.pairwise(marks):
        first = NUMBER.sub("#", shown[mark + 1])
        start = next((i for i in range(end, len(lines)) if NUMBER.sub("#", lines[i]) == first), None)
        if start is None:
            raise ValueError(f"no line like {shown[mark + 1]!r} in the output")
        end = start + after - mark - 1
        found += [shown[mark], *lines[start:end]]
    found += (
        [shown[marks[-1]], *lines[max(end, len(lines) - tail) :]] if len(lines) > end + tail else lines[end:]
    )
    return "".join(f"{line}\n" for line in found)


def agree(shown: str, now: str) -> bool:
    """Return True if two outputs have the same words, and numbers that differ by no more than rounding.

    Another processor may round the last digit of an estimate otherwise; times are not compared at all.
    """
    shown, now = TIME.sub("", shown), TIME.sub("", now)
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", now).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(now), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=CLOSE, abs_tol=1.01 * _unit(a)) for a, b in pairs)


def _unit(number: str) -> float:
    """Return the value of one in the last printed digit; 0 for whole numbers."""
    digits, _, exponent = number.partition("e")
    decimals = len(digits.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals else 0.0


def _split(body: str) -> tuple[str, str]:
    """Split a block into its commands and what stands below them."""
    commands = COMMAND.match(body)
    if commands is None:
        raise ValueError(f"a block whose output is shown begins with '$ distlaw ...', not {body[:60]!r}")
    return commands[0], body[commands.end() :]


def main() -> None:
    """Renew the outputs in place, and print what changed."""
    parser = argparse.ArgumentParser(description="Print anew what README and docs show of commands.")
    parser.add_argument("--measured", action="store_true", help="also those that depend on the machine")
    parser.add_argument("files", nargs="*", type=Path, help="only these; otherwise README and all pages")
    given = parser.parse_args()
    kinds = (SHOWN, MEASURED) if given.measured else (SHOWN,)
    changed = 0
    for path in map(Path.resolve, given.files or texts()):
        old = path.read_text()
        new = renewed(old, *kinds)
        name = str(path.relative_to(ROOT))
        sys.stdout.writelines(
            difflib.unified_diff(
                old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name}, now"
            )
        )
        if new != old:
            path.write_text(new)
            changed += 1
    print(f"{changed} files changed" if changed else "All outputs are as shown")  # noqa: T201


if __name__ == "__main__":
    main()
