"""The joint model of a table: ln loss of every run, and its Jacobian, as a function of fitted coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.estimation.parametrization import (
    Array,
    Centre,
    DistillationCoordinates,
    EffectiveTokensCoordinates,
    NineCoordinates,
    PublishedCoordinates,
    SupervisedCoordinates,
)
from scaling.errors import InputError
from scaling.laws import DistillationLaw, SupervisedLaw

COORDINATES: dict[str, Callable[[Centre], DistillationCoordinates[Any]]] = {
    "effective-tokens": partial(EffectiveTokensCoordinates, variant="simple"),
    "effective-tokens-capacity": partial(EffectiveTokensCoordinates, variant="capacity"),
    "effective-tokens-sharp": partial(EffectiveTokensCoordinates, variant="sharp"),
    "published": PublishedCoordinates,
    "published-7": PublishedCoordinates,
    "published-9": NineCoordinates,
}
"""The distillation laws that can be fitted, by name; "published-7" is "published" with gamma = 1."""


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
    loss_se: Array
    """(rows,): standard errors of the measured losses, nats/token; zero where the table gives none."""
    group: NDArray[np.intp]
    """(rows,): rows of one trained model (its checkpoints) share a number, and are resampled together."""
    index: NDArray[np.intp]
    """(rows,): where each row stands in the table it came from."""

    @classmethod
    def of(cls, table: pd.DataFrame) -> Rows:
        """The rows of a validated table that carry no exclusion."""
        position = np.flatnonzero((table["excluded"] == "").to_numpy())
        kind = table["kind"].to_numpy()[position]
        position = position[np.argsort(kind == "distillation", kind="stable")]
        used, count = table.iloc[position], int(np.sum(kind == "supervised"))
        L = used["loss"].to_numpy(np.float64)
        return cls(
            N=used["params"].to_numpy(np.float64),
            D=used["tokens"].to_numpy(np.float64),
            L=L,
            L_T=used["teacher_loss"].to_numpy(np.float64)[count:],
            loss_se=used["loss_se"].fillna(0.0).to_numpy(np.float64) if "loss_se" in used else 0.0 * L,
            supervised=count,
            group=trained_models(used),
            index=position.astype(np.intp),
        )

    def __len__(self) -> int:
        return len(self.N)

    @property
    def distillations(self) -> int:
        """How many of the rows are distillations."""
        return len(self) - self.supervised

    @property
    def independence(self) -> float:
        """Runs by rows: what a row's deviance counts, since the checkpoints of a run err together."""
        return len(np.unique(self.group)) / len(self)

    @property
    def configuration(self) -> NDArray[np.intp]:
        """(rows,): rows of one kind, size, token count and teacher share a number."""
        columns = {"kind": self.kind, "N": self.N, "D": self.D, "L_T": np.zeros(len(self))}
        columns["L_T"][self.supervised :] = self.L_T
        return pd.DataFrame(columns).groupby(list(columns), sort=False).ngroup().to_numpy().astype(np.intp)

    @property
    def kind(self) -> NDArray[np.intp]:
        """(rows,): 0 for supervised, 1 for distillation."""
        return (np.arange(len(self)) >= self.supervised).astype(np.intp)

    def take(self, chosen: NDArray[np.intp]) -> Rows:
        """Some of the rows, given in ascending order."""
        n = int(np.sum(chosen < self.supervised))
        return Rows(
            N=self.N[chosen],
            D=self.D[chosen],
            L=self.L[chosen],
            L_T=self.L_T[chosen[n:] - self.supervised],
            loss_se=self.loss_se[chosen],
            supervised=n,
            group=np.unique(self.group[chosen], return_inverse=True)[1].astype(np.intp),
            index=self.index[chosen],
        )

    def of_kind(self, kind: int) -> Rows:
        """The supervised rows (0) or the distillations (1) alone."""
        return self.take(np.flatnonzero(self.kind == kind))

    def centre(self) -> Centre:
        """Geometric means, where amplitudes are expressed."""
        return Centre(
            ln_N=float(np.mean(np.log(self.N))),
            ln_D=float(np.mean(np.log(self.D))),
            ln_L=float(np.mean(np.log(self.L_T))) if len(self.L_T) else 0.0,
            lowest_loss=float(min(self.L.min(), self.L_T.min(initial=np.inf))),
        )


