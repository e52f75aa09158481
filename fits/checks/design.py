"""What a table's design can and cannot identify, said before anything is fitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fits.estimation.joint import DEFAULT_COEFFICIENTS, FreeCoefficients, Recipe
from fits.estimation.model import Rows
from fits.estimation.settings import check_options, with_gamma
from fits.table.findings import Finding
from fits.table.flops import basis, counted
from fits.table.row_groups import check_groups, repeats, scatter
from fits.table.subsample import READ_AS, THINNED
from fits.table.validation import students_apart
from scaling.errors import InputError
from scaling.laws import SupervisedLaw
from scaling.planner.warnings import REPEATED

TOKENS_PER_PARAM = (1.0, 1e6)
"""Outside of these the median run is not one that anybody trains."""
COLLINEAR = 0.98
"""Correlation of ln N and ln D beyond which they lie on one line."""
ONE_BUDGET = 1.5  # runs whose compute differs by less than this factor are of one budget


@dataclass(frozen=True, kw_only=True, slots=True)
class DesignReport:
    """What a table holds, what is wrong with its rows, and what its design can identify."""

    lines: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether nothing can be fitted."""
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
    """Check a validated table without fitting it; ``supervised`` is a law that will not be fitted.

    ``architecture``, ``gamma``, ``fixed`` and ``tied`` are those of :func:`fits.fit`: what is not free needs
    fewer runs. Raises InputError for a coefficient that cannot be fixed here.
    """
    rows, n = Rows.of(table), int((table["excluded"] == "").sum())
    lines = [
        f"{n} of {len(table)} rows can be used: {rows.supervised} supervised, "
        f"{rows.distillations} distillation"
    ]
    lines += [f"  {text}" for text in basis(counted(table, architecture))]
    lines += [
        f"  not used: {c} x {reason} ({_rows(table, str(reason))})"
        for reason, c in table["excluded"].value_counts().items()
        if reason
    ]
    for kind, N, D in (
        ("supervised", rows.N[: rows.supervised], rows.D[: rows.supervised]),
        ("distillation", rows.N[rows.supervised :], rows.D[rows.supervised :]),
    ):
        if len(N):
            lines.append(
                f"  {kind}: {_counted(len(levels(N)), 'size')} {N.min():.3g} to {N.max():.3g}, "
                f"{_counted(len(levels(D)), 'token count')} {D.min():.3g} to {D.max():.3g}"
            )
    if rows.distillations:
        lines.append(
            f"  teachers: {_counted(len(np.unique(rows.L_T)), 'loss', 'losses')} "
            f"{rows.L_T.min():.4g} to {rows.L_T.max():.4g}"
        )
        reasons = published_reasons(rows)
        if reasons:
            lines.append(f"  the published 8-coefficient law cannot be identified: only {', '.join(reasons)}")
    again = repeats(table)
    if len(again):
        lines.append(
            f"  equal configurations differ by {100 * scatter(again):.2g} % (sd of ln loss, "
            f"{len(again)} rows of {again['cell'].nunique()} configurations)"
        )
    lines += [f"  {remark}" for remark in remarks(table)]
    laws = ("effective-tokens",) if rows.distillations else ()
    recipe = Recipe(laws=laws, pins=dict(fixed or {}), tied=tied, given=supervised)
    check_options(rows, recipe, gamma=gamma, given="the supervised law given")
    findings = judge(table, rows, supervised, with_gamma(recipe, gamma).free())
    if not any(finding.level == "refuse" for finding in findings):
        lines.append("  the design can be fitted" + ("" if findings else "; nothing to object"))
    return DesignReport(lines=tuple(lines), findings=tuple(findings))


def judge(
    table: pd.DataFrame,
    rows: Rows,
    supervised: SupervisedLaw | None,
    free: FreeCoefficients = DEFAULT_COEFFICIENTS,
) -> list[Finding]:
    """All findings about a table before ``free`` is fitted to it, alone or on a given supervised law."""
    findings = [] if supervised is not None else check_supervised(rows, free)
    if rows.distillations:
        findings += check_distillation(rows, supervised, free)
    elif supervised is not None:
        findings.append(
            Finding(
                level="refuse",
                what="there is nothing to fit: the supervised law is given, and no row is a distillation",
                mend="Add distillations, or fit the supervised runs alone",
            )
        )
    return findings + check_table(table)


def refuse(findings: Iterable[Finding]) -> None:
    """The refusals among the findings as one InputError."""
    refused = [str(finding) for finding in findings if finding.level == "refuse"]
    if refused:
        raise InputError("; ".join(refused))


def remarks(table: pd.DataFrame) -> list[str]:
    """What was done to the table on the way in, beyond leaving rows out."""
    thinned = list(table.attrs.get(READ_AS, []))
    thinned += [table.attrs[THINNED]] if THINNED in table.attrs else []
    if "tokens_from" not in table:
        return thinned
    filled = table.loc[(table["tokens_from"].fillna("") != "") & (table["excluded"] == ""), "tokens_from"]
    return thinned + [
        f"the tokens of {count} rows are {rule}; right only if compute is counted so, and is of the run's "
        "own training alone, without a teacher's inference"
        for rule, count in filled.value_counts().items()
    ]


