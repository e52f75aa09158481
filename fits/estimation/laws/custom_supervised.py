"""Custom supervised laws: a plain function of parameters and tokens, with derivatives by differences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import make_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fits.estimation.laws.parametrization import Array, Center, Coordinate
from fits.estimation.model import SUPERVISED_COORDINATES
from scaling.laws import Derivatives, Partials, coefficients
from scaling.laws.registry import SUPERVISED_LAWS

STEP = 1e-5
"""Step of central differences in logarithms, whose error is about 1e-10 of the loss; of a coefficient of
either sign, relative to its size or to 1."""
UNLIMITED_TOKENS = 1e40
"""Tokens at which the floor L(N, inf) is taken."""
SMALLEST_EXCESS = 1e-300
ABSURD_LOSS = 1e9
"""Loss, nats/token, where the function gives none that is positive and finite."""
RANGE = 12.0
"""Half width of the range of a coordinate: of a logarithm, or in units of a coefficient's prior."""


def register_supervised_law(
    name: str, function: Callable[..., Any], start: Mapping[str, float], signed: Collection[str] = ()
) -> type:
    """Register a supervised law and return its class; :func:`fits.register_law` documents it."""
    law = make_dataclass(
        name.title().replace("-", "") + "Law",
        [(coefficient, Any) for coefficient in start],
        frozen=True,
        kw_only=True,
        namespace={
            "inputs": ("N", "D"),
            "signed": tuple(signed),
            "loss": _loss(function, tuple(start)),
            "derivatives": _derivatives,
            "log_excess": _log_excess,
            "log_capacity_excess": _log_capacity_excess,
            "capacity_slopes": _capacity_slopes,
            "__reduce__": lambda self: (_rebuild_law, (name, function, dict(start), signed, _values(self))),
            **({} if "E" in start else {"E": 0.0}),
        },
    )
    SUPERVISED_LAWS[name] = law
    SUPERVISED_COORDINATES[name] = lambda center: SupervisedCustomCoordinates(
        center, law, name, function, start, signed
    )
    return law


class SupervisedCustomCoordinates:
    """Coordinates of a custom supervised law: ln of each coefficient; one of either sign is its own."""

    def __init__(
        self,
        center: Center,
        law: type,
        name: str,
        function: Callable[..., Any],
        start: Mapping[str, float],
        signed: Collection[str],
    ) -> None:
        self.center, self.law_class, self.names, self.signed = center, law, tuple(start), tuple(signed)
        self._pickle_args = name, function, dict(start), tuple(signed)
        self.space: tuple[Coordinate, ...] = tuple(
            _coordinate(each, value, each in signed, center) for each, value in start.items()
        )

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild_coordinates, (*self._pickle_args, self.center)

    def law(self, theta: Array) -> Any:
        """Return the law at ``theta`` (..., p); its coefficients have shape (..., 1)."""
        columns = {name: theta[..., i : i + 1] for i, name in enumerate(self.names)}
        return self.law_class(**{n: c if n in self.signed else np.exp(c) for n, c in columns.items()})

    def theta(self, law: Any) -> Array:
        """Return the coordinates (p,) of a law; (draws, p) where its coefficients have shape (draws,)."""
        values = {name: np.asarray(getattr(law, name), dtype=np.float64) for name in self.names}
        logs = [value if name in self.signed else np.log(value) for name, value in values.items()]
        return np.stack(np.broadcast_arrays(*logs), axis=-1)

    def columns(self, law: Any, by: Partials) -> list[Array]:  # noqa: ARG002
        """Return d loss / d theta, one (..., n) array for each coordinate."""
        return [by[name] for name in self.names]


