"""Rows that belong together without saying so: checkpoints of one run, and repeats of one configuration."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from fits.table.column_names import SYNONYMS
from fits.table.findings import Finding
from fits.table.validation import unnamed

CHECKPOINTS = 8
"""Token counts of one size, teacher and setting from which unnamed rows may be checkpoints."""
EVEN = 0.02
"""Intervals between checkpoints differ by less than this, as a share."""
SAME_TEXT = 0.02
"""Unique tokens within this factor are one text."""
CONFIGURATION = ("kind", "params", "tokens", "teacher_loss", "epochs")
"""What repeats of one configuration share."""
EXPLAINED = 0.8
"""A column that explains this share of the variance between repeats is no accident."""
CONSTANT = 0.3
"""Coefficient of variation of the differences between repeats below which they are no noise."""
LEAST = 6
"""Configurations with repeats from which their differences can be judged."""
MANY = 3.0
"""The scatter of repeats is too large where it is this many times what their means' residual allows."""


def unnamed_checkpoints(table: pd.DataFrame) -> int:
    """Token counts of one size that look like checkpoints of a run that no row names; 0 if none do.

    They look so where they are evenly spaced, as evaluations are, or the same for most sizes. Trainings of
    their own at fixed compute, or on texts of different lengths, are neither.
    """
    rows = table[(table["excluded"] == "") & unnamed(table)]
    if rows.empty or "run" in table.attrs.get("stated", ()):
        return 0
    grids = [np.unique(part["tokens"]) for part in _trainings(rows)]
    suspect = [grid for grid in grids if len(grid) >= CHECKPOINTS]
    return max((len(grid) for grid in suspect if _even(grid) or _shared(grid, suspect)), default=0)


