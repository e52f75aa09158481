"""Thinning of tables that are too large to fit: of neighboring checkpoints of a run one is kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from fits.table.columns.cells import to_numbers
from scaling.errors import InputError

MAX_ROWS = 1_000_000
"""Largest number of rows that can be fitted."""
TOKENS_STEP_FACTOR = 1.05
"""Factor of tokens within which checkpoints of one run are neighbors."""
THINNED = "thinned"
"""Attribute of a thinned table with a note on it."""
READ_AS = "read_as"
"""Attribute of a table with notes on how it was read."""


def concatenate_parts(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the parts of a table, thinning checkpoints where they exceed ``MAX_ROWS``.

    Raises:
        InputError: for a table that cannot be thinned to that.
    """
    waiting: list[pd.DataFrame] = []
    rows = 0
    for part in parts:
        waiting.append(part)
        rows += len(part)
        if sum(map(len, waiting)) > MAX_ROWS:
            waiting = [_thin_checkpoints(pd.concat(waiting, ignore_index=True), rows)]
    whole = waiting[0] if len(waiting) == 1 else pd.concat(waiting, ignore_index=True)
    if rows > MAX_ROWS:
        whole = _thin_checkpoints(whole, rows)
        whole.attrs[THINNED] = (
            f"of {rows:,} rows {len(whole):,} are used: of the checkpoints of a run whose tokens lie within "
            f"{100 * (TOKENS_STEP_FACTOR - 1):.0f} %, the last"
        )
    return whole


def _thin_checkpoints(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Return the last checkpoint of every run in every step of tokens."""
    progress = next((name for name in ("tokens", "compute") if name in table), None)
    if "run" not in table or progress is None:
        raise InputError(
            f"the table has over {MAX_ROWS:,} rows, the most that can be fitted. If they are checkpoints, "
            "name their runs in a column 'run' (--map run=...): then neighboring ones are thinned"
        )
    amount = to_numbers(table, progress)
    key = table[[name for name in ("run", "seed", "kind") if name in table]].assign(
        step=np.floor(np.log(amount.where(amount > 0)) / np.log(TOKENS_STEP_FACTOR)),
        measured=table[[name for name in ("loss", "loss_bits") if name in table]].notna().any(axis=1),
    )
    kept = table[~key.duplicated(keep="last")]
    if len(kept) > MAX_ROWS / 2:
        raise InputError(
            f"the table has {rows:,} rows or more, {len(kept):,} even with one checkpoint of a run for every "
            f"{100 * (TOKENS_STEP_FACTOR - 1):.0f} % of its tokens; at most {MAX_ROWS:,} can be fitted: take "
            "fewer runs"
        )
    return kept
