"""YAML in which a value is what its text says, for specs, methods and ``--set`` alike.

Plain YAML 1.1 reads ``010`` as 8, ``20:1`` as 1201, ``1_5`` as 15, ``no`` as false and ``1e21`` as a text.
Here only decimal numbers, ``true``, ``false`` and ``null`` are more than text; fields that hold numbers read
their text by the grammar of :mod:`scaling.units`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import yaml

from scaling.errors import InputError
from scaling.units import check_comma

MOST_CHARACTERS, MOST_VALUES = 1_000_000, 100_000
"""Of a document, and of what it stands for once aliases and merges are written out."""
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
    """Safe YAML without surprises: no octal or base 60, no key twice, no decimal comma in a list."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as PyYAML declares it)
        None: [(tag, re.compile(rf"(?:{pattern})$")) for tag, pattern in _PATTERNS.items()]
    }

    def get_single_node(self) -> yaml.Node | None:
        """Return the document's node; one that aliases blow up beyond all use is an error."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None and (count := _expanded(node, {})) > MOST_VALUES:
            more = f"{count:,}" if count <= 10 * MOST_VALUES else f"more than {10 * MOST_VALUES:,}"
            raise yaml.constructor.ConstructorError(
                problem=f"with its aliases written out it has {more} values, at most {MOST_VALUES:,} are read"
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
                problem=f"{text!r} is no decimal number", problem_mark=node.start_mark
            )
        return int(text) if tag == _INT else float(text)


_Loader.add_constructor(_INT, _Loader._number)
_Loader.add_constructor(_FLOAT, _Loader._number)


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for, each alias counted as a copy; ``known`` holds those found."""
    if id(node) not in known:
        known[id(node)] = 10 * MOST_VALUES + 1  # until it is known: a node that holds itself has no end
        parts = [node.value] if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [list(pair) for pair in node.value]
        known[id(node)] = 1 + sum(_expanded(each, known) for part in parts for each in part)
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
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{where}: {len(text):,} characters, at most {MOST_CHARACTERS:,} are read")
    try:
        return yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
