"""What training costs, as far as a table of runs says it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from scaling.compute import FORWARDS_PER_STEP, Architecture


def architecture(table: pd.DataFrame) -> Architecture:
    """The FLOP accounting of these models: what the table says of them, where one value holds for all."""
    default = Architecture()
    return replace(
        default,
        aspect_ratio=_only(table, "aspect_ratio") or default.aspect_ratio,
        context=int(_only(table, "context") or default.context),
        vocab=int(_only(table, "vocab") or default.vocab),
    )


def training_flops(table: pd.DataFrame) -> tuple[pd.Series[float], str]:
    """FLOPs a token of training each row's model, and the rule in words.

    3 F(N) of the table's architecture where it gives one vocabulary and context, 6 N elsewhere.
    """
    if not (_only(table, "vocab") and _only(table, "context")):
        return 6.0 * table["params"], "compute / (6 params), attention and vocabulary not counted"
    forward = architecture(table).forward_flops(table["params"].to_numpy(np.float64))
    cost = pd.Series(FORWARDS_PER_STEP * forward, index=table.index)
    return cost, "compute / (3 F), attention and vocabulary counted"


def _only(table: pd.DataFrame, column: str) -> float | None:
    """The one positive number that a column holds; None where it holds none, several, or text."""
    if column not in table:
        return None
    numbers = pd.to_numeric(table[column], errors="coerce").dropna().unique()
    return float(numbers[0]) if len(numbers) == 1 and numbers[0] > 0 else None
