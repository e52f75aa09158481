"""The interface of a distillation law, and what all laws share."""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.derivatives import Array, Derivatives
from scaling.laws.supervised import AnySupervisedLaw


@runtime_checkable
class DistillationLaw(Protocol):
    """Interface of a law for the student's loss, as the planner and the fit use it.

    >>> from scaling import Calibration, DistillationLaw
    >>> isinstance(Calibration.load("busbridge2025-table6").law(), DistillationLaw)
    True
    """

    inputs: ClassVar[tuple[str, ...]] = ("N_S", "D_S", "L_T")

    def loss(self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw) -> Array:
        """Return the student's held-out cross-entropy.

        Args:
            N_S: Student's non-embedding parameters.
            D_S: Student's tokens.
            L_T: Teacher's held-out cross-entropy, nats/token.
            supervised: The law of students trained alone, on the same text.

        Returns:
            The loss in nats/token; inputs and coefficients broadcast.
        """
        ...

    def derivatives(
        self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw
    ) -> Derivatives:
        """Return the loss and its exact derivatives with respect to every logarithm."""
        ...


def teacher_excess(L_T: ArrayLike, supervised: AnySupervisedLaw) -> Array:
    """Return c = L_T - E, kept positive: no teacher is better than the irreducible loss."""
    excess: Array = np.maximum(np.asarray(L_T, dtype=np.float64) - supervised.E, 1e-12)
    return excess


def coefficients(law: AnySupervisedLaw | DistillationLaw) -> dict[str, float | Array]:
    """Return the numeric coefficients of a law by name, in the order of its definition."""
    values = {field.name: getattr(law, field.name) for field in fields(law)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if not isinstance(value, str)}
