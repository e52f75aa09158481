"""JSON whose objects name each key once: of two values for one name a reader would silently drop one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scaling.errors import InputError


def refuse_duplicate_keys(where: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Return an ``object_pairs_hook`` for :func:`json.loads` that raises :class:`InputError` for others.

    >>> import json
    >>> json.loads('{"budget": 1e21}', object_pairs_hook=refuse_duplicate_keys("question"))
    {'budget': 1e+21}
    """

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{where} has the key {twice!r} twice")
        return found

    return build
