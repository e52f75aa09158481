"""MkDocs hooks: insert generated text, run the commands shown, typeset the mathematics.

A page asks for generated text by a line ``<!-- insert: NAME ARGUMENT -->``. A block that opens with
```` ```console run ```` or ```` ```python run ```` holds one command, or Python that goes on from the page's
earlier blocks; what it prints here and now is inserted below it. ``console shown`` and ``console measured``
hold their outputs (``outputs.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

from calibration_pages import calibrations, statements
from command_pages import copy_figures, reference, run, run_python
from latex2mathml.converter import convert
from methods_page import methods
from mkdocs.config.defaults import MkDocsConfig
from schema_pages import fields, routes

from scaling.costs.scenarios import DESCRIPTIONS, SCENARIOS

ROOT = Path(__file__).parents[2]
INSERT = re.compile(r"^<!-- insert: (\S+) ?(.*?) -->$", re.MULTILINE)
RUN = re.compile(r"^```console run\n\$ (.+)\n```$", re.MULTILINE)
RUN_PYTHON = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATED = re.compile(r"^```console (?:shown|measured)$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\((?!https?://)([^)]+)\)")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):<code>~?(?:\w+\.)*")
NESTED = re.compile(r"^ {7}(?! )", re.MULTILINE)
"""Code in the items of a numbered list, which Python's Markdown wants one column further in."""
LITERAL = re.compile(r"::</p>")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return the page's text with its insertions and outputs."""
    names: dict[str, object] = {}
    markdown = INSERT.sub(lambda found: INSERTS[found[1]](found[2]), markdown)
    markdown = STATED.sub("```console", markdown)
    markdown = RUN.sub(lambda found: f"```console\n$ {found[1]}\n{run(found[1])}```", markdown)
    return RUN_PYTHON.sub(lambda found: _with_output(found[1], run_python(found[1], names)), markdown)


def _with_output(code: str, printed: str) -> str:
    return f"```python\n{code}```\n" + (f"\n```text\n{printed}```\n" if printed.strip() else "")


def on_post_build(config: MkDocsConfig, **_: object) -> None:
    """Copy the figures that the pages' commands and code drew into the site."""
    copy_figures(Path(config.site_dir) / "figures")


def on_page_content(html: str, **_: object) -> str:
    """Return the page with MathML in place of TeX, and docstrings without reStructuredText roles."""
    return LITERAL.sub(":</p>", ROLE.sub("<code>", MATHS.sub(_mathml, html)))


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    return str(convert(unescape(found[2]), display=display))


def readme(path: str) -> str:
    """Return a README of the repository without its title; links to files become their paths."""
    file = ROOT / path
    body = file.read_text().partition("\n")[2]

    def named(found: re.Match[str]) -> str:
        return f"{found[1]} (`{(file.parent / found[2]).resolve().relative_to(ROOT)}`)"

    return NESTED.sub(" " * 8, LINK.sub(named, body))


def results(_: str = "") -> str:
    """Return the result files of the benchmarks, with headings one level down."""
    files = sorted((ROOT / "benchmarks").glob("*_results.md"))
    return "\n\n".join(re.sub(r"^#", "##", file.read_text(), flags=re.MULTILINE) for file in files)


def notebooks(_: str = "") -> str:
    """Return a list of the notebooks, with the first paragraph of each."""
    lines = []
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title, _, rest = "".join(json.loads(file.read_text())["cells"][0]["source"]).partition("\n")
        lines.append(f"- **{title.lstrip('# ')}** (`{file.name}`). {rest.strip().partition(chr(10) * 2)[0]}")
    return "\n".join(lines)


def scenarios(_: str = "") -> str:
    """Return a table of the scenarios by name, words and shares."""
    rows = ["| name | words | logits | training |", "|---|---|---|---|"]
    rows += [
        f"| `{name}` | {DESCRIPTIONS[name]} | {each.logits:g} | {each.pretraining:g} |"
        for name, each in SCENARIOS.items()
    ]
    return "\n".join(rows)


def source(path: str) -> str:
    """Return a file of the repository as a block of code."""
    file = ROOT / path
    return f"```{file.suffix[1:]}\n{file.read_text().rstrip()}\n```"


INSERTS: dict[str, Callable[[str], str]] = {
    "calibrations": calibrations,
    "commands": reference,
    "methods": methods,
    "notebooks": notebooks,
    "readme": readme,
    "results": results,
    "routes": routes,
    "scenarios": scenarios,
    "source": source,
    "spec": fields,
    "statements": statements,
}
