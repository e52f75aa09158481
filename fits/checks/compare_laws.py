"""Which law describes and predicts the distillations best? Five cross-validations, BIC, and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.checks.design import judge, levels, published_reasons, refuse, remarks
from fits.checks.heldout import hold_out, predictions
from fits.estimation.estimate import Estimate, Objective
from fits.estimation.joint import Recipe
from fits.estimation.model import Rows, last_tokens, law_names
from fits.estimation.replicates import together
from fits.estimation.settings import check_options, decide_gamma, fit_or_separate, with_gamma
from fits.table.runs import validate
from scaling.calibration.calibration import Calibration
from scaling.errors import InputError
from scaling.laws import SupervisedLaw

LAWS = ("published", "effective-tokens", "effective-tokens-capacity")
Mask = NDArray[np.bool_]
OWN_SPLIT = "the table's split"
CHECKS = ("size out", "cell out", "weak to strong", "strong to weak", "few to many tokens", OWN_SPLIT)
"""What is held out: a student size; a student size and token count; better teachers than were fitted; worse
ones; more tokens than were fitted; rows whose column ``split`` is not "fit"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How one law does on one table; errors are root mean squares in nats/token."""

    law: str
    fitted: int
    """Numbers fitted."""
    rmse: float
    bic: float
    condition: float
    agreed: int
    starts: int
    held_out: dict[str, float]
    """By check; a check that the table cannot carry is missing."""
    bias_weak_teachers: float
    """Mean of observed - predicted where the teacher is worse than the student alone; may be nan."""

    @property
    def mean(self) -> float:
        """Geometric mean of the held-out errors."""
        return float(np.exp(np.mean(np.log(list(self.held_out.values()))))) if self.held_out else np.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Laws side by side."""

    scores: tuple[Score, ...]
    """One a law."""
    runs: int
    """Distillations that were fitted."""
    notes: tuple[str, ...] = ()
    """Where the supervised law came from, and which laws were left out."""

    def criteria(self) -> dict[str, dict[str, float]]:
        """Every criterion by name, with each law's value; lower is better."""
        table = {
            "coefficients": {s.law: float(s.fitted) for s in self.scores},
            "rms error, fitted": {s.law: s.rmse for s in self.scores},
            "BIC": {s.law: s.bic for s in self.scores},
        }
        for check in CHECKS:
            if all(check in score.held_out for score in self.scores):
                table[check] = {s.law: s.held_out[check] for s in self.scores}
        return table

    def data(self) -> dict[str, object]:
        """Everything as plain values for JSON; what is not finite is null."""
        bias = {
            s.law: s.bias_weak_teachers if np.isfinite(s.bias_weak_teachers) else None for s in self.scores
        }
        agreed = {s.law: [s.agreed, s.starts] for s in self.scores}
        return {"runs": self.runs, "criteria": self.criteria(), "bias, weak teachers": bias} | {
            "starts that agree": agreed,
            "best on": self.wins(),
            "notes": list(self.notes),
        }

    def wins(self) -> dict[str, list[str]]:
        """For every law the criteria on which no other is better."""
        won: dict[str, list[str]] = {score.law: [] for score in self.scores}
        for name, values in self.criteria().items():
            for law, value in values.items():
                if value == min(values.values()):
                    won[law].append(name)
        return won

    def __str__(self) -> str:
        width = max(len(score.law) for score in self.scores) + 2

        def line(name: str, cells: Sequence[str]) -> str:
            return f"{name:<22}" + "".join(f"{cell:>{width}}" for cell in cells)

        lines = [f"{self.runs} distillations; errors are rms nats/token; * marks the best", ""]
        lines.append(line("", [f"{score.law} " for score in self.scores]))
        for name, values in self.criteria().items():
            digits = 0 if name in ("coefficients", "BIC") else 4
            best = min(values.values())
            lines.append(line(name, [f"{v:.{digits}f}{'*' if v == best else ' '}" for v in values.values()]))
        lines += [
            line("mean of held out", [f"{score.mean:.4f} " for score in self.scores]),
            line("bias, weak teachers", [f"{score.bias_weak_teachers:+.4f} " for score in self.scores]),
            line("condition", [f"{score.condition:.0f} " for score in self.scores]),
            line("starts that agree", [f"{score.agreed}/{score.starts} " for score in self.scores]),
            "",
            *(f"{law}: best on {', '.join(won) or 'nothing'}" for law, won in self.wins().items()),
            *([""] if self.notes else []),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def compare_laws(
    runs: pd.DataFrame,
    laws: Sequence[str] | None = None,
    *,
    supervised: SupervisedLaw | Calibration | None = None,
    gamma: str | float = "auto",
    fixed: Mapping[str, float] | None = None,
    tied: bool = False,
    joint: bool | None = None,
    objective: Objective | None = None,
    thresholds: tuple[float, float, float] | None = None,
    starts: int = 32,
    seed: int = 0,
) -> Comparison:
    """Fit every law to the same runs and cross-validate it five ways.

    ``laws`` are by default those of ``LAWS`` that the design identifies.
    ``supervised`` gives the supervised law where the table has no supervised runs. Every law is fitted as
    :func:`fits.fit` would fit it alone, with its ``gamma``, ``fixed`` (E, gamma), ``tied``, ``joint`` and
    ``objective``; gamma is decided once, for all laws. ``thresholds`` are the teacher losses above which
    "weak to strong" and below which "strong to weak" is trained, and the student tokens below which "few to
    many tokens" is; by default they leave out about a third of the runs. Where the table has a column
    ``split``, everything happens inside the rows that say "fit", and predicting the others is one more check.

    Raises InputError if the table has no distillations, its design cannot identify a law, or an option does
    not apply.
    """
    everything = validate(runs)
    table, out = everything, np.zeros(len(everything), dtype=bool)
    if "split" in everything and (everything["split"] == "fit").any():
        out = (everything["split"] != "fit").to_numpy() & (everything["excluded"] == "").to_numpy()
        table = everything.assign(excluded=np.where(out, "not in the fit split", everything["excluded"]))
    rows = Rows.of(table)
    if not rows.distillations:
        raise InputError("there are no distillations to compare laws on")
    given = supervised.supervised if isinstance(supervised, Calibration) else supervised
    base = Recipe(
        laws=(), pins=dict(fixed or {}), tied=tied, given=given, objective=objective or Objective(),
        starts=starts, seed=seed,
    )  # fmt: skip
    check_options(rows, base, laws=laws, gamma=gamma, joint=joint, given="the supervised law given")
    laws, notes = _laws(rows, laws)
    everywhere = replace(base, laws=tuple(laws))
    refuse(judge(table, rows, given, with_gamma(everywhere, gamma).free()))
    rows, repeated = together(rows, everywhere)
    base, decided = decide_gamma(rows, base, gamma)
    folds = {check: list(masks) for check, masks in splits(table, thresholds).items()}
    split_off = Rows.of(everything.assign(excluded=np.where(out, "", "not held out")))
    scores: list[Score] = []
    for law in laws:
        recipe, estimates, more = fit_or_separate(rows, replace(base, laws=(law,)), joint)
        held_out = {
            check: _pooled(table, rows, masks, check, recipe, estimates) for check, masks in folds.items()
        }
        if split_off.distillations:
            held_out[OWN_SPLIT] = predictions(everything, split_off, estimates, OWN_SPLIT)[-1].rmse
        scores.append(_score(law, estimates[law], {c: e for c, e in held_out.items() if np.isfinite(e)}))
        decided += [f"{law}: {note}" for note in more]
    stands = f"the supervised law is {_source(rows, supervised)}"
    return Comparison(
        scores=tuple(scores),
        runs=rows.distillations,
        notes=(stands, *decided, *remarks(everything), *repeated, *notes),
    )


def _source(rows: Rows, supervised: SupervisedLaw | Calibration | None) -> str:
    if supervised is None:
        return f"fitted to {rows.supervised} supervised runs"
    return f"that of {supervised.name}" if isinstance(supervised, Calibration) else "taken as known"


def _laws(rows: Rows, laws: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The laws to compare, and why one of ``LAWS`` is missing."""
    if laws is not None:
        return law_names(laws), []
    reasons = published_reasons(rows)
    if not reasons:
        return list(LAWS), []
    said = f"the published 8-coefficient law is not compared: only {', '.join(reasons)}"
    return [law for law in LAWS if law != "published"], [said]


def splits(
    table: pd.DataFrame, thresholds: tuple[float, float, float] | None = None
) -> dict[str, Iterator[Mask]]:
    """The rows (n,) of bool that each fold of each check leaves out; a run's checkpoints go by its last."""
    used = ((table["excluded"] == "") & (table["kind"] == "distillation")).to_numpy()
    N, D = table["params"].to_numpy(np.float64), last_tokens(table)
    L_T = table["teacher_loss"].to_numpy(np.float64)
    weak, strong, few = thresholds or (
        float(np.quantile(L_T[used], 0.35)),
        float(np.quantile(L_T[used], 0.65)),
        float(np.quantile(D[used], 0.65)),
    )
    size, count = _level(N, used), _level(D, used)
    cells = np.unique(np.stack([size, count])[:, used], axis=1).T
    return {
        "size out": (used & (size == level) for level in np.unique(size[used])),
        "cell out": (used & (size == a) & (count == b) for a, b in cells),
        "weak to strong": iter([used & ~(weak < L_T)]),
        "strong to weak": iter([used & ~(strong > L_T)]),
        "few to many tokens": iter([used & ~(few > D)]),
    }


def _level(values: NDArray[np.float64], used: Mask) -> NDArray[np.intp]:
    of_level = np.log(levels(values[used], 1.05))
    return np.asarray(np.argmin(np.abs(np.log(values)[:, None] - of_level), axis=1), dtype=np.intp)


def _pooled(
    table: pd.DataFrame,
    rows: Rows,
    masks: Sequence[Mask],
    check: str,
    recipe: Recipe,
    estimates: dict[str, Estimate],
) -> float:
    """Root mean square error over all folds of a check; nan where a fold leaves too little to fit."""
    squares: list[float] = []
    for out in masks:
        gone = int(out[rows.index].sum())
        if not gone or len(rows) - gone < 2 * sum(found.model.size for found in estimates.values()):
            return float("nan")
        try:
            held = hold_out(table, rows, out, check, recipe, estimates)[-1]
        except InputError:
            return float("nan")
        squares += list(held.errors**2)
    return float(np.sqrt(np.mean(squares))) if squares else float("nan")


def _score(law: str, found: Estimate, held_out: dict[str, float]) -> Score:
    rows, n = found.model.rows, found.model.rows.supervised
    residual = (rows.L - found.losses)[n:]
    weak = found.supervised.loss(rows.N[n:], rows.D[n:]) < rows.L_T
    count, mean_square = len(residual) * rows.of_kind(1).independence, float(np.mean(residual**2))
    own = len(found.model.names) - sum(name.startswith("supervised") for name in found.model.names)
    return Score(
        law=law,
        fitted=own,
        rmse=float(np.sqrt(mean_square)),
        bic=float(count * np.log(max(mean_square, 1e-30)) + own * np.log(count)),
        condition=found.condition,
        agreed=found.agreed,
        starts=found.starts,
        held_out=held_out,
        bias_weak_teachers=float(np.mean(residual[weak])) if weak.any() else float("nan"),
    )
