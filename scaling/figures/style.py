"""Style of figures: the style files beside this one, and their colors. Loads matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

_HERE = Path(__file__).parent
MARKERS = "osD^vPX*<>"
"""Marker of every member of a family, so that nothing rests on color alone."""
ORDERED = "viridis"
"""Color map of ordered families and of contours, legible in grayscale and with color blindness."""
DIVERGING = ("#c66a1b", "#f3efe6", "#2b7bb5")
"""Colors of gains as on the page: training directly is better, even, distilling is better."""
FAINTEST = 0.15
"""Share of the color of an end that the contour next to zero has."""


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


def of_contours(levels: Sequence[float], diverging: bool) -> list[Any]:
    """Return a color for each interval between levels, and for what is below and above them all.

    Those that diverge go from either end to the neutral color at zero, which must be one of the levels.
    """
    if not diverging:
        return list(mpl.colormaps[ORDERED](np.linspace(0.0, 1.0, len(levels) + 1)))
    above = np.arange(len(levels) + 1) - list(levels).index(0.0) - 0.5
    share = (np.abs(above) - 0.5) / max(np.abs(above).max() - 0.5, 1.0)
    place = 0.5 + 0.5 * np.sign(above) * (FAINTEST + (1 - FAINTEST) * share)
    return list(mpl.colors.LinearSegmentedColormap.from_list("gain", DIVERGING)(place))


def of_order(order: float) -> Any:
    """Return the color of a place, from 0 to 1, in an ordered family."""
    return mpl.colormaps[ORDERED](0.25 + 0.73 * order if is_dark() else 0.85 * order)
