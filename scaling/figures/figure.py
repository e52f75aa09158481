"""A Matplotlib figure that shows itself in a notebook and writes itself to files, without pyplot."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib import figure

from scaling.errors import InputError
from scaling.figures.style import is_dark, style

SUFFIXES = (".png", ".svg", ".pdf")
UNDATED: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
DPI, NOTEBOOK_DPI = 300, 144
"""Dots per inch of files, for print, and of notebooks, which show them at half their size."""


class Figure(figure.Figure):
    """Matplotlib figure that a notebook shows as SVG or PNG and that is written in its own style."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.dark = is_dark()

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Save the figure; parts made while drawing, such as ticks, have its style too."""
        with style(self.dark):
            super().savefig(*arguments, **options)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = (round(NOTEBOOK_DPI / 2 * side) for side in self.get_size_inches())
        return self._written("png"), {"width": width, "height": height}

    def _repr_svg_(self) -> str:
        return self._written("svg").decode()

    def _written(self, suffix: str) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format=suffix, dpi=NOTEBOOK_DPI, metadata=UNDATED.get(f".{suffix}"))
        return buffer.getvalue()

    def write(self, path: str | Path, option: str = "--out") -> Path:
        """Write a .png, .svg or .pdf file, the same bytes for the same figure.

        Raises:
            InputError: naming the ``option``, for another suffix or a place that cannot be written.
        """
        path = Path(path)
        if path.suffix not in SUFFIXES:
            raise InputError(
                f"{option} {path}: a figure is a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file"
            )
        try:
            self.savefig(path, dpi=DPI, metadata=UNDATED.get(path.suffix))
        except (OSError, ValueError) as error:
            raise InputError(f"{option} {path}: cannot write the figure: {error}") from None
        return path
