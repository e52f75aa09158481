"""Multipliers of distillation methods on tokens, parameters or compute, against a matched control.

Every run of a method is paired with the run of the control that differs in nothing else, so that effects of
size, tokens, teacher and seed cancel. A law that all runs share (:mod:`fits.methods.multiplier_law`) converts
the difference of losses into the multiple of the input that would have the same effect for the control; near
"no difference" the law hardly matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fits.estimation.bootstrap import bootstrap
from fits.estimation.estimate import Objective, fit_model, scalar_law
from fits.estimation.joint import SUPERVISED
from fits.estimation.model import Rows
from fits.methods.matching import choose_control, last_checkpoints_by_method, match_to_control
from fits.methods.multiplier import (
    LEVEL,
    MIN_CONFIGURATIONS,
    MethodMultiplier,
    estimate_multiplier,
    multiplier_without_pairs,
)
from fits.methods.multiplier_law import FittedMultipliers, MultiplierModel
from fits.table.runs import validate
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, coefficients
from scaling.reports.plan_text import text_table
from scaling.to_plain import nan_to_none

if TYPE_CHECKING:
    from fits.plots.methods import MethodPlots

MULTIPLIERS = {"tokens": "D", "params": "N", "compute": "D"}
"""Inputs that a multiplier applies to, and the variable of the law. The size of a student is fixed, so that
more compute means more tokens."""
COMPUTE_NOTE = (
    "compute is each run's column 'flops'; in a sweep's table that excludes the training of its teacher"
)


@dataclass(frozen=True, kw_only=True)
class MethodComparison:
    """Multipliers of methods against one control, the best first.

    >>> import fits
    >>> import sweeps
    >>> runs = sweeps.shipped("methods")
    >>> runs = runs[runs["method"].isna() | runs["method"].isin(["forward-kl", "taid"])]
    >>> found = fits.compare_methods(runs, control="supervised", draws=20)
    >>> found.to_frame()["method"].tolist(), found.plot.names()
    (['forward-kl', 'taid'], ['multipliers'])
    """

    control: str
    on: str
    """Input that the multipliers apply to: tokens, params or compute."""
    methods: tuple[MethodMultiplier, ...]
    law: AnySupervisedLaw
    """Law shared by all runs, of the control."""
    misfit: float
    """Rms residual of ln loss from the shared law, which cancels in pairs."""
    notes: tuple[str, ...]
    pairs: pd.DataFrame = field(repr=False, compare=False)
    """Every pair: sizes, both losses, ``delta_log_loss`` and ``flops_ratio``."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each method, with its verdict."""
        return pd.DataFrame([asdict(each) | {"verdict": each.verdict} for each in self.methods])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pairs as plain values for JSON; numbers not finite are None."""
        content: dict[str, Any] = nan_to_none(
            {
                "control": self.control,
                "on": self.on,
                "level": LEVEL,
                "methods": self.to_frame().to_dict("records"),
                "law": coefficients(self.law),
                "misfit": self.misfit,
                "notes": self.notes,
            }
        )
        return content

    @property
    def plot(self) -> MethodPlots:
        """Figures of this comparison, listed in :class:`fits.plots.methods.MethodPlots`."""
        from fits.plots.methods import MethodPlots

        return MethodPlots(self)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells, rounded for a person: a row a method that was compared."""
        header = ["method", f"x {self.on}", "90 %", "detectable", "nats/token", "pairs", "configs", "seeds"]
        cells = [
            [
                w.method,
                *(
                    _format_number(w.multiplier),
                    f"{_format_number(w.low)} to {_format_number(w.high)}",
                    _format_number(w.minimum_detectable),
                ),
                *(f"{w.difference:+.4f}", str(w.pairs), str(w.configurations), str(w.seeds)),
            ]
            for w in self.methods
            if w.pairs
        ]
        return header, cells

    @property
    def title(self) -> str:
        """Comparison in words."""
        return f"Multipliers on {self.on} against {self.control}, at the same size, tokens and teacher"

    def verdicts(self) -> list[str]:
        """Return a sentence for every method."""
        return [each.sentence(self.on, self.control) for each in self.methods]

    def __str__(self) -> str:
        notes = [f"note: {note}" for note in self.notes]
        lines = [self.title, "", *text_table(*self.table()), "", *self.verdicts(), "", *notes]
        return "\n".join(lines).rstrip()

    def _repr_html_(self) -> str:
        from scaling.reports.html import html_list, html_table

        lists = html_list("Verdicts", self.verdicts()) + html_list("Notes", self.notes, folded=True)
        return f"<p><b>{self.title}</b></p>{html_table(*self.table())}{lists}"