def _coordinate(name: str, start: float, signed: bool, center: Center) -> Coordinate:
    """Return the coordinate of a coefficient; E stays below the lowest loss of the runs."""
    if signed:
        scale = max(abs(start), 1.0)
        lower, upper = start - RANGE * scale, start + RANGE * scale
        return Coordinate(name=name, lower=lower, upper=upper, prior=start, prior_sd=scale)
    ln, upper = float(np.log(start)), float(np.log(start)) + RANGE
    if name == "E":
        upper = float(np.log(0.999 * center.lowest_loss))
        ln = min(ln, upper - 0.1)
    return Coordinate(name=f"ln {name}", lower=ln - RANGE, upper=upper, prior=ln, prior_sd=1.0)


def _rebuild_coordinates(
    name: str,
    function: Callable[..., Any],
    start: Mapping[str, float],
    signed: Collection[str],
    center: Center,
) -> Any:
    """Return the coordinates in another process, where the law may not have been registered."""
    if name not in SUPERVISED_COORDINATES:
        register_supervised_law(name, function, start, signed)
    return SUPERVISED_COORDINATES[name](center)


def _rebuild_law(
    name: str,
    function: Callable[..., Any],
    start: Mapping[str, float],
    signed: Collection[str],
    values: Mapping[str, Any],
) -> Any:
    if name not in SUPERVISED_LAWS:
        register_supervised_law(name, function, start, signed)
    return SUPERVISED_LAWS[name](**values)


def _values(law: Any) -> dict[str, Any]:
    return dict(coefficients(law))


def _loss(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Array]:
    def loss(self: Any, N: ArrayLike, D: ArrayLike) -> Array:
        own = {name: getattr(self, name) for name in names}
        with np.errstate(all="ignore"):  # starts are drawn widely
            found = np.asarray(
                function(np.asarray(N, np.float64), np.asarray(D, np.float64), **own), np.float64
            )
        return np.where(np.isfinite(found) & (found > 0), found, ABSURD_LOSS)

    return loss


def _log_excess(self: Any, N: ArrayLike, D: ArrayLike) -> Array:
    """Return ln(L - E)."""
    return np.asarray(np.log(np.maximum(self.loss(N, D) - self.E, SMALLEST_EXCESS)))


def _log_capacity_excess(self: Any, N: ArrayLike) -> Array:
    """Return ln(L(N, inf) - E)."""
    return _log_excess(self, N, UNLIMITED_TOKENS)


def _derivatives(self: Any, N: ArrayLike, D: ArrayLike) -> Derivatives:
    """Return the loss and its derivatives, by central differences."""
    N, D = np.asarray(N, dtype=np.float64), np.asarray(D, dtype=np.float64)
    up, down = np.exp(STEP), np.exp(-STEP)
    inputs = {"N": self.loss(N * up, D) - self.loss(N * down, D)}
    inputs["D"] = self.loss(N, D * up) - self.loss(N, D * down)
    own = {name: _slope(self, name, lambda law: law.loss(N, D)) for name in coefficients(self)}
    return Derivatives(self.loss(N, D), {n: each / (2 * STEP) for n, each in inputs.items()}, own, {})


def _capacity_slopes(self: Any, by: Array, N: ArrayLike) -> tuple[Array, Partials]:
    """Return ``by`` times the derivatives of ln(L(N, inf) - E) by ln N, and by each coefficient."""
    N = np.asarray(N, dtype=np.float64)
    rise = self.log_capacity_excess(N * np.exp(STEP)) - self.log_capacity_excess(N * np.exp(-STEP))
    names = [name for name in coefficients(self) if name != "E"]
    own = {name: by * _slope(self, name, lambda law: law.log_capacity_excess(N)) for name in names}
    return by * rise / (2 * STEP), own


def _slope(law: Any, name: str, of: Callable[[Any], Array]) -> Array:
    """Return the derivative of a function of the law by ln(coefficient), or by one of either sign itself."""
    value = np.asarray(getattr(law, name), dtype=np.float64)
    if name in law.signed:
        step = STEP * np.maximum(np.abs(value), 1.0)
        moved = value + step, value - step
    else:
        step, moved = np.asarray(STEP), (value * np.exp(STEP), value * np.exp(-STEP))
    high, low = (of(replace(law, **{name: each})) for each in moved)
    return np.asarray((high - low) / (2 * step))
