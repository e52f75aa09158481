"""One law of parameters and tokens that several ways of training share, each with a multiplier of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Model, Rows
from fits.estimation.parametrization import Centre, Coordinate
from scaling.laws import SupervisedLaw

FARTHEST = float(np.log(1e3))
"""No multiplier is looked for beyond this, as a natural logarithm, on either side of none."""


class SharedLaw(Model):
    """L = E + A/(k N)^alpha + B/D^beta, or with B/(k D)^beta: k is 1 for the first group, free for others.

    The coordinates are those of the supervised law with gamma = 1, then ln k of groups 1, 2, ... All rows
    count as supervised, whatever trained them: what teachers do is left to the multipliers. ``group`` (rows,)
    numbers the ways of training from 0, and ``scaled`` is the input that k multiplies, "N" or "D".
    """

    def __init__(
        self,
        rows: Rows,
        group: NDArray[np.intp],
        scaled: str,
        *,
        groups: int | None = None,
        centre: Centre | None = None,
    ) -> None:
        rows = replace(rows, L_T=np.empty(0), supervised=len(rows))
        super().__init__(rows, None, fixed={"supervised ln gamma": 0.0}, centre=centre)
        self.group, self.scaled, self.shared = group, scaled, self.size
        self.groups = groups or int(group.max()) + 1
        free = [
            Coordinate(name=f"ln multiplier {i}", lower=-FARTHEST, upper=FARTHEST, prior=0.0, prior_sd=1.0)
            for i in range(1, self.groups)
        ]
        self.names += tuple(coordinate.name for coordinate in free)
        self.space += tuple(free)

    def laws(self, theta: Array, members: NDArray[np.intp] | None = None) -> tuple[SupervisedLaw, None]:
        """The law of the first group at ``theta`` (b, p); its coefficients have shape (b, 1)."""
        return super().laws(theta[:, : self.shared], members)[0], None

    def evaluate(self, theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
        """ln loss (b, n) and its Jacobian (b, p, n)."""
        times = np.exp(np.pad(theta[:, self.shared :], ((0, 0), (1, 0)))[:, self.group])
        law, _ = self.laws(theta, members)
        N, D = (
            (self.rows.N, times * self.rows.D) if self.scaled == "D" else (times * self.rows.N, self.rows.D)
        )
        found = law.derivatives(N, D)
        common = np.stack(self.supervised.columns(law, found.own), axis=1)
        own = (self.group == np.arange(1, self.groups)[:, None]) * found.inputs[self.scaled][:, None, :]
        jacobian = np.concatenate([np.matmul(self.expand.T, common), own], axis=1)
        return np.log(found.loss), jacobian / found.loss[:, None, :]

    def on(self, rows: Rows) -> SharedLaw:
        """The same model of some of its rows, in the same coordinates."""
        kept = self.group[np.isin(self.rows.index, rows.index)]
        return SharedLaw(rows, kept, self.scaled, groups=self.groups, centre=self.centre)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """A fitted shared law, or draws of one."""

    law: SupervisedLaw
    """Coefficients of shape (draws, 1)."""
    multiplier: Array
    """(draws, groups): ln of what each group multiplies its input by; the first group's is zero."""
    scaled: str

    @classmethod
    def of(cls, model: SharedLaw, theta: Array) -> Shared:
        """The law at ``theta`` (draws, p)."""
        multiplier = np.pad(theta[:, model.shared :], ((0, 0), (1, 0)))
        return cls(law=model.laws(theta)[0], multiplier=multiplier, scaled=model.scaled)

    def at(self, N: Array, D: Array, group: NDArray[np.intp], ln_times: Array) -> tuple[Array, Array]:
        """ln loss (draws, n) with ``ln_times`` more of the input, and its slope by ln of that input."""
        times = np.exp(self.multiplier[:, group] + ln_times)
        found = self.law.derivatives(*((N, times * D) if self.scaled == "D" else (times * N, D)))
        return np.log(found.loss), found.inputs[self.scaled] / found.loss
