"""Joint model of a table: loss of every run, and its Jacobian, as a function of the fitted coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.estimation.laws.parametrization import (
    AnySupervisedCoordinates,
    Array,
    Center,
    DistillationCoordinates,
    EffectiveTokensCoordinates,
    NineCoordinates,
    Prior,
    PublishedCoordinates,
    SupervisedCoordinates,
    with_prior,
)
from fits.estimation.laws.sibling import Sibling, SiblingCoordinates
from fits.estimation.laws.supervised_parametrization import FarseerCoordinates, OverTrainingCoordinates
from fits.table.projection import PROJECTED_SD
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, DistillationLaw
from scaling.laws.registry import POWER_LAW, find_kind, load_law, supervised_kind

T = TypeVar("T")
COORDINATES: dict[str, Callable[[Center], DistillationCoordinates[Any]]] = {
    "effective-tokens": partial(EffectiveTokensCoordinates, variant="simple"),
    "effective-tokens-capacity": partial(EffectiveTokensCoordinates, variant="capacity"),
    "effective-tokens-sharp": partial(EffectiveTokensCoordinates, variant="sharp"),
    "published": PublishedCoordinates,
    "published-7": PublishedCoordinates,
    "published-9": NineCoordinates,
}
"""Distillation laws that can be fitted, by name; "published-7" is "published" with gamma = 1."""
SUPERVISED_COORDINATES: dict[str, Callable[[Center], AnySupervisedCoordinates[Any]]] = {
    POWER_LAW: SupervisedCoordinates,
    "over-training": OverTrainingCoordinates,
    "farseer": FarseerCoordinates,
}
"""Supervised laws that can be fitted, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Usable runs as arrays, supervised ones first. Losses in nats/token."""

    N: Array
    D: Array
    L: Array
    L_T: Array
    """(distillations,): the teachers' losses."""
    n_supervised: int
    """Number of supervised rows."""
    loss_se: Array
    """(rows,): standard errors of the measured losses, nats/token; zero where the table gives none."""
    projected_sd: Array
    """(rows,): standard deviation of ln loss that projected losses have beyond a run's noise; else zero."""
    group: NDArray[np.intp]
    """(rows,): rows of one trained model (its checkpoints) share a number, and are resampled together."""
    index: NDArray[np.intp]
    """(rows,): position of each row in the table."""

    @classmethod
    def of(cls, table: pd.DataFrame) -> Rows:
        """Return the rows of a validated table that are not excluded.

        Where :mod:`fits.estimation.repetition` valued repeated data, N and D are effective ones.
        """
        position = np.flatnonzero((table["excluded"] == "").to_numpy())
        kind = table["kind"].to_numpy()[position]
        position = position[np.argsort(kind == "distillation", kind="stable")]
        used, count = table.iloc[position], int(np.sum(kind == "supervised"))
        L = used["loss"].to_numpy(np.float64)
        return cls(
            N=_effective(used, "params"),
            D=_effective(used, "tokens"),
            L=L,
            L_T=used["teacher_loss"].to_numpy(np.float64)[count:],
            loss_se=_or_zero(used, "loss_se"),
            projected_sd=_or_zero(used, PROJECTED_SD),
            n_supervised=count,
            group=trained_models(used),
            index=position.astype(np.intp),
        )

    def __len__(self) -> int:
        return len(self.N)

    @property
    def n_distillations(self) -> int:
        """Number of distillations."""
        return len(self) - self.n_supervised

    @property
    def independence(self) -> float:
        """Ratio of runs to rows, the weight of a row's deviance: errors of a run's checkpoints correlate."""
        return len(np.unique(self.group)) / len(self)

    @property
    def configuration(self) -> NDArray[np.intp]:
        """Number (rows,) shared by rows of one kind, size, token count and teacher, projected alike."""
        columns = {"kind": self.kind, "N": self.N, "D": self.D, "L_T": np.zeros(len(self))}
        columns["projected_sd"] = self.projected_sd
        columns["L_T"][self.n_supervised :] = self.L_T
        return pd.DataFrame(columns).groupby(list(columns), sort=False).ngroup().to_numpy().astype(np.intp)

    @property
    def kind(self) -> NDArray[np.intp]:
        """Kind (rows,): 0 for supervised, 1 for distillation."""
        return (np.arange(len(self)) >= self.n_supervised).astype(np.intp)

    def take(self, chosen: NDArray[np.intp]) -> Rows:
        """Return a subset of the rows, chosen by ascending indices."""
        n = int(np.sum(chosen < self.n_supervised))
        return Rows(
            N=self.N[chosen],
            D=self.D[chosen],
            L=self.L[chosen],
            L_T=self.L_T[chosen[n:] - self.n_supervised],
            loss_se=self.loss_se[chosen],
            projected_sd=self.projected_sd[chosen],
            n_supervised=n,
            group=np.unique(self.group[chosen], return_inverse=True)[1].astype(np.intp),
            index=self.index[chosen],
        )

    def of_kind(self, kind: int) -> Rows:
        """Return the supervised rows (0) or the distillations (1) alone."""
        return self.take(np.flatnonzero(self.kind == kind))

    def center(self) -> Center:
        """Return the geometric means of the runs, at which amplitudes are expressed."""
        return Center(
            ln_N=float(np.mean(np.log(self.N))),
            ln_D=float(np.mean(np.log(self.D))),
            ln_L=float(np.mean(np.log(self.L_T))) if len(self.L_T) else 0.0,
            lowest_loss=float(min(self.L.min(), self.L_T.min(initial=np.inf))),
        )


