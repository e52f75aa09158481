"""Detection of unnamed checkpoints of one run, and of replicates of one configuration."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from fits.findings import Finding
from fits.table.columns.column_names import SYNONYMS
from fits.table.validation.validation import unnamed_rows

CHECKPOINT_COUNT = 8
"""Least number of token counts of one size, teacher and setting that may be unnamed checkpoints."""
SPACING_TOLERANCE = 0.02
"""Relative tolerance of the intervals between evenly spaced checkpoints."""
TEXT_TOLERANCE = 0.02
"""Relative tolerance of unique tokens of one text."""
CONFIGURATION = ("kind", "params", "tokens", "teacher_loss", "epochs")
"""Columns in which replicates agree."""
EXPLAINED_VARIANCE = 0.8
"""Share of the variance between replicates above which a column explains their differences."""
CONSTANT_DIFFERENCE_CV = 0.3
"""Coefficient of variation below which differences between replicates are constant, not noise."""
MIN_CONFIGURATIONS = 6
"""Least number of configurations with replicates for a check of their differences."""
MAX_SD_RATIO = 3.0
"""Largest ratio of the standard deviation of replicates to the residual rms of their means."""


def unnamed_checkpoints(table: pd.DataFrame) -> int:
    """Count token counts of one size that look like checkpoints of one unnamed run; 0 if none do.

    Checkpoints are evenly spaced, or the same for most sizes. Separate runs at fixed compute, or on texts of
    different lengths, are neither.
    """
    rows = table[(table["excluded"] == "") & unnamed_rows(table)]
    if rows.empty or "run" in table.attrs.get("stated", ()):
        return 0
    grids = [np.unique(part["tokens"]) for part in _groups_of_equal_settings(rows)]
    suspect = [grid for grid in grids if len(grid) >= CHECKPOINT_COUNT]
    return max(
        (len(grid) for grid in suspect if _is_evenly_spaced(grid) or _is_shared(grid, suspect)), default=0
    )


def _groups_of_equal_settings(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield groups of rows that agree in everything that does not change during a run."""
    keys = rows[["kind", "params", "teacher_loss"]].copy()
    for column in ("seed", "context", "vocab", "corpus", "method", "teacher"):
        if column in rows:
            keys[column] = rows[column].astype(str)
    if "epochs" in rows:
        unique = np.log((rows["tokens"] / rows["epochs"]).where(rows["epochs"] > 0))
        keys["text"] = np.round(unique / TEXT_TOLERANCE)
    for _, part in keys.groupby(list(keys), dropna=False, sort=False):
        own = rows.loc[part.index]
        others = [c for c in own.columns if c not in SYNONYMS and _is_setting(own[c])]
        if others:
            yield from (each for _, each in own.groupby(others, dropna=False, sort=False))
        else:
            yield own


def _is_setting(values: pd.Series) -> bool:
    """Return True if a column looks like a setting: a few values, each in several rows."""
    return 1 < values.astype(str).nunique() <= len(values) / 3


def _is_evenly_spaced(tokens: np.ndarray) -> bool:
    gaps = np.diff(tokens)
    return bool(np.mean(np.abs(gaps / np.median(gaps) - 1) < SPACING_TOLERANCE) >= 0.5)


def _is_shared(tokens: np.ndarray, grids: list[np.ndarray]) -> bool:
    others = [grid for grid in grids if grid is not tokens]
    return bool(others) and np.mean([np.isin(tokens, grid).mean() for grid in others]) >= 0.5


def replicates(table: pd.DataFrame) -> pd.DataFrame:
    """Return the usable rows of configurations with several rows.

    Adds ``cell``, the number of the configuration, and ``deviation``, ln loss minus its mean there.
    """
    used = table[table["excluded"] == ""]
    keys = [column for column in CONFIGURATION if column in used]
    used = used.assign(cell=used.groupby(keys, dropna=False, sort=False).ngroup())
    used = used[used["cell"].duplicated(keep=False)]
    ln_loss = np.log(used["loss"])
    return used.assign(deviation=ln_loss - ln_loss.groupby(used["cell"]).transform("mean"))


def replicate_sd(repeated: pd.DataFrame) -> float:
    """Return the standard deviation of ln loss within the configurations of :func:`replicates`."""
    freedom = len(repeated) - repeated["cell"].nunique()
    return float(np.sqrt((repeated["deviation"] ** 2).sum() / freedom)) if freedom else 0.0