def check_table(table: pd.DataFrame) -> list[Finding]:
    """Whether the rows are alike where they should be, and named where they belong together."""
    used = table[table["excluded"] == ""]
    found: list[Finding] = []
    methods = _values(used[used["kind"] == "distillation"], "method")
    if len(methods) > 1:
        found.append(
            Finding(
                level="warn",
                what=f"the distillations used {len(methods)} methods ({', '.join(methods[:4])}), pooled here",
                mend="Fit each method's table alone, or see leave_out('method') for how much they differ",
            )
        )
    contexts = _values(used, "context")
    if len(contexts) > 1:
        found.append(
            Finding(
                level="warn",
                what=f"the runs have {len(contexts)} contexts ({', '.join(contexts[:4])}), pooled here: a "
                "longer one lowers the loss, and costs more",
                mend="Fit each context's table alone",
            )
        )
    worn = used["epochs"] > REPEATED if "epochs" in used else pd.Series(False, index=used.index)
    if worn.any():
        found.append(
            Finding(
                level="warn",
                what=f"{worn.sum()} of {len(used)} runs saw their text more than {REPEATED:g} times (up to "
                f"{used['epochs'].max():.1f}), where another epoch is worth clearly less than new text: the "
                "coefficients of D bend to that",
                mend="Leave those runs out, or repeat them on more text",
            )
        )
    ratio = float((used["tokens"] / used["params"]).median())
    if not TOKENS_PER_PARAM[0] < ratio < TOKENS_PER_PARAM[1]:
        found.append(
            Finding(
                level="warn",
                what=f"half of the runs have {'less' if ratio < 1 else 'more'} than {ratio:.2g} tokens per "
                "parameter, which would be rare training",
                mend="Check that the columns of parameters and tokens are not each other's, or compute's",
            )
        )
    return found + check_groups(table)


def _values(table: pd.DataFrame, column: str) -> list[str]:
    return sorted(table[column].dropna().astype(str).unique()) if column in table else []


def levels(values: np.ndarray, ratio: float = 1.15) -> np.ndarray:
    """The distinct levels of a size: geometric means of values within ``ratio`` of the level's smallest."""
    ordered = np.unique(np.log(values))
    starts: list[int] = []
    for i, value in enumerate(ordered):
        if not starts or value - ordered[starts[-1]] > np.log(ratio):
            starts.append(i)
    return np.exp([part.mean() for part in np.split(ordered, starts[1:])]) if starts else ordered


def check_supervised(rows: Rows, free: FreeCoefficients = DEFAULT_COEFFICIENTS) -> list[Finding]:
    """What the supervised runs can determine of the free coefficients."""
    N, D = rows.N[: rows.supervised], rows.D[: rows.supervised]
    if not len(N):
        return [
            Finding(
                level="refuse",
                what="the table has distillations only, and a distillation law stands on a supervised law",
                mend="Add supervised runs of the same models and data, or give a calibration whose "
                "supervised law applies (--supervised)",
            )
        ]
    count, most = _counted(len(N), "supervised run"), free.supervised
    if len(N) < free.least_supervised:
        return [
            Finding(
                level="refuse",
                what=f"{count} cannot determine the {_counted(most, 'free coefficient')} of a supervised law",
                mend=f"Train at least {most + 4} (three sizes by three token counts), hold some coefficients "
                f"({most + 1} runs are the least; --fix E=1.7 and --tied need one fewer each), or give a "
                "calibration's law (--supervised)",
            )
        ]
    sizes, tokens = levels(N), levels(D)
    if len(sizes) < 2 or len(tokens) < 2:
        thin, name = (sizes, "model size") if len(sizes) < 2 else (tokens, "token count")
        return [
            Finding(
                level="refuse",
                what=f"every supervised run has one {name} ({thin[0]:.3g}): one term cannot be seen",
                mend=f"Add runs at two more {name}s, at least a factor of 4 apart",
            )
        ]
    found: list[Finding] = []
    if len(N) < most + 4:
        found.append(
            Finding(
                level="warn",
                what=f"{count} for {_counted(most, 'free coefficient')}: intervals rest on the weak priors",
                mend="Three sizes by three token counts are the least that speak for themselves",
            )
        )
    found += _check_one_line(N, D)
    for name, level in (("model sizes", sizes), ("token counts", tokens)):
        if len(level) < 2 + free.asymptote:
            found.append(
                Finding(
                    level="warn",
                    what=f"only {len(level)} {name} ({', '.join(f'{v:.3g}' for v in level)}): "
                    "an exponent and an asymptote cannot be told apart",
                    mend=f"Add a third of the {name}, beyond the range you have",
                )
            )
    for name, values in (("parameters", N), ("tokens", D)):
        span = float(values.max() / values.min())
        if span < 8:
            found.append(
                Finding(
                    level="warn",
                    what=f"{name} span a factor of {span:.2g} only",
                    mend="Exponents want a factor of 10 at least; add runs at the cheap end",
                )
            )
    return found


