"""Page of all parts in Markdown, from their JSON."""

from __future__ import annotations

from typing import Any


def page(found: dict[str, Any]) -> str:
    """Return the page: what ran where, and a section for each part with a table or its error."""
    lines = ["# First GPU", "", f"{found['device']}, torch {found['torch']}, {found['date']}.", ""]
    for name, part in found["parts"].items():
        lines += [f"## {part['title']}", "", f"{part['seconds']:.0f} s of at most {part['limit']:.0f}.", ""]
        lines += [f"Failed: {part['error']}", ""] if part.get("error") else []
        lines += list(_shown(part["result"])) if part.get("result") else []
        lines += ["", f"<!-- {name} -->", ""]
    return "\n".join(lines)


def _shown(result: dict[str, Any]) -> list[str]:
    """Return a result as a list of numbers, with a table for each part of it that has several rows."""
    flat = {key: value for key, value in result.items() if not isinstance(value, dict | list)}
    lines = [f"- {key}: {_number(value)}" for key, value in flat.items()]
    for key, value in result.items():
        if isinstance(value, list) and value:
            lines += ["", *_table({str(n): row for n, row in enumerate(value, 1)}, key)]
        elif isinstance(value, dict) and all(isinstance(row, dict) for row in value.values()):
            lines += ["", *_table(value, key)]
    rows = {key: value for key, value in result.items() if isinstance(value, dict) and not _nested(value)}
    return lines + (["", *_table(rows, "")] if rows else [])


def _nested(value: dict[str, Any]) -> bool:
    return bool(value) and all(isinstance(row, dict) for row in value.values())


def _table(rows: dict[str, dict[str, Any]], corner: str) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    head = [f"| {corner} | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    return head + [
        f"| {name} | {' | '.join(_number(row.get(column)) for column in columns)} |"
        for name, row in rows.items()
    ]


def _number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
