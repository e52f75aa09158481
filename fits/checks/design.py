"""Checks of which coefficients a table's design can identify, before fitting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fits.estimation.joint import DEFAULT_COEFFICIENTS, FreeCoefficients, Recipe
from fits.estimation.model import Rows
from fits.estimation.settings import check_options, fix_gamma
from fits.table.findings import Finding
from fits.table.flops import accounting_lines, table_accounting
from fits.table.row_groups import check_groups, replicate_sd, replicates
from fits.table.subsample import READ_AS, THINNED
from fits.table.validation import unit_mismatch_of_students
from scaling.errors import InputError
from scaling.laws import SupervisedLaw
from scaling.repeated_data import MANY_EPOCHS
from scaling.units import format_number

TOKENS_PER_PARAM = (1.0, 1e6)
"""Plausible range of the median tokens per parameter."""
COLLINEAR_CORRELATION = 0.98
"""Correlation of ln N and ln D above which their exponents are not identifiable."""
SAME_BUDGET_FACTOR = 1.5
"""Factor of compute within which runs have one budget."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DesignReport:
    """Summary of a table, its unusable rows and design findings."""

    lines: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """True if the design cannot be fitted."""
        return any(finding.level == "refuse" for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"{finding.level}: {finding}" for finding in self.findings)])


def check(
    table: pd.DataFrame,
    supervised: SupervisedLaw | None = None,
    architecture: Mapping[str, float] | None = None,
    *,
    gamma: str | float = "auto",
    fixed: Mapping[str, float] | None = None,
    tied: bool = False,
) -> DesignReport:
    """Check the design of a table without fitting it.

    Args:
        table: A validated table.
        supervised: A supervised law that will not be fitted.
        architecture: As in :func:`fits.fit`.
        gamma: As in :func:`fits.fit`; fewer free coefficients need fewer runs.
        fixed: As in :func:`fits.fit`.
        tied: As in :func:`fits.fit`.

    Returns:
        A summary of the table and its findings.

    Raises:
        InputError: for a coefficient that cannot be fixed here.

    >>> import fits
    >>> from fits import datasets
    >>> report = fits.check(fits.validate(datasets.figure1()))
    >>> report.refused
    True
    """
    rows, n = Rows.of(table), int((table["excluded"] == "").sum())
    lines = [
        f"{n} of {len(table)} rows can be used: {rows.n_supervised} supervised, "
        f"{rows.n_distillations} distillation"
    ]
    lines += [f"  {text}" for text in accounting_lines(table_accounting(table, architecture))]
    lines += [
        f"  excluded: {c} x {reason} ({_row_numbers(table, str(reason))})"
        for reason, c in table["excluded"].value_counts().items()
        if reason
    ]
    for kind, N, D in (
        ("supervised", rows.N[: rows.n_supervised], rows.D[: rows.n_supervised]),
        ("distillation", rows.N[rows.n_supervised :], rows.D[rows.n_supervised :]),
    ):
        if len(N):
            lines.append(
                f"  {kind}: {_counted(len(distinct_levels(N)), 'size')} {_span(N)}, "
                f"{_counted(len(distinct_levels(D)), 'token count')} {_span(D)}"
            )
    if rows.n_distillations:
        lines.append(
            f"  teachers: {_counted(len(np.unique(rows.L_T)), 'loss', 'losses')} "
            f"{rows.L_T.min():.4g} to {rows.L_T.max():.4g}"
        )
        reasons = missing_for_published_law(rows)
        if reasons:
            lines.append(f"  the published 8-coefficient law cannot be identified: only {', '.join(reasons)}")
    repeated_rows = replicates(table)
    if len(repeated_rows):
        lines.append(
            f"  equal configurations differ by {100 * replicate_sd(repeated_rows):.2g} % (sd of ln loss, "
            f"{len(repeated_rows)} rows of {repeated_rows['cell'].nunique()} configurations)"
        )
    lines += [f"  {remark}" for remark in table_notes(table)]
    laws = ("effective-tokens",) if rows.n_distillations else ()
    recipe = Recipe(laws=laws, pins=dict(fixed or {}), tied=tied, given=supervised)
    check_options(rows, recipe, gamma=gamma, given="the supervised law given")
    findings = design_findings(table, rows, supervised, fix_gamma(recipe, gamma)[0].free())
    if not any(finding.level == "refuse" for finding in findings):
        lines.append("  the design can be fitted" if findings else "  the design is sufficient; no warnings")
    return DesignReport(lines=tuple(lines), findings=tuple(findings))


