"""HTML of results for a notebook: a headline, a table, warnings, and the rest folded away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MARKS = {"!": "Warnings", "~": "Ranges", "-": "Assumptions"}
"""Heading of the notes that begin with a character."""
Table = tuple[Sequence[str], Iterable[Sequence[str]]]


def html_answer(headline: str, paragraphs: Iterable[str], table: Table, notes: Iterable[str] = ()) -> str:
    """Return a result as HTML; notes begin with one of ``MARKS``, and those that do not warn are folded."""
    texts = "".join(f"<p>{escape(text)}</p>" for text in paragraphs)
    lines = list(notes)
    lists = "".join(_marked(title, mark, lines) for mark, title in MARKS.items())
    return f"<p><b>{escape(headline)}</b></p>{texts}{html_table(*table)}{lists}"


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with its first column to the left; it scrolls where it is too wide."""
    head = "".join(_cell("th", cell, k) for k, cell in enumerate(header))
    body = "".join(f"<tr>{''.join(_cell('td', cell, k) for k, cell in enumerate(row))}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="overflow-x:auto">{table}</div>'


def html_list(title: str, items: Iterable[str], folded: bool = False) -> str:
    """Return a heading and a list, which opens at a click if ``folded``; nothing for an empty list."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    if not lines:
        return ""
    if folded:
        return f"<details><summary>{escape(title)}</summary><ul>{lines}</ul></details>"
    return f"<p><b>{escape(title)}</b></p><ul>{lines}</ul>"


def _cell(tag: str, text: str, column: int) -> str:
    side = "right" if column else "left"
    return f'<{tag} style="text-align:{side};white-space:nowrap">{escape(text)}</{tag}>'


def _marked(title: str, mark: str, lines: Iterable[str]) -> str:
    items = [line.removeprefix(mark).strip() for line in lines if line.startswith(mark)]
    return html_list(title, items, folded=mark != "!")
