"""A loss with its exact derivatives, which every law returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Partials = dict[str, Array]


class Derivatives(NamedTuple):
    """A loss and its exact derivatives; every array has the broadcast shape of the inputs."""

    loss: Array
    inputs: Partials
    """d loss / d ln(input), by the name of the input."""
    own: Partials
    """d loss / d ln(coefficient), by the name of this law's own coefficients."""
    supervised: Partials
    """d loss / d ln(coefficient) of the supervised law inside a distillation law; empty otherwise."""
