"""The two public data sets."""

from __future__ import annotations

import pandas as pd
import pytest

from fits import datasets


@pytest.fixture(scope="session")
def chinchilla() -> pd.DataFrame:
    """The 240 runs that published fits use: the five highest losses dropped."""
    return datasets.chinchilla().sort_values("loss").iloc[:240].reset_index(drop=True)


@pytest.fixture(scope="session")
def figure1() -> pd.DataFrame:
    """The 354 runs of Figure 1."""
    return datasets.figure1()
