"""Style of figures: the style files beside this one, and their colors. Loads matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

_HERE = Path(__file__).parent
MARKERS = "osD^vPX*<>"
"""Marker of every member of a family, so that nothing rests on color alone."""
ORDERED, DIVERGING = "viridis", "PuOr"
"""Color maps that are legible with every common form of color blindness; viridis also in grayscale."""


@contextmanager
def style(dark: bool = False) -> Iterator[None]:
    """Make figures in this style; settings made elsewhere are restored."""
    with mpl.rc_context():
        for name in ("distlaw", "distlaw-dark")[: 1 + dark]:
            mpl.rcParams.update(
                mpl.rc_params_from_file(_HERE / f"{name}.mplstyle", use_default_template=False)
            )
        yield


def ink() -> Any:
    """Return the color of text."""
    return mpl.rcParams["text.color"]


def faint() -> Any:
    """Return the color of secondary lines and labels."""
    return mpl.rcParams["axes.edgecolor"]


def is_dark() -> bool:
    """Return whether the page is dark."""
    return sum(mpl.colors.to_rgb(mpl.rcParams["figure.facecolor"])) < 1.5


def of_kind(kind: int) -> Any:
    """Return the color of a kind; 0 is that of text."""
    colors = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    return colors[(kind - 1) % len(colors)] if kind else ink()


def of_order(order: float) -> Any:
    """Return the color of a place, from 0 to 1, in an ordered family."""
    return mpl.colormaps[ORDERED](0.25 + 0.73 * order if is_dark() else 0.85 * order)
