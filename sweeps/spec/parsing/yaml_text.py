"""Strict YAML for specs, methods and ``--set``.

Plain YAML 1.1 reads ``010`` as 8, ``20:1`` as 1201, ``1_5`` as 15, ``no`` as false and ``1e21`` as text. Here
everything but decimal numbers, ``true``, ``false`` and ``null`` is text, and numeric fields parse text by the
grammar of :mod:`scaling.units`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import yaml

from scaling.errors import InputError
from scaling.units import check_comma

MAX_CHARACTERS, MAX_VALUES = 1_000_000, 100_000
"""Largest size of a document, and largest number of values after expansion of aliases and merges."""
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_BOOL, _NULL, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("bool", "null", "merge"))
_PATTERNS = {
    _INT: r"[-+]?(?:0|[1-9][0-9]*)",
    _FLOAT: r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?",
    _BOOL: r"true|True|TRUE|false|False|FALSE",
    _NULL: r"null|Null|NULL|~|",
    _MERGE: r"<<",
}


class _Loader(yaml.SafeLoader):
    """Safe YAML loader without octal and base-60 numbers, duplicate keys, and decimal commas in lists."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as PyYAML declares it)
        None: [(tag, re.compile(rf"(?:{pattern})$")) for tag, pattern in _PATTERNS.items()]
    }

    def get_single_node(self) -> yaml.Node | None:
        """Return the document's node; one whose aliases expand to too many values is an error."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None and (count := _count_values(node, {})) > MAX_VALUES:
            more = f"{count:,}" if count <= 10 * MAX_VALUES else f"more than {10 * MAX_VALUES:,}"
            raise yaml.constructor.ConstructorError(
                problem=f"with its aliases expanded it has {more} values; at most {MAX_VALUES:,} are accepted"
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of ``node``; a key given twice is an error."""
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(
                    problem=f"{key!r} is given twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep=deep)

    def construct_sequence(self, node: yaml.SequenceNode, deep: bool = False) -> list[Any]:
        """Return the list of ``node``; ``[1,5k]`` is an error, ``[1, 5k]`` is not."""
        for left, right in pairwise(node.value if node.flow_style else ()):
            adjacent = right.start_mark.index - left.end_mark.index == 1
            if adjacent and _is_plain(left) and _is_plain(right):
                _check_comma(left, right)
        return super().construct_sequence(node, deep=deep)

    def _number(self, node: yaml.ScalarNode) -> int | float:
        text = self.construct_scalar(node)
        tag = _INT if node.tag == _INT else _FLOAT
        if not re.fullmatch(_PATTERNS[tag], text):
            raise yaml.constructor.ConstructorError(
                problem=f"{text!r} is not a decimal number", problem_mark=node.start_mark
            )
        return int(text) if tag == _INT else float(text)


_Loader.add_constructor(_INT, _Loader._number)
_Loader.add_constructor(_FLOAT, _Loader._number)


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values of a node with aliases expanded; ``known`` caches counts by node."""
    if id(node) not in known:
        known[id(node)] = 10 * MAX_VALUES + 1  # until it is known, as a node that contains itself is endless
        parts = [node.value] if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [list(pair) for pair in node.value]
        known[id(node)] = 1 + sum(_count_values(each, known) for part in parts for each in part)
    return known[id(node)]


def _is_plain(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style


def _check_comma(left: yaml.ScalarNode, right: yaml.ScalarNode) -> None:
    try:
        check_comma(left.value, right.value, "list")
    except InputError as error:
        raise yaml.constructor.ConstructorError(problem=str(error), problem_mark=left.start_mark) from None


def read_yaml(text: str, where: str) -> Any:
    """Read the values of one YAML document.

    Args:
        text: The document.
        where: Names it in errors.

    Raises:
        InputError: For what is not YAML, a key given twice, and lists whose comma may be a decimal comma.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{where}: {len(text):,} characters; at most {MAX_CHARACTERS:,} are accepted")
    try:
        return yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
