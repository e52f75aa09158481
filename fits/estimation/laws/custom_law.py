"""Custom laws: a plain function of arrays and start values of its coefficients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import make_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fits.estimation.laws.custom_supervised import register_supervised_law
from fits.estimation.laws.parametrization import Array, Center, Coordinate, DistillationCoordinates
from fits.estimation.model import COORDINATES, SUPERVISED_COORDINATES
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, Derivatives, Partials, coefficients
from scaling.laws.registry import LAWS

INPUTS = ("N_S", "D_S", "L_T")
STEP_FACTOR = 1.00001
"""Factor of the central differences, whose error is about 1e-10 of the loss."""


def register_law(
    name: str,
    function: Callable[..., Any],
    start: Mapping[str, float],
    *,
    kind: str = "distillation",
    signed: Collection[str] = (),
) -> type:
    """Register a law that can be fitted, compared and planned with like the shipped ones.

    A calibration that uses the law can be read wherever the law has been registered: in Python by this
    function, elsewhere by the environment variable ``DISTLAW_LAWS=module:name``, where the module assigns
    the class returned here to that name. Nothing that a calibration's file names is imported.

    Args:
        name: Name of the law in ``laws=`` and in calibration files.
        function: ``function(N_S, D_S, L_T, supervised, **coefficients)`` returns the student's loss in
            nats/token for arrays that broadcast; ``supervised`` is the supervised law, by default a
            :class:`scaling.SupervisedLaw`. A supervised law is ``function(N, D, **coefficients)``.
        start: A positive start value of each coefficient by name; the weak prior is a factor of e around it.
            A coefficient ``E`` of a supervised law is its irreducible loss, the limit of large N and D, which
            the effective-tokens laws need.
        kind: "distillation" or "supervised".
        signed: Coefficients of a supervised law that may be negative or zero; their weak prior is as wide as
            the start value is large, or 1.

    Returns:
        The class of the law, a frozen dataclass of its coefficients.

    Raises:
        InputError: for a start value that is not positive, or a name that a law of the other kind has.

    >>> from fits import register_law
    >>> def halfway(N_S, D_S, L_T, supervised, share):
    ...     return share * L_T + (1 - share) * supervised.loss(N_S, D_S)
    >>> law = register_law("halfway-example", halfway, {"share": 0.5})(share=0.5)
    >>> law.share
    0.5
    >>> import numpy as np
    >>> def logarithmic(N, D, top, slope):
    ...     return top - slope * np.log(N * D / 1e18)
    >>> law = register_law("logarithmic-example", logarithmic, {"top": 4.0, "slope": 0.1}, kind="supervised")
    >>> float(law(top=4.0, slope=0.1).loss(1e9, 2e10).round(3))
    3.7
    """
    _check(name, start, kind, signed)
    if kind == "supervised":
        return register_supervised_law(name, function, start, signed)
    law = make_dataclass(
        name.title().replace("-", "") + "Law",
        [(coefficient, Any) for coefficient in start],
        frozen=True,
        kw_only=True,
        namespace={"loss": _loss(function, tuple(start)), "derivatives": _derivatives, "inputs": INPUTS},
    )
    LAWS[name] = law
    COORDINATES[name] = lambda center: _Coordinates(center, law, name, function, start)
    return law


def _check(name: str, start: Mapping[str, float], kind: str, signed: Collection[str]) -> None:
    """Reject a law that cannot be registered."""
    if kind not in ("distillation", "supervised"):
        raise InputError(f"law {name!r}: kind must be 'distillation' or 'supervised', not {kind!r}")
    if isinstance(signed, str) or not set(signed) <= set(start) or (signed and kind != "supervised"):
        raise InputError(f"law {name!r}: signed must list coefficients of a supervised law, not {signed!r}")
    positive = [value for coefficient, value in start.items() if coefficient not in signed]
    if not start or not all(value > 0 for value in positive):
        raise InputError(
            f"law {name!r}: start must give every coefficient a positive value, not {dict(start)!r}"
        )
    if name in (SUPERVISED_COORDINATES if kind == "distillation" else COORDINATES):
        raise InputError(f"law {name!r}: a law of the other kind has this name; choose another")


def _rebuild_coordinates(
    name: str, function: Callable[..., Any], start: Mapping[str, float], center: Center
) -> DistillationCoordinates[Any]:
    """Return the coordinates in another process, where the law may not have been registered."""
    if name not in COORDINATES:
        register_law(name, function, start)
    return COORDINATES[name](center)


class _Coordinates:
    """Coordinates of a custom law: the logarithm of each coefficient."""

    def __init__(
        self, center: Center, law: type, name: str, function: Callable[..., Any], start: Mapping[str, float]
    ) -> None:
        self.center, self.law_class, self.names = center, law, tuple(start)
        self._pickle_args = name, function, dict(start)
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
        return _rebuild_coordinates, (*self._pickle_args, self.center)

    def law(self, theta: Array) -> Any:
        """Return the law at ``theta`` (..., p); its coefficients have shape (..., 1)."""
        values = np.exp(theta)
        return self.law_class(**{name: values[..., i : i + 1] for i, name in enumerate(self.names)})

    def columns(self, law: Any, by: Partials) -> list[Array]:  # noqa: ARG002
        """Return d loss / d theta, one (..., n) array for each coordinate."""
        return [by[name] for name in self.names]


def _loss(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Array]:
    def loss(
        self: Any, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw
    ) -> Array:
        arrays = (np.asarray(value, dtype=np.float64) for value in (N_S, D_S, L_T))
        own = {name: getattr(self, name) for name in names}
        return np.asarray(function(*arrays, supervised, **own), dtype=np.float64)

    return loss


def _derivatives(
    self: Any, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw
) -> Derivatives:
    """Return the loss and its derivatives by the logarithm of every input, by central differences."""
    at = [np.asarray(value, dtype=np.float64) for value in (N_S, D_S, L_T)]
    base: Any = supervised
    own, inner = coefficients(self), coefficients(supervised)

    def loss(input_: int | None, name: str, factor: float) -> Array:
        moved = [value * factor if i == input_ else value for i, value in enumerate(at)]
        law = replace(self, **{name: own[name] * factor}) if name in own else self
        inside = replace(base, **{name[2:]: inner[name[2:]] * factor}) if name[:2] == "s." else supervised
        return np.asarray(law.loss(*moved, inside))

    def slope(input_: int | None, name: str = "") -> Array:
        return np.asarray(
            (loss(input_, name, STEP_FACTOR) - loss(input_, name, 1 / STEP_FACTOR))
            / (2 * np.log(STEP_FACTOR))
        )

    return Derivatives(
        loss=self.loss(*at, supervised),
        inputs={name: slope(i) for i, name in enumerate(INPUTS)},
        own={name: slope(None, name) for name in own},
        supervised={name: slope(None, f"s.{name}") for name in inner},
    )
