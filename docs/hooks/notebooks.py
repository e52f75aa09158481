"""Make executed notebooks small enough to commit: no SVG beside a PNG, and PNGs of 256 colors.

``make notebooks`` runs it on every notebook after their execution.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image

COLORS = 256


def shrunk(png: str) -> str:
    """Return a base64 PNG with at most ``COLORS`` colors, or the same one if that is no smaller."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    found = io.BytesIO()
    image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(found, "PNG", optimize=True)
    text = base64.b64encode(found.getvalue()).decode() + "\n"
    return text if len(text) < len(png) else png


def shrink(path: Path) -> None:
    """Rewrite a notebook with small figures."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data.pop("image/svg+xml", None)
                data["image/png"] = shrunk(data["image/png"])
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        shrink(Path(name))