def _effective(table: pd.DataFrame, name: str) -> Array:
    """Return a column of counts, or what they are worth where data repeat."""
    return table[f"effective_{name}" if f"effective_{name}" in table else name].to_numpy(np.float64)


def _or_zero(table: pd.DataFrame, name: str) -> Array:
    """Return a column (rows,) with zero for what is missing."""
    return (table[name].fillna(0.0) if name in table else 0.0 * table["loss"]).to_numpy(np.float64)


class Model:
    """Model of the losses of rows under a supervised law and, for distillations, a distillation law.

    Args:
        rows: The rows.
        law: Name of the distillation law; None for supervised rows alone.
        supervised_law: Name of the supervised law, where it is fitted.
        fixed: Values of coordinates that are not fitted, by name.
        tied: Fit one exponent for alpha and beta.
        given: A supervised law that is not fitted, with coefficients of shape (), or of shape (batch,): one
            for each member of the batch.
        in_nats: Fit losses instead of their logarithms.
        center: Replaces the center of the rows.
        priors: Priors that replace those of the coordinates, by name.
        sibling: The law of another corpus, whose map is fitted in place of the power law's coefficients.

    Raises:
        InputError: for a name in ``fixed`` that is no coordinate of the laws.
    """

    def __init__(
        self,
        rows: Rows,
        law: str | None,
        *,
        supervised_law: str = POWER_LAW,
        fixed: Mapping[str, float] | None = None,
        tied: bool = False,
        given: AnySupervisedLaw | None = None,
        in_nats: bool = False,
        center: Center | None = None,
        priors: Mapping[str, Prior] | None = None,
        sibling: Sibling | None = None,
    ) -> None:
        self.in_nats = in_nats
        self.observed = rows.L if in_nats else np.log(rows.L)
        """(rows,): measured losses, on the scale of the fit."""
        center = center or rows.center()
        self.rows, self.law, self.fixed, self.tied, self.center = rows, law, dict(fixed or {}), tied, center
        self.given_law = given
        self.supervised_law = supervised_law if given is None else supervised_kind(given)
        self.sibling = sibling if given is None else None
        self.supervised_coordinates = _supervised_part(self.supervised_law, center, self.sibling)
        self.inner = 0 if given is not None else len(self.supervised_coordinates.space)
        """Number of coordinates of the supervised law, 0 where it is given."""
        self.distillation_coordinates = coordinates_of(law, center, COORDINATES) if law else None
        self.given_theta = None if given is None else np.atleast_2d(self.supervised_coordinates.theta(given))
        space = (
            []
            if given is not None
            else [(f"supervised {c.name}", c) for c in self.supervised_coordinates.space]
        )
        space += (
            []
            if self.distillation_coordinates is None
            else [(c.name, c) for c in self.distillation_coordinates.space]
        )
        self.priors = dict(priors or {})
        space = [(name, with_prior(c, self.priors.get(name))) for name, c in space]
        pins = {**constants_of(law), **self.fixed}
        names = [name for name, _ in space]
        for name in pins:
            if name not in names:
                fittable = [part.rpartition("ln ")[2] for part in names if "ln " in part and "*" not in part]
                raise InputError(
                    f"cannot fix {name.rpartition('ln ')[2]}; coefficients that can be fixed here: "
                    f"{', '.join(dict.fromkeys(fittable)) or 'nothing'}"
                )
        self.fixed_values = np.array([pins.get(name, 0.0) for name in names])
        tie_matrix = np.eye(len(names))
        free = [i for i, name in enumerate(names) if name not in pins]
        if tied and given is None:
            keep, drop = (names.index(f"supervised ln gamma*{name}") for name in ("alpha", "beta"))
            tie_matrix[:, keep] += tie_matrix[:, drop]
            free.remove(drop)
        self.tie_matrix = tie_matrix[:, free]
        """(all, p): matrix from the free coordinates to all of them."""
        self.names = tuple(names[i] for i in free)
        self.space = tuple(space[i][1] for i in free)

    @property
    def size(self) -> int:
        """Number of fitted coordinates."""
        return len(self.names)

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounds of the fitted coordinates, two (p,) arrays."""
        return np.array([c.lower for c in self.space]), np.array([c.upper for c in self.space])

    def prior(self) -> tuple[Array, Array]:
        """Return center and standard deviation of the weak priors, two (p,) arrays."""
        return np.array([c.prior for c in self.space]), np.array([c.prior_sd for c in self.space])

    def laws(
        self, theta: Array, members: NDArray[np.intp] | None = None
    ) -> tuple[AnySupervisedLaw, DistillationLaw | None]:
        """Return both laws at ``theta`` (b, p); coefficients have shape (b, 1), or (1, 1) where given."""
        full = self.fixed_values + theta @ self.tie_matrix.T
        if self.given_theta is None:
            supervised, rest = self.supervised_coordinates.law(full[:, : self.inner]), full[:, self.inner :]
        else:
            given = (
                self.given_theta
                if len(self.given_theta) == 1 or members is None
                else self.given_theta[members]
            )
            supervised, rest = self.supervised_coordinates.law(given), full
        return (
            supervised,
            None if self.distillation_coordinates is None else self.distillation_coordinates.law(rest),
        )

    def evaluate(self, theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return losses (b, n), on the scale of the fit, and their Jacobian (b, p, n)."""
        rows, n = self.rows, self.rows.n_supervised
        supervised, distilled = self.laws(theta, members)
        inner = self.inner
        loss = np.empty((len(theta), len(rows)))
        jacobian = np.zeros((len(theta), len(self.fixed_values), len(rows)))
        first = supervised.derivatives(rows.N[:n], rows.D[:n])
        loss[:, :n] = first.loss
        if inner:
            for i, column in enumerate(self.supervised_coordinates.columns(supervised, first.own)):
                jacobian[:, i, :n] = column
        if distilled is not None and self.distillation_coordinates is not None:
            second = distilled.derivatives(rows.N[n:], rows.D[n:], rows.L_T, supervised)
            loss[:, n:] = second.loss
            if inner:
                for i, column in enumerate(
                    self.supervised_coordinates.columns(supervised, second.supervised)
                ):
                    jacobian[:, i, n:] = column
            for i, column in enumerate(
                self.distillation_coordinates.columns(distilled, second.own), start=inner
            ):
                jacobian[:, i, n:] = column
        if not self.in_nats:
            jacobian /= loss[:, None, :]
            loss = np.log(loss)
        return loss, np.matmul(self.tie_matrix.T, jacobian)

    def with_rows(self, rows: Rows) -> Model:
        """Return this model for other rows, in the same coordinates."""
        return Model(
            rows, self.law, supervised_law=self.supervised_law, fixed=self.fixed, tied=self.tied,
            given=self.given_law, in_nats=self.in_nats, center=self.center, priors=self.priors,
            sibling=self.sibling,
        )  # fmt: skip

    def evaluate_at(self, theta: Array) -> tuple[Array, Array]:
        """Return losses (n,), on the scale of the fit, and their Jacobian (n, p) at one point (p,)."""
        loss, jacobian = self.evaluate(theta[None], np.zeros(1, np.intp))
        return loss[0], jacobian[0].T


