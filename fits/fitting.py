"""From a table of runs to laws with uncertainty: the one function most users need, and what it returns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fits.bootstrap import bootstrap
from fits.design import Finding, check_distillation, check_supervised, published_reasons
from fits.estimate import Estimate, Objective, estimate
from fits.heldout import HeldOut, largest_compute
from fits.model import LAWS, Model, Rows
from fits.runs import validate
from fits.solver import Array
from scaling.calibration import Calibration
from scaling.errors import InputError
from scaling.laws import DistillationLaw, SupervisedLaw, coefficients

if TYPE_CHECKING:
    from fits.plots import Plots

SUPERVISED = "supervised"
OUTLIER = 4.0
"""Residuals beyond this many standard deviations are flagged (and kept)."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Laws fitted to a table, with everything needed to judge them."""

    table: pd.DataFrame
    """The validated table with ``predicted`` (nats/token, default law), ``residual`` (observed - predicted)
    and ``outlier`` (a reason, or empty)."""
    estimates: Mapping[str, Estimate]
    """By law: the first is the joint fit; further laws are conditional on its supervised law."""
    supervised: SupervisedLaw
    distillation: Mapping[str, DistillationLaw]
    draws: Mapping[str, Mapping[str, Array]]
    """Coefficients by law and name, each (draws,); row i of all of them is one draw."""
    held_out: tuple[HeldOut, ...]
    findings: tuple[Finding, ...]
    """What the design limits."""
    notes: tuple[str, ...]
    """Decisions taken on the way: gamma, laws left out, priors."""
    objective: Objective
    resample: str
    name: str
    source: str
    given: str
    """Where the supervised law came from, if it was not fitted here."""
    seconds: float

    @property
    def default(self) -> str | None:
        """The law that answers questions unless another is asked for; None without distillations."""
        return next(iter(self.distillation), None)

    @property
    def main(self) -> Estimate:
        """The joint estimate."""
        return next(iter(self.estimates.values()))

    def sampled(self, law: str | None) -> tuple[SupervisedLaw, DistillationLaw | None]:
        """Both laws with every draw: coefficients of shape (draws, 1). ``law`` None gives the default."""
        sampled = self.calibration.sampled_supervised()
        return sampled, self.calibration.sampled_law(law) if self.distillation else None

    @cached_property
    def calibration(self) -> Calibration:
        """What the planner reads: the laws, the draws, the region and the provenance."""
        from fits.export import calibration

        return calibration(self)

    def summary(self) -> str:
        """The report as text."""
        from fits.report import text

        return text(self)

    @property
    def plot(self) -> Plots:
        """The figures of this fit: ``fit.plot.law()``, ``.isoflop()``, ``.predicted()``."""
        from fits.plots import Plots

        return Plots(self)