def _span(values: np.ndarray) -> str:
    """Return the range of sizes or tokens in words; one number where all are equal."""
    ends = [format_number(float(end)) for end in (values.min(), values.max())]
    return " to ".join(dict.fromkeys(ends))


def design_findings(
    table: pd.DataFrame,
    rows: Rows,
    supervised: SupervisedLaw | None,
    free: FreeCoefficients = DEFAULT_COEFFICIENTS,
) -> list[Finding]:
    """Return all findings about a table for a fit of ``free`` coefficients to it."""
    findings = [] if supervised is not None else check_supervised(rows, free)
    if rows.n_distillations:
        findings += check_distillation(rows, supervised, free)
    elif supervised is not None:
        findings.append(
            Finding(
                level="refuse",
                message="there is nothing to fit: the supervised law is given, and no row is a distillation",
                remedy="Add distillations, or fit the supervised runs alone",
            )
        )
    return findings + check_table(table)


def raise_refusals(findings: Iterable[Finding]) -> None:
    """Raise the findings of level "refuse" as one InputError."""
    refused = [str(finding) for finding in findings if finding.level == "refuse"]
    if refused:
        raise InputError("; ".join(refused))


def table_notes(table: pd.DataFrame) -> list[str]:
    """Return notes on changes made when the table was read, other than exclusions."""
    thinned = list(table.attrs.get(READ_AS, []))
    thinned += [table.attrs[THINNED]] if THINNED in table.attrs else []
    if "tokens_from" not in table:
        return thinned
    filled = table.loc[(table["tokens_from"].fillna("") != "") & (table["excluded"] == ""), "tokens_from"]
    return thinned + [
        f"the tokens of {count} rows are {rule}; valid only if compute was counted in this way, for the "
        "run's training alone, without the teacher's inference"
        for rule, count in filled.value_counts().items()
    ]


def check_table(table: pd.DataFrame) -> list[Finding]:
    """Check that rows are comparable, and that checkpoints of one run are named."""
    used = table[table["excluded"] == ""]
    found: list[Finding] = []
    methods = _distinct_values(used[used["kind"] == "distillation"], "method")
    if len(methods) > 1:
        found.append(
            Finding(
                level="warn",
                message=f"the distillations used {len(methods)} methods ({', '.join(methods[:4])}), pooled "
                "here",
                remedy="Fit each method's table alone, or see leave_groups_out('method') for how much they "
                "differ",
            )
        )
    contexts = _distinct_values(used, "context")
    if len(contexts) > 1:
        found.append(
            Finding(
                level="warn",
                message=f"the runs have {len(contexts)} contexts ({', '.join(contexts[:4])}), pooled here: a "
                "longer one lowers the loss, and costs more",
                remedy="Fit each context's table alone",
            )
        )
    repeated = used["epochs"] > MANY_EPOCHS if "epochs" in used else pd.Series(False, index=used.index)
    if repeated.any():
        found.append(
            Finding(
                level="warn",
                message=f"{repeated.sum()} of {len(used)} runs repeat their text more than {MANY_EPOCHS:g} "
                f"times (up to {used['epochs'].max():.1f}), where another epoch is worth clearly less than "
                "new text: D's coefficients are biased by it",
                remedy="Leave those runs out, or repeat them on more text",
            )
        )
    ratio = float((used["tokens"] / used["params"]).median())
    if not TOKENS_PER_PARAM[0] < ratio < TOKENS_PER_PARAM[1]:
        found.append(
            Finding(
                level="warn",
                message=f"half of the runs have {'less' if ratio < 1 else 'more'} than {ratio:.2g} tokens "
                "per parameter, which is rare in training",
                remedy="Check that the columns of parameters and tokens are not each other's, or compute's",
            )
        )
    return found + check_groups(table)


def _distinct_values(table: pd.DataFrame, column: str) -> list[str]:
    return sorted(table[column].dropna().astype(str).unique()) if column in table else []


