"""Changes to a spec from the command line: ``students[0].params=[10k,30k]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from scaling.errors import InputError
from sweeps.spec.parsing.synonyms import canonical_name, with_canonical_names
from sweeps.spec.parsing.yaml_text import read_yaml

_PART = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d+)\]|\.(\d+)")


def apply_overrides(spec: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``spec`` with the value of each ``PATH=VALUE`` set.

    Paths are fields and list indices, of which the next after the last appends; a field of a list is set in
    all its items. Values are YAML. Missing fields are created, and rejected when the spec is validated if
    they do not exist.

    Raises:
        InputError: for an invalid path or value, or a path through a value without fields.
    """
    for text in texts:
        path, sign, value = text.partition("=")
        if not sign:
            raise InputError(
                f"--set: expected FIELD=VALUE, such as students[0].params=[10k,30k], not {text!r}"
            )
        spec = _with_value(spec, _path_parts(path), read_yaml(value, f"--set {path}"), path)
    return spec


def _path_parts(path: str) -> list[str | int]:
    parts: list[str | int] = []
    place = 0
    while place < len(path):
        if not (match := _PART.match(path, place)):
            raise InputError(
                f"--set: {path!r} is not a field, such as training.learning_rate or students[0].params"
            )
        parts.append(match[1] or int(match[2] or match[3]))
        place = match.end()
    return parts


def _with_value(old: Any, parts: list[str | int], value: Any, path: str, field: str = "") -> Any:
    if not parts:
        return value
    first, *rest = parts
    if isinstance(first, str):
        if isinstance(old, list) and old:
            return [_with_value(item, parts, value, path, field) for item in old]
        if not isinstance(old, dict | None):
            raise InputError(f"--set {path}: {old!r} has no field {first}")
        try:
            fields, name = with_canonical_names(field, old or {}), canonical_name(field, first)
        except ValueError as error:
            raise InputError(f"--set {path}: {error}") from None
        name, *inner = name.split(".")
        fields[name] = _with_value(fields.get(name), [*inner, *rest], value, path, name)
        return fields
    if not isinstance(old, list | None) or first > len(old or []):
        raise InputError(f"--set {path}: {old!r} has no item [{first}]")
    items: list[Any] = [*(old or [])]
    items[first : first + 1] = [
        _with_value(items[first] if first < len(items) else None, rest, value, path, "item")
    ]
    return items