def trained_models(table: pd.DataFrame) -> NDArray[np.intp]:
    """Return a number (rows,) for each trained model of a validated table: each seed of each run."""
    return table.groupby(["run", "seed"], sort=False, dropna=False).ngroup().to_numpy().astype(np.intp)


def last_tokens(table: pd.DataFrame) -> Array:
    """Return the tokens (rows,) of the last usable checkpoint of each row's model."""
    tokens = table["tokens"].where(table["excluded"] == "")
    return tokens.groupby(trained_models(table)).transform("max").to_numpy(np.float64)


def law_names(laws: Sequence[str]) -> list[str]:
    """Return the laws asked for, without duplicates; ``module:name`` loads one of another module.

    Raises:
        InputError: if that is not a list of names.
    """
    if isinstance(laws, str) or not laws or not all(isinstance(law, str) for law in laws):
        raise InputError(f"laws must be a list of names, for example ['published'], not {laws!r}")
    return list(dict.fromkeys(load_law(law) if ":" in law else law for law in laws))


def constants_of(law: str | None) -> dict[str, float]:
    """Return the coordinates that a law fixes by definition, by name, with their values."""
    return {"ln gamma": 0.0} if law == "published-7" else {}


def _supervised_part(law: str, center: Center, sibling: Sibling | None) -> AnySupervisedCoordinates[Any]:
    """Return the coordinates of the supervised law: its own, or those of the map from a sibling's."""
    if sibling is None:
        return coordinates_of(law, center, SUPERVISED_COORDINATES)
    return SiblingCoordinates(sibling, center.lowest_loss)


def coordinates_of(law: str, center: Center, laws: Mapping[str, Callable[[Center], T]]) -> T:
    """Return the coordinates of a law by name.

    Args:
        law: Its name.
        center: Center of the coordinates.
        laws: ``COORDINATES`` of distillation laws or ``SUPERVISED_COORDINATES``.

    Raises:
        InputError: for an unknown name.
    """
    if not find_kind(law, laws):
        kind = "supervised law" if laws is SUPERVISED_COORDINATES else "law"
        raise InputError(f"unknown {kind} {law!r}; accepted: {', '.join(laws)}")
    return laws[law](center)
