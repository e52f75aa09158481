"""The joint model of a table: ln loss of every run, and its Jacobian, as a function of fitted coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.coordinates import (
    Array,
    Centre,
    Coordinate,
    EffectiveTokensCoordinates,
    PublishedCoordinates,
    SupervisedCoordinates,
)
from scaling.errors import InputError
from scaling.laws import DistillationLaw, SupervisedLaw

LAWS = ("effective-tokens", "effective-tokens-capacity", "published", "published-7")
"""The distillation laws that can be fitted, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The usable runs as arrays, supervised ones first. Losses in nats/token."""

    N: Array
    D: Array
    L: Array
    L_T: Array
    """(distillations,): the teachers' losses."""
    supervised: int
    """How many of the rows are supervised."""
    group: NDArray[np.intp]
    """(rows,): rows of one run (its checkpoints) share a number, and are resampled together."""
    index: NDArray[np.intp]
    """(rows,): where each row stands in the table it came from."""

    @classmethod
    def of(cls, table: pd.DataFrame) -> Rows:
        """The rows of a validated table that carry no exclusion."""
        used = table[table["excluded"] == ""]
        order = np.argsort((used["kind"] == "distillation").to_numpy(), kind="stable")
        position = np.flatnonzero((table["excluded"] == "").to_numpy())[order]
        used = used.iloc[order]
        count = int((used["kind"] == "supervised").sum())
        return cls(
            N=used["params"].to_numpy(np.float64),
            D=used["tokens"].to_numpy(np.float64),
            L=used["loss"].to_numpy(np.float64),
            L_T=used["teacher_loss"].to_numpy(np.float64)[count:],
            supervised=count,
            group=pd.factorize(used["run"])[0].astype(np.intp),
            index=position,
        )

    def __len__(self) -> int:
        return len(self.N)

    @property
    def distillations(self) -> int:
        """How many of the rows are distillations."""
        return len(self) - self.supervised

    def centre(self) -> Centre:
        """Geometric means, where amplitudes are expressed."""
        lowest = float(min(self.L.min(), self.L_T.min(initial=np.inf)))
        teacher = float(np.mean(np.log(self.L_T))) if len(self.L_T) else 0.0
        return Centre(
            ln_N=float(np.mean(np.log(self.N))),
            ln_D=float(np.mean(np.log(self.D))),
            ln_L=teacher,
            lowest_loss=lowest,
        )


