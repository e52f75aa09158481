"""Error of a law on runs that it was not fitted to: inside the range of its runs, and beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.calibration.parsing import is_number, mapping, read, read_numbers
from scaling.calibration.region import Range
from scaling.errors import InputError

Array = NDArray[np.float64]
VARIABLES = ("params", "tokens", "compute", "teacher_loss")
"""Variables whose range the runs cover; ``compute`` is parameters x tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Misfit:
    """Errors of a law's predictions, as measured on blocks of runs that were left out of refits.

    Errors are relative to the loss (of its logarithm). The variance of one run is ``noise^2`` inside the
    range of the fitted runs, and grows beyond it with the squared distance in ln params, ln tokens and
    ln compute (each beyond its own range; compute above it only) and in ln of the teacher's loss.
    """

    noise: float
    """Standard deviation of one run around the law, among the dearer half of the fitted runs."""
    growth: float = 0.0
    """Standard deviation per e-fold of distance beyond the sizes, tokens and compute of the runs."""
    better_teacher_growth: float = 0.0
    """Standard deviation per unit of ln L_T below the losses of all fitted teachers."""
    weaker_teacher_growth: float = 0.0
    """Standard deviation per unit of ln L_T above the losses of all fitted teachers."""
    inflation: float = 1.0
    """Factor that ``noise`` contains, 1 where refits predicted the blocks as well as they claimed."""
    fitted: Mapping[str, Range] = field(default_factory=dict)
    """Smallest and largest ``params``, ``tokens``, ``compute`` and ``teacher_loss`` of the fitted runs."""
    alternatives: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Coefficients of other laws of the same family, fitted to the same runs, by kind and name: the variance
    between their losses is uncertainty of the form of the law."""
    held_out: int = 0
    """Runs of the blocks that were left out."""
    inside: int = 0
    """Number of these inside 90 % intervals of refits without them; the growth for each block is that of the
    others."""

    def sd(self, N: ArrayLike, D: ArrayLike, L_T: ArrayLike | None = None) -> Array:
        """Relative standard deviation of one run of ``N`` parameters on ``D`` tokens, taught at ``L_T``."""
        variance = self.noise**2 + (self.growth * self.distance(N, D)) ** 2
        if L_T is not None:
            better, weaker = self.teacher_distances(L_T)
            variance = variance + (self.better_teacher_growth * better) ** 2
            variance = variance + (self.weaker_teacher_growth * weaker) ** 2
        return np.asarray(np.sqrt(variance), dtype=np.float64)

    def describe(self, law: str) -> str:
        """Return a sentence: the error of one run of a law, its growth, and how many left out lay inside."""
        growth = [(self.growth, "per e-fold beyond the fitted runs")]
        growth += [(self.better_teacher_growth / 10, "per 0.1 of ln L_T beyond the best teachers")]
        growth += [(self.weaker_teacher_growth / 10, "per 0.1 beyond the weakest")]
        grown = [f"{100 * value:.2f} % {where}" for value, where in growth if value > 0]
        grows = f", growing by {', '.join(grown)}" if grown else ""
        count = f"; {self.inside} of {self.held_out} runs left out lay inside 90 %" if self.held_out else ""
        return f"error of one run, {law}: {100 * self.noise:.2f} %{grows}{count}"

    def distance(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return the number of e-folds beyond the sizes, tokens and compute of the fitted runs."""
        sizes = np.maximum(*distance_outside(N, self.fitted.get("params")))
        tokens = np.maximum(*distance_outside(D, self.fitted.get("tokens")))
        _, compute = distance_outside(np.multiply(N, D), self.fitted.get("compute"))
        return np.asarray(np.sqrt(sizes**2 + tokens**2 + compute**2))

    def teacher_distances(self, L_T: ArrayLike) -> tuple[Array, Array]:
        """Return the distances of ln L_T below and above all fitted teachers, each 0 among them."""
        return distance_outside(L_T, self.fitted.get("teacher_loss"))


def distance_outside(values: ArrayLike, fitted: Range | None) -> tuple[Array, Array]:
    """Distances of ln(values) below and above a range, 0 inside it and where it is unknown."""
    values = np.asarray(values, dtype=np.float64)
    if fitted is None:
        return np.zeros(values.shape), np.zeros(values.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ln_values = np.log(values)
        below, above = np.log(fitted[0]) - ln_values, ln_values - np.log(fitted[1])
    return np.asarray(np.fmax(below, 0.0)), np.asarray(np.fmax(above, 0.0))


def read_misfit(value: object, where: str) -> Misfit:
    """The misfit of one law from its parsed JSON; errors name ``where``."""
    content = dict(mapping(value, where))
    ranges = mapping(content.pop("fitted", {}), f"{where}.fitted")
    for name, known in ranges.items():
        pair = isinstance(known, list) and len(known) == 2 and all(map(is_number, known))
        if name not in VARIABLES or not pair or not 0 < known[0] <= known[1]:
            raise InputError(
                f"{where}.fitted.{name}: must be [smallest, largest] of one of {', '.join(VARIABLES)}, "
                f"both positive, not {known!r}"
            )
    laws = {
        kind: read_numbers(numbers, f"{where}.alternatives.{kind}")
        for kind, numbers in mapping(content.pop("alternatives", {}), f"{where}.alternatives").items()
    }
    for name, number in content.items():
        least = 1.0 if name == "inflation" else 0.0
        if not is_number(number) or number < least:
            raise InputError(f"{where}.{name}: must be a number of {least:g} or more, not {number!r}")
    fitted = {name: (known[0], known[1]) for name, known in ranges.items()}
    return read(Misfit, {**content, "fitted": fitted, "alternatives": laws}, where)
