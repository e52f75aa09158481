"""A law of one's own: a plain function of arrays and the names of its coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import make_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import scaling.calibration.calibration
from fits.estimation.model import COORDINATES
from fits.estimation.parametrization import Array, Centre, Coordinate, DistillationCoordinates
from scaling.errors import InputError
from scaling.laws import Derivatives, Partials, SupervisedLaw, coefficients

INPUTS = ("N_S", "D_S", "L_T")
UP = 1.00001
"""The factor of the central differences; their error is about 1e-10 of the loss."""


def register_law(name: str, function: Callable[..., Any], start: Mapping[str, float]) -> type:
    """Make a distillation law that can be fitted, compared and planned with like any other.

    ``function(N_S, D_S, L_T, supervised, **coefficients)`` gives the student's loss in nats/token for arrays
    that broadcast; ``supervised`` is a :class:`scaling.SupervisedLaw`. ``start`` names the coefficients, all
    positive, with a value of the right order: the weak prior is a factor of e around it. A calibration that
    uses the law can be read wherever it has been registered. Returns the law's class.
    """
    if not start or not all(value > 0 for value in start.values()):
        raise InputError(f"law {name!r}: start gives each coefficient a positive value, not {dict(start)!r}")
    law = make_dataclass(
        name.title().replace("-", "") + "Law",
        [(coefficient, Any) for coefficient in start],
        frozen=True,
        kw_only=True,
        namespace={"loss": _loss(function, tuple(start)), "derivatives": _derivatives, "inputs": INPUTS},
    )
    scaling.calibration.calibration.LAWS[name] = law
    COORDINATES[name] = lambda centre: _Coordinates(centre, law, name, function, start)
    return law


def _elsewhere(
    name: str, function: Callable[..., Any], start: Mapping[str, float], centre: Centre
) -> DistillationCoordinates[Any]:
    """The coordinates in another process, where the law may not have been registered."""
    if name not in COORDINATES:
        register_law(name, function, start)
    return COORDINATES[name](centre)


class _Coordinates:
    """The logarithm of each coefficient."""

    def __init__(
        self, centre: Centre, law: type, name: str, function: Callable[..., Any], start: Mapping[str, float]
    ) -> None:
        self.centre, self.kind, self.names = centre, law, tuple(start)
        self.made_of = name, function, dict(start)
        self.space: tuple[Coordinate, ...] = tuple(
            Coordinate(
                name=f"ln {name}",
                lower=float(np.log(value) - 12),
                upper=float(np.log(value) + 12),
                prior=float(np.log(value)),
                prior_sd=1.0,
            )
            for name, value in start.items()
        )

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _elsewhere, (*self.made_of, self.centre)

    def law(self, theta: Array) -> Any:
        """The law at ``theta`` (..., p); its coefficients have shape (..., 1)."""
        values = np.exp(theta)
        return self.kind(**{name: values[..., i : i + 1] for i, name in enumerate(self.names)})

    def columns(self, law: Any, by: Partials) -> list[Array]:  # noqa: ARG002
        """d loss / d theta, one (..., n) array a coordinate."""
        return [by[name] for name in self.names]


def _loss(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Array]:
    def loss(self: Any, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw) -> Array:
        arrays = (np.asarray(value, dtype=np.float64) for value in (N_S, D_S, L_T))
        own = {name: getattr(self, name) for name in names}
        return np.asarray(function(*arrays, supervised, **own), dtype=np.float64)

    return loss


def _derivatives(
    self: Any, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw
) -> Derivatives:
    """The loss and its derivatives with respect to every logarithm, by central differences."""
    at = [np.asarray(value, dtype=np.float64) for value in (N_S, D_S, L_T)]
    own, inner = coefficients(self), coefficients(supervised)

    def loss(input_: int | None, name: str, factor: float) -> Array:
        moved = [value * factor if i == input_ else value for i, value in enumerate(at)]
        law = replace(self, **{name: own[name] * factor}) if name in own else self
        inside = (
            replace(supervised, **{name[2:]: inner[name[2:]] * factor}) if name[:2] == "s." else supervised
        )
        return np.asarray(law.loss(*moved, inside))

    def slope(input_: int | None, name: str = "") -> Array:
        return np.asarray((loss(input_, name, UP) - loss(input_, name, 1 / UP)) / (2 * np.log(UP)))

    return Derivatives(
        loss=self.loss(*at, supervised),
        inputs={name: slope(i) for i, name in enumerate(INPUTS)},
        own={name: slope(None, name) for name in own},
        supervised={name: slope(None, f"s.{name}") for name in inner},
    )
