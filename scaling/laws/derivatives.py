"""A loss with its exact derivatives, which every law returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Partials = dict[str, Array]


class Derivatives(NamedTuple):
    """A loss and its exact derivatives; every array has the broadcast shape of the inputs.

    >>> from scaling import SupervisedLaw
    >>> law = SupervisedLaw(E=1.8, A=300.0, B=2000.0, alpha=0.35, beta=0.37)
    >>> {name: round(float(each), 3) for name, each in law.derivatives(1e9, 20e9).inputs.items()}
    {'N': -0.074, 'D': -0.114}
    """

    loss: Array
    inputs: Partials
    """d loss / d ln(input), by the name of the input."""
    own: Partials
    """d loss / d ln(coefficient), by the name of this law's own coefficients."""
    supervised: Partials
    """d loss / d ln(coefficient) of the supervised law inside a distillation law; empty otherwise."""