def fit(
    runs: pd.DataFrame,
    *,
    laws: Sequence[str] | None = None,
    supervised: SupervisedLaw | Calibration | None = None,
    gamma: str | float = "auto",
    fixed: Mapping[str, float] | None = None,
    tied: bool = False,
    objective: Objective | None = None,
    starts: int = 48,
    draws: int = 400,
    resample: str = "wild",
    hold_out: bool = True,
    seed: int = 0,
    name: str = "fit",
    source: str = "",
) -> Fit:
    """Fit the supervised law and the distillation laws to a table of runs.

    ``laws`` names distillation laws, the first being fitted jointly with the supervised law and becoming the
    default; without it that is "effective-tokens", and "published" joins where the design identifies it.
    ``supervised`` gives a supervised law instead of fitting one (a calibration brings its draws along).
    ``gamma`` is 1, "free", or "auto" (free only if BIC asks for it). ``fixed`` pins coefficients of the
    supervised law (E, gamma) or of the distillation law (k, q, eps, c0, f1); ``tied`` makes alpha = beta.

    Raises InputError if the table is unusable or its design cannot identify any law.
    """
    began = time.perf_counter()
    objective = objective or Objective()
    table = validate(runs)
    rows = Rows.of(table)
    findings = _design(rows, supervised)
    theta_given, theta_draws, given = _given(rows, supervised, draws)
    pins, notes = _gamma(rows, gamma, fixed or {}, tied, objective, starts, seed, theta_given)
    chosen, more = _laws(rows, laws)
    notes += more
    options = {"starts": starts, "seed": seed}

    first = chosen[0] if chosen else None
    model = Model(rows, first, fixed=_pins(pins, first), tied=tied, given=theta_given)
    joint = estimate(model, objective, **options)
    sampled = _draw(joint, draws, resample, seed, theta_draws)
    laws_found = model.laws(joint.theta[None])
    theta_supervised = model.supervised.theta(_scalar(laws_found[0]))[None]
    estimates = {first or SUPERVISED: joint}
    distillation = {first: _scalar(laws_found[1])} if first else {}
    supervised_draws, law_draws = (
        model.laws(sampled, np.arange(draws))
        if theta_draws is None
        else _laws_of(model, sampled, theta_draws)
    )
    all_draws = {SUPERVISED: _columns(supervised_draws, draws)}
    if first:
        all_draws[first] = _columns(law_draws, draws)
    for kind in chosen[1:]:
        given_draws = model.supervised.theta(SupervisedLaw(**all_draws[SUPERVISED]))
        other = Model(rows, kind, given=theta_supervised, centre=model.centre)
        found = estimate(other, objective, **options)
        conditional = Model(rows, kind, given=given_draws, centre=model.centre)
        theta = bootstrap(found, draws, method=resample, seed=seed, model=conditional).theta
        estimates[kind] = found
        distillation[kind] = _scalar(other.laws(found.theta[None])[1])
        all_draws[kind] = _columns(conditional.laws(theta, np.arange(draws))[1], draws)

    law = _scalar(laws_found[0])
    findings += check_distillation(rows, law) if rows.distillations else []
    held = _hold_out(table, estimates, pins, tied, theta_given, objective, starts, seed) if hold_out else ()
    return Fit(
        table=_annotated(table, joint),
        estimates=estimates,
        supervised=law,
        distillation=distillation,
        draws=all_draws,
        held_out=held,
        findings=tuple(dict.fromkeys(findings)),
        notes=tuple(notes),
        objective=objective,
        resample=resample,
        name=name,
        source=source,
        given=given,
        seconds=time.perf_counter() - began,
    )


def _design(rows: Rows, supervised: SupervisedLaw | Calibration | None) -> list[Finding]:
    """The findings before fitting; the refusals among them become one InputError."""
    findings: list[Finding] = []
    if supervised is None:
        if rows.supervised == 0:
            raise InputError(
                "the table has distillations only; a distillation law stands on a supervised law: add supervised "
                "runs of the same models and data, or give a calibration whose supervised law applies (--supervised)"
            )
        findings += check_supervised(rows)
    if rows.distillations:
        findings += check_distillation(rows, None)
    refused = [str(finding) for finding in findings if finding.level == "refuse"]
    if refused:
        raise InputError("; ".join(refused))
    return findings


def _given(
    rows: Rows, supervised: SupervisedLaw | Calibration | None, draws: int
) -> tuple[Array | None, Array | None, str]:
    """Coordinates (1, 6) and (draws, 6) of a supervised law that is not fitted."""
    if supervised is None:
        return None, None, ""
    space = Model(rows, None if not rows.distillations else LAWS[0]).supervised
    if isinstance(supervised, SupervisedLaw):
        return space.theta(supervised)[None], None, "a supervised law taken as known"
    theta = space.theta(supervised.supervised)[None]
    if not supervised.draws:
        return theta, None, f"{supervised.name} (without uncertainty)"
    columns = supervised.draws[SUPERVISED]
    pick = np.arange(draws) % len(columns["E"])
    return theta, space.theta(SupervisedLaw(**{n: v[pick] for n, v in columns.items()})), supervised.name