def cause_of_differences(repeated: pd.DataFrame) -> str:
    """Describe what explains the differences of replicates: a column, a constant; empty if they are noise."""
    cells, spread = repeated["cell"].nunique(), replicate_sd(repeated)
    if cells < 2 or spread == 0.0:
        return ""
    ours = [*SYNONYMS, "excluded", "cell", "deviation", "tokens_from"]
    for column in repeated.columns.difference(ours, sort=False):
        explained = _explained_variance(repeated, repeated[column].astype(str), cells)
        if explained > EXPLAINED_VARIANCE:
            names = ", ".join(repr(value) for value in list(dict.fromkeys(repeated[column].astype(str)))[:4])
            return (
                f"column {column!r} ({names}) explains {100 * explained:.0f} % of that variance: the losses "
                "pooled here measure different things"
            )
    of_cells = repeated.groupby("cell")["deviation"].agg(["size", "min", "max"])
    ranges = (of_cells["max"] - of_cells["min"])[of_cells["size"] <= 4]
    if len(ranges) >= MIN_CONFIGURATIONS and ranges.std() < CONSTANT_DIFFERENCE_CV * ranges.mean():
        return (
            f"the difference is nearly constant ({100 * ranges.mean():.2g} %, varying by "
            f"{100 * ranges.std():.2g} %), unlike that of seeds: losses on two texts may be pooled"
        )
    return ""


def _explained_variance(repeated: pd.DataFrame, labels: pd.Series[str], cells: int) -> float:
    """Return the adjusted share of the variance within configurations that labels explain."""
    count = labels.nunique()
    freedom = len(repeated) - cells - (count - 1)
    if not 2 <= count <= 20 or freedom < 3 or repeated.groupby(labels)["cell"].nunique().min() < 2:
        return 0.0
    rest = repeated["deviation"] - repeated["deviation"].groupby(labels).transform("mean")
    return 1.0 - float((rest**2).sum() / freedom) / replicate_sd(repeated) ** 2


def replicate_sd_beyond_residual(table: pd.DataFrame) -> tuple[float, float] | None:
    """Return the standard deviation of replicates and the one that the residual of their means allows.

    Residuals of means of k independent replicates have at least their standard deviation / sqrt(k). None if
    that holds within ``MAX_SD_RATIO``. ``table`` has ``predicted``.
    """
    repeated = replicates(table)
    cells = repeated["cell"].nunique()
    if cells < MIN_CONFIGURATIONS:
        return None
    repeated = repeated.assign(residual=np.log(repeated["loss"] / repeated["predicted"]))
    of_cells = repeated.groupby("cell")["residual"].agg(["size", "mean"])
    allowed = float(np.sqrt((of_cells["size"] * of_cells["mean"] ** 2).mean()))
    found = replicate_sd(repeated)
    return (found, allowed) if found > MAX_SD_RATIO * allowed else None


def check_groups(table: pd.DataFrame) -> list[Finding]:
    """Warn about checkpoints without a run's name, and about replicates that are none."""
    found = []
    if count := unnamed_checkpoints(table):
        found.append(
            Finding(
                level="warn",
                message=f"up to {count} token counts of one size and teacher, in rows without a run's "
                "name: if they are checkpoints of one run, every interval is several times too narrow",
                remedy="Name the runs in a column 'run' (--map run=...); if every row is a separate run, add "
                "--map run=",
            )
        )
    repeated = replicates(table)
    if cause := cause_of_differences(repeated):
        found.append(
            Finding(
                level="warn",
                message=f"runs of equal configuration differ by {100 * replicate_sd(repeated):.2g} % (sd); "
                f"{cause}",
                remedy="Fit each in its own table",
            )
        )
    return found


def check_replicates(table: pd.DataFrame) -> list[Finding]:
    """Warn if replicates differ by far more than the residuals of their means allow.

    ``table`` has ``predicted``.
    """
    beyond = replicate_sd_beyond_residual(table)
    if beyond is None:
        return []
    found, allowed = beyond
    return [
        Finding(
            level="warn",
            message=f"runs of equal configuration differ by {100 * found:.2g} % (sd), {found / allowed:.0f} "
            "times what the residuals of their means allow for independent replicates "
            f"({100 * allowed:.2g} %)",
            remedy="Two evaluation sets, or two settings, may be pooled: fit each in its own table",
        )
    ]
