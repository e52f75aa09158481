"""The fields of a sweep's spec, from its Pydantic models."""

from __future__ import annotations

import json
from typing import Any

from sweeps.spec import Sweep

QUANTITY = ["number", "string"]
LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
ENORMOUS = 1e9
"""Limits beyond are there against nonsense and say nothing to a reader."""


def fields(_: str = "") -> str:
    """A table a part: its fields, what they take, their default and meaning."""
    schema = Sweep.model_json_schema()
    parts = {"Sweep": schema, **schema["$defs"]}
    return "\n".join(line for name, part in parts.items() for line in _part(name, part))


def _part(name: str, part: dict[str, Any]) -> list[str]:
    forms = part.get("anyOf", [part])
    names = [f"Or a name: {_type(form)}.\n" for form in forms if "enum" in form]
    part = next(form for form in forms if "properties" in form)
    required = part.get("required", [])
    rows = [
        f"| `{field}` | {_type(of)} | {'required' if field in required else _default(of)} | {_meaning(of)} |"
        for field, of in part["properties"].items()
    ]
    head = ["| field | takes | default | meaning |", "|---|---|---|---|"]
    return [f"## {name}", "", part.get("description", "").split("\n\n")[0], "", *names, *head, *rows, ""]


def _type(of: dict[str, Any]) -> str:
    if "$ref" in of:
        name = of["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := of.get("anyOf") or of.get("oneOf"):
        return " or ".join(_type(each) for each in choices if each.get("type") != "null")
    if "enum" in of:
        return ", ".join(f"`{value}`" for value in of["enum"])
    if "const" in of:
        return f"`{of['const']}`"
    if of["type"] == "array":
        return f"list of {_type(of['items'])}"
    kind = "quantity" if of["type"] == QUANTITY else of["type"]
    limits = [f"{sign} {of[key]:g}" for key, sign in LIMITS.items() if key in of and of[key] < ENORMOUS]
    return " ".join([kind, ", ".join(limits)]).strip()


def _default(of: dict[str, Any]) -> str:
    default = of.get("default")
    if default is None:
        return ""
    return "its defaults" if "{" in (text := json.dumps(default)) else f"`{text}`"


def _meaning(of: dict[str, Any]) -> str:
    text = of.get("description", "")
    text = "" if text.startswith("A quantity such as") else text
    return " ".join(text.split()).replace(":mod:", "").replace("|", "\\|")
