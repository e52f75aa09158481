"""The two public data sets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fits import read_runs

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def chinchilla() -> pd.DataFrame:
    """The 240 runs that published fits use: the five highest losses dropped."""
    table = read_runs(DATA / "chinchilla.csv", {"N": "N", "C": "C", "L": "loss"})
    return table.sort_values("loss").iloc[:240].reset_index(drop=True)


@pytest.fixture(scope="session")
def figure1() -> pd.DataFrame:
    """The 354 runs of Figure 1."""
    return read_runs(DATA / "figure1.csv", {"N": "NS", "D": "DS", "L": "LS", "L_T": "LT"})