class Model:
    """ln loss of the rows under a supervised law and, where there are distillations, a law of theirs.

    ``given`` holds supervised coordinates, (1, 6) or one row a member of the batch, that are not fitted.
    ``fixed`` maps coordinate names to values; ``tied`` makes alpha and beta equal.
    """

    def __init__(
        self,
        rows: Rows,
        law: str | None,
        *,
        fixed: Mapping[str, float] | None = None,
        tied: bool = False,
        given: Array | None = None,
        centre: Centre | None = None,
    ) -> None:
        self.rows, self.law_name, self.given = rows, law, given
        self.centre = centre or rows.centre()
        self.supervised = SupervisedCoordinates(self.centre)
        self.distilled = coordinates_of(law, self.centre) if law else None
        if law is None and rows.distillations:
            raise ValueError("a table with distillations needs a distillation law")
        full = [f"supervised {c.name}" for c in self.supervised.space] if given is None else []
        space: tuple[Coordinate, ...] = self.supervised.space if given is None else ()
        if self.distilled is not None:
            full += [f"{c.name}" for c in self.distilled.space]
            space += self.distilled.space
        pins = dict(fixed or {})
        if law == "published-7":
            pins["ln gamma"] = 0.0
        unknown = set(pins) - set(full)
        if unknown:
            raise InputError(f"cannot fix {sorted(unknown)}: the fitted coordinates are {full}")
        free = [i for i, name in enumerate(full) if name not in pins]
        self.offset = np.array([pins.get(name, 0.0) for name in full])
        self.expand = np.eye(len(full))[:, free]
        self.space = tuple(space[i] for i in free)
        self.names = tuple(full[i] for i in free)
        if tied and given is None:
            keep, drop = (
                self.names.index("supervised ln gamma*alpha"),
                self.names.index("supervised ln gamma*beta"),
            )
            self.expand[:, keep] += self.expand[:, drop]
            self.expand = np.delete(self.expand, drop, axis=1)
            self.space = tuple(c for i, c in enumerate(self.space) if i != drop)
            self.names = tuple(n for i, n in enumerate(self.names) if i != drop)

    @property
    def size(self) -> int:
        """How many numbers are fitted."""
        return len(self.names)

    def bounds(self) -> tuple[Array, Array]:
        """The box of the fitted coordinates, two (p,) arrays."""
        return np.array([c.lower for c in self.space]), np.array([c.upper for c in self.space])

    def prior(self) -> tuple[Array, Array]:
        """Centre and standard deviation of the weak priors, two (p,) arrays."""
        return np.array([c.prior for c in self.space]), np.array([c.prior_sd for c in self.space])

    def full(self, theta: Array) -> Array:
        """Every coordinate, fixed and tied ones included, from the free ones: (..., p) -> (..., all)."""
        return self.offset + theta @ self.expand.T

    def free(self, full: Array) -> Array:
        """The free coordinates of a full set: (..., all) -> (..., p)."""
        return cast(Array, (full - self.offset) @ self.expand / self.expand.sum(axis=0))

    def laws(
        self, theta: Array, members: NDArray[np.intp] | None = None
    ) -> tuple[SupervisedLaw, DistillationLaw | None]:
        """Both laws at ``theta`` (b, p); their coefficients have shape (b, 1)."""
        full = self.full(theta)
        if self.given is None:
            supervised, rest = self.supervised.law(full[..., :6]), full[..., 6:]
        else:
            given = self.given if len(self.given) == 1 or members is None else self.given[members]
            supervised, rest = self.supervised.law(given), full
        return supervised, None if self.distilled is None else self.distilled.law(rest)

    def evaluate(self, theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
        """ln loss (b, n) and its Jacobian (b, p, n)."""
        rows, n = self.rows, self.rows.supervised
        supervised, distilled = self.laws(theta, members)
        fitted = 6 if self.given is None else 0
        loss = np.empty((len(theta), len(rows)))
        jacobian = np.zeros((len(theta), len(self.offset), len(rows)))
        if n:
            first = supervised.derivatives(rows.N[:n], rows.D[:n])
            loss[:, :n] = first.loss
            if fitted:
                for i, column in enumerate(self.supervised.columns(supervised, first.own)):
                    jacobian[:, i, :n] = column
        if distilled is not None and self.distilled is not None and rows.distillations:
            second = distilled.derivatives(rows.N[n:], rows.D[n:], rows.L_T, supervised)
            loss[:, n:] = second.loss
            if fitted:
                for i, column in enumerate(self.supervised.columns(supervised, second.supervised)):
                    jacobian[:, i, n:] = column
            for i, column in enumerate(self.distilled.columns(distilled, second.own)):  # type: ignore[arg-type]
                jacobian[:, fitted + i, n:] = column
        jacobian /= loss[:, None, :]
        return np.log(loss), np.matmul(self.expand.T, jacobian)


def coordinates_of(law: str, centre: Centre) -> EffectiveTokensCoordinates | PublishedCoordinates:
    """The coordinates of a distillation law by name; raises InputError for a name that is none."""
    if law in ("published", "published-7"):
        return PublishedCoordinates(centre)
    if law in ("effective-tokens", "effective-tokens-capacity"):
        return EffectiveTokensCoordinates(centre, "capacity" if law.endswith("capacity") else "simple")
    raise InputError(f"no law is called {law!r}; known: {', '.join(LAWS)}")