def _gamma(
    rows: Rows, gamma: str | float, fixed: Mapping[str, float], tied: bool, objective: Objective, starts: int,
    seed: int, given: Array | None,
) -> tuple[dict[str, float], list[str]]:  # fmt: skip
    """Pinned coefficients, gamma among them unless it is free, and a note on how gamma was decided."""
    pins = dict(fixed)
    if given is not None or gamma == "free" or "gamma" in pins:
        return pins, []
    if gamma != "auto":
        try:
            return pins | {"gamma": float(gamma)}, []
        except ValueError:
            raise InputError(f"gamma is 'auto', 'free' or a number, not {gamma!r}") from None
    n = rows.supervised
    if n < 12:
        return pins | {"gamma": 1.0}, [f"gamma = 1: {n} supervised runs are too few to ask for a free one"]
    alone = replace(
        rows,
        N=rows.N[:n],
        D=rows.D[:n],
        L=rows.L[:n],
        L_T=rows.L_T[:0],
        group=rows.group[:n],
        index=rows.index[:n],
    )
    free = estimate(
        Model(alone, None, fixed=_pins(pins, None), tied=tied), objective, starts=starts, seed=seed
    )
    pinned = Model(alone, None, fixed=_pins(pins | {"gamma": 1.0}, None), tied=tied)
    one = estimate(pinned, objective, starts=starts, seed=seed, sigma=free.sigma)
    gain = 2 * (one.objective - free.objective) - float(np.log(n))
    said = f"BIC of a free gamma is {abs(gain):.1f} {'lower' if gain > 0 else 'higher'}"
    if gain > 2.0:
        return pins, [f"gamma is free: {said} than of gamma = 1 on the {n} supervised runs"]
    return pins | {"gamma": 1.0}, [f"gamma = 1: {said} on the {n} supervised runs"]


def _pins(pins: Mapping[str, float], law: str | None) -> dict[str, float]:
    """Pins by coordinate name. E and gamma are the supervised law's; the rest the distillation law's."""
    named = {}
    for coefficient, number in pins.items():
        if not number > 0:
            raise InputError(f"{coefficient} is pinned at {number}; coefficients are positive")
        prefix = f"{SUPERVISED} " if coefficient in ("E", "gamma") else ""
        if prefix or law:
            named[f"{prefix}ln {coefficient}"] = float(np.log(number))
    return named