def _trainings(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Rows alike in all that does not change within a training."""
    keys = rows[["kind", "params", "teacher_loss"]].copy()
    for column in ("seed", "context", "vocab", "corpus", "method", "teacher"):
        if column in rows:
            keys[column] = rows[column].astype(str)
    if "epochs" in rows:
        unique = np.log((rows["tokens"] / rows["epochs"]).where(rows["epochs"] > 0))
        keys["text"] = np.round(unique / SAME_TEXT)
    for _, part in keys.groupby(list(keys), dropna=False, sort=False):
        own = rows.loc[part.index]
        others = [c for c in own.columns if c not in SYNONYMS and _setting(own[c])]
        if others:
            yield from (each for _, each in own.groupby(others, dropna=False, sort=False))
        else:
            yield own


def _setting(values: pd.Series) -> bool:
    """Whether a column looks like a setting of its run: a few values, each for several rows."""
    return 1 < values.astype(str).nunique() <= len(values) / 3


def _even(tokens: np.ndarray) -> bool:
    gaps = np.diff(tokens)
    return bool(np.mean(np.abs(gaps / np.median(gaps) - 1) < EVEN) >= 0.5)


def _shared(tokens: np.ndarray, grids: list[np.ndarray]) -> bool:
    others = [grid for grid in grids if grid is not tokens]
    return bool(others) and np.mean([np.isin(tokens, grid).mean() for grid in others]) >= 0.5


def repeats(table: pd.DataFrame) -> pd.DataFrame:
    """The usable rows of configurations that have several, with ``cell`` and the deviation ``apart``.

    ``apart`` is ln loss minus its mean in the configuration.
    """
    used = table[table["excluded"] == ""]
    keys = [column for column in CONFIGURATION if column in used]
    used = used.assign(cell=used.groupby(keys, dropna=False, sort=False).ngroup())
    used = used[used["cell"].duplicated(keep=False)]
    ln_loss = np.log(used["loss"])
    return used.assign(apart=ln_loss - ln_loss.groupby(used["cell"]).transform("mean"))


def scatter(again: pd.DataFrame) -> float:
    """Standard deviation of ln loss within the configurations of :func:`repeats`."""
    freedom = len(again) - again["cell"].nunique()
    return float(np.sqrt((again["apart"] ** 2).sum() / freedom)) if freedom else 0.0


def cause_of_scatter(again: pd.DataFrame) -> str:
    """What repeats differ by where that is no noise, a column or a constant; empty elsewhere."""
    cells, spread = again["cell"].nunique(), scatter(again)
    if cells < 2 or spread == 0.0:
        return ""
    ours = [*SYNONYMS, "excluded", "cell", "apart", "tokens_from"]
    for column in again.columns.difference(ours, sort=False):
        explained = _explained(again, again[column].astype(str), cells)
        if explained > EXPLAINED:
            names = ", ".join(repr(value) for value in list(dict.fromkeys(again[column].astype(str)))[:4])
            return (
                f"column {column!r} ({names}) accounts for {100 * explained:.0f} % of that: losses are "
                "pooled that measure different things"
            )
    of_cells = again.groupby("cell")["apart"].agg(["size", "min", "max"])
    ranges = (of_cells["max"] - of_cells["min"])[of_cells["size"] <= 4]
    if len(ranges) >= LEAST and ranges.std() < CONSTANT * ranges.mean():
        return (
            f"they differ by nearly the same everywhere ({100 * ranges.mean():.2g} %, varying by "
            f"{100 * ranges.std():.2g} %), as seeds do not: losses on two texts may be pooled"
        )
    return ""


def _explained(again: pd.DataFrame, labels: pd.Series[str], cells: int) -> float:
    """The share of the variance within configurations that labels explain, for their number."""
    count = labels.nunique()
    freedom = len(again) - cells - (count - 1)
    if not 2 <= count <= 20 or freedom < 3 or again.groupby(labels)["cell"].nunique().min() < 2:
        return 0.0
    rest = again["apart"] - again["apart"].groupby(labels).transform("mean")
    return 1.0 - float((rest**2).sum() / freedom) / scatter(again) ** 2


def scatter_beyond_residual(table: pd.DataFrame) -> tuple[float, float] | None:
    """The scatter of repeats and the smaller one that their means' misfit allows; None if all is well.

    ``table`` has ``predicted``. Means of k independent repeats miss any law by at least scatter / sqrt(k).
    """
    again = repeats(table)
    cells = again["cell"].nunique()
    if cells < LEAST:
        return None
    again = again.assign(residual=np.log(again["loss"] / again["predicted"]))
    of_cells = again.groupby("cell")["residual"].agg(["size", "mean"])
    allowed = float(np.sqrt((of_cells["size"] * of_cells["mean"] ** 2).mean()))
    found = scatter(again)
    return (found, allowed) if found > MANY * allowed else None


def check_groups(table: pd.DataFrame) -> list[Finding]:
    """Warnings about checkpoints without a run's name, and about repeats that are none."""
    found = []
    if count := unnamed_checkpoints(table):
        found.append(
            Finding(
                level="warn",
                what=f"up to {count} token counts of one size and teacher, in rows without a run's "
                "name: if they are checkpoints of one run, every interval is several times too narrow",
                mend="Name the runs in a column 'run' (--map run=...); if every row is a training of its "
                "own, say --map run=",
            )
        )
    again = repeats(table)
    if cause := cause_of_scatter(again):
        found.append(
            Finding(
                level="warn",
                what=f"runs of equal configuration differ by {100 * scatter(again):.2g} % (sd); {cause}",
                mend="Fit a table of each alone",
            )
        )
    return found


def check_scatter(table: pd.DataFrame) -> list[Finding]:
    """A warning where equal configurations differ by far more than their means miss the fitted law.

    ``table`` is annotated with ``predicted``.
    """
    beyond = scatter_beyond_residual(table)
    if beyond is None:
        return []
    found, allowed = beyond
    return [
        Finding(
            level="warn",
            what=f"runs of equal configuration differ by {100 * found:.2g} % (sd), {found / allowed:.0f} "
            "times what the law's misfit of their means allows for independent repeats "
            f"({100 * allowed:.2g} %)",
            mend="Two evaluation sets, or two settings, may be pooled: fit a table of each alone",
        )
    ]
