"""Changes to a spec from the command line: ``students[0].params=[10k,30k]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from scaling.errors import InputError
from sweeps.spec.synonyms import our_name, with_our_names
from sweeps.spec.yaml_text import read_yaml

_PART = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d+)\]|\.(\d+)")


def override(spec: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """A copy of ``spec`` with the value at each ``PATH=VALUE`` in the place of what was there.

    Paths are fields and numbers in lists, which may also be the next after the last; a field of a list is
    that of all its items. Values are YAML. What is not there is made; whether it may be is judged when the
    spec is validated.

    Raises:
        InputError: for what is no path or value, or a path through what is no field or list.
    """
    for text in texts:
        path, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"--set: write FIELD=VALUE, such as students[0].params=[10k,30k], not {text!r}")
        spec = _changed(spec, _parts(path), read_yaml(value, f"--set {path}"), path)
    return spec


def _parts(path: str) -> list[str | int]:
    parts: list[str | int] = []
    place = 0
    while place < len(path):
        if not (match := _PART.match(path, place)):
            raise InputError(
                f"--set: {path!r} is no field, such as training.learning_rate or students[0].params"
            )
        parts.append(match[1] or int(match[2] or match[3]))
        place = match.end()
    return parts


def _changed(old: Any, parts: list[str | int], value: Any, path: str, field: str = "") -> Any:
    if not parts:
        return value
    first, *rest = parts
    if isinstance(first, str):
        if isinstance(old, list) and old:
            return [_changed(item, parts, value, path, field) for item in old]
        if not isinstance(old, dict | None):
            raise InputError(f"--set {path}: {first} is looked for in {old!r}, which has no fields")
        try:
            fields, name = with_our_names(field, old or {}), our_name(field, first)
        except ValueError as error:
            raise InputError(f"--set {path}: {error}") from None
        fields[name] = _changed(fields.get(name), rest, value, path, name)
        return fields
    if not isinstance(old, list | None) or first > len(old or []):
        raise InputError(f"--set {path}: there is no [{first}] in {old!r}")
    items: list[Any] = [*(old or [])]
    items[first : first + 1] = [
        _changed(items[first] if first < len(items) else None, rest, value, path, "item")
    ]
    return items
