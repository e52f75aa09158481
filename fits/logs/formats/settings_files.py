"""Settings in JSON or YAML files, under dotted names."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from fits.logs.formats.json_files import load_json
from fits.logs.run_log import flatten
from scaling.errors import InputError

MAX_SETTINGS = 10_000
"""Most values of a file that are kept, as aliases in YAML can multiply them without end."""
YAML_SUFFIXES = (".yaml", ".yml")


def read_settings(path: Path) -> dict[str, Any]:
    """Return the values of a file; none if it does not hold an object.

    Raises:
        InputError: for a file that is neither JSON nor YAML.
    """
    found = load_yaml(path) if path.suffix in YAML_SUFFIXES else load_json(path)
    return dict(islice(flatten(found), MAX_SETTINGS)) if isinstance(found, dict) else {}


def load_yaml(path: Path) -> Any:
    """Return the content of a YAML file, every scalar as its text: 010 is not octal, 1e-3 no word.

    Raises:
        InputError: for a file that is no YAML.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  (makes texts, lists and mappings only)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise InputError(f"{path}: not YAML") from None
