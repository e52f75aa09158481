"""Projected losses: what a run would reach after its decay, from the end of its stable phase.

Under warm-up-stable-decay the decay lowers ln loss by nearly the same amount at any length of a run. Of one
short run that was decayed, that amount is known; a longer run of the same size need then only be trained to
the end of its stable phase. What such a loss lacks in precision beside a measured one stands in the column
``projected_sd`` of a runs table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PROJECTED_SD = "projected_sd"
"""Column of the standard deviation of ln loss that a projected loss has beyond the noise of a run; empty for
measured losses."""
DRIFT_SD = 0.0048
"""Standard deviation by which the drop of a decay, in ln loss, changes while the tokens of a run grow by a
factor of e, growing with the square root of ln tokens: over 891 pairs of lengths of the 20 sizes of Gemstones
(McLeish et al. 2025), which were decayed at ten lengths each, 94 % of the changes are within 1.645 times it.
From the shortest to the longest, ten times as long, their rms is .0058."""
SHORT_SD, SHORT_STEPS = 0.011, 512
"""Standard deviation of ln loss that a shorter run of so few optimizer steps adds, falling with the square of
its steps: projected from 512 steps, 18 runs of 13k to 56k parameters on the quickstart's text were .97 % too
high in the mean (rms .0110), and projected from 1,024 steps 12 of them were off by .0032 rms."""
MEASURED_TOO = "projected, and the same run was measured"
"""Reason to exclude a projected loss."""
MEASURED_ONLY = "projected, and measured losses alone were asked for"
_TWIN = ("kind", "params", "tokens", "seed", "teacher", "teacher_loss", "method")

Array = NDArray[np.float64]


def projected_loss(stable_loss: ArrayLike, early_stable_loss: ArrayLike, early_loss: ArrayLike) -> Array:
    """Return the loss that a run would have after its decay, nats/token.

    Args:
        stable_loss: Its loss at the end of its stable phase.
        early_stable_loss: That of a shorter run of the same size, before its decay.
        early_loss: The loss of the shorter run after its decay.

    >>> round(float(projected_loss(3.0, 3.3, 3.2)), 4)
    2.9091
    """
    return np.asarray(np.asarray(stable_loss, float) * np.asarray(early_loss, float) / early_stable_loss)


def projection_sd(tokens: ArrayLike, early_tokens: ArrayLike, early_steps: ArrayLike = np.inf) -> Array:
    """Return the standard deviation of ln loss of a projection.

    Args:
        tokens: Tokens of the run that the loss is of.
        early_tokens: Tokens of the shorter run that was decayed.
        early_steps: Its optimizer steps.

    >>> [round(float(projection_sd(times, 1.0)), 4) for times in (1, 2, 10)]
    [0.0, 0.004, 0.0073]
    >>> [round(float(projection_sd(2.0, 1.0, steps)), 4) for steps in (512, 1024, 4096)]
    [0.0117, 0.0049, 0.004]
    """
    drift = DRIFT_SD * np.sqrt(np.log(np.asarray(tokens, float) / np.asarray(early_tokens, float)))
    short = SHORT_SD * (SHORT_STEPS / np.asarray(early_steps, float)) ** 2
    return np.asarray(np.hypot(drift, short))


def projected(table: pd.DataFrame) -> pd.Series[bool]:
    """Return a mask of the rows whose loss is projected."""
    if PROJECTED_SD not in table:
        import pandas as pd  # heavy, and not needed for the deviations of planned losses

        return pd.Series(False, index=table.index)
    return table[PROJECTED_SD].fillna(0.0) > 0.0


def measured_twins(table: pd.DataFrame, usable: pd.Series[bool]) -> pd.Series[bool]:
    """Return a mask of projected rows of which the same run, fully trained, is a usable row as well."""
    mine = projected(table)
    if not mine.any():
        return mine
    key = table[[column for column in _TWIN if column in table]].astype(object)
    names = key.where(key.notna(), "").apply(tuple, axis=1)
    return mine & names.isin(names[usable & ~mine])


def without_projected(table: pd.DataFrame) -> pd.DataFrame:
    """Return a validated table in which projected losses are excluded.

    Raises:
        InputError: if no loss is projected.
    """
    mine = projected(table) & (table["excluded"] == "")
    if not projected(table).any():
        raise InputError(
            f"no loss of the table is projected (column {PROJECTED_SD}): measured losses are all there are"
        )
    found = table.copy()
    found.attrs.update(table.attrs)
    found.loc[mine, "excluded"] = MEASURED_ONLY
    return found


def projection_notes(table: pd.DataFrame) -> list[str]:
    """Return a note on the projected losses that are used."""
    mine = projected(table) & (table["excluded"] == "")
    if not mine.any():
        return []
    low, high = (100 * float(table.loc[mine, PROJECTED_SD].agg(each)) for each in ("min", "max"))
    return [
        f"{int(mine.sum())} losses are projected from stable phases, and weigh less: their ln loss is less "
        f"certain than a measured one by {low:.2g} to {high:.2g} %; --measured-only leaves them out"
    ]