def _check_one_line(N: np.ndarray, D: np.ndarray) -> list[Finding]:
    """Warn where sizes and token counts lie on one line: of equal compute, or rising together."""
    correlation = float(np.corrcoef(np.log(N), np.log(D))[0, 1])
    compute, ratio = 6 * N * D, D / N
    one = compute.max() < ONE_BUDGET * compute.min()
    if one or correlation < -COLLINEAR:
        said = "all supervised runs have one compute" if one else "tokens fall as parameters rise"
        said += (
            f" (6 N D = {_range(compute)} FLOPs): one IsoFLOP profile shows the best size for that budget, "
        )
        said += "and not how the loss falls with compute"
        mend = "Add a second budget, at least a factor of 4 away, with three sizes or more"
        return [Finding(level="warn", what=said, mend=mend)]
    if correlation > COLLINEAR:
        where = " everywhere" if ratio.max() < 1.5 * ratio.min() else ""
        said = f"tokens move with parameters (correlation {correlation:.3f}, {_range(ratio)} tokens per "
        said += f"parameter{where}): alpha and beta cannot be told apart"
        mend = "Add runs at a quarter and at four times these tokens per parameter, for two sizes"
        return [Finding(level="warn", what=said, mend=mend)]
    return []


def _range(values: np.ndarray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


def check_distillation(
    rows: Rows, supervised: SupervisedLaw | None, free: FreeCoefficients = DEFAULT_COEFFICIENTS
) -> list[Finding]:
    """What the distillations can determine; with the supervised law, also which side the teachers are on."""
    n = rows.supervised
    N, D, L_T = rows.N[n:], rows.D[n:], rows.L_T
    found: list[Finding] = []
    if len(N) < free.least_distillations:
        most = free.distillation
        return [
            Finding(
                level="refuse",
                what=f"{_counted(len(N), 'distillation')} cannot determine the "
                f"{_counted(most, 'free coefficient')} of the distillation law",
                mend=f"Distil at least {max(8, most + 1)}, for example two students from four teachers each"
                + (", or fit effective-tokens, which has 3 coefficients" if most > 3 else ""),
            )
        ]
    teachers = np.unique(np.round(L_T, 4))
    if len(teachers) < 3:
        found.append(
            Finding(
                level="warn",
                what=f"the distillations use {len(teachers)} teacher{'s' * (len(teachers) > 1)} only: "
                "how a student answers to the teacher's loss cannot be seen",
                mend="Add teachers, some better and some worse than the students' own loss",
            )
        )
    if supervised is not None:
        apart = students_apart(rows.L[n:], L_T, supervised.loss(N, D))
        if apart:
            found.append(Finding(level="warn", what=apart, mend="Give all losses in nats/token"))
        ratio = L_T / supervised.loss(N, D)
        better = float(np.mean(ratio < 1))
        if better in (0.0, 1.0):
            side, other = ("better", "worse") if better else ("worse", "better")
            found.append(
                Finding(
                    level="warn",
                    what=f"every teacher is {side} than its student would be alone "
                    f"(L_T/Ls {ratio.min():.3f} to {ratio.max():.3f}): "
                    f"{'eps and q are' if better else 'k is'} not determined",
                    mend=f"Add teachers that are {other} than the student's own supervised loss",
                )
            )
    return found


def check_fit(kind: str, observed: np.ndarray, predicted: np.ndarray) -> list[Finding]:
    """Whether a fitted law describes its runs at all; losses in nats/token."""
    residual = np.log(observed / predicted)
    spread, error = float(np.std(np.log(observed))), float(np.sqrt(np.mean(residual**2)))
    if error < 0.05 and error < 0.6 * spread:
        return []
    return [
        Finding(
            level="warn",
            what=f"the law misses the {kind} runs by {100 * error:.1f} % rms, of the {100 * spread:.1f} % by "
            "which they differ: it does not describe them",
            mend="Check columns and units, and that runs were tuned and trained alike",
        )
    ]


def published_reasons(rows: Rows) -> list[str]:
    """Why the published 8-coefficient law cannot be identified by these distillations; empty if it can."""
    n = rows.supervised
    N, D, L_T = rows.N[n:], rows.D[n:], rows.L_T
    needs = (
        (len(N), 24, "distillation", "distillations"),
        (len(levels(N)), 3, "student size", "student sizes"),
        (len(levels(D)), 3, "student token count", "student token counts"),
        (len(levels(L_T, 1.01)), 4, "teacher loss", "teacher losses"),
    )
    return [
        f"{_counted(have, one, many)}, of at least {least}"
        for have, least, one, many in needs
        if have < least
    ]


def _rows(table: pd.DataFrame, reason: str) -> str:
    rows = [str(i + 1) for i in np.flatnonzero(table["excluded"] == reason)]
    return f"row{'s' * (len(rows) > 1)} {', '.join(rows[:6])}" + (", ..." if len(rows) > 6 else "")


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