def _laws(rows: Rows, laws: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The distillation laws to fit, default first, and why one is missing."""
    if not rows.distillations:
        return [], []
    if laws is not None:
        return list(laws), []
    reasons = published_reasons(rows)
    if reasons:
        return ["effective-tokens"], [
            f"the published 8-coefficient law is not fitted: only {', '.join(reasons)}"
        ]
    return ["effective-tokens", "published"], []


def _draw(joint: Estimate, draws: int, resample: str, seed: int, given: Array | None) -> Array:
    """Bootstrap coordinates (draws, p); each draw has its own supervised law where one was given."""
    model = joint.model
    if given is not None:
        model = Model(model.rows, model.law_name, given=given, centre=model.centre)
    return bootstrap(joint, draws, method=resample, seed=seed, model=model).theta


def _laws_of(model: Model, theta: Array, given: Array) -> tuple[SupervisedLaw, DistillationLaw | None]:
    conditional = Model(model.rows, model.law_name, given=given, centre=model.centre)
    return conditional.laws(theta, np.arange(len(theta)))


def _scalar(law: SupervisedLaw | DistillationLaw | None):  # type: ignore[no-untyped-def]
    """The law with (1, 1) coefficients as one with plain floats."""
    assert law is not None
    return replace(law, **{n: float(np.ravel(v)[0]) for n, v in coefficients(law).items()})  # type: ignore[type-var]


def _columns(law: SupervisedLaw | DistillationLaw | None, draws: int) -> dict[str, Array]:
    """Coefficients of a law of shape (draws, 1) as columns (draws,)."""
    assert law is not None
    return {n: np.broadcast_to(np.ravel(v), (draws,)).copy() for n, v in coefficients(law).items()}


def _annotated(table: pd.DataFrame, joint: Estimate) -> pd.DataFrame:
    """The table with predictions, residuals and flags for outliers."""
    annotated = table.copy()
    index = annotated.index[joint.model.rows.index]
    deviations = joint.residual / joint.sigma
    predicted = np.exp(joint.predicted)
    annotated["predicted"], annotated["residual"], annotated["outlier"] = np.nan, np.nan, ""
    annotated.loc[index, "predicted"] = predicted
    annotated.loc[index, "residual"] = joint.model.rows.L - predicted
    far = np.abs(deviations) > OUTLIER
    annotated.loc[index[far], "outlier"] = [
        f"{abs(d):.1f} sd {'above' if d > 0 else 'below'} the law" for d in deviations[far]
    ]
    return annotated


def _hold_out(
    table: pd.DataFrame, estimates: Mapping[str, Estimate], pins: Mapping[str, float], tied: bool,
    given: Array | None, objective: Objective, starts: int, seed: int,
) -> tuple[HeldOut, ...]:  # fmt: skip
    """Leave the largest-compute runs out, refit every law, predict them."""
    out = largest_compute(table)
    if not out.any():
        return ()
    return hold_out(table, out, "largest compute", estimates, pins, tied, given, objective, starts, seed)


def hold_out(
    table: pd.DataFrame, out: np.ndarray, rule: str, estimates: Mapping[str, Estimate], pins: Mapping[str, float],
    tied: bool, given: Array | None, objective: Objective, starts: int, seed: int,
) -> tuple[HeldOut, ...]:  # fmt: skip
    """Refit every law without the rows ``out`` (rows,) and predict those rows."""
    trained = table.assign(excluded=np.where(out & (table["excluded"] == ""), "held out", table["excluded"]))
    left = table.assign(excluded=np.where(out, table["excluded"], "fitted"))
    rows, tested = Rows.of(trained), Rows.of(left)
    results: list[HeldOut] = []
    supervised = given
    for position, (kind, full) in enumerate(estimates.items()):
        law = None if kind == SUPERVISED else kind
        fixed = _pins(pins, law) if position == 0 else {}
        model = Model(
            rows, law, fixed=fixed, tied=tied and position == 0, given=supervised, centre=full.model.centre
        )
        found = estimate(model, objective, starts=max(starts // 4, 8), seed=seed, near=[full.theta])
        fitted, distilled = model.laws(found.theta[None])
        n = tested.supervised
        if position == 0 and given is None:
            supervised = model.supervised.theta(_scalar(fitted))[None]
            if n:
                predicted = fitted.loss(tested.N[:n], tested.D[:n])[0]
                results.append(
                    _left_out(table, tested, slice(0, n), predicted, rule, SUPERVISED, rows.supervised)
                )
        if distilled is not None and tested.distillations:
            predicted = distilled.loss(tested.N[n:], tested.D[n:], tested.L_T, fitted)[0]
            here = slice(n, len(tested))
            results.append(_left_out(table, tested, here, predicted, rule, kind, rows.distillations))
    return tuple(results)


def _left_out(
    table: pd.DataFrame, tested: Rows, here: slice, predicted: Array, rule: str, law: str, trained: int
) -> HeldOut:
    return HeldOut(
        rule=rule,
        law=law,
        kind=SUPERVISED if law == SUPERVISED else "distillation",
        trained=trained,
        runs=tuple(table["run"].iloc[tested.index[here]]),
        observed=tuple(map(float, tested.L[here])),
        predicted=tuple(map(float, predicted)),
    )
