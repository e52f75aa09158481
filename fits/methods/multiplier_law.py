"""Supervised law shared by several methods of training, each with its own multiplier."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fits.estimation.laws.parametrization import Center, Coordinate
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Model, Rows
from scaling.laws import AnySupervisedLaw

MAX_LN_MULTIPLIER = float(np.log(1e3))
"""Largest absolute value of ln multiplier that is searched."""


class MultiplierModel(Model):
    """Model L = E + A/(k N)^alpha + B/D^beta, or with B/(k D)^beta; k is 1 for the first group of rows.

    The coordinates are those of the supervised law with gamma = 1, then ln k of groups 1, 2, ... All rows are
    treated as supervised; the effect of teachers is left to the multipliers.

    Args:
        rows: The rows.
        group: Group (rows,) of each row, a method with one teacher, from 0.
        scaled: Input that k multiplies, "N" or "D".
        groups: Number of groups; by default that of ``group``.
        center: Replaces the center of the rows.
    """

    def __init__(
        self,
        rows: Rows,
        group: NDArray[np.intp],
        scaled: str,
        *,
        groups: int | None = None,
        center: Center | None = None,
    ) -> None:
        rows = replace(rows, L_T=np.empty(0), n_supervised=len(rows))
        super().__init__(rows, None, fixed={"supervised ln gamma": 0.0}, center=center)
        self.group, self.scaled, self.shared = group, scaled, self.size
        self.groups = groups or int(group.max()) + 1
        free = [
            Coordinate(
                name=f"ln multiplier {i}",
                lower=-MAX_LN_MULTIPLIER,
                upper=MAX_LN_MULTIPLIER,
                prior=0.0,
                prior_sd=1.0,
            )
            for i in range(1, self.groups)
        ]
        self.names += tuple(coordinate.name for coordinate in free)
        self.space += tuple(free)

    def laws(self, theta: Array, members: NDArray[np.intp] | None = None) -> tuple[AnySupervisedLaw, None]:
        """Return the law of the first group at ``theta`` (b, p); its coefficients have shape (b, 1)."""
        return super().laws(theta[:, : self.shared], members)[0], None

    def evaluate(self, theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return ln loss (b, n) and its Jacobian (b, p, n)."""
        times = np.exp(np.pad(theta[:, self.shared :], ((0, 0), (1, 0)))[:, self.group])
        law, _ = self.laws(theta, members)
        N, D = (
            (self.rows.N, times * self.rows.D) if self.scaled == "D" else (times * self.rows.N, self.rows.D)
        )
        found = law.derivatives(N, D)
        common = np.stack(self.supervised_coordinates.columns(law, found.own), axis=1)
        own = (self.group == np.arange(1, self.groups)[:, None]) * found.inputs[self.scaled][:, None, :]
        jacobian = np.concatenate([np.matmul(self.tie_matrix.T, common), own], axis=1)
        return np.log(found.loss), jacobian / found.loss[:, None, :]

    def with_rows(self, rows: Rows) -> MultiplierModel:
        """Return this model for some of its rows, in the same coordinates."""
        kept = self.group[np.isin(self.rows.index, rows.index)]
        return MultiplierModel(rows, kept, self.scaled, groups=self.groups, center=self.center)


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedMultipliers:
    """Fitted law with multipliers, or draws of one."""

    law: AnySupervisedLaw
    """Coefficients of shape (draws, 1)."""
    multiplier: Array
    """(draws, groups): ln multiplier of each group; zero for the first."""
    scaled: str
    """Input that is multiplied, "N" or "D"."""

    @classmethod
    def from_theta(cls, model: MultiplierModel, theta: Array) -> FittedMultipliers:
        """Return the law and multipliers at ``theta`` (draws, p)."""
        multiplier = np.pad(theta[:, model.shared :], ((0, 0), (1, 0)))
        return cls(law=model.laws(theta)[0], multiplier=multiplier, scaled=model.scaled)

    def log_loss_and_slope(
        self, N: Array, D: Array, group: NDArray[np.intp], ln_times: Array
    ) -> tuple[Array, Array]:
        """Return ln loss (draws, n) with ``ln_times`` added to the ln input, and its derivative by that."""
        times = np.exp(self.multiplier[:, group] + ln_times)
        found = self.law.derivatives(*((N, times * D) if self.scaled == "D" else (times * N, D)))
        return np.log(found.loss), found.inputs[self.scaled] / found.loss
