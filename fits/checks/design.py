"""Checks of which coefficients a table's design can identify, before fitting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fits.checks.supervised_design import check_supervised, counted, distinct_levels
from fits.estimation.joint import DEFAULT_COEFFICIENTS, FreeCoefficients, Recipe
from fits.estimation.model import Rows
from fits.estimation.settings import check_options, fix_gamma
from fits.findings import Finding
from fits.table.flops import accounting_lines, table_accounting
from fits.table.projection import projection_notes
from fits.table.subsample import READ_AS, THINNED
from fits.table.validation.row_groups import check_groups, replicate_sd, replicates
from fits.table.validation.validation import unit_mismatch_of_students
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw
from scaling.repeated_data import MANY_EPOCHS
from scaling.units import format_number

TOKENS_PER_PARAM = (1.0, 1e6)
"""Plausible range of the median tokens per parameter."""


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
    supervised: AnySupervisedLaw | None = None,
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
    rows = Rows.of(table)
    lines = [*_row_lines(table, rows, architecture), *_run_lines(table, rows)]
    laws = ("effective-tokens",) if rows.n_distillations else ()
    recipe = Recipe(laws=laws, pins=dict(fixed or {}), tied=tied, given=supervised)
    check_options(rows, recipe, gamma=gamma, given="the supervised law given")
    findings = design_findings(table, rows, supervised, fix_gamma(recipe, gamma)[0].free())
    if not any(finding.level == "refuse" for finding in findings):
        lines.append("  the design can be fitted" if findings else "  the design is sufficient; no warnings")
    return DesignReport(lines=tuple(lines), findings=tuple(findings))


def _row_lines(table: pd.DataFrame, rows: Rows, architecture: Mapping[str, float] | None) -> Iterator[str]:
    """Yield lines on the rows that can be used, the accounting of FLOPs, and the rows that are excluded."""
    usable = int((table["excluded"] == "").sum())
    yield (
        f"{usable} of {len(table)} rows can be used: {rows.n_supervised} supervised, "
        f"{rows.n_distillations} distillation"
    )
    yield from (f"  {text}" for text in accounting_lines(table_accounting(table, architecture)))
    for reason, count in table["excluded"].value_counts().items():
        if reason:
            yield f"  excluded: {count} x {reason} ({_row_numbers(table, str(reason))})"


def _run_lines(table: pd.DataFrame, rows: Rows) -> Iterator[str]:
    """Yield lines on sizes, tokens, teachers, repeated configurations and how the table was read."""
    n = rows.n_supervised
    for kind, N, D in (
        ("supervised", rows.N[:n], rows.D[:n]),
        ("distillation", rows.N[n:], rows.D[n:]),
    ):
        if len(N):
            yield (
                f"  {kind}: {counted(len(distinct_levels(N)), 'size')} {_span(N)}, "
                f"{counted(len(distinct_levels(D)), 'token count')} {_span(D)}"
            )
    if rows.n_distillations:
        yield (
            f"  teachers: {counted(len(np.unique(rows.L_T)), 'loss', 'losses')} "
            f"{rows.L_T.min():.4g} to {rows.L_T.max():.4g}"
        )
        if reasons := missing_for_published_law(rows):
            yield f"  the published 8-coefficient law cannot be identified: only {', '.join(reasons)}"
    repeated = replicates(table)
    if len(repeated):
        yield (
            f"  equal configurations differ by {100 * replicate_sd(repeated):.2g} % (sd of ln loss, "
            f"{len(repeated)} rows of {repeated['cell'].nunique()} configurations)"
        )
    yield from (f"  {remark}" for remark in table_notes(table))


def _span(values: np.ndarray) -> str:
    """Return the range of sizes or tokens in words; one number where all are equal."""
    ends = [format_number(float(end)) for end in (values.min(), values.max())]
    return " to ".join(dict.fromkeys(ends))


def design_findings(
    table: pd.DataFrame,
    rows: Rows,
    supervised: AnySupervisedLaw | None,
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
    thinned += projection_notes(table)
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
                remedy="distlaw compare-methods tells how much they differ; fit each method's table alone, "
                "or see leave_groups_out('method')",
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


def check_distillation(
    rows: Rows, supervised: AnySupervisedLaw | None, free: FreeCoefficients = DEFAULT_COEFFICIENTS
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
                message=f"{counted(len(N), 'distillation')} cannot determine the "
                f"{counted(most, 'free coefficient')} of the distillation law",
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
        f"{counted(have, one, many)}, of at least {least}" for have, least, one, many in needs if have < least
    ]


def _row_numbers(table: pd.DataFrame, reason: str) -> str:
    rows = [str(i + 1) for i in np.flatnonzero(table["excluded"] == reason)]
    return f"row{'s' * (len(rows) > 1)} {', '.join(rows[:6])}" + (", ..." if len(rows) > 6 else "")