class Model:
    """ln loss of the rows under a supervised law and, where there are distillations, a law of theirs.

    ``given`` is a supervised law that is not fitted, with coefficients of shape () or, one a member of the
    batch, (batch,). ``fixed`` maps coordinate names to values; ``tied`` makes alpha and beta equal. Losses
    are compared as logarithms, or ``in_nats``. ``centre`` replaces the rows' own.
    """

    def __init__(
        self,
        rows: Rows,
        law: str | None,
        *,
        fixed: Mapping[str, float] | None = None,
        tied: bool = False,
        given: SupervisedLaw | None = None,
        in_nats: bool = False,
        centre: Centre | None = None,
    ) -> None:
        self.in_nats = in_nats
        self.observed = rows.L if in_nats else np.log(rows.L)
        """(rows,): what the runs measured, on the scale of the fit."""
        centre = centre or rows.centre()
        self.rows, self.law, self.fixed, self.tied, self.centre = rows, law, dict(fixed or {}), tied, centre
        self.given_law = given
        self.supervised = SupervisedCoordinates(centre)
        self.distilled = coordinates_of(law, centre) if law else None
        self.given = None if given is None else np.atleast_2d(self.supervised.theta(given))
        space = [] if given is not None else [(f"supervised {c.name}", c) for c in self.supervised.space]
        space += [] if self.distilled is None else [(c.name, c) for c in self.distilled.space]
        pins = {**constants_of(law), **self.fixed}
        names = [name for name, _ in space]
        for name in pins:
            if name not in names:
                ours = [part.rpartition("ln ")[2] for part in names if "ln " in part and "*" not in part]
                raise InputError(
                    f"cannot fix {name.rpartition('ln ')[2]}: what can be fixed here is "
                    f"{', '.join(dict.fromkeys(ours)) or 'nothing'}"
                )
        self.offset = np.array([pins.get(name, 0.0) for name in names])
        expand = np.eye(len(names))
        free = [i for i, name in enumerate(names) if name not in pins]
        if tied and given is None:
            keep, drop = (names.index(f"supervised ln gamma*{name}") for name in ("alpha", "beta"))
            expand[:, keep] += expand[:, drop]
            free.remove(drop)
        self.expand = expand[:, free]
        """(all, p): how the free coordinates make up all of them."""
        self.names = tuple(names[i] for i in free)
        self.space = tuple(space[i][1] for i in free)

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

    def laws(
        self, theta: Array, members: NDArray[np.intp] | None = None
    ) -> tuple[SupervisedLaw, DistillationLaw | None]:
        """Both laws at ``theta`` (b, p); their coefficients have shape (b, 1), or (1, 1) where given."""
        full = self.offset + theta @ self.expand.T
        if self.given is None:
            supervised, rest = self.supervised.law(full[:, :6]), full[:, 6:]
        else:
            given = self.given if len(self.given) == 1 or members is None else self.given[members]
            supervised, rest = self.supervised.law(given), full
        return supervised, None if self.distilled is None else self.distilled.law(rest)

    def evaluate(self, theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
        """Loss (b, n), on the scale of the fit, and its Jacobian (b, p, n)."""
        rows, n = self.rows, self.rows.supervised
        supervised, distilled = self.laws(theta, members)
        inner = 6 if self.given is None else 0
        loss = np.empty((len(theta), len(rows)))
        jacobian = np.zeros((len(theta), len(self.offset), len(rows)))
        first = supervised.derivatives(rows.N[:n], rows.D[:n])
        loss[:, :n] = first.loss
        if inner:
            for i, column in enumerate(self.supervised.columns(supervised, first.own)):
                jacobian[:, i, :n] = column
        if distilled is not None and self.distilled is not None:
            second = distilled.derivatives(rows.N[n:], rows.D[n:], rows.L_T, supervised)
            loss[:, n:] = second.loss
            if inner:
                for i, column in enumerate(self.supervised.columns(supervised, second.supervised)):
                    jacobian[:, i, n:] = column
            for i, column in enumerate(self.distilled.columns(distilled, second.own), start=inner):
                jacobian[:, i, n:] = column
        if not self.in_nats:
            jacobian /= loss[:, None, :]
            loss = np.log(loss)
        return loss, np.matmul(self.expand.T, jacobian)

    def on(self, rows: Rows) -> Model:
        """The same model of other rows, in the same coordinates."""
        return Model(
            rows, self.law, fixed=self.fixed, tied=self.tied, given=self.given_law, in_nats=self.in_nats,
            centre=self.centre,
        )  # fmt: skip

    def at(self, theta: Array) -> tuple[Array, Array]:
        """Loss (n,), on the scale of the fit, and its Jacobian (n, p) at one point (p,)."""
        loss, jacobian = self.evaluate(theta[None], np.zeros(1, np.intp))
        return loss[0], jacobian[0].T


def trained_models(table: pd.DataFrame) -> NDArray[np.intp]:
    """A number (rows,) for each trained model of a validated table: a run, and each seed of it."""
    return table.groupby(["run", "seed"], sort=False, dropna=False).ngroup().to_numpy().astype(np.intp)


def last_tokens(table: pd.DataFrame) -> Array:
    """The tokens (rows,) that each row's model was trained on in the end, at its last usable checkpoint."""
    tokens = table["tokens"].where(table["excluded"] == "")
    return tokens.groupby(trained_models(table)).transform("max").to_numpy(np.float64)


def law_names(laws: Sequence[str]) -> list[str]:
    """The laws asked for, each once; raises InputError where that is not a list of names."""
    if isinstance(laws, str) or not laws or not all(isinstance(law, str) for law in laws):
        raise InputError(f"laws is a list of names, for example ['published'], not {laws!r}")
    return list(dict.fromkeys(laws))


def constants_of(law: str | None) -> dict[str, float]:
    """Coordinates that a law by definition does not fit, by name, with their values."""
    return {"ln gamma": 0.0} if law == "published-7" else {}


def coordinates_of(law: str, centre: Centre) -> DistillationCoordinates[Any]:
    """The coordinates of a distillation law by name; raises InputError for a name that is none."""
    if law not in COORDINATES:
        raise InputError(f"no law is called {law!r}; known: {', '.join(COORDINATES)}")
    return COORDINATES[law](centre)
