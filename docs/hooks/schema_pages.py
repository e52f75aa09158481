"""Fields of a sweep's spec and of the HTTP API's questions, from their Pydantic models."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from distlaw.serve.api import create_app
from sweeps.spec.spec import Sweep

QUANTITIES = ("A quantity such as", "A number, or a text such as")
"""First words of the descriptions of quantities."""
LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
ENORMOUS = 1e9
"""Larger limits are guards against absurd values, of no interest to a reader."""


def fields(_: str = "") -> str:
    """Return a table for each part of a spec: fields, types, defaults and meanings."""
    schema = Sweep.model_json_schema()
    parts = {"Sweep": schema, **schema["$defs"]}
    return "\n".join(line for name, part in parts.items() for line in _part(name, part))


def routes(_: str = "") -> str:
    """Return a section for each route: its answer, and the fields of its question."""
    with patch("distlaw.serve.api.Workers"):  # no process is needed to describe them
        schema = create_app().openapi()
    lines = []
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            lines += [f"## {method.upper()} {path}", "", route["description"], ""]
            body = route.get("requestBody", {"content": {"application/json": {"schema": {}}}})
            asked = body["content"]["application/json"]["schema"]
            if "$ref" in asked:
                lines += _table(schema["components"]["schemas"][_referred(asked)])
    return "\n".join(lines)


def _part(name: str, part: dict[str, Any]) -> list[str]:
    forms = part.get("anyOf", [part])
    names = [f"Or a name: {_type(form)}.\n" for form in forms if "enum" in form]
    part = next(form for form in forms if "properties" in form)
    return [f"## {name}", "", part.get("description", "").split("\n\n")[0], "", *names, *_table(part)]


def _table(part: dict[str, Any]) -> list[str]:
    required = part.get("required", [])
    rows = [
        f"| `{field}` | {_type(of)} | {'required' if field in required else _default(of)} | {_meaning(of)} |"
        for field, of in part["properties"].items()
    ]
    return ["| field | takes | default | meaning |", "|---|---|---|---|", *rows, ""]


def _referred(of: dict[str, Any]) -> str:
    return str(of["$ref"].rpartition("/")[2])


def _type(of: dict[str, Any]) -> str:
    if "$ref" in of:
        name = _referred(of)
        return f"[{name}](#{name.lower()})"
    if of.get("format") == "quantity" or of.get("description", "").startswith(QUANTITIES):
        return "quantity"
    if choices := of.get("anyOf") or of.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(each) for each in choices if each.get("type") != "null"))
    if "enum" in of:
        return ", ".join(f"`{value}`" for value in of["enum"])
    if "const" in of:
        return f"`{of['const']}`"
    if "prefixItems" in of:
        return f"[{', '.join(map(_type, of['prefixItems']))}]"
    if of["type"] == "array":
        return f"list of {_type(of['items'])}"
    limits = [f"{sign} {of[key]:g}" for key, sign in LIMITS.items() if key in of and of[key] < ENORMOUS]
    kind = of["type"] if isinstance(of["type"], str) else of["type"][0]  # a number may be written as text
    return " ".join([kind, ", ".join(limits)]).strip()


def _default(of: dict[str, Any]) -> str:
    default = of.get("default")
    if default is None or default == {}:
        return ""
    return "its defaults" if "{" in (text := json.dumps(default)) else f"`{text}`"


def _meaning(of: dict[str, Any]) -> str:
    text = of.get("description", "")
    text = "" if text.startswith(QUANTITIES) else text
    return " ".join(text.split()).replace(":mod:", "").replace("|", "\\|")