def distinct_levels(values: np.ndarray, ratio: float = 1.15) -> np.ndarray:
    """Return the distinct levels of a size: geometric means of values within ``ratio`` of the smallest."""
    ordered = np.unique(np.log(values))
    starts: list[int] = []
    for i, value in enumerate(ordered):
        if not starts or value - ordered[starts[-1]] > np.log(ratio):
            starts.append(i)
    return np.exp([part.mean() for part in np.split(ordered, starts[1:])]) if starts else ordered


def check_supervised(rows: Rows, free: FreeCoefficients = DEFAULT_COEFFICIENTS) -> list[Finding]:
    """Check which free coefficients the supervised runs identify."""
    N, D = rows.N[: rows.n_supervised], rows.D[: rows.n_supervised]
    if not len(N):
        return [
            Finding(
                level="refuse",
                message="the table has distillations only, and a distillation law needs a supervised law",
                remedy="Add supervised runs of the same models and data, or give a calibration whose "
                "supervised law applies (--supervised)",
            )
        ]
    count, most = _counted(len(N), "supervised run"), free.supervised
    if len(N) < free.min_supervised_runs:
        return [
            Finding(
                level="refuse",
                message=f"{count} cannot determine the {_counted(most, 'free coefficient')} of a supervised "
                "law",
                remedy=f"Train at least {most + 4} (three sizes by three token counts), hold some "
                f"coefficients ({most + 1} runs are the least; --fix E=1.7 and --tied need one fewer each), "
                "or give a calibration's law (--supervised)",
            )
        ]
    sizes, tokens = distinct_levels(N), distinct_levels(D)
    if len(sizes) < 2 or len(tokens) < 2:
        single_level, name = (sizes, "model size") if len(sizes) < 2 else (tokens, "token count")
        return [
            Finding(
                level="refuse",
                message=f"every supervised run has one {name} ({single_level[0]:.3g}): the term of this "
                "variable is not identifiable",
                remedy=f"Add runs at two more {name}s, at least a factor of 4 apart",
            )
        ]
    found: list[Finding] = []
    if len(N) < most + 4:
        found.append(
            Finding(
                level="warn",
                message=f"{count} for {_counted(most, 'free coefficient')}: intervals depend on the weak "
                "priors",
                remedy="Train at least three sizes by three token counts, which determine the coefficients "
                "without priors",
            )
        )
    found += _check_collinear(N, D)
    for name, level in (("model sizes", sizes), ("token counts", tokens)):
        if len(level) < 2 + free.asymptote:
            found.append(
                Finding(
                    level="warn",
                    message=f"only {len(level)} {name} ({', '.join(f'{v:.3g}' for v in level)}): "
                    "an exponent and an asymptote cannot be separated",
                    remedy=f"Add a third of the {name}, beyond the range you have",
                )
            )
    for name, values in (("parameters", N), ("tokens", D)):
        span = float(values.max() / values.min())
        if span < 8:
            found.append(
                Finding(
                    level="warn",
                    message=f"{name} span a factor of {span:.2g} only",
                    remedy="Exponents need a factor of 10 at least; add runs at the cheap end",
                )
            )
    return found


def _check_collinear(N: np.ndarray, D: np.ndarray) -> list[Finding]:
    """Warn if sizes and token counts are collinear: at equal compute, or at a fixed ratio."""
    correlation = float(np.corrcoef(np.log(N), np.log(D))[0, 1])
    compute, ratio = 6 * N * D, D / N
    one = compute.max() < SAME_BUDGET_FACTOR * compute.min()
    if one or correlation < -COLLINEAR_CORRELATION:
        message = "all supervised runs have one compute" if one else "tokens fall as parameters rise"
        message += (
            f" (6 N D = {_format_range(compute)} FLOPs): one IsoFLOP profile identifies the best size for "
        )
        message += "that budget, not how the loss falls with compute"
        remedy = "Add a second budget, at least a factor of 4 away, with three sizes or more"
        return [Finding(level="warn", message=message, remedy=remedy)]
    if correlation > COLLINEAR_CORRELATION:
        where = " everywhere" if ratio.max() < 1.5 * ratio.min() else ""
        message = (
            f"tokens move with parameters (correlation {correlation:.3f}, {_format_range(ratio)} tokens per "
        )
        message += f"parameter{where}): alpha and beta cannot be separated"
        remedy = "Add runs at a quarter and at four times these tokens per parameter, for two sizes"
        return [Finding(level="warn", message=message, remedy=remedy)]
    return []