def compare_methods(
    runs: pd.DataFrame,
    control: str | None = None,
    multiplier: str = "tokens",
    *,
    draws: int = 200,
    seed: int = 0,
) -> MethodComparison:
    """Estimate a multiplier for every method of a table against a control, with 90 % intervals.

    Args:
        runs: One row a run, as :func:`fits.read_runs` returns it, with a column ``method``.
        control: The method, or "supervised", to compare with; by default forward-kl, else supervised.
        multiplier: "tokens", "params" or "compute". Compute is the column ``flops``, which in a sweep's table
            includes the teacher's inference and all generated text, but not the teacher's training; the
            control is assumed to spend it on more tokens for the same student.
        draws: Number of bootstrap draws of the shared law.
        seed: Seed of starts and draws.

    Returns:
        The multipliers, the best first.

    Raises:
        InputError: for an unusable table, an unknown control, or without any matched pair.

    >>> import fits
    >>> import sweeps
    >>> runs = sweeps.shipped("methods")
    >>> runs = runs[runs["method"].isna() | runs["method"].isin(["forward-kl", "taid"])]
    >>> found = fits.compare_methods(runs, draws=20)
    >>> found.control, [each.method for each in found.methods]
    ('forward-kl', ['taid', 'supervised'])
    """
    if multiplier not in MULTIPLIERS:
        raise InputError(f"multiplier must be one of {', '.join(MULTIPLIERS)}, not {multiplier!r}")
    table = last_checkpoints_by_method(validate(runs))
    control = choose_control(table, control)
    _require_two_values(table, "params" if multiplier == "params" else "tokens", multiplier)
    charged = multiplier == "compute"
    if charged:
        _require_flops(table)
    found = _matched_pairs(table, control)
    best, sampled, misfit = _fit_multipliers(table, found, control, MULTIPLIERS[multiplier], draws, seed)
    rng = np.random.default_rng([seed, 5])
    worths = [
        estimate_multiplier(method, pairs, best, sampled, charged=charged, rng=rng)
        if len(pairs)
        else multiplier_without_pairs(method, control)
        for method, pairs in found.items()
    ]
    return MethodComparison(
        control=control,
        on=multiplier,
        methods=tuple(sorted(worths, key=lambda each: -np.nan_to_num(each.multiplier, nan=-1.0))),
        law=scalar_law(best.law),
        misfit=misfit,
        notes=(*_notes(table, found, control), *([COMPUTE_NOTE] if charged else [])),
        pairs=pd.concat(found.values(), ignore_index=True),
    )


def _matched_pairs(table: pd.DataFrame, control: str) -> dict[str, pd.DataFrame]:
    """Return the pairs of every other method with the control, by method.

    Raises:
        InputError: without any pair.
    """
    methods = sorted(set(table["method_or_supervised"]) - {control})
    found = {method: match_to_control(table, method, control) for method in methods}
    if not any(map(len, found.values())):
        raise InputError(
            f"no run of another method has the size, tokens and teacher of a run of {control}: "
            "nothing can be compared; name another control"
        )
    return found


def _require_two_values(table: pd.DataFrame, column: str, multiplier: str) -> None:
    if table[column].nunique() < 2:
        raise InputError(
            f"column {column!r}: every run has {table[column].iloc[0]:g}, so its effect cannot be estimated; "
            f"a multiplier on {multiplier} needs at least two values"
        )


def _require_flops(table: pd.DataFrame) -> None:
    if "flops" not in table:
        raise InputError("no column 'flops' with the compute of each run, its teacher's inference included")
    empty = table.index[~(table["flops"] > 0.0)]
    if len(empty):
        raise InputError(f"row {empty[0] + 1}, column 'flops': not a positive number of FLOPs")


def _fit_multipliers(
    table: pd.DataFrame, found: dict[str, pd.DataFrame], control: str, scaled: str, draws: int, seed: int
) -> tuple[FittedMultipliers, FittedMultipliers, float]:
    """Return the shared law, draws of it, and its rms residual of ln loss; add ``group`` to the pairs.

    Every method has a separate multiplier with every teacher in the shared law.
    """
    groups = table[["method_or_supervised", "teacher_name"]].apply(tuple, axis=1)
    first = groups[table["method_or_supervised"] == control].iloc[0]
    number = {group: i for i, group in enumerate(dict.fromkeys([first, *groups]))}
    for pairs in found.values():
        taught = [""] * len(pairs) if control == SUPERVISED else pairs["teacher_name"]
        pairs["group"] = [number.get((control, teacher), 0) for teacher in taught]
    rows = Rows.of(table)
    block = table.groupby(["params", "tokens"]).ngroup().to_numpy().astype(np.intp)
    rows = replace(rows, group=block[rows.index])  # residuals of one size and token count correlate
    model = MultiplierModel(rows, groups.iloc[rows.index].map(number).to_numpy(np.intp), scaled)
    best = fit_model(model, Objective(), starts=8, seed=seed)
    sampled = bootstrap(best, draws, method="weights", seed=seed)
    misfit = float(np.sqrt(np.mean(best.residual**2)))
    return (
        FittedMultipliers.from_theta(model, best.theta[None]),
        FittedMultipliers.from_theta(model, sampled.theta),
        misfit,
    )


def _notes(table: pd.DataFrame, found: dict[str, pd.DataFrame], control: str) -> Iterator[str]:
    seeds = table["seed"].nunique(dropna=False)
    if seeds == 1:
        yield "one seed: the scatter between configurations is used in place of that between seeds"
    for method, pairs in found.items():
        runs, cells = int((table["method_or_supervised"] == method).sum()), pairs["cell"].nunique()
        if 0 < len(pairs) < runs and method != SUPERVISED:
            yield f"{runs - len(pairs)} of {runs} runs of {method} have no matching run of {control}"
        if len(pairs) > 1 and cells < MIN_CONFIGURATIONS:
            yield f"{method}: {cells} configuration(s) only: the interval applies to them, not in general"
        if len(pairs) and not pairs["same_seed"].all():
            yield f"{method}: {int((~pairs['same_seed']).sum())} pairs have different seeds"
    compared = sum(len(pairs) > 1 for pairs in found.values())
    if compared > 1:
        yield (
            f"of {compared} methods without any effect, {(1 - LEVEL) * compared:.2g} would be called "
            "different by chance"
        )


def _format_number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "?"
