"""Data sets of real runs for examples, tests and comparisons; sources in ``data/SOURCE.md``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fits.table.runs import read_runs

_DATA = Path(__file__).with_name("data")


def chinchilla() -> pd.DataFrame:
    """Load 245 supervised runs of Hoffmann et al. 2022, as reconstructed by Besiroglu et al. 2024.

    Tokens are C/(6N). The published fits leave out the five highest losses.
    """
    return read_runs(_DATA / "chinchilla.csv", {"N": "N", "C": "C", "L": "loss"})


def figure1() -> pd.DataFrame:
    """Load 354 distillation runs of Busbridge et al. 2025, Figure 1; ``split`` is that of the authors.

    Their supervised law is the one printed in the paper's Table 6; no supervised runs were released.
    """
    return read_runs(_DATA / "figure1.csv", {"N": "NS", "D": "DS", "L": "LS", "L_T": "LT"})


def figure1_curves() -> pd.DataFrame:
    """Load points of the authors' fitted law, read from the curves drawn in the same figure (``loss``)."""
    return read_runs(_DATA / "figure1_curves.csv", {"N": "NS", "D": "DS", "L": "LS_pred", "L_T": "LT"})


def permissive() -> pd.DataFrame:
    """Load 209 runs of 13k to 400k parameters, from the sweep that the ``permissive`` preset describes.

    The table lies beside that preset, in ``sweeps``.
    """
    return read_runs(_DATA.parents[1] / "sweeps" / "presets" / "permissive.csv")