def _format_range(values: np.ndarray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


def check_distillation(
    rows: Rows, supervised: SupervisedLaw | None, free: FreeCoefficients = DEFAULT_COEFFICIENTS
) -> list[Finding]:
    """Check which free coefficients the distillations identify.

    With a supervised law it also checks that some teachers are better than the supervised students, and some
    worse.
    """
    n = rows.n_supervised
    N, D, L_T = rows.N[n:], rows.D[n:], rows.L_T
    found: list[Finding] = []
    if len(N) < free.min_distillation_runs:
        most = free.distillation
        return [
            Finding(
                level="refuse",
                message=f"{_counted(len(N), 'distillation')} cannot determine the "
                f"{_counted(most, 'free coefficient')} of the distillation law",
                remedy=f"Distil at least {max(8, most + 1)}, for example two students from four teachers each"
                + (", or fit effective-tokens, which has 3 coefficients" if most > 3 else ""),
            )
        ]
    teachers = np.unique(np.round(L_T, 4))
    if len(teachers) < 3:
        found.append(
            Finding(
                level="warn",
                message=f"the distillations use {len(teachers)} teacher{'s' * (len(teachers) > 1)} only: "
                "dependence on the teacher's loss is not identifiable",
                remedy="Add teachers, some better and some worse than the students' own loss",
            )
        )
    if supervised is not None:
        mismatch = unit_mismatch_of_students(rows.L[n:], L_T, supervised.loss(N, D))
        if mismatch:
            found.append(Finding(level="warn", message=mismatch, remedy="Give all losses in nats/token"))
        ratio = L_T / supervised.loss(N, D)
        better = float(np.mean(ratio < 1))
        if better in (0.0, 1.0):
            side, other = ("better", "worse") if better else ("worse", "better")
            found.append(
                Finding(
                    level="warn",
                    message=f"every teacher is {side} than its student would be alone "
                    f"(L_T/Ls {ratio.min():.3f} to {ratio.max():.3f}): "
                    f"{'eps and q are' if better else 'k is'} not determined",
                    remedy=f"Add teachers that are {other} than the student's own supervised loss",
                )
            )
    return found


def check_fit(kind: str, observed: np.ndarray, predicted: np.ndarray) -> list[Finding]:
    """Check that the residuals are small beside the spread of the losses; losses in nats/token."""
    residual = np.log(observed / predicted)
    spread, error = float(np.std(np.log(observed))), float(np.sqrt(np.mean(residual**2)))
    if error < 0.05 and error < 0.6 * spread:
        return []
    return [
        Finding(
            level="warn",
            message=f"the residual of the {kind} runs is {100 * error:.1f} % rms, and their losses differ by "
            f"{100 * spread:.1f} %: the law does not describe them",
            remedy="Check columns and units, and that runs were tuned and trained alike",
        )
    ]


def missing_for_published_law(rows: Rows) -> list[str]:
    """Return what the design lacks to identify the published 8-coefficient law; empty if it can."""
    n = rows.n_supervised
    N, D, L_T = rows.N[n:], rows.D[n:], rows.L_T
    needs = (
        (len(N), 24, "distillation", "distillations"),
        (len(distinct_levels(N)), 3, "student size", "student sizes"),
        (len(distinct_levels(D)), 3, "student token count", "student token counts"),
        (len(distinct_levels(L_T, 1.01)), 4, "teacher loss", "teacher losses"),
    )
    return [
        f"{_counted(have, one, many)}, of at least {least}"
        for have, least, one, many in needs
        if have < least
    ]


def _row_numbers(table: pd.DataFrame, reason: str) -> str:
    rows = [str(i + 1) for i in np.flatnonzero(table["excluded"] == reason)]
    return f"row{'s' * (len(rows) > 1)} {', '.join(rows[:6])}" + (", ..." if len(rows) > 6 else "")


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
