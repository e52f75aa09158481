"""Tables too large to fit: neighbouring checkpoints of one run say nearly the same, so one is kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from fits.table.cells import numbers
from scaling.errors import InputError

MOST_ROWS = 1_000_000
STEP = 1.05
"""Checkpoints of one run within this factor of tokens count as neighbours."""
THINNED = "thinned"
"""The attribute of a thinned table that says so."""
READ_AS = "read_as"
"""The attribute of a table that lists notes on how it was read."""


def gathered(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The parts of a table as one, thinned on the way wherever they grow beyond ``MOST_ROWS``.

    Raises InputError for a table that cannot be thinned to that.
    """
    waiting: list[pd.DataFrame] = []
    rows = 0
    for part in parts:
        waiting.append(part)
        rows += len(part)
        if sum(map(len, waiting)) > MOST_ROWS:
            waiting = [_thinned(pd.concat(waiting, ignore_index=True), rows)]
    whole = waiting[0] if len(waiting) == 1 else pd.concat(waiting, ignore_index=True)
    if rows > MOST_ROWS:
        whole = _thinned(whole, rows)
        whole.attrs[THINNED] = (
            f"of {rows:,} rows {len(whole):,} are used: of the checkpoints of a run whose tokens lie within "
            f"{100 * (STEP - 1):.0f} %, the last"
        )
    return whole


def _thinned(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """The last checkpoint of every run in every step of tokens."""
    progress = next((name for name in ("tokens", "compute") if name in table), None)
    if "run" not in table or progress is None:
        raise InputError(
            f"the table has over {MOST_ROWS:,} rows, the most that can be fitted. If they are checkpoints, "
            "name their runs in a column 'run' (--map run=...): then neighbouring ones are thinned"
        )
    amount = numbers(table, progress)
    key = table[[name for name in ("run", "seed", "kind") if name in table]].assign(
        step=np.floor(np.log(amount.where(amount > 0)) / np.log(STEP)),
        measured=table[[name for name in ("loss", "loss_bits") if name in table]].notna().any(axis=1),
    )
    kept = table[~key.duplicated(keep="last")]
    if len(kept) > MOST_ROWS / 2:
        raise InputError(
            f"the table has {rows:,} rows or more, {len(kept):,} even with one checkpoint of a run for every "
            f"{100 * (STEP - 1):.0f} % of its tokens; at most {MOST_ROWS:,} can be fitted: take fewer runs"
        )
    return kept
