"""Checks of which coefficients of a supervised law the runs identify, before fitting."""

from __future__ import annotations

import numpy as np

from fits.estimation.joint import DEFAULT_COEFFICIENTS, FreeCoefficients
from fits.estimation.model import Rows
from fits.findings import Finding

COLLINEAR_CORRELATION = 0.98
"""Correlation of ln N and ln D above which their exponents are not identifiable."""
SAME_BUDGET_FACTOR = 1.5
"""Factor of compute within which runs have one budget."""


def check_supervised(rows: Rows, free: FreeCoefficients = DEFAULT_COEFFICIENTS) -> list[Finding]:
    """Check which free coefficients the supervised runs identify."""
    N, D = rows.N[: rows.n_supervised], rows.D[: rows.n_supervised]
    if free.sibling:
        return _check_mapped(N, free)
    refused = _refusal(N, D, free)
    return [refused] if refused else _warnings(N, D, free)


def _check_mapped(N: np.ndarray, free: FreeCoefficients) -> list[Finding]:
    """Check that there are runs to map a sibling's law by."""
    if len(N) < free.min_supervised_runs:
        return [
            Finding(
                level="refuse",
                message=f"{counted(len(N), 'supervised run')} cannot map the law of {free.sibling}",
                remedy="Train three, of three sizes; two are the least",
            )
        ]
    return []


def _refusal(N: np.ndarray, D: np.ndarray, free: FreeCoefficients) -> Finding | None:
    """Return why no law can be fitted; None if one can."""
    if not len(N):
        return Finding(
            level="refuse",
            message="the table has distillations only, and a distillation law needs a supervised law",
            remedy="Add supervised runs of the same models and data, or give a calibration whose "
            "supervised law applies (--supervised)",
        )
    count, most = counted(len(N), "supervised run"), free.supervised
    if len(N) < free.min_supervised_runs:
        return Finding(
            level="refuse",
            message=f"{count} cannot determine the {counted(most, 'free coefficient')} of a supervised law",
            remedy=f"Train at least {most + 4} (three sizes by three token counts), hold some "
            f"coefficients ({most + 1} runs are the least; --fix E=1.7 and --tied need one fewer each), "
            "or give a calibration's law (--supervised)",
        )
    sizes, tokens = distinct_levels(N), distinct_levels(D)
    if len(sizes) < 2 or len(tokens) < 2:
        single_level, name = (sizes, "model size") if len(sizes) < 2 else (tokens, "token count")
        return Finding(
            level="refuse",
            message=f"every supervised run has one {name} ({single_level[0]:.3g}): the term of this "
            "variable is not identifiable",
            remedy=f"Add runs at two more {name}s, at least a factor of 4 apart",
        )
    return None


def _warnings(N: np.ndarray, D: np.ndarray, free: FreeCoefficients) -> list[Finding]:
    """Return which coefficients rest on the weak priors, or on too narrow a range."""
    found: list[Finding] = []
    if len(N) < free.supervised + 4:
        found.append(
            Finding(
                level="warn",
                message=f"{counted(len(N), 'supervised run')} for "
                f"{counted(free.supervised, 'free coefficient')}: intervals depend on the weak priors",
                remedy="Train at least three sizes by three token counts, which determine the coefficients "
                "without priors",
            )
        )
    found += _check_collinear(N, D)
    for name, level in (("model sizes", distinct_levels(N)), ("token counts", distinct_levels(D))):
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


def distinct_levels(values: np.ndarray, ratio: float = 1.15) -> np.ndarray:
    """Return the distinct levels of a size: geometric means of values within ``ratio`` of the smallest."""
    ordered = np.unique(np.log(values))
    starts: list[int] = []
    for i, value in enumerate(ordered):
        if not starts or value - ordered[starts[-1]] > np.log(ratio):
            starts.append(i)
    return np.exp([part.mean() for part in np.split(ordered, starts[1:])]) if starts else ordered


def counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
